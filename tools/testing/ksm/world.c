// SPDX-License-Identifier: GPL-2.0-only
/*
 * The world that tests are done in; see world.h.
 */
#include "ksm_internal.h"
#include "../../../mm/ksm/ksm.h"
#include "fake.h"
#include "test.h"
#include "world.h"

#define SHARD_BITS	2
#define NR_SHARDS	((int)BIT(SHARD_BITS))
#define HASH_48		(~0xffffULL)	/* what a sighting keeps of a hash */

static bool same_key(const struct ksm_key *a, const struct ksm_key *b)
{
	return a->hash == b->hash && a->domain == b->domain && a->nid == b->nid;
}

static bool key_below(const struct ksm_key *a, const struct ksm_key *b)
{
	if (a->hash != b->hash)
		return a->hash < b->hash;
	if (a->domain != b->domain)
		return a->domain < b->domain;
	return a->nid < b->nid;
}

/*
 * Keys that collide in all but one part, are neighbours, or are at an end of a
 * shard; few of them, so that they meet often.
 */
static void init_keys(struct world *w)
{
	static const u64 ends[] = { 0, 1, 1ULL << 62, (1ULL << 62) - 1, 1ULL << 63, -1 };
	static const u32 domains[] = { 0, 1, U32_MAX };
	u64 some = rnd();
	int k;

	for (k = 0; k < NR_KEYS; k++)
		w->keys[k] = (struct ksm_key) {
			.hash = one_in(3) ? ends[rnd_below(ARRAY_SIZE(ends))] :
					    some ^ (1ULL << (rnd_below(4) * 21)),
			.domain = domains[one_in(2) ? 0 : rnd_below(3)],
			.nid = rnd_below(3),
		};
}

struct world *world_init(unsigned int max_page_sharing)
{
	struct world *w = calloc(1, sizeof(*w));
	int i;

	CHECK(w);
	CHECK(!ksm_item_create_cache() && !ksm_node_create_cache());
	w->engine.shard_bits = SHARD_BITS;
	w->engine.shards = calloc(NR_SHARDS, sizeof(struct ksm_shard));
	w->engine.knobs.max_page_sharing = max_page_sharing;
	w->engine.knobs.prune_millisecs = 2000;
	INIT_LIST_HEAD(&w->engine.orphans);
	INIT_LIST_HEAD(&w->dead);
	for (i = 0; i < NR_MMS; i++) {
		w->kmms[i].slot.mm = &w->mms[i];
		w->kmms[i].engine = &w->engine;
	}
	for (i = 0; i < NR_MMS * NR_CHUNKS; i++) {
		w->chunks[i].base = 0x7fff00000000 - i * PTRS_PER_PTE * PAGE_SIZE;
		w->chunks[i].slots = calloc(PTRS_PER_PTE, sizeof(u64));
		w->chunks[i].full = true;
	}
	init_keys(w);
	world_check(w);
	return w;
}

/* Everything back, one by one; what is not back then, has leaked. */
void world_exit(struct world *w)
{
	int i;

	for (i = 0; i < NR_SLOTS; i++) {
		if (w->slots[i].kind != ITEM)
			continue;
		world_erase(w, i);
		if (w->slots[i].state == KSM_ITEM_CLAIMED)
			world_release(w, i);
		if (w->slots[i].state == KSM_ITEM_STABLE)
			world_detach(w, i, one_in(2));
	}
	for (i = 0; i < NR_NODES; i++) {
		if (w->nodes[i].where == LINKED)
			world_unlink(w, i);
		if (w->nodes[i].where != NONE && !w->nodes[i].stale)
			world_free_folio(w, i);
	}
	world_reap(w);
	for (i = 0; i < NR_SLOTS; i++)
		world_clear(w, i);
	world_check(w);

	ksm_chain_free(w->spare);
	CHECK_EQ(ksm_fake_kmalloc.nr, 0);
	CHECK_EQ(ksm_fake_cache_find("ksm_rmap_item")->nr, 0);
	CHECK_EQ(ksm_fake_cache_find("ksm_stable_node")->nr, 0);
	CHECK_EQ(ksm_fake_folios_used(), 0);
	CHECK(list_empty(&w->engine.orphans));
	for (i = 0; i < NR_ANON_VMAS; i++)
		CHECK_EQ(w->anon_vmas[i].refs, 0);
	for (i = 0; i < KSM_NR_STATS; i++)
		CHECK_EQ(ksm_stat_read(&w->engine, i), 0);
	for (i = 0; i < NR_MMS * NR_CHUNKS; i++)
		free(w->chunks[i].slots);
	free(w->engine.shards);
	free(w);
}

/* Choosing */

const struct ksm_key *world_key(struct world *w)
{
	return &w->keys[rnd_below(NR_KEYS)];
}

/* Any slot; few of them are used much, among them the first and the last. */
int world_slot(struct world *w)
{
	int chunk = rnd_below(NR_MMS * NR_CHUNKS), slot = rnd_below(24) - 12;

	return chunk * PTRS_PER_PTE + (slot + PTRS_PER_PTE) % PTRS_PER_PTE;
}

/* The slot of an item that is in @state, or -1. */
int world_slot_in(struct world *w, enum ksm_item_state state)
{
	int i, s = rnd_below(NR_SLOTS);

	for (i = 0; i < NR_SLOTS; i++, s = (s + 1) % NR_SLOTS)
		if (w->slots[s].kind == ITEM && w->slots[s].state == state)
			return s;
	return -1;
}

/* A node that is linked, or -1. */
int world_node(struct world *w)
{
	int i, n = rnd_below(NR_NODES);

	for (i = 0; i < NR_NODES; i++, n = (n + 1) % NR_NODES)
		if (w->nodes[n].where == LINKED)
			return n;
	return -1;
}

struct ksm_history world_history(void)
{
	return (struct ksm_history) {
		.age = rnd_below(16),
		.skips = rnd_below(16),
		.calm = rnd_below(4),
		.cows = rnd_below(4),
	};
}

unsigned int world_sharers(const struct world *w, int n)
{
	int s, nr = 0;

	for (s = 0; s < NR_SLOTS; s++)
		nr += w->slots[s].kind == ITEM &&
		      w->slots[s].state == KSM_ITEM_STABLE && w->slots[s].node == n;
	return nr;
}

int world_linked(const struct world *w, const struct ksm_key *key)
{
	int n, nr = 0;

	for (n = 0; n < NR_NODES; n++)
		nr += w->nodes[n].where == LINKED && same_key(&w->nodes[n].key, key);
	return nr;
}

static int waiting(const struct world *w, const struct ksm_key *key)
{
	int s;

	for (s = 0; s < NR_SLOTS; s++)
		if (w->slots[s].kind == ITEM && w->slots[s].state == KSM_ITEM_UNSTABLE &&
		    same_key(&w->slots[s].key, key))
			return s;
	return -1;
}

/* The engine's side */

static struct ksm_chunk *slot_chunk(struct world *w, int s)
{
	return &w->chunks[s / PTRS_PER_PTE];
}

u64 *world_slot_ptr(struct world *w, int s)
{
	return &slot_chunk(w, s)->slots[s % PTRS_PER_PTE];
}

struct ksm_mm *world_slot_mm(struct world *w, int s)
{
	return &w->kmms[s / PTRS_PER_PTE / NR_CHUNKS];
}

struct ksm_rmap_item *world_item(struct world *w, int s)
{
	return ksm_slot_item(*world_slot_ptr(w, s));
}

struct ksm_shard *world_shard(struct world *w, const struct ksm_key *key)
{
	return &w->engine.shards[key->hash >> (64 - SHARD_BITS)];
}

static int find_item(struct world *w, const struct ksm_rmap_item *item)
{
	int s;

	for (s = 0; s < NR_SLOTS; s++)
		if (w->slots[s].kind == ITEM && world_item(w, s) == item)
			return s;
	test_fail(__FILE__, __LINE__, "an item that is in no slot");
}

static int find_node(struct world *w, const struct ksm_stable_node *node)
{
	int n;

	for (n = 0; n < NR_NODES; n++)
		if (w->nodes[n].where != NONE && w->nodes[n].node == node)
			return n;
	test_fail(__FILE__, __LINE__, "a node that there is not");
}

/* Slots and items */

void world_sight(struct world *w, int s, u64 hash, struct ksm_history history)
{
	ksm_slot_sight(world_slot_mm(w, s), slot_chunk(w, s), world_slot_ptr(w, s),
		       hash, &history);
	w->slots[s] = (struct model_slot) {
		.kind = SIGHTING, .hash = hash & HASH_48, .history = history,
	};
}

void world_set_history(struct world *w, int s, struct ksm_history history)
{
	struct model_slot *slot = &w->slots[s];

	ksm_slot_set_history(world_slot_ptr(w, s), &history);
	if (slot->kind == ITEM)
		history.calm = 3;	/* not kept */
	slot->history = history;
}

/* Returns false if there was no memory for it. */
bool world_to_item(struct world *w, int s)
{
	enum ksm_charge_how how = one_in(2) ? KSM_CHARGE_TRY : KSM_CHARGE_FORCE;
	struct model_slot *slot = &w->slots[s];
	struct ksm_rmap_item *item;

	item = ksm_slot_to_item(world_slot_mm(w, s), slot_chunk(w, s),
				world_slot_ptr(w, s),
				slot_chunk(w, s)->base + s % PTRS_PER_PTE * PAGE_SIZE,
				how);
	if (slot->kind == ITEM) {
		CHECK(item == world_item(w, s));
		return true;
	}
	CHECK(!item == (ksm_fake_no_memory ||
			(ksm_fake_no_charge && how == KSM_CHARGE_TRY)));
	if (!item)
		return false;
	CHECK(item == world_item(w, s));
	slot->kind = ITEM;
	slot->state = KSM_ITEM_IDLE;
	slot->history.calm = 3;
	return true;
}

void world_clear(struct world *w, int s)
{
	ksm_slot_clear(world_slot_mm(w, s), slot_chunk(w, s), world_slot_ptr(w, s));
	w->slots[s] = (struct model_slot) { .kind = EMPTY };
}

/* The unstable tree */

/* Returns whether @s waits now: not if another does already. */
bool world_park(struct world *w, int s, const struct ksm_key *key)
{
	struct ksm_shard *shard = world_shard(w, key);
	bool expect = waiting(w, key) < 0;

	spin_lock(&shard->lock);
	CHECK_EQ(ksm_unstable_insert(&w->engine, shard, world_item(w, s), key), expect);
	spin_unlock(&shard->lock);
	if (expect) {
		w->slots[s].state = KSM_ITEM_UNSTABLE;
		w->slots[s].key = *key;
	}
	return expect;
}

void world_erase(struct world *w, int s)
{
	struct model_slot *slot = &w->slots[s];
	struct ksm_shard *shard = slot->state == KSM_ITEM_UNSTABLE ?
				  world_shard(w, &slot->key) : &w->engine.shards[0];

	spin_lock(&shard->lock);
	ksm_unstable_erase(&w->engine, shard, world_item(w, s));
	spin_unlock(&shard->lock);
	if (slot->state == KSM_ITEM_UNSTABLE)
		slot->state = KSM_ITEM_IDLE;
}

/* Returns the slot of the claimed item, or -1. */
int world_claim(struct world *w, const struct ksm_key *key)
{
	struct ksm_shard *shard = world_shard(w, key);
	struct ksm_rmap_item *item;
	int s = waiting(w, key);

	spin_lock(&shard->lock);
	CHECK(ksm_unstable_find(shard, key) == (s < 0 ? NULL : world_item(w, s)));
	item = ksm_unstable_claim(&w->engine, shard, key);
	spin_unlock(&shard->lock);
	if (s < 0) {
		CHECK(!item);
		return -1;
	}
	CHECK_EQ(find_item(w, item), s);
	w->slots[s].state = KSM_ITEM_CLAIMED;
	return s;
}

/* @s is CLAIMED, or was attached since and is STABLE. */
void world_release(struct world *w, int s)
{
	struct model_slot *slot = &w->slots[s];
	struct ksm_shard *shard = world_shard(w, &slot->key);
	atomic_t *claims = &world_slot_mm(w, s)->claims;
	int left = atomic_read(claims) - 1;

	ksm_fake_woken = NULL;
	spin_lock(&shard->lock);
	ksm_item_release(shard, world_item(w, s));
	spin_unlock(&shard->lock);
	CHECK_EQ(atomic_read(claims), left);
	CHECK(ksm_fake_woken == (left ? NULL : claims));
	if (slot->state == KSM_ITEM_CLAIMED)
		slot->state = KSM_ITEM_IDLE;
}

/* Sharers */

void world_attach(struct world *w, int s, int n)
{
	struct model_slot *slot = &w->slots[s];
	struct ksm_shard *shard = world_shard(w, &w->nodes[n].key);

	slot->state = KSM_ITEM_STABLE;
	slot->node = n;
	slot->anon_vma = rnd_below(NR_ANON_VMAS);
	slot->index = rnd_extreme();
	w->anon_vmas[slot->anon_vma].refs++;

	spin_lock(&shard->lock);
	ksm_item_attach(&w->engine, world_item(w, s), w->nodes[n].node,
			&w->anon_vmas[slot->anon_vma], slot->index);
	spin_unlock(&shard->lock);
}

/* As chunk.c does: the node is @s's, and may lose its folio with its last sharer. */
void world_detach(struct world *w, int s, bool lose_folio)
{
	struct model_slot *slot = &w->slots[s];
	struct model_node *node = &w->nodes[slot->node];
	struct ksm_shard *shard = world_shard(w, &node->key);
	struct anon_vma *anon_vma;

	spin_lock(&shard->lock);
	anon_vma = ksm_item_detach(&w->engine, world_item(w, s));
	ksm_chain_has_room(node->node);
	spin_unlock(&shard->lock);
	CHECK(anon_vma == &w->anon_vmas[slot->anon_vma]);
	put_anon_vma(anon_vma);
	slot->state = KSM_ITEM_IDLE;

	if (world_sharers(w, slot->node) || node->where != LINKED)
		return;
	if (!lose_folio && !node->stale) {
		ksm_node_orphan(&w->engine, node->node);
		return;
	}
	world_unlink(w, slot->node);
	if (!node->stale)
		world_free_folio(w, slot->node);
}

/* The stable tree */

/* Allocates the spare chain, where that may fail. */
void world_refill(struct world *w)
{
	if (w->spare)
		return;
	w->spare = ksm_chain_alloc(GFP_KERNEL);
	CHECK(!w->spare == ksm_fake_no_memory);
}

/* Every node that was unlinked because it is stale is on the list of dead. */
static void note_dead(struct world *w)
{
	struct ksm_stable_node *node;
	int n;

	list_for_each_entry(node, &w->dead, link) {
		n = find_node(w, node);
		CHECK(w->nodes[n].where == DEAD || w->nodes[n].stale);
		w->nodes[n].where = DEAD;
	}
}

/*
 * A new folio, and its node into the tree. Returns the node's number; or -1 if
 * there was no memory, or no chain, for it.
 */
int world_insert(struct world *w, const struct ksm_key *key)
{
	struct ksm_shard *shard = world_shard(w, key);
	struct ksm_stable_chain *spare = w->spare;
	struct ksm_stable_node *node;
	int n, linked = world_linked(w, key);
	unsigned long pfn;
	bool inserted;

	for (n = 0; n < NR_NODES && w->nodes[n].where != NONE; n++)
		;
	if (n == NR_NODES)
		return -1;
	pfn = ksm_fake_folio_alloc(key->nid);
	node = ksm_node_alloc(&w->engine.domains.global, key, pfn);
	CHECK_EQ(!node, ksm_fake_no_memory);
	if (!node) {
		ksm_fake_folio_free(pfn);
		return -1;
	}
	spin_lock(&shard->lock);
	inserted = ksm_stable_insert(&w->engine, shard, node, &w->spare);
	spin_unlock(&shard->lock);

	/* The second node of a content is the one that takes a chain. */
	CHECK_EQ(inserted, linked != 1 || spare);
	CHECK(w->spare == (linked == 1 ? NULL : spare));
	CHECK_EQ(node->linked, inserted);
	if (!inserted) {
		ksm_fake_folio_free(pfn);
		ksm_node_free(&w->engine, node);
		return -1;
	}
	ksm_node_bind(ksm_fake_folio(pfn), node);
	w->nodes[n] = (struct model_node) {
		.where = LINKED, .node = node, .key = *key,
	};
	return n;
}

/* Returns the node with room for one more sharer, or -1. */
int world_pick(struct world *w, const struct ksm_key *key)
{
	struct ksm_shard *shard = world_shard(w, key);
	struct ksm_stable_node *node = NULL;
	struct folio *folio;
	bool expect = false;
	int n;

	for (n = 0; n < NR_NODES; n++)
		if (w->nodes[n].where == LINKED && !w->nodes[n].stale &&
		    same_key(&w->nodes[n].key, key) &&
		    world_sharers(w, n) < w->engine.knobs.max_page_sharing)
			expect = true;
	spin_lock(&shard->lock);
	folio = ksm_stable_pick(&w->engine, shard, key, &node, &w->dead);
	spin_unlock(&shard->lock);
	note_dead(w);
	CHECK_EQ(!!folio, expect);
	if (!folio)
		return -1;

	n = find_node(w, node);
	CHECK(w->nodes[n].where == LINKED && !w->nodes[n].stale);
	CHECK(same_key(&w->nodes[n].key, key));
	CHECK(world_sharers(w, n) < w->engine.knobs.max_page_sharing);
	CHECK(folio == ksm_fake_folio(node->pfn));
	CHECK_EQ(ksm_fake_folio_refs(), 1);
	folio_put(folio);
	return n;
}

void world_unlink(struct world *w, int n)
{
	struct model_node *node = &w->nodes[n];
	struct ksm_shard *shard = world_shard(w, &node->key);

	spin_lock(&shard->lock);
	ksm_stable_unlink(&w->engine, shard, node->node, &w->dead);
	spin_unlock(&shard->lock);
	node->where = DEAD;
}

void world_free_folio(struct world *w, int n)
{
	ksm_fake_folio_free(w->nodes[n].node->pfn);
	w->nodes[n].stale = true;
}

/* The folio moves; its node gets the key of the new place if there is a spare. */
void world_migrate(struct world *w, int n, int nid)
{
	struct model_node *node = &w->nodes[n];
	struct ksm_shard *shard = world_shard(w, &node->key);

	ksm_fake_folio_migrate(node->node, nid);
	CHECK_EQ(ksm_fake_folio(node->node->pfn)->nid, nid);
	if (w->spare && node->where == LINKED)
		node->key.nid = nid;
	spin_lock(&shard->lock);
	ksm_stable_rekey(&w->engine, shard, node->node, nid, &w->spare);
	spin_unlock(&shard->lock);
}

void world_reap(struct world *w)
{
	int n, s;

	for (n = 0; n < NR_NODES; n++) {
		if (w->nodes[n].where != DEAD)
			continue;
		for (s = 0; s < NR_SLOTS; s++)
			if (w->slots[s].kind == ITEM &&
			    w->slots[s].state == KSM_ITEM_STABLE &&
			    w->slots[s].node == n)
				w->slots[s].state = KSM_ITEM_IDLE;
		w->nodes[n].where = NONE;
	}
	ksm_stable_reap(&w->engine, &w->dead);
	CHECK(list_empty(&w->dead));
}

/* Checking */

struct count {
	long stat[KSM_NR_STATS];
	long refs[NR_ANON_VMAS];
	long nodes;
};

/* Parents, children and the order of a tree; returns how many there are. */
static int check_links(const struct rb_node *rb, const struct rb_node *parent)
{
	if (!rb)
		return 0;
	CHECK(rb_parent(rb) == parent);
	return 1 + check_links(rb->rb_left, rb) + check_links(rb->rb_right, rb);
}

static void check_list(const struct list_head *head)
{
	const struct list_head *pos = head;

	do {
		CHECK(pos->next->prev == pos);
		pos = pos->next;
	} while (pos != head);
}

static void check_slot(struct world *w, int s, struct count *count)
{
	const struct model_slot *slot = &w->slots[s];
	u64 value = *world_slot_ptr(w, s);
	struct ksm_rmap_item *item = ksm_slot_item(value);
	struct ksm_history history = ksm_slot_history(value);
	bool matches = false;

	CHECK_EQ(!!value, slot->kind != EMPTY);
	CHECK_EQ(ksm_slot_is_sighting(value), slot->kind == SIGHTING);
	CHECK_EQ(!!item, slot->kind == ITEM);
	if (slot->kind == EMPTY) {
		CHECK(!history.age && !history.skips && !history.calm && !history.cows);
		CHECK(!ksm_slot_matches(value, 0));
		return;
	}
	CHECK_EQ(history.age, slot->history.age);
	CHECK_EQ(history.skips, slot->history.skips);
	CHECK_EQ(history.calm, slot->history.calm);
	CHECK_EQ(history.cows, slot->history.cows);
	count->stat[KSM_STAT_TRACKED]++;
	if (slot->kind == SIGHTING) {
		CHECK(ksm_slot_matches(value, slot->hash));
		CHECK(ksm_slot_matches(value, slot->hash ^ (1ULL << rnd_below(16))));
		CHECK(!ksm_slot_matches(value, slot->hash ^ (1ULL << (16 + rnd_below(48)))));
		return;
	}

	count->stat[KSM_STAT_ITEMS]++;
	count->stat[KSM_STAT_BYTES] += sizeof(*item);
	CHECK(item->owner == world_slot_mm(w, s));
	CHECK_EQ(ksm_item_addr(item),
		 slot_chunk(w, s)->base + s % PTRS_PER_PTE * PAGE_SIZE);
	CHECK_EQ(ksm_item_state(item), slot->state);
	switch (slot->state) {
	case KSM_ITEM_UNSTABLE:
		matches = true;
		count->stat[KSM_STAT_UNSHARED]++;
		fallthrough;
	case KSM_ITEM_CLAIMED:
		CHECK(same_key(&item->unstable.key, &slot->key));
		break;
	case KSM_ITEM_STABLE:
		count->refs[slot->anon_vma]++;
		CHECK(item->stable.node == w->nodes[slot->node].node);
		CHECK(item->stable.anon_vma == &w->anon_vmas[slot->anon_vma]);
		CHECK_EQ(item->stable.index, slot->index);
		break;
	case KSM_ITEM_IDLE:
		break;
	}
	CHECK_EQ(ksm_slot_matches(value, slot->key.hash), matches);
	CHECK(!ksm_slot_matches(value, slot->key.hash ^ (1ULL << rnd_below(64))));
}

/* What mms and chunks know of their slots. */
static void check_mms(struct world *w)
{
	int i, s;

	for (i = 0; i < NR_MMS * NR_CHUNKS; i++) {
		unsigned int used = 0;

		for (s = i * PTRS_PER_PTE; s < (i + 1) * PTRS_PER_PTE; s++)
			used += w->slots[s].kind != EMPTY;
		CHECK_EQ(w->chunks[i].nr, used);
	}
	for (i = 0; i < NR_MMS; i++) {
		long used = 0, items = 0, merged = 0, claims = 0;

		for (s = 0; s < NR_SLOTS; s++) {
			const struct model_slot *slot = &w->slots[s];

			if (world_slot_mm(w, s) != &w->kmms[i])
				continue;
			used += slot->kind != EMPTY;
			if (slot->kind != ITEM)
				continue;
			items++;
			merged += slot->state == KSM_ITEM_STABLE;
			claims += slot->state == KSM_ITEM_CLAIMED;
		}
		CHECK_EQ(w->mms[i].ksm_rmap_items, used);
		CHECK_EQ(w->mms[i].ksm_merging_pages, merged);
		CHECK_EQ(atomic_long_read(&w->kmms[i].nr_items), items);
		CHECK_EQ(atomic_long_read(&w->kmms[i].bytes),
			 items * (long)sizeof(struct ksm_rmap_item));
		CHECK_EQ(atomic_read(&w->kmms[i].claims), claims);
	}
}

static void check_node(struct world *w, int n, struct count *count)
{
	struct ksm_stable_node *node = w->nodes[n].node;
	struct ksm_rmap_item *item;
	int nr = 0;

	hlist_for_each_entry(item, &node->items, stable.link) {
		CHECK_EQ(w->slots[find_item(w, item)].node, n);
		nr++;
	}
	CHECK_EQ(nr, world_sharers(w, n));
	CHECK_EQ(node->entry.nr, nr);
	CHECK(!node->entry.is_chain);
	CHECK(same_key(&node->entry.key, &w->nodes[n].key));
	CHECK_EQ(node->linked, w->nodes[n].where == LINKED);
	if (!node->linked)
		CHECK(!node->chain);
	CHECK_EQ(ksm_fake_folio(node->pfn)->node == node, !w->nodes[n].stale);
	check_list(&node->orphan);
	count->nodes++;
	if (nr) {
		count->stat[KSM_STAT_SHARED]++;
		count->stat[KSM_STAT_SHARING] += nr - 1;
	}
}

static int check_dups(struct world *w, struct ksm_stable_chain *chain,
		      struct list_head *head)
{
	struct ksm_stable_node *node;
	int n, nr = 0;

	check_list(head);
	list_for_each_entry(node, head, link) {
		n = find_node(w, node);
		CHECK(w->nodes[n].where == LINKED);
		CHECK(node->chain == chain);
		CHECK(same_key(&w->nodes[n].key, &chain->entry.key));
		if (head == &chain->full)
			CHECK(node->entry.nr >= w->engine.knobs.max_page_sharing);
		nr++;
	}
	return nr;
}

/* Returns how many nodes an entry of the stable tree stands for. */
static int check_entry(struct world *w, struct ksm_stable_entry *entry,
		       struct count *count)
{
	struct ksm_stable_chain *chain;
	int nr;

	if (!entry->is_chain) {
		struct ksm_stable_node *node =
			container_of(entry, struct ksm_stable_node, entry);

		CHECK(w->nodes[find_node(w, node)].where == LINKED);
		CHECK(!node->chain);
		return 1;
	}
	chain = container_of(entry, struct ksm_stable_chain, entry);
	nr = check_dups(w, chain, &chain->roomy) + check_dups(w, chain, &chain->full);
	CHECK(nr >= 2);
	CHECK_EQ(entry->nr, nr);
	count->stat[KSM_STAT_CHAINS]++;
	count->stat[KSM_STAT_DUPS] += nr;
	return nr;
}

static void check_stable(struct world *w, struct ksm_shard *shard, struct count *count)
{
	struct ksm_stable_entry *entry, *last = NULL;
	struct rb_node *rb;
	int nr = 0;

	for (rb = rb_first(&shard->stable); rb; rb = rb_next(rb)) {
		entry = rb_entry(rb, struct ksm_stable_entry, rb);
		CHECK(world_shard(w, &entry->key) == shard);
		CHECK(!last || key_below(&last->key, &entry->key));
		CHECK_EQ(check_entry(w, entry, count), world_linked(w, &entry->key));
		last = entry;
		nr++;
	}
	CHECK_EQ(check_links(shard->stable.rb_node, NULL), nr);
}

static void check_unstable(struct world *w, struct ksm_shard *shard)
{
	struct ksm_rmap_item *item, *last = NULL;
	struct rb_node *rb;
	int s, nr = 0;

	for (rb = rb_first(&shard->unstable); rb; rb = rb_next(rb)) {
		item = rb_entry(rb, struct ksm_rmap_item, unstable.rb);
		s = find_item(w, item);
		CHECK_EQ(w->slots[s].state, KSM_ITEM_UNSTABLE);
		CHECK(world_shard(w, &w->slots[s].key) == shard);
		CHECK(!last || key_below(&last->unstable.key, &item->unstable.key));
		last = item;
		nr++;
	}
	CHECK_EQ(check_links(shard->unstable.rb_node, NULL), nr);

	/* And nobody who should be there is missing. */
	for (s = 0; s < NR_SLOTS; s++)
		nr -= w->slots[s].kind == ITEM &&
		      w->slots[s].state == KSM_ITEM_UNSTABLE &&
		      world_shard(w, &w->slots[s].key) == shard;
	CHECK_EQ(nr, 0);
}

/* Compare everything with the model, and count everything anew. */
void world_check(struct world *w)
{
	struct count count = { };
	int i;

	CHECK_EQ(ksm_fake_locks_held, 0);
	for (i = 0; i < NR_SLOTS; i++)
		check_slot(w, i, &count);
	check_mms(w);
	for (i = 0; i < NR_NODES; i++)
		if (w->nodes[i].where != NONE)
			check_node(w, i, &count);
	for (i = 0; i < NR_SHARDS; i++) {
		CHECK(!w->engine.shards[i].lock.held);
		check_stable(w, &w->engine.shards[i], &count);
		check_unstable(w, &w->engine.shards[i]);
	}
	/* All that are linked were met: each has its key's entry, which counts them. */
	for (i = 0; i < NR_NODES; i++) {
		struct model_node *node = &w->nodes[i];

		if (node->where != LINKED)
			continue;
		spin_lock(&world_shard(w, &node->key)->lock);
		CHECK(ksm_stable_find(world_shard(w, &node->key), &node->key));
		spin_unlock(&world_shard(w, &node->key)->lock);
	}
	check_list(&w->dead);
	check_list(&w->engine.orphans);

	for (i = 0; i < KSM_NR_STATS; i++)
		if (ksm_stat_read(&w->engine, i) != count.stat[i])
			test_fail(__FILE__, __LINE__, "counter %d is %ld, counted %ld",
				  i, ksm_stat_read(&w->engine, i), count.stat[i]);
	CHECK_EQ(atomic_long_read(&w->engine.domains.global.shared),
		 count.stat[KSM_STAT_SHARED]);
	CHECK_EQ(atomic_long_read(&w->engine.domains.global.sharing),
		 count.stat[KSM_STAT_SHARING]);
	CHECK_EQ(w->engine.domains.global.users.refs, (int)count.nodes);
	for (i = 0; i < NR_ANON_VMAS; i++)
		CHECK_EQ(w->anon_vmas[i].refs, count.refs[i]);
	CHECK_EQ(ksm_fake_folio_refs(), 0);
	CHECK_EQ(ksm_fake_kmalloc.nr, count.stat[KSM_STAT_CHAINS] + !!w->spare);
	CHECK_EQ(ksm_fake_cache_find("ksm_rmap_item")->nr, count.stat[KSM_STAT_ITEMS]);
	CHECK_EQ(ksm_fake_cache_find("ksm_stable_node")->nr, count.nodes);
}
