// SPDX-License-Identifier: GPL-2.0-only
/*
 * What to do with a page, and how fast: arithmetic without side effects.
 *
 * Two questions are answered per page. Is it worth a look in this pass (smart
 * scan)? And may it be merged now? A page whose content is shared already may be
 * merged at first sight. But merging a page that is written again at once costs a
 * fault and a copy, for nothing; so a page that was un-merged by a write has to
 * stay unchanged for some visits, and for more of them the more often that
 * happened. Staying merged pays the debt back. New pages of a region where this goes on
 * are treated likewise.
 *
 * One question is answered at the end of each pass, and in a long one from time to
 * time: how many pages to scan per wake-up so that a pass takes as long as the
 * administrator wants (the scan-time advisor). Within a pass the answer rests on a
 * projection. What has been scanned so far stands for the rest of it: the time that
 * ksmd slept goes with the number of wake-ups, and so is carried over to each new
 * rate; the time that it ran goes with the number of pages, at any rate.
 */
#include "ksm_internal.h"
#include "ksm.h"

#define KSM_MAX_AGE	15
#define KSM_MAX_CALM	3
#define KSM_MAX_COWS	3

/* Pages of a chunk that have to be un-merged in a pass or two to make it a hot one. */
#define KSM_HOT_COWS	16

/* Advice within a pass: how often in the wanted time, and after what part of it. */
#define KSM_ADVICES	16
#define KSM_SAMPLE	256
/* Longer than anything that is measured, and two of them can be added. */
#define KSM_FOREVER_NS	((u64)S64_MAX)

/* Time between two passes that count, at the least: the clock of all that is done rarely. */
#define KSM_EPOCH_MS	250

/* So long an mm is new, and so many of its pages may be tried meanwhile. */
#define KSM_NEW_MS	5000
#define KSM_NEW_PAGES	64

/* Unchanged visits that a page needs before it is merged, by history.cows. */
static const u8 ksm_calm_needed[KSM_MAX_COWS + 1] = { 0, 1, 1, 3 };

/* Passes that smart scan leaves a page alone between two looks, by its age. */
static const u8 ksm_skips_by_age[KSM_MAX_AGE + 1] = {
	0, 0, 0, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8
};

/**
 * ksm_policy_skip() - should smart scan pass a page over?
 * @history: of the page; counts the visit
 *
 * In its first passes a page is looked at each time, to go through all the phases
 * of merging. Then the looks become rarer, down to one in nine passes.
 *
 * Return: true if the page is to be left alone in this pass.
 */
bool ksm_policy_skip(struct ksm_history *history)
{
	if (history->skips) {
		history->skips--;
		return true;
	}
	history->skips = ksm_skips_by_age[history->age];
	if (history->age < KSM_MAX_AGE)
		history->age++;
	return false;
}

/**
 * ksm_policy_seen() - a page's content was looked at
 * @history: of the page
 * @same: it is what it was at the visit before
 */
void ksm_policy_seen(struct ksm_history *history, bool same)
{
	if (!same)
		history->calm = 0;
	else if (history->calm < KSM_MAX_CALM)
		history->calm++;
}

/**
 * ksm_policy_unmerged() - a merged page was found to be written and un-merged
 * @history: of the page
 */
void ksm_policy_unmerged(struct ksm_history *history)
{
	*history = (struct ksm_history) {
		.cows = min(history->cows + 1, KSM_MAX_COWS),
	};
}

/**
 * ksm_policy_still_merged() - a merged page was found to be merged still
 * @history: of the page
 */
void ksm_policy_still_merged(struct ksm_history *history)
{
	if (history->cows)
		history->cows--;
}

static void ksm_policy_cool(struct ksm_heat *heat, unsigned long pass)
{
	const u8 passes = (u8)pass - heat->pass;

	heat->cows >>= min(passes, 8);
	heat->pass = pass;
}

/**
 * ksm_policy_heat() - a page of a region was found to be un-merged by a write
 * @heat: of the region
 * @pass: number of this pass
 */
void ksm_policy_heat(struct ksm_heat *heat, unsigned long pass)
{
	ksm_policy_cool(heat, pass);
	if (heat->cows < U8_MAX)
		heat->cows++;
}

/**
 * ksm_policy_new_in() - a page was found for the first time
 * @history: of the page, as yet empty
 * @heat: of the region that it is in
 * @pass: number of this pass
 *
 * Where many pages are un-merged a new one will be, too: it starts as if that had
 * happened to it once.
 */
void ksm_policy_new_in(struct ksm_history *history, struct ksm_heat *heat,
		       unsigned long pass)
{
	ksm_policy_cool(heat, pass);
	if (heat->cows >= KSM_HOT_COWS)
		history->cows = 1;
}

/**
 * ksm_policy_may_merge() - may a page be merged with one that is merged already?
 * @history: of the page, this visit included
 *
 * Return: true, at first sight even, unless writes keep un-merging the page.
 */
bool ksm_policy_may_merge(const struct ksm_history *history)
{
	return history->calm >= ksm_calm_needed[history->cows];
}

/**
 * ksm_policy_may_park() - may a page wait for an equal in the unstable tree?
 * @history: of the page, this visit included
 *
 * Return: true if it was seen unchanged, so that it is no passing content.
 */
bool ksm_policy_may_park(const struct ksm_history *history)
{
	return history->calm && ksm_policy_may_merge(history);
}

/**
 * ksm_policy_begin_pass() - does the pass that begins count?
 * @epoch: the passes so far
 * @now: the moment, in jiffies
 *
 * Passes may take hours, or less than a millisecond. What is done once in so many passes
 * that count is done no more often than that in time, and in a long pass no less often.
 */
void ksm_policy_begin_pass(struct ksm_epoch *epoch, unsigned long now)
{
	epoch->counts = !epoch->nr ||
			now - epoch->began >= msecs_to_jiffies(KSM_EPOCH_MS);
	if (!epoch->counts)
		return;
	epoch->nr++;
	epoch->began = now;
}

/**
 * ksm_policy_is_turn() - is a chunk to have what is done once in so many passes?
 * @epoch: the passes so far
 * @index: number of the chunk; neighbours have their turns one after the other
 * @every: once in so many passes that count
 *
 * Return: whether it is in this one.
 */
bool ksm_policy_is_turn(const struct ksm_epoch *epoch, unsigned long index,
			unsigned int every)
{
	return epoch->counts && !((epoch->nr + index) % every);
}

/**
 * ksm_policy_may_try() - may it be tried whether a page keeps still?
 * @born: when the mm was registered, in jiffies
 * @now: the moment
 * @tried: pages that were tried since then
 *
 * To try it is to clear the dirty bit, which may cost the next writer a fault. A process
 * that has just started writes to most of its memory again. Many are over before it
 * would have paid, and what they write is read in each pass until then.
 *
 * Return: true, but for more than a few pages of a new mm.
 */
bool ksm_policy_may_try(unsigned long born, unsigned long now, unsigned int tried)
{
	return tried < KSM_NEW_PAGES || now - born >= msecs_to_jiffies(KSM_NEW_MS);
}

/**
 * ksm_policy_shard_bits() - into how many shards to cut the trees
 * @nr_pages: memory that there is to scan
 *
 * Each level of a tree is a cache miss. A shard for 32 pages keeps trees lower than
 * that, at a price of less than a byte per page.
 *
 * Return: log2 of the number of shards, between 4 and 20.
 */
unsigned int ksm_policy_shard_bits(unsigned long nr_pages)
{
	return clamp(ilog2(nr_pages / 32 + 1), 4, 20);
}

/* A third of the way from @from to @to. */
static u64 ksm_third_of_way(u64 from, u64 to)
{
	return to > from ? from + div_u64(to - from + 2, 3) :
			   from - div_u64(from - to, 3);
}

/**
 * ksm_policy_advise() - how many pages to scan per wake-up from now on
 * @knobs: settings
 * @scan_ns: time that a pass takes at the present pages_to_scan
 * @cpu_ns: CPU time that it takes
 *
 * The pass would take the wanted time with pages_to_scan changed in
 * proportion. Go a third of the way there, so that one odd pass does not upset the
 * rate. Then keep to the CPU limit, assuming that CPU use goes with the rate, and
 * to the limits in pages; of these the maximum has the last word. The result is
 * never 0: that would end the pass, and with it the advisor, for good.
 *
 * Return: the new rate, and the figures behind it.
 */
struct ksm_advice ksm_policy_advise(const struct ksm_knobs *knobs,
				    u64 scan_ns, u64 cpu_ns)
{
	u64 scan_ms = max(div_u64(scan_ns, NSEC_PER_MSEC), 1ULL);
	u64 target_ms = clamp_t(u64, READ_ONCE(knobs->advisor_target_secs), 1, U32_MAX) *
			MSEC_PER_SEC;
	u64 old = max(READ_ONCE(knobs->pages_to_scan), 1U);
	u64 cpu_percent = clamp(div64_u64(cpu_ns, scan_ms * 10000), 1ULL, 100ULL);
	u64 max_cpu = clamp(READ_ONCE(knobs->advisor_max_cpu), 1UL, 100UL);
	u64 pages;

	scan_ms = min_t(u64, scan_ms, U32_MAX);
	pages = ksm_third_of_way(old, div64_u64(old * scan_ms, target_ms));
	pages = max_t(u64, pages, READ_ONCE(knobs->advisor_min_pages));
	pages = min(pages, max(div64_u64(old * max_cpu, cpu_percent), 1ULL));
	pages = min_t(u64, pages, READ_ONCE(knobs->advisor_max_pages));

	return (struct ksm_advice) {
		.pages_to_scan = clamp_t(u64, pages, 1, UINT_MAX),
		.scan_secs = max(div_u64(scan_ms, MSEC_PER_SEC), 1ULL),
		.cpu_percent = cpu_percent,
	};
}

/* @n * @mul / @div; no more than KSM_FOREVER_NS, as x86 traps on an overflow. */
static u64 ksm_scale(u64 n, u64 mul, u64 div)
{
	if (div64_u64(n, div) >= div64_u64(KSM_FOREVER_NS, mul))
		return KSM_FOREVER_NS;
	return mul_u64_u64_div_u64(n, mul, div);
}

/* Since the last advice: time that went by while ksmd was not running. */
static u64 ksm_advisor_slept(const struct ksm_advisor *advisor,
			     const struct ksm_reading *now)
{
	u64 all = now->now_ns - advisor->last.now_ns;

	return all - min(all, now->cpu_ns - advisor->last.cpu_ns);
}

/* The pages that were come past stand for @total pages. */
static struct ksm_advice ksm_advisor_conclude(struct ksm_advisor *advisor,
					      const struct ksm_knobs *knobs,
					      const struct ksm_reading *now,
					      unsigned long total)
{
	u64 asleep = advisor->asleep_ns + ksm_advisor_slept(advisor, now);
	u64 awake = now->cpu_ns - advisor->first.cpu_ns;
	unsigned long done = now->pages - advisor->first.pages;
	struct ksm_advice advice;

	if (total == done)
		advice = ksm_policy_advise(knobs, asleep + awake, awake);
	else
		advice = ksm_policy_advise(knobs, ksm_scale(asleep + awake, total, done),
					   ksm_scale(awake, total, done));
	advisor->asleep_ns = ksm_scale(asleep, max(READ_ONCE(knobs->pages_to_scan), 1U),
				       advice.pages_to_scan);
	advisor->last = *now;
	return advice;
}

/**
 * ksm_policy_watch() - begin to watch a pass
 * @advisor: the advisor
 * @now: the moment
 * @whole: it is the start of the pass
 */
void ksm_policy_watch(struct ksm_advisor *advisor, const struct ksm_reading *now,
		      bool whole)
{
	advisor->watching = true;
	advisor->whole = whole;
	advisor->first = *now;
	advisor->last = *now;
	advisor->asleep_ns = 0;
}

/**
 * ksm_policy_expect() - foresee how many pages a full pass comes past
 * @advisor: the advisor
 * @anon: anonymous pages of the registered mms, on offer or not
 *
 * As many as the last one, and those that are new since then: what was there is known
 * not to be on offer, of what is new it may all be. If memory was freed, that
 * shows when the pass is over: then it was short.
 */
void ksm_policy_expect(struct ksm_advisor *advisor, unsigned long anon)
{
	advisor->expected_pages = advisor->pass_pages;
	if (anon > advisor->pass_anon)
		advisor->expected_pages += anon - advisor->pass_anon;
}

/**
 * ksm_policy_is_due() - is it time for advice within the pass?
 * @advisor: the advisor, which watches
 * @knobs: settings
 * @now: the moment
 *
 * It takes time to see what the last advice has brought, and some part of the pass
 * to conclude from it to the rest.
 *
 * Return: whether to go on to ksm_policy_advise_within().
 */
bool ksm_policy_is_due(const struct ksm_advisor *advisor,
		       const struct ksm_knobs *knobs, const struct ksm_reading *now)
{
	u64 target_ns = clamp_t(u64, READ_ONCE(knobs->advisor_target_secs), 1, U32_MAX) *
			NSEC_PER_SEC;

	return now->now_ns - advisor->last.now_ns >= target_ns / KSM_ADVICES &&
	       now->pages - advisor->first.pages > advisor->expected_pages / KSM_SAMPLE;
}

/**
 * ksm_policy_advise_within() - how many pages to scan per wake-up from now on
 * @advisor: the advisor, when advice is due; takes the advice as followed
 * @knobs: settings
 * @now: the moment
 *
 * All that was seen of the pass counts, not only what came since the last advice.
 * Pages that are passed over cost next to no time, and come in clusters: whatever
 * stretch of time is looked at, it is mostly one of the others, and would make the
 * pass seem longer than it is.
 *
 * Return: the new rate, and the projected figures behind it.
 */
struct ksm_advice ksm_policy_advise_within(struct ksm_advisor *advisor,
					   const struct ksm_knobs *knobs,
					   const struct ksm_reading *now)
{
	unsigned long done = now->pages - advisor->first.pages;

	return ksm_advisor_conclude(advisor, knobs, now,
				    max(done, advisor->expected_pages));
}

/**
 * ksm_policy_advise_after() - advise at the end of a pass
 * @advisor: the advisor, which has watched from its start; takes note of its size
 * @knobs: settings
 * @now: the moment
 * @anon: anonymous pages of the registered mms, on offer or not
 *
 * Return: the new rate, and the figures behind it: of the pass, as it would have been
 * at the rate that it ended with.
 */
struct ksm_advice ksm_policy_advise_after(struct ksm_advisor *advisor,
					  const struct ksm_knobs *knobs,
					  const struct ksm_reading *now,
					  unsigned long anon)
{
	advisor->pass_pages = now->pages - advisor->first.pages;
	advisor->pass_anon = anon;
	return ksm_advisor_conclude(advisor, knobs, now, advisor->pass_pages);
}
