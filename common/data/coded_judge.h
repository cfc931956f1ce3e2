/* Whether the shards of a set (coded.h) are what they should be, and if not, which of them are wrong: also those that are sound by the
 * checksums of their disks, as when a file of long ago was put back, or a fault of ours wrote other bytes.
 *
 * Wrong are the fewest shards without which everything fits: the heads say the same, but for the place; every unit is what its writer's
 * checksums say, and what is between units is zeros, also of data that is computed because its shard is among the wrong ones; and all other
 * shards are what is computed from k of them. Where different shards could be as few, or too few are left, nothing is said of any. Pure. */
#ifndef GRANARY_COMMON_DATA_CODED_JUDGE_H
#define GRANARY_COMMON_DATA_CODED_JUDGE_H

#include "common/data/coded.h"

struct coded_set {
	unsigned data_shards, parity_shards; /* a valid profile */
	uint64_t chunk;
	uint32_t bytes; /* of each shard: head and data, whole blocks */
	const uint8_t *shards[SHARDS_MAX]; /* NULL: it is shorter, and wrong */
	uint64_t absent; /* bits: of these, also NULL, nothing is known; they are made anew anyway */
};

/* `bytes` of the set, from the first BLOCK_BYTES of each shard. ERR_CORRUPT: most of them do not agree. */
MUST_USE enum err coded_set_bytes(const struct coded_set *firsts, uint32_t *out);
/* bad: bits, by place, without those that are absent. ERR_CORRUPT: they do not fit together, and which of them are wrong cannot be known; ERR_TOO_MANY: nor in time. */
MUST_USE enum err coded_judge(const struct coded_set *set, uint64_t *bad);

#endif
