/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main() of the snapshotter daemons: rpc/run.h around a snapshotter_ops.
 */
#ifndef LIGHTER_SNAPSHOTTERS_RUN_H
#define LIGHTER_SNAPSHOTTERS_RUN_H

#include "snapshotters/snapshotter.h"

/** snapshotter_run() - be the daemon lighter-NAME. Return: exit status; 0 after a clean stop. */
int snapshotter_run(int argc, char **argv, const struct snapshotter_ops *ops);

#endif
