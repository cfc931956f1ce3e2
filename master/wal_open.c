/* The start: finding the segments, reading them, going on where they end. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/sys/log.h"
#include "master/wal_internal.h"
#include "master/wal_reader.h"

#define SEGMENTS_MAX (1u << 20)
#define SEGMENT_BYTES_MAX (1u << 30)
#define LOAD_BYTES (256u * KIB)

struct names {
	uint64_t *sequences;
	size_t sequence_count, sequence_capacity;
	uint64_t *spares;
	size_t spare_count, spare_capacity;
};

static void add_number(uint64_t **numbers, size_t *count, size_t *capacity, uint64_t number)
{
	check(*count < SEGMENTS_MAX);
	if (*count == *capacity) {
		*capacity = *capacity > 0 ? *capacity * 2 : 16;
		*numbers = mem_resize(*numbers, *capacity * sizeof(**numbers));
	}
	(*numbers)[(*count)++] = number;
}

/* The number in a name like wal-0000000000000001. */
static bool parse_name(const char *name, const char *prefix, uint64_t *number)
{
	size_t prefix_size = strlen(prefix);
	if (strncmp(name, prefix, prefix_size) != 0 || strlen(name) != prefix_size + 16)
		return false;
	*number = 0;
	for (const char *c = name + prefix_size; *c; c++) {
		if (*c >= '0' && *c <= '9')
			*number = *number << 4 | (uint64_t)(*c - '0');
		else if (*c >= 'a' && *c <= 'f')
			*number = *number << 4 | (uint64_t)(*c - 'a' + 10);
		else
			return false;
	}
	return true;
}

static bool note_name(void *arg, const char *name)
{
	struct names *names = arg;
	uint64_t number;
	if (parse_name(name, "wal-", &number))
		add_number(&names->sequences, &names->sequence_count, &names->sequence_capacity, number);
	else if (parse_name(name, "spare-", &number))
		add_number(&names->spares, &names->spare_count, &names->spare_capacity, number);
	return true;
}

static int compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static enum err corrupt(const struct wal *wal, uint64_t sequence, const struct wal_damage *damage)
{
	log_error("wal_corrupt", "file=%s offset=%" PRIu32 " index=%" PRIu64 " why=\"%s\"",
		  wal_segment_path(wal, sequence).text, damage->offset, damage->index, damage->why);
	return ERR_CORRUPT;
}

/* Reads what can be read: pages that the disk does not give any more are zeros in `out`, as any damage. *unreadable_end: behind
 * the last of them, when there are some. Returns less than `size`, a multiple of pages, at the end of the file. */
static size_t read_pages(struct file *file, uint64_t offset, uint8_t *out, size_t size, uint64_t *unreadable_end)
{
	size_t done;
	if (file_read(file, offset, out, size, &done) == OK)
		return done;
	for (size_t at = 0; at < size; at += WAL_PAGE_BYTES) {
		enum err err = file_read(file, offset + at, out + at, WAL_PAGE_BYTES, &done);
		if (err == OK && done < WAL_PAGE_BYTES)
			return at + done;
		if (err == OK)
			continue;
		memset(out + at, 0, WAL_PAGE_BYTES);
		*unreadable_end = offset + at + WAL_PAGE_BYTES;
	}
	return size;
}

/* The whole of a segment, as it is on the disk: past the page cache, which after a failed sync holds what the disk does
 * not (and after a killed process what the disk does not yet, hence the sync). */
static enum err load_segment(struct wal *wal, uint64_t sequence, struct buf *out, uint64_t *unreadable_end)
{
	struct wal_path path = wal_segment_path(wal, sequence);
	struct file *file;
	*unreadable_end = 0;
	enum err err = file_open(wal->loop, path.text, FILE_READ_ONLY | FILE_DIRECT, &file);
	if (err)
		return err;
	uint64_t size = 0;
	struct iobuf *piece = iobuf_open(LOAD_BYTES);
	err = file_sync(file);
	if (err == OK)
		err = file_size(file, &size);
	if (err == OK && size > SEGMENT_BYTES_MAX)
		err = ERR_TOO_LARGE;
	buf_clear(out);
	for (size_t done = LOAD_BYTES; err == OK && done == LOAD_BYTES && out->size < size;) {
		done = read_pages(file, out->size, piece->bytes, LOAD_BYTES, unreadable_end);
		buf_append(out, piece->bytes, done);
	}
	/* Segments have their whole length from the start: what is missing was cut off, and is damage as any. */
	static const uint8_t zeros[WAL_PAGE_BYTES];
	struct wal_header header;
	bool cut_off = err == OK && wal_read_header(buf_slice(out), sequence, &header) &&
		       out->size < header.segment_bytes && header.segment_bytes <= SEGMENT_BYTES_MAX;
	if (cut_off)
		*unreadable_end = header.segment_bytes;
	while (cut_off && out->size < header.segment_bytes) {
		size_t left = header.segment_bytes - out->size;
		buf_append(out, zeros, left < sizeof(zeros) ? left : sizeof(zeros));
	}
	if (*unreadable_end > 0)
		log_warn("wal_pages_unreadable", "file=%s before_offset=%" PRIu64, path.text, *unreadable_end);
	iobuf_unref(piece);
	file_unref(file);
	return err;
}

static enum err load_header(struct wal *wal, uint64_t sequence, struct wal_header *out)
{
	struct wal_path path = wal_segment_path(wal, sequence);
	struct file *file;
	enum err err = file_open(wal->loop, path.text, FILE_READ_ONLY, &file);
	if (err)
		return err;
	uint8_t pages[WAL_IDENTITIES_OFFSET];
	uint64_t unreadable_end = 0;
	size_t done = read_pages(file, 0, pages, sizeof(pages), &unreadable_end);
	file_unref(file);
	if (wal_read_header(slice_of(pages, done), sequence, out))
		return OK;
	if (unreadable_end > 0)
		return ERR_IO;
	struct wal_damage damage = {.why = "both copies of the header are damaged"};
	return corrupt(wal, sequence, &damage);
}

/* Segments that the last one calls not needed were about to be taken back: nothing in them counts. */
static enum err skip_not_needed(struct wal *wal, const struct names *names, size_t *skipped)
{
	struct wal_header header;
	*skipped = 0;
	enum err err = load_header(wal, names->sequences[names->sequence_count - 1], &header);
	if (err)
		return err;
	while (names->sequences[*skipped] < header.first_sequence)
		wal_add_segment(wal, names->sequences[(*skipped)++], 0);
	return OK;
}

/* Reads all segments; `last` is the content of the last one. */
static enum err read_all(struct wal *wal, const struct names *names, struct wal_reader *reader, struct buf *last)
{
	size_t first = 0;
	enum err err = names->sequence_count > 0 ? skip_not_needed(wal, names, &first) : OK;
	if (err)
		return err;
	for (size_t i = first; i < names->sequence_count; i++) {
		uint64_t sequence = names->sequences[i];
		struct wal_header next;
		bool has_next = i + 1 < names->sequence_count;
		if (has_next && names->sequences[i + 1] != sequence + 1) {
			struct wal_damage damage = {.why = "this segment is missing"};
			return corrupt(wal, sequence + 1, &damage);
		}
		err = has_next ? load_header(wal, sequence + 1, &next) : OK;
		if (err)
			return err;
		buf_clear(last);
		uint64_t unreadable_end;
		err = load_segment(wal, sequence, last, &unreadable_end);
		if (err)
			return err;
		struct wal_damage damage;
		err = wal_read_segment(reader, buf_slice(last), sequence, has_next ? &next : NULL, &damage);
		if (err)
			return unreadable_end > 0 ? ERR_IO : corrupt(wal, sequence, &damage);
		/* Where the log ends must not be guessed from what cannot be read. */
		if (!has_next && unreadable_end > reader->end)
			return ERR_IO;
		wal_add_segment(wal, sequence, reader->index_max);
	}
	if (names->sequence_count > 0 && reader->first_needed < names->sequences[first]) {
		struct wal_damage damage = {.why = "this segment is missing"};
		return corrupt(wal, reader->first_needed, &damage);
	}
	return OK;
}

/* Keeps whole spares for use and removes the others. */
static enum err sort_spares(struct wal *wal, const struct names *names)
{
	for (size_t i = 0; i < names->spare_count; i++) {
		uint64_t number = names->spares[i];
		struct wal_path path = wal_spare_path(wal, number);
		struct file *file;
		uint64_t size = 0;
		enum err err = file_open(wal->loop, path.text, FILE_READ_ONLY, &file);
		if (err == OK) {
			err = file_size(file, &size);
			file_unref(file);
		}
		if (err)
			return err;
		if (number > wal->spare_number)
			wal->spare_number = number;
		if (number > 0 && size == wal->options.segment_bytes && wal->spare_count < WAL_SPARES_MAX)
			wal->spares[wal->spare_count++] = number;
		else if ((err = file_unlink(wal->loop, path.text)) != OK)
			return err;
	}
	return OK;
}

static enum err create_first(struct wal *wal)
{
	wal->log_id = loop_random(wal->loop);
	wal->first_needed = wal->first_needed_durable = 1;
	struct wal_header header = {
	    .segment_bytes = wal->options.segment_bytes,
	    .identity_bytes = wal_identity_bytes(wal->options.segment_bytes),
	    .sequence = 1,
	    .log_id = wal->log_id,
	    .first_sequence = 1,
	};
	wal->file_bytes = header.segment_bytes;
	wal->end = wal_records_offset(header.segment_bytes);
	wal_add_segment(wal, 1, 0);
	uint64_t spare = wal->spare_count > 0 ? wal->spares[--wal->spare_count] : 0;
	return wal_create_segment(wal, &header, spare, &wal->file);
}

/* A record of its own after a torn batch, so that batches go on without a gap in their numbers. */
static enum err write_mark(struct wal *wal, struct wal_reader *reader)
{
	struct wal_record record = {.kind = WAL_MARK, .last = true, .batch = reader->batch + 1, .payload_crc = 0};
	uint64_t salt = wal->log_id ^ reader->sequence;
	uint32_t in_page = reader->end % WAL_PAGE_BYTES;
	if (wal->file_bytes - wal->end < WAL_RECORD_BYTES ||
	    wal->identity_count == wal_identity_bytes(wal->file_bytes) / WAL_IDENTITY_BYTES) {
		struct wal_damage damage = {.why = "torn where there is no room for a record", .offset = wal->end};
		return corrupt(wal, reader->sequence, &damage);
	}
	uint8_t pages[2 * WAL_PAGE_BYTES] = {0};
	memcpy(pages, wal->tail, in_page);
	wal_pack_record(&record, salt, pages + in_page);
	uint32_t size = in_page + WAL_RECORD_BYTES > WAL_PAGE_BYTES ? 2 * WAL_PAGE_BYTES : WAL_PAGE_BYTES;
	enum err err = file_write(wal->file, reader->end - in_page, pages, size);
	if (err == OK)
		err = file_sync(wal->file);
	if (err)
		return err;
	struct wal_identity identity = wal_identity_of(&record, reader->end);
	uint8_t bytes[WAL_IDENTITY_BYTES];
	wal_pack_identity(&identity, salt, bytes);
	memcpy(wal->identity_tail + wal->identity_count * WAL_IDENTITY_BYTES % WAL_PAGE_BYTES, bytes, sizeof(bytes));
	wal->identity_count++;
	wal->end += WAL_RECORD_BYTES;
	wal->batch = record.batch;
	uint32_t used = wal->end % WAL_PAGE_BYTES;
	memset(wal->tail, 0, sizeof(wal->tail));
	memcpy(wal->tail, pages + in_page + WAL_RECORD_BYTES - used, used);
	return OK;
}

/* Goes on in the last segment read. What is in it becomes durable first: it may be there only thanks to the page cache.
 */
static enum err resume(struct wal *wal, struct wal_reader *reader, const struct buf *last)
{
	wal->log_id = reader->log_id;
	wal->first_needed = wal->first_needed_durable = reader->first_needed;
	wal->file_bytes = reader->segment_bytes;
	wal->end = reader->end;
	wal->batch = reader->batch;
	wal->hard = reader->hard;
	wal->last_index = reader->first_index + reader->entry_count - 1;
	wal->last_term =
	    reader->entry_count > 0 ? reader->entries[reader->entry_count - 1].term : reader->first_previous_term;
	uint32_t in_page = wal->end % WAL_PAGE_BYTES;
	memcpy(wal->tail, last->bytes + wal->end - in_page, in_page);

	struct wal_path path = wal_segment_path(wal, reader->sequence);
	enum err err = file_open(wal->loop, path.text, FILE_WRITE, &wal->file);
	if (err)
		return err;
	struct buf identities = {0};
	for (size_t i = 0; i < reader->identity_count; i++) {
		uint8_t bytes[WAL_IDENTITY_BYTES];
		wal_pack_identity(&reader->identities[i], wal->log_id ^ reader->sequence, bytes);
		buf_append(&identities, bytes, sizeof(bytes));
	}
	wal->identity_count = (uint32_t)reader->identity_count;
	size_t used = identities.size % WAL_PAGE_BYTES;
	if (used > 0) {
		memcpy(wal->identity_tail, identities.bytes + identities.size - used, used);
		buf_append(&identities, (const uint8_t[WAL_PAGE_BYTES]){0}, WAL_PAGE_BYTES - used);
	}
	if (identities.size > 0)
		err = file_write(wal->file, WAL_IDENTITIES_OFFSET, identities.bytes, identities.size);
	if (err == OK)
		err = file_sync(wal->file); /* so that they are there, should one of the records not be some day */
	buf_deinit(&identities);
	return err;
}

static void tell_damage(const struct wal *wal, const struct wal_reader *reader)
{
	if (reader->vote_lost)
		log_warn("wal_vote_lost", "directory=%s term=%" PRIu64, wal->directory, reader->hard.term);
	if (reader->damaged_count == 0)
		return;
	const struct raft_entry *first = reader->entries;
	while (!first->damaged)
		first++;
	log_warn("wal_entries_damaged", "directory=%s count=%zu first_index=%" PRIu64, wal->directory,
		 reader->damaged_count, first->index);
}

static void give_loaded(struct wal_reader *reader, struct wal_loaded *loaded)
{
	*loaded = (struct wal_loaded){
	    .hard = reader->hard,
	    .first_index = reader->first_index,
	    .first_previous_term = reader->first_previous_term,
	    .entries = reader->entries,
	    .entry_count = reader->entry_count,
	    .damaged_count = reader->damaged_count,
	    .torn_bytes = reader->torn_end - reader->end,
	};
	reader->entries = NULL;
	reader->entry_count = 0;
}

void wal_loaded_free(struct wal_loaded *loaded)
{
	for (size_t i = 0; i < loaded->entry_count; i++)
		free((void *)loaded->entries[i].payload.bytes);
	free(loaded->entries);
	*loaded = (struct wal_loaded){0};
}

static enum err open_directory(struct wal *wal, struct names *names)
{
	struct wal_path path;
	enum err err = dir_make(wal->loop, wal->directory);
	if (err)
		return err;
	int size = snprintf(path.text, sizeof(path.text), "%s/LOCK", wal->directory);
	check(size > 0 && (size_t)size < sizeof(path.text));
	err = file_open(wal->loop, path.text, FILE_WRITE | FILE_CREATE, &wal->lock);
	if (err == OK)
		err = file_lock(wal->lock);
	/* A segment may be there by a name that never became durable: the process ended, or its sync failed, in between. */
#ifndef PLANT_WAL_NAME_NOT_SYNCED
	if (err == OK)
		err = dir_sync(wal->loop, wal->directory);
#endif
	if (err == OK)
		err = dir_list(wal->loop, wal->directory, note_name, names);
	if (err == OK && names->sequence_count > 0)
		qsort(names->sequences, names->sequence_count, sizeof(*names->sequences), compare_numbers);
	return err;
}

static enum err load(struct wal *wal, const struct names *names, struct wal_loaded *loaded)
{
	struct wal_reader reader = {0};
	struct buf last = {0};
	enum err err = sort_spares(wal, names);
	if (err)
		return err;
	if (names->sequence_count == 0) {
		loaded->first_index = 1;
		return create_first(wal);
	}
	err = read_all(wal, names, &reader, &last);
	if (err == OK)
		err = resume(wal, &reader, &last);
	if (err == OK && !reader.batch_ended)
		err = write_mark(wal, &reader);
	if (err == OK) {
		if (reader.torn_end > reader.end)
			log_warn("wal_torn_tail_cut", "file=%s offset=%" PRIu32 " bytes=%" PRIu32 " index=%" PRIu64,
				 wal_segment_path(wal, reader.sequence).text, reader.end, reader.torn_end - reader.end,
				 wal->last_index + 1);
		tell_damage(wal, &reader);
		give_loaded(&reader, loaded);
	}
	buf_deinit(&last);
	wal_reader_deinit(&reader);
	return err;
}

enum err wal_open(struct loop *loop, const struct wal_options *options, struct wal **out, struct wal_loaded *loaded)
{
	*out = NULL;
	*loaded = (struct wal_loaded){0};
	if (strlen(options->directory) + 64 > PATH_BYTES_MAX)
		return ERR_NAME_TOO_LONG;
	struct wal *wal = mem_zero(1, sizeof(*wal));
	struct names names = {0};
	wal->loop = loop;
	wal->options = *options;
	wal->directory = mem_string(options->directory);
	wal->options.directory = wal->directory;
	if (wal->options.segment_bytes == 0)
		wal->options.segment_bytes = WAL_SEGMENT_BYTES;
	check(wal->options.segment_bytes >= WAL_SEGMENT_BYTES_MIN && wal->options.segment_bytes % WAL_PAGE_BYTES == 0);
	wal_defer_init(wal);
	enum err err = open_directory(wal, &names);
	if (err == OK)
		err = load(wal, &names, loaded);
	free(names.sequences);
	free(names.spares);
	if (err) {
		wal_free(wal);
		return err;
	}
	wal_upkeep_start(wal);
	*out = wal;
	return OK;
}
