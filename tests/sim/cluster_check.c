#include "tests/sim/cluster_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "chunkserver/chunk_format.h"
#include "chunkserver/chunkserver.h"
#include "chunkserver/cold_task.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "master/meta/check.h"
#include "master/replica.h"
#include "tests/sim/cluster_shards.h"

#define LOOK_US 10000u
#define LOOKS_PER_DIGEST 10u /* digests cost more */
#define WHY_BYTES 240u

struct leader {
	uint64_t term;
	unsigned master;
	UT_hash_handle hh;
};

struct applied {
	uint64_t index;
	uint32_t digest;
	UT_hash_handle hh;
};

struct on_disk {
	uint64_t key; /* chunk, by server */
	uint64_t version;
	unsigned look; /* the last that has seen it */
	UT_hash_handle hh;
};

struct cluster_check {
	struct world *world;
	struct leader *leaders;
	struct applied *applied;
	struct on_disk *versions;
	uint64_t term_led[WORLD_MASTERS]; /* the newest in which it led */
	unsigned looks;
	bool ended; /* looking all along */
	const struct cluster_check_want *want;
	char why[WHY_BYTES]; /* the end does not hold yet */
};

_Noreturn static void wrong(const struct cluster_check *check, const char *format, ...)
{
	va_list args;
	sim_print_trace(check->world->sim, stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	abort();
}

/* ---- all along ---- */

static void look_at_term(struct cluster_check *check, const struct node *node, const struct raft_view *view)
{
	struct leader *leader;
	if (view->term < check->term_led[node->number])
		wrong(check, "%s is in term %" PRIu64 ", and has led in term %" PRIu64, node->name, view->term, check->term_led[node->number]);
	if (view->role != RAFT_LEADER)
		return;
	check->term_led[node->number] = view->term;
	HASH_FIND(hh, check->leaders, &view->term, sizeof view->term, leader);
	if (!leader) {
		leader = mem_zero(1, sizeof *leader);
		*leader = (struct leader){ .term = view->term, .master = node->number };
		HASH_ADD(hh, check->leaders, term, sizeof leader->term, leader);
		sim_trace(check->world->sim, "%s leads in term %" PRIu64, node->name, view->term);
	}
	if (leader->master != node->number)
		wrong(check, "term %" PRIu64 " has two leaders: master%u and %s", view->term, leader->master + 1, node->name);
}

void cluster_check_empty_disk(struct cluster_check *check, const struct node *master)
{
	check->term_led[master->number] = 0;
}

static void look_at_state(struct cluster_check *check, const struct node *node)
{
	struct meta *meta = replica_meta(master_replica(node->master));
	struct applied *applied;
	uint64_t index = meta_applied_index(meta);
	uint32_t digest;
	check(meta_digest(meta, &digest) == OK);
	HASH_FIND(hh, check->applied, &index, sizeof index, applied);
	if (!applied) {
		applied = mem_zero(1, sizeof *applied);
		*applied = (struct applied){ .index = index, .digest = digest };
		HASH_ADD(hh, check->applied, index, sizeof applied->index, applied);
	}
	if (applied->digest != digest)
		wrong(check, "%s has applied index %" PRIu64 " and is in another state than others were then", node->name, index);
}

static void look_at_masters(struct cluster_check *check, bool states)
{
	for (unsigned i = 0; i < WORLD_MASTERS; i++) {
		const struct node *node = world_node(check->world, NODE_MASTER, i);
		struct raft_view view;
		struct replica *replica = node_replica(node);
		if (!replica)
			continue;
		replica_view(replica, &view);
		look_at_term(check, node, &view);
		if (states)
			look_at_state(check, node);
	}
}

struct looking {
	struct cluster_check *check;
	const struct node *node;
};

static bool is_chunk_path(const char *path)
{
	size_t length = strlen(path);
	return strstr(path, "/chunks/") && length > 6 && (strcmp(path + length - 6, ".chunk") == 0 || strcmp(path + length - 5, ".pack") == 0);
}

static uint64_t id_of_path(const char *path)
{
	return strtoull(strrchr(path, '/') + 1, NULL, 16);
}

/* Synced or not; a file that is only now taken into use has none yet. */
static uint64_t newest_version(struct sim_host *host, const char *path)
{
	uint8_t bytes[CHUNK_HEADER_USED_BYTES];
	struct chunk_header header;
	bool is_there = sim_host_read_file(host, path, 0, bytes, sizeof bytes) && chunk_header_parse(bytes, &header) == OK;
	return is_there ? header.version : UINT64_MAX;
}

static bool look_at_file(void *arg, const char *path, uint64_t size)
{
	struct looking *looking = arg;
	struct cluster_check *check = looking->check;
	uint8_t bytes[CHUNK_HEADER_USED_BYTES];
	struct chunk_header header;
	struct on_disk *known;
	(void)size;
	if (!is_chunk_path(path) || !sim_host_read_durable(looking->node->host, path, 0, bytes, sizeof bytes))
		return true;
	/* Not synced yet: nothing, or the header of the chunk whose file is being used again. */
	if (chunk_header_parse(bytes, &header) != OK || header.chunk != id_of_path(path))
		return true;
	uint64_t key = header.chunk * WORLD_CHUNKSERVERS_MAX + looking->node->number;
	HASH_FIND(hh, check->versions, &key, sizeof key, known);
	if (!known) {
		known = mem_zero(1, sizeof *known);
		known->key = key;
		HASH_ADD(hh, check->versions, key, sizeof known->key, known);
	}
	/* One that was deleted and is made anew may be in a file that it was in before, and not have synced it yet. */
	bool again = check->looks - known->look > LOOKS_PER_DIGEST;
	known->look = check->looks;
	if (header.version < known->version && !again && newest_version(looking->node->host, path) <= known->version)
		wrong(check, "%s: chunk %016" PRIx64 " goes from version %" PRIu64 " back to %" PRIu64, looking->node->name, header.chunk,
		      known->version, header.version);
	known->version = header.version;
	return true;
}

static bool is_counted_on(struct meta *meta, const struct cold_attempt *attempt)
{
	Granary__Chunk *chunk = NULL;
	if (meta_chunk(meta, attempt->chunk, &chunk) != OK)
		return false;
	bool is_made = attempt->task == COLD_REBUILD || (attempt->task == COLD_COOL ? chunk->cold : !chunk->coding);
	bool counted = is_made && chunk->version == attempt->version;
	message_free(&chunk->base);
	return counted;
}

static void look_at_makers(struct cluster_check *check)
{
	struct node *leader = world_leader(check->world);
	struct replica *replica = leader ? node_replica(leader) : NULL;
	for (unsigned i = 0; i < world_chunkservers(check->world) && replica; i++) {
		const struct node *node = world_node(check->world, NODE_CHUNKSERVER, i);
		const struct cold_task *task = node->loop && !sim_process_is_dead(node->loop) ? chunkserver_service(node->chunkserver)->cold_tasks : NULL;
		for (; task; task = task->next) {
			struct cold_attempt attempt = cold_task_attempt(task);
			if (attempt.task != COLD_VERIFY && is_counted_on(replica_meta(replica), &attempt))
				wrong(check, "%s still makes %016" PRIx64 " in version %" PRIu64 " (task %u), and it is counted on", node->name,
				      attempt.chunk, attempt.version, attempt.task);
		}
	}
}

static void on_look(void *arg)
{
	struct cluster_check *check = arg;
	if (check->ended)
		return;
	bool deep = check->looks++ % LOOKS_PER_DIGEST == 0;
	look_at_masters(check, deep);
	look_at_makers(check);
	for (unsigned i = 0; i < world_node_count(check->world) && deep; i++) {
		struct looking looking = { check, &check->world->nodes[i] };
		if (looking.node->kind == NODE_CHUNKSERVER)
			sim_host_each_file(looking.node->host, look_at_file, &looking);
	}
	sim_after(check->world->sim, LOOK_US, on_look, check);
}

void cluster_check_end_looks(struct cluster_check *check)
{
	check->ended = true;
}

struct cluster_check *cluster_check_begin(struct world *world)
{
	struct cluster_check *check = mem_zero(1, sizeof *check);
	check->world = world;
	sim_after(world->sim, LOOK_US, on_look, check);
	return check;
}

/* After the simulation. */
void cluster_check_close(struct cluster_check *check)
{
	struct leader *leader, *next_leader;
	struct applied *applied, *next_applied;
	struct on_disk *version, *next_version;
	HASH_ITER (hh, check->leaders, leader, next_leader) {
		HASH_DEL(check->leaders, leader);
		free(leader);
	}
	HASH_ITER (hh, check->applied, applied, next_applied) {
		HASH_DEL(check->applied, applied);
		free(applied);
	}
	HASH_ITER (hh, check->versions, version, next_version) {
		HASH_DEL(check->versions, version);
		free(version);
	}
	free(check);
}

/* ---- when it is quiet ---- */

static bool not_yet(struct cluster_check *check, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(check->why, sizeof check->why, format, args);
	va_end(args);
	return false;
}

static bool masters_agree(struct cluster_check *check)
{
	struct raft_view first, view;
	replica_view(master_replica(world_node(check->world, NODE_MASTER, 0)->master), &first);
	for (unsigned i = 0; i < WORLD_MASTERS; i++) {
		replica_view(master_replica(world_node(check->world, NODE_MASTER, i)->master), &view);
		if (view.applied != view.last || view.applied != first.applied)
			return not_yet(check, "master%u has applied %" PRIu64 " of %" PRIu64, i + 1, view.applied, view.last);
	}
	return true;
}

static const struct node *server_of(struct cluster_check *check, uint64_t id)
{
	for (unsigned i = 0; i < world_node_count(check->world); i++) {
		const struct node *node = &check->world->nodes[i];
		if (node->kind == NODE_CHUNKSERVER && node->chunkserver && chunkserver_id(node->chunkserver) == id)
			return node;
	}
	return NULL;
}

struct finding {
	uint64_t chunk;
	const char *path;
	uint64_t size;
};

static bool find_file(void *arg, const char *path, uint64_t size)
{
	struct finding *finding = arg;
	if (!is_chunk_path(path) || id_of_path(path) != finding->chunk)
		return true;
	finding->path = path;
	finding->size = size;
	return false;
}

/* One replica as it lies on the disk. */
struct copy {
	const struct node *node;
	struct finding file; /* path NULL: nothing was ever written there */
	struct chunk_header header;
};

static bool copy_open(struct cluster_check *check, uint64_t id, const Granary__Chunk *chunk, uint64_t server, struct copy *copy)
{
	uint8_t bytes[CHUNK_HEADER_USED_BYTES];
	*copy = (struct copy){ .node = server_of(check, server) };
	copy->file = (struct finding){ .chunk = id };
	if (!copy->node)
		return not_yet(check, "chunk %016" PRIx64 " is on server %" PRIx64 ", which is not there", id, server);
	sim_host_each_file(copy->node->host, find_file, &copy->file);
	if (!copy->file.path)
		return true;
	if (!sim_host_read_file(copy->node->host, copy->file.path, 0, bytes, sizeof bytes) || chunk_header_parse(bytes, &copy->header) != OK ||
	    copy->header.chunk != id)
		return not_yet(check, "chunk %016" PRIx64 " at %s has no header", id, copy->node->name);
	if (copy->header.version != chunk->version)
		return not_yet(check, "chunk %016" PRIx64 " at %s has version %" PRIu64 ", the masters have %" PRIu64, id, copy->node->name,
			       copy->header.version, chunk->version);
	if (copy->header.copy != COPY_COMPLETE)
		return not_yet(check, "chunk %016" PRIx64 " at %s is not complete, or has retired", id, copy->node->name);
	return true;
}

static void read_padded(const struct copy *copy, uint64_t offset, uint8_t *bytes, size_t size)
{
	memset(bytes, 0, size);
	if (!copy->file.path || offset >= copy->file.size)
		return;
	if (size > copy->file.size - offset)
		size = (size_t)(copy->file.size - offset);
	check(sim_host_read_file(copy->node->host, copy->file.path, offset, bytes, size));
}

static bool block_fits(const uint8_t *block, const uint8_t *crc)
{
	static const uint8_t zeros[BLOCK_BYTES];
	return (crc32c(block, BLOCK_BYTES) ^ crc32c(zeros, BLOCK_BYTES)) == get_le32(crc);
}

static bool same_blocks(struct cluster_check *check, uint64_t id, const struct copy *a, const struct copy *b)
{
	static uint8_t crcs_a[CHUNK_CRCS_BYTES], crcs_b[CHUNK_CRCS_BYTES];
	static const uint8_t nothing[4];
	uint8_t block_a[BLOCK_BYTES], block_b[BLOCK_BYTES];
	uint64_t size = a->file.size > b->file.size ? a->file.size : b->file.size;
	read_padded(a, CHUNK_CRCS_OFFSET, crcs_a, sizeof crcs_a);
	read_padded(b, CHUNK_CRCS_OFFSET, crcs_b, sizeof crcs_b);
	for (uint32_t i = 0; CHUNK_DATA_OFFSET + (uint64_t)i * BLOCK_BYTES < size; i++) {
		if (memcmp(crcs_a + 4 * i, nothing, 4) == 0 && memcmp(crcs_b + 4 * i, nothing, 4) == 0)
			continue;
		read_padded(a, CHUNK_DATA_OFFSET + (uint64_t)i * BLOCK_BYTES, block_a, BLOCK_BYTES);
		read_padded(b, CHUNK_DATA_OFFSET + (uint64_t)i * BLOCK_BYTES, block_b, BLOCK_BYTES);
		bool fits = block_fits(block_a, crcs_a + 4 * i) && block_fits(block_b, crcs_b + 4 * i);
		if (!fits)
			return not_yet(check, "chunk %016" PRIx64 ", block %u: its checksum does not fit at %s or %s", id, i, a->node->name, b->node->name);
		if (memcmp(block_a, block_b, BLOCK_BYTES) != 0)
			return not_yet(check, "chunk %016" PRIx64 ", block %u: %s has %" PRIx64 "..., %s has %" PRIx64 "...", id, i, a->node->name,
				       get_le64(block_a), b->node->name, get_le64(block_b));
	}
	return true;
}

#define SLOTS_MAX 4096u /* of a pack in these runs */

/* What a copy of a pack holds: for each slot the checksum of its blob, 0 where there is none (any more). */
static void pack_slots(const struct copy *copy, uint32_t crcs[SLOTS_MAX])
{
	uint64_t at = PACK_DATA_OFFSET;
	uint8_t bytes[PACK_RECORD_BYTES];
	struct pack_record record;
	memset(crcs, 0, SLOTS_MAX * sizeof crcs[0]);
	while (copy->file.path && at + PACK_RECORD_BYTES <= copy->file.size) {
		read_padded(copy, at, bytes, sizeof bytes);
		if (!pack_record_parse(bytes, copy->header.salt, &record) || at + pack_record_size(record.length) > copy->file.size) {
			at += PACK_ALIGN_BYTES;
			continue;
		}
		check(record.slot < SLOTS_MAX);
		crcs[record.slot] = (record.flags & PACK_TOMBSTONE) ? 0 : record.crc;
		at += pack_record_size(record.length);
	}
}

/* A blob that was never acknowledged, or was deleted, may be here and not there; but not another one in its place. */
static bool same_slots(struct cluster_check *check, uint64_t id, const struct copy *a, const struct copy *b)
{
	static uint32_t crcs_a[SLOTS_MAX], crcs_b[SLOTS_MAX];
	pack_slots(a, crcs_a);
	pack_slots(b, crcs_b);
	for (unsigned slot = 0; slot < SLOTS_MAX; slot++)
		if (crcs_a[slot] && crcs_b[slot] && crcs_a[slot] != crcs_b[slot])
			return not_yet(check, "pack %016" PRIx64 ", slot %u: %s and %s hold different blobs", id, slot, a->node->name,
				       b->node->name);
	return true;
}

static bool has_shards(struct cluster_check *check, struct meta *meta, uint64_t id, const Granary__Chunk *chunk, uint32_t slot)
{
	char why[WHY_BYTES / 2];
	if (cluster_shards_look(check->world, meta, chunk, slot, why, sizeof why))
		return true;
	return not_yet(check, "cold chunk %016" PRIx64 ": %s", id, why);
}

/* Every copy has the blob that an inode refers to. */
static bool has_blob(struct cluster_check *check, struct meta *meta, const Granary__Inode *attr)
{
	static uint32_t crcs[SLOTS_MAX];
	Granary__Chunk *chunk = NULL;
	bool all = true;
	if (attr->layout != GRANARY__LAYOUT__LAYOUT_BLOB)
		return true;
	if (meta_chunk(meta, attr->pack, &chunk) != OK)
		return not_yet(check, "an inode refers to pack %016" PRIx64 ", which does not exist", attr->pack);
	if (chunk->cold)
		all = has_shards(check, meta, attr->pack, chunk, attr->slot);
	for (size_t i = 0; i < chunk->n_replicas && all; i++) {
		struct copy copy;
		all = copy_open(check, attr->pack, chunk, chunk->replicas[i], &copy);
		if (!all)
			break;
		pack_slots(&copy, crcs);
		if (!crcs[attr->slot])
			all = not_yet(check, "pack %016" PRIx64 ", slot %u: not at %s, and an inode refers to it", attr->pack, attr->slot,
				      copy.node->name);
	}
	message_free(&chunk->base);
	return all;
}

static bool has_all_blobs(struct cluster_check *check, struct meta *meta)
{
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[] = { &op };
	Granary__Readdir readdir = GRANARY__READDIR__INIT;
	Granary__MetaReply *reply;
	bool all = true;
	readdir.inode = META_ROOT_INODE;
	readdir.count = 100;
	readdir.attributes = true;
	op.op_case = GRANARY__META_OP__OP_READDIR;
	op.readdir = &readdir;
	request.n_ops = 1;
	request.ops = ops;
	check(meta_query(meta, &request, &reply) == OK && reply->results[0]->error == OK);
	for (size_t i = 0; i < reply->results[0]->n_entries && all; i++)
		all = has_blob(check, meta, reply->results[0]->entries[i]->attr);
	message_unref(&reply->base);
	return all;
}

struct ending {
	struct cluster_check *check;
	bool holds;
	struct meta *meta;
};

static bool end_of_chunk(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct ending *ending = arg;
	struct cluster_check *check = ending->check;
	struct copy copies[REPLICAS_MAX];
	const struct copy *first = NULL;
	check(chunk->n_replicas <= REPLICAS_MAX);
	if (chunk->cold)
		ending->holds = has_shards(check, ending->meta, id, chunk, 0);
	for (size_t i = 0; i < chunk->n_replicas && ending->holds; i++) {
		struct copy *copy = &copies[i];
		ending->holds = copy_open(check, id, chunk, chunk->replicas[i], copy);
		/* If nothing was ever acknowledged in it, who has no file of it says so, and sends its readers to who has. */
		if (!ending->holds || (!chunk->written && !copy->file.path))
			continue;
		if (!first)
			first = copy;
		else if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_REPLICATED)
			ending->holds = same_blocks(check, id, first, copy);
		else
			ending->holds = same_slots(check, id, first, copy);
	}
	return ending->holds;
}

struct look {
	struct ending *ending;
	const struct node *node;
};

/* Whose chunk is gone, or gets on without this copy, is gone, too. */
static bool is_wanted(void *arg, const char *path, uint64_t size)
{
	struct look *look = arg;
	struct ending *ending = look->ending;
	Granary__Chunk *chunk = NULL;
	bool wanted = false;
	(void)size;
	if (!is_chunk_path(path))
		return true;
	uint64_t id = id_of_path(path), server = chunkserver_id(look->node->chunkserver);
	if (meta_chunk(ending->meta, id, &chunk) == OK) {
		for (size_t i = 0; i < chunk->n_replicas; i++)
			wanted = wanted || chunk->replicas[i] == server;
		message_free(&chunk->base);
	}
	if (!wanted)
		ending->holds = not_yet(ending->check, "%s has a file of chunk %016" PRIx64 " that nothing refers to", look->node->name, id);
	return wanted;
}

static void look_for_leaks(struct ending *ending)
{
	const struct world *world = ending->check->world;
	for (unsigned i = 0; i < world_node_count(world) && ending->holds; i++) {
		struct look look = { .ending = ending, .node = &world->nodes[i] };
		if (look.node->kind == NODE_CHUNKSERVER && look.node->chunkserver)
			sim_host_each_file(look.node->host, is_wanted, &look);
	}
}

static void on_finding(void *arg, const struct check_finding *finding)
{
	struct ending *ending = arg;
	ending->holds = not_yet(ending->check, "tables of the masters: %s: %016" PRIx64 ", %" PRIx64, check_text(finding->kind), finding->id,
				finding->other);
}

/* Each key by itself, and names and blobs counted. */
static void check_tables_agree(struct ending *ending)
{
	struct check *tables = check_open(ending->meta);
	bool end = false;
	while (!end)
		check(check_run(tables, 1000, on_finding, ending, &end) == OK);
	check_close(tables);
}

static bool end_holds(void *arg)
{
	struct cluster_check *check = arg;
	struct ending ending = { .check = check, .holds = true };
	if (!check->want->may_be_damaged && !world_is_replicated(check->world))
		return not_yet(check, "chunks lack copies");
	if (!masters_agree(check))
		return false;
	if (check->want->may_be_damaged)
		return true;
	ending.meta = replica_meta(master_replica(world_node(check->world, NODE_MASTER, 0)->master));
	check(meta_each_chunk(ending.meta, 0, end_of_chunk, &ending) == OK);
	ending.holds = ending.holds && has_all_blobs(check, ending.meta);
	look_for_leaks(&ending);
	if (ending.holds)
		check_tables_agree(&ending);
	return ending.holds;
}

void cluster_check_end(struct cluster_check *check, const struct cluster_check_want *want, uint64_t limit_us)
{
	uint64_t end = sim_now_us(check->world->sim) + limit_us;
	check->want = want;
	while (!end_holds(check)) {
		if (sim_now_us(check->world->sim) >= end)
			wrong(check, "at the end: %s", check->why);
		sim_run(check->world->sim, 100000, NULL, NULL);
	}
	look_at_masters(check, true);
}
