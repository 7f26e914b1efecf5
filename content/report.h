/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a command finds, on stdout: a line for people, or a JSON object on a line of its own for programs. Any thread.
 */
#ifndef LIGHTER_CONTENT_REPORT_H
#define LIGHTER_CONTENT_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/progress.h"

/** struct report - @json: which of the two */
struct report {
	bool json;
	struct progress *progress;
};

/**
 * report_fields() - one thing
 * @event: what, as a program knows it
 * @human: the line, without its end; NULL: nothing for people. Escaped as @fields are.
 * @fields: @n of them, beside the event
 */
void report_fields(struct report *report, const char *event, const char *human,
		   const struct log_field *fields, size_t n);

/** report_plural() - what follows "blob" behind a number of @n: "s", or nothing */
const char *report_plural(uint64_t n);

/* The same with its fields as arguments; one at least. */
#define report_event(report, event, human, ...)                                                    \
	do {                                                                                       \
		const struct log_field report_fields_[] = {__VA_ARGS__};                           \
		report_fields((report), (event), (human), report_fields_,                          \
			      ARRAY_LEN(report_fields_));                                          \
	} while (0)

#endif
