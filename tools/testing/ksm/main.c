// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unit tests of the engine's pure files, in user space. Prints TAP.
 *
 *	ksm_test [-n SEEDS] [-s SEED] [TEST...]
 *
 * Every test is run with the seeds 1 to SEEDS, or with SEED alone; with a TEST,
 * only those are run whose name has it in it. Each test has a process of its own,
 * so that one that crashes or hangs fails like any other, and the next is run.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ksm_internal.h"
#include "../../../mm/ksm/ksm.h"
#include "test.h"

/* Seconds that one run of a test may take. It takes milliseconds. */
#define RUN_SECS	60

static const struct ksm_test *const tables[] = {
	ksm_policy_tests, ksm_stats_tests, ksm_item_tests, ksm_unstable_tests,
	ksm_chain_tests, ksm_stable_tests, ksm_mix_tests, ksm_slots_tests,
};

static u64 rnd_state;
static u64 *current_seed;	/* shared with the test's process */

/* Leaks are found by counting (world_exit()), also where ptrace is forbidden. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

/* splitmix64 */
u64 rnd(void)
{
	u64 z = rnd_state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* A number of any magnitude, rather often one from where overflows happen. */
u64 rnd_extreme(void)
{
	u64 n = one_in(3) ? 0 : rnd() >> rnd_below(64);

	return one_in(2) ? n : (one_in(2) ? 1ULL << rnd_below(64) : 0) + rnd_below(5) - 2;
}

void test_fail(const char *file, int line, const char *format, ...)
{
	const char *tail = strstr(file, "mm/ksm/");
	va_list args;

	printf("# %s:%d: ", tail ? tail : file, line);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

static void run(const struct ksm_test *test, u64 first, u64 last)
{
	u64 seed;

	for (seed = first; seed <= last; seed++) {
		*current_seed = seed;
		rnd_state = seed;
		alarm(RUN_SECS);
		test->run();
	}
	fflush(stdout);
	_exit(0);
}

/* Returns whether the test has passed. */
static bool run_apart(const struct ksm_test *test, int number, u64 first, u64 last)
{
	int status;
	pid_t pid;

	if (test->once)
		last = first;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run(test, first, last);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		perror("ksm_test");
		exit(2);
	}
	if (!status) {
		printf("ok %d - %s\n", number, test->name);
		return true;
	}
	if (WIFSIGNALED(status))
		printf("# ended by signal %d%s\n", WTERMSIG(status),
		       WTERMSIG(status) == SIGALRM ? ": it hung" : "");
	printf("# repeat by: make check SEED=%llu TEST='%s'\n",
	       (unsigned long long)*current_seed, test->name);
	printf("not ok %d - %s\n", number, test->name);
	return false;
}

static bool wanted(const struct ksm_test *test, char **names)
{
	if (!*names)
		return true;
	for (; *names; names++)
		if (strstr(test->name, *names))
			return true;
	return false;
}

static void help(void)
{
	fprintf(stderr, "usage: ksm_test [-n SEEDS] [-s SEED] [TEST...]\n");
	exit(2);
}

static u64 number(const char *arg)
{
	char *end;
	u64 n = strtoull(arg, &end, 0);

	if (!*arg || *end)
		help();
	return n;
}

int main(int argc, char **argv)
{
	int count = 0, passed = 0, failed = 0, option;
	u64 first = 1, last = 50;
	const struct ksm_test *test;
	unsigned int i;

	while ((option = getopt(argc, argv, "n:s:")) != -1) {
		switch (option) {
		case 'n':
			last = number(optarg);
			break;
		case 's':
			first = number(optarg);
			last = first;
			break;
		default:
			help();
		}
	}
	current_seed = mmap(NULL, sizeof(u64), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (last < first || current_seed == MAP_FAILED)
		help();

	for (i = 0; i < ARRAY_SIZE(tables); i++)
		for (test = tables[i]; test->name; test++)
			count += wanted(test, argv + optind);
	printf("TAP version 13\n1..%d\n", count);
	printf("# seeds %llu to %llu\n", (unsigned long long)first,
	       (unsigned long long)last);
	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		for (test = tables[i]; test->name; test++) {
			if (!wanted(test, argv + optind))
				continue;
			if (run_apart(test, passed + failed + 1, first, last))
				passed++;
			else
				failed++;
		}
	}
	printf("%d passed, %d failed\n", passed, failed);
	return failed || !passed;
}
