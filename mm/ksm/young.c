// SPDX-License-Identifier: GPL-2.0-only
/*
 * Young bits of secondary MMUs: which pages a guest has used.
 *
 * What a guest writes does not show in the PTEs of its process, but it cannot be written
 * without the young bit in the guest's own page tables being set. So that bit is taken
 * there, and the page is read where it was set. Others need it as well: a page whose
 * young bit was merely taken looks idle to reclaim. Therefore it is given to the PTE,
 * where everybody who asks how a page is used finds it.
 *
 * To ask for each page takes ten times as long as all else that is done for a page that
 * has not changed, and most memory is at rest. So a block of pages that is at rest is
 * asked for at once, by one call. Where a block is in use, or was in this era or the one
 * before, each of its pages that is mapped is asked for, and no page gets a bit that was
 * not its own; likewise where few pages are remembered, and there is no chunk for it. Eras
 * are counted by the clock, for a pass may take a second or an hour.
 *
 * The one answer that is not exact is the first after a rest of an era or more: it is
 * not known which page of the block was used. All get the bit. To give it to none would
 * be worse: whatever is used every few minutes would look idle each time, and be paged
 * out and in for ever; while too many bits keep 63 pages for another round of reclaim,
 * once in an era. (Where guests have huge pages one bit stands for 512 anyhow.)
 *
 * The page table lock is held in all functions here.
 */
#include "ksm_internal.h"
#include "ksm.h"

#define KSM_ERA		(30 * HZ)

static u64 ksm_young_bit(unsigned long addr)
{
	return BIT_ULL((addr >> PAGE_SHIFT) % KSM_BLOCK_PAGES);
}

/* Which blocks are in use, and have been? That is forgotten after one to two eras. */
static void ksm_young_age(struct ksm_chunk *chunk)
{
	const u8 era = jiffies / KSM_ERA;

	if (chunk->era == era)
		return;
	chunk->used_before = chunk->used;
	chunk->used = 0;
	chunk->era = era;
}

/* Ask for each page that is mapped. Return: how many these are. */
static unsigned int ksm_young_take_each(struct ksm_young *young, struct mm_struct *mm,
					pte_t *pte, unsigned long addr)
{
	unsigned int asked = 0;

	for (; addr < young->end; addr += PAGE_SIZE, pte++) {
		if (!pte_present(ptep_get(pte)))
			continue;
		asked++;
		if (mmu_notifier_clear_young(mm, addr, addr + PAGE_SIZE))
			young->pages |= ksm_young_bit(addr);
	}
	return asked;
}

/**
 * ksm_young_take() - take the young bits of a block of pages
 * @young: where they go; the caller has to deal with the pages up to its @end
 * @mm: the mm
 * @pte: the first page's PTE
 * @addr: first page
 * @end: end of what the caller will look at
 *
 * Return: how many times secondary MMUs were asked.
 */
unsigned int ksm_young_take(struct ksm_young *young, struct mm_struct *mm, pte_t *pte,
			    unsigned long addr, unsigned long end)
{
	const unsigned long size = KSM_BLOCK_PAGES * PAGE_SIZE;
	const u8 block = BIT(addr / size % BITS_PER_TYPE(u8));
	struct ksm_chunk *chunk = young->chunk;
	unsigned int asked = 1;

	static_assert(BITS_PER_TYPE(u64) == KSM_BLOCK_PAGES);
	young->end = min(end, round_down(addr, size) + size);
	young->pages = 0;
	if (chunk)
		ksm_young_age(chunk);
	if (!chunk || ((chunk->used | chunk->used_before) & block))
		asked = ksm_young_take_each(young, mm, pte, addr);
	else if (mmu_notifier_clear_young(mm, addr, young->end))
		young->pages = ~0ULL;
	if (chunk && young->pages)
		chunk->used |= block;
	return asked;
}

/**
 * ksm_young_give() - make a PTE young whose page was so for a secondary MMU
 * @young: what was taken of its block
 * @vma: the VMA
 * @addr: the address
 * @pte: the PTE, present or not
 *
 * Return: the PTE as it is now.
 */
pte_t ksm_young_give(const struct ksm_young *young, struct vm_area_struct *vma,
		     unsigned long addr, pte_t *pte)
{
	pte_t entry = ptep_get(pte), old;

	if (!(young->pages & ksm_young_bit(addr)) || !pte_present(entry) ||
	    pte_young(entry))
		return entry;
	/* The hardware may be about to set the dirty bit. */
	old = ptep_modify_prot_start(vma, addr, pte);
	entry = pte_mkyoung(old);
	ptep_modify_prot_commit(vma, addr, pte, old, entry);
	return entry;
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
/**
 * ksm_young_pass_on_huge() - make a PMD young if any of its page was so elsewhere
 * @vma: the VMA
 * @addr: the address of the huge page
 * @pmd: the PMD, which maps it
 *
 * Return: whether a secondary MMU had used any of it.
 */
bool ksm_young_pass_on_huge(struct vm_area_struct *vma, unsigned long addr, pmd_t *pmd)
{
	pmd_t entry = pmdp_get(pmd);

	if (!mmu_notifier_clear_young(vma->vm_mm, addr, addr + PMD_SIZE))
		return false;
	if (pmd_young(entry))
		return true;
	/* The hardware may be about to set the dirty bit. */
	entry = pmdp_invalidate(vma, addr, pmd);
	set_pmd_at(vma->vm_mm, addr, pmd, pmd_mkyoung(entry));
	update_mmu_cache_pmd(vma, addr, pmd);
	return true;
}
#endif
