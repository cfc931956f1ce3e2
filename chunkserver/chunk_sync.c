#include "chunkserver/chunk_sync.h"

#include <stdlib.h>

#include "common/base/check.h"

struct chunk_sync_wait {
	chunk_sync_fn *done;
	void *arg;
	struct chunk_sync_wait *next;
};

struct sync_work {
	struct work work;
	struct chunk_sync_job job;
};

static void start_group(struct chunk *chunk);

bool chunk_sync_begin(struct chunk *chunk, struct chunk_sync_job *job)
{
	if (chunk->sync_running)
		return false;
	chunk->sync_running = true;
	chunk_use(chunk);
	*job = (struct chunk_sync_job){
		.chunk = chunk,
		.file = file_ref(chunk->kind == KIND_PACK ? chunk->pack.file : chunk->file.file),
		.writes_ended = chunk->writes_ended,
		.name_new = chunk->name_new,
	};
	return true;
}

enum err chunk_sync_run(struct chunk_sync_job *job)
{
	job->ran = true;
#ifdef PLANT_CHUNK_SYNC_SKIPPED
	job->err = OK;
	return OK;
#endif
	job->err = file_sync(job->file);
#ifndef PLANT_CHUNK_NAME_NOT_SYNCED
	if (job->err == OK && job->name_new)
		job->err = store_files_sync_folder(chunk_store_loop(job->chunk->store), job->chunk->path);
#endif
	return job->err;
}

static void end_waits(struct chunk_sync_wait *waits, enum err err)
{
	while (waits != NULL) {
		struct chunk_sync_wait *next = waits->next;
		if (waits->done != NULL)
			waits->done(waits->arg, err);
		free(waits);
		waits = next;
	}
}

void chunk_sync_end(struct chunk_sync_job *job)
{
	struct chunk *chunk = job->chunk;
	struct chunk_sync_wait *waits = chunk->syncs_running;
	check(chunk->sync_running);
	chunk->sync_running = false;
	chunk->syncs_running = NULL;
	file_unref(job->file);
	if (!job->ran) {
		job->err = ERR_CANCELLED; /* only a killed process has waits here */
	} else if (job->err != OK) {
		chunk_store_fail(chunk->store, "sync", job->err);
	} else {
		chunk->writes_synced = job->writes_ended;
		if (job->name_new && chunk->name_new) {
			chunk->name_new = false;
			if (chunk->mark == MARK_SET && chunk_store_mark(chunk) != OK)
				chunk_store_fail(chunk->store, "mark", ERR_IO);
		}
	}
	if (chunk->syncs_waiting != NULL && !chunk_store_failed(chunk->store))
		start_group(chunk);
	end_waits(waits, job->err == OK ? OK : ERR_STORE_FAILED);
	if (chunk_store_failed(chunk->store)) {
		waits = chunk->syncs_waiting;
		chunk->syncs_waiting = NULL;
		end_waits(waits, ERR_STORE_FAILED);
	}
	chunk_unuse(chunk);
}
static void run_group(struct work *work)
{
	struct sync_work *sync = container_of(work, struct sync_work, work);
	if (chunk_sync_run(&sync->job) != OK)
		return; /* kept in the job */
}

static void group_done(struct work *work)
{
	struct sync_work *sync = container_of(work, struct sync_work, work);
	struct chunk_store *store = sync->job.chunk->store;
	chunk_sync_end(&sync->job);
	free(sync);
	chunk_store_work_end(store);
}

static void start_group(struct chunk *chunk)
{
	struct sync_work *sync = mem_zero(1, sizeof(*sync));
	bool begun = chunk_sync_begin(chunk, &sync->job);
	check(begun);
	chunk->syncs_running = chunk->syncs_waiting;
	chunk->syncs_waiting = NULL;
	sync->work.run = run_group;
	sync->work.done = group_done;
	chunk_store_submit(chunk->store, NULL, &sync->work);
}

void chunk_sync(struct chunk *chunk, chunk_sync_fn *done, void *arg)
{
	if (chunk_store_failed(chunk->store)) {
		if (done != NULL)
			done(arg, ERR_STORE_FAILED);
		return;
	}
	struct chunk_sync_wait *wait = mem_alloc(sizeof(*wait));
	*wait = (struct chunk_sync_wait){ .done = done, .arg = arg, .next = chunk->syncs_waiting };
	chunk->syncs_waiting = wait;
	if (!chunk->sync_running)
		start_group(chunk);
}
