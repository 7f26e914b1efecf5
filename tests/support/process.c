/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/process.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/ctx.h"
#include "tests/support/test.h"

/* Ends what would hang for ever; no test passes or fails by it on a machine that moves at all. */
#define PATIENCE_NS (600 * INT64_C(1000000000))

void test_assert_contains(const char *text, const char *part, const char *file, int line)
{
	if (text && strstr(text, part))
		return;
	print_error("'%s' is not in '%s'\n", part, text ? text : "(null)");
	_fail(file, line);
}

void require_root(void)
{
	if (geteuid() == 0)
		return;
	print_message("skipped: needs root\n");
	skip();
}

/* Why there is no namespace; "": there is one. NULL: nobody tried. */
static const char *no_private_mounts;

int private_mounts_setup(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNS) < 0) {
		no_private_mounts = strerror(errno);
		return 0;
	}
	no_private_mounts = "";
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

void require_private_mounts(void)
{
	if (!no_private_mounts)
		fail_msg("private_mounts_setup() is missing");
	if (no_private_mounts[0] == '\0')
		return;
	print_message("skipped: needs a mount namespace of its own: %s\n", no_private_mounts);
	skip();
}

void mount_tmpfs(const char *path, size_t size_bytes)
{
	char options[64];

	snprintf(options, sizeof(options), "size=%zu,mode=0700", size_bytes);
	if (mount("tmpfs", path, "tmpfs", 0, options) < 0)
		fail_msg("mount tmpfs on %s: %s", path, strerror(errno));
}

static void pause_briefly(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void wait_until(bool (*is_true)(void *arg), void *arg, const char *what)
{
	int64_t end = monotonic_ns() + PATIENCE_NS;

	while (!is_true(arg)) {
		if (monotonic_ns() > end)
			fail_msg("waited ten minutes for: %s", what);
		pause_briefly();
	}
}

int run_child(int (*fn)(void *arg), void *arg)
{
	int64_t end = monotonic_ns() + PATIENCE_NS;
	int status = 0;
	pid_t pid;

	/* What is buffered would be written by both. */
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		fail_msg("fork: %s", strerror(errno));
	if (pid == 0) {
		int rc = fn(arg);

		fflush(NULL);
		_exit(rc);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (monotonic_ns() > end)
			kill(pid, SIGKILL);
		pause_briefly();
	}
	return status;
}

void capture_begin(struct capture *capture, int fd)
{
	fflush(NULL);
	capture->fd = fd;
	capture->saved_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	capture->file_fd = memfd_create("capture", MFD_CLOEXEC);
	if (capture->saved_fd < 0 || capture->file_fd < 0 || dup2(capture->file_fd, fd) < 0)
		fail_msg("capture descriptor %d: %s", fd, strerror(errno));
}

char *capture_end(struct capture *capture)
{
	struct stat st;
	char *text;

	fflush(NULL);
	if (dup2(capture->saved_fd, capture->fd) < 0 || fstat(capture->file_fd, &st) < 0)
		fail_msg("end capture of descriptor %d: %s", capture->fd, strerror(errno));
	text = calloc(1, (size_t)st.st_size + 1);
	if (!text || pread(capture->file_fd, text, (size_t)st.st_size, 0) != st.st_size)
		fail_msg("read what was captured: %s", strerror(errno));
	close(capture->saved_fd);
	close(capture->file_fd);
	return text;
}
