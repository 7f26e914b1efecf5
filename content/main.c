/* SPDX-License-Identifier: Apache-2.0 */
#include "content/commands.h"
#include "content/local.h"
#include "content/run.h"

int main(int argc, char **argv)
{
	const struct run_command commands[] = {import_command, verify_command};

	return content_run(argc, argv, &local_content_ops, commands, ARRAY_LEN(commands));
}
