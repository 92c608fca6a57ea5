// SPDX-License-Identifier: GPL-2.0-only
/*
 * The validator: does every structure of the engine agree with every other?
 *
 * It counts again, the slow way, what the counters claim, and checks each link from
 * both ends. Of the KSM pages that are mapped somewhere, a number that are chosen by
 * chance have to be found by the reverse map.
 *
 * It is built in with CONFIG_KSM_DEBUG. It runs after unmerging and now and then at the
 * end of a pass, and tests call it after each step. The first disagreement of a kind is
 * a warning.
 */
#include "ksm_internal.h"
#include "ksm.h"

/* Passes between two validations. */
#define KSM_VALIDATE_PERIOD	16

/* Processes, and PTEs and KSM pages of each, that are looked for in the reverse map. */
#define KSM_VALIDATE_MMS	16
#define KSM_VALIDATE_PTES	8192
#define KSM_VALIDATE_PAGES	64

/* In the middle of a pass: once in so many batches, and so many processes. */
#define KSM_VALIDATE_BATCHES	64
#define KSM_VALIDATE_FEW	4

struct ksm_census {
	long count[KSM_NR_STATS];
	int errors;
};

#define ksm_expect(census, condition)					\
	do {								\
		if (WARN_ON_ONCE(!(condition)))				\
			(census)->errors++;				\
	} while (0)

static void ksm_validate_heirs(struct ksm_census *census, struct ksm_stable_node *node)
{
	struct ksm_rmap_item *heir;
	unsigned int nr = 0;

	hlist_for_each_entry(heir, &node->heirs, stable.link) {
		nr++;
		ksm_expect(census, heir->stable.node == node);
		ksm_expect(census, heir->stable.anon_vma == heir->stable.anon_vma->root);
	}
	ksm_expect(census, nr == node->nr_heirs);
	ksm_expect(census, !nr || !list_empty(&node->orphan));
	census->count[KSM_STAT_ITEMS] += nr;
	census->count[KSM_STAT_BYTES] += nr * sizeof(*heir);
}

static void ksm_validate_sharers(struct ksm_census *census,
				 struct ksm_stable_node *node)
{
	struct ksm_rmap_item *item;
	unsigned int nr = 0;

	hlist_for_each_entry(item, &node->items, stable.link) {
		nr++;
		ksm_expect(census, ksm_item_state(item) == KSM_ITEM_STABLE);
		ksm_expect(census, item->stable.node == node);
		ksm_expect(census, item->stable.anon_vma);
		ksm_expect(census, item->owner->domain == node->domain);
	}
	ksm_expect(census, nr == node->entry.nr);
	ksm_validate_heirs(census, node);
	census->count[KSM_STAT_SHARED] += !!nr;
	census->count[KSM_STAT_SHARING] += nr ? nr - 1 : 0;
}

static void ksm_validate_node(struct ksm_census *census,
			      struct ksm_stable_node *node,
			      struct ksm_stable_chain *chain)
{
	ksm_expect(census, node->linked);
	ksm_expect(census, !node->entry.is_chain);
	ksm_expect(census, node->chain == chain);
	ksm_expect(census, node->entry.key.domain == node->domain->id);
	ksm_validate_sharers(census, node);
}

static void ksm_validate_chain(struct ksm_census *census,
			       struct ksm_stable_chain *chain)
{
	struct ksm_stable_node *node;
	unsigned int nr = 0;

	list_for_each_entry(node, &chain->roomy, link) {
		ksm_validate_node(census, node, chain);
		nr++;
	}
	list_for_each_entry(node, &chain->full, link) {
		ksm_validate_node(census, node, chain);
		nr++;
	}
	ksm_expect(census, nr == chain->entry.nr);
	ksm_expect(census, nr > 1);
	census->count[KSM_STAT_CHAINS]++;
	census->count[KSM_STAT_DUPS] += nr;
}

static void ksm_validate_stable(struct ksm_engine *engine,
				struct ksm_census *census,
				struct ksm_shard *shard)
{
	struct ksm_stable_chain *chain;
	struct ksm_stable_node *node;
	struct ksm_key *last = NULL;
	struct rb_node *rb;

	for (rb = rb_first(&shard->stable); rb; rb = rb_next(rb)) {
		struct ksm_stable_entry *entry =
			rb_entry(rb, struct ksm_stable_entry, rb);

		ksm_expect(census, !last || ksm_key_cmp(last, &entry->key) < 0);
		ksm_expect(census, ksm_shard(engine, entry->key.hash) == shard);
		last = &entry->key;
		if (entry->is_chain) {
			chain = container_of(entry, struct ksm_stable_chain, entry);
			ksm_validate_chain(census, chain);
		} else {
			node = container_of(entry, struct ksm_stable_node, entry);
			ksm_validate_node(census, node, NULL);
		}
	}
}

static void ksm_validate_unstable(struct ksm_engine *engine,
				  struct ksm_census *census,
				  struct ksm_shard *shard)
{
	struct ksm_key *last = NULL;
	struct rb_node *rb;

	for (rb = rb_first(&shard->unstable); rb; rb = rb_next(rb)) {
		struct ksm_rmap_item *item =
			rb_entry(rb, struct ksm_rmap_item, unstable.rb);
		struct ksm_key *key = &item->unstable.key;

		ksm_expect(census, !last || ksm_key_cmp(last, key) < 0);
		ksm_expect(census, ksm_shard(engine, key->hash) == shard);
		ksm_expect(census, ksm_item_state(item) == KSM_ITEM_UNSTABLE);
		ksm_expect(census, key->domain == item->owner->domain->id);
		last = key;
		census->count[KSM_STAT_UNSHARED]++;
	}
}

static void ksm_validate_chunk(struct ksm_census *census, struct ksm_mm *kmm,
			       struct ksm_chunk *chunk)
{
	unsigned long addr = ksm_slots_next(chunk, 0, ULONG_MAX), last = 0;
	unsigned int nr = 0, zeroed = 0;

	for (; addr != ULONG_MAX; addr = ksm_slots_next(chunk, addr + PAGE_SIZE, ULONG_MAX)) {
		u64 slot = *ksm_chunk_slot(chunk, addr);
		struct ksm_rmap_item *item = ksm_slot_item(slot);

		ksm_expect(census, addr > last || !nr);
		last = addr;
		nr++;
		zeroed += ksm_slot_is_zeroed(slot);
		if (!item)
			continue;
		census->count[KSM_STAT_ITEMS]++;
		census->count[KSM_STAT_BYTES] += sizeof(*item);
		ksm_expect(census, item->owner == kmm);
		ksm_expect(census, ksm_item_addr(item) == addr);
		ksm_expect(census, ksm_item_state(item) != KSM_ITEM_CLAIMED);
	}
	ksm_expect(census, nr == chunk->nr);
	census->count[KSM_STAT_TRACKED] += nr - zeroed;
	census->count[KSM_STAT_BYTES] += ksm_slots_bytes(chunk);
}

static void ksm_validate_mm(struct ksm_census *census, struct ksm_mm *kmm)
{
	long tracked = census->count[KSM_STAT_TRACKED];
	long items = census->count[KSM_STAT_ITEMS];
	long chunks = census->count[KSM_STAT_CHUNKS];
	long bytes = census->count[KSM_STAT_BYTES];
	struct ksm_chunk *chunk;
	unsigned long index;

	ksm_validate_chunk(census, kmm, &kmm->few);
	xa_for_each(&kmm->chunks, index, chunk) {
		ksm_validate_chunk(census, kmm, chunk);
		ksm_expect(census, chunk->nr);
		census->count[KSM_STAT_CHUNKS]++;
		census->count[KSM_STAT_BYTES] += sizeof(*chunk);
	}
	tracked = census->count[KSM_STAT_TRACKED] - tracked;
	items = census->count[KSM_STAT_ITEMS] - items;
	chunks = census->count[KSM_STAT_CHUNKS] - chunks;
	bytes = census->count[KSM_STAT_BYTES] - bytes;
	ksm_expect(census, !atomic_read(&kmm->claims));
	ksm_expect(census, tracked == kmm->slot.mm->ksm_rmap_items);
	ksm_expect(census, items == atomic_long_read(&kmm->nr_items));
	ksm_expect(census, chunks == atomic_long_read(&kmm->nr_chunks));
	ksm_expect(census, bytes == atomic_long_read(&kmm->bytes));
}

/* Under the registry lock all along: exits wait, which is for debug kernels only. */
static void ksm_validate_registry(struct ksm_engine *engine,
				  struct ksm_census *census)
{
	struct mm_slot *slot;
	int bucket;

	spin_lock(&engine->registry.lock);
	hash_for_each(engine->registry.hash, bucket, slot, hash)
		ksm_validate_mm(census, mm_slot_entry(slot, struct ksm_mm, slot));
	spin_unlock(&engine->registry.lock);
}

static void ksm_validate_domains(struct ksm_engine *engine, struct ksm_census *census)
{
	struct ksm_domains *domains = &engine->domains;
	long shared = atomic_long_read(&domains->global.shared);
	long sharing = atomic_long_read(&domains->global.sharing);
	struct ksm_domain *domain;
	unsigned long id;

	xa_lock(&domains->by_id);
	xa_for_each(&domains->by_id, id, domain) {
		ksm_expect(census, domain->id == id);
		shared += atomic_long_read(&domain->shared);
		sharing += atomic_long_read(&domain->sharing);
	}
	xa_unlock(&domains->by_id);
	ksm_expect(census, shared == census->count[KSM_STAT_SHARED]);
	ksm_expect(census, sharing == census->count[KSM_STAT_SHARING]);
}

/**
 * struct ksm_hole_search - a search for mappings that the reverse map does not find
 * @vma: what is searched; its mmap lock is held
 * @addr: where a KSM page is mapped in it
 * @folio: the page, with a reference
 * @found: the reverse map has come to it
 * @ptes: that may yet be looked at
 * @pages: that may yet be looked for
 */
struct ksm_hole_search {
	struct vm_area_struct *vma;
	unsigned long addr;
	struct folio *folio;
	bool found;
	unsigned int ptes;
	unsigned int pages;
};

static int ksm_holes_pmd_entry(pmd_t *pmd, unsigned long addr, unsigned long end,
			       struct mm_walk *walk)
{
	struct ksm_hole_search *search = walk->private;
	pte_t *start_pte, *pte;
	struct folio *folio;
	spinlock_t *ptl;		/* of the page table */

	cond_resched();
	start_pte = pte_offset_map_lock(walk->mm, pmd, addr, &ptl);
	if (!start_pte)
		return 0;
	for (pte = start_pte; addr != end && search->ptes && !search->folio;
	     pte++, addr += PAGE_SIZE) {
		search->ptes--;
		folio = pte_present(ptep_get(pte)) ?
			vm_normal_folio(walk->vma, addr, ptep_get(pte)) : NULL;
		if (!folio || !folio_test_ksm(folio))
			continue;
		folio_get(folio);
		search->folio = folio;
		search->addr = addr;
	}
	pte_unmap_unlock(start_pte, ptl);
	return search->folio || !search->ptes;
}

static const struct mm_walk_ops ksm_holes_ops = {
	.pmd_entry = ksm_holes_pmd_entry,
	.walk_lock = PGWALK_RDLOCK,
};

static bool ksm_holes_is_other(struct vm_area_struct *vma, void *arg)
{
	struct ksm_hole_search *search = arg;

	return vma != search->vma;
}

static bool ksm_holes_found(struct folio *folio, struct vm_area_struct *vma,
			    unsigned long addr, void *arg)
{
	struct ksm_hole_search *search = arg;

	search->found = addr == search->addr;
	return !search->found;
}

/*
 * Is a page found that was mapped a moment ago? With the engine mutex held no item goes,
 * so that what leads to the page does so still, be it mapped or not.
 */
static void ksm_validate_page(struct ksm_census *census, struct ksm_hole_search *search)
{
	struct folio *folio = search->folio;
	struct rmap_walk_control rwc = {
		.arg = search,
		.rmap_one = ksm_holes_found,
		.invalid_vma = ksm_holes_is_other,
	};

	search->found = false;
	if (folio_trylock(folio)) {
		if (ksm_node_of(folio)) {
			rmap_walk(folio, &rwc);
			ksm_expect(census, search->found);
			search->pages--;
		}
		folio_unlock(folio);
	}
	folio_put(folio);
	search->folio = NULL;
}

static void ksm_validate_vma(struct ksm_census *census, struct ksm_hole_search *search)
{
	struct vm_area_struct *vma = search->vma;
	unsigned long addr = vma->vm_start;

	if (!(vma->vm_flags & VM_MERGEABLE) || !vma->anon_vma)
		return;
	while (search->pages && search->ptes && addr < vma->vm_end &&
	       walk_page_range_vma(vma, addr, vma->vm_end, &ksm_holes_ops, search) &&
	       search->folio) {
		addr = search->addr + PAGE_SIZE;
		ksm_validate_page(census, search);
	}
}

/* Some VMAs of an mm: its first ones, or any others. */
static void ksm_validate_vmas(struct ksm_census *census, struct mm_struct *mm)
{
	struct ksm_hole_search search = {
		.ptes = KSM_VALIDATE_PTES,
		.pages = KSM_VALIDATE_PAGES,
	};
	unsigned int skip = 0;

	VMA_ITERATOR(vmi, mm, 0);
	mmap_read_lock(mm);
	if (mm->map_count && get_random_u32_below(2))
		skip = get_random_u32_below(mm->map_count);
	for_each_vma(vmi, search.vma) {
		cond_resched();
		if (!skip)
			ksm_validate_vma(census, &search);
		else
			skip--;
	}
	mmap_read_unlock(mm);
}

/* Some of the registered mms, with references to mm_users: each may be among them. */
static unsigned int ksm_validate_choose(struct ksm_engine *engine,
					struct mm_struct **mms, unsigned int max_mms)
{
	unsigned int nr = 0, met = 0, at;
	struct mm_slot *slot;
	int bucket;

	spin_lock(&engine->registry.lock);
	hash_for_each(engine->registry.hash, bucket, slot, hash) {
		at = get_random_u32_below(++met);
		if (nr < max_mms)
			at = nr;
		if (at >= max_mms || !mmget_not_zero(slot->mm))
			continue;
		if (at < nr)
			mmput_async(mms[at]);
		mms[at] = slot->mm;
		nr = max(nr, at + 1);
	}
	spin_unlock(&engine->registry.lock);
	return nr;
}

/* Each KSM page that is mapped in an offered VMA is found by a walk of the reverse map. */
static void ksm_validate_rmap(struct ksm_engine *engine, struct ksm_census *census,
			      unsigned int max_mms)
{
	struct mm_struct *mms[KSM_VALIDATE_MMS];
	unsigned int i, nr = ksm_validate_choose(engine, mms, max_mms);

	for (i = 0; i < nr; i++) {
		ksm_validate_vmas(census, mms[i]);
		mmput_async(mms[i]);
	}
}

static bool ksm_validate_due(struct ksm_engine *engine)
{
	return engine->run != KSM_RUN_MERGE ||
	       !(engine->seqnr % KSM_VALIDATE_PERIOD);
}

/**
 * ksm_validate() - check the whole engine, if it is time to
 * @engine: the engine, between two batches
 *
 * Context: may sleep; the engine mutex is held, and no mmap lock.
 * Return: number of disagreements found.
 */
int ksm_validate(struct ksm_engine *engine)
{
	struct ksm_census census = { };
	unsigned int i;

	lockdep_assert_held(&engine->mutex);
	if (!ksm_validate_due(engine))
		return 0;
	for (i = 0; i < ksm_nr_shards(engine); i++) {
		struct ksm_shard *shard = &engine->shards[i];

		spin_lock(&shard->lock);
		ksm_validate_stable(engine, &census, shard);
		ksm_validate_unstable(engine, &census, shard);
		spin_unlock(&shard->lock);
	}
	ksm_validate_registry(engine, &census);
	ksm_validate_domains(engine, &census);
	ksm_validate_rmap(engine, &census, KSM_VALIDATE_MMS);
	for (i = KSM_STAT_TRACKED; i < KSM_NR_STATS; i++)
		ksm_expect(&census, census.count[i] == ksm_stat_read(engine, i));
	return census.errors;
}

/**
 * ksm_validate_batch() - look for holes in the reverse map, now and then
 * @engine: the engine, after a batch
 *
 * At the end of a pass most forks have items of their own. It is in the middle that the
 * item of their parent may have left, and nobody come by them yet.
 *
 * Context: may sleep; the engine mutex is held, and no mmap lock.
 */
void ksm_validate_batch(struct ksm_engine *engine)
{
	struct ksm_census census = { };

	lockdep_assert_held(&engine->mutex);
	if (!get_random_u32_below(KSM_VALIDATE_BATCHES))
		ksm_validate_rmap(engine, &census, KSM_VALIDATE_FEW);
}
