#include "master/trash.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

/* When space is low this much more than the bound is made free, so that it is not low again at once. */
#define MARGIN_PERCENT 2u
/* After the last deletion is confirmed: the chunkservers report their free space twice. */
#define REPORTED_MS (2u * CHUNKSERVER_HEARTBEAT_MS)

struct trash {
	struct loop *loop;
	struct replica *replica;
	struct servers *servers;
	struct timer timer;
	bool no_space;		   /* a chunk found no place since space was last looked at */
	uint64_t wanted_bytes;	   /* REMOVING: of the chunkservers' space */
	uint64_t cursor;	   /* nothing is left up to here */
	uint64_t looked;	   /* what is left up to here is not due, as of this pass */
	uint64_t pass_ms;	   /* when the next pass begins, if there is one */
	bool leaves_some;	   /* the removal under way leaves older ones */
	uint64_t settle_until_ms;  /* SETTLING */
	uint64_t deleted_ms;	   /* when nothing was to be deleted any more; 0: not yet */
	uint64_t begin_ms; /* not before the chunkservers have said what they hold (servers_are_ahead) */
	bool proposed;
	struct proposal proposal;
	Granary__MetaRequest request;
	Granary__MetaOp op, *ops[1];
	Granary__TrashRemove change;
	uint64_t ids[TRASH_REMOVE_MAX];
	/* Of those that were removed for their space last. */
	uint64_t inodes[TRASH_REMOVE_MAX];
	size_t inode_count;
};

static uint64_t now_ms(const struct trash *trash)
{
	return loop_now_us(trash->loop) / 1000;
}

/* ---- space */

/* What is missing to TRASH_FREE_PERCENT, of the space of all chunkservers in service; 0: nothing. */
static uint64_t bytes_missing(const struct trash *trash)
{
	uint64_t total = 0, available = 0;

	for (size_t i = 0; i < servers_count(trash->servers); i++) {
		const struct server *server = servers_at(trash->servers, i);
		if (!servers_is_usable(server, now_ms(trash)) || server->draining || server->bytes_total <= DISK_RESERVED_BYTES)
			continue;
		total += server->bytes_total - DISK_RESERVED_BYTES;
		available += server->bytes_free > DISK_RESERVED_BYTES ? server->bytes_free - DISK_RESERVED_BYTES : 0;
	}
	if (available >= total / 100 * TRASH_FREE_PERCENT)
		return 0;
	return total / 100 * (TRASH_FREE_PERCENT + MARGIN_PERCENT) - available;
}

/* The space of the last removals is known, or it is no use to wait for it any longer (somebody has the files open, a server is away). */
static bool has_settled(struct trash *trash)
{
	struct meta *meta = replica_meta(trash->replica);
	uint64_t now = now_ms(trash);
	struct meta_counts counts;
	bool reclaimed = true;

	if (now >= trash->settle_until_ms)
		return true;
	for (size_t i = 0; i < trash->inode_count && reclaimed; i++) {
		Granary__MetaReply *whole = message_open_whole(&granary__meta_reply__descriptor);
		Granary__Inode *inode;
		reclaimed = meta_inode(meta, trash->inodes[i], &whole->base, &inode) == ERR_NOT_FOUND;
		message_unref(&whole->base);
	}
	meta_counts(meta, &counts);
	if (!reclaimed || counts.garbage > 0) {
		trash->deleted_ms = 0;
		return false;
	}
	if (trash->deleted_ms == 0)
		trash->deleted_ms = now;
	return now - trash->deleted_ms >= REPORTED_MS;
}

/* Whether, and how much, is to go before its time. */
static void look_at_space(struct trash *trash)
{
	if (trash->wanted_bytes > 0)
		return;
	if (trash->settle_until_ms != 0) {
		if (!has_settled(trash))
			return;
		trash->settle_until_ms = 0;
		trash->inode_count = 0;
	}
	trash->wanted_bytes = bytes_missing(trash);
	if (trash->wanted_bytes == 0 && trash->no_space)
		trash->wanted_bytes = CHUNK_BYTES * (uint64_t)REPLICAS_DEFAULT;
	trash->no_space = false;
}

static void space_was_made(struct trash *trash)
{
	trash->wanted_bytes = 0;
	trash->deleted_ms = 0;
	trash->settle_until_ms = now_ms(trash) + TRASH_SETTLE_MS;
}

/* ---- removing */

struct choice {
	struct trash *trash;
	uint64_t time_ns;
	uint64_t least_ns; /* no class keeps its files for less */
	uint64_t excess;   /* so many above the bound */
	size_t count, early, seen;
	bool skipped; /* one that is kept for longer */
	bool again;   /* there may be more of this pass */
};

static uint64_t kept_ns(const struct meta *meta, const char *label)
{
	struct storage_values values;

	meta_class_values(meta, label, &values);
	return values.trash_seconds * 1000000000ull;
}

static uint64_t least_kept_ns(const struct meta *meta)
{
	const Granary__StorageClasses *classes = meta_classes(meta);
	uint64_t least = kept_ns(meta, "");

	for (size_t i = 0; i < classes->n_classes; i++) {
		uint64_t kept = kept_ns(meta, classes->classes[i]->name);
		least = kept < least ? kept : least;
	}
	return least;
}

static uint64_t space_of(struct trash *trash, uint64_t id)
{
	Granary__MetaReply *whole = message_open_whole(&granary__meta_reply__descriptor);
	Granary__Inode *inode = NULL;
	uint64_t bytes = 0;

	if (meta_inode(replica_meta(trash->replica), id, &whole->base, &inode) == OK)
		bytes = inode->blocks * 512 * REPLICAS_DEFAULT;
	message_unref(&whole->base);
	return bytes;
}

static bool is_over(const struct choice *choice, const Granary__TrashEntry *entry, uint64_t kept)
{
	return (uint64_t)entry->removed + kept <= choice->time_ns;
}

static bool on_entry(void *arg, uint64_t id, const Granary__TrashEntry *entry)
{
	struct choice *choice = arg;
	struct trash *trash = choice->trash;
	bool due = choice->count < choice->excess || is_over(choice, entry, kept_ns(replica_meta(trash->replica), entry->class_));

	choice->again = choice->count == TRASH_REMOVE_MAX || choice->seen++ == TRASH_LOOK_MAX;
	if (choice->again)
		return false;
	if (!due && trash->wanted_bytes == 0) {
		choice->skipped = true;
		trash->looked = id;
		return is_over(choice, entry, choice->least_ns); /* those that follow were removed later */
	}
	trash->leaves_some = choice->skipped;
	trash->looked = id;
	if (trash->wanted_bytes > 0) {
		uint64_t bytes = space_of(trash, entry->inode);
		trash->wanted_bytes -= bytes < trash->wanted_bytes ? bytes : trash->wanted_bytes;
		trash->inodes[choice->early++] = entry->inode;
		trash->inode_count = choice->early;
		if (trash->wanted_bytes == 0)
			space_was_made(trash);
	}
	trash->ids[choice->count++] = id;
	return true;
}

static void remove_some(struct trash *trash, const struct meta_counts *counts)
{
	struct meta *meta = replica_meta(trash->replica);
	struct choice choice = { .trash = trash,
				 .time_ns = replica_time_ms(trash->replica) * 1000000ull,
				 .least_ns = least_kept_ns(meta) };
	bool for_space = trash->wanted_bytes > 0;

	if (counts->trash > TRASH_ENTRIES_MAX)
		choice.excess = counts->trash - TRASH_ENTRIES_MAX;
	if (for_space || choice.excess > 0 || trash->looked < trash->cursor)
		trash->looked = trash->cursor;
	else if (now_ms(trash) < trash->pass_ms)
		return;
	choice.skipped = trash->looked != trash->cursor;
	if (meta_each_trash(meta, trash->looked, on_entry, &choice)) {
		log_error("trash_unreadable", "cursor=%" PRIu64, trash->cursor);
		return;
	}
	if (!choice.again) {
		trash->looked = trash->cursor;
		trash->pass_ms = choice.seen > TRASH_REMOVE_MAX && choice.count == 0 ? now_ms(trash) + TRASH_PASS_MS : 0;
	}
	if (for_space && trash->wanted_bytes > 0 && choice.count < TRASH_REMOVE_MAX)
		space_was_made(trash); /* all that there was */
	if (choice.count == 0)
		return;
	if (choice.early > 0)
		log_info("trash_removed_for_space", "count=%zu", choice.early);
	trash->change.n_ids = choice.count;
	trash->proposed = true;
	replica_propose(trash->replica, &trash->proposal);
}

static void on_removed(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct trash *trash = container_of(proposal, struct trash, proposal);

	(void)reply;
	trash->proposed = false;
	if (err == OK && !trash->leaves_some)
		trash->cursor = trash->ids[trash->change.n_ids - 1];
	if (err)
		trash->looked = trash->cursor;
}

static void on_timer(void *arg)
{
	struct trash *trash = arg;
	struct meta_counts counts;

	timer_start(&trash->timer, TRASH_MS);
	if (!replica_can_read(trash->replica) || trash->proposed || now_ms(trash) < trash->begin_ms ||
	    servers_are_ahead(trash->servers))
		return;
	meta_counts(replica_meta(trash->replica), &counts);
	look_at_space(trash);
	if (counts.trash == 0) {
		trash->wanted_bytes = 0;
		return;
	}
	remove_some(trash, &counts);
}

void trash_no_space(struct trash *trash)
{
	trash->no_space = true;
}

static void forget(struct trash *trash)
{
	trash->no_space = false;
	trash->pass_ms = 0;
	trash->wanted_bytes = trash->cursor = trash->looked = trash->settle_until_ms = trash->deleted_ms = 0;
	trash->inode_count = 0;
}

void trash_leading(struct trash *trash)
{
	forget(trash);
	trash->begin_ms = now_ms(trash) + COLLECTION_WAIT_MS;
	timer_start(&trash->timer, TRASH_MS);
}

void trash_deposed(struct trash *trash)
{
	timer_stop(&trash->timer);
}

struct trash *trash_open(struct loop *loop, struct replica *replica, struct servers *servers)
{
	struct trash *trash = mem_zero(1, sizeof(*trash));

	trash->loop = loop;
	trash->replica = replica;
	trash->servers = servers;
	timer_init(&trash->timer, loop, on_timer, trash);
	granary__meta_request__init(&trash->request);
	granary__meta_op__init(&trash->op);
	granary__trash_remove__init(&trash->change);
	trash->change.ids = trash->ids;
	trash->op.op_case = GRANARY__META_OP__OP_TRASH_REMOVE;
	trash->op.trash_remove = &trash->change;
	trash->ops[0] = &trash->op;
	trash->request.n_ops = 1;
	trash->request.ops = trash->ops;
	trash->proposal.request = &trash->request;
	trash->proposal.done = on_removed;
	return trash;
}

void trash_close(struct trash *trash)
{
	if (!trash)
		return;
	timer_stop(&trash->timer);
	free(trash);
}
