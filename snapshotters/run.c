/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "rpc/run.h"
#include "snapshotters/service.h"

/** struct snapshot_program - a backend as a program; @program is what run_program() knows of it */
struct snapshot_program {
	struct run_program program;
	const struct snapshotter_ops *ops;
};

/** struct daemon - what open() has made; @backend: its self */
struct daemon {
	const struct snapshotter_ops *ops;
	void *backend;
	struct snapshot_service *service;
};

static const struct snapshotter_ops *ops_of(const struct run_program *program)
{
	return ((const struct snapshot_program *)program)->ops;
}

static int check_backend(const struct run_program *program, const char *root, const void *conf,
			 struct err *err)
{
	const struct snapshotter_ops *ops = ops_of(program);

	return ops->check ? ops->check(root, conf, err) : 0;
}

static int open_backend(const struct run_program *program, const char *root, const void *conf,
			void **ret_self, struct err *err)
{
	const struct snapshotter_ops *ops = ops_of(program);
	struct daemon *d = calloc(1, sizeof(*d));

	if (!d)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the snapshotter");
	d->ops = ops;
	if (ops->open(root, conf, &d->backend, err) < 0) {
		free(d);
		return -1;
	}
	if (snapshot_service_new(ops, d->backend, &d->service, err) < 0) {
		ops->close(d->backend);
		free(d);
		return -1;
	}
	*ret_self = d;
	return 0;
}

static size_t list_services(void *self, const struct rpc_service *ret_services[RUN_SERVICES_MAX])
{
	struct daemon *d = self;

	ret_services[0] = snapshot_service_rpc(d->service);
	return 1;
}

static void close_backend(void *self)
{
	struct daemon *d = self;

	snapshot_service_free(d->service);
	d->ops->close(d->backend);
	free(d);
}

/* The machine as Go calls it, for containerd's platforms; NULL when we do not know. */
static const char *go_architecture(void)
{
	static const struct {
		const char *machine;
		const char *go;
	} names[] = {
		{"x86_64", "amd64"},    {"aarch64", "arm64"},   {"armv7l", "arm"},  {"i686", "386"},
		{"ppc64le", "ppc64le"}, {"riscv64", "riscv64"}, {"s390x", "s390x"},
	};
	struct utsname host;

	if (uname(&host) < 0)
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(host.machine, names[i].machine) == 0)
			return names[i].go;
	return NULL;
}

static void print_unpack_config(const char *architecture, const char *snapshotter)
{
	printf("[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n"
	       "  platform = \"linux/%s\"\n"
	       "  snapshotter = \"%s\"\n"
	       "  differ = \"walking\"\n",
	       architecture ? architecture : "ARCHITECTURE", snapshotter);
}

static void print_registration(const struct run_program *program,
			       const struct run_registration *registration)
{
	const struct snapshotter_ops *ops = ops_of(program);
	const char *names[SNAPSHOTTER_CAPABILITIES_MAX];
	const char *architecture = go_architecture();
	size_t n = ops->capabilities
			   ? ops->capabilities(registration->root, registration->conf, names)
			   : 0;

	printf("[proxy_plugins.%s]\n"
	       "  type = \"snapshot\"\n"
	       "  address = ",
	       registration->name);
	run_print_toml_string(registration->address);
	putchar('\n');
	if (n) {
		printf("  capabilities = [");
		for (size_t i = 0; i < n; i++)
			printf("%s\"%s\"", i ? ", " : "", names[i]);
		printf("]\n");
	}
	printf("  [proxy_plugins.%s.exports]\n"
	       "    root = ",
	       registration->name);
	run_print_toml_string(registration->root);
	printf("\n\n# For containerd 2.x only, whose transfer service unpacks for snapshotters it "
	       "is told of. This\n# list replaces the default, which is therefore repeated.\n");
	print_unpack_config(architecture, registration->name);
	print_unpack_config(architecture, "overlayfs");
}

int snapshotter_run(int argc, char **argv, const struct snapshotter_ops *ops)
{
	const struct snapshot_program program = {
		.program = {.name = ops->name,
			    .summary = ops->summary,
			    .options = ops->options,
			    .conf_size = ops->conf_size,
			    .check = check_backend,
			    .open = open_backend,
			    .services = list_services,
			    .close = close_backend,
			    .print_registration = print_registration},
		.ops = ops,
	};

	return run_program(argc, argv, &program.program);
}
