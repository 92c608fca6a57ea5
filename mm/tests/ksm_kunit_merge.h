/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of KSM: matching, that is which pages are merged, when, and which must
 * not be. Everything here goes through whole passes over real memory.
 */

/* No two of some pages share a frame, and none is a KSM page. */
static bool kt_all_own(struct mm_struct *mm, unsigned long addr, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		if (!kt_pfn(mm, addr + i * PAGE_SIZE) ||
		    kt_is_ksm(mm, addr + i * PAGE_SIZE))
			return false;
	return true;
}

static void ksm_test_match_merges_equal_pages(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	unsigned long at_a = kt_map_filled(test, a, 3, 7);
	unsigned long at_b = kt_map_filled(test, b, 2, 7);
	unsigned long own = kt_map_filled(test, b, 1, 8);
	int i;

	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, SHARED, 1);
	KT_EXPECT_STAT(test, SHARING, 4);
	KT_EXPECT_STAT(test, UNSHARED, 1);
	KT_EXPECT_STAT(test, TRACKED, 6);
	for (i = 0; i < 3; i++) {
		KUNIT_EXPECT_TRUE(test, kt_shared(a, at_a, a, at_a + i * PAGE_SIZE));
		KUNIT_EXPECT_TRUE(test, kt_holds(test, a, at_a + i * PAGE_SIZE, 7));
	}
	KUNIT_EXPECT_TRUE(test, kt_shared(a, at_a, b, at_b));
	KUNIT_EXPECT_TRUE(test, kt_shared(a, at_a, b, at_b + PAGE_SIZE));
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(b, own));
	KUNIT_EXPECT_EQ(test, a->ksm_merging_pages, 3);
	KUNIT_EXPECT_EQ(test, b->ksm_merging_pages, 2);
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(a, MM_ANONPAGES), 3);
	KUNIT_EXPECT_EQ(test, kt_mapcount(a, at_a), 5);
}

/* Content that is shared already is joined at first sight. */
static void ksm_test_match_joins_at_first_sight(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	unsigned long more = kt_map_filled(test, pair.a, 1, 1);

	kt_scan(test, 1);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, pair.a, more));
	KT_EXPECT_STAT(test, SHARED, 1);
	KT_EXPECT_STAT(test, SHARING, 2);
}

/* A write gets a copy, and nobody else sees it. */
static void ksm_test_match_write_unmerges(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);

	kt_fill(test, pair.a, pair.at_a, 50);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a, pair.at_a, 50));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.b, pair.at_b, 1));
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(pair.a, pair.at_a));
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, SHARED, 2);
	KT_EXPECT_STAT(test, SHARING, 1);
	KUNIT_EXPECT_EQ(test, pair.a->ksm_merging_pages, 1);

	kt_fill(test, pair.a, pair.at_a, 1);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, pair.b, pair.at_b));
	KT_EXPECT_STAT(test, SHARING, 2);
}

/* A page that is written between all visits is never merged with its equal. */
static void ksm_test_match_leaves_passing_content(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map(test, mm, 2);
	int i;

	for (i = 1; i < 10; i++) {
		kt_fill_all(test, mm, addr, 2, i);
		kt_scan(test, 1);
		KUNIT_EXPECT_TRUE(test, kt_all_own(mm, addr, 2));
	}
	KT_EXPECT_STAT(test, SHARED, 0);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, addr, mm, addr + PAGE_SIZE));
}

/* What waits in the unstable tree may have been written since. */
static void ksm_test_match_finds_stale_hints(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b;
	unsigned long at_a = kt_map_filled(test, a, 1, 7), at_b;

	kt_scan(test, 2);
	KT_EXPECT_STAT(test, UNSHARED, 1);
	b = kt_mm(test);
	at_b = kt_map_filled(test, b, 1, 7);
	kt_scan(test, 1);

	/* It is written when the scan is between the two. */
	kt_scan_pages(test, 1);
	kt_fill(test, a, at_a, 8);
	kt_scan(test, 1);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, a, at_a, 8));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, b, at_b, 7));
	KT_EXPECT_STAT(test, SHARED, 0);
	KT_EXPECT_STAT(test, UNSHARED, 1);
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, UNSHARED, 2);
}

static void ksm_test_match_zero_pages(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 4, 0);

	kt_engine(test)->knobs.use_zero_pages = true;
	kt_scan(test, 1);
	KUNIT_EXPECT_EQ(test, mm_ksm_zero_pages(mm), 4);
	KUNIT_EXPECT_TRUE(test, is_ksm_zero_pte(kt_pte(mm, addr)));
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(mm, MM_ANONPAGES), 0);
	KT_EXPECT_STAT(test, TRACKED, 0);
	KT_EXPECT_STAT(test, SHARED, 0);

	kt_fill(test, mm, addr, 7);
	KUNIT_EXPECT_EQ(test, mm_ksm_zero_pages(mm), 3);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, addr + PAGE_SIZE, 0));
	KUNIT_EXPECT_EQ(test, kt_unmerge(test), 0);
	KUNIT_EXPECT_EQ(test, mm_ksm_zero_pages(mm), 0);
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(mm, MM_ANONPAGES), 4);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, addr + 3 * PAGE_SIZE, 0));
}

static void ksm_test_match_zero_pages_are_pages(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 3, 0);

	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_EQ(test, mm_ksm_zero_pages(mm), 0);
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, addr, mm, addr + PAGE_SIZE));
	KT_EXPECT_STAT(test, SHARING, 2);
}

/* No folio gets more than max_page_sharing sharers. */
static void ksm_test_match_keeps_sharing_limit(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr, i;

	kt_engine(test)->knobs.max_page_sharing = 3;
	addr = kt_map_filled(test, mm, 11, 7);
	kt_scan(test, 3 * KT_SETTLE);
	KT_EXPECT_STAT(test, SHARED, 4);
	KT_EXPECT_STAT(test, SHARING, 7);
	KT_EXPECT_STAT(test, CHAINS, 1);
	KT_EXPECT_STAT(test, DUPS, 4);
	for (i = 0; i < 11; i++) {
		KUNIT_EXPECT_LE(test, kt_mapcount(mm, addr + i * PAGE_SIZE), 3);
		KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, addr + i * PAGE_SIZE, 7));
	}

	/* Room that is given up is used again. */
	kt_unmap(test, mm, addr + PAGE_SIZE, 9);
	kt_scan(test, 2);
	addr = kt_map_filled(test, mm, 1, 7);
	kt_scan(test, 2);
	KUNIT_EXPECT_TRUE(test, kt_is_ksm(mm, addr));
	KUNIT_EXPECT_EQ(test, ksm_stat_read(kt_engine(test), KSM_STAT_SHARED) +
			      ksm_stat_read(kt_engine(test), KSM_STAT_SHARING), 3);
}

/* A stable node of other content under the same hash: told apart, not merged. */
static void ksm_test_match_stable_collision(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct ksm_stable_node *node;
	struct folio *folio;
	unsigned long addr;

	folio = kt_stable_pick(test, kt_hash(test, 1), &node);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	folio_put(folio);
	kt_stable_unlink(test, node);
	node->entry.key.hash = kt_hash(test, 7);
	KUNIT_EXPECT_TRUE(test, kt_stable_insert(test, node));

	addr = kt_map_filled(test, pair.a, 1, 7);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(pair.a, addr));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a, addr, 7));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a, pair.at_a, 1));
	KT_EXPECT_STAT(test, SHARING, 1);

	/* Its equals may be merged with it or not, but with nothing else. */
	kt_map_filled(test, pair.a, 2, 7);
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a, addr, 7));
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, pair.b, pair.at_b));
	KUNIT_EXPECT_EQ(test, kt_mapcount(pair.a, pair.at_a), 2);
}

/* An item that waits with other content under the same hash. */
static void ksm_test_match_unstable_collision(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	unsigned long at_a = kt_map_filled(test, a, 1, 7);
	unsigned long at_b = kt_map(test, b, 1);
	struct ksm_rmap_item *item;
	struct ksm_chunk *chunk;

	kt_scan(test, 2);
	KT_EXPECT_STAT(test, UNSHARED, 1);
	kt_fill(test, b, at_b, 8);
	kt_scan(test, 1);
	chunk = ksm_chunk_find(kt_kmm(test, a), at_a);
	KUNIT_ASSERT_NOT_NULL(test, chunk);
	item = ksm_slot_item(*ksm_chunk_slot(chunk, at_a));
	KUNIT_ASSERT_NOT_NULL(test, item);

	/* The cursor is behind A when it is hit. */
	kt_scan_pages(test, 1);
	kt_unstable_erase(test, item);
	KUNIT_EXPECT_TRUE(test, kt_unstable_insert(test, item, kt_hash(test, 8)));
	kt_scan(test, 1);
	KUNIT_EXPECT_TRUE(test, kt_all_own(a, at_a, 1));
	KUNIT_EXPECT_TRUE(test, kt_all_own(b, at_b, 1));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, a, at_a, 7));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, b, at_b, 8));
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, SHARED, 0);
	KT_EXPECT_STAT(test, UNSHARED, 2);
}

/* Who holds a reference may be writing. So the page stays with its process. */
static void ksm_test_match_leaves_referenced_page(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 2, 7);
	struct folio *folio = kt_get_folio(test, mm, addr);

	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_all_own(mm, addr, 2));
	KUNIT_EXPECT_EQ(test, kt_pfn(mm, addr), folio_pfn(folio));
	KUNIT_EXPECT_TRUE(test, pte_write(kt_pte(mm, addr)));
	folio_put(folio);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, addr, mm, addr + PAGE_SIZE));
}

/* As before, with content that is shared already, and with the second of a pair. */
static void ksm_test_match_leaves_referenced_joiner(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	unsigned long addr = kt_map_filled(test, pair.a, 1, 1);
	struct folio *folio = kt_get_folio(test, pair.a, addr);

	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(pair.a, addr));
	KUNIT_EXPECT_EQ(test, kt_pfn(pair.a, addr), folio_pfn(folio));
	KT_EXPECT_STAT(test, SHARING, 1);
	folio_put(folio);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, pair.a, addr));
}

static void ksm_test_match_leaves_pinned_page(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 2, 7);
	struct page *page;
	long pinned;

	mmap_read_lock(mm);
	pinned = pin_user_pages_remote(mm, addr, 1, FOLL_WRITE, &page, NULL);
	mmap_read_unlock(mm);
	KUNIT_ASSERT_EQ(test, pinned, 1);
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_all_own(mm, addr, 2));
	KUNIT_EXPECT_EQ(test, kt_pfn(mm, addr), page_to_pfn(page));

	/* A device writes. */
	memset64(page_address(page), 8, PAGE_SIZE / sizeof(u64));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, addr, 8));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, mm, addr + PAGE_SIZE, 7));
	kt_fill(test, mm, addr, 7);
	unpin_user_page(page);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, addr, mm, addr + PAGE_SIZE));
}

/* Reclaim, say, has it. A scan does not wait. */
static void ksm_test_match_leaves_locked_page(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map_filled(test, mm, 2, 7);
	struct folio *folio = kt_get_folio(test, mm, addr);

	folio_lock(folio);
	folio_put(folio);
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_all_own(mm, addr, 2));
	/* Its partner may have been made a KSM page for it, and is no longer. */
	KT_EXPECT_STAT(test, SHARED, 0);
	folio_unlock(folio);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, addr, mm, addr + PAGE_SIZE));
}

/* A fork shares merged pages without the engine's knowing, until it is scanned. */
static void ksm_test_match_adopts_forked_pages(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 3);
	struct mm_struct *child = kt_fork(test, pair.a);

	KT_EXPECT_STAT(test, SHARING, 3);
	KUNIT_EXPECT_EQ(test, kt_register(kt_engine(test), child), 0);
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, SHARED, 3);
	KT_EXPECT_STAT(test, SHARING, 6);
	KUNIT_EXPECT_EQ(test, child->ksm_merging_pages, 3);
	KUNIT_EXPECT_GE(test, kt_walk(test, child, pair.at_a).here, 1);
	kt_fill(test, child, pair.at_a, 60);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a, pair.at_a, 1));
	KUNIT_EXPECT_EQ(test, kt_unmerge(test), 0);
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(child, pair.at_a + PAGE_SIZE));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, child, pair.at_a, 60));
}

/* A page that fork shares copy-on-write is mapped twice, and may be merged. */
static void ksm_test_match_merges_forked_pages(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test), *child;
	unsigned long at_a = kt_map_filled(test, a, 2, 7);
	unsigned long at_b = kt_map_filled(test, b, 2, 7);

	child = kt_fork(test, a);
	KUNIT_EXPECT_EQ(test, kt_register(kt_engine(test), child), 0);
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(a, at_a, b, at_b));
	KUNIT_EXPECT_TRUE(test, kt_shared(child, at_a, b, at_b + PAGE_SIZE));
	KT_EXPECT_STAT(test, SHARED, 1);
	KT_EXPECT_STAT(test, SHARING, 5);
	kt_fill(test, child, at_a, 8);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, a, at_a, 7));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, b, at_b, 7));
}

/* Something else is mapped at an address that the engine knows. */
static void ksm_test_match_notices_remapping(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);

	kt_unmap(test, pair.a, pair.at_a, 2);
	kt_map_at(test, pair.a, pair.at_a, 2);
	kt_fill(test, pair.a, pair.at_a, 2);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a,
					  pair.b, pair.at_b + PAGE_SIZE));
	KT_EXPECT_STAT(test, SHARED, 2);
	KT_EXPECT_STAT(test, SHARING, 1);
	KT_EXPECT_STAT(test, TRACKED, 3);
}

static struct kunit_case ksm_test_merge_cases[] = {
	KUNIT_CASE(ksm_test_match_merges_equal_pages),
	KUNIT_CASE(ksm_test_match_joins_at_first_sight),
	KUNIT_CASE(ksm_test_match_write_unmerges),
	KUNIT_CASE(ksm_test_match_leaves_passing_content),
	KUNIT_CASE(ksm_test_match_finds_stale_hints),
	KUNIT_CASE(ksm_test_match_zero_pages),
	KUNIT_CASE(ksm_test_match_zero_pages_are_pages),
	KUNIT_CASE(ksm_test_match_keeps_sharing_limit),
	KUNIT_CASE(ksm_test_match_stable_collision),
	KUNIT_CASE(ksm_test_match_unstable_collision),
	KUNIT_CASE(ksm_test_match_leaves_referenced_page),
	KUNIT_CASE(ksm_test_match_leaves_referenced_joiner),
	KUNIT_CASE(ksm_test_match_leaves_pinned_page),
	KUNIT_CASE(ksm_test_match_leaves_locked_page),
	KUNIT_CASE(ksm_test_match_adopts_forked_pages),
	KUNIT_CASE(ksm_test_match_merges_forked_pages),
	KUNIT_CASE(ksm_test_match_notices_remapping),
	{}
};
