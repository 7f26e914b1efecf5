/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemons' shared main(), from outside: a daemon that keeps nothing is started, signalled, killed.
 * Argument: path of that daemon.
 */
#include "tests/support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/ctx.h"
#include "grpc/health/v1/health.pb-c.h"
#include "rpc/client.h"
#include "rpc/server.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"

#define ARGS_MAX 16
/* Generous: the machine may be busy. A daemon that hangs fails the test by it. */
#define WAIT_MS  60000

static const char *daemon_path;

/**
 * struct fixture - a directory, and at most one daemon that listens in it
 * @address, @root: below @dir, in directories that do not exist yet
 * @notify_fd: receives what the daemon tells the service manager
 */
struct fixture {
	struct temp_root *dir;
	char *root, *address, *output, *notify;
	char root_arg[256], address_arg[256];
	int notify_fd;
	pid_t pid;
	int wait_status;
};

/* What a child changes before it becomes the daemon. */
typedef void (*child_fn)(void *arg);

static int bound_socket(const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(address.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->dir = temp_root_new();
	f->root = temp_root_path(f->dir, "lib/x/root");
	f->address = temp_root_path(f->dir, "run/x/s");
	f->output = temp_root_path(f->dir, "output");
	f->notify = temp_root_path(f->dir, "notify");
	snprintf(f->root_arg, sizeof(f->root_arg), "--root=%s", f->root);
	snprintf(f->address_arg, sizeof(f->address_arg), "--address=%s", f->address);
	f->notify_fd = bound_socket(f->notify, SOCK_DGRAM);
	f->pid = -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->pid > 0) {
		kill(f->pid, SIGKILL);
		waitpid(f->pid, NULL, 0);
	}
	close(f->notify_fd);
	free(f->root);
	free(f->address);
	free(f->output);
	free(f->notify);
	temp_root_free(f->dir);
	free(f);
	return 0;
}

/* Starts the daemon, in an environment and with descriptors that @in_child (or NULL) may change. */
static void start_in(struct fixture *f, child_fn in_child, void *arg, const char *const *args)
{
	const char *argv[ARGS_MAX] = {daemon_path};
	int n = 1, fd;

	while (*args && n < ARGS_MAX - 1)
		argv[n++] = *args++;
	fflush(NULL);
	f->pid = fork();
	assert_true(f->pid >= 0);
	if (f->pid > 0)
		return;
	/* A test that is killed leaves no daemon behind. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = open(f->output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	setenv("NOTIFY_SOCKET", f->notify, 1);
	unsetenv("LISTEN_FDS");
	if (in_child)
		in_child(arg);
	execv(daemon_path, (char **)argv);
	_exit(127);
}

#define ARGS(...)                                                                                  \
	(const char *const[])                                                                      \
	{                                                                                          \
		__VA_ARGS__, NULL                                                                  \
	}

static void start(struct fixture *f, const char *const *args)
{
	start_in(f, NULL, NULL, args);
}

static void start_plain(struct fixture *f)
{
	start(f, ARGS(f->root_arg, f->address_arg));
}

static char *read_file(const char *path)
{
	char *text = calloc(1, 64 * 1024);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_non_null(text);
	if (fd >= 0) {
		assert_true(read(fd, text, 64 * 1024 - 1) >= 0);
		close(fd);
	}
	return text;
}

static void assert_file_contains(const char *path, const char *part)
{
	char *text = read_file(path);

	assert_contains(text, part);
	free(text);
}

static void assert_output(const struct fixture *f, const char *part)
{
	assert_file_contains(f->output, part);
}

static bool has_exited(void *arg)
{
	struct fixture *f = arg;

	return waitpid(f->pid, &f->wait_status, WNOHANG) == f->pid;
}

static void assert_exits(struct fixture *f, int status)
{
	wait_until(has_exited, f, "the daemon to exit");
	f->pid = -1;
	if (!WIFEXITED(f->wait_status) || WEXITSTATUS(f->wait_status) != status) {
		char *output = read_file(f->output);

		fail_msg("wait status %#x, exit %d was expected; output:\n%s", f->wait_status,
			 status, output);
	}
}

/* The daemon's next message to the service manager begins with @state. */
static void assert_notified(struct fixture *f, const char *state)
{
	struct pollfd pollfd = {.fd = f->notify_fd, .events = POLLIN};
	char text[1024], pid[32];
	ssize_t n;

	if (poll(&pollfd, 1, WAIT_MS) != 1) {
		char *output = read_file(f->output);

		fail_msg("no message '%s'; output:\n%s", state, output);
	}
	n = recv(f->notify_fd, text, sizeof(text) - 1, 0);
	assert_true(n > 0);
	text[n] = '\0';
	assert_memory_equal(text, state, strlen(state));
	snprintf(pid, sizeof(pid), "\nMAINPID=%d", f->pid);
	assert_contains(text, pid);
}

static bool has_notified(const struct fixture *f)
{
	struct pollfd pollfd = {.fd = f->notify_fd, .events = POLLIN};

	return poll(&pollfd, 1, 0) == 1;
}

static void assert_ready(struct fixture *f)
{
	assert_notified(f, "READY=1\nSTATUS=serving on ");
}

static void stop_with(struct fixture *f, int signum)
{
	assert_int_equal(kill(f->pid, signum), 0);
	assert_notified(f, "STOPPING=1");
	assert_exits(f, 0);
}

static void assert_mode(const char *path, mode_t mode)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode, mode);
}

static void assert_mode_in(const struct fixture *f, const char *name, mode_t mode)
{
	char *path = temp_root_path(f->dir, name);

	assert_mode(path, mode);
	free(path);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static bool exists_in_root(const struct fixture *f, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", f->root, name);
	return exists(path);
}

static bool can_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	strcpy(address.sun_path, path);
	r = connect(fd, (struct sockaddr *)&address, sizeof(address));
	close(fd);
	return r == 0;
}

/* Nothing was made below the fixture's directory. */
static void assert_no_trace(const struct fixture *f)
{
	assert_int_equal(faccessat(f->dir->fd, "lib", F_OK, 0), -1);
	assert_int_equal(faccessat(f->dir->fd, "run", F_OK, 0), -1);
}

/* --- what needs no serving ------------------------------------------------------------------------ */

static void help_names_every_option(void **state)
{
	static const char *const parts[] = {
		"Usage: lighter-fake [OPTION]...\n",
		"\n       lighter-fake COMMAND [OPTION]... [ARGUMENT]...\nKeeps nothing.\n",
		"\n  show                   Show what was given.\n",
		"--config FILE ",
		"--root DIR ",
		"--address PATH ",
		"--log-level LEVEL ",
		"--log-format FORMAT ",
		"--set KEY=VALUE ",
		"--check ",
		"--print-config ",
		"--version ",
		"/etc/lighter/fake.toml",
		"  root=DIR\n",
		"\"/var/lib/lighter/fake\"",
		"\"/run/lighter/fake.sock\"",
		"  socket_mode=MODE\n",
		"  fake.greeting=TEXT\n",
	};
	struct fixture *f = *state;

	start(f, ARGS("--help"));
	assert_exits(f, 0);
	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		assert_output(f, parts[i]);
	start(f, ARGS("-h"));
	assert_exits(f, 0);
	assert_output(f, parts[0]);
	start(f, ARGS("show", "-h"));
	assert_exits(f, 0);
	assert_output(f, "Usage: lighter-fake show ");
}

static void version_is_printed(void **state)
{
	struct fixture *f = *state;

	start(f, ARGS("--version"));
	assert_exits(f, 0);
	assert_output(f, "lighter-fake " LIGHTER_VERSION "\n");
}

static void printed_configuration_is_accepted(void **state)
{
	struct fixture *f = *state;
	char *config = temp_root_path(f->dir, "x.toml");

	start(f, ARGS("--print-config"));
	assert_exits(f, 0);
	assert_output(f, "\n#root = \"/var/lib/lighter/fake\"\n");
	assert_output(f, "\n[fake]\n");
	assert_output(f, "\n#greeting = \"hello\"\n");
	assert_int_equal(rename(f->output, config), 0);
	start(f, ARGS("--check", "--config", config));
	assert_exits(f, 0);
	free(config);
}

static void wrong_usage_exits_2_and_leaves_no_trace(void **state)
{
	static const struct {
		const char *args[3];
		const char *message;
	} cases[] = {
		{{"--nonsense"}, "lighter-fake: option '--nonsense' is unknown"},
		{{"-x"}, "lighter-fake: option '-x' is unknown"},
		{{"--lo=debug"}, "option '--lo=debug' is unknown, ambiguous"},
		{{"--version=1"}, "option '--version=1' is unknown, ambiguous, or takes no"},
		{{"--log-level"}, "option '--log-level' wants a value"},
		{{"positional"}, "unknown command 'positional'"},
		{{"positional", "--check"}, "unknown command 'positional'"},
		{{"--check", "positional"}, "unexpected argument 'positional'"},
		{{"--check", "show"}, "the command 'show' must be the first argument"},
		{{"--set", "workers"}, "'workers' does not read KEY=VALUE"},
		{{"--set", "fake.greting=x"}, "did you mean 'fake.greeting'?"},
		{{"--set", "workers=0"}, "'workers': must be between 1 and 256, not 0"},
		{{"--log-level", "loud"}, "'log_level': must be one of"},
		{{"--log-format", "xml"}, "'log_format': must be one of text|json"},
		{{"--config", "/nonexistent/x.toml"}, "/nonexistent/x.toml: No such file"},
		{{"--root", "relative"}, "root 'relative' is not an absolute path"},
		{{"--root", "///"}, "root must not be '/'"},
		{{"--address", "relative"}, "socket path 'relative' is not absolute"},
		{{"--set", "socket_mode=0980"}, "socket_mode '0980' is no octal number"},
		{{"--set", "socket_mode=1777"}, "socket_mode '1777' is no octal number"},
		{{"--set", "socket_mode="}, "socket_mode '' is no octal number"},
		{{"--set", "socket_group=no-such-group"}, "'no-such-group' is unknown"},
		{{"--set", "socket_group=4294967295"}, "'4294967295' is no group"},
		{{"--set", "socket_group=12x"}, "socket_group '12x' is no group"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		/* What is given first would be a command. */
		if (cases[i].args[0][0] == 'p')
			start(f, ARGS(cases[i].args[0], f->root_arg, f->address_arg,
				      cases[i].args[1]));
		else
			start(f, ARGS(f->root_arg, f->address_arg, cases[i].args[0],
				      cases[i].args[1]));
		assert_exits(f, 2);
		assert_output(f, cases[i].message);
		assert_output(f, "Try 'lighter-fake --help'.");
		assert_no_trace(f);
	}
}

static void socket_path_too_long_exits_2(void **state)
{
	struct fixture *f = *state;
	char path[128] = "--address=/";

	memset(path + strlen(path), 'x', 107);
	start(f, ARGS(f->root_arg, path));
	assert_exits(f, 2);
	assert_output(f, "is longer than 107 bytes");
	assert_no_trace(f);
}

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void mistake_in_file_is_told_with_its_line(void **state)
{
	struct fixture *f = *state;
	char *config = temp_root_path(f->dir, "x.toml");
	char want[300];

	write_text(config, "workers = 3\n\n[fake]\ngreting = 'x'\n");
	start(f, ARGS(f->root_arg, f->address_arg, "--config", config));
	assert_exits(f, 2);
	snprintf(want, sizeof(want),
		 "lighter-fake: %s:4: unknown key 'fake.greting', did you mean "
		 "'fake.greeting'?",
		 config);
	assert_output(f, want);
	assert_no_trace(f);
	free(config);
}

static void check_leaves_no_trace(void **state)
{
	struct fixture *f = *state;

	start(f, ARGS("--check", f->root_arg, f->address_arg));
	assert_exits(f, 0);
	assert_no_trace(f);
	start(f, ARGS("--check", f->root_arg, "--set", "workers=900"));
	assert_exits(f, 2);
}

static void what_the_backend_refuses_is_refused_by_check_and_start(void **state)
{
	static const char *const also[] = {"--check", "--print-registration", "--log-level=info"};
	struct fixture *f = *state;
	char want[300];

	snprintf(want, sizeof(want), "lighter-fake: checked with root %s\n", f->root);
	for (size_t i = 0; i < ARRAY_LEN(also); i++) {
		start(f,
		      ARGS(f->root_arg, f->address_arg, also[i], "--set", "fake.fail_check=true"));
		assert_exits(f, 2);
		assert_output(f, want);
		assert_no_trace(f);
	}
}

static void check_looks_at_a_root_that_is_there(void **state)
{
	struct fixture *f = *state;

	require_root();
	assert_int_equal(mkdirat(f->dir->fd, "lib", 0755), 0);
	assert_int_equal(mkdirat(f->dir->fd, "lib/x", 0755), 0);
	assert_int_equal(mkdirat(f->dir->fd, "lib/x/root", 0755), 0);
	start(f, ARGS("--check", f->root_arg, f->address_arg));
	assert_exits(f, 0);
	/* Ours to close, but not by a mere look. */
	assert_mode_in(f, "lib/x/root", S_IFDIR | 0755);
	assert_false(exists_in_root(f, "lock"));
	assert_int_equal(mkdirat(f->dir->fd, "lib/x/root/home", 0755), 0);
	start(f, ARGS("--check", f->root_arg, f->address_arg));
	assert_exits(f, 2);
	assert_output(f, "is open to other users (mode 0755) and holds files that are not ours");
	assert_mode_in(f, "lib/x/root", S_IFDIR | 0755);
}

static void registration_follows_the_configuration(void **state)
{
	struct fixture *f = *state;

	start(f, ARGS("--print-registration", "--address=/run/a \"b\"", f->root_arg));
	assert_exits(f, 0);
	assert_output(f, "fake is lighter-fake: hello \"/run/a \\\"b\\\"\" ");
	assert_output(f, f->root);
	assert_no_trace(f);
	/* A configuration that the daemon would not take is not worth registering. */
	start(f, ARGS("--print-registration", "--set", "workers=0"));
	assert_exits(f, 2);
}

static void want_crash_points(void *arg)
{
	(void)arg;
	setenv("LIGHTER_CRASH_POINT", "list", 1);
}

static void crash_points_are_listed_first_of_all(void **state)
{
	struct fixture *f = *state;

	require_crash_points();
	start_in(f, want_crash_points, NULL, ARGS(f->root_arg, f->address_arg, "--nonsense"));
	assert_exits(f, 0);
	assert_output(f, "fake.open\n");
	assert_no_trace(f);
}

/* --- commands --------------------------------------------------------------------------------------- */

static void command_gets_its_options_and_arguments(void **state)
{
	struct fixture *f = *state;
	char want[600];

	start(f, ARGS("show", f->root_arg, "one", "--times", "2", f->address_arg, "--mode=long",
		      "--set", "fake.greeting=hi", "two"));
	assert_exits(f, 7);
	snprintf(want, sizeof(want), "hi long of %s at %s:hi long of %s at %s: <one> <two>\n",
		 f->root, f->address, f->root, f->address);
	assert_output(f, want);
	assert_no_trace(f);
	/* What follows "--" is no option. */
	start(f, ARGS("show", "--", "--take-root"));
	assert_exits(f, 7);
	assert_output(f, "hello short of /var/lib/lighter/fake at /run/lighter/fake.sock: "
			 "<--take-root>\n");
}

static void command_has_a_help_of_its_own(void **state)
{
	static const char *const parts[] = {
		"Usage: lighter-fake show [OPTION]... WORD...\nShow what was given.\n",
		"  --take-root ",
		"  --times N ",
		"  --mode MODE ",
		"  --root DIR ",
		"Exit status: 7.\n",
	};
	struct fixture *f = *state;
	char *text;

	start(f, ARGS("show", "--help"));
	assert_exits(f, 0);
	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		assert_output(f, parts[i]);
	text = read_file(f->output);
	assert_null(strstr(text, "--check"));
	free(text);
}

static void wrong_usage_of_a_command_exits_2(void **state)
{
	static const struct {
		const char *args[5];
		const char *message;
	} cases[] = {
		{{"show"}, "lighter-fake show: WORD... is missing"},
		{{"show", "a", "b", "c"}, "unexpected argument 'c'"},
		{{"show", "--check", "a"}, "option '--check' is unknown"},
		{{"show", "--times=4", "a"}, "'times': must be between 1 and 3, not 4"},
		{{"show", "--times=two", "a"}, "lighter-fake show: 'times': "},
		{{"show", "--mode=x", "a"}, "'mode': must be one of short|long, not 'x'"},
		{{"show", "a", "--mode"}, "option '--mode' wants a value"},
		{{"show", "a", "--fail=no"},
		 "option '--fail=no' is unknown, ambiguous, or takes no"},
		{{"show", "a", "--root=relative"}, "root 'relative' is not an absolute path"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		start(f, cases[i].args);
		assert_exits(f, 2);
		assert_output(f, cases[i].message);
		assert_output(f, "Try 'lighter-fake show --help'.");
	}
}

static void failing_command_exits_1(void **state)
{
	struct fixture *f = *state;

	start(f, ARGS("show", "--fail", "a"));
	assert_exits(f, 1);
	assert_output(f, "lighter-fake show: told to fail\n");
}

static void command_shares_no_root_with_the_daemon(void **state)
{
	struct fixture *f = *state, *second = NULL;

	start(f, ARGS("show", "--take-root", f->root_arg, "a"));
	assert_exits(f, 7);
	assert_true(exists_in_root(f, "shown"));
	assert_mode_in(f, "lib/x/root", S_IFDIR | 0700);
	assert_int_equal(unlinkat(f->dir->fd, "lib/x/root/shown", 0), 0);

	setup((void **)&second);
	start_plain(f);
	assert_ready(f);
	start(second, ARGS("show", "--take-root", f->root_arg, "a"));
	assert_exits(second, 1);
	assert_output(second, "uses the root");
	assert_false(exists_in_root(f, "shown"));
	stop_with(f, SIGTERM);
	teardown((void **)&second);
}

static void full_output_is_a_failure(void **state)
{
	struct fixture *f = *state;
	char *output = f->output;

	f->output = strdup("/dev/full");
	start(f, ARGS("show", "a"));
	assert_exits(f, 1);
	free(f->output);
	f->output = output;
}

/* --- start and stop ------------------------------------------------------------------------------- */

static void is_ready_once_it_can_be_reached(void **state)
{
	struct fixture *f = *state;
	char want[300];

	start_plain(f);
	assert_ready(f);
	assert_true(can_connect(f->address));
	assert_true(exists_in_root(f, "opened"));
	snprintf(want, sizeof(want), "address=%s", f->address);
	assert_output(f, want);
	stop_with(f, SIGTERM);
}

static void sigterm_and_sigint_stop_cleanly(void **state)
{
	static const int signums[] = {SIGTERM, SIGINT};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(signums); i++) {
		start_plain(f);
		assert_ready(f);
		assert_false(exists_in_root(f, "closed"));
		stop_with(f, signums[i]);
		assert_true(exists_in_root(f, "closed"));
		assert_false(exists(f->address));
		assert_output(f, i == 0 ? "signal=TERM" : "signal=INT");
		assert_int_equal(unlinkat(f->dir->fd, "lib/x/root/closed", 0), 0);
	}
}

static void second_signal_stops_at_once(void **state)
{
	struct fixture *f = *state;

	start(f, ARGS(f->root_arg, f->address_arg, "--set", "fake.close_waits=true"));
	assert_ready(f);
	assert_int_equal(kill(f->pid, SIGTERM), 0);
	assert_notified(f, "STOPPING=1");
	assert_int_equal(kill(f->pid, SIGTERM), 0);
	wait_until(has_exited, f, "the daemon to die");
	f->pid = -1;
	assert_true(WIFSIGNALED(f->wait_status));
	assert_int_equal(WTERMSIG(f->wait_status), SIGTERM);
	assert_false(exists_in_root(f, "closed"));
}

static bool has_answered_sighup(void *arg)
{
	struct fixture *f = arg;
	char *text = read_file(f->output);
	bool found = strstr(text, "SIGHUP changes nothing") != NULL;

	free(text);
	return found;
}

static void sighup_and_sigpipe_stop_nothing(void **state)
{
	struct fixture *f = *state;

	start_plain(f);
	assert_ready(f);
	assert_int_equal(kill(f->pid, SIGPIPE), 0);
	assert_int_equal(kill(f->pid, SIGHUP), 0);
	wait_until(has_answered_sighup, f, "the line about SIGHUP");
	assert_true(can_connect(f->address));
	stop_with(f, SIGTERM);
}

static void failing_backend_is_not_ready_and_exits_as_it_failed(void **state)
{
	static const struct {
		const char *arg;
		int status;
	} cases[] = {
		{"fake.fail_open=INTERNAL", 1},
		{"fake.fail_open=UNAVAILABLE", 1},
		{"fake.fail_open=RESOURCE_EXHAUSTED", 1},
		/* These are the same at the next start. */
		{"fake.fail_open=INVALID_ARGUMENT", 2},
		{"fake.fail_open=FAILED_PRECONDITION", 2},
		{"fake.fail_open=PERMISSION_DENIED", 2},
		{"fake.fail_open=DATA_LOSS", 2},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		start(f, ARGS(f->root_arg, f->address_arg, "--set", cases[i].arg));
		assert_exits(f, cases[i].status);
		assert_output(f, "told to fail");
		assert_false(has_notified(f));
		assert_false(exists(f->address));
		assert_false(exists_in_root(f, "closed"));
	}
}

static bool can_be_reached(void *arg)
{
	return can_connect(((struct fixture *)arg)->address);
}

static void runs_when_the_service_manager_is_gone(void **state)
{
	struct fixture *f = *state;

	/* One who asked to be told, and is gone. */
	unlink(f->notify);
	start_plain(f);
	wait_until(can_be_reached, f, "the socket");
	assert_int_equal(kill(f->pid, SIGTERM), 0);
	assert_exits(f, 0);
	assert_output(f, "the service manager could not be told");
}

/* --- directories, modes, limits ------------------------------------------------------------------- */

static void set_umask(void *arg)
{
	umask(*(mode_t *)arg);
}

static void modes_are_right_whatever_the_umask(void **state)
{
	mode_t umasks[] = {0, 077};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(umasks); i++) {
		start_in(f, set_umask, &umasks[i], ARGS(f->root_arg, f->address_arg));
		assert_ready(f);
		assert_mode_in(f, "lib", S_IFDIR | 0711);
		assert_mode_in(f, "lib/x", S_IFDIR | 0711);
		assert_mode_in(f, "lib/x/root", S_IFDIR | 0700);
		assert_mode_in(f, "lib/x/root/lock", S_IFREG | 0600);
		assert_mode_in(f, "run/x", S_IFDIR | 0711);
		assert_mode_in(f, "run/x/s", S_IFSOCK | 0660);
		stop_with(f, SIGTERM);
		teardown(state);
		setup(state);
		f = *state;
	}
}

static void socket_mode_and_group_follow_the_configuration(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	require_root();
	start(f, ARGS(f->root_arg, f->address_arg, "--set", "socket_mode=606", "--set",
		      "socket_group=4321"));
	assert_ready(f);
	assert_int_equal(lstat(f->address, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0606);
	assert_int_equal(st.st_gid, 4321);
	stop_with(f, SIGTERM);
	start(f, ARGS(f->root_arg, f->address_arg, "--set", "socket_group=daemon"));
	assert_ready(f);
	assert_int_equal(lstat(f->address, &st), 0);
	assert_int_equal(st.st_gid, 1);
	stop_with(f, SIGTERM);
}

static void be_narrow(void *arg)
{
	struct rlimit files;

	(void)arg;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = 64;
	setrlimit(RLIMIT_NOFILE, &files);
	umask(077);
}

static void backend_gets_its_options_and_every_descriptor_there_is(void **state)
{
	struct fixture *f = *state;
	char *config = temp_root_path(f->dir, "x.toml");
	char *note = temp_root_path(f->dir, "lib/x/root/opened");

	write_text(config, "log_level = 'error'\n[fake]\ngreeting = 'from the file'\n");
	start_in(f, be_narrow, NULL, ARGS(f->root_arg, f->address_arg, "--config", config));
	assert_ready(f);
	assert_file_contains(note, "from the file files=all umask=022\n");
	stop_with(f, SIGTERM);
	/* The command line counts more than the file. */
	start(f, ARGS(f->root_arg, f->address_arg, "--set", "fake.greeting=from --set", "--config",
		      config));
	assert_ready(f);
	assert_file_contains(note, "from --set files=all");
	stop_with(f, SIGTERM);
	free(config);
	free(note);
}

static void log_lines_take_the_configured_form(void **state)
{
	struct fixture *f = *state;
	char *output;

	start(f, ARGS(f->root_arg, f->address_arg, "--log-format=json"));
	assert_ready(f);
	stop_with(f, SIGTERM);
	output = read_file(f->output);
	assert_int_equal(output[0], '{');
	assert_contains(output, "\"service\":\"lighter-fake\"");
	free(output);
	start(f, ARGS(f->root_arg, f->address_arg, "--log-level=error"));
	assert_ready(f);
	stop_with(f, SIGTERM);
	output = read_file(f->output);
	assert_string_equal(output, "");
	free(output);
}

static void open_root_of_ours_is_closed_to_others(void **state)
{
	struct fixture *f = *state;

	/* Empty, as mkdir or a service manager makes it. */
	assert_int_equal(mkdirat(f->dir->fd, "lib", 0755), 0);
	assert_int_equal(mkdirat(f->dir->fd, "lib/x", 0755), 0);
	assert_int_equal(mkdirat(f->dir->fd, "lib/x/root", 0755), 0);
	start_plain(f);
	assert_ready(f);
	assert_mode_in(f, "lib/x/root", S_IFDIR | 0700);
	/* What was there is not changed. */
	assert_mode_in(f, "lib/x", S_IFDIR | 0755);
	stop_with(f, SIGTERM);
	assert_int_equal(fchmodat(f->dir->fd, "lib/x/root", 0755, 0), 0);
	start_plain(f);
	assert_ready(f);
	assert_mode_in(f, "lib/x/root", S_IFDIR | 0700);
	stop_with(f, SIGTERM);
}

static void directory_of_others_is_refused_as_root(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mkdirat(f->dir->fd, "lib", 0755), 0);
	assert_int_equal(mkdirat(f->dir->fd, "lib/x", 0755), 0);
	assert_int_equal(mkdirat(f->dir->fd, "lib/x/root", 0755), 0);
	assert_int_equal(mkdirat(f->dir->fd, "lib/x/root/home", 0755), 0);
	start_plain(f);
	assert_exits(f, 2);
	assert_output(f, "is open to other users (mode 0755) and holds files that are not ours");
	assert_mode_in(f, "lib/x/root", S_IFDIR | 0755);
	assert_false(exists_in_root(f, "lock"));
	assert_int_equal(faccessat(f->dir->fd, "run", F_OK, 0), -1);
}

static void root_of_another_user_is_refused(void **state)
{
	struct fixture *f = *state;

	require_root();
	assert_int_equal(mkdirat(f->dir->fd, "lib", 0755), 0);
	assert_int_equal(mkdirat(f->dir->fd, "lib/x", 0755), 0);
	assert_int_equal(mkdirat(f->dir->fd, "lib/x/root", 0700), 0);
	assert_int_equal(fchownat(f->dir->fd, "lib/x/root", 4321, (gid_t)-1, 0), 0);
	start_plain(f);
	assert_exits(f, 2);
	assert_output(f, "belongs to user 4321");
}

static void path_through_a_file_is_refused(void **state)
{
	struct fixture *f = *state;
	char *file = temp_root_path(f->dir, "file");
	char root_arg[300], address_arg[300];

	write_text(file, "precious");
	snprintf(root_arg, sizeof(root_arg), "--root=%s/x", file);
	snprintf(address_arg, sizeof(address_arg), "--address=%s/x", file);
	start(f, ARGS(root_arg, f->address_arg));
	assert_exits(f, 2);
	assert_output(f, "Not a directory");
	start(f, ARGS(f->root_arg, address_arg));
	assert_exits(f, 2);
	assert_output(f, "Not a directory");
	root_arg[strlen(root_arg) - 2] = '\0';
	start(f, ARGS(root_arg, f->address_arg));
	assert_exits(f, 2);
	assert_output(f, "Not a directory");
	assert_file_contains(file, "precious");
	free(file);
}

static void close_standard_fds(void *arg)
{
	(void)arg;
	close(0);
	close(1);
	close(2);
}

static void log_never_ends_up_in_a_file_of_ours(void **state)
{
	struct fixture *f = *state;
	char *lock = temp_root_path(f->dir, "lib/x/root/lock");
	char *text, want[32];

	start_in(f, close_standard_fds, NULL, ARGS(f->root_arg, f->address_arg));
	assert_ready(f);
	text = read_file(lock);
	snprintf(want, sizeof(want), "%d\n", f->pid);
	assert_string_equal(text, want);
	stop_with(f, SIGTERM);
	free(text);
	free(lock);
}

/* --- one root, one process; one socket, one process ----------------------------------------------- */

static struct fixture *second_of(struct fixture *first)
{
	struct fixture *second;

	setup((void **)&second);
	snprintf(second->root_arg, sizeof(second->root_arg), "--root=%s", first->root);
	return second;
}

static void second_process_on_a_root_is_refused(void **state)
{
	struct fixture *f = *state, *second = second_of(f);
	char want[300];

	start_plain(f);
	assert_ready(f);
	start_plain(second);
	assert_exits(second, 1);
	snprintf(want, sizeof(want), "another process (pid %d) uses the root '%s'", f->pid,
		 f->root);
	assert_output(second, want);
	assert_false(has_notified(second));
	assert_false(exists(second->address));
	assert_true(can_connect(f->address));
	stop_with(f, SIGTERM);
	/* The next one may. */
	start_plain(second);
	assert_ready(second);
	stop_with(second, SIGTERM);
	teardown((void **)&second);
}

static void live_socket_of_another_process_is_refused(void **state)
{
	struct fixture *f = *state, *second = second_of(f);
	ino_t ino;
	struct stat st;

	start_plain(f);
	assert_ready(f);
	assert_int_equal(lstat(f->address, &st), 0);
	ino = st.st_ino;
	snprintf(second->root_arg, sizeof(second->root_arg), "--root=%s", second->root);
	start(second, ARGS(second->root_arg, f->address_arg));
	assert_exits(second, 1);
	assert_output(second, "another process listens on");
	assert_int_equal(lstat(f->address, &st), 0);
	assert_int_equal(st.st_ino, ino);
	assert_true(can_connect(f->address));
	assert_false(exists_in_root(second, "opened"));
	stop_with(f, SIGTERM);
	teardown((void **)&second);
}

static void restarts_after_kill_9(void **state)
{
	struct fixture *f = *state;

	start_plain(f);
	assert_ready(f);
	assert_int_equal(kill(f->pid, SIGKILL), 0);
	wait_until(has_exited, f, "the daemon to die");
	assert_true(exists(f->address));
	assert_false(can_connect(f->address));
	start_plain(f);
	assert_ready(f);
	assert_true(can_connect(f->address));
	stop_with(f, SIGTERM);
	assert_false(exists(f->address));
}

static void file_in_place_of_the_socket_is_refused_and_kept(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mkdirat(f->dir->fd, "run", 0755), 0);
	assert_int_equal(mkdirat(f->dir->fd, "run/x", 0755), 0);
	write_text(f->address, "precious");
	start_plain(f);
	assert_exits(f, 2);
	assert_output(f, "it is not a socket");
	assert_file_contains(f->address, "precious");
}

static void socket_that_took_our_place_is_kept_at_the_stop(void **state)
{
	struct fixture *f = *state;
	char *other = temp_root_path(f->dir, "other");
	int fd;

	start_plain(f);
	assert_ready(f);
	fd = bound_socket(other, SOCK_STREAM);
	assert_int_equal(rename(other, f->address), 0);
	stop_with(f, SIGTERM);
	assert_true(exists(f->address));
	close(fd);
	free(other);
}

/* --- socket activation ---------------------------------------------------------------------------- */

/** struct hand_over - descriptor, LISTEN_FDS, LISTEN_PID (NULL: that of the daemon) */
struct hand_over {
	int fd;
	const char *n;
	const char *pid;
};

static void hand_over_fd(void *arg)
{
	struct hand_over *hand_over = arg;
	char pid[32];

	snprintf(pid, sizeof(pid), "%d", getpid());
	setenv("LISTEN_FDS", hand_over->n, 1);
	setenv("LISTEN_PID", hand_over->pid ? hand_over->pid : pid, 1);
	if (hand_over->fd == 3)
		fcntl(3, F_SETFD, 0);
	else
		dup2(hand_over->fd, 3);
}

static void inherited_socket_is_served_and_kept(void **state)
{
	struct fixture *f = *state;
	char *path = temp_root_path(f->dir, "inherited");
	struct hand_over hand_over = {.fd = bound_socket(path, SOCK_STREAM), .n = "1"};

	assert_int_equal(listen(hand_over.fd, 8), 0);
	start_in(f, hand_over_fd, &hand_over, ARGS(f->root_arg, f->address_arg));
	assert_ready(f);
	assert_output(f, path);
	assert_false(exists(f->address));
	stop_with(f, SIGTERM);
	assert_true(can_connect(path));
	close(hand_over.fd);
	free(path);
}

static void variables_for_another_process_are_not_for_us(void **state)
{
	struct fixture *f = *state;
	char *path = temp_root_path(f->dir, "inherited");
	struct hand_over hand_over = {.fd = bound_socket(path, SOCK_STREAM), .n = "1", .pid = "1"};

	assert_int_equal(listen(hand_over.fd, 8), 0);
	start_in(f, hand_over_fd, &hand_over, ARGS(f->root_arg, f->address_arg));
	assert_ready(f);
	assert_true(can_connect(f->address));
	stop_with(f, SIGTERM);
	close(hand_over.fd);
	free(path);
}

static void assert_hand_over_refused(struct fixture *f, struct hand_over hand_over,
				     const char *message)
{
	start_in(f, hand_over_fd, &hand_over, ARGS(f->root_arg, f->address_arg));
	assert_exits(f, 2);
	assert_output(f, message);
	assert_false(has_notified(f));
}

static void what_is_no_listening_stream_socket_is_refused(void **state)
{
	static const char message[] = "descriptor 3 of LISTEN_FDS is not a listening Unix stream";
	struct fixture *f = *state;
	char *path = temp_root_path(f->dir, "inherited");
	int bound = bound_socket(path, SOCK_STREAM);
	int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int file = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_hand_over_refused(f, (struct hand_over){.fd = bound, .n = "1"}, message);
	assert_hand_over_refused(f, (struct hand_over){.fd = f->notify_fd, .n = "1"}, message);
	assert_int_equal(listen(tcp, 8), 0);
	assert_hand_over_refused(f, (struct hand_over){.fd = tcp, .n = "1"}, message);
	assert_hand_over_refused(f, (struct hand_over){.fd = file, .n = "1"}, message);
	assert_int_equal(listen(bound, 8), 0);
	assert_hand_over_refused(f, (struct hand_over){.fd = bound, .n = "2"},
				 "LISTEN_FDS is '2', where one socket is wanted");
	assert_hand_over_refused(f, (struct hand_over){.fd = bound, .n = "x"},
				 "LISTEN_FDS is 'x', where one socket is wanted");
	close(bound);
	close(tcp);
	close(file);
	free(path);
}

/* --- the services --------------------------------------------------------------------------------- */

/* In a child, since gRPC does not go with fork(). Return: exit status, 0 for SERVING. */
static int check_health(void *arg)
{
	const struct fixture *f = arg;
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	ProtobufCMessage *response = NULL;
	struct rpc_client *client = NULL;
	struct err err = ERR_INIT;
	struct arena arena;
	struct ctx ctx = {.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	static const char *const names[] = {"", "lighter.test.Fake"};
	int status = 0;

	arena_init(&arena, 1 << 20);
	if (rpc_client_new(f->address, &client, &err) < 0)
		return 1;
	for (size_t i = 0; i < ARRAY_LEN(names) && status == 0; i++) {
		request.service = (char *)names[i];
		if (rpc_client_call(client, &ctx, "/grpc.health.v1.Health/Check", NULL, 0,
				    &request.base,
				    &grpc__health__v1__health_check_response__descriptor, &response,
				    &err) < 0) {
			fprintf(stderr, "%s\n", err.msg);
			status = 2;
		} else if (((Grpc__Health__V1__HealthCheckResponse *)response)->status !=
			   GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING) {
			status = 3;
		}
	}
	rpc_client_free(client);
	arena_done(&arena);
	rpc_library_done();
	return status;
}

static void answers_health_when_ready(void **state)
{
	struct fixture *f = *state;
	int status;

	start(f, ARGS(f->root_arg, f->address_arg, "--log-level=debug"));
	assert_ready(f);
	status = run_child(check_health, f);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	stop_with(f, SIGTERM);
	assert_output(f, "msg=call method=Check api=grpc.health.v1.Health");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(help_names_every_option),
		T(version_is_printed),
		T(printed_configuration_is_accepted),
		T(wrong_usage_exits_2_and_leaves_no_trace),
		T(socket_path_too_long_exits_2),
		T(mistake_in_file_is_told_with_its_line),
		T(check_leaves_no_trace),
		T(what_the_backend_refuses_is_refused_by_check_and_start),
		T(check_looks_at_a_root_that_is_there),
		T(registration_follows_the_configuration),
		T(crash_points_are_listed_first_of_all),
		T(command_gets_its_options_and_arguments),
		T(command_has_a_help_of_its_own),
		T(wrong_usage_of_a_command_exits_2),
		T(failing_command_exits_1),
		T(command_shares_no_root_with_the_daemon),
		T(full_output_is_a_failure),
		T(is_ready_once_it_can_be_reached),
		T(sigterm_and_sigint_stop_cleanly),
		T(second_signal_stops_at_once),
		T(sighup_and_sigpipe_stop_nothing),
		T(failing_backend_is_not_ready_and_exits_as_it_failed),
		T(runs_when_the_service_manager_is_gone),
		T(modes_are_right_whatever_the_umask),
		T(socket_mode_and_group_follow_the_configuration),
		T(backend_gets_its_options_and_every_descriptor_there_is),
		T(log_lines_take_the_configured_form),
		T(open_root_of_ours_is_closed_to_others),
		T(directory_of_others_is_refused_as_root),
		T(root_of_another_user_is_refused),
		T(path_through_a_file_is_refused),
		T(log_never_ends_up_in_a_file_of_ours),
		T(second_process_on_a_root_is_refused),
		T(live_socket_of_another_process_is_refused),
		T(restarts_after_kill_9),
		T(file_in_place_of_the_socket_is_refused_and_kept),
		T(socket_that_took_our_place_is_kept_at_the_stop),
		T(inherited_socket_is_served_and_kept),
		T(variables_for_another_process_are_not_for_us),
		T(what_is_no_listening_stream_socket_is_refused),
		T(answers_health_when_ready),
	};

	if (argc != 2) {
		fprintf(stderr, "usage: %s DAEMON\n", argv[0]);
		return 2;
	}
	daemon_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
