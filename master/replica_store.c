/* The database and the log of a replica: opened, trimmed. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "master/replica_internal.h"

#define MEMBERS_FILE_BYTES_MAX (64u * KIB)

/* ---- trimming the log */

static void sync_run(struct work *work)
{
	struct store_sync *sync = container_of(work, struct store_sync, work);

#ifdef PLANT_CUT_UNSYNCED
	sync->err = OK;
#else
	sync->err = kv_sync(sync->store->kv);
#endif
}

static void synced(struct replica *replica, const struct store_sync *sync)
{
	replica->bytes_unsynced -= sync->bytes;
	if (sync->index > replica->cut_index) {
		replica->cut_index = sync->index;
		wal_cut(replica->wal, sync->index);
	}
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
			synced(replica, sync);
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
	sync->bytes = replica->bytes_unsynced;
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

/* What is beyond its bound is said once, and again when it has doubled. */
static void look_at_lag(struct replica *replica)
{
	struct raft_view view;
	bool lags = replica->bytes_kept > LOG_KEPT_ALARM_BYTES || replica->bytes_unsynced > LOG_UNSYNCED_ALARM_BYTES;

	raft_view(replica->raft, &view);
	if (lags && !replica->lags)
		log_warn("master_persistence_lags",
			 "log_bytes=%" PRIu64 " unsynced_bytes=%" PRIu64 " first=%" PRIu64 " applied=%" PRIu64 " last=%" PRIu64,
			 replica->bytes_kept, replica->bytes_unsynced, view.first, view.applied, view.last);
	if (!lags && replica->lags)
		log_info("master_persistence_keeps_up", "log_bytes=%" PRIu64 " unsynced_bytes=%" PRIu64, replica->bytes_kept,
			 replica->bytes_unsynced);
	replica->lags = lags;
}

static void compact(struct replica *replica, uint64_t kept_bytes_max)
{
	uint64_t index = raft_compactable(replica->raft, kept_bytes_max), gone = 0;
	struct raft_view before, after;

	raft_view(replica->raft, &before);
	for (uint64_t i = before.first; i < index; i++) {
		const struct raft_entry *entry = raft_entry_at(replica->raft, i);
		gone += entry ? entry->payload.size : 0;
	}
	raft_compact(replica->raft, index);
	raft_view(replica->raft, &after);
	if (after.first >= index)
		replica->bytes_kept -= gone < replica->bytes_kept ? gone : replica->bytes_kept;
}

/* Entries that every member holds, or that there are too many of to wait for one that is away, are forgotten in memory at once,
 * and on disk when a segment's worth has come together: the store is synced first, since until then the log is its journal. */
void replica_on_trim(void *arg)
{
	struct replica *replica = arg;
	uint64_t kept = snapshots_index_kept(replica->snapshots);
	uint64_t segment_bytes = replica->options.segment_bytes ? replica->options.segment_bytes : WAL_SEGMENT_BYTES;
	uint64_t kept_bytes_max = replica->options.log_kept_bytes ? replica->options.log_kept_bytes : LOG_KEPT_BYTES;
	struct raft_view view;

	timer_start(&replica->trim, HOUSEKEEPING_MS);
	replica_look_at_space(replica);
	look_at_lag(replica);
	if (kv_is_damaged(replica->store->kv)) {
		replica_fail(replica, "state", ERR_CORRUPT);
		return;
	}
	if (replica->rebuilding)
		return;
	raft_keep(replica->raft, kept ? kept : UINT64_MAX);
	compact(replica, kept_bytes_max);
	raft_view(replica->raft, &view);
	if (!replica->sync && replica->bytes_unsynced >= segment_bytes)
		sync_start(replica, view.first);
}

/* ---- opening */

enum err replica_open_store(struct replica *replica, uint64_t number, struct kv **out)
{
	struct buf path = { 0 };
	struct kv_options options = { .cache_bytes = replica->options.cache_bytes / 2,
				      .write_buffer_bytes = replica->options.cache_bytes / 16 };

	state_path(replica->options.directory, number, &path);
	enum err err = kv_open(replica->loop, (const char *)path.bytes, &options, out);
	buf_deinit(&path);
	return err;
}

static enum err open_state(struct replica *replica)
{
	struct kv *kv;
	enum err err = replica_open_store(replica, replica->place.number, &kv);

	if (err)
		return err;
	replica->store = state_store_of(kv);
	err = meta_open(kv, &replica->meta);
	if (err) {
		state_store_unref(replica->store);
		replica->store = NULL;
	}
	return err;
}

static void members_path(const struct replica *replica, struct buf *out)
{
	buf_printf(out, "%s/members%c", replica->options.directory, 0);
}

enum err replica_save_members(struct replica *replica, const struct raft_snapshot *snapshot)
{
	Granary__StoredMembership stored = GRANARY__STORED_MEMBERSHIP__INIT;
	struct buf path = { 0 }, membership = { 0 }, bytes = { 0 };
	uint8_t crc[4];

	members_path(replica, &path);
	membership_pack(&snapshot->membership, &membership);
	stored.index = snapshot->membership_index;
	stored.membership = message_borrow(buf_slice(&membership));
	buf_append(&bytes, crc, sizeof(crc));
	message_pack(&stored.base, &bytes);
	put_le32(bytes.bytes, crc32c(bytes.bytes + sizeof(crc), bytes.size - sizeof(crc)));
	enum err err = file_replace(replica->loop, (const char *)path.bytes, buf_slice(&bytes));
	buf_deinit(&path);
	buf_deinit(&membership);
	buf_deinit(&bytes);
	return err;
}

/* From the file beside the database. ERR_NOT_FOUND: there has been none. */
static enum err load_members(struct replica *replica, struct raft_membership *out, uint64_t *index)
{
	struct buf path = { 0 }, bytes = { 0 };
	ProtobufCMessage *message = NULL;

	members_path(replica, &path);
	enum err err = file_load(replica->loop, (const char *)path.bytes, MEMBERS_FILE_BYTES_MAX, &bytes);
	if (err == OK && (bytes.size < 4 || get_le32(bytes.bytes) != crc32c(bytes.bytes + 4, bytes.size - 4)))
		err = ERR_CORRUPT;
	if (err == OK)
		err = message_unpack(&granary__stored_membership__descriptor, slice_of(bytes.bytes + 4, bytes.size - 4), &message);
	if (err == OK) {
		const Granary__StoredMembership *stored = (const Granary__StoredMembership *)message;
		*index = stored->index;
		err = membership_unpack(message_bytes(stored->membership), out);
	}
	message_free(message);
	buf_deinit(&path);
	buf_deinit(&bytes);
	return err;
}

/* The newest membership that is known outside of the log. */
static enum err base_membership(struct replica *replica, struct raft_membership *out, uint64_t *index)
{
	struct buf packed = { 0 };
	const struct founders *founders = replica->options.founders;
	enum err err = replica->meta ? meta_members(replica->meta, &packed, index) : ERR_NOT_FOUND;

	if (err == OK)
		err = membership_unpack(buf_slice(&packed), out);
	else if (err == ERR_NOT_FOUND)
		err = load_members(replica, out, index);
	buf_deinit(&packed);
	if (err != ERR_NOT_FOUND)
		return err;
	*out = (struct raft_membership){ 0 };
	*index = 0;
	for (size_t i = 0; founders && i < founders->count; i++) {
		const char *address = members_address(replica->options.members, founders->ids[i]);
		struct raft_member member = { .id = founders->ids[i], .node = founders->nodes[i] };
		if (address)
			memcpy(member.address, address, strlen(address) + 1);
		if (!membership_put(out, &member))
			return ERR_INVALID;
	}
	return OK;
}

/* Somebody else votes: the state can be had from there. */
static bool has_others(const struct raft_membership *membership, uint64_t id)
{
	for (size_t i = 0; i < membership->count; i++) {
		if (membership->members[i].id != id && !membership->members[i].learner)
			return true;
	}
	return false;
}

static void say_alone(struct replica *replica, uint64_t first_index, struct buf *message)
{
	struct buf path = { 0 };

	state_path(replica->options.directory, replica->place.number, &path);
	buf_printf(message,
		   "its database %s is damaged or gone, the log begins with entry %" PRIu64 ", and there is no other master to get the "
		   "state from: restore a backup into an empty directory, or repair the database by hand",
		   (const char *)path.bytes, first_index);
	buf_deinit(&path);
}

/* The database in use is damaged: it is put aside, and an empty one begun. */
static enum err replace_state(struct replica *replica, uint64_t first_index, struct buf *message)
{
	struct raft_membership membership;
	struct buf path = { 0 };
	uint64_t index;
	enum err err = base_membership(replica, &membership, &index);

	state_path(replica->options.directory, replica->place.number, &path);
	log_error("master_state_damaged", "path=%s log_first=%" PRIu64, (const char *)path.bytes, first_index);
	if (err == OK && first_index > 1 && !has_others(&membership, replica->options.id)) {
		say_alone(replica, first_index, message);
		err = ERR_CORRUPT;
	}
	if (err == OK)
		err = state_quarantine(replica->loop, replica->options.directory, replica->place.number);
	replica->place = (struct state_place){ .number = replica->place.number + 1 };
	if (err == OK)
		err = state_place_save(replica->loop, replica->options.directory, &replica->place);
	if (err == OK) {
		state_unmark_damaged(replica->loop, replica->options.directory);
		err = open_state(replica);
	}
	buf_deinit(&path);
	return err;
}

static enum err open_raft(struct replica *replica, const struct wal_loaded *loaded, struct buf *message)
{
	struct raft_membership membership;
	uint64_t applied = meta_applied_index(replica->meta), index;
	enum err err = base_membership(replica, &membership, &index);

	if (err)
		return err;
	replica->rebuilding = applied + 1 < loaded->first_index;
	if (replica->rebuilding && !has_others(&membership, replica->options.id)) {
		say_alone(replica, loaded->first_index, message);
		return ERR_CORRUPT;
	}
	struct raft_options options = { .id = replica->options.id,
					.node = replica->options.node,
					.membership = &membership,
					.membership_index = index,
					.election_ticks = RAFT_ELECTION_TICKS,
					.heartbeat_ticks = RAFT_HEARTBEAT_TICKS,
					.tick_ms = RAFT_TICK_MS,
					.seed = loop_random(replica->loop),
					.applied = replica->rebuilding ? loaded->first_index - 1 : applied,
					.installed_index = replica->rebuilding ? 0 : replica->place.index,
					.installed_term = replica->place.term };
	err = raft_open(&options, &loaded->hard, loaded->first_index, loaded->first_previous_term, loaded->entries,
			loaded->entry_count, &replica->raft);
	replica->commit = options.applied;
	if (replica->rebuilding)
		log_warn("master_rebuilds", "applied=%" PRIu64 " log_first=%" PRIu64, applied, loaded->first_index);
	return err;
}

static enum err open_wal(struct replica *replica, struct wal_loaded *loaded)
{
	struct buf path = { 0 };
	struct wal_options options = { .synced = replica_on_synced, .arg = replica, .segment_bytes = replica->options.segment_bytes };

	buf_printf(&path, "%s/log%c", replica->options.directory, 0);
	options.directory = (const char *)path.bytes;
	enum err err = wal_open(replica->loop, &options, &replica->wal, loaded);
	for (size_t i = 0; err == OK && i < loaded->entry_count; i++)
		replica->bytes_kept += loaded->entries[i].payload.size;
	buf_deinit(&path);
	return err;
}

enum err replica_open_stores(struct replica *replica, struct buf *message)
{
	const char *directory = replica->options.directory;
	struct wal_loaded loaded = { 0 };
	enum err err = open_wal(replica, &loaded);

	if (err == OK)
		err = state_place_load(replica->loop, directory, &replica->place);
	replica->install_number = replica->place.number;
	if (err == OK) {
		err = state_is_marked_damaged(replica->loop, directory) ? ERR_CORRUPT : open_state(replica);
		if (err == ERR_CORRUPT)
			err = replace_state(replica, loaded.first_index, message);
		replica->install_number = replica->place.number;
	}
	if (err == OK)
		err = open_raft(replica, &loaded, message);
	/* Only now it is known to be the one in use; while it has to be made again, others might be of use to somebody. */
	if (err == OK && !replica->rebuilding)
		state_sweep(replica->loop, directory, replica->place.number);
	if (err == OK)
		log_info("master_restored",
			 "term=%" PRIu64 " first=%" PRIu64 " entries=%zu applied=%" PRIu64 " torn_bytes=%" PRIu64 " damaged=%zu",
			 loaded.hard.term, loaded.first_index, loaded.entry_count, meta_applied_index(replica->meta),
			 loaded.torn_bytes, loaded.damaged_count);
	wal_loaded_free(&loaded);
	return err;
}
