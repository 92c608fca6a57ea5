// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of an engine: one for the kernel, a new one for each test.
 */
#include "ksm_internal.h"
#include "ksm.h"

static const struct ksm_knobs ksm_default_knobs = {
	.sleep_millisecs = 20,
	.pages_to_scan = KSM_DEFAULT_PAGES_TO_SCAN,
	.merge_across_nodes = 1,
	.max_page_sharing = 256,
	.prune_millisecs = 2000,
	.smart_scan = true,
	.advisor_max_cpu = 70,
	.advisor_min_pages = 500,
	.advisor_max_pages = 30000,
	.advisor_target_secs = 200,
};

/**
 * ksm_caches_create() - make the slab caches, and so on, that all engines share
 *
 * Return: 0, or an error.
 */
int ksm_caches_create(void)
{
	return ksm_item_create_cache() ?: ksm_node_create_cache() ?:
	       ksm_registry_create_cache() ?: ksm_frames_init();
}

/**
 * ksm_engine_init() - make an engine, stopped and with the default settings
 * @engine: room for it
 * @nr_pages: memory that it may have to scan, for the size of its trees
 */
void ksm_engine_init(struct ksm_engine *engine, unsigned long nr_pages)
{
	memset(engine, 0, sizeof(*engine));
	engine->shard_bits = ksm_policy_shard_bits(nr_pages);
	engine->seed = get_random_u64();
	engine->zero_hash = ksm_hash(engine, page_address(ZERO_PAGE(0)));
	engine->rekeyed = -KSM_REKEY_PASSES;
	engine->knobs = ksm_default_knobs;
	spin_lock_init(&engine->registry.lock);
	hash_init(engine->registry.hash);
	INIT_LIST_HEAD(&engine->registry.mms);
	INIT_LIST_HEAD(&engine->registry.done);
	spin_lock_init(&engine->frames_lock);
	ksm_domains_init(&engine->domains);
	INIT_LIST_HEAD(&engine->orphans);
	spin_lock_init(&engine->orphan_lock);
	mutex_init(&engine->mutex);
	init_waitqueue_head(&engine->sleep_wait);
	init_waitqueue_head(&engine->idle_wait);
	engine->worker.engine = engine;
}

/**
 * ksm_engine_start() - have trees, before anything is scanned for the first time
 * @engine: the engine
 *
 * On a large machine they take megabytes, also where nobody ever merges anything. So they
 * are made when merging is first switched on, and then stay.
 *
 * Context: may sleep; the engine mutex is held, so that no two make them.
 * Return: 0; -ENOMEM, and nothing changed.
 */
int ksm_engine_start(struct ksm_engine *engine)
{
	const unsigned int nr = 1U << engine->shard_bits;
	struct ksm_shard *shards;
	unsigned int i;

	lockdep_assert_held(&engine->mutex);
	if (engine->shards)
		return 0;
	/* Not worth having somebody killed for it. */
	shards = kvcalloc(nr, sizeof(*shards),
			  GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	if (!shards)
		return -ENOMEM;
	for (i = 0; i < nr; i++)
		spin_lock_init(&shards[i].lock);
	engine->shards = shards;
	return 0;
}

/**
 * ksm_engine_destroy() - free what an engine holds
 * @engine: the engine, with no mm registered and empty trees
 */
void ksm_engine_destroy(struct ksm_engine *engine)
{
	WARN_ON_ONCE(!ksm_registry_empty(engine));
	ksm_frames_drain(engine);
	ksm_domains_destroy(&engine->domains);
	ksm_chain_free(engine->worker.spare);
	kvfree(engine->shards);
}
