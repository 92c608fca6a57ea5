// SPDX-License-Identifier: GPL-2.0
/*
 * Very many of everything: VMAs of one anon_vma, sharers of one content, processes.
 *
 * Nothing may depend on their number but the time that a pass takes: a walk of the
 * reverse map visits max_page_sharing mappings at most, and unmerging and exits find
 * their way through whatever there is, also in the middle of a pass. What is asserted
 * are counts and bytes. Times are printed only, since a machine may be slow; a lockup
 * is for the kernel's own detectors to find.
 *
 * KSM_SCALE=full in the environment makes it all about ten times as large, or more: a
 * million sharers, ten thousand processes.
 */
#include <sys/sysinfo.h>
#include "ksm_util.h"

#define SHARING_DEFAULT	256
/* What sysfs takes at the most. */
#define SHARING_MAX	2147483647L
/* MPOL_MF_MOVE_ALL of numaif.h, which would need libnuma. */
#define MOVE_ALL	4

static bool full_size(void)
{
	const char *scale = getenv("KSM_SCALE");

	return scale && !strcmp(scale, "full");
}

/* As many as wanted, or as many as half of the free memory is enough for. */
static size_t as_many_as_fit(const char *what, size_t wanted, size_t bytes_each)
{
	struct sysinfo info;
	size_t fit;

	if (sysinfo(&info))
		return 0;
	fit = info.freeram / 2 * info.mem_unit / bytes_each;
	if (fit < wanted)
		ksft_print_msg("memory is short: %zu %s, not %zu\n", fit, what, wanted);
	return fit < wanted ? fit : wanted;
}

/* How many PTEs map the page at @addr; what a walk of its reverse map has to find. */
static __u64 map_count(char *addr)
{
	return ksm_frame_word("/proc/kpagecount", addr);
}

static __u64 max_map_count(char *addr, size_t nr_pages)
{
	__u64 most = 0;

	for (size_t i = 0; i < nr_pages; i++) {
		__u64 count = map_count(ksm_page(addr, i));

		most = count > most ? count : most;
	}
	return most;
}

/* Page idle tracking asks all mappings of a page for their young bits. */
static void print_walk_time(char *addr)
{
	int fd = open("/sys/kernel/mm/page_idle/bitmap", O_RDWR | O_CLOEXEC);
	unsigned long pfn = ksm_pfn(addr);
	__u64 word = 1ULL << pfn % 64;
	off_t at = pfn / 64 * sizeof(word);
	double start;

	if (fd < 0 || pwrite(fd, &word, sizeof(word), at) != sizeof(word)) {
		ksft_print_msg("no page idle tracking, so a walk cannot be timed\n");
	} else {
		start = ksm_now();
		if (pread(fd, &word, sizeof(word), at) == sizeof(word))
			ksft_print_msg("a walk of %llu mappings: %.0f us\n",
				       (unsigned long long)map_count(addr),
				       (ksm_now() - start) * 1e6);
	}
	close(fd);
}

static void print_time(const char *what, double start)
{
	ksft_print_msg("%s: %.3f s\n", what, ksm_now() - start);
}

FIXTURE(scale)
{
	size_t nr;
};

FIXTURE_SETUP(scale)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	/* In UML each merged page is a mapping of the host's, which has a limit: 65530. */
	self->nr = as_many_as_fit("pages", full_size() ? 32768 : 4096, psize());
}

FIXTURE_TEARDOWN_PARENT(scale)
{
	ksm_restore();
}

/* As long as they are merged, many more pages than would fit into memory. */
static size_t nr_merged(FIXTURE_DATA(scale) * self)
{
	return full_size() ? 1UL << 20 : self->nr;
}

/* They are written and merged little by little. */
static char *map_merged_dups(FIXTURE_DATA(scale) * self, size_t nr, __u64 seed)
{
	char *addr = ksm_map(nr);

	if (addr == MAP_FAILED || ksm_madvise(addr, nr, MADV_MERGEABLE))
		return MAP_FAILED;
	for (size_t i = 0; i < nr; i += self->nr) {
		size_t some = nr - i < self->nr ? nr - i : self->nr;

		ksm_fill_pages(ksm_page(addr, i), some, seed, 0);
		if (ksm_scan(i ? 2 : 3))
			return MAP_FAILED;
	}
	return addr;
}

/* Each page a VMA of its own, and all of them with the anon_vma of the first. */
TEST_F_TIMEOUT(scale, many_vmas_on_one_anon_vma, KSM_TIMEOUT)
{
	const size_t nr = full_size() ? 20000 : 2000;
	const size_t nr_shared = (nr + SHARING_DEFAULT - 1) / SHARING_DEFAULT;
	char *addr = ksm_map_dups(nr, 1);
	double start;

	ASSERT_NE(MAP_FAILED, addr);
	for (size_t i = 0; i < nr; i += 2)
		ASSERT_EQ(0, mprotect(ksm_page(addr, i), psize(), PROT_READ));

	start = ksm_now();
	ASSERT_EQ(0, ksm_scan(3));
	print_time("three passes over all VMAs", start);
	EXPECT_EQ(nr_shared, ksm_get("pages_shared"));
	EXPECT_EQ(nr - nr_shared, ksm_get("pages_sharing"));
	EXPECT_EQ(SHARING_DEFAULT, max_map_count(addr, nr));
	print_walk_time(addr);

	start = ksm_now();
	ASSERT_EQ(0, ksm_write("run", "2"));
	print_time("unmerging them", start);
	EXPECT_EQ(0, ksm_count_merged(addr, nr));
	EXPECT_TRUE(ksm_pages_hold(addr, nr, 1, 0));
}

/* The longest chain that a number of pages can make. */
TEST_F_TIMEOUT(scale, two_sharers_a_page, KSM_TIMEOUT)
{
	char *addr;
	double start;

	self->nr &= ~1UL;
	ASSERT_EQ(0, ksm_set("max_page_sharing", 2));
	addr = ksm_map_dups(self->nr, 2);
	ASSERT_NE(MAP_FAILED, addr);

	start = ksm_now();
	ASSERT_EQ(0, ksm_scan(3));
	print_time("three passes", start);
	EXPECT_EQ(self->nr / 2, ksm_get("pages_shared"));
	EXPECT_EQ(self->nr / 2, ksm_get("pages_sharing"));
	EXPECT_EQ(1, ksm_get("stable_node_chains"));
	EXPECT_EQ(self->nr / 2, ksm_get("stable_node_dups"));
	EXPECT_EQ(2, max_map_count(addr, self->nr));

	/* One dup after the other becomes stale, with its chain to be searched. */
	start = ksm_now();
	ASSERT_EQ(0, munmap(addr, (self->nr - 2) * psize()));
	ASSERT_EQ(0, ksm_set("stable_node_chains_prune_millisecs", 0));
	ASSERT_EQ(0, ksm_scan(2));
	print_time("unmapping nearly all, and two passes", start);
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(addr, self->nr - 2), 2, 2, 0));
}

TEST_F_TIMEOUT(scale, all_share_one_page, 4 * KSM_TIMEOUT)
{
	const size_t nr = nr_merged(self);
	double start = ksm_now();
	char *addr;

	ASSERT_EQ(0, ksm_set("max_page_sharing", SHARING_MAX));
	addr = map_merged_dups(self, nr, 3);
	ASSERT_NE(MAP_FAILED, addr);
	print_time("writing and merging them", start);
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(nr - 1, ksm_get("pages_sharing"));
	EXPECT_EQ(nr, map_count(addr));
	EXPECT_EQ(0, ksm_get("stable_node_chains"));
	print_walk_time(addr);

	/* Each leaves the list of sharers by itself, and in the order of an exit. */
	start = ksm_now();
	ASSERT_EQ(0, ksm_madvise(addr, self->nr, MADV_UNMERGEABLE));
	print_time("unmerging by madvise()", start);
	EXPECT_EQ(0, ksm_count_merged(addr, self->nr));
	EXPECT_TRUE(ksm_pages_hold(addr, nr, 3, 0));
	start = ksm_now();
	ASSERT_EQ(0, munmap(addr, nr * psize()));
	print_time("unmapping them all", start);
	ASSERT_NE(MAP_FAILED, ksm_map_dups(1, 9));
	ASSERT_EQ(0, ksm_scan(2));
	EXPECT_EQ(0, ksm_get("pages_shared"));
}

/* By the limit that is in force unless somebody raises it. */
TEST_F_TIMEOUT(scale, walks_are_bounded, 4 * KSM_TIMEOUT)
{
	const size_t nr = nr_merged(self);
	char *addr = map_merged_dups(self, nr, 4);
	void *page = addr;
	unsigned long before;

	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ(nr, ksm_get("pages_shared") + ksm_get("pages_sharing"));
	EXPECT_EQ(SHARING_DEFAULT, max_map_count(addr, self->nr));
	ksft_print_msg("%zu pages are alike\n", nr);
	print_walk_time(addr);

	/* Migration, unlike a walk for young bits, takes the mappings away and puts them back. */
	before = ksm_pfn(addr);
	for (int node = 0; node < 2; node++) {
		int status = -1;
		double start = ksm_now();

		if (syscall(SYS_move_pages, 0, 1UL, &page, &node, &status, MOVE_ALL) ||
		    status != node || ksm_pfn(addr) == before)
			continue;
		print_time("migration of a page with all its sharers", start);
		EXPECT_EQ(SHARING_DEFAULT, map_count(addr));
		before = ksm_pfn(addr);
	}
	EXPECT_TRUE(ksm_pages_hold(addr, nr, 4, 0));
}

#define CROWD_PAGES	4

/* Many processes: a byte of @there says that one is ready, the end of @go lets all go. */
struct crowd {
	size_t nr;
	int go[2];
	int there[2];
};

/* Half of its pages are like everybody's, and half like no other. */
static int crowd_member(struct crowd *crowd, size_t nr)
{
	char *addr = ksm_map(CROWD_PAGES), byte = 0;
	size_t half = CROWD_PAGES / 2;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(crowd->go[1]);
	if (addr == MAP_FAILED)
		return 1;
	ksm_fill_pages(addr, half, 10, 0);
	ksm_fill_pages(ksm_page(addr, half), half, 1000 + nr * half, 1);
	if (ksm_madvise(addr, CROWD_PAGES, MADV_MERGEABLE) ||
	    write(crowd->there[1], &byte, 1) != 1 || read(crowd->go[0], &byte, 1))
		return 2;
	return !ksm_pages_hold(addr, half, 10, 0) ||
	       !ksm_pages_hold(ksm_page(addr, half), half, 1000 + nr * half, 1);
}

static bool crowd_gather(struct crowd *crowd, size_t nr)
{
	char byte;

	crowd->nr = nr;
	if (pipe2(crowd->go, O_CLOEXEC) || pipe2(crowd->there, O_CLOEXEC))
		return false;
	for (size_t i = 0; i < nr; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return false;
		if (!pid)
			_exit(crowd_member(crowd, i));
		if (read(crowd->there[0], &byte, 1) != 1)
			return false;
	}
	return true;
}

/* Lets all exit at once; how many of them did not end well. */
static size_t crowd_dismiss(struct crowd *crowd)
{
	size_t good = 0;
	int status;

	close(crowd->go[1]);
	while (wait(&status) > 0)
		good += WIFEXITED(status) && !WEXITSTATUS(status);
	return crowd->nr - good;
}

/* Page tables, stack and task of a process that does nothing else. */
#define PROCESS_BYTES	(384UL << 10)

static size_t crowd_size(void)
{
	return as_many_as_fit("processes", full_size() ? 10000 : 300, PROCESS_BYTES);
}

/* All of them exit while ksmd is on its way through them. */
TEST_F_TIMEOUT(scale, exits_in_a_pass, 2 * KSM_TIMEOUT)
{
	const size_t nr = crowd_size(), nr_dups = nr * CROWD_PAGES / 2;
	const size_t nr_shared = (nr_dups + SHARING_DEFAULT - 1) / SHARING_DEFAULT;
	struct crowd crowd;
	double start = ksm_now();
	long scanned;

	ASSERT_TRUE(crowd_gather(&crowd, nr));
	ksft_print_msg("%zu processes\n", nr);
	print_time("forking them", start);
	/* Without anybody on the list there would be no passes to wait for. */
	ASSERT_NE(MAP_FAILED, ksm_map_dups(1, 9));
	start = ksm_now();
	ASSERT_EQ(0, ksm_scan(3));
	print_time("three passes", start);
	EXPECT_EQ(nr_shared, ksm_get("pages_shared"));
	EXPECT_EQ(nr_dups - nr_shared, ksm_get("pages_sharing"));
	EXPECT_EQ(nr_dups + 1, ksm_get("pages_unshared"));

	/* So slow that the pass cannot be over before they are gone. */
	scanned = ksm_get("pages_scanned");
	ASSERT_EQ(0, ksm_set("pages_to_scan", 10));
	ASSERT_EQ(0, ksm_write("run", "1"));
	while (ksm_get("pages_scanned") < scanned + 100)
		usleep(1000);
	start = ksm_now();
	EXPECT_EQ(0, crowd_dismiss(&crowd));
	print_time("exits in the middle of a pass", start);

	ASSERT_EQ(0, ksm_set("pages_to_scan", 100000));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
	EXPECT_EQ(1, ksm_get("pages_unshared"));
	EXPECT_EQ(0, ksm_get("pages_volatile"));
}

/* Everything is unmerged in the middle of a pass, and of an exit of all. */
TEST_F_TIMEOUT(scale, unmerge_in_a_pass, 2 * KSM_TIMEOUT)
{
	const size_t nr = crowd_size();
	struct crowd crowd;
	double start;

	ASSERT_TRUE(crowd_gather(&crowd, nr));
	ASSERT_EQ(0, ksm_scan(2));
	for (int i = 0; i < 5; i++) {
		ASSERT_EQ(0, ksm_write("run", "1"));
		usleep(i * 10000);
		start = ksm_now();
		ASSERT_EQ(0, ksm_write("run", "2"));
		print_time("unmerging", start);
		EXPECT_EQ(0, ksm_get("pages_shared"));
		EXPECT_EQ(0, ksm_get("pages_volatile"));
	}

	ASSERT_EQ(0, ksm_scan(2));
	close(crowd.go[1]);
	start = ksm_now();
	ASSERT_EQ(0, ksm_write("run", "2"));
	print_time("unmerging while all exit", start);
	crowd.go[1] = -1;
	EXPECT_EQ(0, crowd_dismiss(&crowd));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_get("general_profit"));
}

TEST_HARNESS_MAIN
