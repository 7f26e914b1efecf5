/* SPDX-License-Identifier: Apache-2.0 */
#include "content/cataloger.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/log.h"
#include "base/thread.h"
#include "content/blob_files.h"
#include "content/catalog.h"
#include "content/ingests.h"
#include "content/local_internal.h"

/* White space that a document may begin with. */
#define PEEK_BYTES  64
/* Digests compared at a time. */
#define N_COMPARED  256
/* What is larger stays the only one in memory until it is written. */
#define SMALL_BYTES (64u << 10)
/* How often a catalog is made anew for damage, none of them becoming complete, until it is given up: then it is the disk. */
#define REMAKES_MAX 3

/**
 * struct cataloger - see cataloger.h. Locks are listed in the order in which they are taken.
 *
 * @parse_lock: one document at a time is parsed, which takes most of the memory
 * @catalog_lock: held for writing while @catalog is replaced, for reading while it is used. NULL: it could not be
 *                opened.
 * @mutex: guards what follows
 * @wanted: the thread is to compare
 * @is_behind: it lacks something, or has too much; @is_told: that has been logged
 * @is_damaged: @catalog is, and must be made anew. Set while it is held for reading, cleared where it is replaced, so
 *              that what is said of one is never taken for the next.
 */
struct cataloger {
	struct local *store;
	char *path;

	pthread_mutex_t parse_lock;

	pthread_rwlock_t catalog_lock;
	struct catalog *catalog;

	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool wanted;
	bool is_behind;
	bool is_told;
	bool is_damaged;
	bool stopping;

	bool has_thread;
	pthread_t thread;
	unsigned int n_remakes; /* since one was complete; the thread's own */
};

/* --- what the thread is to do ----------------------------------------------------------------------------------- */

static void want(struct cataloger *cataloger)
{
	cataloger->wanted = true;
	pthread_cond_signal(&cataloger->changed);
}

/* It will not get well by itself. The catalog is held. */
static void note_damage(struct cataloger *cataloger)
{
	LOCK_GUARD(&cataloger->mutex);
	cataloger->is_damaged = true;
	want(cataloger);
}

static bool is_stopping(struct cataloger *cataloger)
{
	LOCK_GUARD(&cataloger->mutex);
	return cataloger->stopping;
}

/* --- using the catalog ----------------------------------------------------------------------------------- */

/* Return: the catalog, which stays until end_use(); NULL when there is none. */
static struct catalog *begin_use(struct cataloger *cataloger, struct err *err)
{
	pthread_rwlock_rdlock(&cataloger->catalog_lock);
	if (cataloger->catalog)
		return cataloger->catalog;
	pthread_rwlock_unlock(&cataloger->catalog_lock);
	(void)err_set(err, ERR_UNAVAILABLE, "the catalog is not open");
	return NULL;
}

/* @r: what its use came to. Return: the same. */
static int end_use(struct cataloger *cataloger, int r, const struct err *err)
{
	if (r < 0 && err->code == ERR_DATA_LOSS)
		note_damage(cataloger);
	pthread_rwlock_unlock(&cataloger->catalog_lock);
	return r;
}

static int put(struct cataloger *cataloger, const struct digest *digest,
	       const struct oci_document *document, struct err *err)
{
	struct catalog *catalog = begin_use(cataloger, err);

	return catalog ? end_use(cataloger, catalog_put(catalog, digest, document, err), err) : -1;
}

static int drop(struct cataloger *cataloger, const struct digest *digest, struct err *err)
{
	struct catalog *catalog = begin_use(cataloger, err);

	return catalog ? end_use(cataloger, catalog_drop(catalog, digest, err), err) : -1;
}

static int has(struct cataloger *cataloger, const struct digest *digest, struct err *err)
{
	struct catalog *catalog = begin_use(cataloger, err);

	return catalog ? end_use(cataloger, catalog_has(catalog, digest, err), err) : -1;
}

static int list(struct cataloger *cataloger, const struct digest *after, struct digest *ret_digests,
		int max, struct err *err)
{
	struct catalog *catalog = begin_use(cataloger, err);

	return catalog ? end_use(cataloger, catalog_list(catalog, after, ret_digests, max, err),
				 err)
		       : -1;
}

static int set_complete(struct cataloger *cataloger, bool complete, struct err *err)
{
	struct catalog *catalog = begin_use(cataloger, err);

	return catalog ? end_use(cataloger, catalog_set_complete(catalog, complete, err), err) : -1;
}

static int check(struct cataloger *cataloger, struct err *err)
{
	struct catalog *catalog = begin_use(cataloger, err);

	return catalog ? end_use(cataloger, catalog_check(catalog, err), err) : -1;
}

/* --- being behind -------------------------------------------------------------------------------------- */

/* The first failure is told, and then that all is well again. Readers are told as soon as that can be written. */
static void note_failure(struct cataloger *cataloger, const struct err *err)
{
	struct err ignored = ERR_INIT;
	bool is_first;

	pthread_mutex_lock(&cataloger->mutex);
	cataloger->is_behind = true;
	is_first = !cataloger->is_told;
	cataloger->is_told = true;
	pthread_mutex_unlock(&cataloger->mutex);
	if (is_first)
		log_event(LOG_WARN, "the catalog is behind, until it can be written again",
			  LOG_ERR(err));
	if (set_complete(cataloger, false, &ignored) < 0)
		return;
}

/* Something could be written: so can be what it lacks. */
static void note_success(struct cataloger *cataloger)
{
	struct err ignored = ERR_INIT;
	bool is_behind;

	pthread_mutex_lock(&cataloger->mutex);
	is_behind = cataloger->is_behind;
	pthread_mutex_unlock(&cataloger->mutex);
	if (!is_behind || set_complete(cataloger, false, &ignored) < 0)
		return;
	LOCK_GUARD(&cataloger->mutex);
	want(cataloger);
}

/* --- reading documents ----------------------------------------------------------------------------------- */

/* Reads up to @size bytes. Return: how many, fewer only at the end; or -1. */
static ssize_t read_start(const struct ingest_source *source, char *buf, size_t size)
{
	size_t n = 0;

	if (source->memory) {
		n = source->size_bytes < size ? (size_t)source->size_bytes : size;
		memcpy(buf, source->memory, n);
		return (ssize_t)n;
	}
	while (n < size) {
		ssize_t r = pread(source->fd, buf + n, size - n, (off_t)n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		if (r == 0)
			break;
		n += (size_t)r;
	}
	return (ssize_t)n;
}

bool cataloger_may_be_json(const struct ingest_source *source)
{
	char start[PEEK_BYTES];
	ssize_t n = read_start(source, start, sizeof(start));

	return n < 0 || oci_may_be_document(start, (size_t)n);
}

static int read_whole(const struct ingest_source *source, char **ret_text, struct err *err)
{
	size_t size = (size_t)source->size_bytes;
	CLEANUP(free_ptr) char *text = malloc(size ? size : 1);
	ssize_t n;

	if (!text)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory to read a document");
	n = read_start(source, text, size);
	if (n < 0)
		return err_sys(err, "read a document");
	if ((size_t)n < size)
		return err_set(err, ERR_INTERNAL, "a document ends at byte %zd", n);
	*ret_text = take_ptr(text);
	return 0;
}

static int parse(const struct ingest_source *source, struct arena *arena,
		 struct oci_document *ret_document, struct err *err)
{
	CLEANUP(free_ptr) char *text = NULL;

	if (source->size_bytes > OCI_DOCUMENT_MAX_BYTES)
		return err_set(err, ERR_OUT_OF_RANGE, "%llu bytes, %d are the most that is read",
			       (unsigned long long)source->size_bytes, OCI_DOCUMENT_MAX_BYTES);
	if (read_whole(source, &text, err) < 0)
		return -1;
	return oci_parse(text, (size_t)source->size_bytes, arena, ret_document, err);
}

/* What is malformed or too large stays what it is: that it was looked at is all that is noted of it. */
static int read_document(const struct ingest_source *source, const struct digest *digest,
			 struct arena *arena, struct oci_document *ret_document, struct err *err)
{
	char text[DIGEST_TEXT_BYTES];

	if (parse(source, arena, ret_document, err) == 0)
		return 0;
	if (err->code != ERR_INVALID_ARGUMENT && err->code != ERR_OUT_OF_RANGE)
		return -1;
	log_event(LOG_INFO, "a blob that begins like a document is not catalogued",
		  LOG_STR("digest", digest_format(digest, text)), LOG_ERR(err));
	*ret_document = (struct oci_document){.kind = OCI_OTHER};
	return 0;
}

/* --- one document ---------------------------------------------------------------------------------------- */

/* Return: 0; 1 when the document cannot be read, with @err filled; -1 when the catalog cannot be written. */
static int learn(struct cataloger *cataloger, const struct digest *digest,
		 const struct ingest_source *source, struct err *err)
{
	/* Small ones are written together with those of others. */
	bool is_small = source->size_bytes <= SMALL_BYTES;
	struct oci_document document;
	struct arena arena;
	int r;

	arena_init(&arena, OCI_ARENA_BYTES);
	pthread_mutex_lock(&cataloger->parse_lock);
	r = read_document(source, digest, &arena, &document, err) < 0;
	if (is_small)
		pthread_mutex_unlock(&cataloger->parse_lock);
	if (r == 0)
		r = put(cataloger, digest, &document, err);
	arena_done(&arena);
	if (!is_small)
		pthread_mutex_unlock(&cataloger->parse_lock);
	return r;
}

/* What was to be written, be it learned or forgotten. */
static void end_write(struct cataloger *cataloger, int r, const struct err *err)
{
	if (r == 0) {
		note_success(cataloger);
		return;
	}
	note_failure(cataloger, err);
	/* It was not to be opened then: maybe it is now. */
	if (err->code == ERR_UNAVAILABLE) {
		LOCK_GUARD(&cataloger->mutex);
		want(cataloger);
	}
}

void cataloger_learn(struct cataloger *cataloger, const struct digest *digest,
		     const struct ingest_source *source)
{
	struct err err = ERR_INIT;

	end_write(cataloger, learn(cataloger, digest, source, &err), &err);
	CRASH_POINT("catalog.learned");
}

void cataloger_forget(struct cataloger *cataloger, const struct digest *digest)
{
	struct err err = ERR_INIT;

	end_write(cataloger, drop(cataloger, digest, &err), &err);
	CRASH_POINT("catalog.forgotten");
}

/* --- opening --------------------------------------------------------------------------------------------- */

/* The database first: what is left then is a log without one, which is known not to count. */
static int delete_files(const char *path, struct err *err)
{
	static const char *const suffixes[] = {"", "-journal", "-wal", "-shm"};

	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		CLEANUP(free_ptr) char *name = NULL;

		if (asprintf(&name, "%s%s", path, suffixes[i]) < 0) {
			name = NULL;
			return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for a path");
		}
		if (unlink(name) < 0 && errno != ENOENT)
			return err_sys(err, "delete '%s'", name);
		CRASH_POINT("catalog.file-deleted");
	}
	return 0;
}

static int open_or_remake(const char *path, struct catalog **ret_catalog, struct err *err)
{
	if (catalog_open(path, ret_catalog, err) == 0)
		return 0;
	if (err->code != ERR_DATA_LOSS && err->code != ERR_FAILED_PRECONDITION)
		return -1;
	log_event(LOG_WARN, "the catalog cannot be used, and is made anew", LOG_ERR(err));
	if (delete_files(path, err) < 0)
		return -1;
	return catalog_open(path, ret_catalog, err);
}

static int remake(struct cataloger *cataloger, struct err *err)
{
	catalog_close(cataloger->catalog);
	cataloger->catalog = NULL;
	if (delete_files(cataloger->path, err) < 0)
		return -1;
	if (++cataloger->n_remakes > REMAKES_MAX)
		return err_set(err, ERR_DATA_LOSS, "it was damaged %u times", cataloger->n_remakes);
	log_event(LOG_WARN, "the catalog is damaged, and is made anew");
	return catalog_open(cataloger->path, &cataloger->catalog, err);
}

/* The catalog is held for writing: nobody is in the midst of finding it damaged. */
static bool take_damage(struct cataloger *cataloger)
{
	bool is_damaged;

	LOCK_GUARD(&cataloger->mutex);
	is_damaged = cataloger->is_damaged;
	cataloger->is_damaged = false;
	return is_damaged;
}

/* See to it that there is one. */
static int reopen(struct cataloger *cataloger, struct err *err)
{
	int r = 0;

	pthread_rwlock_wrlock(&cataloger->catalog_lock);
	if (take_damage(cataloger))
		r = remake(cataloger, err);
	else if (!cataloger->catalog && cataloger->n_remakes <= REMAKES_MAX)
		r = open_or_remake(cataloger->path, &cataloger->catalog, err);
	else if (!cataloger->catalog)
		r = err_set(err, ERR_DATA_LOSS, "the catalog has been given up");
	pthread_rwlock_unlock(&cataloger->catalog_lock);
	return r;
}

/* --- comparing ------------------------------------------------------------------------------------------- */

/** struct comparison - what it came to; @n_unreadable: documents whose files cannot be read, which others will tell of */
struct comparison {
	struct cataloger *cataloger;
	uint64_t n_learned;
	uint64_t n_forgotten;
	uint64_t n_unreadable;
};

/* Of what an earlier version has committed it is not noted how it begins: nothing is to be learned of a layer. */
static int read_and_learn(struct comparison *comparison, const struct digest *digest,
			  struct err *err)
{
	struct cataloger *cataloger = comparison->cataloger;
	struct ingest_source source;
	struct blob *blob;
	int r = 0;

	if (blob_files_get(cataloger->store->files, digest, true, &blob, err) < 0)
		return 1;
	source = (struct ingest_source){.size_bytes = blob->size_bytes,
					.memory = blob->bytes,
					.fd = blob->fd};
	if (cataloger_may_be_json(&source)) {
		r = learn(cataloger, digest, &source, err);
		comparison->n_learned += r == 0;
	}
	blob_unref(blob);
	return r;
}

/* The digest is locked. Nothing is noted of what cannot be read, so that the next start tries again. */
static int learn_file(struct comparison *comparison, const struct digest *digest, struct err *err)
{
	char text[DIGEST_TEXT_BYTES];
	int r = read_and_learn(comparison, digest, err);

	if (r > 0)
		log_event(LOG_WARN, "a document cannot be read, and is not catalogued",
			  LOG_STR("digest", digest_format(digest, text)), LOG_ERR(err));
	comparison->n_unreadable += r > 0;
	CRASH_POINT("catalog.made-up");
	return r < 0 ? -1 : 0;
}

/* A blob that nobody has looked at, unless that has changed by now. */
static int make_up_for(struct comparison *comparison, const struct digest *digest, struct err *err)
{
	struct local *store = comparison->cataloger->store;
	struct digest_lock lock;
	int r;

	digest_lock(&store->locks, digest, &lock);
	r = blob_rows_may_be_json(store->rows, digest, err);
	if (r > 0) {
		r = has(comparison->cataloger, digest, err);
		r = r == 0 ? learn_file(comparison, digest, err) : r;
	}
	digest_unlock(&store->locks, &lock);
	return r < 0 ? -1 : 0;
}

/* A document whose blob is gone, unless it is there again. */
static int clean_up(struct comparison *comparison, const struct digest *digest, struct err *err)
{
	struct local *store = comparison->cataloger->store;
	struct digest_lock lock;
	int r;

	digest_lock(&store->locks, digest, &lock);
	r = blob_rows_may_be_json(store->rows, digest, err);
	if (r == 0) {
		r = drop(comparison->cataloger, digest, err);
		comparison->n_forgotten += r == 0;
	}
	digest_unlock(&store->locks, &lock);
	return r < 0 ? -1 : 0;
}

static int compare_blob(struct comparison *comparison, const struct digest *digest, struct err *err)
{
	int r = has(comparison->cataloger, digest, err);

	return r == 0 ? make_up_for(comparison, digest, err) : r;
}

static int compare_document(struct comparison *comparison, const struct digest *digest,
			    struct err *err)
{
	int r = blob_rows_may_be_json(comparison->cataloger->store->rows, digest, err);

	return r == 0 ? clean_up(comparison, digest, err) : r;
}

/* @of_catalog: compare what it holds with the blobs, else the blobs with what it holds. */
static int compare_each(struct comparison *comparison, bool of_catalog, struct err *err)
{
	struct cataloger *cataloger = comparison->cataloger;
	struct digest digests[N_COMPARED], last, *after = NULL;
	int n;

	do {
		n = of_catalog ? list(cataloger, after, digests, N_COMPARED, err)
			       : blob_rows_list_json(cataloger->store->rows, after, digests,
						     N_COMPARED, err);
		for (int i = 0; i < n; i++) {
			int r;

			if (is_stopping(cataloger))
				return err_set(err, ERR_CANCELLED, "the daemon is stopping");
			r = of_catalog ? compare_document(comparison, &digests[i], err)
				       : compare_blob(comparison, &digests[i], err);
			if (r < 0)
				return -1;
		}
		if (n > 0)
			last = digests[n - 1];
		after = &last;
	} while (n == N_COMPARED);
	return n < 0 ? -1 : 0;
}

static int compare(struct cataloger *cataloger, struct comparison *comparison, struct err *err)
{
	if (reopen(cataloger, err) < 0 || set_complete(cataloger, false, err) < 0 ||
	    check(cataloger, err) < 0)
		return -1;
	if (compare_each(comparison, false, err) < 0)
		return -1;
	return compare_each(comparison, true, err);
}

/*
 * The two are equal, unless somebody has failed to write meanwhile: who does says so first, and then that it is not
 * complete. As only this thread replaces the catalog, it needs no lock to use it.
 */
static int note_equal(struct cataloger *cataloger, const struct comparison *comparison,
		      struct err *err)
{
	bool was_told;

	LOCK_GUARD(&cataloger->mutex);
	if (cataloger->is_behind || cataloger->is_damaged) {
		want(cataloger);
		return 0;
	}
	if (comparison->n_unreadable == 0 &&
	    catalog_set_complete(cataloger->catalog, true, err) < 0) {
		if (err->code == ERR_DATA_LOSS) {
			cataloger->is_damaged = true;
			want(cataloger);
		}
		return -1;
	}
	cataloger->n_remakes = 0;
	was_told = cataloger->is_told;
	cataloger->is_told = false;
	if (was_told || comparison->n_learned || comparison->n_forgotten)
		log_event(LOG_INFO, "the catalog is up to date",
			  LOG_INT("learned", (int64_t)comparison->n_learned),
			  LOG_INT("forgotten", (int64_t)comparison->n_forgotten));
	return 0;
}

static void bring_up_to_date(struct cataloger *cataloger)
{
	struct comparison comparison = {.cataloger = cataloger};
	struct err err = ERR_INIT;
	int r = compare(cataloger, &comparison, &err);

	if (r == 0)
		r = note_equal(cataloger, &comparison, &err);
	if (r < 0 && err.code != ERR_CANCELLED)
		note_failure(cataloger, &err);
}

static void *work(void *arg)
{
	struct cataloger *cataloger = arg;

	pthread_mutex_lock(&cataloger->mutex);
	for (;;) {
		while (!cataloger->wanted && !cataloger->stopping)
			pthread_cond_wait(&cataloger->changed, &cataloger->mutex);
		if (cataloger->stopping)
			break;
		cataloger->wanted = false;
		cataloger->is_behind = false;
		pthread_mutex_unlock(&cataloger->mutex);
		bring_up_to_date(cataloger);
		pthread_mutex_lock(&cataloger->mutex);
	}
	pthread_mutex_unlock(&cataloger->mutex);
	return NULL;
}

/* By default readers, who come all the time, could keep the thread out forever. None takes the lock twice. */
static void init_catalog_lock(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(lock, &attr);
	pthread_rwlockattr_destroy(&attr);
}

int cataloger_start(struct local *store, const char *path, struct cataloger **ret_cataloger,
		    struct err *err)
{
	struct cataloger *cataloger = calloc(1, sizeof(*cataloger));
	struct err failure = ERR_INIT;

	if (!cataloger)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the catalog");
	pthread_mutex_init(&cataloger->parse_lock, NULL);
	init_catalog_lock(&cataloger->catalog_lock);
	pthread_mutex_init(&cataloger->mutex, NULL);
	pthread_cond_init(&cataloger->changed, NULL);
	cataloger->store = store;
	cataloger->wanted = true;
	cataloger->path = strdup(path);
	if (!cataloger->path) {
		cataloger_stop(cataloger);
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory for the catalog");
	}
	/* Readers are told before the first call is served that something may be missing. */
	if (open_or_remake(path, &cataloger->catalog, &failure) < 0 ||
	    set_complete(cataloger, false, &failure) < 0)
		note_failure(cataloger, &failure);
	if (thread_start(&cataloger->thread, "cataloger", work, cataloger, err) < 0) {
		cataloger_stop(cataloger);
		return -1;
	}
	cataloger->has_thread = true;
	*ret_cataloger = cataloger;
	return 0;
}

void cataloger_stop(struct cataloger *cataloger)
{
	if (!cataloger)
		return;
	pthread_mutex_lock(&cataloger->mutex);
	cataloger->stopping = true;
	pthread_cond_signal(&cataloger->changed);
	pthread_mutex_unlock(&cataloger->mutex);
	if (cataloger->has_thread)
		pthread_join(cataloger->thread, NULL);
	catalog_close(cataloger->catalog);
	pthread_cond_destroy(&cataloger->changed);
	pthread_mutex_destroy(&cataloger->mutex);
	pthread_rwlock_destroy(&cataloger->catalog_lock);
	pthread_mutex_destroy(&cataloger->parse_lock);
	free(cataloger->path);
	free(cataloger);
}
