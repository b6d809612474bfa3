#include "engine/kv.h"
#include "base/mem.h"
#include "base/num.h"

static status pool_open(struct kv_pool *p, int n)
{
    *p = (struct kv_pool){.n = n, .n_free = n};
    p->free = mem_array((size_t)n, sizeof *p->free);
    if (!p->free)
        return E_NOMEM;
    for (int i = 0; i < n; i++)
        p->free[i] = n - 1 - i;
    return OK;
}

static bool pool_reserve(struct kv_pool *p, int n)
{
    if (p->n_free - p->n_reserved < n)
        return false;
    p->n_reserved += n;
    return true;
}

static int32_t page_take(struct kv_pool *p, int *rest)
{
    ASSERT(*rest > 0 && p->n_free > 0);
    --*rest;
    p->n_reserved--;
    return p->free[--p->n_free];
}

static void page_give(struct kv_pool *p, int32_t page)
{
    ASSERT(p->n_free < p->n);
    p->free[p->n_free++] = page;
}

status kv_open(struct kv *kv, const struct kv_plan *plan, int window)
{
    *kv = (struct kv){.page_tok = plan->page_tok, .window = window};
    status st = OK;
    TRY(pool_open(&kv->full, plan->n_full));
    TRY(pool_open(&kv->win, plan->n_window));
out:
    if (st < 0)
        kv_close(kv);
    return st;
}

void kv_close(struct kv *kv)
{
    mem_free(kv->full.free);
    mem_free(kv->win.free);
    *kv = (struct kv){0};
}

int kv_need_full(const struct kv *kv, int n_tok)
{
    return (n_tok + kv->page_tok - 1) / kv->page_tok;
}

int kv_need_window(const struct kv *kv, int n_tok, int chunk)
{
    /* window-1 earlier keys and a chunk, lying anywhere against page borders */
    int most = (kv->window - 1 + chunk + kv->page_tok - 2) / kv->page_tok + 1;
    return min_int(most, kv_need_full(kv, n_tok));
}

status kv_admit(struct kv *kv, struct kv_seq *s, int n_tok, int chunk)
{
    int n = kv_need_full(kv, n_tok), n_win = kv_need_window(kv, n_tok, chunk);
    *s = (struct kv_seq){.n_entry = n};
    s->full = mem_array((size_t)n, sizeof *s->full);
    s->win = mem_array((size_t)n, sizeof *s->win);
    if (!s->full || !s->win) {
        kv_release(kv, s);
        return E_NOMEM;
    }
    for (int i = 0; i < n; i++)
        s->full[i] = s->win[i] = -1;
    if (pool_reserve(&kv->full, n)) {
        s->rest_full = n;
        if (pool_reserve(&kv->win, n_win)) {
            s->rest_win = n_win;
            return OK;
        }
    }
    kv_release(kv, s);
    return E_BUSY;
}

void kv_advance(struct kv *kv, struct kv_seq *s, int pos, int n)
{
    int lo = max_int(0, pos - (kv->window - 1)) / kv->page_tok;
    int hi = (pos + n - 1) / kv->page_tok + 1;
    ASSERT(n > 0 && hi <= s->n_entry);
    for (; s->win_lo < lo && s->win_lo < s->win_hi; s->win_lo++) {
        page_give(&kv->win, s->win[s->win_lo]);
        s->win[s->win_lo] = -1;
        s->rest_win++;
        kv->win.n_reserved++;
    }
    for (; s->win_hi < hi; s->win_hi++)
        s->win[s->win_hi] = page_take(&kv->win, &s->rest_win);
    for (; s->n_full < hi; s->n_full++)
        s->full[s->n_full] = page_take(&kv->full, &s->rest_full);
}

void kv_release(struct kv *kv, struct kv_seq *s)
{
    for (int i = 0; i < s->n_full; i++)
        page_give(&kv->full, s->full[i]);
    for (int i = s->win_lo; i < s->win_hi; i++)
        page_give(&kv->win, s->win[i]);
    kv->full.n_reserved -= s->rest_full;
    kv->win.n_reserved -= s->rest_win;
    mem_free(s->full);
    mem_free(s->win);
    *s = (struct kv_seq){0};
}
