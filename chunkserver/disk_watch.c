#include "chunkserver/disk_watch.h"

#include <stdlib.h>

#include "common/base/bytes.h"
#include "common/base/check.h"

#define NOTE_BYTES 8u

uint64_t disk_watch_boot(struct chunk_store *store, bool suspect)
{
	struct buf note = { 0 };
	char *path = store_files_join(&store->files, "failed");
	uint64_t boot = machine_boot_id(store->loop);
	if (file_load(store->loop, path, NOTE_BYTES, &note) == OK && note.size == NOTE_BYTES)
		boot ^= get_le64(note.bytes);
	else if (suspect)
		boot ^= loop_random(store->loop);
	buf_deinit(&note);
	free(path);
	/* These stand for others (chunk_index.h). */
	return boot == CHUNK_BOOT_UNKNOWN || boot == CHUNK_BOOT_BLANK ? boot + 2 : boot;
}

/* ---------------------------------------------------------------- the folder */

static void look_run(struct work *work)
{
	struct chunk_store *store = container_of(work, struct chunk_store, look);
	char *lock = store_files_join(&store->files, "lock");
	uint64_t id = 0;
	store->look_err = store_files_check_root(&store->files);
	if (store->look_err == OK)
		store->look_err = dir_identity(store->loop, lock, &id);
	free(lock);
}

static void look_done(struct work *work)
{
	struct chunk_store *store = container_of(work, struct chunk_store, look);
	store->looking = false;
	if (store->look_err != OK && store->look_err != ERR_CANCELLED && !store->closing)
		chunk_store_fail(store, "data folder", store->look_err);
	chunk_store_work_end(store);
}

/* ---------------------------------------------------------------- the disk */

static void probe_run(struct work *work)
{
	static const uint8_t block[BLOCK_BYTES];
	struct chunk_store *store = container_of(work, struct chunk_store, probe);
	char *path = store_files_join(&store->files, "probe");
	struct file *file = NULL;
	store->probe_err = file_open(store->loop, path, FILE_WRITE | FILE_CREATE, &file);
	if (store->probe_err == OK)
		store->probe_err = file_write(file, 0, block, sizeof(block));
	if (store->probe_err == OK)
		store->probe_err = file_sync(file);
	file_unref(file);
	free(path);
}

static void probe_done(struct work *work)
{
	struct chunk_store *store = container_of(work, struct chunk_store, probe);
	store->probing = false;
	if (store->probe_err != OK && store->probe_err != ERR_CANCELLED && store->probe_err != ERR_NO_SPACE && !store->closing)
		chunk_store_fail(store, "probe", store->probe_err);
	chunk_store_work_end(store);
}

void disk_watch_tick(struct chunk_store *store)
{
	uint64_t now = loop_now_ms(store->loop);
	if (!store->looking && now - store->look_ms >= DISK_LOOK_MS) {
		store->looking = true;
		store->look_ms = now;
		store->look_err = ERR_CANCELLED;
		store->look.run = look_run;
		store->look.done = look_done;
		store->look.of_owner.untimed = true;
		chunk_store_submit(store, NULL, &store->look);
	}
	bool known = disk_health_latency_us(&store->health, loop_now_us(store->loop)) != 0;
	if ((store->idle || !known) && !store->probing && now - store->probe_ms >= DISK_PROBE_MS) {
		store->probing = true;
		store->probe_ms = now;
		store->probe_err = ERR_CANCELLED;
		store->probe.run = probe_run;
		store->probe.done = probe_done;
		chunk_store_submit(store, NULL, &store->probe);
	}
}

/* ---------------------------------------------------------------- failure */

static void note_run(struct work *work)
{
	struct chunk_store *store = container_of(work, struct chunk_store, note);
	char *path = store_files_join(&store->files, "failed");
	uint8_t note[NOTE_BYTES];
	put_le64(note, store->note_id);
	/* If this fails, too, the caller of the next opening still knows; and never in a folder that is not ours. */
	if (store_files_check_root(&store->files) == OK)
		(void)!file_replace(store->loop, path, slice_of(note, sizeof(note)));
	free(path);
}

static void note_done(struct work *work)
{
	struct chunk_store *store = container_of(work, struct chunk_store, note);
	chunk_store_work_end(store);
}

void disk_watch_note_failure(struct chunk_store *store)
{
	if (store->noting)
		return;
	store->noting = true; /* once a life */
	store->note_id = loop_random(store->loop);
	store->note.run = note_run;
	store->note.done = note_done;
	chunk_store_submit(store, NULL, &store->note);
}
