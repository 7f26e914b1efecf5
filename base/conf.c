/* SPDX-License-Identifier: Apache-2.0 */
#include "base/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "base/toml.h"

/* Keys and values of others are shown cut at this length. */
#define SHOWN_MAX_BYTES   64
/* Longer keys are not compared with ours. */
#define SUGGEST_MAX_BYTES 64
#define HELP_COLUMNS      80

/** struct row - an option and where its value goes */
struct row {
	const struct conf_table *table;
	const struct conf_option *option;
};

/** struct change - a checked value on its way into the target; owns @str and @list */
struct change {
	struct change *next;
	struct row row;
	bool boolean;
	int64_t integer;
	char *str;
	struct conf_list list;
};

/** struct load - one document being read; @changes: newest first */
struct load {
	const char *name;
	const struct conf_table *tables;
	size_t n_tables;
	struct change *changes;
};

/* Text of others inside our messages: one line, of bounded length. Returns @buf of SHOWN_MAX_BYTES + 4. */
static const char *shown(char *buf, const char *text)
{
	size_t n = str_cut(text, SHOWN_MAX_BYTES);

	for (size_t i = 0; i < n; i++)
		buf[i] = ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) ? '?' : text[i];
	strcpy(buf + n, text[n] ? "..." : "");
	return buf;
}

/* "table.name" of a row, or "name" at the top level. */
static const char *full_key(char *buf, size_t size, const char *table, const char *name)
{
	snprintf(buf, size, "%s%s%s", table, *table ? "." : "", name);
	return buf;
}

/* The parser's messages can quote the document. */
static int clean_message(struct err *err)
{
	for (char *c = err->msg; *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
	return -1;
}

static struct row find_row(const struct conf_table *tables, size_t n, const char *table,
			   const char *name)
{
	for (size_t i = 0; i < n; i++) {
		const struct conf_option *option = tables[i].options;

		if (strcmp(tables[i].name, table) != 0)
			continue;
		for (; option->name; option++) {
			if (strcmp(option->name, name) == 0)
				return (struct row){&tables[i], option};
		}
	}
	return (struct row){NULL, NULL};
}

/* Is there a table called @key, or one inside it? */
static bool is_table(const struct conf_table *tables, size_t n, const char *key)
{
	size_t len = strlen(key);

	for (size_t i = 0; i < n; i++) {
		const char *name = tables[i].name;

		if (strncmp(name, key, len) == 0 && (name[len] == '\0' || name[len] == '.'))
			return true;
	}
	return false;
}

/* Number of single-byte insertions, deletions and replacements between two short texts. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t row[SUGGEST_MAX_BYTES + 1];
	size_t n = strlen(b);

	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);

			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[n];
}

static void suggest_if_nearer(const char *key, const char *candidate, const char *answer,
			      size_t *distance, char *best, size_t size)
{
	size_t d;

	if (strlen(key) > SUGGEST_MAX_BYTES || strlen(candidate) > SUGGEST_MAX_BYTES)
		return;
	d = edit_distance(key, candidate);
	if (d < *distance) {
		*distance = d;
		snprintf(best, size, "%s", answer);
	}
}

/* Mistakes that make another word of @name: a third of its letters, but never fewer than two. */
static size_t nearness(const char *name)
{
	size_t limit = strlen(name) / 3 + 1;

	return limit < 2 ? 2 : limit;
}

/*
 * The known key nearest to an unknown one, and "" when none is near. A key in the wrong table counts as
 * one mistake.
 */
static void suggest_key(const struct conf_table *tables, size_t n, const char *table,
			const char *name, char *best, size_t size)
{
	size_t limit = nearness(name);

	*best = '\0';
	for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
		for (size_t i = 0; i < n; i++) {
			const struct conf_option *option = tables[i].options;

			if ((strcmp(tables[i].name, table) != 0) != elsewhere)
				continue;
			for (; option->name; option++) {
				char key[2 * SUGGEST_MAX_BYTES];

				suggest_if_nearer(name, option->name,
						  full_key(key, sizeof(key), tables[i].name,
							   option->name),
						  &limit, best, size);
			}
		}
		limit -= limit > 0;
	}
}

static void suggest_table(const struct conf_table *tables, size_t n, const char *name, char *best,
			  size_t size)
{
	size_t limit = nearness(name);

	*best = '\0';
	for (size_t i = 0; i < n; i++) {
		if (*tables[i].name)
			suggest_if_nearer(name, tables[i].name, tables[i].name, &limit, best, size);
	}
}

static int unknown(struct err *err, const char *what, const char *key, const char *best)
{
	char buf[SHOWN_MAX_BYTES + 4];

	if (*best)
		return err_set(err, ERR_INVALID_ARGUMENT, "unknown %s '%s', did you mean '%s'?",
			       what, shown(buf, key), best);
	return err_set(err, ERR_INVALID_ARGUMENT, "unknown %s '%s'", what, shown(buf, key));
}

static int no_memory(struct err *err)
{
	return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the configuration");
}

static void list_done(struct conf_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct conf_list){NULL, 0};
}

static void free_change(struct change *change)
{
	free(change->str);
	list_done(&change->list);
	free(change);
}

static const char *type_name(const struct conf_option *option)
{
	switch (option->type) {
	case CONF_TYPE_BOOL:
		return "true or false";
	case CONF_TYPE_INT:
		return "a whole number";
	case CONF_TYPE_STRING:
		return "a string";
	case CONF_TYPE_LIST:
		return "a list of strings";
	}
	return "nothing";
}

static bool is_choice(const char *choices, const char *text)
{
	size_t len = strlen(text);

	for (;;) {
		size_t n = strcspn(choices, "|");

		if (n == len && memcmp(choices, text, n) == 0)
			return true;
		if (choices[n] == '\0')
			return false;
		choices += n + 1;
	}
}

static int copy_string(const char *text, size_t len, char **ret_copy, struct err *err)
{
	if (memchr(text, '\0', len))
		return err_set(err, ERR_INVALID_ARGUMENT, "must not hold a NUL byte");
	*ret_copy = strndup(text, len);
	return *ret_copy ? 0 : no_memory(err);
}

static int set_string(struct change *change, const char *text, size_t len, struct err *err)
{
	const struct conf_option *option = change->row.option;
	char buf[SHOWN_MAX_BYTES + 4];

	if (copy_string(text, len, &change->str, err) < 0)
		return -1;
	if (option->choices && !is_choice(option->choices, change->str))
		return err_set(err, ERR_INVALID_ARGUMENT, "must be one of %s, not '%s'",
			       option->choices, shown(buf, change->str));
	return 0;
}

static int set_list(struct change *change, const struct toml_value *value, struct err *err)
{
	change->list.items = calloc(value->n_items ? value->n_items : 1, sizeof(char *));
	if (!change->list.items)
		return no_memory(err);
	for (size_t i = 0; i < value->n_items; i++) {
		const struct toml_value *item = &value->items[i];

		if (item->type != TOML_TYPE_STRING)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "must be a list of strings, and its item %zu is not one",
				       i + 1);
		if (copy_string(item->str, item->len, &change->list.items[i], err) < 0)
			return -1;
		change->list.n++;
	}
	return 0;
}

static int set_value(struct change *change, const struct toml_value *value, struct err *err)
{
	static const enum toml_type wanted[] = {
		[CONF_TYPE_BOOL] = TOML_TYPE_BOOL,
		[CONF_TYPE_INT] = TOML_TYPE_INT,
		[CONF_TYPE_STRING] = TOML_TYPE_STRING,
		[CONF_TYPE_LIST] = TOML_TYPE_LIST,
	};
	const struct conf_option *option = change->row.option;

	if (value->type != wanted[option->type])
		return err_set(err, ERR_INVALID_ARGUMENT, "must be %s", type_name(option));
	switch (option->type) {
	case CONF_TYPE_BOOL:
		change->boolean = value->boolean;
		return 0;
	case CONF_TYPE_INT:
		change->integer = value->integer;
		if (value->integer < option->min || value->integer > option->max)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "must be between %" PRId64 " and %" PRId64 ", not %" PRId64,
				       option->min, option->max, value->integer);
		return 0;
	case CONF_TYPE_STRING:
		return set_string(change, value->str, value->len, err);
	case CONF_TYPE_LIST:
		return set_list(change, value, err);
	}
	return err_set(err, ERR_INTERNAL, "option of no known type");
}

static struct change *new_change(struct row row, struct err *err)
{
	struct change *change = calloc(1, sizeof(*change));

	if (change)
		change->row = row;
	else
		no_memory(err);
	return change;
}

static void *target_of(const struct row *row)
{
	return (char *)row->table->target + row->option->offset;
}

/* Moves the value into the target, whose old value is freed. Cannot fail. Takes @change. */
static void apply(struct change *change)
{
	void *target = target_of(&change->row);

	switch (change->row.option->type) {
	case CONF_TYPE_BOOL:
		*(bool *)target = change->boolean;
		break;
	case CONF_TYPE_INT:
		*(int64_t *)target = change->integer;
		break;
	case CONF_TYPE_STRING:
		free(*(char **)target);
		*(char **)target = take_ptr(change->str);
		break;
	case CONF_TYPE_LIST:
		list_done(target);
		*(struct conf_list *)target = change->list;
		change->list = (struct conf_list){NULL, 0};
		break;
	}
	free_change(change);
}

static void load_end(struct load *load, bool keep)
{
	struct change *change;

	while ((change = load->changes)) {
		load->changes = change->next;
		if (keep)
			apply(change);
		else
			free_change(change);
	}
}

static int load_entry(struct load *load, const struct toml_entry *entry, struct err *err)
{
	struct row row = find_row(load->tables, load->n_tables, entry->table, entry->name);
	CLEANUP(free_ptr) char *key = NULL;
	char best[2 * SUGGEST_MAX_BYTES], buf[SHOWN_MAX_BYTES + 4];
	struct change *change;

	if (asprintf(&key, "%s%s%s", entry->table, *entry->table ? "." : "", entry->name) < 0) {
		key = NULL;
		return no_memory(err);
	}
	if (!row.option) {
		bool known = is_table(load->tables, load->n_tables, key);

		if (entry->value.type == TOML_TYPE_TABLE) {
			if (known)
				return 0;
			suggest_table(load->tables, load->n_tables, key, best, sizeof(best));
			return unknown(err, "table", key, best);
		}
		if (known)
			return err_set(err, ERR_INVALID_ARGUMENT, "'%s' must be a table",
				       shown(buf, key));
		suggest_key(load->tables, load->n_tables, entry->table, entry->name, best,
			    sizeof(best));
		return unknown(err, "key", key, best);
	}
	change = new_change(row, err);
	if (!change)
		return -1;
	if (set_value(change, &entry->value, err) < 0) {
		free_change(change);
		return err_wrap(err, "'%s'", key);
	}
	change->next = load->changes;
	load->changes = change;
	return 0;
}

static int on_entry(void *arg, const struct toml_entry *entry, struct err *err)
{
	struct load *load = arg;

	if (load_entry(load, entry, err) < 0)
		return err_wrap(err, "%s:%u", load->name, entry->line);
	return 0;
}

int conf_load_text(const char *name, const char *text, size_t size, const struct conf_table *tables,
		   size_t n, struct err *err)
{
	struct load load = {.name = name, .tables = tables, .n_tables = n};
	int r = toml_each(name, text, size, on_entry, &load, err);

	load_end(&load, r == 0);
	return r == 0 ? 0 : clean_message(err);
}

/* Regular files only, so that reading one ends; and /dev/null, as "no file" is often written. */
static int check_kind(const char *path, int fd, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s", path, strerror(errno));
	if (S_ISREG(st.st_mode) || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)))
		return 0;
	return err_set(err, ERR_INVALID_ARGUMENT, "%s: not a regular file", path);
}

/* One byte more than the cap at most, so that the parser sees what is too large. */
static int read_text(const char *path, int fd, struct str *text, struct err *err)
{
	char buf[16 * 1024];

	while (text->len <= TOML_MAX_BYTES) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s", path, strerror(errno));
		if (n == 0)
			break;
		str_add_mem(text, buf, (size_t)n);
		if (text->failed)
			return no_memory(err);
	}
	return 0;
}

int conf_load(const char *path, const struct conf_table *tables, size_t n, struct err *err)
{
	/* O_NONBLOCK: opening a FIFO would wait for its other end. */
	CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct str text;
	int r;

	if (fd < 0 && errno == ENOENT)
		return 1;
	if (fd < 0)
		return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s", path, strerror(errno));
	if (check_kind(path, fd, err) < 0)
		return -1;
	str_init(&text, TOML_MAX_BYTES + 64 * 1024);
	r = read_text(path, fd, &text, err);
	if (r == 0)
		r = conf_load_text(path, text.text, text.len, tables, n, err);
	str_done(&text);
	return r;
}

/** struct single - a value in TOML notation, read as the document "value = ..." */
struct single {
	struct change *change;
	unsigned int n_entries;
};

static int on_single(void *arg, const struct toml_entry *entry, struct err *err)
{
	struct single *single = arg;

	/* A line feed in the text could begin a second key. */
	if (single->n_entries++ > 0)
		return err_set(err, ERR_INVALID_ARGUMENT, "must be one value");
	return set_value(single->change, &entry->value, err);
}

static int set_notation(struct change *change, const char *notation, struct err *err)
{
	CLEANUP(free_ptr) char *text = NULL;
	struct single single = {.change = change};

	if (asprintf(&text, "value = %s", notation) < 0) {
		text = NULL;
		return no_memory(err);
	}
	return toml_each("value", text, strlen(text), on_single, &single, err);
}

static int set_default(const struct row *row, struct err *err)
{
	struct change *change = new_change(*row, err);

	if (!change)
		return -1;
	if (set_notation(change, row->option->initial, err) < 0) {
		free_change(change);
		return err_wrap(err, "default of '%s'", row->option->name);
	}
	apply(change);
	return 0;
}

int conf_init(const struct conf_table *tables, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		const struct conf_option *option = tables[i].options;

		for (; option->name; option++) {
			struct row row = {&tables[i], option};

			if (set_default(&row, err) < 0) {
				conf_done(tables, n);
				return -1;
			}
		}
	}
	return 0;
}

void conf_done(const struct conf_table *tables, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct conf_option *option = tables[i].options;

		for (; option->name; option++) {
			struct row row = {&tables[i], option};
			void *target = target_of(&row);

			if (option->type == CONF_TYPE_STRING) {
				free(*(char **)target);
				*(char **)target = NULL;
			} else if (option->type == CONF_TYPE_LIST) {
				list_done(target);
			}
		}
	}
}

/* On the command line a string needs no quotes: the shell has taken one pair away already. */
static int set_argument(struct change *change, const char *value, struct err *err)
{
	if (change->row.option->type != CONF_TYPE_STRING || *value == '"' || *value == '\'')
		return set_notation(change, value, err);
	if (!str_is_utf8(value, strlen(value)))
		return err_set(err, ERR_INVALID_ARGUMENT, "must be UTF-8");
	return set_string(change, value, strlen(value), err);
}

int conf_set(const char *assignment, const struct conf_table *tables, size_t n, struct err *err)
{
	char best[2 * SUGGEST_MAX_BYTES], buf[SHOWN_MAX_BYTES + 4];
	const char *equals = strchr(assignment, '=');
	CLEANUP(free_ptr) char *key = NULL;
	CLEANUP(free_ptr) char *table = NULL;
	struct change *change;
	struct row row;
	char *dot;

	if (!equals || equals == assignment)
		return err_set(err, ERR_INVALID_ARGUMENT, "'%s' does not read KEY=VALUE",
			       shown(buf, assignment));
	key = strndup(assignment, (size_t)(equals - assignment));
	if (!key)
		return no_memory(err);
	dot = strrchr(key, '.');
	table = dot ? strndup(key, (size_t)(dot - key)) : strdup("");
	if (!table)
		return no_memory(err);
	row = find_row(tables, n, table, dot ? dot + 1 : key);
	if (!row.option) {
		suggest_key(tables, n, table, dot ? dot + 1 : key, best, sizeof(best));
		return unknown(err, "key", key, best);
	}
	change = new_change(row, err);
	if (!change)
		return -1;
	if (set_argument(change, equals + 1, err) < 0) {
		free_change(change);
		err_wrap(err, "'%s'", key);
		return clean_message(err);
	}
	apply(change);
	return 0;
}

/* Prints @text filled to @columns; each line begins with @prefix. */
static void print_wrapped(FILE *out, const char *prefix, const char *text, size_t columns)
{
	size_t used = 0;

	while (*text) {
		size_t n = strcspn(text, " ");

		if (used > 0 && used + 1 + n > columns) {
			fputc('\n', out);
			used = 0;
		}
		if (used == 0)
			used = (size_t)fprintf(out, "%s%.*s", prefix, (int)n, text);
		else
			used += (size_t)fprintf(out, " %.*s", (int)n, text);
		text += n;
		text += strspn(text, " ");
	}
	if (used > 0)
		fputc('\n', out);
}

static const char *metavar_of(const struct conf_option *option)
{
	if (option->metavar)
		return option->metavar;
	if (option->choices)
		return option->choices;
	switch (option->type) {
	case CONF_TYPE_BOOL:
		return "true|false";
	case CONF_TYPE_INT:
		return "N";
	case CONF_TYPE_STRING:
		return "TEXT";
	case CONF_TYPE_LIST:
		return "[\"TEXT\", ...]";
	}
	return "";
}

/* What the type does not say of the values that are taken; "" when there is nothing to say. */
static const char *limits_of(char *buf, size_t size, const struct conf_option *option)
{
	*buf = '\0';
	if (option->type == CONF_TYPE_INT)
		snprintf(buf, size, ", %" PRId64 " to %" PRId64, option->min, option->max);
	return buf;
}

static void help_option(FILE *out, const char *table, const struct conf_option *option)
{
	CLEANUP(free_ptr) char *text = NULL;
	char limits[64];

	fprintf(out, "  %s%s%s=%s\n", table, *table ? "." : "", option->name, metavar_of(option));
	if (asprintf(&text, "%s (default %s%s)", option->help, option->initial,
		     limits_of(limits, sizeof(limits), option)) < 0) {
		text = NULL;
		return;
	}
	print_wrapped(out, "        ", text, HELP_COLUMNS);
}

void conf_help(FILE *out, const struct conf_table *tables, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct conf_option *option = tables[i].options;

		for (; option->name; option++)
			help_option(out, tables[i].name, option);
	}
}

static void example_option(FILE *out, const struct conf_option *option)
{
	CLEANUP(free_ptr) char *text = NULL;
	char limits[64];

	if (asprintf(&text, "%s%s%s%s", option->help, limits_of(limits, sizeof(limits), option),
		     option->choices ? "; one of " : "",
		     option->choices ? option->choices : "") < 0) {
		text = NULL;
		return;
	}
	print_wrapped(out, "# ", text, HELP_COLUMNS);
	fprintf(out, "#%s = %s\n", option->name, option->initial);
}

/* Several tables may share one name; TOML wants it once. */
static void example_table(FILE *out, const struct conf_table *tables, size_t n, const char *name)
{
	const char *separator = "";

	if (*name)
		fprintf(out, "[%s]\n", name);
	for (size_t i = 0; i < n; i++) {
		const struct conf_option *option = tables[i].options;

		if (strcmp(tables[i].name, name) != 0)
			continue;
		for (; option->name; option++) {
			fputs(separator, out);
			example_option(out, option);
			separator = "\n";
		}
	}
}

static bool is_first_of_name(const struct conf_table *tables, size_t i)
{
	for (size_t j = 0; j < i; j++) {
		if (strcmp(tables[j].name, tables[i].name) == 0)
			return false;
	}
	return true;
}

void conf_example(FILE *out, const struct conf_table *tables, size_t n)
{
	const char *separator = "";

	/* The top level first: below a header its keys would belong to that table. */
	for (int top = 1; top >= 0; top--) {
		for (size_t i = 0; i < n; i++) {
			if ((*tables[i].name == '\0') != top || !is_first_of_name(tables, i))
				continue;
			fputs(separator, out);
			example_table(out, tables, n, tables[i].name);
			separator = "\n";
		}
	}
}
