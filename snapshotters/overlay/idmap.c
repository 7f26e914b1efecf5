/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/idmap.h"

#include <stdbool.h>
#include <stddef.h>

struct extent {
	uint32_t container;
	uint32_t host;
	uint32_t size;
};

/* Reads decimal digits of a 32-bit number. */
static bool parse_number(const char **text, uint32_t *ret_number)
{
	uint32_t number = 0;
	const char *p = *text;

	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(number, 10u, &number) ||
		    __builtin_add_overflow(number, (uint32_t)(*p - '0'), &number))
			return false;
	*text = p;
	*ret_number = number;
	return true;
}

static bool parse_extent(const char **text, struct extent *ret_extent)
{
	return parse_number(text, &ret_extent->container) && *(*text)++ == ':' &&
	       parse_number(text, &ret_extent->host) && *(*text)++ == ':' &&
	       parse_number(text, &ret_extent->size);
}

static bool overlaps(uint32_t a, uint32_t a_size, uint32_t b, uint32_t b_size)
{
	return (uint64_t)a < (uint64_t)b + b_size && (uint64_t)b < (uint64_t)a + a_size;
}

static bool fits(const struct extent *extents, size_t n, const struct extent *extent)
{
	/* The id -1 means "none" and cannot be mapped. */
	if (extent->size == 0 || (uint64_t)extent->container + extent->size > UINT32_MAX ||
	    (uint64_t)extent->host + extent->size > UINT32_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (overlaps(extents[i].container, extents[i].size, extent->container,
			     extent->size) ||
		    overlaps(extents[i].host, extents[i].size, extent->host, extent->size))
			return false;
	return true;
}

int idmap_root(const char *mapping, const char *what, uint32_t *ret_id, struct err *err)
{
	struct extent extents[IDMAP_EXTENTS_MAX];
	const char *p = mapping;
	bool found = false;
	uint32_t root = 0;

	for (size_t n = 0;; n++) {
		if (n == IDMAP_EXTENTS_MAX)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "%s mapping has more than %d extents", what,
				       IDMAP_EXTENTS_MAX);
		if (!parse_extent(&p, &extents[n]) || (*p != ',' && *p != '\0'))
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "%s mapping '%.200s' is not container:host:size[,...]", what,
				       mapping);
		if (!fits(extents, n, &extents[n]))
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "%s mapping '%.200s' has extents that overlap or go too far",
				       what, mapping);
		if (extents[n].container == 0) {
			root = extents[n].host;
			found = true;
		}
		if (*p++ == '\0')
			break;
	}
	if (!found)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "%s mapping '%.200s' does not map the container's root", what,
			       mapping);
	*ret_id = root;
	return 0;
}
