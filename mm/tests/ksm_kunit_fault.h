/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of KSM: no memory. A scenario is run again and again, the first time
 * with its first slab allocation failing, then with the second, and so on until none
 * is left to fail. So no list of allocation sites has to be kept here.
 *
 * failslab leaves allocations alone that may wait for reclaim, which are all of ours,
 * unless it is told not to. Its switch is in debugfs, and reached through there.
 */

/* A file in failslab's folder has a pointer to what it shows. */
static void *kt_failslab_knob(struct kunit *test, const char *name)
{
	struct dentry *dir = NULL, *file = NULL;
	void *knob = NULL;

	if (IS_ENABLED(CONFIG_FAULT_INJECTION_DEBUG_FS) &&
	    IS_ENABLED(CONFIG_FAILSLAB))
		dir = debugfs_lookup("failslab", NULL);
	if (dir)
		file = debugfs_lookup(name, dir);
	if (file)
		knob = d_inode(file)->i_private;
	dput(file);
	dput(dir);
	if (!knob)
		kunit_skip(test, "needs failslab and its debugfs files");
	return knob;
}

static void kt_failslab_on(struct kunit *test, bool on)
{
	*(bool *)kt_failslab_knob(test, "ignore-gfp-wait") = !on;
	*(unsigned long *)kt_failslab_knob(test, "verbose") = on ? 0 : 2;
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

/* Let this task have @bytes from the slabs, and nothing more; < 0 ends that. */
static void kt_limit(struct kunit *test, int bytes)
{
#ifdef CONFIG_FAULT_INJECTION
	*(unsigned long *)kt_failslab_knob(test, "probability") = bytes < 0 ? 0 : 100;
	*(bool *)kt_failslab_knob(test, "task-filter") = bytes >= 0;
	atomic_set((atomic_t *)kt_failslab_knob(test, "times"), bytes < 0 ? 1 : -1);
	atomic_set((atomic_t *)kt_failslab_knob(test, "space"), max(bytes, 0));
	current->make_it_fail = bytes >= 0;
#endif
}

/**
 * kt_with_each_failing() - run a scenario with each of its allocations failing
 * @test: the test
 * @scenario: gets the number of the allocation that is to fail, which it has to
 *	      kt_arm(); returns what kt_disarm() did
 *
 * Some of them are the allocator's own, or of others that can do without, so that
 * the one that fails need not be noticed.
 *
 * Return: the number of allocations that the scenario makes.
 */
static unsigned int kt_with_each_failing(struct kunit *test,
					 bool (*scenario)(struct kunit *, unsigned int))
{
	unsigned int nth = 1;

	kt_failslab_on(test, true);
	while (nth < 1000 && scenario(test, nth))
		nth++;
	kt_failslab_on(test, false);
	KUNIT_EXPECT_LT(test, nth, 1000);
	return nth - 1;
}

/* An error is to be -ENOMEM, and to have a reason. They are counted. */
static void kt_note(struct kunit *test, int err, bool failed)
{
	struct kt *kt = test->priv;

	if (!err)
		return;
	kt->refusals++;
	KUNIT_EXPECT_EQ(test, err, -ENOMEM);
	KUNIT_EXPECT_TRUE(test, failed);
}

static bool kt_fail_engine(struct kunit *test, unsigned int nth)
{
	struct ksm_engine *engine = kunit_kzalloc(test, sizeof(*engine), GFP_KERNEL);
	bool failed;
	int err;

	if (!engine)
		return false;
	ksm_engine_init(engine, 0);
	kt_arm(nth);
	err = ksm_daemon_set_run(engine, KSM_RUN_MERGE);
	failed = kt_disarm();
	kt_note(test, err, failed);
	KUNIT_EXPECT_EQ(test, engine->run, err ? KSM_RUN_STOP : KSM_RUN_MERGE);
	KUNIT_EXPECT_EQ(test, !engine->shards, !!err);
	ksm_engine_destroy(engine);
	return failed;
}

static void ksm_test_engine_survives_no_memory(struct kunit *test)
{
	struct kt *kt = test->priv;

	kt_with_each_failing(test, kt_fail_engine);
	KUNIT_EXPECT_GE(test, kt->refusals, 1);
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
	kt_note(test, err, failed);
	KUNIT_EXPECT_EQ(test, !kt_kmm(test, mm), !!err);
	KUNIT_EXPECT_EQ(test, atomic_read(&mm->mm_count), err ? 1 : 2);
	if (!err)
		KUNIT_EXPECT_FALSE(test, ksm_registry_exit(&kt->engine, mm));
	return failed;
}

static void ksm_test_registry_survives_no_memory(struct kunit *test)
{
	struct kt *kt = test->priv;

	kt_bare_mm(test);
	kt_with_each_failing(test, kt_fail_add);
	KUNIT_EXPECT_GE(test, kt->refusals, 1);
}

/*
 * A failing node of the xarray is tried again with another kind of allocation. So
 * here memory runs out for good, a little later each time.
 */
static void ksm_test_chunk_survives_no_memory(struct kunit *test)
{
	struct ksm_mm *kmm = kt_kmm(test, kt_mm(test));
	const unsigned long addr = KT_VAST / 2;
	struct ksm_chunk *chunk = NULL;
	struct ksm_candidate *cands;
	int bytes, i;

	cands = kunit_kcalloc(test, PTRS_PER_PTE, sizeof(*cands), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, cands);
	for (i = 0; i < PTRS_PER_PTE; i++)
		cands[i].addr = addr + i * PAGE_SIZE;
	kt_failslab_on(test, true);
	for (bytes = 0; !chunk && bytes < SZ_64K; bytes += 32) {
		kt_limit(test, bytes);
		chunk = ksm_chunk_get(kmm, cands, PTRS_PER_PTE, KSM_CHARGE_TRY);
		kt_limit(test, -1);
		KUNIT_EXPECT_PTR_EQ(test, ksm_chunk_find(kmm, addr), chunk);
		KT_EXPECT_STAT(test, CHUNKS, chunk ? 1 : 0);
	}
	kt_failslab_on(test, false);
	/* Not only the slots, but a node of the xarray has been refused. */
	KUNIT_EXPECT_GT(test, bytes, PTRS_PER_PTE * sizeof(u64) + SZ_512);
	KUNIT_EXPECT_NOT_NULL(test, chunk);
	kt_sight(test, kmm, addr);
}

/* Without any memory nothing is merged, nothing is lost, and the pass ends. */
static void ksm_test_daemon_survives_no_memory(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);
	unsigned long addr = kt_map_filled(test, pair.a, 2, 7);
	unsigned long seqnr = kt_engine(test)->seqnr;
	int i;

	kt_failslab_on(test, true);
	kt_lock(test);
	for (i = 0; i < KT_SETTLE; i++) {
		kt_limit(test, 0);
		ksm_daemon_scan(kt_engine(test), UINT_MAX);
		kt_limit(test, -1);
	}
	kt_unlock(test);
	kt_failslab_on(test, false);
	KUNIT_EXPECT_EQ(test, kt_engine(test)->seqnr, seqnr + KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_all_own(pair.a, addr, 2));
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, pair.b, pair.at_b));
	KT_EXPECT_STAT(test, SHARED, 2);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, addr, pair.a, addr + PAGE_SIZE));
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
	/* Slots, made and packed, nine items, four nodes, a chain. */
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
	KUNIT_CASE(ksm_test_daemon_survives_no_memory),
	KUNIT_CASE(ksm_test_match_survives_no_memory),
	KUNIT_CASE(ksm_test_scan_survives_no_memory),
	{}
};
