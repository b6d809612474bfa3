/* Files: whole reads and writes that survive short counts and signals, read-only maps, and files
 * that appear under their final name only when complete.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Appends the whole file; "-" is standard input. E_NOENT when it isn't there, E_LIMIT past b->max,
 * E_INPUT when it is a folder, device, FIFO or socket (standard input may be anything). */
MUST_USE status file_read(const char *path, struct buf *b, struct err *e);

/* A read-only private mapping of a regular file (links are followed to their end). */
struct file_map {
    const uint8_t *p; /* NULL when unmapped or empty */
    size_t n;         /* bytes */
    bool copied;      /* by file_copy */
};
MUST_USE status file_map(const char *path, struct file_map *m, struct err *e);
/* The same, but the bytes are read into memory of this process, in pages of 2 MiB where the system
 * has them: fewer page walks, and nothing that happens to the file matters afterwards. E_NOMEM. */
MUST_USE status file_copy(const char *path, struct file_map *m, struct err *e);
void file_unmap(struct file_map *m);
/* The whole pages of [p, p + n) need not stay in this process's memory: a later read brings them
 * back. Nothing happens to what lies outside the mapping, nor to a copy. */
void file_release(const struct file_map *m, const void *p, size_t n);

/* A file being written: bytes go to a temporary name beside `path`; file_commit writes them out,
 * syncs, renames and syncs the folder; file_abort (or a crash) leaves nothing under `path`.
 * Write errors stick and are reported by file_commit. */
struct file_new {
    FILE *f; /* write here with file_write; NULL when closed */
    char tmp[4096];
    char path[4096];
    int fault; /* errno of the first failed write */
    bool lazy; /* not synced: for what a reader checks and can do without. Set after file_begin */
};
MUST_USE status file_begin(struct file_new *w, const char *path, struct err *e);
void file_write(struct file_new *w, const void *p, size_t n);
MUST_USE status file_commit(struct file_new *w, struct err *e);
void file_abort(struct file_new *w); /* harmless after file_commit */

/* file_begin, one write, file_commit. */
MUST_USE status file_save(const char *path, const void *p, size_t n, struct err *e);

/* Makes the folder; an existing one is fine, a missing parent is E_NOENT. */
MUST_USE status file_mkdir(const char *path, struct err *e);
bool file_is_dir(const char *path);
bool file_exists(const char *path);

#endif
