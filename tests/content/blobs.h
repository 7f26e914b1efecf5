/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of blobs for tests: texts as blobs/<algorithm>/<hex> below a temporary root.
 */
#ifndef LIGHTER_TESTS_CONTENT_BLOBS_H
#define LIGHTER_TESTS_CONTENT_BLOBS_H

#include <stdbool.h>

#include "base/digest.h"

/** blobs_digest() - the sha256 of @text */
struct digest blobs_digest(const char *text);

/** blobs_path() - "@dir/blobs/sha256/<hex>" of @text in @buf of 512 bytes. Return: @buf. */
const char *blobs_path(const char *dir, const char *text, char *buf);

/** blobs_make_dir() - @dir/blobs/sha256 and sha512 below the open directory @fd */
void blobs_make_dir(int fd, const char *dir);

/** blobs_write() - write @text, mode 0444, as the file @path; an older one is replaced */
void blobs_write(int fd, const char *path, const char *text);

/** blobs_add() - the blob of @text in @dir below @fd */
void blobs_add(int fd, const char *dir, const char *text);

#endif
