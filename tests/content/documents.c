/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/content/documents.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "content/oci.h"
#include "tests/support/test.h"

struct digest text_digest(const char *text)
{
	struct digest digest;
	struct err err = ERR_INIT;

	assert_ok(digest_of(DIGEST_SHA256, text, strlen(text), &digest, &err), &err);
	return digest;
}

static struct digest numbered(const char *name, const char *what, size_t i)
{
	char text[300];

	snprintf(text, sizeof(text), "%s %s %zu", name, what, i);
	return text_digest(text);
}

static char *finish(struct str *str, struct arena *arena)
{
	char *text;

	assert_false(str->failed);
	text = arena_strdup(arena, str->text);
	assert_non_null(text);
	str_done(str);
	return text;
}

static char *make_config(const struct image *image, struct arena *arena, const char *name)
{
	char text[DIGEST_TEXT_BYTES];
	struct str str;

	str_init(&str, 4u << 20);
	str_printf(&str,
		   "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Labels\":{\"name\":"
		   "\"%s\"}},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[",
		   name);
	for (size_t i = 0; i < image->n_layers; i++)
		str_printf(&str, "%s\"%s\"", i ? "," : "",
			   digest_format(&image->diff_ids[i], text));
	str_add(&str, "]}}");
	return finish(&str, arena);
}

static char *make_manifest(const struct image *image, struct arena *arena)
{
	char text[DIGEST_TEXT_BYTES];
	struct str str;

	str_init(&str, 4u << 20);
	str_printf(&str,
		   "{\n  \"schemaVersion\": 2,\n  \"mediaType\": "
		   "\"application/vnd.oci.image.manifest.v1+json\",\n  \"config\": {\"mediaType\": "
		   "\"application/vnd.oci.image.config.v1+json\", \"digest\": \"%s\", \"size\": "
		   "%zu},\n  \"layers\": [",
		   digest_format(&image->config_digest, text), strlen(image->config));
	for (size_t i = 0; i < image->n_layers; i++)
		str_printf(&str,
			   "%s{\"mediaType\": \"application/vnd.oci.image.layer.v1.tar+gzip\", "
			   "\"digest\": \"%s\", \"size\": %zu, \"annotations\": {\"number\": "
			   "\"%zu\"}}",
			   i ? ", " : "", digest_format(&image->layers[i], text), 1000 + i, i);
	str_add(&str, "]\n}\n");
	return finish(&str, arena);
}

static char *make_index(const struct image *image, struct arena *arena)
{
	char text[DIGEST_TEXT_BYTES];
	char *index = arena_printf(
		arena,
		"{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\","
		"\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
		"\"digest\":\"%s\",\"size\":%zu,\"platform\":{\"architecture\":\"amd64\",\"os\":"
		"\"linux\"}}]}",
		digest_format(&image->manifest_digest, text), strlen(image->manifest));

	assert_non_null(index);
	return index;
}

struct image image_make(struct arena *arena, const char *name, size_t n_layers)
{
	struct image image = {.n_layers = n_layers};
	struct err err = ERR_INIT;

	image.layers = arena_array(arena, n_layers, sizeof(struct digest));
	image.diff_ids = arena_array(arena, n_layers, sizeof(struct digest));
	image.chain_ids = arena_array(arena, n_layers, sizeof(struct digest));
	assert_true(image.layers && image.diff_ids && image.chain_ids);
	for (size_t i = 0; i < n_layers; i++) {
		image.layers[i] = numbered(name, "layer", i);
		image.diff_ids[i] = numbered(name, "diff", i);
	}
	assert_ok(oci_chain_ids(image.diff_ids, n_layers, image.chain_ids, &err), &err);
	image.config = make_config(&image, arena, name);
	image.config_digest = text_digest(image.config);
	image.manifest = make_manifest(&image, arena);
	image.manifest_digest = text_digest(image.manifest);
	image.index = make_index(&image, arena);
	image.index_digest = text_digest(image.index);
	return image;
}
