/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: a table of options, each one row, that feeds the TOML parser, the command line,
 * --help and the man page. Values land in a struct of the table's owner. Used before threads start.
 *
 *	struct overlay_conf { bool sync_remove; struct conf_list mount_options; };
 *	static const struct conf_option options[] = {
 *		CONF_BOOL(struct overlay_conf, sync_remove, "false", "delete directories in Remove"),
 *		CONF_LIST(struct overlay_conf, mount_options, "[]", "options added to every overlay mount"),
 *		CONF_END,
 *	};
 *
 * Keys are [table.]name. A key no row names is an error with file and line; all keys are checked before
 * anything else happens.
 */
#ifndef LIGHTER_BASE_CONF_H
#define LIGHTER_BASE_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/compiler.h"
#include "base/err.h"

enum conf_type {
	CONF_TYPE_BOOL, /* bool */
	CONF_TYPE_INT, /* int64_t, within [min, max] */
	CONF_TYPE_STRING, /* char *, never NULL, owned by the struct; one of @choices if given */
	CONF_TYPE_LIST, /* struct conf_list of strings */
};

/** struct conf_list - strings, owned by the struct that holds it */
struct conf_list {
	char **items;
	size_t n;
};

/**
 * struct conf_option - one row
 * @name: key inside its table
 * @initial: default in TOML notation ("\"text\"", "false", "16", "[]")
 * @choices: for strings: "a|b|c", or NULL
 * @metavar: placeholder in --help; NULL: by type
 * @help: one sentence, lower case, no full stop
 */
struct conf_option {
	const char *name;
	enum conf_type type;
	size_t offset;
	const char *initial;
	int64_t min, max;
	const char *choices;
	const char *metavar;
	const char *help;
};

#define CONF_BOOL(type_, member_, initial_, help_)                                                 \
	{                                                                                          \
		.name = #member_, .type = CONF_TYPE_BOOL, .offset = offsetof(type_, member_),      \
		.initial = (initial_), .help = (help_)                                             \
	}
#define CONF_INT(type_, member_, initial_, min_, max_, help_)                                      \
	{                                                                                          \
		.name = #member_, .type = CONF_TYPE_INT, .offset = offsetof(type_, member_),       \
		.initial = (initial_), .min = (min_), .max = (max_), .help = (help_)               \
	}
#define CONF_STRING(type_, member_, initial_, metavar_, help_)                                     \
	{                                                                                          \
		.name = #member_, .type = CONF_TYPE_STRING, .offset = offsetof(type_, member_),    \
		.initial = (initial_), .metavar = (metavar_), .help = (help_)                      \
	}
#define CONF_CHOICE(type_, member_, initial_, choices_, help_)                                     \
	{                                                                                          \
		.name = #member_, .type = CONF_TYPE_STRING, .offset = offsetof(type_, member_),    \
		.initial = (initial_), .choices = (choices_), .help = (help_)                      \
	}
#define CONF_LIST(type_, member_, initial_, help_)                                                 \
	{                                                                                          \
		.name = #member_, .type = CONF_TYPE_LIST, .offset = offsetof(type_, member_),      \
		.initial = (initial_), .help = (help_)                                             \
	}
#define CONF_END                                                                                   \
	{                                                                                          \
		.name = NULL                                                                       \
	}

/**
 * struct conf_table - rows under one TOML table
 * @name: "" is the top level
 * @options: ends with CONF_END
 * @target: struct the rows' offsets are in, zeroed by its owner before conf_init()
 */
struct conf_table {
	const char *name;
	const struct conf_option *options;
	void *target;
};

/** conf_init() - set every option of @n tables to its default. Failure means a bad row, or no memory. */
ERR_CHECKED int conf_init(const struct conf_table *tables, size_t n, struct err *err);

/** conf_done() - free what the options own; the targets may be initialised again */
void conf_done(const struct conf_table *tables, size_t n);

/**
 * conf_load() - read the TOML file @path into the tables
 *
 * Nothing changes unless all of it is good. Messages read "FILE:LINE: what is wrong", and name the
 * nearest known key for an unknown one.
 * Return: 0; 1 when the file does not exist; or -1 with ERR_INVALID_ARGUMENT.
 */
ERR_CHECKED int conf_load(const char *path, const struct conf_table *tables, size_t n,
			  struct err *err);

/** conf_load_text() - as conf_load(), of @size bytes in memory; @name stands for the file in messages */
ERR_CHECKED int conf_load_text(const char *name, const char *text, size_t size,
			       const struct conf_table *tables, size_t n, struct err *err);

/**
 * conf_set() - set one option from the command line
 * @assignment: "[table.]key=value"; the value in TOML notation, or a bare word for a string
 */
ERR_CHECKED int conf_set(const char *assignment, const struct conf_table *tables, size_t n,
			 struct err *err);

/** conf_help() - print every option with its default and help, wrapped at 80 columns */
void conf_help(FILE *out, const struct conf_table *tables, size_t n);

/** conf_example() - print a commented example file with every option at its default */
void conf_example(FILE *out, const struct conf_table *tables, size_t n);

#endif
