/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC library itself, of which a process has one. Any thread.
 */
#ifndef LIGHTER_RPC_LIBRARY_INTERNAL_H
#define LIGHTER_RPC_LIBRARY_INTERNAL_H

#include <pthread.h>

#include "base/err.h"

/** library_use() - initialise gRPC if nobody has yet. Its own threads are started with all signals blocked. */
void library_use(void);

/** thread_start() - a thread named @name with all signals blocked */
ERR_CHECKED int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *),
			     void *arg, struct err *err);

#endif
