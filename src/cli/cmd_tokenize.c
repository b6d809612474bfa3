/* gloss tokenize: text to token ids and back. */
#include "base/mem.h"
#include "cli/cli.h"

#include <string.h>

/* Arguments joined by blanks, or standard input byte for byte. */
static status read_text(const struct conf *c, struct buf *b, struct err *e)
{
    if (c->n_pos == 0)
        return input_file("-", b, e);
    input_args(c, b);
    return buf_status(b) < 0 ? err_set(e, E_NOMEM, "out of memory for the text") : OK;
}

static status print_ids(const int32_t *ids, size_t n, struct err *e)
{
    struct buf b;
    buf_init(&b, (size_t)8 * CLI_TEXT_MAX);
    buf_putc(&b, '[');
    for (size_t i = 0; i < n; i++)
        buf_printf(&b, i ? ",%d" : "%d", ids[i]);
    buf_puts(&b, "]\n");
    status st = out_buf(&b, e);
    buf_fini(&b);
    return st;
}

static status encode(const struct conf *c, const gloss_model *m, struct err *e)
{
    static const int specials[] = {GLOSS_SPECIAL_ALLOW, GLOSS_SPECIAL_TEXT, GLOSS_SPECIAL_ERROR};
    struct buf text;
    buf_init(&text, CLI_TEXT_MAX);
    int32_t *ids = NULL;
    size_t n = 0;
    status st = OK;
    TRY(read_text(c, &text, e));
    TRY(gloss_encode(m, text.p, text.n, specials[conf_get(c, "special")->i], &ids, &n, pub(e)));
    if (conf_on(c, "count")) {
        struct buf b;
        buf_init(&b, 64);
        buf_printf(&b, "%zu\n", n);
        st = out_buf(&b, e);
        buf_fini(&b);
    } else {
        st = print_ids(ids, n, e);
    }
out:
    gloss_free(ids);
    buf_fini(&text);
    return st;
}

static status decode(const struct conf *c, const gloss_model *m, struct err *e)
{
    struct buf text;
    buf_init(&text, CLI_TEXT_MAX);
    int32_t *ids = NULL;
    size_t n = 0, n_bytes = 0;
    char *bytes = NULL;
    status st = OK;
    TRY(read_text(c, &text, e));
    TRY(input_ids(text.p, text.n, "tokens", &ids, &n, e));
    TRY(gloss_decode(m, ids, n, &bytes, &n_bytes, pub(e)));
    out_put(bytes, n_bytes);
out:
    gloss_free(bytes);
    mem_free(ids);
    buf_fini(&text);
    return st;
}

status cmd_tokenize(struct conf *c, struct err *e)
{
    if (conf_on(c, "decode") && conf_on(c, "count"))
        return err_set(e, E_USAGE, "--decode and --count exclude each other");
    if (conf_on(c, "decode") && conf_get(c, "special")->source == CONF_ARG)
        return err_set(e, E_USAGE, "--special is for encoding; --decode takes every id");
    gloss_model *m;
    status st = cli_open_vocab(c, &m, e);
    if (st < 0)
        return st;
    st = conf_on(c, "decode") ? decode(c, m, e) : encode(c, m, e);
    gloss_model_close(m);
    return st;
}
