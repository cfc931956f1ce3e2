/* What the data of files takes up, as the leader says: stored (of what is cold: compressed), and physical, with all copies or parity. */
#ifndef GRANARY_TOOLS_GRANARY_DATA_SIZES_H
#define GRANARY_TOOLS_GRANARY_DATA_SIZES_H

#include "tools/granary/admin_call.h"

struct data_sizes {
	uint64_t stored, physical;
	uint64_t chunks, cold_chunks;
};

/* Of `count` inodes, any number. What has been removed takes up nothing. */
MUST_USE enum err data_sizes_ask(struct admin *admin, const uint64_t *inodes, size_t count, struct data_sizes *out);

#endif
