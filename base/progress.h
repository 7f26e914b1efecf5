/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Long work in the foreground: a thread of its own does it, while the one that called shows on stderr how far it is,
 * and takes SIGINT, SIGTERM and SIGHUP. A bar on a terminal; elsewhere a line in the log now and then.
 */
#ifndef LIGHTER_BASE_PROGRESS_H
#define LIGHTER_BASE_PROGRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/compiler.h"
#include "base/err.h"

/**
 * struct progress - how far it is; set by the work, from any thread
 * @what: "verifying"; @items: "blobs"
 * @total_items, @total_bytes: 0: not known yet
 * @cancelled: a signal came: to be given up soon
 */
struct progress {
	const char *what;
	const char *items;
	_Atomic uint64_t done_items, total_items;
	_Atomic uint64_t done_bytes, total_bytes;
	atomic_bool cancelled;

	/* progress.c's own; @mutex: held over a write to the terminal */
	pthread_mutex_t mutex;
	bool draws, drawn, ended;
	pthread_t waiter;
	int64_t begun_ns;
	_Atomic uint64_t begun_bytes;
};

void progress_init(struct progress *progress, const char *what, const char *items);
void progress_done(struct progress *progress);

/**
 * progress_run() - do @fn(@arg)
 * @ret_signum: the signal that came, or 0. A second one ends the process there and then.
 * Return: what @fn returned; or -1 when no thread could be started.
 *
 * The signals must be blocked, and no other thread may take them.
 */
ERR_CHECKED int progress_run(struct progress *progress, int (*fn)(void *arg, struct err *err),
			     void *arg, int *ret_signum, struct err *err);

/** progress_resume() - so much an earlier run has done, which says nothing about the rate of this one. Any thread. */
void progress_resume(struct progress *progress, uint64_t items, uint64_t bytes);

/** progress_print() - @text, one or more whole lines, to @out, not in the middle of the bar. Any thread. */
void progress_print(struct progress *progress, FILE *out, const char *text);

/** progress_format() - the bar's line, at @now_ns, of @columns at most, in @buf of @size bytes */
void progress_format(const struct progress *progress, int64_t now_ns, unsigned int columns,
		     char *buf, size_t size);

#endif
