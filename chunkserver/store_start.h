/* What a store finds when it starts: the index is compared with the files, and made anew when it is damaged. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_STORE_START_H
#define GRANARY_CHUNKSERVER_STORE_START_H

#include "chunkserver/chunk_index.h"
#include "chunkserver/store_files.h"

/* Opens the index under the data directory. Files that it does not know are entered; entries without a file become blank (packs:
 * lost), or go if the file had never been synced and the power went; files without a valid header go to quarantine. */
MUST_USE enum err store_start(struct store_files *files, struct chunk_index *index, uint64_t boot);

#endif
