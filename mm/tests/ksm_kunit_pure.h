/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of KSM: the files that know no page tables. What they decide is tested
 * at length in user space, by tools/testing/ksm; here they meet real folios, real
 * locks, and each other.
 */

/* A folio that could become a KSM folio. */
static struct folio *kt_anon_folio(struct kunit *test)
{
	struct folio *folio = folio_alloc(GFP_KERNEL, 0);

	KUNIT_ASSERT_NOT_NULL(test, folio);
	folio->mapping = (void *)FOLIO_MAPPING_ANON;
	return folio;
}

/* A folio that is the KSM folio of a new node, which is in no tree. */
static struct ksm_stable_node *kt_node(struct kunit *test, u64 hash,
				       struct folio **foliop)
{
	const struct ksm_key key = { .hash = hash };
	struct folio *folio = kt_anon_folio(test);
	struct ksm_stable_node *node;

	node = ksm_node_alloc(&kt_engine(test)->domains.global, &key, folio_pfn(folio));
	KUNIT_ASSERT_NOT_NULL(test, node);
	folio_lock(folio);
	ksm_node_bind(folio, node);
	folio_unlock(folio);
	*foliop = folio;
	return node;
}

static bool kt_stable_insert(struct kunit *test, struct ksm_stable_node *node)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);
	struct ksm_stable_chain *spare = ksm_chain_alloc(GFP_KERNEL);
	bool done;

	spin_lock(&shard->lock);
	done = ksm_stable_insert(engine, shard, node, &spare);
	spin_unlock(&shard->lock);
	ksm_chain_free(spare);
	return done;
}

static void kt_stable_unlink(struct kunit *test, struct ksm_stable_node *node)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);

	spin_lock(&shard->lock);
	ksm_stable_unlink(engine, shard, node, NULL);
	spin_unlock(&shard->lock);
}

/* What a lookup finds, stale nodes reaped on the way. */
static struct folio *kt_stable_pick(struct kunit *test, u64 hash,
				    struct ksm_stable_node **nodep)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_shard *shard = ksm_shard(engine, hash);
	const struct ksm_key key = { .hash = hash };
	struct folio *folio;
	LIST_HEAD(dead);

	spin_lock(&shard->lock);
	folio = ksm_stable_pick(engine, shard, &key, nodep, &dead);
	spin_unlock(&shard->lock);
	ksm_stable_reap(engine, &dead);
	return folio;
}

static bool kt_unstable_insert(struct kunit *test, struct ksm_rmap_item *item,
			       u64 hash)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_shard *shard = ksm_shard(engine, hash);
	const struct ksm_key key = { .hash = hash };
	bool done;

	spin_lock(&shard->lock);
	done = ksm_unstable_insert(engine, shard, item, &key);
	spin_unlock(&shard->lock);
	return done;
}

static void kt_unstable_erase(struct kunit *test, struct ksm_rmap_item *item)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_shard *shard = ksm_shard(engine, item->unstable.key.hash);

	spin_lock(&shard->lock);
	ksm_unstable_erase(engine, shard, item);
	spin_unlock(&shard->lock);
}

/* The chunk for one page, with a slot for it. */
static struct ksm_chunk *kt_chunk(struct ksm_mm *kmm, unsigned long addr)
{
	const struct ksm_candidate cand = { .addr = addr };

	return ksm_chunk_get(kmm, &cand, 1, KSM_CHARGE_TRY);
}

/* An IDLE item for an address where nothing need be mapped. */
static struct ksm_rmap_item *kt_item(struct kunit *test, struct ksm_mm *kmm,
				     unsigned long addr)
{
	struct ksm_chunk *chunk = kt_chunk(kmm, addr);
	struct ksm_rmap_item *item = NULL;

	if (chunk)
		item = ksm_slot_to_item(kmm, chunk, ksm_chunk_slot(chunk, addr), addr,
					KSM_CHARGE_TRY);
	KUNIT_ASSERT_NOT_NULL(test, item);
	return item;
}

static void kt_sight(struct kunit *test, struct ksm_mm *kmm, unsigned long addr)
{
	const struct ksm_history history = { };
	struct ksm_chunk *chunk = kt_chunk(kmm, addr);

	KUNIT_EXPECT_NOT_NULL(test, chunk);
	if (chunk)
		ksm_slot_sight(kmm, chunk, ksm_chunk_slot(chunk, addr), addr, &history);
}

/* engine.c */

/* What was never started has no trees, and nothing minds. */
static void ksm_test_engine_starts_small(struct kunit *test)
{
	struct ksm_engine *engine = kunit_kzalloc(test, sizeof(*engine), GFP_KERNEL);
	struct mm_struct *mm = kt_bare_mm(test);
	struct ksm_shard *shards;

	KUNIT_ASSERT_NOT_NULL(test, engine);
	ksm_engine_init(engine, SZ_1G);
	KUNIT_EXPECT_NULL(test, engine->shards);
	KUNIT_EXPECT_EQ(test, kt_register(engine, mm), 0);
	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_UNMERGE), 0);
	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_STOP), 0);
	KUNIT_EXPECT_NULL(test, engine->shards);
	mutex_lock(&engine->mutex);
	KUNIT_EXPECT_EQ(test, ksm_daemon_forget(engine), 0);
	KUNIT_EXPECT_EQ(test, ksm_validate(engine), 0);
	mutex_unlock(&engine->mutex);
	ksm_unmerge_pfn_range(engine, 0, ULONG_MAX);

	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_MERGE), 0);
	shards = engine->shards;
	KUNIT_EXPECT_NOT_NULL(test, shards);
	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_STOP), 0);
	KUNIT_EXPECT_EQ(test, ksm_daemon_set_run(engine, KSM_RUN_MERGE), 0);
	KUNIT_EXPECT_PTR_EQ(test, engine->shards, shards);
	KUNIT_EXPECT_FALSE(test, ksm_registry_exit(engine, mm));
	ksm_engine_destroy(engine);
}

static void ksm_test_engine_two_do_not_meet(struct kunit *test)
{
	struct ksm_engine *other = kunit_kzalloc(test, sizeof(*other), GFP_KERNEL);
	struct mm_struct *a = kt_mm(test), *b = kt_bare_mm(test);
	unsigned long at_a = kt_map_filled(test, a, 1, 7);
	unsigned long at_b = kt_map_filled(test, b, 1, 7);
	int i, err;

	KUNIT_ASSERT_NOT_NULL(test, other);
	ksm_engine_init(other, 0);
	KUNIT_ASSERT_EQ(test, kt_start(other), 0);
	KUNIT_EXPECT_EQ(test, kt_register(other, b), 0);
	for (i = 0; i < KT_SETTLE; i++) {
		kt_scan(test, 1);
		mutex_lock(&other->mutex);
		ksm_daemon_scan(other, UINT_MAX);
		mutex_unlock(&other->mutex);
	}
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(a, at_a));
	KUNIT_EXPECT_FALSE(test, kt_is_ksm(b, at_b));
	KT_EXPECT_STAT(test, UNSHARED, 1);
	KUNIT_EXPECT_EQ(test, ksm_stat_read(other, KSM_STAT_UNSHARED), 1);
	KUNIT_EXPECT_NE(test, other->seed, kt_engine(test)->seed);

	mutex_lock(&other->mutex);
	err = ksm_unmerge_all(other);
	mutex_unlock(&other->mutex);
	KUNIT_EXPECT_EQ(test, err, 0);
	KUNIT_EXPECT_FALSE(test, ksm_registry_exit(other, b));
	ksm_engine_destroy(other);
}

/* registry.c */

static struct mm_struct *kt_cursor(struct kunit *test)
{
	struct ksm_mm *kmm = kt_engine(test)->registry.cursor;

	return kmm ? kmm->slot.mm : NULL;
}

static struct mm_struct *kt_next(struct kunit *test)
{
	kt_lock(test);
	if (kt_cursor(test))
		ksm_registry_next(kt_engine(test));
	else
		ksm_registry_start(kt_engine(test));
	kt_unlock(test);
	return kt_cursor(test);
}

static void ksm_test_registry_visits_each_once(struct kunit *test)
{
	struct mm_struct *a, *b, *c;

	KUNIT_EXPECT_NULL(test, kt_next(test));
	a = kt_mm(test);
	b = kt_mm(test);
	c = kt_mm(test);
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), a);
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), b);
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), c);
	KUNIT_EXPECT_NULL(test, kt_next(test));
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), a);
}

static void ksm_test_registry_new_one_comes_last(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test), *c;

	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), a);
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), b);
	c = kt_mm(test);
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), c);
	KUNIT_EXPECT_NULL(test, kt_next(test));
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), a);
}

/* Forks, however many, do not keep a pass from coming to its end. */
static void ksm_test_registry_room_is_limited(struct kunit *test)
{
	struct mm_struct *a = kt_mm(test), *b, *c;

	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), a);
	kt_engine(test)->registry.room = 1;
	b = kt_mm(test);
	c = kt_mm(test);
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), b);
	KUNIT_EXPECT_NULL(test, kt_next(test));
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), c);
}

static void ksm_test_registry_new_one_is_unmerged_too(struct kunit *test)
{
	struct mm_struct *a, *b;

	a = kt_mm(test);
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), a);
	kt_engine(test)->run = KSM_RUN_UNMERGE;
	kt_engine(test)->registry.room = 0;
	b = kt_mm(test);
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), b);
	KUNIT_EXPECT_NULL(test, kt_next(test));
	kt_engine(test)->run = KSM_RUN_STOP;
}

static void ksm_test_registry_exit_of_idle(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct mm_struct *a = kt_mm(test), *stranger = kt_bare_mm(test);

	KUNIT_EXPECT_FALSE(test, ksm_registry_exit(engine, stranger));
	KUNIT_EXPECT_FALSE(test, ksm_registry_exit(engine, a));
	KUNIT_EXPECT_TRUE(test, ksm_registry_empty(engine));
	KUNIT_EXPECT_FALSE(test, ksm_registry_exit(engine, a));
	KUNIT_EXPECT_EQ(test, atomic_read(&a->mm_count), 1);
}

static void ksm_test_registry_exit_of_busy(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test), *c = kt_mm(test);

	/* The one under the cursor, whether or not it has anything to retire. */
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), a);
	KUNIT_EXPECT_TRUE(test, ksm_registry_exit(engine, a));
	KUNIT_EXPECT_PTR_EQ(test, kt_cursor(test), a);

	/* One that has, and is then the next. */
	kt_sight(test, kt_kmm(test, c), SZ_1G);
	KUNIT_EXPECT_TRUE(test, ksm_registry_exit(engine, c));
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), c);
	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), b);
	KUNIT_EXPECT_NULL(test, kt_next(test));
}

static void ksm_test_registry_remove_moves_cursor(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	struct ksm_mm *kmm = kt_kmm(test, a);

	KUNIT_EXPECT_PTR_EQ(test, kt_next(test), a);
	kt_lock(test);
	ksm_registry_remove(engine, kmm);
	kt_unlock(test);
	KUNIT_EXPECT_PTR_EQ(test, kt_cursor(test), b);
	KUNIT_EXPECT_NULL(test, kt_kmm(test, a));
	ksm_registry_free(kmm);
	KUNIT_EXPECT_EQ(test, atomic_read(&a->mm_count), 1);
}

static void ksm_test_registry_metadata(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct mm_struct *a = kt_mm(test), *b = kt_mm(test);
	long one;

	KUNIT_EXPECT_EQ(test, ksm_registry_metadata(engine, a), 0);
	kt_sight(test, kt_kmm(test, a), SZ_1G);
	one = ksm_registry_metadata(engine, a);
	KUNIT_EXPECT_EQ(test, one, 2 * (long)sizeof(u64));
	kt_item(test, kt_kmm(test, a), SZ_1G);
	KUNIT_EXPECT_EQ(test, ksm_registry_metadata(engine, a),
			one + (long)sizeof(struct ksm_rmap_item));
	KUNIT_EXPECT_EQ(test, ksm_registry_metadata(engine, a),
			ksm_stat_read(engine, KSM_STAT_BYTES));
	KUNIT_EXPECT_EQ(test, ksm_registry_metadata(engine, b), 0);
}

/* chunk.c */

static void ksm_test_chunk_sparse(struct kunit *test)
{
	const unsigned long addrs[] = {
		PAGE_SIZE, SZ_1G - PAGE_SIZE, SZ_1G, KT_VAST / 4 * 3,
		KT_VAST - PAGE_SIZE,
	};
	const unsigned long empty = KT_VAST / 8 * 5;
	struct ksm_mm *kmm = kt_kmm(test, kt_mm(test));
	unsigned long addr = 0;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, ksm_chunk_next_used(kmm, 0, ULONG_MAX), ULONG_MAX);
	for (i = 0; i < ARRAY_SIZE(addrs); i++)
		kt_sight(test, kmm, addrs[i]);
	for (i = 0; i < ARRAY_SIZE(addrs); i++) {
		addr = ksm_chunk_next_used(kmm, addr, ULONG_MAX);
		KUNIT_EXPECT_EQ(test, addr, addrs[i]);
		addr += PAGE_SIZE;
	}
	KUNIT_EXPECT_EQ(test, ksm_chunk_next_used(kmm, addr, ULONG_MAX), ULONG_MAX);
	KUNIT_EXPECT_EQ(test, ksm_chunk_next_used(kmm, SZ_1G, SZ_1G), SZ_1G);
	KUNIT_EXPECT_EQ(test, ksm_chunk_next_used(kmm, empty, addrs[3]), addrs[3]);
	KUNIT_EXPECT_NULL(test, ksm_chunk_slot(ksm_chunk_find(kmm, empty), empty));
	/* They are few, so that they share what is there for few. */
	KT_EXPECT_STAT(test, CHUNKS, 0);
	KT_EXPECT_STAT(test, TRACKED, ARRAY_SIZE(addrs));
}

/* When there are too many pages for one list, those under one page table part. */
static void ksm_test_chunk_parts(struct kunit *test)
{
	struct ksm_mm *kmm = kt_kmm(test, kt_mm(test));
	const unsigned long base = SZ_1G, end = base + PMD_SIZE;
	unsigned long addr;
	u64 *slot;

	for (addr = base - 9 * PAGE_SIZE; addr < end; addr += PAGE_SIZE)
		kt_sight(test, kmm, addr);
	KT_EXPECT_STAT(test, CHUNKS, 1);
	KT_EXPECT_STAT(test, TRACKED, PTRS_PER_PTE + 9);
	KUNIT_EXPECT_EQ(test, kmm->few.nr, 9);
	for (addr = base - 9 * PAGE_SIZE; addr < end; addr += PAGE_SIZE) {
		slot = ksm_chunk_slot(ksm_chunk_find(kmm, addr), addr);
		KUNIT_EXPECT_TRUE(test, slot && ksm_slot_matches(*slot, addr));
	}
	kt_lock(test);
	KUNIT_EXPECT_EQ(test, ksm_validate(kt_engine(test)), 0);
	/* What is left of an array goes into a list, when there is not much of it. */
	ksm_chunk_retire(kmm, base + 9 * PAGE_SIZE, end);
	KUNIT_EXPECT_EQ(test, ksm_validate(kt_engine(test)), 0);
	kt_unlock(test);
	KUNIT_EXPECT_EQ(test, ksm_registry_metadata(kt_engine(test), kmm->slot.mm),
			sizeof(struct ksm_chunk) + 18 * 2 * sizeof(u64));
}

static void ksm_test_chunk_retire(struct kunit *test)
{
	struct ksm_mm *kmm = kt_kmm(test, kt_mm(test));
	const unsigned long base = SZ_1G;
	unsigned long addr;

	for (addr = base - PMD_SIZE; addr < base + PMD_SIZE; addr += PAGE_SIZE)
		kt_sight(test, kmm, addr);
	kt_lock(test);
	ksm_chunk_retire(kmm, 0, 0);
	ksm_chunk_retire(kmm, base - 3 * PAGE_SIZE, base + 5 * PAGE_SIZE);
	kt_unlock(test);
	KT_EXPECT_STAT(test, TRACKED, 2 * PTRS_PER_PTE - 8);
	KUNIT_EXPECT_EQ(test, ksm_chunk_next_used(kmm, base - 4 * PAGE_SIZE,
						  ULONG_MAX), base - 4 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, ksm_chunk_next_used(kmm, base - 3 * PAGE_SIZE,
						  ULONG_MAX), base + 5 * PAGE_SIZE);
	kt_lock(test);
	ksm_chunk_retire(kmm, base, base + PMD_SIZE);
	kt_unlock(test);
	KT_EXPECT_STAT(test, CHUNKS, 1);
	KUNIT_EXPECT_NULL(test, ksm_chunk_find(kmm, base));
}

static void ksm_test_chunk_retire_takes_from_trees(struct kunit *test)
{
	struct ksm_mm *kmm = kt_kmm(test, kt_mm(test));

	KUNIT_EXPECT_TRUE(test, kt_unstable_insert(test, kt_item(test, kmm, SZ_1G),
						   5));
	KT_EXPECT_STAT(test, UNSHARED, 1);
	kt_lock(test);
	ksm_chunk_retire(kmm, 0, ULONG_MAX);
	kt_unlock(test);
	KT_EXPECT_STAT(test, UNSHARED, 0);
	KT_EXPECT_STAT(test, ITEMS, 0);
}

/* item.c */

static void ksm_test_item_keeps_history(struct kunit *test)
{
	const struct ksm_history history = {
		.age = 15, .skips = 8, .calm = 3, .cows = 2,
	};
	struct ksm_mm *kmm = kt_kmm(test, kt_mm(test));
	const unsigned long addr = SZ_1G + 7 * PAGE_SIZE;
	struct ksm_chunk *chunk = kt_chunk(kmm, addr);
	struct ksm_rmap_item *item;
	struct ksm_history found;
	u64 *slot;

	KUNIT_ASSERT_NOT_NULL(test, chunk);
	slot = ksm_chunk_slot(chunk, addr);
	ksm_slot_sight(kmm, chunk, slot, ~0ULL, &history);
	KUNIT_EXPECT_TRUE(test, ksm_slot_is_sighting(*slot));
	KUNIT_EXPECT_TRUE(test, ksm_slot_matches(*slot, ~0ULL));
	KUNIT_EXPECT_FALSE(test, ksm_slot_matches(*slot, ~0ULL >> 1));
	found = ksm_slot_history(*slot);
	KUNIT_EXPECT_MEMEQ(test, &found, &history, sizeof(found));

	item = ksm_slot_to_item(kmm, chunk, slot, addr, KSM_CHARGE_TRY);
	KUNIT_ASSERT_NOT_NULL(test, item);
	KUNIT_EXPECT_PTR_EQ(test, ksm_slot_item(*slot), item);
	KUNIT_EXPECT_EQ(test, ksm_item_addr(item), addr);
	KUNIT_EXPECT_EQ(test, ksm_item_state(item), KSM_ITEM_IDLE);
	found = ksm_slot_history(*slot);
	KUNIT_EXPECT_EQ(test, found.age, history.age);
	KUNIT_EXPECT_EQ(test, found.skips, history.skips);
	KUNIT_EXPECT_EQ(test, found.cows, history.cows);
	KT_EXPECT_STAT(test, TRACKED, 1);
	KT_EXPECT_STAT(test, ITEMS, 1);
}

/* One folio, several sharers: what is counted, and what a process is told. */
static void ksm_test_item_counts_sharers(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct mm_struct *mm = kt_mm(test);
	struct ksm_rmap_item *items[3];
	struct ksm_stable_node *node;
	struct ksm_shard *shard;
	struct folio *folio;
	int i;

	node = kt_node(test, 5, &folio);
	shard = ksm_shard(engine, 5);
	for (i = 0; i < ARRAY_SIZE(items); i++)
		items[i] = kt_item(test, kt_kmm(test, mm), SZ_1G + i * PAGE_SIZE);
	for (i = 0; i < ARRAY_SIZE(items); i++) {
		spin_lock(&shard->lock);
		ksm_item_attach(engine, items[i], node, NULL, 0);
		spin_unlock(&shard->lock);
		KT_EXPECT_STAT(test, SHARED, 1);
		KT_EXPECT_STAT(test, SHARING, i);
		KUNIT_EXPECT_EQ(test, mm->ksm_merging_pages, i + 1);
	}
	while (i--) {
		spin_lock(&shard->lock);
		ksm_item_detach(engine, items[i]);
		spin_unlock(&shard->lock);
		KT_EXPECT_STAT(test, SHARED, !!i);
		KT_EXPECT_STAT(test, SHARING, i ? i - 1 : 0);
		KUNIT_EXPECT_EQ(test, mm->ksm_merging_pages, i);
	}
	ksm_node_free(engine, node);
	folio_put(folio);
}

/* A wrong change of state is refused, and leaves everything as it was. */
static void ksm_test_item_refuses_wrong_state(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_rmap_item *item = kt_item(test, kt_kmm(test, kt_mm(test)), SZ_1G);
	struct ksm_shard *shard = ksm_shard(engine, 0);

	kunit_warning_suppress(test) {
		spin_lock(&shard->lock);
		ksm_item_unpark(engine, item);
		ksm_item_claim(engine, item);
		spin_unlock(&shard->lock);
	}
	KUNIT_EXPECT_EQ(test, ksm_item_state(item), KSM_ITEM_IDLE);
	KUNIT_EXPECT_EQ(test, atomic_read(&item->owner->claims), 0);
	KT_EXPECT_STAT(test, UNSHARED, 0);
}

/* node.c */

static void ksm_test_node_looks_through(struct kunit *test)
{
	struct ksm_stable_node *node;
	struct folio *folio, *found;

	node = kt_node(test, 5, &folio);
	KUNIT_EXPECT_TRUE(test, folio_test_ksm(folio));
	KUNIT_EXPECT_PTR_EQ(test, ksm_node_of(folio), node);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);

	found = ksm_node_tryget_folio(node);
	KUNIT_EXPECT_PTR_EQ(test, found, folio);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 2);
	folio_put(found);
	found = ksm_node_lock_folio(node);
	KUNIT_EXPECT_PTR_EQ(test, found, folio);
	KUNIT_EXPECT_TRUE(test, folio_test_locked(folio));
	folio_unlock(found);
	folio_put(found);

	folio_put(folio);
	KUNIT_EXPECT_NULL(test, ksm_node_tryget_folio(node));
	KUNIT_EXPECT_NULL(test, ksm_node_lock_folio(node));
	ksm_node_free(kt_engine(test), node);
}

static void ksm_test_node_follows_a_move(struct kunit *test)
{
	struct folio *old, *new = kt_anon_folio(test), *found;
	struct ksm_stable_node *node;

	node = kt_node(test, 5, &old);
	folio_lock(old);
	folio_lock(new);
	ksm_node_bind(new, node);
	ksm_node_moved(node, folio_pfn(new));
	ksm_node_bind(old, NULL);
	folio_unlock(new);
	folio_unlock(old);
	found = ksm_node_tryget_folio(node);
	KUNIT_EXPECT_PTR_EQ(test, found, new);
	if (found)
		folio_put(found);
	KUNIT_EXPECT_NULL(test, ksm_node_of(old));
	KUNIT_EXPECT_TRUE(test, folio_test_ksm(old));
	folio_put(old);
	folio_put(new);
	ksm_node_free(kt_engine(test), node);
}

/* A node in the tree that has lost its last sharer. */
static struct ksm_stable_node *kt_orphan(struct kunit *test, struct folio **folio)
{
	struct ksm_stable_node *node = kt_node(test, 5, folio);

	KUNIT_EXPECT_TRUE(test, kt_stable_insert(test, node));
	ksm_node_orphan(kt_engine(test), node);
	return node;
}

static void kt_expect_sweep(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_stable_node *node;

	kt_lock(test);
	ksm_unmerge_sweep_orphans(engine);
	kt_unlock(test);
	KUNIT_EXPECT_TRUE(test, list_empty(&engine->orphans));
	KUNIT_EXPECT_NULL(test, kt_stable_pick(test, 5, &node));
}

static void ksm_test_node_orphan_is_swept(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct folio *folio;

	ksm_node_orphan(engine, kt_orphan(test, &folio));
	KUNIT_EXPECT_TRUE(test, list_is_singular(&engine->orphans));
	folio_put(folio);
	kt_expect_sweep(test);
}

/* In the swap cache, say: a later life of the folio is not to lead back to the node. */
static void ksm_test_node_orphan_is_unbound(struct kunit *test)
{
	struct folio *folio;

	kt_orphan(test, &folio);
	kt_expect_sweep(test);
	KUNIT_EXPECT_TRUE(test, folio_test_ksm(folio));
	KUNIT_EXPECT_NULL(test, ksm_node_of(folio));
	folio_put(folio);
}

/* stable.c */

static void ksm_test_stable_finds_by_key(struct kunit *test)
{
	const u64 hashes[] = { 0, 1, 2, U64_MAX / 2, U64_MAX - 1, U64_MAX };
	struct ksm_stable_node *nodes[ARRAY_SIZE(hashes)], *node;
	struct folio *folios[ARRAY_SIZE(hashes)], *found;
	int i;

	for (i = 0; i < ARRAY_SIZE(hashes); i++) {
		nodes[i] = kt_node(test, hashes[i], &folios[i]);
		KUNIT_EXPECT_TRUE(test, kt_stable_insert(test, nodes[i]));
	}
	kt_lock(test);
	kt_unlock(test);
	for (i = 0; i < ARRAY_SIZE(hashes); i++) {
		found = kt_stable_pick(test, hashes[i], &node);
		KUNIT_EXPECT_PTR_EQ(test, found, folios[i]);
		if (!found)
			continue;
		KUNIT_EXPECT_PTR_EQ(test, node, nodes[i]);
		folio_put(found);
	}
	KUNIT_EXPECT_NULL(test, kt_stable_pick(test, 3, &node));
	for (i = 0; i < ARRAY_SIZE(hashes); i++) {
		kt_stable_unlink(test, nodes[i]);
		ksm_node_free(kt_engine(test), nodes[i]);
		folio_put(folios[i]);
	}
}

static void ksm_test_stable_reaps_the_stale(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_rmap_item *item = kt_item(test, kt_kmm(test, kt_mm(test)), SZ_1G);
	struct ksm_shard *shard = ksm_shard(engine, 5);
	struct ksm_stable_node *node;
	struct folio *folio;

	node = kt_node(test, 5, &folio);
	KUNIT_EXPECT_TRUE(test, kt_stable_insert(test, node));
	spin_lock(&shard->lock);
	ksm_item_attach(engine, item, node, NULL, 0);
	spin_unlock(&shard->lock);
	KT_EXPECT_STAT(test, SHARED, 1);
	folio_put(folio);
	KUNIT_EXPECT_NULL(test, kt_stable_pick(test, 5, &node));
	KT_EXPECT_STAT(test, SHARED, 0);
	KUNIT_EXPECT_EQ(test, ksm_item_state(item), KSM_ITEM_IDLE);
	KUNIT_EXPECT_TRUE(test, RB_EMPTY_ROOT(&shard->stable));
}

/* unstable.c */

static void ksm_test_unstable_one_of_a_key(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_mm *kmm = kt_kmm(test, kt_mm(test));
	struct ksm_rmap_item *a = kt_item(test, kmm, SZ_1G);
	struct ksm_rmap_item *b = kt_item(test, kmm, SZ_1G + PAGE_SIZE);
	struct ksm_shard *shard = ksm_shard(engine, 5);
	const struct ksm_key key = { .hash = 5 };
	struct ksm_rmap_item *found;

	KUNIT_EXPECT_TRUE(test, kt_unstable_insert(test, a, 5));
	KUNIT_EXPECT_FALSE(test, kt_unstable_insert(test, b, 5));
	KUNIT_EXPECT_EQ(test, ksm_item_state(b), KSM_ITEM_IDLE);
	KT_EXPECT_STAT(test, UNSHARED, 1);

	spin_lock(&shard->lock);
	found = ksm_unstable_claim(engine, shard, &key);
	spin_unlock(&shard->lock);
	KUNIT_EXPECT_PTR_EQ(test, found, a);
	KUNIT_EXPECT_EQ(test, ksm_item_state(a), KSM_ITEM_CLAIMED);
	KUNIT_EXPECT_EQ(test, atomic_read(&kmm->claims), 1);
	KT_EXPECT_STAT(test, UNSHARED, 0);
	KUNIT_EXPECT_TRUE(test, kt_unstable_insert(test, b, 5));

	spin_lock(&shard->lock);
	ksm_item_release(shard, a);
	spin_unlock(&shard->lock);
	KUNIT_EXPECT_EQ(test, ksm_item_state(a), KSM_ITEM_IDLE);
	KUNIT_EXPECT_EQ(test, atomic_read(&kmm->claims), 0);
	kt_unstable_erase(test, b);
	KUNIT_EXPECT_EQ(test, ksm_item_state(b), KSM_ITEM_IDLE);
}

/* chain.c */

static void ksm_test_chain_comes_and_goes(struct kunit *test)
{
	struct ksm_stable_node *nodes[3], *node;
	struct folio *folios[3], *folio;
	int i;

	for (i = 0; i < 3; i++) {
		nodes[i] = kt_node(test, 5, &folios[i]);
		KUNIT_EXPECT_TRUE(test, kt_stable_insert(test, nodes[i]));
		KT_EXPECT_STAT(test, CHAINS, i > 0);
		KT_EXPECT_STAT(test, DUPS, i > 0 ? i + 1 : 0);
	}
	kt_lock(test);
	kt_unlock(test);
	folio = kt_stable_pick(test, 5, &node);
	KUNIT_EXPECT_NOT_NULL(test, folio);
	folio_put(folio);
	for (i = 0; i < 3; i++) {
		kt_stable_unlink(test, nodes[i]);
		ksm_node_free(kt_engine(test), nodes[i]);
		folio_put(folios[i]);
		KT_EXPECT_STAT(test, CHAINS, i < 1);
		KT_EXPECT_STAT(test, DUPS, i < 1 ? 2 : 0);
	}
}

/* Of a chain's folios it does not matter which are gone: any other is found. */
static void ksm_test_chain_passes_over_the_stale(struct kunit *test)
{
	struct ksm_stable_node *nodes[4], *node;
	struct folio *folios[4], *folio;
	int i;

	for (i = 0; i < 4; i++) {
		nodes[i] = kt_node(test, 5, &folios[i]);
		KUNIT_EXPECT_TRUE(test, kt_stable_insert(test, nodes[i]));
	}
	for (i = 3; i > 0; i--) {
		folio_put(folios[i]);
		folio = kt_stable_pick(test, 5, &node);
		KUNIT_ASSERT_NOT_NULL(test, folio);
		folio_put(folio);
	}
	KUNIT_EXPECT_PTR_EQ(test, folio, folios[0]);
	folio_put(folios[0]);
	KUNIT_EXPECT_NULL(test, kt_stable_pick(test, 5, &node));
	KT_EXPECT_STAT(test, CHAINS, 0);
}

/* policy.c */

static void ksm_test_policy_merging_is_earned(struct kunit *test)
{
	struct ksm_history history = { };
	unsigned int calm, cows;

	KUNIT_EXPECT_TRUE(test, ksm_policy_may_merge(&history));
	KUNIT_EXPECT_FALSE(test, ksm_policy_may_park(&history));
	ksm_policy_seen(&history, true);
	KUNIT_EXPECT_TRUE(test, ksm_policy_may_park(&history));

	for (cows = 0; cows < 10; cows++)
		ksm_policy_unmerged(&history);
	for (calm = 0; !ksm_policy_may_merge(&history) && calm < 100; calm++)
		ksm_policy_seen(&history, true);
	KUNIT_EXPECT_GT(test, calm, 1);
	KUNIT_EXPECT_LT(test, calm, 100);
	ksm_policy_seen(&history, false);
	KUNIT_EXPECT_FALSE(test, ksm_policy_may_merge(&history));
	for (cows = 0; cows < 10; cows++)
		ksm_policy_still_merged(&history);
	KUNIT_EXPECT_TRUE(test, ksm_policy_may_merge(&history));
}

/* A page that is new in a region where pages do not stay merged has to earn it. */
static void ksm_test_policy_new_page_takes_after_region(struct kunit *test)
{
	struct ksm_history history = { };
	struct ksm_heat heat = { };
	int i;

	ksm_policy_new_in(&history, &heat, 1);
	KUNIT_EXPECT_TRUE(test, ksm_policy_may_merge(&history));
	for (i = 0; i < U8_MAX + 1; i++)
		ksm_policy_heat(&heat, 1);
	ksm_policy_new_in(&history, &heat, 1);
	KUNIT_EXPECT_FALSE(test, ksm_policy_may_merge(&history));
}

static void ksm_test_policy_skips_are_bounded(struct kunit *test)
{
	struct ksm_history history = { };
	unsigned int pass, since = 0, worst = 0;

	for (pass = 0; pass < 3; pass++)
		KUNIT_EXPECT_FALSE(test, ksm_policy_skip(&history));
	for (; pass < 1000; pass++) {
		since = ksm_policy_skip(&history) ? since + 1 : 0;
		worst = max(worst, since);
	}
	KUNIT_EXPECT_EQ(test, worst, 8);
}

static void ksm_test_policy_advice_keeps_limits(struct kunit *test)
{
	struct ksm_knobs knobs = kt_engine(test)->knobs;
	struct ksm_advice advice;

	knobs.pages_to_scan = 1000;
	knobs.advisor_target_secs = 100;
	advice = ksm_policy_advise(&knobs, 400ULL * NSEC_PER_SEC, NSEC_PER_SEC);
	KUNIT_EXPECT_GT(test, advice.pages_to_scan, 1000);
	KUNIT_EXPECT_LT(test, advice.pages_to_scan, 4000);
	KUNIT_EXPECT_EQ(test, advice.scan_secs, 400);
	advice = ksm_policy_advise(&knobs, 10ULL * NSEC_PER_SEC, NSEC_PER_SEC / 100);
	KUNIT_EXPECT_LT(test, advice.pages_to_scan, 1000);
	knobs.advisor_max_pages = 1200;
	advice = ksm_policy_advise(&knobs, 4000ULL * NSEC_PER_SEC, NSEC_PER_SEC);
	KUNIT_EXPECT_EQ(test, advice.pages_to_scan, 1200);
	knobs.advisor_max_pages = 0;
	advice = ksm_policy_advise(&knobs, 0, 0);
	KUNIT_EXPECT_EQ(test, advice.pages_to_scan, 1);
}

/* In a second ksmd runs for 400 ms, and does a hundredth of the pass. */
static void ksm_test_policy_advises_within_pass(struct kunit *test)
{
	struct ksm_knobs knobs = kt_engine(test)->knobs;
	struct ksm_reading now = { .now_ns = NSEC_PER_SEC, .pages = 5000 };
	struct ksm_advisor advisor = { };
	struct ksm_advice advice;

	knobs.pages_to_scan = 500;
	knobs.advisor_target_secs = 16;
	ksm_policy_watch(&advisor, &now, true);
	ksm_policy_expect(&advisor, 1000000);
	now.now_ns += NSEC_PER_SEC - 1;
	now.cpu_ns += NSEC_PER_SEC / 25 * 10;
	now.pages += 10000;
	KUNIT_EXPECT_FALSE(test, ksm_policy_is_due(&advisor, &knobs, &now));
	now.now_ns++;
	KUNIT_EXPECT_TRUE(test, ksm_policy_is_due(&advisor, &knobs, &now));
	advice = ksm_policy_advise_within(&advisor, &knobs, &now);
	KUNIT_EXPECT_EQ(test, advice.scan_secs, 100);
	KUNIT_EXPECT_EQ(test, advice.cpu_percent, 40);
	/* A third of the way to 500 * 100 / 16, but no more than 70 % of the CPU. */
	KUNIT_EXPECT_EQ(test, advice.pages_to_scan, 875);
	KUNIT_EXPECT_FALSE(test, ksm_policy_is_due(&advisor, &knobs, &now));
	/* The time that it slept goes down with the rate, the rest stays. */
	advice = ksm_policy_advise_after(&advisor, &knobs, &now, 1000000);
	KUNIT_EXPECT_EQ(test, advice.cpu_percent, 53);
	/* New memory counts in full. */
	ksm_policy_expect(&advisor, 1000500);
	KUNIT_EXPECT_EQ(test, advisor.expected_pages, 10500);
}

/* registry.c and daemon.c: a pass that would take too long is sped up on its way. */
static void ksm_test_policy_is_asked_within_pass(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_knobs *knobs = &engine->knobs;

	kt_map_filled(test, kt_mm(test), 600, 7);
	kt_map_filled(test, kt_mm(test), 600, 8);
	KUNIT_EXPECT_GT(test, ksm_registry_anon_pages(engine), 800);
	KUNIT_EXPECT_LT(test, ksm_registry_anon_pages(engine), 1600);
	knobs->advisor_min_pages = 100;
	knobs->advisor_max_cpu = 100;
	knobs->advisor_target_secs = 1;
	ksm_daemon_set_advisor(engine, KSM_ADVISOR_SCAN_TIME);
	kt_scan_pages(test, 10);
	KUNIT_EXPECT_EQ(test, knobs->pages_to_scan, 100);
	schedule_timeout_uninterruptible(HZ / 10);
	kt_scan_pages(test, 10);
	KUNIT_EXPECT_NOT_NULL(test, engine->registry.cursor);
	KUNIT_EXPECT_GT(test, knobs->pages_to_scan, 100);
}

/* stats.c */

static void ksm_test_stats_figures(struct kunit *test)
{
	struct ksm_engine *engine = kt_engine(test);
	struct ksm_mm *kmm = kt_kmm(test, kt_mm(test));
	long cost;

	KUNIT_EXPECT_EQ(test, ksm_stats_profit(engine, 10), 10 * (long)PAGE_SIZE);
	kt_sight(test, kmm, SZ_1G);
	kt_sight(test, kmm, SZ_1G + PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, ksm_stats_volatile(engine), 2);
	KUNIT_EXPECT_TRUE(test, kt_unstable_insert(test, kt_item(test, kmm, SZ_1G),
						   5));
	KUNIT_EXPECT_EQ(test, ksm_stats_volatile(engine), 1);
	cost = ksm_stat_read(engine, KSM_STAT_BYTES);
	KUNIT_EXPECT_EQ(test, ksm_stats_profit(engine, 0), -cost);
	ksm_stat_add(engine, KSM_STAT_SHARING, 5);
	KUNIT_EXPECT_EQ(test, ksm_stats_volatile(engine), 0);
	KUNIT_EXPECT_EQ(test, ksm_stats_profit(engine, 0),
			5 * (long)PAGE_SIZE - cost);
	ksm_stat_add(engine, KSM_STAT_SHARING, -5);
}

static struct kunit_case ksm_test_pure_cases[] = {
	KUNIT_CASE(ksm_test_engine_starts_small),
	KUNIT_CASE(ksm_test_engine_two_do_not_meet),
	KUNIT_CASE(ksm_test_registry_visits_each_once),
	KUNIT_CASE(ksm_test_registry_new_one_comes_last),
	KUNIT_CASE(ksm_test_registry_room_is_limited),
	KUNIT_CASE(ksm_test_registry_new_one_is_unmerged_too),
	KUNIT_CASE(ksm_test_registry_exit_of_idle),
	KUNIT_CASE(ksm_test_registry_exit_of_busy),
	KUNIT_CASE(ksm_test_registry_remove_moves_cursor),
	KUNIT_CASE(ksm_test_registry_metadata),
	KUNIT_CASE(ksm_test_chunk_sparse),
	KUNIT_CASE(ksm_test_chunk_parts),
	KUNIT_CASE(ksm_test_chunk_retire),
	KUNIT_CASE(ksm_test_chunk_retire_takes_from_trees),
	KUNIT_CASE(ksm_test_item_keeps_history),
	KUNIT_CASE(ksm_test_item_counts_sharers),
	KUNIT_CASE(ksm_test_item_refuses_wrong_state),
	KUNIT_CASE(ksm_test_node_looks_through),
	KUNIT_CASE(ksm_test_node_follows_a_move),
	KUNIT_CASE(ksm_test_node_orphan_is_swept),
	KUNIT_CASE(ksm_test_node_orphan_is_unbound),
	KUNIT_CASE(ksm_test_stable_finds_by_key),
	KUNIT_CASE(ksm_test_stable_reaps_the_stale),
	KUNIT_CASE(ksm_test_unstable_one_of_a_key),
	KUNIT_CASE(ksm_test_chain_comes_and_goes),
	KUNIT_CASE(ksm_test_chain_passes_over_the_stale),
	KUNIT_CASE(ksm_test_policy_merging_is_earned),
	KUNIT_CASE(ksm_test_policy_new_page_takes_after_region),
	KUNIT_CASE(ksm_test_policy_skips_are_bounded),
	KUNIT_CASE(ksm_test_policy_advice_keeps_limits),
	KUNIT_CASE(ksm_test_policy_advises_within_pass),
	KUNIT_CASE(ksm_test_policy_is_asked_within_pass),
	KUNIT_CASE(ksm_test_stats_figures),
	{}
};
