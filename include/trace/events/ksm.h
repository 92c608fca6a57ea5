/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Events of kernel samepage merging. Names and fields are an interface.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM ksm

#if !defined(_TRACE_KSM_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KSM_H

#include <linux/tracepoint.h>

/*
 * A full pass over all registered mms begins or ends. @pass counts passes, and
 * @known is the number of pages that are known.
 */
DECLARE_EVENT_CLASS(ksm_scan_template,
	TP_PROTO(int pass, u32 known),
	TP_ARGS(pass, known),
	TP_STRUCT__entry(
		__field(int, seq) __field(u32, rmap_entries)
	),
	TP_fast_assign(
		__entry->seq = pass;
		__entry->rmap_entries = known;
	),
	TP_printk("seq %d rmap size %d", __entry->seq, __entry->rmap_entries)
);

DEFINE_EVENT(ksm_scan_template, ksm_start_scan,
	TP_PROTO(int pass, u32 known),
	TP_ARGS(pass, known)
);

DEFINE_EVENT(ksm_scan_template, ksm_stop_scan,
	TP_PROTO(int pass, u32 known),
	TP_ARGS(pass, known)
);

/* An mm is registered, or leaves. */
DECLARE_EVENT_CLASS(ksm_enter_exit_template,
	TP_PROTO(void *registered),
	TP_ARGS(registered),
	TP_STRUCT__entry(
		__field(void *, mm)
	),
	TP_fast_assign(
		__entry->mm = registered;
	),
	TP_printk("mm %p", __entry->mm)
);

DEFINE_EVENT(ksm_enter_exit_template, ksm_enter,
	TP_PROTO(void *registered),
	TP_ARGS(registered)
);

DEFINE_EVENT(ksm_enter_exit_template, ksm_exit,
	TP_PROTO(void *registered),
	TP_ARGS(registered)
);

/*
 * The zero page, of frame @frame, was or was not mapped in place of a page. @item
 * is NULL for a page that was merely seen before.
 */
TRACE_EVENT(ksm_merge_one_page,
	TP_PROTO(unsigned long frame, void *item, void *owner, int result),
	TP_ARGS(frame, item, owner, result),
	TP_STRUCT__entry(
		__field(unsigned long, pfn) __field(void *, rmap_item)
		__field(void *, mm) __field(int, err)
	),
	TP_fast_assign(
		__entry->pfn = frame;
		__entry->rmap_item = item;
		__entry->mm = owner;
		__entry->err = result;
	),
	TP_printk("ksm pfn %lu rmap_item %p mm %p error %d",
		  __entry->pfn, __entry->rmap_item,
		  __entry->mm, __entry->err)
);

/*
 * A page was or was not replaced by the KSM page @shared, of frame @frame; or, with
 * @shared NULL, a page of frame @frame was or was not made a KSM page.
 */
TRACE_EVENT(ksm_merge_with_ksm_page,
	TP_PROTO(void *shared, unsigned long frame, void *item, void *owner,
		 int result),
	TP_ARGS(shared, frame, item, owner, result),
	TP_STRUCT__entry(
		__field(void *, ksm_page) __field(unsigned long, pfn)
		__field(void *, rmap_item)
		__field(void *, mm) __field(int, err)
	),
	TP_fast_assign(
		__entry->ksm_page = shared;
		__entry->pfn = frame;
		__entry->rmap_item = item;
		__entry->mm = owner;
		__entry->err = result;
	),
	TP_printk("%spfn %lu rmap_item %p mm %p error %d",
		  __entry->ksm_page ? "ksm " : "",
		  __entry->pfn, __entry->rmap_item,
		  __entry->mm, __entry->err)
);

/* A stable node goes: the folio of frame @frame is not shared any more. */
TRACE_EVENT(ksm_remove_ksm_page,
	TP_PROTO(unsigned long frame),
	TP_ARGS(frame),
	TP_STRUCT__entry(
		__field(unsigned long, pfn)
	),
	TP_fast_assign(
		__entry->pfn = frame;
	),
	TP_printk("pfn %lu", __entry->pfn)
);

/* A sharer leaves the KSM page of frame @frame. */
TRACE_EVENT(ksm_remove_rmap_item,
	TP_PROTO(unsigned long frame, void *item, void *owner),
	TP_ARGS(frame, item, owner),
	TP_STRUCT__entry(
		__field(unsigned long, pfn) __field(void *, rmap_item)
		__field(void *, mm)
	),
	TP_fast_assign(
		__entry->pfn = frame;
		__entry->rmap_item = item;
		__entry->mm = owner;
	),
	TP_printk("pfn %lu rmap_item %p mm %p",
		  __entry->pfn, __entry->rmap_item, __entry->mm)
);

/* The scan-time advisor has set a rate, after a pass of @seconds. */
TRACE_EVENT(ksm_advisor,
	TP_PROTO(s64 seconds, unsigned long rate, unsigned int percent),
	TP_ARGS(seconds, rate, percent),
	TP_STRUCT__entry(
		__field(s64, scan_time) __field(unsigned long, pages_to_scan)
		__field(unsigned int, cpu_percent)
	),
	TP_fast_assign(
		__entry->scan_time = seconds;
		__entry->pages_to_scan = rate;
		__entry->cpu_percent = percent;
	),
	TP_printk("ksm scan time %lld pages_to_scan %lu cpu percent %u",
		  __entry->scan_time, __entry->pages_to_scan,
		  __entry->cpu_percent)
);

#endif /* _TRACE_KSM_H */

#include <trace/define_trace.h>
