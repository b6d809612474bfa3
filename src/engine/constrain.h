/* What a request's tokens are held to, as a client says it, and the turns made from that.
 *
 * One per model, shared by its engines and by threads: the compiled grammars (bounded) and what
 * masks are computed from. That is built when the first request brings a grammar; legal headers
 * alone need next to nothing. Compiling happens on the thread that submits, under the limits of
 * schema.h, and never in the engine's loop.
 */
#ifndef ENGINE_CONSTRAIN_H
#define ENGINE_CONSTRAIN_H

#include "engine/turn.h"

enum {
    CONSTRAIN_MAX_TOOLS = 512,
    CONSTRAIN_CACHE_BYTES = 64 << 20 /* of compiled grammars and their texts */
};

struct constrain_tool {
    struct str recipient; /* "functions.f", "browser.search", "python" */
    struct str schema; /* of the arguments; p NULL: any JSON object, of a built-in tool any text */
    bool builtin;
    bool strict; /* a schema outside the subset is an error; otherwise it is any JSON object then */
};

enum tool_choice { TOOLS_AUTO, TOOLS_NONE, TOOLS_REQUIRED };
enum answer_format { ANSWER_TEXT, ANSWER_OBJECT, ANSWER_SCHEMA, ANSWER_REGEX, ANSWER_CHOICE };

struct constrain_params {
    const struct constrain_tool *tool; /* [n_tool] */
    int n_tool;
    enum tool_choice choice;
    const struct str *allowed; /* [n_allowed] recipients that may be called; none: all of them */
    int n_allowed;
    enum answer_format format;
    struct str format_text; /* schema, pattern, or JSON list of strings */
    bool free_headers, no_analysis;
};

struct constrain;

/* Never holds a turn back for lack of a vocabulary: see constrain_turn. `v` may be NULL. */
MUST_USE status constrain_new(const struct vocab *v, int n_id, struct constrain **c);
void constrain_free(struct constrain *c); /* after every turn made from it; NULL allowed */

/* The turn that follows the prompt ids[n], or NULL when nothing is to be held: free headers without
 * grammars, or a vocabulary that can't write harmony and parameters that ask for nothing. E_INPUT
 * naming the parameter, or the schema's keyword and its place; E_LIMIT for what is too large. */
MUST_USE status constrain_turn(struct constrain *c, const struct constrain_params *p,
                               const int32_t *ids, size_t n, struct turn **t, struct err *e);

#endif
