#include "chunkserver/adopt.h"

#include <inttypes.h>
#include <stdlib.h>

#include "chunkserver/chain.h"
#include "chunkserver/fill.h"
#include "chunkserver/mend.h"
#include "chunkserver/settle.h"
#include "chunkserver/write_log.h"
#include "common/base/check.h"
#include "common/sys/log.h"

struct adoption {
	struct work work;
	struct service *service;
	struct chunk *chunk;
	uint64_t version;
	enum copy_state copy;
	struct write_log_entry joins; /* order 0: it does not */
	bool name_new;
	enum err err;
};

static void start_adoption(struct service *service, struct chunk *chunk);

static void adopt_run(struct work *work)
{
	struct adoption *adoption = container_of(work, struct adoption, work);
	struct chunk *chunk = adoption->chunk;
	if (adoption->joins.order != 0)
		adoption->err = write_log_note(chunk_store_writes(chunk->store), &adoption->joins);
	if (adoption->joins.order != 0 && adoption->err != OK)
		return;
	adoption->err = chunk->kind == KIND_PACK ? pack_set_state(&chunk->pack, adoption->version, adoption->copy) :
						   chunk_file_set_state(&chunk->file, adoption->version, adoption->copy);
	/* Without its name it would be gone, or an older file that had the name before would be there again. */
	if (adoption->err == OK && adoption->name_new)
		adoption->err = store_files_sync_folder(chunk_store_loop(chunk->store), chunk->path);
}

static void adopt_done(struct work *work)
{
	struct adoption *adoption = container_of(work, struct adoption, work);
	struct service *service = adoption->service;
	struct chunk *chunk = adoption->chunk;
	chunk->adopting = false;
	if (adoption->err != OK)
		chunk_store_fail(chunk->store, "version", adoption->err);
	else if (adoption->version < chunk->version || adoption->copy != chunk->copy)
		start_adoption(service, chunk);
	else
		chunk_store_save(chunk);
	chunk_ops_wake(chunk, NULL);
	settle_chunk(service, chunk);
	fill_check(service, chunk);
	chunk_unuse(chunk);
	free(adoption);
	chunk_store_work_end(service->store);
}

static void start_adoption(struct service *service, struct chunk *chunk)
{
	if (service->stopping)
		return;
	struct adoption *adoption = mem_zero(1, sizeof(*adoption));
	*adoption = (struct adoption){ .service = service, .chunk = chunk, .version = chunk->version, .copy = chunk->copy,
				      .name_new = chunk->name_new };
	adoption->joins = (struct write_log_entry){ .chunk = chunk->id, .end = CHUNK_BLOCKS };
	if (chunk->copy == COPY_JOINING)
		write_log_begin(chunk_store_writes(service->store), &adoption->joins);
	adoption->work.run = adopt_run;
	adoption->work.done = adopt_done;
	chunk->adopting = true;
	chunk_use(chunk);
	adoption->err = ERR_CANCELLED;
	chunk_store_submit(service->store, NULL, &adoption->work);
}

void chunk_adopt(struct service *service, struct chunk *chunk, const Granary__ChunkLocation *chain)
{
	bool newer = chain->version > chunk->version;
	check(chain->version >= chunk->version);
	chunk_set_chain(chunk, chain);
	if (!newer) {
		chunk_store_save(chunk);
		settle_chunk(service, chunk);
		return;
	}
	log_info("version_adopted", "chunk=%016" PRIx64 " version=%" PRIu64 " before=%" PRIu64 " replicas=%zu", chunk->id,
		 chain->version, chunk->version, chain->n_replicas);
	chunk->version = chain->version;
	chunk->copy = service_copy_state(service, chain->replicas, chain->n_replicas);
	chunk->received_from = NULL;
	chunk->received_life = 0; /* it may be another server */
	if (!chunk->adopting)
		start_adoption(service, chunk);
	chain_drop_lost(service, chunk);
	if (chunk->copy == COPY_JOINING)
		settle_drop(chunk);
	chunk->settle_failures = 0;
	chunk->settle_after_ms = 0;
}

void chunk_write_header(struct service *service, struct chunk *chunk)
{
	if (!chunk->adopting)
		start_adoption(service, chunk);
}

void chunk_adopt_again(struct service *service, struct chunk *chunk, const Granary__ChunkLocation *chain)
{
	enum copy_state copy = service_copy_state(service, chain->replicas, chain->n_replicas);
	check(chain->version == chunk->version);
	chunk_set_chain(chunk, chain);
	/* A word of before it was complete, or before it was retired, may come late. */
	if (chunk->copy == COPY_JOINING && copy == COPY_COMPLETE) {
		log_info("copy_complete", "chunk=%016" PRIx64 " version=%" PRIu64, chunk->id, chunk->version);
		chunk->copy = copy;
		chunk->written = true;
		/* If the power went since, what was acknowledged since may be lost: it is compared with the others. */
		if (chunk->filled_version == chunk->version)
			mend_filled(chunk);
		chunk_write_header(service, chunk);
	} else {
		chunk_store_save(chunk);
	}
	/* A member that is new may have what no other had. */
	if (chunk->damage_is_lost)
		chunk->mend_after_ms = 0;
	mend_start(service, chunk);
	fill_check(service, chunk);
}

void chunk_retire(struct service *service, struct chunk *chunk)
{
	log_info("copy_retired", "chunk=%016" PRIx64 " version=%" PRIu64, chunk->id, chunk->version);
	chunk->copy = COPY_RETIRED;
	chunk_ops_abandon(chunk, ERR_STALE_VERSION);
	chain_drop_lost(service, chunk);
	chunk_waive_damage(chunk);
	chunk_write_header(service, chunk);
}
