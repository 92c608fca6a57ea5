// SPDX-License-Identifier: GPL-2.0-only
/*
 * Identities: what decides in which merge domain an mm is.
 *
 * An identity is made of two things. One is what the administrator's policy goes by:
 * nothing, the user, the memory cgroup or the process. The other is the process's own
 * wish, a cookie, see cookie.c. Mms are in one domain only if both are equal. So a wish
 * can do no more than narrow what the policy allows.
 *
 * Identities change, when a process gets another user or is moved to another cgroup, and
 * nobody tells us. They are looked up at every batch that is scanned, and before a page
 * that waits is merged. After a change the mm is unmerged and forgotten, so that nothing
 * of it is in the trees under the number of the old domain; then it starts anew in the
 * new one. What waits is forgotten first: if there is no memory to unmerge the rest, no
 * more pages are merged in the old domain at least. Merged pages that it comes by in
 * other ways, by fork or from swap, are met with the domain that they are of, and unmerged
 * one by one, see match.c.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* A process that shares with nobody else. */
static void ksm_identify_process(struct ksm_mm *kmm, struct ksm_identity *identity)
{
	identity->policy = KSM_POLICY_PROCESS;
	identity->who = kmm->serial;
}

#ifdef CONFIG_MEMCG
/*
 * A process that even its own user may not ptrace, because it holds privileges or secrets
 * that the user lacks, shares with nobody.
 */
static bool ksm_has_secrets(struct task_struct *task, const struct cred *cred)
{
	if (!uid_eq(cred->uid, cred->euid) || !uid_eq(cred->suid, cred->euid) ||
	    !gid_eq(cred->gid, cred->egid) || !gid_eq(cred->sgid, cred->egid))
		return true;
	/* Pairs with commit_creds(): with new credentials comes their dumpability. */
	smp_rmb();
	return task_exec_state_get_dumpable(task) != TASK_DUMPABLE_OWNER;
}

/*
 * Two mms of one user share only if each may look into the other by ptrace, as far as
 * that follows from their credentials (PTRACE_MODE_REALCREDS, without CAP_SYS_PTRACE):
 * the same user and group, each of them throughout; the same user namespace; and a set of
 * permitted capabilities that is no less than the other's, which in both directions means
 * the same. Supplementary groups do not count there. Security modules may forbid more, but
 * can be asked only by the task that wants to look.
 *
 * Of the tasks that use an mm, the owner stands for all. If another one has more rights,
 * those who may look into the owner see its memory anyway.
 */

static void ksm_identify_user(struct ksm_mm *kmm, struct task_struct *owner,
			      struct ksm_identity *identity)
{
	const struct cred *cred = __task_cred(owner);

	if (ksm_has_secrets(owner, cred)) {
		ksm_identify_process(kmm, identity);
		return;
	}
	identity->who = cred->user_ns->ns.ns_id;
	identity->uid = from_kuid(&init_user_ns, cred->euid);
	identity->gid = from_kgid(&init_user_ns, cred->egid);
	identity->caps = cred->cap_permitted.val;
}

/*
 * By the task that owns the mm. One that nobody owns is about to go: it belongs to nobody
 * else for that, and unmerging it would be on nobody's account.
 */
static int ksm_identify_by_owner(struct ksm_mm *kmm, struct ksm_identity *identity)
{
	struct mm_struct *mm = kmm->slot.mm;
	struct task_struct *owner;

	guard(rcu)();
	owner = rcu_dereference(mm->owner);
	if (!owner)
		return -ESRCH;
	if (identity->policy == KSM_POLICY_USER)
		ksm_identify_user(kmm, owner, identity);
	else
		identity->who = mem_cgroup_id(mem_cgroup_from_task(owner));
	/* Last of all: what was read before is not of another program that it executes. */
	return ksm_mm_is_owned(mm) ? 0 : -ESRCH;
}
#else
static int ksm_identify_by_owner(struct ksm_mm *kmm, struct ksm_identity *identity)
{
	return 0;
}
#endif

/* Whom an mm belongs to, at this moment. Return: -ESRCH if to nobody. */
static int ksm_identify(struct ksm_mm *kmm, struct ksm_identity *identity)
{
	*identity = (struct ksm_identity) {
		.policy = READ_ONCE(kmm->engine->knobs.merge_domains),
		.cookie = READ_ONCE(kmm->slot.mm->ksm_cookie),
	};

	if (identity->policy == KSM_POLICY_GLOBAL)
		return 0;
	if (identity->policy != KSM_POLICY_PROCESS)
		return ksm_identify_by_owner(kmm, identity);
	ksm_identify_process(kmm, identity);
	return 0;
}

/**
 * ksm_identity_holds() - does an mm still belong to the domain that it is in?
 * @kmm: the mm, which has been visited
 *
 * Return: whether its pages may be merged in that domain.
 */
bool ksm_identity_holds(struct ksm_mm *kmm)
{
	struct ksm_identity identity;

	return !ksm_identify(kmm, &identity) &&
	       ksm_identity_equal(&kmm->domain->identity, &identity);
}

/**
 * ksm_identity_update() - see to it that an mm is in the domain that it belongs to now
 * @kmm: the mm; it is not exiting
 *
 * Context: may sleep, and fault; the engine mutex is held, and no mmap lock.
 * Return: 0; -ESRCH if no process owns it, and nothing is done; -ENOMEM, or an error of
 * ksm_unmerge_mm(): @kmm is in its old domain still, with nothing waiting there. After an
 * error it is not to be scanned.
 */
int ksm_identity_update(struct ksm_mm *kmm)
{
	struct ksm_domain *domain = kmm->domain;
	struct ksm_identity identity;
	int err = ksm_identify(kmm, &identity);

	if (err)
		return err;
	if (domain && ksm_identity_equal(&domain->identity, &identity))
		return 0;
	if (domain) {
		ksm_chunk_retire_waiting(kmm);
		err = ksm_unmerge_mm(kmm);
	}
	if (err)
		return err;
	domain = ksm_domain_of(kmm->engine, &identity);
	if (!domain)
		return -ENOMEM;
	ksm_domain_put(kmm->engine, kmm->domain);
	kmm->domain = domain;
	return 0;
}
