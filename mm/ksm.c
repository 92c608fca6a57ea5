// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kernel samepage merging: what the rest of the kernel calls.
 *
 * A program offers anonymous memory, by madvise(MADV_MERGEABLE) or, all it has, by
 * prctl(PR_SET_MEMORY_MERGE). ksmd looks for pages of equal content in what was
 * offered, maps one write-protected page in place of them, and gives the others
 * back. Who writes to such a page gets a copy of his own.
 *
 * Here is the front door: which areas take part, and which mms are registered. The
 * engine is in mm/ksm/, and Documentation/mm/ksm.rst explains it.
 */
#include <linux/cred.h>
#include <linux/errno.h>
#include <linux/export.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/ksm.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/sched/mm.h>

#include "ksm/ksm_internal.h"
#include "ksm/ksm.h"

#define CREATE_TRACE_POINTS
#include <trace/events/ksm.h>

struct ksm_engine ksm_engine;

/* Has the engine come up? Until then nobody can register. */
static bool ksm_is_up(void)
{
	return ksm_engine.worker.engine;
}

/* Can pages of such an area be anonymous, private, and of the ordinary kind? */
static bool ksm_area_fits(const struct file *file, vma_flags_t flags)
{
	if (file_is_dax(file))
		return false;
#ifdef VM_SAO
	/* Here and below: page table bits that say how a page is accessed. */
	if (vma_flags_test(&flags, VMA_SAO_BIT))
		return false;
#endif
#ifdef VM_SPARC_ADI
	if (vma_flags_test(&flags, VMA_SPARC_ADI_BIT))
		return false;
#endif
	return !vma_flags_test_any(&flags, VMA_SHARED_BIT, VMA_MAYSHARE_BIT,
				   VMA_HUGETLB_BIT) &&
	       !vma_flags_test_single_mask(&flags, VMA_DROPPABLE) &&
	       !vma_flags_test_any_mask(&flags, VMA_SPECIAL_FLAGS);
}

static bool ksm_area_wants(const struct file *file, vma_flags_t flags)
{
	return !vma_flags_test(&flags, VMA_MERGEABLE_BIT) &&
	       ksm_area_fits(file, flags);
}

static bool ksm_area_offered(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_MERGEABLE;
}

/* Visit all areas of an mm until a visit returns something else than 0. */
static int ksm_visit_areas(struct mm_struct *mm,
			   int (*visit)(struct vm_area_struct *vma))
{
	struct vm_area_struct *area;
	int ret;

	VMA_ITERATOR(iter, mm, 0);
	for_each_vma(iter, area) {
		ret = visit(area);
		if (ret)
			return ret;
	}
	return 0;
}

static bool ksm_is_registered(const struct mm_struct *mm)
{
	return mm_flags_test(MMF_VM_MERGEABLE, mm);
}

/* Does the process offer all that it has and will have? */
static bool ksm_offers_all(const struct mm_struct *mm)
{
	return mm_flags_test(MMF_VM_MERGE_ANY, mm);
}

static int ksm_register(struct mm_struct *mm)
{
	return ksm_is_registered(mm) ? 0 : __ksm_enter(mm);
}

/**
 * ksm_vma_flags() - flags of a new area in a process that offers all it has
 * @mm: the process's mm, its mmap_lock held for writing
 * @file: what is to be mapped, or NULL
 * @flags: flags of the area so far
 *
 * Registering @mm is tried once more if ksmd has forgotten it for having nothing to
 * merge; if that fails there will be other areas.
 *
 * Return: the flags, with VM_MERGEABLE if the area is to be offered.
 */
vma_flags_t ksm_vma_flags(struct mm_struct *mm,
			  const struct file *file, vma_flags_t flags)
{
	if (ksm_offers_all(mm) && ksm_area_wants(file, flags)) {
		ksm_register(mm);
		vma_flags_set(&flags, VMA_MERGEABLE_BIT);
	}
	return flags;
}

static int ksm_offer(struct vm_area_struct *vma)
{
	if (ksm_area_wants(vma->vm_file, vma->flags))
		vm_flags_set(vma, VM_MERGEABLE);
	return 0;
}

static int ksm_unmerge_area(struct vm_area_struct *vma, unsigned long start,
			    unsigned long end)
{
	return vma->anon_vma ? ksm_merge_break(vma, start, end, KSM_BREAK_LOCKED) : 0;
}

static int ksm_unmerge_offered(struct vm_area_struct *vma)
{
	return ksm_area_offered(vma) ?
		ksm_unmerge_area(vma, vma->vm_start, vma->vm_end) : 0;
}

static int ksm_withdraw(struct vm_area_struct *vma)
{
	if (ksm_area_offered(vma))
		vm_flags_clear(vma, VM_MERGEABLE);
	return 0;
}

/* All areas or none: after an error what is offered is what was offered. */
static int ksm_withdraw_all(struct mm_struct *mm)
{
	return ksm_visit_areas(mm, ksm_unmerge_offered) ?:
	       ksm_visit_areas(mm, ksm_withdraw);
}

/**
 * ksm_enable_merge_any() - offer all that a process has and will have
 * @mm: its mm, with mmap_lock held for writing
 *
 * Return: 0; -ENOMEM, and nothing changed.
 */
int ksm_enable_merge_any(struct mm_struct *mm)
{
	int err;

	if (ksm_offers_all(mm))
		return 0;
	err = ksm_register(mm);
	if (err)
		return err;
	mm_flags_set(MMF_VM_MERGE_ANY, mm);
	return ksm_visit_areas(mm, ksm_offer);
}

/**
 * ksm_disable_merge_any() - take back the offer, and all merged pages with it
 * @mm: the mm, with mmap_lock held for writing
 *
 * Areas that were offered by madvise() are withdrawn too. But if the process does not offer
 * all that it has nothing is done.
 *
 * Return: 0; an error of ksm_merge_break(), with everything offered as before.
 */
int ksm_disable_merge_any(struct mm_struct *mm)
{
	int err;

	if (!ksm_offers_all(mm))
		return 0;
	err = ksm_withdraw_all(mm);
	if (!err)
		mm_flags_clear(MMF_VM_MERGE_ANY, mm);
	return err;
}

/**
 * ksm_disable() - unmerge an mm for good, because its pages cannot be shared
 * @mm: the mm, registered or not, with mmap_lock held for writing
 *
 * A fork that could not be registered has its parent's merged pages all the same.
 *
 * Return: 0, and nothing is merged or offered; an error of ksm_merge_break(), with
 * everything offered as before.
 */
int ksm_disable(struct mm_struct *mm)
{
	mmap_assert_write_locked(mm);
	return ksm_offers_all(mm) ? ksm_disable_merge_any(mm) : ksm_withdraw_all(mm);
}

static int ksm_madvise_mergeable(struct vm_area_struct *vma, vm_flags_t *flags)
{
	int err;

	/* An area that does not fit is not an error: it is advice. */
	if (!ksm_area_wants(vma->vm_file, vma->flags))
		return 0;
	err = ksm_register(vma->vm_mm);
	if (!err)
		*flags |= VM_MERGEABLE;
	return err;
}

static int ksm_madvise_unmergeable(struct vm_area_struct *vma,
				   unsigned long start, unsigned long end,
				   vm_flags_t *flags)
{
	int err;

	if (!(*flags & VM_MERGEABLE))
		return 0;
	err = ksm_unmerge_area(vma, start, end);
	if (!err)
		*flags &= ~VM_MERGEABLE;
	return err;
}

/**
 * ksm_madvise() - MADV_MERGEABLE and MADV_UNMERGEABLE
 * @vma: the area; its mm's mmap_lock is held for writing
 * @start: start of the range in it
 * @end: end of the range
 * @advice: which of the two; any other is ignored
 * @flags: flags of the range, to be changed
 *
 * Context: may sleep, and fault.
 * Return: 0; -ENOMEM; -ERESTARTSYS when a signal is pending; any other error of
 * ksm_merge_break(). After an error the range is on offer, or not, as before.
 */
int ksm_madvise(struct vm_area_struct *vma,
		unsigned long start, unsigned long end,
		int advice, vm_flags_t *flags)
{
	if (advice == MADV_MERGEABLE)
		return ksm_madvise_mergeable(vma, flags);
	if (advice == MADV_UNMERGEABLE)
		return ksm_madvise_unmergeable(vma, start, end, flags);
	return 0;
}
EXPORT_SYMBOL_GPL(ksm_madvise);

/**
 * __ksm_enter() - register an mm
 * @mm: the mm, not registered, with mmap_lock held for writing
 *
 * Return: 0 or -ENOMEM.
 */
int __ksm_enter(struct mm_struct *mm)
{
	int err;

	if (!ksm_is_up())
		return -ENOMEM;
	err = ksm_registry_add(&ksm_engine, mm);
	if (err)
		return err;
	/* ksmd sleeps for good only while there is no mm. */
	if (wq_has_sleeper(&ksm_engine.idle_wait))
		wake_up_interruptible(&ksm_engine.idle_wait);
	trace_ksm_enter(mm);
	return 0;
}

/**
 * __ksm_exit() - the pages of a registered mm are about to go
 * @mm: the mm; mm_users is 0 and mmap_lock not held, unless an exec has failed early
 *
 * Who merges or unmerges leaves an mm alone when he finds mm_users 0. Taking
 * mmap_lock waits for one who looked before. After a failed exec nothing is torn
 * down yet, the lock is held already, and mm_users is not 0: it is enough to wait
 * when the mm comes here again to be torn down.
 */
void __ksm_exit(struct mm_struct *mm)
{
	bool busy = ksm_registry_exit(&ksm_engine, mm);

	if (busy && !atomic_read(&mm->mm_users)) {
		mmap_write_lock(mm);
		mmap_write_unlock(mm);
	}
	trace_ksm_exit(mm);
}

/* Has somebody with the one credentials rights that the other ones do not give? */
static bool ksm_gains(const struct cred *cred, const struct cred *old)
{
	return !uid_eq(cred->euid, old->euid) || !gid_eq(cred->egid, old->egid) ||
	       !cap_issubset(cred->cap_permitted, old->cap_permitted);
}

/**
 * ksm_exec_mmap() - an exec takes another mm
 * @mm: its mm, in which nothing is mapped but a stack that is not offered
 * @old: the mm that it is in the place of, with mmap_lock held; or NULL
 * @cred: credentials of the program; those of its caller are current still
 *
 * The domain is taken over, and the offer of everything, which @mm has already; unless
 * the program gains privileges: another effective user or group, or permitted capabilities
 * that its caller lacks, by its file or as root's. It has not asked to have all its memory
 * offered then, in a domain in which its caller could learn what is in it. See cookie.c
 * for why a domain is replaced by a new one.
 *
 * What a security module says (AT_SECURE) does not count. It says so at each transition
 * between profiles, also of the service manager that has made the offer to that end.
 */
void ksm_exec_mmap(struct mm_struct *mm, struct mm_struct *old, const struct cred *cred)
{
	if (old)
		WRITE_ONCE(mm->ksm_cookie, old->ksm_cookie);
	if (!ksm_gains(cred, current_cred()))
		return;
	mm_flags_clear(MMF_VM_MERGE_ANY, mm);
	if (mm->ksm_cookie)
		WRITE_ONCE(mm->ksm_cookie, ksm_cookie_draw());
}

#ifdef CONFIG_PROC_FS
static int ksm_visit_offered(struct vm_area_struct *vma)
{
	return ksm_area_offered(vma);
}

/**
 * ksm_process_mergeable() - has a process anything that may be merged?
 * @mm: its mm, with mmap_lock held
 *
 * Return: whether any of its areas is offered.
 */
bool ksm_process_mergeable(struct mm_struct *mm)
{
	mmap_assert_locked(mm);
	return ksm_visit_areas(mm, ksm_visit_offered);
}

/**
 * ksm_process_profit() - memory that merging saves a process
 * @mm: its mm
 *
 * Return: bytes, less those that the engine spends on remembering its pages.
 */
long ksm_process_profit(struct mm_struct *mm)
{
	long pages = mm->ksm_merging_pages + mm_ksm_zero_pages(mm);

	return pages * (long)PAGE_SIZE - ksm_registry_metadata(&ksm_engine, mm);
}
#endif

/**
 * __ksm_folio_put() - drop a reference to a KSM folio that a write has left
 * @folio: the folio; where the write was, it is not mapped any more
 *
 * If that frees it then the frame is not what is allocated next, with fresh_frames on.
 *
 * Context: a fault, without the page table lock.
 */
void __ksm_folio_put(struct folio *folio)
{
	bool stir = READ_ONCE(ksm_engine.knobs.fresh_frames) && !folio_mapped(folio);
	int nid = folio_nid(folio);

	folio_put(folio);
	if (stir)
		ksm_frames_stir(&ksm_engine, nid);
}

static int __init ksm_bring_up(void)
{
	struct task_struct *ksmd;
	int err;

	err = ksm_caches_create();
	if (err)
		return err;
	ksm_engine_init(&ksm_engine, totalram_pages());
	if (!IS_ENABLED(CONFIG_SYSFS))		/* nobody could start it */
		err = ksm_daemon_set_run(&ksm_engine, KSM_RUN_MERGE);
	if (err)
		return err;
	ksmd = kthread_run(ksm_daemon, &ksm_engine, "ksmd");
	if (IS_ERR(ksmd)) {
		pr_err("ksm: cannot start ksmd: %pe\n", ksmd);
		return PTR_ERR(ksmd);
	}
	ksm_hotplug_init();
	ksm_domains_list();
	err = ksm_sysfs_init();
	if (err)
		pr_err("ksm: cannot create sysfs files: %d\n", err);
	return err;
}
subsys_initcall(ksm_bring_up);
