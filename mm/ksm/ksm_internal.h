/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every kernel header that the engine uses, in one place: tools/testing/ksm
 * defines the guard below and supplies its own stand-ins, which is how the pure
 * files (see Makefile) are built and tested in user space.
 */
#ifndef _MM_KSM_INTERNAL_H
#define _MM_KSM_INTERNAL_H

#include <linux/bitfield.h>
#include <linux/bitops.h>
#include <linux/cred.h>
#include <linux/debugfs.h>
#include <linux/freezer.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/hashtable.h>
#include <linux/highmem.h>
#include <linux/hugetlb.h>
#include <linux/jhash.h>
#include <linux/jiffies.h>
#include <linux/kstrtox.h>
#include <linux/kthread.h>
#include <linux/ksm.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/math64.h>
#include <linux/memcontrol.h>
#include <linux/memory.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/mount.h>
#include <linux/mutex.h>
#include <linux/oom.h>
#include <linux/pagemap.h>
#include <linux/pagewalk.h>
#include <linux/prctl.h>
#include <linux/prefetch.h>
#include <linux/pseudo_fs.h>
#include <linux/ptrace.h>
#include <linux/random.h>
#include <linux/rbtree.h>
#include <linux/refcount.h>
#include <linux/rmap.h>
#include <linux/sched/coredump.h>
#include <linux/sched/cputime.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/swap.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>
#include <linux/user_namespace.h>
#include <linux/userfaultfd_k.h>
#include <linux/wait.h>
#include <linux/wait_bit.h>
#include <linux/xarray.h>
#include <linux/xxhash.h>

#include <kunit/static_stub.h>

#include <asm/tlbflush.h>

#include <trace/events/ksm.h>

#include "../internal.h"
#include "../mm_slot.h"
#include "../page_alloc.h"

#endif /* _MM_KSM_INTERNAL_H */
