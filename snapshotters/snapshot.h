/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain values of the Snapshots API. Pointers are borrowed, and live in the arena of the call they
 * belong to; strings are UTF-8 without NUL, and never NULL pointers ("" is none).
 */
#ifndef LIGHTER_SNAPSHOTTERS_SNAPSHOT_H
#define LIGHTER_SNAPSHOTTERS_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/filter.h"
#include "base/labels.h"
#include "base/strmap.h"

/* Values of containerd.services.snapshots.v1.Kind. */
enum snapshot_kind { SNAPSHOT_VIEW = 1, SNAPSHOT_ACTIVE = 2, SNAPSHOT_COMMITTED = 3 };

/* Cap on what a client may make us keep; those of labels are in base/labels.h. */
#define SNAPSHOT_KEY_MAX_BYTES 4096

/* Labels that containerd gives a meaning to (containerd, snapshots/snapshotter.go and unpacker). */
#define SNAPSHOT_LABEL_REF             "containerd.io/snapshot.ref"
#define SNAPSHOT_LABEL_UID_MAPPING     "containerd.io/snapshot/uidmapping"
#define SNAPSHOT_LABEL_GID_MAPPING     "containerd.io/snapshot/gidmapping"
#define SNAPSHOT_LABEL_PARENT_CHAIN_ID "containerd.io/snapshot/parent-chain-id"

/**
 * struct info - what Stat and List tell
 * @id: the metastore's number, ascending by time of creation; walk's cursor; not on the wire
 * @parent: name of the parent, or ""
 * @created_ns, @updated_ns: nanoseconds since 1970
 */
struct info {
	uint64_t id;
	const char *name;
	const char *parent;
	enum snapshot_kind kind;
	int64_t created_ns;
	int64_t updated_ns;
	struct strmap labels;
};

/** struct usage - of one snapshot alone, its parents not included */
struct usage {
	uint64_t size_bytes;
	uint64_t inodes;
};

/** struct mount - as mount(2) and containerd's mount package take it */
struct mount {
	const char *type;
	const char *source;
	const char *target;
	const char **options;
	size_t n_options;
};

struct mounts {
	struct mount *items;
	size_t n;
};

/** struct snapshot_req - Prepare and View; @labels are sorted and hold no empty value */
struct snapshot_req {
	const char *key;
	const char *parent;
	struct strmap labels;
};

/** struct commit_req - @parent: "" or the parent to have (or to take, when the active one has none) */
struct commit_req {
	const char *name;
	const char *key;
	const char *parent;
	struct strmap labels;
};

/**
 * struct update_req - which labels to change
 * @labels: sorted; may hold empty values, which mean removal
 * @paths: @n_paths elements of the field mask; none, or "labels", replaces all labels;
 *         "labels.KEY" sets or removes that one
 */
struct update_req {
	const char *name;
	struct strmap labels;
	const char **paths;
	size_t n_paths;
};

/** snapshot_kind_name() - "view", "active", "committed", as filters know them */
const char *snapshot_kind_name(enum snapshot_kind kind);

/** snapshot_key_check() - is it a usable key? @what ("key", "name", "parent") names it in the error */
ERR_CHECKED int snapshot_key_check(const char *key, const char *what, struct err *err);

/** snapshot_matches() - does @info pass @filters? NULL filters pass all. */
bool snapshot_matches(const struct filters *filters, const struct info *info);

/** info_copy() - a copy of @info with all its strings in @arena */
ERR_CHECKED int info_copy(struct arena *arena, const struct info *info, struct info *ret_copy,
			  struct err *err);

/** mount_add_option() - append one option, copied into @arena */
ERR_CHECKED int mount_add_option(struct mount *mount, struct arena *arena, const char *option,
				 struct err *err);

#endif
