// SPDX-License-Identifier: GPL-2.0-only
/*
 * unstable.c: one item waits per key, and is found, claimed or gone.
 */
#include "ksm_internal.h"
#include "../../../../mm/ksm/unstable.c"
#include "fake.h"
#include "test.h"
#include "world.h"

static void test_random(void)
{
	struct world *w = world_init(2);
	int i, s;

	for (i = 0; i < 300; i++) {
		s = world_slot(w);
		switch (rnd_below(5)) {
		case 0:
		case 1:
			world_to_item(w, s);
			if (w->slots[s].state == KSM_ITEM_IDLE)
				world_park(w, s, world_key(w));
			break;
		case 2:
			/* An item in any state: erasing what does not wait is nothing. */
			if (w->slots[s].kind == ITEM)
				world_erase(w, s);
			break;
		case 3:
			world_claim(w, world_key(w));
			break;
		case 4:
			s = world_slot_in(w, KSM_ITEM_CLAIMED);
			if (s >= 0)
				world_release(w, s);
			break;
		}
		world_check(w);
	}
	world_exit(w);
}

/* Keys that differ in one part only are different keys, in the right order. */
static void test_key_parts(void)
{
	static const struct ksm_key keys[] = {
		{ .hash = 0 },
		{ .nid = 1 },
		{ .domain = 1 },
		{ .domain = U32_MAX },
		{ .hash = 1 },
		{ .hash = 1ULL << 32 },
		{ .hash = 1ULL << 63 },
		{ .hash = -1 },
		{ .hash = -1, .domain = U32_MAX },
	};
	struct world *w = world_init(2);
	int i, j, n = ARRAY_SIZE(keys);

	for (i = 0; i < n; i++) {
		for (j = 0; j < n; j++)
			CHECK_EQ((ksm_key_cmp(&keys[i], &keys[j]) > 0) -
				 (ksm_key_cmp(&keys[i], &keys[j]) < 0),
				 (i > j) - (i < j));
		world_to_item(w, i);
		world_to_item(w, n + i);
		CHECK(world_park(w, i, &keys[i]));
	}
	world_check(w);
	for (i = 0; i < n; i++)
		CHECK(!world_park(w, n + i, &keys[i]));
	world_check(w);
	for (i = 0; i < n; i++)
		CHECK_EQ(world_claim(w, &keys[i]), i);
	world_check(w);
	world_exit(w);
}

static void test_locks(void)
{
	struct ksm_key key = { .hash = 1ULL << 63 };
	struct world *w = world_init(2);
	struct ksm_shard *shard = world_shard(w, &key);
	struct ksm_shard *wrong = &w->engine.shards[0];
	struct ksm_rmap_item *item;

	CHECK(shard != wrong);
	world_to_item(w, 0);
	item = world_item(w, 0);
	spin_lock(&wrong->lock);

	ksm_fake_expect();
	ksm_unstable_find(shard, &key);
	CHECK(ksm_fake_expected() > 0);
	ksm_fake_expect();
	ksm_unstable_insert(&w->engine, shard, item, &key);
	CHECK(ksm_fake_expected() > 0);
	ksm_fake_expect();
	ksm_unstable_erase(&w->engine, shard, item);
	CHECK(ksm_fake_expected() > 0);
	ksm_fake_expect();
	ksm_unstable_claim(&w->engine, shard, &key);
	CHECK(ksm_fake_expected() > 0);

	spin_unlock(&wrong->lock);
	world_check(w);
	world_exit(w);
}

const struct ksm_test ksm_unstable_tests[] = {
	SEEDED("unstable: random operations", test_random),
	ONCE("unstable: every part of a key counts", test_key_parts),
	ONCE("unstable: locks are asserted", test_locks),
	END
};
