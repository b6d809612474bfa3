#include "cpu/dense_cache.h"

#include "base/guard.h"
#include "base/hash.h"
#include "base/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum { VERSION = 1, HEAD_BYTES = 4096, PIECE = 1 << 20, MAX_PATH = 4096 };

static const char magic[8] = "gloss-q8";

struct head {
    char magic[8];
    uint32_t version, head_bytes;
    uint64_t identity, n, sum; /* of the checkpoint, bytes, of the bytes */
};

/* ---- the sum ---- */

/* Of one piece: four lanes of multiply and add, each a bijection of what it held before, so that no
 * change of one word goes unnoticed. As fast as memory. */
static uint64_t sum_piece(const uint8_t *p, size_t n)
{
    const uint64_t odd = 0x9e3779b97f4a7c15;
    uint64_t s[4] = {1, 2, 3, 4}, x[4];
    for (; n >= sizeof x; n -= sizeof x, p += sizeof x) {
        memcpy(x, p, sizeof x);
        for (int i = 0; i < 4; i++)
            s[i] = (s[i] ^ x[i]) * odd;
    }
    memset(x, 0, sizeof x);
    memcpy(x, p, n);
    for (int i = 0; i < 4; i++)
        s[0] = (s[0] ^ (s[0] >> 29) ^ s[i] ^ x[i]) * odd;
    return s[0] ^ s[0] >> 32;
}

struct summing {
    struct pool *pool;
    const uint8_t *p;
    size_t n;
    uint64_t part[POOL_MAX_THREAD];
};

/* A worker's share of the pieces; the place of each goes into its term. */
static void sum_part(void *arg, int t)
{
    struct summing *s = arg;
    int lo, hi;
    pool_split((int)((s->n + PIECE - 1) / PIECE), 1, t, pool_size(s->pool), &lo, &hi);
    for (int i = lo; i < hi; i++) {
        size_t at = (size_t)i * PIECE;
        uint64_t x = sum_piece(s->p + at, min_size(PIECE, s->n - at));
        s->part[t] += (x ^ (uint64_t)i) * 0xff51afd7ed558ccd;
    }
}

static uint64_t sum_all(struct pool *pool, const void *p, size_t n)
{
    struct summing s = {.pool = pool, .p = p, .n = n};
    uint64_t sum = 0;
    pool_run(pool, sum_part, &s);
    for (int t = 0; t < pool_size(pool); t++)
        sum += s.part[t];
    return sum;
}

/* ---- places ---- */

/* The i-th place: beside the checkpoint, then the user's own. False when there is none. */
static bool place(const struct weights *w, int i, char path[MAX_PATH])
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char full[MAX_PATH];
    int n = -1;
    if (i == 0)
        n = snprintf(path, MAX_PATH, "%s/gloss-dense-q8.cache", w->dir);
    if (i == 1 && realpath(w->dir, full)) {
        uint64_t id = hash_sip((struct hash_key){0}, full, strlen(full));
        if (xdg && *xdg)
            n = snprintf(path, MAX_PATH, "%s/gloss/dense-q8-%016llx.cache", xdg,
                         (unsigned long long)id);
        else if (home && *home)
            n = snprintf(path, MAX_PATH, "%s/.cache/gloss/dense-q8-%016llx.cache", home,
                         (unsigned long long)id);
    }
    return n >= 0 && n < MAX_PATH;
}
enum { N_PLACE = 2 };

/* The folder of a file and that one's own parent, if they are missing. */
static void make_folders(const char *path)
{
    char dir[MAX_PATH];
    for (int up = 2; up > 0; up--) {
        snprintf(dir, sizeof dir, "%s", path);
        for (int i = 0; i < up; i++) {
            char *slash = strrchr(dir, '/');
            if (!slash || slash == dir)
                return;
            *slash = '\0';
        }
        (void)!file_mkdir(dir, NULL);
    }
}

/* ---- reading and writing ---- */

static bool is_ours(const struct weights *w, struct pool *pool, const struct file_map *m, size_t n)
{
    struct head h;
    uint64_t id;
    if (m->n != HEAD_BYTES + n || !weights_identity(w, &id))
        return false;
    memcpy(&h, m->p, sizeof h);
    return memcmp(h.magic, magic, sizeof magic) == 0 && h.version == VERSION &&
           h.head_bytes == HEAD_BYTES && h.identity == id && h.n == n &&
           h.sum == sum_all(pool, m->p + HEAD_BYTES, n);
}

void dense_cache_open(const struct weights *w, struct pool *pool, size_t n, struct file_map *m,
                      const void **p)
{
    char path[MAX_PATH];
    *m = (struct file_map){0};
    *p = NULL;
    for (int i = 0; w->dir && i < N_PLACE && !*p; i++) {
        if (!place(w, i, path) || (w->copied ? file_copy : file_map)(path, m, NULL) < 0)
            continue;
        if (m->p && (m->copied || guard_add(m->p, m->n, path, NULL) == OK) &&
            is_ours(w, pool, m, n))
            *p = m->p + HEAD_BYTES;
        else
            dense_cache_close(m);
    }
}

void dense_cache_close(struct file_map *m)
{
    if (m->p && !m->copied)
        guard_remove(m->p);
    file_unmap(m);
}

/* Room for the file and as much again. */
static bool has_room(const char *path, size_t n)
{
    char dir[MAX_PATH];
    struct statvfs v;
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (!slash)
        return false;
    *slash = '\0';
    return statvfs(dir, &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize / 2 > n;
}

void dense_cache_save(const struct weights *w, struct pool *pool, const void *p, size_t n)
{
    char path[MAX_PATH];
    union {
        struct head h;
        uint8_t page[HEAD_BYTES];
    } u = {.h = {.version = VERSION, .head_bytes = HEAD_BYTES, .n = n}};
    memcpy(u.h.magic, magic, sizeof magic);
    if (!w->dir || !weights_identity(w, &u.h.identity))
        return;
    u.h.sum = sum_all(pool, p, n);
    for (int i = 0; i < N_PLACE; i++) {
        struct file_new f;
        if (!place(w, i, path))
            continue;
        if (i > 0)
            make_folders(path);
        if (!has_room(path, n) || file_begin(&f, path, NULL) < 0)
            continue;
        f.lazy = true;
        file_write(&f, u.page, sizeof u.page);
        file_write(&f, p, n);
        if (file_commit(&f, NULL) == OK)
            return;
    }
}
