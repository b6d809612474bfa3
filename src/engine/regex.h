/* Regular expressions to character automata. The dialect is a subset of ECMA-262 (what JSON Schema
 * prescribes), with its meaning:
 *
 *   literals, . (no line ends), [classes] with ranges and negation, (groups), (?:groups),
 *   (?<named>groups), |, * + ? {m} {m,} {m,n} (a following ? changes nothing), ^ and $ anywhere,
 *   \d \D \w \W \s \S, \t \n \r \f \v \0 \cX \xHH \uHHHH \u{H...}, \ before punctuation.
 *
 * Backreferences, lookaround, word boundaries, \p{..}, flags and possessive quantifiers are refused
 * by name. No backtracking: cost is the size of the automaton, which is bounded.
 */
#ifndef ENGINE_REGEX_H
#define ENGINE_REGEX_H

#include "engine/chardfa.h"

/* `whole`: the match must span the string (as if between ^(?: and )$); else it may lie anywhere in
 * it. E_INPUT for bad or unsupported syntax, E_LIMIT for one too large. The result is trimmed. */
MUST_USE status regex_compile(struct gwork *w, const char *s, size_t n, bool whole,
                              struct chardfa *out);

#endif
