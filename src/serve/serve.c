/* The server's life: bind, become ready, drain, close. See serve.h. */
#include "serve/serve.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "serve/gen.h"
#include "serve/put.h"
#include "serve/store.h"

#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(struct err) == sizeof(struct gloss_err) &&
                   offsetof(struct err, param) == offsetof(struct gloss_err, param) &&
                   offsetof(struct err, msg) == offsetof(struct gloss_err, msg),
               "one layout of error records");

enum { PREP_THREADS = 2, PEM_MAX = 1 << 20 };

static status read_pem(const char *path, char **text, struct err *e)
{
    struct buf b;
    buf_init(&b, PEM_MAX);
    status st = file_read(path, &b, e);
    if (st == OK) {
        *text = mem_strndup(b.p, b.n);
        st = *text ? OK : err_set(e, E_NOMEM, "out of memory");
    }
    buf_fini(&b);
    return st;
}

static status open_parts(struct server *s, struct err *e)
{
    struct store_secrets secret;
    status st = OK;
    TRY(store_open(s->o.store_file, &s->store, e));
    TRY(store_secrets(s->store, &secret, e));
    s->salt = secret.salt;
    memcpy(s->seal, secret.seal, sizeof s->seal);
    TRY(auth_open(s, &s->auth, e));
    if (thoughts_open(&s->thoughts) < 0)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    if (s->o.cert_file) {
        TRY(read_pem(s->o.cert_file, &s->cert, e));
        TRY(read_pem(s->o.tls_key_file, &s->tls_key, e));
    }
    struct http_opts ho = {.host = s->o.host,
                           .port = s->o.port,
                           .cert = s->cert,
                           .key = s->tls_key,
                           .max_body = BODY_MAX,
                           .max_bodies = BODIES_MAX,
                           .head_ms = HEAD_MS,
                           .body_ms = BODY_MS,
                           .write_ms = WRITE_MS,
                           .idle_ms = IDLE_MS,
                           .ctx = s,
                           .head = route_head,
                           .request = route_request,
                           .too_large = route_too_large,
                           .cut_short = route_cut_short,
                           .done = route_done};
    TRY(http_open(&ho, &s->http, e));
out:
    return st;
}

status serve_open(const struct serve_opts *o, struct server **out, struct err *e)
{
    struct server *s = mem_calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(e, E_NOMEM, "out of memory");
    s->o = *o;
    s->created = unix_now();
    atomic_init(&s->state, SERVER_LOADING);
    metrics_init(&s->metrics);
    s->start_ns = clock_ns();
    signal(SIGPIPE, SIG_IGN);
    status st = open_parts(s, e);
    s->metrics.start_s[START_LISTEN] = (double)(clock_ns() - s->start_ns) * 1e-9;
    if (st < 0)
        serve_close(s);
    else
        *out = s;
    return st;
}

status serve_ready(struct server *s, const struct serve_opts *o, gloss_model *m, gloss_engine *g,
                   struct err *e)
{
    struct gloss_stats stats = GLOSS_INIT(struct gloss_stats);
    status st = OK;
    s->model = m;
    s->engine = g;
    s->o.temperature = o->temperature;
    s->o.top_p = o->top_p;
    s->o.min_p = o->min_p;
    s->o.top_k = o->top_k;
    gloss_model_info(m, &s->info);
    gloss_engine_stats(g, &stats);
    s->n_ctx = stats.n_ctx;
    snprintf(s->fingerprint, sizeof s->fingerprint, "gloss-%s", gloss_version());
    if (!s->info.has_tokenizer)
        TRY(err_set(e, E_NOENT, "the checkpoint has no tokenizer.json; serve needs one"));
    TRY(meter_open(strcmp(stats.device, "cuda") == 0 ? o->i_gpu : -1, o->powercap, &s->meter, e));
    TRY(pump_open(s, &s->pump, e));
    TRY(work_open(s, PREP_THREADS, &s->work, e));
    pthread_mutex_lock(&s->metrics.lock);
    s->metrics.start_s[START_MODEL] = o->model_s;
    s->metrics.start_s[START_ENGINE] = o->engine_s;
    s->metrics.start_s[START_ALL] = (double)(clock_ns() - s->start_ns) * 1e-9;
    pthread_mutex_unlock(&s->metrics.lock);
    atomic_store(&s->state, SERVER_READY);
out:
    return st;
}

status serve_drain(struct server *s, int timeout_ms)
{
    uint64_t until = clock_ns() + (uint64_t)timeout_ms * 1000000;
    atomic_store(&s->state, SERVER_DRAINING);
    /* a new connection's request may just arrive: idle must last for a moment */
    for (int idle = 0; idle < 10;) {
        idle = http_active(s->http) ? 0 : idle + 1;
        if (!idle && clock_ns() > until)
            return E_BUSY;
        poll(NULL, 0, 10);
    }
    return OK;
}

void serve_close(struct server *s)
{
    if (!s)
        return;
    atomic_store(&s->state, SERVER_DRAINING);
    work_close(s->work);
    pump_close(s->pump);
    for (int i = 0; s->http && i < 100 && http_active(s->http); i++)
        poll(NULL, 0, 10); /* the io thread sends what was answered last */
    http_close(s->http);
    thoughts_close(s->thoughts);
    store_close(s->store);
    meter_close(s->meter);
    auth_close(s->auth);
    mem_free(s->cert);
    mem_free(s->tls_key);
    metrics_fini(&s->metrics);
    mem_free(s);
}

status serve_reload(struct server *s, struct err *e)
{
    return auth_reload(s->auth, e);
}

int serve_port(const struct server *s)
{
    return http_port(s->http);
}

bool serve_has_keys(struct server *s)
{
    return auth_needed(s->auth);
}
