/* gloss mlperf run --input-tokens: answers to all rows, several times each, without LoadGen. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "mlperf/detok.h"
#include "mlperf/mlperf.h"
#include "mlperf/sut.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES_MAX = 256 << 20 };

struct answer {
    int32_t *ids; /* [n_ids] */
    size_t n_ids;
    double seconds; /* negative: it failed */
    struct err why; /* code 0: none */
};

struct infer {
    const struct mlperf_watch *watch;
    struct answer *answer; /* [n_row * n_pass], the passes of a row together */
    int64_t total;
    atomic_int_fast64_t n_done, n_failed, n_tokens;
};

/* The answer's place is the job's id. */
static void on_done(void *ctx, const struct sut_answer *a)
{
    struct infer *f = ctx;
    struct answer *own = &f->answer[a->id];
    own->seconds = (double)(a->end_ns - a->start_ns) * 1e-9;
    own->ids = mem_array(a->n_ids, sizeof *own->ids);
    if (a->st < 0 || !own->ids) {
        own->seconds = -1;
        if (a->st < 0)
            own->why = a->err;
        else
            err_set(&own->why, E_NOMEM, "out of memory");
        atomic_fetch_add(&f->n_failed, 1);
    } else {
        if (a->n_ids)
            memcpy(own->ids, a->ids, a->n_ids * sizeof *a->ids);
        own->n_ids = a->n_ids;
        atomic_fetch_add(&f->n_tokens, (int_fast64_t)a->n_ids);
    }
    int64_t done = atomic_fetch_add(&f->n_done, 1) + 1;
    if (f->watch->progress)
        f->watch->progress(f->watch->ctx, done, f->total);
}

/* A column of ours that the file has already is replaced. */
static bool is_ours(const char *key, int n_pass)
{
    static const char *const names[] = {"model_output_", "tok_model_output_len_",
                                        "tok_model_output_", "infer_time_", "error_"};
    for (int i = 0; i < 5; i++) {
        size_t n = strlen(names[i]);
        for (int k = 0; strncmp(key, names[i], n) == 0 && k < n_pass; k++) {
            char digits[16];
            snprintf(digits, sizeof digits, "%d", k);
            if (strcmp(key + n, digits) == 0)
                return true;
        }
    }
    return false;
}

static void put_answer(struct buf *b, const gloss_model *m, const struct answer *a, int k)
{
    struct buf text;
    buf_init(&text, LINE_BYTES_MAX);
    detok(&text, m, a->ids, a->n_ids, true);
    buf_printf(b, ",\"model_output_%d\":", k);
    json_quote(b, text.p, text.n);
    buf_printf(b, ",\"tok_model_output_%d\":[", k);
    for (size_t i = 0; i < a->n_ids; i++)
        buf_printf(b, i ? ",%d" : "%d", a->ids[i]);
    buf_printf(b, "],\"tok_model_output_len_%d\":%zu,\"infer_time_%d\":", k, a->n_ids, k);
    if (a->seconds >= 0)
        json_put_num(b, a->seconds);
    else
        buf_puts(b, "null");
    if (a->why.code < 0) {
        buf_printf(b, ",\"error_%d\":", k);
        json_quote(b, a->why.msg, strlen(a->why.msg));
    }
    buf_fini(&text);
}

static status put_row(struct buf *b, const gloss_model *m, const struct row *r,
                      const struct answer *a, int n_pass, struct err *e)
{
    struct json *root = NULL;
    status st = OK;
    TRY(rows_parse(r, &root, e));
    buf_putc(b, '{');
    for (void *it = json_first(root); it; it = json_next(root, it)) {
        size_t n_key;
        const char *key = json_key(it, &n_key);
        if (is_ours(key, n_pass))
            continue;
        if (b->n > 1)
            buf_putc(b, ',');
        json_quote(b, key, n_key);
        buf_putc(b, ':');
        json_dump(b, json_val(it));
    }
    for (int k = 0; k < n_pass; k++)
        put_answer(b, m, &a[k], k);
    buf_puts(b, "}\n");
    if (buf_status(b) < 0)
        TRY(err_set(e, buf_status(b), "line %d: the row with its answers is too large", r->line));
out:
    json_free(root);
    return st;
}

static status write_rows(const struct infer *f, const gloss_model *m, const struct rows *rows,
                         int n_pass, const char *output, struct err *e)
{
    struct file_new w = {0};
    struct buf b;
    status st = OK;
    buf_init(&b, LINE_BYTES_MAX);
    TRY(file_begin(&w, output, e));
    for (size_t i = 0; i < rows->n; i++) {
        buf_clear(&b);
        TRY(put_row(&b, m, &rows->row[i], &f->answer[i * (size_t)n_pass], n_pass, e));
        file_write(&w, b.p, b.n);
    }
    TRY(file_commit(&w, e));
out:
    file_abort(&w);
    buf_fini(&b);
    return st;
}

status mlperf_infer(const gloss_model *m, const struct rows *rows, int n_pass,
                    const struct mlperf_gen *g, const char *output,
                    const struct mlperf_watch *watch, struct buf *report, struct err *e)
{
    size_t n = rows->n * (size_t)n_pass;
    struct infer f = {.watch = watch, .total = (int64_t)n};
    struct sut *sut = NULL;
    struct sut_job *job = mem_array(n, sizeof *job);
    status st = OK;
    f.answer = mem_calloc(n, sizeof *f.answer);
    if (!job || !f.answer)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    struct sut_opts so = {.gen = *g, .done = on_done, .ctx = &f};
    for (size_t i = 0; i < n; i++) {
        const struct row *r = &rows->row[i / (size_t)n_pass];
        job[i] = (struct sut_job){i, r->ids, r->n_ids, g->seed ? g->seed + i : 0};
    }
    uint64_t start = clock_ns();
    TRY(sut_open(&so, &sut, e));
    if (sut_add(sut, job, n) < 0)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    sut_wait(sut);
    double s = (double)(clock_ns() - start) * 1e-9;
    int64_t failed = atomic_load(&f.n_failed), tokens = atomic_load(&f.n_tokens);
    if (output)
        TRY(write_rows(&f, m, rows, n_pass, output, e));
    buf_printf(report,
               "{\"rows\":%zu,\"passes\":%d,\"failed\":%lld,\"output_tokens\":%lld,"
               "\"mean_output_tokens\":%.2f,\"seconds\":%.3f,\"tokens_per_s\":%.2f}\n",
               rows->n, n_pass, (long long)failed, (long long)tokens, (double)tokens / (double)n, s,
               (double)tokens / s);
    for (size_t i = 0; failed && i < n; i++)
        if (f.answer[i].why.code < 0)
            TRY(err_set(e, f.answer[i].why.code,
                        "%lld of %zu answers failed; the first, of line %d: %.120s",
                        (long long)failed, n, rows->row[i / (size_t)n_pass].line,
                        f.answer[i].why.msg));
out:
    sut_close(sut);
    for (size_t i = 0; f.answer && i < n; i++)
        mem_free(f.answer[i].ids);
    mem_free(f.answer);
    mem_free(job);
    return st;
}
