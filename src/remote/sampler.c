/* Answers to conversations: see sampler.h.
 *
 * Behind every question stands a struct ask. A local one waits until the engine has room, runs as a
 * request whose tokens are parsed here, and is found again through the request's user pointer. A
 * remote one is a call of the client, whose answer or events are taken apart here. What a finished
 * question holds does not tell where it came from; only the token counts of servers that don't
 * report usage are missing (-1).
 */
#include "remote/sampler.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"

#include <poll.h>
#include <string.h>

enum {
    ANSWER_MAX = 64 << 20, /* bytes of an answer's text by channel */
    READY = 64,            /* requests looked at together */
    NO_FD_MS = 5,          /* between looks when the engine has no descriptor */
    SLICE_MS = 1000
};

struct ask {
    struct sampler *s;
    struct sampler_question *q;
    struct ask *prev, *next; /* in s->all */
    struct ask *after;       /* in the list `waiting` or `done` */
    /* local */
    gloss_chat *chat;
    gloss_request *request;
    bool in_analysis;
    int message[3]; /* by part: the message its last text came from, or -1 */
    int at_message; /* whose body the last token stood in, or -1 */
    /* remote */
    struct client_call call;
    struct buf body;
    bool finished; /* the stream said how it ended */
};

struct ask_list {
    struct ask *first, **last;
};

struct sampler {
    struct sampler_opts o;
    struct client *client;
    struct ask *all;
    struct ask_list waiting, done;
};

static void list_init(struct ask_list *l)
{
    l->first = NULL;
    l->last = &l->first;
}

static void list_put(struct ask_list *l, struct ask *a)
{
    a->after = NULL;
    *l->last = a;
    l->last = &a->after;
}

static struct ask *list_take(struct ask_list *l)
{
    struct ask *a = l->first;
    if (a && !(l->first = a->after))
        l->last = &l->first;
    return a;
}

static bool is(const char *s, const char *word)
{
    return s && strcmp(s, word) == 0;
}

/* ---- here: an engine ---- */

enum part { PART_FINAL, PART_ANALYSIS, PART_COMMENTARY, PART_NONE };

/* Where text belongs: as in the answers of `gloss infer` and the server. */
static enum part part_of(const struct gloss_delta *d)
{
    const char *to = d->recipient;
    if (to && strncmp(to, "functions.", 10) == 0)
        return PART_NONE;
    if (is(d->channel, "analysis"))
        return PART_ANALYSIS;
    if (to && !is(to, "user") && !is(to, "all") && !is(to, "assistant"))
        return is(d->channel, "final") ? PART_FINAL : PART_NONE;
    return is(d->channel, "commentary") ? PART_COMMENTARY : PART_FINAL;
}

static void add_delta(struct ask *a, const struct gloss_delta *d, uint64_t t_ns)
{
    struct sampler_question *q = a->q;
    enum part part = part_of(d);
    if (!d->n || part == PART_NONE)
        return;
    struct buf *b = part == PART_ANALYSIS     ? &q->analysis
                    : part == PART_COMMENTARY ? &q->commentary
                                              : &q->final;
    if (part == PART_FINAL && !q->first_final_ns)
        q->first_final_ns = t_ns;
    if (part == PART_ANALYSIS && !q->first_reasoning_ns)
        q->first_reasoning_ns = t_ns;
    if (b->n && a->message[part] != d->message)
        buf_putc(b, '\n');
    a->message[part] = d->message;
    buf_put(b, d->text, d->n);
}

static status take_token(struct ask *a, const struct gloss_event *ev)
{
    struct sampler_question *q = a->q;
    struct gloss_delta d = {0};
    q->n_output++;
    if (!q->first_ns)
        q->first_ns = ev->t_ns;
    status st = gloss_chat_feed(a->chat, ev->token, &d, (struct gloss_err *)(void *)&q->err);
    if (st < 0)
        return st;
    bool in_analysis = is(d.channel, "analysis");
    if (in_analysis && a->in_analysis) /* the marker that opens the body is no part of it */
        q->n_reasoning++;
    a->in_analysis = in_analysis;
    if (d.text || d.channel || d.recipient)
        a->at_message = d.message;
    d.n -= (size_t)ev->n_hide < d.n ? (size_t)ev->n_hide : d.n;
    add_delta(a, &d, ev->t_ns);
    return OK;
}

static bool has_call(struct ask *a)
{
    struct gloss_message m;
    for (int i = 0; i < gloss_chat_messages(a->chat); i++)
        if (gloss_chat_message(a->chat, i, &m, NULL) == OK && m.recipient &&
            strncmp(m.recipient, "functions.", 10) == 0)
            return true;
    return false;
}

static status take_finish(struct ask *a, const struct gloss_event *ev)
{
    struct sampler_question *q = a->q;
    struct gloss_delta d = {0};
    status st = OK;
    if (ev->finish == GLOSS_FINISH_ERROR)
        return err_set(&q->err, ev->err.code < 0 ? ev->err.code : E_BUG, "%s", ev->err.msg);
    q->finish = ev->finish == GLOSS_FINISH_LENGTH ? "length" : "stop";
    if (ev->i_stop < 0) { /* a stop text ends the answer for good */
        st = gloss_chat_finish(a->chat, &d, (struct gloss_err *)(void *)&q->err);
        if (st < 0)
            return st;
        if (ev->finish != GLOSS_FINISH_LENGTH || d.message == a->at_message)
            add_delta(a, &d, ev->t_ns); /* not words of a header that was cut off */
        if (ev->finish != GLOSS_FINISH_LENGTH && has_call(a))
            q->finish = "tool_calls";
    }
    return st;
}

/* Reads what is there; true when the question is finished. */
static bool read_events(struct ask *a)
{
    struct sampler_question *q = a->q;
    struct gloss_event ev;
    for (;;) {
        status st = gloss_next(a->request, &ev, 0);
        if (st == GLOSS_E_BUSY)
            return false;
        if (st < 0)
            q->st = err_set(&q->err, st, "the request ended early: %s", err_name(st));
        else if (ev.kind == GLOSS_EV_FINISH)
            q->st = take_finish(a, &ev);
        else
            q->st = take_token(a, &ev);
        if (q->st == OK && (q->final.st < 0 || q->analysis.st < 0 || q->commentary.st < 0))
            q->st = err_set(&q->err, E_LIMIT, "the answer does not fit into memory");
        if (q->st < 0 || ev.kind == GLOSS_EV_FINISH)
            return true;
    }
}

static int effort_of(const char *word)
{
    return is(word, "low")      ? GLOSS_EFFORT_LOW
           : is(word, "high")   ? GLOSS_EFFORT_HIGH
           : is(word, "medium") ? GLOSS_EFFORT_MEDIUM
                                : GLOSS_EFFORT_DEFAULT;
}

static status render(struct ask *a, const int32_t **ids, size_t *n)
{
    struct sampler_question *q = a->q;
    struct gloss_err *e = (struct gloss_err *)(void *)&q->err;
    struct gloss_chat_opts o = GLOSS_INIT(struct gloss_chat_opts);
    o.render_for = GLOSS_FOR_COMPLETION;
    o.drop = GLOSS_DROP_CLOSED_TURNS;
    o.effort = effort_of(q->effort);
    o.date = a->s->o.date;
    o.parse_mode = GLOSS_PARSE_RECOVER;
    status st = OK;
    if (!a->chat) {
        buf_puts(&a->body, "{\"messages\":");
        buf_put(&a->body, q->messages, q->n_messages);
        buf_putc(&a->body, '}');
        TRY(buf_status(&a->body));
        TRY(gloss_chat_new(a->s->o.model, &o, &a->chat, e));
        TRY(gloss_chat_load(a->chat, a->body.p, a->body.n, GLOSS_FORM_OPENAI, e));
    }
    TRY(gloss_chat_render(a->chat, ids, n, e));
out:
    return st;
}

/* False when the engine has no room yet. */
static bool submit(struct ask *a)
{
    struct sampler_question *q = a->q;
    const int32_t *ids = NULL;
    size_t n = 0;
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    p.max_tokens = q->max_tokens;
    p.temperature = (float)q->temperature;
    p.top_p = (float)q->top_p;
    p.seed = q->seed < 0 ? 0 : q->seed ? (uint64_t)q->seed : UINT64_MAX; /* 0 is "none" there */
    p.stop = q->stop;
    p.n_stop = q->n_stop;
    p.no_logprobs = 1;
    p.user = a;
    q->st = render(a, &ids, &n);
    if (q->st == OK) {
        q->n_prompt = (int64_t)n;
        q->start_ns = clock_ns();
        q->st = gloss_submit(a->s->o.engine, ids, n, &p, &a->request,
                             (struct gloss_err *)(void *)&q->err);
    }
    if (q->st == GLOSS_E_BUSY) {
        q->st = OK;
        return false;
    }
    return true;
}

static void submit_waiting(struct sampler *s)
{
    while (s->waiting.first && submit(s->waiting.first)) {
        struct ask *a = list_take(&s->waiting);
        if (a->q->st < 0) {
            a->q->end_ns = clock_ns();
            list_put(&s->done, a);
        }
    }
}

static void read_ready(struct sampler *s)
{
    gloss_request *ready[READY];
    int n;
    while ((n = gloss_engine_ready(s->o.engine, ready, READY)) > 0)
        for (int i = 0; i < n; i++) {
            struct ask *a = gloss_request_user(ready[i]);
            if (!read_events(a))
                continue;
            a->q->end_ns = clock_ns();
            gloss_request_free(a->request);
            a->request = NULL;
            list_put(&s->done, a);
        }
}

static struct ask *next_local(struct sampler *s, int timeout_ms)
{
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : clock_ns() + (uint64_t)timeout_ms * 1000000;
    for (;;) {
        submit_waiting(s);
        read_ready(s);
        struct ask *a = list_take(&s->done);
        uint64_t now = clock_ns();
        if (a || !s->all || now >= until)
            return a;
        struct pollfd p = {gloss_engine_fd(s->o.engine), POLLIN, 0};
        uint64_t ms = (until - now + 999999) / 1000000, most = p.fd < 0 ? NO_FD_MS : SLICE_MS;
        poll(&p, p.fd >= 0, (int)(ms < most ? ms : most));
    }
}

/* ---- there: a server ---- */

static void put_key(struct buf *b, const char *key)
{
    buf_printf(b, ",\"%s\":", key);
}

static void put_sampling(struct ask *a, const char *max_key)
{
    struct sampler_question *q = a->q;
    struct buf *b = &a->body;
    put_key(b, "temperature");
    json_put_num(b, q->temperature);
    if (q->top_p > 0 && q->top_p < 1) {
        put_key(b, "top_p");
        json_put_num(b, q->top_p);
    }
    if (q->max_tokens > 0)
        buf_printf(b, ",\"%s\":%d", max_key, q->max_tokens);
    if (q->stream)
        buf_puts(b, ",\"stream\":true");
}

static void chat_body(struct ask *a)
{
    struct sampler_question *q = a->q;
    struct buf *b = &a->body;
    buf_puts(b, "{\"model\":");
    json_quote(b, a->s->o.model_name, strlen(a->s->o.model_name));
    put_key(b, "messages");
    buf_put(b, q->messages, q->n_messages);
    if (q->effort)
        buf_printf(b, ",\"reasoning_effort\":\"%s\"", q->effort);
    put_sampling(a, "max_tokens");
    if (q->seed >= 0)
        buf_printf(b, ",\"seed\":%lld", (long long)q->seed);
    if (q->n_stop) {
        put_key(b, "stop");
        for (int i = 0; i < q->n_stop; i++) {
            buf_putc(b, i ? ',' : '[');
            json_quote(b, q->stop[i], strlen(q->stop[i]));
        }
        buf_putc(b, ']');
    }
    if (q->stream)
        buf_puts(b, ",\"stream_options\":{\"include_usage\":true}");
    buf_putc(b, '}');
    a->call.path = "/chat/completions";
}

/* The Responses API has neither seeds nor stop texts. */
static void responses_body(struct ask *a)
{
    struct sampler_question *q = a->q;
    struct buf *b = &a->body;
    buf_puts(b, "{\"model\":");
    json_quote(b, a->s->o.model_name, strlen(a->s->o.model_name));
    put_key(b, "input");
    buf_put(b, q->messages, q->n_messages);
    if (q->effort)
        buf_printf(b, ",\"reasoning\":{\"effort\":\"%s\"}", q->effort);
    put_sampling(a, "max_output_tokens");
    buf_puts(b, ",\"store\":false}");
    a->call.path = "/responses";
}

static void add_text(struct buf *b, const struct json *j)
{
    size_t n = 0;
    const char *s = json_kind(j) == J_STR ? json_str(j, &n) : NULL;
    buf_put(b, s, n);
}

/* The chain of thought under either of its names. */
static const struct json *reasoning_of(const struct json *message)
{
    const struct json *r = json_get(message, "reasoning");
    return json_kind(r) == J_STR ? r : json_get(message, "reasoning_content");
}

static const char *finish_of(const struct json *j)
{
    const char *s = json_kind(j) == J_STR ? json_str(j, NULL) : "stop";
    return is(s, "length") ? "length" : is(s, "tool_calls") ? "tool_calls" : "stop";
}

static void take_count(int64_t *v, const struct json *usage, const char *key)
{
    const struct json *j = json_get(usage, key);
    if (json_kind(j) == J_INT && json_int(j) >= 0)
        *v = json_int(j);
}

static void take_usage(struct sampler_question *q, const struct json *usage)
{
    take_count(&q->n_prompt, usage, "prompt_tokens");
    take_count(&q->n_prompt, usage, "input_tokens");
    take_count(&q->n_output, usage, "completion_tokens");
    take_count(&q->n_output, usage, "output_tokens");
    take_count(&q->n_reasoning, json_get(usage, "completion_tokens_details"), "reasoning_tokens");
    take_count(&q->n_reasoning, json_get(usage, "output_tokens_details"), "reasoning_tokens");
}

static status take_chat(struct ask *a, const struct json *root)
{
    struct sampler_question *q = a->q;
    const struct json *choice = json_at(json_get(root, "choices"), 0);
    const struct json *message = json_get(choice, "message");
    if (json_kind(message) != J_OBJ)
        return err_set(&q->err, E_FORMAT, "the server's answer has no choices[0].message");
    add_text(&q->final, json_get(message, "content"));
    add_text(&q->analysis, reasoning_of(message));
    q->finish = finish_of(json_get(choice, "finish_reason"));
    take_usage(q, json_get(root, "usage"));
    return OK;
}

static status take_responses(struct ask *a, const struct json *root)
{
    struct sampler_question *q = a->q;
    const struct json *output = json_get(root, "output");
    const struct json *error = json_get(json_get(root, "error"), "message");
    if (json_kind(error) == J_STR)
        return err_set(&q->err, E_NET, "the server failed: %.160s", json_str(error, NULL));
    if (json_kind(output) != J_ARR)
        return err_set(&q->err, E_FORMAT, "the server's answer has no output");
    q->finish = "stop";
    for (size_t i = 0; i < json_len(output); i++) {
        const struct json *item = json_at(output, i), *content = json_get(item, "content");
        const struct json *phase = json_get(item, "phase"), *type = json_get(item, "type");
        const char *kind = json_kind(type) == J_STR ? json_str(type, NULL) : "";
        bool aside = json_kind(phase) == J_STR && is(json_str(phase, NULL), "commentary");
        struct buf *b = is(kind, "reasoning") ? &q->analysis : aside ? &q->commentary : &q->final;
        if (is(kind, "function_call"))
            q->finish = "tool_calls";
        if (!is(kind, "reasoning") && !is(kind, "message"))
            continue;
        if (b->n)
            buf_putc(b, '\n');
        for (size_t k = 0; k < json_len(content); k++)
            add_text(b, json_get(json_at(content, k), "text"));
    }
    const struct json *state = json_get(root, "status");
    if (json_kind(state) == J_STR && is(json_str(state, NULL), "incomplete"))
        q->finish = "length";
    take_usage(q, json_get(root, "usage"));
    return OK;
}

static void stamp(uint64_t *t, uint64_t now)
{
    if (!*t)
        *t = now;
}

/* Text of a stream: its time and its place. */
static void add_streamed(struct ask *a, struct buf *b, const struct json *text, uint64_t now)
{
    struct sampler_question *q = a->q;
    if (json_kind(text) != J_STR || !*json_str(text, NULL))
        return;
    stamp(&q->first_ns, now);
    stamp(b == &q->final ? &q->first_final_ns : &q->first_reasoning_ns, now);
    add_text(b, text);
}

static void chat_chunk(struct ask *a, const struct json *root, uint64_t now)
{
    struct sampler_question *q = a->q;
    const struct json *choice = json_at(json_get(root, "choices"), 0);
    const struct json *delta = json_get(choice, "delta"), *end = json_get(choice, "finish_reason");
    add_streamed(a, &q->analysis, reasoning_of(delta), now);
    add_streamed(a, &q->final, json_get(delta, "content"), now);
    if (json_kind(end) == J_STR) {
        q->finish = finish_of(end);
        a->finished = true;
    }
    take_usage(q, json_get(root, "usage"));
}

/* Deltas give the times; the texts are those of the response that ends the stream. */
static status responses_event(struct ask *a, const struct json *root, uint64_t now)
{
    struct sampler_question *q = a->q;
    const struct json *type = json_get(root, "type");
    const char *kind = json_kind(type) == J_STR ? json_str(type, NULL) : "";
    if (is(kind, "response.output_text.delta")) {
        stamp(&q->first_ns, now);
        stamp(&q->first_final_ns, now);
    } else if (is(kind, "response.reasoning_text.delta")) {
        stamp(&q->first_ns, now);
        stamp(&q->first_reasoning_ns, now);
    } else if (is(kind, "response.completed") || is(kind, "response.incomplete") ||
               is(kind, "response.failed")) {
        a->finished = true;
        return take_responses(a, json_get(root, "response"));
    }
    return OK;
}

static status on_data(void *user, const char *data, size_t n, uint64_t t_ns, struct err *e)
{
    struct ask *a = user;
    struct json *root = NULL;
    status st = json_parse(data, n, &json_limits_file, &root, e);
    const struct json *error = json_get(root, "error"), *text = json_get(error, "message");
    if (st < 0)
        st = err_set(e, E_FORMAT, "the server sent an event that is no JSON: %.60s", data);
    else if (json_kind(error) == J_OBJ)
        st = err_set(e, E_NET, "the server failed: %.160s",
                     json_kind(text) == J_STR ? json_str(text, NULL) : "(no text)");
    else if (a->s->o.kind == SAMPLER_CHAT)
        chat_chunk(a, root, t_ns);
    else
        st = responses_event(a, root, t_ns);
    if (st < 0 && a->q->err.code)
        *e = a->q->err;
    json_free(root);
    return st;
}

static status take_answer(struct ask *a)
{
    struct sampler_question *q = a->q;
    struct json *root = NULL;
    struct err e = {0};
    status st = json_parse(a->call.answer.p, a->call.answer.n, &json_limits_file, &root, &e);
    if (st < 0)
        st = err_set(&q->err, E_FORMAT, "the server's answer: %.200s", e.msg);
    else
        st = a->s->o.kind == SAMPLER_CHAT ? take_chat(a, root) : take_responses(a, root);
    json_free(root);
    return st;
}

static void take_call(struct ask *a)
{
    struct sampler_question *q = a->q;
    struct client_call *call = &a->call;
    q->start_ns = call->start_ns;
    q->end_ns = call->end_ns;
    q->st = call->st;
    if (q->st < 0)
        q->err = call->err;
    else if (!q->stream)
        q->st = take_answer(a);
    else if (!a->finished)
        q->st = err_set(&q->err, E_NET, "the server's stream ended before the answer did");
    if (q->st == OK && (q->final.st < 0 || q->analysis.st < 0 || q->commentary.st < 0))
        q->st = err_set(&q->err, E_LIMIT, "the answer does not fit into memory");
}

/* ---- the contract ---- */

status sampler_open(const struct sampler_opts *o, struct sampler **sampler, struct err *e)
{
    *sampler = NULL;
    struct sampler *s = mem_calloc(1, sizeof *s);
    if (!s)
        return err_set(e, E_NOMEM, "out of memory for the sampler");
    s->o = *o;
    list_init(&s->waiting);
    list_init(&s->done);
    if (o->kind == SAMPLER_LOCAL)
        gloss_engine_fd(o->engine); /* from now on the engine lists what is ready */
    if (o->kind != SAMPLER_LOCAL) {
        status st = client_open(&o->client, &s->client, e);
        if (st < 0) {
            mem_free(s);
            return st;
        }
    }
    *sampler = s;
    return OK;
}

static void free_ask(struct ask *a)
{
    struct sampler *s = a->s;
    if (a->prev)
        a->prev->next = a->next;
    else
        s->all = a->next;
    if (a->next)
        a->next->prev = a->prev;
    gloss_request_free(a->request);
    gloss_chat_free(a->chat);
    buf_fini(&a->call.answer);
    buf_fini(&a->body);
    a->q->work = NULL;
    mem_free(a);
}

void sampler_close(struct sampler *s)
{
    if (!s)
        return;
    client_close(s->client);
    while (s->all)
        free_ask(s->all);
    mem_free(s);
}

static void clear_answer(struct sampler_question *q)
{
    q->st = OK;
    q->err = (struct err){0};
    buf_init(&q->final, ANSWER_MAX);
    buf_init(&q->analysis, ANSWER_MAX);
    buf_init(&q->commentary, ANSWER_MAX);
    q->finish = "stop";
    q->start_ns = q->end_ns = q->first_ns = q->first_reasoning_ns = q->first_final_ns = 0;
}

status sampler_ask(struct sampler *s, struct sampler_question *q, struct err *e)
{
    struct ask *a = mem_calloc(1, sizeof *a);
    if (!a)
        return err_set(e, E_NOMEM, "out of memory for a question");
    clear_answer(q);
    *a = (struct ask){.s = s, .q = q, .next = s->all, .message = {-1, -1, -1}, .at_message = -1};
    buf_init(&a->body, (size_t)1 << 30);
    buf_init(&a->call.answer, 0);
    if (s->all)
        s->all->prev = a;
    s->all = a;
    q->work = a;
    if (s->o.kind == SAMPLER_LOCAL) {
        q->n_prompt = q->n_output = q->n_reasoning = 0;
        list_put(&s->waiting, a);
        submit_waiting(s);
        return OK;
    }
    q->n_prompt = q->n_output = q->n_reasoning = -1;
    if (s->o.kind == SAMPLER_CHAT)
        chat_body(a);
    else
        responses_body(a);
    a->call.body = a->body.p;
    a->call.n_body = a->body.n;
    a->call.on_data = q->stream ? on_data : NULL;
    a->call.user = a;
    status st = buf_status(&a->body);
    if (st < 0)
        err_set(e, st, "the question does not fit into memory");
    else
        st = client_send(s->client, &a->call, e);
    if (st < 0)
        free_ask(a);
    return st;
}

struct sampler_question *sampler_next(struct sampler *s, int timeout_ms)
{
    struct ask *a;
    if (s->o.kind == SAMPLER_LOCAL) {
        a = next_local(s, timeout_ms);
    } else {
        struct client_call *call = client_next(s->client, timeout_ms);
        a = call ? call->user : NULL;
        if (a)
            take_call(a);
    }
    if (!a)
        return NULL;
    struct sampler_question *q = a->q;
    free_ask(a);
    return q;
}

void sampler_question_fini(struct sampler_question *q)
{
    buf_fini(&q->final);
    buf_fini(&q->analysis);
    buf_fini(&q->commentary);
}
