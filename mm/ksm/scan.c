// SPDX-License-Identifier: GPL-2.0-only
/*
 * Scanning: from an address space to candidates.
 *
 * The unit of work is what lies under one page table: it is found by one walk and
 * collected under one hold of its lock. What is known already is dealt with right
 * there, with nothing taken and no page read: shared pages that are still shared,
 * and pages that smart scan passes over. The rest become candidates, and are hashed
 * and looked up when all locks have been dropped.
 *
 * The walk stops at the first page table that yields anything. Where nothing is
 * mapped there is no page table, and nothing to pay for; where there is much that
 * yields nothing, the walk pauses after KSM_BATCH_TABLES so that nobody has to wait
 * long for the mmap lock. A VMA counts as one more.
 *
 * A candidate page of a small folio holds a reference. One of a large folio does
 * not, since its folio may have to be split, which no reference must prevent: it is
 * looked up again in its turn. So is a KSM page.
 *
 * Whatever slots the walk has come past without finding a page for them are
 * forgotten.
 */
#include "ksm_internal.h"
#include "ksm.h"

/**
 * struct ksm_scan - one call of ksm_scan_collect()
 * @worker: takes the candidates
 * @seen: everything below this address has been dealt with
 * @gap: start of a range that ends at @seen and has slots, but no pages
 * @budget: pages that may still be looked at
 * @tables: page tables walked so far
 * @skipped: pages passed over
 * @scanned: pages looked at
 */
struct ksm_scan {
	struct ksm_worker *worker;
	unsigned long seen;
	unsigned long gap;
	unsigned int budget;
	unsigned int tables;
	unsigned int skipped;
	unsigned int scanned;
};

static void ksm_scan_add(struct ksm_scan *scan, unsigned long addr,
			 struct page *page, enum ksm_candidate_kind kind)
{
	struct ksm_worker *worker = scan->worker;

	if (page)
		get_page(page);
	worker->batch[worker->nr++] = (struct ksm_candidate) {
		.addr = addr,
		.page = page,
		.kind = kind,
	};
}

static bool ksm_scan_is_full(struct ksm_scan *scan)
{
	return !scan->budget || scan->worker->nr >= KSM_BATCH_PAGES;
}

/* A KSM page that is known, and where it belongs, needs no closer look. */
static bool ksm_scan_is_settled(struct ksm_engine *engine, u64 *slot,
				struct folio *folio)
{
	struct ksm_rmap_item *item = slot ? ksm_slot_item(*slot) : NULL;
	struct ksm_stable_node *node = ksm_node_of(folio);
	struct ksm_history history;

	if (!item || ksm_item_state(item) != KSM_ITEM_STABLE ||
	    item->stable.node != node)
		return false;
	if (!engine->knobs.merge_across_nodes &&
	    node->entry.key.nid != folio_nid(folio))
		return false;
	history = ksm_slot_history(*slot);
	ksm_policy_still_merged(&history);
	ksm_slot_set_history(slot, &history);
	return true;
}

/* Is the page known well enough to be passed over this time? */
static bool ksm_scan_skip(struct ksm_engine *engine, u64 *slot)
{
	struct ksm_rmap_item *item;
	struct ksm_history history;
	bool skip;

	if (!slot || !*slot || !engine->knobs.smart_scan)
		return false;
	item = ksm_slot_item(*slot);
	if (item && ksm_item_state(item) != KSM_ITEM_UNSTABLE)
		return false;
	history = ksm_slot_history(*slot);
	skip = ksm_policy_skip(&history);
	ksm_slot_set_history(slot, &history);
	return skip;
}

/* One mapped anonymous page, its page table locked. */
static void ksm_scan_page(struct ksm_scan *scan, struct vm_area_struct *vma,
			  u64 *slot, unsigned long addr, struct page *page)
{
	struct ksm_engine *engine = scan->worker->engine;
	struct folio *folio = page_folio(page);

	if (folio_test_ksm(folio)) {
		if (!ksm_scan_is_settled(engine, slot, folio))
			ksm_scan_add(scan, addr, NULL, KSM_CAND_SHARED);
	} else {
		if (ksm_scan_skip(engine, slot)) {
			scan->skipped++;
			return;
		}
		ksm_scan_add(scan, addr, folio_test_large(folio) ? NULL : page,
			     KSM_CAND_PLAIN);
		flush_anon_page(vma, page, addr);
		flush_dcache_page(page);
	}
	scan->scanned++;
	scan->budget--;
}

static bool ksm_scan_is_candidate(struct page *page)
{
	struct folio *folio;

	/* Nobody is to read a page whose memory has failed. */
	if (!page || PageHWPoison(page))
		return false;
	folio = page_folio(page);
	return folio_test_anon(folio) && !folio_is_zone_device(folio);
}

/* A page in flight comes back: what is known of it had better be kept. */
static bool ksm_scan_is_moving(pte_t pte)
{
	return !pte_none(pte) && !pte_present(pte) &&
	       softleaf_is_migration(softleaf_from_pte(pte));
}

static u64 *ksm_scan_slot(struct ksm_chunk *chunk, unsigned long addr)
{
	return chunk ? ksm_chunk_slot(chunk, addr) : NULL;
}

static void ksm_scan_table(struct ksm_scan *scan, struct vm_area_struct *vma,
			   pmd_t *pmd, unsigned long addr, unsigned long end)
{
	struct ksm_chunk *chunk = ksm_chunk_find(scan->worker->kmm, addr);
	pte_t *start_pte, *pte;
	spinlock_t *ptl;		/* of the page table */

	start_pte = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!start_pte)
		return;
	for (pte = start_pte; addr != end && !ksm_scan_is_full(scan);
	     pte++, addr += PAGE_SIZE) {
		u64 *slot = ksm_scan_slot(chunk, addr);
		pte_t entry = ptep_get(pte);
		struct page *page = NULL;

		if (pte_present(entry))
			page = vm_normal_page(vma, addr, entry);
		if (ksm_scan_is_candidate(page))
			ksm_scan_page(scan, vma, slot, addr, page);
		else if (slot && *slot && !ksm_scan_is_moving(entry))
			ksm_scan_add(scan, addr, NULL, KSM_CAND_GONE);
	}
	pte_unmap_unlock(start_pte, ptl);
	scan->seen = addr;
}

/* Return: false if there is no huge page there after all. */
static bool ksm_scan_huge(struct ksm_scan *scan, struct vm_area_struct *vma,
			  pmd_t *pmd, unsigned long addr, unsigned long end)
{
	struct ksm_chunk *chunk = ksm_chunk_find(scan->worker->kmm, addr);
	spinlock_t *ptl = pmd_lock(vma->vm_mm, pmd);
	pmd_t entry = pmdp_get(pmd);
	struct page *page;

	if (!pmd_present(entry) || !pmd_leaf(entry)) {
		spin_unlock(ptl);
		return false;
	}
	page = vm_normal_page_pmd(vma, addr & PMD_MASK, entry);
	if (ksm_scan_is_candidate(page)) {
		for (; addr != end && !ksm_scan_is_full(scan); addr += PAGE_SIZE)
			ksm_scan_page(scan, vma, ksm_scan_slot(chunk, addr),
				      addr, page + ((addr & ~PMD_MASK) >> PAGE_SHIFT));
		scan->seen = addr;
	}
	spin_unlock(ptl);
	return true;
}

/* Has the walk jumped over slots? Then it stops, for them to be forgotten. */
static bool ksm_scan_found_gap(struct ksm_scan *scan, unsigned long addr)
{
	unsigned long used;

	used = ksm_chunk_next_used(scan->worker->kmm, scan->seen, addr);
	scan->seen = max(scan->seen, addr);
	if (used >= addr)
		return false;
	scan->gap = used;
	return true;
}

static int ksm_scan_pmd_entry(pmd_t *pmd, unsigned long addr, unsigned long end,
			      struct mm_walk *walk)
{
	struct ksm_scan *scan = walk->private;
	pmd_t entry = pmdp_get_lockless(pmd);

	cond_resched();
	if (!atomic_read(&walk->mm->mm_users))
		return 1;
	if (!pmd_present(entry))
		return 0;
	if (ksm_scan_found_gap(scan, addr))
		return 1;
	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) || !pmd_leaf(entry) ||
	    !ksm_scan_huge(scan, walk->vma, pmd, addr, end))
		ksm_scan_table(scan, walk->vma, pmd, addr, end);

	/* A table that went away under us has no pages, and its slots are a gap. */
	return scan->worker->nr || ksm_scan_is_full(scan) ||
	       ++scan->tables >= KSM_BATCH_TABLES;
}

static const struct mm_walk_ops ksm_scan_ops = {
	.pmd_entry = ksm_scan_pmd_entry,
	.walk_lock = PGWALK_RDLOCK,
};

/*
 * Walk on from scan->seen. Return: true if the walk stopped on the way; false at
 * the end of the mm, *mergeable telling whether there was any VMA to be scanned.
 */
static bool ksm_scan_walk(struct ksm_scan *scan, struct mm_struct *mm,
			  bool *mergeable)
{
	struct vm_area_struct *vma;

	VMA_ITERATOR(vmi, mm, scan->seen);
	for_each_vma(vmi, vma) {
		if (!(vma->vm_flags & VM_MERGEABLE))
			continue;
		*mergeable = true;
		if (!vma->anon_vma)
			continue;
		if (walk_page_range_vma(vma, max(scan->seen, vma->vm_start),
					vma->vm_end, &ksm_scan_ops, scan))
			return true;
		/* There may be very many VMAs, with not even a page table. */
		if (++scan->tables >= KSM_BATCH_TABLES) {
			ksm_scan_found_gap(scan, vma->vm_end);
			return true;
		}
		cond_resched();
	}
	return ksm_scan_found_gap(scan, mm->task_size);
}

/* The candidates are all from under one page table: pin down its chunk. */
static void ksm_scan_finish(struct ksm_scan *scan)
{
	struct ksm_worker *worker = scan->worker;

	ksm_stat_add(worker->engine, KSM_STAT_SCANNED, scan->scanned);
	ksm_stat_add(worker->engine, KSM_STAT_SKIPPED, scan->skipped);
	if (scan->gap != ULONG_MAX)
		ksm_chunk_retire(worker->kmm, scan->gap, scan->seen);
	if (!worker->nr)
		return;
	worker->chunk = ksm_chunk_get(worker->kmm, worker->batch[0].addr);
	while (!worker->chunk && worker->nr) {
		struct page *page = worker->batch[--worker->nr].page;

		if (page)
			put_page(page);
	}
}

/**
 * ksm_scan_collect() - find the next pages of an mm that are worth a closer look
 * @worker: whose @worker->kmm is the mm; the candidates go to @worker->batch
 * @addr: where to start; moved on to where to continue, if it is in this mm
 * @budget: pages that may be looked at, not 0; reduced by those that were, and by
 *	    one if there were none, so that not even an empty walk is for free
 *
 * Without memory for a chunk the candidates are dropped; their turn comes again.
 *
 * An mm without any VMA that could be scanned is to be forgotten, and is taken off
 * the list here, while mmap_lock keeps new ones from being offered.
 *
 * Context: may sleep; no lock held but the engine mutex.
 * Return: what is to be done next.
 */
enum ksm_scan_result ksm_scan_collect(struct ksm_worker *worker,
				      unsigned long *addr, unsigned int *budget)
{
	struct ksm_mm *kmm = worker->kmm;
	struct mm_struct *mm = kmm->slot.mm;
	struct ksm_scan scan = {
		.worker = worker,
		.seen = *addr,
		.gap = ULONG_MAX,
		.budget = *budget,
	};
	enum ksm_scan_result result = KSM_SCAN_BATCH;
	bool mergeable = *addr;

	lockdep_assert_held(&worker->engine->mutex);
	worker->nr = 0;
	mmap_read_lock(mm);
	if (!atomic_read(&mm->mm_users))
		result = KSM_SCAN_GONE;
	else if (!ksm_scan_walk(&scan, mm, &mergeable))
		result = mergeable ? KSM_SCAN_END : KSM_SCAN_GONE;
	if (result == KSM_SCAN_GONE) {
		ksm_chunk_retire(kmm, 0, ULONG_MAX);
		ksm_registry_remove(worker->engine, kmm);
	}
	mmap_read_unlock(mm);

	*budget = scan.scanned ? scan.budget : scan.budget - 1;
	if (result == KSM_SCAN_GONE)
		return result;	/* @addr may be the cursor's, which has moved on */
	ksm_scan_finish(&scan);
	*addr = scan.seen;
	return result;
}
