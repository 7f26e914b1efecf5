/* SPDX-License-Identifier: Apache-2.0 */
#include "content/run.h"

#include <stdio.h>
#include <stdlib.h>

#include "content/service.h"

/** struct content_program - a store as a program; @program is what run_program() knows of it */
struct content_program {
	struct run_program program;
	const struct content_store_ops *ops;
};

/** struct daemon - what open() has made; @store: its self */
struct daemon {
	const struct content_store_ops *ops;
	void *store;
	struct content_service *service;
};

static int open_store(const struct run_program *program, const char *root, const void *conf,
		      void **ret_self, struct err *err)
{
	const struct content_store_ops *ops = ((const struct content_program *)program)->ops;
	struct daemon *d = calloc(1, sizeof(*d));

	if (!d)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the content store");
	d->ops = ops;
	if (ops->open(root, conf, &d->store, err) < 0) {
		free(d);
		return -1;
	}
	if (content_service_new(ops, d->store, &d->service, err) < 0) {
		ops->close(d->store);
		free(d);
		return -1;
	}
	*ret_self = d;
	return 0;
}

static size_t list_services(void *self, const struct rpc_service *ret_services[RUN_SERVICES_MAX])
{
	struct daemon *d = self;

	ret_services[0] = content_service_rpc(d->service);
	return 1;
}

static void close_store(void *self)
{
	struct daemon *d = self;

	content_service_free(d->service);
	d->ops->close(d->store);
	free(d);
}

static void print_registration(const struct run_program *program,
			       const struct run_registration *registration)
{
	(void)program;
	printf("# containerd has one content store: with this one, its own is switched off, so "
	       "that\n"
	       "# what that holds is not seen any more. This line belongs at the top of the file,\n"
	       "# before the first [table], and its entry into the list that may be there.\n"
	       "disabled_plugins = [\"io.containerd.content.v1.content\"]\n\n"
	       "[proxy_plugins.%s]\n"
	       "  type = \"content\"\n"
	       "  address = ",
	       registration->name);
	run_print_toml_string(registration->address);
	printf("\n  [proxy_plugins.%s.exports]\n"
	       "    root = ",
	       registration->name);
	run_print_toml_string(registration->root);
	putchar('\n');
}

int content_run(int argc, char **argv, const struct content_store_ops *ops,
		const struct run_command *commands, size_t n_commands)
{
	const struct content_program program = {
		.program = {.name = ops->name,
			    .summary = ops->summary,
			    .options = ops->options,
			    .conf_size = ops->conf_size,
			    .open = open_store,
			    .services = list_services,
			    .close = close_store,
			    .print_registration = print_registration,
			    .commands = commands,
			    .n_commands = n_commands},
		.ops = ops,
	};

	return run_program(argc, argv, &program.program);
}
