/* Log-likelihoods of an item's choices, as lm-eval asks for them: the context and a choice are
 * encoded together and cut where the context alone would end. With the final prefix the context is
 * the conversation up to an open final message of the assistant, the only place where a harmony
 * model's likelihood of an answer means something.
 *
 * Here the engine scores, item after item; a server is asked for /completions with echo, a request
 * per item and n_parallel at once.
 */
#include "base/mem.h"
#include "eval/job.h"

#include <math.h>
#include <string.h>

enum { POLL_MS = 100 }; /* how late a signal is noticed */

struct tokens {
    int32_t *ids; /* [n] */
    size_t n, n_context;
};

static struct gloss_err *pub(struct err *e)
{
    return (struct gloss_err *)(void *)e;
}

static void drop(struct tokens *t)
{
    mem_free(t->ids);
    *t = (struct tokens){0};
}

/* a and b joined. */
static status join(struct tokens *t, const int32_t *a, size_t n_a, const int32_t *b, size_t n_b,
                   struct err *e)
{
    t->ids = mem_array(n_a + n_b + 1, sizeof *t->ids);
    if (!t->ids)
        return err_set(e, E_NOMEM, "out of memory for %zu tokens", n_a + n_b);
    if (n_a)
        memcpy(t->ids, a, n_a * sizeof *a);
    if (n_b)
        memcpy(t->ids + n_a, b, n_b * sizeof *b);
    t->n = n_a + n_b;
    return OK;
}

/* The conversation with an open final message, then the choice (NULL: nothing). */
static status behind_header(struct job *j, const struct item *it, const char *choice,
                            struct tokens *t, struct err *e)
{
    static const char header[] = "<|channel|>final<|message|>";
    const gloss_model *m = j->o->sampler.model;
    struct gloss_chat_opts o = GLOSS_INIT(struct gloss_chat_opts);
    gloss_chat *chat = NULL;
    struct tokens head = {0};
    const int32_t *ids = NULL;
    int32_t *h = NULL, *c = NULL;
    size_t n = 0, n_h = 0, n_c = 0;
    o.render_for = GLOSS_FOR_COMPLETION;
    o.effort = strcmp(j->o->effort, "low") == 0    ? GLOSS_EFFORT_LOW
               : strcmp(j->o->effort, "high") == 0 ? GLOSS_EFFORT_HIGH
                                                   : GLOSS_EFFORT_MEDIUM;
    o.date = j->o->sampler.date;
    struct buf b;
    buf_init(&b, (size_t)1 << 30);
    buf_printf(&b, "{\"messages\":%s}", it->messages);
    status st = OK;
    TRY(gloss_chat_new(m, &o, &chat, pub(e)));
    TRY(gloss_chat_load(chat, b.p, b.n, GLOSS_FORM_OPENAI, pub(e)));
    TRY(gloss_chat_render(chat, &ids, &n, pub(e)));
    TRY(gloss_encode(m, header, sizeof header - 1, GLOSS_SPECIAL_ALLOW, &h, &n_h, pub(e)));
    TRY(join(&head, ids, n, h, n_h, e));
    if (choice)
        TRY(gloss_encode(m, choice, strlen(choice), GLOSS_SPECIAL_TEXT, &c, &n_c, pub(e)));
    TRY(join(t, head.ids, head.n, c, n_c, e));
    t->n_context = head.n;
out:
    drop(&head);
    gloss_free(c);
    gloss_free(h);
    gloss_chat_free(chat);
    buf_fini(&b);
    return st;
}

/* Plain text: lm-eval's pair, blanks at the context's end going to the choice. */
static status plain(struct job *j, const struct item *it, const char *choice, struct tokens *t,
                    struct err *e)
{
    const gloss_model *m = j->o->sampler.model;
    size_t n_text = strlen(it->prompt), n_context = 0, n = 0;
    int32_t *context = NULL, *whole = NULL;
    while (n_text && strchr(" \t\n\v\f\r", it->prompt[n_text - 1]))
        n_text--;
    struct buf b;
    buf_init(&b, (size_t)1 << 30);
    buf_puts(&b, it->prompt);
    buf_puts(&b, choice ? choice : "");
    status st = OK;
    TRY(gloss_encode(m, it->prompt, n_text, GLOSS_SPECIAL_TEXT, &context, &n_context, pub(e)));
    TRY(gloss_encode(m, b.p, b.n, GLOSS_SPECIAL_TEXT, &whole, &n, pub(e)));
    TRY(join(t, whole, n, NULL, 0, e));
    t->n_context = n_context < n ? n_context : n;
out:
    gloss_free(whole);
    gloss_free(context);
    buf_fini(&b);
    return st;
}

static status encode(struct job *j, const struct item *it, const char *choice, struct tokens *t,
                     struct err *e)
{
    return (j->o->final_prefix ? behind_header : plain)(j, it, choice, t, e);
}

/* ---- here ---- */

/* The row of logits behind the context, and what is looked for in it. */
struct row {
    struct item *it;
    const struct tokens *t; /* [n_choice], each one token behind the same context; NULL: the
                               likeliest of all */
    int32_t best;
};

static gloss_status read_row(void *ctx, const float *logits, int n_vocab)
{
    struct row *r = ctx;
    double sum = 0;
    r->best = 0;
    for (int i = 1; i < n_vocab; i++)
        if (logits[i] > logits[r->best])
            r->best = i;
    for (int i = 0; i < n_vocab; i++)
        sum += exp((double)logits[i] - logits[r->best]);
    for (int k = 0; r->t && k < r->it->n_choice; k++) {
        int32_t id = r->t[k].ids[r->t[k].n - 1];
        r->it->lp[k] = (double)logits[id] - logits[r->best] - log(sum);
        r->it->greedy[k] = id == r->best;
    }
    return GLOSS_OK;
}

static bool one_context(const struct item *it, const struct tokens *t)
{
    for (int k = 0; k < it->n_choice; k++)
        if (t[k].n != t[k].n_context + 1 || t[k].n != t[0].n ||
            memcmp(t[k].ids, t[0].ids, t[0].n_context * sizeof *t[0].ids) != 0)
            return false;
    return true;
}

static status score_here(struct job *j, struct item *it, const struct tokens *t, struct err *e)
{
    gloss_engine *g = j->o->sampler.engine;
    if (one_context(it, t)) {
        struct row r = {.it = it, .t = t};
        return gloss_logits(g, t[0].ids, t[0].n_context, 1, 0, read_row, &r, pub(e));
    }
    for (int k = 0; k < it->n_choice; k++) {
        double *lp = mem_array(t[k].n, sizeof *lp);
        int32_t *greedy = mem_array(t[k].n, sizeof *greedy);
        status st = lp && greedy ? gloss_score(g, t[k].ids, t[k].n, lp, greedy, pub(e))
                                 : err_set(e, E_NOMEM, "out of memory for %zu tokens", t[k].n);
        it->lp[k] = 0;
        it->greedy[k] = true;
        for (size_t i = t[k].n_context; st == OK && i < t[k].n; i++) {
            it->lp[k] += lp[i];
            it->greedy[k] = it->greedy[k] && greedy[i] == t[k].ids[i];
        }
        mem_free(greedy);
        mem_free(lp);
        if (st < 0)
            return st;
    }
    return OK;
}

static status likeliest_here(struct job *j, struct item *it, const struct tokens *t, struct err *e)
{
    struct row r = {.it = it};
    status st = gloss_logits(j->o->sampler.engine, t->ids, t->n, 1, 0, read_row, &r, pub(e));
    if (st < 0)
        return st;
    size_t n = 0;
    const char *s = gloss_token_bytes(j->o->sampler.model, r.best, &n);
    it->final = job_text(j, s ? s : "", s ? n : 0);
    return it->final ? OK : err_set(e, E_NOMEM, "out of memory for the answers");
}

/* ---- there ---- */

static void put_ids(struct buf *b, const struct tokens *t)
{
    buf_putc(b, '[');
    for (size_t i = 0; i < t->n; i++)
        buf_printf(b, i ? ",%d" : "%d", t->ids[i]);
    buf_putc(b, ']');
}

static status read_choice(struct item *it, const struct json *root, const struct tokens *t,
                          struct err *e)
{
    const struct json *list = json_get(root, "choices");
    for (size_t c = 0; c < json_len(list); c++) {
        const struct json *choice = json_at(list, c), *index = json_get(choice, "index");
        const struct json *l = json_get(choice, "logprobs"), *lp = json_get(l, "token_logprobs"),
                          *top = json_get(l, "top_logprobs");
        int64_t k = json_kind(index) == J_INT ? json_int(index) : -1;
        if (k < 0 || k >= it->n_choice || json_len(lp) < t[k].n)
            break;
        it->lp[k] = 0;
        it->greedy[k] = true;
        for (size_t i = t[k].n_context; i < t[k].n; i++) {
            const struct json *v = json_at(lp, i), *tops = json_at(top, i);
            if (json_kind(v) != J_REAL && json_kind(v) != J_INT)
                return err_set(e, E_FORMAT, "the server gave no log-probability of token %zu", i);
            double most = -INFINITY;
            for (void *p = json_first(tops); p; p = json_next(tops, p))
                most = fmax(most, json_num(json_val(p)));
            it->lp[k] += json_num(v);
            it->greedy[k] = it->greedy[k] && json_num(v) >= most;
        }
        if (c + 1 == (size_t)it->n_choice)
            return OK;
    }
    return err_set(e, E_FORMAT,
                   "the server's /completions does not give the prompt's log-probabilities (echo)");
}

/* A request under way. */
struct asked {
    struct asked *prev, *next; /* in the list of those under way */
    struct client_call call;
    struct buf body;
    struct item *it;
    struct tokens t[MAX_CHOICE]; /* [n] */
    int n;
};

static bool wants_token(const struct job *j)
{
    return j->method == EVAL_SINGLE_TOKEN;
}

static void free_asked(struct asked **list, struct asked *a)
{
    if (a->next)
        a->next->prev = a->prev;
    *(a->prev ? &a->prev->next : list) = a->next;
    for (int k = 0; k < a->n; k++)
        drop(&a->t[k]);
    buf_fini(&a->call.answer);
    buf_fini(&a->body);
    mem_free(a);
}

/* The item's tokens, and what is known before it is asked. */
static status encode_all(struct job *j, struct item *it, struct tokens *t, int *n, struct err *e)
{
    bool token = wants_token(j);
    int want = token ? 1 : it->n_choice;
    status st = OK;
    for (*n = 0; st == OK && *n < want; ++*n)
        st = encode(j, it, token ? NULL : it->choice[*n], &t[*n], e);
    it->final = it->analysis = "";
    it->finish = "stop";
    it->n_output = token;
    if (st == OK)
        it->n_prompt = (int64_t)t[0].n_context;
    return st;
}

/* All prompts of an item at once, or the one when a token is asked for. */
static void put_body(const struct job *j, struct asked *a)
{
    struct buf *b = &a->body;
    bool token = wants_token(j);
    buf_puts(b, "{\"model\":");
    json_quote(b, j->o->sampler.model_name, strlen(j->o->sampler.model_name));
    buf_puts(b, ",\"temperature\":0,\"max_tokens\":1");
    buf_puts(b, token ? "" : ",\"logprobs\":1,\"echo\":true");
    buf_puts(b, token ? ",\"prompt\":" : ",\"prompt\":[");
    for (int k = 0; k < a->n; k++) {
        buf_puts(b, k ? "," : "");
        put_ids(b, &a->t[k]);
    }
    buf_puts(b, token ? "}" : "]}");
}

static status send_item(struct job *j, struct client *c, struct asked **list, struct item *it,
                        struct err *e)
{
    struct asked *a = mem_calloc(1, sizeof *a);
    if (!a)
        return err_set(e, E_NOMEM, "out of memory for a request");
    a->it = it;
    a->next = *list;
    if (a->next)
        a->next->prev = a;
    *list = a;
    buf_init(&a->body, (size_t)1 << 30);
    buf_init(&a->call.answer, 0);
    status st = encode_all(j, it, a->t, &a->n, e);
    if (st == OK) {
        put_body(j, a);
        st = buf_status(&a->body);
    }
    a->call.path = "/completions";
    a->call.body = a->body.p;
    a->call.n_body = a->body.n;
    a->call.user = a;
    if (st == OK)
        st = client_send(c, &a->call, e);
    if (st < 0)
        free_asked(list, a);
    return st;
}

static status read_token(struct job *j, struct item *it, const struct json *root, struct err *e)
{
    size_t n;
    const char *s = dataset_text(json_at(json_get(root, "choices"), 0), "text", &n);
    it->final = s ? job_text(j, s, n) : NULL;
    return it->final ? OK : err_set(e, E_FORMAT, "the server's /completions has no text");
}

/* The answer of a finished request into its item; frees the request. */
static status take_item(struct job *j, struct asked **list, struct asked *a, struct err *e)
{
    struct json *root = NULL;
    status st = a->call.st;
    if (st < 0)
        *e = a->call.err;
    else
        st = json_parse(a->call.answer.p, a->call.answer.n, &json_limits_file, &root, e);
    if (st == OK)
        st = wants_token(j) ? read_token(j, a->it, root, e) : read_choice(a->it, root, a->t, e);
    json_free(root);
    free_asked(list, a);
    return st;
}

static status all_there(struct job *j, struct loglik_sink *sink, struct err *e)
{
    struct client *c = NULL;
    int next = 0;
    status st = client_open(&j->o->sampler.client, &c, e);
    struct asked *list = NULL;
    while (st == OK) {
        for (; st == OK && next < j->n && client_running(c) < j->o->n_parallel; next++)
            if (!j->item[next].done)
                st = send_item(j, c, &list, &j->item[next], e);
        if (st < 0 || !client_running(c))
            break;
        struct client_call *call = client_next(c, POLL_MS);
        if (call) {
            struct asked *a = call->user;
            struct item *it = a->it;
            st = take_item(j, &list, a, e);
            if (st == OK)
                st = sink->take(sink->ctx, it, e);
        } else {
            st = sink->wait(sink->ctx, e);
        }
    }
    client_close(c);
    while (list)
        free_asked(&list, list);
    return st;
}

static status item_here(struct job *j, struct item *it, struct err *e)
{
    struct tokens t[MAX_CHOICE] = {{0}};
    int n;
    status st = encode_all(j, it, t, &n, e);
    if (st == OK)
        st = wants_token(j) ? likeliest_here(j, it, t, e) : score_here(j, it, t, e);
    for (int k = 0; k < n; k++)
        drop(&t[k]);
    return st;
}

status loglik_all(struct job *j, struct loglik_sink *sink, struct err *e)
{
    if (j->o->sampler.kind != SAMPLER_LOCAL)
        return all_there(j, sink, e);
    status st = OK;
    for (int i = 0; i < j->n && st == OK; i++) {
        struct item *it = &j->item[i];
        if (it->done)
            continue;
        st = sink->wait(sink->ctx, e);
        if (st == OK)
            st = item_here(j, it, e);
        if (st == OK)
            st = sink->take(sink->ctx, it, e);
    }
    return st;
}
