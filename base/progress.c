/* SPDX-License-Identifier: Apache-2.0 */
#include "base/progress.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ctx.h"
#include "base/log.h"
#include "base/size.h"
#include "base/thread.h"

#define NS_PER_S     INT64_C(1000000000)
#define DRAW_NS      (NS_PER_S / 5)
#define LOG_NS       (30 * NS_PER_S)
#define BAR_COLUMNS  20
#define BAR_EMPTY    "...................."
#define LINE_BYTES   256
#define LINE_COLUMNS 80
/* To the start of the line, and delete up to its end. */
#define ERASE        "\r\033[K"

void progress_init(struct progress *progress, const char *what, const char *items)
{
	*progress = (struct progress){.what = what, .items = items};
	pthread_mutex_init(&progress->mutex, NULL);
	progress->draws = isatty(STDERR_FILENO);
}

void progress_done(struct progress *progress)
{
	pthread_mutex_destroy(&progress->mutex);
}

void progress_resume(struct progress *progress, uint64_t items, uint64_t bytes)
{
	/* In this order, and read in the other one: what is not done yet is never taken for done by this run. */
	progress->begun_bytes = bytes;
	progress->done_bytes = bytes;
	progress->done_items = items;
}

/* --- the bar --------------------------------------------------------------------------------------- */

/* By bytes, unless all that there is is empty. */
static double fraction(const struct progress *progress)
{
	uint64_t done = progress->done_bytes, total = progress->total_bytes;

	if (total == 0) {
		done = progress->done_items;
		total = progress->total_items;
	}
	if (total == 0)
		return 0;
	return done < total ? (double)done / (double)total : 1;
}

/* "12 s", "3 min", "5 h" */
static void add_time(char *buf, size_t size, double seconds)
{
	if (seconds < 100)
		snprintf(buf, size, "%.0f s", seconds);
	else if (seconds < 6000)
		snprintf(buf, size, "%.0f min", seconds / 60);
	else
		snprintf(buf, size, "%.0f h", seconds / 3600);
}

/* What is left, at the mean rate so far; nothing before that says anything. */
static void add_rate(const struct progress *progress, int64_t now_ns, char *buf, size_t size)
{
	double seconds = (double)(now_ns - progress->begun_ns) / NS_PER_S, per_s;
	uint64_t done = progress->done_bytes, total = progress->total_bytes;
	uint64_t begun = progress->begun_bytes;
	char text[SIZE_TEXT_BYTES], left[32];

	*buf = '\0';
	if (seconds < 1 || done <= begun)
		return;
	per_s = (double)(done - begun) / seconds;
	add_time(left, sizeof(left), done < total ? (double)(total - done) / per_s : 0);
	snprintf(buf, size, ", %s/s, %s left", size_format((uint64_t)per_s, text), left);
}

void progress_format(const struct progress *progress, int64_t now_ns, unsigned int columns,
		     char *buf, size_t size)
{
	double part = fraction(progress);
	char done[SIZE_TEXT_BYTES], total[SIZE_TEXT_BYTES], rate[96], bar[BAR_COLUMNS + 4];

	snprintf(bar, sizeof(bar), "[%.*s] ", BAR_COLUMNS, BAR_EMPTY);
	memset(bar + 1, '#', (size_t)(part * BAR_COLUMNS));
	add_rate(progress, now_ns, rate, sizeof(rate));
	/* Numbers say more than the bar, if there is not room for both. */
	for (int with_bar = 1; with_bar >= 0; with_bar--) {
		snprintf(buf, size, "%s %s%3d %%, %" PRIu64 "/%" PRIu64 " %s, %s of %s%s",
			 progress->what, with_bar ? bar : "", (int)(part * 100),
			 (uint64_t)progress->done_items, (uint64_t)progress->total_items,
			 progress->items, size_format(progress->done_bytes, done),
			 size_format(progress->total_bytes, total), rate);
		if (strlen(buf) <= columns)
			return;
	}
	/* It is ASCII. A line that wraps could not be erased. */
	if (columns < size)
		buf[columns] = '\0';
}

static unsigned int terminal_columns(void)
{
	struct winsize window;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) < 0 || window.ws_col < 2)
		return LINE_COLUMNS - 1;
	return window.ws_col - 1u;
}

static void draw(struct progress *progress)
{
	char line[LINE_BYTES];

	LOCK_GUARD(&progress->mutex);
	progress_format(progress, monotonic_ns(), terminal_columns(), line, sizeof(line));
	fprintf(stderr, ERASE "%s", line);
	fflush(stderr);
	progress->drawn = true;
}

/* The lock is held. */
static void erase(struct progress *progress)
{
	if (!progress->drawn)
		return;
	fputs(ERASE, stderr);
	fflush(stderr);
	progress->drawn = false;
}

void progress_print(struct progress *progress, FILE *out, const char *text)
{
	LOCK_GUARD(&progress->mutex);
	erase(progress);
	fputs(text, out);
	fflush(out);
}

static void log_line(const struct progress *progress)
{
	log_event(LOG_INFO, progress->what, LOG_STR("of", progress->items),
		  LOG_INT("percent", (int64_t)(fraction(progress) * 100)),
		  LOG_INT("done", (int64_t)progress->done_items),
		  LOG_INT("total", (int64_t)progress->total_items),
		  LOG_INT("done_bytes", (int64_t)progress->done_bytes),
		  LOG_INT("total_bytes", (int64_t)progress->total_bytes));
}

/* --- the work -------------------------------------------------------------------------------------- */

struct work {
	struct progress *progress;
	int (*fn)(void *arg, struct err *err);
	void *arg;
	struct err *err;
	int result;
};

/* Woken by this, the thread that shows it looks whether it has ended. */
#define WAKE SIGUSR1

static void *do_work(void *arg)
{
	struct work *work = arg;

	work->result = work->fn(work->arg, work->err);
	pthread_mutex_lock(&work->progress->mutex);
	work->progress->ended = true;
	pthread_mutex_unlock(&work->progress->mutex);
	pthread_kill(work->progress->waiter, WAKE);
	return NULL;
}

static bool has_ended(struct progress *progress)
{
	LOCK_GUARD(&progress->mutex);
	return progress->ended;
}

static void let_signals_kill(const sigset_t *set)
{
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	pthread_sigmask(SIG_UNBLOCK, set, NULL);
}

/* Until it has ended. Return: the signal that came, or 0. */
static int show(struct progress *progress)
{
	int64_t next_log_ns = progress->begun_ns + LOG_NS;
	int signum = 0;
	sigset_t stop, wake, waited_for;

	sigemptyset(&wake);
	sigaddset(&wake, WAKE);
	sigemptyset(&stop);
	sigaddset(&stop, SIGINT);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGHUP);
	waited_for = stop;
	sigaddset(&waited_for, WAKE);
	while (!has_ended(progress)) {
		const struct timespec look = {.tv_nsec = DRAW_NS};
		int got;

		if (progress->draws) {
			draw(progress);
		} else if (monotonic_ns() >= next_log_ns) {
			log_line(progress);
			next_log_ns += LOG_NS;
		}
		got = sigtimedwait(&waited_for, NULL, &look);
		if (got <= 0 || got == WAKE)
			continue;
		signum = got;
		atomic_store(&progress->cancelled, true);
		let_signals_kill(&stop);
		waited_for = wake;
	}
	return signum;
}

int progress_run(struct progress *progress, int (*fn)(void *arg, struct err *err), void *arg,
		 int *ret_signum, struct err *err)
{
	struct work work = {.progress = progress, .fn = fn, .arg = arg, .err = err};
	sigset_t wake;
	pthread_t thread;

	/* Blocked, so that it only ends the wait; and taken if it comes too late for that. */
	sigemptyset(&wake);
	sigaddset(&wake, WAKE);
	pthread_sigmask(SIG_BLOCK, &wake, NULL);
	progress->waiter = pthread_self();
	progress->ended = false;
	progress->begun_ns = monotonic_ns();
	progress->begun_bytes = progress->done_bytes;
	if (thread_start(&thread, "work", do_work, &work, err) < 0) {
		pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
		return -1;
	}
	*ret_signum = show(progress);
	pthread_join(thread, NULL);
	while (sigtimedwait(&wake, NULL, &(struct timespec){0}) > 0) {
	}
	pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
	pthread_mutex_lock(&progress->mutex);
	erase(progress);
	pthread_mutex_unlock(&progress->mutex);
	return work.result;
}
