/* What Hopper's products share: the fences around its warpgroup instructions, sums joined over a
 * cluster, and bulk copies: boxes of a matrix into shared memory, with the barriers that tell when
 * they have arrived.
 */
#ifndef CUDA_HOPPER_H
#define CUDA_HOPPER_H

#include "cuda/dev.h"
#include "cuda/wgmma.h"

#include <cuda.h>

/* A matrix as the copy engine sees it: rows of `inner` numbers, `stride` bytes apart; what lies
 * outside reads as zeros. swizzle: rows of the box are 128 bytes, whose 16-byte pieces are placed
 * as wgmma wants. */
static inline CUtensorMap box_map(CUtensorMapDataType type, const void *p, size_t inner,
                                  size_t rows, size_t stride, int box_inner, int box_rows,
                                  bool swizzle)
{
    static decltype(&cuTensorMapEncodeTiled) encode;
    CUtensorMap m;
    cuuint64_t dim[2] = {inner, rows}, step[1] = {stride};
    cuuint32_t box[2] = {(cuuint32_t)box_inner, (cuuint32_t)box_rows}, one[2] = {1, 1};
    if (!encode) {
        cudaDriverEntryPointQueryResult found;
        CU(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)&encode, 12000,
                                            cudaEnableDefault, &found));
    }
    CUresult rc = encode(&m, type, 2, (void *)p, dim, step, box, one, CU_TENSOR_MAP_INTERLEAVE_NONE,
                         swizzle ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                         CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    CU(rc == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue);
    return m;
}

#ifdef GLOSS_WGMMA
static __device__ __forceinline__ void wg_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

template <int LEFT> static __device__ __forceinline__ void wg_end()
{
    if (LEFT)
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

static __device__ __forceinline__ void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* Four floats of the shared memory of block `rank` of the cluster. */
static __device__ __forceinline__ float4 load_cluster(uint32_t addr, int rank)
{
    uint32_t at;
    float4 v;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(addr), "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(at));
    return v;
}

/* Adds up the cluster's sums of N rows, kept THREADS * 16 bytes apart from `mine` on, in order;
 * each block hands every gridDim.z-th eight rows to `finish`. */
template <int THREADS, int N, typename G>
static __device__ __forceinline__ void join_cluster(const float (&acc)[N / 2], uint32_t mine,
                                                    const G &finish)
{
#pragma unroll
    for (int t = 0; t < N / 8; t++)
        asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(mine + t * THREADS * 16),
                     "f"(acc[4 * t]), "f"(acc[4 * t + 1]), "f"(acc[4 * t + 2]), "f"(acc[4 * t + 3])
                     : "memory");
    cluster_sync();
    for (int t = blockIdx.z; t < N / 8; t += gridDim.z) {
        float v[4] = {};
        for (int r = 0; r < gridDim.z; r++) {
            float4 u = load_cluster(mine + t * THREADS * 16, r);
            v[0] += u.x;
            v[1] += u.y;
            v[2] += u.z;
            v[3] += u.w;
        }
        finish(t, v);
    }
    cluster_sync(); /* nobody leaves while others read its memory */
}
#endif

#if __CUDA_ARCH__ >= 900
static __device__ __forceinline__ void bar_init(uint32_t bar, int n)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(n) : "memory");
}

/* The barriers made are seen by everybody, the copy engine too. */
static __device__ __forceinline__ void bar_ready()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

static __device__ __forceinline__ void bar_wait(uint32_t bar, uint32_t phase)
{
    asm volatile(
        "{\n.reg .pred p;\nagain:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra again;\n}" ::"r"(bar),
        "r"(phase)
        : "memory");
}

static __device__ __forceinline__ void bar_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

/* Arrives, and has the barrier wait for so many bytes as well. */
static __device__ __forceinline__ void bar_expect(uint32_t bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}

/* A box whose first number is (x, row y), to 128-byte aligned shared memory. */
static __device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap *m, int x, int y,
                                                uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(m), "r"(x), "r"(y), "r"(bar)
                 : "memory");
}
#endif
#endif
