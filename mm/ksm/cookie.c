// SPDX-License-Identifier: GPL-2.0-only
/*
 * Cookies: a process's own wish with whom it shares, prctl(PR_KSM_DOMAIN).
 *
 * Processes with different cookies do not share. A process, which here means all that
 * use one mm, has none at first, which is a cookie like any other; it gets a new one, or
 * one that another process has. Children inherit it, and it stays over an exec.
 *
 * A cookie is a random number of 64 bits, so that there is nothing to be freed, and that
 * it says nothing of who else has drawn one, or when. Among n cookies in use two are the
 * same with a probability of n^2 / 2^65: 1 in 37 million for a million of them. Those two
 * are one domain then.
 *
 * A process that gives another one a cookie, or takes the other's, can learn thereafter
 * what is in its memory. That takes the right to read it, by ptrace.
 *
 * The exec of a set-uid program, or of any other that gains privileges by credentials,
 * leaves the domain of the caller, who could learn what is in the program's memory
 * otherwise. It does not come back to having no cookie, for that would be the way out for
 * a process that was given one. It gets a new one; if it had none, it has none.
 *
 * A cookie changes with the mm's mmap_lock held for writing; the unmerging before that has
 * locked each VMA that can have merged pages, too, and no page is merged without that
 * lock. So a fork, which holds mmap_lock, copies a cookie and page tables that
 * belong together.
 */
#include "ksm_internal.h"
#include "ksm.h"

/**
 * ksm_cookie_draw() - a new cookie
 *
 * Return: a number that nobody has, but for an unlikely accident.
 */
u64 ksm_cookie_draw(void)
{
	u64 cookie;

	do {
		cookie = get_random_u64();
	} while (!cookie);
	return cookie;
}

/* While the lock is held nothing is merged, and nobody forks or sees half of it. */
static int ksm_cookie_write(struct mm_struct *mm, u64 cookie)
{
	int err = mmap_write_lock_killable(mm);

	if (err)
		return err;
	/* Nobody but the process itself can have it killed for lack of memory. */
	err = ksm_unmerge_locked(mm, mm != current->mm);
	if (!err)
		WRITE_ONCE(mm->ksm_cookie, cookie);
	mmap_write_unlock(mm);
	return err;
}

/**
 * ksm_cookie_set() - change with whom a process shares
 * @engine: the engine
 * @mm: the process's mm, with a reference to mm_users
 * @cookie: the new cookie
 *
 * Context: may sleep, and fault.
 * Return: 0, and nothing that is mapped is shared any more; an error of ksm_merge_break(),
 * or -EINTR when a signal is pending, and the cookie as before.
 */
int ksm_cookie_set(struct ksm_engine *engine, struct mm_struct *mm, u64 cookie)
{
	struct ksm_mm *kmm;
	int err = 0;

	ksm_daemon_lock(engine);
	if (cookie != READ_ONCE(mm->ksm_cookie)) {
		err = ksm_cookie_write(mm, cookie);
		kmm = ksm_registry_lookup(engine, mm);
		if (!err && kmm)
			ksm_unmerge_forget(kmm);
	}
	ksm_daemon_unlock(engine);
	return err;
}

static int ksm_cookie_do(struct ksm_engine *engine, unsigned long cmd,
			 struct mm_struct *mm, u64 __user *result)
{
	struct mm_struct *own = current->mm;

	switch (cmd) {
	case PR_KSM_DOMAIN_GET:
		return put_user(READ_ONCE(mm->ksm_cookie), result);
	case PR_KSM_DOMAIN_CREATE:
		return ksm_cookie_set(engine, mm, ksm_cookie_draw());
	case PR_KSM_DOMAIN_SHARE_TO:
		return ksm_cookie_set(engine, mm, READ_ONCE(own->ksm_cookie));
	default:
		return ksm_cookie_set(engine, own, READ_ONCE(mm->ksm_cookie));
	}
}

/* The task of a process that has another mm than @mm by now, for its exec; or NULL. */
static struct task_struct *ksm_cookie_executed(struct pid *process, struct mm_struct *mm)
{
	struct task_struct *task = get_pid_task(process, PIDTYPE_TGID);
	bool executed;

	if (!task)
		return NULL;
	task_lock(task);
	executed = task->mm && task->mm != mm;
	task_unlock(task);
	if (executed)
		return task;
	put_task_struct(task);
	return NULL;
}

/*
 * A command for the process that @task is of, if the caller may look into it. The process
 * may be in an exec, and leave the mm that was told. Then *againp is the task to repeat it
 * with, and has a reference.
 */
static int ksm_cookie_do_task(struct ksm_engine *engine, unsigned long cmd,
			      struct task_struct *task, u64 __user *result,
			      struct task_struct **againp)
{
	struct mm_struct *mm = mm_access(task, PTRACE_MODE_ATTACH_REALCREDS);
	struct pid *process;
	int err;

	*againp = NULL;
	if (IS_ERR(mm))
		return mm == ERR_PTR(-EACCES) ? -EPERM : PTR_ERR(mm);
	process = get_task_pid(task, PIDTYPE_TGID);
	err = ksm_cookie_do(engine, cmd, mm, result);
	if (!err && (cmd == PR_KSM_DOMAIN_CREATE || cmd == PR_KSM_DOMAIN_SHARE_TO))
		*againp = ksm_cookie_executed(process, mm);
	put_pid(process);
	mmput(mm);
	return err;
}

/* The same for the task with an ID. */
static int ksm_cookie_do_pid(struct ksm_engine *engine, unsigned long cmd, pid_t pid,
			     u64 __user *result)
{
	struct task_struct *task = pid < 0 ? NULL : find_get_task_by_vpid(pid), *again;
	int err = -ESRCH;

	while (task) {
		err = ksm_cookie_do_task(engine, cmd, task, result, &again);
		put_task_struct(task);
		task = again;
		if (task && signal_pending(current)) {
			put_task_struct(task);
			return -ERESTARTSYS;
		}
	}
	return err;
}

/**
 * ksm_prctl_domain() - prctl(PR_KSM_DOMAIN)
 * @cmd: one of PR_KSM_DOMAIN_*
 * @pid: a process, by the ID of any of its tasks; 0 for the caller
 * @addr: where the result of PR_KSM_DOMAIN_GET goes; 0 with all others
 *
 * Context: may sleep, and fault.
 * Return: 0; -EINVAL, -ESRCH, -EPERM, -EFAULT, -ENOMEM or -EHWPOISON; -ERESTARTSYS or
 * -EINTR when a signal is pending. The process is in the domain that it was in then.
 */
int ksm_prctl_domain(unsigned long cmd, pid_t pid, unsigned long addr)
{
	u64 __user *result = (u64 __user *)addr;

	if (cmd > PR_KSM_DOMAIN_SHARE_FROM || (cmd != PR_KSM_DOMAIN_GET && addr))
		return -EINVAL;
	return pid ? ksm_cookie_do_pid(&ksm_engine, cmd, pid, result) :
		     ksm_cookie_do(&ksm_engine, cmd, current->mm, result);
}
