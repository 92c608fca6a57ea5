// SPDX-License-Identifier: GPL-2.0
/*
 * What gets merged, when, and what the counters then say, to the page.
 *
 * Capacity planning and other test suites rely on exact figures, so none of the
 * counts here is a bound unless its definition leaves it open. Every test with a
 * merge in it looks at the bytes afterwards.
 */
#include "ksm_reclaim.h"

FIXTURE(merge) {};

FIXTURE_VARIANT(merge)
{
	const char *smart_scan;
};

FIXTURE_VARIANT_ADD(merge, all)
{
	.smart_scan = "0",
};

FIXTURE_VARIANT_ADD(merge, smart)
{
	.smart_scan = "1",
};

FIXTURE_SETUP(merge)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ksm_write("smart_scan", variant->smart_scan));
}

FIXTURE_TEARDOWN_PARENT(merge)
{
	ksm_restore();
}

static void expect_counts(struct __test_metadata *_metadata, long shared,
			  long sharing, long unshared)
{
	EXPECT_EQ(shared, ksm_get("pages_shared"));
	EXPECT_EQ(sharing, ksm_get("pages_sharing"));
	EXPECT_EQ(unshared, ksm_get("pages_unshared"));
	EXPECT_EQ(0, ksm_get("pages_volatile"));
	EXPECT_EQ(shared + sharing, ksm_stat_of(0, "ksm_merging_pages"));
}

/* What is there before run=1 is merged two ends of a pass later. */
TEST_F_TIMEOUT(merge, duplicates_merge_in_two_passes, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(100, 1);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(2));
	expect_counts(_metadata, 1, 99, 0);
	EXPECT_EQ(100, ksm_count_merged(addr, 100));
	EXPECT_TRUE(ksm_one_frame(addr, 100));
	EXPECT_TRUE(ksm_pages_hold(addr, 100, 1, 0));
}

/*
 * The same for memory that changed while ksmd was stopped. Smart scanning may
 * hold back what is unmerged again and again, so it is asked only once more, and
 * given the passes that it may skip.
 */
TEST_F_TIMEOUT(merge, later_duplicates_merge_in_two_passes, KSM_TIMEOUT)
{
	bool smart = *variant->smart_scan == '1';
	int passes = smart ? 2 * (KSM_SKIPS_MAX + 1) : 2;
	int rounds = smart ? 2 : 5;
	char *addr = ksm_map(20);

	ASSERT_NE(MAP_FAILED, addr);
	ksm_fill_pages(addr, 20, 1000, 1);
	ASSERT_EQ(0, ksm_madvise(addr, 20, MADV_MERGEABLE));
	for (int round = 0; round < rounds; round++) {
		ASSERT_EQ(0, ksm_scan(3));
		ksm_fill_pages(addr, 20, round, 0);
		ASSERT_EQ(0, ksm_scan(passes));
		expect_counts(_metadata, 1, 19, 0);
		ASSERT_TRUE(ksm_pages_hold(addr, 20, round, 0));
	}
}

/*
 * A page that was skipped for long must be found by a new twin: whether two
 * pages meet may not depend on the phases in which they are visited.
 */
TEST_F_TIMEOUT(merge, old_page_meets_new_twin, KSM_TIMEOUT)
{
	char *addr = ksm_map(4), *twin;

	ASSERT_NE(MAP_FAILED, addr);
	ksm_fill_pages(addr, 4, 2000, 1);
	ASSERT_EQ(0, ksm_madvise(addr, 4, MADV_MERGEABLE));
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, ksm_scan(20 + i));
		twin = ksm_map(1);
		ASSERT_NE(MAP_FAILED, twin);
		ksm_fill(twin, 2000 + i);
		ASSERT_EQ(0, ksm_madvise(twin, 1, MADV_MERGEABLE));
		ASSERT_EQ(0, ksm_scan(2));
		EXPECT_EQ(i + 1, ksm_get("pages_sharing")) {
			TH_LOG("twin %d", i);
		}
		EXPECT_TRUE(ksm_holds(ksm_page(addr, i), 2000 + i));
		EXPECT_TRUE(ksm_holds(twin, 2000 + i));
	}
}

TEST_F_TIMEOUT(merge, unique_pages_stay_unshared, KSM_TIMEOUT)
{
	char *addr = ksm_map(100);

	ASSERT_NE(MAP_FAILED, addr);
	ksm_fill_pages(addr, 100, 1, 1);
	ASSERT_EQ(0, ksm_madvise(addr, 100, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	expect_counts(_metadata, 0, 0, 100);
	EXPECT_EQ(0, ksm_count_merged(addr, 100));
	EXPECT_TRUE(ksm_pages_hold(addr, 100, 1, 1));
}

/* Equal but for one bit, at the end, at the start, or in the middle. */
TEST_F_TIMEOUT(merge, almost_equal_is_not_equal, KSM_TIMEOUT)
{
	size_t at[] = { 0, psize() / 2 + 1, psize() - 1 };
	char *addr = ksm_map_dups(4, 3);

	ASSERT_NE(MAP_FAILED, addr);
	for (int i = 0; i < 3; i++)
		ksm_page(addr, i + 1)[at[i]] ^= 1;
	ASSERT_EQ(0, ksm_scan(4));
	expect_counts(_metadata, 0, 0, 4);
	for (int i = 0; i < 3; i++) {
		ksm_page(addr, i + 1)[at[i]] ^= 1;
		EXPECT_TRUE(ksm_holds(ksm_page(addr, i + 1), 3));
	}
}

TEST_F_TIMEOUT(merge, several_contents, KSM_TIMEOUT)
{
	char *addr = ksm_map(35);
	int intact = 0;

	ASSERT_NE(MAP_FAILED, addr);
	for (int i = 0; i < 30; i++)
		ksm_fill(ksm_page(addr, i), i % 3);
	ksm_fill_pages(ksm_page(addr, 30), 5, 100, 1);
	ASSERT_EQ(0, ksm_madvise(addr, 35, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	expect_counts(_metadata, 3, 27, 5);
	for (int i = 0; i < 30; i++)
		intact += ksm_holds(ksm_page(addr, i), i % 3);
	EXPECT_EQ(30, intact);
	EXPECT_TRUE(ksm_pages_hold(ksm_page(addr, 30), 5, 100, 1));
}

/* The smallest batch changes how long it takes, not what comes of it. */
TEST_F_TIMEOUT(merge, one_page_at_a_time, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(16, 4);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_write("pages_to_scan", "1"));
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(15, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_pages_hold(addr, 16, 4, 0));
}

/* Passes end, and are counted, also when there is nothing to do. */
TEST_F_TIMEOUT(merge, passes_go_on_when_idle, KSM_TIMEOUT)
{
	char *empty = ksm_map(4), *addr;

	ASSERT_NE(MAP_FAILED, empty);
	ASSERT_EQ(0, ksm_madvise(empty, 4, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_write("run", "1"));
	ASSERT_EQ(0, ksm_wait_scans(5));
	addr = ksm_map_dups(4, 5);
	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ(0, ksm_wait_scans(30));
}

/* What was unmerged by a write is off the books at the end of one pass. */
TEST_F_TIMEOUT(merge, counters_follow_cow_in_one_pass, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(10, 6);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(2));
	ASSERT_EQ(9, ksm_get("pages_sharing"));
	ksm_fill_pages(addr, 10, 600, 1);
	ASSERT_EQ(0, ksm_scan(1));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_TRUE(ksm_pages_hold(addr, 10, 600, 1));
}

TEST_F_TIMEOUT(merge, unmergeable_and_back, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(10, 7);

	ASSERT_NE(MAP_FAILED, addr);
	for (int round = 0; round < 3; round++) {
		ASSERT_EQ(0, ksm_scan(3));
		ASSERT_EQ(10, ksm_count_merged(addr, 10));
		ASSERT_EQ(0, ksm_madvise(addr, 10, MADV_UNMERGEABLE));
		EXPECT_EQ(0, ksm_count_merged(addr, 10));
		EXPECT_TRUE(ksm_pages_hold(addr, 10, 7, 0));
		ASSERT_EQ(0, ksm_madvise(addr, 10, MADV_MERGEABLE));
	}
}

static void check_profit(struct __test_metadata *_metadata, long gain, long cost,
			 long items)
{
	TH_LOG("%ld bytes gained, %ld bytes of cost for %ld items", gain, cost, items);
	EXPECT_GT(cost, 0);
	EXPECT_LE(cost, items * KSM_ITEM_COST_MAX);
}

/* Profit is what the saved pages are worth, less the tracking of each page. */
TEST_F_TIMEOUT(merge, profit_arithmetic, KSM_TIMEOUT)
{
	char *addr = ksm_map(40), *zero = ksm_map(8);
	long gain, items;

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_NE(MAP_FAILED, zero);
	ksm_fill_pages(addr, 30, 8, 0);
	ksm_fill_pages(ksm_page(addr, 30), 10, 800, 1);
	memset(zero, 0, 8 * psize());
	ASSERT_EQ(0, ksm_madvise(addr, 40, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_madvise(zero, 8, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_write("use_zero_pages", "1"));
	ASSERT_EQ(0, ksm_scan(3));

	ASSERT_EQ(29, ksm_get("pages_sharing"));
	ASSERT_EQ(8, ksm_get("ksm_zero_pages"));
	gain = (29 + 8) * (long)psize();
	check_profit(_metadata, gain, gain - ksm_get("general_profit"), 48);

	items = ksm_stat_of(0, "ksm_rmap_items");
	EXPECT_GE(items, 30);
	EXPECT_LE(items, 48);
	gain = (30 + 8) * (long)psize();
	check_profit(_metadata, gain, gain - ksm_stat_of(0, "ksm_process_profit"), 48);
}

/* Two processes share; when one ends its part is off the books after a pass. */
TEST_F_TIMEOUT(merge, two_processes, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(6, 9);
	struct ksm_child child;

	ASSERT_NE(MAP_FAILED, addr);
	if (ksm_child_fork(&child)) {
		munmap(addr, 6 * psize());
		addr = ksm_map_dups(4, 9);
		ksm_child_pause(&child);
		_exit(addr == MAP_FAILED || !ksm_pages_hold(addr, 4, 9, 0));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(9, ksm_get("pages_sharing"));
	EXPECT_EQ(6, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_EQ(4, ksm_stat_of(child.pid, "ksm_merging_pages"));
	EXPECT_EQ(0, ksm_child_finish(&child));
	ASSERT_EQ(0, ksm_scan(1));
	expect_counts(_metadata, 1, 5, 0);
	EXPECT_TRUE(ksm_pages_hold(addr, 6, 9, 0));
}

/* These choose their own smart_scan, or need it off. */
FIXTURE(plain) {};

FIXTURE_SETUP(plain)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(plain)
{
	ksm_restore();
}

/* More than half of the visits to a page that never changes are skipped. */
TEST_F_TIMEOUT(plain, smart_scan_skips_unchanged, KSM_TIMEOUT)
{
	long skipped = ksm_get("pages_skipped"), passes;
	char *addr = ksm_map_dups(1, 1);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_write("smart_scan", "1"));
	ASSERT_EQ(0, ksm_scan(60));
	passes = ksm_get("full_scans");
	skipped = ksm_get("pages_skipped") - skipped;
	TH_LOG("%ld of %ld", skipped, passes);
	EXPECT_GE(skipped, passes / 2);
	EXPECT_LT(skipped, passes);
}

TEST_F_TIMEOUT(plain, without_smart_scan_all_are_visited, KSM_TIMEOUT)
{
	long skipped, scanned, passes;
	char *addr = ksm_map(10);

	ASSERT_NE(MAP_FAILED, addr);
	ksm_fill_pages(addr, 10, 1, 1);
	ASSERT_EQ(0, ksm_madvise(addr, 10, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(2));
	skipped = ksm_get("pages_skipped");
	scanned = ksm_get("pages_scanned");
	passes = ksm_get("full_scans");
	ASSERT_EQ(0, ksm_scan(30));
	passes = ksm_get("full_scans") - passes;
	EXPECT_EQ(skipped, ksm_get("pages_skipped"));
	EXPECT_EQ(10 * passes, ksm_get("pages_scanned") - scanned);
}

/*
 * max_page_sharing: n equal pages with a limit of m make ceil(n/m) KSM pages; a
 * last one left alone stays as it is. More than one are chained as dups.
 */
FIXTURE(limit) {};

FIXTURE_VARIANT(limit)
{
	int n, m;
};

FIXTURE_VARIANT_ADD(limit, below) { .n = 5, .m = 8 };
FIXTURE_VARIANT_ADD(limit, equal) { .n = 8, .m = 8 };
FIXTURE_VARIANT_ADD(limit, one_left) { .n = 9, .m = 8 };
FIXTURE_VARIANT_ADD(limit, two_left) { .n = 10, .m = 8 };
FIXTURE_VARIANT_ADD(limit, multiple) { .n = 24, .m = 8 };
FIXTURE_VARIANT_ADD(limit, pairs) { .n = 40, .m = 2 };
FIXTURE_VARIANT_ADD(limit, odd_pairs) { .n = 41, .m = 2 };
FIXTURE_VARIANT_ADD(limit, many) { .n = 600, .m = 256 };

FIXTURE_SETUP(limit)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ksm_set("max_page_sharing", variant->m));
}

FIXTURE_TEARDOWN_PARENT(limit)
{
	ksm_restore();
}

static int sharers_of(char *addr, int n, unsigned long pfn)
{
	int sharers = 0;

	for (int i = 0; i < n; i++)
		sharers += ksm_pfn(ksm_page(addr, i)) == pfn;
	return sharers;
}

TEST_F_TIMEOUT(limit, exact_split, KSM_TIMEOUT)
{
	int n = variant->n, m = variant->m;
	int left = n % m == 1;
	int shared = n / m + (n % m > 1);
	char *addr = ksm_map_dups(n, 1);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(3));
	expect_counts(_metadata, shared, n - left - shared, left);
	EXPECT_EQ(shared > 1, ksm_get("stable_node_chains"));
	EXPECT_EQ(shared > 1 ? shared : 0, ksm_get("stable_node_dups"));
	EXPECT_LE(sharers_of(addr, n, ksm_pfn(addr)), m);
	EXPECT_TRUE(ksm_pages_hold(addr, n, 1, 0));

	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(0, ksm_get("stable_node_chains"));
	EXPECT_EQ(0, ksm_get("stable_node_dups"));
	EXPECT_EQ(0, ksm_count_merged(addr, n));
	EXPECT_TRUE(ksm_pages_hold(addr, n, 1, 0));
}

/*
 * Dups that nobody uses any more are pruned, and a chain of one is no chain.
 * Only the sharers of the first page keep the content; the search for a new
 * page of that content is then what finds the others gone.
 */
TEST_F_TIMEOUT(plain, unused_dups_are_pruned, KSM_TIMEOUT)
{
	unsigned long kept;
	char *addr;
	int last = 0, intact = 0;

	ASSERT_EQ(0, ksm_write("max_page_sharing", "4"));
	ASSERT_EQ(0, ksm_write("stable_node_chains_prune_millisecs", "0"));
	addr = ksm_map_dups(24, 10);
	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(6, ksm_get("stable_node_dups"));

	kept = ksm_pfn(addr);
	for (int i = 1; i < 24; i++) {
		if (ksm_pfn(ksm_page(addr, i)) == kept)
			last = i;
		else
			ksm_fill(ksm_page(addr, i), 2000 + i);
	}
	ksm_fill(ksm_page(addr, last), 2000 + last);
	ASSERT_EQ(0, ksm_scan(2));
	ksm_fill(ksm_page(addr, last), 10);
	ASSERT_EQ(0, ksm_scan(3));
	expect_counts(_metadata, 1, 3, 20);
	EXPECT_EQ(0, ksm_get("stable_node_chains"));
	EXPECT_EQ(0, ksm_get("stable_node_dups"));
	for (int i = 0; i < 24; i++)
		intact += ksm_holds(ksm_page(addr, i), 10) ||
			  ksm_holds(ksm_page(addr, i), 2000 + i);
	EXPECT_EQ(24, intact);
}

/* What 22 pages take that are unique, each @stride pages after the last. */
static long small_cost(struct __test_metadata *_metadata, size_t stride)
{
	const size_t nr = 22;
	char *addr = ksm_map(nr * stride);
	long profit;

	ASSERT_NE(MAP_FAILED, addr);
	for (size_t i = 0; i < nr; i++)
		ksm_fill(ksm_page(addr, i * stride), 1000 * stride + i);
	ASSERT_EQ(0, ksm_madvise(addr, nr * stride, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(0, ksm_write("run", "0"));
	EXPECT_EQ((long)nr, ksm_stat_of(0, "ksm_rmap_items"));
	profit = ksm_stat_of(0, "ksm_process_profit");
	EXPECT_EQ(profit, ksm_get("general_profit"));
	munmap(addr, nr * stride * psize());
	ASSERT_EQ(0, ksm_scan(2));
	EXPECT_EQ(0, ksm_get("general_profit"));
	return -profit;
}

/* However the pages of a small process lie, none takes more than 64 bytes. */
TEST_F_TIMEOUT(plain, small_processes_are_cheap, KSM_TIMEOUT)
{
	for (size_t stride = 1; stride <= 512; stride *= 2) {
		long cost = small_cost(_metadata, stride);

		TH_LOG("%ld bytes for 22 pages, %zu apart", cost, stride);
		EXPECT_LE(cost, 22 * KSM_ITEM_COST_MAX);
	}
}

/* -- Who pays -- */

#define PAID_PAGES	16384

FIXTURE(payer)
{
	struct ksm_child child;
};

/* A child in a cgroup, with as many pages, no two of them equal. */
static void live_in_cgroup(struct ksm_child *child)
{
	char *addr = ksm_map(PAID_PAGES);

	if (addr == MAP_FAILED || ksm_spew(KSM_CGROUP "/cgroup.procs", "0"))
		_exit(1);
	ksm_fill_pages(addr, PAID_PAGES, 1, 1);
	if (ksm_madvise(addr, PAID_PAGES, MADV_MERGEABLE))
		_exit(2);
	ksm_child_pause(child);
	_exit(ksm_pages_hold(addr, PAID_PAGES, 1, 1) ? 0 : 3);
}

FIXTURE_SETUP(payer)
{
	const char *why_not = ksm_setup();
	struct ksm_child child;		/* @self is shared with it */

	if (why_not)
		SKIP(return, "%s", why_not);
	if (!ksm_cgroups_on() || !ksm_cgroup_make(KSM_CGROUP))
		SKIP(return, "no memory cgroups (v2)");
	if (ksm_child_fork(&child))
		live_in_cgroup(&child);
	ASSERT_TRUE(ksm_child_wait(&child));
	self->child = child;
}

FIXTURE_TEARDOWN_PARENT(payer)
{
	ksm_restore();
	rmdir(KSM_CGROUP);
}

static long cgroup_get(const char *file, const char *field)
{
	char path[96], buf[4096], *at;

	snprintf(path, sizeof(path), KSM_CGROUP "/%s", file);
	if (ksm_slurp(path, buf, sizeof(buf)) <= 0)
		return LONG_MIN;
	at = field ? strstr(buf, field) : buf;
	return at ? strtol(at + (field ? strlen(field) : 0), NULL, 10) : LONG_MIN;
}

/* The kernel charges up to 64 pages for each CPU in advance. */
static long slack(void)
{
	return 64 * psize() * sysconf(_SC_NPROCESSORS_ONLN);
}

/* What is remembered of a process's pages is charged to its cgroup, and given back. */
TEST_F_TIMEOUT(payer, is_the_cgroup, KSM_TIMEOUT)
{
	long before = cgroup_get("memory.current", NULL), cost, paid;

	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(0, ksm_write("run", "0"));
	EXPECT_EQ(PAID_PAGES, ksm_stat_of(self->child.pid, "ksm_rmap_items"));
	cost = -ksm_stat_of(self->child.pid, "ksm_process_profit");
	paid = cgroup_get("memory.current", NULL) - before;
	TH_LOG("%ld bytes, %ld paid", cost, paid);
	EXPECT_GE(paid, cost - slack());
	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_LE(cgroup_get("memory.current", NULL), before + slack());
	EXPECT_EQ(0, ksm_child_finish(&self->child));
}

/*
 * A cgroup at its limit: ksmd does not go beyond it, nor has anybody killed for it. What
 * was not remembered is, when there is room.
 */
TEST_F_TIMEOUT(payer, is_at_its_limit, KSM_TIMEOUT)
{
	long room = cgroup_get("memory.current", NULL) + 16 * psize();
	char limit[24];

	snprintf(limit, sizeof(limit), "%ld", room);
	ASSERT_EQ(0, ksm_spew(KSM_CGROUP "/memory.max", limit));
	ASSERT_EQ(0, ksm_scan(5));
	EXPECT_EQ(0, cgroup_get("memory.events", "oom_kill "));
	EXPECT_LE(cgroup_get("memory.current", NULL), room);
	EXPECT_LT(ksm_get("pages_unshared"), PAID_PAGES);
	EXPECT_LE(-ksm_stat_of(self->child.pid, "ksm_process_profit"),
		  16 * (long)psize() + slack());

	/* It is not asked for a second after it has refused. */
	ASSERT_EQ(0, ksm_spew(KSM_CGROUP "/memory.max", "max"));
	sleep(2);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(PAID_PAGES, ksm_get("pages_unshared"));
	EXPECT_EQ(0, cgroup_get("memory.events", "oom_kill "));
	EXPECT_EQ(0, ksm_child_finish(&self->child));
}

/* Groups of pages, the same in each, and too few for an array of slots. */
#define GROUPS		32
#define GROUP_PAGES	200
#define GROUP_STRIDE	512

static pid_t fork_and_wait(void)
{
	pid_t pid = fork();

	if (pid < 0)
		_exit(4);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

/* A child in the cgroup that has its groups merged, forks, and gives most of them back. */
static void share_in_cgroup(struct ksm_child *child)
{
	char *addr = ksm_map(GROUPS * GROUP_STRIDE);
	pid_t pid;

	if (addr == MAP_FAILED || ksm_spew(KSM_CGROUP "/cgroup.procs", "0"))
		_exit(1);
	for (size_t i = 0; i < GROUPS; i++)
		ksm_fill_pages(ksm_page(addr, i * GROUP_STRIDE), GROUP_PAGES, 1000000, 1);
	if (ksm_madvise(addr, GROUPS * GROUP_STRIDE, MADV_MERGEABLE))
		_exit(2);
	ksm_child_pause(child);
	pid = fork_and_wait();
	ksm_child_pause(child);
	for (size_t i = 0; i < GROUPS; i++)
		if (madvise(ksm_page(addr, i * GROUP_STRIDE + 1),
			    (GROUP_PAGES - 1) * psize(), MADV_DONTNEED))
			_exit(5);
	ksm_child_pause(child);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	_exit(ksm_pages_hold(addr, 1, 1000000, 0) ? 0 : 3);
}

/* The child goes on to where it waits next. */
static bool next_step(struct ksm_child *child)
{
	return ksm_write("run", "0") == 0 && ksm_child_go(child) && ksm_child_wait(child);
}

/*
 * What is known is kept right in a cgroup at its limit: pages that a fork maps are shared
 * by it, and those that were given back are not shared any more.
 */
TEST_F_TIMEOUT(payer, is_at_its_limit_and_forks, KSM_TIMEOUT)
{
	const long nr = GROUPS * GROUP_PAGES;
	struct ksm_child sharer;
	char limit[24];

	if (ksm_child_fork(&sharer))
		share_in_cgroup(&sharer);
	ASSERT_TRUE(ksm_child_wait(&sharer));
	ASSERT_EQ(0, ksm_scan(4));
	ASSERT_EQ(GROUP_PAGES, ksm_get("pages_shared"));
	ASSERT_EQ(nr - GROUP_PAGES, ksm_get("pages_sharing"));
	ASSERT_TRUE(next_step(&sharer));
	snprintf(limit, sizeof(limit), "%ld", cgroup_get("memory.current", NULL));
	ASSERT_EQ(0, ksm_spew(KSM_CGROUP "/memory.max", limit));

	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(2 * nr - GROUP_PAGES, ksm_get("pages_sharing"));
	ASSERT_TRUE(next_step(&sharer));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(GROUPS, ksm_stat_of(sharer.pid, "ksm_merging_pages"));
	EXPECT_EQ(GROUP_PAGES, ksm_get("pages_shared"));
	EXPECT_EQ(nr + GROUPS - GROUP_PAGES, ksm_get("pages_sharing"));
	EXPECT_EQ(0, cgroup_get("memory.events", "oom_kill "));
	EXPECT_EQ(0, ksm_child_finish(&sharer));
	EXPECT_EQ(0, ksm_child_finish(&self->child));
}

TEST_HARNESS_MAIN
