/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The stage for attacks on page merging. A victim and an attacker are processes that
 * share no memory but this stage's sheet of paper, and are put into one domain of
 * merging or into two, as a setting says. The attacker asks for what would happen by
 * itself in time, ksmd's passes and the victim's work, and otherwise has only its own
 * memory and a clock.
 */
#ifndef _SELFTESTS_MM_KSM_ATTACK_H
#define _SELFTESTS_MM_KSM_ATTACK_H

#include <math.h>
#include "ksm_util.h"

#define CGROUPS		"/sys/fs/cgroup/"
#define CGROUP_CONTROL	CGROUPS "cgroup.subtree_control"
#define ANSWERS_MAX	2048
#define PAGES_MAX	32768
#define PASSES		3	/* what is written now is merged by then */

enum { VICTIM, ATTACKER, NR_PARTIES };

/* How the two are kept apart. */
struct setting {
	const char *name;
	const char *policy;		/* merge_domains; NULL: as the kernel has it */
	uid_t uid[NR_PARTIES];		/* 0: stays root */
	const char *cgroup[NR_PARTIES];
	bool undumpable;		/* the victim; nobody may look into it */
	bool cookie;			/* the victim has a domain of its own */
	bool leaks;			/* they are in one domain after all */
};

enum request { SCAN, NOTE };

/* What the parties hand in. The truth is not on it. */
static struct sheet {
	enum request request;
	struct {
		char *addr;
		size_t nr;
	} memory[NR_PARTIES];		/* for those who count frames */
	size_t refs, refs_right;	/* answers that the attacker could check */
	double seconds;
	bool answers[ANSWERS_MAX];
	char text[32];
} *sheet;

static struct ksm_child party[NR_PARTIES];

static inline struct sheet *sheet_new(void)
{
	void *addr = mmap(NULL, sizeof(*sheet), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (addr == MAP_FAILED)
		ksft_exit_fail_msg("no memory for a sheet of paper\n");
	return addr;
}

/* NULL if this kernel can do it, else why not. */
static inline const char *setting_why_not(const struct setting *s)
{
	__u64 domain;

	if (s->policy && !ksm_has("merge_domains"))
		return "kernel without merge_domains";
	if (s->cookie && prctl(PR_KSM_DOMAIN, PR_KSM_DOMAIN_GET, 0, &domain, 0))
		return "kernel without PR_KSM_DOMAIN";
	return NULL;
}

static inline void cgroup_path(const char *name, const char *file, char *path, size_t len)
{
	snprintf(path, len, CGROUPS "%s/%s", name, file);
}

/* Cgroups for memory; *@ours if they were not there before. */
static inline int cgroups_begin(bool *ours)
{
	char on[256];

	if (ksm_slurp(CGROUP_CONTROL, on, sizeof(on)) < 0)
		return -ENOENT;
	*ours = !strstr(on, "memory");
	return ksm_spew(CGROUP_CONTROL, "+memory");
}

static inline int setting_begin(const struct setting *s, bool *our_cgroups)
{
	char path[128];
	int err = s->cgroup[VICTIM] ? cgroups_begin(our_cgroups) : 0;

	for (int who = 0; who < NR_PARTIES; who++) {
		if (err || !s->cgroup[who])
			continue;
		cgroup_path(s->cgroup[who], "", path, sizeof(path));
		if (mkdir(path, 0755) && errno != EEXIST)
			err = -errno;
	}
	return err ?: (s->policy ? ksm_write("merge_domains", s->policy) : 0);
}

static inline void setting_end(const struct setting *s, bool our_cgroups)
{
	char path[128];

	for (int who = 0; who < NR_PARTIES; who++) {
		if (!s->cgroup[who])
			continue;
		cgroup_path(s->cgroup[who], "", path, sizeof(path));
		/* After a failure its processes may take a moment to be gone. */
		for (int i = 0; i < 100 && rmdir(path) && errno == EBUSY; i++)
			usleep(10000);
	}
	if (our_cgroups)
		ksm_spew(CGROUP_CONTROL, "-memory");
}

/* The calling child becomes what the setting wants; it has no memory to merge yet. */
static inline void become(const struct setting *s, int who)
{
	bool dumpable = who == ATTACKER || !s->undumpable;
	uid_t uid = s->uid[who];
	char path[128];

	if (s->cgroup[who]) {
		cgroup_path(s->cgroup[who], "cgroup.procs", path, sizeof(path));
		if (ksm_spew(path, "0"))
			_exit(110);
	}
	/* Who changes its user is not dumpable any more, and is not killed with its parent. */
	if (uid && (setresgid(uid, uid, uid) || setresuid(uid, uid, uid)))
		_exit(111);
	if (uid && (prctl(PR_SET_PDEATHSIG, SIGKILL) || prctl(PR_SET_DUMPABLE, dumpable)))
		_exit(112);
	if (s->cookie && who == VICTIM && prctl(PR_KSM_DOMAIN, PR_KSM_DOMAIN_CREATE, 0, 0, 0))
		_exit(113);
}

/* The attacker has the parent do something. */
static inline void ask(enum request what)
{
	sheet->request = what;
	ksm_child_pause(&party[ATTACKER]);
}

/* The attacker waits while the victim does what it does next. */
static inline void victim_step(void)
{
	if (!ksm_child_go(&party[VICTIM]) || !ksm_child_wait(&party[VICTIM]))
		_exit(117);
}

/* Mergeable memory of the calling party, not yet populated. */
static inline char *party_map(int who, size_t nr_pages)
{
	char *addr = ksm_map(nr_pages);

	if (addr == MAP_FAILED || nr_pages > PAGES_MAX)
		_exit(114);
	sheet->memory[who].addr = addr;
	sheet->memory[who].nr = nr_pages;
	return addr;
}

static inline void party_madvise(char *addr, size_t nr_pages, int advice)
{
	if (ksm_madvise(addr, nr_pages, advice))
		_exit(115);
}

#define NO_FRAME	((__u64)-1UL)

/* Fills @pfns with the frames of all pages that a party has shown. */
static inline void party_frames(int who, __u64 *pfns)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", party[who].pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	for (size_t i = 0; i < sheet->memory[who].nr; i++)
		pfns[i] = pagemap_get_pfn(fd, ksm_page(sheet->memory[who].addr, i));
	close(fd);
}

static inline int compare_words(const void *a, const void *b)
{
	const __u64 *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static inline void sort_words(__u64 *words, size_t nr)
{
	qsort(words, nr, sizeof(*words), compare_words);
}

/* Is it one of these? They are sorted. */
static inline bool frames_have(const __u64 *pfns, size_t nr, __u64 pfn)
{
	return pfn != NO_FRAME && bsearch(&pfn, pfns, nr, sizeof(*pfns), compare_words);
}

/* What is true of the frames, whatever the attacker may have found out. */
struct tally {
	size_t common;			/* pages of the attacker with a frame of both */
	size_t own[NR_PARTIES];		/* this page had that frame before, with a party */
	size_t known;			/* some page of the attacker had that frame */
	size_t inherited;		/* pages of the victim with such a frame */
};

static __u64 noted[NR_PARTIES][PAGES_MAX];
static size_t nr_noted;

static inline void note_frames(void)
{
	for (int who = 0; who < NR_PARTIES; who++)
		party_frames(who, noted[who]);
	nr_noted = sheet->memory[ATTACKER].nr;
}

static inline struct tally count_frames(void)
{
	static __u64 now[PAGES_MAX], victim[PAGES_MAX], known[PAGES_MAX];
	size_t nr = sheet->memory[VICTIM].nr;
	struct tally t = {};

	party_frames(ATTACKER, now);
	party_frames(VICTIM, victim);
	memcpy(known, noted[ATTACKER], nr_noted * sizeof(*known));
	sort_words(victim, nr);
	sort_words(known, nr_noted);
	for (size_t i = 0; i < nr; i++)
		t.inherited += frames_have(known, nr_noted, victim[i]);
	for (size_t i = 0; i < sheet->memory[ATTACKER].nr; i++) {
		if (!frames_have(victim, nr, now[i]))
			continue;
		t.common++;
		for (int who = 0; who < NR_PARTIES; who++)
			t.own[who] += i < nr_noted && now[i] == noted[who][i];
		t.known += frames_have(known, nr_noted, now[i]);
	}
	return t;
}

/* Does what the attacker waits for, and lets it on. */
static inline bool serve(struct tally *most)
{
	struct tally t;

	switch (sheet->request) {
	case NOTE:
		note_frames();
		break;
	case SCAN:
		if (ksm_scan(PASSES))
			return false;
		t = count_frames();
		if (t.common >= most->common)
			*most = t;
		break;
	}
	return ksm_child_go(&party[ATTACKER]);
}

/*
 * One attack, from the victim's first step to the attacker's answers. @most is of the
 * pass after which the two had the most in common. False if one did not get through.
 */
static inline bool play(const struct setting *s, void (*victim)(int step),
			void (*attacker)(void), struct tally *most)
{
	int bad;

	memset(most, 0, sizeof(*most));
	if (ksm_child_fork(&party[VICTIM])) {
		become(s, VICTIM);
		for (int step = 0;; step++) {
			victim(step);
			ksm_child_pause(&party[VICTIM]);
		}
	}
	if (!ksm_child_wait(&party[VICTIM]))
		return false;
	if (ksm_child_fork(&party[ATTACKER])) {
		become(s, ATTACKER);
		attacker();
		_exit(0);
	}
	while (ksm_child_wait(&party[ATTACKER]) && serve(most))
		;
	bad = ksm_child_end(&party[ATTACKER]);
	/* The victim has no end of its own: it goes when nobody waits for it any more. */
	return ksm_child_end(&party[VICTIM]) == 120 && !bad;
}

/* Exactly half of @coins are true, which ones depends on @seed. */
static inline void toss(bool *coins, size_t nr, __u64 seed)
{
	for (size_t i = 0; i < nr; i++)
		coins[i] = i % 2;
	for (size_t i = nr - 1; i > 0; i--) {
		size_t j = ksm_word(seed, i) % (i + 1);
		bool coin = coins[i];

		coins[i] = coins[j];
		coins[j] = coin;
	}
}

/* In which part of all such experiments would one see what was seen? (Wilson) */
struct interval {
	double low, high;		/* per cent */
};

static inline struct interval confidence(size_t right, size_t of)
{
	const double z = 4.4172;	/* 99.999 %: none of many is to fail by chance */
	double p = (double)right / of, zz = z * z / of;
	double middle = (p + zz / 2) / (1 + zz);
	double half = z / (1 + zz) * sqrt(p * (1 - p) / of + zz / of / 4);

	return (struct interval) { 100 * (middle - half), 100 * (middle + half) };
}

static inline __u64 ticks(void)
{
#if defined(__x86_64__)
	unsigned int low, high;

	asm volatile("mfence; lfence; rdtsc; lfence" : "=a" (low), "=d" (high) :: "memory");
	return (__u64)high << 32 | low;
#elif defined(__aarch64__)
	__u64 now;

	asm volatile("isb; mrs %0, cntvct_el0; isb" : "=r" (now) :: "memory");
	return now;
#else
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
#endif
}

#endif
