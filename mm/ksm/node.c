// SPDX-License-Identifier: GPL-2.0-only
/*
 * Keyhole references: from a stable node to its folio without pinning it.
 *
 * A node that held a reference would make reclaim wait until ksmd comes round. So a
 * node keeps only a pfn, and looks through it: the folio is still ours while
 * folio->mapping points back at the node. If it does not, then either the folio was
 * freed, and the node is stale; or it was migrated, and node->pfn has moved on
 * already: read it again. That order is folio_migrate_ksm()'s to keep.
 *
 * It rests on two facts: freeing an anonymous folio clears its mapping, and nothing
 * else puts a value there that looks like a pointer to one of our nodes.
 *
 * Locking: the caller keeps the node alive, by its shard's lock, by the engine
 * mutex, or by an item of its own on it. node->pfn changes under the folio lock.
 * Nothing here frees a node that turns out to be stale: that is
 * ksm_stable_reap(), a step of its own.
 */
#include "ksm_internal.h"
#include "ksm.h"

static struct kmem_cache *ksm_node_cache;

/**
 * ksm_node_create_cache() - make the slab cache for stable nodes
 *
 * Return: 0, or -ENOMEM.
 */
int ksm_node_create_cache(void)
{
	ksm_node_cache = KMEM_CACHE(ksm_stable_node, 0);
	return ksm_node_cache ? 0 : -ENOMEM;
}

/**
 * ksm_node_alloc() - a new node, in no tree, without sharers
 * @domain: merge domain of its sharers
 * @key: its key, of that domain
 * @pfn: where its folio is
 *
 * Context: may sleep.
 * Return: the node; NULL when there is no memory for it.
 */
struct ksm_stable_node *ksm_node_alloc(struct ksm_domain *domain,
				       const struct ksm_key *key, unsigned long pfn)
{
	struct ksm_stable_node *node;

	node = kmem_cache_zalloc(ksm_node_cache,
				 GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (!node)
		return NULL;
	ksm_domain_get(domain);
	node->domain = domain;
	node->entry.key = *key;
	node->pfn = pfn;
	INIT_LIST_HEAD(&node->link);
	INIT_LIST_HEAD(&node->orphan);
	return node;
}

/**
 * ksm_node_free() - free a node that nothing points to any more
 * @engine: the engine that the node belongs to
 * @node: in no tree, without sharers and heirs
 *
 * Backs out with a warning, and leaks the node, if something does point to it.
 */
void ksm_node_free(struct ksm_engine *engine, struct ksm_stable_node *node)
{
	if (WARN_ON_ONCE(node->linked || ksm_node_load(node)))
		return;
	spin_lock(&engine->orphan_lock);
	engine->nr_orphans -= !list_empty(&node->orphan);
	list_del_init(&node->orphan);
	spin_unlock(&engine->orphan_lock);
	ksm_domain_put(engine, node->domain);
	kmem_cache_free(ksm_node_cache, node);
}

/* The value of folio->mapping that means: this folio is @node's. */
static void *ksm_node_key(const struct ksm_stable_node *node)
{
	return (void *)((unsigned long)node | FOLIO_MAPPING_KSM);
}

/**
 * ksm_node_of() - the node behind a KSM folio
 * @folio: the folio, locked, or mapped by a page table that is locked
 *
 * Return: the node; NULL if @folio is not KSM, or has lost its node because it
 * is being freed.
 */
struct ksm_stable_node *ksm_node_of(const struct folio *folio)
{
	return folio_test_ksm(folio) ? folio_raw_mapping(folio) : NULL;
}

/**
 * ksm_node_bind() - make a folio a KSM folio
 * @folio: locked; anonymous and not exclusive to anybody, or new
 * @node: its node, or NULL for a folio that nobody maps any more
 */
void ksm_node_bind(struct folio *folio, struct ksm_stable_node *node)
{
	VM_WARN_ON_FOLIO(!folio_test_locked(folio), folio);
	VM_WARN_ON_FOLIO(folio_test_anon(folio) && PageAnonExclusive(&folio->page), folio);
	WRITE_ONCE(folio->mapping, ksm_node_key(node));
}

/**
 * ksm_node_moved() - the folio behind a node has been migrated
 * @node: the node
 * @pfn: where the folio is now; its mapping has been set
 *
 * Call it with both folios locked, before the old folio's mapping is taken away:
 * who finds that gone must find the new pfn here.
 */
void ksm_node_moved(struct ksm_stable_node *node, unsigned long pfn)
{
	WRITE_ONCE(node->pfn, pfn);
	/* Pairs with smp_rmb() in ksm_node_tryget_folio(). */
	smp_wmb();
}

/**
 * ksm_node_tryget_folio() - take a reference on the folio behind a node
 * @node: the node to look through
 *
 * Context: does not sleep.
 * Return: the folio, to be put by the caller; NULL if @node is stale.
 */
struct folio *ksm_node_tryget_folio(const struct ksm_stable_node *node)
{
	void *key = ksm_node_key(node);
	struct folio *folio;
	unsigned long pfn;

	do {
		pfn = READ_ONCE(node->pfn);
		folio = pfn_folio(pfn);
		while (READ_ONCE(folio->mapping) == key) {
			if (folio_try_get(folio)) {
				if (READ_ONCE(folio->mapping) == key)
					return folio;
				folio_put(folio);
				break;
			}
			/*
			 * A count of 0 means freed, but for one case: migration
			 * freezes the count of a folio in the swap cache for a
			 * moment. Such a folio is not to be given up.
			 */
			if (!folio_test_swapcache(folio))
				break;
			cpu_relax();
		}
		/* Pairs with smp_wmb() in ksm_node_moved(). */
		smp_rmb();
	} while (READ_ONCE(node->pfn) != pfn);

	return NULL;
}

/**
 * ksm_node_lock_folio() - reference and lock the folio behind a node
 * @node: the node to look through
 *
 * Context: may sleep, for migration to end for instance.
 * Return: the folio, to be unlocked and put by the caller; NULL if @node is stale.
 */
struct folio *ksm_node_lock_folio(const struct ksm_stable_node *node)
{
	struct folio *folio;

	while ((folio = ksm_node_tryget_folio(node))) {
		folio_lock(folio);
		if (READ_ONCE(folio->mapping) == ksm_node_key(node))
			return folio;
		folio_unlock(folio);
		folio_put(folio);
	}
	return NULL;
}

/**
 * ksm_node_orphan() - remember a node that has to be looked after
 * @engine: the engine that the node belongs to
 * @node: the node; it has heirs, or it has lost its last known sharer while its folio
 *	  is mapped (by a fork that has not been scanned yet) or in the swap cache
 *
 * No lookup need ever come by such a node again, so that nobody would notice the
 * end of its folio, or that its heirs are not needed any more:
 * ksm_unmerge_sweep_orphans() sees to that.
 */
void ksm_node_orphan(struct ksm_engine *engine, struct ksm_stable_node *node)
{
	spin_lock(&engine->orphan_lock);
	if (list_empty(&node->orphan)) {
		list_add_tail(&node->orphan, &engine->orphans);
		engine->nr_orphans++;
	}
	spin_unlock(&engine->orphan_lock);
}
