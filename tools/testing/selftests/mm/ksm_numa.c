// SPDX-License-Identifier: GPL-2.0
/*
 * KSM and where pages are: merge_across_nodes, and migration of merged pages.
 *
 * A KSM page has many mappings and no owner, so migration has to find all of
 * them through KSM's own reverse map, while ksmd may be adding to it.
 */
#include <linux/mempolicy.h>
#include "ksm_util.h"

#define NR_PAGES	16
#define HALF		(NR_PAGES / 2)

/* System calls, so that no library is needed. */
static long bind_to(char *addr, size_t nr_pages, int node, int flags)
{
	unsigned long mask[16] = { 0 };
	size_t bits = 8 * sizeof(long);

	mask[node / bits] |= 1UL << (node % bits);
	return syscall(__NR_mbind, addr, nr_pages * psize(), MPOL_BIND, mask,
		       8 * sizeof(mask), flags) ? -errno : 0;
}

static int node_of(char *addr)
{
	int node = -1;

	if (syscall(__NR_get_mempolicy, &node, NULL, 0, addr,
		    MPOL_F_NODE | MPOL_F_ADDR))
		return -errno;
	return node;
}

static bool all_on(char *addr, size_t nr_pages, int node)
{
	for (size_t i = 0; i < nr_pages; i++)
		if (node_of(ksm_page(addr, i)) != node)
			return false;
	return true;
}

/* Moves one page; 0 or -errno, be it of the call or of the page. */
static int move_to(char *addr, int node)
{
	void *page = addr;
	int status = -1;

	if (syscall(__NR_move_pages, 0, 1, &page, &node, &status, MPOL_MF_MOVE_ALL))
		return -errno;
	return status == node ? 0 : status;
}

/* The first two nodes that have memory, from a list like "0-3,5". */
static bool two_nodes(int nodes[2])
{
	char list[256], *p = list;
	int found = 0;

	if (ksm_slurp("/sys/devices/system/node/has_memory", list, sizeof(list)) <= 0)
		return false;
	while (found < 2 && isdigit(*p)) {
		int first = strtol(p, &p, 10), last = first;

		if (*p == '-')
			last = strtol(p + 1, &p, 10);
		while (found < 2 && first <= last)
			nodes[found++] = first++;
		p += *p == ',';
	}
	return found == 2;
}

FIXTURE(numa)
{
	int node[2];
	char *addr;	/* the first half is on node[0], the second on node[1] */
};

FIXTURE_SETUP(numa)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	if (!ksm_has("merge_across_nodes"))
		SKIP(return, "kernel without NUMA");
	if (!two_nodes(self->node))
		SKIP(return, "needs two nodes with memory");
	self->addr = ksm_map(NR_PAGES);
	ASSERT_NE(MAP_FAILED, self->addr);
	ASSERT_EQ(0, bind_to(self->addr, HALF, self->node[0], 0));
	ASSERT_EQ(0, bind_to(ksm_page(self->addr, HALF), HALF, self->node[1], 0));
	ksm_fill_pages(self->addr, NR_PAGES, 1, 0);
	ASSERT_TRUE(all_on(self->addr, HALF, self->node[0]));
	ASSERT_TRUE(all_on(ksm_page(self->addr, HALF), HALF, self->node[1]));
	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_MERGEABLE));
}

FIXTURE_TEARDOWN_PARENT(numa)
{
	ksm_restore();
}

TEST_F_TIMEOUT(numa, nodes_merge_by_default, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_one_frame(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

TEST_F_TIMEOUT(numa, nodes_are_kept_apart, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("merge_across_nodes", "0"));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(2, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 2, ksm_get("pages_sharing"));
	for (int i = 0; i < 2; i++) {
		char *half = ksm_page(self->addr, i * HALF);

		EXPECT_TRUE(ksm_one_frame(half, HALF));
		EXPECT_TRUE(all_on(half, HALF, self->node[i]));
	}
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));

	/* Back and forth, each time from scratch. */
	ASSERT_EQ(0, ksm_write("run", "2"));
	ASSERT_EQ(0, ksm_write("merge_across_nodes", "1"));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	ASSERT_EQ(0, ksm_write("run", "2"));
	ASSERT_EQ(0, ksm_write("merge_across_nodes", "0"));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(2, ksm_get("pages_shared"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

/* A pair that is split over the nodes is no pair. */
TEST_F_TIMEOUT(numa, one_per_node_is_unshared, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("merge_across_nodes", "0"));
	ASSERT_EQ(0, munmap(ksm_page(self->addr, 1), (HALF - 1) * psize()));
	ASSERT_EQ(0, munmap(ksm_page(self->addr, HALF + 1), (HALF - 1) * psize()));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(2, ksm_get("pages_unshared"));
}

/* Limits hold for each node by itself. */
TEST_F_TIMEOUT(numa, limit_per_node, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("merge_across_nodes", "0"));
	ASSERT_EQ(0, ksm_write("max_page_sharing", "4"));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(4, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 4, ksm_get("pages_sharing"));
	EXPECT_EQ(2, ksm_get("stable_node_chains"));
	EXPECT_EQ(4, ksm_get("stable_node_dups"));
	EXPECT_TRUE(all_on(self->addr, HALF, self->node[0]));
	EXPECT_TRUE(all_on(ksm_page(self->addr, HALF), HALF, self->node[1]));
}

/* One mapping is asked to move: the page goes, and with it all the mappings. */
TEST_F_TIMEOUT(numa, the_whole_set_migrates, KSM_TIMEOUT)
{
	struct ksm_child child;

	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_TRUE(ksm_one_frame(self->addr, NR_PAGES));
	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		_exit(!all_on(self->addr, NR_PAGES, self->node[0]) ||
		      !ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	for (int i = 1; i >= 0; i--) {
		ASSERT_EQ(0, move_to(ksm_page(self->addr, i), self->node[i]));
		EXPECT_TRUE(ksm_one_frame(self->addr, NR_PAGES));
		EXPECT_TRUE(all_on(self->addr, NR_PAGES, self->node[i]));
		EXPECT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
		EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
		EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	}
	EXPECT_EQ(0, ksm_child_finish(&child));

	/* The moved page is still the one that newcomers join. */
	ksm_fill(self->addr, 2);
	ASSERT_EQ(0, ksm_scan(2));
	ksm_fill(self->addr, 1);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_TRUE(ksm_one_frame(self->addr, NR_PAGES));
	EXPECT_EQ(1, ksm_get("pages_shared"));
}

/* Pages that were moved by mremap() and merged at their new place follow too. */
TEST_F_TIMEOUT(numa, the_set_migrates_after_mremap, KSM_TIMEOUT)
{
	size_t len = NR_PAGES * psize();
	char *to = ksm_map(NR_PAGES);

	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(to, mremap(self->addr, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_TRUE(ksm_one_frame(to, NR_PAGES));
	for (int i = 1; i >= 0; i--) {
		ASSERT_EQ(0, move_to(ksm_page(to, i), self->node[i]));
		EXPECT_TRUE(all_on(to, NR_PAGES, self->node[i]));
		EXPECT_TRUE(ksm_one_frame(to, NR_PAGES));
		EXPECT_TRUE(ksm_pages_hold(to, NR_PAGES, 1, 0));
	}
}

TEST_F_TIMEOUT(numa, migrates_by_mbind, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_scan(3));
	for (int i = 1; i >= 0; i--) {
		ASSERT_EQ(0, bind_to(self->addr, NR_PAGES, self->node[i],
				     MPOL_MF_MOVE_ALL));
		EXPECT_TRUE(all_on(self->addr, NR_PAGES, self->node[i]));
		EXPECT_TRUE(ksm_one_frame(self->addr, NR_PAGES));
		EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	}
}

/* The page moves to the node where its twin is; they must not be mixed up. */
TEST_F_TIMEOUT(numa, migrates_to_its_twins_node, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("merge_across_nodes", "0"));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(2, ksm_get("pages_shared"));
	ASSERT_EQ(0, move_to(self->addr, self->node[1]));
	ASSERT_EQ(0, ksm_scan(4));
	EXPECT_EQ(NR_PAGES, ksm_get("pages_shared") + ksm_get("pages_sharing"));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_TRUE(all_on(self->addr, NR_PAGES, self->node[1]));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(0, ksm_write("merge_across_nodes", "1"));
}

/* A newcomer that is met before them looks for them where they were, in vain. */
TEST_F_TIMEOUT(numa, newcomer_does_not_follow, KSM_TIMEOUT)
{
	char *rest = ksm_page(self->addr, 1);
	const size_t nr = HALF - 1;

	ASSERT_EQ(0, ksm_write("merge_across_nodes", "0"));
	ASSERT_EQ(0, munmap(ksm_page(self->addr, HALF), HALF * psize()));
	ASSERT_EQ(0, ksm_madvise(self->addr, 1, MADV_DONTNEED));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_TRUE(ksm_one_frame(rest, nr));
	ASSERT_EQ(0, move_to(rest, self->node[1]));
	ASSERT_TRUE(all_on(rest, nr, self->node[1]));

	ksm_fill(self->addr, 1);
	ASSERT_EQ(self->node[0], node_of(self->addr));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(self->node[0], node_of(self->addr));
	EXPECT_EQ(nr - 1, ksm_get("pages_sharing"));
	EXPECT_EQ(1, ksm_get("pages_unshared"));

	ASSERT_EQ(0, move_to(rest, self->node[0]));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_TRUE(ksm_one_frame(self->addr, HALF));
	EXPECT_EQ(nr, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, HALF, 1, 0));
}

/* A page that moves before it is merged is merged where it then is. */
TEST_F_TIMEOUT(numa, unmerged_page_migrates, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("merge_across_nodes", "0"));
	ksm_fill_pages(self->addr, NR_PAGES, 100, 1);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_get("pages_unshared"));
	ASSERT_EQ(0, move_to(self->addr, self->node[1]));
	ksm_fill(ksm_page(self->addr, HALF), 100);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(ksm_pfn(self->addr), ksm_pfn(ksm_page(self->addr, HALF)));
	EXPECT_EQ(self->node[1], node_of(self->addr));
	EXPECT_EQ(1, ksm_get("pages_sharing"));
}

/* To and fro while ksmd merges and a process writes. */
TEST_F_TIMEOUT(numa, migrates_while_scanning, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	for (int round = 0; round < 300; round++) {
		char *page = ksm_page(self->addr, round % NR_PAGES);

		if (round % 3)
			ksm_fill(page, round);
		/* EBUSY and the like: ksmd was at it. */
		move_to(page, self->node[round % 2]);
		move_to(ksm_page(self->addr, (round + 5) % NR_PAGES),
			self->node[round % 2]);
		ASSERT_TRUE(ksm_holds(page, round % 3 ? round : 1));
		ksm_fill(page, 1);
		ASSERT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	}
	/* What writes kept un-merging may have to stay calm for some passes. */
	ASSERT_EQ(0, ksm_wait_scans(8));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
}

TEST_HARNESS_MAIN
