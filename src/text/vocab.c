/* Vocabularies: the compiled-in one, and reading a checkpoint's tokenizer.json.
 *
 * A tokenizer.json spells a token's bytes with 256 printable characters (the byte-level alphabet
 * that GPT-2 introduced); here they become bytes again. Anything in the file that would make its
 * own tokenizer behave differently from ours (another split, a normalizer, merges in another order)
 * is refused: wrong tokens would only show as a worse model.
 */
#include "text/vocab.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"
#include "text/o200k_blob.h"
#include "text/utf8.h"
#include "text/vocab_tab.h"

#include <stdlib.h>

_Static_assert(VOCAB_N_SPECIAL == (int)N_SPECIAL, "vocab_tab.h counts the named specials");

extern const uint8_t o200k_blob[] __attribute__((visibility("hidden")));

static const struct vocab o200k = {
    .n_id = O200K_N_ID,
    .max_len = O200K_MAX_LEN,
    .off = (const uint32_t *)(o200k_blob + O200K_OFF),
    .bytes = o200k_blob + O200K_BYTES,
    .chars = (const uint32_t *)(o200k_blob + O200K_CHARS),
    .seams = (const uint32_t *)(o200k_blob + O200K_SEAMS),
    .singles = (const int32_t *)(o200k_blob + O200K_SINGLES),
    .pairs = (const int32_t *)(o200k_blob + O200K_PAIRS),
    .short_drawer = (const struct vocab_drawer *)(o200k_blob + O200K_SHORT_DRAWER),
    .long_drawer = (const struct vocab_drawer *)(o200k_blob + O200K_LONG_DRAWER),
    .shorts = (const struct vocab_short *)(o200k_blob + O200K_SHORTS),
    .longs = (const struct vocab_long *)(o200k_blob + O200K_LONGS),
    .specials = (const struct vocab_long *)(o200k_blob + O200K_SPECIALS),
    .short_filter = o200k_blob + O200K_SHORT_FILTER,
    .long_filter = o200k_blob + O200K_LONG_FILTER,
    .special_drawer = {0, O200K_N_SPECIAL_SLOT},
    .special_len = O200K_SPECIAL_LEN,
    .special_first = {(uint64_t)1 << '<'},
    .special = {[SP_START] = 200006,
                [SP_END] = 200007,
                [SP_MESSAGE] = 200008,
                [SP_CHANNEL] = 200005,
                [SP_CONSTRAIN] = 200003,
                [SP_RETURN] = 200002,
                [SP_CALL] = 200012,
                [SP_ENDOFTEXT] = 199999},
};

const struct vocab *vocab_o200k(void)
{
    return &o200k;
}

int vocab_size(const struct vocab *v)
{
    return v->n_id;
}

int vocab_special(const struct vocab *v, enum special which)
{
    return v->special[which];
}

int vocab_special_named(const struct vocab *v, const char *s, size_t n)
{
    return vocab_find_special(v, (const uint8_t *)s, n);
}

bool vocab_is_special(const struct vocab *v, int id)
{
    return id >= 0 && id < v->n_id && (v->off[id] & VOCAB_SPECIAL_BIT);
}

const uint8_t *vocab_bytes(const struct vocab *v, int id, size_t *n)
{
    if (id < 0 || id >= v->n_id)
        return NULL;
    const uint8_t *p = vocab_at(v, id, n);
    return *n ? p : NULL;
}

int vocab_find(const struct vocab *v, const uint8_t *s, size_t n)
{
    if (n > VOCAB_SHORT_MAX)
        return vocab_find_long(v, s, n, vocab_hash(s, n));
    uint64_t key = vocab_key(s, n);
    return n > 0 ? vocab_find_short(v, key, vocab_hash_short(key, n), n) : -1;
}

/* ---- tokenizer.json ---- */

enum { ID_MAX = 1 << 20 }; /* ids of a checkpoint stay below this */

/* The o200k split, as tokenizer.json files of the family spell it. */
static const char split_regex[] =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* A vocabulary being read, and the memory it will own. */
struct build {
    struct vocab v; /* first: the pointer handed out is freed as this */
    struct vocab_build tab;
    uint32_t *off;
    uint8_t *bytes;
    uint32_t *chars;        /* all VOCAB_NO_CHAR; serves as `seams` too */
    const struct json **at; /* [n_id] a string node of an added token, else NULL */
    const char **key;       /* [n_id] key of an ordinary token, else NULL; borrowed like `at` */
    uint32_t *key_n;        /* [n_id] */
};

/* The byte that a character of the byte-level alphabet stands for, or -1: printable Latin-1 stands
 * for itself, the other 68 bytes are U+0100.. in order. */
static int byte_of(uint32_t cp)
{
    if ((cp >= 33 && cp <= 126) || (cp >= 161 && cp <= 172) || (cp >= 174 && cp <= 255))
        return (int)cp;
    if (cp < 256 || cp >= 256 + 68)
        return -1;
    uint32_t i = cp - 256; /* 0-32 -> 0-32, 33-66 -> 127-160, 67 -> 173 */
    return (int)(i < 33 ? i : i < 67 ? i + 94 : 173);
}

/* Bytes spelt by s; at most VOCAB_TOKEN_MAX. Returns the count, or 0 when it spells none. */
static size_t spell(const char *s, size_t n, uint8_t *out)
{
    size_t m = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_decode(s + i, n - i, &cp);
        int b = len > 0 ? byte_of(cp) : -1;
        if (b < 0 || m == VOCAB_TOKEN_MAX)
            return 0;
        out[m++] = (uint8_t)b;
        i += (size_t)len;
    }
    return m;
}

static bool is_str(const struct json *j, const char *want)
{
    size_t n;
    if (json_kind(j) != J_STR)
        return false;
    const char *s = json_str(j, &n);
    return n == strlen(want) && memcmp(s, want, n) == 0;
}

/* null, false, 0 and "" all say: not used. */
static bool is_unused(const struct json *j)
{
    enum json_kind k = json_kind(j);
    return k == J_NULL || k == J_FALSE || is_str(j, "") ||
           ((k == J_INT || k == J_REAL) && json_num(j) == 0);
}

/* The settings that change what a tokenizer does. */
static status check_settings(const struct json *root, const struct json *model, struct err *e)
{
    if (!json_absent(json_get(model, "type")) && !is_str(json_get(model, "type"), "BPE"))
        return err_set(e, E_FORMAT, "tokenizer.json: only model type \"BPE\" is supported");
    static const char *const unused[] = {"dropout", "continuing_subword_prefix",
                                         "end_of_word_suffix", "byte_fallback"};
    for (size_t i = 0; i < sizeof unused / sizeof unused[0]; i++)
        if (!is_unused(json_get(model, unused[i])))
            return err_param(e, E_FORMAT, unused[i], "tokenizer.json: \"%s\" is not supported",
                             unused[i]);
    if (!json_absent(json_get(root, "normalizer")))
        return err_set(e, E_FORMAT, "tokenizer.json: a normalizer is not supported");
    const struct json *pre = json_get(root, "pre_tokenizer");
    if (json_absent(pre))
        return OK;
    const struct json *list = json_get(pre, "pretokenizers");
    if (!is_str(json_get(json_get(json_at(list, 0), "pattern"), "Regex"), split_regex) ||
        !is_str(json_get(json_at(list, 1), "type"), "ByteLevel") || json_len(list) != 2 ||
        !is_unused(json_get(json_at(list, 1), "use_regex")) ||
        !is_unused(json_get(json_at(list, 1), "add_prefix_space")))
        return err_set(e, E_FORMAT,
                       "tokenizer.json: pre_tokenizer is not the o200k split followed by bytes");
    return OK;
}

static status check_id(const struct json *j, int *n_id, struct err *e)
{
    int64_t id = json_kind(j) == J_INT ? json_int(j) : -1;
    if (id < 0 || id >= ID_MAX)
        return err_set(e, E_FORMAT, "tokenizer.json: token ids must be integers from 0 to %d",
                       ID_MAX - 1);
    *n_id = max_int(*n_id, (int)id + 1);
    return OK;
}

/* Types and ranges of everything that collect() uses; the highest id. */
static status measure(const struct json *vocab, const struct json *added, int *n_id, struct err *e)
{
    if (json_kind(vocab) != J_OBJ)
        return err_set(e, E_FORMAT, "tokenizer.json: \"model\".\"vocab\" is not an object");
    for (void *it = json_first(vocab); it; it = json_next(vocab, it)) {
        status st = check_id(json_val(it), n_id, e);
        if (st < 0)
            return st;
    }
    if (!json_absent(added) && json_kind(added) != J_ARR)
        return err_set(e, E_FORMAT, "tokenizer.json: \"added_tokens\" is not an array");
    for (size_t i = 0; i < json_len(added); i++) {
        const struct json *content = json_get(json_at(added, i), "content");
        if (json_kind(content) != J_STR)
            return err_set(e, E_FORMAT, "tokenizer.json: added_tokens[%zu] has no content", i);
        size_t n;
        json_str(content, &n);
        if (n == 0 || n > VOCAB_SPECIAL_MAX)
            return err_set(e, E_FORMAT, "tokenizer.json: added_tokens[%zu] is empty or too long",
                           i);
        status st = check_id(json_get(json_at(added, i), "id"), n_id, e);
        if (st < 0)
            return st;
    }
    return OK;
}

/* Puts every token at its id. */
static status collect(struct build *b, const struct json *vocab, const struct json *added,
                      struct err *e)
{
    size_t n, m;
    for (size_t i = 0; i < json_len(added); i++) {
        const struct json *content = json_get(json_at(added, i), "content");
        int64_t id = json_int(json_get(json_at(added, i), "id"));
        if (b->at[id])
            return err_set(e, E_FORMAT, "tokenizer.json: two added tokens have the id %d", (int)id);
        b->at[id] = content;
    }
    for (void *it = json_first(vocab); it; it = json_next(vocab, it)) {
        int64_t id = json_int(json_val(it));
        const char *key = json_key(it, &n);
        if (b->at[id]) { /* some files list added tokens in both places */
            const char *s = json_str(b->at[id], &m);
            if (m == n && memcmp(s, key, n) == 0)
                continue;
        }
        if (b->at[id] || b->key[id])
            return err_set(e, E_FORMAT, "tokenizer.json: two tokens have the id %d", (int)id);
        b->key[id] = key;
        b->key_n[id] = (uint32_t)n;
    }
    return OK;
}

/* Lays the bytes out in id order and marks the specials. */
static status lay_out(struct build *b, struct err *e)
{
    struct vocab *v = &b->v;
    size_t total = 0, n;
    for (int id = 0; id < v->n_id; id++) {
        if (b->at[id]) {
            json_str(b->at[id], &n);
            total += n;
        }
        total += b->key[id] ? b->key_n[id] : 0; /* no byte is spelt by less than one */
    }
    b->bytes = mem_alloc(total);
    if (!b->bytes)
        return E_NOMEM;
    size_t at = 0;
    for (int id = 0; id < v->n_id; id++) {
        b->off[id] = (uint32_t)at;
        if (b->at[id]) {
            const char *s = json_str(b->at[id], &n);
            memcpy(b->bytes + at, s, n);
            b->off[id] |= VOCAB_SPECIAL_BIT;
            v->special_len |= (uint64_t)1 << (n - 1);
            v->special_first[b->bytes[at] / 64] |= (uint64_t)1 << b->bytes[at] % 64;
            at += n;
        } else if (b->key[id]) {
            uint8_t token[VOCAB_TOKEN_MAX];
            n = spell(b->key[id], b->key_n[id], token);
            if (n == 0)
                return err_set(e, E_FORMAT,
                               "tokenizer.json: token %d is not spelt in the byte-level alphabet",
                               id);
            memcpy(b->bytes + at, token, n);
            v->max_len = n > v->max_len ? (uint32_t)n : v->max_len;
            at += n;
        }
    }
    b->off[v->n_id] = (uint32_t)at;
    return OK;
}

/* Fills the hash tables. */
static status hash_all(struct build *b, struct err *e)
{
    struct vocab *v = &b->v;
    struct vocab_build *t = &b->tab;
    vocab_measure(v, t);
    t->shorts = mem_calloc(t->n_short, sizeof *t->shorts);
    t->longs = mem_calloc(t->n_long, sizeof *t->longs);
    t->specials = mem_calloc(t->n_special, sizeof *t->specials);
    t->short_filter = mem_calloc(t->n_short, 1);
    t->long_filter = mem_calloc(t->n_long, 1);
    t->singles = mem_array(256, sizeof *t->singles);
    t->pairs = mem_array(65536, sizeof *t->pairs);
    v->chars = v->seams = b->chars = mem_array(65536, sizeof *b->chars);
    if (!t->shorts || !t->longs || !t->specials || !t->short_filter || !t->long_filter ||
        !t->singles || !t->pairs || !b->chars)
        return E_NOMEM;
    memset(t->singles, 0xff, 256 * sizeof *t->singles); /* -1 */
    memset(t->pairs, 0xff, 65536 * sizeof *t->pairs);
    memset(b->chars, 0xff, 65536 * sizeof *b->chars);
    vocab_adopt(v, t);
    for (int id = 0; id < v->n_id; id++) {
        size_t n;
        const uint8_t *p = vocab_at(v, id, &n);
        if (vocab_is_special(v, id) && vocab_find_special(v, p, n) >= 0)
            return err_set(e, E_FORMAT, "tokenizer.json: the added token %d is there twice", id);
        if (!vocab_put(v, t, id)) /* needs tokens chosen to collide */
            return err_set(e, E_FORMAT, "tokenizer.json: token %d: too many hash collisions", id);
    }
    for (int c = 0; c < 256; c++)
        if (t->singles[c] < 0)
            return err_set(e, E_FORMAT, "tokenizer.json: no token for the single byte 0x%02x", c);
    return OK;
}

/* The two halves of a merge: "left right" or ["left", "right"]. */
static bool merge_halves(const struct json *m, const char *half[2], size_t n[2])
{
    if (json_kind(m) == J_STR) {
        size_t all;
        half[0] = json_str(m, &all);
        const char *space = memchr(half[0], ' ', all);
        if (!space)
            return false;
        n[0] = (size_t)(space - half[0]);
        half[1] = space + 1;
        n[1] = all - n[0] - 1;
        return true;
    }
    if (json_len(m) != 2)
        return false;
    for (size_t i = 0; i < 2; i++) {
        if (json_kind(json_at(m, i)) != J_STR)
            return false;
        half[i] = json_str(json_at(m, i), &n[i]);
    }
    return true;
}

/* Merges are listed by priority. Ours is the id of the result, so these must not decrease. */
static status check_merges(const struct vocab *v, const struct json *merges, struct err *e)
{
    if (!json_absent(merges) && json_kind(merges) != J_ARR)
        return err_set(e, E_FORMAT, "tokenizer.json: \"merges\" is not an array");
    int last = -1;
    for (size_t i = 0; i < json_len(merges); i++) {
        const char *half[2];
        size_t n[2], n_left, n_right;
        uint8_t token[2 * VOCAB_TOKEN_MAX];
        if (!merge_halves(json_at(merges, i), half, n) || !(n_left = spell(half[0], n[0], token)) ||
            !(n_right = spell(half[1], n[1], token + n_left)) || vocab_find(v, token, n_left) < 0 ||
            vocab_find(v, token + n_left, n_right) < 0)
            return err_set(e, E_FORMAT, "tokenizer.json: merges[%zu] is not two tokens", i);
        int id = vocab_find(v, token, n_left + n_right);
        if (id < 0)
            return err_set(e, E_FORMAT, "tokenizer.json: merges[%zu] makes no token", i);
        if (id < last)
            return err_set(
                e, E_FORMAT,
                "tokenizer.json: merges[%zu] makes token %d after token %d: ids are not in "
                "merge order",
                i, id, last);
        last = id;
    }
    return OK;
}

static status build_from(const struct json *root, struct build *b, struct err *e)
{
    static const char *const names[N_SPECIAL] = {
        [SP_START] = "<|start|>",         [SP_END] = "<|end|>",
        [SP_MESSAGE] = "<|message|>",     [SP_CHANNEL] = "<|channel|>",
        [SP_CONSTRAIN] = "<|constrain|>", [SP_RETURN] = "<|return|>",
        [SP_CALL] = "<|call|>",           [SP_ENDOFTEXT] = "<|endoftext|>"};
    status st = OK;
    struct vocab *v = &b->v;
    const struct json *model = json_get(root, "model"), *vocab = json_get(model, "vocab");
    const struct json *added = json_get(root, "added_tokens");
    TRY(check_settings(root, model, e));
    TRY(measure(vocab, added, &v->n_id, e));
    size_t n_id = (size_t)v->n_id;
    v->off = b->off = mem_calloc(n_id + 1, sizeof *b->off);
    b->at = mem_calloc(n_id, sizeof *b->at);
    b->key = mem_calloc(n_id, sizeof *b->key);
    b->key_n = mem_calloc(n_id, sizeof *b->key_n);
    if (!b->off || !b->at || !b->key || !b->key_n)
        return E_NOMEM;
    TRY(collect(b, vocab, added, e));
    st = lay_out(b, e);
    v->bytes = b->bytes;
    TRY(st);
    TRY(hash_all(b, e));
    TRY(check_merges(v, json_get(model, "merges"), e));
    for (int i = 0; i < N_SPECIAL; i++)
        v->special[i] = vocab_special_named(v, names[i], strlen(names[i]));
out:
    return st;
}

status vocab_from_json(const char *text, size_t n, struct vocab **out, struct err *e)
{
    *out = NULL;
    struct json *root = NULL;
    struct build *b = mem_calloc(1, sizeof *b);
    if (!b)
        return err_set(e, E_NOMEM, "out of memory reading tokenizer.json");
    struct err je = {0};
    status st = json_parse(text, n, &json_limits_file, &root, &je);
    if (st < 0)
        st = err_set(e, st == E_NOMEM ? st : E_FORMAT, "tokenizer.json: %.200s", je.msg);
    else
        st = build_from(root, b, e);
    if (st == E_NOMEM)
        err_set(e, st, "out of memory reading tokenizer.json");
    json_free(root);
    mem_free(b->at);
    mem_free(b->key);
    mem_free(b->key_n);
    if (st < 0)
        vocab_free(&b->v);
    else
        *out = &b->v;
    return st;
}

void vocab_free(struct vocab *v)
{
    if (!v || v == &o200k)
        return;
    struct build *b = (struct build *)v;
    mem_free(b->off);
    mem_free(b->bytes);
    mem_free(b->chars);
    mem_free(b->tab.singles);
    mem_free(b->tab.pairs);
    mem_free(b->tab.short_filter);
    mem_free(b->tab.long_filter);
    mem_free(b->tab.shorts);
    mem_free(b->tab.longs);
    mem_free(b->tab.specials);
    mem_free(b);
}

/* The number after `"id":` in the JSON object around text[at], or -1. */
static long id_around(const char *text, size_t n, size_t at)
{
    enum { REACH = 400 }; /* an added token's object is smaller */
    size_t from = at, to = at;
    while (from > 0 && at - from < REACH && text[from] != '{')
        from--;
    while (to < n && to - at < REACH && text[to] != '}')
        to++;
    const char *p = memmem(text + from, to - from, "\"id\"", 4);
    if (!p)
        return -1;
    long id = 0;
    const char *end = text + to;
    for (p += 4; p < end && (*p == ':' || *p == ' '); p++)
        ;
    for (; p < end && *p >= '0' && *p <= '9' && id < ID_MAX; p++)
        id = id * 10 + (*p - '0');
    return id;
}

bool vocab_json_is_o200k(const char *text, size_t n)
{
    static const enum special probes[] = {SP_ENDOFTEXT, SP_RETURN, SP_START, SP_CALL};
    if (n < O200K_N_ID * (size_t)10) /* a token, its id and punctuation */
        return false;
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++) {
        size_t len;
        int id = o200k.special[probes[i]];
        const uint8_t *name = vocab_at(&o200k, id, &len);
        const char *p = memmem(text, n, name, len);
        if (!p || id_around(text, n, (size_t)(p - text)) != id)
            return false;
    }
    return true;
}
