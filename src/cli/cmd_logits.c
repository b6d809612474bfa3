/* gloss logits: the model's raw scores as a NumPy file. */
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

/* The head of a version 1.0 .npy file: magic, version, length of the text, then the text, padded
 * with blanks and a newline to a multiple of 64 bytes (NumPy's numpy/lib/format documentation). */
static void put_npy_head(struct buf *b, size_t rows, int cols)
{
    char text[128];
    int n = snprintf(text, sizeof text,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %d), }", rows, cols);
    int padded = (10 + n + 1 + 63) / 64 * 64 - 10;
    buf_put(b, "\x93NUMPY\x01\x00", 8);
    buf_putc(b, (char)(padded & 255));
    buf_putc(b, (char)(padded >> 8));
    buf_printf(b, "%-*s\n", padded - 1, text);
}

static status write_row(void *ctx, const float *logits, int n_vocab)
{
    struct file_new *f = ctx;
    if (cli_stopped())
        return E_CANCEL;
    file_write(f, logits, (size_t)n_vocab * sizeof *logits);
    return f->fault ? E_IO : OK; /* a full disk ends the work now, not at its end */
}

static status read_tokens(const struct conf *c, int32_t **ids, size_t *n, struct err *e)
{
    const char *text = conf_str(c, "tokens"), *path = conf_str(c, "tokens-file");
    if (!text == !path)
        return err_set(e, E_USAGE,
                       "give the tokens by --tokens '[1,2,3]' or by --tokens-file FILE");
    if (text)
        return input_ids(text, strlen(text), "--tokens", ids, n, e);
    struct buf b;
    buf_init(&b, CLI_TEXT_MAX);
    status st = input_file(path, &b, e);
    if (st == OK)
        st = input_ids(b.p, b.n, "--tokens-file", ids, n, e);
    buf_fini(&b);
    return st;
}

status cmd_logits(struct conf *c, struct err *e)
{
    gloss_model *m = NULL;
    gloss_engine *g = NULL;
    struct file_new f = {0};
    struct buf head;
    buf_init(&head, 256);
    int32_t *ids = NULL;
    size_t n = 0;
    struct gloss_info info;
    bool last = conf_on(c, "last");
    status st = OK;
    TRY(read_tokens(c, &ids, &n, e));
    if (n == 0) {
        st = err_set(e, E_INPUT, "no tokens: at least one is needed");
        goto out;
    }
    TRY(cli_open_model(c, false, &m, e));
    gloss_model_info(m, &info);
    TRY(cli_open_engine(c, m, n < (size_t)info.n_ctx ? (int)n : info.n_ctx, 1, NULL, &g, e));
    put_npy_head(&head, last ? 1 : n, info.n_vocab);
    TRY(buf_status(&head));
    cli_catch_signals();
    TRY(file_begin(&f, conf_str(c, "out"), e));
    file_write(&f, head.p, head.n);
    st = gloss_logits(g, ids, n, last, conf_on(c, "reference"), write_row, &f, pub(e));
    if (f.fault)
        st = file_commit(&f, e); /* fails with the reason */
    else if (st == OK)
        TRY(file_commit(&f, e));
out:
    file_abort(&f);
    gloss_engine_free(g);
    gloss_model_close(m);
    mem_free(ids);
    buf_fini(&head);
    return st;
}
