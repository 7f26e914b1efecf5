/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is special to the overlay snapshotter; what every snapshotter must do is in tests/conformance.
 */
#include "tests/support/test.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshotters/overlay/config.h"
#include "snapshotters/overlay/overlay.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"

#define UPPERDIR_LABEL "containerd.io/snapshot/overlay.upperdir"

struct fixture {
	struct temp_root *root;
	struct overlay_conf conf;
	struct conf_table table;
	void *self;
	struct arena arena;
	struct ctx ctx;
	struct err err;
};

static bool is_swept(void *arg)
{
	struct fixture *f = arg;

	return faccessat(f->root->fd, "snapshots/swept", F_OK, 0) < 0;
}

static void open_overlay(struct fixture *f)
{
	/* The sweep after a start must have passed before a test looks at what is not removed. */
	(void)mkdirat(f->root->fd, "snapshots", 0700);
	assert_int_equal(mkdirat(f->root->fd, "snapshots/swept", 0700), 0);
	assert_ok(overlay_ops.open(f->root->path, &f->conf, &f->self, &f->err), &f->err);
	wait_until(is_swept, f, "the sweep after the start");
}

static void reopen(struct fixture *f)
{
	overlay_ops.close(f->self);
	f->self = NULL;
	open_overlay(f);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err = ERR_INIT;

	f->root = temp_root_new();
	f->table = (struct conf_table){"overlay", overlay_ops.options, &f->conf};
	assert_ok(conf_init(&f->table, 1, &err), &err);
	arena_init(&f->arena, 16u << 20);
	f->ctx = (struct ctx){.arena = &f->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	*state = f;
	open_overlay(f);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	overlay_ops.close(f->self);
	conf_done(&f->table, 1);
	arena_done(&f->arena);
	temp_root_free(f->root);
	free(f);
	return 0;
}

static void set(struct fixture *f, const char *assignment)
{
	assert_ok(conf_set(assignment, &f->table, 1, &f->err), &f->err);
	reopen(f);
}

static struct mount prepare_labelled(struct fixture *f, const char *key, const char *parent,
				     struct strmap labels)
{
	struct snapshot_req req = {.key = key, .parent = parent, .labels = labels};
	struct mounts mounts = {0};

	assert_ok(overlay_ops.prepare(f->self, &f->ctx, &req, &mounts, &f->err), &f->err);
	assert_int_equal(mounts.n, 1);
	return mounts.items[0];
}

static struct mount prepare(struct fixture *f, const char *key, const char *parent)
{
	return prepare_labelled(f, key, parent, (struct strmap){0});
}

static void commit(struct fixture *f, const char *name, const char *key)
{
	struct commit_req req = {.name = name, .key = key, .parent = ""};

	assert_ok(overlay_ops.commit(f->self, &f->ctx, &req, &f->err), &f->err);
}

static struct info stat_of(struct fixture *f, const char *key)
{
	struct info info = {0};

	assert_ok(overlay_ops.stat(f->self, &f->ctx, key, &info, &f->err), &f->err);
	return info;
}

static char *fs_path(struct fixture *f, const char *key)
{
	return arena_printf(&f->arena, "%s/snapshots/%" PRIu64, f->root->path, stat_of(f, key).id);
}

static const char *option(const struct mount *mount, const char *prefix)
{
	for (size_t i = 0; i < mount->n_options; i++)
		if (strncmp(mount->options[i], prefix, strlen(prefix)) == 0)
			return mount->options[i];
	return NULL;
}

static void write_file(const char *dir, const char *name, size_t size)
{
	char path[4096], block[4096] = {0};
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "we");
	assert_non_null(file);
	for (size_t done = 0; done < size; done += sizeof(block))
		assert_int_equal(fwrite(block, sizeof(block), 1, file), 1);
	fclose(file);
}

static void mounts_after_a_restart_are_those_that_prepare_gave(void **state)
{
	struct fixture *f = *state;
	struct mount first;
	struct mounts later = {0};

	prepare(f, "a", "");
	commit(f, "A", "a");
	first = prepare(f, "b", "A");
	reopen(f);
	assert_ok(overlay_ops.mounts(f->self, &f->ctx, "b", &later, &f->err), &f->err);
	assert_int_equal(later.n, 1);
	assert_string_equal(later.items[0].type, first.type);
	assert_string_equal(later.items[0].source, first.source);
	assert_int_equal(later.items[0].n_options, first.n_options);
	for (size_t i = 0; i < first.n_options; i++)
		assert_string_equal(later.items[0].options[i], first.options[i]);
}

static void usage_of_an_active_one_is_counted_now_of_a_committed_one_as_committed(void **state)
{
	struct fixture *f = *state;
	struct usage empty, full, committed, view;
	struct snapshot_req req = {.key = "v", .parent = "A"};
	struct mounts mounts;
	char *path;

	prepare(f, "a", "");
	path = fs_path(f, "a");
	assert_ok(overlay_ops.usage(f->self, &f->ctx, "a", &empty, &f->err), &f->err);
	assert_int_equal(empty.inodes, 1);
	write_file(path, "file", 65536);
	assert_ok(overlay_ops.usage(f->self, &f->ctx, "a", &full, &f->err), &f->err);
	assert_int_equal(full.inodes, 2);
	assert_true(full.size_bytes >= empty.size_bytes + 65536);
	commit(f, "A", "a");
	/* What is written past the snapshotter after the commit is not counted. */
	write_file(path, "late", 65536);
	assert_ok(overlay_ops.usage(f->self, &f->ctx, "A", &committed, &f->err), &f->err);
	assert_int_equal(committed.size_bytes, full.size_bytes);
	assert_int_equal(committed.inodes, full.inodes);
	assert_ok(overlay_ops.view(f->self, &f->ctx, &req, &mounts, &f->err), &f->err);
	assert_ok(overlay_ops.usage(f->self, &f->ctx, "v", &view, &f->err), &f->err);
	assert_int_equal(view.size_bytes, 0);
	assert_int_equal(view.inodes, 0);
}

static void remove_leaves_the_directory_to_cleanup(void **state)
{
	struct fixture *f = *state;
	char *path;

	prepare(f, "a", "");
	path = fs_path(f, "a");
	assert_ok(overlay_ops.remove(f->self, &f->ctx, "a", &f->err), &f->err);
	assert_int_equal(access(path, F_OK), 0);
	assert_ok(overlay_ops.cleanup(f->self, &f->ctx, &f->err), &f->err);
	assert_int_not_equal(access(path, F_OK), 0);
}

static void sync_remove_deletes_in_remove(void **state)
{
	struct fixture *f = *state;
	char *path;

	set(f, "overlay.sync_remove=true");
	prepare(f, "a", "");
	path = fs_path(f, "a");
	write_file(path, "file", 4096);
	assert_ok(overlay_ops.remove(f->self, &f->ctx, "a", &f->err), &f->err);
	assert_int_not_equal(access(path, F_OK), 0);
}

static int keep_info(void *arg, const struct info *info, struct err *err)
{
	struct fixture *f = arg;
	const char *path = strmap_get(&info->labels, UPPERDIR_LABEL);

	(void)err;
	assert_string_equal(info->name, "a");
	assert_non_null(path);
	assert_string_equal(path, fs_path(f, "a"));
	assert_string_equal(strmap_get(&info->labels, "containerd.io/snapshot/x"), "y");
	return 0;
}

static void upperdir_label_is_answered_and_never_stored(void **state)
{
	struct fixture *f = *state;
	struct strmap_entry entry = {"containerd.io/snapshot/x", "y"};
	const char *present = "labels.\"" UPPERDIR_LABEL "\"";
	struct update_req update = {.name = "a", .labels = {&entry, 1, 1}};
	struct filters *filters = NULL;
	struct info info;

	set(f, "overlay.upperdir_label=true");
	prepare_labelled(f, "a", "", (struct strmap){&entry, 1, 1});
	info = stat_of(f, "a");
	assert_string_equal(strmap_get(&info.labels, UPPERDIR_LABEL), fs_path(f, "a"));
	assert_ok(overlay_ops.update(f->self, &f->ctx, &update, &info, &f->err), &f->err);
	assert_string_equal(strmap_get(&info.labels, UPPERDIR_LABEL), fs_path(f, "a"));
	assert_int_equal(overlay_ops.walk(f->self, &f->ctx, NULL, 0, keep_info, f, &f->err), 0);

	/* Filters do not see it. */
	assert_ok(filters_parse(&present, 1, &filters, &f->err), &f->err);
	assert_int_equal(overlay_ops.walk(f->self, &f->ctx, filters, 0, NULL, NULL, &f->err), 0);
	filters_free(filters);

	set(f, "overlay.upperdir_label=false");
	info = stat_of(f, "a");
	assert_null(strmap_get(&info.labels, UPPERDIR_LABEL));
}

static struct strmap_entry mapping[] = {
	{SNAPSHOT_LABEL_REF, "sha256:1234"},
	{SNAPSHOT_LABEL_GID_MAPPING, "0:200000:65536"},
	{SNAPSHOT_LABEL_UID_MAPPING, "0:100000:65536"},
};

/* Without the label that makes it an extraction. */
static struct strmap container_labels(void)
{
	return (struct strmap){mapping + 1, 2, 2};
}

static struct strmap extraction_labels(void)
{
	return (struct strmap){mapping, 3, 3};
}

static void the_parents_owner_is_inherited(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	require_root();
	prepare(f, "a", "");
	assert_int_equal(chown(fs_path(f, "a"), 1234, 4321), 0);
	commit(f, "A", "a");
	prepare(f, "b", "A");
	assert_int_equal(stat(fs_path(f, "b"), &st), 0);
	assert_int_equal(st.st_uid, 1234);
	assert_int_equal(st.st_gid, 4321);
	assert_int_equal(st.st_mode & 07777, 0755);
	/* The directory that went back into stock was given to nobody. */
	prepare(f, "c", "");
	assert_int_equal(stat(fs_path(f, "c"), &st), 0);
	assert_int_equal(st.st_uid, 0);
}

static void an_id_mapping_owns_the_root_and_is_in_the_mount(void **state)
{
	struct fixture *f = *state;
	struct mounts mounts;
	struct mount mount;
	struct stat st;

	require_root();
	set(f, "overlay.remap_ids=always");
	prepare(f, "a", "");
	commit(f, "A", "a");
	mount = prepare_labelled(f, "b", "A", container_labels());
	assert_string_equal(mount.options[0], "uidmap=0:100000:65536");
	assert_string_equal(mount.options[1], "gidmap=0:200000:65536");
	assert_int_equal(stat(fs_path(f, "b"), &st), 0);
	assert_int_equal(st.st_uid, 100000);
	assert_int_equal(st.st_gid, 200000);
	assert_ok(overlay_ops.mounts(f->self, &f->ctx, "b", &mounts, &f->err), &f->err);
	assert_non_null(option(&mounts.items[0], "uidmap=0:100000:65536"));
}

static void an_image_that_the_client_has_chowned_is_not_mapped_again(void **state)
{
	struct fixture *f = *state;
	struct mount mount;
	struct stat st;

	require_root();
	set(f, "overlay.remap_ids=always");
	prepare(f, "a-remap", "");
	assert_int_equal(chown(fs_path(f, "a-remap"), 100000, 200000), 0);
	commit(f, "A", "a-remap");
	mount = prepare_labelled(f, "b", "A", container_labels());
	assert_null(option(&mount, "uidmap="));
	assert_int_equal(stat(fs_path(f, "b"), &st), 0);
	assert_int_equal(st.st_uid, 100000);
}

static void an_extraction_cannot_give_its_layer_to_anybody(void **state)
{
	struct fixture *f = *state;
	struct mounts mounts;
	struct mount mount;
	struct stat st;

	set(f, "overlay.remap_ids=always");
	mount = prepare_labelled(f, "extract-1 sha256:1234", "", extraction_labels());
	assert_null(option(&mount, "uidmap="));
	assert_int_equal(stat(fs_path(f, "extract-1 sha256:1234"), &st), 0);
	assert_int_equal(st.st_uid, geteuid());
	assert_ok(overlay_ops.mounts(f->self, &f->ctx, "extract-1 sha256:1234", &mounts, &f->err),
		  &f->err);
	assert_null(option(&mounts.items[0], "uidmap="));
}

static void a_bad_id_mapping_is_refused_and_leaves_no_trace(void **state)
{
	static struct strmap_entry bad[] = {
		{SNAPSHOT_LABEL_GID_MAPPING, "0:200000:65536"},
		{SNAPSHOT_LABEL_UID_MAPPING, "everybody"},
	};
	struct fixture *f = *state;
	struct snapshot_req req = {.key = "a", .parent = "", .labels = {bad, 2, 2}};
	struct mounts mounts;
	struct info info;

	assert_fails(overlay_ops.prepare(f->self, &f->ctx, &req, &mounts, &f->err), &f->err,
		     ERR_INVALID_ARGUMENT);
	req.labels = (struct strmap){bad, 1, 1};
	assert_fails(overlay_ops.prepare(f->self, &f->ctx, &req, &mounts, &f->err), &f->err,
		     ERR_INVALID_ARGUMENT);
	assert_contains(f->err.msg, "together");
	assert_fails(overlay_ops.stat(f->self, &f->ctx, "a", &info, &f->err), &f->err,
		     ERR_NOT_FOUND);
}

static void commit_gives_a_rebased_layer_its_parent(void **state)
{
	static struct strmap_entry chain[] = {{SNAPSHOT_LABEL_PARENT_CHAIN_ID, "sha256:1"}};
	struct fixture *f = *state;
	struct commit_req req = {.name = "B", .key = "b", .parent = "A"};
	struct mount mount;

	set(f, "overlay.rebase=true");
	mount = prepare_labelled(f, "b", "", (struct strmap){chain, 1, 1});
	assert_string_equal(mount.type, "overlay");
	assert_non_null(option(&mount, "lowerdir="));
	prepare(f, "a", "");
	commit(f, "A", "a");
	assert_ok(overlay_ops.commit(f->self, &f->ctx, &req, &f->err), &f->err);
	assert_string_equal(stat_of(f, "B").parent, "A");
	mount = prepare(f, "c", "B");
	assert_contains(option(&mount, "lowerdir="), fs_path(f, "B"));
	assert_contains(option(&mount, "lowerdir="), fs_path(f, "A"));
}

static void a_lost_directory_is_an_internal_error_and_never_not_found(void **state)
{
	struct fixture *f = *state;
	struct usage usage;
	char *path;

	prepare(f, "a", "");
	path = fs_path(f, "a");
	assert_int_equal(rmdir(path), 0);
	assert_fails(overlay_ops.usage(f->self, &f->ctx, "a", &usage, &f->err), &f->err,
		     ERR_INTERNAL);
	assert_fails(overlay_ops.commit(f->self, &f->ctx,
					&(struct commit_req){.name = "A", .key = "a", .parent = ""},
					&f->err),
		     &f->err, ERR_INTERNAL);
	/* The daemon starts all the same, and what it does have goes on. */
	reopen(f);
	assert_int_equal(stat_of(f, "a").kind, SNAPSHOT_ACTIVE);
	assert_ok(overlay_ops.remove(f->self, &f->ctx, "a", &f->err), &f->err);
}

/* --- changes that are begun, without waiting ------------------------------------------------------- */

/** struct begun - a change and its request */
struct begun {
	struct snapshot_change change;
	struct snapshot_req create;
	struct commit_req commit;
	unsigned int n_ends;
};

static void count_end(struct snapshot_change *change)
{
	((struct begun *)((char *)change - offsetof(struct begun, change)))->n_ends++;
}

static enum change_begun begin_prepare(struct fixture *f, struct begun *begun, const char *key,
				       const char *parent)
{
	*begun = (struct begun){.create = {.key = key, .parent = parent}};
	begun->change = (struct snapshot_change){.kind = CHANGE_PREPARE,
						 .ctx = &f->ctx,
						 .create = &begun->create,
						 .done = count_end};
	return overlay_ops.begin(f->self, &begun->change, false);
}

static enum change_begun begin_commit(struct fixture *f, struct begun *begun, const char *name,
				      const char *key)
{
	*begun = (struct begun){.commit = {.name = name, .key = key, .parent = ""}};
	begun->change = (struct snapshot_change){.kind = CHANGE_COMMIT,
						 .ctx = &f->ctx,
						 .commit = &begun->commit,
						 .done = count_end};
	return overlay_ops.begin(f->self, &begun->change, false);
}

static enum change_begun begin_remove(struct fixture *f, struct begun *begun, const char *key)
{
	*begun = (struct begun){0};
	begun->change = (struct snapshot_change){.kind = CHANGE_REMOVE,
						 .ctx = &f->ctx,
						 .key = key,
						 .done = count_end};
	return overlay_ops.begin(f->self, &begun->change, false);
}

static void changes_that_were_begun_end_when_somebody_leads(void **state)
{
	struct fixture *f = *state;
	struct begun a, again, orphan, b, removed;

	prepare(f, "old", "");
	assert_int_equal(begin_prepare(f, &a, "a", ""), CHANGE_LEADS);
	assert_int_equal(begin_prepare(f, &again, "a", ""), CHANGE_PENDING);
	/* What can be refused at once is. */
	assert_int_equal(begin_prepare(f, &orphan, "o", "nobody"), CHANGE_ENDED);
	assert_fails(orphan.change.result, &orphan.change.err, ERR_NOT_FOUND);
	assert_int_equal(begin_prepare(f, &b, "b", ""), CHANGE_PENDING);
	assert_int_equal(begin_remove(f, &removed, "old"), CHANGE_PENDING);
	assert_int_equal(a.n_ends + again.n_ends + b.n_ends + removed.n_ends, 0);

	overlay_ops.lead(f->self);
	assert_int_equal(a.n_ends, 1);
	assert_ok(a.change.result, &a.change.err);
	assert_int_equal(a.change.mounts.n, 1);
	assert_int_equal(again.n_ends, 1);
	assert_fails(again.change.result, &again.change.err, ERR_ALREADY_EXISTS);
	assert_ok(b.change.result, &b.change.err);
	assert_ok(removed.change.result, &removed.change.err);
	assert_int_equal(orphan.n_ends, 0);
	assert_int_equal(stat_of(f, "a").kind, SNAPSHOT_ACTIVE);
	assert_int_equal(stat_of(f, "b").kind, SNAPSHOT_ACTIVE);
}

static void a_parent_that_goes_between_look_and_commit_is_not_found(void **state)
{
	struct fixture *f = *state;
	struct begun removal, child;
	enum change_begun begun;

	prepare(f, "p", "");
	commit(f, "P", "p");
	assert_int_equal(begin_remove(f, &removal, "P"), CHANGE_LEADS);
	begun = begin_prepare(f, &child, "c", "P");
	/* The parent belongs to whoever runs this; unless that is root, the child has to be given to them. */
	if (geteuid() != 0) {
		assert_int_equal(begun, CHANGE_WOULD_WAIT);
		begun = overlay_ops.begin(f->self, &child.change, true);
	}
	assert_int_equal(begun, CHANGE_PENDING);
	overlay_ops.lead(f->self);
	assert_ok(removal.change.result, &removal.change.err);
	assert_fails(child.change.result, &child.change.err, ERR_NOT_FOUND);
}

static void measuring_a_large_layer_is_left_to_those_who_may_wait(void **state)
{
	struct fixture *f = *state;
	struct begun begun;
	char name[16];

	prepare(f, "small", "");
	write_file(fs_path(f, "small"), "file", 4096);
	assert_int_equal(begin_commit(f, &begun, "S", "small"), CHANGE_LEADS);
	overlay_ops.lead(f->self);
	assert_ok(begun.change.result, &begun.change.err);

	prepare(f, "large", "");
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "%d", i);
		write_file(fs_path(f, "large"), name, 0);
	}
	assert_int_equal(begin_commit(f, &begun, "L", "large"), CHANGE_WOULD_WAIT);
	assert_int_equal(begun.n_ends, 0);
	assert_int_equal(stat_of(f, "large").kind, SNAPSHOT_ACTIVE);
	commit(f, "L", "large");
}

static void giving_a_directory_away_is_left_to_those_who_may_wait(void **state)
{
	struct fixture *f = *state;
	struct begun begun;

	prepare(f, "p", "");
	/* Without root it belongs to somebody else than root already. */
	if (geteuid() == 0)
		assert_int_equal(chown(fs_path(f, "p"), 1000, 1000), 0);
	commit(f, "P", "p");
	assert_int_equal(begin_prepare(f, &begun, "c", "P"), CHANGE_WOULD_WAIT);
	assert_int_equal(begun.n_ends, 0);
	prepare(f, "c", "P");
}

static void removing_at_once_is_left_to_those_who_may_wait(void **state)
{
	struct fixture *f = *state;
	struct begun begun;

	set(f, "overlay.sync_remove=true");
	prepare(f, "a", "");
	assert_int_equal(begin_remove(f, &begun, "a"), CHANGE_WOULD_WAIT);
	assert_int_equal(stat_of(f, "a").kind, SNAPSHOT_ACTIVE);
}

/* More than the stock holds, none of which is committed meanwhile: the rest would have to wait. */
static void an_empty_stock_is_not_waited_for(void **state)
{
	struct fixture *f = *state;
	struct begun *begun = calloc(1000, sizeof(*begun));
	char keys[1000][8];
	size_t n_begun = 0;
	bool leads = false;

	assert_non_null(begun);
	for (size_t i = 0; i < 1000; i++) {
		enum change_begun how;

		snprintf(keys[i], sizeof(keys[i]), "%zu", i);
		how = begin_prepare(f, &begun[n_begun], keys[i], "");
		leads |= how == CHANGE_LEADS;
		n_begun += how != CHANGE_WOULD_WAIT;
	}
	if (leads)
		overlay_ops.lead(f->self);
	for (size_t i = 0; i < n_begun; i++) {
		assert_int_equal(begun[i].n_ends, 1);
		assert_ok(begun[i].change.result, &begun[i].change.err);
	}
	free(begun);
}

#define OVERLAY_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		OVERLAY_TEST(mounts_after_a_restart_are_those_that_prepare_gave),
		OVERLAY_TEST(usage_of_an_active_one_is_counted_now_of_a_committed_one_as_committed),
		OVERLAY_TEST(remove_leaves_the_directory_to_cleanup),
		OVERLAY_TEST(sync_remove_deletes_in_remove),
		OVERLAY_TEST(upperdir_label_is_answered_and_never_stored),
		OVERLAY_TEST(the_parents_owner_is_inherited),
		OVERLAY_TEST(an_id_mapping_owns_the_root_and_is_in_the_mount),
		OVERLAY_TEST(an_image_that_the_client_has_chowned_is_not_mapped_again),
		OVERLAY_TEST(an_extraction_cannot_give_its_layer_to_anybody),
		OVERLAY_TEST(a_bad_id_mapping_is_refused_and_leaves_no_trace),
		OVERLAY_TEST(commit_gives_a_rebased_layer_its_parent),
		OVERLAY_TEST(a_lost_directory_is_an_internal_error_and_never_not_found),
		OVERLAY_TEST(changes_that_were_begun_end_when_somebody_leads),
		OVERLAY_TEST(a_parent_that_goes_between_look_and_commit_is_not_found),
		OVERLAY_TEST(measuring_a_large_layer_is_left_to_those_who_may_wait),
		OVERLAY_TEST(giving_a_directory_away_is_left_to_those_who_may_wait),
		OVERLAY_TEST(removing_at_once_is_left_to_those_who_may_wait),
		OVERLAY_TEST(an_empty_stock_is_not_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
