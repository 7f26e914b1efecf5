/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC library itself, of which a process has one. Any thread.
 */
#ifndef LIGHTER_RPC_LIBRARY_INTERNAL_H
#define LIGHTER_RPC_LIBRARY_INTERNAL_H

#include "base/thread.h"

/** library_use() - initialise gRPC if nobody has yet. Its own threads are started with all signals blocked. */
void library_use(void);

/*
 * What a thread did before it gave gRPC a tag (or a buffer), it did before whoever gets it back goes on. gRPC sees to
 * that, but with atomics that ThreadSanitizer does not see: it is told here.
 */
#ifdef __SANITIZE_THREAD__
#define TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#endif

#ifdef TSAN
#include <sanitizer/tsan_interface.h>
#define GIVE_TAG(tag_) __tsan_release(tag_)
#define TAKE_TAG(tag_) __tsan_acquire(tag_)
#else
#define GIVE_TAG(tag_) ((void)(tag_))
#define TAKE_TAG(tag_) ((void)(tag_))
#endif

#endif
