// SPDX-License-Identifier: GPL-2.0
/*
 * Merged memory through the life of its processes: write, fork, unmerge, unmap,
 * move, exit, in any order and while ksmd is at work on it.
 *
 * Whatever happens, each process must read what it wrote last and nothing else.
 * So every test ends in a comparison of bytes, on all sides of the sharing.
 */
#include <pthread.h>
#include <sys/time.h>
#include "ksm_reclaim.h"

#define NR_PAGES	16

FIXTURE(life)
{
	char *addr;	/* NR_PAGES merged pages of content 1 */
};

FIXTURE_SETUP(life)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	self->addr = ksm_map_dups(NR_PAGES, 1);
	ASSERT_NE(MAP_FAILED, self->addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
}

FIXTURE_TEARDOWN_PARENT(life)
{
	ksm_restore();
}

/* A write gives the writer a page of its own, and is counted as such. */
TEST_F_TIMEOUT(life, write_breaks_sharing, KSM_TIMEOUT)
{
	long before = ksm_vmstat("cow_ksm");

	for (int i = 0; i < NR_PAGES; i += 2)
		ksm_fill(ksm_page(self->addr, i), 100 + i);
	EXPECT_GE(ksm_vmstat("cow_ksm"), before + NR_PAGES / 2);
	for (int i = 0; i < NR_PAGES; i++) {
		EXPECT_TRUE(ksm_holds(ksm_page(self->addr, i), i % 2 ? 1 : 100 + i));
		EXPECT_EQ(i % 2, ksm_count_merged(ksm_page(self->addr, i), 1));
	}
}

/* One byte: the rest of the page must have been copied. */
TEST_F_TIMEOUT(life, small_write_copies_the_rest, KSM_TIMEOUT)
{
	char *page = ksm_page(self->addr, 3);

	page[17] ^= 0x55;
	EXPECT_FALSE(ksm_holds(page, 1));
	page[17] ^= 0x55;
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

/* Even the last sharer may not write to the KSM page itself. */
TEST_F_TIMEOUT(life, last_sharer_copies_too, KSM_TIMEOUT)
{
	unsigned long pfn = ksm_pfn(self->addr);

	ASSERT_EQ(0, munmap(ksm_page(self->addr, 1), (NR_PAGES - 1) * psize()));
	ksm_fill(self->addr, 2);
	EXPECT_NE(pfn, ksm_pfn(self->addr));
	EXPECT_EQ(0, ksm_count_merged(self->addr, 1));
	EXPECT_TRUE(ksm_holds(self->addr, 2));
}

/* In a system call the kernel writes in the process's stead. */
TEST_F_TIMEOUT(life, kernel_writes_break_sharing, KSM_TIMEOUT)
{
	int pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(4, write(pipes[1], "abcd", 4));
	ASSERT_EQ(4, read(pipes[0], ksm_page(self->addr, 5) + 100, 4));
	EXPECT_EQ(0, memcmp(ksm_page(self->addr, 5) + 100, "abcd", 4));
	EXPECT_FALSE(ksm_holds(ksm_page(self->addr, 5), 1));
	EXPECT_TRUE(ksm_pages_hold(self->addr, 5, 1, 0));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 6), NR_PAGES - 6, 1, 0));
}

/* A debugger writes through /proc/PID/mem. */
TEST_F_TIMEOUT(life, remote_writes_break_sharing, KSM_TIMEOUT)
{
	int fd = open("/proc/self/mem", O_RDWR);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(4, pwrite(fd, "wxyz", 4, (off_t)(uintptr_t)ksm_page(self->addr, 7)));
	close(fd);
	EXPECT_EQ(0, memcmp(ksm_page(self->addr, 7), "wxyz", 4));
	EXPECT_TRUE(ksm_pages_hold(self->addr, 7, 1, 0));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 8), NR_PAGES - 8, 1, 0));
}

/* Fork of merged pages: each side's writes are for that side only. */
TEST_F_TIMEOUT(life, fork_then_both_write, KSM_TIMEOUT)
{
	struct ksm_child child;

	if (ksm_child_fork(&child)) {
		int bad = !ksm_pages_hold(self->addr, NR_PAGES, 1, 0);

		ksm_fill_pages(self->addr, 4, 20, 1);
		ksm_child_pause(&child);
		bad |= !ksm_pages_hold(self->addr, 4, 20, 1);
		bad |= !ksm_pages_hold(ksm_page(self->addr, 4), NR_PAGES - 4, 1, 0);
		_exit(bad);
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	ksm_fill_pages(ksm_page(self->addr, 2), 4, 30, 1);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(ksm_pages_hold(self->addr, 2, 1, 0));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 2), 4, 30, 1));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 6), NR_PAGES - 6, 1, 0));
}

/* A forked mm is scanned in its turn; its pages join, and are counted there. */
TEST_F_TIMEOUT(life, fork_is_scanned, KSM_TIMEOUT)
{
	struct ksm_child child;

	if (ksm_child_fork(&child)) {
		if (ksm_stat_of(0, "ksm_merging_pages"))
			_exit(2);
		ksm_child_pause(&child);
		_exit(!ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(2 * NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_EQ(NR_PAGES, ksm_stat_of(child.pid, "ksm_merging_pages"));
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

/* The process whose page became the KSM page goes; the others keep it. */
TEST_F_TIMEOUT(life, first_owner_exits, KSM_TIMEOUT)
{
	struct ksm_child child;
	char *other = ksm_map(4);

	ASSERT_NE(MAP_FAILED, other);
	ASSERT_EQ(0, ksm_write("run", "2"));
	if (ksm_child_fork(&child)) {
		char *addr = ksm_map_dups(4, 40);

		ksm_child_pause(&child);
		_exit(addr == MAP_FAILED || !ksm_pages_hold(addr, 4, 40, 0));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_scan(3));
	ksm_fill_pages(other, 4, 40, 0);
	ASSERT_EQ(0, ksm_madvise(other, 4, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(4, ksm_count_merged(other, 4));
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(ksm_pages_hold(other, 4, 40, 0));
	ASSERT_EQ(0, ksm_scan(2));
	EXPECT_TRUE(ksm_pages_hold(other, 4, 40, 0));
	EXPECT_EQ(4, ksm_count_merged(other, 4));
}

/* When run=2 returns nothing is merged any more, in any process. */
TEST_F_TIMEOUT(life, run_2_is_synchronous, KSM_TIMEOUT)
{
	struct ksm_child child;

	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		_exit(ksm_count_merged(self->addr, NR_PAGES) ||
		      !ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_write("run", "1"));
	ASSERT_EQ(0, ksm_wait_scans(2));
	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(2, ksm_get("run"));
	EXPECT_EQ(0, ksm_get("full_scans"));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_get("pages_unshared"));
	EXPECT_EQ(0, ksm_get("pages_volatile"));
	EXPECT_EQ(0, ksm_get("general_profit"));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_rmap_items"));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	EXPECT_EQ(0, ksm_child_finish(&child));
	/* And it can start over. */
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
}

/* A moved range is unmerged first, as its place in the reverse map is gone. */
TEST_F_TIMEOUT(life, mremap_unmerges, KSM_TIMEOUT)
{
	size_t len = NR_PAGES * psize();
	char *to = ksm_map(NR_PAGES);

	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(to, mremap(self->addr, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(0, ksm_count_merged(to, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(to, NR_PAGES, 1, 0));
	EXPECT_TRUE(ksm_is_mergeable(to));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(to, NR_PAGES));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_pages_hold(to, NR_PAGES, 1, 0));
}

/* A moved page takes its new neighbour's place; no stale record may be used. */
TEST_F_TIMEOUT(life, mremap_swaps_contents, KSM_TIMEOUT)
{
	char *a = ksm_map(2), *spare = ksm_map(1);
	size_t len = psize();

	ASSERT_NE(MAP_FAILED, a);
	ASSERT_NE(MAP_FAILED, spare);
	ksm_fill_pages(a, 2, 50, 1);
	ASSERT_EQ(0, ksm_madvise(a, 2, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(6));
	ASSERT_EQ(spare, mremap(a, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, spare));
	ASSERT_EQ(a, mremap(ksm_page(a, 1), len, len,
			    MREMAP_MAYMOVE | MREMAP_FIXED, a));
	ASSERT_EQ(ksm_page(a, 1), mremap(spare, len, len,
					 MREMAP_MAYMOVE | MREMAP_FIXED, ksm_page(a, 1)));
	/* A twin of each: it must meet the content where it now is. */
	spare = ksm_map(2);
	ksm_fill_pages(spare, 2, 50, 1);
	ASSERT_EQ(0, ksm_madvise(spare, 2, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(4));
	EXPECT_EQ(ksm_pfn(a), ksm_pfn(ksm_page(spare, 1)));
	EXPECT_EQ(ksm_pfn(ksm_page(a, 1)), ksm_pfn(spare));
	EXPECT_TRUE(ksm_holds(a, 51));
	EXPECT_TRUE(ksm_holds(ksm_page(a, 1), 50));
}

/* ksmd merges again what is unmerged at the same time. */
TEST_F_TIMEOUT(life, unmerge_while_scanning, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	for (int i = 0; i < 200; i++) {
		ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_UNMERGEABLE));
		ASSERT_EQ(0, ksm_count_merged(self->addr, NR_PAGES));
		ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_MERGEABLE));
		usleep(i * 20);
		ASSERT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	}
}

static void take_alarm(int signal)
{
}

/*
 * A signal may interrupt unmerging: the advice fails, and can be given again. With
 * SA_RESTART that goes by itself.
 */
TEST_F_TIMEOUT(life, signals_while_unmerging, KSM_TIMEOUT)
{
	struct sigaction action = { .sa_handler = take_alarm };
	struct itimerval often = { { 0, 2000 }, { 0, 2000 } }, never = { };
	char *addr = ksm_map(1024);
	int err, interrupted = 0;

	ASSERT_NE(MAP_FAILED, addr);
	for (int round = 0; round < 10; round++) {
		action.sa_flags = round % 2 ? SA_RESTART : 0;
		ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
		ksm_fill_pages(addr, 1024, 80, 0);
		ASSERT_EQ(0, ksm_madvise(addr, 1024, MADV_MERGEABLE));
		ASSERT_EQ(0, ksm_scan(3));
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &often, NULL));
		do {
			err = ksm_madvise(addr, 1024, MADV_UNMERGEABLE);
			interrupted += err == -EINTR;
		} while (err == -EINTR && !action.sa_flags);
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &never, NULL));
		ASSERT_EQ(0, err);
		ASSERT_EQ(0, ksm_count_merged(addr, 1024));
		ASSERT_TRUE(ksm_pages_hold(addr, 1024, 80, 0));
	}
	TH_LOG("interrupted %d times", interrupted);
}

/* Maps, fills, checks and unmaps, over and over; nonzero if bytes were wrong. */
static int churn(unsigned int rounds, __u64 salt)
{
	for (unsigned int round = 0; round < rounds; round++) {
		char *addr = ksm_map_dups(NR_PAGES, round % 3);

		if (addr == MAP_FAILED)
			return 2;
		usleep(500 + salt * 300);
		for (int i = 0; i < NR_PAGES; i += 3)
			ksm_fill(ksm_page(addr, i), salt * 1000 + round);
		usleep(500);
		for (int i = 0; i < NR_PAGES; i++)
			if (!ksm_holds(ksm_page(addr, i),
				       i % 3 ? round % 3 : salt * 1000 + round))
				return 1;
		munmap(ksm_page(addr, 2), 5 * psize());
		if (!ksm_pages_hold(addr, 1, salt * 1000 + round, 0))
			return 1;
		munmap(addr, NR_PAGES * psize());
	}
	return 0;
}

/* Several processes do so while ksmd never rests; and some exit in the middle. */
TEST_F_TIMEOUT(life, churn_while_scanning, KSM_TIMEOUT)
{
	struct ksm_child children[6];

	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	for (int round = 0; round < 5; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(children); i++)
			if (ksm_child_fork(&children[i]))
				_exit(churn(10 + 10 * i, i + 1));
		ASSERT_EQ(0, ksm_children_end(children, ARRAY_SIZE(children)));
		ASSERT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	}
	ASSERT_EQ(0, ksm_wait_scans(2));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
}

/* Processes that are killed in whatever they do leave nothing behind. */
TEST_F_TIMEOUT(life, killed_while_scanning, KSM_TIMEOUT)
{
	struct ksm_child child;

	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	for (int round = 0; round < 60; round++) {
		if (ksm_child_fork(&child))
			_exit(churn(1000, 1));
		usleep(round * 500);
		ASSERT_EQ(0, kill(child.pid, SIGKILL));
		ASSERT_EQ(128 + SIGKILL, ksm_child_end(&child));
	}
	ASSERT_EQ(0, ksm_wait_scans(2));
	ASSERT_EQ(0, ksm_write("run", "0"));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_get("pages_unshared"));
	EXPECT_EQ(0, ksm_get("pages_volatile"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

struct writer {
	char *addr;
	bool stop;
	bool wrong;
};

/* Keeps a counter in each page: a merge that loses a write is seen at once. */
static void *count_up(void *arg)
{
	struct writer *w = arg;
	__u64 n = 0;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		n++;
		for (int i = 0; i < NR_PAGES; i++) {
			__u64 *slot = (__u64 *)ksm_page(w->addr, i) + 9;

			if (FORCE_READ(*slot) != n - 1)
				w->wrong = true;
			__atomic_store_n(slot, n, __ATOMIC_RELAXED);
		}
		/* Let them be equal, and merged, once in a while. */
		if (!(n % 64))
			usleep(2000);
	}
	return NULL;
}

TEST_F_TIMEOUT(life, no_write_is_lost, KSM_TIMEOUT)
{
	struct writer w = { .addr = ksm_map(NR_PAGES) };
	pthread_t thread;
	long before = ksm_vmstat("cow_ksm");

	ASSERT_NE(MAP_FAILED, w.addr);
	memset(w.addr, 0, NR_PAGES * psize());
	ASSERT_EQ(0, ksm_madvise(w.addr, NR_PAGES, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	ASSERT_EQ(0, pthread_create(&thread, NULL, count_up, &w));
	EXPECT_EQ(0, ksm_wait_scans(1500));
	__atomic_store_n(&w.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	EXPECT_FALSE(w.wrong);
	TH_LOG("%ld writes met a merged page", ksm_vmstat("cow_ksm") - before);
}

#define NR_MAPPERS	4
#define NR_TWINS	255

/* Wants its process's mmap_lock for writing, all the time. */
static void *map_and_unmap(void *arg)
{
	const bool *end = arg;
	char *addr;

	while (!__atomic_load_n(end, __ATOMIC_ACQUIRE)) {
		addr = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (addr == MAP_FAILED)
			return "no memory";
		*addr = 1;
		munmap(addr, psize());
	}
	return NULL;
}

/* A process that maps and unmaps, and never stops, is merged as soon as any other. */
TEST_F_TIMEOUT(life, merges_beside_mmap, KSM_TIMEOUT)
{
	char *twins = ksm_map_dups(NR_TWINS, 77);
	pthread_t threads[NR_MAPPERS];
	bool end = false;
	void *failed;

	ASSERT_NE(MAP_FAILED, twins);
	for (int i = 0; i < NR_MAPPERS; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, map_and_unmap, &end));
	EXPECT_EQ(0, ksm_scan(4));
	EXPECT_EQ(NR_TWINS, ksm_count_merged(twins, NR_TWINS));
	EXPECT_TRUE(ksm_pages_hold(twins, NR_TWINS, 77, 0));
	__atomic_store_n(&end, true, __ATOMIC_RELEASE);
	for (int i = 0; i < NR_MAPPERS; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &failed));
		EXPECT_EQ(NULL, failed);
	}
}

/* Switching between the run states while processes come and go. */
TEST_F_TIMEOUT(life, run_states_under_churn, KSM_TIMEOUT)
{
	static const char * const states[] = { "1", "2", "1", "0", "1", "2", "0" };
	struct ksm_child children[3];

	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	for (size_t i = 0; i < ARRAY_SIZE(children); i++)
		if (ksm_child_fork(&children[i]))
			_exit(churn(150, i + 1));
	for (int round = 0; round < 100; round++) {
		ASSERT_EQ(0, ksm_write("run", states[round % ARRAY_SIZE(states)]));
		usleep(3000);
	}
	EXPECT_EQ(0, ksm_children_end(children, ARRAY_SIZE(children)));
	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

/* Many small processes: all are visited, and leave when they end. */
TEST_F_TIMEOUT(life, many_processes, KSM_TIMEOUT)
{
	enum { NR = 150 };
	static struct ksm_child children[NR];
	int there = 0;

	for (int i = 0; i < NR; i++) {
		if (!ksm_child_fork(&children[i]))
			continue;
		char *addr = ksm_map_dups(2, 60 + i % 5);

		ksm_madvise(self->addr, NR_PAGES, MADV_UNMERGEABLE);
		ksm_child_pause(&children[i]);
		_exit(addr == MAP_FAILED || !ksm_pages_hold(addr, 2, 60 + i % 5, 0));
	}
	for (int i = 0; i < NR; i++)
		there += ksm_child_wait(&children[i]);
	ASSERT_EQ(NR, there);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(6, ksm_get("pages_shared"));
	EXPECT_EQ(2 * NR - 5 + NR_PAGES - 1, ksm_get("pages_sharing"));
	for (int i = 0; i < NR; i++)
		ksm_child_go(&children[i]);
	EXPECT_EQ(0, ksm_children_end(children, NR));
	ASSERT_EQ(0, ksm_scan(1));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
}

/* Terabytes of nothing with a page at either end must not hold up a pass. */
TEST_F_TIMEOUT(life, sparse_mapping_is_passed_quickly, KSM_TIMEOUT)
{
	static const int shifts[] = { 45, 43, 40, 38, 36 };
	char *addr = MAP_FAILED;
	size_t len = 0, last;

	for (size_t i = 0; addr == MAP_FAILED && i < ARRAY_SIZE(shifts); i++) {
		if (sizeof(long) < 8)
			SKIP(return, "needs 64 bits");
		len = 1UL << shifts[i];
		addr = mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	}
	ASSERT_NE(MAP_FAILED, addr);
	TH_LOG("%zu GiB", len >> 30);
	/* It fails where there are no huge pages, which is as good. */
	madvise(addr, len, MADV_NOHUGEPAGE);
	last = len / psize() - 1;
	ksm_fill(addr, 70);
	ksm_fill(ksm_page(addr, last), 70);
	ASSERT_EQ(0, madvise(addr, len, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(ksm_pfn(addr), ksm_pfn(ksm_page(addr, last)));
	EXPECT_TRUE(ksm_holds(addr, 70));
	EXPECT_TRUE(ksm_holds(ksm_page(addr, last), 70));
	ASSERT_EQ(0, madvise(addr, len, MADV_UNMERGEABLE));
	EXPECT_NE(ksm_pfn(addr), ksm_pfn(ksm_page(addr, last)));
}

/* -- Unmerging where memory is short, or that is cut short -- */

#define NR_MANY		2048
#define NR_SPARE	512	/* pages that a cgroup at its limit has left */

FIXTURE(tight)
{
	char *addr;	/* NR_MANY merged pages of content 1 */
	struct ksm_reclaim reclaim;
};

FIXTURE_SETUP(tight)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	if (!ksm_reclaim_enter(&self->reclaim))
		SKIP(return, "no memory cgroup (v2)");
	self->addr = ksm_map_dups(NR_MANY, 1);
	ASSERT_NE(MAP_FAILED, self->addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_MANY, ksm_count_merged(self->addr, NR_MANY));
}

FIXTURE_TEARDOWN_PARENT(tight)
{
	ksm_restore();
	ksm_reclaim_end(&self->reclaim);
}

/* Have system calls fail for want of memory, and the OOM killer keep off. */
static int spare_me(void)
{
	return ksm_spew("/proc/self/oom_score_adj", "-1000");
}

/*
 * At the limit, a process that the OOM killer must spare hangs in its next page fault.
 * So lift the limit right after the call that was to fail, through a file that is open
 * already.
 */
static int limit_fd;

/* Leave the cgroup NR_SPARE pages more than it has now; 0 or -errno. */
static int limit_memory(void)
{
	char text[32];

	ksm_spew(KSM_CGROUP "/memory.swap.max", "0");
	limit_fd = open(KSM_CGROUP "/memory.max", O_WRONLY | O_CLOEXEC);
	if (ksm_slurp(KSM_CGROUP "/memory.current", text, sizeof(text)) <= 0)
		return -EIO;
	snprintf(text, sizeof(text), "%lu",
		 strtoul(text, NULL, 10) + NR_SPARE * psize());
	return write(limit_fd, text, strlen(text)) < 0 ? -errno : 0;
}

static int unlimit_memory(void)
{
	return write(limit_fd, "max", 3) == 3 ? 0 : -errno;
}

/* Have a process outside of the cgroup unmerge everybody, with the cgroup at its limit. */
static int unmerge_from_outside(void)
{
	struct ksm_child child;
	int err;

	if (!ksm_child_fork(&child))
		return -ksm_child_end(&child);
	err = ksm_spew(KSM_CGROUP_ROOT "/cgroup.procs", "0");
	err = err ?: limit_memory();
	err = err ?: ksm_write("run", "2");
	_exit(unlimit_memory() ? 1 : -err);
}

/* After a few passes the figures say what is mapped. */
static void expect_true_figures(struct __test_metadata *_metadata, char *addr)
{
	size_t merged;

	ASSERT_EQ(0, ksm_scan(3));
	merged = ksm_count_merged(addr, NR_MANY);
	EXPECT_EQ(merged, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_EQ(merged, ksm_get("pages_shared") + ksm_get("pages_sharing"));
}

/* Memory runs out on the way: the range stays on offer, and nothing is lost. */
TEST_F_TIMEOUT(tight, unmergeable_at_the_limit, KSM_TIMEOUT)
{
	size_t half = NR_MANY / 2, merged;
	char *middle = ksm_page(self->addr, half / 2);
	int err;

	ASSERT_EQ(0, spare_me());
	ASSERT_EQ(0, limit_memory());
	err = ksm_madvise(middle, half, MADV_UNMERGEABLE);
	ASSERT_EQ(0, unlimit_memory());
	EXPECT_EQ(-EAGAIN, err);	/* madvise()'s word for no memory */
	merged = ksm_count_merged(middle, half);
	EXPECT_GT(merged, 0);
	EXPECT_LT(merged, half);
	EXPECT_EQ(NR_MANY - half, ksm_count_merged(self->addr, half / 2) +
		  ksm_count_merged(ksm_page(middle, half), half / 2));
	EXPECT_TRUE(ksm_is_mergeable(self->addr));
	EXPECT_TRUE(ksm_is_mergeable(middle));
	EXPECT_TRUE(ksm_is_mergeable(ksm_page(self->addr, NR_MANY - 1)));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_MANY, 1, 0));
	expect_true_figures(_metadata, self->addr);

	EXPECT_EQ(0, ksm_madvise(middle, half, MADV_UNMERGEABLE));
	EXPECT_EQ(0, ksm_count_merged(middle, half));
	EXPECT_FALSE(ksm_is_mergeable(middle));
	EXPECT_TRUE(ksm_is_mergeable(self->addr));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_MANY, 1, 0));
	expect_true_figures(_metadata, self->addr);
}

/* A process that offers everything withdraws everything, or nothing. */
TEST_F_TIMEOUT(tight, prctl_at_the_limit, KSM_TIMEOUT)
{
	char *apart = ksm_map(4);
	int err;

	ASSERT_NE(MAP_FAILED, apart);
	ASSERT_EQ(0, prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0));
	ASSERT_EQ(0, ksm_madvise(apart, 4, MADV_UNMERGEABLE));
	ASSERT_EQ(0, spare_me());
	ASSERT_EQ(0, limit_memory());
	err = prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0) ? -errno : 0;
	ASSERT_EQ(0, unlimit_memory());
	EXPECT_EQ(-ENOMEM, err);
	EXPECT_EQ(1, prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0));
	EXPECT_TRUE(ksm_is_mergeable(self->addr));
	EXPECT_FALSE(ksm_is_mergeable(apart));
	EXPECT_EQ(0, prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_MANY));
	EXPECT_FALSE(ksm_is_mergeable(self->addr));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_MANY, 1, 0));
}

/* So does unmerging everybody: the writer of 2 is told, and KSM has stopped. */
TEST_F_TIMEOUT(tight, run_2_at_the_limit, KSM_TIMEOUT)
{
	size_t merged;

	ASSERT_EQ(0, spare_me());
	EXPECT_EQ(-ENOMEM, unmerge_from_outside());
	EXPECT_EQ(0, ksm_get("run"));
	merged = ksm_count_merged(self->addr, NR_MANY);
	EXPECT_GT(merged, 0);
	EXPECT_LT(merged, NR_MANY);
	EXPECT_TRUE(ksm_is_mergeable(self->addr));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_MANY, 1, 0));
	expect_true_figures(_metadata, self->addr);

	EXPECT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(2, ksm_get("run"));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_MANY));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_MANY, 1, 0));
}

/* The OOM killer takes the process that unmerges, if it is in the cgroup itself. */
TEST_F_TIMEOUT(tight, run_2_is_killed, KSM_TIMEOUT)
{
	struct ksm_child child;

	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		_exit(!ksm_write("run", "2"));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, limit_memory());
	EXPECT_EQ(128 + SIGKILL, ksm_child_finish(&child));
	ASSERT_EQ(0, unlimit_memory());
	EXPECT_EQ(0, ksm_get("run"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_MANY, 1, 0));
	expect_true_figures(_metadata, self->addr);
}

static void unmerge_and_merge(struct ksm_child *child, char *addr)
{
	ksm_child_pause(child);
	for (;;) {
		ksm_madvise(addr, NR_MANY, MADV_UNMERGEABLE);
		ksm_madvise(addr, NR_MANY, MADV_MERGEABLE);
	}
}

static void unmerge_all_and_merge(struct ksm_child *child)
{
	ksm_child_pause(child);
	for (;;) {
		ksm_write("run", "2");
		ksm_write("run", "1");
	}
}

/* A process is killed while it unmerges itself, or everybody. The others live on. */
TEST_F_TIMEOUT(tight, killed_while_unmerging, KSM_TIMEOUT)
{
	struct ksm_child child;

	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	for (int round = 0; round < 16; round++) {
		ASSERT_EQ(0, ksm_write("run", "1"));
		if (ksm_child_fork(&child)) {
			if (round % 2)
				unmerge_all_and_merge(&child);
			unmerge_and_merge(&child, self->addr);
		}
		ASSERT_TRUE(ksm_child_wait(&child));
		ASSERT_TRUE(ksm_child_go(&child));
		usleep(500 + round * 700);
		ASSERT_EQ(0, kill(child.pid, SIGKILL));
		ASSERT_EQ(128 + SIGKILL, ksm_child_end(&child));
		ASSERT_TRUE(ksm_pages_hold(self->addr, NR_MANY, 1, 0));
		ASSERT_TRUE(ksm_is_mergeable(self->addr));
	}
	expect_true_figures(_metadata, self->addr);
	EXPECT_EQ(NR_MANY, ksm_count_merged(self->addr, NR_MANY));
	EXPECT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
}

TEST_HARNESS_MAIN
