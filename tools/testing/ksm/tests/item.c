// SPDX-License-Identifier: GPL-2.0-only
/*
 * item.c: what slots and items hold, and the counters that go with it.
 */
#include "ksm_internal.h"
#include "../../../../mm/ksm/item.c"
#include "fake.h"
#include "test.h"
#include "world.h"

/* Every history goes into a slot, and into an item, and comes back. */
static void test_packing(void)
{
	struct world *w = world_init(2);
	struct ksm_history history;
	int i;

	CHECK_EQ(KSM_SIGHTING & KSM_HASH_MASK, 0);
	for (i = 0; i < 1 << 12; i++) {
		history = (struct ksm_history) {
			.age = i & 15, .skips = i >> 4 & 15,
			.calm = i >> 8 & 3, .cows = i >> 10,
		};
		world_sight(w, 0, rnd(), history);
		/* Another hash, the same history; another history, the same hash. */
		world_set_history(w, 0, world_history());
		world_set_history(w, 0, history);
		if (i % 16 == 0)
			world_check(w);
		world_to_item(w, 0);
		if (i % 16 == 1)
			world_check(w);
		world_set_history(w, 0, world_history());
		world_set_history(w, 0, history);
		CHECK_EQ(world_item(w, 0)->tagged & KSM_ITEM_STATE, KSM_ITEM_IDLE);
		if (i % 16 == 2)
			world_check(w);
	}
	world_exit(w);
}

static void test_slots(void)
{
	struct world *w = world_init(2);
	int i, s;

	for (i = 0; i < 300; i++) {
		s = world_slot(w);
		switch (rnd_below(5)) {
		case 0:
			world_sight(w, s, rnd_extreme(), world_history());
			break;
		case 1:
			if (w->slots[s].kind != EMPTY)
				world_set_history(w, s, world_history());
			break;
		case 2:
		case 3:
			ksm_fake_no_memory = one_in(3);
			world_to_item(w, s);
			ksm_fake_no_memory = false;
			break;
		case 4:
			world_clear(w, s);
			break;
		}
		world_check(w);
	}
	world_exit(w);
}

static void test_no_memory(void)
{
	struct world *w = world_init(2);

	ksm_fake_no_memory = true;
	CHECK_EQ(ksm_item_create_cache(), -ENOMEM);
	ksm_fake_no_memory = false;
	CHECK_EQ(ksm_item_create_cache(), 0);

	/* From nothing, and from a sighting: both stay what they are. */
	world_sight(w, 1, 0x123456789abcdef0, (struct ksm_history) { 1, 2, 3, 0 });
	ksm_fake_no_memory = true;
	CHECK(!world_to_item(w, 0));
	CHECK(!world_to_item(w, 1));
	ksm_fake_no_memory = false;
	CHECK_EQ(*world_slot_ptr(w, 0), 0);
	CHECK_EQ(*world_slot_ptr(w, 1) & ~0xffffULL, 0x123456789abc0000);
	world_check(w);

	/* An item needs no memory to stay one. */
	world_to_item(w, 1);
	ksm_fake_no_memory = true;
	CHECK(world_to_item(w, 1));
	ksm_fake_no_memory = false;
	world_check(w);
	world_exit(w);
}

/* A node in no tree, to be shared. */
static void loose_node(struct world *w)
{
	struct ksm_key key = { .hash = 5 };

	w->nodes[0] = (struct model_node) {
		.where = LOOSE, .key = key, .stale = true,
		.node = ksm_node_alloc(&w->engine.domains.global, &key, 0),
	};
}

static void free_loose_node(struct world *w)
{
	ksm_node_free(&w->engine, w->nodes[0].node);
	w->nodes[0].where = NONE;
}

static void test_sharers(void)
{
	struct world *w = world_init(2);
	int i, s;

	loose_node(w);
	for (i = 0; i < 200; i++) {
		if (one_in(2)) {
			s = world_slot(w);
			world_to_item(w, s);
			if (w->slots[s].state == KSM_ITEM_IDLE)
				world_attach(w, s, 0);
		} else {
			s = world_slot_in(w, KSM_ITEM_STABLE);
			if (s >= 0)
				world_detach(w, s, false);
		}
		world_check(w);
	}
	while ((s = world_slot_in(w, KSM_ITEM_STABLE)) >= 0)
		world_detach(w, s, false);
	free_loose_node(w);
	world_exit(w);
}

/* The key that items are parked under in test_wrong_state(). */
static const struct ksm_key park_key = { .hash = 5 };

/* Bring slot 0's item into @state. */
static void bring_to(struct world *w, enum ksm_item_state state)
{
	world_to_item(w, 0);
	if (state == KSM_ITEM_STABLE)
		world_attach(w, 0, 0);
	else if (state != KSM_ITEM_IDLE)
		world_park(w, 0, &park_key);
	if (state == KSM_ITEM_CLAIMED)
		world_claim(w, &park_key);
}

static void do_park(struct world *w, struct ksm_rmap_item *item)
{
	ksm_item_park(&w->engine, item, &park_key);
}

static void do_unpark(struct world *w, struct ksm_rmap_item *item)
{
	ksm_item_unpark(&w->engine, item);
}

static void do_claim(struct world *w, struct ksm_rmap_item *item)
{
	ksm_item_claim(&w->engine, item);
}

static void do_attach(struct world *w, struct ksm_rmap_item *item)
{
	ksm_item_attach(&w->engine, item, w->nodes[0].node, &w->anon_vmas[0], 0);
}

static void do_detach(struct world *w, struct ksm_rmap_item *item)
{
	CHECK(!ksm_item_detach(&w->engine, item));
}

static void do_clear(struct world *w, struct ksm_rmap_item *item)
{
	u64 value = (unsigned long)item;
	struct ksm_chunk chunk = { .nr = 1 };

	ksm_slot_clear(item->owner, &chunk, &value);
	CHECK_EQ(value, (unsigned long)item);
	CHECK_EQ(chunk.nr, 1);
}

/*
 * A change from a state that the item is not in is refused with a warning, and
 * nothing is changed.
 */
static void test_wrong_state(void)
{
	static const struct {
		void (*run)(struct world *w, struct ksm_rmap_item *item);
		unsigned int allowed;		/* states */
	} changes[] = {
		{ do_park, 1 << KSM_ITEM_IDLE },
		{ do_unpark, 1 << KSM_ITEM_UNSTABLE },
		{ do_claim, 1 << KSM_ITEM_UNSTABLE },
		{ do_attach, 1 << KSM_ITEM_IDLE | 1 << KSM_ITEM_CLAIMED },
		{ do_detach, 1 << KSM_ITEM_STABLE },
		{ do_clear, 1 << KSM_ITEM_IDLE },
	};
	struct world *w;
	unsigned int i;
	int state;

	for (i = 0; i < ARRAY_SIZE(changes); i++) {
		for (state = KSM_ITEM_IDLE; state <= KSM_ITEM_STABLE; state++) {
			struct ksm_shard *shard;

			if (changes[i].allowed & 1 << state)
				continue;
			w = world_init(2);
			loose_node(w);
			bring_to(w, state);
			shard = world_shard(w, &park_key);
			spin_lock(&shard->lock);
			ksm_fake_expect();
			changes[i].run(w, world_item(w, 0));
			CHECK_EQ(ksm_fake_expected(), 1);
			spin_unlock(&shard->lock);
			world_check(w);
			if (state == KSM_ITEM_STABLE)
				world_detach(w, 0, false);
			free_loose_node(w);
			world_exit(w);
		}
	}
}

static void test_locks(void)
{
	struct world *w = world_init(2);
	struct ksm_rmap_item *item;
	struct ksm_shard *wrong = &w->engine.shards[3];

	loose_node(w);
	CHECK(world_shard(w, &park_key) != wrong);
	world_to_item(w, 0);
	item = world_item(w, 0);
	spin_lock(&wrong->lock);

	ksm_fake_expect();
	do_park(w, item);
	CHECK_EQ(ksm_fake_expected(), 1);
	ksm_fake_expect();
	do_unpark(w, item);
	CHECK_EQ(ksm_fake_expected(), 1);
	ksm_fake_expect();
	do_park(w, item);
	do_claim(w, item);
	CHECK_EQ(ksm_fake_expected(), 2);
	ksm_fake_expect();
	ksm_item_release(world_shard(w, &park_key), item);
	CHECK_EQ(ksm_fake_expected(), 1);
	ksm_fake_expect();
	do_attach(w, item);
	CHECK_EQ(ksm_fake_expected(), 1);
	ksm_fake_expect();
	CHECK(ksm_item_detach(&w->engine, item) == &w->anon_vmas[0]);
	CHECK_EQ(ksm_fake_expected(), 1);

	spin_unlock(&wrong->lock);
	world_check(w);
	free_loose_node(w);
	world_exit(w);
}

/* A claim is given back once, by whatever way the item went meanwhile. */
static void test_claims(void)
{
	struct world *w = world_init(2);
	int i, s, claimed = 0;

	loose_node(w);
	for (i = 0; i < 20; i++) {
		world_to_item(w, i);
		world_park(w, i, world_key(w));
	}
	for (i = 0; i < NR_KEYS; i++)
		claimed += world_claim(w, &w->keys[i]) >= 0;
	CHECK(claimed > 0);
	world_check(w);
	while ((s = world_slot_in(w, KSM_ITEM_CLAIMED)) >= 0) {
		if (one_in(2))
			world_attach(w, s, 0);
		world_release(w, s);
		world_check(w);
	}
	while ((s = world_slot_in(w, KSM_ITEM_STABLE)) >= 0)
		world_detach(w, s, false);
	free_loose_node(w);
	world_exit(w);
}

/* Whoever doubts a page is heeded until it is read, whatever else is remembered of it. */
static void test_doubts(void)
{
	struct world *w = world_init(2);
	u64 *slot = world_slot_ptr(w, 0);
	struct ksm_key key = *world_key(w);

	ksm_slot_distrust(slot, 5);
	CHECK_EQ(*slot, 0);
	world_sight(w, 0, rnd(), world_history());
	CHECK(ksm_slot_trusts(*slot, 5));
	ksm_slot_distrust(slot, 5);
	CHECK(!ksm_slot_trusts(*slot, 5));
	world_set_history(w, 0, world_history());
	CHECK(!ksm_slot_trusts(*slot, 5));
	CHECK(!ksm_slot_is_zeroed(*slot));
	world_check(w);
	world_sight(w, 0, rnd(), world_history());
	CHECK(ksm_slot_trusts(*slot, 5));

	world_to_item(w, 0);
	key.frame = 5;
	world_park(w, 0, &key);
	CHECK(ksm_slot_trusts(*slot, 0x10005));
	CHECK(!ksm_slot_trusts(*slot, 6));
	ksm_slot_distrust(slot, 0x10005);
	CHECK(!ksm_slot_trusts(*slot, 0x10005));
	world_set_history(w, 0, world_history());
	CHECK(!ksm_slot_trusts(*slot, 0x10005));
	world_exit(w);
}

const struct ksm_test ksm_item_tests[] = {
	ONCE("item: histories are packed without loss", test_packing),
	SEEDED("item: random operations on slots", test_slots),
	ONCE("item: without memory nothing changes", test_no_memory),
	SEEDED("item: sharers come and go", test_sharers),
	SEEDED("item: claims are given back", test_claims),
	SEEDED("item: a page that is doubted is read", test_doubts),
	ONCE("item: changes from a wrong state are refused", test_wrong_state),
	ONCE("item: locks are asserted", test_locks),
	END
};
