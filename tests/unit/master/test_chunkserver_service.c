/* Real masters, chunkservers played by the test: registration, leases, failures, garbage, coming back. */
#include "tests/unit/master/master_fixture.h"

#define REGULAR (0100000u | 0644u)
#define FAKES 3
#define GRANTED_MS LEASE_GRANTED_MS(CHUNKSERVER_LEASE_MS)

struct cluster;

struct fake {
	struct cluster *cluster;
	struct rpc *rpc;
	struct rpc_identity identity;
	struct rpc_peer *peer; /* the leader */
	char address[32], host[16];
	const char *location; /* NULL: none */
	uint64_t incarnation;
	unsigned deletes, configures;
	uint64_t deleted, retired; /* the last chunks */
	uint64_t configured;	/* the last version */
	bool refuses;		/* answers commands with an error */
	uint64_t bytes_total, bytes_free; /* told by heartbeats; 0: much */
};

struct cluster {
	struct fixture fixture;
	struct fake fakes[FAKES];
};

static void on_commands(void *arg, struct rpc_request *request)
{
	struct fake *fake = arg;
	const Granary__ChunkCommands *commands = (const Granary__ChunkCommands *)request->message;
	Granary__ChunkCommandsReply reply = GRANARY__CHUNK_COMMANDS_REPLY__INIT;
	uint32_t errors[COMMANDS_PER_PUSH_MAX] = { 0 };

	assert_int_equal(request->type, MESSAGE_CHUNK_COMMANDS);
	assert_true(commands->n_commands <= COMMANDS_PER_PUSH_MAX);
	for (size_t i = 0; i < commands->n_commands; i++) {
		if (fake->refuses) {
			errors[i] = ERR_IO;
		} else if (commands->commands[i]->delete_chunk) {
			fake->deletes++;
			fake->deleted = commands->commands[i]->chunk;
		} else if (commands->commands[i]->retire) {
			fake->retired = commands->commands[i]->chunk;
		} else if (commands->commands[i]->configure) {
			fake->configures++;
			fake->configured = commands->commands[i]->configure->version;
		}
	}
	reply.n_errors = commands->n_commands;
	reply.errors = errors;
	rpc_reply(request, &reply.base);
}

static const struct rpc_service fake_service = { .serve = on_commands };

static ProtobufCMessage *fake_call(struct fake *fake, enum message_type type, const ProtobufCMessage *message)
{
	struct answer answer = { 0 };

	rpc_peer_call(fake->peer, type, message, NULL, 3000, fixture_answered, &answer);
	fixture_wait(&fake->cluster->fixture, &answer.done);
	assert_int_equal(answer.err, OK);
	return answer.reply;
}

static uint32_t fake_register(struct fake *fake)
{
	Granary__RegisterRequest message = GRANARY__REGISTER_REQUEST__INIT;

	message.server = fake->identity.id;
	message.address = fake->address;
	message.host = fake->host;
	message.location = (char *)(uintptr_t)(fake->location ? fake->location : "");
	message.incarnation = ++fake->incarnation;
	message.bytes_total = message.bytes_free = 1ull << 40;
	Granary__RegisterReply *reply = (Granary__RegisterReply *)fake_call(fake, MESSAGE_REGISTER, &message.base);
	uint32_t lease_ms = reply->lease_ms;
	assert_int_not_equal(reply->cluster, 0);
	message_free(&reply->base);
	return lease_ms;
}

static uint32_t fake_heartbeat(struct fake *fake, bool *again)
{
	Granary__Heartbeat message = GRANARY__HEARTBEAT__INIT;

	message.server = fake->identity.id;
	message.incarnation = fake->incarnation;
	message.bytes_total = fake->bytes_total ? fake->bytes_total : 1ull << 40;
	message.bytes_free = fake->bytes_total ? fake->bytes_free : 1ull << 40;
	Granary__HeartbeatReply *reply = (Granary__HeartbeatReply *)fake_call(fake, MESSAGE_HEARTBEAT, &message.base);
	uint32_t lease_ms = reply->lease_ms;
	*again = reply->register_again;
	message_free(&reply->base);
	return lease_ms;
}

/* Heartbeats until there is a lease. */
static void fake_lease(struct fake *fake)
{
	bool again;

	for (int i = 0; i < 1000; i++) {
		if (fake_heartbeat(fake, &again) > 0)
			return;
		assert_false(again);
		fixture_run(&fake->cluster->fixture, 5, NULL);
	}
	fail_msg("no lease");
}

static void fake_connect(struct fake *fake)
{
	fake->peer = rpc_peer_open(fake->rpc, fake->cluster->fixture.addresses[fake->cluster->fixture.leader]);
}

static void fake_disconnect(struct fake *fake)
{
	rpc_peer_close(fake->peer);
	fake->peer = NULL;
}

static void cluster_open(struct cluster *cluster)
{
	fixture_open(&cluster->fixture, NULL, NULL);
	message_free(&fixture_status(&cluster->fixture)->base); /* finds the leader */
	for (int i = 0; i < FAKES; i++) {
		struct fake *fake = &cluster->fakes[i];
		*fake = (struct fake){ .cluster = cluster, .identity = { .role = RPC_CHUNKSERVER, .id = 100 + (uint64_t)i } };
		snprintf(fake->address, sizeof(fake->address), "127.0.0.1:%d", 10 + i);
		snprintf(fake->host, sizeof(fake->host), "h%d", i);
		assert_int_equal(rpc_open(cluster->fixture.loop, &fake->identity, &fake_service, fake, &fake->rpc), OK);
		fake_connect(fake);
		/* Nothing to be cleaned: a lease at once. */
		assert_int_equal(fake_register(fake), GRANTED_MS);
	}
}

static void cluster_close(struct cluster *cluster)
{
	for (int i = 0; i < FAKES; i++) {
		if (cluster->fakes[i].peer)
			fake_disconnect(&cluster->fakes[i]);
		rpc_close(cluster->fakes[i].rpc);
	}
	fixture_close(&cluster->fixture);
}

static struct fake *fake_of(struct cluster *cluster, uint64_t server)
{
	assert_true(server >= 100 && server < 100 + FAKES);
	return &cluster->fakes[server - 100];
}

static Granary__MetaReply *allocate(struct cluster *cluster, uint64_t session, uint64_t sequence, uint64_t inode)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__AllocateChunk change = GRANARY__ALLOCATE_CHUNK__INIT;

	change.inode = inode;
	op.op_case = GRANARY__META_OP__OP_ALLOCATE_CHUNK;
	op.allocate_chunk = &change;
	return fixture_meta(&cluster->fixture, session, sequence, &op);
}

static void unlink_file(struct cluster *cluster, uint64_t session, uint64_t sequence, const char *name)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Unlink change = GRANARY__UNLINK__INIT;

	change.parent = 1;
	change.name = fixture_name(name);
	op.op_case = GRANARY__META_OP__OP_UNLINK;
	op.unlink = &change;
	Granary__MetaReply *reply = fixture_meta(&cluster->fixture, session, sequence, &op);
	assert_int_equal(reply->results[0]->error, OK);
	message_free(&reply->base);
}

static enum err report(struct cluster *cluster, uint64_t chunk, uint64_t version, uint64_t server, Granary__ChunkLocation **out)
{
	Granary__ChunkFailure message = GRANARY__CHUNK_FAILURE__INIT;
	struct answer answer = { 0 };

	message.chunk = chunk;
	message.version = version;
	message.server = server;
	rpc_peer_call(cluster->fixture.peers[cluster->fixture.leader], MESSAGE_CHUNK_FAILURE, &message.base, NULL, 3000,
		      fixture_answered, &answer);
	fixture_wait(&cluster->fixture, &answer.done);
	*out = (Granary__ChunkLocation *)answer.reply;
	return answer.err;
}

static void test_allocation_and_failure(void **state)
{
	struct cluster cluster;
	uint64_t inode;
	bool again;
	Granary__ChunkLocation *location;

	(void)state;
	cluster_open(&cluster);
	uint64_t session = fixture_session(&cluster.fixture);
	assert_int_equal(fixture_create(&cluster.fixture, session, 1, "f", REGULAR, &inode), OK);
	Granary__MetaReply *reply = allocate(&cluster, session, 2, inode);
	assert_int_equal(reply->results[0]->error, OK);
	assert_int_equal(reply->results[0]->n_chunks, 1);
	uint64_t chunk = reply->results[0]->chunks[0]->chunk;
	assert_int_equal(reply->results[0]->chunks[0]->n_replicas, 3);
	assert_int_equal(reply->results[0]->chunks[0]->version, 1);
	uint64_t head = reply->results[0]->chunks[0]->replicas[0]->server;
	uint64_t tail = reply->results[0]->chunks[0]->replicas[2]->server;
	assert_string_equal(reply->results[0]->chunks[0]->replicas[0]->address, fake_of(&cluster, head)->address);
	message_free(&reply->base);

	/* Not known to be gone: nothing changes. */
	for (int i = 0; i < FAKES; i++)
		assert_int_equal(fake_heartbeat(&cluster.fakes[i], &again), GRANTED_MS);
	assert_int_equal(report(&cluster, chunk, 1, head, &location), ERR_BUSY);
	/* Its connection breaks: the chain goes on without it, at once. The survivors are told. */
	fake_disconnect(fake_of(&cluster, head));
	enum err err = ERR_BUSY;
	for (int i = 0; i < 200 && err == ERR_BUSY; i++) {
		err = report(&cluster, chunk, 1, head, &location);
		if (err == ERR_BUSY)
			fixture_run(&cluster.fixture, 5, NULL);
	}
	assert_int_equal(err, OK);
	assert_int_equal(location->version, 2);
	assert_int_equal(location->n_replicas, 2);
	assert_int_not_equal(location->replicas[0]->server, head);
	message_free(&location->base);
	for (int i = 0; i < 1000 && fake_of(&cluster, tail)->configured != 2; i++)
		fixture_run(&cluster.fixture, 5, NULL);
	assert_int_equal(fake_of(&cluster, tail)->configured, 2);
	/* A second report of the same says the same. */
	assert_int_equal(report(&cluster, chunk, 1, head, &location), OK);
	assert_int_equal(location->version, 2);
	message_free(&location->base);

	/* It comes back: no lease before it has confirmed that its copy is gone. */
	struct fake *back = fake_of(&cluster, head);
	back->refuses = true;
	fake_connect(back);
	assert_int_equal(fake_register(back), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(fake_heartbeat(back, &again), 0);
		assert_false(again);
		fixture_run(&cluster.fixture, 5, NULL);
	}
	back->refuses = false;
	fake_disconnect(back);
	fake_connect(back);
	assert_int_equal(fake_register(back), 0);
	fake_lease(back);
	assert_int_equal(back->retired, chunk);
	cluster_close(&cluster);
}

static void test_silence(void **state)
{
	struct cluster cluster;
	uint64_t inode;
	bool again;
	Granary__ChunkLocation *location = NULL;

	(void)state;
	cluster_open(&cluster);
	uint64_t session = fixture_session(&cluster.fixture);
	assert_int_equal(fixture_create(&cluster.fixture, session, 1, "f", REGULAR, &inode), OK);
	Granary__MetaReply *reply = allocate(&cluster, session, 2, inode);
	uint64_t chunk = reply->results[0]->chunks[0]->chunk;
	message_free(&reply->base);
	/* The third is connected and silent: left out when its lease has run out, not before. */
	for (int i = 0; i < FAKES; i++)
		assert_int_equal(fake_heartbeat(&cluster.fakes[i], &again), GRANTED_MS);
	uint64_t start_us = loop_now_us(cluster.fixture.loop);
	enum err err = ERR_BUSY;
	while (err == ERR_BUSY && loop_now_us(cluster.fixture.loop) - start_us < 10 * 1000 * 1000) {
		fixture_run(&cluster.fixture, 50, NULL);
		for (int i = 0; i < 2; i++)
			assert_int_equal(fake_heartbeat(&cluster.fakes[i], &again), GRANTED_MS);
		err = report(&cluster, chunk, 1, 102, &location);
	}
	assert_int_equal(err, OK);
	uint64_t waited_ms = (loop_now_us(cluster.fixture.loop) - start_us) / 1000;
	assert_true(waited_ms + 50 >= CHUNKSERVER_LEASE_MS);
	assert_int_equal(location->n_replicas, 2);
	message_free(&location->base);
	/* When it speaks again it has to begin anew. */
	assert_int_equal(fake_heartbeat(&cluster.fakes[2], &again), 0);
	assert_true(again);
	/* Never to nothing: all gone, none is left out. */
	for (int i = 0; i < FAKES; i++)
		fake_disconnect(&cluster.fakes[i]);
	fixture_run(&cluster.fixture, 50, NULL);
	assert_int_equal(report(&cluster, chunk, 2, 100, &location), ERR_BUSY);
	cluster_close(&cluster);
}

/* A server that says that it stands elsewhere does, for the next leader, too. */
static void test_place(void **state)
{
	struct cluster cluster;

	(void)state;
	cluster_open(&cluster);
	cluster.fakes[1].location = "z1/r2";
	assert_int_equal(fake_register(&cluster.fakes[1]), GRANTED_MS);
	Granary__ClusterStatus *status = fixture_status(&cluster.fixture);
	assert_string_equal(status->servers[0]->location, "");
	assert_string_equal(status->servers[1]->location, "z1/r2");
	message_free(&status->base);
	cluster.fakes[1].location = NULL;
	assert_int_equal(fake_register(&cluster.fakes[1]), GRANTED_MS);
	cluster.fakes[0].location = "z2";
	assert_int_equal(fake_register(&cluster.fakes[0]), GRANTED_MS);
	fixture_stop(&cluster.fixture, cluster.fixture.leader, SIGKILL);
	status = fixture_status(&cluster.fixture);
	assert_string_equal(status->servers[0]->location, "z2");
	assert_string_equal(status->servers[1]->location, "");
	message_free(&status->base);
	cluster_close(&cluster);
}

static void test_settings(void **state)
{
	struct cluster cluster;

	(void)state;
	cluster_open(&cluster);
	assert_int_equal(fixture_set(&cluster.fixture, "trash_seconds", 1000), OK);
	assert_int_equal(fixture_set(&cluster.fixture, "scrub_days", 3), OK);
	assert_int_equal(fixture_set(&cluster.fixture, "scrub_days", 1u << 30), ERR_RANGE);
	assert_int_equal(fixture_set(&cluster.fixture, "revision", 3), ERR_NOT_SUPPORTED);
	/* Chunkservers have them with the next heartbeat. */
	Granary__Heartbeat message = GRANARY__HEARTBEAT__INIT;
	message.server = cluster.fakes[0].identity.id;
	message.incarnation = cluster.fakes[0].incarnation;
	Granary__HeartbeatReply *reply =
		(Granary__HeartbeatReply *)fake_call(&cluster.fakes[0], MESSAGE_HEARTBEAT, &message.base);
	assert_non_null(reply->settings);
	assert_int_equal(reply->settings->trash_seconds, 1000);
	assert_int_equal(reply->settings->scrub_days, 3);
	assert_int_equal(reply->settings->revision, 2);
	message_free(&reply->base);
	cluster_close(&cluster);
}

/* A chunk that was removed, and one that the masters never knew: only the former is deleted. */
static void turns_up_again(struct cluster *cluster, const Granary__Inventory *inventory, uint64_t chunk)
{
	struct fake *fake = &cluster->fakes[0];
	unsigned deletes = fake->deletes;
	Granary__InventoryReply *judged = (Granary__InventoryReply *)fake_call(fake, MESSAGE_INVENTORY, &inventory->base);

	assert_int_equal(judged->unknown, 2);
	message_free(&judged->base);
	for (int i = 0; i < 1000 && fake->deletes == deletes; i++)
		fixture_run(&cluster->fixture, 5, NULL);
	fixture_run(&cluster->fixture, 50, NULL);
	assert_int_equal(fake->deletes, deletes + 1);
	assert_int_equal(fake->deleted, chunk);

	/* Newer than all that the masters know: it is they who are behind. */
	inventory->chunks[1]->chunk = chunk + 1;
	message_free(fake_call(fake, MESSAGE_INVENTORY, &inventory->base));
	Granary__ClusterStatus *told = fixture_status(&cluster->fixture);
	assert_int_equal(told->orphan_copies_newer, 1);
	message_free(&told->base);
}

static void test_garbage(void **state)
{
	struct cluster cluster;
	uint64_t inode;
	bool again, done = false;

	(void)state;
	cluster_open(&cluster);
	uint64_t session = fixture_session(&cluster.fixture);
	assert_int_equal(fixture_create(&cluster.fixture, session, 1, "f", REGULAR, &inode), OK);
	Granary__MetaReply *reply = allocate(&cluster, session, 2, inode);
	uint64_t chunk = reply->results[0]->chunks[0]->chunk;
	message_free(&reply->base);

	/* What a server holds rightly is not deleted, nor what the masters do not know of. */
	Granary__Inventory inventory = GRANARY__INVENTORY__INIT;
	Granary__ChunkHeld held[2] = { GRANARY__CHUNK_HELD__INIT, GRANARY__CHUNK_HELD__INIT }, *list[] = { &held[0], &held[1] };
	held[0].chunk = chunk;
	held[0].version = 1;
	held[1].chunk = chunk - 1;
	held[1].version = 1;
	inventory.server = 100;
	inventory.incarnation = cluster.fakes[0].incarnation;
	inventory.n_chunks = 2;
	inventory.chunks = list;
	inventory.last = true;
	Granary__InventoryReply *judged =
		(Granary__InventoryReply *)fake_call(&cluster.fakes[0], MESSAGE_INVENTORY, &inventory.base);
	assert_int_equal(judged->unknown, 1);
	message_free(&judged->base);
	fixture_run(&cluster.fixture, 100, NULL);
	assert_int_equal(cluster.fakes[0].deletes, 0);
	Granary__ClusterStatus *told = fixture_status(&cluster.fixture);
	assert_int_equal(told->orphan_copies, 1);
	assert_int_equal(told->orphan_copies_newer, 0);
	message_free(&told->base);
	assert_int_equal(fixture_set(&cluster.fixture, "trash_seconds", UINT64_MAX), OK);

	/* An unlinked file: reclaimed once the session has twice said what it has open, deleted on all replicas. */
	unlink_file(&cluster, session, 3, "f");
	Granary__SessionKeepalive keepalive = GRANARY__SESSION_KEEPALIVE__INIT;
	keepalive.session = session;
	keepalive.n_opened = 1;
	keepalive.opened = &inode;
	for (int i = 0; i < 400 && !done; i++) {
		enum err err;
		ProtobufCMessage *info = fixture_call(&cluster.fixture, MESSAGE_SESSION_KEEPALIVE, &keepalive.base, &err);
		assert_int_equal(err, OK);
		message_free(info);
		if (i == 20) {
			/* It was open until now. */
			assert_int_equal(cluster.fakes[1].deletes, 0);
			keepalive.n_opened = 0;
			keepalive.n_closed = 1;
			keepalive.closed = &inode;
		}
		for (int k = 0; k < FAKES; k++)
			fake_heartbeat(&cluster.fakes[k], &again);
		Granary__ClusterStatus *status = fixture_status(&cluster.fixture);
		done = cluster.fakes[1].deletes > 0 && status->garbage == 0 && status->chunks == 0;
		message_free(&status->base);
		fixture_run(&cluster.fixture, 50, NULL);
	}
	assert_true(done);
	for (int i = 0; i < FAKES; i++)
		assert_int_equal(cluster.fakes[i].deleted, chunk);
	turns_up_again(&cluster, &inventory, chunk);
	cluster_close(&cluster);
}
/* A file of one chunk, full, that is removed: in the trash. */
static void trash_a_chunk(struct cluster *cluster, uint64_t session, uint64_t sequence, const char *name)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__CommitChunks commit = GRANARY__COMMIT_CHUNKS__INIT;

	assert_int_equal(fixture_create(&cluster->fixture, session, sequence, name, REGULAR, &commit.inode), OK);
	message_free(&allocate(cluster, session, sequence + 1, commit.inode)->base);
	commit.size = CHUNK_BYTES;
	commit.blocks = CHUNK_BYTES / 512;
	op.op_case = GRANARY__META_OP__OP_COMMIT_CHUNKS;
	op.commit_chunks = &commit;
	message_free(&fixture_meta(&cluster->fixture, session, sequence + 2, &op)->base);
	unlink_file(cluster, session, sequence + 3, name);
}

/* The trash while the fakes say so of their space; stops early below `enough` files. */
static uint64_t trash_after(struct cluster *cluster, unsigned beats, uint64_t enough)
{
	uint64_t files = 0;
	bool again;

	for (unsigned i = 0; i < beats; i++) {
		for (int k = 0; k < FAKES; k++)
			fake_heartbeat(&cluster->fakes[k], &again);
		Granary__ClusterStatus *status = fixture_status(&cluster->fixture);
		files = status->trash_files;
		message_free(&status->base);
		if (files < enough)
			break;
		fixture_run(&cluster->fixture, 50, NULL);
	}
	return files;
}

/* Space runs low: the oldest go, as much as is missing, and no more until that is known to be free. */
static void test_trash_for_space(void **state)
{
	struct cluster cluster;
	char name[2] = "a";

	(void)state;
	cluster_open(&cluster);
	uint64_t session = fixture_session(&cluster.fixture);
	for (uint64_t i = 0; i < 6; i++, name[0]++)
		trash_a_chunk(&cluster, session, 1 + 4 * i, name);
	assert_int_equal(trash_after(&cluster, 1, 0), 6);
	/* Of 3 * 10 GiB beside what is reserved a tenth is 3052 MiB; there are 3030, so 633 are made free: four files of 3 * 64. */
	for (int k = 0; k < FAKES; k++) {
		cluster.fakes[k].bytes_total = 10240ull * MIB;
		cluster.fakes[k].bytes_free = (1010ull + 64) * MIB;
	}
	assert_int_equal(trash_after(&cluster, 200, 6), 2);
	assert_int_equal(trash_after(&cluster, 20, 0), 2); /* not known to be free yet */
	for (int k = 0; k < FAKES; k++)
		cluster.fakes[k].bytes_free = 2048ull * MIB;
	assert_int_equal(trash_after(&cluster, 10, 0), 2);
	cluster_close(&cluster);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allocation_and_failure),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_place),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_trash_for_space),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
