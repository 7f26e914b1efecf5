/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the writer and the readers of the catalog agree on, beside the tables.
 */
#ifndef LIGHTER_CONTENT_CATALOG_INTERNAL_H
#define LIGHTER_CONTENT_CATALOG_INTERNAL_H

/* "ltcc" */
#define CATALOG_APPLICATION_ID 0x6c746363
#define CATALOG_VERSION        1

/* The position of a manifest's configuration. */
#define CATALOG_CONFIG_POSITION (-1)

#endif
