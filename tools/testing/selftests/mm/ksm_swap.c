// SPDX-License-Identifier: GPL-2.0
/*
 * Merged pages that are swapped out, and come back.
 *
 * One swap slot then stands for many mappings. The first to fault in takes the
 * page as its own; the others need copies (ksm_swpin_copy), as it is not merged
 * any more. MADV_PAGEOUT leaves shared pages alone, so reclaim is asked for by
 * a memory cgroup of the test's own.
 */
#include <sys/uio.h>
#include "ksm_reclaim.h"

#define NR_PAGES	32

FIXTURE(swap)
{
	char *addr;
	struct ksm_reclaim reclaim;
};

FIXTURE_SETUP(swap)
{
	const char *why_not = ksm_setup();

	if (!why_not)
		why_not = ksm_reclaim_begin(&self->reclaim);
	if (why_not)
		SKIP(return, "%s", why_not);
	self->addr = ksm_map_dups(NR_PAGES, 1);
	ASSERT_NE(MAP_FAILED, self->addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
}

FIXTURE_TEARDOWN_PARENT(swap)
{
	ksm_restore();
	ksm_reclaim_end(&self->reclaim);
}

TEST_F_TIMEOUT(swap, out_and_in, KSM_TIMEOUT)
{
	long copies = ksm_vmstat("ksm_swpin_copy");

	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	/* All but the first needed a copy of what it had brought in. */
	EXPECT_GE(ksm_vmstat("ksm_swpin_copy"), copies + 1);
	EXPECT_LE(ksm_vmstat("ksm_swpin_copy"), copies + NR_PAGES);

	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

TEST_F_TIMEOUT(swap, writes_after_swap_in_are_private, KSM_TIMEOUT)
{
	int intact = 0;

	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	for (int i = 0; i < NR_PAGES; i += 2)
		ksm_page(self->addr, i)[5] ^= 0x7f;
	for (int i = 0; i < NR_PAGES; i++)
		intact += ksm_holds(ksm_page(self->addr, i), 1) == i % 2;
	EXPECT_EQ(NR_PAGES, intact);
	for (int i = 0; i < NR_PAGES; i += 2)
		ksm_page(self->addr, i)[5] ^= 0x7f;
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

TEST_F_TIMEOUT(swap, two_processes, KSM_TIMEOUT)
{
	struct ksm_child child;

	if (ksm_child_fork(&child)) {
		int bad;

		ksm_child_pause(&child);
		ksm_fill(self->addr, 2);
		bad = !ksm_pages_hold(ksm_page(self->addr, 1), NR_PAGES - 1, 1, 0);
		ksm_child_pause(&child);
		_exit(bad || !ksm_holds(self->addr, 2));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	ASSERT_TRUE(ksm_child_go(&child));
	ASSERT_TRUE(ksm_child_wait(&child));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	EXPECT_EQ(0, ksm_child_finish(&child));
}

/* That its only sharer had no more use for a page does not bind those who come later. */
TEST_F_TIMEOUT(swap, joins_what_was_freed_lazily, KSM_TIMEOUT)
{
	char *later;

	ASSERT_EQ(0, munmap(ksm_page(self->addr, 1), (NR_PAGES - 1) * psize()));
	ASSERT_EQ(0, ksm_madvise(self->addr, 1, MADV_FREE));
	later = ksm_map_dups(2, 1);
	ASSERT_NE(MAP_FAILED, later);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(2, ksm_count_merged(later, 2));
	for (int i = 0; i < 500 && ksm_pfn(later) != -1UL; i++) {
		ksm_reclaim_some();
		usleep(10000);
	}
	EXPECT_TRUE(ksm_pages_hold(later, 2, 1, 0));
}

/*
 * What was unmerged is a copy that nobody has written to since. A process that gives
 * its own away does not give away the one of its child.
 */
TEST_F_TIMEOUT(swap, frees_lazily_what_a_child_keeps, KSM_TIMEOUT)
{
	struct ksm_child child;
	int i, kept = NR_PAGES;

	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_UNMERGEABLE));
	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		_exit(!ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_FREE));
	for (i = 0; i < 300 && kept; i++) {
		ksm_reclaim_some();
		usleep(10000);
		kept = 0;
		for (int page = 0; page < NR_PAGES; page++)
			kept += ksm_pfn(ksm_page(self->addr, page)) != -1UL;
	}
	EXPECT_EQ(0, ksm_child_finish(&child));
}

/* The counters let go of what was swapped out, within a pass. */
TEST_F_TIMEOUT(swap, swapped_pages_are_not_counted, KSM_TIMEOUT)
{
	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	ASSERT_EQ(0, ksm_scan(2));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_merging_pages"));
	/* ksmd has no business in swap: it does not bring anything in. */
	EXPECT_EQ(NR_PAGES, ksm_count_swapped(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

TEST_F_TIMEOUT(swap, unmergeable_while_swapped, KSM_TIMEOUT)
{
	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_UNMERGEABLE));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_PAGES));
}

TEST_F_TIMEOUT(swap, run_2_while_swapped, KSM_TIMEOUT)
{
	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_EQ(0, ksm_write("max_page_sharing", "100"));
}

/* swapoff brings all of them back, by another way than a fault. */
TEST_F_TIMEOUT(swap, swapoff_copies_too, KSM_TIMEOUT)
{
	if (!self->reclaim.zram && !self->reclaim.file)
		SKIP(return, "the swap is not ours to turn off");
	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	ASSERT_EQ(0, swapoff(self->reclaim.zram ? KSM_ZRAM : KSM_SWAP_FILE));
	EXPECT_EQ(0, ksm_count_swapped(self->addr, NR_PAGES));
	ksm_fill(self->addr, 3);
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 1), NR_PAGES - 1, 1, 0));
	ksm_fill(self->addr, 1);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
}

/* Read ahead, a merged page waits in the swap cache and is still a KSM page. */
TEST_F_TIMEOUT(swap, willneed_then_touch, KSM_TIMEOUT)
{
	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_WILLNEED));
	ASSERT_EQ(0, ksm_scan(2));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	ksm_fill_pages(self->addr, NR_PAGES, 10, 1);
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 10, 1));
}

/* A KSM page with one sharer left may be paged out by advice. */
TEST_F_TIMEOUT(swap, pageout_of_a_single_sharer, KSM_TIMEOUT)
{
	ASSERT_EQ(0, munmap(ksm_page(self->addr, 1), (NR_PAGES - 1) * psize()));
	for (int i = 0; i < 100 && !ksm_count_swapped(self->addr, 1); i++)
		ksm_madvise(self->addr, 1, MADV_PAGEOUT);
	EXPECT_EQ(1, ksm_count_swapped(self->addr, 1));
	EXPECT_TRUE(ksm_holds(self->addr, 1));
}

/*
 * A pipe that refers to a page. Reclaim may unmap the page then, but not free it: it stays
 * in the swap cache, and a merged one is merged still.
 */
static bool hold(int pipe_fds[2], char *page)
{
	struct iovec iov = { .iov_base = page, .iov_len = psize() };

	return !pipe2(pipe_fds, O_CLOEXEC) &&
	       vmsplice(pipe_fds[1], &iov, 1, 0) == (ssize_t)psize();
}

/* Does the reverse map find these pages? Reclaim does not get at them otherwise. */
static bool reclaimable(char *addr, size_t nr_pages)
{
	for (int i = 0; i < 500 && ksm_count_swapped(addr, nr_pages) < nr_pages; i++) {
		ksm_reclaim_some();
		usleep(10000);
	}
	return ksm_count_swapped(addr, nr_pages) == nr_pages;
}

/* ksmd comes by while a merged page is in the swap cache: it may go on being merged. */
TEST_F_TIMEOUT(swap, back_from_the_swap_cache, KSM_TIMEOUT)
{
	long copies = ksm_vmstat("ksm_swpin_copy");
	int pipe_fds[2];

	ASSERT_TRUE(hold(pipe_fds, self->addr));
	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	ASSERT_EQ(0, ksm_scan(2));
	EXPECT_EQ(NR_PAGES, ksm_count_swapped(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	EXPECT_EQ(copies, ksm_vmstat("ksm_swpin_copy"));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_EQ(NR_PAGES, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_TRUE(reclaimable(self->addr, NR_PAGES));
}

/*
 * A child has left its parent's domain meanwhile; the parent's items lead to its mappings
 * still. With ksmd stopped nobody else would notice.
 */
TEST_F_TIMEOUT(swap, left_its_domain_while_in_the_swap_cache, KSM_TIMEOUT)
{
	struct ksm_child child;
	int pipe_fds[2];

	if (ksm_domain_of(0) == -1ULL)
		SKIP(return, "kernel without PR_KSM_DOMAIN");
	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		if (ksm_count_swapped(self->addr, NR_PAGES) != NR_PAGES ||
		    ksm_domain(PR_KSM_DOMAIN_CREATE, 0) ||
		    !ksm_pages_hold(self->addr, NR_PAGES, 1, 0))
			_exit(121);
		_exit(ksm_count_merged(self->addr, NR_PAGES));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_TRUE(hold(pipe_fds, self->addr));
	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
}

/* What stands for a merged page in swap is moved over that of another, and to nowhere. */
TEST_F_TIMEOUT(swap, moved_while_in_the_swap_cache, KSM_TIMEOUT)
{
	char *other = ksm_map_dups(1, 1), *empty = ksm_map(1);
	int pipe_fds[2];

	ASSERT_NE(MAP_FAILED, other);
	ASSERT_NE(MAP_FAILED, empty);
	ASSERT_EQ(0, ksm_scan(2));
	ASSERT_EQ(1, ksm_count_merged(other, 1));
	ASSERT_TRUE(hold(pipe_fds, other));
	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	ASSERT_TRUE(ksm_swap_out(other, 1));
	ASSERT_EQ(other, mremap(self->addr, psize(), psize(),
				MREMAP_MAYMOVE | MREMAP_FIXED, other));
	ASSERT_EQ(empty, mremap(ksm_page(self->addr, 1), psize(), psize(),
				MREMAP_MAYMOVE | MREMAP_FIXED, empty));
	EXPECT_TRUE(ksm_holds(other, 1));
	EXPECT_TRUE(ksm_holds(empty, 1));
	EXPECT_TRUE(reclaimable(other, 1));
	EXPECT_TRUE(reclaimable(empty, 1));
}

static long charged(void)
{
	char buf[32];

	return ksm_slurp(KSM_CGROUP "/memory.current", buf, sizeof(buf)) > 0 ?
	       strtol(buf, NULL, 10) : LONG_MIN;
}

/* The cgroup is charged for what is there: less by merging, and more again. */
TEST_F_TIMEOUT(swap, merging_is_uncharged, KSM_TIMEOUT)
{
	long before, saved = 3 << 20;
	char *addr = ksm_map_dups(1024, 5);

	ASSERT_NE(MAP_FAILED, addr);
	before = charged();
	ASSERT_GE(before, 1024 * (long)psize());
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(1024, ksm_count_merged(addr, 1024));
	EXPECT_LE(charged(), before - saved);
	before = charged();
	ASSERT_EQ(0, ksm_madvise(addr, 1024, MADV_UNMERGEABLE));
	EXPECT_GE(charged(), before + saved);
	EXPECT_TRUE(ksm_pages_hold(addr, 1024, 5, 0));
}

/* In and out all the time while ksmd merges and the process writes. */
TEST_F_TIMEOUT(swap, reclaim_while_scanning, KSM_TIMEOUT)
{
	long in = ksm_vmstat("pswpin");
	double deadline = ksm_now() + KSM_HANG_SECS;

	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	for (int round = 0; round < 100 || ksm_vmstat("pswpin") < in + 20; round++) {
		ASSERT_LT(ksm_now(), deadline);
		ksm_reclaim_some();
		ksm_fill(ksm_page(self->addr, round % NR_PAGES), 50 + round % 2);
		ASSERT_TRUE(ksm_holds(ksm_page(self->addr, round % NR_PAGES),
				      50 + round % 2));
		ksm_fill(ksm_page(self->addr, round % NR_PAGES), 1);
		ASSERT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
		usleep(10000);
	}
}

TEST_HARNESS_MAIN
