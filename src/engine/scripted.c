#include "engine/scripted.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"
#include "text/o200k.h"

#include <string.h>

enum { MAX_LINES = 1 << 20, MAX_LINE_TOK = 1 << 20, MAX_DELAY_MS = 3600 * 1000 };

static status read_tokens(const struct json *tokens, int n_vocab, struct ids *t, struct err *e)
{
    if (json_kind(tokens) != J_ARR)
        return err_set(e, E_INPUT, "\"tokens\" must be an array of token ids");
    for (size_t i = 0; i < json_len(tokens); i++) {
        const struct json *v = json_at(tokens, i);
        if (json_kind(v) != J_INT || json_int(v) < 0 || json_int(v) >= n_vocab)
            return err_set(e, E_INPUT, "\"tokens\"[%zu] is no token id below %d", i, n_vocab);
        ids_put(t, (int32_t)json_int(v));
    }
    return OK;
}

static status read_line(struct script_line *l, const char *text, size_t n, const struct vocab *v,
                        int n_vocab, struct err *e)
{
    struct json *root = NULL;
    struct ids t;
    ids_init(&t, MAX_LINE_TOK);
    double delay = 0, first = -1;
    status st = OK;
    TRY(json_parse(text, n, &json_limits_file, &root, e));
    const struct json *tokens = json_get(root, "tokens"), *written = json_get(root, "text");
    if (json_absent(tokens) == json_absent(written))
        TRY(err_set(e, E_INPUT, "needs either \"tokens\" or \"text\""));
    if (!json_absent(tokens)) {
        TRY(read_tokens(tokens, n_vocab, &t, e));
    } else {
        size_t len;
        if (json_kind(written) != J_STR || !v)
            TRY(err_set(e, E_INPUT,
                        v ? "\"text\" must be a string"
                          : "\"text\" needs a tokenizer; this checkpoint has none"));
        const char *s = json_str(written, &len);
        TRY(o200k_encode(v, s, len, SPECIAL_ALLOW, &t, e));
    }
    TRY(json_get_num(root, "delay_ms", 0, MAX_DELAY_MS, &delay, e));
    TRY(json_get_num(root, "first_delay_ms", 0, MAX_DELAY_MS, &first, e));
    TRY(t.st);
    *l = (struct script_line){.tok = t.v,
                              .n = (int)t.n,
                              .delay_ns = (uint64_t)(delay * 1e6),
                              .first_delay_ns = (uint64_t)((first < 0 ? delay : first) * 1e6)};
    ids_init(&t, 0);
out:
    ids_fini(&t);
    json_free(root);
    return st;
}

status script_open(struct script *s, const char *text, size_t n, const struct vocab *v, int n_vocab,
                   struct err *e)
{
    *s = (struct script){0};
    status st = OK;
    const char *end = text + n;
    size_t most = 1;
    for (const char *p = text; p < end; p++)
        most += *p == '\n';
    if (most > MAX_LINES)
        return err_set(e, E_LIMIT, "the script has more than %d lines", MAX_LINES);
    s->line = mem_calloc(most, sizeof *s->line);
    if (!s->line)
        return err_set(e, E_NOMEM, "out of memory for the script");
    int number = 1;
    for (const char *p = text; p < end; number++) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((eol ? eol : end) - p);
        if (strspn(p, " \t\r") < len) {
            struct err line = {0};
            st = read_line(&s->line[s->n], p, len, v, n_vocab, &line);
            if (st < 0) {
                err_param(e, st, "scripted", "script line %d: %.200s", number,
                          *line.msg ? line.msg : err_name(st));
                goto out;
            }
            s->n++;
        }
        p += len + 1;
    }
    if (s->n == 0)
        st = err_param(e, E_INPUT, "scripted", "the script has no lines");
out:
    if (st < 0)
        script_close(s);
    return st;
}

void script_close(struct script *s)
{
    for (int i = 0; i < s->n; i++)
        mem_free(s->line[i].tok);
    mem_free(s->line);
    *s = (struct script){0};
}

/* ---- a backend without arithmetic ---- */

struct scripted {
    struct backend base;
    const struct spec *spec;
};

static void scripted_close(struct backend *b)
{
    mem_free(b);
}

static status scripted_kv_init(struct backend *b, const struct kv_plan *plan, struct err *e)
{
    (void)b;
    (void)plan;
    (void)e;
    return OK;
}

/* The pages hold nothing, but are counted as those of the CPU backend in bf16 would be. */
static void scripted_page_bytes(const struct backend *b, int page_tok, size_t *full, size_t *window)
{
    const struct spec *s = ((const struct scripted *)(const void *)b)->spec;
    size_t n_sliding = 0;
    for (int i = 0; i < s->n_layer; i++)
        n_sliding += s->sliding[i];
    size_t one = (size_t)s->n_kv_head * (size_t)s->d_head * 2 * 2 * (size_t)page_tok;
    *full = one * ((size_t)s->n_layer - n_sliding);
    *window = one * n_sliding;
}

static size_t scripted_memory(const struct backend *b)
{
    (void)b;
    return 0;
}

static status scripted_step(struct backend *b, const struct batch *batch, struct step_out *out,
                            struct err *e)
{
    (void)b;
    (void)batch;
    (void)e;
    *out = (struct step_out){0};
    return OK;
}

static void scripted_copy(struct backend *b, const struct page_pair *pair, int n)
{
    (void)b;
    (void)pair;
    (void)n;
}

static void scripted_swap(struct backend *b, const struct page_pair *pair, int n, bool out)
{
    (void)out;
    scripted_copy(b, pair, n);
}

status backend_scripted_open(const struct weights *w, struct backend **out, struct err *e)
{
    struct scripted *s = mem_calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(e, E_NOMEM, "out of memory");
    s->spec = &w->spec;
    s->base = (struct backend){.name = "scripted",
                               .chunk = 256,
                               .close = scripted_close,
                               .kv_init = scripted_kv_init,
                               .kv_page_bytes = scripted_page_bytes,
                               .kv_memory = scripted_memory,
                               .kv_copy = scripted_copy,
                               .kv_swap = scripted_swap,
                               .step = scripted_step};
    *out = &s->base;
    return OK;
}
