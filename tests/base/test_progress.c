/* SPDX-License-Identifier: Apache-2.0 */
#include "base/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ctx.h"
#include "tests/support/fault.h"
#include "tests/support/process.h"
#include "tests/support/test.h"

#define S INT64_C(1000000000)

/* --- the line -------------------------------------------------------------------------------------------- */

static void line_shows_how_far_it_is(void **state)
{
	struct progress p;
	char line[256];

	(void)state;
	progress_init(&p, "verifying", "blobs");
	p.total_items = 200;
	p.total_bytes = UINT64_C(4000) << 20;
	progress_format(&p, 0, 200, line, sizeof(line));
	assert_string_equal(line, "verifying [....................]   0 %, 0/200 blobs, 0 B of "
				  "3.9 GiB");
	p.done_items = 50;
	p.done_bytes = 1000u << 20;
	progress_format(&p, 10 * S, 200, line, sizeof(line));
	assert_string_equal(line, "verifying [#####...............]  25 %, 50/200 blobs, 1000.0 "
				  "MiB of 3.9 GiB, 100.0 MiB/s, 30 s left");
	/* What was done by an earlier run says nothing about the rate. */
	progress_resume(&p, 25, 500u << 20);
	progress_format(&p, 10 * S, 200, line, sizeof(line));
	assert_string_equal(line, "verifying [##..................]  12 %, 25/200 blobs, 500.0 MiB "
				  "of 3.9 GiB");
	p.done_items = 50;
	p.done_bytes = 1000u << 20;
	progress_format(&p, 10 * S, 200, line, sizeof(line));
	assert_contains(line, ", 50.0 MiB/s, 60 s left");
	/* What does not fit goes: the bar first. */
	progress_format(&p, 10 * S, 79, line, sizeof(line));
	assert_string_equal(line, "verifying  25 %, 50/200 blobs, 1000.0 MiB of 3.9 GiB, 50.0 "
				  "MiB/s, 60 s left");
	progress_format(&p, 10 * S, 20, line, sizeof(line));
	assert_string_equal(line, "verifying  25 %, 50/");
	/* More than there was when it began. */
	p.done_bytes = UINT64_C(5000) << 20;
	progress_format(&p, 10 * S, 200, line, sizeof(line));
	assert_contains(line, "[####################] 100 %");
	progress_done(&p);
}

static void empty_work_is_measured_by_its_number(void **state)
{
	struct progress p;
	char line[256];

	(void)state;
	progress_init(&p, "importing", "blobs");
	progress_format(&p, 0, 200, line, sizeof(line));
	assert_contains(line, "  0 %, 0/0 blobs");
	p.total_items = 4;
	p.done_items = 3;
	progress_format(&p, 0, 200, line, sizeof(line));
	assert_contains(line, " 75 %, 3/4 blobs, 0 B of 0 B");
	progress_done(&p);
}

/* --- running ----------------------------------------------------------------------------------------------- */

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static int fail_as_told(void *arg, struct err *err)
{
	return arg ? err_set(err, ERR_DATA_LOSS, "told to") : 5;
}

static void result_of_the_work_is_returned(void **state)
{
	struct err err = ERR_INIT;
	struct progress p;
	int signum = -1;

	(void)state;
	progress_init(&p, "x", "y");
	assert_int_equal(progress_run(&p, fail_as_told, NULL, &signum, &err), 5);
	assert_int_equal(signum, 0);
	assert_fails(progress_run(&p, fail_as_told, &p, &signum, &err), &err, ERR_DATA_LOSS);
	assert_int_equal(signum, 0);
	fault_after(FAULT_PTHREAD_CREATE, 0, EAGAIN);
	assert_fails(progress_run(&p, fail_as_told, NULL, &signum, &err), &err, ERR_UNAVAILABLE);
	fault_clear();
	progress_done(&p);
}

static int until_cancelled(void *arg, struct err *err)
{
	struct progress *p = arg;

	(void)err;
	kill(getpid(), SIGTERM);
	while (!p->cancelled)
		usleep(1000);
	return 3;
}

static int be_stopped(void *arg)
{
	struct err err = ERR_INIT;
	struct progress p;
	int signum = 0;

	(void)arg;
	block_signals();
	progress_init(&p, "x", "y");
	if (progress_run(&p, until_cancelled, &p, &signum, &err) != 3)
		return 1;
	progress_done(&p);
	return signum == SIGTERM ? 0 : 2;
}

static void signal_cancels_the_work(void **state)
{
	int status = run_child(be_stopped, NULL);

	(void)state;
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int never_end(void *arg, struct err *err)
{
	struct progress *p = arg;

	(void)err;
	kill(getpid(), SIGINT);
	while (!p->cancelled)
		usleep(1000);
	/* The second one; blocked until the first has been seen to. */
	for (;;) {
		kill(getpid(), SIGTERM);
		usleep(1000);
	}
	return 0;
}

static int be_stopped_twice(void *arg)
{
	struct err err = ERR_INIT;
	struct progress p;
	int signum = 0;

	(void)arg;
	block_signals();
	progress_init(&p, "x", "y");
	(void)!progress_run(&p, never_end, &p, &signum, &err);
	return 1;
}

static void second_signal_ends_the_process(void **state)
{
	int status = run_child(be_stopped_twice, NULL);

	(void)state;
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGTERM);
}

/* --- on a terminal -------------------------------------------------------------------------------------------- */

struct terminal {
	int master_fd;
	int saved_fd;
};

static struct terminal begin_terminal(void)
{
	struct winsize window = {.ws_row = 24, .ws_col = 60};
	struct terminal t;
	int fd;

	t.master_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(t.master_fd >= 0);
	assert_int_equal(grantpt(t.master_fd), 0);
	assert_int_equal(unlockpt(t.master_fd), 0);
	fd = open(ptsname(t.master_fd), O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, TIOCSWINSZ, &window), 0);
	fflush(NULL);
	t.saved_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	dup2(fd, STDERR_FILENO);
	close(fd);
	return t;
}

static void end_terminal(struct terminal *t, char *buf, size_t size)
{
	size_t n = 0;
	ssize_t got;

	/* Once nobody has it open any more, reading ends with EIO. */
	dup2(t->saved_fd, STDERR_FILENO);
	close(t->saved_fd);
	while (n < size - 1 && (got = read(t->master_fd, buf + n, size - 1 - n)) > 0)
		n += (size_t)got;
	close(t->master_fd);
	buf[n] = '\0';
}

static bool is_drawn(void *arg)
{
	struct progress *p = arg;
	bool drawn;

	pthread_mutex_lock(&p->mutex);
	drawn = p->drawn;
	pthread_mutex_unlock(&p->mutex);
	return drawn;
}

static int print_in_the_middle(void *arg, struct err *err)
{
	struct progress *p = arg;

	(void)err;
	while (!is_drawn(p))
		usleep(1000);
	progress_print(p, stderr, "a line\n");
	while (!is_drawn(p))
		usleep(1000);
	return 0;
}

static void lines_are_not_written_into_the_bar(void **state)
{
	struct err err = ERR_INIT;
	struct terminal terminal;
	struct progress p;
	char text[16384], *line;
	int signum;

	(void)state;
	terminal = begin_terminal();
	progress_init(&p, "verifying", "blobs");
	assert_true(p.draws);
	p.total_items = 1;
	assert_int_equal(progress_run(&p, print_in_the_middle, &p, &signum, &err), 0);
	progress_done(&p);
	end_terminal(&terminal, text, sizeof(text));
	/* Drawn, erased, the line, drawn again, erased at the end. */
	assert_int_equal(strncmp(text, "\r\033[Kverifying ", 14), 0);
	line = strstr(text, "\r\033[Ka line");
	assert_non_null(line);
	assert_contains(line, "\r\033[Kverifying ");
	assert_string_equal(text + strlen(text) - 4, "\r\033[K");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(line_shows_how_far_it_is),
		cmocka_unit_test(empty_work_is_measured_by_its_number),
		cmocka_unit_test(result_of_the_work_is_returned),
		cmocka_unit_test(signal_cancels_the_work),
		cmocka_unit_test(second_signal_ends_the_process),
		cmocka_unit_test(lines_are_not_written_into_the_bar),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
