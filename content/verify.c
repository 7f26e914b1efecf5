/* SPDX-License-Identifier: Apache-2.0 */
#include "content/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/ctx.h"
#include "base/fs.h"
#include "base/labels.h"
#include "base/log.h"
#include "content/blob_files.h"
#include "content/file_digest.h"
#include "content/late_sync.h"

/* How long a daemon may take until it has synced a small blob, and how often to look. */
#define HELD_WAIT_NS (2 * INT64_C(1000000000))
#define HELD_LOOK_NS (50 * 1000000)
/* Rows read at a time: while they are verified, no read of the database is open. */
#define PAGE_ROWS    128

/**
 * struct verify - one verification
 * @rows: which putting aside may have replaced
 * @arena: for one row
 * @pass: where to count
 * @n_unreadable: in a row, or not there
 */
struct verify {
	int blobs_fd;
	struct blob_rows **rows;
	const struct verify_options *options;
	struct pace pace;
	struct arena arena;
	struct ctx ctx;
	int state_dir_fd;
	struct verify_state *state;
	struct verify_pass *pass;
	unsigned int n_unreadable;
	bool cannot_save;
	bool waited_in_vain; /* for the database to forget bytes: nobody is about to */
};

/* --- one blob -------------------------------------------------------------------------------------- */

/* What a look at one blob came to, beside -1. */
enum look { LOOK_GOOD, LOOK_BAD, LOOK_GONE };

/**
 * struct finding - what is wrong
 * @fd: its file; -1: there is none, or it cannot be opened
 * @why: for people
 */
struct finding {
	enum verify_kind kind;
	int fd;
	struct err why;
};

static int bad(struct finding *finding, enum verify_kind kind, const char *why)
{
	finding->kind = kind;
	(void)err_set(&finding->why, ERR_DATA_LOSS, "%s", why);
	return LOOK_BAD;
}

/* Return: 1 when it is the same row still, 0 when it is gone, or has been made anew; or -1. */
static int is_there_still(struct verify *verify, const struct blob_info *info, struct err *err)
{
	struct blob_info now;
	int r = blob_rows_get(*verify->rows, &verify->ctx, &info->digest, &now, err);

	arena_done(&verify->arena);
	if (r < 0)
		return err->code == ERR_NOT_FOUND ? 0 : -1;
	return now.created_ns == info->created_ns;
}

static int read_bytes(struct verify *verify, const struct blob_info *info, struct finding *finding,
		      struct err *err)
{
	const struct file_digest_options options = {
		.ctx = &verify->ctx,
		.pace = &verify->pace,
		.done_bytes = &verify->options->progress->done_bytes,
		.direct = true,
		.copy_fd = -1,
	};
	struct digest digest;
	uint64_t size_bytes;
	int r = file_digest(finding->fd, info->digest.algorithm, &options, &digest, &size_bytes,
			    &finding->why);

	if (r < 0) {
		*err = finding->why;
		return -1;
	}
	if (r > 0) {
		finding->kind = VERIFY_UNREADABLE;
		return LOOK_BAD;
	}
	if (!digest_equal(&digest, &info->digest))
		return bad(finding, VERIFY_DAMAGED, "its bytes are not what its name says");
	return LOOK_GOOD;
}

static int look(struct verify *verify, const struct blob_info *info, struct finding *finding,
		struct err *err)
{
	char path[BLOB_PATH_MAX];
	struct stat st;

	blob_path(&info->digest, path);
	/* Not by what it leads to; and a FIFO that took its place would hold us. */
	finding->fd =
		openat(verify->blobs_fd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (finding->fd < 0 && errno == ENOENT)
		return bad(finding, VERIFY_MISSING, "its file is not there");
	if (finding->fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		return err_sys(err, "open 'blobs/%s'", path);
	if (finding->fd < 0 && errno == ELOOP)
		return bad(finding, VERIFY_DAMAGED, "is no regular file");
	if (finding->fd < 0 || fstat(finding->fd, &st) < 0) {
		finding->kind = VERIFY_UNREADABLE;
		(void)err_sys(&finding->why, "open");
		return LOOK_BAD;
	}
	if (!S_ISREG(st.st_mode))
		return bad(finding, VERIFY_DAMAGED, "is no regular file");
	if ((uint64_t)st.st_size != info->size_bytes) {
		(void)err_set(&finding->why, ERR_DATA_LOSS,
			      "its file has %llu bytes, of %llu that there should be",
			      (unsigned long long)st.st_size, (unsigned long long)info->size_bytes);
		finding->kind = VERIFY_SIZE;
		return LOOK_BAD;
	}
	return read_bytes(verify, info, finding, err);
}

/*
 * Does the database hold the bytes of a small blob? A daemon that runs forgets them within a moment of their commit: that
 * is waited for, once. Return: 1, 0 or -1.
 */
static int is_held(struct verify *verify, const struct digest *digest, struct err *err)
{
	const struct timespec pause = {.tv_nsec = HELD_LOOK_NS};
	int64_t until_ns = monotonic_ns() + HELD_WAIT_NS;
	int held = blob_rows_holds_bytes(*verify->rows, digest, err);

	while (held > 0 && !verify->waited_in_vain) {
		if (ctx_check(&verify->ctx, err) < 0)
			return -1;
		verify->waited_in_vain = monotonic_ns() >= until_ns;
		(void)nanosleep(&pause, NULL);
		held = blob_rows_holds_bytes(*verify->rows, digest, err);
	}
	return held;
}

/*
 * The file of a small blob may be what a power cut has left: the daemon's next start writes it anew from the bytes that
 * the database holds, and has it forget them. What was seen while it did is nothing, so once they are gone it must be
 * looked at again. Return: as look().
 */
static int look_again(struct verify *verify, const struct blob_info *info, struct finding *finding,
		      struct err *err)
{
	int held = is_held(verify, &info->digest, err);

	if (held != 0)
		return held < 0 ? -1 : LOOK_GONE;
	close_fd(&finding->fd);
	*finding = (struct finding){.fd = -1, .why = ERR_INIT};
	return look(verify, info, finding, err);
}

/*
 * A blob is made as file, then row, and deleted as row, then file. So while one row stands, its file does, and what seems
 * wrong with a blob whose row is gone by now, or is another one, is nothing.
 */
static int look_surely(struct verify *verify, const struct blob_info *info, struct finding *finding,
		       struct err *err)
{
	int r = look(verify, info, finding, err), there;

	if (r == LOOK_BAD && info->size_bytes <= LATE_SYNC_MAX_BYTES)
		r = look_again(verify, info, finding, err);
	if (r != LOOK_BAD)
		return r;
	there = is_there_still(verify, info, err);
	if (there < 0)
		return -1;
	return there ? LOOK_BAD : LOOK_GONE;
}

static int tell(struct verify *verify, const struct blob_info *info, const struct finding *finding,
		struct err *err)
{
	const struct verify_options *options = verify->options;

	options->found(options->arg, finding->kind, &info->digest, finding->why.msg);
	if (verify->state)
		verify_state_add(verify->state, finding->kind, &info->digest);
	else
		verify->pass->n_problems++;
	/* What could not even be opened is not put anywhere. */
	if (options->put_aside && (finding->fd >= 0 || finding->kind == VERIFY_MISSING))
		return options->put_aside(options->arg, info, finding->fd, err);
	return 0;
}

/* Also when something was unmounted, or is being deleted, below a daemon that runs: no blob is to be given up for that. */
static int check_disk(struct verify *verify, const struct finding *finding, int r, struct err *err)
{
	bool unreadable = r == LOOK_BAD &&
			  (finding->kind == VERIFY_UNREADABLE || finding->kind == VERIFY_MISSING);

	verify->n_unreadable = unreadable ? verify->n_unreadable + 1 : 0;
	if (verify->n_unreadable < VERIFY_UNREADABLE_MAX)
		return 0;
	return err_set(err, ERR_INTERNAL,
		       "%d blobs one after the other cannot be read, or are missing: the disk is "
		       "failing, or not mounted",
		       VERIFY_UNREADABLE_MAX);
}

static int verify_blob(struct verify *verify, const struct blob_info *info, struct err *err)
{
	struct finding finding = {.fd = -1, .why = ERR_INIT};
	uint64_t before = verify->options->progress->done_bytes;
	int r = look_surely(verify, info, &finding, err);

	if (r == LOOK_GOOD || r == LOOK_BAD) {
		verify->pass->n_blobs++;
		verify->pass->bytes += info->size_bytes;
	}
	/* Of a bad disk, too, only the first few are told of. */
	if (r == LOOK_BAD && verify->n_unreadable < VERIFY_UNREADABLE_MAX &&
	    tell(verify, info, &finding, err) < 0)
		r = -1;
	close_fd(&finding.fd);
	if (r < 0)
		return -1;
	verify->options->progress->done_items++;
	verify->options->progress->done_bytes = before + info->size_bytes;
	return check_disk(verify, &finding, r, err);
}

/* --- the rows -------------------------------------------------------------------------------------- */

/** struct page - some rows, without their labels */
struct page {
	struct blob_info infos[PAGE_ROWS];
	size_t n;
};

static int add_to_page(void *arg, const struct blob_info *info, struct err *err)
{
	struct page *page = arg;

	(void)err;
	page->infos[page->n] = *info;
	page->infos[page->n++].labels = (struct strmap){0};
	return page->n == PAGE_ROWS;
}

static void save(struct verify *verify)
{
	struct err err = ERR_INIT;

	if (verify->state_dir_fd < 0)
		return;
	if (verify_state_save(verify->state_dir_fd, verify->state, &err) < 0) {
		/* On a full disk, say. What was found is told all the same. */
		if (!verify->cannot_save)
			log_event(LOG_WARN,
				  "how far it has come is not noted: the next run does it again",
				  LOG_ERR(&err));
		verify->cannot_save = true;
	}
	CRASH_POINT("verify.saved");
}

static int verify_page(struct verify *verify, const struct page *page, int64_t *next_save_ns,
		       struct err *err)
{
	for (size_t i = 0; i < page->n; i++) {
		if (ctx_check(&verify->ctx, err) < 0 ||
		    verify_blob(verify, &page->infos[i], err) < 0)
			return -1;
		verify->state->after = page->infos[i].digest;
		verify->state->has_after = true;
		if (monotonic_ns() < *next_save_ns)
			continue;
		save(verify);
		*next_save_ns = monotonic_ns() + verify->options->save_ns;
	}
	return 0;
}

static int verify_rows(struct verify *verify, struct err *err)
{
	CLEANUP(free_ptr) struct page *page = malloc(sizeof(*page));
	struct verify_state *state = verify->state;
	int64_t next_save_ns = monotonic_ns() + verify->options->save_ns;
	int r;

	if (!page)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory to verify");
	do {
		page->n = 0;
		r = blob_rows_walk(*verify->rows, &verify->ctx, NULL,
				   state->has_after ? &state->after : NULL, add_to_page, page, err);
		if (r < 0 || verify_page(verify, page, &next_save_ns, err) < 0)
			return -1;
	} while (r == 1);
	return 0;
}

/* --- files without rows ---------------------------------------------------------------------------- */

struct strays {
	struct verify *verify;
	const char *algorithm;
	int dir_fd;
};

static void tell_stray(const struct strays *strays, const char *entry, const char *why)
{
	const struct verify_options *options = strays->verify->options;
	char name[2 * NAME_MAX];

	snprintf(name, sizeof(name), "%s/%s", strays->algorithm, entry);
	options->stray(options->arg, name, why);
}

/* Has it been as it is for long enough? Return: 1 if so, 0 if not, or when it is gone. */
static int is_settled(const struct strays *strays, const char *entry)
{
	int64_t changed_ns;
	struct stat st;

	if (fstatat(strays->dir_fd, entry, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	changed_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
	return realtime_ns() - changed_ns >= strays->verify->options->settled_ns;
}

static int look_at_entry(void *arg, const char *entry, unsigned char type, struct err *err)
{
	const struct strays *strays = arg;
	struct verify *verify = strays->verify;
	struct digest digest;
	uint64_t size_bytes;
	int row;

	(void)type;
	if (ctx_check(&verify->ctx, err) < 0)
		return -1;
	if (blob_path_parse(strays->algorithm, entry, &digest) < 0) {
		tell_stray(strays, entry, "is not named after a digest");
		return 0;
	}
	row = blob_rows_size(*verify->rows, &digest, &size_bytes, err);
	if (row != 0)
		return row < 0 ? -1 : 0;
	if (!is_settled(strays, entry))
		return 0;
	/* Its row may have come between the two looks. */
	row = blob_rows_size(*verify->rows, &digest, &size_bytes, err);
	if (row == 0)
		tell_stray(strays, entry, "is no blob; the daemon removes it when it starts");
	return row < 0 ? -1 : 0;
}

static int look_for_strays(struct verify *verify, struct err *err)
{
	static const char *const algorithms[] = {"sha256", "sha512"};

	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		CLEANUP(close_fd) int fd = -1;
		struct strays strays = {.verify = verify, .algorithm = algorithms[i]};

		if (fs_open_dir(verify->blobs_fd, algorithms[i], &fd, err) < 0)
			return -1;
		strays.dir_fd = fd;
		if (fs_each_entry(fd, ".", look_at_entry, &strays, err) < 0)
			return -1;
	}
	return 0;
}

/* --- all, or some ---------------------------------------------------------------------------------- */

static int begin(struct verify *verify, int root_fd, struct blob_rows **rows,
		 const struct verify_options *options, struct err *err)
{
	*verify = (struct verify){
		.blobs_fd = -1,
		.rows = rows,
		.options = options,
		.pace = options->pace,
		.ctx = {.deadline_ns = CTX_NO_DEADLINE,
			.cancelled = &options->progress->cancelled,
			.ns = ""},
		.state_dir_fd = -1,
	};
	arena_init(&verify->arena, 4 * LABELS_MAX_BYTES);
	verify->ctx.arena = &verify->arena;
	if (fs_open_dir(root_fd, "blobs", &verify->blobs_fd, err) < 0)
		return -1;
	/* As the daemon's start does: were it only not mounted, all would be missing. */
	if (faccessat(verify->blobs_fd, "sha256", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, "look for 'blobs/sha256'");
	return 0;
}

static void end(struct verify *verify)
{
	close_fd(&verify->blobs_fd);
	arena_done(&verify->arena);
}

static int count_all(struct verify *verify, struct err *err)
{
	const struct verify_state *state = verify->state;
	struct progress *progress = verify->options->progress;
	uint64_t n, bytes;

	if (blob_rows_totals(*verify->rows, state->has_after ? &state->after : NULL, &n, &bytes,
			     err) < 0)
		return -1;
	progress_resume(progress, state->now.n_blobs, state->now.bytes);
	progress->total_items = state->now.n_blobs + n;
	progress->total_bytes = state->now.bytes + bytes;
	return 0;
}

static int run_pass(struct verify *verify, struct err *err)
{
	struct verify_state *state = verify->state;

	if (count_all(verify, err) < 0 || verify_rows(verify, err) < 0 ||
	    look_for_strays(verify, err) < 0)
		return -1;
	state->last = state->now;
	state->last.ended_ns = realtime_ns();
	state->now = (struct verify_pass){0};
	state->has_after = false;
	return 0;
}

int verify_all(int root_fd, struct blob_rows **rows, const struct verify_options *options,
	       int state_dir_fd, struct verify_state *state, struct err *err)
{
	struct verify verify;
	int r = begin(&verify, root_fd, rows, options, err);

	if (r == 0) {
		verify.state_dir_fd = state_dir_fd;
		verify.state = state;
		verify.pass = &state->now;
		if (!state->now.begun_ns)
			state->now.begun_ns = realtime_ns();
		r = run_pass(&verify, err);
		save(&verify);
	}
	end(&verify);
	return r;
}

static int verify_digest(struct verify *verify, const struct digest *digest, struct err *err)
{
	struct blob_info info;
	int r;

	if (ctx_check(&verify->ctx, err) < 0)
		return -1;
	r = blob_rows_get(*verify->rows, &verify->ctx, digest, &info, err);
	arena_done(&verify->arena);
	if (r < 0)
		return -1;
	info.labels = (struct strmap){0};
	verify->options->progress->total_bytes += info.size_bytes;
	return verify_blob(verify, &info, err);
}

int verify_some(int root_fd, struct blob_rows **rows, const struct verify_options *options,
		const struct digest *digests, size_t n, struct verify_pass *ret_pass,
		struct err *err)
{
	struct verify_pass pass = {.begun_ns = realtime_ns()};
	struct verify verify;
	int r = begin(&verify, root_fd, rows, options, err);

	verify.pass = &pass;
	options->progress->total_items = n;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = verify_digest(&verify, &digests[i], err);
	end(&verify);
	pass.ended_ns = realtime_ns();
	*ret_pass = pass;
	return r;
}
