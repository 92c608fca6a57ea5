// SPDX-License-Identifier: GPL-2.0-only
/*
 * policy.c: rules written out once more, the long way, and the advisor in a loop
 * with machines that behave as it assumes, or not quite.
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

/* Each chunk has its turn in time, neither too often nor too rarely, at any speed. */
static void test_turns(void)
{
	const unsigned long index = rnd(), every = 1 + rnd_below(300);
	const unsigned long step = msecs_to_jiffies(KSM_EPOCH_MS);
	unsigned long now = rnd(), last = 0, counted = 0, slowest;
	struct ksm_epoch epoch = { };
	bool before = false;
	int i, speed;

	slowest = one_in(2) ? 2 : 100 * step;
	for (i = 0; i < 20000; i++) {
		speed = one_in(1000) ? 100 * step : slowest;
		now += rnd_below(speed + 1);
		ksm_policy_begin_pass(&epoch, now);
		counted += epoch.counts;
		if (!ksm_policy_is_turn(&epoch, index, every))
			continue;
		if (before) {
			CHECK(now - last >= every * step);
			CHECK_EQ(counted, every);
		}
		before = true;
		last = now;
		counted = 0;
	}
	/* A pass that is late counts. */
	ksm_policy_begin_pass(&epoch, now + step);
	CHECK(epoch.counts);
	ksm_policy_begin_pass(&epoch, now + step);
	CHECK(!epoch.counts);
}

/* A new mm has a few pages tried, an old one all; and it does not become new again. */
static void test_tries(void)
{
	const unsigned long span = msecs_to_jiffies(KSM_NEW_MS);
	unsigned long born = rnd_extreme();

	CHECK(ksm_policy_may_try(born, born, 0));
	CHECK(ksm_policy_may_try(born, born + span - 1, KSM_NEW_PAGES - 1));
	CHECK(!ksm_policy_may_try(born, born, KSM_NEW_PAGES));
	CHECK(!ksm_policy_may_try(born, born + span - 1, UINT_MAX));
	CHECK(ksm_policy_may_try(born, born + span, UINT_MAX));
	CHECK(ksm_policy_may_try(born, born - 1, UINT_MAX));
}

/* What happens in a region rubs off on its new pages, for some passes. */
static void test_heat(void)
{
	struct ksm_heat heat = { };
	struct ksm_history history;
	unsigned long pass = rnd();
	int i;

	for (i = 0; i < 1000; i++) {
		history = (struct ksm_history) { };
		ksm_policy_new_in(&history, &heat, pass);
		CHECK_EQ(history.cows, i >= KSM_HOT_COWS);
		CHECK_EQ(heat.cows, i < U8_MAX ? i : U8_MAX);
		CHECK_EQ(ksm_policy_may_merge(&history), i < KSM_HOT_COWS);
		ksm_policy_heat(&heat, pass);
	}
	for (i = U8_MAX; i; i /= 2, pass++) {
		history = (struct ksm_history) { };
		ksm_policy_new_in(&history, &heat, pass);
		CHECK_EQ(heat.cows, i);
		CHECK_EQ(history.cows, i >= KSM_HOT_COWS);
	}
	ksm_policy_heat(&heat, pass);
	ksm_policy_new_in(&history, &heat, pass + 8 + rnd_below(240));
	CHECK_EQ(heat.cows, 0);
}

static void test_shard_bits(void)
{
	unsigned long pages;
	unsigned int bits, last = 0;

	CHECK_EQ(ksm_policy_shard_bits(0), 4);
	CHECK_EQ(ksm_policy_shard_bits(ULONG_MAX), 20);
	for (pages = 1; pages < ULONG_MAX / 2; pages *= 2) {
		bits = ksm_policy_shard_bits(pages);
		CHECK(bits >= 4 && bits <= 20 && bits >= last);
		if (bits > 4 && bits < 20)
			CHECK_EQ(pages >> bits, 32);
		last = bits;
	}
	CHECK_EQ(last, 20);
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

/* Any readings of any clocks: within the limits, and no trap. */
static void test_within_extremes(void)
{
	struct ksm_advisor advisor = { };
	struct ksm_knobs knobs = { };
	struct ksm_reading now = { };
	struct ksm_advice advice;
	int i;

	ksm_policy_watch(&advisor, &now, true);
	for (i = 0; i < 2000; i++) {
		knobs.pages_to_scan = rnd_extreme();
		knobs.advisor_max_cpu = rnd_extreme();
		knobs.advisor_min_pages = rnd_extreme();
		knobs.advisor_max_pages = rnd_extreme();
		knobs.advisor_target_secs = rnd_extreme();
		now.now_ns = one_in(2) ? now.now_ns + (rnd() >> 16) : rnd_extreme();
		now.cpu_ns = one_in(2) ? now.cpu_ns + (rnd() >> 16) : rnd_extreme();
		now.pages = rnd_extreme();
		if (one_in(20)) {
			advice = ksm_policy_advise_after(&advisor, &knobs, &now, rnd_extreme());
		} else {
			ksm_policy_expect(&advisor, rnd_extreme());
			if (!ksm_policy_is_due(&advisor, &knobs, &now))
				continue;
			advice = ksm_policy_advise_within(&advisor, &knobs, &now);
		}
		CHECK(advice.pages_to_scan >= 1 && advice.pages_to_scan <= UINT_MAX);
		CHECK(advice.pages_to_scan <= (knobs.advisor_max_pages ?: 1));
		CHECK(advice.cpu_percent >= 1 && advice.cpu_percent <= 100);
		if (one_in(10))
			ksm_policy_watch(&advisor, &now, true);
	}
}

/*
 * A machine with ksmd: it sleeps, and a page that is looked at takes some of the
 * budget and of CPU time. A page that is passed over takes a 50th of the CPU time, and
 * of the budget only one for all that is come past in one go.
 */
struct machine {
	struct ksm_knobs knobs;
	struct ksm_advisor advisor;
	struct ksm_reading now;
	unsigned long anon;
	u64 sleep_ns;
	u64 page_ns;
	unsigned int rate_min, rate_max;	/* in the last pass */
};

/* Pages side by side, with one fate in this pass. */
struct stretch {
	unsigned long pages;
	bool skip;
};

#define PAGES_IN_ONE_GO		(32 * PTRS_PER_PTE)

static struct machine new_machine(void)
{
	return (struct machine) {
		.knobs = {
			.pages_to_scan = 500,
			.advisor_max_cpu = 70,
			.advisor_min_pages = 500,
			.advisor_max_pages = 1000000,
			.advisor_target_secs = 100 + rnd_below(200),
		},
		.now.now_ns = 1 + rnd_below(1000000),
		.sleep_ns = (10 + rnd_below(30)) * (u64)NSEC_PER_MSEC,
		.page_ns = 100 + rnd_below(400),
	};
}

/* What ksmd does at a wake-up. */
static void wake_up(struct machine *m, bool starts)
{
	struct ksm_advisor *advisor = &m->advisor;
	unsigned int *rate = &m->knobs.pages_to_scan;

	if (!advisor->watching) {
		ksm_policy_watch(advisor, &m->now, starts);
		ksm_policy_expect(advisor, m->anon);
	} else if (ksm_policy_is_due(advisor, &m->knobs, &m->now)) {
		ksm_policy_expect(advisor, m->anon);
		*rate = ksm_policy_advise_within(advisor, &m->knobs, &m->now).pages_to_scan;
	}
	m->rate_min = min(m->rate_min, *rate);
	m->rate_max = max(m->rate_max, *rate);
}

/* Return: the budget that is left. */
static unsigned int scan_some(struct machine *m, struct stretch *s, unsigned int budget)
{
	unsigned long nr = min(s->pages, s->skip ? PAGES_IN_ONE_GO : budget);
	u64 cpu_ns = nr * m->page_ns / (s->skip ? 50 : 1);

	s->pages -= nr;
	m->now.pages += nr;
	m->now.cpu_ns += cpu_ns;
	m->now.now_ns += cpu_ns;
	return budget - (s->skip ? 1 : nr);
}

/* Return: how many percent of the wanted time the pass took. */
static unsigned int run_stretches(struct machine *m, struct stretch *s, int nr)
{
	u64 start_ns = m->now.now_ns;
	struct stretch *end = s + nr;
	unsigned int budget;

	m->advisor.watching = false;
	m->rate_min = UINT_MAX;
	m->rate_max = 0;
	while (s < end) {
		wake_up(m, m->now.now_ns == start_ns);
		for (budget = m->knobs.pages_to_scan; budget && s < end; s += !s->pages)
			budget = scan_some(m, s, budget);
		if (s < end)
			m->now.now_ns += m->sleep_ns;
	}
	start_ns = m->now.now_ns - start_ns;
	m->knobs.pages_to_scan =
		ksm_policy_advise_after(&m->advisor, &m->knobs, &m->now,
					m->anon).pages_to_scan;
	m->now.now_ns += m->sleep_ns;
	return start_ns / (m->knobs.advisor_target_secs * (NSEC_PER_SEC / 100));
}

static unsigned int run_pass(struct machine *m, unsigned long pages)
{
	return run_stretches(m, &(struct stretch){ .pages = pages }, 1);
}

/* Pages that take @times the wanted time at the rate to begin with. */
static unsigned long pages_for(struct machine *m, unsigned int times)
{
	u64 wakeups = m->knobs.advisor_target_secs * NSEC_PER_SEC /
		      (m->sleep_ns + m->knobs.advisor_min_pages * m->page_ns);

	return wakeups * m->knobs.advisor_min_pages * times;
}

/* A machine so big that at the first rate a pass takes twenty times too long. */
static void test_within_first_pass(void)
{
	struct machine m = new_machine();
	unsigned long pages = pages_for(&m, 20);
	unsigned int percent;

	m.anon = pages;
	percent = run_pass(&m, pages);
	CHECK(percent >= 100 && percent < 140);
}

/* The first pass is as good as it can be; all others are as they should be. */
static void test_within_keeps_the_time(void)
{
	struct machine m = new_machine();
	unsigned long pages = pages_for(&m, 2 + rnd_below(20));
	unsigned int percent;
	int i;

	/*
	 * Some memory is not on offer, which it cannot know in the first pass, or is
	 * not there yet. If it is most of it, then it takes one pass more.
	 */
	m.anon = pages / 2 + rnd() % (pages * 4);
	run_pass(&m, pages);
	if (m.anon > 2 * pages)
		run_pass(&m, pages);
	for (i = 2; i < 10; i++) {
		percent = run_pass(&m, pages);
		CHECK(percent >= 75 && percent <= 125);
		if (i < 5)
			continue;
		/* The rate has come to rest, and in the right place. */
		CHECK(percent >= 97 && percent <= 103);
		CHECK(m.rate_max - m.rate_min <= 3 + m.rate_max / 50);
	}
}

/* Memory that is there when a pass begins, or no longer there. */
static void test_within_follows_size(void)
{
	struct machine m = new_machine();
	unsigned long least = pages_for(&m, 4), pages = least;
	unsigned long other = rnd() % pages;
	unsigned int percent;
	int i, j;

	for (i = 0; i < 6; i++) {
		for (j = 0; j < 4; j++) {
			m.anon = pages + other;
			percent = run_pass(&m, pages);
			if (j)
				CHECK(percent >= 75 && percent <= 125);
			else if (i)
				CHECK(percent >= 40 && percent <= 140);
		}
		pages = pages == least || (pages == 2 * least && one_in(2)) ?
			pages * 2 : pages / 2;
	}
}

/*
 * ksmd is there first, with next to nothing to do, and then the virtual machines
 * come: their memory grows while it is scanned.
 */
static void test_within_sees_growth(void)
{
	struct machine m = new_machine();
	unsigned long step = pages_for(&m, 1);
	unsigned int percent = 0, i;

	m.anon = 100 + rnd_below(100000);
	for (i = 0; i < 10; i++)
		run_pass(&m, 100);
	CHECK_EQ(m.knobs.pages_to_scan, m.knobs.advisor_min_pages);

	m.advisor.watching = false;
	for (i = 0; i < 20; i++) {
		struct stretch s = { .pages = step };
		u64 start_ns = m.now.now_ns;

		m.anon += i < 10 ? 2 * step : 0;
		for (; s.pages; m.now.now_ns += m.sleep_ns) {
			wake_up(&m, !percent);
			scan_some(&m, &s, m.knobs.pages_to_scan);
		}
		percent += (m.now.now_ns - start_ns) /
			   (m.knobs.advisor_target_secs * (NSEC_PER_SEC / 100));
	}
	/* At the first rate, it would be 2000. */
	CHECK(percent < 250);
}

/* ksmd may not use more of a CPU than allowed, however late it is. */
static void test_within_keeps_cpu_limit(void)
{
	struct machine m = new_machine();
	unsigned long pages;
	u64 cpu_ns, now_ns, percent;
	int i;

	m.page_ns = 2000 + rnd_below(4000);
	pages = pages_for(&m, 3 + rnd_below(10));
	m.knobs.advisor_max_cpu = 10 + rnd_below(60);
	/* All pages in the wanted time would take half as much again. */
	m.knobs.advisor_target_secs = 1 + pages * m.page_ns /
		(NSEC_PER_SEC / 100 * m.knobs.advisor_max_cpu * 3 / 2);
	m.anon = pages;
	for (i = 0; i < 6; i++) {
		cpu_ns = m.now.cpu_ns;
		now_ns = m.now.now_ns;
		run_pass(&m, pages);
		percent = (m.now.cpu_ns - cpu_ns) * 100 / (m.now.now_ns - now_ns);
		CHECK(percent <= m.knobs.advisor_max_cpu + 2 ||
		      m.rate_max == m.knobs.advisor_min_pages);
		/* But it is to use what it may, now that it is late. */
		if (i)
			CHECK(percent + 5 >= m.knobs.advisor_max_cpu * 8 / 10);
	}
}

/*
 * Virtual machines, started one by one, under smart scan: in a pass it looks at all
 * pages of some of them, and at none of the others. The time can only be kept on
 * average, and no pass may take much longer.
 */
static void test_within_smart_scan(void)
{
	enum { VMS = 40, PASSES = 80 };
	struct machine m = new_machine();
	unsigned long pages = pages_for(&m, 30) / VMS;
	struct ksm_history history[VMS] = { };
	unsigned int start[VMS], percent, sum = 0;
	struct stretch s[VMS];
	int i, nr, pass;

	for (i = 0; i < VMS; i++)
		start[i] = rnd_below(PASSES / 3);
	start[0] = 0;
	for (pass = 0; pass < PASSES; pass++) {
		for (i = nr = 0; i < VMS; i++) {
			if (pass < (int)start[i])
				continue;
			s[nr].pages = pages;
			s[nr++].skip = ksm_policy_skip(&history[i]);
		}
		m.anon = nr * pages;
		percent = run_stretches(&m, s, nr);
		if (pass < PASSES / 2)
			continue;
		CHECK(percent <= 250);
		sum += percent;
	}
	CHECK(sum / (PASSES / 2) >= 65);
	CHECK(sum / (PASSES / 2) <= 125);
}

/* Switched on in the middle of a pass, it acts at once. */
static void test_within_joins(void)
{
	struct machine m = new_machine();
	struct stretch s = { .pages = pages_for(&m, 20) };
	unsigned long half = s.pages / 2;
	u64 start_ns = m.now.now_ns;

	m.anon = s.pages;
	m.now.pages = rnd();
	for (; s.pages > half; m.now.now_ns += m.sleep_ns) {
		wake_up(&m, false);
		scan_some(&m, &s, m.knobs.pages_to_scan);
	}
	CHECK(!m.advisor.whole);
	CHECK(m.now.now_ns - start_ns < m.knobs.advisor_target_secs * NSEC_PER_SEC);
}

const struct ksm_test ksm_policy_tests[] = {
	ONCE("policy: smart scan looks more and more rarely", test_ladder),
	SEEDED("policy: histories stay in range", test_ranges),
	ONCE("policy: who may merge, who may wait", test_may),
	SEEDED("policy: an un-merged page can redeem itself", test_forgiven),
	ONCE("policy: regions where pages are un-merged", test_heat),
	SEEDED("policy: turns come in time at any speed", test_turns),
	SEEDED("policy: new mms are mostly left alone", test_tries),
	ONCE("policy: a shard for 32 pages", test_shard_bits),
	SEEDED("policy: a third of the way", test_third_of_way),
	SEEDED("policy: advisor survives any figures", test_advisor_extremes),
	SEEDED("policy: advisor speeds up when it is late", test_advisor_monotonic),
	SEEDED("policy: advisor keeps the limits", test_advisor_limits),
	SEEDED("policy: advisor finds the rate for the target", test_advisor_converges),
	SEEDED("policy: advisor within a pass survives any figures", test_within_extremes),
	SEEDED("policy: first pass of a big machine is not late", test_within_first_pass),
	SEEDED("policy: from then on passes are in time", test_within_keeps_the_time),
	SEEDED("policy: memory may double and halve", test_within_follows_size),
	SEEDED("policy: memory may grow within a pass", test_within_sees_growth),
	SEEDED("policy: advisor within a pass keeps the CPU limit", test_within_keeps_cpu_limit),
	SEEDED("policy: in time with smart scan, on average", test_within_smart_scan),
	SEEDED("policy: advisor joins in a pass", test_within_joins),
	END
};
