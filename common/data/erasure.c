#include "common/data/erasure.h"

#include <limits.h>
#include <stdlib.h>

#include <isa-l.h>

#include "common/base/check.h"

/* ISA-L: for each coefficient a table of products. */
#define TABLE_BYTES 32u

bool erasure_profile_valid(unsigned data_shards, unsigned parity_shards)
{
	return data_shards >= 2 && data_shards <= DATA_SHARDS_MAX && parity_shards >= 1 && parity_shards <= PARITY_SHARDS_MAX;
}

/* `rows`: the coefficients of each target, one for each source. */
static void init_tables(struct erasure *erasure, unsigned sources, unsigned targets, uint8_t *rows)
{
	*erasure = (struct erasure){
		.sources = sources,
		.targets = targets,
		.tables = mem_alloc((size_t)TABLE_BYTES * sources * targets),
	};
	ec_init_tables((int)sources, (int)targets, rows, erasure->tables);
}

void erasure_init_encoder(struct erasure *erasure, unsigned data_shards, unsigned parity_shards)
{
	uint8_t matrix[SHARDS_MAX * DATA_SHARDS_MAX];
	check(erasure_profile_valid(data_shards, parity_shards));
	gf_gen_cauchy1_matrix(matrix, (int)(data_shards + parity_shards), (int)data_shards);
	init_tables(erasure, data_shards, parity_shards, matrix + (size_t)data_shards * data_shards);
}

void erasure_init_decoder(struct erasure *erasure, const struct erasure_question *question)
{
	unsigned k = question->data_shards, shards = k + question->parity_shards;
	uint8_t matrix[SHARDS_MAX * DATA_SHARDS_MAX], had[DATA_SHARDS_MAX * DATA_SHARDS_MAX];
	uint8_t data[DATA_SHARDS_MAX * DATA_SHARDS_MAX], rows[SHARDS_MAX * DATA_SHARDS_MAX];
	check(erasure_profile_valid(k, question->parity_shards));
	check(question->wanted_count >= 1 && question->wanted_count <= question->parity_shards);
	gf_gen_cauchy1_matrix(matrix, (int)shards, (int)k);

	/* had * data = what is there, so data = inverse(had) * what is there; a wanted shard is its row of the matrix times data. */
	for (unsigned i = 0; i < k; i++) {
		check(question->have[i] < shards);
		for (unsigned j = 0; j < k; j++)
			had[i * k + j] = matrix[question->have[i] * k + j];
	}
	check(gf_invert_matrix(had, data, (int)k) == 0); /* fails only if a shard is named twice */
	for (unsigned i = 0; i < question->wanted_count; i++) {
		check(question->wanted[i] < shards);
		for (unsigned j = 0; j < k; j++) {
			uint8_t sum = 0;
			for (unsigned l = 0; l < k; l++)
				sum ^= gf_mul(matrix[question->wanted[i] * k + l], data[l * k + j]);
			rows[i * k + j] = sum;
		}
	}
	init_tables(erasure, k, question->wanted_count, rows);
}

void erasure_deinit(struct erasure *erasure)
{
	free(erasure->tables);
	*erasure = (struct erasure){ 0 };
}

void erasure_run(const struct erasure *erasure, size_t bytes, const uint8_t *const *sources, uint8_t *const *targets)
{
	check(bytes <= INT_MAX);
	/* ISA-L writes through none but the targets' bytes. */
	ec_encode_data((int)bytes, (int)erasure->sources, (int)erasure->targets, erasure->tables, (unsigned char **)(uintptr_t)sources,
		       (unsigned char **)(uintptr_t)targets);
}
