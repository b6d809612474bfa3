/* Requests through the engine behind a pipe, many at once: one JSON object per line in, one out in
 * the same order, for sample_check.py.
 *
 * usage: sample_driver MODEL
 *   {"request":OPENAI REQUEST,"tools":[[RECIPIENT,SCHEMA|null,BUILTIN],..],"choice":N,
 *    "allowed":[RECIPIENT,..],"format":N,"format_text":S,"grammar":B,"no_analysis":B,
 *    "temperature":X,"seed":N,"max":N}
 *   -> {"ids":[..],"finish":N,"parsed":{"messages":[..]}}, parsed in recover mode, or {"error":S}
 */
#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "gloss.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 16, MAX_TOOLS = 16, MAX_LINE = 1 << 26 };

static gloss_model *model;
static gloss_engine *engine;

/* A request under way. */
struct run {
    gloss_chat *chat;
    gloss_request *r;
    struct gloss_err e;
};

static void must(gloss_status st, const struct gloss_err *e)
{
    if (st >= 0)
        return;
    fprintf(stderr, "%s\n", e->msg);
    exit(1);
}

static const char *text_of(const struct json *q, const char *key, size_t *n)
{
    const struct json *j = json_get(q, key);
    *n = 0;
    return json_kind(j) == J_STR ? json_str(j, n) : NULL;
}

static bool flag(const struct json *q, const char *key)
{
    return json_kind(json_get(q, key)) == J_TRUE;
}

static int number(const struct json *q, const char *key)
{
    const struct json *j = json_get(q, key);
    return json_kind(j) == J_INT ? (int)json_int(j) : 0;
}

static void submit(struct run *x, const struct json *q)
{
    struct gloss_tool tool[MAX_TOOLS] = {{0}};
    const char *allowed[MAX_TOOLS];
    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    struct gloss_chat_opts o = GLOSS_INIT(struct gloss_chat_opts);
    const struct json *list = json_get(q, "tools");
    const int32_t *ids;
    size_t n;
    struct buf request;
    for (size_t i = 0; i < json_len(list) && i < MAX_TOOLS; i++) {
        const struct json *t = json_at(list, i), *schema = json_at(t, 1);
        tool[i].recipient = json_str(json_at(t, 0), NULL);
        if (json_kind(schema) == J_STR)
            tool[i].schema = json_str(schema, &tool[i].n_schema);
        tool[i].builtin = json_kind(json_at(t, 2)) == J_TRUE;
        tool[i].strict = 1;
        p.n_tools++;
    }
    list = json_get(q, "allowed");
    for (size_t i = 0; i < json_len(list) && i < MAX_TOOLS; i++)
        allowed[p.n_allowed_tools++] = json_str(json_at(list, i), NULL);
    p.tools = tool;
    p.allowed_tools = allowed;
    p.tool_choice = number(q, "choice");
    p.format = number(q, "format");
    p.format_text = text_of(q, "format_text", &p.n_format_text);
    p.no_header_grammar = !flag(q, "grammar");
    p.no_analysis = flag(q, "no_analysis");
    p.temperature = (float)json_num(json_get(q, "temperature"));
    p.seed = (uint64_t)number(q, "seed") + 1;
    p.max_tokens = number(q, "max");
    p.no_logprobs = 1;
    buf_init(&request, MAX_LINE);
    json_dump(&request, json_get(q, "request"));
    o.render_for = GLOSS_FOR_COMPLETION;
    must(gloss_chat_new(model, &o, &x->chat, &x->e), &x->e);
    must(gloss_chat_load(x->chat, request.p, request.n, GLOSS_FORM_OPENAI, &x->e), &x->e);
    must(gloss_chat_render(x->chat, &ids, &n, &x->e), &x->e);
    if (gloss_submit(engine, ids, n, &p, &x->r, &x->e) < 0)
        x->r = NULL;
    buf_fini(&request);
}

static void finish(struct run *x)
{
    struct buf out;
    struct gloss_event ev = {0};
    struct gloss_delta d;
    const char *json;
    size_t n;
    buf_init(&out, MAX_LINE);
    buf_puts(&out, "{\"ids\":[");
    while (x->r && gloss_next(x->r, &ev, -1) == GLOSS_OK && ev.kind != GLOSS_EV_FINISH) {
        buf_printf(&out, out.p[out.n - 1] == '[' ? "%d" : ",%d", ev.token);
        must(gloss_chat_feed(x->chat, ev.token, &d, &x->e), &x->e);
    }
    if (x->r && ev.finish == GLOSS_FINISH_ERROR)
        x->e = ev.err;
    if (!x->r || ev.finish == GLOSS_FINISH_ERROR) {
        buf_clear(&out);
        buf_puts(&out, "{\"error\":");
        json_quote(&out, x->e.msg, strlen(x->e.msg));
        buf_puts(&out, "}");
    } else {
        must(gloss_chat_finish(x->chat, &d, &x->e), &x->e);
        must(gloss_chat_parsed(x->chat, &json, &n, &x->e), &x->e);
        buf_printf(&out, "],\"finish\":%d,\"parsed\":", ev.finish);
        buf_put(&out, json, n);
        buf_puts(&out, "}");
    }
    if (buf_status(&out) < 0)
        exit(1);
    puts(out.p);
    buf_fini(&out);
    gloss_request_free(x->r);
    gloss_chat_free(x->chat);
    *x = (struct run){0};
}

int main(int argc, char **argv)
{
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    struct gloss_err e;
    struct run ring[AT_ONCE] = {{0}};
    size_t begun = 0, done = 0;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    if (argc != 2)
        return 2;
    must(gloss_model_open(argv[1], NULL, &model, &e), &e);
    o.n_ctx = 4096;
    o.max_requests = AT_ONCE;
    o.n_thread = 1;           /* a busy machine makes barriers slow */
    o.arith = GLOSS_ARITH_Q8; /* the quickest; what is checked depends on none */
    must(gloss_engine_new(model, &o, &engine, &e), &e);
    while ((n = getline(&line, &cap, stdin)) > 0) {
        struct json *q;
        struct err je = {0};
        if (json_parse(line, (size_t)n, &json_limits_file, &q, &je) < 0) {
            fprintf(stderr, "%s\n", je.msg);
            return 1;
        }
        if (begun - done == AT_ONCE)
            finish(&ring[done++ % AT_ONCE]);
        submit(&ring[begun++ % AT_ONCE], q);
        json_free(q);
    }
    while (done < begun)
        finish(&ring[done++ % AT_ONCE]);
    struct gloss_stats st = GLOSS_INIT(struct gloss_stats);
    gloss_engine_stats(engine, &st);
    fprintf(stderr, "%llu prompt tokens, %llu reused, %llu generated\n",
            (unsigned long long)st.prompt_tokens, (unsigned long long)st.prompt_reused,
            (unsigned long long)st.generated_tokens);
    free(line);
    gloss_engine_free(engine);
    gloss_model_close(model);
    return 0;
}
