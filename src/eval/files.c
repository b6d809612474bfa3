/* Result files: those of gpt-oss's harness (.json, .html, _allresults.json), those of lm-eval
 * (results_TIME.json, samples_TASK_TIME.jsonl), the runner's tinyMMLU result, and the summary that
 * every task prints. Names and keys are those of the harnesses; docs/evaluation.md lists them.
 */
#include "base/file.h"
#include "base/mem.h"
#include "eval/job.h"
#include "eval/sha256.h"
#include "eval/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FILE_MAX = 1 << 30, MAX_NAMED = 512 };

int files_chars(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

void files_note(struct eval_result *r, const char *path)
{
    if (r->n_file < 8)
        snprintf(r->files[r->n_file++], sizeof r->files[0], "%s", path);
}

static void put_str(struct buf *b, const char *s)
{
    json_quote(b, s, strlen(s));
}

static void put_key(struct buf *b, const char *key)
{
    put_str(b, key);
    buf_putc(b, ':');
}

static void put_num_key(struct buf *b, const char *key, double v)
{
    put_key(b, key);
    json_put_num(b, v);
}

static status save(struct eval_result *r, const char *path, const struct buf *b, struct err *e)
{
    status st = buf_status(b);
    if (st < 0)
        return err_set(e, st, "%.150s does not fit into memory", path);
    st = file_save(path, b->p, b->n, e);
    if (st == OK)
        files_note(r, path);
    return st;
}

/* ---- metrics by name, of gpt-oss's harness ---- */

struct named {
    const char *name;
    double *v; /* [n] */
    int n;
};
struct table {
    struct named m[MAX_NAMED];
    int n;
    bool full;
};

static void add(struct job *j, struct table *t, const char *name, double v)
{
    int i = 0;
    while (i < t->n && strcmp(t->m[i].name, name) != 0)
        i++;
    if (i == t->n) {
        double *room = t->n < MAX_NAMED ? arena_array(&j->mem, (size_t)j->n, sizeof(double)) : NULL;
        t->full = t->full || !room;
        if (!room)
            return;
        t->m[t->n++] = (struct named){name, room, 0};
    }
    if (t->m[i].n < j->n)
        t->m[i].v[t->m[i].n++] = v;
}

/* Scores by tag: of the example's tags the whole score, of the rubric's tags that of their items.
 * A rubric item of a tag counts once. */
static void add_tags(struct job *j, struct table *t, const struct item *it)
{
    const struct json *tags = json_get(it->row, "example_tags");
    for (size_t k = 0; k < json_len(tags); k++)
        if (json_kind(json_at(tags, k)) == J_STR)
            add(j, t, json_str(json_at(tags, k), NULL), it->metric[0]);
    struct {
        const char *tag;
        double earned, possible;
    } sum[64];
    int n = 0;
    for (int g = 0; g < it->n_grade; g++) {
        const struct grade *q = &j->grade[it->grade0 + g];
        tags = json_get(q->rubric, "tags");
        for (size_t k = 0; k < json_len(tags); k++) {
            const char *tag =
                json_kind(json_at(tags, k)) == J_STR ? json_str(json_at(tags, k), NULL) : "";
            int i = 0;
            while (i < n && strcmp(sum[i].tag, tag) != 0)
                i++;
            if (i == 64)
                continue;
            if (i == n) {
                sum[n].tag = tag;
                sum[n].earned = sum[n].possible = 0;
                n++;
            }
            sum[i].possible += q->points > 0 ? q->points : 0;
            sum[i].earned += q->met ? q->points : 0;
        }
    }
    for (int i = 0; i < n; i++)
        if (sum[i].possible > 0)
            add(j, t, sum[i].tag, sum[i].earned / sum[i].possible);
}

static void collect(struct job *j, struct table *t)
{
    bool health = j->n_grade > 0;
    for (int i = 0; i < j->n; i++) {
        const struct item *it = &j->item[i];
        if (health) {
            add(j, t, "overall_score", it->metric[0]);
            add_tags(j, t, it);
        } else {
            add(j, t, "chars", files_chars(it->final));
        }
        add(j, t, "score", it->metric[0]);
    }
}

static double clipped(double v)
{
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

/* One metric's values: mean and std, or HealthBench's three. */
static int stats_of(const struct named *m, bool health, const char *suffix[3], double v[3])
{
    double mean = stats_mean(m->v, m->n);
    suffix[0] = "";
    v[0] = health ? clipped(mean) : mean;
    suffix[1] = health ? ":bootstrap_std" : ":std";
    v[1] = health ? stats_bootstrap(m->v, m->n, 0) : stats_std(m->v, m->n);
    suffix[2] = ":n_samples";
    v[2] = m->n;
    return health ? 3 : 2;
}

struct line {
    char key[200];
    double v;
};

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct line *)a)->key, ((const struct line *)b)->key);
}

/* All metrics as lines sorted by key; with_score: the mean score too. Returns their number. */
static int lines_of(const struct job *j, const struct table *t, bool with_score, struct line *l)
{
    int n = 0;
    for (int i = 0; i < t->n; i++) {
        const char *suffix[3];
        double v[3];
        int k = stats_of(&t->m[i], j->n_grade > 0, suffix, v);
        for (int s = 0; s < k; s++) {
            if (!with_score && s == 0 && strcmp(t->m[i].name, "score") == 0)
                continue;
            snprintf(l[n].key, sizeof l[n].key, "%.150s%s", t->m[i].name, suffix[s]);
            l[n++].v = v[s];
        }
    }
    qsort(l, (size_t)n, sizeof *l, by_key);
    return n;
}

/* ---- HTML ---- */

static void put_message(struct buf *b, const char *role, const char *text)
{
    buf_puts(b, "<div class=\"message ");
    buf_html(b, role);
    buf_puts(b, "\"><div class=\"role\">");
    buf_html(b, role);
    buf_puts(b, "</div><pre>");
    buf_html(b, text);
    buf_puts(b, "</pre></div>\n");
}

static status parse_messages(const struct item *it, struct json **root, struct err *e)
{
    return json_parse(it->messages, strlen(it->messages), &json_limits_file, root, e);
}

static status item_html(const struct job *j, const struct item *it, struct buf *b, struct err *e)
{
    struct json *root = NULL;
    status st = parse_messages(it, &root, e);
    if (st < 0)
        return st;
    buf_puts(b, "<h3>Prompt conversation</h3>\n");
    for (size_t i = 0; i < json_len(root); i++) {
        size_t n;
        const char *role = dataset_text(json_at(root, i), "role", &n);
        const char *text = dataset_text(json_at(root, i), "content", &n);
        put_message(b, role ? role : "", text ? text : "");
    }
    json_free(root);
    if (*it->analysis) {
        buf_puts(b, "<details><summary>Analysis</summary><pre>");
        buf_html(b, it->analysis);
        buf_puts(b, "</pre></details>\n");
    }
    buf_puts(b, "<h3>Sampled message</h3>\n");
    put_message(b, "assistant", it->final);
    buf_puts(b, "<h3>Results</h3>\n");
    if (!j->n_grade) {
        buf_puts(b, "<p>Correct Answer: ");
        buf_html(b, it->gold);
        buf_puts(b, "</p>\n<p>Extracted Answer: ");
        buf_html(b, *it->pred ? it->pred : "None");
        buf_puts(b, "</p>\n");
    }
    buf_puts(b, "<p>Score: ");
    json_put_num(b, it->metric[0]);
    buf_puts(b, "</p>\n");
    for (int k = 0; k < it->n_grade; k++) {
        const struct grade *g = &j->grade[it->grade0 + k];
        buf_printf(b, "<p>[%s] (%g points) ", g->met ? "met" : "not met", g->points);
        buf_html(b, json_str(json_get(g->rubric, "criterion"), NULL));
        buf_puts(b, "<br>");
        buf_html(b, g->why);
        buf_puts(b, "</p>\n");
    }
    return OK;
}

static const char page_style[] =
    "body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    ".message{padding:.5em 1em;margin:.5em 0;border-left:4px solid #888;background:#f4f4f4}"
    ".message.user{border-color:#2a7}.message.assistant{border-color:#57c}.role{font-weight:bold}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere}td,th{border:1px solid #999;padding:.2em .6em;"
    "text-align:left}table{border-collapse:collapse}";

static status page(const struct job *j, const struct line *l, int n, struct buf *b, struct err *e)
{
    buf_puts(b, "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>");
    buf_html(b, j->task->name);
    buf_printf(b, "</title><style>%s</style></head><body>\n<h1>", page_style);
    buf_printf(b, "%s, ", j->task->name);
    buf_html(b, j->o->model_name);
    buf_printf(b, ", %s</h1>\n<h2>Metrics</h2>\n<table><tr><th>Metric</th><th>Value</th></tr>\n",
               j->o->effort);
    for (int i = 0; i < n; i++) {
        buf_puts(b, "<tr><td>");
        buf_html(b, l[i].key);
        buf_puts(b, "</td><td>");
        json_put_num(b, l[i].v);
        buf_puts(b, "</td></tr>\n");
    }
    buf_puts(b, "</table>\n<h2>Examples</h2>\n");
    status st = OK;
    for (int i = 0; i < j->n && st == OK; i++) {
        st = item_html(j, &j->item[i], b, e);
        buf_puts(b, "<hr>\n");
    }
    buf_puts(b, "</body></html>\n");
    return st;
}

/* ---- gpt-oss's three files ---- */

/* The messages and the answer as one array. */
static void put_convo(struct buf *b, const struct item *it)
{
    buf_put(b, it->messages, strlen(it->messages) - 1);
    buf_puts(b, ",{\"content\":");
    put_str(b, it->final);
    buf_puts(b, ",\"role\":\"assistant\"}]");
}

static void put_count(struct buf *b, const char *key, int64_t v, const char *end)
{
    if (v < 0)
        buf_printf(b, "\"%s\":null%s", key, end);
    else
        buf_printf(b, "\"%s\":%lld%s", key, (long long)v, end);
}

static void put_health(struct buf *b, const struct job *j, const struct item *it)
{
    size_t n = 0;
    char hash[65];
    struct buf both;
    const char *id = dataset_text(it->row, "prompt_id", &n);
    buf_init(&both, FILE_MAX);
    buf_put(&both, id, n);
    buf_puts(&both, it->final);
    sha256_hex(both.p, both.n, hash);
    buf_fini(&both);
    put_num_key(b, "score", it->metric[0]);
    buf_puts(b, ",\"usage\":{");
    put_count(b, "input_tokens", it->n_prompt, ",\"input_cached_tokens\":null,");
    put_count(b, "output_tokens", it->n_output, ",");
    put_count(b, "output_reasoning_tokens", it->n_reasoning, ",");
    bool known = it->n_prompt >= 0 && it->n_output >= 0;
    put_count(b, "total_tokens", known ? it->n_prompt + it->n_output : -1, "},\"rubric_items\":[");
    for (int k = 0; k < it->n_grade; k++) {
        const struct grade *g = &j->grade[it->grade0 + k];
        buf_puts(b, k ? "," : "");
        json_dump(b, g->rubric);
        b->n--; /* reopened */
        buf_printf(b, ",\"criteria_met\":%s,\"explanation\":", g->met ? "true" : "false");
        put_str(b, g->why);
        buf_putc(b, '}');
    }
    buf_printf(b, "],\"prompt\":%s,\"completion\":[{\"content\":", it->messages);
    put_str(b, it->final);
    buf_puts(b, ",\"role\":\"assistant\"}],\"prompt_id\":");
    json_quote(b, id ? id : "", n);
    buf_printf(b, ",\"completion_id\":\"%s\"", hash);
}

static status all_results(struct job *j, const struct line *l, int n, double score, struct buf *b,
                          struct err *e)
{
    struct buf html;
    buf_init(&html, FILE_MAX);
    status st = OK;
    buf_putc(b, '{');
    put_num_key(b, "score", score);
    buf_puts(b, ",\"metrics\":{");
    for (int i = 0; i < n; i++) {
        buf_puts(b, i ? "," : "");
        put_num_key(b, l[i].key, l[i].v);
    }
    buf_puts(b, "},\"htmls\":[");
    for (int i = 0; i < j->n && st == OK; i++) {
        buf_clear(&html);
        st = item_html(j, &j->item[i], &html, e);
        buf_puts(b, i ? "," : "");
        put_str(b, html.p);
    }
    buf_puts(b, "],\"convos\":[");
    for (int i = 0; i < j->n; i++) {
        buf_puts(b, i ? "," : "");
        put_convo(b, &j->item[i]);
    }
    buf_puts(b, "],\"metadata\":{\"example_level_metadata\":[");
    for (int i = 0; i < j->n; i++) {
        const struct item *it = &j->item[i];
        buf_puts(b, i ? ",{" : "{");
        if (j->n_grade)
            put_health(b, j, it);
        else
            buf_printf(b, "\"finish_reason\":\"%s\",\"output_tokens\":%lld", it->finish,
                       (long long)it->n_output);
        buf_putc(b, '}');
    }
    buf_puts(b, "]}}\n");
    buf_fini(&html);
    return st;
}

/* A name as part of a file name. */
static void put_name(char *out, size_t cap, const char *s, const char *slash)
{
    size_t k = 0;
    for (; *s && k + 3 < cap; s++)
        if (*s == '/')
            k += (size_t)snprintf(out + k, cap - k, "%s", slash);
        else
            out[k++] = *s > ' ' && *s != 0x7f ? *s : '_';
    out[k] = '\0';
}

/* "0.0", "1.0", "0.7": as Python prints a float. */
static void put_float(char *out, size_t cap, double v)
{
    struct buf b;
    buf_init(&b, 64);
    json_put_num(&b, v);
    snprintf(out, cap, "%s%s", b.p, strpbrk(b.p, ".e") ? "" : ".0");
    buf_fini(&b);
}

static status gpt_oss_files(struct job *j, struct eval_result *r, struct err *e)
{
    struct table *t = arena_alloc(&j->mem, sizeof *t);
    struct line *l = arena_array(&j->mem, 3 * MAX_NAMED, sizeof *l);
    if (!t || !l)
        return err_set(e, E_NOMEM, "out of memory for the results");
    *t = (struct table){0};
    collect(j, t);
    if (t->full)
        return err_set(e, E_LIMIT, "the data has more than %d different tags", MAX_NAMED - 2);
    char stem[1024], path[1100], model[200], temp[32], when[32];
    put_name(model, sizeof model, j->o->model_name, "__");
    put_float(temp, sizeof temp, j->temperature);
    const char *s = j->started; /* YYYY-mm-ddTHH:MM:SS */
    snprintf(when, sizeof when, "%.4s%.2s%.2s_%.2s%.2s%.2s", s, s + 5, s + 8, s + 11, s + 14,
             s + 17);
    snprintf(stem, sizeof stem, "%s/%s_%s-%s_temp%s_%s%s", j->o->out_dir, j->task->name, model,
             j->o->effort, temp, when, j->o->debug ? "_DEBUG" : "");
    struct buf b;
    buf_init(&b, FILE_MAX);
    status st = OK;
    int n = lines_of(j, t, true, l);
    TRY(page(j, l, n, &b, e));
    snprintf(path, sizeof path, "%s.html", stem);
    TRY(save(r, path, &b, e));
    buf_clear(&b);
    for (int i = 0; i < n; i++) {
        buf_puts(&b, i ? ",\n  " : "{\n  ");
        put_str(&b, l[i].key);
        buf_puts(&b, ": ");
        json_put_num(&b, l[i].v);
    }
    buf_puts(&b, "\n}");
    snprintf(path, sizeof path, "%s.json", stem);
    TRY(save(r, path, &b, e));
    buf_clear(&b);
    n = lines_of(j, t, false, l);
    double score = j->n_grade ? clipped(r->score) : r->score;
    TRY(all_results(j, l, n, score, &b, e));
    snprintf(path, sizeof path, "%s_allresults.json", stem);
    TRY(save(r, path, &b, e));
out:
    buf_fini(&b);
    return st;
}

/* ---- lm-eval's files ---- */

static bool is_mmlu(const struct job *j)
{
    return strcmp(j->task->name, "mmlu") == 0;
}

static int n_metric(const struct job *j)
{
    bool one = j->method != EVAL_LOGLIKELIHOOD && j->task->letters;
    return one ? 1 : j->task->n_metric;
}

/* lm-eval's name of a metric: generated letters are matched exactly. */
static const char *metric_name(const struct job *j, int m)
{
    bool letters = j->task->letters && j->method != EVAL_LOGLIKELIHOOD;
    return letters ? "exact_match,get_response" : j->task->metric[m];
}

/* "acc,none" and "acc_stderr,none" of some items; group NULL: all. */
static int put_metrics(struct buf *b, const struct job *j, const char *group, double *v)
{
    int n = 0;
    for (int m = 0; m < n_metric(j); m++) {
        const char *name = metric_name(j, m), *comma = strchr(name, ',');
        n = 0;
        for (int i = 0; i < j->n; i++)
            if (!group || strcmp(j->item[i].group, group) == 0)
                v[n++] = j->item[i].metric[m];
        buf_putc(b, ',');
        put_num_key(b, name, stats_mean(v, n));
        buf_printf(b, ",\"%.*s_stderr%s\":", (int)(comma - name), name, comma);
        json_put_num(b, stats_stderr(v, n));
    }
    return n;
}

/* The distinct groups in order of appearance; at most cap. */
static int groups_of(const struct job *j, const char **g, int cap)
{
    int n = 0;
    for (int i = 0; i < j->n; i++) {
        int k = 0;
        while (k < n && strcmp(g[k], j->item[i].group) != 0)
            k++;
        if (k == n && n < cap && *j->item[i].group)
            g[n++] = j->item[i].group;
    }
    return n;
}

enum { MAX_GROUP = 1024 };

/* The rows that results, n-samples, n-shot, versions and so on have in common. */
struct part {
    char name[200];
    const char *alias, *group;
};

/* Tasks of the results: mmlu has one per subject. */
static int parts_of(const struct job *j, struct part *p)
{
    const char *g[MAX_GROUP];
    int n = is_mmlu(j) ? groups_of(j, g, MAX_GROUP) : 0;
    for (int i = 0; i < n; i++) {
        snprintf(p[i].name, sizeof p[i].name, "mmlu_%s%s", g[i],
                 j->method == EVAL_GENERATE ? "_generative" : "");
        p[i].alias = p[i].group = g[i];
    }
    if (n)
        return n;
    snprintf(p[0].name, sizeof p[0].name, "%s", j->task->name);
    p[0].alias = j->task->name;
    p[0].group = NULL;
    return 1;
}

static void put_lm_config(struct buf *b, const struct job *j)
{
    const struct eval_opts *o = j->o;
    static const char *const kinds[] = {"gloss", "local-chat-completions", "gloss-responses"};
    buf_printf(b,
               "\"config\":{\"model\":\"%s\",\"model_args\":{\"model\":", kinds[o->sampler.kind]);
    put_str(b, o->model_name);
    if (o->sampler.kind != SAMPLER_LOCAL) {
        buf_puts(b, ",\"base_url\":");
        put_str(b, o->sampler.client.base_url);
    }
    buf_printf(b,
               ",\"reasoning_effort\":\"%s\",\"lm_final_prefix\":%s},\"batch_size\":%d,"
               "\"batch_sizes\":[],\"device\":null,\"use_cache\":null,\"limit\":",
               o->effort, j->method != EVAL_GENERATE && o->final_prefix ? "true" : "false",
               o->n_parallel);
    if (o->n_example)
        buf_printf(b, "%d", o->n_example);
    else
        buf_puts(b, "null");
    buf_printf(b, ",\"bootstrap_iters\":0,\"gen_kwargs\":{\"max_gen_toks\":%d,", j->max_tokens);
    put_num_key(b, "temperature", j->temperature);
    buf_puts(b, "},\"random_seed\":0,\"numpy_seed\":1234,\"torch_seed\":1234,"
                "\"fewshot_seed\":1234}");
}

static status lm_results(struct job *j, struct eval_result *r, const struct part *p, int n,
                         const char *model_file, struct buf *b, struct err *e)
{
    double *v = arena_array(&j->mem, (size_t)j->n, sizeof *v);
    int *count = arena_array(&j->mem, (size_t)n, sizeof *count);
    if (!v || !count)
        return err_set(e, E_NOMEM, "out of memory for the results");
    bool group = p[0].group != NULL;
    buf_puts(b, "{\"results\":{");
    if (group) {
        buf_puts(b, "\"mmlu\":{\"alias\":\"mmlu\"");
        put_metrics(b, j, NULL, v);
        buf_puts(b, "},");
    }
    for (int i = 0; i < n; i++) {
        buf_puts(b, i ? "," : "");
        put_key(b, p[i].name);
        buf_puts(b, "{\"alias\":");
        put_str(b, p[i].alias);
        count[i] = put_metrics(b, j, p[i].group, v);
        buf_putc(b, '}');
    }
    buf_puts(b, "},\"groups\":{");
    if (group) {
        buf_puts(b, "\"mmlu\":{\"alias\":\"mmlu\"");
        put_metrics(b, j, NULL, v);
        buf_puts(b, "}");
    }
    buf_printf(b, "},\"group_subtasks\":{\"%s\":[", j->task->name);
    for (int i = 0; group && i < n; i++) {
        buf_puts(b, i ? "," : "");
        put_str(b, p[i].name);
    }
    buf_puts(b, "]},\"configs\":{");
    for (int i = 0; i < n; i++) {
        buf_puts(b, i ? "," : "");
        put_key(b, p[i].name);
        buf_puts(b, "{\"task\":");
        put_str(b, p[i].name);
        buf_puts(b, ",\"dataset_path\":");
        put_str(b, j->o->data);
        buf_printf(b, ",\"output_type\":\"%s\",\"num_fewshot\":%d,\"repeats\":%d}",
                   j->method == EVAL_LOGLIKELIHOOD ? "multiple_choice" : "generate_until",
                   j->n_shot, j->n_repeat);
    }
    const char *const flat[] = {"versions", "n-shot", "higher_is_better", "n-samples"};
    for (int f = 0; f < 4; f++) {
        buf_printf(b, "},\"%s\":{", flat[f]);
        for (int i = 0; i < n; i++) {
            buf_puts(b, i ? "," : "");
            put_key(b, p[i].name);
            if (f == 0)
                buf_puts(b, "1.0");
            else if (f == 1)
                buf_printf(b, "%d", j->n_shot);
            else if (f == 2)
                buf_puts(b, j->method == EVAL_LOGLIKELIHOOD ? "{\"acc\":true}"
                                                            : "{\"exact_match\":true}");
            else
                buf_printf(b, "{\"original\":%d,\"effective\":%d}",
                           group || !j->o->n_example ? count[i] : j->rows.n, count[i]);
        }
    }
    buf_puts(b, "},");
    put_lm_config(b, j);
    buf_puts(b, ",\"git_hash\":null,\"date\":");
    json_put_num(b, (double)time(NULL));
    buf_printf(b,
               ",\"pretty_env_info\":\"gloss %s\",\"lm_eval_version\":\"gloss-%s\","
               "\"task_hashes\":{},\"model_source\":\"gloss\",\"model_name\":",
               gloss_version(), gloss_version());
    put_str(b, j->o->model_name);
    buf_puts(b, ",\"model_name_sanitized\":");
    put_str(b, model_file);
    buf_puts(b, ",\"system_instruction\":null,\"system_instruction_sha\":null,"
                "\"fewshot_as_multiturn\":false,\"chat_template\":");
    bool raw = j->method != EVAL_GENERATE && !j->o->final_prefix;
    buf_puts(b, raw ? "null" : "\"harmony\"");
    buf_printf(b, ",\"chat_template_sha\":null,\"start_time\":\"%s\",\"end_time\":null",
               j->started);
    buf_puts(b, ",\"total_evaluation_time_seconds\":");
    json_put_num(b, j->seconds);
    put_key((buf_putc(b, ','), b), "mean_output_tokens");
    json_put_num(b, r->mean_tokens);
    buf_printf(b, ",\"n_truncated\":%d,\"n_no_answer\":%d}\n", r->n_truncated, r->n_no_answer);
    return OK;
}

static void put_hash(struct buf *b, const char *key, const char *s, size_t n)
{
    char hex[65];
    sha256_hex(s, n, hex);
    buf_printf(b, ",\"%s\":\"%s\"", key, hex);
}

/* "exact_match" of "exact_match,strict-match"; the filter behind the comma. */
static void split_name(const char *name, char metric[64], const char **filter)
{
    const char *comma = strchr(name, ',');
    snprintf(metric, 64, "%.*s", (int)(comma - name), name);
    *filter = comma + 1;
}

/* One line: an item under one filter; metrics of the same filter stand together. */
static void put_sample(struct buf *b, const struct job *j, const struct item *it, int m, int m_end)
{
    char metric[64];
    const char *filter;
    struct buf doc;
    bool likely = j->method == EVAL_LOGLIKELIHOOD;
    split_name(metric_name(j, m), metric, &filter);
    buf_init(&doc, FILE_MAX);
    json_dump(&doc, it->row);
    buf_printf(b, "{\"doc_id\":%d,\"doc\":%s,\"target\":", it->i_row, doc.p);
    put_str(b, it->gold);
    buf_puts(b, ",\"arguments\":{");
    for (int k = 0; k < (likely ? it->n_choice : 1); k++) {
        buf_printf(b, "%s\"gen_args_%d\":{\"arg_0\":", k ? "," : "", k);
        put_str(b, it->prompt);
        buf_puts(b, ",\"arg_1\":");
        if (likely)
            put_str(b, it->choice[k]);
        else
            buf_printf(b, "{\"max_gen_toks\":%d}", j->max_tokens);
        buf_putc(b, '}');
    }
    buf_puts(b, "},\"resps\":[");
    for (int k = 0; likely && k < it->n_choice; k++) {
        buf_puts(b, k ? ",[[" : "[[");
        json_put_num(b, it->lp[k]);
        buf_printf(b, ",%s]]", it->greedy[k] ? "true" : "false");
    }
    if (!likely) {
        buf_putc(b, '[');
        put_str(b, it->final);
        buf_putc(b, ']');
    }
    buf_puts(b, "],\"filtered_resps\":[");
    for (int k = 0; likely && k < it->n_choice; k++) {
        buf_puts(b, k ? ",[" : "[");
        json_put_num(b, it->lp[k]);
        buf_printf(b, ",%s]", it->greedy[k] ? "true" : "false");
    }
    if (!likely)
        put_str(b, m && *it->pred2 ? it->pred2 : it->pred);
    buf_puts(b, "],\"filter\":");
    put_str(b, filter);
    buf_puts(b, ",\"metrics\":[");
    for (int k = m; k < m_end; k++) {
        split_name(metric_name(j, k), metric, &filter);
        buf_puts(b, k > m ? "," : "");
        put_str(b, metric);
    }
    buf_putc(b, ']');
    put_hash(b, "doc_hash", doc.p, doc.n);
    put_hash(b, "prompt_hash", it->prompt, strlen(it->prompt));
    put_hash(b, "target_hash", it->gold, strlen(it->gold));
    for (int k = m; k < m_end; k++) {
        split_name(metric_name(j, k), metric, &filter);
        buf_putc(b, ',');
        put_num_key(b, metric, it->metric[k]);
    }
    buf_puts(b, "}\n");
    buf_fini(&doc);
}

static void put_samples(struct buf *b, const struct job *j, const char *group)
{
    for (int i = 0; i < j->n; i++) {
        if (group && strcmp(j->item[i].group, group) != 0)
            continue;
        for (int m = 0, end; m < n_metric(j); m = end) {
            const char *filter = strchr(metric_name(j, m), ',');
            for (end = m + 1; end < n_metric(j); end++)
                if (strcmp(strchr(metric_name(j, end), ','), filter) != 0)
                    break;
            put_sample(b, j, &j->item[i], m, end);
        }
    }
}

static status lm_eval_files(struct job *j, struct eval_result *r, struct err *e)
{
    struct part *p = arena_array(&j->mem, MAX_GROUP, sizeof *p);
    if (!p)
        return err_set(e, E_NOMEM, "out of memory for the results");
    char dir[1024], path[1400], model[200], when[64];
    int n = parts_of(j, p);
    put_name(model, sizeof model, j->o->model_name, "__");
    snprintf(dir, sizeof dir, "%s/%s", j->o->out_dir, model);
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    snprintf(when, sizeof when, "%s.%06ld", j->started, ts.tv_nsec / 1000);
    for (char *s = when; *s; s++)
        *s = *s == ':' ? '-' : *s;
    struct buf b;
    buf_init(&b, FILE_MAX);
    status st = OK;
    TRY(file_mkdir(dir, e));
    TRY(lm_results(j, r, p, n, model, &b, e));
    snprintf(path, sizeof path, "%s/results_%s.json", dir, when);
    TRY(save(r, path, &b, e));
    for (int i = 0; i < n; i++) {
        char name[200];
        put_name(name, sizeof name, p[i].name, "__");
        buf_clear(&b);
        put_samples(&b, j, p[i].group);
        snprintf(path, sizeof path, "%s/samples_%s_%s.jsonl", dir, name, when);
        TRY(save(r, path, &b, e));
    }
out:
    buf_fini(&b);
    return st;
}

status files_write(struct job *j, struct eval_result *r, struct err *e)
{
    switch (j->task->files) {
    case FILES_GPT_OSS:
        return gpt_oss_files(j, r, e);
    case FILES_LM_EVAL:
        return lm_eval_files(j, r, e);
    case FILES_SAFETY:
        return safety_files(j, r, e);
    }
    return OK;
}

/* ---- summaries ---- */

static const char *method_name(const struct job *j)
{
    static const char *const names[] = {"generate", "loglikelihood", "single_token"};
    return names[j->method];
}

static void put_rounded(struct buf *b, double v, int digits)
{
    double f = pow(10, digits);
    json_put_num(b, rint(v * f) / f);
}

/* The last (or first) n characters of s. */
static const char *last_chars(const char *s, int n)
{
    int skip = files_chars(s) - n;
    while (skip > 0) {
        s++;
        skip -= ((unsigned char)*s & 0xc0) != 0x80;
    }
    return s;
}

static void put_first(struct buf *b, const char *s, int n)
{
    size_t k = 0;
    for (int c = 0; s[k]; k++) {
        c += ((unsigned char)s[k] & 0xc0) != 0x80;
        if (c > n)
            break;
    }
    json_quote(b, s, k);
}

/* The beginning of an answer as the model wrote it: its messages with their markers, but for
 * commentary, which is not kept. */
static void put_raw(struct buf *b, const struct item *it, int n)
{
    struct buf raw;
    buf_init(&raw, FILE_MAX);
    if (*it->analysis)
        buf_printf(&raw, "<|channel|>analysis<|message|>%s<|end|><|start|>assistant", it->analysis);
    buf_printf(&raw, "<|channel|>final<|message|>%s", it->final);
    put_first(b, raw.p, n);
    buf_fini(&raw);
}

/* benchmark_tinymmlu's result. */
static void put_runner(struct job *j, const struct buf *irt, struct buf *b)
{
    const struct eval_opts *o = j->o;
    const char *g[MAX_GROUP];
    int n = groups_of(j, g, MAX_GROUP), correct = 0, whole = o->samples_full ? 1 << 30 : 0;
    const char *file = strrchr(o->data, '/');
    const char *split = o->split ? o->split : file ? file + 1 : o->data;
    for (int i = 0; i < j->n; i++)
        correct += j->item[i].metric[0] == 1;
    buf_printf(b, "{\"ok\":true,\"items\":%d,\"overall_accuracy\":", j->n);
    put_rounded(b, j->n ? (double)correct / j->n : 0, 4);
    buf_printf(b, ",\"correct\":%d,\"per_subject_accuracy\":{", correct);
    for (int k = 0; k < n; k++) {
        int right = 0, all = 0;
        for (int i = 0; i < j->n; i++)
            if (strcmp(j->item[i].group, g[k]) == 0) {
                all++;
                right += j->item[i].metric[0] == 1;
            }
        buf_puts(b, k ? "," : "");
        put_key(b, g[k]);
        put_rounded(b, (double)right / all, 4);
    }
    buf_puts(b, "},\"samples\":[");
    for (int i = 0; i < j->n && i < o->samples_limit; i++) {
        const struct item *it = &j->item[i];
        buf_puts(b, i ? ",{\"prompt_end\":" : "{\"prompt_end\":");
        put_str(b, last_chars(it->prompt, whole ? whole : 200));
        buf_puts(b, ",\"generated_raw\":");
        put_raw(b, it, whole ? whole : 200);
        buf_puts(b, ",\"response\":");
        put_first(b, it->final, whole ? whole : 100);
        buf_puts(b, ",\"analysis\":");
        if (*it->analysis)
            put_first(b, it->analysis, whole ? whole : 100);
        else
            buf_puts(b, "null");
        buf_puts(b, ",\"pred\":");
        put_str(b, it->pred);
        buf_puts(b, ",\"gt\":");
        put_str(b, it->gold);
        buf_puts(b, ",\"subject\":");
        put_str(b, it->group);
        buf_putc(b, '}');
    }
    buf_puts(b, "],\"elapsed_seconds\":");
    put_rounded(b, j->seconds, 1);
    buf_puts(b, ",\"config\":{\"split\":");
    json_quote(b, split, strcspn(split, "."));
    buf_printf(b, ",\"max_items\":%d,\"reasoning_level\":\"%s\",\"method\":\"%s\"}",
               o->n_example ? o->n_example : j->n, o->effort,
               j->method == EVAL_GENERATE ? "reuses_infer_logic" : method_name(j));
    if (irt->n)
        buf_printf(b, ",\"gp_irt\":%s", irt->p);
    buf_putc(b, '}');
}

void files_summary(struct job *j, struct eval_result *r, const struct buf *irt)
{
    struct buf *b = &r->json;
    const struct eval_opts *o = j->o;
    double *v = arena_array(&j->mem, (size_t)j->n, sizeof *v);
    const char *g[MAX_GROUP];
    if (!v) {
        b->st = E_NOMEM;
        return;
    }
    buf_puts(b, "{\"task\":");
    put_str(b, j->task->name);
    buf_puts(b, ",\"model\":");
    put_str(b, o->model_name);
    buf_printf(b, ",\"effort\":\"%s\",\"method\":\"%s\",\"n\":%d,\"repeats\":%d,", o->effort,
               method_name(j), j->n, j->n_repeat);
    put_num_key(b, "score", r->score);
    put_num_key((buf_putc(b, ','), b), "stderr", r->err);
    buf_puts(b, ",\"ci95\":[");
    json_put_num(b, r->lo);
    buf_putc(b, ',');
    json_put_num(b, r->hi);
    buf_puts(b, "],");
    put_num_key(b, "published", r->published);
    buf_puts(b, ",\"metrics\":{");
    bool lm = j->task->files == FILES_LM_EVAL;
    for (int m = 0; m < (lm ? n_metric(j) : j->task->n_metric); m++) {
        for (int i = 0; i < j->n; i++)
            v[i] = j->item[i].metric[m];
        buf_puts(b, m ? "," : "");
        put_num_key(b, lm ? metric_name(j, m) : j->task->metric[m], stats_mean(v, j->n));
    }
    buf_puts(b, "},\"groups\":{");
    int n = groups_of(j, g, MAX_GROUP);
    for (int k = 0; k < n; k++) {
        int all = 0;
        for (int i = 0; i < j->n; i++)
            if (strcmp(j->item[i].group, g[k]) == 0)
                v[all++] = j->item[i].metric[0];
        buf_puts(b, k ? "," : "");
        put_key(b, g[k]);
        buf_putc(b, '{');
        put_num_key(b, "score", stats_mean(v, all));
        buf_printf(b, ",\"n\":%d}", all);
    }
    buf_puts(b, "},");
    put_num_key(b, "mean_output_tokens", r->mean_tokens);
    buf_printf(b, ",\"n_truncated\":%d,\"n_no_answer\":%d,\"seconds\":", r->n_truncated,
               r->n_no_answer);
    put_rounded(b, j->seconds, 3);
    buf_printf(b, ",\"settings\":{\"temperature\":");
    json_put_num(b, j->temperature);
    buf_printf(b, ",\"max_tokens\":%d,\"num_fewshot\":%d,\"seed\":", j->max_tokens, j->n_shot);
    if (o->seed < 0)
        buf_puts(b, "null");
    else
        buf_printf(b, "%lld", (long long)o->seed);
    buf_printf(b, ",\"lm_final_prefix\":%s}",
               j->method != EVAL_GENERATE && o->final_prefix ? "true" : "false");
    if (irt->n)
        buf_printf(b, ",\"gp_irt\":%s", irt->p);
    if (j->n_grade)
        buf_printf(b, ",\"self_graded\":%s", o->self_graded ? "true" : "false");
    buf_puts(b, ",\"files\":[");
    for (int i = 0; i < r->n_file; i++) {
        buf_puts(b, i ? "," : "");
        put_str(b, r->files[i]);
    }
    buf_puts(b, "]}");
    if (strcmp(j->task->name, "tinymmlu") == 0)
        put_runner(j, irt, &r->runner);
}
