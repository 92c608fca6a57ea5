// SPDX-License-Identifier: GPL-2.0
/*
 * Whatever ksmd remembers of a page, no write to it is lost, and none overlooked.
 *
 * An engine that wants to read a page only once has to notice a write in another
 * way: it may take the dirty bit out of the PTE and see whether it comes back.
 * Two things can go wrong then.
 *
 * Lost: reclaim needs the same bit. It tells which pages have to go to swap, and
 * whether a CPU may still be writing through its TLB when the mapping is gone. So
 * here pages are paged out in every stage of being recorded, and while they are
 * written. What was written last must be read back.
 *
 * Overlooked: not every change leaves a dirty PTE behind. Others write through
 * mappings of their own, and pages take the place of other pages. So here a page
 * that is well known becomes equal to another one, in many ways, and has to be
 * merged soon.
 *
 * An engine that always reads passes as well: nothing here is special to one that
 * does not.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include "ksm_util.h"

/* After so many passes nothing more is to be learnt of a page that stays as it is. */
#define SETTLED		6
/* So many passes after a write, whoever makes it, or a move, what is due is merged. */
#define SOON		3

/* Reclaim and the TLB depend on the CPU, so a test had better stay on one. */
static void stay_on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Mergeable pages, each with a content of its own; MAP_FAILED if there are none. */
static char *map_unique(size_t nr_pages, __u64 seed)
{
	char *addr = ksm_map(nr_pages);

	if (addr == MAP_FAILED)
		return addr;
	ksm_fill_pages(addr, nr_pages, seed, 1);
	return ksm_madvise(addr, nr_pages, MADV_MERGEABLE) ? MAP_FAILED : addr;
}

/* A huge page, each small page of it with a content of its own; NULL if not. */
static char *map_huge(size_t huge, __u64 seed)
{
	char *map = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *addr;

	if (map == MAP_FAILED)
		return NULL;
	addr = (char *)(((unsigned long)map + huge - 1) & ~(huge - 1));
	if (madvise(addr, huge, MADV_HUGEPAGE))
		return NULL;
	ksm_fill_pages(addr, huge / psize(), seed, 1);
	if (!check_huge_anon(addr, huge, 1, huge))
		return NULL;
	return madvise(addr, huge, MADV_MERGEABLE) ? NULL : addr;
}

static bool is_pair(char *a, char *b)
{
	return ksm_count_merged(a, 1) && ksm_pfn(a) == ksm_pfn(b);
}

/* -- Overlooked: changes by the process itself -- */

FIXTURE(seen) {};

FIXTURE_VARIANT(seen)
{
	const char *smart_scan;
	int settled, soon;
};

FIXTURE_VARIANT_ADD(seen, all)
{
	.smart_scan = "0",
	.settled = SETTLED,
	.soon = SOON,
};

/* Here a page may be passed over before its write is looked for, and again. */
FIXTURE_VARIANT_ADD(seen, smart)
{
	.smart_scan = "1",
	.settled = 3 * KSM_SKIPS_MAX,
	.soon = 2 * (KSM_SKIPS_MAX + 1),
};

FIXTURE_SETUP(seen)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ksm_write("smart_scan", variant->smart_scan));
}

FIXTURE_TEARDOWN_PARENT(seen)
{
	ksm_restore();
}

static void store_word(char *to, __u64 word)
{
	*(__u64 *)to = word;
}

/* The kernel writes, through the same PTE or a way of its own. */
static void read_word(char *to, __u64 word)
{
	int fds[2];

	if (pipe(fds) || write(fds[1], &word, sizeof(word)) != sizeof(word) ||
	    read(fds[0], to, sizeof(word)) != sizeof(word))
		ksft_exit_fail_msg("a pipe: %s\n", strerror(errno));
	close(fds[0]);
	close(fds[1]);
}

/* One word makes it equal to another page, in each stage of being recorded. */
static void rewrite_word(struct __test_metadata *_metadata, int settled, int soon,
			 void (*put)(char *to, __u64 word))
{
	for (int passes = 0; passes <= settled; passes += settled / SETTLED) {
		char *addr = ksm_map(2);

		ASSERT_NE(MAP_FAILED, addr);
		ksm_fill_pages(addr, 2, passes, 0);
		*(__u64 *)ksm_page(addr, 1) = 0;
		ASSERT_EQ(0, ksm_madvise(addr, 2, MADV_MERGEABLE));
		/* On the LRU lists: on its way there a page has one reference more. */
		ASSERT_EQ(0, ksm_madvise(addr, 2, MADV_COLD));
		ASSERT_EQ(0, ksm_scan(passes));
		put(ksm_page(addr, 1), ksm_word(passes, 0));
		ASSERT_EQ(0, ksm_scan(soon));
		EXPECT_TRUE(is_pair(addr, ksm_page(addr, 1))) {
			TH_LOG("written after %d passes", passes);
		}
		EXPECT_TRUE(ksm_pages_hold(addr, 2, passes, 0));
		munmap(addr, 2 * psize());
	}
}

TEST_F_TIMEOUT(seen, write, KSM_TIMEOUT)
{
	rewrite_word(_metadata, variant->settled, variant->soon, store_word);
}

TEST_F_TIMEOUT(seen, write_by_system_call, KSM_TIMEOUT)
{
	rewrite_word(_metadata, variant->settled, variant->soon, read_word);
}

/* A settled page in a place where another settled page was. */
TEST_F_TIMEOUT(seen, mremap_over_another, KSM_TIMEOUT)
{
	char *addr = map_unique(2, 1), *twins = map_unique(2, 11);
	char *place = ksm_page(addr, 1);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_NE(MAP_FAILED, twins);
	ASSERT_EQ(0, ksm_scan(variant->settled));
	ASSERT_EQ(place, mremap(addr, psize(), psize(),
				MREMAP_MAYMOVE | MREMAP_FIXED, place));
	/* One has what is there now. The other has what was there before. */
	ksm_fill_pages(twins, 2, 1, 1);
	ASSERT_EQ(0, ksm_scan(variant->soon));
	EXPECT_TRUE(is_pair(place, twins));
	EXPECT_EQ(0, ksm_count_merged(ksm_page(twins, 1), 1));
	EXPECT_TRUE(ksm_holds(place, 1));
	EXPECT_TRUE(ksm_pages_hold(twins, 2, 1, 1));
}

/* Thrown away, for good or until memory is short, and then written again. */
static void rewrite_after(struct __test_metadata *_metadata, int advice, int settled,
			  int soon)
{
	char *addr = map_unique(8, 1);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(settled));
	ASSERT_EQ(0, ksm_madvise(ksm_page(addr, 4), 4, advice));
	if (advice == MADV_DONTNEED)
		for (size_t i = 4 * psize(); i < 8 * psize(); i++)
			ASSERT_EQ(0, addr[i]);
	ksm_fill_pages(ksm_page(addr, 4), 4, 1, 1);
	ASSERT_EQ(0, ksm_scan(soon));
	for (int i = 0; i < 4; i++)
		EXPECT_TRUE(is_pair(ksm_page(addr, i), ksm_page(addr, 4 + i)));
	EXPECT_TRUE(ksm_pages_hold(addr, 4, 1, 1));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(addr, 4), 4, 1, 1));
}

TEST_F_TIMEOUT(seen, write_after_dontneed, KSM_TIMEOUT)
{
	rewrite_after(_metadata, MADV_DONTNEED, variant->settled, variant->soon);
}

TEST_F_TIMEOUT(seen, write_after_free, KSM_TIMEOUT)
{
	rewrite_after(_metadata, MADV_FREE, variant->settled, variant->soon);
}

/* A child inherits clean pages; what it writes is its own, and merges as well. */
TEST_F_TIMEOUT(seen, write_after_fork, KSM_TIMEOUT)
{
	char *addr = map_unique(4, 1);
	struct ksm_child child;

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(variant->settled));
	if (ksm_child_fork(&child)) {
		int bad = !ksm_pages_hold(addr, 4, 1, 1);

		ksm_fill(addr, 2);
		ksm_child_pause(&child);
		bad |= !ksm_holds(addr, 2);
		bad |= !ksm_pages_hold(ksm_page(addr, 1), 3, 2, 1);
		bad |= !is_pair(addr, ksm_page(addr, 1)) << 1;
		_exit(bad);
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	EXPECT_TRUE(ksm_pages_hold(addr, 4, 1, 1));
	ksm_fill(ksm_page(addr, 3), 1);
	ASSERT_EQ(0, ksm_scan(variant->soon));
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(is_pair(addr, ksm_page(addr, 3)));
	EXPECT_TRUE(ksm_pages_hold(addr, 3, 1, 1));
	EXPECT_TRUE(ksm_holds(ksm_page(addr, 3), 1));
}

/* A huge page is left alone as long as there is nothing to merge, and no longer. */
TEST_F_TIMEOUT(seen, write_to_huge_page, KSM_TIMEOUT)
{
	size_t huge = read_pmd_pagesize();
	char *addr, *twin;

	if (!huge)
		SKIP(return, "kernel without huge pages");
	addr = map_huge(huge, 1000);
	if (!addr)
		SKIP(return, "no huge page to be had");
	twin = map_unique(1, 1);
	ASSERT_NE(MAP_FAILED, twin);
	ASSERT_EQ(0, ksm_scan(variant->settled));
	EXPECT_TRUE(check_huge_anon(addr, huge, 1, huge));
	EXPECT_EQ(0, ksm_get("pages_shared"));

	ksm_fill(ksm_page(addr, 77), 1);
	ASSERT_EQ(0, ksm_scan(variant->soon));
	EXPECT_TRUE(is_pair(ksm_page(addr, 77), twin));
	EXPECT_EQ(1, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_holds(ksm_page(addr, 77), 1));
	EXPECT_TRUE(ksm_pages_hold(addr, 77, 1000, 1));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(addr, 78), huge / psize() - 78, 1078, 1));
}

/*
 * What tells of two writes is one bit. The first of them has the page split, and what is
 * known of the second must not be lost with that, wherever the scan pauses and in
 * whatever pass it takes the bit.
 */
#define NR_SPLITS	10

TEST_F_TIMEOUT(seen, write_to_huge_page_that_is_split, KSM_TIMEOUT)
{
	size_t huge = read_pmd_pagesize();
	char *shared = ksm_map_dups(2, 1), *addr, *twin;

	if (!huge)
		SKIP(return, "kernel without huge pages");
	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_EQ(0, ksm_write("pages_to_scan", "100"));
	for (int i = 1; i <= NR_SPLITS; i++) {
		addr = map_huge(huge, 1000);
		if (!addr)
			SKIP(return, "no huge page to be had");
		twin = map_unique(1, 100 + i);
		ASSERT_NE(MAP_FAILED, twin);
		ASSERT_EQ(0, ksm_scan(variant->settled + i));
		ASSERT_TRUE(check_huge_anon(addr, huge, 1, huge));
		/* So that the next pass may be one in which a bit that is set is taken. */
		usleep(300000);
		ksm_fill(ksm_page(addr, 10), 1);
		ksm_fill(ksm_page(addr, 300), 100 + i);
		ASSERT_EQ(0, ksm_scan(variant->soon));
		EXPECT_TRUE(is_pair(ksm_page(addr, 10), shared));
		EXPECT_TRUE(is_pair(ksm_page(addr, 300), twin)) {
			TH_LOG("try %d", i);
		}
		EXPECT_TRUE(ksm_holds(ksm_page(addr, 300), 100 + i));
		munmap(addr, huge);
	}
}

/* -- Slowed down: those who write -- */

/*
 * Where the hardware has no dirty bits each one that is cleared costs the next writer a
 * fault. So that must not depend on how many passes ksmd makes. Elsewhere there are no
 * faults to count.
 */
FIXTURE(busy) {};

FIXTURE_SETUP(busy)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(busy)
{
	ksm_restore();
}

static long nr_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

TEST_F_TIMEOUT(busy, has_few_faults, KSM_TIMEOUT)
{
	const int nr_pages = 512, nr_rounds = 100;
	char *addr = map_unique(nr_pages, 1);
	double start = ksm_now();
	long faults;

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_madvise(addr, nr_pages, MADV_COLD));
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	faults = nr_faults();
	for (int round = 0; round < nr_rounds; round++) {
		ASSERT_EQ(0, ksm_wait_scans(4));
		for (int i = 0; i < nr_pages; i++)
			*(__u64 *)ksm_page(addr, i) += 1;
	}
	faults = nr_faults() - faults;
	TH_LOG("%ld faults in %.1f s", faults, ksm_now() - start);
	/* Once for a page, and again each other second. */
	EXPECT_LE(faults, nr_pages * (2 + (ksm_now() - start) / 2));
}

/* -- Overlooked: writes through a reference to the page -- */

/* Writes a page for process @pid, whose child we are; false, and errno, if not. */
static bool write_by_writev(pid_t pid, char *to, char *from)
{
	struct iovec local = { .iov_base = from, .iov_len = psize() };
	struct iovec remote = { .iov_base = to, .iov_len = psize() };

	return process_vm_writev(pid, &local, 1, &remote, 1, 0) == (ssize_t)psize();
}

static bool write_by_proc_mem(pid_t pid, char *to, char *from)
{
	char path[64];
	int fd;
	bool ok;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = pwrite(fd, from, psize(), (off_t)(uintptr_t)to) == (ssize_t)psize();
	close(fd);
	return ok;
}

static bool have_writev(void)
{
	return !process_vm_writev(getpid(), NULL, 0, NULL, 0, 0);
}

FIXTURE(remote) {};

FIXTURE_VARIANT(remote)
{
	bool (*write)(pid_t pid, char *to, char *from);
};

FIXTURE_VARIANT_ADD(remote, process_vm_writev) { .write = write_by_writev };
FIXTURE_VARIANT_ADD(remote, proc_mem) { .write = write_by_proc_mem };

FIXTURE_SETUP(remote)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	if (variant->write == write_by_writev && !have_writev())
		SKIP(return, "kernel without process_vm_writev()");
}

FIXTURE_TEARDOWN_PARENT(remote)
{
	ksm_restore();
}

/* The child must not have the pages: they would be copied for their next writer. */
TEST_F_TIMEOUT(remote, is_seen, KSM_TIMEOUT)
{
	char *addr = map_unique(2, 1), *other = ksm_map(1);
	struct ksm_child child;
	unsigned long pfn;

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_NE(MAP_FAILED, other);
	ksm_fill(other, 1);
	ASSERT_EQ(0, ksm_madvise(addr, 2, MADV_DONTFORK));
	/* On the LRU lists: on their way there pages are read whatever their PTEs say. */
	ASSERT_EQ(0, ksm_madvise(addr, 2, MADV_COLD));
	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		_exit(variant->write(getppid(), ksm_page(addr, 1), other) ? 0 : errno);
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_scan(SETTLED));
	pfn = ksm_pfn(ksm_page(addr, 1));
	EXPECT_EQ(0, ksm_child_finish(&child));
	/* It was written in its place, so the PTE is what it was. */
	EXPECT_EQ(pfn, ksm_pfn(ksm_page(addr, 1)));
	EXPECT_TRUE(ksm_holds(ksm_page(addr, 1), 1));
	ASSERT_EQ(0, ksm_scan(SOON));
	EXPECT_TRUE(is_pair(addr, ksm_page(addr, 1)));
	EXPECT_TRUE(ksm_pages_hold(addr, 2, 1, 0));
}

FIXTURE(device)
{
	bool zram;
};

FIXTURE_SETUP(device)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	self->zram = ksm_zram_on(1);
	if (!self->zram)
		SKIP(return, "no unused zram device to read from");
}

FIXTURE_TEARDOWN_PARENT(device)
{
	ksm_restore();
	if (self->zram)
		ksm_zram_off();
}

/* The data is on the device from before, and read past the page cache. */
TEST_F_TIMEOUT(device, is_seen, KSM_TIMEOUT)
{
	char *addr = map_unique(2, 1);
	int fd = open(KSM_ZRAM, O_RDWR | O_DIRECT | O_CLOEXEC);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_GE(fd, 0);
	ASSERT_EQ((ssize_t)psize(), pwrite(fd, addr, psize(), 0));
	ASSERT_EQ(0, ksm_madvise(addr, 2, MADV_COLD));
	ASSERT_EQ(0, ksm_scan(SETTLED));
	ASSERT_EQ((ssize_t)psize(), pread(fd, ksm_page(addr, 1), psize(), 0));
	close(fd);
	EXPECT_TRUE(ksm_holds(ksm_page(addr, 1), 1));
	ASSERT_EQ(0, ksm_scan(SOON));
	EXPECT_TRUE(is_pair(addr, ksm_page(addr, 1)));
	EXPECT_TRUE(ksm_pages_hold(addr, 2, 1, 0));
}

/* -- Made up: writes that never were -- */

/*
 * If a page is taken at the very moment that its dirty bit is cleared, the bit is set
 * again. Who saves what was written since the last time goes by soft-dirty bits, and
 * would save it for nothing. So here a page is taken all the time. The moment comes once
 * for a page, and is missed mostly, so that there are many processes with one.
 */
#define NR_WATCHED	25

static void *take_often(void *arg)
{
	struct iovec iov = { .iov_base = arg, .iov_len = psize() };
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	int fds[2];

	if (null < 0 || pipe(fds))
		return NULL;
	while (vmsplice(fds[1], &iov, 1, 0) > 0 &&
	       splice(fds[0], NULL, null, NULL, psize(), 0) > 0)
		;
	return NULL;
}

/* In a process of its own: does a page look as if it had been written? 2 if it failed. */
static int is_made_up(void)
{
	char *addr = map_unique(1, 1);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	pthread_t thread;

	/* On the LRU lists: on its way there a page is not made clean. */
	if (addr == MAP_FAILED || pagemap < 0 || ksm_madvise(addr, 1, MADV_COLD) ||
	    pthread_create(&thread, NULL, take_often, addr))
		return 2;
	clear_softdirty();
	if (ksm_scan(1))
		return 2;
	return pagemap_is_softdirty(pagemap, addr);
}

FIXTURE(watched) {};

FIXTURE_SETUP(watched)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	if (!softdirty_supported())
		SKIP(return, "kernel without soft-dirty bits");
}

FIXTURE_TEARDOWN_PARENT(watched)
{
	ksm_restore();
}

TEST_F_TIMEOUT(watched, page_that_is_taken_is_not_written, KSM_TIMEOUT)
{
	struct ksm_child child;

	for (int i = 0; i < NR_WATCHED; i++) {
		if (ksm_child_fork(&child))
			_exit(is_made_up());
		ASSERT_EQ(0, ksm_child_end(&child));
	}
}

/* -- Lost: reclaim -- */

FIXTURE(reclaim)
{
	bool zram;
};

FIXTURE_SETUP(reclaim)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	self->zram = ksm_zram_on(KSM_SWAP_MIB);
	if (self->zram ? !ksm_swapon(KSM_ZRAM) : !ksm_have_swap())
		SKIP(return, "no unused zram device, and no swap");
	/* Where pages are touched, and wait for getting on the LRU list. */
	stay_on_cpu(sched_getcpu());
}

FIXTURE_TEARDOWN_PARENT(reclaim)
{
	ksm_restore();
	if (self->zram)
		ksm_zram_off();
}

/* A few times, since reclaim may find a page in use, or needs a second look. */
static bool page_out(char *addr, size_t nr_pages)
{
	for (int i = 0; i < 100; i++) {
		if (ksm_madvise(addr, nr_pages, MADV_PAGEOUT))
			return false;
		if (ksm_count_swapped(addr, nr_pages) == nr_pages)
			return true;
		usleep(10000);
	}
	return false;
}

/*
 * Pages that have a copy in swap already, or are to be thrown away, are not
 * written to swap unless they are known to be dirty. They are changed, and paged
 * out when ksmd has made some more passes.
 */
static void write_and_page_out(struct __test_metadata *_metadata, char *addr,
			       size_t nr_pages, int advice)
{
	for (int passes = 0; passes <= SETTLED; passes++) {
		__u64 seed = 1000 * (passes + 1);

		ASSERT_EQ(0, ksm_scan(SETTLED));
		ASSERT_EQ(0, ksm_madvise(addr, nr_pages, advice));
		ksm_fill_pages(addr, nr_pages, seed, 1);
		ASSERT_EQ(0, ksm_scan(passes));
		ASSERT_TRUE(page_out(addr, nr_pages));
		ASSERT_TRUE(ksm_pages_hold(addr, nr_pages, seed, 1)) {
			TH_LOG("written %d passes before", passes);
		}
	}
}

TEST_F_TIMEOUT(reclaim, keeps_what_was_rewritten, KSM_TIMEOUT)
{
	char *addr = map_unique(64, 1), *twin = map_unique(1, 100);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_NE(MAP_FAILED, twin);
	ASSERT_TRUE(page_out(addr, 64));
	ASSERT_TRUE(ksm_pages_hold(addr, 64, 1, 1));
	write_and_page_out(_metadata, addr, 64, MADV_NORMAL);
	/* And what has come back is merged like any other page. */
	memcpy(twin, ksm_page(addr, 5), psize());
	ASSERT_EQ(0, ksm_scan(SOON));
	EXPECT_TRUE(is_pair(ksm_page(addr, 5), twin));
}

TEST_F_TIMEOUT(reclaim, keeps_what_was_free, KSM_TIMEOUT)
{
	char *addr = map_unique(64, 1);

	ASSERT_NE(MAP_FAILED, addr);
	write_and_page_out(_metadata, addr, 64, MADV_FREE);
}

TEST_F_TIMEOUT(reclaim, keeps_what_the_kernel_wrote, KSM_TIMEOUT)
{
	char *addr = map_unique(64, 1);

	ASSERT_NE(MAP_FAILED, addr);
	for (int passes = 0; passes <= SETTLED; passes++) {
		ASSERT_EQ(0, ksm_scan(SETTLED));
		ASSERT_EQ(0, ksm_madvise(addr, 64, MADV_FREE));
		for (int i = 0; i < 64; i++)
			read_word(ksm_page(addr, i), 1000 * passes + i);
		ASSERT_EQ(0, ksm_scan(passes));
		ASSERT_TRUE(page_out(addr, 64));
		for (int i = 0; i < 64; i++)
			ASSERT_EQ(1000 * passes + i, *(__u64 *)ksm_page(addr, i));
	}
}

/* A huge page has one dirty bit for all of its pages. */
TEST_F_TIMEOUT(reclaim, keeps_writes_to_huge_page, KSM_TIMEOUT)
{
	size_t huge = read_pmd_pagesize();
	size_t nr_pages = huge / psize();

	if (!huge)
		SKIP(return, "kernel without huge pages");
	for (int passes = 0; passes <= SETTLED; passes++) {
		char *addr = map_huge(huge, 1000);

		if (!addr)
			SKIP(return, "no huge page to be had");
		ASSERT_EQ(0, ksm_scan(SETTLED));
		ksm_fill(ksm_page(addr, 33), 33);
		ASSERT_EQ(0, ksm_scan(passes));
		ASSERT_TRUE(page_out(addr, nr_pages));
		EXPECT_TRUE(ksm_holds(ksm_page(addr, 33), 33));
		EXPECT_TRUE(ksm_pages_hold(addr, 33, 1000, 1));
		EXPECT_TRUE(ksm_pages_hold(ksm_page(addr, 34), nr_pages - 34, 1034, 1));
		munmap(addr, huge);
	}
}

/* -- Lost: reclaim under writers -- */

/*
 * Reclaim unmaps many pages before it has the TLBs of other CPUs flushed, and
 * writes them to swap meanwhile. It flushes earlier for a page with a dirty PTE,
 * as only through such a one a CPU can write without the page table being looked
 * at. So a PTE that was made clean without a flush looks safe and is not: what is
 * written after the page has gone to swap is lost.
 *
 * To meet that, in each round writers change all pages, so that they have to be
 * written to swap, which takes long; only read them, so that they stay in their
 * TLBs, until ksmd has recorded them; and then go on writing some of them, while
 * all are paged out. Those come first: with the first dirty PTE there is a flush.
 *
 * Each word has one writer. Nobody else changes it, so it is as it was written
 * last, or something was lost.
 */
#define NR_WRITERS	2
#define NR_PAGES	384
#define NR_HOT		4	/* pages that are written all the time */
#define NR_ROUNDS	48
#define NR_CALMS	8	/* passes to be calm for: from 0 to one less than this */

enum phase { CALM, BURST, OVER };

struct crowd {
	char *addr;
	pthread_barrier_t barrier;
	enum phase phase;
	int nr_writing;		/* writers that are in the BURST */
};

struct writer_thread {
	pthread_t thread;
	struct crowd *crowd;
	int id, cpu;
	__u64 written[NR_PAGES];	/* last, to our word of each page */
	long lost;
	long bursts;			/* over the hot pages, while paged out */
};

/* Looks at our word of the first @nr_pages, and adds @change to it. */
static void sweep(struct writer_thread *w, int nr_pages, int change)
{
	for (int i = 0; i < nr_pages; i++) {
		__u64 *page = (__u64 *)ksm_page(w->crowd->addr, i);
		__u64 *word = &page[64 * (w->id + 1)];

		if (FORCE_READ(*word) != w->written[i]) {
			w->lost++;
			w->written[i] = FORCE_READ(*word);
		}
		if (change) {
			w->written[i] += change;
			__atomic_store_n(word, w->written[i], __ATOMIC_RELAXED);
		}
	}
}

static bool is_phase(struct writer_thread *w, enum phase phase)
{
	return __atomic_load_n(&w->crowd->phase, __ATOMIC_ACQUIRE) == phase;
}

static void *write_in_rounds(void *arg)
{
	struct writer_thread *w = arg;

	stay_on_cpu(w->cpu);
	for (int round = 0; round < NR_ROUNDS; round++) {
		sweep(w, NR_PAGES, 1);
		pthread_barrier_wait(&w->crowd->barrier);
		while (is_phase(w, CALM))
			sweep(w, NR_HOT, 0);
		sweep(w, NR_HOT, 1);
		__atomic_fetch_add(&w->crowd->nr_writing, 1, __ATOMIC_RELEASE);
		for (; is_phase(w, BURST); w->bursts++)
			sweep(w, NR_HOT, 1);
		pthread_barrier_wait(&w->crowd->barrier);
	}
	sweep(w, NR_PAGES, 0);
	return NULL;
}

/* The CPUs we may run on; their number, or @max if there are more. */
static int get_cpus(int *cpus, int max)
{
	cpu_set_t set;
	int nr = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 0;
	for (int cpu = 0; cpu < CPU_SETSIZE && nr < max; cpu++)
		if (CPU_ISSET(cpu, &set))
			cpus[nr++] = cpu;
	return nr;
}

/* Pages out once while they write; true if ksmd has made its @calm passes. */
static bool run_round(struct crowd *crowd, char *scratch, int calm)
{
	bool ok;

	/*
	 * If it has flushed late before, madvise() begins with a flush, which would
	 * spoil our plan. So have that flush now.
	 */
	*scratch = 1;
	madvise(scratch, psize(), MADV_DONTNEED);
	pthread_barrier_wait(&crowd->barrier);
	ok = !ksm_wait_scans(calm);
	__atomic_store_n(&crowd->nr_writing, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&crowd->phase, BURST, __ATOMIC_RELEASE);
	while (__atomic_load_n(&crowd->nr_writing, __ATOMIC_ACQUIRE) < NR_WRITERS)
		sched_yield();
	ksm_madvise(crowd->addr, NR_PAGES, MADV_PAGEOUT);
	__atomic_store_n(&crowd->phase, OVER, __ATOMIC_RELEASE);
	pthread_barrier_wait(&crowd->barrier);
	__atomic_store_n(&crowd->phase, CALM, __ATOMIC_RELEASE);
	return ok;
}

FIXTURE(writers)
{
	bool zram;
	int cpus[NR_WRITERS + 1];
	int nr_cpus;
};

FIXTURE_SETUP(writers)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	self->nr_cpus = get_cpus(self->cpus, NR_WRITERS + 1);
	if (self->nr_cpus < 2)
		SKIP(return, "needs two CPUs");
	self->zram = ksm_zram_on(KSM_SWAP_MIB);
	if (self->zram ? !ksm_swapon(KSM_ZRAM) : !ksm_have_swap())
		SKIP(return, "no unused zram device, and no swap");
}

FIXTURE_TEARDOWN_PARENT(writers)
{
	ksm_restore();
	if (self->zram)
		ksm_zram_off();
}

TEST_F_TIMEOUT(writers, lose_nothing_to_reclaim, KSM_TIMEOUT)
{
	static struct writer_thread writers[NR_WRITERS];
	struct crowd crowd = { .addr = map_unique(NR_PAGES, 1), .phase = CALM };
	long out = ksm_vmstat("pswpout");
	char *scratch = ksm_map(1);
	int ok = 0;

	ASSERT_NE(MAP_FAILED, crowd.addr);
	ASSERT_NE(MAP_FAILED, scratch);
	stay_on_cpu(self->cpus[0]);
	ASSERT_EQ(0, pthread_barrier_init(&crowd.barrier, NULL, NR_WRITERS + 1));
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	for (int i = 0; i < NR_WRITERS; i++) {
		struct writer_thread *w = &writers[i];

		w->crowd = &crowd;
		w->id = i;
		w->cpu = self->cpus[1 + i % (self->nr_cpus - 1)];
		for (int j = 0; j < NR_PAGES; j++)
			w->written[j] = ksm_word(1 + j, 64 * (i + 1));
		ASSERT_EQ(0, pthread_create(&w->thread, NULL, write_in_rounds, w));
	}
	for (int round = 0; round < NR_ROUNDS; round++)
		ok += run_round(&crowd, scratch, round % NR_CALMS);
	for (int i = 0; i < NR_WRITERS; i++) {
		pthread_join(writers[i].thread, NULL);
		TH_LOG("writer %d: %ld bursts, lost %ld", i, writers[i].bursts,
		       writers[i].lost);
		EXPECT_GE(writers[i].bursts, 1);
		EXPECT_EQ(0, writers[i].lost);
	}
	EXPECT_EQ(NR_ROUNDS, ok);
	/* Did reclaim take the pages? Some may have been in use, but not most. */
	out = ksm_vmstat("pswpout") - out;
	TH_LOG("%ld pages went to swap", out);
	EXPECT_GE(out, NR_ROUNDS * NR_PAGES / 2);
}

TEST_HARNESS_MAIN
