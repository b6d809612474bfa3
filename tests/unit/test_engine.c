/* The engine through the public API, on the compiled-in model: what a request yields must not
 * depend on its company, its chunking or the number of threads; every failure is the caller's
 * alone. */
#include "unit/unit.h"

#include "base/file.h"
#include "base/mem.h"
#include "gloss.h"
#include "model/tiny.h"
#include "model/weights.h"

#include <math.h>
#include <poll.h>
#include <unistd.h>

enum { N_REQ = 12, MAX_TOK = 20 };

static gloss_model *model;
static int32_t *prompt[N_REQ];
static size_t n_prompt[N_REQ];

static int setup(void **state)
{
    (void)state;
    static const char *const words[] = {"sun", "2 + 2", "reverse this word", "\xc3\xa9t\xc3\xa9"};
    if (gloss_model_open("tiny", NULL, &model, NULL) < 0)
        return -1;
    for (int i = 0; i < N_REQ; i++) {
        /* Lengths from a few tokens to several windows of 128. */
        char text[4096] = "";
        size_t n = 0;
        for (int k = 0; k < 1 + i * 7; k++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s %d ", words[(i + k) % 4], i * k);
        if (gloss_encode(model, text, n, GLOSS_SPECIAL_TEXT, &prompt[i], &n_prompt[i], NULL) < 0)
            return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < N_REQ; i++)
        gloss_free(prompt[i]);
    gloss_model_close(model);
    return 0;
}

static gloss_engine *engine(int max_requests, int chunk, int n_thread)
{
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    o.max_requests = max_requests;
    o.chunk = chunk;
    o.n_thread = n_thread;
    o.n_ctx = 4096;
    gloss_engine *g;
    assert_int_equal(gloss_engine_new(model, &o, &g, NULL), GLOSS_OK);
    return g;
}

static gloss_request *submit(gloss_engine *g, int i)
{
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    p.max_tokens = MAX_TOK;
    p.temperature = i % 3 ? 1.0f : 0.0f;
    p.top_p = i % 2 ? 0.9f : 0.0f;
    p.seed = 100 + (uint64_t)i;
    p.ignore_eos = 1;
    gloss_request *r;
    assert_int_equal(gloss_submit(g, prompt[i], n_prompt[i], &p, &r, NULL), GLOSS_OK);
    return r;
}

struct result {
    int32_t token[MAX_TOK];
    float logprob[MAX_TOK];
    int n;
};

static void collect(gloss_request *r, struct result *res)
{
    struct gloss_event ev;
    res->n = 0;
    for (;;) {
        assert_int_equal(gloss_next(r, &ev, -1), GLOSS_OK);
        if (ev.kind == GLOSS_EV_FINISH)
            break;
        assert_true(res->n < MAX_TOK);
        res->token[res->n] = ev.token;
        res->logprob[res->n++] = ev.logprob;
    }
    assert_int_equal(ev.finish, GLOSS_FINISH_LENGTH);
    assert_int_equal(gloss_next(r, &ev, -1), GLOSS_E_STATE);
}

static void run_alone(struct result *res, int chunk, int n_thread)
{
    gloss_engine *g = engine(1, chunk, n_thread);
    for (int i = 0; i < N_REQ; i++) {
        gloss_request *r = submit(g, i);
        collect(r, &res[i]);
        gloss_request_free(r);
    }
    gloss_engine_free(g);
}

static void assert_same(const struct result *a, const struct result *b)
{
    for (int i = 0; i < N_REQ; i++) {
        assert_int_equal(a[i].n, MAX_TOK);
        assert_int_equal(b[i].n, MAX_TOK);
        assert_memory_equal(a[i].token, b[i].token, sizeof a[i].token);
        assert_memory_equal(a[i].logprob, b[i].logprob, sizeof a[i].logprob);
    }
}

static struct result alone[N_REQ];

static void test_company_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        int max_requests, chunk, n_thread;
    } ways[] = {{N_REQ, 64, 2}, {5, 7, 1}, {3, 256, 1}};
    run_alone(alone, 256, 1);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        gloss_engine *g = engine(ways[w].max_requests, ways[w].chunk, ways[w].n_thread);
        gloss_request *r[N_REQ];
        struct result together[N_REQ];
        for (int i = 0; i < N_REQ; i++)
            r[i] = submit(g, i);
        for (int i = N_REQ - 1; i >= 0; i--)
            collect(r[i], &together[i]);
        for (int i = 0; i < N_REQ; i++)
            gloss_request_free(r[i]);
        gloss_engine_free(g);
        assert_same(alone, together);
    }
}

static void test_chunks_change_nothing(void **state)
{
    (void)state;
    struct result res[N_REQ];
    run_alone(res, 1, 1);
    assert_same(alone, res);
    run_alone(res, 33, 1);
    assert_same(alone, res);
}

static void test_cancel_and_free(void **state)
{
    (void)state;
    gloss_engine *g = engine(2, 64, 1);
    struct gloss_event ev;
    struct result res;
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    gloss_request *a, *b, *waiting;
    p.max_tokens = 3000; /* the ring of 256 keeps them from their ends */
    p.ignore_eos = 1;
    assert_int_equal(gloss_submit(g, prompt[5], n_prompt[5], &p, &a, NULL), GLOSS_OK);
    assert_int_equal(gloss_submit(g, prompt[6], n_prompt[6], &p, &b, NULL), GLOSS_OK);
    waiting = submit(g, 7);
    assert_int_equal(gloss_next(a, &ev, -1), GLOSS_OK);
    gloss_cancel(a);
    assert_int_equal(gloss_next(b, &ev, -1), GLOSS_OK);
    while (gloss_next(a, &ev, -1) == GLOSS_OK && ev.kind != GLOSS_EV_FINISH)
        ;
    assert_int_equal(ev.finish, GLOSS_FINISH_ERROR);
    assert_int_equal(ev.err.code, GLOSS_E_CANCEL);
    gloss_request_free(b); /* while running */
    collect(waiting, &res);
    assert_memory_equal(res.token, alone[7].token, sizeof res.token);
    gloss_request *c = submit(g, 8);
    gloss_request_free(c); /* while waiting */
    gloss_request_free(a);
    gloss_request_free(waiting);
    gloss_engine_free(g);
}

static void test_refusals(void **state)
{
    (void)state;
    struct gloss_err e;
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    gloss_engine *g;
    gloss_request *r;
    o.n_ctx = 100;
    assert_int_equal(gloss_engine_new(model, &o, &g, &e), GLOSS_OK);
    assert_int_equal(gloss_submit(g, prompt[N_REQ - 1], n_prompt[N_REQ - 1], NULL, &r, &e),
                     GLOSS_E_LIMIT);
    assert_non_null(strstr(e.msg, "100"));
    int32_t bad[] = {1, 1 << 30};
    assert_int_equal(gloss_submit(g, bad, 2, NULL, &r, &e), GLOSS_E_INPUT);
    assert_int_equal(gloss_submit(g, bad, 0, NULL, &r, &e), GLOSS_E_INPUT);
    gloss_engine_free(g);
    o.device = "abacus";
    assert_int_equal(gloss_engine_new(model, &o, &g, &e), GLOSS_E_DEVICE);
    assert_string_equal(e.param, "device");
    gloss_model *none;
    assert_int_equal(gloss_model_open("/nonexistent/model", NULL, &none, &e), GLOSS_E_NOENT);
    assert_null(none);
}

struct rows {
    float *v;
    int n, n_vocab;
};

static gloss_status keep_row(void *ctx, const float *logits, int n_vocab)
{
    struct rows *r = ctx;
    r->n_vocab = n_vocab;
    memcpy(r->v + (size_t)r->n++ * (size_t)n_vocab, logits, (size_t)n_vocab * sizeof *logits);
    return GLOSS_OK;
}

static void test_score_is_logits(void **state)
{
    (void)state;
    enum { I = 3 };
    size_t n = n_prompt[I];
    assert_true(n > 64 && n < 400);
    gloss_engine *g = engine(1, 64, 1);
    struct rows all = {.v = calloc(n, 4096 * sizeof(float))};
    struct rows last = {.v = calloc(1, 4096 * sizeof(float))};
    assert_int_equal(gloss_logits(g, prompt[I], n, 0, 0, keep_row, &all, NULL), GLOSS_OK);
    assert_int_equal(gloss_logits(g, prompt[I], n, 1, 0, keep_row, &last, NULL), GLOSS_OK);
    assert_int_equal(all.n, n);
    assert_int_equal(last.n, 1);
    assert_memory_equal(all.v + (n - 1) * (size_t)all.n_vocab, last.v,
                        (size_t)all.n_vocab * sizeof(float));
    double *lp = calloc(n, sizeof *lp);
    int32_t *greedy = calloc(n, sizeof *greedy);
    assert_int_equal(gloss_score(g, prompt[I], n, lp, greedy, NULL), GLOSS_OK);
    assert_true(isnan(lp[0]) && greedy[0] == -1);
    for (size_t i = 1; i < n; i++) {
        const float *row = all.v + (i - 1) * (size_t)all.n_vocab;
        double sum = 0;
        int best = 0;
        for (int k = 0; k < all.n_vocab; k++) {
            sum += exp((double)row[k]);
            if (row[k] > row[best])
                best = k;
        }
        assert_true(fabs(lp[i] - ((double)row[prompt[I][i]] - log(sum))) < 1e-4);
        assert_int_equal(greedy[i], best);
    }
    free(lp);
    free(greedy);
    free(all.v);
    free(last.v);
    gloss_engine_free(g);
}

/* ---- with a script instead of the model: exact streams ---- */

static gloss_engine *scripted(const char *script, int max_requests)
{
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    struct gloss_err e = {0};
    gloss_engine *g;
    o.max_requests = max_requests;
    o.n_ctx = 2048;
    o.script = script;
    o.n_script = strlen(script);
    if (gloss_engine_new(model, &o, &g, &e) < 0)
        fail_msg("%s", e.msg);
    return g;
}

/* What a client sees: per channel the text, stop texts taken off. */
struct seen {
    char analysis[512], final[512], other[512];
    int n_token, finish, i_stop;
};

static void read_answer(gloss_request *r, struct seen *s)
{
    struct gloss_chat_opts co = GLOSS_INIT(struct gloss_chat_opts);
    struct gloss_event ev;
    struct gloss_delta d;
    gloss_chat *c;
    *s = (struct seen){0};
    assert_int_equal(gloss_chat_new(model, &co, &c, NULL), GLOSS_OK);
    for (;;) {
        assert_int_equal(gloss_next(r, &ev, -1), GLOSS_OK);
        if (ev.kind == GLOSS_EV_FINISH)
            break;
        s->n_token++;
        assert_int_equal(gloss_chat_feed(c, ev.token, &d, NULL), GLOSS_OK);
        char *to = !d.channel || strcmp(d.channel, "final") == 0 ? s->final
                   : strcmp(d.channel, "analysis") == 0          ? s->analysis
                                                                 : s->other;
        assert_true((size_t)ev.n_hide <= d.n);
        strncat(to, d.text ? d.text : "", d.n - (size_t)ev.n_hide);
    }
    s->finish = ev.finish;
    s->i_stop = ev.i_stop;
    gloss_chat_free(c);
}

static void ask(gloss_engine *g, const struct gloss_params *p, struct seen *s)
{
    gloss_request *r;
    assert_int_equal(gloss_submit(g, prompt[0], n_prompt[0], p, &r, NULL), GLOSS_OK);
    read_answer(r, s);
    gloss_request_free(r);
}

static void test_script(void **state)
{
    (void)state;
    static const char script[] =
        "{\"text\":\"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final"
        "<|message|>one<|return|>\"}\n\n"
        "{\"text\":\"<|channel|>final<|message|>two\",\"delay_ms\":2}\n"
        "{\"tokens\":[]}\n";
    gloss_engine *g = scripted(script, 2);
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct seen s;
    for (int round = 0; round < 2; round++) { /* the file repeats */
        ask(g, &p, &s);
        assert_string_equal(s.analysis, "hm");
        assert_string_equal(s.final, "one");
        assert_int_equal(s.finish, GLOSS_FINISH_STOP);
        ask(g, &p, &s);
        assert_string_equal(s.final, "two");
        assert_int_equal(s.finish, GLOSS_FINISH_STOP); /* the line's end */
        ask(g, &p, &s);
        assert_int_equal(s.n_token, 0);
        assert_int_equal(s.finish, GLOSS_FINISH_STOP);
    }
    p.n = 2; /* two lines, in order of index */
    gloss_request *r;
    struct gloss_event ev;
    int n_token[2] = {0}, left = 2;
    assert_int_equal(gloss_submit(g, prompt[0], n_prompt[0], &p, &r, NULL), GLOSS_OK);
    while (left > 0) {
        assert_int_equal(gloss_next(r, &ev, -1), GLOSS_OK);
        left -= ev.kind == GLOSS_EV_FINISH;
        n_token[ev.index] += ev.kind == GLOSS_EV_TOKEN;
    }
    assert_true(n_token[0] > n_token[1] && n_token[1] >= 4);
    gloss_request_free(r);
    gloss_engine_free(g);
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    struct gloss_err e;
    o.script = "{\"text\":\"a\"}\n{\"text\":1}\n";
    o.n_script = strlen(o.script);
    assert_int_equal(gloss_engine_new(model, &o, &g, &e), GLOSS_E_INPUT);
    assert_non_null(strstr(e.msg, "line 2"));
}

static void test_reasoning_budget(void **state)
{
    (void)state;
    gloss_engine *g = scripted("{\"text\":\"<|channel|>analysis<|message|>1 2 3 4 5 6 7 8 9\"}", 1);
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct seen s;
    p.reasoning_budget = 3;
    p.max_tokens = 30;
    ask(g, &p, &s);
    assert_true(strlen(s.analysis) >= 2 && strlen(s.analysis) <= 8);
    assert_true(strlen(s.final) > 0); /* what follows lands in the answer */
    gloss_engine_free(g);
}

static void test_stop_texts(void **state)
{
    (void)state;
    static const char script[] =
        "{\"text\":\"<|channel|>analysis<|message|>the STOP word<|end|><|start|>assistant"
        "<|channel|>final<|message|>say ST, STO or STOP now<|return|>\"}";
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct seen s;
    gloss_engine *g = scripted(script, 1);
    const char *stop[2] = {"nothing", "STOP"};
    p.stop = stop;
    p.n_stop = 2;
    ask(g, &p, &s);
    assert_string_equal(s.analysis, "the STOP word"); /* not there */
    assert_string_equal(s.final, "say ST, STO or ");
    assert_int_equal(s.finish, GLOSS_FINISH_STOP);
    assert_int_equal(s.i_stop, 1);
    stop[1] = "y ST, STO o"; /* begins and ends inside tokens */
    ask(g, &p, &s);
    assert_string_equal(s.final, "sa");
    stop[1] = "now and then"; /* held back, never completed */
    ask(g, &p, &s);
    assert_string_equal(s.final, "say ST, STO or STOP now");
    assert_int_equal(s.i_stop, -1);
    stop[1] = "say";
    p.min_tokens = 1000; /* nothing stops before */
    ask(g, &p, &s);
    assert_string_equal(s.final, "say ST, STO or STOP now");
    struct gloss_err e;
    gloss_request *r;
    stop[1] = "";
    assert_int_equal(gloss_submit(g, prompt[0], n_prompt[0], &p, &r, &e), GLOSS_E_INPUT);
    assert_string_equal(e.param, "stop");
    gloss_engine_free(g);
}

/* Tools and a format: two grammars. */
static void hold(struct gloss_params *p)
{
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":"
                                 "\"string\",\"pattern\":\"^[a-z]+$\"}}}";
    static const struct gloss_tool tools[] = {
        {.recipient = "functions.f", .schema = schema, .n_schema = sizeof schema - 1},
        {.recipient = "python", .builtin = 1},
    };
    p->tools = tools;
    p->n_tools = 2;
    p->format = GLOSS_FORMAT_CHOICE;
    p->format_text = "[\"yes\",\"no\"]";
    p->n_format_text = 12;
}

/* Opens everything and runs one request; the code of the first failure. */
static gloss_status whole_path(void)
{
    gloss_model *m = NULL;
    gloss_engine *g = NULL;
    gloss_request *r = NULL;
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct gloss_event ev = {0};
    o.n_ctx = 512;
    o.n_thread = 1;
    p.max_tokens = 2;
    static const char *const stop[] = {"never"};
    p.stop = stop;
    p.n_stop = 1;
    p.reasoning_budget = 100;
    p.presence_penalty = 1;
    p.n_top = 2;
    p.n = 2;
    hold(&p);
    gloss_status st = gloss_model_open("tiny", NULL, &m, NULL);
    if (st == GLOSS_OK)
        st = gloss_engine_new(m, &o, &g, NULL);
    if (st == GLOSS_OK)
        st = gloss_submit(g, prompt[0], n_prompt[0], &p, &r, NULL);
    for (int left = 2; st == GLOSS_OK && left > 0;) {
        st = gloss_next(r, &ev, -1);
        if (st == GLOSS_OK && ev.kind == GLOSS_EV_FINISH)
            left--;
        if (st == GLOSS_OK && ev.kind == GLOSS_EV_FINISH && ev.finish == GLOSS_FINISH_ERROR)
            st = ev.err.code;
    }
    gloss_request_free(r);
    gloss_engine_free(g);
    gloss_model_close(m);
    return st;
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    mem_fault_at(0);
    assert_int_equal(whole_path(), GLOSS_OK);
    long total = mem_fault_count(), n_spared = 0;
    /* All of the first and last hundred, and a prime stride through the JSON in between. */
    for (long n = 1; n <= total; n += n < 100 || n > total - 100 ? 1 : 61) {
        mem_fault_at(n);
        gloss_status st = whole_path();
        mem_fault_at(0);
        n_spared += st == GLOSS_OK;
        assert_true(st == GLOSS_OK || st == GLOSS_E_NOMEM);
    }
    assert_true(n_spared <= 2); /* a grammar that can't be kept for the next request */
}

/* Many steps over page and window borders, no allocation. */
static void test_steps_allocate_nothing(void **state)
{
    (void)state;
    gloss_engine *g = engine(2, 64, 1);
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    gloss_request *r[2];
    struct gloss_event ev;
    p.max_tokens = 260;
    p.ignore_eos = 1;
    p.n_top = 5;
    p.top_p = 0.9f;
    p.temperature = 1;
    p.presence_penalty = 0.1f;
    for (int i = 0; i < 2; i++)
        assert_int_equal(gloss_submit(g, prompt[2], n_prompt[2], &p, &r[i], NULL), GLOSS_OK);
    for (int i = 0; i < 10; i++)
        assert_int_equal(gloss_next(r[i % 2], &ev, -1), GLOSS_OK);
    long before = mem_fault_count();
    for (int i = 0; i < 480; i++)
        assert_int_equal(gloss_next(r[i % 2], &ev, -1), GLOSS_OK);
    assert_int_equal(ev.kind, GLOSS_EV_TOKEN);
    assert_int_equal(mem_fault_count(), before);
    gloss_request_free(r[0]);
    gloss_request_free(r[1]);
    gloss_engine_free(g);
}

static gloss_status submit_and_read(gloss_engine *g, uint64_t *hash)
{
    static const char *const stop[] = {"never"};
    int32_t bias_id = 4;
    float bias = 1;
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct gloss_event ev;
    gloss_request *r;
    p.max_tokens = 3;
    p.n = 2;
    p.stop = stop;
    p.n_stop = 1;
    p.reasoning_budget = 100;
    p.frequency_penalty = 1;
    p.min_tokens = 1;
    p.n_top = 2;
    p.stop_ids = &bias_id;
    p.n_stop_ids = 1;
    p.bias_ids = &bias_id;
    p.bias = &bias;
    p.n_bias = 1;
    p.seed = 5;
    p.temperature = 1;
    hold(&p);
    gloss_status st = gloss_submit(g, prompt[1], n_prompt[1], &p, &r, NULL);
    *hash = 0;
    for (int left = st == GLOSS_OK ? 2 : 0; left > 0;) {
        assert_int_equal(gloss_next(r, &ev, -1), GLOSS_OK);
        *hash += (uint64_t)(ev.token + 1) * (uint64_t)(ev.index + 1) * 2654435761;
        left -= ev.kind == GLOSS_EV_FINISH;
        if (ev.kind == GLOSS_EV_FINISH && ev.finish == GLOSS_FINISH_ERROR)
            st = ev.err.code;
    }
    gloss_request_free(r);
    return st;
}

/* With another request running: the failure is the submitter's alone, and no page is lost. */
static void test_failing_submissions_hurt_nobody_else(void **state)
{
    (void)state;
    gloss_engine *g = engine(4, 64, 1);
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct gloss_stats s = GLOSS_INIT(struct gloss_stats);
    struct gloss_event ev;
    gloss_request *other;
    uint64_t want, hash;
    p.max_tokens = 3000;
    p.ignore_eos = 1;
    p.seed = 3;
    p.no_logprobs = 1;
    assert_int_equal(submit_and_read(g, &want), GLOSS_OK);
    assert_int_equal(gloss_submit(g, prompt[3], n_prompt[3], &p, &other, NULL), GLOSS_OK);
    assert_int_equal(gloss_next(other, &ev, -1), GLOSS_OK);
    gloss_status st = GLOSS_E_NOMEM;
    long n = 0;
    while (st != GLOSS_OK) {
        mem_fault_at(++n);
        st = submit_and_read(g, &hash);
        mem_fault_at(0);
        assert_true(st == GLOSS_OK || st == GLOSS_E_NOMEM);
        /* a few at a time: its ring keeps it from reaching its end meanwhile */
        for (int i = 0; i < 5 && gloss_next(other, &ev, 0) == GLOSS_OK; i++)
            assert_int_equal(ev.kind, GLOSS_EV_TOKEN);
    }
    assert_true(n > 25);
    assert_true(hash == want);
    gloss_cancel(other);
    while (gloss_next(other, &ev, -1) == GLOSS_OK && ev.kind != GLOSS_EV_FINISH)
        ;
    gloss_request_free(other);
    assert_int_equal(gloss_engine_drain(g, 10000), GLOSS_OK);
    for (int i = 0; i < 1000 && (i == 0 || s.n_running); i++) { /* as of the last step */
        (void)poll(NULL, 0, 1);
        gloss_engine_stats(g, &s);
    }
    assert_int_equal(s.n_running, 0);
    assert_int_equal(s.n_cancelled, 1);
    assert_int_equal(s.free_full + s.cached_full, s.pages_full);
    assert_int_equal(s.free_window + s.cached_window, s.pages_window);
    gloss_engine_free(g);
}

/* A copy of the tiny model in which one token's embedding is NaN: whoever uses that token fails,
 * the others in the batch get what they get from the sound model. */
static void test_bad_numbers_fail_their_own_request(void **state)
{
    (void)state;
    enum { BAD = 1400, GOOD = 3 };
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json"};
    char dir[] = "/tmp/gloss-test-XXXXXX", path[128];
    struct weights_blob blob = {.config = tiny_config,
                                .n_config = (size_t)(tiny_config_end - tiny_config),
                                .generation_config = tiny_generation,
                                .n_generation_config =
                                    (size_t)(tiny_generation_end - tiny_generation),
                                .tensors = tiny_tensors,
                                .n_tensors = (size_t)(tiny_tensors_end - tiny_tensors)};
    const char *const text[] = {tiny_config, tiny_generation, tiny_tokenizer};
    const char *const text_end[] = {tiny_config_end, tiny_generation_end, tiny_tokenizer_end};
    struct weights *w;
    struct err e;
    assert_int_equal(weights_open_memory(&blob, false, &w, &e), OK);
    size_t row = (size_t)w->embed.n_in * dtype_size(w->embed.dtype);
    size_t at = (size_t)((const uint8_t *)w->embed.p - tiny_tensors) + BAD * row;
    uint8_t *copy = malloc(blob.n_tensors);
    memcpy(copy, tiny_tensors, blob.n_tensors);
    memset(copy + at, 0xff, row); /* NaN in every float format */
    weights_close(w);
    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(file_save(path, text[i], (size_t)(text_end[i] - text[i]), &e), OK);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(file_save(path, copy, blob.n_tensors, &e), OK);
    free(copy);

    gloss_model *sound = model, *bad;
    assert_int_equal(gloss_model_open(dir, NULL, &bad, NULL), GLOSS_OK);
    model = bad;
    gloss_engine *g = engine(8, 64, 1);
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct gloss_event ev;
    gloss_request *r[GOOD], *poisoned;
    struct result res;
    int32_t ids[3] = {5, BAD, 6};
    p.n = 2;
    for (int i = 0; i < GOOD; i++)
        r[i] = submit(g, i);
    assert_int_equal(gloss_submit(g, ids, 3, &p, &poisoned, NULL), GLOSS_OK);
    for (int left = 2; left > 0; left--) {
        assert_int_equal(gloss_next(poisoned, &ev, -1), GLOSS_OK);
        assert_int_equal(ev.kind, GLOSS_EV_FINISH);
        assert_int_equal(ev.finish, GLOSS_FINISH_ERROR);
        assert_int_equal(ev.err.code, GLOSS_E_NUMERIC);
    }
    gloss_request_free(poisoned);
    for (int i = 0; i < GOOD; i++) {
        collect(r[i], &res);
        assert_memory_equal(res.token, alone[i].token, sizeof res.token);
        assert_memory_equal(res.logprob, alone[i].logprob, sizeof res.logprob);
        gloss_request_free(r[i]);
    }
    gloss_engine_free(g);
    gloss_model_close(bad);
    model = sound;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    rmdir(dir);
}

static void test_parameters_are_checked(void **state)
{
    (void)state;
    gloss_engine *g = engine(1, 64, 1);
    struct gloss_params good = GLOSS_INIT(struct gloss_params), p;
    struct gloss_err e;
    gloss_request *r;
    int32_t far = 1 << 20;
    float big = 1e9f;
#define REFUSED(name, ...)                                                                         \
    p = good;                                                                                      \
    __VA_ARGS__;                                                                                   \
    assert_int_equal(gloss_submit(g, prompt[0], n_prompt[0], &p, &r, &e), GLOSS_E_INPUT);          \
    assert_string_equal(e.param, name)
    REFUSED("temperature", p.temperature = -1);
    REFUSED("temperature", p.temperature = NAN);
    REFUSED("top_p", p.top_p = 1.5f);
    REFUSED("min_p", p.min_p = -0.1f);
    REFUSED("top_k", p.top_k = -1);
    REFUSED("n", p.n = 1000);
    REFUSED("n_top", p.n_top = 21);
    REFUSED("max_tokens", p.max_tokens = -5);
    REFUSED("stop_ids", (p.stop_ids = &far, p.n_stop_ids = 1));
    REFUSED("logit_bias", (p.bias_ids = prompt[0], p.bias = &big, p.n_bias = 1));
#undef REFUSED
    gloss_engine_free(g);
}

/* Prompt log-probabilities are those of gloss_score, the sampled one's those of the list. */
static void test_prompt_logprobs(void **state)
{
    (void)state;
    gloss_engine *g = engine(2, 16, 1);
    size_t n = n_prompt[3];
    double *want = calloc(n, sizeof *want);
    int32_t *greedy = calloc(n, sizeof *greedy);
    assert_int_equal(gloss_score(g, prompt[3], n, want, greedy, NULL), GLOSS_OK);
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct gloss_event ev;
    gloss_request *r;
    p.prompt_logprobs = 1;
    p.n_top = 1;
    p.no_header_grammar = 1; /* the first token is the likeliest of all */
    p.max_tokens = 2;
    assert_int_equal(gloss_submit(g, prompt[3], n, &p, &r, NULL), GLOSS_OK);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(gloss_next(r, &ev, -1), GLOSS_OK);
        assert_int_equal(ev.kind, GLOSS_EV_PROMPT);
        assert_int_equal(ev.token, prompt[3][i]);
        assert_int_equal(ev.n_top, i > 0);
        if (i > 0) {
            assert_true((float)want[i] == ev.logprob);
            assert_int_equal(ev.top_ids[0], greedy[i]);
        }
    }
    assert_int_equal(gloss_next(r, &ev, -1), GLOSS_OK);
    assert_int_equal(ev.kind, GLOSS_EV_TOKEN);
    assert_int_equal(ev.top_ids[0], ev.token); /* greedy */
    assert_true(ev.top_logprobs[0] == ev.logprob);
    gloss_request_free(r);
    gloss_engine_free(g);
    free(want);
    free(greedy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_company_changes_nothing),
        cmocka_unit_test(test_chunks_change_nothing),
        cmocka_unit_test(test_cancel_and_free),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_score_is_logits),
        cmocka_unit_test(test_script),
        cmocka_unit_test(test_reasoning_budget),
        cmocka_unit_test(test_stop_texts),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_steps_allocate_nothing),
        cmocka_unit_test(test_failing_submissions_hurt_nobody_else),
        cmocka_unit_test(test_bad_numbers_fail_their_own_request),
        cmocka_unit_test(test_parameters_are_checked),
        cmocka_unit_test(test_prompt_logprobs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
