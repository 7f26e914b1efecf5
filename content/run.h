/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main() of a content store daemon: rpc/run.h around a content_store_ops.
 */
#ifndef LIGHTER_CONTENT_RUN_H
#define LIGHTER_CONTENT_RUN_H

#include "content/content_store.h"
#include "rpc/run.h"

/** content_run() - be the daemon lighter-NAME, or one of its @n_commands. Return: exit status; 0 after a clean stop. */
int content_run(int argc, char **argv, const struct content_store_ops *ops,
		const struct run_command *commands, size_t n_commands);

#endif
