/* What every backend checks before a step: wild memory is worse than a refused step. */
#include "base/num.h"
#include "model/backend.h"

/* Are all pages there that positions [from, to] need? */
static bool pages_ok(const int32_t *table, int from, int to, int n_page, int page_tok)
{
    for (int i = from / page_tok; i <= to / page_tok; i++)
        if (table[i] < 0 || table[i] >= n_page)
            return false;
    return true;
}

status batch_check(const struct batch *b, const struct spec *s, const struct kv_plan *plan,
                   struct err *e)
{
    bool has_full = false, has_window = false;
    for (int i = 0; i < s->n_layer; i++) {
        has_full |= !s->sliding[i];
        has_window |= s->sliding[i];
    }
    if (b->n_row < 1 || b->n_row > plan->max_rows || b->n_logit < 0 ||
        b->n_logit > plan->max_logit_rows || b->n_logit > b->n_row)
        return err_set(e, E_BUG, "batch of %d rows, %d with logits: planned for %d and %d",
                       b->n_row, b->n_logit, plan->max_rows, plan->max_logit_rows);
    int r = 0;
    for (int i = 0; i < b->n_seq; i++) {
        const struct batch_seq *q = &b->seq[i];
        int last = q->pos0 + q->n_row - 1, seen = max_int(0, q->pos0 - (s->window - 1));
        if (q->row0 != r || q->n_row < 1 || q->n_row > b->n_row - r || q->pos0 < 0 || last < 0)
            return err_set(e, E_BUG, "sequence %d of the batch: bad rows or positions", i);
        if ((has_full && !pages_ok(q->full, 0, last, plan->n_full, plan->page_tok)) ||
            (has_window && !pages_ok(q->window, seen, last, plan->n_window, plan->page_tok)))
            return err_set(e, E_BUG, "sequence %d of the batch: a page that it needs is missing",
                           i);
        r += q->n_row;
    }
    if (r != b->n_row)
        return err_set(e, E_BUG, "the batch's sequences have %d rows of %d", r, b->n_row);
    for (int i = 0; i < b->n_row; i++)
        if (b->tok[i] < 0 || b->tok[i] >= s->n_vocab)
            return err_set(e, E_INPUT, "token %d is not in the vocabulary of %d", (int)b->tok[i],
                           s->n_vocab);
    for (int i = 0; i < b->n_logit; i++)
        if (b->logit_row[i] < 0 || b->logit_row[i] >= b->n_row)
            return err_set(e, E_BUG, "logits wanted of row %d of %d", (int)b->logit_row[i],
                           b->n_row);
    return OK;
}
