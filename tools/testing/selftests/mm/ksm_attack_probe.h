/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The attacker's ruler: it does the same to pages that it has a question about, and to
 * pages of its own of which it knows the answer, in one go and in a mixed order. Times
 * are only compared among these, so it does not matter how long anything takes.
 */
#ifndef _SELFTESTS_MM_KSM_ATTACK_PROBE_H
#define _SELFTESTS_MM_KSM_ATTACK_PROBE_H

#include "ksm_attack.h"

#define REFS		100	/* pages with a known answer, of each kind */
#define ROUNDS_MAX	13
#define TRIES		5

/* Contents. The victim has some of the candidates, and nobody else has the others. */
#define CANDIDATE	1000000
#define NOISE		2000000
#define REFERENCE	9000000

/*
 * Probe i is at page i * unit: first those with a question, then REFS that have a twin
 * and REFS that have none. Behind the probes are the twins.
 */
static struct {
	size_t nr;			/* questions */
	size_t unit;			/* pages per probe */
	int rounds;
	int rank;			/* which of a probe's times counts, from the shortest */
	char *pages, *twins;
	__u64 samples[ANSWERS_MAX + 2 * REFS][ROUNDS_MAX];
} probes;

static inline size_t nr_probes(void)
{
	return probes.nr + 2 * REFS;
}

static inline char *probe_page(size_t i)
{
	return ksm_page(probes.pages, i * probes.unit);
}

static inline __u64 probe_seed(size_t i)
{
	return i < probes.nr ? CANDIDATE + i : REFERENCE + i;
}

/*
 * Probes of @unit pages, and twins, all to be filled. What disturbs a measurement makes
 * it longer, so it is a short one of several that counts; but not the shortest, which
 * may be from a pass that left the page out.
 */
static inline void probes_map(size_t nr, size_t unit, int rounds)
{
	probes.nr = nr;
	probes.unit = unit;
	probes.rounds = rounds;
	probes.rank = rounds / 4;
	probes.pages = party_map(ATTACKER, nr_probes() * unit + REFS);
	probes.twins = probe_page(nr_probes());
	ksm_fill_pages(probes.twins, REFS, REFERENCE + nr, 1);
}

/* The common case: a page each, mergeable. */
static inline void probes_prepare(size_t nr, int rounds)
{
	probes_map(nr, 1, rounds);
	for (size_t i = 0; i < nr_probes(); i++)
		ksm_fill(probe_page(i), probe_seed(i));
	party_madvise(probes.pages, nr_probes() + REFS, MADV_MERGEABLE);
}

/* Neither neighbours nor kinds one after the other. */
static inline void mixed_order(size_t *order, size_t nr, __u64 seed)
{
	for (size_t i = 0; i < nr; i++)
		order[i] = i;
	for (size_t i = nr - 1; i > 0; i--) {
		size_t j = ksm_word(seed, i) % (i + 1), tmp = order[i];

		order[i] = order[j];
		order[j] = tmp;
	}
}

static inline void measure(int round, __u64 (*cost)(size_t i))
{
	static size_t order[ANSWERS_MAX + 2 * REFS];

	mixed_order(order, nr_probes(), round);
	for (size_t i = 0; i < nr_probes(); i++)
		probes.samples[order[i]][round] = cost(order[i]);
}

/* The typical one of REFS probes from @first on. */
static inline __u64 typical(size_t first)
{
	__u64 times[REFS];

	for (size_t i = 0; i < REFS; i++)
		times[i] = probes.samples[first + i][probes.rank];
	sort_words(times, REFS);
	return times[REFS / 2];
}

/*
 * Halfway between the known ones is the border; some of them may be on the wrong side.
 * How many are on the right side?
 */
static inline size_t conclude(bool *answers)
{
	__u64 twin, alone, border;
	size_t right = 0;

	for (size_t i = 0; i < nr_probes(); i++)
		sort_words(probes.samples[i], probes.rounds);
	twin = typical(probes.nr);
	alone = typical(probes.nr + REFS);
	border = (twin + alone) / 2;
	for (size_t i = 0; i < nr_probes(); i++) {
		bool with = (probes.samples[i][probes.rank] > border) == (twin > alone);

		if (i < probes.nr)
			answers[i] = with;
		else
			right += with == (i < probes.nr + REFS);
	}
	return right;
}

/*
 * Has @round fill in the samples of each round, and draws conclusions. An attacker knows
 * when a measurement is no good, by its own pages, and takes it again: something else
 * may have had the machine meanwhile.
 */
static inline void take_answers(void (*round)(int nr), bool *answers)
{
	size_t right = 0;

	for (int tries = 0; tries < TRIES && right < REFS * 2 * 9 / 10; tries++) {
		for (int i = 0; i < probes.rounds; i++)
			round(i);
		right = conclude(answers);
	}
	sheet->refs_right += right;
	sheet->refs += 2 * REFS;
}

/* Can the attacker tell pages of its own apart? Else it shows nothing of others'. */
static inline bool ruler_works(void)
{
	return sheet->refs && 100 * sheet->refs_right / sheet->refs >= 67;
}

#endif
