/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog beside the store: what readers find in it when blobs come and go, when the daemon is killed, and when the
 * catalog cannot be written, is damaged, or is not there.
 */
#include "content/cataloger.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/db.h"
#include "content/catalog_reader.h"
#include "content/config.h"
#include "content/local.h"
#include "proxy/content_proxy.h"
#include "rpc/server.h"
#include "tests/base/test_db_fault.h"
#include "tests/content/documents.h"
#include "tests/support/content_server.h"
#include "tests/support/fault.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

#define ARENA_BYTES (64u << 20)

static const struct content_store_ops *const local = &local_content_ops;

/**
 * struct fixture - a store, and who reads its catalog
 * @ops, @self: what the test talks to: the store itself, or a client of it
 */
struct fixture {
	struct temp_root *root;
	struct content_conf conf;
	void *store;
	const struct content_store_ops *ops;
	void *self;
	struct catalog_reader *reader;
	struct arena arena;
	struct ctx ctx;
	struct err err;
};

static void open_store(struct fixture *fx)
{
	assert_ok(local->open(fx->root->path, &fx->conf, &fx->store, &fx->err), &fx->err);
	fx->ops = local;
	fx->self = fx->store;
}

static void close_store(struct fixture *fx)
{
	local->close(fx->store);
	fx->store = NULL;
}

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));
	char *path;

	assert_non_null(fx);
	fx->root = temp_root_new();
	fx->conf.adopt = true;
	arena_init(&fx->arena, ARENA_BYTES);
	fx->ctx = (struct ctx){.arena = &fx->arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	path = temp_root_path(fx->root, "catalog.db");
	assert_ok(catalog_reader_new(path, &fx->reader, &fx->err), &fx->err);
	free(path);
	*state = fx;
	return 0;
}

static int setup_open(void **state)
{
	if (setup(state) < 0)
		return -1;
	open_store(*state);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	fault_clear();
	db_fault_clear();
	db_fault_only(NULL);
	close_store(fx);
	catalog_reader_free(fx->reader);
	arena_done(&fx->arena);
	temp_root_free(fx->root);
	free(fx);
	return 0;
}

/* --- blobs come and go ----------------------------------------------------------------------------------- */

static int add_bytes(struct fixture *fx, const char *bytes, size_t size, struct err *err)
{
	const struct iovec piece = {(void *)(uintptr_t)bytes, size};
	const struct ingest_commit req = {0};
	struct ingest *ingest = NULL;
	struct digest digest;
	char ref[40];
	int r;

	/* Of its own for each thread. */
	snprintf(ref, sizeof(ref), "add %lx", (unsigned long)pthread_self());
	if (fx->ops->ingest_open(fx->self, &fx->ctx, ref, 0, NULL, true, &ingest, err) < 0)
		return -1;
	r = fx->ops->ingest_write(fx->self, &fx->ctx, ingest, 0, &piece, 1, true, err);
	if (r == 0)
		r = fx->ops->ingest_commit(fx->self, &fx->ctx, ingest, &req, &digest, err);
	fx->ops->ingest_close(fx->self, ingest);
	return r;
}

static void add(struct fixture *fx, const char *text)
{
	assert_ok(add_bytes(fx, text, strlen(text), &fx->err), &fx->err);
}

static void add_image(struct fixture *fx, const struct image *image)
{
	add(fx, image->index);
	add(fx, image->manifest);
	add(fx, image->config);
}

static void take(struct fixture *fx, const char *text)
{
	struct digest digest = text_digest(text);

	assert_ok(fx->ops->remove(fx->self, &fx->ctx, &digest, &fx->err), &fx->err);
}

static bool knows(struct fixture *fx, const char *text)
{
	struct digest digest = text_digest(text);
	struct oci_document document;
	int r = catalog_document(fx->reader, &digest, &fx->arena, &document, &fx->err);

	assert_ok(r, &fx->err);
	return r == 0;
}

static bool is_complete(void *arg)
{
	struct fixture *fx = arg;
	int r = catalog_is_complete(fx->reader, &fx->err);

	/* While it is made anew, there is none. */
	return r == 1;
}

static void wait_complete(struct fixture *fx)
{
	wait_until(is_complete, fx, "a complete catalog");
}

static void assert_chains(struct fixture *fx, const struct image *image)
{
	for (size_t i = 0; i < image->n_layers; i++) {
		struct catalog_layer *layers;
		size_t n = 0;
		int r = catalog_chain(fx->reader, &image->chain_ids[i], &fx->arena, &layers, &n,
				      &fx->err);

		assert_ok(r, &fx->err);
		assert_int_equal(r, 0);
		assert_int_equal(n, 1);
		assert_true(digest_equal(&layers[0].manifest, &image->manifest_digest));
		assert_true(digest_equal(&layers[0].config, &image->config_digest));
		assert_true(digest_equal(&layers[0].layer.digest, &image->layers[i]));
	}
}

static void assert_known(struct fixture *fx, const struct image *image)
{
	struct catalog_mention *mentions;
	struct oci_document index;
	size_t n;

	assert_int_equal(catalog_document(fx->reader, &image->index_digest, &fx->arena, &index,
					  &fx->err),
			 0);
	assert_int_equal(index.kind, OCI_INDEX);
	assert_int_equal(index.n_entries, 1);
	assert_true(digest_equal(&index.entries[0].digest, &image->manifest_digest));
	assert_int_equal(catalog_mentions(fx->reader, &image->manifest_digest, &fx->arena,
					  &mentions, &n, &fx->err),
			 0);
	assert_int_equal(n, 1);
	assert_true(digest_equal(&mentions[0].document, &image->index_digest));
	assert_chains(fx, image);
}

static void assert_forgotten(struct fixture *fx, const struct image *image)
{
	struct catalog_mention *mentions;
	struct catalog_layer *layers;
	size_t n;

	assert_false(knows(fx, image->index));
	assert_false(knows(fx, image->manifest));
	assert_false(knows(fx, image->config));
	for (size_t i = 0; i < image->n_layers; i++) {
		assert_int_equal(catalog_mentions(fx->reader, &image->layers[i], &fx->arena,
						  &mentions, &n, &fx->err),
				 1);
		assert_int_equal(catalog_chain(fx->reader, &image->chain_ids[i], &fx->arena,
					       &layers, &n, &fx->err),
				 1);
	}
}

/* Looks after every step, without waiting: what was answered can be read. */
static void learn_in_every_order(struct fixture *fx)
{
	static const int orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
					{1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		struct image image;
		const char *texts[3];
		char name[20];

		snprintf(name, sizeof(name), "image %zu", i);
		image = image_make(&fx->arena, name, 4);
		texts[0] = image.index;
		texts[1] = image.manifest;
		texts[2] = image.config;
		for (int j = 0; j < 3; j++) {
			assert_false(knows(fx, texts[orders[i][j]]));
			add(fx, texts[orders[i][j]]);
			assert_true(knows(fx, texts[orders[i][j]]));
		}
		assert_known(fx, &image);
		if (i % 2)
			continue;
		for (int j = 0; j < 3; j++) {
			take(fx, texts[orders[i][j]]);
			assert_false(knows(fx, texts[orders[i][j]]));
		}
		assert_forgotten(fx, &image);
	}
}

static void what_was_committed_can_be_read_in_any_order(void **state)
{
	learn_in_every_order(*state);
}

static void over_a_socket_too(void **state)
{
	struct fixture *fx = *state;
	char *path = temp_root_path(fx->root, "socket");
	const struct content_proxy_conf conf = {.address = path};
	struct content_server *server = content_server_start(path, local, fx->store);

	fx->ops = &content_proxy_ops;
	assert_ok(fx->ops->open(fx->root->path, &conf, &fx->self, &fx->err), &fx->err);
	learn_in_every_order(fx);
	fx->ops->close(fx->self);
	content_server_stop(server);
	free(path);
}

static void other_blobs_are_not_looked_at(void **state)
{
	struct fixture *fx = *state;
	const char *const texts[] = {"\x1f\x8b", "[]", "null", "text {", "\"{\""};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		add(fx, texts[i]);
		assert_false(knows(fx, texts[i]));
		take(fx, texts[i]);
	}
}

static void hostile_documents_are_blobs_like_others(void **state)
{
	struct fixture *fx = *state;
	size_t size = OCI_DOCUMENT_MAX_BYTES + 1;
	char *large = malloc(size + 1);
	const char *const texts[] = {
		"{",
		"{}",
		"{\"layers\":[],\"layers\":[]}",
		"{\"manifests\":[],\"layers\":[],\"config\":{}}",
		"{\"manifests\":[{\"size\":-1}]}",
		"{\"\xff\":1}",
		" \t\r\n{\"mediaType\":7}",
	};

	assert_non_null(large);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		add(fx, texts[i]);
		assert_true(knows(fx, texts[i]));
	}
	/* A kind that is of no interest, and nothing that was made of it. */
	memset(large, '{', size);
	large[size] = '\0';
	assert_ok(add_bytes(fx, large, size, &fx->err), &fx->err);
	assert_true(knows(fx, large));
	/* The largest that is read, as deep as can be. */
	assert_ok(add_bytes(fx, large, size - 1, &fx->err), &fx->err);
	take(fx, large);
	assert_false(knows(fx, large));
	free(large);
}

/* --- starts ------------------------------------------------------------------------------------------------- */

static void a_restart_finds_it_as_it_was(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);

	add_image(fx, &image);
	wait_complete(fx);
	for (int i = 0; i < 3; i++) {
		close_store(fx);
		/* Also while nobody writes it. */
		assert_known(fx, &image);
		assert_int_equal(catalog_is_complete(fx->reader, &fx->err), 1);
		open_store(fx);
		assert_known(fx, &image);
		wait_complete(fx);
	}
}

static void unlink_all(struct fixture *fx, const char *name)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};

	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		char path[40];

		snprintf(path, sizeof(path), "%s%s", name, suffixes[i]);
		assert_true(unlinkat(fx->root->fd, path, 0) == 0 || errno == ENOENT);
	}
}

static void write_file(struct fixture *fx, const char *name, const void *data, size_t size)
{
	int fd = openat(fx->root->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
}

static void lose(struct fixture *fx)
{
	unlink_all(fx, "catalog.db");
}

static void lose_all_but_the_log(struct fixture *fx)
{
	assert_int_equal(unlinkat(fx->root->fd, "catalog.db", 0), 0);
	write_file(fx, "catalog.db-wal", "log", 3);
}

static void empty(struct fixture *fx)
{
	lose(fx);
	write_file(fx, "catalog.db", "", 0);
}

static void fill_with_garbage(struct fixture *fx)
{
	static const char garbage[20000] = "not a database";

	lose(fx);
	write_file(fx, "catalog.db", garbage, sizeof(garbage));
}

static void put_somebody_elses(struct fixture *fx)
{
	char *path = temp_root_path(fx->root, "catalog.db");

	lose(fx);
	db_fault_make_foreign(path);
	free(path);
}

static void put_a_newer_one(struct fixture *fx)
{
	static const char *const migrations[] = {"CREATE TABLE a (x)", "CREATE TABLE b (x)"};
	char *path = temp_root_path(fx->root, "catalog.db");
	const struct db_options options = {.path = path,
					   .migrations = migrations,
					   .n_migrations = 2,
					   .n_readers = 1,
					   .application_id = 0x6c746363};
	struct db *db;

	lose(fx);
	assert_ok(db_open(&options, &db, &fx->err), &fx->err);
	db_close(db);
	free(path);
}

/* All pages but those of the schema. */
static void damage_pages(struct fixture *fx)
{
	static const char garbage[4096] = {9};
	struct stat st;
	int fd = openat(fx->root->fd, "catalog.db", O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	for (off_t at = 4096; at < st.st_size; at += 4096)
		assert_int_equal(pwrite(fd, garbage, sizeof(garbage), at), sizeof(garbage));
	close(fd);
}

static void cut_off(struct fixture *fx)
{
	char *path = temp_root_path(fx->root, "catalog.db");

	assert_int_equal(truncate(path, 8192), 0);
	free(path);
}

/* sqlite's connections do not cross a fork; and one remembers pages that somebody else's hand has changed. */
static void drop_reader(struct fixture *fx)
{
	catalog_reader_free(fx->reader);
	fx->reader = NULL;
}

static void make_reader(struct fixture *fx)
{
	char *path = temp_root_path(fx->root, "catalog.db");

	assert_ok(catalog_reader_new(path, &fx->reader, &fx->err), &fx->err);
	free(path);
}

static void whatever_became_of_it_it_is_made_anew(void **state)
{
	static void (*const spoil[])(struct fixture * fx) = {
		lose,
		lose_all_but_the_log,
		empty,
		fill_with_garbage,
		put_somebody_elses,
		put_a_newer_one,
		damage_pages,
		cut_off,
	};
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);
	struct image gone = image_make(&fx->arena, "gone", 3);

	add_image(fx, &image);
	add_image(fx, &gone);
	for (size_t i = 0; i < ARRAY_LEN(spoil); i++) {
		wait_complete(fx);
		close_store(fx);
		drop_reader(fx);
		spoil[i](fx);
		make_reader(fx);
		open_store(fx);
		if (i == 0)
			take(fx, gone.manifest);
		wait_complete(fx);
		assert_known(fx, &image);
		assert_true(knows(fx, gone.config));
		assert_false(knows(fx, gone.manifest));
	}
}

static void a_store_without_it_gets_one(void **state)
{
	struct fixture *fx = *state;
	char text[100];

	/* More than are compared at a time. */
	for (int i = 0; i < 300; i++) {
		snprintf(text, sizeof(text), "{\"manifests\":[],\"n\":%d}", i);
		add(fx, text);
		if (i % 20 == 0) {
			snprintf(text, sizeof(text), "other %d", i);
			add(fx, text);
		}
	}
	wait_complete(fx);
	close_store(fx);
	lose(fx);
	open_store(fx);
	wait_complete(fx);
	for (int i = 0; i < 300; i++) {
		snprintf(text, sizeof(text), "{\"manifests\":[],\"n\":%d}", i);
		assert_true(knows(fx, text));
	}
}

/* As a power cut does, or somebody who restores metadata.db alone. */
static void one_of_another_time_is_made_to_fit(void **state)
{
	struct fixture *fx = *state;
	struct image old = image_make(&fx->arena, "old", 3);
	struct image later = image_make(&fx->arena, "later", 3);

	add_image(fx, &old);
	close_store(fx);
	assert_int_equal(linkat(fx->root->fd, "catalog.db", fx->root->fd, "saved", 0), 0);
	assert_int_equal(unlinkat(fx->root->fd, "catalog.db", 0), 0);
	open_store(fx);
	take(fx, old.index);
	take(fx, old.manifest);
	take(fx, old.config);
	add_image(fx, &later);
	close_store(fx);
	lose(fx);
	assert_int_equal(renameat(fx->root->fd, "saved", fx->root->fd, "catalog.db"), 0);
	assert_known(fx, &old);
	open_store(fx);
	wait_complete(fx);
	assert_forgotten(fx, &old);
	assert_known(fx, &later);
}

static bool has_adopted(void *arg)
{
	struct fixture *fx = arg;

	return faccessat(fx->root->fd, "adopt", F_OK, AT_SYMLINK_NOFOLLOW) < 0;
}

static void another_store_below_it_is_noticed(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);
	struct image gone = image_make(&fx->arena, "gone", 3);

	add_image(fx, &image);
	add_image(fx, &gone);
	close_store(fx);
	/* The database is lost, and with it a blob: all others are adopted. */
	unlink_all(fx, "metadata.db");
	{
		char text[DIGEST_TEXT_BYTES], path[DIGEST_TEXT_BYTES + 20];

		snprintf(path, sizeof(path), "blobs/sha256/%s",
			 digest_format(&gone.manifest_digest, text) + strlen("sha256:"));
		assert_int_equal(unlinkat(fx->root->fd, path, 0), 0);
	}
	open_store(fx);
	wait_until(has_adopted, fx, "the end of adopting");
	wait_complete(fx);
	assert_known(fx, &image);
	assert_false(knows(fx, gone.manifest));
	assert_true(knows(fx, gone.config));
}

static int forget_kinds(struct db_conn *conn, void *arg, struct err *err)
{
	struct db_stmt *stmt;

	(void)arg;
	if (db_prepare(conn, "UPDATE blobs SET is_json = NULL", &stmt, err) < 0)
		return -1;
	return db_step(stmt, err);
}

static void blobs_that_nobody_looked_at_are_looked_at(void **state)
{
	static const char *const schema[] = {"", "", ""};
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);
	char *path = temp_root_path(fx->root, "metadata.db");
	const struct db_options options = {.path = path,
					   .migrations = schema,
					   .n_migrations = ARRAY_LEN(schema),
					   .n_readers = 1,
					   .application_id = 0x6c746374};
	struct db *db;

	add_image(fx, &image);
	add(fx, "no document");
	close_store(fx);
	lose(fx);
	/* As earlier versions of the database leave them to version 3. */
	assert_ok(db_open(&options, &db, &fx->err), &fx->err);
	assert_ok(db_write(db, forget_kinds, NULL, NULL, NULL, &fx->err), &fx->err);
	db_close(db);
	free(path);
	for (int i = 0; i < 2; i++) {
		open_store(fx);
		wait_complete(fx);
		assert_known(fx, &image);
		assert_false(knows(fx, "no document"));
		close_store(fx);
	}
	open_store(fx);
}

/* --- killed -------------------------------------------------------------------------------------------------- */

struct child {
	struct fixture *fx;
	const char *point;
	const struct image *image;
};

static int live_and_die(void *arg)
{
	const struct child *child = arg;
	struct fixture *fx = child->fx;

	setenv("LIGHTER_CRASH_POINT", child->point, 1);
	open_store(fx);
	add_image(fx, child->image);
	take(fx, child->image->manifest);
	take(fx, child->image->index);
	/* Until the comparison is over, which may be what it is to die in. */
	make_reader(fx);
	wait_complete(fx);
	drop_reader(fx);
	close_store(fx);
	return 0;
}

static int commit_and_die(void *arg)
{
	const struct child *child = arg;

	setenv("LIGHTER_CRASH_POINT", child->point, 1);
	open_store(child->fx);
	add_image(child->fx, child->image);
	close_store(child->fx);
	return 0;
}

/* Return: did it die? */
static bool run_and_die(struct fixture *fx, const char *point, const struct image *image)
{
	struct child child = {fx, point, image};
	int status;

	close_store(fx);
	drop_reader(fx);
	status = run_child(live_and_die, &child);
	make_reader(fx);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return false;
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail_msg("%s: wait status %#x", point, status);
	return true;
}

static bool is_there(struct fixture *fx, const char *text)
{
	struct digest digest = text_digest(text);
	struct blob_info info;

	if (local->info(fx->store, &fx->ctx, &digest, &info, &fx->err) == 0)
		return true;
	assert_int_equal(fx->err.code, ERR_NOT_FOUND);
	return false;
}

/* After a start: what is known is what is there. */
static void assert_in_step(struct fixture *fx, const struct image *image)
{
	const char *const texts[] = {image->index, image->manifest, image->config};

	wait_complete(fx);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (knows(fx, texts[i]) != is_there(fx, texts[i]))
			fail_msg("document %zu: known: %d", i, knows(fx, texts[i]));
}

/* Small documents whose files are not to be trusted, and which the database holds: they are read from there. */
static void documents_that_the_database_holds_are_looked_at(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);
	struct child child = {fx, "late-sync.synced", &image};
	int status;

	require_crash_points();
	close_store(fx);
	drop_reader(fx);
	status = run_child(commit_and_die, &child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	make_reader(fx);
	lose(fx);
	fault_after(FAULT_WRITE, 0, ENOSPC);
	open_store(fx);
	assert_true(fault_n_failed() > 0);
	wait_complete(fx);
	fault_clear();
	assert_known(fx, &image);
}

static void clear(struct fixture *fx, const struct image *image)
{
	take(fx, image->index);
	take(fx, image->manifest);
	take(fx, image->config);
}

static void killed_at_any_commit_it_is_in_step_after_the_next_start(void **state)
{
	static const char *const points[] = {"db.before-commit",   "db.committed",
					     "commit.row-written", "catalog.learned",
					     "remove.row-deleted", "catalog.forgotten"};
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 2);

	require_crash_points();
	for (size_t i = 0; i < ARRAY_LEN(points); i++) {
		int pass = 0;
		char point[60];

		do {
			snprintf(point, sizeof(point), "%s:%d", points[i], ++pass);
			if (!run_and_die(fx, point, &image))
				break;
			open_store(fx);
			assert_in_step(fx, &image);
			clear(fx, &image);
		} while (pass < 100);
		/* Each is passed for two removals, or more often. */
		assert_in_range(pass, 3, 99);
		open_store(fx);
		assert_in_step(fx, &image);
		clear(fx, &image);
	}
}

static void killed_before_or_after_it_learned_it_knows_what_it_must(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 2);

	require_crash_points();
	/* Committed, not answered: behind by that, until the next start. */
	assert_true(run_and_die(fx, "commit.row-written:2", &image));
	assert_true(knows(fx, image.index));
	assert_false(knows(fx, image.manifest));
	open_store(fx);
	assert_true(is_there(fx, image.manifest));
	wait_complete(fx);
	assert_true(knows(fx, image.manifest));
	clear(fx, &image);
	/* Learned, and about to be answered: others can read it, whoever is dead. */
	assert_true(run_and_die(fx, "catalog.learned:2", &image));
	assert_true(knows(fx, image.manifest));
	open_store(fx);
}

static void killed_while_it_is_made_anew_it_is_made_anew(void **state)
{
	static const char *const points[] = {"catalog.file-deleted:1", "catalog.file-deleted:2",
					     "catalog.file-deleted:3", "catalog.file-deleted:4",
					     "catalog.made-up:1",      "catalog.made-up:2"};
	struct fixture *fx = *state;
	struct image old = image_make(&fx->arena, "old", 2);
	struct image image = image_make(&fx->arena, "image", 2);

	require_crash_points();
	add_image(fx, &old);
	for (size_t i = 0; i < ARRAY_LEN(points); i++) {
		close_store(fx);
		drop_reader(fx);
		fill_with_garbage(fx);
		write_file(fx, "catalog.db-wal", "log", 3);
		if (!run_and_die(fx, points[i], &image))
			fail_msg("%s was not passed", points[i]);
		open_store(fx);
		assert_in_step(fx, &image);
		assert_known(fx, &old);
		clear(fx, &image);
	}
}

/* Another process commits images, and is killed; this one reads what it acknowledged. */
static void it_is_read_while_another_process_writes_it(void **state)
{
	struct fixture *fx = *state;
	int fds[2], status, n = -1;
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		open_store(fx);
		for (int i = 0;; i++) {
			struct image image;
			char name[20];

			snprintf(name, sizeof(name), "image %d", i);
			image = image_make(&fx->arena, name, 10);
			add_image(fx, &image);
			arena_done(&fx->arena);
			if (write(fds[1], &i, sizeof(i)) != sizeof(i))
				_exit(1);
		}
	}
	close(fds[1]);
	assert_true(fcntl(fds[0], F_SETPIPE_SZ, 4096) >= 0);
	while (read(fds[0], &n, sizeof(n)) == sizeof(n)) {
		struct image image;
		char name[20];

		snprintf(name, sizeof(name), "image %d", n);
		image = image_make(&fx->arena, name, 10);
		assert_known(fx, &image);
		arena_done(&fx->arena);
		if (n == 60)
			assert_int_equal(kill(pid, SIGKILL), 0);
	}
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_true(n >= 60);
	for (int i = 0; i <= n; i += 10) {
		struct image image;
		char name[20];

		snprintf(name, sizeof(name), "image %d", i);
		image = image_make(&fx->arena, name, 10);
		assert_known(fx, &image);
	}
}

/* --- it cannot be written ------------------------------------------------------------------------------------ */

static void commits_and_removals_do_not_depend_on_it(void **state)
{
	static const enum db_fault faults[] = {DB_FAULT_WRITE_ENOSPC, DB_FAULT_WRITE_EIO,
					       DB_FAULT_WRITE_SHORT};
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);
	struct image gone = image_make(&fx->arena, "gone", 3);

	for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
		add_image(fx, &gone);
		db_fault_only("catalog.db");
		db_fault_from(faults[i], 0);
		add_image(fx, &image);
		clear(fx, &gone);
		assert_true(db_fault_clear() > 0);
		assert_true(is_there(fx, image.manifest));
		assert_false(is_there(fx, gone.manifest));
		/* With the next document that can be written, all is made up for. */
		add(fx, "{\"next\":1}");
		wait_complete(fx);
		assert_known(fx, &image);
		assert_forgotten(fx, &gone);
		clear(fx, &image);
		take(fx, "{\"next\":1}");
	}
}

/* One write of the catalog after the other fails: whichever it is, it gets well. */
static void one_failed_write_is_made_up_for(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);
	unsigned int after = 0, n_failed;

	do {
		wait_complete(fx);
		db_fault_only("catalog.db");
		db_fault_once(DB_FAULT_WRITE_EIO, after++);
		add_image(fx, &image);
		take(fx, image.index);
		n_failed = db_fault_clear();
		add(fx, "{\"next\":1}");
		wait_until(is_complete, fx, "a complete catalog");
		assert_in_step(fx, &image);
		assert_chains(fx, &image);
		clear(fx, &image);
		take(fx, "{\"next\":1}");
	} while (n_failed);
	assert_true(after > 4);
}

static void a_start_that_cannot_make_it_goes_on_without(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);

	close_store(fx);
	lose(fx);
	db_fault_only("catalog.db");
	db_fault_from(DB_FAULT_WRITE_ENOSPC, 0);
	open_store(fx);
	add_image(fx, &image);
	assert_true(is_there(fx, image.config));
	assert_true(db_fault_clear() > 0);
	add(fx, "{\"next\":1}");
	wait_complete(fx);
	assert_known(fx, &image);
	assert_true(knows(fx, "{\"next\":1}"));
	/* Something is in its place that is not ours to delete. */
	close_store(fx);
	lose(fx);
	assert_int_equal(mkdirat(fx->root->fd, "catalog.db", 0700), 0);
	assert_int_equal(mkdirat(fx->root->fd, "catalog.db/theirs", 0700), 0);
	open_store(fx);
	take(fx, image.index);
	close_store(fx);
	assert_int_equal(unlinkat(fx->root->fd, "catalog.db/theirs", AT_REMOVEDIR), 0);
	assert_int_equal(unlinkat(fx->root->fd, "catalog.db", AT_REMOVEDIR), 0);
	open_store(fx);
	wait_complete(fx);
	assert_false(knows(fx, image.index));
	assert_chains(fx, &image);
}

/* From now on, no file is opened. */
static void fail_to_open(void *arg)
{
	fault_after(FAULT_OPENAT, 0, EIO);
	atomic_store((atomic_bool *)arg, true);
}

static bool is_set(void *arg)
{
	return atomic_load((atomic_bool *)arg);
}

static void a_document_that_cannot_be_read_is_tried_again_by_the_next_start(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);
	atomic_bool has_failed = false;

	add(fx, "{\"first\":1}");
	wait_complete(fx);
	db_fault_only("catalog.db");
	db_fault_from(DB_FAULT_WRITE_ENOSPC, 0);
	add(fx, image.manifest);
	assert_true(db_fault_clear() > 0);
	/* It is missing, and its file cannot be opened when that is to be made up for. */
	fault_hook(FAULT_OPENAT, 0, fail_to_open, &has_failed);
	take(fx, "{\"first\":1}");
	wait_until(is_set, &has_failed, "the comparison");
	assert_true(is_there(fx, image.manifest));
	assert_false(knows(fx, image.manifest));
	close_store(fx);
	assert_int_equal(fault_clear(), 1);
	assert_int_equal(catalog_is_complete(fx->reader, &fx->err), 0);
	open_store(fx);
	wait_complete(fx);
	add(fx, image.config);
	assert_chains(fx, &image);
}

/* Has all of it been mended? Until then it may be anything: there or not, and say that it is complete. */
static bool is_mended(void *arg)
{
	struct fixture *fx = arg;
	bool all = is_complete(fx);
	struct catalog_layer *layers;
	struct image image;
	struct arena arena;
	size_t n;

	arena_init(&arena, ARENA_BYTES);
	image = image_make(&arena, "image", 3);
	for (int i = 0; all && i < 60; i++) {
		struct oci_document document;
		struct digest digest;
		char text[60];

		snprintf(text, sizeof(text), "{\"n\":%d}", i);
		digest = text_digest(text);
		all = catalog_document(fx->reader, &digest, &arena, &document, &fx->err) == 0;
	}
	all = all &&
	      catalog_chain(fx->reader, &image.chain_ids[2], &arena, &layers, &n, &fx->err) == 0;
	arena_done(&arena);
	return all;
}

static void damage_found_while_it_runs_is_mended(void **state)
{
	struct fixture *fx = *state;
	struct image image = image_make(&fx->arena, "image", 3);
	char text[60];

	/* So many that not all is in the cache. */
	for (int i = 0; i < 60; i++) {
		struct image other;

		snprintf(text, sizeof(text), "other %d", i);
		other = image_make(&fx->arena, text, 60);
		add_image(fx, &other);
	}
	add_image(fx, &image);
	wait_complete(fx);
	close_store(fx);
	open_store(fx);
	wait_complete(fx);
	damage_pages(fx);
	for (int i = 0; i < 60; i++) {
		snprintf(text, sizeof(text), "{\"n\":%d}", i);
		add(fx, text);
	}
	wait_until(is_mended, fx, "a catalog that was mended");
	assert_known(fx, &image);
}

/* Whoever uses it next finds it damaged: its schema names a page that there is not. */
static int damage_schema_rows(struct db_conn *conn, void *arg, struct err *err)
{
	static const char *const steps[] = {
		"PRAGMA writable_schema = ON",
		"UPDATE sqlite_master SET rootpage = 1000000 WHERE name = 'documents'",
		"PRAGMA schema_version = 1000000",
	};

	(void)arg;
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		struct db_stmt *stmt;

		if (db_prepare(conn, steps[i], &stmt, err) < 0 || db_step(stmt, err) < 0)
			return -1;
	}
	return 0;
}

static void damage_schema(struct fixture *fx)
{
	static const char *const schema[] = {""};
	char *path = temp_root_path(fx->root, "catalog.db");
	const struct db_options options = {.path = path,
					   .migrations = schema,
					   .n_migrations = ARRAY_LEN(schema),
					   .n_readers = 1,
					   .application_id = 0x6c746363};
	struct db *db;

	assert_ok(db_open(&options, &db, &fx->err), &fx->err);
	assert_ok(db_write(db, damage_schema_rows, NULL, NULL, NULL, &fx->err), &fx->err);
	db_close(db);
	free(path);
}

/* --- at the same time ------------------------------------------------------------------------------------------ */

struct worker {
	struct fixture *fx;
	int number;
};

/* Commits and removes the same few documents as the others, with a context of its own. */
static void *come_and_go(void *arg)
{
	struct worker *worker = arg;
	struct fixture *fx = worker->fx;
	struct arena arena;
	struct fixture own = {.ops = fx->ops, .self = fx->self};

	arena_init(&arena, ARENA_BYTES);
	own.ctx = (struct ctx){.arena = &arena, .deadline_ns = CTX_NO_DEADLINE, .ns = ""};
	for (int i = 0; i < 60; i++) {
		char text[60];
		struct digest digest;
		struct err err;

		snprintf(text, sizeof(text), "{\"manifests\":[],\"n\":%d}", i % 7);
		if (add_bytes(&own, text, strlen(text), &err) < 0)
			assert_int_equal(err.code, ERR_ALREADY_EXISTS);
		digest = text_digest(text);
		if ((i + worker->number) % 3)
			assert_ok(fx->ops->remove(fx->self, &own.ctx, &digest, &err), &err);
	}
	arena_done(&arena);
	return NULL;
}

static void run_workers(struct fixture *fx)
{
	struct worker workers[6];
	pthread_t threads[ARRAY_LEN(workers)];

	for (size_t i = 0; i < ARRAY_LEN(workers); i++) {
		workers[i] = (struct worker){fx, (int)i};
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &workers[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(workers); i++)
		pthread_join(threads[i], NULL);
}

static void it_stays_in_step_with_who_commits_and_removes_at_once(void **state)
{
	struct fixture *fx = *state;

	for (int round = 0; round < 5; round++) {
		run_workers(fx);
		for (int i = 0; i < 7; i++) {
			char text[60];

			snprintf(text, sizeof(text), "{\"manifests\":[],\"n\":%d}", i);
			assert_int_equal(knows(fx, text), is_there(fx, text));
		}
		/* The next ones while the comparison runs, or with a catalog that is made anew. */
		close_store(fx);
		if (round % 2)
			lose(fx);
		open_store(fx);
	}
}

static bool is_known(void *arg)
{
	struct fixture *fx = arg;
	struct digest digest = text_digest("{\"manifests\":[],\"n\":\"stays\"}");
	struct oci_document document;

	return is_complete(fx) &&
	       catalog_document(fx->reader, &digest, &fx->arena, &document, &fx->err) == 0;
}

/* However many find the same damage, it is one; and what was mended does not count for ever. */
static void damage_seen_by_many_is_mended_each_time(void **state)
{
	struct fixture *fx = *state;

	add(fx, "{\"manifests\":[],\"n\":\"stays\"}");
	for (int i = 0; i < 6; i++) {
		wait_until(is_known, fx, "a catalog that was mended");
		damage_schema(fx);
		run_workers(fx);
	}
	wait_until(is_known, fx, "a catalog that was mended");
}

int main(void)
{
#define TEST(fn_) cmocka_unit_test_setup_teardown(fn_, setup_open, teardown)
	const struct CMUnitTest tests[] = {
		/* Those that fork first, while there are no threads. */
		cmocka_unit_test_setup_teardown(it_is_read_while_another_process_writes_it, setup,
						teardown),
		TEST(killed_at_any_commit_it_is_in_step_after_the_next_start),
		TEST(killed_before_or_after_it_learned_it_knows_what_it_must),
		TEST(killed_while_it_is_made_anew_it_is_made_anew),
		TEST(what_was_committed_can_be_read_in_any_order),
		TEST(other_blobs_are_not_looked_at),
		TEST(hostile_documents_are_blobs_like_others),
		TEST(a_restart_finds_it_as_it_was),
		TEST(whatever_became_of_it_it_is_made_anew),
		TEST(a_store_without_it_gets_one),
		TEST(one_of_another_time_is_made_to_fit),
		TEST(another_store_below_it_is_noticed),
		TEST(blobs_that_nobody_looked_at_are_looked_at),
		TEST(documents_that_the_database_holds_are_looked_at),
		TEST(commits_and_removals_do_not_depend_on_it),
		TEST(one_failed_write_is_made_up_for),
		TEST(a_start_that_cannot_make_it_goes_on_without),
		TEST(a_document_that_cannot_be_read_is_tried_again_by_the_next_start),
		TEST(damage_found_while_it_runs_is_mended),
		TEST(damage_seen_by_many_is_mended_each_time),
		TEST(it_stays_in_step_with_who_commits_and_removes_at_once),
		TEST(over_a_socket_too),
	};
	int n_failed;

	db_fault_install();
	n_failed = cmocka_run_group_tests(tests, NULL, NULL);
	rpc_library_done();
	return n_failed;
}
