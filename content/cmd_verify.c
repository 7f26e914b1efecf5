/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/ioprio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ctx.h"
#include "base/size.h"
#include "content/commands.h"
#include "content/quarantine.h"
#include "content/report.h"
#include "content/verify.h"

#define LINE_BYTES     2048
#define DIGESTS_MAX    1000
#define NS_PER_S       INT64_C(1000000000)
/* A commit that takes longer than this between its file and its row has other worries. */
#define SETTLED_NS     (600 * NS_PER_S)
/* What a kill -9 costs. */
#define SAVE_NS        (10 * NS_PER_S)
/* "2026-11-23 09:30:00 UTC" and NUL */
#define TIME_TEXT_SIZE 64

struct verify_conf {
	char *rate;
	bool restart;
	bool quarantine;
	bool status;
	bool json;
};

static const struct conf_option verify_options[] = {
	{.name = "rate",
	 .type = CONF_TYPE_STRING,
	 .offset = offsetof(struct verify_conf, rate),
	 .initial = "\"100M\"",
	 .metavar = "RATE",
	 .help = "bytes a second, as 50M or 1G, or unlimited (100M)"},
	CONF_BOOL(struct verify_conf, restart, "false",
		  "begin anew, rather than go on where the last run stopped"),
	CONF_BOOL(struct verify_conf, quarantine, "false",
		  "take what is damaged out of the store; its bytes are kept"),
	CONF_BOOL(struct verify_conf, status, "false",
		  "say how far it has come, and when it was last done; verify nothing"),
	CONF_BOOL(struct verify_conf, json, "false", "print JSON, an object a line"),
	CONF_END,
};

/** struct command - the verification under way; @digests: @n_digests chosen ones, or none: all */
struct command {
	const struct verify_conf *conf;
	struct report report;
	struct progress progress;
	struct verify_options options;
	struct quarantine quarantine;
	int root_fd, state_dir_fd, lock_fd;
	char *db_path;
	struct blob_rows *rows;
	struct digest *digests;
	size_t n_digests;
	struct verify_state state;
	struct verify_pass chosen;
	uint64_t n_quarantined;
};

/* --- what is said ---------------------------------------------------------------------------------- */

static void tell_found(void *arg, enum verify_kind kind, const struct digest *digest,
		       const char *why)
{
	struct command *command = arg;
	char human[LINE_BYTES], text[DIGEST_TEXT_BYTES];

	digest_format(digest, text);
	snprintf(human, sizeof(human), "%s: %s: %s", verify_kind_name(kind), text, why);
	report_event(&command->report, verify_kind_name(kind), human, LOG_STR("digest", text),
		     LOG_STR("why", why));
}

static void tell_stray(void *arg, const char *name, const char *why)
{
	struct command *command = arg;
	char human[LINE_BYTES];

	snprintf(human, sizeof(human), "note: blobs/%s: %s", name, why);
	report_event(&command->report, "stray", human, LOG_STR("file", name), LOG_STR("why", why));
}

static int put_aside(void *arg, const struct blob_info *info, int fd, struct err *ret_err)
{
	struct command *command = arg;
	char human[LINE_BYTES], text[DIGEST_TEXT_BYTES];
	struct err err = ERR_INIT;
	int r = quarantine_blob(&command->quarantine, info, fd, &err);

	digest_format(&info->digest, text);
	if (r < 0) {
		snprintf(human, sizeof(human), "not quarantined: %s: %s", text, err.msg);
		report_event(&command->report, "not-quarantined", human, LOG_STR("digest", text),
			     LOG_STR("why", err.msg));
		if (command->rows)
			return 0;
		*ret_err = err;
		return -1;
	}
	if (r > 0) {
		snprintf(human, sizeof(human), "not quarantined: %s: it was pulled anew", text);
		report_event(&command->report, "not-quarantined", human, LOG_STR("digest", text),
			     LOG_STR("why", "it was pulled anew"));
		return 0;
	}
	command->n_quarantined++;
	if (fd < 0) {
		snprintf(human, sizeof(human),
			 "forgotten: %s: there was no file whose bytes could be kept", text);
		report_event(&command->report, "forgotten", human, LOG_STR("digest", text));
		return 0;
	}
	snprintf(human, sizeof(human), "quarantined: %s", text);
	report_event(&command->report, "quarantined", human, LOG_STR("digest", text));
	return 0;
}

static const char *format_time(int64_t ns, char buf[TIME_TEXT_SIZE])
{
	time_t seconds = (time_t)(ns / NS_PER_S);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(buf, TIME_TEXT_SIZE, "%Y-%m-%d %H:%M:%S UTC", &tm);
	return buf;
}

/* "20000 blobs, 3.4 GiB, 2 bad" */
static const char *format_pass(const struct verify_pass *pass, char buf[LINE_BYTES])
{
	char size[SIZE_TEXT_BYTES];
	int n = snprintf(buf, LINE_BYTES, "%" PRIu64 " blob%s, %s, ", pass->n_blobs,
			 report_plural(pass->n_blobs), size_format(pass->bytes, size));

	if (pass->n_problems)
		snprintf(buf + n, LINE_BYTES - (size_t)n, "%" PRIu64 " bad", pass->n_problems);
	else
		snprintf(buf + n, LINE_BYTES - (size_t)n, "all good");
	return buf;
}

static void tell_pass(struct command *command, const char *event, const char *human,
		      const struct verify_pass *pass)
{
	report_event(&command->report, event, human, LOG_INT("blobs", (int64_t)pass->n_blobs),
		     LOG_INT("bytes", (int64_t)pass->bytes),
		     LOG_INT("bad", (int64_t)pass->n_problems),
		     LOG_INT("quarantined", (int64_t)command->n_quarantined),
		     LOG_INT("begun", pass->begun_ns / NS_PER_S),
		     LOG_INT("ended", pass->ended_ns / NS_PER_S));
}

static void tell_summary(struct command *command, const struct verify_pass *pass)
{
	char human[LINE_BYTES + 64], text[LINE_BYTES];

	snprintf(human, sizeof(human), "verified %s%s", format_pass(pass, text),
		 command->n_quarantined ? "; what was taken out can be fetched again, see "
					  "lighter-content(8)"
					: "");
	tell_pass(command, "summary", human, pass);
}

static void tell_last(struct command *command)
{
	const struct verify_pass *last = &command->state.last;
	char human[LINE_BYTES + 128], text[LINE_BYTES], time_text[TIME_TEXT_SIZE];

	if (!last->ended_ns) {
		tell_pass(command, "last", "no verification has come to its end yet", last);
		return;
	}
	snprintf(human, sizeof(human), "last complete verification: ended %s: %s",
		 format_time(last->ended_ns, time_text), format_pass(last, text));
	tell_pass(command, "last", human, last);
}

/* What an earlier run of the pass under way has found. */
static void tell_resumed(struct command *command)
{
	const struct verify_state *state = &command->state;
	char human[LINE_BYTES + 128], text[LINE_BYTES], time_text[TIME_TEXT_SIZE];

	if (!state->now.begun_ns)
		return;
	snprintf(human, sizeof(human), "begun %s, and stopped after %s",
		 format_time(state->now.begun_ns, time_text), format_pass(&state->now, text));
	tell_pass(command, "resumed", human, &state->now);
	for (size_t i = 0; i < state->now.n_problems && i < VERIFY_PROBLEMS_MAX; i++)
		tell_found(command, state->problems[i].kind, &state->problems[i].digest,
			   "found before it stopped");
}

/* --- what is done ---------------------------------------------------------------------------------- */

static int ensure_digests(struct command *command, const struct run_command_call *call,
			  struct err *err)
{
	command->digests = calloc(call->n_arguments + 1, sizeof(*command->digests));
	if (!command->digests)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the digests");
	for (size_t i = 0; i < call->n_arguments; i++)
		if (digest_parse(call->arguments[i], &command->digests[command->n_digests++], err) <
		    0)
			return -1;
	return 0;
}

static int parse_rate(const char *text, uint64_t *ret_rate, struct err *err)
{
	uint64_t rate = 0;

	if (strcmp(text, "unlimited") != 0) {
		if (size_parse(text, &rate, err) < 0)
			return err_wrap(err, "rate");
		if (rate == 0)
			return err_set(err, ERR_INVALID_ARGUMENT, "rate '%s' would never end",
				       text);
	}
	*ret_rate = rate;
	return 0;
}

static int check_usage(struct command *command, const struct run_command_call *call,
		       struct err *err)
{
	const struct verify_conf *conf = command->conf;

	if (parse_rate(conf->rate, &command->options.pace.bytes_per_s, err) < 0)
		return -1;
	if (conf->status && (conf->restart || conf->quarantine || call->n_arguments))
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "--status verifies nothing, and goes with --json alone");
	if (conf->restart && call->n_arguments)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "--restart is about all blobs, not about chosen ones");
	return ensure_digests(command, call, err);
}

/* One that is not there does not come by itself. Return: @result. */
static int no_store(int result, struct err *err)
{
	if (err->sys_errno == ENOENT || err->sys_errno == ENOTDIR)
		err->code = ERR_FAILED_PRECONDITION;
	return result;
}

static int open_store(struct command *command, const struct run_command_call *call, struct err *err)
{
	command->root_fd = open(call->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (command->root_fd < 0)
		return no_store(err_sys(err, "open root '%s'", call->root), err);
	if (asprintf(&command->db_path, "%s/metadata.db", call->root) < 0) {
		command->db_path = NULL;
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a path");
	}
	if (access(command->db_path, F_OK) < 0)
		return no_store(err_sys(err, "there is no store in '%s'", call->root), err);
	if (blob_rows_open_to_read(command->db_path, &command->rows, err) < 0)
		return -1;
	command->quarantine =
		(struct quarantine){call, command->root_fd, command->db_path, &command->rows};
	return 0;
}

/*
 * Others first: nobody waits for this. But not only when there are none: while a read of the database is under way, the
 * daemon's log cannot start anew. That it does not work is no reason not to verify.
 */
static void stand_back(void)
{
	(void)setpriority(PRIO_PROCESS, 0, 19);
	(void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7));
}

static int verify_chosen(void *arg, struct err *err)
{
	struct command *command = arg;

	return verify_some(command->root_fd, &command->rows, &command->options, command->digests,
			   command->n_digests, &command->chosen, err);
}

static int verify_everything(void *arg, struct err *err)
{
	struct command *command = arg;

	return verify_all(command->root_fd, &command->rows, &command->options,
			  command->state_dir_fd, &command->state, err);
}

/* What cannot be read any more is begun anew, and says nothing about the blobs. */
static int load_state(struct command *command, struct err *err)
{
	int r = verify_state_load(command->state_dir_fd, &command->state, err);

	if (r < 0 && err->code != ERR_DATA_LOSS)
		return -1;
	if (r < 0)
		log_event(LOG_WARN, "how far it had come is not known: it begins anew",
			  LOG_ERR(err));
	return 0;
}

static int begin_all(struct command *command, struct err *err)
{
	if (verify_state_lock(command->root_fd, &command->state_dir_fd, &command->lock_fd, err) <
		    0 ||
	    load_state(command, err) < 0)
		return -1;
	if (command->conf->restart) {
		command->state.now = (struct verify_pass){0};
		command->state.has_after = false;
	}
	tell_resumed(command);
	return 0;
}

/* Without the lock: whoever verifies replaces the file as a whole. */
static int tell_status(struct command *command, struct err *err)
{
	struct verify_state *state = &command->state;
	int r;

	command->state_dir_fd =
		openat(command->root_fd, "verify", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (command->state_dir_fd < 0 && errno != ENOENT)
		return err_sys(err, "open 'verify'");
	r = command->state_dir_fd < 0 ? 1 : verify_state_load(command->state_dir_fd, state, err);
	if (r < 0)
		return -1;
	tell_resumed(command);
	tell_last(command);
	return 0;
}

static int status_of(const struct verify_pass *pass)
{
	return pass->n_problems ? COMMAND_EXIT_FINDINGS : EXIT_SUCCESS;
}

static int run(struct command *command, int *ret_status, struct err *err)
{
	bool all = command->n_digests == 0;
	int signum = 0, r;

	if (all && begin_all(command, err) < 0)
		return -1;
	stand_back();
	r = progress_run(&command->progress, all ? verify_everything : verify_chosen, command,
			 &signum, err);
	if (r < 0 && signum && err->code == ERR_CANCELLED) {
		fprintf(stderr, "stopped by SIG%s%s\n", sigabbrev_np(signum),
			all ? "; the next run goes on here" : "");
		*ret_status = COMMAND_EXIT_SIGNAL + signum;
		return 0;
	}
	if (r < 0)
		return -1;
	tell_summary(command, all ? &command->state.last : &command->chosen);
	*ret_status = status_of(all ? &command->state.last : &command->chosen);
	return 0;
}

static int verify_main(const struct run_command_call *call, int *ret_status, struct err *err)
{
	struct command *command = calloc(1, sizeof(*command));
	int r;

	if (!command)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory to verify");
	command->conf = call->conf;
	command->report =
		(struct report){.json = command->conf->json, .progress = &command->progress};
	command->options = (struct verify_options){
		.progress = &command->progress,
		.found = tell_found,
		.put_aside = command->conf->quarantine ? put_aside : NULL,
		.stray = tell_stray,
		.arg = command,
		.settled_ns = SETTLED_NS,
		.save_ns = SAVE_NS,
	};
	command->root_fd = command->state_dir_fd = command->lock_fd = -1;
	progress_init(&command->progress, "verifying", "blobs");
	*ret_status = EXIT_SUCCESS;
	r = check_usage(command, call, err);
	if (r == 0) {
		r = open_store(command, call, err);
		if (r == 0)
			r = command->conf->status ? tell_status(command, err)
						  : run(command, ret_status, err);
	}
	blob_rows_close(command->rows);
	close_fd(&command->lock_fd);
	close_fd(&command->state_dir_fd);
	close_fd(&command->root_fd);
	progress_done(&command->progress);
	free(command->digests);
	free(command->db_path);
	free(command);
	return r;
}

const struct run_command verify_command = {
	.name = "verify",
	.arguments = "[DIGEST]...",
	.summary = "Read all blobs again, or those given, and compare them with their digests.",
	.notes =
		"\nIt works beside the daemon as well as without it, with low priority. Stopped in "
		"whatever way,\nit goes on when it is run again, and begins with the blob that it "
		"was reading.\n\n"
		"Exit status: 0 all good (with --status: said so, whatever it is); 1 failed, or a "
		"DIGEST is not\nfound; 2 wrong usage, or something must be mended first; 3 "
		"something is bad, also if it was put\ninto quarantine; 128 + N stopped by signal "
		"N.\n",
	.max_arguments = DIGESTS_MAX,
	.options = verify_options,
	.conf_size = sizeof(struct verify_conf),
	.run = verify_main,
};
