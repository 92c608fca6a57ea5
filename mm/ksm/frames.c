// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fresh frames: a pool that nobody can tell the next frame of.
 *
 * When equal pages are merged, the frame of one of them becomes everybody's. Who prepares
 * such a page chooses, so, the frame that somebody else's data will be in; and with
 * memory whose bits can be flipped from the rows next to it (Rowhammer), that is a way to
 * change what others have. With fresh_frames on, a page that becomes shared is copied to
 * a frame that neither of the parties had.
 *
 * It would not be enough to just allocate one: the page allocator gives out first what was
 * freed last, so that it would be what somebody has freed for the purpose. The frame
 * comes from a random place in a pool, into which a new one goes for it. Frames that
 * merging frees, or the last sharer's copy-on-write, go through a pool as well, one of
 * their own, before anybody gets them.
 *
 * Who frees many frames, and has many pages merged, will see some of his again; but
 * which, and when, he can neither choose nor foretell.
 *
 * There are pools for each NUMA node. They are filled when fresh_frames is switched on, or
 * else the first to need them could choose what goes in. They cannot be moved or
 * reclaimed, and go when memory is to go offline, or fresh_frames is switched off.
 *
 * Pools come and go under the engine mutex. Faults, which do not have that, exchange
 * frames as well: so the pools, and what is in them, are under engine->frames_lock.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* 16 MiB and 4 MiB where pages have 4 KiB: to guess is right once in as many times. */
#define KSM_FRESH_FRAMES	4096
#define KSM_FREED_FRAMES	1024

struct ksm_frame_pool {
	struct page *fresh[KSM_FRESH_FRAMES];
	struct page *freed[KSM_FREED_FRAMES];
};

static struct page *ksm_frame_alloc(int nid, gfp_t gfp)
{
	return alloc_pages_node(nid, gfp | __GFP_HIGHMEM | __GFP_MOVABLE | __GFP_THISNODE |
				     __GFP_NORETRY | __GFP_NOWARN, 0);
}

/* Fill the places that are empty. Return: whether none is left. */
static bool ksm_frames_fill(struct page **frames, unsigned int nr, int nid)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!frames[i])
			frames[i] = ksm_frame_alloc(nid, GFP_USER);
		if (!frames[i])
			return false;
		cond_resched();
	}
	return true;
}

static void ksm_frames_empty(struct page **frames, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (frames[i])
			__free_page(frames[i]);
}

static void ksm_pool_free(struct ksm_frame_pool *pool)
{
	ksm_frames_empty(pool->fresh, KSM_FRESH_FRAMES);
	ksm_frames_empty(pool->freed, KSM_FREED_FRAMES);
	kvfree(pool);
}

/* The pools of a node, full; NULL when there is no memory. */
static struct ksm_frame_pool *ksm_pool_get(struct ksm_engine *engine, int nid)
{
	struct ksm_frame_pool *pool = engine->pools[nid];

	lockdep_assert_held(&engine->mutex);
	if (pool)
		return pool;
	pool = kvzalloc_obj(*pool, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (!pool)
		return NULL;
	if (ksm_frames_fill(pool->fresh, KSM_FRESH_FRAMES, nid) &&
	    ksm_frames_fill(pool->freed, KSM_FREED_FRAMES, nid)) {
		spin_lock(&engine->frames_lock);
		engine->pools[nid] = pool;
		spin_unlock(&engine->frames_lock);
		return pool;
	}
	ksm_pool_free(pool);
	return NULL;
}

/* @frame goes in at a random place. Return: what was there. */
static struct page *ksm_frames_exchange(struct page **frames, unsigned int nr,
					struct page *frame)
{
	struct page **place = &frames[get_random_u32_below(nr)];

	swap(*place, frame);
	return frame;
}

/**
 * ksm_frames_take() - a frame that nobody could choose
 * @engine: the engine
 * @nid: NUMA node that it is to be on
 *
 * Context: may sleep; the engine mutex is held.
 * Return: a page, not cleared; NULL when there is no memory.
 */
struct page *ksm_frames_take(struct ksm_engine *engine, int nid)
{
	struct ksm_frame_pool *pool = ksm_pool_get(engine, nid);
	struct page *frame = pool ? ksm_frame_alloc(nid, GFP_USER) : NULL;

	if (!frame)
		return NULL;
	spin_lock(&engine->frames_lock);
	frame = ksm_frames_exchange(pool->fresh, KSM_FRESH_FRAMES, frame);
	spin_unlock(&engine->frames_lock);
	return frame;
}

/**
 * ksm_frames_stir() - a frame that was shared, or is a duplicate, has been freed
 * @engine: the engine
 * @nid: NUMA node that it is on
 *
 * What the page allocator gives out now is, most likely, this frame. It goes into the
 * pool, if there is one, and another one is free instead.
 *
 * Context: does not sleep; any, but for interrupts.
 */
void ksm_frames_stir(struct ksm_engine *engine, int nid)
{
	struct page *frame = ksm_frame_alloc(nid, GFP_NOWAIT);
	struct ksm_frame_pool *pool;

	if (!frame)
		return;
	spin_lock(&engine->frames_lock);
	pool = engine->pools[nid];
	if (pool)
		frame = ksm_frames_exchange(pool->freed, KSM_FREED_FRAMES, frame);
	spin_unlock(&engine->frames_lock);
	__free_page(frame);
}

/**
 * ksm_frames_prepare() - have the pools of all nodes filled
 * @engine: the engine
 *
 * A pool that there is no memory for now is tried again when it is needed.
 *
 * Context: may sleep; the engine mutex is held.
 */
void ksm_frames_prepare(struct ksm_engine *engine)
{
	int nid;

	for_each_node_state(nid, N_MEMORY)
		ksm_pool_get(engine, nid);
}

/**
 * ksm_frames_drain() - give back all frames in the pools
 * @engine: the engine
 *
 * Context: may sleep; the engine mutex is held, or nobody uses the engine any more.
 */
void ksm_frames_drain(struct ksm_engine *engine)
{
	struct ksm_frame_pool *pool;
	int nid;

	for (nid = 0; nid < MAX_NUMNODES; nid++) {
		spin_lock(&engine->frames_lock);
		pool = engine->pools[nid];
		engine->pools[nid] = NULL;
		spin_unlock(&engine->frames_lock);
		if (pool)
			ksm_pool_free(pool);
	}
}
