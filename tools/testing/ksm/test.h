/* SPDX-License-Identifier: GPL-2.0-only */
/* What a test is, and what it is written with. */
#ifndef _KSM_TEST_H
#define _KSM_TEST_H

/**
 * struct ksm_test - one test
 * @name: "file: what is tested"; NULL ends a table
 * @run: the test; returns if passed
 * @once: it makes no use of random numbers, one run will do
 */
struct ksm_test {
	const char *name;
	void (*run)(void);
	bool once;
};

#define SEEDED(name, run)	{ name, run, false }
#define ONCE(name, run)		{ name, run, true }
#define END			{ NULL, NULL, true }

extern const struct ksm_test ksm_chain_tests[];
extern const struct ksm_test ksm_item_tests[];
extern const struct ksm_test ksm_mix_tests[];
extern const struct ksm_test ksm_policy_tests[];
extern const struct ksm_test ksm_slots_tests[];
extern const struct ksm_test ksm_stable_tests[];
extern const struct ksm_test ksm_stats_tests[];
extern const struct ksm_test ksm_unstable_tests[];

/* Ends the process: each test has one of its own. */
void __noreturn __printf(3, 4)
test_fail(const char *file, int line, const char *format, ...);

#define CHECK(cond) do {						\
	if (!(cond))							\
		test_fail(__FILE__, __LINE__, "not true: %s", #cond);	\
} while (0)

#define CHECK_EQ(a, b) do {						\
	long long __a = (a), __b = (b);					\
	if (__a != __b)							\
		test_fail(__FILE__, __LINE__, "%s is %lld, %s is %lld",	\
			  #a, __a, #b, __b);				\
} while (0)

/* Random numbers, the same for the same seed. */
u64 rnd(void);
u64 rnd_extreme(void);

static inline unsigned int rnd_below(unsigned int n)
{
	return rnd() % n;
}

static inline bool one_in(unsigned int n)
{
	return !rnd_below(n);
}

#endif /* _KSM_TEST_H */
