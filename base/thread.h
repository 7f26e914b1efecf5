/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a thread as every thread of ours is started: all signals blocked, since main reads them; a small
 * stack, since a daemon's memory is counted; and a name that top and gdb show.
 */
#ifndef LIGHTER_BASE_THREAD_H
#define LIGHTER_BASE_THREAD_H

#include <pthread.h>

#include "base/compiler.h"
#include "base/err.h"

/* Deep enough for sqlite, sanitizers and a 64 KiB buffer on the way. */
#define THREAD_STACK_BYTES (512u << 10)

/**
 * thread_start() - run @fn(@arg) in a thread that somebody will join
 * @name: at most 15 bytes are shown
 */
ERR_CHECKED int thread_start(pthread_t *ret_thread, const char *name, void *(*fn)(void *arg),
			     void *arg, struct err *err);

/** thread_cond_init() - a condition whose waits end by CLOCK_MONOTONIC, see monotonic_ns() */
void thread_cond_init(pthread_cond_t *cond);

#endif
