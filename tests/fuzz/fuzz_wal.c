/* Segments of the write-ahead log as a disk may return them. First byte: 0: the input is laid over a segment as it is;
 * else it is read as orders to a builder of segments with right checksums (so that the fuzzer gets behind them):
 * records with any fields, damage, further segments. What is read must be sound whatever the bytes were. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "master/wal_reader.h"

#define SEGMENT WAL_SEGMENT_BYTES_MIN
#define LOG_ID 0x1234567890abcdefull

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct input {
	const uint8_t *bytes;
	size_t size;
};

static uint8_t take(struct input *input)
{
	if (input->size == 0)
		return 0;
	input->size--;
	return *input->bytes++;
}

static void check_read(const struct wal_reader *reader)
{
	uint64_t term = reader->first_previous_term;
	size_t damaged = 0;
	check(reader->first_index > 0);
	for (size_t i = 0; i < reader->entry_count; i++) {
		const struct raft_entry *entry = &reader->entries[i];
		check(entry->index == reader->first_index + i);
		check(entry->term >= term || i == 0);
		check(entry->payload.size <= WAL_PAYLOAD_BYTES_MAX && (!entry->damaged || entry->payload.size == 0));
		damaged += entry->damaged;
		term = entry->term;
	}
	check(damaged == reader->damaged_count);
	check(reader->end <= reader->segment_bytes && reader->torn_end >= reader->end);
	check(reader->identity_count <= wal_identity_bytes(reader->segment_bytes) / WAL_IDENTITY_BYTES);
}

static void write_header(uint8_t *segment, const struct wal_header *header)
{
	wal_pack_header(header, segment);
	wal_pack_header(header, segment + WAL_PAGE_BYTES);
}

/* Small numbers, near what would be right. */
static uint64_t around(struct input *input, uint64_t right)
{
	uint8_t byte = take(input);
	return byte < 200 ? right : right + byte - 228;
}

struct builder {
	uint64_t sequence, batch, index, term;
	uint32_t end;
	size_t identity_count;
};

static void add_record(struct builder *builder, uint8_t *segment, struct input *input)
{
	uint8_t order = take(input);
	struct wal_record record = {
	    .kind = 1 + order % 5,
	    .last = order & 0x40,
	    .entry_kind = (uint16_t)around(input, RAFT_ENTRY_NORMAL),
	    .batch = around(input, builder->batch),
	    .index = around(input, builder->index + 1),
	    .term = around(input, builder->term),
	};
	uint8_t payload[64];
	static const uint8_t sizes[] = {0, 5, 24, 8, 0, 64};
	record.payload_bytes = record.kind < 6 ? sizes[record.kind] : 0;
	for (uint32_t i = 0; i < record.payload_bytes; i++)
		payload[i] = i % 8 == 0 ? take(input) : 0;
	record.payload_crc = crc32c(payload, record.payload_bytes);
	if (builder->end + wal_record_bytes(record.payload_bytes) > SEGMENT)
		return;
	uint64_t salt = LOG_ID ^ builder->sequence;
	wal_pack_record(&record, salt, segment + builder->end);
	memcpy(segment + builder->end + WAL_RECORD_BYTES, payload, record.payload_bytes);
	struct wal_identity identity = wal_identity_of(&record, builder->end);
	if ((order & 0x80) && builder->identity_count < WAL_PAGE_BYTES / WAL_IDENTITY_BYTES)
		wal_pack_identity(&identity, salt,
				  segment + WAL_IDENTITIES_OFFSET + builder->identity_count++ * WAL_IDENTITY_BYTES);
	builder->end += wal_record_bytes(record.payload_bytes);
	builder->index = record.index;
	builder->batch = record.last ? record.batch + 1 : record.batch;
}

/* Returns the header that a following segment would have. */
static struct wal_header build(uint8_t *segment, struct wal_header header, struct input *input)
{
	memset(segment, 0, SEGMENT);
	write_header(segment, &header);
	struct builder builder = {.sequence = header.sequence,
				  .batch = header.previous_batch + 1,
				  .index = header.previous_index,
				  .term = header.hard.term,
				  .end = wal_records_offset(SEGMENT)};
	for (uint8_t count = take(input) % 32; count > 0; count--)
		add_record(&builder, segment, input);
	struct wal_header next = header;
	next.sequence++;
	next.previous_batch = builder.batch - 1;
	next.previous_index = builder.index;
	next.previous_term = builder.term;
	next.previous_end = builder.end;
	next.reset = take(input) > 220;
	if (next.reset)
		next.first_sequence = next.sequence;
	for (uint8_t count = take(input) % 4; count > 0; count--) {
		uint32_t offset = (uint32_t)take(input) << 8 | take(input);
		segment[offset % SEGMENT] ^= take(input);
	}
	return next;
}

static void read_built(struct input input)
{
	static uint8_t segment[SEGMENT];
	struct wal_reader reader = {0};
	struct wal_header header = {.segment_bytes = SEGMENT,
				    .identity_bytes = wal_identity_bytes(SEGMENT),
				    .sequence = 1 + take(&input),
				    .log_id = LOG_ID,
				    .first_sequence = 1,
				    .previous_batch = take(&input),
				    .previous_index = take(&input),
				    .previous_term = take(&input),
				    .hard = {take(&input), take(&input), 0}};
	enum err err = OK;
	for (int i = 0; i < 4 && err == OK && input.size > 0; i++) {
		struct wal_header next = build(segment, header, &input);
		struct wal_damage damage;
		bool is_last = input.size == 0;
		err = wal_read_segment(&reader, slice_of(segment, SEGMENT), header.sequence, is_last ? NULL : &next,
				       &damage);
		check(err == OK || (err == ERR_CORRUPT && damage.why));
		if (err == OK)
			check_read(&reader);
		header = next;
	}
	wal_reader_deinit(&reader);
}

static void read_raw(struct input input)
{
	static uint8_t segment[SEGMENT];
	memset(segment, 0, SEGMENT);
	bool sound = take(&input) & 1;
	memcpy(segment, input.bytes, input.size < SEGMENT ? input.size : SEGMENT);
	if (sound)
		write_header(segment, &(struct wal_header){.segment_bytes = SEGMENT,
							   .identity_bytes = wal_identity_bytes(SEGMENT),
							   .sequence = 1,
							   .first_sequence = 1});
	struct wal_reader reader = {0};
	struct wal_damage damage;
	if (wal_read_segment(&reader, slice_of(segment, SEGMENT), 1, NULL, &damage) == OK)
		check_read(&reader);
	wal_reader_deinit(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input input = {bytes, size};
	if (take(&input) == 0)
		read_raw(input);
	else
		read_built(input);
	return 0;
}
