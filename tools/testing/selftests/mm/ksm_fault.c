// SPDX-License-Identifier: GPL-2.0
/*
 * No memory, at one place after the other: for each place where KSM allocates, the same
 * life of some merged pages, with that allocation failing a few times. A failed
 * allocation may delay merging, or be told to who asked for something; it loses
 * nothing, and leaves nothing behind.
 *
 * KSM_FAULT_SITES names the places: `SYMBOL+0xOFFSET ...`, each the address that a call
 * returns to. failslab and fail_page_alloc then look for it in the backtrace, so that
 * all that is allocated on behalf of that call fails, and nothing else.
 */
#include "ksm_reclaim.h"

#define NR_PAGES	32
#define CROWD		300	/* pages that go into a table of their own */
#define SAME		4	/* pages of each content; two may share a page */
#define TIMES		4	/* an xarray asks twice before it gives up */
#define PASSES		8	/* a few more than those that fail */
#define DEBUGFS		"/sys/kernel/debug/"

static const char * const injectors[] = {
	DEBUGFS "failslab/", DEBUGFS "fail_page_alloc/",
};

static int set(const char *dir, const char *file, unsigned long value)
{
	char path[96], text[24];

	snprintf(path, sizeof(path), "%s%s", dir, file);
	snprintf(text, sizeof(text), "%#lx", value);
	return ksm_spew(path, text);
}

static int switch_bool(const char *dir, const char *file, bool on)
{
	char path[96];

	snprintf(path, sizeof(path), "%s%s", dir, file);
	return ksm_spew(path, on ? "Y" : "N");
}

/* Whatever is allocated below a call that returns to @addr fails. */
static bool arm(unsigned long addr)
{
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(injectors); i++) {
		const char *dir = injectors[i];

		err |= set(dir, "verbose", 0);
		err |= set(dir, "interval", 1);
		err |= set(dir, "space", 0);
		err |= set(dir, "stacktrace-depth", 32);
		err |= set(dir, "require-start", addr);
		err |= set(dir, "require-end", addr + 1);
		err |= set(dir, "times", TIMES);
		err |= switch_bool(dir, "ignore-gfp-wait", false);
	}
	err |= switch_bool(injectors[1], "ignore-gfp-highmem", false);
	err |= set(injectors[1], "min-order", 0);
	for (size_t i = 0; i < ARRAY_SIZE(injectors); i++)
		err |= set(injectors[i], "probability", 100);
	return !err;
}

/* How many have failed. */
static long disarm(void)
{
	long failed = 0;
	char path[96], buf[32];

	for (size_t i = 0; i < ARRAY_SIZE(injectors); i++) {
		set(injectors[i], "probability", 0);
		snprintf(path, sizeof(path), "%stimes", injectors[i]);
		if (ksm_slurp(path, buf, sizeof(buf)) > 0)
			failed += TIMES - strtol(buf, NULL, 10);
	}
	return failed;
}

/* The address of SYMBOL+0xOFFSET; 0 if this kernel has no such symbol. */
static unsigned long site_address(const char *site)
{
	size_t len = strcspn(site, "+");
	unsigned long addr = 0, at;
	char line[512], name[256];
	FILE *symbols = fopen("/proc/kallsyms", "re");

	while (symbols && !addr && fgets(line, sizeof(line), symbols))
		if (sscanf(line, "%lx %*c %255s", &at, name) == 2 &&
		    strlen(name) == len && !strncmp(name, site, len))
			addr = at;
	if (symbols)
		fclose(symbols);
	return addr && site[len] ? addr + strtoul(site + len + 1, NULL, 0) : 0;
}

static bool hold(char *addr)
{
	for (int i = 0; i < NR_PAGES; i++)
		if (!ksm_holds(ksm_page(addr, i), 1 + i / SAME))
			return false;
	return true;
}

/*
 * Advice may be refused for want of memory, a few times, and in no other way. Each
 * injector has so many of them: the object may fail, and then the page for it.
 */
static bool advise(char *addr, int advice)
{
	for (size_t i = 0; i <= ARRAY_SIZE(injectors) * TIMES; i++) {
		int err = ksm_madvise(addr, NR_PAGES, advice);

		if (err != -EAGAIN)
			return !err;
	}
	return false;
}

static bool unmerge_all(void)
{
	for (size_t i = 0; i <= ARRAY_SIZE(injectors) * TIMES; i++) {
		int err = ksm_write("run", "2");

		if (err != -ENOMEM)
			return !err;
	}
	return false;
}

static bool merge(char *addr)
{
	return !ksm_scan(PASSES) && ksm_count_merged(addr, NR_PAGES) == NR_PAGES;
}

static bool step(const char *what, bool ok)
{
	if (!ok)
		ksft_print_msg("went wrong: %s\n", what);
	return ok;
}

static bool unmerged(char *addr)
{
	return !ksm_count_merged(addr, NR_PAGES) && hold(addr);
}

/* Have the frames for shared pages allocated anew; if that fails they are later. */
static bool refill(void)
{
	return !ksm_write("fresh_frames", "0") && !ksm_write("fresh_frames", "1");
}

/* Everything that KSM allocates for. */
static bool life(void)
{
	char *addr = ksm_map(NR_PAGES), *crowd = ksm_map(CROWD);

	if (addr == MAP_FAILED || crowd == MAP_FAILED || !refill())
		return false;
	for (int i = 0; i < CROWD; i++)
		ksm_fill(ksm_page(crowd, i), 1000 + i);
	ksm_madvise(crowd, CROWD, MADV_MERGEABLE);
	for (int i = 0; i < NR_PAGES; i++)
		ksm_fill(ksm_page(addr, i), 1 + i / SAME);

	return step("to register", advise(addr, MADV_MERGEABLE)) &&
	       step("to merge", merge(addr)) &&
	       step("to swap out", ksm_swap_out(addr, NR_PAGES)) &&
	       step("to swap in", hold(addr)) &&
	       step("to merge again", merge(addr)) &&
	       step("to withdraw", advise(addr, MADV_UNMERGEABLE)) &&
	       step("all on its own", unmerged(addr)) &&
	       step("to register again", advise(addr, MADV_MERGEABLE)) &&
	       step("to merge once more", merge(addr)) &&
	       step("to unmerge all", unmerge_all()) &&
	       step("all on its own again", unmerged(addr));
}

static bool nothing_left(void)
{
	static const char * const files[] = {
		"pages_shared", "pages_sharing", "pages_unshared",
		"stable_node_chains", "stable_node_dups",
	};
	long left = 0;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		left += ksm_get(files[i]);
	return !left;
}

FIXTURE(fault)
{
	struct ksm_reclaim reclaim;
};

FIXTURE_SETUP(fault)
{
	const char *why_not = ksm_setup();

	if (!why_not && !getenv("KSM_FAULT_SITES"))
		why_not = "KSM_FAULT_SITES names no places";
	for (size_t i = 0; !why_not && i < ARRAY_SIZE(injectors); i++)
		if (access(injectors[i], F_OK))
			why_not = "no failslab or fail_page_alloc in debugfs";
	if (!why_not)
		why_not = ksm_reclaim_begin(&self->reclaim);
	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ksm_write("max_page_sharing", "2"));
	/* Each process in a domain of its own, which has to be made for it. */
	ASSERT_EQ(0, ksm_write("merge_domains", "process"));
}

FIXTURE_TEARDOWN_PARENT(fault)
{
	disarm();
	ksm_restore();
	ksm_reclaim_end(&self->reclaim);
}

/* A process for each, so that it is new to KSM. */
static int run_life(void)
{
	struct ksm_child child;

	if (ksm_child_fork(&child))
		_exit(!life());
	return ksm_child_end(&child);
}

TEST_F_TIMEOUT(fault, every_site, 20 * KSM_TIMEOUT)
{
	char *sites = strdup(getenv("KSM_FAULT_SITES"));
	int nr = 0;

	ASSERT_EQ(0, run_life());
	for (char *site = strtok(sites, " "); site; site = strtok(NULL, " ")) {
		unsigned long addr = site_address(site);
		long failed;

		ASSERT_NE(0, addr) TH_LOG("no symbol for %s", site);
		ASSERT_TRUE(arm(addr));
		EXPECT_EQ(0, run_life()) TH_LOG("with %s failing", site);
		failed = disarm();
		EXPECT_TRUE(nothing_left()) TH_LOG("%s", site);
		ksft_print_msg("site %s failed %ld times\n", site, failed);
		EXPECT_LT(0, failed);
		nr++;
	}
	EXPECT_LT(0, nr);
}

TEST_HARNESS_MAIN
