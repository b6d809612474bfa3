/* Harmony: any bytes as token streams in the three parser modes, and as JSON conversations.
 *
 * Byte 0 chooses: streams (0-2 the mode, +4 without a preset role) or JSON (3). A stream is a list
 * of bytes: below 32 a control token or an odd id by table, else a small id, two bytes or three for
 * a larger one. Promises checked on the way: recover mode refuses nothing, deltas add up to the
 * texts, no text is invalid UTF-8, and in recover mode none holds "<|" unless ordinary tokens can
 * spell it.
 */
#include "base/err.h"
#include "text/harmony_json.h"
#include "text/utf8.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int32_t next_id(const uint8_t **p, const uint8_t *end)
{
    static const int32_t odd[32] = {
        200006, 200007, 200008, 200005, 200003, 200002,     200012, 199999, /* control tokens */
        173781, 35644,  17196,  4108,   3490,   316,        28,     44580,  /* header words */
        9552,   200014, 201088, 201089, -1,     0x7fffffff, 198,    220,    /* odd ids */
        12606,  815,    1428,   17360,  775,    27,         91,     1369};
    uint8_t b = *(*p)++;
    if (b < 32)
        return odd[b];
    if (b < 128 || end - *p < 1)
        return b;
    if (b < 224 || end - *p < 2)
        return (b - 128) << 8 | *(*p)++;
    int32_t id = (b - 224) << 16 | (*p)[0] << 8 | (*p)[1];
    *p += 2;
    return id;
}

/* The text of one message must equal the deltas that were given for it. */
struct sum {
    struct buf text;
    int i_msg;
};

static void add_delta(struct sum *s, const struct harmony_parser *p, const struct harmony_delta *d)
{
    int n;
    const struct harmony_message *m = harmony_messages(p, &n);
    if (!d->has_delta)
        return;
    ASSERT(utf8_valid(d->delta.p, d->delta.n) == d->delta.n && d->delta.n > 0);
    ASSERT(d->i_msg >= s->i_msg);
    if (d->i_msg != s->i_msg) {
        struct str text = m[s->i_msg].part[0].text;
        ASSERT(text.n >= s->text.n && memcmp(text.p, s->text.p, s->text.n) == 0);
        buf_clear(&s->text);
        s->i_msg = d->i_msg;
    }
    buf_put(&s->text, d->delta.p, d->delta.n);
}

static void parse(const uint8_t *p, const uint8_t *end, enum harmony_mode mode, bool preset)
{
    struct harmony_parser *h;
    struct harmony_delta d;
    struct err e;
    struct sum sum = {.i_msg = 0};
    const bool recover = mode == HARMONY_RECOVER;
    bool bracket = false; /* an ordinary token with a '|' came by */
    status st = OK;
    buf_init(&sum.text, 1 << 24);
    ASSERT(harmony_parser_new(vocab_o200k(), mode, preset, ROLE_ASSISTANT, 1 << 20, &h) == OK);
    while (p < end && st == OK) {
        int32_t id = next_id(&p, end);
        size_t n = 0;
        const uint8_t *s = vocab_bytes(vocab_o200k(), id, &n);
        bracket = bracket || (s && !vocab_is_special(vocab_o200k(), id) && memchr(s, '|', n));
        st = harmony_feed(h, id, &d, &e);
        if (st == OK)
            add_delta(&sum, h, &d);
    }
    if (st == OK)
        st = harmony_finish(h, &d, &e);
    if (st == OK)
        add_delta(&sum, h, &d);
    ASSERT(st == OK || (st == E_INPUT && !recover) || st == E_LIMIT);
    int n_msg;
    const struct harmony_message *m = harmony_messages(h, &n_msg);
    for (int i = 0; i < n_msg; i++) {
        struct str t = m[i].part[0].text;
        ASSERT(utf8_valid(t.p, t.n) == t.n);
        ASSERT(!recover || bracket || !memmem(t.p, t.n, "<|", 2));
    }
    if (recover && st == OK && sum.i_msg < n_msg) {
        struct str t = m[sum.i_msg].part[0].text;
        ASSERT(t.n == sum.text.n && memcmp(t.p, sum.text.p, t.n) == 0);
    }
    struct buf out;
    buf_init(&out, 1 << 24);
    harmony_to_json(&out, m, n_msg);
    struct json *back = NULL;
    ASSERT(buf_status(&out) < 0 ||
           json_parse(out.p, out.n, &json_limits_file, &back, &e) != E_INPUT);
    json_free(back);
    buf_fini(&out);
    buf_fini(&sum.text);
    harmony_parser_free(h);
}

static void render(const char *text, size_t n)
{
    static const struct json_limits lim = {1 << 16, 64, 1 << 14};
    struct json *root;
    struct err e = {0};
    if (json_parse(text, n, &lim, &root, &e) < 0)
        return;
    for (int form = FORM_AUTO; form <= FORM_OPENAI; form++) {
        const struct harmony_render_opts o = {.mode = (enum harmony_for)(n % 3),
                                              .drop = (enum harmony_drop)(n / 3 % 3)};
        struct arena a;
        struct ids t;
        struct harmony_conversation c;
        arena_init(&a, 1 << 22);
        ids_init(&t, 1 << 18);
        status st = harmony_from_json(root, (enum harmony_json_form)form, NULL, &a, &c, &e);
        if (st == OK)
            st = harmony_render(vocab_o200k(), &c, &o, &t, &e);
        ASSERT(st == OK || e.msg[0]);
        struct buf b;
        buf_init(&b, 1 << 24);
        if (st == OK)
            ASSERT(o200k_decode(vocab_o200k(), t.v, t.n, &b, &e) == OK || buf_status(&b) < 0);
        buf_fini(&b);
        ids_fini(&t);
        arena_fini(&a);
    }
    struct buf b;
    buf_init(&b, 1 << 24);
    harmony_ts(&b, root, 0);
    buf_clear(&b);
    harmony_json_compact(&b, root);
    buf_fini(&b);
    json_free(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0 || n > 1 << 15)
        return 0;
    int mode = data[0] & 3;
    if (mode == 3)
        render((const char *)data + 1, n - 1);
    else
        parse(data + 1, data + n, (enum harmony_mode)mode, !(data[0] & 4));
    return 0;
}
