/* A progress bar on a terminal for what takes longer than a moment; nothing elsewhere unless asked for (then a line now
 * and then). Several threads may add. */
#ifndef GRANARY_TOOLS_GRANARY_PROGRESS_H
#define GRANARY_TOOLS_GRANARY_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress;

/* forced: also where standard error is no terminal. */
struct progress *progress_open(const char *label, bool forced);
/* Adds to what there is to do; 0 as long as that is not known. */
void progress_expect(struct progress *progress, uint64_t bytes);
void progress_add(struct progress *progress, uint64_t bytes);
/* Takes the bar away. NULL is allowed, here and above. */
void progress_close(struct progress *progress);

#endif
