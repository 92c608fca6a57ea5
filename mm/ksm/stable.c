// SPDX-License-Identifier: GPL-2.0-only
/*
 * The stable tree: the KSM folios, by the key of their content.
 *
 * A KSM folio is write-protected wherever it is mapped, so that its content, and
 * with it its key, is for ever. Under one key the tree has either a node, for one
 * folio, or a chain, for several of them.
 *
 * A node does not keep its folio from being freed (node.c tells why). It is then
 * stale. A lookup that meets a stale node unlinks it, under the shard lock, and
 * hands it to the caller; what is left to do, ksm_stable_reap() does when the lock
 * is dropped.
 *
 * Two contents may have one key, by chance or because somebody has made them so. The
 * second of them finds the first, is told apart by comparing contents, and is not
 * merged. That costs a merge, but no page and no walk.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* Full dups that one lookup checks for being stale, when that is due. */
#define KSM_PRUNE_BATCH		32

static struct ksm_stable_entry *ksm_stable_entry(const struct rb_node *rb)
{
	return rb_entry(rb, struct ksm_stable_entry, rb);
}

static struct ksm_stable_node *ksm_stable_node(struct ksm_stable_entry *entry)
{
	return container_of(entry, struct ksm_stable_node, entry);
}

static struct ksm_stable_chain *ksm_stable_chain(struct ksm_stable_entry *entry)
{
	return container_of(entry, struct ksm_stable_chain, entry);
}

static int ksm_stable_cmp_key(const void *key, const struct rb_node *rb)
{
	return ksm_key_cmp(key, &ksm_stable_entry(rb)->key);
}

static int ksm_stable_cmp(struct rb_node *rb, const struct rb_node *other)
{
	return ksm_stable_cmp_key(&ksm_stable_entry(rb)->key, other);
}

/**
 * ksm_stable_find() - find what the tree has under a key
 * @shard: the shard of @key, locked
 * @key: the key
 *
 * Return: the node or the chain, or NULL.
 */
struct ksm_stable_entry *ksm_stable_find(struct ksm_shard *shard,
					 const struct ksm_key *key)
{
	struct rb_node *rb;

	lockdep_assert_held(&shard->lock);
	rb = rb_find(key, &shard->stable, ksm_stable_cmp_key);
	return rb ? ksm_stable_entry(rb) : NULL;
}

/* Put another entry in the place of one, under the same key. */
static void ksm_stable_replace(struct ksm_shard *shard,
			       struct ksm_stable_entry *old,
			       struct ksm_stable_entry *new)
{
	new->key = old->key;
	rb_replace_node(&old->rb, &new->rb, &shard->stable);
}

/**
 * ksm_stable_unlink() - take a node out of the tree
 * @engine: the engine
 * @shard: the shard of the node, locked
 * @node: the node, in the tree by itself or through a chain
 * @dead: list to put the node on, for ksm_stable_reap(); or NULL
 *
 * A chain that is left with a single dup gives its place to that one.
 */
void ksm_stable_unlink(struct ksm_engine *engine, struct ksm_shard *shard,
		       struct ksm_stable_node *node, struct list_head *dead)
{
	struct ksm_stable_chain *chain = node->chain;
	struct ksm_stable_node *last;

	lockdep_assert_held(&shard->lock);
	if (WARN_ON_ONCE(!node->linked))
		return;
	node->linked = false;
	if (!chain) {
		rb_erase(&node->entry.rb, &shard->stable);
	} else {
		ksm_chain_del(engine, node);
		if (chain->entry.nr == 1) {
			last = ksm_chain_any(chain);
			ksm_chain_del(engine, last);
			ksm_stable_replace(shard, &chain->entry, &last->entry);
			ksm_chain_free(chain);
		}
	}
	if (dead)
		list_add(&node->link, dead);
}

/**
 * ksm_stable_insert() - put a node into the tree
 * @engine: the engine
 * @shard: the shard of the node's key, locked
 * @node: a node that is not in the tree
 * @spare: a chain to use if one is needed, which is then set to NULL
 *
 * Return: false, and nothing done, if a chain was needed and @spare was NULL.
 */
bool ksm_stable_insert(struct ksm_engine *engine, struct ksm_shard *shard,
		       struct ksm_stable_node *node,
		       struct ksm_stable_chain **spare)
{
	struct ksm_stable_entry *entry = ksm_stable_find(shard, &node->entry.key);

	if (WARN_ON_ONCE(node->linked))
		return false;
	if (entry && !entry->is_chain) {
		struct ksm_stable_chain *chain = *spare;

		if (!chain)
			return false;
		*spare = NULL;
		ksm_stable_replace(shard, entry, &chain->entry);
		ksm_chain_add(engine, chain, ksm_stable_node(entry));
		entry = &chain->entry;
	}
	if (entry)
		ksm_chain_add(engine, ksm_stable_chain(entry), node);
	else
		rb_find_add(&node->entry.rb, &shard->stable, ksm_stable_cmp);
	node->linked = true;
	return true;
}

/**
 * ksm_stable_rekey() - a node's folio has moved to another NUMA node
 * @engine: the engine
 * @shard: the shard of the node, locked; it stays the same
 * @node: the node
 * @nid: where the folio is now
 * @spare: as for ksm_stable_insert(); without it the node may have to stay under
 *	   the key that it has
 */
void ksm_stable_rekey(struct ksm_engine *engine, struct ksm_shard *shard,
		      struct ksm_stable_node *node, int nid,
		      struct ksm_stable_chain **spare)
{
	if (!*spare || !node->linked)
		return;
	ksm_stable_unlink(engine, shard, node, NULL);
	node->entry.key.nid = nid;
	ksm_stable_insert(engine, shard, node, spare);
}

/* Unlink stale ones among the full dups, if it is time to look. */
static void ksm_stable_prune(struct ksm_engine *engine, struct ksm_shard *shard,
			     struct ksm_stable_chain *chain,
			     struct list_head *dead)
{
	unsigned int budget = min(chain->entry.nr, KSM_PRUNE_BATCH);
	struct ksm_stable_node *node;
	struct folio *folio;

	if (!ksm_chain_prune_due(engine, chain))
		return;
	/* The chain gives way to its last dup, and is gone, when it has but two. */
	while (budget-- && chain->entry.nr > 2) {
		node = ksm_chain_next_full(chain);
		if (!node)
			return;
		folio = ksm_node_tryget_folio(node);
		if (folio)
			folio_put(folio);
		else
			ksm_stable_unlink(engine, shard, node, dead);
	}
}

/**
 * ksm_stable_pick() - find a folio for one more sharer of a content
 * @engine: the engine
 * @shard: the shard of @key, locked
 * @key: of the content
 * @nodep: set to the node of the folio
 * @dead: list for stale nodes that were met, for ksm_stable_reap()
 *
 * Return: the folio, with a reference, its content not compared yet; NULL if there
 * is none, or none with room.
 */
struct folio *ksm_stable_pick(struct ksm_engine *engine, struct ksm_shard *shard,
			      const struct ksm_key *key,
			      struct ksm_stable_node **nodep,
			      struct list_head *dead)
{
	struct ksm_stable_entry *entry;
	struct ksm_stable_node *node;
	struct folio *folio;

	while ((entry = ksm_stable_find(shard, key))) {
		if (entry->is_chain) {
			ksm_stable_prune(engine, shard, ksm_stable_chain(entry),
					 dead);
			node = ksm_chain_pick(engine, ksm_stable_chain(entry));
		} else {
			node = ksm_stable_node(entry);
		}
		if (!node || ksm_node_load(node) >= READ_ONCE(engine->knobs.max_page_sharing))
			return NULL;
		folio = ksm_node_tryget_folio(node);
		if (folio) {
			*nodep = node;
			return folio;
		}
		ksm_stable_unlink(engine, shard, node, dead);
	}
	return NULL;
}

/* Take one sharer, or one heir, off a dead node. */
static bool ksm_stable_reap_one(struct ksm_engine *engine,
				struct ksm_stable_node *node)
{
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);
	struct anon_vma *anon_vma = NULL;
	struct ksm_rmap_item *item, *heir;

	spin_lock(&shard->lock);
	item = hlist_entry_safe(node->items.first, struct ksm_rmap_item,
				stable.link);
	heir = hlist_entry_safe(node->heirs.first, struct ksm_rmap_item,
				stable.link);
	if (item) {
		trace_ksm_remove_rmap_item(node->pfn, item, item->owner->slot.mm);
		anon_vma = ksm_item_detach(engine, item);
	} else if (heir) {
		anon_vma = ksm_item_drop_heir(engine, heir);
	}
	spin_unlock(&shard->lock);
	if (anon_vma)
		put_anon_vma(anon_vma);
	return item || heir;
}

/**
 * ksm_stable_reap() - finish off nodes whose folios are gone
 * @engine: the engine
 * @dead: nodes that were unlinked; no folio points to any of them
 *
 * Their sharers become IDLE: what those addresses map now is found out when they
 * are visited. Heirs are freed.
 *
 * Context: may sleep; no shard lock held.
 */
void ksm_stable_reap(struct ksm_engine *engine, struct list_head *dead)
{
	struct ksm_stable_node *node, *next;

	list_for_each_entry_safe(node, next, dead, link) {
		while (ksm_stable_reap_one(engine, node))
			cond_resched();
		trace_ksm_remove_ksm_page(node->pfn);
		list_del_init(&node->link);
		ksm_node_free(engine, node);
	}
}
