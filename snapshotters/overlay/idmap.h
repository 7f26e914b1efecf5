/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ID mappings of user namespaces as containerd writes them into labels: "container:host:size[,...]"
 * (containerd, internal/userns). Any thread.
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_IDMAP_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_IDMAP_H

#include <stdint.h>

#include "base/err.h"

/* The kernel takes 340 (user_namespaces(7)). */
#define IDMAP_EXTENTS_MAX 340

/**
 * idmap_root() - the host id of the container's id 0
 * @mapping: all of it is checked: numbers of 32 bits, sizes above 0, no overlap
 * @what: "uid" or "gid", for the error
 * Return: 0, or -1 with ERR_INVALID_ARGUMENT: malformed, or 0 is not mapped.
 */
ERR_CHECKED int idmap_root(const char *mapping, const char *what, uint32_t *ret_id,
			   struct err *err);

#endif
