/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Most calls fit into one block; blocks then double, up to the point where doubling wastes memory. */
#define FIRST_BLOCK_BYTES 4096
#define MAX_BLOCK_BYTES   (256 * 1024)
#define ALIGN             alignof(max_align_t)

struct arena_block {
	struct arena_block *next;
	size_t size;
	size_t pos;
	alignas(max_align_t) unsigned char data[];
};

void arena_init(struct arena *arena, size_t cap_bytes)
{
	*arena = (struct arena){.cap_bytes = cap_bytes};
}

void arena_done(struct arena *arena)
{
	struct arena_block *block = arena->blocks;

	while (block) {
		struct arena_block *next = block->next;

		free(block);
		block = next;
	}
	arena->blocks = NULL;
	arena->used_bytes = 0;
}

static struct arena_block *add_block(struct arena *arena, size_t need)
{
	size_t size = FIRST_BLOCK_BYTES - sizeof(struct arena_block);
	struct arena_block *block;

	if (arena->blocks) {
		size = arena->blocks->size * 2;
		if (size > MAX_BLOCK_BYTES)
			size = MAX_BLOCK_BYTES;
	}
	if (size < need)
		size = need;
	if (size > SIZE_MAX - sizeof(*block) ||
	    sizeof(*block) + size > arena->cap_bytes - arena->used_bytes) {
		/* A doubled block may be past the cap where the need itself is not. */
		size = need;
		if (size > SIZE_MAX - sizeof(*block) ||
		    sizeof(*block) + size > arena->cap_bytes - arena->used_bytes)
			return NULL;
	}

	block = malloc(sizeof(*block) + size);
	if (!block)
		return NULL;
	block->size = size;
	block->pos = 0;
	arena->used_bytes += sizeof(*block) + size;

	/* A block made for one large piece is full at once: keep filling the one before it. */
	if (arena->blocks && size == need && need > FIRST_BLOCK_BYTES) {
		block->next = arena->blocks->next;
		arena->blocks->next = block;
	} else {
		block->next = arena->blocks;
		arena->blocks = block;
	}
	return block;
}

void *arena_alloc(struct arena *arena, size_t size)
{
	struct arena_block *block = arena->blocks;
	void *p;

	if (size > SIZE_MAX - ALIGN)
		return NULL;
	size = size ? (size + ALIGN - 1) & ~(ALIGN - 1) : ALIGN;
	if (!block || size > block->size - block->pos) {
		block = add_block(arena, size);
		if (!block)
			return NULL;
	}
	p = block->data + block->pos;
	block->pos += size;
	return p;
}

void *arena_zalloc(struct arena *arena, size_t size)
{
	void *p = arena_alloc(arena, size);

	if (p)
		memset(p, 0, size);
	return p;
}

void *arena_array(struct arena *arena, size_t n, size_t size)
{
	size_t total;

	if (__builtin_mul_overflow(n, size, &total))
		return NULL;
	return arena_zalloc(arena, total);
}

char *arena_memdup(struct arena *arena, const void *data, size_t size)
{
	char *copy = size < SIZE_MAX ? arena_alloc(arena, size + 1) : NULL;

	if (!copy)
		return NULL;
	if (size)
		memcpy(copy, data, size);
	copy[size] = '\0';
	return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
	return arena_memdup(arena, text, strlen(text));
}

char *arena_printf(struct arena *arena, const char *fmt, ...)
{
	va_list args;
	char *text;
	int n;

	va_start(args, fmt);
	n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (n < 0)
		return NULL;
	text = arena_alloc(arena, (size_t)n + 1);
	if (!text)
		return NULL;
	va_start(args, fmt);
	vsnprintf(text, (size_t)n + 1, fmt, args);
	va_end(args);
	return text;
}
