/* Any bytes through the tokenizer, with the compiled-in and with a small vocabulary.
 *
 * Valid UTF-8 is encoded in every special mode and comes back byte for byte; anything else is
 * refused at the right byte. The first byte picks the vocabulary and the ceiling of ids. */
#include "small_vocab.h"
#include "text/o200k.h"
#include "text/utf8.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void round_trip(const struct vocab *v, const char *text, size_t n, enum special_mode mode,
                       size_t max_ids)
{
    struct ids t;
    struct buf back;
    struct err e = {0};
    ids_init(&t, max_ids);
    buf_init(&back, 1 << 24);
    size_t valid = utf8_valid(text, n);
    status st = o200k_encode(v, text, n, mode, &t, &e);
    ASSERT(valid == n || st == E_INPUT);
    ASSERT(st == OK || (t.n == 0 && e.msg[0]));
    if (st == OK) {
        for (size_t i = 0; i < t.n; i++)
            ASSERT(mode == SPECIAL_ALLOW || !vocab_is_special(v, t.v[i]));
        ASSERT(o200k_decode(v, t.v, t.n, &back, &e) == OK);
        ASSERT(back.n == n && memcmp(back.p, text, n) == 0);
    } else {
        ASSERT(st == E_LIMIT || st == E_INPUT);
    }
    buf_fini(&back);
    ids_fini(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct vocab *small;
    if (!small)
        small = small_vocab(600);
    if (n < 1)
        return 0;
    const struct vocab *v = data[0] & 1 ? small : vocab_o200k();
    size_t max_ids = data[0] & 2 ? data[0] >> 2 : n * 4;
    const char *text = (const char *)data + 1;
    n--;
    round_trip(v, text, n, SPECIAL_TEXT, max_ids);
    round_trip(v, text, n, SPECIAL_ALLOW, max_ids);
    round_trip(v, text, n, SPECIAL_ERROR, max_ids);

    /* The same bytes as ids: decoding refuses or gives some bytes. */
    struct buf out;
    struct err e = {0};
    int32_t ids[256];
    size_t n_id = n / 4 < 256 ? n / 4 : 256;
    memcpy(ids, text, n_id * 4);
    buf_init(&out, 1 << 20);
    status st = o200k_decode(v, ids, n_id, &out, &e);
    ASSERT(st == OK || (st == E_INPUT && out.n == 0 && e.msg[0]));
    buf_fini(&out);
    return 0;
}
