/* Thousands of random operations beside a simple model of a POSIX namespace: same errors, same tree; the store's own
 * invariants; and a second state machine that applies the same entries ends with an equal digest.
 *
 *   test_meta_model [SEED [STEPS]]      (GRANARY_SEED in the environment does the same for the first) */
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

#include "common/base/rng.h"
#include "master/meta/state.h"

#define NODES_MAX 2000
#define NAMES 6
#define STEPS_STANDARD 6000

struct node {
	uint64_t id; /* 0: gone */
	uint32_t type;
	uint32_t nlink;
	uint64_t size;
	uint64_t trash;   /* the entry that keeps it; 0: none */
	int parent;       /* of a directory */
	int names[NAMES]; /* of a directory: nodes, -1 for none */
};

struct model {
	struct fixture fixture;
	struct rng rng;
	struct node nodes[NODES_MAX];
	int count;
	struct buf log; /* packed entries, each after its size */
	unsigned step;
	size_t cache_bytes;
	bool keeps_trash;
	uint64_t trash_last;
};

static const char *const names[NAMES] = {"a", "b", "c", "d", "e", "f"};

static bool is_dir(const struct node *node)
{
	return node->type == MODE_DIRECTORY;
}

static int pick(struct model *m)
{
	/* Mostly a node that is alive, sometimes one that is gone. */
	for (int tries = 0; tries < 20; tries++) {
		int node = (int)rng_below(&m->rng, (uint64_t)m->count);
		if (m->nodes[node].id && (m->nodes[node].nlink || tries > 15))
			return node;
	}
	return 0;
}

static int pick_dir(struct model *m)
{
	for (int tries = 0; tries < 20; tries++) {
		int node = pick(m);
		if (is_dir(&m->nodes[node]) || rng_below(&m->rng, 30) == 0)
			return node;
	}
	return 0;
}

/* ---- the store's side: one entry an operation, noted for the second state machine */

static enum err run(struct model *m, Granary__MetaOp *op, uint64_t session)
{
	struct fixture *f = &m->fixture;
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT, *requests[1] = {&request};
	Granary__LogEntry entry = GRANARY__LOG_ENTRY__INIT;
	Granary__MetaReply *reply = NULL;
	request.ops = &op;
	request.n_ops = 1;
	request.session = session;
	request.sequence = session ? ++f->sequence : 0;
	entry.requests = requests;
	entry.n_requests = 1;
	entry.time_ns = f->time_ns + SECOND;
	struct buf packed = {0};
	message_pack(&entry.base, &packed);
	buf_append(&m->log, &packed.size, sizeof(packed.size));
	buf_append_slice(&m->log, buf_slice(&packed));
	buf_deinit(&packed);
	fixture_apply(f, requests, 1, &reply);
	fixture_keep(f, reply);
	return (enum err)f->result->error;
}

/* ---- the model's side */

static enum err model_parent(const struct node *parent)
{
	if (!parent->id)
		return ERR_NOT_FOUND;
	if (!is_dir(parent))
		return ERR_NOT_DIRECTORY;
	return parent->nlink ? OK : ERR_NOT_FOUND;
}

static bool model_empty(const struct node *dir)
{
	for (int i = 0; i < NAMES; i++)
		if (dir->names[i] >= 0)
			return false;
	return true;
}

static void model_drop(struct model *m, struct node *node)
{
	node->nlink = is_dir(node) ? 0 : node->nlink - 1;
	if (node->nlink == 0 && m->keeps_trash)
		node->trash = ++m->trash_last;
}

static bool model_above(struct model *m, int ancestor, int node)
{
	for (;; node = m->nodes[node].parent) {
		if (node == ancestor)
			return true;
		if (node == 0)
			return false;
	}
}

static void model_put(struct model *m, int dir, int name, int node)
{
	struct node *directory = &m->nodes[dir];
	int old = directory->names[name];
	if (old >= 0 && is_dir(&m->nodes[old]))
		directory->nlink--;
	directory->names[name] = node;
	if (node >= 0 && is_dir(&m->nodes[node])) {
		directory->nlink++;
		m->nodes[node].parent = dir;
	}
}

static int model_add(struct model *m, uint64_t id, uint32_t type)
{
	check(m->count < NODES_MAX);
	struct node *node = &m->nodes[m->count];
	*node = (struct node){.id = id, .type = type, .nlink = type == MODE_DIRECTORY ? 2 : 1};
	for (int i = 0; i < NAMES; i++)
		node->names[i] = -1;
	return m->count++;
}

/* ---- operations on both */

static void expect(struct model *m, const char *what, enum err got, enum err expected)
{
	if (got != expected)
		fail_msg("step %u: %s: %s, the model says %s", m->step, what, err_name(got), err_name(expected));
}

static void step_create(struct model *m)
{
	static const uint32_t types[] = {MODE_FILE, MODE_FILE, MODE_DIRECTORY, MODE_DIRECTORY, MODE_SYMLINK, MODE_FIFO};
	uint32_t type = types[rng_below(&m->rng, 6)];
	int dir = pick_dir(m), name = (int)rng_below(&m->rng, NAMES);
	struct node *parent = &m->nodes[dir];
	bool exclusive = rng_below(&m->rng, 2) != 0;
	uint64_t id = m->fixture.next_id++;
	Granary__Create create =
	    MESSAGE(Create, create, .parent = parent->id ? parent->id : 9999, .exclusive = exclusive,
		    .name = text(names[name]), .mode = type | 0600, .id = id);
	if (type == MODE_SYMLINK)
		create.symlink = text("target");
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	enum err expected = model_parent(parent);
	int old = expected ? -1 : parent->names[name];
	if (old >= 0) {
		expected = exclusive || type != MODE_FILE || m->nodes[old].type == MODE_SYMLINK ? ERR_EXISTS
			   : is_dir(&m->nodes[old])                                             ? ERR_IS_DIRECTORY
												: OK;
	}
	expect(m, "create", run(m, &op, m->fixture.session), expected);
	if (expected == OK && old < 0) {
		model_put(m, dir, name, model_add(m, id, type));
		m->nodes[m->count - 1].size = type == MODE_SYMLINK ? 6 : type == MODE_DIRECTORY ? 4096 : 0;
	}
}

static void step_link(struct model *m)
{
	int node = pick(m), dir = pick_dir(m), name = (int)rng_below(&m->rng, NAMES);
	struct node *inode = &m->nodes[node], *parent = &m->nodes[dir];
	bool replace = rng_below(&m->rng, 2);
	Granary__Link link =
	    MESSAGE(Link, link, .inode = inode->id ? inode->id : 9999, .parent = parent->id ? parent->id : 9999,
		    .name = text(names[name]), .replace = replace);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	op.op_case = GRANARY__META_OP__OP_LINK;
	op.link = &link;
	enum err expected = !inode->id      ? ERR_NOT_FOUND
			    : is_dir(inode) ? ERR_NOT_PERMITTED
			    : !inode->nlink ? ERR_NOT_FOUND
					    : model_parent(parent);
	int old = expected ? -1 : parent->names[name];
	if (old >= 0)
		expected = !replace ? ERR_EXISTS : is_dir(&m->nodes[old]) ? ERR_IS_DIRECTORY : OK;
	expect(m, "link", run(m, &op, m->fixture.session), expected);
	if (expected || old == node)
		return;
	model_put(m, dir, name, node);
	inode->nlink++;
	if (old >= 0)
		model_drop(m, &m->nodes[old]);
}

static void step_unlink(struct model *m)
{
	int dir = pick_dir(m), name = (int)rng_below(&m->rng, NAMES);
	struct node *parent = &m->nodes[dir];
	bool directory = rng_below(&m->rng, 2);
	Granary__Unlink unlink = MESSAGE(Unlink, unlink, .parent = parent->id ? parent->id : 9999,
					 .name = text(names[name]), .directory = directory);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	op.op_case = GRANARY__META_OP__OP_UNLINK;
	op.unlink = &unlink;
	enum err expected = model_parent(parent);
	int old = expected ? -1 : parent->names[name];
	if (!expected && old < 0)
		expected = ERR_NOT_FOUND;
	else if (!expected && directory != is_dir(&m->nodes[old]))
		expected = directory ? ERR_NOT_DIRECTORY : ERR_IS_DIRECTORY;
	else if (!expected && directory && !model_empty(&m->nodes[old]))
		expected = ERR_NOT_EMPTY;
	expect(m, "unlink", run(m, &op, m->fixture.session), expected);
	if (!expected) {
		model_put(m, dir, name, -1);
		model_drop(m, &m->nodes[old]);
	}
}

struct movement {
	int from_dir, from_name, to_dir, to_name;
	bool no_replace, exchange;
};

static enum err model_rename_check(struct model *m, const struct movement *move)
{
	const struct node *from = &m->nodes[move->from_dir], *to = &m->nodes[move->to_dir];
	enum err err = move->exchange && move->no_replace ? ERR_INVALID : model_parent(from);
	err = err ? err : model_parent(to);
	if (err)
		return err;
	int source = from->names[move->from_name], target = to->names[move->to_name];
	if (source < 0 || (move->exchange && target < 0))
		return ERR_NOT_FOUND;
	if (move->no_replace && target >= 0)
		return ERR_EXISTS;
	if (source == target)
		return OK;
	if (is_dir(&m->nodes[source]) && move->from_dir != move->to_dir && model_above(m, source, move->to_dir))
		return ERR_LOOP;
	if (move->exchange)
		return move->from_dir != move->to_dir && is_dir(&m->nodes[target]) &&
			       model_above(m, target, move->from_dir)
			   ? ERR_LOOP
			   : OK;
	if (target < 0)
		return OK;
	if (is_dir(&m->nodes[source]) != is_dir(&m->nodes[target]))
		return is_dir(&m->nodes[source]) ? ERR_NOT_DIRECTORY : ERR_IS_DIRECTORY;
	return is_dir(&m->nodes[target]) && !model_empty(&m->nodes[target]) ? ERR_NOT_EMPTY : OK;
}

static void step_rename(struct model *m)
{
	struct movement move = {.from_dir = pick_dir(m), .to_dir = pick_dir(m)};
	move.from_name = (int)rng_below(&m->rng, NAMES);
	move.to_name = (int)rng_below(&m->rng, NAMES);
	move.no_replace = rng_below(&m->rng, 6) == 0;
	move.exchange = rng_below(&m->rng, 4) == 0;
	uint64_t from_id = m->nodes[move.from_dir].id, to_id = m->nodes[move.to_dir].id;
	Granary__Rename rename =
	    MESSAGE(Rename, rename, .parent = from_id ? from_id : 9999, .name = text(names[move.from_name]),
		    .new_parent = to_id ? to_id : 9999, .new_name = text(names[move.to_name]),
		    .no_replace = move.no_replace, .exchange = move.exchange);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	op.op_case = GRANARY__META_OP__OP_RENAME;
	op.rename = &rename;
	enum err expected = model_rename_check(m, &move);
	expect(m, "rename", run(m, &op, m->fixture.session), expected);
	if (expected)
		return;
	int source = m->nodes[move.from_dir].names[move.from_name], target = m->nodes[move.to_dir].names[move.to_name];
	if (source == target)
		return;
	model_put(m, move.from_dir, move.from_name, move.exchange ? target : -1);
	model_put(m, move.to_dir, move.to_name, source);
	if (!move.exchange && target >= 0)
		model_drop(m, &m->nodes[target]);
}

static void step_truncate(struct model *m)
{
	struct node *node = &m->nodes[pick(m)];
	static const uint64_t sizes[] = {
	    0, 1, 100, 4096, BLOB_BYTES_MAX, CHUNK_BYTES, CHUNK_BYTES + 1, 3ull * CHUNK_BYTES};
	uint64_t size = sizes[rng_below(&m->rng, 8)];
	Granary__Setattr setattr =
	    MESSAGE(Setattr, setattr, .inode = node->id ? node->id : 9999, .mask = SETATTR_SIZE, .size = size);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	op.op_case = GRANARY__META_OP__OP_SETATTR;
	op.setattr = &setattr;
	enum err expected = !node->id                 ? ERR_NOT_FOUND
			    : is_dir(node)            ? ERR_IS_DIRECTORY
			    : node->type != MODE_FILE ? ERR_INVALID
						      : OK;
	expect(m, "truncate", run(m, &op, m->fixture.session), expected);
	if (!expected)
		node->size = size;
}

/* The layouts are checked by the invariants; the model only knows sizes. */
static void step_data(struct model *m)
{
	struct node *node = &m->nodes[pick(m)];
	uint64_t id = node->id ? node->id : 9999, replicas[3] = {1 + rng_below(&m->rng, 2), 3, 4};
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__OpenPack open =
	    MESSAGE(OpenPack, open_pack, .id = m->fixture.next_id++, .replicas = replicas, .n_replicas = 3);
	Granary__AllocateChunk allocate =
	    MESSAGE(AllocateChunk, allocate_chunk, .inode = id, .n_replicas = 3,
		    .index = (uint32_t)rng_below(&m->rng, 4), .id = m->fixture.next_id++, .replicas = replicas);
	Granary__CommitBlob blob = MESSAGE(CommitBlob, commit_blob, .inode = id, .slot = m->step + 1,
					   .bytes = (uint32_t)rng_below(&m->rng, 5000));
	Granary__CommitChunks chunks =
	    MESSAGE(CommitChunks, commit_chunks, .inode = id, .blocks = rng_below(&m->rng, 99),
		    .size = rng_below(&m->rng, 4ull * CHUNK_BYTES), .trimmed = rng_below(&m->rng, 2) != 0);
	enum err err;
	switch (rng_below(&m->rng, 3)) {
	case 0:
		op.op_case = GRANARY__META_OP__OP_ALLOCATE_CHUNK;
		op.allocate_chunk = &allocate;
		expect(m, "allocate", run(m, &op, m->fixture.session),
		       !node->id                 ? ERR_NOT_FOUND
		       : is_dir(node)            ? ERR_IS_DIRECTORY
		       : node->type != MODE_FILE ? ERR_INVALID
						 : OK);
		return;
	case 1:
		op.op_case = GRANARY__META_OP__OP_COMMIT_CHUNKS;
		op.commit_chunks = &chunks;
		err = run(m, &op, m->fixture.session);
		if (!err && chunks.size > node->size)
			node->size = chunks.size;
		return;
	default:
		open.full = rng_below(&m->rng, 3) ? 0 : m->fixture.next_id - 1 - rng_below(&m->rng, 200);
		op.op_case = GRANARY__META_OP__OP_OPEN_PACK;
		op.open_pack = &open;
		expect(m, "open pack", run(m, &op, m->fixture.session), OK);
		blob.pack = m->fixture.result->chunks[0]->chunk;
		op.op_case = GRANARY__META_OP__OP_COMMIT_BLOB;
		op.commit_blob = &blob;
		err = run(m, &op, m->fixture.session);
		if (!err)
			node->size = blob.bytes;
		return;
	}
}

static void step_reclaim(struct model *m)
{
	uint64_t ids[9] = {META_ROOT_INODE}; /* which has links and must be left alone */
	size_t count = 1;
	for (int i = 0; i < m->count && count < 9; i++) {
		if (m->nodes[i].id && m->nodes[i].nlink == 0) {
			ids[count++] = m->nodes[i].id;
			if (!m->nodes[i].trash) /* what is in the trash is left alone, too */
				m->nodes[i].id = 0;
		}
	}
	Granary__Reclaim reclaim_op = MESSAGE(Reclaim, reclaim, .inodes = ids, .n_inodes = count);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	op.op_case = GRANARY__META_OP__OP_RECLAIM;
	op.reclaim = &reclaim_op;
	expect(m, "reclaim", run(m, &op, 0), OK);
}

static void step_settings(struct model *m)
{
	Granary__Settings settings = *meta_settings(m->fixture.meta);
	settings.trash_seconds = m->keeps_trash ? UINT64_MAX : 0;
	Granary__SetSettings set = MESSAGE(SetSettings, set_settings, .settings = &settings);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	op.op_case = GRANARY__META_OP__OP_SET_SETTINGS;
	op.set_settings = &set;
	expect(m, "settings", run(m, &op, 0), OK);
	m->keeps_trash = !m->keeps_trash;
}

/* Something of the trash, if there is any. */
static struct node *pick_trash(struct model *m)
{
	struct node *found = NULL;
	uint64_t count = 0;
	for (int i = 0; i < m->count; i++)
		if (m->nodes[i].id && m->nodes[i].trash && rng_below(&m->rng, ++count) == 0)
			found = &m->nodes[i];
	return found;
}

static void step_undelete(struct model *m)
{
	struct node *node = pick_trash(m);
	int dir = pick_dir(m), name = (int)rng_below(&m->rng, NAMES);
	struct node *parent = &m->nodes[dir];
	Granary__Undelete undelete = MESSAGE(Undelete, undelete, .id = node ? node->trash : 999999,
					     .parent = parent->id ? parent->id : 999999, .name = text(names[name]));
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	op.op_case = GRANARY__META_OP__OP_UNDELETE;
	op.undelete = &undelete;
	enum err expected = !node ? ERR_NOT_FOUND : model_parent(parent);
	if (!expected && parent->names[name] >= 0)
		expected = ERR_EXISTS;
	expect(m, "undelete", run(m, &op, m->fixture.session), expected);
	if (expected)
		return;
	node->trash = 0;
	node->nlink = is_dir(node) ? 2 : 1;
	model_put(m, dir, name, (int)(node - m->nodes));
}

static void step_trash_remove(struct model *m)
{
	uint64_t ids[3] = {999999, 0, 0};
	for (int i = 1; i < 3; i++) {
		struct node *node = pick_trash(m);
		if (node) {
			ids[i] = node->trash;
			node->trash = 0;
		}
	}
	Granary__TrashRemove remove = MESSAGE(TrashRemove, trash_remove, .ids = ids, .n_ids = 3);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	op.op_case = GRANARY__META_OP__OP_TRASH_REMOVE;
	op.trash_remove = &remove;
	expect(m, "trash remove", run(m, &op, 0), OK);
}

/* ---- comparison */

static void compare_directory(struct model *m, const struct node *dir)
{
	struct fixture *f = &m->fixture;
	expect(m, "readdir", run_readdir(f, MESSAGE(Readdir, readdir, .inode = dir->id, .attributes = true)), OK);
	size_t at = 0;
	for (int i = 0; i < NAMES; i++) {
		if (dir->names[i] < 0)
			continue;
		const struct node *child = &m->nodes[dir->names[i]];
		assert_true(at < f->result->n_entries);
		const Granary__DirectoryEntry *entry = f->result->entries[at++];
		assert_true(slice_equal(message_bytes(entry->name), slice_text(names[i])));
		assert_int_equal(entry->inode, child->id);
		assert_int_equal(entry->type, child->type >> 12);
		assert_int_equal(entry->attr->nlink, child->nlink);
		assert_int_equal(entry->attr->size, child->size);
	}
	assert_int_equal(at, f->result->n_entries);
	assert_true(f->result->end);
}

static void compare(struct model *m)
{
	uint64_t alive = 0;
	for (int i = 0; i < m->count; i++) {
		const struct node *node = &m->nodes[i];
		if (!node->id)
			continue;
		alive++;
		const Granary__Inode *inode = attr(&m->fixture, node->id);
		if (inode->nlink != node->nlink || inode->size != node->size)
			fail_msg("step %u: inode %d has %u links, the model %u; size %llu, the model %llu", m->step,
				 (int)node->id, inode->nlink, node->nlink, (unsigned long long)inode->size,
				 (unsigned long long)node->size);
		if (inode->trash != node->trash)
			fail_msg("step %u: inode %d in the trash", m->step, (int)node->id);
		if (is_dir(node))
			compare_directory(m, node);
	}
	struct meta_counts counts;
	meta_counts(m->fixture.meta, &counts);
	assert_int_equal(counts.inodes, alive);
}

/* The same entries on a second state machine, which is closed and opened in between. */
static void replay(struct model *m)
{
	struct fixture second = {.next_id = 100, .time_ns = 1000 * SECOND};
	fixture_open(&second);
	for (size_t at = 0, count = 0; at < m->log.size; count++) {
		size_t size;
		memcpy(&size, m->log.bytes + at, sizeof(size));
		at += sizeof(size);
		ProtobufCMessage *entry = NULL;
		assert_int_equal(
		    message_unpack(&granary__log_entry__descriptor, slice_of(m->log.bytes + at, size), &entry), OK);
		at += size;
		Granary__MetaReply *reply = NULL;
		assert_int_equal(meta_apply(second.meta, meta_applied_index(second.meta) + 1, 1,
					    (Granary__LogEntry *)entry, &reply, &second.effects),
				 OK);
		message_unref(&reply->base);
		message_free(entry);
		if (count % 1000 == 999)
			fixture_reopen(&second);
	}
	uint32_t first_digest, second_digest;
	assert_int_equal(meta_digest(m->fixture.meta, &first_digest), OK);
	assert_int_equal(meta_digest(second.meta, &second_digest), OK);
	assert_int_equal(first_digest, second_digest);
	fixture_close(&second);
}

static void model_step(struct model *m)
{
	uint64_t what = rng_below(&m->rng, 100);
	if (what < 22 && m->count < NODES_MAX)
		step_create(m);
	else if (what < 32)
		step_link(m);
	else if (what < 50)
		step_unlink(m);
	else if (what < 75)
		step_rename(m);
	else if (what < 82)
		step_truncate(m);
	else if (what < 90)
		step_data(m);
	else if (what < 95)
		step_undelete(m);
	else if (what < 97)
		step_trash_remove(m);
	else if (what < 98 && rng_below(&m->rng, 4) == 0)
		step_settings(m);
	else
		step_reclaim(m);
}

static void run_model(uint64_t seed, unsigned steps)
{
	struct model *m = mem_zero(1, sizeof(*m));
	fixture_open(&m->fixture);
	rng_init(&m->rng, seed);
	model_add(m, ROOT, MODE_DIRECTORY);
	m->nodes[0].size = 4096;
	m->cache_bytes =
	    seed % 2 ? 2000 : META_CACHE_BYTES_MAX; /* hardly any: whatever is used is evicted and read again */
	m->fixture.meta->store.bytes_max = m->cache_bytes;
	for (m->step = 0; m->step < steps; m->step++) {
		model_step(m);
		if (m->step % 500 == 499) {
			compare(m);
			invariants_check(m->fixture.kv);
		}
		if (m->step % 1700 == 1699)
			fixture_reopen(&m->fixture);
		m->fixture.meta->store.bytes_max = m->cache_bytes;
	}
	compare(m);
	invariants_check(m->fixture.kv);
	replay(m);
	fixture_close(&m->fixture);
	buf_deinit(&m->log);
	free(m);
}

static uint64_t seed_first = 1, seed_last = 8;
static unsigned steps = STEPS_STANDARD;

static void test_model(void **state)
{
	(void)state;
	for (uint64_t seed = seed_first; seed <= seed_last; seed++) {
		print_message("seed %llu\n", (unsigned long long)seed);
		run_model(seed, steps);
	}
}

int main(int argc, char **argv)
{
	const char *seed = argc > 1 ? argv[1] : getenv("GRANARY_SEED");
	if (seed)
		seed_first = seed_last = strtoull(seed, NULL, 10);
	if (argc > 2)
		steps = (unsigned)strtoul(argv[2], NULL, 10);
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
