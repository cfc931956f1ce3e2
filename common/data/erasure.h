/* Reed-Solomon codes: m parity shards of k data shards, and any k of the k + m give the others back. The only caller of ISA-L's EC.
 *
 * Pure, thread-safe once made. The matrix is ISA-L's Cauchy matrix (gf_gen_cauchy1_matrix): every square part of it is invertible, so any k
 * shards do, for all k + m up to 255; over GF(2^8) with the polynomial 0x11d (Plank, "A tutorial on Reed-Solomon coding for
 * fault-tolerance in RAID-like systems", 1997, and its correction of 2003; Blömer et al. 1995). Byte i of a parity depends on byte i of
 * each data shard only, so that shards may be coded piece by piece. The matrix is part of the format of cold chunks: it never changes. */
#ifndef GRANARY_COMMON_DATA_ERASURE_H
#define GRANARY_COMMON_DATA_ERASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/limits.h"

/* What computes some shards from k others. */
struct erasure {
	unsigned sources, targets;
	uint8_t *tables;
};

/* 2 to DATA_SHARDS_MAX data shards, 1 to PARITY_SHARDS_MAX parity shards. */
bool erasure_profile_valid(unsigned data_shards, unsigned parity_shards);

/* Parity from data. The profile is valid. */
void erasure_init_encoder(struct erasure *erasure, unsigned data_shards, unsigned parity_shards);
/* The shards `wanted` (places, data or parity, at most PARITY_SHARDS_MAX + DATA_SHARDS_MAX) from the k different ones `have`, none of
 * which is wanted. */
struct erasure_question {
	unsigned data_shards, parity_shards;
	const uint8_t *have;   /* data_shards places */
	const uint8_t *wanted; /* places */
	unsigned wanted_count;
};
void erasure_init_decoder(struct erasure *erasure, const struct erasure_question *question);
void erasure_deinit(struct erasure *erasure);

/* sources[i], targets[i]: `bytes` bytes each, in the order in which they were named (an encoder's: data, parity); they do not overlap. */
void erasure_run(const struct erasure *erasure, size_t bytes, const uint8_t *const *sources, uint8_t *const *targets);

#endif
