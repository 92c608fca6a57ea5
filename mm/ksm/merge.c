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
 * Compare. It is certain now what the pages hold, and it stays so while their PTEs are
 * read-only and their folios locked: a write fault cannot take over a page that is
 * not exclusive without its folio lock, and makes a copy. No lock of the process's
 * is held.
 *
 * Replace. Where the read-only PTE is still there, the shared page takes its
 * place: clear all PTEs, flush, set the new ones, all under the page table lock.
 *
 * So there are two flushes for as many pages as there are. A page that turns out
 * different is left with a read-only PTE, which costs its next writer a fault.
 *
 * In all functions here mmap_lock is held at least for reading.
 */
#include "ksm_internal.h"
#include "ksm.h"

/**
 * ksm_merge_vma() - find the VMA of an address, if its pages may be merged
 * @mm: the mm; its mmap_lock is held
 * @addr: the address
 *
 * Return: the VMA; NULL if there is none, if it was not offered for merging, or if
 * @mm is exiting: its page tables must not be touched then.
 */
struct vm_area_struct *ksm_merge_vma(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma;

	mmap_assert_locked(mm);
	if (!atomic_read(&mm->mm_users))
		return NULL;
	vma = vma_lookup(mm, addr);
	if (vma && vma->anon_vma && (vma->vm_flags & VM_MERGEABLE))
		return vma;
	return NULL;
}

/**
 * ksm_merge_lookup() - the anonymous page that is mapped at an address
 * @vma: the VMA
 * @addr: the address
 *
 * Return: the page, with a reference; NULL if there is none that could be merged.
 */
struct page *ksm_merge_lookup(struct vm_area_struct *vma, unsigned long addr)
{
	struct folio_walk walk;
	struct folio *folio;
	bool fits;

	folio = folio_walk_start(&walk, vma, addr, 0);
	if (!folio)
		return NULL;
	fits = folio_test_anon(folio) && !folio_is_zone_device(folio) &&
	       !PageHWPoison(walk.page);
	if (fits)
		folio_get(folio);
	folio_walk_end(&walk, vma);
	if (!fits)
		return NULL;

	/* Aliases of the page in the data cache, on machines that have them. */
	flush_anon_page(vma, walk.page, addr);
	flush_dcache_page(walk.page);
	return walk.page;
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

/**
 * ksm_merge_find() - find the VMAs of pages that are to be merged
 * @mm: the mm; its mmap_lock is held
 * @merges: the pages, in the order of their addresses
 * @nr: their number
 *
 * Sets @vma of each, or -EFAULT where there is none that may be merged.
 */
void ksm_merge_find(struct mm_struct *mm, struct ksm_merge *merges,
		    unsigned int nr)
{
	struct vm_area_struct *vma = NULL;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct ksm_merge *merge = &merges[i];

		if (!vma || merge->addr >= vma->vm_end)
			vma = ksm_merge_vma(mm, merge->addr);
		merge->vma = vma;
		if (!vma && !merge->err)
			merge->err = -EFAULT;
	}
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
	}
	flush_tlb_range(vma, merges[0].addr, merges[nr - 1].addr + PAGE_SIZE);
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

/* The pages are of one VMA and under one page table. */
static void ksm_merge_run(struct ksm_merge *merges, unsigned int nr, bool frozen)
{
	struct vm_area_struct *vma = merges[0].vma;
	struct mmu_notifier_range notice;
	pmd_t *pmd = mm_find_pmd(vma->vm_mm, merges[0].addr);
	pte_t *start_pte = NULL;
	spinlock_t *ptl;		/* of the page table */
	unsigned int i;

	mmu_notifier_range_init(&notice, MMU_NOTIFY_CLEAR, 0, vma->vm_mm,
				merges[0].addr, merges[nr - 1].addr + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&notice);
	if (pmd)
		start_pte = pte_offset_map_lock(vma->vm_mm, pmd, merges[0].addr, &ptl);
	if (start_pte)
		ksm_take_ptes(merges, nr, start_pte, frozen);

	for (i = 0; i < nr; i++) {
		struct ksm_merge *merge = &merges[i];
		pte_t pte;

		if (merge->taken) {
			pte = frozen ? ksm_replace_taken(merge) : ksm_freeze_taken(merge);
			set_pte_at(vma->vm_mm, merge->addr,
				   start_pte + ksm_merge_index(merges, i), pte);
		} else if (!merge->err) {
			merge->err = -EFAULT;
		}
		merge->taken = false;
	}
	if (start_pte)
		pte_unmap_unlock(start_pte, ptl);
	mmu_notifier_invalidate_range_end(&notice);
}

/* Do it VMA by VMA. */
static void ksm_merge_runs(struct mm_struct *mm, struct ksm_merge *merges,
			   unsigned int nr, bool frozen)
{
	unsigned int i, start;

	mmap_assert_locked(mm);
	for (start = 0; start < nr; start = i) {
		i = start + 1;
		while (i < nr && merges[i].vma == merges[start].vma)
			i++;
		if (merges[start].vma)
			ksm_merge_run(&merges[start], i - start, frozen);
	}
}

/**
 * ksm_merge_freeze() - end all writing to pages, so that they can be compared
 * @mm: the mm; its mmap_lock is held
 * @merges: the pages, from ksm_merge_find(), all under one page table
 * @nr: their number
 *
 * The contents cannot change from here on as long as the caller keeps the folio locks
 * and the references: a write makes a copy.
 *
 * Sets @err of those that failed: -EFAULT if the page is not mapped there; -EBUSY if
 * it is in use.
 *
 * Context: may sleep.
 */
void ksm_merge_freeze(struct mm_struct *mm, struct ksm_merge *merges,
		      unsigned int nr)
{
	ksm_merge_runs(mm, merges, nr, false);
}

/**
 * ksm_merge_replace() - map shared pages in place of equal ones
 * @mm: the mm; its mmap_lock is held
 * @merges: the pages, from ksm_merge_find(), frozen since, and compared
 * @nr: their number
 *
 * Sets @err of those that failed: -EFAULT if the page is not mapped there as it was
 * frozen. The references of those that did not are still the caller's.
 *
 * Context: may sleep.
 */
void ksm_merge_replace(struct mm_struct *mm, struct ksm_merge *merges,
		       unsigned int nr)
{
	unsigned int i;

	ksm_merge_runs(mm, merges, nr, true);
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
 * @vma_write_locked: whether @vma is, or its mmap_lock held for reading only
 *
 * An unshare fault is what copies a page. It is repeated until no merged page is
 * left, because a fault may return early without having done anything. It may fail
 * for lack of memory, in a memory cgroup above all. Then the range may be half done,
 * which is no harm: merged pages are as good as others.
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
		    unsigned long end, bool vma_write_locked)
{
	const struct mm_walk_ops *ops = vma_write_locked ?
		&ksm_break_write_ops : &ksm_break_read_ops;
	int found, err, failed = 0;

	mmap_assert_locked(vma->vm_mm);
	while (start < end) {
		cond_resched();
		found = walk_page_range_vma(vma, start, end, ops, &start);
		if (found <= 0)
			return found ?: failed;
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
