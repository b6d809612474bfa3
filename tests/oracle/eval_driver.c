/* Pieces of the evaluations behind a pipe: JSON Lines of {"op", ...} in, a JSON value per line out.
 */
#include "base/json.h"
#include "base/mem.h"
#include "eval/dataset.h"
#include "eval/job.h"
#include "eval/mt19937.h"
#include "eval/sha256.h"
#include "eval/stats.h"

#include <stdio.h>
#include <string.h>

static struct extract *x;

static bool extraction(const char *op, const char *s, size_t n, struct buf *b)
{
    static const struct {
        const char *op;
        void (*fn)(struct extract *, const char *, size_t, struct buf *);
    } table[] = {{"abcd", extract_abcd},
                 {"boxed", extract_boxed},
                 {"tinymmlu", extract_tinymmlu},
                 {"gsm8k_strict", extract_gsm8k_strict},
                 {"gsm8k_flexible", extract_gsm8k_flexible},
                 {"gsm8k_cot", extract_gsm8k_cot}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(op, table[i].op) == 0) {
            table[i].fn(x, s, n, b);
            return true;
        }
    return false;
}

static double *numbers(const struct json *list, int *n)
{
    *n = (int)json_len(list);
    double *v = mem_array((size_t)*n + 1, sizeof *v);
    for (int i = 0; v && i < *n; i++)
        v[i] = json_num(json_at(list, (size_t)i));
    return v;
}

static void put_ints(struct buf *b, const int *v, int n)
{
    for (int i = 0; i < n; i++)
        buf_printf(b, i ? ",%d" : "[%d", v[i]);
    buf_puts(b, n ? "]" : "[]");
}

/* Draws of one generator: sample, shuffle and random in turn. */
static void twister(const struct json *q, struct buf *b)
{
    struct mt19937 r;
    mt_seed(&r, (uint64_t)json_int(json_get(q, "seed")));
    const struct json *list = json_get(q, "draws");
    for (size_t i = 0; i < json_len(list); i++) {
        const struct json *d = json_at(list, i);
        int n = (int)json_int(json_at(d, 1)), k = (int)json_int(json_at(d, 2));
        const char *what = json_str(json_at(d, 0), NULL);
        int *v = mem_array((size_t)n + 1, sizeof *v);
        buf_putc(b, i ? ',' : '[');
        if (strcmp(what, "sample") == 0) {
            if (mt_sample(&r, n, k, v) == OK)
                put_ints(b, v, k);
        } else if (strcmp(what, "shuffle") == 0) {
            for (int j = 0; j < n; j++)
                v[j] = j;
            mt_shuffle(&r, v, n);
            put_ints(b, v, n);
        } else {
            json_put_num(b, mt_uniform(&r));
        }
        mem_free(v);
    }
    buf_putc(b, ']');
}

static void statistics(const struct json *q, struct buf *b)
{
    int n;
    double lo, hi, *v = numbers(json_get(q, "values"), &n);
    stats_interval(v, n, &lo, &hi);
    const double all[] = {stats_mean(v, n),        stats_std(v, n), stats_stderr(v, n), lo, hi,
                          stats_bootstrap(v, n, 0)};
    for (int i = 0; i < 6; i++) {
        buf_putc(b, i ? ',' : '[');
        json_put_num(b, all[i]);
    }
    buf_putc(b, ']');
    mem_free(v);
}

static void rows(const struct json *q, struct buf *b)
{
    struct dataset d = {0};
    struct err e = {0};
    if (dataset_read(&d, json_str(json_get(q, "path"), NULL), &e) < 0) {
        buf_puts(b, "{\"error\":");
        json_quote(b, e.msg, strlen(e.msg));
        buf_putc(b, '}');
    } else {
        for (int i = 0; i < d.n; i++) {
            buf_putc(b, i ? ',' : '[');
            json_dump(b, d.row[i]);
        }
        buf_putc(b, ']');
    }
    dataset_fini(&d);
}

static void irt(const struct json *q, struct buf *b)
{
    int n;
    struct err e = {0};
    double *v = numbers(json_get(q, "y"), &n);
    if (irt_score(json_str(json_get(q, "path"), NULL), v, n, b, &e) < 0) {
        buf_clear(b);
        buf_puts(b, "{\"error\":");
        json_quote(b, e.msg, strlen(e.msg));
        buf_putc(b, '}');
    }
    mem_free(v);
}

static void answer(const struct json *q, struct buf *b)
{
    size_t n = 0, k;
    const char *op = json_str(json_get(q, "op"), NULL), *s = dataset_text(q, "text", &n);
    struct buf out;
    buf_init(&out, 1 << 24);
    if (extraction(op, s ? s : "", n, &out)) {
        json_quote(b, out.p, out.n);
    } else if (strcmp(op, "pattern") == 0) {
        buf_printf(b, "%d", extract_abcd_pattern(x, s, n));
    } else if (strcmp(op, "int") == 0) {
        int64_t v;
        if (extract_int(s, n, &v))
            buf_printf(b, "%lld", (long long)v);
        else
            buf_puts(b, "null");
    } else if (strcmp(op, "same") == 0) {
        buf_puts(b, extract_gsm8k_same(x, s, dataset_text(q, "gold", &k)) ? "true" : "false");
    } else if (strcmp(op, "verdict") == 0) {
        bool met;
        bool ok = extract_verdict(s, n, &met, &out);
        buf_puts(b, !ok ? "null" : met ? "true" : "false");
    } else if (strcmp(op, "refuses") == 0) {
        buf_puts(b, safety_refuses(s, n) ? "true" : "false");
    } else if (strcmp(op, "sha256") == 0) {
        char hex[65];
        sha256_hex(s, n, hex);
        buf_printf(b, "\"%s\"", hex);
    } else if (strcmp(op, "twister") == 0) {
        twister(q, b);
    } else if (strcmp(op, "stats") == 0) {
        statistics(q, b);
    } else if (strcmp(op, "rows") == 0) {
        rows(q, b);
    } else if (strcmp(op, "irt") == 0) {
        irt(q, b);
    } else {
        buf_puts(b, "\"unknown op\"");
    }
    buf_fini(&out);
}

int main(void)
{
    struct buf in, out;
    struct err e = {0};
    char block[65536];
    size_t n;
    buf_init(&in, 1 << 30);
    buf_init(&out, 1 << 30);
    if (extract_open(&x, &e) < 0)
        return 2;
    while ((n = fread(block, 1, sizeof block, stdin)) > 0)
        buf_put(&in, block, n);
    for (char *p = in.p, *end; (end = strchr(p, '\n')); p = end + 1) {
        struct json *q = NULL;
        if (json_parse(p, (size_t)(end - p), &json_limits_file, &q, &e) < 0) {
            fprintf(stderr, "eval_driver: %s\n", e.msg);
            return 2;
        }
        buf_clear(&out);
        answer(q, &out);
        puts(out.p);
        json_free(q);
    }
    extract_close(x);
    buf_fini(&in);
    buf_fini(&out);
    return 0;
}
