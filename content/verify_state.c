/* SPDX-License-Identifier: Apache-2.0 */
#include "content/verify_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/str.h"

#define DIR_NAME   "verify"
#define STATE_NAME "state"
#define LOCK_NAME  "lock"
/* fs_write_file()'s, left behind by a kill. */
#define TEMP_START ".tmp-"
#define FIRST_LINE "lighter-content verify 1\n"
#define CAP_BYTES  ((size_t)256 << 10)

static const char *const kind_names[] = {"damaged", "size", "missing", "unreadable"};

const char *verify_kind_name(enum verify_kind kind)
{
	return kind_names[kind];
}

void verify_state_add(struct verify_state *state, enum verify_kind kind,
		      const struct digest *digest)
{
	if (state->now.n_problems < VERIFY_PROBLEMS_MAX)
		state->problems[state->now.n_problems] = (struct verify_problem){kind, *digest};
	state->now.n_problems++;
}

/* --- the directory --------------------------------------------------------------------------------- */

static int remove_temp(void *arg, const char *name, unsigned char type, struct err *err)
{
	int dir_fd = *(int *)arg;

	(void)type;
	if (strncmp(name, TEMP_START, strlen(TEMP_START)) == 0 && unlinkat(dir_fd, name, 0) < 0)
		return err_sys(err, "delete '" DIR_NAME "/%s'", name);
	return 0;
}

static int take_lock(int dir_fd, int *ret_lock_fd, struct err *err)
{
	CLEANUP(close_fd)
	int fd = openat(dir_fd, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(err, "open '" DIR_NAME "/" LOCK_NAME "'");
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return err_sys(err, "lock '" DIR_NAME "/" LOCK_NAME "'");
		return err_set(err, ERR_UNAVAILABLE, "another process verifies this store");
	}
	*ret_lock_fd = take_fd(&fd);
	return 0;
}

int verify_state_lock(int root_fd, int *ret_dir_fd, int *ret_lock_fd, struct err *err)
{
	CLEANUP(close_fd) int dir_fd = -1;
	CLEANUP(close_fd) int lock_fd = -1;

	if (mkdirat(root_fd, DIR_NAME, 0700) < 0 && errno != EEXIST)
		return err_sys(err, "make directory '" DIR_NAME "'");
	if (fs_open_dir(root_fd, DIR_NAME, &dir_fd, err) < 0 ||
	    take_lock(dir_fd, &lock_fd, err) < 0 ||
	    fs_each_entry(dir_fd, ".", remove_temp, &dir_fd, err) < 0)
		return -1;
	*ret_dir_fd = take_fd(&dir_fd);
	*ret_lock_fd = take_fd(&lock_fd);
	return 0;
}

/* --- text ------------------------------------------------------------------------------------------ */

static void add_pass(struct str *text, const char *name, const struct verify_pass *pass)
{
	str_printf(text, "%s %" PRId64 " %" PRId64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", name,
		   pass->begun_ns, pass->ended_ns, pass->n_blobs, pass->bytes, pass->n_problems);
}

int verify_state_save(int dir_fd, const struct verify_state *state, struct err *err)
{
	char digest[DIGEST_TEXT_BYTES];
	struct str text;
	int r;

	str_init(&text, CAP_BYTES);
	str_add(&text, FIRST_LINE);
	add_pass(&text, "last", &state->last);
	add_pass(&text, "now", &state->now);
	if (state->has_after)
		str_printf(&text, "after %s\n", digest_format(&state->after, digest));
	for (size_t i = 0; i < VERIFY_PROBLEMS_MAX && i < state->now.n_problems; i++)
		str_printf(&text, "problem %s %s\n", kind_names[state->problems[i].kind],
			   digest_format(&state->problems[i].digest, digest));
	if (text.failed)
		r = err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the state");
	else
		r = fs_write_file(dir_fd, STATE_NAME, 0600, text.text, text.len, err);
	str_done(&text);
	return r;
}

static int parse_pass(const char *line, const char *name, struct verify_pass *ret_pass)
{
	struct verify_pass pass = {0};
	size_t len = strlen(name);
	int end = 0;

	if (strncmp(line, name, len) != 0 ||
	    sscanf(line + len, " %" SCNd64 " %" SCNd64 " %" SCNu64 " %" SCNu64 " %" SCNu64 "%n",
		   &pass.begun_ns, &pass.ended_ns, &pass.n_blobs, &pass.bytes, &pass.n_problems,
		   &end) != 5 ||
	    line[len + (size_t)end])
		return -1;
	*ret_pass = pass;
	return 0;
}

static int parse_problem(const char *text, struct verify_problem *ret_problem)
{
	struct err ignored;

	for (size_t i = 0; i < ARRAY_LEN(kind_names); i++) {
		size_t len = strlen(kind_names[i]);

		if (strncmp(text, kind_names[i], len) != 0 || text[len] != ' ')
			continue;
		ret_problem->kind = (enum verify_kind)i;
		return digest_parse(text + len + 1, &ret_problem->digest, &ignored);
	}
	return -1;
}

/* Return: 0, or -1 when @line is none of ours. */
static int parse_line(const char *line, struct verify_state *state, size_t *n_problems)
{
	struct err ignored;

	if (strncmp(line, "last ", 5) == 0)
		return parse_pass(line, "last", &state->last);
	if (strncmp(line, "now ", 4) == 0)
		return parse_pass(line, "now", &state->now);
	if (strncmp(line, "after ", 6) == 0) {
		state->has_after = true;
		return digest_parse(line + 6, &state->after, &ignored);
	}
	if (strncmp(line, "problem ", 8) == 0 && *n_problems < VERIFY_PROBLEMS_MAX)
		return parse_problem(line + 8, &state->problems[(*n_problems)++]);
	return -1;
}

/* @text is written to. */
static int parse(char *text, struct verify_state *state)
{
	size_t n_problems = 0, n_expected;
	char *line, *rest = text + strlen(FIRST_LINE);

	if (strncmp(text, FIRST_LINE, strlen(FIRST_LINE)) != 0)
		return -1;
	while ((line = strsep(&rest, "\n")) && rest)
		if (parse_line(line, state, &n_problems) < 0)
			return -1;
	n_expected = state->now.n_problems < VERIFY_PROBLEMS_MAX ? state->now.n_problems
								 : VERIFY_PROBLEMS_MAX;
	/* Nothing follows the last line's end. */
	return n_problems == n_expected && line && *line == '\0' ? 0 : -1;
}

int verify_state_load(int dir_fd, struct verify_state *ret_state, struct err *err)
{
	CLEANUP(free_ptr) char *text = NULL;
	size_t size;

	*ret_state = (struct verify_state){0};
	if (faccessat(dir_fd, STATE_NAME, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 1 : err_sys(err, "look for '" DIR_NAME "/" STATE_NAME "'");
	if (fs_read_file(dir_fd, STATE_NAME, CAP_BYTES, &text, &size, err) < 0)
		return -1;
	if (strlen(text) == size && parse(text, ret_state) == 0)
		return 0;
	*ret_state = (struct verify_state){0};
	return err_set(err, ERR_DATA_LOSS, "'" DIR_NAME "/" STATE_NAME "' is damaged");
}
