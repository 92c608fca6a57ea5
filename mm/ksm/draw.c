// SPDX-License-Identifier: GPL-2.0-only
/*
 * Drawing: free frames by lot.
 *
 * The page allocator gives out first what was freed last. Whoever frees many frames
 * before somebody else allocates has chosen what that gets, however late and however
 * many at a time: a pool that is refilled from there fills with one party's frames.
 *
 * So frames are drawn. An aligned window of KSM_DRAW_FRAMES of the node is picked at
 * random, and all frames in it that are free are taken, whatever blocks they are in. Each
 * free frame is in one window, so it is as likely as any other, whoever had it, whenever
 * it was freed, and whatever is free beside it. If a party has let go of n of the F frames
 * that are free, each frame that is drawn is one of them with a chance of n / F. No choice
 * among free frames can promise less: who has let go of all that is free is met for
 * certain.
 *
 * To pick a block, by one of its frames, would not do: a block of 32 frames is met 32
 * times as often as one of a single frame, and gives as many more.
 *
 * Windows, not single frames, are taken so that free memory is not broken into crumbs,
 * and so that the price of the draws in vain, which rises as memory fills up, is shared.
 * The frames of a window have their luck in common, the expectation stays.
 *
 * Only free memory for movable pages counts: what the allocator keeps for unmovable
 * ones, and CMA areas, are left alone. So are zones that are down to their low watermark,
 * and frames that are in the caches of CPUs.
 */
#include "ksm_internal.h"
#include "ksm.h"

#define KSM_DRAW_GFP	(GFP_HIGHUSER_MOVABLE | __GFP_THISNODE)

/* Where one frame in a hundred is free, a window in four has some. */
#define KSM_DRAW_TRIES	64

/* The first page of a window of the node, or of what is there of it; NULL if nothing is. */
static struct page *ksm_draw_window(int nid)
{
	pg_data_t *pgdat = NODE_DATA(nid);
	unsigned long first = pgdat->node_start_pfn / KSM_DRAW_FRAMES;
	unsigned long nr = DIV_ROUND_UP(pgdat_end_pfn(pgdat), KSM_DRAW_FRAMES) - first;
	struct page *page;

	if (!pgdat->node_spanned_pages)
		return NULL;
	page = pfn_to_online_page((first + get_random_long() % nr) * KSM_DRAW_FRAMES);
	return page && page_to_nid(page) == nid ? page : NULL;
}

/* Of the free block that begins at or before a page; NULL if the page is not free. */
static struct page *ksm_draw_head(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	unsigned int order;

	lockdep_assert_held(&page_zone(page)->lock);
	for (order = 0; order < NR_PAGE_ORDERS; order++) {
		struct page *head = page - (pfn & ((1UL << order) - 1));

		if (PageBuddy(head) && buddy_order(head) >= order)
			return head;
	}
	return NULL;
}

/* May a window's frames be taken from the zone, and leave enough for others? */
static bool ksm_draw_may(struct zone *zone)
{
	return zone_watermark_ok(zone, 0, low_wmark_pages(zone) + KSM_DRAW_FRAMES,
				 gfp_zone(KSM_DRAW_GFP), 0);
}

/*
 * Take a free block that begins with @page; or, of one that is larger than a window, the
 * one that begins with @page. Return: how many frames that is, with no reference; 0 if
 * they are not for us.
 */
static unsigned int ksm_draw_isolate(struct page *page, struct page *head)
{
	unsigned int order = buddy_order(head);
	int mt = get_pageblock_migratetype(head);
	struct page *rest;

	if (mt != gfp_migratetype(KSM_DRAW_GFP) || !__isolate_free_page(head, order))
		return 0;
	while (order > KSM_DRAW_ORDER) {
		rest = head + (1UL << --order);
		if (page >= rest)
			swap(head, rest);
		__putback_isolated_page(rest, order, mt);
	}
	return 1U << order;
}

/* All frames of a window that are free and in @zone. Return: their number. */
static unsigned int ksm_draw_take(struct zone *zone, struct page *window,
				  struct page **frames)
{
	struct page *head = ksm_draw_head(window);
	unsigned int i, got, nr = 0;

	lockdep_assert_held(&zone->lock);
	for (i = 0; i < KSM_DRAW_FRAMES; i += got ?: 1) {
		got = 0;
		if (i)
			head = PageBuddy(window + i) ? window + i : NULL;
		if (!head || page_zone(head) != zone)
			continue;
		got = ksm_draw_isolate(window + i, head);
		for (unsigned int j = 0; j < got; j++)
			frames[nr++] = window + i + j;
	}
	return nr;
}

/* Now it is a page like any that the page allocator gives out. */
static struct page *ksm_draw_finish_noprof(struct page *page)
{
	post_alloc_hook(page, 0, KSM_DRAW_GFP, ALLOC_DEFAULT);
	set_page_refcounted(page);
	return page;
}

#define ksm_draw_finish(...)	alloc_hooks(ksm_draw_finish_noprof(__VA_ARGS__))

/**
 * ksm_draw_redo() - have a frame be like one that has just been drawn
 * @page: the page; with no reference, on no list, and charged to nobody
 *
 * For a frame that is to change hands without going by the page allocator: what that
 * does when a page is freed and allocated again is done, so that nothing of its former
 * use is left, nor missing that the next user relies on.
 *
 * Return: whether it is good, and has one reference; else its memory has failed, and it
 * stays out of use.
 */
bool ksm_draw_redo(struct page *page)
{
	if (!free_pages_prepare(page, 0))
		return false;
	return ksm_draw_finish(page);
}

/**
 * ksm_draw_frames() - draw some of the free frames of a node
 * @nid: the node
 * @frames: room for KSM_DRAW_FRAMES
 *
 * Context: any, but for interrupts.
 * Return: their number, each with a reference; 0 if none was met.
 */
unsigned int ksm_draw_frames(int nid, struct page **frames)
{
	unsigned int try, i, nr = 0;
	struct page *window;
	unsigned long flags;
	struct zone *zone;

	for (try = 0; !nr && try < KSM_DRAW_TRIES; try++) {
		window = ksm_draw_window(nid);
		zone = window ? page_zone(window) : NULL;
		if (!zone || !ksm_draw_may(zone))
			continue;
		spin_lock_irqsave(&zone->lock, flags);
		nr = ksm_draw_take(zone, window, frames);
		spin_unlock_irqrestore(&zone->lock, flags);
	}
	for (i = 0; i < nr; i++)
		ksm_draw_finish(frames[i]);
	return nr;
}
