/* A folder of results that appears whole or not at all: files are written into PATH.tmp-PID, which
 * is renamed to PATH when everything is there. A crash leaves only the temporary name.
 */
#ifndef BASE_FOLDER_H
#define BASE_FOLDER_H

#include "base/err.h"

#include <stdint.h>

struct folder_new {
    char tmp[3072]; /* write files here; "" when ended */
    char path[3072];
};

/* E_INPUT when `path` exists and is anything but an empty folder. */
MUST_USE status folder_begin(struct folder_new *f, const char *path, struct err *e);
MUST_USE status folder_commit(struct folder_new *f, struct err *e);
void folder_abort(struct folder_new *f); /* removes the files; harmless after folder_commit */

/* E_IO naming both numbers unless the file system of f has n bytes free. */
MUST_USE status folder_has_room(const struct folder_new *f, uint64_t n, struct err *e);

#endif
