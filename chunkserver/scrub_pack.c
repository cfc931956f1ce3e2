#include "chunkserver/scrub_pack.h"

#include "chunkserver/adopt.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"

#define BATCH_BYTES FRAME_DATA_BYTES_MAX

static enum err check_record(struct scrub_pack *scrub, struct file *file, struct iobuf *buffer, uint32_t i)
{
	bool sound;
	enum err err = pack_check_record(file, scrub->view.salt, scrub->slots[i], scrub->places[i], buffer->bytes, &sound);
	if (err == OK && !sound)
		scrub->bad |= 1ull << i;
	scrub->bytes += PACK_RECORD_BYTES + scrub->places[i].length;
	return err;
}

static void check_run(struct work *work)
{
	struct scrub_pack *scrub = container_of(work, struct scrub_pack, work);
	struct iobuf *buffer = iobuf_open(PACK_WINDOW_BYTES);
	struct file *file = NULL;
	struct chunk_header header;
	size_t done = 0;
	scrub->err = file_open(scrub->service->loop, scrub->chunk->path, FILE_READ_ONLY | FILE_DIRECT, &file);
	if (scrub->err == OK)
		scrub->err = file_read(file, 0, buffer->bytes, BLOCK_BYTES, &done);
	scrub->misplaced = scrub->err == ERR_NOT_FOUND;
	if (scrub->err == OK)
		scrub->header_bad = done < CHUNK_HEADER_USED_BYTES || chunk_header_parse(buffer->bytes, &header) != OK;
	if (scrub->err == OK && !scrub->header_bad && (header.chunk != scrub->view.id || header.salt != scrub->view.salt)) {
		scrub->misplaced = true;
		scrub->err = ERR_NOT_FOUND;
	}
	for (uint32_t i = 0; scrub->err == OK && i < scrub->count; i++)
		scrub->err = check_record(scrub, file, buffer, i);
	file_unref(file);
	iobuf_unref(buffer);
}

static void check_ended(struct scrub_pack *scrub)
{
	struct chunk *chunk = scrub->chunk;
	/* Compacted meanwhile: what was read is of another file. */
	bool same = chunk->state == CHUNK_READY && chunk->pack.salt == scrub->view.salt;
	for (uint32_t i = 0; scrub->err == OK && same && i < scrub->count; i++) {
		struct pack_slot now;
		if ((scrub->bad >> i & 1) != 0 && pack_find(&chunk->pack, scrub->slots[i], &now) &&
		    now.place == scrub->places[i].place)
			pack_found_damaged(chunk, scrub->slots[i], "scrub");
	}
	if (scrub->err == OK && same && scrub->header_bad && !chunk->adopting && chunk->pack.version == chunk->version) {
		chunk_store_count_damage(chunk->store, 1, 1);
		chunk_write_header(scrub->service, chunk);
	}
	if (same && scrub->misplaced)
		chunk_store_set_misplaced(chunk);
	scrub->done(scrub->arg, scrub->err, scrub->bytes);
}

static void check_done(struct work *work)
{
	struct scrub_pack *scrub = container_of(work, struct scrub_pack, work);
	struct chunk_store *store = scrub->chunk->store;
	check_ended(scrub);
	chunk_store_work_end(store);
}

void scrub_pack_next(struct scrub_pack *scrub, struct service *service, struct chunk *chunk, uint32_t *slot,
		     void (*done)(void *arg, enum err err, uint64_t bytes), void *arg)
{
	uint64_t bytes = 0;
	*scrub = (struct scrub_pack){ .service = service, .chunk = chunk, .view = chunk->pack, .done = done, .arg = arg };
	while (*slot < chunk->pack.slot_count && scrub->count < SCRUB_PACK_RECORDS && bytes < BATCH_BYTES) {
		struct pack_slot place;
		*slot += 1;
		if (!pack_find(&chunk->pack, *slot, &place))
			continue;
		scrub->slots[scrub->count] = *slot;
		scrub->places[scrub->count++] = place;
		bytes += place.length;
	}
	if (scrub->count == 0) {
		done(arg, ERR_NOT_FOUND, 0);
		return;
	}
	scrub->err = ERR_CANCELLED;
	scrub->work.run = check_run;
	scrub->work.done = check_done;
	chunk_store_submit(chunk->store, NULL, &scrub->work);
}
