// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of KSM.
 *
 * Each case has an engine of its own, with mms of its own that are registered with
 * it and with nobody else: ksmd and the engine that it works for stay out of it. The
 * pages are real ones, faulted in and written through get_user_pages(), so that what
 * is tested is what user space would see: what is mapped where, and what it reads.
 *
 * Around every case, whatever it is about: the validator finds nothing wrong after
 * each step; when all is unmerged the counters are back to 0 and no object is left in
 * a slab cache; and nothing has made the kernel complain.
 *
 * A case must not ASSERT with a lock held, for then it ends where it is, and the
 * engine cannot be taken down any more.
 *
 *	./tools/testing/kunit/kunit.py run --kunitconfig mm/ksm/.kunitconfig
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <kunit/test-bug.h>

#include <linux/debug_locks.h>
#include <linux/debugfs.h>
#include <linux/migrate.h>
#include <linux/panic.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>

#include "../ksm/ksm_internal.h"
#include "../ksm/ksm.h"
#include "../slab.h"

#define KT_MMS		8
/* A process may have so much, and more: 64 TiB, or with 32 bits 2 GiB. */
#define KT_VAST		(1UL << (BITS_PER_LONG == 64 ? 46 : 31))
/* Passes after which everything that can be merged is. */
#define KT_SETTLE	4
/* What a complaint leaves behind: a warning, or a report of KASAN's. */
#define KT_TAINTS	(BIT(TAINT_WARN) | BIT(TAINT_BAD_PAGE))

static const char *const kt_caches[] = {
	"ksm_rmap_item", "ksm_stable_node", "ksm_mm_slot",
};

/**
 * struct kt - what a case works with; test->priv
 * @engine: its own engine
 * @mms: mms to be put at the end; NULL where the case has done so itself
 * @nr_mms: how many there were
 * @buf: a page's worth of room
 * @taints: complaints there were before
 * @objects: objects there were before, by cache
 * @refusals: times that something could not be done for lack of memory
 * @failing_mm: where a fault that unshares is to fail
 * @failing_addr: and at which address
 * @failing: what it is to return
 * @fails_too_late: it is to unshare the page nevertheless
 * @nr_failed: how often it did
 * @ownerless: no mm is owned by a process
 */
struct kt {
	struct ksm_engine engine;
	struct mm_struct *mms[KT_MMS];
	unsigned int nr_mms;
	u64 buf[PAGE_SIZE / sizeof(u64)];
	unsigned long taints;
	long objects[ARRAY_SIZE(kt_caches)];
	int refusals;
	struct mm_struct *failing_mm;
	unsigned long failing_addr;
	vm_fault_t failing;
	bool fails_too_late;
	unsigned int nr_failed;
	bool ownerless;
};

static struct ksm_engine *kt_engine(struct kunit *test)
{
	return &((struct kt *)test->priv)->engine;
}

#define KT_EXPECT_STAT(_test, _stat, _value)				\
	do {								\
		struct kunit *__test = (_test);				\
									\
		KUNIT_EXPECT_EQ(__test, (long)(_value),			\
				ksm_stat_read(kt_engine(__test),	\
					      KSM_STAT_##_stat));	\
	} while (0)

/* The engine is not in use by ksmd: its mutex is taken for lockdep's sake. */
static void kt_lock(struct kunit *test)
{
	mutex_lock(&kt_engine(test)->mutex);
}

static void kt_unlock(struct kunit *test)
{
	int errors = ksm_validate(kt_engine(test));

	mutex_unlock(&kt_engine(test)->mutex);
	KUNIT_EXPECT_EQ(test, errors, 0);
}

/* Scan up to @nr pages, but no further than the pass. */
static void kt_scan_pages(struct kunit *test, unsigned int nr)
{
	kt_lock(test);
	ksm_daemon_scan(kt_engine(test), nr);
	kt_unlock(test);
}

static void kt_scan(struct kunit *test, unsigned int passes)
{
	while (passes--)
		kt_scan_pages(test, UINT_MAX);
}

static int kt_unmerge(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	int err;

	kt_lock(test);
	engine->run = KSM_RUN_UNMERGE;
	err = ksm_unmerge_all(engine);
	engine->run = KSM_RUN_STOP;
	kt_unlock(test);
	return err;
}

/* An empty mm, put at the end of the test. */
static struct mm_struct *kt_bare_mm(struct kunit *test)
{
	struct kt *kt = test->priv;
	struct mm_struct *mm = NULL;

	if (kt->nr_mms < KT_MMS)
		mm = mm_alloc();
	KUNIT_ASSERT_NOT_NULL(test, mm);
	mm->task_size = TASK_SIZE;
	arch_pick_mmap_layout(mm, &current->signal->rlim[RLIMIT_STACK]);
	kt->mms[kt->nr_mms++] = mm;
	return mm;
}

/*
 * Register an mm with an engine, and hide it from the kernel's own, which would
 * otherwise look for it when it forks or exits.
 */
static int kt_register(struct ksm_engine *engine, struct mm_struct *mm)
{
	int err;

	mmap_write_lock(mm);
	err = ksm_registry_add(engine, mm);
	mm_flags_clear(MMF_VM_MERGEABLE, mm);
	mmap_write_unlock(mm);
	return err;
}

static struct ksm_mm *kt_kmm(struct kunit *test, struct mm_struct *mm)
{
	struct ksm_registry *registry = &kt_engine(test)->registry;
	struct mm_slot *slot = mm_slot_lookup(registry->hash, mm);

	return slot ? mm_slot_entry(slot, struct ksm_mm, slot) : NULL;
}

/* An mm that is registered, and in its merge domain, as it is from the first visit on. */
static struct mm_struct *kt_mm(struct kunit *test)
{
	struct mm_struct *mm = kt_bare_mm(test);
	int err;

	KUNIT_ASSERT_EQ(test, kt_register(kt_engine(test), mm), 0);
	mutex_lock(&kt_engine(test)->mutex);
	err = ksm_identity_update(kt_kmm(test, mm));
	mutex_unlock(&kt_engine(test)->mutex);
	KUNIT_ASSERT_EQ(test, err, 0);
	return mm;
}

/* The process exits: the mm's users are gone, then its page tables. */
static void kt_exit_mm(struct kunit *test, struct mm_struct *mm)
{
	struct kt *kt = test->priv;
	unsigned int i;

	for (i = 0; i < kt->nr_mms; i++)
		if (kt->mms[i] == mm)
			kt->mms[i] = NULL;
	ksm_registry_exit(&kt->engine, mm);
	mmput(mm);
}

static struct mm_struct *kt_fork(struct kunit *test, struct mm_struct *mm)
{
	struct mm_struct *child = kt_bare_mm(test);

	KUNIT_ASSERT_EQ(test, dup_mmap(child, mm), 0);
	return child;
}

static void kt_offer(struct mm_struct *mm, unsigned long addr, bool offer)
{
	struct vm_area_struct *vma;

	mmap_write_lock(mm);
	vma = vma_lookup(mm, addr);
	if (vma && offer)
		vm_flags_set(vma, VM_MERGEABLE);
	else if (vma)
		vm_flags_clear(vma, VM_MERGEABLE);
	mmap_write_unlock(mm);
}

/* Map anonymous pages, at @addr unless that is 0, and offer them for merging. */
static unsigned long kt_map_at(struct kunit *test, struct mm_struct *mm,
			       unsigned long addr, unsigned long nr)
{
	unsigned long flags = MAP_PRIVATE | MAP_ANONYMOUS;

	kthread_use_mm(mm);
	addr = vm_mmap(NULL, addr, nr * PAGE_SIZE, PROT_READ | PROT_WRITE,
		       addr ? flags | MAP_FIXED : flags, 0);
	kthread_unuse_mm(mm);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(addr));
	kt_offer(mm, addr, true);
	return addr;
}

static unsigned long kt_map(struct kunit *test, struct mm_struct *mm,
			    unsigned long nr)
{
	return kt_map_at(test, mm, 0, nr);
}

static void kt_unmap(struct kunit *test, struct mm_struct *mm, unsigned long addr,
		     unsigned long nr)
{
	int err;

	kthread_use_mm(mm);
	err = vm_munmap(addr, nr * PAGE_SIZE);
	kthread_unuse_mm(mm);
	KUNIT_ASSERT_EQ(test, err, 0);
}

/* Content @id: a page full of that number, so that 0 is the zero page. */
static void kt_fill(struct kunit *test, struct mm_struct *mm, unsigned long addr,
		    u64 id)
{
	struct kt *kt = test->priv;
	int done;

	memset64(kt->buf, id, ARRAY_SIZE(kt->buf));
	/* For the PTE to be made dirty, as that of any mm that KSM scans: see kt_register(). */
	mm_flags_set(MMF_VM_MERGEABLE, mm);
	done = access_remote_vm(mm, addr, kt->buf, PAGE_SIZE, FOLL_WRITE);
	mm_flags_clear(MMF_VM_MERGEABLE, mm);
	KUNIT_EXPECT_EQ(test, done, (int)PAGE_SIZE);
}

static void kt_fill_all(struct kunit *test, struct mm_struct *mm,
			unsigned long addr, unsigned long nr, u64 id)
{
	while (nr--)
		kt_fill(test, mm, addr + nr * PAGE_SIZE, id);
}

static unsigned long kt_map_filled(struct kunit *test, struct mm_struct *mm,
				   unsigned long nr, u64 id)
{
	unsigned long addr = kt_map(test, mm, nr);

	kt_fill_all(test, mm, addr, nr, id);
	return addr;
}

static bool kt_holds(struct kunit *test, struct mm_struct *mm, unsigned long addr,
		     u64 id)
{
	struct kt *kt = test->priv;
	int done = access_remote_vm(mm, addr, kt->buf, PAGE_SIZE, 0);

	return done == PAGE_SIZE && kt->buf[0] == id &&
	       !memcmp(kt->buf, kt->buf + 1, PAGE_SIZE - sizeof(u64));
}

static pte_t kt_pte(struct mm_struct *mm, unsigned long addr)
{
	pte_t *pte, entry = __pte(0);
	spinlock_t *ptl;		/* of the page table */

	mmap_read_lock(mm);
	pte = get_locked_pte(mm, addr, &ptl);
	if (pte) {
		entry = ptep_get(pte);
		pte_unmap_unlock(pte, ptl);
	}
	mmap_read_unlock(mm);
	return entry;
}

static unsigned long kt_pfn(struct mm_struct *mm, unsigned long addr)
{
	pte_t pte = kt_pte(mm, addr);

	return pte_present(pte) ? pte_pfn(pte) : 0;
}

static bool kt_is_ksm(struct mm_struct *mm, unsigned long addr)
{
	unsigned long pfn = kt_pfn(mm, addr);

	return pfn && folio_test_ksm(pfn_folio(pfn));
}

/* The folio that is mapped, with a reference. */
static struct folio *kt_get_folio(struct kunit *test, struct mm_struct *mm,
				  unsigned long addr)
{
	struct vm_area_struct *vma;
	struct page *page = NULL;

	mmap_read_lock(mm);
	vma = vma_lookup(mm, addr);
	if (vma)
		page = ksm_merge_lookup(vma, addr);
	mmap_read_unlock(mm);
	KUNIT_ASSERT_NOT_NULL(test, page);
	return page_folio(page);
}

static int kt_mapcount(struct mm_struct *mm, unsigned long addr)
{
	unsigned long pfn = kt_pfn(mm, addr);

	return pfn ? folio_mapcount(pfn_folio(pfn)) : 0;
}

/* Is one KSM page mapped in both places, and not writable in either? */
static bool kt_shared(struct mm_struct *a, unsigned long addr_a,
		      struct mm_struct *b, unsigned long addr_b)
{
	return kt_is_ksm(a, addr_a) && kt_pfn(a, addr_a) == kt_pfn(b, addr_b) &&
	       !pte_write(kt_pte(a, addr_a)) && !pte_write(kt_pte(b, addr_b));
}

static u64 kt_hash(struct kunit *test, u64 id)
{
	struct kt *kt = test->priv;

	memset64(kt->buf, id, ARRAY_SIZE(kt->buf));
	return ksm_hash(&kt->engine, kt->buf);
}

static struct kmem_cache *kt_find_cache(const char *name)
{
	struct kmem_cache *cache, *found = NULL;

	mutex_lock(&slab_mutex);
	list_for_each_entry(cache, &slab_caches, list)
		if (!strcmp(cache->name, name))
			found = cache;
	mutex_unlock(&slab_mutex);
	return found;
}

/* Objects in a cache; 0 if it cannot be told, because it was merged with another. */
static long kt_objects(const char *name)
{
	struct kmem_cache *cache = kt_find_cache(name);
	struct slabinfo info = { };

	if (!cache)
		return 0;
	kmem_cache_shrink(cache);
#ifdef CONFIG_SLUB_DEBUG
	get_slabinfo(cache, &info);
#endif
	return info.active_objs;
}

/* Their mms are the tests' own, and have no processes. */
static bool kt_is_owned(struct mm_struct *mm)
{
	struct kt *kt = kunit_get_current_test()->priv;

	return !kt->ownerless;
}

static int kt_start(struct ksm_engine *engine)
{
	int err;

	mutex_lock(&engine->mutex);
	err = ksm_engine_start(engine);
	mutex_unlock(&engine->mutex);
	return err;
}

static int ksm_test_init(struct kunit *test)
{
	struct kt *kt = kunit_kzalloc(test, sizeof(*kt), GFP_KERNEL);
	unsigned int i;

	if (!kt)
		return -ENOMEM;
	test->priv = kt;
	kt->taints = get_taint() & KT_TAINTS;
	for (i = 0; i < ARRAY_SIZE(kt_caches); i++)
		kt->objects[i] = kt_objects(kt_caches[i]);
	ksm_engine_init(&kt->engine, 0);
	kt->engine.knobs.smart_scan = false;
	kunit_activate_static_stub(test, ksm_mm_is_owned, kt_is_owned);
	return kt_start(&kt->engine);
}

/* Unmerging gives everything back; and with the mms the last node goes. */
static void kt_take_down(struct kunit *test)
{
	struct kt *kt = test->priv;
	enum ksm_stat stat;
	int err;

	KUNIT_EXPECT_EQ(test, kt_unmerge(test), 0);
	while (kt->nr_mms) {
		struct mm_struct *mm = kt->mms[--kt->nr_mms];

		if (!mm)
			continue;
		KUNIT_EXPECT_EQ(test, mm->ksm_merging_pages, 0);
		KUNIT_EXPECT_EQ(test, mm->ksm_rmap_items, 0);
		KUNIT_EXPECT_FALSE(test, ksm_registry_exit(&kt->engine, mm));
		mmput(mm);
	}
	kt_lock(test);
	err = ksm_unmerge_empty_stable(&kt->engine);
	kt_unlock(test);
	KUNIT_EXPECT_EQ(test, err, 0);
	KUNIT_EXPECT_TRUE(test, ksm_registry_empty(&kt->engine));
	KUNIT_EXPECT_TRUE(test, list_empty(&kt->engine.orphans));
	for (stat = KSM_STAT_TRACKED; stat < KSM_NR_STATS; stat++)
		KUNIT_EXPECT_EQ_MSG(test, ksm_stat_read(&kt->engine, stat), 0,
				    "counter %d", stat);
	ksm_engine_destroy(&kt->engine);
}

static void ksm_test_exit(struct kunit *test)
{
	struct kt *kt = test->priv;
	unsigned int i;

	if (!kt || !kt->engine.shards)
		return;
	kt_take_down(test);
	for (i = 0; i < ARRAY_SIZE(kt_caches); i++)
		KUNIT_EXPECT_EQ_MSG(test, kt_objects(kt_caches[i]), kt->objects[i],
				    "objects of %s", kt_caches[i]);
	KUNIT_EXPECT_EQ(test, get_taint() & KT_TAINTS, kt->taints);
#ifdef CONFIG_PROVE_LOCKING
	KUNIT_EXPECT_TRUE_MSG(test, debug_locks, "lockdep has something to say");
#endif
}

#include "ksm_kunit_pure.h"
#include "ksm_kunit_memory.h"
#include "ksm_kunit_unmerge.h"
#include "ksm_kunit_merge.h"
#include "ksm_kunit_heir.h"
#include "ksm_kunit_charge.h"
#include "ksm_kunit_domain.h"
#include "ksm_kunit_fault.h"

static struct kunit_suite ksm_test_suites[] = {
	{
		.name = "ksm_pure",
		.init = ksm_test_init,
		.exit = ksm_test_exit,
		.test_cases = ksm_test_pure_cases,
	}, {
		.name = "ksm_memory",
		.init = ksm_test_init,
		.exit = ksm_test_exit,
		.test_cases = ksm_test_memory_cases,
	}, {
		.name = "ksm_unmerge",
		.init = ksm_test_init,
		.exit = ksm_test_exit,
		.test_cases = ksm_test_unmerge_cases,
	}, {
		.name = "ksm_merge",
		.init = ksm_test_init,
		.exit = ksm_test_exit,
		.test_cases = ksm_test_merge_cases,
	}, {
		.name = "ksm_heir",
		.init = ksm_test_init,
		.exit = ksm_test_exit,
		.test_cases = ksm_test_heir_cases,
	}, {
		.name = "ksm_charge",
		.init = ksm_test_init,
		.exit = ksm_test_exit,
		.test_cases = ksm_test_charge_cases,
	}, {
		.name = "ksm_domain",
		.init = ksm_test_init,
		.exit = ksm_test_exit,
		.test_cases = ksm_test_domain_cases,
	}, {
		.name = "ksm_fault",
		.init = ksm_test_init,
		.exit = ksm_test_exit,
		.test_cases = ksm_test_fault_cases,
	},
};

static_assert(ARRAY_SIZE(ksm_test_suites) == 8);	/* all that are listed here */
kunit_test_suites(&ksm_test_suites[0], &ksm_test_suites[1], &ksm_test_suites[2],
		  &ksm_test_suites[3], &ksm_test_suites[4], &ksm_test_suites[5],
		  &ksm_test_suites[6], &ksm_test_suites[7]);
