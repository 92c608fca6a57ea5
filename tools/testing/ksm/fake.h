/* SPDX-License-Identifier: GPL-2.0-only */
/* The fakes' other side: what tests, but not the engine, may do with them. */
#ifndef _KSM_FAKE_H
#define _KSM_FAKE_H

/* fake_kernel.c: warnings that are wanted */
void ksm_fake_expect(void);
unsigned int ksm_fake_expected(void);

/* fake_node.c: memory */
#define KSM_FAKE_FOLIOS		256

struct folio *ksm_fake_folio(unsigned long pfn);
unsigned long ksm_fake_folio_alloc(int nid);
void ksm_fake_folio_free(unsigned long pfn);
void ksm_fake_folio_migrate(struct ksm_stable_node *node, int nid);
int ksm_fake_folio_refs(void);
int ksm_fake_folios_used(void);

#endif /* _KSM_FAKE_H */
