/* The scripted backend: everything of the engine but the mathematics.
 *
 * A script is JSON Lines, each line {"tokens":[...]} or {"text":"..."} (control tokens written
 * out), optionally "delay_ms", a pause before each token, and "first_delay_ms", another one before
 * the first: what the model emits after <|start|>assistant. Choices take lines in order of
 * admission, and the file repeats from the top. The backend's steps compute nothing; the engine
 * then takes a sequence's next token from its line where it would have sampled. So scheduling,
 * pages, the prefix cache, stop rules, the reasoning budget and delivery are the real ones.
 */
#ifndef ENGINE_SCRIPTED_H
#define ENGINE_SCRIPTED_H

#include "model/backend.h"
#include "text/vocab.h"

#include <stdint.h>

struct script_line {
    int32_t *tok; /* [n] */
    int n;
    uint64_t delay_ns, first_delay_ns;
};
struct script {
    struct script_line *line; /* [n] */
    int n;
};

/* E_INPUT with the line's number for what isn't such a line; `text` lines need a vocabulary. */
MUST_USE status script_open(struct script *s, const char *text, size_t n, const struct vocab *v,
                            int n_vocab, struct err *e);
void script_close(struct script *s);

MUST_USE status backend_scripted_open(const struct weights *, struct backend **, struct err *);

#endif
