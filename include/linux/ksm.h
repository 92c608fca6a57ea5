/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the rest of the kernel calls of kernel samepage merging. Contracts are with
 * the functions, in mm/ksm.c and mm/ksm/rmap.c.
 */
#ifndef __LINUX_KSM_H
#define __LINUX_KSM_H

#include <linux/bitops.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched.h>

#ifdef CONFIG_KSM

/* Which areas take part. */
int ksm_madvise(struct vm_area_struct *vma,
		unsigned long start, unsigned long end,
		int advice, vm_flags_t *flags);
vma_flags_t ksm_vma_flags(struct mm_struct *mm,
			  const struct file *file, vma_flags_t flags);
int ksm_enable_merge_any(struct mm_struct *mm);
int ksm_disable_merge_any(struct mm_struct *mm);
int ksm_disable(struct mm_struct *mm);

/* The life of an mm. */
int __ksm_enter(struct mm_struct *mm);
void __ksm_exit(struct mm_struct *mm);

/* The life of a KSM folio. */
struct folio *ksm_might_need_to_copy(struct folio *swapped,
				     struct vm_area_struct *vma, unsigned long addr);
void rmap_walk_ksm(struct folio *folio, struct rmap_walk_control *control);
void folio_migrate_ksm(struct folio *dst, struct folio *src);
void collect_procs_ksm(const struct folio *folio, const struct page *failed,
		       struct list_head *to_kill, int force_early);
void __ksm_folio_put(struct folio *folio);

/* With whom a process shares. */
int ksm_prctl_domain(unsigned long cmd, pid_t pid, unsigned long addr);
void ksm_exec_mmap(struct mm_struct *mm, struct mm_struct *old, const struct cred *cred);

/* For /proc/PID/ksm_stat. */
long ksm_process_profit(struct mm_struct *mm);
bool ksm_process_mergeable(struct mm_struct *mm);

/*
 * Zero pages that KSM has mapped are counted, in all and for each mm, and can be
 * unmerged. What tells them from zero pages that a read fault has mapped is the dirty
 * bit of the PTE, of which a read-only mapping of nothing has no other use.
 */
extern atomic_long_t ksm_zero_pages;

static inline bool is_ksm_zero_pte(pte_t pte)
{
	return pte_dirty(pte) && is_zero_pfn(pte_pfn(pte));
}

static inline long mm_ksm_zero_pages(struct mm_struct *mm)
{
	return atomic_long_read(&mm->ksm_zero_pages);
}

static inline void ksm_count_zero_pages(struct mm_struct *mm, long nr)
{
	atomic_long_add(nr, &ksm_zero_pages);
	atomic_long_add(nr, &mm->ksm_zero_pages);
}

/* To be called with each PTE that is taken away, under the page table lock. */
static inline void ksm_might_unmap_zero_page(struct mm_struct *mm, pte_t pte)
{
	if (is_ksm_zero_pte(pte))
		ksm_count_zero_pages(mm, -1);
}

/*
 * And with each that fork copies. It may fail half-way and leave out mappings, so that
 * the parent's count would not do for the child.
 */
static inline void ksm_might_map_zero_page(struct mm_struct *mm, pte_t pte)
{
	if (is_ksm_zero_pte(pte))
		ksm_count_zero_pages(mm, 1);
}

/*
 * A new mm begins empty, or as a byte-wise copy of its parent, whose figures are not
 * its own, whether it is registered later or not.
 */
static inline void ksm_mm_init(struct mm_struct *mm)
{
	mm->ksm_rmap_items = 0;
	mm->ksm_merging_pages = 0;
	atomic_long_set(&mm->ksm_zero_pages, 0);
	mm->ksm_cookie = 0;
}

/*
 * A child has its parent's page tables, with KSM's zero pages in them, but no rmap
 * items yet. If it cannot be registered then it just does not merge. Its domain goes
 * with the page tables: both are copied under one hold of the parent's mmap_lock.
 */
static inline void ksm_fork(struct mm_struct *child, struct mm_struct *parent)
{
	child->ksm_cookie = parent->ksm_cookie;
	if (mm_flags_test(MMF_VM_MERGEABLE, parent))
		__ksm_enter(child);
}

/* The wish to have everything merged outlives an exec. */
static inline int ksm_execve(struct mm_struct *mm)
{
	return mm_flags_test(MMF_VM_MERGE_ANY, mm) ? __ksm_enter(mm) : 0;
}

static inline void ksm_exit(struct mm_struct *mm)
{
	if (mm_flags_test(MMF_VM_MERGEABLE, mm))
		__ksm_exit(mm);
}

/* Drops a reference to a folio that a copy-on-write fault has left, of any kind. */
static inline void ksm_folio_put(struct folio *folio)
{
	if (folio_test_ksm(folio))
		__ksm_folio_put(folio);
	else
		folio_put(folio);
}

#else /* !CONFIG_KSM */

static inline vma_flags_t
ksm_vma_flags(struct mm_struct *mm, const struct file *file, vma_flags_t flags)
{
	return flags;
}

static inline int ksm_disable(struct mm_struct *mm)
{
	return 0;
}

static inline int ksm_execve(struct mm_struct *mm)
{
	return 0;
}

static inline void ksm_fork(struct mm_struct *child, struct mm_struct *parent) { }
static inline void
ksm_exec_mmap(struct mm_struct *mm, struct mm_struct *old, const struct cred *cred) { }
static inline void ksm_exit(struct mm_struct *mm) { }
static inline void ksm_might_unmap_zero_page(struct mm_struct *mm, pte_t pte) { }
static inline void ksm_might_map_zero_page(struct mm_struct *mm, pte_t pte) { }
static inline void ksm_mm_init(struct mm_struct *mm) { }
static inline void ksm_folio_put(struct folio *folio) { folio_put(folio); }
static inline void
collect_procs_ksm(const struct folio *folio, const struct page *failed,
		  struct list_head *to_kill, int force_early) { }

#ifdef CONFIG_MMU
static inline int ksm_madvise(struct vm_area_struct *vma,
			      unsigned long start, unsigned long end,
			      int advice, vm_flags_t *flags)
{
	return 0;
}

static inline struct folio *
ksm_might_need_to_copy(struct folio *swapped, struct vm_area_struct *vma,
		       unsigned long addr)
{
	return swapped;
}

static inline void
rmap_walk_ksm(struct folio *folio, struct rmap_walk_control *control) { }
static inline void folio_migrate_ksm(struct folio *dst, struct folio *src) { }
#endif /* CONFIG_MMU */
#endif /* !CONFIG_KSM */

#endif /* __LINUX_KSM_H */
