/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a backend adds to the shared main(); the rest is for tests/rpc/test_run.c.
 */
#include "snapshotters/run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/process.h"
#include "tests/support/test.h"

static const struct conf_option options[] = {CONF_END};

static size_t capabilities(const char *root, const void *conf,
			   const char *ret_names[SNAPSHOTTER_CAPABILITIES_MAX])
{
	(void)root;
	(void)conf;
	ret_names[0] = "say-hello";
	ret_names[1] = "say-more";
	return 2;
}

/* The calls stay empty: no test makes one. */
static const struct snapshotter_ops ops = {
	.name = "fake",
	.summary = "Keeps nothing.",
	.options = options,
	.capabilities = capabilities,
};

static int print_registration(void *arg)
{
	char *argv[] = {"lighter-fake", "--print-registration", "--address=/run/a \"b\"",
			"--root=/srv/x", NULL};

	(void)arg;
	return snapshotter_run(4, argv, &ops);
}

static void registration_follows_backend_and_configuration(void **state)
{
	struct capture capture;
	char *output;
	int status;

	(void)state;
	capture_begin(&capture, STDOUT_FILENO);
	status = run_child(print_registration, NULL);
	output = capture_end(&capture);
	assert_int_equal(status, 0);
	assert_contains(output, "[proxy_plugins.lighter-fake]\n  type = \"snapshot\"\n"
				"  address = \"/run/a \\\"b\\\"\"\n"
				"  capabilities = [\"say-hello\", \"say-more\"]\n"
				"  [proxy_plugins.lighter-fake.exports]\n"
				"    root = \"/srv/x\"\n");
	assert_contains(output, "  snapshotter = \"lighter-fake\"\n");
	assert_contains(output, "  snapshotter = \"overlayfs\"\n");
	free(output);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registration_follows_backend_and_configuration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
