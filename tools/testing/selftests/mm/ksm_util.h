/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the KSM selftests have in common: the knobs, patterned pages, counters.
 *
 * KSM has one state for the whole machine, and a test can end in more ways than
 * by returning. So three things put the knobs back: each fixture resets them to
 * a known state before a test and restores them after it, and a destructor of
 * the harness process restores them even when a test was killed for hanging.
 *
 * Waiting is by progress (full_scans), never by time: a machine may be slow.
 * KSM_HANG_SECS only bounds a test of a ksmd that has stopped for good.
 *
 * The machine-wide counters can be asserted exactly only while nobody else has
 * mergeable memory; ksm_setup() looks for that.
 */
#ifndef _SELFTESTS_MM_KSM_UTIL_H
#define _SELFTESTS_MM_KSM_UTIL_H

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/types.h>

#include "kselftest_harness.h"
#include "vm_util.h"

#define KSM_SYSFS	"/sys/kernel/mm/ksm/"
#define KSM_HANG_SECS	240
/* A harness time-out that leaves ksm_wait_scans() the time to say what hung. */
#define KSM_TIMEOUT	(KSM_HANG_SECS + 60)
#define KSM_KPF_ANON	BIT_ULL(12)
#define KSM_KPF_KSM	BIT_ULL(21)
#define KSM_KPF_THP	BIT_ULL(22)
#define KSM_KPF_ZERO	BIT_ULL(24)

/* Upper limit of what one tracked page may be charged in the profit figures. */
#define KSM_ITEM_COST_MAX	64
/* Passes that smart scanning may leave out between two looks at a page. */
#define KSM_SKIPS_MAX		8

/*
 * Every writable file, the value that tests start from, and what it was. In the
 * order of restoring: advisor_mode is last as it rewrites pages_to_scan. What the
 * kernel does not have is left out.
 */
struct ksm_knob {
	const char *name;
	const char *start;
	char saved[64];
};

static struct ksm_knob ksm_knobs[] = {
	{ .name = "max_page_sharing", .start = "256" },
	{ .name = "merge_across_nodes", .start = "1" },
	{ .name = "merge_domains", .start = "global" },
	{ .name = "fresh_frames", .start = "0" },
	{ .name = "zero_pages_only", .start = "0" },
	{ .name = "stable_node_chains_prune_millisecs", .start = "2000" },
	{ .name = "use_zero_pages", .start = "0" },
	{ .name = "smart_scan", .start = "0" },
	{ .name = "sleep_millisecs", .start = "1" },
	{ .name = "pages_to_scan", .start = "100000" },
	{ .name = "advisor_max_cpu", .start = "70" },
	{ .name = "advisor_min_pages_to_scan", .start = "500" },
	{ .name = "advisor_max_pages_to_scan", .start = "30000" },
	{ .name = "advisor_target_scan_time", .start = "200" },
	{ .name = "advisor_mode", .start = "none" },
};

#define KSM_NR_KNOBS	ARRAY_SIZE(ksm_knobs)

static char ksm_saved_run[16];

/* Reads a whole small file; the length or -errno. */
static inline int ksm_slurp(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, len - 1);
	if (n < 0)
		n = -errno;
	else
		buf[n] = '\0';
	close(fd);
	return n;
}

/* One write() of @text, as a client would do; 0 or -errno. */
static inline int ksm_spew(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;
	int err = 0;

	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	if (n < 0)
		err = -errno;
	else if ((size_t)n != strlen(text))
		err = -EIO;
	close(fd);
	return err;
}

static inline int ksm_read(const char *knob, char *buf, size_t len)
{
	char path[320];

	snprintf(path, sizeof(path), KSM_SYSFS "%s", knob);
	return ksm_slurp(path, buf, len);
}

static inline int ksm_write(const char *knob, const char *text)
{
	char path[320];

	snprintf(path, sizeof(path), KSM_SYSFS "%s", knob);
	return ksm_spew(path, text);
}

static inline int ksm_set(const char *knob, long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	return ksm_write(knob, text);
}

/* The number in a file; LONG_MIN, which no file can hold, if it has none. */
static inline long ksm_get(const char *knob)
{
	char buf[64], *end;
	long value;

	if (ksm_read(knob, buf, sizeof(buf)) <= 0)
		return LONG_MIN;
	value = strtol(buf, &end, 10);
	return end == buf ? LONG_MIN : value;
}

static inline bool ksm_has(const char *knob)
{
	char buf[64];

	return ksm_read(knob, buf, sizeof(buf)) >= 0;
}

static void __attribute__((constructor)) ksm_save(void)
{
	char buf[64], *open_bracket;

	for (size_t i = 0; i < KSM_NR_KNOBS; i++) {
		struct ksm_knob *knob = &ksm_knobs[i];

		if (ksm_read(knob->name, buf, sizeof(buf)) <= 0)
			continue;
		/* "[none] scan-time" shows what is selected. */
		open_bracket = strchr(buf, '[');
		snprintf(knob->saved, sizeof(knob->saved), "%.60s",
			 open_bracket ? open_bracket + 1 : buf);
		knob->saved[strcspn(knob->saved, "]\n")] = '\0';
	}
	if (ksm_read("run", buf, sizeof(buf)) > 0)
		snprintf(ksm_saved_run, sizeof(ksm_saved_run), "%.1s", buf);
}

/* Puts back everything but run. Nothing may be merged, as some knobs need that. */
static inline int ksm_restore_knobs(bool to_start)
{
	int err, ret;

	ret = ksm_write("run", "2");
	err = ksm_write("advisor_mode", "none");
	ret = ret ?: err;
	for (size_t i = 0; i < KSM_NR_KNOBS; i++) {
		struct ksm_knob *knob = &ksm_knobs[i];

		if (!knob->saved[0])
			continue;
		err = ksm_write(knob->name, to_start ? knob->start : knob->saved);
		ret = ret ?: err;
	}
	return ret;
}

static void __attribute__((destructor)) ksm_restore(void)
{
	if (!ksm_saved_run[0])
		return;
	ksm_restore_knobs(false);
	ksm_write("run", ksm_saved_run);
}

/* The known state that tests start from: nothing merged, nothing remembered. */
static inline int ksm_reset(void)
{
	return ksm_restore_knobs(true);
}

static inline double ksm_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Until full_scans says @target; 0 or -errno. */
static inline int ksm_await_full_scans(long target)
{
	double deadline = ksm_now() + KSM_HANG_SECS;

	while (ksm_get("full_scans") < target) {
		if (ksm_now() > deadline)
			return -ETIMEDOUT;
		usleep(1000);
	}
	return 0;
}

/* With run=1: waits until ksmd has ended @passes more passes; 0 or -errno. */
static inline int ksm_wait_scans(long passes)
{
	return ksm_await_full_scans(ksm_get("full_scans") + passes);
}

/* Lets ksmd make @passes passes and stops it, so that the counters stand still. */
static inline int ksm_scan(long passes)
{
	long target = ksm_get("full_scans") + passes;
	int err;

	err = ksm_write("run", "1");
	if (!err)
		err = ksm_await_full_scans(target);
	return err ?: ksm_write("run", "0");
}

/* Private memory of small pages, not yet populated; at @want unless that is NULL. */
static inline char *ksm_map_at(char *want, size_t nr_pages)
{
	size_t len = nr_pages * psize();
	char *addr = mmap(want, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
			  (want ? MAP_FIXED_NOREPLACE : 0), -1, 0);

	if (addr == MAP_FAILED)
		return addr;
	/* EINVAL: a kernel without huge pages, which is as good. */
	if (madvise(addr, len, MADV_NOHUGEPAGE) && errno != EINVAL) {
		munmap(addr, len);
		return MAP_FAILED;
	}
	return addr;
}

static inline char *ksm_map(size_t nr_pages)
{
	return ksm_map_at(NULL, nr_pages);
}

static inline int ksm_madvise(char *addr, size_t nr_pages, int advice)
{
	return madvise(addr, nr_pages * psize(), advice) ? -errno : 0;
}

static inline char *ksm_page(char *addr, size_t index)
{
	return addr + index * psize();
}

static inline __u64 ksm_word(__u64 seed, size_t index)
{
	__u64 x = (seed + 1) * 0x9e3779b97f4a7c15ULL + index;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ULL;
	return x ^ (x >> 32);
}

/* One page of a pattern that depends on @seed in every word. */
static inline void ksm_fill(char *page, __u64 seed)
{
	__u64 *words = (__u64 *)page;

	for (size_t i = 0; i < psize() / sizeof(*words); i++)
		words[i] = ksm_word(seed, i);
}

static inline bool ksm_holds(const char *page, __u64 seed)
{
	const __u64 *words = (const __u64 *)page;

	for (size_t i = 0; i < psize() / sizeof(*words); i++)
		if (words[i] != ksm_word(seed, i))
			return false;
	return true;
}

/* Pages of one content, or, with @step 1, each of its own. */
static inline void ksm_fill_pages(char *addr, size_t nr_pages, __u64 seed,
				  unsigned int step)
{
	for (size_t i = 0; i < nr_pages; i++)
		ksm_fill(ksm_page(addr, i), seed + i * step);
}

static inline bool ksm_pages_hold(char *addr, size_t nr_pages, __u64 seed,
				  unsigned int step)
{
	for (size_t i = 0; i < nr_pages; i++)
		if (!ksm_holds(ksm_page(addr, i), seed + i * step))
			return false;
	return true;
}

/* Mergeable pages, all of one content; MAP_FAILED if that could not be had. */
static inline char *ksm_map_dups(size_t nr_pages, __u64 seed)
{
	char *addr = ksm_map(nr_pages);

	if (addr == MAP_FAILED)
		return addr;
	ksm_fill_pages(addr, nr_pages, seed, 0);
	return ksm_madvise(addr, nr_pages, MADV_MERGEABLE) ? MAP_FAILED : addr;
}

/* A figure of /proc/PID/ksm_stat (0: our own); LONG_MIN if it is not there. */
static inline long ksm_stat_of(pid_t pid, const char *field)
{
	char path[64] = "/proc/self/ksm_stat", buf[512];
	const char *line;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/ksm_stat", pid);
	if (ksm_slurp(path, buf, sizeof(buf)) <= 0)
		return LONG_MIN;
	for (line = buf; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, field, strlen(field)) &&
		    line[strlen(field)] == ' ')
			return strtol(line + strlen(field), NULL, 10);
	}
	return LONG_MIN;
}

static inline long ksm_vmstat(const char *field)
{
	char name[128];
	long value, found = LONG_MIN;
	FILE *f = fopen("/proc/vmstat", "r");

	while (f && fscanf(f, "%127s %ld", name, &value) == 2)
		if (!strcmp(name, field))
			found = value;
	if (f)
		fclose(f);
	return found;
}

/* The page frame behind @addr of a process (0: our own); -1 if it is not present. */
static inline unsigned long ksm_pfn_of(pid_t pid, char *addr)
{
	char path[64] = "/proc/self/pagemap";
	unsigned long pfn;
	int fd;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	pfn = fd < 0 ? -1UL : pagemap_get_pfn(fd, addr);
	close(fd);
	return pfn;
}

static inline unsigned long ksm_pfn(char *addr)
{
	return ksm_pfn_of(0, addr);
}

/* Do these pages all map one page frame? */
static inline bool ksm_one_frame(char *addr, size_t nr_pages)
{
	for (size_t i = 1; i < nr_pages; i++)
		if (ksm_pfn(ksm_page(addr, i)) != ksm_pfn(addr))
			return false;
	return true;
}

/* What a file with a word for each page frame says of the one at @addr; 0 if nothing. */
static inline __u64 ksm_frame_word(const char *path, char *addr)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned long pfn = ksm_pfn(addr);
	__u64 word = 0;

	if (pfn == -1UL ||
	    pread(fd, &word, sizeof(word), pfn * sizeof(word)) != sizeof(word))
		word = 0;
	close(fd);
	return word;
}

static inline __u64 ksm_pageflags(char *addr)
{
	return ksm_frame_word("/proc/kpageflags", addr);
}

static inline size_t ksm_count_merged(char *addr, size_t nr_pages)
{
	size_t merged = 0;

	for (size_t i = 0; i < nr_pages; i++)
		merged += !!(ksm_pageflags(ksm_page(addr, i)) & KSM_KPF_KSM);
	return merged;
}

/* Fills @value with what smaps says of the VMA at @addr: "KSM:", "VmFlags:"... */
static inline bool ksm_smaps(char *addr, const char *field, char *value, size_t len)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	bool inside = false, found = false;
	char line[512];

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = (unsigned long)addr >= start &&
				 (unsigned long)addr < end;
		else if (inside && !strncmp(line, field, strlen(field)))
			found = true;
	}
	if (f)
		fclose(f);
	if (found)
		snprintf(value, len, "%.*s", (int)strcspn(line + strlen(field), "\n"),
			 line + strlen(field));
	return found;
}

static inline bool ksm_is_mergeable(char *addr)
{
	char flags[256];

	return ksm_smaps(addr, "VmFlags:", flags, sizeof(flags)) &&
	       strstr(flags, " mg");
}

static inline size_t ksm_count_swapped(char *addr, size_t nr_pages)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t swapped = 0;

	for (size_t i = 0; i < nr_pages; i++)
		swapped += pagemap_is_swapped(fd, ksm_page(addr, i));
	close(fd);
	return swapped;
}

#define KSM_ZRAM	"/dev/zram0"
#define KSM_SWAP_MIB	64

/* Makes an unused zram device ours; false if there is none. */
static inline bool ksm_zram_on(int mib)
{
	char size[16];

	snprintf(size, sizeof(size), "%dM", mib);
	return !ksm_spew("/sys/block/zram0/disksize", size);
}

static inline void ksm_zram_off(void)
{
	swapoff(KSM_ZRAM);
	ksm_spew("/sys/block/zram0/reset", "1");
}

/*
 * Swap on a device or file of KSM_SWAP_MIB, preferred to what the machine has. What
 * mkswap writes is the version, the last page, and the signature at the end of the
 * first page.
 */
static inline bool ksm_swapon(const char *path)
{
	char *page = calloc(1, psize());
	__u32 *info = (__u32 *)(page + 1024);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	info[0] = 1;
	info[1] = ((size_t)KSM_SWAP_MIB << 20) / psize() - 1;
	memcpy(page + psize() - 10, "SWAPSPACE2", 10);
	ok = fd >= 0 && write(fd, page, psize()) == (ssize_t)psize() && !fsync(fd);
	close(fd);
	free(page);
	return ok && !swapon(path, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK);
}

static inline bool ksm_have_swap(void)
{
	char buf[4096];

	return ksm_slurp("/proc/swaps", buf, sizeof(buf)) > 0 &&
	       strchr(buf, '\n') && strchr(buf, '\n')[1];
}

#ifndef PR_KSM_DOMAIN
#define PR_KSM_DOMAIN			82
# define PR_KSM_DOMAIN_GET		0
# define PR_KSM_DOMAIN_CREATE		1
# define PR_KSM_DOMAIN_SHARE_TO		2
# define PR_KSM_DOMAIN_SHARE_FROM	3
#endif

/* A command on the merge domain of a process (0: our own); 0 or -errno. */
static inline int ksm_domain(int command, pid_t pid)
{
	return prctl(PR_KSM_DOMAIN, (unsigned long)command, (unsigned long)pid, 0UL, 0UL) ?
		-errno : 0;
}

/* The domain that a process has got of its own; 0 if none, -1 if that is not known. */
static inline __u64 ksm_domain_of(pid_t pid)
{
	__u64 domain = -1ULL;

	if (prctl(PR_KSM_DOMAIN, (unsigned long)PR_KSM_DOMAIN_GET, (unsigned long)pid,
		  &domain, 0UL))
		return -1ULL;
	return domain;
}

/* Does any process but us have mergeable memory? It would spoil exact counts. */
static inline bool ksm_others(void)
{
	char path[288], buf[512];
	struct dirent *entry;
	bool found = false;
	DIR *proc = opendir("/proc");

	while (proc && !found && (entry = readdir(proc))) {
		if (!isdigit(entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/ksm_stat", entry->d_name);
		found = ksm_slurp(path, buf, sizeof(buf)) > 0 &&
			strstr(buf, "ksm_mergeable: yes");
	}
	if (proc)
		closedir(proc);
	return found;
}

/* NULL if KSM can be tested here, else why not. Resets the knobs. */
static inline const char *ksm_setup(void)
{
	if (access(KSM_SYSFS "run", F_OK))
		return "kernel without KSM";
	if (geteuid())
		return "needs root";
	if (ksm_others())
		return "another process has mergeable memory";
	return ksm_reset() ? "the knobs cannot be set" : NULL;
}

/*
 * A second process that goes step by step: the child stops in ksm_child_pause()
 * and the parent meets it there (ksm_child_wait) and lets it on (ksm_child_go).
 * A child never outlives the test: it is in its process group, and dies with it.
 */
struct ksm_child {
	pid_t pid;
	int go[2];
	int there[2];
};

/* Like fork(): true in the child, which leaves by _exit(). */
static inline bool ksm_child_fork(struct ksm_child *child)
{
	if (pipe2(child->go, O_CLOEXEC) || pipe2(child->there, O_CLOEXEC))
		ksft_exit_fail_msg("no pipe for a child\n");
	signal(SIGPIPE, SIG_IGN);
	child->pid = fork();
	if (child->pid < 0)
		ksft_exit_fail_msg("no child\n");
	if (!child->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(child->go[1]);
		close(child->there[0]);
		return true;
	}
	close(child->go[0]);
	close(child->there[1]);
	return false;
}

static inline void ksm_child_pause(struct ksm_child *child)
{
	char byte = 0;

	if (write(child->there[1], &byte, 1) != 1 ||
	    read(child->go[0], &byte, 1) != 1)
		_exit(120);
}

static inline bool ksm_child_wait(struct ksm_child *child)
{
	char byte;

	return read(child->there[0], &byte, 1) == 1;
}

static inline bool ksm_child_go(struct ksm_child *child)
{
	char byte = 0;

	return write(child->go[1], &byte, 1) == 1;
}

/* Waits for the end; the exit code, or 128 + signal. */
static inline int ksm_child_end(struct ksm_child *child)
{
	int status;

	close(child->go[1]);
	close(child->there[0]);
	if (waitpid(child->pid, &status, 0) != child->pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Waits for several; how many of them did not end well. */
static inline int ksm_children_end(struct ksm_child *children, int nr)
{
	int bad = 0;

	while (nr--)
		bad += !!ksm_child_end(&children[nr]);
	return bad;
}

/* Lets it on for the last time, then waits for its end. */
static inline int ksm_child_finish(struct ksm_child *child)
{
	ksm_child_go(child);
	return ksm_child_end(child);
}

#endif
