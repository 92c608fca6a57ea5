/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of KSM: unmerging that fails on the way. The faults that copy pages are
 * made to fail as a test wants, at one address; all others are what they always are.
 */

static vm_fault_t kt_unshare(struct vm_area_struct *vma, unsigned long addr)
{
	struct kt *kt = kunit_get_current_test()->priv;

	/* A caller that does not give up would hang the test. */
	if (vma->vm_mm != kt->failing_mm || addr != kt->failing_addr || kt->nr_failed > 99)
		return handle_mm_fault(vma, addr, FAULT_FLAG_UNSHARE | FAULT_FLAG_REMOTE,
				       NULL);
	kt->nr_failed++;
	if (kt->fails_too_late)
		handle_mm_fault(vma, addr, FAULT_FLAG_UNSHARE | FAULT_FLAG_REMOTE, NULL);
	return kt->failing;
}

static void kt_fail_unsharing(struct kunit *test, struct mm_struct *mm,
			      unsigned long addr, vm_fault_t fault)
{
	struct kt *kt = test->priv;

	kt->failing_mm = mm;
	kt->failing_addr = addr;
	kt->failing = fault;
	kt->nr_failed = 0;
	kunit_activate_static_stub(test, ksm_merge_unshare, kt_unshare);
}

static void kt_mend_unsharing(struct kunit *test)
{
	kunit_deactivate_static_stub(test, ksm_merge_unshare);
}

static unsigned long kt_count_ksm(struct mm_struct *mm, unsigned long addr,
				  unsigned long nr)
{
	unsigned long merged = 0;

	while (nr--)
		merged += kt_is_ksm(mm, addr + nr * PAGE_SIZE);
	return merged;
}

/* A page that cannot be copied stays merged, and is an error; all others are unmerged. */
static void ksm_test_unmerge_tells_of_what_is_left(struct kunit *test)
{
	static const struct {
		vm_fault_t fault;
		int err;
	} cases[] = {
		{ VM_FAULT_HWPOISON, -EHWPOISON },
		{ VM_FAULT_HWPOISON_LARGE | VM_FAULT_SET_HINDEX(3), -EHWPOISON },
		{ VM_FAULT_SIGBUS, -EFAULT },
		{ VM_FAULT_SIGSEGV, -EFAULT },
		{ VM_FAULT_OOM, -ENOMEM },
		{ VM_FAULT_OOM | VM_FAULT_HWPOISON, -ENOMEM },
	};
	struct kt_pair pair = kt_merged_pair(test, 5);
	struct kt *kt = test->priv;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		kt_fail_unsharing(test, pair.a, pair.at_a + 2 * PAGE_SIZE, cases[i].fault);
		KUNIT_EXPECT_EQ(test, kt_break(pair.a, pair.at_a, 5), cases[i].err);
		KUNIT_EXPECT_EQ(test, kt->nr_failed, 1);
		KUNIT_EXPECT_EQ(test, kt_count_ksm(pair.a, pair.at_a, 5), 1);
		KUNIT_EXPECT_TRUE(test, kt_is_ksm(pair.a, pair.at_a + 2 * PAGE_SIZE));
	}
	kt_fail_unsharing(test, pair.a, pair.at_a + 2 * PAGE_SIZE, VM_FAULT_SIGBUS);
	KUNIT_EXPECT_EQ(test, kt_break(pair.a, pair.at_a + 2 * PAGE_SIZE, 1), -EFAULT);
	kt_mend_unsharing(test);
	KUNIT_EXPECT_EQ(test, kt_break(pair.a, pair.at_a, 5), 0);
	KUNIT_EXPECT_EQ(test, kt_count_ksm(pair.a, pair.at_a, 5), 0);
	KUNIT_EXPECT_EQ(test, kt_count_ksm(pair.b, pair.at_b, 5), 5);
}

/* A fault that fails because the page has gone meanwhile is no error. */
static void ksm_test_unmerge_looks_again(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 3);
	struct kt *kt = test->priv;

	kt->fails_too_late = true;
	kt_fail_unsharing(test, pair.a, pair.at_a + PAGE_SIZE, VM_FAULT_HWPOISON);
	KUNIT_EXPECT_EQ(test, kt_break(pair.a, pair.at_a, 3), 0);
	KUNIT_EXPECT_EQ(test, kt->nr_failed, 1);
	KUNIT_EXPECT_EQ(test, kt_count_ksm(pair.a, pair.at_a, 3), 0);
	kt_mend_unsharing(test);
}

/* A page of one mm that cannot be copied does not keep another mm from its pages. */
static void ksm_test_unmerge_goes_on_to_others(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 3);

	kt_fail_unsharing(test, pair.a, pair.at_a, VM_FAULT_HWPOISON);
	KUNIT_EXPECT_EQ(test, kt_unmerge(test), -EHWPOISON);
	KUNIT_EXPECT_EQ(test, kt_count_ksm(pair.a, pair.at_a, 3), 1);
	KUNIT_EXPECT_EQ(test, kt_count_ksm(pair.b, pair.at_b, 3), 0);
	KUNIT_EXPECT_EQ(test, pair.a->ksm_merging_pages, 3);
	KUNIT_EXPECT_EQ(test, pair.b->ksm_merging_pages, 0);
	kt_mend_unsharing(test);
	KUNIT_EXPECT_EQ(test, kt_unmerge(test), 0);
	KT_EXPECT_STAT(test, SHARED, 0);
	KUNIT_EXPECT_EQ(test, pair.a->ksm_merging_pages, 0);
}

/* Lack of memory ends it at once. The next passes put the figures right. */
static void ksm_test_unmerge_ends_without_memory(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 4);

	kt_fail_unsharing(test, pair.a, pair.at_a + 2 * PAGE_SIZE, VM_FAULT_OOM);
	KUNIT_EXPECT_EQ(test, kt_unmerge(test), -ENOMEM);
	KUNIT_EXPECT_EQ(test, kt_count_ksm(pair.a, pair.at_a, 4), 2);
	KT_EXPECT_STAT(test, SHARED, 4);
	kt_mend_unsharing(test);
	kt_scan(test, 2 * KT_SETTLE);
	KUNIT_EXPECT_EQ(test, pair.a->ksm_merging_pages,
			kt_count_ksm(pair.a, pair.at_a, 4));
	KUNIT_EXPECT_EQ(test, pair.b->ksm_merging_pages,
			kt_count_ksm(pair.b, pair.at_b, 4));
	KUNIT_EXPECT_TRUE(test, kt_holds(test, pair.a, pair.at_a, 1));
}

/* When unmerging fails, what had been withdrawn before stays so. */
static void ksm_test_unmerge_leaves_offers_alone(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	unsigned long early = kt_map_at(test, pair.a, SZ_64K, 1);
	unsigned long apart = kt_map_at(test, pair.a, SZ_64K + 2 * PAGE_SIZE, 1);

	kt_offer(pair.a, apart, false);
	mm_flags_set(MMF_VM_MERGE_ANY, pair.a);
	kt_fail_unsharing(test, pair.a, pair.at_a, VM_FAULT_OOM);
	KUNIT_EXPECT_EQ(test, kt_disable(pair.a), -ENOMEM);
	KUNIT_EXPECT_TRUE(test, kt_offered(pair.a, pair.at_a));
	KUNIT_EXPECT_TRUE(test, kt_offered(pair.a, early));
	KUNIT_EXPECT_FALSE(test, kt_offered(pair.a, apart));
	KUNIT_EXPECT_TRUE(test, mm_flags_test(MMF_VM_MERGE_ANY, pair.a));
	mm_flags_clear(MMF_VM_MERGE_ANY, pair.a);
	KUNIT_EXPECT_EQ(test, kt_disable(pair.a), -ENOMEM);
	KUNIT_EXPECT_TRUE(test, kt_offered(pair.a, early));
	kt_mend_unsharing(test);
	KUNIT_EXPECT_EQ(test, kt_disable(pair.a), 0);
	KUNIT_EXPECT_FALSE(test, kt_offered(pair.a, early));
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(pair.a, pair.at_a));
}

/* A promoted page that cannot be given back keeps its item. */
static void ksm_test_unmerge_demotes_as_a_whole(struct kunit *test)
{
	struct kt_pair pair = kt_merged_pair(test, 1);
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_stable_node *node;
	struct ksm_rmap_item *item;
	struct ksm_chunk *chunk;

	kt_unmap(test, pair.b, pair.at_b, 1);
	kt_scan(test, 2);
	chunk = ksm_chunk_find(kt_kmm(test, pair.a), pair.at_a);
	KUNIT_ASSERT_NOT_NULL(test, chunk);
	item = ksm_slot_item(*ksm_chunk_slot(chunk, pair.at_a));
	KUNIT_ASSERT_NOT_NULL(test, item);
	KUNIT_ASSERT_EQ(test, ksm_item_state(item), KSM_ITEM_STABLE);
	node = item->stable.node;

	kt_fail_unsharing(test, pair.a, pair.at_a, VM_FAULT_OOM);
	kt_lock(test);
	atomic_inc(&item->owner->claims);
	ksm_join_demote(engine, item, node, node->entry.key.hash);
	kt_unlock(test);
	KUNIT_EXPECT_TRUE(test, kt_is_ksm(pair.a, pair.at_a));
	KUNIT_EXPECT_EQ(test, ksm_item_state(item), KSM_ITEM_STABLE);
	kt_mend_unsharing(test);
	kt_lock(test);
	atomic_inc(&item->owner->claims);
	ksm_join_demote(engine, item, node, node->entry.key.hash);
	kt_unlock(test);
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(pair.a, pair.at_a));
	KUNIT_EXPECT_EQ(test, ksm_item_state(item), KSM_ITEM_IDLE);
}

/* A child begins as a copy of its parent's mm, but not with its figures. */
static void ksm_test_mm_begins_at_zero(struct kunit *test)
{
	struct mm_struct *mm = kt_bare_mm(test);

	mm->ksm_rmap_items = 3;
	mm->ksm_merging_pages = 2;
	atomic_long_set(&mm->ksm_zero_pages, 1);
	ksm_mm_init(mm);
	KUNIT_EXPECT_EQ(test, mm->ksm_rmap_items, 0);
	KUNIT_EXPECT_EQ(test, mm->ksm_merging_pages, 0);
	KUNIT_EXPECT_EQ(test, mm_ksm_zero_pages(mm), 0);
}

static struct kunit_case ksm_test_unmerge_cases[] = {
	KUNIT_CASE(ksm_test_unmerge_tells_of_what_is_left),
	KUNIT_CASE(ksm_test_unmerge_looks_again),
	KUNIT_CASE(ksm_test_unmerge_goes_on_to_others),
	KUNIT_CASE(ksm_test_unmerge_ends_without_memory),
	KUNIT_CASE(ksm_test_unmerge_leaves_offers_alone),
	KUNIT_CASE(ksm_test_unmerge_demotes_as_a_whole),
	KUNIT_CASE(ksm_test_mm_begins_at_zero),
	{}
};
