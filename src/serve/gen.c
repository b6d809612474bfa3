/* Generations and the pump. See gen.h.
 *
 * The pump's list of generations is its own; other threads only put one on its queue (a vanished
 * client, room in its socket, a shutdown). The queue's lock is a leaf. A generation is freed by the
 * pump alone, after http_watch has cut the ties to its exchange.
 */
#include "serve/gen.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "serve/put.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    GEN_TEXT_MAX = 256 << 20,
    AT_ONCE = 64,           /* requests named by one look at the engine */
    BATCH = 1024,           /* events of one generation before others have their turn */
    FRAME_BYTES = 16 << 10, /* the same for what they became */
    IDLE_POLL_MS = 1000
};

struct pump {
    struct server *s;
    pthread_t thread;
    bool has_thread;
    int wake;
    atomic_bool stop;
    atomic_int n_gen;
    pthread_mutex_t lock;
    struct gen *queue, *queue_last; /* generations to look at, intrusive */
    struct gen *all;                /* started ones */
    struct exch *wake_up[AT_ONCE];  /* [n_wake] written to in this turn; pump only */
    int n_wake;
};

/* ---- making ---- */

struct gen *gen_new(struct server *s, struct exch *x, const struct gen_ops *ops, const char *prefix)
{
    struct gen *g = mem_calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->s = s;
    g->x = x;
    g->ops = ops;
    g->p.size = sizeof g->p;
    g->p.tenant = x->tenant;
    g->created = unix_now();
    snprintf(g->id, sizeof g->id, "%s%016llx%08x", prefix, (unsigned long long)rng_os_seed(),
             (unsigned)(rng_os_seed() & 0xffffffff));
    arena_init(&g->mem, GEN_TEXT_MAX);
    buf_init(&g->frame, GEN_TEXT_MAX);
    pthread_mutex_init(&g->lock, NULL);
    exch_ref(x);
    return g;
}

status gen_add(struct gen *g, const int32_t *ids, size_t n)
{
    struct part_req *req = mem_realloc_array(g->req, (size_t)g->n_req + 1, sizeof *req);
    if (!req)
        return E_NOMEM;
    g->req = req;
    req += g->n_req;
    *req = (struct part_req){.g = g, .n_ids = n};
    req->ids = mem_array(n, sizeof *ids);
    if (!req->ids)
        return E_NOMEM;
    memcpy(req->ids, ids, n * sizeof *ids);
    g->n_req++;
    g->n_prompt_tok += (int)n;
    return OK;
}

void gen_keep_last(struct gen *g, size_t n)
{
    for (int i = 0; i < g->n_req; i++) {
        struct part_req *q = &g->req[i];
        size_t drop = q->n_ids > n ? q->n_ids - n : 0;
        memmove(q->ids, q->ids + drop, (q->n_ids - drop) * sizeof *q->ids);
        q->n_ids -= drop;
        g->n_prompt_tok -= (int)drop;
        g->n_fed = min_int(g->n_fed, (int)q->n_ids);
    }
}

static void choice_fini(struct choice *c)
{
    for (int i = 0; i < c->n_call; i++) {
        buf_fini(&c->call[i].args);
        mem_free(c->call[i].name);
    }
    mem_free(c->call);
    gloss_chat_free(c->chat);
    buf_fini(&c->reasoning);
    buf_fini(&c->content);
    buf_fini(&c->logprobs);
    buf_fini(&c->ids);
    mem_free(c->own);
}

void gen_free(struct gen *g)
{
    if (!g)
        return;
    if (g->ops->fini)
        g->ops->fini(g);
    for (int i = 0; i < g->n_req; i++) {
        gloss_request_free(g->req[i].r);
        mem_free(g->req[i].ids);
    }
    mem_free(g->req);
    for (int i = 0; i < g->n_choice; i++)
        choice_fini(&g->choice[i]);
    mem_free(g->choice);
    json_free(g->root);
    buf_fini(&g->frame);
    arena_fini(&g->mem);
    pthread_mutex_destroy(&g->lock);
    exch_unref(g->x);
    mem_free(g);
}

/* The model's and the parser's sides of every choice. */
static status open_choices(struct gen *g, struct err *e)
{
    int n = g->p.n > 0 ? g->p.n : 1;
    g->choice = mem_calloc((size_t)(n * g->n_req), sizeof *g->choice);
    if (!g->choice)
        return err_set(e, E_NOMEM, "out of memory");
    for (int i = 0; i < n * g->n_req; i++) {
        struct choice *c = &g->choice[g->n_choice++];
        *c = (struct choice){.index = i,
                             .req = &g->req[i / n],
                             .finish = "stop",
                             .at_message = -1,
                             .last_reasoning = -1,
                             .last_content = -1};
        buf_init(&c->reasoning, GEN_TEXT_MAX);
        buf_init(&c->content, GEN_TEXT_MAX);
        buf_init(&c->logprobs, GEN_TEXT_MAX);
        buf_init(&c->ids, GEN_TEXT_MAX);
        if (g->plain)
            continue;
        struct gloss_chat_opts o = GLOSS_INIT(struct gloss_chat_opts);
        o.parse_mode = GLOSS_PARSE_RECOVER;
        status st = gloss_chat_new(g->s->model, &o, &c->chat, pub(e));
        for (int k = g->n_fed; st == OK && k > 0; k--) {
            struct gloss_delta d;
            st = gloss_chat_feed(c->chat, c->req->ids[c->req->n_ids - (size_t)k], &d, pub(e));
        }
        if (st < 0)
            return st;
    }
    for (int i = 0; i < g->n_req; i++) {
        g->req[i].first = i * n;
        g->req[i].n_open = n;
    }
    g->n_open = g->n_choice;
    return OK;
}

/* With p->lock held. */
static void enqueue(struct pump *p, struct gen *g)
{
    if (g->queued)
        return;
    g->queued = true;
    g->next_queued = NULL;
    *(p->queue ? &p->queue_last->next_queued : &p->queue) = g;
    p->queue_last = g;
}

static void put_on_queue(struct pump *p, struct gen *g)
{
    pthread_mutex_lock(&p->lock);
    enqueue(p, g);
    pthread_mutex_unlock(&p->lock);
    (void)!eventfd_write(p->wake, 1);
}

/* The first on the queue, or NULL. */
static struct gen *from_queue(struct pump *p)
{
    pthread_mutex_lock(&p->lock);
    struct gen *g = p->queue;
    if (g) {
        p->queue = g->next_queued;
        g->queued = false;
    }
    pthread_mutex_unlock(&p->lock);
    return g;
}

/* Out of the pump's lists. */
static void forget(struct pump *p, struct gen *g)
{
    pthread_mutex_lock(&p->lock);
    struct gen *before = NULL;
    for (struct gen *k = g->queued ? p->queue : NULL; k; before = k, k = k->next_queued) {
        if (k != g)
            continue;
        *(before ? &before->next_queued : &p->queue) = g->next_queued;
        if (p->queue_last == g)
            p->queue_last = before;
        break;
    }
    *(g->prev ? &g->prev->next : &p->all) = g->next;
    if (g->next)
        g->next->prev = g->prev;
    pthread_mutex_unlock(&p->lock);
}

static void on_gone(void *arg)
{
    struct gen *g = arg;
    atomic_store(&g->gone, true);
    put_on_queue(g->s->pump, g);
}

static void on_room(void *arg)
{
    struct gen *g = arg;
    put_on_queue(g->s->pump, g);
}

/* Beyond the first submission the pump may know the generation: only it ends it then. */
static status submit_all(struct gen *g, struct err *e)
{
    for (int i = 0; i < g->n_req; i++) {
        struct part_req *q = &g->req[i];
        g->p.user = q;
        status st = gloss_submit(g->s->engine, q->ids, q->n_ids, &g->p, &q->r, pub(e));
        if (st < 0 && strcmp(e->param, "format") == 0)
            snprintf(e->param, sizeof e->param, "response_format");
        if (st < 0)
            return st;
    }
    return OK;
}

/* Sends what this turn has written. */
static void wake_all(struct pump *p)
{
    for (int i = 0; i < p->n_wake; i++) {
        http_wake(p->wake_up[i]);
        exch_unref(p->wake_up[i]);
    }
    p->n_wake = 0;
}

/* The frame's bytes go to the exchange, which must be woken. */
static void write_frame(struct gen *g)
{
    if (!g->frame.n)
        return;
    if (buf_status(&g->frame) < 0) {
        g->failed = true;
        err_set(&g->err, E_NOMEM, "out of memory");
    } else if (!http_write(g->x, g->frame.p, g->frame.n)) {
        g->behind = true;
    }
    buf_clear(&g->frame);
}

/* The same in the pump, which wakes at the end of its turn. */
static void flush(struct gen *g)
{
    struct pump *p = g->s->pump;
    if (!g->frame.n)
        return;
    write_frame(g);
    if (p->n_wake == AT_ONCE)
        wake_all(p);
    exch_ref(g->x);
    p->wake_up[p->n_wake++] = g->x;
}

void gen_start(struct gen *g)
{
    struct pump *p = g->s->pump;
    struct err e = {0};
    status st = open_choices(g, &e);
    if (st < 0 || http_gone(g->x)) {
        if (st < 0)
            api_fail(g->s, g->x, &e);
        else
            http_reply(g->x, 499, NULL, NULL);
        gen_free(g);
        return;
    }
    atomic_fetch_add(&p->n_gen, 1);
    pthread_mutex_lock(&g->lock);
    g->t_submit = clock_ns();
    st = submit_all(g, &e);
    if (st < 0 && !g->req[0].r) { /* nothing was taken: still ours alone */
        pthread_mutex_unlock(&g->lock);
        atomic_fetch_sub(&p->n_gen, 1);
        api_fail(g->s, g->x, &e);
        gen_free(g);
        return;
    }
    pthread_mutex_lock(&p->lock);
    g->next = p->all;
    if (p->all)
        p->all->prev = g;
    p->all = g;
    pthread_mutex_unlock(&p->lock);
    if (st < 0) {
        g->failed = true;
        g->err = e;
    } else if (g->stream) {
        g->streaming = true;
        http_stream(g->x, "text/event-stream");
        g->ops->begin(g);
        write_frame(g);
        http_wake(g->x);
    }
    g->started = true;
    meter_begin(g->s->meter, &g->energy);
    bool gone = http_watch(g->x, on_gone, on_room, g);
    if (gone)
        atomic_store(&g->gone, true);
    /* The exchange's own events may have come before the pump could be told. */
    put_on_queue(p, g);
    pthread_mutex_unlock(&g->lock);
}

/* ---- tokens to pieces ---- */

static bool is(const char *s, const char *word)
{
    return s && strcmp(s, word) == 0;
}

static bool is_function(const char *recipient)
{
    return recipient && strncmp(recipient, "functions.", 10) == 0;
}

/* What a body is for the client. A message to a tool that was not offered counts as reasoning: its
 * text is kept, but it is no answer. */
static enum part part_of(const char *recipient, const char *channel)
{
    if (is_function(recipient))
        return PART_CALL;
    if (is(channel, "analysis"))
        return PART_REASONING;
    bool to_user =
        !recipient || is(recipient, "user") || is(recipient, "all") || is(recipient, "assistant");
    if (!to_user && !is(channel, "final"))
        return PART_REASONING;
    return is(channel, "commentary") ? PART_PREAMBLE : PART_ANSWER;
}

/* The call of this message, begun if it is new. NULL: no memory. */
static struct call *call_of(struct choice *c, int message, const char *name)
{
    if (c->n_call && c->call[c->n_call - 1].message == message)
        return &c->call[c->n_call - 1];
    if (c->n_call == c->cap_call) {
        int cap = c->cap_call ? 2 * c->cap_call : 2;
        struct call *to = mem_realloc_array(c->call, (size_t)cap, sizeof *to);
        if (!to)
            return NULL;
        c->call = to;
        c->cap_call = cap;
    }
    struct call *call = &c->call[c->n_call];
    *call = (struct call){.message = message, .name = mem_strdup(name)};
    if (!call->name)
        return NULL;
    snprintf(call->id, sizeof call->id, "call_%016llx%08x", (unsigned long long)rng_os_seed(),
             (unsigned)(rng_os_seed() & 0xffffffff));
    buf_init(&call->args, GEN_TEXT_MAX);
    c->n_call++;
    return call;
}

/* Messages of one kind stand a blank line apart in the client's field. */
static void join(struct buf *all, int *last, int message)
{
    if (all->n && *last != message)
        buf_puts(all, "\n\n");
    *last = message;
}

static void give(struct gen *g, struct choice *c, struct piece *p)
{
    p->body = p->text;
    p->n_body = p->n;
    p->first = c->at_message != p->message;
    c->at_message = p->message;
    if (p->part == PART_CALL) {
        struct call *call = call_of(c, p->message, p->name);
        if (!call) {
            g->failed = true;
            err_set(&g->err, E_NOMEM, "out of memory");
            return;
        }
        buf_put(&call->args, p->text, p->n);
        g->ops->piece(g, c, p);
        return;
    }
    struct buf *all = p->part == PART_REASONING ? &c->reasoning : &c->content;
    int *last = p->part == PART_REASONING ? &c->last_reasoning : &c->last_content;
    size_t before = all->n;
    if (p->n)
        join(all, last, p->message);
    buf_put(all, p->text, p->n);
    p->text = all->p + before; /* with the blank line */
    p->n = all->n - before;
    g->ops->piece(g, c, p);
}

/* {"token","logprob","bytes"} without the closing brace. */
static void put_token(struct gen *g, struct buf *b, int32_t id, float logprob)
{
    size_t n = 0;
    const char *s = gloss_token_bytes(g->s->model, id, &n);
    n = s ? n : 0;
    buf_puts(b, "{\"token\":");
    put_text(b, s ? s : "", n);
    buf_puts(b, ",\"logprob\":");
    put_logprob(b, logprob);
    buf_puts(b, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++)
        buf_printf(b, i ? ",%d" : "%d", (unsigned char)s[i]);
    buf_putc(b, ']');
}

static void add_logprob(struct gen *g, struct choice *c, const struct gloss_event *ev)
{
    struct buf *b = &c->logprobs;
    if (b->n)
        buf_putc(b, ',');
    put_token(g, b, ev->token, ev->logprob);
    buf_puts(b, ",\"top_logprobs\":[");
    for (int i = 0; i < ev->n_top; i++) {
        if (i)
            buf_putc(b, ',');
        put_token(g, b, ev->top_ids[i], ev->top_logprobs[i]);
        buf_putc(b, '}');
    }
    buf_puts(b, "]}");
}

static bool is_control(const struct gen *g, int32_t id)
{
    size_t n = 0;
    const char *s = gloss_token_bytes(g->s->model, id, &n);
    return s && n > 4 && memcmp(s, "<|", 2) == 0 && memcmp(s + n - 2, "|>", 2) == 0;
}

static void take_delta(struct gen *g, struct choice *c, const struct gloss_delta *d)
{
    bool body = d->recipient || d->channel || d->text;
    if (!body)
        return;
    enum part part = part_of(d->recipient, d->channel);
    bool begins_call = part == PART_CALL && c->at_message != d->message;
    if (!d->n && !begins_call)
        return;
    struct piece p = {.part = part,
                      .message = d->message,
                      .name = part == PART_CALL ? d->recipient + 10 : NULL,
                      .text = d->text ? d->text : "",
                      .n = d->n};
    give(g, c, &p);
}

static void on_token(struct gen *g, struct choice *c, const struct gloss_event *ev)
{
    c->n_tok++;
    g->n_unsent++;
    if (g->want_ids)
        buf_printf(&c->ids, c->ids.n ? ",%d" : "%d", ev->token);
    if (g->plain) {
        g->ops->plain(g, c, ev);
        return;
    }
    struct gloss_delta d = {0};
    struct err e = {0};
    if (gloss_chat_feed(c->chat, ev->token, &d, pub(&e)) < 0) {
        g->failed = true;
        g->err = e;
        return;
    }
    bool in_analysis = is(d.channel, "analysis");
    if (in_analysis && c->in_analysis) { /* the marker that opens the body is no part of it */
        c->n_reasoning_tok++;
    } else if (g->want_logprobs && !in_analysis && (d.text || d.channel || d.recipient) &&
               !is_control(g, ev->token) && (!ev->n_hide || d.n > (size_t)ev->n_hide)) {
        enum part part = part_of(d.recipient, d.channel);
        if (part == PART_PREAMBLE || part == PART_ANSWER)
            add_logprob(g, c, ev);
    }
    c->in_analysis = in_analysis;
    d.n -= (size_t)ev->n_hide < d.n ? (size_t)ev->n_hide : d.n;
    take_delta(g, c, &d);
}

/* Calls whose body never came as a delta (an empty one). */
static void finish_calls(struct gen *g, struct choice *c)
{
    for (int i = 0; i < gloss_chat_messages(c->chat) && !g->failed; i++) {
        struct gloss_message m;
        if (gloss_chat_message(c->chat, i, &m, pub(&g->err)) < 0) {
            g->failed = true;
            return;
        }
        if (!is_function(m.recipient))
            continue;
        bool known = false;
        for (int k = 0; k < c->n_call; k++)
            known = known || c->call[k].message == i;
        if (known)
            continue;
        struct piece p = {.part = PART_CALL,
                          .message = i,
                          .name = m.recipient + 10,
                          .text = m.text ? m.text : "",
                          .n = m.text ? m.n_text : 0};
        give(g, c, &p);
    }
}

static void on_finish(struct gen *g, struct choice *c, const struct gloss_event *ev)
{
    c->ended = true;
    g->n_open--;
    c->req->n_open--;
    c->req->n_reused = ev->n_reused > c->req->n_reused ? ev->n_reused : c->req->n_reused;
    if (ev->finish == GLOSS_FINISH_ERROR) {
        if (!g->failed) {
            g->failed = true;
            g->err.code = ev->err.code < 0 ? ev->err.code : E_BUG;
            memcpy(g->err.msg, ev->err.msg, sizeof g->err.msg);
        }
        return;
    }
    c->was_length = ev->finish == GLOSS_FINISH_LENGTH;
    c->was_stop_text = ev->i_stop >= 0;
    if (c->chat && !c->was_stop_text) { /* a stop text ends the answer for good */
        struct gloss_delta d = {0};
        if (gloss_chat_finish(c->chat, &d, pub(&g->err)) < 0)
            g->failed = true;
        else if (!c->was_length || d.message == c->at_message) /* not words of a header cut off */
            take_delta(g, c, &d);
        finish_calls(g, c);
    }
    c->finish = c->was_length ? "length" : c->n_call ? "tool_calls" : "stop";
    if (!g->failed)
        g->ops->choice_end(g, c);
    struct metrics *m = &g->s->metrics;
    pthread_mutex_lock(&m->lock);
    m->done[c->was_length ? DONE_LENGTH : c->n_call ? DONE_CALLS : DONE_STOP]++;
    pthread_mutex_unlock(&m->lock);
}

/* ---- the pump ---- */

static void take_times(struct gen *g, const struct gloss_event *ev)
{
    struct metrics *m = &g->s->metrics;
    if (!g->t_first) {
        g->t_first = ev->t_ns;
        meter_first(g->s->meter, &g->energy);
        metrics_time(m, HIST_TTFT, (double)(ev->t_ns - g->x->start_ns) * 1e-9);
    }
    g->t_last = ev->t_ns;
}

/* Events that are there. True when the generation is over; else *more: a turn was not enough. */
static bool take_events(struct gen *g, bool *more)
{
    int budget = BATCH;
    for (int i = 0; i < g->n_req && !g->failed; i++) {
        struct part_req *q = &g->req[i];
        struct gloss_event ev;
        while (q->n_open > 0 && budget-- > 0 && g->frame.n < FRAME_BYTES && !g->failed &&
               gloss_next(q->r, &ev, 0) == GLOSS_OK) {
            struct choice *c = &g->choice[q->first + ev.index];
            if (ev.kind == GLOSS_EV_PROMPT) {
                if (g->ops->prompt)
                    g->ops->prompt(g, c, &ev);
            } else if (ev.kind == GLOSS_EV_TOKEN) {
                take_times(g, &ev);
                on_token(g, c, &ev);
            } else {
                on_finish(g, c, &ev);
            }
        }
    }
    *more = budget <= 0 || g->frame.n >= FRAME_BYTES;
    return g->failed || g->n_open == 0;
}

static void count(struct gen *g)
{
    struct metrics *m = &g->s->metrics;
    uint64_t now = clock_ns();
    bool bad = g->failed || atomic_load(&g->gone);
    int n_tok = gen_completion_tok(g);
    pthread_mutex_lock(&m->lock);
    for (int i = 0; i < g->n_choice; i++)
        for (int k = 0; k < GLOSS_N_REPAIR && g->choice[i].chat; k++)
            m->repair[k] += (uint64_t)gloss_chat_repairs(g->choice[i].chat, k);
    m->prompt_tok += (uint64_t)g->n_prompt_tok;
    m->generated_tok += (uint64_t)n_tok;
    m->reasoning_tok += (uint64_t)gen_reasoning_tok(g);
    m->cache_queries += (uint64_t)g->n_prompt_tok;
    m->cache_hits += (uint64_t)g->n_cached_tok;
    if (bad)
        m->done[atomic_load(&g->gone) ? DONE_ABORT : DONE_ERROR]++;
    pthread_mutex_unlock(&m->lock);
    metrics_time(m, HIST_E2E, (double)(now - g->x->start_ns) * 1e-9);
    if (!g->t_first)
        return;
    metrics_time(m, HIST_PREFILL, (double)(g->t_first - g->t_submit) * 1e-9);
    metrics_time(m, HIST_DECODE, (double)(g->t_last - g->t_first) * 1e-9);
    if (n_tok > g->n_choice)
        metrics_times(m, HIST_ITL,
                      (double)(g->t_last - g->t_first) * 1e-9 / (double)(n_tok - g->n_choice),
                      (uint64_t)(n_tok - g->n_choice));
}

static void end(struct gen *g)
{
    struct pump *p = g->s->pump;
    meter_end(g->s->meter, &g->energy);
    for (int i = 0; i < g->n_req; i++)
        g->n_cached_tok += g->req[i].n_reused;
    count(g); /* before the client can know that it is over, and ask for the metrics */
    if (atomic_load(&g->gone)) {
        http_reply(g->x, 499, NULL, NULL);
    } else if (g->failed) {
        if (atomic_load(&g->shut))
            err_set(&g->err, E_BUSY, "the server is shutting down");
        g->ops->fail(g, &g->err);
        flush(g);
    } else {
        g->ops->end(g);
        flush(g);
    }
    if (g->streaming)
        http_end(g->x);
    http_watch(g->x, NULL, NULL, NULL);
    forget(p, g);
    pthread_mutex_unlock(&g->lock);
    gen_free(g);
    atomic_fetch_sub(&p->n_gen, 1);
}

/* One look at a generation. `room`: its client may have read on. */
static void serve_gen(struct gen *g, bool look_again)
{
    pthread_mutex_lock(&g->lock);
    if (!g->started) { /* gen_start puts it on the queue at its end */
        pthread_mutex_unlock(&g->lock);
        return;
    }
    if (atomic_load(&g->shut) && !g->failed) {
        g->failed = true;
        err_set(&g->err, E_BUSY, "the server is shutting down");
    }
    bool over = atomic_load(&g->gone) || atomic_load(&g->cancelled) || g->failed, more = false;
    if (look_again)
        g->behind = false;
    if (!over && !g->behind) {
        over = take_events(g, &more);
        if (!over && g->ops->tick && !g->failed)
            g->ops->tick(g);
        /* the first token leaves at once, whatever --stream-interval says */
        bool first = g->n_unsent && gen_completion_tok(g) == g->n_unsent;
        if (!over && (first || g->n_unsent >= g->s->o.stream_interval || more)) {
            flush(g);
            g->n_unsent = 0;
        }
        if (!over && more && !g->behind) /* else on_room does */
            put_on_queue(g->s->pump, g);
    }
    if (over)
        end(g); /* unlocks and frees */
    else
        pthread_mutex_unlock(&g->lock);
}

/* Whom the engine names. Serving one may free it, so a generation with several requests among them
 * is taken once, and all are looked up before the first is served. */
static void serve_ready_ones(struct pump *p)
{
    gloss_request *r[AT_ONCE];
    struct gen *list[AT_ONCE];
    int n = gloss_engine_ready(p->s->engine, r, AT_ONCE), n_gen = 0;
    for (int i = 0; i < n; i++) {
        struct part_req *q = gloss_request_user(r[i]);
        if (!q->g->named)
            list[n_gen++] = q->g;
        q->g->named = true;
    }
    for (int i = 0; i < n_gen; i++)
        list[i]->named = false;
    for (int i = 0; i < n_gen; i++)
        serve_gen(list[i], false);
    wake_all(p);
}

static void *pump_main(void *arg)
{
    struct pump *p = arg;
    struct pollfd fd[2] = {{.fd = p->wake, .events = POLLIN},
                           {.fd = gloss_engine_fd(p->s->engine), .events = POLLIN}};
    while (!atomic_load(&p->stop)) {
        poll(fd, 2, IDLE_POLL_MS);
        eventfd_t drop;
        (void)!eventfd_read(p->wake, &drop);
        struct gen *g;
        for (int i = 0; i < AT_ONCE && (g = from_queue(p)); i++)
            serve_gen(g, true);
        serve_ready_ones(p);
        if (g) /* the queue was longer than a turn */
            (void)!eventfd_write(p->wake, 1);
    }
    return NULL;
}

status pump_open(struct server *s, struct pump **out, struct err *e)
{
    struct pump *p = mem_calloc(1, sizeof *p);
    if (!p)
        return err_set(e, E_NOMEM, "out of memory");
    *out = p;
    p->s = s;
    pthread_mutex_init(&p->lock, NULL);
    p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->wake < 0)
        return err_set(e, E_IO, "no descriptor left: %s", strerror(errno));
    if (pthread_create(&p->thread, NULL, pump_main, p) != 0)
        return err_set(e, E_LIMIT, "the system refuses another thread");
    p->has_thread = true;
    return OK;
}

bool pump_cancel(struct pump *p, uint64_t tenant, const char *id)
{
    bool found = false;
    pthread_mutex_lock(&p->lock);
    for (struct gen *g = p->all; g && !found; g = g->next) {
        found = g->x->tenant == tenant && strcmp(g->id, id) == 0;
        if (found) {
            atomic_store(&g->cancelled, true);
            enqueue(p, g);
        }
    }
    pthread_mutex_unlock(&p->lock);
    (void)!eventfd_write(p->wake, 1);
    return found;
}

int pump_running(struct pump *p)
{
    return p ? atomic_load(&p->n_gen) : 0;
}

void pump_shut(struct pump *p)
{
    pthread_mutex_lock(&p->lock);
    for (struct gen *g = p->all; g; g = g->next) {
        atomic_store(&g->shut, true);
        enqueue(p, g);
    }
    pthread_mutex_unlock(&p->lock);
    (void)!eventfd_write(p->wake, 1);
}

void pump_close(struct pump *p)
{
    if (!p)
        return;
    if (p->has_thread) {
        while (pump_running(p) > 0) {
            pump_shut(p);
            poll(NULL, 0, 10);
        }
        atomic_store(&p->stop, true);
        (void)!eventfd_write(p->wake, 1);
        pthread_join(p->thread, NULL);
    }
    if (p->wake >= 0)
        close(p->wake);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
}

/* ---- what endpoints print ---- */

int gen_completion_tok(const struct gen *g)
{
    int n = 0;
    for (int i = 0; i < g->n_choice; i++)
        n += g->choice[i].n_tok;
    return n;
}

int gen_reasoning_tok(const struct gen *g)
{
    int n = 0;
    for (int i = 0; i < g->n_choice; i++)
        n += g->choice[i].n_reasoning_tok;
    return n;
}

void gen_put_usage(const struct gen *g, struct buf *b)
{
    int n = gen_completion_tok(g);
    buf_printf(b,
               "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%d,\"audio_tokens\":0},"
               "\"completion_tokens_details\":{\"reasoning_tokens\":%d,\"audio_tokens\":0,"
               "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}",
               g->n_prompt_tok, n, g->n_prompt_tok + n, g->n_cached_tok, gen_reasoning_tok(g));
    gen_put_energy(g, b);
    buf_putc(b, '}');
}

void gen_put_energy(const struct gen *g, struct buf *b)
{
    double prefill, decode;
    if (g->energy.running || !meter_joules(g->s->meter, &g->energy, &prefill, &decode))
        return;
    buf_printf(b,
               ",\"energy\":{\"joules\":%.6f,\"prefill_joules\":%.6f,\"decode_joules\":%.6f,"
               "\"source\":\"%s\"}",
               prefill + decode, prefill, decode, meter_source(g->s->meter));
}

void gen_fail(struct gen *g, const struct err *e)
{
    if (!g->streaming) {
        api_fail(g->s, g->x, e);
        return;
    }
    buf_clear(&g->frame);
    buf_puts(&g->frame, "data: ");
    api_error_body(g->s, &g->frame, e);
    buf_puts(&g->frame, "\n\n");
}

void gen_put_timings(const struct gen *g, struct buf *b)
{
    double prompt_ms = g->t_first ? (double)(g->t_first - g->t_submit) * 1e-6 : 0,
           made_ms = g->t_first ? (double)(g->t_last - g->t_first) * 1e-6 : 0;
    int n = gen_completion_tok(g), fresh = g->n_prompt_tok - g->n_cached_tok;
    buf_printf(b,
               "\"timings\":{\"prompt_n\":%d,\"prompt_ms\":%.3f,\"prompt_per_second\":%.3f,"
               "\"predicted_n\":%d,\"predicted_ms\":%.3f,\"predicted_per_second\":%.3f,"
               "\"cache_n\":%d}",
               fresh, prompt_ms, prompt_ms > 0 ? 1e3 * fresh / prompt_ms : 0.0, n, made_ms,
               made_ms > 0 ? 1e3 * (n - 1) / made_ms : 0.0, g->n_cached_tok);
}
