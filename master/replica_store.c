/* The database and the log of a replica: opened, trimmed. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "master/replica_internal.h"

/* ---- trimming the log */

static void sync_run(struct work *work)
{
	struct store_sync *sync = container_of(work, struct store_sync, work);

	sync->err = kv_sync(sync->store->kv);
}

static void sync_done(struct work *work)
{
	struct store_sync *sync = container_of(work, struct store_sync, work);
	struct replica *replica = sync->replica;

	if (replica) {
		replica->sync = NULL;
		if (sync->err)
			replica_fail(replica, "state", sync->err);
		else if (!replica->failed)
			wal_cut(replica->wal, sync->index);
	}
	state_store_unref(sync->store);
	free(sync);
}

static void sync_start(struct replica *replica, uint64_t index)
{
	struct store_sync *sync = mem_zero(1, sizeof(*sync));

	sync->work = (struct work){ .run = sync_run, .done = sync_done };
	sync->replica = replica;
	sync->store = state_store_ref(replica->store);
	sync->index = index;
	replica->sync = sync;
	work_submit(replica->loop, NULL, &sync->work);
}

void replica_look_at_space(struct replica *replica)
{
	struct wal_view view;
	struct disk_space space;

	wal_retry(replica->wal);
	wal_view(replica->wal, &view);
	bool known = disk_space(replica->loop, replica->options.directory, &space) == OK;
	bool low = view.space_low || (known && space.bytes_free < DISK_RESERVED_BYTES);
	if (low && !replica->space_low)
		log_warn("master_space_low", "bytes_free=%" PRIu64 " kept_free=%u", space.bytes_free, DISK_RESERVED_BYTES);
	if (!low && replica->space_low)
		log_info("master_space_back", "bytes_free=%" PRIu64, space.bytes_free);
	replica->space_low = low;
}

/* Entries that every member holds and that are applied here are forgotten in memory at once, and on disk when a segment's
 * worth has come together: the store is synced first, since until then the log is its journal. */
void replica_on_trim(void *arg)
{
	struct replica *replica = arg;
	uint64_t applied = meta_applied_index(replica->meta);
	uint64_t safe = raft_safe_to_compact(replica->raft);

	timer_start(&replica->trim, HOUSEKEEPING_MS);
	replica_look_at_space(replica);
	if (replica->bytes_since_cut > replica->alarm_bytes) {
		log_warn("master_log_grows", "bytes=%" PRIu64 " held_by_all=%" PRIu64 " applied=%" PRIu64,
			 replica->bytes_since_cut, safe, applied);
		replica->alarm_bytes *= 2;
	}
	if (safe > applied)
		safe = applied;
	if (safe == 0)
		return;
	raft_compact(replica->raft, safe);
	if (!replica->sync && safe > replica->cut_index && replica->bytes_since_cut > WAL_SEGMENT_BYTES) {
		replica->cut_index = safe;
		replica->bytes_since_cut = 0;
		replica->alarm_bytes = LOG_KEPT_ALARM_BYTES;
		sync_start(replica, safe);
	}
}

/* ---- opening */

enum err replica_open_state(struct replica *replica)
{
	struct buf path = { 0 };
	struct kv_options options = { .cache_bytes = replica->options.cache_bytes / 2,
				      .write_buffer_bytes = replica->options.cache_bytes / 16 };

	buf_printf(&path, "%s/state%c", replica->options.directory, 0);
	struct kv *kv;
	enum err err = kv_open(replica->loop, (const char *)path.bytes, &options, &kv);
	if (err == OK) {
		replica->store = state_store_of(kv);
		err = meta_open(kv, &replica->meta);
	}
	buf_deinit(&path);
	return err;
}

enum err replica_open_log(struct replica *replica)
{
	struct buf path = { 0 };
	struct wal_loaded loaded = { 0 };
	struct wal_options wal_options = { .synced = replica_on_synced, .arg = replica };
	struct raft_options raft_options = { .id = replica->options.id,
					     .members = replica->options.members->ids,
					     .member_count = replica->options.members->count,
					     .election_ticks = RAFT_ELECTION_TICKS,
					     .heartbeat_ticks = RAFT_HEARTBEAT_TICKS,
					     .tick_ms = RAFT_TICK_MS,
					     .seed = loop_random(replica->loop),
					     .applied = meta_applied_index(replica->meta) };

	buf_printf(&path, "%s/log%c", replica->options.directory, 0);
	wal_options.directory = (const char *)path.bytes;
	enum err err = wal_open(replica->loop, &wal_options, &replica->wal, &loaded);
	if (err == OK)
		err = raft_open(&raft_options, &loaded.hard, loaded.first_index, loaded.first_previous_term, loaded.entries,
				loaded.entry_count, &replica->raft);
	if (err == OK)
		log_info("master_restored",
			 "term=%" PRIu64 " first=%" PRIu64 " entries=%zu applied=%" PRIu64 " torn_bytes=%" PRIu64,
			 loaded.hard.term, loaded.first_index, loaded.entry_count, raft_options.applied, loaded.torn_bytes);
	wal_loaded_free(&loaded);
	buf_deinit(&path);
	return err;
}

