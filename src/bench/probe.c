#include "bench/probe.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

enum { WAIT_MS = 100, WARM_UP = 16, SEED = 42 };

static const char filler_text[] =
    " A harbour town wakes slowly. Boats come in with the tide, crates are counted on the quay, "
    "and the clerk at the scales writes down what each of them weighs. By noon the market square "
    "is full: bread, salt, rope, lamp oil, a man who repairs clocks and another who sells old maps "
    "of islands nobody has visited for years. Towards evening the wind turns, the stalls are taken "
    "down, and whoever has time left sits by the water and talks about the weather.";

/* ---- prompts ---- */

/* Tokens of a conversation with one user message, borrowed from the chat. */
static status render(struct probe *p, const char *text, const int32_t **ids, size_t *n,
                     struct err *e)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    status st = OK;
    buf_puts(&b, "{\"messages\":[{\"role\":\"user\",\"content\":");
    json_quote(&b, text, strlen(text));
    buf_puts(&b, "}]}");
    TRY(buf_status(&b));
    TRY(gloss_chat_load(p->chat, b.p, b.n, GLOSS_FORM_OPENAI, bench_err(e)));
    TRY(gloss_chat_render(p->chat, ids, n, bench_err(e)));
out:
    buf_fini(&b);
    return st;
}

static int32_t *copy_ids(const int32_t *v, size_t n)
{
    int32_t *p = mem_array(n ? n : 1, sizeof *p);
    if (p && n)
        memcpy(p, v, n * sizeof *p);
    return p;
}

/* What stands before and behind the user's words: where two conversations agree. */
static status find_frame(struct probe *p, struct err *e)
{
    const int32_t *ids;
    size_t n, a_n = 0;
    int32_t *a = NULL;
    status st = OK;
    TRY(render(p, "1", &ids, &n, e));
    a = copy_ids(ids, n);
    a_n = n;
    TRY(a ? render(p, "ABC", &ids, &n, e) : E_NOMEM);
    size_t most = a_n < n ? a_n : n;
    while (p->n_head < most && a[p->n_head] == ids[p->n_head])
        p->n_head++;
    while (p->n_tail < most - p->n_head && a[a_n - 1 - p->n_tail] == ids[n - 1 - p->n_tail])
        p->n_tail++;
    p->head = copy_ids(a, p->n_head);
    p->tail = copy_ids(a + a_n - p->n_tail, p->n_tail);
    TRY(p->head && p->tail ? OK : E_NOMEM);
out:
    mem_free(a);
    return st;
}

/* Without a tokenizer: pseudo-random ids, of which any number will do. */
static status random_filler(struct probe *p)
{
    p->n_filler = 4096;
    p->filler = mem_array(p->n_filler, sizeof *p->filler);
    for (size_t i = 0; p->filler && i < p->n_filler; i++)
        p->filler[i] = (int32_t)(rng_uniform(SEED, 0, i) * p->b->info.n_vocab);
    return p->filler ? OK : E_NOMEM;
}

static status open_text(struct probe *p, struct err *e)
{
    struct gloss_chat_opts o = GLOSS_INIT(struct gloss_chat_opts);
    int32_t *ids = NULL;
    status st = OK;
    TRY(gloss_chat_new(p->b->model, &o, &p->chat, bench_err(e)));
    TRY(gloss_encode(p->b->model, filler_text, sizeof filler_text - 1, GLOSS_SPECIAL_TEXT, &ids,
                     &p->n_filler, bench_err(e)));
    p->filler = copy_ids(ids, p->n_filler);
    TRY(p->filler ? OK : E_NOMEM);
    TRY(find_frame(p, e));
out:
    gloss_free(ids);
    return st;
}

status probe_open(struct probe *p, struct bench *b, int n_ctx, struct err *e)
{
    *p = (struct probe){.b = b};
    struct gloss_engine_opts o = b->engine;
    o.n_ctx = n_ctx;
    o.max_requests = 1;
    o.no_prefix_cache = 1;
    status st = OK;
    TRY(b->info.has_tokenizer ? open_text(p, e) : random_filler(p));
    TRY(gloss_engine_new(b->model, &o, &p->g, bench_err(e)));
    struct gloss_stats s = GLOSS_INIT(struct gloss_stats);
    gloss_engine_stats(p->g, &s);
    if (s.n_ctx < n_ctx)
        TRY(err_set(e, E_NOMEM, "the memory for the cache holds %d tokens, %d are needed", s.n_ctx,
                    n_ctx));
out:
    if (st == E_NOMEM && e && !e->msg[0])
        err_set(e, E_NOMEM, "out of memory");
    if (st < 0)
        probe_close(p);
    return st;
}

void probe_close(struct probe *p)
{
    gloss_engine_free(p->g);
    gloss_chat_free(p->chat);
    mem_free(p->ids);
    mem_free(p->head);
    mem_free(p->tail);
    mem_free(p->filler);
    mem_free(p->tok);
    mem_free(p->t_ns);
    *p = (struct probe){0};
}

const char *probe_type(const struct probe *p)
{
    return p->chat ? "chat_template" : "completion";
}

status probe_context(struct probe *p, int n, bool raw, struct err *e)
{
    size_t want = (size_t)n, frame = p->n_head + p->n_tail;
    int32_t *ids = mem_array(want, sizeof *ids);
    if (!ids)
        return err_set(e, E_NOMEM, "out of memory for a prompt of %d tokens", n);
    mem_free(p->ids);
    p->ids = ids;
    p->n_ids = n;
    p->framed = p->chat && !raw && frame < want;
    size_t head = raw ? 0 : p->n_head < want ? p->n_head : want, body = want - head;
    if (p->framed)
        body -= p->n_tail;
    for (size_t i = 0; i < head; i++)
        ids[i] = p->head[i];
    for (size_t i = 0; i < body; i++)
        ids[head + i] = p->filler[i % p->n_filler];
    for (size_t i = head + body; i < want; i++)
        ids[i] = p->tail[i - head - body];
    return OK;
}

status probe_chat(struct probe *p, const char *text, struct err *e)
{
    const int32_t *ids;
    size_t n;
    if (!p->chat)
        return probe_context(p, 64, true, e);
    status st = render(p, text, &ids, &n, e);
    if (st < 0)
        return st;
    int32_t *copy = copy_ids(ids, n);
    if (!copy)
        return err_set(e, E_NOMEM, "out of memory");
    mem_free(p->ids);
    p->ids = copy;
    p->n_ids = (int)n;
    p->framed = true;
    return OK;
}

/* ---- shots ---- */

struct gloss_params probe_params(int n_gen)
{
    struct gloss_params o = GLOSS_INIT(struct gloss_params);
    o.max_tokens = n_gen;
    o.ignore_eos = 1;
    o.plain = 1;
    o.no_logprobs = 1;
    o.seed = SEED;
    return o;
}

static status room_for(struct probe *p, int n, struct err *e)
{
    if (n <= p->cap)
        return OK;
    mem_free(p->tok);
    mem_free(p->t_ns);
    p->tok = mem_array((size_t)n, sizeof *p->tok);
    p->t_ns = mem_array((size_t)n, sizeof *p->t_ns);
    p->cap = p->tok && p->t_ns ? n : 0;
    return p->cap ? OK : err_set(e, E_NOMEM, "out of memory");
}

/* Which channel the tokens belong to, found after the clock was stopped. */
static status split_channels(struct probe *p, uint64_t start_ns, struct shot *s, struct err *e)
{
    const int32_t *ids;
    size_t n;
    struct gloss_delta d;
    status st = OK;
    s->reasoning_ms = s->final_ms = NAN;
    if (!p->framed)
        return OK;
    TRY(render(p, "1", &ids, &n, e)); /* a parser at its beginning */
    for (int i = 0; i < s->n_token; i++) {
        TRY(gloss_chat_feed(p->chat, p->tok[i], &d, bench_err(e)));
        if (d.n == 0 || !d.channel)
            continue;
        double ms = (double)(p->t_ns[i] - start_ns) * 1e-6;
        if (strcmp(d.channel, "analysis") == 0 && isnan(s->reasoning_ms))
            s->reasoning_ms = ms;
        if (strcmp(d.channel, "final") == 0 && isnan(s->final_ms))
            s->final_ms = ms;
    }
out:
    return st;
}

status probe_shoot(struct probe *p, const struct gloss_params *o, const struct watch *w,
                   struct shot *s, struct err *e)
{
    gloss_request *r = NULL;
    struct gloss_event ev;
    uint64_t start, now;
    status st = OK;
    *s = (struct shot){.reasoning_ms = NAN, .final_ms = NAN, .ttft_ms = NAN};
    TRY(room_for(p, o->max_tokens, e));
    start = clock_ns();
    TRY(gloss_submit(p->g, p->ids, (size_t)p->n_ids, o, &r, bench_err(e)));
    for (;;) {
        st = gloss_next(r, &ev, WAIT_MS);
        now = clock_ns();
        if (st == E_BUSY) {
            TRY(p->b->check_stop(e));
            continue;
        }
        TRY(st);
        if (ev.kind == GLOSS_EV_FINISH)
            break;
        if (ev.kind != GLOSS_EV_TOKEN || s->n_token == p->cap)
            continue;
        p->tok[s->n_token] = ev.token;
        p->t_ns[s->n_token++] = now;
        if (w)
            w->token(w->ctx);
    }
    if (ev.finish == GLOSS_FINISH_ERROR)
        TRY(err_set(e, ev.err.code, "%s", ev.err.msg));
    s->total_ms = (double)(now - start) * 1e-6;
    if (s->n_token)
        s->ttft_ms = (double)(p->t_ns[0] - start) * 1e-6;
    TRY(split_channels(p, start, s, e));
    TRY(p->b->check_stop(e));
out:
    gloss_request_free(r);
    return st;
}

status probe_warm_up(struct probe *p, struct err *e)
{
    int n = p->n_ids;
    struct gloss_params o = probe_params(1);
    struct shot s;
    p->n_ids = n < WARM_UP ? n : WARM_UP;
    status st = probe_shoot(p, &o, NULL, &s, e);
    p->n_ids = n;
    return st;
}
