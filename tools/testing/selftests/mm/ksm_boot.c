// SPDX-License-Identifier: GPL-2.0
/*
 * KSM as a fresh boot shows it: files, modes, defaults, names, trace events.
 *
 * Reads only, and should run before any other KSM test: the defaults can be seen
 * only while nobody has changed them.
 *
 * Monitoring tools parse these files by rules of their own (one decimal and a
 * newline; names taken by prefix), so the rules are tested here, not just the
 * files that exist today.
 */
#include "ksm_util.h"

struct ksm_file {
	const char *name;
	mode_t mode;
	const char *at_boot;
};

static const struct ksm_file ksm_files[] = {
	{ "run", 0644, "0\n" },
	{ "pages_to_scan", 0644, "100\n" },
	{ "sleep_millisecs", 0644, "20\n" },
	{ "merge_across_nodes", 0644, "1\n" },
	{ "merge_domains", 0644, "[global] user memcg process\n" },
	{ "max_page_sharing", 0644, "256\n" },
	{ "stable_node_chains_prune_millisecs", 0644, "2000\n" },
	{ "use_zero_pages", 0644, "0\n" },
	{ "zero_pages_only", 0644, "0\n" },
	{ "fresh_frames", 0644, "0\n" },
	{ "smart_scan", 0644, "1\n" },
	{ "advisor_mode", 0644, "[none] scan-time\n" },
	{ "advisor_max_cpu", 0644, "70\n" },
	{ "advisor_min_pages_to_scan", 0644, "500\n" },
	{ "advisor_max_pages_to_scan", 0644, "30000\n" },
	{ "advisor_target_scan_time", 0644, "200\n" },
	{ "pages_shared", 0444, "0\n" },
	{ "pages_sharing", 0444, "0\n" },
	{ "pages_unshared", 0444, "0\n" },
	{ "pages_volatile", 0444, "0\n" },
	{ "pages_scanned", 0444, "0\n" },
	{ "pages_skipped", 0444, "0\n" },
	{ "full_scans", 0444, "0\n" },
	{ "stable_node_chains", 0444, "0\n" },
	{ "stable_node_dups", 0444, "0\n" },
	{ "ksm_zero_pages", 0444, "0\n" },
	{ "general_profit", 0444, "0\n" },
};

/* Kernels without NUMA have no merge_across_nodes; the base's has no isolation. */
static bool expected_here(const char *name)
{
	if (!strcmp(name, "merge_across_nodes"))
		return !access("/sys/devices/system/node", F_OK);
	if (!strcmp(name, "merge_domains") || !strcmp(name, "zero_pages_only") ||
	    !strcmp(name, "fresh_frames"))
		return ksm_has("merge_domains");
	return true;
}

FIXTURE(boot) {};

FIXTURE_SETUP(boot)
{
	if (access(KSM_SYSFS "run", F_OK))
		SKIP(return, "kernel without KSM");
}

FIXTURE_TEARDOWN(boot) {}

TEST_F(boot, defaults)
{
	char buf[128];

	if (ksm_get("run") || ksm_get("pages_scanned"))
		SKIP(return, "KSM was used since boot");
	for (size_t i = 0; i < ARRAY_SIZE(ksm_files); i++) {
		if (!expected_here(ksm_files[i].name))
			continue;
		ASSERT_GT(ksm_read(ksm_files[i].name, buf, sizeof(buf)), 0);
		EXPECT_STREQ(ksm_files[i].at_boot, buf) {
			TH_LOG("%s", ksm_files[i].name);
		}
	}
}

TEST_F(boot, files_and_modes)
{
	char path[128];
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(ksm_files); i++) {
		if (!expected_here(ksm_files[i].name))
			continue;
		snprintf(path, sizeof(path), KSM_SYSFS "%s", ksm_files[i].name);
		ASSERT_EQ(0, stat(path, &st)) {
			TH_LOG("%s is missing", path);
		}
		EXPECT_EQ(ksm_files[i].mode, st.st_mode & 07777) {
			TH_LOG("%s", path);
		}
		EXPECT_EQ(0, st.st_uid);
	}
}

/* One tool writes this file of old kernels when it is there. */
TEST_F(boot, max_kernel_pages_stays_absent)
{
	EXPECT_NE(0, access(KSM_SYSFS "max_kernel_pages", F_OK));
}

static bool is_decimal_line(const char *text, bool may_be_negative)
{
	const char *p = text + (may_be_negative && *text == '-');
	size_t digits = strspn(p, "0123456789");

	return digits && !strcmp(p + digits, "\n");
}

/* Collectors parse every number as one decimal, and only the profit may be signed. */
TEST_F(boot, one_decimal_per_file)
{
	char buf[128];

	for (size_t i = 0; i < ARRAY_SIZE(ksm_files); i++) {
		const char *name = ksm_files[i].name;

		if (!expected_here(name) || !strcmp(name, "advisor_mode") ||
		    !strcmp(name, "merge_domains"))
			continue;
		ASSERT_GT(ksm_read(name, buf, sizeof(buf)), 0);
		EXPECT_TRUE(is_decimal_line(buf, !strcmp(name, "general_profit"))) {
			TH_LOG("%s holds '%s'", name, buf);
		}
	}
}

static bool is_known_file(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(ksm_files); i++)
		if (!strcmp(ksm_files[i].name, name))
			return true;
	return false;
}

/* One collector takes the last file whose name starts with one of these. */
static const char *prefix_taken(const char *name)
{
	static const char * const taken[] = {
		"full_scans", "merge_across_nodes", "pages_shared", "pages_sharing",
		"pages_to_scan", "pages_unshared", "pages_volatile", "run",
		"sleep_millisecs",
	};

	for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
		if (!strncmp(name, taken[i], strlen(taken[i])))
			return taken[i];
	return NULL;
}

TEST_F(boot, new_files_keep_the_prefix_rule_and_are_readable)
{
	DIR *dir = opendir(KSM_SYSFS);
	struct dirent *entry;
	char buf[4096];
	int files = 0;

	ASSERT_NE(NULL, dir);
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		files++;
		EXPECT_GT(ksm_read(entry->d_name, buf, sizeof(buf)), 0) {
			TH_LOG("%s cannot be read", entry->d_name);
		}
		if (is_known_file(entry->d_name))
			continue;
		EXPECT_EQ(NULL, prefix_taken(entry->d_name)) {
			TH_LOG("%s starts with %s", entry->d_name,
			       prefix_taken(entry->d_name));
		}
	}
	closedir(dir);
	EXPECT_GE(files, (int)ARRAY_SIZE(ksm_files) - 1);
}

/* A tool keeps the files open, and rereads them from offset 0. */
TEST_F(boot, files_can_be_reread)
{
	char first[64] = "", again[64] = "";
	int fd = open(KSM_SYSFS "pages_to_scan", O_RDONLY);

	ASSERT_GE(fd, 0);
	ASSERT_GT(read(fd, first, sizeof(first) - 1), 0);
	EXPECT_EQ(0, read(fd, again, sizeof(again) - 1));
	ASSERT_EQ(0, lseek(fd, 0, SEEK_SET));
	ASSERT_GT(read(fd, again, sizeof(again) - 1), 0);
	EXPECT_STREQ(first, again);
	close(fd);
}

/* Monitors find the thread by its name and read its CPU time from stat. */
TEST_F(boot, ksmd_thread)
{
	char path[288], text[512];
	struct dirent *entry;
	int found = 0, fields;
	unsigned long utime, stime;
	DIR *proc = opendir("/proc");

	ASSERT_NE(NULL, proc);
	while ((entry = readdir(proc))) {
		snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		if (!isdigit(entry->d_name[0]) ||
		    ksm_slurp(path, text, sizeof(text)) <= 0 ||
		    !strstr(text, " (ksmd) "))
			continue;
		found++;
		fields = sscanf(strchr(text, ')') + 2,
				"%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
				&utime, &stime);
		EXPECT_EQ(2, fields);
	}
	closedir(proc);
	EXPECT_EQ(1, found);
}

TEST_F(boot, vmstat_fields)
{
	EXPECT_NE(LONG_MIN, ksm_vmstat("cow_ksm"));
	EXPECT_EQ(!access("/proc/swaps", F_OK), ksm_vmstat("ksm_swpin_copy") >= 0);
}

TEST_F(boot, proc_files_are_for_the_owner)
{
	static const char * const names[] = {
		"ksm_stat", "ksm_merging_pages",
	};
	char path[96];
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/proc/self/%s", names[i]);
		ASSERT_EQ(0, stat(path, &st));
		EXPECT_EQ(0400, st.st_mode & 07777);
		snprintf(path, sizeof(path), "/proc/self/task/%d/%s", getpid(), names[i]);
		ASSERT_EQ(0, stat(path, &st));
		EXPECT_EQ(0400, st.st_mode & 07777);
	}
}

TEST_F(boot, slab_caches)
{
	static const char * const names[] = {
		"ksm_rmap_item", "ksm_stable_node", "ksm_mm_slot",
	};
	char path[96];

	if (access("/sys/kernel/slab", F_OK))
		SKIP(return, "kernel without the sysfs files of slab");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s", names[i]);
		EXPECT_EQ(0, access(path, F_OK)) {
			TH_LOG("no slab cache %s", names[i]);
		}
	}
}

TEST_HARNESS_MAIN
