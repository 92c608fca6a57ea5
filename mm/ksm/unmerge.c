// SPDX-License-Identifier: GPL-2.0-only
/*
 * Everything backwards: pages given back, items and nodes forgotten.
 *
 * Unmerging goes by page tables, not by items. An item is attached some time before
 * its PTE maps the KSM page, and a fork shares KSM pages without having items at all:
 * what is mapped in an offered VMA is the only truth. The items that are then left
 * over are retired afterwards.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* Orphans that are looked at in a pass: so many, or all of them in so many passes. */
#define KSM_SWEEP_NODES		1024UL
#define KSM_SWEEP_PASSES	16
/* VMAs and items that are looked at for it: some milliseconds. */
#define KSM_SWEEP_STEPS		BIT(18)

/*
 * Does an error end the unmerging? One that says that some page cannot be copied does
 * not: all others are unmerged all the same.
 */
static bool ksm_unmerge_is_over(int err)
{
	return err == -ENOMEM || err == -ERESTARTSYS;
}

/**
 * ksm_unmerge_forget() - forget all pages of an mm
 * @kmm: the mm
 *
 * Context: may sleep; the engine mutex is held.
 */
void ksm_unmerge_forget(struct ksm_mm *kmm)
{
	ksm_chunk_retire(kmm, 0, ULONG_MAX);
}

/* Give an mm its own pages back. Its mmap_lock is held; @how as for ksm_merge_break(). */
static int ksm_unmerge_areas(struct mm_struct *mm, unsigned int how)
{
	struct vm_area_struct *vma;
	int err, failed = 0;

	VMA_ITERATOR(vmi, mm, 0);
	for_each_vma(vmi, vma) {
		if (!(vma->vm_flags & VM_MERGEABLE) || !vma->anon_vma)
			continue;
		err = ksm_merge_break(vma, vma->vm_start, vma->vm_end, how);
		if (ksm_unmerge_is_over(err))
			return err;
		failed = err ?: failed;
	}
	return failed;
}

/**
 * ksm_unmerge_locked() - give a process its own pages back
 * @mm: its mm, registered or not; its mmap_lock is held for writing
 * @sparing: whether to end before the process might be killed for lack of memory
 *
 * Context: may sleep, and fault.
 * Return: 0, and nothing is merged; an error of ksm_merge_break() with part of the work done.
 */
int ksm_unmerge_locked(struct mm_struct *mm, bool sparing)
{
	mmap_assert_write_locked(mm);
	return ksm_unmerge_areas(mm, KSM_BREAK_LOCKED | (sparing ? KSM_BREAK_SPARING : 0));
}

/**
 * ksm_unmerge_mm() - give an mm its own pages back, and forget them
 * @kmm: the mm; it is not exiting
 *
 * It is ksmd that wants it: the process is spared.
 *
 * Context: may sleep, and fault; the engine mutex is held, and no mmap lock.
 * Return: 0, and nothing is merged; an error of ksm_merge_break() with part of the work
 * done, and nothing forgotten.
 */
int ksm_unmerge_mm(struct ksm_mm *kmm)
{
	int err;

	lockdep_assert_held(&kmm->engine->mutex);
	mmap_read_lock(kmm->slot.mm);
	err = ksm_unmerge_areas(kmm->slot.mm, KSM_BREAK_SPARING);
	mmap_read_unlock(kmm->slot.mm);
	if (!err)
		ksm_unmerge_forget(kmm);
	return err;
}

/* Unmerge the mm under the cursor, and move on. Forget it if it is exiting. */
static int ksm_unmerge_step(struct ksm_engine *engine)
{
	struct ksm_mm *kmm = engine->registry.cursor;
	struct mm_struct *mm = kmm->slot.mm;
	bool exiting;
	int err = 0;

	mmap_read_lock(mm);
	exiting = !atomic_read(&mm->mm_users);
	if (!exiting)
		err = ksm_unmerge_areas(mm, 0);
	if (!err)
		ksm_unmerge_forget(kmm);
	mmap_read_unlock(mm);

	if (exiting) {
		ksm_registry_remove(engine, kmm);
		ksm_registry_free(kmm);
	} else if (!ksm_unmerge_is_over(err)) {
		ksm_registry_next(engine);
	}
	return err;
}

/**
 * ksm_unmerge_all() - give all processes their own pages back
 * @engine: the engine; its run state says UNMERGE, so that mms which are forked
 *	    meanwhile are put where they are not missed
 *
 * Context: may sleep; the engine mutex is held.
 * Return: 0; -ENOMEM or -ERESTARTSYS with part of the work done; -EHWPOISON or -EFAULT
 * with all of it done but for pages that cannot be copied. Mms that were not finished
 * keep their items.
 */
int ksm_unmerge_all(struct ksm_engine *engine)
{
	struct ksm_mm *kmm;
	int err = 0, failed = 0;

	lockdep_assert_held(&engine->mutex);
	for (kmm = ksm_registry_start(engine); kmm && !ksm_unmerge_is_over(err);
	     kmm = engine->registry.cursor) {
		err = ksm_unmerge_step(engine);
		failed = err ?: failed;
	}
	ksm_registry_reset(engine);
	if (!failed)
		ksm_unmerge_empty_stable(engine);
	return failed;
}

/**
 * ksm_unmerge_forget_all() - forget all pages of all processes
 * @engine: the engine, without merged pages other than zero pages
 *
 * Ends the pass that is under way.
 *
 * Context: may sleep; the engine mutex is held.
 */
void ksm_unmerge_forget_all(struct ksm_engine *engine)
{
	struct ksm_mm *kmm;

	lockdep_assert_held(&engine->mutex);
	for (kmm = ksm_registry_start(engine); kmm; kmm = ksm_registry_next(engine)) {
		ksm_unmerge_forget(kmm);
		cond_resched();
	}
}

/* Some node of a shard, by itself or on a chain. */
static struct ksm_stable_node *ksm_unmerge_any_node(struct ksm_shard *shard)
{
	struct ksm_stable_entry *entry;

	lockdep_assert_held(&shard->lock);
	if (RB_EMPTY_ROOT(&shard->stable))
		return NULL;
	entry = rb_entry(shard->stable.rb_node, struct ksm_stable_entry, rb);
	if (!entry->is_chain)
		return container_of(entry, struct ksm_stable_node, entry);
	return ksm_chain_any(container_of(entry, struct ksm_stable_chain, entry));
}

/* Drop a node, which the engine mutex keeps alive, unless its folio is mapped. */
static int ksm_unmerge_drop_node(struct ksm_engine *engine,
				 struct ksm_shard *shard,
				 struct ksm_stable_node *node)
{
	struct folio *folio = ksm_node_lock_folio(node);
	int err = 0;
	LIST_HEAD(dead);

	/* In the swap cache, say, or about to be freed: nobody needs the node. */
	if (folio && folio_mapped(folio))
		err = -EBUSY;
	if (!err) {
		spin_lock(&shard->lock);
		ksm_stable_unlink(engine, shard, node, &dead);
		if (folio)
			ksm_node_bind(folio, NULL);
		spin_unlock(&shard->lock);
	}
	if (folio) {
		folio_unlock(folio);
		folio_put(folio);
	}
	ksm_stable_reap(engine, &dead);
	return err;
}

static int ksm_unmerge_empty_shard(struct ksm_engine *engine,
				   struct ksm_shard *shard)
{
	struct ksm_stable_node *node;
	int err = 0;

	while (!err) {
		spin_lock(&shard->lock);
		node = ksm_unmerge_any_node(shard);
		spin_unlock(&shard->lock);
		if (!node)
			break;
		err = ksm_unmerge_drop_node(engine, shard, node);
		cond_resched();
	}
	return err;
}

/**
 * ksm_unmerge_empty_stable() - drop the stable nodes of folios that nobody maps
 * @engine: the engine
 *
 * Context: may sleep; the engine mutex is held.
 * Return: 0 if the stable trees are empty now; -EBUSY if some folio is mapped, by
 * a process that is exiting for instance.
 */
int ksm_unmerge_empty_stable(struct ksm_engine *engine)
{
	unsigned int i;
	int err = 0;

	lockdep_assert_held(&engine->mutex);
	for (i = 0; i < ksm_nr_shards(engine); i++)
		if (ksm_unmerge_empty_shard(engine, &engine->shards[i]))
			err = -EBUSY;
	return err;
}

/* The orphan that was not looked at for longest, off the list. */
static struct ksm_stable_node *ksm_unmerge_next_orphan(struct ksm_engine *engine)
{
	struct ksm_stable_node *node;

	spin_lock(&engine->orphan_lock);
	node = list_first_entry_or_null(&engine->orphans, struct ksm_stable_node,
					orphan);
	if (node) {
		list_del_init(&node->orphan);
		engine->nr_orphans--;
	}
	spin_unlock(&engine->orphan_lock);
	return node;
}

/* Return: false if the node is gone, or need not be looked after any more. */
static bool ksm_unmerge_sweep_node(struct ksm_engine *engine,
				   struct ksm_stable_node *node, unsigned long *steps)
{
	struct ksm_shard *shard = ksm_shard(engine, node->entry.key.hash);
	bool heirs;

	if (!node->entry.nr && !ksm_unmerge_drop_node(engine, shard, node))
		return false;
	heirs = ksm_heir_prune(engine, node, steps);
	return heirs || !node->entry.nr;
}

/**
 * ksm_unmerge_sweep_orphans() - look after nodes that nobody would come by any more
 * @engine: the engine
 *
 * Drops those whose folios are not mapped any more, and of the others the heirs that
 * are not needed any more. All that there are get their turn within KSM_SWEEP_PASSES
 * calls, or more if it takes long to look: a pass that has nothing else to do is to cost
 * little, and whoever unmerges everything does not wait for it.
 *
 * Context: may sleep; the engine mutex is held.
 */
void ksm_unmerge_sweep_orphans(struct ksm_engine *engine)
{
	unsigned long nr = READ_ONCE(engine->nr_orphans), steps = KSM_SWEEP_STEPS;
	struct ksm_stable_node *node;

	lockdep_assert_held(&engine->mutex);
	nr = min(nr, max(nr / KSM_SWEEP_PASSES, KSM_SWEEP_NODES));
	while (nr-- && steps && !atomic_read(&engine->unmergers) && !freezing(current) &&
	       (node = ksm_unmerge_next_orphan(engine))) {
		if (ksm_unmerge_sweep_node(engine, node, &steps))
			ksm_node_orphan(engine, node);
		cond_resched();
	}
}

static bool ksm_unmerge_in_range(struct ksm_stable_node *node,
				 unsigned long start_pfn, unsigned long end_pfn)
{
	return node->pfn >= start_pfn && node->pfn < end_pfn;
}

static struct ksm_stable_node *ksm_unmerge_find_dup(struct list_head *dups,
						    unsigned long start_pfn,
						    unsigned long end_pfn)
{
	struct ksm_stable_node *node;

	list_for_each_entry(node, dups, link)
		if (ksm_unmerge_in_range(node, start_pfn, end_pfn))
			return node;
	return NULL;
}

/* A node of @entry in the range, or NULL. */
static struct ksm_stable_node *ksm_unmerge_find_pfn(struct ksm_stable_entry *entry,
						    unsigned long start_pfn,
						    unsigned long end_pfn)
{
	struct ksm_stable_chain *chain;
	struct ksm_stable_node *node;

	if (entry->is_chain) {
		chain = container_of(entry, struct ksm_stable_chain, entry);
		node = ksm_unmerge_find_dup(&chain->roomy, start_pfn, end_pfn);
		return node ?: ksm_unmerge_find_dup(&chain->full, start_pfn,
						    end_pfn);
	}
	node = container_of(entry, struct ksm_stable_node, entry);
	return ksm_unmerge_in_range(node, start_pfn, end_pfn) ? node : NULL;
}

/**
 * ksm_unmerge_pfn_range() - drop the nodes of page frames that are going away
 * @engine: the engine, its run state OFFLINE: ksmd is parked
 * @start_pfn: first frame
 * @end_pfn: end of the range
 *
 * The folios are gone already, by migration or by being freed. Nodes that were not
 * noticed to be stale must not be looked through any more, for there may be no
 * struct page at the other end. So they are dropped without looking.
 *
 * Context: may sleep.
 */
void ksm_unmerge_pfn_range(struct ksm_engine *engine, unsigned long start_pfn,
			   unsigned long end_pfn)
{
	struct ksm_stable_entry *entry;
	struct ksm_stable_node *node;
	struct ksm_shard *shard;
	struct rb_node *rb;
	unsigned int i;
	LIST_HEAD(dead);

	for (i = 0; i < ksm_nr_shards(engine); i++) {
		shard = &engine->shards[i];
		spin_lock(&shard->lock);
		rb = rb_first(&shard->stable);
		while (rb) {
			entry = rb_entry(rb, struct ksm_stable_entry, rb);
			node = ksm_unmerge_find_pfn(entry, start_pfn, end_pfn);
			if (node) {
				ksm_stable_unlink(engine, shard, node, &dead);
				rb = rb_first(&shard->stable);
			} else {
				rb = rb_next(rb);
			}
		}
		spin_unlock(&shard->lock);
		cond_resched();
	}
	ksm_stable_reap(engine, &dead);
}
