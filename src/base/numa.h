/* Memory nodes: machines whose memory is near to some processors and far from others. */
#ifndef BASE_NUMA_H
#define BASE_NUMA_H

#include <stdbool.h>
#include <stddef.h>

/* Nodes whose memory this process may use; 1 where the system does not tell. */
int numa_nodes(void);

/* Deals out the pages of [p, p + n), whose first byte begins a page and which nobody has touched,
 * over those nodes in turn: then every processor reads it equally fast. False, and nothing is done,
 * where there is one node. */
bool numa_spread(void *p, size_t n);

#endif
