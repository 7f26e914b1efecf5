/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A socket for the servers of tests.
 */
#ifndef LIGHTER_TESTS_SUPPORT_LISTENING_H
#define LIGHTER_TESTS_SUPPORT_LISTENING_H

/** listening_socket() - a Unix socket that listens at @path; the test fails if it cannot. Return: yours to close. */
int listening_socket(const char *path);

#endif
