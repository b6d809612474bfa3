/* JSON of any bytes: refused with a message, or a tree whose dump reads back to the same dump. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Every accessor on every node; returns how many values there are. */
static size_t walk(const struct json *j)
{
    size_t count = 1, n;
    switch (json_kind(j)) {
    case J_ARR:
        for (size_t i = 0; i < json_len(j); i++)
            count += walk(json_at(j, i));
        ASSERT(!json_at(j, json_len(j)));
        break;
    case J_OBJ:
        for (void *it = json_first(j); it; it = json_next(j, it)) {
            const char *key = json_key(it, &n);
            if (strlen(key) == n)
                ASSERT(json_get(j, key) == json_val(it));
            count += walk(json_val(it));
        }
        break;
    case J_STR:
        ASSERT(json_str(j, &n)[n] == '\0');
        break;
    case J_INT:
    case J_REAL:
        (void)json_num(j);
        break;
    case J_NULL:
    case J_FALSE:
    case J_TRUE:
        break;
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct json_limits limits = {
        .max_bytes = 1 << 16, .max_depth = 32, .max_values = 4096};
    static const struct json_limits wide = {
        .max_bytes = 1 << 20, .max_depth = 32, .max_values = 4096};
    struct json *root, *again;
    struct err e = {0};
    status st = json_parse((const char *)data, n, &limits, &root, &e);
    if (st < 0) {
        ASSERT(!root && e.msg[0] && (st == E_INPUT || st == E_LIMIT));
        return 0;
    }
    ASSERT(n <= limits.max_bytes && walk(root) <= limits.max_values);
    int64_t i = 7;
    double d = 7;
    bool b = false;
    const char *s = NULL;
    (void)!json_get_int(root, "a", -5, 5, &i, &e);
    ASSERT(i == 7 || (i >= -5 && i <= 5));
    (void)!json_get_num(root, "a", -5, 5, &d, &e);
    ASSERT(d == 7 || (d >= -5 && d <= 5));
    (void)!json_get_bool(root, "a", &b, &e);
    (void)!json_get_str(root, "a", &s, &e);
    struct buf one, two;
    buf_init(&one, wide.max_bytes);
    buf_init(&two, wide.max_bytes);
    json_dump(&one, root);
    ASSERT(buf_status(&one) == OK);
    ASSERT(json_parse(one.p, one.n, &wide, &again, &e) == OK);
    json_dump(&two, again);
    ASSERT(buf_status(&two) == OK && one.n == two.n && memcmp(one.p, two.p, one.n) == 0);
    json_free(again);
    json_free(root);
    buf_fini(&one);
    buf_fini(&two);
    return 0;
}
