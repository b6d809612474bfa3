/* Weights on their way to the card: file -> pinned ring -> staging on the card -> fragment order.
 *
 * A ring of pinned buffers lets reading the mapped file, the copy over the bus and the kernels that
 * put a piece into fragment order (dev.h) run at the same time. Nothing converted is kept on the
 * host or on disk.
 *
 * Bits of MXFP4 on the card. A 32-bit word holds the eight codes of a lane's k-slice: register a_j
 * takes two, the inputs of a pair, one in each half. A code is sign, two exponent bits, one
 * mantissa bit; at bits 15, 8, 7, 6 of its half it is a bf16 number, 2^-126 times the value.
 * Registers lie in the word moved so that few instructions bring them there: a_0: as they are a_1:
 * rotated left by 4    a_2: shifted right by 6 a_3: bit 8 shifted left by 6, the others right by 2
 * The scale byte s (at most 128) becomes s + 126, the exponent field of 2^(s-1) = 2^126 *
 * 2^(s-127). Larger scale bytes are lowered by a constant that returns in dmat.gain; 255 (not a
 * number) stays, the exponent of Inf, so that damage reaches the logits and is reported there.
 *
 * Bits of MX8. The low half of a word holds the magnitudes of row g's four inputs 2q, 2q + 1, 2q +
 * 8, 2q + 9 in the nibbles' bits 0..2, the high half row g + 8's: selectors of the byte-permute
 * instruction, which looks up e4m3 numbers in eight bytes. Signs of row g at bits 7, 15, 23, 31, of
 * row g + 8 four below. A scale byte is e, 1 to 12: the exponent field of the e4m3 number for 0.5.
 * A row's largest scale becomes 12, and 2^n in row_gain puts that right; so what is up to 2^11
 * times smaller is exact. Codes of blocks with smaller scales are rounded to those of e = 1. A row
 * with the scale 255 (not a number) has NaN in row_gain.
 *
 * Bits of 8-bit blocks. 32 inputs of a row share a scale, their largest magnitude / 127; a number
 * is a sign and a magnitude of 7 bits. A word holds registers a_j (j even) and a_j+1 of a slice,
 * each half one of the two inputs of every pair: a_j: sign at bit 15, magnitude at bits 7..1: as
 * bf16 2^-132 times the number a_j+1: magnitude at bits 14..8, sign at bit 0 of the other half The
 * scale, times 2^132, is kept in bf16; a matrix with numbers of 7.9 and more is scaled down by a
 * power of two that returns in dmat.gain.
 */
#include "cuda/dev.h"

extern "C" {
#include "base/mem.h"
}

#include <math.h>
#include <string.h>

enum { RING = 4 };
static const size_t piece_bytes = (size_t)36 << 20; /* an expert's gate and up in bf16 */

struct upload {
    uint8_t *pinned[RING];
    uint8_t *stage[RING];
    cudaEvent_t done[RING];
    cudaStream_t stream;
    int next;
};

static status dev_error(struct err *e, cudaError_t rc, const char *what)
{
    if (rc == cudaErrorMemoryAllocation)
        return err_set(e, E_NOMEM, "the card's memory does not hold the model (%s)", what);
    return err_set(e, E_DEVICE, "CUDA: %s: %s", what, cudaGetErrorString(rc));
}

status upload_open(struct upload **out, struct err *e)
{
    struct upload *u = (struct upload *)mem_calloc(1, sizeof *u);
    *out = u;
    if (!u)
        return err_set(e, E_NOMEM, "out of memory");
    cudaError_t rc = cudaStreamCreateWithFlags(&u->stream, cudaStreamNonBlocking);
    for (int i = 0; i < RING && rc == cudaSuccess; i++) {
        rc = cudaHostAlloc((void **)&u->pinned[i], piece_bytes, cudaHostAllocDefault);
        if (rc == cudaSuccess)
            rc = cudaMalloc((void **)&u->stage[i], piece_bytes);
        if (rc == cudaSuccess)
            rc = cudaEventCreateWithFlags(&u->done[i], cudaEventDisableTiming);
    }
    return rc == cudaSuccess ? OK : dev_error(e, rc, "buffers for loading");
}

void upload_close(struct upload *u)
{
    if (!u)
        return;
    if (u->stream)
        cudaStreamSynchronize(u->stream);
    for (int i = 0; i < RING; i++) {
        cudaFreeHost(u->pinned[i]);
        cudaFree(u->stage[i]);
        if (u->done[i])
            cudaEventDestroy(u->done[i]);
    }
    if (u->stream)
        cudaStreamDestroy(u->stream);
    mem_free(u);
}

status upload_sync(struct upload *u, struct err *e)
{
    cudaError_t rc = cudaStreamSynchronize(u->stream);
    return rc == cudaSuccess ? OK : dev_error(e, rc, "loading the weights");
}

/* Brings up to piece_bytes onto the card; *dev is theirs until piece_end. */
static cudaError_t piece_begin(struct upload *u, const void *p, size_t n, uint8_t **dev)
{
    int i = u->next;
    cudaError_t rc = cudaEventSynchronize(u->done[i]);
    if (rc != cudaSuccess)
        return rc;
    memcpy(u->pinned[i], p, n);
    *dev = u->stage[i];
    return cudaMemcpyAsync(u->stage[i], u->pinned[i], n, cudaMemcpyHostToDevice, u->stream);
}

static cudaError_t piece_end(struct upload *u)
{
    int i = u->next;
    u->next = (i + 1) % RING;
    cudaError_t rc = cudaGetLastError();
    return rc == cudaSuccess ? cudaEventRecord(u->done[i], u->stream) : rc;
}

status upload_raw(struct upload *u, const void *p, size_t n, void *out, struct err *e)
{
    for (size_t at = 0; at < n; at += piece_bytes) {
        size_t m = n - at < piece_bytes ? n - at : piece_bytes;
        uint8_t *dev;
        cudaError_t rc = piece_begin(u, (const uint8_t *)p + at, m, &dev);
        if (rc == cudaSuccess)
            rc = cudaMemcpyAsync((uint8_t *)out + at, dev, m, cudaMemcpyDeviceToDevice, u->stream);
        if (rc == cudaSuccess)
            rc = piece_end(u);
        if (rc != cudaSuccess)
            return dev_error(e, rc, "loading the weights");
    }
    return OK;
}

status upload_floats(struct upload *u, const float *p, size_t n, float **out, struct err *e)
{
    cudaError_t rc = cudaMalloc((void **)out, n * sizeof **out);
    if (rc != cudaSuccess)
        return dev_error(e, rc, "vectors");
    return upload_raw(u, p, n * sizeof *p, *out, e);
}

/* Output row of tile row i of tile t. */
static __device__ int row_of(int order, int t, int i)
{
    switch (order) {
    case ORDER_ROPE:
        return t / 4 * HEAD + t % 4 * 8 + (i < 8 ? i : HEAD / 2 + i - 8);
    case ORDER_PAIR:
        return 2 * (8 * t + i % 8) + (i >= 8);
    default:
        return 16 * t + i;
    }
}

/* Tiles [t0, t0 + gridDim.x) from the rows [row0, ...) in `src`, whose element (row, k) lies at
 * (row - row0) * ld_row + k * ld_k. */
static __global__ void frag_bf16(const uint16_t *src, size_t ld_row, size_t ld_k, int row0,
                                 int order, int t0, int tile_at, int n_out, int n_in, int n_step,
                                 uint4 *dst)
{
    int t = t0 + blockIdx.x, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    for (int i = threadIdx.x / 32; i < n_step * 4; i += blockDim.x / 32) {
        uint32_t r[4];
        for (int j = 0; j < 4; j++) {
            int row = row_of(order, t, g + j % 2 * 8);
            int k = i * 16 + 2 * q + j / 2 * 8;
            uint32_t v = 0;
            for (int b = 0; b < 2; b++)
                if (row < n_out && k + b < n_in)
                    v |= (uint32_t)src[(size_t)(row - row0) * ld_row + (k + b) * ld_k] << (16 * b);
            r[j] = v;
        }
        dst[((size_t)(tile_at + t) * n_step * 4 + i) * 32 + lane] =
            make_uint4(r[0], r[1], r[2], r[3]);
    }
}

/* The two codes of register j, at their places in the word. */
static __device__ uint32_t code_bits(uint32_t lo, uint32_t hi, int j)
{
    uint32_t v = 0, c[2] = {lo, hi};
    for (int i = 0; i < 2; i++)
        v |= ((c[i] & 8) << 12 | (c[i] & 7) << 6) << (16 * i);
    switch (j) {
    case 0:
        return v;
    case 1:
        return __funnelshift_l(v, v, 4);
    case 2:
        return v >> 6;
    default:
        return (v & 0x80C080C0) >> 2 | (v & 0x01000100) << 6;
    }
}

/* The same for one expert's MXFP4 rows. */
static __global__ void frag_mx(const uint8_t *codes, const uint8_t *scales, int row0, int order,
                               int t0, int tile_at, int n_out, int n_in, int n_step, int drop,
                               uint4 *dst, uint32_t *dst_scale)
{
    int t = t0 + blockIdx.x, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int n_block = n_in / 32;
    for (int i = threadIdx.x / 32; i < n_step; i += blockDim.x / 32) {
        uint32_t w[4];
        for (int s = 0; s < 4; s++) {
            w[s] = 0;
            for (int j = 0; j < 4; j++) {
                int row = row_of(order, t, g + j % 2 * 8);
                int k = i * STEP + 16 * s + 2 * q + j / 2 * 8;
                if (row >= n_out || k >= n_in)
                    continue;
                uint8_t two = codes[((size_t)(row - row0) * n_block + k / 32) * 16 + k % 32 / 2];
                w[s] |= code_bits(two & 15, two >> 4, j);
            }
        }
        size_t at = (size_t)(tile_at + t) * n_step + i;
        dst[at * 32 + lane] = make_uint4(w[0], w[1], w[2], w[3]);
        if (q == 0) {
            uint32_t four = 0;
            for (int j = 0; j < 4; j++) {
                int row = row_of(order, t, g + j % 2 * 8), b = i * 2 + j / 2, v = 0;
                if (row < n_out && b < n_block) {
                    int s = scales[(size_t)(row - row0) * n_block + b];
                    v = s == 255 ? 255 : (s - drop < 0 ? 0 : s - drop) + 126;
                }
                four |= (uint32_t)v << (8 * j);
            }
            dst_scale[at * 8 + g] = four;
        }
    }
}

/* The code of a number's 2^-down, rounded to the nearest, to an even code between two. */
static __device__ uint32_t lowered(uint32_t code, int down)
{
    static const float of[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    float v = ldexpf(of[code & 7], -down);
    uint32_t c = 0;
    while (c < 7 && (v > (of[c] + of[c + 1]) / 2 || (v == (of[c] + of[c + 1]) / 2 && c % 2)))
        c++;
    return (code & 8) | c;
}

/* The same into MX8; row_gain [16] of a tile. 256 threads. */
static __global__ void frag_mx8(const uint8_t *codes, const uint8_t *scales, int row0, int order,
                                int t0, int tile_at, int n_out, int n_in, int n_step, uint4 *dst,
                                uint32_t *dst_scale, float *row_gain)
{
    enum { TOP = 12 };
    __shared__ int base_of[TILE_ROWS];
    int t = t0 + blockIdx.x, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int n_block = n_in / 32;
    if (threadIdx.x < TILE_ROWS) {
        int row = row_of(order, t, threadIdx.x), most = TOP;
        bool nan = false;
        for (int b = 0; row < n_out && b < n_block; b++) {
            int s = scales[(size_t)(row - row0) * n_block + b];
            nan |= s == 255;
            most = s != 255 && s > most ? s : most;
        }
        base_of[threadIdx.x] = most - TOP;
        /* the number of a code, decoded with e: 2^(e - 6) times its value */
        row_gain[(size_t)(tile_at + t) * TILE_ROWS + threadIdx.x] =
            nan ? NAN : ldexpf(1, most - 127 - (TOP - 6));
    }
    __syncthreads();
    for (int i = threadIdx.x / 32; i < n_step; i += blockDim.x / 32) {
        uint32_t w[4] = {}, four = 0;
        for (int j = 0; j < 4; j++) { /* row g + 8h of block b */
            int h = j % 2, row = row_of(order, t, g + 8 * h), b = i * 2 + j / 2;
            bool in = row < n_out && b < n_block;
            size_t at = in ? (size_t)(row - row0) * n_block + b : 0;
            int base = base_of[g + 8 * h], e = in ? scales[at] - base : 1;
            int down = e < 1 ? 1 - e : 0;
            four |= (uint32_t)(e + down < TOP ? e + down : TOP) << (8 * j);
            if (!in)
                continue;
            for (int k = 0; k < 8; k++) { /* its inputs 2q, 2q + 1, 2q + 8, ... */
                uint32_t two = codes[at * 16 + q + k / 2 * 4];
                uint32_t c = lowered(two >> (4 * (k % 2)) & 15, down), *to = &w[j / 2 * 2 + k / 4];
                *to |= (c & 7) << (16 * h + 4 * (k % 4)) | (c >> 3) << (8 * (k % 4) + (h ? 3 : 7));
            }
        }
        size_t at = (size_t)(tile_at + t) * n_step + i;
        dst[at * 32 + lane] = make_uint4(w[0], w[1], w[2], w[3]);
        if (q == 0)
            dst_scale[at * 8 + g] = four;
    }
}

/* bf16 rows into 8-bit blocks, the other arguments as of frag_bf16. */
static __global__ void frag_q8(const uint16_t *src, size_t ld_row, int row0, int order, int t0,
                               int tile_at, int n_out, int n_in, int n_step, float shrink,
                               uint4 *dst, uint32_t *dst_scale)
{
    int t = t0 + blockIdx.x, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    for (int i = threadIdx.x / 32; i < n_step; i += blockDim.x / 32) {
        size_t at = (size_t)(tile_at + t) * n_step + i;
        uint32_t w[2][4] = {}; /* [block][two words of each of its slices] */
        for (int h = 0; h < 2; h++) {
            int row = row_of(order, t, g + h * 8);
            uint32_t scales = 0;
            for (int b = 0; b < 2; b++) {
                float v[8]; /* of slices 2b and 2b + 1: two pairs each */
                float most = 0, nan = 0;
                for (int j = 0; j < 8; j++) {
                    int k = i * STEP + 32 * b + j / 4 * 16 + 2 * q + j / 2 % 2 * 8 + j % 2;
                    bool in = row < n_out && k < n_in;
                    uint32_t bits = in ? src[(size_t)(row - row0) * ld_row + k] : 0u;
                    v[j] = __uint_as_float(bits << 16) * shrink;
                    most = fmaxf(most, fabsf(v[j]));
                    nan += v[j] * 0; /* of NaN and Inf */
                }
                for (int o = 1; o < 4; o *= 2) {
                    most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
                    nan += __shfl_xor_sync(~0u, nan, o);
                }
                most += nan;
                __nv_bfloat16 d = __float2bfloat16(most / 127 * 0x1p66f * 0x1p66f);
                float inv = most > 0 ? 1 / (__bfloat162float(d) * 0x1p-66f * 0x1p-66f) : 0;
                scales |= (uint32_t)__bfloat16_as_ushort(d) << (16 * b);
                for (int j = 0; j < 8; j++) {
                    uint32_t n = (uint32_t)fminf(rintf(fabsf(v[j]) * inv), 127);
                    uint32_t neg = v[j] < 0, hi = j % 2 * 16; /* which half */
                    uint32_t *word = &w[b][j / 4 * 2 + j / 2 % 2];
                    *word |=
                        h ? n << (8 + hi) | neg << (16 - hi) : n << (1 + hi) | neg << (15 + hi);
                }
            }
            if (q == 0)
                dst_scale[at * 16 + 2 * g + h] = scales;
        }
        for (int b = 0; b < 2; b++)
            dst[(at * 2 + b) * 32 + lane] = make_uint4(w[b][0], w[b][1], w[b][2], w[b][3]);
    }
}

static status alloc_mat(struct dmat *m, int n_mat, enum form form, struct err *e)
{
    size_t steps = (size_t)n_mat * m->n_tile * m->n_step;
    bool mx = form == FORM_MX || form == FORM_MX8;
    int pieces = mx ? 32 : form == FORM_Q8 ? 64 : 128;
    cudaError_t rc = cudaMalloc((void **)&m->w, steps * pieces * sizeof *m->w);
    if (rc == cudaSuccess && form != FORM_BF16)
        rc = cudaMalloc((void **)&m->scale, steps * (mx ? 32 : 64));
    if (rc == cudaSuccess && form == FORM_MX8)
        rc = cudaMalloc((void **)&m->row_gain,
                        (size_t)n_mat * m->n_tile * TILE_ROWS * sizeof *m->row_gain);
    return rc == cudaSuccess ? OK : dev_error(e, rc, "matrices");
}

/* Rows that one tile of this order spans, and its first row. */
static int tile_span(int order)
{
    return order == ORDER_ROPE ? HEAD : TILE_ROWS;
}

/* As the matrix's form says: 8-bit blocks if it has scales. */
static cudaError_t put_dense(struct upload *u, const void *p, int n_out, int n_in, int order,
                             int tile_at, const struct dmat *m)
{
    int span = tile_span(order), tiles = span / TILE_ROWS;
    size_t row_bytes = (size_t)n_in * 2;
    int rows = (int)(piece_bytes / row_bytes) / span * span;
    cudaError_t rc = cudaSuccess;
    for (int r = 0; r < n_out && rc == cudaSuccess; r += rows) {
        int n = n_out - r < rows ? n_out - r : rows;
        uint8_t *dev;
        rc =
            piece_begin(u, (const uint8_t *)p + (size_t)r * row_bytes, (size_t)n * row_bytes, &dev);
        if (rc != cudaSuccess)
            break;
        int n_tile = (n + span - 1) / span * tiles;
        int t0 = r / span * tiles;
        if (m->scale)
            frag_q8<<<n_tile, 256, 0, u->stream>>>((const uint16_t *)dev, (size_t)n_in, r, order,
                                                   t0, tile_at, n_out, n_in, m->n_step, 1 / m->gain,
                                                   m->w, m->scale);
        else
            frag_bf16<<<n_tile, 256, 0, u->stream>>>((const uint16_t *)dev, (size_t)n_in, 1, r,
                                                     order, t0, tile_at, n_out, n_in, m->n_step,
                                                     m->w);
        rc = piece_end(u);
    }
    return rc;
}

/* An expert as transformers stores it unquantised, [n_in, n_out]: in one piece. */
static cudaError_t put_in_major(struct upload *u, const void *p, int n_out, int n_in, int order,
                                int tile_at, const struct dmat *m)
{
    uint8_t *dev;
    cudaError_t rc = piece_begin(u, p, (size_t)n_in * (size_t)n_out * 2, &dev);
    if (rc != cudaSuccess)
        return rc;
    frag_bf16<<<m->n_tile, 256, 0, u->stream>>>((const uint16_t *)dev, 1, (size_t)n_out, 0, order,
                                                0, tile_at, n_out, n_in, m->n_step, m->w);
    return piece_end(u);
}

/* The largest finite magnitude of bf16 numbers. */
static float largest_bf16(const struct mat *m)
{
    const uint16_t *p = (const uint16_t *)m->p;
    size_t n = (size_t)m->n_out * (size_t)m->n_in;
    uint16_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t v = p[i] & 0x7FFF;
        v = v < 0x7F80 ? v : 0;
        most = v > most ? v : most;
    }
    uint32_t bits = (uint32_t)most << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

status upload_dense(struct upload *u, const struct mat *const *part, const enum row_order *order,
                    int n_part, enum form form, struct dmat *out, struct err *e)
{
    int n_tile = 0, n_out = 0;
    float most = 0;
    for (int i = 0; i < n_part; i++) {
        if (part[i]->dtype != DT_BF16)
            return err_set(e, E_INPUT,
                           "the CUDA backend takes bf16 and MXFP4 weights, this checkpoint has "
                           "others: use --device cpu");
        if (form == FORM_Q8)
            most = fmaxf(most, largest_bf16(part[i]));
        n_out += part[i]->n_out;
        n_tile += (part[i]->n_out + TILE_ROWS - 1) / TILE_ROWS;
    }
    *out = (struct dmat){};
    out->gain = 1;
    out->n_tile = n_tile;
    out->n_in = part[0]->n_in;
    out->n_out = n_out;
    out->n_step = (out->n_in + STEP - 1) / STEP;
    while (most >= 7.9f * out->gain)
        out->gain *= 2;
    status st = alloc_mat(out, 1, form, e);
    if (st < 0)
        return st;
    int at = 0;
    for (int i = 0; i < n_part; i++) {
        cudaError_t rc = put_dense(u, part[i]->p, part[i]->n_out, part[i]->n_in, order[i], at, out);
        if (rc != cudaSuccess)
            return dev_error(e, rc, "loading the weights");
        at += (part[i]->n_out + TILE_ROWS - 1) / TILE_ROWS;
    }
    return OK;
}

static int largest_scale(const struct expert_mat *m, int n_expert)
{
    int most = 0;
    size_t n = (size_t)m->n_out * (size_t)(m->n_in / 32);
    for (int x = 0; x < n_expert; x++)
        for (size_t i = 0; i < n; i++)
            if (m->scales[x][i] > most && m->scales[x][i] != 255)
                most = m->scales[x][i];
    return most;
}

static cudaError_t put_expert(struct upload *u, const struct expert_mat *m, int x, int order,
                              int drop, const struct dmat *d)
{
    size_t codes = (size_t)(m->n_in / 32) * 16, scales = (size_t)(m->n_in / 32);
    int rows = (int)((piece_bytes - 256) / (codes + scales)) / TILE_ROWS * TILE_ROWS;
    cudaError_t rc = cudaSuccess;
    for (int r = 0; r < m->n_out && rc == cudaSuccess; r += rows) {
        int n = m->n_out - r < rows ? m->n_out - r : rows, i = u->next;
        rc = cudaEventSynchronize(u->done[i]);
        if (rc != cudaSuccess)
            break;
        /* Codes and scales of the same rows travel in one piece. */
        memcpy(u->pinned[i], m->blocks[x] + (size_t)r * codes, (size_t)n * codes);
        memcpy(u->pinned[i] + (size_t)n * codes, m->scales[x] + (size_t)r * scales,
               (size_t)n * scales);
        size_t bytes = (size_t)n * (codes + scales);
        rc = cudaMemcpyAsync(u->stage[i], u->pinned[i], bytes, cudaMemcpyHostToDevice, u->stream);
        if (rc != cudaSuccess)
            break;
        const uint8_t *scale = u->stage[i] + (size_t)n * codes;
        if (d->row_gain)
            frag_mx8<<<(n + 15) / 16, 256, 0, u->stream>>>(
                u->stage[i], scale, r, order, r / TILE_ROWS, x * d->n_tile, m->n_out, m->n_in,
                d->n_step, d->w, d->scale, d->row_gain);
        else
            frag_mx<<<(n + 15) / 16, 256, 0, u->stream>>>(u->stage[i], scale, r, order,
                                                          r / TILE_ROWS, x * d->n_tile, m->n_out,
                                                          m->n_in, d->n_step, drop, d->w, d->scale);
        rc = piece_end(u);
    }
    return rc;
}

status upload_experts(struct upload *u, const struct expert_mat *m, int n_expert,
                      enum row_order order, bool f8, struct dmat *out, struct err *e)
{
    *out = (struct dmat){};
    out->gain = 1;
    out->n_out = m->n_out;
    out->n_in = m->n_in;
    out->n_tile = (m->n_out + TILE_ROWS - 1) / TILE_ROWS;
    out->n_step = (m->n_in + STEP - 1) / STEP;
    bool mx = m->layout == EXPERT_MXFP4;
    if (!mx && (m->dtype != DT_BF16 || (size_t)m->n_in * (size_t)m->n_out * 2 > piece_bytes))
        return err_set(e, E_INPUT,
                       "the CUDA backend takes experts in MXFP4 or bf16, this checkpoint has "
                       "others: quantize it (gloss quantize) or use --device cpu");
    if (f8 && !mx)
        return err_set(e, E_INPUT,
                       "--arith fp8 takes experts in MXFP4: quantize the checkpoint (gloss "
                       "quantize)");
    status st = alloc_mat(out, n_expert, f8 ? FORM_MX8 : mx ? FORM_MX : FORM_BF16, e);
    if (st < 0)
        return st;
    int drop = 0;
    if (mx && !f8) {
        drop = largest_scale(m, n_expert) - 128;
        drop = drop > 0 ? drop : 0;
        for (int i = 0; i < drop; i++)
            out->gain *= 2;
    }
    for (int x = 0; x < n_expert; x++) {
        cudaError_t rc = mx ? put_expert(u, m, x, order, drop, out)
                            : (m->layout == EXPERT_IN_MAJOR ? put_in_major : put_dense)(
                                  u, m->blocks[x], m->n_out, m->n_in, order, x * out->n_tile, out);
        if (rc != cudaSuccess)
            return dev_error(e, rc, "loading the weights");
    }
    return OK;
}
