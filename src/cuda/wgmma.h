/* Hopper's warpgroup instructions of the widths in use: c[64 outputs, N rows] += a (registers)
 * times b (shared memory, rows of 128 bytes, swizzled); wgmma of 16 inputs in bf16, wgmma8 of 32 in
 * e4m3.
 */
#ifndef CUDA_WGMMA_H
#define CUDA_WGMMA_H

#include <stdint.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define GLOSS_WGMMA
#endif

#ifdef GLOSS_WGMMA
/* The sums' names in the instruction, with those of the operands behind them, and where they are.
 */
#define SUMS_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define SUMS_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define SUMS_32                                                                                    \
    SUMS_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SUMS_48                                                                                    \
    SUMS_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define SUMS_64                                                                                    \
    SUMS_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SUMS_96                                                                                    \
    SUMS_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"     \
            ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define SUMS_128                                                                                   \
    SUMS_96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "   \
            "%110, %111"                                                                           \
            ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "     \
            "%125, %126, %127"
#define REST_8 "{%8, %9, %10, %11}, %12"
#define REST_16 "{%16, %17, %18, %19}, %20"
#define REST_32 "{%32, %33, %34, %35}, %36"
#define REST_48 "{%48, %49, %50, %51}, %52"
#define REST_64 "{%64, %65, %66, %67}, %68"
#define REST_96 "{%96, %97, %98, %99}, %100"
#define REST_128 "{%128, %129, %130, %131}, %132"
#define AT_4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define AT_8(i) AT_4(i), AT_4(i + 4)
#define AT_16(i) AT_8(i), AT_8(i + 8)
#define AT_32(i) AT_16(i), AT_16(i + 16)
#define AT_48(i) AT_32(i), AT_16(i + 32)
#define AT_64(i) AT_32(i), AT_32(i + 32)
#define AT_96(i) AT_64(i), AT_32(i + 64)
#define AT_128(i) AT_64(i), AT_64(i + 64)

#define WGMMA(name, N, S, kind, flags)                                                             \
    static __device__ __forceinline__ void name(float(&c)[S], const uint32_t a[4], uint64_t b)     \
    {                                                                                              \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N kind " {" SUMS_##S "}, " REST_##S      \
                     ", 1, 1, 1" flags ";"                                                         \
                     : AT_##S(0)                                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                        \
    }
#define WGMMA_BOTH(N, S)                                                                           \
    WGMMA(wgmma, N, S, "k16.f32.bf16.bf16", ", 0")                                                 \
    WGMMA(wgmma8, N, S, "k32.f32.e4m3.e4m3", "")

WGMMA(wgmma8, 16, 8, "k32.f32.e4m3.e4m3", "")
WGMMA_BOTH(32, 16)
WGMMA_BOTH(64, 32)
WGMMA_BOTH(96, 48)
WGMMA_BOTH(128, 64)
WGMMA_BOTH(192, 96)
WGMMA_BOTH(256, 128)
#endif

#endif
