/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC library itself, of which a process has one. Any thread.
 */
#ifndef LIGHTER_RPC_LIBRARY_INTERNAL_H
#define LIGHTER_RPC_LIBRARY_INTERNAL_H

#include "base/thread.h"

/** library_use() - initialise gRPC if nobody has yet. Its own threads are started with all signals blocked. */
void library_use(void);

#endif
