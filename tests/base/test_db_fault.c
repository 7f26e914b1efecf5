/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/base/test_db_fault.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/compiler.h"

/** struct fault_file - the file of the real VFS follows in memory */
struct fault_file {
	sqlite3_file base;
	sqlite3_file *real;
	const char *name; /* valid as long as it is open; NULL: a temporary file */
	int last_errno;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum db_fault armed;
static unsigned int left; /* calls that work before the fault */
static bool once;
static unsigned int n_faults;
static const char *only; /* part of the names of files that fail */
static sqlite3_vfs *real_vfs;

enum call { CALL_READ, CALL_WRITE, CALL_SYNC };

static enum call call_of(enum db_fault fault)
{
	switch (fault) {
	case DB_FAULT_SYNC_EIO:
	case DB_FAULT_SYNC_EDQUOT:
		return CALL_SYNC;
	case DB_FAULT_READ_EIO:
		return CALL_READ;
	default:
		return CALL_WRITE;
	}
}

static enum db_fault next_fault(sqlite3_file *file, enum call call)
{
	const char *name = ((struct fault_file *)file)->name;
	enum db_fault fault;

	LOCK_GUARD(&lock);
	fault = armed;
	if (fault == DB_FAULT_NONE || call_of(fault) != call)
		return DB_FAULT_NONE;
	if (only && (!name || !strstr(name, only)))
		return DB_FAULT_NONE;
	if (left > 0) {
		left--;
		return DB_FAULT_NONE;
	}
	if (once)
		armed = DB_FAULT_NONE;
	n_faults++;
	return fault;
}

static sqlite3_file *real_of(sqlite3_file *file)
{
	return ((struct fault_file *)file)->real;
}

static int fail(sqlite3_file *file, int errnum, int status)
{
	((struct fault_file *)file)->last_errno = errnum;
	errno = errnum;
	return status;
}

static int fault_close(sqlite3_file *file)
{
	return real_of(file)->pMethods->xClose(real_of(file));
}

static int fault_read(sqlite3_file *file, void *data, int n, sqlite3_int64 at)
{
	/* unixRead(): EIO is not IOERR_READ, as one would think. */
	if (next_fault(file, CALL_READ) == DB_FAULT_READ_EIO)
		return fail(file, EIO, SQLITE_IOERR_CORRUPTFS);
	return real_of(file)->pMethods->xRead(real_of(file), data, n, at);
}

static int fault_write(sqlite3_file *file, const void *data, int n, sqlite3_int64 at)
{
	sqlite3_file *real = real_of(file);

	switch (next_fault(file, CALL_WRITE)) {
	case DB_FAULT_WRITE_SHORT:
		(void)real->pMethods->xWrite(real, data, n / 2, at);
		return fail(file, ENOSPC, SQLITE_FULL);
	case DB_FAULT_WRITE_ENOSPC:
		return fail(file, ENOSPC, SQLITE_FULL);
	case DB_FAULT_WRITE_EIO:
		return fail(file, EIO, SQLITE_IOERR_WRITE);
	default:
		return real->pMethods->xWrite(real, data, n, at);
	}
}

static int fault_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	return real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int fault_sync(sqlite3_file *file, int flags)
{
	switch (next_fault(file, CALL_SYNC)) {
	case DB_FAULT_SYNC_EIO:
		return fail(file, EIO, SQLITE_IOERR_FSYNC);
	case DB_FAULT_SYNC_EDQUOT:
		return fail(file, EDQUOT, SQLITE_IOERR_FSYNC);
	default:
		return real_of(file)->pMethods->xSync(real_of(file), flags);
	}
}

static int fault_file_size(sqlite3_file *file, sqlite3_int64 *size)
{
	return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int fault_lock(sqlite3_file *file, int level)
{
	return real_of(file)->pMethods->xLock(real_of(file), level);
}

static int fault_unlock(sqlite3_file *file, int level)
{
	return real_of(file)->pMethods->xUnlock(real_of(file), level);
}

static int fault_check_lock(sqlite3_file *file, int *result)
{
	return real_of(file)->pMethods->xCheckReservedLock(real_of(file), result);
}

static int fault_control(sqlite3_file *file, int op, void *arg)
{
	struct fault_file *fault = (struct fault_file *)file;

	if (op == SQLITE_FCNTL_LAST_ERRNO && fault->last_errno) {
		*(int *)arg = fault->last_errno;
		return SQLITE_OK;
	}
	return real_of(file)->pMethods->xFileControl(real_of(file), op, arg);
}

static int fault_sector_size(sqlite3_file *file)
{
	return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int fault_characteristics(sqlite3_file *file)
{
	return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int fault_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **map)
{
	return real_of(file)->pMethods->xShmMap(real_of(file), page, size, extend, map);
}

static int fault_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
	return real_of(file)->pMethods->xShmLock(real_of(file), offset, n, flags);
}

static void fault_shm_barrier(sqlite3_file *file)
{
	real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int fault_shm_unmap(sqlite3_file *file, int remove)
{
	return real_of(file)->pMethods->xShmUnmap(real_of(file), remove);
}

static int fault_fetch(sqlite3_file *file, sqlite3_int64 at, int n, void **ret)
{
	return real_of(file)->pMethods->xFetch(real_of(file), at, n, ret);
}

static int fault_unfetch(sqlite3_file *file, sqlite3_int64 at, void *data)
{
	return real_of(file)->pMethods->xUnfetch(real_of(file), at, data);
}

static const sqlite3_io_methods fault_methods = {
	.iVersion = 3,
	.xClose = fault_close,
	.xRead = fault_read,
	.xWrite = fault_write,
	.xTruncate = fault_truncate,
	.xSync = fault_sync,
	.xFileSize = fault_file_size,
	.xLock = fault_lock,
	.xUnlock = fault_unlock,
	.xCheckReservedLock = fault_check_lock,
	.xFileControl = fault_control,
	.xSectorSize = fault_sector_size,
	.xDeviceCharacteristics = fault_characteristics,
	.xShmMap = fault_shm_map,
	.xShmLock = fault_shm_lock,
	.xShmBarrier = fault_shm_barrier,
	.xShmUnmap = fault_shm_unmap,
	.xFetch = fault_fetch,
	.xUnfetch = fault_unfetch,
};

static int fault_open(UNUSED sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
		      int *ret_flags)
{
	struct fault_file *fault = (struct fault_file *)file;
	int status;

	fault->real = (sqlite3_file *)(fault + 1);
	fault->real->pMethods = NULL;
	fault->name = name;
	fault->last_errno = 0;
	status = real_vfs->xOpen(real_vfs, name, fault->real, flags, ret_flags);
	fault->base.pMethods = fault->real->pMethods ? &fault_methods : NULL;
	return status;
}

void db_fault_install(void)
{
	static sqlite3_vfs vfs;

	real_vfs = sqlite3_vfs_find(NULL);
	if (!real_vfs)
		abort();
	vfs = *real_vfs;
	vfs.zName = "fault";
	vfs.pNext = NULL;
	vfs.szOsFile += (int)sizeof(struct fault_file);
	vfs.xOpen = fault_open;
	if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK)
		abort();
}

static void arm(enum db_fault fault, unsigned int after, bool only_once)
{
	LOCK_GUARD(&lock);
	armed = fault;
	left = after;
	once = only_once;
}

void db_fault_once(enum db_fault fault, unsigned int after)
{
	arm(fault, after, true);
}

void db_fault_from(enum db_fault fault, unsigned int after)
{
	arm(fault, after, false);
}

void db_fault_only(const char *part)
{
	LOCK_GUARD(&lock);
	only = part;
}

unsigned int db_fault_clear(void)
{
	unsigned int n;

	LOCK_GUARD(&lock);
	n = n_faults;
	n_faults = 0;
	armed = DB_FAULT_NONE;
	return n;
}

void db_fault_make_foreign(const char *path)
{
	sqlite3 *handle;

	if (sqlite3_open(path, &handle) != SQLITE_OK ||
	    sqlite3_exec(handle, "CREATE TABLE theirs (x)", NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_close(handle) != SQLITE_OK)
		abort();
}
