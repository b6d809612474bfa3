#include "mlperf/unpack.h"

#include <string.h>
#include <zstd.h>

bool unpack_known(int codec)
{
    return codec == UNPACK_NONE || codec == UNPACK_SNAPPY || codec == UNPACK_ZSTD;
}

/* Little-endian number of n bytes. */
static size_t little(const uint8_t *p, size_t n)
{
    size_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (size_t)p[i] << 8 * i;
    return v;
}

/* Snappy's format: the length, then literals and copies from what was written. */
static bool snappy(const uint8_t *p, size_t n_in, uint8_t *out, size_t n_out)
{
    const uint8_t *end = p + n_in;
    size_t n = 0, size = 0;
    int shift = 0;
    bool more = true;
    while (more) {
        if (p == end || shift > 28)
            return false;
        size |= (size_t)(*p & 0x7f) << shift;
        shift += 7;
        more = *p++ & 0x80;
    }
    if (size != n_out)
        return false;
    while (p < end) {
        size_t tag = *p++, kind = tag & 3, len, back;
        if (kind == 0) {
            len = tag >> 2;
            size_t extra = len < 60 ? 0 : len - 59;
            if ((size_t)(end - p) < extra)
                return false;
            len = extra ? little(p, extra) : len;
            p += extra;
            len++;
            if (len > (size_t)(end - p) || len > n_out - n)
                return false;
            memcpy(out + n, p, len);
            p += len;
        } else {
            size_t extra = kind == 1 ? 1 : kind == 2 ? 2 : 4;
            if ((size_t)(end - p) < extra)
                return false;
            len = kind == 1 ? (tag >> 2 & 7) + 4 : (tag >> 2) + 1;
            back = little(p, extra) | (kind == 1 ? tag >> 5 << 8 : 0);
            p += extra;
            if (back == 0 || back > n || len > n_out - n)
                return false;
            for (size_t i = 0; i < len; i++) /* the two may overlap */
                out[n + i] = out[n + i - back];
        }
        n += len;
    }
    return n == n_out;
}

bool unpack(int codec, const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out)
{
    if (codec == UNPACK_NONE && n_in == n_out) {
        if (n_in)
            memcpy(out, in, n_in);
        return true;
    }
    if (codec == UNPACK_SNAPPY)
        return snappy(in, n_in, out, n_out);
    return codec == UNPACK_ZSTD && ZSTD_decompress(out, n_out, in, n_in) == n_out;
}
