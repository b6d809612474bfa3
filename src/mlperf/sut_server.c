/* The system under test behind POST /generate of a server, gloss's own or SGLang's: each worker
 * thread has a client with connections of its own.
 *
 * Streams come in two forms: each frame's output_ids are the new ones (gloss), or all so far
 * (SGLang). meta_info.completion_tokens, which counts all, tells which: the last ids of a frame are
 * the new ones in both.
 */
#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "mlperf/sut_own.h"
#include "remote/client.h"

enum { ANSWER_BYTES_MAX = 256 << 20, BODY_BYTES_MAX = 64 << 20, TURN_MS = 1 };

static const struct json_limits frame_limits = {ANSWER_BYTES_MAX, 32, 16 << 20};

struct call {
    struct client_call c; /* first: client_next returns this address */
    struct sut_job job;
    struct sut_ids ids;
    struct buf body;
    const struct sut_opts *o;
    uint64_t start_ns;
};

/* Ids of one frame or whole answer, behind those that are known. */
static status take_ids(struct call *f, const struct json *root, struct err *e)
{
    const struct json *ids = json_get(root, "output_ids"), *meta = json_get(root, "meta_info");
    int64_t total = -1;
    status st = OK;
    if (json_kind(root) != J_OBJ || (!json_absent(ids) && json_kind(ids) != J_ARR))
        return err_set(e, E_FORMAT, "the server's answer has no list output_ids");
    TRY(json_get_int(meta, "completion_tokens", 0, INT32_MAX, &total, e));
    size_t n = json_len(ids), fresh = n;
    if (total >= 0) {
        fresh = (size_t)total > f->ids.n ? (size_t)total - f->ids.n : 0;
        if (fresh > n)
            return err_set(e, E_FORMAT,
                           "the server counts %lld tokens but sent %zu: its output_ids are not "
                           "complete",
                           (long long)total, f->ids.n + n);
    }
    for (size_t i = n - fresh; i < n; i++) {
        const struct json *v = json_at(ids, i);
        if (json_kind(v) != J_INT || json_int(v) < 0 || json_int(v) > INT32_MAX)
            return err_set(e, E_FORMAT, "the server's output_ids are not token ids");
        if (f->o->stream && f->ids.n == 0)
            f->o->first(f->o->ctx, f->job.id, (int32_t)json_int(v));
        TRY(sut_ids_add(&f->ids, (int32_t)json_int(v)));
    }
out:
    return st;
}

static status take_text(struct call *f, const char *text, size_t n, struct err *e)
{
    struct json *root = NULL;
    status st = OK;
    TRY(json_parse(text, n, &frame_limits, &root, e));
    const struct json *error = json_get(root, "error"), *msg = json_get(error, "message");
    if (!json_absent(error))
        TRY(err_set(e, E_IO, "the server failed: %.200s",
                    json_kind(msg) == J_STR ? json_str(msg, NULL) : "no reason given"));
    TRY(take_ids(f, root, e));
out:
    json_free(root);
    return st;
}

static status on_data(void *user, const char *data, size_t n, uint64_t t_ns, struct err *e)
{
    (void)t_ns;
    return take_text(user, data, n, e);
}

static status start(struct client *client, struct call *f, const struct sut_opts *o, struct err *e)
{
    struct buf *b = &f->body;
    buf_clear(b);
    buf_puts(b, "{\"input_ids\":[");
    for (size_t i = 0; i < f->job.n_ids; i++)
        buf_printf(b, i ? ",%d" : "%d", f->job.ids[i]);
    buf_printf(b,
               "],\"sampling_params\":{\"max_new_tokens\":%d,\"temperature\":", o->gen.max_tokens);
    json_put_num(b, o->gen.temperature);
    buf_printf(b, ",\"top_k\":%d,\"top_p\":", o->gen.top_k > 0 ? o->gen.top_k : -1);
    json_put_num(b, o->gen.top_p);
    if (f->job.seed)
        buf_printf(b, ",\"seed\":%llu", (unsigned long long)(f->job.seed & INT64_MAX));
    buf_printf(b, "},\"stream\":%s}", o->stream ? "true" : "false");
    if (buf_status(b) < 0)
        return err_set(e, buf_status(b), "the request is too large");
    f->o = o;
    f->ids.n = 0;
    f->c = (struct client_call){.path = "/generate",
                                .body = b->p,
                                .n_body = b->n,
                                .on_data = o->stream ? on_data : NULL,
                                .user = f};
    f->start_ns = clock_ns();
    return client_send(client, &f->c, e);
}

static void finish(struct sut *s, struct call *f, status st, const struct err *why)
{
    struct sut_answer a = {.id = f->job.id,
                           .ids = f->ids.p,
                           .n_ids = f->ids.n,
                           .start_ns = f->start_ns,
                           .end_ns = clock_ns(),
                           .st = st,
                           .err = *why};
    buf_fini(&f->c.answer);
    sut_done(s, &a);
}

static void run(struct sut_thread *t, struct client *client, struct call *call, struct call **spare)
{
    struct sut *s = t->s;
    int n_spare = s->n_place;
    for (int i = 0; i < n_spare; i++)
        spare[i] = &call[i];
    while (n_spare < s->n_place || !sut_ending(s)) {
        struct err why = {0};
        while (n_spare > 0 && sut_take(s, &spare[n_spare - 1]->job)) {
            struct call *f = spare[n_spare - 1];
            status st = start(client, f, &s->o, &why);
            if (st < 0)
                finish(s, f, st, &why);
            else
                n_spare--;
        }
        if (n_spare == s->n_place) {
            sut_pause(t);
            continue;
        }
        for (struct client_call *c = client_next(client, TURN_MS); c; c = client_next(client, 0)) {
            struct call *f = (struct call *)c;
            status st = c->st;
            why = c->err;
            if (st == OK && !s->o.stream)
                st = take_text(f, c->answer.p, c->answer.n, &why);
            finish(s, f, st, &why);
            spare[n_spare++] = f;
        }
    }
}

void *sut_server_worker(void *ctx)
{
    struct sut_thread *t = ctx;
    struct sut *s = t->s;
    struct client_opts o = {.base_url = s->o.gen.url,
                            .api_key = s->o.gen.api_key,
                            .n_parallel = s->n_place,
                            .max_retries = 3,
                            .backoff_s = 0.5,
                            .backoff_max_s = 10,
                            .connect_timeout_s = 30,
                            .timeout_s = s->o.gen.timeout_s,
                            .max_answer_bytes = ANSWER_BYTES_MAX};
    size_t n = (size_t)s->n_place;
    struct client *client = NULL;
    struct err why = {0};
    struct call *call = mem_calloc(n, sizeof *call), **spare = mem_calloc(n, sizeof *spare);
    for (size_t i = 0; call && i < n; i++)
        buf_init(&call[i].body, BODY_BYTES_MAX);
    if (!call || !spare) {
        err_set(&why, E_NOMEM, "out of memory");
        sut_refuse_all(t, &why);
    } else if (client_open(&o, &client, &why) < 0) {
        sut_refuse_all(t, &why);
    } else {
        run(t, client, call, spare);
    }
    client_close(client);
    for (size_t i = 0; call && i < n; i++) {
        buf_fini(&call[i].body);
        mem_free(call[i].ids.p);
    }
    mem_free(call);
    mem_free(spare);
    return NULL;
}
