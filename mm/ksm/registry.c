// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registered mms, and where the scan is among them.
 *
 * An mm is registered when its first area is offered for merging, or at fork and
 * exec if it inherits that, and forgotten when it exits or has nothing to merge any
 * more. Being registered holds its mm_count, so that the mm_struct stays; its page
 * tables are another matter. Scanning and merging take a reference to mm_users for each
 * walk. Unmerging takes mmap_lock and checks mm_users, and ksm_registry_exit() makes an
 * exit wait for it.
 *
 * The lists of mms and the cursor are under registry->lock. An mm that the cursor
 * is on is freed by the scan only, as is one for which there is something to
 * retire first; any other may go away when registry->lock is dropped.
 *
 * Whose turn it is
 * ----------------
 * In a pass the mms take turns: who has had KSM_TURN_PAGES, and is not through yet, goes
 * to the end of the line. So a small one has not to wait until a huge one is through.
 *
 * Nor can anybody hold up the end of the pass. What an mm has had of a pass is limited
 * by its size: more has been looked at only if there was always something new in front
 * of the scan, and that could go on for ever. Its pass ends there, and the next one goes
 * on where this one has stopped. And so many mms may join a pass, but no more: they
 * could be forked faster than they are scanned.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* Pages that are read, or as much as that of other work. */
#define KSM_TURN_PAGES		1024

/* Mms that are registered during a pass, and are a part of it. */
#define KSM_PASS_ROOM		256

/*
 * Work for a page table, full of pages that are known, and for a VMA, in pages that are
 * read; see KSM_COST_* in scan.c.
 */
#define KSM_TABLE_PAGES		(PTRS_PER_PTE / 64 + 1)
#define KSM_VMA_PAGES		1

static struct kmem_cache *ksm_mm_cache;

/**
 * ksm_registry_create_cache() - make the slab cache for registered mms
 *
 * Return: 0, or -ENOMEM.
 */
int ksm_registry_create_cache(void)
{
	/* The name is what /proc/slabinfo has always shown. */
	ksm_mm_cache = kmem_cache_create("ksm_mm_slot", sizeof(struct ksm_mm),
					 __alignof__(struct ksm_mm), SLAB_ACCOUNT, NULL);
	return ksm_mm_cache ? 0 : -ENOMEM;
}

static struct ksm_mm *ksm_mm_entry(struct mm_slot *slot)
{
	return slot ? mm_slot_entry(slot, struct ksm_mm, slot) : NULL;
}

static struct ksm_mm *ksm_registry_find(struct ksm_registry *registry,
					struct mm_struct *mm)
{
	lockdep_assert_held(&registry->lock);
	return ksm_mm_entry(mm_slot_lookup(registry->hash, mm));
}

/**
 * ksm_registry_add() - register an mm
 * @engine: the engine
 * @mm: the mm, not registered yet; its mmap_lock is held for writing
 *
 * A new mm comes last in this pass: what was forked a moment ago often execs or exits
 * the next. When there is no room left it is not in this pass; but while everything is
 * being unmerged it must be, or its merged pages would be missed.
 *
 * Return: 0; -ENOMEM, and nothing changed, when there is no memory.
 */
int ksm_registry_add(struct ksm_engine *engine, struct mm_struct *mm)
{
	struct ksm_registry *registry = &engine->registry;
	struct ksm_mm *kmm = mm_slot_alloc(ksm_mm_cache);
	struct list_head *list = &registry->mms;
	struct mm_slot *slot;

	if (!kmm)
		return -ENOMEM;
	kmm->engine = engine;
	kmm->born = jiffies;
	kmm->refused_until = jiffies;
	xa_init(&kmm->chunks);
	mmgrab(mm);
	slot = &kmm->slot;

	spin_lock(&registry->lock);
	mm_slot_insert(registry->hash, mm, slot);
	kmm->serial = ++registry->last_serial;
	if (registry->room)
		registry->room--;
	else if (registry->cursor && !(READ_ONCE(engine->run) & KSM_RUN_UNMERGE))
		list = &registry->done;
	list_add_tail(&slot->mm_node, list);
	spin_unlock(&registry->lock);

	mm_flags_set(MMF_VM_MERGEABLE, mm);
	return 0;
}

/* The turn of the first in line, if there is any. */
static struct ksm_mm *ksm_registry_call(struct ksm_registry *registry)
{
	lockdep_assert_held(&registry->lock);
	registry->cursor = ksm_mm_entry(list_first_entry_or_null(&registry->mms,
								 struct mm_slot, mm_node));
	registry->turn = 0;
	return registry->cursor;
}

/**
 * ksm_registry_remove() - forget an mm: step one, nobody finds it any more
 * @engine: the engine, its mutex held
 * @kmm: the mm under the cursor, which moves on; nothing is left to retire
 *
 * Both under one hold of the lock: as soon as the cursor is elsewhere an exit may
 * free the mm.
 *
 * If the mm is not exiting then its mmap_lock is held, so that it is not being
 * registered anew meanwhile. MERGE_ANY is left alone: it is the process's wish,
 * which outlives there being nothing to merge.
 */
void ksm_registry_remove(struct ksm_engine *engine, struct ksm_mm *kmm)
{
	struct ksm_registry *registry = &engine->registry;

	lockdep_assert_held(&engine->mutex);
	spin_lock(&registry->lock);
	WARN_ON_ONCE(registry->cursor != kmm);
	mm_slot_remove(&kmm->slot);
	ksm_registry_call(registry);
	spin_unlock(&registry->lock);
	mm_flags_clear(MMF_VM_MERGEABLE, kmm->slot.mm);
}

/**
 * ksm_registry_free() - forget an mm: step two, drop what it holds
 * @kmm: an mm that was removed; no lock of its mm is held
 */
void ksm_registry_free(struct ksm_mm *kmm)
{
	struct mm_struct *mm = kmm->slot.mm;

	WARN_ON_ONCE(atomic_long_read(&kmm->bytes) || atomic_read(&kmm->claims));
	ksm_domain_put(kmm->engine, kmm->domain);
	mm_slot_free(ksm_mm_cache, kmm);
	mmdrop(mm);
}

/**
 * ksm_registry_exit() - an mm exits, or its exec fails
 * @engine: the engine
 * @mm: the mm; its mmap_lock is held only in the case of the failed exec
 *
 * Most mms have nothing to retire when they exit, and are forgotten at once. Any
 * other is moved to where the scan will find it next.
 *
 * Return: true if the scan may be walking the page tables of @mm, for which the
 * caller has to wait before they are freed.
 */
bool ksm_registry_exit(struct ksm_engine *engine, struct mm_struct *mm)
{
	struct ksm_registry *registry = &engine->registry;
	struct ksm_mm *kmm;
	bool idle;

	spin_lock(&registry->lock);
	kmm = ksm_registry_find(registry, mm);
	idle = kmm && kmm != registry->cursor && !atomic_long_read(&kmm->bytes);
	if (idle)
		mm_slot_remove(&kmm->slot);
	else if (kmm && registry->cursor && kmm != registry->cursor)
		list_move(&kmm->slot.mm_node, &registry->cursor->slot.mm_node);
	spin_unlock(&registry->lock);

	if (idle) {
		mm_flags_clear(MMF_VM_MERGE_ANY, mm);
		mm_flags_clear(MMF_VM_MERGEABLE, mm);
		ksm_registry_free(kmm);
	}
	return kmm && !idle;
}

/**
 * ksm_registry_empty() - is no mm registered?
 * @engine: the engine
 *
 * Return: what was so a moment ago, unless the caller has kept it so.
 */
bool ksm_registry_empty(struct ksm_engine *engine)
{
	return list_empty(&engine->registry.mms) && list_empty(&engine->registry.done);
}

/**
 * ksm_registry_start() - begin a pass: put the cursor on the first mm
 * @engine: the engine, its mutex held
 *
 * Return: that mm; NULL if none is registered.
 */
struct ksm_mm *ksm_registry_start(struct ksm_engine *engine)
{
	struct ksm_registry *registry = &engine->registry;
	struct ksm_mm *kmm;

	lockdep_assert_held(&engine->mutex);
	spin_lock(&registry->lock);
	list_splice_init(&registry->done, &registry->mms);
	registry->room = KSM_PASS_ROOM;
	kmm = ksm_registry_call(registry);
	spin_unlock(&registry->lock);
	return kmm;
}

/* The mm under the cursor is through with this pass. */
static struct ksm_mm *ksm_registry_dismiss(struct ksm_registry *registry)
{
	struct ksm_mm *kmm = registry->cursor;

	lockdep_assert_held(&registry->lock);
	kmm->spent = 0;
	list_move_tail(&kmm->slot.mm_node, &registry->done);
	return ksm_registry_call(registry);
}

/**
 * ksm_registry_next() - at the end of an mm: move the cursor on to the next one
 * @engine: the engine, its mutex held
 *
 * The mm that the cursor was on may be gone when this returns, unless the caller
 * knows better: it may exit, and have nothing to retire.
 *
 * Return: the next mm; NULL if that was the last one, and the pass is over.
 */
struct ksm_mm *ksm_registry_next(struct ksm_engine *engine)
{
	struct ksm_registry *registry = &engine->registry;
	struct ksm_mm *kmm;

	lockdep_assert_held(&engine->mutex);
	spin_lock(&registry->lock);
	registry->cursor->addr = 0;
	kmm = ksm_registry_dismiss(registry);
	spin_unlock(&registry->lock);
	return kmm;
}

/*
 * More than any mm of this size takes, by far. It may have been larger when the pass
 * began; then the rest of it has to wait.
 */
static unsigned long ksm_registry_limit(struct ksm_mm *kmm)
{
	struct mm_struct *mm = kmm->slot.mm;

	return 2 * (get_mm_counter(mm, MM_ANONPAGES) +
		    ksm_mm_page_tables(mm) * KSM_TABLE_PAGES +
		    mm->map_count * KSM_VMA_PAGES);
}

/**
 * ksm_registry_charge() - part of an mm was looked at: is its turn over?
 * @engine: the engine, its mutex held
 * @pages: what was done, measured in pages that are read
 *
 * If so then the cursor moves on.
 */
void ksm_registry_charge(struct ksm_engine *engine, unsigned int pages)
{
	struct ksm_registry *registry = &engine->registry;
	struct ksm_mm *kmm = registry->cursor;

	lockdep_assert_held(&engine->mutex);
	kmm->spent += pages;
	registry->turn += pages;
	if (registry->turn < KSM_TURN_PAGES)
		return;
	spin_lock(&registry->lock);
	if (kmm->spent > ksm_registry_limit(kmm)) {
		ksm_registry_dismiss(registry);
	} else {
		list_move_tail(&kmm->slot.mm_node, &registry->mms);
		ksm_registry_call(registry);
	}
	spin_unlock(&registry->lock);
}

/**
 * ksm_registry_may_try() - may it be tried whether another page of an mm keeps still?
 * @kmm: the mm under the cursor
 *
 * Return: true, and the page is counted, also when the mm is not new any more; false for
 * more than a few pages of a new mm.
 */
bool ksm_registry_may_try(struct ksm_mm *kmm)
{
	lockdep_assert_held(&kmm->engine->mutex);
	if (!ksm_policy_may_try(kmm->born, jiffies, kmm->tried))
		return false;
	kmm->tried += kmm->tried < UINT_MAX;
	return true;
}

/**
 * ksm_registry_reset() - end the pass where it is
 * @engine: the engine, its mutex held
 */
void ksm_registry_reset(struct ksm_engine *engine)
{
	lockdep_assert_held(&engine->mutex);
	spin_lock(&engine->registry.lock);
	engine->registry.cursor = NULL;
	spin_unlock(&engine->registry.lock);
}

/**
 * ksm_registry_lookup() - what is known of an mm
 * @engine: the engine
 * @mm: the mm, registered or not
 *
 * Return: it, or NULL. It stays for as long as the caller has the engine mutex and a
 * reference to mm_users, so that neither the scan nor an exit forgets it.
 */
struct ksm_mm *ksm_registry_lookup(struct ksm_engine *engine, struct mm_struct *mm)
{
	struct ksm_mm *kmm;

	lockdep_assert_held(&engine->mutex);
	spin_lock(&engine->registry.lock);
	kmm = ksm_registry_find(&engine->registry, mm);
	spin_unlock(&engine->registry.lock);
	return kmm;
}

/**
 * ksm_registry_metadata() - memory spent on remembering the pages of one mm
 * @engine: the engine
 * @mm: the mm, registered or not
 *
 * Return: bytes.
 */
long ksm_registry_metadata(struct ksm_engine *engine, struct mm_struct *mm)
{
	long bytes = 0;
	struct ksm_mm *kmm;

	spin_lock(&engine->registry.lock);
	kmm = ksm_registry_find(&engine->registry, mm);
	if (kmm)
		bytes = atomic_long_read(&kmm->bytes);
	spin_unlock(&engine->registry.lock);
	return bytes;
}

/**
 * ksm_registry_anon_pages() - anonymous memory of the registered mms
 * @engine: the engine
 *
 * What of it is on offer could only be told by a look at all their VMAs.
 *
 * Return: about how many pages.
 */
unsigned long ksm_registry_anon_pages(struct ksm_engine *engine)
{
	unsigned long pages = 0;
	struct mm_slot *slot;
	int bucket;

	spin_lock(&engine->registry.lock);
	hash_for_each(engine->registry.hash, bucket, slot, hash)
		pages += get_mm_counter(slot->mm, MM_ANONPAGES);
	spin_unlock(&engine->registry.lock);
	return pages;
}
