/* Times the CPU backend on a checkpoint:
 *
 *     cpu_driver FOLDER [PROMPT=512] [TOKENS=128] [THREADS=0] [f32|bf16|q8] [SEQUENCES=1] [DEPTH=0]
 *
 * Opens the checkpoint, feeds a prompt of random tokens in chunks of 512, then decodes so many
 * tokens (argmax) of so many sequences together, and prints one line each, with the processor time
 * of all threads as well: that hardly depends on what else the machine does. With DEPTH the first
 * page of the prompt is repeated until there are so many positions, and only then decoding begins:
 * a depth that takes minutes to compute costs as much to read.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "model/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHUNK = 512, PAGE_TOK = 64, MAX_SEQ = 64 };

static void must(status st, const struct err *e)
{
    if (st >= 0)
        return;
    fprintf(stderr, "cpu_driver: %s\n", e->msg);
    exit(1);
}

static int number(char **argv, int argc, int i, int otherwise)
{
    int64_t v = otherwise;
    struct err e = {.msg = "arguments must be numbers"};
    if (i < argc)
        must(num_i64(argv[i], 0, 1 << 20, &v), &e);
    return (int)v;
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void memory(void)
{
    struct buf b;
    buf_init(&b, 1 << 16);
    if (file_read("/proc/self/status", &b, NULL) == OK) {
        const char *p = strstr(b.p, "VmHWM:");
        if (p)
            printf("peak resident %.*s\n", (int)strcspn(p + 6, "\n"), p + 6);
    }
    buf_fini(&b);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: cpu_driver FOLDER [PROMPT] [TOKENS] [THREADS] [ARITH] [SEQUENCES] "
                        "[DEPTH]\n");
        return 2;
    }
    int n_prompt = number(argv, argc, 2, 512), n_gen = number(argv, argc, 3, 128);
    int n_seq = min_int(MAX_SEQ, number(argv, argc, 6, 1));
    struct backend_opts o = {.n_thread = number(argv, argc, 4, 0), .arith = ARITH_BF16};
    if (argc > 5 && strcmp(argv[5], "f32") == 0)
        o.arith = ARITH_F32;
    if (argc > 5 && strcmp(argv[5], "q8") == 0)
        o.arith = ARITH_Q8;
    struct err e = {0};
    struct weights *w;
    struct backend *b;
    uint64_t start = clock_ns();
    must(weights_open(argv[1], NULL, &w, &e), &e);
    must(backend_cpu_open(w, &o, &b, &e), &e);
    int depth = max_int(n_prompt, number(argv, argc, 7, 0) / PAGE_TOK * PAGE_TOK);
    int n_page = (depth + n_gen) / PAGE_TOK + 1;
    struct kv_plan plan = {.page_tok = PAGE_TOK,
                           .n_full = n_page * n_seq,
                           .n_window = n_page * n_seq,
                           .max_rows = CHUNK,
                           .max_logit_rows = MAX_SEQ};
    must(b->kv_init(b, &plan, &e), &e);
    printf("open %.1f ms\n", clock_ms_since(start));
    int32_t *table = mem_array((size_t)(n_page * n_seq), sizeof *table);
    if (!table)
        return 1;
    for (int i = 0; i < n_page * n_seq; i++)
        table[i] = i;
    struct step_out out;
    double cpu = cpu_ms();
    start = clock_ns();
    for (int s = 0; s < n_seq; s++) {
        for (int pos = 0; pos < n_prompt; pos += CHUNK) {
            int32_t tok[CHUNK], last = min_int(CHUNK, n_prompt - pos) - 1;
            for (int i = 0; i <= last; i++)
                tok[i] =
                    (int32_t)(rng_uniform(1, (uint64_t)s, (uint64_t)(pos + i)) * w->spec.n_vocab);
            struct batch_seq q = {.n_row = last + 1,
                                  .pos0 = pos,
                                  .full = table + s * n_page,
                                  .window = table + s * n_page};
            struct batch batch = {.n_row = last + 1,
                                  .tok = tok,
                                  .n_seq = 1,
                                  .seq = &q,
                                  .n_logit = 1,
                                  .logit_row = &last};
            must(b->step(b, &batch, &out, &e), &e);
        }
    }
    double ms = clock_ms_since(start);
    printf("prefill %d tokens %.1f ms, %.1f tokens/s, processor %.2f ms a token\n",
           n_prompt * n_seq, ms, n_prompt * n_seq / ms * 1e3,
           (cpu_ms() - cpu) / max_int(1, n_prompt * n_seq));
    for (int i = 0; i < n_page * n_seq && depth > n_prompt; i++) {
        struct page_pair pair[2] = {{.from = i / n_page * n_page, .to = i}};
        pair[1] = pair[0];
        pair[1].window = true;
        if (i % n_page > 0)
            b->kv_copy(b, pair, 2);
    }
    int32_t tok[MAX_SEQ] = {0}, row[MAX_SEQ];
    double worst = 0, best = 1e300;
    cpu = cpu_ms();
    start = clock_ns();
    for (int i = 0; i < n_gen; i++) {
        struct batch_seq q[MAX_SEQ];
        for (int s = 0; s < n_seq; s++) {
            row[s] = s;
            q[s] = (struct batch_seq){.row0 = s,
                                      .n_row = 1,
                                      .pos0 = depth + i,
                                      .full = table + s * n_page,
                                      .window = table + s * n_page};
        }
        struct batch batch = {.n_row = n_seq,
                              .tok = tok,
                              .n_seq = n_seq,
                              .seq = q,
                              .n_logit = n_seq,
                              .logit_row = row};
        uint64_t step = clock_ns();
        must(b->step(b, &batch, &out, &e), &e);
        ms = clock_ms_since(step);
        worst = ms > worst ? ms : worst;
        best = ms < best ? ms : best;
        for (int s = 0; s < n_seq; s++) {
            const float *l = out.logits + (size_t)s * (size_t)w->spec.n_vocab;
            tok[s] = 0;
            for (int v = 1; v < w->spec.n_vocab; v++)
                tok[s] = l[v] > l[tok[s]] ? v : tok[s];
        }
    }
    ms = clock_ms_since(start);
    if (n_gen > 0)
        printf("decode %d tokens %.1f ms, %.1f tokens/s, a step %.2f to %.2f ms, processor %.2f ms "
               "a token\n",
               n_gen * n_seq, ms, n_gen * n_seq / ms * 1e3, best, worst,
               (cpu_ms() - cpu) / (n_gen * n_seq));
    memory();
    b->close(b);
    weights_close(w);
    mem_free(table);
    return 0;
}
