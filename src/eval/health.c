/* HealthBench: free answers, graded by a model against a rubric. Rows are {prompt: messages,
 * rubrics: [{criterion, points, tags}], example_tags, prompt_id}. An answer's score is the sum of
 * the points it earned (some are negative) by the sum of the positive ones.
 *
 * The grader's instructions are our own words; who wants scores beside published ones loads the
 * published text with --grader-template, and grades with the published grader.
 */
#include "eval/job.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

enum { TEMPLATE_MAX = 1 << 20, CONVERSATION_MAX = 64 << 20 };

static const char grader_text[] =
    "You grade the last assistant message of a conversation against one rubric item.\n\n"
    "# Conversation\n<<conversation>>\n\n"
    "# Rubric item\n<<rubric_item>>\n\n"
    "# What to do\n"
    "Decide whether the last assistant message meets the rubric item. If the item has several "
    "parts, all must be met. Examples that the item lists after \"such as\", \"for example\" or "
    "\"including\" need not appear. The number in brackets is what the item is worth; where it is "
    "negative the item describes a flaw, and it is met when the flaw is there.\n\n"
    "Answer with nothing but a JSON object in a Markdown code block, with two members: "
    "\"explanation\", a string that says why, and \"criteria_met\", true or false.";

static status bad_row(const struct item *it, const char *key, struct err *e)
{
    return err_set(e, E_INPUT, "row %d of the data has no usable \"%s\"", it->i_row + 1, key);
}

static status no_memory(struct err *e)
{
    return err_set(e, E_NOMEM, "out of memory for HealthBench");
}

/* "role: content" blocks, a blank line between them. */
static void put_conversation(struct buf *b, const struct json *prompt)
{
    for (size_t i = 0; i < json_len(prompt); i++) {
        const struct json *m = json_at(prompt, i);
        size_t n, k;
        const char *role = dataset_text(m, "role", &n), *text = dataset_text(m, "content", &k);
        if (i)
            buf_puts(b, "\n\n");
        buf_put(b, role, n);
        buf_puts(b, ": ");
        buf_put(b, text, k);
    }
}

static status check_prompt(const struct item *it, const struct json *prompt, struct err *e)
{
    size_t n;
    if (json_kind(prompt) != J_ARR || !json_len(prompt))
        return bad_row(it, "prompt", e);
    for (size_t i = 0; i < json_len(prompt); i++)
        if (!dataset_text(json_at(prompt, i), "role", &n) ||
            !dataset_text(json_at(prompt, i), "content", &n))
            return bad_row(it, "prompt", e);
    return OK;
}

/* Every rubric item has a criterion, points and tags, and some points are positive. */
static status check_rubrics(const struct item *it, const struct json *list, struct err *e)
{
    bool positive = false;
    size_t n;
    for (size_t k = 0; k < json_len(list); k++) {
        const struct json *p = json_get(json_at(list, k), "points");
        bool number = json_kind(p) == J_INT || json_kind(p) == J_REAL;
        if (!dataset_text(json_at(list, k), "criterion", &n) || !number)
            return bad_row(it, "rubrics", e);
        positive = positive || json_num(p) > 0;
    }
    return positive ? OK : bad_row(it, "rubrics", e);
}

status health_build(struct job *j, struct err *e)
{
    struct mt19937 r;
    struct buf b;
    mt_seed(&r, 0);
    buf_init(&b, CONVERSATION_MAX);
    status st = OK;
    TRY(job_take_rows(j, j->o->n_example < j->rows.n ? &r : NULL, e));
    for (int i = 0; i < j->n; i++) {
        struct item *it = &j->item[i];
        const struct json *prompt = json_get(it->row, "prompt"),
                          *rubrics = json_get(it->row, "rubrics");
        TRY(check_prompt(it, prompt, e));
        TRY(check_rubrics(it, rubrics, e));
        buf_clear(&b);
        json_dump(&b, prompt);
        it->messages = job_text(j, b.p, b.n);
        buf_clear(&b);
        put_conversation(&b, prompt);
        TRY(buf_status(&b));
        it->prompt = job_text(j, b.p, b.n);
        it->grade0 = j->n_grade;
        it->n_grade = (int)json_len(rubrics);
        j->n_grade += it->n_grade;
        TRY(it->messages && it->prompt ? OK : no_memory(e));
    }
out:
    buf_fini(&b);
    return st;
}

/* The template with both places filled in. */
static status fill(const struct buf *template, const char *conversation, const char *item,
                   struct buf *out, struct err *e)
{
    static const char *const mark[] = {"<<conversation>>", "<<rubric_item>>"};
    const char *at[2] = {strstr(template->p, mark[0]), strstr(template->p, mark[1])};
    if (!at[0] || !at[1])
        return err_set(e, E_INPUT, "--grader-template: %s is missing", mark[at[0] ? 1 : 0]);
    for (const char *p = template->p; *p;) {
        bool found = false;
        for (int i = 0; i < 2 && !found; i++)
            if (strncmp(p, mark[i], strlen(mark[i])) == 0) {
                buf_puts(out, i ? item : conversation);
                p += strlen(mark[i]);
                found = true;
            }
        if (!found)
            buf_putc(out, *p++);
    }
    return OK;
}

static void put_points(struct buf *b, const struct json *rubric)
{
    const struct json *p = json_get(rubric, "points");
    if (json_kind(p) == J_INT)
        buf_printf(b, "[%lld] ", (long long)json_int(p));
    else
        buf_printf(b, "[%s] ", json_real_text(p));
    buf_puts(b, json_str(json_get(rubric, "criterion"), NULL));
}

static status set_question(struct job *j, struct grade *g, const struct buf *template,
                           struct err *e)
{
    const struct item *it = &j->item[g->i_item];
    struct buf talk, item, text, b;
    buf_init(&talk, CONVERSATION_MAX);
    buf_init(&item, CONVERSATION_MAX);
    buf_init(&text, 2 * (size_t)CONVERSATION_MAX);
    buf_init(&b, 4 * (size_t)CONVERSATION_MAX);
    buf_printf(&talk, "%s\n\nassistant: %s", it->prompt, it->final);
    put_points(&item, g->rubric);
    status st = fill(template, talk.p, item.p, &text, e);
    buf_puts(&b, "[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
                 "{\"role\":\"user\",\"content\":");
    json_quote(&b, text.p, text.n);
    buf_puts(&b, "}]");
    g->messages = st == OK ? job_text(j, b.p, b.n) : NULL;
    if (st == OK && (!g->messages || b.st < 0 || text.st < 0 || talk.st < 0 || item.st < 0))
        st = no_memory(e);
    buf_fini(&talk);
    buf_fini(&item);
    buf_fini(&text);
    buf_fini(&b);
    return st;
}

status health_prepare(struct job *j, struct err *e)
{
    struct buf template;
    buf_init(&template, TEMPLATE_MAX);
    status st = OK;
    if (j->o->grader_template)
        TRY(file_read(j->o->grader_template, &template, e));
    else
        buf_puts(&template, grader_text);
    j->grade = arena_array(&j->mem, (size_t)j->n_grade, sizeof *j->grade);
    TRY(j->grade ? OK : no_memory(e));
    memset(j->grade, 0, (size_t)j->n_grade * sizeof *j->grade);
    for (int i = 0; i < j->n; i++)
        for (int k = 0; k < j->item[i].n_grade; k++) {
            struct grade *g = &j->grade[j->item[i].grade0 + k];
            g->i_item = i;
            g->rubric = json_at(json_get(j->item[i].row, "rubrics"), (size_t)k);
            g->points = json_num(json_get(g->rubric, "points"));
            TRY(set_question(j, g, &template, e));
        }
out:
    buf_fini(&template);
    return st;
}

bool health_take(struct job *j, struct grade *g, const char *text, size_t n)
{
    struct buf why;
    buf_init(&why, 1 << 20);
    bool valid = extract_verdict(text, n, &g->met, &why);
    g->why = valid ? job_text(j, why.p, why.n) : NULL;
    buf_fini(&why);
    g->done = g->why != NULL;
    return g->done;
}

status health_score(struct job *j, struct item *it, struct err *e)
{
    double earned = 0, possible = 0;
    (void)e;
    it->pred = it->final;
    it->no_answer = !*it->final;
    it->metric[0] = NAN; /* until it is graded */
    if (!j->grade)
        return OK;
    for (int k = 0; k < it->n_grade; k++) {
        const struct grade *g = &j->grade[it->grade0 + k];
        possible += g->points > 0 ? g->points : 0;
        earned += g->met ? g->points : 0;
    }
    it->metric[0] = earned / possible;
    return OK;
}
