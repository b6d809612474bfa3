/* One generation: tokens of a running request become an answer.
 *
 * The stream is parsed in recover mode, so whatever the model emits becomes text of some channel.
 * What a person sees as the answer is the `final` channel (and text without a channel); analysis
 * and commentary are kept apart; messages to functions.* are tool calls; messages to anybody else
 * (a built-in tool that was not offered) are left out. The engine finds stop texts, and delivers a
 * token only when it knows how much of it belongs to one.
 */
#include "base/clock.h"
#include "base/rng.h"
#include "cli/cli.h"

#include <string.h>

enum { POLL_MS = 100 }; /* how late a signal is noticed while no token arrives */

void answer_init(struct answer *a)
{
    *a = (struct answer){.finish = "stop", .at_message = -1};
    struct buf *const all[] = {&a->response, &a->analysis,   &a->commentary,
                               &a->calls,    &a->call_lines, &a->raw};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_init(all[i], CLI_ANSWER_MAX);
}

void answer_fini(struct answer *a)
{
    struct buf *const all[] = {&a->response, &a->analysis,   &a->commentary,
                               &a->calls,    &a->call_lines, &a->raw};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        buf_fini(all[i]);
}

void answer_clear(struct answer *a)
{
    struct answer keep = *a;
    answer_fini(a);
    answer_init(a);
    a->want_raw = keep.want_raw;
    a->show = keep.show;
    a->ctx = keep.ctx;
}

static bool is(const char *s, const char *word)
{
    return s && strcmp(s, word) == 0;
}

static enum part part_of(const struct gloss_delta *d)
{
    if (d->recipient && strncmp(d->recipient, "functions.", 10) == 0)
        return PART_NONE; /* collected as a whole at the end */
    if (is(d->channel, "analysis"))
        return PART_ANALYSIS;
    if (d->recipient && !is(d->recipient, "user") && !is(d->recipient, "all") &&
        !is(d->recipient, "assistant"))
        return is(d->channel, "final") ? PART_FINAL : PART_NONE;
    return is(d->channel, "commentary") ? PART_COMMENTARY : PART_FINAL;
}

static void show(struct answer *a, enum part part, const char *s, size_t n)
{
    if (a->show && n)
        a->show(a->ctx, part, s, n);
}

static void add_delta(struct answer *a, const struct gloss_delta *d)
{
    enum part part = part_of(d);
    if (!d->n || part == PART_NONE)
        return;
    struct buf *b = part == PART_ANALYSIS     ? &a->analysis
                    : part == PART_COMMENTARY ? &a->commentary
                                              : &a->response;
    size_t before = b->n;
    if (b->n && a->message[part] != d->message)
        buf_putc(b, '\n'); /* messages of one channel stand on lines of their own */
    a->message[part] = d->message;
    buf_put(b, d->text, d->n);
    show(a, part, b->p + before, b->n - before);
}

/* Tool calls of the finished messages. */
static status collect_calls(struct answer *a, gloss_chat *chat, struct err *e)
{
    for (int i = 0; i < gloss_chat_messages(chat); i++) {
        struct gloss_message m;
        status st = gloss_chat_message(chat, i, &m, pub(e));
        if (st < 0)
            return st;
        if (!m.recipient || strncmp(m.recipient, "functions.", 10) != 0)
            continue;
        const char *name = m.recipient + 10;
        size_t n_text = m.text ? m.n_text : 0;
        buf_puts(&a->calls, a->n_call ? "," : "[");
        buf_printf(&a->calls,
                   "{\"id\":\"call_%016llx\",\"type\":\"function\",\"function\":{\"name\":",
                   (unsigned long long)rng_os_seed());
        json_quote(&a->calls, name, strlen(name));
        buf_puts(&a->calls, ",\"arguments\":");
        json_quote(&a->calls, m.text ? m.text : "", n_text);
        buf_puts(&a->calls, "}}");
        buf_printf(&a->call_lines, "functions.%s(", name);
        buf_put(&a->call_lines, m.text, n_text);
        buf_puts(&a->call_lines, ")\n");
        a->n_call++;
    }
    if (a->n_call)
        buf_putc(&a->calls, ']');
    return OK;
}

static status check_buffers(const struct answer *a, struct err *e)
{
    const struct buf *const all[] = {&a->response, &a->analysis,   &a->commentary,
                                     &a->calls,    &a->call_lines, &a->raw};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (buf_status(all[i]) < 0)
            return err_set(e, buf_status(all[i]), "the answer does not fit into memory");
    return OK;
}

/* One token into the answer. */
static status take_token(struct answer *a, gloss_model *m, gloss_chat *chat,
                         const struct gloss_event *ev, struct err *e)
{
    a->n_completion++;
    if (a->want_raw) {
        size_t n = 0, before = a->raw.n;
        const char *bytes = gloss_token_bytes(m, ev->token, &n);
        buf_put(&a->raw, bytes, bytes ? n : 0);
        show(a, PART_RAW, a->raw.p + before, a->raw.n - before);
    }
    struct gloss_delta d = {0};
    status st = gloss_chat_feed(chat, ev->token, &d, pub(e));
    if (st < 0)
        return st;
    bool in_analysis = is(d.channel, "analysis");
    if (in_analysis && a->in_analysis) /* the marker that opens the body is no part of it */
        a->n_reasoning++;
    a->in_analysis = in_analysis;
    if (d.text || d.channel || d.recipient)
        a->at_message = d.message;
    d.n -= (size_t)ev->n_hide < d.n ? (size_t)ev->n_hide : d.n; /* what belongs to a stop text */
    add_delta(a, &d);
    return OK;
}

/* Rates from the arrival times of the first and last token. */
static void take_times(struct answer *a, uint64_t start, uint64_t first, uint64_t last)
{
    if (!first)
        return;
    double prefill_s = (double)(first - start) * 1e-9, decode_s = (double)(last - first) * 1e-9;
    a->ttft_ms = prefill_s * 1e3;
    a->prefill_per_s = prefill_s > 0 ? (double)a->n_prompt / prefill_s : 0;
    a->decode_per_s = decode_s > 0 ? (double)(a->n_completion - 1) / decode_s : 0;
}

status running_start(struct running *q, gloss_engine *g, const struct gloss_params *p,
                     struct err *e)
{
    q->start_ns = clock_ns();
    return gloss_submit(g, q->ids, q->n, p, &q->r, pub(e));
}

void running_end(struct running *q)
{
    if (q->r)
        gloss_cancel(q->r);
    gloss_request_free(q->r);
    gloss_chat_free(q->chat);
    *q = (struct running){0};
}

/* The next event that is there; E_CANCEL after a signal. */
static status next_event(struct running *q, struct gloss_event *ev, struct err *e)
{
    for (;;) {
        status st = gloss_next(q->r, ev, POLL_MS);
        if (cli_stopped())
            return cli_check_stop(e);
        if (st == GLOSS_E_BUSY) /* nothing arrived yet */
            continue;
        return st < 0 ? err_set(e, st, "the request ended early: %s", err_name(st)) : OK;
    }
}

status answer_take(struct answer *a, gloss_model *m, struct running *q, struct err *e)
{
    status st = OK;
    uint64_t first = 0, last = 0;
    struct gloss_delta d = {0};
    struct gloss_event ev = {0};
    a->n_prompt = (int64_t)q->n;
    for (;;) {
        TRY(next_event(q, &ev, e));
        if (ev.kind == GLOSS_EV_FINISH)
            break;
        last = ev.t_ns;
        first = first ? first : last;
        TRY(take_token(a, m, q->chat, &ev, e));
    }
    take_times(a, q->start_ns, first, last);
    if (ev.finish == GLOSS_FINISH_ERROR) {
        st = err_set(e, ev.err.code < 0 ? ev.err.code : E_BUG, "%s", ev.err.msg);
        goto out;
    }
    a->finish = ev.finish == GLOSS_FINISH_LENGTH ? "length" : "stop";
    if (ev.i_stop < 0) { /* a stop text ends the answer for good */
        TRY(gloss_chat_finish(q->chat, &d, pub(e)));
        if (ev.finish != GLOSS_FINISH_LENGTH || d.message == a->at_message)
            add_delta(a, &d); /* not words of a header that was cut off */
        TRY(collect_calls(a, q->chat, e));
        if (a->n_call && strcmp(a->finish, "stop") == 0)
            a->finish = "tool_calls";
    }
    st = check_buffers(a, e);
out:
    return st;
}
