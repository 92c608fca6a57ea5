// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a KSM folio to what maps it, for reclaim, migration and memory failure; and
 * what happens to KSM folios on their way through swap and migration.
 *
 * The sharers of a folio are the items of its stable node. They are read under the
 * folio lock, which is what holds off ksmd here: nothing waits for the engine mutex.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* Sharers of a folio among which a swap-in looks for one that leads to its address. */
#define KSM_SWAPIN_ITEMS	1024

enum ksm_rmap_which {
	KSM_RMAP_OWN,		/* mappings of the items' owners */
	KSM_RMAP_FORKS,		/* those of others that the items lead to */
	KSM_RMAP_HEIRS,		/* all that heirs lead to; they have no owners */
};

/* Visit the mappings that an item stands for. Return: false to end the walk. */
static bool ksm_rmap_walk_item(struct folio *folio, struct ksm_rmap_item *item,
			       struct rmap_walk_control *rwc, enum ksm_rmap_which which)
{
	const struct mm_struct *mm = which == KSM_RMAP_HEIRS ? NULL : item->owner->slot.mm;
	const unsigned long index = item->stable.index;
	const bool wanted = which == KSM_RMAP_OWN;
	struct anon_vma_chain *avc;

	lockdep_assert_held(&item->stable.anon_vma->root->rwsem);
	anon_rmap_tree_foreach(avc, item->stable.anon_vma, index, index) {
		struct vm_area_struct *vma = avc->vma;
		bool own = vma->vm_mm == mm;

		cond_resched();
		if (own != wanted ||
		    (rwc->invalid_vma && rwc->invalid_vma(vma, rwc->arg)))
			continue;
		if (!rwc->rmap_one(folio, vma, vma_anon_address(vma, index, 1), rwc->arg) ||
		    (rwc->done && rwc->done(folio)))
			return false;
	}
	return true;
}

/* Return: false to end the walk, be it for a lock that cannot be had at once. */
static bool ksm_rmap_lock_item(struct ksm_rmap_item *item,
			       struct rmap_walk_control *rwc)
{
	if (anon_vma_trylock_read(item->stable.anon_vma))
		return true;
	rwc->contended = rwc->try_lock;
	if (!rwc->try_lock)
		anon_vma_lock_read(item->stable.anon_vma);
	return !rwc->try_lock;
}

static bool ksm_rmap_walk_items(struct folio *folio, struct hlist_head *items,
				struct rmap_walk_control *rwc, enum ksm_rmap_which which)
{
	struct ksm_rmap_item *item;
	bool go_on = true;

	hlist_for_each_entry(item, items, stable.link) {
		cond_resched();
		if (!ksm_rmap_lock_item(item, rwc))
			return false;
		go_on = ksm_rmap_walk_item(folio, item, rwc, which);
		anon_vma_unlock_read(item->stable.anon_vma);
		if (!go_on)
			break;
	}
	return go_on;
}

/**
 * rmap_walk_ksm() - visit the mappings of a KSM folio
 * @folio: the folio, locked
 * @rwc: what to do with each, and when to stop
 *
 * First the mappings that the items stand for. If that was not enough, those in
 * processes that were forked from theirs since ksmd came by last; and those that only
 * heirs lead to, as the item which did has left.
 *
 * The exact index of the page within the anon_vma is known, since mremap() unmerges
 * what it moves: only VMAs that can map the page are looked at, not all that the
 * anon_vma has.
 */
void rmap_walk_ksm(struct folio *folio, struct rmap_walk_control *rwc)
{
	struct ksm_stable_node *node;

	VM_WARN_ON_FOLIO(!folio_test_ksm(folio), folio);
	VM_WARN_ON_FOLIO(!folio_test_locked(folio), folio);

	node = ksm_node_of(folio);
	if (node && ksm_rmap_walk_items(folio, &node->items, rwc, KSM_RMAP_OWN) &&
	    ksm_rmap_walk_items(folio, &node->items, rwc, KSM_RMAP_FORKS))
		ksm_rmap_walk_items(folio, &node->heirs, rwc, KSM_RMAP_HEIRS);
}

#ifdef CONFIG_MEMORY_FAILURE
static void ksm_collect_item(struct ksm_rmap_item *item, const struct page *page,
			     struct list_head *to_kill, int force_early)
{
	const unsigned long index = item->stable.index;
	struct task_struct *task, *victim;
	struct anon_vma_chain *avc;

	guard(rcu)();
	for_each_process(task) {
		victim = task_early_kill(task, force_early);
		if (!victim)
			continue;
		anon_rmap_tree_foreach(avc, item->stable.anon_vma, index, index)
			if (avc->vma->vm_mm == victim->mm)
				add_to_kill_ksm(victim, page, avc->vma, to_kill,
						vma_anon_address(avc->vma, index, 1));
	}
}

static void ksm_collect_items(struct hlist_head *items, const struct page *page,
			      struct list_head *to_kill, int force_early)
{
	struct ksm_rmap_item *item;

	hlist_for_each_entry(item, items, stable.link) {
		anon_vma_lock_read(item->stable.anon_vma);
		ksm_collect_item(item, page, to_kill, force_early);
		anon_vma_unlock_read(item->stable.anon_vma);
	}
}

/**
 * collect_procs_ksm() - find the processes that a memory failure concerns
 * @folio: the folio that failed, locked
 * @page: its page
 * @to_kill: list that the processes are added to
 * @force_early: whether also those that did not ask to be told early
 */
void collect_procs_ksm(const struct folio *folio, const struct page *page,
		       struct list_head *to_kill, int force_early)
{
	struct ksm_stable_node *node = ksm_node_of(folio);

	if (!node)
		return;
	ksm_collect_items(&node->items, page, to_kill, force_early);
	ksm_collect_items(&node->heirs, page, to_kill, force_early);
}
#endif /* CONFIG_MEMORY_FAILURE */

#ifdef CONFIG_MIGRATION
/**
 * folio_migrate_ksm() - a KSM folio moves, and its node with it
 * @newfolio: where to, locked, with the mapping already set
 * @folio: where from, locked; it is no node's afterwards
 */
void folio_migrate_ksm(struct folio *newfolio, struct folio *folio)
{
	struct ksm_stable_node *node = ksm_node_of(folio);

	VM_WARN_ON_FOLIO(!folio_test_locked(folio), folio);
	VM_WARN_ON_FOLIO(!folio_test_locked(newfolio), newfolio);
	VM_WARN_ON_FOLIO(newfolio->mapping != folio->mapping, newfolio);

	if (!node)
		return;
	VM_WARN_ON_FOLIO(node->pfn != folio_pfn(folio), folio);
	ksm_node_moved(node, folio_pfn(newfolio));
	ksm_node_bind(folio, NULL);
}
#endif /* CONFIG_MIGRATION */

/* Would a walk of the reverse map come to a mapping by way of one of these items? */
static bool ksm_items_lead_to(struct hlist_head *items, struct vm_area_struct *vma,
			      unsigned long addr)
{
	const unsigned long index = linear_anon_page_index(vma, addr);
	unsigned int budget = KSM_SWAPIN_ITEMS;
	struct anon_vma_chain *avc;
	struct ksm_rmap_item *item;

	hlist_for_each_entry(item, items, stable.link) {
		if (!budget--)
			break;
		if (item->stable.index != index)
			continue;
		list_for_each_entry(avc, &vma->anon_vma_chain, same_vma)
			if (avc->anon_vma == item->stable.anon_vma)
				return true;
	}
	return false;
}

/*
 * May a KSM folio be mapped at this address again? The entry that led here may have been
 * moved, or forked, and the item that stood for it have left: who comes by such a way
 * would not be found, and gets a copy. So does a process that has left the domain, since
 * nothing in swap was unmerged.
 */
static bool ksm_swapin_shares(struct folio *folio, struct vm_area_struct *vma,
			      unsigned long addr)
{
	struct ksm_stable_node *node = ksm_node_of(folio);

	return node && (vma->vm_flags & VM_MERGEABLE) &&
	       node->domain->identity.cookie == READ_ONCE(vma->vm_mm->ksm_cookie) &&
	       !(READ_ONCE(ksm_engine.run) & KSM_RUN_UNMERGE) &&
	       (ksm_items_lead_to(&node->items, vma, addr) ||
		ksm_items_lead_to(&node->heirs, vma, addr));
}

/* May the folio be mapped at this address as it is? */
static bool ksm_swapin_fits(struct folio *folio, struct vm_area_struct *vma,
			    unsigned long addr)
{
	struct anon_vma *home;

	if (folio_test_ksm(folio))
		return ksm_swapin_shares(folio, vma, addr);
	home = folio_anon_vma(folio);
	return !home || folio_test_large(folio) ||
	       (home->root == vma->anon_vma->root &&
		folio->index == linear_anon_page_index(vma, addr));
}

static struct folio *ksm_swapin_alloc(struct vm_area_struct *vma,
				      unsigned long addr)
{
	struct folio *folio;

	folio = vma_alloc_folio(GFP_HIGHUSER_MOVABLE, 0, vma, addr);
	if (folio && mem_cgroup_charge(folio, vma->vm_mm, GFP_KERNEL)) {
		folio_put(folio);
		folio = NULL;
	}
	return folio;
}

/**
 * ksm_might_need_to_copy() - a folio from the swap cache is to be mapped
 * @folio: the folio, locked
 * @vma: where it is to be mapped; its lock or the mmap lock is held
 * @addr: where in @vma
 *
 * A KSM folio that was swapped out by several sharers is one folio in the swap
 * cache. The first to fault it in may get it with its own anon_vma; it does not fit
 * the next one's. Joining them again would take locks that a fault cannot take, so
 * the next one gets a copy, which ksmd will merge in its time. It is also where a
 * KSM folio is given up while everything is being unmerged; where the pages were
 * withdrawn while they were swapped out, or their process left its domain, since no
 * unmerging would look for it there; and where no item would lead the reverse map to it.
 *
 * Return: @folio, if it can be used; a new folio, locked, charged and uptodate; NULL
 * when there is no memory; ERR_PTR(-EHWPOISON) if @folio's memory is broken.
 */
struct folio *ksm_might_need_to_copy(struct folio *folio, struct vm_area_struct *vma,
				     unsigned long addr)
{
	struct folio *copy;

	if (ksm_swapin_fits(folio, vma, addr))
		return folio;
	if (PageHWPoison(&folio->page))
		return ERR_PTR(-EHWPOISON);
	if (!folio_test_uptodate(folio))
		return folio;	/* the caller reports the failed read */

	copy = ksm_swapin_alloc(vma, addr);
	if (!copy)
		return NULL;
	if (copy_mc_user_highpage(&copy->page, &folio->page, addr, vma)) {
		folio_put(copy);
		return ERR_PTR(-EHWPOISON);
	}
	folio_set_dirty(copy);
	__folio_mark_uptodate(copy);
	__folio_set_locked(copy);
#ifdef CONFIG_SWAP
	count_vm_event(KSM_SWPIN_COPY);
#endif
	return copy;
}
