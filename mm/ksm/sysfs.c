// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/mm/ksm: a table of knobs and counters.
 *
 * Names, formats, ranges and error numbers are an interface that programs rely on;
 * Documentation/ABI/testing/sysfs-kernel-mm-ksm has it. A value that is refused
 * leaves everything as it was.
 */
#include "ksm_internal.h"
#include "ksm.h"

enum ksm_knob_type {
	KSM_KNOB_BOOL,
	KSM_KNOB_UINT,
	KSM_KNOB_INT,		/* unsigned, but read with a sign to refuse */
	KSM_KNOB_ULONG,
};

/**
 * struct ksm_knob - a file that sets a field of struct ksm_knobs
 * @attr: the file
 * @type: of the field, and how it is read
 * @offset: of the field
 * @min: least value
 * @max: greatest value, or 0 for as much as the type takes
 * @keep_erange: an overflow is -ERANGE; elsewhere it is -EINVAL too
 * @allowed: asked before, with the engine mutex held: 0, or why not
 * @changed: told afterwards
 */
struct ksm_knob {
	struct kobj_attribute attr;
	enum ksm_knob_type type;
	size_t offset;
	unsigned long min;
	unsigned long max;
	bool keep_erange;
	int (*allowed)(struct ksm_engine *engine);
	void (*changed)(struct ksm_engine *engine);
};

struct ksm_counter {
	struct kobj_attribute attr;
	enum ksm_stat stat;
};

static unsigned long ksm_knob_get(const struct ksm_knob *knob,
				  const struct ksm_engine *engine)
{
	const void *field = (const char *)&engine->knobs + knob->offset;

	switch (knob->type) {
	case KSM_KNOB_BOOL:
		return READ_ONCE(*(const bool *)field);
	case KSM_KNOB_ULONG:
		return READ_ONCE(*(const unsigned long *)field);
	default:
		return READ_ONCE(*(const unsigned int *)field);
	}
}

static void ksm_knob_set(const struct ksm_knob *knob, struct ksm_engine *engine,
			 unsigned long value)
{
	void *field = (char *)&engine->knobs + knob->offset;

	switch (knob->type) {
	case KSM_KNOB_BOOL:
		WRITE_ONCE(*(bool *)field, value);
		break;
	case KSM_KNOB_ULONG:
		WRITE_ONCE(*(unsigned long *)field, value);
		break;
	default:
		WRITE_ONCE(*(unsigned int *)field, value);
	}
}

static int ksm_knob_parse(const struct ksm_knob *knob, const char *buf,
			  unsigned long *value)
{
	unsigned int uint_value = 0;
	bool bool_value = false;
	int int_value = 0;
	int err;

	switch (knob->type) {
	case KSM_KNOB_BOOL:
		err = kstrtobool(buf, &bool_value);
		*value = bool_value;
		break;
	case KSM_KNOB_UINT:
		err = kstrtouint(buf, 10, &uint_value);
		*value = uint_value;
		break;
	case KSM_KNOB_INT:
		err = kstrtoint(buf, 10, &int_value);
		*value = max(int_value, 0);
		break;
	default:
		err = kstrtoul(buf, 10, value);
	}
	if (err)
		return knob->keep_erange ? err : -EINVAL;
	if (*value < knob->min || (knob->max && *value > knob->max))
		return -EINVAL;
	return 0;
}

static ssize_t ksm_knob_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	struct ksm_knob *knob = container_of(attr, struct ksm_knob, attr);

	return sysfs_emit(buf, "%lu\n", ksm_knob_get(knob, &ksm_engine));
}

/* A knob that not every moment is right for. */
static int ksm_knob_set_allowed(struct ksm_knob *knob, struct ksm_engine *engine,
				unsigned long value)
{
	int err = 0;

	ksm_daemon_lock(engine);
	if (ksm_knob_get(knob, engine) != value)
		err = knob->allowed(engine);
	if (!err)
		ksm_knob_set(knob, engine, value);
	ksm_daemon_unlock(engine);
	return err;
}

static ssize_t ksm_knob_store(struct kobject *kobj, struct kobj_attribute *attr,
			      const char *buf, size_t count)
{
	struct ksm_knob *knob = container_of(attr, struct ksm_knob, attr);
	struct ksm_engine *engine = &ksm_engine;
	unsigned long value;
	int err;

	err = ksm_knob_parse(knob, buf, &value);
	if (err)
		return err;
	if (!knob->allowed)
		ksm_knob_set(knob, engine, value);
	else if (ksm_knob_get(knob, engine) != value)
		err = ksm_knob_set_allowed(knob, engine, value);
	if (err)
		return err;
	if (knob->changed)
		knob->changed(engine);
	return count;
}

static void ksm_knob_wake_sleeper(struct ksm_engine *engine)
{
	wake_up_interruptible(&engine->sleep_wait);
}

#define KSM_KNOB(_name, _type, _field, ...)				\
static struct ksm_knob ksm_##_name##_knob = {				\
	.attr = __ATTR(_name, 0644, ksm_knob_show, ksm_knob_store),	\
	.type = KSM_KNOB_##_type,					\
	.offset = offsetof(struct ksm_knobs, _field),			\
	__VA_ARGS__							\
}

KSM_KNOB(sleep_millisecs, UINT, sleep_millisecs,
	 .changed = ksm_knob_wake_sleeper);
KSM_KNOB(max_page_sharing, INT, max_page_sharing, .min = 2, .keep_erange = true,
	 .allowed = ksm_daemon_empty_trees);
KSM_KNOB(stable_node_chains_prune_millisecs, UINT, prune_millisecs);
KSM_KNOB(use_zero_pages, BOOL, use_zero_pages);
KSM_KNOB(zero_pages_only, BOOL, zero_pages_only, .allowed = ksm_daemon_forget);
KSM_KNOB(fresh_frames, BOOL, fresh_frames, .changed = ksm_daemon_switch_frames);
KSM_KNOB(smart_scan, BOOL, smart_scan);
KSM_KNOB(advisor_max_cpu, ULONG, advisor_max_cpu);
KSM_KNOB(advisor_min_pages_to_scan, ULONG, advisor_min_pages);
KSM_KNOB(advisor_max_pages_to_scan, ULONG, advisor_max_pages);
KSM_KNOB(advisor_target_scan_time, ULONG, advisor_target_secs, .min = 1);

/*
 * While the advisor is on, nobody else sets this one. The mutex is not worth the wait
 * for a batch here: a value that slips in as the advisor is switched on is replaced by
 * its next advice.
 */
static int ksm_pages_to_scan_allowed(struct ksm_engine *engine)
{
	return READ_ONCE(engine->knobs.advisor_mode) == KSM_ADVISOR_NONE ? 0 : -EINVAL;
}

static ssize_t ksm_pages_to_scan_store(struct kobject *kobj,
				       struct kobj_attribute *attr,
				       const char *buf, size_t count)
{
	if (ksm_pages_to_scan_allowed(&ksm_engine))
		return -EINVAL;
	return ksm_knob_store(kobj, attr, buf, count);
}

static struct ksm_knob ksm_pages_to_scan_knob = {
	.attr = __ATTR(pages_to_scan, 0644, ksm_knob_show, ksm_pages_to_scan_store),
	.type = KSM_KNOB_UINT,
	.offset = offsetof(struct ksm_knobs, pages_to_scan),
};

#ifdef CONFIG_NUMA
KSM_KNOB(merge_across_nodes, ULONG, merge_across_nodes, .max = 1,
	 .keep_erange = true, .allowed = ksm_daemon_empty_trees);
#endif

static struct ksm_knob ksm_merge_domains_knob;

static ssize_t merge_domains_show(struct kobject *kobj, struct kobj_attribute *attr,
				  char *buf)
{
	const unsigned long now = ksm_knob_get(&ksm_merge_domains_knob, &ksm_engine);
	unsigned int policy;
	int len = 0;

	for (policy = 0; policy < ARRAY_SIZE(ksm_policy_names); policy++)
		if (ksm_policy_names[policy])
			len += sysfs_emit_at(buf, len, policy == now ? "%s[%s]" : "%s%s",
					     len ? " " : "", ksm_policy_names[policy]);
	return len + sysfs_emit_at(buf, len, "\n");
}

static ssize_t merge_domains_store(struct kobject *kobj, struct kobj_attribute *attr,
				   const char *buf, size_t count)
{
	unsigned int policy;
	int err;

	for (policy = 0; policy < ARRAY_SIZE(ksm_policy_names); policy++)
		if (ksm_policy_names[policy] && sysfs_streq(buf, ksm_policy_names[policy]))
			break;
	if (policy == ARRAY_SIZE(ksm_policy_names))
		return -EINVAL;
	err = ksm_knob_set_allowed(&ksm_merge_domains_knob, &ksm_engine, policy);
	return err ?: count;
}

static struct ksm_knob ksm_merge_domains_knob = {
	.attr = __ATTR_RW(merge_domains),
	.type = KSM_KNOB_UINT,
	.offset = offsetof(struct ksm_knobs, merge_domains),
	.allowed = ksm_daemon_empty_trees,
};

static ssize_t ksm_counter_show(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	struct ksm_counter *counter = container_of(attr, struct ksm_counter, attr);

	return sysfs_emit(buf, "%lu\n", ksm_stat_read(&ksm_engine, counter->stat));
}

#define KSM_COUNTER(_name, _stat)					\
static struct ksm_counter ksm_##_name##_counter = {			\
	.attr = __ATTR(_name, 0444, ksm_counter_show, NULL),		\
	.stat = KSM_STAT_##_stat,					\
}

KSM_COUNTER(pages_scanned, SCANNED);
KSM_COUNTER(pages_skipped, SKIPPED);
KSM_COUNTER(pages_shared, SHARED);
KSM_COUNTER(pages_sharing, SHARING);
KSM_COUNTER(pages_unshared, UNSHARED);
KSM_COUNTER(stable_node_chains, CHAINS);
KSM_COUNTER(stable_node_dups, DUPS);

/* Figures that are not counters but made of them. */
struct ksm_figure {
	struct kobj_attribute attr;
	long (*value)(struct ksm_engine *engine);
};

static ssize_t ksm_figure_show(struct kobject *kobj, struct kobj_attribute *attr,
			       char *buf)
{
	struct ksm_figure *figure = container_of(attr, struct ksm_figure, attr);

	return sysfs_emit(buf, "%ld\n", figure->value(&ksm_engine));
}

static long ksm_zero_page_count(struct ksm_engine *engine)
{
	return atomic_long_read(&ksm_zero_pages);
}

static long ksm_general_profit(struct ksm_engine *engine)
{
	return ksm_stats_profit(engine, ksm_zero_page_count(engine));
}

#define KSM_FIGURE(_name, _value)					\
static struct ksm_figure ksm_##_name##_figure = {			\
	.attr = __ATTR(_name, 0444, ksm_figure_show, NULL),		\
	.value = _value,						\
}

KSM_FIGURE(pages_volatile, ksm_stats_volatile);
KSM_FIGURE(ksm_zero_pages, ksm_zero_page_count);
KSM_FIGURE(general_profit, ksm_general_profit);

static ssize_t full_scans_show(struct kobject *kobj, struct kobj_attribute *attr,
			       char *buf)
{
	return sysfs_emit(buf, "%lu\n", READ_ONCE(ksm_engine.seqnr));
}

static struct kobj_attribute full_scans_attr = __ATTR_RO(full_scans);

static ssize_t run_show(struct kobject *kobj, struct kobj_attribute *attr,
			char *buf)
{
	return sysfs_emit(buf, "%lu\n", READ_ONCE(ksm_engine.run));
}

static ssize_t run_store(struct kobject *kobj, struct kobj_attribute *attr,
			 const char *buf, size_t count)
{
	unsigned int run;
	int err;

	if (kstrtouint(buf, 10, &run) || run > KSM_RUN_UNMERGE)
		return -EINVAL;
	err = ksm_daemon_set_run(&ksm_engine, run);
	return err ?: count;
}

static struct kobj_attribute run_attr = __ATTR_RW(run);

static ssize_t advisor_mode_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	bool on = READ_ONCE(ksm_engine.knobs.advisor_mode) == KSM_ADVISOR_SCAN_TIME;

	return sysfs_emit(buf, "%s\n", on ? "none [scan-time]" : "[none] scan-time");
}

static ssize_t advisor_mode_store(struct kobject *kobj,
				  struct kobj_attribute *attr,
				  const char *buf, size_t count)
{
	if (sysfs_streq(buf, "none"))
		ksm_daemon_set_advisor(&ksm_engine, KSM_ADVISOR_NONE);
	else if (sysfs_streq(buf, "scan-time"))
		ksm_daemon_set_advisor(&ksm_engine, KSM_ADVISOR_SCAN_TIME);
	else
		return -EINVAL;
	return count;
}

static struct kobj_attribute advisor_mode_attr = __ATTR_RW(advisor_mode);

static struct attribute *ksm_files[] = {
	&run_attr.attr,
	&ksm_sleep_millisecs_knob.attr.attr,
	&ksm_pages_to_scan_knob.attr.attr,
#ifdef CONFIG_NUMA
	&ksm_merge_across_nodes_knob.attr.attr,
#endif
	&ksm_merge_domains_knob.attr.attr,
	&ksm_max_page_sharing_knob.attr.attr,
	&ksm_stable_node_chains_prune_millisecs_knob.attr.attr,
	&ksm_use_zero_pages_knob.attr.attr,
	&ksm_zero_pages_only_knob.attr.attr,
	&ksm_fresh_frames_knob.attr.attr,
	&ksm_smart_scan_knob.attr.attr,
	&advisor_mode_attr.attr,
	&ksm_advisor_max_cpu_knob.attr.attr,
	&ksm_advisor_min_pages_to_scan_knob.attr.attr,
	&ksm_advisor_max_pages_to_scan_knob.attr.attr,
	&ksm_advisor_target_scan_time_knob.attr.attr,
	&full_scans_attr.attr,
	&ksm_pages_scanned_counter.attr.attr,
	&ksm_pages_skipped_counter.attr.attr,
	&ksm_pages_shared_counter.attr.attr,
	&ksm_pages_sharing_counter.attr.attr,
	&ksm_pages_unshared_counter.attr.attr,
	&ksm_pages_volatile_figure.attr.attr,
	&ksm_stable_node_chains_counter.attr.attr,
	&ksm_stable_node_dups_counter.attr.attr,
	&ksm_ksm_zero_pages_figure.attr.attr,
	&ksm_general_profit_figure.attr.attr,
	NULL,
};

static const struct attribute_group ksm_file_group = {
	.name = "ksm",
	.attrs = ksm_files,
};

/**
 * ksm_sysfs_init() - make /sys/kernel/mm/ksm
 *
 * Return: 0 or -errno.
 */
int __init ksm_sysfs_init(void)
{
	return sysfs_create_group(mm_kobj, &ksm_file_group);
}
