/* gloss harmony render and parse: conversations to tokens and back. */
#include "base/mem.h"
#include "cli/cli.h"

#include <string.h>

status cmd_render(struct conf *c, struct err *e)
{
    static const int fors[] = {GLOSS_FOR_COMPLETION, GLOSS_FOR_TRAINING, GLOSS_FOR_CONVERSATION};
    static const int forms[] = {GLOSS_FORM_AUTO, GLOSS_FORM_LIBRARY, GLOSS_FORM_OPENAI};
    struct buf in, out;
    buf_init(&in, CLI_TEXT_MAX);
    buf_init(&out, (size_t)8 * CLI_TEXT_MAX);
    gloss_model *m = NULL;
    gloss_chat *chat = NULL;
    const int32_t *ids = NULL;
    size_t n = 0, n_text = 0;
    char *text = NULL, day[16];
    struct gloss_chat_opts o = GLOSS_INIT(struct gloss_chat_opts);
    o.render_for = fors[conf_get(c, "for")->i];
    o.drop = conf_on(c, "keep-analysis")   ? GLOSS_DROP_NOTHING
             : conf_get(c, "drop")->i == 1 ? GLOSS_DROP_CLOSED_TURNS
                                           : GLOSS_DROP_LIBRARY;
    status st = OK;
    TRY(input_date(c, day, &o.date, e));
    TRY(cli_open_vocab(c, &m, e));
    TRY(input_file("-", &in, e));
    TRY(gloss_chat_new(m, &o, &chat, pub(e)));
    TRY(gloss_chat_load(chat, in.p, in.n, forms[conf_get(c, "format")->i], pub(e)));
    TRY(gloss_chat_render(chat, &ids, &n, pub(e)));
    TRY(gloss_decode(m, ids, n, &text, &n_text, pub(e)));
    buf_puts(&out, "{\"tokens\":[");
    for (size_t i = 0; i < n; i++)
        buf_printf(&out, i ? ",%d" : "%d", ids[i]);
    buf_puts(&out, "],\"text\":");
    json_quote(&out, text, n_text);
    buf_puts(&out, "}\n");
    TRY(out_buf(&out, e));
out:
    gloss_free(text);
    gloss_chat_free(chat);
    gloss_model_close(m);
    buf_fini(&out);
    buf_fini(&in);
    return st;
}

/* ---- parse ---- */

static void put_str(struct buf *b, const char *key, const char *s, size_t n)
{
    buf_printf(b, ",\"%s\":", key);
    if (s)
        json_quote(b, s, n);
    else
        buf_puts(b, "null");
}

static void put_record(struct buf *b, int32_t token, const struct gloss_delta *d)
{
    buf_printf(b, "{\"token\":%d", token);
    put_str(b, "channel", d->channel, d->channel ? strlen(d->channel) : 0);
    put_str(b, "recipient", d->recipient, d->recipient ? strlen(d->recipient) : 0);
    put_str(b, "content_type", d->content_type, d->content_type ? strlen(d->content_type) : 0);
    put_str(b, "delta", d->text, d->n);
    buf_putc(b, '}');
}

/* Feeds all tokens and the end. *i_bad: index of the token that was refused, n for the end of the
 * stream. `deltas` may be NULL. */
static status feed_all(gloss_chat *chat, const int32_t *ids, size_t n, struct buf *deltas,
                       size_t *i_bad, struct err *e)
{
    struct gloss_delta d = {0};
    size_t last = 0; /* where the last record begins */
    struct buf tail; /* text of the last record, for what the end of the stream adds */
    buf_init(&tail, CLI_ANSWER_MAX);
    status st = OK;
    for (*i_bad = 0; *i_bad < n; ++*i_bad) {
        d = (struct gloss_delta){0};
        TRY(gloss_chat_feed(chat, ids[*i_bad], &d, pub(e)));
        if (!deltas)
            continue;
        if (*i_bad)
            buf_putc(deltas, ',');
        last = deltas->n;
        put_record(deltas, ids[*i_bad], &d);
        buf_clear(&tail);
        buf_put(&tail, d.text, d.text ? d.n : 0);
    }
    d = (struct gloss_delta){0};
    TRY(gloss_chat_finish(chat, &d, pub(e)));
    if (deltas && n && d.n) {
        buf_put(&tail, d.text, d.n);
        d.text = tail.p;
        d.n = tail.n;
        deltas->n = last;
        put_record(deltas, ids[n - 1], &d);
    }
out:
    buf_fini(&tail);
    return st;
}

/* The messages member, without the outer braces of what the library gives. */
static status put_messages(struct buf *out, gloss_chat *chat, struct err *e)
{
    const char *json;
    size_t n;
    status st = gloss_chat_parsed(chat, &json, &n, pub(e));
    if (st == OK)
        buf_put(out, json + 1, n - 2);
    return st;
}

status cmd_parse(struct conf *c, struct err *e)
{
    static const int modes[] = {GLOSS_PARSE_STRICT, GLOSS_PARSE_LENIENT, GLOSS_PARSE_RECOVER};
    struct buf in, out, deltas;
    buf_init(&in, CLI_TEXT_MAX);
    buf_init(&out, (size_t)8 * CLI_TEXT_MAX);
    buf_init(&deltas, (size_t)8 * CLI_TEXT_MAX);
    struct json *root = NULL;
    struct json_limits lim = {.max_bytes = CLI_TEXT_MAX, .max_depth = 8, .max_values = SIZE_MAX};
    struct err refused = {0};
    gloss_model *m = NULL;
    gloss_chat *chat = NULL;
    int32_t *ids = NULL;
    size_t n = 0, i_bad = 0;
    struct gloss_chat_opts o = GLOSS_INIT(struct gloss_chat_opts);
    o.parse_mode = modes[conf_get(c, "mode")->i];
    o.parse_from_start = conf_get(c, "role")->i == 1;
    status st = OK;
    TRY(cli_open_vocab(c, &m, e));
    TRY(input_file("-", &in, e));
    TRY(json_parse(in.p, in.n, &lim, &root, e));
    TRY(input_ids_json(json_kind(root) == J_OBJ ? json_get(root, "tokens") : NULL,
                       "standard input, \"tokens\"", &ids, &n, e));
    TRY(gloss_chat_new(m, &o, &chat, pub(e)));
    bool want_deltas = conf_on(c, "deltas");
    st = feed_all(chat, ids, n, want_deltas ? &deltas : NULL, &i_bad, &refused);
    if (st < 0 && st != E_INPUT) {
        *e = refused;
        goto out;
    }
    buf_putc(&out, '{');
    if (st == E_INPUT) {
        buf_puts(&out, "\"error\":{\"message\":");
        json_quote(&out, refused.msg, strlen(refused.msg));
        buf_printf(&out, ",\"token_index\":%zu},", i_bad);
    }
    TRY(put_messages(&out, chat, e));
    if (want_deltas) {
        buf_puts(&out, ",\"deltas\":[");
        buf_put(&out, deltas.p, deltas.n);
        buf_putc(&out, ']');
    }
    buf_puts(&out, "}\n");
    TRY(out_buf(&out, e));
    if (refused.code < 0)
        st = err_set(e, refused.code, "%s", refused.msg);
out:
    gloss_chat_free(chat);
    gloss_model_close(m);
    mem_free(ids);
    json_free(root);
    buf_fini(&deltas);
    buf_fini(&out);
    buf_fini(&in);
    return st;
}
