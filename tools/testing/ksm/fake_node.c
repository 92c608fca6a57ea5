// SPDX-License-Identifier: GPL-2.0-only
/*
 * The seam: node.c's calls, over an array of pages.
 *
 * In the kernel a node looks through its pfn for a folio that may be gone. So it
 * does here, but a folio is an entry of an array, and the test says when it is
 * freed or migrated.
 */
#include "ksm_internal.h"
#include "../../../mm/ksm/ksm.h"
#include "fake.h"
#include "test.h"

static struct folio ksm_fake_memory[KSM_FAKE_FOLIOS];
static struct kmem_cache *ksm_node_cache;

struct folio *ksm_fake_folio(unsigned long pfn)
{
	CHECK(pfn < KSM_FAKE_FOLIOS);
	return &ksm_fake_memory[pfn];
}

/* A page that is nobody's, from a random place, so that pfns are used again. */
unsigned long ksm_fake_folio_alloc(int nid)
{
	unsigned long pfn;

	CHECK(ksm_fake_folios_used() < KSM_FAKE_FOLIOS);
	do {
		pfn = rnd_below(KSM_FAKE_FOLIOS);
	} while (ksm_fake_memory[pfn].used);
	ksm_fake_memory[pfn] = (struct folio) { .nid = nid, .used = true };
	return pfn;
}

/* The last mapping is gone: the node that the folio had is stale now. */
void ksm_fake_folio_free(unsigned long pfn)
{
	CHECK(ksm_fake_memory[pfn].used && !ksm_fake_memory[pfn].refs);
	ksm_fake_memory[pfn] = (struct folio) { };
}

void ksm_fake_folio_migrate(struct ksm_stable_node *node, int nid)
{
	unsigned long from = node->pfn;
	unsigned long to = ksm_fake_folio_alloc(nid);

	CHECK(ksm_fake_memory[from].node == node);
	ksm_node_bind(&ksm_fake_memory[to], node);
	ksm_node_moved(node, to);
	ksm_fake_folio_free(from);
}

int ksm_fake_folio_refs(void)
{
	int i, refs = 0;

	for (i = 0; i < KSM_FAKE_FOLIOS; i++)
		refs += ksm_fake_memory[i].refs;
	return refs;
}

int ksm_fake_folios_used(void)
{
	int i, used = 0;

	for (i = 0; i < KSM_FAKE_FOLIOS; i++)
		used += ksm_fake_memory[i].used;
	return used;
}

void folio_put(struct folio *folio)
{
	folio->refs--;
	CHECK(folio->refs >= 0);
}

int ksm_node_create_cache(void)
{
	ksm_node_cache = KMEM_CACHE(ksm_stable_node, 0);
	return ksm_node_cache ? 0 : -ENOMEM;
}

struct ksm_stable_node *ksm_node_alloc(struct ksm_domain *domain,
				       const struct ksm_key *key, unsigned long pfn)
{
	struct ksm_stable_node *node;

	node = kmem_cache_zalloc(ksm_node_cache, GFP_KERNEL);
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

/* Stricter than the kernel's: whatever still points to the node is an error. */
void ksm_node_free(struct ksm_engine *engine, struct ksm_stable_node *node)
{
	int i;

	CHECK(!node->linked && !node->chain && !node->entry.nr);
	CHECK(hlist_empty(&node->items) && list_empty(&node->link));
	for (i = 0; i < KSM_FAKE_FOLIOS; i++)
		CHECK(ksm_fake_memory[i].node != node);
	might_sleep();
	spin_lock(&engine->orphan_lock);
	list_del_init(&node->orphan);
	spin_unlock(&engine->orphan_lock);
	node->domain->users.refs--;
	kmem_cache_free(ksm_node_cache, node);
}

struct ksm_stable_node *ksm_node_of(const struct folio *folio)
{
	return (struct ksm_stable_node *)folio->node;
}

void ksm_node_bind(struct folio *folio, struct ksm_stable_node *node)
{
	folio->node = node;
}

void ksm_node_moved(struct ksm_stable_node *node, unsigned long pfn)
{
	node->pfn = pfn;
}

struct folio *ksm_node_tryget_folio(const struct ksm_stable_node *node)
{
	struct folio *folio = ksm_fake_folio(node->pfn);

	if (folio->node != node)
		return NULL;
	folio->refs++;
	return folio;
}

struct folio *ksm_node_lock_folio(const struct ksm_stable_node *node)
{
	might_sleep();
	return ksm_node_tryget_folio(node);
}

void ksm_node_orphan(struct ksm_engine *engine, struct ksm_stable_node *node)
{
	spin_lock(&engine->orphan_lock);
	if (list_empty(&node->orphan))
		list_add_tail(&node->orphan, &engine->orphans);
	spin_unlock(&engine->orphan_lock);
}
