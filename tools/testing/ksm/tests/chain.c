// SPDX-License-Identifier: GPL-2.0-only
/*
 * chain.c: the dup with room is found, and the full ones are gone round.
 */
#include "ksm_internal.h"
#include "../../../../mm/ksm/chain.c"
#include "fake.h"
#include "test.h"
#include "world.h"

#define NR_DUPS		12

/* A chain by itself, in no tree; a dup's sharers are but a number. */
struct model {
	struct world *w;
	struct ksm_stable_chain *chain;
	struct ksm_stable_node *dups[NR_DUPS];	/* NULL: not on the chain */
};

static void init(struct model *m, unsigned int max_page_sharing)
{
	*m = (struct model) { .w = world_init(max_page_sharing) };
	m->chain = ksm_chain_alloc(GFP_KERNEL);
	CHECK(m->chain && m->chain->entry.is_chain && !m->chain->entry.nr);
	spin_lock(&m->w->engine.shards[0].lock);
}

static void add(struct model *m, int i)
{
	struct ksm_key key = { };

	spin_unlock(&m->w->engine.shards[0].lock);
	m->dups[i] = ksm_node_alloc(&m->w->engine.domains.global, &key, 0);
	spin_lock(&m->w->engine.shards[0].lock);
	ksm_chain_add(&m->w->engine, m->chain, m->dups[i]);
}

static void del(struct model *m, int i)
{
	ksm_chain_del(&m->w->engine, m->dups[i]);
	m->dups[i]->entry.nr = 0;
	spin_unlock(&m->w->engine.shards[0].lock);
	ksm_node_free(&m->w->engine, m->dups[i]);
	spin_lock(&m->w->engine.shards[0].lock);
	m->dups[i] = NULL;
}

static int find(struct model *m, const struct ksm_stable_node *node)
{
	int i;

	for (i = 0; i < NR_DUPS; i++)
		if (m->dups[i] == node)
			return i;
	return -1;
}

/* Every dup is on one of the lists, once, and no one without room is taken for roomy. */
static void check(struct model *m)
{
	struct ksm_stable_node *node;
	int i, nr = 0, on_lists = 0;

	for (i = 0; i < NR_DUPS; i++) {
		if (!m->dups[i])
			continue;
		CHECK(m->dups[i]->chain == m->chain);
		nr++;
	}
	list_for_each_entry(node, &m->chain->roomy, link) {
		CHECK(find(m, node) >= 0);
		on_lists++;
	}
	list_for_each_entry(node, &m->chain->full, link) {
		CHECK(find(m, node) >= 0);
		CHECK(node->entry.nr >= m->w->engine.knobs.max_page_sharing);
		on_lists++;
	}
	CHECK_EQ(on_lists, nr);
	CHECK_EQ(m->chain->entry.nr, nr);
	CHECK_EQ(ksm_stat_read(&m->w->engine, KSM_STAT_DUPS), nr);
	CHECK_EQ(ksm_stat_read(&m->w->engine, KSM_STAT_CHAINS), nr > 0);
}

static void end(struct model *m)
{
	int i;

	for (i = 0; i < NR_DUPS; i++) {
		if (m->dups[i])
			del(m, i);
		check(m);
	}
	spin_unlock(&m->w->engine.shards[0].lock);
	ksm_chain_free(m->chain);
	world_exit(m->w);
}

static void test_random(void)
{
	unsigned int max_sharing = 2 + rnd_below(5);
	struct ksm_stable_node *node;
	int i, d, with_room;
	struct model m;

	init(&m, max_sharing);
	for (i = 0; i < 1000; i++) {
		d = rnd_below(NR_DUPS);
		switch (rnd_below(8)) {
		case 0:
			if (m.dups[d])
				del(&m, d);
			else
				add(&m, d);
			break;
		case 1:
		case 2:
			if (!m.dups[d] || !m.dups[d]->entry.nr)
				break;
			m.dups[d]->entry.nr--;
			ksm_chain_has_room(m.dups[d]);
			break;
		case 3:
			node = ksm_chain_next_full(m.chain);
			CHECK(!node || node->entry.nr >= max_sharing);
			CHECK_EQ(!node, list_empty(&m.chain->full));
			break;
		default:
			with_room = 0;
			for (d = 0; d < NR_DUPS; d++)
				with_room += m.dups[d] && m.dups[d]->entry.nr < max_sharing;
			node = ksm_chain_pick(&m.w->engine, m.chain);
			CHECK_EQ(!!node, with_room > 0);
			if (node)
				CHECK(find(&m, node) >= 0 && node->entry.nr++ < max_sharing);
			break;
		}
		check(&m);
	}
	end(&m);
}

/* Of n full dups, n calls return each of them once, again and again. */
static void test_next_full(void)
{
	struct model m;
	int i, round;

	init(&m, 2);
	CHECK(!ksm_chain_next_full(m.chain));
	for (i = 0; i < NR_DUPS; i++) {
		add(&m, i);
		m.dups[i]->entry.nr = 2;
	}
	/* Not known to be full yet. */
	CHECK(!ksm_chain_next_full(m.chain));
	CHECK(!ksm_chain_pick(&m.w->engine, m.chain));
	for (round = 0; round < 3; round++) {
		unsigned int seen = 0;

		for (i = 0; i < NR_DUPS; i++)
			seen |= 1 << find(&m, ksm_chain_next_full(m.chain));
		CHECK_EQ(seen, (1 << NR_DUPS) - 1);
	}
	check(&m);
	end(&m);
}

/* Once per period, also when jiffies wrap round. */
static void test_prune_due(void)
{
	unsigned int ms = 4 * (1 + rnd_below(5000)), period = ms / 4;
	struct model m;
	int i;

	jiffies = -rnd_below(2 * period);
	init(&m, 2);
	m.w->engine.knobs.prune_millisecs = ms;
	for (i = 0; i < 3; i++) {
		CHECK(!ksm_chain_prune_due(&m.w->engine, m.chain));
		jiffies += period - 1;
		CHECK(!ksm_chain_prune_due(&m.w->engine, m.chain));
		jiffies += 1 + (one_in(2) ? 0 : rnd_below(100000));
		CHECK(ksm_chain_prune_due(&m.w->engine, m.chain));
	}
	/* Always; never. */
	m.w->engine.knobs.prune_millisecs = 0;
	CHECK(ksm_chain_prune_due(&m.w->engine, m.chain));
	CHECK(ksm_chain_prune_due(&m.w->engine, m.chain));
	m.w->engine.knobs.prune_millisecs = UINT_MAX;
	jiffies += UINT_MAX;
	CHECK(!ksm_chain_prune_due(&m.w->engine, m.chain));
	end(&m);
}

static void test_memory(void)
{
	struct ksm_stable_chain *chain;
	struct model m;

	ksm_fake_no_memory = true;
	CHECK(!ksm_chain_alloc(GFP_KERNEL));
	ksm_fake_no_memory = false;
	ksm_chain_free(NULL);

	init(&m, 2);
	chain = m.chain;
	add(&m, 0);

	/* A chain with a dup is not freed. */
	ksm_fake_expect();
	ksm_chain_free(chain);
	CHECK_EQ(ksm_fake_expected(), 1);
	check(&m);

	/* It may sleep, if it is told so. */
	ksm_fake_expect();
	ksm_chain_free(ksm_chain_alloc(GFP_KERNEL));
	CHECK(ksm_fake_expected() > 0);
	ksm_chain_free(ksm_chain_alloc(GFP_ATOMIC));
	end(&m);
}

static void test_locks(void)
{
	struct model m;

	init(&m, 2);
	add(&m, 0);
	add(&m, 1);
	spin_unlock(&m.w->engine.shards[0].lock);
	spin_lock(&m.w->engine.shards[1].lock);

	ksm_fake_expect();
	ksm_chain_pick(&m.w->engine, m.chain);
	CHECK_EQ(ksm_fake_expected(), 1);
	ksm_fake_expect();
	ksm_chain_del(&m.w->engine, m.dups[0]);
	CHECK_EQ(ksm_fake_expected(), 1);
	ksm_fake_expect();
	ksm_chain_add(&m.w->engine, m.chain, m.dups[0]);
	CHECK_EQ(ksm_fake_expected(), 1);

	spin_unlock(&m.w->engine.shards[1].lock);
	spin_lock(&m.w->engine.shards[0].lock);
	check(&m);
	end(&m);
}

const struct ksm_test ksm_chain_tests[] = {
	SEEDED("chain: random operations", test_random),
	ONCE("chain: all the full dups get their turn", test_next_full),
	SEEDED("chain: pruning is due once per period", test_prune_due),
	ONCE("chain: allocating and freeing", test_memory),
	ONCE("chain: locks are asserted", test_locks),
	END
};
