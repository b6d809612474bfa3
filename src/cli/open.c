/* Models by name: where a name's checkpoint lies, and opening it with the command's options.
 *
 * Order: "tiny" is compiled in; a folder of that name; a known model in the Hugging Face cache,
 *   $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else
 *   ~/.cache/huggingface/hub,
 * which keeps the files of a revision in models--openai--NAME/snapshots/REVISION and the revision
 * in refs/main.
 */
#include "base/file.h"
#include "base/json.h"
#include "base/num.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const known[] = {"gpt-oss-20b", "gpt-oss-120b"};

/* The plain name behind "openai/gpt-oss-20b", "gpt-oss:20b", ...; NULL when unknown. */
static const char *known_name(const char *name)
{
    if (strncmp(name, "openai/", 7) == 0)
        name += 7;
    for (int i = 0; i < 2; i++) {
        const char *k = known[i];
        bool colon = strncmp(name, "gpt-oss:", 8) == 0 && strcmp(name + 8, k + 8) == 0;
        if (colon || strcmp(name, k) == 0)
            return k;
    }
    return NULL;
}

/* The hub cache's folder; false when no variable tells it or the path is too long. */
static bool hub_folder(char *path, size_t cap)
{
    const char *hub = getenv("HF_HUB_CACHE"), *hf = getenv("HF_HOME");
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (hub && *hub)
        n = snprintf(path, cap, "%s", hub);
    else if (hf && *hf)
        n = snprintf(path, cap, "%s/hub", hf);
    else if (xdg && *xdg)
        n = snprintf(path, cap, "%s/huggingface/hub", xdg);
    else if (home && *home)
        n = snprintf(path, cap, "%s/.cache/huggingface/hub", home);
    return n >= 0 && (size_t)n < cap;
}

/* The snapshot folder of a known model; false when it was not downloaded. */
static bool find_snapshot(const char *name, char *path, size_t cap)
{
    char hub[2048], refs[4096];
    if (!hub_folder(hub, sizeof hub))
        return false;
    snprintf(refs, sizeof refs, "%s/models--openai--%s/refs/main", hub, name);
    struct buf b;
    buf_init(&b, 256);
    bool found = false;
    if (file_read(refs, &b, NULL) == OK) {
        size_t n = strcspn(b.p, " \r\n\t");
        /* a commit's name, never a path */
        if (n > 0 && n < 100 && strspn(b.p, "0123456789abcdefABCDEF") == n) {
            int len =
                snprintf(path, cap, "%s/models--openai--%s/snapshots/%.*s", hub, name, (int)n, b.p);
            found = len > 0 && (size_t)len < cap && file_is_dir(path);
        }
    }
    buf_fini(&b);
    return found;
}

status cli_find_model(const char *name, char *path, size_t cap, struct err *e)
{
    const char *k = known_name(name);
    if (strcmp(name, "tiny") == 0 || file_is_dir(name)) {
        if ((size_t)snprintf(path, cap, "%s", name) >= cap)
            return err_set(e, E_NOENT, "the model's path is too long");
        return OK;
    }
    if (k && find_snapshot(k, path, cap))
        return OK;
    if (k)
        return err_set(
            e, E_NOENT,
            "model %s is not downloaded; get it with 'gloss pull %s', or give its folder "
            "with -m",
            k, k);
    if (file_exists(name))
        return err_set(e, E_NOENT, "model '%.80s' is a file; give the folder that holds it", name);
    return err_set(e, E_NOENT,
                   "no model and no folder '%.80s'; known models: tiny, gpt-oss-20b, gpt-oss-120b",
                   name);
}

/* Sampling defaults of the checkpoint's generation_config.json, where it has one. */
static status read_config(struct conf *c, const char *dir, struct err *e)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    if (!file_exists(path))
        return OK;
    struct buf b;
    buf_init(&b, 1 << 20);
    struct json *root = NULL;
    struct err je = {0};
    bool sample = true;
    double temperature = -1, top_p = -1, min_p = -1;
    int64_t top_k = -1;
    status st = OK;
    TRY(file_read(path, &b, &je));
    TRY(json_parse(b.p, b.n, &json_limits_file, &root, &je));
    TRY(json_get_bool(root, "do_sample", &sample, &je));
    TRY(json_get_num(root, "temperature", 0, 2, &temperature, &je));
    TRY(json_get_num(root, "top_p", 0, 1, &top_p, &je));
    TRY(json_get_num(root, "min_p", 0, 1, &min_p, &je));
    TRY(json_get_int(root, "top_k", 0, 1 << 24, &top_k, &je));
    if (!sample)
        temperature = 0;
    if (temperature >= 0)
        conf_suggest_num(c, "temperature", temperature);
    if (top_p > 0)
        conf_suggest_num(c, "top-p", top_p);
    if (min_p >= 0)
        conf_suggest_num(c, "min-p", min_p);
    if (top_k >= 0)
        conf_suggest_int(c, "top-k", top_k);
out:
    if (st < 0)
        err_set(e, st == E_INPUT ? E_FORMAT : st, "generation_config.json: %.200s", je.msg);
    json_free(root);
    buf_fini(&b);
    return st;
}

static status open_named(struct conf *c, const char *name, bool with_config, bool check, int mode,
                         gloss_model **m, struct err *e)
{
    char path[4096];
    status st = cli_find_model(name, path, sizeof path, e);
    if (st < 0)
        return st;
    if (with_config && strcmp(path, "tiny") != 0) {
        st = read_config(c, path, e);
        if (st < 0)
            return st;
    }
    struct gloss_model_opts o = GLOSS_INIT(struct gloss_model_opts);
    o.check_tensors = check;
    o.load_mode = mode;
    return gloss_model_open(path, &o, m, pub(e));
}

status cli_open_model(struct conf *c, bool with_config, gloss_model **m, struct err *e)
{
    *m = NULL;
    return open_named(c, conf_str(c, "model"), with_config, conf_on(c, "check-tensors"),
                      (int)conf_get(c, "load-mode")->i, m, e);
}

status cli_open_named(struct conf *c, const char *name, gloss_model **m, struct err *e)
{
    *m = NULL;
    return open_named(c, name, false, conf_on(c, "check-tensors"), (int)conf_get(c, "load-mode")->i,
                      m, e);
}

status cli_open_vocab(struct conf *c, gloss_model **m, struct err *e)
{
    *m = NULL;
    const char *name = conf_str(c, "model");
    return name ? open_named(c, name, false, false, GLOSS_LOAD_MMAP, m, e) : OK;
}

/* Of the cache, in the words of the engine. */
static void note_memory(const struct conf *c, gloss_engine *g)
{
    struct gloss_stats s = GLOSS_INIT(struct gloss_stats);
    gloss_engine_stats(g, &s);
    double full = (double)s.pages_full * (double)s.page_bytes_full,
           window = (double)s.pages_window * (double)s.page_bytes_window;
    out_note(c,
             "cache of %.0f bytes: %d pages of %d tokens for the full layers, %d for the sliding "
             "layers; the longest request may have %d tokens",
             full + window, s.pages_full, s.page_tokens, s.pages_window, s.n_ctx);
}

status cli_open_engine(struct conf *c, gloss_model *m, int n_ctx, int n_request, const char *script,
                       gloss_engine **g, struct err *e)
{
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    o.n_ctx = n_ctx;
    o.max_requests = n_request;
    return cli_start_engine(c, m, &o, script, g, e);
}

int cli_arith(const struct conf *c)
{
    return GLOSS_ARITH_F32 + (int)conf_get(c, "arith")->i; /* the table's order */
}

static int speculate(const struct conf *c)
{
    const char *s = conf_str(c, "speculate");
    int64_t n = 0;
    if (strcmp(s, "off") == 0)
        return -1;
    return num_i64(s, 1, 1 << 20, &n) == OK ? (int)n : 0;
}

void cli_engine_opts(const struct conf *c, struct gloss_engine_opts *o)
{
    o->device = conf_str(c, "device");
    o->arith = cli_arith(c);
    o->dense = (int)conf_get(c, "dense")->i;
    o->kv = (int)conf_get(c, "kv-cache-dtype")->i;
    o->deterministic = conf_given(c, "deterministic") && conf_on(c, "deterministic");
    o->n_cpu_moe = conf_given(c, "n-cpu-moe") ? (int)conf_int(c, "n-cpu-moe")
                   : conf_on(c, "fit")        ? -1
                                              : 0;
    o->card_bytes = (uint64_t)(conf_num(c, "gpu-memory-gb") * 1e9);
    o->n_thread = (int)conf_int(c, "threads");
    o->lock = conf_on(c, "mlock");
    o->no_dense_cache = !conf_on(c, "dense-cache");
    o->memory_bytes = (uint64_t)(conf_num(c, "memory-gb") * 1e9);
    o->swap_bytes = (uint64_t)(conf_num(c, "swap-gb") * 1e9);
    o->speculate = speculate(c);
}

status cli_start_engine(struct conf *c, gloss_model *m, const struct gloss_engine_opts *base,
                        const char *script, gloss_engine **g, struct err *e)
{
    *g = NULL;
    struct buf text;
    buf_init(&text, CLI_TEXT_MAX);
    status st = OK;
    if (script)
        TRY(input_file(script, &text, e));
    struct gloss_engine_opts o = *base;
    cli_engine_opts(c, &o);
    o.script = script ? text.p : NULL;
    o.n_script = text.n;
    TRY(gloss_engine_new(m, &o, g, pub(e)));
    if (conf_on(c, "verbose"))
        note_memory(c, *g);
out:
    buf_fini(&text);
    return st;
}
