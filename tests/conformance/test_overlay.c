/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/server.h"
#include "snapshotters/overlay/config.h"
#include "snapshotters/overlay/overlay.h"
#include "tests/conformance/snapshotter_suite.h"
#include "tests/support/test.h"

int main(void)
{
	struct overlay_conf conf = {0};
	const struct conf_table table = {.name = "overlay",
					 .options = overlay_options,
					 .target = &conf};
	struct snapshotter_suite suite = {
		.ops = &overlay_ops,
		.conf = &conf,
		.is_persistent = true,
		.has_directories = true,
	};
	struct err err = ERR_INIT;
	int n_failed;

	assert_ok(conf_init(&table, 1, &err), &err);
	n_failed = snapshotter_suite_run("overlay, directly", &suite);
	suite.through_socket = true;
	n_failed += snapshotter_suite_run("overlay, through a socket", &suite);

	suite.through_socket = false;
	conf.upperdir_label = true;
	conf.sync_remove = true;
	n_failed += snapshotter_suite_run("overlay, with upperdir_label and sync_remove", &suite);
	conf_done(&table, 1);
	rpc_library_done();
	return n_failed ? 1 : 0;
}
