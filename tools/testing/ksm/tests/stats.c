// SPDX-License-Identifier: GPL-2.0-only
/*
 * stats.c: figures against the same in wider arithmetic.
 */
#include "ksm_internal.h"
#include "../../../../mm/ksm/stats.c"
#include "test.h"

static void set(struct ksm_engine *engine, enum ksm_stat stat, long n)
{
	engine->stats.count[stat].counter = n;
}

static void test_volatile(void)
{
	struct ksm_engine engine = { };
	long shared = rnd_below(1000), sharing = rnd_below(1000);
	long unshared = rnd_below(1000), rest = rnd_below(1000) - 500L;

	/* The other counters are none of its business. */
	set(&engine, KSM_STAT_SCANNED, rnd_below(1000));
	set(&engine, KSM_STAT_SKIPPED, rnd_below(1000));
	set(&engine, KSM_STAT_ITEMS, rnd_below(1000));
	set(&engine, KSM_STAT_CHUNKS, rnd_below(1000));
	set(&engine, KSM_STAT_CHAINS, rnd_below(1000));
	set(&engine, KSM_STAT_DUPS, rnd_below(1000));
	CHECK_EQ(ksm_stats_volatile(&engine), 0);

	set(&engine, KSM_STAT_SHARED, shared);
	set(&engine, KSM_STAT_SHARING, sharing);
	set(&engine, KSM_STAT_UNSHARED, unshared);
	set(&engine, KSM_STAT_TRACKED, shared + sharing + unshared + rest);
	CHECK_EQ(ksm_stats_volatile(&engine), rest > 0 ? rest : 0);
}

static void test_profit(void)
{
	struct ksm_engine engine = { };
	/* 2^46 pages are more than 64 bits of address space have. */
	long sharing = rnd() >> 18, metadata = rnd() >> 6;
	long zero = one_in(2) ? 0 : rnd() >> 18;
	__int128 profit;

	set(&engine, KSM_STAT_SHARED, rnd_below(1000));
	set(&engine, KSM_STAT_SHARING, sharing);
	set(&engine, KSM_STAT_ITEMS, rnd_below(1000));
	set(&engine, KSM_STAT_CHUNKS, rnd_below(1000));
	set(&engine, KSM_STAT_BYTES, metadata);
	profit = ((__int128)sharing + zero) * 4096 - metadata;
	CHECK(ksm_stats_profit(&engine, zero) == profit);
}

static void test_loss(void)
{
	struct ksm_engine engine = { };

	CHECK_EQ(ksm_stats_profit(&engine, 0), 0);
	set(&engine, KSM_STAT_BYTES, 4120);
	CHECK_EQ(ksm_stats_profit(&engine, 0), -4120);
	CHECK_EQ(ksm_stats_profit(&engine, 2), 8192 - 4120);
}

const struct ksm_test ksm_stats_tests[] = {
	SEEDED("stats: volatile is what is left over, and never negative", test_volatile),
	SEEDED("stats: profit is exact", test_profit),
	ONCE("stats: profit is negative when nothing is shared", test_loss),
	END
};
