// SPDX-License-Identifier: GPL-2.0-only
/*
 * Chunks: the slots for the pages under one page table; and the one for all pages of an
 * mm that are in no other, kmm->few, as long as they are few. So a small process needs
 * nothing but that list.
 *
 * A chunk exists while any of its slots is in use. To "retire" a slot is to forget
 * its page: the item in it leaves the tree that it is in, which for the stable tree
 * takes the folio lock, and the slot is cleared. Where others need the item for the
 * reverse map it stays with its stable node, see heir.c.
 *
 * Chunks are their worker's own: the caller holds the engine mutex. Retiring may
 * sleep; mmap_lock may be held or not.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* An mm may have so many chunks more than twice the page tables that it has now. */
#define KSM_SPARE_CHUNKS	64

static unsigned long ksm_chunk_index(unsigned long addr)
{
	return addr >> PMD_SHIFT;
}

/**
 * ksm_chunk_find() - the chunk that an address is in
 * @kmm: the mm
 * @addr: the address
 *
 * Return: the chunk, or NULL if nothing is remembered of the pages there.
 */
struct ksm_chunk *ksm_chunk_find(struct ksm_mm *kmm, unsigned long addr)
{
	return xa_load(&kmm->chunks, ksm_chunk_index(addr)) ?:
	       (kmm->few.nr ? &kmm->few : NULL);
}

static bool ksm_chunk_are_too_many(struct ksm_mm *kmm)
{
	return atomic_long_read(&kmm->nr_chunks) >=
	       2 * ksm_mm_page_tables(kmm->slot.mm) + KSM_SPARE_CHUNKS;
}

static void ksm_chunk_free(struct ksm_mm *kmm, struct ksm_chunk *chunk)
{
	xa_erase(&kmm->chunks, ksm_chunk_index(chunk->base));
	atomic_long_dec(&kmm->nr_chunks);
	ksm_stat_add(kmm->engine, KSM_STAT_CHUNKS, -1);
	kfree(chunk);
	ksm_uncharge(kmm, sizeof(*chunk));
}

/* A chunk of its own for a page table, with what is known of its pages already. */
static struct ksm_chunk *ksm_chunk_create(struct ksm_mm *kmm, unsigned long addr,
					  enum ksm_charge_how how)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN;
	struct ksm_chunk *chunk;

	if (ksm_chunk_are_too_many(kmm) || ksm_charge(kmm, sizeof(*chunk), how))
		return NULL;
	chunk = kzalloc_obj(*chunk, gfp);
	if (!chunk || xa_err(xa_store(&kmm->chunks, ksm_chunk_index(addr), chunk, gfp))) {
		kfree(chunk);
		ksm_uncharge(kmm, sizeof(*chunk));
		return NULL;
	}
	chunk->base = addr & PMD_MASK;
	chunk->used = U8_MAX;	/* it has just been filled */
	atomic_long_inc(&kmm->nr_chunks);
	ksm_stat_add(kmm->engine, KSM_STAT_CHUNKS, 1);
	if (ksm_slots_move(kmm, chunk, &kmm->few, chunk->base, chunk->base + PMD_SIZE,
			   how)) {
		ksm_chunk_free(kmm, chunk);
		return NULL;
	}
	return chunk;
}

/**
 * ksm_chunk_settle() - be done with a chunk for now
 * @kmm: the mm
 * @chunk: the chunk; dropped if it is empty. Pointers to its slots are good no more
 *
 * Context: may sleep.
 */
void ksm_chunk_settle(struct ksm_mm *kmm, struct ksm_chunk *chunk)
{
	bool few = chunk == &kmm->few;

	ksm_slots_pack(kmm, chunk);
	/* An mm that nothing is remembered of may have gone by now, and @few with it. */
	if (!few && !chunk->nr)
		ksm_chunk_free(kmm, chunk);
}

/**
 * ksm_chunk_get() - the chunk that some pages are in, with a slot for each of them
 * @kmm: the mm
 * @cands: the pages, under one page table and in the order of their addresses
 * @nr: their number
 * @how: whether what that takes may exceed a limit
 *
 * To be given to ksm_chunk_settle() afterwards; up to then pointers to slots are good.
 *
 * A process could map memory in front of the scan and unmap it behind, for as long as it
 * likes. The chunks that are left behind stay until the scan comes round to them, so
 * there is a limit to their number, from the memory that the process has.
 *
 * Context: may sleep.
 * Return: the chunk; NULL, and nothing changed, when there is no memory or a limit
 * is reached.
 */
struct ksm_chunk *ksm_chunk_get(struct ksm_mm *kmm, const struct ksm_candidate *cands,
				unsigned int nr, enum ksm_charge_how how)
{
	unsigned long index = ksm_chunk_index(cands[0].addr);
	struct ksm_chunk *chunk = xa_load(&kmm->chunks, index) ?: &kmm->few;
	int err = ksm_slots_open(kmm, chunk, cands, nr, how);

	if (err == -E2BIG && chunk == &kmm->few) {
		chunk = ksm_chunk_create(kmm, cands[0].addr, how);
		err = chunk ? ksm_slots_open(kmm, chunk, cands, nr, how) : -ENOMEM;
	}
	if (err == -E2BIG)
		err = ksm_slots_fill(kmm, chunk, how);
	if (!err)
		return chunk;
	if (chunk)
		ksm_chunk_settle(kmm, chunk);
	return NULL;
}

/**
 * ksm_chunk_next_used() - find the first page in a range of which anything is known
 * @kmm: the mm
 * @start: start of the range
 * @end: end of the range
 *
 * Costs nothing where there are no chunks, be it terabytes.
 *
 * Context: does not sleep.
 * Return: its address, or @end.
 */
unsigned long ksm_chunk_next_used(struct ksm_mm *kmm, unsigned long start,
				  unsigned long end)
{
	unsigned long index = ksm_chunk_index(start);
	struct ksm_chunk *chunk;
	unsigned long used;

	if (start >= end)
		return end;
	end = ksm_slots_next(&kmm->few, start, end);
	xa_for_each_range(&kmm->chunks, index, chunk, index,
			  ksm_chunk_index(end - 1)) {
		used = ksm_slots_next(chunk, start, end);
		if (used < end)
			return used;
	}
	return end;
}

/* The item leaves its slot, and stays with its node. */
static struct anon_vma *ksm_chunk_bequeath(struct ksm_engine *engine,
					   struct ksm_rmap_item *item)
{
	struct anon_vma *root = item->stable.anon_vma->root;
	struct ksm_chunk *chunk = ksm_chunk_find(item->owner, ksm_item_addr(item));

	get_anon_vma(root);
	return ksm_slot_to_heir(engine, chunk,
				ksm_chunk_slot(chunk, ksm_item_addr(item)), root);
}

/**
 * ksm_chunk_tidy() - after a page may have been forgotten: give its memory back
 * @kmm: the mm
 * @addr: where the page was
 * @busy: a chunk that somebody has pointers to slots of, and that is left alone
 *
 * Context: may sleep.
 */
void ksm_chunk_tidy(struct ksm_mm *kmm, unsigned long addr, struct ksm_chunk *busy)
{
	struct ksm_chunk *chunk = xa_load(&kmm->chunks, ksm_chunk_index(addr)) ?: &kmm->few;

	if (chunk != busy)
		ksm_chunk_settle(kmm, chunk);
}

/* The folio of @node is locked, or @node is stale and @folio NULL. */
static void ksm_chunk_leave_node(struct ksm_engine *engine,
				 struct ksm_rmap_item *item, struct folio *folio)
{
	struct ksm_stable_node *node = item->stable.node;
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);
	bool heir = folio && ksm_heir_is_left(item, folio);
	struct anon_vma *anon_vma;
	bool orphan = false;
	LIST_HEAD(dead);

	spin_lock(&shard->lock);
	trace_ksm_remove_rmap_item(node->pfn, item, item->owner->slot.mm);
	anon_vma = heir ? ksm_chunk_bequeath(engine, item) :
			  ksm_item_detach(engine, item);
	ksm_chain_has_room(node);
	if (!folio || (!node->entry.nr && !folio_mapped(folio) &&
		       !folio_test_swapcache(folio))) {
		/* Gone, or to be gone with our reference. */
		ksm_stable_unlink(engine, shard, node, &dead);
		if (folio)
			ksm_node_bind(folio, NULL);
	} else {
		orphan = !node->entry.nr || heir;
	}
	spin_unlock(&shard->lock);

	if (orphan)
		ksm_node_orphan(engine, node);
	if (anon_vma)
		put_anon_vma(anon_vma);
	ksm_stable_reap(engine, &dead);
}

/**
 * ksm_chunk_untree() - take an item out of the tree that it is in
 * @engine: the engine
 * @item: an item of an mm that the caller is the worker of, or one that it has
 *	  claimed and attached
 *
 * Afterwards the item is IDLE; or it is not the mm's any more, and its slot is empty. The
 * slot tells which.
 *
 * Context: may sleep, for the folio lock, the anon_vma, and another worker's claim.
 */
void ksm_chunk_untree(struct ksm_engine *engine, struct ksm_rmap_item *item)
{
	struct ksm_shard *shard;
	struct folio *folio;

	lockdep_assert_held(&engine->mutex);
	if (ksm_item_state(item) == KSM_ITEM_UNSTABLE) {
		shard = ksm_shard(engine, item->unstable.key.hash);
		spin_lock(&shard->lock);
		ksm_unstable_erase(engine, shard, item);
		spin_unlock(&shard->lock);
	}
	if (ksm_item_state(item) == KSM_ITEM_CLAIMED)
		wait_var_event(&item->owner->claims,
			       !atomic_read(&item->owner->claims));
	if (ksm_item_state(item) == KSM_ITEM_STABLE) {
		folio = ksm_node_lock_folio(item->stable.node);
		ksm_chunk_leave_node(engine, item, folio);
		if (folio) {
			folio_unlock(folio);
			folio_put(folio);
		}
	}
}

/**
 * ksm_chunk_retire_slot() - forget one page
 * @kmm: the mm
 * @chunk: the chunk that @addr is in, which stays, even if empty
 * @addr: where the page was
 */
void ksm_chunk_retire_slot(struct ksm_mm *kmm, struct ksm_chunk *chunk,
			   unsigned long addr)
{
	u64 *slot = ksm_chunk_slot(chunk, addr);
	struct ksm_rmap_item *item = ksm_slot_item(*slot);

	if (item)
		ksm_chunk_untree(kmm->engine, item);
	ksm_slot_clear(kmm, chunk, slot);
}

/* Retiring many slots is mostly waiting for what is in no cache. */
static void ksm_chunk_prefetch(struct ksm_chunk *chunk, unsigned long addr)
{
	const unsigned long near = addr + 4 * PAGE_SIZE, far = near + 4 * PAGE_SIZE;
	struct ksm_rmap_item *item;

	if (!chunk->full || far - chunk->base >= PMD_SIZE)
		return;
	prefetch(ksm_slot_item(*ksm_chunk_slot(chunk, far)));
	item = ksm_slot_item(*ksm_chunk_slot(chunk, near));
	if (item && ksm_item_state(item) == KSM_ITEM_STABLE)
		prefetchw(item->stable.node);
}

static bool ksm_chunk_slot_waits(u64 slot)
{
	struct ksm_rmap_item *item = ksm_slot_item(slot);

	return item && ksm_item_state(item) != KSM_ITEM_STABLE;
}

static void ksm_chunk_retire_slots(struct ksm_mm *kmm, struct ksm_chunk *chunk,
				   unsigned long start, unsigned long end, bool waiting)
{
	unsigned long addr;

	for (addr = ksm_slots_next(chunk, start, end); addr != end;
	     addr = ksm_slots_next(chunk, addr + PAGE_SIZE, end)) {
		ksm_chunk_prefetch(chunk, addr);
		if (!waiting || ksm_chunk_slot_waits(*ksm_chunk_slot(chunk, addr)))
			ksm_chunk_retire_slot(kmm, chunk, addr);
	}
	ksm_chunk_settle(kmm, chunk);
	cond_resched();
}

/**
 * ksm_chunk_retire() - forget all pages in a range, and drop empty chunks
 * @kmm: the mm
 * @start: start of the range
 * @end: end of the range
 */
void ksm_chunk_retire(struct ksm_mm *kmm, unsigned long start,
		      unsigned long end)
{
	unsigned long index = ksm_chunk_index(start);
	struct ksm_chunk *chunk;

	lockdep_assert_held(&kmm->engine->mutex);
	if (start >= end)
		return;
	ksm_chunk_retire_slots(kmm, &kmm->few, start, end, false);
	xa_for_each_range(&kmm->chunks, index, chunk, index,
			  ksm_chunk_index(end - 1))
		ksm_chunk_retire_slots(kmm, chunk, start, end, false);
}

/**
 * ksm_chunk_retire_waiting() - forget all pages of an mm that wait for an equal
 * @kmm: the mm
 *
 * Those that are merged are remembered: their mappings must be found by the reverse map.
 */
void ksm_chunk_retire_waiting(struct ksm_mm *kmm)
{
	struct ksm_chunk *chunk;
	unsigned long index;

	lockdep_assert_held(&kmm->engine->mutex);
	ksm_chunk_retire_slots(kmm, &kmm->few, 0, ULONG_MAX, true);
	xa_for_each(&kmm->chunks, index, chunk)
		ksm_chunk_retire_slots(kmm, chunk, 0, ULONG_MAX, true);
}
