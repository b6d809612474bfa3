#include "mlperf/acclog.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <string.h>

static const struct json_limits entry_limits = {64 << 20, 16, 1 << 16};

static int hex(char c)
{
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
}

/* Little-endian 32-bit numbers, two digits a byte. */
static status read_hex(const char *s, size_t n, int32_t *ids, struct err *e)
{
    if (n % 8)
        return err_set(e, E_INPUT, "its data is not whole 32-bit numbers");
    for (size_t i = 0; i < n / 8; i++) {
        uint32_t v = 0;
        for (int k = 0; k < 4; k++) {
            int hi = hex(s[8 * i + 2 * (size_t)k]), lo = hex(s[8 * i + 2 * (size_t)k + 1]);
            if (hi < 0 || lo < 0)
                return err_set(e, E_INPUT, "its data is not hexadecimal");
            v |= (uint32_t)(hi << 4 | lo) << 8 * k;
        }
        ids[i] = (int32_t)v;
    }
    return OK;
}

/* Behind the object that begins at p; NULL when it is cut. */
static const char *object_end(const char *p, const char *end)
{
    int depth = 0;
    for (; p < end; p++) {
        if (*p == '"') {
            for (p++; p < end && *p != '"'; p++)
                p += *p == '\\';
            if (p >= end)
                return NULL;
        } else if (*p == '{') {
            depth++;
        } else if (*p == '}' && --depth == 0) {
            return p + 1;
        }
    }
    return NULL;
}

static status read_entry(const char *p, size_t n,
                         status (*take)(void *ctx, const struct acclog_entry *, struct err *e),
                         void *ctx, struct err *e)
{
    struct json *root = NULL;
    struct acclog_entry a = {.seq_id = -1, .qsl_idx = -1};
    int32_t *ids = NULL;
    const char *data = NULL;
    status st = OK;
    TRY(json_parse(p, n, &entry_limits, &root, e));
    TRY(json_get_int(root, "seq_id", 0, INT64_MAX, &a.seq_id, e));
    TRY(json_get_int(root, "qsl_idx", 0, INT64_MAX, &a.qsl_idx, e));
    TRY(json_get_str(root, "data", &data, e));
    if (a.qsl_idx < 0 || !data)
        TRY(err_set(e, E_INPUT, "it has no qsl_idx or no data"));
    size_t n_data = strlen(data);
    ids = mem_array(n_data / 8, sizeof *ids);
    if (!ids)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    TRY(read_hex(data, n_data, ids, e));
    a.ids = ids;
    a.n_ids = n_data / 8;
    TRY(take(ctx, &a, e));
out:
    mem_free(ids);
    json_free(root);
    return st;
}

status acclog_read(const char *path,
                   status (*take)(void *ctx, const struct acclog_entry *, struct err *e), void *ctx,
                   size_t *n, struct err *e)
{
    struct file_map m = {0};
    struct err re = {0};
    status st = OK;
    *n = 0;
    TRY(file_map(path, &m, e));
    for (const char *p = (const char *)m.p, *end = p + m.n; p < end;) {
        if (memchr(" \t\r\n,[]", *p, 7)) {
            p++;
            continue;
        }
        const char *stop = *p == '{' ? object_end(p, end) : NULL;
        if (stop)
            st = read_entry(p, (size_t)(stop - p), take, ctx, &re);
        else
            st = err_set(&re, E_INPUT, *p == '{' ? "it is cut" : "it is not a JSON object");
        if (st < 0)
            TRY(err_set(e, st, "%.100s: entry %zu: %.120s", path, *n + 1, re.msg));
        p = stop;
        ++*n;
    }
    if (*n == 0)
        TRY(err_set(e, E_INPUT, "%.120s holds no answers", path));
out:
    file_unmap(&m);
    return st;
}
