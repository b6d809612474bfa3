/* Build step: o200k_base.tiktoken -> the tables of src/text/vocab_tab.h, ready to be mapped.
 *
 *     gen_vocab o200k_base.tiktoken o200k.bin o200k_blob.h
 *
 * Runs on the building machine, which like every target must be little-endian. The parts of
 * the blob begin at multiples of 64; the header says where.
 */
#include "text/vocab_tab.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_RANK = 199998, N_ID = 201089, MAX_BYTES = 2 << 20 };

/* Special tokens with a name; every other id of the range is <|reserved_N|>. */
static const struct {
    int id;
    const char *name;
} named[] = {
    {199998, "<|startoftext|>"}, {199999, "<|endoftext|>"}, {200002, "<|return|>"},
    {200003, "<|constrain|>"},   {200005, "<|channel|>"},   {200006, "<|start|>"},
    {200007, "<|end|>"},         {200008, "<|message|>"},   {200012, "<|call|>"},
};

static uint32_t off[N_ID + 1];
static uint8_t bytes[MAX_BYTES];
static uint32_t n_bytes;
static int32_t singles[256], pairs[65536];
static uint32_t chars[65536], seams[65536];

static void die(const char *what)
{
    fprintf(stderr, "gen_vocab: %s\n", what);
    exit(1);
}

static int base64_value(int c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *p = c ? strchr(digits, c) : NULL;
    if (!p)
        die("bad base64");
    return (int)(p - digits);
}

static void put_byte(unsigned b)
{
    if (n_bytes == MAX_BYTES)
        die("too many bytes");
    bytes[n_bytes++] = (uint8_t)b;
}

static void read_ranks(const char *path)
{
    FILE *f = fopen(path, "rb");
    char line[1024], text[512];
    int rank;
    if (!f)
        die("cannot open the rank file");
    for (int id = 0; id < N_RANK; id++) {
        if (!fgets(line, sizeof line, f) || sscanf(line, "%511s %d", text, &rank) != 2 ||
            rank != id)
            die("rank file: unexpected line");
        off[id] = n_bytes;
        unsigned acc = 0;
        int n_bit = 0;
        for (const char *c = text; *c && *c != '='; c++) {
            acc = acc << 6 | (unsigned)base64_value(*c);
            n_bit += 6;
            if (n_bit >= 8) {
                n_bit -= 8;
                put_byte(acc >> n_bit & 0xff);
            }
        }
    }
    if (fgets(line, sizeof line, f))
        die("rank file: more lines than expected");
    fclose(f);
}

static void add_specials(void)
{
    for (int id = N_RANK; id < N_ID; id++) {
        char name[VOCAB_SPECIAL_MAX];
        snprintf(name, sizeof name, "<|reserved_%d|>", id);
        for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
            if (named[i].id == id)
                snprintf(name, sizeof name, "%s", named[i].name);
        off[id] = n_bytes | VOCAB_SPECIAL_BIT;
        for (const char *c = name; *c; c++)
            put_byte((unsigned char)*c);
    }
    off[N_ID] = n_bytes;
}

static int32_t find(const struct vocab *v, const uint8_t *s, size_t n)
{
    if (n > VOCAB_SHORT_MAX)
        return vocab_find_long(v, s, n, vocab_hash(s, n));
    uint64_t key = vocab_key(s, n);
    return vocab_find_short(v, key, vocab_hash_short(key, n), n);
}

/* Merges the token's own bytes and checks what `seams` rests on: they become the token, by
 * merges of rising ids. */
static void check_order(const struct vocab *v, int token)
{
    size_t at[VOCAB_TOKEN_MAX + 1], n;
    const uint8_t *s = vocab_at(v, token, &n);
    int32_t last = -1;
    for (size_t i = 0; i <= n; i++)
        at[i] = i;
    for (size_t m = n; m > 1; m--) {
        size_t best = 0;
        int32_t rank = -1;
        for (size_t i = 0; i + 1 < m; i++) {
            int32_t r = find(v, s + at[i], at[i + 2] - at[i]);
            if (r >= 0 && (rank < 0 || r < rank)) {
                rank = r;
                best = i;
            }
        }
        if (rank < last || rank < 0)
            die("a token's merges are not in the order of ids");
        last = rank;
        memmove(at + best + 1, at + best + 2, (m - best - 1) * sizeof at[0]);
    }
}

/* Bytes of the character that begins with this byte; 0 for a byte inside one. */
static size_t char_bytes(uint8_t first)
{
    return first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* Enters a token into the seam before s[i]. */
static void add_seam(const uint8_t *s, size_t i, int token)
{
    uint32_t *seam = &seams[s[i - 1] * 256 + s[i]];
    if ((uint32_t)token < *seam)
        *seam = (uint32_t)token;
}

static void add_chars(const struct vocab *v)
{
    memset(chars, 0xff, sizeof chars); /* VOCAB_NO_CHAR */
    memset(seams, 0xff, sizeof seams);
    for (int id = 0; id < N_RANK; id++) {
        size_t n, head = 0;
        const uint8_t *s = vocab_at(v, id, &n);
        check_order(v, id);
        while (head < n && char_bytes(s[head]) == 0)
            head++;
        if (head > 0 && head < n) /* begins inside a character */
            add_seam(s, head, id);
        size_t tail = n - 1;
        while (tail > 0 && char_bytes(s[tail]) == 0)
            tail--;
        if (tail > 0 && char_bytes(s[tail]) > n - tail) /* ends inside one */
            add_seam(s, tail, id);
        if (n == 2 && char_bytes(s[0]) == 2 && char_bytes(s[1]) == 0)
            chars[(s[0] & 0x1f) << 6 | (s[1] & 0x3f)] = (uint32_t)id;
        if (n == 3 && char_bytes(s[0]) == 3 && char_bytes(s[1]) == 0 && char_bytes(s[2]) == 0)
            chars[(s[0] & 0x0f) << 12 | (s[1] & 0x3f) << 6 | (s[2] & 0x3f)] = (uint32_t)id;
    }
}

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p)
        die("out of memory");
    return p;
}

static long part(FILE *f, const void *p, size_t n)
{
    while (ftell(f) % 64)
        fputc(0, f);
    long at = ftell(f);
    if (fwrite(p, 1, n, f) != n)
        die("cannot write");
    return at;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        die("usage: gen_vocab RANKS BLOB HEADER");
    read_ranks(argv[1]);
    add_specials();

    struct vocab v = {.n_id = N_ID, .off = off, .bytes = bytes};
    static struct vocab_build b;
    vocab_measure(&v, &b);
    b.shorts = zeroed(b.n_short, sizeof *b.shorts);
    b.longs = zeroed(b.n_long, sizeof *b.longs);
    b.specials = zeroed(b.n_special, sizeof *b.specials);
    b.short_filter = zeroed(b.n_short, 1);
    b.long_filter = zeroed(b.n_long, 1);
    b.singles = singles;
    b.pairs = pairs;
    memset(pairs, 0xff, sizeof pairs); /* -1 */
    vocab_adopt(&v, &b);
    for (int id = 0; id < N_ID; id++) {
        size_t n;
        vocab_at(&v, id, &n);
        if (id < N_RANK && n > v.max_len)
            v.max_len = (uint32_t)n;
        if (!vocab_put(&v, &b, id))
            die("hash chain too long");
    }
    add_chars(&v);

    FILE *f = fopen(argv[2], "wb"), *h = fopen(argv[3], "w");
    if (!f || !h)
        die("cannot create the output");
    fprintf(h, "/* Made by scripts/gen_vocab.c: where the parts of o200k.bin lie. */\n");
    const struct {
        const char *name;
        const void *p;
        size_t n;
    } parts[] = {
        {"SHORTS", b.shorts, b.n_short * sizeof *b.shorts},
        {"LONGS", b.longs, b.n_long * sizeof *b.longs},
        {"SPECIALS", b.specials, b.n_special * sizeof *b.specials},
        {"SHORT_FILTER", b.short_filter, b.n_short},
        {"LONG_FILTER", b.long_filter, b.n_long},
        {"SHORT_DRAWER", b.short_drawer, sizeof b.short_drawer},
        {"LONG_DRAWER", b.long_drawer, sizeof b.long_drawer},
        {"SINGLES", singles, sizeof singles},
        {"PAIRS", pairs, sizeof pairs},
        {"CHARS", chars, sizeof chars},
        {"SEAMS", seams, sizeof seams},
        {"OFF", off, sizeof off},
        {"BYTES", bytes, n_bytes},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        fprintf(h, "#define O200K_%s %ld\n", parts[i].name, part(f, parts[i].p, parts[i].n));
    fprintf(h, "#define O200K_N_ID %d\n#define O200K_MAX_LEN %u\n", N_ID, v.max_len);
    fprintf(h, "#define O200K_N_SPECIAL_SLOT %u\n", b.n_special);
    uint64_t special_len = 0;
    for (int id = N_RANK; id < N_ID; id++) {
        size_t n;
        vocab_at(&v, id, &n);
        special_len |= (uint64_t)1 << (n - 1);
    }
    fprintf(h, "#define O200K_SPECIAL_LEN 0x%llxu\n", (unsigned long long)special_len);
    if (fclose(f) != 0 || fclose(h) != 0)
        die("cannot write");
    free(b.shorts);
    free(b.longs);
    free(b.specials);
    free(b.short_filter);
    free(b.long_filter);
    return 0;
}
