/* The streaming parser: tokens to messages, one token at a time.
 *
 *     EXPECT_START --<|start|>--> HEADER --<|message|>--> CONTENT --<|end|> <|return|> <|call|>-->
 * ...
 *
 * Three modes. Strict and lenient are the harmony library 0.0.8, errors, deltas and the text of
 * broken characters included. Recover is for serving: the model is an untrusted client too, so
 * every stream gives messages, and the text of control tokens never comes out. docs/harmony.md has
 * the rules.
 *
 * Invariants: the cost of a token depends on its own length alone; the text of the open message is
 * `text` plus the undecoded bytes pend[off..]; what is kept stays below max_bytes. In recover mode
 * the deltas of a message add up to its text. Called by gloss.c and the server through it.
 */
#include "base/mem.h"
#include "text/harmony_header.h"
#include "text/utf8.h"

#include <string.h>

enum state { EXPECT_START, HEADER, CONTENT };

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

struct harmony_parser {
    const struct vocab *v;
    enum harmony_mode mode;
    enum state state;
    status failed; /* first failure; repeated for ever */

    bool preset; /* the header's role was given, not read */
    enum harmony_role preset_role;
    struct buf header;   /* decoded header; in recover mode with HEADER_ marks */
    size_t n_header_tok; /* tokens it came from */
    bool header_bad;     /* one of them decodes to nothing */
    struct buf scratch;

    struct harmony_message now; /* header of the open message; strings in the arena */
    struct buf text;            /* its text, and after its end until the next one begins */
    struct buf pend;            /* bytes that wait for the rest of their character */
    size_t off;                 /* of them, already taken */
    bool blocked;               /* an unknown id stopped decoding (not in recover mode) */
    int n_repair[N_REPAIR];

    struct arena arena;          /* strings and parts of all messages */
    struct harmony_message *msg; /* [n_msg] */
    int n_msg, cap_msg;
    size_t used, max_bytes;
};

status harmony_parser_new(const struct vocab *v, enum harmony_mode mode, bool with_role,
                          enum harmony_role role, size_t max_bytes, struct harmony_parser **out)
{
    *out = NULL;
    status st = harmony_check_vocab(v, NULL);
    if (st < 0)
        return st;
    struct harmony_parser *p = mem_calloc(1, sizeof *p);
    if (!p)
        return E_NOMEM;
    p->v = v;
    p->mode = mode;
    p->state = with_role ? HEADER : EXPECT_START;
    p->preset = with_role;
    p->preset_role = role;
    p->max_bytes = max_bytes;
    buf_init(&p->header, max_bytes);
    buf_init(&p->scratch, SIZE_MAX / 4);
    buf_init(&p->text, max_bytes);
    buf_init(&p->pend, max_bytes);
    arena_init(&p->arena, SIZE_MAX);
    *out = p;
    return OK;
}

void harmony_parser_free(struct harmony_parser *p)
{
    if (!p)
        return;
    buf_fini(&p->header);
    buf_fini(&p->scratch);
    buf_fini(&p->text);
    buf_fini(&p->pend);
    arena_fini(&p->arena);
    mem_free(p->msg);
    mem_free(p);
}

/* ---- memory ---- */

static status charge(struct harmony_parser *p, size_t n, struct err *e)
{
    if (n > p->max_bytes - p->used)
        return err_set(e, E_LIMIT, "the parsed messages are longer than %zu bytes", p->max_bytes);
    p->used += n;
    return OK;
}

static status check(const struct buf *b, struct err *e)
{
    status st = buf_status(b);
    return st < 0 ? err_set(e, st, "%s",
                            st == E_LIMIT ? "the parsed messages are too long" : err_name(st))
                  : OK;
}

static status keep(struct harmony_parser *p, struct str s, struct str *out, struct err *e)
{
    *out = (struct str){0};
    if (!s.p)
        return OK;
    status st = charge(p, s.n, e);
    char *copy = st < 0 ? NULL : arena_strndup(&p->arena, s.p, s.n);
    if (!copy)
        return st < 0 ? st : err_set(e, E_NOMEM, "out of memory parsing messages");
    *out = (struct str){copy, s.n};
    return OK;
}

/* ---- text ---- */

/* Bytes of the broken character at s: the longest beginning of a valid one, at least one. */
static size_t broken_len(const char *s, size_t n)
{
    uint32_t cp;
    size_t len = 1;
    while (len < n && len < 4 && utf8_decode(s, len + 1, &cp) < 0)
        len++;
    return len;
}

/* Moves decodable text from pend to `to`. The library replaces at most one broken character per
 * token, so bytes behind it wait for the next one; `all` replaces every one. */
static void decode(struct harmony_parser *p, struct buf *to, bool all)
{
    do {
        const char *s = p->pend.p + p->off;
        size_t n = p->pend.n - p->off, ok = utf8_valid(s, n);
        uint32_t cp;
        buf_put(to, s, ok);
        p->off += ok;
        if (ok == n || utf8_decode(s + ok, n - ok, &cp) < 0)
            break;
        buf_puts(to, replacement);
        p->off += broken_len(s + ok, n - ok);
    } while (all);
    if (p->off == p->pend.n) {
        buf_clear(&p->pend);
        p->off = 0;
    } else if (p->off > 4096 && p->off > p->pend.n / 2) {
        memmove(p->pend.p, p->pend.p + p->off, p->pend.n - p->off);
        p->pend.n -= p->off;
        p->off = 0;
    }
}

/* What is left at the end of a text: every broken character becomes U+FFFD. */
static void flush(struct harmony_parser *p, struct buf *to)
{
    if (p->blocked)
        buf_puts(to, replacement);
    decode(p, to, true);
    if (p->pend.n > p->off)
        buf_puts(to, replacement);
    buf_clear(&p->pend);
    p->off = 0;
    p->blocked = false;
}

/* One token of text. In recover mode an unknown id is one broken character. */
static status add_token(struct harmony_parser *p, int32_t id, struct buf *to, struct err *e)
{
    size_t n = 0;
    const uint8_t *s = vocab_bytes(p->v, id, &n);
    bool recover = p->mode == HARMONY_RECOVER;
    if (!recover && (!s || p->blocked)) {
        p->blocked = true;
        return OK;
    }
    buf_put(&p->pend, s ? (const void *)s : "\xff", s ? n : 1);
    status st = check(&p->pend, e);
    if (st < 0)
        return st;
    decode(p, to, recover);
    return check(to, e);
}

/* ---- messages ---- */

static bool is_end(const struct harmony_parser *p, int32_t id)
{
    return id == vocab_special(p->v, SP_END) || id == vocab_special(p->v, SP_RETURN) ||
           id == vocab_special(p->v, SP_CALL) ||
           (p->mode == HARMONY_RECOVER && harmony_is_stop(p->v, id));
}

static void begin_header(struct harmony_parser *p, bool preset, enum harmony_role role)
{
    p->state = HEADER;
    p->preset = preset;
    p->preset_role = role;
    buf_clear(&p->header);
    p->n_header_tok = 0;
    p->header_bad = false;
    buf_clear(&p->pend);
    p->off = 0;
}

static status set_header(struct harmony_parser *p, const struct header *h, struct err *e)
{
    status st = OK;
    p->now = (struct harmony_message){.role = h->role};
    TRY(keep(p, h->name, &p->now.name, e));
    TRY(keep(p, h->recipient, &p->now.recipient, e));
    TRY(keep(p, h->channel, &p->now.channel, e));
    TRY(keep(p, h->content_type, &p->now.content_type, e));
out:
    return st;
}

/* The message under way, with p->text as its body, joins the finished ones. */
static status end_message(struct harmony_parser *p, struct err *e)
{
    status st = OK;
    p->state = EXPECT_START;
    TRY(check(&p->text, e));
    TRY(charge(p, sizeof *p->msg + sizeof *p->msg->part, e));
    if (p->n_msg == p->cap_msg) {
        int cap = p->cap_msg ? 2 * p->cap_msg : 8;
        struct harmony_message *m = mem_realloc_array(p->msg, (size_t)cap, sizeof *m);
        if (!m)
            return err_set(e, E_NOMEM, "out of memory parsing messages");
        p->msg = m;
        p->cap_msg = cap;
    }
    struct harmony_part *part = arena_alloc(&p->arena, sizeof *part);
    char *text = part ? arena_strndup(&p->arena, p->text.p, p->text.n) : NULL;
    if (!text)
        return err_set(e, E_NOMEM, "out of memory parsing messages");
    part->text = (struct str){text, p->text.n}; /* charged as it came */
    p->now.part = part;
    p->now.n_part = 1;
    p->msg[p->n_msg++] = p->now;
out:
    return st;
}

/* Tells the caller about p->text[from..] and whose text it is. */
static void tell(const struct harmony_parser *p, size_t from, const struct harmony_message *m,
                 int i_msg, struct harmony_delta *d)
{
    d->has_delta = p->text.n > from;
    if (d->has_delta)
        d->delta = (struct str){p->text.p + from, p->text.n - from};
    d->recipient = m->recipient;
    d->channel = m->channel;
    d->content_type = m->content_type;
    d->has_role = true;
    d->role = m->role;
    d->i_msg = i_msg;
}

/* Closes the open body. The library gives what it flushes here no delta. */
static status close_body(struct harmony_parser *p, struct harmony_delta *d, struct err *e)
{
    size_t from = p->text.n;
    flush(p, &p->text);
    status st = charge(p, p->text.n - from, e);
    if (st == OK)
        st = end_message(p, e);
    if (st == OK && p->mode == HARMONY_RECOVER && p->text.n > from)
        tell(p, from, &p->now, p->n_msg - 1, d);
    return st;
}

static struct str header_text(const struct harmony_parser *p)
{
    return (struct str){p->header.p, p->header.n};
}

static bool str_same(struct str a, struct str b)
{
    return a.n == b.n && (!a.n || memcmp(a.p, b.p, a.n) == 0);
}

/* Counts a header that the library does not read, or reads otherwise. */
static status judge_header(struct harmony_parser *p, const struct header *h)
{
    struct header want = {.role = p->preset_role};
    struct buf text, scratch;
    buf_init(&text, p->max_bytes);
    buf_init(&scratch, p->max_bytes);
    for (size_t i = 0; i < p->header.n; i++) {
        unsigned char c = (unsigned char)p->header.p[i];
        if (c == HEADER_CHANNEL)
            buf_puts(&text, "<|channel|>");
        else if (c == HEADER_CONSTRAIN)
            buf_puts(&text, "<|constrain|>");
        else
            buf_putc(&text, (char)c);
    }
    status st = buf_status(&text);
    bool same = st == OK && !p->header_bad && utf8_valid(text.p, text.n) == text.n;
    if (same) {
        st = header_read(text.p, text.n, p->preset, false, &scratch, &want, NULL);
        same = st == OK && want.role == h->role && str_same(want.recipient, h->recipient) &&
               str_same(want.channel, h->channel);
    }
    p->n_repair[REPAIR_HEADER] += !same;
    buf_fini(&text);
    buf_fini(&scratch);
    return st == E_NOMEM ? st : OK;
}

/* <|message|>: the header is complete. */
static status open_body(struct harmony_parser *p, struct err *e)
{
    struct header h = {.role = p->preset_role};
    struct str s = header_text(p);
    status st = OK;
    TRY(check(&p->header, e));
    if (p->mode == HARMONY_RECOVER) {
        TRY(header_recover(s.p, s.n, p->preset, HEADER_BODY, &p->scratch, &h));
        TRY(judge_header(p, &h));
    } else {
        if (p->header_bad || utf8_valid(s.p, s.n) != s.n)
            return err_set(e, E_INPUT, "a message header is not valid UTF-8");
        TRY(header_read(s.p, s.n, p->preset, false, &p->scratch, &h, e));
    }
    TRY(set_header(p, &h, e));
    p->state = CONTENT;
    p->preset = false;
    buf_clear(&p->text);
out:
    return st;
}

/* A header that no body follows becomes a message if it holds one. */
static status salvage(struct harmony_parser *p, enum header_end end, struct harmony_delta *d,
                      struct err *e)
{
    struct header h = {.role = p->preset_role};
    struct str s = header_text(p);
    status st = OK;
    p->state = EXPECT_START;
    bool preset = p->preset;
    p->preset = false;
    TRY(check(&p->header, e));
    if (p->n_header_tok == 0)
        return OK;
    if (p->mode == HARMONY_RECOVER) {
        TRY(header_recover(s.p, s.n, preset, end, &p->scratch, &h));
        p->n_repair[REPAIR_HEADER] += end == HEADER_STOPPED;
        if (end == HEADER_CUT && !h.rest.n)
            return OK;
    } else {
        if (!preset)
            return OK;
        if (p->header_bad || utf8_valid(s.p, s.n) != s.n)
            return err_set(e, E_INPUT, "a message header is not valid UTF-8");
        TRY(header_read(s.p, s.n, true, true, &p->scratch, &h, e));
    }
    TRY(set_header(p, &h, e));
    buf_clear(&p->text);
    TRY(charge(p, h.rest.n, e));
    buf_put(&p->text, h.rest.p, h.rest.n);
    TRY(end_message(p, e));
    if (p->mode == HARMONY_RECOVER && p->text.n)
        tell(p, 0, &p->now, p->n_msg - 1, d);
out:
    return st;
}

/* ---- the library's modes ---- */

static status feed_library(struct harmony_parser *p, int32_t id, struct harmony_delta *d,
                           struct err *e)
{
    size_t n = 0, from = p->text.n;
    const uint8_t *s;
    status st = OK;
    switch (p->state) {
    case EXPECT_START:
        if (id != vocab_special(p->v, SP_START))
            return err_set(e, E_INPUT, "token %d where a message must begin with %d, <|start|>", id,
                           vocab_special(p->v, SP_START));
        begin_header(p, false, ROLE_ASSISTANT);
        break;
    case HEADER:
        if (id == vocab_special(p->v, SP_MESSAGE)) {
            TRY(open_body(p, e));
        } else if (p->mode == HARMONY_LENIENT && is_end(p, id)) {
            TRY(salvage(p, HEADER_STOPPED, d, e));
        } else {
            s = vocab_bytes(p->v, id, &n);
            p->header_bad = p->header_bad || !s;
            p->n_header_tok++;
            buf_put(&p->header, s, s ? n : 0);
            TRY(check(&p->header, e));
        }
        break;
    case CONTENT:
        if (is_end(p, id)) {
            TRY(close_body(p, d, e));
            break;
        }
        TRY(add_token(p, id, &p->text, e));
        TRY(charge(p, p->text.n - from, e));
        d->has_delta = p->text.n > from;
        d->delta = (struct str){d->has_delta ? p->text.p + from : NULL, p->text.n - from};
        break;
    }
out:
    return st;
}

/* ---- recover mode ---- */

/* A control token inside a header. */
static void header_mark(struct harmony_parser *p, int mark)
{
    flush(p, &p->header); /* a character cut by the mark is complete now */
    buf_putc(&p->header, (char)mark);
    p->n_header_tok++;
}

/* Text behind a message's end is one more message on its channel: nothing that was said is lost. */
static status go_on(struct harmony_parser *p, int32_t id, struct harmony_delta *d, struct err *e)
{
    size_t n = 0;
    const uint8_t *s = vocab_bytes(p->v, id, &n);
    bool blank = s != NULL;
    for (size_t i = 0; blank && i < n; i++)
        blank = s[i] == ' ' || (s[i] >= '\t' && s[i] <= '\r');
    if (blank || p->n_msg == 0)
        return OK;
    p->now =
        (struct harmony_message){.role = ROLE_ASSISTANT, .channel = p->msg[p->n_msg - 1].channel};
    p->n_repair[REPAIR_START]++;
    p->state = CONTENT;
    buf_clear(&p->text);
    status st = add_token(p, id, &p->text, e);
    if (st == OK)
        st = charge(p, p->text.n, e);
    if (st == OK && p->text.n)
        tell(p, 0, &p->now, p->n_msg, d);
    return st;
}

static status feed_recover(struct harmony_parser *p, int32_t id, struct harmony_delta *d,
                           struct err *e)
{
    const bool start = id >= 0 && id == vocab_special(p->v, SP_START),
               channel = id >= 0 && id == vocab_special(p->v, SP_CHANNEL),
               message = id >= 0 && id == vocab_special(p->v, SP_MESSAGE),
               special = id >= 0 && vocab_is_special(p->v, id);
    status st = OK;
    if (p->state == CONTENT) {
        size_t from = p->text.n;
        if (is_end(p, id))
            return close_body(p, d, e);
        if (!start && !channel) {
            if (!special)
                TRY(add_token(p, id, &p->text, e));
            p->n_repair[REPAIR_BODY] += special;
            TRY(charge(p, p->text.n - from, e));
            if (p->text.n > from)
                tell(p, from, &p->now, p->n_msg, d);
            return OK;
        }
        TRY(close_body(p, d, e)); /* the end token is missing */
        p->n_repair[REPAIR_END]++;
    }
    if (start) {
        begin_header(p, false, ROLE_ASSISTANT);
    } else if (p->state == EXPECT_START) {
        if (channel || message) {
            begin_header(p, true, ROLE_ASSISTANT);
            p->n_repair[REPAIR_START]++;
        } else if (!special) {
            st = go_on(p, id, d, e);
        }
        if (channel)
            header_mark(p, HEADER_CHANNEL);
        else if (message)
            st = open_body(p, e);
    } else if (message) {
        flush(p, &p->header);
        st = open_body(p, e);
    } else if (is_end(p, id)) {
        flush(p, &p->header);
        st = salvage(p, HEADER_STOPPED, d, e);
    } else if (channel || id == vocab_special(p->v, SP_CONSTRAIN)) {
        header_mark(p, channel ? HEADER_CHANNEL : HEADER_CONSTRAIN);
    } else if (!special) {
        st = add_token(p, id, &p->header, e);
        p->n_header_tok++;
    }
    if (st == OK)
        st = check(&p->header, e);
out:
    return st;
}

/* ---- the interface ---- */

/* What a caller may know between deltas. */
static void describe(const struct harmony_parser *p, struct harmony_delta *d)
{
    *d = (struct harmony_delta){.i_msg = p->n_msg};
    if (p->state == CONTENT) {
        tell(p, p->text.n, &p->now, p->n_msg, d);
    } else if (p->preset) {
        d->has_role = true;
        d->role = p->preset_role;
    }
}

status harmony_feed(struct harmony_parser *p, int32_t id, struct harmony_delta *d, struct err *e)
{
    struct harmony_delta made = {0};
    if (p->failed < 0)
        return err_set(e, p->failed, "the parser has failed before");
    status st =
        p->mode == HARMONY_RECOVER ? feed_recover(p, id, &made, e) : feed_library(p, id, &made, e);
    p->failed = st;
    if (made.has_role) {
        *d = made;
        return st;
    }
    describe(p, d);
    d->has_delta = made.has_delta;
    d->delta = made.delta;
    return st;
}

status harmony_finish(struct harmony_parser *p, struct harmony_delta *d, struct err *e)
{
    struct harmony_delta made = {0};
    status st = OK;
    if (p->failed < 0)
        return err_set(e, p->failed, "the parser has failed before");
    if (p->state == CONTENT) {
        st = close_body(p, &made, e);
    } else if (p->state == HEADER && p->mode == HARMONY_RECOVER) {
        flush(p, &p->header);
        st = salvage(p, HEADER_CUT, &made, e);
    } else if (p->state == HEADER) {
        st = err_set(e, E_INPUT, "the stream ended inside a message header");
    }
    p->failed = st;
    describe(p, d);
    if (made.has_role)
        *d = made;
    return st;
}

const struct harmony_message *harmony_messages(const struct harmony_parser *p, int *n)
{
    *n = p->n_msg;
    return p->msg;
}

int harmony_repairs(const struct harmony_parser *p, enum harmony_repair kind)
{
    return p->n_repair[kind];
}

bool harmony_current(const struct harmony_parser *p, struct harmony_message *m, struct str *text)
{
    if (p->state != CONTENT)
        return false;
    *m = p->now;
    *text = (struct str){p->text.p, p->text.n};
    return true;
}
