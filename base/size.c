/* SPDX-License-Identifier: Apache-2.0 */
#include "base/size.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char units[] = "KMGT";

int size_parse(const char *text, uint64_t *ret_bytes, struct err *err)
{
	unsigned long long number = 0;
	const char *unit = NULL;
	unsigned int shift = 0;
	char *end = NULL;

	errno = 0;
	if (*text >= '0' && *text <= '9')
		number = strtoull(text, &end, 10);
	if (end && *end)
		unit = strchr(units, *end);
	if (unit) {
		shift = 10 * (unsigned int)(unit - units + 1);
		end++;
		if (strcmp(end, "iB") == 0)
			end += 2;
	}
	if (!end || *end || errno)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "'%.64s' is no size: a whole number, and K, M, G or T behind it",
			       text);
	if (number > (unsigned long long)INT64_MAX >> shift)
		return err_set(err, ERR_INVALID_ARGUMENT, "'%.64s' is too large", text);
	*ret_bytes = (uint64_t)number << shift;
	return 0;
}

const char *size_format(uint64_t bytes, char *buf)
{
	unsigned int rest = 0;
	size_t n = 0;

	if (bytes < 1024) {
		snprintf(buf, SIZE_TEXT_BYTES, "%" PRIu64 " B", bytes);
		return buf;
	}
	while (bytes >= 1024 && n < strlen(units)) {
		rest = (unsigned int)(bytes % 1024);
		bytes /= 1024;
		n++;
	}
	/* Cut off rather than rounded: 1023.99 MiB is not 1024.0. */
	snprintf(buf, SIZE_TEXT_BYTES, "%" PRIu64 ".%u %ciB", bytes, rest * 10 / 1024,
		 units[n - 1]);
	return buf;
}
