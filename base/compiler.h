/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compiler's attributes that our declarations use, under short names.
 */
#ifndef LIGHTER_BASE_COMPILER_H
#define LIGHTER_BASE_COMPILER_H

/* The result says whether the call worked: dropping it is a mistake. */
#define ERR_CHECKED             __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define UNUSED                  __attribute__((unused))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
