/* SPDX-License-Identifier: Apache-2.0 */
/* The trial mounts; they need root. */
#include "tests/support/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshotters/overlay/kernel.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"

static unsigned int count_lines(const char *path)
{
	FILE *file = fopen(path, "re");
	unsigned int n = 0;
	int c;

	assert_non_null(file);
	while ((c = fgetc(file)) != EOF)
		n += c == '\n';
	fclose(file);
	return n;
}

static void probing_finds_overlayfs_and_leaves_nothing(void **state)
{
	struct temp_root *root = *state;
	struct kernel_abilities abilities = {0};
	unsigned int n_mounts = count_lines("/proc/self/mountinfo");
	struct err err = ERR_INIT;
	struct stat st;

	require_root();
	assert_ok(kernel_probe(root->path, &abilities, &err), &err);
	assert_int_equal(abilities.index_option,
			 access("/sys/module/overlay/parameters/index", F_OK) == 0);
	assert_int_not_equal(fstatat(root->fd, "probe", &st, 0), 0);
	assert_int_equal(count_lines("/proc/self/mountinfo"), n_mounts);
}

static void what_a_crash_left_of_a_probe_is_in_nobodys_way(void **state)
{
	struct temp_root *root = *state;
	struct kernel_abilities abilities = {0};
	struct err err = ERR_INIT;
	struct stat st;

	assert_int_equal(mkdirat(root->fd, "probe", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "probe/work", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "probe/work/work", 0), 0);
	require_root();
	assert_ok(kernel_probe(root->path, &abilities, &err), &err);
	assert_int_not_equal(fstatat(root->fd, "probe", &st, 0), 0);
}

static void a_root_that_cannot_carry_an_upper_directory_is_refused(void **state)
{
	struct temp_root *root = *state;
	struct kernel_abilities abilities = {0};
	struct err err = ERR_INIT;
	char *options, *merged = temp_root_path(root, "merged");
	static const char *const names[] = {"lower", "upper", "work", "merged"};

	require_private_mounts();
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		assert_int_equal(mkdirat(root->fd, names[i], 0755), 0);
	assert_true(asprintf(&options, "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work",
			     root->path, root->path, root->path) > 0);
	/* An overlay with an upper directory cannot be the upper directory of another. */
	assert_int_equal(mount("overlay", merged, "overlay", 0, options), 0);
	assert_fails(kernel_probe(merged, &abilities, &err), &err, ERR_FAILED_PRECONDITION);
	assert_contains(err.msg, merged);
	assert_int_equal(umount(merged), 0);
	free(options);
	free(merged);
}

static int try_option(const char *option, struct err *err)
{
	char *options[] = {"xino=off", (char *)(uintptr_t)option};
	struct conf_list list = {options, 2};

	return kernel_try_options(&list, true, err);
}

static void options_of_overlayfs_and_flags_of_mount_are_accepted(void **state)
{
	static const char *const options[] = {
		"volatile",    "redirect_dir=on",
		"metacopy=on", "index=on",
		"userxattr",   "async",
		"atime",       "dev",
		"diratime",    "dirsync",
		"exec",        "mand",
		"noatime",     "nodev",
		"nodiratime",  "noexec",
		"nomand",      "norelatime",
		"nosuid",      "nostrictatime",
		"relatime",    "ro",
		"rw",          "strictatime",
		"suid",        "sync",
	};
	unsigned int n_mounts = count_lines("/proc/self/mountinfo");

	(void)state;
	require_private_mounts();
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		struct err err = ERR_INIT;

		if (try_option(options[i], &err) < 0)
			fail_msg("%s", err.msg);
	}
	assert_int_equal(count_lines("/proc/self/mountinfo"), n_mounts);
}

static void options_that_a_mount_would_fail_with_are_refused(void **state)
{
	static const char *const options[] = {"volatil", "nonsense=1", "redirect_dir=maybe",
					      "defaults"};

	(void)state;
	require_private_mounts();
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		struct err err = ERR_INIT;

		assert_fails(try_option(options[i], &err), &err, ERR_INVALID_ARGUMENT);
		assert_contains(err.msg, "xino=off,");
		assert_contains(err.msg, options[i]);
	}
}

static void options_longer_than_the_kernel_takes_are_refused(void **state)
{
	char *option = calloc(1, 4096);
	struct err err = ERR_INIT;

	(void)state;
	memset(option, 'x', 4095);
	assert_fails(try_option(option, &err), &err, ERR_INVALID_ARGUMENT);
	assert_contains(err.msg, "too long");
	free(option);
}

static void options_that_exclude_index_off_are_refused_with_it_alone(void **state)
{
	char *options[] = {"nfs_export=on"};
	struct conf_list list = {options, 1};
	struct err err = ERR_INIT;

	(void)state;
	require_private_mounts();
	if (access(KERNEL_INDEX_PARAMETER, F_OK) < 0)
		skip();
	assert_fails(kernel_try_options(&list, true, &err), &err, ERR_INVALID_ARGUMENT);
	assert_ok(kernel_try_options(&list, false, &err), &err);
}

static void on_a_full_disk_mounts_are_tried_all_the_same(void **state)
{
	struct temp_root *root = *state;
	struct kernel_abilities with_room = {0}, abilities = {0};
	char *full = temp_root_path(root, "full");
	unsigned int n_mounts;
	struct err err = ERR_INIT;

	require_private_mounts();
	assert_int_equal(mkdirat(root->fd, "full", 0700), 0);
	/* From no room for any directory to room for all but the one that the mount makes. */
	for (int n_inodes = 7; n_inodes >= 1; n_inodes--) {
		char options[64];

		snprintf(options, sizeof(options), "nr_inodes=%d", n_inodes);
		assert_int_equal(mount("none", full, "tmpfs", 0, "nr_inodes=100"), 0);
		assert_ok(kernel_probe(full, &with_room, &err), &err);
		assert_int_equal(mount(NULL, full, NULL, MS_REMOUNT, options), 0);
		n_mounts = count_lines("/proc/self/mountinfo");
		assert_ok(kernel_probe(full, &abilities, &err), &err);
		assert_int_equal(abilities.idmap, with_room.idmap);
		assert_int_equal(abilities.index_option, with_room.index_option);
		assert_int_equal(count_lines("/proc/self/mountinfo"), n_mounts);
		assert_int_equal(umount(full), 0);
	}
	free(full);
}

#define KERNEL_TEST(test) cmocka_unit_test_setup_teardown(test, temp_root_setup, temp_root_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(probing_finds_overlayfs_and_leaves_nothing),
		KERNEL_TEST(what_a_crash_left_of_a_probe_is_in_nobodys_way),
		KERNEL_TEST(a_root_that_cannot_carry_an_upper_directory_is_refused),
		cmocka_unit_test(options_of_overlayfs_and_flags_of_mount_are_accepted),
		cmocka_unit_test(options_that_a_mount_would_fail_with_are_refused),
		cmocka_unit_test(options_longer_than_the_kernel_takes_are_refused),
		cmocka_unit_test(options_that_exclude_index_off_are_refused_with_it_alone),
		KERNEL_TEST(on_a_full_disk_mounts_are_tried_all_the_same),
	};

	return cmocka_run_group_tests(tests, private_mounts_setup, NULL);
}
