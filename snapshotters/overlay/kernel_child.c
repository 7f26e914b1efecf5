/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshotters/overlay/kernel_child.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

void kernel_child_die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

/*
 * Our parent may be killed at any time, and its successor must not find its lock and its socket still open
 * in us: they are let go of before all else, and we do not outlive it. @out becomes descriptor 0.
 */
static void leave_parent(pid_t parent, int out)
{
	kernel_child_die_with(parent);
	if (dup2(out, STDIN_FILENO) < 0 || syscall(SYS_close_range, 3u, ~0u, 0u) < 0)
		_exit(1);
}

static int enter_namespace(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return errno;
	return 0;
}

static void tell(const void *data, size_t size)
{
	if (write(STDIN_FILENO, data, size) != (ssize_t)size)
		_exit(1);
}

static void child_main(kernel_child_fn fn, const void *arg, void *result, size_t size)
{
	int untried = enter_namespace();

	memset(result, 0, size);
	if (!untried)
		untried = fn(arg, result);
	tell(&untried, sizeof(untried));
	tell(result, size);
	_exit(0);
}

/* Return: has all of it come? */
static bool hear(int fd, void *data, size_t size)
{
	ssize_t n;

	do
		n = read(fd, data, size);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)size;
}

int kernel_child_run(kernel_child_fn fn, const void *arg, void *result, size_t size, int *ret_errno,
		     struct err *err)
{
	CLEANUP(close_fd) int in = -1;
	CLEANUP(close_fd) int out = -1;
	int ends[2], untried = 0;
	pid_t self = getpid(), pid;
	bool heard;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, "try overlay mounts");
	in = ends[0];
	out = ends[1];
	pid = fork();
	if (pid < 0)
		return err_sys(err, "try overlay mounts");
	if (pid == 0) {
		leave_parent(self, out);
		child_main(fn, arg, result, size);
	}
	close_fd(&out);
	out = -1;
	heard = hear(in, &untried, sizeof(untried)) && hear(in, result, size);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (!heard)
		return err_set(err, ERR_INTERNAL, "the process that tries overlay mounts has died");
	*ret_errno = untried;
	return untried ? 1 : 0;
}
