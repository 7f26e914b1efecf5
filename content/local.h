/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content store on a local file system; see README.md for what lies on disk.
 */
#ifndef LIGHTER_CONTENT_LOCAL_H
#define LIGHTER_CONTENT_LOCAL_H

#include "content/content_store.h"

extern const struct content_store_ops local_content_ops;

#endif
