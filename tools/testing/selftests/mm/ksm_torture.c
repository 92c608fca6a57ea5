// SPDX-License-Identifier: GPL-2.0
/*
 * Everything at once: processes that know what their memory has to hold do to it,
 * at random, whatever a process can do to mergeable memory, are killed, and come
 * again, while others turn every knob and take memory, CPUs and swap away.
 *
 * KSM_TORTURE_TIME is the time in seconds, KSM_TORTURE_SEED the seed. All choices
 * of a process follow from the seed, its number and its generation; so the same seed
 * makes the same choices, although the kernel interleaves them as it likes.
 *
 * To add something a process does: a row in actions[]. Something that happens to the
 * whole machine: a row in disturbers[]. A row that this kernel does not know is
 * named at the end.
 *
 * A frame that breaks may have sharers among all processes here, and each of them is
 * right to die of it, if it was told so: by a SIGBUS that names the reason.
 */
#include <assert.h>
#include <stdarg.h>
#include <linux/loop.h>
#include <linux/mempolicy.h>
#include <linux/securebits.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include "ksm_util.h"

#define NR_WORKERS	10
#define NR_PAGES	1024	/* of a worker: two huge pages */
#define NR_PATTERNS	12	/* that they share; 0 is zeroes */
#define NR_HUGE		(2UL << 20)
#define RANGE_MAX	64
#define NR_LAST		8
#define DIRECT_PAGES	16	/* of a worker, on the loop device */
#define BAD_FRAMES_MAX	256	/* each costs the machine a page until the end */
#define DRAIN_SECS	120
#define CGROUP_ROOT	"/sys/fs/cgroup"
#define CGROUP		CGROUP_ROOT "/ksm_torture"
#define CGROUP_AWAY	CGROUP_ROOT "/ksm_torture_away"
#define USERS		54321	/* the first of some */

enum phase { RUN, DRAIN, LAST };

struct tally {
	long done;
	long refused;		/* not now */
	long unknown;		/* not in this kernel */
};

/* How a process ends that was not killed; by no number that is an errno. */
enum {
	ENDED_WELL,
	ENDED_WRONG = 200,	/* its memory is not what it was */
	ENDED_GIVING_UP,	/* it cannot tell what its memory is */
	ENDED_BROKEN,		/* it was told that a frame is broken */
};

/* What all processes see. */
static struct board {
	int phase;
	int waiting;		/* workers that are through with DRAIN */
	long rounds;
	long pages_checked;
	int mismatches;
	int broken;		/* promises that knobs did not keep */
	int nr_bad;
	unsigned long bad_frames[BAD_FRAMES_MAX];
	pid_t pids[NR_WORKERS];
	struct tally actions[40];
	struct tally disturbers[16];
} *board;

static __u64 seed;
static char loop_path[32];

struct prng {
	__u64 seed;
	size_t n;
};

static __u64 random_below(struct prng *prng, __u64 limit)
{
	return ksm_word(prng->seed, prng->n++) % limit;
}

/* A page is a pattern, but for one word perhaps. */
struct model {
	__u64 pattern;		/* 0: zeroes */
	__u64 value;
	int word;		/* -1: none */
	bool lazy;		/* after MADV_FREE: that, or zeroes */
};

struct worker {
	int index;
	int generation;
	int round;
	struct prng prng;
	char *addr;
	struct model pages[NR_PAGES];
	int nr_children;
	int direct;
	struct {
		const char *name;
		size_t first, nr;
		int err;
	} last[NR_LAST];
	int nr_last;
};

/* Where an action takes place. */
struct range {
	size_t first, nr;
	char *addr;
	size_t len;
};

static __u64 expected(const struct model *page, size_t word)
{
	if ((int)word == page->word)
		return page->value;
	return page->pattern ? ksm_word(page->pattern, word) : 0;
}

static __printf(1, 2) void say(const char *format, ...)
{
	char text[2048];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (write(STDOUT_FILENO, text, len) != len)
		_exit(121);
}

static void report(struct worker *w, size_t index, size_t word, __u64 found,
		   const char *how)
{
	char text[1024];
	int len = 0;

	__atomic_fetch_add(&board->mismatches, 1, __ATOMIC_RELAXED);
	for (int i = w->nr_last - NR_LAST; i < w->nr_last; i++)
		if (i >= 0)
			len += snprintf(text + len, sizeof(text) - len,
					"#   %s pages %zu+%zu = %d\n",
					w->last[i % NR_LAST].name,
					w->last[i % NR_LAST].first,
					w->last[i % NR_LAST].nr,
					w->last[i % NR_LAST].err);
	say("# MISMATCH %s: pid %d worker %d.%d seed %llu round %d page %zu address %p word %zu\n"
	    "#   expected %016llx%s found %016llx pattern %llu; last actions:\n%.*s",
	    how, getpid(), w->index, w->generation, seed, w->round, index,
	    ksm_page(w->addr, index), word, expected(&w->pages[index], word),
	    w->pages[index].lazy ? " or 0" : "", found, w->pages[index].pattern,
	    len, text);
}

/* Does what is at @data, a copy or the page itself, fit what we know of the page? */
static bool check_data(struct worker *w, size_t index, const void *data,
		       const char *how)
{
	const __u64 *words = data;
	struct model *page = &w->pages[index];
	size_t n = psize() / sizeof(*words), i;

	for (i = 0; i < n && words[i] == expected(page, i);)
		i++;
	if (i == n)
		return true;
	if (page->lazy) {
		size_t zeroes;

		for (zeroes = 0; zeroes < n && !words[zeroes];)
			zeroes++;
		if (zeroes == n) {
			*page = (struct model) { .word = -1 };
			return true;
		}
	}
	report(w, index, i, words[i], how);
	return false;
}

static bool check_all(struct worker *w, const char *how)
{
	for (size_t i = 0; i < NR_PAGES; i++)
		if (!check_data(w, i, ksm_page(w->addr, i), how))
			return false;
	__atomic_fetch_add(&board->pages_checked, NR_PAGES, __ATOMIC_RELAXED);
	return true;
}

static void fill(struct worker *w, size_t index, __u64 pattern)
{
	char *page = ksm_page(w->addr, index);

	if (pattern)
		ksm_fill(page, pattern);
	else
		memset(page, 0, psize());
	w->pages[index] = (struct model) { .pattern = pattern, .word = -1 };
}

/* Mostly what others have, too; a quarter is like nothing else. */
static __u64 pick_pattern(struct worker *w)
{
	if (!random_below(&w->prng, 4))
		return 1000 + random_below(&w->prng, 1ULL << 32);
	return random_below(&w->prng, NR_PATTERNS);
}

/* No longer "or zeroes": its content can be copied. */
static void settle(struct worker *w, size_t index)
{
	if (w->pages[index].lazy)
		fill(w, index, w->pages[index].pattern);
}

static void copied(struct worker *w, size_t to, const struct model *from)
{
	w->pages[to] = *from;
}

static int act_write(struct worker *w, struct range *r)
{
	for (size_t i = 0; i < r->nr; i++)
		fill(w, r->first + i, pick_pattern(w));
	return 0;
}

static int act_write_equal(struct worker *w, struct range *r)
{
	__u64 pattern = random_below(&w->prng, NR_PATTERNS);

	for (size_t i = 0; i < r->nr; i++)
		fill(w, r->first + i, pattern);
	return 0;
}

static int act_write_word(struct worker *w, struct range *r)
{
	for (size_t i = r->first; i < r->first + r->nr; i++) {
		struct model *page = &w->pages[i];
		__u64 *words = (__u64 *)ksm_page(w->addr, i);
		int old = page->word;

		settle(w, i);
		page->word = -1;
		if (old >= 0)
			words[old] = expected(page, old);
		page->word = random_below(&w->prng, psize() / sizeof(*words));
		page->value = random_below(&w->prng, 4);
		words[page->word] = page->value;
	}
	return 0;
}

static void reap(struct worker *w, bool wait)
{
	while (w->nr_children && waitpid(-1, NULL, wait ? 0 : WNOHANG) > 0)
		w->nr_children--;
}

/* Parent and child go on writing, and neither may see it of the other. */
static int act_fork(struct worker *w, struct range *r)
{
	pid_t parent = getpid(), pid;

	if (w->nr_children >= 2)
		reap(w, true);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid) {
		w->nr_children++;
		return 0;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	w->nr_children = 0;
	w->prng.seed += 1ULL << 40;
	for (int i = 0; i < 3; i++) {
		if (!check_all(w, "in a child"))
			break;
		act_write_word(w, r);
		usleep(random_below(&w->prng, 10000));
	}
	_exit(0);
}

/* The next one of this number begins with new memory. */
static int act_exit(struct worker *w, struct range *r)
{
	if (random_below(&w->prng, 4))
		return 0;
	_exit(check_all(w, "before exit") ? ENDED_WELL : ENDED_WRONG);
}

/* What is known nowhere else must not go on: the mapping is half moved. */
static int act_mremap(struct worker *w, struct range *r)
{
	char *away = mmap(NULL, r->len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (away == MAP_FAILED)
		return -errno;
	if (mremap(r->addr, r->len, r->len, MREMAP_MAYMOVE | MREMAP_FIXED, away) != away)
		_exit(ENDED_GIVING_UP);
	for (size_t i = 0; i < r->nr; i++)
		if (!check_data(w, r->first + i, ksm_page(away, i), "after mremap"))
			_exit(ENDED_WRONG);
	if (mremap(away, r->len, r->len, MREMAP_MAYMOVE | MREMAP_FIXED,
		   r->addr) != r->addr)
		_exit(ENDED_GIVING_UP);
	return 0;
}

static int act_mprotect(struct worker *w, struct range *r)
{
	int prot = random_below(&w->prng, 2) ? PROT_READ : PROT_NONE;
	int err = mprotect(r->addr, r->len, prot) ? -errno : 0;

	usleep(random_below(&w->prng, 3000));
	if (mprotect(r->addr, r->len, PROT_READ | PROT_WRITE))
		_exit(ENDED_GIVING_UP);
	return err;
}

static int act_mlock(struct worker *w, struct range *r)
{
	return mlock(r->addr, r->len) ? -errno : 0;
}

static int act_munlock(struct worker *w, struct range *r)
{
	return munlock(r->addr, r->len) ? -errno : 0;
}

static int advise(struct range *r, int advice)
{
	return madvise(r->addr, r->len, advice) ? -errno : 0;
}

static int act_mergeable(struct worker *w, struct range *r)
{
	return advise(r, MADV_MERGEABLE);
}

static int act_unmergeable(struct worker *w, struct range *r)
{
	return advise(r, MADV_UNMERGEABLE);
}

/* Locked memory is refused, half-way through the range. */
static int act_dontneed(struct worker *w, struct range *r)
{
	if (munlock(r->addr, r->len))
		return -errno;
	if (advise(r, MADV_DONTNEED))
		_exit(ENDED_GIVING_UP);
	for (size_t i = 0; i < r->nr; i++)
		w->pages[r->first + i] = (struct model) { .word = -1 };
	return 0;
}

static int act_free(struct worker *w, struct range *r)
{
	for (size_t i = 0; i < r->nr; i++)
		w->pages[r->first + i].lazy = true;
	return advise(r, MADV_FREE);
}

static int act_cold(struct worker *w, struct range *r)
{
	return advise(r, MADV_COLD);
}

static int act_pageout(struct worker *w, struct range *r)
{
	return advise(r, MADV_PAGEOUT);
}

static int act_willneed(struct worker *w, struct range *r)
{
	return advise(r, MADV_WILLNEED);
}

static int advise_huge(struct worker *w, int advice)
{
	char *addr = w->addr + random_below(&w->prng, 2) * NR_HUGE;

	return madvise(addr, NR_HUGE, advice) ? -errno : 0;
}

static int act_hugepage(struct worker *w, struct range *r)
{
	return advise_huge(w, MADV_HUGEPAGE);
}

static int act_nohugepage(struct worker *w, struct range *r)
{
	return advise_huge(w, MADV_NOHUGEPAGE);
}

static int act_collapse(struct worker *w, struct range *r)
{
	return advise_huge(w, MADV_COLLAPSE);
}

static int act_prctl(struct worker *w, struct range *r)
{
	return prctl(PR_SET_MEMORY_MERGE, random_below(&w->prng, 3) != 0, 0, 0, 0) ?
	       -errno : 0;
}

/* With whom it shares: nobody, its parent, or whom its parent shares with from now on. */
static int act_domain(struct worker *w, struct range *r)
{
	static const int commands[] = {
		PR_KSM_DOMAIN_CREATE, PR_KSM_DOMAIN_SHARE_FROM, PR_KSM_DOMAIN_SHARE_TO,
	};
	int command = commands[random_below(&w->prng, ARRAY_SIZE(commands))];

	return ksm_domain(command, command == PR_KSM_DOMAIN_CREATE ? 0 : getppid());
}

/* With merge_domains=user, who is not dumpable shares with nobody. */
static int act_dumpable(struct worker *w, struct range *r)
{
	return prctl(PR_SET_DUMPABLE, random_below(&w->prng, 2), 0, 0, 0) ? -errno : 0;
}

/* With merge_domains=user, it shares with others; it keeps its rights all the same. */
static int act_user(struct worker *w, struct range *r)
{
	uid_t uid = random_below(&w->prng, 2) ? USERS + random_below(&w->prng, 2) : 0;

	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) ||
	    setresuid(uid, uid, uid))
		return -errno;
	/* These two do not outlive a change of user. */
	return prctl(PR_SET_PDEATHSIG, SIGKILL) || prctl(PR_SET_DUMPABLE, 1) ? -errno : 0;
}

/*
 * With merge_domains=memcg, it shares with those that it is among from now on. Mostly
 * where the limits are.
 */
static int act_cgroup(struct worker *w, struct range *r)
{
	return ksm_spew(random_below(&w->prng, 3) ? CGROUP "/cgroup.procs" :
			CGROUP_AWAY "/cgroup.procs", "0");
}

/* From one page to another by way of a device that works on the frames themselves. */
static int act_direct(struct worker *w, struct range *r)
{
	off_t base = (off_t)w->index * DIRECT_PAGES * psize();
	size_t nr = r->nr < DIRECT_PAGES ? r->nr : DIRECT_PAGES, i;
	size_t to = random_below(&w->prng, NR_PAGES - DIRECT_PAGES);
	struct model from[DIRECT_PAGES];
	ssize_t len = nr * psize();

	if (w->direct < 0)
		return -EOPNOTSUPP;
	for (i = 0; i < nr; i++) {
		settle(w, r->first + i);
		from[i] = w->pages[r->first + i];
	}
	if (pwrite(w->direct, r->addr, len, base) != len)
		return -EIO;
	if (pread(w->direct, ksm_page(w->addr, to), len, base) != len)
		_exit(ENDED_GIVING_UP);
	for (i = 0; i < nr; i++)
		copied(w, to + i, &from[i]);
	return 0;
}

static int act_vmsplice(struct worker *w, struct range *r)
{
	size_t to = random_below(&w->prng, NR_PAGES);
	struct iovec page = { .iov_base = r->addr, .iov_len = psize() };
	struct model from;
	int pipes[2];

	settle(w, r->first);
	from = w->pages[r->first];
	if (pipe(pipes))
		return -errno;
	if (vmsplice(pipes[1], &page, 1, 0) != (ssize_t)psize()) {
		close(pipes[0]);
		close(pipes[1]);
		return -EAGAIN;
	}
	usleep(random_below(&w->prng, 5000));
	if (read(pipes[0], ksm_page(w->addr, to), psize()) != (ssize_t)psize())
		_exit(ENDED_GIVING_UP);
	copied(w, to, &from);
	close(pipes[0]);
	close(pipes[1]);
	return 0;
}

static int act_proc_mem(struct worker *w, struct range *r)
{
	size_t to = random_below(&w->prng, NR_PAGES);
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	char page[psize()];

	if (fd < 0)
		return -errno;
	if (pread(fd, page, psize(), (off_t)r->addr) != (ssize_t)psize())
		_exit(ENDED_GIVING_UP);
	if (!check_data(w, r->first, page, "through /proc/PID/mem"))
		_exit(ENDED_WRONG);
	ksm_fill(page, 1);
	if (pwrite(fd, page, psize(), (off_t)ksm_page(w->addr, to)) != (ssize_t)psize())
		_exit(ENDED_GIVING_UP);
	w->pages[to] = (struct model) { .pattern = 1, .word = -1 };
	close(fd);
	return 0;
}

static int open_uffd(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -EOPNOTSUPP;
	if (ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -EOPNOTSUPP;
	}
	return fd;
}

static int act_uffd_missing(struct worker *w, struct range *r)
{
	__u64 pattern = 1 + random_below(&w->prng, NR_PATTERNS - 1);
	struct uffdio_copy copy = { .dst = (__u64)r->addr, .len = psize() };
	int fd = open_uffd(0), err = 0;
	char page[psize()];

	if (fd < 0)
		return fd;
	r->len = psize();
	r->nr = 1;
	ksm_fill(page, pattern);
	copy.src = (__u64)page;
	if (uffd_register(fd, r->addr, r->len, true, false, false)) {
		close(fd);
		return -EBUSY;
	}
	act_dontneed(w, r);
	if (ioctl(fd, UFFDIO_COPY, &copy))
		err = -errno;
	else
		w->pages[r->first] = (struct model) { .pattern = pattern, .word = -1 };
	close(fd);		/* which unregisters */
	return err;
}

/* Merging may not undo a protection. */
static int act_uffd_wp(struct worker *w, struct range *r)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (__u64)r->addr, .len = r->len },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int fd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP), pagemap, err = 0;

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < r->nr; i++)
		settle(w, r->first + i);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (uffd_register(fd, r->addr, r->len, false, true, false) ||
	    ioctl(fd, UFFDIO_WRITEPROTECT, &wp))
		err = -EBUSY;
	usleep(random_below(&w->prng, 10000));
	for (size_t i = 0; !err && i < r->nr; i++) {
		char *page = ksm_page(r->addr, i);

		if (w->pages[r->first + i].pattern &&
		    !(pagemap_get_entry(pagemap, page) & PM_UFFD_WP)) {
			/* If it is because the frame broke, this read ends us. */
			__u64 found = FORCE_READ(*(__u64 *)page);

			report(w, r->first + i, 0, found, "write protection lost");
			_exit(ENDED_WRONG);
		}
	}
	close(pagemap);
	close(fd);
	return err;
}

/* The frame, with all that share it, to another node. */
static int act_move_pages(struct worker *w, struct range *r)
{
	int node = random_below(&w->prng, 2), status;
	void *page = r->addr;

	if (access("/sys/devices/system/node/node1", F_OK))
		return -EOPNOTSUPP;
	if (syscall(__NR_move_pages, 0, 1UL, &page, &node, &status, MPOL_MF_MOVE_ALL))
		return -errno;
	return 0;
}

static int act_mbind(struct worker *w, struct range *r)
{
	unsigned long nodes = 1UL << random_below(&w->prng, 2);

	if (access("/sys/devices/system/node/node1", F_OK))
		return -EOPNOTSUPP;
	if (syscall(__NR_mbind, r->addr, r->len, MPOL_PREFERRED, &nodes, 64UL,
		    MPOL_MF_MOVE))
		return -errno;
	return 0;
}

/* The frame of this page is to be used again at the end. */
static bool note_bad_frame(char *page)
{
	int nr = __atomic_fetch_add(&board->nr_bad, 1, __ATOMIC_RELAXED);

	if (nr >= BAD_FRAMES_MAX)
		return false;
	board->bad_frames[nr] = ksm_pfn(page);
	return true;
}

static int act_soft_offline(struct worker *w, struct range *r)
{
	if (random_below(&w->prng, 8) || !note_bad_frame(r->addr))
		return -EAGAIN;
	r->len = psize();
	return advise(r, MADV_SOFT_OFFLINE);
}

/* Never the frame of zeroes, which everybody has. */
static bool pick_merged(struct worker *w, struct range *r)
{
	struct model *page;

	for (; r->nr; r->first++, r->nr--) {
		page = &w->pages[r->first];
		r->addr = ksm_page(w->addr, r->first);
		if (page->pattern && !page->lazy && ksm_count_merged(r->addr, 1))
			break;
	}
	r->len = psize();
	return r->nr;
}

/* A child breaks what it has of us; we are told, as all sharers, when we come by. */
static int act_poison(struct worker *w, struct range *r)
{
	int status;
	pid_t pid;

	/* The choice comes first: it must not hang on what is merged at the moment. */
	if (random_below(&w->prng, 2) || !pick_merged(w, r) || !note_bad_frame(r->addr))
		return -EAGAIN;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid)
		_exit(-advise(r, MADV_HWPOISON));
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -EAGAIN;
	status = WEXITSTATUS(status);
	return status == ENDED_BROKEN ? 0 : -status;
}

static int act_sleep(struct worker *w, struct range *r)
{
	usleep(random_below(&w->prng, 50000));
	return 0;
}

static const struct action {
	const char *name;
	int (*act)(struct worker *w, struct range *r);
} actions[] = {
	{ "write", act_write },
	{ "write_equal", act_write_equal },
	{ "write_word", act_write_word },
	{ "fork", act_fork },
	{ "exit", act_exit },
	{ "mremap", act_mremap },
	{ "mprotect", act_mprotect },
	{ "mlock", act_mlock },
	{ "munlock", act_munlock },
	{ "mergeable", act_mergeable },
	{ "unmergeable", act_unmergeable },
	{ "dontneed", act_dontneed },
	{ "free", act_free },
	{ "cold", act_cold },
	{ "pageout", act_pageout },
	{ "willneed", act_willneed },
	{ "hugepage", act_hugepage },
	{ "nohugepage", act_nohugepage },
	{ "collapse", act_collapse },
	{ "prctl", act_prctl },
	{ "domain", act_domain },
	{ "dumpable", act_dumpable },
	{ "user", act_user },
	{ "cgroup", act_cgroup },
	{ "direct", act_direct },
	{ "vmsplice", act_vmsplice },
	{ "proc_mem", act_proc_mem },
	{ "uffd_missing", act_uffd_missing },
	{ "uffd_wp", act_uffd_wp },
	{ "move_pages", act_move_pages },
	{ "mbind", act_mbind },
	{ "soft_offline", act_soft_offline },
	{ "poison", act_poison },
	{ "sleep", act_sleep },
};

static_assert(ARRAY_SIZE(actions) <= ARRAY_SIZE(board->actions), "a tally each");

static void count(struct tally *tally, int err)
{
	long *what = &tally->refused;

	if (err == -EINVAL || err == -EOPNOTSUPP || err == -ENOENT)
		what = &tally->unknown;
	else if (!err)
		what = &tally->done;
	__atomic_fetch_add(what, 1, __ATOMIC_RELAXED);
}

static void act(struct worker *w)
{
	size_t which = random_below(&w->prng, ARRAY_SIZE(actions));
	struct range r = { .first = random_below(&w->prng, NR_PAGES - RANGE_MAX) };
	int slot = w->nr_last % NR_LAST;

	r.nr = 1 + random_below(&w->prng, RANGE_MAX);
	r.addr = ksm_page(w->addr, r.first);
	r.len = r.nr * psize();
	w->last[slot].name = actions[which].name;
	w->last[slot].first = r.first;
	w->last[slot].nr = r.nr;
	w->last[slot].err = 1;		/* while it lasts */
	w->nr_last++;
	w->last[slot].err = actions[which].act(w, &r);
	count(&board->actions[which], w->last[slot].err);
}

static void map_pages(struct worker *w)
{
	char *addr = mmap(NULL, NR_PAGES * psize() + NR_HUGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (addr == MAP_FAILED)
		_exit(ENDED_GIVING_UP);
	w->addr = (char *)(((unsigned long)addr + NR_HUGE - 1) & -NR_HUGE);
	for (size_t i = 0; i < NR_PAGES; i++)
		fill(w, i, pick_pattern(w));
	if (madvise(w->addr, NR_PAGES * psize(), MADV_MERGEABLE))
		_exit(ENDED_GIVING_UP);
}

static int phase(void)
{
	return __atomic_load_n(&board->phase, __ATOMIC_ACQUIRE);
}

/* Any other reason for a SIGBUS is for the default action, when it comes again. */
static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	if (info->si_code == BUS_MCEERR_AR || info->si_code == BUS_MCEERR_AO)
		_exit(ENDED_BROKEN);
}

static void work(int index, int generation)
{
	static const struct sigaction broken_memory = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO | SA_RESETHAND,
	};
	static struct worker w;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGBUS, &broken_memory, NULL);
	w.index = index;
	w.generation = generation;
	w.prng.seed = seed + index + 1000ULL * generation;
	w.direct = loop_path[0] ? open(loop_path, O_RDWR | O_DIRECT | O_CLOEXEC) : -1;
	ksm_spew(CGROUP "/cgroup.procs", "0");
	map_pages(&w);
	for (; phase() == RUN; w.round++) {
		for (int i = 1 + random_below(&w.prng, 8); i > 0; i--)
			act(&w);
		reap(&w, false);
		if (!check_all(&w, "after a round"))
			_exit(ENDED_WRONG);
		__atomic_fetch_add(&board->rounds, 1, __ATOMIC_RELAXED);
	}
	reap(&w, true);
	__atomic_fetch_add(&board->waiting, 1, __ATOMIC_RELAXED);
	while (phase() != LAST)
		usleep(1000);
	_exit(check_all(&w, "when all was unmerged") ? ENDED_WELL : ENDED_WRONG);
}

/* The disturbers. Each is a process of its own and calls its function on and on. */

struct setting {
	const char *name;
	const char *good[5];
	const char *bad[5];
};

static const struct setting settings[] = {
	{ "sleep_millisecs", { "0", "1", "5", "20" }, { "-1", "4294967296", "abc" } },
	{ "pages_to_scan", { "1", "100", "1000", "100000" }, { "-1", "4294967296", "x" } },
	{ "max_page_sharing", { "2", "3", "10", "256" }, { "1", "0", "-5", "99999999999" } },
	{ "merge_across_nodes", { "0", "1" }, { "2", "-1", "x" } },
	{ "merge_domains", { "global", "user", "memcg", "process" }, { "none", "0", "users" } },
	{ "zero_pages_only", { "0", "0", "0", "1" }, { "2", "maybe" } },
	{ "fresh_frames", { "0", "1" }, { "2", "maybe" } },
	{ "stable_node_chains_prune_millisecs", { "0", "1", "100", "2000" },
	  { "-1", "4294967296", "x" } },
	{ "use_zero_pages", { "0", "1" }, { "2", "maybe" } },
	{ "smart_scan", { "0", "1" }, { "2", "maybe" } },
	{ "advisor_max_cpu", { "1", "70", "100" }, { "-1", "x" } },
	{ "advisor_min_pages_to_scan", { "1", "500", "5000" }, { "-1", "x" } },
	{ "advisor_max_pages_to_scan", { "1000", "30000" }, { "-1", "x" } },
	{ "advisor_target_scan_time", { "1", "200" }, { "0", "-1", "x" } },
	{ "advisor_mode", { "none", "none", "scan-time" }, { "fast", "scan", "1" } },
};

static __printf(1, 2) void broken(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	say("# BROKEN: seed %llu: %s\n", seed, text);
	__atomic_fetch_add(&board->broken, 1, __ATOMIC_RELAXED);
}

static const char *pick_text(struct prng *prng, const char * const *texts)
{
	size_t nr = 0;

	while (nr < 5 && texts[nr])
		nr++;
	return texts[random_below(prng, nr)];
}

static bool advisor_on(void)
{
	char mode[64] = "";

	ksm_read("advisor_mode", mode, sizeof(mode));
	return strstr(mode, "[scan-time]");
}

/* The value stays the same if it is bad, and becomes what was written if not. */
static int disturb_knobs(struct prng *prng)
{
	const struct setting *s = &settings[random_below(prng, ARRAY_SIZE(settings))];
	bool good = random_below(prng, 4), advised;
	const char *text = pick_text(prng, good ? s->good : s->bad);
	char before[64], after[64];
	int err;

	if (ksm_read(s->name, before, sizeof(before)) < 0)
		return -ENOENT;
	advised = !strcmp(s->name, "pages_to_scan") && advisor_on();
	err = ksm_write(s->name, text);
	ksm_read(s->name, after, sizeof(after));
	if (!good && !err)
		broken("%s took %s", s->name, text);
	if (good && err && err != -EBUSY && !advised)
		broken("%s refused %s: %d", s->name, text, err);
	if (err && !advised && strcmp(before, after))
		broken("%s refused %s and went from %.20s to %.20s", s->name, text,
		       before, after);
	if (!err && good && isdigit(*text) && atol(after) != atol(text))
		broken("%s took %s and says %.20s", s->name, text, after);
	return 0;
}

/* Unmerging everything also has a debug kernel validate all that is left. */
static int disturb_run(struct prng *prng)
{
	int err;

	usleep(random_below(prng, 1000000));
	if (ksm_write("run", "3") != -EINVAL || ksm_write("run", "-1") != -EINVAL)
		broken("run takes nonsense");
	if (random_below(prng, 3)) {
		ksm_write("run", "0");
		usleep(random_below(prng, 20000));
	} else {
		err = ksm_write("run", "2");
		if (err && err != -ENOMEM)
			broken("run=2: %d", err);
		if (!err && (ksm_get("pages_shared") || ksm_get("pages_sharing") ||
			     ksm_get("pages_unshared")))
			broken("run=2 left %ld shared, %ld sharing, %ld unshared",
			       ksm_get("pages_shared"), ksm_get("pages_sharing"),
			       ksm_get("pages_unshared"));
	}
	return ksm_write("run", "1");
}

static int disturb_compact(struct prng *prng)
{
	usleep(random_below(prng, 500000));
	return ksm_spew("/proc/sys/vm/compact_memory", "1");
}

static int disturb_migrate(struct prng *prng)
{
	unsigned long from = 1UL << random_below(prng, 2), to = 3 & ~from;
	pid_t pid = board->pids[random_below(prng, NR_WORKERS)];

	if (access("/sys/devices/system/node/node1", F_OK))
		return -EOPNOTSUPP;
	usleep(random_below(prng, 200000));
	if (!pid || syscall(__NR_migrate_pages, pid, 64UL, &from, &to) < 0)
		return -EAGAIN;
	return 0;
}

static int set_block(int nr, const char *state)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/memory/memory%d/state", nr);
	return access(path, F_OK) ? -ENOENT : ksm_spew(path, state);
}

static int disturb_offline(struct prng *prng)
{
	int nr = random_below(prng, 32), err;

	if (access("/sys/devices/system/memory", F_OK))
		return -EOPNOTSUPP;
	usleep(random_below(prng, 1000000));
	err = set_block(nr, "offline");
	if (err)
		return -EAGAIN;
	usleep(random_below(prng, 200000));
	return set_block(nr, "online_movable");
}

static void undo_offline(void)
{
	for (int nr = 0; nr < 32; nr++)
		set_block(nr, "online");
}

static int disturb_swap(struct prng *prng)
{
	if (access("/sys/block/zram0", F_OK) || access("/proc/swaps", F_OK))
		return -EOPNOTSUPP;
	if (!ksm_zram_on(KSM_SWAP_MIB) || !ksm_swapon(KSM_ZRAM))
		return -EAGAIN;
	usleep(random_below(prng, 1000000));
	ksm_zram_off();
	return 0;
}

static int disturb_reclaim(struct prng *prng)
{
	int err;

	usleep(random_below(prng, 300000));
	err = ksm_spew(CGROUP "/memory.reclaim", "8M swappiness=200");
	return err == -EAGAIN ? 0 : err;
}

static int disturb_limit(struct prng *prng)
{
	char text[32];
	int err;

	snprintf(text, sizeof(text), "%lluM", 24 + random_below(prng, 32));
	usleep(random_below(prng, 2000000));
	err = ksm_spew(CGROUP "/memory.high", text);
	usleep(random_below(prng, 50000));
	ksm_spew(CGROUP "/memory.high", "max");
	return err;
}

/* Too little, and no swap: somebody has to die, who will come again. */
static int disturb_oom(struct prng *prng)
{
	int err;

	usleep(2000000 + random_below(prng, 6000000));
	ksm_spew(CGROUP "/memory.swap.max", "0");
	err = ksm_spew(CGROUP "/memory.max", "24M");
	usleep(random_below(prng, 100000));
	ksm_spew(CGROUP "/memory.max", "max");
	ksm_spew(CGROUP "/memory.swap.max", "max");
	return err;
}

static void undo_limits(void)
{
	ksm_spew(CGROUP "/memory.high", "max");
	ksm_spew(CGROUP "/memory.max", "max");
	ksm_spew(CGROUP "/memory.swap.max", "max");
}

#define CPU_FILE	"/sys/devices/system/cpu/cpu1/online"

static int disturb_cpu(struct prng *prng)
{
	int err;

	usleep(random_below(prng, 2000000));
	err = ksm_spew(CPU_FILE, "0");
	usleep(random_below(prng, 100000));
	ksm_spew(CPU_FILE, "1");
	return err;
}

static void undo_cpu(void)
{
	ksm_spew(CPU_FILE, "1");
}

static int disturb_freeze(struct prng *prng)
{
	int err;

	usleep(random_below(prng, 1000000));
	err = ksm_spew(CGROUP "/cgroup.freeze", "1");
	usleep(random_below(prng, 100000));
	ksm_spew(CGROUP "/cgroup.freeze", "0");
	return err;
}

static void undo_freeze(void)
{
	ksm_spew(CGROUP "/cgroup.freeze", "0");
}

#define THP	"/sys/kernel/mm/transparent_hugepage/"

static int disturb_thp(struct prng *prng)
{
	static const char * const modes[] = { "always", "madvise", "never" };

	if (access(THP "enabled", F_OK))
		return -EOPNOTSUPP;
	ksm_spew(THP "khugepaged/scan_sleep_millisecs", "10");
	ksm_spew(THP "khugepaged/alloc_sleep_millisecs", "10");
	usleep(random_below(prng, 500000));
	return ksm_spew(THP "enabled", modes[random_below(prng, 3)]);
}

static void undo_thp(void)
{
	ksm_spew(THP "khugepaged/scan_sleep_millisecs", "10000");
	ksm_spew(THP "khugepaged/alloc_sleep_millisecs", "60000");
	ksm_spew(THP "enabled", "madvise");
}

static const struct disturber {
	const char *name;
	int (*disturb)(struct prng *prng);
	void (*undo)(void);	/* whatever it was at when it was killed */
} disturbers[] = {
	{ "knobs", disturb_knobs },
	{ "run", disturb_run },
	{ "compact", disturb_compact },
	{ "migrate", disturb_migrate },
	{ "offline", disturb_offline, undo_offline },
	{ "swap", disturb_swap, ksm_zram_off },
	{ "reclaim", disturb_reclaim },
	{ "limit", disturb_limit, undo_limits },
	{ "oom", disturb_oom, undo_limits },
	{ "cpu", disturb_cpu, undo_cpu },
	{ "freeze", disturb_freeze, undo_freeze },
	{ "thp", disturb_thp, undo_thp },
};

static void disturb(size_t which)
{
	struct prng prng = { .seed = seed + 500 + which };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		count(&board->disturbers[which], disturbers[which].disturb(&prng));
		usleep(random_below(&prng, 20000));
	}
}

FIXTURE(torture)
{
	pid_t disturbers[ARRAY_SIZE(disturbers)];
	int generations[NR_WORKERS];
	struct prng prng;
	int file, loop;
	int killed, odd, gave_up, broken;
	long sharing_max;
	double until;
};

static pid_t spawn(void (*body)(int, int), int a, int b)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	body(a, b);
	_exit(0);
}

static void disturb_body(int which, int unused)
{
	disturb(which);
}

/* A device for O_DIRECT: its file is in memory, the requests are real. */
static void make_loop(FIXTURE_DATA(torture) * self)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), nr;

	self->loop = -1;
	self->file = memfd_create("ksm_torture", MFD_CLOEXEC);
	if (control < 0 ||
	    ftruncate(self->file, (off_t)NR_WORKERS * DIRECT_PAGES * psize()))
		return;
	nr = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(loop_path, sizeof(loop_path), "/dev/loop%d", nr);
	self->loop = open(loop_path, O_RDWR | O_CLOEXEC);
	if (self->loop < 0 || ioctl(self->loop, LOOP_SET_FD, self->file))
		loop_path[0] = '\0';
}

static void make_cgroup(void)
{
	if (access(CGROUP_ROOT "/cgroup.controllers", F_OK))
		mount("cgroup2", CGROUP_ROOT, "cgroup2", 0, NULL);
	ksm_spew(CGROUP_ROOT "/cgroup.subtree_control", "+memory");
	mkdir(CGROUP, 0700);
	mkdir(CGROUP_AWAY, 0700);
}

static long setting_of(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtol(text, NULL, 0) : otherwise;
}

FIXTURE_SETUP(torture)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, board);
	make_loop(self);
	make_cgroup();
	self->until = ksm_now() + setting_of("KSM_TORTURE_TIME", 20);
	seed = setting_of("KSM_TORTURE_SEED", time(NULL) % 1000000);
	self->prng.seed = seed + 999;
	ASSERT_EQ(0, ksm_write("run", "1"));
}

FIXTURE_TEARDOWN_PARENT(torture)
{
	ksm_restore();
	rmdir(CGROUP);
	rmdir(CGROUP_AWAY);
}

static void undo_all(FIXTURE_DATA(torture) * self)
{
	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++) {
		if (!self->disturbers[i])
			continue;
		kill(self->disturbers[i], SIGKILL);
		waitpid(self->disturbers[i], NULL, 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++)
		if (disturbers[i].undo)
			disturbers[i].undo();
}

/* Killed is all right, by us or for lack of memory; by any other signal is not. */
static void judge_end(FIXTURE_DATA(torture) * self, int index, int status)
{
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		self->killed++;
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == ENDED_GIVING_UP) {
		self->gave_up++;
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == ENDED_BROKEN) {
		self->broken++;
	} else if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		self->odd++;
		say("# worker %d.%d ended with status %#x\n", index,
		    self->generations[index], status);
	}
}

static void look_after(FIXTURE_DATA(torture) * self, bool again)
{
	int status;

	for (int i = 0; i < NR_WORKERS; i++) {
		pid_t pid = board->pids[i];

		if (!pid || waitpid(pid, &status, WNOHANG) == pid) {
			board->pids[i] = 0;
			if (pid)
				judge_end(self, i, status);
			if (again)
				board->pids[i] = spawn(work, i, ++self->generations[i]);
		}
	}
}

static int nr_alive(void)
{
	int nr = 0;

	for (int i = 0; i < NR_WORKERS; i++)
		nr += !!board->pids[i];
	return nr;
}

static void progress(FIXTURE_DATA(torture) * self)
{
	long done = 0;

	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		done += board->actions[i].done;
	say("# %.0f s left: %ld rounds, %ld actions, %ld pages checked, %d killed, %ld sharing\n",
	    self->until - ksm_now(), board->rounds, done, board->pages_checked,
	    self->killed, ksm_get("pages_sharing"));
}

/* KSM_TORTURE_WITHOUT: words, the names of disturbers. */
static bool is_left_out(const char *name)
{
	const char *list = getenv("KSM_TORTURE_WITHOUT");
	size_t len = strlen(name);

	for (const char *at = list; at && (at = strstr(at, name)); at += len)
		if ((at == list || at[-1] == ' ') && (!at[len] || at[len] == ' '))
			return true;
	return false;
}

static void rows(const char *kind, const char *name, const struct tally *t)
{
	if (!t->done)
		say("# %s %s: %s\n", kind, name, is_left_out(name) ? "left out" :
		    t->unknown ? "skipped, not in this kernel" : "was never possible");
	else
		say("# %s %s: %ld done, %ld refused\n", kind, name, t->done,
		    t->refused + t->unknown);
}

static void summary(FIXTURE_DATA(torture) * self)
{
	progress(self);
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		rows("action", actions[i].name, &board->actions[i]);
	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++)
		rows("disturber", disturbers[i].name, &board->disturbers[i]);
	say("# at most %ld pages were sharing; %d processes were killed\n",
	    self->sharing_max, self->killed);
	say("# %d gave up, %d had broken memory\n", self->gave_up, self->broken);
}

static const char * const zero_at_the_end[] = {
	"pages_shared", "pages_sharing", "pages_unshared", "pages_volatile",
	"stable_node_chains", "stable_node_dups",
};

static int nr_not_zero(void)
{
	int nr = 0;

	for (size_t i = 0; i < ARRAY_SIZE(zero_at_the_end); i++) {
		long value = ksm_get(zero_at_the_end[i]);

		if (!value)
			continue;
		say("# at the end %s is %ld\n", zero_at_the_end[i], value);
		nr++;
	}
	return nr;
}

/* Two knobs are refused as long as the children of those killed are not quite gone. */
static int reset_all(void)
{
	double deadline = ksm_now() + DRAIN_SECS;
	int err;

	while ((err = ksm_reset()) == -EBUSY && ksm_now() < deadline)
		usleep(10000);
	return err;
}

static void torture(FIXTURE_DATA(torture) * self)
{
	double next = ksm_now() + 30;

	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++)
		if (!is_left_out(disturbers[i].name))
			self->disturbers[i] = spawn(disturb_body, i, 0);
	while (ksm_now() < self->until && !board->mismatches && !board->broken &&
	       !self->odd) {
		int victim = random_below(&self->prng, NR_WORKERS);
		long sharing = ksm_get("pages_sharing");

		look_after(self, true);
		if (!random_below(&self->prng, 20) && board->pids[victim])
			kill(board->pids[victim], SIGKILL);
		if (sharing > self->sharing_max)
			self->sharing_max = sharing;
		if (ksm_now() > next) {
			progress(self);
			next += 30;
		}
		usleep(50000);
	}
	undo_all(self);
}

/* All that still live stand still, with memory that they know. */
static bool drain(FIXTURE_DATA(torture) * self)
{
	double deadline = ksm_now() + DRAIN_SECS;

	__atomic_store_n(&board->phase, DRAIN, __ATOMIC_RELEASE);
	while (board->waiting < nr_alive()) {
		look_after(self, false);
		if (ksm_now() > deadline)
			return false;
		usleep(10000);
	}
	return true;
}

static bool finish(FIXTURE_DATA(torture) * self)
{
	double deadline = ksm_now() + DRAIN_SECS;

	__atomic_store_n(&board->phase, LAST, __ATOMIC_RELEASE);
	while (nr_alive()) {
		look_after(self, false);
		if (ksm_now() > deadline)
			return false;
		usleep(10000);
	}
	return true;
}

/* Longer than anybody will want to wait; the time is KSM_TORTURE_TIME. */
TEST_F_TIMEOUT(torture, all_at_once, 1000000)
{
	say("# KSM_TORTURE_SEED=%llu KSM_TORTURE_TIME=%.0f\n", seed,
	    self->until - ksm_now());
	torture(self);
	EXPECT_TRUE(drain(self));
	summary(self);
	EXPECT_EQ(0, reset_all());
	EXPECT_EQ(0, nr_not_zero());
	EXPECT_TRUE(finish(self));
	EXPECT_EQ(0, nr_not_zero());
	EXPECT_EQ(0, ksm_get("ksm_zero_pages"));
	for (int i = 0; i < BAD_FRAMES_MAX; i++)
		if (board->bad_frames[i])
			unpoison_memory(board->bad_frames[i]);
	if (loop_path[0])
		ioctl(self->loop, LOOP_CLR_FD, 0);

	EXPECT_EQ(0, board->mismatches);
	EXPECT_EQ(0, board->broken);
	EXPECT_EQ(0, self->odd);
	/* Did it do what it is for? */
	EXPECT_LT(0, board->rounds);
	EXPECT_LT(0, self->sharing_max);
}

TEST_HARNESS_MAIN
