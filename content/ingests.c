/* SPDX-License-Identifier: Apache-2.0 */
#include "content/ingests.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/thread.h"
#include "content/ingest_bytes.h"
#include "content/ingest_head.h"

/*
 * How long a writer waits for the one before it: a client that closes and opens again does not wait for the
 * end of its own stream.
 */
#define LOCK_WAIT_NS   (500 * INT64_C(1000000))
/* Waiting writers each hold a thread of the server: beyond these, one is told to try again at once. */
#define WAITERS_MAX    4
#define N_BUCKETS      1024
#define NSEC_PER_SEC   INT64_C(1000000000)
/* Of all ingests that are held in memory. */
#define MEMORY_MAX     128
/* "<id>.ref" */
#define NAME_MAX_BYTES 32

/**
 * struct ingest - one
 * @refs: the table's while it is in there, its writer's, and those of who is about to delete it
 * @mutex: held over what is done to its files; taken before the table's
 * @bytes: the file, open while there is a writer
 * @has_head: the .ref file is there
 *
 * The table's mutex guards the rest:
 * @locked: there is a writer
 * @gone: not in the table any more, and its files are deleted, or will be by whoever took it out
 */
struct ingest {
	struct ingests *table;
	uint64_t id;
	unsigned int refs;

	pthread_mutex_t mutex;
	struct ingest_bytes bytes;
	bool has_head;

	struct ingest *next; /* in its bucket */
	bool locked;
	bool gone;
	char *ref;
	size_t ref_len;
	uint64_t offset_bytes;
	uint64_t total_bytes;
	int64_t started_ns;
	int64_t updated_ns;
};

/** struct ingests - see ingests.h; @unlocked: some ingest has lost its writer, or is gone */
struct ingests {
	int fd;

	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t unlocked;
	unsigned int n_waiting;
	struct ingest *buckets[N_BUCKETS];
	size_t n;
	size_t ref_bytes;
	uint64_t last_id;
	unsigned int n_in_memory;
};

static void data_name(const struct ingest *ingest, char name[NAME_MAX_BYTES])
{
	snprintf(name, NAME_MAX_BYTES, "%" PRIu64, ingest->id);
}

static void head_name(const struct ingest *ingest, char name[NAME_MAX_BYTES])
{
	snprintf(name, NAME_MAX_BYTES, "%" PRIu64 ".ref", ingest->id);
}

/* --- the table ------------------------------------------------------------------------------------ */

/* FNV-1a. Who chooses references to collide slows down a search by as many as he may have. */
static struct ingest **bucket_of(struct ingests *ingests, const char *ref)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (; *ref; ref++)
		hash = (hash ^ (unsigned char)*ref) * UINT64_C(0x100000001b3);
	return &ingests->buckets[hash % N_BUCKETS];
}

/* The table's lock is held, here and below. Return: the link to it, which may hold NULL. */
static struct ingest **find_link(struct ingests *ingests, const char *ref)
{
	struct ingest **link = bucket_of(ingests, ref);

	while (*link && strcmp((*link)->ref, ref) != 0)
		link = &(*link)->next;
	return link;
}

static void free_ingest(struct ingest *ingest)
{
	ingest_bytes_done(&ingest->bytes);
	pthread_mutex_destroy(&ingest->mutex);
	free(ingest->ref);
	free(ingest);
}

/* Takes @ref, also on failure. */
static int new_ingest(struct ingests *ingests, uint64_t id, char *ref, struct ingest **ret_ingest,
		      struct err *err)
{
	struct ingest *ingest = calloc(1, sizeof(*ingest));

	if (!ingest || !ref) {
		free(ingest);
		free(ref);
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for an ingest");
	}
	ingest->table = ingests;
	ingest->id = id;
	ingest->ref = ref;
	ingest->ref_len = strlen(ref);
	ingest_bytes_init(&ingest->bytes);
	pthread_mutex_init(&ingest->mutex, NULL);
	*ret_ingest = ingest;
	return 0;
}

static int put_in(struct ingests *ingests, struct ingest *ingest, struct err *err)
{
	struct ingest **bucket = bucket_of(ingests, ingest->ref);

	if (ingests->n >= INGESTS_MAX ||
	    ingests->ref_bytes + ingest->ref_len > INGESTS_REF_MAX_BYTES)
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "%zu ingests, whose references have %zu bytes, are enough",
			       ingests->n, ingests->ref_bytes);
	ingest->next = *bucket;
	*bucket = ingest;
	ingest->refs++;
	ingests->n++;
	ingests->ref_bytes += ingest->ref_len;
	return 0;
}

/* Out of the table, whose reference is the caller's then. */
static struct ingest *take_out(struct ingests *ingests, struct ingest **link)
{
	struct ingest *ingest = *link;

	*link = ingest->next;
	ingest->gone = true;
	ingests->n--;
	ingests->ref_bytes -= ingest->ref_len;
	pthread_cond_broadcast(&ingests->unlocked);
	return ingest;
}

static void unref(struct ingest *ingest)
{
	bool last;

	pthread_mutex_lock(&ingest->table->mutex);
	last = --ingest->refs == 0;
	pthread_mutex_unlock(&ingest->table->mutex);
	if (last)
		free_ingest(ingest);
}

static void leave_memory(struct ingest *ingest)
{
	LOCK_GUARD(&ingest->table->mutex);
	ingest->table->n_in_memory--;
}

/* Of one whose bytes are of no use any more. */
static void forget_memory(struct ingest *ingest)
{
	if (!ingest->bytes.memory)
		return;
	ingest_bytes_forget(&ingest->bytes);
	leave_memory(ingest);
}

/** struct files - which of an ingest's two there are */
struct files {
	bool head;
	bool bytes;
};

/* Of one that is gone: who takes them deletes them. */
static struct files take_files(struct ingest *ingest)
{
	struct files files = {ingest->has_head, ingest->bytes.exists};

	ingest->has_head = false;
	ingest->bytes.exists = false;
	forget_memory(ingest);
	return files;
}

/* The reference first: bytes without one are garbage, a reference without bytes is an ingest of none. */
static void delete_files(struct ingest *ingest, struct files files)
{
	char name[NAME_MAX_BYTES];

	if (files.head) {
		head_name(ingest, name);
		(void)unlinkat(ingest->table->fd, name, 0);
	}
	CRASH_POINT("ingest.head-deleted");
	if (files.bytes) {
		data_name(ingest, name);
		(void)unlinkat(ingest->table->fd, name, 0);
	}
}

/*
 * Of one that was taken out; takes that reference. Waits for who is busy with the files; but nobody waits until they are
 * deleted, which takes long for large ones.
 */
static void destroy(struct ingest *ingest)
{
	struct files files;

	pthread_mutex_lock(&ingest->mutex);
	files = take_files(ingest);
	pthread_mutex_unlock(&ingest->mutex);
	delete_files(ingest, files);
	unref(ingest);
}

/* --- opening the store ----------------------------------------------------------------------------- */

struct scan {
	struct ingests *ingests;
	uint64_t n_discarded;
};

/* Return: the number that a file's name is or begins with; 0: none. @ret_is_head: the rest is ".ref". */
static uint64_t parse_name(const char *name, bool *ret_is_head)
{
	char again[NAME_MAX_BYTES];
	char *end;
	uint64_t id = strtoull(name, &end, 10);

	*ret_is_head = strcmp(end, ".ref") == 0;
	snprintf(again, sizeof(again), "%" PRIu64 "%s", id, *ret_is_head ? ".ref" : "");
	return strcmp(again, name) == 0 ? id : 0;
}

static int64_t time_ns(const struct timespec *time)
{
	return time->tv_sec * NSEC_PER_SEC + time->tv_nsec;
}

/* Looks at the bytes of an ingest. Return: 1 when a commit has made them a blob, else 0; or -1. */
static int look_at_bytes(struct ingest *ingest, struct err *err)
{
	char name[NAME_MAX_BYTES];
	struct stat st;

	data_name(ingest, name);
	ingest->updated_ns = ingest->started_ns;
	if (fstatat(ingest->table->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : err_sys(err, "look at 'ingests/%s'", name);
	ingest->bytes.exists = true;
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_INTERNAL, "'ingests/%s' is no file", name);
	ingest->bytes.held_bytes = (uint64_t)st.st_size;
	ingest->offset_bytes = ingest->bytes.held_bytes;
	/* The kernel's clock for files is a few milliseconds late. */
	if (time_ns(&st.st_mtim) > ingest->updated_ns)
		ingest->updated_ns = time_ns(&st.st_mtim);
	ingest_bytes_give_back(ingest->table->fd, name, &st);
	/* Blobs without a row have lost their name by now. */
	return st.st_nlink > 1;
}

/* Return: 1 with the ingest that @name stands for, 0 when it is damaged; or -1. */
static int read_head(struct ingests *ingests, uint64_t id, const char *name,
		     struct ingest **ret_ingest, struct err *err)
{
	CLEANUP(free_ptr) char *text = NULL;
	struct ingest_head head;
	size_t size;
	int r;

	if (fs_read_file(ingests->fd, name, CONTENT_REF_MAX_BYTES + 4096, &text, &size, err) < 0)
		return err->code == ERR_RESOURCE_EXHAUSTED && err->sys_errno == 0 ? 0 : -1;
	r = ingest_head_parse(text, size, &head, err);
	if (r != 0)
		return r > 0 ? 0 : -1;
	if (new_ingest(ingests, id, head.ref, ret_ingest, err) < 0)
		return -1;
	(*ret_ingest)->has_head = true;
	(*ret_ingest)->total_bytes = head.total_bytes;
	(*ret_ingest)->started_ns = head.started_ns;
	return 1;
}

/* Of two with one reference, which only a power cut leaves, the later one counts. */
static int take_up(struct ingests *ingests, struct ingest *ingest, struct err *err)
{
	struct ingest **link = find_link(ingests, ingest->ref);

	if (*link && (*link)->id > ingest->id) {
		delete_files(ingest, take_files(ingest));
		free_ingest(ingest);
		return 0;
	}
	if (*link)
		destroy(take_out(ingests, link));
	if (put_in(ingests, ingest, err) == 0)
		return 0;
	free_ingest(ingest);
	return -1;
}

static int scan_head(void *arg, const char *name, unsigned char type, struct err *err)
{
	struct scan *scan = arg;
	struct ingests *ingests = scan->ingests;
	struct ingest *ingest;
	bool is_head;
	uint64_t id = parse_name(name, &is_head);
	int r;

	(void)type;
	if (id > ingests->last_id)
		ingests->last_id = id;
	if (!id || !is_head)
		return 0;
	r = read_head(ingests, id, name, &ingest, err);
	if (r < 0)
		return -1;
	if (r == 0) {
		scan->n_discarded++;
		return unlinkat(ingests->fd, name, 0) < 0
			       ? err_sys(err, "delete 'ingests/%s'", name)
			       : 0;
	}
	r = look_at_bytes(ingest, err);
	if (r == 0)
		return take_up(ingests, ingest, err);
	if (r > 0)
		delete_files(ingest, take_files(ingest));
	free_ingest(ingest);
	return r < 0 ? -1 : 0;
}

/* After all heads: bytes that have none. */
static int scan_bytes(void *arg, const char *name, unsigned char type, struct err *err)
{
	struct scan *scan = arg;
	char head[NAME_MAX_BYTES];
	bool is_head;
	uint64_t id = parse_name(name, &is_head);

	(void)type;
	if (!id) {
		log_event(LOG_WARN, "a file that is none of ours lies among the ingests",
			  LOG_STR("file", name));
		return 0;
	}
	snprintf(head, sizeof(head), "%" PRIu64 ".ref", id);
	if (is_head || faccessat(scan->ingests->fd, head, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	scan->n_discarded++;
	return unlinkat(scan->ingests->fd, name, 0) < 0 ? err_sys(err, "delete 'ingests/%s'", name)
							: 0;
}

int ingests_open(int root_fd, struct ingests **ret_ingests, struct err *err)
{
	struct ingests *ingests = calloc(1, sizeof(*ingests));
	struct scan scan = {.ingests = ingests};

	if (!ingests)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the ingests");
	ingests->fd = -1;
	pthread_mutex_init(&ingests->mutex, NULL);
	thread_cond_init(&ingests->unlocked);
	if (mkdirat(root_fd, "ingests", 0700) < 0 && errno != EEXIST) {
		(err_sys)(err, "make directory 'ingests'");
		ingests_close(ingests);
		return -1;
	}
	if (fs_open_dir(root_fd, "ingests", &ingests->fd, err) < 0 ||
	    fs_each_entry(ingests->fd, ".", scan_head, &scan, err) < 0 ||
	    fs_each_entry(ingests->fd, ".", scan_bytes, &scan, err) < 0) {
		ingests_close(ingests);
		return -1;
	}
	if (scan.n_discarded)
		log_event(LOG_INFO, "halves of ingests were removed",
			  LOG_INT("files", (int64_t)scan.n_discarded));
	*ret_ingests = ingests;
	return 0;
}

void ingests_close(struct ingests *ingests)
{
	if (!ingests)
		return;
	for (size_t i = 0; i < N_BUCKETS; i++)
		while (ingests->buckets[i]) {
			struct ingest *ingest = ingests->buckets[i];

			ingests->buckets[i] = ingest->next;
			free_ingest(ingest);
		}
	close_fd(&ingests->fd);
	pthread_cond_destroy(&ingests->unlocked);
	pthread_mutex_destroy(&ingests->mutex);
	free(ingests);
}

/* --- opening one ---------------------------------------------------------------------------------- */

/* Waits while @ref has a writer. The table's lock is held, but for the wait. */
static int wait_for_turn(struct ingests *ingests, struct ctx *ctx, const char *ref, struct err *err)
{
	const int64_t until_ns = monotonic_ns() + LOCK_WAIT_NS;
	const struct timespec until = {.tv_sec = until_ns / NSEC_PER_SEC,
				       .tv_nsec = until_ns % NSEC_PER_SEC};
	struct ingest *ingest = *find_link(ingests, ref);
	bool may_wait = ingests->n_waiting < WAITERS_MAX;
	int r = 0;

	if (!ingest || !ingest->locked)
		return 0;
	ingests->n_waiting++;
	while (may_wait && r == 0 && ingest && ingest->locked) {
		r = pthread_cond_timedwait(&ingests->unlocked, &ingests->mutex, &until);
		if (ctx_check(ctx, err) < 0) {
			ingests->n_waiting--;
			return -1;
		}
		ingest = *find_link(ingests, ref);
	}
	ingests->n_waiting--;
	if (!ingest || !ingest->locked)
		return 0;
	return err_set(err, ERR_UNAVAILABLE, "somebody else writes to it: unavailable");
}

/* Can the ingest become a blob of @total_bytes? What cannot is dropped for a new one. */
static bool fits(const struct ingest *ingest, uint64_t total_bytes)
{
	if (!total_bytes)
		return true;
	if (ingest->total_bytes)
		return ingest->total_bytes == total_bytes;
	return ingest->offset_bytes <= total_bytes;
}

/* The table's lock is held. Return: an ingest of @ref that the caller is the writer of, with a reference. */
static int take_turn(struct ingests *ingests, const char *ref, uint64_t total_bytes,
		     struct ingest **ret_ingest, struct err *err)
{
	struct ingest *ingest = *find_link(ingests, ref);

	if (!ingest) {
		if (new_ingest(ingests, ++ingests->last_id, strdup(ref), &ingest, err) < 0)
			return -1;
		ingest->total_bytes = total_bytes;
		ingest->started_ns = realtime_ns();
		ingest->updated_ns = ingest->started_ns;
		if (put_in(ingests, ingest, err) < 0) {
			free_ingest(ingest);
			return -1;
		}
	}
	ingest->locked = true;
	ingest->refs++;
	*ret_ingest = ingest;
	return 0;
}

/*
 * The same at once, for a reference that is new: one that is there may have a writer, or files to be looked at.
 * Return: 0; 1 when it is not new; -1.
 */
static int acquire_new(struct ingests *ingests, const char *ref, uint64_t total_bytes,
		       struct ingest **ret_ingest, struct err *err)
{
	LOCK_GUARD(&ingests->mutex);
	if (*find_link(ingests, ref))
		return 1;
	return take_turn(ingests, ref, total_bytes, ret_ingest, err);
}

static int acquire(struct ingests *ingests, struct ctx *ctx, const char *ref, uint64_t total_bytes,
		   struct ingest **ret_ingest, struct err *err)
{
	struct ingest *unfit = NULL;
	struct ingest **link;
	int r;

	pthread_mutex_lock(&ingests->mutex);
	r = wait_for_turn(ingests, ctx, ref, err);
	if (r == 0) {
		link = find_link(ingests, ref);
		if (*link && !fits(*link, total_bytes))
			unfit = take_out(ingests, link);
		r = take_turn(ingests, ref, total_bytes, ret_ingest, err);
	}
	pthread_mutex_unlock(&ingests->mutex);
	/* Its files have a number of their own, so that it does not matter when they go. */
	if (unfit)
		destroy(unfit);
	return r;
}

/* A total that was not known before. */
static int learn_total(struct ingest *ingest, uint64_t total_bytes, struct err *err)
{
	char name[NAME_MAX_BYTES];
	bool is_new;

	pthread_mutex_lock(&ingest->table->mutex);
	is_new = total_bytes && !ingest->total_bytes;
	if (is_new)
		ingest->total_bytes = total_bytes;
	pthread_mutex_unlock(&ingest->table->mutex);
	if (!is_new || !ingest->has_head)
		return 0;
	head_name(ingest, name);
	return ingest_head_set_total(ingest->table->fd, name, total_bytes, err);
}

static int prepare(struct ingest *ingest, struct ctx *ctx, uint64_t total_bytes,
		   enum digest_algorithm algorithm, struct err *err)
{
	char name[NAME_MAX_BYTES];

	LOCK_GUARD(&ingest->mutex);
	if (learn_total(ingest, total_bytes, err) < 0)
		return -1;
	data_name(ingest, name);
	return ingest_bytes_open(&ingest->bytes, ctx, ingest->table->fd, name, algorithm, err);
}

int ingest_open(struct ingests *ingests, struct ctx *ctx, const char *ref, uint64_t total_bytes,
		enum digest_algorithm algorithm, bool may_wait, struct ingest **ret_ingest,
		struct err *err)
{
	struct ingest *ingest;
	int r = may_wait ? acquire(ingests, ctx, ref, total_bytes, &ingest, err)
			 : acquire_new(ingests, ref, total_bytes, &ingest, err);

	if (r != 0)
		return r;
	if (prepare(ingest, ctx, total_bytes, algorithm, err) < 0) {
		ingest_close(ingest);
		return -1;
	}
	*ret_ingest = ingest;
	return 0;
}

void ingest_expect(struct ingest *ingest, enum digest_algorithm algorithm)
{
	LOCK_GUARD(&ingest->mutex);
	ingest_bytes_expect(&ingest->bytes, algorithm);
}

/* Tell others how much is held now. */
static void publish(struct ingest *ingest)
{
	LOCK_GUARD(&ingest->table->mutex);
	ingest->offset_bytes = ingest->bytes.held_bytes;
	ingest->updated_ns = realtime_ns();
}

static int make_head(struct ingest *ingest, struct err *err)
{
	struct ingest_head head = {ingest->ref, ingest->total_bytes, ingest->started_ns};
	char name[NAME_MAX_BYTES];

	head_name(ingest, name);
	if (ingest_head_write(ingest->table->fd, name, &head, err) < 0)
		return -1;
	ingest->has_head = true;
	CRASH_POINT("ingest.head-written");
	return 0;
}

/* Both files are there before the first byte is. */
static int make_files(struct ingest *ingest, struct err *err)
{
	char name[NAME_MAX_BYTES];

	if (!ingest->has_head && make_head(ingest, err) < 0)
		return -1;
	if (ingest->bytes.exists)
		return 0;
	data_name(ingest, name);
	return ingest_bytes_create(&ingest->bytes, ingest->table->fd, name, err);
}

/* --- in memory ------------------------------------------------------------------------------------- */

/* Return: may these bytes be held in memory, as all that the ingest has? */
static bool fits_memory(const struct ingest *ingest, size_t len)
{
	return !ingest->bytes.exists && ingest->total_bytes <= INGEST_MEMORY_BYTES &&
	       ingest->bytes.held_bytes + len <= INGEST_MEMORY_BYTES;
}

static bool begin_memory(struct ingest *ingest)
{
	struct err err;
	bool has_room;

	pthread_mutex_lock(&ingest->table->mutex);
	has_room = ingest->table->n_in_memory < MEMORY_MAX;
	if (has_room)
		ingest->table->n_in_memory++;
	pthread_mutex_unlock(&ingest->table->mutex);
	if (has_room && ingest_bytes_hold(&ingest->bytes, &err) == 0)
		return true;
	if (has_room)
		leave_memory(ingest);
	return false;
}

/* Return: do @len more bytes go into memory, where there is room for them now? */
static bool goes_to_memory(struct ingest *ingest, size_t len)
{
	return fits_memory(ingest, len) && (ingest->bytes.memory || begin_memory(ingest));
}

/* The bytes get their file. */
static int to_file(struct ingest *ingest, struct err *err)
{
	int r;

	if (make_files(ingest, err) < 0)
		return -1;
	if (!ingest->bytes.memory)
		return 0;
	r = ingest_bytes_spill(&ingest->bytes, err);
	if (r == 0)
		leave_memory(ingest);
	return r;
}

/*
 * The writer goes: bytes in memory get their file. Where there is no room for one they stay in memory, for who goes on
 * with them. One without bytes is written down too, so that its total and its start stay known.
 */
static void keep(struct ingest *ingest)
{
	struct err err = ERR_INIT;

	if (ingest->bytes.memory && to_file(ingest, &err) < 0) {
		log_event(LOG_WARN, "an ingest will not survive a restart",
			  LOG_STR("ref", ingest->ref), LOG_ERR(&err));
		return;
	}
	if (!ingest->has_head && make_head(ingest, &err) < 0)
		log_event(LOG_WARN, "an ingest without bytes will not survive a restart",
			  LOG_STR("ref", ingest->ref), LOG_ERR(&err));
}

void ingest_close(struct ingest *ingest)
{
	struct ingests *ingests = ingest->table;
	bool gone;

	pthread_mutex_lock(&ingest->mutex);
	pthread_mutex_lock(&ingests->mutex);
	gone = ingest->gone;
	pthread_mutex_unlock(&ingests->mutex);
	/* Whoever aborts it from here on waits for the lock, and deletes what is written now. */
	if (!gone)
		keep(ingest);
	ingest_bytes_close(&ingest->bytes);
	pthread_mutex_unlock(&ingest->mutex);

	pthread_mutex_lock(&ingests->mutex);
	ingest->locked = false;
	pthread_cond_broadcast(&ingests->unlocked);
	pthread_mutex_unlock(&ingests->mutex);
	unref(ingest);
}

/* --- working on one ------------------------------------------------------------------------------- */

/* The ingest's lock is held, here and below. */
static int check_there(struct ingest *ingest, struct err *err)
{
	LOCK_GUARD(&ingest->table->mutex);
	return ingest->gone ? err_set(err, ERR_ABORTED, "it was aborted meanwhile") : 0;
}

static struct ingest_info info_of(const struct ingest *ingest)
{
	return (struct ingest_info){
		.ref = ingest->ref,
		.offset_bytes = ingest->offset_bytes,
		.total_bytes = ingest->total_bytes,
		.started_ns = ingest->started_ns,
		.updated_ns = ingest->updated_ns,
	};
}

int ingest_state(struct ingest *ingest, struct ingest_info *ret_info, struct digest *ret_digest,
		 struct err *err)
{
	LOCK_GUARD(&ingest->mutex);
	if (check_there(ingest, err) < 0 ||
	    ingest_bytes_digest(&ingest->bytes, ret_digest, err) < 0)
		return -1;
	LOCK_GUARD(&ingest->table->mutex);
	*ret_info = info_of(ingest);
	return 0;
}

static size_t total_len(const struct iovec *pieces, size_t n)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++)
		len += pieces[i].iov_len;
	return len;
}

/* Return: 0 when the write may begin. Offset 0 means to begin anew, even with nothing to write. */
static int check_offset(struct ingest *ingest, uint64_t offset, struct err *err)
{
	uint64_t held = ingest->bytes.held_bytes;

	if (offset == 0 && held > 0) {
		int r = ingest_bytes_truncate(&ingest->bytes, err);

		publish(ingest);
		return r;
	}
	if (offset != held)
		return err_set(err, ERR_OUT_OF_RANGE,
			       "offset %" PRIu64 " is not where the %" PRIu64 " bytes held end",
			       offset, held);
	return 0;
}

static int write_pieces(struct ingest *ingest, uint64_t offset, const struct iovec *pieces,
			size_t n, struct err *err)
{
	int r;

	if (check_there(ingest, err) < 0 || check_offset(ingest, offset, err) < 0)
		return -1;
	if (total_len(pieces, n) == 0)
		return 0;
	if (!goes_to_memory(ingest, total_len(pieces, n)) && to_file(ingest, err) < 0)
		return -1;
	r = ingest_bytes_append(&ingest->bytes, pieces, n, ingest->total_bytes, err);
	publish(ingest);
	CRASH_POINT("ingest.written");
	return r;
}

int ingest_write(struct ingest *ingest, uint64_t offset, const struct iovec *pieces, size_t n,
		 bool may_wait, struct err *err)
{
	int r = 1;

	if (may_wait)
		pthread_mutex_lock(&ingest->mutex);
	else if (pthread_mutex_trylock(&ingest->mutex) != 0)
		return 1;
	if (may_wait || goes_to_memory(ingest, total_len(pieces, n)))
		r = write_pieces(ingest, offset, pieces, n, err);
	pthread_mutex_unlock(&ingest->mutex);
	return r;
}

/* --- commit, drop --------------------------------------------------------------------------------- */

static int take_out_of_table(struct ingest *ingest)
{
	struct ingests *ingests = ingest->table;
	struct ingest **link;

	LOCK_GUARD(&ingests->mutex);
	link = find_link(ingests, ingest->ref);
	if (*link != ingest)
		return 0;
	(void)take_out(ingests, link);
	/* The caller is its writer, and has a reference of its own. */
	ingest->refs--;
	return 1;
}

static void drop_locked(struct ingest *ingest)
{
	(void)take_out_of_table(ingest);
	delete_files(ingest, take_files(ingest));
}

void ingest_drop(struct ingest *ingest)
{
	LOCK_GUARD(&ingest->mutex);
	drop_locked(ingest);
}

static int verify(struct ingest *ingest, struct ctx *ctx, const struct ingest_commit *req,
		  struct digest *ret_digest, struct err *err)
{
	char has[DIGEST_TEXT_BYTES], wanted[DIGEST_TEXT_BYTES];
	struct digest digest;

	if (req->total_bytes && req->total_bytes != ingest->bytes.held_bytes)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "%" PRIu64 " bytes are held, not %" PRIu64 ": failed precondition",
			       ingest->bytes.held_bytes, req->total_bytes);
	if (ingest_bytes_digest_as(&ingest->bytes, ctx,
				   req->expected ? req->expected->algorithm : 0, &digest, err) < 0)
		return -1;
	if (req->expected && !digest_equal(req->expected, &digest))
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "the digest is %s, not %s: failed precondition",
			       digest_format(&digest, has), digest_format(req->expected, wanted));
	*ret_digest = digest;
	return 0;
}

static int call_commit_fn(struct ingest *ingest, const struct digest *digest, ingest_commit_fn fn,
			  void *arg, bool *ret_broken, struct err *err)
{
	char name[NAME_MAX_BYTES];
	struct ingest_source source = {
		.size_bytes = ingest->bytes.held_bytes,
		.memory = ingest->bytes.memory,
		.dirfd = ingest->table->fd,
		.name = name,
		.fd = -1,
	};
	int r = INGEST_COMMIT_FROM_FILE;

	data_name(ingest, name);
	if (source.memory)
		r = fn(arg, digest, &source, ret_broken, err);
	if (r != INGEST_COMMIT_FROM_FILE)
		return r;
	if (to_file(ingest, err) < 0 || ingest_bytes_trim(&ingest->bytes, err) < 0)
		return -1;
	source.memory = NULL;
	source.fd = ingest->bytes.fd;
	return fn(arg, digest, &source, ret_broken, err);
}

int ingest_commit(struct ingest *ingest, struct ctx *ctx, const struct ingest_commit *req,
		  ingest_commit_fn fn, void *arg, struct digest *ret_digest, struct err *err)
{
	struct digest digest;
	bool broken = false;
	int r;

	LOCK_GUARD(&ingest->mutex);
	if (check_there(ingest, err) < 0 || verify(ingest, ctx, req, &digest, err) < 0)
		return -1;
	r = call_commit_fn(ingest, &digest, fn, arg, &broken, err);
	if (r >= 0 || broken)
		drop_locked(ingest);
	if (r == 0)
		*ret_digest = digest;
	return r;
}

/* --- by reference --------------------------------------------------------------------------------- */

int ingests_status(struct ingests *ingests, struct ctx *ctx, const char *ref,
		   struct ingest_info *ret_info, struct err *err)
{
	struct ingest_info info;
	struct ingest *ingest;

	LOCK_GUARD(&ingests->mutex);
	ingest = *find_link(ingests, ref);
	if (!ingest)
		return err_set(err, ERR_NOT_FOUND, "there is no such ingest: not found");
	info = info_of(ingest);
	info.ref = arena_strdup(ctx->arena, ingest->ref);
	if (!info.ref)
		return ctx_no_memory(err);
	*ret_info = info;
	return 0;
}

int ingests_walk(struct ingests *ingests, const struct filters *filters, ingest_walk_fn fn,
		 void *arg, struct err *err)
{
	LOCK_GUARD(&ingests->mutex);
	for (size_t i = 0; i < N_BUCKETS; i++)
		for (struct ingest *ingest = ingests->buckets[i]; ingest; ingest = ingest->next) {
			const struct ingest_info info = info_of(ingest);
			int r = ingest_matches(filters, &info) ? fn(arg, &info, err) : 0;

			if (r != 0)
				return r;
		}
	return 0;
}

void ingests_abort(struct ingests *ingests, const char *ref)
{
	struct ingest *ingest = NULL, **link;

	pthread_mutex_lock(&ingests->mutex);
	link = find_link(ingests, ref);
	if (*link)
		ingest = take_out(ingests, link);
	pthread_mutex_unlock(&ingests->mutex);
	if (ingest)
		destroy(ingest);
}
