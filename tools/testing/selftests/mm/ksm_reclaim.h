/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Have pages of the test, and of nobody else, reclaimed: a memory cgroup of its own,
 * and swap. MADV_PAGEOUT would not do, as it leaves shared pages alone.
 */
#ifndef _SELFTESTS_MM_KSM_RECLAIM_H
#define _SELFTESTS_MM_KSM_RECLAIM_H

#include <sys/mount.h>
#include "ksm_util.h"

#define KSM_CGROUP_ROOT	"/sys/fs/cgroup"
#define KSM_CGROUP	KSM_CGROUP_ROOT "/ksm_selftest"
#define KSM_SWAP_FILE	"ksm_selftest.swap"

/* What has to be undone. */
struct ksm_reclaim {
	bool zram;
	bool file;
	bool cgroup;
};

static inline bool ksm_swap_file_on(void)
{
	char *block = calloc(1, 1 << 20);
	int fd = open(KSM_SWAP_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	bool ok = fd >= 0;

	for (int i = 0; ok && i < KSM_SWAP_MIB; i++)
		ok = write(fd, block, 1 << 20) == 1 << 20;
	close(fd);
	free(block);
	return ok && ksm_swapon(KSM_SWAP_FILE);
}

/* Some of our own, that can be turned off; at worst what the machine has. */
static inline bool ksm_reclaim_swap(struct ksm_reclaim *reclaim)
{
	reclaim->zram = ksm_zram_on(KSM_SWAP_MIB);
	if (reclaim->zram)
		return ksm_swapon(KSM_ZRAM);
	reclaim->file = true;
	if (ksm_swap_file_on())
		return true;
	reclaim->file = false;
	unlink(KSM_SWAP_FILE);
	return ksm_have_swap();
}

/* Can there be memory cgroups (v2)? */
static inline bool ksm_cgroups_on(void)
{
	if (access(KSM_CGROUP_ROOT "/cgroup.controllers", F_OK) &&
	    mount("cgroup2", KSM_CGROUP_ROOT, "cgroup2", 0, NULL))
		return false;
	return !ksm_spew(KSM_CGROUP_ROOT "/cgroup.subtree_control", "+memory");
}

static inline bool ksm_cgroup_make(const char *cgroup)
{
	return !mkdir(cgroup, 0700) || errno == EEXIST;
}

/* A cgroup for us, and for all that we allocate from now on. */
static inline bool ksm_reclaim_enter(struct ksm_reclaim *reclaim)
{
	if (!ksm_cgroups_on())
		return false;
	reclaim->cgroup = true;
	return ksm_cgroup_make(KSM_CGROUP) &&
	       !access(KSM_CGROUP "/memory.reclaim", F_OK) &&
	       !ksm_spew(KSM_CGROUP "/cgroup.procs", "0");
}

/* NULL, or why it cannot be done here. */
static inline const char *ksm_reclaim_begin(struct ksm_reclaim *reclaim)
{
	if (access("/proc/swaps", F_OK))
		return "kernel without swap";
	if (!ksm_reclaim_enter(reclaim))
		return "no memory cgroup (v2) with memory.reclaim";
	if (!ksm_reclaim_swap(reclaim))
		return "no zram, and no swap file possible here";
	return NULL;
}

/* When all who were in the cgroup are gone. */
static inline void ksm_reclaim_end(struct ksm_reclaim *reclaim)
{
	if (reclaim->zram)
		ksm_zram_off();
	if (reclaim->file) {
		swapoff(KSM_SWAP_FILE);
		unlink(KSM_SWAP_FILE);
	}
	if (reclaim->cgroup)
		rmdir(KSM_CGROUP);
}

/* One round of it, as far as that gets. */
static inline void ksm_reclaim_some(void)
{
	ksm_spew(KSM_CGROUP "/memory.reclaim", "8M swappiness=200");
}

/*
 * Has the cgroup reclaimed until these pages are gone. That takes a few rounds,
 * and some time: reclaim goes by statistics that are brought up to date every
 * two seconds only, and finds nothing to age before that.
 */
static inline bool ksm_swap_out(char *addr, size_t nr_pages)
{
	double deadline = ksm_now() + KSM_HANG_SECS;

	while (ksm_count_swapped(addr, nr_pages) < nr_pages) {
		if (ksm_now() > deadline)
			return false;
		ksm_reclaim_some();
		usleep(10000);
	}
	return true;
}

#endif
