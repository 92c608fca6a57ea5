// SPDX-License-Identifier: GPL-2.0-only
/*
 * Figures that are derived from the engine's counters.
 *
 * The counters themselves are moved where the state changes: item.c, chain.c and
 * the scan. They are read one by one without a lock, so that a difference of two
 * of them may be off by what happens meanwhile.
 */
#include "ksm_internal.h"
#include "ksm.h"

/*
 * Zero pages mapped by KSM, in all mms. Not of an engine: it is counted where a zap
 * or a fault takes such a page away, which know of none.
 */
atomic_long_t ksm_zero_pages;

/**
 * ksm_stats_volatile() - pages that are known but in no tree
 * @engine: the engine
 *
 * Return: their number; never negative, although the counters may race.
 */
long ksm_stats_volatile(struct ksm_engine *engine)
{
	long pages = ksm_stat_read(engine, KSM_STAT_TRACKED) -
		     ksm_stat_read(engine, KSM_STAT_SHARED) -
		     ksm_stat_read(engine, KSM_STAT_SHARING) -
		     ksm_stat_read(engine, KSM_STAT_UNSHARED);

	return pages < 0 ? 0 : pages;
}

/**
 * ksm_stats_profit() - memory saved, less what saving it costs
 * @engine: the engine
 * @zero_pages: pages that are mapped to the zero page instead of their own
 *
 * Return: bytes; negative while chunks, slots and rmap items outweigh the savings.
 */
long ksm_stats_profit(struct ksm_engine *engine, long zero_pages)
{
	long saved = ksm_stat_read(engine, KSM_STAT_SHARING) + zero_pages;

	return saved * (long)PAGE_SIZE - ksm_stat_read(engine, KSM_STAT_BYTES);
}
