/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of KSM: who shares with whom, in which frame, and zero pages only. The
 * policies that go by users and cgroups need processes, and are tested from outside.
 */

static bool kt_no_domains(struct kunit *test)
{
	return xa_empty(&kt_engine(test)->domains.by_id);
}

static int kt_set_cookie(struct kunit *test, struct mm_struct *mm, u64 cookie)
{
	return ksm_cookie_set(kt_engine(test), mm, cookie);
}

static void ksm_test_domain_cookies_part(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);

	KUNIT_EXPECT_TRUE(test, kt_no_domains(test));
	KUNIT_EXPECT_EQ(test, kt_set_cookie(test, pair.b, 1), 0);
	KUNIT_EXPECT_TRUE(test, kt_all_own(pair.b, pair.at_b, 2));
	KUNIT_EXPECT_EQ(test, pair.b->ksm_rmap_items, 0);
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_FALSE(test, kt_shared(pair.a, pair.at_a, pair.b, pair.at_b));
	KT_EXPECT_STAT(test, SHARING, 0);

	KUNIT_EXPECT_EQ(test, kt_set_cookie(test, pair.a, 1), 0);
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, pair.b, pair.at_b));
	KUNIT_EXPECT_FALSE(test, kt_no_domains(test));

	KUNIT_EXPECT_EQ(test, kt_set_cookie(test, pair.a, 0), 0);
	KUNIT_EXPECT_EQ(test, kt_set_cookie(test, pair.b, 0), 0);
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, pair.b, pair.at_b));
	KUNIT_EXPECT_TRUE(test, kt_no_domains(test));
}

/* An mm shares with itself only; and its domain ends with the last trace of it. */
static void ksm_test_domain_of_process(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	unsigned long at_a = kt_map_filled(test, a, 2, 7);
	unsigned long at_b = kt_map_filled(test, b, 2, 7);

	kt_engine(test)->knobs.merge_domains = KSM_POLICY_PROCESS;
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(a, at_a, a, at_a + PAGE_SIZE));
	KUNIT_EXPECT_TRUE(test, kt_shared(b, at_b, b, at_b + PAGE_SIZE));
	KUNIT_EXPECT_FALSE(test, kt_shared(a, at_a, b, at_b));
	KT_EXPECT_STAT(test, SHARED, 2);
	kt_engine(test)->knobs.merge_domains = KSM_POLICY_GLOBAL;
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(a, at_a, b, at_b));
	KUNIT_EXPECT_TRUE(test, kt_no_domains(test));
}

/* A child maps its parent's KSM pages; in another domain it does not keep them. */
static void ksm_test_domain_parts_children(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test), *child;
	unsigned long addr = kt_map_filled(test, mm, 2, 7);

	kt_engine(test)->knobs.merge_domains = KSM_POLICY_PROCESS;
	kt_scan(test, KT_SETTLE);
	child = kt_fork(test, mm);
	KUNIT_EXPECT_EQ(test, kt_register(kt_engine(test), child), 0);
	KUNIT_EXPECT_EQ(test, kt_pfn(child, addr), kt_pfn(mm, addr));
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_NE(test, kt_pfn(child, addr), kt_pfn(mm, addr));
	KUNIT_EXPECT_TRUE(test, kt_shared(child, addr, child, addr + PAGE_SIZE));
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, addr, mm, addr + PAGE_SIZE));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, child, addr, 7));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, addr, 7));
}

/* A child is in the domain that its parent was in when the page tables were copied. */
static void ksm_test_domain_is_forked_with_memory(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test), *child;

	kt_map_filled(test, mm, 1, 7);
	child = kt_bare_mm(test);
	KUNIT_EXPECT_EQ(test, child->ksm_cookie, 0);
	KUNIT_EXPECT_EQ(test, kt_set_cookie(test, mm, 5), 0);
	KUNIT_ASSERT_EQ(test, dup_mmap(child, mm), 0);
	KUNIT_EXPECT_EQ(test, child->ksm_cookie, 5);
}

/* An exec keeps the domain and the offer of everything, unless it gains privileges. */
static void ksm_test_domain_over_exec(struct kunit *test)
{
	struct mm_struct *old = kt_bare_mm(test), *mm = kt_bare_mm(test);
	struct cred cred = *current_cred();

	old->ksm_cookie = 5;
	mm_flags_set(MMF_VM_MERGE_ANY, mm);
	cap_clear(cred.cap_permitted);
	ksm_exec_mmap(mm, old, &cred);
	KUNIT_EXPECT_EQ(test, mm->ksm_cookie, 5);
	KUNIT_EXPECT_TRUE(test, mm_flags_test(MMF_VM_MERGE_ANY, mm));
	cred.egid = KGIDT_INIT(1);
	ksm_exec_mmap(mm, old, &cred);
	KUNIT_EXPECT_NE(test, mm->ksm_cookie, 5);
	KUNIT_EXPECT_NE(test, mm->ksm_cookie, 0);
	KUNIT_EXPECT_FALSE(test, mm_flags_test(MMF_VM_MERGE_ANY, mm));
	old->ksm_cookie = 0;
	ksm_exec_mmap(mm, old, &cred);
	KUNIT_EXPECT_EQ(test, mm->ksm_cookie, 0);
}

/* Copies of what no process owns any more would be charged to nobody. */
static void ksm_test_domain_without_owner(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);
	struct kt *kt = test->priv;
	struct mm_struct *child;

	kt->ownerless = true;
	kt->engine.knobs.merge_domains = KSM_POLICY_USER;
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, pair.b, pair.at_b));
	KT_EXPECT_STAT(test, SHARING, 2);
	kt->engine.knobs.merge_domains = KSM_POLICY_PROCESS;
	child = kt_fork(test, pair.a);
	KUNIT_EXPECT_EQ(test, kt_register(&kt->engine, child), 0);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, child, pair.at_a));
	kt->ownerless = false;
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_FALSE(test, kt_shared(pair.a, pair.at_a, pair.b, pair.at_b));
	KUNIT_EXPECT_FALSE(test, kt_shared(pair.a, pair.at_a, child, pair.at_a));
}

/* The cookie changes after pages were looked up, and before they would be merged. */
static void ksm_test_domain_changes_within_batch(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 1, 1);
	struct ksm_worker *worker = &kt_engine(test)->worker;
	unsigned int budget = UINT_MAX;

	kt_lock(test);
	worker->kmm = kt_kmm(test, mm);
	KUNIT_EXPECT_EQ(test, ksm_scan_collect(worker, &budget), KSM_SCAN_BATCH);
	KUNIT_EXPECT_EQ(test, worker->nr, 1);
	WRITE_ONCE(mm->ksm_cookie, 1);
	ksm_match_batch(worker);
	worker->kmm = NULL;
	kt_unlock(test);
	KUNIT_EXPECT_FALSE(test, kt_shared(mm, addr, pair.a, pair.at_a));
	KT_EXPECT_STAT(test, SHARING, 1);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_FALSE(test, kt_shared(mm, addr, pair.a, pair.at_a));
}

/*
 * The identity has changed, and unmerging fails. What is merged stays so, and is
 * remembered; what waits is not there any more for those of the old domain.
 */
static void ksm_test_domain_change_fails(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	unsigned long at_a = kt_map_filled(test, a, 3, 7), waits = at_a + 2 * PAGE_SIZE;
	unsigned long at_b = kt_map(test, b, 1);

	kt_fill(test, a, waits, 9);
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, SHARING, 1);
	KT_EXPECT_STAT(test, UNSHARED, 1);
	WRITE_ONCE(a->ksm_cookie, 1);
	set_thread_flag(TIF_SIGPENDING);
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, UNSHARED, 0);
	KT_EXPECT_STAT(test, SHARING, 1);
	KUNIT_EXPECT_TRUE(test, kt_shared(a, at_a, a, at_a + PAGE_SIZE));
	clear_thread_flag(TIF_SIGPENDING);
	kt_fill(test, b, at_b, 9);
	set_thread_flag(TIF_SIGPENDING);
	kt_scan(test, KT_SETTLE);
	clear_thread_flag(TIF_SIGPENDING);
	KUNIT_EXPECT_FALSE(test, kt_shared(a, waits, b, at_b));
	KT_EXPECT_STAT(test, SHARING, 1);
	KT_EXPECT_STAT(test, UNSHARED, 1);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(a, at_a, a, at_a + PAGE_SIZE));
	KUNIT_EXPECT_FALSE(test, kt_shared(a, waits, b, at_b));
	KT_EXPECT_STAT(test, UNSHARED, 2);
}

/* Nor is it merged when the change has not been noticed yet. */
static void ksm_test_domain_change_not_noticed(struct kunit *test)
{
	struct mm_struct *b = kt_mm(test), *a = kt_mm(test);
	unsigned long at_a = kt_map_filled(test, a, 1, 9), at_b = kt_map(test, b, 1);

	kt_scan(test, KT_SETTLE);
	kt_fill(test, b, at_b, 9);
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, UNSHARED, 1);
	WRITE_ONCE(a->ksm_cookie, 1);
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, SHARING, 0);
	KUNIT_EXPECT_TRUE(test, kt_all_own(a, at_a, 1));
	KUNIT_EXPECT_TRUE(test, kt_all_own(b, at_b, 1));
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, SHARING, 0);
	KT_EXPECT_STAT(test, UNSHARED, 2);
}

/* Cookies, policy and content change all the time: nothing is ever shared or lost. */
static void ksm_test_domain_changes_at_random(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct mm_struct *mms[4];
	unsigned long addrs[4];
	unsigned int i, j, step;

	for (i = 0; i < 4; i++) {
		mms[i] = kt_mm(test);
		addrs[i] = kt_map_filled(test, mms[i], 3, 7);
	}
	for (step = 0; step < 40; step++) {
		i = get_random_u32_below(4);
		KUNIT_EXPECT_EQ(test, kt_set_cookie(test, mms[i], get_random_u32_below(3)), 0);
		if (!get_random_u32_below(8))
			engine->knobs.merge_domains ^= KSM_POLICY_PROCESS;
		kt_fill(test, mms[i], addrs[i], 7 + get_random_u32_below(2));
		kt_scan(test, 1 + get_random_u32_below(KT_SETTLE));
		for (i = 0; i < 4; i++)
			for (j = 0; j < i; j++)
				if (kt_shared(mms[i], addrs[i] + PAGE_SIZE,
					      mms[j], addrs[j] + PAGE_SIZE))
					KUNIT_EXPECT_EQ(test, mms[i]->ksm_cookie,
							mms[j]->ksm_cookie);
	}
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_TRUE(test, kt_holds(test, mms[i], addrs[i] + PAGE_SIZE, 7));
}

/* Neither of the two frames that there were. */
static void ksm_test_frames_are_fresh(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	unsigned long at_a = kt_map_filled(test, a, 1, 7);
	unsigned long at_b = kt_map_filled(test, b, 1, 7);
	unsigned long pfn_a = kt_pfn(a, at_a), pfn_b = kt_pfn(b, at_b);

	kt_engine(test)->knobs.fresh_frames = true;
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(a, at_a, b, at_b));
	KUNIT_EXPECT_NE(test, kt_pfn(a, at_a), pfn_a);
	KUNIT_EXPECT_NE(test, kt_pfn(a, at_a), pfn_b);
	KUNIT_EXPECT_EQ(test, kt_mapcount(a, at_a), 2);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, a, at_a, 7));
	kt_fill(test, a, at_a, 8);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, a, at_a, 8));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, b, at_b, 7));
}

/* What has been taken is not in the pool any more. */
static void ksm_test_frames_are_taken_once(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct page *taken[64];
	unsigned int i, j;

	kt_lock(test);
	for (i = 0; i < 64; i++) {
		taken[i] = ksm_frames_take(engine, first_memory_node);
		KUNIT_EXPECT_NOT_NULL(test, taken[i]);
		ksm_frames_stir(engine, first_memory_node);
		for (j = 0; j < i; j++)
			KUNIT_EXPECT_PTR_NE(test, taken[i], taken[j]);
	}
	for (i = 0; i < 64; i++)
		if (taken[i])
			__free_page(taken[i]);
	ksm_frames_drain(engine);
	KUNIT_EXPECT_NULL(test, engine->pools[first_memory_node]);
	kt_unlock(test);
}

static bool kt_is_pool_frame(struct folio *folio)
{
	bool is = false;

	if (!folio_trylock(folio))
		return false;
	if (folio_test_lru(folio) && !folio_test_anon(folio) && folio->mapping)
		is = folio->mapping->host->i_sb->s_magic == KSM_FRAMES_MAGIC;
	folio_unlock(folio);
	return is;
}

/* The next frame of a pool from @pfn on, with a reference; NULL if there is none. */
static struct page *kt_pool_frame(unsigned long *pfn)
{
	struct folio *folio;
	struct page *page;

	while (*pfn < pgdat_end_pfn(NODE_DATA(first_memory_node))) {
		page = pfn_to_online_page(*pfn);
		(*pfn)++;
		folio = page && !PageCompound(page) ? page_folio(page) : NULL;
		if (!folio || !folio_try_get(folio))
			continue;
		if (kt_is_pool_frame(folio))
			return page;
		folio_put(folio);
	}
	return NULL;
}

/*
 * Frames in the pool move when somebody wants their memory. What they move to was chosen:
 * it is given back, and others are drawn.
 */
static void ksm_test_frames_migrate(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	u8 *chosen = kvzalloc(pgdat_end_pfn(NODE_DATA(first_memory_node)), GFP_KERNEL);
	unsigned int i, nr = 0, left, known = 0;
	unsigned long pfn = 0;
	struct page *page;
	LIST_HEAD(folios);

	KUNIT_ASSERT_NOT_NULL(test, chosen);
	kt_lock(test);
	ksm_frames_prepare(engine);
	lru_add_drain_all();
	while ((page = kt_pool_frame(&pfn))) {
		if (folio_isolate_lru(page_folio(page))) {
			list_add(&page->lru, &folios);
			nr++;
		}
		put_page(page);
	}
	KUNIT_EXPECT_GT(test, nr, 2048);
	migrate_pages(&folios, kt_new_folio, NULL, 0, MIGRATE_SYNC, MR_MEMORY_HOTPLUG, NULL);
	left = list_count_nodes(&folios);
	KUNIT_EXPECT_EQ(test, left, 0);
	putback_movable_pages(&folios);
	lru_add_drain_all();
	for (pfn = 0; (page = kt_pool_frame(&pfn)); put_page(page))
		chosen[page_to_pfn(page)] = true;
	for (i = 0, nr = 0; i < 512 && nr < 64; i++) {
		page = ksm_frames_take(engine, first_memory_node);
		if (!page)
			continue;
		known += chosen[page_to_pfn(page)];
		nr++;
		__free_page(page);
	}
	KUNIT_EXPECT_EQ(test, nr, 64);
	KUNIT_EXPECT_LT(test, known, 32);
	ksm_frames_drain(engine);
	kt_unlock(test);
	kvfree(chosen);
}

/* A frame that was of no use is in the pool again, and can be taken like any other. */
static void ksm_test_frames_are_put_back(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	unsigned long pfn = 0;
	bool there = false;
	struct page *page, *frame;

	kt_lock(test);
	ksm_frames_prepare(engine);
	frame = ksm_frames_take(engine, first_memory_node);
	KUNIT_EXPECT_NOT_NULL(test, frame);
	if (frame)
		ksm_frames_put(engine, frame);
	lru_add_drain_all();
	for (; (page = kt_pool_frame(&pfn)); put_page(page))
		there |= page == frame;
	KUNIT_EXPECT_TRUE(test, there);
	ksm_frames_drain(engine);
	kt_unlock(test);
}

/* The first @nr places of a pool, with what is there; all are locked, or none any more. */
static void kt_lock_places(struct ksm_engine *engine, struct folio **folios,
			   unsigned int nr)
{
	unsigned long pfn = 0;
	struct page *page;

	while ((page = kt_pool_frame(&pfn))) {
		struct folio *folio = page_folio(page);

		if (folio->index < nr && !folios[folio->index] && folio_trylock(folio))
			folios[folio->index] = folio;
		else
			folio_put(folio);
	}
}

/* Somebody is busy with a few places for long. Only they are not to be had meanwhile. */
static void ksm_test_frames_are_busy(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct folio *busy[64] = { };
	unsigned int i, nr = 0, failed = 0;
	struct page *page;

	kt_lock(test);
	ksm_frames_prepare(engine);
	lru_add_drain_all();
	kt_lock_places(engine, busy, 64);
	for (i = 0; i < 8192; i++) {
		page = ksm_frames_take(engine, first_memory_node);
		failed += !page;
		if (page)
			__free_page(page);
		ksm_frames_stir(engine, first_memory_node);
		cond_resched();
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	for (i = 0; i < 64; i++) {
		nr += !!busy[i];
		if (!busy[i])
			continue;
		KUNIT_EXPECT_NOT_NULL(test, busy[i]->mapping);
		folio_unlock(busy[i]);
		folio_put(busy[i]);
	}
	KUNIT_EXPECT_EQ(test, nr, 64);
	ksm_frames_drain(engine);
	kt_unlock(test);
}

#ifdef CONFIG_MEMORY_FAILURE
static void kt_mend(struct page *page)
{
	ClearPageHWPoison(page);
	if (!page_count(page)) {
		set_page_refcounted(page);
		__free_page(page);
	}
}

/* A frame whose memory has failed, in the pool or before, is never handed out. */
static void ksm_test_frames_are_whole(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct page **broken = kunit_kcalloc(test, 4096, sizeof(*broken), GFP_KERNEL);
	unsigned int nr = 0, handed_out = 0, i;
	struct page *page, *taken[64];
	unsigned long pfn = 0;

	KUNIT_ASSERT_NOT_NULL(test, broken);
	kt_lock(test);
	ksm_frames_prepare(engine);
	lru_add_drain_all();
	for (i = 0; nr < 4096 && (page = kt_pool_frame(&pfn)); i++) {
		if (i % 2) {
			SetPageHWPoison(page);
			broken[nr++] = page;
		}
		put_page(page);
	}
	KUNIT_EXPECT_GT(test, nr, 1024);
	for (i = 0; i < 64; i++) {
		taken[i] = ksm_frames_take(engine, first_memory_node);
		handed_out += taken[i] && PageHWPoison(taken[i]);
	}
	KUNIT_EXPECT_EQ(test, handed_out, 0);
	for (i = 0; i < 64; i++)
		if (taken[i])
			__free_page(taken[i]);
	ksm_frames_drain(engine);
	for (i = 0; i < nr; i++)
		kt_mend(broken[i]);
	kt_unlock(test);
}
#endif

/* Drawn anywhere: no two are the same, and they are not what was freed last. */
static void ksm_test_frames_are_drawn(struct kunit *test)
{
	struct page *drawn[2][KSM_DRAW_FRAMES];
	unsigned int nr[2], i, j;

	for (i = 0; i < 2; i++) {
		nr[i] = ksm_draw_frames(first_memory_node, drawn[i]);
		KUNIT_EXPECT_GT(test, nr[i], 0);
		KUNIT_EXPECT_LE(test, nr[i], KSM_DRAW_FRAMES);
		for (j = 0; j < nr[i]; j++) {
			KUNIT_EXPECT_EQ(test, page_count(drawn[i][j]), 1);
			KUNIT_EXPECT_EQ(test, page_to_nid(drawn[i][j]), first_memory_node);
		}
	}
	for (i = 0; i < nr[0]; i++)
		for (j = 0; j < nr[1]; j++)
			KUNIT_EXPECT_PTR_NE(test, drawn[0][i], drawn[1][j]);
	for (i = 0; i < 2; i++)
		for (j = 0; j < nr[i]; j++)
			__free_page(drawn[i][j]);
}

#define KT_WHOLE	64
#define KT_PARTS	256

/*
 * Windows of memory, all of whose frames are free in some, and every other one in the
 * rest. @kind, by window, tells which are which. Return: false if there is no memory.
 */
static bool kt_free_windows(u8 *kind, struct page **windows)
{
	const gfp_t gfp = GFP_HIGHUSER_MOVABLE | __GFP_THISNODE | __GFP_NOWARN;
	unsigned int i, j;

	for (i = 0; i < KT_WHOLE + KT_PARTS; i++) {
		windows[i] = alloc_pages_node(first_memory_node, gfp, KSM_DRAW_ORDER);
		if (!windows[i])
			return false;
		split_page(windows[i], KSM_DRAW_ORDER);
	}
	for (i = 0; i < KT_WHOLE + KT_PARTS; i++) {
		kind[page_to_pfn(windows[i]) >> KSM_DRAW_ORDER] = i < KT_WHOLE ? 1 : 2;
		for (j = 0; j < KSM_DRAW_FRAMES; j += i < KT_WHOLE ? 1 : 2)
			__free_page(windows[i] + j);
		if (i < KT_WHOLE)
			windows[i] = NULL;
	}
	drain_all_pages(NULL);
	return true;
}

static void kt_free_rest(struct page **windows)
{
	unsigned int i, j;

	for (i = KT_WHOLE; i < KT_WHOLE + KT_PARTS && windows[i]; i++)
		for (j = 1; j < KSM_DRAW_FRAMES; j += 2)
			__free_page(windows[i] + j);
}

/*
 * Each free frame is as likely as any other, also if those around it are not free. There
 * are twice as many of those here as of the others.
 */
static void ksm_test_frames_are_drawn_alike(struct kunit *test)
{
	unsigned long end = pgdat_end_pfn(NODE_DATA(first_memory_node));
	struct page **windows = kunit_kcalloc(test, KT_WHOLE + KT_PARTS, sizeof(*windows),
					      GFP_KERNEL);
	u8 *kind = kvzalloc(end / KSM_DRAW_FRAMES + 1, GFP_KERNEL);
	unsigned long drawn[3] = { };
	struct page *frames[KSM_DRAW_FRAMES];
	unsigned int nr;
	unsigned long i;

	KUNIT_ASSERT_NOT_NULL(test, windows);
	KUNIT_ASSERT_NOT_NULL(test, kind);
	KUNIT_ASSERT_TRUE(test, kt_free_windows(kind, windows));
	for (i = 0; i < end / KSM_DRAW_FRAMES; i++) {
		nr = ksm_draw_frames(first_memory_node, frames);
		while (nr--) {
			drawn[kind[page_to_pfn(frames[nr]) >> KSM_DRAW_ORDER]]++;
			__free_page(frames[nr]);
		}
		cond_resched();
	}
	kunit_info(test, "%lu of whole windows, %lu of others", drawn[1], drawn[2]);
	KUNIT_EXPECT_GT(test, drawn[1], 0);
	KUNIT_EXPECT_GT(test, drawn[2], drawn[1]);
	kt_free_rest(windows);
	kvfree(kind);
}

/* Zero pages are merged at first sight, no others are, and of nothing is there a record. */
static void ksm_test_zero_only(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long zeroes = kt_map_filled(test, mm, 2, 0);
	unsigned long dups = kt_map_filled(test, mm, 2, 7);

	kt_engine(test)->knobs.zero_pages_only = true;
	kt_scan(test, 1);
	KUNIT_EXPECT_EQ(test, mm_ksm_zero_pages(mm), 2);
	KUNIT_EXPECT_TRUE(test, kt_all_own(mm, dups, 2));
	KT_EXPECT_STAT(test, TRACKED, 0);
	KT_EXPECT_STAT(test, CHUNKS, 0);
	kt_fill(test, mm, zeroes, 8);
	KUNIT_EXPECT_EQ(test, mm_ksm_zero_pages(mm), 1);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, zeroes, 8));
	KT_EXPECT_STAT(test, SHARED, 0);
}

static struct kunit_case ksm_test_domain_cases[] = {
	KUNIT_CASE(ksm_test_domain_cookies_part),
	KUNIT_CASE(ksm_test_domain_of_process),
	KUNIT_CASE(ksm_test_domain_parts_children),
	KUNIT_CASE(ksm_test_domain_is_forked_with_memory),
	KUNIT_CASE(ksm_test_domain_over_exec),
	KUNIT_CASE(ksm_test_domain_without_owner),
	KUNIT_CASE(ksm_test_domain_changes_within_batch),
	KUNIT_CASE(ksm_test_domain_change_fails),
	KUNIT_CASE(ksm_test_domain_change_not_noticed),
	KUNIT_CASE(ksm_test_domain_changes_at_random),
	KUNIT_CASE(ksm_test_frames_are_fresh),
	KUNIT_CASE(ksm_test_frames_are_taken_once),
	KUNIT_CASE(ksm_test_frames_migrate),
	KUNIT_CASE(ksm_test_frames_are_put_back),
	KUNIT_CASE(ksm_test_frames_are_busy),
#ifdef CONFIG_MEMORY_FAILURE
	KUNIT_CASE(ksm_test_frames_are_whole),
#endif
	KUNIT_CASE(ksm_test_frames_are_drawn),
	KUNIT_CASE(ksm_test_frames_are_drawn_alike),
	KUNIT_CASE(ksm_test_zero_only),
	{}
};
