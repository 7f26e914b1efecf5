/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound release of what a local variable owns.
 *
 *	CLEANUP(close_fd) int fd = -1;
 *	CLEANUP(free_ptr) char *name = NULL;
 *
 * Declare with a neutral value on the same line; move ownership out with take_fd() or take_ptr().
 */
#ifndef LIGHTER_BASE_CLEANUP_H
#define LIGHTER_BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* Keeps errno: an early return reports the error that caused it, not one of close(). */
static inline void close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	errno = saved;
}

static inline void close_dir(DIR **dir)
{
	int saved = errno;

	if (*dir)
		(void)closedir(*dir);
	errno = saved;
}

/* For any pointer from malloc(); takes the address of the variable. */
static inline void free_ptr(void *address)
{
	free(*(void **)address);
}

static inline void unlock_mutex(pthread_mutex_t **mutex)
{
	if (*mutex)
		pthread_mutex_unlock(*mutex);
}

/* Holds @mutex until the end of the enclosing block. */
#define LOCK_GUARD_JOIN(a, b) a##b
#define LOCK_GUARD_NAME(line) LOCK_GUARD_JOIN(lock_guard_, line)
#define LOCK_GUARD(mutex)                                                                          \
	CLEANUP(unlock_mutex)                                                                      \
	pthread_mutex_t *LOCK_GUARD_NAME(__LINE__) __attribute__((unused)) = (mutex);              \
	pthread_mutex_lock(LOCK_GUARD_NAME(__LINE__))

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define take_ptr(p)                                                                                \
	({                                                                                         \
		__typeof__(p) *address_ = &(p);                                                    \
		__typeof__(p) taken_ = *address_;                                                  \
		*address_ = NULL;                                                                  \
		taken_;                                                                            \
	})

#endif
