/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/overlay.h"
#include "snapshotters/run.h"

int main(int argc, char **argv)
{
	return snapshotter_run(argc, argv, &overlay_ops);
}
