/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What mm/ksm/ needs of the kernel, for its pure files in user space.
 *
 * It takes the name of the guard of mm/ksm/ksm_internal.h, and so the place of
 * that header. Lists, trees, bit fields and min() are the kernel's own, from the
 * base tree. What is faked, is faked strictly: a lock knows whether it is held, an
 * allocation can fail and is counted, and what the kernel would warn about ends
 * the test (see ksm_fake_complain()).
 */
#ifndef _MM_KSM_INTERNAL_H
#define _MM_KSM_INTERNAL_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <linux/types.h>
#include <linux/compiler.h>
#include <linux/kernel.h>
#include <asm-generic/atomic-gcc.h>
#include <linux/bitfield.h>
#include <linux/bits.h>
#include <linux/hashtable.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/rbtree.h>
#include <linux/time64.h>

/* The kernel's min() and max(), which mind the signs, need these three. */
#undef min
#undef max
#undef min_t
#undef max_t
#undef clamp
#define auto			__auto_type
#define is_signed_type(type)	(((type)(-1)) < (type)1)
#define statically_true(x)	(__builtin_constant_p(x) && (x))
#ifndef __UNIQUE_ID
#define __UNIQUE_ID(prefix)	__PASTE(__PASTE(__unique_, prefix), __COUNTER__)
#endif
#include <linux/minmax.h>

#define PAGE_SHIFT		12
#define PAGE_SIZE		BIT(PAGE_SHIFT)
#define PAGE_MASK		(~(PAGE_SIZE - 1))
#define PTRS_PER_PTE		512
#define PMD_SIZE		(PTRS_PER_PTE * PAGE_SIZE)
#define MAX_NUMNODES		4
#define U8_MAX			UCHAR_MAX
#define U32_MAX			UINT_MAX
#define S64_MAX			LLONG_MAX
#define cond_resched()		might_sleep()
#define trace_ksm_remove_rmap_item(pfn, item, mm) \
	((void)(pfn), (void)(item), (void)(mm))
#define trace_ksm_remove_ksm_page(pfn)	((void)(pfn))

/* Warnings: each is a failure of the test, unless it said that it expects them. */
void ksm_fake_complain(const char *file, int line, const char *what);

#undef WARN_ON_ONCE
#define WARN_ON_ONCE(cond) ({						\
	bool __complain = (cond);					\
	if (__complain)							\
		ksm_fake_complain(__FILE__, __LINE__, "WARN: " #cond);	\
	__complain;							\
})

/* Locks: there is one thread, so that a lock is but a flag. */
typedef struct {
	bool held;
} spinlock_t;

struct mutex {
	bool held;
};

extern unsigned int ksm_fake_locks_held;

#define lockdep_assert_held(lock) do {					\
	if (!(lock)->held)						\
		ksm_fake_complain(__FILE__, __LINE__, "not held: " #lock); \
} while (0)

#define might_sleep() do {						\
	if (ksm_fake_locks_held)					\
		ksm_fake_complain(__FILE__, __LINE__, "sleeps under a lock"); \
} while (0)

#define spin_lock(lock) do {						\
	spinlock_t *__l = (lock);					\
									\
	if (__l->held)							\
		ksm_fake_complain(__FILE__, __LINE__, "deadlock: " #lock); \
	__l->held = true;						\
	ksm_fake_locks_held++;						\
} while (0)

#define spin_unlock(lock) do {						\
	spinlock_t *__l = (lock);					\
									\
	if (!__l->held)							\
		ksm_fake_complain(__FILE__, __LINE__, "not held: " #lock); \
	__l->held = false;						\
	ksm_fake_locks_held--;						\
} while (0)

/* Memory: objects are counted, and there may be none. */
struct kmem_cache {
	const char *name;
	size_t size;
	long nr;
};

extern bool ksm_fake_no_memory;
extern bool ksm_fake_no_charge;		/* the memory cgroup is at its limit */
extern struct kmem_cache ksm_fake_kmalloc;	/* counts what kzalloc() gave out */

#define __GFP_NORETRY		0x1000
#define __GFP_NOWARN		0x2000
#define KMEM_CACHE(type, flags) \
	((void)(flags), ksm_fake_cache_create(#type, sizeof(struct type)))

struct kmem_cache *ksm_fake_cache_create(const char *name, size_t size);
struct kmem_cache *ksm_fake_cache_find(const char *name);
void *kmem_cache_zalloc(struct kmem_cache *cache, gfp_t gfp);
void kmem_cache_free(struct kmem_cache *cache, void *object);
void *kzalloc(size_t size, gfp_t gfp);
void kfree(const void *object);

/* Atomics that tools/include lacks. */
static inline long atomic_long_read(const atomic_long_t *v)
{
	return READ_ONCE(v->counter);
}

static inline void atomic_long_add(long n, atomic_long_t *v)
{
	__sync_add_and_fetch(&v->counter, n);
}

#define atomic_long_inc(v)	atomic_long_add(1, v)
#define atomic_long_dec(v)	atomic_long_add(-1, v)

typedef struct {
	s64 counter;
} atomic64_t;

typedef struct {
	int refs;
} refcount_t;

#define refcount_inc(r)		((void)(r)->refs++)

static inline u64 div64_u64(u64 dividend, u64 divisor)
{
	return dividend / divisor;
}

static inline u64 mul_u64_u64_div_u64(u64 a, u64 mul, u64 divisor)
{
	unsigned __int128 quotient = (unsigned __int128)a * mul / divisor;

	if (quotient >> 64)
		ksm_fake_complain(__FILE__, __LINE__, "overflow, which x86 traps");
	return quotient;
}

/* Time: HZ is not 1000, so that a mix-up of units shows. */
#define HZ			250
#define MAX_JIFFY_OFFSET	((LONG_MAX >> 1) - 1)
#define time_before(a, b)	((long)((a) - (b)) < 0)

extern unsigned long jiffies;

static inline unsigned long msecs_to_jiffies(unsigned int ms)
{
	return (int)ms < 0 ? MAX_JIFFY_OFFSET : (ms + 1000 / HZ - 1) / (1000 / HZ);
}

/* What else the engine's structures are made of. */
struct vm_area_struct;

struct xarray {
	void *unused;
};

typedef struct {
	int unused;
} wait_queue_head_t;

extern const void *ksm_fake_woken;		/* last argument of wake_up_var() */
#define wake_up_var(var)	((void)(ksm_fake_woken = (var)))

typedef struct { u64 pte; } pte_t;
typedef unsigned int vm_fault_t;
typedef struct { u64 pmd; } pmd_t;

u64 xxh64(const void *input, size_t length, u64 seed);	/* not called */

struct mm_struct {
	unsigned long ksm_rmap_items;
	unsigned long ksm_merging_pages;
	u64 ksm_cookie;
};

struct mm_slot {
	struct mm_struct *mm;
};

struct anon_vma {
	long refs;
};

static inline void put_anon_vma(struct anon_vma *anon_vma)
{
	might_sleep();
	anon_vma->refs--;
}

/* A page of fake_node.c's memory: whose it is, where, and who holds it. */
struct folio {
	const struct ksm_stable_node *node;
	int refs;
	int nid;
	bool used;
};

void folio_put(struct folio *folio);

#endif /* _MM_KSM_INTERNAL_H */
