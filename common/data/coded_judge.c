#include "common/data/coded_judge.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/data/erasure.h"

#define PIECE_BYTES 65536u
#define BYTES_MAX (64ull * 1024 * MIB) /* are computed from; some 10 s */

struct judge {
	const struct coded_set *set;
	struct coded_index index;
	struct decompressor *decompressor;
	uint8_t *unpacked;
	uint8_t *computed[DATA_SHARDS_MAX]; /* data of those that are taken to be wrong; NULL: not needed yet */
	uint8_t *pieces[PARITY_SHARDS_MAX];
	uint64_t bad, spent;
	uint32_t differs_at; /* there something was wrong last: most often it is there that it can be seen soonest */
	unsigned found;
};

static unsigned shard_count(const struct coded_set *set)
{
	return set->data_shards + set->parity_shards;
}

static bool has(uint64_t places, unsigned place)
{
	return (places >> place & 1) != 0;
}

static unsigned count_of(uint64_t places)
{
	return (unsigned)__builtin_popcountll(places);
}

static unsigned present_count(const struct coded_set *set)
{
	return shard_count(set) - count_of(set->absent);
}

static uint32_t data_bytes(const struct judge *judge)
{
	return judge->set->bytes - judge->index.head_bytes;
}

/* ---- heads */

static bool is_of(const struct coded_set *set, const struct coded_index *index, unsigned place)
{
	return index->chunk == set->chunk && index->data_shards == set->data_shards && index->parity_shards == set->parity_shards &&
	       index->place == place;
}

static uint32_t bytes_of(const struct coded_index *index)
{
	return index->head_bytes + (index->shard_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

enum err coded_set_bytes(const struct coded_set *firsts, uint32_t *out)
{
	uint32_t bytes[SHARDS_MAX] = { 0 };
	unsigned shards = shard_count(firsts);
	for (unsigned place = 0; place < shards; place++) {
		struct coded_index index;
		if (firsts->shards[place] != NULL && coded_head_parse(slice_of(firsts->shards[place], BLOCK_BYTES), &index) == OK &&
		    is_of(firsts, &index, place))
			bytes[place] = bytes_of(&index);
	}
	for (unsigned place = 0; place < shards; place++) {
		unsigned alike = 0;
		for (unsigned other = 0; other < shards; other++)
			alike += bytes[other] == bytes[place];
		if (bytes[place] != 0 && 2 * alike > present_count(firsts)) {
			*out = bytes[place];
			return OK;
		}
	}
	return ERR_CORRUPT;
}

/* Those whose heads are that of `place`, but for the place. */
static uint64_t with_head_of(const struct judge *judge, unsigned place)
{
	const struct coded_set *set = judge->set;
	uint32_t head_bytes = judge->index.head_bytes;
	uint8_t *head = mem_alloc(head_bytes);
	uint64_t same = 0;
	memcpy(head, set->shards[place], head_bytes);
	for (unsigned other = 0; other < shard_count(set); other++) {
		coded_head_set_place(head, other);
		if (set->shards[other] != NULL && memcmp(set->shards[other], head, head_bytes) == 0)
			same |= 1ull << other;
	}
	free(head);
	return same;
}

/* The head that most have, parsed; the others' shards are wrong. */
static enum err take_head(struct judge *judge)
{
	const struct coded_set *set = judge->set;
	unsigned shards = shard_count(set);
	for (unsigned place = 0; place < shards; place++) {
		if (set->shards[place] == NULL || coded_index_parse(slice_of(set->shards[place], set->bytes), &judge->index) != OK)
			continue;
		uint64_t same = 0;
		if (is_of(set, &judge->index, place) && bytes_of(&judge->index) == set->bytes)
			same = with_head_of(judge, place);
		if (2 * count_of(same) > present_count(set)) {
			judge->bad = ((1ull << shards) - 1) & ~same;
			return OK;
		}
		coded_index_deinit(&judge->index);
	}
	return ERR_CORRUPT;
}

/* ---- units */

static bool are_zeros(const uint8_t *bytes, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

static bool unit_is_right(struct judge *judge, const struct coded_unit *unit, const uint8_t *bytes)
{
	uint32_t length, crc;
	if (judge->index.unit_bytes != 0)
		return coded_unpack(&judge->index, unit, bytes, judge->decompressor, judge->unpacked, NULL) == OK;
	return coded_record(unit, bytes, &length, &crc) == OK && coded_unpack_record(&judge->index, unit, bytes, judge->decompressor, judge->unpacked) == OK;
}

/* `data` is that of the data shard at `place`. */
static bool data_is_right(struct judge *judge, unsigned place, const uint8_t *data)
{
	const struct coded_index *index = &judge->index;
	uint32_t end = 0;
	for (size_t i = index->firsts[place]; i < index->count && index->units[i].shard == place; i++) {
		const struct coded_unit *unit = &index->units[i];
		if (!are_zeros(data, end, unit->offset) || !unit_is_right(judge, unit, data + unit->offset))
			return false;
		end = unit->offset + unit->size;
	}
	return are_zeros(data, end, data_bytes(judge));
}

/* ---- what is wrong */

struct question {
	unsigned wanted_count;
	uint8_t have[DATA_SHARDS_MAX], wanted[PARITY_SHARDS_MAX];
};

/* From k that are not `bad`: the other ones that are not, and data that is. */
static void ask(const struct coded_set *set, uint64_t bad, struct question *out)
{
	unsigned count = 0;
	*out = (struct question){ 0 };
	for (unsigned place = 0; place < shard_count(set); place++) {
		if (!has(bad, place) && count < set->data_shards)
			out->have[count++] = (uint8_t)place;
		else if (!has(bad, place) || place < set->data_shards)
			out->wanted[out->wanted_count++] = (uint8_t)place;
	}
}

static bool piece_fits(struct judge *judge, uint64_t bad, const struct question *question, const struct erasure *erasure, uint32_t at)
{
	const struct coded_set *set = judge->set;
	uint32_t head_bytes = judge->index.head_bytes, left = data_bytes(judge) - at, bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
	const uint8_t *sources[DATA_SHARDS_MAX];
	uint8_t *targets[PARITY_SHARDS_MAX];
	for (unsigned i = 0; i < set->data_shards; i++)
		sources[i] = set->shards[question->have[i]] + head_bytes + at;
	for (unsigned i = 0; i < question->wanted_count; i++)
		targets[i] = has(bad, question->wanted[i]) ? judge->computed[question->wanted[i]] + at : judge->pieces[i];
	erasure_run(erasure, bytes, sources, targets);
	judge->spent += (uint64_t)bytes * set->data_shards;
#ifndef PLANT_PARITY_NOT_COMPARED
	for (unsigned i = 0; i < question->wanted_count; i++) {
		unsigned place = question->wanted[i];
		if (!has(bad, place) && memcmp(targets[i], set->shards[place] + head_bytes + at, bytes) != 0) {
			judge->differs_at = at;
			return false;
		}
	}
#endif
	return true;
}

/* If these are wrong, everything fits. */
static bool explains(struct judge *judge, uint64_t bad)
{
	const struct coded_set *set = judge->set;
	struct question question;
	struct erasure erasure;
	bool fits;
	ask(set, bad, &question);
	if (question.wanted_count == 0) /* parity, and all of it: the data speaks for itself */
		return true;
	for (unsigned place = 0; place < set->data_shards; place++)
		if (has(bad, place) && judge->computed[place] == NULL)
			judge->computed[place] = mem_alloc(data_bytes(judge));
	erasure_init_decoder(&erasure, &(struct erasure_question){ .data_shards = set->data_shards,
								    .parity_shards = set->parity_shards,
								    .have = question.have,
								    .wanted = question.wanted,
								    .wanted_count = question.wanted_count });
	fits = piece_fits(judge, bad, &question, &erasure, judge->differs_at);
	for (uint32_t at = 0; fits && at < data_bytes(judge); at += PIECE_BYTES)
		fits = piece_fits(judge, bad, &question, &erasure, at);
	erasure_deinit(&erasure);
	for (unsigned place = 0; fits && place < set->data_shards; place++)
		fits = !has(bad, place) || data_is_right(judge, place, judge->computed[place]);
	return fits;
}

/* The next larger number with as many bits, of which there are some. */
static uint64_t next_with_as_many(uint64_t bits)
{
	uint64_t low = bits & (~bits + 1), ripple = bits + low;
	return ((bits ^ ripple) >> 2) / low | ripple;
}

/* All that are `base` and `more` others. */
static enum err try_all(struct judge *judge, uint64_t base, unsigned more)
{
	unsigned others[SHARDS_MAX], count = 0;
	for (unsigned place = 0; place < shard_count(judge->set); place++)
		if (!has(base, place))
			others[count++] = place;
	for (uint64_t bits = (1ull << more) - 1; bits < 1ull << count; bits = next_with_as_many(bits)) {
		uint64_t bad = base;
		for (unsigned i = 0; i < count; i++)
			bad |= has(bits, i) ? 1ull << others[i] : 0;
		if (explains(judge, bad)) {
			judge->bad = bad;
			judge->found++;
		}
		if (more == 0)
			break;
		if (judge->spent > BYTES_MAX)
			return ERR_TOO_MANY;
	}
	return OK;
}

/* Those of which it is plain that they are wrong, and then as few others as will do. */
static enum err search(struct judge *judge)
{
	const struct coded_set *set = judge->set;
	enum err err = OK;
	for (unsigned place = 0; place < set->data_shards; place++)
		if (!has(judge->bad, place) && !data_is_right(judge, place, set->shards[place] + judge->index.head_bytes))
			judge->bad |= 1ull << place;
	uint64_t base = judge->bad;
	for (unsigned more = 0; err == OK && judge->found == 0; more++) {
		if (count_of(base) + more > set->parity_shards)
			return ERR_CORRUPT;
		err = try_all(judge, base, more);
	}
	return err == OK && judge->found > 1 ? ERR_CORRUPT : err;
}

enum err coded_judge(const struct coded_set *set, uint64_t *bad)
{
	struct judge judge = { .set = set };
	enum err err = take_head(&judge);
	*bad = 0;
	if (err != OK)
		return err;
	judge.decompressor = decompressor_open();
	judge.unpacked = mem_alloc(BLOB_BYTES_MAX > CODED_UNIT_BYTES ? BLOB_BYTES_MAX : CODED_UNIT_BYTES);
	for (unsigned i = 0; i < set->parity_shards; i++)
		judge.pieces[i] = mem_alloc(PIECE_BYTES);
	err = search(&judge);
	if (err == OK)
		*bad = judge.bad & ~set->absent;
	for (unsigned i = 0; i < set->parity_shards; i++)
		free(judge.pieces[i]);
	for (unsigned i = 0; i < set->data_shards; i++)
		free(judge.computed[i]);
	free(judge.unpacked);
	decompressor_close(judge.decompressor);
	coded_index_deinit(&judge.index);
	return err;
}
