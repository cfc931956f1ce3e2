#include "master/garbage.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

#define STEP_DELAY_MS 5u

/* Confirmations of one step on their way through the log. */
struct confirm {
	struct proposal proposal;
	struct garbage *garbage;
	Granary__MetaRequest request;
	size_t count;
	Granary__MetaOp ops[COMMANDS_PER_PUSH_MAX], *op_list[COMMANDS_PER_PUSH_MAX];
	Granary__GarbageDone done[COMMANDS_PER_PUSH_MAX];
};

/* Servers that wait for a full pass. */
struct cleaning {
	uint64_t server;
	uint64_t pass; /* the first one that counts */
	bool failed;   /* something was not delivered in this pass */
};

struct garbage {
	struct loop *loop;
	struct replica *replica;
	struct servers *servers;
	struct commands *commands;
	struct timer step;
	struct timer rescan;
	struct defer flush;
	bool leading;
	uint64_t cursor;  /* everything up to here has been looked at */
	uint64_t pass;	  /* of full passes, the one under way or the last */
	bool pass_full;	  /* one is under way */
	bool pass_wanted; /* another is to begin */
	bool more;	  /* there may be records after the cursor */
	size_t pending;	  /* commands and confirmations under way */
	struct confirm *confirm; /* being filled */
	struct cleaning *cleanings;
	size_t cleaning_count;
};

static void kick(struct garbage *garbage)
{
	if (garbage->leading && garbage->pending == 0 && !timer_is_running(&garbage->step))
		timer_start(&garbage->step, STEP_DELAY_MS);
}

static struct cleaning *cleaning_find(const struct garbage *garbage, uint64_t server)
{
	for (size_t i = 0; i < garbage->cleaning_count; i++) {
		if (garbage->cleanings[i].server == server)
			return &garbage->cleanings[i];
	}
	return NULL;
}

static void not_delivered(struct garbage *garbage, uint64_t server)
{
	struct cleaning *cleaning = cleaning_find(garbage, server);

	if (cleaning)
		cleaning->failed = true;
}

/* ---- confirmations */

static void on_confirmed(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct confirm *confirm = container_of(proposal, struct confirm, proposal);
	struct garbage *garbage = confirm->garbage;

	(void)reply;
	for (size_t i = 0; err && i < confirm->count; i++)
		not_delivered(garbage, confirm->done[i].server);
	garbage->pending -= confirm->count;
	free(confirm);
	kick(garbage);
}

static void on_flush(void *arg)
{
	struct garbage *garbage = arg;
	struct confirm *confirm = garbage->confirm;

	garbage->confirm = NULL;
	if (confirm) {
		confirm->request.n_ops = confirm->count;
		replica_propose(garbage->replica, &confirm->proposal);
	}
}

static void confirm_add(struct garbage *garbage, uint64_t id, uint64_t server)
{
	struct confirm *confirm = garbage->confirm;

	if (!confirm) {
		confirm = garbage->confirm = mem_zero(1, sizeof(*confirm));
		confirm->garbage = garbage;
		confirm->proposal.request = &confirm->request;
		confirm->proposal.done = on_confirmed;
		granary__meta_request__init(&confirm->request);
		confirm->request.ops = confirm->op_list;
		defer_post(&garbage->flush);
	}
	size_t i = confirm->count++;
	granary__garbage_done__init(&confirm->done[i]);
	confirm->done[i].garbage = id;
	confirm->done[i].server = server;
	granary__meta_op__init(&confirm->ops[i]);
	confirm->ops[i].op_case = GRANARY__META_OP__OP_GARBAGE_DONE;
	confirm->ops[i].garbage_done = &confirm->done[i];
	confirm->op_list[i] = &confirm->ops[i];
	if (confirm->count == COMMANDS_PER_PUSH_MAX)
		on_flush(garbage);
}

void garbage_command_done(struct garbage *garbage, uint64_t server, const Granary__ChunkCommand *command, enum err err)
{
	if (err == OK || err == ERR_NO_CHUNK) {
		confirm_add(garbage, command->garbage, server);
		return;
	}
	not_delivered(garbage, server);
	garbage->pending--;
	kick(garbage);
}

/* ---- passes */

struct step {
	struct garbage *garbage;
	size_t seen;
};

static bool on_record(void *arg, uint64_t id, const Granary__Garbage *record)
{
	struct step *step = arg;
	struct garbage *garbage = step->garbage;

	for (size_t i = 0; i < record->n_servers; i++) {
		Granary__ChunkCommand *command =
			record->version ? command_drop_copy(id, record->chunk, record->version, record->retire) :
					  command_delete(id, record->chunk, record->slots, record->n_slots);
		if (commands_add(garbage->commands, record->servers[i], command))
			garbage->pending++;
		else
			not_delivered(garbage, record->servers[i]);
	}
	garbage->cursor = id;
	return ++step->seen < GARBAGE_SCAN_MAX;
}

/* A full pass has ended: who was served by it in full may have a lease again. */
static void pass_end(struct garbage *garbage)
{
	uint64_t now_ms = loop_now_us(garbage->loop) / 1000;

	garbage->pass_full = false;
	for (size_t i = 0; i < garbage->cleaning_count;) {
		struct cleaning *cleaning = &garbage->cleanings[i];
		struct server *server = servers_find(garbage->servers, cleaning->server);
		bool gone = !server || !server->connection || !server->cleaning;
		if (!gone && (cleaning->pass > garbage->pass || cleaning->failed || server->drops > 0)) {
			/* What failed is tried again with the next rescan. */
			cleaning->failed = false;
			if (cleaning->pass > garbage->pass)
				garbage->pass_wanted = true;
			i++;
			continue;
		}
		if (!gone)
			servers_cleaned(server, now_ms);
		garbage->cleanings[i] = garbage->cleanings[--garbage->cleaning_count];
	}
}

static void on_step(void *arg)
{
	struct garbage *garbage = arg;
	struct step step = { .garbage = garbage };

	if (!garbage->leading || garbage->pending > 0)
		return;
	if (garbage->pass_full && !garbage->more)
		pass_end(garbage);
	if (garbage->pass_wanted && !garbage->pass_full) {
		garbage->pass_wanted = false;
		garbage->pass_full = true;
		garbage->pass++;
		garbage->cursor = 0;
		garbage->more = true;
	}
	if (!garbage->more)
		return;
	garbage->more = false;
	if (meta_each_garbage(replica_meta(garbage->replica), garbage->cursor, on_record, &step)) {
		log_error("garbage_unreadable", "cursor=%" PRIu64, garbage->cursor);
		return;
	}
	garbage->more = garbage->more || step.seen == GARBAGE_SCAN_MAX;
	if (garbage->pending == 0 && (garbage->more || garbage->pass_full || garbage->pass_wanted))
		kick(garbage);
}

static void on_rescan(void *arg)
{
	struct garbage *garbage = arg;
	struct meta_counts counts;

	timer_start(&garbage->rescan, GARBAGE_RESCAN_MS);
	meta_counts(replica_meta(garbage->replica), &counts);
	if (counts.garbage == 0 && garbage->cleaning_count == 0)
		return;
	garbage->pass_wanted = true;
	kick(garbage);
}

void garbage_added(struct garbage *garbage)
{
	garbage->more = true;
	kick(garbage);
}

void garbage_clean(struct garbage *garbage, uint64_t server)
{
	struct cleaning *cleaning = cleaning_find(garbage, server);

	if (!cleaning) {
		check(garbage->cleaning_count < SERVERS_MAX);
		cleaning = &garbage->cleanings[garbage->cleaning_count++];
	}
	*cleaning = (struct cleaning){ .server = server, .pass = garbage->pass + 1 };
	garbage->pass_wanted = true;
	kick(garbage);
}

void garbage_leading(struct garbage *garbage)
{
	garbage->leading = true;
	garbage->cleaning_count = 0;
	garbage->pass_wanted = true;
	timer_start(&garbage->rescan, GARBAGE_RESCAN_MS);
	kick(garbage);
}

void garbage_deposed(struct garbage *garbage)
{
	garbage->leading = false;
	garbage->pass_full = false;
	timer_stop(&garbage->step);
	timer_stop(&garbage->rescan);
}

struct garbage *garbage_open(struct loop *loop, struct replica *replica, struct servers *servers)
{
	struct garbage *garbage = mem_zero(1, sizeof(*garbage));

	garbage->loop = loop;
	garbage->replica = replica;
	garbage->servers = servers;
	garbage->cleanings = mem_alloc(SERVERS_MAX * sizeof(*garbage->cleanings));
	timer_init(&garbage->step, loop, on_step, garbage);
	timer_init(&garbage->rescan, loop, on_rescan, garbage);
	defer_init(&garbage->flush, loop, on_flush, garbage);
	return garbage;
}

void garbage_set_commands(struct garbage *garbage, struct commands *commands)
{
	garbage->commands = commands;
}

void garbage_close(struct garbage *garbage)
{
	if (!garbage)
		return;
	timer_stop(&garbage->step);
	timer_stop(&garbage->rescan);
	defer_cancel(&garbage->flush);
	free(garbage->confirm);
	free(garbage->cleanings);
	free(garbage);
}
