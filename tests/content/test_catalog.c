/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog by itself: what is put into it is what its readers find. */
#include "content/catalog.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/compiler.h"
#include "content/catalog_reader.h"
#include "tests/content/documents.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

#define ARENA_BYTES (64u << 20)

struct fixture {
	struct temp_root *root;
	char *path;
	struct catalog *catalog;
	struct catalog_reader *reader;
	struct arena arena;
	struct err err;
};

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->root = temp_root_new();
	fx->path = temp_root_path(fx->root, "catalog.db");
	arena_init(&fx->arena, ARENA_BYTES);
	assert_ok(catalog_open(fx->path, &fx->catalog, &fx->err), &fx->err);
	assert_ok(catalog_reader_new(fx->path, &fx->reader, &fx->err), &fx->err);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	catalog_reader_free(fx->reader);
	catalog_close(fx->catalog);
	arena_done(&fx->arena);
	temp_root_free(fx->root);
	free(fx->path);
	free(fx);
	return 0;
}

static struct oci_document parsed(struct fixture *fx, const char *text)
{
	struct oci_document document;

	assert_ok(oci_parse(text, strlen(text), &fx->arena, &document, &fx->err), &fx->err);
	return document;
}

static struct digest put(struct fixture *fx, const char *text)
{
	struct oci_document document = parsed(fx, text);
	struct digest digest = text_digest(text);

	assert_ok(catalog_put(fx->catalog, &digest, &document, &fx->err), &fx->err);
	return digest;
}

static void assert_same_text(const char *a, const char *b)
{
	if (a && b)
		assert_string_equal(a, b);
	else
		assert_true(!a && !b);
}

static void assert_same_descriptor(const struct oci_descriptor *a, const struct oci_descriptor *b)
{
	assert_string_equal(a->media_type, b->media_type);
	assert_true(digest_equal(&a->digest, &b->digest));
	assert_true(a->size_bytes == b->size_bytes);
	assert_int_equal(a->layer_index, b->layer_index);
	assert_same_text(a->artifact_type, b->artifact_type);
	assert_same_text(a->annotations, b->annotations);
}

static void assert_comes_back(struct fixture *fx, const char *text)
{
	struct oci_document want = parsed(fx, text), got;
	struct digest digest = put(fx, text);
	int r = catalog_document(fx->reader, &digest, &fx->arena, &got, &fx->err);

	assert_ok(r, &fx->err);
	assert_int_equal(r, 0);
	assert_int_equal(got.kind, want.kind);
	assert_same_text(got.media_type, want.media_type);
	assert_same_text(got.artifact_type, want.artifact_type);
	assert_same_text(got.annotations, want.annotations);
	assert_int_equal(got.n_layers, want.n_layers);
	assert_int_equal(got.n_entries, want.n_entries);
	for (size_t i = 0; i < want.n_entries; i++)
		assert_same_descriptor(&got.entries[i], &want.entries[i]);
	if (want.kind == OCI_MANIFEST)
		assert_same_descriptor(&got.config, &want.config);
	for (size_t i = 0; want.kind == OCI_CONFIG && i < want.n_layers; i++) {
		assert_true(digest_equal(&got.diff_ids[i], &want.diff_ids[i]));
		assert_true(digest_equal(&got.chain_ids[i], &want.chain_ids[i]));
	}
}

#define ONE "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
#define TWO                                                                                        \
	"sha512:05f70341078acf6a06d423d21720f9643d5f953626d88a02636dc3a9e79582aeb0c820857fd3f8dc5" \
	"02aa8360d2c8fa97a985fda5b629b809cad18ffb62d3899"

static void what_documents_say_comes_back(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 1000);

	assert_comes_back(fx, image.index);
	assert_comes_back(fx, image.manifest);
	assert_comes_back(fx, image.config);
	assert_comes_back(fx, image_make(&fx->arena, "none", 0).config);
	assert_comes_back(fx, image_make(&fx->arena, "none", 0).manifest);
	assert_comes_back(fx, "{}");
	assert_comes_back(fx, "{\"manifests\":[]}");
	assert_comes_back(
		fx,
		"{\"schemaVersion\":2,\"artifactType\":\"a/b\",\"annotations\":{\"\xc3\xa4 \\\"\":"
		"\"\\n\"},\"config\":{\"mediaType\":\"c/d\",\"digest\":\"" TWO
		"\",\"size\":9223372036854775807,\"annotations\":{\"k\":\"\"},\"artifactType\":\"e/"
		"f\"},"
		"\"layers\":[{\"mediaType\":\"no/layer\",\"digest\":\"" ONE
		"\",\"size\":0},{\"mediaType\":\"application/"
		"vnd.oci.image.layer.v1.tar\",\"digest\":\"" TWO
		"\",\"size\":1,\"artifactType\":\"g/"
		"h\",\"annotations\":{\"a\":\"b\",\"c\":\"d\"}}]}");
}

static void assert_unknown(struct fixture *fx, const struct digest *digest)
{
	struct oci_document document;
	struct catalog_mention *mentions;
	struct catalog_layer *layers;
	size_t n;

	assert_int_equal(catalog_document(fx->reader, digest, &fx->arena, &document, &fx->err), 1);
	assert_int_equal(catalog_mentions(fx->reader, digest, &fx->arena, &mentions, &n, &fx->err),
			 1);
	assert_int_equal(catalog_chain(fx->reader, digest, &fx->arena, &layers, &n, &fx->err), 1);
}

static void what_was_not_put_is_unknown(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = text_digest("unknown");

	assert_unknown(fx, &digest);
	assert_int_equal(catalog_has(fx->catalog, &digest, &fx->err), 0);
	/* Forgetting it is no error. */
	assert_ok(catalog_drop(fx->catalog, &digest, &fx->err), &fx->err);
}

static struct catalog_layer chain_of(struct fixture *fx, const struct digest *chain_id)
{
	struct catalog_layer *layers;
	size_t n = 0;
	int r = catalog_chain(fx->reader, chain_id, &fx->arena, &layers, &n, &fx->err);

	assert_ok(r, &fx->err);
	assert_int_equal(r, 0);
	assert_int_equal(n, 1);
	return layers[0];
}

static void assert_chains(struct fixture *fx, const struct image *image)
{
	for (size_t i = 0; i < image->n_layers; i++) {
		struct catalog_layer layer = chain_of(fx, &image->chain_ids[i]);

		assert_true(digest_equal(&layer.manifest, &image->manifest_digest));
		assert_true(digest_equal(&layer.config, &image->config_digest));
		assert_true(digest_equal(&layer.diff_id, &image->diff_ids[i]));
		assert_true(digest_equal(&layer.layer.digest, &image->layers[i]));
		assert_int_equal(layer.position, i);
		assert_int_equal(layer.layer.layer_index, i);
		assert_int_equal(layer.layer.size_bytes, 1000 + i);
	}
}

static void chains_lead_to_layers_in_whatever_order_they_came(void **state)
{
	static const int orders[][2] = {{0, 1}, {1, 0}};
	struct fixture *fx = *state;

	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		char name[16];
		struct image image;
		const char *texts[2];
		struct catalog_layer *layers;
		size_t n;

		snprintf(name, sizeof(name), "image %zu", i);
		image = image_make(&fx->arena, name, 5);
		texts[0] = image.manifest;
		texts[1] = image.config;
		put(fx, texts[orders[i][0]]);
		assert_int_equal(catalog_chain(fx->reader, &image.chain_ids[2], &fx->arena, &layers,
					       &n, &fx->err),
				 1);
		put(fx, texts[orders[i][1]]);
		assert_chains(fx, &image);
	}
}

static void layers_that_are_not_unpacked_do_not_count(void **state)
{
	static const char config[] = "{\"rootfs\":{\"diff_ids\":[\"" ONE "\"]}}";
	struct fixture *fx = *state;
	struct digest config_digest = text_digest(config), diff_id, attached;
	char text[DIGEST_TEXT_BYTES];
	struct catalog_layer layer, *layers;
	size_t n;

	assert_ok(digest_parse(ONE, &diff_id, &fx->err), &fx->err);
	attached = text_digest("attached");
	put(fx, config);
	/* As buildkit attaches its statements: no layer, one diff ID. */
	put(fx,
	    arena_printf(
		    &fx->arena,
		    "{\"config\":{\"mediaType\":\"a/b\",\"digest\":\"%s\",\"size\":1},"
		    "\"layers\":[{\"mediaType\":\"application/vnd.in-toto+json\",\"digest\":\"" ONE
		    "\",\"size\":1}]}",
		    digest_format(&config_digest, text)));
	assert_int_equal(catalog_chain(fx->reader, &diff_id, &fx->arena, &layers, &n, &fx->err), 1);
	/* Behind something else, a layer has the place that it has among the layers. */
	put(fx,
	    arena_printf(&fx->arena,
			 "{\"config\":{\"mediaType\":\"a/b\",\"digest\":\"%s\",\"size\":1},"
			 "\"layers\":[{\"mediaType\":\"some/thing\",\"digest\":\"" ONE
			 "\",\"size\":1},{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\","
			 "\"digest\":\"sha256:%s\",\"size\":2}]}",
			 digest_format(&config_digest, text),
			 digest_format(&attached, (char[DIGEST_TEXT_BYTES]){0}) + 7));
	layer = chain_of(fx, &diff_id);
	assert_true(digest_equal(&layer.layer.digest, &attached));
	assert_int_equal(layer.position, 1);
	assert_int_equal(layer.layer.layer_index, 0);
}

static void who_mentions_a_blob_is_known_the_latest_first(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);
	struct catalog_mention *mentions;
	struct digest first = put(fx, image.manifest), digest = first;
	size_t n = 0;

	assert_int_equal(catalog_mentions(fx->reader, &image.layers[1], &fx->arena, &mentions, &n,
					  &fx->err),
			 0);
	assert_int_equal(n, 1);
	assert_true(digest_equal(&mentions[0].document, &first));
	assert_int_equal(mentions[0].kind, OCI_MANIFEST);
	assert_int_equal(mentions[0].position, 1);
	assert_string_equal(mentions[0].descriptor.annotations, "{\"number\":\"1\"}");
	assert_int_equal(catalog_mentions(fx->reader, &image.config_digest, &fx->arena, &mentions,
					  &n, &fx->err),
			 0);
	assert_int_equal(mentions[0].position, -1);

	/* The same manifest with ever more space behind it is another blob each time. */
	for (int i = 0; i < 100; i++)
		digest = put(fx, arena_printf(&fx->arena, "%s%*s", image.manifest, i + 1, ""));
	assert_int_equal(catalog_mentions(fx->reader, &image.layers[1], &fx->arena, &mentions, &n,
					  &fx->err),
			 0);
	assert_int_equal(n, CATALOG_ANSWERS_MAX);
	assert_true(digest_equal(&mentions[0].document, &digest));
	/* As many images have the one configuration, and its chains. */
	{
		struct catalog_layer *layers;

		put(fx, image.config);
		assert_int_equal(catalog_chain(fx->reader, &image.chain_ids[2], &fx->arena, &layers,
					       &n, &fx->err),
				 0);
		assert_int_equal(n, CATALOG_ANSWERS_MAX);
		assert_true(digest_equal(&layers[0].manifest, &digest));
		assert_true(digest_equal(&layers[0].layer.digest, &image.layers[2]));
	}
}

static void what_is_dropped_is_gone_and_nothing_else(void **state)
{
	struct fixture *fx = *state;
	struct image kept = image_make(&fx->arena, "kept", 3);
	struct image gone = image_make(&fx->arena, "gone", 3);
	const char *const texts[] = {gone.index, gone.manifest, gone.config};

	put(fx, kept.manifest);
	put(fx, kept.config);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		put(fx, texts[i]);
	assert_chains(fx, &gone);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct digest digest = text_digest(texts[i]);

		assert_int_equal(catalog_has(fx->catalog, &digest, &fx->err), 1);
		assert_ok(catalog_drop(fx->catalog, &digest, &fx->err), &fx->err);
		assert_int_equal(catalog_has(fx->catalog, &digest, &fx->err), 0);
	}
	assert_unknown(fx, &gone.index_digest);
	assert_unknown(fx, &gone.manifest_digest);
	assert_unknown(fx, &gone.config_digest);
	for (size_t i = 0; i < gone.n_layers; i++) {
		assert_unknown(fx, &gone.layers[i]);
		assert_unknown(fx, &gone.chain_ids[i]);
	}
	assert_chains(fx, &kept);
}

static void putting_it_again_changes_nothing(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);

	for (int i = 0; i < 3; i++) {
		put(fx, image.config);
		put(fx, image.manifest);
	}
	assert_chains(fx, &image);
}

static void all_of_them_can_be_listed(void **state)
{
	struct fixture *fx = *state;
	struct digest page[7], last, *after = NULL;
	int n_all = 0, n;

	for (int i = 0; i < 30; i++)
		put(fx, arena_printf(&fx->arena, "{\"n\":%d}", i));
	do {
		n = catalog_list(fx->catalog, after, page, ARRAY_LEN(page), &fx->err);
		assert_ok(n, &fx->err);
		for (int i = 0; i < n; i++) {
			assert_int_equal(catalog_has(fx->catalog, &page[i], &fx->err), 1);
			if (i > 0)
				assert_true(memcmp(page[i - 1].bytes, page[i].bytes, 32) < 0);
			else if (after)
				assert_true(memcmp(last.bytes, page[i].bytes, 32) < 0);
		}
		n_all += n;
		if (n)
			last = page[n - 1];
		after = &last;
	} while (n == ARRAY_LEN(page));
	assert_int_equal(n_all, 30);
}

static void readers_are_told_whether_it_is_complete(void **state)
{
	struct fixture *fx = *state;

	assert_int_equal(catalog_is_complete(fx->reader, &fx->err), 0);
	assert_ok(catalog_set_complete(fx->catalog, true, &fx->err), &fx->err);
	assert_ok(catalog_set_complete(fx->catalog, true, &fx->err), &fx->err);
	assert_int_equal(catalog_is_complete(fx->reader, &fx->err), 1);
	assert_ok(catalog_set_complete(fx->catalog, false, &fx->err), &fx->err);
	assert_int_equal(catalog_is_complete(fx->reader, &fx->err), 0);
}

static void without_a_catalog_nothing_is_found(void **state)
{
	struct fixture *fx = *state;
	struct digest digest = text_digest("x");
	struct catalog_mention *mentions;
	struct catalog_layer *layers;
	struct oci_document document;
	size_t n;

	catalog_close(fx->catalog);
	fx->catalog = NULL;
	assert_int_equal(unlinkat(fx->root->fd, "catalog.db", 0), 0);
	assert_fails(catalog_is_complete(fx->reader, &fx->err), &fx->err, ERR_NOT_FOUND);
	assert_fails(catalog_document(fx->reader, &digest, &fx->arena, &document, &fx->err),
		     &fx->err, ERR_NOT_FOUND);
	assert_fails(catalog_mentions(fx->reader, &digest, &fx->arena, &mentions, &n, &fx->err),
		     &fx->err, ERR_NOT_FOUND);
	assert_fails(catalog_chain(fx->reader, &digest, &fx->arena, &layers, &n, &fx->err),
		     &fx->err, ERR_NOT_FOUND);
}

static void readers_without_memory_say_so(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 200);
	struct digest digest = put(fx, image.manifest);
	struct oci_document document;
	struct catalog_mention *mentions;
	struct arena small;
	size_t n;

	arena_init(&small, 8192);
	assert_fails(catalog_document(fx->reader, &digest, &small, &document, &fx->err), &fx->err,
		     ERR_RESOURCE_EXHAUSTED);
	assert_fails(catalog_mentions(fx->reader, &image.layers[0], &small, &mentions, &n,
				      &fx->err),
		     &fx->err, ERR_RESOURCE_EXHAUSTED);
	arena_done(&small);
	assert_int_equal(catalog_document(fx->reader, &digest, &fx->arena, &document, &fx->err), 0);
}

static void annotations_are_a_map(void **state)
{
	struct fixture *fx = *state;
	struct strmap map;

	assert_ok(catalog_annotations(NULL, &fx->arena, &map, &fx->err), &fx->err);
	assert_int_equal(map.n, 0);
	assert_ok(catalog_annotations("{\"b\":\"2\",\"a\":\"\xc3\xa4\\n\"}", &fx->arena, &map,
				      &fx->err),
		  &fx->err);
	assert_int_equal(map.n, 2);
	assert_string_equal(strmap_get(&map, "a"), "\xc3\xa4\n");
	assert_string_equal(strmap_get(&map, "b"), "2");
	assert_fails(catalog_annotations("{\"a\":1}", &fx->arena, &map, &fx->err), &fx->err,
		     ERR_DATA_LOSS);
}

static void damage_is_found_by_reading_all_of_it(void **state)
{
	static const char garbage[4096] = {1};
	struct fixture *fx = *state;
	int fd;

	for (int i = 0; i < 500; i++)
		put(fx, arena_printf(&fx->arena, "{\"n\":%d}", i));
	assert_ok(catalog_check(fx->catalog, &fx->err), &fx->err);
	catalog_close(fx->catalog);
	fx->catalog = NULL;
	/* Two of its pages; the first ones have the schema. */
	fd = openat(fx->root->fd, "catalog.db", O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, garbage, sizeof(garbage), 9 * 4096), sizeof(garbage));
	assert_int_equal(pwrite(fd, garbage, sizeof(garbage), 10 * 4096), sizeof(garbage));
	close(fd);
	assert_ok(catalog_open(fx->path, &fx->catalog, &fx->err), &fx->err);
	assert_fails(catalog_check(fx->catalog, &fx->err), &fx->err, ERR_DATA_LOSS);
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_documents_say_comes_back),
		TEST(what_was_not_put_is_unknown),
		TEST(chains_lead_to_layers_in_whatever_order_they_came),
		TEST(layers_that_are_not_unpacked_do_not_count),
		TEST(who_mentions_a_blob_is_known_the_latest_first),
		TEST(what_is_dropped_is_gone_and_nothing_else),
		TEST(putting_it_again_changes_nothing),
		TEST(all_of_them_can_be_listed),
		TEST(readers_are_told_whether_it_is_complete),
		TEST(without_a_catalog_nothing_is_found),
		TEST(readers_without_memory_say_so),
		TEST(annotations_are_a_map),
		TEST(damage_is_found_by_reading_all_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
