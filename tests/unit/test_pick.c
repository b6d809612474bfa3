/* Tokens chosen by the backend (struct pick of model/backend.h): a card is played by the CPU
 * backend behind a `pick` that shows the engine no logits but those it asks for. Whatever is mixed,
 * every request must yield the tokens and log-probabilities that the engine's own sampling yields,
 * bit by bit; and a step with bad numbers fails the one request that they belong to.
 */
#include "unit/unit.h"

#include "base/mem.h"
#include "base/num.h"
#include "engine/sample.h"
#include "gloss.h"
#include "model/backend.h"

#include <math.h>

enum { N_REQ = 60, MAX_N = 3, MAX_PROMPT = 60, BAD = 1234 };

static gloss_model *model;
static int32_t *question;
static size_t n_question;

/* ---- the card ---- */

struct fake {
    struct backend base;
    struct backend *cpu;
    struct sample_scratch scratch;
    const float *logits; /* the last step's */
    float *host;         /* [max_logit_rows, n_vocab] rows that were asked for, else NaN */
    int n_vocab, n_logit;
    bool deferred, bad; /* deferred: and no pick yet */
};

/* How often each kind of pick was asked for; the most masks in one call; steps with bad numbers. */
static int n_kind[4], most_masks, n_bad, n_again;
static bool with_bad; /* steps of several sequences, and all that hold BAD */

static struct fake *fake(const struct backend *b)
{
    return (struct fake *)(uintptr_t)b;
}

static void fake_close(struct backend *b)
{
    fake(b)->cpu->close(fake(b)->cpu);
    sample_scratch_close(&fake(b)->scratch);
    mem_free(fake(b)->host);
    mem_free(b);
}

static status fake_kv_init(struct backend *b, const struct kv_plan *plan, struct err *e)
{
    struct fake *f = fake(b);
    f->host = mem_array((size_t)plan->max_logit_rows * (size_t)f->n_vocab, sizeof *f->host);
    assert_non_null(f->host);
    return f->cpu->kv_init(f->cpu, plan, e);
}

static void fake_page_bytes(const struct backend *b, int page_tok, size_t *full, size_t *window)
{
    fake(b)->cpu->kv_page_bytes(fake(b)->cpu, page_tok, full, window);
}

static size_t fake_memory(const struct backend *b)
{
    return fake(b)->cpu->kv_memory(fake(b)->cpu);
}

static void fake_copy(struct backend *b, const struct page_pair *p, int n)
{
    fake(b)->cpu->kv_copy(fake(b)->cpu, p, n);
}

static void fake_swap(struct backend *b, const struct page_pair *p, int n, bool out)
{
    fake(b)->cpu->kv_swap(fake(b)->cpu, p, n, out);
}

static status bad_numbers(struct err *e)
{
    n_bad++;
    return err_set(e, E_NUMERIC, "bad numbers");
}

static status fake_step(struct backend *b, const struct batch *batch, struct step_out *out,
                        struct err *e)
{
    struct fake *f = fake(b);
    assert_false(f->deferred); /* what is deferred is ended before the next step */
    status st = f->cpu->step(f->cpu, batch, out, e);
    f->logits = out->logits;
    f->n_logit = batch->n_logit;
    f->deferred = batch->defer;
    f->bad = with_bad && batch->defer && batch->n_seq > 1;
    for (int i = 0; i < batch->n_row && with_bad; i++)
        f->bad = f->bad || batch->tok[i] == BAD;
    for (size_t i = 0; i < (size_t)batch->n_logit * (size_t)f->n_vocab; i++)
        f->host[i] = NAN;
    if (batch->defer)
        out->logits = NULL;
    else if (f->bad)
        st = bad_numbers(e);
    return st;
}

static status fake_pick(struct backend *b, struct pick *pick, int n, struct err *e)
{
    struct fake *f = fake(b);
    size_t V = (size_t)f->n_vocab;
    int masks = 0;
    assert_int_equal(n, f->n_logit);
    n_again += !f->deferred;
    f->deferred = false;
    if (f->bad)
        return bad_numbers(e);
    for (int i = 0; i < n; i++) {
        struct pick *p = &pick[i];
        const float *row = f->logits + (size_t)i * V;
        double lse = 0;
        bool fresh = p->mask != NULL;
        n_kind[p->kind]++;
        if (p->kind == PICK_LOGITS) {
            p->logits = memcpy(f->host + (size_t)i * V, row, V * sizeof *row);
            continue;
        }
        for (int k = 0; k < i; k++)
            fresh = fresh && pick[k].mask != p->mask;
        masks += fresh;
        if (p->kind == PICK_TOKEN)
            p->token = sample_pick(row, p, p->wants_logprob ? &lse : NULL, &f->scratch);
        else if (p->kind == PICK_LOGPROB)
            lse = sample_lse(row, f->n_vocab);
        p->logprob = (float)((double)row[p->token] - lse);
    }
    most_masks = max_int(most_masks, masks);
    return OK;
}

/* In the place of src/cuda/open_cuda.c's. */
status backend_cuda_open(const struct weights *w, const struct backend_opts *o,
                         struct backend **out, struct err *e)
{
    struct fake *f = mem_calloc(1, sizeof *f);
    assert_non_null(f);
    status st = backend_cpu_open(w, o, &f->cpu, e);
    assert_int_equal(st, OK);
    f->n_vocab = w->spec.n_vocab;
    f->base = (struct backend){.name = "fake",
                               .chunk = f->cpu->chunk,
                               .close = fake_close,
                               .kv_init = fake_kv_init,
                               .kv_page_bytes = fake_page_bytes,
                               .kv_memory = fake_memory,
                               .kv_copy = fake_copy,
                               .kv_swap = fake_swap,
                               .step = fake_step,
                               .pick = fake_pick};
    assert_int_equal(sample_scratch_open(&f->scratch, f->n_vocab), OK);
    *out = &f->base;
    return OK;
}

/* ---- requests ---- */

static int setup(void **state)
{
    (void)state;
    static const char text[] =
        "<|start|>user<|message|>What is 127 + 385?<|end|><|start|>assistant";
    if (gloss_model_open("tiny", NULL, &model, NULL) < 0 ||
        gloss_encode(model, text, sizeof text - 1, GLOSS_SPECIAL_ALLOW, &question, &n_question,
                     NULL) < 0)
        return -1;
    return n_question > MAX_PROMPT;
}

static int teardown(void **state)
{
    (void)state;
    gloss_free(question);
    gloss_model_close(model);
    return 0;
}

static gloss_engine *open_engine(const char *device, int n_guess)
{
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    gloss_engine *g;
    struct gloss_err e;
    o.device = device;
    o.n_thread = 1;
    o.max_requests = 24;
    o.n_ctx = 512;
    o.chunk = 40;
    o.speculate = n_guess;
    if (gloss_engine_new(model, &o, &g, &e) < 0)
        fail_msg("%s", e.msg);
    return g;
}

/* Every second one is held to something: headers, tools, a format. */
static void hold(struct gloss_params *p, int i)
{
    static const char args[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\","
        "\"maxLength\":9},\"b\":{\"type\":\"number\"}},\"required\":[\"a\"]}",
                      pattern[] = "([A-Z][a-z]+ ?){1,9}";
    static const struct gloss_tool tools[] = {
        {.recipient = "functions.f", .schema = args, .n_schema = sizeof args - 1},
        {.recipient = "python", .builtin = 1},
    };
    p->no_analysis = i % 3 > 0;
    p->tools = tools;
    p->n_tools = i % 2 ? 2 : 0;
    p->tool_choice = i % 4 == 1 ? GLOSS_TOOL_CHOICE_REQUIRED : GLOSS_TOOL_CHOICE_AUTO;
    p->format = i % 4 ? GLOSS_FORMAT_REGEX : GLOSS_FORMAT_JSON_SCHEMA;
    p->format_text = i % 4 ? pattern : args;
    p->n_format_text = i % 4 ? sizeof pattern - 1 : sizeof args - 1;
}

/* Some use few words, so that tokens can be guessed: with and without penalties, with and without
 * likeliest tokens, greedily and not. */
static bool is_terse(int i)
{
    return i % 6 == 0 || i % 6 == 4;
}

static int n_choices(int i)
{
    return i % 8 == 6 ? MAX_N : 1;
}

static gloss_request *submit(gloss_engine *g, int i)
{
    int32_t ids[MAX_PROMPT], bias_id[] = {5, 77, 5}, stop_id[] = {300, 301},
                             word[] = {400, 401, 402};
    float bias[] = {3, -2, 1}, only[] = {99, 99, 99};
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct gloss_err e;
    gloss_request *r;
    int n = 1 + i * 7 % MAX_PROMPT;
    for (int k = 0; k < n; k++)
        ids[k] = (k * 31 + (k > 20 ? i * 17 : 0)) % 1500;
    p.max_tokens = 14 + i % 5;
    p.seed = 1 + (uint64_t)i;
    p.temperature = i % 4 ? 0.5f + 0.25f * (float)(i % 5) : 0;
    p.top_p = i % 3 ? 0.9f : 0;
    p.top_k = i % 5 == 1 ? 40 : 0;
    p.min_p = i % 7 == 2 ? 0.05f : 0;
    p.presence_penalty = i % 6 == 3 ? 0.5f : 0;
    p.frequency_penalty = i % 6 == 2 ? 0.3f : 0;
    p.repetition_penalty = i % 6 == 4 ? 1.2f : 0;
    p.bias_ids = bias_id;
    p.bias = bias;
    p.n_bias = i % 9 == 5 ? 3 : 0;
    p.n = n_choices(i);
    p.n_top = i % 10 == 7 ? 3 : 0;
    p.no_logprobs = i % 5 == 3;
    p.prompt_logprobs = i % 16 == 8;
    p.stop_ids = stop_id;
    p.n_stop_ids = i % 11 == 10 ? 2 : 0;
    p.min_tokens = i % 11 == 10 ? 5 : 0;
    if (i % 10 == 9) { /* a question that it thinks about, until the budget ends that */
        memcpy(ids, question, n_question * sizeof *ids);
        n = (int)n_question;
        p.reasoning_budget = 3;
    } else if (i % 2) {
        hold(&p, i / 2);
    }
    for (int k = 0; k < n && is_terse(i); k++)
        ids[k] = word[ids[k] % 3];
    if (is_terse(i)) {
        p.bias_ids = word;
        p.bias = only;
        p.n_bias = 3;
        p.max_tokens += 25;
    }
    if (gloss_submit(g, ids, (size_t)n, &p, &r, &e) < 0)
        fail_msg("%s", e.msg);
    return r;
}

static void mix(uint64_t *h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *h = (*h ^ ((const uint8_t *)p)[i]) * 0x100000001b3;
}

/* Everything that the choices of a request say, as a hash for each; returns the last error. */
static int collect(gloss_request *r, int n, uint64_t hash[MAX_N])
{
    int code = 0;
    memset(hash, 0, MAX_N * sizeof *hash);
    for (int left = n; left > 0;) {
        struct gloss_event ev;
        assert_int_equal(gloss_next(r, &ev, -1), GLOSS_OK);
        uint64_t *h = &hash[ev.index];
        mix(h, &ev.kind, sizeof ev.kind);
        mix(h, &ev.token, sizeof ev.token);
        int is_nan = isnan(ev.logprob) != 0;
        mix(h, is_nan ? (void *)&is_nan : &ev.logprob, 4);
        mix(h, ev.top_ids, (size_t)ev.n_top * sizeof *ev.top_ids);
        mix(h, ev.top_logprobs, (size_t)ev.n_top * sizeof *ev.top_logprobs);
        mix(h, &ev.finish, sizeof ev.finish);
        if (ev.kind == GLOSS_EV_FINISH) {
            code = ev.finish == GLOSS_FINISH_ERROR ? ev.err.code : code;
            left--;
        }
    }
    gloss_request_free(r);
    return code;
}

static struct gloss_stats run(const char *device, int n_guess, uint64_t hash[][MAX_N])
{
    gloss_engine *g = open_engine(device, n_guess);
    struct gloss_stats s = GLOSS_INIT(struct gloss_stats);
    gloss_request *r[N_REQ];
    for (int i = 0; i < N_REQ; i++)
        r[i] = submit(g, i);
    for (int i = 0; i < N_REQ; i++)
        assert_int_equal(collect(r[i], n_choices(i), hash[i]), GLOSS_OK);
    gloss_engine_stats(g, &s);
    gloss_engine_free(g);
    return s;
}

static void test_same_tokens(void **state)
{
    (void)state;
    static uint64_t cpu[N_REQ][MAX_N], card[N_REQ][MAX_N];
    (void)run("cpu", -1, cpu);
    assert_int_equal(n_kind[PICK_TOKEN], 0);
    for (int guess = 0; guess < 2; guess++) {
        struct gloss_stats s = run("cuda", guess ? 7 : -1, card);
        for (int i = 0; i < N_REQ; i++)
            if (memcmp(cpu[i], card[i], sizeof cpu[i]) != 0)
                fail_msg("request %d differs", i);
        printf("%llu of %llu guesses right, %d further picks in a step\n",
               (unsigned long long)s.n_accept, (unsigned long long)s.n_draft, n_again);
        assert_true(guess ? s.n_accept > 100 && s.n_draft > s.n_accept && n_again > 50
                          : s.n_draft == 0 && n_again == 0);
    }
    printf("%d tokens, %d log-probabilities, %d rows to the host, %d unused; up to %d masks\n",
           n_kind[PICK_TOKEN], n_kind[PICK_LOGPROB], n_kind[PICK_LOGITS], n_kind[PICK_NONE],
           most_masks);
    for (int k = 0; k < 4; k++)
        assert_true(n_kind[k] > 0);
    assert_true(n_kind[PICK_TOKEN] > n_kind[PICK_LOGITS] && most_masks > 2);
}

static gloss_status keep_row(void *ctx, const float *logits, int n_vocab)
{
    for (int i = 0; i < n_vocab; i++)
        mix(ctx, &logits[i], sizeof logits[i]);
    return GLOSS_OK;
}

static void test_same_rows(void **state)
{
    (void)state;
    static const char *const device[] = {"cpu", "cuda"};
    uint64_t hash[2] = {0};
    int32_t ids[100];
    for (int i = 0; i < 100; i++)
        ids[i] = i * 11 % 1500;
    for (int d = 0; d < 2; d++) {
        gloss_engine *g = open_engine(device[d], 0);
        double logprob[100];
        int32_t greedy[100];
        assert_int_equal(gloss_logits(g, ids, 100, 0, 0, keep_row, &hash[d], NULL), GLOSS_OK);
        assert_int_equal(gloss_score(g, ids, 100, logprob, greedy, NULL), GLOSS_OK);
        mix(&hash[d], logprob + 1, sizeof logprob - sizeof *logprob);
        mix(&hash[d], greedy + 1, sizeof greedy - sizeof *greedy);
        gloss_engine_free(g);
    }
    assert_true(hash[0] == hash[1]);
}

/* Every step of several sequences has to be repeated one by one; what a budget dictates must still
 * be dictated once. */
static void test_bad_numbers(void **state)
{
    (void)state;
    enum { GOOD = 10 };
    uint64_t want[GOOD][MAX_N], got[MAX_N];
    gloss_request *r[GOOD], *poisoned;
    gloss_engine *g = open_engine("cuda", 5);
    for (int i = 0; i < GOOD; i++)
        r[i] = submit(g, 30 + i);
    for (int i = 0; i < GOOD; i++)
        assert_int_equal(collect(r[i], n_choices(30 + i), want[i]), GLOSS_OK);
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    int32_t bias_id = BAD, first[] = {7, 8};
    float bias = 1000;
    p.bias_ids = &bias_id;
    p.bias = &bias;
    p.n_bias = 1;
    p.no_header_grammar = 1;
    p.max_tokens = 9;
    n_bad = 0;
    with_bad = true;
    for (int i = 0; i < GOOD; i++)
        r[i] = submit(g, 30 + i);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(gloss_submit(g, first, 2, &p, &poisoned, NULL), GLOSS_OK);
        assert_int_equal(collect(poisoned, 1, got), GLOSS_E_NUMERIC);
    }
    for (int i = 0; i < GOOD; i++) {
        assert_int_equal(collect(r[i], n_choices(30 + i), got), GLOSS_OK);
        if (memcmp(got, want[i], sizeof got) != 0)
            fail_msg("request %d differs", 30 + i);
    }
    with_bad = false;
    assert_true(n_bad > 10); /* steps of many, repeated */
    gloss_engine_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_tokens),
        cmocka_unit_test(test_same_rows),
        cmocka_unit_test(test_bad_numbers),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
