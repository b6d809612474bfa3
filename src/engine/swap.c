#include "engine/swap.h"
#include "base/mem.h"
#include "base/num.h"

status swap_open(struct swap *w, const struct kv_plan *plan, struct backend *b)
{
    size_t n = (size_t)plan->n_host_full + (size_t)plan->n_host_window;
    *w = (struct swap){.backend = b};
    status st = OK;
    TRY(kv_pool_open(&w->full, plan->n_host_full));
    TRY(kv_pool_open(&w->win, plan->n_host_window));
    w->pair = mem_array(n, sizeof *w->pair);
    if (!w->pair)
        st = E_NOMEM;
out:
    if (st < 0)
        swap_close(w);
    return st;
}

void swap_close(struct swap *w)
{
    kv_pool_close(&w->full);
    kv_pool_close(&w->win);
    mem_free(w->pair);
    *w = (struct swap){0};
}

status swapped_open(struct swapped *s, int n_entry)
{
    *s = (struct swapped){0};
    s->full = mem_array((size_t)n_entry, sizeof *s->full);
    s->win = mem_array((size_t)n_entry, sizeof *s->win);
    if (s->full && s->win)
        return OK;
    swapped_close(s);
    return E_NOMEM;
}

void swapped_close(struct swapped *s)
{
    ASSERT(s->n == 0);
    mem_free(s->full);
    mem_free(s->win);
    *s = (struct swapped){0};
}

bool swap_out(struct swap *w, const struct kv *kv, const struct kv_seq *pages, int n,
              struct swapped *s)
{
    int n_page = kv_pages(kv, n), lo = kv_first_visible(kv, n), n_pair = 0;
    ASSERT(s->n == 0 && n_page <= pages->n_full && n_page <= pages->win_hi);
    lo = max_int(lo, pages->win_lo);
    if (n == 0 || n_page > w->full.n_free || n_page - lo > w->win.n_free)
        return false;
    for (int i = 0; i < n_page; i++) {
        s->full[i] = kv_take(&w->full);
        w->pair[n_pair++] = (struct page_pair){pages->full[i], s->full[i], false};
    }
    for (int i = lo; i < n_page; i++) {
        s->win[i] = kv_take(&w->win);
        w->pair[n_pair++] = (struct page_pair){pages->win[i], s->win[i], true};
    }
    s->n = n;
    s->n_page = n_page;
    s->win_lo = lo;
    w->n_out += (uint64_t)n_pair;
    w->backend->kv_swap(w->backend, w->pair, n_pair, true);
    return true;
}

void swap_in(struct swap *w, const struct kv_seq *pages, int from, const struct swapped *s)
{
    int n_pair = 0;
    for (int i = from; i < s->n_page; i++)
        w->pair[n_pair++] = (struct page_pair){s->full[i], pages->full[i], false};
    for (int i = max_int(from, s->win_lo); i < s->n_page; i++)
        w->pair[n_pair++] = (struct page_pair){s->win[i], pages->win[i], true};
    w->n_in += (uint64_t)n_pair;
    w->backend->kv_swap(w->backend, w->pair, n_pair, false);
}

void swap_drop(struct swap *w, struct swapped *s)
{
    for (int i = 0; s->n > 0 && i < s->n_page; i++) {
        kv_drop(&w->full, s->full[i]);
        if (i >= s->win_lo)
            kv_drop(&w->win, s->win[i]);
    }
    s->n = 0;
}
