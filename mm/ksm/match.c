// SPDX-License-Identifier: GPL-2.0-only
/*
 * Matching: from candidates to merged pages.
 *
 * Here, and only here, the trees meet the page tables. What becomes of a page:
 *
 *	all zero, and use_zero_pages	  -> the zero page
 *	key in the stable tree		  -> joins that node's folio, at first sight
 *	not seen with this content before -> a sighting in its slot
 *	key in the unstable tree	  -> the item that waits there is promoted: its
 *					     page becomes a KSM page, and this one joins
 *	else				  -> waits in the unstable tree
 *
 * A pair is made by promoting one page, under the mmap lock of its own mm, and then
 * letting the other join, under the mmap lock of its own. So two mmap locks are
 * never held at once, and there is one way only in which a page joins a node. Should
 * that fail after the promotion, the promoted page is given back to its process.
 *
 * A sharer is put on its node's list before its PTE maps the folio, with the folio
 * locked: the reverse map never lacks one.
 */
#include "ksm_internal.h"
#include "ksm.h"

/**
 * struct ksm_match - one candidate being matched
 * @worker: for whom
 * @kmm: the mm that it is in
 * @slot: its slot
 * @addr: where it is mapped
 * @page: what is mapped there, with a reference
 * @key: of the content that was read
 */
struct ksm_match {
	struct ksm_worker *worker;
	struct ksm_mm *kmm;
	u64 *slot;
	unsigned long addr;
	struct page *page;
	struct ksm_key key;
};

static int ksm_match_nid(struct ksm_engine *engine, struct folio *folio)
{
	return engine->knobs.merge_across_nodes ? 0 : folio_nid(folio);
}

static u64 ksm_match_hash(struct ksm_engine *engine, struct page *page)
{
	void *data = kmap_local_page(page);
	u64 hash = xxh64(data, PAGE_SIZE, engine->seed);

	kunmap_local(data);
	return hash;
}

static bool ksm_match_spare(struct ksm_worker *worker)
{
	if (!worker->spare)
		worker->spare = ksm_chain_alloc(GFP_KERNEL | __GFP_NORETRY |
						__GFP_NOWARN);
	return worker->spare;
}

/*
 * Pages that are new, or were used lately, sit in per-CPU caches of the LRU for a
 * while, which hold references to them. That makes them look busy: -EAGAIN says that
 * it may be this. A pin it is not.
 */
static int ksm_match_why_busy(int err, struct page *page)
{
	return err == -EBUSY && !folio_maybe_dma_pinned(page_folio(page)) ?
	       -EAGAIN : err;
}

/*
 * Emptying those caches bothers all CPUs. So it is done when a merge has failed for
 * them, and once per pass at most. Return: whether trying again makes sense.
 */
static bool ksm_match_drain(struct ksm_worker *worker, int err)
{
	if (err != -EAGAIN || worker->drained)
		return false;
	worker->drained = true;
	lru_add_drain_all();
	return true;
}

/*
 * Has somebody else got hold of the page? It is checked again where it counts; here
 * it saves taking the page's PTE away, and promoting another one, for nothing.
 */
static bool ksm_match_is_busy(struct page *page)
{
	struct folio *folio = page_folio(page);

	return !folio_test_large(folio) &&
	       folio_ref_count(folio) > folio_mapcount(folio) + 1 +
					folio_test_swapcache(folio);
}

static struct anon_vma *ksm_match_anon_vma(struct vm_area_struct *vma)
{
	get_anon_vma(vma->anon_vma);
	return vma->anon_vma;
}

static void ksm_match_attach(struct ksm_engine *engine,
			     struct ksm_rmap_item *item,
			     struct ksm_stable_node *node,
			     struct vm_area_struct *vma)
{
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);
	struct anon_vma *anon_vma = ksm_match_anon_vma(vma);
	unsigned long index = linear_anon_page_index(vma, ksm_item_addr(item));

	spin_lock(&shard->lock);
	ksm_item_attach(engine, item, node, anon_vma, index);
	spin_unlock(&shard->lock);
}

static void ksm_match_detach(struct ksm_engine *engine,
			     struct ksm_rmap_item *item,
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

/* kfolio is locked, and of @node; the mmap lock of @vma's mm is held. */
static int ksm_match_join_locked(struct ksm_match *match,
				 struct vm_area_struct *vma,
				 struct ksm_rmap_item *item,
				 struct ksm_stable_node *node,
				 struct folio *kfolio)
{
	struct ksm_engine *engine = match->worker->engine;
	int err;

	ksm_match_attach(engine, item, node, vma);
	err = ksm_merge_replace(vma, match->addr, match->page, &kfolio->page);
	if (err)
		ksm_match_detach(engine, item, node);
	return err;
}

/*
 * Let the page share @node's folio. The caller has a reference on @kfolio. Return:
 * 0; -EFAULT if the page has changed or gone; any other error if it has to wait.
 */
static int ksm_match_try_join(struct ksm_match *match,
			      struct ksm_stable_node *node,
			      struct folio *kfolio)
{
	struct mm_struct *mm = match->kmm->slot.mm;
	struct ksm_rmap_item *item;
	struct vm_area_struct *vma;
	int err;

	if (PageHWPoison(&kfolio->page) ||
	    !pages_identical(match->page, &kfolio->page))
		return -EFAULT;
	if (ksm_match_is_busy(match->page))
		return ksm_match_why_busy(-EBUSY, match->page);
	item = ksm_slot_to_item(match->kmm, match->worker->chunk, match->slot);
	if (!item)
		return -ENOMEM;

	mmap_read_lock(mm);
	vma = ksm_merge_vma(mm, match->addr);
	err = vma ? ksm_merge_split(match->page) : -EFAULT;
	if (!err && !folio_trylock(kfolio))
		err = -EBUSY;
	if (!err) {
		/* It may have been freed, migrated or poisoned before it was locked. */
		err = -EBUSY;
		if (ksm_node_of(kfolio) == node && !PageHWPoison(&kfolio->page))
			err = ksm_match_join_locked(match, vma, item, node,
						    kfolio);
		folio_unlock(kfolio);
	}
	mmap_read_unlock(mm);
	trace_ksm_merge_with_ksm_page(&kfolio->page, folio_pfn(kfolio), item, mm,
				      err);
	return ksm_match_why_busy(err, match->page);
}

static int ksm_match_join(struct ksm_match *match, struct ksm_stable_node *node,
			  struct folio *kfolio)
{
	int err = ksm_match_try_join(match, node, kfolio);

	if (ksm_match_drain(match->worker, err))
		err = ksm_match_try_join(match, node, kfolio);
	return err;
}

static int ksm_match_try_zero(struct ksm_match *match)
{
	struct mm_struct *mm = match->kmm->slot.mm;
	struct page *zero = ZERO_PAGE(match->addr);
	struct vm_area_struct *vma;
	int err = -EFAULT;

	mmap_read_lock(mm);
	vma = ksm_merge_vma(mm, match->addr);
	if (vma && pages_identical(match->page, zero)) {
		err = ksm_merge_split(match->page);
		if (!err)
			err = ksm_merge_replace(vma, match->addr, match->page,
						NULL);
	}
	trace_ksm_merge_one_page(page_to_pfn(zero), ksm_slot_item(*match->slot),
				 mm, err);
	mmap_read_unlock(mm);
	return ksm_match_why_busy(err, match->page);
}

/* Map the zero page instead. Return: 0 if that was done. */
static int ksm_match_zero(struct ksm_match *match)
{
	int err = ksm_match_try_zero(match);

	if (ksm_match_drain(match->worker, err))
		err = ksm_match_try_zero(match);
	return err;
}

/* A folio of this content with room, at the place in the tree where it belongs. */
static struct folio *ksm_match_pick(struct ksm_match *match,
				    struct ksm_stable_node **nodep)
{
	struct ksm_engine *engine = match->worker->engine;
	struct ksm_shard *shard = ksm_shard(engine, match->key.hash);
	struct folio *folio;
	LIST_HEAD(dead);

	spin_lock(&shard->lock);
	folio = ksm_stable_pick(engine, shard, &match->key, nodep, &dead);
	if (folio && ksm_match_nid(engine, folio) != match->key.nid) {
		/* Migrated to another node since; the next visit finds it there. */
		ksm_stable_rekey(engine, shard, *nodep, folio_nid(folio),
				 &match->worker->spare);
		folio_put(folio);
		folio = NULL;
	}
	spin_unlock(&shard->lock);
	ksm_stable_reap(engine, &dead);
	return folio;
}

/*
 * Try to share what is shared already. Return: 0 if that was done; -ENOENT if there
 * is nothing to share, or no room; any other error if it has to wait.
 */
static int ksm_match_stable(struct ksm_match *match)
{
	struct ksm_stable_node *node;
	struct ksm_rmap_item *item;
	struct folio *kfolio;
	int err;

	kfolio = ksm_match_pick(match, &node);
	if (!kfolio)
		return -ENOENT;
	item = ksm_slot_item(*match->slot);
	if (item)
		ksm_chunk_untree(match->worker->engine, item);
	err = ksm_match_join(match, node, kfolio);
	folio_put(kfolio);
	return err;
}

/*
 * Is @page, that @item waits with, equal to the candidate, and small? @page's mmap
 * lock is held.
 */
static int ksm_match_compare(struct ksm_match *match, struct page *page)
{
	struct folio *folio = page_folio(page);

	if (folio_test_ksm(folio) || page == match->page ||
	    !pages_identical(page, match->page))
		return -EFAULT;
	if (ksm_match_nid(match->worker->engine, folio) != match->key.nid)
		return -EFAULT;
	return ksm_merge_split(page);
}

/* Make @page, which is small, the KSM page of @node. Its mmap lock is held. */
static int ksm_match_promote_page(struct ksm_match *match,
				  struct ksm_rmap_item *item,
				  struct ksm_stable_node *node,
				  struct vm_area_struct *vma, struct page *page)
{
	struct folio *folio = page_folio(page);
	int err = -EFAULT;

	if (!folio_trylock(folio))
		return -EBUSY;
	if (folio_test_anon(folio) && !folio_test_ksm(folio))
		err = ksm_merge_freeze(vma, ksm_item_addr(item), page);
	if (!err && !pages_identical(page, match->page))
		err = -EFAULT;
	if (!err) {
		node->pfn = folio_pfn(folio);
		ksm_match_attach(match->worker->engine, item, node, vma);
		ksm_node_bind(folio, node);
		folio_mark_accessed(folio);
		/* Reclaim drops clean folios; this one is to be swapped out. */
		folio_mark_dirty(folio);
	}
	folio_unlock(folio);
	return err;
}

/*
 * Make the page that @item waits with the KSM page of @node. Return: 0, and the
 * folio in *kfoliop with a reference; an error if @item does not do, or not now.
 */
static int ksm_match_promote(struct ksm_match *match, struct ksm_rmap_item *item,
			     struct ksm_stable_node *node,
			     struct folio **kfoliop)
{
	struct mm_struct *mm = item->owner->slot.mm;
	struct page *page = NULL;
	struct vm_area_struct *vma;
	int err = -EFAULT;

	mmap_read_lock(mm);
	vma = ksm_merge_vma(mm, ksm_item_addr(item));
	if (vma)
		page = ksm_merge_lookup(vma, ksm_item_addr(item));
	if (page)
		err = ksm_match_compare(match, page);
	if (!err)
		err = ksm_match_promote_page(match, item, node, vma, page);
	if (page)
		err = ksm_match_why_busy(err, page);
	mmap_read_unlock(mm);

	trace_ksm_merge_with_ksm_page(NULL, page ? page_to_pfn(page) : 0, item,
				      mm, err);
	if (!err)
		*kfoliop = page_folio(page);
	else if (page)
		put_page(page);
	return err;
}

/* Give the page of a node with a single sharer, @item, back to its process. */
static void ksm_match_demote(struct ksm_engine *engine,
			     struct ksm_rmap_item *item)
{
	struct mm_struct *mm = item->owner->slot.mm;
	unsigned long addr = ksm_item_addr(item);
	struct vm_area_struct *vma;

	mmap_read_lock(mm);
	vma = ksm_merge_vma(mm, addr);
	if (vma)
		ksm_merge_break(vma, addr, addr + PAGE_SIZE, false);
	mmap_read_unlock(mm);
	ksm_chunk_untree(engine, item);
}

/* What is mapped at an address now, with a reference. */
static struct page *ksm_match_lookup(struct ksm_mm *kmm, unsigned long addr)
{
	struct mm_struct *mm = kmm->slot.mm;
	struct vm_area_struct *vma;
	struct page *page = NULL;

	mmap_read_lock(mm);
	vma = ksm_merge_vma(mm, addr);
	if (vma)
		page = ksm_merge_lookup(vma, addr);
	mmap_read_unlock(mm);
	return page;
}

/* Before a huge page is split for a hint, is the hint still good? */
static bool ksm_match_verify(struct ksm_match *match, struct ksm_rmap_item *item)
{
	struct page *page = ksm_match_lookup(item->owner, ksm_item_addr(item));
	bool equal;

	if (!page)
		return false;
	equal = pages_identical(page, match->page);
	put_page(page);
	return equal;
}

/* The item that waits under our key, taken out of the tree. */
static struct ksm_rmap_item *ksm_match_claim(struct ksm_match *match)
{
	struct ksm_worker *worker = match->worker;
	struct ksm_shard *shard = ksm_shard(worker->engine, match->key.hash);
	struct ksm_rmap_item *item;
	unsigned int i;

	spin_lock(&shard->lock);
	item = ksm_unstable_claim(worker->engine, shard, &match->key);
	spin_unlock(&shard->lock);
	if (!item || item->owner != match->kmm)
		return item;

	/* Its page may be a candidate too: our own reference must not be in the way. */
	for (i = 0; i < worker->nr; i++) {
		struct ksm_candidate *cand = &worker->batch[i];

		if (cand->addr == ksm_item_addr(item) && cand->page) {
			put_page(cand->page);
			cand->page = NULL;
		}
	}
	return item;
}

/* Done with a claimed item. If that was not its fault it waits on. */
static void ksm_match_release(struct ksm_match *match,
			      struct ksm_rmap_item *item, bool wait_on)
{
	struct ksm_engine *engine = match->worker->engine;
	struct ksm_shard *shard = ksm_shard(engine, match->key.hash);

	spin_lock(&shard->lock);
	ksm_item_release(shard, item);
	if (wait_on && ksm_item_state(item) == KSM_ITEM_IDLE)
		ksm_unstable_insert(engine, shard, item, &match->key);
	spin_unlock(&shard->lock);
}

/* A promoted page makes its node known, so that others may find it. */
static bool ksm_match_publish(struct ksm_match *match,
			      struct ksm_stable_node *node)
{
	struct ksm_engine *engine = match->worker->engine;
	struct ksm_shard *shard = ksm_shard(engine, match->key.hash);
	bool done;

	spin_lock(&shard->lock);
	done = ksm_stable_insert(engine, shard, node, &match->worker->spare);
	spin_unlock(&shard->lock);
	return done;
}

/*
 * Make a pair with @item, which is claimed. Return: 0 if the page was merged;
 * -ESTALE if @item does not do, so that the page may take its place; any other
 * error if it is this page that has to wait.
 */
static int ksm_match_pair(struct ksm_match *match, struct ksm_rmap_item *item)
{
	struct ksm_stable_node *node;
	struct folio *kfolio;
	int err;

	if (folio_test_large(page_folio(match->page)) &&
	    !ksm_match_verify(match, item))
		return -ESTALE;
	/* First ours: if both are of one large folio our reference is in the way. */
	if (ksm_match_is_busy(match->page) || ksm_merge_split(match->page))
		return ksm_match_why_busy(-EBUSY, match->page);
	if (!ksm_match_spare(match->worker))
		return -ENOMEM;
	node = ksm_node_alloc(&match->key, 0);
	if (!node)
		return -ENOMEM;

	err = ksm_match_promote(match, item, node, &kfolio);
	if (ksm_match_drain(match->worker, err))
		err = ksm_match_promote(match, item, node, &kfolio);
	if (err) {
		ksm_node_free(match->worker->engine, node);
		return -ESTALE;
	}
	WARN_ON_ONCE(!ksm_match_publish(match, node));

	err = ksm_match_join(match, node, kfolio);
	folio_put(kfolio);
	if (err)
		ksm_match_demote(match->worker->engine, item);
	return err;
}

/* Look for an equal among those that wait, or wait with them. */
static void ksm_match_unstable(struct ksm_match *match)
{
	struct ksm_engine *engine = match->worker->engine;
	struct ksm_shard *shard = ksm_shard(engine, match->key.hash);
	struct ksm_rmap_item *item = ksm_match_claim(match);
	int err;

	if (item) {
		err = ksm_match_pair(match, item);
		if (ksm_match_drain(match->worker, err))
			err = ksm_match_pair(match, item);
		ksm_match_release(match, item, err && err != -ESTALE);
		if (err != -ESTALE)
			return;
	}
	item = ksm_slot_to_item(match->kmm, match->worker->chunk, match->slot);
	if (!item || ksm_item_state(item) != KSM_ITEM_IDLE)
		return;
	spin_lock(&shard->lock);
	ksm_unstable_insert(engine, shard, item, &match->key);
	spin_unlock(&shard->lock);
}

/* What the slot tells of the page's past, brought up to date with this visit. */
static struct ksm_history ksm_match_recall(struct ksm_match *match)
{
	struct ksm_rmap_item *item = ksm_slot_item(*match->slot);
	struct ksm_history history = ksm_slot_history(*match->slot);
	bool same = ksm_slot_matches(*match->slot, match->key.hash);

	if (item && ksm_item_state(item) == KSM_ITEM_STABLE) {
		ksm_policy_unmerged(&history);
		ksm_chunk_untree(match->worker->engine, item);
	}
	ksm_policy_seen(&history, same);
	return history;
}

/* Does the page wait already, and rightly so? Else it does not wait any longer. */
static bool ksm_match_waits(struct ksm_match *match)
{
	struct ksm_rmap_item *item = ksm_slot_item(*match->slot);

	if (!item || ksm_item_state(item) != KSM_ITEM_UNSTABLE)
		return false;
	if (!ksm_key_cmp(&item->unstable.key, &match->key))
		return true;
	ksm_chunk_untree(match->worker->engine, item);
	return false;
}

/* Remember what was seen, and nothing else. */
static void ksm_match_sight(struct ksm_match *match,
			    const struct ksm_history *history)
{
	struct ksm_rmap_item *item = ksm_slot_item(*match->slot);

	if (item && ksm_item_state(item) != KSM_ITEM_IDLE)
		return;
	ksm_slot_sight(match->kmm, match->worker->chunk, match->slot,
		       match->key.hash, history);
}

/* A page of the process's own. */
static void ksm_match_plain(struct ksm_match *match)
{
	struct ksm_engine *engine = match->worker->engine;
	struct folio *folio = page_folio(match->page);
	struct ksm_history history;
	int err = -ENOENT;

	match->key.hash = ksm_match_hash(engine, match->page);
	match->key.nid = ksm_match_nid(engine, folio);
	match->key.domain = match->kmm->domain;
	history = ksm_match_recall(match);

	if (ksm_policy_may_merge(&history)) {
		if (match->key.hash == engine->zero_hash &&
		    engine->knobs.use_zero_pages && !ksm_match_zero(match)) {
			ksm_chunk_retire_slot(match->kmm, match->worker->chunk,
					      match->addr);
			return;
		}
		err = ksm_match_stable(match);
		if (!err)
			return;
	}
	if (ksm_match_waits(match))
		return;
	ksm_match_sight(match, &history);
	/* What has a folio to join, only not now, is not to start another one. */
	if (err == -ENOENT && ksm_policy_may_park(&history))
		ksm_match_unstable(match);
}

/* A KSM page that has no item here yet: forked, or swapped in again. */
static void ksm_match_shared(struct ksm_match *match)
{
	struct ksm_engine *engine = match->worker->engine;
	struct mm_struct *mm = match->kmm->slot.mm;
	struct folio *folio = page_folio(match->page);
	struct ksm_stable_node *node;
	struct ksm_rmap_item *item;
	struct vm_area_struct *vma;
	struct ksm_shard *shard;

	item = ksm_slot_to_item(match->kmm, match->worker->chunk, match->slot);
	if (!item)
		return;
	if (ksm_item_state(item) != KSM_ITEM_STABLE ||
	    item->stable.node != ksm_node_of(folio))
		ksm_chunk_untree(engine, item);

	mmap_read_lock(mm);
	vma = ksm_merge_vma(mm, match->addr);
	if (!vma || !folio_trylock(folio))
		goto out;
	node = ksm_node_of(folio);
	if (node && ksm_item_state(item) == KSM_ITEM_IDLE)
		ksm_match_attach(engine, item, node, vma);
	if (node && node->entry.key.nid != ksm_match_nid(engine, folio) &&
	    ksm_match_spare(match->worker)) {
		shard = ksm_shard(engine, node->entry.key.hash);
		spin_lock(&shard->lock);
		ksm_stable_rekey(engine, shard, node, folio_nid(folio),
				 &match->worker->spare);
		spin_unlock(&shard->lock);
	}
	folio_unlock(folio);
out:
	mmap_read_unlock(mm);
}

static void ksm_match_one(struct ksm_worker *worker, struct ksm_candidate *cand)
{
	struct ksm_chunk *chunk = worker->chunk;
	struct ksm_match match = {
		.worker = worker,
		.kmm = worker->kmm,
		.slot = ksm_chunk_slot(chunk, cand->addr),
		.addr = cand->addr,
		.page = cand->page,
	};

	cand->page = NULL;
	if (!match.page && cand->kind != KSM_CAND_GONE)
		match.page = ksm_match_lookup(match.kmm, match.addr);
	if (!match.page) {
		ksm_chunk_retire_slot(match.kmm, chunk, match.addr);
		return;
	}
	if (folio_test_ksm(page_folio(match.page)))
		ksm_match_shared(&match);
	else
		ksm_match_plain(&match);
	put_page(match.page);
}

/**
 * ksm_match_batch() - merge what can be merged of a batch, remember the rest
 * @worker: with a batch from ksm_scan_collect(), which is used up
 *
 * A candidate that cannot be merged for want of memory, or because its page is in
 * use, is remembered like any other and has its turn again in the next pass.
 *
 * Context: may sleep; no lock held but the engine mutex.
 */
void ksm_match_batch(struct ksm_worker *worker)
{
	struct ksm_chunk *chunk = worker->chunk;
	unsigned int i;

	lockdep_assert_held(&worker->engine->mutex);
	for (i = 0; i < worker->nr; i++) {
		ksm_match_one(worker, &worker->batch[i]);
		cond_resched();
	}
	if (worker->nr && !chunk->nr)
		ksm_chunk_retire(worker->kmm, chunk->base, chunk->base + PMD_SIZE);
	worker->nr = 0;
}
