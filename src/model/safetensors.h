/* safetensors files: read by mmap after complete validation, written whole or not at all.
 *
 * st_open trusts nothing: after it returned OK every tensor's bytes lie inside the mapping, spans
 * cover the data section without gap or overlap, and shape x dtype equals the span. No allocation
 * exceeds twice the header, which is at most ST_MAX_HEADER bytes.
 */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include "base/err.h"
#include "base/file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ST_MAX_HEADER = 16 << 20, ST_MAX_TENSORS = 65536, ST_MAX_DIM = 8 };

enum dtype { DT_F32, DT_F16, DT_BF16, DT_U8, DT_OTHER };
size_t dtype_size(enum dtype t); /* 0 for DT_OTHER */
const char *dtype_name(enum dtype t);

struct st_tensor {
    const char *name;
    enum dtype dtype;
    int n_dim;
    int64_t dim[ST_MAX_DIM];
    const uint8_t *p; /* n_bytes in the mapping; may be misaligned for its type */
    size_t n_bytes;
};

struct st_file; /* one open file and its index */

MUST_USE status st_open(const char *path, struct st_file **f, struct err *e);
/* The same on a copy in huge pages (file_copy). */
MUST_USE status st_open_copy(const char *path, struct st_file **f, struct err *e);
/* The same over memory that outlives the handle (the compiled-in model); `label` is for messages.
 */
MUST_USE status st_open_memory(const uint8_t *p, size_t n, const char *label, struct st_file **f,
                               struct err *e);
void st_close(struct st_file *f);
/* file_release of the file's mapping. */
void st_release(const struct st_file *f, const void *p, size_t n);

int st_count(const struct st_file *f);
const struct st_tensor *st_at(const struct st_file *f, int i);
const struct st_tensor *st_find(const struct st_file *f, const char *name); /* NULL if absent */

/* Writer: declare every tensor in order, then write their bytes in the same order.
 * st_write_begin puts the header (padded so that data starts at a multiple of 64). */
struct st_writer;
MUST_USE status st_writer_new(const char *path, struct st_writer **w, struct err *e);
MUST_USE status st_declare(struct st_writer *w, const char *name, enum dtype t, const int64_t *dim,
                           int n_dim, struct err *e);
MUST_USE status st_write_begin(struct st_writer *w, struct err *e);
void st_write(struct st_writer *w, const void *p, size_t n);
bool st_write_failed(const struct st_writer *w); /* st_write_end will tell why */
/* E_BUG when the bytes written don't add up to those declared; syncs and renames. */
MUST_USE status st_write_end(struct st_writer *w, struct err *e);
void st_writer_free(struct st_writer *w); /* aborts when not ended */

#endif
