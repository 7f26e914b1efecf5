/* SPDX-License-Identifier: Apache-2.0 */
#include "content/oci.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/compiler.h"
#include "base/json.h"

/* An index of OCI_MANIFESTS_MAX has three objects for each, descriptor, platform and annotations. */
static const struct json_limits limits = {
	.size_bytes = OCI_DOCUMENT_MAX_BYTES,
	.n_containers = 8192,
	.n_values = 65536,
};

/* The members that are read, of each kind of object. */
static const char *const root_names[] = {"schemaVersion", "mediaType", "artifactType",
					 "annotations",   "manifests", "config",
					 "layers",        "fsLayers",  "rootfs"};
static const char *const descriptor_names[] = {"mediaType", "digest", "size", "artifactType",
					       "annotations"};
static const char *const rootfs_names[] = {"diff_ids"};

static int no_memory(struct err *err)
{
	return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a document");
}

/* --- names that others would take for ours ----------------------------------------------------------- */

/**
 * struct names - the members of an object that are read
 */
struct names {
	const char *const *names;
	size_t n;
};

/*
 * Is @name the same as @ours, a name in ASCII, but for the case of letters? To Go two letters beyond ASCII are s and k
 * in another case, too: U+017F and U+212A.
 */
static bool equal_but_for_case(const char *name, const char *ours)
{
	for (; *name && *ours; ours++) {
		if (strncmp(name, "\xc5\xbf", 2) == 0 && (*ours | 0x20) == 's')
			name += 2;
		else if (strncmp(name, "\xe2\x84\xaa", 3) == 0 && (*ours | 0x20) == 'k')
			name += 3;
		else if (strncasecmp(name, ours, 1) == 0)
			name++;
		else
			return false;
	}
	return !*name && !*ours;
}

static int check_name(void *arg, const char *name, const struct json *value, struct err *err)
{
	const struct names *names = arg;

	(void)value;
	for (size_t i = 0; i < names->n; i++)
		if (strcmp(name, names->names[i]) != 0 && equal_but_for_case(name, names->names[i]))
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "a member is called '%.40s', which some take for '%s'", name,
				       names->names[i]);
	return 0;
}

static int check_names(const struct json *object, const char *const *names, size_t n,
		       struct err *err)
{
	struct names arg = {names, n};

	return json_each_member(object, check_name, &arg, err);
}

/* --- values ---------------------------------------------------------------------------------------- */

/* The text of member @name; NULL when it is not there. */
static int read_text(const struct json *object, const char *name, struct arena *arena,
		     const char **ret_text, struct err *err)
{
	const struct json *value = json_member(object, name);
	const char *text = json_string(value);

	*ret_text = NULL;
	if (!value)
		return 0;
	if (!text || strlen(text) > OCI_MEDIA_TYPE_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is no text of at most %d bytes",
			       name, OCI_MEDIA_TYPE_MAX);
	/* Go cannot tell an empty one from none. */
	if (text[0] == '\0')
		return 0;
	*ret_text = arena_strdup(arena, text);
	return *ret_text ? 0 : no_memory(err);
}

static int check_annotation(void *arg, const char *name, const struct json *value, struct err *err)
{
	(void)arg;
	return json_kind(value) == JSON_STRING
		       ? 0
		       : err_set(err, ERR_INVALID_ARGUMENT, "annotation '%.100s' is no text", name);
}

static int read_annotations(const struct json *object, struct arena *arena,
			    const char **ret_annotations, struct err *err)
{
	const struct json *annotations = json_member(object, "annotations");
	const char *text;

	*ret_annotations = NULL;
	if (!annotations)
		return 0;
	if (json_kind(annotations) != JSON_OBJECT)
		return err_set(err, ERR_INVALID_ARGUMENT, "'annotations' is no object");
	if (json_each_member(annotations, check_annotation, NULL, err) < 0)
		return -1;
	text = json_text(annotations, arena);
	if (!text)
		return no_memory(err);
	if (strlen(text) > OCI_ANNOTATIONS_MAX)
		return err_set(err, ERR_OUT_OF_RANGE, "annotations of %zu bytes", strlen(text));
	if (strcmp(text, "{}") != 0)
		*ret_annotations = text;
	return 0;
}

static int read_digest(const struct json *value, const char *what, struct digest *ret_digest,
		       struct err *err)
{
	const char *text = json_string(value);

	if (!text)
		return err_set(err, ERR_INVALID_ARGUMENT, "%s is no text", what);
	return digest_parse(text, ret_digest, err);
}

static int read_fields(const struct json *value, struct arena *arena,
		       struct oci_descriptor *ret_descriptor, struct err *err)
{
	struct oci_descriptor descriptor = {.layer_index = -1};
	int64_t size;

	if (json_kind(value) != JSON_OBJECT)
		return err_set(err, ERR_INVALID_ARGUMENT, "it is no object");
	if (check_names(value, descriptor_names, ARRAY_LEN(descriptor_names), err) < 0 ||
	    read_text(value, "mediaType", arena, &descriptor.media_type, err) < 0 ||
	    read_text(value, "artifactType", arena, &descriptor.artifact_type, err) < 0 ||
	    read_digest(json_member(value, "digest"), "'digest'", &descriptor.digest, err) < 0 ||
	    read_annotations(value, arena, &descriptor.annotations, err) < 0)
		return -1;
	if (!descriptor.media_type)
		return err_set(err, ERR_INVALID_ARGUMENT, "it has no 'mediaType'");
	if (!json_int(json_member(value, "size"), &size))
		return err_set(err, ERR_INVALID_ARGUMENT, "'size' is no number of bytes");
	descriptor.size_bytes = (uint64_t)size;
	*ret_descriptor = descriptor;
	return 0;
}

/* @i: which one of @what */
static int read_descriptor(const struct json *value, const char *what, size_t i,
			   struct arena *arena, struct oci_descriptor *ret_descriptor,
			   struct err *err)
{
	if (read_fields(value, arena, ret_descriptor, err) < 0)
		return err_wrap(err, "%s %zu", what, i);
	return 0;
}

static int read_entries(const struct json *array, const char *what, size_t max, struct arena *arena,
			struct oci_document *document, struct err *err)
{
	size_t n = json_n_elements(array);

	if (array && json_kind(array) != JSON_ARRAY)
		return err_set(err, ERR_INVALID_ARGUMENT, "'%ss' is no array", what);
	if (n > max)
		return err_set(err, ERR_OUT_OF_RANGE, "%zu %ss, %zu are the most that is read", n,
			       what, max);
	document->entries = arena_array(arena, n, sizeof(*document->entries));
	if (!document->entries)
		return no_memory(err);
	document->n_entries = n;
	for (size_t i = 0; i < n; i++)
		if (read_descriptor(json_element(array, i), what, i, arena, &document->entries[i],
				    err) < 0)
			return -1;
	return 0;
}

/* --- documents -------------------------------------------------------------------------------------- */

static int read_index(const struct json *root, struct arena *arena, struct oci_document *document,
		      struct err *err)
{
	return read_entries(json_member(root, "manifests"), "manifest", OCI_MANIFESTS_MAX, arena,
			    document, err);
}

bool oci_is_layer(const char *media_type)
{
	/* Of Docker's, whatever stands behind a plus. */
	static const char *const docker[] = {
		"application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.foreign.diff.tar",
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
	};
	static const char oci[] = "application/vnd.oci.image.layer.";
	size_t len = strcspn(media_type, "+");

	if (strncmp(media_type, oci, strlen(oci)) == 0)
		return true;
	for (size_t i = 0; i < ARRAY_LEN(docker); i++)
		if (strlen(docker[i]) == len && strncmp(media_type, docker[i], len) == 0)
			return true;
	return false;
}

static int read_manifest(const struct json *root, struct arena *arena,
			 struct oci_document *document, struct err *err)
{
	if (read_descriptor(json_member(root, "config"), "config", 0, arena, &document->config,
			    err) < 0 ||
	    read_entries(json_member(root, "layers"), "layer", OCI_LAYERS_MAX, arena, document,
			 err) < 0)
		return -1;
	for (size_t i = 0; i < document->n_entries; i++)
		if (oci_is_layer(document->entries[i].media_type))
			document->entries[i].layer_index = (int)document->n_layers++;
	return 0;
}

int oci_chain_ids(const struct digest *diff_ids, size_t n, struct digest *ret_chain_ids,
		  struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		char below[DIGEST_TEXT_BYTES], own[DIGEST_TEXT_BYTES];
		char both[2 * DIGEST_TEXT_BYTES];
		int len;

		if (i == 0) {
			ret_chain_ids[0] = diff_ids[0];
			continue;
		}
		len = snprintf(both, sizeof(both), "%s %s",
			       digest_format(&ret_chain_ids[i - 1], below),
			       digest_format(&diff_ids[i], own));
		if (digest_of(DIGEST_SHA256, both, (size_t)len, &ret_chain_ids[i], err) < 0)
			return -1;
	}
	return 0;
}

static int read_config(const struct json *root, struct arena *arena, struct oci_document *document,
		       struct err *err)
{
	const struct json *rootfs = json_member(root, "rootfs");
	const struct json *diff_ids = json_member(rootfs, "diff_ids");
	size_t n = json_n_elements(diff_ids);

	if (json_kind(rootfs) != JSON_OBJECT || (diff_ids && json_kind(diff_ids) != JSON_ARRAY))
		return err_set(err, ERR_INVALID_ARGUMENT, "'rootfs' is no object with 'diff_ids'");
	if (check_names(rootfs, rootfs_names, ARRAY_LEN(rootfs_names), err) < 0)
		return -1;
	if (n > OCI_LAYERS_MAX)
		return err_set(err, ERR_OUT_OF_RANGE, "%zu diff IDs, %d are the most that is read",
			       n, OCI_LAYERS_MAX);
	document->n_layers = n;
	document->diff_ids = arena_array(arena, n, sizeof(struct digest));
	document->chain_ids = arena_array(arena, n, sizeof(struct digest));
	if (!document->diff_ids || !document->chain_ids)
		return no_memory(err);
	for (size_t i = 0; i < n; i++)
		if (read_digest(json_element(diff_ids, i), "a diff ID", &document->diff_ids[i],
				err) < 0)
			return err_wrap(err, "diff ID %zu", i);
	return oci_chain_ids(document->diff_ids, n, document->chain_ids, err);
}

/* What it says it is; OCI_OTHER: something that is not read. */
static enum oci_kind kind_of_type(const char *media_type)
{
	static const struct {
		const char *media_type;
		enum oci_kind kind;
	} types[] = {
		{"application/vnd.oci.image.index.v1+json", OCI_INDEX},
		{"application/vnd.docker.distribution.manifest.list.v2+json", OCI_INDEX},
		{"application/vnd.oci.image.manifest.v1+json", OCI_MANIFEST},
		{"application/vnd.docker.distribution.manifest.v2+json", OCI_MANIFEST},
		/* Which say it in the manifest alone, as a rule. */
		{"application/vnd.oci.image.config.v1+json", OCI_CONFIG},
		{"application/vnd.docker.container.image.v1+json", OCI_CONFIG},
	};

	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (strcmp(types[i].media_type, media_type) == 0)
			return types[i].kind;
	return OCI_OTHER;
}

/* What it looks like. The configuration of an image has a member "config", too. */
static int kind_of_shape(const struct json *root, enum oci_kind *ret_kind, struct err *err)
{
	bool index = json_member(root, "manifests"), config = json_member(root, "rootfs");
	bool manifest = json_member(root, "layers");

	if (index + config + manifest > 1 || (index && json_member(root, "config")))
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "it is more than one of index, manifest and configuration");
	*ret_kind = index ? OCI_INDEX : manifest ? OCI_MANIFEST : config ? OCI_CONFIG : OCI_OTHER;
	return 0;
}

static int choose_kind(const struct json *root, struct oci_document *document, struct err *err)
{
	enum oci_kind shape;
	int64_t version;

	/* Docker's schema 1, which has no digests of configurations, nor diff IDs. */
	if (json_member(root, "fsLayers") ||
	    (json_int(json_member(root, "schemaVersion"), &version) && version == 1))
		return 0;
	if (kind_of_shape(root, &shape, err) < 0)
		return -1;
	if (!document->media_type) {
		document->kind = shape;
		return 0;
	}
	document->kind = kind_of_type(document->media_type);
	if (document->kind != OCI_OTHER && shape != OCI_OTHER && shape != document->kind)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "it says it is '%s', and does not look so", document->media_type);
	return 0;
}

static int read_document(const struct json *root, struct arena *arena,
			 struct oci_document *document, struct err *err)
{
	if (json_kind(root) != JSON_OBJECT)
		return 0;
	if (check_names(root, root_names, ARRAY_LEN(root_names), err) < 0 ||
	    read_text(root, "mediaType", arena, &document->media_type, err) < 0 ||
	    choose_kind(root, document, err) < 0)
		return -1;
	if (document->kind == OCI_OTHER)
		return 0;
	if (read_text(root, "artifactType", arena, &document->artifact_type, err) < 0 ||
	    read_annotations(root, arena, &document->annotations, err) < 0)
		return -1;
	if (document->kind == OCI_INDEX)
		return read_index(root, arena, document, err);
	if (document->kind == OCI_MANIFEST)
		return read_manifest(root, arena, document, err);
	return read_config(root, arena, document, err);
}

bool oci_may_be_document(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (!strchr(" \t\r\n", text[i]) || text[i] == '\0')
			return text[i] == '{';
	return false;
}

int oci_parse(const char *text, size_t size, struct arena *arena, struct oci_document *ret_document,
	      struct err *err)
{
	struct oci_document document = {0};
	struct json *root;
	int r;

	if (json_parse(text, size, &limits, &root, err) < 0)
		return -1;
	r = read_document(root, arena, &document, err);
	json_free(root);
	if (r == 0)
		*ret_document = document;
	return r;
}
