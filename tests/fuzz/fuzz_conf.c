/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: the bytes are a TOML file; and, when they hold no NUL, a --set argument.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct values {
	char *root;
	char *level;
	int64_t workers;
	bool sync;
	struct conf_list list;
};

static const struct conf_option top_options[] = {
	CONF_STRING(struct values, root, "\"/var/lib/x\"", "DIR", "directory"),
	CONF_CHOICE(struct values, level, "\"info\"", "error|info", "what is logged"),
	CONF_INT(struct values, workers, "8", 1, 64, "threads"),
	CONF_END,
};

static const struct conf_option table_options[] = {
	CONF_BOOL(struct values, sync, "false", "wait"),
	CONF_LIST(struct values, list, "[]", "options"),
	CONF_END,
};

/* Whatever was given, what is in the target keeps to the rows. */
static void check(const struct values *values)
{
	assert(values->workers >= 1 && values->workers <= 64);
	assert(strcmp(values->level, "error") == 0 || strcmp(values->level, "info") == 0);
	assert(str_is_utf8(values->root, strlen(values->root)));
	for (size_t i = 0; i < values->list.n; i++)
		assert(str_is_utf8(values->list.items[i], strlen(values->list.items[i])));
}

static void check_message(const struct err *err)
{
	assert(err->code == ERR_INVALID_ARGUMENT || err->code == ERR_RESOURCE_EXHAUSTED);
	assert(*err->msg && str_is_utf8(err->msg, strlen(err->msg)));
	assert(strpbrk(err->msg, "\n\r\033") == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct values values = {0};
	const struct conf_table tables[] = {{"", top_options, &values},
					    {"table", table_options, &values}};
	struct err err = ERR_INIT;
	char *assignment;

	if (conf_init(tables, 2, &err) < 0)
		abort();
	if (conf_load_text("fuzz.toml", (const char *)data, size, tables, 2, &err) < 0)
		check_message(&err);
	check(&values);
	if (size < 4096 && !memchr(data, '\0', size)) {
		assignment = strndup((const char *)data, size);
		if (!assignment)
			abort();
		/* Keys and values cross the terminal as the caller wrote them: only checked as text. */
		if (conf_set(assignment, tables, 2, &err) < 0)
			assert(*err.msg);
		check(&values);
		free(assignment);
	}
	conf_done(tables, 2);
	return 0;
}
