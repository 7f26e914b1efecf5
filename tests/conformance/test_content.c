/* SPDX-License-Identifier: Apache-2.0 */
#include "content/config.h"
#include "content/local.h"
#include "rpc/server.h"
#include "tests/conformance/content_suite.h"
#include "tests/support/test.h"

int main(void)
{
	const struct content_conf conf = {.adopt = true};
	struct content_suite suite = {.ops = &local_content_ops, .conf = &conf};
	int n_failed;

	n_failed = content_suite_run("local store, directly", &suite);
	suite.through_socket = true;
	n_failed += content_suite_run("local store, through a socket", &suite);
	rpc_library_done();
	return n_failed ? 1 : 0;
}
