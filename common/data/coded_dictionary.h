/* Whether the records of a pack are compressed with a dictionary (coded.h), and with which.
 *
 * One is trained from the beginnings of some of the records and tried on those of others. Every shard has it in its head, so it is used only
 * if what it saves is more than all of these, by a part of what the records take without. Deterministic. Pure. */
#ifndef GRANARY_COMMON_DATA_CODED_DICTIONARY_H
#define GRANARY_COMMON_DATA_CODED_DICTIONARY_H

#include "common/data/coded.h"

struct coded_dictionary {
	struct buf bytes;  /* to compress with */
	struct buf stored; /* as it lies in an index */
};

/* For the units of `index`, records of a pack that lie as they are at their offsets in `bytes`, and for its profile and compression, which is not
 * COMPRESSION_OFF. False, and `out` is left as it is: none pays. */
bool coded_dictionary_choose(const struct coded_index *index, const uint8_t *bytes, struct coded_dictionary *out);
void coded_dictionary_deinit(struct coded_dictionary *dictionary);

#endif
