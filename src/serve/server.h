/* What the files of this folder share: the server, its threads and its routes.
 *
 *     io (1)    http.c: sockets; head checks, short answers (route.c)
 *     prep (2)  work.c: everything sized by the client: parsing, rendering, tokenizing, schemas
 *     pump (1)  gen.c: reads the engine's events and writes answers
 *
 * Locks are leaves: a thread holds at most one of auth, metrics, thoughts, store, pump; an
 * exchange's lock may be held when the pump's is taken (http.h), never the other way.
 */
#ifndef SERVE_SERVER_H
#define SERVE_SERVER_H

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/json.h"
#include "gloss.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "serve/serve.h"

#include <stdatomic.h>
#include <stdbool.h>

struct auth;
struct meter;
struct pump;
struct store;
struct thoughts;
struct work;

enum { SERVER_LOADING, SERVER_READY, SERVER_DRAINING };

enum {
    BODY_MAX = 32 << 20,    /* of one request */
    BODIES_MAX = 512 << 20, /* of all requests being read or worked on */
    HEAD_MS = 10000,
    BODY_MS = 30000,
    WRITE_MS = 30000,
    IDLE_MS = 75000,
    MAX_CHOICES = 8,
    MAX_PROMPTS = 1024
};

struct server {
    struct serve_opts o;
    struct http *http;
    gloss_model *model;
    gloss_engine *engine;
    struct gloss_info info;
    int n_ctx; /* longest request */
    atomic_int state;
    struct auth *auth;
    struct work *work;
    struct pump *pump;
    struct thoughts *thoughts;
    struct store *store;
    struct metrics metrics;
    struct meter *meter;  /* NULL: nothing measures energy here */
    struct hash_key salt; /* of everything hashed for strangers */
    uint8_t seal[32];     /* key of sealed thoughts */
    int64_t created;      /* Unix time of the start */
    uint64_t start_ns;
    char fingerprint[40];
    char *cert, *tls_key; /* PEM text */
};

/* gloss.h and base have error records of one layout (asserted in serve.c). */
static inline struct gloss_err *pub(struct err *e)
{
    return (struct gloss_err *)(void *)e;
}

/* ---- route.c ---- */

struct route {
    const char *method, *path; /* "{id}" stands for the rest or for one segment */
    void (*run)(struct server *, struct exch *, const char *id);
    unsigned flags;
};
enum {
    ROUTE_OPEN = 1, /* answers without a key */
    ROUTE_FAST = 2, /* answered on the io thread */
    ROUTE_EARLY = 4 /* answers while loading and draining */
};
extern const struct route routes[];
extern const int n_route;

void route_head(void *server, struct exch *);
void route_request(void *server, struct exch *);
void route_too_large(void *server, struct exch *, bool crowded);
void route_cut_short(void *server, struct exch *);
void route_done(void *server, const struct exch *);
/* Runs the exchange's route (prep thread). */
void route_run(struct server *, struct exch *);

/* ---- api_error.c ---- */

/* Answers with the error body; `code` and `param` may be NULL. */
void api_error(struct exch *, int code, const char *name, const char *param, const char *fmt, ...)
    PRINTF_LIKE(5, 6);
/* The same from an error record: its code chooses the HTTP status. */
void api_fail(struct server *, struct exch *, const struct err *);
/* The error's HTTP status. */
int api_status(struct server *, const struct err *);
/* Appends {"error":{...}} for an error record. */
void api_error_body(struct server *, struct buf *, const struct err *);

/* ---- work.c: prep threads ---- */

MUST_USE status work_open(struct server *, int n_thread, struct work **, struct err *);
void work_close(struct work *);
/* False when too many wait. Takes a reference. */
bool work_put(struct work *, struct exch *);
int work_waiting(struct work *);

/* ---- auth.c ---- */

MUST_USE status auth_open(struct server *, struct auth **, struct err *);
void auth_close(struct auth *);
MUST_USE status auth_reload(struct auth *, struct err *);
bool auth_needed(struct auth *);
/* Whether the request shows a known key; *tenant tells whose. */
bool auth_check(struct auth *, const struct exch *, uint64_t *tenant);

/* Host and Origin rules. */
bool auth_host_ok(const struct server *, const char *host);
bool auth_origin_ok(const struct server *, const char *origin);

/* ---- thoughts.c: the chain of thought behind each tool call ---- */

MUST_USE status thoughts_open(struct thoughts **);
void thoughts_close(struct thoughts *);
void thoughts_keep(struct thoughts *, uint64_t tenant, const char *call_id, const char *text,
                   size_t n);
/* Appends what was kept; false when nothing is known. */
bool thoughts_get(struct thoughts *, uint64_t tenant, const char *call_id, struct buf *);

/* ---- the endpoints ---- */

void api_chat(struct server *, struct exch *, const char *);
void api_completions(struct server *, struct exch *, const char *);
void api_generate(struct server *, struct exch *, const char *);
void api_responses(struct server *, struct exch *, const char *);
void api_response_tokens(struct server *, struct exch *, const char *);
void api_response_get(struct server *, struct exch *, const char *id);
void api_response_delete(struct server *, struct exch *, const char *id);
void api_response_cancel(struct server *, struct exch *, const char *id);
void api_response_items(struct server *, struct exch *, const char *id);
void api_models(struct server *, struct exch *, const char *);
void api_model(struct server *, struct exch *, const char *id);
void api_tokenize(struct server *, struct exch *, const char *);
void api_detokenize(struct server *, struct exch *, const char *);
void api_tokenizer_info(struct server *, struct exch *, const char *);
void api_health(struct server *, struct exch *, const char *);
void api_metrics(struct server *, struct exch *, const char *);
void api_props(struct server *, struct exch *, const char *);
void api_openapi(struct server *, struct exch *, const char *);
void api_root(struct server *, struct exch *, const char *);
void api_no_embeddings(struct server *, struct exch *, const char *);

/* The name shown for the model; whether `name` means it. */
const char *model_shown(const struct server *);
bool model_named(const struct server *, const char *name);

#endif
