/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon that keeps nothing: what run.c does around a program is seen from outside. open()
 * leaves what it found in the file "opened" of its root, close() the file "closed".
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/crash_point.h"
#include "rpc/run.h"

struct fake_conf {
	char *fail_open;
	bool fail_check;
	bool close_waits;
	char *greeting;
};

static const struct conf_option fake_options[] = {
	CONF_STRING(struct fake_conf, fail_open, "\"\"", "CODE", "fail to open, with this code"),
	CONF_BOOL(struct fake_conf, fail_check, "false", "be a configuration that is refused"),
	CONF_BOOL(struct fake_conf, close_waits, "false", "never end closing"),
	CONF_STRING(struct fake_conf, greeting, "\"hello\"", NULL, "what open() is to write down"),
	CONF_END,
};

struct fake {
	const struct fake_conf *conf;
	char root[4096];
};

static int write_note(const char *root, const char *name, const char *text, struct err *err)
{
	char path[4200];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	file = fopen(path, "we");
	if (!file || fputs(text, file) == EOF || fclose(file) == EOF)
		return err_sys(err, "write '%s'", path);
	return 0;
}

static int fake_check(const struct run_program *program, const char *root, const void *conf,
		      struct err *err)
{
	const struct fake_conf *fake_conf = conf;

	(void)program;
	if (fake_conf->fail_check)
		return err_set(err, ERR_INVALID_ARGUMENT, "checked with root %s", root);
	return 0;
}

static enum err_code code_of(const char *name)
{
	int code = ERR_OK;

	while (strcmp(err_code_name((enum err_code)code), name) != 0)
		code++;
	return (enum err_code)code;
}

static int fake_open(const struct run_program *program, const char *root, const void *conf,
		     void **ret_self, struct err *err)
{
	const struct fake_conf *fake_conf = conf;
	struct rlimit files;
	struct fake *fake;
	char text[256];

	(void)program;
	CRASH_POINT("fake.open");
	if (fake_conf->fail_open[0])
		return err_set(err, code_of(fake_conf->fail_open), "told to fail");
	getrlimit(RLIMIT_NOFILE, &files);
	snprintf(text, sizeof(text), "%s files=%s umask=%03o\n", fake_conf->greeting,
		 files.rlim_cur == files.rlim_max ? "all" : "some", umask(022));
	if (write_note(root, "opened", text, err) < 0)
		return -1;
	fake = calloc(1, sizeof(*fake));
	if (!fake)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory");
	fake->conf = fake_conf;
	snprintf(fake->root, sizeof(fake->root), "%s", root);
	*ret_self = fake;
	return 0;
}

static void fake_close(void *self)
{
	struct err err = ERR_INIT;
	struct fake *fake = self;

	if (!fake)
		return;
	while (fake->conf->close_waits)
		pause();
	if (write_note(fake->root, "closed", "", &err) < 0)
		abort();
	free(fake);
}

static const struct rpc_service fake_service = {.name = "lighter.test.Fake"};

static size_t fake_services(void *self, const struct rpc_service *ret_services[RUN_SERVICES_MAX])
{
	(void)self;
	ret_services[0] = &fake_service;
	return 1;
}

static void fake_print_registration(const struct run_program *program,
				    const struct run_registration *registration)
{
	const struct fake_conf *conf = registration->conf;

	printf("%s is %s: %s ", program->name, registration->name, conf->greeting);
	run_print_toml_string(registration->address);
	printf(" %s\n", registration->root);
}

/* --- a command: shows what it was called with, and takes the root if told to ------------------------ */

struct show_conf {
	bool take_root;
	bool fail;
	int64_t times;
	char *mode;
};

static const struct conf_option show_options[] = {
	CONF_BOOL(struct show_conf, take_root, "false", "take the root, and leave a note in it"),
	CONF_BOOL(struct show_conf, fail, "false", "fail"),
	{.name = "times",
	 .type = CONF_TYPE_INT,
	 .offset = offsetof(struct show_conf, times),
	 .initial = "1",
	 .min = 1,
	 .max = 3,
	 .metavar = "N",
	 .help = "how often"},
	{.name = "mode",
	 .type = CONF_TYPE_STRING,
	 .offset = offsetof(struct show_conf, mode),
	 .initial = "\"short\"",
	 .choices = "short|long",
	 .metavar = "MODE",
	 .help = "short or long"},
	CONF_END,
};

static int show_run(const struct run_command_call *call, int *ret_status, struct err *err)
{
	const struct show_conf *conf = call->conf;
	const struct fake_conf *fake_conf = call->program_conf;
	struct run_root root = RUN_ROOT_INIT;

	if (conf->fail)
		return err_set(err, ERR_INTERNAL, "told to fail");
	if (conf->take_root) {
		if (run_root_take(call, &root, err) < 0)
			return -1;
		if (write_note(call->root, "shown", "", err) < 0) {
			run_root_done(&root);
			return -1;
		}
	}
	for (int64_t i = 0; i < conf->times; i++)
		printf("%s %s of %s at %s:", fake_conf->greeting, conf->mode, call->root,
		       call->address);
	for (size_t i = 0; i < call->n_arguments; i++)
		printf(" <%s>", call->arguments[i]);
	putchar('\n');
	run_root_done(&root);
	*ret_status = 7;
	return 0;
}

static const struct run_command fake_commands[] = {
	{
		.name = "show",
		.arguments = "WORD...",
		.summary = "Show what was given.",
		.notes = "Exit status: 7.\n",
		.min_arguments = 1,
		.max_arguments = 2,
		.options = show_options,
		.conf_size = sizeof(struct show_conf),
		.run = show_run,
	},
};

static const struct run_program fake_program = {
	.name = "fake",
	.summary = "Keeps nothing.",
	.options = fake_options,
	.conf_size = sizeof(struct fake_conf),
	.check = fake_check,
	.open = fake_open,
	.services = fake_services,
	.close = fake_close,
	.print_registration = fake_print_registration,
	.commands = fake_commands,
	.n_commands = ARRAY_LEN(fake_commands),
};

int main(int argc, char **argv)
{
	return run_program(argc, argv, &fake_program);
}
