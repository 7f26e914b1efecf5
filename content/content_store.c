/* SPDX-License-Identifier: Apache-2.0 */
#include "content/content_store.h"

#include <string.h>

#include "base/labels.h"

int content_ref_check(const char *ref, struct err *err)
{
	if (!ref[0])
		return err_set(err, ERR_INVALID_ARGUMENT, "the reference is empty");
	if (strnlen(ref, CONTENT_REF_MAX_BYTES + 1) > CONTENT_REF_MAX_BYTES)
		return err_set(err, ERR_INVALID_ARGUMENT, "the reference has more than %u bytes",
			       CONTENT_REF_MAX_BYTES);
	return 0;
}

/** struct seen_blob - a blob for filters, its digest spelt out */
struct seen_blob {
	const struct blob_info *info;
	char digest[DIGEST_TEXT_BYTES];
};

/* As containerd has it: size is no field, and elements after digest mean nothing. */
static const char *blob_field(const void *object, const char *const *path, size_t n)
{
	const struct seen_blob *blob = object;

	if (strcmp(path[0], "digest") == 0)
		return blob->digest;
	if (strcmp(path[0], "labels") == 0)
		return labels_field(&blob->info->labels, path + 1, n - 1);
	return NULL;
}

bool blob_matches(const struct filters *filters, const struct blob_info *info)
{
	struct seen_blob blob = {.info = info};

	if (!filters)
		return true;
	digest_format(&info->digest, blob.digest);
	return filters_match(filters, blob_field, &blob);
}

static const char *ingest_field(const void *object, const char *const *path, size_t n)
{
	const struct ingest_info *info = object;

	(void)n;
	return strcmp(path[0], "ref") == 0 ? info->ref : NULL;
}

bool ingest_matches(const struct filters *filters, const struct ingest_info *info)
{
	return filters_match(filters, ingest_field, info);
}
