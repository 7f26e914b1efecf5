/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this kernel can do with overlayfs, found out by trying: kernel.c on the root, kernel_options.c anywhere. The
 * only files of the overlay snapshotter that mount anything: in a child process with a mount namespace of its own
 * (kernel_child.c), so that nothing is left behind.
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_KERNEL_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_KERNEL_H

#include <stdbool.h>

#include "base/conf.h"
#include "base/err.h"

/* Is there when overlay knows "index=", once the module is loaded. */
#define KERNEL_INDEX_PARAMETER "/sys/module/overlay/parameters/index"

/**
 * struct kernel_abilities - what a trial has shown
 * @index_option: overlay knows "index=": mounts should say "index=off"
 * @user_xattr: we run in a user namespace: mounts must say "userxattr"
 * @idmap: an overlay can stand on ID-mapped lower directories
 */
struct kernel_abilities {
	bool index_option;
	bool user_xattr;
	bool idmap;
};

/**
 * kernel_probe() - try overlay mounts below @root, or, where it has no room for that, on a tmpfs over it
 * Return: 0, also when trying is not permitted to us (a warning is logged); -1 with ERR_FAILED_PRECONDITION
 * when overlay mounts cannot work here: no overlayfs in the kernel, a file system that does not tell entry
 * types or cannot carry an upper directory.
 */
ERR_CHECKED int kernel_probe(const char *root, struct kernel_abilities *ret_abilities,
			     struct err *err);

/**
 * kernel_try_options() - would a client be able to mount an overlay with these @options added?
 * @index_off: and with "index=off", where the kernel knows that
 *
 * Nothing on disk is touched: it is tried on a tmpfs of its own.
 * Return: 0, also when trying is not permitted to us; -1 with ERR_INVALID_ARGUMENT when the kernel refuses them.
 */
ERR_CHECKED int kernel_try_options(const struct conf_list *options, bool index_off,
				   struct err *err);

#endif
