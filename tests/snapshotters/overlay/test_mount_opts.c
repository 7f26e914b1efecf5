/* SPDX-License-Identifier: Apache-2.0 */
/* The table of containerd's overlayfs snapshotter 2.x, case by case, option by option. */
#include "tests/snapshotters/overlay/layers_fixture.h"

#include "snapshotters/overlay/mount_opts.h"

static char *volatile_option[] = {"volatile"};

/* Settings under which one case is looked at. */
struct setting {
	struct overlay_conf conf;
	struct kernel_abilities kernel;
};

static struct setting plain(void)
{
	return (struct setting){.conf = {.remap_ids = "auto"}};
}

/* "type source option,option,..." with the root replaced by "@". */
static char *mounts_text(struct fixture *f, const struct setting *setting,
			 const struct mount_case *what)
{
	struct err err = ERR_INIT;
	struct mount_opts opts;
	struct mounts mounts = {0};
	char *text = calloc(1, 65536), *at, *out;
	size_t root_len = strlen(f->root->path);

	assert_ok(mount_opts_init(&opts, &setting->conf, &setting->kernel, &err), &err);
	assert_ok(mount_opts_mounts(&opts, f->layers, &f->ctx, what, &mounts, &err), &err);
	assert_int_equal(mounts.n, 1);
	assert_string_equal(mounts.items[0].target, "");
	sprintf(text, "%s %s ", mounts.items[0].type, mounts.items[0].source);
	for (size_t i = 0; i < mounts.items[0].n_options; i++) {
		if (i)
			strcat(text, ",");
		strcat(text, mounts.items[0].options[i]);
	}
	mount_opts_done(&opts);
	for (at = out = text; *at;) {
		if (strncmp(at, f->root->path, root_len) == 0) {
			*out++ = '@';
			at += root_len;
		} else {
			*out++ = *at++;
		}
	}
	*out = '\0';
	return text;
}

static void expect(struct fixture *f, const struct setting *setting, const struct mount_case *what,
		   const char *want)
{
	char *text = mounts_text(f, setting, what);

	assert_string_equal(text, want);
	free(text);
}

static const uint64_t parents[] = {6, 5, 4};
static const struct strmap no_labels;

static struct mount_case case_of(enum snapshot_kind kind, size_t n_parents)
{
	return (struct mount_case){
		.id = 7,
		.kind = kind,
		.labels = &no_labels,
		.parents = parents,
		.n_parents = n_parents,
	};
}

static void each_case_has_its_mount(void **state)
{
	struct fixture *f = *state;
	struct setting setting = plain();
	struct mount_case what;

	what = case_of(SNAPSHOT_ACTIVE, 0);
	expect(f, &setting, &what, "bind @/snapshots/7 rw,rbind");
	what = case_of(SNAPSHOT_VIEW, 0);
	expect(f, &setting, &what, "bind @/snapshots/7 ro,rbind");
	what = case_of(SNAPSHOT_VIEW, 1);
	expect(f, &setting, &what, "bind @/snapshots/6 ro,rbind");
	what = case_of(SNAPSHOT_VIEW, 3);
	expect(f, &setting, &what,
	       "overlay overlay lowerdir=@/snapshots/6:@/snapshots/5:@/snapshots/4");
	what = case_of(SNAPSHOT_ACTIVE, 1);
	expect(f, &setting, &what,
	       "overlay overlay workdir=@/work/7,upperdir=@/snapshots/7,"
	       "lowerdir=@/snapshots/6");
	what = case_of(SNAPSHOT_ACTIVE, 2);
	expect(f, &setting, &what,
	       "overlay overlay workdir=@/work/7,upperdir=@/snapshots/7,"
	       "lowerdir=@/snapshots/6:@/snapshots/5");
}

static void common_options_end_overlay_mounts_alone(void **state)
{
	struct fixture *f = *state;
	struct setting setting = plain();
	struct mount_case what;

	setting.conf.mount_options = (struct conf_list){volatile_option, 1};
	setting.kernel = (struct kernel_abilities){.index_option = true, .user_xattr = true};
	what = case_of(SNAPSHOT_ACTIVE, 1);
	expect(f, &setting, &what,
	       "overlay overlay workdir=@/work/7,upperdir=@/snapshots/7,"
	       "lowerdir=@/snapshots/6,volatile,userxattr,index=off");
	what = case_of(SNAPSHOT_VIEW, 2);
	expect(f, &setting, &what,
	       "overlay overlay "
	       "lowerdir=@/snapshots/6:@/snapshots/5,volatile,userxattr,index=off");
	what = case_of(SNAPSHOT_ACTIVE, 0);
	expect(f, &setting, &what, "bind @/snapshots/7 rw,rbind");
	what = case_of(SNAPSHOT_VIEW, 1);
	expect(f, &setting, &what, "bind @/snapshots/6 ro,rbind");
}

static void what_the_operator_sets_is_not_set_again(void **state)
{
	struct fixture *f = *state;
	struct setting setting = plain();
	struct mount_case what = case_of(SNAPSHOT_VIEW, 2);
	char *index_on[] = {"index=on", "userxattr"};

	setting.kernel = (struct kernel_abilities){.index_option = true, .user_xattr = true};
	setting.conf.mount_options = (struct conf_list){index_on, 2};
	expect(f, &setting, &what,
	       "overlay overlay lowerdir=@/snapshots/6:@/snapshots/5,index=on,userxattr");
}

static void assert_option_refused(const char *option, const char *message)
{
	char *options[] = {"xino=off", (char *)(uintptr_t)option};
	struct overlay_conf conf = {.mount_options = {options, 2}};
	struct err err = ERR_INIT;

	assert_fails(mount_opts_check(&conf, &err), &err, ERR_INVALID_ARGUMENT);
	assert_contains(err.msg, message);
}

static void options_that_would_make_it_another_mount_are_refused(void **state)
{
	(void)state;
	assert_option_refused("lowerdir=/x", "'lowerdir' is not yours to set");
	assert_option_refused("upperdir=/x", "'upperdir' is not yours");
	assert_option_refused("workdir=/x", "'workdir' is not yours");
	assert_option_refused("uidmap=0:1:1", "'uidmap' is not yours");
	assert_option_refused("gidmap=0:1:1", "'gidmap' is not yours");
	assert_option_refused("bind", "'bind' is not yours");
	assert_option_refused("rbind", "'rbind' is not yours");
	assert_option_refused("remount", "'remount' is not yours");
	assert_option_refused("loop", "'loop' is not yours");
}

static void an_element_of_the_list_is_one_option(void **state)
{
	(void)state;
	assert_option_refused("", "'' is not one option");
	assert_option_refused("nodev,noexec", "'nodev,noexec' is not one option");
	/* Else this would set what it must not. */
	assert_option_refused("xino=on,lowerdir=/x", "is not one option");
	assert_option_refused("context=\"a,b", "is not one option");
}

static struct strmap_entry mapping_entries[] = {
	{SNAPSHOT_LABEL_GID_MAPPING, "0:200000:65536"},
	{SNAPSHOT_LABEL_UID_MAPPING, "0:100000:65536"},
};
static const struct strmap mapping_labels = {mapping_entries, 2, 2};

static void id_mappings_begin_every_kind_of_mount(void **state)
{
	struct fixture *f = *state;
	struct setting setting = plain();
	struct mount_case what = case_of(SNAPSHOT_ACTIVE, 1);

	what.labels = &mapping_labels;
	what.remapped = true;
	expect(f, &setting, &what,
	       "overlay overlay uidmap=0:100000:65536,gidmap=0:200000:65536,"
	       "workdir=@/work/7,upperdir=@/snapshots/7,lowerdir=@/snapshots/6");
	what.n_parents = 0;
	expect(f, &setting, &what,
	       "bind @/snapshots/7 uidmap=0:100000:65536,gidmap=0:200000:65536,rw,rbind");
	what.kind = SNAPSHOT_VIEW;
	what.n_parents = 1;
	expect(f, &setting, &what,
	       "bind @/snapshots/6 uidmap=0:100000:65536,gidmap=0:200000:65536,ro,rbind");
	what.remapped = false;
	expect(f, &setting, &what, "bind @/snapshots/6 ro,rbind");
}

static void remap_ids_follows_kernel_and_configuration(void **state)
{
	static const struct {
		const char *remap_ids;
		bool kernel;
		bool want;
	} cases[] = {
		{"auto", false, false}, {"auto", true, true},   {"always", false, true},
		{"always", true, true}, {"never", true, false}, {"never", false, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct overlay_conf conf = {.remap_ids = (char *)(uintptr_t)cases[i].remap_ids};
		struct kernel_abilities kernel = {.idmap = cases[i].kernel};
		struct err err = ERR_INIT;
		struct mount_opts opts;

		assert_ok(mount_opts_init(&opts, &conf, &kernel, &err), &err);
		assert_int_equal(opts.remap_ids, cases[i].want);
		mount_opts_done(&opts);
	}
}

static void a_rebased_extraction_gets_an_overlay_only_when_switched_on(void **state)
{
	static struct strmap_entry entries[] = {{SNAPSHOT_LABEL_PARENT_CHAIN_ID, "sha256:1234"}};
	static const struct strmap labels = {entries, 1, 1};
	struct fixture *f = *state;
	struct setting setting = plain();
	struct mount_case what = case_of(SNAPSHOT_ACTIVE, 0);

	what.labels = &labels;
	expect(f, &setting, &what, "bind @/snapshots/7 rw,rbind");
	setting.conf.rebase = true;
	expect(f, &setting, &what,
	       "overlay overlay "
	       "workdir=@/work/7,upperdir=@/snapshots/7,lowerdir=@/empty");
	/* The bottom layer has no such label, and a view is never unpacked into. */
	what.labels = &no_labels;
	expect(f, &setting, &what, "bind @/snapshots/7 rw,rbind");
	what.labels = &labels;
	what.kind = SNAPSHOT_VIEW;
	expect(f, &setting, &what, "bind @/snapshots/7 ro,rbind");
}

static void the_128_layers_of_an_image_are_all_named(void **state)
{
	struct fixture *f = *state;
	struct setting setting = plain();
	struct mount_case what = case_of(SNAPSHOT_VIEW, 128);
	uint64_t ids[128];
	char *text;

	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		ids[i] = 1000 - i;
	what.parents = ids;
	text = mounts_text(f, &setting, &what);
	assert_contains(text, "lowerdir=@/snapshots/1000:@/snapshots/999:");
	assert_contains(text, ":@/snapshots/874:@/snapshots/873");
	free(text);
}

#define MOUNT_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		MOUNT_TEST(each_case_has_its_mount),
		MOUNT_TEST(common_options_end_overlay_mounts_alone),
		MOUNT_TEST(what_the_operator_sets_is_not_set_again),
		MOUNT_TEST(options_that_would_make_it_another_mount_are_refused),
		MOUNT_TEST(an_element_of_the_list_is_one_option),
		MOUNT_TEST(id_mappings_begin_every_kind_of_mount),
		MOUNT_TEST(remap_ids_follows_kernel_and_configuration),
		MOUNT_TEST(a_rebased_extraction_gets_an_overlay_only_when_switched_on),
		MOUNT_TEST(the_128_layers_of_an_image_are_all_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
