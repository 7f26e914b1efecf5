/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/run.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crash_point.h"
#include "base/fs.h"
#include "base/listen.h"
#include "base/notify.h"
#include "rpc/health.h"
#include "rpc/run_internal.h"
#include "rpc/server.h"

/* Calls under way at a stop may take this long to end before they are cancelled. */
#define STOP_GRACE_MS     10000
/* Memory goes back to the system after this long without a call, and once in so many times this long. */
#define IDLE_S            5
#define TRIM_LOOKS        6
/*
 * Each arena of malloc() keeps what it once needed. What one thread has received another frees: with two arenas, eight
 * writers of large blobs made 25 MiB of what takes 19 with one. Calls have arenas of their own.
 */
#define MALLOC_ARENAS     1
/* Set, these stay: by itself malloc() raises them to the largest block ever freed, and keeps as much. */
#define MALLOC_MMAP_BYTES (128 * 1024)
#define MALLOC_TRIM_BYTES (512 * 1024)
/* Others may pass through to a socket, or to a directory that is itself closed, but not look around. */
#define PARENT_DIR_MODE   0711

/** struct daemon - everything that must be let go of, in the order in which it was taken */
struct daemon {
	const struct run_options *options;
	int root_fd;
	int lock_fd;
	struct listen_socket socket;
	void *self;
	bool is_open;
	struct health *health;
	struct rpc_server *server;
	atomic_ulong n_calls;
};

/* A descriptor of ours at 1 or 2 would get what is meant for the terminal written into it. */
static int fill_standard_fds(struct err *err)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
		if (fd < 0)
			return err_sys(err, "open '/dev/null'");
	} while (fd <= STDERR_FILENO);
	close(fd);
	return 0;
}

static int prepare_process(struct err *err)
{
	struct rlimit limit;
	sigset_t set;

	umask(022);
	mallopt(M_ARENA_MAX, MALLOC_ARENAS);
	mallopt(M_MMAP_THRESHOLD, MALLOC_MMAP_BYTES);
	mallopt(M_TRIM_THRESHOLD, MALLOC_TRIM_BYTES);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return err_sys(err, "set up signals");
	/* Each connection takes a descriptor; the soft limit is low for the sake of select(2) alone. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
			return err_sys(err, "raise the limit of open files");
	}
	return 0;
}

/* Where a path leads through what is no directory, that path is the mistake. Return: @result. */
static int name_wrong_path(int result, struct err *err)
{
	if (result < 0 && (err->sys_errno == ENOTDIR || err->sys_errno == ELOOP ||
			   err->sys_errno == ENAMETOOLONG))
		err->code = ERR_INVALID_ARGUMENT;
	return result;
}

/* Makes the directory that holds @path, and what is missing above it. */
static int make_parent(const char *path, struct err *err)
{
	CLEANUP(free_ptr) char *parent = strdup(path);

	if (!parent)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "no memory");
	*strrchr(parent, '/') = '\0';
	return *parent ? name_wrong_path(fs_make_dirs(parent, PARENT_DIR_MODE, err), err) : 0;
}

/*
 * What is kept may hold setuid programs, so nobody else may pass; but a directory of others is not ours to close.
 * Return: 0; 1 when it is ours and to be closed; or -1.
 */
static int look_at_root(int fd, const char *root, struct err *err)
{
	struct stat st, lock;
	int r;

	if (fstat(fd, &st) < 0)
		return err_sys(err, "look at root '%s'", root);
	if (st.st_uid != geteuid())
		return err_set(err, ERR_FAILED_PRECONDITION, "root '%s' belongs to user %u", root,
			       st.st_uid);
	if ((st.st_mode & 077) == 0)
		return 0;
	if (fstatat(fd, "lock", &lock, AT_SYMLINK_NOFOLLOW) < 0) {
		r = fs_is_empty(fd, ".", err);
		if (r < 0)
			return -1;
		if (!r)
			return err_set(err, ERR_FAILED_PRECONDITION,
				       "root '%s' is open to other users (mode %04o) and holds "
				       "files that are not ours: if it is meant to be the root, "
				       "close it, as by chmod 0700",
				       root, st.st_mode & 07777);
	}
	return 1;
}

int run_check_root(const char *root, struct err *err)
{
	CLEANUP(close_fd) int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? 0
				       : name_wrong_path(err_sys(err, "open root '%s'", root), err);
	return look_at_root(fd, root, err) < 0 ? -1 : 0;
}

static int close_to_others(const struct daemon *d, struct err *err)
{
	const char *root = d->options->conf.root;
	int r = look_at_root(d->root_fd, root, err);

	if (r <= 0)
		return r;
	if (fchmod(d->root_fd, 0700) < 0)
		return err_sys(err, "set the mode of root '%s'", root);
	log_event(LOG_WARN, "root directory was open to other users, and has mode 0700 now",
		  LOG_STR("root", root));
	return 0;
}

static int open_root(struct daemon *d, struct err *err)
{
	const char *root = d->options->conf.root;

	if (make_parent(root, err) < 0 || name_wrong_path(fs_make_dirs(root, 0700, err), err) < 0)
		return -1;
	d->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->root_fd < 0)
		return err_sys(err, "open root '%s'", root);
	return close_to_others(d, err);
}

/* Return: whose lock it is, 0 when that is not written there (yet). */
static int read_pid(int fd)
{
	char text[16] = "";

	return pread(fd, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : 0;
}

/* Over what is there, which takes no room on most disks; and a full one is no reason not to serve. */
static int write_pid(const struct daemon *d, struct err *err)
{
	char text[16];
	ssize_t len = snprintf(text, sizeof(text), "%d\n", getpid());
	ssize_t n = pwrite(d->lock_fd, text, (size_t)len, 0);

	if (n < 0 && errno != ENOSPC && errno != EDQUOT)
		return err_sys(err, "write '%s/lock'", d->options->conf.root);
	/* Not a number that is cut off, nor one of somebody else. */
	if (ftruncate(d->lock_fd, n == len ? len : 0) < 0)
		return err_sys(err, "cut '%s/lock'", d->options->conf.root);
	return 0;
}

static int lock_root(struct daemon *d, struct err *err)
{
	const char *root = d->options->conf.root;

	d->lock_fd = openat(d->root_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (d->lock_fd < 0)
		return err_sys(err, "open '%s/lock'", root);
	if (flock(d->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return err_sys(err, "lock '%s/lock'", root);
		return err_set(err, ERR_UNAVAILABLE, "another process (pid %d) uses the root '%s'",
			       read_pid(d->lock_fd), root);
	}
	return write_pid(d, err);
}

static int open_socket(struct daemon *d, struct err *err)
{
	const struct run_options *options = d->options;
	int r = listen_inherited(&d->socket, err);

	if (r <= 0)
		return r;
	if (make_parent(options->conf.address, err) < 0)
		return -1;
	return listen_at(options->conf.address, options->socket_mode, options->socket_gid,
			 &d->socket, err);
}

static void call_ended(void *arg, const struct rpc_call_end *end)
{
	struct daemon *d = arg;

	atomic_fetch_add_explicit(&d->n_calls, 1, memory_order_relaxed);
	/* rpc/ has logged those that failed. */
	if (end->code == ERR_OK && log_enabled(LOG_DEBUG))
		log_event(LOG_DEBUG, "call", LOG_STR("method", end->method),
			  LOG_STR("api", end->service), LOG_STR("code", "OK"),
			  LOG_INT("took_us", end->took_ns / 1000));
}

/* The program's services, and health, whose answers count only once all are there. */
static int add_services(struct daemon *d, const struct rpc_service *services[RUN_SERVICES_MAX],
			size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++)
		if (rpc_server_add(d->server, services[i], err) < 0)
			return -1;
	return rpc_server_add(d->server, health_service(d->health), err);
}

static int start_server(struct daemon *d, struct err *err)
{
	const struct run_program *program = d->options->program;
	const struct rpc_server_options options = {
		.listen_fd = d->socket.fd,
		.n_workers = (unsigned int)d->options->conf.workers,
		.on_end = call_ended,
		.on_end_arg = d,
	};
	const struct rpc_service *services[RUN_SERVICES_MAX];
	size_t n = program->services(d->self, services);

	if (health_new(&d->health, err) < 0 || rpc_server_new(&options, &d->server, err) < 0)
		return -1;
	d->socket.fd = -1;
	if (add_services(d, services, n, err) < 0 || rpc_server_start(d->server, err) < 0)
		return -1;
	/* Only now, since who asks may act on the answer. */
	for (size_t i = 0; i < n; i++)
		if (health_set(d->health, services[i]->name, true, err) < 0)
			return -1;
	return health_set(d->health, "", true, err);
}

static int start(struct daemon *d, struct err *err)
{
	const struct run_options *options = d->options;
	const struct run_program *program = options->program;

	if (prepare_process(err) < 0 || open_root(d, err) < 0 || lock_root(d, err) < 0 ||
	    open_socket(d, err) < 0)
		return -1;
	if (program->open(program, options->conf.root, options->program_conf, &d->self, err) < 0)
		return err_wrap(err, "open root '%s'", options->conf.root);
	d->is_open = true;
	return start_server(d, err);
}

/* The service manager's word for it is missed by nobody but itself, so it does not stop us. */
static void tell_manager(const char *state, const char *status)
{
	struct err err = ERR_INIT;

	if (notify_send(&err, "%s\nSTATUS=%s\nMAINPID=%d", state, status, getpid()) < 0)
		log_event(LOG_WARN, "the service manager could not be told", LOG_ERR(&err));
}

/**
 * struct idle - what the last looks found
 * @n_calls: so many calls had ended
 * @n_looks: since memory went back
 * @trimmed: and no call has ended since
 */
struct idle {
	unsigned long n_calls;
	unsigned int n_looks;
	bool trimmed;
};

/*
 * Soon after each time of work, and now and then in any case: work may go on, as health checks alone never
 * end, and connections take memory, and give it back when gRPC's timers let go of it, without any call.
 */
static void trim_when_idle(struct daemon *d, struct idle *idle)
{
	unsigned long n_calls = atomic_load_explicit(&d->n_calls, memory_order_relaxed);
	bool busy = n_calls != idle->n_calls;

	idle->n_calls = n_calls;
	if (busy)
		idle->trimmed = false;
	if ((busy || idle->trimmed) && ++idle->n_looks < TRIM_LOOKS)
		return;
	malloc_trim(0);
	idle->n_looks = 0;
	idle->trimmed = !busy;
}

/* Return: the signal to stop for. */
static int wait_for_signal(struct daemon *d)
{
	const struct timespec look = {.tv_sec = IDLE_S};
	struct idle idle = {0};
	sigset_t set;
	int signum;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	for (;;) {
		signum = sigtimedwait(&set, NULL, &look);
		if (signum == SIGTERM || signum == SIGINT)
			return signum;
		if (signum == SIGHUP)
			log_event(LOG_WARN, "SIGHUP changes nothing: the configuration is read at "
					    "the start");
		else
			trim_when_idle(d, &idle);
	}
}

/* From now on a second signal ends the process there and then, as kill -9 may at any time. */
static void let_signals_kill(void)
{
	sigset_t set;

	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void serve(struct daemon *d)
{
	const char *root = d->options->conf.root;
	char status[256];
	int signum;

	log_event(LOG_INFO, "serving", LOG_STR("address", d->socket.path), LOG_STR("root", root),
		  LOG_STR("version", LIGHTER_VERSION));
	snprintf(status, sizeof(status), "serving on %s", d->socket.path);
	tell_manager("READY=1", status);
	signum = wait_for_signal(d);
	log_event(LOG_INFO, "stopping", LOG_STR("signal", sigabbrev_np(signum)));
	tell_manager("STOPPING=1", "stopping");
	let_signals_kill();
}

static void stop(struct daemon *d)
{
	if (d->health)
		health_shutdown(d->health);
	if (d->server)
		rpc_server_stop(d->server, STOP_GRACE_MS);
	rpc_server_free(d->server);
	health_free(d->health);
	if (d->is_open)
		d->options->program->close(d->self);
	listen_socket_done(&d->socket);
	/* Last, so that the next process finds everything let go of. */
	close_fd(&d->lock_fd);
	close_fd(&d->root_fd);
}

/* What somebody has to mend is the same at the next start: the service manager is told not to try. */
static int status_of(const struct err *err)
{
	switch (err->code) {
	case ERR_INVALID_ARGUMENT:
	case ERR_FAILED_PRECONDITION:
	case ERR_PERMISSION_DENIED:
	case ERR_DATA_LOSS:
		return RUN_EXIT_USAGE;
	default:
		return EXIT_FAILURE;
	}
}

static int run(const struct run_options *options)
{
	struct daemon d = {
		.options = options,
		.root_fd = -1,
		.lock_fd = -1,
		.socket = LISTEN_SOCKET_INIT,
	};
	struct err err = ERR_INIT;
	int r;

	log_setup(options->log_level, options->log_format, options->name);
	r = start(&d, &err);
	if (r == 0)
		serve(&d);
	else
		log_event(LOG_ERROR, "could not start", LOG_ERR(&err));
	stop(&d);
	if (r < 0)
		return status_of(&err);
	log_event(LOG_INFO, "stopped");
	return EXIT_SUCCESS;
}

/* --- commands -------------------------------------------------------------------------------------- */

int run_root_take(const struct run_command_call *call, struct run_root *ret_root, struct err *err)
{
	struct daemon d = {.options = call->options, .root_fd = -1, .lock_fd = -1};

	if (open_root(&d, err) < 0 || lock_root(&d, err) < 0) {
		close_fd(&d.lock_fd);
		close_fd(&d.root_fd);
		return -1;
	}
	*ret_root = (struct run_root){.fd = d.root_fd, .lock_fd = d.lock_fd};
	return 0;
}

void run_root_done(struct run_root *root)
{
	close_fd(&root->lock_fd);
	close_fd(&root->fd);
}

static int run_command(const struct run_options *options)
{
	const struct run_command_call call = {
		.options = options,
		.root = options->conf.root,
		.address = options->conf.address,
		.program_conf = options->program_conf,
		.conf = options->command_table.target,
		.arguments = options->arguments,
		.n_arguments = options->n_arguments,
	};
	struct err err = ERR_INIT;
	int status = EXIT_FAILURE;

	log_setup(options->log_level, options->log_format, options->name);
	if (prepare_process(&err) == 0 && options->command->run(&call, &status, &err) == 0) {
		/* What was printed is what was asked for. */
		if (fflush(stdout) == 0)
			return status;
		(void)err_sys(&err, "write to standard output");
	}
	if (err.code == ERR_INVALID_ARGUMENT)
		return run_options_refuse(options, true, &err);
	(void)run_options_refuse(options, false, &err);
	return status_of(&err);
}

int run_program(int argc, char **argv, const struct run_program *program)
{
	struct run_options options;
	struct err err = ERR_INIT;
	int status = EXIT_SUCCESS, r;

	if (crash_point_list())
		return EXIT_SUCCESS;
	if (fill_standard_fds(&err) < 0)
		return EXIT_FAILURE;
	r = run_options_read(&options, program, argc, argv, &status, &err);
	if (r == 0)
		status = options.command ? run_command(&options) : run(&options);
	else if (r < 0)
		status = run_options_refuse(&options, true, &err);
	run_options_done(&options);
#ifdef NDEBUG
	/*
	 * The library's own shutdown takes up to 10 s now and then (1 of 8 runs, grpc 1.51). Nothing of ours
	 * waits for it; it is for the leak checks of debug builds.
	 */
	fflush(stdout);
	_exit(status);
#else
	rpc_library_done();
	return status;
#endif
}
