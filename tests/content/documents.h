/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images, as the tests of the catalog commit them: small documents as registries serve them.
 */
#ifndef LIGHTER_TESTS_CONTENT_DOCUMENTS_H
#define LIGHTER_TESTS_CONTENT_DOCUMENTS_H

#include <stddef.h>

#include "base/arena.h"
#include "base/digest.h"

/**
 * struct image - an index, its manifest, its configuration; and what is in them
 * @layers: digests of @n_layers layers, which need not be there
 * @diff_ids, @chain_ids: of each
 */
struct image {
	const char *index;
	const char *manifest;
	const char *config;
	struct digest index_digest;
	struct digest manifest_digest;
	struct digest config_digest;
	size_t n_layers;
	struct digest *layers;
	struct digest *diff_ids;
	struct digest *chain_ids;
};

/** image_make() - @name makes it different from others; in @arena. The test fails if it cannot. */
struct image image_make(struct arena *arena, const char *name, size_t n_layers);

/** text_digest() - sha256 of @text */
struct digest text_digest(const char *text);

#endif
