/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshotter daemon that keeps nothing: what run.c does around a backend is seen from outside. open()
 * leaves what it found in the file "opened" of its root, close() the file "closed".
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crash_point.h"
#include "snapshotters/run.h"

struct fake_conf {
	bool fail_open;
	bool close_waits;
	char *greeting;
};

static const struct conf_option fake_options[] = {
	CONF_BOOL(struct fake_conf, fail_open, "false", "fail to open"),
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

static size_t fake_capabilities(const char *root, const void *conf,
				const char *ret_names[SNAPSHOTTER_CAPABILITIES_MAX])
{
	(void)root;
	(void)conf;
	ret_names[0] = "say-hello";
	ret_names[1] = "say-more";
	return 2;
}

static int fake_open(const char *root, const void *conf, void **ret_self, struct err *err)
{
	const struct fake_conf *fake_conf = conf;
	struct rlimit files;
	struct fake *fake;
	char text[256];

	CRASH_POINT("fake.open");
	if (fake_conf->fail_open)
		return err_set(err, ERR_INTERNAL, "told to fail");
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

/* The calls stay empty: no test makes one. */
static const struct snapshotter_ops fake_ops = {
	.name = "fake",
	.summary = "Keeps nothing.",
	.options = fake_options,
	.conf_size = sizeof(struct fake_conf),
	.capabilities = fake_capabilities,
	.open = fake_open,
	.close = fake_close,
};

int main(int argc, char **argv)
{
	return snapshotter_run(argc, argv, &fake_ops);
}
