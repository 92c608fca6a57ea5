// SPDX-License-Identifier: GPL-2.0-only
/*
 * What remembering the pages of an mm takes, and who pays for it.
 *
 * How much of it there is goes by the pages that a process offers: its memory cgroup
 * pays, so that no one can have the kernel spend more on it than the cgroup may have.
 * It is the cgroup that the mm is in when the first of its pages is remembered, and
 * stays that until the last is forgotten, wherever the process moves meanwhile.
 *
 * The bytes are charged, not the objects: then no object needs a pointer to whom it
 * was charged to, which would be one more word for each page.
 *
 * A cgroup at its limit has nothing reclaimed for this, let alone anybody killed: it
 * would be on ksmd's time, for which others wait. There the charge fails, and the page is
 * not remembered. Nor are any others of that mm, for KSM_CHARGE_PAUSE: a cgroup full of
 * page cache is at its limit most of the time, and each charge that fails is an event that
 * its owner may be waiting for.
 *
 * What is known already has to stay right there, too: pages are unmapped and un-merged
 * at any time, and forks map KSM pages that the reverse map must find. What that takes is
 * charged by force. It is either for the moment, or bounded by the KSM pages that are
 * mapped; no one gets anything remembered by it that could wait.
 *
 * Not charged are nodes and chains. They belong to all that share, who come and go; there
 * is not one without a KSM folio, 30 times its size, that is charged.
 */
#include "ksm_internal.h"
#include "ksm.h"

#define KSM_CHARGE_PAUSE	HZ

#ifdef CONFIG_MEMCG
static struct obj_cgroup *ksm_charge_payer(struct mm_struct *mm)
{
	struct mem_cgroup *memcg, *old;
	struct obj_cgroup *payer;

	if (!memcg_kmem_online())
		return NULL;
	memcg = get_mem_cgroup_from_mm(mm);
	old = set_active_memcg(memcg);
	payer = get_obj_cgroup_from_current();
	set_active_memcg(old);
	mem_cgroup_put(memcg);
	return payer && obj_cgroup_is_root(payer) ? NULL : payer;
}

/* A charge that is as urgent as an atomic one goes past the limit. */
static int ksm_charge_payer_with(struct obj_cgroup *payer, size_t bytes,
				 enum ksm_charge_how how)
{
	const gfp_t gfp = how == KSM_CHARGE_FORCE ? GFP_ATOMIC : GFP_NOWAIT;

	return payer ? obj_cgroup_charge(payer, gfp, bytes) : 0;
}

static void ksm_charge_pay_back(struct obj_cgroup *payer, size_t bytes)
{
	if (payer)
		obj_cgroup_uncharge(payer, bytes);
}
#else
static struct obj_cgroup *ksm_charge_payer(struct mm_struct *mm)
{
	return NULL;
}

static int ksm_charge_payer_with(struct obj_cgroup *payer, size_t bytes,
				 enum ksm_charge_how how)
{
	return 0;
}

static void ksm_charge_pay_back(struct obj_cgroup *payer, size_t bytes)
{
}
#endif /* CONFIG_MEMCG */

/* Pages that a memory cgroup must have room for before ksmd copies one. */
#define KSM_ROOM_PAGES	8

/**
 * ksm_mm_is_owned() - is there a process whose memory an mm is?
 * @mm: the mm
 *
 * Not where the last one has exited or executed another program, and somebody else holds
 * the mm still; nor for a moment within such an exit or exec. What is charged to such an mm
 * is charged to nobody, and what its owner is says nothing of it.
 *
 * Context: any. KUnit tests, whose mms have no processes, put an answer in its place.
 * Return: whether its owner, asked for before this, was of this mm at that time, too.
 */
bool ksm_mm_is_owned(struct mm_struct *mm)
{
	bool owned = true;

	KUNIT_STATIC_STUB_REDIRECT(ksm_mm_is_owned, mm);
#ifdef CONFIG_MEMCG
	/* An exec takes the other mm first, and what else it changes later. */
	smp_rmb();
	scoped_guard(rcu) {
		struct task_struct *owner = rcu_dereference(mm->owner);

		owned = owner && READ_ONCE(owner->mm) == mm;
	}
#endif
	return owned;
}

/**
 * ksm_charge_has_room() - may a page of an mm be copied without harm to its process?
 * @mm: the mm, with mmap_lock held
 *
 * The fault that copies it charges it as if the process had asked for it: where there is no
 * room, and nothing to be reclaimed, somebody is killed. So make sure that there is. What is
 * charged here, and given back, stays with this CPU, and is what the fault takes; before
 * anybody is killed it is looked for on all CPUs. Only others who use up the last pages of
 * the cgroup at this moment can take it away; they would be at its limit anyway.
 *
 * Without accounting of kernel memory (cgroup.memory=nokmem) nothing is known of the room.
 *
 * Context: has nothing reclaimed.
 * Return: false if the cgroup is at its limit, or if nobody pays at all.
 */
bool ksm_charge_has_room(struct mm_struct *mm)
{
	const size_t bytes = KSM_ROOM_PAGES * PAGE_SIZE;
	struct obj_cgroup *payer;
	bool room;

	if (!ksm_mm_is_owned(mm))
		return false;
	payer = ksm_charge_payer(mm);
	room = !ksm_charge_payer_with(payer, bytes, KSM_CHARGE_TRY);
	if (room)
		ksm_charge_pay_back(payer, bytes);
	obj_cgroup_put(payer);
	return room;
}

static void ksm_charge_forget_payer(struct ksm_mm *kmm)
{
	obj_cgroup_put(kmm->payer);
	kmm->payer = NULL;
}

/**
 * ksm_charge_is_refused() - was a charge refused a moment ago?
 * @kmm: the mm
 *
 * Return: whether all that can wait is refused for now.
 */
bool ksm_charge_is_refused(const struct ksm_mm *kmm)
{
	return time_before(jiffies, kmm->refused_until);
}

/**
 * ksm_charge() - account for memory that is about to be spent on an mm's pages
 * @kmm: the mm; its worker's own, as all that is remembered of it
 * @bytes: how much
 * @how: whether a limit may be exceeded by it
 *
 * Context: does not sleep, and has nothing reclaimed.
 * Return: 0; -ENOMEM, and nothing charged, if the mm's memory cgroup is at its limit, or
 * was a moment ago.
 */
int ksm_charge(struct ksm_mm *kmm, size_t bytes, enum ksm_charge_how how)
{
	bool first = !atomic_long_read(&kmm->bytes);

	if (how == KSM_CHARGE_TRY && ksm_charge_is_refused(kmm))
		return -ENOMEM;
	if (first)
		kmm->payer = ksm_charge_payer(kmm->slot.mm);
	if (ksm_charge_payer_with(kmm->payer, bytes, how)) {
		kmm->refused_until = jiffies + KSM_CHARGE_PAUSE;
		if (first)
			ksm_charge_forget_payer(kmm);
		return -ENOMEM;
	}
	atomic_long_add(bytes, &kmm->bytes);
	ksm_stat_add(kmm->engine, KSM_STAT_BYTES, bytes);
	return 0;
}

/**
 * ksm_uncharge() - account for memory that was given back
 * @kmm: the mm that ksm_charge() was called for
 * @bytes: how much
 */
void ksm_uncharge(struct ksm_mm *kmm, size_t bytes)
{
	ksm_charge_pay_back(kmm->payer, bytes);
	if (atomic_long_read(&kmm->bytes) == bytes)
		ksm_charge_forget_payer(kmm);
	ksm_stat_add(kmm->engine, KSM_STAT_BYTES, -(long)bytes);
	/* Last of all: an mm that nothing is remembered of may go when it exits. */
	atomic_long_sub(bytes, &kmm->bytes);
}

/**
 * ksm_charge_bequeath() - memory that was spent on an mm's pages outlives the mm
 * @kmm: the mm that ksm_charge() was called for; other memory of it remains
 * @bytes: how much
 *
 * Context: does not sleep.
 * Return: who goes on paying, for ksm_charge_release(); NULL if nobody does.
 */
struct obj_cgroup *ksm_charge_bequeath(struct ksm_mm *kmm, size_t bytes)
{
	if (kmm->payer)
		obj_cgroup_get(kmm->payer);
	atomic_long_sub(bytes, &kmm->bytes);
	return kmm->payer;
}

/**
 * ksm_charge_release() - account for memory that was given back without an mm
 * @engine: the engine
 * @payer: from ksm_charge_bequeath()
 * @bytes: how much
 *
 * Context: does not sleep.
 */
void ksm_charge_release(struct ksm_engine *engine, struct obj_cgroup *payer,
			size_t bytes)
{
	ksm_charge_pay_back(payer, bytes);
	obj_cgroup_put(payer);
	ksm_stat_add(engine, KSM_STAT_BYTES, -(long)bytes);
}
