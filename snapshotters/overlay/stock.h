/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spare directories, made in advance by a thread: many with one journal commit of the file system, and
 * none of it while a call waits. Any thread.
 *
 * The stock also knows which ids are *busy*: their directories may be there though no row names them.
 */
#ifndef LIGHTER_SNAPSHOTTERS_OVERLAY_STOCK_H
#define LIGHTER_SNAPSHOTTERS_OVERLAY_STOCK_H

#include <stdbool.h>

#include "base/ctx.h"
#include "base/err.h"
#include "snapshotters/metastore.h"
#include "snapshotters/overlay/id_set.h"
#include "snapshotters/overlay/layer_name.h"

/* Enough for the burst of a node's worth of containers starting at once. */
#define STOCK_SPARES_MAX 64

struct stock;

/**
 * stock_open() - nothing is made before stock_start()
 * @dirs: borrowed until stock_close(). The umask of the process must leave the bits 0755 alone, as run.c's does.
 * @store: gives out ids
 */
ERR_CHECKED int stock_open(const struct layer_dirs *dirs, struct metastore *store,
			   struct stock **ret_stock, struct err *err);

/** stock_start() - start the thread */
ERR_CHECKED int stock_start(struct stock *stock, struct err *err);

/** stock_close() - stop the thread, remove the spares. Accepts NULL, and a stock that was not started. */
void stock_close(struct stock *stock);

/** stock_take() - a spare, busy until stock_unmark() or stock_drop(); see layers_take() */
ERR_CHECKED int stock_take(struct stock *stock, const struct ctx *ctx, uint64_t *ret_id,
			   struct err *err);

/** stock_take_ready() - likewise, where there is one now */
bool stock_take_ready(struct stock *stock, uint64_t *ret_id);

/** stock_drop() - a taken one comes back (@clean), or is removed soon, without the caller waiting for that */
void stock_drop(struct stock *stock, uint64_t id, bool clean);

/** stock_mark(), stock_unmark() - @id is busy, or no more. Return: false when memory is gone. */
bool stock_mark(struct stock *stock, uint64_t id);
void stock_unmark(struct stock *stock, uint64_t id);

/** stock_copy_busy() - the busy ids of this moment. Return: false when memory is gone. */
bool stock_copy_busy(struct stock *stock, struct id_set *ret_busy);

#endif
