/* A small vocabulary for tests: the first ranks of o200k and six control tokens, as a
 * tokenizer.json. */
#ifndef SMALL_VOCAB_H
#define SMALL_VOCAB_H

#include "base/buf.h"
#include "text/utf8.h"
#include "text/vocab.h"

#include <string.h>

/* Appends a JSON string that spells the bytes in the byte-level alphabet. */
static void small_spell(struct buf *b, const uint8_t *s, size_t n)
{
    buf_putc(b, '"');
    for (size_t i = 0; i < n; i++) {
        uint32_t cp = s[i];
        if (cp < 33)
            cp += 256;
        else if (cp >= 127 && cp < 161)
            cp += 256 - 94;
        else if (cp == 173)
            cp = 256 + 67;
        char c[4];
        if (cp == '"' || cp == '\\')
            buf_putc(b, '\\');
        buf_put(b, c, (size_t)utf8_put(cp, c));
    }
    buf_putc(b, '"');
}

static void small_json(struct buf *b, int n_rank)
{
    static const char *const specials[] = {"<|start|>",   "<|end|>",    "<|message|>",
                                           "<|channel|>", "<|return|>", "<|call|>"};
    buf_puts(b, "{\"added_tokens\":[");
    for (int i = 0; i < 6; i++)
        buf_printf(b, "%s{\"id\":%d,\"content\":\"%s\"}", i ? "," : "", n_rank + i, specials[i]);
    buf_puts(b, "],\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int id = 0; id < n_rank; id++) {
        size_t n;
        const uint8_t *s = vocab_bytes(vocab_o200k(), id, &n);
        if (id)
            buf_putc(b, ',');
        small_spell(b, s, n);
        buf_printf(b, ":%d", id);
    }
    buf_puts(b, "},\"merges\":[");
    const char *sep = "";
    for (int id = 0; id < n_rank; id++) {
        size_t n;
        const uint8_t *s = vocab_bytes(vocab_o200k(), id, &n);
        for (size_t i = 1; i < n; i++) {
            int left = vocab_find(vocab_o200k(), s, i);
            int right = vocab_find(vocab_o200k(), s + i, n - i);
            if (left < 0 || left >= n_rank || right < 0 || right >= n_rank)
                continue;
            buf_puts(b, sep);
            sep = ",";
            buf_putc(b, '[');
            small_spell(b, s, i);
            buf_putc(b, ',');
            small_spell(b, s + i, n - i);
            buf_putc(b, ']');
        }
    }
    buf_puts(b, "]}}");
}

static inline struct vocab *small_vocab(int n_rank)
{
    struct buf b;
    struct vocab *v = NULL;
    struct err e = {0};
    buf_init(&b, 1 << 24);
    small_json(&b, n_rank);
    ASSERT(buf_status(&b) == OK && vocab_from_json(b.p, b.n, &v, &e) == OK);
    buf_fini(&b);
    return v;
}

#endif
