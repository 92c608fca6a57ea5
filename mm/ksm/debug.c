// SPDX-License-Identifier: GPL-2.0-only
/*
 * The validator: does every structure of the engine agree with every other?
 *
 * It counts again, the slow way, what the counters claim, and checks each link from
 * both ends. Built in with CONFIG_KSM_DEBUG, it runs after unmerging and now and then
 * at the end of a pass, and tests call it after each step. The first disagreement of
 * a kind is a warning.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* Passes between two validations. */
#define KSM_VALIDATE_PERIOD	16

struct ksm_census {
	long count[KSM_NR_STATS];
	int errors;
};

#define ksm_expect(census, condition)					\
	do {								\
		if (WARN_ON_ONCE(!(condition)))				\
			(census)->errors++;				\
	} while (0)

static void ksm_validate_sharers(struct ksm_census *census,
				 struct ksm_stable_node *node)
{
	struct ksm_rmap_item *item;
	unsigned int nr = 0;

	hlist_for_each_entry(item, &node->items, stable.link) {
		nr++;
		ksm_expect(census, ksm_item_state(item) == KSM_ITEM_STABLE);
		ksm_expect(census, item->stable.node == node);
		ksm_expect(census, item->stable.anon_vma);
		ksm_expect(census, item->owner->domain == node->domain);
	}
	ksm_expect(census, nr == node->entry.nr);
	census->count[KSM_STAT_SHARED] += !!nr;
	census->count[KSM_STAT_SHARING] += nr ? nr - 1 : 0;
}

static void ksm_validate_node(struct ksm_census *census,
			      struct ksm_stable_node *node,
			      struct ksm_stable_chain *chain)
{
	ksm_expect(census, node->linked);
	ksm_expect(census, !node->entry.is_chain);
	ksm_expect(census, node->chain == chain);
	ksm_expect(census, node->entry.key.domain == node->domain->id);
	ksm_validate_sharers(census, node);
}

static void ksm_validate_chain(struct ksm_census *census,
			       struct ksm_stable_chain *chain)
{
	struct ksm_stable_node *node;
	unsigned int nr = 0;

	list_for_each_entry(node, &chain->roomy, link) {
		ksm_validate_node(census, node, chain);
		nr++;
	}
	list_for_each_entry(node, &chain->full, link) {
		ksm_validate_node(census, node, chain);
		nr++;
	}
	ksm_expect(census, nr == chain->entry.nr);
	ksm_expect(census, nr > 1);
	census->count[KSM_STAT_CHAINS]++;
	census->count[KSM_STAT_DUPS] += nr;
}

static void ksm_validate_stable(struct ksm_engine *engine,
				struct ksm_census *census,
				struct ksm_shard *shard)
{
	struct ksm_stable_chain *chain;
	struct ksm_stable_node *node;
	struct ksm_key *last = NULL;
	struct rb_node *rb;

	for (rb = rb_first(&shard->stable); rb; rb = rb_next(rb)) {
		struct ksm_stable_entry *entry =
			rb_entry(rb, struct ksm_stable_entry, rb);

		ksm_expect(census, !last || ksm_key_cmp(last, &entry->key) < 0);
		ksm_expect(census, ksm_shard(engine, entry->key.hash) == shard);
		last = &entry->key;
		if (entry->is_chain) {
			chain = container_of(entry, struct ksm_stable_chain, entry);
			ksm_validate_chain(census, chain);
		} else {
			node = container_of(entry, struct ksm_stable_node, entry);
			ksm_validate_node(census, node, NULL);
		}
	}
}

static void ksm_validate_unstable(struct ksm_engine *engine,
				  struct ksm_census *census,
				  struct ksm_shard *shard)
{
	struct ksm_key *last = NULL;
	struct rb_node *rb;

	for (rb = rb_first(&shard->unstable); rb; rb = rb_next(rb)) {
		struct ksm_rmap_item *item =
			rb_entry(rb, struct ksm_rmap_item, unstable.rb);
		struct ksm_key *key = &item->unstable.key;

		ksm_expect(census, !last || ksm_key_cmp(last, key) < 0);
		ksm_expect(census, ksm_shard(engine, key->hash) == shard);
		ksm_expect(census, ksm_item_state(item) == KSM_ITEM_UNSTABLE);
		ksm_expect(census, key->domain == item->owner->domain->id);
		last = key;
		census->count[KSM_STAT_UNSHARED]++;
	}
}

static void ksm_validate_chunk(struct ksm_census *census, struct ksm_mm *kmm,
			       struct ksm_chunk *chunk)
{
	unsigned long addr = ksm_slots_next(chunk, 0, ULONG_MAX), last = 0;
	unsigned int nr = 0, zeroed = 0;

	for (; addr != ULONG_MAX; addr = ksm_slots_next(chunk, addr + PAGE_SIZE, ULONG_MAX)) {
		u64 slot = *ksm_chunk_slot(chunk, addr);
		struct ksm_rmap_item *item = ksm_slot_item(slot);

		ksm_expect(census, addr > last || !nr);
		last = addr;
		nr++;
		zeroed += ksm_slot_is_zeroed(slot);
		if (!item)
			continue;
		census->count[KSM_STAT_ITEMS]++;
		census->count[KSM_STAT_BYTES] += sizeof(*item);
		ksm_expect(census, item->owner == kmm);
		ksm_expect(census, ksm_item_addr(item) == addr);
		ksm_expect(census, ksm_item_state(item) != KSM_ITEM_CLAIMED);
	}
	ksm_expect(census, nr == chunk->nr);
	census->count[KSM_STAT_TRACKED] += nr - zeroed;
	census->count[KSM_STAT_BYTES] += ksm_slots_bytes(chunk);
}

static void ksm_validate_mm(struct ksm_census *census, struct ksm_mm *kmm)
{
	long tracked = census->count[KSM_STAT_TRACKED];
	long items = census->count[KSM_STAT_ITEMS];
	long chunks = census->count[KSM_STAT_CHUNKS];
	long bytes = census->count[KSM_STAT_BYTES];
	struct ksm_chunk *chunk;
	unsigned long index;

	ksm_validate_chunk(census, kmm, &kmm->few);
	xa_for_each(&kmm->chunks, index, chunk) {
		ksm_validate_chunk(census, kmm, chunk);
		ksm_expect(census, chunk->nr);
		census->count[KSM_STAT_CHUNKS]++;
		census->count[KSM_STAT_BYTES] += sizeof(*chunk);
	}
	tracked = census->count[KSM_STAT_TRACKED] - tracked;
	items = census->count[KSM_STAT_ITEMS] - items;
	chunks = census->count[KSM_STAT_CHUNKS] - chunks;
	bytes = census->count[KSM_STAT_BYTES] - bytes;
	ksm_expect(census, !atomic_read(&kmm->claims));
	ksm_expect(census, tracked == kmm->slot.mm->ksm_rmap_items);
	ksm_expect(census, items == atomic_long_read(&kmm->nr_items));
	ksm_expect(census, chunks == atomic_long_read(&kmm->nr_chunks));
	ksm_expect(census, bytes == atomic_long_read(&kmm->bytes));
}

/* Under the registry lock all along: exits wait, which is for debug kernels only. */
static void ksm_validate_registry(struct ksm_engine *engine,
				  struct ksm_census *census)
{
	struct mm_slot *slot;
	int bucket;

	spin_lock(&engine->registry.lock);
	hash_for_each(engine->registry.hash, bucket, slot, hash)
		ksm_validate_mm(census, mm_slot_entry(slot, struct ksm_mm, slot));
	spin_unlock(&engine->registry.lock);
}

static void ksm_validate_domains(struct ksm_engine *engine, struct ksm_census *census)
{
	struct ksm_domains *domains = &engine->domains;
	long shared = atomic_long_read(&domains->global.shared);
	long sharing = atomic_long_read(&domains->global.sharing);
	struct ksm_domain *domain;
	unsigned long id;

	xa_lock(&domains->by_id);
	xa_for_each(&domains->by_id, id, domain) {
		ksm_expect(census, domain->id == id);
		shared += atomic_long_read(&domain->shared);
		sharing += atomic_long_read(&domain->sharing);
	}
	xa_unlock(&domains->by_id);
	ksm_expect(census, shared == census->count[KSM_STAT_SHARED]);
	ksm_expect(census, sharing == census->count[KSM_STAT_SHARING]);
}

static bool ksm_validate_due(struct ksm_engine *engine)
{
	return engine->run != KSM_RUN_MERGE ||
	       !(engine->seqnr % KSM_VALIDATE_PERIOD);
}

/**
 * ksm_validate() - check the whole engine, if it is time to
 * @engine: the engine, between two batches
 *
 * Context: the engine mutex is held.
 * Return: number of disagreements found.
 */
int ksm_validate(struct ksm_engine *engine)
{
	struct ksm_census census = { };
	unsigned int i;

	lockdep_assert_held(&engine->mutex);
	if (!ksm_validate_due(engine))
		return 0;
	for (i = 0; i < ksm_nr_shards(engine); i++) {
		struct ksm_shard *shard = &engine->shards[i];

		spin_lock(&shard->lock);
		ksm_validate_stable(engine, &census, shard);
		ksm_validate_unstable(engine, &census, shard);
		spin_unlock(&shard->lock);
	}
	ksm_validate_registry(engine, &census);
	ksm_validate_domains(engine, &census);
	for (i = KSM_STAT_TRACKED; i < KSM_NR_STATS; i++)
		ksm_expect(&census, census.count[i] == ksm_stat_read(engine, i));
	return census.errors;
}
