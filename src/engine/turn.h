/* One assistant turn as an automaton over tokens: what the model may emit after
 * "<|start|>assistant", from the first header to the token that ends the turn.
 *
 *     turn    = header body { <|end|> <|start|> "assistant" header body } ( <|return|> | <|call|> )
 *     header  = <|channel|> "analysis" <|message|>                          then free text, <|end|>
 *             | <|channel|> "commentary" <|message|>  a preamble:           then free text, <|end|>
 *             | <|channel|> "final" <|message|>       the answer's grammar, or free, <|return|>
 *             | " to=" tool <|channel|> C [type] <|message|>                the tool's arguments,
 *             | <|channel|> C " to=" tool [type] <|message|>                then <|call|>
 *
 * C is "commentary" for functions and "analysis" or "commentary" for built-in tools; the type is
 * " json", "<|constrain|>json" with or without a blank before it, and for built-in tools " code".
 * Header text is only accepted in the tokens that encoding its pieces gives (what the model was
 * trained on, and what rendering the finished message gives again, so that prefixes stay equal).
 * Bodies take ordinary tokens, however they are split.
 *
 * With `free_headers` headers are only watched: whatever comes is allowed, and a body is held to a
 * grammar when its header was one of the above.
 *
 * A turn allocates when made, never after. Not thread-safe; different turns may share a masker.
 */
#ifndef ENGINE_TURN_H
#define ENGINE_TURN_H

#include "engine/mask.h"
#include "text/harmony.h"

struct turn_tool {
    struct str recipient; /* "functions.f", "browser.search", "python" */
    struct grammar *args; /* of the body; NULL: free text. Borrowed; turns take references */
    bool builtin;
};

struct turn_spec {
    const struct turn_tool *tool; /* [n_tool] those that may be called: for tool_choice "none" give
                                     none, for a named or allowed one just those */
    int n_tool;
    struct grammar *final; /* of the answer; NULL: free text */
    bool must_call;        /* tool_choice "required" or a named function: no final message */
    bool no_analysis;      /* effort none: the prompt holds a closed analysis already */
    bool free_headers;
};

struct turn;

/* E_INPUT for a recipient that can't be written in a header, for must_call without tools, or for a
 * vocabulary without control tokens; E_NOMEM. */
MUST_USE status turn_new(struct masker *m, const struct turn_spec *spec, struct turn **t,
                         struct err *e);
/* Goes to where the prompt stands: what follows its last <|start|>assistant is read as if the model
 * had written it, whatever may begin (no_analysis, must_call); behind a finished message the model
 * opens the next one itself. A prompt that ends in anybody else's message, or has no <|start|> at
 * all, is taken to end with <|start|>assistant. E_INPUT when the message begun can't go on: its
 * header is not legal, or its text not in the grammar. To be called before anything is accepted. */
MUST_USE status turn_resume(struct turn *t, const int32_t *ids, size_t n, struct err *e);
/* Another turn at the same place. */
MUST_USE status turn_clone(const struct turn *t, struct turn **copy);
void turn_free(struct turn *t); /* NULL allowed */

/* Whether some body is held to a grammar. */
bool turn_has_grammar(const struct turn *t);
/* Whether the next token is one of a body that is held to a grammar. */
bool turn_in_grammar(const struct turn *t);
/* The mask without filling in words: bits already there (masker_ordinary), and the end token or -1.
 * NULL: everything is allowed (*all), or turn_mask has to compute it. */
const uint32_t *turn_plain_mask(const struct turn *t, bool *all, int32_t *end);
/* Fills bits [masker_words]. True when the mask is masker_ordinary and one end token (*end), so
 * that the caller may skip applying it word by word; *end is -1 when no end token is allowed. */
bool turn_mask(struct turn *t, uint32_t *bits, int32_t *end);
bool turn_allows(struct turn *t, int32_t id);
/* Moves past a token; E_INPUT, without moving, for one that isn't allowed. */
MUST_USE status turn_accept(struct turn *t, int32_t id);
/* The one token that is allowed, when a header leaves no choice; else -1. */
int32_t turn_forced(const struct turn *t);

/* From the next header on no analysis, and without tools only the final message: how a reasoning
 * budget ends it. The caller closes the open analysis by feeding turn_end_id. */
void turn_stop_analysis(struct turn *t);
/* The token that ends the body being written, whether allowed by now or not; -1 outside bodies. */
int32_t turn_end_id(const struct turn *t);

enum turn_place {
    TURN_HEADER,
    TURN_ANALYSIS,
    TURN_PREAMBLE,
    TURN_FINAL,
    TURN_CALL,
    TURN_OTHER,
    TURN_DONE
};
/* TURN_OTHER: a body whose header was none of ours (free_headers only). *tool: index in a call. */
enum turn_place turn_place(const struct turn *t, int *tool);

#endif
