/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests do to their own process and to children: ask for rights, wait, catch output, die on purpose.
 */
#ifndef LIGHTER_TESTS_SUPPORT_PROCESS_H
#define LIGHTER_TESTS_SUPPORT_PROCESS_H

#include <stdbool.h>
#include <stddef.h>

/** require_root() - skip the running test, saying why, unless it runs as root */
void require_root(void);

/**
 * private_mounts_setup() - give this process a mount namespace of its own, where it may have one: its
 *                          mounts are seen by nobody else and end with it
 *
 * A cmocka group setup, since descriptors opened before lead into the old namespace:
 *	cmocka_run_group_tests(tests, private_mounts_setup, NULL)
 */
int private_mounts_setup(void **state);

/** require_private_mounts() - skip the running test, saying why, if that did not work */
void require_private_mounts(void);

/** mount_tmpfs() - mount a tmpfs of @size_bytes on @path; after require_private_mounts() */
void mount_tmpfs(const char *path, size_t size_bytes);

/** wait_until() - poll until @is_true; the test fails if that takes ten minutes. @what: for the message. */
void wait_until(bool (*is_true)(void *arg), void *arg, const char *what);

/**
 * run_child() - run @fn in a forked child that ends with its return value
 *
 * Fails in the child do not count: report through the return value. No threads may run in the parent.
 * Return: wait status, see wait(2); the child is killed after ten minutes.
 */
int run_child(int (*fn)(void *arg), void *arg);

/** struct capture - a descriptor of this process, sent to a file for a while */
struct capture {
	int fd;
	int saved_fd;
	int file_fd;
};

/** capture_begin() - from now on, what is written to @fd (1 or 2) is kept */
void capture_begin(struct capture *capture, int fd);

/** capture_end() - @fd is as before. Return: what was written, NUL-terminated; yours to free(). */
char *capture_end(struct capture *capture);

#endif
