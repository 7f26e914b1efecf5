/* SPDX-License-Identifier: Apache-2.0 */
#include "base/filter.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/regex.h"
#include "base/str.h"

/* Each may take a MiB compiled (regex.h). */
#define FILTER_REGEXES_MAX 64

/* What FILTER_MAX_BYTES of text can become at most, selectors of one letter and a comma. */
#define FILTERS_ARENA_BYTES (64 * (size_t)FILTER_MAX_BYTES)

enum filter_op { OP_PRESENT, OP_EQUAL, OP_NOT_EQUAL, OP_MATCHES };

struct selector {
	struct selector *next;
	const char **path;
	size_t n_path;
	enum filter_op op;
	const char *value; /* @value_len bytes and a NUL; may hold NULs */
	size_t value_len;
	struct regex *regex; /* of OP_MATCHES; NULL: not a regular expression */
};

struct filter {
	struct filter *next;
	struct selector *selectors;
};

struct filters {
	struct arena arena;
	struct filter *list;
	unsigned int n_regexes;
};

struct parser {
	struct filters *filters;
	size_t number; /* of the filter in the request, from 1 */
	const char *text;
	size_t len;
	size_t pos;
};

static int fail_at(const struct parser *p, size_t pos, struct err *err, const char *what)
{
	return err_set(err, ERR_INVALID_ARGUMENT, "filter %zu, byte %zu: %s: '%s'", p->number, pos,
		       what, p->text);
}

static int fail_memory(struct err *err)
{
	return err_set(err, ERR_RESOURCE_EXHAUSTED, "filters: no memory");
}

/* --- characters ---------------------------------------------------------------------------------- */

/* The text has been found to be UTF-8 before, so that lead bytes tell the truth. */
static uint32_t decode_rune(const char *text, size_t *ret_len)
{
	const unsigned char *s = (const unsigned char *)text;

	if (s[0] < 0x80) {
		*ret_len = 1;
		return s[0];
	}
	if (s[0] < 0xe0) {
		*ret_len = 2;
		return (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
	}
	if (s[0] < 0xf0) {
		*ret_len = 3;
		return (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
	}
	*ret_len = 4;
	return (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 |
	       (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
}

static size_t encode_rune(uint32_t rune, char *out)
{
	/* As Go does, half a surrogate pair becomes the replacement character. */
	if (rune >= 0xd800 && rune < 0xe000)
		rune = 0xfffd;
	if (rune < 0x80) {
		out[0] = (char)rune;
		return 1;
	}
	if (rune < 0x800) {
		out[0] = (char)(0xc0 | rune >> 6);
		out[1] = (char)(0x80 | (rune & 0x3f));
		return 2;
	}
	if (rune < 0x10000) {
		out[0] = (char)(0xe0 | rune >> 12);
		out[1] = (char)(0x80 | (rune >> 6 & 0x3f));
		out[2] = (char)(0x80 | (rune & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | rune >> 18);
	out[1] = (char)(0x80 | (rune >> 12 & 0x3f));
	out[2] = (char)(0x80 | (rune >> 6 & 0x3f));
	out[3] = (char)(0x80 | (rune & 0x3f));
	return 4;
}

/* Unicode's White_Space property. */
static bool is_space(uint32_t rune)
{
	switch (rune) {
	case '\t' ... '\r':
	case ' ':
	case 0x85:
	case 0xa0:
	case 0x1680:
	case 0x2000 ... 0x200a:
	case 0x2028:
	case 0x2029:
	case 0x202f:
	case 0x205f:
	case 0x3000:
		return true;
	default:
		return false;
	}
}

static bool is_field_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_';
}

static bool is_operator_byte(char c)
{
	return c == '=' || c == '!' || c == '~';
}

static void skip_space(struct parser *p)
{
	size_t len;

	while (p->pos < p->len && is_space(decode_rune(p->text + p->pos, &len)))
		p->pos += len;
}

/* --- quoted text ---------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return 16;
}

/* Exactly @n digits of @base; the text ends with a NUL, which is none. */
static int parse_digits(struct parser *p, unsigned int n, int base, uint32_t *ret_value,
			struct err *err)
{
	uint32_t value = 0;

	for (; n > 0; n--, p->pos++) {
		int digit = hex_digit(p->text[p->pos]);

		if (digit >= base)
			return fail_at(p, p->pos, err, "expected a digit of an escape sequence");
		value = value * (uint32_t)base + (uint32_t)digit;
	}
	*ret_value = value;
	return 0;
}

/* Go's escapes, the cursor being after the backslash. Appends to @out, never more than was read. */
static int parse_escape(struct parser *p, char quote, char *out, size_t *len, struct err *err)
{
	static const char letters[] = "abfnrtv\\";
	static const char meanings[] = "\a\b\f\n\r\t\v\\";
	size_t start = p->pos - 1;
	char c = p->text[p->pos];
	const char *letter = c ? strchr(letters, c) : NULL;
	uint32_t value;

	if (letter || c == quote) {
		out[(*len)++] = letter ? meanings[letter - letters] : quote;
		p->pos++;
		return 0;
	}
	if (c >= '0' && c <= '7') {
		if (parse_digits(p, 3, 8, &value, err) < 0)
			return -1;
		if (value > 0xff)
			return fail_at(p, start, err, "escape sequence is more than a byte");
		out[(*len)++] = (char)value;
		return 0;
	}
	if (c == 'x') {
		p->pos++;
		if (parse_digits(p, 2, 16, &value, err) < 0)
			return -1;
		out[(*len)++] = (char)value;
		return 0;
	}
	if (c == 'u' || c == 'U') {
		p->pos++;
		if (parse_digits(p, c == 'u' ? 4 : 8, 16, &value, err) < 0)
			return -1;
		if (value > INT32_MAX) {
			/* A negative number to containerd's parser, which keeps its lowest byte. */
			out[(*len)++] = (char)value;
			return 0;
		}
		if (value > 0x10ffff)
			return fail_at(p, start, err, "escape sequence is past U+10FFFF");
		*len += encode_rune(value, out + *len);
		return 0;
	}
	return fail_at(p, start, err, "unknown escape sequence");
}

/* The cursor is at the opening quote. The result has *@ret_len bytes and a NUL. */
static int parse_quoted(struct parser *p, char **ret_text, size_t *ret_len, struct err *err)
{
	size_t start = p->pos, end, len = 0;
	char quote = p->text[start];
	char *out;

	for (end = start + 1; end < p->len && p->text[end] != quote; end++) {
		if (p->text[end] == '\\' && end + 1 < p->len)
			end++;
		if (p->text[end] == '\n')
			break;
	}
	if (end >= p->len || p->text[end] != quote)
		return fail_at(p, start, err, "quoted text does not end");

	out = arena_alloc(&p->filters->arena, end - start);
	if (!out)
		return fail_memory(err);
	for (p->pos = start + 1; p->pos < end;) {
		if (p->text[p->pos] != '\\') {
			out[len++] = p->text[p->pos++];
			continue;
		}
		p->pos++;
		if (parse_escape(p, quote, out, &len, err) < 0)
			return -1;
	}
	p->pos = end + 1;
	out[len] = '\0';
	*ret_text = out;
	*ret_len = len;
	return 0;
}

/* --- fields --------------------------------------------------------------------------------------- */

/*
 * Field names are C strings. One with a NUL gets C0 80 in its place, which is not UTF-8, so that it stays
 * a name that no object has, instead of becoming a shorter one. "\x00" leaves room for the two bytes.
 */
static int hide_nuls(struct parser *p, char **text, size_t len, struct err *err)
{
	char *out, *to;

	if (!memchr(*text, '\0', len))
		return 0;
	to = out = arena_alloc(&p->filters->arena, 2 * len + 1);
	if (!out)
		return fail_memory(err);
	for (size_t i = 0; i < len; i++) {
		if ((*text)[i]) {
			*to++ = (*text)[i];
		} else {
			*to++ = (char)0xc0;
			*to++ = (char)0x80;
		}
	}
	*to = '\0';
	*text = out;
	return 0;
}

static int parse_field(struct parser *p, const char **ret_field, struct err *err)
{
	size_t start, len;
	char *text;

	skip_space(p);
	start = p->pos;
	if (p->text[start] == '"') {
		if (parse_quoted(p, &text, &len, err) < 0 || hide_nuls(p, &text, len, err) < 0)
			return -1;
		*ret_field = text;
		return 0;
	}

	while (is_field_byte(p->text[p->pos]))
		p->pos++;
	if (p->pos == start)
		return fail_at(p, start, err, "expected a field name");
	text = arena_memdup(&p->filters->arena, p->text + start, p->pos - start);
	if (!text)
		return fail_memory(err);
	*ret_field = text;
	return 0;
}

static int parse_path(struct parser *p, struct selector *selector, struct err *err)
{
	size_t capacity = 0;

	for (;;) {
		if (selector->n_path == capacity) {
			size_t doubled = capacity ? 2 * capacity : 2;
			const char **path = arena_array(&p->filters->arena, doubled, sizeof(*path));

			if (!path)
				return fail_memory(err);
			if (capacity)
				memcpy(path, selector->path, capacity * sizeof(*path));
			selector->path = path;
			capacity = doubled;
		}
		if (parse_field(p, &selector->path[selector->n_path], err) < 0)
			return -1;
		selector->n_path++;
		if (p->text[p->pos] != '.')
			return 0;
		p->pos++;
	}
}

/* --- operator and value --------------------------------------------------------------------------- */

static int parse_operator(struct parser *p, enum filter_op *ret_op, struct err *err)
{
	size_t start, len;

	skip_space(p);
	start = p->pos;
	while (is_operator_byte(p->text[p->pos]))
		p->pos++;
	len = p->pos - start;
	if (len == 2 && memcmp(p->text + start, "==", 2) == 0)
		*ret_op = OP_EQUAL;
	else if (len == 2 && memcmp(p->text + start, "!=", 2) == 0)
		*ret_op = OP_NOT_EQUAL;
	else if (len == 2 && memcmp(p->text + start, "~=", 2) == 0)
		*ret_op = OP_MATCHES;
	else
		return fail_at(p, start, err, "expected '==', '!=' or '~='");
	return 0;
}

/*
 * Unquoted values consist of graphic characters: letters, marks, numbers, punctuation and symbols. Which
 * ones those are beyond ASCII, the regular expression library knows.
 */
static int check_graphic(const struct parser *p, size_t start, size_t end, struct err *err)
{
	static const char pattern[] = "^[\\pL\\pM\\pN\\pP\\pS]*$";
	struct regex *graphic = regex_new(pattern, sizeof(pattern) - 1);
	size_t len;

	if (!graphic)
		return fail_memory(err);
	while (start < end) {
		(void)decode_rune(p->text + start, &len);
		if (!regex_search(graphic, p->text + start, len))
			break;
		start += len;
	}
	regex_free(graphic);
	if (start < end)
		return fail_at(p, start, err, "unexpected character");
	return 0;
}

/* The cursor is at the first character, which may be any; only those after it must be graphic. */
static int parse_bare_value(struct parser *p, char **ret_text, size_t *ret_len, struct err *err)
{
	size_t start = p->pos, second, len;
	bool is_ascii = true;

	(void)decode_rune(p->text + start, &len);
	second = p->pos += len;
	while (p->pos < p->len) {
		uint32_t rune = decode_rune(p->text + p->pos, &len);

		if (rune == ',' || rune < ' ' || rune == 0x7f || is_space(rune))
			break;
		if (rune >= 0x80)
			is_ascii = false;
		p->pos += len;
	}
	if (!is_ascii && check_graphic(p, second, p->pos, err) < 0)
		return -1;
	*ret_text = arena_memdup(&p->filters->arena, p->text + start, p->pos - start);
	*ret_len = p->pos - start;
	return *ret_text ? 0 : fail_memory(err);
}

static int parse_value(struct parser *p, enum filter_op op, struct selector *selector,
		       struct err *err)
{
	char *text;
	char c;

	skip_space(p);
	c = p->text[p->pos];
	if (c == '\0' || c == ',' || c == '.' || is_operator_byte(c))
		return fail_at(p, p->pos, err, "expected a value");
	if ((c == '/' || c == '|') && op != OP_MATCHES)
		return fail_at(p, p->pos, err, "this quote is for '~=' only");
	if (c == '"' || c == '/' || c == '|') {
		if (parse_quoted(p, &text, &selector->value_len, err) < 0)
			return -1;
	} else if (parse_bare_value(p, &text, &selector->value_len, err) < 0) {
		return -1;
	}
	selector->value = text;
	return 0;
}

/*
 * Go's syntax and that of the RE2 library differ in one escape: \C, a single byte, which Go refuses. Only
 * quoting with \Q hides it.
 */
static bool has_byte_escape(const char *pattern, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++) {
		if (pattern[i] != '\\')
			continue;
		i++;
		if (pattern[i] == 'C')
			return true;
		if (pattern[i] == 'Q') {
			const char *end = memmem(pattern + i, len - i, "\\E", 2);

			if (!end)
				return false;
			i = (size_t)(end - pattern) + 1;
		}
	}
	return false;
}

/* --- the whole ------------------------------------------------------------------------------------- */

static int parse_selector(struct parser *p, struct selector *selector, struct err *err)
{
	enum filter_op op;

	if (parse_path(p, selector, err) < 0)
		return -1;
	if (p->pos == p->len || p->text[p->pos] == ',')
		return 0;
	if (parse_operator(p, &op, err) < 0 || parse_value(p, op, selector, err) < 0)
		return -1;
	if (op == OP_MATCHES) {
		if (++p->filters->n_regexes > FILTER_REGEXES_MAX)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "filters hold more than %d regular expressions",
				       FILTER_REGEXES_MAX);
		if (!has_byte_escape(selector->value, selector->value_len))
			selector->regex = regex_new(selector->value, selector->value_len);
	}
	selector->op = op;
	return 0;
}

static int parse_filter(struct parser *p, struct filter *filter, struct err *err)
{
	struct selector **link = &filter->selectors;
	const char *replacement;

	if (!str_is_utf8(p->text, p->len))
		return fail_at(p, 0, err, "not UTF-8");
	/* What stands for a decoding error is one to containerd's parser, quoted or not. */
	replacement = strstr(p->text, "\xef\xbf\xbd");
	if (replacement)
		return fail_at(p, (size_t)(replacement - p->text), err, "replacement character");

	for (;;) {
		/* Linked before it is complete, so that filters_free() finds its expression. */
		*link = arena_zalloc(&p->filters->arena, sizeof(**link));
		if (!*link)
			return fail_memory(err);
		if (parse_selector(p, *link, err) < 0)
			return -1;
		if (p->pos == p->len)
			return 0;
		if (p->text[p->pos] != ',')
			return fail_at(p, p->pos, err, "expected ',' or the end");
		p->pos++;
		link = &(*link)->next;
	}
}

static int parse_all(struct filters *filters, const char *const *texts, size_t n,
		     bool *ret_match_all, struct err *err)
{
	struct filter **link = &filters->list;
	size_t total = 0;

	if (n > FILTERS_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT, "more than %d filters", FILTERS_MAX);
	for (size_t i = 0; i < n; i++) {
		struct parser p = {
			.filters = filters,
			.number = i + 1,
			.text = texts[i],
			.len = strlen(texts[i]),
		};

		total += p.len;
		if (total > FILTER_MAX_BYTES)
			return err_set(err, ERR_INVALID_ARGUMENT, "filters take more than %u bytes",
				       FILTER_MAX_BYTES);
		if (p.len == 0) {
			*ret_match_all = true;
			continue;
		}
		*link = arena_zalloc(&filters->arena, sizeof(**link));
		if (!*link)
			return fail_memory(err);
		if (parse_filter(&p, *link, err) < 0)
			return -1;
		link = &(*link)->next;
	}
	return 0;
}

int filters_parse(const char *const *texts, size_t n, struct filters **ret_filters, struct err *err)
{
	bool match_all = n == 0;
	struct filters *filters;

	filters = calloc(1, sizeof(*filters));
	if (!filters)
		return fail_memory(err);
	arena_init(&filters->arena, FILTERS_ARENA_BYTES);
	if (parse_all(filters, texts, n, &match_all, err) < 0) {
		filters_free(filters);
		return -1;
	}
	if (match_all) {
		filters_free(filters);
		filters = NULL;
	}
	*ret_filters = filters;
	return 0;
}

void filters_free(struct filters *filters)
{
	if (!filters)
		return;
	for (struct filter *f = filters->list; f; f = f->next) {
		for (struct selector *s = f->selectors; s; s = s->next)
			regex_free(s->regex);
	}
	arena_done(&filters->arena);
	free(filters);
}

static bool selector_matches(const struct selector *selector, filter_field_fn field,
			     const void *object)
{
	const char *found = field(object, selector->path, selector->n_path);
	const char *value = found ? found : "";
	size_t len = strlen(value);
	bool is_equal;

	if (selector->op == OP_PRESENT)
		return found != NULL;
	if (selector->op == OP_MATCHES)
		return selector->regex && regex_search(selector->regex, value, len);

	is_equal = len == selector->value_len && memcmp(value, selector->value, len) == 0;
	if (selector->op == OP_EQUAL)
		return found && is_equal;
	return !is_equal;
}

bool filters_match(const struct filters *filters, filter_field_fn field, const void *object)
{
	if (!filters)
		return true;
	for (const struct filter *f = filters->list; f; f = f->next) {
		const struct selector *s = f->selectors;

		while (s && selector_matches(s, field, object))
			s = s->next;
		if (!s)
			return true;
	}
	return false;
}

static bool is_same_path(const struct selector *selector, const char *const *path, size_t n)
{
	if (selector->n_path != n)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(selector->path[i], path[i]) != 0)
			return false;
	}
	return true;
}

static const char *required_by(const struct filter *filter, const char *const *path, size_t n)
{
	for (const struct selector *s = filter->selectors; s; s = s->next) {
		if (s->op == OP_EQUAL && is_same_path(s, path, n) &&
		    !memchr(s->value, '\0', s->value_len))
			return s->value;
	}
	return NULL;
}

const char *filters_required(const struct filters *filters, const char *const *path, size_t n)
{
	const char *required = NULL;

	if (!filters)
		return NULL;
	for (const struct filter *f = filters->list; f; f = f->next) {
		const char *value = required_by(f, path, n);

		if (!value || (required && strcmp(required, value) != 0))
			return NULL;
		required = value;
	}
	return required;
}
