#include "model/shards.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/num.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

struct decl {
    char name[256];
    enum dtype dtype;
    int n_dim;
    int64_t dim[ST_MAX_DIM];
    size_t n_bytes;
    int i_file;
};

struct shards {
    char dir[3072];
    size_t max_bytes;
    struct decl *t; /* [n] */
    int n, cap;
    size_t total, in_file; /* bytes declared in all, in the last file */
    int i;                 /* tensor being written */
    size_t done;           /* its bytes already written */
    struct st_writer *w;   /* of tensor i's file; NULL between files */
};

status shards_new(const char *dir, size_t max_bytes, struct shards **out, struct err *e)
{
    *out = NULL;
    struct shards *s = mem_calloc(1, sizeof *s);
    if (!s)
        return err_set(e, E_NOMEM, "out of memory");
    if (snprintf(s->dir, sizeof s->dir, "%s", dir) >= (int)sizeof s->dir) {
        shards_free(s);
        return err_set(e, E_INPUT, "path too long");
    }
    s->max_bytes = max_bytes;
    *out = s;
    return OK;
}

void shards_free(struct shards *s)
{
    if (!s)
        return;
    st_writer_free(s->w);
    mem_free(s->t);
    mem_free(s);
}

status shards_declare(struct shards *s, const char *name, enum dtype t, const int64_t *dim,
                      int n_dim, struct err *e)
{
    if (s->n == s->cap) {
        int cap = s->cap ? s->cap * 2 : 256;
        struct decl *grown = mem_realloc_array(s->t, (size_t)cap, sizeof *grown);
        if (!grown)
            return err_set(e, E_NOMEM, "out of memory");
        s->t = grown;
        s->cap = cap;
    }
    struct decl *d = &s->t[s->n];
    *d = (struct decl){.dtype = t, .n_dim = n_dim, .n_bytes = dtype_size(t)};
    bool ok =
        snprintf(d->name, sizeof d->name, "%s", name) < (int)sizeof d->name && n_dim <= ST_MAX_DIM;
    for (int i = 0; i < n_dim && ok; i++) {
        d->dim[i] = dim[i];
        ok = mul_ok(d->n_bytes, (size_t)dim[i], &d->n_bytes);
    }
    if (!ok || !add_ok(s->total, d->n_bytes, &s->total))
        return err_param(e, E_LIMIT, name, "tensor %s is too large", name);
    bool fits = s->n == 0 || s->in_file + d->n_bytes <= s->max_bytes;
    d->i_file = s->n == 0 ? 0 : s->t[s->n - 1].i_file + !fits;
    s->in_file = fits ? s->in_file + d->n_bytes : d->n_bytes;
    s->n++;
    return OK;
}

size_t shards_bytes(const struct shards *s)
{
    return s->total;
}

int shards_files(const struct shards *s)
{
    return s->n ? s->t[s->n - 1].i_file + 1 : 0;
}

static void file_name(const struct shards *s, int i, char *name, size_t n)
{
    if (shards_files(s) == 1)
        snprintf(name, n, "model.safetensors");
    else
        snprintf(name, n, "model-%05d-of-%05d.safetensors", i, shards_files(s) - 1);
}

/* Opens the file that tensor s->i begins and declares its tensors. */
static status open_file(struct shards *s, struct err *e)
{
    status st = OK;
    char name[64], path[PATH_MAX];
    int i_file = s->t[s->i].i_file;
    file_name(s, i_file, name, sizeof name);
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    TRY(st_writer_new(path, &s->w, e));
    for (int i = s->i; i < s->n && s->t[i].i_file == i_file; i++)
        TRY(st_declare(s->w, s->t[i].name, s->t[i].dtype, s->t[i].dim, s->t[i].n_dim, e));
    TRY(st_write_begin(s->w, e));
out:
    return st;
}

static status close_file(struct shards *s, struct err *e)
{
    status st = s->w ? st_write_end(s->w, e) : OK;
    st_writer_free(s->w);
    s->w = NULL;
    return st;
}

status shards_write(struct shards *s, const void *p, size_t n, struct err *e)
{
    status st = OK;
    if (s->i == s->n || n > s->t[s->i].n_bytes - s->done)
        return err_set(e, E_BUG, "more bytes than declared");
    if (!s->w)
        TRY(open_file(s, e));
    st_write(s->w, p, n);
    s->done += n;
    if (st_write_failed(s->w)) /* no use in producing the rest: close_file tells why */
        return close_file(s, e);
    if (s->done < s->t[s->i].n_bytes)
        return OK;
    s->done = 0;
    s->i++;
    if (s->i == s->n || s->t[s->i].i_file != s->t[s->i - 1].i_file)
        TRY(close_file(s, e));
out:
    return st;
}

status shards_end(struct shards *s, struct err *e)
{
    if (s->i != s->n)
        return err_set(e, E_BUG, "tensor %s was not written", s->t[s->i].name);
    if (shards_files(s) <= 1)
        return OK;
    status st = OK;
    char name[64], path[PATH_MAX];
    struct buf b;
    buf_init(&b, ST_MAX_HEADER);
    buf_printf(&b, "{\n  \"metadata\": {\n    \"total_size\": %zu\n  },\n  \"weight_map\": {\n",
               s->total);
    for (int i = 0; i < s->n; i++) {
        file_name(s, s->t[i].i_file, name, sizeof name);
        buf_printf(&b, "    \"%s\": \"%s\"%s\n", s->t[i].name, name, i + 1 < s->n ? "," : "");
    }
    buf_puts(&b, "  }\n}\n");
    TRY(buf_status(&b));
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", s->dir);
    TRY(file_save(path, b.p, b.n, e));
out:
    buf_fini(&b);
    return st;
}
