// SPDX-License-Identifier: GPL-2.0-only
/*
 * Drawing: free frames by lot.
 *
 * The page allocator gives out first what was freed last. Whoever frees many frames
 * before somebody else allocates has chosen what that gets, however late and however
 * many at a time: a pool that is refilled from there fills with one party's frames.
 *
 * So frames are drawn. A frame number of the node is picked at random; if it lies in a
 * free block, that block is taken, or the aligned part of it that the frame is in.
 * Each free frame is as likely as any other, whoever had it and whenever it was freed.
 * If a party has let go of n of the F frames that are free, each frame that is drawn is
 * one of them with a chance of n / F. No choice among free frames can promise less: who
 * has let go of all that is free is met for certain.
 *
 * Blocks, not single frames, are taken so that free memory is not broken into crumbs,
 * and so that the price of the draws in vain, which rises as memory fills up, is shared.
 * The frames of a block have their luck in common, the expectation stays.
 *
 * Only free memory for movable pages counts: what the allocator keeps for unmovable
 * ones, and CMA areas, are left alone. So are the last frames above the low watermark.
 */
#include "ksm_internal.h"
#include "ksm.h"

#define KSM_DRAW_GFP	(GFP_HIGHUSER_MOVABLE | __GFP_THISNODE)

/* Memory of which less than a hundredth is free is searched in vain now and then. */
#define KSM_DRAW_TRIES	512

/* A page that seems to be free; without a lock, so that this is a hint. */
static struct page *ksm_draw_page(int nid)
{
	pg_data_t *pgdat = NODE_DATA(nid);
	unsigned long pfn = pgdat->node_start_pfn;
	struct page *page;

	if (!pgdat->node_spanned_pages)
		return NULL;
	pfn += get_random_long() % pgdat->node_spanned_pages;
	page = pfn_to_online_page(pfn);
	if (page && page_to_nid(page) == nid && is_free_buddy_page(page))
		return page;
	return NULL;
}

/* The first page of the free block that a page lies in, if it does. */
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

/* May so many pages be taken from the block, and leave enough for others? */
static bool ksm_draw_may(struct zone *zone, struct page *head, unsigned int order)
{
	return get_pageblock_migratetype(head) == gfp_migratetype(KSM_DRAW_GFP) &&
	       zone_watermark_ok(zone, 0, low_wmark_pages(zone) + (1UL << order),
				 gfp_zone(KSM_DRAW_GFP), 0);
}

/*
 * Take the free block that a page lies in, but no more than KSM_DRAW_ORDER of it.
 * Return: its first page, with no reference; NULL if it is not free or not for us.
 */
static struct page *ksm_draw_isolate(struct zone *zone, struct page *page,
				     unsigned int *orderp)
{
	struct page *head = ksm_draw_head(page), *rest;
	unsigned int order;
	int mt;

	if (!head)
		return NULL;
	order = buddy_order(head);
	if (!ksm_draw_may(zone, head, order))
		return NULL;
	mt = get_pageblock_migratetype(head);
	if (!__isolate_free_page(head, order))
		return NULL;
	while (order > KSM_DRAW_ORDER) {
		rest = head + (1UL << --order);
		if (page >= rest)
			swap(head, rest);
		__putback_isolated_page(rest, order, mt);
	}
	*orderp = order;
	return head;
}

/* Now they are pages like any that the page allocator gives out. */
static unsigned int ksm_draw_finish_noprof(struct page *head, unsigned int order)
{
	post_alloc_hook(head, order, KSM_DRAW_GFP, ALLOC_DEFAULT);
	set_page_refcounted(head);
	split_page(head, order);
	return 1U << order;
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
	return ksm_draw_finish(page, 0);
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
	struct page *page, *head;
	unsigned int try, order, i;
	unsigned long flags;
	struct zone *zone;

	for (try = 0; try < KSM_DRAW_TRIES; try++) {
		page = ksm_draw_page(nid);
		if (!page)
			continue;
		zone = page_zone(page);
		spin_lock_irqsave(&zone->lock, flags);
		head = ksm_draw_isolate(zone, page, &order);
		spin_unlock_irqrestore(&zone->lock, flags);
		if (!head)
			continue;
		ksm_draw_finish(head, order);
		for (i = 0; i < 1U << order; i++)
			frames[i] = head + i;
		return i;
	}
	return 0;
}
