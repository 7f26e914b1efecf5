/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is written down about an ingest beside its bytes: ingests/<id>.ref, a line of fixed length and then the
 * reference. Whatever is cut off or otherwise not as it was written is none. Any thread.
 */
#ifndef LIGHTER_CONTENT_INGEST_HEAD_H
#define LIGHTER_CONTENT_INGEST_HEAD_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/** struct ingest_head - @ref: owned, NUL-terminated; see struct ingest_info */
struct ingest_head {
	char *ref;
	uint64_t total_bytes;
	int64_t started_ns;
};

/** ingest_head_write() - make @dirfd/@name; a failure leaves no file */
ERR_CHECKED int ingest_head_write(int dirfd, const char *name, const struct ingest_head *head,
				  struct err *err);

/** ingest_head_set_total() - change the total of one that is there */
ERR_CHECKED int ingest_head_set_total(int dirfd, const char *name, uint64_t total_bytes,
				      struct err *err);

/** ingest_head_parse() - @size bytes at @text, which are followed by a NUL. Return: 0; 1: it is none; -1. */
ERR_CHECKED int ingest_head_parse(const char *text, size_t size, struct ingest_head *ret_head,
				  struct err *err);

#endif
