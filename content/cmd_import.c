/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "base/str.h"
#include "content/commands.h"
#include "content/import.h"
#include "content/local.h"
#include "content/report.h"

/* What is said to people, and a message of an error in it. */
#define LINE_BYTES 2048

struct import_conf {
	char *mode;
	int64_t jobs;
	bool dry_run;
	bool json;
};

static const struct conf_option import_options[] = {
	CONF_BOOL(struct import_conf, dry_run, "false",
		  "only say what there is to do; nothing is read or written"),
	{.name = "mode",
	 .type = CONF_TYPE_STRING,
	 .offset = offsetof(struct import_conf, mode),
	 .initial = "\"auto\"",
	 .choices = "auto|reflink|link|copy",
	 .metavar = "MODE",
	 .help = "auto (the first that works), reflink, link or copy"},
	{.name = "jobs",
	 .type = CONF_TYPE_INT,
	 .offset = offsetof(struct import_conf, jobs),
	 .initial = "8",
	 .min = 1,
	 .max = IMPORT_THREADS_MAX,
	 .metavar = "N",
	 .help = "files read at a time (8)"},
	CONF_BOOL(struct import_conf, json, "false", "print JSON, an object a line"),
	CONF_END,
};

/** struct command - the import under way */
struct command {
	const struct run_command_call *call;
	const struct import_conf *conf;
	struct report report;
	struct progress progress;
	struct import_options options;
	struct source source;
	struct local *store; /* NULL: a dry run */
	struct blob_rows *rows;
	struct import_survey survey;
	struct import_counts counts;
};

static void tell_refused(void *arg, const char *name, const char *why)
{
	struct command *command = arg;
	char human[LINE_BYTES];

	snprintf(human, sizeof(human), "left: %s: %s", name, why);
	report_event(&command->report, "refused", human, LOG_STR("file", name),
		     LOG_STR("why", why));
}

static void tell_ingests(struct command *command)
{
	char human[LINE_BYTES];

	if (command->source.n_ingests == 0)
		return;
	snprintf(human, sizeof(human),
		 "%" PRIu64 " ingest%s in progress %s not taken: what was being pulled there is "
		 "pulled anew",
		 command->source.n_ingests, report_plural(command->source.n_ingests),
		 command->source.n_ingests == 1 ? "is" : "are");
	report_event(&command->report, "ingests", human,
		     LOG_INT("ingests", (int64_t)command->source.n_ingests));
}

/* --- a dry run ------------------------------------------------------------------------------------- */

/* Of the root, or of what is there of the way to it. */
static int stat_root(const char *root, struct stat *ret_stat, struct statvfs *ret_fs,
		     struct err *err)
{
	CLEANUP(free_ptr) char *path = strdup(root);
	char *slash;

	if (!path)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory");
	while (stat(path, ret_stat) < 0 || statvfs(path, ret_fs) < 0) {
		slash = strrchr(path, '/');
		if (errno != ENOENT || !slash || strcmp(path, "/") == 0)
			return err_sys(err, "look at '%s'", path);
		slash[slash == path] = '\0';
	}
	return 0;
}

static int open_rows(struct command *command, struct err *err)
{
	CLEANUP(free_ptr) char *path = NULL;

	if (asprintf(&path, "%s/metadata.db", command->call->root) < 0) {
		path = NULL;
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a path");
	}
	if (access(path, F_OK) < 0)
		return errno == ENOENT ? 0 : err_sys(err, "look for '%s'", path);
	return blob_rows_open_to_read(path, &command->rows, err);
}

static int look(void *arg, struct err *err)
{
	struct command *command = arg;

	return import_survey(command->rows, &command->source, &command->options, &command->survey,
			     err);
}

static int tell_survey(struct command *command, struct err *err)
{
	const struct import_survey *survey = &command->survey;
	char human[LINE_BYTES], size[SIZE_TEXT_BYTES], room[SIZE_TEXT_BYTES];
	struct stat ours, theirs;
	struct statvfs fs;
	uint64_t free_bytes;
	bool copies;
	int len;

	if (stat_root(command->call->root, &ours, &fs, err) < 0)
		return -1;
	if (fstat(command->source.blobs_fd, &theirs) < 0)
		return err_sys(err, "look at 'blobs'");
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	copies = command->options.mode == TAKE_COPY || ours.st_dev != theirs.st_dev;
	tell_ingests(command);
	len = snprintf(human, sizeof(human), "nothing to import");
	if (survey->n_new)
		len = snprintf(human, sizeof(human),
			       "would import %" PRIu64 " blob%s, %s, %s (%s free)", survey->n_new,
			       report_plural(survey->n_new), size_format(survey->new_bytes, size),
			       copies ? "by copying"
				      : "on the same file system, so that only what can be "
					"neither reflinked nor hard-linked takes room",
			       size_format(free_bytes, room));
	len += snprintf(human + len, sizeof(human) - (size_t)len,
			"; %" PRIu64 " %s here already; %" PRIu64 " would be left",
			survey->n_present, survey->n_present == 1 ? "is" : "are",
			survey->n_refused);
	/* What the database and directories take comes to it. */
	if (copies && survey->new_bytes >= free_bytes)
		snprintf(human + len, sizeof(human) - (size_t)len,
			 "; warning: there is too little room for that");
	report_event(&command->report, "survey", human, LOG_INT("new", (int64_t)survey->n_new),
		     LOG_INT("new_bytes", (int64_t)survey->new_bytes),
		     LOG_INT("present", (int64_t)survey->n_present),
		     LOG_INT("present_bytes", (int64_t)survey->present_bytes),
		     LOG_INT("refused", (int64_t)survey->n_refused),
		     LOG_STR("how", copies ? "copy" : "same file system"),
		     LOG_INT("free_bytes", (int64_t)free_bytes));
	return 0;
}

static int run_dry(struct command *command, int *ret_signum, struct err *err)
{
	if (open_rows(command, err) < 0 ||
	    progress_run(&command->progress, look, command, ret_signum, err) < 0)
		return -1;
	return tell_survey(command, err);
}

/* --- a real one ------------------------------------------------------------------------------------ */

static int work(void *arg, struct err *err)
{
	struct command *command = arg;
	/* For the sum alone; what is refused is told of once. */
	struct import_options quiet = command->options;
	struct import_survey all;

	quiet.refused = NULL;
	if (import_survey(NULL, &command->source, &quiet, &all, err) < 0)
		return -1;
	command->progress.total_items = all.n_new;
	command->progress.total_bytes = all.new_bytes;
	return import_run(command->store, &command->source, &command->options, &command->counts,
			  err);
}

/* " (3 by reflink, 2 copied)"; nothing where nothing was taken. */
static const char *format_ways(const uint64_t *n, char buf[LINE_BYTES])
{
	static const char *const ways[] = {[TAKE_REFLINK] = "by reflink",
					   [TAKE_LINK] = "by hard link",
					   [TAKE_COPY] = "copied"};
	size_t len = 0;

	buf[0] = '\0';
	for (size_t i = TAKE_REFLINK; i <= TAKE_COPY; i++)
		if (n[i])
			len += (size_t)snprintf(buf + len, LINE_BYTES - len, "%s%" PRIu64 " %s",
						len ? ", " : " (", n[i], ways[i]);
	if (len)
		snprintf(buf + len, LINE_BYTES - len, ")");
	return buf;
}

static void tell_counts(struct command *command)
{
	const struct import_counts *counts = &command->counts;
	const uint64_t *n = counts->n_taken;
	uint64_t n_all = n[TAKE_REFLINK] + n[TAKE_LINK] + n[TAKE_COPY], bytes = 0;
	char human[2 * LINE_BYTES], size[SIZE_TEXT_BYTES], ways[LINE_BYTES];

	for (size_t i = 0; i < ARRAY_LEN(counts->taken_bytes); i++)
		bytes += counts->taken_bytes[i];
	snprintf(human, sizeof(human),
		 "imported %" PRIu64 " blob%s, %s%s; %" PRIu64 " %s here already; %" PRIu64
		 " %s left",
		 n_all, report_plural(n_all), size_format(bytes, size), format_ways(n, ways),
		 counts->n_present, counts->n_present == 1 ? "was" : "were", counts->n_refused,
		 counts->n_refused == 1 ? "was" : "were");
	report_event(&command->report, "summary", human, LOG_INT("imported", (int64_t)n_all),
		     LOG_INT("imported_bytes", (int64_t)bytes),
		     LOG_INT("reflinks", (int64_t)n[TAKE_REFLINK]),
		     LOG_INT("links", (int64_t)n[TAKE_LINK]),
		     LOG_INT("copies", (int64_t)n[TAKE_COPY]),
		     LOG_INT("present", (int64_t)counts->n_present),
		     LOG_INT("refused", (int64_t)counts->n_refused));
}

static int run_on_root(struct command *command, int *ret_signum, struct err *err)
{
	const struct content_store_ops *ops = &local_content_ops;
	void *store;
	int r;

	if (ops->open(command->call->root, command->call->program_conf, &store, err) < 0)
		return -1;
	command->store = store;
	tell_ingests(command);
	r = progress_run(&command->progress, work, command, ret_signum, err);
	ops->close(store);
	/* What was taken stays, whatever ended it. */
	tell_counts(command);
	if (r < 0 && err->code == ERR_RESOURCE_EXHAUSTED && err->sys_errno == ENOSPC)
		(void)err_wrap(err,
			       "no room; what was imported stays: make room, and import again");
	return r;
}

static int run_real(struct command *command, int *ret_signum, struct err *err)
{
	struct run_root root = RUN_ROOT_INIT;
	int r;

	if (run_root_take(command->call, &root, err) < 0) {
		if (err->code == ERR_UNAVAILABLE)
			(void)err_wrap(err, "stop the daemon first, as by 'systemctl stop "
					    "lighter-content.socket lighter-content.service'");
		return -1;
	}
	r = run_on_root(command, ret_signum, err);
	run_root_done(&root);
	return r;
}

static int run_command(struct command *command, int *ret_status, struct err *err)
{
	int signum = 0, r;

	if (source_open(command->call->arguments[0], &command->source, err) < 0)
		return -1;
	r = command->conf->dry_run ? run_dry(command, &signum, err)
				   : run_real(command, &signum, err);
	if (signum && (r == 0 || err->code == ERR_CANCELLED)) {
		fprintf(stderr, "stopped by SIG%s; import again to go on\n", sigabbrev_np(signum));
		*ret_status = COMMAND_EXIT_SIGNAL + signum;
		return 0;
	}
	if (r < 0)
		return -1;
	*ret_status = command->counts.n_refused || command->survey.n_refused ? COMMAND_EXIT_FINDINGS
									     : EXIT_SUCCESS;
	return 0;
}

static int import_main(const struct run_command_call *call, int *ret_status, struct err *err)
{
	struct command command = {
		.call = call,
		.conf = call->conf,
		.report = {.json = ((const struct import_conf *)call->conf)->json,
			   .progress = &command.progress},
		.options = {.n_threads =
				    (unsigned int)((const struct import_conf *)call->conf)->jobs,
			    .refused = tell_refused,
			    .refused_arg = &command,
			    .progress = &command.progress},
		.source = SOURCE_INIT,
	};
	int r;

	if (take_mode_parse(command.conf->mode, &command.options.mode) < 0)
		return err_set(err, ERR_INVALID_ARGUMENT, "mode '%s' is unknown",
			       command.conf->mode);
	progress_init(&command.progress, "importing", "blobs");
	r = run_command(&command, ret_status, err);
	blob_rows_close(command.rows);
	source_close(&command.source);
	progress_done(&command.progress);
	return r;
}

const struct run_command import_command = {
	.name = "import",
	.arguments = "DIR",
	.summary = "Take over the blobs of DIR, a content directory or root of containerd.",
	.notes = "\nEach blob is hashed, and durable before it counts. What is here already is "
		 "passed over,\nso that an import which was cut off is simply made again. The "
		 "daemon must not run meanwhile;\nthe containerd that uses DIR may.\n\n"
		 "Exit status: 0 all is here; 1 failed; 2 wrong usage, no such DIR, or something "
		 "must be mended\nfirst; 3 some files were left, being damaged or no blobs; 128 + "
		 "N stopped by signal N.\n",
	.min_arguments = 1,
	.max_arguments = 1,
	.options = import_options,
	.conf_size = sizeof(struct import_conf),
	.run = import_main,
};
