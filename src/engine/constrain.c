#include "engine/constrain.h"

#include "base/mem.h"
#include "engine/gcache.h"

#include <pthread.h>
#include <string.h>

struct constrain {
    const struct vocab *vocab;
    int n_id;
    bool harmony; /* the vocabulary has the control tokens and "assistant" */
    pthread_mutex_t lock;
    struct masker *plain; /* for turns without grammars */
    /* made when first needed, under the lock; then they stay */
    struct masker *masker;
    struct gcache *cache;
};

status constrain_new(const struct vocab *v, int n_id, struct constrain **out)
{
    struct constrain *c = mem_calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return E_NOMEM;
    pthread_mutex_init(&c->lock, NULL);
    c->vocab = v;
    c->n_id = n_id;
    c->harmony = v && harmony_check_vocab(v, NULL) == OK;
    if (c->harmony && masker_new_plain(v, n_id, &c->plain, NULL) < 0) {
        constrain_free(c);
        return E_NOMEM;
    }
    *out = c;
    return OK;
}

void constrain_free(struct constrain *c)
{
    if (!c)
        return;
    gcache_free(c->cache);
    masker_free(c->masker);
    masker_free(c->plain);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

/* Masker and cache for grammars. */
static status prepare(struct constrain *c, struct err *e)
{
    status st = OK;
    pthread_mutex_lock(&c->lock);
    if (!c->masker)
        st = masker_new(c->vocab, c->n_id, &c->masker, e);
    if (st == OK && !c->cache) {
        st = gcache_new(masker_prelude(c->masker), CONSTRAIN_CACHE_BYTES, &c->cache);
        if (st < 0)
            err_set(e, st, "out of memory for grammars");
    }
    pthread_mutex_unlock(&c->lock);
    return st;
}

static bool same(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static bool may_call(const struct constrain_params *p, const struct constrain_tool *t)
{
    for (int i = 0; i < p->n_allowed; i++)
        if (same(p->allowed[i], t->recipient))
            return true;
    return p->n_allowed == 0;
}

static status check(const struct constrain *c, const struct constrain_params *p, struct err *e)
{
    if (p->n_tool < 0 || p->n_tool > CONSTRAIN_MAX_TOOLS)
        return err_param(e, E_LIMIT, "tools", "%d tools: at most %d", p->n_tool,
                         CONSTRAIN_MAX_TOOLS);
    if (p->n_allowed < 0 || p->n_allowed > CONSTRAIN_MAX_TOOLS)
        return err_param(e, E_LIMIT, "tool_choice", "%d allowed tools: at most %d", p->n_allowed,
                         CONSTRAIN_MAX_TOOLS);
    for (int i = 0; i < p->n_tool; i++)
        for (int k = 0; k < i; k++)
            if (same(p->tool[i].recipient, p->tool[k].recipient))
                return err_param(e, E_INPUT, "tools", "two tools are called %.*s",
                                 (int)(p->tool[i].recipient.n < 80 ? p->tool[i].recipient.n : 80),
                                 p->tool[i].recipient.p);
    for (int i = 0; i < p->n_allowed; i++) {
        bool known = false;
        for (int k = 0; k < p->n_tool && !known; k++)
            known = same(p->allowed[i], p->tool[k].recipient);
        if (!known)
            return err_param(e, E_INPUT, "tool_choice", "%.*s is none of the tools",
                             (int)(p->allowed[i].n < 80 ? p->allowed[i].n : 80), p->allowed[i].p);
    }
    if (p->choice == TOOLS_REQUIRED && p->free_headers)
        return err_param(e, E_INPUT, "tool_choice",
                         "a call can't be required without the header grammar");
    if (!c->harmony && (p->n_tool || p->format != ANSWER_TEXT || p->choice == TOOLS_REQUIRED))
        return err_param(e, E_INPUT, p->n_tool ? "tools" : "format",
                         "tools and answer formats need a tokenizer with harmony's control tokens");
    return OK;
}

/* The grammar of a tool's arguments; NULL for text. */
static status tool_grammar(struct constrain *c, const struct constrain_tool *t, struct grammar **g,
                           struct err *e)
{
    struct err why = {0};
    status st = OK;
    *g = NULL;
    if (!t->schema.p && t->builtin)
        return OK;
    if (t->schema.p) {
        st = gcache_get(c->cache, GRAMMAR_SCHEMA, t->schema.p, t->schema.n, g, &why);
        if (st == OK || (st != E_INPUT || t->strict)) {
            if (st < 0)
                err_param(e, st, "tools", "tool %.*s: %s",
                          (int)(t->recipient.n < 64 ? t->recipient.n : 64), t->recipient.p,
                          why.msg);
            return st;
        }
    }
    return gcache_get(c->cache, GRAMMAR_OBJECT, "", 0, g, e);
}

static status final_grammar(struct constrain *c, const struct constrain_params *p,
                            struct grammar **g, struct err *e)
{
    static const enum gcache_kind kind[] = {[ANSWER_OBJECT] = GRAMMAR_OBJECT,
                                            [ANSWER_SCHEMA] = GRAMMAR_SCHEMA,
                                            [ANSWER_REGEX] = GRAMMAR_REGEX,
                                            [ANSWER_CHOICE] = GRAMMAR_CHOICE};
    struct err why = {0};
    struct str text = p->format == ANSWER_OBJECT ? (struct str){"", 0} : p->format_text;
    *g = NULL;
    if (p->format == ANSWER_TEXT)
        return OK;
    status st = gcache_get(c->cache, kind[p->format], text.p ? text.p : "", text.n, g, &why);
    if (st < 0)
        err_param(e, st, "format", "%s", why.msg);
    return st;
}

status constrain_turn(struct constrain *c, const struct constrain_params *p, const int32_t *ids,
                      size_t n, struct turn **t, struct err *e)
{
    status st = OK;
    struct turn_tool *tool = NULL;
    struct turn_spec s = {.must_call = p->choice == TOOLS_REQUIRED,
                          .no_analysis = p->no_analysis,
                          .free_headers = p->free_headers};
    struct masker *m = c->plain;
    *t = NULL;
    TRY(check(c, p, e));
    if (!c->harmony)
        return OK;
    bool grammars = p->format != ANSWER_TEXT;
    tool = mem_calloc((size_t)p->n_tool + 1, sizeof *tool);
    if (!tool)
        TRY(err_set(e, E_NOMEM, "out of memory for the tools"));
    for (int i = 0; i < p->n_tool && p->choice != TOOLS_NONE; i++)
        grammars =
            grammars || (may_call(p, &p->tool[i]) && (p->tool[i].schema.p || !p->tool[i].builtin));
    if (p->free_headers && !grammars)
        goto out;
    if (grammars) {
        TRY(prepare(c, e));
        m = c->masker;
    }
    for (int i = 0; i < p->n_tool && p->choice != TOOLS_NONE; i++) {
        if (!may_call(p, &p->tool[i]))
            continue;
        struct turn_tool *to = &tool[s.n_tool++];
        *to = (struct turn_tool){.recipient = p->tool[i].recipient, .builtin = p->tool[i].builtin};
        TRY(tool_grammar(c, &p->tool[i], &to->args, e));
    }
    TRY(final_grammar(c, p, &s.final, e));
    s.tool = tool;
    TRY(turn_new(m, &s, t, e));
    TRY(turn_resume(*t, ids, n, e));
out:
    for (int i = 0; tool && i < s.n_tool; i++)
        grammar_unref(tool[i].args);
    grammar_unref(s.final);
    mem_free(tool);
    if (st < 0) {
        turn_free(*t);
        *t = NULL;
    }
    return st;
}
