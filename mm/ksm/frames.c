// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fresh frames: a pool whose next frame is unpredictable.
 *
 * When equal pages are merged, the frame of one of them becomes everybody's. Who prepares
 * such a page chooses, so, the frame that somebody else's data will be in; and with
 * memory whose bits can be flipped from the rows next to it (Rowhammer), that is a way to
 * change what others have. With fresh_frames on, a page that becomes shared is copied to
 * a frame that neither of the parties had.
 *
 * It would not be enough to just allocate one: the page allocator gives out first what was
 * freed last, so that it would be what somebody has freed for the purpose. The frame
 * comes from a random place in a pool, and what goes into that pool is drawn by lot from
 * all free memory of the node, see draw.c: nothing that merging or anybody frees goes
 * into it by the order of things. A party that has let go of n of the F frames that are
 * free owns n / F of what is drawn meanwhile, whatever it merges, and however often.
 *
 * Frames that merging frees, or the last sharer's copy-on-write, go through a pool of
 * their own before anybody gets them, and never into the other one.
 *
 * There are pools for each NUMA node. Frames wait there for long, so they must not be in
 * the way of those who need their memory block in one piece: memory offlining, CMA, huge
 * pages. Unmovable pages would be, or, kept apart, have all shared pages come from what
 * is set aside for unmovable ones, of which a node may have none. movable_ops would not
 * do either, as such pages cannot become pages of user space. So a pool is the page cache
 * of an inode that nobody can open: its pages are on the unevictable LRU list, and
 * migrate like those of a file. If the memory of one fails it is dropped.
 *
 * A pool comes and goes under the engine mutex, and frames are taken under it. Faults,
 * which do not have that, exchange freed frames as well: they find the pool under
 * engine->frames_lock, and have a reference to its inode while they use it.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* 16 MiB and 4 MiB where pages have 4 KiB: to guess is right once in as many times. */
#define KSM_FRESH_FRAMES	4096
#define KSM_FREED_FRAMES	1024

/* With fewer the next one is not hard enough to tell. */
#define KSM_FRESH_LEAST		(KSM_FRESH_FRAMES / 2)

/* Places that are tried for a frame: half of them are empty at the worst. */
#define KSM_FRESH_TRIES		64

/*
 * Draws for one that is taken, while there are enough, and while there are not; and for
 * how long there is no other after one in vain, in jiffies.
 */
#define KSM_DRAWS		4
#define KSM_DRAWS_LEAST		256
#define KSM_DRAW_REST		(HZ / 50 + 1)

/* And for one to exchange: somebody may be busy with what is there. */
#define KSM_FREED_TRIES		4

/**
 * struct ksm_frame_pool - frames of one node, at places of their own
 * @inode: whose page cache they are; the fresh ones come first
 * @nr: fresh frames in it
 * @again: when the next draw may be, in jiffies, as the last one was in vain
 * @fresh: places that have one, unless it has been dropped
 */
struct ksm_frame_pool {
	struct inode *inode;
	unsigned int nr;
	unsigned long again;
	DECLARE_BITMAP(fresh, KSM_FRESH_FRAMES);
};

static struct vfsmount *ksm_frames_mnt __ro_after_init;

/* Nobody has drawn what a frame is migrated to: it is marked, and not taken. */
static int ksm_frames_migrate(struct address_space *mapping, struct folio *dst,
			      struct folio *src, enum migrate_mode mode)
{
	int err = filemap_migrate_folio(mapping, dst, src, mode);

	if (!err)
		folio_set_checked(dst);
	return err;
}

static const struct address_space_operations ksm_frames_aops = {
	.dirty_folio = noop_dirty_folio,
	.migrate_folio = ksm_frames_migrate,
	.error_remove_folio = generic_error_remove_folio,
};

static int ksm_frames_init_fs_context(struct fs_context *fc)
{
	return init_pseudo(fc, KSM_FRAMES_MAGIC) ? 0 : -ENOMEM;
}

static struct file_system_type ksm_frames_fs = {
	.name = "ksm_frames",
	.init_fs_context = ksm_frames_init_fs_context,
	.kill_sb = kill_anon_super,
};

/**
 * ksm_frames_init() - make what pools need, once for all engines
 *
 * Return: 0, or an error.
 */
int ksm_frames_init(void)
{
	ksm_frames_mnt = kern_mount(&ksm_frames_fs);
	return PTR_ERR_OR_ZERO(ksm_frames_mnt);
}

/*
 * @frame goes to a place that is empty, and our reference with it. Return: 0; -EEXIST if
 * something is there, or another error: then @frame is as it was.
 */
static int ksm_place_fill(struct inode *inode, pgoff_t place, struct page *frame,
			  gfp_t gfp)
{
	struct folio *folio = page_folio(frame);
	struct mem_cgroup *memcg;
	int err;

	/* They serve everybody. */
	memcg = set_active_memcg(root_mem_cgroup);
	err = filemap_add_folio(inode->i_mapping, folio, place,
				gfp | __GFP_NORETRY | __GFP_NOWARN);
	set_active_memcg(memcg);
	if (err)
		return err;
	folio_unlock(folio);
	folio_put(folio);
	return 0;
}

/*
 * Empty a place. Return: what was there, with a reference; NULL if nothing was; -EBUSY if
 * somebody is busy with it: it stays.
 */
static struct folio *ksm_place_clear(struct inode *inode, pgoff_t place)
{
	struct folio *folio = filemap_get_folio(inode->i_mapping, place);
	bool there;

	if (IS_ERR(folio))
		return NULL;
	if (!folio_trylock(folio)) {
		folio_put(folio);
		return ERR_PTR(-EBUSY);
	}
	/* It may have been dropped meanwhile, or another one have taken its place. */
	there = folio->mapping == inode->i_mapping;
	if (there)
		filemap_remove_folio(folio);
	folio_unlock(folio);
	if (there)
		return folio;
	folio_put(folio);
	return ERR_PTR(-EBUSY);
}

/*
 * Make a page that was in a pool one that is anybody's. Return: the page; NULL if somebody
 * has an eye on it still, by whom it will be freed, or if its memory has failed.
 */
static struct page *ksm_frame_release(struct folio *folio)
{
	if (folio_isolate_lru(folio)) {
		folio_clear_active(folio);
		folio_clear_unevictable(folio);
		folio_put(folio);
		if (folio_ref_freeze(folio, 1)) {
			mem_cgroup_uncharge(folio);
			return ksm_draw_redo(&folio->page) ? &folio->page : NULL;
		}
	}
	folio_put(folio);
	return NULL;
}

/* Find a place for a frame. What somebody was busy with when it was to be taken is there. */
static int ksm_pool_add_one(struct ksm_frame_pool *pool, struct page *frame)
{
	unsigned long place = 0;
	int err = -EEXIST;

	while (err == -EEXIST) {
		place = find_next_zero_bit(pool->fresh, KSM_FRESH_FRAMES, place);
		if (place >= KSM_FRESH_FRAMES)
			return -ENOSPC;
		err = ksm_place_fill(pool->inode, place, frame, GFP_KERNEL);
		if (err && err != -EEXIST)
			return err;
		__set_bit(place, pool->fresh);
		pool->nr++;
	}
	return 0;
}

/* Find places for frames. Return: whether all have one; those that have not are freed. */
static bool ksm_pool_add(struct ksm_frame_pool *pool, struct page **frames,
			 unsigned int nr)
{
	bool all = true;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!ksm_pool_add_one(pool, frames[i]))
			continue;
		__free_page(frames[i]);
		all = false;
	}
	/* They would be in use as long as they are in this CPU's cache. */
	lru_add_drain();
	return all;
}

/* Fill a pool, by @draws draws at the most: somebody waits for it. */
static void ksm_pool_fill(struct ksm_frame_pool *pool, int nid, unsigned int draws)
{
	struct page *frames[KSM_DRAW_FRAMES];
	unsigned int nr;

	if (time_before(jiffies, pool->again))
		return;
	while (draws-- && pool->nr + KSM_DRAW_FRAMES <= KSM_FRESH_FRAMES) {
		nr = ksm_draw_frames(nid, frames);
		if (!nr || !ksm_pool_add(pool, frames, nr)) {
			pool->again = jiffies + KSM_DRAW_REST;
			break;
		}
		cond_resched();
	}
}

static void ksm_pool_free(struct ksm_frame_pool *pool)
{
	truncate_inode_pages(pool->inode->i_mapping, 0);
	iput(pool->inode);
	kfree(pool);
}

static struct ksm_frame_pool *ksm_pool_new(void)
{
	struct ksm_frame_pool *pool;
	struct inode *inode;

	pool = kzalloc_obj(*pool, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (!pool)
		return NULL;
	inode = alloc_anon_inode(ksm_frames_mnt->mnt_sb);
	if (IS_ERR(inode)) {
		kfree(pool);
		return NULL;
	}
	inode->i_mode |= S_IFREG;	/* a page whose memory fails can be dropped */
	inode->i_mapping->a_ops = &ksm_frames_aops;
	mapping_set_unevictable(inode->i_mapping);
	pool->inode = inode;
	pool->again = jiffies;
	return pool;
}

/* The pools of a node; NULL when there is no memory. */
static struct ksm_frame_pool *ksm_pool_get(struct ksm_engine *engine, int nid)
{
	struct ksm_frame_pool *pool = engine->pools[nid];

	lockdep_assert_held(&engine->mutex);
	if (!pool) {
		pool = ksm_pool_new();
		if (!pool)
			return NULL;
		spin_lock(&engine->frames_lock);
		engine->pools[nid] = pool;
		spin_unlock(&engine->frames_lock);
	}
	return pool;
}

/**
 * ksm_frames_take() - a frame that nobody could choose
 * @engine: the engine
 * @nid: NUMA node that it is to be on
 *
 * Context: may sleep, but waits for nobody; the engine mutex is held.
 * Return: a page, not cleared; NULL when there is no memory.
 */
struct page *ksm_frames_take(struct ksm_engine *engine, int nid)
{
	struct ksm_frame_pool *pool = ksm_pool_get(engine, nid);
	struct folio *folio;
	struct page *frame;
	unsigned int try;
	pgoff_t place;

	if (!pool)
		return NULL;
	ksm_pool_fill(pool, nid, pool->nr < KSM_FRESH_LEAST ? KSM_DRAWS_LEAST : KSM_DRAWS);
	if (pool->nr < KSM_FRESH_LEAST)
		return NULL;
	for (try = 0; try < KSM_FRESH_TRIES; try++) {
		place = get_random_u32_below(KSM_FRESH_FRAMES);
		if (!test_bit(place, pool->fresh))
			continue;
		folio = ksm_place_clear(pool->inode, place);
		if (IS_ERR(folio))
			continue;
		__clear_bit(place, pool->fresh);
		pool->nr--;
		if (folio && folio_test_checked(folio)) {
			folio_put(folio);
			continue;
		}
		frame = folio ? ksm_frame_release(folio) : NULL;
		if (frame)
			return frame;
	}
	return NULL;
}

/**
 * ksm_frames_put() - be done with a frame
 * @engine: the engine
 * @page: what ksm_frames_take() returned, and the reference that came with it
 *
 * One that has not been used goes back: otherwise hints that prove wrong would have the
 * pool drawn anew all the time, for nothing.
 *
 * Context: may sleep, but waits for nobody; the engine mutex is held.
 */
void ksm_frames_put(struct ksm_engine *engine, struct page *page)
{
	struct ksm_frame_pool *pool = engine->pools[page_to_nid(page)];
	struct folio *folio = page_folio(page);

	lockdep_assert_held(&engine->mutex);
	/* One that is in use, or was, is a KSM folio. */
	if (!pool || folio->mapping || !folio_ref_freeze(folio, 1)) {
		folio_put(folio);
		return;
	}
	mem_cgroup_uncharge(folio);
	if (ksm_draw_redo(page))
		ksm_pool_add(pool, &page, 1);
}

/* The inode of a node's pool, with a reference; NULL if there is none. */
static struct inode *ksm_pool_inode(struct ksm_engine *engine, int nid)
{
	struct inode *inode = NULL;

	spin_lock(&engine->frames_lock);
	if (engine->pools[nid]) {
		inode = engine->pools[nid]->inode;
		ihold(inode);
	}
	spin_unlock(&engine->frames_lock);
	return inode;
}

/**
 * ksm_frames_stir() - a frame that was shared, or is a duplicate, has been freed
 * @engine: the engine
 * @nid: NUMA node that it is on
 *
 * What the page allocator gives out now is, most likely, this frame. It goes into the
 * pool, if there is one, and another one is free instead.
 *
 * Context: may sleep, but does not wait for memory.
 */
void ksm_frames_stir(struct ksm_engine *engine, int nid)
{
	const gfp_t gfp = GFP_HIGHUSER_MOVABLE & ~__GFP_DIRECT_RECLAIM;
	struct inode *inode = ksm_pool_inode(engine, nid);
	struct page *frame;
	unsigned int try;
	struct folio *old;
	pgoff_t place;

	if (!inode)
		return;
	frame = alloc_pages_node(nid, gfp | __GFP_THISNODE | __GFP_NOWARN, 0);
	for (try = 0; frame && try < KSM_FREED_TRIES; try++) {
		place = KSM_FRESH_FRAMES + get_random_u32_below(KSM_FREED_FRAMES);
		old = ksm_place_clear(inode, place);
		if (IS_ERR(old))
			continue;
		if (!ksm_place_fill(inode, place, frame, gfp))
			frame = NULL;
		if (old)
			folio_put(old);
	}
	if (frame)
		__free_page(frame);
	iput(inode);
}

/**
 * ksm_frames_prepare() - have the pools of all nodes filled
 * @engine: the engine
 *
 * What there is no memory for now is tried again when it is needed.
 *
 * Context: may sleep; the engine mutex is held, and no memory is going offline.
 */
void ksm_frames_prepare(struct ksm_engine *engine)
{
	struct ksm_frame_pool *pool;
	int nid;

	for_each_node_state(nid, N_MEMORY) {
		pool = ksm_pool_get(engine, nid);
		if (pool)
			ksm_pool_fill(pool, nid, UINT_MAX);
	}
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
