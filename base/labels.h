/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What containerd's labels may be, and how its filters and update masks address them. Any thread.
 */
#ifndef LIGHTER_BASE_LABELS_H
#define LIGHTER_BASE_LABELS_H

#include <stddef.h>

#include "base/err.h"
#include "base/strmap.h"

/* Caps on what a client may make us keep. containerd's own limit for key + value of a label is the same. */
#define LABEL_MAX_BYTES  4096
#define LABELS_MAX       4096
#define LABELS_MAX_BYTES (1u << 20)

/**
 * labels_check() - are these labels within our caps?
 * Return: 0, or -1 with ERR_INVALID_ARGUMENT naming the label.
 */
ERR_CHECKED int labels_check(const struct strmap *labels, struct err *err);

/** labels_drop_empty() - remove the entries of a sorted map that have an empty value */
void labels_drop_empty(struct strmap *labels);

/**
 * labels_field() - the label that the rest of a filter's field path names: labels.a.b is the label "a.b"
 * @path: @n elements behind "labels"
 * Return: its value, or NULL.
 */
const char *labels_field(const struct strmap *labels, const char *const *path, size_t n);

#endif
