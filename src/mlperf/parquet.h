/* Parquet files as JSON Lines.
 *
 * What data sets of prompts need: flat columns and lists of numbers, texts and booleans; data pages
 * of both versions; plain and dictionary encoding; Snappy, zstd or no compression. Anything else is
 * refused with the column's name and the script that converts it. Files are not trusted.
 */
#ifndef MLPERF_PARQUET_H
#define MLPERF_PARQUET_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether the bytes begin as a Parquet file does. */
bool parquet_is(const uint8_t *p, size_t n);
/* Appends an object per row, columns in the file's order, at most max_rows (0: all). E_FORMAT. */
MUST_USE status parquet_read(const uint8_t *p, size_t n, size_t max_rows, struct buf *out,
                             struct err *e);

#endif
