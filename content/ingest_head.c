/* SPDX-License-Identifier: Apache-2.0 */
#include "content/ingest_head.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "content/content_store.h"

/* Total, time of the start, length of the reference; all of fixed width. */
#define HEAD_FORMAT  "lighter-ingest 1 %020" PRIu64 " %020" PRId64 " %05zu\n"
#define HEAD_BYTES   65
#define TOTAL_OFFSET 17
#define TOTAL_DIGITS 20

static int format_head(const struct ingest_head *head, size_t ref_len, char line[HEAD_BYTES + 1],
		       struct err *err)
{
	int len = snprintf(line, HEAD_BYTES + 1, HEAD_FORMAT, head->total_bytes, head->started_ns,
			   ref_len);

	if (len != HEAD_BYTES)
		return err_set(err, ERR_INTERNAL, "an ingest's head of %d bytes", len);
	return 0;
}

int ingest_head_write(int dirfd, const char *name, const struct ingest_head *head, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	char line[HEAD_BYTES + 1];
	size_t ref_len = strlen(head->ref);
	const struct iovec pieces[] = {{line, HEAD_BYTES}, {head->ref, ref_len}};
	ssize_t n;

	if (format_head(head, ref_len, line, err) < 0)
		return -1;
	fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, "make 'ingests/%s'", name);
	n = writev(fd, pieces, ARRAY_LEN(pieces));
	if (n == (ssize_t)(HEAD_BYTES + ref_len))
		return 0;
	if (n >= 0)
		errno = ENOSPC; /* what a regular file means by a short write */
	(err_sys)(err, "write 'ingests/%s'", name);
	(void)unlinkat(dirfd, name, 0);
	return -1;
}

int ingest_head_set_total(int dirfd, const char *name, uint64_t total_bytes, struct err *err)
{
	CLEANUP(close_fd) int fd = -1;
	char digits[TOTAL_DIGITS + 1];

	snprintf(digits, sizeof(digits), "%020" PRIu64, total_bytes);
	fd = openat(dirfd, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || pwrite(fd, digits, TOTAL_DIGITS, TOTAL_OFFSET) != TOTAL_DIGITS)
		return err_sys(err, "write 'ingests/%s'", name);
	return 0;
}

int ingest_head_parse(const char *text, size_t size, struct ingest_head *ret_head, struct err *err)
{
	struct ingest_head head = {0};
	char line[HEAD_BYTES + 1];
	size_t ref_len;

	if (size <= HEAD_BYTES || strnlen(text, size) != size ||
	    sscanf(text, "lighter-ingest 1 %20" SCNu64 " %20" SCNd64 " %5zu\n", &head.total_bytes,
		   &head.started_ns, &ref_len) != 3 ||
	    ref_len != size - HEAD_BYTES || ref_len > CONTENT_REF_MAX_BYTES)
		return 1;
	/* As it was written, to the last digit. */
	if (format_head(&head, ref_len, line, err) < 0)
		return 1;
	if (memcmp(line, text, HEAD_BYTES) != 0)
		return 1;
	head.ref = strdup(text + HEAD_BYTES);
	if (!head.ref)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a reference");
	*ret_head = head;
	return 0;
}
