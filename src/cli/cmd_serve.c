/* gloss serve: the options become the server's, the signals its life.
 *
 * It listens before the model is opened, so that whoever waits for it sees 503 and not a refused
 * connection.
 */
#include "base/clock.h"
#include "base/num.h"
#include "cli/cli.h"
#include "serve/serve.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { WATCH_MS = 50 }; /* how late a signal is noticed */

static volatile sig_atomic_t reload_asked;

static void on_hangup(int sig)
{
    (void)sig;
    reload_asked = 1;
}

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           strncmp(host, "127.", 4) == 0;
}

/* N of "cuda:N", else 0. */
static int card_of(const char *device)
{
    int64_t n = 0;
    if (strncmp(device, "cuda:", 5) != 0 || num_i64(device + 5, 0, 1023, &n) != OK)
        return 0;
    return (int)n;
}

static status read_options(struct conf *c, struct serve_opts *o, char day[16], struct err *e)
{
    static const int fields[] = {SERVE_REASONING_BOTH, SERVE_REASONING_SHORT, SERVE_REASONING_LONG,
                                 SERVE_REASONING_NONE};
    const struct conf_val *key = conf_get(c, "api-key"), *name = conf_get(c, "served-model-name"),
                          *host = conf_get(c, "allowed-host"), *origin = conf_get(c, "cors-origin");
    *o = (struct serve_opts){
        .host = conf_str(c, "host"),
        .port = (int)conf_int(c, "port"),
        .key = key->list,
        .n_key = key->n_list,
        .key_file = conf_str(c, "api-key-file"),
        .model = conf_str(c, "model"),
        .name = name->list,
        .n_name = name->n_list,
        .any_name = conf_on(c, "any-model-name"),
        .allowed_host = host->list,
        .n_allowed_host = host->n_list,
        .origin = origin->list,
        .n_origin = origin->n_list,
        .cert_file = conf_str(c, "tls-cert"),
        .tls_key_file = conf_str(c, "tls-key"),
        .store_file = conf_str(c, "response-store"),
        .effort = conf_str(c, "reasoning-effort"),
        .date = conf_str(c, "date"),
        .reasoning_field = fields[conf_get(c, "reasoning-field")->i],
        .reasoning_budget = (int)conf_int(c, "reasoning-budget"),
        .request_timeout_ms = (int)(conf_num(c, "request-timeout") * 1e3),
        .stream_interval = (int)conf_int(c, "stream-interval"),
        .access_log = conf_on(c, "access-log"),
        .no_web = !conf_on(c, "web"),
        .powercap = conf_str(c, "powercap"),
        .i_gpu = card_of(conf_str(c, "device")),
    };
    if (!o->cert_file != !o->tls_key_file)
        return err_set(e, E_USAGE, "--tls-cert and --tls-key need each other");
    const char *date = NULL;
    if (strcmp(o->date, "today") != 0) { /* today is another day tomorrow */
        status st = input_date(c, day, &date, e);
        if (st < 0)
            return st;
        o->date = date ? day : "none";
    }
    return OK;
}

/* What the model's own files may have changed. */
static void read_sampling(struct conf *c, struct serve_opts *o)
{
    o->temperature = conf_num(c, "temperature");
    o->top_p = conf_num(c, "top-p");
    o->min_p = conf_num(c, "min-p");
    o->top_k = (int)conf_int(c, "top-k");
}

static status open_engine(struct conf *c, gloss_model *m, gloss_engine **g, struct err *e)
{
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    o.n_ctx = (int)conf_int(c, "ctx-size");
    o.max_requests = (int)conf_int(c, "parallel");
    o.max_queue = (int)conf_int(c, "max-queue");
    o.chunk = (int)conf_int(c, "max-batch-tokens");
    o.memory_share = conf_num(c, "gpu-memory-utilization");
    o.no_prefix_cache = !conf_on(c, "prefix-cache");
    return cli_start_engine(c, m, &o, conf_str(c, "scripted"), g, e);
}

static void tell(struct conf *c, struct server *s, const struct serve_opts *o, gloss_model *m,
                 gloss_engine *g, double ms)
{
    struct gloss_info info;
    struct gloss_stats st = GLOSS_INIT(struct gloss_stats);
    gloss_model_info(m, &info);
    gloss_engine_stats(g, &st);
    double full = (double)st.pages_full * (double)st.page_bytes_full,
           window = (double)st.pages_window * (double)st.page_bytes_window;
    out_note(c, "model %s (%s): %.1f MB of weights, %d layers, %d experts, context %d", o->model,
             info.name, (double)info.bytes_total * 1e-6, info.n_layer, info.n_expert, info.n_ctx);
    out_note(c,
             "cache of %.1f MB: %d pages of %d tokens for the full layers, %d for the sliding "
             "layers; a request may have %d tokens, %lld generate at once",
             (full + window) * 1e-6, st.pages_full, st.page_tokens, st.pages_window, st.n_ctx,
             (long long)conf_int(c, "parallel"));
    bool six = strchr(o->host, ':') != NULL;
    out_note(c, "listening on %s://%s%s%s:%d after %.0f ms", o->cert_file ? "https" : "http",
             six ? "[" : "", o->host, six ? "]" : "", serve_port(s), ms);
    if (!is_loopback(o->host) && !serve_has_keys(s))
        out_note(c,
                 "warning: everybody who reaches %s may use this server; --api-key-file sets "
                 "keys",
                 o->host);
}

static status watch(struct conf *c, struct server *s, struct err *e)
{
    while (!cli_stopped()) {
        usleep(WATCH_MS * 1000);
        struct err re = {0};
        if (!reload_asked)
            continue;
        reload_asked = 0;
        if (serve_reload(s, &re) < 0)
            out_note(c, "the keys stay as they were: %s", re.msg);
        else
            out_note(c, "keys read again");
    }
    out_note(c, "finishing what runs; a second signal stops at once");
    if (serve_drain(s, (int)(conf_num(c, "shutdown-timeout") * 1e3)) < 0)
        return err_set(e, E_CANCEL, "requests were cut off after --shutdown-timeout");
    cli_signal_served();
    return OK;
}

status cmd_serve(struct conf *c, struct err *e)
{
    uint64_t start = clock_ns();
    char day[16];
    struct serve_opts o;
    struct server *s = NULL;
    gloss_model *m = NULL;
    gloss_engine *g = NULL;
    status st = OK;
    TRY(read_options(c, &o, day, e));
    TRY(serve_open(&o, &s, e));
    uint64_t before = clock_ns();
    TRY(cli_open_model(c, true, &m, e));
    o.model_s = clock_ms_since(before) * 1e-3;
    before = clock_ns();
    TRY(open_engine(c, m, &g, e));
    o.engine_s = clock_ms_since(before) * 1e-3;
    read_sampling(c, &o);
    TRY(serve_ready(s, &o, m, g, e));
    cli_catch_signals();
    signal(SIGHUP, on_hangup);
    tell(c, s, &o, m, g, clock_ms_since(start));
    TRY(watch(c, s, e));
out:
    serve_close(s);
    gloss_engine_free(g);
    gloss_model_close(m);
    return st;
}
