/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared main() of all daemons: options, configuration, log, lock, socket, signals, readiness, shutdown.
 * What is particular to one is a struct run_program.
 */
#ifndef LIGHTER_RPC_RUN_H
#define LIGHTER_RPC_RUN_H

#include "base/conf.h"
#include "base/err.h"
#include "rpc/server.h"

/* Of one program, beside health. */
#define RUN_SERVICES_MAX 4

/**
 * struct run_registration - what print_registration() may need
 * @name: "lighter-NAME", as the entry of [proxy_plugins] is called
 * @conf: as for open()
 */
struct run_registration {
	const char *name;
	const char *address;
	const char *root;
	const void *conf;
};

struct run_options;

/**
 * struct run_command_call - what the command line and the configuration ask of a command
 * @options: for run_root_take()
 * @root, @address: of the daemon whose command this is
 * @program_conf: target of the program's rows, as for open()
 * @conf: target of the command's rows
 * @arguments: what was no option, @n_arguments of them
 */
struct run_command_call {
	const struct run_options *options;
	const char *root;
	const char *address;
	const void *program_conf;
	const void *conf;
	const char *const *arguments;
	size_t n_arguments;
};

/**
 * struct run_command - something else that the executable does: lighter-NAME COMMAND [OPTION]... [ARGUMENT]...
 * @name: "verify"
 * @arguments: how --help shows what is no option, "[DIGEST]..."; "" when there is nothing
 * @summary: what it does, one line for --help
 * @notes: what else --help says, ended by a line feed; exit statuses of its own among it
 * @min_arguments, @max_arguments: how many there may be
 * @options: rows of its own options: "dry_run" is --dry-run, which takes no value if it is a bool and is
 *           shown with the row's metavar or choices otherwise; the target is a zeroed block of @conf_size bytes
 * @run: do it. Signals are blocked, as in the daemon. Return: 0 with the exit status; or -1: ERR_INVALID_ARGUMENT is
 *       wrong usage; the exit status of other failures is that of an open() that fails so.
 */
struct run_command {
	const char *name;
	const char *arguments;
	const char *summary;
	const char *notes;
	size_t min_arguments, max_arguments;
	const struct conf_option *options;
	size_t conf_size;
	int (*run)(const struct run_command_call *call, int *ret_status, struct err *err);
};

/**
 * struct run_program - the daemon lighter-NAME
 * @name: names executable, socket, root, configuration file and its table [NAME]
 * @summary: what it is, one line for --help
 * @options: rows of the table [NAME]; the target is a zeroed block of @conf_size bytes
 * @check: NULL, or refuse a configuration that open() cannot work with; changes nothing on the machine, and is
 *         called before all else. What it cannot find out without more rights than it has, it lets pass.
 * @open: make or take up the state below @root, which exists, is ours alone and locked. @conf: the target of
 *        @options, valid until close()
 * @services: what to serve, valid until close(). Return: how many of @ret_services are set.
 * @close: of what open() gave, when no call is under way
 * @print_registration: print to stdout what to add to containerd's config.toml
 * @commands: @n_commands of them; the first argument chooses, and without one it is the daemon
 */
struct run_program {
	const char *name;
	const char *summary;
	const struct conf_option *options;
	size_t conf_size;

	int (*check)(const struct run_program *program, const char *root, const void *conf,
		     struct err *err);
	int (*open)(const struct run_program *program, const char *root, const void *conf,
		    void **ret_self, struct err *err);
	size_t (*services)(void *self, const struct rpc_service *ret_services[RUN_SERVICES_MAX]);
	void (*close)(void *self);
	void (*print_registration)(const struct run_program *program,
				   const struct run_registration *registration);
	const struct run_command *commands;
	size_t n_commands;
};

/**
 * run_program() - be that daemon
 * Return: exit status: 0 after a clean stop; 1 when it failed; 2 when somebody has to mend something before a
 * start can succeed: usage, configuration, root, socket (ERR_INVALID_ARGUMENT, ERR_FAILED_PRECONDITION,
 * ERR_PERMISSION_DENIED or ERR_DATA_LOSS from open()).
 */
int run_program(int argc, char **argv, const struct run_program *program);

/** run_print_toml_string() - print @text as a basic string of TOML, for print_registration() */
void run_print_toml_string(const char *text);

/** struct run_root - a root that no other process of ours uses meanwhile; starts as RUN_ROOT_INIT */
struct run_root {
	int fd;
	int lock_fd;
};

#define RUN_ROOT_INIT                                                                              \
	{                                                                                          \
		.fd = -1, .lock_fd = -1                                                            \
	}

/**
 * run_root_take() - make what is missing of a command's root, and lock it, as the daemon does
 * Return: 0, and run_root_done() must follow; or -1, with ERR_UNAVAILABLE when the daemon runs on it.
 */
ERR_CHECKED int run_root_take(const struct run_command_call *call, struct run_root *ret_root,
			      struct err *err);
void run_root_done(struct run_root *root);

#endif
