#include "master/install.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/data/pairs.h"
#include "common/sys/log.h"
#include "master/state_store.h"

enum step { REMOVING, OPENING, PULLING, SYNCING, OVER, DISCARDING };

struct install {
	struct install_options options;
	struct rpc_peer *peer;
	rpc_call_id call; /* 0: none under way */
	enum step step;
	bool closed; /* freed when the worker is done */
	bool complete; /* the database is the owner's */
	struct timer retry;
	unsigned attempts; /* of the page that is asked for */
	char *path;
	struct kv *kv;
	struct install_result result;
	uint64_t pairs_expected;
	uint64_t id;
	uint64_t page; /* the next to ask for */

	/* Arrived and checked, waits for the one before to be written. */
	const Granary__SnapshotPage *next; /* whole: a reference */

	/* The worker's while `working`. */
	struct work work;
	bool working;
	const Granary__SnapshotPage *writing;
	struct buf last_key;
	uint64_t count;
	uint32_t digest;
	enum err err;
};

static void ask(struct install *install);
static void go_on(struct install *install);

static void work_start(struct install *install)
{
	install->working = true;
	work_submit(install->options.loop, NULL, &install->work);
}

/* What was not completed goes. */
static void install_discard(struct install *install)
{
	kv_close(install->kv);
	install->kv = NULL;
	install->step = DISCARDING;
	work_start(install);
}

static void install_free(struct install *install)
{
	message_unref(install->next ? &install->next->base : NULL);
	message_unref(install->writing ? &install->writing->base : NULL);
	buf_deinit(&install->last_key);
	free(install->path);
	free(install);
}

static void install_end(struct install *install, enum err err)
{
	struct install_result result = install->result;

	install->step = OVER;
	timer_stop(&install->retry);
	if (err) {
		log_warn("install_failed", "from=%s index=%" PRIu64 " pages=%" PRIu64 " error=%s",
			 rpc_peer_address(install->peer), result.index, install->page, err_name(err));
		install->options.done(install->options.arg, err, NULL);
		return;
	}
	result.kv = install->kv;
	install->kv = NULL;
	install->complete = true;
	install->options.done(install->options.arg, OK, &result);
}

/* ---- the worker */

static enum err write_pairs(struct install *install)
{
	struct slice rest = message_bytes(install->writing->pairs), key, value;
	enum err err = pairs_check(rest, &install->last_key, &install->count);

	if (err)
		return err;
	install->digest = crc32c_extend(install->digest, rest.bytes, rest.size);
	struct kv_batch *batch = kv_batch_open();
	while (err == OK && rest.size > 0) {
		err = pairs_take(&rest, &key, &value);
		if (err == OK)
			kv_batch_put(batch, key, value);
	}
	if (err == OK)
		err = kv_write(install->kv, batch, false);
	kv_batch_close(batch);
	return err;
}

static void work_run(struct work *work)
{
	struct install *install = container_of(work, struct install, work);

	if (install->step == REMOVING || install->step == DISCARDING)
		install->err = kv_remove(install->options.loop, install->path);
	else if (install->step == PULLING)
		install->err = write_pairs(install);
#ifdef PLANT_SNAPSHOT_UNSYNCED
	else
		install->err = OK;
#else
	else
		install->err = kv_sync(install->kv);
#endif
}

static bool is_complete(const struct install *install, const Granary__SnapshotPage *page)
{
	if (page->count == install->count && page->digest == install->digest)
		return true;
	log_error("install_differs", "count=%" PRIu64 " expected=%" PRIu64 " digest=%08" PRIx32 " expected_digest=%08" PRIx32,
		  install->count, page->count, install->digest, page->digest);
	return false;
}

static void page_written(struct install *install)
{
	const Granary__SnapshotPage *page = install->writing;
	bool last = page->last;
	bool whole = !last || is_complete(install, page);

	install->writing = NULL;
	message_unref(&page->base);
	if (!whole) {
		install_end(install, ERR_CORRUPT);
	} else if (last) {
		install->step = SYNCING;
		work_start(install);
	} else {
		go_on(install);
	}
}

static enum err open_store(struct install *install)
{
	struct kv_options options = { .cache_bytes = install->options.cache_bytes,
				      .write_buffer_bytes = install->options.write_buffer_bytes,
				      .filling = true };

	return kv_open(install->options.loop, install->path, &options, &install->kv);
}

static void work_done(struct work *work)
{
	struct install *install = container_of(work, struct install, work);

	install->working = false;
	if (install->closed && (install->complete || install->step == DISCARDING)) {
		install_free(install);
		return;
	}
	if (install->closed) {
		install_discard(install);
		return;
	}
	if (install->step == OVER)
		return;
	enum err err = install->err;
	if (err == OK && install->step == REMOVING) {
		err = open_store(install);
		install->step = OPENING;
		if (err == OK)
			ask(install);
	} else if (err == OK && install->step == PULLING) {
		page_written(install);
	} else if (err == OK) {
		err = kv_settle(install->kv);
		if (err == OK)
			install_end(install, OK);
	}
	if (err)
		install_end(install, err);
}

/* ---- the network */

/* Writes what has come, and asks for the page after it meanwhile. */
static void go_on(struct install *install)
{
	if (!install->next || install->working)
		return;
	install->writing = install->next;
	install->next = NULL;
	work_start(install);
	if (!install->writing->last)
		ask(install);
}

static void opened(struct install *install, const Granary__SnapshotInfo *info)
{
	install->id = info->id;
	install->pairs_expected = info->pairs_expected;
	install->result = (struct install_result){ .index = info->index, .term = info->term, .cluster = info->cluster };
	install->step = PULLING;
	log_info("install_begins", "from=%s index=%" PRIu64 " term=%" PRIu64, rpc_peer_address(install->peer), info->index,
		 info->term);
	ask(install);
}

static void on_answer(void *arg, const struct rpc_result *result)
{
	struct install *install = arg;

	install->call = 0;
	if (install->step == OVER)
		return;
	if (result->err == ERR_TIMEOUT || result->err == ERR_CLOSED || result->err == ERR_UNREACHABLE || result->err == ERR_BUSY) {
		if (++install->attempts < SNAPSHOT_ATTEMPTS_MAX)
			timer_start(&install->retry, SNAPSHOT_RETRY_MS);
		else
			install_end(install, result->err);
		return;
	}
	if (result->err) {
		install_end(install, result->err);
		return;
	}
	install->attempts = 0;
	if (install->step == OPENING) {
		opened(install, (const Granary__SnapshotInfo *)result->reply);
		return;
	}
	const Granary__SnapshotPage *page = (const Granary__SnapshotPage *)result->reply;
	if (crc32c(page->pairs.data, page->pairs.len) != page->crc) {
		install_end(install, ERR_CORRUPT);
		return;
	}
	message_ref(&page->base);
	install->next = page;
	install->page++;
	go_on(install);
}

static void ask(struct install *install)
{
	Granary__SnapshotOpen open = GRANARY__SNAPSHOT_OPEN__INIT;
	Granary__SnapshotRead read = GRANARY__SNAPSHOT_READ__INIT;

	read.id = install->id;
	read.page = install->page;
	bool opening = install->step == OPENING;
	install->call = rpc_peer_call(install->peer, opening ? MESSAGE_SNAPSHOT_OPEN : MESSAGE_SNAPSHOT_READ,
				      opening ? &open.base : &read.base, NULL, RPC_TIMEOUT_MS, on_answer, install);
}

static void on_retry(void *arg)
{
	ask(arg);
}

/* ---- from outside */

struct install *install_start(const struct install_options *options)
{
	struct install *install = mem_zero(1, sizeof(*install));

	install->options = *options;
	install->path = mem_string(options->path);
	install->peer = rpc_peer_open(options->rpc, options->address);
	install->work = (struct work){ .run = work_run, .done = work_done };
	timer_init(&install->retry, options->loop, on_retry, install);
	work_start(install);
	return install;
}

static void on_closed(void *arg, const struct rpc_result *result)
{
	(void)arg;
	(void)result;
}

void install_close(struct install *install)
{
	Granary__SnapshotClose message = GRANARY__SNAPSHOT_CLOSE__INIT;

	if (!install)
		return;
	timer_stop(&install->retry);
	if (install->call)
		rpc_call_cancel(install->options.rpc, install->call);
	install->call = 0;
	message.id = install->id;
	if (install->id)
		rpc_peer_call(install->peer, MESSAGE_SNAPSHOT_CLOSE, &message.base, NULL, RPC_TIMEOUT_MS, on_closed, NULL);
	rpc_peer_close(install->peer);
	install->peer = NULL;
	install->closed = true;
	if (!install->working && install->complete)
		install_free(install);
	else if (!install->working)
		install_discard(install);
}

void install_view(const struct install *install, struct install_view *out)
{
	*out = (struct install_view){ .pages = install->page,
				      .pairs = install->working ? 0 : install->count,
				      .pairs_expected = install->pairs_expected,
				      .index = install->result.index };
}
