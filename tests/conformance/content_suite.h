/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every content_store_ops must do: the contract of content_store.h, case by case.
 */
#ifndef LIGHTER_TESTS_CONFORMANCE_CONTENT_SUITE_H
#define LIGHTER_TESTS_CONFORMANCE_CONTENT_SUITE_H

#include <stdbool.h>

#include "content/content_store.h"

/**
 * struct content_suite - what to test, and how
 * @ops: the store; each case opens it on an empty root of its own
 * @conf: for its open()
 * @through_socket: serve it on a socket, and put the cases to the proxy of that socket
 */
struct content_suite {
	const struct content_store_ops *ops;
	const void *conf;
	bool through_socket;
};

/** content_suite_run() - run all cases; @name is shown. Return: number of failed ones. */
int content_suite_run(const char *name, const struct content_suite *suite);

#endif
