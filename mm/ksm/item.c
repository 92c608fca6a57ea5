// SPDX-License-Identifier: GPL-2.0-only
/*
 * Life and state of slots, sightings and rmap items.
 *
 * A page that was merely seen costs eight bytes: its slot in the chunk, which then
 * holds a sighting, that is most of a hash and a little history in one word. Only
 * a page that enters a tree gets an rmap item, and its slot the pointer to it.
 *
 *	slot	0			nothing known
 *		... .... 1		sighting:
 *			63..16 hash, 14 doubted, 13 zeroed, 12..11 calm, 10..9 cows,
 *			8..5 skips, 4..1 age
 *		pointer			rmap item
 *
 *	item->tagged	address, 11..10 cows, 9..6 skips, 5..2 age, 1..0 state
 *
 * Slots, and items that are IDLE, are their worker's own. The state of an item is
 * changed here and nowhere else, under the lock of the shard that it is, or comes
 * to be, in; and the counters move with it:
 *
 *	IDLE <-> UNSTABLE -> CLAIMED -> IDLE or STABLE
 *	IDLE <-> STABLE
 *
 * An item that its node still needs when its page has left does not become IDLE. It
 * leaves its slot and its owner instead, and stays with the node as an heir, see heir.c.
 */
#include "ksm_internal.h"
#include "ksm.h"

#define KSM_SIGHTING_AGE	GENMASK_ULL(4, 1)
#define KSM_SIGHTING_SKIPS	GENMASK_ULL(8, 5)
#define KSM_SIGHTING_COWS	GENMASK_ULL(10, 9)
#define KSM_SIGHTING_CALM	GENMASK_ULL(12, 11)

#define KSM_ITEM_AGE		GENMASK(5, 2)
#define KSM_ITEM_SKIPS		GENMASK(9, 6)
#define KSM_ITEM_COWS		GENMASK(11, 10)
static_assert(PAGE_SHIFT >= 12);

static struct kmem_cache *ksm_item_cache;

/**
 * ksm_item_create_cache() - make the slab cache for rmap items
 *
 * Return: 0, or -ENOMEM.
 */
int ksm_item_create_cache(void)
{
	ksm_item_cache = KMEM_CACHE(ksm_rmap_item, 0);
	return ksm_item_cache ? 0 : -ENOMEM;
}

/**
 * ksm_slot_history() - what is remembered of a page
 * @slot: content of its slot
 *
 * Return: the history; all 0 for a page that is not known yet. An item in the
 * unstable tree was calm when it was parked there, and has stayed so as far as is
 * known.
 */
struct ksm_history ksm_slot_history(u64 slot)
{
	const struct ksm_rmap_item *item = ksm_slot_item(slot);

	if (item)
		return (struct ksm_history) {
			.age = FIELD_GET(KSM_ITEM_AGE, item->tagged),
			.skips = FIELD_GET(KSM_ITEM_SKIPS, item->tagged),
			.cows = FIELD_GET(KSM_ITEM_COWS, item->tagged),
			.calm = FIELD_MAX(KSM_SIGHTING_CALM),
		};
	return (struct ksm_history) {
		.age = FIELD_GET(KSM_SIGHTING_AGE, slot),
		.skips = FIELD_GET(KSM_SIGHTING_SKIPS, slot),
		.cows = FIELD_GET(KSM_SIGHTING_COWS, slot),
		.calm = FIELD_GET(KSM_SIGHTING_CALM, slot),
	};
}

static u64 ksm_sighting(u64 hash, const struct ksm_history *history)
{
	return KSM_SIGHTING | (hash & KSM_HASH_MASK) |
	       FIELD_PREP(KSM_SIGHTING_AGE, history->age) |
	       FIELD_PREP(KSM_SIGHTING_SKIPS, history->skips) |
	       FIELD_PREP(KSM_SIGHTING_COWS, history->cows) |
	       FIELD_PREP(KSM_SIGHTING_CALM, history->calm);
}

/**
 * ksm_slot_set_history() - remember something of a known page
 * @slot: its slot, not empty
 * @history: what to remember; calm is not kept for items
 */
void ksm_slot_set_history(u64 *slot, const struct ksm_history *history)
{
	struct ksm_rmap_item *item = ksm_slot_item(*slot);

	if (!item) {
		*slot = (*slot & (KSM_SIGHTING_ZEROED | KSM_SIGHTING_DOUBTED)) |
			ksm_sighting(*slot, history);
		return;
	}
	item->tagged &= ~(KSM_ITEM_AGE | KSM_ITEM_SKIPS | KSM_ITEM_COWS);
	item->tagged |= FIELD_PREP(KSM_ITEM_AGE, history->age) |
			FIELD_PREP(KSM_ITEM_SKIPS, history->skips) |
			FIELD_PREP(KSM_ITEM_COWS, history->cows);
}

/**
 * ksm_slot_matches() - is a page's content what it was when last looked at?
 * @slot: content of its slot
 * @hash: of the page's content now
 *
 * Return: false also if it was never looked at.
 */
bool ksm_slot_matches(u64 slot, u64 hash)
{
	const struct ksm_rmap_item *item = ksm_slot_item(slot);

	if (item)
		return ksm_item_state(item) == KSM_ITEM_UNSTABLE &&
		       item->unstable.key.hash == hash;
	return ksm_slot_is_sighting(slot) &&
	       !((slot ^ hash) & KSM_HASH_MASK);
}

/**
 * ksm_slot_hash() - what a page's content was when last looked at
 * @slot: content of its slot, a sighting
 *
 * Return: the hash.
 */
u64 ksm_slot_hash(u64 slot)
{
	return slot & KSM_HASH_MASK;
}

/**
 * ksm_slot_distrust() - have a page read when it is next looked at
 * @slot: its slot, of the caller's own mm; may be empty
 * @pfn: number of the frame that is mapped at its address
 *
 * Holds until the page is read, however often it is passed over before.
 */
void ksm_slot_distrust(u64 *slot, unsigned long pfn)
{
	struct ksm_rmap_item *item = ksm_slot_item(*slot);

	if (ksm_slot_is_sighting(*slot))
		*slot |= KSM_SIGHTING_DOUBTED;
	else if (item && ksm_item_state(item) == KSM_ITEM_UNSTABLE)
		item->unstable.key.frame = ~pfn;
}

/*
 * All changes of a slot. A page that is merged with the zero page is remembered for
 * its history's sake only, and not among the pages that KSM keeps track of.
 */
static void ksm_slot_store(struct ksm_mm *kmm, struct ksm_chunk *chunk, u64 *slot,
			   u64 new)
{
	long tracked = (new && !ksm_slot_is_zeroed(new)) -
		       (*slot && !ksm_slot_is_zeroed(*slot));

	chunk->nr += !!new - !!*slot;
	chunk->holes |= !new;
	if (tracked) {
		kmm->slot.mm->ksm_rmap_items += tracked;
		ksm_stat_add(kmm->engine, KSM_STAT_TRACKED, tracked);
	}
	*slot = new;
}

/* Free the item in a slot, if any. Return: false if it has to stay. */
static bool ksm_slot_drop_item(struct ksm_mm *kmm, u64 slot)
{
	struct ksm_rmap_item *item = ksm_slot_item(slot);

	if (!item)
		return true;
	if (WARN_ON_ONCE(ksm_item_state(item) != KSM_ITEM_IDLE))
		return false;
	atomic_long_dec(&kmm->nr_items);
	ksm_stat_add(kmm->engine, KSM_STAT_ITEMS, -1);
	kmem_cache_free(ksm_item_cache, item);
	ksm_uncharge(kmm, sizeof(*item));
	return true;
}

/**
 * ksm_slot_sight() - remember a page as merely seen
 * @kmm: the mm that the page is in
 * @chunk: the chunk that @slot is in
 * @slot: the page's slot; an item in it must be IDLE, and is freed
 * @hash: of the page's content
 * @history: of the page
 */
void ksm_slot_sight(struct ksm_mm *kmm, struct ksm_chunk *chunk, u64 *slot,
		    u64 hash, const struct ksm_history *history)
{
	if (ksm_slot_drop_item(kmm, *slot))
		ksm_slot_store(kmm, chunk, slot, ksm_sighting(hash, history));
}

/**
 * ksm_slot_zeroed() - remember a page as merged with the zero page
 * @kmm: the mm that the page is in
 * @chunk: the chunk that @slot is in
 * @slot: the page's slot; an item in it must be IDLE, and is freed
 * @history: of the page
 */
void ksm_slot_zeroed(struct ksm_mm *kmm, struct ksm_chunk *chunk, u64 *slot,
		     const struct ksm_history *history)
{
	if (ksm_slot_drop_item(kmm, *slot))
		ksm_slot_store(kmm, chunk, slot, KSM_SIGHTING_ZEROED |
						 ksm_sighting(0, history));
}

static struct ksm_rmap_item *ksm_item_alloc(struct ksm_mm *kmm, enum ksm_charge_how how)
{
	struct ksm_rmap_item *item;

	if (ksm_charge(kmm, sizeof(*item), how))
		return NULL;
	item = kmem_cache_zalloc(ksm_item_cache,
				 GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (!item)
		ksm_uncharge(kmm, sizeof(*item));
	return item;
}

/**
 * ksm_slot_to_item() - give a page an rmap item, if it has none yet
 * @kmm: the mm that the page is in
 * @chunk: the chunk that @slot is in
 * @slot: the page's slot
 * @addr: where the page is
 * @how: whether its memory may exceed a limit
 *
 * Context: may sleep.
 * Return: the item; NULL, and nothing changed, when there is no memory for it, or the
 * mm's memory cgroup is at its limit.
 */
struct ksm_rmap_item *ksm_slot_to_item(struct ksm_mm *kmm, struct ksm_chunk *chunk,
				       u64 *slot, unsigned long addr,
				       enum ksm_charge_how how)
{
	struct ksm_history history = ksm_slot_history(*slot);
	struct ksm_rmap_item *item = ksm_slot_item(*slot);

	if (item)
		return item;
	item = ksm_item_alloc(kmm, how);
	if (!item)
		return NULL;
	item->owner = kmm;
	item->tagged = addr;
	atomic_long_inc(&kmm->nr_items);
	ksm_stat_add(kmm->engine, KSM_STAT_ITEMS, 1);

	ksm_slot_store(kmm, chunk, slot, (unsigned long)item);
	ksm_slot_set_history(slot, &history);
	return item;
}

/**
 * ksm_slot_clear() - forget a page
 * @kmm: the mm that the page is in
 * @chunk: the chunk that @slot is in
 * @slot: the page's slot; an item in it must be IDLE, and is freed
 */
void ksm_slot_clear(struct ksm_mm *kmm, struct ksm_chunk *chunk, u64 *slot)
{
	if (ksm_slot_drop_item(kmm, *slot))
		ksm_slot_store(kmm, chunk, slot, 0);
}

/* Every change of state: from what the caller takes it to be. */
static bool ksm_item_change(struct ksm_rmap_item *item, enum ksm_item_state from,
			    enum ksm_item_state to)
{
	if (WARN_ON_ONCE(ksm_item_state(item) != from))
		return false;
	item->tagged &= ~KSM_ITEM_STATE;
	item->tagged |= FIELD_PREP(KSM_ITEM_STATE, to);
	return true;
}

/**
 * ksm_item_park() - an IDLE item enters the unstable tree
 * @engine: the engine
 * @item: the item; the caller links it
 * @key: of its page
 */
void ksm_item_park(struct ksm_engine *engine, struct ksm_rmap_item *item,
		   const struct ksm_key *key)
{
	lockdep_assert_held(&ksm_shard(engine, key->hash)->lock);
	if (!ksm_item_change(item, KSM_ITEM_IDLE, KSM_ITEM_UNSTABLE))
		return;
	item->unstable.key = *key;
	ksm_stat_add(engine, KSM_STAT_UNSHARED, 1);
}

/**
 * ksm_item_unpark() - an item leaves the unstable tree and becomes IDLE
 * @engine: the engine
 * @item: the item; the caller has unlinked it
 */
void ksm_item_unpark(struct ksm_engine *engine, struct ksm_rmap_item *item)
{
	if (!ksm_item_change(item, KSM_ITEM_UNSTABLE, KSM_ITEM_IDLE))
		return;
	lockdep_assert_held(&ksm_shard(engine, item->unstable.key.hash)->lock);
	ksm_stat_add(engine, KSM_STAT_UNSHARED, -1);
}

/**
 * ksm_item_claim() - an item leaves the unstable tree for a worker's hands
 * @engine: the engine
 * @item: the item; the caller has unlinked it
 *
 * The item may belong to another mm than the one that the worker is scanning. As
 * long as it is claimed its owner leaves it alone, and does not go away.
 */
void ksm_item_claim(struct ksm_engine *engine, struct ksm_rmap_item *item)
{
	if (!ksm_item_change(item, KSM_ITEM_UNSTABLE, KSM_ITEM_CLAIMED))
		return;
	lockdep_assert_held(&ksm_shard(engine, item->unstable.key.hash)->lock);
	atomic_inc(&item->owner->claims);
	ksm_stat_add(engine, KSM_STAT_UNSHARED, -1);
}

/**
 * ksm_item_release() - a worker is done with an item that it has claimed
 * @shard: the shard that it was claimed from, which is also the one of the stable
 *	   node that it may have been attached to
 * @item: the item, not to be touched afterwards; IDLE if it was not attached
 */
void ksm_item_release(struct ksm_shard *shard, struct ksm_rmap_item *item)
{
	struct ksm_mm *owner = item->owner;

	if (ksm_item_state(item) == KSM_ITEM_CLAIMED)
		ksm_item_change(item, KSM_ITEM_CLAIMED, KSM_ITEM_IDLE);
	ksm_item_end_claim(shard, owner);
}

/**
 * ksm_item_end_claim() - a worker is done with an item that has left its owner since
 * @shard: as for ksm_item_release()
 * @owner: whose item it was when it was claimed
 */
void ksm_item_end_claim(struct ksm_shard *shard, struct ksm_mm *owner)
{
	lockdep_assert_held(&shard->lock);
	if (atomic_dec_and_test(&owner->claims))
		wake_up_var(&owner->claims);
}

/* The sharers of a node are one more, or one less; of @was others, or to @was others. */
static void ksm_item_count(struct ksm_engine *engine, struct ksm_stable_node *node,
			   unsigned int was, long n)
{
	ksm_stat_add(engine, was ? KSM_STAT_SHARING : KSM_STAT_SHARED, n);
	atomic_long_add(n, was ? &node->domain->sharing : &node->domain->shared);
}

/**
 * ksm_item_attach() - an item becomes a sharer of a stable node
 * @engine: the engine
 * @item: the item, IDLE or claimed by the caller
 * @node: the node, its folio locked
 * @anon_vma: of the VMA that maps the page; the caller's reference is taken over
 * @index: of the page in @anon_vma
 */
void ksm_item_attach(struct ksm_engine *engine, struct ksm_rmap_item *item,
		     struct ksm_stable_node *node, struct anon_vma *anon_vma,
		     unsigned long index)
{
	lockdep_assert_held(&ksm_shard(engine, node->entry.key.hash)->lock);
	if (!ksm_item_change(item, ksm_item_state(item) == KSM_ITEM_CLAIMED ?
			     KSM_ITEM_CLAIMED : KSM_ITEM_IDLE, KSM_ITEM_STABLE))
		return;
	item->stable.node = node;
	item->stable.anon_vma = anon_vma;
	item->stable.index = index;
	hlist_add_head(&item->stable.link, &node->items);
	ksm_item_count(engine, node, node->entry.nr++, 1);
	item->owner->slot.mm->ksm_merging_pages++;
}

/* A sharer is off its node's list. */
static void ksm_item_unlink(struct ksm_engine *engine, struct ksm_rmap_item *item)
{
	struct ksm_stable_node *node = item->stable.node;

	lockdep_assert_held(&ksm_shard(engine, node->entry.key.hash)->lock);
	hlist_del(&item->stable.link);
	ksm_item_count(engine, node, --node->entry.nr, -1);
	item->owner->slot.mm->ksm_merging_pages--;
}

/**
 * ksm_item_detach() - a sharer leaves its stable node and becomes IDLE
 * @engine: the engine
 * @item: the item; its node's folio is locked, or the node is stale
 *
 * Return: the anon_vma, for the caller to put once no lock is held; NULL if @item
 * was no sharer.
 */
struct anon_vma *ksm_item_detach(struct ksm_engine *engine,
				 struct ksm_rmap_item *item)
{
	struct anon_vma *anon_vma = item->stable.anon_vma;

	if (!ksm_item_change(item, KSM_ITEM_STABLE, KSM_ITEM_IDLE))
		return NULL;
	ksm_item_unlink(engine, item);
	return anon_vma;
}

/**
 * ksm_slot_to_heir() - a sharer leaves its stable node, but its item stays there
 * @engine: the engine
 * @chunk: the chunk that @slot is in
 * @slot: the page's slot, with a STABLE item whose node's folio is locked; cleared
 * @root: root of the item's anon_vma; the caller's reference is taken over
 *
 * Nothing is allocated. The item is not the mm's any more, nor a sharer, and is counted
 * among the engine's items only. Whoever has paid for it goes on paying.
 *
 * Return: the anon_vma that the item had, for the caller to put once no lock is held.
 */
struct anon_vma *ksm_slot_to_heir(struct ksm_engine *engine, struct ksm_chunk *chunk,
				  u64 *slot, struct anon_vma *root)
{
	struct ksm_rmap_item *item = ksm_slot_item(*slot);
	struct ksm_stable_node *node = item->stable.node;
	struct anon_vma *anon_vma = item->stable.anon_vma;
	struct ksm_mm *owner = item->owner;

	ksm_item_unlink(engine, item);
	ksm_slot_store(owner, chunk, slot, 0);
	atomic_long_dec(&owner->nr_items);
	item->payer = ksm_charge_bequeath(owner, sizeof(*item));
	item->stable.anon_vma = root;
	hlist_add_head(&item->stable.link, &node->heirs);
	node->nr_heirs++;
	return anon_vma;
}

/**
 * ksm_item_drop_heir() - free an heir
 * @engine: the engine
 * @item: the heir; its node's folio is locked, or the node is stale
 *
 * Return: the anon_vma, for the caller to put once no lock is held.
 */
struct anon_vma *ksm_item_drop_heir(struct ksm_engine *engine,
				    struct ksm_rmap_item *item)
{
	struct ksm_stable_node *node = item->stable.node;
	struct anon_vma *anon_vma = item->stable.anon_vma;

	lockdep_assert_held(&ksm_shard(engine, node->entry.key.hash)->lock);
	hlist_del(&item->stable.link);
	node->nr_heirs--;
	ksm_stat_add(engine, KSM_STAT_ITEMS, -1);
	ksm_charge_release(engine, item->payer, sizeof(*item));
	kmem_cache_free(ksm_item_cache, item);
	return anon_vma;
}
