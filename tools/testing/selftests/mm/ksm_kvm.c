// SPDX-License-Identifier: GPL-2.0
/*
 * A guest whose memory is merged: it writes through page tables of its own, which
 * the PTEs of its host process know nothing about.
 *
 * The guest is a few bytes of real mode code. In each run it changes one word in
 * each of a row of pages, as its registers say, and halts. So what its memory has to
 * hold is known exactly, whatever KSM has done to it meanwhile.
 */
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include "ksm_reclaim.h"

#ifdef __x86_64__
/* Guest physical addresses; in real mode a segment is a sixteenth of one. */
#define CODE		0x1000UL
#define MEMORY		0x10000UL
#define NR_PAGES	64
#define PARAGRAPH	16

/* As often as there is something to be merged, that takes so many passes. */
#define SOON		4
/* What a guest's write has not told is found when its page is read regardless. */
#define RARELY		40
#define NR_ROUNDS	40

/* Of a larger guest: there, in memory that is reached by segment ds, which has no limit. */
#define FAR		0x1000000UL
#define NR_FAR_HOT	2048
#define NR_FAR		(3 * NR_FAR_HOT)

/* For cx pages from segment ax on: the word at es:di becomes edx, or edx more. */
static const unsigned char store_code[] = {
	0x8e, 0xc0,			/* 1: mov %ax, %es */
	0x26, 0x66, 0x89, 0x15,		/* mov %edx, %es:(%di) */
	0x05, 0x00, 0x01,		/* add $0x100, %ax */
	0xe2, 0xf5,			/* loop 1b */
	0xf4,				/* hlt */
};

static const unsigned char add_code[] = {
	0x8e, 0xc0,
	0x26, 0x66, 0x01, 0x15,		/* add %edx, %es:(%di) */
	0x05, 0x00, 0x01,
	0xe2, 0xf5,
	0xf4,
};

/* For ecx pages from edi on: the word at ds:edi becomes edx more. */
static const unsigned char far_add_code[] = {
	0x67, 0x66, 0x01, 0x17,		/* 1: add %edx, (%edi) */
	0x66, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00,	/* add $0x1000, %edi */
	0x67, 0xe2, 0xf2,		/* loop 1b, by ecx */
	0xf4,
};

static const unsigned char load_code[] = {
	0x8e, 0xc0,
	0x26, 0x66, 0x8b, 0x1d,		/* mov %es:(%di), %ebx */
	0x05, 0x00, 0x01,
	0xe2, 0xf5,
	0xf4,
};

#define STORE	CODE
#define ADD	(CODE + 0x100)
#define FAR_ADD	(CODE + 0x200)
#define LOAD	(CODE + 0x300)

FIXTURE(kvm)
{
	int kvm, vm, vcpu;
	struct ksm_reclaim reclaim;
	struct kvm_run *run;
	char *code;
	char *memory;
};

static int set_memory(int vm, int slot, unsigned long at, char *memory, size_t nr_pages)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = at,
		.memory_size = nr_pages * psize(),
		.userspace_addr = (unsigned long)memory,
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Let the guest write to the first word of pages from @first on; true if it did. */
static bool guest_write(FIXTURE_DATA(kvm) * self, unsigned long code, int first, int nr,
			__u32 value)
{
	struct kvm_regs regs = {
		.rip = code,
		.rflags = 2,
		.rax = (MEMORY + first * psize()) / PARAGRAPH,
		.rcx = nr,
		.rdx = value,
	};

	if (ioctl(self->vcpu, KVM_SET_REGS, &regs) || ioctl(self->vcpu, KVM_RUN, NULL))
		return false;
	return self->run->exit_reason == KVM_EXIT_HLT;
}

/* The same, 1 being added, in memory at FAR. */
static bool guest_write_far(FIXTURE_DATA(kvm) * self, int first, int nr)
{
	struct kvm_regs regs = {
		.rip = FAR_ADD,
		.rflags = 2,
		.rdi = FAR + first * psize(),
		.rcx = nr,
		.rdx = 1,
	};

	if (ioctl(self->vcpu, KVM_SET_REGS, &regs) || ioctl(self->vcpu, KVM_RUN, NULL))
		return false;
	return self->run->exit_reason == KVM_EXIT_HLT;
}

/* The guest's word of a page. */
static int word_of(FIXTURE_DATA(kvm) * self, int page)
{
	return *(int *)ksm_page(self->memory, page);
}

/* Does every page hold the pattern of seed 1, but for the guest's word, @value? */
static bool all_hold(FIXTURE_DATA(kvm) * self, __u32 value)
{
	for (int i = 0; i < NR_PAGES; i++) {
		const __u32 *page = (const __u32 *)ksm_page(self->memory, i);

		for (size_t j = 0; j < psize() / sizeof(*page); j++) {
			__u32 expected = ksm_word(1, j / 2) >> (j % 2 * 32);

			if (page[j] != (j ? expected : value))
				return false;
		}
	}
	return true;
}

static const char *make_guest(FIXTURE_DATA(kvm) * self)
{
	struct kvm_sregs sregs;
	int size;

	self->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (self->kvm < 0)
		return "no /dev/kvm";
	self->vm = ioctl(self->kvm, KVM_CREATE_VM, 0);
	if (self->vm < 0)
		return "KVM makes no guests here";
	self->code = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	self->memory = ksm_map(NR_PAGES);
	if (self->code == MAP_FAILED || self->memory == MAP_FAILED)
		return "no memory";
	memcpy(self->code, store_code, sizeof(store_code));
	memcpy(self->code + ADD - CODE, add_code, sizeof(add_code));
	memcpy(self->code + FAR_ADD - CODE, far_add_code, sizeof(far_add_code));
	memcpy(self->code + LOAD - CODE, load_code, sizeof(load_code));
	if (set_memory(self->vm, 0, CODE, self->code, 1) ||
	    set_memory(self->vm, 1, MEMORY, self->memory, NR_PAGES))
		return "no memory slots";

	self->vcpu = ioctl(self->vm, KVM_CREATE_VCPU, 0);
	size = ioctl(self->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (self->vcpu < 0 || size < (int)sizeof(*self->run))
		return "no virtual CPU";
	self->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, self->vcpu, 0);
	if (self->run == MAP_FAILED || ioctl(self->vcpu, KVM_GET_SREGS, &sregs))
		return "no registers";
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	sregs.ds.base = 0;
	sregs.ds.limit = UINT32_MAX;
	sregs.ds.g = 1;
	return ioctl(self->vcpu, KVM_SET_SREGS, &sregs) ? "no registers" : NULL;
}

FIXTURE_SETUP(kvm)
{
	const char *why_not = ksm_setup();

	why_not = why_not ?: make_guest(self);
	if (why_not)
		SKIP(return, "%s", why_not);
	/* Word 0 of each page is the guest's. */
	ksm_fill_pages(self->memory, NR_PAGES, 1, 0);
	ASSERT_TRUE(guest_write(self, STORE, 0, NR_PAGES, 0));
	ASSERT_TRUE(all_hold(self, 0));
	ASSERT_EQ(0, ksm_madvise(self->memory, NR_PAGES, MADV_MERGEABLE));
}

FIXTURE_TEARDOWN_PARENT(kvm)
{
	ksm_reclaim_end(&self->reclaim);
	ksm_restore();
}

/* What a guest wrote is shared; its next writes unshare it, and are kept. */
TEST_F_TIMEOUT(kvm, guest_writes_to_merged_pages, KSM_TIMEOUT)
{
	for (__u32 round = 1; round <= 3; round++) {
		ASSERT_EQ(0, ksm_scan(SOON * round));
		ASSERT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
		ASSERT_TRUE(ksm_one_frame(self->memory, NR_PAGES));
		ASSERT_TRUE(guest_write(self, ADD, 0, NR_PAGES, 1));
		EXPECT_TRUE(all_hold(self, round));
		EXPECT_FALSE(ksm_one_frame(self->memory, NR_PAGES));
	}
}

/* One page of many is written: the others stay shared, and as they are. */
TEST_F_TIMEOUT(kvm, guest_writes_to_one_of_them, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_scan(SOON));
	ASSERT_TRUE(guest_write(self, STORE, 7, 1, 1234));
	EXPECT_EQ(1234, word_of(self, 7));
	EXPECT_EQ(0, word_of(self, 6));
	EXPECT_EQ(0, word_of(self, 8));
	ASSERT_EQ(0, ksm_scan(1));
	EXPECT_EQ(NR_PAGES - 2, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_one_frame(ksm_page(self->memory, 8), NR_PAGES - 8));
	/* And when it is equal again it is shared again. */
	ASSERT_TRUE(guest_write(self, STORE, 7, 1, 0));
	ASSERT_EQ(0, ksm_scan(RARELY));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_TRUE(all_hold(self, 0));
}

/*
 * The guest is paused for long, its pages are known well and their PTEs clean. When it
 * goes on, what it writes does not show there, and is to be noticed all the same.
 */
TEST_F_TIMEOUT(kvm, guest_writes_to_settled_pages, KSM_TIMEOUT)
{
	char *twin = ksm_map_dups(1, 1);

	ASSERT_NE(MAP_FAILED, twin);
	*(__u32 *)twin = 99;
	for (int i = 0; i < NR_PAGES; i++)
		ASSERT_TRUE(guest_write(self, STORE, i, 1, 1000 + i));
	ASSERT_EQ(0, ksm_scan(RARELY));
	EXPECT_EQ(0, ksm_get("pages_shared"));

	ASSERT_TRUE(guest_write(self, STORE, 5, 1, 99));
	ASSERT_EQ(0, ksm_scan(RARELY));
	EXPECT_EQ(1, ksm_get("pages_sharing"));
	EXPECT_EQ(ksm_pfn(twin), ksm_pfn(ksm_page(self->memory, 5)));
	EXPECT_EQ(1004, word_of(self, 4));
	EXPECT_EQ(99, word_of(self, 5));
	EXPECT_EQ(1006, word_of(self, 6));
}

/* A figure of a guest or a vcpu, by the name that KVM has for it; -1 if there is none. */
static long long stat_of(int of, const char *name)
{
	struct kvm_stats_header header;
	char desc[sizeof(struct kvm_stats_desc) + 256];
	struct kvm_stats_desc *d = (void *)desc;
	long long value = -1;
	int fd = ioctl(of, KVM_GET_STATS_FD, NULL);
	size_t size;

	if (fd < 0 || pread(fd, &header, sizeof(header), 0) != sizeof(header))
		return -1;
	size = sizeof(*d) + header.name_size;
	for (__u32 i = 0; size <= sizeof(desc) && i < header.num_desc; i++) {
		if (pread(fd, d, size, header.desc_offset + i * size) != (ssize_t)size)
			break;
		if (strcmp(d->name, name))
			continue;
		if (pread(fd, &value, sizeof(value), header.data_offset + d->offset) !=
		    sizeof(value))
			value = -1;
		break;
	}
	close(fd);
	return value;
}

/* A page that the guest reads first is mapped for writing as well, if its PTE is clean. */
TEST_F_TIMEOUT(kvm, guest_reads_settled_pages_and_writes, KSM_TIMEOUT)
{
	long long before, faults;

	for (int i = 0; i < NR_PAGES; i++)
		ASSERT_TRUE(guest_write(self, STORE, i, 1, 1000 + i));
	/* On the LRU lists: on their way there pages are not made clean. */
	ASSERT_EQ(0, ksm_madvise(self->memory, NR_PAGES, MADV_COLD));
	ASSERT_EQ(0, ksm_scan(SOON));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	/* The guest loses its mappings, and its host process does not. */
	ASSERT_EQ(0, set_memory(self->vm, 1, MEMORY, self->memory, 0));
	ASSERT_EQ(0, set_memory(self->vm, 1, MEMORY, self->memory, NR_PAGES));
	before = stat_of(self->vcpu, "pf_taken");
	ASSERT_TRUE(guest_write(self, LOAD, 0, NR_PAGES, 0));
	faults = stat_of(self->vcpu, "pf_taken");
	if (faults <= before)
		SKIP(return, "KVM does not tell how often a guest has faulted");
	ASSERT_TRUE(guest_write(self, STORE, 0, NR_PAGES, 7));
	EXPECT_EQ(faults, stat_of(self->vcpu, "pf_taken"));
	EXPECT_TRUE(all_hold(self, 7));
}

/* The first page and the last one are merged: the guest keeps what is between them. */
TEST_F_TIMEOUT(kvm, guest_keeps_what_is_not_merged, KSM_TIMEOUT)
{
	char *twins = ksm_map_dups(2, 1);
	long long mapped;

	ASSERT_NE(MAP_FAILED, twins);
	*(__u32 *)twins = 1000;
	*(__u32 *)ksm_page(twins, 1) = 1000 + NR_PAGES - 1;
	for (int i = 0; i < NR_PAGES; i++)
		ASSERT_TRUE(guest_write(self, STORE, i, 1, 1000 + i));
	mapped = stat_of(self->vm, "pages_4k");
	if (mapped < NR_PAGES)
		SKIP(return, "KVM does not tell what a guest has mapped");
	ASSERT_EQ(0, ksm_scan(SOON));
	ASSERT_EQ(2, ksm_get("pages_sharing"));
	EXPECT_EQ(mapped - 2, stat_of(self->vm, "pages_4k"));
	for (int i = 0; i < NR_PAGES; i++)
		EXPECT_EQ(1000 + i, word_of(self, i));
}

/* The guest adds to all its pages, all the time, while ksmd merges them. */
TEST_F_TIMEOUT(kvm, guest_writes_while_scanned, KSM_TIMEOUT)
{
	long copied = ksm_vmstat("cow_ksm");
	double deadline = ksm_now() + KSM_HANG_SECS;
	__u32 rounds = 0;

	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	while (rounds < NR_ROUNDS || ksm_vmstat("cow_ksm") < copied + NR_PAGES) {
		ASSERT_LT(ksm_now(), deadline);
		ASSERT_TRUE(guest_write(self, ADD, 0, NR_PAGES, 1));
		rounds++;
		/* Now and then it pauses for so long that all are merged. */
		if (rounds % (NR_ROUNDS / 4) == 0)
			ASSERT_EQ(0, ksm_wait_scans(SOON * 2));
	}
	ASSERT_EQ(0, ksm_write("run", "0"));
	EXPECT_TRUE(all_hold(self, rounds));
}

/* Its memory slot is taken away and put back in the middle of scans. */
TEST_F_TIMEOUT(kvm, slot_is_removed_while_scanned, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	for (__u32 round = 1; round <= NR_ROUNDS; round++) {
		ASSERT_TRUE(guest_write(self, ADD, 0, NR_PAGES, 1));
		ASSERT_EQ(0, set_memory(self->vm, 1, MEMORY, self->memory, 0));
		if (round % (NR_ROUNDS / 4) == 0)
			ASSERT_EQ(0, ksm_wait_scans(SOON * 2));
		ASSERT_EQ(0, set_memory(self->vm, 1, MEMORY, self->memory, NR_PAGES));
	}
	ASSERT_EQ(0, ksm_write("run", "0"));
	EXPECT_TRUE(all_hold(self, NR_ROUNDS));
}

/* -- What the guest uses, it keeps -- */

#define NR_HOT		16
#define NR_SLACK	4
#define NR_TRIES	8

/* Of the guest's memory, in pages: what looks used to the host. */
static long nr_referenced(FIXTURE_DATA(kvm) * self)
{
	char value[64];

	if (!ksm_smaps(self->memory, "Referenced:", value, sizeof(value)))
		return -1;
	return strtol(value, NULL, 10) * 1024 / psize();
}

/*
 * ksmd takes the bits that tell which pages the guest uses, and gives them back: for
 * those pages and not for the others of their block, whether it looks at them or not. Now
 * and then a page or two are used by somebody else.
 */
static void referenced_as_used(struct __test_metadata *_metadata, FIXTURE_DATA(kvm) * self,
			       const char *smart_scan, int passes)
{
	bool exact = false;

	for (int i = 0; i < NR_PAGES; i++)
		ASSERT_TRUE(guest_write(self, STORE, i, 1, 1000 + i));
	ASSERT_EQ(0, ksm_write("smart_scan", smart_scan));
	ASSERT_EQ(0, ksm_scan(passes));
	for (int i = 0; i < NR_TRIES && !exact; i++) {
		ASSERT_TRUE(guest_write(self, ADD, 8, NR_HOT, 1));
		ASSERT_EQ(0, ksm_scan(1));
		ASSERT_EQ(0, ksm_spew("/proc/self/clear_refs", "1"));
		ASSERT_TRUE(guest_write(self, ADD, 8, NR_HOT, 1));
		ASSERT_EQ(0, ksm_scan(1));
		TH_LOG("%ld of %d pages", nr_referenced(self), NR_HOT);
		ASSERT_GE(nr_referenced(self), NR_HOT);
		exact = nr_referenced(self) <= NR_HOT + NR_SLACK;
	}
	EXPECT_TRUE(exact);
}

TEST_F_TIMEOUT(kvm, used_pages_are_referenced, KSM_TIMEOUT)
{
	referenced_as_used(_metadata, self, "0", SOON);
}

TEST_F_TIMEOUT(kvm, used_pages_that_are_skipped_are_referenced, KSM_TIMEOUT)
{
	referenced_as_used(_metadata, self, "1", 3 * KSM_SKIPS_MAX);
}

/* -- What is reclaimed from it -- */

#define NR_RECLAIMS	24
#define RECLAIM_PAGES	(NR_FAR_HOT / 16)

static long nr_refaults(void)
{
	const char *field = "workingset_refault_anon ";
	char stat[8192], *at;

	if (ksm_slurp(KSM_CGROUP "/memory.stat", stat, sizeof(stat)) <= 0)
		return -1;
	at = strstr(stat, field);
	return at ? strtol(at + strlen(field), NULL, 10) : -1;
}

/*
 * The guest uses some of its memory again and again, and the host is short of memory.
 * Return: how many pages it took from the guest too early; negative after a failure.
 */
static long reclaim_from_guest(FIXTURE_DATA(kvm) * self, bool ksm)
{
	char *memory = ksm_map(NR_FAR), how[64];
	long before = nr_refaults();

	snprintf(how, sizeof(how), "%ld swappiness=200", RECLAIM_PAGES * psize());
	if (memory == MAP_FAILED || set_memory(self->vm, 2, FAR, memory, NR_FAR))
		return -1;
	for (int i = 0; i < NR_FAR; i++)
		ksm_fill(ksm_page(memory, i), 1000 + i);
	if (ksm_madvise(memory, NR_FAR, MADV_MERGEABLE) ||
	    !guest_write_far(self, 0, NR_FAR))
		return -2;
	for (int i = 0; i < NR_RECLAIMS; i++) {
		if (!guest_write_far(self, 0, NR_FAR_HOT))
			return -3;
		if (ksm && ksm_scan(1))
			return -4;
		ksm_spew(KSM_CGROUP "/memory.reclaim", how);
	}
	if (!guest_write_far(self, 0, NR_FAR_HOT) ||
	    set_memory(self->vm, 2, FAR, memory, 0) || munmap(memory, NR_FAR * psize()))
		return -5;
	return nr_refaults() - before;
}

/*
 * Pages that a guest uses stay with it, with ksmd looking at them as without. Before
 * reclaim has come round to all pages once it cannot tell, and takes some of each.
 */
TEST_F_TIMEOUT(kvm, used_pages_are_not_reclaimed, KSM_TIMEOUT)
{
	const char *why_not = ksm_reclaim_begin(&self->reclaim);
	long without, with;

	if (why_not)
		SKIP(return, "%s", why_not);
	without = reclaim_from_guest(self, false);
	with = reclaim_from_guest(self, true);
	TH_LOG("%ld refaults without ksmd, %ld with it", without, with);
	ASSERT_LE(0, without);
	ASSERT_LE(0, with);
	EXPECT_LE(with, without + NR_FAR_HOT / 2);
}

/* -- Who else takes the pages away from the guest -- */

struct disturber {
	pthread_t thread;
	char *memory;
	bool end;
	int err;
};

/* Unmerges, offers again, and pages out, until it is told to stop. */
static void *disturb(void *arg)
{
	struct disturber *d = arg;

	while (!__atomic_load_n(&d->end, __ATOMIC_ACQUIRE) && !d->err) {
		d->err = ksm_madvise(d->memory, NR_PAGES, MADV_UNMERGEABLE) ?:
			 ksm_madvise(d->memory, NR_PAGES, MADV_MERGEABLE) ?:
			 ksm_madvise(d->memory, NR_PAGES, MADV_PAGEOUT);
		usleep(1000);
	}
	return NULL;
}

TEST_F_TIMEOUT(kvm, guest_writes_while_all_is_undone, KSM_TIMEOUT)
{
	struct disturber d = { .memory = self->memory };
	const int nr_rounds = 10 * NR_ROUNDS;	/* there are no pauses */

	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	ASSERT_EQ(0, ksm_write("run", "1"));
	ASSERT_EQ(0, pthread_create(&d.thread, NULL, disturb, &d));
	for (int round = 0; round < nr_rounds; round++)
		ASSERT_TRUE(guest_write(self, ADD, 0, NR_PAGES, 1));
	__atomic_store_n(&d.end, true, __ATOMIC_RELEASE);
	pthread_join(d.thread, NULL);
	EXPECT_EQ(0, d.err);
	ASSERT_EQ(0, ksm_write("run", "0"));
	EXPECT_TRUE(all_hold(self, nr_rounds));
}

#else
TEST(guest)
{
	SKIP(return, "its code is for x86-64");
}
#endif

TEST_HARNESS_MAIN
