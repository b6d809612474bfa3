/* The tasks with short answers: how their prompts are built from a row, and how an answer is
 * scored. Prompts are byte for byte those of the published harnesses (gpt-oss's evals for gpqa and
 * aime25, lm-eval for mmlu and gsm8k), because scores are only comparable then. HealthBench and
 * safety have files of their own.
 */
#include "base/mem.h"
#include "eval/job.h"
#include "eval/mt19937.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char letters[] = "ABCD";

char *job_text(struct job *j, const char *s, size_t n)
{
    return arena_strndup(&j->mem, s, n);
}

static status no_memory(struct err *e)
{
    return err_set(e, E_NOMEM, "out of memory for the questions");
}

static status lacks(const struct item *it, const char *key, struct err *e)
{
    return err_set(e, E_INPUT, "row %d of the data has no usable \"%s\"", it->i_row + 1, key);
}

static MUST_USE status member(const struct item *it, const char *key, const char **s, size_t *n,
                              struct err *e)
{
    *s = dataset_text(it->row, key, n);
    return *s ? OK : lacks(it, key, e);
}

/* A JSON string in a CSV cell, or the array itself, as choices. Python's list text is taken too:
 * it differs from JSON in its quotes. */
static MUST_USE status four_choices(struct job *j, struct item *it, const struct json *row,
                                    const char **out, struct err *e)
{
    const struct json *list = json_get(row, "choices");
    for (int i = 0; i < 4; i++) {
        char key[2] = {letters[i], 0};
        size_t n;
        const struct json *c = json_kind(list) == J_ARR ? json_at(list, (size_t)i) : NULL;
        const char *s = json_kind(c) == J_STR ? json_str(c, &n) : dataset_text(row, key, &n);
        if (!s)
            return lacks(it, "choices", e);
        out[i] = job_text(j, s, n);
        if (!out[i])
            return no_memory(e);
    }
    return OK;
}

/* "answer" as 0-3 or A-D. */
static MUST_USE status letter_of(const struct item *it, const struct json *row, int *i,
                                 struct err *e)
{
    const struct json *a = json_get(row, "answer");
    size_t n;
    const char *s = dataset_text(row, "answer", &n);
    int64_t v = -1;
    if (json_kind(a) == J_INT)
        v = json_int(a);
    else if (s && n == 1 && *s >= 'A' && *s <= 'D')
        v = *s - 'A';
    else if (s && n == 1 && *s >= '0' && *s <= '3')
        v = *s - '0';
    if (v < 0 || v > 3)
        return err_set(e, E_INPUT, "row %d of the data: \"answer\" must be 0 to 3 or A to D",
                       it->i_row + 1);
    *i = (int)v;
    return OK;
}

/* messages = [developer text, if any; the prompt]. */
static MUST_USE status set_prompt(struct job *j, struct item *it, const char *developer,
                                  const struct buf *prompt, struct err *e)
{
    struct buf b;
    buf_init(&b, (size_t)1 << 30);
    buf_putc(&b, '[');
    if (developer) {
        buf_puts(&b, "{\"role\":\"developer\",\"content\":");
        json_quote(&b, developer, strlen(developer));
        buf_puts(&b, "},");
    }
    buf_puts(&b, "{\"role\":\"user\",\"content\":");
    json_quote(&b, prompt->p, prompt->n);
    buf_puts(&b, "}]");
    it->prompt = job_text(j, prompt->p, prompt->n);
    it->messages = job_text(j, b.p, b.n);
    bool ok = it->prompt && it->messages && b.st == OK && prompt->st == OK;
    buf_fini(&b);
    return ok ? OK : no_memory(e);
}

/* ---- which rows ---- */

/* The first rows, or with gpt-oss's harness a Python sample, each n_repeat times: the whole list
 * again and again. */
status job_take_rows(struct job *j, struct mt19937 *r, struct err *e)
{
    int n = j->rows.n, k = n;
    if (j->o->n_example > 0 && j->o->n_example < n)
        k = j->o->n_example;
    int *pick = arena_array(&j->mem, (size_t)n, sizeof *pick);
    j->item = arena_array(&j->mem, (size_t)k * (size_t)j->n_repeat, sizeof *j->item);
    if (!pick || !j->item)
        return no_memory(e);
    memset(j->item, 0, (size_t)k * (size_t)j->n_repeat * sizeof *j->item);
    for (int i = 0; i < n; i++)
        pick[i] = i;
    if (r && j->o->n_example > 0 && mt_sample(r, n, k, pick) < 0)
        return no_memory(e);
    for (int rep = 0; rep < j->n_repeat; rep++)
        for (int i = 0; i < k; i++) {
            struct item *it = &j->item[j->n++];
            it->i_row = pick[i];
            it->repeat = rep;
            it->row = j->rows.row[pick[i]];
            it->group = it->gold = it->pred = it->pred2 = "";
        }
    return OK;
}

/* ---- letters: tinymmlu, mmlu ---- */

static void put_question(struct buf *b, const char *q, size_t n, const char *const *choice)
{
    buf_put(b, q, n);
    buf_putc(b, '\n');
    for (int i = 0; i < 4; i++)
        buf_printf(b, "%c. %s\n", letters[i], choice[i]);
    buf_puts(b, "Answer:");
}

/* Python's str.strip() of ASCII whitespace. */
static void trimmed(const char **s, size_t *n)
{
    while (*n && strchr(" \t\n\v\f\r", **s))
        (*s)++, (*n)--;
    while (*n && strchr(" \t\n\v\f\r", (*s)[*n - 1]))
        (*n)--;
}

static const char *group_of(struct job *j, const struct json *row)
{
    size_t n;
    const char *s = dataset_text(row, "subject", &n);
    return s ? job_text(j, s, n) : "";
}

static MUST_USE status set_letter_gold(struct job *j, struct item *it, struct err *e)
{
    static const char *const names[] = {"A", "B", "C", "D"};
    static const char *const spaced[] = {" A", " B", " C", " D"};
    status st = letter_of(it, it->row, &it->i_gold, e);
    if (st < 0)
        return st;
    it->gold = names[it->i_gold];
    it->group = group_of(j, it->row);
    it->n_choice = 4;
    for (int i = 0; i < 4; i++)
        it->choice[i] = j->o->final_prefix ? names[i] : spaced[i];
    return it->group ? OK : no_memory(e);
}

static status tinymmlu_build(struct job *j, struct err *e)
{
    static const char developer[] =
        "Answer in plain text without Markdown. Think as long as you need, then end with one line "
        "of the form \"Answer: X\", where X is the letter of the right choice.";
    struct buf b;
    buf_init(&b, 1 << 28);
    status st = OK;
    TRY(job_take_rows(j, NULL, e));
    for (int i = 0; i < j->n; i++) {
        struct item *it = &j->item[i];
        size_t n;
        const char *s;
        buf_clear(&b);
        TRY(set_letter_gold(j, it, e));
        if (j->o->plain_question) {
            const char *choice[4];
            TRY(member(it, "question", &s, &n, e));
            TRY(four_choices(j, it, it->row, choice, e));
            put_question(&b, s, n, choice);
        } else {
            TRY(member(it, "input_formatted", &s, &n, e));
            buf_put(&b, s, n);
        }
        TRY(set_prompt(j, it, j->method == EVAL_GENERATE ? developer : NULL, &b, e));
    }
out:
    buf_fini(&b);
    return st;
}

static MUST_USE status set_pred(struct job *j, const char **to, const struct buf *b, struct err *e)
{
    *to = job_text(j, b->p, b->n);
    return *to && b->st == OK ? OK : no_memory(e);
}

/* The likeliest choice; the first of equal ones. */
static void score_choices(struct item *it)
{
    int best = 0, norm = 0;
    double best_norm = -INFINITY;
    for (int i = 0; i < it->n_choice; i++) {
        size_t n = strlen(it->choice[i]);
        const char *s = it->choice[i];
        if (*s == ' ') /* lm-eval counts the choice, not its delimiter */
            s++, n--;
        double v = it->lp[i] / (double)files_chars(s);
        if (it->lp[i] > it->lp[best])
            best = i;
        if (v > best_norm) {
            best_norm = v;
            norm = i;
        }
    }
    const char *s = it->choice[best];
    it->pred = *s == ' ' ? s + 1 : s;
    it->metric[0] = best == it->i_gold;
    it->metric[1] = norm == it->i_gold;
}

static status tinymmlu_score(struct job *j, struct item *it, struct err *e)
{
    if (j->method == EVAL_LOGLIKELIHOOD) {
        score_choices(it);
        return OK;
    }
    struct buf b;
    buf_init(&b, 64);
    extract_tinymmlu(j->x, it->final, strlen(it->final), &b);
    status st = set_pred(j, &it->pred, &b, e);
    buf_fini(&b);
    it->no_answer = st == OK && strcmp(it->pred, "?") == 0;
    it->metric[0] = st == OK && strcmp(it->pred, it->gold) == 0;
    return st;
}

static void put_description(struct buf *b, const char *subject)
{
    buf_puts(b, "The following are multiple choice questions (with answers) about ");
    for (const char *s = subject; *s; s++)
        buf_putc(b, *s == '_' ? ' ' : *s);
    buf_puts(b, ".\n\n");
}

/* The first n_shot examples of the subject, each with its letter. */
static MUST_USE status put_mmlu_shots(struct job *j, struct item *it, struct buf *b, struct err *e)
{
    int k = 0;
    for (int i = 0; i < j->shots.n && k < j->n_shot; i++) {
        const struct json *row = j->shots.row[i];
        const char *choice[4];
        size_t n, n_subject;
        const char *s = dataset_text(row, "question", &n);
        const char *subject = dataset_text(row, "subject", &n_subject);
        if (subject && strcmp(subject, it->group) != 0)
            continue;
        if (!s)
            return err_set(e, E_INPUT, "row %d of the examples has no \"question\"", i + 1);
        int letter;
        status st = four_choices(j, it, row, choice, e);
        if (st == OK)
            st = letter_of(it, row, &letter, e);
        if (st < 0)
            return st;
        trimmed(&s, &n);
        put_question(b, s, n, choice);
        buf_printf(b, " %c\n\n", letters[letter]);
        k++;
    }
    return k == j->n_shot
               ? OK
               : err_set(e, E_INPUT, "%d examples of '%.60s' are wanted, and there are %d",
                         j->n_shot, it->group, k);
}

static status mmlu_build(struct job *j, struct err *e)
{
    struct buf b;
    buf_init(&b, 1 << 28);
    status st = OK;
    TRY(job_take_rows(j, NULL, e));
    for (int i = 0; i < j->n; i++) {
        struct item *it = &j->item[i];
        const char *choice[4], *s;
        size_t n;
        buf_clear(&b);
        TRY(set_letter_gold(j, it, e));
        if (*it->group)
            put_description(&b, it->group);
        TRY(put_mmlu_shots(j, it, &b, e));
        TRY(member(it, "question", &s, &n, e));
        TRY(four_choices(j, it, it->row, choice, e));
        trimmed(&s, &n);
        put_question(&b, s, n, choice);
        TRY(set_prompt(j, it, NULL, &b, e));
    }
out:
    buf_fini(&b);
    return st;
}

/* Generated: the first line without blanks around it, punctuation and case not counting. */
static status mmlu_score(struct job *j, struct item *it, struct err *e)
{
    if (j->method == EVAL_LOGLIKELIHOOD) {
        score_choices(it);
        return OK;
    }
    const char *s = it->final;
    size_t n = strcspn(s, "\n");
    trimmed(&s, &n);
    struct buf b;
    buf_init(&b, 1 << 20);
    for (size_t i = 0; i < n; i++)
        if (!strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", s[i]))
            buf_putc(&b, s[i] >= 'a' && s[i] <= 'z' ? (char)(s[i] - 'a' + 'A') : s[i]);
    status st = set_pred(j, &it->pred, &b, e);
    buf_fini(&b);
    if (st < 0)
        return st;
    it->metric[0] = strcmp(it->pred, it->gold) == 0;
    it->no_answer = strlen(it->pred) != 1 || !strchr(letters, it->pred[0]);
    return OK;
}

/* ---- gsm8k ---- */

static MUST_USE status put_gsm8k(struct job *j, const struct json *row, bool cot, bool answer,
                                 int i_row, struct buf *b, struct err *e)
{
    size_t n, k;
    const char *q = dataset_text(row, "question", &n);
    const char *a = dataset_text(row, cot ? "target" : "answer", &k);
    if (cot && !a)
        a = dataset_text(row, "answer", &k);
    (void)j;
    if (!q || !a)
        return err_set(e, E_INPUT, "row %d has no \"%s\"", i_row + 1, q ? "answer" : "question");
    buf_puts(b, cot ? "Q: " : "Question: ");
    buf_put(b, q, n);
    buf_puts(b, cot ? "\n\nA:" : "\nAnswer:");
    if (answer) {
        buf_putc(b, ' ');
        buf_put(b, a, k);
        buf_puts(b, "\n\n");
    }
    return OK;
}

static MUST_USE status gsm8k(struct job *j, bool cot, struct err *e)
{
    struct buf b;
    struct mt19937 r;
    int *pick = NULL;
    buf_init(&b, 1 << 28);
    mt_seed(&r, 1234); /* lm-eval's seed of examples */
    status st = OK;
    TRY(job_take_rows(j, NULL, e));
    if (j->n_shot > j->shots.n) {
        st = err_set(e, E_INPUT, "%d examples are wanted, and there are %d (--fewshot-data)",
                     j->n_shot, j->shots.n);
        goto out;
    }
    pick = mem_array((size_t)j->n_shot + 1, sizeof *pick);
    if (!pick) {
        st = no_memory(e);
        goto out;
    }
    for (int k = 0; k < j->n_shot; k++)
        pick[k] = k;
    for (int i = 0; i < j->n; i++) {
        struct item *it = &j->item[i];
        size_t n;
        const char *a = dataset_text(it->row, "answer", &n);
        buf_clear(&b);
        if (j->o->shots_random)
            TRY(mt_sample(&r, j->shots.n, j->n_shot, pick));
        for (int k = 0; k < j->n_shot; k++)
            TRY(put_gsm8k(j, j->shots.row[pick[k]], cot, true, pick[k], &b, e));
        TRY(put_gsm8k(j, it->row, cot, false, it->i_row, &b, e));
        TRY(a ? OK : lacks(it, "answer", e));
        it->gold = job_text(j, a, n);
        TRY(it->gold ? OK : no_memory(e));
        TRY(set_prompt(j, it, NULL, &b, e));
    }
out:
    mem_free(pick);
    buf_fini(&b);
    return st;
}

static status gsm8k_build(struct job *j, struct err *e)
{
    return gsm8k(j, false, e);
}

static status gsm8k_cot_build(struct job *j, struct err *e)
{
    return gsm8k(j, true, e);
}

static status gsm8k_score(struct job *j, struct item *it, struct err *e)
{
    struct buf strict, loose;
    buf_init(&strict, 1 << 20);
    buf_init(&loose, 1 << 20);
    size_t n = strlen(it->final);
    bool cot = strcmp(j->task->name, "gsm8k_cot") == 0;
    (cot ? extract_gsm8k_cot : extract_gsm8k_strict)(j->x, it->final, n, &strict);
    extract_gsm8k_flexible(j->x, it->final, n, &loose);
    status st = set_pred(j, &it->pred, &loose, e);
    if (st == OK)
        st = set_pred(j, &it->pred2, &strict, e);
    if (st == OK) {
        it->metric[0] = extract_gsm8k_same(j->x, it->pred, it->gold);
        it->metric[1] = extract_gsm8k_same(j->x, it->pred2, it->gold);
        it->no_answer = strcmp(it->pred, "[invalid]") == 0;
    }
    buf_fini(&strict);
    buf_fini(&loose);
    return st;
}

/* ---- gpqa, aime25: gpt-oss's harness ---- */

static status gpqa_build(struct job *j, struct err *e)
{
    static const char *const key[] = {"Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2",
                                      "Incorrect Answer 3"};
    struct mt19937 r;
    struct buf b;
    mt_seed(&r, 0);
    buf_init(&b, 1 << 28);
    status st = OK;
    TRY(job_take_rows(j, &r, e));
    for (int i = 0; i < j->n; i++) {
        struct item *it = &j->item[i];
        const char *s, *right = NULL;
        size_t n, n_right = 0;
        int order[4];
        buf_clear(&b);
        TRY(mt_sample(&r, 4, 4, order));
        TRY(member(it, "Question", &s, &n, e));
        buf_put(&b, s, n);
        buf_puts(&b, "\n\n");
        TRY(member(it, key[0], &right, &n_right, e));
        it->i_gold = -1;
        for (int k = 0; k < 4; k++) {
            TRY(member(it, key[order[k]], &s, &n, e));
            buf_printf(&b, "(%c) ", letters[k]);
            buf_put(&b, s, n);
            buf_putc(&b, '\n');
            /* the first that reads like the right one, as list.index finds it */
            if (it->i_gold < 0 && n == n_right && memcmp(s, right, n) == 0)
                it->i_gold = k;
        }
        buf_puts(&b, "\nExpress your final answer as the corresponding option "
                     "'A', 'B', 'C', or 'D'.");
        it->gold = job_text(j, &letters[it->i_gold], 1);
        TRY(it->gold ? OK : no_memory(e));
        TRY(set_prompt(j, it, NULL, &b, e));
    }
out:
    buf_fini(&b);
    return st;
}

static status gpqa_score(struct job *j, struct item *it, struct err *e)
{
    struct buf b;
    buf_init(&b, 64);
    extract_abcd(j->x, it->final, strlen(it->final), &b);
    status st = set_pred(j, &it->pred, &b, e);
    buf_fini(&b);
    if (st < 0)
        return st;
    it->no_answer = !*it->pred || !strchr(letters, *it->pred);
    it->metric[0] = strcmp(it->pred, it->gold) == 0;
    return OK;
}

static status aime_build(struct job *j, struct err *e)
{
    struct mt19937 r;
    struct buf b;
    mt_seed(&r, 0);
    buf_init(&b, 1 << 28);
    status st = OK;
    TRY(job_take_rows(j, &r, e));
    for (int i = 0; i < j->n; i++) {
        struct item *it = &j->item[i];
        const struct json *answer = json_get(it->row, "answer");
        const char *s;
        size_t n;
        char text[32];
        buf_clear(&b);
        TRY(member(it, "question", &s, &n, e));
        buf_putc(&b, '\n');
        buf_put(&b, s, n);
        buf_puts(&b, "\nPlease reason step by step, and put your final answer within \\boxed{}.\n");
        if (json_kind(answer) == J_INT) {
            it->gold_int = json_int(answer);
        } else { /* leading digits, as in 336^\circ */
            TRY(member(it, "answer", &s, &n, e));
            size_t k = strspn(s, "0123456789");
            TRY(extract_int(s, k, &it->gold_int) ? OK : lacks(it, "answer", e));
        }
        int k = snprintf(text, sizeof text, "%lld", (long long)it->gold_int);
        it->gold = job_text(j, text, (size_t)k);
        TRY(it->gold ? OK : no_memory(e));
        TRY(set_prompt(j, it, NULL, &b, e));
    }
out:
    buf_fini(&b);
    return st;
}

static status aime_score(struct job *j, struct item *it, struct err *e)
{
    struct buf b;
    int64_t v = 0;
    buf_init(&b, 1 << 20);
    extract_boxed(j->x, it->final, strlen(it->final), &b);
    bool number = extract_int(b.p, b.n, &v);
    status st = OK;
    if (number)
        st = set_pred(j, &it->pred, &b, e);
    buf_fini(&b);
    it->no_answer = !number;
    it->metric[0] = number && v == it->gold_int;
    return st;
}

/* ---- the table ---- */

static const char *const stop_gsm8k[] = {"Question:", "</s>", "<|im_end|>"};
static const char *const stop_cot[] = {"Q:", "</s>", "<|im_end|>"};
static const char *const stop_line[] = {"</s>", "\n"};

#define ACC "acc,none"
#define MATCH "exact_match,flexible-extract"
const struct task task_table[] = {
    {"tinymmlu",
     1,
     0,
     2048,
     0,
     EVAL_GENERATE,
     FILES_LM_EVAL,
     2,
     true,
     {ACC, "acc_norm,none"},
     NULL,
     0,
     tinymmlu_build,
     tinymmlu_score},
    {"mmlu",
     1,
     0,
     2048,
     0,
     EVAL_LOGLIKELIHOOD,
     FILES_LM_EVAL,
     2,
     true,
     {ACC, "acc_norm,none"},
     stop_line,
     2,
     mmlu_build,
     mmlu_score},
    {"gsm8k",
     1,
     0,
     2048,
     5,
     EVAL_GENERATE,
     FILES_LM_EVAL,
     2,
     false,
     {MATCH, "exact_match,strict-match"},
     stop_gsm8k,
     3,
     gsm8k_build,
     gsm8k_score},
    {"gsm8k_cot",
     1,
     0,
     2048,
     8,
     EVAL_GENERATE,
     FILES_LM_EVAL,
     2,
     false,
     {MATCH, "exact_match,strict-match"},
     stop_cot,
     3,
     gsm8k_cot_build,
     gsm8k_score},
    {"gpqa",
     8,
     1,
     131072,
     0,
     EVAL_GENERATE,
     FILES_GPT_OSS,
     1,
     false,
     {"score"},
     NULL,
     0,
     gpqa_build,
     gpqa_score},
    {"aime25",
     8,
     1,
     131072,
     0,
     EVAL_GENERATE,
     FILES_GPT_OSS,
     1,
     false,
     {"score"},
     NULL,
     0,
     aime_build,
     aime_score},
    {"healthbench",
     1,
     1,
     131072,
     0,
     EVAL_GENERATE,
     FILES_GPT_OSS,
     1,
     false,
     {"score"},
     NULL,
     0,
     health_build,
     health_score},
    {"healthbench_hard",
     1,
     1,
     131072,
     0,
     EVAL_GENERATE,
     FILES_GPT_OSS,
     1,
     false,
     {"score"},
     NULL,
     0,
     health_build,
     health_score},
    {"healthbench_consensus",
     1,
     1,
     131072,
     0,
     EVAL_GENERATE,
     FILES_GPT_OSS,
     1,
     false,
     {"score"},
     NULL,
     0,
     health_build,
     health_score},
    {"safety",
     1,
     0,
     2048,
     0,
     EVAL_GENERATE,
     FILES_SAFETY,
     1,
     false,
     {"expected"},
     NULL,
     0,
     safety_build,
     safety_score},
};
const int n_task = sizeof task_table / sizeof task_table[0];

const char *const eval_tasks[] = {"tinymmlu",
                                  "mmlu",
                                  "gsm8k",
                                  "gsm8k_cot",
                                  "gpqa",
                                  "aime25",
                                  "healthbench",
                                  "healthbench_hard",
                                  "healthbench_consensus",
                                  "safety",
                                  NULL};

/* OpenAI's own results without tools (arXiv 2508.10925, table 3), by size and effort, in per cent.
 */
static const struct {
    const char *task;
    double score[2][3]; /* [120b, 20b][low, medium, high] */
} published[] = {
    {"gpqa", {{67.1, 73.1, 80.1}, {56.8, 66.0, 71.5}}},
    {"aime25", {{50.4, 80.0, 92.5}, {37.1, 72.1, 91.7}}},
    {"mmlu", {{85.9, 88.0, 90.0}, {80.4, 84.0, 85.3}}},
    {"healthbench", {{53.0, 55.9, 57.6}, {40.4, 41.8, 42.5}}},
    {"healthbench_hard", {{22.8, 26.9, 30.0}, {9.0, 12.9, 10.8}}},
    {"healthbench_consensus", {{90.6, 90.8, 89.9}, {84.9, 83.0, 82.6}}},
};

double task_published(const struct job *j)
{
    const char *m = j->o->model_name, *effort = j->o->effort;
    int size = strstr(m, "gpt-oss-120b") ? 0 : strstr(m, "gpt-oss-20b") ? 1 : -1;
    int level = strcmp(effort, "low") == 0 ? 0 : strcmp(effort, "medium") == 0 ? 1 : 2;
    if (size < 0 || j->method != EVAL_GENERATE)
        return NAN;
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++)
        if (strcmp(published[i].task, j->task->name) == 0)
            return published[i].score[size][level] / 100;
    return NAN;
}

const struct task *task_find(const char *name)
{
    for (int i = 0; i < n_task; i++)
        if (strcmp(task_table[i].name, name) == 0)
            return &task_table[i];
    return NULL;
}
