#include "mlperf/thrift.h"

static uint8_t byte(struct thrift *t)
{
    if (t->bad || t->p == t->end) {
        t->bad = true;
        return 0;
    }
    return *t->p++;
}

uint64_t thrift_varint(struct thrift *t)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t b = byte(t);
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
    t->bad = true;
    return 0;
}

int64_t thrift_int(struct thrift *t)
{
    uint64_t v = thrift_varint(t);
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

const uint8_t *thrift_binary(struct thrift *t, size_t *n)
{
    uint64_t len = thrift_varint(t);
    const uint8_t *p = t->p;
    *n = 0;
    if (t->bad || len > (uint64_t)(t->end - t->p)) {
        t->bad = true;
        return p;
    }
    t->p += len;
    *n = (size_t)len;
    return p;
}

size_t thrift_list(struct thrift *t, int *type)
{
    uint8_t b = byte(t);
    uint64_t n = b >> 4;
    *type = b & 15;
    if (n == 15)
        n = thrift_varint(t);
    if (n > (uint64_t)(t->end - t->p))
        t->bad = true;
    return t->bad ? 0 : (size_t)n;
}

bool thrift_field(struct thrift *t, int *id, int *type)
{
    uint8_t b = byte(t);
    *type = b & 15;
    if (t->bad || b == 0)
        return false;
    int64_t next = b >> 4 ? *id + (b >> 4) : thrift_int(t);
    if (next < 1 || next > INT16_MAX)
        t->bad = true;
    *id = (int)next;
    return !t->bad;
}

void thrift_skip(struct thrift *t, int type, int depth)
{
    size_t n;
    int id = 0, inner, value;
    if (depth == 0)
        t->bad = true;
    if (t->bad)
        return;
    switch (type) {
    case THRIFT_TRUE:
    case THRIFT_FALSE:
        break; /* in a field's type; in lists thrift_skip is told THRIFT_BYTE */
    case THRIFT_BYTE:
        byte(t);
        break;
    case THRIFT_I16:
    case THRIFT_I32:
    case THRIFT_I64:
        thrift_varint(t);
        break;
    case THRIFT_DOUBLE:
        for (int i = 0; i < 8; i++)
            byte(t);
        break;
    case THRIFT_BINARY:
        thrift_binary(t, &n);
        break;
    case THRIFT_LIST:
    case THRIFT_SET:
        n = thrift_list(t, &inner);
        inner = inner == THRIFT_TRUE || inner == THRIFT_FALSE ? THRIFT_BYTE : inner;
        while (n-- > 0 && !t->bad)
            thrift_skip(t, inner, depth - 1);
        break;
    case THRIFT_MAP:
        n = (size_t)thrift_varint(t);
        inner = n ? byte(t) : 0;
        value = inner & 15;
        inner >>= 4;
        while (n-- > 0 && !t->bad) {
            thrift_skip(t, inner <= THRIFT_FALSE ? THRIFT_BYTE : inner, depth - 1);
            thrift_skip(t, value <= THRIFT_FALSE ? THRIFT_BYTE : value, depth - 1);
        }
        break;
    case THRIFT_STRUCT:
        while (thrift_field(t, &id, &inner))
            thrift_skip(t, inner, depth - 1);
        break;
    default:
        t->bad = true;
    }
}
