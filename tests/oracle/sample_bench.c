/* Time of one choice at a vocabulary of 201,088, for the parameters that cost differently and for
 * distributions from flat to steep; processor time of the thread, minimum and median of 15 rounds.
 */
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { N = 201088, N_RANK = 199998, ROWS = 4, ROUNDS = 15, PER_ROUND = 8 };

static double cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    static const struct {
        const char *name;
        struct sample_params p;
        bool logprob, mask;
    } way[] = {
        {"greedy", {0}, false, false},
        {"greedy, held to legal headers", {0}, false, true},
        {"greedy, with its log-probability", {0}, true, false},
        {"temperature 1, with log-probability", {.temperature = 1}, true, false},
        {"the same, held to legal headers", {.temperature = 1}, true, true},
        {"temperature 0.7, with log-probability", {.temperature = 0.7f}, true, false},
        {"temperature 1, top-p 0.9", {.temperature = 1, .top_p = 0.9f}, false, false},
        {"temperature 1, top-k 40", {.temperature = 1, .top_k = 40}, false, false},
        {"temperature 1, min-p 0.05", {.temperature = 1, .min_p = 0.05f}, false, false},
    };
    struct sample_scratch s;
    float *row = mem_array((size_t)N * ROWS, sizeof *row);
    uint32_t *ordinary = mem_calloc(N / 32 + 1, sizeof *ordinary);
    if (!row || !ordinary || sample_scratch_open(&s, N) < 0)
        return 1;
    for (int i = 0; i < N_RANK; i++)
        ordinary[i / 32] |= (uint32_t)1 << (i % 32);
    for (int steep = 0; steep < 2; steep++) {
        for (int i = 0; i < N * ROWS; i++)
            row[i] = (float)(rng_uniform(1, 2, (uint64_t)i) * (steep ? 24 : 0.1));
        for (size_t k = 0; k < sizeof way / sizeof way[0]; k++) {
            double us[ROUNDS], lse;
            for (int round = 0; round < ROUNDS; round++) {
                double start = cpu_us();
                for (int i = 0; i < PER_ROUND; i++) {
                    struct sample_rules r = {.pos = (uint64_t)i, .mask.also = -1};
                    if (way[k].mask)
                        r.mask = (struct sample_mask){ordinary, N_RANK + 4};
                    (void)sample_token(row + (size_t)(i % ROWS) * N, &way[k].p, &r,
                                       way[k].logprob ? &lse : NULL, &s);
                }
                us[round] = (cpu_us() - start) / PER_ROUND;
            }
            qsort(us, ROUNDS, sizeof us[0], by_value);
            printf("%-5s  %-38s %6.0f %6.0f us\n", steep ? "steep" : "flat", way[k].name, us[0],
                   us[ROUNDS / 2]);
        }
    }
    sample_scratch_close(&s);
    mem_free(row);
    mem_free(ordinary);
    return 0;
}
