#include "master/snapshot.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/data/pairs.h"
#include "common/sys/log.h"

struct snapshot {
	struct snapshots *owner; /* NULL: ended, freed when the worker is done */
	uint64_t id, index;
	bool backup;
	struct state_store *store;
	struct kv_iterator *iterator;
	struct timer idle;
	struct rpc_request *waiting; /* for the page that is being built */
	struct snapshot *next;

	/* The worker's while `working`. */
	struct work work;
	bool working;
	uint64_t building; /* number of the page; with working */
	uint64_t pages;	   /* built */
	struct buf pairs; /* of the newest */
	uint32_t crc, digest;
	uint64_t count;
	bool last;
	enum err err;
};

struct snapshots {
	struct loop *loop;
	struct snapshot *first;
	size_t count;
};

/* ---- pages */

static void page_run(struct work *work)
{
	struct snapshot *snapshot = container_of(work, struct snapshot, work);
	struct kv_iterator *iterator = snapshot->iterator;

	buf_clear(&snapshot->pairs);
	if (snapshot->pages == 0)
		kv_iterator_seek(iterator, (struct slice){ 0 });
	while (kv_iterator_valid(iterator) && snapshot->pairs.size < SNAPSHOT_PAGE_BYTES) {
		struct slice key = kv_iterator_key(iterator), value = kv_iterator_value(iterator);
		if (snapshot->pairs.size > 0 &&
		    snapshot->pairs.size + PAIR_HEADER_BYTES + key.size + value.size > SNAPSHOT_PAGE_BYTES_MAX)
			break;
		pairs_add(&snapshot->pairs, key, value);
		snapshot->count++;
		kv_iterator_next(iterator);
	}
	snapshot->last = !kv_iterator_valid(iterator);
	snapshot->err = snapshot->last ? kv_iterator_error(iterator) : OK;
	snapshot->crc = crc32c(snapshot->pairs.bytes, snapshot->pairs.size);
	snapshot->digest = crc32c_extend(snapshot->digest, snapshot->pairs.bytes, snapshot->pairs.size);
	snapshot->pages++;
}

static void snapshot_free(struct snapshot *snapshot)
{
	kv_iterator_close(snapshot->iterator);
	state_store_unref(snapshot->store);
	buf_deinit(&snapshot->pairs);
	free(snapshot);
}

static void snapshot_end(struct snapshot *snapshot, enum err err)
{
	struct snapshots *owner = snapshot->owner;
	struct snapshot **link = &owner->first;

	while (*link != snapshot)
		link = &(*link)->next;
	*link = snapshot->next;
	owner->count--;
	timer_stop(&snapshot->idle);
	if (snapshot->waiting)
		rpc_reply_error(snapshot->waiting, err, NULL);
	snapshot->waiting = NULL;
	snapshot->owner = NULL;
	log_info("snapshot_ended", "index=%" PRIu64 " pages=%" PRIu64 " pairs=%" PRIu64 " complete=%d", snapshot->index,
		 snapshot->working ? 0 : snapshot->pages, snapshot->working ? 0 : snapshot->count,
		 !snapshot->working && snapshot->last);
	if (!snapshot->working)
		snapshot_free(snapshot);
}

static void answer(struct snapshot *snapshot, struct rpc_request *request)
{
	Granary__SnapshotPage page = GRANARY__SNAPSHOT_PAGE__INIT;

	page.pairs = message_borrow(buf_slice(&snapshot->pairs));
	page.crc = snapshot->crc;
	page.last = snapshot->last;
	if (snapshot->last) {
		page.count = snapshot->count;
		page.digest = snapshot->digest;
	}
	timer_start(&snapshot->idle, SNAPSHOT_IDLE_MS);
	rpc_reply(request, &page.base);
}

static void page_done(struct work *work)
{
	struct snapshot *snapshot = container_of(work, struct snapshot, work);
	struct rpc_request *request = snapshot->waiting;

	snapshot->working = false;
	if (!snapshot->owner) {
		snapshot_free(snapshot);
		return;
	}
	if (snapshot->err) {
		log_error("snapshot_failed", "index=%" PRIu64 " error=%s", snapshot->index, err_name(snapshot->err));
		snapshot_end(snapshot, snapshot->err);
		return;
	}
	snapshot->waiting = NULL;
	if (request)
		answer(snapshot, request);
}

static void on_idle(void *arg)
{
	struct snapshot *snapshot = arg;

	if (snapshot->working)
		timer_start(&snapshot->idle, SNAPSHOT_IDLE_MS);
	else
		snapshot_end(snapshot, ERR_TIMEOUT);
}

/* ---- requests */

void snapshots_begin(struct snapshots *snapshots, const struct snapshot_source *source, struct rpc_request *request)
{
	const Granary__SnapshotOpen *message = (const Granary__SnapshotOpen *)request->message;
	Granary__SnapshotInfo info = GRANARY__SNAPSHOT_INFO__INIT;

	if (snapshots->count == SNAPSHOTS_MAX) {
		rpc_reply_error(request, ERR_BUSY, "as many snapshots as are allowed are being read");
		return;
	}
	struct snapshot *snapshot = mem_zero(1, sizeof(*snapshot));
	snapshot->owner = snapshots;
	snapshot->id = loop_random(snapshots->loop) | 1;
	snapshot->index = source->index;
	snapshot->backup = message->backup;
	snapshot->store = state_store_ref(source->store);
	snapshot->iterator = kv_iterator_open_once(source->store->kv);
	snapshot->work = (struct work){ .run = page_run, .done = page_done };
	timer_init(&snapshot->idle, snapshots->loop, on_idle, snapshot);
	timer_start(&snapshot->idle, SNAPSHOT_IDLE_MS);
	snapshot->next = snapshots->first;
	snapshots->first = snapshot;
	snapshots->count++;
	info.id = snapshot->id;
	info.index = source->index;
	info.term = source->term;
	info.cluster = source->cluster;
	info.pairs_expected = source->pairs_expected;
	log_info("snapshot_begins", "index=%" PRIu64 " term=%" PRIu64 " backup=%d", info.index, info.term, snapshot->backup);
	rpc_reply(request, &info.base);
}

static void read_page(struct snapshots *snapshots, struct snapshot *snapshot, struct rpc_request *request)
{
	const Granary__SnapshotRead *message = (const Granary__SnapshotRead *)request->message;

	if (snapshot->working && message->page == snapshot->building) {
		/* It has asked again: the first request's answer would not be waited for. */
		if (snapshot->waiting)
			rpc_reply_error(snapshot->waiting, ERR_BUSY, NULL);
		snapshot->waiting = request;
	} else if (snapshot->working) {
		rpc_reply_error(request, ERR_INVALID, NULL);
	} else if (snapshot->pages > 0 && message->page == snapshot->pages - 1) {
		answer(snapshot, request);
	} else if (message->page == snapshot->pages && !snapshot->last) {
		snapshot->waiting = request;
		snapshot->working = true;
		snapshot->building = message->page;
		work_submit(snapshots->loop, NULL, &snapshot->work);
	} else {
		rpc_reply_error(request, ERR_INVALID, NULL);
	}
}

void snapshots_serve(struct snapshots *snapshots, struct rpc_request *request)
{
	bool closes = request->type == MESSAGE_SNAPSHOT_CLOSE;
	uint64_t id = closes ? ((const Granary__SnapshotClose *)request->message)->id :
			       ((const Granary__SnapshotRead *)request->message)->id;
	struct snapshot *snapshot = snapshots->first;
	Granary__Empty empty = GRANARY__EMPTY__INIT;

	while (snapshot && snapshot->id != id)
		snapshot = snapshot->next;
	if (!snapshot) {
		rpc_reply_error(request, ERR_NOT_FOUND, NULL);
	} else if (closes) {
		snapshot_end(snapshot, ERR_CANCELLED);
		rpc_reply(request, &empty.base);
	} else {
		read_page(snapshots, snapshot, request);
	}
}

uint64_t snapshots_index_kept(const struct snapshots *snapshots)
{
	uint64_t lowest = 0;

	for (const struct snapshot *snapshot = snapshots->first; snapshot; snapshot = snapshot->next) {
		if (!snapshot->backup && (lowest == 0 || snapshot->index < lowest))
			lowest = snapshot->index;
	}
	return lowest;
}

size_t snapshots_count(const struct snapshots *snapshots)
{
	return snapshots->count;
}

struct snapshots *snapshots_open(struct loop *loop)
{
	struct snapshots *snapshots = mem_zero(1, sizeof(*snapshots));

	snapshots->loop = loop;
	return snapshots;
}

void snapshots_close(struct snapshots *snapshots)
{
	if (!snapshots)
		return;
	while (snapshots->first)
		snapshot_end(snapshots->first, ERR_CANCELLED);
	free(snapshots);
}
