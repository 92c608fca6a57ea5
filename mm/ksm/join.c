// SPDX-License-Identifier: GPL-2.0-only
/*
 * Joining: pages that have an equal are merged with it, a number of them at a time.
 *
 * They are all under one page table. They are frozen, compared with what they are to
 * share, and replaced; merge.c does the page tables, and its head says why nothing has to
 * be locked between the steps. What fails in a step takes no part in the next ones.
 *
 * The first and the last step go VMA by VMA. A VMA's lock is waited for, as long as it
 * takes, with no folio locked; then folios are tried only.
 *
 * A sharer is put on its node's list before its PTE maps the folio, with the folio
 * locked: the reverse map never lacks one. Should nobody come to share a node that
 * was made for the purpose, its page is given back to its process.
 */
#include "ksm_internal.h"
#include "ksm.h"

/**
 * ksm_join_attach() - put an item on its node's list of sharers
 * @engine: the engine
 * @item: the item, IDLE or claimed by the caller
 * @node: the node, its folio locked
 * @vma: where @item's page is mapped; held
 * @family: that page has become the KSM page, and was shared with the process's parent or
 *	    children before; the item is to lead to their mappings too
 */
void ksm_join_attach(struct ksm_engine *engine, struct ksm_rmap_item *item,
		     struct ksm_stable_node *node, struct vm_area_struct *vma,
		     bool family)
{
	struct anon_vma *anon_vma = family ? vma->anon_vma->root : vma->anon_vma;
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);
	unsigned long index = linear_anon_page_index(vma, ksm_item_addr(item));

	get_anon_vma(anon_vma);
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

static void ksm_join_unshare(struct ksm_engine *engine, struct ksm_rmap_item *item)
{
	/* Where it stays, so does the item, for the reverse map. */
	if (!ksm_merge_break_page(item->owner->slot.mm, ksm_item_addr(item)))
		ksm_chunk_untree(engine, item);
}

/**
 * ksm_join_demote() - give a promoted page back to its process, if nobody has joined it
 * @engine: the engine
 * @item: whose page was made the KSM page of @node; claimed, but it may have left. The
 *	  claim ends here, and @item is not to be touched afterwards
 * @node: the node
 * @hash: of the key that @item was claimed by
 *
 * Context: may sleep; no mmap lock is held.
 */
void ksm_join_demote(struct ksm_engine *engine, struct ksm_rmap_item *item,
		     struct ksm_stable_node *node, u64 hash)
{
	struct ksm_shard *shard = ksm_shard(engine, hash);
	unsigned long addr = ksm_item_addr(item);
	struct ksm_mm *owner = item->owner;

	if (ksm_item_state(item) == KSM_ITEM_STABLE && item->stable.node == node &&
	    node->entry.nr <= 1)
		ksm_join_unshare(engine, item);
	spin_lock(&shard->lock);
	ksm_item_end_claim(shard, owner);
	spin_unlock(&shard->lock);
	/* Last of all: an mm that nothing is remembered of may go when it exits. */
	ksm_chunk_tidy(owner, addr, engine->worker.chunk);
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
		if (merges[j].kpage_locked && merges[j].kpage == merges[i].kpage)
			break;
	if (j == i)
		merges[i].kpage_locked = folio_trylock(kfolio);
	if (j == i && !merges[i].kpage_locked)
		return -EBUSY;
	if (ksm_node_of(kfolio) != merges[i].node || PageHWPoison(merges[i].kpage))
		return -EBUSY;
	return 0;
}

/*
 * One that is to join is put on its node's list. The VMA is held.
 *
 * MADV_FREE of a page that had one sharer made it clean, so that reclaim may drop it.
 * From here on there is another, who has not asked for that.
 */
static void ksm_join_enlist(struct ksm_engine *engine, struct ksm_merge *merges,
			    unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct ksm_merge *merge = &merges[i];

		if (merge->err || !merge->kpage)
			continue;
		merge->err = ksm_join_lock_kfolio(merges, i);
		if (merge->err)
			continue;
		folio_mark_dirty(page_folio(merge->kpage));
		ksm_join_attach(engine, merge->item, merge->node, merge->vma, false);
	}
}

/* And off it again where that came to nothing. */
static void ksm_join_delist(struct ksm_engine *engine, struct ksm_merge *merges,
			    unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct ksm_merge *merge = &merges[i];

		if (merge->err && merge->item &&
		    ksm_item_state(merge->item) == KSM_ITEM_STABLE)
			ksm_join_detach(engine, merge->item, merge->node);
	}
	for (i = 0; i < nr; i++) {
		if (merges[i].kpage_locked)
			folio_unlock(page_folio(merges[i].kpage));
		merges[i].kpage_locked = false;
	}
}

/* Only small pages of the process's own can be merged, and only if that is now. */
static void ksm_join_lock_pages(struct ksm_merge *merges, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct ksm_merge *merge = &merges[i];
		struct folio *folio = page_folio(merge->page);

		if (merge->err)
			continue;
		merge->locked = folio_trylock(folio);
		if (!merge->locked)
			merge->err = -EBUSY;
		else if (!folio_test_anon(folio) || folio_test_large(folio) ||
			 folio_test_ksm(folio))
			merge->err = -EFAULT;
	}
}

static void ksm_join_unlock_pages(struct ksm_merge *merges, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (merges[i].locked)
			folio_unlock(page_folio(merges[i].page));
		merges[i].locked = false;
	}
}

static void ksm_join_freeze(struct ksm_engine *engine, struct ksm_merge *merges,
			    unsigned int nr)
{
	ksm_join_lock_pages(merges, nr);
	ksm_merge_freeze(merges, nr);
	ksm_join_unlock_pages(merges, nr);
}

static void ksm_join_replace(struct ksm_engine *engine, struct ksm_merge *merges,
			     unsigned int nr)
{
	ksm_join_lock_pages(merges, nr);
	ksm_join_enlist(engine, merges, nr);
	ksm_merge_replace(merges, nr);
	ksm_join_delist(engine, merges, nr);
	ksm_join_unlock_pages(merges, nr);
}

/* The VMA of an address. Pages of a process that has left its domain are left alone. */
static struct vm_area_struct *ksm_join_hold(struct ksm_worker *worker, unsigned long addr)
{
	struct vm_area_struct *vma = ksm_vma_hold(worker->kmm->slot.mm, addr);

	if (vma && ksm_mm_has_moved(worker->kmm)) {
		ksm_vma_release(vma);
		vma = NULL;
	}
	return vma;
}

/* Do a step with all pages, VMA by VMA. Where nothing is on offer any more it fails. */
static void ksm_join_by_vma(struct ksm_worker *worker,
			    void (*step)(struct ksm_engine *engine,
					 struct ksm_merge *merges, unsigned int nr))
{
	struct ksm_merge *merges = worker->merges;
	struct vm_area_struct *vma;
	unsigned int start, i;

	for (start = 0; start < worker->nr_merges; start = i) {
		i = start + 1;
		if (merges[start].err)
			continue;
		vma = ksm_join_hold(worker, merges[start].addr);
		if (!vma) {
			merges[start].err = -EFAULT;
			continue;
		}
		merges[start].vma = vma;
		for (; i < worker->nr_merges && merges[i].addr < vma->vm_end; i++)
			merges[i].vma = vma;
		step(worker->engine, &merges[start], i - start);
		ksm_vma_release(vma);
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

/* The references that came with the pages. Where they were merged, that frees them. */
static void ksm_join_put_pages(struct ksm_worker *worker)
{
	unsigned int i;

	for (i = 0; i < worker->nr_merges; i++) {
		struct page *page = worker->merges[i].page;
		int nid = page_to_nid(page);

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
		ksm_join_demote(worker->engine, merge->founder, merge->node,
				merge->key.hash);
	else
		ksm_join_release(worker->engine, merge->founder, merge->key.hash);
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
	const unsigned int nr = worker->nr_merges;
	unsigned int i;

	if (!nr)
		return;
	ksm_join_by_vma(worker, ksm_join_freeze);
	ksm_join_compare(worker);
	ksm_join_by_vma(worker, ksm_join_replace);
	ksm_join_put_pages(worker);
	for (i = 0; i < nr; i++)
		ksm_join_end(worker, &worker->merges[i]);
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
