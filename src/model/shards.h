/* The tensors of a checkpoint on their way to disk: all declared first, then written in the same
 * order, spread over safetensors files of a bounded size; with more than one file, an index too.
 */
#ifndef MODEL_SHARDS_H
#define MODEL_SHARDS_H

#include "model/safetensors.h"

struct shards;

/* Files of at most max_bytes of tensors (a larger tensor has a file of its own) in folder `dir`:
 * model.safetensors, or model-00000-of-0000N.safetensors as the released checkpoints number them.
 */
MUST_USE status shards_new(const char *dir, size_t max_bytes, struct shards **s, struct err *e);
MUST_USE status shards_declare(struct shards *s, const char *name, enum dtype t, const int64_t *dim,
                               int n_dim, struct err *e);
size_t shards_bytes(const struct shards *s); /* of all declared tensors */
int shards_files(const struct shards *s);    /* how many files they make */

/* The next n bytes; a call must not cross the end of a tensor. */
MUST_USE status shards_write(struct shards *s, const void *p, size_t n, struct err *e);
/* Ends the last file and writes the index. E_BUG when bytes are missing. */
MUST_USE status shards_end(struct shards *s, struct err *e);
void shards_free(struct shards *s);

#endif
