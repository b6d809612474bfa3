/* Which instruction sets may run here, and the kernel table built from them. */
#include "cpu/kern.h"

#include "base/num.h"
#include "model/backend.h"

#include <pthread.h>
#include <stdlib.h>

float kern_e8m0[256];
const int8_t kern_mx_twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
_Alignas(64) uint16_t kern_mx_bf16[256][32];
_Alignas(64) uint8_t kern_mx_byte[256][2][32];

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* Asks Linux for the tiles' 8 KiB of state; threads started later have the permission too. */
static bool tiles_granted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}

/* The bits that FLAGS_kern_avx2, _avxvnni, _avx512 and _amx of the Makefile let the compiler use,
 * all of them (Intel SDM volume 2, CPUID leaves 1 and 7), and the registers that the system saves.
 */
static unsigned detect(void)
{
    unsigned a, b, c, d, flags = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    uint64_t saved = xcr0();
    if ((saved & 6) != 6 || !(c & bit_AVX) || !(c & bit_FMA) || !(c & bit_F16C))
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2))
        return 0;
    flags |= CPU_AVX2;
    unsigned one, b1, c1, d1;
    if (!__get_cpuid_count(7, 1, &one, &b1, &c1, &d1))
        one = 0;
    if (one & bit_AVXVNNI)
        flags |= CPU_AVXVNNI;
    unsigned need = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    if ((saved & 0xe6) != 0xe6 || (b & need) != need || !(c & bit_AVX512VBMI) ||
        !(c & bit_AVX512VNNI))
        return flags;
    if (!(one & bit_AVX512BF16))
        return flags;
    flags |= CPU_AVX512;
    /* 3 << 17: the tiles' shapes and contents, of which the system grants the latter on request */
    const unsigned tiles = bit_AMX_TILE | bit_AMX_BF16 | bit_AMX_INT8;
    if ((saved & 3 << 17) == 3 << 17 && (d & tiles) == tiles && tiles_granted())
        flags |= CPU_AMX;
    return flags;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

/* Advanced SIMD is part of every AArch64 processor that Linux runs on. */
static unsigned detect(void)
{
    unsigned flags = CPU_NEON | (getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? CPU_DOTPROD : 0);
    return flags | (getauxval(AT_HWCAP2) & HWCAP2_I8MM ? CPU_I8MM : 0);
}
#else
static unsigned detect(void)
{
    return 0;
}
#endif

status cpu_flags(unsigned *flags, struct err *e)
{
    static const struct {
        const char *name;
        unsigned allowed, needed;
    } mask[] = {
        {"c", 0, 0},
        {"avx2", CPU_AVX2, CPU_AVX2},
        {"avxvnni", CPU_AVX2 | CPU_AVXVNNI, CPU_AVXVNNI},
        {"avx512", CPU_AVX2 | CPU_AVXVNNI | CPU_AVX512, CPU_AVX512},
        {"amx", CPU_AVX2 | CPU_AVXVNNI | CPU_AVX512 | CPU_AMX, CPU_AMX},
        {"neon", CPU_NEON, CPU_NEON},
        {"dotprod", CPU_NEON | CPU_DOTPROD, CPU_DOTPROD},
        {"i8mm", CPU_NEON | CPU_DOTPROD | CPU_I8MM, CPU_I8MM},
    };
    unsigned have = detect();
    *flags = have;
    const char *want = getenv("GLOSS_CPU");
    if (!want || !*want)
        return OK;
    for (size_t i = 0; i < sizeof mask / sizeof *mask; i++) {
        if (strcmp(want, mask[i].name) != 0)
            continue;
        if ((have & mask[i].needed) != mask[i].needed)
            return err_param(e, E_DEVICE, "GLOSS_CPU", "GLOSS_CPU=%s: this processor lacks it",
                             want);
        *flags = have & mask[i].allowed;
        return OK;
    }
    return err_param(
        e, E_INPUT, "GLOSS_CPU",
        "GLOSS_CPU=%.20s: must be c, avx2, avxvnni, avx512, amx, neon, dotprod or i8mm", want);
}

static void fill_tables(void)
{
    for (int s = 0; s < 256; s++) {
        kern_e8m0[s] = e8m0_f32((uint8_t)s);
        for (int i = 0; i < 32; i++) {
            uint16_t h = f32_bf16(e2m1_f32[i & 15] * kern_e8m0[s]);
            kern_mx_bf16[s][i] = h;
            kern_mx_byte[s][0][i] = (uint8_t)h;
            kern_mx_byte[s][1][i] = (uint8_t)(h >> 8);
        }
    }
}

void cpu_kern_init(struct cpu_kern *k, unsigned flags)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_tables);
    kern_c_init(k);
#if defined(__x86_64__)
    if (flags & CPU_AVX2)
        kern_avx2_init(k);
    if (flags & CPU_AVXVNNI)
        kern_avxvnni_init(k);
    if (flags & CPU_AVX512)
        kern_avx512_init(k);
    if (flags & CPU_AMX)
        kern_amx_init(k);
#elif defined(__aarch64__)
    if (flags & CPU_NEON)
        kern_neon_init(k);
    if (flags & CPU_DOTPROD)
        kern_dotprod_init(k);
    if (flags & CPU_I8MM)
        kern_i8mm_init(k);
#else
    (void)flags;
#endif
}

const char *backend_cpu_features(void)
{
#if defined(__x86_64__)
    return "c avx2 avxvnni avx512 amx";
#elif defined(__aarch64__)
    return "c neon dotprod i8mm";
#else
    return "c";
#endif
}

const char *backend_cpu_name(void)
{
    unsigned flags;
    struct cpu_kern k;
    if (cpu_flags(&flags, NULL) < 0)
        return "none";
    cpu_kern_init(&k, flags);
    return k.name;
}
