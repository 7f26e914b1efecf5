/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory of its own for a test, deleted with all that is in it at the test's end.
 *
 *	cmocka_unit_test_setup_teardown(write_file_replaces, temp_root_setup, temp_root_teardown),
 *	...
 *	struct temp_root *root = *state;
 */
#ifndef LIGHTER_TESTS_SUPPORT_TEMP_ROOT_H
#define LIGHTER_TESTS_SUPPORT_TEMP_ROOT_H

/**
 * struct temp_root - the directory
 * @path: absolute, no symbolic link in it; below $TMPDIR or /tmp
 * @fd: open on it
 */
struct temp_root {
	char *path;
	int fd;
};

/** temp_root_new() - make one, mode 0700; the running test fails if that does not work */
struct temp_root *temp_root_new(void);

/** temp_root_free() - delete the tree. What is mounted in it stays, and so does it. Accepts NULL. */
void temp_root_free(struct temp_root *root);

/** temp_root_path() - "@root/@name"; yours to free() */
char *temp_root_path(const struct temp_root *root, const char *name);

/* The same as a cmocka fixture: *state is a struct temp_root. */
int temp_root_setup(void **state);
int temp_root_teardown(void **state);

#endif
