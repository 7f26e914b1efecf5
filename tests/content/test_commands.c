/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lighter-content import and verify, from outside: what they print, how they exit, and how they get on with the daemon.
 * Argument: path of lighter-content.
 */
#include "tests/support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/fs.h"
#include "tests/content/blobs.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"

#define ARGS_MAX 16

static const char *program_path;

/**
 * struct fixture - below @dir: the store in root/, src/ to import from, and the daemon's socket
 * @output: of the command, both stdout and stderr
 * @daemon: its process; -1: none runs
 * @crash_point: where the next command dies, or NULL
 */
struct fixture {
	struct temp_root *dir;
	char *address, *output;
	char root_arg[300], address_arg[300], source[300];
	pid_t daemon, command;
	int wait_status;
	const char *crash_point;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->dir = temp_root_new();
	f->address = temp_root_path(f->dir, "s");
	f->output = temp_root_path(f->dir, "output");
	snprintf(f->root_arg, sizeof(f->root_arg), "--root=%s/root", f->dir->path);
	snprintf(f->address_arg, sizeof(f->address_arg), "--address=%s", f->address);
	snprintf(f->source, sizeof(f->source), "%s/src", f->dir->path);
	blobs_make_dir(f->dir->fd, "src");
	f->daemon = f->command = -1;
	*state = f;
	return 0;
}

static void end(pid_t *pid)
{
	if (*pid > 0) {
		kill(*pid, SIGKILL);
		waitpid(*pid, NULL, 0);
	}
	*pid = -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	end(&f->command);
	end(&f->daemon);
	free(f->address);
	free(f->output);
	temp_root_free(f->dir);
	free(f);
	return 0;
}

/* --- processes ------------------------------------------------------------------------------------------- */

static pid_t start(struct fixture *f, const char *output, const char *const *args)
{
	const char *argv[ARGS_MAX] = {program_path};
	pid_t pid;
	int n = 1, fd;

	while (*args && n < ARGS_MAX - 1)
		argv[n++] = *args++;
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	/* A test that is killed leaves nothing behind. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	unsetenv("NOTIFY_SOCKET");
	if (f->crash_point)
		setenv("LIGHTER_CRASH_POINT", f->crash_point, 1);
	execv(program_path, (char **)argv);
	_exit(127);
}

static bool has_ended(void *arg)
{
	struct fixture *f = arg;

	return waitpid(f->command, &f->wait_status, WNOHANG) == f->command;
}

static void run_to_its_end(struct fixture *f, const char *const *args)
{
	f->command = start(f, f->output, args);
	wait_until(has_ended, f, "the command to end");
	f->command = -1;
}

#define ARGS(...)                                                                                  \
	(const char *const[])                                                                      \
	{                                                                                          \
		__VA_ARGS__, NULL                                                                  \
	}

static char *read_output(const struct fixture *f)
{
	char *text = calloc(1, 256 * 1024);
	int fd = open(f->output, O_RDONLY | O_CLOEXEC);

	assert_non_null(text);
	assert_true(fd >= 0 && read(fd, text, 256 * 1024 - 1) >= 0);
	close(fd);
	return text;
}

static void assert_output(const struct fixture *f, const char *part)
{
	char *text = read_output(f);

	assert_contains(text, part);
	free(text);
}

static void assert_exit(const struct fixture *f, int status)
{
	if (!WIFEXITED(f->wait_status) || WEXITSTATUS(f->wait_status) != status) {
		char *output = read_output(f);

		fail_msg("wait status %#x, exit %d was expected; output:\n%s", f->wait_status,
			 status, output);
	}
}

/* The command with the fixture's root and address. */
static void run(struct fixture *f, int status, const char *command, const char *option,
		const char *argument)
{
	run_to_its_end(f, ARGS(command, f->root_arg, f->address_arg, option ? option : argument,
			       option ? argument : NULL));
	assert_exit(f, status);
}

/* Its socket is there before it has looked at its root. */
static bool is_serving(void *arg)
{
	struct fixture *f = arg;
	char text[4096] = "";
	int fd = openat(f->dir->fd, "log", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	assert_true(read(fd, text, sizeof(text) - 1) >= 0);
	close(fd);
	return strstr(text, "msg=serving") != NULL;
}

static void start_daemon(struct fixture *f)
{
	char *log = temp_root_path(f->dir, "log");

	(void)unlinkat(f->dir->fd, "log", 0);
	f->daemon = start(f, log, ARGS(f->root_arg, f->address_arg));
	wait_until(is_serving, f, "the daemon to serve");
	free(log);
}

static void stop_daemon(struct fixture *f)
{
	int status;

	assert_int_equal(kill(f->daemon, SIGTERM), 0);
	assert_int_equal(waitpid(f->daemon, &status, 0), f->daemon);
	f->daemon = -1;
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- blobs ----------------------------------------------------------------------------------------------- */

static void add(struct fixture *f, const char *text)
{
	blobs_add(f->dir->fd, "src", text);
}

/* A store of its own with two blobs. */
static void make_store(struct fixture *f)
{
	add(f, "one");
	add(f, "two");
	run(f, 0, "import", "--mode=copy", f->source);
}

static bool exists(const struct fixture *f, const char *path)
{
	return faccessat(f->dir->fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool has_file(const struct fixture *f, const char *text)
{
	char path[512];

	return exists(f, blobs_path("root", text, path));
}

static void damage(struct fixture *f, const char *text, const char *with)
{
	char path[512];
	int fd = openat(f->dir->fd, blobs_path("root", text, path), O_WRONLY | O_TRUNC | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, with, strlen(with)), strlen(with));
	close(fd);
}

/* "sha256:<hex>" */
static const char *name_of(const char *text, char buf[DIGEST_TEXT_BYTES])
{
	struct digest digest = blobs_digest(text);

	return digest_format(&digest, buf);
}

/* Has quarantine/ the bytes @with as those of @text? */
static void assert_in_quarantine(const struct fixture *f, const char *text, const char *with)
{
	char name[DIGEST_TEXT_BYTES], path[512], buf[64] = "";
	int fd;

	snprintf(path, sizeof(path), "root/quarantine/sha256/%s", name_of(text, name) + 7);
	fd = openat(f->dir->fd, path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_true(read(fd, buf, sizeof(buf) - 1) >= 0);
	close(fd);
	assert_string_equal(buf, with);
}

static int count_entry(void *arg, const char *name, unsigned char type, struct err *err)
{
	(void)name;
	(void)type;
	(void)err;
	++*(int *)arg;
	return 0;
}

static int n_in_quarantine(const struct fixture *f)
{
	struct err err;
	int n = 0;

	assert_ok(fs_each_entry(f->dir->fd, "root/quarantine/sha256", count_entry, &n, &err), &err);
	return n;
}

/* --- import ---------------------------------------------------------------------------------------------- */

static void import_says_what_it_took(void **state)
{
	struct fixture *f = *state;

	add(f, "one");
	add(f, "two");
	run(f, 0, "import", NULL, f->source);
	assert_output(f, "imported 2 blobs, 6 B (2 by ");
	assert_output(f, "; 0 were here already; 0 were left\n");
	assert_true(has_file(f, "one") && has_file(f, "two"));
	run(f, 0, "import", NULL, f->source);
	assert_output(f, "imported 0 blobs, 0 B; 2 were here already; 0 were left\n");
	run(f, 0, "import", "--json", f->source);
	assert_output(f, "{\"event\":\"summary\",\"imported\":0,");
	assert_output(f, "\"present\":2,\"refused\":0}\n");
	/* A daemon finds a store like any other. */
	start_daemon(f);
	run(f, 0, "verify", NULL, NULL);
	stop_daemon(f);
}

static void import_exits_3_when_something_was_left(void **state)
{
	struct fixture *f = *state;

	add(f, "one");
	blobs_write(f->dir->fd, "src/blobs/sha256/a\n\033[2Jb", "x");
	assert_int_equal(mkdirat(f->dir->fd, "src/ingest", 0700), 0);
	assert_int_equal(mkdirat(f->dir->fd, "src/ingest/1", 0700), 0);
	run(f, 3, "import", NULL, f->source);
	assert_output(f, "left: sha256/a\\u000a\\u001b[2Jb: is not named after a digest\n");
	assert_output(f, "1 ingest in progress is not taken");
	assert_output(f, "; 1 was left\n");
	assert_true(has_file(f, "one"));
	run(f, 3, "import", "--json", f->source);
	assert_output(
		f, "{\"event\":\"refused\",\"file\":\"sha256/a\\u000a\\u001b[2Jb\",\"why\":\"is");
	assert_output(f, "{\"event\":\"ingests\",\"ingests\":1}\n");
}

static void dry_run_touches_nothing(void **state)
{
	struct fixture *f = *state;

	add(f, "one");
	run(f, 0, "import", "--dry-run", f->source);
	assert_output(f, "would import 1 blob, 3 B, on the same file system");
	assert_false(exists(f, "root"));
	run(f, 0, "import", NULL, f->source);
	add(f, "three");
	/* Beside the daemon, too, as it only looks. */
	start_daemon(f);
	run(f, 0, "import", "--dry-run", f->source);
	assert_output(f, "would import 1 blob, 5 B, ");
	assert_output(f, "; 1 is here already; 0 would be left\n");
	assert_false(has_file(f, "three"));
	stop_daemon(f);
	run(f, 0, "import", NULL, f->source);
	run(f, 0, "import", "--dry-run", f->source);
	assert_output(f, "nothing to import; 2 are here already; 0 would be left\n");
}

static void import_is_refused_while_the_daemon_runs(void **state)
{
	struct fixture *f = *state;

	make_store(f);
	start_daemon(f);
	add(f, "three");
	run(f, 1, "import", NULL, f->source);
	assert_output(f, "lighter-content import: stop the daemon first, as by 'systemctl stop "
			 "lighter-content.socket lighter-content.service': another process");
	assert_false(has_file(f, "three"));
	stop_daemon(f);
	run(f, 0, "import", NULL, f->source);
	assert_true(has_file(f, "three"));
}

static void import_of_nothing_good_exits_2(void **state)
{
	struct fixture *f = *state;

	run(f, 2, "import", NULL, "/nonexistent");
	assert_output(f, "open '/nonexistent': No such file");
	run(f, 2, "import", NULL, f->dir->path);
	assert_output(f, "is no content directory");
	/* Before anything was made. */
	assert_false(exists(f, "root"));
	run(f, 2, "import", NULL, NULL);
	assert_output(f, "DIR is missing");
	run(f, 2, "import", "--mode=steal", f->source);
}

/* --- verify ---------------------------------------------------------------------------------------------- */

static void verify_works_beside_the_daemon_and_without(void **state)
{
	struct fixture *f = *state;
	char line[256], name[DIGEST_TEXT_BYTES];

	make_store(f);
	run(f, 0, "verify", NULL, NULL);
	assert_output(f, "verified 2 blobs, 6 B, all good\n");
	start_daemon(f);
	run(f, 0, "verify", "--rate=unlimited", NULL);
	damage(f, "one", "ONE");
	run(f, 3, "verify", NULL, NULL);
	snprintf(line, sizeof(line), "damaged: %s: its bytes are not what its name says\n",
		 name_of("one", name));
	assert_output(f, line);
	assert_output(f, "verified 2 blobs, 6 B, 1 bad\n");
	/* It has not been asked to do more. */
	assert_true(has_file(f, "one"));
	run(f, 3, "verify", "--json", name);
	snprintf(line, sizeof(line), "{\"event\":\"damaged\",\"digest\":\"%s\",\"why\":\"", name);
	assert_output(f, line);
	assert_output(f, "{\"event\":\"summary\",\"blobs\":1,\"bytes\":3,\"bad\":1,");
	run(f, 0, "verify", NULL, name_of("two", name));
	stop_daemon(f);
}

static void status_says_when_it_was_last_done(void **state)
{
	struct fixture *f = *state;

	make_store(f);
	run(f, 0, "verify", "--status", NULL);
	assert_output(f, "no verification has come to its end yet\n");
	run(f, 0, "verify", NULL, NULL);
	run(f, 0, "verify", "--status", NULL);
	assert_output(f, "last complete verification: ended 20");
	assert_output(f, " UTC: 2 blobs, 6 B, all good\n");
}

static void stopped_verification_goes_on(void **state)
{
	struct fixture *f = *state;

	make_store(f);
	/* A byte a second: it would take three of them for the first, and is stopped before. */
	f->command = start(f, f->output, ARGS("verify", f->root_arg, "--rate=1"));
	assert_int_equal(kill(f->command, SIGTERM), 0);
	wait_until(has_ended, f, "the command to end");
	f->command = -1;
	/* Before it blocked the signal, it died of it. */
	if (WIFEXITED(f->wait_status)) {
		assert_exit(f, 128 + SIGTERM);
		assert_output(f, "stopped by SIGTERM; the next run goes on here\n");
		run(f, 0, "verify", "--status", NULL);
		assert_output(f, "begun 20");
		assert_output(f, "and stopped after 0 blobs, 0 B, all good\n");
	}
	run(f, 0, "verify", NULL, NULL);
	assert_output(f, "verified 2 blobs, 6 B, all good\n");
}

static void what_was_found_before_a_stop_is_told_again(void **state)
{
	struct fixture *f = *state;

	make_store(f);
	damage(f, "one", "ONE");
	damage(f, "two", "TWO");
	f->crash_point = "verify.saved";
	require_crash_points();
	/* The only time it is saved in so short a time is the end. */
	run_to_its_end(f, ARGS("verify", f->root_arg));
	assert_true(WIFSIGNALED(f->wait_status));
	f->crash_point = NULL;
	run(f, 0, "verify", "--status", NULL);
	assert_output(f, ": 2 blobs, 6 B, 2 bad\n");
}

static void restart_begins_anew(void **state)
{
	struct fixture *f = *state;
	char text[512], name[DIGEST_TEXT_BYTES];

	make_store(f);
	run(f, 0, "verify", NULL, NULL);
	/* As if stopped when everything was done. */
	snprintf(text, sizeof(text),
		 "lighter-content verify 1\nnow 1000000000 0 2 6 1\nafter sha512:%0128d\n"
		 "problem damaged %s\n",
		 0, name_of("one", name));
	blobs_write(f->dir->fd, "root/verify/state", text);
	run(f, 3, "verify", NULL, NULL);
	assert_output(f, "begun 1970-01-01 00:00:01 UTC, and stopped after 2 blobs, 6 B, 1 bad\n");
	assert_output(f, ": found before it stopped\n");
	assert_output(f, "verified 2 blobs, 6 B, 1 bad\n");
	blobs_write(f->dir->fd, "root/verify/state", text);
	run(f, 0, "verify", "--restart", NULL);
	assert_output(f, "verified 2 blobs, 6 B, all good\n");
	/* What cannot be read is no reason not to verify. */
	blobs_write(f->dir->fd, "root/verify/state", "nonsense");
	run(f, 0, "verify", NULL, NULL);
	assert_output(f, "it begins anew");
}

static void verify_exits_2_for_wrong_usage_and_without_a_store(void **state)
{
	static const struct {
		const char *option, *argument, *message;
	} cases[] = {
		{"--rate=fast", NULL, "'fast' is no size"},
		{"--rate=0", NULL, "rate '0' would never end"},
		{NULL, "sha256:12", "wants 64 lower-case hex digits"},
		{NULL, "md5:12", "neither sha256 nor sha512"},
		{"--status", "--restart", "--status verifies nothing"},
		{"--restart",
		 "sha256:0000000000000000000000000000000000000000000000000000000000000000",
		 "--restart is about all blobs"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		run(f, 2, "verify", cases[i].option, cases[i].argument);
		assert_output(f, cases[i].message);
		assert_output(f, "Try 'lighter-content verify --help'.");
	}
	run(f, 2, "verify", NULL, NULL);
	assert_output(f, "open root '");
	assert_int_equal(mkdirat(f->dir->fd, "root", 0700), 0);
	run(f, 2, "verify", NULL, NULL);
	assert_output(f, "there is no store in '");
	assert_false(exists(f, "root/metadata.db"));
	assert_false(exists(f, "root/verify"));
	make_store(f);
	run(f, 1, "verify", NULL,
	    "sha256:0000000000000000000000000000000000000000000000000000000000000000");
	assert_output(f, "not found");
}

static void damaged_database_exits_2(void **state)
{
	struct fixture *f = *state;

	make_store(f);
	add(f, "three");
	blobs_write(f->dir->fd, "root/metadata.db",
		    "this is no database, and long enough to be seen as none");
	run(f, 2, "verify", NULL, NULL);
	assert_output(f, "metadata.db'");
	run(f, 2, "import", NULL, f->source);
	assert_output(f, "metadata.db'");
	assert_true(has_file(f, "one") && !has_file(f, "three"));
}

/* --- quarantine ------------------------------------------------------------------------------------------ */

static void quarantine_keeps_the_bytes_and_frees_the_name(void **state)
{
	struct fixture *f = *state;
	char path[512];

	for (int with_daemon = 0; with_daemon < 2; with_daemon++) {
		make_store(f);
		if (with_daemon)
			start_daemon(f);
		damage(f, "one", "ONE");
		run(f, 3, "verify", "--quarantine", NULL);
		assert_output(f, "\nquarantined: sha256:");
		assert_output(f, "; what was taken out can be fetched again");
		assert_false(has_file(f, "one"));
		assert_true(has_file(f, "two"));
		assert_in_quarantine(f, "one", "ONE");
		run(f, 0, "verify", NULL, NULL);
		assert_output(f, "verified 1 blob, 3 B, all good\n");
		if (with_daemon)
			stop_daemon(f);
		/* It can be had again. */
		run(f, 0, "import", "--mode=copy", f->source);
		assert_output(f,
			      "imported 1 blob, 3 B (1 copied); 1 was here already; 0 were left\n");
		run(f, 0, "verify", NULL, NULL);
		assert_int_equal(n_in_quarantine(f), 1 + with_daemon);
	}
	/* The second time it is no less damaged; both are kept. */
	snprintf(path, sizeof(path), "%s", blobs_path("root", "one", (char[512]){0}));
	assert_true(exists(f, path));
}

/* The store is opened for each; in between, it is read on. */
static void quarantine_goes_on_after_the_first(void **state)
{
	struct fixture *f = *state;

	make_store(f);
	damage(f, "one", "ONE");
	damage(f, "two", "TWO");
	run(f, 3, "verify", "--quarantine", NULL);
	assert_output(f, "verified 2 blobs, 6 B, 2 bad");
	assert_in_quarantine(f, "one", "ONE");
	assert_in_quarantine(f, "two", "TWO");
	run(f, 0, "verify", NULL, NULL);
	assert_output(f, "verified 0 blobs, 0 B, all good\n");
}

static void missing_blob_is_forgotten(void **state)
{
	struct fixture *f = *state;
	char path[512];

	make_store(f);
	start_daemon(f);
	assert_int_equal(unlinkat(f->dir->fd, blobs_path("root", "one", path), 0), 0);
	run(f, 3, "verify", "--quarantine", NULL);
	assert_output(f, "missing: sha256:");
	assert_output(f, "\nforgotten: sha256:");
	run(f, 0, "verify", NULL, NULL);
	assert_false(exists(f, "root/quarantine"));
	stop_daemon(f);
}

static void daemon_of_another_root_is_not_asked(void **state)
{
	struct fixture *f = *state, *other = NULL;

	setup((void **)&other);
	make_store(f);
	make_store(other);
	start_daemon(f);
	start_daemon(other);
	damage(f, "one", "ONE");
	run_to_its_end(f, ARGS("verify", f->root_arg, other->address_arg, "--quarantine"));
	assert_exit(f, 3);
	assert_output(f, "not quarantined: sha256:");
	assert_output(f, "it serves another root\n");
	assert_true(has_file(f, "one"));
	assert_true(has_file(other, "one"));
	run(other, 0, "verify", NULL, NULL);
	assert_output(other, "verified 2 blobs, 6 B, all good\n");
	stop_daemon(f);
	stop_daemon(other);
	teardown((void **)&other);
}

static void daemon_that_cannot_be_reached_is_told_of(void **state)
{
	struct fixture *f = *state;

	make_store(f);
	start_daemon(f);
	damage(f, "one", "ONE");
	run_to_its_end(f, ARGS("verify", f->root_arg, "--address=/nonexistent/s", "--quarantine"));
	assert_exit(f, 3);
	assert_output(f, "not quarantined: sha256:");
	assert_output(f, "ask the daemon at '/nonexistent/s'");
	assert_true(has_file(f, "one"));
	stop_daemon(f);
}

static void quarantine_is_finished_after_a_kill(void **state)
{
	static const char *const points[] = {"quarantine.kept", "remove.row-deleted",
					     "quarantine.removed"};
	struct fixture *f = *state;
	int status;

	require_crash_points();
	make_store(f);
	for (size_t i = 0; i < ARRAY_LEN(points); i++) {
		damage(f, "one", "ONE");
		f->crash_point = points[i];
		run_to_its_end(f, ARGS("verify", f->root_arg, "--quarantine"));
		assert_true(WIFSIGNALED(f->wait_status));
		assert_in_quarantine(f, "one", "ONE");
		f->crash_point = NULL;
		/* Found again if it is there still; and not kept twice. */
		run_to_its_end(f, ARGS("verify", f->root_arg, "--quarantine"));
		status = WEXITSTATUS(f->wait_status);
		assert_int_equal(status, i == 0 ? 3 : 0);
		start_daemon(f);
		run(f, 0, "verify", NULL, NULL);
		stop_daemon(f);
		assert_false(has_file(f, "one"));
		assert_int_equal(n_in_quarantine(f), i + 1);
		run(f, 0, "import", "--mode=copy", f->source);
	}
}

int main(int argc, char **argv)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(import_says_what_it_took),
		TEST(import_exits_3_when_something_was_left),
		TEST(dry_run_touches_nothing),
		TEST(import_is_refused_while_the_daemon_runs),
		TEST(import_of_nothing_good_exits_2),
		TEST(verify_works_beside_the_daemon_and_without),
		TEST(status_says_when_it_was_last_done),
		TEST(stopped_verification_goes_on),
		TEST(what_was_found_before_a_stop_is_told_again),
		TEST(restart_begins_anew),
		TEST(verify_exits_2_for_wrong_usage_and_without_a_store),
		TEST(damaged_database_exits_2),
		TEST(quarantine_keeps_the_bytes_and_frees_the_name),
		TEST(quarantine_goes_on_after_the_first),
		TEST(missing_blob_is_forgotten),
		TEST(daemon_of_another_root_is_not_asked),
		TEST(daemon_that_cannot_be_reached_is_told_of),
		TEST(quarantine_is_finished_after_a_kill),
	};

	if (argc != 2) {
		fprintf(stderr, "usage: %s LIGHTER-CONTENT\n", argv[0]);
		return 2;
	}
	program_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
