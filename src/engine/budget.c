#include "engine/budget.h"

#include <string.h>

/* What the parser may keep of one generation: a bound far above any context's text. */
static const size_t max_text = (size_t)64 << 20;

status budget_open(struct budget *b, const struct vocab *v, int max_tok, bool close_only,
                   struct err *e)
{
    *b = (struct budget){.left = max_tok};
    if (max_tok <= 0 || !v)
        return OK;
    struct ids t;
    ids_init(&t, BUDGET_MAX_FORCED);
    status st = OK;
    ids_put(&t, vocab_special(v, SP_END));
    if (!close_only) {
        ids_put(&t, vocab_special(v, SP_START));
        TRY(o200k_encode(v, "assistant", 9, SPECIAL_TEXT, &t, e));
        ids_put(&t, vocab_special(v, SP_CHANNEL));
        TRY(o200k_encode(v, "final", 5, SPECIAL_TEXT, &t, e));
        ids_put(&t, vocab_special(v, SP_MESSAGE));
    }
    TRY(t.st);
    memcpy(b->forced, t.v, t.n * sizeof *t.v);
    b->n_forced = b->i_forced = (int)t.n;
    TRY(harmony_parser_new(v, HARMONY_RECOVER, true, ROLE_ASSISTANT, max_text, &b->parser));
out:
    ids_fini(&t);
    return st;
}

void budget_close(struct budget *b)
{
    harmony_parser_free(b->parser);
    *b = (struct budget){0};
}

status budget_feed(struct budget *b, int32_t id)
{
    if (!b->parser)
        return OK;
    struct harmony_delta d;
    struct harmony_message m;
    struct str text;
    status st = harmony_feed(b->parser, id, &d, NULL);
    b->i_forced += b->i_forced < b->n_forced;
    if (st < 0 || b->i_forced < b->n_forced)
        return st;
    if (!harmony_current(b->parser, &m, &text) || m.channel.n != 8 ||
        memcmp(m.channel.p, "analysis", 8) != 0)
        return OK;
    if (b->left-- == 0)
        b->i_forced = 0;
    return OK;
}

bool budget_spent(const struct budget *b)
{
    return b->n_forced > 0 && b->i_forced == 0;
}

int32_t budget_next(const struct budget *b)
{
    return b->i_forced < b->n_forced ? b->forced[b->i_forced] : -1;
}
