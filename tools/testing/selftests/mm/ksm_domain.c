// SPDX-License-Identifier: GPL-2.0
/*
 * Who shares with whom: merge domains by policy and by prctl, and the two other
 * knobs against what sharing tells, fresh_frames and zero_pages_only.
 *
 * The parties are processes with the same NR_PAGES equal pages at the same address.
 * So whether two of them share can be told by the page frames as well as by exact
 * counters: one KSM page, or one for each. A party looks at its bytes at the end.
 */
#include <grp.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include "ksm_reclaim.h"

#define NR_PAGES	8
#define SEED		1
/* Passes in which a change is noticed, pages are unmerged, and then merged again. */
#define SETTLE		5
/* Where neither programs nor libraries are, as a party may exec. */
#define PARTY_ADDR	((char *)(1UL << 36))
#define EXEC_PARTY	"--party"
#define EXEC_AGAIN	"--again"
#define PRIVILEGED_COPY	"/tmp/ksm_domain_privileged"
#define UID_A		1001
#define UID_B		1002
#define GID_A		2001
#define GID_B		2002
#define CGROUP_A	KSM_CGROUP
#define CGROUP_B	KSM_CGROUP_ROOT "/ksm_selftest_b"
/* The memory controller does not reach it: it has no memory cgroup of its own. */
#define CGROUP_INNER	CGROUP_A "/inner"

/* -- Parties -- */

/* PR_SET_DUMPABLE, as a changed uid takes that away; or exec, which gives it back. */
#define DUMPABLE	0x1
#define EXEC		0x2
/* Of a program that is set-uid to UID_B, set-gid to GID_B, or has a capability. */
#define EXEC_SETUID	0x4
#define USER_NS		0x8
#define EXEC_SETGID	0x10
#define EXEC_FILE_CAPS	0x20
#define EXEC_PRIVILEGED	(EXEC_SETUID | EXEC_SETGID | EXEC_FILE_CAPS)
/* PR_SET_KEEPCAPS, as a changed uid takes capabilities away. */
#define KEEP_CAPS	0x40
#define MERGE_ANY	0x80

struct role {
	uid_t uid;
	uid_t real_uid;		/* unless it is the same */
	gid_t gid;
	gid_t real_gid;
	gid_t group;		/* one more, a supplementary one */
	__u64 lacks;		/* capabilities that it has dropped */
	unsigned int how;
	const char *cgroup;
	bool zero;		/* has empty pages */
	unsigned int step;	/* 1: each page has a content of its own */
	void (*later)(struct ksm_child *child);
};

static const struct role plain;

static void must(bool done)
{
	if (!done)
		_exit(121);
}

static bool all_zero(const char *addr, size_t nr_pages)
{
	for (size_t i = 0; i < nr_pages * psize(); i++)
		if (addr[i])
			return false;
	return true;
}

static void offer(const struct role *role)
{
	must(ksm_map_at(PARTY_ADDR, NR_PAGES) == PARTY_ADDR);
	if (role->zero)
		memset(PARTY_ADDR, 0, NR_PAGES * psize());
	else
		ksm_fill_pages(PARTY_ADDR, NR_PAGES, SEED, role->step);
	must(!ksm_madvise(PARTY_ADDR, NR_PAGES, MADV_MERGEABLE));
}

static bool intact(const struct role *role)
{
	if (role->zero)
		return all_zero(PARTY_ADDR, NR_PAGES);
	return ksm_pages_hold(PARTY_ADDR, NR_PAGES, SEED, role->step);
}

static void play(struct ksm_child *child, const struct role *role)
{
	offer(role);
	ksm_child_pause(child);
	if (role->later) {
		role->later(child);
		ksm_child_pause(child);
	}
	_exit(!intact(role));
}

static void exec_party(struct ksm_child *child, const char *path)
{
	char go[16], there[16];

	snprintf(go, sizeof(go), "%d", child->go[0]);
	snprintf(there, sizeof(there), "%d", child->there[1]);
	fcntl(child->go[0], F_SETFD, 0);
	fcntl(child->there[1], F_SETFD, 0);
	execl(path, path, EXEC_PARTY, go, there, NULL);
	_exit(121);
}

/* What the program does when it is executed for that. */
static void be_party(char **args)
{
	struct ksm_child child = {
		.go[0] = atoi(args[0]),
		.there[1] = atoi(args[1]),
	};

	play(&child, &plain);
}

/* One exec after the other, @times. */
static void exec_on(int times)
{
	char left[16];

	snprintf(left, sizeof(left), "%d", times - 1);
	if (times)
		execl("/proc/self/exe", "ksm_domain", EXEC_AGAIN, left, NULL);
	_exit(times ? 121 : 0);
}

static void exec_again(struct ksm_child *child)
{
	exec_party(child, "/proc/self/exe");
}

static void become_gid(const struct role *role)
{
	must(!setresgid(role->real_gid ?: role->gid, role->gid, role->gid));
	if (role->how & DUMPABLE)
		must(!prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static void become_uid(const struct role *role)
{
	if (role->how & KEEP_CAPS)
		must(!prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
	must(!setresuid(role->real_uid ?: role->uid, role->uid, role->uid));
	if (role->how & DUMPABLE)
		must(!prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

/* Drop capabilities, for good: neither effective nor permitted. */
static void drop_caps(__u64 caps)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	must(!syscall(SYS_capget, &head, data));
	for (int i = 0; i < 2; i++) {
		data[i].effective &= ~(caps >> 32 * i);
		data[i].permitted &= ~(caps >> 32 * i);
	}
	must(!syscall(SYS_capset, &head, data));
}

static void join(const char *cgroup)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	must(!ksm_spew(path, "0"));
}

static void become(struct ksm_child *child, const struct role *role)
{
	if (role->cgroup)
		join(role->cgroup);
	if (role->group)
		must(!setgroups(1, &role->group));
	if (role->gid)
		become_gid(role);
	if (role->lacks)
		drop_caps(role->lacks);
	if (role->uid)
		become_uid(role);
	if (role->how & MERGE_ANY)
		must(!prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0));
	if (role->how & USER_NS)
		must(!unshare(CLONE_NEWUSER));
	if (role->how & EXEC)
		exec_party(child, "/proc/self/exe");
	if (role->how & EXEC_PRIVILEGED)
		exec_party(child, PRIVILEGED_COPY);
}

/* A party that has made its offer; false if it could not. */
static bool start(struct ksm_child *child, const struct role *role)
{
	if (ksm_child_fork(child)) {
		become(child, role);
		play(child, role);
	}
	return ksm_child_wait(child);
}

/* Has it go on to its next pause. */
static bool next(struct ksm_child *child)
{
	return ksm_child_go(child) && ksm_child_wait(child);
}

static void expect_sharing(struct __test_metadata *_metadata, pid_t a, pid_t b,
			   bool together)
{
	EXPECT_EQ(together, ksm_pfn_of(a, PARTY_ADDR) == ksm_pfn_of(b, PARTY_ADDR));
	EXPECT_EQ(together ? 1 : 2, ksm_get("pages_shared"));
	EXPECT_EQ(2 * NR_PAGES - (together ? 1 : 2), ksm_get("pages_sharing"));
	EXPECT_EQ(NR_PAGES, ksm_stat_of(a, "ksm_merging_pages"));
	EXPECT_EQ(NR_PAGES, ksm_stat_of(b, "ksm_merging_pages"));
}

static void expect_good_end(struct __test_metadata *_metadata, struct ksm_child *a,
			    struct ksm_child *b)
{
	EXPECT_EQ(0, ksm_child_finish(a));
	EXPECT_EQ(0, ksm_child_finish(b));
}

/* NULL if a policy can be tested here, else why not. "global" is on any kernel. */
static const char *begin(const char *policy)
{
	const char *why_not = ksm_setup();

	if (why_not)
		return why_not;
	if (!ksm_has("merge_domains"))
		return strcmp(policy, "global") ? "kernel without merge_domains" : NULL;
	if (!strcmp(policy, "memcg") &&
	    (!ksm_cgroups_on() || !ksm_cgroup_make(CGROUP_A) ||
	     !ksm_cgroup_make(CGROUP_B) || !ksm_cgroup_make(CGROUP_INNER)))
		return "no memory cgroups (v2)";
	return ksm_write("merge_domains", policy) ? "the policy cannot be set" : NULL;
}

static void end(void)
{
	ksm_restore();
	rmdir(CGROUP_INNER);
	rmdir(CGROUP_A);
	rmdir(CGROUP_B);
}

static const char *no_user_ns(unsigned int how)
{
	return (how & USER_NS) && access("/proc/self/ns/user", F_OK) ?
	       "kernel without user namespaces" : NULL;
}

/* -- The policy's file -- */

FIXTURE(policy) {};

FIXTURE_SETUP(policy)
{
	const char *why_not = ksm_setup();

	if (!why_not && !ksm_has("merge_domains"))
		why_not = "kernel without merge_domains";
	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(policy)
{
	ksm_restore();
}

static void expect_policy(struct __test_metadata *_metadata, const char *want)
{
	char shown[64] = "";

	EXPECT_GT(ksm_read("merge_domains", shown, sizeof(shown)), 0);
	EXPECT_STREQ(want, shown);
}

static const char * const policies[][2] = {
	{ "user", "global [user] memcg process\n" },
	{ "memcg\n", "global user [memcg] process\n" },
	{ "process", "global user memcg [process]\n" },
	{ "global\n", "[global] user memcg process\n" },
};

TEST_F(policy, takes_and_shows_each)
{
	expect_policy(_metadata, "[global] user memcg process\n");
	for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
		EXPECT_EQ(0, ksm_write("merge_domains", policies[i][0]));
		expect_policy(_metadata, policies[i][1]);
	}
}

TEST_F(policy, refuses_junk)
{
	static const char * const junk[] = {
		"\n", "0", "1", "glob", "globals", "Global", "[global]", "none", " process",
		"process ", "global user", "user memcg", "user,memcg", "user\nmemcg",
	};

	ASSERT_EQ(0, ksm_write("merge_domains", "user"));
	for (size_t i = 0; i < ARRAY_SIZE(junk); i++) {
		EXPECT_EQ(-EINVAL, ksm_write("merge_domains", junk[i])) {
			TH_LOG("'%s'", junk[i]);
		}
	}
	expect_policy(_metadata, "global [user] memcg process\n");
}

TEST_F_TIMEOUT(policy, stays_while_pages_are_shared, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(NR_PAGES, SEED);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(-EBUSY, ksm_write("merge_domains", "user"));
	EXPECT_EQ(-EBUSY, ksm_write("merge_domains", "process"));
	EXPECT_EQ(-EINVAL, ksm_write("merge_domains", "junk"));
	EXPECT_EQ(0, ksm_write("merge_domains", "global"));
	expect_policy(_metadata, "[global] user memcg process\n");
	EXPECT_EQ(NR_PAGES, ksm_count_merged(addr, NR_PAGES));
	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(0, ksm_write("merge_domains", "process"));
	expect_policy(_metadata, "global user memcg [process]\n");
	EXPECT_TRUE(ksm_pages_hold(addr, NR_PAGES, SEED, 0));
}

/* The same parties, again and again, as the policy says. */
TEST_F_TIMEOUT(policy, change_regroups, KSM_TIMEOUT)
{
	struct ksm_child a, b;

	ASSERT_TRUE(start(&a, &plain));
	ASSERT_TRUE(start(&b, &plain));
	for (int round = 0; round < 4; round++) {
		ASSERT_EQ(0, ksm_write("run", "2"));
		ASSERT_EQ(0, ksm_write("merge_domains", round % 2 ? "process" : "user"));
		ASSERT_EQ(0, ksm_scan(SETTLE));
		expect_sharing(_metadata, a.pid, b.pid, !(round % 2));
	}
	expect_good_end(_metadata, &a, &b);
}

/* What waits for an equal is not shared, so the policy may change while it waits. */
TEST_F_TIMEOUT(policy, change_reaches_what_waits, KSM_TIMEOUT)
{
	static const struct role role = { .step = 1 };
	struct ksm_child a, b;

	ASSERT_TRUE(start(&a, &role));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	ASSERT_EQ(NR_PAGES, ksm_get("pages_unshared"));
	ASSERT_EQ(0, ksm_write("merge_domains", "process"));
	ASSERT_TRUE(start(&b, &role));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(2 * NR_PAGES, ksm_get("pages_unshared"));
	ASSERT_EQ(0, ksm_write("merge_domains", "global"));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_EQ(NR_PAGES, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES, ksm_get("pages_sharing"));
	expect_good_end(_metadata, &a, &b);
}

/* -- Two processes -- */

FIXTURE(pair) {};

FIXTURE_VARIANT(pair)
{
	const char *policy;
	struct role a, b;
	bool together;
};

FIXTURE_VARIANT_ADD(pair, global)
{
	.policy = "global", .together = true,
};

FIXTURE_VARIANT_ADD(pair, global_two_uids)
{
	.policy = "global", .together = true,
	.a = { .uid = UID_A, .how = DUMPABLE }, .b = { .uid = UID_B },
};

FIXTURE_VARIANT_ADD(pair, user_roots)
{
	.policy = "user", .together = true,
};

FIXTURE_VARIANT_ADD(pair, user_one_uid)
{
	.policy = "user", .together = true,
	.a = { .uid = UID_A, .how = DUMPABLE }, .b = { .uid = UID_A, .how = DUMPABLE },
};

FIXTURE_VARIANT_ADD(pair, user_one_uid_after_exec)
{
	.policy = "user", .together = true,
	.a = { .uid = UID_A, .how = EXEC }, .b = { .uid = UID_A, .how = EXEC },
};

FIXTURE_VARIANT_ADD(pair, user_two_uids)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .how = DUMPABLE }, .b = { .uid = UID_B, .how = DUMPABLE },
};

FIXTURE_VARIANT_ADD(pair, user_two_uids_after_exec)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .how = EXEC }, .b = { .uid = UID_B, .how = EXEC },
};

FIXTURE_VARIANT_ADD(pair, user_and_root)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .how = DUMPABLE },
};

/* Who has the rights of two users may not be looked into by either, */
FIXTURE_VARIANT_ADD(pair, user_one_effective_uid)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .how = DUMPABLE },
	.b = { .uid = UID_A, .real_uid = UID_B, .how = DUMPABLE },
};

/* whichever it is that the other one has. */
FIXTURE_VARIANT_ADD(pair, user_one_real_uid)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_B, .how = DUMPABLE },
	.b = { .uid = UID_A, .real_uid = UID_B, .how = DUMPABLE },
};

/* Whose uid has changed, and no exec came after that, shares with itself only. */
FIXTURE_VARIANT_ADD(pair, user_not_dumpable)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A }, .b = { .uid = UID_A, .how = DUMPABLE },
};

FIXTURE_VARIANT_ADD(pair, user_both_not_dumpable)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A }, .b = { .uid = UID_A },
};

FIXTURE_VARIANT_ADD(pair, user_setuid_program)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .how = EXEC_SETUID }, .b = { .uid = UID_B, .how = EXEC },
};

FIXTURE_VARIANT_ADD(pair, user_setgid_program)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .gid = GID_A, .how = EXEC_SETGID },
	.b = { .uid = UID_A, .gid = GID_B, .how = EXEC },
};

FIXTURE_VARIANT_ADD(pair, user_one_gid)
{
	.policy = "user", .together = true,
	.a = { .uid = UID_A, .gid = GID_A, .how = DUMPABLE },
	.b = { .uid = UID_A, .gid = GID_A, .how = DUMPABLE },
};

/* One user, but ptrace asks for the group as well, */
FIXTURE_VARIANT_ADD(pair, user_two_gids)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .gid = GID_A, .how = DUMPABLE },
	.b = { .uid = UID_A, .gid = GID_B, .how = DUMPABLE },
};

FIXTURE_VARIANT_ADD(pair, user_one_effective_gid)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .gid = GID_A, .how = DUMPABLE },
	.b = { .uid = UID_A, .gid = GID_A, .real_gid = GID_B, .how = DUMPABLE },
};

FIXTURE_VARIANT_ADD(pair, user_one_real_gid)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .gid = GID_B, .how = DUMPABLE },
	.b = { .uid = UID_A, .gid = GID_A, .real_gid = GID_B, .how = DUMPABLE },
};

/* not for supplementary groups, */
FIXTURE_VARIANT_ADD(pair, user_other_groups)
{
	.policy = "user", .together = true,
	.a = { .uid = UID_A, .gid = GID_A, .group = GID_A, .how = DUMPABLE },
	.b = { .uid = UID_A, .gid = GID_A, .group = GID_B, .how = DUMPABLE },
};

/* and for capabilities that the other one lacks. */
FIXTURE_VARIANT_ADD(pair, user_one_has_caps)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .how = DUMPABLE | KEEP_CAPS },
	.b = { .uid = UID_A, .how = DUMPABLE },
};

FIXTURE_VARIANT_ADD(pair, user_both_have_caps)
{
	.policy = "user", .together = true,
	.a = { .uid = UID_A, .how = DUMPABLE | KEEP_CAPS },
	.b = { .uid = UID_A, .how = DUMPABLE | KEEP_CAPS },
};

FIXTURE_VARIANT_ADD(pair, user_root_lacks_a_cap)
{
	.policy = "user", .together = false,
	.b = { .lacks = 1 << CAP_NET_RAW },
};

FIXTURE_VARIANT_ADD(pair, user_roots_lack_the_same)
{
	.policy = "user", .together = true,
	.a = { .lacks = 1 << CAP_NET_RAW }, .b = { .lacks = 1 << CAP_NET_RAW },
};

FIXTURE_VARIANT_ADD(pair, user_roots_lack_different_caps)
{
	.policy = "user", .together = false,
	.a = { .lacks = 1 << CAP_NET_RAW }, .b = { .lacks = 1 << CAP_NET_ADMIN },
};

FIXTURE_VARIANT_ADD(pair, user_two_namespaces)
{
	.policy = "user", .together = false,
	.a = { .uid = UID_A, .how = EXEC }, .b = { .uid = UID_A, .how = USER_NS | EXEC },
};

FIXTURE_VARIANT_ADD(pair, memcg_one)
{
	.policy = "memcg", .together = true,
	.a = { .cgroup = CGROUP_A }, .b = { .cgroup = CGROUP_A },
};

FIXTURE_VARIANT_ADD(pair, memcg_two)
{
	.policy = "memcg", .together = false,
	.a = { .cgroup = CGROUP_A }, .b = { .cgroup = CGROUP_B },
};

FIXTURE_VARIANT_ADD(pair, memcg_and_root)
{
	.policy = "memcg", .together = false,
	.a = { .cgroup = CGROUP_A },
};

FIXTURE_VARIANT_ADD(pair, memcg_of_the_parent)
{
	.policy = "memcg", .together = true,
	.a = { .cgroup = CGROUP_A }, .b = { .cgroup = CGROUP_INNER },
};

FIXTURE_VARIANT_ADD(pair, memcg_two_uids)
{
	.policy = "memcg", .together = true,
	.a = { .cgroup = CGROUP_A, .uid = UID_A }, .b = { .cgroup = CGROUP_A, .uid = UID_B },
};

FIXTURE_VARIANT_ADD(pair, process)
{
	.policy = "process", .together = false,
};

static bool give_file_caps(int fd)
{
	struct vfs_cap_data caps = {
		.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
		.data[0].permitted = 1 << CAP_NET_RAW,
	};

	return !fchmod(fd, 0755) &&
	       !fsetxattr(fd, "security.capability", &caps, sizeof(caps), 0);
}

static bool give_privileges(int fd, unsigned int how)
{
	if (how & EXEC_SETUID)
		return !fchown(fd, UID_B, 0) && !fchmod(fd, 04755);
	if (how & EXEC_SETGID)
		return !fchown(fd, 0, GID_B) && !fchmod(fd, 02755);
	return give_file_caps(fd);
}

/* This program as one that gives privileges; false if it would not do that. */
static bool make_privileged_copy(unsigned int how)
{
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int to = open(PRIVILEGED_COPY, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
	struct statvfs fs;
	char buf[4096];
	ssize_t n = 0;
	bool ok;

	ok = from >= 0 && to >= 0 && !fstatvfs(to, &fs) && !(fs.f_flag & ST_NOSUID);
	while (ok && (n = read(from, buf, sizeof(buf))) > 0)
		ok = write(to, buf, n) == n;
	ok = ok && !n && give_privileges(to, how);
	close(from);
	close(to);
	if (!ok)
		unlink(PRIVILEGED_COPY);
	return ok;
}

FIXTURE_SETUP(pair)
{
	const char *why_not = begin(variant->policy);

	if (!why_not)
		why_not = no_user_ns(variant->b.how);
	if (!why_not && (variant->a.how & EXEC_PRIVILEGED) &&
	    !make_privileged_copy(variant->a.how))
		why_not = "no such program possible in /tmp";
	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(pair)
{
	if (variant->a.how & EXEC_PRIVILEGED)
		unlink(PRIVILEGED_COPY);
	end();
}

TEST_F_TIMEOUT(pair, shares_as_it_should, KSM_TIMEOUT)
{
	struct ksm_child a, b;

	ASSERT_TRUE(start(&a, &variant->a));
	ASSERT_TRUE(start(&b, &variant->b));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, a.pid, b.pid, variant->together);
	/* And so it stays. */
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, a.pid, b.pid, variant->together);
	expect_good_end(_metadata, &a, &b);
}

/* -- One of them changes -- */

static void uid_a(struct ksm_child *child)
{
	become_uid(&(struct role){ .uid = UID_A });
}

static void dumpable_uid_a(struct ksm_child *child)
{
	become_uid(&(struct role){ .uid = UID_A, .how = DUMPABLE });
}

static void gid_a(struct ksm_child *child)
{
	become_gid(&(struct role){ .gid = GID_A, .how = DUMPABLE });
}

static void lack_net_raw(struct ksm_child *child)
{
	drop_caps(1 << CAP_NET_RAW);
}

static void dumpable_on(struct ksm_child *child)
{
	must(!prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static void dumpable_off(struct ksm_child *child)
{
	must(!prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
}

static void new_user_ns(struct ksm_child *child)
{
	must(!unshare(CLONE_NEWUSER));
}

static void join_a(struct ksm_child *child)
{
	join(CGROUP_A);
}

static void join_b(struct ksm_child *child)
{
	join(CGROUP_B);
}

FIXTURE(change) {};

FIXTURE_VARIANT(change)
{
	const char *policy;
	struct role a, b;
	bool together;		/* after it, and not before; or the other way */
	unsigned int needs;
};

FIXTURE_VARIANT_ADD(change, uid_away)
{
	.policy = "user", .together = false,
	.b = { .later = uid_a },
};

FIXTURE_VARIANT_ADD(change, uid_away_and_dumpable)
{
	.policy = "user", .together = false,
	.b = { .later = dumpable_uid_a },
};

FIXTURE_VARIANT_ADD(change, uid_to_others)
{
	.policy = "user", .together = true,
	.a = { .uid = UID_A, .how = DUMPABLE }, .b = { .later = dumpable_uid_a },
};

FIXTURE_VARIANT_ADD(change, gid_away)
{
	.policy = "user", .together = false,
	.b = { .later = gid_a },
};

FIXTURE_VARIANT_ADD(change, cap_dropped)
{
	.policy = "user", .together = false,
	.b = { .later = lack_net_raw },
};

FIXTURE_VARIANT_ADD(change, cap_dropped_by_both)
{
	.policy = "user", .together = true,
	.a = { .lacks = 1 << CAP_NET_RAW }, .b = { .later = lack_net_raw },
};

FIXTURE_VARIANT_ADD(change, no_more_dumpable)
{
	.policy = "user", .together = false,
	.b = { .later = dumpable_off },
};

FIXTURE_VARIANT_ADD(change, dumpable_again)
{
	.policy = "user", .together = true,
	.a = { .uid = UID_A, .how = DUMPABLE }, .b = { .uid = UID_A, .later = dumpable_on },
};

FIXTURE_VARIANT_ADD(change, user_namespace)
{
	.policy = "user", .together = false, .needs = USER_NS,
	.a = { .uid = UID_A, .how = DUMPABLE },
	.b = { .uid = UID_A, .how = DUMPABLE, .later = new_user_ns },
};

FIXTURE_VARIANT_ADD(change, cgroup_away)
{
	.policy = "memcg", .together = false,
	.a = { .cgroup = CGROUP_A }, .b = { .cgroup = CGROUP_A, .later = join_b },
};

FIXTURE_VARIANT_ADD(change, cgroup_to_others)
{
	.policy = "memcg", .together = true,
	.a = { .cgroup = CGROUP_A }, .b = { .cgroup = CGROUP_B, .later = join_a },
};

FIXTURE_SETUP(change)
{
	const char *why_not = begin(variant->policy);

	if (!why_not)
		why_not = no_user_ns(variant->needs);
	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(change)
{
	end();
}

TEST_F_TIMEOUT(change, is_noticed_by_the_scan, KSM_TIMEOUT)
{
	struct ksm_child a, b;

	ASSERT_TRUE(start(&a, &variant->a));
	ASSERT_TRUE(start(&b, &variant->b));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, a.pid, b.pid, !variant->together);
	ASSERT_TRUE(next(&b));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, a.pid, b.pid, variant->together);
	expect_good_end(_metadata, &a, &b);
}

/* -- A child, which starts with its parent's KSM pages -- */

FIXTURE(child) {};

FIXTURE_VARIANT(child)
{
	const char *policy;
	void (*change)(struct ksm_child *child);
	bool together;
};

FIXTURE_VARIANT_ADD(child, global)
{
	.policy = "global", .together = true,
};

FIXTURE_VARIANT_ADD(child, user)
{
	.policy = "user", .together = true,
};

FIXTURE_VARIANT_ADD(child, user_other_uid)
{
	.policy = "user", .together = false, .change = uid_a,
};

FIXTURE_VARIANT_ADD(child, memcg)
{
	.policy = "memcg", .together = true,
};

FIXTURE_VARIANT_ADD(child, memcg_moved)
{
	.policy = "memcg", .together = false, .change = join_a,
};

FIXTURE_VARIANT_ADD(child, process)
{
	.policy = "process", .together = false,
};

FIXTURE_SETUP(child)
{
	const char *why_not = begin(variant->policy);

	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(child)
{
	end();
}

TEST_F_TIMEOUT(child, shares_as_it_should, KSM_TIMEOUT)
{
	struct ksm_child child;

	offer(&plain);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_count_merged(PARTY_ADDR, NR_PAGES));
	if (ksm_child_fork(&child)) {
		if (variant->change)
			variant->change(&child);
		ksm_child_pause(&child);
		must(intact(&plain));
		ksm_fill(PARTY_ADDR, 2);
		_exit(!ksm_holds(PARTY_ADDR, 2) ||
		      !ksm_pages_hold(ksm_page(PARTY_ADDR, 1), NR_PAGES - 1, SEED, 0));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	EXPECT_EQ(ksm_pfn(PARTY_ADDR), ksm_pfn_of(child.pid, PARTY_ADDR));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, getpid(), child.pid, variant->together);
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(intact(&plain));
}

/* -- A domain of one's own -- */

FIXTURE(domain) {};

FIXTURE_SETUP(domain)
{
	const char *why_not = ksm_setup();

	if (!why_not && !ksm_has("merge_domains"))
		why_not = "kernel without merge_domains";
	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(domain)
{
	ksm_restore();
}

static int raw_domain(unsigned long command, unsigned long pid, void *addr,
		      unsigned long unused)
{
	return prctl(PR_KSM_DOMAIN, command, pid, addr, unused) ? -errno : 0;
}

TEST_F(domain, none_at_first)
{
	EXPECT_EQ(0, ksm_domain_of(0));
	EXPECT_EQ(0, ksm_domain_of(getpid()));
	EXPECT_EQ(0, ksm_domain_of(getppid()));
}

TEST_F(domain, each_created_is_another)
{
	__u64 first, second;

	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
	first = ksm_domain_of(0);
	EXPECT_NE(0, first);
	EXPECT_NE(-1ULL, first);
	EXPECT_EQ(first, ksm_domain_of(getpid()));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, getpid()));
	second = ksm_domain_of(0);
	EXPECT_NE(0, second);
	EXPECT_NE(-1ULL, second);
	EXPECT_NE(first, second);
	EXPECT_EQ(0, ksm_domain_of(getppid()));
}

/* Nor does a number tell how many were created before it. */
TEST_F(domain, created_ones_are_not_counted)
{
	__u64 all[1000];

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
		all[i] = ksm_domain_of(0);
		for (size_t j = 0; j < i; j++) {
			ASSERT_NE(all[i], all[j]) {
				TH_LOG("number %zu", i);
			}
		}
	}
	/* By chance not once in 2^20 runs. */
	for (size_t i = 1; i < ARRAY_SIZE(all); i++) {
		ASSERT_LT(1ULL << 32, all[i] - all[i - 1]) {
			TH_LOG("number %zu", i);
		}
	}
}

TEST_F(domain, bad_arguments)
{
	__u64 domain = 77;

	EXPECT_EQ(-EINVAL, raw_domain(4, 0, NULL, 0));
	EXPECT_EQ(-EINVAL, raw_domain(-1UL, 0, NULL, 0));
	EXPECT_EQ(-EINVAL, raw_domain(PR_KSM_DOMAIN_GET, 0, &domain, 1));
	EXPECT_EQ(77, domain);
	for (int command = PR_KSM_DOMAIN_CREATE; command <= PR_KSM_DOMAIN_SHARE_FROM; command++) {
		EXPECT_EQ(-EINVAL, raw_domain(command, 0, &domain, 0));
		EXPECT_EQ(-EINVAL, raw_domain(command, 0, NULL, 1));
	}
	EXPECT_EQ(77, domain);
	EXPECT_EQ(0, ksm_domain_of(0));
}

TEST_F(domain, bad_address)
{
	char *addr = ksm_map(1);

	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ(-EFAULT, raw_domain(PR_KSM_DOMAIN_GET, 0, NULL, 0));
	ASSERT_EQ(0, mprotect(addr, psize(), PROT_READ));
	EXPECT_EQ(-EFAULT, raw_domain(PR_KSM_DOMAIN_GET, 0, addr, 0));
	ASSERT_EQ(0, munmap(addr, psize()));
	EXPECT_EQ(-EFAULT, raw_domain(PR_KSM_DOMAIN_GET, 0, addr, 0));
}

TEST_F(domain, no_such_process)
{
	struct ksm_child child;
	__u64 domain = 77;

	if (ksm_child_fork(&child))
		_exit(0);
	ASSERT_EQ(0, ksm_child_end(&child));
	EXPECT_EQ(-ESRCH, raw_domain(PR_KSM_DOMAIN_GET, child.pid, &domain, 0));
	EXPECT_EQ(77, domain);
	for (int command = PR_KSM_DOMAIN_CREATE; command <= PR_KSM_DOMAIN_SHARE_FROM; command++)
		EXPECT_EQ(-ESRCH, ksm_domain(command, child.pid));
	EXPECT_EQ(0, ksm_domain_of(0));
}

/* Only who may be traced by us, which root may not be by another. */
TEST_F(domain, not_for_processes_of_others)
{
	struct ksm_child child;

	if (ksm_child_fork(&child)) {
		__u64 domain = 77;

		become_uid(&(struct role){ .uid = UID_A, .how = DUMPABLE });
		must(raw_domain(PR_KSM_DOMAIN_GET, getppid(), &domain, 0) == -EPERM);
		must(domain == 77);
		for (int i = PR_KSM_DOMAIN_CREATE; i <= PR_KSM_DOMAIN_SHARE_FROM; i++)
			must(ksm_domain(i, getppid()) == -EPERM);
		_exit(ksm_domain_of(0) != 0);
	}
	EXPECT_EQ(0, ksm_child_end(&child));
	EXPECT_EQ(0, ksm_domain_of(0));
}

/* Not dumpable, either. */
TEST_F(domain, for_oneself_without_privilege)
{
	struct ksm_child child;

	if (ksm_child_fork(&child)) {
		__u64 domain;

		become_uid(&(struct role){ .uid = UID_A });
		must(!ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
		domain = ksm_domain_of(0);
		must(domain && domain != -1ULL);
		must(!ksm_domain(PR_KSM_DOMAIN_CREATE, getpid()));
		must(!ksm_domain(PR_KSM_DOMAIN_SHARE_TO, 0));
		must(!ksm_domain(PR_KSM_DOMAIN_SHARE_FROM, 0));
		must(ksm_domain_of(0) && ksm_domain_of(0) != domain);
		_exit(0);
	}
	EXPECT_EQ(0, ksm_child_end(&child));
}

TEST_F_TIMEOUT(domain, create_unmerges_at_once, KSM_TIMEOUT)
{
	offer(&plain);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_EQ(0, ksm_count_merged(PARTY_ADDR, NR_PAGES));
	EXPECT_TRUE(intact(&plain));
	/* Within the new domain all is as ever. */
	EXPECT_TRUE(ksm_is_mergeable(PARTY_ADDR));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_one_frame(PARTY_ADDR, NR_PAGES));
	EXPECT_TRUE(intact(&plain));
}

/* The other keeps its share. */
TEST_F_TIMEOUT(domain, create_parts_two, KSM_TIMEOUT)
{
	struct ksm_child a, b;

	ASSERT_TRUE(start(&a, &plain));
	ASSERT_TRUE(start(&b, &plain));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, a.pid, b.pid, true);
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, b.pid));
	EXPECT_EQ(0, ksm_stat_of(b.pid, "ksm_merging_pages"));
	EXPECT_EQ(NR_PAGES, ksm_stat_of(a.pid, "ksm_merging_pages"));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	for (int i = 0; i < NR_PAGES; i++)
		EXPECT_NE(ksm_pfn_of(a.pid, PARTY_ADDR),
			  ksm_pfn_of(b.pid, ksm_page(PARTY_ADDR, i)));
	EXPECT_EQ(0, ksm_domain_of(0));
	EXPECT_EQ(0, ksm_domain_of(a.pid));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, a.pid, b.pid, false);
	expect_good_end(_metadata, &a, &b);
}

/* A child is in its parent's domain, and shares with it. */
TEST_F_TIMEOUT(domain, inherited_over_fork, KSM_TIMEOUT)
{
	struct ksm_child child;

	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
	offer(&plain);
	ASSERT_EQ(0, ksm_scan(3));
	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		_exit(!intact(&plain));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	EXPECT_NE(0, ksm_domain_of(0));
	EXPECT_EQ(ksm_domain_of(0), ksm_domain_of(child.pid));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, getpid(), child.pid, true);
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(intact(&plain));
}

/* As a server would do for each of its workers. */
TEST_F_TIMEOUT(domain, child_creates_its_own, KSM_TIMEOUT)
{
	struct ksm_child child;
	__u64 domain;

	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
	domain = ksm_domain_of(0);
	offer(&plain);
	ASSERT_EQ(0, ksm_scan(3));
	if (ksm_child_fork(&child)) {
		must(!ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
		must(!ksm_count_merged(PARTY_ADDR, NR_PAGES));
		ksm_child_pause(&child);
		_exit(!intact(&plain));
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(PARTY_ADDR, NR_PAGES));
	EXPECT_EQ(domain, ksm_domain_of(0));
	EXPECT_NE(domain, ksm_domain_of(child.pid));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, getpid(), child.pid, false);
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(intact(&plain));
}

TEST_F_TIMEOUT(domain, kept_over_exec, KSM_TIMEOUT)
{
	static const struct role execs = { .later = exec_again };
	struct ksm_child a, b;
	__u64 domain;

	ASSERT_TRUE(start(&a, &execs));
	ASSERT_TRUE(start(&b, &plain));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, a.pid));
	domain = ksm_domain_of(a.pid);
	EXPECT_NE(0, domain);
	ASSERT_TRUE(next(&a));
	EXPECT_EQ(domain, ksm_domain_of(a.pid));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, a.pid, b.pid, false);
	expect_good_end(_metadata, &a, &b);
}

/*
 * One thread forks while another has domains created, and keeps a list of them. What a
 * child has of that list was there when its memory was copied; so a domain that was left
 * by then is not the child's.
 */
#define MAX_MADE	4096

static struct {
	__u64 made[MAX_MADE];
	atomic_uint nr;
	atomic_bool stop;
} beside;

static void *create_domains(void *unused)
{
	unsigned int nr = 0;

	while (!atomic_load(&beside.stop) && nr < MAX_MADE) {
		if (ksm_domain(PR_KSM_DOMAIN_CREATE, 0))
			break;
		beside.made[nr++] = ksm_domain_of(0);
		atomic_store(&beside.nr, nr);
	}
	return NULL;
}

static bool is_a_former_domain(__u64 domain)
{
	unsigned int nr = atomic_load(&beside.nr);

	for (unsigned int i = 0; i + 1 < nr; i++)
		if (domain == beside.made[i])
			return true;
	return nr && !domain;
}

TEST_F_TIMEOUT(domain, forked_beside_create, KSM_TIMEOUT)
{
	unsigned int forks = 0;
	struct ksm_child child;
	pthread_t thread;

	offer(&plain);
	ASSERT_EQ(0, pthread_create(&thread, NULL, create_domains, NULL));
	while (forks++ < 1000 && atomic_load(&beside.nr) < MAX_MADE) {
		if (ksm_child_fork(&child))
			_exit(is_a_former_domain(ksm_domain_of(0)));
		ASSERT_EQ(0, ksm_child_end(&child)) {
			TH_LOG("fork %u", forks);
		}
	}
	atomic_store(&beside.stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_LT(0, atomic_load(&beside.nr));
}

/* A process that is in an exec all the time has a domain once it was given that. */
TEST_F_TIMEOUT(domain, given_to_one_in_exec, KSM_TIMEOUT)
{
	struct ksm_child child;
	long given = 0;
	int status;

	if (ksm_child_fork(&child)) {
		ksm_child_pause(&child);
		execl("/proc/self/exe", "ksm_domain", EXEC_AGAIN, "50", NULL);
		_exit(121);
	}
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_TRUE(ksm_child_go(&child));
	while (!waitpid(child.pid, &status, WNOHANG)) {
		int err;

		ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
		err = ksm_domain(PR_KSM_DOMAIN_SHARE_TO, child.pid);
		if (err == -ESRCH)
			continue;
		ASSERT_EQ(0, err);
		given++;
		for (int i = 0; i < 100; i++) {
			__u64 domain = ksm_domain_of(child.pid);

			if (domain == -1ULL)
				break;
			ASSERT_EQ(ksm_domain_of(0), domain) {
				TH_LOG("after %ld times", given);
			}
		}
	}
	EXPECT_TRUE(WIFEXITED(status) && !WEXITSTATUS(status));
	EXPECT_LT(0, given);
}

#ifdef UFFD_USER_MODE_ONLY
/* The argument of an exec that nobody has written yet: the kernel waits for it. */
struct trap {
	struct ksm_child *child;
	char *page;
	int uffd;
};

static bool trap_set(struct trap *trap)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range.len = psize(),
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	trap->page = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (unsigned long)trap->page;
	trap->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	return trap->uffd >= 0 && trap->page != MAP_FAILED &&
	       !ioctl(trap->uffd, UFFDIO_API, &api) &&
	       !ioctl(trap->uffd, UFFDIO_REGISTER, &reg);
}

/* It is said when the exec has come to it, and written when that is answered. */
static void *trap_spring(void *arg)
{
	static char text[1 << 16] = EXEC_PARTY;
	struct trap *trap = arg;
	struct uffdio_copy copy = {
		.dst = (unsigned long)trap->page,
		.src = (unsigned long)text,
		.len = psize(),
	};
	struct uffd_msg msg;

	must(read(trap->uffd, &msg, sizeof(msg)) == sizeof(msg));
	ksm_child_pause(trap->child);
	must(!ioctl(trap->uffd, UFFDIO_COPY, &copy));
	return NULL;
}

static void exec_into_trap(struct ksm_child *child)
{
	struct trap trap = { .child = child };
	char go[16], there[16];
	pthread_t thread;

	must(trap_set(&trap));
	must(!pthread_create(&thread, NULL, trap_spring, &trap));
	snprintf(go, sizeof(go), "%d", child->go[0]);
	snprintf(there, sizeof(there), "%d", child->there[1]);
	fcntl(child->go[0], F_SETFD, 0);
	fcntl(child->there[1], F_SETFD, 0);
	execl("/proc/self/exe", "ksm_domain", trap.page, go, there, NULL);
	_exit(121);
}

/* The same, with the exec held in the middle, where the new memory is there already. */
TEST_F_TIMEOUT(domain, given_in_the_middle_of_exec, KSM_TIMEOUT)
{
	struct ksm_child child;
	struct trap trap;

	if (!trap_set(&trap))
		SKIP(return, "no userfaultfd");
	if (ksm_child_fork(&child))
		exec_into_trap(&child);
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_SHARE_TO, child.pid));
	EXPECT_EQ(ksm_domain_of(0), ksm_domain_of(child.pid));
	ASSERT_TRUE(next(&child));
	EXPECT_EQ(ksm_domain_of(0), ksm_domain_of(child.pid));
	EXPECT_EQ(0, ksm_child_finish(&child));
}
#endif

/* -- Programs that get privileges by their exec -- */

FIXTURE(exec) {};

FIXTURE_VARIANT(exec)
{
	const char *policy;
	const char *cgroup;
	uid_t real_uid;
	unsigned int how;
	bool domain;		/* the caller has one of its own */
	bool gains_nothing;	/* but AT_SECURE is set */
};

FIXTURE_VARIANT_ADD(exec, plain)
{
	.policy = "global", .how = EXEC, .domain = true,
};

FIXTURE_VARIANT_ADD(exec, setuid)
{
	.policy = "global", .how = EXEC_SETUID, .domain = true,
};

FIXTURE_VARIANT_ADD(exec, setuid_without_domain)
{
	.policy = "global", .how = EXEC_SETUID, .domain = false,
};

FIXTURE_VARIANT_ADD(exec, setgid)
{
	.policy = "global", .how = EXEC_SETGID, .domain = true,
};

FIXTURE_VARIANT_ADD(exec, file_caps)
{
	.policy = "global", .how = EXEC_FILE_CAPS, .domain = true,
};

FIXTURE_VARIANT_ADD(exec, setuid_memcg)
{
	.policy = "memcg", .how = EXEC_SETUID, .domain = true, .cgroup = CGROUP_A,
};

/* The caller has what the program would give, */
FIXTURE_VARIANT_ADD(exec, file_caps_of_the_caller)
{
	.policy = "global", .how = KEEP_CAPS | EXEC_FILE_CAPS, .domain = true,
	.gains_nothing = true,
};

/* or has got it by an exec before. */
FIXTURE_VARIANT_ADD(exec, two_uids)
{
	.policy = "global", .real_uid = UID_B, .how = EXEC, .domain = true,
	.gains_nothing = true,
};

FIXTURE_SETUP(exec)
{
	const char *why_not = begin(variant->policy);

	if (!why_not && !ksm_has("merge_domains"))
		why_not = "kernel without merge_domains";
	if (!why_not && (variant->how & EXEC_PRIVILEGED) &&
	    !make_privileged_copy(variant->how))
		why_not = "no such program possible in /tmp";
	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(exec)
{
	unlink(PRIVILEGED_COPY);
	end();
}

static bool offers_all(pid_t pid)
{
	char path[64], buf[512] = "";

	snprintf(path, sizeof(path), "/proc/%d/ksm_stat", pid);
	return ksm_slurp(path, buf, sizeof(buf) - 1) > 0 && strstr(buf, "ksm_merge_any: yes");
}

static bool is_secure(pid_t pid)
{
	unsigned long auxv[128] = { 0 };
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
	ksm_slurp(path, (char *)auxv, sizeof(auxv) - 2 * sizeof(*auxv));
	for (int i = 0; auxv[i]; i += 2)
		if (auxv[i] == AT_SECURE)
			return auxv[i + 1];
	return false;
}

/* They leave what their caller has wished for, but do not come back to no domain. */
TEST_F_TIMEOUT(exec, privileged_programs_leave, KSM_TIMEOUT)
{
	struct role execs = {
		.uid = UID_A, .real_uid = variant->real_uid, .gid = GID_A,
		.cgroup = variant->cgroup, .how = variant->how | MERGE_ANY,
	};
	struct role waits = { .cgroup = variant->cgroup };
	bool leaves = (variant->how & EXEC_PRIVILEGED) && !variant->gains_nothing;
	struct ksm_child a, b;
	__u64 domain;

	if (variant->domain)
		ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
	domain = ksm_domain_of(0);
	ASSERT_TRUE(start(&a, &waits));
	ASSERT_TRUE(start(&b, &execs));
	EXPECT_EQ(leaves || variant->gains_nothing, is_secure(b.pid));
	EXPECT_EQ(!leaves, offers_all(b.pid));
	EXPECT_EQ(leaves && domain, domain != ksm_domain_of(b.pid));
	EXPECT_EQ(!domain, !ksm_domain_of(b.pid));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_EQ(!(leaves && domain),
		  ksm_pfn_of(a.pid, PARTY_ADDR) == ksm_pfn_of(b.pid, PARTY_ADDR));
	expect_good_end(_metadata, &a, &b);
}

/* By a third, who takes it from the one and gives it to the other. */
TEST_F_TIMEOUT(domain, shared_by_a_broker, KSM_TIMEOUT)
{
	struct ksm_child a, b;
	__u64 domain;

	ASSERT_TRUE(start(&a, &plain));
	ASSERT_TRUE(start(&b, &plain));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, a.pid));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, b.pid));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, a.pid, b.pid, false);

	domain = ksm_domain_of(a.pid);
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_SHARE_FROM, a.pid));
	EXPECT_EQ(domain, ksm_domain_of(0));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_SHARE_TO, b.pid));
	EXPECT_EQ(domain, ksm_domain_of(b.pid));
	EXPECT_EQ(domain, ksm_domain_of(a.pid));
	/* What b has shared in its former domain is unmerged. */
	EXPECT_EQ(0, ksm_stat_of(b.pid, "ksm_merging_pages"));
	EXPECT_EQ(NR_PAGES, ksm_stat_of(a.pid, "ksm_merging_pages"));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, a.pid, b.pid, true);
	expect_good_end(_metadata, &a, &b);
}

/* By the two themselves. */
TEST_F_TIMEOUT(domain, shared_with_oneself, KSM_TIMEOUT)
{
	struct ksm_child child;

	ASSERT_TRUE(start(&child, &plain));
	offer(&plain);
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, getpid(), child.pid, false);
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_SHARE_TO, child.pid));
	EXPECT_NE(0, ksm_domain_of(child.pid));
	EXPECT_EQ(ksm_domain_of(0), ksm_domain_of(child.pid));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, getpid(), child.pid, true);
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(intact(&plain));
}

/* One without a domain of its own has that to give, too. */
TEST_F_TIMEOUT(domain, back_to_none, KSM_TIMEOUT)
{
	struct ksm_child child;

	ASSERT_TRUE(start(&child, &plain));
	offer(&plain);
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, getpid(), child.pid, false);
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_SHARE_FROM, child.pid));
	EXPECT_EQ(0, ksm_domain_of(0));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_EQ(0, ksm_count_merged(PARTY_ADDR, NR_PAGES));
	EXPECT_TRUE(intact(&plain));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, getpid(), child.pid, true);
	EXPECT_EQ(0, ksm_child_finish(&child));
	EXPECT_TRUE(intact(&plain));
}

/* What the policy keeps apart, no common domain brings together. */
FIXTURE(narrow) {};

FIXTURE_VARIANT(narrow)
{
	const char *policy;
	struct role a, b;
};

FIXTURE_VARIANT_ADD(narrow, user)
{
	.policy = "user",
	.a = { .uid = UID_A, .how = DUMPABLE }, .b = { .uid = UID_B, .how = DUMPABLE },
};

FIXTURE_VARIANT_ADD(narrow, user_not_dumpable)
{
	.policy = "user",
	.a = { .uid = UID_A }, .b = { .uid = UID_A },
};

FIXTURE_VARIANT_ADD(narrow, memcg)
{
	.policy = "memcg",
	.a = { .cgroup = CGROUP_A }, .b = { .cgroup = CGROUP_B },
};

FIXTURE_VARIANT_ADD(narrow, process)
{
	.policy = "process",
};

FIXTURE_SETUP(narrow)
{
	const char *why_not = begin(variant->policy);

	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(narrow)
{
	end();
}

TEST_F_TIMEOUT(narrow, never_widens, KSM_TIMEOUT)
{
	struct ksm_child a, b;

	ASSERT_TRUE(start(&a, &variant->a));
	ASSERT_TRUE(start(&b, &variant->b));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_SHARE_TO, a.pid));
	ASSERT_EQ(0, ksm_domain(PR_KSM_DOMAIN_SHARE_TO, b.pid));
	ASSERT_EQ(ksm_domain_of(a.pid), ksm_domain_of(b.pid));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_sharing(_metadata, a.pid, b.pid, false);
	expect_good_end(_metadata, &a, &b);
}

/* -- Empty pages of two domains -- */

FIXTURE(empty) {};

FIXTURE_VARIANT(empty)
{
	const char *use_zero_pages;
};

FIXTURE_VARIANT_ADD(empty, ordinary)
{
	.use_zero_pages = "0",
};

FIXTURE_VARIANT_ADD(empty, use_zero_pages)
{
	.use_zero_pages = "1",
};

FIXTURE_SETUP(empty)
{
	const char *why_not = begin("process");

	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ksm_write("use_zero_pages", variant->use_zero_pages));
}

FIXTURE_TEARDOWN_PARENT(empty)
{
	end();
}

TEST_F_TIMEOUT(empty, shared_by_the_zero_page_only, KSM_TIMEOUT)
{
	static const struct role role = { .zero = true };
	struct ksm_child a, b;

	ASSERT_TRUE(start(&a, &role));
	ASSERT_TRUE(start(&b, &role));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	if (*variant->use_zero_pages == '1') {
		EXPECT_EQ(2 * NR_PAGES, ksm_get("ksm_zero_pages"));
		EXPECT_EQ(NR_PAGES, ksm_stat_of(a.pid, "ksm_zero_pages"));
		EXPECT_EQ(NR_PAGES, ksm_stat_of(b.pid, "ksm_zero_pages"));
		EXPECT_EQ(0, ksm_get("pages_shared"));
		EXPECT_EQ(ksm_pfn_of(a.pid, PARTY_ADDR), ksm_pfn_of(b.pid, PARTY_ADDR));
	} else {
		EXPECT_EQ(0, ksm_get("ksm_zero_pages"));
		expect_sharing(_metadata, a.pid, b.pid, false);
	}
	expect_good_end(_metadata, &a, &b);
}

/* -- the list of domains -- */

#define LIST	"/sys/kernel/debug/ksm/domains"

/* What all domains of a policy have, added up. Returns how many they are, or -errno. */
static int list_domains(const char *policy, long *shared, long *sharing)
{
	FILE *list = fopen(LIST, "re");
	char line[256], name[32];
	long first, others;
	int nr = 0;

	if (!list)
		return -errno;
	*shared = 0;
	*sharing = 0;
	while (fgets(line, sizeof(line), list)) {
		if (sscanf(line, "%*u %31s %*u %*u %*u %*x %*u %ld %ld", name, &first,
			   &others) != 3 || strcmp(name, policy))
			continue;
		*shared += first;
		*sharing += others;
		nr++;
	}
	fclose(list);
	return nr;
}

FIXTURE(list) {};

FIXTURE_SETUP(list)
{
	const char *why_not = begin("process");

	if (!why_not && access(LIST, R_OK))
		why_not = "no debugfs mounted";
	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(list)
{
	end();
}

/* A domain is there for as long as somebody is in it, with what is merged in it. */
TEST_F_TIMEOUT(list, has_what_is_in_use, KSM_TIMEOUT)
{
	static const struct role role = { };
	long shared, sharing, before;
	struct ksm_child a, b;
	char *own;

	/* A page of our own, so that there are passes when the others have gone. */
	own = ksm_map_dups(1, 1);
	ASSERT_NE(MAP_FAILED, own);
	ASSERT_EQ(0, ksm_madvise(own, 1, MADV_DONTFORK));
	ASSERT_EQ(0, ksm_scan(1));
	before = list_domains("process", &shared, &sharing);
	ASSERT_LE(1, before);
	ASSERT_TRUE(start(&a, &role));
	ASSERT_TRUE(start(&b, &role));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_EQ(before + 2, list_domains("process", &shared, &sharing));
	EXPECT_EQ(2, shared);
	EXPECT_EQ(2 * NR_PAGES - 2, sharing);
	EXPECT_EQ(1, list_domains("global", &shared, &sharing));
	EXPECT_EQ(0, shared + sharing);
	expect_good_end(_metadata, &a, &b);
	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_EQ(before, list_domains("process", &shared, &sharing));
	EXPECT_EQ(0, shared + sharing);
}

/* -- zero_pages_only -- */

/* Empty pages, then equal ones. */
FIXTURE(zero_only)
{
	char *zeroes;
	char *dups;
};

FIXTURE_VARIANT(zero_only)
{
	const char *use_zero_pages;
};

FIXTURE_VARIANT_ADD(zero_only, alone)
{
	.use_zero_pages = "0",
};

FIXTURE_VARIANT_ADD(zero_only, with_use_zero_pages)
{
	.use_zero_pages = "1",
};

FIXTURE_SETUP(zero_only)
{
	const char *why_not = ksm_setup();

	if (!why_not && !ksm_has("zero_pages_only"))
		why_not = "kernel without zero_pages_only";
	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ksm_write("use_zero_pages", variant->use_zero_pages));
	ASSERT_EQ(0, ksm_write("zero_pages_only", "1"));
	self->zeroes = ksm_map(2 * NR_PAGES);
	ASSERT_NE(MAP_FAILED, self->zeroes);
	self->dups = ksm_page(self->zeroes, NR_PAGES);
	memset(self->zeroes, 0, NR_PAGES * psize());
	ksm_fill_pages(self->dups, NR_PAGES, SEED, 0);
	ASSERT_EQ(0, ksm_madvise(self->zeroes, 2 * NR_PAGES, MADV_MERGEABLE));
}

FIXTURE_TEARDOWN_PARENT(zero_only)
{
	ksm_restore();
}

static void expect_zeroes_only(struct __test_metadata *_metadata, long zeroes)
{
	EXPECT_EQ(zeroes, ksm_get("ksm_zero_pages"));
	EXPECT_EQ(zeroes, ksm_stat_of(0, "ksm_zero_pages"));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_get("pages_unshared"));
	EXPECT_EQ(0, ksm_get("pages_volatile"));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_merging_pages"));
	EXPECT_EQ(0, ksm_stat_of(0, "ksm_rmap_items"));
}

TEST_F_TIMEOUT(zero_only, others_are_left_alone, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_scan(2));
	expect_zeroes_only(_metadata, NR_PAGES);
	ASSERT_EQ(0, ksm_scan(SETTLE));
	expect_zeroes_only(_metadata, NR_PAGES);
	EXPECT_TRUE(ksm_one_frame(self->zeroes, NR_PAGES));
	EXPECT_EQ(0, ksm_count_merged(self->zeroes, 2 * NR_PAGES));
	EXPECT_TRUE(all_zero(self->zeroes, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->dups, NR_PAGES, SEED, 0));
}

/* One byte is enough, wherever it is. */
TEST_F_TIMEOUT(zero_only, almost_empty_is_not_empty, KSM_TIMEOUT)
{
	size_t at[] = { 0, 7, 8, psize() / 2 + 1, psize() - 8, psize() - 1 };

	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		ksm_page(self->zeroes, i)[at[i]] = 1;
	ASSERT_EQ(0, ksm_scan(3));
	expect_zeroes_only(_metadata, NR_PAGES - ARRAY_SIZE(at));
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		EXPECT_EQ(1, ksm_page(self->zeroes, i)[at[i]]);
		ksm_page(self->zeroes, i)[at[i]] = 0;
	}
	EXPECT_TRUE(all_zero(self->zeroes, NR_PAGES));
	ASSERT_EQ(0, ksm_scan(3));
	expect_zeroes_only(_metadata, NR_PAGES);
}

TEST_F_TIMEOUT(zero_only, write_takes_one_off, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_scan(2));
	ksm_fill(self->zeroes, 2);
	expect_zeroes_only(_metadata, NR_PAGES - 1);
	EXPECT_TRUE(ksm_holds(self->zeroes, 2));
	EXPECT_TRUE(all_zero(ksm_page(self->zeroes, 1), NR_PAGES - 1));
	ASSERT_EQ(0, ksm_scan(3));
	expect_zeroes_only(_metadata, NR_PAGES - 1);
	EXPECT_TRUE(ksm_holds(self->zeroes, 2));
}

TEST_F_TIMEOUT(zero_only, unmergeable_takes_them_off, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_scan(2));
	ASSERT_EQ(0, ksm_madvise(self->zeroes, 2 * NR_PAGES, MADV_UNMERGEABLE));
	expect_zeroes_only(_metadata, 0);
	EXPECT_NE(ksm_pfn(self->zeroes), ksm_pfn(ksm_page(self->zeroes, 1)));
	EXPECT_TRUE(all_zero(self->zeroes, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->dups, NR_PAGES, SEED, 0));
}

TEST_F_TIMEOUT(zero_only, run_2_takes_them_off, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_scan(2));
	ASSERT_EQ(0, ksm_write("run", "2"));
	expect_zeroes_only(_metadata, 0);
	EXPECT_NE(ksm_pfn(self->zeroes), ksm_pfn(ksm_page(self->zeroes, 1)));
	EXPECT_TRUE(all_zero(self->zeroes, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->dups, NR_PAGES, SEED, 0));
}

/* They are the kernel's own zero page, whoever has them. */
TEST_F_TIMEOUT(zero_only, shared_across_domains, KSM_TIMEOUT)
{
	static const struct role role = { .zero = true };
	struct ksm_child child;

	if (!ksm_has("merge_domains"))
		SKIP(return, "kernel without merge_domains");
	ASSERT_EQ(0, ksm_write("merge_domains", "process"));
	ASSERT_TRUE(start(&child, &role));
	ASSERT_EQ(0, ksm_scan(2));
	/* Ours, the child's, and the copy of ours that the child has by fork. */
	EXPECT_EQ(3 * NR_PAGES, ksm_get("ksm_zero_pages"));
	EXPECT_EQ(ksm_pfn(self->zeroes), ksm_pfn_of(child.pid, PARTY_ADDR));
	EXPECT_EQ(0, ksm_child_finish(&child));
	expect_zeroes_only(_metadata, NR_PAGES);
}

TEST_F_TIMEOUT(zero_only, off_merges_the_others, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_scan(2));
	ASSERT_EQ(0, ksm_write("zero_pages_only", "0"));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->dups, NR_PAGES));
	/* What is merged with the zero page stays so. */
	EXPECT_EQ(NR_PAGES, ksm_get("ksm_zero_pages"));
	EXPECT_TRUE(all_zero(self->zeroes, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->dups, NR_PAGES, SEED, 0));
}

TEST_F_TIMEOUT(zero_only, not_while_pages_are_shared, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("zero_pages_only", "0"));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_NE(0, ksm_get("pages_shared"));
	EXPECT_EQ(-EBUSY, ksm_write("zero_pages_only", "1"));
	EXPECT_EQ(0, ksm_get("zero_pages_only"));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(self->dups, NR_PAGES));
	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(0, ksm_write("zero_pages_only", "1"));
	EXPECT_EQ(1, ksm_get("zero_pages_only"));
	ASSERT_EQ(0, ksm_scan(3));
	expect_zeroes_only(_metadata, NR_PAGES);
	EXPECT_TRUE(all_zero(self->zeroes, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->dups, NR_PAGES, SEED, 0));
}

/* What was waiting for an equal is forgotten. */
TEST_F_TIMEOUT(zero_only, forgets_what_waits, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("zero_pages_only", "0"));
	ASSERT_EQ(0, ksm_madvise(self->zeroes, NR_PAGES, MADV_DONTNEED));
	ksm_fill_pages(self->dups, NR_PAGES, SEED, 1);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_get("pages_unshared"));
	ASSERT_EQ(0, ksm_write("zero_pages_only", "1"));
	ASSERT_EQ(0, ksm_scan(3));
	expect_zeroes_only(_metadata, 0);
	EXPECT_TRUE(ksm_pages_hold(self->dups, NR_PAGES, SEED, 1));
}

/* -- fresh_frames -- */

/* Different pages, then the same ones again; and the frames they had at first. */
FIXTURE(frames)
{
	char *addr;
	char *twins;
	unsigned long before[2 * NR_PAGES];
};

FIXTURE_VARIANT(frames)
{
	const char *fresh_frames;
};

FIXTURE_VARIANT_ADD(frames, old)
{
	.fresh_frames = "0",
};

FIXTURE_VARIANT_ADD(frames, fresh)
{
	.fresh_frames = "1",
};

FIXTURE_SETUP(frames)
{
	const char *why_not = ksm_setup();

	if (!why_not && *variant->fresh_frames == '1' && !ksm_has("fresh_frames"))
		why_not = "kernel without fresh_frames";
	if (why_not)
		SKIP(return, "%s", why_not);
	if (*variant->fresh_frames == '1')
		ASSERT_EQ(0, ksm_write("fresh_frames", "1"));
	self->addr = ksm_map(2 * NR_PAGES);
	ASSERT_NE(MAP_FAILED, self->addr);
	self->twins = ksm_page(self->addr, NR_PAGES);
	ksm_fill_pages(self->addr, NR_PAGES, SEED, 1);
	ksm_fill_pages(self->twins, NR_PAGES, SEED, 1);
	for (int i = 0; i < 2 * NR_PAGES; i++)
		self->before[i] = ksm_pfn(ksm_page(self->addr, i));
	ASSERT_EQ(0, ksm_madvise(self->addr, 2 * NR_PAGES, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_get("pages_shared"));
	ASSERT_EQ(NR_PAGES, ksm_get("pages_sharing"));
}

FIXTURE_TEARDOWN_PARENT(frames)
{
	ksm_restore();
}

static bool twins_hold(char *addr)
{
	return ksm_pages_hold(addr, NR_PAGES, SEED, 1) &&
	       ksm_pages_hold(ksm_page(addr, NR_PAGES), NR_PAGES, SEED, 1);
}

TEST_F_TIMEOUT(frames, of_one_or_of_neither, KSM_TIMEOUT)
{
	bool fresh = *variant->fresh_frames == '1';

	for (int i = 0; i < NR_PAGES; i++) {
		unsigned long pfn = ksm_pfn(ksm_page(self->addr, i));
		bool known = pfn == self->before[i] || pfn == self->before[NR_PAGES + i];

		EXPECT_NE(-1UL, pfn);
		EXPECT_EQ(pfn, ksm_pfn(ksm_page(self->twins, i)));
		EXPECT_EQ(!fresh, known);
	}
	EXPECT_TRUE(twins_hold(self->addr));
}

/* Only when it becomes shared: not again when there is one more to share it. */
TEST_F_TIMEOUT(frames, newcomers_join, KSM_TIMEOUT)
{
	unsigned long pfn = ksm_pfn(self->addr);
	char *more = ksm_map_dups(NR_PAGES, SEED);

	ASSERT_NE(MAP_FAILED, more);
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(NR_PAGES, ksm_get("pages_shared"));
	EXPECT_EQ(2 * NR_PAGES, ksm_get("pages_sharing"));
	EXPECT_EQ(pfn, ksm_pfn(self->addr));
	EXPECT_EQ(pfn, ksm_pfn(more));
	EXPECT_TRUE(ksm_one_frame(more, NR_PAGES));
	EXPECT_TRUE(twins_hold(self->addr));
	EXPECT_TRUE(ksm_pages_hold(more, NR_PAGES, SEED, 0));
}

TEST_F_TIMEOUT(frames, writes_are_private, KSM_TIMEOUT)
{
	for (int i = 0; i < NR_PAGES; i++) {
		ksm_fill(ksm_page(self->addr, i), 100 + i);
		EXPECT_NE(ksm_pfn(ksm_page(self->addr, i)), ksm_pfn(ksm_page(self->twins, i)));
	}
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, 100, 1));
	EXPECT_TRUE(ksm_pages_hold(self->twins, NR_PAGES, SEED, 1));
	/* And merged once more. */
	ksm_fill_pages(self->addr, NR_PAGES, SEED, 1);
	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_EQ(NR_PAGES, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES, ksm_get("pages_sharing"));
	EXPECT_TRUE(twins_hold(self->addr));
}

TEST_F_TIMEOUT(frames, unmergeable, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_madvise(self->addr, 2 * NR_PAGES, MADV_UNMERGEABLE));
	EXPECT_EQ(0, ksm_count_merged(self->addr, 2 * NR_PAGES));
	EXPECT_TRUE(twins_hold(self->addr));
	ASSERT_EQ(0, ksm_scan(1));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_EQ(0, ksm_get("pages_sharing"));
}

TEST_F_TIMEOUT(frames, run_2, KSM_TIMEOUT)
{
	ASSERT_EQ(0, ksm_write("run", "2"));
	EXPECT_EQ(0, ksm_count_merged(self->addr, 2 * NR_PAGES));
	EXPECT_EQ(0, ksm_get("pages_shared"));
	EXPECT_TRUE(twins_hold(self->addr));
}

/* The frames of two processes, none of which is taken for what they share. */
TEST_F_TIMEOUT(frames, of_two_processes, KSM_TIMEOUT)
{
	unsigned long before[2 * NR_PAGES], pfn;
	bool known = false;
	struct ksm_child a, b;

	ASSERT_EQ(0, munmap(self->addr, 2 * NR_PAGES * psize()));
	ASSERT_TRUE(start(&a, &plain));
	ASSERT_TRUE(start(&b, &plain));
	for (int i = 0; i < NR_PAGES; i++) {
		before[i] = ksm_pfn_of(a.pid, ksm_page(PARTY_ADDR, i));
		before[NR_PAGES + i] = ksm_pfn_of(b.pid, ksm_page(PARTY_ADDR, i));
	}
	ASSERT_EQ(0, ksm_scan(3));
	expect_sharing(_metadata, a.pid, b.pid, true);
	pfn = ksm_pfn_of(a.pid, PARTY_ADDR);
	for (int i = 0; i < 2 * NR_PAGES; i++)
		known |= pfn == before[i];
	EXPECT_EQ(*variant->fresh_frames == '0', known);
	expect_good_end(_metadata, &a, &b);
}

/* At any time; for what is merged from then on. */
TEST_F_TIMEOUT(frames, knob_may_change, KSM_TIMEOUT)
{
	unsigned long pfn = ksm_pfn(self->addr), before[2];
	char *more;

	if (!ksm_has("fresh_frames"))
		SKIP(return, "kernel without fresh_frames");
	ASSERT_EQ(0, ksm_write("fresh_frames", *variant->fresh_frames == '1' ? "0" : "1"));
	more = ksm_map_dups(2, 50);
	ASSERT_NE(MAP_FAILED, more);
	before[0] = ksm_pfn(more);
	before[1] = ksm_pfn(ksm_page(more, 1));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(2, ksm_count_merged(more, 2));
	EXPECT_EQ(*variant->fresh_frames == '1',
		  ksm_pfn(more) == before[0] || ksm_pfn(more) == before[1]);
	EXPECT_EQ(pfn, ksm_pfn(self->addr));
	EXPECT_TRUE(ksm_pages_hold(more, 2, 50, 0));
	EXPECT_TRUE(twins_hold(self->addr));
}

/* A fresh frame is reclaimed, and comes back, like any other. */
FIXTURE(fresh_swap)
{
	char *addr;
	struct ksm_reclaim reclaim;
};

FIXTURE_SETUP(fresh_swap)
{
	const char *why_not = ksm_setup();

	if (!why_not && !ksm_has("fresh_frames"))
		why_not = "kernel without fresh_frames";
	if (!why_not)
		why_not = ksm_reclaim_begin(&self->reclaim);
	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ksm_write("fresh_frames", "1"));
	self->addr = ksm_map_dups(NR_PAGES, SEED);
	ASSERT_NE(MAP_FAILED, self->addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_count_merged(self->addr, NR_PAGES));
}

FIXTURE_TEARDOWN_PARENT(fresh_swap)
{
	ksm_restore();
	ksm_reclaim_end(&self->reclaim);
}

TEST_F_TIMEOUT(fresh_swap, out_and_in, KSM_TIMEOUT)
{
	ASSERT_TRUE(ksm_swap_out(self->addr, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, SEED, 0));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_TRUE(ksm_pages_hold(self->addr, NR_PAGES, SEED, 0));
}

/*
 * A process in a memory cgroup that is full to the last page, by a limit that nothing can
 * be swapped out or dropped for; and what its pages wait for, outside of it. What is
 * allocated for a merge must not have anybody killed.
 */
#define NR_FILL		256	/* enough for what a CPU has in stock of the cgroup */

FIXTURE(full_cgroup) {};

static void fill_cgroup(struct ksm_child *child)
{
	cpu_set_t cpu;
	char *fill;

	CPU_ZERO(&cpu);
	CPU_SET(sched_getcpu(), &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);	/* unless there is only one */
	must(!ksm_spew(CGROUP_A "/cgroup.procs", "0"));
	must(ksm_map_at(PARTY_ADDR, NR_PAGES + NR_FILL) == PARTY_ADDR);
	fill = ksm_page(PARTY_ADDR, NR_PAGES);
	ksm_fill_pages(PARTY_ADDR, NR_PAGES, SEED, 1);
	must(!ksm_madvise(PARTY_ADDR, NR_PAGES, MADV_MERGEABLE));
	madvise(fill, NR_FILL * psize(), MADV_NOHUGEPAGE);
	for (int i = 0; i < NR_FILL; i++) {
		ksm_child_pause(child);
		*ksm_page(fill, i) = 1;
	}
	ksm_child_pause(child);
	_exit(!ksm_pages_hold(PARTY_ADDR, NR_PAGES, SEED, 1));
}

static long cgroup_value(const char *file)
{
	char path[128], text[64];

	snprintf(path, sizeof(path), CGROUP_A "/%s", file);
	return ksm_slurp(path, text, sizeof(text)) > 0 ? atol(text) : -1;
}

/* Page by page, as what is charged in advance is less than a page then. */
static bool fill_up(struct ksm_child *child)
{
	long max = cgroup_value("memory.current") + 16 * psize();
	char text[32];

	snprintf(text, sizeof(text), "%ld", max);
	if (ksm_spew(CGROUP_A "/memory.max", text))
		return false;
	for (int i = 0; i < NR_FILL; i++) {
		if (cgroup_value("memory.current") >= max)
			return true;
		if (!ksm_child_go(child) || !ksm_child_wait(child))
			return false;
	}
	return false;
}

static long cgroup_kills(void)
{
	char text[512], *word;

	if (ksm_slurp(CGROUP_A "/memory.events", text, sizeof(text)) <= 0)
		return -1;
	word = strstr(text, "oom_kill ");
	return word ? atol(word + strlen("oom_kill ")) : -1;
}

FIXTURE_SETUP(full_cgroup)
{
	const char *why_not = ksm_setup();

	if (!why_not && !ksm_has("fresh_frames"))
		why_not = "kernel without fresh_frames";
	if (!why_not && (!ksm_cgroups_on() || !ksm_cgroup_make(CGROUP_A)))
		why_not = "no memory cgroup (v2)";
	if (why_not)
		SKIP(return, "%s", why_not);
	ksm_spew(CGROUP_A "/memory.swap.max", "0");	/* if there is swap at all */
	ASSERT_EQ(0, ksm_write("smart_scan", "0"));
	ASSERT_EQ(0, ksm_write("fresh_frames", "1"));
}

FIXTURE_TEARDOWN_PARENT(full_cgroup)
{
	ksm_restore();
	for (int i = 0; i < 100 && rmdir(CGROUP_A) && errno == EBUSY; i++)
		usleep(10000);
}

TEST_F_TIMEOUT(full_cgroup, nobody_is_killed, KSM_TIMEOUT)
{
	struct ksm_child child;
	char *ours, *others;

	if (ksm_child_fork(&child))
		fill_cgroup(&child);
	ASSERT_TRUE(ksm_child_wait(&child));
	/* Theirs wait in the tree first; so it is their pages that are copied. */
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_PAGES, ksm_get("pages_unshared"));
	ours = ksm_map(NR_PAGES + 2);
	ASSERT_NE(MAP_FAILED, ours);
	others = ksm_page(ours, NR_PAGES);
	ksm_fill_pages(ours, NR_PAGES, SEED, 1);
	ksm_fill_pages(others, 2, 100, 0);
	ASSERT_TRUE(fill_up(&child));
	ASSERT_EQ(0, ksm_madvise(ours, NR_PAGES + 2, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	EXPECT_EQ(0, cgroup_kills());
	EXPECT_EQ(2, ksm_count_merged(others, 2));
	EXPECT_EQ(NR_PAGES, ksm_count_merged(ours, NR_PAGES));
	EXPECT_TRUE(ksm_pages_hold(ours, NR_PAGES, SEED, 1));
	EXPECT_GE(cgroup_value("memory.max"), cgroup_value("memory.current"));
	ksm_spew(CGROUP_A "/memory.max", "max");
	while (ksm_child_go(&child) && ksm_child_wait(&child))
		;
	EXPECT_EQ(0, ksm_child_end(&child));
}

/*
 * A family whose pages are still shared by copy-on-write, each in a domain of its own. What
 * one of its pages is copied to is not paid for by the page that was copied: that stays.
 */
#define NR_FAMILY	4
#define NR_COWS		512

static void live_on(struct ksm_child *child)
{
	must(!ksm_domain(PR_KSM_DOMAIN_CREATE, 0));
	ksm_child_pause(child);
	_exit(!ksm_pages_hold(PARTY_ADDR, NR_COWS / 2, SEED, 1));
}

static void raise_family(struct ksm_child *child)
{
	struct ksm_child children[NR_FAMILY];
	int bad = 0;

	must(!ksm_spew(CGROUP_A "/cgroup.procs", "0"));
	must(ksm_map_at(PARTY_ADDR, NR_COWS) == PARTY_ADDR);
	madvise(PARTY_ADDR, NR_COWS * psize(), MADV_NOHUGEPAGE);
	ksm_fill_pages(PARTY_ADDR, NR_COWS / 2, SEED, 1);
	ksm_fill_pages(ksm_page(PARTY_ADDR, NR_COWS / 2), NR_COWS / 2, SEED, 1);
	must(!ksm_madvise(PARTY_ADDR, NR_COWS, MADV_MERGEABLE));
	for (int i = 0; i < NR_FAMILY; i++) {
		if (ksm_child_fork(&children[i]))
			live_on(&children[i]);
		must(ksm_child_wait(&children[i]));
	}
	ksm_child_pause(child);
	for (int i = 0; i < NR_FAMILY; i++)
		bad += !!ksm_child_finish(&children[i]);
	_exit(bad || !ksm_pages_hold(PARTY_ADDR, NR_COWS / 2, SEED, 1));
}

TEST_F_TIMEOUT(full_cgroup, copies_stay_within, KSM_TIMEOUT)
{
	struct ksm_child child;
	char text[32];
	long max;

	if (ksm_child_fork(&child))
		raise_family(&child);
	ASSERT_TRUE(ksm_child_wait(&child));
	max = cgroup_value("memory.current") + NR_COWS / 2 * psize();
	snprintf(text, sizeof(text), "%ld", max);
	ASSERT_EQ(0, ksm_spew(CGROUP_A "/memory.max", text));
	ASSERT_EQ(0, ksm_scan(6));
	EXPECT_LT(0, ksm_get("pages_sharing"));
	EXPECT_EQ(0, cgroup_kills());
	EXPECT_GE(cgroup_value("memory.max"), cgroup_value("memory.current"));
	ksm_spew(CGROUP_A "/memory.max", "max");
	EXPECT_EQ(0, ksm_child_finish(&child));
}

/*
 * A process in a memory cgroup that has no room for copies of all its pages: with them, it
 * would be killed. It stays merged then, until there is.
 */
#define NR_MANY		512
#define SMALL		"1M"

FIXTURE(small_cgroup) {};

FIXTURE_SETUP(small_cgroup)
{
	const char *why_not = begin("memcg");

	if (why_not)
		SKIP(return, "%s", why_not);
	ksm_spew(CGROUP_B "/memory.swap.max", "0");
	ASSERT_EQ(0, ksm_write("smart_scan", "0"));
	ASSERT_EQ(0, ksm_write("max_page_sharing", "1024"));
}

FIXTURE_TEARDOWN_PARENT(small_cgroup)
{
	end();
	for (int i = 0; i < 100 && rmdir(CGROUP_B) && errno == EBUSY; i++)
		usleep(10000);
}

static long kills_in_b(void)
{
	char text[512], *word;

	if (ksm_slurp(CGROUP_B "/memory.events", text, sizeof(text)) <= 0)
		return -1;
	word = strstr(text, "oom_kill ");
	return word ? atol(word + strlen("oom_kill ")) : -1;
}

/* Pages are merged already when the process, or a child of it, comes into the cgroup. */
static void move_into_b(struct ksm_child *child)
{
	ksm_child_pause(child);
	join(CGROUP_B);
	ksm_child_pause(child);
	_exit(!ksm_pages_hold(PARTY_ADDR, NR_MANY, SEED, 0));
}

static void start_many(struct ksm_child *child)
{
	if (!ksm_child_fork(child))
		return;
	join(CGROUP_A);
	must(ksm_map_at(PARTY_ADDR, NR_MANY) == PARTY_ADDR);
	ksm_fill_pages(PARTY_ADDR, NR_MANY, SEED, 0);
	must(!ksm_madvise(PARTY_ADDR, NR_MANY, MADV_MERGEABLE));
	move_into_b(child);
}

static void give_room(struct __test_metadata *_metadata)
{
	EXPECT_EQ(0, kills_in_b());
	EXPECT_EQ(0, ksm_spew(CGROUP_B "/memory.max", "max"));
}

TEST_F_TIMEOUT(small_cgroup, moved_into, KSM_TIMEOUT)
{
	struct ksm_child child;
	unsigned long pfn;

	start_many(&child);
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_MANY - 1, ksm_get("pages_sharing"));
	pfn = ksm_pfn_of(child.pid, ksm_page(PARTY_ADDR, NR_MANY - 1));
	ASSERT_EQ(0, ksm_spew(CGROUP_B "/memory.max", SMALL));
	ASSERT_TRUE(next(&child));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	/* What there was no room for. */
	EXPECT_EQ(pfn, ksm_pfn_of(child.pid, ksm_page(PARTY_ADDR, NR_MANY - 1)));
	give_room(_metadata);
	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_NE(pfn, ksm_pfn_of(child.pid, ksm_page(PARTY_ADDR, NR_MANY - 1)));
	EXPECT_EQ(NR_MANY - 1, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_child_finish(&child));
}

/* The child of one whose pages it is not to share: they are parted one by one. */
TEST_F_TIMEOUT(small_cgroup, forked_into, KSM_TIMEOUT)
{
	struct ksm_child child;

	ASSERT_EQ(0, ksm_write("merge_domains", "process"));
	ASSERT_EQ(PARTY_ADDR, ksm_map_at(PARTY_ADDR, NR_MANY));
	ksm_fill_pages(PARTY_ADDR, NR_MANY, SEED, 0);
	ASSERT_EQ(0, ksm_madvise(PARTY_ADDR, NR_MANY, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_MANY, ksm_count_merged(PARTY_ADDR, NR_MANY));
	if (ksm_child_fork(&child))
		move_into_b(&child);
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_spew(CGROUP_B "/memory.max", SMALL));
	ASSERT_TRUE(next(&child));
	ASSERT_EQ(0, ksm_scan(1));
	give_room(_metadata);
	ASSERT_EQ(0, ksm_scan(SETTLE));
	for (int i = 0; i < NR_MANY; i++)
		ASSERT_NE(ksm_pfn(PARTY_ADDR), ksm_pfn_of(child.pid, ksm_page(PARTY_ADDR, i)));
	EXPECT_TRUE(ksm_pages_hold(PARTY_ADDR, NR_MANY, SEED, 0));
	EXPECT_EQ(0, ksm_child_finish(&child));
}

/* By prctl, somebody else has it leave its domain. */
TEST_F_TIMEOUT(small_cgroup, domain_created_by_another, KSM_TIMEOUT)
{
	struct ksm_child child;

	ASSERT_EQ(0, ksm_write("merge_domains", "global"));
	start_many(&child);
	ASSERT_TRUE(ksm_child_wait(&child));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(NR_MANY - 1, ksm_get("pages_sharing"));
	ASSERT_EQ(0, ksm_spew(CGROUP_B "/memory.max", SMALL));
	ASSERT_TRUE(next(&child));
	EXPECT_EQ(-ENOMEM, ksm_domain(PR_KSM_DOMAIN_CREATE, child.pid));
	EXPECT_EQ(0, ksm_domain_of(child.pid));
	give_room(_metadata);
	EXPECT_EQ(0, ksm_domain(PR_KSM_DOMAIN_CREATE, child.pid));
	EXPECT_NE(0, ksm_domain_of(child.pid));
	EXPECT_EQ(0, ksm_child_finish(&child));
}

#ifdef UFFD_USER_MODE_ONLY
/*
 * Memory that no process has any more, but that somebody reads: its reading waits for a
 * page of it. Copies of it would be charged to nobody.
 */
FIXTURE(ownerless) {};

FIXTURE_VARIANT(ownerless)
{
	const char *policy;
};

FIXTURE_VARIANT_ADD(ownerless, user)
{
	.policy = "user",
};

FIXTURE_VARIANT_ADD(ownerless, memcg)
{
	.policy = "memcg",
};

FIXTURE_SETUP(ownerless)
{
	const char *why_not = begin(variant->policy);

	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ksm_write("smart_scan", "0"));
}

FIXTURE_TEARDOWN_PARENT(ownerless)
{
	end();
}

/* The one that dies has the trap in its memory, its parent the other end of it. */
static void die_later(struct ksm_child *child)
{
	struct trap trap;

	must(trap_set(&trap));
	must(write(child->there[1], &trap, sizeof(trap)) == sizeof(trap));
	if (!access(CGROUP_A, F_OK))
		join(CGROUP_A);
	offer(&plain);
	ksm_child_pause(child);
	for (;;)
		pause();
}

static void read_trap(pid_t pid, struct trap *trap)
{
	char byte;
	struct iovec to = { &byte, 1 }, from = { trap->page, 1 };

	process_vm_readv(pid, &to, 1, &from, 1, 0);
	_exit(0);
}

TEST_F_TIMEOUT(ownerless, is_left_alone, KSM_TIMEOUT)
{
	struct role waits = { .cgroup = access(CGROUP_A, F_OK) ? NULL : CGROUP_A };
	struct ksm_child child, other;
	struct uffd_msg msg;
	struct trap trap;
	int pidfd, fd;
	pid_t reader;

	if (!trap_set(&trap))
		SKIP(return, "no userfaultfd");
	close(trap.uffd);
	munmap(trap.page, psize());
	ASSERT_TRUE(start(&other, &waits));
	if (ksm_child_fork(&child))
		die_later(&child);
	ASSERT_EQ(sizeof(trap), read(child.there[0], &trap, sizeof(trap)));
	ASSERT_TRUE(ksm_child_wait(&child));
	pidfd = syscall(SYS_pidfd_open, child.pid, 0);
	fd = syscall(SYS_pidfd_getfd, pidfd, trap.uffd, 0);
	ASSERT_LE(0, fd);
	reader = fork();
	ASSERT_LE(0, reader);
	if (!reader)
		read_trap(child.pid, &trap);
	ASSERT_EQ(sizeof(msg), read(fd, &msg, sizeof(msg)));

	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(2 * NR_PAGES - 1, ksm_get("pages_sharing"));
	ASSERT_EQ(0, kill(child.pid, SIGKILL));
	EXPECT_EQ(128 + SIGKILL, ksm_child_end(&child));
	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_EQ(1, ksm_get("pages_shared"));
	EXPECT_EQ(2 * NR_PAGES - 1, ksm_get("pages_sharing"));
	close(fd);
	kill(reader, SIGKILL);
	waitpid(reader, NULL, 0);
	ASSERT_EQ(0, ksm_scan(SETTLE));
	EXPECT_EQ(NR_PAGES - 1, ksm_get("pages_sharing"));
	EXPECT_EQ(0, ksm_child_finish(&other));
}
#endif

/* -- Both switches -- */

FIXTURE(switches) {};

FIXTURE_VARIANT(switches)
{
	const char *knob;
};

FIXTURE_VARIANT_ADD(switches, fresh_frames)
{
	.knob = "fresh_frames",
};

FIXTURE_VARIANT_ADD(switches, zero_pages_only)
{
	.knob = "zero_pages_only",
};

FIXTURE_SETUP(switches)
{
	const char *why_not = ksm_setup();

	if (why_not)
		SKIP(return, "%s", why_not);
	if (!ksm_has(variant->knob))
		SKIP(return, "kernel without %s", variant->knob);
}

FIXTURE_TEARDOWN_PARENT(switches)
{
	ksm_restore();
}

TEST_F(switches, take_0_and_1_only)
{
	static const char * const junk[] = { "2", "-1", "maybe", "\n" };
	char shown[64] = "";

	ASSERT_GT(ksm_read(variant->knob, shown, sizeof(shown)), 0);
	EXPECT_STREQ("0\n", shown);
	EXPECT_EQ(0, ksm_write(variant->knob, "1"));
	EXPECT_EQ(0, ksm_write(variant->knob, "1\n"));
	for (size_t i = 0; i < ARRAY_SIZE(junk); i++) {
		EXPECT_EQ(-EINVAL, ksm_write(variant->knob, junk[i])) {
			TH_LOG("'%s'", junk[i]);
		}
	}
	ASSERT_GT(ksm_read(variant->knob, shown, sizeof(shown)), 0);
	EXPECT_STREQ("1\n", shown);
	EXPECT_EQ(0, ksm_write(variant->knob, "0"));
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], EXEC_PARTY))
		be_party(argv + 2);
	if (argc == 3 && !strcmp(argv[1], EXEC_AGAIN))
		exec_on(atoi(argv[2]));
	return test_harness_run(argc, argv);
}
