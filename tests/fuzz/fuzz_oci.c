/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: a document as a client commits it. It is read, or refused; what was read must be what the catalog relies on.
 */
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "content/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void check_text(const char *text)
{
	check(!text || (text[0] && strlen(text) <= OCI_MEDIA_TYPE_MAX));
}

static int is_text(void *arg, const char *name, const struct json *value, struct err *err)
{
	(void)arg;
	(void)name;
	(void)err;
	check(json_string(value));
	return 0;
}

/* What is kept of them must be readable again. */
static void check_annotations(const char *text)
{
	static const struct json_limits limits = {OCI_ANNOTATIONS_MAX, 1, SIZE_MAX};
	struct json *annotations;
	struct err err;

	if (!text)
		return;
	check(json_parse(text, strlen(text), &limits, &annotations, &err) == 0);
	check(json_kind(annotations) == JSON_OBJECT);
	check(json_each_member(annotations, is_text, NULL, &err) == 0);
	json_free(annotations);
}

static void check_digest(const struct digest *digest)
{
	char text[DIGEST_TEXT_BYTES];
	struct digest again;
	struct err err;

	check(digest_parse(digest_format(digest, text), &again, &err) == 0);
	check(digest_equal(digest, &again));
}

static void check_descriptor(const struct oci_descriptor *descriptor)
{
	check(descriptor->media_type);
	check_text(descriptor->media_type);
	check_text(descriptor->artifact_type);
	check_annotations(descriptor->annotations);
	check_digest(&descriptor->digest);
	check(descriptor->size_bytes <= INT64_MAX);
}

static void check_entries(const struct oci_document *document)
{
	size_t n_layers = 0;

	for (size_t i = 0; i < document->n_entries; i++) {
		const struct oci_descriptor *entry = &document->entries[i];

		check_descriptor(entry);
		if (entry->layer_index >= 0)
			check((size_t)entry->layer_index == n_layers++);
	}
	check(n_layers == document->n_layers);
}

static void check_document(const struct oci_document *document)
{
	check_text(document->media_type);
	check_text(document->artifact_type);
	check_annotations(document->annotations);
	switch (document->kind) {
	case OCI_OTHER:
		break;
	case OCI_INDEX:
		check(document->n_entries <= OCI_MANIFESTS_MAX && document->n_layers == 0);
		check_entries(document);
		break;
	case OCI_MANIFEST:
		check(document->n_entries <= OCI_LAYERS_MAX);
		check_descriptor(&document->config);
		check_entries(document);
		break;
	case OCI_CONFIG:
		check(document->n_entries == 0 && document->n_layers <= OCI_LAYERS_MAX);
		for (size_t i = 0; i < document->n_layers; i++) {
			check_digest(&document->diff_ids[i]);
			check_digest(&document->chain_ids[i]);
		}
		break;
	default:
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct oci_document document = {0};
	struct arena arena;
	struct err err;

	(void)oci_may_be_document(text, size);
	arena_init(&arena, OCI_ARENA_BYTES);
	if (oci_parse(text, size, &arena, &document, &err) == 0)
		check_document(&document);
	else
		check(err.code == ERR_INVALID_ARGUMENT || err.code == ERR_OUT_OF_RANGE);
	arena_done(&arena);
	return 0;
}
