// SPDX-License-Identifier: GPL-2.0
/*
 * KSM's trace events: their names and fields, and that they fire.
 *
 * perf and tracing scripts parse the fields by name, so an event may not lose or
 * rename any. The events are watched in a trace instance of their own, so that
 * somebody else's tracing is not disturbed.
 */
#include <sys/mount.h>
#include "ksm_util.h"

#define INSTANCE	"ksm_selftest"

struct event {
	const char *name;
	const char *fields;	/* as in the format file, in order */
};

static const struct event events[] = {
	{ "ksm_start_scan", "int seq;u32 rmap_entries;" },
	{ "ksm_stop_scan", "int seq;u32 rmap_entries;" },
	{ "ksm_enter", "void * mm;" },
	{ "ksm_exit", "void * mm;" },
	{ "ksm_merge_one_page",
	  "unsigned long pfn;void * rmap_item;void * mm;int err;" },
	{ "ksm_merge_with_ksm_page",
	  "void * ksm_page;unsigned long pfn;void * rmap_item;void * mm;int err;" },
	{ "ksm_remove_ksm_page", "unsigned long pfn;" },
	{ "ksm_remove_rmap_item", "unsigned long pfn;void * rmap_item;void * mm;" },
	{ "ksm_advisor",
	  "s64 scan_time;unsigned long pages_to_scan;unsigned int cpu_percent;" },
};

/* Where tracefs is, mounted by us if need be (a mount is shared, and stays). */
static const char *tracefs(void)
{
	static const char * const places[] = {
		"/sys/kernel/tracing", "/sys/kernel/debug/tracing",
	};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		char path[128];

		snprintf(path, sizeof(path), "%s/events/ksm", places[i]);
		if (!access(path, F_OK))
			return places[i];
	}
	if (!mount("tracefs", places[0], "tracefs", 0, NULL))
		return places[0];
	return NULL;
}

FIXTURE(trace)
{
	char dir[128];		/* of tracefs */
	char instance[160];
};

FIXTURE_SETUP(trace)
{
	const char *why_not = ksm_setup();
	const char *dir;

	if (why_not)
		SKIP(return, "%s", why_not);
	dir = tracefs();
	if (!dir)
		SKIP(return, "kernel without tracefs");
	snprintf(self->dir, sizeof(self->dir), "%s", dir);
	snprintf(self->instance, sizeof(self->instance), "%s/instances/" INSTANCE, dir);
	rmdir(self->instance);
	if (mkdir(self->instance, 0700))
		SKIP(return, "no trace instance: %s", strerror(errno));
}

FIXTURE_TEARDOWN_PARENT(trace)
{
	ksm_restore();
	rmdir(self->instance);
}

/* The event's own fields, as "type name;" one after the other. */
static bool read_fields(const char *dir, const char *event, char *fields, size_t len)
{
	char path[320], line[512], *decl, *end;
	FILE *f;

	snprintf(path, sizeof(path), "%s/events/ksm/%s/format", dir, event);
	f = fopen(path, "r");
	if (!f)
		return false;
	fields[0] = '\0';
	while (fgets(line, sizeof(line), f)) {
		decl = strstr(line, "field:");
		end = decl ? strchr(decl, ';') : NULL;
		if (!end)
			continue;
		end[1] = '\0';
		decl += strlen("field:");
		if (!strstr(decl, " common_"))
			strncat(fields, decl, len - strlen(fields) - 1);
	}
	fclose(f);
	return true;
}

TEST_F(trace, names_and_fields)
{
	char fields[512];

	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		bool found = read_fields(self->dir, events[i].name, fields,
					 sizeof(fields));

		EXPECT_TRUE(found) {
			TH_LOG("no event %s", events[i].name);
		}
		if (!found)
			continue;
		EXPECT_STREQ(events[i].fields, fields) {
			TH_LOG("%s", events[i].name);
		}
	}
}

static int watch(const char *instance, const char *on)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/events/ksm/enable", instance);
	return ksm_spew(path, on);
}

/* How often @event is in the trace, with @with in its line. */
static int count_events(const char *instance, const char *event, const char *with)
{
	char path[256], line[512], name[64];
	int count = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/trace", instance);
	snprintf(name, sizeof(name), " %s: ", event);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, name) && strstr(line, with))
			count++;
	if (f)
		fclose(f);
	return count;
}

/* Merging: each page that joins a KSM page is one ksm_merge_with_ksm_page. */
TEST_F_TIMEOUT(trace, merging_fires, KSM_TIMEOUT)
{
	char *addr;

	ASSERT_EQ(0, watch(self->instance, "1"));
	addr = ksm_map_dups(6, 1);
	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(5, ksm_get("pages_sharing"));
	ASSERT_EQ(0, watch(self->instance, "0"));

	EXPECT_EQ(1, count_events(self->instance, "ksm_enter", "mm "));
	EXPECT_GE(count_events(self->instance, "ksm_start_scan", "rmap size"), 2);
	EXPECT_GE(count_events(self->instance, "ksm_stop_scan", "rmap size"), 2);
	EXPECT_GE(count_events(self->instance, "ksm_merge_with_ksm_page", "error 0"), 5);
	EXPECT_EQ(0, count_events(self->instance, "ksm_remove_rmap_item", "pfn"));
}

TEST_F_TIMEOUT(trace, unmerging_fires, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(6, 2);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(5, ksm_get("pages_sharing"));
	ASSERT_EQ(0, watch(self->instance, "1"));
	ASSERT_EQ(0, ksm_write("run", "2"));
	ASSERT_EQ(0, watch(self->instance, "0"));

	/* The last sharer may go together with the page. */
	EXPECT_GE(count_events(self->instance, "ksm_remove_rmap_item", "pfn"), 5);
	EXPECT_LE(count_events(self->instance, "ksm_remove_rmap_item", "pfn"), 6);
	EXPECT_EQ(1, count_events(self->instance, "ksm_remove_ksm_page", "pfn"));
}

/* A merge with the zero page is a ksm_merge_one_page. */
TEST_F_TIMEOUT(trace, zero_merging_fires, KSM_TIMEOUT)
{
	char *addr = ksm_map(4);

	ASSERT_NE(MAP_FAILED, addr);
	memset(addr, 0, 4 * psize());
	ASSERT_EQ(0, ksm_madvise(addr, 4, MADV_MERGEABLE));
	ASSERT_EQ(0, ksm_write("use_zero_pages", "1"));
	ASSERT_EQ(0, watch(self->instance, "1"));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(4, ksm_get("ksm_zero_pages"));
	ASSERT_EQ(0, watch(self->instance, "0"));
	EXPECT_EQ(4, count_events(self->instance, "ksm_merge_one_page", "error 0"));
}

TEST_F_TIMEOUT(trace, exit_fires, KSM_TIMEOUT)
{
	struct ksm_child child;

	ASSERT_EQ(0, watch(self->instance, "1"));
	if (ksm_child_fork(&child))
		_exit(ksm_map_dups(2, 3) == MAP_FAILED);
	ASSERT_EQ(0, ksm_child_end(&child));
	ASSERT_EQ(0, watch(self->instance, "0"));
	EXPECT_EQ(1, count_events(self->instance, "ksm_enter", "mm "));
	EXPECT_EQ(1, count_events(self->instance, "ksm_exit", "mm "));
}

TEST_F_TIMEOUT(trace, advisor_fires, KSM_TIMEOUT)
{
	char *addr = ksm_map_dups(4, 4);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, watch(self->instance, "1"));
	ASSERT_EQ(0, ksm_write("advisor_mode", "scan-time"));
	ASSERT_EQ(0, ksm_scan(3));
	ASSERT_EQ(0, watch(self->instance, "0"));
	EXPECT_GE(count_events(self->instance, "ksm_advisor", "pages_to_scan"), 2);
}

TEST_HARNESS_MAIN
