#include "master/wal_reader.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"

#define CUT_SEARCH_MAX (1u << 20) /* segments that a log can have */

/* Forgets all entries but the first `keep`. */
static void entries_drop(struct wal_reader *reader, size_t keep)
{
	while (reader->entry_count > keep) {
		const struct raft_entry *entry = &reader->entries[--reader->entry_count];
		reader->damaged_count -= entry->damaged;
		free((void *)entry->payload.bytes);
	}
}

void wal_reader_deinit(struct wal_reader *reader)
{
	entries_drop(reader, 0);
	free(reader->entries);
	free(reader->identities);
	*reader = (struct wal_reader){0};
}

bool wal_read_header(struct slice segment, uint64_t sequence, struct wal_header *out)
{
	for (uint32_t copy = 0; copy < 2; copy++) {
		size_t offset = copy * WAL_PAGE_BYTES;
		if (segment.size < offset + WAL_HEADER_BYTES || !wal_parse_header(segment.bytes + offset, out))
			continue;
		if (out->sequence == sequence)
			return true;
	}
	return false;
}

static uint64_t salt(const struct wal_reader *reader)
{
	return reader->log_id ^ reader->sequence;
}

static uint64_t last_index(const struct wal_reader *reader)
{
	return reader->first_index + reader->entry_count - 1;
}

static uint64_t last_term(const struct wal_reader *reader)
{
	return reader->entry_count > 0 ? reader->entries[reader->entry_count - 1].term : reader->first_previous_term;
}

static enum err damaged(struct wal_damage *damage, const char *why, uint32_t offset, uint64_t index)
{
	*damage = (struct wal_damage){why, offset, index};
	return ERR_CORRUPT;
}

/* The header says the hard state, too: where a record of it was damaged, it knows better. */
static bool hard_follows(struct wal_reader *reader, const struct raft_hard_state *hard)
{
	if (hard->term != reader->hard.term)
		return false;
	if (reader->vote_lost)
		reader->hard = *hard;
	reader->vote_lost = false;
	/* It may have been written when the record could not be read that can be now. */
	return hard->vote == reader->hard.vote || hard->vote == RAFT_VOTE_UNKNOWN;
}

/* The log begins anew. */
static bool take_reset(struct wal_reader *reader, const struct wal_header *header)
{
	if (header->hard.term < reader->hard.term)
		return false;
	entries_drop(reader, 0);
	reader->first_index = header->previous_index + 1;
	reader->first_previous_term = header->previous_term;
	reader->hard = header->hard;
	reader->vote_lost = false;
	return true;
}

static enum err take_header(struct wal_reader *reader, const struct wal_header *header, uint64_t sequence, size_t size,
			    struct wal_damage *damage)
{
	if (header->segment_bytes != size)
		return damaged(damage, "segment has the wrong size", 0, 0);
	if (reader->sequence == 0) {
		reader->first_index = header->previous_index + 1;
		reader->first_previous_term = header->previous_term;
		reader->hard = header->hard;
		reader->log_id = header->log_id;
		reader->batch = header->previous_batch;
		reader->batch_ended = true;
	} else if (sequence != reader->sequence + 1 || header->log_id != reader->log_id ||
		   header->previous_batch != reader->batch || !reader->batch_ended) {
		return damaged(damage, "segment does not follow the one before it", 0, 0);
	} else if (header->reset) {
		if (!take_reset(reader, header))
			return damaged(damage, "segment goes back to an older term", 0, 0);
	} else if (header->previous_index != last_index(reader) || header->previous_term != last_term(reader) ||
		   !hard_follows(reader, &header->hard)) {
		return damaged(damage, "segment does not follow the one before it", 0, 0);
	}
	if (header->first_sequence > reader->first_needed)
		reader->first_needed = header->first_sequence;
	reader->sequence = sequence;
	reader->segment_bytes = header->segment_bytes;
	reader->index_max = 0;
	reader->identity_count = 0;
	return OK;
}

static void set_payload(struct raft_entry *entry, struct slice payload)
{
	if (payload.size == 0)
		return;
	uint8_t *bytes = mem_alloc(payload.size);
	memcpy(bytes, payload.bytes, payload.size);
	entry->payload = (struct slice){bytes, payload.size};
}

/* is_damaged: only its identity is known. */
static bool take_entry(struct wal_reader *reader, const struct wal_record *record, struct slice payload,
		       bool is_damaged)
{
	if (record->index == 0 || record->index > last_index(reader) + 1 || record->term == 0 ||
	    record->term > reader->hard.term || record->entry_kind < RAFT_ENTRY_NORMAL ||
	    record->entry_kind > RAFT_ENTRY_MEMBERS)
		return false;
	if (record->index > reader->index_max)
		reader->index_max = record->index;
	if (record->index < reader->first_index) {
		/* It took the place of one in a segment that has been taken back since: no entry up to what that
		 * segment held is needed any more, this one serves only to know its term. */
		entries_drop(reader, 0);
		reader->first_index = record->index + 1;
		reader->first_previous_term = record->term;
		return true;
	}
	if (last_index(reader) >= record->index)
		entries_drop(reader, (size_t)(record->index - reader->first_index));
	if (record->term < last_term(reader))
		return false;
	if (reader->entry_count == reader->entry_capacity) {
		reader->entry_capacity = reader->entry_capacity > 0 ? reader->entry_capacity * 2 : 256;
		reader->entries = mem_resize(reader->entries, reader->entry_capacity * sizeof(*reader->entries));
	}
	struct raft_entry *entry = &reader->entries[reader->entry_count++];
	*entry = (struct raft_entry){
	    .index = record->index, .term = record->term, .kind = record->entry_kind, .damaged = is_damaged};
	reader->damaged_count += is_damaged;
	set_payload(entry, payload);
	return true;
}

/* What it fills may have been overwritten or taken back since. */
static bool take_fill(struct wal_reader *reader, const struct wal_record *record, struct slice payload)
{
	if (record->entry_kind < RAFT_ENTRY_NORMAL || record->entry_kind > RAFT_ENTRY_MEMBERS)
		return false;
	if (record->index < reader->first_index || record->index > last_index(reader))
		return true;
	struct raft_entry *entry = &reader->entries[record->index - reader->first_index];
	if (!entry->damaged || entry->term != record->term)
		return true;
	entry->damaged = false;
	entry->kind = record->entry_kind;
	reader->damaged_count--;
	set_payload(entry, payload);
	return true;
}

/* False: valid by itself, but it cannot follow what was read before. */
static bool take_record(struct wal_reader *reader, const struct wal_record *record, struct slice payload)
{
	switch (record->kind) {
	case WAL_ENTRY:
		return take_entry(reader, record, payload, false);
	case WAL_FILL:
		return take_fill(reader, record, payload);
	case WAL_HARD:
		if (payload.size != 24 || get_le64(payload.bytes) < reader->hard.term)
			return false;
		reader->hard = (struct raft_hard_state){get_le64(payload.bytes), get_le64(payload.bytes + 8),
							get_le64(payload.bytes + 16)};
		reader->vote_lost = false;
		return true;
	case WAL_CUT:
		if (payload.size != 8 || get_le64(payload.bytes) > reader->sequence)
			return false;
		if (get_le64(payload.bytes) > reader->first_needed)
			reader->first_needed = get_le64(payload.bytes);
		return true;
	case WAL_MARK:
		return payload.size == 0;
	}
	return false;
}

/* A number of 32 bits and less has a CRC of its own. */
static bool find_cut(struct wal_reader *reader, uint32_t crc)
{
	for (uint64_t sequence = reader->first_needed;
	     sequence <= reader->sequence && sequence - reader->first_needed < CUT_SEARCH_MAX; sequence++) {
		uint8_t bytes[8];
		put_le64(bytes, sequence);
		if (crc32c(bytes, sizeof(bytes)) != crc)
			continue;
		reader->first_needed = sequence;
		return true;
	}
	return false;
}

/* A record that was complete and is damaged: what its identity tells. */
static bool take_damaged(struct wal_reader *reader, const struct wal_record *record)
{
	switch (record->kind) {
	case WAL_ENTRY:
		return take_entry(reader, record, (struct slice){0}, true);
	case WAL_HARD:
		if (record->term < reader->hard.term)
			return false;
		/* A vote that was given in this term stays what it is. */
		if (record->term > reader->hard.term || reader->hard.vote == 0) {
			reader->hard.vote = RAFT_VOTE_UNKNOWN;
			reader->vote_lost = true;
		}
		reader->hard.term = record->term;
		return true;
	case WAL_CUT:
		return find_cut(reader, record->payload_crc);
	case WAL_MARK:
	case WAL_FILL:
		return true;
	}
	return false;
}

static void note_identity(struct wal_reader *reader, const struct wal_record *record, uint32_t offset)
{
	if (reader->identity_count == reader->identity_capacity) {
		reader->identity_capacity = reader->identity_capacity > 0 ? reader->identity_capacity * 2 : 256;
		reader->identities =
		    mem_resize(reader->identities, reader->identity_capacity * sizeof(*reader->identities));
	}
	reader->identities[reader->identity_count++] = wal_identity_of(record, offset);
}

/* Whether a record of this batch may come next. */
static bool batch_follows(const struct wal_reader *reader, const struct wal_record *record)
{
	if (record->kind == WAL_MARK)
		return record->batch > reader->batch;
	return record->batch == (reader->batch_ended ? reader->batch + 1 : reader->batch);
}

/* The damaged record at reader->end, from the identity in its place. False: it is not there, so the record never was
 * complete, or nobody knows what it was. */
static bool recall_record(const struct wal_reader *reader, struct slice segment, struct wal_record *out)
{
	struct wal_identity identity;
	size_t place = WAL_IDENTITIES_OFFSET + reader->identity_count * WAL_IDENTITY_BYTES;
	if (!wal_parse_identity(segment.bytes + place, salt(reader), &identity) || identity.offset != reader->end ||
	    identity.kind == 0 || segment.size - identity.offset < wal_record_bytes(identity.payload_bytes))
		return false;
	uint64_t batch = reader->batch_ended ? reader->batch + 1 : reader->batch;
	/* A mark's batch is the next one, or that after a torn batch. */
	if (identity.kind == WAL_MARK && ((reader->batch + 1) & 0x7f) != identity.batch_low)
		batch = reader->batch + 2;
	else if (identity.kind == WAL_MARK)
		batch = reader->batch + 1;
	*out = (struct wal_record){
	    .kind = identity.kind,
	    .last = identity.last,
	    .entry_kind = identity.entry_kind,
	    .payload_bytes = identity.payload_bytes,
	    .payload_crc = identity.payload_crc,
	    .batch = batch,
	    .index = identity.index,
	    .term = identity.term,
	};
	return (batch & 0x7f) == identity.batch_low;
}

/* Reads records from `offset` up to `limit`, those that are damaged by their identities; reader->end is then the first place
 * that has none. */
static enum err read_records(struct wal_reader *reader, struct slice segment, uint32_t offset, uint32_t limit,
			     struct wal_damage *damage)
{
	reader->end = offset;
	struct wal_record record;
	while (reader->end < limit &&
	       reader->identity_count < wal_identity_bytes(reader->segment_bytes) / WAL_IDENTITY_BYTES) {
		bool taken;
		if (wal_parse_record(segment, reader->end, salt(reader), &record) && batch_follows(reader, &record)) {
			struct slice payload = {segment.bytes + reader->end + WAL_RECORD_BYTES, record.payload_bytes};
			taken = take_record(reader, &record, payload);
		} else if (recall_record(reader, segment, &record)) {
			taken = take_damaged(reader, &record);
		} else {
			break;
		}
		if (!taken)
			return damaged(damage, "record contradicts those before it", reader->end, record.index);
		note_identity(reader, &record, reader->end);
		reader->batch = record.batch;
		reader->batch_ended = record.last;
		reader->end += wal_record_bytes(record.payload_bytes);
	}
	return OK;
}

/* The identity of the record that should be at `offset`, or of the first one after it. */
static bool find_identity(const struct wal_reader *reader, struct slice segment, uint32_t offset,
			  struct wal_identity *out)
{
	uint32_t bytes = wal_identity_bytes(reader->segment_bytes);
	for (uint32_t place = 0; place < bytes; place += WAL_IDENTITY_BYTES)
		if (wal_parse_identity(segment.bytes + WAL_IDENTITIES_OFFSET + place, salt(reader), out) &&
		    out->offset >= offset)
			return true;
	*out = (struct wal_identity){0};
	return false;
}

/* What lies behind the end of the last segment: remnants of the torn batch, or proof that more was complete. */
static enum err judge_tail(struct wal_reader *reader, struct slice segment, struct wal_damage *damage)
{
	struct wal_identity identity;
	if (find_identity(reader, segment, reader->end, &identity))
		return damaged(damage, "a record that was complete is damaged", reader->end, identity.index);
	uint64_t torn_batch = reader->batch_ended ? reader->batch + 1 : reader->batch;
	uint64_t batch_max = reader->batch;
	reader->torn_end = reader->end;
	struct wal_record record;
	if (wal_parse_record_head(segment, reader->end, salt(reader), &record) && record.batch == torn_batch)
		reader->torn_end += wal_record_bytes(record.payload_bytes); /* its payload is torn */
	for (uint32_t offset = reader->end; offset + WAL_RECORD_BYTES <= segment.size; offset += 8) {
		if (!wal_parse_record(segment, offset, salt(reader), &record) || record.batch < torn_batch)
			continue;
		if (record.batch > torn_batch)
			return damaged(damage, "records before a later batch are damaged", reader->end,
				       last_index(reader) + 1);
		if (reader->torn_end < offset + wal_record_bytes(record.payload_bytes))
			reader->torn_end = offset + wal_record_bytes(record.payload_bytes);
		batch_max = record.batch;
	}
	if (batch_max > reader->batch) {
		reader->batch = batch_max;
		reader->batch_ended = false;
	}
	return OK;
}

enum err wal_read_segment(struct wal_reader *reader, struct slice segment, uint64_t sequence,
			  const struct wal_header *next, struct wal_damage *damage)
{
	struct wal_header header;
	*damage = (struct wal_damage){0};
	if (!wal_read_header(segment, sequence, &header))
		return damaged(damage, "both copies of the header are damaged", 0, 0);
	enum err err = take_header(reader, &header, sequence, segment.size, damage);
	if (err)
		return err;
	uint32_t limit = next ? next->previous_end : header.segment_bytes;
	err = read_records(reader, segment, wal_records_offset(header.segment_bytes), limit, damage);
	if (err)
		return err;
	reader->torn_end = reader->end;
	if (!next)
		return judge_tail(reader, segment, damage);
	if (reader->end != next->previous_end) {
		struct wal_identity identity;
		bool known = find_identity(reader, segment, reader->end, &identity);
		return damaged(damage, "a record that was complete is damaged", reader->end,
			       known ? identity.index : last_index(reader) + 1);
	}
	return OK;
}
