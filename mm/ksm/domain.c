// SPDX-License-Identifier: GPL-2.0-only
/*
 * Merge domains: who shares with whom.
 *
 * Who maps a merged page finds out, by the time that a write to it takes, that somebody
 * else has a page of that content. So sharing is for those who may know that of each
 * other. Only mms of one domain share: the number of the domain is a part of the key in
 * both trees, and there pages of two domains just never meet.
 *
 * A domain is of all mms of one identity; what that is, is told in identity.c. It lives
 * as long as there is such an mm, or a stable node of the domain: as long as its number
 * stands in a tree. The one of everybody is always there, so that where there are no
 * others nothing has to be allocated.
 */
#include "ksm_internal.h"
#include "ksm.h"

const char *const ksm_policy_names[] = {
	[KSM_POLICY_GLOBAL] = "global",
#ifdef CONFIG_MEMCG
	[KSM_POLICY_USER] = "user",
	[KSM_POLICY_MEMCG] = "memcg",
#endif
	[KSM_POLICY_PROCESS] = "process",
};

/**
 * ksm_domains_init() - make the domain of everybody
 * @domains: room for all domains of an engine
 */
void ksm_domains_init(struct ksm_domains *domains)
{
	xa_init_flags(&domains->by_id, XA_FLAGS_ALLOC1);
	hash_init(domains->by_identity);
	refcount_set(&domains->global.users, 1);
}

/**
 * ksm_domains_destroy() - free what the domains of an engine hold
 * @domains: the domains, of which but that of everybody is left
 */
void ksm_domains_destroy(struct ksm_domains *domains)
{
	WARN_ON_ONCE(!xa_empty(&domains->by_id));
	xa_destroy(&domains->by_id);
}

/**
 * ksm_identity_equal() - are two identities the same?
 * @a: one
 * @b: the other
 *
 * Return: whether mms that have them are in one domain.
 */
bool ksm_identity_equal(const struct ksm_identity *a, const struct ksm_identity *b)
{
	return a->policy == b->policy && a->who == b->who && a->uid == b->uid &&
	       a->gid == b->gid && a->caps == b->caps && a->cookie == b->cookie;
}

static u32 ksm_identity_hash(const struct ksm_identity *identity)
{
	return jhash(identity, sizeof(*identity), 0);
}

static struct ksm_domain *ksm_domain_find(struct ksm_domains *domains,
					  const struct ksm_identity *identity)
{
	struct ksm_domain *domain;

	lockdep_assert_held(&domains->by_id.xa_lock);
	hash_for_each_possible(domains->by_identity, domain, link,
			       ksm_identity_hash(identity))
		if (ksm_identity_equal(&domain->identity, identity))
			return domain;
	return NULL;
}

/* The engine mutex sees to it that no two of one identity are made. */
static struct ksm_domain *ksm_domain_create(struct ksm_domains *domains,
					    const struct ksm_identity *identity)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN;
	struct ksm_domain *domain = kzalloc_obj(*domain, gfp);

	if (!domain)
		return NULL;
	domain->identity = *identity;
	refcount_set(&domain->users, 1);
	xa_lock(&domains->by_id);
	if (__xa_alloc(&domains->by_id, &domain->id, domain, xa_limit_32b, gfp)) {
		kfree(domain);
		domain = NULL;
	} else {
		hash_add(domains->by_identity, &domain->link,
			 ksm_identity_hash(identity));
	}
	xa_unlock(&domains->by_id);
	return domain;
}

/**
 * ksm_domain_of() - the domain of an identity
 * @engine: the engine
 * @identity: the identity
 *
 * Context: may sleep; the engine mutex is held.
 * Return: the domain, with a reference; NULL when there is no memory for a new one.
 */
struct ksm_domain *ksm_domain_of(struct ksm_engine *engine,
				 const struct ksm_identity *identity)
{
	struct ksm_domains *domains = &engine->domains;
	struct ksm_domain *domain = &domains->global;

	lockdep_assert_held(&engine->mutex);
	if (ksm_identity_equal(&domain->identity, identity)) {
		ksm_domain_get(domain);
		return domain;
	}
	/* A count that has reached 0 is on its way out under the same lock. */
	xa_lock(&domains->by_id);
	domain = ksm_domain_find(domains, identity);
	if (domain)
		ksm_domain_get(domain);
	xa_unlock(&domains->by_id);
	return domain ?: ksm_domain_create(domains, identity);
}

/**
 * ksm_domain_put() - drop a reference to a domain
 * @engine: the engine that it is of
 * @domain: the domain, or NULL
 */
void ksm_domain_put(struct ksm_engine *engine, struct ksm_domain *domain)
{
	struct ksm_domains *domains = &engine->domains;

	if (!domain || !refcount_dec_and_lock(&domain->users, &domains->by_id.xa_lock))
		return;
	hash_del(&domain->link);
	__xa_erase(&domains->by_id, domain->id);
	xa_unlock(&domains->by_id);
	kfree(domain);
}

#ifdef CONFIG_DEBUG_FS
static void ksm_domain_show(struct seq_file *seq, struct ksm_domain *domain)
{
	const struct ksm_identity *identity = &domain->identity;

	seq_printf(seq, "%u %s %llu %u %u %llx %llu %ld %ld\n", domain->id,
		   ksm_policy_names[identity->policy], identity->who, identity->uid,
		   identity->gid, identity->caps, identity->cookie,
		   atomic_long_read(&domain->shared),
		   atomic_long_read(&domain->sharing));
}

/* Position 0 is the head, 1 the domain of everybody, and so on by their numbers. */
static void *ksm_domains_seek(struct ksm_domains *domains, loff_t *pos)
{
	unsigned long id = *pos - 1;
	struct ksm_domain *domain;

	if (!*pos)
		return SEQ_START_TOKEN;
	if (*pos == 1)
		return &domains->global;
	domain = xa_find(&domains->by_id, &id, ULONG_MAX, XA_PRESENT);
	*pos = id + 1;
	return domain;
}

/* No domain goes away while the lock is held, which is for a buffer full of them. */
static void *ksm_domains_start(struct seq_file *seq, loff_t *pos)
	__acquires(&ksm_engine.domains.by_id.xa_lock)
{
	xa_lock(&ksm_engine.domains.by_id);
	return ksm_domains_seek(&ksm_engine.domains, pos);
}

static void *ksm_domains_next(struct seq_file *seq, void *v, loff_t *pos)
{
	++*pos;
	return ksm_domains_seek(&ksm_engine.domains, pos);
}

static void ksm_domains_stop(struct seq_file *seq, void *v)
	__releases(&ksm_engine.domains.by_id.xa_lock)
{
	xa_unlock(&ksm_engine.domains.by_id);
}

static int ksm_domains_show(struct seq_file *seq, void *v)
{
	if (v == SEQ_START_TOKEN)
		seq_puts(seq, "domain policy who uid gid caps cookie pages_shared pages_sharing\n");
	else
		ksm_domain_show(seq, v);
	return 0;
}

static const struct seq_operations ksm_domains_sops = {
	.start = ksm_domains_start,
	.next = ksm_domains_next,
	.stop = ksm_domains_stop,
	.show = ksm_domains_show,
};
DEFINE_SEQ_ATTRIBUTE(ksm_domains);

/**
 * ksm_domains_list() - make the list of domains in debugfs
 */
void __init ksm_domains_list(void)
{
	debugfs_create_file("domains", 0400, debugfs_create_dir("ksm", NULL), NULL,
			    &ksm_domains_fops);
}
#endif
