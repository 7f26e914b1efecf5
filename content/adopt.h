/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that somebody says are blobs: adopt/<algorithm>/<hex>. A thread of its own verifies them, one after the
 * other, and makes blobs of those that are what their names say; others are deleted. They get there when the
 * database is missing. What is not done when the daemon stops is done after the next start.
 */
#ifndef LIGHTER_CONTENT_ADOPT_H
#define LIGHTER_CONTENT_ADOPT_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

struct adopt;
struct local;

/**
 * adopt_set_aside() - move what lies below blobs/ to adopt/; there is no database yet
 * @allowed: if not, and there is something, fail instead
 */
ERR_CHECKED int adopt_set_aside(int root_fd, bool allowed, struct err *err);

/** adopt_start() - take up what lies in adopt/. Return: 0, with @ret_adopt NULL when there is nothing to do. */
ERR_CHECKED int adopt_start(struct local *store, struct adopt **ret_adopt, struct err *err);

/** adopt_stop() - leave off, and wait for that. Accepts NULL. */
void adopt_stop(struct adopt *adopt);

#endif
