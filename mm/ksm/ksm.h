/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Types and calls of the KSM engine.
 *
 *	ksm_engine -- shards[] -- { lock, stable tree, unstable tree }
 *	    |  knobs, counters, run state, advisor
 *	    `- registry -- ksm_mm, one per registered mm
 *			     `- ksm_chunk, one per page table, and one for
 *				  the pages of a small mm: a slot per page
 *				  slot: nothing | sighting | ksm_rmap_item *
 *
 *	ksm_rmap_item: a mapped page that waits in an unstable tree, or shares
 *	a ksm_stable_node, which stands for one KSM folio. Several folios of
 *	one content hang off a ksm_stable_chain.
 *
 * Lock order, outer to inner:
 *
 *	engine->mutex
 *	  mmap_lock or VMA lock		never two of them
 *	    folio lock			of pages that are to be merged: tried only
 *	      anon_vma
 *	        page table lock
 *	          shard->lock		leaf, never held over a sleep
 *	registry->lock			leaf
 *	engine->orphan_lock		leaf
 *	engine->frames_lock		leaf
 *	domains->by_id.xa_lock		leaf
 *
 * The engine mutex is what makes one worker of many for now. Everything below it
 * is written to stand without it: trees and states are changed under the shard
 * lock, a node's list of sharers under the folio lock too, and an item that
 * belongs to somebody else's mm is claimed before it is worked on.
 */
#ifndef _MM_KSM_KSM_H
#define _MM_KSM_KSM_H

struct ksm_engine;
struct ksm_frame_pool;
struct ksm_stable_chain;

/* Bits of engine->run; the first three are what sysfs "run" takes. */
#define KSM_RUN_STOP		0UL
#define KSM_RUN_MERGE		1UL
#define KSM_RUN_UNMERGE		2UL
#define KSM_RUN_OFFLINE		4UL
#define KSM_RUN_OFFLINE_BIT	2

/*
 * Passes that all pages are read in, after the meaning of keys has changed: what is
 * left of the one that is under way, and a full one.
 */
#define KSM_REKEY_PASSES	2UL

#define KSM_DEFAULT_PAGES_TO_SCAN	100

/* Pages that are collected at a time: all those under one page table, if it can be. */
#define KSM_BATCH_PAGES		512
/* A batch is ended between blocks only, where secondary MMUs have to be asked. */
#define KSM_BLOCK_PAGES		64
/* Pages that are merged at a time: for so long nobody gets at their page table. */
#define KSM_MERGE_PAGES		32

enum ksm_stat {
	KSM_STAT_SCANNED,	/* pages looked at */
	KSM_STAT_SKIPPED,	/* pages that smart scan passed over */
	KSM_STAT_TRACKED,	/* slots in use */
	KSM_STAT_SHARED,	/* stable nodes with at least one sharer */
	KSM_STAT_SHARING,	/* sharers beyond the first of each node */
	KSM_STAT_UNSHARED,	/* items in the unstable trees */
	KSM_STAT_CHAINS,
	KSM_STAT_DUPS,		/* nodes that hang off a chain */
	KSM_STAT_ITEMS,		/* rmap items allocated */
	KSM_STAT_CHUNKS,	/* chunks allocated */
	KSM_STAT_BYTES,		/* memory in chunks, slots and rmap items */
	KSM_NR_STATS
};

struct ksm_stats {
	atomic_long_t count[KSM_NR_STATS];
};

/**
 * struct ksm_key - what the trees are sorted by
 * @hash: seeded hash of the page's content, in the bits of KSM_HASH_MASK
 * @domain: number of the merge domain; only pages of one domain are merged
 * @nid: NUMA node of the page, or 0 when nodes may share
 * @frame: low bits of the number of the frame that was hashed. Not a part of the key,
 *	   but here is room for it
 */
struct ksm_key {
	u64 hash;
	u32 domain;
	u16 nid;
	u16 frame;
};

/* As much of a hash as a sighting has room for: a page in it need not be read again. */
#define KSM_HASH_MASK	GENMASK_ULL(63, 16)

struct ksm_shard {
	spinlock_t lock;		/* of both trees, and of all in them */
	struct rb_root stable;		/* of ksm_stable_entry */
	struct rb_root unstable;	/* of ksm_rmap_item */
};

/* By what the administrator has mms put into domains; see identity.c. */
enum ksm_policy {
	KSM_POLICY_GLOBAL,	/* everybody is in one */
	KSM_POLICY_USER,
	KSM_POLICY_MEMCG,
	KSM_POLICY_PROCESS,
};

/**
 * struct ksm_identity - what the mms of a domain have in common
 * @who: namespace of the user, memory cgroup, or serial number of the mm; else 0
 * @cookie: the processes' own wish, see cookie.c
 * @caps: capabilities that the user's process has or may take; else 0
 * @uid: of the user; else 0
 * @gid: of the user's group; else 0
 * @policy: enum ksm_policy, what @who is of; as wide as it is so that there is no padding,
 *	    for all bytes are hashed
 */
struct ksm_identity {
	u64 who;
	u64 cookie;
	u64 caps;
	u32 uid;
	u32 gid;
	u64 policy;
};

static_assert(sizeof(struct ksm_identity) == 5 * sizeof(u64));

/**
 * struct ksm_domain - mms that may share with each other
 * @identity: what they have in common
 * @link: in domains->by_identity
 * @users: mms and stable nodes
 * @id: the number, for keys
 * @shared: stable nodes with at least one sharer
 * @sharing: sharers beyond the first of each node
 */
struct ksm_domain {
	struct ksm_identity identity;
	struct hlist_node link;
	refcount_t users;
	u32 id;
	atomic_long_t shared;
	atomic_long_t sharing;
};

/**
 * struct ksm_domains - all domains of an engine
 * @global: that of everybody, number 0
 * @by_id: the others, by their numbers; its lock, a leaf, is that of all here
 * @by_identity: the same
 */
struct ksm_domains {
	struct ksm_domain global;
	struct xarray by_id;
	DECLARE_HASHTABLE(by_identity, 8);
};

/**
 * struct ksm_stable_entry - what the stable tree links: a node or a chain
 * @rb: link in shard->stable; free for other use while a node is on a chain
 * @key: place in the tree; of equal key there is one entry only
 * @nr: sharers of a node, dups of a chain
 * @is_chain: which of the two it is
 */
struct ksm_stable_entry {
	struct rb_node rb;
	struct ksm_key key;
	unsigned int nr;
	bool is_chain;
};

/**
 * struct ksm_stable_node - one KSM folio
 * @entry: link and key
 * @link: on the chain's list of dups, or on a list of dead nodes to be reaped
 * @orphan: on engine->orphans while a folio without known sharers may still live, or
 *	    there are @heirs
 * @chain: the chain that this node hangs off, or NULL
 * @domain: merge domain of the sharers, with a reference
 * @pfn: where the folio is, without a reference to it; see node.c
 * @items: the sharers, for the reverse map
 * @heirs: items that sharers have left behind, for the reverse map too; see heir.c
 * @nr_heirs: their number
 * @linked: in the stable tree, by itself or through @chain
 */
struct ksm_stable_node {
	struct ksm_stable_entry entry;
	struct list_head link;
	struct list_head orphan;
	struct ksm_stable_chain *chain;
	struct ksm_domain *domain;
	unsigned long pfn;
	struct hlist_head items;
	struct hlist_head heirs;
	unsigned int nr_heirs;
	bool linked;
};

/**
 * struct ksm_stable_chain - folios of one content, when one is not enough
 * @entry: link and key
 * @roomy: nodes that have, or lately had, room for another sharer
 * @full: nodes that have none
 * @pruned: when the dups were last checked for stale ones, in jiffies
 */
struct ksm_stable_chain {
	struct ksm_stable_entry entry;
	struct list_head roomy;
	struct list_head full;
	unsigned long pruned;
};

enum ksm_item_state {
	KSM_ITEM_IDLE,		/* in no tree */
	KSM_ITEM_UNSTABLE,	/* waits in an unstable tree for an equal */
	KSM_ITEM_CLAIMED,	/* taken out by a worker that merges it */
	KSM_ITEM_STABLE,	/* shares a stable node */
};

/**
 * struct ksm_history - what is remembered of a page besides its content
 * @age: visits since the page was first seen
 * @skips: passes that smart scan will still pass it over
 * @calm: visits in a row that found its content unchanged
 * @cows: how readily it is un-merged by writes
 *
 * This is the form for calculating with; slots and items hold it in a few bits.
 */
struct ksm_history {
	u8 age;
	u8 skips;
	u8 calm;
	u8 cows;
};

/**
 * struct ksm_heat - how many merges in a region came to nothing lately
 * @cows: pages that were un-merged by writes; halved in each pass
 * @pass: low bits of the pass that @cows is of
 */
struct ksm_heat {
	u8 cows;
	u8 pass;
};

/**
 * struct ksm_epoch - passes, of which no more than some each second are counted
 * @nr: their number
 * @began: when the last one that counts began, in jiffies
 * @counts: the one that is under way does
 */
struct ksm_epoch {
	unsigned long nr;
	unsigned long began;
	bool counts;
};

/**
 * struct ksm_chunk - pages of an mm that are looked after together
 * @base: first address
 * @nr: slots in use
 * @words: length of @slots, while they are a list; no more than there is memory for
 * @room: words that there is memory for in it
 * @hint: where in it the next search begins
 * @heat: how well merging goes here
 * @used: a bit for each block, or several, that secondary MMUs have used, since @era began
 * @used_before: the same, in the era before that in which they were last asked
 * @era: low bits of its number; see young.c
 * @holes: slots have been cleared since they were packed
 * @full: @slots are an array, with a place for each page under a page table
 * @slots: see slots.c for how they are kept, and item.c for what is in one
 */
struct ksm_chunk {
	unsigned long base;
	u16 nr;
	u16 words;
	u16 room;
	u16 hint;
	struct ksm_heat heat;
	u8 used;
	u8 used_before;
	u8 era;
	bool holes:1;
	bool full:1;
	u64 *slots;
};

/**
 * struct ksm_mm - one registered mm
 * @slot: hash and list links, and the mm, on which it holds a mm_count
 * @engine: the engine that it is registered with
 * @chunks: its chunks, by address >> PMD_SHIFT; the worker's own
 * @few: the pages that are in none of them, as long as they are few; so too
 * @nr_chunks: number of @chunks
 * @nr_items: rmap items that belong to this mm
 * @bytes: memory that is spent on remembering its pages
 * @payer: to whom that is charged; NULL if to nobody
 * @refused_until: when it may be asked again, in jiffies, after it has refused
 * @claims: items of this mm that other workers are busy with
 * @domain: merge domain of its pages, with a reference; NULL before the first visit
 * @addr: where the scan goes on in it; the scan's own
 * @spent: what it has had of this pass, in pages; the scan's own
 * @serial: tells it from all others that there ever were
 * @born: when it was registered, in jiffies
 * @tried: pages that were tried so far, see ksm_registry_may_try(); the scan's own
 */
struct ksm_mm {
	struct mm_slot slot;
	struct ksm_engine *engine;
	struct xarray chunks;
	struct ksm_chunk few;
	atomic_long_t nr_chunks;
	atomic_long_t nr_items;
	atomic_long_t bytes;
	struct obj_cgroup *payer;
	unsigned long refused_until;
	atomic_t claims;
	struct ksm_domain *domain;
	unsigned long addr;
	unsigned long spent;
	u64 serial;
	unsigned long born;
	unsigned int tried;
};

/**
 * struct ksm_rmap_item - a page that is in a tree
 * @owner: the mm that it belongs to
 * @payer: of an heir, which belongs to no mm: who pays for it; see charge.c
 * @tagged: its address, with state and history in the bits below PAGE_SHIFT
 * @unstable: while UNSTABLE or CLAIMED
 * @unstable.rb: link in shard->unstable
 * @unstable.key: hash of the content when the item was parked, and so on
 * @stable: while STABLE
 * @stable.node: whose folio it maps
 * @stable.link: on node->items; of an heir, on node->heirs
 * @stable.anon_vma: for the reverse map, with a reference
 * @stable.index: exact index within @stable.anon_vma
 */
struct ksm_rmap_item {
	union {
		struct ksm_mm *owner;
		struct obj_cgroup *payer;
	};
	unsigned long tagged;
	union {
		struct {
			struct rb_node rb;
			struct ksm_key key;
		} unstable;
		struct {
			struct ksm_stable_node *node;
			struct hlist_node link;
			struct anon_vma *anon_vma;
			unsigned long index;
		} stable;
	};
};

static_assert(sizeof(struct ksm_rmap_item) <= 56);

/**
 * struct ksm_young - young bits that were taken from secondary MMUs
 * @chunk: remembers which blocks are in use; NULL if there is none for this page table
 * @pages: the bits, of the pages of a block
 * @end: end of that block, or of what of it is looked at
 */
struct ksm_young {
	struct ksm_chunk *chunk;
	u64 pages;
	unsigned long end;
};

/* What becomes of a charge where the memory cgroup is at its limit. */
enum ksm_charge_how {
	KSM_CHARGE_TRY,		/* it fails: what it is for can wait */
	KSM_CHARGE_FORCE,	/* it exceeds the limit: what is known has to stay right */
};

struct ksm_registry {
	spinlock_t lock;		/* of all below */
	DECLARE_HASHTABLE(hash, 10);
	struct list_head mms;		/* to be scanned in this pass, by their turns */
	struct list_head done;		/* with this pass behind them */
	unsigned int room;		/* mms that may yet join this pass */
	u64 last_serial;
	struct ksm_mm *cursor;		/* first of @mms, being scanned; NULL between passes */
	unsigned int turn;		/* what it has had of its turn, in pages */
};

/**
 * struct ksm_knobs - what an administrator can set
 * @sleep_millisecs: pause between two wake-ups
 * @pages_to_scan: budget of a wake-up
 * @merge_across_nodes: whether pages of different NUMA nodes are merged
 * @merge_domains: enum ksm_policy, who shares with whom
 * @max_page_sharing: sharers that a folio takes
 * @prune_millisecs: time between two looks for stale dups on a chain
 * @use_zero_pages: whether zero pages are merged with the kernel's zero page
 * @zero_pages_only: whether nothing else is looked for than zero pages
 * @fresh_frames: whether a shared page is always in a frame that nobody had before
 * @smart_scan: whether pages that do not merge are looked at less often
 * @advisor_mode: enum ksm_advisor_mode, whether the advisor sets @pages_to_scan
 * @advisor_max_cpu: percent of one CPU that the advisor keeps ksmd under
 * @advisor_min_pages: least pages_to_scan that the advisor sets
 * @advisor_max_pages: greatest
 * @advisor_target_secs: time that the advisor wants a full pass to take
 *
 * Each field is one word and stands for itself. @advisor_mode changes only under the
 * engine mutex. So do @merge_across_nodes, @merge_domains, @max_page_sharing and
 * @zero_pages_only, and those only while no page is merged. The others change at any
 * time. All fields are read at any time, by sysfs at least. So each access is a
 * READ_ONCE() or a WRITE_ONCE().
 */
struct ksm_knobs {
	unsigned int sleep_millisecs;
	unsigned int pages_to_scan;
	unsigned long merge_across_nodes;
	unsigned int merge_domains;
	unsigned int max_page_sharing;
	unsigned int prune_millisecs;
	bool use_zero_pages;
	bool zero_pages_only;
	bool fresh_frames;
	bool smart_scan;
	unsigned int advisor_mode;
	unsigned long advisor_max_cpu;
	unsigned long advisor_min_pages;
	unsigned long advisor_max_pages;
	unsigned long advisor_target_secs;
};

enum ksm_advisor_mode {
	KSM_ADVISOR_NONE,
	KSM_ADVISOR_SCAN_TIME,
};

/* What clocks and counters show at some moment. */
struct ksm_reading {
	u64 now_ns;
	u64 cpu_ns;		/* that ksmd has used */
	unsigned long pages;	/* that it has come past */
};

/**
 * struct ksm_advisor - what the scan-time advisor remembers
 * @watching: it has seen the pass, or some of it
 * @whole: it has seen the pass from its start
 * @first: reading when it began to watch
 * @last: reading when it last advised, or began to watch
 * @asleep_ns: time between the two that ksmd was not running, as it would have been
 *	       at the rate that is in force now
 * @expected_pages: what a full pass is expected to come past
 * @pass_pages: what the last one came past; 0 if none was seen
 * @pass_anon: anonymous pages of the registered mms at its end
 */
struct ksm_advisor {
	bool watching;
	bool whole;
	struct ksm_reading first;
	struct ksm_reading last;
	u64 asleep_ns;
	unsigned long expected_pages;
	unsigned long pass_pages;
	unsigned long pass_anon;
};

/* What the advisor concludes, for its tracepoint. */
struct ksm_advice {
	unsigned long pages_to_scan;
	unsigned long scan_secs;
	unsigned int cpu_percent;
};

enum ksm_candidate_kind {
	KSM_CAND_PLAIN,		/* an anonymous page of the process's own */
	KSM_CAND_KNOWN,		/* such a page, unchanged since it was sighted */
	KSM_CAND_ZERO,		/* its first word is zero, and nothing else is looked for */
	KSM_CAND_SHARED,	/* a KSM page that has no item here, or a moved one */
	KSM_CAND_GONE,		/* nothing to merge here any more */
};

/**
 * struct ksm_candidate - a page that collecting found worth a closer look
 * @addr: where it is mapped
 * @page: with a reference, or NULL if it has to be looked up in its turn
 * @key: of the content of a PLAIN or KNOWN one
 * @kind: what it seemed to be
 */
struct ksm_candidate {
	unsigned long addr;
	struct page *page;
	struct ksm_key key;
	enum ksm_candidate_kind kind;
};

/**
 * struct ksm_merge - one page on its way to being shared
 * @addr: where it is mapped
 * @page: the page, of a small folio, with the only extra reference
 * @kpage: the KSM page to map instead, with a reference; NULL for the zero page
 * @vma: where @addr is, as long as it is held
 * @pte: the PTE that was taken away
 * @taken: it was
 * @told: secondary MMUs are told that it may be
 * @locked: @page's folio is locked
 * @kpage_locked: @kpage's folio was locked for this one; see join.c
 * @err: 0 while all is well; what has failed is left alone
 * @key: of the content
 * @history: of the page
 * @item: the page's, attached to @node; NULL for the zero page
 * @node: @kpage's
 * @founder: if @node is new, the item whose page became @kpage; claimed
 */
struct ksm_merge {
	unsigned long addr;
	struct page *page;
	struct page *kpage;
	struct vm_area_struct *vma;
	pte_t pte;
	bool taken;
	bool told;
	bool locked;
	bool kpage_locked;
	int err;
	struct ksm_key key;
	struct ksm_history history;
	struct ksm_rmap_item *item;
	struct ksm_stable_node *node;
	struct ksm_rmap_item *founder;
};

/**
 * struct ksm_worker - what one scanning thread works with
 * @engine: the engine that it works for
 * @kmm: the mm that the batch is from
 * @chunk: the chunk that the batch is from; NULL where nothing is remembered of pages
 * @spare: a chain, allocated where it may fail, used where it may not
 * @drained: LRU caches of all CPUs were drained in this pass
 * @owed: what was spent of the next page's budget, in units of KSM_COST_*
 * @nr: candidates in @batch
 * @batch: the candidates, in the order of their addresses
 * @nr_merges: pages in @merges
 * @merges: those of the batch that are to be merged next
 */
struct ksm_worker {
	struct ksm_engine *engine;
	struct ksm_mm *kmm;
	struct ksm_chunk *chunk;
	struct ksm_stable_chain *spare;
	bool drained;
	unsigned int owed;
	unsigned int nr;
	struct ksm_candidate batch[KSM_BATCH_PAGES + KSM_BLOCK_PAGES];
	unsigned int nr_merges;
	struct ksm_merge merges[KSM_MERGE_PAGES];
};

/**
 * struct ksm_engine - all state of KSM; one in the kernel, a new one in each test
 * @shards: pairs of trees, picked by the top bits of the hash; NULL until merging is
 *	    switched on for the first time. Changed under @mutex
 * @shard_bits: log2 of their number, at least 1
 * @seed: of the content hash, random at each boot
 * @zero_hash: hash of the zero page under @seed
 * @knobs: settings
 * @stats: counters
 * @registry: the mms, and where the scan is
 * @domains: who of them shares with whom
 * @orphans: nodes without known sharers, or with heirs; under @orphan_lock
 * @nr_orphans: their number
 * @orphan_lock: leaf
 * @mutex: one worker, unmerger or reconfiguration at a time
 * @unmergers: who waits for @mutex to unmerge everything; ksmd is not to keep it then
 * @run: KSM_RUN_*; changed under @mutex, read at any time
 * @seqnr: full passes since the last unmerge; changed under @mutex, read at any time
 * @rekeyed: value of @seqnr when the meaning of keys last changed
 * @epoch: for what is to be done from time to time
 * @advisor: state of the advisor
 * @frames_lock: of the pools and what is in them
 * @pools: frames for pages that become shared, by NUMA node; see frames.c
 * @worker: the one scanning thread's
 * @sleep_wait: ksmd between two batches
 * @idle_wait: ksmd with nothing to do
 */
struct ksm_engine {
	struct ksm_shard *shards;
	unsigned int shard_bits;
	u64 seed;
	u64 zero_hash;
	struct ksm_knobs knobs;
	struct ksm_stats stats;
	struct ksm_registry registry;
	struct ksm_domains domains;
	struct list_head orphans;
	unsigned long nr_orphans;
	spinlock_t orphan_lock;		/* of orphans, and their number */
	struct mutex mutex;		/* of who scans, unmerges or reconfigures */
	atomic_t unmergers;
	unsigned long run;
	unsigned long seqnr;
	unsigned long rekeyed;
	struct ksm_epoch epoch;
	struct ksm_advisor advisor;
	spinlock_t frames_lock;		/* of the pools */
	struct ksm_frame_pool *pools[MAX_NUMNODES];
	struct ksm_worker worker;
	wait_queue_head_t sleep_wait;
	wait_queue_head_t idle_wait;
};

static inline int ksm_key_cmp(const struct ksm_key *a, const struct ksm_key *b)
{
	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	if (a->domain != b->domain)
		return a->domain < b->domain ? -1 : 1;
	return a->nid - b->nid;
}

static inline struct ksm_shard *ksm_shard(struct ksm_engine *engine, u64 hash)
{
	return &engine->shards[hash >> (64 - engine->shard_bits)];
}

static inline unsigned int ksm_nr_shards(const struct ksm_engine *engine)
{
	return engine->shards ? 1U << engine->shard_bits : 0;
}

static inline u64 ksm_hash(struct ksm_engine *engine, const void *page)
{
	return xxh64(page, PAGE_SIZE, engine->seed) & KSM_HASH_MASK;
}

u64 *ksm_slots_find(struct ksm_chunk *chunk, unsigned long addr);

/**
 * ksm_chunk_slot() - the slot of a page
 * @chunk: the chunk that it is in
 * @addr: address of the page
 *
 * Return: the slot; NULL if there is none, which only is if @chunk is not full.
 */
static inline u64 *ksm_chunk_slot(struct ksm_chunk *chunk, unsigned long addr)
{
	if (likely(chunk->full))
		return &chunk->slots[(addr - chunk->base) >> PAGE_SHIFT];
	return ksm_slots_find(chunk, addr);
}

/*
 * What the scan asks of each page; the rest of what is in a slot, and in the low bits
 * of an item's address, is the business of item.c.
 */
#define KSM_SIGHTING		BIT_ULL(0)
#define KSM_SIGHTING_ZEROED	BIT_ULL(13)
#define KSM_SIGHTING_DOUBTED	BIT_ULL(14)
#define KSM_ITEM_STATE		GENMASK(1, 0)

/**
 * ksm_slot_is_sighting() - has the page merely been seen?
 * @slot: content of its slot
 *
 * Return: false also if nothing is known of it.
 */
static inline bool ksm_slot_is_sighting(u64 slot)
{
	return slot & KSM_SIGHTING;
}

/**
 * ksm_slot_is_zeroed() - has the page been merged with the zero page?
 * @slot: content of its slot
 *
 * Return: true if it had been when it was last looked at.
 */
static inline bool ksm_slot_is_zeroed(u64 slot)
{
	return ksm_slot_is_sighting(slot) && (slot & KSM_SIGHTING_ZEROED);
}

/**
 * ksm_slot_item() - the rmap item in a slot
 * @slot: content of the slot
 *
 * Return: the item, or NULL if there is none.
 */
static inline struct ksm_rmap_item *ksm_slot_item(u64 slot)
{
	return ksm_slot_is_sighting(slot) ? NULL : (void *)(unsigned long)slot;
}

/**
 * ksm_item_addr() - the address that an item's page is mapped at
 * @item: the item
 *
 * Return: the address, of the page's first byte.
 */
static inline unsigned long ksm_item_addr(const struct ksm_rmap_item *item)
{
	return item->tagged & PAGE_MASK;
}

/**
 * ksm_item_state() - where an item is
 * @item: the item
 *
 * Return: the state, which may change at any time unless the caller has the lock of
 * its shard, or owns the item and it is IDLE.
 */
static inline enum ksm_item_state ksm_item_state(const struct ksm_rmap_item *item)
{
	return FIELD_GET(KSM_ITEM_STATE, item->tagged);
}

/**
 * ksm_slot_trusts() - does what was read of a page hold as long as its PTE is clean?
 * @slot: content of its slot: a sighting, or an UNSTABLE item
 * @pfn: number of the frame that is mapped at its address now
 *
 * Return: false if it is known to have been written since, or if it was another frame
 * that was read when the item was parked; that is overlooked once in 65536 times.
 */
static inline bool ksm_slot_trusts(u64 slot, unsigned long pfn)
{
	const struct ksm_rmap_item *item = ksm_slot_item(slot);

	return item ? item->unstable.key.frame == (u16)pfn :
		      !(slot & KSM_SIGHTING_DOUBTED);
}

/**
 * ksm_node_load() - how many places of a node are taken
 * @node: the node; the lock of its shard is held, or the value is a hint
 *
 * An heir stands for one mapping at least, and makes a walk of the reverse map as much
 * longer as a sharer does.
 *
 * Return: the number, to be compared with max_page_sharing.
 */
static inline unsigned int ksm_node_load(const struct ksm_stable_node *node)
{
	return node->entry.nr + node->nr_heirs;
}

static inline void ksm_stat_add(struct ksm_engine *engine, enum ksm_stat stat,
				long n)
{
	atomic_long_add(n, &engine->stats.count[stat]);
}

static inline long ksm_stat_read(struct ksm_engine *engine, enum ksm_stat stat)
{
	return atomic_long_read(&engine->stats.count[stat]);
}

/* The engine that the rest of the kernel talks to: mm/ksm.c */
extern struct ksm_engine ksm_engine;

/* engine.c: the life of an engine */
void ksm_engine_init(struct ksm_engine *engine, unsigned long nr_pages);
int ksm_engine_start(struct ksm_engine *engine);
void ksm_engine_destroy(struct ksm_engine *engine);
int ksm_caches_create(void);

/* sysfs.c, hotplug.c, debug.c: the outside */
#ifdef CONFIG_SYSFS
int ksm_sysfs_init(void);
#else
static inline int ksm_sysfs_init(void) { return 0; }
#endif

#ifdef CONFIG_MEMORY_HOTREMOVE
void ksm_hotplug_init(void);
#else
static inline void ksm_hotplug_init(void) { }
#endif

/* daemon.c: ksmd, and who may run */
int ksm_daemon(void *engine);
void ksm_daemon_scan(struct ksm_engine *engine, unsigned int nr_pages);
bool ksm_daemon_has_work(struct ksm_engine *engine);
void ksm_daemon_lock(struct ksm_engine *engine);
void ksm_daemon_unlock(struct ksm_engine *engine);
int ksm_daemon_set_run(struct ksm_engine *engine, unsigned long run);
int ksm_daemon_empty_trees(struct ksm_engine *engine);
int ksm_daemon_forget(struct ksm_engine *engine);
void ksm_daemon_switch_frames(struct ksm_engine *engine);
void ksm_daemon_set_advisor(struct ksm_engine *engine, enum ksm_advisor_mode mode);

/* scan.c: from address space to candidates */
enum ksm_scan_result {
	KSM_SCAN_BATCH,		/* worker->batch is to be matched */
	KSM_SCAN_END,		/* end of this mm */
	KSM_SCAN_GONE,		/* end of this mm, and it is to be forgotten */
};

enum ksm_scan_result ksm_scan_collect(struct ksm_worker *worker, unsigned int *budget);

/* match.c: from candidates to merged pages */
void ksm_match_batch(struct ksm_worker *worker);

/* join.c: pages that have an equal, merged together */
void ksm_join_add(struct ksm_worker *worker, const struct ksm_merge *merge);
void ksm_join_all(struct ksm_worker *worker);
void ksm_join_attach(struct ksm_engine *engine, struct ksm_rmap_item *item,
		     struct ksm_stable_node *node, struct vm_area_struct *vma,
		     bool family);
void ksm_join_sight(struct ksm_worker *worker, unsigned long addr, u64 hash,
		    const struct ksm_history *history);
void ksm_join_detach(struct ksm_engine *engine, struct ksm_rmap_item *item,
		     struct ksm_stable_node *node);
void ksm_join_demote(struct ksm_engine *engine, struct ksm_rmap_item *item,
		     struct ksm_stable_node *node, u64 hash);
void ksm_join_release(struct ksm_engine *engine, struct ksm_rmap_item *item, u64 hash);

/* unmerge.c: everything backwards */
int ksm_unmerge_all(struct ksm_engine *engine);
void ksm_unmerge_forget_all(struct ksm_engine *engine);
int ksm_unmerge_mm(struct ksm_mm *kmm);
int ksm_unmerge_locked(struct mm_struct *mm, bool sparing);
void ksm_unmerge_forget(struct ksm_mm *kmm);
int ksm_unmerge_empty_stable(struct ksm_engine *engine);
void ksm_unmerge_pfn_range(struct ksm_engine *engine, unsigned long start_pfn,
			   unsigned long end_pfn);
void ksm_unmerge_sweep_orphans(struct ksm_engine *engine);

#ifdef CONFIG_KSM_DEBUG
int ksm_validate(struct ksm_engine *engine);
void ksm_validate_batch(struct ksm_engine *engine);
#else
static inline int ksm_validate(struct ksm_engine *engine) { return 0; }
static inline void ksm_validate_batch(struct ksm_engine *engine) { }
#endif

/* frames.c: where pages go that become shared */
#define KSM_FRAMES_MAGIC	0x4b534d46	/* of their file system: "KSMF" */
int ksm_frames_init(void);
struct page *ksm_frames_take(struct ksm_engine *engine, int nid);
void ksm_frames_put(struct ksm_engine *engine, struct page *page);
void ksm_frames_stir(struct ksm_engine *engine, int nid);
void ksm_frames_prepare(struct ksm_engine *engine);
void ksm_frames_drain(struct ksm_engine *engine);

/* draw.c: free frames, by lot */
#define KSM_DRAW_ORDER		5	/* of the blocks that are taken, at most */
#define KSM_DRAW_FRAMES		BIT(KSM_DRAW_ORDER)

unsigned int ksm_draw_frames(int nid, struct page **frames);
bool ksm_draw_redo(struct page *page);

/* merge.c: page table surgery, both ways */
#define KSM_BREAK_LOCKED	BIT(0)	/* mmap_lock is held for writing */
#define KSM_BREAK_SPARING	BIT(1)	/* not if the process might be killed for it */

struct page *ksm_merge_lookup(struct vm_area_struct *vma, unsigned long addr);
int ksm_merge_split(struct page *page);
void ksm_merge_freeze(struct ksm_merge *merges, unsigned int nr);
void ksm_merge_replace(struct ksm_merge *merges, unsigned int nr);
vm_fault_t ksm_merge_unshare(struct vm_area_struct *vma, unsigned long addr);
int ksm_merge_break(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end, unsigned int how);
int ksm_merge_break_page(struct mm_struct *mm, unsigned long addr);

/* chunk.c: the slots of an mm */
struct ksm_chunk *ksm_chunk_find(struct ksm_mm *kmm, unsigned long addr);
struct ksm_chunk *ksm_chunk_get(struct ksm_mm *kmm, const struct ksm_candidate *cands,
				unsigned int nr, enum ksm_charge_how how);
void ksm_chunk_settle(struct ksm_mm *kmm, struct ksm_chunk *chunk);
unsigned long ksm_chunk_next_used(struct ksm_mm *kmm, unsigned long start,
				  unsigned long end);
void ksm_chunk_retire_slot(struct ksm_mm *kmm, struct ksm_chunk *chunk,
			   unsigned long addr);
void ksm_chunk_retire(struct ksm_mm *kmm, unsigned long start,
		      unsigned long end);
void ksm_chunk_retire_waiting(struct ksm_mm *kmm);
void ksm_chunk_untree(struct ksm_engine *engine, struct ksm_rmap_item *item);
void ksm_chunk_tidy(struct ksm_mm *kmm, unsigned long addr, struct ksm_chunk *busy);

/* young.c: what secondary MMUs have used */
unsigned int ksm_young_take(struct ksm_young *young, struct mm_struct *mm, pte_t *pte,
			    unsigned long addr, unsigned long end);
pte_t ksm_young_give(const struct ksm_young *young, struct vm_area_struct *vma,
		     unsigned long addr, pte_t *pte);
bool ksm_young_pass_on_huge(struct vm_area_struct *vma, unsigned long addr, pmd_t *pmd);

/* vma.c: VMAs that are being scanned or merged */
struct vm_area_struct *ksm_vma_lock_next(struct mm_struct *mm, unsigned long addr);
void ksm_vma_unlock(struct vm_area_struct *vma);
bool ksm_vma_is_wanted(struct vm_area_struct *vma);
struct vm_area_struct *ksm_vma_hold(struct mm_struct *mm, unsigned long addr);
void ksm_vma_release(struct vm_area_struct *vma);

#define KSM_VMA_WALK_LOCK	(IS_ENABLED(CONFIG_PER_VMA_LOCK) ? \
				 PGWALK_VMA_RDLOCK_VERIFY : PGWALK_RDLOCK)

/* An mm's page tables: the lowest level's, and a few others. */
#define ksm_mm_page_tables(mm)	(mm_pgtables_bytes(mm) / (PTRS_PER_PTE * sizeof(pte_t)))

/* registry.c: the mms, and where the scan is */
int ksm_registry_add(struct ksm_engine *engine, struct mm_struct *mm);
bool ksm_registry_exit(struct ksm_engine *engine, struct mm_struct *mm);
bool ksm_registry_empty(struct ksm_engine *engine);
struct ksm_mm *ksm_registry_start(struct ksm_engine *engine);
struct ksm_mm *ksm_registry_next(struct ksm_engine *engine);
void ksm_registry_charge(struct ksm_engine *engine, unsigned int pages);
bool ksm_registry_may_try(struct ksm_mm *kmm);
void ksm_registry_reset(struct ksm_engine *engine);
void ksm_registry_remove(struct ksm_engine *engine, struct ksm_mm *kmm);
void ksm_registry_free(struct ksm_mm *kmm);
struct ksm_mm *ksm_registry_lookup(struct ksm_engine *engine, struct mm_struct *mm);
long ksm_registry_metadata(struct ksm_engine *engine, struct mm_struct *mm);
unsigned long ksm_registry_anon_pages(struct ksm_engine *engine);
int ksm_registry_create_cache(void);

/* domain.c: mms that share with each other */
extern const char *const ksm_policy_names[KSM_POLICY_PROCESS + 1];
void ksm_domains_init(struct ksm_domains *domains);
void ksm_domains_destroy(struct ksm_domains *domains);
void ksm_domain_put(struct ksm_engine *engine, struct ksm_domain *domain);
struct ksm_domain *ksm_domain_of(struct ksm_engine *engine,
				 const struct ksm_identity *identity);
bool ksm_identity_equal(const struct ksm_identity *a, const struct ksm_identity *b);

#ifdef CONFIG_DEBUG_FS
void ksm_domains_list(void);
#else
static inline void ksm_domains_list(void) { }
#endif

static inline void ksm_domain_get(struct ksm_domain *domain)
{
	refcount_inc(&domain->users);
}

/**
 * ksm_mm_has_moved() - has a process been given another cookie?
 * @kmm: its mm, a VMA of which is held; it has been visited
 *
 * Cookies are changed with all VMAs locked that can have merged pages. So this is asked,
 * each time that one was locked, before a page is frozen for merging or shared by what
 * was looked up without it.
 *
 * Return: whether pages of its former domain must not be merged any more.
 */
static inline bool ksm_mm_has_moved(const struct ksm_mm *kmm)
{
	return READ_ONCE(kmm->slot.mm->ksm_cookie) != kmm->domain->identity.cookie;
}

/* identity.c: in which domain an mm is */
bool ksm_identity_holds(struct ksm_mm *kmm);
int ksm_identity_update(struct ksm_mm *kmm);

/* cookie.c: a process's own wish */
u64 ksm_cookie_draw(void);
int ksm_cookie_set(struct ksm_engine *engine, struct mm_struct *mm, u64 cookie);

/* heir.c: items that outlive their owners' mappings */
bool ksm_heir_is_left(struct ksm_rmap_item *item, struct folio *folio);
bool ksm_heir_prune(struct ksm_engine *engine, struct ksm_stable_node *node,
		    unsigned long *budget);

/* stable.c: key -> merged folio. Pure */
struct ksm_stable_entry *ksm_stable_find(struct ksm_shard *shard,
					 const struct ksm_key *key);
struct folio *ksm_stable_pick(struct ksm_engine *engine, struct ksm_shard *shard,
			      const struct ksm_key *key,
			      struct ksm_stable_node **nodep,
			      struct list_head *dead);
bool ksm_stable_insert(struct ksm_engine *engine, struct ksm_shard *shard,
		       struct ksm_stable_node *node,
		       struct ksm_stable_chain **spare);
void ksm_stable_unlink(struct ksm_engine *engine, struct ksm_shard *shard,
		       struct ksm_stable_node *node, struct list_head *dead);
void ksm_stable_rekey(struct ksm_engine *engine, struct ksm_shard *shard,
		      struct ksm_stable_node *node, int nid,
		      struct ksm_stable_chain **spare);
void ksm_stable_reap(struct ksm_engine *engine, struct list_head *dead);

/* unstable.c: key -> item that waits for an equal. Pure */
struct ksm_rmap_item *ksm_unstable_find(struct ksm_shard *shard,
					const struct ksm_key *key);
bool ksm_unstable_insert(struct ksm_engine *engine, struct ksm_shard *shard,
			 struct ksm_rmap_item *item, const struct ksm_key *key);
void ksm_unstable_erase(struct ksm_engine *engine, struct ksm_shard *shard,
			struct ksm_rmap_item *item);
struct ksm_rmap_item *ksm_unstable_claim(struct ksm_engine *engine,
					 struct ksm_shard *shard,
					 const struct ksm_key *key);

/* chain.c: several folios of one content. Pure */
struct ksm_stable_chain *ksm_chain_alloc(gfp_t gfp);
void ksm_chain_free(struct ksm_stable_chain *chain);
void ksm_chain_add(struct ksm_engine *engine, struct ksm_stable_chain *chain,
		   struct ksm_stable_node *node);
void ksm_chain_del(struct ksm_engine *engine, struct ksm_stable_node *node);
struct ksm_stable_node *ksm_chain_pick(struct ksm_engine *engine,
				       struct ksm_stable_chain *chain);
void ksm_chain_has_room(struct ksm_stable_node *node);
struct ksm_stable_node *ksm_chain_any(struct ksm_stable_chain *chain);
struct ksm_stable_node *ksm_chain_next_full(struct ksm_stable_chain *chain);
bool ksm_chain_prune_due(struct ksm_engine *engine,
			 struct ksm_stable_chain *chain);

/* item.c: life and state of slots and items. Pure */
struct ksm_history ksm_slot_history(u64 slot);
void ksm_slot_set_history(u64 *slot, const struct ksm_history *history);
bool ksm_slot_matches(u64 slot, u64 hash);
u64 ksm_slot_hash(u64 slot);
void ksm_slot_sight(struct ksm_mm *kmm, struct ksm_chunk *chunk, u64 *slot,
		    u64 hash, const struct ksm_history *history);
void ksm_slot_zeroed(struct ksm_mm *kmm, struct ksm_chunk *chunk, u64 *slot,
		     const struct ksm_history *history);
struct ksm_rmap_item *ksm_slot_to_item(struct ksm_mm *kmm, struct ksm_chunk *chunk,
				       u64 *slot, unsigned long addr,
				       enum ksm_charge_how how);
void ksm_slot_clear(struct ksm_mm *kmm, struct ksm_chunk *chunk, u64 *slot);
void ksm_slot_distrust(u64 *slot, unsigned long pfn);
void ksm_item_park(struct ksm_engine *engine, struct ksm_rmap_item *item,
		   const struct ksm_key *key);
void ksm_item_unpark(struct ksm_engine *engine, struct ksm_rmap_item *item);
void ksm_item_claim(struct ksm_engine *engine, struct ksm_rmap_item *item);
void ksm_item_release(struct ksm_shard *shard, struct ksm_rmap_item *item);
void ksm_item_end_claim(struct ksm_shard *shard, struct ksm_mm *owner);
void ksm_item_attach(struct ksm_engine *engine, struct ksm_rmap_item *item,
		     struct ksm_stable_node *node, struct anon_vma *anon_vma,
		     unsigned long index);
struct anon_vma *ksm_item_detach(struct ksm_engine *engine,
				 struct ksm_rmap_item *item);
struct anon_vma *ksm_slot_to_heir(struct ksm_engine *engine, struct ksm_chunk *chunk,
				  u64 *slot, struct anon_vma *root);
struct anon_vma *ksm_item_drop_heir(struct ksm_engine *engine,
				    struct ksm_rmap_item *item);
int ksm_item_create_cache(void);

/* slots.c: where slots are kept. Pure */
unsigned long ksm_slots_next(struct ksm_chunk *chunk, unsigned long start,
			     unsigned long end);
size_t ksm_slots_bytes(const struct ksm_chunk *chunk);
void ksm_slots_free(struct ksm_mm *kmm, struct ksm_chunk *chunk);
int ksm_slots_open(struct ksm_mm *kmm, struct ksm_chunk *chunk,
		   const struct ksm_candidate *cands, unsigned int nr,
		   enum ksm_charge_how how);
int ksm_slots_fill(struct ksm_mm *kmm, struct ksm_chunk *chunk, enum ksm_charge_how how);
void ksm_slots_squeeze(struct ksm_chunk *chunk);
void ksm_slots_pack(struct ksm_mm *kmm, struct ksm_chunk *chunk);
int ksm_slots_move(struct ksm_mm *kmm, struct ksm_chunk *to, struct ksm_chunk *from,
		   unsigned long start, unsigned long end, enum ksm_charge_how how);

/* node.c: from a node to its folio. Pure but for the folio itself */
struct ksm_stable_node *ksm_node_alloc(struct ksm_domain *domain,
				       const struct ksm_key *key, unsigned long pfn);
void ksm_node_free(struct ksm_engine *engine, struct ksm_stable_node *node);
struct ksm_stable_node *ksm_node_of(const struct folio *folio);
void ksm_node_bind(struct folio *folio, struct ksm_stable_node *node);
void ksm_node_moved(struct ksm_stable_node *node, unsigned long pfn);
struct folio *ksm_node_tryget_folio(const struct ksm_stable_node *node);
struct folio *ksm_node_lock_folio(const struct ksm_stable_node *node);
void ksm_node_orphan(struct ksm_engine *engine, struct ksm_stable_node *node);
int ksm_node_create_cache(void);

/* charge.c: what all that takes, and who pays */
bool ksm_mm_is_owned(struct mm_struct *mm);
bool ksm_charge_has_room(struct mm_struct *mm);
bool ksm_charge_is_refused(const struct ksm_mm *kmm);
int ksm_charge(struct ksm_mm *kmm, size_t bytes, enum ksm_charge_how how);
void ksm_uncharge(struct ksm_mm *kmm, size_t bytes);
struct obj_cgroup *ksm_charge_bequeath(struct ksm_mm *kmm, size_t bytes);
void ksm_charge_release(struct ksm_engine *engine, struct obj_cgroup *payer,
			size_t bytes);

/* policy.c: what to do, as arithmetic. Pure */
bool ksm_policy_skip(struct ksm_history *history);
void ksm_policy_seen(struct ksm_history *history, bool same);
void ksm_policy_unmerged(struct ksm_history *history);
void ksm_policy_still_merged(struct ksm_history *history);
void ksm_policy_heat(struct ksm_heat *heat, unsigned long pass);
void ksm_policy_new_in(struct ksm_history *history, struct ksm_heat *heat,
		       unsigned long pass);
bool ksm_policy_may_merge(const struct ksm_history *history);
bool ksm_policy_may_park(const struct ksm_history *history);
void ksm_policy_begin_pass(struct ksm_epoch *epoch, unsigned long now);
bool ksm_policy_is_turn(const struct ksm_epoch *epoch, unsigned long index,
			unsigned int every);
bool ksm_policy_may_try(unsigned long born, unsigned long now, unsigned int tried);
unsigned int ksm_policy_shard_bits(unsigned long nr_pages);
struct ksm_advice ksm_policy_advise(const struct ksm_knobs *knobs,
				    u64 scan_ns, u64 cpu_ns);
void ksm_policy_watch(struct ksm_advisor *advisor, const struct ksm_reading *now,
		      bool whole);
void ksm_policy_expect(struct ksm_advisor *advisor, unsigned long anon);
bool ksm_policy_is_due(const struct ksm_advisor *advisor,
		       const struct ksm_knobs *knobs, const struct ksm_reading *now);
struct ksm_advice ksm_policy_advise_within(struct ksm_advisor *advisor,
					   const struct ksm_knobs *knobs,
					   const struct ksm_reading *now);
struct ksm_advice ksm_policy_advise_after(struct ksm_advisor *advisor,
					  const struct ksm_knobs *knobs,
					  const struct ksm_reading *now,
					  unsigned long anon);

/* stats.c: figures derived from the counters. Pure */
long ksm_stats_volatile(struct ksm_engine *engine);
long ksm_stats_profit(struct ksm_engine *engine, long zero_pages);

#endif /* _MM_KSM_KSM_H */
