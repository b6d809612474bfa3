/* All legal headers together are a trie over token ids, built once per turn and walked as tokens
 * come. Each node knows which kinds of message lie below it, so that forbidding a kind (no analysis
 * any more) needs no second trie.
 */
#include "engine/turn.h"

#include "base/mem.h"

#include <string.h>

enum { KIND_ANALYSIS, KIND_PREAMBLE, KIND_FINAL, KIND_TOOL }; /* KIND_TOOL + i: tool i */
enum { KIND_NONE = -1 };
enum { MAX_NODES = 1 << 18, MAX_RECIPIENT = 512, N_ROLE_IDS = 16 };

struct hnode {
    int32_t token;
    uint32_t child, sibling; /* 0: none */
    int32_t kind;            /* of the message whose header ends here, else KIND_NONE */
    uint8_t below;           /* bit per kind below (tools share the last) */
};

/* The fixed part of a turn, shared by its clones. */
struct headers {
    int refs;
    struct hnode *node; /* [n]; 0 is the root */
    uint32_t n, cap;
    int32_t role[N_ROLE_IDS]; /* "assistant" */
    int n_role;
    struct grammar **args; /* [n_tool], NULL: free */
    int n_tool;
    struct grammar *final;
    bool free_headers;
    int32_t start, end, message, ret, call;
};

enum phase { PH_HEADER, PH_BODY, PH_BETWEEN, PH_ROLE, PH_DONE };

struct turn {
    struct masker *m;
    struct headers *h;
    struct matcher *x; /* NULL when nothing is constrained */
    enum phase phase;
    int64_t node;  /* PH_HEADER; -1: none of ours */
    int i_role;    /* PH_ROLE: ids of the role seen */
    int kind;      /* PH_BODY; KIND_NONE: none of ours */
    uint8_t allow; /* kinds that may begin */
};

static uint8_t kind_bit(int kind)
{
    return (uint8_t)(1u << (kind < KIND_TOOL ? kind : KIND_TOOL));
}

/* ---- the trie ---- */

static status put_token(struct headers *h, uint32_t *at, int32_t token, uint8_t bit)
{
    uint32_t *link = &h->node[*at].child;
    while (*link && h->node[*link].token != token)
        link = &h->node[*link].sibling;
    if (!*link) {
        if (h->n >= MAX_NODES)
            return E_LIMIT;
        uint32_t id = h->n;
        if (h->n == h->cap) {
            size_t slot = (size_t)((char *)link - (char *)h->node);
            struct hnode *p = mem_realloc_array(h->node, (size_t)h->cap * 2, sizeof *p);
            if (!p)
                return E_NOMEM;
            h->node = p;
            h->cap *= 2;
            link = (uint32_t *)(void *)((char *)p + slot);
        }
        *link = id;
        h->node[h->n++] = (struct hnode){.token = token, .kind = KIND_NONE};
    }
    *at = *link;
    h->node[*at].below |= bit;
    return OK;
}

/* One header: its parts in order. */
struct part {
    int32_t special; /* -1: text */
    struct str text;
};

static status put_header(struct headers *h, const struct vocab *v, const struct part *p, int n,
                         int kind, struct ids *ids, struct err *e)
{
    status st = OK;
    uint32_t at = 0;
    h->node[0].below |= kind_bit(kind);
    for (int i = 0; i < n; i++) {
        if (p[i].special >= 0) {
            TRY(put_token(h, &at, p[i].special, kind_bit(kind)));
            continue;
        }
        ids->n = 0;
        TRY(o200k_encode(v, p[i].text.p, p[i].text.n, SPECIAL_TEXT, ids, e));
        for (size_t k = 0; k < ids->n; k++)
            TRY(put_token(h, &at, ids->v[k], kind_bit(kind)));
    }
    h->node[at].kind = kind;
out:
    return st;
}

#define TEXT(s) ((struct part){-1, STR(s)})
#define CONTROL(id) ((struct part){(id), {0}})

/* Both places of the recipient, every content type, one channel. */
static status put_call(struct headers *h, const struct vocab *v, struct str to, bool builtin,
                       struct str channel, int kind, struct ids *ids, struct err *e)
{
    status st = OK;
    int32_t chan = vocab_special(v, SP_CHANNEL), constrain = vocab_special(v, SP_CONSTRAIN);
    const struct {
        struct part part[3];
        int n;
        bool builtin_only;
    } type[] = {{{{0}}, 0, false},
                {{TEXT(" json")}, 1, false},
                {{TEXT(" "), CONTROL(constrain), TEXT("json")}, 3, false},
                {{CONTROL(constrain), TEXT("json")}, 2, false},
                {{TEXT(" code")}, 1, true}};
    for (size_t i = 0; i < sizeof type / sizeof type[0]; i++)
        for (int after = 0; after < 2; after++) {
            struct part p[8];
            int n = 0;
            if (type[i].builtin_only && !builtin)
                continue;
            if (!after)
                p[n++] = (struct part){-1, to};
            p[n++] = CONTROL(chan);
            p[n++] = (struct part){-1, channel};
            if (after)
                p[n++] = (struct part){-1, to};
            for (int k = 0; k < type[i].n; k++)
                p[n++] = type[i].part[k];
            p[n++] = CONTROL(h->message);
            TRY(put_header(h, v, p, n, kind, ids, e));
        }
out:
    return st;
}

static status check_recipient(struct str r, struct err *e)
{
    bool ok = r.p && r.n > 0 && r.n <= MAX_RECIPIENT;
    for (size_t i = 0; i < r.n && ok; i++)
        ok = (unsigned char)r.p[i] > ' ' && r.p[i] != '<' && r.p[i] != 0x7f;
    return ok ? OK
              : err_param(e, E_INPUT, "tools",
                          "a tool name must have 1 to %d bytes without blanks or \"<\"",
                          MAX_RECIPIENT);
}

static status put_headers(struct headers *h, const struct vocab *v, const struct turn_spec *s,
                          struct err *e)
{
    static const struct str channel[] = {STR_INIT("analysis"), STR_INIT("commentary"),
                                         STR_INIT("final")};
    status st = OK;
    struct ids ids;
    struct buf to;
    int32_t chan = vocab_special(v, SP_CHANNEL);
    ids_init(&ids, 4 * MAX_RECIPIENT);
    buf_init(&to, 2 * MAX_RECIPIENT);
    TRY(o200k_encode(v, "assistant", 9, SPECIAL_TEXT, &ids, e));
    if (ids.n > N_ROLE_IDS) {
        st = err_set(e, E_INPUT, "the vocabulary spells \"assistant\" in over %d tokens",
                     N_ROLE_IDS);
        goto out;
    }
    h->n_role = (int)ids.n;
    memcpy(h->role, ids.v, ids.n * sizeof *ids.v);
    for (int k = KIND_ANALYSIS; k <= KIND_FINAL; k++) {
        const struct part p[] = {CONTROL(chan), {-1, channel[k]}, CONTROL(h->message)};
        TRY(put_header(h, v, p, 3, k, &ids, e));
    }
    for (int i = 0; i < s->n_tool; i++) {
        TRY(check_recipient(s->tool[i].recipient, e));
        buf_clear(&to);
        buf_puts(&to, " to=");
        buf_put(&to, s->tool[i].recipient.p, s->tool[i].recipient.n);
        TRY(buf_status(&to));
        struct str text = {to.p, to.n};
        bool builtin = s->tool[i].builtin;
        TRY(put_call(h, v, text, builtin, channel[1], KIND_TOOL + i, &ids, e));
        if (builtin)
            TRY(put_call(h, v, text, builtin, channel[0], KIND_TOOL + i, &ids, e));
    }
out:
    ids_fini(&ids);
    buf_fini(&to);
    return st;
}

static void headers_unref(struct headers *h)
{
    if (!h || __atomic_sub_fetch(&h->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (int i = 0; h->args && i < h->n_tool; i++)
        grammar_unref(h->args[i]);
    grammar_unref(h->final);
    mem_free(h->args);
    mem_free(h->node);
    mem_free(h);
}

static status headers_new(const struct vocab *v, const struct turn_spec *s, struct headers **out,
                          struct err *e)
{
    status st = OK;
    struct headers *h = mem_calloc(1, sizeof *h);
    if (!h)
        return err_set(e, E_NOMEM, "out of memory for a turn");
    h->refs = 1;
    TRY(harmony_check_vocab(v, e));
    h->start = vocab_special(v, SP_START);
    h->end = vocab_special(v, SP_END);
    h->message = vocab_special(v, SP_MESSAGE);
    h->ret = vocab_special(v, SP_RETURN);
    h->call = vocab_special(v, SP_CALL);
    h->free_headers = s->free_headers;
    h->cap = 64;
    h->node = mem_array(h->cap, sizeof *h->node);
    h->args = mem_calloc((size_t)s->n_tool + 1, sizeof *h->args);
    if (!h->node || !h->args) {
        st = err_set(e, E_NOMEM, "out of memory for a turn");
        goto out;
    }
    h->node[h->n++] = (struct hnode){.token = -1, .kind = KIND_NONE};
    h->n_tool = s->n_tool;
    for (int i = 0; i < s->n_tool; i++)
        h->args[i] = s->tool[i].args ? grammar_ref(s->tool[i].args) : NULL;
    h->final = s->final ? grammar_ref(s->final) : NULL;
    st = put_headers(h, v, s, e);
    if (st == E_LIMIT)
        err_param(e, st, "tools", "too many tools");
    else if (st == E_NOMEM)
        err_set(e, st, "out of memory for a turn");
out:
    if (st < 0) {
        headers_unref(h);
        h = NULL;
    }
    *out = h;
    return st;
}

/* ---- turns ---- */

status turn_new(struct masker *m, const struct turn_spec *s, struct turn **out, struct err *e)
{
    status st = OK;
    *out = NULL;
    if (s->must_call && !s->n_tool)
        return err_param(e, E_INPUT, "tool_choice", "a call is required, but there is no tool");
    struct turn *t = mem_calloc(1, sizeof *t);
    if (!t)
        return err_set(e, E_NOMEM, "out of memory for a turn");
    t->m = m;
    TRY(headers_new(masker_vocab(m), s, &t->h, e));
    struct grammar *g = t->h->final;
    for (int i = 0; i < s->n_tool && !g; i++)
        g = t->h->args[i];
    if (g && matcher_new(m, g, &t->x) < 0) {
        st = err_set(e, E_NOMEM, "out of memory for a turn");
        goto out;
    }
    t->allow = kind_bit(KIND_PREAMBLE) | kind_bit(KIND_TOOL);
    if (!s->no_analysis)
        t->allow |= kind_bit(KIND_ANALYSIS);
    if (!s->must_call)
        t->allow |= kind_bit(KIND_FINAL);
    *out = t;
    t = NULL;
out:
    turn_free(t);
    return st;
}

status turn_resume(struct turn *t, const int32_t *ids, size_t n, struct err *e)
{
    const struct headers *h = t->h;
    size_t at = n;
    while (at > 0 && ids[at - 1] != h->start)
        at--;
    if (at == 0)
        return OK;
    int32_t last = ids[n - 1];
    if (last == h->end || last == h->ret || last == h->call) {
        t->phase = PH_BETWEEN;
        return OK;
    }
    int n_role = 0;
    while (n_role < h->n_role && at + (size_t)n_role < n &&
           ids[at + (size_t)n_role] == h->role[n_role])
        n_role++;
    if (n_role < h->n_role) {
        if (at + (size_t)n_role == n) { /* within the role */
            t->phase = PH_ROLE;
            t->i_role = n_role;
        }
        return OK;
    }
    uint8_t allow = t->allow;
    t->allow = UINT8_MAX;
    status st = OK;
    for (size_t i = at + (size_t)n_role; i < n && st == OK; i++)
        st = turn_accept(t, ids[i]);
    t->allow = allow;
    if (t->phase == PH_HEADER && t->node >= 0 && !(h->node[t->node].below & allow))
        st = E_INPUT;
    return st == OK
               ? OK
               : err_param(e, E_INPUT, "prompt",
                           "the prompt ends within a message of the assistant that can't go "
                           "on: its header is not a legal one, or its text not in the grammar");
}

status turn_clone(const struct turn *t, struct turn **out)
{
    *out = NULL;
    struct turn *c = mem_alloc(sizeof *c);
    if (!c)
        return E_NOMEM;
    *c = *t;
    c->x = NULL;
    __atomic_add_fetch(&c->h->refs, 1, __ATOMIC_RELAXED);
    if (t->x) {
        struct grammar *any = c->h->final;
        for (int i = 0; i < c->h->n_tool && !any; i++)
            any = c->h->args[i];
        if (matcher_new(t->m, any, &c->x) < 0) {
            turn_free(c);
            return E_NOMEM;
        }
        matcher_copy(c->x, t->x);
    }
    *out = c;
    return OK;
}

void turn_free(struct turn *t)
{
    if (!t)
        return;
    matcher_free(t->x);
    headers_unref(t->h);
    mem_free(t);
}

static struct grammar *body_grammar(const struct turn *t)
{
    if (t->kind == KIND_FINAL)
        return t->h->final;
    return t->kind >= KIND_TOOL ? t->h->args[t->kind - KIND_TOOL] : NULL;
}

int32_t turn_end_id(const struct turn *t)
{
    if (t->phase != PH_BODY || t->kind == KIND_NONE)
        return -1;
    return t->kind == KIND_FINAL ? t->h->ret : t->kind >= KIND_TOOL ? t->h->call : t->h->end;
}

/* Where everything is allowed: headers that are only watched, and bodies of unknown headers. */
static bool anything(const struct turn *t)
{
    if (!t->h->free_headers || t->phase == PH_DONE)
        return false;
    return t->phase != PH_BODY || !body_grammar(t);
}

static void set_bit(uint32_t *bits, size_t words, int32_t id)
{
    if (id >= 0 && (size_t)id / 32 < words)
        bits[id / 32] |= (uint32_t)1 << (id % 32);
}

bool turn_has_grammar(const struct turn *t)
{
    return t->x != NULL;
}

bool turn_in_grammar(const struct turn *t)
{
    return t->phase == PH_BODY && body_grammar(t);
}

const uint32_t *turn_plain_mask(const struct turn *t, bool *all, int32_t *end)
{
    *all = anything(t) || t->phase == PH_DONE;
    *end = -1;
    if (*all || t->phase != PH_BODY || body_grammar(t))
        return NULL;
    *end = turn_end_id(t);
    return masker_ordinary(t->m);
}

bool turn_mask(struct turn *t, uint32_t *bits, int32_t *end)
{
    const struct headers *h = t->h;
    size_t words = masker_words(t->m);
    *end = -1;
    if (anything(t)) {
        memset(bits, 0xff, words * sizeof *bits);
        return false;
    }
    if (t->phase == PH_BODY) {
        struct grammar *g = body_grammar(t);
        *end = !g || matcher_can_end(t->x) ? turn_end_id(t) : -1;
        if (g)
            matcher_mask(t->x, bits);
        else
            memcpy(bits, masker_ordinary(t->m), words * sizeof *bits);
        set_bit(bits, words, *end);
        return !g;
    }
    memset(bits, 0, words * sizeof *bits);
    if (t->phase == PH_BETWEEN)
        set_bit(bits, words, h->start);
    else if (t->phase == PH_ROLE)
        set_bit(bits, words, h->role[t->i_role]);
    else if (t->phase == PH_HEADER)
        for (uint32_t c = h->node[t->node].child; c; c = h->node[c].sibling)
            if (h->node[c].below & t->allow)
                set_bit(bits, words, h->node[c].token);
    return false;
}

static uint32_t header_child(const struct turn *t, int32_t id, uint8_t allow)
{
    if (t->node < 0)
        return 0;
    uint32_t c = t->h->node[t->node].child;
    while (c && (t->h->node[c].token != id || !(t->h->node[c].below & allow)))
        c = t->h->node[c].sibling;
    return c;
}

bool turn_allows(struct turn *t, int32_t id)
{
    const struct headers *h = t->h;
    if (id < 0 || (size_t)id / 32 >= masker_words(t->m))
        return false;
    if (anything(t))
        return true;
    bool ordinary = masker_ordinary(t->m)[id / 32] >> (id % 32) & 1;
    switch (t->phase) {
    case PH_BODY:
        if (body_grammar(t))
            return id == turn_end_id(t) ? matcher_can_end(t->x) : matcher_allows(t->x, id);
        return ordinary || id == turn_end_id(t);
    case PH_BETWEEN:
        return id == h->start;
    case PH_ROLE:
        return id == h->role[t->i_role];
    case PH_HEADER:
        return header_child(t, id, t->allow) != 0;
    case PH_DONE:
        break;
    }
    return false;
}

static void enter_body(struct turn *t, int kind)
{
    t->phase = PH_BODY;
    t->kind = kind;
    struct grammar *g = body_grammar(t);
    if (g)
        matcher_restart(t->x, g);
}

/* Moves past an allowed token where headers are only watched. */
static void watch(struct turn *t, int32_t id)
{
    const struct headers *h = t->h;
    if (id == h->ret || id == h->call || id == vocab_special(masker_vocab(t->m), SP_ENDOFTEXT)) {
        t->phase = PH_DONE;
    } else if (id == h->start) {
        t->phase = PH_ROLE;
        t->i_role = 0;
    } else if (t->phase == PH_BODY) {
        if (id == h->end)
            t->phase = PH_BETWEEN;
    } else if (t->phase == PH_ROLE && id == h->role[t->i_role]) {
        if (++t->i_role == h->n_role) {
            t->phase = PH_HEADER;
            t->node = 0;
        }
    } else if (id == h->end) {
        t->phase = PH_BETWEEN;
    } else if (id == h->message) {
        uint32_t c = t->phase == PH_HEADER ? header_child(t, id, UINT8_MAX) : 0;
        enter_body(t, c ? h->node[c].kind : KIND_NONE);
    } else {
        uint32_t c = t->phase == PH_HEADER ? header_child(t, id, UINT8_MAX) : 0;
        t->phase = PH_HEADER;
        t->node = c ? (int64_t)c : -1;
    }
}

status turn_accept(struct turn *t, int32_t id)
{
    const struct headers *h = t->h;
    struct grammar *g = t->phase == PH_BODY ? body_grammar(t) : NULL;
    if (g && id != turn_end_id(t))
        return matcher_accept(t->x, id);
    if (!turn_allows(t, id))
        return E_INPUT;
    if (anything(t)) {
        watch(t, id);
        return OK;
    }
    switch (t->phase) {
    case PH_BODY:
        if (id == turn_end_id(t))
            t->phase = id == h->end ? PH_BETWEEN : PH_DONE;
        break;
    case PH_BETWEEN:
        t->phase = PH_ROLE;
        t->i_role = 0;
        break;
    case PH_ROLE:
        if (++t->i_role == h->n_role) {
            t->phase = PH_HEADER;
            t->node = 0;
        }
        break;
    case PH_HEADER:
        t->node = header_child(t, id, t->allow);
        if (h->node[t->node].kind != KIND_NONE)
            enter_body(t, h->node[t->node].kind);
        break;
    case PH_DONE:
        break;
    }
    return OK;
}

int32_t turn_forced(const struct turn *t)
{
    const struct headers *h = t->h;
    int32_t only = -1;
    if (h->free_headers)
        return -1;
    if (t->phase == PH_BETWEEN)
        return h->start;
    if (t->phase == PH_ROLE)
        return h->role[t->i_role];
    if (t->phase != PH_HEADER)
        return -1;
    for (uint32_t c = h->node[t->node].child; c; c = h->node[c].sibling) {
        if (!(h->node[c].below & t->allow))
            continue;
        if (only >= 0)
            return -1;
        only = h->node[c].token;
    }
    return only;
}

void turn_stop_analysis(struct turn *t)
{
    t->allow &= (uint8_t)~kind_bit(KIND_ANALYSIS);
    if (t->h->n_tool == 0)
        t->allow &= (uint8_t)~kind_bit(KIND_PREAMBLE);
}

enum turn_place turn_place(const struct turn *t, int *tool)
{
    *tool = -1;
    if (t->phase == PH_DONE)
        return TURN_DONE;
    if (t->phase != PH_BODY)
        return TURN_HEADER;
    if (t->kind >= KIND_TOOL) {
        *tool = t->kind - KIND_TOOL;
        return TURN_CALL;
    }
    return t->kind == KIND_NONE       ? TURN_OTHER
           : t->kind == KIND_ANALYSIS ? TURN_ANALYSIS
           : t->kind == KIND_PREAMBLE ? TURN_PREAMBLE
                                      : TURN_FINAL;
}
