// SPDX-License-Identifier: GPL-2.0
/*
 * KSM and the rest of memory management: huge pages, failing memory, and memory
 * that is taken offline.
 *
 * Each of these finds or replaces pages behind the back of the processes, and has
 * to find all the mappings of a merged page, or leave it alone.
 */
#include <setjmp.h>
#include "ksm_util.h"

/* -- Huge pages -- */

FIXTURE(thp)
{
	size_t huge;	/* bytes */
	size_t pages;	/* small ones in a huge one */
	char *addr;	/* two huge pages */
};

FIXTURE_SETUP(thp)
{
	const char *why_not = ksm_setup();
	char *map;

	if (why_not)
		SKIP(return, "%s", why_not);
	self->huge = read_pmd_pagesize();
	if (!self->huge)
		SKIP(return, "kernel without huge pages");
	self->pages = self->huge / psize();
	map = mmap(NULL, 3 * self->huge, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	self->addr = (char *)(((unsigned long)map + self->huge - 1) & ~(self->huge - 1));
	if (madvise(self->addr, 2 * self->huge, MADV_HUGEPAGE))
		SKIP(return, "no huge pages by advice: %s", strerror(errno));
	ksm_fill_pages(self->addr, 2 * self->pages, 1, 1);
	if (!check_huge_anon(self->addr, 2 * self->huge, 2, self->huge))
		SKIP(return, "no free huge page");
}

FIXTURE_TEARDOWN_PARENT(thp)
{
	ksm_restore();
}

/* Nothing to gain: a huge page is not taken apart for that. */
TEST_F_TIMEOUT(thp, unique_pages_stay_huge, KSM_TIMEOUT)
{
	ASSERT_EQ(0, madvise(self->addr, 2 * self->huge, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(4));
	EXPECT_TRUE(check_huge_anon(self->addr, 2 * self->huge, 2, self->huge));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, 2 * self->pages, 1, 1));
}

/* Twins within one huge page: it is split, and only that one. */
TEST_F_TIMEOUT(thp, twins_inside_split_it, KSM_TIMEOUT)
{
	ksm_fill(ksm_page(self->addr, 10), 5001);
	ksm_fill(ksm_page(self->addr, 300), 5001);
	ASSERT_EQ(0, madvise(self->addr, 2 * self->huge, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(5));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(1, ksm_get("pages_sharing"));
	EXPECT_EQ(ksm_pfn(ksm_page(self->addr, 10)), ksm_pfn(ksm_page(self->addr, 300)));
	EXPECT_TRUE(check_huge_anon(self->addr, 2 * self->huge, 1, self->huge));
	EXPECT_TRUE(ksm_holds(ksm_page(self->addr, 10), 5001));
	EXPECT_TRUE(ksm_holds(ksm_page(self->addr, 300), 5001));
	EXPECT_TRUE(ksm_pages_hold(self->addr, 10, 1, 1));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 11), 289, 12, 1));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 301), 2 * self->pages - 301,
				   302, 1));
}

/* Two equal huge pages become as many KSM pages as they have different ones. */
TEST_F_TIMEOUT(thp, equal_huge_pages_merge, KSM_TIMEOUT)
{
	size_t n = self->pages;

	ksm_fill_pages(self->addr + self->huge, n, 1, 1);
	ASSERT_EQ(0, madvise(self->addr, 2 * self->huge, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(5));
	EXPECT_EQ(n, ksm_get("pages_shared"));
	EXPECT_EQ(n, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, n, 1, 1));
	EXPECT_TRUE(ksm_pages_hold(self->addr + self->huge, n, 1, 1));
	ASSERT_EQ(0, madvise(self->addr, 2 * self->huge, MADV_UNMERGEABLE));
	EXPECT_EQ(0, ksm_count_merged(self->addr, 2 * n));
	EXPECT_TRUE(ksm_pages_hold(self->addr, n, 1, 1));
	EXPECT_TRUE(ksm_pages_hold(self->addr + self->huge, n, 1, 1));
}

/* The other way: a range with merged pages in it is made a huge page. */
TEST_F_TIMEOUT(thp, collapse_over_merged_pages, KSM_TIMEOUT)
{
	ksm_fill_pages(self->addr, 16, 6001, 0);
	ASSERT_EQ(0, madvise(self->addr, self->huge, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(5));
	ASSERT_EQ(16, ksm_count_merged(self->addr, 16));
	/* It may refuse shared pages; if it does not, nothing is merged after. */
	if (!madvise(self->addr, self->huge, MADV_COLLAPSE)) {
		EXPECT_EQ(0, ksm_count_merged(self->addr, 16));
		EXPECT_TRUE(check_huge_anon(self->addr, self->huge, 1, self->huge));
	}
	EXPECT_TRUE(ksm_pages_hold(self->addr, 16, 6001, 0));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 16), self->pages - 16, 17, 1));
}

/* A forked huge page is shared by two processes when its twins are merged. */
TEST_F_TIMEOUT(thp, forked_huge_page, KSM_TIMEOUT)
{
	struct ksm_child child;

	ksm_fill_pages(self->addr, 8, 7001, 0);
	ASSERT_EQ(0, madvise(self->addr, self->huge, MADV_MERGEABLE));
	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		ksm_fill(ksm_page(self->addr, 3), 7777);
		_exit(!ksm_pages_hold(self->addr, 3, 7001, 0) ||
		      !ksm_holds(ksm_page(self->addr, 3), 7777) ||
		      !ksm_pages_hold(ksm_page(self->addr, 4), 4, 7001, 0));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_scan(6));
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(ksm_pages_hold(self->addr, 8, 7001, 0));
	ASSERT_EQ(0, ksm_scan(6));
	EXPECT_EQ(7, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, 8, 7001, 0));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 8), self->pages - 8, 9, 1));
}

/* -- Failing memory -- */

static sigjmp_buf on_sigbus;
static siginfo_t sigbus_info;

static void take_sigbus(int signal, siginfo_t *info, void *context)
{
	sigbus_info = *info;
	siglongjmp(on_sigbus, 1);
}

static void catch_sigbus(void)
{
	struct sigaction action = {
		.sa_sigaction = take_sigbus,
		.sa_flags = SA_SIGINFO,
	};

	sigaction(SIGBUS, &action, NULL);
}

/* Is reading it a SIGBUS that tells of broken memory at this place? */
static bool is_broken(char *page)
{
	if (sigsetjmp(on_sigbus, 1))
		return sigbus_info.si_code == BUS_MCEERR_AR &&
		       (char *)sigbus_info.si_addr >= page &&
		       (char *)sigbus_info.si_addr < ksm_page(page, 1);
	FORCE_READ(*page);
	return false;
}

/* Breaks the page; whether the poisoner was told by a signal goes to @told. */
static int poison(char *page, int advice, bool *told)
{
	*told = sigsetjmp(on_sigbus, 1);
	return *told ? 0 : ksm_madvise(page, 1, advice);
}

FIXTURE(broken)
{
	char *addr;	/* 4 merged pages and, at 4, a page by itself */
	unsigned long pfn;
	bool poisoned;
};

FIXTURE_SETUP(broken)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	self->addr = ksm_map(5);
	ASSERT_NE(MAP_FAILED, self->addr);
	ksm_fill_pages(self->addr, 4, 1, 0);
	ksm_fill(ksm_page(self->addr, 4), 2);
	/* A bad length: does the kernel know the advice at all? */
	if (madvise(self->addr, 0, MADV_HWPOISON))
		SKIP(return, "no memory failure by advice: %s", strerror(errno));
	ASSERT_EQ(0, ksm_madvise(self->addr, 5, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(4, ksm_count_merged(self->addr, 5));
	self->pfn = ksm_pfn(self->addr);
	catch_sigbus();
}

FIXTURE_TEARDOWN_PARENT(broken)
{
	ksm_restore();
	if (self->poisoned)
		unpoison_memory(self->pfn);
}

/* All who shared the page lose it, wherever they have it; nobody else does. */
TEST_F_TIMEOUT(broken, poison_reaches_all_sharers, KSM_TIMEOUT)
{
	struct ksm_child child;
	int broken = 0;
	bool told;

	if (ksm_child_fork(&child)) {
		int bad;

		ksm_madvise(ksm_page(self->addr, 4), 1, MADV_UNMERGEABLE);
		ksm_child_pause(&child);
		bad = !is_broken(self->addr) || !is_broken(ksm_page(self->addr, 3));
		_exit(bad || !ksm_holds(ksm_page(self->addr, 4), 2));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	self->poisoned = true;
	ASSERT_EQ(0, poison(self->addr, MADV_HWPOISON, &told));
	EXPECT_TRUE(told);
	for (int i = 0; i < 4; i++)
		broken += is_broken(ksm_page(self->addr, i));
	EXPECT_EQ(4, broken);
	EXPECT_TRUE(ksm_holds(ksm_page(self->addr, 4), 2));
	EXPECT_EQ(0, ksm_child_finish(&child));

	/* KSM goes on without it, and takes up the content anew. */
	char *again = ksm_map_dups(6, 1);

	ASSERT_NE(MAP_FAILED, again);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(6, ksm_count_merged(again, 6));
	EXPECT_NE(self->pfn, ksm_pfn(again));
	EXPECT_TRUE(ksm_pages_hold(again, 6, 1, 0));
	EXPECT_EQ(5, ksm_get("pages_sharing"));
}

/* A page that is only suspect moves away; nobody notices. */
TEST_F_TIMEOUT(broken, soft_offline_moves_it, KSM_TIMEOUT)
{
	bool told;
	int err;

	self->poisoned = true;
	err = poison(self->addr, MADV_SOFT_OFFLINE, &told);
	ASSERT_EQ(0, err);
	EXPECT_FALSE(told);
	EXPECT_NE(self->pfn, ksm_pfn(self->addr));
	EXPECT_TRUE(ksm_one_frame(self->addr, 4));
	EXPECT_EQ(4, ksm_count_merged(self->addr, 5));
	EXPECT_TRUE(ksm_pages_hold(self->addr, 4, 1, 0));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(3, ksm_get("pages_sharing"));
}

/*
 * The frames that fresh_frames has in its pools are nobody's; but they can move, and one
 * whose memory fails goes. They are known by being on the LRU lists, but neither mapped
 * nor to be reclaimed.
 */
#define KPF_POOL	(BIT_ULL(5) | BIT_ULL(18))	/* LRU, UNEVICTABLE */
#define KPF_NO_POOL	(BIT_ULL(11) | BIT_ULL(12))	/* MMAP, ANON */
#define KPF_BROKEN	BIT_ULL(19)
#define NR_BAD		32

FIXTURE(pool)
{
	unsigned long bad[NR_BAD];
};

static __u64 page_flags(unsigned long pfn)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	__u64 flags = 0;

	if (pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) != sizeof(flags))
		flags = 0;
	close(fd);
	return flags;
}

/* How many frames are in pools, and some of them. */
static size_t pool_frames(unsigned long *some, size_t nr_some)
{
	static __u64 flags[4096];
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	unsigned long pfn = 0;
	size_t nr = 0;
	ssize_t n;

	while ((n = read(fd, flags, sizeof(flags))) > 0) {
		for (size_t i = 0; i < n / sizeof(*flags); i++, pfn++) {
			if ((flags[i] & (KPF_POOL | KPF_NO_POOL)) != KPF_POOL)
				continue;
			if (nr % 64 == 0 && nr / 64 < nr_some)
				some[nr / 64] = pfn;
			nr++;
		}
	}
	close(fd);
	return nr;
}

static int break_frame(const char *how, unsigned long pfn)
{
	char path[96], text[32];

	snprintf(path, sizeof(path), "/sys/devices/system/memory/%s_offline_page", how);
	snprintf(text, sizeof(text), "0x%lx", pfn * psize());
	return ksm_spew(path, text);
}

FIXTURE_SETUP(pool)
{
	const char *why_not = ksm_setup();

	if (!why_not && !ksm_has("fresh_frames"))
		why_not = "kernel without fresh_frames";
	if (!why_not && access("/sys/devices/system/memory/hard_offline_page", F_OK))
		why_not = "no memory failure by page frame";
	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ksm_write("fresh_frames", "1"));
	ASSERT_LT(NR_BAD * 64, pool_frames(self->bad, NR_BAD));
}

FIXTURE_TEARDOWN_PARENT(pool)
{
	ksm_restore();
	for (int i = 0; i < NR_BAD; i++)
		if (page_flags(self->bad[i]) & KPF_BROKEN)
			unpoison_memory(self->bad[i]);
}

TEST_F_TIMEOUT(pool, bad_frames_go, KSM_TIMEOUT)
{
	const size_t nr = 256;
	char *addr = ksm_map(2 * nr);

	ASSERT_NE(MAP_FAILED, addr);
	for (int i = 0; i < NR_BAD; i++) {
		ASSERT_EQ(0, break_frame(i % 2 ? "soft" : "hard", self->bad[i]));
		EXPECT_EQ(KPF_BROKEN, page_flags(self->bad[i]) & (KPF_BROKEN | KPF_POOL));
	}
	ksm_fill_pages(addr, nr, 1, 1);
	ksm_fill_pages(ksm_page(addr, nr), nr, 1, 1);
	ASSERT_EQ(0, ksm_madvise(addr, 2 * nr, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(5));
	EXPECT_EQ(2 * nr, ksm_count_merged(addr, 2 * nr));
	for (size_t i = 0; i < 2 * nr; i++)
		EXPECT_EQ(0, page_flags(ksm_pfn(ksm_page(addr, i))) & KPF_BROKEN);
	EXPECT_TRUE(ksm_pages_hold(addr, nr, 1, 1));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(addr, nr), nr, 1, 1));
}

/* -- Memory taken offline -- */

#define MEMORY_BLOCKS	"/sys/devices/system/memory"
#define NR_PAGES	32

FIXTURE(hotplug)
{
	char *addr;	/* NR_PAGES merged pages in a block that can go offline */
	unsigned long block_size;
	long block;	/* the one to be put back online, or -1 */
};

/* Of kpageflags: no page there, broken, or taken since boot. */
#define KPF_STAYS	(BIT_ULL(20) | BIT_ULL(19) | BIT_ULL(32))

/* Does this file of the block begin with @text? */
static bool block_says(long block, const char *file, const char *text)
{
	char path[96], found[128];

	snprintf(path, sizeof(path), MEMORY_BLOCKS "/memory%ld/%s", block, file);
	return ksm_slurp(path, found, sizeof(found)) > 0 &&
	       !strncmp(found, text, strlen(text));
}

/* Blocks outside of ZONE_MOVABLE, or with such pages in them, never can. */
static bool can_go_offline(long block, unsigned long size)
{
	size_t nr = size / psize(), bytes = nr * sizeof(__u64);
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	__u64 *flags = malloc(bytes);
	bool can = block_says(block, "valid_zones", "Movable") &&
		   pread(fd, flags, bytes, block * bytes) == (ssize_t)bytes;

	for (size_t i = 0; can && i < nr; i++)
		can = !(flags[i] & KPF_STAYS);
	free(flags);
	close(fd);
	return can;
}

static long block_of(char *addr, unsigned long size)
{
	return ksm_pfn(addr) * psize() / size;
}

/*
 * Takes memory until some is in such a block, and gives the rest back. Where
 * there are huge pages this takes them, as it is quicker.
 */
static char *map_in_movable_block(unsigned long block_size)
{
	size_t step = 2 << 20, nr = sysconf(_SC_AVPHYS_PAGES) * psize() / 2 / step;
	char *map = mmap(NULL, (nr + 1) * step, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *addr = (char *)(((unsigned long)map + step - 1) & ~(step - 1));
	long block = -1;
	size_t i;

	if (map == MAP_FAILED)
		return NULL;
	madvise(map, (nr + 1) * step, MADV_HUGEPAGE);
	for (i = 0; i < nr; i++, addr += step) {
		memset(addr, 1, step);
		if (block_of(addr, block_size) == block)
			continue;
		block = block_of(addr, block_size);
		if (can_go_offline(block, block_size))
			break;
	}
	if (i == nr) {
		munmap(map, (nr + 1) * step);
		return NULL;
	}
	munmap(map, addr - map);
	munmap(ksm_page(addr, NR_PAGES), map + (nr + 1) * step - ksm_page(addr, NR_PAGES));
	return addr;
}

FIXTURE_SETUP(hotplug)
{
	const char *why_not = ksm_setup();
	char size[32];

	self->block = -1;
	if (why_not)
		SKIP(return, "%s", why_not);
#ifdef __aarch64__
	SKIP(return, "what arm64 has booted with stays online");
#endif
	if (ksm_slurp(MEMORY_BLOCKS "/block_size_bytes", size, sizeof(size)) <= 0)
		SKIP(return, "kernel without memory hotplug");
	self->block_size = strtoul(size, NULL, 16);
	self->addr = map_in_movable_block(self->block_size);
	if (!self->addr)
		SKIP(return, "no memory that can go offline (movablecore= makes some)");
	ksm_fill_pages(self->addr, NR_PAGES, 1, 0);
	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(5));
	ASSERT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
}

static int set_block(long block, const char *state)
{
	char path[96];

	snprintf(path, sizeof(path), MEMORY_BLOCKS "/memory%ld/state", block);
	return ksm_spew(path, state);
}

FIXTURE_TEARDOWN_PARENT(hotplug)
{
	if (self->block >= 0)
		set_block(self->block, "online_movable");
	ksm_restore();
}

/* Somebody else's page may be in the way for a while, so it is tried again. */
static int offline_block_of(FIXTURE_DATA(hotplug) * self, long block)
{
	int err = -EBUSY;

	for (int i = 0; err == -EBUSY && i < 20; i++)
		err = set_block(block, "offline");
	if (!err)
		self->block = block;
	return err;
}

TEST_F_TIMEOUT(hotplug, merged_pages_move_out, KSM_TIMEOUT)
{
	ASSERT_EQ(0, offline_block_of(self, block_of(self->addr, self->block_size)));
	EXPECT_NE(self->block, block_of(self->addr, self->block_size));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_one_frame(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	EXPECT_EQ(0, ksm_get("run"));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));

	ASSERT_EQ(0, set_block(self->block, "online_movable"));
	self->block = -1;
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

/* What KSM remembers of a page that was freed there must go with the block. */
TEST_F_TIMEOUT(hotplug, stale_records_go, KSM_TIMEOUT)
{
	long block = block_of(self->addr, self->block_size);

	ksm_fill_pages(self->addr, NR_PAGES, 100, 1);
	ASSERT_EQ(0, offline_block_of(self, block));
	ksm_fill_pages(self->addr, NR_PAGES, 1, 0);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

/* While ksmd is at work: it has to step aside, and come back. */
TEST_F_TIMEOUT(hotplug, offline_while_scanning, KSM_TIMEOUT)
{
	long block = block_of(self->addr, self->block_size);

	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	for (int round = 0; round < 5; round++) {
		ksm_fill(ksm_page(self->addr, round), 200 + round);
		ASSERT_EQ(0, offline_block_of(self, block));
		EXPECT_EQ(1, ksm_get("run"));
		ASSERT_TRUE(ksm_holds(ksm_page(self->addr, round), 200 + round));
		ASSERT_EQ(0, set_block(block, "online_movable"));
		self->block = -1;
		ksm_fill(ksm_page(self->addr, round), 1);
		ASSERT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	}
	ASSERT_EQ(0, ksm_wait_scans(4));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
}

/* The frames in its pools may be in any block. */
TEST_F_TIMEOUT(hotplug, fresh_frames_give_way, KSM_TIMEOUT)
{
	long block = block_of(self->addr, self->block_size);

	if (!ksm_has("fresh_frames"))
		SKIP(return, "kernel without fresh_frames");
	ASSERT_EQ(0, ksm_write("fresh_frames", "1"));
	ASSERT_EQ(0, offline_block_of(self, block));
	ksm_fill_pages(self->addr, NR_PAGES, 7, 0);
	ASSERT_EQ(0, ksm_scan(5));
	EXPECT_NE(block, block_of(self->addr, self->block_size));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_one_frame(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 7, 0));
}

/* A page that is held cannot move, so this does not end until it is called off. */
TEST_F_TIMEOUT(hotplug, offline_is_called_off, KSM_TIMEOUT)
{
	long block = block_of(self->addr, self->block_size);
	struct iovec page = { .iov_base = self->addr, .iov_len = psize() };
	double deadline = ksm_now() + KSM_HANG_SECS;
	int pipes[2], status;
	pid_t pid;

	ASSERT_EQ(0, pipe2(pipes, O_CLOEXEC));
	ASSERT_EQ((ssize_t)psize(), vmsplice(pipes[1], &page, 1, 0));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(set_block(block, "offline") != 0);
	}
	while (!block_says(block, "state", "going-offline") && ksm_now() < deadline)
		usleep(1000);
	EXPECT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_TRUE(block_says(block, "state", "online"));

	/* ksmd was parked, and goes on. */
	EXPECT_EQ(block, block_of(self->addr, self->block_size));
	ksm_fill(self->addr, 2);
	ksm_fill(ksm_page(self->addr, 1), 2);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_EQ(2, ksm_get("pages_shared"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, 2, 2, 0));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 2), NR_PAGES - 2, 1, 0));
}

TEST_HARNESS_MAIN
