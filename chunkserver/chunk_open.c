/* Opening and making the file of a chunk, and what is thought of its content (chunk_store.h). */
#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "chunkserver/chunk_store_internal.h"
#include "common/base/check.h"
#include "common/sys/log.h"

/* What a worker needs to open or make a chunk's file. */
struct opening {
	struct work work;
	struct chunk *chunk;
	bool create;
	bool replace;	/* what is there does not count: set aside, or its version is raised */
	bool marked;	/* by a former life of the process … */
	bool same_boot; /* … in this boot of the machine */
	bool blank;
	bool name_new;	/* nothing of it has ever been synced */
	bool sync_failed;
	bool forget;	/* the file cannot be used, and nobody counts on it: set aside */
	uint64_t version; /* to be made with; or at least */
	enum copy_state copy; /* likewise; or as the index has it */
	uint64_t salt;
	struct buf table;
	struct write_log_entry made; /* a copy that is made, and is not all there is from the beginning; order 0: none */
	char *reuse;
	int reuse_number;
	uint32_t mismatches;
	uint8_t *damaged;
	bool strange;	/* of a pack: not as it was when it was closed */
	struct buf bad; /* slots of records that do not check */
	enum err err;
};

/* After a loss of power what the page cache says is not what is on the disk only if a sync had failed: so it is left out. */
static enum err check_content(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	opening->damaged = mem_zero(CHUNK_BLOCKS / 8, 1);
	if (!opening->marked)
		return chunk_file_check_end(&chunk->file, opening->damaged, &opening->mismatches);
	if (!opening->same_boot)
		chunk_file_want_direct(&chunk->file, chunk->store->loop, chunk->path);
	return chunk_file_check(&chunk->file, opening->damaged, &opening->mismatches);
}

/* One that is not complete is of no version before it says so on disk. */
static enum err create_file(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	struct loop *loop = chunk->store->loop;
	bool whole = opening->copy == COPY_COMPLETE;
	uint64_t version = whole ? opening->version : 0;
	if (chunk->kind == KIND_PACK) {
		enum err err = pack_create(loop, chunk->path, opening->reuse, chunk->id, version, opening->salt, &chunk->pack);
		if (err == OK && !whole)
			err = pack_set_state(&chunk->pack, opening->version, opening->copy);
		/* Which slots were given out is not known any more. */
		return err == OK && opening->marked ? pack_set_closed(&chunk->pack) : err;
	}
	enum err err = chunk_file_create(loop, chunk->path, opening->reuse, chunk->id, version, &chunk->file);
	return err != OK || whole ? err : chunk_file_set_state(&chunk->file, opening->version, opening->copy);
}

static void make_file(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	struct loop *loop = chunk->store->loop;
	/* What its blocks were before nobody knows here: noted before there is one that could be found. */
	opening->err = opening->made.order == 0 ? OK : write_log_note(&chunk->store->writes, &opening->made);
	/* The mark is durable before the file is there. Nothing is made in a folder that only has the name of ours. */
	if (opening->err == OK)
		opening->err = kv_sync(chunk->store->index.kv);
	if (opening->err == OK)
		opening->err = store_files_check_root(&chunk->store->files);
	if (opening->err == OK)
		opening->err = store_files_make_folder(loop, chunk->path);
	if (opening->err != OK)
		return;
	opening->err = create_file(opening);
	/* What was made just now and by us is in the way of the next attempt. */
	if (opening->err != OK && opening->err != ERR_EXISTS)
		(void)!store_files_remove(loop, chunk->path, NULL);
}

/* The file is of another chunk, older than what we had, or gone. Its place is taken by one that gets everything from the others. */
static void replace_file(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	chunk_file_close(&chunk->file);
	opening->err = kv_sync(chunk->store->index.kv);
	if (opening->err == OK)
		opening->err = store_files_check_root(&chunk->store->files);
	if (opening->err == OK)
		opening->err = store_files_quarantine(&chunk->store->files, chunk->path);
	if (opening->err == OK || opening->err == ERR_NOT_FOUND)
		make_file(opening);
}

/* A pack that may have lost records gives out no slots: one of them might be given out twice. */
static enum err open_pack(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	struct loop *loop = chunk->store->loop;
	struct file *direct = NULL;
	enum err err = pack_open(loop, chunk->path, chunk->id, buf_slice(&opening->table), &chunk->pack);
	if (err == OK && chunk->pack.version < opening->version)
		err = ERR_CORRUPT;
	/* The table goes into the index before the mark goes. If it is of another file, or of more than there is, this one was put back. */
	opening->strange = err == OK && !opening->marked && !chunk->pack.fits_table;
	if (err != OK || (!opening->marked && !opening->strange))
		return err;
	if (opening->marked && !opening->same_boot)
		err = file_open(loop, chunk->path, FILE_READ_ONLY | FILE_DIRECT, &direct);
	if (err == OK)
		err = pack_check(&chunk->pack, direct, &opening->bad);
	file_unref(direct);
	return err == OK && !chunk->pack.closed ? pack_set_closed(&chunk->pack) : err;
}

/* The index follows the header when that is durable. If it does not say the same, the process ended before it was: it is made so before
 * anything is said at this version. */
static enum err settle_header(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	bool pack = chunk->kind == KIND_PACK;
	uint64_t version = pack ? chunk->pack.version : chunk->file.version;
	enum copy_state copy = pack ? chunk->pack.copy : chunk->file.copy;
	if (version == opening->version && copy == opening->copy)
		return OK;
	enum err err = file_sync(pack ? chunk->pack.file : chunk->file.file);
	if (err == OK && opening->name_new)
		err = store_files_sync_folder(chunk->store->loop, chunk->path);
	opening->sync_failed = err != OK;
	return err;
}

static void open_file(struct work *work)
{
	struct opening *opening = container_of(work, struct opening, work);
	struct chunk *chunk = opening->chunk;
	struct loop *loop = chunk->store->loop;
	if (opening->forget) {
		opening->err = store_files_quarantine(&chunk->store->files, chunk->path);
		if (opening->err == OK)
			opening->err = ERR_NOT_FOUND;
	} else if (opening->replace) {
		replace_file(opening);
	} else if (opening->create) {
		make_file(opening);
	} else if (chunk->kind == KIND_PACK) {
		opening->err = open_pack(opening);
	} else {
		opening->err = chunk_file_open(loop, chunk->path, chunk->id, &chunk->file);
		if (opening->err == OK)
			opening->err = check_content(opening);
		/* The index is never ahead of the file: this one has been put back, or its header was lost. */
		if (opening->err == OK && chunk->file.version < opening->version)
			opening->err = ERR_CORRUPT;
	}
	if (opening->err == OK && !opening->create && !opening->replace)
		opening->err = settle_header(opening);
}

static void submit(struct opening *opening);

/* A copy that was being filled, or is retired: it can be made anew. The master is asked whether we are to have it. */
static void begin_forgetting(struct opening *opening)
{
	log_warn("copy_forgotten", "chunk=%016" PRIx64 " version=%" PRIu64 " error=%s", opening->chunk->id, opening->version,
		 err_name(opening->err));
	opening->forget = true;
	submit(opening);
}

/* False: it is given up. */
static bool begin_replacing(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	struct chunk_store *store = chunk->store;
	bool lost = opening->err == ERR_CORRUPT || opening->err == ERR_NOT_FOUND;
	if (!lost || opening->create || opening->replace || opening->forget || store->closing || store->failed)
		return false;
	if (chunk_index_mark(&store->index, chunk->id, CHUNK_BOOT_BLANK, chunk_mark_flags(opening->name_new, chunk->kind)) != OK)
		return false;
	store->uncertain_changed = true;
	if (chunk->chain->copy != COPY_COMPLETE) {
		begin_forgetting(opening);
		return true;
	}
	log_error("chunk_file_lost", "chunk=%016" PRIx64 " version=%" PRIu64 " error=%s action=replace", chunk->id, opening->version,
		  err_name(opening->err));
	if (!opening->blank) /* not said before */
		chunk_store_count_damage(store, 1, 0);
	opening->replace = opening->marked = opening->blank = true;
	opening->same_boot = false;
	opening->mismatches = 0;
	buf_clear(&opening->bad);
	if (chunk->kind == KIND_PACK)
		opening->salt = loop_random(store->loop);
	submit(opening);
	return true;
}

static void found_rot(struct chunk *chunk, const uint8_t *bits, const char *how)
{
	for (uint32_t block = 0; block < CHUNK_BLOCKS; block++) {
		uint32_t first = block;
		while (block < CHUNK_BLOCKS && (bits[block / 8] >> block % 8 & 1) != 0)
			block++;
		if (block > first)
			chunk_found_damaged(chunk, first, block, how);
	}
}

/* What does not check may have been acknowledged: the others are asked. */
static void note_records(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	if (opening->strange) {
		log_error("pack_file_changed", "pack=%016" PRIx64, chunk->id);
		chunk->recovered = chunk->lost_power = true;
		chunk->writes_begun = chunk->writes_ended = 1;
		chunk->mark = MARK_SET;
	}
	/* If only the process ended nothing is lost; but a record of which the header has rotted is not seen to be missing. */
	chunk->uncertain = opening->marked || opening->strange;
	if (opening->strange && chunk_store_mark(chunk) != OK)
		chunk_store_fail(chunk->store, "mark", ERR_IO);
	if (opening->bad.size > 0)
		log_warn("records_torn", "pack=%016" PRIx64 " records=%zu machine_crash=%d", chunk->id, opening->bad.size / sizeof(uint32_t),
			 !opening->same_boot);
	chunk->bad_slots = opening->bad;
	opening->bad = (struct buf){ 0 };
}

static void note_content(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	if (opening->marked) {
		chunk->mark = MARK_SET;
		chunk->recovered = true;
		chunk->uncertain = !opening->same_boot;
		chunk->blank = opening->blank;
		chunk->never_synced = opening->name_new;
		chunk->lost_power = !opening->same_boot;
		chunk->writes_begun = chunk->writes_ended = 1; /* to be synced before the mark goes */
	}
	if (chunk->kind == KIND_PACK)
		note_records(opening);
	chunk_load_damage(chunk);
	if (opening->mismatches == 0)
		return;
	if (opening->marked && opening->same_boot) {
		/* What this process was not just writing is rot. */
		uint8_t rot[CHUNK_BLOCKS / 8] = { 0 };
		for (uint32_t block = 0; block < CHUNK_BLOCKS; block++) {
			uint8_t bit = (uint8_t)(1u << block % 8);
			if ((opening->damaged[block / 8] & bit) == 0 || intents_had(&chunk->store->intents, chunk->id, block))
				continue;
			rot[block / 8] |= bit;
			opening->damaged[block / 8] &= (uint8_t)~bit;
		}
		found_rot(chunk, rot, "start");
	}
	if (opening->marked) {
		log_warn("blocks_torn", "chunk=%016" PRIx64 " blocks=%" PRIu32 " machine_crash=%d", chunk->id, opening->mismatches,
			 !opening->same_boot);
		chunk_found_torn(chunk, opening->damaged);
		return;
	}
	found_rot(chunk, opening->damaged, "length"); /* behind the end of a file that was cut */
}

static void opening_failed(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	struct chunk_store *store = chunk->store;
	bool forgotten = opening->forget && opening->err == ERR_NOT_FOUND && chunk_index_forget(&store->index, chunk->id) == OK;
	if (forgotten) {
		opening->err = ERR_NO_CHUNK;
		store->events->missing(store->arg, chunk->id);
	} else {
		log_error("chunk_not_opened", "chunk=%016" PRIx64 " create=%d error=%s", chunk->id, opening->create,
			  err_name(opening->err));
	}
	/* Nothing is wrong with the disk where this process, or the machine, lacks descriptors. */
	if (opening->err == ERR_TOO_MANY)
		opening->err = ERR_BUSY;
	if (opening->sync_failed)
		chunk_store_fail(store, "sync", opening->err);
	if (opening->create && opening->err != ERR_NO_SPACE && opening->err != ERR_EXISTS && opening->err != ERR_BUSY)
		chunk_store_fail(store, "create", opening->err);
	chunk->state = CHUNK_DELETED;
	store->events->opened(store->arg, chunk, opening->err == ERR_NOT_FOUND ? ERR_CORRUPT : opening->err);
	chunk->uses--;
	check(chunk->uses == 0 && chunk->first_op == NULL);
	chunk_store_forget(chunk);
}

/* The index is not synced with each new chain, and follows the header. What it says may be of before the end of the process, or the power:
 * without the newest member, or with one as a newcomer, of whom nothing is asked, that is complete by now. */
static bool chain_is_outdated(const struct opening *opening)
{
	const struct chunk *chunk = opening->chunk;
	const Granary__ChunkLocation *chain = chunk->chain;
	if (chain == NULL || opening->create || chunk->copy != COPY_COMPLETE)
		return false;
	return chain->version < chunk->version ||
	       (opening->marked && chain->n_replicas > 0 && chain->replicas[chain->n_replicas - 1]->joining);
}

static void opening_succeeded(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	struct chunk_store *store = chunk->store;
	bool made = opening->create || opening->replace;
	chunk->state = CHUNK_READY;
	chunk->version = chunk->kind == KIND_PACK ? chunk->pack.version : chunk->file.version;
	chunk->copy = chunk->kind == KIND_PACK ? chunk->pack.copy : chunk->file.copy;
	if (chain_is_outdated(opening))
		chunk_set_chain(chunk, NULL);
	chunk->name_new = made || opening->name_new;
	if (opening->create)
		chunk->written = opening->marked;
	if (made) {
		chunk->mark = MARK_SET;
		chunk->writes_begun = chunk->writes_ended = 1;
	}
	chunk->written_ms = loop_now_ms(store->loop);
	op_ring_restart(&chunk->ring, store->forgotten_ms);
	chunk->ring_sought = made;
	note_content(opening);
	if (opening->create)
		chunk_store_save(chunk);
	store->events->opened(store->arg, chunk, OK);
	chunk_unuse(chunk);
}

static void opened(struct work *work)
{
	struct opening *opening = container_of(work, struct opening, work);
	struct chunk_store *store = opening->chunk->store;
	if (opening->err != OK && begin_replacing(opening)) {
		chunk_store_work_end(store);
		return;
	}
	if (opening->reuse != NULL)
		store_files_settle(&store->files, opening->reuse_number, false);
	if (opening->err != OK)
		opening_failed(opening);
	else
		opening_succeeded(opening);
	buf_deinit(&opening->table);
	buf_deinit(&opening->bad);
	free(opening->damaged);
	free(opening->reuse);
	free(opening);
	chunk_store_work_end(store);
}

static struct chunk *enter_chunk(struct chunk_store *store, uint64_t id, enum chunk_kind kind)
{
	struct chunk *chunk = mem_zero(1, sizeof(*chunk));
	chunk->store = store;
	chunk->id = id;
	chunk->kind = kind;
	chunk->state = CHUNK_OPENING;
	chunk->path = store_files_path(&store->files, id, kind);
	HASH_ADD(hh, store->chunks, id, sizeof(chunk->id), chunk);
	DL_APPEND2(store->oldest, chunk, older, newer);
	store->open_count++;
	chunk_use(chunk);
	return chunk;
}

static void submit(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	opening->made = (struct write_log_entry){ .chunk = chunk->id, .end = CHUNK_BLOCKS };
	if (opening->replace || (opening->create && (opening->copy == COPY_JOINING || opening->marked)))
		write_log_begin(&chunk->store->writes, &opening->made);
	free(opening->damaged);
	opening->damaged = NULL;
	opening->work.run = open_file;
	opening->work.done = opened;
	opening->err = ERR_CANCELLED;
	chunk_store_submit(opening->chunk->store, NULL, &opening->work);
}

/* Each complete copy of a chunk that has content has had a file. */
static bool is_lost(const struct chunk_create *create)
{
#ifdef PLANT_LOST_CHUNK_MADE_ANEW
	return false;
#endif
	return create->written && create->copy == COPY_COMPLETE;
}

/* Who writes may think of a chain of long ago, and the copy may have been deleted since: the master is asked. */
static void miss(struct chunk_store *store, uint64_t id)
{
	if (!chunk_store_misses(store, id))
		store->missed[store->missed_next++ % MISSED_REMEMBERED] = id;
	store->events->missing(store->arg, id);
}

bool chunk_store_misses(const struct chunk_store *store, uint64_t id)
{
	for (unsigned i = 0; i < MISSED_REMEMBERED; i++) {
		if (store->missed[i] == id)
			return true;
	}
	return false;
}

enum err chunk_open_create(struct chunk_store *store, uint64_t id, const struct chunk_create *create, struct chunk **out)
{
	uint64_t boot = store->boot, marked_boot = 0;
	bool name_new = false;
	/* We had it before the power went; or file and entry were lost. */
	bool known = chunk_index_marked(&store->index, id, &marked_boot, &name_new) && marked_boot != store->boot;
	bool lost = !known && is_lost(create);
	if (create->only_known && !known && !lost)
		return ERR_NO_CHUNK;
	for (unsigned i = 0; i < DELETED_REMEMBERED; i++) {
		if (store->deleted[i].id == id && create->version <= store->deleted[i].version)
			return ERR_NO_CHUNK;
	}
	/* The file that is made would be the one that is deleted: both go by its name. */
	if (chunk_store_deletes(store, id))
		return ERR_BUSY;
	if (lost && !create->on_word) {
		miss(store, id);
		return ERR_NO_CHUNK;
	}
	if (known)
		boot = marked_boot == CHUNK_BOOT_BLANK ? CHUNK_BOOT_BLANK : CHUNK_BOOT_UNKNOWN;
	if (lost)
		boot = CHUNK_BOOT_BLANK;
	enum err err = chunk_store_admit(store, CHUNK_DATA_OFFSET);
	enum chunk_kind kind = known && chunk_index_mark_is_pack(&store->index, id) ? KIND_PACK : create->kind; /* a sync does not say it */
	/* What has been lost without ever having been synced stays so; of what was lost after that a new file says nothing. */
	bool is_new = known ? name_new : !lost;
	if (err == OK)
		err = chunk_index_mark(&store->index, id, boot, chunk_mark_flags(is_new, kind));
	if (err != OK)
		return err;
	if (lost) {
		log_error("chunk_file_lost", "chunk=%016" PRIx64 " version=%" PRIu64 " error=%s action=replace", id, create->version,
			  err_name(ERR_NO_CHUNK));
		store->uncertain_changed = true;
		chunk_store_count_damage(store, 1, 0);
	}
	struct opening *opening = mem_zero(1, sizeof(*opening));
	struct chunk *chunk = enter_chunk(store, id, kind);
	chunk_set_chain(chunk, create->chain);
	opening->chunk = chunk;
	opening->create = true;
	opening->marked = known || lost;
	opening->name_new = is_new;
	opening->blank = opening->marked && boot == CHUNK_BOOT_BLANK;
	opening->version = create->version;
	opening->copy = create->copy;
	opening->salt = loop_random(store->loop);
	opening->reuse_number = store_files_take(&store->files);
	if (opening->reuse_number >= 0)
		opening->reuse = store_files_free_path(&store->files, opening->reuse_number);
	submit(opening);
	*out = chunk;
	return OK;
}

void chunk_open_start(struct chunk_store *store, Granary__ChunkLocation *location, struct chunk **out)
{
	enum chunk_kind kind = chunk_kind_of(location->kind);
	struct opening *opening = mem_zero(1, sizeof(*opening));
	struct chunk *chunk = enter_chunk(store, location->chunk, kind);
	uint64_t boot = 0;
	bool name_new = false;
	chunk->chain = location;
	chunk->written = location->written || kind == KIND_PACK;
	opening->chunk = chunk;
	opening->version = location->version;
	opening->copy = (enum copy_state)location->copy;
	opening->reuse_number = -1;
	if (kind == KIND_PACK && chunk_index_get_slots(&store->index, chunk->id, &opening->table) != OK)
		buf_clear(&opening->table);
	opening->marked = chunk_index_marked(&store->index, chunk->id, &boot, &name_new);
	opening->same_boot = boot == store->boot;
	opening->blank = opening->marked && boot == CHUNK_BOOT_BLANK;
	opening->name_new = opening->marked && name_new;
	submit(opening);
	*out = chunk;
}
