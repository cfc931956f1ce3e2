#include "master/wal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/log.h"
#include "master/wal_internal.h"

static void start(struct wal *wal);

void wal_add_segment(struct wal *wal, uint64_t sequence, uint64_t index_max)
{
	if (wal->segment_count == wal->segment_capacity) {
		wal->segment_capacity = wal->segment_capacity > 0 ? wal->segment_capacity * 2 : 8;
		wal->segments = mem_resize(wal->segments, wal->segment_capacity * sizeof(*wal->segments));
	}
	wal->segments[wal->segment_count++] = (struct wal_segment){sequence, index_max};
}

static struct wal_segment *current(struct wal *wal)
{
	return &wal->segments[wal->segment_count - 1];
}

/* ---- appending */

static void add_pending(struct wal *wal, struct wal_record record, struct slice payload, uint64_t mark)
{
	check(payload.size <= WAL_PAYLOAD_BYTES_MAX);
	if (wal->pending_count == wal->pending_capacity) {
		wal->pending_capacity = wal->pending_capacity > 0 ? wal->pending_capacity * 2 : 64;
		wal->pending = mem_resize(wal->pending, wal->pending_capacity * sizeof(*wal->pending));
	}
	record.payload_bytes = (uint32_t)payload.size;
	record.payload_crc = crc32c(payload.bytes, payload.size);
	wal->pending[wal->pending_count++] =
	    (struct wal_pending){.record = record, .payload_offset = wal->payloads.size, .mark = mark};
	buf_append_slice(&wal->payloads, payload);
	check(wal_records_offset(wal->options.segment_bytes) + wal_record_bytes(record.payload_bytes) <=
	      wal->options.segment_bytes);
}

/* The last one alone carries the newest mark. */
static void add_entries(struct wal *wal, enum wal_kind kind, const struct raft_entry *entries, size_t entry_count,
			uint64_t mark_before)
{
	for (size_t i = 0; i < entry_count; i++) {
		check(!entries[i].damaged);
		add_pending(wal,
			    (struct wal_record){.kind = kind,
						.entry_kind = (uint16_t)entries[i].kind,
						.index = entries[i].index,
						.term = entries[i].term},
			    entries[i].payload, i + 1 < entry_count ? mark_before : wal->mark_last);
	}
}

enum err wal_append(struct wal *wal, const struct raft_hard_state *hard, const struct raft_entry *entries,
		    size_t entry_count, uint64_t *mark)
{
	*mark = 0;
	if (wal->failed)
		return ERR_STORE_FAILED;
	/* The last record alone carries the new mark: an append may be split between batches. */
	uint64_t before = wal->mark_last;
	if (hard || entry_count > 0)
		wal->mark_last++;
	*mark = wal->mark_last;
	if (hard) {
		uint8_t bytes[24];
		put_le64(bytes, hard->term);
		put_le64(bytes + 8, hard->vote);
		put_le64(bytes + 16, hard->commit);
		add_pending(wal, (struct wal_record){.kind = WAL_HARD, .term = hard->term},
			    slice_of(bytes, sizeof(bytes)), entry_count > 0 ? before : wal->mark_last);
	}
	add_entries(wal, WAL_ENTRY, entries, entry_count, before);
	wal->view.appends++;
	defer_post(&wal->defer);
	return OK;
}

enum err wal_fill(struct wal *wal, const struct raft_entry *entries, size_t entry_count, uint64_t *mark)
{
	*mark = 0;
	if (wal->failed)
		return ERR_STORE_FAILED;
	uint64_t before = wal->mark_last;
	if (entry_count > 0)
		wal->mark_last++;
	*mark = wal->mark_last;
	add_entries(wal, WAL_FILL, entries, entry_count, before);
	wal->view.appends++;
	defer_post(&wal->defer);
	return OK;
}

enum err wal_reset(struct wal *wal, const struct raft_hard_state *hard, uint64_t index, uint64_t term, uint64_t *mark)
{
	*mark = 0;
	if (wal->failed)
		return ERR_STORE_FAILED;
	*mark = ++wal->mark_last;
	/* The header says it all; a record is there so that there is a batch. */
	add_pending(wal, (struct wal_record){.kind = WAL_MARK}, (struct slice){0}, *mark);
	struct wal_pending *pending = &wal->pending[wal->pending_count - 1];
	pending->reset = true;
	pending->hard = *hard;
	pending->reset_index = index;
	pending->reset_term = term;
	wal->view.appends++;
	defer_post(&wal->defer);
	return OK;
}

void wal_sync(struct wal *wal)
{
	if (!wal->busy && !wal->options.sync_inline && !wal->failed)
		start(wal);
}

void wal_set_inline(struct wal *wal, bool sync_inline)
{
	wal->options.sync_inline = sync_inline;
}

uint64_t wal_synced_mark(const struct wal *wal)
{
	return wal->mark_synced;
}

void wal_cut(struct wal *wal, uint64_t index)
{
	size_t drop = 0;
	while (drop + 1 < wal->segment_count && wal->segments[drop].index_max < index)
		drop++;
	uint64_t needed = wal->segments[drop].sequence;
	if (wal->failed || needed <= wal->first_needed)
		return;
	wal->first_needed = needed;
	uint8_t bytes[8];
	put_le64(bytes, needed);
	add_pending(wal, (struct wal_record){.kind = WAL_CUT}, slice_of(bytes, sizeof(bytes)), wal->mark_last);
	defer_post(&wal->defer);
}

void wal_retry(struct wal *wal)
{
	if (wal->spare_failed)
		wal_upkeep_start(wal);
}

void wal_view(const struct wal *wal, struct wal_view *out)
{
	*out = wal->view;
	out->segments = wal->segment_count;
	out->segments_spare = wal->spare_count;
	out->failed = wal->failed;
	out->space_low = wal->spare_failed && wal->spare_count == 0;
}

/* ---- batches */

static bool fits(const struct wal *wal, const struct wal_pending *pending)
{
	return wal->end + wal_record_bytes(pending->record.payload_bytes) <= wal->file_bytes &&
	       wal->identity_count < wal_identity_bytes(wal->file_bytes) / WAL_IDENTITY_BYTES;
}

/* From here on the batch goes to a segment of its own. */
static void switch_segment(struct wal *wal, struct wal_job *job)
{
	job->new_segment = true;
	job->spare = wal->spare_count > 0 ? wal->spares[--wal->spare_count] : 0;
	job->header = (struct wal_header){
	    .segment_bytes = wal->options.segment_bytes,
	    .identity_bytes = wal_identity_bytes(wal->options.segment_bytes),
	    .sequence = current(wal)->sequence + 1,
	    .log_id = wal->log_id,
	    .first_sequence = wal->first_needed,
	    .previous_batch = wal->batch,
	    .previous_index = wal->last_index,
	    .previous_term = wal->last_term,
	    .hard = wal->hard,
	    .previous_end = wal->end,
	};
	wal_add_segment(wal, job->header.sequence, 0);
	wal->file_bytes = wal->options.segment_bytes;
	wal->end = wal_records_offset(wal->file_bytes);
	wal->identity_count = 0;
	wal->spare_failed = false;
	memset(wal->tail, 0, sizeof(wal->tail));
	memset(wal->identity_tail, 0, sizeof(wal->identity_tail));
}

/* The segment begins the log anew; all before it goes back once it is durable. */
static void reset_log(struct wal *wal, struct wal_job *job, const struct wal_pending *pending)
{
	struct wal_header *header = &job->header;
	header->reset = true;
	header->first_sequence = header->sequence;
	header->previous_index = wal->last_index = pending->reset_index;
	header->previous_term = wal->last_term = pending->reset_term;
	header->hard = wal->hard = pending->hard;
	wal->written_index = wal->written_term = 0;
	wal->first_needed = job->first_needed = header->sequence;
	for (size_t i = 0; i < wal->segment_count; i++)
		wal->segments[i].index_max = 0;
}

/* Fills up to whole pages and remembers the last one, which the next batch begins with. */
static void close_page(struct buf *pages, uint8_t tail[WAL_PAGE_BYTES])
{
	static const uint8_t zeros[WAL_PAGE_BYTES];
	size_t used = pages->size % WAL_PAGE_BYTES;
	memset(tail, 0, WAL_PAGE_BYTES);
	if (used == 0)
		return;
	memcpy(tail, pages->bytes + pages->size - used, used);
	buf_append(pages, zeros, WAL_PAGE_BYTES - used);
}

static void note_record(struct wal *wal, struct wal_job *job, const struct wal_record *record, struct slice payload)
{
	switch (record->kind) {
	case WAL_ENTRY:
		wal->last_index = wal->written_index = record->index;
		wal->last_term = wal->written_term = record->term;
		if (record->index > current(wal)->index_max)
			current(wal)->index_max = record->index;
		break;
	case WAL_HARD:
		wal->hard = (struct raft_hard_state){get_le64(payload.bytes), get_le64(payload.bytes + 8),
						     get_le64(payload.bytes + 16)};
		break;
	case WAL_CUT:
		if (get_le64(payload.bytes) > job->first_needed)
			job->first_needed = get_le64(payload.bytes);
		break;
	case WAL_MARK:
	case WAL_FILL:
		break;
	}
}

static void write_record(struct wal *wal, struct wal_job *job, struct wal_pending *pending, bool last)
{
	static const uint8_t zeros[8];
	uint64_t salt = wal->log_id ^ current(wal)->sequence;
	struct wal_record *record = &pending->record;
	record->batch = wal->batch;
	record->last = last;
	uint8_t header[WAL_RECORD_BYTES];
	wal_pack_record(record, salt, header);
	struct slice payload = {wal->payloads.bytes + pending->payload_offset, record->payload_bytes};
	buf_append(&job->pages, header, sizeof(header));
	buf_append_slice(&job->pages, payload);
	buf_append(&job->pages, zeros,
		   wal_record_bytes(record->payload_bytes) - WAL_RECORD_BYTES - record->payload_bytes);

	uint8_t identity[WAL_IDENTITY_BYTES];
	struct wal_identity fields = wal_identity_of(record, wal->end);
	wal_pack_identity(&fields, salt, identity);
	buf_append(&job->identities, identity, sizeof(identity));

	wal->end += wal_record_bytes(record->payload_bytes);
	wal->identity_count++;
	note_record(wal, job, record, payload);
	job->mark = pending->mark;
}

/* Forgets the records that the batch has taken. */
static void drop_taken(struct wal *wal)
{
	size_t left = wal->pending_count - wal->pending_first;
	size_t offset = left > 0 ? wal->pending[wal->pending_first].payload_offset : wal->payloads.size;
	if (left > 0) {
		memmove(wal->pending, wal->pending + wal->pending_first, left * sizeof(*wal->pending));
		memmove(wal->payloads.bytes, wal->payloads.bytes + offset, wal->payloads.size - offset);
	}
	wal->payloads.size -= offset;
	for (size_t i = 0; i < left; i++)
		wal->pending[i].payload_offset -= offset;
	wal->pending_first = 0;
	wal->pending_count = left;
}

/* Takes what is pending into the job, as much as one batch and one segment hold. */
static void form_batch(struct wal *wal)
{
	struct wal_job *job = &wal->job;
	job->new_segment = false;
	job->err = OK;
	job->file = wal->file;
	job->old_file = NULL;
	job->first_needed = 0;
	buf_clear(&job->pages);
	buf_clear(&job->identities);
	const struct wal_pending *first = &wal->pending[wal->pending_first];
	if (first->reset || !fits(wal, first))
		switch_segment(wal, job);
	if (first->reset)
		reset_log(wal, job, first);
	wal->batch++;
	uint32_t in_page = wal->end % WAL_PAGE_BYTES;
	job->pages_offset = wal->end - in_page;
	buf_append(&job->pages, wal->tail, in_page);
	uint32_t identity_in_page = wal->identity_count * WAL_IDENTITY_BYTES % WAL_PAGE_BYTES;
	job->identities_offset = WAL_IDENTITIES_OFFSET + wal->identity_count * WAL_IDENTITY_BYTES - identity_in_page;
	buf_append(&job->identities, wal->identity_tail, identity_in_page);
	bool last = false;
	while (!last) {
		struct wal_pending *pending = &wal->pending[wal->pending_first++];
		uint32_t end = wal->end + wal_record_bytes(pending->record.payload_bytes);
		last = wal->pending_first == wal->pending_count || job->pages.size > WAL_BATCH_BYTES_MAX;
		if (!last) {
			const struct wal_pending *next = &wal->pending[wal->pending_first];
			last = next->reset || end + wal_record_bytes(next->record.payload_bytes) > wal->file_bytes ||
			       wal->identity_count + 1 == wal_identity_bytes(wal->file_bytes) / WAL_IDENTITY_BYTES;
		}
		write_record(wal, job, pending, last);
	}
	close_page(&job->pages, wal->tail);
	close_page(&job->identities, wal->identity_tail);
	job->index = wal->written_index;
	job->term = wal->written_term;
	drop_taken(wal);
}

static enum err perform(struct wal_job *job)
{
	enum err err = OK;
	if (job->new_segment) {
		/* The identities of its last batch: the next header already says where its records end. */
		err = file_sync(job->file);
		if (err)
			return err;
		job->old_file = job->file;
		err = wal_create_segment(job->wal, &job->header, job->spare, &job->file);
	}
	if (err == OK)
		err = file_write(job->file, job->pages_offset, job->pages.bytes, job->pages.size);
#ifndef PLANT_WAL_WITHOUT_SYNC
	if (err == OK)
		err = file_sync(job->file);
#endif
	/* Not synced: they go to the disk with the next batch at the latest. They must not be there before the records.
	 */
	if (err == OK)
		err = file_write(job->file, job->identities_offset, job->identities.bytes, job->identities.size);
	return err;
}

static void run_job(struct work *work)
{
	struct wal_job *job = container_of(work, struct wal_job, work);
	job->err = perform(job);
}

static void finish(struct wal *wal)
{
	struct wal_job *job = &wal->job;
	wal->busy = false;
	if (job->old_file) {
		file_unref(job->old_file);
		wal->file = job->file;
	}
	if (wal->closing) {
		if (!wal->upkeep.busy)
			wal_free(wal);
		return;
	}
	wal->view.syncs++;
	wal->view.bytes_written += job->pages.size + job->identities.size;
	wal->view.sync_us_last = loop_now_us(wal->loop) - job->started_us;
	if (wal->view.sync_us_last > wal->view.sync_us_max)
		wal->view.sync_us_max = wal->view.sync_us_last;
	if (job->err) {
		log_error("wal_failed", "directory=%s error=%s", wal->directory, err_name(job->err));
		wal->failed = true;
		wal->options.synced(wal->options.arg, ERR_STORE_FAILED, wal->mark_synced, 0, 0);
		return;
	}
	wal->mark_synced = job->mark;
	if (job->first_needed > wal->first_needed_durable)
		wal->first_needed_durable = job->first_needed;
	wal_upkeep_start(wal);
	/* The next batch is under way before anyone hears of this one. */
	if (wal->pending_count > 0 && wal->options.sync_inline)
		defer_post(&wal->defer);
	uint64_t mark = job->mark, index = job->index, term = job->term;
	if (!wal->options.sync_inline && wal->pending_count > 0)
		start(wal);
	wal->options.synced(wal->options.arg, OK, mark, index, term);
}

static void job_done(struct work *work)
{
	finish(container_of(work, struct wal_job, work)->wal);
}

static void start(struct wal *wal)
{
	if (wal->pending_count == 0)
		return;
	form_batch(wal);
	wal->busy = true;
	wal->job.started_us = loop_now_us(wal->loop);
	wal->job.wal = wal;
	wal->job.work = (struct work){.run = run_job, .done = job_done};
	if (wal->options.sync_inline) {
		run_job(&wal->job.work);
		finish(wal);
	} else {
		work_submit(wal->loop, &wal->lane, &wal->job.work);
	}
}

static void on_defer(void *arg)
{
	struct wal *wal = arg;
	if (!wal->busy && !wal->failed)
		start(wal);
}

/* ---- ends */

void wal_defer_init(struct wal *wal)
{
	defer_init(&wal->defer, wal->loop, on_defer, wal);
}

void wal_free(struct wal *wal)
{
	file_unref(wal->file);
	file_unref(wal->lock);
	buf_deinit(&wal->job.pages);
	buf_deinit(&wal->job.identities);
	buf_deinit(&wal->payloads);
	free(wal->pending);
	free(wal->segments);
	free(wal->directory);
	free(wal);
}

void wal_close(struct wal *wal)
{
	if (!wal)
		return;
	defer_cancel(&wal->defer);
	wal->closing = true;
	if (!wal->busy && !wal->upkeep.busy)
		wal_free(wal);
}
