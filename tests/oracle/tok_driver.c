/* The tokenizer behind a pipe, for tests/oracle/tokens.py and bench_tokens.py.
 *
 *     tok_driver serve [TOKENIZER.JSON]   requests on stdin, answers on stdout
 *     tok_driver bench N FILE...          best of N single-thread encodings of each file
 *
 * A request is two little-endian 32-bit words (mode, length) and the text; the mode is enum
 * special_mode. The answer is a 32-bit count and the ids, or a negative status. Mode 3 decodes: the
 * text is an array of ids and the answer is a count of bytes and the bytes. The driver itself
 * checks that decoding gives back the text it encoded, and aborts otherwise.
 */
#include "base/file.h"
#include "base/mem.h"
#include "text/o200k.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MODE_DECODE = 3 };

static void die(const struct err *e)
{
    fprintf(stderr, "tok_driver: %s\n", e->msg);
    exit(1);
}

static void answer(int32_t head, const void *body, size_t n)
{
    if (fwrite(&head, 4, 1, stdout) != 1 || fwrite(body, 1, n, stdout) != n)
        exit(1);
}

static void serve(const struct vocab *v)
{
    uint32_t head[2];
    struct ids t;
    struct buf text, back;
    struct err e = {0};
    ids_init(&t, 1 << 28);
    buf_init(&text, 1 << 28);
    buf_init(&back, 1 << 28);
    while (fread(head, sizeof head, 1, stdin) == 1) {
        t.n = 0;
        buf_clear(&text);
        buf_clear(&back);
        char *to = buf_room(&text, head[1]);
        if (!to || fread(to, 1, head[1], stdin) != head[1])
            exit(1);
        text.n = head[1];
        if (head[0] == MODE_DECODE) {
            status st = o200k_decode(v, (const int32_t *)(void *)text.p, text.n / 4, &back, &e);
            answer(st < 0 ? st : (int32_t)back.n, back.p, st < 0 ? 0 : back.n);
        } else {
            status st = o200k_encode(v, text.p, text.n, (enum special_mode)head[0], &t, &e);
            if (st == OK && (o200k_decode(v, t.v, t.n, &back, &e) < 0 || back.n != text.n ||
                             memcmp(back.p, text.p, text.n) != 0)) {
                fprintf(stderr, "tok_driver: decoding does not give back the text\n");
                abort();
            }
            answer(st < 0 ? st : (int32_t)t.n, t.v, st < 0 ? 0 : t.n * 4);
        }
        fflush(stdout);
    }
    ids_fini(&t);
    buf_fini(&text);
    buf_fini(&back);
}

/* Of the processor's time, so that other programs on the machine count little. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* One line a file: bytes, tokens, seconds of the fastest run. */
static void bench(int n_run, const char *path)
{
    struct err e = {0};
    struct buf text;
    struct ids t;
    buf_init(&text, 1 << 28);
    ids_init(&t, 1 << 28);
    if (file_read(path, &text, &e) < 0)
        die(&e);
    double best = 0;
    for (int i = 0; i < n_run; i++) {
        t.n = 0;
        double start = cpu_seconds();
        if (o200k_encode(vocab_o200k(), text.p, text.n, SPECIAL_TEXT, &t, &e) < 0)
            die(&e);
        double s = cpu_seconds() - start;
        best = i == 0 || s < best ? s : best;
    }
    printf("%zu %zu %.9f\n", text.n, t.n, best);
    buf_fini(&text);
    ids_fini(&t);
}

int main(int argc, char **argv)
{
    if (argc >= 4 && strcmp(argv[1], "bench") == 0) {
        for (int i = 3; i < argc; i++)
            bench((int)strtoul(argv[2], NULL, 10), argv[i]);
        return 0;
    }
    if (argc < 2 || argc > 3 || strcmp(argv[1], "serve") != 0) {
        fprintf(stderr, "usage: tok_driver serve [TOKENIZER.JSON] | bench N FILE...\n");
        return 2;
    }
    struct vocab *own = NULL;
    if (argc == 3) {
        struct err e = {0};
        struct buf json;
        buf_init(&json, 1 << 28);
        if (file_read(argv[2], &json, &e) < 0 || vocab_from_json(json.p, json.n, &own, &e) < 0)
            die(&e);
        buf_fini(&json);
    }
    serve(own ? own : vocab_o200k());
    vocab_free(own);
    return 0;
}
