/* Where the 8-bit copies of a checkpoint's dense matrices are kept between runs, so that opening it
 * again costs a mapping and a pass over them in place of reading and packing the originals.
 *
 * One file a checkpoint: gloss-dense-q8.cache beside its files or, where that folder can't be
 * written, gloss/dense-q8-<path's hash>.cache in the user's cache folder ($XDG_CACHE_HOME, else
 * ~/.cache). It holds a header of one page, then the copies as memory has them. The header names
 * the format, the checkpoint (weights_identity) and a sum over all bytes, and every reader checks
 * all three: a file that is damaged, cut short, of an older program or of weights that have changed
 * is as good as none, and the next cache_save replaces it. It appears whole or not at all (a
 * temporary name, then a rename), and isn't synced: what a crash leaves fails the check.
 *
 * Nothing here is an error to the caller: without a cache the copies are made anew.
 */
#ifndef CPU_DENSE_CACHE_H
#define CPU_DENSE_CACHE_H

#include "base/file.h"
#include "base/pool.h"
#include "model/weights.h"

/* Bytes that are worth a file: fewer are packed in a moment. */
enum { DENSE_CACHE_MIN = 16 << 20 };

/* Maps (or copies, where the weights were) the n bytes kept for these weights, checked by all
 * workers. m->p is NULL when there are none; *p then too, else it points to them. */
void dense_cache_open(const struct weights *w, struct pool *pool, size_t n, struct file_map *m,
                      const void **p);
void dense_cache_close(struct file_map *m);

/* Keeps them. Does nothing where no folder can be written or the disk is nearly full. */
void dense_cache_save(const struct weights *w, struct pool *pool, const void *p, size_t n);

#endif
