/* A job from its data set to its result files: see job.h for the steps. */
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "eval/job.h"
#include "eval/stats.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    POLL_MS = 100,               /* how late a signal is noticed */
    SHOW_NS = 100 * 1000 * 1000, /* between two progress reports */
    MAX_VERDICTS = 8             /* tries of a grader that answers no JSON */
};
static const int64_t GRADE0 = (int64_t)1 << 32; /* journal numbers of grades */
static const size_t MEM_MAX = (size_t)8 << 30;

/* ---- the journal ---- */

/* A name for everything the answers depend on. */
static void put_key(const struct job *j, struct buf *b)
{
    const struct eval_opts *o = j->o;
    static const struct hash_key key = {0x676c6f7373, 0x6576616c};
    uint64_t h = 0;
    for (int i = 0; i < j->n; i++) {
        uint64_t both[2] = {h, hash_sip(key, j->item[i].messages, strlen(j->item[i].messages))};
        h = hash_sip(key, both, sizeof both);
    }
    buf_printf(b, "%s|%s|%d|%s|%s|%.17g|%.17g|%d|%lld|%d|%d|%d|%016llx", j->task->name,
               o->model_name, o->sampler.kind,
               o->sampler.kind == SAMPLER_LOCAL ? "" : o->sampler.client.base_url, o->effort,
               j->temperature, o->top_p, j->max_tokens, (long long)o->seed, j->method,
               o->final_prefix, j->n, (unsigned long long)h);
    if (o->grader.model_name)
        buf_printf(b, "|%s|%s|%s", o->grader.model_name,
                   o->grader.client.base_url ? o->grader.client.base_url : "",
                   o->grader_template ? o->grader_template : "");
}

static status keep_item(struct job *j, int i, struct err *e)
{
    const struct item *it = &j->item[i];
    if (!j->journal)
        return OK;
    struct buf b;
    buf_init(&b, 256 << 20);
    buf_puts(&b, "{\"final\":");
    json_quote(&b, it->final, strlen(it->final));
    buf_puts(&b, ",\"analysis\":");
    json_quote(&b, it->analysis, strlen(it->analysis));
    buf_printf(&b, ",\"finish\":\"%s\",\"n\":[%lld,%lld,%lld],\"lp\":[", it->finish,
               (long long)it->n_prompt, (long long)it->n_output, (long long)it->n_reasoning);
    for (int k = 0; k < it->n_choice; k++) {
        buf_puts(&b, k ? ",[" : "[");
        json_put_num(&b, it->lp[k]);
        buf_printf(&b, ",%d]", it->greedy[k]);
    }
    buf_puts(&b, "]}");
    status st = buf_status(&b);
    if (st == OK)
        st = journal_put(j->journal, i, b.p, b.n, e);
    buf_fini(&b);
    return st;
}

static const char *finish_word(const char *s)
{
    return strcmp(s, "length") == 0       ? "length"
           : strcmp(s, "tool_calls") == 0 ? "tool_calls"
                                          : "stop";
}

/* A record of keep_item; false when it is none. */
static bool restore_item(struct job *j, struct item *it, const struct json *root)
{
    const struct json *n = json_get(root, "n"), *lp = json_get(root, "lp");
    size_t k;
    const char *final = dataset_text(root, "final", &k);
    it->final = final ? job_text(j, final, k) : NULL;
    const char *analysis = dataset_text(root, "analysis", &k);
    it->analysis = analysis ? job_text(j, analysis, k) : NULL;
    const char *finish = dataset_text(root, "finish", &k);
    if (!it->final || !it->analysis || !finish || json_len(n) != 3 ||
        json_len(lp) != (size_t)it->n_choice)
        return false;
    it->finish = finish_word(finish);
    it->n_prompt = json_int(json_at(n, 0));
    it->n_output = json_int(json_at(n, 1));
    it->n_reasoning = json_int(json_at(n, 2));
    for (int i = 0; i < it->n_choice; i++) {
        const struct json *pair = json_at(lp, (size_t)i);
        if (json_len(pair) != 2 || json_kind(json_at(pair, 1)) != J_INT)
            return false;
        it->lp[i] = json_absent(json_at(pair, 0)) ? NAN : json_num(json_at(pair, 0));
        it->greedy[i] = json_int(json_at(pair, 1)) != 0;
    }
    it->done = true;
    return true;
}

static status restore_items(struct job *j, struct err *e)
{
    struct buf b;
    buf_init(&b, 256 << 20);
    status st = OK;
    for (int i = 0; j->journal && i < j->n && st == OK; i++) {
        struct json *root = NULL;
        buf_clear(&b);
        if (journal_get(j->journal, i, &b) && b.st == OK &&
            json_parse(b.p, b.n, &json_limits_file, &root, NULL) == OK &&
            restore_item(j, &j->item[i], root))
            st = j->task->score(j, &j->item[i], e);
        json_free(root);
    }
    buf_fini(&b);
    return st;
}

static void restore_grades(struct job *j)
{
    struct buf b;
    buf_init(&b, 16 << 20);
    for (int k = 0; j->journal && k < j->n_grade; k++) {
        buf_clear(&b);
        if (journal_get(j->journal, GRADE0 + k, &b) && b.st == OK)
            health_take(j, &j->grade[k], b.p, b.n);
    }
    buf_fini(&b);
}

/* ---- progress ---- */

struct show {
    struct job *j;
    struct eval_progress p;
    uint64_t last_ns;
};

static void show(struct show *s, bool now)
{
    struct job *j = s->j;
    if (!j->o->progress || (!now && clock_ns() - s->last_ns < SHOW_NS))
        return;
    s->last_ns = clock_ns();
    int n = 0;
    s->p.n_truncated = s->p.n_no_answer = 0;
    for (int i = 0; i < j->n; i++) {
        const struct item *it = &j->item[i];
        if (!it->done)
            continue;
        s->p.n_truncated += strcmp(it->finish, "length") == 0;
        s->p.n_no_answer += it->no_answer;
        if (!isnan(it->metric[0]))
            j->score[n++] = it->metric[0];
    }
    s->p.mean = stats_mean(j->score, n);
    stats_interval(j->score, n, &s->p.lo, &s->p.hi);
    j->o->progress(j->o->ctx, &s->p);
}

static bool stopped(const struct job *j)
{
    return j->o->stopped && j->o->stopped(j->o->ctx);
}

static status cancelled(struct err *e)
{
    return err_set(e, E_CANCEL, "stopped; the same command goes on from here");
}

/* ---- asking ---- */

/* What is asked of a sampler: questions of one kind, numbered. */
struct asking {
    struct job *j;
    int n;
    size_t stride; /* between the questions of an array */
    struct sampler_question *first;
    bool (*is_done)(struct job *, int i);
    void (*prepare)(struct job *, int i); /* sets the question, which is zeroed */
    /* The answer into the job; not done afterwards: it is asked again. */
    status (*take)(struct job *, int i, struct err *);
};

static struct sampler_question *question(const struct asking *a, int i)
{
    return (struct sampler_question *)(void *)((char *)a->first + a->stride * (size_t)i);
}

static int number_of(const struct asking *a, const struct sampler_question *q)
{
    return (int)((size_t)((const char *)q - (const char *)a->first) / a->stride);
}

static status send(const struct asking *a, struct sampler *s, int i, struct err *e)
{
    *question(a, i) = (struct sampler_question){0};
    a->prepare(a->j, i);
    return sampler_ask(s, question(a, i), e);
}

/* Asks all that is not done, n_parallel at once. One that fails does not stop the others, unless
 * nothing succeeds. */
static status ask_all(const struct asking *a, const struct sampler_opts *so, struct show *sh,
                      struct err *e)
{
    struct job *j = a->j;
    struct sampler *s = NULL;
    struct err first = {0};
    int next = 0, running = 0, n_ok = 0, n_failed = 0;
    status st = OK;
    TRY(sampler_open(so, &s, e));
    for (;;) {
        for (; next < a->n && running < j->o->n_parallel; next++)
            if (!a->is_done(j, next)) {
                TRY(send(a, s, next, e));
                running++;
            }
        if (!running)
            break;
        struct sampler_question *q = sampler_next(s, POLL_MS);
        if (stopped(j)) {
            st = cancelled(e);
            goto out;
        }
        if (!q) {
            show(sh, false);
            continue;
        }
        running--;
        int i = number_of(a, q);
        if (q->st < 0) {
            n_failed++;
            sh->p.n_failed++;
            first = first.code ? first : q->err;
            sampler_question_fini(q);
            if (!n_ok && n_failed >= j->o->n_parallel)
                break;
            continue;
        }
        st = a->take(j, i, e);
        sampler_question_fini(q);
        TRY(st);
        n_ok++;
        if (a->is_done(j, i)) {
            sh->p.done++;
        } else {
            TRY(send(a, s, i, e));
            running++;
        }
        show(sh, false);
    }
    if (n_failed)
        st = err_set(e, first.code, "%d of %d questions failed, the first with: %.150s%s", n_failed,
                     a->n, first.msg, j->journal ? "; the same command asks them again" : "");
out:
    sampler_close(s);
    for (int i = 0; i < next; i++) /* of those under way */
        sampler_question_fini(question(a, i));
    return st;
}

static bool item_done(struct job *j, int i)
{
    return j->item[i].done;
}

static void item_prepare(struct job *j, int i)
{
    struct item *it = &j->item[i];
    struct sampler_question *q = &it->q;
    q->messages = it->messages;
    q->n_messages = strlen(it->messages);
    q->effort = j->o->effort;
    q->temperature = j->temperature;
    q->top_p = j->o->top_p;
    q->max_tokens = j->max_tokens;
    q->seed = j->o->seed < 0 ? -1 : j->o->seed + i;
    q->stop = j->task->stop;
    q->n_stop = j->task->n_stop;
}

static status item_take(struct job *j, int i, struct err *e)
{
    struct item *it = &j->item[i];
    const struct sampler_question *q = &it->q;
    it->final = job_text(j, q->final.p, q->final.n);
    it->analysis = job_text(j, q->analysis.p, q->analysis.n);
    if (!it->final || !it->analysis)
        return err_set(e, E_NOMEM, "out of memory for the answers");
    it->finish = finish_word(q->finish);
    it->n_prompt = q->n_prompt;
    it->n_output = q->n_output;
    it->n_reasoning = q->n_reasoning;
    it->done = true;
    status st = j->task->score(j, it, e);
    return st == OK ? keep_item(j, i, e) : st;
}

static bool grade_done(struct job *j, int i)
{
    return j->grade[i].done;
}

static void grade_prepare(struct job *j, int i)
{
    struct sampler_question *q = &j->grade[i].q;
    q->messages = j->grade[i].messages;
    q->n_messages = strlen(q->messages);
    q->temperature = 0.5;
    q->max_tokens = 2048;
    q->seed = -1;
    q->effort = j->o->self_graded ? j->o->effort : NULL;
}

static status grade_take(struct job *j, int i, struct err *e)
{
    struct grade *g = &j->grade[i];
    if (health_take(j, g, g->q.final.p, g->q.final.n))
        return j->journal ? journal_put(j->journal, GRADE0 + i, g->q.final.p, g->q.final.n, e) : OK;
    if (++g->n_try < MAX_VERDICTS)
        return OK;
    return err_set(e, E_FORMAT, "the grader answered %d times without a verdict in JSON",
                   MAX_VERDICTS);
}

static status loglik_take(void *ctx, struct item *it, struct err *e)
{
    struct show *sh = ctx;
    struct job *j = sh->j;
    it->done = true;
    status st = j->task->score(j, it, e);
    if (st == OK)
        st = keep_item(j, (int)(it - j->item), e);
    sh->p.done++;
    show(sh, false);
    return st;
}

static status loglik_wait(void *ctx, struct err *e)
{
    struct show *sh = ctx;
    show(sh, false);
    return stopped(sh->j) ? cancelled(e) : OK;
}

static status ask_items(struct job *j, struct show *sh, struct err *e)
{
    if (j->method != EVAL_GENERATE) {
        struct loglik_sink sink = {loglik_take, loglik_wait, sh};
        return loglik_all(j, &sink, e);
    }
    struct asking a = {.j = j,
                       .n = j->n,
                       .stride = sizeof *j->item,
                       .first = &j->item[0].q,
                       .is_done = item_done,
                       .prepare = item_prepare,
                       .take = item_take};
    return ask_all(&a, &j->o->sampler, sh, e);
}

static status grade_items(struct job *j, struct show *sh, struct err *e)
{
    struct asking a = {.j = j,
                       .stride = sizeof *j->grade,
                       .is_done = grade_done,
                       .prepare = grade_prepare,
                       .take = grade_take};
    status st = health_prepare(j, e);
    if (st < 0)
        return st;
    restore_grades(j);
    a.n = j->n_grade;
    a.first = &j->grade[0].q;
    sh->p = (struct eval_progress){.total = a.n, .what = "grading", .n_failed = sh->p.n_failed};
    for (int i = 0; i < a.n; i++)
        sh->p.done += j->grade[i].done;
    st = ask_all(&a, &j->o->grader, sh, e);
    for (int i = 0; st == OK && i < j->n; i++)
        st = j->task->score(j, &j->item[i], e);
    return st;
}

/* ---- the whole ---- */

static status read_data(struct job *j, struct err *e)
{
    status st = dataset_read(&j->rows, j->o->data, e);
    if (st == OK && j->o->shots)
        st = dataset_read(&j->shots, j->o->shots, e);
    if (st == OK && j->n_shot > 0 && !j->o->shots)
        st = err_set(e, E_INPUT,
                     "%s puts %d examples before each question; give their file with "
                     "--fewshot-data, or --num-fewshot 0",
                     j->task->name, j->n_shot);
    return st;
}

static status check(const struct job *j, struct err *e)
{
    bool letters = strcmp(j->task->name, "tinymmlu") == 0 || strcmp(j->task->name, "mmlu") == 0;
    if (j->method != EVAL_GENERATE && !letters)
        return err_set(e, E_INPUT, "%s has only the method generate", j->task->name);
    if (j->method == EVAL_SINGLE_TOKEN && strcmp(j->task->name, "tinymmlu") != 0)
        return err_set(e, E_INPUT, "only tinymmlu has the method single_token");
    return OK;
}

static void settle(struct job *j)
{
    const struct eval_opts *o = j->o;
    const struct task *t = j->task;
    j->method = o->method < 0 ? t->method : o->method;
    j->temperature = o->temperature < 0 ? t->temperature : o->temperature;
    j->max_tokens = o->max_tokens ? o->max_tokens : t->max_tokens;
    j->n_shot = o->n_shot < 0 ? t->n_shot : o->n_shot;
    j->n_repeat = o->n_repeat                                 ? o->n_repeat
                  : t->files == FILES_GPT_OSS && o->n_example ? 1 /* as gpt-oss's harness asks */
                                                              : t->n_repeat;
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    strftime(j->started, sizeof j->started, "%Y-%m-%dT%H:%M:%S", &tm);
}

static void say(struct job *j, const char *text)
{
    if (j->o->note)
        j->o->note(j->o->ctx, text);
}

static void warn(struct job *j, const struct eval_result *r)
{
    char text[256];
    if (r->n_truncated) {
        snprintf(text, sizeof text,
                 "%s: %d of %d answers hit the limit of %d tokens, which lowers the score; raise "
                 "--max-tokens",
                 j->task->name, r->n_truncated, r->n, j->max_tokens);
        say(j, text);
    }
    if (j->o->self_graded && j->n_grade)
        say(j, "healthbench: graded by the evaluated model itself; not comparable with published "
               "scores");
}

static void measure(struct job *j, struct eval_result *r)
{
    double tokens = 0;
    bool known = j->n > 0;
    r->n = j->n;
    r->published = task_published(j);
    r->n_truncated = r->n_no_answer = 0;
    for (int i = 0; i < j->n; i++) {
        const struct item *it = &j->item[i];
        j->score[i] = it->metric[0];
        r->n_truncated += strcmp(it->finish, "length") == 0;
        r->n_no_answer += it->no_answer;
        known = known && it->n_output >= 0;
        tokens += (double)it->n_output;
    }
    r->mean_tokens = known && j->method == EVAL_GENERATE ? tokens / j->n : NAN;
    r->score = stats_mean(j->score, j->n);
    r->err = stats_stderr(j->score, j->n);
    stats_interval(j->score, j->n, &r->lo, &r->hi);
}

static status open_journal(struct job *j, struct err *e)
{
    struct buf key;
    if (!j->o->journal)
        return OK;
    buf_init(&key, 1 << 20);
    put_key(j, &key);
    status st = journal_open(j->o->journal, key.p, j->o->fresh, &j->journal, e);
    buf_fini(&key);
    if (st == OK && journal_count(j->journal)) {
        char text[128];
        snprintf(text, sizeof text, "%s: going on with a run that has %d answers", j->task->name,
                 journal_count(j->journal));
        say(j, text);
    }
    return st;
}

status eval_run(const struct eval_opts *o, struct eval_result *r, struct err *e)
{
    struct job j = {.o = o, .task = task_find(o->task)};
    struct buf irt;
    struct show sh = {.j = &j};
    uint64_t start = clock_ns();
    *r = (struct eval_result){0};
    buf_init(&r->json, 256 << 20);
    buf_init(&r->runner, 256 << 20);
    buf_init(&irt, 1 << 16);
    arena_init(&j.mem, MEM_MAX);
    ASSERT(j.task);
    status st = OK;
    settle(&j);
    TRY(check(&j, e));
    TRY(extract_open(&j.x, e));
    TRY(read_data(&j, e));
    TRY(j.task->build(&j, e));
    j.score = arena_array(&j.mem, (size_t)j.n, sizeof *j.score);
    TRY(j.score ? OK : err_set(e, E_NOMEM, "out of memory for the scores"));
    TRY(o->out_dir ? file_mkdir(o->out_dir, e) : OK);
    TRY(open_journal(&j, e));
    TRY(restore_items(&j, e));
    sh.p = (struct eval_progress){.total = j.n, .what = j.task->name};
    for (int i = 0; i < j.n; i++)
        sh.p.done += j.item[i].done;
    TRY(ask_items(&j, &sh, e));
    if (j.n_grade)
        TRY(grade_items(&j, &sh, e));
    show(&sh, true);
    j.seconds = clock_ms_since(start) * 1e-3;
    measure(&j, r);
    if (o->irt)
        TRY(irt_score(o->irt, j.score, j.n, &irt, e));
    if (o->out_dir)
        TRY(files_write(&j, r, e));
    files_summary(&j, r, &irt);
    TRY(buf_status(&r->json));
    TRY(buf_status(&r->runner));
    if (j.journal)
        TRY(journal_finish(j.journal, e));
    warn(&j, r);
out:
    journal_close(j.journal);
    dataset_fini(&j.rows);
    dataset_fini(&j.shots);
    extract_close(j.x);
    arena_fini(&j.mem);
    buf_fini(&irt);
    return st;
}

void eval_result_fini(struct eval_result *r)
{
    buf_fini(&r->json);
    buf_fini(&r->runner);
}
