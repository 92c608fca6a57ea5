// SPDX-License-Identifier: GPL-2.0-only
/*
 * ksmd: takes batches of pages until its budget is spent, then sleeps.
 *
 * engine->run says what may be done. It is changed under the engine mutex, as is all
 * that ksmd does. While memory is going offline, OFFLINE is set in it: ksmd, unmerging
 * and reconfiguration then wait, since nodes may point to struct pages that are about
 * to go. ksm_daemon_lock() is the way to take the mutex with that waited for.
 */
#include "ksm_internal.h"
#include "ksm.h"

/**
 * ksm_daemon_lock() - take the engine mutex when no memory is going offline
 * @engine: the engine
 *
 * Context: may sleep for as long as offlining takes.
 */
void ksm_daemon_lock(struct ksm_engine *engine)
{
	mutex_lock(&engine->mutex);
	while (engine->run & KSM_RUN_OFFLINE) {
		mutex_unlock(&engine->mutex);
		wait_on_bit(&engine->run, KSM_RUN_OFFLINE_BIT,
			    TASK_UNINTERRUPTIBLE);
		mutex_lock(&engine->mutex);
	}
}

/**
 * ksm_daemon_unlock() - drop the engine mutex
 * @engine: the engine
 */
void ksm_daemon_unlock(struct ksm_engine *engine)
{
	mutex_unlock(&engine->mutex);
}

/**
 * ksm_daemon_has_work() - is there anything to scan, and may it be scanned?
 * @engine: the engine
 *
 * Return: whether ksmd should not sleep for good.
 */
bool ksm_daemon_has_work(struct ksm_engine *engine)
{
	return (READ_ONCE(engine->run) & KSM_RUN_MERGE) &&
	       !ksm_registry_empty(engine);
}

static void ksm_daemon_start_pass(struct ksm_engine *engine)
{
	trace_ksm_start_scan(engine->seqnr,
			     ksm_stat_read(engine, KSM_STAT_TRACKED));
	ksm_policy_begin_pass(&engine->epoch, jiffies);
	engine->worker.drained = false;
	engine->advisor.watching = false;
	ksm_registry_start(engine);
}

static struct ksm_reading ksm_daemon_read(struct ksm_engine *engine)
{
	return (struct ksm_reading) {
		.now_ns = ktime_get_ns(),
		.cpu_ns = task_sched_runtime(current),
		.pages = ksm_stat_read(engine, KSM_STAT_SCANNED) +
			 ksm_stat_read(engine, KSM_STAT_SKIPPED),
	};
}

static void ksm_daemon_follow(struct ksm_engine *engine,
			      const struct ksm_advice *advice)
{
	WRITE_ONCE(engine->knobs.pages_to_scan, advice->pages_to_scan);
	trace_ksm_advisor(advice->scan_secs, advice->pages_to_scan,
			  advice->cpu_percent);
}

/* At each wake-up: a long pass is not to go on as it began. */
static void ksm_daemon_advise_within(struct ksm_engine *engine, bool starts)
{
	struct ksm_advisor *advisor = &engine->advisor;
	struct ksm_reading now;
	struct ksm_advice advice;

	if (READ_ONCE(engine->knobs.advisor_mode) != KSM_ADVISOR_SCAN_TIME)
		return;
	now = ksm_daemon_read(engine);
	if (!advisor->watching) {
		ksm_policy_watch(advisor, &now, starts);
		ksm_policy_expect(advisor, ksm_registry_anon_pages(engine));
	} else if (ksm_policy_is_due(advisor, &engine->knobs, &now)) {
		ksm_policy_expect(advisor, ksm_registry_anon_pages(engine));
		advice = ksm_policy_advise_within(advisor, &engine->knobs, &now);
		ksm_daemon_follow(engine, &advice);
	}
}

static void ksm_daemon_advise_after(struct ksm_engine *engine)
{
	struct ksm_advisor *advisor = &engine->advisor;
	struct ksm_reading now;
	struct ksm_advice advice;

	if (!advisor->watching || !advisor->whole)
		return;
	now = ksm_daemon_read(engine);
	advice = ksm_policy_advise_after(advisor, &engine->knobs, &now,
					 ksm_registry_anon_pages(engine));
	ksm_daemon_follow(engine, &advice);
}

static void ksm_daemon_end_pass(struct ksm_engine *engine)
{
	ksm_unmerge_sweep_orphans(engine);
	ksm_validate(engine);
	ksm_daemon_advise_after(engine);
	trace_ksm_stop_scan(engine->seqnr,
			    ksm_stat_read(engine, KSM_STAT_TRACKED));
	WRITE_ONCE(engine->seqnr, engine->seqnr + 1);
}

/* One batch from the mm under the cursor. Return: false at the end of the pass. */
static bool ksm_daemon_step(struct ksm_engine *engine, unsigned int *budget)
{
	struct ksm_worker *worker = &engine->worker;
	struct ksm_mm *kmm = engine->registry.cursor;
	unsigned int before = *budget;

	worker->kmm = kmm;
	switch (ksm_scan_collect(worker, budget)) {
	case KSM_SCAN_BATCH:
		ksm_match_batch(worker);
		ksm_validate_batch(engine);
		ksm_registry_charge(engine, before - *budget);
		break;
	case KSM_SCAN_END:
		ksm_registry_next(engine);
		break;
	case KSM_SCAN_GONE:
		ksm_registry_free(kmm);
		break;
	}
	worker->kmm = NULL;
	return engine->registry.cursor;
}

/**
 * ksm_daemon_scan() - scan up to a number of pages, but no further than the pass
 * @engine: the engine
 * @nr_pages: the number
 *
 * Stops as well when everything is about to be unmerged. Processes that are forked go on
 * joining the pass meanwhile, so that its end may be far, and all that it does is undone.
 *
 * Context: may sleep; the engine mutex is held.
 */
void ksm_daemon_scan(struct ksm_engine *engine, unsigned int nr_pages)
{
	bool starts = !engine->registry.cursor;

	lockdep_assert_held(&engine->mutex);
	if (!nr_pages || ksm_registry_empty(engine))
		return;
	if (starts)
		ksm_daemon_start_pass(engine);
	ksm_daemon_advise_within(engine, starts);
	while (engine->registry.cursor && nr_pages && !freezing(current) &&
	       !atomic_read(&engine->unmergers)) {
		if (!ksm_daemon_step(engine, &nr_pages))
			ksm_daemon_end_pass(engine);
		cond_resched();
	}
}

static void ksm_daemon_sleep(struct ksm_engine *engine)
{
	unsigned int ms = READ_ONCE(engine->knobs.sleep_millisecs);

	if (ksm_daemon_has_work(engine))
		wait_event_freezable_timeout(engine->sleep_wait,
					     ms != READ_ONCE(engine->knobs.sleep_millisecs),
					     msecs_to_jiffies(ms));
	else
		wait_event_freezable(engine->idle_wait,
				     ksm_daemon_has_work(engine) ||
				     kthread_should_stop());
}

/**
 * ksm_daemon() - the body of ksmd
 * @data: the engine
 *
 * Return: 0, when it is stopped.
 */
int ksm_daemon(void *data)
{
	struct ksm_engine *engine = data;

	set_freezable();
	set_user_nice(current, 5);
	while (!kthread_should_stop()) {
		ksm_daemon_lock(engine);
		if (ksm_daemon_has_work(engine))
			ksm_daemon_scan(engine,
					READ_ONCE(engine->knobs.pages_to_scan));
		ksm_daemon_unlock(engine);
		ksm_daemon_sleep(engine);
	}
	return 0;
}

/* The administrator asked for it: if memory runs out, he is to be killed first. */
static int ksm_daemon_unmerge(struct ksm_engine *engine)
{
	int err;

	set_current_oom_origin();
	err = ksm_unmerge_all(engine);
	clear_current_oom_origin();
	if (!err)
		WRITE_ONCE(engine->seqnr, 0);
	ksm_validate(engine);
	return err;
}

/**
 * ksm_daemon_set_run() - stop, start, or undo everything
 * @engine: the engine
 * @run: KSM_RUN_STOP, KSM_RUN_MERGE or KSM_RUN_UNMERGE
 *
 * Takes effect, the unmerging above all, before it returns.
 *
 * Context: may sleep.
 * Return: 0; an error of ksm_unmerge_all() if not everything could be unmerged, the
 * state then being KSM_RUN_STOP; -ENOMEM, and nothing changed, if merging is to be started
 * for the first time.
 */
int ksm_daemon_set_run(struct ksm_engine *engine, unsigned long run)
{
	int err = 0;

	if (run == KSM_RUN_UNMERGE)
		atomic_inc(&engine->unmergers);
	ksm_daemon_lock(engine);
	if (run == KSM_RUN_UNMERGE)
		atomic_dec(&engine->unmergers);
	if (run == KSM_RUN_MERGE)
		err = ksm_engine_start(engine);
	if (!err && engine->run != run) {
		WRITE_ONCE(engine->run, run);
		if (run == KSM_RUN_UNMERGE)
			err = ksm_daemon_unmerge(engine);
		if (err)
			WRITE_ONCE(engine->run, KSM_RUN_STOP);
	}
	ksm_daemon_unlock(engine);
	wake_up_interruptible(&engine->idle_wait);
	return err;
}

/**
 * ksm_daemon_empty_trees() - prepare for a change of what the trees' keys mean
 * @engine: the engine
 *
 * What waits in the unstable trees stays there: its hints are checked when they are
 * hit, and put under the new key when their pages are visited, which the next pass
 * does with all of them.
 *
 * Context: may sleep; the engine mutex is held.
 * Return: 0; -EBUSY if there are merged pages.
 */
int ksm_daemon_empty_trees(struct ksm_engine *engine)
{
	lockdep_assert_held(&engine->mutex);
	if (ksm_stat_read(engine, KSM_STAT_SHARED))
		return -EBUSY;
	engine->rekeyed = engine->seqnr;
	return ksm_unmerge_empty_stable(engine);
}

/**
 * ksm_daemon_forget() - prepare for a change of what is looked for
 * @engine: the engine
 *
 * Context: may sleep; the engine mutex is held.
 * Return: 0; -EBUSY if there are merged pages, other than zero pages.
 */
int ksm_daemon_forget(struct ksm_engine *engine)
{
	int err = ksm_daemon_empty_trees(engine);

	if (!err)
		ksm_unmerge_forget_all(engine);
	return err;
}

/**
 * ksm_daemon_switch_frames() - fresh_frames has been switched
 * @engine: the engine
 *
 * Context: may sleep for as long as offlining takes.
 */
void ksm_daemon_switch_frames(struct ksm_engine *engine)
{
	ksm_daemon_lock(engine);
	if (READ_ONCE(engine->knobs.fresh_frames))
		ksm_frames_prepare(engine);
	else
		ksm_frames_drain(engine);
	ksm_daemon_unlock(engine);
}

/**
 * ksm_daemon_set_advisor() - switch the advisor on or off
 * @engine: the engine
 * @mode: what to switch to
 *
 * It starts from a rate that is known, and without memories. The pass that is under
 * way it can only watch from now on.
 *
 * Context: may sleep.
 */
void ksm_daemon_set_advisor(struct ksm_engine *engine, enum ksm_advisor_mode mode)
{
	struct ksm_knobs *knobs = &engine->knobs;
	unsigned long pages = KSM_DEFAULT_PAGES_TO_SCAN;

	mutex_lock(&engine->mutex);
	if (READ_ONCE(knobs->advisor_mode) != mode) {
		engine->advisor = (struct ksm_advisor) { };
		WRITE_ONCE(knobs->advisor_mode, mode);
		if (mode == KSM_ADVISOR_SCAN_TIME)
			pages = clamp(READ_ONCE(knobs->advisor_min_pages), 1UL,
				      (unsigned long)UINT_MAX);
		WRITE_ONCE(knobs->pages_to_scan, pages);
	}
	mutex_unlock(&engine->mutex);
}
