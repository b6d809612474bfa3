/* The dense matrices of ARITH_Q8 as blocks of signed bytes, made at open by all workers or found in
 * the cache (dense_cache.h), and the memory that may not leave (struct backend_opts.lock).
 *
 * The copies of all matrices lie in one piece, layer by layer, the unembedding last. The mapped
 * pages of what was copied are given back; from then on nothing reads them.
 */
#include "cpu/dense_cache.h"
#include "cpu/forward_cpu.h"

#include "base/mem.h"
#include "base/num.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

struct dense *cpu_dense_at(struct cpu *c, int i)
{
    return i < c->w->spec.n_layer * N_DENSE ? &c->dense[i / N_DENSE][i % N_DENSE] : &c->unembed;
}

static size_t mat_bytes(const struct mat *m)
{
    return (size_t)m->n_out * (size_t)m->n_in * dtype_size(m->dtype);
}

static void pack_part(void *arg, int t)
{
    struct cpu *c = arg;
    for (int i = 0; i <= c->w->spec.n_layer * N_DENSE; i++) {
        const struct dense *d = cpu_dense_at(c, i);
        size_t n_block = (size_t)d->m->n_in / Q8_IN;
        size_t bytes = (size_t)d->m->n_in * dtype_size(d->m->dtype);
        int lo, hi;
        pool_split(d->m->n_out, Q8_OUT, t, pool_size(c->pool), &lo, &hi);
        for (int o = lo; o < hi; o += Q8_OUT)
            c->k.q8_pack(d->m->dtype, (const uint8_t *)d->m->p + (size_t)o * bytes, d->m->n_in,
                         c->q8 + (d->q8 - c->q8) + (size_t)(o / Q8_OUT) * n_block);
        weights_release(c->w, (const uint8_t *)d->m->p + (size_t)lo * bytes,
                        (size_t)(hi - lo) * bytes);
    }
}

/* Points every matrix to its place within the copies that begin at p. */
static void place_all(struct cpu *c, const struct q8_block *p)
{
    for (int i = 0; i <= c->w->spec.n_layer * N_DENSE; i++) {
        struct dense *d = cpu_dense_at(c, i);
        d->q8 = p;
        p += (size_t)d->m->n_out / Q8_OUT * (size_t)(d->m->n_in / Q8_IN);
    }
}

status cpu_dense_open(struct cpu *c, bool no_cache, struct err *e)
{
    const struct spec *s = &c->w->spec;
    size_t n = 0, total;
    const void *kept = NULL;
    int group = s->n_head / s->n_kv_head * s->d_head;
    if (s->d_model % Q8_IN || s->d_ff % Q8_IN || group % Q8_IN || s->d_head % Q8_OUT ||
        s->n_vocab % Q8_OUT)
        return err_param(e, E_INPUT, "arith",
                         "arith q8 needs widths (hidden, intermediate, heads of a key head) that "
                         "are multiples of %d, head width and vocabulary of %d",
                         Q8_IN, Q8_OUT);
    for (int i = 0; i <= s->n_layer * N_DENSE; i++) {
        const struct mat *m = cpu_dense_at(c, i)->m;
        n += (size_t)m->n_out / Q8_OUT * (size_t)(m->n_in / Q8_IN);
        c->packed_bytes += mat_bytes(m);
    }
    bool fits = mul_ok(n, sizeof *c->q8, &total), cache = fits && !no_cache;
    cache = cache && total >= DENSE_CACHE_MIN;
    if (cache)
        dense_cache_open(c->w, c->pool, total, &c->q8_file, &kept);
    c->q8_bytes = total;
    if (kept) {
        place_all(c, kept);
        return OK;
    }
    c->q8 = fits ? mem_aligned(HUGE_PAGE, total) : NULL;
    if (!c->q8)
        return err_set(e, E_NOMEM, "out of memory for the 8-bit matrices: %.1f MiB",
                       (double)n * sizeof *c->q8 / (1 << 20));
    (void)madvise(c->q8, total, MADV_HUGEPAGE); /* fewer page walks; without it slower only */
    place_all(c, c->q8);
    pool_run(c->pool, pack_part, c);
    if (cache)
        dense_cache_save(c->w, c->pool, c->q8, total);
    return OK;
}

void cpu_dense_close(struct cpu *c)
{
    dense_cache_close(&c->q8_file);
    mem_free(c->q8);
}

/* ---- memory that stays ---- */

static status lock(const void *p, size_t n, bool when_used, struct err *e)
{
    if (!p || (when_used ? mlock2(p, n, MLOCK_ONFAULT) : mlock(p, n)) == 0)
        return OK;
    int en = errno;
    struct rlimit r = {0};
    (void)getrlimit(RLIMIT_MEMLOCK, &r);
    if (r.rlim_cur == RLIM_INFINITY)
        return err_param(e, E_NOMEM, "mlock", "--mlock: cannot lock the model into memory: %s",
                         strerror(en));
    return err_param(e, E_LIMIT, "mlock",
                     "--mlock: this process may lock %.1f MiB, the model takes more: raise the "
                     "limit ('ulimit -l unlimited', LimitMEMLOCK= of a service) or leave --mlock "
                     "out",
                     (double)r.rlim_cur / (1 << 20));
}

static status lock_mat(const struct dense *d, struct err *e)
{
    return d->q8 ? OK : lock(d->m->p, mat_bytes(d->m), false, e);
}

static status lock_experts(const struct expert_mat *m, int n_expert, struct err *e)
{
    size_t n = (size_t)m->n_out * (size_t)m->n_in;
    bool mx = m->layout == EXPERT_MXFP4;
    status st = OK;
    for (int i = 0; i < n_expert; i++) {
        TRY(lock(m->blocks[i], mx ? n / 2 : n * dtype_size(m->dtype), false, e));
        if (mx)
            TRY(lock(m->scales[i], n / 32, false, e));
    }
out:
    return st;
}

status cpu_lock(struct cpu *c, struct err *e)
{
    status st = OK;
    const struct spec *s = &c->w->spec;
    const struct q8_block *q8 = c->dense[0][0].q8;
    TRY(lock(q8, c->q8_bytes, false, e));
    TRY(lock(c->w->embed.p, mat_bytes(&c->w->embed), false, e));
    for (int i = 0; i <= s->n_layer * N_DENSE; i++)
        TRY(lock_mat(cpu_dense_at(c, i), e));
    for (int i = 0; i < s->n_layer; i++) {
        TRY(lock_experts(&c->w->layer[i].gate_up, s->n_expert, e));
        TRY(lock_experts(&c->w->layer[i].down, s->n_expert, e));
    }
out:
    return st;
}

status cpu_lock_cache(struct cpu *c, struct err *e)
{
    status st = OK;
    TRY(lock(c->block, c->block_bytes, false, e));
    TRY(lock(c->full.p, c->full.page_bytes * (size_t)c->full.n_page, true, e));
    TRY(lock(c->window.p, c->window.page_bytes * (size_t)c->window.n_page, true, e));
out:
    return st;
}
