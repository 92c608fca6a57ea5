/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An engine with some mms, and a model of it that is as dumb as can be: arrays,
 * searched from end to end.
 *
 * Each world_*() call does one thing to the engine, in the way that the files above
 * the pure ones do, checks the outcome, and writes into the model what should be so
 * now. world_check() then compares all there is with the model.
 */
#ifndef _KSM_WORLD_H
#define _KSM_WORLD_H

#define NR_MMS		2
#define NR_CHUNKS	2	/* of each mm */
#define NR_SLOTS	(NR_MMS * NR_CHUNKS * PTRS_PER_PTE)
#define NR_NODES	96
#define NR_ANON_VMAS	4
#define NR_KEYS		32

/* A page of an mm. */
struct model_slot {
	enum { EMPTY, SIGHTING, ITEM } kind;
	u64 hash;			/* of a SIGHTING */
	struct ksm_history history;
	enum ksm_item_state state;	/* of an ITEM, and so on: */
	struct ksm_key key;		/* UNSTABLE */
	int node;			/* STABLE */
	int anon_vma;			/* STABLE */
	unsigned long index;		/* STABLE */
};

/* A stable node, and how it is with its folio. */
struct model_node {
	enum { NONE, LINKED, LOOSE, DEAD } where;	/* DEAD: on world.dead */
	struct ksm_stable_node *node;
	struct ksm_key key;
	bool stale;
};

struct world {
	struct ksm_engine engine;
	struct mm_struct mms[NR_MMS];
	struct ksm_mm kmms[NR_MMS];
	struct ksm_chunk chunks[NR_MMS * NR_CHUNKS];
	struct anon_vma anon_vmas[NR_ANON_VMAS];
	struct ksm_stable_chain *spare;
	struct list_head dead;

	struct ksm_key keys[NR_KEYS];		/* to choose from */
	struct model_slot slots[NR_SLOTS];
	struct model_node nodes[NR_NODES];
};

struct world *world_init(unsigned int max_page_sharing);
void world_exit(struct world *w);
void world_check(struct world *w);

/* Choosing */
const struct ksm_key *world_key(struct world *w);
int world_slot(struct world *w);
int world_slot_in(struct world *w, enum ksm_item_state state);
int world_node(struct world *w);
struct ksm_history world_history(void);
unsigned int world_sharers(const struct world *w, int n);
int world_linked(const struct world *w, const struct ksm_key *key);

/* The engine's side of slot @s */
u64 *world_slot_ptr(struct world *w, int s);
struct ksm_mm *world_slot_mm(struct world *w, int s);
struct ksm_rmap_item *world_item(struct world *w, int s);
struct ksm_shard *world_shard(struct world *w, const struct ksm_key *key);

/* Doing */
void world_sight(struct world *w, int s, u64 hash, struct ksm_history history);
void world_set_history(struct world *w, int s, struct ksm_history history);
bool world_to_item(struct world *w, int s);
void world_clear(struct world *w, int s);
bool world_park(struct world *w, int s, const struct ksm_key *key);
void world_erase(struct world *w, int s);
int world_claim(struct world *w, const struct ksm_key *key);
void world_release(struct world *w, int s);
void world_attach(struct world *w, int s, int n);
void world_detach(struct world *w, int s, bool lose_folio);
void world_refill(struct world *w);
int world_insert(struct world *w, const struct ksm_key *key);
int world_pick(struct world *w, const struct ksm_key *key);
void world_unlink(struct world *w, int n);
void world_free_folio(struct world *w, int n);
void world_migrate(struct world *w, int n, int nid);
void world_reap(struct world *w);

#endif /* _KSM_WORLD_H */
