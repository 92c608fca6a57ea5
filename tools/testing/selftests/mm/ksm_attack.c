// SPDX-License-Identifier: GPL-2.0
/*
 * The known attacks on page merging, carried out.
 *
 * Where attacker and victim are in one domain of merging each attack must succeed: that
 * shows that it can, and what merging gives away there. Where they are not, it must do
 * no better than chance. What decides is how many answers are right, never a time.
 *
 * Each test prints a line `attack: NAME | SETTING | RESULT`.
 */
#include "ksm_attack_probe.h"

#define NR_CANDIDATES	1000
#define NOISE_REASON	"too much noise: %zu of %zu known answers right"
#define COIN		1	/* seed of what the victim has */

static void report(const struct setting *s, const char *attack, const char *fmt, ...)
{
	char result[128];
	va_list args;

	va_start(args, fmt);
	vsnprintf(result, sizeof(result), fmt, args);
	va_end(args);
	ksft_print_msg("attack: %s | %s | %s\n", attack, s->name, result);
}

FIXTURE(attack)
{
	bool our_cgroups;
};

FIXTURE_VARIANT(attack)
{
	struct setting setting;
};

FIXTURE_VARIANT_ADD(attack, global)
{
	.setting = { .name = "global", .leaks = true },
};

FIXTURE_VARIANT_ADD(attack, user)
{
	.setting = {
		.name = "user", .policy = "user",
		.uid = { 54321, 54322 },
	},
};

/* Isolation is by user, not from everybody. */
FIXTURE_VARIANT_ADD(attack, user_same)
{
	.setting = {
		.name = "user_same", .policy = "user", .leaks = true,
		.uid = { 54321, 54321 },
	},
};

/* The victim is of the attacker's user, but holds something that this one may not see. */
FIXTURE_VARIANT_ADD(attack, user_undumpable)
{
	.setting = {
		.name = "user_undumpable", .policy = "user", .undumpable = true,
		.uid = { 54321, 54321 },
	},
};

FIXTURE_VARIANT_ADD(attack, memcg)
{
	.setting = {
		.name = "memcg", .policy = "memcg",
		.cgroup = { "ksm_attack_victim", "ksm_attack_attacker" },
	},
};

FIXTURE_VARIANT_ADD(attack, memcg_same)
{
	.setting = {
		.name = "memcg_same", .policy = "memcg", .leaks = true,
		.cgroup = { "ksm_attack_both", "ksm_attack_both" },
	},
};

FIXTURE_VARIANT_ADD(attack, process)
{
	.setting = { .name = "process", .policy = "process" },
};

FIXTURE_VARIANT_ADD(attack, cookie)
{
	.setting = { .name = "cookie", .cookie = true },
};

FIXTURE_SETUP(attack)
{
	const char *why_not = ksm_setup();

	if (!why_not)
		why_not = setting_why_not(&variant->setting);
	if (why_not)
		SKIP(return, "%s", why_not);
	sheet = sheet_new();
	ASSERT_EQ(0, setting_begin(&variant->setting, &self->our_cgroups));
}

FIXTURE_TEARDOWN_PARENT(attack)
{
	setting_end(&variant->setting, self->our_cgroups);
	ksm_restore();
}

/* Compares the attacker's answers with @truth. */
static void judge(struct __test_metadata *_metadata, const struct setting *s,
		  const char *attack, const bool *truth, size_t nr, const struct tally *t,
		  const char *more)
{
	struct interval ci;
	size_t right = 0;

	for (size_t i = 0; i < nr; i++)
		right += sheet->answers[i] == truth[i];
	ci = confidence(right, nr);
	/* Without a ruler that works nothing is shown. */
	if (!ruler_works())
		SKIP(return, NOISE_REASON, sheet->refs_right, sheet->refs);
	report(s, attack, "%zu of %zu right, %.1f-%.1f %%%s", right, nr, ci.low, ci.high, more);
	if (s->leaks) {
		EXPECT_LT(50, ci.low);
		EXPECT_LT(0, t->common);
	} else {
		EXPECT_GE(50, ci.low);
		EXPECT_LE(50, ci.high);
		EXPECT_EQ(0, t->common);
	}
}

/* The victim has half of the candidates, and in the others' place something else. */
static char *victim_pages;

static void hold_half(int step)
{
	bool held[NR_CANDIDATES];

	if (step)
		return;
	toss(held, NR_CANDIDATES, COIN);
	victim_pages = party_map(VICTIM, NR_CANDIDATES);
	for (size_t i = 0; i < NR_CANDIDATES; i++)
		ksm_fill(ksm_page(victim_pages, i), (held[i] ? CANDIDATE : NOISE) + i);
	party_madvise(victim_pages, NR_CANDIDATES, MADV_MERGEABLE);
}

static void judge_held(struct __test_metadata *_metadata, const struct setting *s,
		       const char *attack, const struct tally *t)
{
	bool held[NR_CANDIDATES];

	toss(held, NR_CANDIDATES, COIN);
	judge(_metadata, s, attack, held, NR_CANDIDATES, t, "");
}

/*
 * A page that is shared has to be copied before it can be written to. The system call
 * writes it, as that is the same everywhere: where the processor has no dirty bits, a
 * process's own first write to any page takes a fault, and hides the copying behind it.
 */
static int all_bytes = -1;

static void open_all_bytes(void)
{
	all_bytes = memfd_create("bytes", 0);
	for (int i = 0; i < 256; i++) {
		unsigned char byte = i;

		if (write(all_bytes, &byte, 1) != 1)
			_exit(116);
	}
}

static __u64 time_write(size_t i)
{
	unsigned char *page = (unsigned char *)probe_page(i);
	off_t same = *page;
	__u64 start = ticks(), end;
	ssize_t n = pread(all_bytes, page, 1, same);

	end = ticks();
	if (n != 1)
		_exit(116);
	return end - start;
}

static void scan_and_write(int round)
{
	ask(SCAN);
	measure(round, time_write);
}

static void guess_by_write(void)
{
	open_all_bytes();
	probes_prepare(NR_CANDIDATES, 5);
	take_answers(scan_and_write, sheet->answers);
}

TEST_F_TIMEOUT(attack, write_time, KSM_TIMEOUT)
{
	struct tally t;

	ASSERT_TRUE(play(&variant->setting, hold_half, guess_by_write, &t));
	judge_held(_metadata, &variant->setting, "write time", &t);
}

#ifdef __x86_64__
/*
 * What is in the cache is there for everybody who shares it. The attacker throws its
 * lines out, the victim goes about its business, and what is quick to read then was
 * read by the victim. Each page has the line at another place, or they would all have
 * to fit in one set of the cache.
 */
static char *line_of(char *page, size_t i)
{
	return page + i * 37 % 31 * 64;
}

static void hold_half_and_read(int step)
{
	static size_t order[NR_CANDIDATES];

	hold_half(step);
	mixed_order(order, NR_CANDIDATES, 100 + step);
	for (size_t i = 0; step && i < NR_CANDIDATES; i++)
		FORCE_READ(*line_of(ksm_page(victim_pages, order[i]), order[i]));
}

/* Another line of the page comes first, so that only the cache makes a difference. */
static __u64 time_read(size_t i)
{
	char *line = line_of(probe_page(i), i);
	__u64 start;

	FORCE_READ(line[psize() / 2]);
	start = ticks();
	FORCE_READ(*line);
	return ticks() - start;
}

/* A few at once, as the cache forgets quickly. */
static void read_some(const size_t *some, size_t nr, int round)
{
	for (size_t i = 0; i < nr; i++)
		asm volatile("clflush (%0); mfence" ::
			     "r" (line_of(probe_page(some[i]), some[i])) : "memory");
	for (size_t i = 0; i < nr; i++) {
		size_t ref = some[i] - probes.nr;

		if (ref < REFS)
			FORCE_READ(*line_of(ksm_page(probes.twins, ref), some[i]));
	}
	victim_step();
	for (size_t i = 0; i < nr; i++)
		probes.samples[some[i]][round] = time_read(some[i]);
}

static void read_all(int round)
{
	static size_t order[NR_CANDIDATES + 2 * REFS];
	const size_t some = 20;

	mixed_order(order, nr_probes(), round);
	for (size_t i = 0; i < nr_probes(); i += some)
		read_some(order + i, some, round);
}

static void guess_by_read(void)
{
	probes_prepare(NR_CANDIDATES, 9);
	probes.rank = 0;	/* no line is there unless somebody has read it */
	ask(SCAN);
	take_answers(read_all, sheet->answers);
}

TEST_F_TIMEOUT(attack, read_time, KSM_TIMEOUT)
{
	struct tally t;

	ASSERT_TRUE(play(&variant->setting, hold_half_and_read, guess_by_read, &t));
	if (!ruler_works())
		SKIP(return, "cached or not takes the same time here");
	judge_held(_metadata, &variant->setting, "read time", &t);
}
#endif

/*
 * max_page_sharing = 2: the attacker's first page takes the place beside the victim's,
 * if that has the content, and then there is none left for the second. So that has a
 * frame of its own, which is to be freed when it is unmapped; and if it is merely
 * withdrawn from merging instead, it needs no copy. There is a hole behind each page, so
 * that each is a mapping of its own, and none has to be split.
 */
static char *second_page(size_t i)
{
	return ksm_page(probe_page(i), 2);
}

static __u64 time_unmap(size_t i)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	__u64 start = ticks(), end;

	munmap(second_page(i), psize());
	end = ticks();
	if (mmap(second_page(i), psize(), PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
		_exit(118);
	ksm_fill(second_page(i), probe_seed(i));
	return end - start;
}

static __u64 time_withdrawal(size_t i)
{
	__u64 start = ticks();

	party_madvise(second_page(i), 1, MADV_UNMERGEABLE);
	return ticks() - start;
}

static void prepare_pairs(void)
{
	probes_map(NR_CANDIDATES, 4, ROUNDS_MAX);
	for (size_t i = 0; i < nr_probes(); i++) {
		ksm_fill(probe_page(i), probe_seed(i));
		ksm_fill(second_page(i), probe_seed(i));
		munmap(ksm_page(probe_page(i), 1), psize());
		munmap(ksm_page(probe_page(i), 3), psize());
		party_madvise(probe_page(i), 1, MADV_MERGEABLE);
	}
	party_madvise(probes.twins, REFS, MADV_MERGEABLE);
	ask(SCAN);
}

static void offer_second_pages(void)
{
	for (size_t i = 0; i < nr_probes(); i++)
		party_madvise(second_page(i), 1, MADV_MERGEABLE);
	ask(SCAN);
}

static void offer_and_unmap(int round)
{
	offer_second_pages();
	measure(round, time_unmap);
}

static void offer_and_withdraw(int round)
{
	offer_second_pages();
	measure(round, time_withdrawal);
}

static void guess_by_unmap(void)
{
	prepare_pairs();
	take_answers(offer_and_unmap, sheet->answers);
}

static void guess_by_withdrawal(void)
{
	prepare_pairs();
	take_answers(offer_and_withdraw, sheet->answers);
}

TEST_F_TIMEOUT(attack, unmap_time, KSM_TIMEOUT)
{
	struct tally t;

	ASSERT_EQ(0, ksm_write("max_page_sharing", "2"));
	ASSERT_TRUE(play(&variant->setting, hold_half, guess_by_unmap, &t));
	judge_held(_metadata, &variant->setting, "unmap time", &t);
}

TEST_F_TIMEOUT(attack, withdrawal_time, KSM_TIMEOUT)
{
	struct tally t;

	ASSERT_EQ(0, ksm_write("max_page_sharing", "2"));
	ASSERT_TRUE(play(&variant->setting, hold_half, guess_by_withdrawal, &t));
	judge_held(_metadata, &variant->setting, "withdrawal time", &t);
}

/* Two who may not talk do it by a page for each bit, with a content agreed on or not. */
#define NR_BITS		500
#define NR_MESSAGES	4

static void message(bool *bits, int step)
{
	toss(bits, NR_BITS, COIN + step);
}

static __u64 agreed(int step, size_t bit)
{
	return CANDIDATE + step * NR_BITS + bit;
}

static void send_message(int step)
{
	bool bits[NR_BITS];

	if (!step)
		victim_pages = party_map(VICTIM, NR_BITS);
	message(bits, step);
	for (size_t i = 0; i < NR_BITS; i++)
		ksm_fill(ksm_page(victim_pages, i), bits[i] ? agreed(step, i) :
			 NOISE + agreed(step, i));
	if (!step)
		party_madvise(victim_pages, NR_BITS, MADV_MERGEABLE);
}

static void receive_messages(void)
{
	double start;

	open_all_bytes();
	probes_prepare(NR_BITS, 1);
	start = ksm_now();
	for (int step = 0; step < NR_MESSAGES; step++) {
		if (step)
			victim_step();
		for (size_t i = 0; step && i < NR_BITS; i++)
			ksm_fill(probe_page(i), agreed(step, i));
		take_answers(scan_and_write, sheet->answers + step * NR_BITS);
	}
	sheet->seconds = ksm_now() - start;
}

TEST_F_TIMEOUT(attack, covert_channel, KSM_TIMEOUT)
{
	bool bits[NR_MESSAGES * NR_BITS];
	char more[80] = "";
	struct tally t;

	for (int step = 0; step < NR_MESSAGES; step++)
		message(bits + step * NR_BITS, step);
	ASSERT_TRUE(play(&variant->setting, send_message, receive_messages, &t));
	if (variant->setting.leaks)
		snprintf(more, sizeof(more), ", %.0f bits/s, %d a pass",
			 NR_MESSAGES * NR_BITS / sheet->seconds, NR_BITS / PASSES);
	judge(_metadata, &variant->setting, "covert channel", bits, ARRAY_SIZE(bits), &t, more);
}

/*
 * A secret behind something that the attacker may send, at an offset that is up to the
 * length of that: so that the page ends behind the first byte of the secret, then behind
 * the second... All that is unknown of each such page is its last byte.
 */
#define ALPHABET	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
#define NR_SYMBOLS	(sizeof(ALPHABET) - 1)
#define SECRET_LEN	16

static void invent_secret(char *secret)
{
	for (size_t i = 0; i < SECRET_LEN; i++)
		secret[i] = ALPHABET[ksm_word(COIN, i) % NR_SYMBOLS];
}

/* What was sent, and @known bytes of the secret. */
static void fill_request(char *page, const char *secret, size_t known)
{
	memset(page, 'A', psize() - known);
	memcpy(page + psize() - known, secret, known);
}

static void keep_secret(int step)
{
	char secret[SECRET_LEN];

	invent_secret(secret);
	if (!step)
		victim_pages = party_map(VICTIM, 1);
	fill_request(victim_pages, secret, step + 1);
	if (!step)
		party_madvise(victim_pages, 1, MADV_MERGEABLE);
}

/* The symbol that stands out among those that were with a twin; NR_SYMBOLS if none does. */
static size_t clear_winner(const int *votes)
{
	size_t first = 0, second = 1;

	for (size_t i = 1; i < NR_SYMBOLS; i++) {
		if (votes[i] > votes[first]) {
			second = first;
			first = i;
		} else if (i == 1 || votes[i] > votes[second]) {
			second = i;
		}
	}
	return votes[first] > 2 && votes[first] - votes[second] > 1 ? first : NR_SYMBOLS;
}

/* A single answer may be wrong, and all that is built on it. */
static size_t find_symbol(size_t known)
{
	size_t winner = NR_SYMBOLS;
	int votes[NR_SYMBOLS] = {};

	for (size_t i = 0; i < NR_SYMBOLS; i++) {
		sheet->text[known] = ALPHABET[i];
		fill_request(probe_page(i), sheet->text, known + 1);
	}
	for (int tries = 0; tries < 12 && winner == NR_SYMBOLS; tries++) {
		take_answers(scan_and_write, sheet->answers);
		for (size_t i = 0; i < NR_SYMBOLS; i++)
			votes[i] += sheet->answers[i];
		winner = clear_winner(votes);
	}
	return winner;
}

static void guess_secret(void)
{
	size_t known, symbol;

	open_all_bytes();
	probes_prepare(NR_SYMBOLS, 9);
	for (known = 0; known < SECRET_LEN; known++) {
		symbol = find_symbol(known);
		sheet->text[known] = symbol == NR_SYMBOLS ? '?' : ALPHABET[symbol];
		if (symbol == NR_SYMBOLS)
			break;
		victim_step();
	}
}

TEST_F_TIMEOUT(attack, content_guessing, KSM_TIMEOUT)
{
	const struct setting *s = &variant->setting;
	char secret[SECRET_LEN];
	size_t right = 0;
	struct tally t;

	invent_secret(secret);
	ASSERT_TRUE(play(s, keep_secret, guess_secret, &t));
	while (right < SECRET_LEN && sheet->text[right] == secret[right])
		right++;
	if (!ruler_works())
		SKIP(return, NOISE_REASON, sheet->refs_right, sheet->refs);
	report(s, "content guessing", "%zu of %d bytes of the secret", right, SECRET_LEN);
	if (s->leaks) {
		EXPECT_LT(SECRET_LEN / 2, right);
	} else {
		EXPECT_GE(1, right);	/* even that will be by luck */
		EXPECT_EQ(0, t.common);
	}
}

/*
 * Which frame is it that becomes shared? Who can have it be one of its own choice moves a
 * victim's data to where its bits flip (Rowhammer). The frames are looked up as root, to
 * see the truth: an attacker knows its own well enough by other means.
 */
#define NR_CHOSEN	512
#define NR_FREED	20000
#define NR_PAIRS	10000
#define NR_LEFT		128

FIXTURE(frame) {};

FIXTURE_VARIANT(frame)
{
	struct setting setting;
	const char *fresh_frames;
};

FIXTURE_VARIANT_ADD(frame, global)
{
	.setting = { .name = "global", .leaks = true },
};

FIXTURE_VARIANT_ADD(frame, fresh_frames)
{
	.setting = { .name = "fresh_frames" },
	.fresh_frames = "1",
};

FIXTURE_SETUP(frame)
{
	const char *why_not = ksm_setup();

	if (!why_not && variant->fresh_frames && !ksm_has("fresh_frames"))
		why_not = "kernel without fresh_frames";
	if (why_not)
		SKIP(return, "%s", why_not);
	sheet = sheet_new();
	ASSERT_EQ(0, variant->fresh_frames ? ksm_write("fresh_frames", variant->fresh_frames) : 0);
}

FIXTURE_TEARDOWN_PARENT(frame)
{
	ksm_restore();
}

static void fill_chosen(char *addr, size_t first, size_t nr)
{
	ksm_fill_pages(ksm_page(addr, first), nr, CANDIDATE + first, 1);
}

/* Half of the contents are there before the attacker's, the others come later. */
static void hold_chosen(int step)
{
	const size_t half = NR_CHOSEN / 2;

	if (!step) {
		victim_pages = party_map(VICTIM, NR_CHOSEN);
		ksm_fill_pages(victim_pages, NR_CHOSEN, NOISE, 1);
		party_madvise(victim_pages, NR_CHOSEN, MADV_MERGEABLE);
	}
	fill_chosen(victim_pages, step * half, half);
}

static void offer_frames(void)
{
	char *addr = party_map(ATTACKER, NR_CHOSEN);

	fill_chosen(addr, 0, NR_CHOSEN);
	party_madvise(addr, NR_CHOSEN, MADV_MERGEABLE);
	ask(NOTE);
	ask(SCAN);
	victim_step();
	ask(SCAN);
}

/* The attacker's page has the same content; its frame is not to be the victim's. */
TEST_F_TIMEOUT(frame, own_frame, KSM_TIMEOUT)
{
	const struct setting *s = &variant->setting;
	struct tally t;

	ASSERT_TRUE(play(s, hold_chosen, offer_frames, &t));
	report(s, "own frame", "%zu of %zu shared frames", t.own[ATTACKER], t.common);
	EXPECT_EQ(NR_CHOSEN, t.common);
	if (s->leaks) {
		EXPECT_LT(NR_CHOSEN / 8, t.own[ATTACKER]);
	} else {
		EXPECT_EQ(0, t.own[ATTACKER]);
		EXPECT_EQ(0, t.own[VICTIM]);
	}
}

/* The victim has no memory before the attacker has let go of its own. */
static void arrive_late(int step)
{
	if (!step)
		victim_pages = party_map(VICTIM, NR_CHOSEN);
	if (step != 1)
		return;
	fill_chosen(victim_pages, 0, NR_CHOSEN);
	party_madvise(victim_pages, NR_CHOSEN, MADV_MERGEABLE);
}

/* Half of the contents are there before the victim's, the others come later. */
static void leave_frames(void)
{
	char *freed = party_map(ATTACKER, NR_FREED), *addr;
	const size_t half = NR_CHOSEN / 2;

	ksm_fill_pages(freed, NR_FREED, REFERENCE, 1);
	ask(NOTE);
	addr = party_map(ATTACKER, NR_CHOSEN);
	fill_chosen(addr, 0, half);
	ksm_fill_pages(ksm_page(addr, half), half, NOISE, 1);
	party_madvise(addr, NR_CHOSEN, MADV_MERGEABLE);
	munmap(freed, NR_FREED * psize());
	victim_step();
	ask(SCAN);
	fill_chosen(addr, half, half);
	ask(SCAN);
}

/*
 * The attacker lets go of frames, and what is allocated next gets them. With frames out
 * of a random pool a few may come back: those by which the pool was filled up meanwhile.
 */
TEST_F_TIMEOUT(frame, freed_frame, KSM_TIMEOUT)
{
	const struct setting *s = &variant->setting;
	struct tally t;

	ASSERT_TRUE(play(s, arrive_late, leave_frames, &t));
	report(s, "freed frame", "%zu of %zu shared frames", t.known, t.common);
	EXPECT_EQ(NR_CHOSEN, t.common);
	EXPECT_LE(s->leaks ? NR_CHOSEN / 8 : 0, t.known);
	EXPECT_GE(s->leaks ? NR_CHOSEN : NR_CHOSEN / 10, t.known);
}

/*
 * What is true of random frames: of those that are free so many in a hundred are some that
 * the attacker has let go of. They come in blocks, so that luck may have it twice that.
 */
static size_t fair_share(size_t freed)
{
	size_t free = ksm_vmstat("nr_free_pages");

	return NR_CHOSEN * freed / free + NR_CHOSEN / 6;
}

/* The frames of all these pairs are free by the time that the victim comes. */
static void merge_pairs(void)
{
	char *pairs = party_map(ATTACKER, 2 * NR_PAIRS), *addr;

	ksm_fill_pages(pairs, NR_PAIRS, REFERENCE, 1);
	ksm_fill_pages(ksm_page(pairs, NR_PAIRS), NR_PAIRS, REFERENCE, 1);
	ask(NOTE);
	party_madvise(pairs, 2 * NR_PAIRS, MADV_MERGEABLE);
	addr = party_map(ATTACKER, NR_CHOSEN);
	ask(SCAN);
	victim_step();
	fill_chosen(addr, 0, NR_CHOSEN);
	party_madvise(addr, NR_CHOSEN, MADV_MERGEABLE);
	ask(SCAN);
}

/*
 * The attacker merges so much of its own that all frames in a pool have gone, several
 * times over, and those that it had before would have come in their place.
 */
TEST_F_TIMEOUT(frame, poisoned_pool, KSM_TIMEOUT)
{
	const struct setting *s = &variant->setting;
	struct tally t;

	ASSERT_TRUE(play(s, arrive_late, merge_pairs, &t));
	report(s, "poisoned pool", "%zu of %zu shared frames", t.known, t.common);
	EXPECT_EQ(NR_CHOSEN, t.common);
	EXPECT_LE(s->leaks ? NR_CHOSEN / 8 : 0, t.known);
	EXPECT_GE(s->leaks ? NR_CHOSEN : fair_share(2 * NR_PAIRS), t.known);
}

/* Takes a page of memory whenever the attacker has let go of one. */
static void take_one_more(int step)
{
	if (!step)
		victim_pages = party_map(VICTIM, NR_LEFT);
	else
		*ksm_page(victim_pages, step - 1) = 1;
}

/* Two pages with each content, which are written one after the other. */
static void write_to_pairs(void)
{
	char *addr = party_map(ATTACKER, 2 * NR_LEFT), *others = ksm_page(addr, NR_LEFT);

	ksm_fill_pages(addr, NR_LEFT, CANDIDATE, 1);
	ksm_fill_pages(others, NR_LEFT, CANDIDATE, 1);
	party_madvise(addr, 2 * NR_LEFT, MADV_MERGEABLE);
	ask(SCAN);
	ask(NOTE);
	for (size_t i = 0; i < NR_LEFT; i++) {
		*ksm_page(addr, i) = 1;
		*ksm_page(others, i) = 1;
		victim_step();
	}
	ask(SCAN);
}

/*
 * The last who shares a page writes to it, and what has been shared is free. Whatever is
 * in the pool by then comes out again in time, though nobody knows when.
 */
TEST_F_TIMEOUT(frame, left_frame, KSM_TIMEOUT)
{
	const struct setting *s = &variant->setting;
	struct tally t;

	ASSERT_TRUE(play(s, take_one_more, write_to_pairs, &t));
	report(s, "left frame", "%zu of %d frames", t.inherited, NR_LEFT);
	EXPECT_LE(s->leaks ? NR_LEFT / 2 : 0, t.inherited);
	EXPECT_GE(s->leaks ? NR_LEFT : NR_LEFT / 4, t.inherited);
}

TEST_HARNESS_MAIN
