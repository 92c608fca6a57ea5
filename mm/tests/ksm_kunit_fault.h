/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of KSM: no memory. A scenario is run again and again, the first time
 * with its first slab allocation failing, then with the second, and so on until none
 * is left to fail. So no list of allocation sites has to be kept here.
 *
 * failslab leaves allocations alone that may wait for reclaim, which are all of ours,
 * unless it is told not to. Its switch is in debugfs, and reached through there.
 */

static bool *kt_failslab_spares_waiters(struct kunit *test)
{
	struct dentry *dir = NULL, *file = NULL;
	bool *spares = NULL;

	if (IS_ENABLED(CONFIG_FAULT_INJECTION_DEBUG_FS) &&
	    IS_ENABLED(CONFIG_FAILSLAB))
		dir = debugfs_lookup("failslab", NULL);
	if (dir)
		file = debugfs_lookup("ignore-gfp-wait", dir);
	if (file)
		spares = d_inode(file)->i_private;
	dput(file);
	dput(dir);
	if (!spares)
		kunit_skip(test, "needs failslab and its debugfs files");
	return spares;
}

/* Make this task's @nth slab allocation from now on fail. */
static void kt_arm(unsigned int nth)
{
#ifdef CONFIG_FAULT_INJECTION
	WRITE_ONCE(current->fail_nth, nth);
#endif
}

/* Return: whether it came to that. */
static bool kt_disarm(void)
{
	bool failed = true;

#ifdef CONFIG_FAULT_INJECTION
	failed = !READ_ONCE(current->fail_nth);
	WRITE_ONCE(current->fail_nth, 0);
#endif
	return failed;
}

/**
 * kt_with_each_failing() - run a scenario with each of its allocations failing
 * @test: the test
 * @scenario: gets the number of the allocation that is to fail, which it has to
 *	      kt_arm(); returns what kt_disarm() did
 *
 * Return: the number of allocations that the scenario makes.
 */
static unsigned int kt_with_each_failing(struct kunit *test,
					 bool (*scenario)(struct kunit *, unsigned int))
{
	bool *spares = kt_failslab_spares_waiters(test);
	bool before = *spares;
	unsigned int nth = 1;

	*spares = false;
	while (nth < 1000 && scenario(test, nth))
		nth++;
	*spares = before;
	KUNIT_EXPECT_LT(test, nth, 1000);
	return nth - 1;
}

static bool kt_fail_engine(struct kunit *test, unsigned int nth)
{
	struct ksm_engine *engine = kunit_kzalloc(test, sizeof(*engine), GFP_KERNEL);
	bool failed;
	int err;

	if (!engine)
		return false;
	kt_arm(nth);
	err = ksm_engine_init(engine, 0);
	failed = kt_disarm();
	KUNIT_EXPECT_EQ(test, err, failed ? -ENOMEM : 0);
	if (!err)
		ksm_engine_destroy(engine);
	return failed;
}

static void ksm_test_engine_survives_no_memory(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, kt_with_each_failing(test, kt_fail_engine), 1);
}

static bool kt_fail_add(struct kunit *test, unsigned int nth)
{
	struct kt *kt = test->priv;
	struct mm_struct *mm = kt->mms[0];
	bool failed;
	int err;

	kt_arm(nth);
	err = kt_register(&kt->engine, mm);
	failed = kt_disarm();
	KUNIT_EXPECT_EQ(test, err, failed ? -ENOMEM : 0);
	KUNIT_EXPECT_EQ(test, !kt_kmm(test, mm), failed);
	KUNIT_EXPECT_EQ(test, atomic_read(&mm->mm_count), failed ? 1 : 2);
	return failed;
}

static void ksm_test_registry_survives_no_memory(struct kunit *test)
{
	kt_bare_mm(test);
	KUNIT_EXPECT_EQ(test, kt_with_each_failing(test, kt_fail_add), 1);
}

static bool kt_fail_chunk(struct kunit *test, unsigned int nth)
{
	struct kt *kt = test->priv;
	struct ksm_mm *kmm = kt_kmm(test, kt->mms[0]);
	struct ksm_chunk *chunk;
	bool failed;

	kt_arm(nth);
	chunk = ksm_chunk_get(kmm, 1UL << 45);
	failed = kt_disarm();
	KUNIT_EXPECT_EQ(test, !chunk, failed);
	KUNIT_EXPECT_PTR_EQ(test, ksm_chunk_find(kmm, 1UL << 45), chunk);
	KT_EXPECT_STAT(test, CHUNKS, !failed);
	if (chunk)
		kt_sight(test, kmm, 1UL << 45);
	return failed;
}

static void ksm_test_chunk_survives_no_memory(struct kunit *test)
{
	kt_mm(test);
	/* The chunk, its slots, and nodes of the xarray for an index so high. */
	KUNIT_EXPECT_GT(test, kt_with_each_failing(test, kt_fail_chunk), 2);
}

/* Merge pages and chain their folios, with one allocation failing on the way. */
static bool kt_fail_merging(struct kunit *test, unsigned int nth)
{
	struct kt *kt = test->priv;
	struct mm_struct *mm = kt->mms[0];
	unsigned long addr = kt_map_filled(test, mm, 8, 7);
	unsigned long own = kt_map_filled(test, mm, 1, 8), i;
	bool failed;

	kt_lock(test);
	kt_arm(nth);
	for (i = 0; i < 3 * KT_SETTLE; i++)
		ksm_daemon_scan(&kt->engine, UINT_MAX);
	failed = kt_disarm();
	kt_unlock(test);

	/* It may have cost a pass or two. */
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, SHARED, 4);
	KT_EXPECT_STAT(test, SHARING, 4);
	KT_EXPECT_STAT(test, CHAINS, 1);
	KT_EXPECT_STAT(test, UNSHARED, 1);
	for (i = 0; i < 8; i++)
		KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, addr + i * PAGE_SIZE, 7));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, own, 8));
	KUNIT_EXPECT_EQ(test, kt_unmerge(test), 0);
	KT_EXPECT_STAT(test, TRACKED, 0);
	kt_unmap(test, mm, addr, 8);
	kt_unmap(test, mm, own, 1);

	ksm_chain_free(kt->engine.worker.spare);
	kt->engine.worker.spare = NULL;
	return failed;
}

static void ksm_test_match_survives_no_memory(struct kunit *test)
{
	unsigned int nr;

	kt_mm(test);
	kt_engine(test)->knobs.max_page_sharing = 2;
	nr = kt_with_each_failing(test, kt_fail_merging);
	/* A chunk with its slots, nine items, four nodes, a chain. */
	KUNIT_EXPECT_GE(test, nr, 2 + 9 + 4 + 1);
}

/* Right after the failure, before anything can have made up for it. */
static bool kt_fail_one_pass(struct kunit *test, unsigned int nth)
{
	struct kt *kt = test->priv;
	struct mm_struct *mm = kt->mms[0];
	unsigned long addr = kt_map_filled(test, mm, 4, 7), i;
	bool failed;

	kt_scan(test, 1);
	kt_lock(test);
	kt_arm(nth);
	ksm_daemon_scan(&kt->engine, UINT_MAX);
	failed = kt_disarm();
	kt_unlock(test);
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, addr + i * PAGE_SIZE, 7));
	KT_EXPECT_STAT(test, TRACKED, 4);
	KUNIT_EXPECT_NULL(test, kt->engine.registry.cursor);
	KUNIT_EXPECT_EQ(test, kt_unmerge(test), 0);
	kt_unmap(test, mm, addr, 4);
	ksm_chain_free(kt->engine.worker.spare);
	kt->engine.worker.spare = NULL;
	return failed;
}

static void ksm_test_scan_survives_no_memory(struct kunit *test)
{
	kt_mm(test);
	/* Four items, a node, a spare chain. */
	KUNIT_EXPECT_GE(test, kt_with_each_failing(test, kt_fail_one_pass), 6);
}

static struct kunit_case ksm_test_fault_cases[] = {
	KUNIT_CASE(ksm_test_engine_survives_no_memory),
	KUNIT_CASE(ksm_test_registry_survives_no_memory),
	KUNIT_CASE(ksm_test_chunk_survives_no_memory),
	KUNIT_CASE(ksm_test_match_survives_no_memory),
	KUNIT_CASE(ksm_test_scan_survives_no_memory),
	{}
};
