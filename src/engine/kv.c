#include "engine/kv.h"
#include "base/mem.h"
#include "base/num.h"

void kv_pool_close(struct kv_pool *p)
{
    mem_free(p->free);
    mem_free(p->ref);
    *p = (struct kv_pool){0};
}

status kv_pool_open(struct kv_pool *p, int n)
{
    *p = (struct kv_pool){.n = n, .n_free = n, .min_free = n};
    p->free = mem_array((size_t)n, sizeof *p->free);
    p->ref = mem_calloc((size_t)n, sizeof *p->ref);
    if (!p->free || !p->ref)
        return E_NOMEM;
    for (int i = 0; i < n; i++)
        p->free[i] = n - 1 - i;
    return OK;
}

status kv_open(struct kv *kv, const struct kv_plan *plan, int window)
{
    *kv = (struct kv){.page_tok = plan->page_tok, .window = window};
    status st = OK;
    TRY(kv_pool_open(&kv->full, plan->n_full));
    TRY(kv_pool_open(&kv->win, plan->n_window));
out:
    if (st < 0)
        kv_close(kv);
    return st;
}

void kv_close(struct kv *kv)
{
    kv_pool_close(&kv->full);
    kv_pool_close(&kv->win);
}

int32_t kv_take(struct kv_pool *p)
{
    if (p->n_free == 0)
        return -1;
    int32_t page = p->free[--p->n_free];
    p->min_free = min_int(p->min_free, p->n_free);
    p->ref[page] = 1;
    return page;
}

void kv_hold(struct kv_pool *p, int32_t page)
{
    ASSERT(p->ref[page] > 0);
    p->ref[page]++;
}

int kv_drop(struct kv_pool *p, int32_t page)
{
    ASSERT(p->ref[page] > 0);
    if (--p->ref[page] == 0)
        p->free[p->n_free++] = page;
    return p->ref[page];
}

int kv_pages(const struct kv *kv, int n_tok)
{
    return (n_tok + kv->page_tok - 1) / kv->page_tok;
}

int kv_first_visible(const struct kv *kv, int pos)
{
    return max_int(0, pos - (kv->window - 1)) / kv->page_tok;
}

int kv_window_pages(const struct kv *kv, int n_tok, int chunk)
{
    /* window-1 earlier keys and a chunk, lying anywhere against page borders */
    int most = (kv->window - 1 + chunk + kv->page_tok - 2) / kv->page_tok + 1;
    return min_int(most, kv_pages(kv, n_tok));
}

status kv_seq_open(const struct kv *kv, struct kv_seq *s, int n_tok)
{
    int n = kv_pages(kv, n_tok);
    *s = (struct kv_seq){.n_entry = n};
    s->full = mem_array((size_t)n, sizeof *s->full);
    s->win = mem_array((size_t)n, sizeof *s->win);
    if (!s->full || !s->win) {
        kv_seq_close(s);
        return E_NOMEM;
    }
    for (int i = 0; i < n; i++)
        s->full[i] = s->win[i] = -1;
    return OK;
}

void kv_seq_close(struct kv_seq *s)
{
    ASSERT(s->n_full == 0 && s->win_lo == s->win_hi);
    mem_free(s->full);
    mem_free(s->win);
    *s = (struct kv_seq){0};
}
