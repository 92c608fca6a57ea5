// SPDX-License-Identifier: GPL-2.0
/*
 * What the files in /sys/kernel/mm/ksm accept, and what they refuse and how.
 *
 * A refused write must leave no trace, so every rejection is followed by a look
 * at the old value. Scripts write "1\n" and management daemons write "1": both
 * forms are tried for everything.
 */
#include "ksm_util.h"

FIXTURE(knobs) {};

FIXTURE_SETUP(knobs)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(knobs)
{
	ksm_restore();
}

struct accepted {
	const char *knob;
	const char *text;
	const char *shown;
};

static const struct accepted accepted[] = {
	{ "run", "1", "1" }, { "run", "0", "0" }, { "run", "2", "2" },
	{ "run", "2", "2" }, { "run", "+1", "1" }, { "run", "0", "0" },
	{ "pages_to_scan", "0", "0" }, { "pages_to_scan", "1", "1" },
	{ "pages_to_scan", "4294967295", "4294967295" },
	{ "sleep_millisecs", "0", "0" }, { "sleep_millisecs", "777", "777" },
	{ "sleep_millisecs", "4294967295", "4294967295" },
	{ "merge_across_nodes", "0", "0" }, { "merge_across_nodes", "1", "1" },
	{ "merge_domains", "user", "global [user] memcg process" },
	{ "merge_domains", "memcg", "global user [memcg] process" },
	{ "merge_domains", "process", "global user memcg [process]" },
	{ "merge_domains", "global", "[global] user memcg process" },
	{ "max_page_sharing", "2", "2" }, { "max_page_sharing", "98304", "98304" },
	{ "max_page_sharing", "2147483647", "2147483647" },
	{ "max_page_sharing", "256", "256" },
	{ "stable_node_chains_prune_millisecs", "0", "0" },
	{ "stable_node_chains_prune_millisecs", "4294967295", "4294967295" },
	{ "use_zero_pages", "1", "1" }, { "use_zero_pages", "0", "0" },
	{ "zero_pages_only", "1", "1" }, { "zero_pages_only", "0", "0" },
	{ "fresh_frames", "1", "1" }, { "fresh_frames", "0", "0" },
	{ "smart_scan", "1", "1" }, { "smart_scan", "0", "0" },
	{ "advisor_mode", "scan-time", "none [scan-time]" },
	{ "advisor_mode", "none", "[none] scan-time" },
	{ "advisor_max_cpu", "0", "0" }, { "advisor_max_cpu", "100", "100" },
	{ "advisor_max_cpu", "1000", "1000" },
	{ "advisor_min_pages_to_scan", "0", "0" },
	{ "advisor_min_pages_to_scan", "4294967296", "4294967296" },
	{ "advisor_max_pages_to_scan", "0", "0" },
	{ "advisor_max_pages_to_scan", "4294967296", "4294967296" },
	{ "advisor_target_scan_time", "1", "1" },
	{ "advisor_target_scan_time", "4294967296", "4294967296" },
};

static void check_accepted(struct __test_metadata *_metadata,
			   const struct accepted *c, const char *newline)
{
	char text[64], shown[64], want[64];

	/* The longer values need 64 bits. */
	if (sizeof(long) < 8 && strlen(c->text) == 10 && c->text[9] == '6')
		return;
	snprintf(text, sizeof(text), "%s%s", c->text, newline);
	snprintf(want, sizeof(want), "%s\n", c->shown);
	EXPECT_EQ(0, ksm_write(c->knob, text)) {
		TH_LOG("%s refused '%s'", c->knob, c->text);
	}
	EXPECT_GT(ksm_read(c->knob, shown, sizeof(shown)), 0);
	EXPECT_STREQ(want, shown) {
		TH_LOG("%s after '%s'", c->knob, c->text);
	}
}

/* Writers may end the value with a newline or not. */
TEST_F(knobs, accepted_values)
{
	for (size_t i = 0; i < ARRAY_SIZE(accepted); i++) {
		if (!ksm_has(accepted[i].knob))
			continue;
		check_accepted(_metadata, &accepted[i], "");
		check_accepted(_metadata, &accepted[i], "\n");
	}
}

/* Of a word only the first letter counts, or the first two if it is an o. */
TEST_F(knobs, switches_take_words)
{
	static const char * const switches[] = {
		"use_zero_pages", "zero_pages_only", "fresh_frames", "smart_scan",
	};
	static const char * const on[] = { "y", "Yes", "true", "T", "enable", "on", "ON", "1x" };
	static const char * const off[] = { "n", "No", "false", "F", "disable", "off", "OF", "01" };

	for (size_t i = 0; i < ARRAY_SIZE(switches); i++) {
		if (!ksm_has(switches[i]))
			continue;
		for (size_t j = 0; j < ARRAY_SIZE(on); j++) {
			check_accepted(_metadata, &(struct accepted) {
				switches[i], on[j], "1" }, "\n");
			check_accepted(_metadata, &(struct accepted) {
				switches[i], off[j], "0" }, "\n");
		}
	}
}

struct refused {
	const char *knob;
	const char *text;
	int err;
};

static const struct refused refused[] = {
	{ "run", "3", EINVAL }, { "run", "4", EINVAL }, { "run", "-1", EINVAL },
	{ "run", "4294967296", EINVAL }, { "run", "x", EINVAL },
	{ "run", "-99999999999999999999", EINVAL },
	{ "run", "1 ", EINVAL }, { "run", " 1", EINVAL }, { "run", "0x1", EINVAL },
	{ "run", "\n", EINVAL }, { "run", "1\n\n", EINVAL },
	{ "pages_to_scan", "-1", EINVAL }, { "pages_to_scan", "ten", EINVAL },
	{ "pages_to_scan", "4294967296", EINVAL }, { "pages_to_scan", "1.5", EINVAL },
	{ "sleep_millisecs", "-1", EINVAL }, { "sleep_millisecs", "4294967296", EINVAL },
	{ "sleep_millisecs", "20ms", EINVAL },
	{ "merge_across_nodes", "2", EINVAL }, { "merge_across_nodes", "-1", EINVAL },
	{ "merge_across_nodes", "y", EINVAL },
	{ "merge_across_nodes", "99999999999999999999", ERANGE },
	{ "merge_across_nodes", "-99999999999999999999", EINVAL },
	{ "merge_across_nodes", "on", EINVAL },
	{ "merge_domains", "\n", EINVAL }, { "merge_domains", "GLOBAL", EINVAL },
	{ "merge_domains", "[global] user memcg process", EINVAL },
	{ "merge_domains", "0", EINVAL }, { "merge_domains", "users", EINVAL },
	{ "max_page_sharing", "0", EINVAL }, { "max_page_sharing", "1", EINVAL },
	{ "max_page_sharing", "-2", EINVAL }, { "max_page_sharing", "two", EINVAL },
	{ "max_page_sharing", "2147483648", ERANGE },
	{ "max_page_sharing", "-2147483648", EINVAL },
	{ "max_page_sharing", "-2147483649", ERANGE },
	{ "max_page_sharing", "-99999999999999999999", ERANGE },
	{ "stable_node_chains_prune_millisecs", "-1", EINVAL },
	{ "stable_node_chains_prune_millisecs", "4294967296", EINVAL },
	{ "use_zero_pages", "2", EINVAL }, { "use_zero_pages", "maybe", EINVAL },
	{ "use_zero_pages", "-1", EINVAL },
	{ "use_zero_pages", "o", EINVAL }, { "use_zero_pages", " 1", EINVAL },
	{ "zero_pages_only", "2", EINVAL }, { "zero_pages_only", "-1", EINVAL },
	{ "fresh_frames", "2", EINVAL }, { "fresh_frames", "-1", EINVAL },
	{ "smart_scan", "2", EINVAL }, { "smart_scan", "ok", EINVAL },
	{ "smart_scan", "-1", EINVAL },
	{ "advisor_mode", "scantime", EINVAL }, { "advisor_mode", "1", EINVAL },
	{ "advisor_mode", "[none] scan-time", EINVAL }, { "advisor_mode", "NONE", EINVAL },
	{ "advisor_max_cpu", "-1", EINVAL }, { "advisor_max_cpu", "x", EINVAL },
	{ "advisor_max_cpu", "99999999999999999999", EINVAL },
	{ "advisor_max_cpu", "-99999999999999999999", EINVAL },
	{ "advisor_min_pages_to_scan", "-1", EINVAL },
	{ "advisor_min_pages_to_scan", "99999999999999999999", EINVAL },
	{ "advisor_max_pages_to_scan", "-1", EINVAL },
	{ "advisor_max_pages_to_scan", "99999999999999999999", EINVAL },
	{ "advisor_target_scan_time", "0", EINVAL },
	{ "advisor_target_scan_time", "-1", EINVAL },
	{ "advisor_target_scan_time", "99999999999999999999", EINVAL },
};

TEST_F(knobs, refused_values_change_nothing)
{
	char before[64], after[64];

	ASSERT_EQ(0, ksm_write("run", "0"));
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		const struct refused *c = &refused[i];

		if (!ksm_has(c->knob))
			continue;
		ASSERT_GT(ksm_read(c->knob, before, sizeof(before)), 0);
		EXPECT_EQ(-c->err, ksm_write(c->knob, c->text)) {
			TH_LOG("%s and '%s'", c->knob, c->text);
		}
		ASSERT_GT(ksm_read(c->knob, after, sizeof(after)), 0);
		EXPECT_STREQ(before, after) {
			TH_LOG("%s changed by '%s'", c->knob, c->text);
		}
	}
}

/* A refused run=3 must not disturb what is merged. */
TEST_F_TIMEOUT(knobs, refused_run_keeps_merges, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(8, 1);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(7, ksm_get("pages_sharing"));
	EXPECT_EQ(-EINVAL, ksm_write("run", "3"));
	EXPECT_EQ(-EINVAL, ksm_write("run", "2x"));
	EXPECT_EQ(7, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_get("run"));
}

/* Counters are for reading; mode bits do not bind root, so sysfs itself must. */
TEST_F(knobs, counters_cannot_be_written)
{
	static const char * const counters[] = {
		"pages_shared", "pages_sharing", "pages_unshared", "pages_volatile",
		"pages_scanned", "pages_skipped", "full_scans", "stable_node_chains",
		"stable_node_dups", "ksm_zero_pages", "general_profit",
	};

	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		EXPECT_NE(0, ksm_write(counters[i], "0")) {
			TH_LOG("%s", counters[i]);
		}
	}
}

/* These two change how merged pages are indexed, so they need an empty index. */
TEST_F_TIMEOUT(knobs, busy_while_merged, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(8, 2);
	bool numa = ksm_has("merge_across_nodes");

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(1, ksm_get("pages_shared"));

	EXPECT_EQ(-EBUSY, ksm_write("max_page_sharing", "64"));
	EXPECT_EQ(256, ksm_get("max_page_sharing"));
	EXPECT_EQ(0, ksm_write("max_page_sharing", "256"));
	EXPECT_EQ(-EINVAL, ksm_write("max_page_sharing", "1"));
	if (numa) {
		EXPECT_EQ(-EBUSY, ksm_write("merge_across_nodes", "0"));
		EXPECT_EQ(1, ksm_get("merge_across_nodes"));
		EXPECT_EQ(0, ksm_write("merge_across_nodes", "1"));
	}
	EXPECT_EQ(7, ksm_get("pages_sharing"));

	/* And at once when run=2 has returned. */
	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(0, ksm_write("max_page_sharing", "64"));
	EXPECT_EQ(64, ksm_get("max_page_sharing"));
	if (numa) {
		EXPECT_EQ(0, ksm_write("merge_across_nodes", "0"));
		EXPECT_EQ(0, ksm_get("merge_across_nodes"));
	}
	EXPECT_TRUE(ksm_pages_hold(addr, 8, 2, 0));
}

/* While the advisor steers pages_to_scan nobody else may. */
TEST_F(knobs, advisor_owns_pages_to_scan)
{
	ASSERT_EQ(0, ksm_write("pages_to_scan", "1234"));
	ASSERT_EQ(0, ksm_write("advisor_min_pages_to_scan", "600"));
	ASSERT_EQ(0, ksm_write("advisor_mode", "scan-time"));
	EXPECT_EQ(600, ksm_get("pages_to_scan"));
	EXPECT_EQ(-EINVAL, ksm_write("pages_to_scan", "50"));
	EXPECT_EQ(600, ksm_get("pages_to_scan"));

	/* Choosing the same mode again is no change. */
	ASSERT_EQ(0, ksm_write("advisor_min_pages_to_scan", "700"));
	ASSERT_EQ(0, ksm_write("advisor_mode", "scan-time"));
	EXPECT_EQ(600, ksm_get("pages_to_scan"));

	ASSERT_EQ(0, ksm_write("advisor_mode", "none"));
	EXPECT_EQ(100, ksm_get("pages_to_scan"));
	EXPECT_EQ(0, ksm_write("pages_to_scan", "1234"));
	ASSERT_EQ(0, ksm_write("advisor_mode", "none"));
	EXPECT_EQ(1234, ksm_get("pages_to_scan"));
}

/* pages_to_scan=0 is a legal pause: ksmd does nothing, and goes on when told. */
TEST_F_TIMEOUT(knobs, pages_to_scan_zero_pauses, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(8, 3);
	long scanned;

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_write("pages_to_scan", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	scanned = ksm_get("pages_scanned");
	usleep(300000);
	EXPECT_EQ(scanned, ksm_get("pages_scanned"));
	EXPECT_EQ(0, ksm_get("full_scans"));

	ASSERT_EQ(0, ksm_write("pages_to_scan", "100"));
	EXPECT_EQ(0, ksm_wait_scans(3));
	EXPECT_EQ(7, ksm_get("pages_sharing"));
}

/* A new sleep_millisecs takes effect at once, not after the old sleep. */
TEST_F_TIMEOUT(knobs, new_sleep_wakes_the_sleeper, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(8, 4);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "4294967295"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	usleep(300000);
	ASSERT_LE(ksm_get("full_scans"), 1);
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "1"));
	EXPECT_EQ(0, ksm_wait_scans(3));
}

/* Passes go on with the advisor on, whatever limits it was given. */
FIXTURE(advisor) {};

FIXTURE_VARIANT(advisor)
{
	const char *knob;
	const char *value;
};

FIXTURE_VARIANT_ADD(advisor, plain)
{
	.knob = "advisor_max_cpu", .value = "70",
};

FIXTURE_VARIANT_ADD(advisor, no_cpu)
{
	.knob = "advisor_max_cpu", .value = "0",
};

FIXTURE_VARIANT_ADD(advisor, no_pages)
{
	.knob = "advisor_max_pages_to_scan", .value = "0",
};

FIXTURE_VARIANT_ADD(advisor, no_pages_at_first)
{
	.knob = "advisor_min_pages_to_scan", .value = "0",
};

FIXTURE_SETUP(advisor)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(advisor)
{
	ksm_restore();
}

TEST_F_TIMEOUT(advisor, passes_go_on, 90)
{
	char *addr = ksm_map_dups(64, 5);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_write(variant->knob, variant->value));
	ASSERT_EQ(0, ksm_write("advisor_mode", "scan-time"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	ASSERT_EQ(0, ksm_wait_scans(4));
	EXPECT_EQ(63, ksm_get("pages_sharing"));
	EXPECT_GT(ksm_get("pages_to_scan"), 0);
}

TEST_HARNESS_MAIN
