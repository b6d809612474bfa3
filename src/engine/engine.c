/* The step loop. Invariants, all under the engine's lock:
 *   - a request is in exactly one list: waiting (no pages) or running (pages reserved);
 *   - a running request's sequence holds n_done positions in the cache; its next rows are the
 *     rest of the prompt, or the last sampled token;
 *   - events of a request are appended by the step and read by request_next alone.
 */
#include "engine/engine.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "engine/budget.h"
#include "engine/kv.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    PAGE_TOK = 32,   /* positions of a cache page: a window of 128 spans at most five */
    LOGIT_ROWS = 64, /* rows per step when every row's logits are wanted */
    MAX_WAITING = 4096
};

struct token_event {
    int32_t token;
    float logprob;
    uint64_t t_ns;
};

struct request {
    struct engine *engine;
    struct request *next; /* in its list */
    bool running;
    atomic_bool cancelled;
    struct request_params par;
    int32_t *ids; /* [n_prompt + max_tok] prompt, then what was generated */
    int n_prompt, n_ids;
    int n_done; /* positions in the cache */
    struct kv_seq seq;
    struct budget budget;
    struct token_event *ev; /* [max_tok] */
    int n_ev, i_ev;         /* produced, delivered */
    enum finish finish;
    bool finish_delivered;
    struct err err;
};

struct engine {
    pthread_mutex_t lock;
    struct backend *backend;
    const struct vocab *vocab;
    const struct spec *spec;
    struct kv kv;
    int n_ctx, max_requests, chunk, max_rows;
    struct request *waiting, *running; /* oldest first */
    int n_waiting, n_running;
    struct sample_scratch scratch;
    /* the batch under construction */
    int32_t *tok, *logit_row; /* [max_rows], [max_logit_rows] */
    struct batch_seq *seq;    /* [max_requests] */
    struct request **of_seq;  /* [max_requests] */
};

status engine_open(const struct engine_opts *o, struct engine **out, struct err *e)
{
    *out = NULL;
    struct engine *g = mem_calloc(1, sizeof *g);
    if (!g)
        return err_set(e, E_NOMEM, "out of memory");
    pthread_mutex_init(&g->lock, NULL);
    g->spec = &o->weights->spec;
    g->vocab = o->vocab;
    g->n_ctx = o->n_ctx;
    g->max_requests = o->max_requests;
    g->chunk = o->chunk;
    g->max_rows = max_int(o->chunk + o->max_requests, LOGIT_ROWS);

    struct kv_plan plan = {
        .page_tok = PAGE_TOK,
        .max_rows = g->max_rows,
        .max_logit_rows = max_int(o->max_requests, LOGIT_ROWS),
    };
    g->kv.page_tok = PAGE_TOK;
    g->kv.window = max_int(1, g->spec->window); /* a model without sliding layers may say 0 */
    int chunk = max_int(o->chunk, LOGIT_ROWS);
    size_t n_full = (size_t)kv_need_full(&g->kv, o->n_ctx) * (size_t)o->max_requests;
    size_t n_win = (size_t)kv_need_window(&g->kv, o->n_ctx, chunk) * (size_t)o->max_requests;
    status st = OK;
    if (n_full > INT32_MAX || n_win > INT32_MAX)
        TRY(err_set(e, E_LIMIT, "%d requests of %d tokens need too many cache pages",
                    o->max_requests, o->n_ctx));
    plan.n_full = (int)n_full;
    plan.n_window = (int)n_win;

    struct backend_opts bo = {.arith = o->arith, .n_thread = o->n_thread};
    TRY(backend_cpu_open(o->weights, &bo, &g->backend, e));
    TRY(g->backend->kv_init(g->backend, &plan, e));
    TRY(kv_open(&g->kv, &plan, max_int(1, g->spec->window)));
    TRY(sample_scratch_open(&g->scratch, g->spec->n_vocab));
    g->tok = mem_array((size_t)g->max_rows, sizeof *g->tok);
    g->logit_row = mem_array((size_t)plan.max_logit_rows, sizeof *g->logit_row);
    g->seq = mem_array((size_t)o->max_requests, sizeof *g->seq);
    g->of_seq = mem_array((size_t)o->max_requests, sizeof(struct request *));
    if (!g->tok || !g->logit_row || !g->seq || !g->of_seq)
        st = E_NOMEM;
out:
    if (st < 0) {
        if (st == E_NOMEM && e && e->code != E_NOMEM)
            err_set(e, E_NOMEM, "out of memory");
        engine_close(g);
        return st;
    }
    *out = g;
    return OK;
}

void engine_close(struct engine *g)
{
    if (!g)
        return;
    if (g->backend)
        g->backend->close(g->backend);
    kv_close(&g->kv);
    sample_scratch_close(&g->scratch);
    mem_free(g->tok);
    mem_free(g->logit_row);
    mem_free(g->seq);
    mem_free(g->of_seq);
    pthread_mutex_destroy(&g->lock);
    mem_free(g);
}

/* ---- requests ---- */

static void list_append(struct request **list, struct request *r)
{
    while (*list)
        list = &(*list)->next;
    *list = r;
    r->next = NULL;
}

static void list_remove(struct request **list, struct request *r)
{
    while (*list && *list != r)
        list = &(*list)->next;
    if (*list)
        *list = r->next;
}

status engine_check_ids(const struct engine *g, const int32_t *ids, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= g->spec->n_vocab)
            return err_set(e, E_INPUT,
                           "token %d at index %zu is outside the model's vocabulary of %d", ids[i],
                           i, g->spec->n_vocab);
    return OK;
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
    status st = engine_check_ids(g, ids, n, e);
    if (st < 0)
        return st;
    struct request *r = mem_calloc(1, sizeof *r);
    if (!r)
        return err_set(e, E_NOMEM, "out of memory");
    r->engine = g;
    r->par = *par;
    r->n_prompt = r->n_ids = (int)n;
    if (par->max_tok <= 0 || par->max_tok > g->n_ctx - (int)n)
        r->par.max_tok = g->n_ctx - (int)n;
    size_t n_all = n + (size_t)r->par.max_tok;
    r->ids = mem_array(n_all, sizeof *r->ids);
    r->ev = mem_array((size_t)r->par.max_tok, sizeof *r->ev);
    if (!r->ids || !r->ev)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    memcpy(r->ids, ids, n * sizeof *ids);
    TRY(budget_open(&r->budget, par->plain ? NULL : g->vocab, par->reasoning_budget, e));

    pthread_mutex_lock(&g->lock);
    if (g->n_waiting >= MAX_WAITING) {
        st = err_set(e, E_BUSY, "%d requests are waiting already", g->n_waiting);
    } else {
        list_append(&g->waiting, r);
        g->n_waiting++;
    }
    pthread_mutex_unlock(&g->lock);
out:
    if (st < 0) {
        budget_close(&r->budget);
        mem_free(r->ids);
        mem_free(r->ev);
        mem_free(r);
        return st;
    }
    *out = r;
    return OK;
}

/* Takes the request off its list and gives its pages back. Harmless when done before. */
static void retire(struct request *r)
{
    struct engine *g = r->engine;
    if (r->running) {
        list_remove(&g->running, r);
        g->n_running--;
        kv_release(&g->kv, &r->seq);
        r->running = false;
    } else if (r->finish == FINISH_NONE) {
        list_remove(&g->waiting, r);
        g->n_waiting--;
    }
}

static void finish(struct request *r, enum finish how, const struct err *e)
{
    retire(r);
    r->finish = how;
    if (e)
        r->err = *e;
}

void request_cancel(struct request *r)
{
    atomic_store(&r->cancelled, true);
}

void request_free(struct request *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->engine->lock);
    retire(r);
    pthread_mutex_unlock(&r->engine->lock);
    budget_close(&r->budget);
    mem_free(r->ids);
    mem_free(r->ev);
    mem_free(r);
}

/* ---- one step ---- */

static void drop_cancelled(struct request *list)
{
    struct err e;
    err_set(&e, E_CANCEL, "cancelled");
    for (struct request *r = list, *next; r; r = next) {
        next = r->next;
        if (atomic_load(&r->cancelled))
            finish(r, FINISH_ERROR, &e);
    }
}

static void admit(struct engine *g)
{
    while (g->waiting && g->n_running < g->max_requests) {
        struct request *r = g->waiting;
        status st = kv_admit(&g->kv, &r->seq, r->n_prompt + r->par.max_tok, g->chunk);
        if (st == E_BUSY)
            return;
        if (st < 0) {
            struct err e;
            err_set(&e, st, "out of memory");
            finish(r, FINISH_ERROR, &e);
            continue;
        }
        list_remove(&g->waiting, r);
        g->n_waiting--;
        list_append(&g->running, r);
        g->n_running++;
        r->running = true;
    }
}

/* Rows for every running request: what it has not yet fed, prompts in chunks. */
static void plan(struct engine *g, struct batch *b)
{
    *b = (struct batch){.tok = g->tok, .seq = g->seq, .logit_row = g->logit_row};
    int prompt_rows = g->chunk;
    for (struct request *r = g->running; r; r = r->next) {
        int n = r->n_ids - r->n_done;
        if (n > 1) {
            n = min_int(n, prompt_rows);
            prompt_rows -= n;
        }
        if (n == 0)
            continue;
        kv_advance(&g->kv, &r->seq, r->n_done, n);
        g->seq[b->n_seq] = (struct batch_seq){.row0 = b->n_row,
                                              .n_row = n,
                                              .pos0 = r->n_done,
                                              .full = r->seq.full,
                                              .window = r->seq.win};
        g->of_seq[b->n_seq++] = r;
        memcpy(g->tok + b->n_row, r->ids + r->n_done, (size_t)n * sizeof *g->tok);
        b->n_row += n;
        if (r->n_done + n == r->n_ids)
            g->logit_row[b->n_logit++] = b->n_row - 1;
    }
}

static bool is_end(const struct engine *g, const struct request *r, int32_t id)
{
    for (int i = 0; i < g->spec->n_eos; i++)
        if (g->spec->eos[i] == id)
            return true;
    return !r->par.plain && g->vocab && harmony_is_stop(g->vocab, id);
}

static void take_token(struct engine *g, struct request *r, const float *logits)
{
    int i = r->n_ids - r->n_prompt;
    int32_t id = budget_next(&r->budget);
    if (id < 0)
        id = sample_token(logits, &r->par.sample, (uint64_t)i, &g->scratch);
    budget_feed(&r->budget, id);
    r->ids[r->n_ids++] = id;
    r->ev[r->n_ev++] = (struct token_event){
        .token = id,
        .logprob = (float)((double)logits[id] - sample_lse(logits, g->spec->n_vocab)),
        .t_ns = clock_ns()};
    if (!r->par.ignore_eos && is_end(g, r, id)) {
        bool call = g->vocab && id == vocab_special(g->vocab, SP_CALL);
        finish(r, call ? FINISH_CALL : FINISH_STOP, NULL);
    } else if (i + 1 == r->par.max_tok) {
        finish(r, FINISH_LENGTH, NULL);
    }
}

static void step(struct engine *g)
{
    drop_cancelled(g->running);
    drop_cancelled(g->waiting);
    admit(g);
    struct batch b;
    struct step_out out;
    struct err e = {0};
    plan(g, &b);
    if (b.n_row == 0)
        return;
    status st = g->backend->step(g->backend, &b, &out, &e);
    int i_logit = 0;
    for (int i = 0; i < b.n_seq; i++) {
        struct request *r = g->of_seq[i];
        if (st < 0) {
            finish(r, FINISH_ERROR, &e);
            continue;
        }
        r->n_done += b.seq[i].n_row;
        if (r->n_done == r->n_ids)
            take_token(g, r, out.logits + (size_t)i_logit++ * (size_t)g->spec->n_vocab);
    }
}

status request_next(struct request *r, struct event *ev, int timeout_ms)
{
    struct engine *g = r->engine;
    uint64_t start = clock_ns();
    status st = OK;
    pthread_mutex_lock(&g->lock);
    while (r->i_ev == r->n_ev && r->finish == FINISH_NONE) {
        if (timeout_ms >= 0 && clock_ms_since(start) > timeout_ms) {
            st = E_BUSY;
            goto out;
        }
        step(g);
    }
    *ev = (struct event){0};
    if (r->i_ev < r->n_ev) {
        const struct token_event *t = &r->ev[r->i_ev++];
        ev->token = t->token;
        ev->logprob = t->logprob;
        ev->t_ns = t->t_ns;
    } else if (!r->finish_delivered) {
        r->finish_delivered = true;
        ev->is_finish = true;
        ev->finish = r->finish;
        ev->err = r->err;
        ev->t_ns = clock_ns();
    } else {
        st = E_STATE;
    }
out:
    pthread_mutex_unlock(&g->lock);
    return st;
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
    status st = engine_check_ids(g, ids, n, e);
    if (st < 0)
        return st;
    pthread_mutex_lock(&g->lock);
    struct kv_seq seq;
    int chunk = last_only ? g->chunk : LOGIT_ROWS;
    st = kv_admit(&g->kv, &seq, (int)n, chunk);
    if (st < 0) {
        err_set(e, st, st == E_BUSY ? "the engine is busy with other requests" : "out of memory");
        goto unlock;
    }
    for (int done = 0; done < (int)n;) {
        int m = min_int(chunk, (int)n - done);
        bool last = done + m == (int)n;
        kv_advance(&g->kv, &seq, done, m);
        struct batch_seq bs = {.n_row = m, .pos0 = done, .full = seq.full, .window = seq.win};
        struct batch b = {
            .n_row = m, .tok = ids + done, .n_seq = 1, .seq = &bs, .logit_row = g->logit_row};
        for (int i = 0; i < m && !last_only; i++)
            g->logit_row[b.n_logit++] = i;
        if (last_only && last)
            g->logit_row[b.n_logit++] = m - 1;
        struct step_out out;
        TRY(g->backend->step(g->backend, &b, &out, e));
        for (int i = 0; i < b.n_logit; i++)
            TRY(row(ctx, (size_t)(done + g->logit_row[i]),
                    out.logits + (size_t)i * (size_t)g->spec->n_vocab, g->spec->n_vocab));
        done += m;
    }
out:
    kv_release(&g->kv, &seq);
unlock:
    pthread_mutex_unlock(&g->lock);
    return st;
}
