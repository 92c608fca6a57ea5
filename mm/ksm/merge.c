// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page table surgery: from a page of one's own to a shared one, and back.
 *
 * Merging must not lose a write, whoever makes it: a CPU through its TLB, a device
 * through a pin, a guest through its secondary MMU. So the mapping is taken away
 * altogether before contents are compared:
 *
 *	mmu_notifier start	secondary MMUs drop the page, and cannot get it back
 *	page table lock		nor can a fault
 *	clear and flush PTE	no CPU can write any more; gup-fast, which takes no
 *				lock, sees the empty PTE and lets go again
 *	count references	more than mappings + swap cache + our own means that
 *				somebody else may be reading or writing: back out
 *	compare			now, and only now, is it certain what the page holds
 *	no longer exclusive	fails if the page may be pinned: back out
 *	set the new PTE
 *
 * The PTE stays empty, and its lock held, for the time of one comparison. In
 * return there is one flush and one notifier range per merge, a page that turns out
 * different gets its old PTE back as if nothing had happened, and nobody ever sees a
 * state in between.
 *
 * In all functions here mmap_lock is held at least for reading, and pages that are
 * passed in come with exactly one reference of the caller's.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* A PTE that was taken away, and how to give it back. */
struct ksm_taken_pte {
	struct page_vma_mapped_walk pvmw;
	struct mmu_notifier_range notice;
	pte_t pte;
};

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
	err = split_huge_page(page);
	folio_unlock(page_folio(page));
	return err ? -EBUSY : 0;
}

/* See the head of this file. On failure everything is as it was. */
static int ksm_take_pte(struct ksm_taken_pte *taken, struct vm_area_struct *vma,
			unsigned long addr, struct folio *folio)
{
	int err = -EFAULT;
	pte_t pte;

	VM_WARN_ON_FOLIO(!folio_test_locked(folio), folio);
	taken->pvmw = (struct page_vma_mapped_walk) {
		.pfn = folio_pfn(folio),
		.nr_pages = 1,
		.pgoff = folio_pgoff(folio),
		.vma = vma,
		.address = addr,
		.pgoff_is_anon = true,
	};
	mmu_notifier_range_init(&taken->notice, MMU_NOTIFY_CLEAR, 0, vma->vm_mm,
				addr, addr + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&taken->notice);

	if (!page_vma_mapped_walk(&taken->pvmw))
		goto out;
	pte = taken->pvmw.pte ? ptep_get(taken->pvmw.pte) : __pte(0);
	if (!pte_present(pte) || (userfaultfd_rwp(vma) && pte_uffd(pte)))
		goto out_unlock;

	flush_cache_page(vma, addr, folio_pfn(folio));
	taken->pte = ptep_clear_flush(vma, addr, taken->pvmw.pte);
	if (folio_ref_count(folio) == folio_mapcount(folio) + 1 +
				      folio_test_swapcache(folio))
		return 0;
	set_pte_at(vma->vm_mm, addr, taken->pvmw.pte, taken->pte);
	err = -EBUSY;
out_unlock:
	page_vma_mapped_walk_done(&taken->pvmw);
out:
	mmu_notifier_invalidate_range_end(&taken->notice);
	return err;
}

static void ksm_give_pte(struct ksm_taken_pte *taken, pte_t pte)
{
	set_pte_at(taken->pvmw.vma->vm_mm, taken->pvmw.address,
		   taken->pvmw.pte, pte);
	page_vma_mapped_walk_done(&taken->pvmw);
	mmu_notifier_invalidate_range_end(&taken->notice);
}

/* The page is to be mapped by others too: end its being exclusive, keep its dirt. */
static int ksm_share_taken(struct ksm_taken_pte *taken, struct folio *folio)
{
	if (PageAnonExclusive(&folio->page) &&
	    folio_try_share_anon_rmap_pte(folio, &folio->page))
		return -EBUSY;
	if (pte_dirty(taken->pte))
		folio_mark_dirty(folio);
	return 0;
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

/**
 * ksm_merge_freeze() - end all writing to a page, so that it can become a KSM page
 * @vma: a VMA that maps it
 * @addr: where
 * @page: the page, of a small anonymous folio that is locked
 *
 * The content cannot change from here on as long as the caller keeps the folio lock
 * and the reference: a write makes a copy.
 *
 * Context: may sleep.
 * Return: 0; -EFAULT if the page is not mapped there; -EBUSY if it is in use.
 */
int ksm_merge_freeze(struct vm_area_struct *vma, unsigned long addr,
		     struct page *page)
{
	struct folio *folio = page_folio(page);
	struct ksm_taken_pte taken;
	int err;

	err = ksm_take_pte(&taken, vma, addr, folio);
	if (err)
		return err;
	err = ksm_share_taken(&taken, folio);
	if (err)
		ksm_give_pte(&taken, taken.pte);
	else
		ksm_give_pte(&taken, pte_wrprotect(pte_mkclean(taken.pte)));
	return err;
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

static int ksm_replace_locked(struct vm_area_struct *vma, unsigned long addr,
			      struct page *page, struct page *kpage)
{
	struct folio *folio = page_folio(page);
	struct ksm_taken_pte taken;
	int err;

	err = ksm_take_pte(&taken, vma, addr, folio);
	if (err)
		return err;
	if (!pages_identical(page, kpage ?: ZERO_PAGE(addr)))
		err = -EFAULT;
	else
		err = ksm_share_taken(&taken, folio);
	if (err) {
		ksm_give_pte(&taken, taken.pte);
		return err;
	}
	folio_remove_rmap_pte(folio, page, vma);
	ksm_give_pte(&taken, ksm_inherit_pte(ksm_map_shared(vma, addr, kpage),
					     taken.pte));
	if (!folio_mapped(folio))
		folio_free_swap(folio);
	folio_put(folio);	/* that was the mapping's */
	return 0;
}

/**
 * ksm_merge_replace() - map a shared page in place of an equal one
 * @vma: the VMA, offered for merging
 * @addr: the address
 * @page: the page that is mapped there, of a small anonymous folio
 * @kpage: the KSM page to map instead; NULL for the zero page
 *
 * Contents are compared where it counts; the caller's own comparison, if any, only
 * saves the trouble.
 *
 * Context: may sleep. The lock of @page's folio is tried.
 * Return: 0; -EFAULT if the page is not mapped there or not equal; -EBUSY if it is
 * in use, or locked.
 */
int ksm_merge_replace(struct vm_area_struct *vma, unsigned long addr,
		      struct page *page, struct page *kpage)
{
	struct folio *folio = page_folio(page);
	int err = -EFAULT;

	if (!folio_trylock(folio))
		return -EBUSY;
	if (folio_test_anon(folio) && !folio_test_large(folio) &&
	    !folio_test_ksm(folio))
		err = ksm_replace_locked(vma, addr, page, kpage);
	folio_unlock(folio);
	return err;
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
 * ksm_merge_break() - give a range pages of its own in place of shared ones
 * @vma: the VMA, offered for merging: a KSM page elsewhere, in a mapping of
 *	 /dev/mem say, is none of our business
 * @start: start of the range
 * @end: end of the range
 * @vma_write_locked: whether @vma is, or its mmap_lock held for reading only
 *
 * An unshare fault is what copies a page. It is repeated until no merged page is
 * left, because a fault may return early without having done anything. It may fail
 * for lack of memory, in a memory cgroup above all: then the range may be half done,
 * which is for the caller to tell, and no harm: merged pages are as good as others.
 *
 * Anything else that it fails with means that the mapping has gone.
 *
 * Context: may sleep, and fault.
 * Return: 0; -ENOMEM; -ERESTARTSYS when a signal is pending.
 */
int ksm_merge_break(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end, bool vma_write_locked)
{
	const struct mm_walk_ops *ops = vma_write_locked ?
		&ksm_break_write_ops : &ksm_break_read_ops;
	vm_fault_t fault;
	int found;

	mmap_assert_locked(vma->vm_mm);
	for (;;) {
		cond_resched();
		found = walk_page_range_vma(vma, start, end, ops, &start);
		if (found <= 0)
			return found;
		fault = handle_mm_fault(vma, start, FAULT_FLAG_UNSHARE |
					FAULT_FLAG_REMOTE, NULL);
		if (fault & VM_FAULT_OOM)
			return -ENOMEM;
		if (fault & (VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV))
			return 0;
	}
}
