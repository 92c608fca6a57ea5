// SPDX-License-Identifier: GPL-2.0-only
/*
 * Joining: pages that have an equal are merged with it, a number of them at a time.
 *
 * They are all under one page table. Their folios are locked, then they are frozen,
 * compared with what they are to share, and replaced; merge.c does the page tables.
 * What fails in a step takes no part in the next ones.
 *
 * A sharer is put on its node's list before its PTE maps the folio, with the folio
 * locked: the reverse map never lacks one. Should nobody come to share a node that
 * was made for the purpose, its page is given back to its process.
 */
#include "ksm_internal.h"
#include "ksm.h"

static struct anon_vma *ksm_join_anon_vma(struct vm_area_struct *vma)
{
	get_anon_vma(vma->anon_vma);
	return vma->anon_vma;
}

/**
 * ksm_join_attach() - put an item on its node's list of sharers
 * @engine: the engine
 * @item: the item, IDLE or claimed by the caller
 * @node: the node, its folio locked
 * @vma: where @item's page is mapped; its mmap lock is held
 */
void ksm_join_attach(struct ksm_engine *engine, struct ksm_rmap_item *item,
		     struct ksm_stable_node *node, struct vm_area_struct *vma)
{
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);
	struct anon_vma *anon_vma = ksm_join_anon_vma(vma);
	unsigned long index = linear_anon_page_index(vma, ksm_item_addr(item));

	spin_lock(&shard->lock);
	ksm_item_attach(engine, item, node, anon_vma, index);
	spin_unlock(&shard->lock);
}

/**
 * ksm_join_detach() - take an item off its node's list of sharers
 * @engine: the engine
 * @item: the item, STABLE
 * @node: the node, its folio locked
 */
void ksm_join_detach(struct ksm_engine *engine, struct ksm_rmap_item *item,
		     struct ksm_stable_node *node)
{
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);
	struct anon_vma *anon_vma;

	spin_lock(&shard->lock);
	anon_vma = ksm_item_detach(engine, item);
	ksm_chain_has_room(node);
	spin_unlock(&shard->lock);
	if (anon_vma)
		put_anon_vma(anon_vma);
}

/**
 * ksm_join_sight() - remember what was seen of a page, and nothing else
 * @worker: whose chunk the page is in
 * @addr: where it is
 * @hash: of its content
 * @history: of the page
 *
 * Of a page that is in a tree more is known already: that stays.
 */
void ksm_join_sight(struct ksm_worker *worker, unsigned long addr, u64 hash,
		    const struct ksm_history *history)
{
	u64 *slot = ksm_chunk_slot(worker->chunk, addr);
	struct ksm_rmap_item *item = ksm_slot_item(*slot);

	if (!item || ksm_item_state(item) == KSM_ITEM_IDLE)
		ksm_slot_sight(worker->kmm, worker->chunk, slot, hash, history);
}

/**
 * ksm_join_demote() - give a promoted page back to its process, if nobody has joined it
 * @engine: the engine
 * @item: whose page was made the KSM page of @node; claimed, but it may have left
 * @node: the node
 *
 * Context: may sleep; no mmap lock is held.
 */
void ksm_join_demote(struct ksm_engine *engine, struct ksm_rmap_item *item,
		     struct ksm_stable_node *node)
{
	struct mm_struct *mm = item->owner->slot.mm;
	unsigned long addr = ksm_item_addr(item);
	struct vm_area_struct *vma;
	int err = 0;

	if (ksm_item_state(item) != KSM_ITEM_STABLE || item->stable.node != node ||
	    node->entry.nr > 1)
		return;
	mmap_read_lock(mm);
	vma = ksm_merge_vma(mm, addr);
	if (vma)
		err = ksm_merge_break(vma, addr, addr + PAGE_SIZE, false);
	mmap_read_unlock(mm);
	/* Where it stays, so does the item, for the reverse map. */
	if (!err)
		ksm_chunk_untree(engine, item);
}

/**
 * ksm_join_release() - be done with an item that was claimed
 * @engine: the engine
 * @item: the item, not to be touched afterwards
 * @hash: of the key that it was claimed by
 */
void ksm_join_release(struct ksm_engine *engine, struct ksm_rmap_item *item, u64 hash)
{
	struct ksm_shard *shard = ksm_shard(engine, hash);

	spin_lock(&shard->lock);
	ksm_item_release(shard, item);
	spin_unlock(&shard->lock);
}

/*
 * Lock the folio of the merge at @i for it, unless one before it has done so: several
 * may join one folio. It may have been freed, migrated or poisoned before that.
 */
static int ksm_join_lock_kfolio(struct ksm_merge *merges, unsigned int i)
{
	struct folio *kfolio = page_folio(merges[i].kpage);
	unsigned int j;

	for (j = 0; j < i; j++)
		if (merges[j].locked && merges[j].kpage == merges[i].kpage)
			break;
	if (j == i)
		merges[i].locked = folio_trylock(kfolio);
	if (j == i && !merges[i].locked)
		return -EBUSY;
	if (ksm_node_of(kfolio) != merges[i].node || PageHWPoison(merges[i].kpage))
		return -EBUSY;
	return 0;
}

/*
 * One that is to join is put on its node's list. The mmap lock is held.
 *
 * MADV_FREE of a page that had one sharer made it clean, so that reclaim may drop it.
 * From here on there is another, who has not asked for that.
 */
static void ksm_join_enlist(struct ksm_worker *worker)
{
	unsigned int i;

	for (i = 0; i < worker->nr_merges; i++) {
		struct ksm_merge *merge = &worker->merges[i];

		if (merge->err || !merge->kpage)
			continue;
		merge->err = ksm_join_lock_kfolio(worker->merges, i);
		if (merge->err)
			continue;
		folio_mark_dirty(page_folio(merge->kpage));
		ksm_join_attach(worker->engine, merge->item, merge->node,
				merge->vma);
	}
}

/* And off it again where that came to nothing. */
static void ksm_join_delist(struct ksm_worker *worker)
{
	unsigned int i;

	for (i = 0; i < worker->nr_merges; i++) {
		struct ksm_merge *merge = &worker->merges[i];

		if (merge->err && merge->item &&
		    ksm_item_state(merge->item) == KSM_ITEM_STABLE)
			ksm_join_detach(worker->engine, merge->item, merge->node);
	}
	for (i = 0; i < worker->nr_merges; i++) {
		struct ksm_merge *merge = &worker->merges[i];

		if (merge->locked)
			folio_unlock(page_folio(merge->kpage));
	}
}

/* Only small pages of the process's own can be merged, and only if that is now. */
static void ksm_join_lock_pages(struct ksm_worker *worker)
{
	unsigned int i;

	for (i = 0; i < worker->nr_merges; i++) {
		struct ksm_merge *merge = &worker->merges[i];
		struct folio *folio = page_folio(merge->page);

		if (!folio_trylock(folio)) {
			put_page(merge->page);
			merge->page = NULL;
			merge->err = -EBUSY;
		} else if (!folio_test_anon(folio) || folio_test_large(folio) ||
			   folio_test_ksm(folio)) {
			merge->err = -EFAULT;
		}
	}
}

static void ksm_join_compare(struct ksm_worker *worker)
{
	unsigned int i;

	for (i = 0; i < worker->nr_merges; i++) {
		struct ksm_merge *merge = &worker->merges[i];

		if (!merge->err &&
		    !pages_identical(merge->page, merge->kpage ?:
						  ZERO_PAGE(merge->addr)))
			merge->err = -EFAULT;
	}
}

static void ksm_join_trace(struct ksm_merge *merge, struct mm_struct *mm)
{
	if (merge->kpage)
		trace_ksm_merge_with_ksm_page(merge->kpage,
					      page_to_pfn(merge->kpage),
					      merge->item, mm, merge->err);
	else
		trace_ksm_merge_one_page(page_to_pfn(ZERO_PAGE(merge->addr)),
					 merge->item, mm, merge->err);
}

static void ksm_join_unlock_pages(struct ksm_worker *worker)
{
	unsigned int i;

	for (i = 0; i < worker->nr_merges; i++) {
		struct page *page = worker->merges[i].page;
		int nid;

		if (!page)
			continue;
		nid = page_to_nid(page);
		folio_unlock(page_folio(page));
		put_page(page);
		if (!worker->merges[i].err && READ_ONCE(worker->engine->knobs.fresh_frames))
			ksm_frames_stir(worker->engine, nid);
	}
}

/* What is left of a merge, whether it was done or not. No folio is locked any more. */
static void ksm_join_end(struct ksm_worker *worker, struct ksm_merge *merge)
{
	ksm_join_trace(merge, worker->kmm->slot.mm);
	if (merge->kpage)
		put_page(merge->kpage);
	if (!worker->chunk)
		return;
	if (merge->err)
		ksm_join_sight(worker, merge->addr, merge->key.hash,
			       &merge->history);
	else if (!merge->kpage)
		ksm_slot_zeroed(worker->kmm, worker->chunk,
				ksm_chunk_slot(worker->chunk, merge->addr),
				&merge->history);
	if (!merge->founder)
		return;
	if (merge->err)
		ksm_join_demote(worker->engine, merge->founder, merge->node);
	ksm_join_release(worker->engine, merge->founder, merge->key.hash);
}

/* Where the pages are now. Those of a process that has left its domain are left alone. */
static void ksm_join_find(struct ksm_worker *worker)
{
	unsigned int i;

	ksm_merge_find(worker->kmm->slot.mm, worker->merges, worker->nr_merges);
	if (ksm_mm_has_moved(worker->kmm))
		for (i = 0; i < worker->nr_merges; i++)
			worker->merges[i].err = -EFAULT;
}

/**
 * ksm_join_all() - merge all pages that have been found to have an equal
 * @worker: whose @worker->merges they are, all in @worker->chunk
 *
 * What cannot be merged is remembered as sighted, and has its turn again.
 *
 * Context: may sleep; no lock held but the engine mutex.
 */
void ksm_join_all(struct ksm_worker *worker)
{
	struct mm_struct *mm = worker->kmm->slot.mm;
	const unsigned int nr = worker->nr_merges;
	struct ksm_merge *merges = worker->merges;
	unsigned int i;

	if (!nr)
		return;
	mmap_read_lock(mm);
	ksm_join_lock_pages(worker);
	ksm_join_find(worker);
	ksm_merge_freeze(mm, merges, nr);
	mmap_read_unlock(mm);

	ksm_join_compare(worker);

	/* Not to wait for it with folios locked, for which its holder may wait. */
	if (mmap_read_trylock(mm)) {
		ksm_join_find(worker);
		ksm_join_enlist(worker);
		ksm_merge_replace(mm, merges, nr);
		ksm_join_delist(worker);
		mmap_read_unlock(mm);
	} else {
		for (i = 0; i < nr; i++)
			merges[i].err = -EBUSY;
	}
	ksm_join_unlock_pages(worker);
	for (i = 0; i < nr; i++)
		ksm_join_end(worker, &merges[i]);
	worker->nr_merges = 0;
}

/**
 * ksm_join_add() - have a page merged, together with others
 * @worker: for whom
 * @merge: the page, and what it is to share; its references are taken over
 *
 * Context: as for ksm_join_all(), which is called when there are enough of them.
 */
void ksm_join_add(struct ksm_worker *worker, const struct ksm_merge *merge)
{
	worker->merges[worker->nr_merges++] = *merge;
	if (worker->nr_merges == KSM_MERGE_PAGES)
		ksm_join_all(worker);
}
