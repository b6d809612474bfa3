/* gloss score: how likely the model finds given text. JSON Lines in, JSON Lines out.
 *
 * Of {"prompt","continuation"} the two texts are encoded separately and joined, so that the tokens
 * of the continuation do not depend on how the prompt ends.
 */
#include "base/mem.h"
#include "cli/cli.h"

#include <math.h>
#include <string.h>

/* One line's tokens. */
struct sequence {
    int32_t *ids; /* [n] */
    size_t n;
    size_t n_prompt; /* tokens before the continuation */
    bool has_continuation;
};

static status text_member(const struct json *root, const char *key, const char **s, size_t *n,
                          struct err *e)
{
    const struct json *j = json_get(root, key);
    if (json_kind(j) != J_STR)
        return err_param(e, E_INPUT, key, "\"%s\" must be a string", key);
    *s = json_str(j, n);
    return OK;
}

static status read_pair(const gloss_model *m, const struct json *root, struct sequence *q,
                        struct err *e)
{
    const char *prompt = NULL, *text = NULL;
    size_t n_prompt = 0, n_text = 0, n_a = 0, n_b = 0;
    int32_t *a = NULL, *b = NULL;
    status st = OK;
    TRY(text_member(root, "prompt", &prompt, &n_prompt, e));
    TRY(text_member(root, "continuation", &text, &n_text, e));
    TRY(gloss_encode(m, prompt, n_prompt, GLOSS_SPECIAL_TEXT, &a, &n_a, pub(e)));
    TRY(gloss_encode(m, text, n_text, GLOSS_SPECIAL_TEXT, &b, &n_b, pub(e)));
    if (!n_a || !n_b) {
        st = err_set(e, E_INPUT, "\"%s\" must not be empty", n_a ? "continuation" : "prompt");
        goto out;
    }
    q->ids = mem_array(n_a + n_b, sizeof *q->ids);
    if (!q->ids) {
        st = err_set(e, E_NOMEM, "out of memory for %zu tokens", n_a + n_b);
        goto out;
    }
    memcpy(q->ids, a, n_a * sizeof *a);
    memcpy(q->ids + n_a, b, n_b * sizeof *b);
    q->n = n_a + n_b;
    q->n_prompt = n_a;
    q->has_continuation = true;
out:
    gloss_free(b);
    gloss_free(a);
    return st;
}

static status read_sequence(const gloss_model *m, const struct json *root, struct sequence *q,
                            struct err *e)
{
    *q = (struct sequence){0};
    if (json_kind(root) != J_OBJ)
        return err_set(e, E_INPUT,
                       "an object with \"tokens\", or with \"prompt\" and "
                       "\"continuation\", is wanted");
    if (json_absent(json_get(root, "tokens")))
        return read_pair(m, root, q, e);
    status st = input_ids_json(json_get(root, "tokens"), "\"tokens\"", &q->ids, &q->n, e);
    return st == OK && q->n == 0 ? err_set(e, E_INPUT, "\"tokens\" must not be empty") : st;
}

static void put_scores(struct buf *b, const struct sequence *q, const double *lp,
                       const int32_t *greedy)
{
    double sum = 0, tail = 0;
    bool is_greedy = true;
    buf_puts(b, "{\"tokens\":[");
    for (size_t i = 0; i < q->n; i++)
        buf_printf(b, i ? ",%d" : "%d", q->ids[i]);
    buf_puts(b, "],\"logprobs\":[");
    for (size_t i = 0; i < q->n; i++) {
        if (i)
            buf_putc(b, ',');
        json_put_num(b, lp[i]); /* the first has no context: NaN, printed as null */
        if (isnan(lp[i]))
            continue;
        sum += lp[i];
        if (i >= q->n_prompt) {
            tail += lp[i];
            is_greedy = is_greedy && greedy[i] == q->ids[i];
        }
    }
    buf_puts(b, "],\"greedy\":[");
    for (size_t i = 0; i < q->n; i++) {
        if (i)
            buf_putc(b, ',');
        if (greedy[i] < 0)
            buf_puts(b, "null");
        else
            buf_printf(b, "%d", greedy[i]);
    }
    buf_puts(b, "],\"sum\":");
    json_put_num(b, sum);
    if (q->has_continuation) {
        buf_puts(b, ",\"continuation_logprob\":");
        json_put_num(b, tail);
        buf_printf(b, ",\"is_greedy\":%s", is_greedy ? "true" : "false");
    }
    buf_puts(b, "}\n");
}

static status score_line(const gloss_model *m, gloss_engine *g, const char *line, size_t n,
                         struct buf *out, struct err *e)
{
    struct json *root = NULL;
    struct sequence q = {0};
    double *lp = NULL;
    int32_t *greedy = NULL;
    status st = OK;
    buf_clear(out);
    TRY(json_parse(line, n, &json_limits_file, &root, e));
    TRY(read_sequence(m, root, &q, e));
    lp = mem_array(q.n, sizeof *lp);
    greedy = mem_array(q.n, sizeof *greedy);
    if (!lp || !greedy) {
        st = err_set(e, E_NOMEM, "out of memory for %zu tokens", q.n);
        goto out;
    }
    TRY(gloss_score(g, q.ids, q.n, lp, greedy, pub(e)));
    put_scores(out, &q, lp, greedy);
    st = buf_status(out);
out:
    mem_free(greedy);
    mem_free(lp);
    mem_free(q.ids);
    json_free(root);
    return st;
}

status cmd_score(struct conf *c, struct err *e)
{
    gloss_model *m = NULL;
    gloss_engine *g = NULL;
    struct buf in, out;
    buf_init(&in, CLI_TEXT_MAX);
    buf_init(&out, (size_t)8 * CLI_TEXT_MAX);
    size_t n_line = 0, n_failed = 0, n;
    status st = OK;
    TRY(cli_open_model(c, false, &m, e));
    TRY(cli_open_engine(c, m, (int)conf_int(c, "ctx-size"), 1, NULL, &g, e));
    TRY(input_file("-", &in, e));
    const char *p = in.p, *line;
    while (input_line(&p, in.p + in.n, &line, &n)) {
        struct err le = {0};
        TRY(cli_check_stop(e));
        n_line++;
        st = score_line(m, g, line, n, &out, &le);
        if (st == E_INPUT || st == E_LIMIT || st == E_NUMERIC) {
            n_failed++;
            buf_clear(&out);
            buf_puts(&out, "{\"error\":{\"message\":");
            json_quote(&out, le.msg, strlen(le.msg));
            buf_puts(&out, "}}\n");
            st = OK;
        }
        if (st < 0) {
            *e = le;
            goto out;
        }
        TRY(out_line(&out, e));
    }
    if (n_failed)
        st = err_set(e, E_INPUT, "%zu of %zu lines failed; their results tell why", n_failed,
                     n_line);
out:
    gloss_engine_free(g);
    gloss_model_close(m);
    buf_fini(&out);
    buf_fini(&in);
    return st;
}
