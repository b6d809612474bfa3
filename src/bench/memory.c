/* What a request costs in memory: the study's memory program. MB are 2^20 bytes.
 *
 * "alloc" is what our allocators handed out: the weights as the steps read them, scratch, and the
 * pages of the key/value cache in use. "reserved" is what was taken from the device for them: the
 * same with the whole pool of pages, which an engine takes when it starts, for this context alone.
 * The readings are the engine's (gloss_stats), the peak is that of the page allocator. What the
 * operating system and the card's driver say stands beside it, for comparison.
 */
#include "bench/bench.h"
#include "bench/machine.h"
#include "bench/probe.h"
#include "bench/quantile.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char columns[] =
    "model device_name context_length gen_tokens total_tokens baseline_alloc_mb "
    "baseline_reserved_mb after_tokenize_alloc_mb after_tokenize_reserved_mb "
    "after_generate_alloc_mb after_generate_reserved_mb peak_alloc_mb peak_reserved_mb "
    "tokenize_delta_alloc_mb generate_delta_alloc_mb total_delta_alloc_mb kv_cache_alloc_mb "
    "kv_cache_reserved_mb memory_per_token_alloc_mb memory_per_token_reserved_mb "
    "util_after_percent_alloc util_peak_percent_alloc util_peak_percent_reserved "
    "total_gpu_memory_mb "
    /* ours: the parts; the exact size of the keys and values of total_tokens in bf16; what driver
     * and system say */
    "weights_mb work_mb kv_pages_mb kv_pool_mb kv_exact_mb device_used_mb process_rss_mb "
    "process_peak_rss_mb";

status memory_columns(struct sheet *s, struct err *e)
{
    return sheet_init(s, columns, e);
}

static const double MB = 1 << 20;

struct reading {
    double alloc, reserved; /* bytes */
    double pages;           /* bytes of pages in use */
};

static double page_bytes(const struct gloss_stats *s, int full, int window)
{
    return (double)full * (double)s->page_bytes_full +
           (double)window * (double)s->page_bytes_window;
}

static struct reading reading_of(const struct gloss_stats *s, int full, int window)
{
    double fixed = (double)s->weight_bytes + (double)s->work_bytes,
           pages = page_bytes(s, full, window);
    return (struct reading){.alloc = fixed + pages,
                            .reserved = fixed + page_bytes(s, s->pages_full, s->pages_window),
                            .pages = pages};
}

static struct gloss_stats stats_now(const struct probe *p)
{
    struct gloss_stats s = GLOSS_INIT(struct gloss_stats);
    gloss_engine_stats(p->g, &s);
    return s;
}

static struct reading read_now(const struct probe *p)
{
    struct gloss_stats s = stats_now(p);
    return reading_of(&s, s.pages_full - s.free_full, s.pages_window - s.free_window);
}

/* The last reading of the generation that found pages in use: they are given back with the last
 * token, perhaps before we look. */
struct held {
    const struct probe *p;
    struct reading last;
    double device_used;
};

static void on_token(void *ctx)
{
    struct held *h = ctx;
    struct reading r = read_now(h->p);
    if (r.pages > 0)
        h->last = r;
}

/* Keys and values of n tokens as bf16: the sliding layers keep a window of them. */
static double exact_kv(const struct gloss_info *i, int n)
{
    int in_window = n < i->window ? n : i->window;
    return (double)i->kv_bytes_full * n + (double)i->kv_bytes_window * in_window;
}

static status measure(struct bench *b, struct power *power, int n_context, int n_gen,
                      struct sheet *s, struct err *e)
{
    struct probe p = {0};
    struct shot shot;
    struct gloss_params o = probe_params(n_gen);
    struct machine m;
    struct power_now card;
    status st = OK;
    int n_total = n_context + n_gen;
    machine_read(&m);
    TRY(probe_open(&p, b, n_total, e));
    struct reading base = read_now(&p);
    TRY(probe_context(&p, n_context, false, e));
    struct reading tokenized = read_now(&p);
    TRY(probe_warm_up(&p, e));
    machine_reset_peak();
    struct held held = {.p = &p, .last = tokenized};
    struct watch watch = {on_token, &held};
    TRY(probe_shoot(&p, &o, &watch, &shot, e));
    power_read(power, &card);
    struct gloss_stats end = stats_now(&p);
    struct reading peak = reading_of(&end, end.peak_full, end.peak_window), after = held.last;
    bool gpu = strcmp(end.device, "cuda") == 0;
    double total = gpu ? card.mem_total_b : (double)m.memory_bytes;
    double kv = fmax(0, peak.alloc - tokenized.alloc),
           kv_reserved = fmax(0, peak.reserved - tokenized.reserved);

    sheet_row(s);
    sheet_text(s, "model", b->name);
    sheet_text(s, "device_name", gpu ? power_card(power) : m.cpu);
    sheet_int(s, "context_length", n_context);
    sheet_int(s, "gen_tokens", n_gen);
    sheet_int(s, "total_tokens", n_context + shot.n_token);
    sheet_num(s, "baseline_alloc_mb", base.alloc / MB);
    sheet_num(s, "baseline_reserved_mb", base.reserved / MB);
    sheet_num(s, "after_tokenize_alloc_mb", tokenized.alloc / MB);
    sheet_num(s, "after_tokenize_reserved_mb", tokenized.reserved / MB);
    sheet_num(s, "after_generate_alloc_mb", after.alloc / MB);
    sheet_num(s, "after_generate_reserved_mb", after.reserved / MB);
    sheet_num(s, "peak_alloc_mb", peak.alloc / MB);
    sheet_num(s, "peak_reserved_mb", peak.reserved / MB);
    sheet_num(s, "tokenize_delta_alloc_mb", (tokenized.alloc - base.alloc) / MB);
    sheet_num(s, "generate_delta_alloc_mb", (after.alloc - tokenized.alloc) / MB);
    sheet_num(s, "total_delta_alloc_mb", (after.alloc - base.alloc) / MB);
    sheet_num(s, "kv_cache_alloc_mb", kv / MB);
    sheet_num(s, "kv_cache_reserved_mb", kv_reserved / MB);
    sheet_num(s, "memory_per_token_alloc_mb", kv / MB / n_total);
    sheet_num(s, "memory_per_token_reserved_mb", kv_reserved / MB / n_total);
    sheet_num(s, "util_after_percent_alloc", 100 * after.alloc / total);
    sheet_num(s, "util_peak_percent_alloc", 100 * peak.alloc / total);
    sheet_num(s, "util_peak_percent_reserved", 100 * peak.reserved / total);
    sheet_num(s, "total_gpu_memory_mb", total / MB);
    sheet_num(s, "weights_mb", (double)end.weight_bytes / MB);
    sheet_num(s, "work_mb", (double)end.work_bytes / MB);
    sheet_num(s, "kv_pages_mb", peak.pages / MB);
    sheet_num(s, "kv_pool_mb", page_bytes(&end, end.pages_full, end.pages_window) / MB);
    sheet_num(s, "kv_exact_mb", exact_kv(&b->info, n_total) / MB);
    sheet_num(s, "device_used_mb", gpu ? card.mem_used_b / MB : NAN);
    sheet_num(s, "process_rss_mb", (double)machine_resident() / MB);
    sheet_num(s, "process_peak_rss_mb", (double)machine_peak_resident() / MB);
    TRY(sheet_end_row(s, e));
out:
    probe_close(&p);
    return st;
}

/* kv = a + b tokens over the rows of the sheet. */
static void say_fit(struct bench *b, const struct sheet *s)
{
    struct line_fit f = memory_fit(s, b->name);
    if (!isnan(f.r2))
        bench_say(b, "cache: %.3f MB + %.6f MB for each token (R2 %.5f)", f.a, f.b, f.r2);
}

struct line_fit memory_fit(const struct sheet *s, const char *model)
{
    double x[MAX_LIST], y[MAX_LIST];
    size_t n = 0;
    for (int i = 0; i < s->n_row && n < MAX_LIST; i++) {
        x[n] = sheet_get_num(s, i, "total_tokens");
        y[n] = sheet_get_num(s, i, "kv_cache_alloc_mb");
        n += !isnan(x[n]) && !isnan(y[n]) && strcmp(sheet_get(s, i, "model"), model) == 0;
    }
    return fit_line(x, y, n);
}

status memory_run(struct bench *b, const struct memory_opts *o, struct sheet *s, struct err *e)
{
    struct power *power = NULL;
    status st = OK;
    TRY(power_open(&b->power, &power, e));
    for (int i = 0; i < o->context.n; i++) {
        int n = o->context.v[i];
        bench_say(b, "memory %d of %d: %d tokens in, %d out", i + 1, o->context.n, n, o->n_gen);
        if (sheet_find2(s, "context_length", n, "gen_tokens", o->n_gen) < 0)
            TRY(measure(b, power, n, o->n_gen, s, e));
    }
    say_fit(b, s);
out:
    power_close(power);
    return st;
}
