// SPDX-License-Identifier: GPL-2.0
/*
 * Memory for KSM to work on, and what ksmd spends on it: the workloads of lab/bench.
 *
 * usage: load WORKLOAD [NAME=VALUE]...
 *
 * Measures one thing in a kernel that was just booted and prints it as one line of
 * JSON. The workloads are the functions below that are called load_*(); each says
 * what it does and which NAMEs it knows. It is all one static program so that both
 * kernels, in both kinds of VM, run exactly the same. It can be a kernel's first
 * process as well: then it mounts what it needs, and switches the machine off.
 *
 * How ksmd's CPU time is taken: from /proc/PID/schedstat of all threads that are
 * called ksmd*. That figure is brought up to date when a thread leaves its CPU. The
 * VMs here have one, so whoever reads it has just taken the CPU from ksmd, and the
 * figure is right. User Mode Linux's scheduler counts in jiffies of 10 ms; hence
 * what is measured there should take a second or more.
 *
 * A figure is worthless if KSM has not done the work. So each workload knows what it
 * should find merged, and dies if it does not.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define PAGE 4096ul
#define WORDS (PAGE / sizeof(long))
#define MIB (PAGE * 256)
#define MSEC 1000000l
#define SEC 1000000000l

#define UNLIMITED 1000000000l	/* pages_to_scan: a wake-up is a pass */
#define POLL (3 * MSEC)
#define PASS_LIMIT (600 * SEC)	/* a pass that takes longer is none */
#define SETTLE_LIMIT 100	/* passes */

static char **params;
static bool is_init;

/* ---- small things ---- */

static const char *separator = "{";

/* Report a figure. All of them together are one line of JSON. */
static void put(const char *name, double value)
{
	printf("%s\"%s\": %.10g", separator, name, value);
	separator = ", ";
}

static noreturn void leave(int status)
{
	fflush(stdout);
	if (is_init) {
		tcdrain(STDOUT_FILENO);
		reboot(RB_POWER_OFF);
	}
	_exit(status);
}

static noreturn void die(const char *fmt, ...)
{
	va_list args;

	printf("\n{\"error\": \"");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\"}\n");
	leave(1);
}

static const char *param_text(const char *name, const char *otherwise)
{
	size_t len = strlen(name);
	char **p;

	for (p = params; *p; p++)
		if (!strncmp(*p, name, len) && (*p)[len] == '=')
			return *p + len + 1;
	return otherwise;
}

static long param(const char *name, long otherwise)
{
	const char *text = param_text(name, NULL);

	return text ? atol(text) : otherwise;
}

static long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * SEC + ts.tv_nsec;
}

static void sleep_ns(long ns)
{
	struct timespec ts = { ns / SEC, ns % SEC };

	nanosleep(&ts, NULL);
}

/* Return: the length, or -1 if there is no such file. */
static int slurp(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY);
	int len;

	if (fd < 0)
		return -1;
	len = read(fd, text, size - 1);
	close(fd);
	text[len < 0 ? 0 : len] = 0;
	return len;
}

/* Return: the number after @name in a file of lines "name number". */
static long field(const char *path, const char *name)
{
	static char text[1 << 16];
	char *at;

	if (slurp(path, text, sizeof(text)) < 0)
		die("cannot read %s", path);
	for (at = text; (at = strstr(at, name)); at++)
		if (at == text || at[-1] == '\n')
			return atol(at + strlen(name) + strspn(at + strlen(name), ": \t"));
	die("%s has no %s", path, name);
}

/* ---- ksmd and its files ---- */

static long knob(const char *name)
{
	char path[128], text[64];

	snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", name);
	if (slurp(path, text, sizeof(text)) <= 0)
		die("cannot read %s", path);
	return atol(text);
}

static void set_knob_text(const char *name, const char *text)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", name);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die("%s did not take %s: %s", name, text, strerror(errno));
	close(fd);
}

static void set_knob(const char *name, long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	set_knob_text(name, text);
}

#define MAX_DAEMONS 64
static int daemons[MAX_DAEMONS];
static int nr_daemons;

/* There is one ksmd, or, in a KSM to come, several. */
static void find_daemons(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	nr_daemons = 0;
	while (proc && (entry = readdir(proc))) {
		char path[300], comm[32];

		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		if (atoi(entry->d_name) && nr_daemons < MAX_DAEMONS &&
		    slurp(path, comm, sizeof(comm)) > 0 && !strncmp(comm, "ksmd", 4))
			daemons[nr_daemons++] = atoi(entry->d_name);
	}
	if (proc)
		closedir(proc);
	if (!nr_daemons)
		die("this kernel has no ksmd");
}

static long ksmd_ns(void)
{
	long sum = 0;
	int i;

	for (i = 0; i < nr_daemons; i++) {
		char path[64], text[128];

		snprintf(path, sizeof(path), "/proc/%d/schedstat", daemons[i]);
		if (slurp(path, text, sizeof(text)) > 0)
			sum += atol(text);
	}
	return sum;
}

static long saved_pages(void)
{
	return knob("pages_sharing") + knob("ksm_zero_pages");
}

/* Pages of which KSM knows anything. */
static long known_pages(void)
{
	return knob("pages_shared") + saved_pages() + knob("pages_unshared") +
	       knob("pages_volatile");
}

/*
 * general_profit is what was saved less what remembering pages takes, as the engine
 * counts it: rmap items in the base's, chunks with their slots and rmap items in
 * ours. Neither counts the nodes of shared pages.
 */
static long metadata_bytes(void)
{
	return saved_pages() * (long)PAGE - knob("general_profit");
}

/*
 * How ksmd runs: either without a pause; or a pass, when next_pass() asks for it, and
 * then it sleeps, which a change of sleep_millisecs ends at once.
 */
enum pace { NONSTOP = 0, STEPWISE = 600000 };

static void set_mode(void)
{
	/* The base knows one mode only; what ours cost is told against that one. */
	if (access("/sys/kernel/mm/ksm/merge_domains", F_OK))
		return;
	set_knob_text("merge_domains", param_text("domains", "global"));
	set_knob("fresh_frames", param("fresh", 0));
	set_knob("zero_pages_only", param("zero_only", 0));
}

static void start(enum pace pace)
{
	set_mode();
	set_knob("pages_to_scan", UNLIMITED);
	set_knob("smart_scan", param("smart", 0));
	set_knob("use_zero_pages", param("zero", 0));
	set_knob("sleep_millisecs", pace);
	if (pace == NONSTOP)
		set_knob("run", 1);
}

static void stop(void)
{
	set_knob("run", 0);
}

/* Wait until @nr more passes have ended, and call @look every now and then. */
static void wait_passes(long nr, void (*look)(void))
{
	long target = knob("full_scans") + nr, begin = now_ns();

	while (knob("full_scans") < target) {
		if (look)
			look();
		sleep_ns(POLL);
		if (now_ns() - begin > PASS_LIMIT * nr)
			die("a pass does not end");
	}
	find_daemons();
}

/*
 * One pass and no more. A wake-up ends with the pass at the latest; if it should
 * end earlier, and ksmd sleeps, it is woken again.
 */
static long next_pass(void)
{
	long before = ksmd_ns(), seen = before, begin = now_ns(), asleep = 0;
	long target = knob("full_scans") + 1;
	long ms = knob("sleep_millisecs") ^ 1;

	set_knob("sleep_millisecs", ms);
	set_knob("run", 1);
	while (knob("full_scans") < target) {
		sleep_ns(POLL);
		asleep = ksmd_ns() == seen ? asleep + 1 : 0;
		seen = ksmd_ns();
		if (asleep > 50) {
			set_knob("sleep_millisecs", ms ^= 1);
			asleep = 0;
		}
		if (now_ns() - begin > PASS_LIMIT)
			die("a pass does not end");
	}
	/* The tick that is under way is counted only when it is over. */
	sleep_ns(20 * MSEC);
	return ksmd_ns() - before;
}

static bool differ(long a, long b, long pages)
{
	return labs(a - b) > pages / 2000 + 1;
}

/*
 * Let passes go by until nothing changes any more: what is merged, and without smart
 * scan, which passes over other pages each time, what waits as well.
 */
static void settle(long least, long pages)
{
	long saved, waiting, last_saved = -1, last_waiting = -1;
	int pass, still = 0;

	for (pass = 0; pass < least || still < 2; pass++) {
		if (pass >= SETTLE_LIMIT)
			die("after %d passes pages_sharing is still moving: %ld, then %ld",
			    pass, last_saved, saved_pages());
		wait_passes(1, NULL);
		saved = saved_pages();
		waiting = knob("smart_scan") ? 0 : knob("pages_unshared");
		still = differ(saved, last_saved, pages) ||
			differ(waiting, last_waiting, pages) ? 0 : still + 1;
		last_saved = saved;
		last_waiting = waiting;
	}
}

static void expect(const char *what, long have, long least)
{
	if (have < least - least / 50)
		die("%s is %ld, and should be %ld: this kernel does not do the work", what,
		    have, least);
}

/* ---- memory ---- */

/*
 * What is in the page: a number tells pages apart, and @owner processes.
 */
enum content {
	MIX,		/* a quarter zero, a quarter also elsewhere, half unique */
	UNIQUE,
	TAIL,		/* unique in its last 8 bytes only */
	COMMON,		/* once in each process */
	TWICE,		/* twice in this process */
	HALF_ZERO,	/* COMMON with the first half of TWICE, and zero, in turn */
	CHURN,		/* three of five are unique and rewritten all the time; else MIX */
};

static const char * const content_names[] = {
	"mix", "unique", "tail", "common", "twice", "half-zero", "churn",
};

static enum content content_of(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(content_names) / sizeof(*content_names); i++)
		if (!strcmp(name, content_names[i]))
			return i;
	die("there is no content called %s", name);
}

static unsigned long xorshift(unsigned long *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void fill_random(unsigned long *page, unsigned long number, unsigned long owner)
{
	unsigned long state = (number + 1) * 0x9e3779b97f4a7c15 ^ (owner << 56);
	size_t i;

	xorshift(&state);
	for (i = 0; i < WORDS; i++)
		page[i] = xorshift(&state);
}

static void fill_page(unsigned long *page, enum content content, unsigned long i,
		      unsigned long owner)
{
	switch (content) {
	case CHURN:
		if (i % 5 >= 2)
			return fill_random(page, i, owner);
		/* The others one by one, so that each kind has its share. */
		return fill_page(page, MIX, i / 5 * 2 + i % 5, owner);
	case MIX:
		if (i % 4 == 0)
			memset(page, 0, PAGE);
		else
			fill_random(page, i, i % 4 == 1 ? 0 : owner);
		return;
	case UNIQUE:
		return fill_random(page, i, owner);
	case TAIL:
		memset(page, 0x5a, PAGE);
		page[WORDS - 1] = owner << 56 | i;
		return;
	case COMMON:
		return fill_random(page, i, 0);
	case TWICE:
		return fill_random(page, i / 2, 0);
	case HALF_ZERO:
		if (i % 2)
			memset(page, 0, PAGE);
		else
			fill_random(page, i / 2, 0);
	}
}

static unsigned long *map(size_t bytes)
{
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	if (madvise(mem, bytes, MADV_MERGEABLE))
		die("madvise: %s", strerror(errno));
	return mem;
}

static unsigned long *map_filled(enum content content, long pages, int owner)
{
	unsigned long *mem = map(pages * PAGE);
	long i;

	for (i = 0; i < pages; i++)
		fill_page(mem + i * WORDS, content, i, owner);
	return mem;
}

/* Another value for a word of every page; of CHURN, of those that are to change. */
static void rewrite(unsigned long *mem, enum content content, long pages)
{
	long i;

	for (i = 0; i < pages; i++)
		if (content != CHURN || i % 5 >= 2)
			mem[i * WORDS + i % WORDS]++;
}

/* ---- processes that hold memory ---- */

#define MAX_HOLDERS 16
static struct holder {
	pid_t pid;
	int ask, answer;
} holders[MAX_HOLDERS];
static int nr_holders;

static void hold(struct holder *me, enum content what, long pages, int owner)
{
	unsigned long *mem = map_filled(what, pages, owner);
	char order = 0;

	do {
		if (order)
			rewrite(mem, what, pages);
		if (write(me->answer, &order, 1) != 1)
			_exit(1);
	} while (read(me->ask, &order, 1) == 1);
	_exit(0);
}

static void await(struct holder *holder)
{
	char order;

	if (read(holder->answer, &order, 1) != 1)
		die("a process that held memory has died");
}

/* Start a process with memory, and wait until it is filled. */
static void add_holder(enum content content, long pages)
{
	struct holder *holder = &holders[nr_holders++];
	int ask[2], answer[2];

	if (nr_holders > MAX_HOLDERS || pipe(ask) || pipe(answer))
		die("no more processes");
	holder->pid = fork();
	if (!holder->pid) {
		struct holder me = { .ask = ask[0], .answer = answer[1] };

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ask[1]);
		close(answer[0]);
		hold(&me, content, pages, nr_holders);
	}
	close(ask[0]);
	close(answer[1]);
	holder->ask = ask[1];
	holder->answer = answer[0];
	await(holder);
}

/*
 * They are a few seconds old when ksmd starts, as most processes are that it meets: what
 * it does with those that have only just started is another matter.
 */
static void add_holders(int nr, enum content content, long pages)
{
	int i;

	for (i = 0; i < nr; i++)
		add_holder(content, pages / nr);
	sleep_ns(6 * SEC);
}

/* Return: how long that took them, in ns. */
static long rewrite_all(void)
{
	long begin = now_ns();
	int i;

	for (i = 0; i < nr_holders; i++) {
		if (write(holders[i].ask, "w", 1) != 1)
			die("a process that held memory has died");
		await(&holders[i]);
	}
	return now_ns() - begin;
}

/*
 * What will be saved in the end. A page for each max_page_sharing equal ones stays,
 * and zero pages are such, too, unless they become the kernel's own.
 */
static long expected_saved(enum content content, int nr, long pages)
{
	long each = pages / nr;
	long zero = 0, common = 0;

	switch (content) {
	case MIX:
		zero = pages / 4;
		common = each / 4;
		break;
	case CHURN:
		zero = pages / 10;
		common = each / 10;
		break;
	case COMMON:
		common = each;
		break;
	default:
		break;
	}
	if (!knob("use_zero_pages"))
		zero -= zero / knob("max_page_sharing");
	return zero + common * (nr - 1);
}

/* ---- workloads: what idle memory costs ---- */

/* Two seconds of passes, and so many at the least: their number, start and ksmd's CPU. */
static long watch_passes(long least, long *passes, long *begin)
{
	long before, cpu;

	wait_passes(1, NULL);
	*begin = now_ns();
	before = knob("full_scans");
	cpu = ksmd_ns();
	do {
		wait_passes(1, NULL);
	} while (now_ns() - *begin < 2 * SEC || knob("full_scans") < before + least);
	cpu = ksmd_ns() - cpu;
	*passes = knob("full_scans") - before;
	return cpu;
}

/*
 * ksmd's CPU per page and pass when there is nothing left to do.
 * content=mix|unique|tail mib= procs=2 smart=0
 */
static void load_settled(void)
{
	enum content content = content_of(param_text("content", "mix"));
	long pages = param("mib", 64) * MIB / PAGE, procs = param("procs", 2);
	bool smart = param("smart", 0);
	long least = smart ? 20 : 2, passes, cpu, begin;

	add_holders(procs, content, pages);
	start(NONSTOP);
	settle(smart ? 20 : 4, pages);
	expect("what is saved", saved_pages(), expected_saved(content, procs, pages));
	expect("what is known", known_pages(), pages);

	cpu = watch_passes(least, &passes, &begin);
	put("ns_per_page", (double)cpu / pages / passes);
	put("wall_ms_per_pass", (now_ns() - begin) / 1e6 / passes);
	put("passes", passes);
	put("metadata_per_page", (double)metadata_bytes() / pages);
	put("saved", saved_pages());
}

/* ---- workloads: until all is merged ---- */

#define MAX_SAMPLES 200000
static struct sample {
	long cpu, saved;
} samples[MAX_SAMPLES];
static int nr_samples;

static void take_sample(void)
{
	if (nr_samples < MAX_SAMPLES)
		samples[nr_samples++] = (struct sample){ ksmd_ns(), saved_pages() };
}

/* Sample until no more is merged. Return: ksmd's CPU until 99 % of that. */
static long watch_merging(long before, long pages, long *final)
{
	int still = 0, pass, i;
	long cpu = ksmd_ns(), last = -1;

	nr_samples = 0;
	set_knob("sleep_millisecs", NONSTOP);
	set_knob("run", 1);
	for (pass = 0; pass < 4 || still < 2; pass++) {
		if (pass >= SETTLE_LIMIT)
			die("after %d passes there is still more merged", pass);
		wait_passes(1, take_sample);
		take_sample();
		still = differ(saved_pages(), last, pages) ? 0 : still + 1;
		last = saved_pages();
	}
	*final = last - before;
	for (i = 0; i < nr_samples; i++) {
		samples[i].cpu -= cpu;
		samples[i].saved -= before;
	}
	for (i = 0; i < nr_samples; i++)
		if (samples[i].saved >= *final * 0.99)
			return samples[i].cpu;
	die("what was merged went away again");
}

/* The curve, in at most 500 points. */
static void print_samples(void)
{
	int i, step = nr_samples / 500 + 1;

	printf(", \"curve\": [");
	for (i = 0; i < nr_samples; i += step)
		printf("%s[%.2f, %ld]", i ? ", " : "", samples[i].cpu / 1e6,
		       samples[i].saved);
	printf("]");
}

/*
 * ksmd's CPU from the start until 99 % of what will be merged is merged.
 * mib= procs=2 zero=0|1
 */
static void load_merge(void)
{
	long pages = param("mib", 64) * MIB / PAGE, procs = param("procs", 2);
	long cpu, final;

	add_holders(procs, MIX, pages);
	start(STEPWISE);
	cpu = watch_merging(0, pages, &final);
	expect("what is saved", final, expected_saved(MIX, procs, pages));
	put("ns_per_page", (double)cpu / pages);
	put("saved", final);
	print_samples();
}

/*
 * ksmd's CPU per page when zero pages are what is wanted: until all are merged, and for
 * a pass after that. Content is a mix; unless it is zero pages only, the rest is merged as
 * well.
 * mib= procs=2 zero_only=0|1
 */
static void load_zeroes(void)
{
	long pages = param("mib", 64) * MIB / PAGE, procs = param("procs", 2);
	long cpu = 0, passes = 0, begin;

	add_holders(procs, MIX, pages);
	start(STEPWISE);
	do {
		cpu += next_pass();
	} while (knob("ksm_zero_pages") < pages / 4 && ++passes < SETTLE_LIMIT);
	expect("what is zero", knob("ksm_zero_pages"), pages / 4);
	put("until_merged_ns_per_page", (double)cpu / pages);

	for (passes = 0; passes < 4; passes++)
		next_pass();
	set_knob("sleep_millisecs", NONSTOP);
	cpu = watch_passes(0, &passes, &begin);
	put("pass_ns_per_page", (double)cpu / pages / passes);
	put("passes", passes);
}

/*
 * Duplicates come up beside memory that was settled long ago: ksmd's CPU until
 * 99 % of them are merged, per new page.
 * mib= of new pages, beside=MiB of old ones
 */
static void load_newcomers(void)
{
	long pages = param("mib", 64) * MIB / PAGE;
	long old = param("beside", 512) * MIB / PAGE;
	long cpu, final, begin, passes;

	add_holders(2, UNIQUE, old);
	start(NONSTOP);
	settle(4, old);
	set_knob("sleep_millisecs", STEPWISE);
	next_pass();
	add_holders(2, COMMON, pages);
	passes = knob("full_scans");
	begin = now_ns();
	cpu = watch_merging(0, pages, &final);
	expect("what is saved", final, pages / 2);
	put("ns_per_new_page", (double)cpu / pages);
	put("ms", (now_ns() - begin) / 1e6);
	put("passes", knob("full_scans") - passes);
}

/*
 * ksmd's CPU for the first two passes over unique pages. With little memory they are
 * too short to be timed; run=2 makes KSM forget all that it knows, and then the next
 * one is a first pass again.
 * mib= procs=2 times=1
 */
static void load_first(void)
{
	long pages = param("mib", 64) * MIB / PAGE, times = param("times", 1);
	long first = 0, second = 0;
	int i;

	add_holders(param("procs", 2), UNIQUE, pages);
	start(STEPWISE);
	for (i = 0; i < times; i++) {
		first += next_pass();
		expect("what is known", known_pages(), pages);
		second += next_pass();
		set_knob("run", 2);
		if (known_pages())
			die("run=2 has left %ld pages", known_pages());
	}
	put("first_ns_per_page", (double)first / pages / times);
	put("second_ns_per_page", (double)second / pages / times);
}

/*
 * What a newcomer shares after its first pass, of what it will share in the end: one
 * half of it is contents that another process has merged already, the other is zero.
 * mib= of the newcomer
 */
static void load_sight(void)
{
	long pages = param("mib", 64) * MIB / PAGE;
	long sharing, zero, first_sharing, first_zero, cpu;

	add_holder(TWICE, pages);
	start(NONSTOP);
	set_knob("use_zero_pages", 1);
	settle(4, pages);
	expect("what is saved", saved_pages(), pages / 2);
	set_knob("sleep_millisecs", STEPWISE);
	next_pass();

	sharing = knob("pages_sharing");
	zero = knob("ksm_zero_pages");
	add_holder(HALF_ZERO, pages);
	cpu = next_pass();
	first_sharing = knob("pages_sharing") - sharing;
	first_zero = knob("ksm_zero_pages") - zero;
	set_knob("sleep_millisecs", NONSTOP);
	settle(4, pages);
	sharing = knob("pages_sharing") - sharing;
	zero = knob("ksm_zero_pages") - zero;
	expect("what the newcomer shares", sharing, pages / 2);
	expect("the newcomer's zero pages", zero, pages / 2);
	put("sharing_percent", 100.0 * first_sharing / sharing);
	put("zero_percent", 100.0 * first_zero / zero);
	put("first_pass_ns_per_page", (double)cpu / pages);
}

/* ---- workloads: memory that changes ---- */

/*
 * Pages that are rewritten between passes: ksmd's CPU per page and pass, what the
 * writers pay, and what ksmd keeps of them.
 * content=unique|churn mib= procs=2 zero=0|1
 */
static void load_volatile(void)
{
	enum content content = content_of(param_text("content", "unique"));
	long pages = param("mib", 64) * MIB / PAGE, procs = param("procs", 2);
	long untouched, cpu = 0, writing = 0;
	int pass, nr = 5;

	add_holders(procs, content, pages);
	start(STEPWISE);
	untouched = rewrite_all();
	for (pass = 0; pass < 5; pass++) {
		next_pass();
		rewrite_all();
	}
	for (pass = 0; pass < nr; pass++) {
		cpu += next_pass();
		writing += rewrite_all();
	}
	next_pass();
	expect("what is saved", saved_pages(), expected_saved(content, procs, pages));
	put("ns_per_page", (double)cpu / pages / nr);
	put("write_ns_per_page", (double)writing / pages / nr);
	put("write_ns_per_page_before", (double)untouched / pages);
	put("metadata_per_page", (double)metadata_bytes() / pages);
}

/*
 * What is kept of unique pages: as the engine counts it, and as memory that is no
 * longer free.
 * mib= procs=2
 */
static void load_metadata(void)
{
	long pages = param("mib", 64) * MIB / PAGE;
	long free_kb;

	add_holders(param("procs", 2), UNIQUE, pages);
	free_kb = field("/proc/meminfo", "MemFree");
	start(NONSTOP);
	settle(4, pages);
	expect("what is known", known_pages(), pages);
	free_kb -= field("/proc/meminfo", "MemFree");
	put("metadata_per_page", (double)metadata_bytes() / pages);
	put("memory_per_page", free_kb * 1024.0 / pages);
}

/*
 * How long it takes to undo everything.
 * mib= of pages that are all merged
 */
static void load_unmerge(void)
{
	long pages = param("mib", 64) * MIB / PAGE;
	long ns;

	add_holders(2, COMMON, pages);
	start(NONSTOP);
	settle(4, pages);
	expect("what is saved", saved_pages(), pages / 2);
	set_knob("sleep_millisecs", STEPWISE);
	next_pass();
	ns = now_ns();
	set_knob("run", 2);
	ns = now_ns() - ns;
	if (knob("pages_shared"))
		die("run=2 has left %ld pages_shared", knob("pages_shared"));
	put("ms_per_gib", ns / 1e6 * (1 << 18) / pages);
}

/*
 * A pass over an address space that is nearly empty.
 * tib=32
 */
static void load_sparse(void)
{
	size_t size = (size_t)param("tib", 32) << 40;
	unsigned long *mem = map(size);
	long passes, begin, cpu;

	mem[size / 2 / sizeof(*mem)] = 1;
	start(NONSTOP);
	wait_passes(2, NULL);
	begin = now_ns();
	passes = knob("full_scans");
	cpu = ksmd_ns();
	do {
		wait_passes(1, NULL);
	} while (now_ns() - begin < SEC);
	passes = knob("full_scans") - passes;
	cpu = ksmd_ns() - cpu;
	put("ms_per_pass", cpu / 1e6 / passes);
	put("wall_ms_per_pass", (now_ns() - begin) / 1e6 / passes);
	put("passes", passes);
}

/* ---- workloads: programs beside ksmd ---- */

/*
 * Latencies in buckets, 128 for each power of two. By the CPU's own counter: a system
 * call for the time takes longer in User Mode Linux than what is to be measured.
 */
#define BUCKETS_LOG 7
#define BUCKETS 128
#define NR_BUCKETS (64 * BUCKETS)

static struct latencies {
	long buckets[NR_BUCKETS];
	long nr;
	long ns;		/* that it took altogether */
	long scanned;		/* pages, meanwhile */
} alone, beside;

static double ns_per_tick;

static void calibrate(void)
{
	long begin = now_ns();
	unsigned long ticks = __rdtsc();

	sleep_ns(50 * MSEC);
	ticks = __rdtsc() - ticks;
	ns_per_tick = (double)(now_ns() - begin) / ticks;
}

static void count_latency(struct latencies *l, unsigned long ticks)
{
	int shift = 63 - __builtin_clzl(ticks | BUCKETS) - BUCKETS_LOG;

	l->buckets[shift * BUCKETS + (ticks >> shift)]++;
	l->nr++;
}

static double quantile(const struct latencies *l, double part)
{
	long below = 0;
	int i;

	for (i = 0; i < NR_BUCKETS - 1; i++) {
		below += l->buckets[i];
		if (below >= part * l->nr)
			break;
	}
	/* The least that falls into bucket i. */
	if (i < 2 * BUCKETS)
		return ns_per_tick * i;
	return ns_per_tick * ((i % BUCKETS + (long)BUCKETS) << (i / BUCKETS - 1));
}

static void write_one(unsigned long *mem, long pages, unsigned long *random)
{
	unsigned long *word = mem + xorshift(random) % pages * WORDS;

	word += *random >> 40 & (WORDS - 1);
	__atomic_store_n(word, __atomic_load_n(word, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
}

static void map_some(void)
{
	char *some = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int i;

	if (some == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	for (i = 0; i < 16; i++)
		some[i * PAGE] = 1;
	munmap(some, 16 * PAGE);
}

/* For half a second. */
static void work(struct latencies *l, bool mmaps, unsigned long *mem, long pages)
{
	static unsigned long random = 88172645463325252;
	long begin, scanned;

	/* What the switch itself has stirred up is to calm down. */
	sleep_ns(30 * MSEC);
	scanned = knob("pages_scanned");
	begin = now_ns();
	do {
		int i, nr = mmaps ? 20 : 5000;

		for (i = 0; i < nr; i++) {
			unsigned int aux;
			unsigned long ticks = __rdtscp(&aux);

			if (mmaps)
				map_some();
			else
				write_one(mem, pages, &random);
			count_latency(l, __rdtscp(&aux) - ticks);
		}
	} while (now_ns() - begin < SEC / 2);
	l->ns += now_ns() - begin;
	l->scanned += knob("pages_scanned") - scanned;
}

/*
 * Something that a program does again and again: how often, and how long it takes at
 * worst, alone and beside ksmd at a fixed pace, half a second each in turn. In the mm
 * that ksmd scans.
 * do=write|mmap mib= rounds=10 rate=pages_to_scan every 10 ms
 */
static void load_beside(void)
{
	bool mmaps = !strcmp(param_text("do", "write"), "mmap");
	long pages = param("mib", 64) * MIB / PAGE;
	unsigned long *mem = map_filled(UNIQUE, pages, 1);
	double each_alone, each_beside;
	int i;

	start(NONSTOP);
	settle(4, pages);
	stop();
	set_knob("pages_to_scan", param("rate", 250));
	set_knob("sleep_millisecs", 10);
	calibrate();
	for (i = 0; i < param("rounds", 10); i++) {
		work(&alone, mmaps, mem, pages);
		set_knob("run", 1);
		work(&beside, mmaps, mem, pages);
		stop();
	}
	each_alone = (double)alone.ns / alone.nr;
	each_beside = (double)beside.ns / beside.nr;
	put("kept_percent", 100 * each_alone / each_beside);
	put("per_second_alone", SEC / each_alone);
	put("per_second", SEC / each_beside);
	put("p99_ns_alone", quantile(&alone, 0.99));
	put("p99_ns", quantile(&beside, 0.99));
	put("p999_ns_alone", quantile(&alone, 0.999));
	put("p999_ns", quantile(&beside, 0.999));
	put("p9999_ns_alone", quantile(&alone, 0.9999));
	put("p9999_ns", quantile(&beside, 0.9999));
	put("scanned_per_second", beside.scanned * 1e9 / beside.ns);
}

/* ---- workloads: TLB flushes ---- */

static void run_on(pid_t pid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(pid, sizeof(set), &set))
		die("two CPUs are needed");
}

static long tlb_flushes(void)
{
	return field("/proc/vmstat", "nr_tlb_remote_flush");
}

/* A process that never leaves its CPU, so that its TLB is always to be asked. */
static pid_t spin(enum content content, long pages)
{
	int *done = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			 -1, 0);
	pid_t pid = fork();

	if (!pid) {
		unsigned long *mem;

		run_on(0, 1);
		mem = map_filled(content, pages, 1);
		__atomic_store_n(done, 1, __ATOMIC_RELEASE);
		for (;;)
			__atomic_load_n(mem, __ATOMIC_RELAXED);
	}
	while (!__atomic_load_n(done, __ATOMIC_ACQUIRE))
		sleep_ns(POLL);
	return pid;
}

/*
 * Requests to other CPUs to flush their TLBs, while ksmd scans a process that runs:
 * per page in the first four passes and per pass after them.
 * content=unique|twice mib=
 */
static void load_tlb(void)
{
	enum content content = content_of(param_text("content", "unique"));
	long pages = param("mib", 16) * MIB / PAGE;
	long first, settled;
	int i;

	run_on(0, 0);
	spin(content, pages);
	for (i = 0; i < nr_daemons; i++)
		run_on(daemons[i], 0);
	start(STEPWISE);
	first = tlb_flushes();
	for (i = 0; i < 4; i++)
		next_pass();
	first = tlb_flushes() - first;
	expect("what is known", known_pages(), pages);
	if (content == TWICE)
		expect("what is saved", saved_pages(), pages / 2);
	settled = tlb_flushes();
	for (i = 0; i < 4; i++)
		next_pass();
	settled = tlb_flushes() - settled;
	put("first_per_page", (double)first / pages);
	put("settled_per_page", (double)settled / pages / 4);
}

/* ---- the program ---- */

static const struct {
	const char *name;
	void (*run)(void);
} workloads[] = {
	{ "settled", load_settled },
	{ "merge", load_merge },
	{ "zeroes", load_zeroes },
	{ "newcomers", load_newcomers },
	{ "first", load_first },
	{ "sight", load_sight },
	{ "volatile", load_volatile },
	{ "metadata", load_metadata },
	{ "unmerge", load_unmerge },
	{ "sparse", load_sparse },
	{ "beside", load_beside },
	{ "tlb", load_tlb },
};

int main(int argc, char **argv)
{
	size_t i;

	is_init = getpid() == 1;
	if (is_init) {
		mkdir("/proc", 0755);
		mkdir("/sys", 0755);
		mount("proc", "/proc", "proc", 0, NULL);
		mount("sysfs", "/sys", "sysfs", 0, NULL);
	}
	params = argv + (argc > 1 ? 2 : 1);
	for (i = 0; argc > 1 && i < sizeof(workloads) / sizeof(*workloads); i++) {
		if (strcmp(argv[1], workloads[i].name))
			continue;
		find_daemons();
		workloads[i].run();
		printf("}\n");
		leave(0);
	}
	die("usage: load WORKLOAD [NAME=VALUE]...");
}
