/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that lives as long as one call: allocate in pieces, release all at once. An arena belongs to
 * one thread at a time. Its cap bounds what a client can make a call allocate.
 */
#ifndef LIGHTER_BASE_ARENA_H
#define LIGHTER_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "base/compiler.h"

struct arena_block;

/**
 * struct arena - a bump allocator
 * @blocks: newest first
 * @used_bytes: handed out by the system so far, blocks' headers included
 * @cap_bytes: limit of @used_bytes
 */
struct arena {
	struct arena_block *blocks;
	size_t used_bytes;
	size_t cap_bytes;
};

/** arena_init() - start empty; nothing is allocated before the first use */
void arena_init(struct arena *arena, size_t cap_bytes);

/** arena_done() - release everything; the arena is empty and usable again */
void arena_done(struct arena *arena);

/**
 * arena_alloc() - @size bytes, aligned for any type, not cleared
 * Return: NULL when memory or the cap is used up. A size of 0 gives a unique non-NULL pointer.
 */
void *arena_alloc(struct arena *arena, size_t size);

/** arena_zalloc() - as arena_alloc(), cleared */
void *arena_zalloc(struct arena *arena, size_t size);

/** arena_array() - @n cleared elements of @size bytes; NULL also when the product overflows */
void *arena_array(struct arena *arena, size_t n, size_t size);

/** arena_strdup() - a copy of @text, or NULL */
char *arena_strdup(struct arena *arena, const char *text);

/** arena_memdup() - a copy of @size bytes followed by a NUL byte, or NULL */
char *arena_memdup(struct arena *arena, const void *data, size_t size);

/** arena_printf() - formatted text, or NULL */
char *arena_printf(struct arena *arena, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
