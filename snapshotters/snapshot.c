/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/snapshot.h"

#include <string.h>

#include "base/ctx.h"
#include "base/str.h"

/* How much of a foreign string a message shows. */
#define SHOWN_MAX_BYTES 128

const char *snapshot_kind_name(enum snapshot_kind kind)
{
	switch (kind) {
	case SNAPSHOT_VIEW:
		return "view";
	case SNAPSHOT_ACTIVE:
		return "active";
	case SNAPSHOT_COMMITTED:
		return "committed";
	}
	return "unknown";
}

int snapshot_key_check(const char *key, const char *what, struct err *err)
{
	if (!key[0])
		return err_set(err, ERR_INVALID_ARGUMENT, "the %s is empty", what);
	if (strnlen(key, SNAPSHOT_KEY_MAX_BYTES + 1) > SNAPSHOT_KEY_MAX_BYTES)
		return err_set(err, ERR_INVALID_ARGUMENT, "%s '%.*s...' has more than %d bytes",
			       what, (int)str_cut(key, SHOWN_MAX_BYTES), key,
			       SNAPSHOT_KEY_MAX_BYTES);
	return 0;
}

/* As containerd has it, elements after name, parent and kind mean nothing. */
static const char *info_field(const void *object, const char *const *path, size_t n)
{
	const struct info *info = object;

	if (strcmp(path[0], "name") == 0)
		return info->name;
	if (strcmp(path[0], "parent") == 0)
		return info->parent;
	if (strcmp(path[0], "kind") == 0)
		return snapshot_kind_name(info->kind);
	if (strcmp(path[0], "labels") == 0)
		return labels_field(&info->labels, path + 1, n - 1);
	return NULL;
}

bool snapshot_matches(const struct filters *filters, const struct info *info)
{
	return filters_match(filters, info_field, info);
}

int info_copy(struct arena *arena, const struct info *info, struct info *ret_copy, struct err *err)
{
	struct info copy = *info;

	copy.name = arena_strdup(arena, info->name);
	copy.parent = arena_strdup(arena, info->parent);
	copy.labels = (struct strmap){0};
	if (!copy.name || !copy.parent)
		return ctx_no_memory(err);
	for (size_t i = 0; i < info->labels.n; i++) {
		const char *key = arena_strdup(arena, info->labels.entries[i].key);
		const char *value = arena_strdup(arena, info->labels.entries[i].value);

		if (!key || !value)
			return ctx_no_memory(err);
		if (strmap_append(&copy.labels, arena, key, value, err) < 0)
			return -1;
	}
	*ret_copy = copy;
	return 0;
}

int mount_add_option(struct mount *mount, struct arena *arena, const char *option, struct err *err)
{
	/* A mount has few options: a new array for each spares a field for the capacity. */
	const char **options = arena_array(arena, mount->n_options + 1, sizeof(*options));
	char *copy = arena_strdup(arena, option);

	if (!options || !copy)
		return ctx_no_memory(err);
	if (mount->n_options)
		memcpy(options, mount->options, mount->n_options * sizeof(*options));
	options[mount->n_options++] = copy;
	mount->options = options;
	return 0;
}
