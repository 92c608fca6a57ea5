// SPDX-License-Identifier: GPL-2.0-only
/*
 * stable.c: nodes and chains under their keys, with folios that come, move and go.
 */
#include "ksm_internal.h"
#include "../../../../mm/ksm/stable.c"
#include "fake.h"
#include "test.h"
#include "world.h"

static const struct ksm_key key = { .hash = 7ULL << 60, .domain = 3, .nid = 1 };

/* Insert a node under @key; it must succeed. */
static int insert(struct world *w)
{
	int n;

	world_refill(w);
	n = world_insert(w, &key);
	CHECK(n >= 0);
	return n;
}

/* Let items share node @n until it has @nr sharers; takes slots from @s on. */
static void fill(struct world *w, int n, unsigned int nr, int *s)
{
	while (world_sharers(w, n) < nr) {
		CHECK(world_to_item(w, *s));
		world_attach(w, (*s)++, n);
	}
}

static struct ksm_stable_entry *entry(struct world *w)
{
	struct ksm_stable_entry *found;

	spin_lock(&world_shard(w, &key)->lock);
	found = ksm_stable_find(world_shard(w, &key), &key);
	spin_unlock(&world_shard(w, &key)->lock);
	return found;
}

/* Nodes only, no sharers. */
static void test_random(void)
{
	struct world *w = world_init(2 + rnd_below(5));
	int i, n;

	for (i = 0; i < 300; i++) {
		n = world_node(w);
		switch (rnd_below(8)) {
		case 0:
		case 1:
		case 2:
			ksm_fake_no_memory = one_in(4);
			world_refill(w);
			ksm_fake_no_memory = one_in(8);
			world_insert(w, world_key(w));
			ksm_fake_no_memory = false;
			break;
		case 3:
			world_pick(w, world_key(w));
			break;
		case 4:
			if (n >= 0)
				world_unlink(w, n);
			break;
		case 5:
			if (n >= 0 && !w->nodes[n].stale)
				world_free_folio(w, n);
			break;
		case 6:
			if (n >= 0 && !w->nodes[n].stale)
				world_migrate(w, n, rnd_below(3));
			break;
		case 7:
			/* What was unlinked by hand has to lose its folio first. */
			for (n = 0; n < NR_NODES; n++)
				if (w->nodes[n].where == DEAD && !w->nodes[n].stale)
					world_free_folio(w, n);
			world_reap(w);
			break;
		}
		world_check(w);
	}
	world_exit(w);
}

/* As many sharers per folio as are allowed, as few folios as will do. */
static void test_limits(void)
{
	const unsigned int sharers = 60;
	unsigned int max_sharing, i, n;
	struct world *w;
	int picked;

	for (max_sharing = 2; max_sharing <= 9; max_sharing++) {
		w = world_init(max_sharing);
		for (i = 0; i < sharers; i++) {
			CHECK(world_to_item(w, i));
			picked = world_pick(w, &key);
			if (picked < 0)
				picked = insert(w);
			world_attach(w, i, picked);
			world_check(w);
		}
		CHECK_EQ(world_linked(w, &key), DIV_ROUND_UP(sharers, max_sharing));
		/* Room that is made is used, rather than another folio. */
		for (n = 0; n < 20; n++) {
			i = rnd_below(sharers);
			world_detach(w, i, false);
			picked = world_pick(w, &key);
			CHECK(picked >= 0);
			world_attach(w, i, picked);
			world_check(w);
		}
		world_exit(w);
	}
}

static void test_no_spare(void)
{
	struct world *w = world_init(2);
	int s = 0, n;

	/* None is needed for the first of a key. */
	CHECK(!w->spare);
	n = world_insert(w, &key);
	CHECK(n >= 0);
	CHECK(!entry(w)->is_chain);
	/* The second is refused, and the first is untouched by that. */
	CHECK(world_insert(w, &key) < 0);
	world_check(w);
	CHECK(!entry(w)->is_chain);
	CHECK_EQ(world_pick(w, &key), n);
	fill(w, n, 2, &s);
	CHECK(world_pick(w, &key) < 0);
	/* With a spare it works, and the third needs none again. */
	CHECK(insert(w) >= 0 && !w->spare);
	CHECK(entry(w)->is_chain);
	world_check(w);
	CHECK(world_insert(w, &key) >= 0);
	world_check(w);
	world_exit(w);
}

/* A chain gives way to its last dup, wherever that one was in it. */
static void test_collapse(void)
{
	int nr = 2 + rnd_below(6), i, s = 0, n, last;
	struct world *w = world_init(2);

	for (i = 0; i < nr; i++) {
		n = insert(w);
		fill(w, n, rnd_below(3), &s);
		if (one_in(2))
			world_pick(w, &key);
	}
	for (; nr > 1; nr--) {
		CHECK(entry(w)->is_chain);
		CHECK_EQ(entry(w)->nr, nr);
		world_unlink(w, world_node(w));
		world_check(w);
	}
	last = world_node(w);
	CHECK(!entry(w)->is_chain);
	CHECK(ksm_stable_node(entry(w)) == w->nodes[last].node);
	CHECK_EQ(world_pick(w, &key), world_sharers(w, last) < 2 ? last : -1);
	world_unlink(w, last);
	CHECK(!entry(w));
	world_check(w);
	world_exit(w);
}

/* A lookup goes on from stale nodes to a live one, if there is one. */
static void test_stale(void)
{
	struct world *w = world_init(2);
	int nr = 1 + rnd_below(8), live = one_in(2), i, s = 0, n;

	for (i = 0; i < nr + live; i++)
		fill(w, insert(w), rnd_below(2), &s);
	for (i = 0; i < nr; i++) {
		do {
			n = rnd_below(nr + live);
		} while (w->nodes[n].stale);
		world_free_folio(w, n);
	}
	n = world_pick(w, &key);
	CHECK_EQ(n >= 0, live);
	world_check(w);
	if (!live)
		CHECK(!entry(w));
	world_reap(w);
	world_check(w);
	world_exit(w);
}

/* Stale dups that are full are looked for, some at a time, when it is time. */
static void test_prune(void)
{
	struct world *w = world_init(2);
	int nr = 45 + rnd_below(20), i, s = 0, n, kept, rounds = 0;
	/* The chain keeps two dups, if need be stale ones: it is not to vanish. */
	int live = rnd_below(5), rest = max(live, 2);

	w->engine.knobs.prune_millisecs = 1000;
	for (i = 0; i < nr; i++)
		fill(w, insert(w), 2, &s);
	CHECK(world_pick(w, &key) < 0);		/* they are known to be full now */
	for (i = live; i < nr; i++)
		world_free_folio(w, i);

	jiffies += HZ - 1;
	CHECK(world_pick(w, &key) < 0);
	CHECK_EQ(world_linked(w, &key), nr);
	jiffies++;
	do {
		kept = world_linked(w, &key);
		CHECK(world_pick(w, &key) < 0);
		CHECK(kept - world_linked(w, &key) <= KSM_PRUNE_BATCH);
		world_check(w);
		/* Not again before it is time again. */
		n = world_linked(w, &key);
		CHECK(world_pick(w, &key) < 0);
		CHECK_EQ(world_linked(w, &key), n);
		world_reap(w);
		jiffies += HZ;
		CHECK(rounds++ < 4);
	} while (world_linked(w, &key) > rest);

	for (n = 0; n < live; n++)
		CHECK(w->nodes[n].where == LINKED);
	world_check(w);
	world_exit(w);
}

/* A folio that moves takes its node to another key; the sharers come along. */
static void test_rekey(void)
{
	struct ksm_key there = key;
	struct world *w = world_init(3);
	int a, b, s = 0;

	there.nid = 2;
	a = insert(w);
	fill(w, a, 2, &s);

	/* Without a spare it stays where it is, and is still found there. */
	ksm_chain_free(w->spare);
	w->spare = NULL;
	world_migrate(w, a, there.nid);
	CHECK_EQ(world_linked(w, &key), 1);
	CHECK_EQ(world_pick(w, &key), a);
	world_check(w);

	/* With one, it goes where nobody is, and needs no chain there. */
	world_refill(w);
	world_migrate(w, a, there.nid);
	CHECK(w->spare && !entry(w));
	CHECK_EQ(world_pick(w, &there), a);
	world_check(w);

	/* Where there is somebody, both end up on a chain; and back. */
	b = insert(w);
	fill(w, b, 1, &s);
	world_migrate(w, b, there.nid);
	CHECK(!w->spare && !entry(w));
	CHECK_EQ(world_linked(w, &there), 2);
	world_check(w);
	world_refill(w);
	world_migrate(w, a, key.nid);
	CHECK(!entry(w)->is_chain);
	CHECK_EQ(world_pick(w, &key), a);
	CHECK_EQ(world_pick(w, &there), b);
	world_check(w);

	/* To where it is already. */
	world_migrate(w, a, key.nid);
	CHECK_EQ(world_pick(w, &key), a);
	world_check(w);

	/* A node that is in no tree stays in none. */
	world_unlink(w, a);
	world_refill(w);
	world_migrate(w, a, there.nid);
	CHECK_EQ(world_linked(w, &there), 1);
	world_check(w);
	world_exit(w);
}

/* The sharers of a dead node become IDLE, and their anon_vmas are put. */
static void test_reap(void)
{
	struct world *w = world_init(8);
	int i, s = 0, nodes[3];

	for (i = 0; i < 3; i++) {
		nodes[i] = insert(w);
		fill(w, nodes[i], rnd_below(8), &s);
	}
	ksm_node_orphan(&w->engine, w->nodes[nodes[1]].node);
	for (i = 0; i < 2; i++) {
		world_free_folio(w, nodes[i]);
		world_unlink(w, nodes[i]);
	}
	world_check(w);
	world_reap(w);
	world_check(w);
	CHECK(list_empty(&w->engine.orphans));
	CHECK_EQ(world_linked(w, &key), 1);
	for (i = 0; i < s; i++)
		CHECK(w->slots[i].state == KSM_ITEM_IDLE ||
		      w->slots[i].node == nodes[2]);
	world_exit(w);
}

static void test_misuse(void)
{
	struct world *w = world_init(2);
	struct ksm_shard *shard = world_shard(w, &key);
	struct ksm_stable_node *node;
	int n = insert(w);

	node = w->nodes[n].node;
	world_refill(w);
	spin_lock(&shard->lock);

	/* Into the tree twice. */
	ksm_fake_expect();
	CHECK(!ksm_stable_insert(&w->engine, shard, node, &w->spare));
	CHECK_EQ(ksm_fake_expected(), 1);
	CHECK(w->spare);
	spin_unlock(&shard->lock);
	world_check(w);

	/* Out of it twice. */
	world_unlink(w, n);
	spin_lock(&shard->lock);
	ksm_fake_expect();
	ksm_stable_unlink(&w->engine, shard, node, &w->dead);
	CHECK_EQ(ksm_fake_expected(), 1);
	spin_unlock(&shard->lock);
	world_check(w);
	world_exit(w);
}

static void test_locks(void)
{
	struct world *w = world_init(2);
	struct ksm_shard *shard = world_shard(w, &key), *wrong = &w->engine.shards[0];
	struct ksm_stable_node *node;
	int n = insert(w);

	CHECK(shard != wrong);
	node = w->nodes[n].node;
	spin_lock(&wrong->lock);

	ksm_fake_expect();
	CHECK(ksm_stable_find(shard, &key) == &node->entry);
	CHECK(ksm_fake_expected() > 0);
	ksm_fake_expect();
	folio_put(ksm_stable_pick(&w->engine, shard, &key, &node, &w->dead));
	CHECK(ksm_fake_expected() > 0);
	ksm_fake_expect();
	ksm_stable_unlink(&w->engine, shard, node, NULL);
	CHECK(ksm_fake_expected() > 0);
	ksm_fake_expect();
	CHECK(ksm_stable_insert(&w->engine, shard, node, &w->spare));
	CHECK(ksm_fake_expected() > 0);

	/* Reaping sleeps. */
	spin_unlock(&wrong->lock);
	world_free_folio(w, n);
	world_unlink(w, n);
	spin_lock(&wrong->lock);
	ksm_fake_expect();
	world_reap(w);
	CHECK(ksm_fake_expected() > 0);
	spin_unlock(&wrong->lock);
	world_check(w);
	world_exit(w);
}

const struct ksm_test ksm_stable_tests[] = {
	SEEDED("stable: random operations", test_random),
	ONCE("stable: limits of sharing", test_limits),
	ONCE("stable: without a spare chain nothing changes", test_no_spare),
	SEEDED("stable: a chain gives way to its last dup", test_collapse),
	SEEDED("stable: stale nodes are passed by", test_stale),
	SEEDED("stable: stale full dups are pruned", test_prune),
	SEEDED("stable: a moved folio's node gets another key", test_rekey),
	SEEDED("stable: reaping", test_reap),
	ONCE("stable: misuse is refused", test_misuse),
	ONCE("stable: locks are asserted", test_locks),
	END
};
