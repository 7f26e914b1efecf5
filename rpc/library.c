/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/library_internal.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <signal.h>
#include <stdbool.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "rpc/server.h"

/* The library's own state is the process's; this says whether it was set up, and nothing else. */
static pthread_mutex_t library_mutex = PTHREAD_MUTEX_INITIALIZER;
static bool library_used;

static void log_from_grpc(gpr_log_func_args *args)
{
	enum log_level level = args->severity == GPR_LOG_SEVERITY_ERROR ? LOG_WARN : LOG_DEBUG;

	log_event(level, "grpc", LOG_STR("text", args->message), LOG_STR("file", args->file),
		  LOG_INT("line", args->line));
}

void library_use(void)
{
	sigset_t all, saved;

	LOCK_GUARD(&library_mutex);
	if (library_used)
		return;
	gpr_set_log_function(log_from_grpc);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	grpc_init();
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	library_used = true;
}

void rpc_library_done(void)
{
	LOCK_GUARD(&library_mutex);
	if (!library_used)
		return;
	grpc_shutdown_blocking();
	library_used = false;
}
