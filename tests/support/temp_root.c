/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/temp_root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "tests/support/test.h"

struct temp_root *temp_root_new(void)
{
	const char *base = getenv("TMPDIR");
	struct temp_root *root = calloc(1, sizeof(*root));
	char *template = NULL;

	if (!root ||
	    asprintf(&template, "%s/lighter-test-XXXXXX", base && *base ? base : "/tmp") < 0)
		fail_msg("no memory");
	if (!mkdtemp(template))
		fail_msg("make directory %s: %s", template, strerror(errno));
	root->path = realpath(template, NULL);
	root->fd = open(template, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!root->path || root->fd < 0)
		fail_msg("open directory %s: %s", template, strerror(errno));
	free(template);
	return root;
}

void temp_root_free(struct temp_root *root)
{
	struct err err = ERR_INIT;
	int parent_fd;

	if (!root)
		return;
	parent_fd = openat(root->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	close(root->fd);
	if (fs_remove_tree(NULL, parent_fd, strrchr(root->path, '/') + 1, &err) < 0)
		print_error("temporary directory stays behind: %s\n", err.msg);
	close(parent_fd);
	free(root->path);
	free(root);
}

char *temp_root_path(const struct temp_root *root, const char *name)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%s", root->path, name) < 0)
		fail_msg("no memory");
	return path;
}

int temp_root_setup(void **state)
{
	*state = temp_root_new();
	return 0;
}

int temp_root_teardown(void **state)
{
	temp_root_free(*state);
	*state = NULL;
	return 0;
}
