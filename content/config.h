/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of lighter-content, table [content].
 */
#ifndef LIGHTER_CONTENT_CONFIG_H
#define LIGHTER_CONTENT_CONFIG_H

#include "base/conf.h"

/** struct content_conf - see config.c */
struct content_conf {
	bool adopt;
};

extern const struct conf_option content_options[];

#endif
