/* The study as one HTML page without outside parts: what it ran on, the published numbers beside
 * the measured ones, figures (SVG, inside the page) and every table.
 */
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/machine.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_MAX = 64 << 20, FILE_MAX = 16 << 20, MAX_NAME = 256, ABOUT_CONTEXT = 2048 };

static const char style[] =
    "body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1100px;margin:2rem auto;"
    "padding:0 1rem}h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px "
    "solid #ddd}h3{font-size:1rem;margin-top:1.4rem}.wide{overflow-x:auto}table{border-collapse:"
    "collapse;font-size:12.5px;font-variant-numeric:tabular-nums}th,td{border:1px solid "
    "#ddd;padding:2px 7px;text-align:right;white-space:nowrap}th{background:#f4f4f2}td:first-child,"
    "th:first-child{text-align:left}.figs{display:grid;grid-template-columns:repeat(auto-fit,"
    "minmax(420px,1fr));gap:12px}.figs svg{width:100%;height:auto}code{background:#f4f4f2;padding:"
    "1px 4px;overflow-wrap:anywhere}.note{color:#555}td:empty{background:#fafaf8}";

/* A number of a table, shortened for reading; the files have all digits. */
static void put_cell(struct buf *b, const char *s)
{
    char *end, text[64];
    double v = strtod(s, &end);
    bool whole = *end == '\0' && end != s && strcspn(s, ".eE") == strlen(s);
    if (end == s || *end || whole) {
        buf_html(b, s);
        return;
    }
    snprintf(text, sizeof text, fabs(v) >= 1000 ? "%.1f" : fabs(v) >= 10 ? "%.2f" : "%.4g", v);
    buf_puts(b, text);
}

/* ---- tables ---- */

static void put_table(struct buf *b, const struct sheet *s)
{
    buf_puts(b, "<div class=wide><table><thead><tr>");
    for (int i = 0; i < s->n_col; i++) {
        buf_puts(b, "<th>");
        buf_html(b, s->col[i]);
    }
    buf_puts(b, "</thead><tbody>");
    for (int row = 0; row < s->n_row; row++) {
        buf_puts(b, "<tr>");
        for (int i = 0; i < s->n_col; i++) {
            buf_puts(b, "<td>");
            put_cell(b, sheet_get(s, row, s->col[i]));
        }
        buf_puts(b, "\n");
    }
    buf_puts(b, "</tbody></table></div>\n");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Calls with each file of the folder that ends so, by name. */
static status each_file(const char *folder, const char *suffix, struct buf *b,
                        status (*put)(struct buf *, const char *path, const char *name,
                                      struct err *),
                        struct err *e)
{
    char *name[MAX_NAME], path[4096];
    int n = 0;
    status st = OK;
    DIR *d = opendir(folder);
    for (struct dirent *ent; d && n < MAX_NAME && (ent = readdir(d));) {
        size_t len = strlen(ent->d_name), end = strlen(suffix);
        if (len > end && strcmp(ent->d_name + len - end, suffix) == 0 &&
            (name[n] = mem_strdup(ent->d_name)))
            n++;
    }
    if (d)
        closedir(d);
    qsort(name, (size_t)n, sizeof *name, by_name);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, name[i]);
        if (st == OK)
            st = put(b, path, name[i], e);
        mem_free(name[i]);
    }
    return st;
}

static status put_csv(struct buf *b, const char *path, const char *name, struct err *e)
{
    struct sheet s = {0};
    status st = sheet_read(&s, path, e);
    if (st == OK) {
        buf_puts(b, "<h3>");
        buf_html(b, name);
        buf_puts(b, "</h3>");
        put_table(b, &s);
    }
    sheet_fini(&s);
    return st;
}

static status put_svg(struct buf *b, const char *path, const char *name, struct err *e)
{
    struct buf svg;
    (void)name;
    buf_init(&svg, FILE_MAX);
    status st = file_read(path, &svg, e);
    const char *p = st == OK ? strstr(svg.p, "<svg") : NULL;
    if (p) {
        buf_puts(b, "<figure>");
        buf_puts(b, p);
        buf_puts(b, "</figure>\n");
    }
    buf_fini(&svg);
    return st;
}

/* ---- what it ran on ---- */

static void put_member(struct buf *b, const struct json *o, const char *key, const char *label)
{
    const struct json *v = json_get(o, key);
    if (json_absent(v) || (json_kind(v) == J_STR && *json_str(v, NULL) == '\0'))
        return;
    buf_printf(b, "<tr><td>%s<td>", label);
    if (json_kind(v) == J_STR)
        buf_html(b, json_str(v, NULL));
    else
        json_dump(b, v);
    buf_puts(b, "\n");
}

static void put_part(struct buf *b, const struct json *line)
{
    static const char *const key[] = {"part", "finished", "seconds", "command"};
    buf_puts(b, "<tr>");
    for (int i = 0; i < 4; i++) {
        const struct json *v = json_get(line, key[i]);
        buf_puts(b, "<td>");
        if (json_kind(v) == J_STR)
            buf_html(b, json_str(v, NULL));
        else
            json_dump(b, v);
    }
    buf_puts(b, "\n");
}

/* Whether the rest of the log holds a later run of the same part. */
static bool run_again(const struct json *line, const char *rest)
{
    const struct json *part = json_get(line, "part");
    char key[64];
    snprintf(key, sizeof key, "{\"part\": \"%.40s\"",
             json_kind(part) == J_STR ? json_str(part, NULL) : "");
    return strstr(rest, key) != NULL;
}

/* One log: the machine of its last line, and a row for each part, its last run. */
static status put_log(struct buf *b, const char *path, const char *name, struct err *e)
{
    struct buf text, rows;
    struct json *last = NULL;
    (void)name;
    buf_init(&text, FILE_MAX);
    buf_init(&rows, FILE_MAX);
    status st = file_read(path, &text, e);
    for (const char *p = text.p; st == OK && *p;) {
        size_t n = strcspn(p, "\n");
        struct json *line = NULL;
        if (n && json_parse(p, n, &json_limits_file, &line, NULL) == OK) {
            if (!run_again(line, p + n))
                put_part(&rows, line);
            json_free(last);
            last = line;
        }
        p += n + (p[n] == '\n');
    }
    if (last) {
        const struct json *m = json_get(last, "machine"), *model = json_get(last, "model");
        buf_puts(b, "<table>");
        put_member(b, model, "name", "model");
        put_member(b, model, "parameters", "parameters");
        put_member(b, model, "active", "active for each token");
        put_member(b, model, "bytes", "bytes of weights");
        put_member(b, m, "card", "card");
        put_member(b, m, "processor", "processor");
        put_member(b, m, "processors", "processors used");
        put_member(b, m, "memory_gb", "memory, GB");
        put_member(b, m, "kernels", "processor kernels");
        put_member(b, m, "power_source", "power readings");
        put_member(b, m, "system", "system");
        put_member(b, last, "version", "gloss");
        buf_puts(b, "</table>\n<h3>Commands</h3>\n<div class=wide><table><tr><th>part<th>finished"
                    "<th>seconds<th>command\n");
        buf_put(b, rows.p, rows.n);
        buf_puts(b, "</table></div>\n");
    }
    json_free(last);
    buf_fini(&rows);
    buf_fini(&text);
    return st;
}

/* ---- the published numbers ---- */

/* arXiv 2508.16700: H100 NVL, Transformers, bf16 after dequantisation, context 2048, 64 tokens. */
static const struct {
    const char *what, *unit;
    double oss, qwen, yi;
    int table; /* 0 latency, 1 memory, 2 energy, 3 efficiency */
    const char *col;
} published[] = {
    {"time to the first token", "ms", 475.8, 389.2, 402.2, 0, "TTFT_ms"},
    {"tokens per second, prompt included", "tokens/s", 31.1, 23.4, 26.4, 0, "TPOT_tokps"},
    {"whole request, median", "ms", 2057, 2739, 2429, 0, "p50_ms"},
    {"peak memory", "MB", 43480, 63650, 66459, 1, "peak_alloc_mb"},
    {"cache", "MB", 3554, 1128, 833, 1, "kv_cache_alloc_mb"},
    {"power of the card", "W", 305.3, 312.2, 354.1, 2, "avg_gpu_power_watts"},
    {"energy of 1000 tokens", "J", 9764, 13155, 13464, 2, "energy_per_1k_joules"},
    {"tokens per joule", "1/J", 0.1024, 0.0760, 0.0743, 2, "tokens_per_watt"},
    {"tokens per second for each 10^9 active parameters", "tokens/s", 8.64, 0.730, 0.775, 3,
     "throughput_per_activeB_tokps_per_B"},
};

/* The context our column is about: 2048, else the longest below it, else the shortest. */
static double context_of(const struct sheet *latency, const char *model)
{
    double best = NAN;
    for (int i = 0; i < latency->n_row; i++) {
        double c = sheet_get_num(latency, i, "context_length");
        if (strcmp(sheet_get(latency, i, "model_short"), model) != 0 || isnan(c))
            continue;
        bool better = isnan(best) || (c <= ABOUT_CONTEXT && (c > best || best > ABOUT_CONTEXT)) ||
                      (c > ABOUT_CONTEXT && best > ABOUT_CONTEXT && c < best);
        best = better ? c : best;
    }
    return best;
}

static const char *value_of(const struct sheet *s, const char *key, const char *model,
                            double context, const char *col)
{
    for (int i = 0; i < s->n_row; i++)
        if (strcmp(sheet_get(s, i, key), model) == 0 &&
            sheet_get_num(s, i, "context_length") == context)
            return sheet_get(s, i, col);
    return "";
}

static void put_published(struct buf *b, const struct sheet tab[4])
{
    int first[16], n = 0;
    for (int i = 0; i < tab[0].n_row && n < 16; i++) {
        bool known = false;
        for (int k = 0; k < n; k++)
            known = known || strcmp(sheet_get(&tab[0], first[k], "model_short"),
                                    sheet_get(&tab[0], i, "model_short")) == 0;
        if (!known)
            first[n++] = i;
    }
    buf_puts(b, "<div class=wide><table><thead><tr><th><th>unit");
    for (int k = 0; k < n; k++) {
        const char *model = sheet_get(&tab[0], first[k], "model_short");
        buf_puts(b, "<th>");
        buf_html(b, model);
        buf_printf(b, ", here, context %.0f", context_of(&tab[0], model));
    }
    buf_puts(b, "<th>paper: gpt-oss-20b<th>paper: Qwen3-32B<th>paper: Yi-34B</thead><tbody>");
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        buf_printf(b, "<tr><td>%s<td>%s", published[i].what, published[i].unit);
        for (int k = 0; k < n; k++) {
            const char *model = sheet_get(&tab[0], first[k], "model_short");
            buf_puts(b, "<td>");
            put_cell(b, value_of(&tab[published[i].table],
                                 published[i].table == 3 ? "model_id" : "model_short", model,
                                 context_of(&tab[0], model), published[i].col));
        }
        buf_printf(b, "<td>%g<td>%g<td>%g\n", published[i].oss, published[i].qwen, published[i].yi);
    }
    buf_puts(b, "</tbody></table></div>\n");
}

/* ---- the page ---- */

static status put_numbers(struct buf *b, const char *dir, struct err *e)
{
    static const char *const name[] = {
        "unified_latency_comparison.csv", "unified_memory_comparison_fixed.csv",
        "unified_energy_comparison_fixed.csv", "ape/ape_analysis.csv"};
    struct sheet tab[4] = {0};
    char path[4096];
    status st = OK;
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/new_results/%s", dir, name[i]);
        if (file_exists(path))
            TRY(sheet_read(&tab[i], path, e));
    }
    put_published(b, tab);
    for (int i = 0; i < tab[1].n_row; i++) {
        const char *model = sheet_get(&tab[1], i, "model");
        struct line_fit f = memory_fit(&tab[1], model);
        if (isnan(f.r2) || sheet_find(&tab[1], "model", model) != i)
            continue;
        buf_puts(b, "<p>Cache of ");
        buf_html(b, sheet_get(&tab[1], i, "model_short"));
        buf_printf(
            b, " by length: %.3f MB + %.6f MB for each token (least squares, R&sup2; %.5f).</p>\n",
            f.a, f.b, f.r2);
    }
out:
    for (int i = 0; i < 4; i++)
        sheet_fini(&tab[i]);
    return st;
}

static status put_section(struct buf *b, const char *title, const char *dir, const char *folder,
                          struct err *e)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/new_results/%s", dir, folder);
    size_t before = b->n;
    buf_printf(b, "<h2>%s</h2>\n", title);
    size_t begun = b->n;
    status st = each_file(path, ".csv", b, put_csv, e);
    if (b->n == begun)
        b->n = before; /* nothing there: no heading */
    return st;
}

status report_run(const char *dir, const char *out, struct err *e)
{
    struct buf b;
    char path[4096], date[32];
    buf_init(&b, PAGE_MAX);
    machine_date(date);
    status st = OK;
    buf_printf(&b,
               "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
               "content=\"width=device-width\"><title>gpt-oss, measured</title><style>%s</style>"
               "<h1>gpt-oss, measured</h1><p class=note>Made %s by gloss %s. Every number is in "
               "the CSV files beside this page, with all its digits; empty cells had no source. "
               "docs/measuring.md says what each column means.</p>\n<h2>What it ran on</h2>\n",
               style, date, gloss_version());
    snprintf(path, sizeof path, "%s/results/model_specs", dir);
    TRY(each_file(path, ".jsonl", &b, put_log, e));
    buf_puts(&b, "<h2>Beside the published numbers</h2>\n<p class=note>The paper (arXiv 2508.16700)"
                 " measured on an H100 NVL with Transformers and weights as bf16, at context 2048 "
                 "with 64 tokens out. Other machines, and other weights, are another story: read "
                 "the columns for what they are.</p>\n");
    TRY(put_numbers(&b, dir, e));
    buf_puts(&b, "<h2>Figures</h2>\n<div class=figs>");
    snprintf(path, sizeof path, "%s/figs", dir);
    TRY(each_file(path, ".svg", &b, put_svg, e));
    buf_puts(&b, "</div>\n");
    TRY(put_section(&b, "Latency and load", dir, "latency", e));
    TRY(put_section(&b, "Memory", dir, "memeory", e));
    TRY(put_section(&b, "Energy", dir, "energy", e));
    TRY(put_section(&b, "Active-parameter efficiency", dir, "ape", e));
    TRY(put_section(&b, "Ablations", dir, "ablations", e));
    TRY(put_section(&b, "Evaluations", dir, "mmlu-gsm", e));
    TRY(put_section(&b, "Licences and policies (documents only)", dir, "safety", e));
    buf_puts(&b, "</html>\n");
    TRY(buf_status(&b) < 0 ? err_set(e, E_LIMIT, "the page is larger than %d bytes", PAGE_MAX)
                           : OK);
    TRY(file_save(out, b.p, b.n, e));
out:
    buf_fini(&b);
    return st;
}
