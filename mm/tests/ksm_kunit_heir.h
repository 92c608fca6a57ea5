/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of KSM: the reverse map finds each mapping, whoever has left the page
 * since; items that lead elsewhere, and the heirs of those that have left.
 */

static struct ksm_stable_node *kt_node_at(struct mm_struct *mm, unsigned long addr)
{
	unsigned long pfn = kt_pfn(mm, addr);

	return pfn ? ksm_node_of(pfn_folio(pfn)) : NULL;
}

static unsigned int kt_heirs(struct kunit *test, struct mm_struct *mm,
			     unsigned long addr)
{
	struct ksm_stable_node *node = kt_node_at(mm, addr);

	KUNIT_EXPECT_NOT_NULL(test, node);
	return node ? node->nr_heirs : 0;
}

/* A walk comes by a mapping; by others, too, that a fork and its parent no longer have. */
static void kt_expect_found(struct kunit *test, struct mm_struct *mm, unsigned long addr)
{
	KUNIT_EXPECT_EQ(test, kt_walk(test, mm, addr).here, 1);
}

/* A fork is found although its parent has left the page, also by migration. */
static void ksm_test_heir_leads_to_forks(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct mm_struct *child = kt_fork(test, pair.a);

	kt_fill(test, pair.a, pair.at_a, 50);
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, SHARED, 1);
	KT_EXPECT_STAT(test, SHARING, 0);
	KUNIT_EXPECT_EQ(test, pair.a->ksm_merging_pages, 0);
	kt_expect_found(test, child, pair.at_a);
	kt_expect_found(test, pair.b, pair.at_b);
	KUNIT_EXPECT_EQ(test, kt_heirs(test, child, pair.at_a), 1);

	KUNIT_EXPECT_EQ(test, kt_migrate(test, child, pair.at_a), 0);
	KUNIT_EXPECT_TRUE(test, kt_shared(child, pair.at_a, pair.b, pair.at_b));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, child, pair.at_a, 1));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a, pair.at_a, 50));

	/* When the fork has left as well nobody needs it. */
	kt_fill(test, child, pair.at_a, 51);
	kt_scan(test, 1);
	KUNIT_EXPECT_EQ(test, kt_heirs(test, pair.b, pair.at_b), 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&kt_engine(test)->orphans));
}

/* An mm exits; its forks are found, and then have items of their own. */
static void ksm_test_heir_outlives_its_mm(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);
	struct mm_struct *child = kt_fork(test, pair.a);
	struct mm_struct *grandchild = kt_fork(test, child);
	long items = ksm_stat_read(kt_engine(test), KSM_STAT_ITEMS);

	kt_exit_mm(test, pair.a);
	kt_unmap(test, pair.b, pair.at_b, 2);
	kt_scan(test, 2);
	KT_EXPECT_STAT(test, SHARED, 0);
	KT_EXPECT_STAT(test, ITEMS, items - 2);
	kt_expect_found(test, child, pair.at_a);
	kt_expect_found(test, grandchild, pair.at_a + PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, kt_migrate(test, child, pair.at_a), 0);
	KUNIT_EXPECT_TRUE(test, kt_holds(test, grandchild, pair.at_a, 1));

	KUNIT_EXPECT_EQ(test, kt_register(kt_engine(test), child), 0);
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, SHARED, 2);
	KUNIT_EXPECT_EQ(test, kt_heirs(test, child, pair.at_a), 1);
	KUNIT_EXPECT_EQ(test, kt_register(kt_engine(test), grandchild), 0);
	kt_scan(test, 1);
	KT_EXPECT_STAT(test, SHARING, 2);
	KUNIT_EXPECT_EQ(test, kt_heirs(test, child, pair.at_a), 0);
	kt_expect_found(test, child, pair.at_a);
}

/* However often a page comes and goes, the forks of one family have one heir there. */
static void ksm_test_heir_is_one_for_a_family(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct mm_struct *child = kt_fork(test, pair.a);
	int i;

	for (i = 0; i < 4; i++) {
		kt_fill(test, pair.a, pair.at_a, 50 + i);
		kt_scan(test, 1);
		KUNIT_EXPECT_EQ(test, kt_heirs(test, child, pair.at_a), 1);
		kt_fill(test, pair.a, pair.at_a, 1);
		kt_scan(test, 4 * KT_SETTLE);
		KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, pair.at_a, child, pair.at_a));
	}
	KUNIT_EXPECT_EQ(test, kt_heirs(test, child, pair.at_a), 1);
	KT_EXPECT_STAT(test, SHARING, 1);
}

/* Whether an heir is needed is asked within a budget. When that is spent it stays. */
static void ksm_test_heir_stays_without_budget(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct mm_struct *child = kt_fork(test, pair.a);
	struct ksm_stable_node *node;
	unsigned long budget = 1;

	kt_fill(test, pair.a, pair.at_a, 50);
	kt_scan(test, 1);
	node = kt_node_at(child, pair.at_a);
	KUNIT_ASSERT_NOT_NULL(test, node);
	kt_fill(test, child, pair.at_a, 51);

	kt_lock(test);
	KUNIT_EXPECT_TRUE(test, ksm_heir_prune(kt_engine(test), node, &budget));
	KUNIT_EXPECT_EQ(test, budget, 0);
	KUNIT_EXPECT_TRUE(test, ksm_heir_prune(kt_engine(test), node, &budget));
	budget = 16;
	KUNIT_EXPECT_FALSE(test, ksm_heir_prune(kt_engine(test), node, &budget));
	KUNIT_EXPECT_GT(test, budget, 0);
	kt_unlock(test);
}

/* It takes the place of a sharer, and gives it back. */
static void ksm_test_heir_takes_a_place(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct mm_struct *child = kt_fork(test, pair.a);
	unsigned long more;

	kt_engine(test)->knobs.max_page_sharing = 2;
	kt_fill(test, pair.a, pair.at_a, 50);
	kt_scan(test, 1);
	more = kt_map_filled(test, pair.a, 1, 1);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(pair.a, more));
	kt_fill(test, child, pair.at_a, 51);
	kt_scan(test, KT_SETTLE);
	KUNIT_EXPECT_TRUE(test, kt_shared(pair.a, more, pair.b, pair.at_b));
}

/* Heirs go with their node: everything is unmerged, or the folio is freed. */
static void ksm_test_heir_goes_with_its_node(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 2);
	struct mm_struct *child = kt_fork(test, pair.a);

	kt_unmap(test, pair.a, pair.at_a, 2);
	kt_unmap(test, pair.b, pair.at_b, 2);
	kt_scan(test, 2);
	KUNIT_EXPECT_EQ(test, kt_heirs(test, child, pair.at_a), 1);
	KT_EXPECT_STAT(test, ITEMS, 2);
	KUNIT_EXPECT_EQ(test, kt_register(kt_engine(test), child), 0);
	kt_unmap(test, child, pair.at_a, 2);
	kt_scan(test, 2);
	KT_EXPECT_STAT(test, ITEMS, 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&kt_engine(test)->orphans));
}

/* From the swap cache a KSM folio is mapped only where the reverse map leads. */
static void ksm_test_heir_swap_in_asks_who_leads(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct mm_struct *child = kt_fork(test, pair.a);
	unsigned long other = kt_map_filled(test, pair.b, 1, 9);
	struct folio *ksm = kt_get_folio(test, pair.a, pair.at_a);
	struct folio *forked, *moved;

	folio_lock(ksm);
	mmap_read_lock(child);
	forked = ksm_might_need_to_copy(ksm, vma_lookup(child, pair.at_a), pair.at_a);
	mmap_read_unlock(child);
	mmap_read_lock(pair.b);
	moved = ksm_might_need_to_copy(ksm, vma_lookup(pair.b, other), other);
	mmap_read_unlock(pair.b);
	folio_unlock(ksm);
	folio_put(ksm);

	KUNIT_EXPECT_PTR_EQ(test, forked, ksm);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, moved);
	KUNIT_EXPECT_PTR_NE(test, moved, ksm);
	if (!IS_ERR_OR_NULL(moved) && moved != ksm) {
		folio_unlock(moved);
		folio_put(moved);
	}
}

/* An item that leads to another place in the anon_vma is attached anew. */
static void ksm_test_heir_scan_puts_items_right(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct ksm_chunk *chunk = ksm_chunk_find(kt_kmm(test, pair.a), pair.at_a);
	struct ksm_rmap_item *item;

	KUNIT_ASSERT_NOT_NULL(test, chunk);
	item = ksm_slot_item(*ksm_chunk_slot(chunk, pair.at_a));
	KUNIT_ASSERT_NOT_NULL(test, item);
	item->stable.index++;
	KUNIT_EXPECT_EQ(test, kt_walk(test, pair.a, pair.at_a).here, 0);
	if (IS_ENABLED(CONFIG_KSM_DEBUG))
		KUNIT_EXPECT_GT(test, kt_errors(test), 0);
	kt_scan(test, 1);
	kt_expect_visits(test, pair.a, pair.at_a);
	KT_EXPECT_STAT(test, SHARING, 1);
}

/*
 * A page that waits is found by one that comes before it in the same batch, and has been
 * read again by then: it keeps its item.
 */
static void ksm_test_heir_founder_keeps_its_item(struct kunit *test)
{
	struct mm_struct *mm = kt_mm(test);
	unsigned long addr = kt_map(test, mm, 2);
	unsigned long waits = addr + PAGE_SIZE;

	kt_fill(test, mm, waits, 7);
	kt_scan(test, KT_SETTLE);
	KT_EXPECT_STAT(test, UNSHARED, 1);
	kt_fill(test, mm, addr, 7);
	kt_scan(test, 1);
	kt_fill(test, mm, waits, 7);
	kt_scan(test, 1);
	KUNIT_EXPECT_TRUE(test, kt_shared(mm, addr, mm, waits));
	KT_EXPECT_STAT(test, SHARED, 1);
	KT_EXPECT_STAT(test, SHARING, 1);
	kt_expect_visits(test, mm, addr);
	kt_expect_visits(test, mm, waits);
}

/* A page that a child shares with its parent becomes a KSM page: of both. */
static void ksm_test_heir_leads_to_the_parent(struct kunit *test)
{
	struct mm_struct *parent = kt_bare_mm(test), *child, *other;
	unsigned long addr = kt_map_filled(test, parent, 1, 7), more;

	child = kt_fork(test, parent);
	KUNIT_EXPECT_EQ(test, kt_register(kt_engine(test), child), 0);
	kt_scan(test, 2);
	KT_EXPECT_STAT(test, UNSHARED, 1);
	other = kt_mm(test);
	more = kt_map_filled(test, other, 1, 7);
	kt_scan(test, 2);
	KUNIT_EXPECT_TRUE(test, kt_shared(child, addr, other, more));
	KUNIT_EXPECT_TRUE(test, kt_shared(child, addr, parent, addr));
	kt_expect_found(test, parent, addr);
	kt_expect_found(test, child, addr);

	/* And is so after the next look, and when the child has left. */
	kt_scan(test, 1);
	KUNIT_EXPECT_EQ(test, kt_heirs(test, parent, addr), 1);
	kt_expect_found(test, parent, addr);
	kt_fill(test, child, addr, 8);
	kt_scan(test, 1);
	kt_expect_found(test, parent, addr);
	KUNIT_EXPECT_EQ(test, kt_migrate(test, parent, addr), 0);
	KUNIT_EXPECT_TRUE(test, kt_shared(parent, addr, other, more));
	kt_fill(test, parent, addr, 9);
	kt_scan(test, 1);
	KUNIT_EXPECT_EQ(test, kt_heirs(test, other, more), 0);
}

static struct kunit_case ksm_test_heir_cases[] = {
	KUNIT_CASE(ksm_test_heir_leads_to_forks),
	KUNIT_CASE(ksm_test_heir_outlives_its_mm),
	KUNIT_CASE(ksm_test_heir_is_one_for_a_family),
	KUNIT_CASE(ksm_test_heir_stays_without_budget),
	KUNIT_CASE(ksm_test_heir_takes_a_place),
	KUNIT_CASE(ksm_test_heir_goes_with_its_node),
	KUNIT_CASE(ksm_test_heir_swap_in_asks_who_leads),
	KUNIT_CASE(ksm_test_heir_scan_puts_items_right),
	KUNIT_CASE(ksm_test_heir_leads_to_the_parent),
	KUNIT_CASE(ksm_test_heir_founder_keeps_its_item),
	{}
};
