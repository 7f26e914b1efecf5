/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* @errnum: 0 lets all calls work */
static struct {
	atomic_int errnum;
	atomic_int n_before;
} faults[FAULT_N_CALLS];

/* Set while no other thread is at work; then any may be the one to run it. */
static struct {
	enum fault_call call;
	atomic_int n_before;
	void (*_Atomic fn)(void *arg);
	void *arg;
} hook;

static atomic_bool writes_are_short;
static atomic_uint n_failed;

void fault_after(enum fault_call call, unsigned int n, int errnum)
{
	atomic_store(&faults[call].n_before, (int)n);
	atomic_store(&faults[call].errnum, errnum);
}

void fault_hook(enum fault_call call, unsigned int n, void (*fn)(void *arg), void *arg)
{
	hook.call = call;
	atomic_store(&hook.n_before, (int)n);
	hook.arg = arg;
	hook.fn = fn;
}

static void run_hook(enum fault_call call)
{
	void (*fn)(void *arg) = hook.fn;

	if (!fn || call != hook.call || atomic_fetch_sub(&hook.n_before, 1) > 0)
		return;
	if (atomic_exchange(&hook.fn, NULL))
		fn(hook.arg);
}

void fault_short_writes(void)
{
	atomic_store(&writes_are_short, true);
}

unsigned int fault_n_failed(void)
{
	return atomic_load(&n_failed);
}

unsigned int fault_clear(void)
{
	for (int i = 0; i < FAULT_N_CALLS; i++)
		atomic_store(&faults[i].errnum, 0);
	atomic_store(&writes_are_short, false);
	hook.fn = NULL;
	return atomic_exchange(&n_failed, 0);
}

/* Return: the errno to fail with, or 0. */
static int fault_of(enum fault_call call)
{
	int errnum;

	run_hook(call);
	errnum = atomic_load(&faults[call].errnum);
	if (errnum == 0 || atomic_fetch_sub(&faults[call].n_before, 1) > 0)
		return 0;
	atomic_store(&faults[call].n_before, 0);
	atomic_fetch_add(&n_failed, 1);
	errno = errnum;
	return errnum;
}

/* ld(1), --wrap: calls of NAME come to __wrap_NAME, and __real_NAME is the function itself. */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_syncfs(int fd);
int __wrap_syncfs(int fd);
ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
ssize_t __real_getdents64(int fd, void *buf, size_t size);
ssize_t __wrap_getdents64(int fd, void *buf, size_t size);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);

ssize_t __real_pwritev(int fd, const struct iovec *pieces, int n, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *pieces, int n, off_t offset);
int __real_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags);
int __wrap_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags);
int __real_openat(int dirfd, const char *path, int flags, ...);
int __wrap_openat(int dirfd, const char *path, int flags, ...);
ssize_t __real_pread(int fd, void *buf, size_t size, off_t offset);
ssize_t __wrap_pread(int fd, void *buf, size_t size, off_t offset);

void *__wrap_malloc(size_t size)
{
	return fault_of(FAULT_MALLOC) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fault_of(FAULT_CALLOC) ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return fault_of(FAULT_REALLOC) ? NULL : __real_realloc(p, size);
}

int __wrap_fsync(int fd)
{
	return fault_of(FAULT_FSYNC) ? -1 : __real_fsync(fd);
}

int __wrap_syncfs(int fd)
{
	return fault_of(FAULT_SYNCFS) ? -1 : __real_syncfs(fd);
}

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
	if (fault_of(FAULT_WRITE))
		return -1;
	return __real_write(fd, data, atomic_load(&writes_are_short) && size > 1 ? 1 : size);
}

int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return fault_of(FAULT_RENAMEAT) ? -1 : __real_renameat(from_fd, from, to_fd, to);
}

ssize_t __wrap_getdents64(int fd, void *buf, size_t size)
{
	return fault_of(FAULT_GETDENTS64) ? -1 : __real_getdents64(fd, buf, size);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg)
{
	int errnum = fault_of(FAULT_PTHREAD_CREATE);

	return errnum ? errnum : __real_pthread_create(thread, attr, fn, arg);
}

/* Short writes take one byte of the first piece that has any. */
ssize_t __wrap_pwritev(int fd, const struct iovec *pieces, int n, off_t offset)
{
	struct iovec first;

	if (fault_of(FAULT_PWRITEV))
		return -1;
	if (!atomic_load(&writes_are_short))
		return __real_pwritev(fd, pieces, n, offset);
	while (n > 1 && pieces->iov_len == 0) {
		pieces++;
		n--;
	}
	first = (struct iovec){pieces->iov_base, pieces->iov_len > 1 ? 1 : pieces->iov_len};
	return __real_pwritev(fd, &first, 1, offset);
}

int __wrap_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	return fault_of(FAULT_LINKAT) ? -1 : __real_linkat(from_fd, from, to_fd, to, flags);
}

int __wrap_openat(int dirfd, const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list args;

	if (fault_of(FAULT_OPENAT))
		return -1;
	if (flags & (O_CREAT | O_TMPFILE)) {
		va_start(args, flags);
		mode = va_arg(args, mode_t);
		va_end(args);
	}
	return __real_openat(dirfd, path, flags, mode);
}

ssize_t __wrap_pread(int fd, void *buf, size_t size, off_t offset)
{
	return fault_of(FAULT_PREAD) ? -1 : __real_pread(fd, buf, size, offset);
}
