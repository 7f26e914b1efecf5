/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The overlayfs snapshotter: snapshots are directories, mounts stack them. See README.md for what lies on
 * disk and what survives a crash.
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_OVERLAY_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_OVERLAY_H

#include "snapshotters/snapshotter.h"

extern const struct snapshotter_ops overlay_ops;

#endif
