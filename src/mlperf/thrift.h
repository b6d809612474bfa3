/* Thrift's compact protocol, as far as Parquet's headers use it: a cursor over bytes that are not
 * trusted. After a failure every read gives zeros and `bad` stays set, so that a run of reads is
 * checked once.
 */
#ifndef MLPERF_THRIFT_H
#define MLPERF_THRIFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct thrift {
    const uint8_t *p, *end;
    bool bad;
};

/* Wire types of a field or an element. */
enum {
    THRIFT_TRUE = 1,
    THRIFT_FALSE = 2,
    THRIFT_BYTE = 3,
    THRIFT_I16 = 4,
    THRIFT_I32 = 5,
    THRIFT_I64 = 6,
    THRIFT_DOUBLE = 7,
    THRIFT_BINARY = 8,
    THRIFT_LIST = 9,
    THRIFT_SET = 10,
    THRIFT_MAP = 11,
    THRIFT_STRUCT = 12
};

uint64_t thrift_varint(struct thrift *t);
int64_t thrift_int(struct thrift *t); /* i16, i32, i64 */
/* Bytes of a string, inside the buffer. */
const uint8_t *thrift_binary(struct thrift *t, size_t *n);
/* Elements of a list; each takes at least a byte, so that n is bounded by what is left. */
size_t thrift_list(struct thrift *t, int *type);
/* The next field of a struct: false at its end. *id is 0 before the first. */
bool thrift_field(struct thrift *t, int *id, int *type);
/* Skips a value; `depth` bounds what is nested. */
void thrift_skip(struct thrift *t, int type, int depth);

#endif
