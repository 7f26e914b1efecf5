/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: filters, one per line, and a NUL. Whatever is accepted is matched against an object, which has every
 * field that is asked for, and one that has none.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *last_of_path(const void *object, const char *const *path, size_t n)
{
	(void)object;
	return path[n - 1];
}

static const char *no_field(const void *object, const char *const *path, size_t n)
{
	(void)object;
	(void)path;
	(void)n;
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const ref[] = {"labels", "containerd.io/snapshot.ref"};
	struct filters *filters = NULL;
	const char *texts[8];
	struct err err;
	char *copy, *line;
	size_t n = 0;

	copy = malloc(size + 1);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	copy[size] = '\0';
	line = copy;
	while (n < ARRAY_LEN(texts) && line)
		texts[n++] = strsep(&line, "\n");

	if (filters_parse(texts, n, &filters, &err) == 0) {
		(void)filters_match(filters, last_of_path, NULL);
		(void)filters_match(filters, no_field, NULL);
		(void)filters_required(filters, ref, ARRAY_LEN(ref));
		filters_free(filters);
	}
	free(copy);
	return 0;
}
