/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The suite on a snapshotter that is simple enough to be seen right: what fails here is wrong in the suite,
 * or, through the socket, in the service and the proxy.
 */
#include "rpc/server.h"
#include "tests/conformance/snapshotter_suite.h"
#include "tests/support/fake_snapshotter.h"

int main(void)
{
	struct snapshotter_suite suite = {.ops = &fake_snapshotter_ops};
	int n_failed = snapshotter_suite_run("fake, directly", &suite);

	suite.through_socket = true;
	n_failed += snapshotter_suite_run("fake, through a socket", &suite);
	rpc_library_done();
	return n_failed ? 1 : 0;
}
