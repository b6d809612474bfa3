/* The server's whole face to the command line: an OpenAI-compatible HTTP server over one engine.
 *
 *     serve_open      binds and answers: /health says 503 until
 *     serve_ready     hands over model and engine
 *     serve_drain     new requests get 503; waits for the running ones
 *     serve_close
 *
 * The server uses gloss.h alone: it never sees a weight, a page or a device.
 */
#ifndef SERVE_SERVE_H
#define SERVE_SERVE_H

#include "base/err.h"
#include "gloss.h"

#include <stdbool.h>
#include <stdint.h>

struct server;

struct serve_opts {
    const char *host;
    int port;
    const char *const *key; /* [n_key] */
    int n_key;
    const char *key_file;    /* a key a line; read again by serve_reload */
    const char *model;       /* as it was asked for; the name until serve_ready */
    const char *const *name; /* [n_name] further names of the model; the first is shown */
    int n_name;
    bool any_name;
    const char *const *allowed_host; /* [n_allowed_host] */
    int n_allowed_host;
    const char *const *origin; /* [n_origin] that may read answers; "*" is any */
    int n_origin;
    const char *cert_file, *tls_key_file;
    const char *store_file;           /* SQLite file of stored responses; NULL: in memory */
    const char *effort;               /* default reasoning effort, or NULL */
    const char *date;                 /* "YYYY-MM-DD", "today" or "none" */
    int reasoning_field;              /* SERVE_REASONING_ */
    int reasoning_budget;             /* default; 0: none */
    double temperature, top_p, min_p; /* defaults; top_p 1 and the rest 0: off */
    int top_k;
    int request_timeout_ms; /* 0: none */
    int stream_interval;    /* tokens of a stream that leave together, at least */
    bool access_log;
    bool no_web;              /* nothing at / */
    const char *powercap;     /* folder of the processor's energy counters, or NULL */
    int i_gpu;                /* the card that runs the model, as nvidia-smi counts */
    double model_s, engine_s; /* for serve_ready: how long opening took */
};
enum { SERVE_REASONING_BOTH, SERVE_REASONING_SHORT, SERVE_REASONING_LONG, SERVE_REASONING_NONE };

MUST_USE status serve_open(const struct serve_opts *, struct server **, struct err *);
/* Both stay the caller's, and must live until serve_close. The options may say more now than in
 * serve_open, of sampling and
 * of the start. */
MUST_USE status serve_ready(struct server *, const struct serve_opts *, gloss_model *,
                            gloss_engine *, struct err *);
/* E_BUSY when requests were left after timeout_ms; they are ended with an error then. */
MUST_USE status serve_drain(struct server *, int timeout_ms);
void serve_close(struct server *);

MUST_USE status serve_reload(struct server *, struct err *); /* the key file */
int serve_port(const struct server *);
bool serve_has_keys(struct server *);

#endif
