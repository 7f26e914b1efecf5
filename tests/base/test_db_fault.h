/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that fails on request, seen from sqlite: a VFS of ours in front of its own.
 */
#ifndef LIGHTER_TESTS_BASE_TEST_DB_FAULT_H
#define LIGHTER_TESTS_BASE_TEST_DB_FAULT_H

enum db_fault {
	DB_FAULT_NONE,
	DB_FAULT_WRITE_ENOSPC,
	DB_FAULT_WRITE_SHORT, /* half of it is written, then the disk is full */
	DB_FAULT_WRITE_EIO,
	DB_FAULT_SYNC_EIO, /* what was written before stays */
	DB_FAULT_SYNC_EDQUOT,
	DB_FAULT_READ_EIO, /* as sqlite's own VFS tells it */
};

/** db_fault_install() - make it sqlite's default; before any database is opened */
void db_fault_install(void);

/** db_fault_once() - let @after writes (or syncs, or reads) work, fail the next one, then work again */
void db_fault_once(enum db_fault fault, unsigned int after);

/** db_fault_from() - let @after writes (or syncs, or reads) work, fail all that follow */
void db_fault_from(enum db_fault fault, unsigned int after);

/** db_fault_only() - from now on, only files whose names contain @part fail; NULL: all. It is borrowed. */
void db_fault_only(const char *part);

/** db_fault_clear() - work again. Return: how many failed since it was called last. */
unsigned int db_fault_clear(void);

/** db_fault_make_foreign() - make the database of somebody else at @path */
void db_fault_make_foreign(const char *path);

#endif
