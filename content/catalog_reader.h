/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog, as other processes read it: what the manifests, indexes and image configurations say that
 * lighter-content holds. It is read while it is written, need not be there yet, and may be made anew meanwhile. Any
 * thread; one call at a time is served.
 *
 * When the commit of a document has been answered, what it says can be read here. What can be read was said by a blob
 * that was there, whose digest vouches for it: it is true for ever, but the blob may be gone by now. That something
 * is unknown means nothing, unless catalog_is_complete() says so: after a power cut, a full disk, or while it is made
 * anew, documents are missing.
 *
 * All but catalog_is_complete() return 0, 1 for what is unknown, or -1, with ERR_NOT_FOUND when there is no catalog;
 * other errors as db_follow()'s. Results are in the arena they are given.
 */
#ifndef LIGHTER_CONTENT_CATALOG_READER_H
#define LIGHTER_CONTENT_CATALOG_READER_H

#include "base/arena.h"
#include "base/strmap.h"
#include "content/oci.h"

/* Answers name the latest ones, if there are more. */
#define CATALOG_ANSWERS_MAX 64

struct catalog_reader;

/** catalog_reader_new() - @path: of catalog.db, in the root of lighter-content; need not exist */
ERR_CHECKED int catalog_reader_new(const char *path, struct catalog_reader **ret_reader,
				   struct err *err);
void catalog_reader_free(struct catalog_reader *reader);

/** catalog_is_complete() - have all documents been looked at? Return: 1 or 0; or -1. */
ERR_CHECKED int catalog_is_complete(struct catalog_reader *reader, struct err *err);

/**
 * catalog_document() - what the blob @digest says: a manifest, its configuration and layers; an index, its manifests;
 *                      a configuration, diff IDs and chain IDs
 */
ERR_CHECKED int catalog_document(struct catalog_reader *reader, const struct digest *digest,
				 struct arena *arena, struct oci_document *ret_document,
				 struct err *err);

/**
 * struct catalog_mention - that a document points at a blob
 * @document: its digest, @kind: index or manifest
 * @position: which of its entries that is; -1: the configuration
 * @descriptor: what it says of the blob
 */
struct catalog_mention {
	struct digest document;
	enum oci_kind kind;
	int position;
	struct oci_descriptor descriptor;
};

/** catalog_mentions() - who points at the blob @digest, which itself need not be there; the latest first */
ERR_CHECKED int catalog_mentions(struct catalog_reader *reader, const struct digest *digest,
				 struct arena *arena, struct catalog_mention **ret_mentions,
				 size_t *ret_n, struct err *err);

/**
 * struct catalog_layer - a layer of an image
 * @manifest, @config: of the image
 * @position: among the manifest's layers, all of them
 * @layer: what the manifest says of it; its layer_index is that of the diff ID and the chain ID
 */
struct catalog_layer {
	struct digest manifest;
	struct digest config;
	struct digest diff_id;
	int position;
	struct oci_descriptor layer;
};

/**
 * catalog_chain() - the layer on top of the chain @chain_id, as each image has it; the latest first
 *
 * Manifests that have not as many layers as their configuration has diff IDs are passed over, as containerd does not
 * unpack them. Nobody has verified that a layer has that diff ID: it is what the configuration says.
 */
ERR_CHECKED int catalog_chain(struct catalog_reader *reader, const struct digest *chain_id,
			      struct arena *arena, struct catalog_layer **ret_layers, size_t *ret_n,
			      struct err *err);

/** catalog_annotations() - the annotations of a descriptor or document, as a map; NULL is an empty one */
ERR_CHECKED int catalog_annotations(const char *annotations, struct arena *arena,
				    struct strmap *ret_annotations, struct err *err);

#endif
