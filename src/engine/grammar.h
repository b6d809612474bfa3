/* Grammars: what schemas, patterns and choices become, and what masks are computed from.
 *
 * A grammar is a set of states with three kinds of arcs: a byte range to a state; nothing to a
 * state; a call (start, ret), which reads what begins at `start`, up to a state marked as an end,
 * and goes on at `ret`. JSON needs the calls for nesting, and they are what lets all grammars share
 * the masks of common parts: the inside of a string is the same states everywhere.
 *
 * Those common parts are the prelude, itself a grammar: its states have the numbers 0..base-1 in
 * every grammar, which then adds its own. A grammar is immutable, counted, shared between threads.
 *
 * No dead ends: building keeps only arcs to states from which an end can be reached within
 * GRAMMAR_DEPTH nested calls, and a reader that enters a call only if it can be finished within
 * that depth (`height`, the calls still needed inside) always finds a next byte or an end.
 */
#ifndef ENGINE_GRAMMAR_H
#define ENGINE_GRAMMAR_H

#include "engine/chardfa.h"

#include <stddef.h>

enum {
    GRAMMAR_DEPTH = 120,     /* nested calls while reading */
    GRAMMAR_HEIGHT = 80,     /* nested calls that a grammar may make necessary */
    GRAMMAR_STATES = 600000, /* own states of one grammar */
    PRELUDE_TAILS = 512,     /* strings up to so many characters share states */
    PRELUDE_BLOCK = 256,     /* longer ones are counted in blocks */
    GRAMMAR_DIGITS = 18,     /* of an integer part or a fraction */
    GRAMMAR_INDENT = 40,     /* blanks after a line end */
    GRAMMAR_TABS = 10        /* or tabs */
};

struct gstate {
    uint32_t byte_at, eps_at, call_at; /* first arc; the next state's first is the end */
    uint8_t height;                    /* nested calls needed from here to the end */
    bool is_end;
};
struct gbyte {
    uint32_t to;
    uint8_t lo, hi;
};
struct gcall {
    uint32_t start, ret;
};

/* Places inside a plain JSON string, as runs of blocks of GSPAN_STATES states: the first of a block
 * is "between two characters", the others are within one, in the same order in every block. In
 * block i, `min + i * min_step` to `max + i` characters may still come (UINT32_MAX: no limit; as
 * `min`: no closing quote follows). They let masks be computed by counting characters. */
enum { GSPAN_STATES = 20 };
struct gspan {
    uint32_t first, n, min, min_step, max;
};

struct grammar {
    int refs;         /* atomic */
    uint64_t id;      /* unique in the process; the prelude's is 0 */
    uint32_t base, n; /* own states are base .. base + n - 1 */
    uint32_t start;
    uint8_t max_height;
    const struct grammar *prelude; /* NULL in the prelude itself */
    struct gstate *state;          /* [n + 1] own */
    struct gbyte *byte;
    uint32_t *eps;
    struct gcall *call;
    struct gspan *span; /* [n_span] */
    uint32_t n_span;
    size_t bytes; /* memory held */
};

static inline const struct gstate *grammar_state(const struct grammar *g, uint32_t id,
                                                 const struct grammar **owner)
{
    *owner = id < g->base ? g->prelude : g;
    return &(*owner)->state[id - (*owner)->base];
}

struct grammar *grammar_ref(struct grammar *g);
void grammar_unref(struct grammar *g); /* NULL allowed */

/* The common parts; each is a state that begins a value ending in an end state. */
struct prelude {
    struct grammar *g;
    uint32_t end; /* an end state */
    uint32_t string, integer, number, boolean, null, any, object, array;
    uint32_t space;                   /* white space between tokens, at least one byte */
    uint32_t tail[PRELUDE_TAILS + 1]; /* after the opening quote: at most i characters, then the
                                         closing one; [PRELUDE_TAILS]: any number */
    uint32_t block;                   /* exactly PRELUDE_BLOCK characters, no quote */
};
MUST_USE status prelude_new(struct prelude **p, struct err *e);
void prelude_free(struct prelude *p); /* after every grammar built on it */

/* ---- building ---- */

struct garc;

struct gbuild {
    struct gwork *w;
    const struct prelude *p; /* NULL while the prelude is built */
    uint32_t base, n;        /* own states so far */
    uint32_t *first;         /* [n] first arc + 1 */
    uint8_t *is_end;         /* [n] */
    struct garc *arc;
    size_t cap_first, cap_end, n_arc, cap_arc;
    struct gspan *span;
    size_t n_span, cap_span;
    uint32_t *cont[3]; /* [n] states "1..3 UTF-8 continuation bytes, then this", 0: none yet */
    size_t cap_cont[3];
};

void gbuild_init(struct gbuild *b, struct gwork *w, const struct prelude *p);
MUST_USE status gbuild_state(struct gbuild *b, uint32_t *id);
MUST_USE status gbuild_byte(struct gbuild *b, uint32_t from, uint8_t lo, uint8_t hi, uint32_t to);
MUST_USE status gbuild_eps(struct gbuild *b, uint32_t from, uint32_t to);
MUST_USE status gbuild_call(struct gbuild *b, uint32_t from, uint32_t start, uint32_t ret);
MUST_USE status gbuild_end(struct gbuild *b, uint32_t state);

/* The n bytes from `from` to `to` (n >= 1). */
MUST_USE status gbuild_text(struct gbuild *b, uint32_t from, const char *s, size_t n, uint32_t to);

/* Any one of the n byte strings (at least 1 byte each; sorted here), as a trie. */
MUST_USE status gbuild_words(struct gbuild *b, uint32_t from, struct gintern_item *word, size_t n,
                             uint32_t to);

/* The automaton's strings as raw UTF-8, or as the inside of a JSON string with its closing quote:
 * characters that need an escape in its shortest form, all others as they are. *start is the first
 * state; strings end at `to`. */
MUST_USE status gbuild_dfa(struct gbuild *b, const struct chardfa *d, bool json, uint32_t to,
                           uint32_t *start);

/* A JSON string of min..max characters (UINT32_MAX: no limit), quotes included, any escapes. */
MUST_USE status gbuild_string(struct gbuild *b, uint32_t from, uint32_t min, uint32_t max);

/* Optional white space, or one optional blank. */
MUST_USE status gbuild_space(struct gbuild *b, uint32_t from, uint32_t to);
MUST_USE status gbuild_blank(struct gbuild *b, uint32_t from, uint32_t to);

/* E_INPUT when nothing can be read from `start` at all; E_LIMIT when only deeper than allowed. */
MUST_USE status gbuild_finish(struct gbuild *b, uint32_t start, struct grammar **g);

#endif
