// SPDX-License-Identifier: GPL-2.0-only
/*
 * Chains: several folios ("dups") of one content.
 *
 * A walk of the reverse map visits all sharers of a folio, under its lock. So that
 * reclaim and migration do not have to wait for ever, a folio takes no more than
 * max_page_sharing sharers; the next ones share another folio of equal content.
 *
 * The question that counts is: which dup has room? It has to be answered without
 * a walk, since there may be thousands of them. So the dups are on two lists, and
 * it is the first of the roomy ones. A dup that filled up since is moved over when
 * it is met there; one that lost a sharer is moved back by ksm_chain_has_room().
 *
 * All functions are called with the lock of the chain's shard held. None of them
 * touches the tree that the chain is in.
 */
#include "ksm_internal.h"
#include "ksm.h"

/**
 * ksm_chain_alloc() - a new chain, in no tree and without dups
 * @gfp: how to allocate
 *
 * Return: the chain; NULL when there is no memory for it.
 */
struct ksm_stable_chain *ksm_chain_alloc(gfp_t gfp)
{
	struct ksm_stable_chain *chain = kzalloc(sizeof(*chain), gfp);

	if (!chain)
		return NULL;
	chain->entry.is_chain = true;
	chain->pruned = jiffies;
	INIT_LIST_HEAD(&chain->roomy);
	INIT_LIST_HEAD(&chain->full);
	return chain;
}

/**
 * ksm_chain_free() - free a chain
 * @chain: in no tree, without dups; or NULL
 */
void ksm_chain_free(struct ksm_stable_chain *chain)
{
	if (chain && WARN_ON_ONCE(chain->entry.nr))
		return;
	kfree(chain);
}

/**
 * ksm_chain_add() - hang a node off a chain
 * @engine: the engine
 * @chain: the chain
 * @node: a node that is in no tree and on no chain
 */
void ksm_chain_add(struct ksm_engine *engine, struct ksm_stable_chain *chain,
		   struct ksm_stable_node *node)
{
	lockdep_assert_held(&ksm_shard(engine, chain->entry.key.hash)->lock);
	node->chain = chain;
	list_add(&node->link, &chain->roomy);
	if (!chain->entry.nr++)
		ksm_stat_add(engine, KSM_STAT_CHAINS, 1);
	ksm_stat_add(engine, KSM_STAT_DUPS, 1);
}

/**
 * ksm_chain_del() - take a node off its chain
 * @engine: the engine
 * @node: a node on a chain
 */
void ksm_chain_del(struct ksm_engine *engine, struct ksm_stable_node *node)
{
	struct ksm_stable_chain *chain = node->chain;

	lockdep_assert_held(&ksm_shard(engine, chain->entry.key.hash)->lock);
	list_del_init(&node->link);
	node->chain = NULL;
	if (!--chain->entry.nr)
		ksm_stat_add(engine, KSM_STAT_CHAINS, -1);
	ksm_stat_add(engine, KSM_STAT_DUPS, -1);
}

/**
 * ksm_chain_pick() - the dup that the next sharer should go to
 * @engine: the engine
 * @chain: the chain
 *
 * Return: a dup with room; NULL if there is none. It may be stale.
 */
struct ksm_stable_node *ksm_chain_pick(struct ksm_engine *engine,
				       struct ksm_stable_chain *chain)
{
	struct ksm_stable_node *node, *next;

	lockdep_assert_held(&ksm_shard(engine, chain->entry.key.hash)->lock);
	list_for_each_entry_safe(node, next, &chain->roomy, link) {
		if (ksm_node_load(node) < READ_ONCE(engine->knobs.max_page_sharing))
			return node;
		list_move_tail(&node->link, &chain->full);
	}
	return NULL;
}

/**
 * ksm_chain_has_room() - a node has lost a sharer or an heir
 * @node: the node, on a chain or not
 */
void ksm_chain_has_room(struct ksm_stable_node *node)
{
	if (node->chain)
		list_move(&node->link, &node->chain->roomy);
}

/**
 * ksm_chain_any() - some dup of a chain
 * @chain: the chain, not empty
 *
 * Return: a dup, roomy if there is such a one.
 */
struct ksm_stable_node *ksm_chain_any(struct ksm_stable_chain *chain)
{
	return list_first_entry(list_empty(&chain->roomy) ? &chain->full :
				&chain->roomy, struct ksm_stable_node, link);
}

/**
 * ksm_chain_next_full() - go round the full dups
 * @chain: the chain
 *
 * Return: the full dup that was not returned for longest; NULL if there is none.
 */
struct ksm_stable_node *ksm_chain_next_full(struct ksm_stable_chain *chain)
{
	struct ksm_stable_node *node;

	node = list_first_entry_or_null(&chain->full, struct ksm_stable_node, link);
	if (node)
		list_move_tail(&node->link, &chain->full);
	return node;
}

/**
 * ksm_chain_prune_due() - is it time to look for stale dups?
 * @engine: the engine
 * @chain: the chain
 *
 * Return: true once in stable_node_chains_prune_millisecs.
 */
bool ksm_chain_prune_due(struct ksm_engine *engine,
			 struct ksm_stable_chain *chain)
{
	unsigned long period = msecs_to_jiffies(READ_ONCE(engine->knobs.prune_millisecs));

	if (time_before(jiffies, chain->pruned + period))
		return false;
	chain->pruned = jiffies;
	return true;
}
