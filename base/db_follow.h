/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a database that another process makes, writes by db.h, and may delete and make anew, at any time. Readers do
 * not hold up the writer, nor it them; and when it is killed, what it had committed goes on to be read. Any thread.
 */
#ifndef LIGHTER_BASE_DB_FOLLOW_H
#define LIGHTER_BASE_DB_FOLLOW_H

#include "base/db.h"

struct db_follower;

/**
 * struct db_follow_options - what to follow
 * @path: of the database; it need not be there, nor its directory
 * @application_id, @version: as the writer's struct db_options has it, and the number of its migrations
 */
struct db_follow_options {
	const char *path;
	int32_t application_id;
	int64_t version;
};

/** db_follower_new() - nothing is opened yet; @options are borrowed for the call */
ERR_CHECKED int db_follower_new(const struct db_follow_options *options,
				struct db_follower **ret_follower, struct err *err);

/** db_follower_free() - accepts NULL */
void db_follower_free(struct db_follower *follower);

/**
 * db_follow() - run @fn in one read transaction of the database that is there now; one thread at a time
 * @fn: may be run again, when the database was replaced meanwhile: it sets its results anew. No writing.
 * Return: what @fn returned; or -1, with
 *	ERR_NOT_FOUND		there is none, or it is being made
 *	ERR_FAILED_PRECONDITION	it is something else, or of another version
 *	ERR_DATA_LOSS		it is damaged
 *	ERR_UNAVAILABLE		it was replaced again and again, or is held by somebody else's sqlite
 */
ERR_CHECKED int db_follow(struct db_follower *follower, db_read_fn fn, void *arg, struct err *err);

#endif
