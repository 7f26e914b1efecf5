/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server with a service of every kind of method, and a client of it, in one process.
 */
#ifndef LIGHTER_TESTS_RPC_RIG_H
#define LIGHTER_TESTS_RPC_RIG_H

#include <pthread.h>
#include <stdatomic.h>

#include "notes.pb-c.h"
#include "rpc/client.h"
#include "rpc/server.h"
#include "tests/support/process.h"
#include "tests/support/temp_root.h"
#include "tests/support/test.h"

typedef Lighter__Test__Note Note;
typedef Lighter__Test__RawNote RawNote;

#define NOTES         "lighter.test.Notes"
#define METHOD(name_) "/" NOTES "/" name_

/* What a call may take at most before a test gives up. */
#define PATIENCE_NS (60 * INT64_C(1000000000))

/**
 * struct rig - all of it
 * @released: lets calls of Wait go on
 * @n_waiting: calls inside Wait
 * @n_opened, @n_closed: streams
 * @n_half_closed: streams whose client said that it sends no more
 * @n_brisk: messages of Brisk that no worker was needed for
 * @n_blocked: times a stream was told to wait, its queue being full
 * @most_sent: bytes that one Count or Flood stream got rid of, so far
 * @n_flooded: Flood streams that could send no more
 * @n_ended: calls that the observer heard of, by code
 * @n_kept: calls of Later that wait for rig->answer_job or rig_answer_kept()
 * @n_answer_jobs: how often the job ran
 */
struct rig {
	struct temp_root *root;
	char *path;
	struct rpc_service *service;
	struct rpc_server *server;
	struct rpc_client *client;
	atomic_bool released;
	atomic_uint n_waiting;
	atomic_uint n_opened;
	atomic_uint n_closed;
	atomic_uint n_half_closed;
	atomic_uint n_messages;
	atomic_uint n_brisk;
	atomic_uint n_blocked;
	atomic_uint n_flooded;
	atomic_ullong most_sent;
	atomic_uint n_ended[17];
	atomic_ullong bytes_in;
	atomic_ullong bytes_out;

	pthread_mutex_t kept_lock; /* guards @kept */
	struct kept *kept;
	atomic_uint n_kept;
	struct pool_job answer_job;
	atomic_uint n_answer_jobs;
};

/** rig_answer_kept() - answer the calls of Later that were kept */
void rig_answer_kept(struct rig *rig);

/* *state is a struct rig, with default options. */
int rig_setup(void **state);
int rig_teardown(void **state);

/* The end of the gRPC library, for leak checks; a group teardown. */
int rig_library_teardown(void **state);

/** rig_start() - a server with @options (listen_fd and observer are set here); NULL: defaults */
void rig_start(struct rig *rig, const struct rpc_server_options *options);

/** rig_stop() - stop and free the server */
void rig_stop(struct rig *rig, unsigned int grace_ms);

/** rig_listen() - a listening socket at the rig's path */
int rig_listen(const struct rig *rig);

/* For wait_until(), with a struct rig: no call is alive; a call is answered; nobody listens. */
bool rig_is_quiet(void *rig);
bool rig_is_served(void *rig);
bool rig_is_deaf(void *rig);

/** rig_n_ended() - calls that ended, of any code */
unsigned int rig_n_ended(const struct rig *rig);

/** rig_wait() - wait until @counter is @n at least */
void rig_wait(const atomic_uint *counter, unsigned int n, const char *what);

/** struct caller - a context with its arena, for one or many calls */
struct caller {
	struct arena arena;
	struct ctx ctx;
};

void caller_init(struct caller *caller);
void caller_done(struct caller *caller);

/** rig_call() - a unary call of METHOD(@method) */
ERR_CHECKED int rig_call(struct rig *rig, struct caller *caller, const char *method,
			 const ProtobufCMessage *request, Note **ret_note, struct err *err);

/** rig_open() - a stream of METHOD(@method); the test fails if that does not work */
struct rpc_stream *rig_open(struct rig *rig, struct caller *caller, const char *method);

/** rig_ask() - open a server stream and send its one request */
struct rpc_stream *rig_ask(struct rig *rig, struct caller *caller, const char *method,
			   const Note *request);

/** n_open_files() - descriptors of this process */
unsigned int n_open_files(void);

#endif
