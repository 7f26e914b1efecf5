/* SPDX-License-Identifier: Apache-2.0 */
#include "content/oci.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/str.h"
#include "tests/support/test.h"

/* sha256 of "one", "two", "three" */
#define ONE   "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
#define TWO   "sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
#define THREE "sha256:8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f"

#define OCI_INDEX_TYPE    "application/vnd.oci.image.index.v1+json"
#define OCI_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define OCI_CONFIG_TYPE   "application/vnd.oci.image.config.v1+json"
#define OCI_LAYER_TYPE    "application/vnd.oci.image.layer.v1.tar+gzip"

#define DESCRIPTOR(type_, digest_, size_)                                                          \
	"{\"mediaType\":\"" type_ "\",\"digest\":\"" digest_ "\",\"size\":" size_ "}"
#define CONFIG DESCRIPTOR(OCI_CONFIG_TYPE, ONE, "7")
#define LAYER  DESCRIPTOR(OCI_LAYER_TYPE, TWO, "1000")

struct fixture {
	struct arena arena;
	struct oci_document document;
	struct err err;
};

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	arena_init(&fx->arena, OCI_ARENA_BYTES);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	arena_done(&fx->arena);
	free(fx);
	return 0;
}

static int parse(struct fixture *fx, const char *text)
{
	return oci_parse(text, strlen(text), &fx->arena, &fx->document, &fx->err);
}

static void assert_kind(struct fixture *fx, const char *text, enum oci_kind kind)
{
	if (parse(fx, text) < 0)
		fail_msg("%s: %s", text, fx->err.msg);
	if (fx->document.kind != kind)
		fail_msg("%s: kind %d, not %d", text, fx->document.kind, kind);
}

static void assert_refused(struct fixture *fx, const char *text)
{
	if (parse(fx, text) == 0)
		fail_msg("%s was taken, as kind %d", text, fx->document.kind);
	if (fx->err.code != ERR_INVALID_ARGUMENT)
		fail_msg("%s: %s", text, fx->err.msg);
}

static void assert_digest(const struct digest *digest, const char *want)
{
	char text[DIGEST_TEXT_BYTES];

	assert_string_equal(digest_format(digest, text), want);
}

static void a_manifest_has_a_configuration_and_layers(void **state)
{
	struct fixture *fx = *state;

	assert_kind(fx,
		    "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST_TYPE
		    "\",\"config\":" CONFIG ",\"layers\":[{\"mediaType\":\"" OCI_LAYER_TYPE
		    "\",\"digest\":\"" TWO "\",\"size\":1000,\"annotations\":{\"containerd.io/"
		    "snapshot/stargz/toc.digest\":\"" ONE
		    "\"}},{\"mediaType\":\"application/vnd.in-toto+json\",\"digest\":\"" THREE
		    "\",\"size\":0,\"artifactType\":\"some/thing\"},"
		    "{\"mediaType\":\"application/"
		    "vnd.docker.image.rootfs.diff.tar.gzip\",\"digest\":\"" ONE
		    "\",\"size\":9223372036854775807}],\"annotations\":{\"k\":\"v\"}}",
		    OCI_MANIFEST);
	assert_string_equal(fx->document.media_type, OCI_MANIFEST_TYPE);
	assert_string_equal(fx->document.annotations, "{\"k\":\"v\"}");
	assert_null(fx->document.artifact_type);
	assert_string_equal(fx->document.config.media_type, OCI_CONFIG_TYPE);
	assert_digest(&fx->document.config.digest, ONE);
	assert_int_equal(fx->document.config.size_bytes, 7);
	assert_int_equal(fx->document.config.layer_index, -1);
	assert_int_equal(fx->document.n_entries, 3);
	assert_int_equal(fx->document.n_layers, 2);
	assert_digest(&fx->document.entries[0].digest, TWO);
	assert_int_equal(fx->document.entries[0].layer_index, 0);
	assert_string_equal(fx->document.entries[0].annotations,
			    "{\"containerd.io/snapshot/stargz/toc.digest\":\"" ONE "\"}");
	/* What is not unpacked has no diff ID. */
	assert_int_equal(fx->document.entries[1].layer_index, -1);
	assert_string_equal(fx->document.entries[1].artifact_type, "some/thing");
	assert_null(fx->document.entries[1].annotations);
	assert_int_equal(fx->document.entries[2].layer_index, 1);
	assert_true(fx->document.entries[2].size_bytes == INT64_MAX);
}

static void an_index_has_manifests(void **state)
{
	struct fixture *fx = *state;

	assert_kind(fx,
		    "{\"schemaVersion\":2,\"manifests\":[" DESCRIPTOR(
			    OCI_MANIFEST_TYPE, ONE,
			    "5") ",{\"mediaType\":\"" OCI_INDEX_TYPE "\",\"digest\":\"" TWO
				 "\",\"size\":6,\"platform\":{\"os\":\"linux\",\"architecture\":"
				 "\"arm64\"},"
				 "\"annotations\":{}}],\"artifactType\":\"x/y\"}",
		    OCI_INDEX);
	assert_null(fx->document.media_type);
	assert_string_equal(fx->document.artifact_type, "x/y");
	assert_int_equal(fx->document.n_entries, 2);
	assert_digest(&fx->document.entries[1].digest, TWO);
	assert_string_equal(fx->document.entries[1].media_type, OCI_INDEX_TYPE);
	assert_int_equal(fx->document.entries[1].layer_index, -1);
	assert_null(fx->document.entries[1].annotations);
}

static void a_configuration_has_diff_ids_and_chain_ids(void **state)
{
	struct fixture *fx = *state;

	/* The chain IDs were computed by another program. */
	assert_kind(fx,
		    "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"A=b\"]},"
		    "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" ONE "\",\"" TWO "\",\"" THREE
		    "\"]},\"history\":[{\"created_by\":\"x\"}]}",
		    OCI_CONFIG);
	assert_int_equal(fx->document.n_layers, 3);
	assert_digest(&fx->document.diff_ids[2], THREE);
	assert_digest(&fx->document.chain_ids[0], ONE);
	assert_digest(&fx->document.chain_ids[1],
		      "sha256:ee90d7132b9e9a049b7b0a88db345ca31fb5e8a74a5ee57210478a9a2522d499");
	assert_digest(&fx->document.chain_ids[2],
		      "sha256:bda931dfb05a05b2b515a117925fb63136f30ff08f5b2a4f79da3507a55580b3");
	/* Of an image "FROM scratch" without files. */
	assert_kind(fx, "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":null}}", OCI_CONFIG);
	assert_int_equal(fx->document.n_layers, 0);
}

static void its_type_counts_else_its_shape(void **state)
{
	static const struct {
		const char *text;
		enum oci_kind kind;
	} cases[] = {
		{"{\"manifests\":[]}", OCI_INDEX},
		{"{\"manifests\":[],\"mediaType\":\"\"}", OCI_INDEX},
		{"{\"mediaType\":\"" OCI_INDEX_TYPE "\"}", OCI_INDEX},
		{"{\"mediaType\":\"application/vnd.docker.distribution.manifest.list.v2+json\","
		 "\"manifests\":[]}",
		 OCI_INDEX},
		{"{\"config\":" CONFIG ",\"layers\":[]}", OCI_MANIFEST},
		{"{\"mediaType\":\"" OCI_MANIFEST_TYPE "\",\"config\":" CONFIG "}", OCI_MANIFEST},
		{"{\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\","
		 "\"config\":" CONFIG ",\"layers\":[" LAYER "]}",
		 OCI_MANIFEST},
		{"{\"rootfs\":{}}", OCI_CONFIG},
		{"{\"rootfs\":{},\"config\":{}}", OCI_CONFIG},
		/* Docker's schema 1; something else; and what only looks like one of ours. */
		{"{\"schemaVersion\":1,\"name\":\"x\",\"fsLayers\":[],\"history\":[]}", OCI_OTHER},
		{"{\"schemaVersion\":1,\"layers\":[]}", OCI_OTHER},
		{"{\"fsLayers\":[],\"manifests\":[]}", OCI_OTHER},
		{"{\"mediaType\":\"application/vnd.oci.artifact.manifest.v1+json\",\"layers\":7}",
		 OCI_OTHER},
		{"{}", OCI_OTHER},
		{"{\"config\":{}}", OCI_OTHER},
		{"{\"_type\":\"https://in-toto.io/Statement/v0.1\",\"subject\":[]}", OCI_OTHER},
		{"[]", OCI_OTHER},
		{"null", OCI_OTHER},
	};
	struct fixture *fx = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_kind(fx, cases[i].text, cases[i].kind);
}

static void what_is_two_things_is_refused(void **state)
{
	static const char *const texts[] = {
		"{\"manifests\":[],\"layers\":[],\"config\":" CONFIG "}",
		"{\"manifests\":[],\"config\":" CONFIG "}",
		"{\"manifests\":[],\"rootfs\":{}}",
		"{\"layers\":[],\"config\":" CONFIG ",\"rootfs\":{}}",
		"{\"mediaType\":\"" OCI_INDEX_TYPE "\",\"layers\":[],\"config\":" CONFIG "}",
		"{\"mediaType\":\"" OCI_MANIFEST_TYPE "\",\"manifests\":[]}",
		"{\"mediaType\":\"" OCI_CONFIG_TYPE "\",\"manifests\":[]}",
		/* To Go, these are layers, the configuration, and diff IDs. */
		"{\"config\":" CONFIG ",\"layers\":[],\"Layers\":[" LAYER "]}",
		"{\"config\":" CONFIG ",\"LAYERS\":[" LAYER "]}",
		"{\"config\":" CONFIG ",\"layers\":[],\"layer\xc5\xbf\":[]}",
		"{\"manifests\":[],\"Config\":{}}",
		"{\"rootfs\":{\"DIFF_IDS\":[]}}",
		"{\"root\\u0046s\":{}}",
		"{\"config\":" CONFIG ",\"layers\":[{\"mediaType\":\"a/b\",\"digest\":\"" ONE
		"\",\"size\":1,\"Digest\":\"" TWO "\"}]}",
		"{\"config\":" CONFIG ",\"layers\":[],\"layers\":[" LAYER "]}",
	};
	struct fixture *fx = *state;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		assert_refused(fx, texts[i]);
	/* Labels and annotations differ in case as they like. */
	assert_kind(fx,
		    "{\"manifests\":[],\"annotations\":{\"a\":\"\",\"A\":\"\",\"Layers\":\"\"}}",
		    OCI_INDEX);
}

#define MANIFEST_OF(layer_) "{\"config\":" CONFIG ",\"layers\":[" layer_ "]}"

static void malformed_ones_are_refused(void **state)
{
	static const char *const texts[] = {
		"{\"config\":{},\"layers\":[]}",
		"{\"layers\":[]}",
		"{\"config\":7,\"layers\":[]}",
		"{\"config\":" CONFIG ",\"layers\":{}}",
		"{\"manifests\":7}",
		"{\"manifests\":[7]}",
		"{\"mediaType\":7}",
		"{\"rootfs\":[]}",
		"{\"rootfs\":{\"diff_ids\":{}}}",
		"{\"rootfs\":{\"diff_ids\":[7]}}",
		"{\"rootfs\":{\"diff_ids\":[\"sha256:00\"]}}",
		"{\"mediaType\":\"" OCI_CONFIG_TYPE "\"}",
		MANIFEST_OF("null"),
		MANIFEST_OF("{\"digest\":\"" ONE "\",\"size\":1}"),
		MANIFEST_OF("{\"mediaType\":\"\",\"digest\":\"" ONE "\",\"size\":1}"),
		MANIFEST_OF("{\"mediaType\":\"a/b\",\"size\":1}"),
		MANIFEST_OF("{\"mediaType\":\"a/b\",\"digest\":\"" ONE "\"}"),
		MANIFEST_OF(DESCRIPTOR("a/b", ONE, "-1")),
		MANIFEST_OF(DESCRIPTOR("a/b", ONE, "1.0")),
		MANIFEST_OF(DESCRIPTOR("a/b", ONE, "1e3")),
		MANIFEST_OF(DESCRIPTOR("a/b", ONE, "\"1\"")),
		MANIFEST_OF(DESCRIPTOR("a/b", ONE, "9223372036854775808")),
		MANIFEST_OF(DESCRIPTOR("a/b", "md5:d41d8cd98f00b204e9800998ecf8427e", "1")),
		MANIFEST_OF(DESCRIPTOR("a/b", "../../etc/passwd", "1")),
		MANIFEST_OF("{\"mediaType\":\"a/b\",\"digest\":\"" ONE
			    "\",\"size\":1,\"annotations\":{\"k\":7}}"),
		MANIFEST_OF("{\"mediaType\":\"a/b\",\"digest\":\"" ONE
			    "\",\"size\":1,\"annotations\":[]}"),
		MANIFEST_OF("{\"mediaType\":\"a/b\",\"digest\":\"" ONE
			    "\",\"size\":1,\"artifactType\":[]}"),
		MANIFEST_OF(LAYER) "x",
		"{\"manifests\":[",
		"",
	};
	struct fixture *fx = *state;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		assert_refused(fx, texts[i]);
}

/* @before, @n times @part with commas between them, @after */
static int parse_many(struct fixture *fx, const char *before, const char *part, size_t n,
		      const char *after)
{
	struct str text;
	int r;

	str_init(&text, 64u << 20);
	str_add(&text, before);
	for (size_t i = 0; i < n; i++) {
		if (i)
			str_add(&text, ",");
		str_add(&text, part);
	}
	str_add(&text, after);
	assert_false(text.failed);
	r = parse(fx, text.text);
	str_done(&text);
	return r;
}

static void large_ones_are_read_up_to_a_limit(void **state)
{
	static const char manifest[] = "{\"config\":" CONFIG ",\"layers\":[", end[] = "]}";
	static const char entry[] = "{\"mediaType\":\"" OCI_MANIFEST_TYPE "\",\"digest\":\"" ONE
				    "\",\"size\":1,\"platform\":{\"os\":\"linux\",\"architecture\":"
				    "\"amd64\"},\"annotations\":{\"a\":\"b\"}}";
	struct fixture *fx = *state;

	assert_ok(parse_many(fx, manifest, LAYER, OCI_LAYERS_MAX, end), &fx->err);
	assert_int_equal(fx->document.n_layers, OCI_LAYERS_MAX);
	assert_fails(parse_many(fx, manifest, LAYER, OCI_LAYERS_MAX + 1, end), &fx->err,
		     ERR_OUT_OF_RANGE);
	assert_ok(parse_many(fx, "{\"manifests\":[", entry, OCI_MANIFESTS_MAX, end), &fx->err);
	assert_int_equal(fx->document.n_entries, OCI_MANIFESTS_MAX);
	assert_fails(parse_many(fx, "{\"manifests\":[", entry, OCI_MANIFESTS_MAX + 1, end),
		     &fx->err, ERR_OUT_OF_RANGE);
	assert_ok(parse_many(fx, "{\"rootfs\":{\"diff_ids\":[", "\"" ONE "\"", OCI_LAYERS_MAX,
			     "]}}"),
		  &fx->err);
	assert_fails(parse_many(fx, "{\"rootfs\":{\"diff_ids\":[", "\"" ONE "\"",
				OCI_LAYERS_MAX + 1, "]}}"),
		     &fx->err, ERR_OUT_OF_RANGE);
	assert_fails(parse_many(fx, "{\"x\":\"", "aaaaaaaa", OCI_DOCUMENT_MAX_BYTES / 8, "\"}"),
		     &fx->err, ERR_OUT_OF_RANGE);
	assert_fails(parse_many(fx, "[", "{}", 100000, "]"), &fx->err, ERR_OUT_OF_RANGE);
	assert_ok(parse_many(fx, "{\"manifests\":[],\"annotations\":{\"k\":\"", "aaaaaaa",
			     OCI_ANNOTATIONS_MAX / 8 - 2, "\"}}"),
		  &fx->err);
	assert_fails(parse_many(fx, "{\"manifests\":[],\"annotations\":{\"k\":\"", "aaaaaaa",
				OCI_ANNOTATIONS_MAX / 8, "\"}}"),
		     &fx->err, ERR_OUT_OF_RANGE);
	assert_int_equal(parse_many(fx, "{\"mediaType\":\"", "aaa", 70, "\"}"), -1);
}

static void layers_are_those_containerd_unpacks(void **state)
{
	(void)state;
	assert_true(oci_is_layer("application/vnd.oci.image.layer.v1.tar"));
	assert_true(oci_is_layer("application/vnd.oci.image.layer.v1.tar+zstd"));
	assert_true(oci_is_layer("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"));
	assert_true(oci_is_layer("application/vnd.docker.image.rootfs.diff.tar"));
	assert_true(oci_is_layer("application/vnd.docker.image.rootfs.diff.tar+zstd"));
	assert_true(oci_is_layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"));
	assert_false(oci_is_layer("application/vnd.docker.image.rootfs.diff.tar.zstd"));
	assert_false(oci_is_layer("application/vnd.docker.image.rootfs.diff.ta"));
	assert_false(oci_is_layer("application/vnd.in-toto+json"));
	assert_false(oci_is_layer(OCI_CONFIG_TYPE));
	assert_false(oci_is_layer(""));
}

static void documents_begin_with_a_brace(void **state)
{
	(void)state;
	assert_true(oci_may_be_document("{", 1));
	assert_true(oci_may_be_document(" \r\n\t{x", 6));
	assert_false(oci_may_be_document("", 0));
	assert_false(oci_may_be_document("   ", 3));
	assert_false(oci_may_be_document("[{", 2));
	assert_false(oci_may_be_document("\x1f\x8b{", 3));
	assert_false(oci_may_be_document("\0{", 2));
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_manifest_has_a_configuration_and_layers),
		TEST(an_index_has_manifests),
		TEST(a_configuration_has_diff_ids_and_chain_ids),
		TEST(its_type_counts_else_its_shape),
		TEST(what_is_two_things_is_refused),
		TEST(malformed_ones_are_refused),
		TEST(large_ones_are_read_up_to_a_limit),
		TEST(layers_are_those_containerd_unpacks),
		TEST(documents_begin_with_a_brace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
