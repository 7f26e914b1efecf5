/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting on trial: in a child process with a mount namespace of its own, so that nothing is left behind. For
 * kernel*.c.
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_KERNEL_CHILD_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_KERNEL_CHILD_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/**
 * kernel_child_fn - what the child does with @arg; what it finds goes to @result, which is zeroed
 *
 * It only makes system calls, since other threads of ours may have held any lock at the fork().
 * Return: 0; or the errno for which it could not even try.
 */
typedef int (*kernel_child_fn)(const void *arg, void *result);

/**
 * kernel_child_run() - run @fn in such a child, and wait for it
 * @result: of @size bytes
 * Return: 0; 1 when it could not be tried, for *ret_errno: mostly, because mounting is not permitted to us; or -1.
 */
ERR_CHECKED int kernel_child_run(kernel_child_fn fn, const void *arg, void *result, size_t size,
				 int *ret_errno, struct err *err);

/** kernel_child_die_with() - from now on this process ends with its parent, which may have died already */
void kernel_child_die_with(pid_t parent);

#endif
