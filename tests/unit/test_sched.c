/* Many requests at once on few pages: whatever the scheduler does (chunks, preemption, prefix
 * hits, forks, tokens guessed ahead), every request yields the tokens and log-probabilities it
 * yields alone and unguessed, bit by bit. And what must never happen: lost pages, one tenant
 * starving another, a slow reader stalling others, a reader waiting for ever.
 *
 * `test_sched --device cuda [TEST]` runs the same on a card, which has to be deterministic.
 */
#include "unit/unit.h"

#include "base/clock.h"
#include "base/rng.h"
#include "gloss.h"
#include "seed.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { N_REQ = 256, MAX_PROMPT = 76, MAX_TOK = 12, MAX_ANSWER = 48, MAX_N = 2, N_VOCAB = 1500 };

static gloss_model *model;
static uint64_t seed;
static const char *device = "cpu";

static int setup(void **state)
{
    (void)state;
    seed = test_seed();
    printf("seed %llu\n", (unsigned long long)seed);
    return gloss_model_open("tiny", NULL, &model, NULL);
}

static int teardown(void **state)
{
    (void)state;
    gloss_model_close(model);
    return 0;
}

/* ---- 256 mixed requests ---- */

static uint32_t draw(uint64_t stream, uint64_t i, uint32_t n)
{
    uint32_t r[4];
    rng_block(seed, stream, i, r);
    return r[0] % n;
}

/* Some use few words, so that what comes next can be guessed, and guessed wrong. */
static bool is_terse(int i)
{
    return i % 5 == 2;
}

static const int32_t words[] = {300, 301, 302, 303};
enum { WORDS = sizeof words / sizeof *words };

/* Requests share beginnings of three lengths, so that the cache has something to find. */
static int make_prompt(int i, int32_t *ids)
{
    int n = 1 + (int)draw(1, (uint64_t)i, MAX_PROMPT), shared = (int)draw(2, (uint64_t)i, 3) * 35;
    for (int k = 0; k < n; k++)
        ids[k] = (int32_t)(k < shared ? draw(3, (uint64_t)k, N_VOCAB)
                                      : draw(4, (uint64_t)(i * MAX_PROMPT + k), N_VOCAB));
    for (int k = 0; k < n && is_terse(i); k++)
        ids[k] = words[ids[k] % WORDS];
    return n;
}

/* Every third one is held to something: tools, a format, both; some write their headers freely. */
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
    p->max_tokens += 16; /* past the header */
    p->no_analysis = i % 2;
    p->no_header_grammar = i % 5 == 0;
    p->tools = tools;
    p->n_tools = i % 4 < 2 ? 2 : 0;
    p->tool_choice = i % 4 == 1 && i % 5 ? GLOSS_TOOL_CHOICE_REQUIRED : GLOSS_TOOL_CHOICE_AUTO;
    p->format = i % 7 < 3   ? GLOSS_FORMAT_REGEX
                : i % 7 < 5 ? GLOSS_FORMAT_JSON_SCHEMA
                            : GLOSS_FORMAT_TEXT;
    p->format_text = i % 7 < 3 ? pattern : args;
    p->n_format_text = i % 7 < 3 ? sizeof pattern - 1 : sizeof args - 1;
}

static gloss_request *submit(gloss_engine *g, int i)
{
    static const char *const stop[] = {"e", "the answer"};
    int32_t ids[MAX_PROMPT], bias_id[] = {5, 77};
    float bias[] = {3, -2}, only[WORDS] = {99, 99, 99, 99};
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    p.max_tokens = 1 + i % MAX_TOK;
    p.seed = 1 + (uint64_t)i;
    p.temperature = i % 4 ? 0.5f + 0.25f * (float)(i % 5) : 0;
    p.top_p = i % 3 ? 0.9f : 0;
    p.top_k = i % 5 == 1 ? 40 : 0;
    p.min_p = i % 7 == 2 ? 0.05f : 0;
    p.presence_penalty = i % 6 == 3 ? 0.5f : 0;
    p.repetition_penalty = i % 6 == 4 ? 1.2f : 0;
    p.bias_ids = bias_id;
    p.bias = bias;
    p.n_bias = i % 9 == 5 ? 2 : 0;
    if (is_terse(i)) {
        p.bias_ids = words;
        p.bias = only;
        p.n_bias = WORDS;
        p.max_tokens += 12;
    }
    p.n = i % 8 == 6 ? MAX_N : 1;
    p.n_top = i % 10 == 7 ? 3 : 0;
    p.prompt_logprobs = i % 16 == 8;
    p.stop = stop;
    p.n_stop = i % 11 == 9 ? 2 : 0;
    p.min_tokens = i % 11 == 10 ? 3 : 0;
    p.ignore_eos = i % 2;
    p.tenant = (uint64_t)(i % 3);
    p.priority = i % 13 == 0;
    if (i % 3 == 0)
        hold(&p, i / 3);
    gloss_request *r;
    struct gloss_err e;
    int n = make_prompt(i, ids);
    if (gloss_submit(g, ids, (size_t)n, &p, &r, &e) < 0)
        fail_msg("%s", e.msg);
    return r;
}

/* What a request says: its events' numbers, and the choices' tokens for a message. */
struct result {
    uint64_t hash[MAX_N];
    int n_token[MAX_N];
    int32_t token[MAX_N][MAX_ANSWER];
    float logprob[MAX_N][MAX_ANSWER];
    int n_event;
};

static void mix(uint64_t *h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *h = (*h ^ ((const uint8_t *)p)[i]) * 0x100000001b3;
}

static void collect(gloss_request *r, int n, struct result *res)
{
    *res = (struct result){0};
    for (int left = n; left > 0;) {
        struct gloss_event ev;
        assert_int_equal(gloss_next(r, &ev, -1), GLOSS_OK);
        uint64_t *h = &res->hash[ev.index];
        mix(h, &ev.kind, sizeof ev.kind);
        mix(h, &ev.token, sizeof ev.token);
        if (ev.logprob == ev.logprob)
            mix(h, &ev.logprob, sizeof ev.logprob);
        mix(h, &ev.n_hide, sizeof ev.n_hide);
        mix(h, ev.top_ids, (size_t)ev.n_top * sizeof *ev.top_ids);
        mix(h, ev.top_logprobs, (size_t)ev.n_top * sizeof *ev.top_logprobs);
        mix(h, &ev.finish, sizeof ev.finish);
        mix(h, &ev.i_stop, sizeof ev.i_stop);
        res->n_event++;
        int *at = &res->n_token[ev.index];
        if (ev.kind == GLOSS_EV_TOKEN && *at < MAX_ANSWER) {
            res->token[ev.index][*at] = ev.token;
            res->logprob[ev.index][(*at)++] = ev.logprob;
        }
        if (ev.kind == GLOSS_EV_FINISH) {
            assert_int_not_equal(ev.finish, GLOSS_FINISH_ERROR);
            left--;
        }
    }
    struct gloss_event ev;
    assert_int_equal(gloss_next(r, &ev, 0), GLOSS_E_STATE);
}

/* Where the answers part, on stderr; whether they do. */
static bool differs(int i_request, const struct result *got, const struct result *want)
{
    if (memcmp(got->hash, want->hash, sizeof got->hash) == 0)
        return false;
    for (int c = 0; c < MAX_N; c++) {
        int at = 0, n = got->n_token[c] < want->n_token[c] ? got->n_token[c] : want->n_token[c];
        if (got->hash[c] == want->hash[c])
            continue;
        while (at < n && got->token[c][at] == want->token[c][at] &&
               memcmp(&got->logprob[c][at], &want->logprob[c][at], sizeof(float)) == 0)
            at++;
        fprintf(stderr, "request %d, choice %d: %d tokens for %d", i_request, c, got->n_token[c],
                want->n_token[c]);
        if (at < n)
            fprintf(stderr, "; number %d is %d (%.9g) for %d (%.9g)", at, got->token[c][at],
                    got->logprob[c][at], want->token[c][at], want->logprob[c][at]);
        fprintf(stderr, "\n");
    }
    return true;
}

/* Everything that must not make a difference. */
struct knobs {
    int max_requests, chunk, pages, speculate;
    bool cache;
    int swap_pages; /* about so many of each kind of layer */
};

static gloss_engine *open_engine(struct knobs k)
{
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    struct gloss_err e;
    gloss_engine *g;
    o.device = device;
    o.deterministic = 1;
    o.arith = strcmp(device, "cpu") == 0 ? GLOSS_ARITH_Q8 : GLOSS_ARITH_DEFAULT; /* the fastest */
    o.n_thread = 1; /* a busy machine makes barriers slow; test_engine has more threads */
    o.max_requests = k.max_requests;
    o.chunk = k.chunk;
    o.n_ctx = 512;
    o.no_prefix_cache = !k.cache;
    o.speculate = k.speculate;
    struct gloss_info info;
    gloss_model_info(model, &info);
    uint64_t page = 32 * (uint64_t)(info.kv_bytes_full + info.kv_bytes_window);
    o.memory_bytes = (uint64_t)k.pages * page;
    o.swap_bytes = (uint64_t)k.swap_pages * page;
    if (gloss_engine_new(model, &o, &g, &e) < 0)
        fail_msg("%s", e.msg);
    return g;
}

static struct gloss_stats stats(gloss_engine *g)
{
    struct gloss_stats s = GLOSS_INIT(struct gloss_stats);
    gloss_engine_stats(g, &s);
    return s;
}

/* When nobody runs, what is not free is the cache's. */
static void assert_at_rest(gloss_engine *g)
{
    struct gloss_stats s;
    uint64_t start = clock_ns();
    do {
        (void)poll(NULL, 0, 1);
        s = stats(g);
    } while ((s.n_running || s.n_waiting || s.free_full + s.cached_full != s.pages_full ||
              s.free_window + s.cached_window != s.pages_window) &&
             clock_ms_since(start) < 10000);
    assert_int_equal(s.n_running + s.n_waiting, 0);
    assert_int_equal(s.free_full + s.cached_full, s.pages_full);
    assert_int_equal(s.free_window + s.cached_window, s.pages_window);
}

/* The requests' results against those alone, and what such an engine has to have been through;
 * returns how many differ. */
static int check_all(gloss_engine *g, gloss_request **r, const struct knobs *k,
                     const struct result *alone)
{
    int n_differ = 0;
    for (int i = 0; i < N_REQ; i++) {
        struct result res;
        collect(r[i], i % 8 == 6 ? MAX_N : 1, &res);
        n_differ += differs(i, &res, &alone[i]);
        gloss_request_free(r[i]);
    }
    if (n_differ)
        fprintf(stderr, "%d requests differ: chunk %d, cache %d, %d guesses, %d places\n", n_differ,
                k->chunk, k->cache, k->speculate, k->swap_pages);
    struct gloss_stats s = stats(g);
    printf("chunk %3d cache %d: %llu steps, %llu rows, %llu preempted, %llu of %llu reused, "
           "%llu evicted, %llu guessed, %llu right, pages out %llu, in %llu\n",
           k->chunk, k->cache, (unsigned long long)s.n_step, (unsigned long long)s.n_row,
           (unsigned long long)s.n_preempt, (unsigned long long)s.prompt_reused,
           (unsigned long long)s.prompt_tokens, (unsigned long long)s.n_evict,
           (unsigned long long)s.n_draft, (unsigned long long)s.n_accept,
           (unsigned long long)s.n_swap_out, (unsigned long long)s.n_swap_in);
    assert_true(s.n_preempt > 0);
    assert_true(k->swap_pages ? s.n_swap_in > 0 && s.n_swap_in <= s.n_swap_out : s.n_swap_out == 0);
    assert_true(!k->cache || (s.prompt_reused > 0 && s.n_evict > 0));
    assert_true(k->speculate < 0 ? s.n_draft == 0 : s.n_accept > 0 && s.n_accept < s.n_draft);
    assert_at_rest(g);
    gloss_engine_free(g);
    return n_differ;
}

/* Two engines at a time, as they have a thread each. */
static void test_256_as_if_alone(void **state)
{
    (void)state;
    enum { RUNS = 6, PAIR = 2 };
    static struct result alone[N_REQ];
    static gloss_request *r[PAIR][N_REQ];
    static const struct knobs all[RUNS] = {
        {48, 1, 4, -1, true, 0},     {48, 7, 5, 15, false, 400}, {48, 64, 8, -1, false, 20},
        {48, 512, 16, 3, true, 400}, {48, 7, 5, -1, true, 5},    {48, 64, 8, 15, true, 0},
    };
    gloss_engine *g[PAIR];
    for (int k = 0; k < PAIR; k++)
        g[k] = open_engine((struct knobs){1, 64, 64, -1, false, 0});
    for (int i = 0; i < N_REQ; i++)
        r[0][i] = submit(g[i % PAIR], i);
    for (int i = 0; i < N_REQ; i++) {
        collect(r[0][i], i % 8 == 6 ? MAX_N : 1, &alone[i]);
        gloss_request_free(r[0][i]);
    }
    for (int k = 0; k < PAIR; k++) {
        assert_int_equal(stats(g[k]).n_preempt, 0);
        gloss_engine_free(g[k]);
    }
    int n_differ = 0;
    for (int at = 0; at < RUNS; at += PAIR) {
        for (int k = 0; k < PAIR; k++)
            g[k] = open_engine(all[at + k]);
        for (int i = 0; i < N_REQ; i++)
            for (int k = 0; k < PAIR; k++)
                r[k][i] = submit(g[k], i);
        for (int k = 0; k < PAIR; k++)
            n_differ += check_all(g[k], r[k], &all[at + k], alone);
    }
    assert_int_equal(n_differ, 0);
}

/* ---- tokens guessed ahead ---- */

/* A long answer of few words: guesses, right and wrong ones, over the borders of pages and beyond
 * the window; then the same conversation goes on from the cache. */
static uint64_t ramble(int n_guess, float temperature, float repetition, struct gloss_stats *st)
{
    enum { PROMPT = 40, LONG = 420 };
    gloss_engine *g = open_engine((struct knobs){2, 64, 32, n_guess, true, 0});
    uint64_t h = 0;
    int32_t ids[512];
    float only[WORDS] = {99, 99, 99, 99};
    int n = PROMPT;
    for (int i = 0; i < n; i++)
        ids[i] = words[draw(40, (uint64_t)i, WORDS)];
    for (int turn = 0; turn < 2; turn++) {
        struct gloss_params p = GLOSS_INIT(struct gloss_params);
        gloss_request *r;
        struct gloss_event ev;
        p.max_tokens = turn ? 20 : LONG;
        p.plain = 1;
        p.ignore_eos = 1;
        p.bias_ids = words;
        p.bias = only;
        p.n_bias = WORDS;
        p.seed = 5;
        p.temperature = temperature;
        p.repetition_penalty = repetition;
        assert_int_equal(gloss_submit(g, ids, (size_t)n, &p, &r, NULL), GLOSS_OK);
        while (gloss_next(r, &ev, -1) == GLOSS_OK && ev.kind == GLOSS_EV_TOKEN) {
            mix(&h, &ev.token, sizeof ev.token);
            mix(&h, &ev.logprob, sizeof ev.logprob);
            ids[n++] = ev.token;
        }
        assert_int_equal(ev.finish, GLOSS_FINISH_LENGTH);
        assert_true(turn == 0 || ev.n_reused > LONG);
        gloss_request_free(r);
    }
    assert_at_rest(g);
    *st = stats(g);
    gloss_engine_free(g);
    return h;
}

static void test_guesses_change_nothing(void **state)
{
    (void)state;
    static const float how[][2] = {{0, 0}, {1, 0}, {2, 1.1f}};
    static const int n_guess[] = {1, 6, 40, 0};
    struct gloss_stats plain, s;
    for (int i = 0; i < 3; i++) {
        uint64_t want = ramble(-1, how[i][0], how[i][1], &plain);
        assert_int_equal(plain.n_draft, 0);
        for (int k = 0; k < 4; k++) {
            uint64_t got = ramble(n_guess[k], how[i][0], how[i][1], &s);
            printf("temperature %.0f, %d guesses: %llu of %llu right, %llu steps for %llu\n",
                   (double)how[i][0], n_guess[k], (unsigned long long)s.n_accept,
                   (unsigned long long)s.n_draft, (unsigned long long)s.n_step,
                   (unsigned long long)plain.n_step);
            assert_true(got == want);
            assert_true(s.n_accept <= s.n_draft && s.computed_tokens == plain.computed_tokens);
            assert_true(n_guess[k] == 0 || (s.n_accept > 0 && s.n_step < plain.n_step));
        }
    }
}

/* Guesses take logit rows that a prompt's log-probabilities need, too: these go on all the same. */
static void test_guesses_starve_nobody(void **state)
{
    (void)state;
    enum { RAMBLERS = 3 };
    gloss_engine *g = open_engine((struct knobs){RAMBLERS + 1, 64, 64, 64, false, 0});
    gloss_request *r[RAMBLERS + 1];
    uint64_t t_end[RAMBLERS + 1] = {0};
    int32_t ids[100];
    float only = 99;
    for (int i = 0; i < 100; i++)
        ids[i] = words[0];
    for (int i = 0; i <= RAMBLERS; i++) {
        struct gloss_params p = GLOSS_INIT(struct gloss_params);
        p.plain = p.ignore_eos = 1;
        p.bias_ids = words;
        p.bias = &only;
        p.n_bias = i < RAMBLERS;
        p.max_tokens = i < RAMBLERS ? 250 : 1;
        p.prompt_logprobs = i == RAMBLERS;
        assert_int_equal(gloss_submit(g, ids, 100, &p, &r[i], NULL), GLOSS_OK);
    }
    for (int left = RAMBLERS + 1; left > 0;)
        for (int i = 0; i <= RAMBLERS; i++) {
            struct gloss_event ev;
            while (gloss_next(r[i], &ev, 1) == GLOSS_OK)
                if (ev.kind == GLOSS_EV_FINISH) {
                    t_end[i] = ev.t_ns;
                    left--;
                }
        }
    for (int i = 0; i < RAMBLERS; i++)
        assert_true(t_end[RAMBLERS] < t_end[i]);
    struct gloss_stats s = stats(g);
    assert_true(s.n_accept > 0);
    for (int i = 0; i <= RAMBLERS; i++)
        gloss_request_free(r[i]);
    gloss_engine_free(g);
}

/* ---- pages in the host's memory ---- */

/* Contexts beyond the window that don't fit together: those that give way come back from the host's
 * memory, with what the prefix cache kept or without. */
static uint64_t crowd(struct knobs k, struct gloss_stats *st)
{
    enum { MANY = 4, PROMPT = 200 };
    gloss_engine *g = open_engine(k);
    gloss_request *r[MANY];
    uint64_t h = 0;
    for (int i = 0; i < MANY; i++) {
        struct gloss_params p = GLOSS_INIT(struct gloss_params);
        int32_t ids[PROMPT + MANY];
        for (int j = 0; j < PROMPT + i; j++)
            ids[j] = (int32_t)draw(50, (uint64_t)(j < 70 ? j : j + 1000 * i), N_VOCAB - 100);
        p.max_tokens = 90;
        p.plain = 1;
        p.ignore_eos = 1;
        p.temperature = 1;
        p.seed = 1 + (uint64_t)i;
        assert_int_equal(gloss_submit(g, ids, (size_t)(PROMPT + i), &p, &r[i], NULL), GLOSS_OK);
    }
    for (int i = 0; i < MANY; i++) {
        struct result res;
        collect(r[i], 1, &res);
        mix(&h, res.hash, sizeof *res.hash);
        gloss_request_free(r[i]);
    }
    assert_at_rest(g);
    *st = stats(g);
    gloss_engine_free(g);
    return h;
}

static void test_swapped_beyond_the_window(void **state)
{
    (void)state;
    struct gloss_stats alone, s, again;
    uint64_t want = crowd((struct knobs){1, 64, 64, -1, false, 0}, &alone);
    for (int cache = 0; cache < 2; cache++) {
        assert_true(crowd((struct knobs){4, 64, 20, 4, cache, 0}, &again) == want);
        assert_true(crowd((struct knobs){4, 64, 20, 4, cache, 100}, &s) == want);
        printf("cache %d: %llu rows, swapped %llu rows: %llu preempted, pages out %llu, in %llu\n",
               cache, (unsigned long long)again.n_row, (unsigned long long)s.n_row,
               (unsigned long long)s.n_preempt, (unsigned long long)s.n_swap_out,
               (unsigned long long)s.n_swap_in);
        assert_true(again.n_preempt > 0 && s.n_swap_in > 0);
        assert_true(again.computed_tokens > alone.computed_tokens);
        assert_int_equal(s.computed_tokens, alone.computed_tokens); /* nothing twice */
    }
}

/* ---- an agent's conversation ---- */

/* Twenty turns with tool calls, each prompt the last one with the model's output and a tool's
 * result appended; then the turn is closed, its analysis dropped, and the next begins. */
static void talk(gloss_engine *g, bool cached, uint64_t *hash)
{
    enum { TURNS = 20, CAP = 8192, GEN = 30 };
    static int32_t ids[CAP], kept[CAP], known[CAP];
    int32_t *start, *message, *end;
    size_t n_tok;
    assert_int_equal(gloss_encode(model, "<|start|>", 9, GLOSS_SPECIAL_ALLOW, &start, &n_tok, NULL),
                     0);
    assert_int_equal(
        gloss_encode(model, "<|message|>", 11, GLOSS_SPECIAL_ALLOW, &message, &n_tok, NULL), 0);
    assert_int_equal(gloss_encode(model, "<|end|>", 7, GLOSS_SPECIAL_ALLOW, &end, &n_tok, NULL), 0);
    int n = 0, n_kept = 0, n_known = 0;
    for (int i = 0; i < 90; i++) /* system, developer, tools */
        kept[n_kept++] = (int32_t)draw(7, (uint64_t)i, N_VOCAB - 100);
    for (int turn = 0; turn < TURNS; turn++) {
        /* the user's message; every third turn the analysis so far is dropped with it */
        bool closed = turn % 3 == 0;
        if (closed) {
            memcpy(ids, kept, sizeof kept);
            n = n_kept;
        }
        ids[n++] = *start;
        for (int i = 0; i < 5 + turn * 3; i++)
            ids[n++] = (int32_t)draw(8, (uint64_t)(turn * 100 + i), N_VOCAB - 100);
        ids[n++] = *end;
        if (closed) {
            n_kept = n;
            memcpy(kept, ids, sizeof kept);
            /* the answer that stays: a final message in the place of all the rest */
            kept[n_kept++] = *start;
            kept[n_kept++] = *message;
            for (int i = 0; i < 12; i++)
                kept[n_kept++] = (int32_t)draw(9, (uint64_t)(turn * 100 + i), N_VOCAB - 100);
            kept[n_kept++] = *end;
        }
        ids[n++] = *start;
        ids[n++] = 77;
        /* New is what follows the longest beginning in common with what was computed before. */
        int common = 0;
        while (common < n && common < n_known && ids[common] == known[common])
            common++;
        if (closed) {
            /* against the kept beginning, computed as part of the turn that it was first sent in */
            int k = 0;
            while (k < n && k < n_kept && ids[k] == kept[k])
                k++;
            assert_true(k > 0);
        }
        struct gloss_params p = GLOSS_INIT(struct gloss_params);
        p.max_tokens = GEN;
        p.temperature = 1;
        p.seed = 1 + (uint64_t)turn;
        p.ignore_eos = 1;
        gloss_request *r;
        struct gloss_event ev;
        assert_int_equal(gloss_submit(g, ids, (size_t)n, &p, &r, NULL), GLOSS_OK);
        int n_prompt = n;
        for (;;) {
            assert_int_equal(gloss_next(r, &ev, -1), GLOSS_OK);
            if (ev.kind == GLOSS_EV_FINISH)
                break;
            ids[n++] = ev.token;
            mix(hash, &ev.token, sizeof ev.token);
            mix(hash, &ev.logprob, sizeof ev.logprob);
        }
        gloss_request_free(r);
        if (cached) {
            if (ev.n_computed > n_prompt - common + 32)
                fail_msg("turn %d: %d of %d computed, %d new", turn, ev.n_computed, n_prompt,
                         n_prompt - common);
            assert_int_equal(ev.n_reused + ev.n_computed, n_prompt);
        }
        memcpy(known, ids, sizeof known);
        n_known = n - 1; /* the last token was never fed */
    }
    gloss_free(start);
    gloss_free(message);
    gloss_free(end);
}

static void test_agent_conversation(void **state)
{
    (void)state;
    uint64_t with = 0, without = 0;
    gloss_engine *g;
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    o.device = device;
    o.deterministic = 1;
    o.n_thread = 1;
    o.n_ctx = 4096;
    assert_int_equal(gloss_engine_new(model, &o, &g, NULL), GLOSS_OK);
    talk(g, true, &with);
    assert_at_rest(g);
    gloss_engine_free(g);
    o.no_prefix_cache = 1;
    assert_int_equal(gloss_engine_new(model, &o, &g, NULL), GLOSS_OK);
    talk(g, false, &without);
    gloss_engine_free(g);
    assert_true(with == without);
}

/* ---- tenants ---- */

static void one(gloss_engine *g, uint64_t tenant, const int32_t *ids, int n, struct gloss_event *ev)
{
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    gloss_request *r;
    p.max_tokens = 1;
    p.tenant = tenant;
    assert_int_equal(gloss_submit(g, ids, (size_t)n, &p, &r, NULL), GLOSS_OK);
    while (gloss_next(r, ev, -1) == GLOSS_OK && ev->kind != GLOSS_EV_FINISH)
        ;
    gloss_request_free(r);
}

static void test_tenants_share_nothing(void **state)
{
    (void)state;
    gloss_engine *g = open_engine((struct knobs){2, 64, 64, 0, true, 0});
    struct gloss_event ev;
    int32_t ids[100];
    for (int i = 0; i < 100; i++)
        ids[i] = i;
    one(g, 1, ids, 100, &ev);
    assert_int_equal(ev.n_reused, 0);
    one(g, 2, ids, 100, &ev);
    assert_int_equal(ev.n_reused, 0);
    one(g, 1, ids, 100, &ev); /* the paired check: the same tenant does hit */
    assert_int_equal(ev.n_reused, 96);
    ids[50] = 7;
    one(g, 1, ids, 100, &ev);
    assert_int_equal(ev.n_reused, 32);
    gloss_engine_free(g);
}

static const char brisk[] = "{\"text\":\"<|channel|>final<|message|>a b c d e f g h i j k l m\"}";
/* About 40 ms a request: submitting all of them takes less than serving a few. */
static const char leisurely[] = "{\"text\":\"<|channel|>final<|message|>a b c d\",\"delay_ms\":5}";

static gloss_engine *scripted(const char *script, int max_requests, int max_queue, int n_ctx,
                              int n_guess)
{
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    gloss_engine *g;
    o.max_requests = max_requests;
    o.max_queue = max_queue;
    o.n_ctx = n_ctx;
    o.script = script;
    o.n_script = strlen(script);
    o.speculate = n_guess;
    assert_int_equal(gloss_engine_new(model, &o, &g, NULL), GLOSS_OK);
    return g;
}

/* Everything a scripted engine says; *st what it cost. */
static uint64_t recite(const char *script, int n_guess, struct gloss_stats *st)
{
    gloss_engine *g = scripted(script, 1, 1, 2048, n_guess);
    gloss_request *r;
    struct result res;
    int32_t ids[4] = {1, 2, 3, 4};
    assert_int_equal(gloss_submit(g, ids, 4, NULL, &r, NULL), GLOSS_OK);
    collect(r, 1, &res);
    gloss_request_free(r);
    assert_at_rest(g);
    *st = stats(g);
    gloss_engine_free(g);
    return res.hash[0];
}

/* A text that repeats itself is mostly guessed, many tokens a step; a script's pauses are kept. */
static void test_repeated_text(void **state)
{
    (void)state;
    enum { ITEMS = 60 };
    char script[8192];
    size_t n = (size_t)snprintf(script, sizeof script, "{\"text\":\"<|channel|>final<|message|>");
    for (int i = 0; i < ITEMS; i++)
        n += (size_t)snprintf(script + n, sizeof script - n,
                              "{'name': 'lamp', 'kind': 'red', 'number': %d}, ", i * 17 % 7);
    snprintf(script + n, sizeof script - n, "\"}");
    struct gloss_stats plain, guess, paced;
    uint64_t want = recite(script, -1, &plain);
    assert_true(recite(script, 15, &guess) == want);
    printf("%llu tokens: %llu of %llu guesses right, %llu steps\n",
           (unsigned long long)plain.generated_tokens, (unsigned long long)guess.n_accept,
           (unsigned long long)guess.n_draft, (unsigned long long)guess.n_step);
    assert_int_equal(guess.generated_tokens, plain.generated_tokens);
    assert_true(guess.n_accept > plain.generated_tokens * 4 / 5);
    assert_true(guess.n_step < plain.n_step / 5);
    snprintf(script + n, sizeof script - n, "\",\"delay_ms\":0.1}");
    assert_true(recite(script, 15, &paced) == want);
    assert_int_equal(paced.n_draft, 0);
}

/* One tenant fills the queue; another's single request goes before the rest of it. */
static void test_fair_between_tenants(void **state)
{
    (void)state;
    enum { MANY = 40 };
    gloss_engine *g = scripted(leisurely, 1, 200, 512, 0);
    int32_t ids[64] = {0};
    gloss_request *r[MANY + 1];
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    uint64_t t_end[MANY + 1] = {0};
    for (int i = 0; i <= MANY; i++) {
        p.tenant = i == MANY ? 2 : 1;
        assert_int_equal(gloss_submit(g, ids, 64, &p, &r[i], NULL), GLOSS_OK);
    }
    for (int i = 0; i <= MANY; i++) {
        struct gloss_event ev;
        while (gloss_next(r[i], &ev, -1) == GLOSS_OK && ev.kind != GLOSS_EV_FINISH)
            ;
        t_end[i] = ev.t_ns;
        gloss_request_free(r[i]);
    }
    int before = 0;
    for (int i = 0; i < MANY; i++)
        before += t_end[i] < t_end[MANY];
    printf("requests of the other tenant served before: %d of %d\n", before, MANY);
    assert_true(before < MANY / 2);
    gloss_engine_free(g);
}

/* ---- readers ---- */

static void test_queue_bound(void **state)
{
    (void)state;
    enum { MOST = 4 }; /* one running, three waiting */
    gloss_engine *g = scripted(leisurely, 1, MOST - 1, 2048, 0);
    gloss_request *r[MOST], *more;
    struct gloss_err e;
    int32_t ids[4] = {1, 2, 3, 4};
    for (int i = 0; i < MOST; i++)
        assert_int_equal(gloss_submit(g, ids, 4, NULL, &r[i], &e), GLOSS_OK);
    assert_int_equal(gloss_submit(g, ids, 4, NULL, &more, &e), GLOSS_E_BUSY);
    assert_non_null(strstr(e.msg, "4"));
    for (int i = 0; i < MOST; i++)
        gloss_request_free(r[i]);
    assert_int_equal(gloss_engine_drain(g, 10000), GLOSS_OK);
    assert_int_equal(gloss_submit(g, ids, 4, NULL, &more, &e), GLOSS_E_BUSY);
    gloss_engine_free(g);
}

/* A reader that never reads pauses its own sequence; others finish; its deadline ends it. */
static void test_slow_reader(void **state)
{
    (void)state;
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    o.device = device;
    o.max_requests = 1;
    o.n_ctx = 1024;
    o.n_thread = 1;
    gloss_engine *g;
    assert_int_equal(gloss_engine_new(model, &o, &g, NULL), GLOSS_OK);
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    gloss_request *slow, *late, *quick;
    struct gloss_event ev;
    int32_t ids[4] = {1, 2, 3, 4};
    p.ignore_eos = 1;
    p.no_logprobs = 1;
    p.max_tokens = 600;
    assert_int_equal(gloss_submit(g, ids, 4, &p, &slow, NULL), GLOSS_OK);
    p.deadline_ms = 1500;
    p.tenant = 2;
    assert_int_equal(gloss_submit(g, ids, 4, &p, &late, NULL), GLOSS_OK);
    p.deadline_ms = 0;
    p.tenant = 3;
    p.max_tokens = 5;
    assert_int_equal(gloss_submit(g, ids, 4, &p, &quick, NULL), GLOSS_OK);
    int n = 0;
    while (gloss_next(quick, &ev, -1) == GLOSS_OK && ev.kind != GLOSS_EV_FINISH)
        n++;
    assert_int_equal(n, 5);
    /* the slow one has lost nothing */
    for (n = 0; gloss_next(slow, &ev, -1) == GLOSS_OK && ev.kind != GLOSS_EV_FINISH;)
        n++;
    assert_int_equal(n, 600);
    assert_int_equal(ev.finish, GLOSS_FINISH_LENGTH);
    (void)poll(NULL, 0, 1600); /* past its deadline, with a full ring */
    while (gloss_next(late, &ev, -1) == GLOSS_OK && ev.kind != GLOSS_EV_FINISH)
        ;
    assert_int_equal(ev.finish, GLOSS_FINISH_ERROR);
    assert_int_equal(ev.err.code, GLOSS_E_CANCEL);
    assert_non_null(strstr(ev.err.msg, "1500"));
    gloss_request_free(slow);
    gloss_request_free(late);
    gloss_request_free(quick);
    assert_at_rest(g);
    gloss_engine_free(g);
}

/* One thread reads all by the descriptor. */
static void test_ready(void **state)
{
    (void)state;
    enum { MANY = 40 };
    gloss_engine *g = scripted(brisk, 8, 100, 512, 0);
    int fd = gloss_engine_fd(g);
    gloss_request *r[MANY], *ready[MANY];
    int32_t ids[4] = {1, 2, 3, 4};
    int left = MANY, n_token = 0;
    assert_true(fd >= 0);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(gloss_submit(g, ids, 4, NULL, &r[i], NULL), GLOSS_OK);
    while (left > 0) {
        struct pollfd pf = {.fd = fd, .events = POLLIN};
        assert_true(poll(&pf, 1, 10000) == 1);
        int n = gloss_engine_ready(g, ready, 7);
        for (int i = 0; i < n; i++) {
            struct gloss_event ev;
            while (gloss_next(ready[i], &ev, 0) == GLOSS_OK) {
                n_token += ev.kind == GLOSS_EV_TOKEN;
                left -= ev.kind == GLOSS_EV_FINISH;
            }
        }
    }
    assert_int_equal(n_token % MANY, 0);
    assert_true(n_token >= MANY * 13);
    for (int i = 0; i < MANY; i++)
        gloss_request_free(r[i]);
    gloss_engine_free(g);
}

/* ---- threads that do anything at any time ---- */

struct stormer {
    gloss_engine *g;
    int who, rounds;
    atomic_int *finished;
};

static void *storm(void *arg)
{
    struct stormer *s = arg;
    for (int i = 0; i < s->rounds; i++) {
        uint64_t at = (uint64_t)(s->who * 1000 + i);
        int32_t ids[64];
        int n = 1 + (int)draw(20, at, 64);
        for (int k = 0; k < n; k++)
            ids[k] = k % 7;
        struct gloss_params p = GLOSS_INIT(struct gloss_params);
        p.max_tokens = 1 + (int)draw(21, at, 20);
        p.n = 1 + (int)draw(22, at, 3);
        p.tenant = draw(23, at, 3);
        p.temperature = 1;
        p.deadline_ms = draw(24, at, 5) == 0 ? 3 : 0;
        if (draw(29, at, 3) == 0)
            hold(&p, i);
        gloss_request *r;
        if (gloss_submit(s->g, ids, (size_t)n, &p, &r, NULL) < 0)
            continue;
        struct gloss_event ev;
        uint32_t how = draw(25, at, 4), some = draw(26, at, 10);
        for (uint32_t k = 0; how == 0 || k < some; k++) {
            if (gloss_next(r, &ev, how == 1 ? 1 : -1) == GLOSS_E_STATE)
                break;
        }
        if (how == 2)
            gloss_cancel(r);
        if (how == 3)
            (void)gloss_next(r, &ev, 0);
        if (draw(27, at, 10) == 0) {
            struct gloss_stats st = GLOSS_INIT(struct gloss_stats);
            gloss_engine_stats(s->g, &st);
            if (draw(28, at, 2))
                (void)gloss_engine_fd(s->g);
        }
        gloss_request_free(r);
        atomic_fetch_add(s->finished, 1);
    }
    return NULL;
}

static void storm_on(gloss_engine *g, int n_thread, int rounds)
{
    pthread_t t[64];
    struct stormer s[64];
    atomic_int finished = 0;
    for (int i = 0; i < n_thread; i++) {
        s[i] = (struct stormer){g, i, rounds, &finished};
        assert_int_equal(pthread_create(&t[i], NULL, storm, &s[i]), 0);
    }
    for (int i = 0; i < n_thread; i++)
        pthread_join(t[i], NULL);
    assert_true(atomic_load(&finished) > 0);
    assert_at_rest(g);
}

static void test_storm(void **state)
{
    (void)state;
    gloss_engine *g = scripted(brisk, 16, 64, 128, 4);
    storm_on(g, 64, 50);
    gloss_engine_free(g);
    g = open_engine((struct knobs){8, 16, 12, 4, true, 30}); /* the model itself, with few pages */
    storm_on(g, 16, 5);
    gloss_engine_free(g);
}

/* --device NAME; another argument selects tests by name (for the sanitizers). */
int main(int argc, char **argv)
{
    int i = 1;
    if (argc > 2 && strcmp(argv[1], "--device") == 0) {
        device = argv[2];
        i = 3;
    }
    if (i < argc)
        cmocka_set_test_filter(argv[i]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_256_as_if_alone),
        cmocka_unit_test(test_guesses_change_nothing),
        cmocka_unit_test(test_guesses_starve_nobody),
        cmocka_unit_test(test_repeated_text),
        cmocka_unit_test(test_swapped_beyond_the_window),
        cmocka_unit_test(test_agent_conversation),
        cmocka_unit_test(test_tenants_share_nothing),
        cmocka_unit_test(test_fair_between_tenants),
        cmocka_unit_test(test_queue_bound),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_ready),
        cmocka_unit_test(test_storm),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
