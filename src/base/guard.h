/* What happens when a mapped file shrinks or its disk fails: the kernel sends SIGBUS at the first
 * touch of the lost page. There is no way to go on without the bytes, so the handler names the file
 * on stderr and ends the process with GUARD_EXIT. Faults outside guarded ranges go to whatever
 * handled SIGBUS before.
 */
#ifndef BASE_GUARD_H
#define BASE_GUARD_H

#include "base/err.h"

#include <stddef.h>

enum { GUARD_EXIT = 70, GUARD_MAX = 1024 };

/* Guards [p, p + n); `name` is copied (its last 255 bytes). Installs the handler unless it is
 * there. E_LIMIT when GUARD_MAX ranges are guarded already. Thread-safe. */
MUST_USE status guard_add(const void *p, size_t n, const char *name, struct err *e);
void guard_remove(const void *p); /* before unmapping; unknown p is allowed */

#endif
