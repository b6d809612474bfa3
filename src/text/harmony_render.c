/* Conversations to tokens, token-exact with the harmony library 0.0.8.
 *
 *     message = START author [" to=" recipient] [CHANNEL channel] [" " type] MESSAGE body ENDTOK
 *
 * Every text piece (author, ":name", " to=...", channel, type, each part of the body) is encoded by
 * itself and as ordinary text. So a control token in the output always comes from structure,
 * whatever a user, a tool or a file put into a field. Called by gloss.c and through it by every
 * program.
 */
#include "text/harmony.h"

#include <stdio.h>
#include <string.h>

const char *const harmony_role_name[N_ROLE] = {
    [ROLE_SYSTEM] = "system",       [ROLE_DEVELOPER] = "developer", [ROLE_USER] = "user",
    [ROLE_ASSISTANT] = "assistant", [ROLE_TOOL] = "tool",
};

/* Most bytes of one system or developer body: schemas grow by their indentation. */
static const size_t max_body_bytes = (size_t)256 << 20;

static const char constrain[] = "<|constrain|>";

struct render {
    const struct vocab *v;
    struct ids *out;
    struct buf body;     /* the piece under construction */
    bool function_tools; /* some developer message declares functions */
};

void harmony_system_default(struct harmony_system *s)
{
    static struct str channels[] = {STR_INIT("analysis"), STR_INIT("commentary"),
                                    STR_INIT("final")};
    *s = (struct harmony_system){
        .identity = STR("You are ChatGPT, a large language model trained by OpenAI."),
        .knowledge_cutoff = STR("2024-06"),
        .has_effort = true,
        .effort = EFFORT_MEDIUM,
        .channel = channels,
        .n_channel = 3,
        .channel_required = true,
    };
}

bool harmony_is_stop(const struct vocab *v, int32_t id)
{
    return id >= 0 && (id == vocab_special(v, SP_RETURN) || id == vocab_special(v, SP_CALL) ||
                       id == vocab_special(v, SP_ENDOFTEXT));
}

/* ---- bodies of system and developer messages ---- */

/* Sections are separated by a blank line. */
static void section(struct buf *b)
{
    if (b->n)
        buf_puts(b, "\n\n");
}

static void put_str(struct buf *b, struct str s)
{
    buf_put(b, s.p, s.n);
}

static void system_body(struct render *r, const struct harmony_system *s)
{
    struct buf *b = &r->body;
    const char *newline = "";
    /* An empty identity still makes a (blank) first section: only absent fields leave none. */
    bool any = s->identity.p || s->knowledge_cutoff.p || s->current_date.p;
    if (s->identity.p) {
        put_str(b, s->identity);
        newline = "\n";
    }
    if (s->knowledge_cutoff.p) {
        buf_printf(b, "%sKnowledge cutoff: ", newline);
        put_str(b, s->knowledge_cutoff);
        newline = "\n";
    }
    if (s->current_date.p) {
        buf_printf(b, "%sCurrent date: ", newline);
        put_str(b, s->current_date);
    }
    if (s->has_effort) {
        static const char *const word[] = {"low", "medium", "high"};
        buf_printf(b, "%sReasoning: %s", any ? "\n\n" : "", word[s->effort]);
        any = true;
    }
    if (s->n_ns > 0) {
        buf_puts(b, any ? "\n\n" : "");
        harmony_tools_section(b, s->ns, s->n_ns);
        any = true;
    }
    if (s->n_channel > 0) {
        buf_puts(b, any ? "\n\n# Valid channels: " : "# Valid channels: ");
        for (int i = 0; i < s->n_channel; i++) {
            buf_puts(b, i ? ", " : "");
            put_str(b, s->channel[i]);
        }
        buf_putc(b, '.');
        if (s->channel_required)
            buf_puts(b, " Channel must be included for every message.");
        if (r->function_tools)
            buf_puts(b, "\nCalls to these tools must go to the commentary channel: 'functions'.");
    }
}

static void developer_body(struct render *r, const struct harmony_developer *d)
{
    struct buf *b = &r->body;
    if (d->instructions.p) {
        buf_puts(b, "# Instructions\n\n");
        put_str(b, d->instructions);
    }
    if (d->n_ns > 0) {
        section(b);
        harmony_tools_section(b, d->ns, d->n_ns);
    }
    if (d->response_format.p) {
        section(b);
        put_str(b, d->response_format);
    }
}

/* ---- messages ---- */

static status put_text(struct render *r, struct str s, struct err *e)
{
    return s.n ? o200k_encode(r->v, s.p, s.n, SPECIAL_TEXT, r->out, e) : OK;
}

/* `prefix` and `s` as one piece. */
static status put_piece(struct render *r, const char *prefix, struct str s, struct err *e)
{
    buf_clear(&r->body);
    buf_puts(&r->body, prefix);
    put_str(&r->body, s);
    status st = buf_status(&r->body);
    if (st < 0)
        return err_set(e, st, "%s", err_name(st));
    return put_text(r, (struct str){r->body.p, r->body.n}, e);
}

static void put_special(struct render *r, enum special which)
{
    ids_put(r->out, vocab_special(r->v, which));
}

static status put_author(struct render *r, const struct harmony_message *m, int i, struct err *e)
{
    if (m->role == ROLE_TOOL) {
        if (m->name.p)
            return put_text(r, m->name, e);
        char param[64];
        snprintf(param, sizeof param, "messages[%d].name", i);
        return err_param(e, E_INPUT, param, "a tool message must have a name");
    }
    const char *role = harmony_role_name[m->role];
    status st = put_text(r, (struct str){role, strlen(role)}, e);
    return st < 0 || !m->name.p ? st : put_piece(r, ":", m->name, e);
}

/* Of a content type only a marker at its very start is the control token. */
static status put_type(struct render *r, struct str type, struct err *e)
{
    const size_t n = sizeof constrain - 1;
    if (type.n < n || memcmp(type.p, constrain, n) != 0)
        return put_piece(r, " ", type, e);
    status st = put_text(r, STR(" "), e);
    if (st < 0)
        return st;
    put_special(r, SP_CONSTRAIN);
    return put_text(r, (struct str){type.p + n, type.n - n}, e);
}

static status put_part(struct render *r, const struct harmony_message *m, int i,
                       const struct harmony_part *p, struct err *e)
{
    if (p->kind == CONTENT_TEXT)
        return put_text(r, p->text, e);
    bool system = p->kind == CONTENT_SYSTEM;
    if (m->role != (system ? ROLE_SYSTEM : ROLE_DEVELOPER)) {
        char param[64];
        snprintf(param, sizeof param, "messages[%d].content", i);
        const char *kind = system ? "system" : "developer";
        return err_param(e, E_INPUT, param, "%s content may only stand in a %s message", kind,
                         kind);
    }
    buf_clear(&r->body);
    if (system)
        system_body(r, p->system);
    else
        developer_body(r, p->developer);
    status st = buf_status(&r->body);
    if (st < 0)
        return err_set(e, st, "%s",
                       st == E_LIMIT ? "the tool declarations are too long" : err_name(st));
    return put_text(r, (struct str){r->body.p, r->body.n}, e);
}

static status put_message(struct render *r, const struct harmony_message *m, int i, struct err *e)
{
    status st = OK;
    put_special(r, SP_START);
    TRY(put_author(r, m, i, e));
    if (m->recipient.p && !str_eq(m->recipient, "all"))
        TRY(put_piece(r, " to=", m->recipient, e));
    if (m->channel.p) {
        put_special(r, SP_CHANNEL);
        TRY(put_text(r, m->channel, e));
    }
    if (m->content_type.p)
        TRY(put_type(r, m->content_type, e));
    put_special(r, SP_MESSAGE);
    for (int k = 0; k < m->n_part; k++)
        TRY(put_part(r, m, i, &m->part[k], e));
    /* A recipient of "all" is not printed above, yet the message ends like a call. */
    put_special(r, m->role == ROLE_ASSISTANT && m->recipient.p ? SP_CALL : SP_END);
out:
    return st;
}

/* ---- conversations ---- */

static bool is_final(const struct harmony_message *m)
{
    return m->role == ROLE_ASSISTANT && str_eq(m->channel, "final");
}

/* One past the last index whose analysis is dropped. */
static int drop_until(const struct harmony_conversation *c, enum harmony_drop drop)
{
    int last_assistant = c->n_msg - 1, until = 0;
    switch (drop) {
    case DROP_LIBRARY:
        while (last_assistant >= 0 && c->msg[last_assistant].role != ROLE_ASSISTANT)
            last_assistant--;
        if (last_assistant < 0 || !is_final(&c->msg[last_assistant]))
            return 0;
        /* The first message on the final channel, whoever wrote it. */
        while (until < c->n_msg && !str_eq(c->msg[until].channel, "final"))
            until++;
        return until;
    case DROP_CLOSED_TURNS:
        for (int i = 0; i < c->n_msg; i++)
            if (is_final(&c->msg[i]))
                until = i;
        return until;
    case DROP_NOTHING:
        break;
    }
    return 0;
}

static bool declares_functions(const struct harmony_conversation *c)
{
    for (int i = 0; i < c->n_msg; i++)
        for (int k = 0; k < c->msg[i].n_part; k++) {
            const struct harmony_part *p = &c->msg[i].part[k];
            for (int t = 0; p->kind == CONTENT_DEVELOPER && t < p->developer->n_ns; t++) {
                const struct harmony_namespace *ns = &p->developer->ns[t];
                if (str_eq(ns->key.p ? ns->key : ns->name, "functions") && ns->n_tool > 0)
                    return true;
            }
        }
    return false;
}

status harmony_check_vocab(const struct vocab *v, struct err *e)
{
    static const struct {
        enum special which;
        const char *text;
    } need[] = {{SP_START, "<|start|>"},     {SP_END, "<|end|>"},       {SP_MESSAGE, "<|message|>"},
                {SP_CHANNEL, "<|channel|>"}, {SP_CONSTRAIN, constrain}, {SP_RETURN, "<|return|>"},
                {SP_CALL, "<|call|>"}};
    for (size_t i = 0; i < sizeof need / sizeof need[0]; i++)
        if (vocab_special(v, need[i].which) < 0)
            return err_set(e, E_INPUT,
                           "the tokenizer has no %s token, which the harmony format needs",
                           need[i].text);
    return OK;
}

status harmony_render(const struct vocab *v, const struct harmony_conversation *c,
                      const struct harmony_render_opts *o, struct ids *out, struct err *e)
{
    struct render r = {.v = v, .out = out, .function_tools = declares_functions(c)};
    const size_t n_before = out->n;
    status st = OK;
    buf_init(&r.body, max_body_bytes);
    TRY(harmony_check_vocab(v, e));
    int until = drop_until(c, o->drop);
    for (int i = 0; i < c->n_msg; i++)
        if (i >= until || !str_eq(c->msg[i].channel, "analysis"))
            TRY(put_message(&r, &c->msg[i], i, e));
    if (o->mode == FOR_TRAINING && c->n_msg > 0 && is_final(&c->msg[c->n_msg - 1]) && out->n)
        out->v[out->n - 1] = vocab_special(v, SP_RETURN);
    if (o->mode == FOR_COMPLETION) {
        put_special(&r, SP_START);
        TRY(put_text(&r, STR("assistant"), e));
    }
    if (out->st < 0)
        TRY(err_set(e, out->st, "%s",
                    out->st == E_LIMIT ? "the conversation has more tokens than allowed"
                                       : err_name(out->st)));
out:
    if (st < 0)
        out->n = n_before;
    buf_fini(&r.body);
    return st;
}
