// SPDX-License-Identifier: GPL-2.0-only
/*
 * Heirs: items that stay with a stable node when their pages have left it.
 *
 * A fork shares its parent's KSM pages from the first moment, without items of its own:
 * fork is not to pay for KSM. Until ksmd comes by, the reverse map finds the mappings of
 * the fork through the items of the parent, in whose anon_vma's tree the fork's VMAs are.
 * So an item cannot just go when its own page has been written or unmapped, or its mm
 * has exited: there may be nobody else who leads to those mappings. Migration would then
 * leave its entries in a page table for ever, memory failure would miss a process, and
 * nobody but exit would get the folio back.
 *
 * Whoever takes an item off its node therefore looks first whether a VMA in the item's
 * tree maps the folio there. If so the item becomes an *heir*. It leaves its slot and its
 * mm, and goes to node->heirs. Nothing is allocated for that, so it cannot fail. An heir
 * points to the root of the anon_vmas, which has all VMAs of the family, so that one heir
 * serves for a family and an index. It is no sharer and not counted as one.
 *
 * A page that becomes a KSM page may have been shared with a parent or children before.
 * Its item leads to all the family then. When the page is next looked at an heir takes
 * that over, and it gets an item that leads to its own process, as any other.
 *
 * An heir is not needed any more when each process of the family that maps the folio
 * there has an item of its own. Nodes with heirs are swept for that, in parts, with the
 * orphans. What remains goes with the node.
 *
 * The look when an item leaves is cheap: it ends at the first VMA that maps the folio,
 * and after KSM_HEIR_GLANCE VMAs it says that an heir is needed. Processes that fork
 * thousands of times make heirs by that, but no more than max_page_sharing for each
 * folio, since heirs take the places of sharers.
 *
 * All this is with the folio locked, so that nobody but a fork maps it anew meanwhile.
 * That is harmless: the PTE which a fork copies stays until it is done, and either is
 * found. Swap-in makes no mapping that the reverse map would not find, see
 * ksm_might_need_to_copy().
 */
#include "ksm_internal.h"
#include "ksm.h"

/*
 * What is looked at when an item leaves, VMAs and heirs, and VMAs when its heir is to be
 * dropped.
 */
#define KSM_HEIR_GLANCE		64U
#define KSM_HEIR_LOOK		1024U

static bool ksm_heir_maps(struct folio *folio, struct vm_area_struct *vma,
			  unsigned long addr)
{
	DEFINE_FOLIO_VMA_WALK(pvmw, folio, vma, addr, PVMW_SYNC);

	/* An mm that is exiting gives its pages back all the same. */
	if (!atomic_read(&vma->vm_mm->mm_users) || !page_vma_mapped_walk(&pvmw))
		return false;
	page_vma_mapped_walk_done(&pvmw);
	return true;
}

/*
 * Is the mapping found by way of an item of the process's own? When the budget is spent
 * nobody knows: then not.
 */
static bool ksm_heir_is_spared(struct ksm_stable_node *node, struct vm_area_struct *vma,
			       unsigned long index, unsigned long *budget)
{
	const unsigned long addr = vma_anon_address(vma, index, 1);
	struct ksm_rmap_item *item;

	hlist_for_each_entry(item, &node->items, stable.link) {
		if (!*budget)
			return false;
		--*budget;
		if (ksm_item_addr(item) == addr &&
		    item->owner->slot.mm == vma->vm_mm &&
		    item->stable.anon_vma == vma->anon_vma &&
		    item->stable.index == index)
			return true;
	}
	return false;
}

/*
 * Does an item lead to a mapping of the folio? Those that @node spares do not count. When
 * the budget is spent it may, as far as anybody knows.
 */
static bool ksm_heir_is_needed(struct ksm_rmap_item *item, struct folio *folio,
			       struct ksm_stable_node *node, unsigned long *budget)
{
	struct anon_vma *anon_vma = item->stable.anon_vma;
	const unsigned long index = item->stable.index;
	struct anon_vma_chain *avc;
	bool needed = false;

	anon_vma_lock_read(anon_vma);
	anon_rmap_tree_foreach(avc, anon_vma, index, index) {
		unsigned long addr = vma_anon_address(avc->vma, index, 1);

		needed = !*budget || (ksm_heir_maps(folio, avc->vma, addr) &&
				      !(node && ksm_heir_is_spared(node, avc->vma, index,
								   budget)));
		if (needed)
			break;
		--*budget;
		cond_resched();
	}
	anon_vma_unlock_read(anon_vma);
	return needed;
}

/* Is there an heir already that leads wherever the one of @item would? The latest ones tell. */
static bool ksm_heir_exists(struct ksm_rmap_item *item)
{
	unsigned int budget = KSM_HEIR_GLANCE;
	struct ksm_rmap_item *heir;

	hlist_for_each_entry(heir, &item->stable.node->heirs, stable.link) {
		if (!budget--)
			break;
		if (heir->stable.index == item->stable.index &&
		    heir->stable.anon_vma == item->stable.anon_vma->root)
			return true;
	}
	return false;
}

/**
 * ksm_heir_is_left() - is an item needed after its page has left?
 * @item: the item, STABLE
 * @folio: its node's folio, locked
 *
 * Context: may sleep, for the anon_vma.
 * Return: true if the item has to become an heir, since mappings might not be found
 * otherwise.
 */
bool ksm_heir_is_left(struct ksm_rmap_item *item, struct folio *folio)
{
	unsigned long budget = KSM_HEIR_GLANCE;

	return folio_mapped(folio) &&
	       ksm_heir_is_needed(item, folio, NULL, &budget) &&
	       !ksm_heir_exists(item);
}

static void ksm_heir_drop(struct ksm_engine *engine, struct ksm_stable_node *node,
			  struct ksm_rmap_item *heir)
{
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);
	struct anon_vma *anon_vma;

	spin_lock(&shard->lock);
	anon_vma = ksm_item_drop_heir(engine, heir);
	ksm_chain_has_room(node);
	spin_unlock(&shard->lock);
	put_anon_vma(anon_vma);
}

/**
 * ksm_heir_prune() - drop the heirs of a node that are not needed any more
 * @engine: the engine
 * @node: the node; if it is stale the heirs stay, to be reaped with it
 * @budget: VMAs and items that may be looked at; reduced by those that were. When it is
 *	    spent the rest of the heirs stay for now
 *
 * A fork that was visited by thousands has as many items on the node, any of which may be
 * that of a VMA. Without a budget the search would take their number times that of the
 * VMAs.
 *
 * Context: may sleep; the engine mutex is held.
 * Return: whether any are left.
 */
bool ksm_heir_prune(struct ksm_engine *engine, struct ksm_stable_node *node,
		    unsigned long *budget)
{
	struct ksm_rmap_item *heir;
	struct hlist_node *next;
	struct folio *folio;

	lockdep_assert_held(&engine->mutex);
	if (!node->nr_heirs)
		return false;
	folio = ksm_node_lock_folio(node);
	if (!folio)
		return true;
	hlist_for_each_entry_safe(heir, next, &node->heirs, stable.link) {
		unsigned long part = min_t(unsigned long, *budget, KSM_HEIR_LOOK);
		unsigned long rest = part;

		if (!part)
			break;
		if (!folio_mapped(folio) || !ksm_heir_is_needed(heir, folio, node, &rest))
			ksm_heir_drop(engine, node, heir);
		*budget -= part - rest;
	}
	folio_unlock(folio);
	folio_put(folio);
	return node->nr_heirs;
}
