// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where slots are kept: tables that are as large as what is in them.
 *
 * Where most pages under a page table are remembered, their slots are an array, and found
 * by their place in it. Where few are, that would be mostly empty: a page alone under its
 * page table would take 4 KiB. So a table of few slots is a list of words, sorted by
 * address, in one piece of memory:
 *
 *	word	pointer			slot with an item, which knows where it is
 *		address | 2, slot	any other, of two words
 *		0			nothing, since its page was forgotten
 *
 * Then a page with an item takes 64 bytes, its word included, and one that was merely
 * seen 16; no page needs more, but for the chunk that its list is of. In this form slots
 * can be changed, but for one thing: a word with an item has no room for an address. So
 * before pages are matched the table is *opened*: each slot in it has two words, and those
 * that may be needed are there. After that it is *packed*. Pointers to slots are good from
 * the one to the other.
 *
 * Who pays for all that may have no room left. So a list that grows is charged for what it
 * grows by, and for no other is anything charged. A list from which slots have gone is
 * packed where it is; if there is then no memory for a smaller one, it takes what it took.
 * So there are no words without a slot in it for long, that all searches have to pass.
 *
 * Slots are mostly asked for in the order of their addresses. So the search begins at the
 * last that was found.
 *
 * All of this is the worker's own. Pure: no page table is looked at.
 */
#include "ksm_internal.h"
#include "ksm.h"

#define KSM_WORD_PAIR		BIT_ULL(1)
#define KSM_FULL_BYTES		(PTRS_PER_PTE * sizeof(u64))

/* A list has no more slots than that. With a quarter of it, an array is given up. */
#define KSM_SLOTS_MANY		(PTRS_PER_PTE / 2)
#define KSM_SLOTS_FEW		(KSM_SLOTS_MANY / 4)

/*
 * Nor has that of an mm's few pages more than that. It is copied for a batch from any page
 * table, if that has but one page to be looked at.
 */
#define KSM_SLOTS_IN_FEW	64U

static unsigned int ksm_word_width(u64 word)
{
	return word & KSM_WORD_PAIR ? 2 : 1;
}

static unsigned long ksm_word_addr(u64 word)
{
	return word & KSM_WORD_PAIR ? word & PAGE_MASK : ksm_item_addr(ksm_slot_item(word));
}

static u64 *ksm_slots_at(struct ksm_chunk *chunk, unsigned int i)
{
	return &chunk->slots[i + ksm_word_width(chunk->slots[i]) - 1];
}

/* Where to begin: at the last that was found, if it is not behind @addr. */
static unsigned int ksm_slots_hint(struct ksm_chunk *chunk, unsigned long addr)
{
	unsigned int i = chunk->hint;

	return i < chunk->words && chunk->slots[i] &&
	       ksm_word_addr(chunk->slots[i]) <= addr ? i : 0;
}

/* The first word that is not below @addr; chunk->words if there is none. */
static unsigned int ksm_slots_seek(struct ksm_chunk *chunk, unsigned long addr)
{
	unsigned int i = ksm_slots_hint(chunk, addr);

	for (; i < chunk->words; i += ksm_word_width(chunk->slots[i])) {
		if (!chunk->slots[i])
			continue;
		if (ksm_word_addr(chunk->slots[i]) >= addr)
			break;
		chunk->hint = i;
	}
	return i;
}

/**
 * ksm_slots_find() - the slot of a page, in a list
 * @chunk: the chunk, not full
 * @addr: address of the page
 *
 * Return: the slot; NULL if there is none.
 */
u64 *ksm_slots_find(struct ksm_chunk *chunk, unsigned long addr)
{
	unsigned int i = ksm_slots_seek(chunk, addr);

	if (i == chunk->words || ksm_word_addr(chunk->slots[i]) != addr)
		return NULL;
	chunk->hint = i;
	return ksm_slots_at(chunk, i);
}

/**
 * ksm_slots_next() - find the first page in a range of which anything is known
 * @chunk: the chunk
 * @start: start of the range
 * @end: end of the range
 *
 * Return: its address, or @end.
 */
unsigned long ksm_slots_next(struct ksm_chunk *chunk, unsigned long start,
			     unsigned long end)
{
	unsigned long addr;
	unsigned int i;

	if (start >= end)
		return end;
	if (chunk->full) {
		for (addr = max(start, chunk->base);
		     addr <= min(chunk->base + PMD_SIZE - 1, end - 1); addr += PAGE_SIZE)
			if (*ksm_chunk_slot(chunk, addr))
				return addr;
		return end;
	}
	for (i = ksm_slots_seek(chunk, start); i < chunk->words;
	     i += ksm_word_width(chunk->slots[i]))
		if (*ksm_slots_at(chunk, i))
			return min(ksm_word_addr(chunk->slots[i]), end);
	return end;
}

/**
 * ksm_slots_bytes() - memory that the slots of a chunk take
 * @chunk: the chunk
 *
 * Return: bytes.
 */
size_t ksm_slots_bytes(const struct ksm_chunk *chunk)
{
	return chunk->full ? KSM_FULL_BYTES : chunk->room * sizeof(u64);
}

/* Memory for the slots of a chunk anew. What it is more than before is charged. */
static u64 *ksm_slots_alloc(struct ksm_mm *kmm, struct ksm_chunk *chunk, size_t bytes,
			    enum ksm_charge_how how)
{
	const size_t old = ksm_slots_bytes(chunk);
	const size_t more = bytes > old ? bytes - old : 0;
	u64 *slots;

	slots = kzalloc(bytes, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (slots && more && ksm_charge(kmm, more, how)) {
		kfree(slots);
		return NULL;
	}
	return slots;
}

/* Have other slots, of the same pages. */
static void ksm_slots_replace(struct ksm_mm *kmm, struct ksm_chunk *chunk, u64 *slots,
			      unsigned int words, bool full)
{
	const size_t old = ksm_slots_bytes(chunk);
	size_t bytes;

	kfree(chunk->slots);
	chunk->slots = slots;
	chunk->words = words;
	chunk->room = words;
	chunk->hint = 0;
	chunk->holes = false;
	chunk->full = full;
	bytes = ksm_slots_bytes(chunk);
	if (bytes < old)
		ksm_uncharge(kmm, old - bytes);
}

/**
 * ksm_slots_free() - give back the memory of slots
 * @kmm: the mm
 * @chunk: the chunk, of which no slot is in use
 */
void ksm_slots_free(struct ksm_mm *kmm, struct ksm_chunk *chunk)
{
	ksm_slots_replace(kmm, chunk, NULL, 0, false);
}

/* Does the list have a place of its own, with an address, for each of these pages? */
static bool ksm_slots_are_open(struct ksm_chunk *chunk,
			       const struct ksm_candidate *cands, unsigned int nr)
{
	unsigned int i, j;

	for (i = 0; i < nr; i++) {
		j = ksm_slots_seek(chunk, cands[i].addr);
		if (j == chunk->words || !(chunk->slots[j] & KSM_WORD_PAIR) ||
		    ksm_word_addr(chunk->slots[j]) != cands[i].addr)
			return false;
	}
	return true;
}

/*
 * Write the slots in use of a list, and one for each candidate, to @to, each of two
 * words. Return: how many there are; only that if @to is NULL.
 */
static unsigned int ksm_slots_unfold(struct ksm_chunk *chunk, u64 *to,
				     const struct ksm_candidate *cands, unsigned int nr)
{
	unsigned long addr = ksm_slots_next(chunk, 0, ULONG_MAX), next;
	unsigned int i = 0, n = 0;

	while (addr != ULONG_MAX || i < nr) {
		next = i < nr ? min(addr, cands[i].addr) : addr;
		if (to) {
			to[2 * n] = next | KSM_WORD_PAIR;
			to[2 * n + 1] = next == addr ? *ksm_slots_find(chunk, addr) : 0;
		}
		n++;
		if (i < nr && cands[i].addr == next)
			i++;
		if (addr == next)
			addr = ksm_slots_next(chunk, addr + PAGE_SIZE, ULONG_MAX);
	}
	return n;
}

/**
 * ksm_slots_open() - have a slot for each of some pages
 * @kmm: the mm
 * @chunk: the chunk
 * @cands: the pages, in the order of their addresses
 * @nr: their number
 * @how: whether what that takes may exceed a limit
 *
 * Context: may sleep.
 * Return: 0; -ENOMEM; -E2BIG if there are too many for a list. Then nothing has changed.
 */
int ksm_slots_open(struct ksm_mm *kmm, struct ksm_chunk *chunk,
		   const struct ksm_candidate *cands, unsigned int nr,
		   enum ksm_charge_how how)
{
	const unsigned int most = chunk == &kmm->few ? KSM_SLOTS_IN_FEW : KSM_SLOTS_MANY;
	unsigned int n;
	u64 *slots;

	if (chunk->full || ksm_slots_are_open(chunk, cands, nr))
		return 0;
	n = ksm_slots_unfold(chunk, NULL, cands, nr);
	if (n > most)
		return -E2BIG;
	slots = ksm_slots_alloc(kmm, chunk, 2 * n * sizeof(u64), how);
	if (!slots)
		return -ENOMEM;
	ksm_slots_unfold(chunk, slots, cands, nr);
	ksm_slots_replace(kmm, chunk, slots, 2 * n, false);
	return 0;
}

/**
 * ksm_slots_fill() - have a slot for each page under a page table
 * @kmm: the mm
 * @chunk: the chunk of that page table, not full
 * @how: whether what that takes may exceed a limit
 *
 * Context: may sleep.
 * Return: 0; -ENOMEM, and nothing changed.
 */
int ksm_slots_fill(struct ksm_mm *kmm, struct ksm_chunk *chunk, enum ksm_charge_how how)
{
	u64 *slots = ksm_slots_alloc(kmm, chunk, KSM_FULL_BYTES, how);
	unsigned long addr;

	if (!slots)
		return -ENOMEM;
	for (addr = ksm_slots_next(chunk, 0, ULONG_MAX); addr != ULONG_MAX;
	     addr = ksm_slots_next(chunk, addr + PAGE_SIZE, ULONG_MAX))
		slots[(addr - chunk->base) >> PAGE_SHIFT] = *ksm_slots_find(chunk, addr);
	ksm_slots_replace(kmm, chunk, slots, 0, true);
	return 0;
}

/*
 * Write the slots in use of an array to @to, in as few words as can be. Return: how many
 * these are; only that if @to is NULL.
 */
static unsigned int ksm_slots_fold(struct ksm_chunk *chunk, u64 *to)
{
	unsigned int i, n = 0;

	for (i = 0; i < PTRS_PER_PTE; i++) {
		const u64 slot = chunk->slots[i];

		if (slot && !ksm_slot_item(slot)) {
			if (to)
				to[n] = (chunk->base + i * PAGE_SIZE) | KSM_WORD_PAIR;
			n++;
		}
		if (slot && to)
			to[n] = slot;
		n += !!slot;
	}
	return n;
}

static void ksm_slots_pack_array(struct ksm_mm *kmm, struct ksm_chunk *chunk)
{
	const unsigned int words = ksm_slots_fold(chunk, NULL);
	u64 *slots = ksm_slots_alloc(kmm, chunk, words * sizeof(u64), KSM_CHARGE_TRY);

	if (!slots)
		return;
	ksm_slots_fold(chunk, slots);
	ksm_slots_replace(kmm, chunk, slots, words, false);
}

/**
 * ksm_slots_squeeze() - pack a list where it is
 * @chunk: the chunk; pointers to its slots are good no more
 *
 * No slot needs more words than it has. Searches need not pass those of pages that are
 * forgotten any more.
 *
 * Context: does not sleep.
 */
void ksm_slots_squeeze(struct ksm_chunk *chunk)
{
	unsigned int i, width, n = 0;
	u64 word, slot;

	if (chunk->full)
		return;
	for (i = 0; i < chunk->words; i += width) {
		word = chunk->slots[i];
		width = ksm_word_width(word);
		slot = chunk->slots[i + width - 1];
		if (slot && !ksm_slot_item(slot))
			chunk->slots[n++] = word;
		if (slot)
			chunk->slots[n++] = slot;
	}
	chunk->words = n;
	chunk->hint = 0;
	chunk->holes = false;
}

static void ksm_slots_pack_list(struct ksm_mm *kmm, struct ksm_chunk *chunk)
{
	u64 *slots;

	ksm_slots_squeeze(chunk);
	if (chunk->words == chunk->room)
		return;
	slots = ksm_slots_alloc(kmm, chunk, chunk->words * sizeof(u64), KSM_CHARGE_TRY);
	if (!slots)
		return;
	memcpy(slots, chunk->slots, chunk->words * sizeof(u64));
	ksm_slots_replace(kmm, chunk, slots, chunk->words, false);
}

/**
 * ksm_slots_pack() - have slots take no more memory than they need
 * @kmm: the mm
 * @chunk: the chunk
 *
 * Without memory for the smaller ones an array is left as it is, and a list keeps its
 * memory.
 *
 * Context: may sleep.
 */
void ksm_slots_pack(struct ksm_mm *kmm, struct ksm_chunk *chunk)
{
	if (!chunk->nr)
		ksm_slots_free(kmm, chunk);
	else if (!chunk->full)
		ksm_slots_pack_list(kmm, chunk);
	else if (chunk->nr <= KSM_SLOTS_FEW)
		ksm_slots_pack_array(kmm, chunk);
}

/**
 * ksm_slots_move() - take over the slots of a range
 * @kmm: the mm
 * @to: a chunk without any
 * @from: a chunk that is not full, and not open; packed afterwards
 * @start: start of the range
 * @end: end of the range
 * @how: whether what that takes may exceed a limit
 *
 * Context: may sleep.
 * Return: 0; -ENOMEM, and nothing changed.
 */
int ksm_slots_move(struct ksm_mm *kmm, struct ksm_chunk *to, struct ksm_chunk *from,
		   unsigned long start, unsigned long end, enum ksm_charge_how how)
{
	unsigned long addr;
	unsigned int n = 0;
	u64 *slots, *slot;

	for (addr = ksm_slots_next(from, start, end); addr != end;
	     addr = ksm_slots_next(from, addr + PAGE_SIZE, end))
		n++;
	if (!n)
		return 0;
	slots = ksm_slots_alloc(kmm, to, 2 * n * sizeof(u64), how);
	if (!slots)
		return -ENOMEM;
	ksm_slots_replace(kmm, to, slots, 2 * n, false);
	to->nr = n;
	from->nr -= n;
	for (addr = ksm_slots_next(from, start, end); addr != end;
	     addr = ksm_slots_next(from, addr + PAGE_SIZE, end)) {
		slot = ksm_slots_find(from, addr);
		*slots++ = addr | KSM_WORD_PAIR;
		*slots++ = *slot;
		*slot = 0;
	}
	ksm_slots_pack(kmm, from);
	return 0;
}
