/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What images are described by, as plain structs: indexes and manifests, OCI's and Docker's (schema 2), and image
 * configurations. Any thread.
 *
 * A blob does not say what it is to whoever sees its bytes alone. As in containerd, `mediaType` counts where there is
 * one, else the shape; what has two shapes is refused, as it would mean one thing here and another there
 * (CVE-2021-41190). containerd reads by Go's encoding/json, which takes a member "Layers" for "layers", too: a document
 * with such a name is refused as well.
 *
 * Sources: OCI image-spec, image-index.md, manifest.md, config.md, descriptor.md; containerd, images/image.go and
 * images/mediatypes.go.
 */
#ifndef LIGHTER_CONTENT_OCI_H
#define LIGHTER_CONTENT_OCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/digest.h"
#include "base/err.h"

/* What is larger is not read. containerd, remotes/docker/resolver.go, MaxManifestSize. */
#define OCI_DOCUMENT_MAX_BYTES (4 * 1048 * 1048)
#define OCI_LAYERS_MAX         1024
#define OCI_MANIFESTS_MAX      2048
/* Of one descriptor or document, written as JSON. */
#define OCI_ANNOTATIONS_MAX    (64u << 10)
/* RFC 6838, section 4.2: 127 bytes on either side of the slash. */
#define OCI_MEDIA_TYPE_MAX     255
/* Enough for what is made of any document within these limits. */
#define OCI_ARENA_BYTES        (16u << 20)

/* Values are stored in the catalog. OTHER: none of these, or nothing that we know to read. */
enum oci_kind { OCI_OTHER = 0, OCI_INDEX = 1, OCI_MANIFEST = 2, OCI_CONFIG = 3 };

/**
 * struct oci_descriptor - what a document says of another blob
 * @layer_index: among the layers that are unpacked, which are those that diff IDs and chain IDs are of; -1: none
 * @artifact_type: NULL when there is none
 * @annotations: a JSON object whose members are strings, such as eStargz's TOC digest; NULL when there are none
 */
struct oci_descriptor {
	const char *media_type;
	struct digest digest;
	uint64_t size_bytes;
	int layer_index;
	const char *artifact_type;
	const char *annotations;
};

/**
 * struct oci_document - a document
 * @media_type: as it says itself; NULL when it does not
 * @artifact_type, @annotations: as in a descriptor
 * @config: of a manifest
 * @entries: @n_entries: of an index its manifests, of a manifest its layers, in the document's order
 * @n_layers: of a manifest: how many entries are unpacked; of a configuration: how many diff IDs it has. An image is
 *            sound only where the two are the same.
 * @diff_ids, @chain_ids: of a configuration, @n_layers each
 */
struct oci_document {
	enum oci_kind kind;
	const char *media_type;
	const char *artifact_type;
	const char *annotations;
	struct oci_descriptor config;
	struct oci_descriptor *entries;
	size_t n_entries;
	size_t n_layers;
	struct digest *diff_ids;
	struct digest *chain_ids;
};

/** oci_may_be_document() - could the blob that begins with these @size bytes be one? */
bool oci_may_be_document(const char *text, size_t size);

/**
 * oci_parse() - read a document
 * @arena: of OCI_ARENA_BYTES; what @ret_document points to is in there
 * Return: 0, with kind OCI_OTHER for JSON that is something else; -1: ERR_INVALID_ARGUMENT for what is malformed or
 * ambiguous; ERR_OUT_OF_RANGE for what is beyond a limit; ERR_RESOURCE_EXHAUSTED without memory.
 */
ERR_CHECKED int oci_parse(const char *text, size_t size, struct arena *arena,
			  struct oci_document *ret_document, struct err *err);

/** oci_is_layer() - is a layer of @media_type unpacked? containerd, images.IsLayerType() */
bool oci_is_layer(const char *media_type);

/** oci_chain_ids() - of the @n layers with @diff_ids: image-spec, config.md, "Layer ChainID" */
ERR_CHECKED int oci_chain_ids(const struct digest *diff_ids, size_t n, struct digest *ret_chain_ids,
			      struct err *err);

#endif
