/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/fault.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

static int count_one(void *arg, const char *name, unsigned char type, struct err *err)
{
	(void)name;
	(void)type;
	(void)err;
	++*(unsigned int *)arg;
	return 0;
}

static unsigned int n_entries(int fd)
{
	struct err err = ERR_INIT;
	unsigned int n = 0;

	assert_ok(fs_each_entry(fd, ".", count_one, &n, &err), &err);
	return n;
}

static mode_t mode_of(int dirfd, const char *name)
{
	struct stat st;

	assert_int_equal(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st.st_mode & 07777;
}

static void assert_content(int dirfd, const char *name, const char *want)
{
	struct err err = ERR_INIT;
	char *data;
	size_t size;

	assert_ok(fs_read_file(dirfd, name, 1000, &data, &size, &err), &err);
	assert_int_equal(size, strlen(want));
	assert_string_equal(data, want);
	free(data);
}

/* ---- open ---- */

static void open_dir_opens_directories_only(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	int fd = -1;

	assert_int_equal(mkdirat(root->fd, "dir", 0700), 0);
	assert_int_equal(symlinkat("dir", root->fd, "link"), 0);
	assert_ok(fs_write_file(root->fd, "file", 0600, "", 0, &err), &err);

	assert_fails(fs_open_dir(root->fd, "link", &fd, &err), &err, ERR_INTERNAL);
	assert_contains(err.msg, "'link'");
	assert_fails(fs_open_dir(root->fd, "file", &fd, &err), &err, ERR_INTERNAL);
	assert_int_equal(err.sys_errno, ENOTDIR);
	assert_fails(fs_open_dir(root->fd, "missing", &fd, &err), &err, ERR_INTERNAL);
	assert_int_equal(err.sys_errno, ENOENT);
	assert_int_equal(fd, -1);

	assert_ok(fs_open_dir(root->fd, "dir", &fd, &err), &err);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(fd);
	assert_ok(fs_open_dir(AT_FDCWD, root->path, &fd, &err), &err);
	close(fd);
}

/* ---- make_dirs ---- */

static void make_dirs_makes_what_is_missing_with_the_mode(void **state)
{
	struct temp_root *root = *state;
	char *path = temp_root_path(root, "have/a//b/./c/");
	struct err err = ERR_INIT;
	mode_t umask_before;

	assert_int_equal(mkdirat(root->fd, "have", 0700), 0);
	umask_before = umask(077);
	assert_ok(fs_make_dirs(path, 0751, &err), &err);
	assert_int_equal(mode_of(root->fd, "have"), 0700);
	assert_int_equal(mode_of(root->fd, "have/a"), 0751);
	assert_int_equal(mode_of(root->fd, "have/a/b"), 0751);
	assert_int_equal(mode_of(root->fd, "have/a/b/c"), 0751);
	/* Again changes nothing. */
	assert_ok(fs_make_dirs(path, 0700, &err), &err);
	assert_int_equal(mode_of(root->fd, "have/a/b/c"), 0751);
	assert_ok(fs_make_dirs("/", 0700, &err), &err);
	umask(umask_before);
	free(path);
}

static void make_dirs_wants_an_absolute_path(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	assert_fails(fs_make_dirs("a/b", 0700, &err), &err, ERR_INVALID_ARGUMENT);
	assert_fails(fs_make_dirs("", 0700, &err), &err, ERR_INVALID_ARGUMENT);
}

static void make_dirs_reports_a_file_in_the_way(void **state)
{
	struct temp_root *root = *state;
	char *path = temp_root_path(root, "file/a");
	struct err err = ERR_INIT;

	assert_ok(fs_write_file(root->fd, "file", 0600, "", 0, &err), &err);
	assert_fails(fs_make_dirs(path, 0700, &err), &err, ERR_INTERNAL);
	assert_int_equal(err.sys_errno, ENOTDIR);
	assert_contains(err.msg, path);
	free(path);
}

static void make_dirs_follows_links_only_where_nobody_else_writes(void **state)
{
	struct temp_root *root = *state;
	char *path = temp_root_path(root, "parent/link/made");
	struct err err = ERR_INIT;

	assert_int_equal(mkdirat(root->fd, "parent", 0755), 0);
	assert_int_equal(mkdirat(root->fd, "target", 0700), 0);
	assert_int_equal(symlinkat("../target", root->fd, "parent/link"), 0);

	assert_int_equal(fchmodat(root->fd, "parent", 01777, 0), 0);
	assert_fails(fs_make_dirs(path, 0700, &err), &err, ERR_INTERNAL);
	assert_int_equal(faccessat(root->fd, "target/made", F_OK, 0), -1);

	assert_int_equal(fchmodat(root->fd, "parent", 0755, 0), 0);
	assert_ok(fs_make_dirs(path, 0700, &err), &err);
	assert_int_equal(mode_of(root->fd, "target/made"), 0700);
	free(path);
}

static void make_dirs_reports_a_failed_sync(void **state)
{
	struct temp_root *root = *state;
	char *path = temp_root_path(root, "a");
	struct err err = ERR_INIT;

	fault_after(FAULT_FSYNC, 0, EIO);
	assert_fails(fs_make_dirs(path, 0700, &err), &err, ERR_INTERNAL);
	assert_int_equal(fault_clear(), 1);
	assert_int_equal(err.sys_errno, EIO);
	free(path);
}

/* ---- write_file ---- */

static void write_file_makes_and_replaces_with_the_mode(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	mode_t umask_before = umask(077);

	assert_ok(fs_write_file(root->fd, "f", 0644, "first", 5, &err), &err);
	assert_content(root->fd, "f", "first");
	assert_int_equal(mode_of(root->fd, "f"), 0644);
	assert_ok(fs_write_file(root->fd, "f", 0600, "2", 1, &err), &err);
	assert_content(root->fd, "f", "2");
	assert_int_equal(mode_of(root->fd, "f"), 0600);
	assert_ok(fs_write_file(root->fd, "f", 0600, NULL, 0, &err), &err);
	assert_content(root->fd, "f", "");
	assert_int_equal(n_entries(root->fd), 1);
	umask(umask_before);
}

static void write_file_replaces_a_link_and_not_its_target(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	assert_ok(fs_write_file(root->fd, "target", 0600, "old", 3, &err), &err);
	assert_int_equal(symlinkat("target", root->fd, "link"), 0);
	assert_ok(fs_write_file(root->fd, "link", 0600, "new", 3, &err), &err);
	assert_content(root->fd, "target", "old");
	assert_content(root->fd, "link", "new");
}

static void write_file_refuses_paths(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	assert_fails(fs_write_file(root->fd, "a/b", 0600, "", 0, &err), &err, ERR_INVALID_ARGUMENT);
	assert_fails(fs_write_file(root->fd, "", 0600, "", 0, &err), &err, ERR_INVALID_ARGUMENT);
	assert_int_equal(n_entries(root->fd), 0);
}

static void write_file_completes_short_writes(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	fault_short_writes();
	assert_ok(fs_write_file(root->fd, "f", 0600, "content", 7, &err), &err);
	fault_clear();
	assert_content(root->fd, "f", "content");
}

/* Whatever fails: an error that names the file, the old content, and no temporary file. */
static void write_file_leaves_no_trace_of_a_failure(void **state)
{
	static const struct {
		enum fault_call call;
		int errnum;
		enum err_code code;
	} rows[] = {
		{FAULT_WRITE, ENOSPC, ERR_RESOURCE_EXHAUSTED},
		{FAULT_WRITE, EIO, ERR_INTERNAL},
		{FAULT_FSYNC, EIO, ERR_INTERNAL},
		{FAULT_FSYNC, EDQUOT, ERR_RESOURCE_EXHAUSTED},
		{FAULT_RENAMEAT, EIO, ERR_INTERNAL},
	};
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	assert_ok(fs_write_file(root->fd, "f", 0600, "old", 3, &err), &err);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		fault_after(rows[i].call, 0, rows[i].errnum);
		assert_fails(fs_write_file(root->fd, "f", 0600, "new", 3, &err), &err,
			     rows[i].code);
		assert_int_equal(fault_clear(), 1);
		assert_int_equal(err.sys_errno, rows[i].errnum);
		assert_contains(err.msg, "write 'f': ");
		assert_content(root->fd, "f", "old");
		assert_int_equal(n_entries(root->fd), 1);
	}
}

static void write_file_reports_that_the_name_may_not_be_durable(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	/* The second fsync() is the directory's. */
	fault_after(FAULT_FSYNC, 1, EIO);
	assert_fails(fs_write_file(root->fd, "f", 0600, "new", 3, &err), &err, ERR_INTERNAL);
	assert_int_equal(fault_clear(), 1);
	assert_int_equal(n_entries(root->fd), 1);
}

static void write_file_does_not_replace_a_directory(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	assert_int_equal(mkdirat(root->fd, "d", 0700), 0);
	assert_fails(fs_write_file(root->fd, "d", 0600, "", 0, &err), &err, ERR_INTERNAL);
	assert_int_equal(err.sys_errno, EISDIR);
	assert_int_equal(n_entries(root->fd), 1);
}

static void write_file_on_a_full_disk_keeps_the_old_file(void **state)
{
	struct temp_root *root = *state;
	char *path = temp_root_path(root, "small");
	char *data = calloc(1, (size_t)1024 * 1024);
	struct err err = ERR_INIT;
	int fd;

	require_private_mounts();
	assert_int_equal(mkdirat(root->fd, "small", 0700), 0);
	mount_tmpfs(path, (size_t)256 * 1024);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_ok(fs_write_file(fd, "f", 0600, "old", 3, &err), &err);
	assert_fails(fs_write_file(fd, "f", 0600, data, (size_t)1024 * 1024, &err), &err,
		     ERR_RESOURCE_EXHAUSTED);
	assert_int_equal(err.sys_errno, ENOSPC);
	assert_content(fd, "f", "old");
	assert_int_equal(n_entries(fd), 1);
	close(fd);
	assert_int_equal(umount(path), 0);
	free(data);
	free(path);
}

static void a_read_only_file_system_is_failed_precondition(void **state)
{
	struct temp_root *root = *state;
	char *path = temp_root_path(root, "ro");
	char *below = temp_root_path(root, "ro/new");
	struct err err = ERR_INIT;
	int fd;

	require_private_mounts();
	assert_int_equal(mkdirat(root->fd, "ro", 0700), 0);
	mount_tmpfs(path, (size_t)256 * 1024);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(fd, "tree", 0700), 0);
	assert_int_equal(mkdirat(fd, "tree/sub", 0700), 0);
	assert_int_equal(mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);

	assert_fails(fs_write_file(fd, "f", 0600, "x", 1, &err), &err, ERR_FAILED_PRECONDITION);
	assert_fails(fs_make_dirs(below, 0700, &err), &err, ERR_FAILED_PRECONDITION);
	assert_fails(fs_remove_tree(NULL, fd, "tree", &err), &err, ERR_FAILED_PRECONDITION);
	assert_contains(err.msg, "'tree");
	assert_int_equal(err.sys_errno, EROFS);
	close(fd);
	assert_int_equal(umount(path), 0);
	free(path);
	free(below);
}

/* ---- descriptors ---- */

/* In a child, since the limit would hit cmocka too. Ends with the number of the check that failed. */
static int without_descriptors(void *arg)
{
	struct temp_root *root = arg;
	struct rlimit limit;
	struct err err = ERR_INIT;
	struct fs_usage usage;
	unsigned int n = 0;
	char *data;
	size_t size;
	int fd;

	/* All numbers below the limit are taken; what is above does not count. */
	while ((fd = open("/", O_RDONLY | O_CLOEXEC)) >= 0 && fd < root->fd)
		;
	if (fd >= 0)
		close(fd);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = (rlim_t)root->fd + 1;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1;
	if (fs_write_file(root->fd, "f", 0600, "new", 3, &err) != -1 || err.sys_errno != EMFILE)
		return 2;
	if (fs_read_file(root->fd, "f", 100, &data, &size, &err) != -1 || err.sys_errno != EMFILE)
		return 3;
	if (fs_remove_tree(NULL, root->fd, "tree", &err) != -1 || err.sys_errno != EMFILE)
		return 4;
	if (fs_disk_usage(NULL, root->fd, "tree", &usage, &err) != -1 || err.sys_errno != EMFILE)
		return 5;
	if (fs_each_entry(root->fd, ".", count_one, &n, &err) != -1 || err.sys_errno != EMFILE)
		return 6;
	if (fs_open_dir(root->fd, ".", &fd, &err) != -1 || err.code != ERR_RESOURCE_EXHAUSTED)
		return 7;
	if (fs_make_dirs(root->path, 0700, &err) != -1 || err.sys_errno != EMFILE)
		return 8;
	return 0;
}

static void running_out_of_descriptors_changes_nothing(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	int status;

	assert_ok(fs_write_file(root->fd, "f", 0600, "old", 3, &err), &err);
	assert_int_equal(mkdirat(root->fd, "tree", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "tree/sub", 0700), 0);
	status = run_child(without_descriptors, root);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_content(root->fd, "f", "old");
	assert_int_equal(n_entries(root->fd), 2);
}

/* ---- read_file ---- */

static void read_file_gives_bytes_and_size(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	char *data;
	size_t size;

	assert_ok(fs_write_file(root->fd, "f", 0600, "a\0b", 3, &err), &err);
	assert_ok(fs_read_file(root->fd, "f", 3, &data, &size, &err), &err);
	assert_int_equal(size, 3);
	assert_memory_equal(data, "a\0b\0", 4);
	free(data);
}

static void read_file_refuses_more_than_the_cap(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	char *data = NULL;
	size_t size;

	assert_ok(fs_write_file(root->fd, "f", 0600, "abcd", 4, &err), &err);
	assert_fails(fs_read_file(root->fd, "f", 3, &data, &size, &err), &err,
		     ERR_RESOURCE_EXHAUSTED);
	assert_null(data);
	assert_ok(fs_read_file(root->fd, "f", 4, &data, &size, &err), &err);
	free(data);
	assert_ok(fs_read_file(root->fd, "f", SIZE_MAX, &data, &size, &err), &err);
	free(data);
}

/* Files of /proc say that they are empty, and are read to their end all the same. */
static void read_file_does_not_trust_the_size(void **state)
{
	struct err err = ERR_INIT;
	char *data;
	size_t size;

	(void)state;
	assert_ok(fs_read_file(AT_FDCWD, "/proc/self/status", 1 << 20, &data, &size, &err), &err);
	assert_contains(data, "Pid:");
	assert_int_equal(strlen(data), size);
	free(data);
	assert_ok(fs_read_file(AT_FDCWD, "/proc/kallsyms", 1 << 26, &data, &size, &err), &err);
	assert_int_equal(strlen(data), size);
	assert_true(size > 10000);
	free(data);
	assert_fails(fs_read_file(AT_FDCWD, "/proc/self/status", 10, &data, &size, &err), &err,
		     ERR_RESOURCE_EXHAUSTED);
}

static void read_file_refuses_what_is_no_file(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	char *data;
	size_t size;

	assert_int_equal(mkdirat(root->fd, "dir", 0700), 0);
	assert_int_equal(mkfifoat(root->fd, "fifo", 0600), 0);
	assert_int_equal(symlinkat("/etc/passwd", root->fd, "link"), 0);
	assert_fails(fs_read_file(root->fd, "dir", 100, &data, &size, &err), &err, ERR_INTERNAL);
	assert_fails(fs_read_file(root->fd, "fifo", 100, &data, &size, &err), &err, ERR_INTERNAL);
	assert_fails(fs_read_file(root->fd, "link", 100, &data, &size, &err), &err, ERR_INTERNAL);
	assert_int_equal(err.sys_errno, ELOOP);
	assert_fails(fs_read_file(root->fd, "missing", 100, &data, &size, &err), &err,
		     ERR_INTERNAL);
	assert_int_equal(err.sys_errno, ENOENT);
}

static void read_file_reports_that_memory_is_gone(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	char *data = NULL;
	size_t size;

	assert_ok(fs_write_file(root->fd, "f", 0600, "abcd", 4, &err), &err);
	fault_after(FAULT_REALLOC, 0, ENOMEM);
	assert_fails(fs_read_file(root->fd, "f", 100, &data, &size, &err), &err,
		     ERR_RESOURCE_EXHAUSTED);
	assert_int_equal(fault_clear(), 1);
	assert_null(data);
}

/* ---- each_entry ---- */

struct seen {
	unsigned int n, n_dirs, n_files, n_links;
	int stop_with;
};

static int see(void *arg, const char *name, unsigned char type, struct err *err)
{
	struct seen *seen = arg;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return err_set(err, ERR_INTERNAL, "not to be seen");
	seen->n++;
	seen->n_dirs += type == DT_DIR;
	seen->n_files += type == DT_REG;
	seen->n_links += type == DT_LNK;
	if (seen->stop_with < 0)
		return err_set(err, ERR_ABORTED, "stopped");
	return seen->stop_with;
}

/* More than one buffer of the kernel's answers. */
static void each_entry_sees_every_one_once(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct seen seen = {0};

	for (int i = 0; i < 1000; i++) {
		char name[64];

		snprintf(name, sizeof(name), "a-name-of-fair-length-%d", i);
		assert_int_equal(mkdirat(root->fd, name, 0700), 0);
	}
	assert_int_equal(symlinkat("x", root->fd, "link"), 0);
	assert_ok(fs_write_file(root->fd, "file", 0600, "", 0, &err), &err);
	assert_ok(fs_each_entry(root->fd, ".", see, &seen, &err), &err);
	assert_int_equal(seen.n, 1002);
	assert_int_equal(seen.n_dirs, 1000);
	assert_int_equal(seen.n_files, 1);
	assert_int_equal(seen.n_links, 1);
}

static void each_entry_stops_when_told(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct seen seen = {.stop_with = 7};

	assert_int_equal(mkdirat(root->fd, "a", 0700), 0);
	assert_int_equal(mkdirat(root->fd, "b", 0700), 0);
	assert_int_equal(fs_each_entry(root->fd, ".", see, &seen, &err), 7);
	assert_int_equal(seen.n, 1);
	seen = (struct seen){.stop_with = -1};
	assert_fails(fs_each_entry(root->fd, ".", see, &seen, &err), &err, ERR_ABORTED);
	assert_int_equal(seen.n, 1);
}

static void each_entry_reports_failures(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;
	struct seen seen = {0};

	assert_fails(fs_each_entry(root->fd, "missing", see, &seen, &err), &err, ERR_INTERNAL);
	fault_after(FAULT_GETDENTS64, 0, EIO);
	assert_fails(fs_each_entry(root->fd, ".", see, &seen, &err), &err, ERR_INTERNAL);
	assert_int_equal(fault_clear(), 1);
	assert_int_equal(err.sys_errno, EIO);
}

static void is_empty_tells_an_empty_directory_from_others(void **state)
{
	struct temp_root *root = *state;
	struct err err = ERR_INIT;

	assert_int_equal(mkdirat(root->fd, "a", 0700), 0);
	assert_int_equal(fs_is_empty(root->fd, "a", &err), 1);
	assert_int_equal(mkdirat(root->fd, "a/.hidden", 0700), 0);
	assert_int_equal(fs_is_empty(root->fd, "a", &err), 0);
	assert_fails(fs_is_empty(root->fd, "missing", &err), &err, ERR_INTERNAL);
}

#define WITH_ROOT(test) cmocka_unit_test_setup_teardown(test, temp_root_setup, temp_root_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ROOT(open_dir_opens_directories_only),
		WITH_ROOT(make_dirs_makes_what_is_missing_with_the_mode),
		cmocka_unit_test(make_dirs_wants_an_absolute_path),
		WITH_ROOT(make_dirs_reports_a_file_in_the_way),
		WITH_ROOT(make_dirs_follows_links_only_where_nobody_else_writes),
		WITH_ROOT(make_dirs_reports_a_failed_sync),
		WITH_ROOT(write_file_makes_and_replaces_with_the_mode),
		WITH_ROOT(write_file_replaces_a_link_and_not_its_target),
		WITH_ROOT(write_file_refuses_paths),
		WITH_ROOT(write_file_completes_short_writes),
		WITH_ROOT(write_file_leaves_no_trace_of_a_failure),
		WITH_ROOT(write_file_reports_that_the_name_may_not_be_durable),
		WITH_ROOT(write_file_does_not_replace_a_directory),
		WITH_ROOT(write_file_on_a_full_disk_keeps_the_old_file),
		WITH_ROOT(a_read_only_file_system_is_failed_precondition),
		WITH_ROOT(running_out_of_descriptors_changes_nothing),
		WITH_ROOT(read_file_gives_bytes_and_size),
		WITH_ROOT(read_file_refuses_more_than_the_cap),
		cmocka_unit_test(read_file_does_not_trust_the_size),
		WITH_ROOT(read_file_refuses_what_is_no_file),
		WITH_ROOT(read_file_reports_that_memory_is_gone),
		WITH_ROOT(each_entry_sees_every_one_once),
		WITH_ROOT(each_entry_stops_when_told),
		WITH_ROOT(each_entry_reports_failures),
		WITH_ROOT(is_empty_tells_an_empty_directory_from_others),
	};

	return cmocka_run_group_tests(tests, private_mounts_setup, NULL);
}
