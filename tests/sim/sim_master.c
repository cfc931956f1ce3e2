/* Three whole masters under faults, and clients that create, remove and look up names, retry and cache.
 *
 * Faults: masters killed and started again, power cuts (all at once, too), pauses, one-way and two-way cuts, connections that
 * break, wall clocks that jump, disks that are nearly full. Checked at each step:
 *   - each change is done exactly once: a create that is retried through failovers never says that the name exists, a
 *     removal never that there is none;
 *   - reads are linearizable: a name acknowledged before a query was sent is found, with its inode; one removed is not;
 *   - the disks of masters and their membership (master_disks.h): all is whole again in the end;
 *   - caches: when a change is acknowledged no other client still believes the opposite under a running lease.
 * At the end: all that was acknowledged is there, nothing removed is, all masters hold equal state.
 *
 *	sim_master [SEED [COUNT]] ...	see runner.h */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/file.h"
#include "common/sys/rpc.h"
#include "master/replica.h"
#include "tests/sim/master_disks.h"
#include "tests/sim/runner.h"

#define CLIENTS 3u
#define SLOTS 4u
#define NAMES_MAX 4000u
#define FAULTS_US 25000000u
#define CALM_US 60000000u
#define SEEDS 20u

struct world;

enum fate { FREE, CREATING, PRESENT, REMOVING, ABSENT, UNKNOWN };

struct name {
	char text[12];
	enum fate fate;
	unsigned owner;
	uint64_t inode;
};

/* What a client believes of a name. */
struct belief {
	uint64_t until_us; /* its own clock; 0: nothing */
	bool there;
};

struct client;

struct slot {
	struct client *client;
	unsigned number;
	uint64_t sequence;
	struct name *name; /* NULL: idle */
	bool is_query;
	bool caught; /* a query whose answer a concurrent change may decide either way */
	enum fate at_start;
	uint64_t sent_us;
	unsigned attempts;
	struct timer timer;
};

struct client {
	struct world *world;
	struct sim_host *host;
	struct loop *loop;
	struct rpc *rpc;
	struct rpc_peer *peers[MASTERS];
	unsigned index, leader;
	uint64_t session, term;
	bool full;
	struct timer keepalive;
	struct slot slots[SLOTS];
	struct belief beliefs[NAMES_MAX];
	struct rpc_request *recall;
	struct timer recall_timer;
};

struct world {
	struct sim *sim;
	struct member members[MASTERS];
	struct disks disks;
	struct client clients[CLIENTS];
	struct name names[NAMES_MAX];
	unsigned name_count;
	bool quiet;
	unsigned created, removed, found, recalls, refused, starts, lost_sessions;
};

static struct rng *rng(const struct world *world)
{
	return sim_rng(world->sim);
}

/* ---- clients: what they believe */

static void believe(struct client *client, const struct name *name, bool there, uint32_t lease_ms, uint64_t sent_us)
{
	struct belief *belief = &client->beliefs[name - client->world->names];

	sim_trace(client->world->sim, "client %u: %s there=%d lease=%u", client->index, name->text, there, lease_ms);
	belief->there = there;
	belief->until_us = lease_ms ? sent_us + lease_ms * 1000ull : 0;
}

/* A change has been acknowledged to `changer`. */
static void check_beliefs(struct world *world, const struct name *name, const struct client *changer, bool there)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *client = &world->clients[i];
		const struct belief *belief = &client->beliefs[name - world->names];
		if (client == changer || belief->until_us <= loop_now_us(client->loop) || belief->there == there)
			continue;
		sim_trace(world->sim, "client %u believes %s of %s for %" PRIu64 " us", i, there ? "absence" : "presence", name->text,
			  belief->until_us - loop_now_us(client->loop));
		sim_print_trace(world->sim, stderr);
		check(false);
	}
}

static void recall_answer(void *arg)
{
	struct client *client = arg;
	Granary__Empty empty = GRANARY__EMPTY__INIT;

	if (client->recall)
		rpc_reply(client->recall, &empty.base);
	client->recall = NULL;
}

static void on_recall(void *arg, struct rpc_request *request)
{
	struct client *client = arg;
	const Granary__Invalidate *invalidate = (const Granary__Invalidate *)request->message;

	check(request->type == MESSAGE_INVALIDATE);
	client->world->recalls++;
	for (size_t i = 0; i < invalidate->n_items; i++) {
		struct slice name = message_bytes(invalidate->items[i]->name);
		if (name.size == 0)
			continue;
		char text[12] = { 0 };
		check(name.size < sizeof(text));
		memcpy(text, name.bytes, name.size);
		unsigned number = (unsigned)strtoul(text + 1, NULL, 16);
		check(number < NAMES_MAX);
		client->beliefs[number].until_us = 0;
		sim_trace(client->world->sim, "client %u: recall n%x", client->index, number);
	}
	/* Some take their time; the next recall pushes the one before out. */
	recall_answer(client);
	client->recall = request;
	timer_start(&client->recall_timer, rng_below(rng(client->world), 20) == 0 ? 3000 : rng_below(rng(client->world), 20));
}

/* ---- clients: requests */

static void slot_send(struct slot *slot);
static void client_open(struct client *client);

static void on_slot_timer(void *arg)
{
	slot_send(arg);
}

static void find_leader(struct client *client, const struct rpc_result *result)
{
	client->leader = leader_after(client->leader, result);
}

static void change_done(struct slot *slot, const Granary__MetaResult *result)
{
	struct name *name = slot->name;
	struct client *client = slot->client;
	bool there = name->fate == CREATING;

	if (result->error)
		fprintf(stderr, "%s %s: error %u\n", there ? "create" : "remove", name->text, result->error);
	check(result->error == OK);
	if (there)
		name->inode = result->inode;
	name->fate = there ? PRESENT : ABSENT;
	client->world->created += there;
	client->world->removed += !there;
	check_beliefs(client->world, name, client, there);
	believe(client, name, there, result->lease_ms, slot->sent_us);
}

static void query_done(struct slot *slot, const Granary__MetaResult *result)
{
	const struct name *name = slot->name;
	bool found = result->error == OK;

	check(found || result->error == ERR_NOT_FOUND);
	if (slot->at_start == name->fate && !slot->caught) {
		if (name->fate == PRESENT)
			check(found && result->inode == name->inode);
		if (name->fate == ABSENT || name->fate == FREE)
			check(!found);
	}
	slot->client->world->found += found;
	believe(slot->client, name, found, result->lease_ms, slot->sent_us);
}

static void session_lost(struct client *client)
{
	client->world->lost_sessions += client->session != 0;
	client->session = 0;
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = &client->slots[i];
		if (slot->name && !slot->is_query)
			slot->name->fate = UNKNOWN;
		slot->name = NULL;
		slot->sequence = 0;
	}
	client_open(client);
}

struct call {
	struct slot *slot;
	uint64_t session, sequence;
	unsigned attempt;
};

static void on_answer(void *arg, const struct rpc_result *result)
{
	struct call call = *(struct call *)arg;
	struct slot *slot = call.slot;
	struct client *client = slot->client;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)result->reply;

	free(arg);
	/* Of a request that was given up. */
	if (call.session != client->session || call.attempt != slot->attempts || !slot->name)
		return;
	if (result->err == ERR_NO_SESSION) {
		session_lost(client);
		return;
	}
	if (result->err) {
		check(result->err != ERR_INVALID && result->err != ERR_PROTOCOL);
		/* Removals go on. */
		check(result->err != ERR_NO_SPACE || (!slot->is_query && slot->name->fate == CREATING));
		if (result->err == ERR_NO_SPACE)
			client->world->refused++;
		else
			find_leader(client, result);
		timer_start(&slot->timer, 5 + rng_below(rng(client->world), 50));
		return;
	}
	check(reply->n_results == 1);
	if (slot->is_query)
		query_done(slot, reply->results[0]);
	else
		change_done(slot, reply->results[0]);
	slot->name = NULL;
	timer_start(&slot->timer, rng_below(rng(client->world), 20));
}

static void slot_choose(struct slot *slot)
{
	struct world *world = slot->client->world;
	uint64_t dice = rng_below(rng(world), 10);

	slot->is_query = true;
	slot->caught = false;
	if ((dice < 4 || world->name_count == 0) && world->name_count < NAMES_MAX) {
		slot->name = &world->names[world->name_count];
		snprintf(slot->name->text, sizeof(slot->name->text), "n%x", world->name_count++);
		slot->name->owner = slot->client->index;
		slot->name->fate = CREATING;
		slot->is_query = false;
	} else {
		slot->name = &world->names[rng_below(rng(world), world->name_count)];
		if (dice < 6 && slot->name->fate == PRESENT) {
			slot->name->fate = REMOVING;
			slot->is_query = false;
		}
	}
	slot->at_start = slot->name->fate;
	if (slot->is_query)
		return;
	slot->sequence++;
	/* Queries under way see either. */
	for (unsigned i = 0; i < CLIENTS * SLOTS; i++) {
		struct slot *other = &world->clients[i / SLOTS].slots[i % SLOTS];
		if (other->name == slot->name && other != slot)
			other->caught = true;
	}
	/* What it changes itself it does not believe meanwhile. */
	slot->client->beliefs[slot->name - world->names].until_us = 0;
}

static void slot_send(struct slot *slot)
{
	struct client *client = slot->client;
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[] = { &op };
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
	Granary__Create create = GRANARY__CREATE__INIT;
	Granary__Unlink remove = GRANARY__UNLINK__INIT;

	if (!client->session || (!slot->name && client->world->quiet))
		return;
	if (!slot->name)
		slot_choose(slot);
	lookup.parent = create.parent = remove.parent = 1;
	lookup.name = create.name = remove.name = message_borrow(slice_text(slot->name->text));
	create.mode = 0100644;
	create.exclusive = true;
	if (slot->is_query) {
		op.op_case = GRANARY__META_OP__OP_LOOKUP;
		op.lookup = &lookup;
	} else if (slot->name->fate == CREATING) {
		op.op_case = GRANARY__META_OP__OP_CREATE;
		op.create = &create;
	} else {
		op.op_case = GRANARY__META_OP__OP_UNLINK;
		op.unlink = &remove;
	}
	request.session = client->session;
	request.slot = slot->number;
	request.sequence = slot->is_query ? 0 : slot->sequence;
	request.n_ops = 1;
	request.ops = ops;
	slot->sent_us = loop_now_us(client->loop);
	if (!slot->is_query)
		sim_trace(client->world->sim, "client %u: session=%" PRIx64 " slot=%u sequence=%" PRIu64 " name=%s to m%u", client->index,
			  client->session, slot->number, slot->sequence, slot->name->text, client->leader + 1);
	struct call *call = mem_zero(1, sizeof(*call));
	*call = (struct call){ .slot = slot, .session = client->session, .attempt = ++slot->attempts };
	rpc_peer_call(client->peers[client->leader], MESSAGE_META, &request.base, NULL, 2500, on_answer, call);
}

/* ---- clients: sessions */

static void on_session(void *arg, const struct rpc_result *result)
{
	struct client *client = arg;
	const Granary__SessionInfo *info = (const Granary__SessionInfo *)result->reply;

	if (result->err) {
		find_leader(client, result);
		timer_start(&client->keepalive, 50);
		return;
	}
	client->session = info->session;
	client->term = info->term;
	for (unsigned i = 0; i < SLOTS; i++)
		timer_start(&client->slots[i].timer, rng_below(rng(client->world), 50));
	timer_start(&client->keepalive, SESSION_KEEPALIVE_MS);
}

static void client_open(struct client *client)
{
	Granary__SessionOpen message = GRANARY__SESSION_OPEN__INIT;

	message.client = "sim";
	rpc_peer_call(client->peers[client->leader], MESSAGE_SESSION_OPEN, &message.base, NULL, 2500, on_session, client);
}

static void on_kept(void *arg, const struct rpc_result *result)
{
	struct client *client = arg;
	const Granary__SessionInfo *info = (const Granary__SessionInfo *)result->reply;

	timer_start(&client->keepalive, result->err ? 100 : SESSION_KEEPALIVE_MS);
	if (result->err == ERR_NO_SESSION && client->session)
		session_lost(client);
	else if (result->err)
		find_leader(client, result);
	else
		client->full = info->send_full;
}

static void on_keepalive(void *arg)
{
	struct client *client = arg;
	Granary__SessionKeepalive message = GRANARY__SESSION_KEEPALIVE__INIT;

	if (!client->session) {
		client_open(client);
		return;
	}
	message.session = client->session;
	message.full = client->full;
	rpc_peer_call(client->peers[client->leader], MESSAGE_SESSION_KEEPALIVE, &message.base, NULL, 2500, on_kept, client);
}

static const struct rpc_service client_service = { .serve = on_recall };
static const struct rpc_identity client_identity = { .role = RPC_CLIENT, .id = 9 };

static void client_start(struct world *world, unsigned index)
{
	struct client *client = &world->clients[index];
	char name[4] = { 'c', (char)('0' + index), 0 };

	client->world = world;
	client->index = index;
	client->host = sim_host_open(world->sim, name);
	client->loop = sim_process_open(client->host, name);
	check(rpc_open(client->loop, &client_identity, &client_service, client, &client->rpc) == OK);
	for (unsigned i = 0; i < MASTERS; i++)
		client->peers[i] = rpc_peer_open(client->rpc, master_addresses[i]);
	timer_init(&client->keepalive, client->loop, on_keepalive, client);
	timer_init(&client->recall_timer, client->loop, recall_answer, client);
	for (unsigned i = 0; i < SLOTS; i++) {
		client->slots[i] = (struct slot){ .client = client, .number = i };
		timer_init(&client->slots[i].timer, client->loop, on_slot_timer, &client->slots[i]);
	}
	timer_start(&client->keepalive, 1);
}

static void client_stop(struct client *client)
{
	timer_stop(&client->keepalive);
	timer_stop(&client->recall_timer);
	recall_answer(client);
	client->session = 0;
	rpc_close(client->rpc);
	for (unsigned i = 0; i < SLOTS; i++)
		timer_stop(&client->slots[i].timer);
	timer_stop(&client->keepalive);
	loop_close(client->loop);
}

/* ---- faults */

static void stop_for_a_while(struct world *world, struct member *member, bool power)
{
	if (!member->master)
		return;
	member_stop(member, power);
	sim_after(world->sim, 50000 + rng_below(rng(world), 2000000), member_restart, member);
}

static void on_heal(void *arg)
{
	sim_heal(((struct world *)arg)->sim);
}

static void on_room(void *arg)
{
	sim_host_set_disk(((struct member *)arg)->host, &(struct sim_disk_faults){ 0 });
}

/* So far that there is room for a segment of the log, but less than is to be kept free. */
static void fill_disk(struct world *world, struct member *member)
{
	struct disk_space space;

	if (!member->loop)
		return;
	check(disk_space(member->loop, "data", &space) == OK);
	sim_host_set_disk(member->host, &(struct sim_disk_faults){
		.space_bytes = space.bytes_total - space.bytes_free + DISK_RESERVED_BYTES - 1 - rng_below(rng(world), MIB) });
	sim_after(world->sim, 1000000 + rng_below(rng(world), 3000000), on_room, member);
}

/* One, whose leadership others take over, or all. */
static void fill_disks(struct world *world, struct member *member)
{
	if (rng_below(rng(world), 2) == 0) {
		fill_disk(world, member);
		return;
	}
	for (unsigned i = 0; i < MASTERS; i++)
		fill_disk(world, &world->members[i]);
}

static void on_fault(void *arg)
{
	struct world *world = arg;
	struct member *member = &world->members[rng_below(rng(world), MASTERS)];
	struct sim_host *other = world->members[rng_below(rng(world), MASTERS)].host;

	if (world->quiet)
		return;
	if (rng_below(rng(world), 3) == 0)
		other = world->clients[rng_below(rng(world), CLIENTS)].host;
	if (rng_below(rng(world), 3) == 0)
		disks_fault(&world->disks);
	switch (rng_below(rng(world), 7)) {
	case 0:
	case 1:
		stop_for_a_while(world, member, rng_below(rng(world), 2) == 0);
		break;
	case 2:
		if (rng_below(rng(world), 3) == 0) {
			for (unsigned i = 0; i < MASTERS; i++)
				stop_for_a_while(world, &world->members[i], true);
		}
		break;
	case 3:
		if (member->loop) {
			sim_process_pause(member->loop, true);
			sim_after(world->sim, 100000 + rng_below(rng(world), 3000000), member_resume, member);
		}
		break;
	case 4:
		if (rng_below(rng(world), 3) == 0) {
			fill_disks(world, member);
			break;
		}
		sim_host_set_clock(member->host, (int64_t)rng_below(rng(world), 7200000) - 3600000, 0);
		break;
	default:
		sim_cut(world->sim, member->host, other, true);
		if (rng_below(rng(world), 2) == 0)
			sim_cut(world->sim, other, member->host, true);
		sim_after(world->sim, 100000 + rng_below(rng(world), 2500000), on_heal, world);
		break;
	}
	sim_after(world->sim, 200000 + rng_below(rng(world), 1500000), on_fault, world);
}

/* ---- the run */

static bool all_answered(void *arg)
{
	const struct world *world = arg;

	for (unsigned i = 0; i < CLIENTS * SLOTS; i++) {
		if (world->clients[i / SLOTS].slots[i % SLOTS].name)
			return false;
	}
	return true;
}

static bool all_applied(void *arg)
{
	const struct world *world = arg;
	uint64_t applied = 0;

	for (unsigned i = 0; i < MASTERS; i++) {
		struct raft_view view;
		if (!world->members[i].master)
			return false;
		replica_view(master_replica(world->members[i].master), &view);
		if (i > 0 && view.applied != applied)
			return false;
		applied = view.applied;
		if (view.applied != view.last)
			return false;
	}
	return true;
}

static void check_end(struct world *world)
{
	uint32_t digests[MASTERS];

	for (unsigned i = 0; i < MASTERS; i++) {
		struct meta *meta = replica_meta(master_replica(world->members[i].master));
		check(meta_digest(meta, &digests[i]) == OK);
		check(digests[i] == digests[0]);
		for (unsigned k = 0; k < world->name_count; k++) {
			const struct name *name = &world->names[k];
			Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
			Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[] = { &op };
			Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
			Granary__MetaReply *reply;
			lookup.parent = 1;
			lookup.name = message_borrow(slice_text(name->text));
			op.op_case = GRANARY__META_OP__OP_LOOKUP;
			op.lookup = &lookup;
			request.n_ops = 1;
			request.ops = ops;
			check(meta_query(meta, &request, &reply) == OK);
			if (name->fate == PRESENT)
				check(reply->results[0]->error == OK && reply->results[0]->inode == name->inode);
			if (name->fate == ABSENT)
				check(reply->results[0]->error == ERR_NOT_FOUND);
			check(name->fate != CREATING && name->fate != REMOVING);
			message_unref(&reply->base);
		}
	}
}

static uint64_t run(uint64_t seed, uint64_t *sum)
{
	struct world *world = mem_zero(1, sizeof(*world));

	world->sim = sim_open(&(struct sim_options){ .seed = seed, .break_per_million = 200, .verbose = getenv("SIM_VERBOSE") != NULL });
	masters_open(world->members, world->sim);
	disks_open(&world->disks, world->sim, world->members);
	for (unsigned i = 0; i < CLIENTS; i++)
		client_start(world, i);
	sim_after(world->sim, 1000000, on_fault, world);
	sim_run(world->sim, FAULTS_US, NULL, NULL);
	/* The faults end: everything is answered, and all masters agree. */
	world->quiet = true;
	sim_heal(world->sim);
	for (unsigned i = 0; i < MASTERS; i++) {
		member_resume(&world->members[i]);
		member_restart(&world->members[i]);
		on_room(&world->members[i]);
	}
	check(sim_run(world->sim, CALM_US, disks_are_whole, &world->disks));
	check(sim_run(world->sim, CALM_US, all_answered, world));
	check(sim_run(world->sim, CALM_US, all_applied, world));
	check_end(world);
	for (unsigned i = 0; i < CLIENTS; i++)
		client_stop(&world->clients[i]);
	disks_close(&world->disks);
	masters_stop(world->members);
	unsigned starts = 0;
	for (unsigned i = 0; i < MASTERS; i++)
		starts += world->members[i].starts;
	const uint64_t seen[] = { world->created, world->removed, world->found, world->recalls, world->refused, starts, world->lost_sessions, world->disks.replaced, world->disks.damaged, world->disks.removed, world->disks.transferred,
				  sim_steps(world->sim), sim_now_us(world->sim) / 1000 };
	runner_add(sum, seen, sizeof seen / sizeof seen[0]);
	uint64_t digest = sim_trace_digest(world->sim) ^ world->created ^ (uint64_t)world->found << 32 ^ sim_steps(world->sim);
	sim_close(world->sim);
	free(world);
	return digest;
}

static const char *const counts[] = { "created", "removed", "found", "recalls", "refused", "starts", "sessions lost", "disks replaced",
				      "disks damaged", "members removed", "leaders transferred", RUNNER_STEPS, RUNNER_MS, NULL };
static const uint64_t least[] = { 1001, 101, 0, 101, 101, SEEDS * MASTERS + 1, 0, 4, 4, 4, 4, 0, 0 };

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_master", .standard = SEEDS, .run = run, .counts = counts, .least = least
	};
	return runner_main(&runner, argc, argv);
}
