// SPDX-License-Identifier: GPL-2.0-only
/*
 * Matching: from candidates to merged pages.
 *
 * Here the trees meet the page tables. What becomes of a page:
 *
 *	all zero, and use_zero_pages	  -> the zero page
 *	key in the stable tree		  -> joins that node's folio, at first sight
 *	not seen with this content before -> a sighting in its slot
 *	key in the unstable tree	  -> the item that waits there is promoted: its
 *					     page becomes a KSM page, and this one joins
 *	else				  -> waits in the unstable tree
 *
 * When only zero pages are looked for, they are merged at first sight, and nothing is
 * remembered of any page.
 *
 * A batch is worked on in three steps. All its pages are read, which gives their
 * keys. The keys are looked up, one after the other; pages that are to be merged are
 * put aside. When there are enough, or the batch is done, they are merged together,
 * see join.c.
 *
 * A pair is made by promoting one page, under the lock of its own VMA, and then
 * letting the other join, under the lock of its own. So two such locks are
 * never held at once, and there is one way only in which a page joins a node. Should
 * that fail after the promotion, the promoted page is given back to its process; it
 * stays claimed until then.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* Candidates that are fetched from memory in advance. */
#define KSM_PREFETCH	4

/**
 * struct ksm_match - one candidate being matched
 * @worker: for whom
 * @kmm: the mm that it is in
 * @slot: its slot; NULL where nothing is remembered of pages
 * @addr: where it is mapped
 * @page: what is mapped there, with a reference; NULL if that has to be looked up
 * @key: of the content that was read
 * @history: of the page, this visit included
 */
struct ksm_match {
	struct ksm_worker *worker;
	struct ksm_mm *kmm;
	u64 *slot;
	unsigned long addr;
	struct page *page;
	struct ksm_key key;
	struct ksm_history history;
};

static int ksm_match_nid(struct ksm_engine *engine, struct folio *folio)
{
	return READ_ONCE(engine->knobs.merge_across_nodes) ? 0 : folio_nid(folio);
}

static u64 ksm_match_hash(struct ksm_engine *engine, struct page *page)
{
	void *data = kmap_local_page(page);
	u64 hash = ksm_hash(engine, data);

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
 * while, which hold references to them. That makes them look busy. Emptying those
 * caches bothers all CPUs, so it is done when a merge has failed for it, and once per
 * pass at most. Return: whether @page, which is busy, may not be so any more.
 */
static bool ksm_match_drain(struct ksm_worker *worker, struct page *page)
{
	if (worker->drained || folio_maybe_dma_pinned(page_folio(page)))
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

	return folio_ref_count(folio) > folio_expected_ref_count(folio) + 1;
}

static bool ksm_match_is_zero(struct page *page)
{
	void *data = kmap_local_page(page);
	bool zero = !memchr_inv(data, 0, PAGE_SIZE);

	kunmap_local(data);
	return zero;
}

/* What is mapped at an address now, with a reference. */
static struct page *ksm_match_lookup(struct ksm_mm *kmm, unsigned long addr)
{
	struct vm_area_struct *vma = ksm_vma_hold(kmm->slot.mm, addr);
	struct page *page;

	if (!vma)
		return NULL;
	page = ksm_merge_lookup(vma, addr);
	ksm_vma_release(vma);
	return page;
}

/*
 * See to it that the candidate's page is there, small, and in nobody's hands but ours.
 * Return: 0; -EFAULT if it has changed or gone; any other error if it has to wait.
 */
static int ksm_match_prepare(struct ksm_match *match)
{
	if (!match->page)
		match->page = ksm_match_lookup(match->kmm, match->addr);
	if (!match->page || folio_test_ksm(page_folio(match->page)))
		return -EFAULT;
	if (ksm_match_is_busy(match->page) &&
	    (!ksm_match_drain(match->worker, match->page) ||
	     ksm_match_is_busy(match->page)))
		return -EBUSY;
	return ksm_merge_split(match->page);
}

/* The item of a page that is about to be freed makes room for itself, and for 70 more. */
static enum ksm_charge_how ksm_match_how(struct ksm_match *match)
{
	return folio_mapcount(page_folio(match->page)) == 1 ?
		KSM_CHARGE_FORCE : KSM_CHARGE_TRY;
}

/*
 * Have the page merged with the rest of the batch, when it comes to that: with the
 * zero page if @kpage is NULL. @kpage comes with a reference. Return: 0 if that is
 * settled; an error, and nothing done, if it cannot be.
 */
static int ksm_match_queue(struct ksm_match *match, struct ksm_stable_node *node,
			   struct page *kpage, struct ksm_rmap_item *founder)
{
	struct ksm_worker *worker = match->worker;
	struct ksm_rmap_item *item = match->slot ? ksm_slot_item(*match->slot) : NULL;
	int err = ksm_match_prepare(match);

	if (err)
		return err;
	if (item)
		ksm_chunk_untree(worker->engine, item);
	if (kpage) {
		item = ksm_slot_to_item(match->kmm, worker->chunk, match->slot,
					match->addr, ksm_match_how(match));
		if (!item)
			return -ENOMEM;
	}
	ksm_join_add(worker, &(struct ksm_merge) {
		.addr = match->addr,
		.page = match->page,
		.kpage = kpage,
		.key = match->key,
		.history = match->history,
		.item = kpage ? item : NULL,
		.node = node,
		.founder = founder,
	});
	match->page = NULL;
	return 0;
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

/* Will the node be full when those that are on their way to it have joined? */
static bool ksm_match_fills(struct ksm_worker *worker, struct ksm_stable_node *node)
{
	unsigned int i, nr = ksm_node_load(node);

	for (i = 0; i < worker->nr_merges; i++)
		nr += worker->merges[i].node == node;
	return nr >= READ_ONCE(worker->engine->knobs.max_page_sharing);
}

/*
 * Try to share what is shared already. Return: 0 if that is under way; -ENOENT if
 * there is nothing to share, or no room; any other error if it has to wait.
 */
static int ksm_match_stable(struct ksm_match *match)
{
	struct ksm_worker *worker = match->worker;
	struct ksm_stable_node *node;
	struct folio *kfolio;
	int err;

	kfolio = ksm_match_pick(match, &node);
	if (kfolio && ksm_match_fills(worker, node)) {
		folio_put(kfolio);
		ksm_join_all(worker);
		kfolio = ksm_match_pick(match, &node);
	}
	if (!kfolio)
		return -ENOENT;
	err = ksm_match_queue(match, node, &kfolio->page, NULL);
	if (err)
		folio_put(kfolio);
	return err;
}

/* Does the page that an item waits with go with the candidate? Its VMA is held. */
static int ksm_match_fits(struct ksm_match *match, struct page *page)
{
	struct folio *folio = page_folio(page);

	if (folio_test_ksm(folio) || page == match->page ||
	    ksm_match_nid(match->worker->engine, folio) != match->key.nid)
		return -EFAULT;
	return ksm_merge_split(page);
}

/* The folio, which is locked, becomes the KSM folio of @node; @family as in join.c. */
static void ksm_match_found(struct ksm_match *match, struct ksm_rmap_item *item,
			    struct ksm_stable_node *node, struct folio *folio,
			    struct vm_area_struct *vma, bool family)
{
	node->pfn = folio_pfn(folio);
	ksm_join_attach(match->worker->engine, item, node, vma, family);
	ksm_node_bind(folio, node);
	folio_mark_accessed(folio);
	/* Reclaim drops clean folios; this one is to be swapped out. */
	folio_mark_dirty(folio);
}

/*
 * A frame that nobody had, for a copy of a page of @mm; charged to that mm's cgroup, if it
 * has room: nothing is reclaimed, and nobody killed, on ksmd's time. Return: it, or NULL.
 */
static struct folio *ksm_match_frame(struct ksm_match *match, struct mm_struct *mm)
{
	struct page *page = ksm_frames_take(match->worker->engine,
					    page_to_nid(match->page));

	if (page)
		mem_cgroup_charge(page_folio(page), mm, GFP_NOWAIT);
	return page ? page_folio(page) : NULL;
}

/*
 * See to it that the copy is charged. A full cgroup may exceed its limit by this page, if
 * only until @folio, the one that is copied, is free: mapped nowhere else, and while its
 * VMA is held it cannot be. What a fork has left shared waits: it stays when it is copied.
 */
static int ksm_match_pay(struct folio *copy, struct folio *folio, struct mm_struct *mm)
{
	struct mem_cgroup *memcg;
	bool same;

	if (mem_cgroup_disabled() || folio_memcg_charged(copy))
		return 0;
	if (folio_mapcount(folio) != 1 || folio_test_swapcache(folio))
		return -ENOMEM;
	memcg = get_mem_cgroup_from_mm(mm);
	rcu_read_lock();
	same = folio_memcg(folio) == memcg;
	rcu_read_unlock();
	mem_cgroup_put(memcg);
	return same ? mem_cgroup_charge(copy, mm, GFP_ATOMIC) : -ENOMEM;
}

/*
 * Have a copy of the page, in @copy, be the KSM page of @node, and mapped instead. Return:
 * 0, and the copy, with another reference, in merge->kpage; or an error, and merge->kpage
 * NULL.
 */
static int ksm_match_refresh(struct ksm_match *match, struct ksm_rmap_item *item,
			     struct ksm_stable_node *node, struct ksm_merge *merge,
			     struct folio *copy)
{
	struct page *page = folio_page(copy, 0);

	if (copy_mc_user_highpage(page, merge->page, merge->addr, merge->vma))
		return -EFAULT;
	__folio_set_locked(copy);
	__folio_set_swapbacked(copy);
	__folio_mark_uptodate(copy);
	ksm_match_found(match, item, node, copy, merge->vma, false);
	merge->kpage = page;
	ksm_merge_replace(merge, 1);
	if (merge->err) {
		ksm_join_detach(match->worker->engine, item, node);
		ksm_node_bind(copy, NULL);
		merge->kpage = NULL;
	} else {
		folio_add_lru(copy);
		folio_get(copy);
	}
	folio_unlock(copy);
	return merge->err;
}

/*
 * Make the page, which is small, the KSM page of @node; or a copy of it in @copy, if there
 * is one. Its VMA is held.
 */
static int ksm_match_promote_page(struct ksm_match *match,
				  struct ksm_rmap_item *item,
				  struct ksm_stable_node *node,
				  struct ksm_merge *merge, struct folio *copy)
{
	struct folio *folio = page_folio(merge->page);
	int nid = page_to_nid(merge->page);
	bool family;

	if (!folio_trylock(folio))
		return -EBUSY;
	/*
	 * Before the freeze. The process itself may write to the page after it, and be
	 * gone from the mappings: those of its family are left then. While its VMA is held
	 * it does not fork, so one mapping does not become two.
	 */
	family = folio_mapcount(folio) > 1;
	if (!folio_test_anon(folio) || folio_test_ksm(folio))
		merge->err = -EFAULT;
	else if (copy)
		merge->err = ksm_match_pay(copy, folio, merge->vma->vm_mm);
	ksm_merge_freeze(merge, 1);
	if (!merge->err && !pages_identical(merge->page, match->page))
		merge->err = -EFAULT;
	if (!merge->err && copy)
		merge->err = ksm_match_refresh(match, item, node, merge, copy);
	else if (!merge->err)
		ksm_match_found(match, item, node, folio, merge->vma, family);
	folio_unlock(folio);
	if (!merge->kpage)
		return merge->err;

	/* The reference that we had on the page is on the copy now. */
	put_page(merge->page);
	merge->page = merge->kpage;
	ksm_frames_stir(match->worker->engine, nid);
	return 0;
}

/*
 * Make the page that @item waits with the KSM page of @node; or a copy of it in @copy, if
 * there is one. Return: 0, and the KSM page in *kpagep with a reference; -EAGAIN if it
 * seems busy, but may not be; any other error if @item does not do, or not now.
 */
static int ksm_match_promote(struct ksm_match *match, struct ksm_rmap_item *item,
			     struct ksm_stable_node *node, struct folio *copy,
			     struct page **kpagep)
{
	struct ksm_merge merge = { .addr = ksm_item_addr(item) };
	struct mm_struct *mm = item->owner->slot.mm;
	int err = -EFAULT;

	merge.vma = ksm_vma_hold(mm, merge.addr);
	if (merge.vma && ksm_identity_holds(item->owner))
		merge.page = ksm_merge_lookup(merge.vma, merge.addr);
	if (merge.page)
		err = ksm_match_fits(match, merge.page);
	if (!err)
		err = ksm_match_promote_page(match, item, node, &merge, copy);
	if (merge.vma)
		ksm_vma_release(merge.vma);

	trace_ksm_merge_with_ksm_page(NULL, merge.page ? page_to_pfn(merge.page) : 0,
				      item, mm, err);
	if (err == -EBUSY && ksm_match_drain(match->worker, merge.page))
		err = -EAGAIN;
	if (!err)
		*kpagep = merge.page;
	else if (merge.page)
		put_page(merge.page);
	return err;
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

/* A claimed item, that nothing was done with, goes on waiting. */
static void ksm_match_unclaim(struct ksm_match *match, struct ksm_rmap_item *item)
{
	struct ksm_engine *engine = match->worker->engine;
	struct ksm_shard *shard = ksm_shard(engine, match->key.hash);
	struct ksm_key key = item->unstable.key;

	spin_lock(&shard->lock);
	ksm_item_release(shard, item);
	ksm_unstable_insert(engine, shard, item, &key);
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
 * Make a pair with @item, which is claimed, and stays so if that is under way; what they
 * share is in @copy, if there is one. Return: as ksm_match_pair().
 */
static int ksm_match_pair_up(struct ksm_match *match, struct ksm_rmap_item *item,
			     struct folio *copy)
{
	struct ksm_engine *engine = match->worker->engine;
	struct ksm_stable_node *node;
	struct page *kpage;
	int err;

	/* Else it would be promoted for nothing, and to undo that takes a page. */
	if (!ksm_slot_to_item(match->kmm, match->worker->chunk, match->slot, match->addr,
			      ksm_match_how(match)))
		return -ENOMEM;
	node = ksm_node_alloc(match->kmm->domain, &match->key, 0);
	if (!node)
		return -ENOMEM;

	err = ksm_match_promote(match, item, node, copy, &kpage);
	if (err == -EAGAIN)
		err = ksm_match_promote(match, item, node, copy, &kpage);
	if (err) {
		ksm_node_free(engine, node);
		return err == -ENOMEM ? err : -ESTALE;
	}
	WARN_ON_ONCE(!ksm_match_publish(match, node));

	err = ksm_match_queue(match, node, kpage, item);
	if (err) {
		ksm_join_demote(engine, item, node, match->key.hash);
		put_page(kpage);
		ksm_join_sight(match->worker, match->addr, match->key.hash,
			       &match->history);
	}
	return 0;
}

/*
 * Make a pair with @item, which is claimed, and stays so if that is under way. Return:
 * 0 if it is; -ESTALE if @item does not do, so that the page may take its place; any
 * other error if it is this page that has to wait.
 */
static int ksm_match_pair(struct ksm_match *match, struct ksm_rmap_item *item)
{
	struct ksm_engine *engine = match->worker->engine;
	struct folio *copy = NULL;
	int err;

	if (!match->page)
		return -EFAULT;
	if (!ksm_match_spare(match->worker))
		return -ENOMEM;
	/* Before anything is split: where there is no frame it would be for nothing. */
	if (READ_ONCE(engine->knobs.fresh_frames)) {
		copy = ksm_match_frame(match, item->owner->slot.mm);
		if (!copy)
			return -ENOMEM;
	}
	/* First ours: if both are of one large folio our reference is in the way. */
	err = ksm_match_prepare(match);
	if (!err)
		err = ksm_match_pair_up(match, item, copy);
	if (copy)
		ksm_frames_put(engine, &copy->page);
	return err;
}

/* Look for an equal among those that wait. Return: false if there is none. */
static bool ksm_match_claimed(struct ksm_match *match)
{
	struct ksm_rmap_item *item = ksm_match_claim(match);
	int err;

	if (!item)
		return false;
	if (!match->page)
		match->page = ksm_match_lookup(match->kmm, match->addr);
	if (match->page && folio_test_large(page_folio(match->page)) &&
	    !ksm_match_verify(match, item))
		err = -ESTALE;
	else
		err = ksm_match_pair(match, item);
	if (err == -ESTALE)
		ksm_join_release(match->worker->engine, item, match->key.hash);
	else if (err)
		ksm_match_unclaim(match, item);
	return err != -ESTALE;
}

/* Make a pair, or wait for an equal. */
static void ksm_match_unstable(struct ksm_match *match)
{
	struct ksm_engine *engine = match->worker->engine;
	struct ksm_shard *shard = ksm_shard(engine, match->key.hash);
	struct ksm_rmap_item *item;

	if (ksm_match_claimed(match))
		return;
	item = ksm_slot_to_item(match->kmm, match->worker->chunk, match->slot,
				match->addr, KSM_CHARGE_TRY);
	if (!item || ksm_item_state(item) != KSM_ITEM_IDLE)
		return;
	spin_lock(&shard->lock);
	ksm_unstable_insert(engine, shard, item, &match->key);
	spin_unlock(&shard->lock);
}

/*
 * An item leaves its node. A merge that is under way may have been founded on it: that
 * comes first.
 */
static void ksm_match_untree(struct ksm_worker *worker, struct ksm_rmap_item *item)
{
	if (ksm_item_state(item) == KSM_ITEM_STABLE)
		ksm_join_all(worker);
	ksm_chunk_untree(worker->engine, item);
}

static void ksm_match_forget(struct ksm_match *match)
{
	struct ksm_rmap_item *item = ksm_slot_item(*match->slot);

	if (item)
		ksm_match_untree(match->worker, item);
	ksm_chunk_retire_slot(match->kmm, match->worker->chunk, match->addr);
}

/*
 * Is a page merged, which was not when it was collected? A page of the same batch may
 * have found it waiting, and have had it promoted.
 */
static bool ksm_match_is_merged(struct ksm_match *match)
{
	struct ksm_rmap_item *item = ksm_slot_item(*match->slot);
	struct page *page;
	bool merged;

	if (!item || ksm_item_state(item) != KSM_ITEM_STABLE)
		return false;
	page = ksm_match_lookup(match->kmm, match->addr);
	if (!page)
		return false;
	merged = ksm_node_of(page_folio(page)) == item->stable.node;
	put_page(page);
	return merged;
}

/* What the slot tells of the page's past, brought up to date with this visit. */
static struct ksm_history ksm_match_recall(struct ksm_match *match)
{
	struct ksm_rmap_item *item = ksm_slot_item(*match->slot);
	const unsigned long pass = match->worker->engine->seqnr;
	struct ksm_heat *heat = &match->worker->chunk->heat;
	struct ksm_history history = ksm_slot_history(*match->slot);
	bool same = ksm_slot_matches(*match->slot, match->key.hash);

	if (!*match->slot)
		ksm_policy_new_in(&history, heat, pass);
	if (ksm_slot_is_zeroed(*match->slot) ||
	    (item && ksm_item_state(item) == KSM_ITEM_STABLE)) {
		ksm_policy_unmerged(&history);
		ksm_policy_heat(heat, pass);
		same = false;
	}
	if (item && ksm_item_state(item) == KSM_ITEM_STABLE)
		ksm_match_untree(match->worker, item);
	ksm_policy_seen(&history, same);
	return history;
}

/* Does the page wait already, and rightly so? Else it does not wait any longer. */
static bool ksm_match_waits(struct ksm_match *match)
{
	struct ksm_rmap_item *item = ksm_slot_item(*match->slot);

	if (!item || ksm_item_state(item) != KSM_ITEM_UNSTABLE)
		return false;
	if (!ksm_key_cmp(&item->unstable.key, &match->key)) {
		item->unstable.key.frame = match->key.frame;
		return true;
	}
	ksm_chunk_untree(match->worker->engine, item);
	return false;
}

/* A page of the process's own. */
static void ksm_match_plain(struct ksm_match *match)
{
	struct ksm_engine *engine = match->worker->engine;
	int err = -ENOENT;

	if (ksm_match_is_merged(match))
		return;
	match->history = ksm_match_recall(match);
	if (ksm_policy_may_merge(&match->history)) {
		if (match->key.hash == engine->zero_hash &&
		    READ_ONCE(engine->knobs.use_zero_pages) &&
		    !ksm_match_queue(match, NULL, NULL, NULL))
			return;
		err = ksm_match_stable(match);
		if (!err)
			return;
	}
	if (ksm_match_waits(match))
		return;
	ksm_join_sight(match->worker, match->addr, match->key.hash, &match->history);
	/* What has a folio to join, only not now, is not to start another one. */
	if (err == -ENOENT && ksm_policy_may_park(&match->history))
		ksm_match_unstable(match);
}

/* A page whose first word is zero, when only zero pages are looked for. */
static void ksm_match_zero(struct ksm_match *match)
{
	if (!match->page)
		match->page = ksm_match_lookup(match->kmm, match->addr);
	if (match->page && ksm_match_is_zero(match->page))
		ksm_match_queue(match, NULL, NULL, NULL);
}

/* A KSM page that has migrated to another NUMA node gets its place there. */
static void ksm_match_rekey(struct ksm_match *match, struct ksm_stable_node *node,
			    struct folio *folio)
{
	struct ksm_engine *engine = match->worker->engine;
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);

	if (node->entry.key.nid == ksm_match_nid(engine, folio) ||
	    !ksm_match_spare(match->worker))
		return;
	spin_lock(&shard->lock);
	ksm_stable_rekey(engine, shard, node, folio_nid(folio), &match->worker->spare);
	spin_unlock(&shard->lock);
}

/*
 * Attach an item, which is in no tree, to the node of the folio that its page maps. The
 * VMA is held. Return: true, and nothing done, if that node is of another domain.
 */
static bool ksm_match_adopt(struct ksm_match *match, struct ksm_rmap_item *item,
			    struct vm_area_struct *vma)
{
	struct folio *folio = page_folio(match->page);
	struct ksm_stable_node *node;
	bool foreign;

	if (!folio_trylock(folio))
		return false;
	node = ksm_node_of(folio);
	foreign = node && (node->domain != match->kmm->domain ||
			   ksm_mm_has_moved(match->kmm));
	if (node && !foreign && ksm_item_state(item) == KSM_ITEM_IDLE)
		ksm_join_attach(match->worker->engine, item, node, vma, false);
	if (node)
		ksm_match_rekey(match, node, folio);
	folio_unlock(folio);
	return foreign;
}

/* Does an item lead to where the page of a candidate is mapped? */
static bool ksm_match_leads(struct ksm_match *match, struct ksm_rmap_item *item,
			    struct vm_area_struct *vma)
{
	return ksm_item_state(item) == KSM_ITEM_STABLE &&
	       item->stable.node == ksm_node_of(page_folio(match->page)) &&
	       item->stable.anon_vma == vma->anon_vma &&
	       item->stable.index == linear_anon_page_index(vma, match->addr);
}

/* Return: false, and nothing done, if the item of the page has to leave a tree first. */
static bool ksm_match_try_adopt(struct ksm_match *match)
{
	struct mm_struct *mm = match->kmm->slot.mm;
	struct ksm_rmap_item *item;
	struct vm_area_struct *vma;
	bool done, foreign = false;

	item = ksm_slot_to_item(match->kmm, match->worker->chunk, match->slot,
				match->addr, KSM_CHARGE_FORCE);
	if (!item)
		return true;
	vma = ksm_vma_hold(mm, match->addr);
	if (!vma)
		return true;
	done = ksm_item_state(item) == KSM_ITEM_IDLE || ksm_match_leads(match, item, vma);
	if (done)
		foreign = ksm_match_adopt(match, item, vma);
	ksm_vma_release(vma);
	if (foreign)
		ksm_merge_break_page(mm, match->addr);
	return done;
}

/*
 * A KSM page that has no item here yet, or one that leads elsewhere: forked, or swapped
 * in again. It may be one that this mm is not to share any more, since it came into
 * another merge domain.
 */
static void ksm_match_shared(struct ksm_match *match)
{
	if (ksm_match_try_adopt(match))
		return;
	ksm_match_untree(match->worker, ksm_slot_item(*match->slot));
	ksm_match_try_adopt(match);
}

/*
 * Read a candidate. The reference on a large folio is given up after that: if one of
 * its pages has an equal it has to be split, which takes that nobody holds it.
 */
static void ksm_match_read(struct ksm_worker *worker, struct ksm_candidate *cand)
{
	struct ksm_engine *engine = worker->engine;
	struct folio *folio;

	if (cand->kind != KSM_CAND_PLAIN && cand->kind != KSM_CAND_KNOWN)
		return;
	folio = page_folio(cand->page);
	cand->key = (struct ksm_key) {
		.hash = cand->kind == KSM_CAND_PLAIN ?
			ksm_match_hash(engine, cand->page) :
			ksm_slot_hash(*ksm_chunk_slot(worker->chunk, cand->addr)),
		.domain = worker->kmm->domain->id,
		.nid = ksm_match_nid(engine, folio),
		.frame = page_to_pfn(cand->page),
	};
	prefetch(ksm_shard(engine, cand->key.hash));	/* for when it is looked up */
	if (folio_test_large(folio)) {
		put_page(cand->page);
		cand->page = NULL;
	}
}

/* Of a look-up, the roots; the shard was fetched when the page had been read. */
static void ksm_match_prefetch(struct ksm_worker *worker, struct ksm_candidate *cand)
{
	struct ksm_shard *shard = ksm_shard(worker->engine, cand->key.hash);

	prefetch(READ_ONCE(shard->stable.rb_node));
	prefetch(READ_ONCE(shard->unstable.rb_node));
}

static void ksm_match_one(struct ksm_worker *worker, struct ksm_candidate *cand)
{
	struct ksm_match match = {
		.worker = worker,
		.kmm = worker->kmm,
		.slot = worker->chunk ? ksm_chunk_slot(worker->chunk, cand->addr) : NULL,
		.addr = cand->addr,
		.page = cand->page,
		.key = cand->key,
	};

	cand->page = NULL;
	if (cand->kind == KSM_CAND_SHARED)
		match.page = ksm_match_lookup(match.kmm, match.addr);
	if (cand->kind == KSM_CAND_PLAIN || cand->kind == KSM_CAND_KNOWN)
		ksm_match_plain(&match);
	else if (cand->kind == KSM_CAND_ZERO)
		ksm_match_zero(&match);
	else if (!match.page)
		ksm_match_forget(&match);
	else if (folio_test_ksm(page_folio(match.page)))
		ksm_match_shared(&match);
	if (match.page)
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
	unsigned int i;

	lockdep_assert_held(&worker->engine->mutex);
	for (i = 0; i < worker->nr; i++) {
		ksm_match_read(worker, &worker->batch[i]);
		cond_resched();
	}
	for (i = 0; i < worker->nr; i++) {
		if (i + KSM_PREFETCH < worker->nr)
			ksm_match_prefetch(worker, &worker->batch[i + KSM_PREFETCH]);
		ksm_match_one(worker, &worker->batch[i]);
		cond_resched();
	}
	ksm_join_all(worker);
	if (worker->nr && worker->chunk)
		ksm_chunk_settle(worker->kmm, worker->chunk);
	worker->nr = 0;
}
