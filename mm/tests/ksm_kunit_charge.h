/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of KSM: what becomes of pages whose memory cgroup is at its limit, and what
 * lists of slots cost.
 */

/* The cgroup of an mm has refused a charge, and is not asked again while the case lasts. */
static void kt_refuse(struct kunit *test, struct mm_struct *mm)
{
	kt_kmm(test, mm)->refused_until = jiffies + 1000 * HZ;
}

/* New pages are neither remembered nor have their dirty bits cleared; later they are. */
static void ksm_test_charge_leaves_new_pages_alone(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map(test, mm, 4);

	kt_fill_unique(test, mm, addr, 2, 100);
	lru_add_drain_all();
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_FALSE(test, pte_dirty(kt_pte(mm, addr)));
	kt_refuse(test, mm);
	kt_fill_unique(test, mm, addr + 2 * PAGE_SIZE, 2, 200);
	lru_add_drain_all();
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, TRACKED, 2);
	KUNIT_EXPECT_TRUE(test, pte_dirty(kt_pte(mm, addr + 2 * PAGE_SIZE)));

	kt_kmm(test, mm)->refused_until = jiffies;
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, TRACKED, 4);
	KT_EXPECT_STAT(test, UNSHARED, 4);
	KUNIT_EXPECT_FALSE(test, pte_dirty(kt_pte(mm, addr + 2 * PAGE_SIZE)));
}

/* Pages that were unmapped, or written, are no longer counted as sharing. */
static void ksm_test_charge_forgets_all_the_same(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 4);

	kt_refuse(test, pair.a);
	kt_unmap(test, pair.a, pair.at_a + PAGE_SIZE, 1);
	kt_fill(test, pair.a, pair.at_a + 2 * PAGE_SIZE, 77);
	kt_scan(test, 1);
	KUNIT_EXPECT_EQ(test, pair.a->ksm_merging_pages, 2);
	KT_EXPECT_STAT(test, SHARING, 2);
	KT_EXPECT_STAT(test, SHARED, 4);
}

/* A fork has the KSM pages of its parent: the reverse map gets items for them. */
static void ksm_test_charge_adopts_forks(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 4);
	struct mm_struct *child = kt_fork(test, pair.a);

	KUNIT_ASSERT_EQ(test, kt_register(kt_engine(test), child), 0);
	kt_refuse(test, child);
	kt_scan(test, 1);
	KUNIT_EXPECT_EQ(test, child->ksm_merging_pages, 4);
	KT_EXPECT_STAT(test, SHARING, 8);
}

/* To merge a page makes room, so its item may exceed the limit; to wait does not. */
static void ksm_test_charge_merges_all_the_same(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 4);
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map(test, mm, 8);

	kt_fill_unique(test, mm, addr, 8, 100);
	kt_scan(test, 1);
	kt_refuse(test, mm);
	kt_fill_unique(test, mm, addr, 4, 1);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_EQ(test, mm->ksm_merging_pages, 4);
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, addr, pair.a, pair.at_a));
	KT_EXPECT_STAT(test, UNSHARED, 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&kt_kmm(test, mm)->nr_items), 4);
}

/* A batch of one page, whose list of slots has many, takes more of the budget. */
static void ksm_test_charge_budget_for_lists(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	struct ksm_worker *worker = &kt_engine(test)->worker;
	unsigned int budget = 100;
	unsigned long i;

	for (i = 0; i < 64; i++) {
		kt_map_at(test, mm, SZ_16M + i * PMD_SIZE, 1);
		kt_fill(test, mm, SZ_16M + i * PMD_SIZE, 100 + i);
	}
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, TRACKED, 64);
	KT_EXPECT_STAT(test, CHUNKS, 0);
	kt_fill(test, mm, SZ_16M, 99);
	kt_lock(test);
	worker->kmm = kt_kmm(test, mm);
	KUNIT_EXPECT_EQ(test, ksm_scan_collect(worker, &budget), KSM_SCAN_BATCH);
	KUNIT_EXPECT_EQ(test, worker->nr, 1);
	KUNIT_EXPECT_LE(test, budget, 97);
	ksm_match_batch(worker);
	worker->kmm = NULL;
	kt_unlock(test);
}

static struct kunit_case ksm_test_charge_cases[] = {
	KUNIT_CASE(ksm_test_charge_leaves_new_pages_alone),
	KUNIT_CASE(ksm_test_charge_forgets_all_the_same),
	KUNIT_CASE(ksm_test_charge_adopts_forks),
	KUNIT_CASE(ksm_test_charge_merges_all_the_same),
	KUNIT_CASE(ksm_test_charge_budget_for_lists),
	{}
};
