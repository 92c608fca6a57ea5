/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of KSM: page tables and those who walk them. merge.c is tested by
 * itself; scan.c, unmerge.c, rmap.c and daemon.c on memory that the engine has merged;
 * debug.c on what was broken for it.
 */

/* Two offered areas of @nr equal pages, in two mms, merged. */
struct kt_pair {
	struct mm_struct *a;
	struct mm_struct *b;
	unsigned long at_a;
	unsigned long at_b;
};

static struct kt_pair kt_merged_pair(struct kunit *test, unsigned long nr)
{
	struct kt_pair pair = { .a = kt_mm(test), .b = kt_mm(test) };
	unsigned long i;

	pair.at_a = kt_map(test, pair.a, nr);
	pair.at_b = kt_map(test, pair.b, nr);
	for (i = 0; i < nr; i++) {
		kt_fill(test, pair.a, pair.at_a + i * PAGE_SIZE, i + 1);
		kt_fill(test, pair.b, pair.at_b + i * PAGE_SIZE, i + 1);
	}
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, SHARED, nr);
	KT_EXPECT_STAT(test, SHARING, nr);
	for (i = 0; i < nr; i++)
		KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a + i * PAGE_SIZE,
						  pair.b, pair.at_b + i * PAGE_SIZE));
	return pair;
}

/* merge.c */

/* The two halves of a merge, for one page. */
static int kt_freeze(struct mm_struct *mm, struct ksm_merge *merge)
{
	struct folio *folio = page_folio(merge->page);

	lru_add_drain_all();
	merge->vma = ksm_vma_hold(mm, merge->addr);
	if (!merge->vma)
		return -EFAULT;
	folio_lock(folio);
	ksm_merge_freeze(merge, 1);
	folio_unlock(folio);
	ksm_vma_release(merge->vma);
	return merge->err;
}

static int kt_replace(struct mm_struct *mm, struct ksm_merge *merge)
{
	struct folio *folio = page_folio(merge->page);

	merge->vma = ksm_vma_hold(mm, merge->addr);
	if (!merge->vma)
		return -EFAULT;
	folio_lock(folio);
	ksm_merge_replace(merge, 1);
	folio_unlock(folio);
	ksm_vma_release(merge->vma);
	return merge->err;
}

static int kt_break(struct mm_struct *mm, unsigned long addr, unsigned long nr)
{
	struct vm_area_struct *vma;
	int err = -ENXIO;

	mmap_read_lock(mm);
	vma = vma_lookup(mm, addr);
	if (vma)
		err = ksm_merge_break(vma, addr, addr + nr * PAGE_SIZE, 0);
	mmap_read_unlock(mm);
	return err;
}

static int kt_try_freeze(struct kunit *test, struct mm_struct *mm, unsigned long addr,
			 struct folio *folio)
{
	struct ksm_merge merge = { .addr = addr, .page = folio_page(folio, 0) };
	int err = kt_freeze(mm, &merge);

	KUNIT_EXPECT_FALSE(test, merge.taken);
	return err;
}

/* A page that is not there, or in use, keeps its PTE as it was. */
static void ksm_test_merge_backs_out(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 2, 7);
	struct folio *folio = kt_get_folio(test, mm, addr);
	pte_t pte = kt_pte(mm, addr);
	pte_t next = kt_pte(mm, addr + PAGE_SIZE);

	KUNIT_EXPECT_EQ(test, kt_try_freeze(test, mm, addr + PAGE_SIZE, folio), -EFAULT);
	KUNIT_EXPECT_EQ(test, kt_try_freeze(test, mm, addr + SZ_1G, folio), -EFAULT);
	folio_get(folio);
	KUNIT_EXPECT_EQ(test, kt_try_freeze(test, mm, addr, folio), -EBUSY);
	folio_put(folio);
	KUNIT_EXPECT_EQ(test, pte_val(pte), pte_val(kt_pte(mm, addr)));
	KUNIT_EXPECT_EQ(test, pte_val(next), pte_val(kt_pte(mm, addr + PAGE_SIZE)));
	KUNIT_EXPECT_TRUE(test, PageAnonExclusive(folio_page(folio, 0)));
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 2);
	folio_put(folio);
}

/* Who writes to a page that is frozen, and was compared, keeps what he wrote. */
static void ksm_test_merge_leaves_what_was_written(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 1, 0);
	struct folio *folio = kt_get_folio(test, mm, addr);
	struct ksm_merge merge = { .addr = addr, .page = folio_page(folio, 0) };

	KUNIT_EXPECT_EQ(test, kt_freeze(mm, &merge), 0);
	kt_fill(test, mm, addr, 8);
	KUNIT_EXPECT_EQ(test, kt_replace(mm, &merge), -EFAULT);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, addr, 8));
	KUNIT_EXPECT_FALSE(test, is_ksm_zero_pte(kt_pte(mm, addr)));
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	folio_put(folio);
}

static void ksm_test_merge_maps_zero_page(struct kunit *test)
{
	long zero_pages = atomic_long_read(&ksm_zero_pages);
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 2, 0);
	unsigned long rss = get_mm_counter_sum(mm, MM_ANONPAGES);
	struct folio *folio = kt_get_folio(test, mm, addr);
	struct ksm_merge merge = { .addr = addr, .page = folio_page(folio, 0) };

	KUNIT_EXPECT_EQ(test, kt_freeze(mm, &merge), 0);
	KUNIT_EXPECT_EQ(test, kt_replace(mm, &merge), 0);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	KUNIT_EXPECT_FALSE(test, folio_mapped(folio));
	folio_put(folio);
	KUNIT_EXPECT_TRUE(test, is_ksm_zero_pte(kt_pte(mm, addr)));
	KUNIT_EXPECT_FALSE(test, pte_write(kt_pte(mm, addr)));
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(mm, MM_ANONPAGES), rss - 1);
	KUNIT_EXPECT_EQ(test, mm_ksm_zero_pages(mm), 1);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&ksm_zero_pages), zero_pages + 1);

	KUNIT_EXPECT_EQ(test, kt_break(mm, addr, 2), 0);
	KUNIT_EXPECT_FALSE(test, is_ksm_zero_pte(kt_pte(mm, addr)));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, addr, 0));
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(mm, MM_ANONPAGES), rss);
	KUNIT_EXPECT_EQ(test, mm_ksm_zero_pages(mm), 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&ksm_zero_pages), zero_pages);
}

static void ksm_test_merge_freeze_ends_writing(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 1, 7);
	struct folio *folio = kt_get_folio(test, mm, addr);
	struct ksm_merge merge = { .addr = addr, .page = folio_page(folio, 0) };

	KUNIT_EXPECT_EQ(test, kt_freeze(mm, &merge), 0);
	KUNIT_EXPECT_FALSE(test, pte_write(kt_pte(mm, addr)));
	KUNIT_EXPECT_FALSE(test, PageAnonExclusive(folio_page(folio, 0)));
	KUNIT_EXPECT_TRUE(test, folio_test_dirty(folio));

	/* Our reference makes the write copy the page. */
	kt_fill(test, mm, addr, 8);
	KUNIT_EXPECT_NE(test, kt_pfn(mm, addr), folio_pfn(folio));
	KUNIT_EXPECT_EQ(test, *(u64 *)folio_address(folio), 7);
	folio_put(folio);
}

/* Can the VMA be held? If so, and before and after, its mm has one user more or less. */
static bool kt_can_hold(struct kunit *test, struct mm_struct *mm, unsigned long addr)
{
	int users = atomic_read(&mm->mm_users);
	struct vm_area_struct *vma = ksm_vma_hold(mm, addr);

	KUNIT_EXPECT_EQ(test, atomic_read(&mm->mm_users), users + !!vma);
	if (vma)
		ksm_vma_release(vma);
	KUNIT_EXPECT_EQ(test, atomic_read(&mm->mm_users), users);
	return vma;
}

static void ksm_test_vma_hold_asks_for_the_offer(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 1, 7);

	KUNIT_EXPECT_TRUE(test, kt_can_hold(test, mm, addr));
	KUNIT_EXPECT_FALSE(test, kt_can_hold(test, mm, addr - PAGE_SIZE));
	KUNIT_EXPECT_FALSE(test, kt_can_hold(test, mm, addr + PAGE_SIZE));
	KUNIT_EXPECT_FALSE(test, kt_can_hold(test, mm, addr + SZ_1G));
	kt_offer(mm, addr, false);
	KUNIT_EXPECT_FALSE(test, kt_can_hold(test, mm, addr));
	kt_offer(mm, addr, true);
	KUNIT_EXPECT_TRUE(test, kt_can_hold(test, mm, addr));
}

static void ksm_test_merge_break_keeps_to_range(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 5);
	unsigned long i;

	KUNIT_EXPECT_EQ(test, kt_break(pair.a, pair.at_a + PAGE_SIZE, 3), 0);
	for (i = 0; i < 5; i++) {
		KUNIT_EXPECT_EQ(test, kt_is_ksm(pair.a, pair.at_a + i * PAGE_SIZE),
				i == 0 || i == 4);
		KUNIT_EXPECT_TRUE(test, kt_is_ksm(pair.b,
						  pair.at_b + i * PAGE_SIZE));
		KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a,
						 pair.at_a + i * PAGE_SIZE, i + 1));
	}
}

/* scan.c */

/* Three pages over the border of two page tables, and holes around them. */
static void ksm_test_scan_odd_area(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map(test, mm, 3 * PTRS_PER_PTE);
	unsigned long at = ALIGN(addr, PMD_SIZE) + PMD_SIZE - PAGE_SIZE;

	kt_fill_all(test, mm, at, 3, 7);
	kt_fill(test, mm, addr, 8);
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, SCANNED, 4);
	KT_EXPECT_STAT(test, TRACKED, 4);
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, SHARED, 1);
	KT_EXPECT_STAT(test, SHARING, 2);
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, at, mm, at + 2 * PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, kt_pfn(mm, at + 3 * PAGE_SIZE), 0);
}

static void ksm_test_scan_leaves_out_what_is_not_offered(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long yes = kt_map_filled(test, mm, 2, 7);
	unsigned long no = kt_map_filled(test, mm, 2, 7);

	kt_offer(mm, no, false);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, yes, mm, yes + PAGE_SIZE));
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(mm, no));
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(mm, no + PAGE_SIZE));
}

static void kt_fill_unique(struct kunit *test, struct mm_struct *mm, unsigned long addr,
			   unsigned long nr, u64 first)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		kt_fill(test, mm, addr + i * PAGE_SIZE, first + i);
}

/* A budget is kept; and with one of 1 the scan still gets everywhere. */
static void ksm_test_scan_keeps_to_budget(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	unsigned long at_a = kt_map_filled(test, a, 5, 7);
	unsigned long at_b = kt_map_filled(test, b, 5, 7);
	long seen, before;
	int i;

	kt_scan_pages(test, 0);
	KT_EXPECT_STAT(test, SCANNED, 0);
	kt_scan_pages(test, 3);
	KT_EXPECT_STAT(test, SCANNED, 3);
	KUNIT_EXPECT_EQ(test, engine->seqnr, 0);
	for (i = 0; i < 200; i++) {
		/* What was written, and is like no other, has to be read. */
		kt_fill_unique(test, a, at_a, 5, 1000 + 10 * i);
		kt_fill_unique(test, b, at_b, 5, 1005 + 10 * i);
		before = ksm_stat_read(engine, KSM_STAT_SCANNED);
		kt_scan_pages(test, 1);
		seen = ksm_stat_read(engine, KSM_STAT_SCANNED) - before;
		KUNIT_EXPECT_GE(test, seen, 0);
		KUNIT_EXPECT_LE(test, seen, 1);
	}
	KUNIT_EXPECT_GE(test, engine->seqnr, 200 / 20);

	kt_fill_all(test, a, at_a, 5, 7);
	kt_fill_all(test, b, at_b, 5, 7);
	kt_scan(test, 3 * KT_SETTLE);
	for (i = 0; i < 5; i++)
		KUNIT_EXPECT_TRUE(test, kt_shared(a, at_a, b, at_b + i * PAGE_SIZE));
	KT_EXPECT_STAT(test, SHARING, 9);
}

/* When everything is about to be unmerged, the scan is over. */
static void ksm_test_scan_gives_way(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct mm_struct *mm = kt_mm(test);

	kt_map_filled(test, mm, 5, 7);
	kt_scan_pages(test, 2);
	atomic_inc(&engine->unmergers);
	kt_scan_pages(test, 100);
	KT_EXPECT_STAT(test, SCANNED, 2);
	atomic_dec(&engine->unmergers);
	kt_scan_pages(test, 100);
	KT_EXPECT_STAT(test, SCANNED, 5);
}

/* What is unmapped is forgotten in the next pass, wherever the cursor is. */
static void ksm_test_scan_forgets_the_unmapped(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 8);

	kt_scan_pages(test, 3);
	kt_unmap(test, pair.a, pair.at_a + PAGE_SIZE, 4);
	kt_scan(test, 2);
	KT_EXPECT_STAT(test, SHARED, 8);
	KT_EXPECT_STAT(test, SHARING, 4);
	KT_EXPECT_STAT(test, TRACKED, 12);
	KUNIT_EXPECT_EQ(test, pair.a->ksm_merging_pages, 4);
	kt_unmap(test, pair.b, pair.at_b, 8);
	kt_scan(test, 2);
	KT_EXPECT_STAT(test, SHARED, 4);
	KT_EXPECT_STAT(test, SHARING, 0);
	KT_EXPECT_STAT(test, TRACKED, 4);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a, pair.at_a, 1));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a, pair.at_a + 7 * PAGE_SIZE, 8));
}

static void ksm_test_scan_forgets_a_far_area(struct kunit *test)
{
	const unsigned long far = KT_VAST / 1024;
	struct mm_struct *mm = kt_mm(test);
	unsigned long near = kt_map_filled(test, mm, 2, 7);

	if (far + SZ_1G > mm->task_size)
		kunit_skip(test, "address space too small");
	kt_map_at(test, mm, far, 2);
	kt_fill_all(test, mm, far, 2, 7);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, near, mm, far + PAGE_SIZE));
	KT_EXPECT_STAT(test, TRACKED, 4);
	kt_unmap(test, mm, far, 2);
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, TRACKED, 2);
	KT_EXPECT_STAT(test, SHARING, 1);
}

/* A process exits in the middle of being scanned, with merged pages. */
static void ksm_test_scan_forgets_the_exiting(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 8);

	/* Merged pages cost next to nothing; these have to be read. */
	kt_map_filled(test, pair.a, 8, 99);
	kt_scan_pages(test, 3);
	KUNIT_EXPECT_PTR_EQ(test, kt_cursor(test), pair.a);
	kt_exit_mm(test, pair.a);
	kt_scan(test, 2);
	KT_EXPECT_STAT(test, SHARED, 8);
	KT_EXPECT_STAT(test, SHARING, 0);
	KT_EXPECT_STAT(test, TRACKED, 8);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.b, pair.at_b, 1));
	kt_exit_mm(test, pair.b);
	kt_scan(test, 2);
	KT_EXPECT_STAT(test, SHARED, 0);
	KUNIT_EXPECT_TRUE(test, ksm_registry_empty(kt_engine(test)));
}

/* Nothing offered any more: the mm is forgotten, and the next one's turn is not. */
static void ksm_test_scan_forgets_the_withdrawn(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	unsigned long at_a = kt_map_filled(test, a, 2, 7);

	kt_map_filled(test, b, 3, 7);
	kt_offer(a, at_a, false);
	kt_scan(test, 1);
	KUNIT_EXPECT_NULL(test, kt_kmm(test, a));
	KUNIT_EXPECT_NOT_NULL(test, kt_kmm(test, b));
	KT_EXPECT_STAT(test, SCANNED, 3);
}

/* As before, but by its exit, with the cursor in the midst of it. */
static void ksm_test_scan_goes_on_after_an_exit(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);

	kt_map_filled(test, a, 8, 7);
	kt_map_at(test, b, SZ_16M, 3);
	kt_fill_all(test, b, SZ_16M, 3, 7);
	kt_scan_pages(test, 3);
	KUNIT_EXPECT_PTR_EQ(test, kt_cursor(test), a);
	kt_exit_mm(test, a);
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, SCANNED, 6);
}

/* Who comes after somebody huge need not wait for the end of that one. */
static void ksm_test_scan_takes_turns(struct kunit *test)
{
	const unsigned int turn = 1024, huge = 2 * turn + 100;
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);

	kt_map_filled(test, a, huge, 1);
	kt_map_filled(test, b, 3, 1);
	kt_scan_pages(test, turn / 2);
	KUNIT_EXPECT_EQ(test, b->ksm_rmap_items, 0);
	kt_scan_pages(test, turn);
	KUNIT_EXPECT_PTR_EQ(test, kt_cursor(test), a);
	KUNIT_EXPECT_EQ(test, b->ksm_rmap_items, 3);
	KUNIT_EXPECT_LT(test, a->ksm_rmap_items, huge);
	KUNIT_EXPECT_EQ(test, kt_engine(test)->seqnr, 0);

	/* Nothing is left out, and nothing is visited twice. */
	kt_scan(test, 1);
	KUNIT_EXPECT_EQ(test, a->ksm_rmap_items, huge);
	KUNIT_EXPECT_EQ(test, kt_engine(test)->seqnr, 1);
	KT_EXPECT_STAT(test, SCANNED, huge + 3);
}

/* In front of the scan there is always something new, and behind it nothing is left. */
static void ksm_test_scan_ends_before_a_runner(struct kunit *test)
{
	const unsigned long nr = 400, size = nr * PAGE_SIZE;
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	struct ksm_engine *engine = kt_engine(test);
	unsigned long addr = SZ_16M, end;

	kt_map_filled(test, b, 3, 99);
	kt_map_at(test, a, addr, nr);
	kt_fill_all(test, a, addr, nr, 1);
	for (end = addr + 40 * size; addr < end && !engine->seqnr; addr += size) {
		kt_map_at(test, a, addr + size, nr);
		kt_fill_all(test, a, addr + size, nr, 1);
		kt_scan_pages(test, nr);
		kt_unmap(test, a, addr, nr);
	}
	KUNIT_EXPECT_EQ(test, engine->seqnr, 1);
	KUNIT_EXPECT_EQ(test, b->ksm_rmap_items, 3);

	/* When it stands still it is seen to the end, from where that pass has stopped. */
	KUNIT_EXPECT_GT(test, kt_kmm(test, a)->addr, SZ_16M);
	kt_scan(test, 2);
	KUNIT_EXPECT_EQ(test, a->ksm_rmap_items, nr);
	KUNIT_EXPECT_EQ(test, kt_kmm(test, a)->addr, 0);
}

/* The same with a page in each page table, which takes more memory to remember. */
static void ksm_test_scan_forgets_a_runner(struct kunit *test)
{
	const unsigned long spare = 64, few = 64;
	struct mm_struct *mm = kt_mm(test);
	struct ksm_engine *engine = kt_engine(test);
	unsigned long addr = SZ_16M, i;
	long most = 0, limit = 0;

	kt_map_at(test, mm, addr, 1);
	kt_fill(test, mm, addr, 1);
	for (i = 0; i < few + 3 * spare; i++, addr += PMD_SIZE) {
		kt_map_at(test, mm, addr + PMD_SIZE, 1);
		kt_fill(test, mm, addr + PMD_SIZE, 1);
		limit = max(limit, (long)(2 * ksm_mm_page_tables(mm) + spare));
		kt_scan_pages(test, 1);
		kt_unmap(test, mm, addr, 1);
		most = max(most, ksm_stat_read(engine, KSM_STAT_CHUNKS));
	}
	KUNIT_EXPECT_EQ(test, engine->seqnr, 0);
	KUNIT_EXPECT_GT(test, most, (long)spare / 2);
	KUNIT_EXPECT_LE(test, most, limit);
	kt_scan(test, 3);
	KT_EXPECT_STAT(test, TRACKED, 1);
}

/* However its pages lie: on stock each takes 64 bytes. */
static void ksm_test_scan_small_is_not_dear(struct kunit *test)
{
	const long nr = 22;
	struct mm_struct *mm = kt_mm(test);
	unsigned long stride, addr, i;

	/* One more, that keeps the mm registered. */
	kt_map_at(test, mm, SZ_16M, 1);
	kt_fill(test, mm, SZ_16M, 99);
	for (stride = 1; stride <= PTRS_PER_PTE; stride *= 2) {
		for (i = 0; i < nr; i++) {
			addr = SZ_1G + i * stride * PAGE_SIZE;
			kt_map_at(test, mm, addr, 1);
			kt_fill(test, mm, addr, 100 + i);
		}
		kt_scan(test, 1);
		KT_EXPECT_STAT(test, TRACKED, nr + 1);
		KUNIT_EXPECT_LE(test, ksm_registry_metadata(kt_engine(test), mm),
				(nr + 1) * 64);
		kt_scan(test, KT_SETTLE);
		KT_EXPECT_STAT(test, UNSHARED, nr + 1);
		KUNIT_EXPECT_LE(test, ksm_registry_metadata(kt_engine(test), mm),
				(nr + 1) * 64);
		for (i = 0; i < nr; i++)
			kt_unmap(test, mm, SZ_1G + i * stride * PAGE_SIZE, 1);
		kt_scan(test, 2);
		KT_EXPECT_STAT(test, BYTES, 64);
	}
}

static void ksm_test_scan_smart_scan_skips(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map(test, mm, 4);
	int i;

	for (i = 0; i < 4; i++)
		kt_fill(test, mm, addr + i * PAGE_SIZE, 100 + i);
	kt_scan(test, 10);
	KT_EXPECT_STAT(test, SKIPPED, 0);
	KT_EXPECT_STAT(test, SCANNED, 40);
	kt_engine(test)->knobs.smart_scan = true;
	kt_scan(test, 20);
	KUNIT_EXPECT_GT(test, ksm_stat_read(kt_engine(test), KSM_STAT_SKIPPED), 40);
	KUNIT_EXPECT_LT(test, ksm_stat_read(kt_engine(test), KSM_STAT_SCANNED), 80);
}

/* unmerge.c */

static void ksm_test_unmerge_gives_everything_back(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 8);
	unsigned long i, at_a, at_b;
	enum ksm_stat stat;

	KUNIT_EXPECT_EQ(test, kt_unmerge(test), 0);
	for (i = 0; i < 8; i++) {
		at_a = pair.at_a + i * PAGE_SIZE;
		at_b = pair.at_b + i * PAGE_SIZE;
		KUNIT_EXPECT_FALSE(test, kt_is_ksm(pair.a, at_a));
		KUNIT_EXPECT_FALSE(test, kt_is_ksm(pair.b, at_b));
		KUNIT_EXPECT_NE(test, kt_pfn(pair.a, at_a), kt_pfn(pair.b, at_b));
		KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a, at_a, i + 1));
		KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.b, at_b, i + 1));
	}
	for (stat = KSM_STAT_TRACKED; stat < KSM_NR_STATS; stat++)
		KUNIT_EXPECT_EQ(test, ksm_stat_read(kt_engine(test), stat), 0);
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(pair.a, MM_ANONPAGES), 8);
}

/* Frames go away whose folios were freed unnoticed: their nodes, and only they. */
static void ksm_test_unmerge_pfn_range(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 4);
	unsigned long pfn = kt_pfn(pair.a, pair.at_a + PAGE_SIZE);
	unsigned long kept = kt_pfn(pair.a, pair.at_a);

	kt_unmap(test, pair.a, pair.at_a + PAGE_SIZE, 1);
	kt_unmap(test, pair.b, pair.at_b + PAGE_SIZE, 1);
	KT_EXPECT_STAT(test, SHARED, 4);
	kt_lock(test);
	ksm_unmerge_pfn_range(kt_engine(test), pfn, pfn);
	ksm_unmerge_pfn_range(kt_engine(test), pfn + 1, pfn + 1);
	kt_unlock(test);
	KT_EXPECT_STAT(test, SHARED, 4);
	kt_lock(test);
	ksm_unmerge_pfn_range(kt_engine(test), pfn, pfn + 1);
	kt_unlock(test);
	KT_EXPECT_STAT(test, SHARED, 3);
	KT_EXPECT_STAT(test, SHARING, 3);
	KUNIT_EXPECT_EQ(test, kt_pfn(pair.a, pair.at_a), kept);
	kt_scan(test, 2);
	KT_EXPECT_STAT(test, TRACKED, 6);
}

/* A range that all nodes are in, the dups of a chain among them. */
static void ksm_test_unmerge_pfn_range_with_chain(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr;

	kt_engine(test)->knobs.max_page_sharing = 2;
	addr = kt_map_filled(test, mm, 8, 7);
	kt_scan(test, 2 * KT_SETTLE);
	KT_EXPECT_STAT(test, DUPS, 4);
	kt_unmap(test, mm, addr, 8);
	kt_lock(test);
	ksm_unmerge_pfn_range(kt_engine(test), 0, ULONG_MAX);
	kt_unlock(test);
	KT_EXPECT_STAT(test, SHARED, 0);
	KT_EXPECT_STAT(test, CHAINS, 0);
	KT_EXPECT_STAT(test, DUPS, 0);
}

/* The last known sharer is gone, but a fork still maps the page. */
static void ksm_test_unmerge_orphan_waits_for_fork(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct mm_struct *child = kt_fork(test, pair.a);

	kt_unmap(test, pair.a, pair.at_a, 1);
	kt_unmap(test, pair.b, pair.at_b, 1);
	kt_scan(test, 2);
	KT_EXPECT_STAT(test, SHARED, 0);
	KUNIT_EXPECT_TRUE(test, kt_is_ksm(child, pair.at_a));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, child, pair.at_a, 1));
	KUNIT_EXPECT_TRUE(test, list_is_singular(&kt_engine(test)->orphans));

	kt_unmap(test, child, pair.at_a, 1);
	KUNIT_EXPECT_EQ(test, kt_register(kt_engine(test), child), 0);
	kt_scan(test, 2);
	KUNIT_EXPECT_TRUE(test, list_empty(&kt_engine(test)->orphans));
}

/* rmap.c */

struct kt_visits {
	struct mm_struct *mm;
	unsigned long addr;
	int here;
	int all;
};

static bool kt_visit(struct folio *folio, struct vm_area_struct *vma,
		     unsigned long addr, void *arg)
{
	struct kt_visits *visits = arg;

	visits->all++;
	visits->here += vma->vm_mm == visits->mm && addr == visits->addr;
	return true;
}

/* What a walk of the reverse map comes by, starting from one mapping of the folio. */
static struct kt_visits kt_walk(struct kunit *test, struct mm_struct *mm,
				unsigned long addr)
{
	struct kt_visits visits = { .mm = mm, .addr = addr };
	struct rmap_walk_control rwc = { .rmap_one = kt_visit, .arg = &visits };
	struct folio *folio = kt_get_folio(test, mm, addr);

	folio_lock(folio);
	rmap_walk_ksm(folio, &rwc);
	folio_unlock(folio);
	folio_put(folio);
	return visits;
}

static void kt_expect_visits(struct kunit *test, struct mm_struct *mm,
			     unsigned long addr)
{
	struct kt_visits visits = kt_walk(test, mm, addr);

	KUNIT_EXPECT_EQ(test, visits.here, 1);
	KUNIT_EXPECT_EQ(test, visits.all, kt_mapcount(mm, addr));
}

static void ksm_test_rmap_visits_each_once(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);
	struct mm_struct *child;
	unsigned long more;

	more = kt_map_filled(test, pair.a, 3, 1);
	kt_scan(test, KT_SETTLE);
	kt_expect_visits(test, pair.a, pair.at_a);
	kt_expect_visits(test, pair.b, pair.at_b);
	kt_expect_visits(test, pair.a, more + PAGE_SIZE);

	/* A fork that no scan has seen yet has no items, and then has. */
	child = kt_fork(test, pair.a);
	kt_expect_visits(test, child, pair.at_a);
	kt_expect_visits(test, child, more);
	kt_expect_visits(test, pair.a, more);
}

/* A walk that must not wait gives up at a lock that it cannot have. */
static void ksm_test_rmap_try_lock_gives_up(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct folio *folio = kt_get_folio(test, pair.a, pair.at_a);
	struct anon_vma *anon_vma = vma_lookup(pair.a, pair.at_a)->anon_vma;
	struct kt_visits visits = { };
	struct rmap_walk_control rwc = {
		.rmap_one = kt_visit,
		.arg = &visits,
		.try_lock = true,
	};

	folio_lock(folio);
	anon_vma_lock_write(anon_vma);
	rmap_walk_ksm(folio, &rwc);
	anon_vma_unlock_write(anon_vma);
	KUNIT_EXPECT_TRUE(test, rwc.contended);
	KUNIT_EXPECT_LT(test, visits.all, 2);

	rwc.contended = false;
	visits.all = 0;
	rmap_walk_ksm(folio, &rwc);
	folio_unlock(folio);
	folio_put(folio);
	KUNIT_EXPECT_FALSE(test, rwc.contended);
	KUNIT_EXPECT_EQ(test, visits.all, 2);
}

static struct folio *kt_new_folio(struct folio *old, unsigned long private)
{
	return folio_alloc(GFP_HIGHUSER_MOVABLE, 0);
}

/* Move a page to another frame. Return: 0 if that was done. */
static int kt_migrate(struct kunit *test, struct mm_struct *mm, unsigned long addr)
{
	struct folio *folio;
	LIST_HEAD(folios);
	int failed = 1;

	lru_add_drain_all();
	folio = kt_get_folio(test, mm, addr);
	if (folio_isolate_lru(folio))
		list_add(&folio->lru, &folios);
	folio_put(folio);
	if (!list_empty(&folios))
		failed = migrate_pages(&folios, kt_new_folio, NULL, 0, MIGRATE_SYNC,
				       MR_SYSCALL, NULL);
	if (failed)
		putback_movable_pages(&folios);
	return failed;
}

static void ksm_test_rmap_migrates(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);
	unsigned long pfn = kt_pfn(pair.a, pair.at_a);
	struct mm_struct *child = kt_fork(test, pair.a);

	KUNIT_EXPECT_EQ(test, kt_migrate(test, pair.a, pair.at_a), 0);
	KUNIT_EXPECT_NE(test, kt_pfn(pair.a, pair.at_a), pfn);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, pair.b, pair.at_b));
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, child, pair.at_a));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.b, pair.at_b, 1));

	/* Its node has come along: more of that content join it. */
	kt_map_filled(test, pair.b, 1, 1);
	kt_scan(test, 2);
	KT_EXPECT_STAT(test, SHARED, 2);
	KT_EXPECT_STAT(test, SHARING, 3);
}

/* A folio of the swap cache that fits is mapped as it is; any other is copied. */
static void ksm_test_rmap_copies_for_swap_in(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	unsigned long own = kt_map_filled(test, pair.a, 1, 9);
	struct folio *ksm = kt_get_folio(test, pair.a, pair.at_a);
	struct folio *plain = kt_get_folio(test, pair.a, own);
	struct folio *same, *shared, *copy;

	folio_lock(ksm);
	folio_lock(plain);
	mmap_read_lock(pair.a);
	same = ksm_might_need_to_copy(plain, vma_lookup(pair.a, own), own);
	mmap_read_unlock(pair.a);
	mmap_read_lock(pair.b);
	shared = ksm_might_need_to_copy(ksm, vma_lookup(pair.b, pair.at_b), pair.at_b);
	copy = ksm_might_need_to_copy(plain, vma_lookup(pair.b, pair.at_b),
				      pair.at_b);
	mmap_read_unlock(pair.b);
	folio_unlock(plain);
	folio_unlock(ksm);

	KUNIT_EXPECT_PTR_EQ(test, same, plain);
	KUNIT_EXPECT_PTR_EQ(test, shared, ksm);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, copy);
	KUNIT_EXPECT_PTR_NE(test, copy, plain);
	if (!IS_ERR_OR_NULL(copy) && copy != plain) {
		KUNIT_EXPECT_TRUE(test, folio_test_locked(copy));
		KUNIT_EXPECT_TRUE(test, folio_test_uptodate(copy));
		KUNIT_EXPECT_TRUE(test, pages_identical(folio_page(copy, 0),
							folio_page(plain, 0)));
		folio_unlock(copy);
		folio_put(copy);
	}
	folio_put(plain);
	folio_put(ksm);
}

/* daemon.c */

static void ksm_test_daemon_set_run(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);
	struct ksm_engine *engine = kt_engine(test);
	int err;

	KUNIT_EXPECT_FALSE(test, ksm_daemon_has_work(engine));
	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_MERGE), 0);
	KUNIT_EXPECT_TRUE(test, ksm_daemon_has_work(engine));
	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_STOP), 0);
	KT_EXPECT_STAT(test, SHARED, 2);
	kt_lock(test);
	err = ksm_daemon_empty_trees(engine);
	kt_unlock(test);
	KUNIT_EXPECT_EQ(test, err, -EBUSY);

	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_UNMERGE), 0);
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(pair.a, pair.at_a));
	KT_EXPECT_STAT(test, SHARED, 0);
	KUNIT_EXPECT_EQ(test, engine->seqnr, 0);
	kt_lock(test);
	err = ksm_daemon_empty_trees(engine);
	kt_unlock(test);
	KUNIT_EXPECT_EQ(test, err, 0);
	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_STOP), 0);
}

/* An administrator who has waited long enough. */
static void ksm_test_daemon_set_run_ends_at_signal(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);
	struct ksm_engine *engine = kt_engine(test);
	int err;

	set_thread_flag(TIF_SIGPENDING);
	err = ksm_daemon_set_run(engine, KSM_RUN_UNMERGE);
	clear_thread_flag(TIF_SIGPENDING);
	KUNIT_EXPECT_EQ(test, err, -ERESTARTSYS);
	KUNIT_EXPECT_EQ(test, engine->run, KSM_RUN_STOP);
	KUNIT_EXPECT_TRUE(test, kt_is_ksm(pair.a, pair.at_a));
	KT_EXPECT_STAT(test, SHARED, 2);
	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_UNMERGE), 0);
	KT_EXPECT_STAT(test, SHARED, 0);
	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_STOP), 0);
}

static void ksm_test_daemon_advisor_starts_afresh(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);

	kt_map_filled(test, kt_mm(test), 2, 7);
	engine->knobs.pages_to_scan = 12345;
	ksm_daemon_set_advisor(engine, KSM_ADVISOR_SCAN_TIME);
	KUNIT_EXPECT_EQ(test, engine->knobs.pages_to_scan,
			engine->knobs.advisor_min_pages);
	engine->knobs.advisor_max_pages = 333;
	kt_scan(test, 2);
	KUNIT_EXPECT_EQ(test, engine->knobs.pages_to_scan, 333);
	ksm_daemon_set_advisor(engine, KSM_ADVISOR_NONE);
	KUNIT_EXPECT_EQ(test, engine->knobs.pages_to_scan, KSM_DEFAULT_PAGES_TO_SCAN);
}

/* While memory is going offline ksmd is to keep its hands off. */
static void ksm_test_daemon_waits_for_offlining(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct task_struct *ksmd;
	int i;

	kt_map_filled(test, kt_mm(test), 2, 7);
	engine->knobs.sleep_millisecs = 0;
	engine->run = KSM_RUN_MERGE | KSM_RUN_OFFLINE;
	ksmd = kthread_run(ksm_daemon, engine, "ksmd-test");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, ksmd);
	schedule_timeout_uninterruptible(HZ / 10);
	KT_EXPECT_STAT(test, SCANNED, 0);

	kt_lock(test);
	WRITE_ONCE(engine->run, engine->run & ~KSM_RUN_OFFLINE);
	kt_unlock(test);
	smp_mb();	/* as wake_up_bit() wants it */
	wake_up_bit(&engine->run, KSM_RUN_OFFLINE_BIT);
	for (i = 0; i < 100 && !ksm_stat_read(engine, KSM_STAT_SHARING); i++)
		schedule_timeout_uninterruptible(HZ / 20);
	KT_EXPECT_STAT(test, SHARING, 1);
	kthread_stop(ksmd);
	engine->run = KSM_RUN_STOP;
}

/* A ksmd of its own, against writes, forks and unmappings. */
static void ksm_test_daemon_against_writers(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	unsigned long at_a = kt_map_filled(test, a, 32, 1);
	unsigned long at_b = kt_map_filled(test, b, 32, 1);
	unsigned long i, end = jiffies + HZ, off, extra;
	struct task_struct *ksmd;
	int wrong = 0;

	engine->knobs.sleep_millisecs = 0;
	engine->knobs.use_zero_pages = true;
	engine->run = KSM_RUN_MERGE;
	ksmd = kthread_run(ksm_daemon, engine, "ksmd-test");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, ksmd);
	for (i = 0; time_before(jiffies, end); i++) {
		off = (i % 32) * PAGE_SIZE;
		kt_fill(test, a, at_a + off, i % 5);
		kt_fill(test, b, at_b + off, i % 3);
		extra = kt_map_filled(test, a, 4, i % 5);
		if (i % 16 == 0)
			schedule_timeout_uninterruptible(1);
		wrong += !kt_holds(test, a, at_a + off, i % 5);
		wrong += !kt_holds(test, b, at_b + off, i % 3);
		wrong += !kt_holds(test, a, extra + PAGE_SIZE, i % 5);
		kt_unmap(test, a, extra, 4);
	}
	schedule_timeout_uninterruptible(HZ / 2);
	kthread_stop(ksmd);
	engine->run = KSM_RUN_STOP;
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_GT(test, i, 10);
	KUNIT_EXPECT_GT(test, engine->seqnr, 2);
	kt_scan(test, 1);
	KUNIT_EXPECT_GT(test, ksm_stat_read(engine, KSM_STAT_SHARING), 0);
}

/* mm/ksm.c */

static bool kt_offered(struct mm_struct *mm, unsigned long addr)
{
	bool offered;

	mmap_read_lock(mm);
	offered = vma_lookup(mm, addr)->vm_flags & VM_MERGEABLE;
	mmap_read_unlock(mm);
	return offered;
}

/* For an mm that is not registered with the engine that is in use. */
static int kt_disable(struct mm_struct *mm)
{
	int err;

	mmap_write_lock(mm);
	err = ksm_disable(mm);
	mmap_write_unlock(mm);
	return err;
}

static void ksm_test_ksm_disable_unmerges(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct mm_struct *mm = pair.a;

	KUNIT_EXPECT_EQ(test, kt_disable(mm), 0);
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(mm, pair.at_a));
	KUNIT_EXPECT_FALSE(test, kt_offered(mm, pair.at_a));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, pair.at_a, 1));
	KUNIT_EXPECT_TRUE(test, kt_is_ksm(pair.b, pair.at_b));
}

/* What was offered as a whole is withdrawn as a whole, or not at all. */
static void ksm_test_ksm_disable_any_or_nothing(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct mm_struct *mm = pair.a;
	int err;

	/* The only area before it can be withdrawn: there is nothing to unmerge. */
	kt_map_at(test, mm, SZ_64K, 1);
	mm_flags_set(MMF_VM_MERGE_ANY, mm);
	set_thread_flag(TIF_SIGPENDING);
	err = kt_disable(mm);
	clear_thread_flag(TIF_SIGPENDING);
	KUNIT_EXPECT_EQ(test, err, -ERESTARTSYS);
	KUNIT_EXPECT_TRUE(test, kt_is_ksm(mm, pair.at_a));
	KUNIT_EXPECT_TRUE(test, kt_offered(mm, pair.at_a));
	KUNIT_EXPECT_TRUE(test, kt_offered(mm, SZ_64K));
	KUNIT_EXPECT_TRUE(test, mm_flags_test(MMF_VM_MERGE_ANY, mm));

	KUNIT_EXPECT_EQ(test, kt_disable(mm), 0);
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(mm, pair.at_a));
	KUNIT_EXPECT_FALSE(test, kt_offered(mm, pair.at_a));
	KUNIT_EXPECT_FALSE(test, kt_offered(mm, SZ_64K));
	KUNIT_EXPECT_FALSE(test, mm_flags_test(MMF_VM_MERGE_ANY, mm));
}

/* debug.c */

static int kt_errors(struct kunit *test)
{
	int errors = 0;

	kunit_warning_suppress(test) {
		kt_lock(test);
		errors = ksm_validate(kt_engine(test));
		mutex_unlock(&kt_engine(test)->mutex);
	}
	return errors;
}

static void ksm_test_debug_sees_what_is_wrong(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct mm_struct *mm = kt_mm(test);
	struct ksm_rmap_item *item = kt_item(test, kt_kmm(test, mm), SZ_1G);
	enum ksm_stat stat;

	if (!IS_ENABLED(CONFIG_KSM_DEBUG))
		kunit_skip(test, "the validator is not built in");
	KUNIT_EXPECT_TRUE(test, kt_unstable_insert(test, item, 5));
	KUNIT_EXPECT_EQ(test, kt_errors(test), 0);
	for (stat = KSM_STAT_TRACKED; stat < KSM_NR_STATS; stat++) {
		ksm_stat_add(engine, stat, 1);
		KUNIT_EXPECT_EQ(test, kt_errors(test), 1);
		ksm_stat_add(engine, stat, -1);
	}
	mm->ksm_rmap_items++;
	KUNIT_EXPECT_EQ(test, kt_errors(test), 1);
	mm->ksm_rmap_items--;
	item->unstable.key.hash = U64_MAX;
	KUNIT_EXPECT_EQ(test, kt_errors(test), 1);
	item->unstable.key.hash = 5;
	item->unstable.key.domain++;
	KUNIT_EXPECT_EQ(test, kt_errors(test), 1);
	item->unstable.key.domain--;
	atomic_long_inc(&engine->domains.global.sharing);
	KUNIT_EXPECT_EQ(test, kt_errors(test), 1);
	atomic_long_dec(&engine->domains.global.sharing);
	item->tagged += PAGE_SIZE;
	KUNIT_EXPECT_EQ(test, kt_errors(test), 1);
	item->tagged -= PAGE_SIZE;
	KUNIT_EXPECT_EQ(test, kt_errors(test), 0);
}

static struct kunit_case ksm_test_memory_cases[] = {
	KUNIT_CASE(ksm_test_merge_backs_out),
	KUNIT_CASE(ksm_test_merge_leaves_what_was_written),
	KUNIT_CASE(ksm_test_merge_maps_zero_page),
	KUNIT_CASE(ksm_test_merge_freeze_ends_writing),
	KUNIT_CASE(ksm_test_vma_hold_asks_for_the_offer),
	KUNIT_CASE(ksm_test_merge_break_keeps_to_range),
	KUNIT_CASE(ksm_test_scan_odd_area),
	KUNIT_CASE(ksm_test_scan_leaves_out_what_is_not_offered),
	KUNIT_CASE(ksm_test_scan_keeps_to_budget),
	KUNIT_CASE(ksm_test_scan_gives_way),
	KUNIT_CASE(ksm_test_scan_forgets_the_unmapped),
	KUNIT_CASE(ksm_test_scan_forgets_a_far_area),
	KUNIT_CASE(ksm_test_scan_forgets_the_exiting),
	KUNIT_CASE(ksm_test_scan_forgets_the_withdrawn),
	KUNIT_CASE(ksm_test_scan_goes_on_after_an_exit),
	KUNIT_CASE(ksm_test_scan_takes_turns),
	KUNIT_CASE(ksm_test_scan_ends_before_a_runner),
	KUNIT_CASE(ksm_test_scan_forgets_a_runner),
	KUNIT_CASE(ksm_test_scan_small_is_not_dear),
	KUNIT_CASE(ksm_test_scan_smart_scan_skips),
	KUNIT_CASE(ksm_test_unmerge_gives_everything_back),
	KUNIT_CASE(ksm_test_unmerge_pfn_range),
	KUNIT_CASE(ksm_test_unmerge_pfn_range_with_chain),
	KUNIT_CASE(ksm_test_unmerge_orphan_waits_for_fork),
	KUNIT_CASE(ksm_test_rmap_visits_each_once),
	KUNIT_CASE(ksm_test_rmap_try_lock_gives_up),
	KUNIT_CASE(ksm_test_rmap_migrates),
	KUNIT_CASE(ksm_test_rmap_copies_for_swap_in),
	KUNIT_CASE(ksm_test_daemon_set_run),
	KUNIT_CASE(ksm_test_daemon_set_run_ends_at_signal),
	KUNIT_CASE(ksm_test_daemon_advisor_starts_afresh),
	KUNIT_CASE(ksm_test_daemon_waits_for_offlining),
	KUNIT_CASE_SLOW(ksm_test_daemon_against_writers),
	KUNIT_CASE(ksm_test_ksm_disable_unmerges),
	KUNIT_CASE(ksm_test_ksm_disable_any_or_nothing),
	KUNIT_CASE(ksm_test_debug_sees_what_is_wrong),
	{}
};
