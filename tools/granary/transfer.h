/* Bytes between local descriptors and files of the cluster, and between two files of the cluster. */
#ifndef GRANARY_TOOLS_GRANARY_TRANSFER_H
#define GRANARY_TOOLS_GRANARY_TRANSFER_H

#include "tools/granary/cli.h"
#include "tools/granary/progress.h"

/* The unit of a transfer: large enough that several frames are on their way at once. */
#define TRANSFER_BYTES (4u << 20)

/* A place for something new: a path (a name below it when it is a directory), or an id. */
struct target {
	const char *path;              /* NULL: put by id */
	const char *name_if_directory; /* or NULL */
	uint32_t mode;
	bool if_absent;
	uint64_t if_change;
	uint64_t id; /* out */
};

/* Reads the descriptor to its end and makes its bytes the target's, durably and at once. What went wrong has been
 * reported under `what`. Returns an exit status, as all below. */
int transfer_put(struct cli *cli, const char *what, int descriptor, struct target *target, struct progress *progress);
/* Bytes [first, end) of the file, or to its end where that is earlier, to the descriptor. */
int transfer_get(struct cli *cli, const char *what, struct granary_file *file, uint64_t first, uint64_t end,
		 int descriptor, struct progress *progress);
/* Within the cluster. */
int transfer_copy(struct cli *cli, const char *from, struct target *target, struct progress *progress);
/* By path or by id. */
granary_status transfer_open(struct cli *cli, const char *path_or_id, struct granary_file **out);

#endif
