// SPDX-License-Identifier: GPL-2.0-only
/*
 * All of it together, as the scan uses it: pages are seen, wait, meet, share and
 * part, while folios are freed and migrated, and memory runs out.
 */
#include "ksm_internal.h"
#include "../../../../mm/ksm/ksm.h"
#include "fake.h"
#include "test.h"
#include "world.h"

/* An IDLE item in any slot that is free to be worked on, or -1. */
static int idle_item(struct world *w)
{
	int s = world_slot(w);

	if (w->slots[s].kind == ITEM && w->slots[s].state != KSM_ITEM_IDLE)
		return -1;
	ksm_fake_no_memory = one_in(10);
	if (!world_to_item(w, s))
		s = -1;
	ksm_fake_no_memory = false;
	return s;
}

/* A node for @key with room for one more, an old one or a new one, or -1. */
static int node_for(struct world *w, const struct ksm_key *key)
{
	int n;

	ksm_fake_no_memory = one_in(10);
	world_refill(w);
	n = world_pick(w, key);
	if (n < 0)
		n = world_insert(w, key);
	ksm_fake_no_memory = false;
	return n;
}

/* What a visit of a page does once its content is known: its key. */
static void visit(struct world *w)
{
	const struct ksm_key *key = world_key(w);
	int s = idle_item(w), n, other;

	if (s < 0)
		return;
	n = world_pick(w, key);
	if (n >= 0) {
		world_attach(w, s, n);
		return;
	}
	other = world_claim(w, key);
	if (other < 0) {
		world_park(w, s, key);
		return;
	}
	world_check(w);
	/* The two of them get a folio, or one does, or none. */
	n = node_for(w, key);
	if (n >= 0 && !one_in(4))
		world_attach(w, other, n);
	world_release(w, other);
	world_check(w);
	if (n >= 0 && world_pick(w, key) == n)
		world_attach(w, s, n);
}

/* Forget the page of a slot, wherever it is. */
static void forget(struct world *w, int s)
{
	struct model_slot *slot = &w->slots[s];

	if (slot->kind == ITEM) {
		world_erase(w, s);
		if (slot->state == KSM_ITEM_CLAIMED)
			return;
		if (slot->state == KSM_ITEM_STABLE)
			world_detach(w, s, one_in(2));
	}
	world_check(w);
	if (one_in(2))
		world_clear(w, s);
	else
		world_sight(w, s, rnd_extreme(), world_history());
}

static void folio_event(struct world *w)
{
	int n = world_node(w);

	if (n < 0 || w->nodes[n].stale)
		return;
	if (one_in(2)) {
		world_free_folio(w, n);
	} else {
		ksm_fake_no_memory = one_in(3);
		world_refill(w);
		ksm_fake_no_memory = false;
		world_migrate(w, n, rnd_below(3));
	}
}

static void test_mix(void)
{
	struct world *w = world_init(2 + rnd_below(7));
	int i, s;

	for (i = 0; i < 500; i++) {
		s = world_slot(w);
		switch (rnd_below(12)) {
		case 0:
			if (w->slots[s].kind != ITEM)
				world_sight(w, s, rnd(), world_history());
			break;
		case 1:
			if (w->slots[s].kind != EMPTY)
				world_set_history(w, s, world_history());
			break;
		case 2:
			forget(w, s);
			break;
		case 3:
			world_claim(w, world_key(w));
			break;
		case 4:
			s = world_slot_in(w, KSM_ITEM_CLAIMED);
			if (s >= 0)
				world_release(w, s);
			break;
		case 5:
			folio_event(w);
			break;
		case 6:
			world_reap(w);
			break;
		case 7:
			jiffies += rnd_below(2 * HZ);
			break;
		default:
			visit(w);
			break;
		}
		world_check(w);
	}
	world_exit(w);
}

/* The counters that users see add up. */
static void test_figures(void)
{
	struct world *w = world_init(2 + rnd_below(4));
	long in_trees;
	int i, s;

	for (i = 0; i < 200; i++) {
		s = world_slot(w);
		if (!one_in(3))
			visit(w);
		else if (w->slots[s].kind != ITEM)
			world_sight(w, s, rnd(), world_history());
	}
	in_trees = 0;
	for (s = 0; s < NR_SLOTS; s++)
		in_trees += w->slots[s].kind == ITEM &&
			    w->slots[s].state != KSM_ITEM_IDLE;
	CHECK_EQ(ksm_stats_volatile(&w->engine),
		 ksm_stat_read(&w->engine, KSM_STAT_TRACKED) - in_trees);
	world_exit(w);
}

const struct ksm_test ksm_mix_tests[] = {
	SEEDED("mix: a life of pages", test_mix),
	SEEDED("mix: figures add up", test_figures),
	END
};
