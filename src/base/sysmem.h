/* How much memory this process may still take. */
#ifndef BASE_SYSMEM_H
#define BASE_SYSMEM_H

#include <stddef.h>

/* Bytes available without swapping: what /proc/meminfo says, or less where the process's memory
 * cgroup (version 2) leaves less. 0 when neither can be read. */
size_t sysmem_available(void);

#endif
