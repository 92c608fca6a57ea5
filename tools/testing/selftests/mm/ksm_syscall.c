// SPDX-License-Identifier: GPL-2.0
/*
 * KSM's system calls (madvise, process_madvise, prctl) and its files in /proc.
 *
 * Which memory takes the advice, which ignores it without an error, and which
 * arguments are errors; and the text that tools parse about a process.
 */
#include <sys/auxv.h>
#include <sys/uio.h>
#include "ksm_util.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE	0x08
#endif

#define EXEC_CHILD	"--print-ksm-state"

FIXTURE(call) {};

FIXTURE_SETUP(call)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(call)
{
	ksm_restore();
}

static int set_merge(unsigned long on)
{
	return prctl(PR_SET_MEMORY_MERGE, on, 0, 0, 0) ? -errno : 0;
}

static int get_merge(void)
{
	int ret = prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0);

	return ret < 0 ? -errno : ret;
}

TEST_F(call, madvise_sets_and_clears_mg)
{
	char *addr = ksm_map(4);

	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_FALSE(ksm_is_mergeable(addr));
	EXPECT_EQ(0, ksm_madvise(addr, 4, MADV_MERGEABLE));
	EXPECT_TRUE(ksm_is_mergeable(addr));
	EXPECT_EQ(0, ksm_madvise(addr, 4, MADV_MERGEABLE));
	EXPECT_EQ(0, ksm_madvise(ksm_page(addr, 1), 1, MADV_UNMERGEABLE));
	EXPECT_TRUE(ksm_is_mergeable(addr));
	EXPECT_FALSE(ksm_is_mergeable(ksm_page(addr, 1)));
	EXPECT_TRUE(ksm_is_mergeable(ksm_page(addr, 2)));
	EXPECT_EQ(0, ksm_madvise(addr, 4, MADV_UNMERGEABLE));
	EXPECT_FALSE(ksm_is_mergeable(addr));
	EXPECT_EQ(0, ksm_madvise(addr, 4, MADV_UNMERGEABLE));
}

TEST_F(call, madvise_arguments)
{
	static const int advice[] = { MADV_MERGEABLE, MADV_UNMERGEABLE };
	char *addr = ksm_map(4);

	ASSERT_NE(MAP_FAILED, addr);
	for (size_t i = 0; i < ARRAY_SIZE(advice); i++) {
		EXPECT_EQ(-1, madvise(addr + 1, psize(), advice[i]));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, madvise(addr, -1UL, advice[i]));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(0, madvise(addr, 0, advice[i]));
		/* Lengths are rounded up to whole pages. */
		EXPECT_EQ(0, madvise(addr, 1, advice[i]));
	}
	EXPECT_FALSE(ksm_is_mergeable(addr));
}

/* A gap is an error, but the mapped parts on both sides take the advice. */
TEST_F(call, madvise_over_a_gap)
{
	char *addr = ksm_map(3);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, munmap(ksm_page(addr, 1), psize()));
	EXPECT_EQ(-ENOMEM, ksm_madvise(addr, 3, MADV_MERGEABLE));
	EXPECT_TRUE(ksm_is_mergeable(addr));
	EXPECT_TRUE(ksm_is_mergeable(ksm_page(addr, 2)));
	EXPECT_EQ(-ENOMEM, ksm_madvise(addr, 3, MADV_UNMERGEABLE));
	EXPECT_FALSE(ksm_is_mergeable(addr));
	EXPECT_FALSE(ksm_is_mergeable(ksm_page(addr, 2)));
	EXPECT_EQ(-ENOMEM, ksm_madvise(ksm_page(addr, 1), 1, MADV_MERGEABLE));
}

/* Advice for a part splits the mapping, and there may be no room for another one. */
TEST_F(call, madvise_with_too_many_mappings)
{
	const char *limit = "/proc/sys/vm/max_map_count";
	char *addr = ksm_map(3), old[32];
	int advised, withdrawn;

	ASSERT_NE(MAP_FAILED, addr);
	if (ksm_slurp(limit, old, sizeof(old)) <= 0 || ksm_spew(limit, "1"))
		SKIP(return, "cannot change %s", limit);
	advised = ksm_madvise(ksm_page(addr, 1), 1, MADV_MERGEABLE);
	ASSERT_EQ(0, ksm_spew(limit, old));
	EXPECT_EQ(-EAGAIN, advised);
	EXPECT_FALSE(ksm_is_mergeable(ksm_page(addr, 1)));

	ASSERT_EQ(0, ksm_madvise(addr, 3, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_spew(limit, "1"));
	withdrawn = ksm_madvise(ksm_page(addr, 1), 1, MADV_UNMERGEABLE);
	ASSERT_EQ(0, ksm_spew(limit, old));
	EXPECT_EQ(-EAGAIN, withdrawn);
	EXPECT_TRUE(ksm_is_mergeable(ksm_page(addr, 1)));
}

/* Memory that KSM does not handle: the advice succeeds and does nothing. */
FIXTURE(ignored)
{
	char *addr;
};

FIXTURE_VARIANT(ignored)
{
	int flags;
	size_t pages;
};

FIXTURE_VARIANT_ADD(ignored, shared)
{
	.flags = MAP_SHARED | MAP_ANONYMOUS, .pages = 1,
};

FIXTURE_VARIANT_ADD(ignored, hugetlb)
{
	.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, .pages = 512,
};

FIXTURE_VARIANT_ADD(ignored, droppable)
{
	.flags = MAP_DROPPABLE | MAP_ANONYMOUS, .pages = 1,
};

FIXTURE_VARIANT_ADD(ignored, vdso) {};

FIXTURE_SETUP(ignored)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	if (variant->flags & MAP_HUGETLB)
		ksm_spew("/proc/sys/vm/nr_hugepages", "1");
	if (variant->flags)
		self->addr = mmap(NULL, variant->pages * psize(), PROT_READ | PROT_WRITE,
				  variant->flags, -1, 0);
	else
		self->addr = (char *)getauxval(AT_SYSINFO_EHDR);
	if (!self->addr || self->addr == MAP_FAILED)
		SKIP(return, "no such memory here: %s", strerror(errno));
}

FIXTURE_TEARDOWN_PARENT(ignored)
{
	ksm_restore();
	if (variant->flags & MAP_HUGETLB)
		ksm_spew("/proc/sys/vm/nr_hugepages", "0");
}

TEST_F(ignored, advice_does_nothing)
{
	size_t pages = variant->pages ?: 1;

	EXPECT_EQ(0, ksm_madvise(self->addr, pages, MADV_MERGEABLE));
	EXPECT_FALSE(ksm_is_mergeable(self->addr));
	EXPECT_EQ(0, ksm_madvise(self->addr, pages, MADV_UNMERGEABLE));
}

TEST_F(ignored, prctl_does_nothing)
{
	ASSERT_EQ(0, set_merge(1));
	EXPECT_FALSE(ksm_is_mergeable(self->addr));
	EXPECT_EQ(0, set_merge(0));
}

/* A private file mapping has anonymous pages once written to, so it is taken. */
TEST_F(call, private_file_takes_the_advice)
{
	int fd = memfd_create("ksm", 0);
	char *addr;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, 2 * psize()));
	addr = mmap(NULL, 2 * psize(), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ(0, ksm_madvise(addr, 2, MADV_MERGEABLE));
	EXPECT_TRUE(ksm_is_mergeable(addr));
}

static int advise_process(pid_t pid, char *addr, int advice)
{
	struct iovec range = { .iov_base = addr, .iov_len = psize() };
	int fd = syscall(__NR_pidfd_open, pid, 0);
	long ret;

	if (fd < 0)
		return -errno;
	ret = syscall(__NR_process_madvise, fd, &range, 1, advice, 0);
	ret = ret < 0 ? -errno : ret;
	close(fd);
	return ret;
}

TEST_F(call, process_madvise_is_for_oneself)
{
	char *addr = ksm_map(1);
	struct ksm_child child;

	ASSERT_NE(MAP_FAILED, addr);
	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		_exit(ksm_is_mergeable(addr));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	EXPECT_EQ(-EINVAL, advise_process(child.pid, addr, MADV_MERGEABLE));
	EXPECT_EQ(-EINVAL, advise_process(child.pid, addr, MADV_UNMERGEABLE));
	EXPECT_EQ(0, ksm_child_finish(&child));

	EXPECT_EQ((int)psize(), advise_process(getpid(), addr, MADV_MERGEABLE));
	EXPECT_TRUE(ksm_is_mergeable(addr));
	EXPECT_EQ((int)psize(), advise_process(getpid(), addr, MADV_UNMERGEABLE));
	EXPECT_FALSE(ksm_is_mergeable(addr));
}

TEST_F(call, prctl_arguments)
{
	for (int arg = 3; arg <= 5; arg++) {
		EXPECT_EQ(-1, prctl(PR_SET_MEMORY_MERGE, 1UL, arg == 3 ? 1UL : 0,
				    arg == 4 ? 1UL : 0, arg == 5 ? 1UL : 0));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(0, get_merge());
	for (int arg = 2; arg <= 5; arg++) {
		EXPECT_EQ(-1, prctl(PR_GET_MEMORY_MERGE, arg == 2 ? 1UL : 0,
				    arg == 3 ? 1UL : 0, arg == 4 ? 1UL : 0,
				    arg == 5 ? 1UL : 0));
		EXPECT_EQ(EINVAL, errno);
	}
	/* Any value but 0 is on. */
	EXPECT_EQ(0, set_merge(42));
	EXPECT_EQ(1, get_merge());
	EXPECT_EQ(0, set_merge(1));
	EXPECT_EQ(1, get_merge());
	EXPECT_EQ(0, set_merge(0));
	EXPECT_EQ(0, set_merge(0));
	EXPECT_EQ(0, get_merge());
}

/* A service manager sets it after dropping what privileges it had. */
TEST_F(call, prctl_needs_no_privilege)
{
	ASSERT_EQ(0, setresuid(65534, 65534, 65534));
	EXPECT_EQ(0, set_merge(1));
	EXPECT_EQ(1, get_merge());
	EXPECT_EQ(0, set_merge(0));
}

/* Present and future memory, the heap included. */
TEST_F(call, prctl_marks_old_and_new_memory)
{
	char *old = ksm_map(1), *new, *heap;

	ASSERT_NE(MAP_FAILED, old);
	ASSERT_EQ(0, set_merge(1));
	new = ksm_map(1);
	ASSERT_NE(MAP_FAILED, new);
	heap = sbrk(psize());
	ASSERT_NE((char *)-1, heap);
	EXPECT_TRUE(ksm_is_mergeable(old));
	EXPECT_TRUE(ksm_is_mergeable(new));
	EXPECT_TRUE(ksm_is_mergeable(heap));
	ASSERT_EQ(0, set_merge(0));
	EXPECT_FALSE(ksm_is_mergeable(old));
	EXPECT_FALSE(ksm_is_mergeable(new));
	EXPECT_FALSE(ksm_is_mergeable(heap));
}

/* Turning it off takes everything along, what madvise() had marked too. */
TEST_F_TIMEOUT(call, prctl_off_unmerges_all, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(8, 1);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, set_merge(1));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(8, ksm_count_merged(addr, 8));
	ASSERT_EQ(0, set_merge(0));
	EXPECT_EQ(0, ksm_count_merged(addr, 8));
	EXPECT_FALSE(ksm_is_mergeable(addr));
	EXPECT_TRUE(ksm_pages_hold(addr, 8, 1, 0));
}

/* Where it was never on, there is nothing to turn off. */
TEST_F_TIMEOUT(call, prctl_off_alone_does_nothing, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(8, 1);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(0, set_merge(0));
	EXPECT_EQ(8, ksm_count_merged(addr, 8));
	EXPECT_TRUE(ksm_is_mergeable(addr));
}

static bool one_vma_covers(char *start, char *end)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	bool found = false;

	while (maps && fscanf(maps, "%lx-%lx%*[^\n]\n", &from, &to) == 2)
		if (from <= (unsigned long)start && to >= (unsigned long)end)
			found = true;
	if (maps)
		fclose(maps);
	return found;
}

/* prctl() must not keep neighbours, mapped before and after it, from merging. */
TEST_F(call, prctl_lets_vmas_merge)
{
	char *addr = mmap(NULL, 4 * psize(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, munmap(ksm_page(addr, 1), psize()));
	ASSERT_FALSE(one_vma_covers(addr, ksm_page(addr, 4)));
	ASSERT_EQ(0, set_merge(1));
	ASSERT_EQ(ksm_page(addr, 1),
		  mmap(ksm_page(addr, 1), psize(), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_TRUE(one_vma_covers(addr, ksm_page(addr, 4)));
	ASSERT_EQ(0, set_merge(0));
}

/* What the program prints when it is run by the next test. */
static void print_state(void)
{
	char *addr = ksm_map(1);

	printf("%d %d %ld\n", get_merge(), addr != MAP_FAILED && ksm_is_mergeable(addr),
	       ksm_stat_of(0, "ksm_merging_pages"));
}

/* The setting survives fork and exec; what was merged is counted anew. */
TEST_F_TIMEOUT(call, prctl_survives_fork_and_exec, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(8, 2), self_path[PATH_MAX] = "", state[32] = "";
	struct ksm_child child;
	FILE *out;

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, set_merge(1));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_GE(ksm_stat_of(0, "ksm_merging_pages"), 8);
	if (ksm_child_fork(&child))
		_exit(get_merge() == 1 && ksm_is_mergeable(addr) &&
		      ksm_stat_of(0, "ksm_merging_pages") == 0 ? 0 : 1);
	EXPECT_EQ(0, ksm_child_end(&child));

	ASSERT_GT(readlink("/proc/self/exe", self_path, sizeof(self_path) - 1), 0);
	strncat(self_path, " " EXEC_CHILD, sizeof(self_path) - strlen(self_path) - 1);
	out = popen(self_path, "r");
	ASSERT_NE(NULL, out);
	ASSERT_NE(NULL, fgets(state, sizeof(state), out));
	EXPECT_STREQ("1 1 0\n", state);
	EXPECT_EQ(0, pclose(out));
	ASSERT_EQ(0, set_merge(0));
}

#define KSM_STAT_FORMAT				\
	"ksm_rmap_items %ld\n"			\
	"ksm_zero_pages %ld\n"			\
	"ksm_merging_pages %ld\n"		\
	"ksm_process_profit %ld\n"		\
	"ksm_merge_any: %3s\n"			\
	"ksm_mergeable: %3s\n%n"

/* Programs read this text by position: the order and the two colons matter. */
TEST_F_TIMEOUT(call, ksm_stat_format, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(8, 3), buf[512], any[8], able[8], path[64];
	long items, zero, merging, profit;
	int fields, end = 0;

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_GT(ksm_slurp("/proc/self/ksm_stat", buf, sizeof(buf)), 0);
	fields = sscanf(buf, KSM_STAT_FORMAT, &items, &zero, &merging, &profit, any,
			able, &end);
	ASSERT_EQ(6, fields);
	EXPECT_EQ((int)strlen(buf), end);
	EXPECT_EQ(8, merging);
	EXPECT_EQ(0, zero);
	EXPECT_GE(items, merging);
	EXPECT_STREQ("no", any);
	EXPECT_STREQ("yes", able);
	/* A reader with a buffer of 199 bytes must find this one. */
	EXPECT_LT(strstr(buf, "ksm_zero_pages") - buf, 180);

	ASSERT_GT(ksm_slurp("/proc/self/ksm_merging_pages", buf, sizeof(buf)), 0);
	EXPECT_STREQ("8\n", buf);
	snprintf(path, sizeof(path), "/proc/self/task/%d/ksm_merging_pages", getpid());
	ASSERT_GT(ksm_slurp(path, buf, sizeof(buf)), 0);
	EXPECT_STREQ("8\n", buf);
}

TEST_F(call, ksm_stat_flags)
{
	char *addr = ksm_map(1), buf[512];

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_GT(ksm_slurp("/proc/self/ksm_stat", buf, sizeof(buf)), 0);
	EXPECT_NE(NULL, strstr(buf, "ksm_merge_any: no\nksm_mergeable: no\n"));
	ASSERT_EQ(0, set_merge(1));
	ASSERT_GT(ksm_slurp("/proc/self/ksm_stat", buf, sizeof(buf)), 0);
	EXPECT_NE(NULL, strstr(buf, "ksm_merge_any: yes\nksm_mergeable: yes\n"));
	ASSERT_EQ(0, set_merge(0));
	ASSERT_GT(ksm_slurp("/proc/self/ksm_stat", buf, sizeof(buf)), 0);
	EXPECT_NE(NULL, strstr(buf, "ksm_merge_any: no\nksm_mergeable: no\n"));
}

/* smaps counts KSM pages, right after the anonymous ones, and flags the VMA. */
TEST_F_TIMEOUT(call, smaps_and_kpageflags, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(8, 4), value[64], rollup[4096];
	char *line, *end;
	long kb;

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_TRUE(ksm_smaps(addr, "KSM:", value, sizeof(value)));
	kb = strtol(value, &end, 10);
	EXPECT_STREQ(" kB", end);
	EXPECT_EQ(8 * psize() / 1024, kb);
	EXPECT_TRUE(ksm_is_mergeable(addr));

	ASSERT_GT(ksm_slurp("/proc/self/smaps_rollup", rollup, sizeof(rollup)), 0);
	line = strstr(rollup, "\nAnonymous:");
	ASSERT_NE(NULL, line);
	line = strchr(line + 1, '\n');
	ASSERT_EQ(0, strncmp(line, "\nKSM: ", 6));
	EXPECT_EQ(8 * psize() / 1024, strtol(line + 6, &end, 10));
	EXPECT_EQ(0, strncmp(end, " kB\n", 4));

	EXPECT_EQ(KSM_KPF_KSM | KSM_KPF_ANON,
		  ksm_pageflags(addr) & (KSM_KPF_KSM | KSM_KPF_ANON));
}

/* Clock ticks that ksmd has used, fields 14 and 15 of its stat. */
static long ksmd_ticks(void)
{
	char path[288], text[512];
	unsigned long utime, stime;
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	long ticks = -1;

	while (proc && ticks < 0 && (entry = readdir(proc))) {
		snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		if (ksm_slurp(path, text, sizeof(text)) <= 0 ||
		    !strstr(text, " (ksmd) "))
			continue;
		if (sscanf(strchr(text, ')') + 2,
			   "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
			   &utime, &stime) == 2)
			ticks = utime + stime;
	}
	if (proc)
		closedir(proc);
	return ticks;
}

/* Managers throttle KSM by the CPU time that they see it use. */
TEST_F_TIMEOUT(call, ksmd_cpu_time_shows, KSM_TIMEOUT)
{
	double deadline = ksm_now() + KSM_HANG_SECS;
	char *addr = ksm_map(2048);
	long before = ksmd_ticks();

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_GE(before, 0);
	ASSERT_EQ(0, ksm_madvise(addr, 2048, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_write("sleep_millisecs", "0"));
	for (int round = 0; ksmd_ticks() < before + 2; round++) {
		ASSERT_LT(ksm_now(), deadline);
		ksm_fill_pages(addr, 2048, round, 1);
		ASSERT_EQ(0, ksm_scan(2));
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], EXEC_CHILD)) {
		print_state();
		ksm_saved_run[0] = '\0';	/* nothing of ours to put back */
		return 0;
	}
	return test_harness_run(argc, argv);
}
