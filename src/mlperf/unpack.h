/* Decompression of Parquet's pages: Snappy, and zstd through its library. This is the only file
 * that sees libzstd. */
#ifndef MLPERF_UNPACK_H
#define MLPERF_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parquet's numbers. */
enum { UNPACK_NONE = 0, UNPACK_SNAPPY = 1, UNPACK_ZSTD = 6 };

/* Whether unpack knows the codec. */
bool unpack_known(int codec);
/* False unless `in` is sound and unpacks to exactly n_out bytes. */
bool unpack(int codec, const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out);

#endif
