// SPDX-License-Identifier: GPL-2.0
/*
 * use_zero_pages: empty pages are merged with the kernel's zero page.
 *
 * Such a page is no KSM page any more; only its PTE tells that KSM put it there.
 * So every way in which the PTE can go away must be seen by the counters, the
 * one of the process and the one of the machine: each test ends at exactly 0.
 */
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <lib/test_hmm_uapi.h>
#include "ksm_util.h"

#define NR_PAGES	32

FIXTURE(zero)
{
	char *addr;
};

FIXTURE_SETUP(zero)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ksm_write("use_zero_pages", "1"));
	self->addr = ksm_map(NR_PAGES);
	ASSERT_NE(MAP_FAILED, self->addr);
	memset(self->addr, 0, NR_PAGES * psize());
	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_stat_of(0, "ksm_zero_pages"));
	ASSERT_EQ(NR_PAGES, ksm_get("ksm_zero_pages"));
}

FIXTURE_TEARDOWN_PARENT(zero)
{
	ksm_restore();
}

static void expect_zero_pages(struct __test_metadata *_metadata, long pages)
{
	EXPECT_EQ(pages, ksm_stat_of(0, "ksm_zero_pages"));
	EXPECT_EQ(pages, ksm_get("ksm_zero_pages"));
}

static bool all_zero(const char *page)
{
	for (size_t i = 0; i < psize(); i++)
		if (page[i])
			return false;
	return true;
}

static bool all_pages_zero(char *addr, size_t nr_pages)
{
	for (size_t i = 0; i < nr_pages; i++)
		if (!all_zero(ksm_page(addr, i)))
			return false;
	return true;
}

/* They count on their own, not as shared, sharing or KSM pages. */
TEST_F_TIMEOUT(zero, counted_apart, KSM_TIMEOUT)
{
	expect_zero_pages(_metadata, NR_PAGES);
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_one_frame(self->addr, NR_PAGES));
	/* Further passes do not count them again. */
	ASSERT_EQ(0, ksm_scan(5));
	expect_zero_pages(_metadata, NR_PAGES);
	EXPECT_TRUE(all_pages_zero(self->addr, NR_PAGES));
}

TEST_F_TIMEOUT(zero, write_takes_one_off, KSM_TIMEOUT)
{
	for (int i = 0; i < NR_PAGES; i++) {
		ksm_page(self->addr, i)[i] = 1;
		expect_zero_pages(_metadata, NR_PAGES - i - 1);
	}
	for (int i = 0; i < NR_PAGES; i++) {
		EXPECT_EQ(1, ksm_page(self->addr, i)[i]);
		ksm_page(self->addr, i)[i] = 0;
	}
	EXPECT_TRUE(all_pages_zero(self->addr, NR_PAGES));
	ASSERT_EQ(0, ksm_scan(3));
	expect_zero_pages(_metadata, NR_PAGES);
}

/* A child is counted with what it was given, which need not be all. */
TEST_F_TIMEOUT(zero, fork_leaves_some_out, KSM_TIMEOUT)
{
	struct ksm_child child;

	ASSERT_EQ(0, ksm_madvise(self->addr, 10, MADV_DONTFORK));
	if (ksm_child_fork(&child)) {
		bool ok = ksm_stat_of(0, "ksm_zero_pages") == NR_PAGES - 10;

		ksm_child_pause(&child);
		_exit(!ok);
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	EXPECT_EQ(2 * NR_PAGES - 10, ksm_get("ksm_zero_pages"));
	EXPECT_EQ(0, ksm_child_finish(&child));
	expect_zero_pages(_metadata, NR_PAGES);
}

TEST_F_TIMEOUT(zero, unmergeable_takes_them_off, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_madvise(self->addr, 10, MADV_UNMERGEABLE));
	expect_zero_pages(_metadata, NR_PAGES - 10);
	EXPECT_NE(ksm_pfn(self->addr), ksm_pfn(ksm_page(self->addr, 1)));
	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_UNMERGEABLE));
	expect_zero_pages(_metadata, 0);
	EXPECT_TRUE(all_pages_zero(self->addr, NR_PAGES));
}

TEST_F_TIMEOUT(zero, run_2_takes_them_off, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("run", "2"));
	expect_zero_pages(_metadata, 0);
	EXPECT_NE(ksm_pfn(self->addr), ksm_pfn(ksm_page(self->addr, 1)));
	EXPECT_TRUE(all_pages_zero(self->addr, NR_PAGES));
}

TEST_F_TIMEOUT(zero, prctl_off_takes_them_off, KSM_TIMEOUT)
{
	ASSERT_EQ(0, prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0));
	ASSERT_EQ(0, prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0));
	expect_zero_pages(_metadata, 0);
	EXPECT_TRUE(all_pages_zero(self->addr, NR_PAGES));
}

TEST_F_TIMEOUT(zero, munmap_and_dontneed_take_them_off, KSM_TIMEOUT)
{
	ASSERT_EQ(0, munmap(self->addr, 4 * psize()));
	expect_zero_pages(_metadata, NR_PAGES - 4);
	ASSERT_EQ(0, ksm_madvise(ksm_page(self->addr, 4), 8, MADV_DONTNEED));
	expect_zero_pages(_metadata, NR_PAGES - 12);
	/* Reading maps the zero page again, but now it is not KSM's doing. */
	EXPECT_TRUE(all_pages_zero(ksm_page(self->addr, 4), NR_PAGES - 4));
	expect_zero_pages(_metadata, NR_PAGES - 12);
	ASSERT_EQ(0, munmap(self->addr, NR_PAGES * psize()));
	expect_zero_pages(_metadata, 0);
}

TEST_F_TIMEOUT(zero, mremap_keeps_the_count_true, KSM_TIMEOUT)
{
	char *to = ksm_map(NR_PAGES);

	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(to, mremap(self->addr, NR_PAGES * psize(), NR_PAGES * psize(),
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_TRUE(all_pages_zero(to, NR_PAGES));
	EXPECT_EQ(ksm_get("ksm_zero_pages"), ksm_stat_of(0, "ksm_zero_pages"));
	ASSERT_EQ(0, munmap(to, NR_PAGES * psize()));
	expect_zero_pages(_metadata, 0);
}

/* A fork copies the PTEs, so the child has as many; the two then go apart. */
TEST_F_TIMEOUT(zero, fork_copies_the_count, KSM_TIMEOUT)
{
	struct ksm_child child;

	if (ksm_child_fork(&child)) {
		if (ksm_stat_of(0, "ksm_zero_pages") != NR_PAGES)
			_exit(1);
		*self->addr = 1;
		if (ksm_stat_of(0, "ksm_zero_pages") != NR_PAGES - 1)
			_exit(2);
		ksm_child_pause(&child);
		_exit(*self->addr == 1 ? 0 : 3);
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	EXPECT_EQ(2 * NR_PAGES - 1, ksm_get("ksm_zero_pages"));
	EXPECT_EQ(NR_PAGES, ksm_stat_of(0, "ksm_zero_pages"));
	EXPECT_TRUE(all_zero(self->addr));
	EXPECT_EQ(0, ksm_child_finish(&child));
	expect_zero_pages(_metadata, NR_PAGES);
}

TEST_F_TIMEOUT(zero, exit_takes_them_off, KSM_TIMEOUT)
{
	struct ksm_child child;

	if (ksm_child_fork(&child)) {
		char *addr = ksm_map(8);

		memset(addr, 0, 8 * psize());
		ksm_madvise(addr, 8, MADV_MERGEABLE);
		ksm_child_pause(&child);
		_exit(!all_pages_zero(addr, 8));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(2 * NR_PAGES + 8, ksm_get("ksm_zero_pages"));
	EXPECT_EQ(0, ksm_child_finish(&child));
	expect_zero_pages(_metadata, NR_PAGES);
}

/* A huge page made of such a range has no such PTEs any more. */
TEST_F_TIMEOUT(zero, collapse_takes_them_off, KSM_TIMEOUT)
{
	size_t huge = read_pmd_pagesize(), len = 2 * huge;
	char *map, *addr;

	if (!huge)
		SKIP(return, "kernel without huge pages");
	ASSERT_EQ(0, munmap(self->addr, NR_PAGES * psize()));
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		   -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	addr = (char *)(((unsigned long)map + huge - 1) & ~(huge - 1));
	ASSERT_EQ(0, madvise(addr, huge, MADV_NOHUGEPAGE));
	ksm_fill_pages(addr, huge / psize(), 1, 1);
	memset(addr, 0, 16 * psize());
	ASSERT_EQ(0, madvise(addr, huge, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(16, ksm_stat_of(0, "ksm_zero_pages"));
	ASSERT_EQ(0, madvise(addr, huge, MADV_HUGEPAGE));
	ASSERT_EQ(0, madvise(addr, huge, MADV_COLLAPSE));
	expect_zero_pages(_metadata, 0);
	EXPECT_TRUE(all_pages_zero(addr, 16));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(addr, 16), huge / psize() - 16, 17, 1));
}

#ifdef UFFDIO_MOVE
/* UFFDIO_MOVE maps a zero page of its own at the destination. */
TEST_F_TIMEOUT(zero, uffd_move_takes_them_off, KSM_TIMEOUT)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
	size_t len = NR_PAGES * psize();
	char *to = ksm_map(NR_PAGES);
	struct uffdio_move move = {
		.dst = (unsigned long)to,
		.src = (unsigned long)self->addr,
		.len = len,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	ASSERT_NE(MAP_FAILED, to);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd that moves pages");
	ASSERT_EQ(0, uffd_register(fd, to, len, true, false, false));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_MOVE, &move));
	EXPECT_TRUE(all_pages_zero(to, NR_PAGES));
	expect_zero_pages(_metadata, 0);
	ASSERT_EQ(0, munmap(to, len));
	ASSERT_EQ(0, munmap(self->addr, len));
	expect_zero_pages(_metadata, 0);
	EXPECT_LE(ksm_get("general_profit"), 0);
	close(fd);
}
#endif

/* Migration to device memory puts pages of the device in their place. */
TEST_F_TIMEOUT(zero, migration_to_device_takes_them_off, KSM_TIMEOUT)
{
	char *mirror = malloc(10 * psize());
	struct hmm_dmirror_cmd cmd = {
		.addr = (unsigned long)self->addr,
		.ptr = (unsigned long)mirror,
		.npages = 10,
	};
	int fd = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		SKIP(return, "kernel without the HMM test device");
	ASSERT_EQ(0, ioctl(fd, HMM_DMIRROR_MIGRATE_TO_DEV, &cmd));
	ASSERT_EQ(10, cmd.cpages);
	EXPECT_TRUE(all_pages_zero(mirror, 10));
	expect_zero_pages(_metadata, NR_PAGES - 10);
	EXPECT_TRUE(all_pages_zero(self->addr, NR_PAGES));
	expect_zero_pages(_metadata, NR_PAGES - 10);
	ASSERT_EQ(0, munmap(self->addr, NR_PAGES * psize()));
	expect_zero_pages(_metadata, 0);
	close(fd);
}

/* A huge page, empty but for two equal pages: KSM has to split it to merge those. */
static char *map_huge_with_twin(size_t huge)
{
	char *map = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *addr = (char *)(((unsigned long)map + huge - 1) & ~(huge - 1));

	if (map == MAP_FAILED || madvise(addr, huge, MADV_HUGEPAGE))
		return NULL;
	memset(addr, 0, huge);
	ksm_fill(addr, 1);
	ksm_fill(ksm_page(addr, 1), 1);
	return check_huge_anon(addr, huge, 1, huge) ? addr : NULL;
}

/* Is any of them the zero page, by the flags of its frame? */
static bool any_is_zero_page(char *addr, size_t nr_pages)
{
	for (size_t i = 0; i < nr_pages; i++)
		if (ksm_pageflags(ksm_page(addr, i)) & KSM_KPF_ZERO)
			return true;
	return false;
}

/*
 * A huge page that KSM splits keeps its empty pages, here and in a process that shares
 * it by fork and has offered nothing.
 */
TEST_F_TIMEOUT(zero, split_maps_none, KSM_TIMEOUT)
{
	size_t huge = read_pmd_pagesize();
	struct ksm_child child;
	char *addr;

	if (!huge)
		SKIP(return, "kernel without huge pages");
	ASSERT_EQ(0, munmap(self->addr, NR_PAGES * psize()));
	ASSERT_EQ(0, ksm_write("use_zero_pages", "0"));
	addr = map_huge_with_twin(huge);
	if (!addr)
		SKIP(return, "no free huge page");
	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		_exit(any_is_zero_page(addr, huge / psize()) ||
		      !all_pages_zero(ksm_page(addr, 2), huge / psize() - 2));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_madvise(addr, 2, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(6));
	EXPECT_EQ(2, ksm_count_merged(addr, 2));
	EXPECT_FALSE(ksm_pageflags(ksm_page(addr, 5)) & KSM_KPF_THP);
	EXPECT_FALSE(any_is_zero_page(addr, huge / psize()));
	expect_zero_pages(_metadata, 0);
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(all_pages_zero(ksm_page(addr, 2), huge / psize() - 2));
}

/* The empty pages that KSM merges after a split are counted, and given back. */
TEST_F_TIMEOUT(zero, split_counts_what_is_merged, KSM_TIMEOUT)
{
	size_t huge = read_pmd_pagesize(), nr = huge / psize();
	char *addr;

	if (!huge)
		SKIP(return, "kernel without huge pages");
	ASSERT_EQ(0, munmap(self->addr, NR_PAGES * psize()));
	addr = map_huge_with_twin(huge);
	if (!addr)
		SKIP(return, "no free huge page");
	ASSERT_EQ(0, madvise(addr, huge, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(6));
	expect_zero_pages(_metadata, nr - 2);
	ASSERT_EQ(0, ksm_write("run", "2"));
	expect_zero_pages(_metadata, 0);
	EXPECT_FALSE(any_is_zero_page(addr, nr));
	EXPECT_TRUE(all_pages_zero(ksm_page(addr, 2), nr - 2));
}

/* Turned off, empty pages are pages like others. */
TEST_F_TIMEOUT(zero, off_means_ordinary_merging, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("run", "2"));
	ASSERT_EQ(0, ksm_write("use_zero_pages", "0"));
	ASSERT_EQ(0, ksm_scan(3));
	expect_zero_pages(_metadata, 0);
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_TRUE(all_pages_zero(self->addr, NR_PAGES));

	/* Turning it on later does not touch what is merged already. */
	ASSERT_EQ(0, ksm_write("use_zero_pages", "1"));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	expect_zero_pages(_metadata, 0);
}

TEST_HARNESS_MAIN
