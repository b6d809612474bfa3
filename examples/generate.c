/* The smallest complete program on gloss.h: asks the built-in model a question, streams the answer,
 * and shows what the prefix cache did for the second question of the conversation.
 *
 *     cc -Iinclude examples/generate.c build/libgloss.a -ljansson -lm -lpthread -o generate
 *     ./generate [MODEL]
 */
#include "gloss.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(gloss_status st, const struct gloss_err *e)
{
    if (st < 0) {
        fprintf(stderr, "generate: %s\n", e->msg);
        exit(1);
    }
}

/* Answers the conversation `json`; prints the final channel as it comes. */
static void answer(const gloss_model *m, gloss_engine *g, const char *json)
{
    struct gloss_err e;
    gloss_chat *chat;
    gloss_request *r;
    const int32_t *ids;
    size_t n_ids;

    struct gloss_chat_opts co = GLOSS_INIT(struct gloss_chat_opts);
    co.drop = GLOSS_DROP_CLOSED_TURNS;
    must(gloss_chat_new(m, &co, &chat, &e), &e);
    must(gloss_chat_load(chat, json, strlen(json), GLOSS_FORM_OPENAI, &e), &e);
    must(gloss_chat_render(chat, &ids, &n_ids, &e), &e);

    struct gloss_params p = GLOSS_INIT(struct gloss_params);
    p.max_tokens = 200;
    p.reasoning_budget = 100;
    must(gloss_submit(g, ids, n_ids, &p, &r, &e), &e);

    struct gloss_event ev;
    while (gloss_next(r, &ev, -1) == GLOSS_OK && ev.kind == GLOSS_EV_TOKEN) {
        struct gloss_delta d;
        must(gloss_chat_feed(chat, ev.token, &d, &e), &e);
        if (d.text && (!d.channel || strcmp(d.channel, "final") == 0))
            fwrite(d.text, 1, d.n, stdout);
    }
    if (ev.finish == GLOSS_FINISH_ERROR)
        must(ev.err.code, &ev.err);
    printf("\n[%zu prompt tokens: %d from the cache, %d computed]\n", n_ids, ev.n_reused,
           ev.n_computed);
    gloss_request_free(r);
    gloss_chat_free(chat);
}

int main(int argc, char **argv)
{
    struct gloss_err e;
    gloss_model *m;
    gloss_engine *g;
    must(gloss_model_open(argc > 1 ? argv[1] : "tiny", NULL, &m, &e), &e);
    struct gloss_engine_opts o = GLOSS_INIT(struct gloss_engine_opts);
    o.n_ctx = 2048;
    must(gloss_engine_new(m, &o, &g, &e), &e);
    answer(m, g, "[{\"role\":\"user\",\"content\":\"What is 127 + 385?\"}]");
    answer(m, g,
           "[{\"role\":\"user\",\"content\":\"What is 127 + 385?\"},"
           "{\"role\":\"assistant\",\"content\":\"512\"},"
           "{\"role\":\"user\",\"content\":\"And 12 + 30?\"}]");
    gloss_engine_free(g);
    gloss_model_close(m);
    return 0;
}
