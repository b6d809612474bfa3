/* gloss mlperf accuracy: the answers of a log against the data set's ground truths. */
#include "base/file.h"
#include "base/mem.h"
#include "mlperf/acclog.h"
#include "mlperf/detok.h"
#include "mlperf/rules.h"
#include "mlperf/grader.h"
#include "mlperf/mlperf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES_MAX = 512 << 20, SETS_MAX = 64, PREVIEW = 200 };

enum kind { KIND_CHOICE_D, KIND_CHOICE_J, KIND_INTEGER, KIND_CODE, N_KIND };

/* How a data set is judged, by a word in its name; the first that fits. */
static const struct {
    const char *word;
    enum kind kind;
} kinds[] = {{"gpqa", KIND_CHOICE_D},
             {"mmlu", KIND_CHOICE_J},
             {"aime", KIND_INTEGER},
             {"livecodebench", KIND_CODE}};

/* How often a data set's rows are repeated in the benchmark; others once. */
static const struct {
    const char *name;
    int n;
} repeats[] = {{"aime25", 8}, {"gpqa_diamond", 5}, {"livecodebench_v6", 3}};

struct set {
    char name[64];
    enum kind kind;
    int repeat;
    int64_t correct, total, skipped;
};

struct result {
    int64_t seq_id, qsl_idx;
    int set;
    char *extracted; /* or NULL */
    char *output;    /* the text, when asked for; or NULL */
    int32_t *ids;    /* [n_ids] the same */
    size_t n_ids;
    bool correct, skipped;
    char *details;
};

struct scorer {
    const struct mlperf_accuracy *o;
    const gloss_model *m;
    struct set set[SETS_MAX];
    int n_set;
    struct result *result; /* [n] */
    size_t n, cap;
    struct buf text, scratch, programs;
    size_t *program; /* [n_program] results that the grader judges */
    size_t n_program, cap_program;
};

/* ---- data sets ---- */

static status find_set(struct scorer *s, const char *dataset, int *set, struct err *e)
{
    struct set *t = &s->set[s->n_set];
    size_t n = 0, k;
    for (; dataset[n] && n + 1 < sizeof t->name; n++)
        t->name[n] =
            (char)(dataset[n] >= 'A' && dataset[n] <= 'Z' ? dataset[n] | 0x20 : dataset[n]);
    t->name[n] = 0;
    for (*set = 0; *set < s->n_set; ++*set)
        if (strcmp(s->set[*set].name, t->name) == 0)
            return OK;
    for (k = 0; k < sizeof kinds / sizeof kinds[0] && !strstr(t->name, kinds[k].word); k++) {
    }
    if (k == sizeof kinds / sizeof kinds[0])
        return err_set(e, E_INPUT,
                       "no rule for the data set '%.60s'; known are gpqa, mmlu, aime and "
                       "livecodebench",
                       dataset);
    if (s->n_set + 1 == SETS_MAX)
        return err_set(e, E_LIMIT, "more than %d data sets", SETS_MAX - 1);
    t->kind = kinds[k].kind;
    t->repeat = 1;
    for (size_t i = 0; i < sizeof repeats / sizeof repeats[0]; i++)
        if (strcmp(repeats[i].name, t->name) == 0)
            t->repeat = repeats[i].n;
    s->n_set++;
    return OK;
}

/* ---- one answer ---- */

/* A ground truth as an integer: "025", "25", "25.0". */
static bool truth_integer(const char *text, int *v)
{
    double d;
    struct span t = rule_trim((struct span){text, strlen(text)});
    char copy[32];
    if (t.n == 0 || t.n >= sizeof copy)
        return false;
    memcpy(copy, t.p, t.n);
    copy[t.n] = 0;
    char *end;
    d = strtod(copy, &end);
    if (*end || d < 0 || d > 1e6 || d != (double)(int)d)
        return false;
    *v = (int)d;
    return true;
}

static bool same_letter(char c, const char *truth)
{
    return truth[0] && !truth[1] && (truth[0] & ~0x20) == c;
}

/* Extracts; for all but code also judges. */
static void judge(struct scorer *s, struct result *r, const char *truth)
{
    struct span text = {s->text.p, s->text.n}, code;
    char number[16];
    int v, want;
    switch (s->set[r->set].kind) {
    case KIND_CHOICE_D:
    case KIND_CHOICE_J:
        number[0] =
            rule_choice(text, s->set[r->set].kind == KIND_CHOICE_D ? 'D' : 'J', &s->scratch);
        number[1] = 0;
        r->extracted = number[0] ? mem_strdup(number) : NULL;
        r->correct = number[0] && truth && same_letter(number[0], truth);
        break;
    case KIND_INTEGER:
        v = rule_integer(text);
        snprintf(number, sizeof number, "%d", v);
        r->extracted = v >= 0 ? mem_strdup(number) : NULL;
        r->correct = v >= 0 && truth && truth_integer(truth, &want) && want == v;
        break;
    default:
        code = rule_code(text);
        r->extracted = code.p ? mem_strndup(code.p, code.n) : NULL;
    }
}

static char *explain(const struct result *r, const char *truth)
{
    char line[256];
    if (!r->extracted)
        return mem_strdup("No answer extracted from model output");
    if (!truth)
        return mem_strdup("No ground truth available");
    if (r->correct)
        return mem_strdup("Correct");
    snprintf(line, sizeof line, "Incorrect (extracted: %.80s, ground_truth: %.80s)", r->extracted,
             truth);
    return mem_strdup(line);
}

static status add_program(struct scorer *s, size_t i, const char *question)
{
    if (s->n_program == s->cap_program) {
        size_t cap = s->cap_program ? 2 * s->cap_program : 256;
        size_t *p = mem_realloc_array(s->program, cap, sizeof *p);
        if (!p)
            return E_NOMEM;
        s->program = p;
        s->cap_program = cap;
    }
    s->program[s->n_program++] = i;
    buf_puts(&s->programs, "{\"question_id\":");
    json_quote(&s->programs, question, strlen(question));
    buf_puts(&s->programs, ",\"code\":");
    json_quote(&s->programs, s->result[i].extracted, strlen(s->result[i].extracted));
    buf_puts(&s->programs, "}\n");
    return buf_status(&s->programs);
}

static status add_result(struct scorer *s, struct err *e)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 1024;
        struct result *p = mem_realloc_array(s->result, cap, sizeof *p);
        if (!p)
            return err_set(e, E_NOMEM, "out of memory");
        s->result = p;
        s->cap = cap;
    }
    s->result[s->n++] = (struct result){0};
    return OK;
}

static status keep_output(const struct scorer *s, struct result *r, const struct acclog_entry *a)
{
    r->output = mem_strndup(s->text.p, s->text.n);
    r->ids = mem_array(a->n_ids, sizeof *r->ids);
    if (!r->output || !r->ids)
        return E_NOMEM;
    if (a->n_ids)
        memcpy(r->ids, a->ids, a->n_ids * sizeof *r->ids);
    return OK;
}

static status take(void *ctx, const struct acclog_entry *a, struct err *e)
{
    struct scorer *s = ctx;
    const struct rows *rows = s->o->rows;
    status st = OK;
    if (a->qsl_idx >= (int64_t)rows->n)
        return err_set(e, E_INPUT,
                       "it answers row %lld of a data set of %zu rows: is --reference-data the one "
                       "of the run?",
                       (long long)a->qsl_idx, rows->n);
    const struct row *row = &rows->row[a->qsl_idx];
    TRY(add_result(s, e));
    struct result *r = &s->result[s->n - 1];
    r->seq_id = a->seq_id;
    r->qsl_idx = a->qsl_idx;
    r->n_ids = a->n_ids;
    TRY(find_set(s, row->dataset, &r->set, e));
    struct set *set = &s->set[r->set];
    if (set->kind == KIND_CODE && s->o->skip_lcb) {
        r->skipped = true;
        set->skipped++;
    }
    buf_clear(&s->text);
    detok(&s->text, s->m, a->ids, a->n_ids, false);
    TRY(buf_status(&s->text));
    judge(s, r, row->ground_truth);
    TRY(buf_status(&s->scratch));
    if (s->o->save_outputs)
        TRY(keep_output(s, r, a));
    if (set->kind == KIND_CODE && !r->skipped && r->extracted && row->ground_truth)
        TRY(add_program(s, s->n - 1, row->ground_truth));
    else
        r->details = r->skipped ? mem_strdup("Skipped") : explain(r, row->ground_truth);
out:
    return st < 0 && !e->msg[0] ? err_set(e, st, "out of memory") : st;
}

/* ---- programs ---- */

static status read_verdicts(struct scorer *s, const struct buf *b, struct err *e)
{
    const char *p = b->p, *end = p + b->n;
    size_t i = 0;
    for (; p < end && i < s->n_program; i++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p)), *stop = nl ? nl : end;
        struct json *root = NULL;
        struct err je = {0};
        const char *details = "";
        struct result *r = &s->result[s->program[i]];
        status st = json_parse(p, (size_t)(stop - p), &json_limits_file, &root, &je);
        if (st == OK)
            st = json_get_bool(root, "passed", &r->correct, &je);
        if (st == OK)
            st = json_get_str(root, "details", &details, &je);
        bool said = st == OK && !json_absent(json_get(root, "passed"));
        r->details = mem_strdup(details);
        json_free(root);
        if (!said)
            return err_set(e, E_INPUT,
                           "line %zu of the grader is not {\"passed\":true|false,\"details\":text}",
                           i + 1);
        p = stop + (nl != NULL);
    }
    if (i < s->n_program)
        return err_set(e, E_INPUT, "the grader judged %zu of %zu programs", i, s->n_program);
    return OK;
}

static status grade_programs(struct scorer *s, struct err *e)
{
    struct buf verdicts;
    status st = OK;
    buf_init(&verdicts, TEXT_BYTES_MAX);
    if (s->n_program) {
        if (!s->o->grader)
            TRY(err_set(e, E_INPUT,
                        "%zu programs need a grader: give --lcb-grader COMMAND, or --skip-lcb to "
                        "score without them",
                        s->n_program));
        TRY(grader_run(s->o->grader, &s->programs, &verdicts, e));
        TRY(read_verdicts(s, &verdicts, e));
    }
    for (size_t i = 0; i < s->n; i++) {
        struct result *r = &s->result[i];
        if (r->skipped)
            continue;
        s->set[r->set].total++;
        s->set[r->set].correct += r->correct;
    }
out:
    buf_fini(&verdicts);
    return st;
}

/* ---- what comes out ---- */

static int by_name(const void *a, const void *b)
{
    const struct set *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static double share(int64_t part, int64_t whole)
{
    return whole ? (double)part / (double)whole * 100 : 0;
}

static void sum_up(const struct scorer *s, struct mlperf_score *t)
{
    *t = (struct mlperf_score){0};
    for (int i = 0; i < s->n_set; i++) {
        const struct set *set = &s->set[i];
        t->n_correct += set->correct;
        t->n_total += set->total;
        t->score += (double)set->correct / set->repeat;
        t->max_score += (double)set->total / set->repeat;
    }
    t->percent = t->max_score > 0 ? t->score / t->max_score * 100 : 0;
}

static void put_report(const struct scorer *s, const struct set *sorted,
                       const struct mlperf_score *t, struct buf *b)
{
    buf_printf(b, "Samples: %lld, correct %lld (%.2f%%)\n\n", (long long)t->n_total,
               (long long)t->n_correct, share(t->n_correct, t->n_total));
    buf_printf(b, "%-24s %8s %8s %8s %10s %10s\n", "dataset", "correct", "total", "repeats",
               "score", "accuracy");
    for (int i = 0; i < s->n_set; i++) {
        const struct set *set = &sorted[i];
        buf_printf(b, "%-24s %8lld %8lld %8d %10.2f %9.2f%%", set->name, (long long)set->correct,
                   (long long)set->total, set->repeat, (double)set->correct / set->repeat,
                   share(set->correct, set->total));
        if (set->skipped)
            buf_printf(b, "  %lld skipped", (long long)set->skipped);
        buf_puts(b, "\n");
    }
    buf_printf(b, "\nFINAL SCORE: %.2f%% (%.2f/%.2f)\n\n'exact_match': %.3f\n", t->percent,
               t->score, t->max_score, t->percent);
}

static void put_text(struct buf *b, const char *s)
{
    if (s)
        json_quote(b, s, strlen(s));
    else
        buf_puts(b, "null");
}

static void put_summary(const struct scorer *s, const struct set *sorted,
                        const struct mlperf_score *t, struct buf *b)
{
    buf_printf(b, "{\"summary\":{\"total_samples\":%lld,\"total_correct\":%lld",
               (long long)t->n_total, (long long)t->n_correct);
    buf_puts(b, ",\"overall_accuracy\":");
    json_put_num(b, share(t->n_correct, t->n_total));
    buf_puts(b, ",\"final_score\":");
    json_put_num(b, t->score);
    buf_puts(b, ",\"max_score\":");
    json_put_num(b, t->max_score);
    buf_puts(b, ",\"final_score_percentage\":");
    json_put_num(b, t->percent);
    buf_puts(b, ",\"dataset_repeats\":{");
    for (size_t i = 0; i < sizeof repeats / sizeof repeats[0]; i++)
        buf_printf(b, "%s\"%s\":%d", i ? "," : "", repeats[i].name, repeats[i].n);
    buf_puts(b, "},\"per_dataset\":{");
    for (int i = 0; i < s->n_set; i++) {
        const struct set *set = &sorted[i];
        if (i)
            buf_putc(b, ',');
        put_text(b, set->name);
        buf_printf(b, ":{\"correct\":%lld,\"total\":%lld,\"accuracy\":", (long long)set->correct,
                   (long long)set->total);
        json_put_num(b, share(set->correct, set->total));
        buf_printf(b, ",\"repeats\":%d,\"component_score\":", set->repeat);
        json_put_num(b, (double)set->correct / set->repeat);
        buf_puts(b, ",\"max_component_score\":");
        json_put_num(b, (double)set->total / set->repeat);
        buf_printf(b, ",\"skipped\":%lld}", (long long)set->skipped);
    }
    buf_puts(b, "}},\"detailed_results\":[");
}

static status write_json(const struct scorer *s, const struct set *sorted,
                         const struct mlperf_score *t, struct err *e)
{
    struct buf b;
    status st = OK;
    buf_init(&b, TEXT_BYTES_MAX);
    put_summary(s, sorted, t, &b);
    for (size_t i = 0; i < s->n; i++) {
        const struct result *r = &s->result[i];
        size_t n = r->extracted ? strlen(r->extracted) : 0;
        struct buf cut;
        buf_init(&cut, 8 * PREVIEW);
        detok_utf8(&cut, r->extracted ? r->extracted : "", n < PREVIEW ? n : PREVIEW);
        buf_printf(&b, "%s\n{\"seq_id\":%lld,\"qsl_idx\":%lld,\"dataset\":", i ? "," : "",
                   (long long)r->seq_id, (long long)r->qsl_idx);
        put_text(&b, s->set[r->set].name);
        buf_printf(&b, ",\"is_correct\":%s,\"extracted_answer\":", r->correct ? "true" : "false");
        put_text(&b, r->extracted ? cut.p : NULL);
        buf_puts(&b, ",\"ground_truth\":");
        put_text(&b, s->o->rows->row[r->qsl_idx].ground_truth);
        buf_puts(&b, ",\"evaluation_details\":");
        put_text(&b, r->details);
        buf_printf(&b, ",\"token_count\":%zu}", r->n_ids);
        buf_fini(&cut);
    }
    buf_puts(&b, "\n]}\n");
    TRY(buf_status(&b));
    TRY(file_save(s->o->output_file, b.p, b.n, e));
out:
    buf_fini(&b);
    return st < 0 && !e->msg[0] ? err_set(e, st, "the results are too large") : st;
}

static int by_row(const void *a, const void *b)
{
    const struct result *x = a, *y = b;
    if (x->qsl_idx != y->qsl_idx)
        return x->qsl_idx < y->qsl_idx ? -1 : 1;
    return x->seq_id < y->seq_id ? -1 : x->seq_id > y->seq_id;
}

/* Sorts the results by row. */
static status write_outputs(struct scorer *s, struct err *e)
{
    struct file_new w = {0};
    struct buf b;
    status st = OK;
    buf_init(&b, TEXT_BYTES_MAX);
    TRY(file_begin(&w, s->o->save_outputs, e));
    qsort(s->result, s->n, sizeof *s->result, by_row);
    for (size_t i = 0; i < s->n; i++) {
        const struct result *r = &s->result[i];
        buf_clear(&b);
        buf_printf(&b, "{\"qsl_idx\":%lld,\"seq_id\":%lld,\"dataset\":", (long long)r->qsl_idx,
                   (long long)r->seq_id);
        put_text(&b, s->set[r->set].name);
        buf_puts(&b, ",\"ground_truth\":");
        put_text(&b, s->o->rows->row[r->qsl_idx].ground_truth);
        buf_puts(&b, ",\"model_output\":");
        put_text(&b, r->output);
        buf_puts(&b, ",\"output_token_ids\":[");
        for (size_t k = 0; k < r->n_ids; k++)
            buf_printf(&b, k ? ",%d" : "%d", r->ids[k]);
        buf_puts(&b, "],\"extracted_answer\":");
        put_text(&b, r->extracted);
        buf_printf(&b, ",\"is_correct\":%s,\"evaluation_details\":", r->correct ? "true" : "false");
        put_text(&b, r->details);
        buf_puts(&b, "}\n");
        TRY(buf_status(&b));
        file_write(&w, b.p, b.n);
    }
    TRY(file_commit(&w, e));
out:
    file_abort(&w);
    buf_fini(&b);
    return st < 0 && !e->msg[0] ? err_set(e, st, "an output is too large") : st;
}

status mlperf_accuracy(const gloss_model *m, const struct mlperf_accuracy *o,
                       struct mlperf_score *score, struct buf *report, struct err *e)
{
    struct set sorted[SETS_MAX];
    size_t n;
    status st = OK;
    struct scorer *s = mem_calloc(1, sizeof *s);
    if (!s)
        return err_set(e, E_NOMEM, "out of memory");
    s->o = o;
    s->m = m;
    buf_init(&s->text, TEXT_BYTES_MAX);
    buf_init(&s->scratch, TEXT_BYTES_MAX);
    buf_init(&s->programs, TEXT_BYTES_MAX);
    TRY(acclog_read(o->log, take, s, &n, e));
    TRY(grade_programs(s, e));
    sum_up(s, score);
    memcpy(sorted, s->set, sizeof sorted);
    qsort(sorted, (size_t)s->n_set, sizeof *sorted, by_name);
    put_report(s, sorted, score, report);
    if (o->output_file)
        TRY(write_json(s, sorted, score, e));
    if (o->save_outputs)
        TRY(write_outputs(s, e));
out:
    for (size_t i = 0; i < s->n; i++) {
        mem_free(s->result[i].extracted);
        mem_free(s->result[i].output);
        mem_free(s->result[i].ids);
        mem_free(s->result[i].details);
    }
    mem_free(s->result);
    mem_free(s->program);
    buf_fini(&s->text);
    buf_fini(&s->scratch);
    buf_fini(&s->programs);
    mem_free(s);
    return st;
}
