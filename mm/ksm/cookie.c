// SPDX-License-Identifier: GPL-2.0-only
/*
 * Cookies: a process's own wish with whom it shares, prctl(PR_KSM_DOMAIN).
 *
 * Processes with different cookies do not share. A process, which here means all that
 * use one mm, has none at first, which is a cookie like any other; it gets a new one, or
 * one that another process has. Children inherit it, and it stays over an exec. It is a
 * number that is never given out again, so that there is nothing to be freed.
 *
 * Who gives somebody a cookie, or takes his, can find out thereafter what is in his
 * memory. That takes the right to read it, by ptrace.
 */
#include "ksm_internal.h"
#include "ksm.h"

/**
 * ksm_cookie_set() - change with whom a process shares
 * @engine: the engine
 * @mm: the process's mm, with a reference to mm_users
 * @cookie: the new cookie
 *
 * The engine mutex keeps ksmd from merging by the old cookie what is being unmerged.
 *
 * Context: may sleep, and fault.
 * Return: 0, and nothing that is mapped is shared any more; -ENOMEM, or -ERESTARTSYS when
 * a signal is pending, and the cookie as before.
 */
int ksm_cookie_set(struct ksm_engine *engine, struct mm_struct *mm, u64 cookie)
{
	u64 old;
	int err = 0;

	ksm_daemon_lock(engine);
	old = mm->ksm_cookie;
	if (cookie != old) {
		WRITE_ONCE(mm->ksm_cookie, cookie);
		err = ksm_unmerge_process(engine, mm);
	}
	if (err)
		WRITE_ONCE(mm->ksm_cookie, old);
	ksm_daemon_unlock(engine);
	return err;
}

/* The mm of a process, 0 meaning the caller's, if the caller may look into it. */
static struct mm_struct *ksm_cookie_mm(pid_t pid)
{
	struct task_struct *task;
	struct mm_struct *mm;

	if (!pid) {
		mmget(current->mm);
		return current->mm;
	}
	task = pid < 0 ? NULL : find_get_task_by_vpid(pid);
	if (!task)
		return ERR_PTR(-ESRCH);
	mm = mm_access(task, PTRACE_MODE_ATTACH_REALCREDS);
	put_task_struct(task);
	return mm == ERR_PTR(-EACCES) ? ERR_PTR(-EPERM) : mm;
}

static int ksm_cookie_do(struct ksm_engine *engine, unsigned long cmd,
			 struct mm_struct *mm, u64 __user *result)
{
	struct mm_struct *own = current->mm;

	switch (cmd) {
	case PR_KSM_DOMAIN_GET:
		return put_user(READ_ONCE(mm->ksm_cookie), result);
	case PR_KSM_DOMAIN_CREATE:
		return ksm_cookie_set(engine, mm,
				      atomic64_inc_return(&engine->last_cookie));
	case PR_KSM_DOMAIN_SHARE_TO:
		return ksm_cookie_set(engine, mm, READ_ONCE(own->ksm_cookie));
	default:
		return ksm_cookie_set(engine, own, READ_ONCE(mm->ksm_cookie));
	}
}

/**
 * ksm_prctl_domain() - prctl(PR_KSM_DOMAIN)
 * @cmd: one of PR_KSM_DOMAIN_*
 * @pid: a process, by the ID of any of its tasks; 0 for the caller
 * @addr: where the result of PR_KSM_DOMAIN_GET goes; 0 with all others
 *
 * Context: may sleep, and fault.
 * Return: 0; -EINVAL, -ESRCH, -EPERM, -EFAULT or -ENOMEM; -ERESTARTSYS when a signal is
 * pending. Nothing has changed then.
 */
int ksm_prctl_domain(unsigned long cmd, pid_t pid, unsigned long addr)
{
	struct mm_struct *mm;
	int err;

	if (cmd > PR_KSM_DOMAIN_SHARE_FROM || (cmd != PR_KSM_DOMAIN_GET && addr))
		return -EINVAL;
	mm = ksm_cookie_mm(pid);
	if (IS_ERR(mm))
		return PTR_ERR(mm);
	err = ksm_cookie_do(&ksm_engine, cmd, mm, (u64 __user *)addr);
	mmput(mm);
	return err;
}
