/* The public API: thin translations between gloss.h and the layers below. Policy (defaults, what a
 * model name means) is here; everything else is in the layer that owns it.
 */
#include "gloss.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "model/tiny.h"
#include "ref/forward_ref.h"
#include "text/harmony_json.h"

#include <math.h>
#include <stdio.h>

/* The public codes and records are the internal ones under another name. */
_Static_assert(GLOSS_E_NUMERIC == (int)E_NUMERIC && GLOSS_E_NOENT == (int)E_NOENT &&
                   GLOSS_E_BUG == (int)E_BUG && GLOSS_E_NOMEM == (int)E_NOMEM,
               "status codes");
_Static_assert(sizeof(struct gloss_err) == sizeof(struct err), "error record");

static void put_err(struct gloss_err *to, const struct err *from)
{
    if (to)
        memcpy(to, from, sizeof *to);
}

/* Ends a public function: hands the error out, with a message in any case. */
static gloss_status done(status st, struct err *e, struct gloss_err *out)
{
    if (st < 0) {
        if (e->code != st)
            err_set(e, st, "%s", err_name(st));
        put_err(out, e);
    }
    return st;
}

/* Copies the caller's options over zeroes, so that older callers get defaults for newer fields. */
#define TAKE_OPTS(type, to, from)                                                                  \
    type to = {0};                                                                                 \
    if (from)                                                                                      \
    memcpy(&to, from, (from)->size && (from)->size < sizeof to ? (from)->size : sizeof to)

const char *gloss_version(void)
{
    return GLOSS_VERSION;
}

const char *gloss_strerror(gloss_status st)
{
    return err_name(st);
}

const char *gloss_features(void)
{
    return backend_cpu_features();
}

const char *gloss_cpu(void)
{
    return backend_cpu_name();
}

void gloss_free(void *p)
{
    mem_free(p);
}

/* ---- model ---- */

struct gloss_model {
    struct weights *weights;
    const struct vocab *vocab; /* NULL: the checkpoint brings none */
    struct vocab *own_vocab;   /* vocab when it was read from tokenizer.json */
    const char *name;
    struct constrain *constrain; /* what requests are held to, shared by the model's engines */
};

/* The compiled-in vocabulary has this many rows in an embedding (harmony.md section 1). */
enum { O200K_ROWS = 201088 };

static status tokenizer_parse(gloss_model *m, const char *text, size_t n, struct err *e)
{
    status st = vocab_from_json(text, n, &m->own_vocab, e);
    m->vocab = m->own_vocab;
    return st;
}

/* A full-size vocabulary is the compiled-in one: its tokenizer.json of 27 MB says nothing new. */
static status tokenizer_find(gloss_model *m, struct err *e)
{
    static const char *const places[] = {"%s/tokenizer.json", "%s/../tokenizer.json"};
    bool full = m->weights->spec.n_vocab >= O200K_ROWS;
    for (int i = 0; i < 2; i++) {
        char path[4096];
        if (snprintf(path, sizeof path, places[i], m->weights->dir) >= (int)sizeof path)
            return err_set(e, E_INPUT, "path too long");
        if (!file_exists(path))
            continue;
        struct file_map map;
        status st = file_map(path, &map, e);
        if (st < 0)
            return st;
        if (full && vocab_json_is_o200k((const char *)map.p, map.n))
            m->vocab = vocab_o200k();
        else
            st = tokenizer_parse(m, (const char *)map.p, map.n, e);
        file_unmap(&map);
        return st;
    }
    if (full)
        m->vocab = vocab_o200k();
    return OK;
}

static status open_tiny(gloss_model *m, const struct weights_opts *o, struct err *e)
{
    struct weights_blob blob = {
        .config = tiny_config,
        .n_config = (size_t)(tiny_config_end - tiny_config),
        .generation_config = tiny_generation,
        .n_generation_config = (size_t)(tiny_generation_end - tiny_generation),
        .tensors = tiny_tensors,
        .n_tensors = (size_t)(tiny_tensors_end - tiny_tensors),
    };
    status st = weights_open_memory(&blob, o->check_all, &m->weights, e);
    if (st < 0)
        return st;
    if (o->n_layer > 0)
        m->weights->spec.n_layer = min_int(m->weights->spec.n_layer, o->n_layer);
    m->name = "tiny";
    return tokenizer_parse(m, tiny_tokenizer, (size_t)(tiny_tokenizer_end - tiny_tokenizer), e);
}

static status open_folder(gloss_model *m, const char *dir, const struct weights_opts *o,
                          struct err *e)
{
    status st = weights_open(dir, o, &m->weights, e);
    if (st < 0)
        return st;
    m->name = spec_name(&m->weights->spec);
    if (!m->name)
        m->name = "gpt-oss";
    return tokenizer_find(m, e);
}

gloss_status gloss_model_open(const char *name, const struct gloss_model_opts *opts,
                              gloss_model **out, struct gloss_err *ge)
{
    TAKE_OPTS(struct gloss_model_opts, o, opts);
    struct err e = {0};
    *out = NULL;
    if (o.load_mode < GLOSS_LOAD_MMAP || o.load_mode > GLOSS_LOAD_AUTO)
        return done(err_param(&e, E_INPUT, "load_mode", "load_mode is %d: must be 0 to %d",
                              o.load_mode, GLOSS_LOAD_AUTO),
                    &e, ge);
    struct weights_opts wo = {
        .check_all = o.check_tensors, .mode = (enum load_mode)o.load_mode, .n_layer = o.n_layer};
    gloss_model *m = mem_calloc(1, sizeof *m);
    status st = m ? OK : E_NOMEM;
    if (m)
        st = strcmp(name, "tiny") == 0 ? open_tiny(m, &wo, &e) : open_folder(m, name, &wo, &e);
    if (st == OK)
        st = constrain_new(m->vocab, m->weights->spec.n_vocab, &m->constrain);
    if (st < 0)
        gloss_model_close(m);
    else
        *out = m;
    return done(st, &e, ge);
}

void gloss_model_close(gloss_model *m)
{
    if (!m)
        return;
    constrain_free(m->constrain);
    weights_close(m->weights);
    vocab_free(m->own_vocab);
    mem_free(m);
}

void gloss_model_info(const gloss_model *m, struct gloss_info *info)
{
    const struct weights *w = m->weights;
    const struct spec *s = &w->spec;
    int n_sliding = 0;
    for (int i = 0; i < s->n_layer; i++)
        n_sliding += s->sliding[i];
    int64_t kv = (int64_t)2 * 2 * s->n_kv_head * s->d_head; /* key and value in bf16, one layer */
    *info = (struct gloss_info){
        .name = m->name,
        .n_layer = s->n_layer,
        .n_expert = s->n_expert,
        .n_active = s->n_active,
        .d_model = s->d_model,
        .d_ff = s->d_ff,
        .n_head = s->n_head,
        .n_kv_head = s->n_kv_head,
        .d_head = s->d_head,
        .n_vocab = s->n_vocab,
        .window = s->window,
        .n_ctx = s->n_ctx,
        .n_sliding = n_sliding,
        .n_param = spec_params(s),
        .n_param_active = spec_params_active(s),
        .bytes_total = (int64_t)w->n_bytes,
        .bytes_expert = (int64_t)w->n_expert_bytes,
        .bytes_embed = (int64_t)dtype_size(w->embed.dtype) * s->n_vocab * s->d_model,
        .kv_bytes_full = kv * (s->n_layer - n_sliding),
        .kv_bytes_window = kv * n_sliding,
        .has_tokenizer = m->vocab != NULL,
    };
    info->bytes_dense = info->bytes_total - info->bytes_expert - info->bytes_embed;
}

/* ---- text ---- */

/* Most tokens and bytes that one call makes: far above any context, below any machine's memory. */
static const size_t max_ids = (size_t)1 << 28, max_text = (size_t)1 << 30;

static status vocab_of(const gloss_model *m, const struct vocab **v, struct err *e)
{
    *v = m ? m->vocab : vocab_o200k();
    return *v ? OK : err_set(e, E_NOENT, "the checkpoint has no tokenizer.json");
}

gloss_status gloss_encode(const gloss_model *m, const char *text, size_t n, int special,
                          int32_t **ids, size_t *n_ids, struct gloss_err *ge)
{
    struct err e = {0};
    const struct vocab *v;
    struct ids t;
    ids_init(&t, max_ids);
    *ids = NULL;
    *n_ids = 0;
    status st = OK;
    TRY(vocab_of(m, &v, &e));
    TRY(o200k_encode(v, text, n, (enum special_mode)special, &t, &e));
    TRY(t.st);
    *ids = t.v;
    *n_ids = t.n;
    ids_init(&t, 0);
out:
    ids_fini(&t);
    return done(st, &e, ge);
}

gloss_status gloss_decode(const gloss_model *m, const int32_t *ids, size_t n_ids, char **text,
                          size_t *n, struct gloss_err *ge)
{
    struct err e = {0};
    const struct vocab *v;
    struct buf b;
    buf_init(&b, max_text);
    *text = NULL;
    *n = 0;
    status st = OK;
    TRY(vocab_of(m, &v, &e));
    TRY(o200k_decode(v, ids, n_ids, &b, &e));
    TRY(buf_status(&b));
    *n = b.n;
    *text = mem_strndup(b.p, b.n);
    if (!*text)
        st = E_NOMEM;
out:
    buf_fini(&b);
    return done(st, &e, ge);
}

const char *gloss_token_bytes(const gloss_model *m, int32_t id, size_t *n)
{
    const struct vocab *v = m ? m->vocab : vocab_o200k();
    return v ? (const char *)vocab_bytes(v, id, n) : NULL;
}

/* ---- conversations ---- */

struct gloss_chat {
    const struct vocab *vocab;
    struct gloss_chat_opts opts;
    char *strings; /* the option strings, copied */
    struct json *root;
    struct arena arena;
    struct harmony_conversation conv;
    struct ids rendered;
    struct harmony_parser *parser;
    struct buf parsed;
    struct buf names; /* NUL-terminated copies of a delta's or message's strings */
};

enum { CHAT_MAX_BYTES = 256 << 20 };

/* Copies the caller's string behind `at`; NULL stays NULL. */
static const char *keep(char **at, const char *s)
{
    if (!s)
        return NULL;
    size_t n = strlen(s) + 1;
    char *to = memcpy(*at, s, n);
    *at += n;
    return to;
}

static size_t kept_bytes(const char *s)
{
    return s ? strlen(s) + 1 : 0;
}

gloss_status gloss_chat_new(const gloss_model *m, const struct gloss_chat_opts *opts,
                            gloss_chat **out, struct gloss_err *ge)
{
    static const enum harmony_mode modes[] = {HARMONY_RECOVER, HARMONY_LENIENT, HARMONY_STRICT};
    TAKE_OPTS(struct gloss_chat_opts, o, opts);
    struct err e = {0};
    *out = NULL;
    gloss_chat *c = mem_calloc(1, sizeof *c);
    if (!c)
        return done(E_NOMEM, &e, ge);
    arena_init(&c->arena, CHAT_MAX_BYTES);
    ids_init(&c->rendered, max_ids);
    buf_init(&c->parsed, CHAT_MAX_BYTES);
    buf_init(&c->names, CHAT_MAX_BYTES);
    status st = OK;
    TRY(vocab_of(m, &c->vocab, &e));
    c->strings = mem_alloc(kept_bytes(o.identity) + kept_bytes(o.date) + kept_bytes(o.schema));
    if (!c->strings)
        TRY(E_NOMEM);
    char *at = c->strings;
    c->opts = o;
    c->opts.identity = keep(&at, o.identity);
    c->opts.date = keep(&at, o.date);
    c->opts.schema = keep(&at, o.schema);
    TRY(harmony_parser_new(c->vocab, modes[o.parse_mode], !o.parse_from_start, ROLE_ASSISTANT,
                           CHAT_MAX_BYTES, &c->parser));
out:
    if (st < 0)
        gloss_chat_free(c);
    else
        *out = c;
    return done(st, &e, ge);
}

void gloss_chat_free(gloss_chat *c)
{
    if (!c)
        return;
    harmony_parser_free(c->parser);
    buf_fini(&c->names);
    buf_fini(&c->parsed);
    ids_fini(&c->rendered);
    arena_fini(&c->arena);
    json_free(c->root);
    mem_free(c->strings);
    mem_free(c);
}

static struct str str_of(const char *s)
{
    return (struct str){.p = s, .n = s ? strlen(s) : 0};
}

gloss_status gloss_chat_load(gloss_chat *c, const char *json, size_t n, int form,
                             struct gloss_err *ge)
{
    static const enum harmony_json_form forms[] = {FORM_AUTO, FORM_LIBRARY, FORM_OPENAI};
    struct err e = {0};
    json_free(c->root);
    c->root = NULL;
    arena_fini(&c->arena);
    c->conv = (struct harmony_conversation){0};
    status st = OK;
    TRY(json_parse(json, n, &json_limits_file, &c->root, &e));
    struct harmony_openai_opts o = {
        .identity = str_of(c->opts.identity),
        .current_date = str_of(c->opts.date),
        .has_effort = c->opts.effort != GLOSS_EFFORT_DEFAULT,
        .effort = (enum harmony_effort)max_int(c->opts.effort - GLOSS_EFFORT_LOW, 0),
        .response_schema = str_of(c->opts.schema),
    };
    TRY(harmony_from_json(c->root, forms[form], &o, &c->arena, &c->conv, &e));
out:
    return done(st, &e, ge);
}

gloss_status gloss_chat_render(gloss_chat *c, const int32_t **ids, size_t *n_ids,
                               struct gloss_err *ge)
{
    static const enum harmony_for fors[] = {FOR_COMPLETION, FOR_TRAINING, FOR_CONVERSATION};
    static const enum harmony_drop drops[] = {DROP_LIBRARY, DROP_CLOSED_TURNS, DROP_NOTHING};
    struct harmony_render_opts o = {.mode = fors[c->opts.render_for], .drop = drops[c->opts.drop]};
    struct err e = {0};
    ids_fini(&c->rendered);
    ids_init(&c->rendered, max_ids);
    status st = harmony_render(c->vocab, &c->conv, &o, &c->rendered, &e);
    *ids = c->rendered.v;
    *n_ids = c->rendered.n;
    return done(st, &e, ge);
}

/* A NUL-terminated copy in c->names, as an offset + 1 (0 for absent): the buffer may still move. */
static size_t name_put(gloss_chat *c, struct str s)
{
    if (!s.p)
        return 0;
    size_t at = c->names.n;
    buf_put(&c->names, s.p, s.n);
    buf_putc(&c->names, '\0');
    return at + 1;
}

static const char *name_get(const gloss_chat *c, size_t at)
{
    return at ? c->names.p + at - 1 : NULL;
}

static status put_delta(gloss_chat *c, const struct harmony_delta *from, struct gloss_delta *to)
{
    buf_clear(&c->names);
    size_t recipient = name_put(c, from->recipient), channel = name_put(c, from->channel),
           type = name_put(c, from->content_type);
    *to = (struct gloss_delta){
        .text = from->has_delta ? from->delta.p : NULL,
        .n = from->has_delta ? from->delta.n : 0,
        .role = from->has_role ? harmony_role_name[from->role] : NULL,
        .recipient = name_get(c, recipient),
        .channel = name_get(c, channel),
        .content_type = name_get(c, type),
        .message = from->i_msg,
    };
    return buf_status(&c->names);
}

gloss_status gloss_chat_feed(gloss_chat *c, int32_t id, struct gloss_delta *d, struct gloss_err *ge)
{
    struct err e = {0};
    struct harmony_delta hd = {0};
    status st = harmony_feed(c->parser, id, &hd, &e);
    if (st == OK)
        st = put_delta(c, &hd, d);
    return done(st, &e, ge);
}

gloss_status gloss_chat_finish(gloss_chat *c, struct gloss_delta *d, struct gloss_err *ge)
{
    struct err e = {0};
    struct harmony_delta hd = {0};
    status st = harmony_finish(c->parser, &hd, &e);
    if (st == OK)
        st = put_delta(c, &hd, d);
    return done(st, &e, ge);
}

gloss_status gloss_chat_parsed(gloss_chat *c, const char **json, size_t *n, struct gloss_err *ge)
{
    struct err e = {0};
    int n_msg;
    const struct harmony_message *msg = harmony_messages(c->parser, &n_msg);
    buf_clear(&c->parsed);
    harmony_to_json(&c->parsed, msg, n_msg);
    *json = c->parsed.p;
    *n = c->parsed.n;
    return done(buf_status(&c->parsed), &e, ge);
}

_Static_assert(GLOSS_N_REPAIR == (int)N_REPAIR && GLOSS_REPAIR_BODY == (int)REPAIR_BODY,
               "one list of repairs");

int gloss_chat_repairs(const gloss_chat *c, int kind)
{
    ASSERT(kind >= 0 && kind < GLOSS_N_REPAIR);
    return harmony_repairs(c->parser, (enum harmony_repair)kind);
}

int gloss_chat_messages(const gloss_chat *c)
{
    int n;
    harmony_messages(c->parser, &n);
    return n;
}

gloss_status gloss_chat_message(gloss_chat *c, int i, struct gloss_message *to,
                                struct gloss_err *ge)
{
    struct err e = {0};
    int n;
    const struct harmony_message *m = harmony_messages(c->parser, &n);
    ASSERT(i >= 0 && i < n);
    m += i;
    buf_clear(&c->names);
    size_t name = name_put(c, m->name), recipient = name_put(c, m->recipient),
           channel = name_put(c, m->channel), type = name_put(c, m->content_type);
    struct str text = m->n_part ? m->part[0].text : (struct str){.p = ""};
    size_t body = name_put(c, text.p ? text : (struct str){.p = ""});
    *to = (struct gloss_message){
        .role = harmony_role_name[m->role],
        .name = name_get(c, name),
        .recipient = name_get(c, recipient),
        .channel = name_get(c, channel),
        .content_type = name_get(c, type),
        .text = name_get(c, body),
        .n_text = text.n,
    };
    return done(buf_status(&c->names), &e, ge);
}

/* ---- generation ---- */

struct gloss_engine {
    struct engine *engine;
    const gloss_model *model;
};
struct gloss_request {
    struct request *request;
    void *user;
};

/* Prompt rows of one step: enough for full matrix tiles, few enough that decoding rows beside them
 * wait little. */
enum { DEFAULT_QUEUE = 1024, MOST_CHUNK = 1 << 16, MOST_QUEUE = 1 << 20, MOST_SPECULATE = 64 };

/* By GLOSS_ARITH_. */
static const enum arith ariths[] = {ARITH_BF16, ARITH_F32, ARITH_BF16, ARITH_Q8, ARITH_FP8};

static status check_count(const char *name, int v, int most, struct err *e)
{
    return v >= 0 && v <= most
               ? OK
               : err_param(e, E_INPUT, name, "%s is %d: must be 0 to %d", name, v, most);
}

static status parse_device(const char *name, struct engine_opts *o, struct err *e)
{
    int64_t card = 0;
    if (!name || strcmp(name, "auto") == 0)
        o->device = DEVICE_AUTO;
    else if (strcmp(name, "cpu") == 0)
        o->device = DEVICE_CPU;
    else if (strcmp(name, "cuda") == 0 ||
             (strncmp(name, "cuda:", 5) == 0 && num_i64(name + 5, 0, 1023, &card) == OK))
        o->device = DEVICE_CUDA;
    else
        return err_param(e, E_DEVICE, "device", "device '%s': must be auto, cpu, cuda or cuda:N",
                         name);
    o->compute.i_card = (int)card;
    return OK;
}

gloss_status gloss_engine_new(const gloss_model *m, const struct gloss_engine_opts *opts,
                              gloss_engine **out, struct gloss_err *ge)
{
    TAKE_OPTS(struct gloss_engine_opts, o, opts);
    struct err e = {0};
    status st = OK;
    *out = NULL;
    gloss_engine *g = NULL;
    struct engine_opts eo = {0};
    TRY(parse_device(o.device, &eo, &e));
    TRY(check_count("max_requests", o.max_requests, 1 << 16, &e));
    TRY(check_count("chunk", o.chunk, MOST_CHUNK, &e));
    TRY(check_count("arith", o.arith, GLOSS_ARITH_FP8, &e));
    TRY(check_count("dense", o.dense, GLOSS_DENSE_Q8, &e));
    TRY(check_count("kv", o.kv, GLOSS_KV_FP8, &e));
    TRY(check_count("n_cpu_moe", max_int(0, o.n_cpu_moe), SPEC_MAX_LAYER, &e));
    TRY(check_count("max_queue", o.max_queue, MOST_QUEUE, &e));
    TRY(check_count("speculate", max_int(0, o.speculate), MOST_SPECULATE, &e));
    g = mem_calloc(1, sizeof *g);
    if (!g)
        TRY(E_NOMEM);
    g->model = m;
    int most = m->weights->spec.n_ctx;
    if (o.n_ctx > most)
        TRY(err_param(&e, E_LIMIT, "ctx-size", "a context of %d; the model was made for %d",
                      o.n_ctx, most));
    eo = (struct engine_opts){
        .device = eo.device,
        .weights = m->weights,
        .vocab = m->vocab,
        .constrain = m->constrain,
        .compute = {.arith = ariths[o.arith],
                    .dense = (enum dense_type)o.dense,
                    .kv = (enum kv_type)o.kv,
                    .n_thread = o.n_thread,
                    .i_card = eo.compute.i_card,
                    .deterministic = o.deterministic,
                    .card_bytes = o.card_bytes,
                    .n_cpu_moe = o.n_cpu_moe,
                    .lock = o.lock,
                    .no_dense_cache = o.no_dense_cache},
        .n_ctx = o.n_ctx > 0 ? o.n_ctx : most,
        .max_requests = max_int(o.max_requests, 1),
        .max_queue = o.max_queue > 0 ? o.max_queue : DEFAULT_QUEUE,
        .chunk = o.chunk,
        .memory_bytes = o.memory_bytes,
        .memory_share = o.memory_share,
        .no_prefix_cache = o.no_prefix_cache,
        .speculate = o.speculate,
        .swap_bytes = o.swap_bytes,
        .script = o.script,
        .n_script = o.n_script,
    };
    TRY(engine_open(&eo, &g->engine, &e));
    struct engine_stats stats;
    engine_stats(g->engine, &stats);
    if (o.lock && strcmp(stats.backend, "cuda") == 0)
        TRY(err_param(&e, E_INPUT, "mlock", "--mlock is for the processor: a card's memory stays"));
out:
    if (st < 0) {
        engine_close(g ? g->engine : NULL);
        mem_free(g);
    } else
        *out = g;
    return done(st, &e, ge);
}

void gloss_engine_free(gloss_engine *g)
{
    if (!g)
        return;
    engine_close(g->engine);
    mem_free(g);
}

static struct request_params params_of(const struct gloss_params *p)
{
    return (struct request_params){
        .max_tok = p->max_tokens,
        .n = p->n,
        .sample = {.temperature = p->temperature,
                   .top_p = p->top_p,
                   .min_p = p->min_p,
                   .top_k = p->top_k,
                   .seed = p->seed ? p->seed : rng_os_seed(),
                   .presence = p->presence_penalty,
                   .frequency = p->frequency_penalty,
                   .repetition = p->repetition_penalty,
                   .bias_id = p->bias_ids,
                   .bias = p->bias,
                   .n_bias = p->n_bias},
        .n_top = p->n_top,
        .no_logprob = p->no_logprobs,
        .prompt_logprob = p->prompt_logprobs,
        .reasoning_budget = p->reasoning_budget,
        .min_tok = p->min_tokens,
        .stop = p->stop,
        .n_stop = p->n_stop,
        .stop_id = p->stop_ids,
        .n_stop_id = p->n_stop_ids,
        .ignore_eos = p->ignore_eos,
        .plain = p->plain,
        .tenant = p->tenant,
        .priority = p->priority,
        .deadline_ms = p->deadline_ms,
        .no_cache = p->no_prefix_cache,
    };
}

/* What the parameters say about tools and formats, with the arrays that *h then points to. */
static status hold_of(const struct gloss_params *p, struct constrain_params *h,
                      struct constrain_tool **tool, struct str **allowed, struct err *e)
{
    status st = OK;
    TRY(check_count("n_tools", p->n_tools, CONSTRAIN_MAX_TOOLS, e));
    TRY(check_count("n_allowed_tools", p->n_allowed_tools, CONSTRAIN_MAX_TOOLS, e));
    TRY(check_count("tool_choice", p->tool_choice, GLOSS_TOOL_CHOICE_REQUIRED, e));
    TRY(check_count("format", p->format, GLOSS_FORMAT_CHOICE, e));
    *tool = mem_calloc((size_t)p->n_tools + 1, sizeof **tool);
    *allowed = mem_calloc((size_t)p->n_allowed_tools + 1, sizeof **allowed);
    if (!*tool || !*allowed)
        TRY(E_NOMEM);
    for (int i = 0; i < p->n_tools; i++) {
        const struct gloss_tool *t = &p->tools[i];
        (*tool)[i] = (struct constrain_tool){.recipient = str_of(t->recipient),
                                             .schema = {t->schema, t->n_schema},
                                             .builtin = t->builtin,
                                             .strict = t->strict};
    }
    for (int i = 0; i < p->n_allowed_tools; i++)
        (*allowed)[i] = str_of(p->allowed_tools[i]);
    *h = (struct constrain_params){.tool = *tool,
                                   .n_tool = p->n_tools,
                                   .choice = (enum tool_choice)p->tool_choice,
                                   .allowed = *allowed,
                                   .n_allowed = p->n_allowed_tools,
                                   .format = (enum answer_format)p->format,
                                   .format_text = {p->format_text, p->n_format_text},
                                   .free_headers = p->no_header_grammar,
                                   .no_analysis = p->no_analysis};
out:
    return st;
}

gloss_status gloss_submit(gloss_engine *g, const int32_t *ids, size_t n,
                          const struct gloss_params *params, gloss_request **out,
                          struct gloss_err *ge)
{
    TAKE_OPTS(struct gloss_params, p, params);
    struct err e = {0};
    status st = OK;
    struct constrain_tool *tool = NULL;
    struct str *allowed = NULL;
    *out = NULL;
    gloss_request *r = mem_calloc(1, sizeof *r);
    if (!r)
        return done(E_NOMEM, &e, ge);
    struct request_params rp = params_of(&p);
    rp.owner = r;
    r->user = p.user;
    TRY(hold_of(&p, &rp.hold, &tool, &allowed, &e));
    TRY(request_new(g->engine, ids, n, &rp, &r->request, &e));
    *out = r;
    r = NULL;
out:
    mem_free(tool);
    mem_free(allowed);
    mem_free(r);
    return done(st, &e, ge);
}

gloss_status gloss_next(gloss_request *r, struct gloss_event *to, int timeout_ms)
{
    static const int finish[] = {
        [FINISH_STOP] = GLOSS_FINISH_STOP,
        [FINISH_CALL] = GLOSS_FINISH_CALL,
        [FINISH_LENGTH] = GLOSS_FINISH_LENGTH,
        [FINISH_ERROR] = GLOSS_FINISH_ERROR,
    };
    static const int kind[] = {
        [EVENT_TOKEN] = GLOSS_EV_TOKEN,
        [EVENT_PROMPT] = GLOSS_EV_PROMPT,
        [EVENT_FINISH] = GLOSS_EV_FINISH,
    };
    struct event ev;
    status st = request_next(r->request, &ev, timeout_ms);
    if (st < 0)
        return st;
    *to = (struct gloss_event){
        .kind = kind[ev.kind],
        .token = ev.token,
        .logprob = ev.logprob,
        .finish = ev.kind == EVENT_FINISH ? finish[ev.finish] : 0,
        .t_ns = ev.t_ns,
        .index = ev.index,
        .n_hide = ev.n_hide,
        .i_stop = ev.i_stop,
        .n_top = ev.n_top,
        .top_ids = ev.top_id,
        .top_logprobs = ev.top_logprob,
        .n_reused = ev.n_reused,
        .n_computed = ev.n_computed,
    };
    put_err(&to->err, &ev.err);
    return OK;
}

void gloss_cancel(gloss_request *r)
{
    request_cancel(r->request);
}

void gloss_request_free(gloss_request *r)
{
    if (!r)
        return;
    request_free(r->request);
    mem_free(r);
}

int gloss_engine_fd(gloss_engine *g)
{
    return engine_fd(g->engine);
}

int gloss_engine_ready(gloss_engine *g, gloss_request **r, int cap)
{
    enum { AT_ONCE = 64 };
    void *owner[AT_ONCE];
    int n = 0;
    for (int got = AT_ONCE; got == AT_ONCE && n < cap;) {
        got = engine_ready(g->engine, owner, min_int(AT_ONCE, cap - n));
        for (int i = 0; i < got; i++)
            r[n++] = owner[i];
    }
    return n;
}

void *gloss_request_user(const gloss_request *r)
{
    return r->user;
}

gloss_status gloss_engine_drain(gloss_engine *g, int timeout_ms)
{
    return engine_drain(g->engine, timeout_ms);
}

void gloss_engine_stats(gloss_engine *g, struct gloss_stats *to)
{
    struct engine_stats s;
    engine_stats(g->engine, &s);
    struct gloss_stats full = {
        .size = to->size,
        .n_running = s.n_running,
        .n_waiting = s.n_waiting,
        .page_tokens = s.page_tok,
        .n_ctx = s.n_ctx,
        .pages_full = s.pages_full,
        .pages_window = s.pages_window,
        .free_full = s.free_full,
        .free_window = s.free_window,
        .cached_full = s.cached_full,
        .cached_window = s.cached_window,
        .page_bytes_full = s.page_bytes_full,
        .page_bytes_window = s.page_bytes_window,
        .n_step = s.n_step,
        .n_row = s.n_row,
        .step_ns = s.step_ns,
        .n_submitted = s.n_submitted,
        .n_finished = s.n_finished,
        .n_cancelled = s.n_cancelled,
        .n_failed = s.n_failed,
        .prompt_tokens = s.prompt_tok,
        .prompt_reused = s.prompt_reused,
        .computed_tokens = s.computed_tok,
        .generated_tokens = s.generated_tok,
        .n_preempt = s.n_preempt,
        .n_evict = s.n_evict,
        .n_evict_window = s.n_evict_window,
        .device = s.backend,
        .peak_full = s.peak_full,
        .peak_window = s.peak_window,
        .weight_bytes = s.weight_bytes,
        .work_bytes = s.work_bytes,
        .n_draft = s.n_draft,
        .n_accept = s.n_accept,
        .n_swap_out = s.n_swap_out,
        .n_swap_in = s.n_swap_in,
    };
    memcpy(to, &full, to->size < sizeof full ? to->size : sizeof full);
}

/* ---- logits and scores ---- */

struct row_sink {
    gloss_status (*row)(void *ctx, const float *logits, int n_vocab);
    void *ctx;
};

static status row_to_caller(void *ctx, size_t i, const float *logits, int n_vocab)
{
    (void)i;
    struct row_sink *s = ctx;
    return s->row(s->ctx, logits, n_vocab);
}

static status reference_rows(const struct weights *w, const int32_t *ids, size_t n, bool last_only,
                             struct row_sink *sink, struct err *e)
{
    size_t n_vocab = (size_t)w->spec.n_vocab, n_row = last_only ? 1 : n, total;
    float *logits = mul_ok(n_row, n_vocab, &total) ? mem_array(total, sizeof *logits) : NULL;
    if (!logits || n > INT32_MAX) {
        mem_free(logits);
        return err_set(e, E_NOMEM, "out of memory for %zu rows of logits", n_row);
    }
    status st = forward_ref(w, ids, (int)n, last_only, logits, e);
    for (size_t i = 0; st == OK && i < n_row; i++)
        st = sink->row(sink->ctx, logits + i * n_vocab, (int)n_vocab);
    mem_free(logits);
    return st;
}

struct rate_sink {
    void (*take)(void *ctx, const struct gloss_rate *);
    void *ctx;
};

static void pass_rate(void *ctx, const struct cpu_rate *r)
{
    const struct rate_sink *s = ctx;
    struct gloss_rate g = {r->name, r->rows, r->ns, r->bytes, r->flops};
    s->take(s->ctx, &g);
}

gloss_status gloss_cpu_rates(int n_thread, void (*take)(void *ctx, const struct gloss_rate *),
                             void *ctx, struct gloss_err *ge)
{
    struct err e = {0};
    struct rate_sink sink = {take, ctx};
    status st = backend_cpu_rates(n_thread, pass_rate, &sink, &e);
    return done(st, &e, ge);
}

gloss_status gloss_cpu_limits(int n_thread, int arith, struct gloss_limits *to,
                              struct gloss_err *ge)
{
    struct err e = {0};
    status st = OK;
    struct cpu_limits l;
    TRY(check_count("arith", arith, GLOSS_ARITH_FP8, &e));
    TRY(backend_cpu_limits(n_thread, ariths[arith], &l, &e));
    *to = (struct gloss_limits){.read = l.read, .peak = l.peak};
out:
    return done(st, &e, ge);
}

gloss_status gloss_logits(gloss_engine *g, const int32_t *ids, size_t n, int last_only,
                          int reference,
                          gloss_status (*row)(void *ctx, const float *logits, int n_vocab),
                          void *ctx, struct gloss_err *ge)
{
    struct err e = {0};
    struct row_sink sink = {.row = row, .ctx = ctx};
    const struct weights *w = g->model->weights;
    status st = OK;
    if (reference) {
        TRY(engine_check_ids(g->engine, ids, n, &e));
        TRY(reference_rows(w, ids, n, last_only, &sink, &e));
    } else {
        TRY(engine_rows(g->engine, ids, n, last_only, row_to_caller, &sink, &e));
    }
out:
    return done(st, &e, ge);
}

struct score_sink {
    const int32_t *ids;
    size_t n;
    double *logprobs;
    int32_t *greedy;
};

/* Row i predicts token i + 1. */
static status row_to_score(void *ctx, size_t i, const float *logits, int n_vocab)
{
    struct score_sink *s = ctx;
    if (i + 1 == s->n)
        return OK;
    s->logprobs[i + 1] = (double)logits[s->ids[i + 1]] - sample_lse(logits, n_vocab);
    s->greedy[i + 1] = sample_argmax(logits, n_vocab);
    return OK;
}

gloss_status gloss_score(gloss_engine *g, const int32_t *ids, size_t n, double *logprobs,
                         int32_t *greedy, struct gloss_err *ge)
{
    struct err e = {0};
    struct score_sink sink = {.ids = ids, .n = n, .logprobs = logprobs, .greedy = greedy};
    if (n) {
        logprobs[0] = NAN;
        greedy[0] = -1;
    }
    return done(engine_rows(g->engine, ids, n, false, row_to_score, &sink, &e), &e, ge);
}
