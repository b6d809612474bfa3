/* Build step: o200k_base.tiktoken -> the tables of src/text/vocab_tab.h, ready to be mapped.
 *
 *     gen_vocab o200k_base.tiktoken o200k.bin o200k_blob.h
 *
 * Runs on the building machine, which like every target must be little-endian. The blob is five
 * parts, each at a multiple of 64; the header says where.
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
    if (!shorts || !longs || !specials)
        die("out of memory");
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
    }

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
    free(shorts);
    free(longs);
    free(specials);
    return 0;
}
