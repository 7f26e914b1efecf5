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

#endif
