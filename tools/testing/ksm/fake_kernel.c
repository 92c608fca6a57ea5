// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel around the engine: warnings, locks, memory and time.
 */
#include <string.h>

#include "ksm_internal.h"
#include "../../../mm/ksm/ksm.h"
#include "fake.h"
#include "test.h"

unsigned int ksm_fake_locks_held;
bool ksm_fake_no_memory;
bool ksm_fake_no_charge;
struct kmem_cache ksm_fake_kmalloc = { .name = "kmalloc" };
const void *ksm_fake_woken;

/* Soon to wrap round, as in the kernel. */
unsigned long jiffies = -1000UL;

static struct kmem_cache ksm_fake_caches[4];
static unsigned int ksm_fake_complaints;
static bool ksm_fake_expecting;

/* Something is wrong: the test has failed, or this is what it was after. */
void ksm_fake_complain(const char *file, int line, const char *what)
{
	if (!ksm_fake_expecting)
		test_fail(file, line, "%s", what);
	ksm_fake_complaints++;
}

/* From here on, complaints are wanted. */
void ksm_fake_expect(void)
{
	CHECK(!ksm_fake_expecting);
	ksm_fake_expecting = true;
	ksm_fake_complaints = 0;
}

/* From here on, they are not. Returns how many there were. */
unsigned int ksm_fake_expected(void)
{
	CHECK(ksm_fake_expecting);
	ksm_fake_expecting = false;
	return ksm_fake_complaints;
}

/* The cache of that name, or a free one. */
struct kmem_cache *ksm_fake_cache_find(const char *name)
{
	struct kmem_cache *cache = ksm_fake_caches;

	while (cache->name && strcmp(cache->name, name))
		cache++;
	return cache;
}

/* A cache is made once, however many engines use it. */
struct kmem_cache *ksm_fake_cache_create(const char *name, size_t size)
{
	struct kmem_cache *cache;

	if (ksm_fake_no_memory)
		return NULL;
	cache = ksm_fake_cache_find(name);
	if (cache->name)
		return cache;
	CHECK(cache < ksm_fake_caches + ARRAY_SIZE(ksm_fake_caches) - 1);
	cache->name = name;
	cache->size = size;
	return cache;
}

static void *ksm_fake_zalloc(struct kmem_cache *cache, size_t size, gfp_t gfp)
{
	void *object;

	if (gfp != GFP_ATOMIC)
		might_sleep();
	if (ksm_fake_no_memory)
		return NULL;
	object = calloc(1, size);
	CHECK(object);
	cache->nr++;
	return object;
}

void *kmem_cache_zalloc(struct kmem_cache *cache, gfp_t gfp)
{
	return ksm_fake_zalloc(cache, cache->size, gfp);
}

void kmem_cache_free(struct kmem_cache *cache, void *object)
{
	cache->nr--;
	free(object);
}

void *kzalloc(size_t size, gfp_t gfp)
{
	return ksm_fake_zalloc(&ksm_fake_kmalloc, size, gfp);
}

void kfree(const void *object)
{
	if (object)
		ksm_fake_kmalloc.nr--;
	free((void *)object);
}

/* In the place of charge.c: a cgroup that has room, or has not. */
int ksm_charge(struct ksm_mm *kmm, size_t bytes, enum ksm_charge_how how)
{
	CHECK(bytes);
	if (ksm_fake_no_charge && how == KSM_CHARGE_TRY)
		return -ENOMEM;
	atomic_long_add(bytes, &kmm->bytes);
	ksm_stat_add(kmm->engine, KSM_STAT_BYTES, bytes);
	return 0;
}

void ksm_uncharge(struct ksm_mm *kmm, size_t bytes)
{
	CHECK(bytes && bytes <= (size_t)atomic_long_read(&kmm->bytes));
	atomic_long_add(-(long)bytes, &kmm->bytes);
	ksm_stat_add(kmm->engine, KSM_STAT_BYTES, -(long)bytes);
}

struct obj_cgroup *ksm_charge_bequeath(struct ksm_mm *kmm, size_t bytes)
{
	CHECK(bytes && bytes < (size_t)atomic_long_read(&kmm->bytes));
	atomic_long_add(-(long)bytes, &kmm->bytes);
	return NULL;
}

void ksm_charge_release(struct ksm_engine *engine, struct obj_cgroup *payer,
			size_t bytes)
{
	CHECK(!payer);
	ksm_stat_add(engine, KSM_STAT_BYTES, -(long)bytes);
}
