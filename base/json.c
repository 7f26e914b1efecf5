/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <json-c/json.h>
#include <string.h>

#include "base/str.h"

/*
 * The one user of json-c. A struct json is its struct json_object, which others do not see.
 *
 * json-c checks most of the grammar. What it does not is found by a look at the bytes before: it lets the last of two
 * members win, ends names at U+0000, knows little of UTF-8, takes line ends in strings, 1. and NaN, and has no limit
 * but that of depth.
 */

/** struct census - what stands outside of strings */
struct census {
	size_t n_containers;
	size_t n_commas;
	size_t n_colons;
};

static struct json_object *object_of(const struct json *value)
{
	/* json-c takes no const pointers, and changes nothing. */
	return (struct json_object *)(uintptr_t)value;
}

/* --- before parsing ------------------------------------------------------------------------------ */

/* Return: behind the string that begins at @at; NULL when it does not end, holds a control character, or U+0000. */
static const char *skip_string(const char *at, const char *end)
{
	for (at++; at < end && *at != '"'; at++) {
		if ((unsigned char)*at < ' ')
			return NULL;
		if (*at != '\\')
			continue;
		if (end - at > 5 && memcmp(at, "\\u0000", 6) == 0)
			return NULL;
		at++;
	}
	return at < end ? at + 1 : NULL;
}

static const char *skip_digits(const char *at, const char *end)
{
	while (at < end && *at >= '0' && *at <= '9')
		at++;
	return at;
}

/* Return: behind the number that begins at @at, RFC 8259, section 6; NULL when it is none. */
static const char *skip_number(const char *at, const char *end)
{
	const char *digits = at + (*at == '-');

	at = skip_digits(digits, end);
	if (at == digits || (*digits == '0' && at > digits + 1))
		return NULL;
	if (at < end && *at == '.') {
		digits = at + 1;
		at = skip_digits(digits, end);
		if (at == digits)
			return NULL;
	}
	if (at < end && (*at == 'e' || *at == 'E')) {
		digits = at + 1;
		if (digits < end && (*digits == '+' || *digits == '-'))
			digits++;
		at = skip_digits(digits, end);
		if (at == digits)
			return NULL;
	}
	return at;
}

/* Return: behind what stands at @at, outside of strings and numbers; NULL when that has no place in JSON. */
static const char *skip_other(struct census *census, const char *at)
{
	/* The letters are those of true, false and null, but none of NaN or Infinity begins with one. */
	static const char plain[] = "]} \t\r\ntrufalsen";

	if (*at == '{' || *at == '[')
		census->n_containers++;
	else if (*at == ',')
		census->n_commas++;
	else if (*at == ':')
		census->n_colons++;
	else if (*at == '\0' || !strchr(plain, *at))
		return NULL;
	return at + 1;
}

static int take_census(const char *text, size_t size, struct census *census, struct err *err)
{
	const char *at = text, *end = text + size;

	while (at < end) {
		const char *next;

		if (*at == '"')
			next = skip_string(at, end);
		else if (*at == '-' || (*at >= '0' && *at <= '9'))
			next = skip_number(at, end);
		else
			next = skip_other(census, at);
		if (!next)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "JSON: byte %zu begins what does not belong there",
				       (size_t)(at - text));
		at = next;
	}
	return 0;
}

static int check_limits(const struct census *census, const struct json_limits *limits,
			struct err *err)
{
	/* Before each value there is a comma, or the beginning of what it is the first one in. */
	if (census->n_containers > limits->n_containers ||
	    census->n_commas + census->n_containers + 1 > limits->n_values)
		return err_set(err, ERR_OUT_OF_RANGE,
			       "JSON: %zu objects and arrays, and %zu commas, are too many",
			       census->n_containers, census->n_commas);
	return 0;
}

/* --- parsing ------------------------------------------------------------------------------------- */

static int parse(const char *text, size_t size, struct json_object **ret_root, struct err *err)
{
	struct json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH_MAX);
	enum json_tokener_error status;
	struct json_object *root;
	size_t end;

	if (!tokener)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for JSON");
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	root = json_tokener_parse_ex(tokener, text, (int)size);
	end = json_tokener_get_parse_end(tokener);
	status = json_tokener_get_error(tokener);
	/* A number ends where something else begins. */
	if (status == json_tokener_continue) {
		root = json_tokener_parse_ex(tokener, " ", 1);
		status = json_tokener_get_error(tokener);
	}
	json_tokener_free(tokener);
	if (status == json_tokener_success && end == size) {
		*ret_root = root;
		return 0;
	}
	json_object_put(root);
	return err_set(err, ERR_INVALID_ARGUMENT, "JSON: %s at byte %zu",
		       status == json_tokener_continue  ? "unexpected end"
		       : status == json_tokener_success ? "unexpected data"
							: json_tokener_error_desc(status),
		       end);
}

static size_t n_members(struct json_object *object)
{
	size_t n = 0;

	if (json_object_is_type(object, json_type_object)) {
		n = (size_t)json_object_object_length(object);
		json_object_object_foreach(object, name, member)
		{
			(void)name;
			n += n_members(member);
		}
	} else if (json_object_is_type(object, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(object); i++)
			n += n_members(json_object_array_get_idx(object, i));
	}
	return n;
}

int json_parse(const char *text, size_t size, const struct json_limits *limits,
	       struct json **ret_document, struct err *err)
{
	struct census census = {0};
	struct json_object *root;

	if (size > limits->size_bytes)
		return err_set(err, ERR_OUT_OF_RANGE,
			       "JSON: %zu bytes, %zu are the most that is read", size,
			       limits->size_bytes);
	if (!str_is_utf8(text, size))
		return err_set(err, ERR_INVALID_ARGUMENT, "JSON: not UTF-8");
	if (take_census(text, size, &census, err) < 0 || check_limits(&census, limits, err) < 0)
		return -1;
	/* json-c has no object for "null", which is a document too. */
	if (parse(text, size, &root, err) < 0)
		return -1;
	/* Each colon outside of strings stands for one member, of which some are gone if they had one name. */
	if (n_members(root) != census.n_colons) {
		json_object_put(root);
		return err_set(err, ERR_INVALID_ARGUMENT, "JSON: a name stands twice in an object");
	}
	*ret_document = (struct json *)root;
	return 0;
}

void json_free(struct json *document)
{
	json_object_put(object_of(document));
}

/* --- reading ------------------------------------------------------------------------------------- */

enum json_kind json_kind(const struct json *value)
{
	switch (json_object_get_type(object_of(value))) {
	case json_type_boolean:
		return JSON_BOOL;
	case json_type_int:
	case json_type_double:
		return JSON_NUMBER;
	case json_type_string:
		return JSON_STRING;
	case json_type_array:
		return JSON_ARRAY;
	case json_type_object:
		return JSON_OBJECT;
	default:
		return JSON_NULL;
	}
}

const struct json *json_member(const struct json *value, const char *name)
{
	struct json_object *member;

	if (json_kind(value) != JSON_OBJECT ||
	    !json_object_object_get_ex(object_of(value), name, &member))
		return NULL;
	return (const struct json *)member;
}

int json_each_member(const struct json *value, json_member_fn fn, void *arg, struct err *err)
{
	if (json_kind(value) != JSON_OBJECT)
		return 0;
	json_object_object_foreach(object_of(value), name, member)
	{
		int r = fn(arg, name, (const struct json *)member, err);

		if (r != 0)
			return r;
	}
	return 0;
}

size_t json_n_elements(const struct json *value)
{
	return json_kind(value) == JSON_ARRAY ? json_object_array_length(object_of(value)) : 0;
}

const struct json *json_element(const struct json *value, size_t i)
{
	return (const struct json *)json_object_array_get_idx(object_of(value), i);
}

const char *json_string(const struct json *value)
{
	return json_kind(value) == JSON_STRING ? json_object_get_string(object_of(value)) : NULL;
}

bool json_int(const struct json *value, int64_t *ret_number)
{
	struct json_object *object = object_of(value);
	int64_t number;

	if (!json_object_is_type(object, json_type_int))
		return false;
	/* What is too large is cut to the next it can hold, which for unsigned numbers is beyond ours. */
	number = json_object_get_int64(object);
	if (number < 0 || json_object_get_uint64(object) > INT64_MAX)
		return false;
	*ret_number = number;
	return true;
}

char *json_text(const struct json *value, struct arena *arena)
{
	const char *text = json_object_to_json_string_ext(object_of(value),
							  JSON_C_TO_STRING_PLAIN |
								  JSON_C_TO_STRING_NOSLASHESCAPE);

	return text ? arena_strdup(arena, text) : NULL;
}
