// SPDX-License-Identifier: GPL-2.0-only
/*
 * policy.c: rules written out once more, the long way, and the advisor in a loop
 * with a machine that behaves as it assumes.
 */
#include "ksm_internal.h"
#include "../../../../mm/ksm/policy.c"
#include "test.h"

/* The passes in which a page is looked at, counted from its first one. */
static void test_ladder(void)
{
	static const int looks[] = { 1, 2, 3, 4, 6, 9, 12, 17, 22, 27, 36, 45, 54 };
	struct ksm_history history = { };
	unsigned int i = 0;
	int pass;

	for (pass = 1; pass <= looks[ARRAY_SIZE(looks) - 1]; pass++) {
		if (pass != looks[i]) {
			CHECK(ksm_policy_skip(&history));
		} else {
			CHECK(!ksm_policy_skip(&history));
			i++;
		}
	}
	CHECK_EQ(i, ARRAY_SIZE(looks));

	/* It does not get rarer than one in nine. */
	for (pass = 0; pass < 9 * 100; pass++)
		i += !ksm_policy_skip(&history);
	CHECK_EQ(i, ARRAY_SIZE(looks) + 100);
}

/* Any sequence of events keeps a history within what a slot can hold. */
static void test_ranges(void)
{
	struct ksm_history history = { }, old;
	int i, calm = 0, cows = 0;
	bool same;

	for (i = 0; i < 500; i++) {
		old = history;
		switch (rnd_below(5)) {
		case 0:
		case 1:
			same = !one_in(4);
			ksm_policy_seen(&history, same);
			calm = !same ? 0 : calm == 3 ? 3 : calm + 1;
			CHECK_EQ(history.age, old.age);
			CHECK_EQ(history.skips, old.skips);
			break;
		case 2:
			ksm_policy_unmerged(&history);
			cows = cows == 3 ? 3 : cows + 1;
			calm = 0;
			/* It is looked at often again. */
			CHECK_EQ(history.age, 0);
			CHECK_EQ(history.skips, 0);
			break;
		case 3:
			ksm_policy_still_merged(&history);
			cows = cows ? cows - 1 : 0;
			break;
		case 4:
			if (ksm_policy_skip(&history)) {
				CHECK_EQ(history.skips, old.skips - 1);
				CHECK_EQ(history.age, old.age);
			} else {
				CHECK_EQ(old.skips, 0);
				CHECK_EQ(history.age, old.age < 15 ? old.age + 1 : 15);
			}
			break;
		}
		CHECK_EQ(history.calm, calm);
		CHECK_EQ(history.cows, cows);
		CHECK(history.age <= 15 && history.skips <= 15);
	}
}

static void test_may(void)
{
	/* By cows and calm. */
	static const bool may_merge[4][4] = {
		{ true, true, true, true },
		{ false, true, true, true },
		{ false, true, true, true },
		{ false, false, false, true },
	};
	struct ksm_history history = { };

	for (history.cows = 0; history.cows < 4; history.cows++) {
		for (history.calm = 0; history.calm < 4; history.calm++) {
			bool merge = may_merge[history.cows][history.calm];

			CHECK_EQ(ksm_policy_may_merge(&history), merge);
			CHECK_EQ(ksm_policy_may_park(&history),
				 merge && history.calm > 0);
		}
	}
}

/* However often a page was un-merged: staying unchanged, it is merged again. */
static void test_forgiven(void)
{
	struct ksm_history history = { };
	int i;

	for (i = rnd_below(20); i; i--)
		ksm_policy_unmerged(&history);
	for (i = 0; !ksm_policy_may_park(&history); i++) {
		CHECK(i < 3);
		ksm_policy_seen(&history, true);
	}
	for (i = 0; i < 3; i++)
		ksm_policy_still_merged(&history);
	ksm_policy_seen(&history, false);
	CHECK(ksm_policy_may_merge(&history));
}

static void test_shard_bits(void)
{
	unsigned long pages;
	unsigned int bits, last = 0;

	CHECK_EQ(ksm_policy_shard_bits(0), 4);
	CHECK_EQ(ksm_policy_shard_bits(ULONG_MAX), 16);
	for (pages = 1; pages < ULONG_MAX / 2; pages *= 2) {
		bits = ksm_policy_shard_bits(pages);
		CHECK(bits >= 4 && bits <= 16 && bits >= last);
		if (bits > 4 && bits < 16)
			CHECK_EQ(pages >> bits, 1024);
		last = bits;
	}
	CHECK_EQ(last, 16);
}

static void test_third_of_way(void)
{
	int i;

	for (i = 0; i < 1000; i++) {
		u64 from = one_in(2) ? rnd_below(20) : rnd() >> 32;
		u64 to = one_in(2) ? rnd_below(20) : rnd() >> (32 + rnd_below(32));
		u64 now = ksm_third_of_way(from, to);

		if (to == from) {
			CHECK_EQ(now, from);
		} else if (to > from) {
			/* Upwards there is always progress, and never too much. */
			CHECK(now > from && now <= to);
			CHECK((now - from) - (to - from) / 3 <= 1);
		} else {
			CHECK_EQ(from - now, (from - to) / 3);
		}
	}
}

/* Whatever it is told, it answers within the limits, and never 0. */
static void test_advisor_extremes(void)
{
	int i;

	for (i = 0; i < 2000; i++) {
		struct ksm_knobs knobs = {
			.pages_to_scan = rnd_extreme(),
			.advisor_max_cpu = one_in(2) ? rnd_extreme() : rnd_below(101),
			.advisor_min_pages = rnd_extreme(),
			.advisor_max_pages = rnd_extreme(),
			.advisor_target_secs = rnd_extreme(),
		};
		u64 scan_ns = rnd_extreme(), cpu_ns = rnd_extreme();
		struct ksm_advice advice = ksm_policy_advise(&knobs, scan_ns, cpu_ns);
		unsigned long pages = advice.pages_to_scan;
		unsigned long max_pages = knobs.advisor_max_pages ?: 1;

		CHECK(pages >= 1 && pages <= UINT_MAX && pages <= max_pages);
		CHECK(advice.cpu_percent >= 1 && advice.cpu_percent <= 100);
		CHECK(advice.scan_secs >= 1);
	}
}

/*
 * A pass that took longer, or that may take less time, never makes it slower: an
 * overflow somewhere would.
 */
static void test_advisor_monotonic(void)
{
	int i;

	for (i = 0; i < 2000; i++) {
		struct ksm_knobs knobs = {
			.pages_to_scan = rnd_extreme(),
			.advisor_max_cpu = 100,
			.advisor_min_pages = 1,
			.advisor_max_pages = ULONG_MAX,
			.advisor_target_secs = rnd_extreme(),
		};
		struct ksm_knobs patient = knobs;
		u64 longer = rnd_extreme(), shorter = min(rnd_extreme(), longer);
		unsigned long pages;

		pages = ksm_policy_advise(&knobs, longer, 0).pages_to_scan;
		CHECK(pages >= ksm_policy_advise(&knobs, shorter, 0).pages_to_scan);
		patient.advisor_target_secs = max(rnd_extreme(), knobs.advisor_target_secs);
		CHECK(pages >= ksm_policy_advise(&patient, longer, 0).pages_to_scan);
	}
}

/* With limits that agree with each other, each of them is kept. */
static void test_advisor_limits(void)
{
	int i;

	for (i = 0; i < 2000; i++) {
		unsigned long min_pages = 1 + rnd_below(1000);
		struct ksm_knobs knobs = {
			.pages_to_scan = 1 + rnd_below(100000),
			.advisor_max_cpu = 1 + rnd_below(100),
			.advisor_min_pages = min_pages,
			.advisor_max_pages = min_pages + rnd_below(10000),
			.advisor_target_secs = 1 + rnd_below(1000),
		};
		u64 scan_ns = (1 + rnd_below(2000)) * (u64)NSEC_PER_SEC;
		/* In whole percents, as it calculates. */
		u64 percent = 1 + rnd_below(100);
		struct ksm_advice advice =
			ksm_policy_advise(&knobs, scan_ns, scan_ns / 100 * percent);
		u64 limit = knobs.pages_to_scan * (u64)knobs.advisor_max_cpu / percent ?: 1;
		u64 free, want;

		CHECK_EQ(advice.cpu_percent, percent);
		CHECK_EQ(advice.scan_secs, scan_ns / NSEC_PER_SEC);
		CHECK(advice.pages_to_scan <= knobs.advisor_max_pages);
		CHECK(advice.pages_to_scan <= limit);
		if (limit >= min_pages)
			CHECK(advice.pages_to_scan >= min_pages);

		/* And none of them is kept at a time when it does not apply. */
		want = knobs.pages_to_scan * scan_ns /
		       ((u64)knobs.advisor_target_secs * NSEC_PER_SEC);
		free = ksm_third_of_way(knobs.pages_to_scan, want);
		if (free >= min_pages && free <= knobs.advisor_max_pages && free <= limit)
			CHECK_EQ(advice.pages_to_scan, free);
	}
}

/*
 * A machine: a pass over all pages takes a wake-up per pages_to_scan of them, and
 * some CPU time per page. The pass is to take the wanted time after a while.
 */
static void test_advisor_converges(void)
{
	u64 pages = 100000 + rnd_below(10000000);
	u64 wakeup_ns = 1000000 + rnd_below(50000000), page_ns = 10 + rnd_below(500);
	struct ksm_knobs knobs = {
		.pages_to_scan = 1 + (one_in(2) ? rnd_below(100) : rnd_below(1000000)),
		.advisor_max_cpu = 100,
		.advisor_min_pages = 1,
		.advisor_max_pages = 10000000,
		.advisor_target_secs = 10 + rnd_below(1000),
	};
	u64 target_ns = knobs.advisor_target_secs * NSEC_PER_SEC;
	/* Rate at which wake-ups take up what scanning leaves of the target. */
	u64 best = pages * wakeup_ns / (target_ns - pages * page_ns);
	u64 slack = 4 + best / 20;
	int i;

	for (i = 0; i < 60; i++) {
		u64 cpu_ns = pages * page_ns;
		u64 scan_ns = pages * wakeup_ns / knobs.pages_to_scan + cpu_ns;

		knobs.pages_to_scan =
			ksm_policy_advise(&knobs, scan_ns, cpu_ns).pages_to_scan;
	}
	CHECK(knobs.pages_to_scan + slack >= best);
	CHECK(knobs.pages_to_scan <= best + slack);
}

const struct ksm_test ksm_policy_tests[] = {
	ONCE("policy: smart scan looks more and more rarely", test_ladder),
	SEEDED("policy: histories stay in range", test_ranges),
	ONCE("policy: who may merge, who may wait", test_may),
	SEEDED("policy: an un-merged page can redeem itself", test_forgiven),
	ONCE("policy: a shard for a thousand pages", test_shard_bits),
	SEEDED("policy: a third of the way", test_third_of_way),
	SEEDED("policy: advisor survives any figures", test_advisor_extremes),
	SEEDED("policy: advisor speeds up when it is late", test_advisor_monotonic),
	SEEDED("policy: advisor keeps the limits", test_advisor_limits),
	SEEDED("policy: advisor finds the rate for the target", test_advisor_converges),
	END
};
