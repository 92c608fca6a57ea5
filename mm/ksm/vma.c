// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holding on to a VMA that is being scanned, or whose pages are being merged.
 *
 * ksmd is a guest in other processes' address spaces, and the idle one: an mmap()
 * is not to wait for it. So where there are per-VMA locks only the VMA that is being
 * walked is locked, and only those wait who want to change that very VMA. Otherwise
 * the lock is the mmap lock.
 *
 * To get it may take waiting for a process's own changes of its address space, and they
 * may wait for a folio. So it is never asked for with a folio locked; but it is waited
 * for, or a process that maps and unmaps all the time would never be merged.
 *
 * Neither lock keeps the page tables of an mm whose last user exits: that takes a
 * reference to mm_users. ksm_vma_hold() has it.
 */
#include "ksm_internal.h"
#include "ksm.h"

#ifdef CONFIG_PER_VMA_LOCK
/**
 * ksm_vma_lock_next() - find and lock the first VMA from an address on
 * @mm: the mm; the caller has a reference to mm_users, and no lock
 * @addr: the address
 *
 * Context: may sleep.
 * Return: the VMA that ends above @addr, to be given to ksm_vma_unlock(); NULL, and
 * nothing locked, if there is none.
 */
struct vm_area_struct *ksm_vma_lock_next(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma;

	VMA_ITERATOR(vmi, mm, addr);
	do {
		rcu_read_lock();
		vma_iter_set(&vmi, addr);
		vma = lock_next_vma(mm, &vmi, addr);
		rcu_read_unlock();
		/* Nobody signals a kernel thread: it can only be a crowd of readers. */
	} while (IS_ERR(vma));
	return vma;
}

/**
 * ksm_vma_unlock() - let go of a VMA
 * @vma: from ksm_vma_lock_next()
 */
void ksm_vma_unlock(struct vm_area_struct *vma)
{
	vma_end_read(vma);
}

/**
 * ksm_vma_is_wanted() - may somebody be waiting for a VMA that we hold?
 * @vma: from ksm_vma_lock_next()
 *
 * Who wants to change a VMA has the mmap lock for writing when he waits for its
 * readers.
 *
 * Return: true also if he is after another VMA.
 */
bool ksm_vma_is_wanted(struct vm_area_struct *vma)
{
	unsigned int seq;

	return !mmap_lock_speculate_try_begin(vma->vm_mm, &seq);
}
#else
struct vm_area_struct *ksm_vma_lock_next(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma;

	mmap_read_lock(mm);
	vma = find_vma(mm, addr);
	if (!vma)
		mmap_read_unlock(mm);
	return vma;
}

void ksm_vma_unlock(struct vm_area_struct *vma)
{
	mmap_read_unlock(vma->vm_mm);
}

bool ksm_vma_is_wanted(struct vm_area_struct *vma)
{
	return mmap_lock_is_contended(vma->vm_mm);
}
#endif /* CONFIG_PER_VMA_LOCK */

/**
 * ksm_vma_hold() - find and lock the VMA of an address, if its pages may be merged
 * @mm: the mm; the caller has no lock of it, and no folio locked
 * @addr: the address
 *
 * Context: may sleep, for as long as the process changes the VMA.
 * Return: the VMA, to be given to ksm_vma_release(); NULL, and nothing held, if there is
 * none, if it was not offered for merging, or if @mm is exiting.
 */
struct vm_area_struct *ksm_vma_hold(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma;

	if (!mmget_not_zero(mm))
		return NULL;
	vma = ksm_vma_lock_next(mm, addr);
	if (vma && addr >= vma->vm_start && vma->anon_vma && (vma->vm_flags & VM_MERGEABLE))
		return vma;
	if (vma)
		ksm_vma_unlock(vma);
	mmput_async(mm);
	return NULL;
}

/**
 * ksm_vma_release() - let go of a VMA, and of its mm
 * @vma: from ksm_vma_hold()
 *
 * If that was the last user of the mm, it is not the caller that tears it down.
 */
void ksm_vma_release(struct vm_area_struct *vma)
{
	struct mm_struct *mm = vma->vm_mm;

	ksm_vma_unlock(vma);
	mmput_async(mm);
}
