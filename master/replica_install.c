/* Another master's state made one's own: begun, and taken into use. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/sys/log.h"
#include "master/replica_internal.h"

/* A database that is not used any more, on its way out. */
struct removal {
	struct work work;
	struct loop *loop;
	struct buf path;
	enum err err;
};

static void removal_run(struct work *work)
{
	struct removal *removal = container_of(work, struct removal, work);

	removal->err = kv_remove(removal->loop, (const char *)removal->path.bytes);
}

static void removal_done(struct work *work)
{
	struct removal *removal = container_of(work, struct removal, work);

	if (removal->err)
		log_warn("master_state_not_removed", "path=%s error=%s", (const char *)removal->path.bytes, err_name(removal->err));
	buf_deinit(&removal->path);
	free(removal);
}

/* Nobody has it open. */
static void remove_state(struct replica *replica, uint64_t number)
{
	struct removal *removal = mem_zero(1, sizeof(*removal));

	removal->work = (struct work){ .run = removal_run, .done = removal_done };
	removal->loop = replica->loop;
	state_path(replica->options.directory, number, &removal->path);
	work_submit(replica->loop, NULL, &removal->work);
}

/* Whether it is what was offered, and of use here. */
static enum err examine(struct replica *replica, struct meta *meta, const struct install_result *result,
			struct raft_snapshot *snapshot)
{
	struct raft_view view;
	struct buf packed = { 0 };
	uint64_t cluster = meta_cluster(replica->meta);

	raft_view(replica->raft, &view);
	*snapshot = (struct raft_snapshot){ .index = result->index, .term = result->term };
	enum err err = meta_members(meta, &packed, &snapshot->membership_index);
	if (err == OK)
		err = membership_unpack(buf_slice(&packed), &snapshot->membership);
	buf_deinit(&packed);
	if (err)
		return err;
	if (meta_applied_index(meta) != result->index || meta_applied_term(meta) != result->term)
		return ERR_CORRUPT;
	if (cluster && meta_cluster(meta) != cluster && meta_applied_index(replica->meta) > 0)
		return ERR_WRONG_CLUSTER;
	/* Meanwhile the log may have brought more; or this one leads. */
	if (view.role == RAFT_LEADER || result->term > view.term)
		return ERR_BUSY;
	if (replica->rebuilding)
		return result->index + 1 >= view.first ? OK : ERR_BUSY;
	return result->index > replica->commit ? OK : ERR_EXISTS;
}

static void exchange(struct replica *replica, struct kv *kv, struct meta *meta)
{
	bool last = replica->store->references == 1;

	check(!replica->batches);
	if (replica->sync)
		replica->sync->replica = NULL;
	replica->sync = NULL;
	replica->bytes_unsynced = 0;
	meta_close(replica->meta);
	state_store_unref(replica->store);
	replica->store = state_store_of(kv);
	replica->meta = meta;
	/* Whoever still reads the old one keeps it until the next start. */
	if (last)
		remove_state(replica, replica->place.number);
}

/* In this order: a crash before the place is saved leaves the old state and log, one after it the new state and a log that
 * raft_open gives up if it is not of it. */
static enum err take_into_use(struct replica *replica, struct meta *meta, const struct install_result *result,
			      const struct raft_snapshot *snapshot)
{
	struct state_place place = { .number = replica->install_number, .index = result->index, .term = result->term };
	enum err err = state_place_save(replica->loop, replica->options.directory, &place);

	if (err == OK)
		err = replica_save_members(replica, snapshot);
	if (err) {
		/* Which of the two is in use is not known any more: the next start looks. */
		replica_fail(replica, "state", err);
		return err;
	}
	exchange(replica, result->kv, meta);
	replica->place = place;
	if (result->index > replica->commit) {
		err = raft_install(replica->raft, replica_now_ms(replica), snapshot);
		check(err == OK); /* examined */
		replica->commit = result->index;
	} else {
		raft_applied(replica->raft, result->index);
	}
	replica->rebuilding = false;
	return OK;
}

static void on_installed(void *arg, enum err err, const struct install_result *result)
{
	struct replica *replica = arg;
	struct raft_snapshot snapshot;
	struct meta *meta = NULL;

	if (err == OK && replica->failed)
		err = ERR_STORE_FAILED;
	if (err == OK)
		err = meta_open(result->kv, &meta);
	if (err == OK)
		err = examine(replica, meta, result, &snapshot);
	if (err == OK) {
		err = take_into_use(replica, meta, result, &snapshot);
	}
	if (err && result) {
		meta_close(meta);
		kv_close(result->kv);
		if (!replica->failed)
			remove_state(replica, replica->install_number);
	}
	if (err)
		log_warn("master_state_not_taken", "error=%s", err_name(err));
	install_close(replica->install);
	replica->install = NULL;
	replica->install_due_ms = replica_now_ms(replica) + SNAPSHOT_RETRY_MS;
	if (err || replica->failed)
		return;
	log_info("master_installed", "index=%" PRIu64 " term=%" PRIu64 " state=%" PRIu64, snapshot.index, snapshot.term,
		 replica->place.number);
	replica->options.events->installed(replica->options.events_arg);
	defer_post(&replica->round);
}

static void begin(struct replica *replica, uint64_t from)
{
	const char *address = members_address(&replica->members, from);
	struct buf path = { 0 };

	if (replica->install || replica->failed || !address || replica_now_ms(replica) < replica->install_due_ms)
		return;
	replica->install_number++;
	state_path(replica->options.directory, replica->install_number, &path);
	replica->install = install_start(&(struct install_options){ .loop = replica->loop,
								    .rpc = replica->options.rpc,
								    .path = (const char *)path.bytes,
								    .address = address,
								    .cache_bytes = replica->options.cache_bytes / 2,
								    .write_buffer_bytes = replica->options.cache_bytes / 16,
								    .done = on_installed,
								    .arg = replica });
	buf_deinit(&path);
}

/* One that is under way goes on, also from a leader of before: what it had applied stays true. */
void replica_install_wanted(struct replica *replica, uint64_t from, uint64_t index)
{
	(void)index;
	begin(replica, from);
}

void replica_install_tick(struct replica *replica)
{
	struct raft_view view;

	if (!replica->rebuilding || replica->install || replica_now_ms(replica) < replica->install_due_ms)
		return;
	raft_view(replica->raft, &view);
	if (view.role == RAFT_LEADER) {
		/* Without a state it can answer nothing. */
		enum err err = raft_transfer(replica->raft, replica_now_ms(replica), 0);
		log_warn("master_without_state_leads", "transfer=%s", err_name(err));
		replica->install_due_ms = replica_now_ms(replica) + SNAPSHOT_RETRY_MS;
	} else if (view.leader) {
		begin(replica, view.leader);
	}
}

bool replica_install_view(const struct replica *replica, struct install_view *out)
{
	if (replica->install)
		install_view(replica->install, out);
	return replica->install != NULL;
}

void replica_serve_snapshot(struct replica *replica, struct rpc_request *request)
{
	struct meta_counts counts;

	if (request->type != MESSAGE_SNAPSHOT_OPEN) {
		snapshots_serve(replica->snapshots, request);
		return;
	}
	if (!replica_can_read(replica)) {
		replica_refuse(replica, request, ERR_NOT_LEADER);
		return;
	}
	meta_counts(replica->meta, &counts);
	struct snapshot_source source = { .store = replica->store,
					  .index = meta_applied_index(replica->meta),
					  .term = meta_applied_term(replica->meta),
					  .cluster = meta_cluster(replica->meta),
					  .pairs_expected = 2 * counts.inodes + 3 * counts.chunks + counts.sessions };
	snapshots_begin(replica->snapshots, &source, request);
	raft_keep(replica->raft, snapshots_index_kept(replica->snapshots) ? snapshots_index_kept(replica->snapshots) : UINT64_MAX);
}
