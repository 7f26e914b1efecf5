/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How layers are called on disk: "<id>", "<id>/fs", "<id>/work".
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_LAYER_NAME_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_LAYER_NAME_H

#include <inttypes.h>
#include <stdio.h>

/* "18446744073709551615/work" and its NUL, rounded up. */
#define LAYER_NAME_MAX 32

/** layer_name() - write the name of @part ("", "/fs", "/work") of layer @id to @name of LAYER_NAME_MAX */
static inline void layer_name(char *name, uint64_t id, const char *part)
{
	snprintf(name, LAYER_NAME_MAX, "%" PRIu64 "%s", id, part);
}

#endif
