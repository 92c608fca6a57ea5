// SPDX-License-Identifier: GPL-2.0-only
/*
 * The unstable tree: items that wait for an equal, by the key of their content.
 *
 * What it holds are hints. A page in it is not write-protected, so that its
 * content may have changed since its hash was taken. But the tree is sorted by the
 * hashes that were recorded, which do not change: it stays a correct tree whatever
 * becomes of the pages, there is no need to throw it away after every pass, and a
 * stale hint is found out when it is hit or when its own page is visited.
 *
 * Of one key only one item can wait: a second one would be its equal. All
 * functions are called with the lock of the shard held.
 */
#include "ksm_internal.h"
#include "ksm.h"

static struct ksm_rmap_item *ksm_unstable_item(const struct rb_node *rb)
{
	return rb_entry(rb, struct ksm_rmap_item, unstable.rb);
}

static int ksm_unstable_cmp_key(const void *key, const struct rb_node *rb)
{
	return ksm_key_cmp(key, &ksm_unstable_item(rb)->unstable.key);
}

static int ksm_unstable_cmp(struct rb_node *rb, const struct rb_node *other)
{
	return ksm_unstable_cmp_key(&ksm_unstable_item(rb)->unstable.key, other);
}

/**
 * ksm_unstable_find() - find the item that waits under a key
 * @shard: the shard of @key
 * @key: the key
 *
 * Return: the item, or NULL.
 */
struct ksm_rmap_item *ksm_unstable_find(struct ksm_shard *shard,
					const struct ksm_key *key)
{
	struct rb_node *rb;

	lockdep_assert_held(&shard->lock);
	rb = rb_find(key, &shard->unstable, ksm_unstable_cmp_key);
	return rb ? ksm_unstable_item(rb) : NULL;
}

/**
 * ksm_unstable_insert() - let an item wait under a key
 * @engine: the engine
 * @shard: the shard of @key
 * @item: an IDLE item
 * @key: the key of its page's content
 *
 * Return: false, and nothing done, if there is one waiting already.
 */
bool ksm_unstable_insert(struct ksm_engine *engine, struct ksm_shard *shard,
			 struct ksm_rmap_item *item, const struct ksm_key *key)
{
	ksm_item_park(engine, item, key);
	if (!rb_find_add(&item->unstable.rb, &shard->unstable, ksm_unstable_cmp))
		return true;
	ksm_item_unpark(engine, item);
	return false;
}

/**
 * ksm_unstable_erase() - end the waiting of an item
 * @engine: the engine
 * @shard: the shard that the item waits in
 * @item: an item that may be UNSTABLE; IDLE afterwards if it was
 */
void ksm_unstable_erase(struct ksm_engine *engine, struct ksm_shard *shard,
			struct ksm_rmap_item *item)
{
	lockdep_assert_held(&shard->lock);
	if (ksm_item_state(item) != KSM_ITEM_UNSTABLE)
		return;
	rb_erase(&item->unstable.rb, &shard->unstable);
	ksm_item_unpark(engine, item);
}

/**
 * ksm_unstable_claim() - take the item that waits under a key, to work on it
 * @engine: the engine
 * @shard: the shard of @key
 * @key: the key
 *
 * Return: the item, for the caller to ksm_item_release(); or NULL.
 */
struct ksm_rmap_item *ksm_unstable_claim(struct ksm_engine *engine,
					 struct ksm_shard *shard,
					 const struct ksm_key *key)
{
	struct ksm_rmap_item *item = ksm_unstable_find(shard, key);

	if (item) {
		rb_erase(&item->unstable.rb, &shard->unstable);
		ksm_item_claim(engine, item);
	}
	return item;
}
