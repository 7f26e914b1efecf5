/* SPDX-License-Identifier: Apache-2.0 */
#include "content/local.h"
#include "content/run.h"

int main(int argc, char **argv)
{
	return content_run(argc, argv, &local_content_ops);
}
