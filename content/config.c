/* SPDX-License-Identifier: Apache-2.0 */
#include "content/config.h"

const struct conf_option content_options[] = {
	CONF_BOOL(struct content_conf, adopt, "true",
		  "when the database is missing, verify the blobs that are there and take them up; "
		  "else refuse to start"),
	CONF_END,
};
