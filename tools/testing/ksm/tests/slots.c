// SPDX-License-Identifier: GPL-2.0-only
/*
 * slots.c: tables of slots against an array with a place for each page.
 */
#include <stdlib.h>

#include "ksm_internal.h"
#include "../../../../mm/ksm/slots.c"
#include "test.h"

#define BASE		0x7fff00000000UL
#define NR		(2 * PTRS_PER_PTE)	/* pages that the list is of */

/* A list for two page tables, a chunk for the second of them, and what is in both. */
struct table {
	struct ksm_engine engine;
	struct ksm_mm kmm;
	struct ksm_chunk chunk;
	bool parted;			/* @chunk has the pages of the second */
	u64 model[NR];
	struct ksm_rmap_item items[NR];
};

static unsigned long page_addr(unsigned int i)
{
	return BASE + i * PAGE_SIZE;
}

static struct ksm_chunk *chunk_of(struct table *t, unsigned int i)
{
	return t->parted && i >= PTRS_PER_PTE ? &t->chunk : &t->kmm.few;
}

static struct table *table_init(void)
{
	struct table *t = calloc(1, sizeof(*t));
	unsigned int i;

	CHECK(t);
	t->kmm.engine = &t->engine;
	t->chunk.base = page_addr(PTRS_PER_PTE);
	for (i = 0; i < NR; i++)
		t->items[i].tagged = page_addr(i);
	return t;
}

static void check_chunk(struct table *t, struct ksm_chunk *chunk, unsigned int start,
			unsigned int end)
{
	unsigned long next = ULONG_MAX;
	unsigned int i = end, nr = 0;

	while (i-- > start) {
		u64 *slot = ksm_chunk_slot(chunk, page_addr(i));

		CHECK(slot ? *slot == t->model[i] : !t->model[i]);
		nr += !!t->model[i];
		if (t->model[i])
			next = page_addr(i);
		CHECK_EQ(ksm_slots_next(chunk, page_addr(i), ULONG_MAX), next);
		CHECK_EQ(ksm_slots_next(chunk, page_addr(i), page_addr(i) + PAGE_SIZE),
			 t->model[i] ? page_addr(i) : page_addr(i + 1));
	}
	/* And once more upwards, which is how it is done mostly. */
	for (i = start; i < end; i++) {
		u64 *slot = ksm_chunk_slot(chunk, page_addr(i));

		CHECK(slot ? *slot == t->model[i] : !t->model[i]);
	}
	CHECK_EQ(chunk->nr, nr);
}

static void check_table(struct table *t)
{
	check_chunk(t, &t->kmm.few, 0, t->parted ? PTRS_PER_PTE : NR);
	if (t->parted)
		check_chunk(t, &t->chunk, PTRS_PER_PTE, NR);
	CHECK_EQ(atomic_long_read(&t->kmm.bytes),
		 ksm_slots_bytes(&t->kmm.few) + ksm_slots_bytes(&t->chunk));
	CHECK_EQ(ksm_fake_kmalloc.nr, !!t->kmm.few.slots + !!t->chunk.slots);
	CHECK(!t->kmm.few.full);
}

/* Some pages under one page table, each once, by their addresses. */
static unsigned int choose(struct ksm_candidate *cands, unsigned int *first)
{
	unsigned int nr = 0, i, most = one_in(8) ? PTRS_PER_PTE : 1 + rnd_below(40);
	unsigned int i0 = *first = one_in(2) ? PTRS_PER_PTE : 0;

	for (i = 0; i < PTRS_PER_PTE && nr < most; i++)
		if (one_in(most > 40 ? 2 : 16))
			cands[nr++].addr = page_addr(i0 + i);
	return nr;
}

/* What matching may do to a slot that is open. */
static void change(struct table *t, struct ksm_chunk *chunk, unsigned int i)
{
	u64 *slot = ksm_chunk_slot(chunk, page_addr(i));
	u64 new = one_in(4) ? 0 : one_in(2) ? (unsigned long)&t->items[i] :
		  rnd() | KSM_SIGHTING;

	CHECK(slot);
	chunk->nr += !!new - !!*slot;
	*slot = t->model[i] = new;
}

/* In the way of ksm_chunk_get(). Returns the chunk, or NULL. */
static struct ksm_chunk *open_for(struct table *t, struct ksm_candidate *cands,
				  unsigned int nr, unsigned int first,
				  enum ksm_charge_how how)
{
	struct ksm_chunk *chunk = chunk_of(t, first);
	int err = ksm_slots_open(&t->kmm, chunk, cands, nr, how);

	if (err == -E2BIG && chunk == &t->kmm.few) {
		/* Only the second page table can have a chunk of its own here. */
		if (!first)
			return NULL;
		err = ksm_slots_move(&t->kmm, &t->chunk, &t->kmm.few, t->chunk.base,
				     t->chunk.base + PMD_SIZE, how);
		if (err)
			return NULL;
		t->parted = true;
		chunk = &t->chunk;
		check_table(t);
		err = ksm_slots_open(&t->kmm, chunk, cands, nr, how);
	}
	if (err == -E2BIG)
		err = ksm_slots_fill(&t->kmm, chunk, how);
	/* Only memory may be lacking where a limit may be exceeded. */
	CHECK(!err || ksm_fake_no_memory || (ksm_fake_no_charge && how == KSM_CHARGE_TRY));
	return err ? NULL : chunk;
}

/* However little memory there is, in a packed list each word is of a slot in use. */
static void check_words(struct ksm_chunk *chunk)
{
	unsigned int i, nr = 0;

	for (i = 0; !chunk->full && i < chunk->words; i += ksm_word_width(chunk->slots[i])) {
		CHECK(*ksm_slots_at(chunk, i));
		nr++;
	}
	CHECK(chunk->full || nr == chunk->nr);
}

static void one_batch(struct table *t)
{
	struct ksm_candidate cands[PTRS_PER_PTE];
	unsigned int first, i, nr = choose(cands, &first);
	struct ksm_chunk *chunk;

	if (!nr)
		return;
	ksm_fake_no_memory = one_in(8);
	ksm_fake_no_charge = one_in(8);
	chunk = open_for(t, cands, nr, first, one_in(2) ? KSM_CHARGE_TRY : KSM_CHARGE_FORCE);
	CHECK(!chunk || !(ksm_fake_no_memory || ksm_fake_no_charge) ||
	      chunk->full || chunk->words);
	ksm_fake_no_memory = one_in(4);
	check_table(t);
	for (i = 0; chunk && i < nr; i++)
		if (!one_in(3))
			change(t, chunk, (cands[i].addr - BASE) / PAGE_SIZE);
	check_table(t);
	chunk = chunk_of(t, first);
	ksm_slots_pack(&t->kmm, chunk);
	check_table(t);
	check_words(chunk);
	/* A limit is not in the way of taking less. */
	ksm_fake_no_memory = false;
	ksm_slots_pack(&t->kmm, chunk);
	ksm_fake_no_charge = false;
	if (chunk == &t->chunk && !chunk->nr)
		t->parted = false;
}

/* Pages are forgotten at any time, also while their slots are packed. */
static void forget_some(struct table *t)
{
	unsigned int i, start = rnd_below(NR), end = start + rnd_below(NR - start + 1);

	for (i = start; i < end; i++) {
		if (!t->model[i])
			continue;
		*ksm_chunk_slot(chunk_of(t, i), page_addr(i)) = 0;
		chunk_of(t, i)->nr--;
		t->model[i] = 0;
	}
}

/* Packed slots take 8 bytes for a page with an item and 16 for any other. */
static void check_size(struct table *t, struct ksm_chunk *chunk, unsigned int start,
		       unsigned int end)
{
	size_t bytes = 0;
	unsigned int i;

	for (i = start; i < end; i++)
		if (t->model[i])
			bytes += ksm_slot_item(t->model[i]) ? 8 : 16;
	if (chunk->full)
		CHECK(chunk->nr > KSM_SLOTS_FEW);
	else
		CHECK_EQ(ksm_slots_bytes(chunk), bytes);
}

static void test_random(void)
{
	struct table *t = table_init();
	unsigned int i;

	for (i = 0; i < 100; i++) {
		one_batch(t);
		check_size(t, &t->kmm.few, 0, t->parted ? PTRS_PER_PTE : NR);
		if (t->parted)
			check_size(t, &t->chunk, PTRS_PER_PTE, NR);
		if (one_in(5))
			forget_some(t);
		check_table(t);
		ksm_slots_squeeze(&t->kmm.few);
		check_words(&t->kmm.few);
		check_table(t);
		ksm_slots_pack(&t->kmm, &t->kmm.few);
		if (t->parted)
			ksm_slots_pack(&t->kmm, &t->chunk);
		t->parted = t->parted && t->chunk.nr;
	}
	for (i = 0; i < NR; i++)
		t->model[i] = 0;
	t->kmm.few.nr = 0;
	t->chunk.nr = 0;
	ksm_slots_pack(&t->kmm, &t->kmm.few);
	ksm_slots_free(&t->kmm, &t->chunk);
	CHECK_EQ(atomic_long_read(&t->kmm.bytes), 0);
	CHECK_EQ(ksm_fake_kmalloc.nr, 0);
	free(t);
}

/* A page with an item takes no more than stock's 64 bytes, however few there are. */
static void test_price(void)
{
	struct table *t = table_init();
	struct ksm_candidate cands[22];
	unsigned int i;

	for (i = 0; i < 22; i++)
		cands[i].addr = page_addr(i * 40);
	CHECK_EQ(ksm_slots_open(&t->kmm, &t->kmm.few, cands, 22, KSM_CHARGE_TRY), 0);
	for (i = 0; i < 22; i++) {
		*ksm_chunk_slot(&t->kmm.few, cands[i].addr) = (unsigned long)&t->items[i * 40];
		t->kmm.few.nr++;
	}
	ksm_slots_pack(&t->kmm, &t->kmm.few);
	CHECK_EQ(ksm_slots_bytes(&t->kmm.few) + 22 * sizeof(struct ksm_rmap_item), 22 * 64);
	ksm_slots_free(&t->kmm, &t->kmm.few);
	free(t);
}

/* The list of few is copied for each page that is looked at: it does not grow for ever. */
static void test_few(void)
{
	struct table *t = table_init();
	struct ksm_candidate cand;
	unsigned int i;

	for (i = 0; i < 64; i++) {
		cand.addr = page_addr(i * 16);
		CHECK_EQ(ksm_slots_open(&t->kmm, &t->kmm.few, &cand, 1, KSM_CHARGE_TRY), 0);
		*ksm_chunk_slot(&t->kmm.few, cand.addr) = KSM_SIGHTING;
		t->kmm.few.nr++;
	}
	cand.addr += PAGE_SIZE;
	CHECK_EQ(ksm_slots_open(&t->kmm, &t->kmm.few, &cand, 1, KSM_CHARGE_TRY), -E2BIG);
	CHECK_EQ(ksm_slots_open(&t->kmm, &t->chunk, &cand, 1, KSM_CHARGE_TRY), 0);
	ksm_slots_free(&t->kmm, &t->chunk);
	ksm_slots_free(&t->kmm, &t->kmm.few);
	free(t);
}

const struct ksm_test ksm_slots_tests[] = {
	SEEDED("slots: random changes of a list and of an array", test_random),
	ONCE("slots: the list of few pages is short", test_few),
	ONCE("slots: no page is dearer than on stock", test_price),
	END
};
