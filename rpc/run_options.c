/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/listen.h"
#include "rpc/run_internal.h"

/* Groups with thousands of members have long entries; beyond this they must be given by number. */
#define GROUP_MAX_BYTES (1024 * 1024)

static const struct conf_option row_templates[] = {
	/* The defaults of root and address depend on the daemon's name: see init_rows(). */
	CONF_STRING(struct run_conf, root, NULL, "DIR",
		    "directory of everything that is kept; no other process may use it"),
	CONF_STRING(struct run_conf, address, NULL, "PATH",
		    "Unix socket to listen on, unless the service manager hands one over"),
	CONF_STRING(struct run_conf, socket_mode, "\"0660\"", "MODE",
		    "permissions of the socket, octal"),
	CONF_STRING(struct run_conf, socket_group, "\"\"", "GROUP",
		    "group of the socket, name or number; empty: that of the process"),
	CONF_CHOICE(struct run_conf, log_level, "\"info\"", "error|warn|info|debug",
		    "least important lines that are logged"),
	CONF_CHOICE(struct run_conf, log_format, "\"text\"", "text|json", "form of log lines"),
	CONF_INT(struct run_conf, workers, "16", 1, 256, "threads that serve calls"),
	CONF_END,
};
_Static_assert(ARRAY_LEN(row_templates) == RUN_N_ROWS, "RUN_N_ROWS counts the rows");

/**
 * struct flag - one option of the command line
 * @metavar: placeholder of its argument; NULL: it takes none
 * @key: configuration key it sets, or NULL
 */
struct flag {
	const char *name;
	const char *metavar;
	const char *key;
	const char *help;
};

enum {
	FLAG_CONFIG,
	FLAG_SET,
	FLAG_CHECK,
	FLAG_PRINT_CONFIG,
	FLAG_PRINT_REGISTRATION,
	FLAG_VERSION,
	FLAG_HELP,
	N_OWN_FLAGS
};

static const struct flag flags[] = {
	[FLAG_CONFIG] = {"config", "FILE", NULL, "configuration file"},
	[FLAG_SET] = {"set", "KEY=VALUE", NULL, "set any option below; the last one counts"},
	[FLAG_CHECK] = {"check", NULL, NULL, "check the configuration and exit"},
	[FLAG_PRINT_CONFIG] = {"print-config", NULL, NULL, "print an example configuration file"},
	[FLAG_PRINT_REGISTRATION] = {"print-registration", NULL, NULL,
				     "print what to add to containerd's config.toml"},
	[FLAG_VERSION] = {"version", NULL, NULL, "print the version"},
	[FLAG_HELP] = {"help", NULL, NULL, "print this, as -h does"},
	{"root", "DIR", "root", "as --set root=DIR"},
	{"address", "PATH", "address", "as --set address=PATH"},
	{"log-level", "LEVEL", "log_level", "as --set log_level=LEVEL"},
	{"log-format", "FORMAT", "log_format", "as --set log_format=FORMAT"},
};

/* Is it one that commands take, too? Those about the daemon alone are not. */
static bool is_for_commands(int flag)
{
	return flag == FLAG_CONFIG || flag == FLAG_SET || flag == FLAG_HELP || flag >= N_OWN_FLAGS;
}

/* Of one command. */
#define COMMAND_ROWS_MAX  16
#define COMMAND_NAME_SIZE 32

/**
 * struct command - what the command line says
 * @assignments: @n owned strings for conf_set(); those of @own_assignments are for the options of a command
 * @names: how those are spelled as flags
 */
struct command {
	const char *config;
	char **assignments, **own_assignments;
	size_t n_assignments, n_own_assignments;
	bool check, print_config, print_registration, version, help;
	char names[COMMAND_ROWS_MAX][COMMAND_NAME_SIZE];
};

static void command_done(struct command *command)
{
	for (size_t i = 0; i < command->n_assignments; i++)
		free(command->assignments[i]);
	for (size_t i = 0; i < command->n_own_assignments; i++)
		free(command->own_assignments[i]);
	free(command->assignments);
	free(command->own_assignments);
}

static int no_memory(struct err *err)
{
	return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the options");
}

static int add_assignment(char **assignments, size_t *n, const char *key, const char *value,
			  struct err *err)
{
	char *text;

	if (asprintf(&text, "%s%s%s", key ? key : "", key ? "=" : "", value) < 0)
		return no_memory(err);
	assignments[(*n)++] = text;
	return 0;
}

static int take_flag(struct command *command, int flag, const char *value, struct err *err)
{
	switch (flag) {
	case FLAG_CONFIG:
		command->config = value;
		return 0;
	case FLAG_CHECK:
		command->check = true;
		return 0;
	case FLAG_PRINT_CONFIG:
		command->print_config = true;
		return 0;
	case FLAG_PRINT_REGISTRATION:
		command->print_registration = true;
		return 0;
	case FLAG_VERSION:
		command->version = true;
		return 0;
	case FLAG_HELP:
		command->help = true;
		return 0;
	default:
		return add_assignment(command->assignments, &command->n_assignments,
				      flags[flag].key, value, err);
	}
}

/* --- commands -------------------------------------------------------------------------------------- */

static const struct run_command *find_command(const struct run_program *program, const char *name)
{
	for (size_t i = 0; i < program->n_commands; i++)
		if (strcmp(program->commands[i].name, name) == 0)
			return &program->commands[i];
	return NULL;
}

static int unknown_argument(const struct run_program *program, const char *argument, bool first,
			    struct err *err)
{
	if (find_command(program, argument))
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "the command '%s' must be the first argument", argument);
	if (program->n_commands == 0 || !first)
		return err_set(err, ERR_INVALID_ARGUMENT, "unexpected argument '%s'", argument);
	return err_set(err, ERR_INVALID_ARGUMENT, "unknown command '%s'", argument);
}

/* The table of its options, at their defaults. Its first argument is what comes behind its name. */
static int begin_command(struct run_options *options, const struct run_command *run_command,
			 struct err *err)
{
	void *target = calloc(1, run_command->conf_size ? run_command->conf_size : 1);

	if (!target)
		return no_memory(err);
	options->command_table = (struct conf_table){"", run_command->options, target};
	if (conf_init(&options->command_table, 1, err) < 0) {
		options->command_table = (struct conf_table){0};
		free(target);
		return -1;
	}
	options->command = run_command;
	return 0;
}

static int take_arguments(struct run_options *options, int n, char **argv, struct err *err)
{
	const struct run_command *command = options->command;

	if ((size_t)n > command->max_arguments)
		return err_set(err, ERR_INVALID_ARGUMENT, "unexpected argument '%s'",
			       argv[command->max_arguments]);
	if ((size_t)n < command->min_arguments)
		return err_set(err, ERR_INVALID_ARGUMENT, "%s is missing", command->arguments);
	options->arguments = calloc((size_t)n + 1, sizeof(char *));
	if (!options->arguments)
		return no_memory(err);
	for (int i = 0; i < n; i++)
		options->arguments[options->n_arguments++] = argv[i];
	return 0;
}

static int set_own_values(struct run_options *options, const struct command *command,
			  struct err *err)
{
	for (size_t i = 0; i < command->n_own_assignments; i++)
		if (conf_set(command->own_assignments[i], &options->command_table, 1, err) < 0)
			return -1;
	return 0;
}

/* --- the command line ------------------------------------------------------------------------------ */

/* "dry_run" is --dry-run. */
static const char *flag_name(const struct conf_option *row, char buf[COMMAND_NAME_SIZE])
{
	snprintf(buf, COMMAND_NAME_SIZE, "%s", row->name);
	for (char *c = buf; *c; c++)
		if (*c == '_')
			*c = '-';
	return buf;
}

/* Return: how many flags there are; flags of a command's own have ARRAY_LEN(flags) and more as their values. */
static size_t list_flags(const struct run_options *options, struct command *command,
			 struct option *ret_flags)
{
	const struct run_command *run_command = options->command;
	size_t n = 0;

	for (int i = 0; i < (int)ARRAY_LEN(flags); i++) {
		if (run_command && !is_for_commands(i))
			continue;
		ret_flags[n].name = flags[i].name;
		ret_flags[n].has_arg = flags[i].metavar ? required_argument : no_argument;
		ret_flags[n++].val = i;
	}
	for (int i = 0; run_command && run_command->options[i].name && i < COMMAND_ROWS_MAX; i++) {
		const struct conf_option *row = &run_command->options[i];

		ret_flags[n].name = flag_name(row, command->names[i]);
		ret_flags[n].has_arg =
			row->type == CONF_TYPE_BOOL ? no_argument : required_argument;
		ret_flags[n++].val = (int)ARRAY_LEN(flags) + i;
	}
	return n;
}

static int take_own_flag(struct command *command, const struct conf_option *row, const char *value,
			 struct err *err)
{
	return add_assignment(command->own_assignments, &command->n_own_assignments, row->name,
			      value ? value : "true", err);
}

/* @argv[0] is the name of the program or of the command. */
static int parse_flags(struct run_options *options, struct command *command, int argc, char **argv,
		       struct err *err)
{
	struct option long_options[ARRAY_LEN(flags) + COMMAND_ROWS_MAX + 1] = {0};
	int flag;

	(void)list_flags(options, command, long_options);
	/* Every flag takes one argument at least. */
	command->assignments = calloc((size_t)argc, sizeof(char *));
	command->own_assignments = calloc((size_t)argc, sizeof(char *));
	if (!command->assignments || !command->own_assignments)
		return no_memory(err);
	opterr = 0;
	while ((flag = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
		int r;

		if (flag == 'h')
			flag = FLAG_HELP;
		if (flag == ':')
			return err_set(err, ERR_INVALID_ARGUMENT, "option '%s' wants a value",
				       argv[optind - 1]);
		if (flag == '?' && optopt > ' ')
			return err_set(err, ERR_INVALID_ARGUMENT, "option '-%c' is unknown",
				       optopt);
		if (flag == '?')
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "option '%s' is unknown, ambiguous, or takes no value",
				       argv[optind - 1]);
		if (flag < (int)ARRAY_LEN(flags))
			r = take_flag(command, flag, optarg, err);
		else
			r = take_own_flag(command,
					  &options->command->options[flag - (int)ARRAY_LEN(flags)],
					  optarg, err);
		if (r < 0)
			return -1;
	}
	return 0;
}

static int parse_command(struct run_options *options, struct command *command, int argc,
			 char **argv, struct err *err)
{
	const struct run_program *program = options->program;
	const struct run_command *run_command = argc > 1 ? find_command(program, argv[1]) : NULL;
	/* Asked before getopt_long() puts the options in front. */
	bool first = argc > 1 && argv[1][0] != '-';

	if (run_command) {
		if (begin_command(options, run_command, err) < 0)
			return -1;
		argc--;
		argv++;
	}
	if (parse_flags(options, command, argc, argv, err) < 0)
		return -1;
	if (run_command)
		/* Who asks for help need not know the arguments. */
		return command->help ? 0
				     : take_arguments(options, argc - optind, argv + optind, err);
	if (optind < argc)
		return unknown_argument(program, argv[optind], first, err);
	return 0;
}

static void print_flag(const char *name, const char *metavar, const char *help)
{
	printf("  --%s %-*s %s\n", name, 20 - (int)strlen(name), metavar ? metavar : "", help);
}

static void print_command_help(const struct run_options *options)
{
	const struct run_command *command = options->command;
	char name[COMMAND_NAME_SIZE];

	printf("Usage: %s %s [OPTION]...%s%s\n%s\n\n", options->name, command->name,
	       *command->arguments ? " " : "", command->arguments, command->summary);
	for (const struct conf_option *row = command->options; row->name; row++)
		print_flag(flag_name(row, name), row->metavar, row->help);
	for (int i = 0; i < (int)ARRAY_LEN(flags); i++)
		if (is_for_commands(i))
			print_flag(flags[i].name, flags[i].metavar, flags[i].help);
	printf("\nConfiguration: %s by default; '%s --help' lists its options.\n",
	       options->default_config, options->name);
	fputs(command->notes, stdout);
}

static void print_commands(const struct run_options *options)
{
	const struct run_program *program = options->program;

	if (program->n_commands == 0)
		return;
	printf("\nCommands, each with a --help of its own:\n\n");
	for (size_t i = 0; i < program->n_commands; i++)
		printf("  %-22s %s\n", program->commands[i].name, program->commands[i].summary);
}

static void print_help(const struct run_options *options)
{
	printf("Usage: %s [OPTION]...\n", options->name);
	if (options->program->n_commands)
		printf("       %s COMMAND [OPTION]... [ARGUMENT]...\n", options->name);
	printf("%s\n\n", options->program->summary);
	for (size_t i = 0; i < ARRAY_LEN(flags); i++)
		print_flag(flags[i].name, flags[i].metavar, flags[i].help);
	print_commands(options);
	printf("\nOptions of the configuration file, %s by default, and of --set:\n\n",
	       options->default_config);
	conf_help(stdout, options->tables, ARRAY_LEN(options->tables));
	printf("\nSIGTERM and SIGINT stop it once the calls under way have ended, a second one at "
	       "once.\nExit status: 0 stopped, 1 failed, 2 wrong usage, configuration or root: "
	       "trying again does not help.\n");
}

static void print_example(const struct run_options *options)
{
	printf("# Configuration of %s, see %s.toml(5). Every option is shown with its default.\n\n",
	       options->name, options->name);
	conf_example(stdout, options->tables, ARRAY_LEN(options->tables));
}

void run_print_toml_string(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void print_registration(const struct run_options *options)
{
	const struct run_registration registration = {
		.name = options->name,
		.address = options->conf.address,
		.root = options->conf.root,
		.conf = options->program_conf,
	};

	options->program->print_registration(options->program, &registration);
}

static int init_rows(struct run_options *options, const struct run_program *program,
		     struct err *err)
{
	if (snprintf(options->name, sizeof(options->name), "lighter-%s", program->name) >=
	    (int)sizeof(options->name))
		return err_set(err, ERR_INTERNAL, "the name '%s' is too long", program->name);
	snprintf(options->default_config, sizeof(options->default_config), "/etc/lighter/%s.toml",
		 program->name);
	snprintf(options->default_root, sizeof(options->default_root), "\"/var/lib/lighter/%s\"",
		 program->name);
	snprintf(options->default_address, sizeof(options->default_address),
		 "\"/run/lighter/%s.sock\"", program->name);
	memcpy(options->rows, row_templates, sizeof(row_templates));
	options->rows[0].initial = options->default_root;
	options->rows[1].initial = options->default_address;
	options->program_conf = calloc(1, program->conf_size ? program->conf_size : 1);
	if (!options->program_conf)
		return no_memory(err);
	options->tables[0] = (struct conf_table){"", options->rows, &options->conf};
	options->tables[1] =
		(struct conf_table){program->name, program->options, options->program_conf};
	return conf_init(options->tables, ARRAY_LEN(options->tables), err);
}

static int load_values(struct run_options *options, const struct command *command, struct err *err)
{
	const char *path = command->config ? command->config : options->default_config;
	int r = conf_load(path, options->tables, ARRAY_LEN(options->tables), err);

	if (r < 0)
		return -1;
	if (r == 1 && command->config)
		return err_set(err, ERR_INVALID_ARGUMENT, "%s: No such file", path);
	for (size_t i = 0; i < command->n_assignments; i++) {
		if (conf_set(command->assignments[i], options->tables, ARRAY_LEN(options->tables),
			     err) < 0)
			return -1;
	}
	return 0;
}

/* Its mode is set to 0700, so that it must not be a directory of the system. */
static int check_root(char *root, struct err *err)
{
	size_t len = strlen(root);

	if (*root != '/')
		return err_set(err, ERR_INVALID_ARGUMENT, "root '%s' is not an absolute path",
			       root);
	while (len > 0 && root[len - 1] == '/')
		root[--len] = '\0';
	if (len == 0)
		return err_set(err, ERR_INVALID_ARGUMENT, "root must not be '/'");
	return 0;
}

static int parse_mode(const char *text, mode_t *ret_mode, struct err *err)
{
	size_t len = strlen(text);

	if (len == 0 || len > 4 || strspn(text, "01234567") != len || strtoul(text, NULL, 8) > 0777)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "socket_mode '%s' is no octal number up to 0777", text);
	*ret_mode = (mode_t)strtoul(text, NULL, 8);
	return 0;
}

static int find_group(const char *name, gid_t *ret_gid, struct err *err)
{
	struct group group, *found = NULL;
	int r = ERANGE;

	for (size_t size = 1024; r == ERANGE && size <= GROUP_MAX_BYTES; size *= 4) {
		CLEANUP(free_ptr) char *buf = malloc(size);

		if (!buf)
			return no_memory(err);
		r = getgrnam_r(name, &group, buf, size, &found);
		if (r == 0 && found)
			*ret_gid = group.gr_gid;
	}
	if (!found)
		return err_set(err, ERR_INVALID_ARGUMENT, "socket_group '%s' is unknown%s%s", name,
			       r ? ": " : "", r ? strerror(r) : "");
	return 0;
}

static int parse_group(const char *text, gid_t *ret_gid, struct err *err)
{
	char *end;
	unsigned long n;

	if (!*text) {
		*ret_gid = (gid_t)-1;
		return 0;
	}
	if (*text < '0' || *text > '9')
		return find_group(text, ret_gid, err);
	errno = 0;
	n = strtoul(text, &end, 10);
	/* The highest value means "leave as it is" to chown(2). */
	if (errno || *end || n >= (gid_t)-1)
		return err_set(err, ERR_INVALID_ARGUMENT, "socket_group '%s' is no group", text);
	*ret_gid = (gid_t)n;
	return 0;
}

static int check_values(struct run_options *options, struct err *err)
{
	const struct run_conf *conf = &options->conf;

	if (check_root(conf->root, err) < 0 || listen_check_path(conf->address, err) < 0 ||
	    parse_mode(conf->socket_mode, &options->socket_mode, err) < 0 ||
	    parse_group(conf->socket_group, &options->socket_gid, err) < 0 ||
	    log_level_parse(conf->log_level, &options->log_level, err) < 0 ||
	    log_format_parse(conf->log_format, &options->log_format, err) < 0)
		return -1;
	if (!options->program->check)
		return 0;
	return options->program->check(options->program, conf->root, options->program_conf, err);
}

int run_options_read(struct run_options *options, const struct run_program *program, int argc,
		     char **argv, int *ret_status, struct err *err)
{
	CLEANUP(command_done) struct command command = {0};

	*options = (struct run_options){0};
	options->program = program;
	if (init_rows(options, program, err) < 0 ||
	    parse_command(options, &command, argc, argv, err) < 0)
		return -1;
	if (command.help || command.version || command.print_config) {
		if (command.help && options->command)
			print_command_help(options);
		else if (command.help)
			print_help(options);
		else if (command.version)
			printf("%s %s\n", options->name, LIGHTER_VERSION);
		else
			print_example(options);
		*ret_status = fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
		return 1;
	}
	if (set_own_values(options, &command, err) < 0 || load_values(options, &command, err) < 0 ||
	    check_values(options, err) < 0)
		return -1;
	if (command.print_registration) {
		print_registration(options);
		*ret_status = fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
		return 1;
	}
	/* The daemon's own look comes once it may change something; another user's would say nothing. */
	if (command.check && geteuid() == 0 && run_check_root(options->conf.root, err) < 0)
		return -1;
	*ret_status = EXIT_SUCCESS;
	return command.check ? 1 : 0;
}

int run_options_refuse(const struct run_options *options, bool usage, const struct err *err)
{
	const char *command = options->command ? options->command->name : "";
	const char *space = options->command ? " " : "";

	fprintf(stderr, "%s%s%s: %s\n", options->name, space, command, err->msg);
	if (!usage)
		return EXIT_FAILURE;
	fprintf(stderr, "Try '%s%s%s --help'.\n", options->name, space, command);
	return RUN_EXIT_USAGE;
}

void run_options_done(struct run_options *options)
{
	/* init_rows() may have failed before there were tables. */
	if (options->program_conf && options->tables[1].options)
		conf_done(options->tables, ARRAY_LEN(options->tables));
	free(options->program_conf);
	if (options->command)
		conf_done(&options->command_table, 1);
	free(options->command_table.target);
	free(options->arguments);
	*options = (struct run_options){0};
}
