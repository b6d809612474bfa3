#include "base/numa.h"

#include <linux/mempolicy.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_NODE = 1024, BITS = 8 * sizeof(unsigned long), WORDS = MAX_NODE / BITS };

/* The allowed nodes as bits; how many there are. */
static int allowed(unsigned long mask[WORDS])
{
    int n = 0;
    memset(mask, 0, WORDS * sizeof *mask);
    if (syscall(SYS_get_mempolicy, NULL, mask, MAX_NODE, NULL, MPOL_F_MEMS_ALLOWED) != 0)
        return 0;
    for (int i = 0; i < WORDS; i++)
        n += __builtin_popcountl(mask[i]);
    return n;
}

int numa_nodes(void)
{
    unsigned long mask[WORDS];
    int n = allowed(mask);
    return n > 1 ? n : 1;
}

bool numa_spread(void *p, size_t n)
{
    unsigned long mask[WORDS];
    return allowed(mask) > 1 && syscall(SYS_mbind, p, n, MPOL_INTERLEAVE, mask, MAX_NODE, 0) == 0;
}
