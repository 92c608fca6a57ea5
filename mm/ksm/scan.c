// SPDX-License-Identifier: GPL-2.0-only
/*
 * Scanning: from an address space to candidates.
 *
 * The unit of work is what lies under one page table: it is found by one walk and
 * collected under one hold of its lock. What is known already is dealt with right
 * there, with nothing taken and no page read. The rest become candidates, and are
 * hashed and looked up when all locks have been dropped.
 *
 * Why unchanged pages need not be read
 * ------------------------------------
 * When a page is found for the first time, the dirty bit of its PTE is cleared, and
 * *then* the page is hashed. As long as the PTE stays clean after that, nobody has
 * written through it, and the hash still holds. So the record of what was read is in
 * the PTE, where the hardware keeps it up to date.
 *
 * If the bit is set again at a later visit, the page is read. It is left dirty until it
 * was read twice with the same result, and then until the chunk has its turn, once in
 * KSM_RENEW_PASSES. So those who write to a page all the time meet a clean PTE of
 * ours but once, and others not often. Those of a process that has just started, and
 * writes to all its memory, hardly ever do: see ksm_policy_may_try().
 *
 * The dirty bit moves to the folio, or reclaim would take the page for a copy of what
 * is in swap. The TLB is flushed before the page table lock is dropped: a CPU that
 * still had the dirty translation would write without setting the bit, and reclaim,
 * which trusts a clean PTE to have no writers left, would lose that write.
 *
 * Some writes do not show in the PTE. A guest writes through its own page tables, so
 * that where there are secondary MMUs a block of pages is trusted only if their young
 * bits say that nobody was there (young.c); a device with page tables but no such bits
 * is overlooked. Any other device, or the kernel on behalf of another process, writes
 * through a reference to the page: get_user_pages() has made the PTE dirty before, and we
 * do not clear the bit while anybody holds the page. MADV_FREE clears it regardless, and
 * a page that reclaim has unmapped may be mapped again clean: later writes are
 * overlooked, unless the page is pinned. Other pages may have been moved to the address,
 * or have come back from swap: the frame number tells. What is overlooked is found when
 * the page is read regardless, once in KSM_REREAD_PASSES. A mistake means that a merge
 * comes late, not that it is wrong: contents are compared before anything is shared.
 *
 * What a walk costs
 * -----------------
 * The walk stops at the first page table that yields anything. Where nothing is
 * mapped there is no page table, and nothing to pay for; where there is much that
 * yields nothing, the walk pauses after KSM_BATCH_TABLES, or as soon as somebody
 * may be waiting for the VMA. A VMA counts as one more. All of it is charged to the
 * budget, in parts of a page that is read.
 *
 * Whatever slots the walk has come past without finding a page for them are
 * forgotten.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* Page tables looked through under one hold of a lock, if they yield nothing. */
#define KSM_BATCH_TABLES	32

/* Pages between fetching an item, fetching what it leads to, and looking at it. */
#define KSM_SCAN_AHEAD		16

/*
 * Once in so many passes, of those that count, even a page that seems unchanged is read:
 * more often where a secondary MMU may have been overlooked. A pass counts if it begins
 * KSM_EPOCH_MS after the last one that does, so these are a minute and four seconds at
 * the least.
 */
#define KSM_REREAD_PASSES	256
#define KSM_REREAD_PASSES_BLIND	16

/*
 * Once in so many of them, two seconds at the least, a dirty bit is cleared, other than
 * that of a new page. In between the page is read instead. For who writes to it each
 * time costs something: little on most machines, the price of a fault where dirty bits
 * are kept by software.
 */
#define KSM_RENEW_PASSES	8

/*
 * What things cost, measured in pages that are read and hashed. One that need
 * not be read takes a sixtieth of the time; one that is found not to be zero by its first
 * word, an eighth. A word of a list of slots is copied twice for a batch.
 */
#define KSM_COST_GLANCE		1
#define KSM_COST_WORD		2
#define KSM_COST_PEEK		8
#define KSM_COST_ASK		8	/* a secondary MMU */
#define KSM_COST_TABLE		32
#define KSM_COST_KNOWN		32
#define KSM_COST_READ		64

/**
 * struct ksm_scan - one call of ksm_scan_collect()
 * @worker: takes the candidates
 * @chunk: what is known of the pages under this page table, or NULL
 * @seen: everything below this address has been dealt with
 * @gap: start of a range that ends at @seen and has slots, but no pages
 * @credit: what may still be spent, in units of KSM_COST_*
 * @tables: page tables walked so far
 * @skipped: pages passed over
 * @scanned: pages looked at
 * @zero_only: only zero pages are looked for
 * @smart: smart scan is on
 * @wary: no page under this page table is taken to be unchanged
 * @renew: once in a while: pages that were written, but keep still by now, may be
 *	   recorded again
 * @refused: new pages are not remembered for now, see charge.c
 * @pinned: pages of this mm have been pinned at some time
 * @shadowed: secondary MMUs map pages of this mm
 * @young: which of these pages may have been used, and written, through one of them
 * @flush_start: first page whose dirty bit was cleared
 * @flush_end: end of the last one; 0 if there is none
 */
struct ksm_scan {
	struct ksm_worker *worker;
	struct ksm_chunk *chunk;
	unsigned long seen;
	unsigned long gap;
	u64 credit;
	unsigned int tables;
	unsigned int skipped;
	unsigned int scanned;
	bool zero_only;
	bool smart;
	bool wary;
	bool renew;
	bool refused;
	bool pinned;
	bool shadowed;
	struct ksm_young young;
	unsigned long flush_start;
	unsigned long flush_end;
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

static void ksm_scan_charge(struct ksm_scan *scan, unsigned int cost)
{
	scan->credit -= min_t(u64, scan->credit, cost);
}

/* A block whose young bits were taken has to be dealt with to its end. */
static bool ksm_scan_is_full(struct ksm_scan *scan, unsigned long addr)
{
	return addr >= scan->young.end &&
	       (!scan->credit || scan->worker->nr >= KSM_BATCH_PAGES);
}

static void ksm_scan_enter_block(struct ksm_scan *scan, struct mm_struct *mm, pte_t *pte,
				 unsigned long addr, unsigned long end)
{
	if (scan->shadowed && addr >= scan->young.end)
		ksm_scan_charge(scan, KSM_COST_ASK *
				ksm_young_take(&scan->young, mm, pte, addr, end));
}

static u64 *ksm_scan_slot(struct ksm_scan *scan, unsigned long addr)
{
	return scan->chunk ? ksm_chunk_slot(scan->chunk, addr) : NULL;
}

/* Has anybody got hold of the folio who is not known to only map it? */
static bool ksm_scan_is_held(struct folio *folio)
{
	return folio_ref_count(folio) > folio_expected_ref_count(folio);
}

/* Is the page known well enough to be passed over this time? */
static bool ksm_scan_skip(u64 *slot)
{
	struct ksm_history history = ksm_slot_history(*slot);
	bool skip = ksm_policy_skip(&history);

	ksm_slot_set_history(slot, &history);
	return skip;
}

enum ksm_glance {
	KSM_GLANCE_DONE,	/* nothing more to be done about this page */
	KSM_GLANCE_KNOWN,	/* it need not be read, but may be merged now */
	KSM_GLANCE_LOOK,	/* it has to be looked at, and perhaps read */
};

/*
 * What can be said of a page from its slot and its PTE alone, without so much as a look
 * at its struct page? That is enough if smart scan passes it over, or if it was
 * not written since it was last read.
 */
static enum ksm_glance ksm_scan_glance(struct ksm_scan *scan, u64 *slot,
				       unsigned long pfn, bool dirty)
{
	struct ksm_rmap_item *item = ksm_slot_item(*slot);

	if (item ? ksm_item_state(item) != KSM_ITEM_UNSTABLE : ksm_slot_is_zeroed(*slot))
		return KSM_GLANCE_LOOK;
	if (scan->young.pages)
		ksm_slot_distrust(slot, pfn);
	if (scan->smart && !scan->wary && ksm_scan_skip(slot)) {
		scan->skipped++;
		ksm_scan_charge(scan, KSM_COST_GLANCE);
		return KSM_GLANCE_DONE;
	}
	if (dirty || scan->wary || !ksm_slot_trusts(*slot, pfn) ||
	    (scan->pinned && ksm_scan_is_held(pfn_folio(pfn))))
		return KSM_GLANCE_LOOK;
	if (!item)
		return KSM_GLANCE_KNOWN;
	scan->scanned++;
	ksm_scan_charge(scan, KSM_COST_GLANCE);
	return KSM_GLANCE_DONE;
}

static void ksm_scan_still_merged(u64 *slot)
{
	struct ksm_history history = ksm_slot_history(*slot);

	if (!history.cows)
		return;
	ksm_policy_still_merged(&history);
	ksm_slot_set_history(slot, &history);
}

/*
 * A KSM page that is known, and where it belongs, needs no closer look. Its item must
 * lead the reverse map to this very mapping.
 */
static bool ksm_scan_is_settled(struct ksm_engine *engine, struct vm_area_struct *vma,
				u64 *slot, unsigned long addr, struct folio *folio)
{
	struct ksm_rmap_item *item = slot ? ksm_slot_item(*slot) : NULL;
	struct ksm_stable_node *node = ksm_node_of(folio);

	if (!item || ksm_item_state(item) != KSM_ITEM_STABLE ||
	    item->stable.node != node || item->stable.anon_vma != vma->anon_vma ||
	    item->stable.index != linear_anon_page_index(vma, addr))
		return false;
	if (!READ_ONCE(engine->knobs.merge_across_nodes) &&
	    node->entry.key.nid != folio_nid(folio))
		return false;
	ksm_scan_still_merged(slot);
	return true;
}

/* One mapped anonymous page, its page table locked. */
static void ksm_scan_page(struct ksm_scan *scan, struct vm_area_struct *vma,
			  u64 *slot, unsigned long addr, struct page *page,
			  enum ksm_glance glance)
{
	struct folio *folio = page_folio(page);

	scan->scanned++;
	if (!folio_test_ksm(folio) && !slot && scan->refused) {
		ksm_scan_charge(scan, KSM_COST_GLANCE);
	} else if (!folio_test_ksm(folio) && glance == KSM_GLANCE_KNOWN) {
		ksm_scan_add(scan, addr, page, KSM_CAND_KNOWN);
		ksm_scan_charge(scan, KSM_COST_KNOWN);
	} else if (!folio_test_ksm(folio)) {
		ksm_scan_add(scan, addr, page, KSM_CAND_PLAIN);
		ksm_scan_charge(scan, KSM_COST_READ);
		flush_anon_page(vma, page, addr);
		flush_dcache_page(page);
	} else if (!ksm_scan_is_settled(scan->worker->engine, vma, slot, addr, folio)) {
		ksm_scan_add(scan, addr, NULL, KSM_CAND_SHARED);
		ksm_scan_charge(scan, KSM_COST_READ);
	} else {
		ksm_scan_charge(scan, KSM_COST_GLANCE);
	}
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

/*
 * One mapped anonymous page, when only zero pages are looked for. Most are found not to
 * be by their first word. The others have to be read, without the page table lock.
 */
static void ksm_scan_for_zero(struct ksm_scan *scan, struct vm_area_struct *vma,
			      unsigned long addr, struct page *page)
{
	const unsigned long *data;
	unsigned long word;

	scan->scanned++;
	flush_anon_page(vma, page, addr);
	flush_dcache_page(page);
	data = kmap_local_page(page);
	word = READ_ONCE(*data);
	kunmap_local(data);
	if (word || folio_test_ksm(page_folio(page))) {
		ksm_scan_charge(scan, KSM_COST_PEEK);
		return;
	}
	/* A reference on a large folio would be in the way when it is split. */
	ksm_scan_add(scan, addr, folio_test_large(page_folio(page)) ? NULL : page,
		     KSM_CAND_ZERO);
	ksm_scan_charge(scan, KSM_COST_READ);
}

/* A page in flight comes back: what is known of it had better be kept. */
static bool ksm_scan_is_moving(pte_t pte)
{
	return !pte_none(pte) && !pte_present(pte) &&
	       softleaf_is_migration(softleaf_from_pte(pte));
}

/*
 * A KSM page that was swapped out, but is in the swap cache still, may come back as it
 * was: its sharers keep their items, and need no copies then.
 */
static bool ksm_scan_is_cached(u64 *slot, pte_t pte)
{
	struct ksm_rmap_item *item = ksm_slot_item(*slot);
	struct folio *folio;
	softleaf_t leaf;
	bool cached;

	if (pte_none(pte) || pte_present(pte) || !item ||
	    ksm_item_state(item) != KSM_ITEM_STABLE)
		return false;
	leaf = softleaf_from_pte(pte);
	if (!softleaf_is_swap(leaf))
		return false;
	folio = ksm_node_tryget_folio(item->stable.node);
	if (!folio)
		return false;
	cached = folio_test_swapcache(folio) && folio->swap.val == leaf.val;
	folio_put(folio);
	return cached;
}

/* Is the page merged with the zero page, as is known? */
static bool ksm_scan_is_zeroed(u64 *slot, pte_t pte)
{
	if (!ksm_slot_is_zeroed(*slot) || !pte_present(pte) || !is_ksm_zero_pte(pte))
		return false;
	ksm_scan_still_merged(slot);
	return true;
}

/*
 * Where the architecture folds PTEs, some pages of a large folio have one dirty bit:
 * it would be lost to those that are not looked at now.
 */
static bool ksm_scan_is_folded(struct folio *folio)
{
#ifdef pte_batch_hint
	return folio_test_large(folio);
#else
	return false;
#endif
}

/*
 * May the dirty bit be cleared before the page is read? Not where it means more than
 * that. And it is of no use while somebody may write to the page by other ways, if
 * the page was found changed the last time, which it will be again, or if it is not
 * going to be remembered.
 */
static bool ksm_scan_may_clean(struct ksm_scan *scan, struct vm_area_struct *vma,
			       u64 *slot, struct folio *folio)
{
	if ((vma->vm_flags & VM_SHADOW_STACK) || ksm_scan_is_folded(folio) ||
	    ksm_scan_is_held(folio))
		return false;
	if (slot && *slot && !(scan->renew && ksm_slot_history(*slot).calm))
		return false;
	if (!slot && scan->refused)
		return false;
	return ksm_registry_may_try(scan->worker->kmm);
}

/*
 * The page is held after all: the bit is set again. That is no write, and must not look
 * like one to those who watch soft-dirty bits: pte_mkdirty() sets these as well.
 */
static void ksm_scan_undo_clean(struct vm_area_struct *vma, unsigned long addr, pte_t *pte)
{
	pte_t entry = ptep_get(pte);
	pte_t dirty = pte_mkyoung(pte_mkdirty(entry));

	if (!pte_soft_dirty(entry))
		dirty = pte_clear_soft_dirty(dirty);
	ptep_set_access_flags(vma, addr, pte, dirty, 1);
}

/*
 * Fast GUP takes a page for writing only if it finds the PTE dirty (FOLL_FAST_ONLY does
 * not care, but has young bits), and looks at the PTE again when it has its reference. So
 * either it sees that the bit has gone, and leaves the page to the slow path, which waits
 * for our lock; or we see its reference.
 */
static void ksm_scan_clean_pte(struct ksm_scan *scan, struct vm_area_struct *vma,
			       unsigned long addr, pte_t *pte, struct folio *folio)
{
	clear_young_dirty_ptes(vma, addr, pte, 1, CYDP_CLEAR_DIRTY);
	folio_mark_dirty(folio);
	smp_mb();	/* either fast GUP sees the bit cleared, or we its reference */
	if (ksm_scan_is_held(folio))
		ksm_scan_undo_clean(vma, addr, pte);
	if (!scan->flush_end)
		scan->flush_start = addr;
	scan->flush_end = addr + PAGE_SIZE;
}

static void ksm_scan_pte(struct ksm_scan *scan, struct vm_area_struct *vma,
			 pte_t *pte, unsigned long addr)
{
	u64 *slot = ksm_scan_slot(scan, addr);
	enum ksm_glance glance = KSM_GLANCE_LOOK;
	pte_t entry = scan->young.pages ? ksm_young_give(&scan->young, vma, addr, pte) :
					  ptep_get(pte);
	struct page *page = NULL;

	if (pte_present(entry)) {
		if (slot && *slot)
			glance = ksm_scan_glance(scan, slot, pte_pfn(entry),
						 pte_dirty(entry));
		if (glance == KSM_GLANCE_DONE)
			return;
		page = vm_normal_page(vma, addr, entry);
	}
	if (scan->zero_only) {
		if (ksm_scan_is_candidate(page))
			ksm_scan_for_zero(scan, vma, addr, page);
	} else if (ksm_scan_is_candidate(page)) {
		if (pte_dirty(entry) &&
		    ksm_scan_may_clean(scan, vma, slot, page_folio(page))) {
			/* The candidate may yet be dropped. */
			if (slot)
				ksm_slot_distrust(slot, pte_pfn(entry));
			ksm_scan_clean_pte(scan, vma, addr, pte, page_folio(page));
		}
		ksm_scan_page(scan, vma, slot, addr, page, glance);
	} else if (slot && *slot && !ksm_scan_is_zeroed(slot, entry) &&
		   !ksm_scan_is_moving(entry) && !ksm_scan_is_cached(slot, entry)) {
		ksm_scan_add(scan, addr, NULL, KSM_CAND_GONE);
	}
}

/*
 * Items, and the struct pages of KSM pages, are all over the place. Nearly all the time
 * of a walk that has nothing to do would be spent waiting for them, one by one.
 */
static void ksm_scan_prefetch(struct ksm_scan *scan, pte_t *pte, unsigned long addr,
			      unsigned long end)
{
	const unsigned long near = addr + KSM_SCAN_AHEAD * PAGE_SIZE;
	const unsigned long far = near + KSM_SCAN_AHEAD * PAGE_SIZE;
	struct ksm_rmap_item *item;
	pte_t entry;

	if (!scan->chunk || !scan->chunk->full || far >= end)
		return;
	prefetch(ksm_slot_item(*ksm_chunk_slot(scan->chunk, far)));
	item = ksm_slot_item(*ksm_chunk_slot(scan->chunk, near));
	if (!item || ksm_item_state(item) != KSM_ITEM_STABLE)
		return;
	entry = ptep_get(pte + KSM_SCAN_AHEAD);
	if (pte_present(entry))
		prefetch(pfn_to_page(pte_pfn(entry)));
}

/* And of one that looks for zero pages, the struct pages and the first words. */
static void ksm_scan_prefetch_page(struct vm_area_struct *vma, pte_t *pte,
				   unsigned long addr, unsigned long end)
{
	pte_t entry;
	struct page *page;

	addr += KSM_SCAN_AHEAD * PAGE_SIZE;
	if (addr >= end)
		return;
	entry = ptep_get(pte + KSM_SCAN_AHEAD);
	page = pte_present(entry) ? vm_normal_page(vma, addr, entry) : NULL;
	if (!page)
		return;
	prefetch(page);
	if (!PageHighMem(page))
		prefetch(page_address(page));
}

static void ksm_scan_table(struct ksm_scan *scan, struct vm_area_struct *vma,
			   pmd_t *pmd, unsigned long addr, unsigned long end)
{
	pte_t *start_pte, *pte;
	spinlock_t *ptl;		/* of the page table */

	start_pte = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!start_pte)
		return;
	scan->flush_end = 0;
	for (pte = start_pte; addr != end && !ksm_scan_is_full(scan, addr);
	     pte++, addr += PAGE_SIZE) {
		ksm_scan_enter_block(scan, vma->vm_mm, pte, addr, end);
		if (scan->zero_only)
			ksm_scan_prefetch_page(vma, pte, addr, end);
		else
			ksm_scan_prefetch(scan, pte, addr, end);
		ksm_scan_pte(scan, vma, pte, addr);
	}
	if (scan->flush_end)
		flush_tlb_range(vma, scan->flush_start, scan->flush_end);
	pte_unmap_unlock(start_pte, ptl);
	scan->seen = addr;
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
/* See ksm_scan_may_clean(): one page that keeps still is enough to make it worth while. */
static bool ksm_scan_may_clean_huge(struct ksm_scan *scan, struct vm_area_struct *vma,
				    unsigned long addr, struct folio *folio)
{
	struct ksm_chunk *chunk = scan->chunk;
	unsigned int i;

	if ((vma->vm_flags & VM_SHADOW_STACK) || ksm_scan_is_held(folio))
		return false;
	if (scan->refused && !(chunk && chunk->full))
		return false;
	if (!chunk || !chunk->full)
		return ksm_chunk_next_used(scan->worker->kmm, addr, addr + PMD_SIZE) ==
			addr + PMD_SIZE && ksm_registry_may_try(scan->worker->kmm);
	for (i = 0; scan->renew && i < PTRS_PER_PTE; i++)
		if (ksm_slot_history(chunk->slots[i]).calm)
			return ksm_registry_may_try(scan->worker->kmm);
	return !chunk->nr && ksm_registry_may_try(scan->worker->kmm);
}

/* Whatever is known of the pages was true before somebody wrote to one of them. */
static void ksm_scan_distrust_huge(struct ksm_chunk *chunk, unsigned long pfn)
{
	unsigned int i;

	for (i = 0; chunk && chunk->full && i < PTRS_PER_PTE; i++)
		ksm_slot_distrust(&chunk->slots[i], pfn + i);
}

/*
 * A huge page has one dirty bit for all its pages, and one young bit in secondary MMUs.
 * They are cleared when the first page is come to. The others may have to wait, and the
 * huge page be split meanwhile; so each has it in its slot that it is to be read.
 */
static void ksm_scan_start_huge(struct ksm_scan *scan, struct vm_area_struct *vma,
				pmd_t *pmd, unsigned long addr, struct folio *folio)
{
	const unsigned long pfn = folio_pfn(folio);
	pmd_t entry;

	if (scan->shadowed && ksm_young_pass_on_huge(vma, addr, pmd))
		ksm_scan_distrust_huge(scan->chunk, pfn);
	if (!pmd_dirty(pmdp_get(pmd)) || !ksm_scan_may_clean_huge(scan, vma, addr, folio))
		return;
	ksm_scan_distrust_huge(scan->chunk, pfn);
	/* This flushes while the entry is invalid; see ksm_scan_clean_pte(). */
	entry = pmdp_invalidate(vma, addr, pmd);
	smp_mb();	/* either fast GUP sees the entry changed, or we its reference */
	if (!ksm_scan_is_held(folio))
		entry = pmd_mkclean(entry);
	set_pmd_at(vma->vm_mm, addr, pmd, entry);
	update_mmu_cache_pmd(vma, addr, pmd);
	folio_mark_dirty(folio);
}

static void ksm_scan_huge_for_zero(struct ksm_scan *scan, struct vm_area_struct *vma,
				   unsigned long addr, unsigned long end, struct page *page)
{
	page += (addr & ~PMD_MASK) >> PAGE_SHIFT;
	for (; addr != end && !ksm_scan_is_full(scan, addr); addr += PAGE_SIZE, page++)
		ksm_scan_for_zero(scan, vma, addr, page);
	scan->seen = addr;
}

static void ksm_scan_huge_pages(struct ksm_scan *scan, struct vm_area_struct *vma,
				pmd_t *pmd, unsigned long addr, unsigned long end,
				struct page *page)
{
	bool dirty;

	if (!(addr & ~PMD_MASK))
		ksm_scan_start_huge(scan, vma, pmd, addr, page_folio(page));
	/* Few pages of it are known, and those from before it was huge: read all. */
	if (scan->chunk && !scan->chunk->full)
		scan->wary = true;
	dirty = pmd_dirty(pmdp_get(pmd));
	page += (addr & ~PMD_MASK) >> PAGE_SHIFT;
	for (; addr != end && !ksm_scan_is_full(scan, addr);
	     addr += PAGE_SIZE, page++) {
		u64 *slot = ksm_scan_slot(scan, addr);
		enum ksm_glance glance = KSM_GLANCE_LOOK;

		if (slot && *slot)
			glance = ksm_scan_glance(scan, slot, page_to_pfn(page), dirty);
		if (glance != KSM_GLANCE_DONE)
			ksm_scan_page(scan, vma, slot, addr, page, glance);
	}
	scan->seen = addr;
}

/* Return: false if there is no huge page there after all. */
static bool ksm_scan_huge(struct ksm_scan *scan, struct vm_area_struct *vma,
			  pmd_t *pmd, unsigned long addr, unsigned long end)
{
	spinlock_t *ptl = pmd_lock(vma->vm_mm, pmd);
	pmd_t entry = pmdp_get(pmd);
	struct page *page;

	if (!pmd_present(entry) || !pmd_leaf(entry)) {
		spin_unlock(ptl);
		return false;
	}
	page = vm_normal_page_pmd(vma, addr & PMD_MASK, entry);
	if (ksm_scan_is_candidate(page) && scan->zero_only)
		ksm_scan_huge_for_zero(scan, vma, addr, end, page);
	else if (ksm_scan_is_candidate(page))
		ksm_scan_huge_pages(scan, vma, pmd, addr, end, page);
	spin_unlock(ptl);
	return true;
}
#else
static bool ksm_scan_huge(struct ksm_scan *scan, struct vm_area_struct *vma,
			  pmd_t *pmd, unsigned long addr, unsigned long end)
{
	return false;
}
#endif /* CONFIG_TRANSPARENT_HUGEPAGE */

/* What is known of the pages under this page table, and how far to trust it. */
static void ksm_scan_enter_table(struct ksm_scan *scan, struct mm_struct *mm,
				 unsigned long addr)
{
	struct ksm_engine *engine = scan->worker->engine;
	const unsigned long index = addr >> PMD_SHIFT;

	scan->chunk = ksm_chunk_find(scan->worker->kmm, addr);
	/* The search for each page would pass them, with the page table locked. */
	if (scan->chunk && scan->chunk->holes)
		ksm_slots_squeeze(scan->chunk);
	scan->wary = engine->seqnr - engine->rekeyed < KSM_REKEY_PASSES ||
		     ksm_policy_is_turn(&engine->epoch, index, scan->shadowed ?
					KSM_REREAD_PASSES_BLIND : KSM_REREAD_PASSES);
	scan->renew = ksm_policy_is_turn(&engine->epoch, index, KSM_RENEW_PASSES);
	scan->young = (struct ksm_young) {
		.chunk = scan->chunk == &scan->worker->kmm->few ? NULL : scan->chunk,
	};
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

/* After a page table, or a VMA, that has yielded nothing. */
static bool ksm_scan_must_pause(struct ksm_scan *scan, struct vm_area_struct *vma)
{
	ksm_scan_charge(scan, KSM_COST_TABLE);
	return ++scan->tables >= KSM_BATCH_TABLES || !scan->credit ||
	       ksm_vma_is_wanted(vma);
}

static int ksm_scan_pmd_entry(pmd_t *pmd, unsigned long addr, unsigned long end,
			      struct mm_walk *walk)
{
	struct ksm_scan *scan = walk->private;
	pmd_t entry = pmdp_get_lockless(pmd);

	cond_resched();
	if (!pmd_present(entry))
		return 0;
	if (ksm_scan_found_gap(scan, addr))
		return 1;
	ksm_scan_enter_table(scan, walk->mm, addr);
	if (!pmd_leaf(entry) ||
	    !ksm_scan_huge(scan, walk->vma, pmd, addr, end))
		ksm_scan_table(scan, walk->vma, pmd, addr, end);

	/* A table that went away under us has no pages, and its slots are a gap. */
	return scan->worker->nr || ksm_scan_must_pause(scan, walk->vma);
}

static const struct mm_walk_ops ksm_scan_ops = {
	.pmd_entry = ksm_scan_pmd_entry,
	.walk_lock = KSM_VMA_WALK_LOCK,
};

static bool ksm_scan_is_offered(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_MERGEABLE;
}

/* The rest of a VMA. Return: true if the walk stopped in it, or is to stop after it. */
static bool ksm_scan_vma(struct ksm_scan *scan, struct vm_area_struct *vma)
{
	if (!ksm_scan_is_offered(vma) || !vma->anon_vma)
		return false;
	if (walk_page_range_vma(vma, max(scan->seen, vma->vm_start), vma->vm_end,
				&ksm_scan_ops, scan))
		return true;
	/* There may be very many VMAs, with not even a page table. */
	if (!ksm_scan_must_pause(scan, vma))
		return false;
	ksm_scan_found_gap(scan, vma->vm_end);
	return true;
}

/*
 * Walk on from scan->seen. Return: true if the walk stopped on the way; false at
 * the end of the mm, *offered telling whether there was any VMA to be scanned.
 */
static bool ksm_scan_walk(struct ksm_scan *scan, struct mm_struct *mm, bool *offered)
{
	unsigned long addr = scan->seen;
	struct vm_area_struct *vma;
	bool stopped = false;

	while (!stopped && (vma = ksm_vma_lock_next(mm, addr))) {
		addr = vma->vm_end;
		*offered |= ksm_scan_is_offered(vma);
		stopped = ksm_scan_vma(scan, vma);
		ksm_vma_unlock(vma);
		cond_resched();
	}
	return stopped || ksm_scan_found_gap(scan, mm->task_size);
}

/* No room for new pages: those that are known, and KSM pages, are dealt with all the same. */
static void ksm_scan_drop_new(struct ksm_worker *worker)
{
	struct ksm_chunk *chunk = ksm_chunk_find(worker->kmm, worker->batch[0].addr);
	unsigned int i, nr = 0;
	u64 *slot;

	for (i = 0; i < worker->nr; i++) {
		struct ksm_candidate *cand = &worker->batch[i];

		slot = chunk ? ksm_chunk_slot(chunk, cand->addr) : NULL;
		if (cand->kind == KSM_CAND_SHARED || (slot && *slot))
			worker->batch[nr++] = *cand;
		else if (cand->page)
			put_page(cand->page);
	}
	worker->nr = nr;
}

static void ksm_scan_drop_all(struct ksm_worker *worker)
{
	struct page *page;

	while (worker->nr) {
		page = worker->batch[--worker->nr].page;
		if (page)
			put_page(page);
	}
}

/* The candidates are all from under one page table: pin down its chunk. */
static void ksm_scan_finish(struct ksm_scan *scan)
{
	struct ksm_worker *worker = scan->worker;

	ksm_stat_add(worker->engine, KSM_STAT_SCANNED, scan->scanned);
	ksm_stat_add(worker->engine, KSM_STAT_SKIPPED, scan->skipped);
	if (scan->gap != ULONG_MAX)
		ksm_chunk_retire(worker->kmm, scan->gap, scan->seen);
	worker->chunk = NULL;
	if (!worker->nr || scan->zero_only)
		return;
	worker->chunk = ksm_chunk_get(worker->kmm, worker->batch, worker->nr,
				      KSM_CHARGE_TRY);
	if (!worker->chunk)
		ksm_scan_drop_new(worker);
	if (!worker->chunk && worker->nr)
		worker->chunk = ksm_chunk_get(worker->kmm, worker->batch, worker->nr,
					      KSM_CHARGE_FORCE);
	if (worker->chunk)
		ksm_scan_charge(scan, worker->chunk->words * KSM_COST_WORD);
	else
		ksm_scan_drop_all(worker);
}

/* What is less than a page is owed until the next time. */
static void ksm_scan_settle(struct ksm_scan *scan, unsigned int *budget)
{
	if (!scan->worker->nr)
		ksm_scan_charge(scan, KSM_COST_TABLE);
	*budget = div_u64(scan->credit + KSM_COST_READ - 1, KSM_COST_READ);
	scan->worker->owed = (u64)*budget * KSM_COST_READ - scan->credit;
}

static void ksm_scan_forget(struct ksm_worker *worker)
{
	ksm_chunk_retire(worker->kmm, 0, ULONG_MAX);
	ksm_registry_remove(worker->engine, worker->kmm);
}

/*
 * At the end of an mm of which nothing seemed to be on offer: make sure, with new
 * offers kept out, and forget it. Return: false if there was something after all.
 */
static bool ksm_scan_forget_idle(struct ksm_worker *worker, struct mm_struct *mm)
{
	struct vm_area_struct *vma;
	bool offered = false;

	VMA_ITERATOR(vmi, mm, 0);
	mmap_read_lock(mm);
	for_each_vma(vmi, vma)
		offered |= ksm_scan_is_offered(vma);
	if (!offered)
		ksm_scan_forget(worker);
	mmap_read_unlock(mm);
	return !offered;
}

/**
 * ksm_scan_collect() - find the next pages of an mm that are worth a closer look
 * @worker: whose @worker->kmm is the mm, to be looked through from its @addr on, which
 *	    is moved on to where to continue; the candidates go to @worker->batch
 * @budget: pages that may be read, not 0; reduced by those that were, and by less
 *	    for whatever else was looked at: not even an empty walk is for free
 *
 * Without memory for a chunk the candidates are dropped; their turn comes again. If it is
 * only that the memory cgroup has none to spare, just new pages are. Without memory for
 * what it takes to have the mm in its merge domain, none of it is scanned.
 *
 * An mm without any VMA that could be scanned is to be forgotten, and is taken off
 * the list here, while mmap_lock keeps new ones from being offered.
 *
 * Context: may sleep; no lock held but the engine mutex.
 * Return: what is to be done next.
 */
enum ksm_scan_result ksm_scan_collect(struct ksm_worker *worker, unsigned int *budget)
{
	struct ksm_mm *kmm = worker->kmm;
	struct mm_struct *mm = kmm->slot.mm;
	const bool zero_only = READ_ONCE(worker->engine->knobs.zero_pages_only);
	struct ksm_scan scan = {
		.worker = worker,
		.seen = kmm->addr,
		.gap = ULONG_MAX,
		.credit = (u64)*budget * KSM_COST_READ - worker->owed,
		.zero_only = zero_only,
		.smart = READ_ONCE(worker->engine->knobs.smart_scan),
		.refused = ksm_charge_is_refused(kmm),
		.pinned = mm_flags_test(MMF_HAS_PINNED, mm),
		.shadowed = !zero_only && mm_has_notifiers(mm),
	};
	enum ksm_scan_result result = KSM_SCAN_BATCH;
	bool offered = kmm->addr;

	lockdep_assert_held(&worker->engine->mutex);
	worker->nr = 0;
	if (!mmget_not_zero(mm)) {
		ksm_scan_forget(worker);
		result = KSM_SCAN_GONE;
	} else {
		if (ksm_identity_update(kmm) || !ksm_scan_walk(&scan, mm, &offered))
			result = offered || !ksm_scan_forget_idle(worker, mm) ?
				KSM_SCAN_END : KSM_SCAN_GONE;
		/* If that was the last one, it is not ksmd that tears the mm down. */
		mmput_async(mm);
	}

	if (result != KSM_SCAN_GONE) {
		ksm_scan_finish(&scan);
		kmm->addr = scan.seen;
	}
	ksm_scan_settle(&scan, budget);
	return result;
}
