/* SPDX-License-Identifier: Apache-2.0 */
#include "base/labels.h"

#include <string.h>

#include "base/str.h"

/* How much of a foreign string a message shows. */
#define SHOWN_MAX_BYTES 128

int labels_check(const struct strmap *labels, struct err *err)
{
	size_t total = 0;

	if (labels->n > LABELS_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT, "%zu labels are more than %d", labels->n,
			       LABELS_MAX);
	for (size_t i = 0; i < labels->n; i++) {
		const struct strmap_entry *label = &labels->entries[i];
		size_t len = strlen(label->key) + strlen(label->value);

		if (len > LABEL_MAX_BYTES)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "label '%.*s': key and value have %zu bytes, more than %d",
				       (int)str_cut(label->key, SHOWN_MAX_BYTES), label->key, len,
				       LABEL_MAX_BYTES);
		total += len;
		if (total > LABELS_MAX_BYTES)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "label '%.*s': the labels have more than %u bytes together",
				       (int)str_cut(label->key, SHOWN_MAX_BYTES), label->key,
				       LABELS_MAX_BYTES);
	}
	return 0;
}

void labels_drop_empty(struct strmap *labels)
{
	size_t kept = 0;

	for (size_t i = 0; i < labels->n; i++) {
		if (labels->entries[i].value[0])
			labels->entries[kept++] = labels->entries[i];
	}
	labels->n = kept;
}

const char *labels_field(const struct strmap *labels, const char *const *path, size_t n)
{
	char key[LABEL_MAX_BYTES + 1];
	size_t len = 0;

	if (n == 0)
		return strmap_get(labels, "");
	if (n == 1)
		return strmap_get(labels, path[0]);
	for (size_t i = 0; i < n; i++) {
		size_t part_len = strlen(path[i]);

		if (part_len + 1 > sizeof(key) - len)
			return NULL; /* no label has a key that long */
		memcpy(key + len, path[i], part_len);
		len += part_len;
		key[len++] = '.';
	}
	key[len - 1] = '\0';
	return strmap_get(labels, key);
}
