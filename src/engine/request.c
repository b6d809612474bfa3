/* Requests: what a submission allocates, and the way of tokens to the reader.
 *
 * Each choice has a ring of slots with one writer (the engine thread) and one reader. The engine
 * never waits for a reader: when a ring is full it stops planning that sequence. The reader sleeps
 * on the request's condition; engine_ready lists requests for readers that serve many.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "engine/request.h"
#include "engine/scripted.h"

#include <errno.h>
#include <math.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    RING = 256,           /* slots: a reader may be that many tokens late */
    ROWS_BYTES = 32 << 20 /* of logits handed over at once */
};

static status no_memory(struct err *e)
{
    return err_set(e, E_NOMEM, "out of memory");
}

/* ---- creation ---- */

status engine_check_ids(const struct engine *g, const int32_t *ids, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= g->spec->n_vocab)
            return err_set(e, E_INPUT,
                           "token %d at index %zu is outside the model's vocabulary of %d", ids[i],
                           i, g->spec->n_vocab);
    return OK;
}

static status in_range(const char *name, double v, double lo, double hi, struct err *e)
{
    if (v >= lo && v <= hi)
        return OK;
    return err_param(e, E_INPUT, name, "%s is %g: must be %g to %g", name, v, lo, hi);
}

/* A refused list names its parameter. */
static status check_list(const struct engine *g, const char *name, const int32_t *id, int n,
                         struct err *e)
{
    if (n < 0 || n > REQUEST_MAX_LIST)
        return err_param(e, E_LIMIT, name, "%s has %d entries: at most %d", name, n,
                         REQUEST_MAX_LIST);
    for (int i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= g->spec->n_vocab)
            return err_param(e, E_INPUT, name, "%s: token %d is outside the vocabulary of %d", name,
                             id[i], g->spec->n_vocab);
    return OK;
}

static status check_params(const struct engine *g, const struct request_params *p, struct err *e)
{
    const struct sample_params *s = &p->sample;
    status st = OK;
    TRY(in_range("temperature", (double)s->temperature, 0, 100, e));
    TRY(in_range("top_p", (double)s->top_p, 0, 1, e));
    TRY(in_range("min_p", (double)s->min_p, 0, 1, e));
    TRY(in_range("top_k", s->top_k, 0, INT32_MAX, e));
    TRY(in_range("presence", (double)s->presence, -2, 2, e));
    TRY(in_range("frequency", (double)s->frequency, -2, 2, e));
    TRY(in_range("repetition", (double)s->repetition, 0, 100, e));
    TRY(in_range("n", p->n, 0, REQUEST_MAX_N, e));
    TRY(in_range("max_tokens", p->max_tok, 0, INT32_MAX, e));
    TRY(in_range("min_tokens", p->min_tok, 0, INT32_MAX, e));
    TRY(in_range("reasoning_budget", p->reasoning_budget, 0, INT32_MAX, e));
    TRY(in_range("n_top", p->n_top, 0, REQUEST_MAX_TOP, e));
    TRY(check_list(g, "logit_bias", s->bias_id, s->n_bias, e));
    TRY(check_list(g, "stop_ids", p->stop_id, p->n_stop_id, e));
    for (int i = 0; i < s->n_bias; i++)
        TRY(in_range("logit_bias", (double)s->bias[i], -1000, 1000, e));
    if (p->plain && (p->hold.n_tool || p->hold.format != ANSWER_TEXT))
        TRY(err_param(e, E_INPUT, p->hold.n_tool ? "tools" : "format",
                      "tools and answer formats need a harmony stream: not with plain"));
out:
    return st;
}

static void *copy_of(const void *p, int n, size_t size)
{
    void *to = mem_array((size_t)n, size);
    if (to && n)
        memcpy(to, p, (size_t)n * size);
    return to;
}

/* Which tokens end the request: they are forbidden before min_tok. */
static status list_forbidden(struct request *r)
{
    static const enum special ends[] = {SP_RETURN, SP_CALL, SP_ENDOFTEXT};
    const struct engine *g = r->engine;
    if (r->par.min_tok == 0)
        return OK;
    r->forbidden = mem_array((size_t)(g->spec->n_eos + r->par.n_stop_id + 3), sizeof(int32_t));
    if (!r->forbidden)
        return E_NOMEM;
    for (int i = 0; i < g->spec->n_eos; i++)
        r->forbidden[r->n_forbidden++] = g->spec->eos[i];
    for (int i = 0; i < r->par.n_stop_id; i++)
        r->forbidden[r->n_forbidden++] = r->stop_id[i];
    for (int i = 0; i < 3 && g->vocab && !r->par.plain; i++) {
        int id = vocab_special(g->vocab, ends[i]);
        if (id >= 0 && id < g->spec->n_vocab)
            r->forbidden[r->n_forbidden++] = id;
    }
    return OK;
}

/* Biases of one token become their sum: a backend adds them in no order. */
static void join_biases(struct request *r)
{
    int n = 0;
    for (int i = 0; i < r->par.sample.n_bias; i++) {
        int at = 0;
        while (at < n && r->bias_id[at] != r->bias_id[i])
            at++;
        r->bias[at] = (at < n ? r->bias[at] : 0) + r->bias[i];
        r->bias_id[at] = r->bias_id[i];
        n += at == n;
    }
    r->par.sample.n_bias = n;
}

static void seq_close(struct seq *s)
{
    kv_seq_close(&s->kv);
    swapped_close(&s->swapped);
    budget_close(&s->budget);
    stop_close(&s->stop);
    sample_seen_close(&s->seen);
    draft_close(&s->draft);
    turn_free(s->turn);
    mem_free(s->mask_bits);
    mem_free(s->ids);
    mem_free(s->slot);
    mem_free(s->top_id);
    mem_free(s->top_logprob);
}

/* The first choice's turn is made from the parameters, the others' are like it. */
static status turn_open(struct request *r, struct seq *s, struct err *e)
{
    const struct engine *g = r->engine;
    status st = OK;
    if (r->par.plain || r->want != ROWS_NONE || !g->constrain)
        return OK;
    if (s->index == 0)
        TRY(constrain_turn(g->constrain, &r->par.hold, s->ids, (size_t)s->n_prompt, &s->turn, e));
    else if (r->seq[0].turn && turn_clone(r->seq[0].turn, &s->turn) < 0)
        TRY(no_memory(e));
    if (!s->turn)
        return OK;
    s->mask_bits = mem_array(((size_t)g->spec->n_vocab + 31) / 32, sizeof *s->mask_bits);
    if (!s->mask_bits)
        st = no_memory(e);
out:
    return st;
}

/* The prompt is looked through once, by the thread that submits. */
static status draft_start(struct request *r, struct seq *s)
{
    if (r->engine->max_draft == 0 || r->want != ROWS_NONE)
        return OK;
    status st = draft_open(&s->draft, s->n_max);
    if (st < 0)
        return st;
    if (s->index == 0)
        draft_begin(&s->draft, s->ids, s->n_prompt);
    else
        draft_copy(&s->draft, &r->seq[0].draft, s->n_prompt);
    return OK;
}

static status seq_open(struct request *r, int index, const int32_t *ids, int n, struct err *e)
{
    struct engine *g = r->engine;
    struct seq *s = &r->seq[index];
    const struct request_params *par = &r->par;
    status st = OK;
    *s = (struct seq){.request = r,
                      .index = index,
                      .n_prompt = n,
                      .n_ids = n,
                      .n_max = n + par->max_tok,
                      .i_stop = -1,
                      .sample = par->sample};
    s->sample.stream = (uint64_t)index;
    s->sample.bias_id = r->bias_id;
    s->sample.bias = r->bias;
    s->ids = mem_array((size_t)s->n_max, sizeof *s->ids);
    if (!s->ids)
        TRY(no_memory(e));
    memcpy(s->ids, ids, (size_t)n * sizeof *ids);
    if (kv_seq_open(&g->sched.kv, &s->kv, s->n_max) < 0)
        TRY(no_memory(e));
    if (g->sched.swap.full.n > 0 && swapped_open(&s->swapped, s->kv.n_entry) < 0)
        TRY(no_memory(e));
    if (draft_start(r, s) < 0)
        TRY(no_memory(e));
    TRY(stop_open(&s->stop, g->vocab, par->plain, par->stop, par->n_stop, e));
    TRY(turn_open(r, s, e));
    TRY(budget_open(&s->budget, par->plain ? NULL : g->vocab, par->reasoning_budget,
                    s->turn && !par->hold.free_headers && !g->script, e));
    s->n_slot = RING;
    while (s->n_slot < 4 * s->stop.longest)
        s->n_slot *= 2;
    s->slot = mem_array(s->n_slot, sizeof *s->slot);
    s->top_id = mem_array((size_t)s->n_slot * (size_t)par->n_top, sizeof *s->top_id);
    s->top_logprob = mem_array((size_t)s->n_slot * (size_t)par->n_top, sizeof *s->top_logprob);
    if (!s->slot || !s->top_id || !s->top_logprob)
        TRY(no_memory(e));
    const struct sample_params *sp = &par->sample;
    if (sp->presence != 0 || sp->frequency != 0 || (sp->repetition != 0 && sp->repetition != 1)) {
        if (sample_seen_open(&s->seen, min_int(s->n_max, g->spec->n_vocab)) < 0)
            TRY(no_memory(e));
        for (int i = 0; i < n; i++)
            sample_seen_add(&s->seen, ids[i], false);
    }
out:
    return st;
}

static void request_close(struct request *r)
{
    for (int i = 0; r->seq && i < r->par.n; i++)
        seq_close(&r->seq[i]);
    mem_free(r->seq);
    mem_free(r->stop_id);
    mem_free(r->bias_id);
    mem_free(r->bias);
    mem_free(r->forbidden);
    mem_free(r->rows);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->cond);
    mem_free(r);
}

void request_unref(struct request *r)
{
    if (atomic_fetch_sub(&r->refs, 1) == 1)
        request_close(r);
}

static void cond_init(pthread_cond_t *c)
{
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(c, &a);
    pthread_condattr_destroy(&a);
}

static status create(struct engine *g, const int32_t *ids, size_t n,
                     const struct request_params *par, enum want_rows want, struct request **out,
                     struct err *e)
{
    status st = OK;
    struct request *r = NULL;
    *out = NULL;
    TRY(engine_check_ids(g, ids, n, e));
    TRY(check_params(g, par, e));
    r = mem_calloc(1, sizeof *r);
    if (!r)
        TRY(no_memory(e));
    pthread_mutex_init(&r->lock, NULL);
    cond_init(&r->cond);
    atomic_init(&r->refs, 1);
    r->engine = g;
    r->par = *par;
    r->want = want;
    r->par.n = r->n_left = max_int(1, par->n);
    if (want != ROWS_NONE)
        r->par.max_tok = 0;
    else if (par->max_tok == 0 || par->max_tok > g->n_ctx - (int)n)
        r->par.max_tok = g->n_ctx - (int)n;
    r->bias_id = copy_of(par->sample.bias_id, par->sample.n_bias, sizeof *r->bias_id);
    r->bias = copy_of(par->sample.bias, par->sample.n_bias, sizeof *r->bias);
    r->stop_id = copy_of(par->stop_id, par->n_stop_id, sizeof *r->stop_id);
    struct seq *seq = mem_calloc((size_t)r->par.n, sizeof *seq);
    r->seq = seq;
    if (!r->bias_id || !r->bias || !r->stop_id || !seq || list_forbidden(r) < 0)
        TRY(no_memory(e));
    join_biases(r);
    for (int i = 0; i < r->par.n; i++)
        TRY(seq_open(r, i, ids, (int)n, e));
    /* The caller's arrays may go now. */
    r->par.stop = NULL;
    r->par.stop_id = NULL;
    r->par.hold = (struct constrain_params){0};
    if (want != ROWS_NONE) {
        size_t row = (size_t)g->spec->n_vocab * sizeof(float);
        int most = (int)(ROWS_BYTES / row);
        r->cap_rows = want == ROWS_LAST ? 1 : min_int(max_int(1, most), (int)n);
        r->rows = mem_array((size_t)r->cap_rows, row);
        if (!r->rows)
            TRY(no_memory(e));
    }
    if (par->deadline_ms)
        r->deadline_ns = clock_ns() + par->deadline_ms * 1000000;
    *out = r;
    return OK;
out:
    if (r)
        request_close(r);
    return st;
}

/* Into the inbox, unless too many wait. */
static status enqueue(struct request *r, struct err *e)
{
    struct engine *g = r->engine;
    status st = OK;
    pthread_mutex_lock(&g->lock);
    if (g->draining) {
        st = err_set(e, E_BUSY, "the engine is stopping and takes no new requests");
    } else if (g->n_live >= g->max_live) {
        st = err_set(e, E_BUSY, "%d requests run or wait already; try again later", g->max_live);
    } else {
        g->n_live++;
        atomic_fetch_add(&r->refs, 1);
        for (int i = 0; i < r->par.n; i++)
            r->seq[i].age = g->next_age;
        g->next_age++;
        *(g->inbox ? &g->inbox_last->next_inbox : &g->inbox) = r;
        g->inbox_last = r;
        g->kicked = true;
        pthread_cond_signal(&g->wake);
    }
    pthread_mutex_unlock(&g->lock);
    return st;
}

status request_new(struct engine *g, const int32_t *ids, size_t n, const struct request_params *par,
                   struct request **out, struct err *e)
{
    *out = NULL;
    if (n == 0)
        return err_set(e, E_INPUT, "the prompt is empty");
    if (n >= (size_t)g->n_ctx)
        return err_set(e, E_LIMIT,
                       "the prompt has %zu tokens, but the context holds %d with the answer", n,
                       g->n_ctx);
    status st = create(g, ids, n, par, ROWS_NONE, out, e);
    if (st < 0)
        return st;
    st = enqueue(*out, e); /* from here on engine_ready may name its owner */
    if (st < 0) {
        request_unref(*out);
        *out = NULL;
    }
    return st;
}

/* ---- the engine's side ---- */

unsigned seq_room(const struct seq *s)
{
    return s->n_slot - (s->wr - atomic_load(&s->rd));
}

void seq_put(struct seq *s, const struct slot *slot, const int32_t *top_id,
             const float *top_logprob)
{
    ASSERT(seq_room(s) > 0);
    unsigned i = s->wr & (s->n_slot - 1);
    size_t n_top = (size_t)s->request->par.n_top;
    s->slot[i] = *slot;
    if (n_top) {
        memcpy(s->top_id + i * n_top, top_id, n_top * sizeof *top_id);
        memcpy(s->top_logprob + i * n_top, top_logprob, n_top * sizeof *top_logprob);
    }
    s->wr++;
}

/* The request has something to say: on the list of engine_ready, and the descriptor readable. */
static void list_ready(struct request *r)
{
    struct engine *g = r->engine;
    if (!atomic_load_explicit(&g->use_ready, memory_order_relaxed))
        return;
    pthread_mutex_lock(&g->lock);
    if (!r->listed && !r->freed) {
        bool first = !g->ready;
        *(g->ready ? &g->ready_last->next_ready : &g->ready) = r;
        g->ready_last = r;
        r->next_ready = NULL;
        r->listed = true;
        if (first && g->fd >= 0)
            (void)!eventfd_write(g->fd, 1);
    }
    pthread_mutex_unlock(&g->lock);
}

void seq_publish(struct seq *s, unsigned held)
{
    struct request *r = s->request;
    bool news = s->published != s->wr - held;
    pthread_mutex_lock(&r->lock);
    s->published = s->wr - held;
    if (r->waiting)
        pthread_cond_signal(&r->cond);
    pthread_mutex_unlock(&r->lock);
    if (news)
        list_ready(r);
}

void seq_publish_finish(struct seq *s, enum finish how, int i_stop, const struct err *e)
{
    struct request *r = s->request;
    pthread_mutex_lock(&r->lock);
    s->published = s->wr;
    s->finish = how;
    s->i_stop = i_stop;
    s->t_finish = clock_ns();
    if (e)
        s->err = *e;
    if (r->waiting)
        pthread_cond_signal(&r->cond);
    pthread_mutex_unlock(&r->lock);
    list_ready(r);
}

void engine_kick(struct engine *g)
{
    pthread_mutex_lock(&g->lock);
    g->kicked = true;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
}

/* ---- the reader's side ---- */

/* After making room: the engine may be waiting for it. */
static void made_room(struct seq *s)
{
    if (!atomic_load(&s->wants_kick) || seq_room(s) < s->n_slot / 2)
        return;
    if (atomic_exchange(&s->wants_kick, false))
        engine_kick(s->request->engine);
}

static bool has_event(const struct seq *s)
{
    return atomic_load(&s->rd) != s->published ||
           (s->finish != FINISH_NONE && !s->finish_delivered);
}

static void take_slot(struct seq *s, struct event *ev)
{
    unsigned i = atomic_load(&s->rd) & (s->n_slot - 1);
    size_t n_top = (size_t)s->request->par.n_top;
    const struct slot *t = &s->slot[i];
    *ev = (struct event){.kind = t->prompt ? EVENT_PROMPT : EVENT_TOKEN,
                         .index = s->index,
                         .token = t->token,
                         .logprob = t->logprob,
                         .n_hide = t->n_hide,
                         .n_top = isnan(t->logprob) ? 0 : (int)n_top,
                         .top_id = s->top_id + i * n_top,
                         .top_logprob = s->top_logprob + i * n_top,
                         .i_stop = -1,
                         .t_ns = t->t_ns};
}

static void take_finish(struct seq *s, struct event *ev)
{
    s->finish_delivered = true;
    *ev = (struct event){.kind = EVENT_FINISH,
                         .index = s->index,
                         .finish = s->finish,
                         .i_stop = s->i_stop,
                         .n_reused = s->n_reused,
                         .n_computed = s->n_computed,
                         .err = s->err,
                         .t_ns = s->t_finish};
}

static void wait_until(struct request *r, uint64_t until_ns)
{
    r->waiting = true;
    if (until_ns == UINT64_MAX) {
        pthread_cond_wait(&r->cond, &r->lock);
    } else {
        struct timespec t = {.tv_sec = (time_t)(until_ns / 1000000000),
                             .tv_nsec = (long)(until_ns % 1000000000)};
        pthread_cond_timedwait(&r->cond, &r->lock, &t);
    }
    r->waiting = false;
}

/* The slot read last is given back only now: its alternatives were lent until this call. */
static void return_slot(struct request *r)
{
    struct seq *s = r->lent;
    if (!s)
        return;
    atomic_fetch_add(&s->rd, 1);
    r->lent = NULL;
    made_room(s);
}

status request_next(struct request *r, struct event *ev, int timeout_ms)
{
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : clock_ns() + (uint64_t)timeout_ms * 1000000;
    status st = OK;
    return_slot(r);
    pthread_mutex_lock(&r->lock);
    for (;;) {
        struct seq *s = NULL;
        int n_over = 0;
        for (int k = 0; k < r->par.n && !s; k++) {
            struct seq *c = &r->seq[(r->next_index + k) % r->par.n];
            n_over += c->finish_delivered;
            if (has_event(c))
                s = c;
        }
        if (s) {
            if (atomic_load(&s->rd) != s->published) {
                take_slot(s, ev);
                r->lent = s;
            } else {
                take_finish(s, ev);
            }
            r->next_index = (s->index + 1) % r->par.n;
            break;
        }
        if (n_over == r->par.n || clock_ns() >= until) {
            st = n_over == r->par.n ? E_STATE : E_BUSY;
            break;
        }
        wait_until(r, until);
    }
    pthread_mutex_unlock(&r->lock);
    return st;
}

void request_cancel(struct request *r)
{
    struct engine *g = r->engine;
    atomic_store(&r->cancelled, true);
    atomic_store(&g->swept, false);
    engine_kick(g);
}

static void unlist_ready(struct request *r)
{
    struct engine *g = r->engine;
    pthread_mutex_lock(&g->lock);
    r->freed = true;
    struct request *before = NULL;
    for (struct request *k = r->listed ? g->ready : NULL; k; before = k, k = k->next_ready) {
        if (k != r)
            continue;
        *(before ? &before->next_ready : &g->ready) = r->next_ready;
        if (g->ready_last == r)
            g->ready_last = before;
        break;
    }
    r->listed = false;
    pthread_mutex_unlock(&g->lock);
}

void request_free(struct request *r)
{
    if (!r)
        return;
    unlist_ready(r);
    /* With one holder left the engine is done with it. */
    if (atomic_load(&r->refs) > 1)
        request_cancel(r);
    request_unref(r);
}

/* ---- many readers' work by one thread ---- */

int engine_fd(struct engine *g)
{
    pthread_mutex_lock(&g->lock);
    if (g->fd < 0)
        g->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    atomic_store(&g->use_ready, true);
    pthread_mutex_unlock(&g->lock);
    return g->fd;
}

int engine_ready(struct engine *g, void **owner, int cap)
{
    int n = 0;
    atomic_store(&g->use_ready, true);
    pthread_mutex_lock(&g->lock);
    while (g->ready && n < cap) {
        struct request *r = g->ready;
        g->ready = r->next_ready;
        r->listed = false;
        owner[n++] = r->par.owner;
    }
    if (!g->ready && g->fd >= 0) {
        eventfd_t drop;
        (void)!eventfd_read(g->fd, &drop);
    }
    pthread_mutex_unlock(&g->lock);
    return n;
}

/* ---- every row's logits ---- */

status engine_rows(struct engine *g, const int32_t *ids, size_t n, bool last_only,
                   status (*row)(void *ctx, size_t i, const float *logits, int n_vocab), void *ctx,
                   struct err *e)
{
    if (n == 0)
        return err_set(e, E_INPUT, "no tokens");
    if (n > (size_t)g->n_ctx)
        return err_set(e, E_LIMIT, "%zu tokens, but the context holds %d", n, g->n_ctx);
    struct request_params par = {0};
    struct request *r;
    status st = create(g, ids, n, &par, last_only ? ROWS_LAST : ROWS_ALL, &r, e);
    if (st < 0)
        return st;
    if (g->script) {
        st = err_set(e, E_STATE, "a scripted engine has no logits");
        goto out;
    }
    TRY(enqueue(r, e));
    struct seq *s = &r->seq[0];
    for (bool over = false; !over;) {
        pthread_mutex_lock(&r->lock);
        while (!atomic_load(&r->rows_full) && s->finish == FINISH_NONE)
            wait_until(r, UINT64_MAX);
        bool full = atomic_load(&r->rows_full);
        over = s->finish != FINISH_NONE && !full;
        if (over && s->finish == FINISH_ERROR) {
            st = s->err.code;
            if (e)
                *e = s->err;
        }
        pthread_mutex_unlock(&r->lock);
        for (int i = 0; full && i < r->n_rows; i++)
            TRY(row(ctx, (size_t)(r->row0 + i), r->rows + (size_t)i * (size_t)g->spec->n_vocab,
                    g->spec->n_vocab));
        if (full) {
            atomic_store(&r->rows_full, false);
            made_room(s);
        }
    }
out:
    request_free(r);
    return st;
}
