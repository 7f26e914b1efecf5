/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lighter-content does beside serving.
 */
#ifndef LIGHTER_CONTENT_COMMANDS_H
#define LIGHTER_CONTENT_COMMANDS_H

#include "rpc/run.h"

/* Exit status: it ran to its end, and not all was well with the blobs. */
#define COMMAND_EXIT_FINDINGS 3
/* Exit status beyond this: stopped by that signal, as a shell has it. */
#define COMMAND_EXIT_SIGNAL   128

extern const struct run_command import_command;
extern const struct run_command verify_command;

#endif
