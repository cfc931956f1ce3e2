/* Segment files: made, kept spare, taken back. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/sys/log.h"
#include "master/wal_internal.h"

#define SPARE_RETRY_MS 1000u

struct wal_path wal_segment_path(const struct wal *wal, uint64_t sequence)
{
	struct wal_path path;
	int size = snprintf(path.text, sizeof(path.text), "%s/wal-%016" PRIx64, wal->directory, sequence);
	check(size > 0 && (size_t)size < sizeof(path.text));
	return path;
}

struct wal_path wal_spare_path(const struct wal *wal, uint64_t number)
{
	struct wal_path path;
	int size = snprintf(path.text, sizeof(path.text), "%s/spare-%016" PRIx64, wal->directory, number);
	check(size > 0 && (size_t)size < sizeof(path.text));
	return path;
}

static enum err make_spare(struct wal *wal, uint64_t number)
{
	struct wal_path path = wal_spare_path(wal, number);
	struct file *file;
	enum err err = file_open(wal->loop, path.text, FILE_WRITE | FILE_CREATE | FILE_TRUNCATE, &file);
	if (err)
		return err;
	err = file_preallocate(file, 0, wal->options.segment_bytes);
	if (err == OK)
		err = file_sync(file);
	file_unref(file);
	return err;
}

enum err wal_create_segment(struct wal *wal, const struct wal_header *header, uint64_t spare, struct file **out)
{
	*out = NULL;
	enum err err = OK;
	if (spare == 0) {
		err = make_spare(wal, 0);
		if (err)
			return err;
	}
	struct wal_path spare_path = wal_spare_path(wal, spare);
	struct wal_path path = wal_segment_path(wal, header->sequence);
	struct file *file;
	err = file_open(wal->loop, spare_path.text, FILE_WRITE, &file);
	if (err)
		return err;
	uint8_t pages[WAL_IDENTITIES_OFFSET] = {0};
	wal_pack_header(header, pages);
	wal_pack_header(header, pages + WAL_PAGE_BYTES);
	err = file_write(file, 0, pages, sizeof(pages));
	if (err == OK)
		err = file_sync(file);
	if (err == OK)
		err = file_rename(wal->loop, spare_path.text, path.text);
#ifndef PLANT_WAL_SEGMENT_NAME_NOT_SYNCED
	if (err == OK)
		err = dir_sync(wal->loop, wal->directory);
#endif
	if (err)
		file_unref(file);
	else
		*out = file;
	return err;
}

static void run_upkeep(struct work *work)
{
	struct wal_upkeep *upkeep = container_of(work, struct wal_upkeep, work);
	struct wal *wal = upkeep->wal;
	if (upkeep->make_spare) {
		upkeep->err = make_spare(wal, upkeep->spare);
		struct wal_path part = wal_spare_path(wal, upkeep->spare);
		if (upkeep->err && file_unlink(wal->loop, part.text) != OK)
			log_debug("wal_spare_left", "path=%s", part.text);
		return;
	}
	struct wal_path path = wal_segment_path(wal, upkeep->take_back);
	if (upkeep->spare != 0) {
		struct wal_path spare = wal_spare_path(wal, upkeep->spare);
		upkeep->err = file_rename(wal->loop, path.text, spare.text);
	} else {
		upkeep->err = file_unlink(wal->loop, path.text);
	}
	/* One after another: what is left after a crash is a run without gaps. */
	if (upkeep->err == OK)
		upkeep->err = dir_sync(wal->loop, wal->directory);
}

static void upkeep_done(struct work *work)
{
	struct wal_upkeep *upkeep = container_of(work, struct wal_upkeep, work);
	struct wal *wal = upkeep->wal;
	upkeep->busy = false;
	if (wal->closing) {
		if (!wal->busy)
			wal_free(wal);
		return;
	}
	if (upkeep->err) {
		/* Nothing that was promised depends on it: the next start tries again. */
		log_warn("wal_upkeep_failed", "directory=%s error=%s", wal->directory, err_name(upkeep->err));
		wal->spare_failed = upkeep->make_spare;
		wal->spare_due_ms = loop_now_ms(wal->loop) + SPARE_RETRY_MS;
		if (!upkeep->make_spare)
			wal->first_needed_durable = 0;
		return;
	}
	if (upkeep->spare != 0) {
		wal->spares[wal->spare_count++] = upkeep->spare;
		wal->spare_failed = false;
	}
	if (!upkeep->make_spare) {
		wal->segment_count--;
		memmove(wal->segments, wal->segments + 1, wal->segment_count * sizeof(*wal->segments));
	}
	wal_upkeep_start(wal);
}

void wal_upkeep_start(struct wal *wal)
{
	struct wal_upkeep *upkeep = &wal->upkeep;
	if (upkeep->busy || wal->failed || wal->closing)
		return;
	bool room = wal->spare_count < WAL_SPARES_MAX;
	bool take_back = wal->segment_count > 1 && wal->segments[0].sequence < wal->first_needed_durable;
	bool half_used = wal->end > wal->file_bytes / 2 ||
			 wal->identity_count > wal_identity_bytes(wal->file_bytes) / WAL_IDENTITY_BYTES / 2;
	bool spare_due =
	    wal->spare_count == 0 && half_used && (!wal->spare_failed || loop_now_ms(wal->loop) >= wal->spare_due_ms);
	if (!take_back && !spare_due)
		return;
	bool reusable = wal->file_bytes == wal->options.segment_bytes;
	*upkeep = (struct wal_upkeep){.work = {.run = run_upkeep, .done = upkeep_done}, .wal = wal, .busy = true};
	upkeep->make_spare = !take_back;
	if (take_back)
		upkeep->take_back = wal->segments[0].sequence;
	if (!take_back || (room && reusable))
		upkeep->spare = ++wal->spare_number;
	work_submit(wal->loop, &wal->upkeep_lane, &upkeep->work);
}
