// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory going offline.
 *
 * Stable nodes know their folios by pfn. Most folios are migrated away when memory
 * goes offline, and their nodes with them; but a node whose folio was freed keeps
 * the old pfn until somebody notices, and looking through it when the struct page is
 * gone would crash. So ksmd is parked while memory goes offline, and what nodes are
 * left in the range are dropped before it may go on. Unmerge faults and walks of the
 * reverse map do not look through nodes and need not wait.
 */
#include "ksm_internal.h"
#include "ksm.h"

static void ksm_hotplug_park(struct ksm_engine *engine)
{
	mutex_lock(&engine->mutex);
	WRITE_ONCE(engine->run, engine->run | KSM_RUN_OFFLINE);
	mutex_unlock(&engine->mutex);
}

static void ksm_hotplug_resume(struct ksm_engine *engine)
{
	mutex_lock(&engine->mutex);
	WRITE_ONCE(engine->run, engine->run & ~KSM_RUN_OFFLINE);
	mutex_unlock(&engine->mutex);

	smp_mb();	/* wake_up_bit() wants the bit to be seen cleared */
	wake_up_bit(&engine->run, KSM_RUN_OFFLINE_BIT);
}

static int ksm_hotplug_notify(struct notifier_block *self, unsigned long action,
			      void *arg)
{
	struct memory_notify *range = arg;

	switch (action) {
	case MEM_GOING_OFFLINE:
		ksm_hotplug_park(&ksm_engine);
		break;
	case MEM_OFFLINE:
		ksm_unmerge_pfn_range(&ksm_engine, range->start_pfn,
				      range->start_pfn + range->nr_pages);
		ksm_hotplug_resume(&ksm_engine);
		break;
	case MEM_CANCEL_OFFLINE:
		ksm_hotplug_resume(&ksm_engine);
		break;
	}
	return NOTIFY_OK;
}

/**
 * ksm_hotplug_init() - be told of memory that goes offline
 */
void __init ksm_hotplug_init(void)
{
	hotplug_memory_notifier(ksm_hotplug_notify, KSM_CALLBACK_PRI);
}
