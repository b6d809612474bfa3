/* A tokenizer.json of any bytes: refused with a message, or a vocabulary that encodes and decodes.
 *
 * 256 single-byte tokens are far from what mutation finds, so an input that begins with '+' is put
 * inside a complete file: "+X" is parsed as {"model":{"vocab":{<all bytes>X. */
#include "small_vocab.h"
#include "text/o200k.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void try_json(const char *text, size_t n)
{
    static const char sample[] =
        "hello <|start|> \xd0\x9f\xe6\x97\xa5 12345\r\n\t the the \xf0\x9f\x98\x80";
    struct vocab *v;
    struct err e = {0};
    (void)vocab_json_is_o200k(text, n);
    status st = vocab_from_json(text, n, &v, &e);
    if (st < 0) {
        ASSERT(!v && st == E_FORMAT && e.msg[0]);
        return;
    }
    struct ids t;
    struct buf back;
    ids_init(&t, 1 << 16);
    buf_init(&back, 1 << 16);
    for (enum special_mode mode = SPECIAL_TEXT; mode <= SPECIAL_ALLOW; mode++) {
        t.n = 0;
        buf_clear(&back);
        ASSERT(o200k_encode(v, sample, sizeof sample - 1, mode, &t, &e) == OK);
        ASSERT(o200k_decode(v, t.v, t.n, &back, &e) == OK);
        ASSERT(back.n == sizeof sample - 1 && memcmp(back.p, sample, back.n) == 0);
    }
    for (int id = -1; id <= vocab_size(v) && id < 4096; id++) {
        size_t len;
        const uint8_t *p = vocab_bytes(v, id, &len);
        ASSERT(!p || len > 0);
        ASSERT(!p || vocab_is_special(v, id) || vocab_find(v, p, len) == id);
        ASSERT(!p || !vocab_is_special(v, id) ||
               vocab_special_named(v, (const char *)p, len) == id);
    }
    ids_fini(&t);
    buf_fini(&back);
    vocab_free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 1 || data[0] != '+') {
        try_json((const char *)data, n);
        return 0;
    }
    struct buf b;
    buf_init(&b, 1 << 24);
    buf_puts(&b, "{\"model\":{\"vocab\":{");
    for (int i = 0; i < 256; i++) {
        uint8_t c = (uint8_t)i;
        small_spell(&b, &c, 1);
        buf_printf(&b, ":%d%s", i, i < 255 ? "," : "");
    }
    buf_put(&b, data + 1, n - 1);
    try_json(b.p, b.n);
    buf_fini(&b);
    return 0;
}
