/* Build step: o200k_base.tiktoken -> the tables of src/text/vocab_tab.h, ready to be mapped.
 *
 *     gen_vocab o200k_base.tiktoken o200k.bin o200k_blob.h
 *
 * Runs on the building machine, which like every target must be little-endian. The blob is
 * ten parts, each at a multiple of 64; the header says where.
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

    struct vocab v = {.off = off, .bytes = bytes};
    size_t n_short = 0, n;
    for (int id = 0; id < N_RANK; id++) {
        vocab_at(&v, id, &n);
        n_short += n <= VOCAB_SHORT_MAX;
        if (n > v.max_len)
            v.max_len = (uint32_t)n;
    }
    int short_bits = vocab_bits(n_short), long_bits = vocab_bits(N_RANK - n_short);
    int special_bits = vocab_bits(N_ID - N_RANK);
    size_t n_shorts = (size_t)1 << short_bits, n_longs = (size_t)1 << long_bits;
    size_t n_specials = (size_t)1 << special_bits;
    struct vocab_short *shorts = calloc(n_shorts, sizeof *shorts);
    struct vocab_long *longs = malloc(n_longs * sizeof *longs);
    struct vocab_long *specials = malloc(n_specials * sizeof *specials);
    int bloom_bits = vocab_bloom_bits(N_RANK);
    size_t bloom_bytes = ((size_t)1 << bloom_bits) / 8;
    uint64_t *bloom = calloc(1, bloom_bytes);
    if (!shorts || !longs || !specials || !bloom)
        die("out of memory");
    memset(pairs, 0xff, sizeof pairs); /* -1 */
    for (size_t i = 0; i < n_longs; i++)
        longs[i] = (struct vocab_long){.id = -1};
    for (size_t i = 0; i < n_specials; i++)
        specials[i] = (struct vocab_long){.id = -1};
    for (int id = 0; id < N_ID; id++) {
        const uint8_t *p = vocab_at(&v, id, &n);
        bool ok = id >= N_RANK          ? vocab_put_hashed(specials, special_bits, p, n, id)
                  : n > VOCAB_SHORT_MAX ? vocab_put_hashed(longs, long_bits, p, n, id)
                                        : vocab_put_short(shorts, short_bits, p, n, id);
        if (!ok)
            die("hash chain too long");
        if (id < N_RANK)
            vocab_put_bloom(bloom, bloom_bits, p, n);
        if (id < N_RANK && n == 1)
            singles[p[0]] = id;
        if (id < N_RANK && n == 2)
            pairs[p[0] * 256 + p[1]] = id;
    }

    v.shorts = shorts;
    v.longs = longs;
    v.short_bits = short_bits;
    v.long_bits = long_bits;
    v.bloom = bloom;
    v.bloom_bits = bloom_bits;
    v.pairs = pairs;
    add_chars(&v);

    FILE *f = fopen(argv[2], "wb"), *h = fopen(argv[3], "w");
    if (!f || !h)
        die("cannot create the output");
    fprintf(h, "/* Made by scripts/gen_vocab.c: where the parts of o200k.bin lie. */\n");
    fprintf(h, "#define O200K_N_ID %d\n#define O200K_MAX_LEN %u\n", N_ID, v.max_len);
    fprintf(h, "#define O200K_SHORT_BITS %d\n#define O200K_LONG_BITS %d\n", short_bits, long_bits);
    fprintf(h, "#define O200K_SPECIAL_BITS %d\n", special_bits);
    fprintf(h, "#define O200K_SHORTS %ld\n", part(f, shorts, n_shorts * sizeof *shorts));
    fprintf(h, "#define O200K_LONGS %ld\n", part(f, longs, n_longs * sizeof *longs));
    fprintf(h, "#define O200K_SPECIALS %ld\n", part(f, specials, n_specials * sizeof *specials));
    fprintf(h, "#define O200K_BLOOM_BITS %d\n", bloom_bits);
    fprintf(h, "#define O200K_BLOOM %ld\n", part(f, bloom, bloom_bytes));
    fprintf(h, "#define O200K_SINGLES %ld\n", part(f, singles, sizeof singles));
    fprintf(h, "#define O200K_PAIRS %ld\n", part(f, pairs, sizeof pairs));
    fprintf(h, "#define O200K_CHARS %ld\n", part(f, chars, sizeof chars));
    fprintf(h, "#define O200K_SEAMS %ld\n", part(f, seams, sizeof seams));
    fprintf(h, "#define O200K_OFF %ld\n", part(f, off, sizeof off));
    fprintf(h, "#define O200K_BYTES %ld\n", part(f, bytes, n_bytes));
    uint64_t special_len = 0;
    for (int id = N_RANK; id < N_ID; id++) {
        vocab_at(&v, id, &n);
        special_len |= (uint64_t)1 << (n - 1);
    }
    fprintf(h, "#define O200K_SPECIAL_LEN 0x%llxu\n", (unsigned long long)special_len);
    if (fclose(f) != 0 || fclose(h) != 0)
        die("cannot write");
    free(bloom);
    free(shorts);
    free(longs);
    free(specials);
    return 0;
}
