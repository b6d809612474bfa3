/* The kernel checker: every kernel x instruction set against kern_c.c.
 *
 *     test_kern [--list] [--bench] [--seed N] [FILTER]
 *
 * FILTER is a part of "set/kernel". Exit status: the number of failed kernels (at most 100), 2 for
 * bad usage. GLOSS_CPU limits the sets as it does in the program.
 */
#include "kern_check.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "seed.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- guarded memory -------------------------------------------------------------------------- */

enum { PATTERN = 0xa5, FENCE = 1 << 16 }; /* a fence is a page of any size in use */

static uint8_t *slots;
static struct {
    size_t at, n;
} used[N_SLOT];
static int n_used;

static uint8_t *slot(int i)
{
    return slots + (size_t)i * (SLOT_BYTES + FENCE) + FENCE;
}

void guard_init(void)
{
    size_t n = (size_t)N_SLOT * (SLOT_BYTES + FENCE) + FENCE;
    void *p = mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(100);
    }
    slots = p;
    for (int i = 0; i < N_SLOT; i++) {
        if (mprotect(slot(i), SLOT_BYTES, PROT_READ | PROT_WRITE) != 0) {
            perror("mprotect");
            exit(100);
        }
        memset(slot(i), PATTERN, SLOT_BYTES);
    }
}

enum { SEEN = 4096 }; /* pattern bytes checked on each side of an array */

void guard_reset(void)
{
    for (int i = 0; i < n_used; i++)
        memset(slot(i) + used[i].at, PATTERN, used[i].n);
    n_used = 0;
}

void *guard_new(size_t n)
{
    if (n_used == N_SLOT || n > SLOT_BYTES) {
        fprintf(stderr, "kern_check: out of slots\n");
        exit(100);
    }
    used[n_used].n = n;
    used[n_used].at = rnd(4) ? SLOT_BYTES - n : 0;
    n_used++;
    return slot(n_used - 1) + used[n_used - 1].at;
}

bool guard_intact(void)
{
    for (int i = 0; i < n_used; i++) {
        size_t lo = used[i].at, hi = lo + used[i].n;
        for (size_t j = lo > SEEN ? lo - SEEN : 0; j < lo; j++)
            if (slot(i)[j] != PATTERN)
                return false;
        for (size_t j = hi; j < SLOT_BYTES && j < hi + SEEN; j++)
            if (slot(i)[j] != PATTERN)
                return false;
    }
    return true;
}

/* ---- values ---------------------------------------------------------------------------------- */

static uint64_t seed, position;

void rnd_seed(uint64_t s)
{
    seed = s;
    position = 0;
}

static uint32_t rnd_word(void)
{
    static uint32_t w[4];
    if (position % 4 == 0)
        rng_block(seed, 1, position / 4, w);
    return w[position++ % 4];
}

uint32_t rnd(uint32_t n)
{
    return (uint32_t)((uint64_t)rnd_word() * n >> 32);
}

float rnd_value(enum values kind)
{
    static float g[4];
    static int left;
    static uint64_t at;
    if (left == 0) {
        rng_normal4(seed, 2, at++, g);
        left = 4;
    }
    float f = g[--left];
    if (kind == V_NORMAL)
        return f;
    if (rnd(16) == 0)
        return rnd(2) ? 0.0f : -0.0f;
    f *= powf(10, (float)rnd(9) - 4);
    if (kind == V_SPECIAL && rnd(8) == 0) {
        static const float s[] = {1e-40f, -3e-42f, 1.2e-38f, 2e19f, -5e18f, 1e-30f};
        f = s[rnd(6)];
    }
    return f;
}

float *rnd_floats(size_t n, enum values kind)
{
    float *p = guard_new(n * sizeof *p);
    for (size_t i = 0; i < n; i++) {
        float f = rnd_value(kind);
        memcpy((uint8_t *)p + i * sizeof f, &f, sizeof f);
    }
    return p;
}

bool near(float got, float want, double tolerance)
{
    if (isnan(want))
        return isnan(got);
    if (isinf(want))
        return !isfinite(got);
    return fabs((double)got - (double)want) <= tolerance;
}

/* ---- reports and faults ---------------------------------------------------------------------- */

static char what[256];
static int n_complaint;
static sigjmp_buf escape;

void about(const char *fmt, ...)
{
    va_list a;
    va_start(a, fmt);
    vsnprintf(what, sizeof what, fmt, a);
    va_end(a);
}

void complain(const char *fmt, ...)
{
    if (n_complaint++ > 2)
        return;
    va_list a;
    va_start(a, fmt);
    printf("    %s: ", what);
    vprintf(fmt, a);
    printf("\n");
    va_end(a);
}

static void on_fault(int sig)
{
    siglongjmp(escape, sig);
}

/* Returns whether the kernel passed. */
static bool check(const struct kern_case *k, const char *set, const struct cpu_kern *ref,
                  const struct cpu_kern *test)
{
    n_complaint = 0;
    what[0] = '\0';
    int sig = sigsetjmp(escape, 1);
    if (sig == 0)
        k->check(ref, test, k->i);
    else
        printf("    %s: %s\n", what,
               sig == SIGILL ? "illegal instruction" : "fault: out of bounds");
    guard_reset();
    bool ok = sig == 0 && n_complaint == 0;
    printf("%s %s/%s\n", ok ? "ok  " : "FAIL", set, k->name);
    if (sig != 0) { /* a kernel that wrote wild may have hit other slots */
        for (int i = 0; i < N_SLOT; i++)
            memset(slot(i), PATTERN, SLOT_BYTES);
    }
    return ok;
}

/* ---- timing ---------------------------------------------------------------------------------- */

void *bench_block(size_t n)
{
    static uint32_t *block;
    if (n > BENCH_BYTES) {
        fprintf(stderr, "kern_check: benchmark block too small\n");
        exit(100);
    }
    if (!block) {
        block = mem_aligned(4096, BENCH_BYTES);
        if (!block)
            exit(100);
        /* Any bits: bf16, f16 and floats of moderate size, and codes. 0x3c to 0x3e in the top byte.
         */
        for (size_t i = 0; i < BENCH_BYTES / 4; i++)
            block[i] = ((uint32_t)i * 2654435761u & 0x82ff82ff) | 0x3c003c00;
    }
    return block;
}

/* What the machine and a set's instructions reach in this run, one thread. */
struct limits {
    double read;          /* bytes a nanosecond */
    double f32, bf16, q8; /* operations a nanosecond: products of floats, of bf16, of bytes */
};

static double read_rate(void)
{
    typedef uint64_t part __attribute__((vector_size(16)));
    const part *p = bench_block(BENCH_BYTES);
    double best = 1e30;
    static volatile uint64_t sink; /* else nothing would be read */
    for (int run = 0; run < 5; run++) {
        part s[4] = {{0}};
        uint64_t start = clock_ns();
        for (size_t i = 0; i < BENCH_BYTES / sizeof *p; i += 4) {
            __builtin_prefetch(p + i + 256);
            for (size_t j = 0; j < 4; j++)
                s[j] ^= p[i + j];
        }
        double ns = (double)(clock_ns() - start);
        s[0] ^= s[1] ^ s[2] ^ s[3];
        sink = s[0][0] ^ s[0][1];
        best = ns < best ? ns : best;
    }
    (void)sink;
    return BENCH_BYTES / best;
}

static double peak_rate(double (*peak)(int n, float *out))
{
    double best = 0;
    for (int run = 0; run < 20; run++) {
        float out;
        uint64_t start = clock_ns();
        double flops = peak(1 << 14, &out);
        double rate = flops / (double)(clock_ns() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

static struct limits limits_of(const struct cpu_kern *k)
{
    return (struct limits){read_rate(), peak_rate(k->peak), peak_rate(k->peak_bf16),
                           peak_rate(k->peak_q8)};
}

/* A number of 16 bits is two bytes, hence two products. */
static double peak_of(const struct limits *l, const char *name)
{
    if (strstr(name, "q16"))
        return l->q8 / 2;
    if (strstr(name, "mul") && strstr(name, "q8"))
        return l->q8;
    return strncmp(name, "mul_bf16", 8) == 0 || strncmp(name, "mul_mx_bf16", 11) == 0 ? l->bf16
                                                                                      : l->f32;
}

static void bench(const struct kern_case *k, const char *set, const struct cpu_kern *test,
                  const struct limits *l)
{
    double bytes = 0, flops = 0, best = 1e30, total = 0;
    for (int i = 0; i < 3 || (total < 2e8 && i < 100000); i++) {
        uint64_t start = clock_ns();
        k->bench(test, k->i, &bytes, &flops);
        double ns = (double)(clock_ns() - start);
        total += ns;
        best = ns < best ? ns : best;
    }
    printf("%-8s %-22s %12.0f ns %8.2f GB/s %8.2f GFLOP/s %6.2f of read %5.2f of peak\n", set,
           k->name, best, bytes / best, flops / best, bytes / best / l->read,
           flops / best / peak_of(l, k->name));
}

/* ---- main ------------------------------------------------------------------------------------ */

struct kern_set {
    const char *name;
    unsigned flags; /* of the table */
    unsigned need;
};

static int run_set(const struct kern_set *set, const char *filter, bool list, bool timing)
{
    struct cpu_kern ref, test;
    int failed = 0;
    cpu_kern_init(&ref, 0);
    cpu_kern_init(&test, set->flags);
    struct limits l = {0};
    bool told = !timing || list;
    for (int i = 0; i < n_mul_cases + n_row_cases + n_q8_cases; i++) {
        const struct kern_case *k = i < n_mul_cases ? &mul_cases[i]
                                    : i < n_mul_cases + n_row_cases
                                        ? &row_cases[i - n_mul_cases]
                                        : &q8_cases[i - n_mul_cases - n_row_cases];
        char name[64];
        snprintf(name, sizeof name, "%s/%s", set->name, k->name);
        if (filter && !strstr(name, filter))
            continue;
        if (set->flags && k->pointer(&ref, k->i) == k->pointer(&test, k->i))
            continue; /* the set has no version of its own */
        if (!timing && !k->check)
            continue;
        if (!told) {
            l = limits_of(&test);
            told = true;
            printf("%-8s read %.1f GB/s; peak of floats %.1f, bf16 %.1f, bytes %.1f GFLOP/s\n",
                   set->name, l.read, l.f32, l.bf16, l.q8);
        }
        if (list)
            printf("%s\n", name);
        else if (timing)
            bench(k, set->name, &test, &l);
        else
            failed += !check(k, set->name, &ref, &test);
    }
    return failed;
}

int main(int argc, char **argv)
{
    static const struct kern_set sets[] = {
        {"c", 0, 0},
        {"avx2", CPU_AVX2, CPU_AVX2},
        {"avxvnni", CPU_AVX2 | CPU_AVXVNNI, CPU_AVXVNNI},
        {"avx512", CPU_AVX2 | CPU_AVX512, CPU_AVX512},
        {"amx", CPU_AVX2 | CPU_AVX512 | CPU_AMX, CPU_AMX},
        {"neon", CPU_NEON, CPU_NEON},
        {"dotprod", CPU_NEON | CPU_DOTPROD, CPU_DOTPROD},
        {"i8mm", CPU_NEON | CPU_I8MM, CPU_I8MM},
    };
    const char *filter = NULL;
    bool list = false, timing = false;
    uint64_t s = test_seed();
    for (int i = 1; i < argc; i++) {
        int64_t v;
        if (strcmp(argv[i], "--list") == 0) {
            list = true;
        } else if (strcmp(argv[i], "--bench") == 0) {
            timing = true;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc &&
                   num_i64(argv[i + 1], 0, INT64_MAX, &v) == OK) {
            s = (uint64_t)v;
            i++;
        } else if (argv[i][0] != '-') {
            filter = argv[i];
        } else {
            fprintf(stderr, "usage: test_kern [--list] [--bench] [--seed N] [FILTER]\n");
            return 2;
        }
    }
    unsigned flags;
    struct err e;
    if (cpu_flags(&flags, &e) < 0) {
        fprintf(stderr, "test_kern: %s\n", e.msg);
        return 2;
    }
    if (!list && !timing)
        printf("seed %llu\n", (unsigned long long)s);
    rnd_seed(s);
    guard_init();
    struct sigaction act = {.sa_handler = on_fault};
    for (size_t i = 0; i < 3; i++)
        sigaction((int[]){SIGSEGV, SIGBUS, SIGILL}[i], &act, NULL);
    int failed = 0;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if ((flags & sets[i].need) == sets[i].need)
            failed += run_set(&sets[i], filter, list, timing);
    if (failed)
        printf("%d failed\n", failed);
    return failed > 100 ? 100 : failed;
}
