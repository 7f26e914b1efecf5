/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every snapshotter_ops must do: the contract of snapshotter.h, case by case, without mounting anything.
 */
#ifndef LIGHTER_TESTS_CONFORMANCE_SNAPSHOTTER_SUITE_H
#define LIGHTER_TESTS_CONFORMANCE_SNAPSHOTTER_SUITE_H

#include <stdbool.h>

#include "snapshotters/snapshotter.h"

/**
 * struct snapshotter_suite - what to test, and how
 * @ops: the backend; each case opens it on an empty root of its own
 * @conf: for its open()
 * @through_socket: serve it on a socket, and put the cases to the proxy of that socket
 * @is_persistent: what it keeps is there after close() and open()
 * @has_directories: its mounts name directories that exist, and what is written there counts as usage
 */
struct snapshotter_suite {
	const struct snapshotter_ops *ops;
	const void *conf;
	bool through_socket;
	bool is_persistent;
	bool has_directories;
};

/** snapshotter_suite_run() - run all cases; @name is shown. Return: number of failed ones. */
int snapshotter_suite_run(const char *name, const struct snapshotter_suite *suite);

#endif
