#include "engine/stop.h"
#include "base/mem.h"

#include <string.h>

/* What the parser may keep of one generation: a bound far above any context's text. */
static const size_t max_text = (size_t)64 << 20;

status stop_open(struct stop *s, const struct vocab *v, bool plain, const char *const *text, int n,
                 struct err *e)
{
    *s = (struct stop){.vocab = v};
    buf_init(&s->tail, max_text);
    if (n == 0)
        return OK;
    if (n < 0 || n > STOP_MAX)
        return err_param(e, E_LIMIT, "stop", "%d stop texts: at most %d are allowed", n, STOP_MAX);
    if (!v)
        return err_param(e, E_INPUT, "stop",
                         "stop texts need a tokenizer; this checkpoint has none");
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        s->len[i] = strlen(text[i]);
        if (s->len[i] == 0)
            return err_param(e, E_INPUT, "stop", "stop text %d is empty", i);
        if (s->len[i] > STOP_MAX_BYTES)
            return err_param(e, E_LIMIT, "stop", "stop text %d has %zu bytes: at most %d", i,
                             s->len[i], STOP_MAX_BYTES);
        s->longest = s->len[i] > s->longest ? s->len[i] : s->longest;
        total += s->len[i];
    }
    status st = OK;
    s->text = mem_alloc(total);
    if (!s->text)
        TRY(E_NOMEM);
    char *to = s->text;
    for (int i = 0; i < n; i++) {
        s->at[i] = memcpy(to, text[i], s->len[i]);
        to += s->len[i];
    }
    s->n = n;
    if (!plain)
        TRY(harmony_parser_new(v, HARMONY_RECOVER, true, ROLE_ASSISTANT, max_text, &s->parser));
out:
    if (st < 0) {
        err_set(e, st, "out of memory for the stop texts");
        stop_close(s);
    }
    return st;
}

void stop_close(struct stop *s)
{
    harmony_parser_free(s->parser);
    buf_fini(&s->tail);
    mem_free(s->text);
    *s = (struct stop){0};
}

static bool visible(const struct harmony_delta *d)
{
    if (str_eq(d->channel, "analysis"))
        return false;
    bool to_user = !d->recipient.p || str_eq(d->recipient, "user") || str_eq(d->recipient, "all") ||
                   str_eq(d->recipient, "assistant");
    return to_user || (str_eq(d->channel, "final") &&
                       (d->recipient.n < 10 || memcmp(d->recipient.p, "functions.", 10) != 0));
}

/* The first stop text that ends within the last `fresh` bytes of the tail. */
static void find_match(const struct stop *s, size_t fresh, struct stop_found *f)
{
    const struct buf *t = &s->tail;
    uint64_t base = s->end - t->n;
    for (int i = 0; i < s->n; i++) {
        size_t reach = fresh + s->len[i] - 1, from = t->n > reach ? t->n - reach : 0;
        const char *hit = memmem(t->p + from, t->n - from, s->at[i], s->len[i]);
        if (hit && (f->which < 0 || base + (uint64_t)(hit - t->p) < f->match)) {
            f->which = i;
            f->match = base + (uint64_t)(hit - t->p);
        }
    }
}

/* Length of the longest end of the tail that begins a stop text. */
static size_t undecided(const struct stop *s)
{
    size_t n = s->tail.n, longest = 0;
    for (int i = 0; i < s->n; i++)
        for (size_t k = s->len[i] - 1 < n ? s->len[i] - 1 : n; k > longest; k--)
            if (memcmp(s->tail.p + n - k, s->at[i], k) == 0)
                longest = k;
    return longest;
}

status stop_feed(struct stop *s, int32_t id, struct stop_found *f)
{
    *f = (struct stop_found){.from = s->end, .to = s->end, .undecided = s->end, .which = -1};
    if (s->n == 0)
        return OK;
    struct str text = {0};
    if (s->parser) {
        struct harmony_delta d = {0};
        status st = harmony_feed(s->parser, id, &d, NULL);
        if (st < 0)
            return st;
        if (d.has_delta && visible(&d)) {
            text = d.delta;
            if (d.i_msg != s->message)
                buf_clear(&s->tail);
            s->message = d.i_msg;
        }
    } else {
        text.p = (const char *)vocab_bytes(s->vocab, id, &text.n);
    }
    buf_put(&s->tail, text.p, text.n);
    if (buf_status(&s->tail) < 0)
        return buf_status(&s->tail);
    s->end += text.n;
    f->to = s->end;
    find_match(s, text.n, f);
    f->undecided = s->end - undecided(s);
    /* Only a stop text's length of the past matters; moved in larger steps. */
    if (s->tail.n > 4 * s->longest + 4096) {
        memmove(s->tail.p, s->tail.p + s->tail.n - s->longest, s->longest);
        s->tail.n = s->longest;
    }
    return OK;
}
