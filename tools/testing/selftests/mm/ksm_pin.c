// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that somebody besides the page table is using, and unusual mappings.
 *
 * A page under I/O may be written to through no page table at all. If KSM
 * replaced it, the data would go to a page that the process no longer sees. So
 * pinned pages must stay, however equal they are, and no protection that the
 * process or its userfaultfd handler has set up may be lost by merging.
 */
#include <pthread.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include "ksm_util.h"

#define NR_PAGES	8

FIXTURE(pin)
{
	char *addr;	/* NR_PAGES mergeable, equal pages, not merged yet */
	bool zram;
};

FIXTURE_SETUP(pin)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	self->addr = ksm_map_dups(NR_PAGES, 1);
	ASSERT_NE(MAP_FAILED, self->addr);
}

FIXTURE_TEARDOWN_PARENT(pin)
{
	ksm_restore();
	if (self->zram)
		ksm_spew("/sys/block/zram0/reset", "1");
}

/* A pipe that holds our page reads what we write to the page later. */
TEST_F_TIMEOUT(pin, page_in_a_pipe, KSM_TIMEOUT)
{
	struct iovec page = { .iov_base = self->addr, .iov_len = psize() };
	unsigned long pfn = ksm_pfn(self->addr);
	char *out = malloc(psize());
	int pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ((ssize_t)psize(), vmsplice(pipes[1], &page, 1, 0));
	ASSERT_EQ(0, ksm_scan(5));
	EXPECT_EQ(pfn, ksm_pfn(self->addr));
	EXPECT_EQ(0, ksm_count_merged(self->addr, 1));

	ksm_fill(self->addr, 2);
	ASSERT_EQ((ssize_t)psize(), read(pipes[0], out, psize()));
	EXPECT_TRUE(ksm_holds(out, 2));
	free(out);

	/* Let go, it is a page like others. */
	ksm_fill(self->addr, 1);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
}

/* A ring with one registered buffer, which is a long-term pin of the page. */
struct ring {
	int fd;
	struct io_uring_params params;
	char *queues;
	struct io_uring_sqe *sqes;
};

static int ring_open(struct ring *ring, void *buffer)
{
	struct iovec page = { .iov_base = buffer, .iov_len = psize() };
	struct io_uring_params *p = &ring->params;

	memset(ring, 0, sizeof(*ring));
	ring->fd = syscall(__NR_io_uring_setup, 1, p);
	if (ring->fd < 0)
		return -errno;
	if (syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS, &page, 1))
		return -errno;
	ring->queues = mmap(NULL, p->cq_off.cqes +
			    p->cq_entries * sizeof(struct io_uring_cqe),
			    PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
			    IORING_OFF_SQ_RING);
	ring->sqes = mmap(NULL, p->sq_entries * sizeof(struct io_uring_sqe),
			  PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
			  IORING_OFF_SQES);
	return ring->queues == MAP_FAILED || (void *)ring->sqes == MAP_FAILED ?
	       -ENOMEM : 0;
}

/* Reads a page of @fd into the registered buffer; the result as of pread(). */
static int ring_read(struct ring *ring, int fd, void *buffer)
{
	struct io_uring_params *p = &ring->params;
	unsigned int *sq_tail = (unsigned int *)(ring->queues + p->sq_off.tail);
	unsigned int *sq_array = (unsigned int *)(ring->queues + p->sq_off.array);
	unsigned int *cq_head = (unsigned int *)(ring->queues + p->cq_off.head);
	struct io_uring_cqe *cqes = (void *)(ring->queues + p->cq_off.cqes);
	unsigned int cq_mask = p->cq_entries - 1;
	int res;

	memset(ring->sqes, 0, sizeof(*ring->sqes));
	ring->sqes->opcode = IORING_OP_READ_FIXED;
	ring->sqes->fd = fd;
	ring->sqes->addr = (unsigned long)buffer;
	ring->sqes->len = psize();
	sq_array[*sq_tail & (p->sq_entries - 1)] = 0;
	__atomic_fetch_add(sq_tail, 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0) != 1)
		return -errno;
	res = cqes[*cq_head & cq_mask].res;
	__atomic_fetch_add(cq_head, 1, __ATOMIC_RELEASE);
	return res;
}

static int file_with_a_page(__u64 seed)
{
	int fd = memfd_create("ksm", 0);
	char *page = malloc(psize());

	ksm_fill(page, seed);
	if (pwrite(fd, page, psize(), 0) != (ssize_t)psize()) {
		close(fd);
		fd = -1;
	}
	free(page);
	return fd;
}

static void close_ring(struct ring *ring)
{
	if (ring->queues)
		munmap(ring->queues, psize());
	close(ring->fd);
}

/* Registered before ksmd comes by: the page stays, and gets the data. */
TEST_F_TIMEOUT(pin, registered_buffer, KSM_TIMEOUT)
{
	int file = file_with_a_page(3), err;
	unsigned long pfn;
	struct ring ring;

	ASSERT_GE(file, 0);
	err = ring_open(&ring, self->addr);
	if (err && access("/proc/sys/kernel/io_uring_disabled", F_OK))
		SKIP(return, "kernel without io_uring");
	ASSERT_EQ(0, err);
	pfn = ksm_pfn(self->addr);
	ASSERT_EQ(0, ksm_scan(5));
	EXPECT_EQ(pfn, ksm_pfn(self->addr));
	EXPECT_EQ(0, ksm_count_merged(self->addr, 1));
	ASSERT_EQ((int)psize(), ring_read(&ring, file, self->addr));
	EXPECT_TRUE(ksm_holds(self->addr, 3));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 1), NR_PAGES - 1, 1, 0));
	close_ring(&ring);
}

/* Registered when merged: it needs a page of its own before it may be pinned. */
TEST_F_TIMEOUT(pin, registered_after_merging, KSM_TIMEOUT)
{
	int file = file_with_a_page(4), err;
	struct ring ring;

	ASSERT_GE(file, 0);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
	err = ring_open(&ring, self->addr);
	if (err && access("/proc/sys/kernel/io_uring_disabled", F_OK))
		SKIP(return, "kernel without io_uring");
	ASSERT_EQ(0, err);
	EXPECT_EQ(0, ksm_count_merged(self->addr, 1));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ((int)psize(), ring_read(&ring, file, self->addr));
	EXPECT_TRUE(ksm_holds(self->addr, 4));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 1), NR_PAGES - 1, 1, 0));
	close_ring(&ring);
}

/* A device to read from past the page cache, or a file that allows it. */
static int open_direct(FIXTURE_DATA(pin) * self)
{
	static const char name[] = "ksm_selftest.dio";
	int fd;

	if (!ksm_spew("/sys/block/zram0/disksize", "1M")) {
		self->zram = true;
		return open("/dev/zram0", O_RDWR | O_DIRECT | O_CLOEXEC);
	}
	fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600);
	unlink(name);
	return fd;
}

/* Direct reads of equal data into many pages, which ksmd merges meanwhile. */
TEST_F_TIMEOUT(pin, direct_reads_while_scanning, KSM_TIMEOUT)
{
	int fd = open_direct(self);

	if (fd < 0)
		SKIP(return, "no direct I/O here: %s", strerror(errno));
	for (int i = 0; i < 2; i++) {
		ksm_fill(self->addr, 10 + i);
		ASSERT_EQ((ssize_t)psize(),
			  pwrite(fd, self->addr, psize(), i * psize()));
	}
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	for (int round = 0; round < 1000; round++) {
		int block = round / NR_PAGES % 2, err = 0;
		char *page = ksm_page(self->addr, round % NR_PAGES);

		ASSERT_EQ((ssize_t)psize(), pread(fd, page, psize(), block * psize()));
		ASSERT_TRUE(ksm_holds(page, 10 + block));
		if (round % 64 == 63)
			err = ksm_wait_scans(3);
		ASSERT_EQ(0, err);
	}
	close(fd);
}

static int open_uffd_for(char *addr, size_t nr_pages, __u64 features, __u64 mode)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = {
		.range = { .start = (unsigned long)addr, .len = nr_pages * psize() },
		.mode = mode,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg)) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

static int open_uffd(char *addr, size_t nr_pages)
{
	return open_uffd_for(addr, nr_pages, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
			     UFFDIO_REGISTER_MODE_WP);
}

static int uffd_protect(int fd, char *addr, size_t nr_pages, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (unsigned long)addr, .len = nr_pages * psize() },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
}

static int uffd_arm(int fd, char *addr, size_t nr_pages, bool on)
{
	struct uffdio_rwprotect rwp = {
		.range = { .start = (unsigned long)addr, .len = nr_pages * psize() },
		.mode = on ? UFFDIO_RWPROTECT_MODE_RWP : 0,
	};

	return ioctl(fd, UFFDIO_RWPROTECT, &rwp) ? -errno : 0;
}

struct access {
	char *page;
	bool write;
	bool done;
};

static void *access_page(void *arg)
{
	struct access *a = arg;

	if (a->write)
		ksm_fill(a->page, 99);
	else
		FORCE_READ(*a->page);
	__atomic_store_n(&a->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Was the handler told of this access before it happened? */
static bool access_is_told(int fd, struct access *a, pthread_t *thread)
{
	const __u64 flag = a->write ? UFFD_PAGEFAULT_FLAG_WP : UFFD_PAGEFAULT_FLAG_RWP;
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	struct uffd_msg msg;
	bool told = false;

	if (pthread_create(thread, NULL, access_page, a))
		return false;
	while (!told && !__atomic_load_n(&a->done, __ATOMIC_ACQUIRE)) {
		if (poll(&poll_fd, 1, 10) != 1 ||
		    read(fd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		told = msg.event == UFFD_EVENT_PAGEFAULT &&
		       (msg.arg.pagefault.flags & flag) &&
		       (msg.arg.pagefault.address & -(__u64)psize()) ==
		       (unsigned long)a->page;
	}
	return told;
}

/* Is a write reported where writes are to be? Lets it happen. */
static bool write_is_reported(int fd, char *page)
{
	struct access a = { .page = page, .write = true };
	pthread_t thread;
	bool told = access_is_told(fd, &a, &thread);

	uffd_protect(fd, page, 1, false);
	pthread_join(thread, NULL);
	return told;
}

/* Is a read reported where all accesses are to be? */
static bool read_is_reported(int fd, char *page)
{
	struct access a = { .page = page };
	pthread_t thread;
	bool told = access_is_told(fd, &a, &thread);

	uffd_arm(fd, page, 1, false);
	pthread_join(thread, NULL);
	return told;
}

/* Protected when merged already. */
TEST_F_TIMEOUT(pin, uffd_protects_merged_pages, KSM_TIMEOUT)
{
	int fd = open_uffd(self->addr, NR_PAGES);

	if (fd < 0)
		SKIP(return, "no userfaultfd with write protection");
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
	ASSERT_EQ(0, uffd_protect(fd, self->addr, NR_PAGES, true));
	EXPECT_TRUE(write_is_reported(fd, ksm_page(self->addr, 2)));
	EXPECT_TRUE(ksm_holds(ksm_page(self->addr, 2), 99));
	EXPECT_TRUE(ksm_pages_hold(self->addr, 2, 1, 0));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 3), NR_PAGES - 3, 1, 0));
	close(fd);
}

/* Protected first: merging, or not, must not undo it. */
TEST_F_TIMEOUT(pin, uffd_protection_survives_merging, KSM_TIMEOUT)
{
	int fd = open_uffd(self->addr, NR_PAGES);

	if (fd < 0)
		SKIP(return, "no userfaultfd with write protection");
	ASSERT_EQ(0, uffd_protect(fd, self->addr, NR_PAGES, true));
	ASSERT_EQ(0, ksm_scan(4));
	for (int i = 0; i < NR_PAGES; i++) {
		EXPECT_TRUE(write_is_reported(fd, ksm_page(self->addr, i))) {
			TH_LOG("page %d", i);
		}
	}
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 99, 0));
	close(fd);
}

/* How many of the pages are protected? */
static size_t count_armed(char *addr, size_t nr_pages)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t armed = 0;

	for (size_t i = 0; i < nr_pages; i++)
		armed += !!(pagemap_get_entry(fd, ksm_page(addr, i)) & PM_UFFD_WP);
	close(fd);
	return armed;
}

static int withdraw_by_madvise(char *addr)
{
	return ksm_madvise(addr, NR_PAGES, MADV_UNMERGEABLE);
}

static int unmerge_by_run(char *addr)
{
	return ksm_write("run", "2");
}

static int withdraw_by_prctl(char *addr)
{
	return prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) ||
	       prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0) ? -errno : 0;
}

/* On a kernel without domains this is one more run=2. */
static int unmerge_by_domain(char *addr)
{
	int err = ksm_domain(PR_KSM_DOMAIN_CREATE, 0);

	return err == -EINVAL ? ksm_write("run", "2") : err;
}

static int (* const unmergers[])(char *addr) = {
	withdraw_by_madvise, unmerge_by_run, withdraw_by_prctl, unmerge_by_domain,
};

/* Have the pages merged, then protect them against reads and writes. */
static int merge_and_arm(char *addr, __u64 features)
{
	int fd;

	if (ksm_scan(3) || ksm_count_merged(addr, NR_PAGES) != NR_PAGES)
		return -EAGAIN;
	fd = open_uffd_for(addr, NR_PAGES, UFFD_FEATURE_RWP | features,
			   UFFDIO_REGISTER_MODE_RWP);
	if (fd < 0)
		return -EOPNOTSUPP;
	if (!uffd_arm(fd, addr, NR_PAGES, true))
		return fd;
	close(fd);
	return -EIO;
}

/* Unmerging goes past the protection, and reports no access: the copies have it, too. */
TEST_F_TIMEOUT(pin, uffd_armed_pages_unmerge, KSM_TIMEOUT)
{
	for (size_t way = 0; way < ARRAY_SIZE(unmergers); way++) {
		char *addr = ksm_map_dups(NR_PAGES, 1);
		int fd;

		ASSERT_NE(MAP_FAILED, addr);
		fd = merge_and_arm(addr, 0);
		if (fd == -EOPNOTSUPP)
			SKIP(return, "no userfaultfd with read-write protection");
		ASSERT_GE(fd, 0);
		EXPECT_EQ(0, unmergers[way](addr)) {
			TH_LOG("way %zu", way);
		}
		EXPECT_EQ(0, ksm_count_merged(addr, NR_PAGES));
		EXPECT_EQ(NR_PAGES, count_armed(addr, NR_PAGES));
		for (int i = 0; i < NR_PAGES; i++)
			EXPECT_TRUE(read_is_reported(fd, ksm_page(addr, i)));
		EXPECT_TRUE(ksm_pages_hold(addr, NR_PAGES, 1, 0));
		ksm_fill_pages(addr, NR_PAGES, 2, 1);
		EXPECT_TRUE(ksm_pages_hold(addr, NR_PAGES, 2, 1));
		close(fd);
		munmap(addr, NR_PAGES * psize());
	}
}

/* The same where an access takes off the protection without a report. */
TEST_F_TIMEOUT(pin, uffd_armed_pages_stay_cold, KSM_TIMEOUT)
{
	int fd = merge_and_arm(self->addr, UFFD_FEATURE_RWP_ASYNC);

	if (fd == -EOPNOTSUPP)
		SKIP(return, "no userfaultfd with read-write protection");
	ASSERT_GE(fd, 0);
	EXPECT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_UNMERGEABLE));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_EQ(NR_PAGES, count_armed(self->addr, NR_PAGES));
	FORCE_READ(*self->addr);
	EXPECT_EQ(NR_PAGES - 1, count_armed(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	close(fd);
}

/* mremap() unmerges what it moves, protected or not. */
TEST_F_TIMEOUT(pin, uffd_armed_pages_move, KSM_TIMEOUT)
{
	size_t len = NR_PAGES * psize();
	char *to = ksm_map(NR_PAGES);
	int fd = merge_and_arm(self->addr, 0);

	if (fd == -EOPNOTSUPP)
		SKIP(return, "no userfaultfd with read-write protection");
	ASSERT_GE(fd, 0);
	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(to, mremap(self->addr, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(0, ksm_count_merged(to, NR_PAGES));
	close(fd);
	EXPECT_TRUE(ksm_pages_hold(to, NR_PAGES, 1, 0));
}

/* And for zero pages that KSM has mapped. */
TEST_F_TIMEOUT(pin, uffd_armed_zero_pages_unmerge, KSM_TIMEOUT)
{
	int fd;

	ASSERT_EQ(0, ksm_write("use_zero_pages", "1"));
	memset(self->addr, 0, NR_PAGES * psize());
	ASSERT_EQ(0, ksm_scan(6));
	ASSERT_EQ(NR_PAGES, ksm_stat_of(0, "ksm_zero_pages"));
	fd = open_uffd_for(self->addr, NR_PAGES, UFFD_FEATURE_RWP,
			   UFFDIO_REGISTER_MODE_RWP);
	if (fd < 0)
		SKIP(return, "no userfaultfd with read-write protection");
	ASSERT_EQ(0, uffd_arm(fd, self->addr, NR_PAGES, true));
	EXPECT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_zero_pages"));
	EXPECT_EQ(NR_PAGES, count_armed(self->addr, NR_PAGES));
	EXPECT_TRUE(read_is_reported(fd, self->addr));
	close(fd);
	EXPECT_EQ(0, self->addr[5 * psize()]);
}

TEST_F_TIMEOUT(pin, mlocked_pages, KSM_TIMEOUT)
{
	ASSERT_EQ(0, mlock(self->addr, NR_PAGES * psize()));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
	ksm_fill(self->addr, 2);
	ASSERT_EQ(0, munlock(self->addr, NR_PAGES * psize()));
	EXPECT_TRUE(ksm_holds(self->addr, 2));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 1), NR_PAGES - 1, 1, 0));
	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, 1), NR_PAGES - 1, 1, 0));
}

/* Not accessible when merged, or not when unmerged: it makes no difference. */
TEST_F_TIMEOUT(pin, prot_none, KSM_TIMEOUT)
{
	size_t len = NR_PAGES * psize();

	ASSERT_EQ(0, mprotect(self->addr, len, PROT_NONE));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_UNMERGEABLE));
	ASSERT_EQ(0, mprotect(self->addr, len, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));

	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
	ASSERT_EQ(0, mprotect(self->addr, len, PROT_NONE));
	ASSERT_EQ(0, ksm_write("run", "2"));
	ASSERT_EQ(0, mprotect(self->addr, len, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

/* Read-only and writable again: the pages must still be copied on write. */
TEST_F_TIMEOUT(pin, mprotect_after_merging, KSM_TIMEOUT)
{
	size_t len = NR_PAGES * psize();
	int intact = 0;

	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(0, mprotect(self->addr, len, PROT_READ));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
	ASSERT_EQ(0, mprotect(self->addr, len, PROT_READ | PROT_WRITE));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
	for (int i = 0; i < NR_PAGES; i += 2)
		ksm_fill(ksm_page(self->addr, i), 20 + i);
	for (int i = 0; i < NR_PAGES; i++)
		intact += ksm_holds(ksm_page(self->addr, i), i % 2 ? 1 : 20 + i);
	EXPECT_EQ(NR_PAGES, intact);
}

/* Dropped pages read as zeroes; the rest stays, and unmerging copes with holes. */
TEST_F_TIMEOUT(pin, dontneed_after_merging, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES / 2, MADV_DONTNEED));
	ASSERT_EQ(0, ksm_scan(1));
	EXPECT_EQ(NR_PAGES / 2, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_EQ(0, *ksm_page(self->addr, 1));
	ASSERT_EQ(0, ksm_madvise(self->addr, NR_PAGES, MADV_UNMERGEABLE));
	EXPECT_TRUE(ksm_pages_hold(ksm_page(self->addr, NR_PAGES / 2), NR_PAGES / 2,
				   1, 0));
	EXPECT_EQ(0, ksm_count_merged(self->addr, NR_PAGES));
}

/* Of a private file mapping the written pages are merged, and only those. */
TEST_F_TIMEOUT(pin, private_file_mapping, KSM_TIMEOUT)
{
	int fd = file_with_a_page(1);
	char *file;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, 4 * psize()));
	file = mmap(NULL, 4 * psize(), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, file);
	ASSERT_TRUE(ksm_holds(file, 1));
	ksm_fill_pages(ksm_page(file, 2), 2, 1, 0);
	ASSERT_EQ(0, ksm_madvise(file, 4, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(0, ksm_count_merged(file, 2));
	EXPECT_EQ(2, ksm_count_merged(ksm_page(file, 2), 2));
	EXPECT_EQ(NR_PAGES + 1, ksm_get("pages_sharing"));
	ksm_fill(ksm_page(file, 2), 5);
	EXPECT_TRUE(ksm_holds(ksm_page(file, 3), 1));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 1, 0));
}

static bool all_bytes(const char *bytes, size_t len, char value)
{
	while (len--)
		if (*bytes++ != value)
			return false;
	return true;
}

/* A whole process under prctl(): its stack and heap are merged as it runs. */
TEST_F_TIMEOUT(pin, whole_process, KSM_TIMEOUT)
{
	enum { NR = 64, LEN = 5000 };
	char *blocks[NR] = { NULL };
	int intact = 0;

	ASSERT_EQ(0, prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0));
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("use_zero_pages", "1"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	for (int round = 0; round < 40 * NR; round++) {
		char **block = &blocks[round % NR];

		ASSERT_TRUE(!*block || all_bytes(*block, LEN, round % NR % 3));
		free(*block);
		*block = malloc(LEN);
		memset(*block, round % NR % 3, LEN);
	}
	ASSERT_EQ(0, ksm_wait_scans(3));
	ASSERT_EQ(0, prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0));
	for (int i = 0; i < NR; i++)
		intact += all_bytes(blocks[i], LEN, i % 3);
	EXPECT_EQ(NR, intact);
}

TEST_HARNESS_MAIN
