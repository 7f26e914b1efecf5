/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failures on request in calls of the C library. A test that links lighter_test_faults has the calls of
 * FAULT_CALLS led through here, from all code that is linked into it; the rest is as ever.
 */
#ifndef LIGHTER_TESTS_SUPPORT_FAULT_H
#define LIGHTER_TESTS_SUPPORT_FAULT_H

/* The calls that can be made to fail; tests/support/CMakeLists.txt names the same ones to the linker. */
enum fault_call {
	FAULT_MALLOC,
	FAULT_CALLOC,
	FAULT_REALLOC,
	FAULT_FSYNC,
	FAULT_SYNCFS,
	FAULT_WRITE,
	FAULT_RENAMEAT,
	FAULT_GETDENTS64,
	FAULT_PTHREAD_CREATE,
	FAULT_PWRITEV,
	FAULT_LINKAT,
	FAULT_OPENAT,
	FAULT_PREAD,
	FAULT_N_CALLS,
};

/**
 * fault_after() - let @n calls of @call work, then fail all with @errnum, until fault_clear()
 * @n: 0 fails at once
 */
void fault_after(enum fault_call call, unsigned int n, int errnum);

/** fault_hook() - once, after @n more calls of @call, run @fn before the next; none of its own calls count */
void fault_hook(enum fault_call call, unsigned int n, void (*fn)(void *arg), void *arg);

/** fault_short_writes() - from now on write() writes one byte at a time */
void fault_short_writes(void);

/** fault_n_failed() - how many have failed since fault_clear() */
unsigned int fault_n_failed(void);

/** fault_clear() - all calls work again. Return: how many failed since it was called last. */
unsigned int fault_clear(void);

#endif
