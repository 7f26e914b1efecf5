/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the command line and the configuration file ask of a daemon, read and checked before
 * anything is touched. For run*.c.
 */
#ifndef LIGHTER_RPC_RUN_INTERNAL_H
#define LIGHTER_RPC_RUN_INTERNAL_H

#include <sys/types.h>

#include "base/conf.h"
#include "base/err.h"
#include "base/log.h"
#include "rpc/run.h"

/* Exit status; EXIT_SUCCESS and EXIT_FAILURE are the others. */
#define RUN_EXIT_USAGE 2

#define RUN_NAME_MAX_BYTES 64
#define RUN_N_ROWS         8

/** struct run_conf - options of every daemon, at the top level of the file */
struct run_conf {
	char *root;
	char *address;
	char *socket_mode;
	char *socket_group;
	char *log_level;
	char *log_format;
	int64_t workers;
};

/**
 * struct run_options - the above, and what it means
 * @name: "lighter-NAME"
 * @program_conf: target of the rows of program->options
 * @rows: of @conf; the defaults of two hold the name
 * @command: what is to be run instead of the daemon, or NULL
 * @command_table: its options
 * @arguments: its arguments, @n_arguments of them; they point into argv
 */
struct run_options {
	const struct run_program *program;
	char name[RUN_NAME_MAX_BYTES];
	char default_config[RUN_NAME_MAX_BYTES + 32];
	char default_root[RUN_NAME_MAX_BYTES + 32];
	char default_address[RUN_NAME_MAX_BYTES + 32];
	struct conf_option rows[RUN_N_ROWS];
	struct run_conf conf;
	void *program_conf;
	struct conf_table tables[2];

	mode_t socket_mode;
	gid_t socket_gid;
	enum log_level log_level;
	enum log_format log_format;

	const struct run_command *command;
	struct conf_table command_table;
	const char **arguments;
	size_t n_arguments;
};

/**
 * run_options_read() - read command line and file; answer --help and its like
 * Return: 0; 1 when what was asked for has been printed and *ret_status is how to exit; or -1.
 * In all cases run_options_done() must follow.
 */
ERR_CHECKED int run_options_read(struct run_options *options, const struct run_program *program,
				 int argc, char **argv, int *ret_status, struct err *err);
void run_options_done(struct run_options *options);

/** run_check_root() - would open_root() refuse the directory @root, if it exists? Changes nothing. */
ERR_CHECKED int run_check_root(const char *root, struct err *err);

/** run_options_refuse() - say on stderr what is wrong, and with @usage where to read on. Return: exit status. */
int run_options_refuse(const struct run_options *options, bool usage, const struct err *err);

#endif
