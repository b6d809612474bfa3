/* gloss infer: one answer, or one for every line of a file of conversations.
 *
 * Whatever the source, the prompt becomes an OpenAI request as JSON text, which gloss_chat renders;
 * special-looking text in it stays text. Nothing of an answer is written to a pipe or file before
 * it is complete, so that an interrupted run leaves nothing half; only a terminal sees it grow.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Everything that lasts for the whole run. */
struct infer {
    struct conf *c;
    gloss_model *m;
    gloss_engine *g;
    struct buf schema, tools; /* JSON text, empty when absent */
    char day[16];
    const char *date;
    double load_ms;
    /* live display */
    bool live, dim;
    enum part at;   /* what the cursor stands behind */
    bool line_open; /* something stands on the cursor's line */
    size_t raw_held;
    char raw_tail[4];
};

/* ---- input ---- */

/* Files of JSON: checked here, so that the message names the option. Returns the tree. */
static status load_json(const char *path, const char *option, struct buf *b, struct json **root,
                        struct err *e)
{
    struct err je = {0};
    status st = input_file(path, b, e);
    if (st < 0)
        return st;
    st = json_parse(b->p, b->n, &json_limits_file, root, &je);
    if (st < 0)
        return err_set(e, st, "%s %.80s: %.140s", option, path, je.msg);
    return OK;
}

static status load_tools(struct infer *x, struct err *e)
{
    const char *path = conf_str(x->c, "tools");
    if (!path)
        return OK;
    struct buf b;
    buf_init(&b, CLI_TEXT_MAX);
    struct json *root = NULL;
    status st = load_json(path, "--tools", &b, &root, e);
    if (st == OK) {
        const struct json *tools = json_kind(root) == J_OBJ ? json_get(root, "tools") : root;
        if (json_kind(tools) != J_ARR)
            st = err_set(e, E_INPUT,
                         "--tools %.80s: an array of tools, or an object with it as \"tools\", is "
                         "wanted",
                         path);
        else
            json_dump(&x->tools, tools);
    }
    json_free(root);
    buf_fini(&b);
    return st;
}

static status load_schema(struct infer *x, struct err *e)
{
    const char *path = conf_str(x->c, "schema");
    if (!path)
        return OK;
    struct json *root = NULL;
    status st = load_json(path, "--schema", &x->schema, &root, e);
    if (st == OK && json_kind(root) != J_OBJ)
        st = err_set(e, E_INPUT, "--schema %.80s: a JSON Schema is an object", path);
    if (st == OK) {
        buf_clear(&x->schema);
        json_dump(&x->schema, root);
    }
    json_free(root);
    return st;
}

static void put_message(struct buf *b, const char *role, const char *text, size_t n)
{
    if (b->p[b->n - 1] != '[')
        buf_putc(b, ',');
    buf_printf(b, "{\"role\":\"%s\",\"content\":", role);
    json_quote(b, text, n);
    buf_putc(b, '}');
}

/* Opens {"messages":[ with what --system and --developer say. */
static status begin_request(const struct infer *x, struct buf *b, struct err *e)
{
    static const char *const roles[] = {"system", "developer"};
    buf_puts(b, "{\"messages\":[");
    for (int i = 0; i < 2; i++) {
        const char *s = conf_str(x->c, roles[i]);
        if (!s)
            continue;
        char label[16];
        snprintf(label, sizeof label, "--%s", roles[i]);
        status st = input_utf8(s, strlen(s), label, e);
        if (st < 0)
            return st;
        put_message(b, roles[i], s, strlen(s));
    }
    return OK;
}

static void end_request(const struct infer *x, struct buf *b, const struct json *from)
{
    buf_putc(b, ']');
    static const char *const also[] = {"tool_choice", "response_format", "reasoning_effort"};
    const struct json *tools = json_get(from, "tools");
    if (x->tools.n) {
        buf_printf(b, ",\"tools\":");
        buf_put(b, x->tools.p, x->tools.n);
    } else if (!json_absent(tools)) {
        buf_puts(b, ",\"tools\":");
        json_dump(b, tools);
    }
    for (size_t i = 0; i < sizeof also / sizeof also[0]; i++) {
        const struct json *v = json_get(from, also[i]);
        if (json_absent(v))
            continue;
        buf_printf(b, ",\"%s\":", also[i]);
        json_dump(b, v);
    }
    buf_putc(b, '}');
}

/* A request from a messages array or an object that has one. */
static status request_from_json(const struct infer *x, const struct json *root, const char *what,
                                struct buf *b, struct err *e)
{
    const struct json *messages = json_kind(root) == J_OBJ ? json_get(root, "messages") : root;
    if (json_kind(messages) != J_ARR || json_len(messages) == 0)
        return err_set(e, E_INPUT,
                       "%s: an array of messages, or an object with it as \"messages\", is wanted",
                       what);
    status st = begin_request(x, b, e);
    if (st < 0)
        return st;
    for (size_t i = 0; i < json_len(messages); i++) {
        if (b->p[b->n - 1] != '[')
            buf_putc(b, ',');
        json_dump(b, json_at(messages, i));
    }
    end_request(x, b, root);
    return OK;
}

static status request_from_text(const struct infer *x, const char *s, size_t n, struct buf *b,
                                struct err *e)
{
    if (n == 0)
        return err_set(e, E_USAGE, "the prompt is empty (gloss help infer)");
    status st = input_utf8(s, n, "prompt", e);
    if (st == OK)
        st = begin_request(x, b, e);
    if (st < 0)
        return st;
    put_message(b, "user", s, n);
    end_request(x, b, NULL);
    return OK;
}

/* One final line end is how files end, not part of what was asked. */
static size_t without_newline(const char *s, size_t n)
{
    if (n && s[n - 1] == '\n')
        n--;
    if (n && s[n - 1] == '\r')
        n--;
    return n;
}

/* Builds the request from whichever source was given. `effort` receives the request's own. */
static status read_request(const struct infer *x, struct buf *b, char effort[16], struct err *e)
{
    const struct conf *c = x->c;
    const char *file = conf_str(c, "prompt-file"), *messages = conf_str(c, "messages");
    if ((c->n_pos > 0) + !!file + !!messages > 1)
        return err_set(e, E_USAGE,
                       "give the prompt one way: as arguments, --prompt-file or --messages");
    if (!c->n_pos && !file && !messages) {
        if (isatty(STDIN_FILENO))
            return err_set(e, E_USAGE, "no prompt; for example: gloss infer 'What is 2 + 2?'");
        file = "-";
    }
    struct buf in;
    buf_init(&in, CLI_TEXT_MAX);
    struct json *root = NULL;
    status st = OK;
    if (messages) {
        TRY(load_json(messages, "--messages", &in, &root, e));
        const struct json *own = json_get(root, "reasoning_effort");
        if (json_kind(own) == J_STR)
            snprintf(effort, 16, "%s", json_str(own, NULL));
        TRY(request_from_json(x, root, "--messages", b, e));
    } else if (file) {
        TRY(input_file(file, &in, e));
        TRY(request_from_text(x, in.p, without_newline(in.p, in.n), b, e));
    } else {
        input_args(c, &in);
        TRY(request_from_text(x, in.p, in.n, b, e));
    }
    if (buf_status(b) < 0 || buf_status(&in) < 0)
        st = err_set(e, E_NOMEM, "out of memory for the prompt");
out:
    json_free(root);
    buf_fini(&in);
    return st;
}

/* ---- generation ---- */

static int effort_of(const struct infer *x)
{
    static const int efforts[] = {GLOSS_EFFORT_LOW, GLOSS_EFFORT_MEDIUM, GLOSS_EFFORT_HIGH};
    const struct conf_val *v = conf_get(x->c, "reasoning-effort");
    return v->source >= CONF_ENV ? efforts[v->i] : GLOSS_EFFORT_DEFAULT;
}

static struct gloss_params params_of(const struct conf *c)
{
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    p.max_tokens = (int)conf_int(c, "max-tokens");
    p.temperature = (float)conf_num(c, "temperature");
    p.top_p = (float)conf_num(c, "top-p");
    p.min_p = (float)conf_num(c, "min-p");
    p.top_k = (int)conf_int(c, "top-k");
    p.reasoning_budget = (int)conf_int(c, "reasoning-budget");
    p.stop = conf_get(c, "stop")->list;
    p.n_stop = conf_get(c, "stop")->n_list;
    p.no_logprobs = 1;
    p.no_header_grammar = !conf_on(c, "header-grammar");
    /* 0 means "no seed" to the library, but --seed 0 is a seed like any other */
    if (conf_given(c, "seed"))
        p.seed = conf_int(c, "seed") ? (uint64_t)conf_int(c, "seed") : UINT64_MAX;
    return p;
}

static status open_model(struct infer *x, struct err *e)
{
    uint64_t start = clock_ns();
    status st = cli_open_model(x->c, true, &x->m, e);
    x->load_ms = clock_ms_since(start);
    return st;
}

/* The engine, with room for `need` tokens within --ctx-size and the model's context. */
static status open_engine(struct infer *x, size_t need, int n_request, struct err *e)
{
    struct gloss_info info;
    gloss_model_info(x->m, &info);
    int most = conf_given(x->c, "ctx-size") ? (int)conf_int(x->c, "ctx-size") : info.n_ctx;
    if (most > info.n_ctx)
        return err_set(e, E_LIMIT, "--ctx-size %d is more than the model's context of %d tokens",
                       most, info.n_ctx);
    uint64_t start = clock_ns();
    status st = cli_open_engine(x->c, x->m, need < (size_t)most ? (int)need : most, n_request,
                                conf_str(x->c, "scripted"), &x->g, e);
    x->load_ms += clock_ms_since(start);
    return st;
}

/* The request's tokens, in q->ids. */
static status render(const struct infer *x, const struct buf *request, struct running *q,
                     struct err *e)
{
    struct gloss_chat_opts o = GLOSS_INIT(struct gloss_chat_opts);
    o.render_for = GLOSS_FOR_COMPLETION;
    o.drop = GLOSS_DROP_CLOSED_TURNS;
    o.effort = effort_of(x);
    o.date = x->date;
    o.schema = x->schema.n ? x->schema.p : NULL;
    o.parse_mode = GLOSS_PARSE_RECOVER;
    status st = OK;
    TRY(gloss_chat_new(x->m, &o, &q->chat, pub(e)));
    TRY(gloss_chat_load(q->chat, request->p, request->n, GLOSS_FORM_OPENAI, pub(e)));
    TRY(gloss_chat_render(q->chat, &q->ids, &q->n, pub(e)));
out:
    return st;
}

/* Submits the rendered request, held to its own tools and formats. */
static status start(const struct infer *x, const struct buf *request, struct running *q,
                    struct err *e)
{
    struct gloss_params p = params_of(x->c);
    struct hold h;
    status st = hold_read(&h, x->c, request, &x->schema, e);
    if (st == OK) {
        hold_apply(&h, &p);
        st = running_start(q, x->g, &p, e);
    }
    hold_fini(&h);
    return st;
}

/* ---- output ---- */

static void put_text_or_null(struct buf *b, const struct buf *text)
{
    if (text->n)
        json_quote(b, text->p, text->n);
    else
        buf_puts(b, "null");
}

static void put_rounded(struct buf *b, const char *key, double v, const char *end)
{
    buf_printf(b, "\"%s\":%.2f%s", key, v, end);
}

/* The members of the JSON value, without the braces. */
static void put_members(struct buf *b, const struct infer *x, const struct answer *a,
                        const char *effort)
{
    buf_puts(b, "\"response\":");
    json_quote(b, a->response.p, a->response.n);
    buf_puts(b, ",\"analysis\":");
    put_text_or_null(b, &a->analysis);
    buf_puts(b, ",\"commentary\":");
    put_text_or_null(b, &a->commentary);
    buf_printf(b, ",\"reasoning_level\":\"%s\",\"finish_reason\":\"%s\"", effort, a->finish);
    if (a->n_call) {
        buf_puts(b, ",\"tool_calls\":");
        buf_put(b, a->calls.p, a->calls.n);
    }
    buf_printf(b,
               ",\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,"
               "\"reasoning_tokens\":%lld},\"timings\":{",
               (long long)a->n_prompt, (long long)a->n_completion, (long long)a->n_reasoning);
    put_rounded(b, "load_ms", x->load_ms, ",");
    put_rounded(b, "ttft_ms", a->ttft_ms, ",");
    put_rounded(b, "prefill_tokens_per_s", a->prefill_per_s, ",");
    put_rounded(b, "decode_tokens_per_s", a->decode_per_s, "}");
}

/* The level that the prompt names: -r, else the request's own, else the default. */
static const char *effort_name(const struct infer *x, const char *own)
{
    return effort_of(x) == GLOSS_EFFORT_DEFAULT && *own ? own : conf_str(x->c, "reasoning-effort");
}

static status save(const struct infer *x, const struct buf *json, struct err *e)
{
    const char *dir = conf_str(x->c, "outdir"), *file = conf_str(x->c, "outfile");
    char path[4096];
    int n = *file == '/' ? snprintf(path, sizeof path, "%s", file)
                         : snprintf(path, sizeof path, "%s/%s", dir, file);
    if (n >= (int)sizeof path)
        return err_set(e, E_INPUT, "--outdir and --outfile: the path is too long");
    status st = *file == '/' ? OK : file_mkdir(dir, e);
    return st < 0 ? st : file_save(path, json->p, json->n, e);
}

static void set_dim(struct infer *x, bool on)
{
    if (x->dim)
        out_puts(on ? "\033[2m" : "\033[0m");
}

/* Live text. Analysis and commentary are dimmed; where there is no colour their lines begin with
 * "| ". A blank line separates the parts. */
static void show_part(void *ctx, enum part part, const char *s, size_t n)
{
    struct infer *x = ctx;
    bool quiet_part = part == PART_ANALYSIS || part == PART_COMMENTARY;
    if (part == PART_ANALYSIS && conf_get(x->c, "show-analysis")->source != CONF_UNSET &&
        !conf_on(x->c, "show-analysis"))
        return;
    struct buf b;
    buf_init(&b, CLI_ANSWER_MAX);
    if (part != x->at && x->at != PART_NONE) {
        if (x->line_open)
            buf_putc(&b, '\n');
        buf_putc(&b, '\n');
        x->line_open = false;
    }
    x->at = part;
    struct buf text;
    buf_init(&text, CLI_ANSWER_MAX);
    if (out_is_terminal())
        out_visible(&text, s, n);
    else
        buf_put(&text, s, n);
    for (size_t i = 0; i < text.n; i++) {
        if (quiet_part && !x->dim && !x->line_open)
            buf_puts(&b, "| ");
        buf_putc(&b, text.p[i]);
        x->line_open = text.p[i] != '\n';
    }
    buf_fini(&text);
    if (quiet_part)
        set_dim(x, true);
    out_put(b.p, b.n);
    if (quiet_part)
        set_dim(x, false);
    out_flush();
    buf_fini(&b);
}

/* Raw tokens end anywhere; a character is shown when its last byte has come. */
static void show_raw(void *ctx, enum part part, const char *s, size_t n)
{
    struct infer *x = ctx;
    if (part != PART_RAW)
        return;
    struct buf b;
    buf_init(&b, CLI_ANSWER_MAX);
    buf_put(&b, x->raw_tail, x->raw_held);
    buf_put(&b, s, n);
    x->raw_held = out_cut_tail(b.p, b.n);
    memcpy(x->raw_tail, b.p + b.n - x->raw_held, x->raw_held);
    struct buf text;
    buf_init(&text, CLI_ANSWER_MAX);
    out_visible(&text, b.p, b.n - x->raw_held);
    out_put(text.p, text.n);
    out_flush();
    x->line_open = true;
    buf_fini(&text);
    buf_fini(&b);
}

/* Chooses what is shown while it arrives. */
static void plan_display(struct infer *x, struct answer *a)
{
    bool terminal = out_is_terminal();
    a->want_raw = conf_on(x->c, "raw");
    a->ctx = x;
    x->dim = out_color(x->c);
    x->live = !conf_on(x->c, "json") && terminal;
    if (x->live)
        a->show = a->want_raw ? show_raw : show_part;
}

static void print_calls(const struct answer *a)
{
    struct buf b;
    buf_init(&b, CLI_ANSWER_MAX);
    if (out_is_terminal())
        out_visible(&b, a->call_lines.p, a->call_lines.n);
    else
        buf_put(&b, a->call_lines.p, a->call_lines.n);
    out_put(b.p, b.n);
    buf_fini(&b);
}

/* What is left to print when the answer is complete. */
static void print_answer(struct infer *x, struct answer *a)
{
    if (a->want_raw) {
        if (!x->live)
            out_put(a->raw.p, a->raw.n);
        out_puts("\n");
        return;
    }
    if (!x->live) {
        bool dim = x->dim;
        x->dim = false;
        if (conf_on(x->c, "show-analysis") && a->analysis.n)
            show_part(x, PART_ANALYSIS, a->analysis.p, a->analysis.n);
        if (a->response.n)
            show_part(x, PART_FINAL, a->response.p, a->response.n);
        x->dim = dim;
    }
    if (x->line_open || (!a->response.n && !a->n_call))
        out_puts("\n");
    if (x->at != PART_NONE && a->n_call && !a->response.n)
        out_puts("\n");
    print_calls(a);
}

/* What a person should know about how the answer ended. */
static void print_notes(const struct infer *x, const struct answer *a)
{
    if (strcmp(a->finish, "length") == 0)
        out_note(x->c, "the answer was cut after %lld token%s%s; --max-tokens sets the limit",
                 (long long)a->n_completion, a->n_completion == 1 ? "" : "s",
                 a->response.n ? "" : ", before it got beyond the analysis");
    if (conf_on(x->c, "verbose"))
        out_note(x->c,
                 "%lld prompt tokens, %lld generated (%lld analysis); load %.0f ms, first token "
                 "%.0f ms, prefill %.0f tokens/s, decode %.1f tokens/s",
                 (long long)a->n_prompt, (long long)a->n_completion, (long long)a->n_reasoning,
                 x->load_ms, a->ttft_ms, a->prefill_per_s, a->decode_per_s);
}

static status answer_one(struct infer *x, struct answer *a, struct err *e)
{
    struct buf request, json;
    buf_init(&request, CLI_TEXT_MAX);
    buf_init(&json, CLI_ANSWER_MAX);
    char effort[16] = "";
    struct running q = {0};
    status st = OK;
    TRY(read_request(x, &request, effort, e));
    TRY(open_model(x, e));
    TRY(render(x, &request, &q, e));
    TRY(open_engine(x, q.n + (size_t)conf_int(x->c, "max-tokens"), 1, e));
    plan_display(x, a);
    cli_catch_signals();
    TRY(start(x, &request, &q, e));
    st = answer_take(a, x->m, &q, e);
    if (st < 0 && x->live && x->line_open) {
        out_puts("\n"); /* the error goes to a line of its own */
        out_flush();
    }
    if (st < 0)
        goto out;
    buf_putc(&json, '{');
    put_members(&json, x, a, effort_name(x, effort));
    buf_puts(&json, "}\n");
    if (conf_on(x->c, "save"))
        TRY(save(x, &json, e));
    if (conf_on(x->c, "json")) {
        TRY(out_buf(&json, e));
    } else {
        print_answer(x, a);
        print_notes(x, a);
    }
out:
    running_end(&q);
    buf_fini(&json);
    buf_fini(&request);
    return st;
}

/* ---- batch ---- */

/* Copies the line's own fields but those that are input or result. */
static void put_own_fields(struct buf *b, const struct json *root)
{
    static const char *const ours[] = {
        "messages",         "tools",      "tool_choice",     "response_format",
        "reasoning_effort", "response",   "analysis",        "commentary",
        "finish_reason",    "tool_calls", "reasoning_level", "usage",
        "timings",          "error"};
    if (json_kind(root) != J_OBJ)
        return;
    for (void *it = json_first(root); it; it = json_next(root, it)) {
        size_t n;
        const char *key = json_key(it, &n);
        bool skip = false;
        for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
            skip = skip || strcmp(key, ours[i]) == 0;
        if (skip)
            continue;
        json_quote(b, key, n);
        buf_putc(b, ':');
        json_dump(b, json_val(it));
        buf_putc(b, ',');
    }
}

/* A line of the batch, from reading to its answer. */
struct job {
    struct running q;
    struct json *root;
    char effort[16]; /* the line's own */
    status st;       /* why it has no answer, else OK */
    struct err e;
};

/* Jobs are answered in order, and up to n_slot of them are computed at once. */
struct batch {
    struct infer *x;
    struct job *slot; /* [n_slot] a ring: job i is slot[i % n_slot] */
    int n_slot;
    size_t n_begun, n_done, n_failed;
    struct file_new file; /* --output-path */
    bool to_file;
};

static void job_end(struct job *j)
{
    running_end(&j->q);
    json_free(j->root);
    *j = (struct job){0};
}

/* Whether a failure concerns its line alone, and the others still run. */
static bool is_line_failure(status st)
{
    return st == E_INPUT || st == E_LIMIT || st == E_NUMERIC;
}

/* Reads and renders a line, and starts it unless only its length is of interest. */
static status job_read(const struct infer *x, struct job *j, const char *line, size_t n, bool run)
{
    struct buf request;
    buf_init(&request, CLI_TEXT_MAX);
    status st = OK;
    TRY(json_parse(line, n, &json_limits_file, &j->root, &j->e));
    const struct json *own = json_get(j->root, "reasoning_effort");
    if (json_kind(own) == J_STR)
        snprintf(j->effort, sizeof j->effort, "%s", json_str(own, NULL));
    TRY(request_from_json(x, j->root, "line", &request, &j->e));
    TRY(buf_status(&request));
    TRY(render(x, &request, &j->q, &j->e));
    if (run)
        TRY(start(x, &request, &j->q, &j->e));
out:
    buf_fini(&request);
    j->st = st;
    return st;
}

/* The longest prompt of all lines, in tokens. What is wrong with a line is told later. */
static status longest_prompt(const struct infer *x, const struct buf *in, size_t *longest)
{
    const char *p = in->p, *line;
    size_t n;
    *longest = 0;
    while (input_line(&p, in->p + in->n, &line, &n)) {
        struct job j = {0};
        status st = job_read(x, &j, line, n, false);
        if (st == OK && j.q.n > *longest)
            *longest = j.q.n;
        job_end(&j);
        if (st < 0 && !is_line_failure(st))
            return st;
    }
    return OK;
}

/* Waits for the oldest job and writes its line. */
static status batch_finish_one(struct batch *b, struct answer *a, struct err *e)
{
    struct infer *x = b->x;
    struct job *j = &b->slot[b->n_done % (size_t)b->n_slot];
    struct buf out;
    buf_init(&out, CLI_ANSWER_MAX);
    answer_clear(a);
    if (j->st == OK)
        j->st = answer_take(a, x->m, &j->q, &j->e);
    status st = is_line_failure(j->st) ? OK : j->st;
    if (st < 0) {
        *e = j->e;
        goto out;
    }
    buf_putc(&out, '{');
    put_own_fields(&out, j->root);
    if (j->st == OK) {
        put_members(&out, x, a, effort_name(x, j->effort));
    } else {
        buf_puts(&out, "\"error\":{\"message\":");
        json_quote(&out, j->e.msg, strlen(j->e.msg));
        buf_putc(&out, '}');
    }
    buf_puts(&out, "}\n");
    if (conf_on(x->c, "verbose"))
        out_note(x->c, "line %zu: %s", b->n_done + 1, j->st == OK ? a->finish : j->e.msg);
    b->n_done++;
    b->n_failed += j->st < 0;
    if (!b->to_file)
        TRY(out_line(&out, e));
    else if (buf_status(&out) == OK)
        file_write(&b->file, out.p, out.n);
    else
        st = err_set(e, buf_status(&out), "an answer does not fit into memory");
out:
    job_end(j);
    buf_fini(&out);
    return st;
}

/* All lines through the ring. */
static status batch_run(struct batch *b, struct answer *a, const struct buf *in, struct err *e)
{
    const char *p = in->p, *line;
    size_t n;
    status st = OK;
    while (input_line(&p, in->p + in->n, &line, &n)) {
        if (b->n_begun - b->n_done == (size_t)b->n_slot)
            TRY(batch_finish_one(b, a, e));
        struct job *j = &b->slot[b->n_begun++ % (size_t)b->n_slot];
        (void)!job_read(b->x, j, line, n, true);
    }
    while (b->n_done < b->n_begun)
        TRY(batch_finish_one(b, a, e));
out:
    return st;
}

static status answer_batch(struct infer *x, struct answer *a, struct err *e)
{
    const char *to = conf_str(x->c, "output-path");
    struct batch b = {.x = x, .n_slot = (int)conf_int(x->c, "parallel"), .to_file = to != NULL};
    struct buf in;
    buf_init(&in, CLI_TEXT_MAX);
    size_t longest;
    status st = OK;
    TRY(input_file(conf_str(x->c, "input-path"), &in, e));
    TRY(open_model(x, e));
    TRY(longest_prompt(x, &in, &longest));
    TRY(open_engine(x, longest + (size_t)conf_int(x->c, "max-tokens"), b.n_slot, e));
    b.slot = mem_calloc((size_t)b.n_slot, sizeof *b.slot);
    if (!b.slot)
        TRY(E_NOMEM);
    if (to)
        TRY(file_begin(&b.file, to, e));
    cli_catch_signals();
    TRY(batch_run(&b, a, &in, e));
    if (to)
        TRY(file_commit(&b.file, e));
    if (b.n_failed)
        st = err_set(e, E_INPUT, "%zu of %zu conversations failed; their lines tell why",
                     b.n_failed, b.n_done);
out:
    if (to)
        file_abort(&b.file);
    for (int i = 0; b.slot && i < b.n_slot; i++)
        job_end(&b.slot[i]);
    mem_free(b.slot);
    buf_fini(&in);
    return st;
}

/* ---- the command ---- */

static status check_options(const struct conf *c, struct err *e)
{
    static const char *const only_one[] = {"prompt-file", "messages", "json",
                                           "raw",         "save",     "show-analysis"};
    static const char *const formats[] = {"schema", "json-object", "regex", "choice"};
    bool batch = conf_given(c, "input-path");
    if (conf_on(c, "raw") && conf_on(c, "json"))
        return err_set(e, E_USAGE, "--raw and --json exclude each other");
    int n_format = 0;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        n_format += conf_given(c, formats[i]);
    if (n_format > 1)
        return err_set(e, E_USAGE,
                       "--schema, --json-object, --regex and --choice exclude each other");
    if (conf_given(c, "output-path") && !batch)
        return err_set(e, E_USAGE, "--output-path needs --input-path");
    if (batch && c->n_pos)
        return err_set(e, E_USAGE, "--input-path takes no prompt");
    for (size_t i = 0; batch && i < sizeof only_one / sizeof only_one[0]; i++)
        if (conf_get(c, only_one[i])->source == CONF_ARG)
            return err_set(e, E_USAGE, "--input-path and --%s exclude each other", only_one[i]);
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "outfile" : "outdir";
        if (conf_get(c, name)->source == CONF_ARG && !conf_on(c, "save"))
            return err_set(e, E_USAGE, "--%s needs --save", name);
    }
    return OK;
}

status cmd_infer(struct conf *c, struct err *e)
{
    struct infer x = {.c = c};
    struct answer a;
    answer_init(&a);
    buf_init(&x.schema, CLI_TEXT_MAX);
    buf_init(&x.tools, CLI_TEXT_MAX);
    status st = OK;
    TRY(check_options(c, e));
    TRY(input_date(c, x.day, &x.date, e));
    TRY(load_tools(&x, e));
    TRY(load_schema(&x, e));
    TRY(conf_given(c, "input-path") ? answer_batch(&x, &a, e) : answer_one(&x, &a, e));
out:
    gloss_engine_free(x.g);
    gloss_model_close(x.m);
    buf_fini(&x.tools);
    buf_fini(&x.schema);
    answer_fini(&a);
    return st;
}
