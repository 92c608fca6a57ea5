// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page table surgery: from pages of one's own to shared ones, and back.
 *
 * Merging must not lose a write, whoever makes it: a CPU through its TLB, a device
 * through a pin, a guest through its secondary MMU. It is done in three steps, for
 * a number of pages under one page table at a time:
 *
 * Freeze. Nobody can write to the pages any more, and nobody can begin to:
 *
 *	mmu_notifier start	secondary MMUs drop the pages, and cannot get them back
 *	page table lock		nor can a fault
 *	clear all PTEs, flush	no CPU can write any more; gup-fast, which takes no
 *				lock, sees the empty PTE and lets go again
 *	count references	more than mappings + swap cache + our own mean that
 *				somebody else may be reading or writing: not this one
 *	no longer exclusive	fails if the page may be pinned: not this one
 *	set a read-only PTE
 *
 * Compare, with nothing locked. It is certain now what the pages hold.
 *
 * Replace. Where a read-only PTE still maps the same page, the shared page takes its
 * place: clear all PTEs, flush, set the new ones, all under the page table lock.
 *
 * So there are two flushes for as many pages as there are. A page that turns out
 * different is left with a read-only PTE, which costs its next writer a fault.
 *
 * Why a frozen page keeps its content
 * -----------------------------------
 * Only the caller's reference lasts from the freezing to the replacing. No lock does,
 * so that neither the process nor reclaim waits for a comparison, and the caller may
 * wait for the process's locks. A page that is not exclusive becomes writable again in
 * one way: its last user takes it over, in a write fault (wp_can_reuse_anon_folio()),
 * and that needs a reference count of 1. Our reference is one more. So:
 *
 *	a write fault, of this process or of a fork that shares the page, makes a
 *		copy; in this process the PTE then maps another page
 *	mprotect(), NUMA faults and userfaultfd give a PTE its write bit back only
 *		where the page is exclusive
 *	GUP that writes, or pins, makes a write or unshare fault first: a copy. GUP that
 *		merely reads does no harm
 *	swapping out leaves a swap entry that is not exclusive; whoever faults or swapoff
 *		brings back from it maps the page as we know it, read-only
 *	migration fails for the reference, and restores the read-only PTE
 *	UFFDIO_MOVE moves exclusive pages only; mremap() moves the PTE as it is
 *
 * The reference also keeps the page from being freed, so that the same page at the same
 * address is not a new one. What can happen is that the PTE is a swap or migration entry
 * at the moment of replacing, or that the folio is locked: then the page is not merged
 * this time.
 *
 * The caller holds the VMA, see vma.c: its lock, or mmap_lock.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* Take a reference to a page, which is mapped, if it could be merged. */
static struct page *ksm_get_mapped(struct page *page)
{
	struct folio *folio;

	if (!page || PageHWPoison(page))
		return NULL;
	folio = page_folio(page);
	if (!folio_test_anon(folio) || folio_is_zone_device(folio))
		return NULL;
	folio_get(folio);
	return page;
}

static struct page *ksm_lookup_huge(struct vm_area_struct *vma, pmd_t *pmd,
				    unsigned long addr)
{
	spinlock_t *ptl = pmd_lock(vma->vm_mm, pmd);
	pmd_t entry = pmdp_get(pmd);
	struct page *page = NULL;

	if (pmd_present(entry) && pmd_leaf(entry))
		page = vm_normal_page_pmd(vma, addr & PMD_MASK, entry);
	if (page)
		page = ksm_get_mapped(page + ((addr & ~PMD_MASK) >> PAGE_SHIFT));
	spin_unlock(ptl);
	return page;
}

static struct page *ksm_lookup_small(struct vm_area_struct *vma, pmd_t *pmd,
				     unsigned long addr)
{
	struct page *page = NULL;
	spinlock_t *ptl;		/* of the page table */
	pte_t *pte, entry;

	pte = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!pte)
		return NULL;
	entry = ptep_get(pte);
	if (pte_present(entry))
		page = ksm_get_mapped(vm_normal_page(vma, addr, entry));
	pte_unmap_unlock(pte, ptl);
	return page;
}

/**
 * ksm_merge_lookup() - the anonymous page that is mapped at an address
 * @vma: the VMA, held
 * @addr: the address
 *
 * Unlike folio_walk_start(), it does with the VMA's lock alone.
 *
 * Return: the page, with a reference; NULL if there is none that could be merged.
 */
struct page *ksm_merge_lookup(struct vm_area_struct *vma, unsigned long addr)
{
	pmd_t *pmd = mm_find_pmd(vma->vm_mm, addr);
	struct page *page = NULL;

	vma_assert_stabilised(vma);
	if (!pmd)
		return NULL;
	if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && pmd_leaf(pmdp_get_lockless(pmd)))
		page = ksm_lookup_huge(vma, pmd, addr);
	else
		page = ksm_lookup_small(vma, pmd, addr);
	if (!page)
		return NULL;

	/* Aliases of the page in the data cache, on machines that have them. */
	flush_anon_page(vma, page, addr);
	flush_dcache_page(page);
	return page;
}

/**
 * ksm_merge_split() - make a page of a large folio a folio of its own
 * @page: the page; on success the caller's reference is on its new folio
 *
 * Return: 0, also if it was one; -EBUSY if it cannot be split now.
 */
int ksm_merge_split(struct page *page)
{
	struct folio *folio = page_folio(page);
	int err;

	if (!folio_test_large(folio))
		return 0;
	if (!folio_trylock(folio))
		return -EBUSY;
	err = split_huge_page_as_is(page);
	folio_unlock(page_folio(page));
	return err ? -EBUSY : 0;
}

static unsigned long ksm_merge_index(struct ksm_merge *merges, unsigned int i)
{
	return (merges[i].addr - merges[0].addr) >> PAGE_SHIFT;
}

/* Take away the PTEs of all that are in order, and see to it that none is in use. */
static void ksm_take_ptes(struct ksm_merge *merges, unsigned int nr,
			  pte_t *start_pte, bool frozen)
{
	struct vm_area_struct *vma = merges[0].vma;
	unsigned long start = 0, end = 0;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct ksm_merge *merge = &merges[i];
		pte_t *pte = start_pte + ksm_merge_index(merges, i);
		pte_t entry;

		if (merge->err)
			continue;
		entry = ptep_get(pte);
		if (!pte_present(entry) || (frozen && pte_write(entry)) ||
		    vm_normal_page(vma, merge->addr, entry) != merge->page ||
		    (userfaultfd_rwp(vma) && pte_uffd(entry))) {
			merge->err = -EFAULT;
			continue;
		}
		flush_cache_page(vma, merge->addr, page_to_pfn(merge->page));
		merge->pte = ptep_get_and_clear(vma->vm_mm, merge->addr, pte);
		merge->taken = true;
		if (!end)
			start = merge->addr;
		end = merge->addr + PAGE_SIZE;
	}
	if (end)
		flush_tlb_range(vma, start, end);
}

/* Now that it is not mapped here: is it ours alone, and can be made not exclusive? */
static int ksm_share_taken(struct ksm_merge *merge)
{
	struct folio *folio = page_folio(merge->page);

	if (folio_ref_count(folio) != folio_expected_ref_count(folio) + 1)
		return -EBUSY;
	if (PageAnonExclusive(merge->page) &&
	    folio_try_share_anon_rmap_pte(folio, merge->page))
		return -EBUSY;
	if (pte_dirty(merge->pte))
		folio_mark_dirty(folio);
	return 0;
}

static pte_t ksm_freeze_taken(struct ksm_merge *merge)
{
	merge->err = ksm_share_taken(merge);
	return merge->err ? merge->pte : pte_wrprotect(pte_mkclean(merge->pte));
}

/* What programs can ask of a PTE stays with the address, whatever is mapped there. */
static pte_t ksm_inherit_pte(pte_t pte, pte_t old)
{
	if (pte_uffd(old))
		pte = pte_mkuffd(pte);
	if (pgtable_supports_soft_dirty() && pte_soft_dirty(old))
		pte = pte_mksoft_dirty(pte);
	return pte;
}

/* The new PTE, with all the accounting that mapping it takes. */
static pte_t ksm_map_shared(struct vm_area_struct *vma, unsigned long addr,
			    struct page *kpage)
{
	struct folio *kfolio;

	if (!kpage) {
		/*
		 * The dirty bit tells a zero page of ours from any other. It is
		 * not an anonymous page, unlike what was there.
		 */
		ksm_count_zero_pages(vma->vm_mm, 1);
		dec_mm_counter(vma->vm_mm, MM_ANONPAGES);
		return pte_mkdirty(pte_mkspecial(pfn_pte(zero_pfn(addr),
							 vma->vm_page_prot)));
	}
	kfolio = page_folio(kpage);
	folio_get(kfolio);
	folio_add_anon_rmap_pte(kfolio, kpage, vma, addr, RMAP_NONE);
	return mk_pte(kpage, vma->vm_page_prot);
}

static pte_t ksm_replace_taken(struct ksm_merge *merge)
{
	pte_t pte = ksm_map_shared(merge->vma, merge->addr, merge->kpage);

	folio_remove_rmap_pte(page_folio(merge->page), merge->page, merge->vma);
	return ksm_inherit_pte(pte, merge->pte);
}

static void ksm_notify(struct mmu_notifier_range *range, bool start)
{
	if (start)
		mmu_notifier_invalidate_range_start(range);
	else
		mmu_notifier_invalidate_range_end(range);
}

/*
 * Secondary MMUs are told of the pages that are about to be changed, and of no other: a
 * page in between, which has failed, would cost a guest as much as one that is merged.
 * So there is a range for each stretch of pages that adjoin. All are open until the end,
 * for that the page table lock is taken, and the TLBs are flushed, once for all.
 */
static void ksm_notify_stretches(struct ksm_merge *merges, unsigned int nr, bool start)
{
	struct mmu_notifier_range range;
	unsigned int i, end;

	for (i = 0; i < nr; i = end) {
		end = i + 1;
		if (!merges[i].told)
			continue;
		while (end < nr && merges[end].told &&
		       merges[end].addr == merges[end - 1].addr + PAGE_SIZE)
			end++;
		/* The flag says so at the end as well, where it is a range of its own. */
		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR,
					MMU_NOTIFIER_RANGE_BLOCKABLE,
					merges[i].vma->vm_mm, merges[i].addr,
					merges[end - 1].addr + PAGE_SIZE);
		ksm_notify(&range, start);
	}
}

/* Which pages take part. What is told of one at the start is told of it at the end. */
static unsigned int ksm_merge_choose(struct ksm_merge *merges, unsigned int nr)
{
	unsigned int i, chosen = 0;

	for (i = 0; i < nr; i++) {
		merges[i].told = !merges[i].err;
		chosen += merges[i].told;
	}
	return chosen;
}

/* Set the new PTEs of those whose old ones were taken away. */
static void ksm_put_ptes(struct ksm_merge *merges, unsigned int nr, pte_t *start_pte,
			 bool frozen)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct ksm_merge *merge = &merges[i];
		pte_t pte;

		if (!merge->taken)
			continue;
		pte = frozen ? ksm_replace_taken(merge) : ksm_freeze_taken(merge);
		set_pte_at(merge->vma->vm_mm, merge->addr,
			   start_pte + ksm_merge_index(merges, i), pte);
		merge->taken = false;
	}
}

/* The page table has gone, or is none any more. */
static void ksm_merge_miss(struct ksm_merge *merges, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		merges[i].err = merges[i].err ?: -EFAULT;
}

/* One of the two steps. The pages are of one VMA and under one page table. */
static void ksm_merge_step(struct ksm_merge *merges, unsigned int nr, bool frozen)
{
	struct vm_area_struct *vma = merges[0].vma;
	pmd_t *pmd = mm_find_pmd(vma->vm_mm, merges[0].addr);
	pte_t *start_pte = NULL;
	spinlock_t *ptl;		/* of the page table */

	vma_assert_stabilised(vma);
	if (!ksm_merge_choose(merges, nr))
		return;
	ksm_notify_stretches(merges, nr, true);
	if (pmd)
		start_pte = pte_offset_map_lock(vma->vm_mm, pmd, merges[0].addr, &ptl);
	if (start_pte) {
		ksm_take_ptes(merges, nr, start_pte, frozen);
		ksm_put_ptes(merges, nr, start_pte, frozen);
		pte_unmap_unlock(start_pte, ptl);
	} else {
		ksm_merge_miss(merges, nr);
	}
	ksm_notify_stretches(merges, nr, false);
}

/**
 * ksm_merge_freeze() - end all writing to pages, so that they can be compared
 * @merges: the pages, in the order of their addresses, all under one page table and in
 *	    one VMA, which is held
 * @nr: their number
 *
 * The contents cannot change from here on as long as the caller keeps the references:
 * a write makes a copy. The folio locks may be dropped.
 *
 * Sets @err of those that failed: -EFAULT if the page is not mapped there; -EBUSY if
 * it is in use.
 *
 * Context: may sleep.
 */
void ksm_merge_freeze(struct ksm_merge *merges, unsigned int nr)
{
	ksm_merge_step(merges, nr, false);
}

/**
 * ksm_merge_replace() - map shared pages in place of equal ones
 * @merges: the pages, as for ksm_merge_freeze(), frozen since then, and compared; their
 *	    folios are locked again, and still small ones of the process's own
 * @nr: their number
 *
 * Sets @err of those that failed: -EFAULT if the page is not mapped there as it was
 * frozen. The references of those that did not are still the caller's.
 *
 * Context: may sleep.
 */
void ksm_merge_replace(struct ksm_merge *merges, unsigned int nr)
{
	unsigned int i;

	ksm_merge_step(merges, nr, true);
	for (i = 0; i < nr; i++) {
		struct folio *folio;

		if (merges[i].err)
			continue;
		folio = page_folio(merges[i].page);
		if (!folio_mapped(folio))
			folio_free_swap(folio);
		folio_put(folio);	/* that was the mapping's */
	}
}

/* Does a PTE map a page of ours, or will it after a migration? */
static bool ksm_pte_is_merged(struct vm_area_struct *vma, unsigned long addr,
			      pte_t pte)
{
	struct folio *folio;
	softleaf_t leaf;

	if (pte_none(pte))
		return false;
	if (pte_present(pte)) {
		folio = vm_normal_folio(vma, addr, pte);
		return folio ? folio_test_ksm(folio) : is_ksm_zero_pte(pte);
	}
	/* A KSM folio stays one: there is no need to wait until it has moved. */
	leaf = softleaf_from_pte(pte);
	return softleaf_is_migration(leaf) &&
	       folio_test_ksm(softleaf_to_folio(leaf));
}

static int ksm_break_pmd_entry(pmd_t *pmd, unsigned long addr,
			       unsigned long end, struct mm_walk *walk)
{
	unsigned long *found = walk->private;
	pte_t *start_pte, *pte;
	spinlock_t *ptl;		/* of the page table */
	int ret = 0;

	if (!atomic_read(&walk->mm->mm_users))
		return 0;
	if (signal_pending(current))
		return -ERESTARTSYS;
	start_pte = pte_offset_map_lock(walk->mm, pmd, addr, &ptl);
	if (!start_pte)
		return 0;
	for (pte = start_pte; addr != end && !ret; pte++, addr += PAGE_SIZE) {
		if (ksm_pte_is_merged(walk->vma, addr, ptep_get(pte))) {
			*found = addr;
			ret = 1;
		}
	}
	pte_unmap_unlock(start_pte, ptl);
	return ret;
}

static const struct mm_walk_ops ksm_break_read_ops = {
	.pmd_entry = ksm_break_pmd_entry,
	.walk_lock = PGWALK_RDLOCK,
};

static const struct mm_walk_ops ksm_break_write_ops = {
	.pmd_entry = ksm_break_pmd_entry,
	.walk_lock = PGWALK_WRLOCK,
};

/**
 * ksm_merge_unshare() - make the fault that gives an address a page of its own
 * @vma: the VMA
 * @addr: the address
 *
 * KUnit tests put a fault that fails in its place.
 *
 * Context: may sleep; the mmap_lock is held.
 * Return: what the fault returned.
 */
vm_fault_t ksm_merge_unshare(struct vm_area_struct *vma, unsigned long addr)
{
	KUNIT_STATIC_STUB_REDIRECT(ksm_merge_unshare, vma, addr);
	return handle_mm_fault(vma, addr, FAULT_FLAG_UNSHARE | FAULT_FLAG_REMOTE, NULL);
}

/**
 * ksm_merge_break() - give a range pages of its own in place of shared ones
 * @vma: the VMA, offered for merging: a KSM page elsewhere, in a mapping of
 *	 /dev/mem say, is none of our business
 * @start: start of the range
 * @end: end of the range
 * @how: KSM_BREAK_LOCKED if mmap_lock is held for writing, not for reading only;
 *	 KSM_BREAK_SPARING if it is not the process, or root, that wants it
 *
 * An unshare fault is what copies a page. It is repeated until no merged page is
 * left, because a fault may return early without having done anything. It may fail
 * for lack of memory, in a memory cgroup above all. Then the range may be half done,
 * which is no harm: merged pages are as good as others. Sparing the process, it ends before
 * the cgroup is full.
 *
 * After any other failure the page may have gone. If it is still mapped, leave it, and
 * go on with the rest of the range: memory that has failed cannot be copied, and
 * memory_failure() is going to unmap it.
 *
 * Context: may sleep, and fault.
 * Return: 0, and no merged page is left; -ENOMEM; -ERESTARTSYS when a signal is pending;
 * -EHWPOISON or -EFAULT if pages that could not be copied are all that is left.
 */
int ksm_merge_break(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end, unsigned int how)
{
	const struct mm_walk_ops *ops = how & KSM_BREAK_LOCKED ?
		&ksm_break_write_ops : &ksm_break_read_ops;
	int found, err, failed = 0;

	mmap_assert_locked(vma->vm_mm);
	while (start < end) {
		cond_resched();
		found = walk_page_range_vma(vma, start, end, ops, &start);
		if (found <= 0)
			return found ?: failed;
		if ((how & KSM_BREAK_SPARING) && !ksm_charge_has_room(vma->vm_mm))
			return -ENOMEM;
		err = vm_fault_to_errno(ksm_merge_unshare(vma, start), FOLL_HWPOISON);
		if (err == -ENOMEM)
			return err;
		if (err && walk_page_range_vma(vma, start, start + PAGE_SIZE, ops,
					       &start) > 0) {
			failed = err;
			start += PAGE_SIZE;
		}
	}
	return failed;
}

/**
 * ksm_merge_break_page() - give a process its own copy of one page
 * @mm: the mm
 * @addr: where the page is; nothing is done if it was not offered, or is not shared
 *
 * The fault may need the mmap lock, so that is the lock here. It is ksmd that wants it: the
 * process is spared.
 *
 * Context: may sleep, and fault; no lock of @mm is held.
 * Return: 0, or an error of ksm_merge_break().
 */
int ksm_merge_break_page(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma;
	int err = 0;

	mmap_read_lock(mm);
	vma = atomic_read(&mm->mm_users) ? vma_lookup(mm, addr) : NULL;
	if (vma && vma->anon_vma && (vma->vm_flags & VM_MERGEABLE))
		err = ksm_merge_break(vma, addr, addr + PAGE_SIZE, KSM_BREAK_SPARING);
	mmap_read_unlock(mm);
	return err;
}
