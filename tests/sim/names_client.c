#include "tests/sim/names_client.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/proto/mode.h"
#include "tests/sim/names_internal.h"

static void step(struct program *program);

struct rng *names_rng(const struct program *program)
{
	return sim_rng(program->world->sim);
}

bool one_in(const struct program *program, unsigned count)
{
	return rng_below(names_rng(program), count) == 0;
}

void names_fail(const struct program *program, const char *what, uint32_t number, enum err err)
{
	sim_print_trace(program->world->sim, stderr);
	model_show(program->history->model, number, stderr);
	fprintf(stderr, "client %u: %s: record %" PRIu32 ": %s at %" PRIu64 "\n", program->number + 1, what, number, err_name(err),
		sim_now_us(program->world->sim));
	abort();
}

/* ---- names and inodes ---- */

static const char name_texts[MODEL_NAMES][2] = { "a", "b", "c", "d" };

ProtobufCBinaryData name_bytes(uint8_t name)
{
	return message_borrow(slice_text(name_texts[name]));
}

uint16_t number_of(struct history *history, uint64_t id, uint32_t mode)
{
	struct known_inode *known;
	if (id == 0)
		return MODEL_NOTHING;
	HASH_FIND(hh, history->inodes, &id, sizeof id, known);
	if (!known) {
		known = mem_zero(1, sizeof *known);
		known->id = id;
		known->number = ++history->inode_count;
		check(known->number < INODES_MAX);
		history->ids[known->number] = id;
		HASH_ADD(hh, history->inodes, id, sizeof known->id, known);
	}
	if (mode_is_directory(mode)) {
		history->directory[known->number] = true;
		model_directory(history->model, known->number);
	}
	return known->number;
}

uint64_t id_of(const struct program *program, uint16_t inode)
{
	return program->history->ids[inode];
}

static void come_upon(struct program *program, uint16_t inode)
{
	if (inode <= MODEL_SHARED || !program->history->directory[inode])
		return;
	for (unsigned i = 0; i < RECENT; i++)
		if (program->recent[i] == inode)
			return;
	program->recent[rng_below(names_rng(program), RECENT)] = inode; /* those of others, too */
}

void cache(struct program *program, uint16_t directory, uint8_t name, uint16_t inode, uint64_t until_ms, uint64_t seen_ms)
{
	program->cache[directory][name] = (struct cached){ .inode = inode, .until_ms = until_ms, .seen_ms = seen_ms };
	come_upon(program, inode);
}

/* ---- what others are told of it ---- */

static void slow_ack_end(struct slow_ack *ack)
{
	timer_stop(&ack->timer);
	DL_DELETE2(ack->program->acks, ack, previous, next);
	ack->done(ack->arg);
	free(ack);
}

static void on_slow_ack(void *arg)
{
	slow_ack_end(arg);
}

static void invalidate(void *arg, uint64_t inode, struct slice name, void (*done)(void *done_arg), void *done_arg)
{
	struct program *program = arg;
	struct known_inode *known;
	program->history->recalls++;
	HASH_FIND(hh, program->history->inodes, &inode, sizeof inode, known);
	for (uint8_t i = 0; known && name.size > 0 && i < MODEL_NAMES; i++)
		if (slice_equal(name, slice_text(name_texts[i])))
			program->cache[known->number][i].until_ms = 0;
	if (program->stopping || !one_in(program, 2)) {
		done(done_arg);
		return;
	}
	struct slow_ack *ack = mem_zero(1, sizeof *ack);
	*ack = (struct slow_ack){ .program = program, .done = done, .arg = done_arg };
	timer_init(&ack->timer, program->loop, on_slow_ack, ack);
	DL_APPEND2(program->acks, ack, previous, next);
	timer_start(&ack->timer, rng_below(names_rng(program), one_in(program, 20) ? 300 : 10));
}

static void session_lost(void *arg)
{
	struct program *program = arg;
	program->history->lost++;
	for (uint16_t i = 0; i < INODES_MAX; i++)
		for (uint8_t k = 0; k < MODEL_NAMES; k++)
			program->cache[i][k].until_ms = 0;
}

static const struct client_events events = { .invalidate = invalidate, .session_lost = session_lost };

bool is_directory(const struct program *program, uint16_t inode)
{
	return program->history->directory[inode];
}

bool is_local(const struct program *program, uint16_t directory, uint8_t name)
{
	return client_find_local(program->client, id_of(program, directory), slice_text(name_texts[name]));
}

/* ---- records ---- */

static void on_timer(void *arg)
{
	struct program *program = arg;
	program->then(program);
}

void later(struct program *program, uint64_t delay_ms, void (*then)(struct program *program))
{
	program->then = then;
	timer_start(&program->timer, delay_ms);
}

void step_end(struct program *program)
{
	program->busy = false;
	later(program, one_in(program, 80) ? rng_below(names_rng(program), 1500) : rng_below(names_rng(program), 12), step);
}

/* From one operation of the kernel to the next it makes. */
static void go_on(struct program *program, void (*then)(struct program *program))
{
	if (one_in(program, 4))
		later(program, rng_below(names_rng(program), 5), then);
	else
		then(program);
}

struct record *record_open(struct program *program, enum record_kind kind, uint16_t directory, uint8_t name)
{
	struct record record = { .kind = kind,
				 .client = program->number,
				 .directory = directory,
				 .name = name,
				 .begin_us = sim_now_us(program->world->sim) };
	program->record = model_begin(program->history->model, &record);
	return model_record(program->history->model, program->record);
}

struct record *record_now(const struct program *program)
{
	return model_record(program->history->model, program->record);
}

void record_end(struct program *program, const char *how)
{
	record_now(program)->how = how;
	model_end(program->history->model, program->record, sim_now_us(program->world->sim));
}

/* The result, or NULL: the operation's outcome will never be known. */
const Granary__MetaResult *answered(struct program *program, enum err err, const Granary__MetaReply *reply)
{
	if (err == OK) {
		const Granary__MetaResult *result = reply->results[0];
		record_now(program)->err = result->error ? err_from_wire(result->error) : OK;
		return result;
	}
	if (err != ERR_TIMEOUT && err != ERR_NO_LEADER && err != ERR_UNREACHABLE && err != ERR_NO_SESSION && err != ERR_CANCELLED)
		names_fail(program, "request", program->record, err);
	program->history->unknown++;
	sim_trace(program->world->sim, "client %u: nobody knows %" PRIu32 ": %s", program->number + 1, program->record, err_name(err));
	model_unknown(program->history->model, program->record);
	return NULL;
}

uint64_t lease_end(const struct program *program, const Granary__MetaResult *result)
{
	return result->lease_ms ? program->sent_ms + result->lease_ms : 0;
}

void send_op(struct program *program, Granary__MetaOp *op, client_meta_fn *done)
{
	program->sent_ms = loop_now_ms(program->loop);
	client_meta(program->client, &op, 1, done, program);
}

/* What a callback of client_barrier goes on with. */
static void barrier_over(void *arg)
{
	struct program *program = arg;
	if (!program->stopping)
		program->then(program);
}

void barrier(struct program *program, uint64_t inode, void (*then)(struct program *program))
{
	program->then = then;
	if (!client_barrier(program->client, inode, barrier_over, program))
		then(program);
}

/* ---- lookup ---- */

/* A directory that is known to have this name, both delegated to us. */
static bool is_known_directory(const struct program *program, uint16_t directory, const struct cached *cached)
{
	return cached->inode && is_directory(program, cached->inode) &&
	       client_is_delegated_since(program->client, id_of(program, directory), cached->seen_ms) &&
	       client_directory_attr(program->client, id_of(program, cached->inode));
}

static void looked_up(struct program *program, uint16_t inode, const char *how)
{
	struct record *record = record_now(program);
	record->inode = inode;
	record->err = inode ? OK : ERR_NOT_FOUND;
	record_end(program, how);
	program->found(program, inode);
}

/* A file is never seen in part by others once its maker has closed it. (The maker knows better than the master.) */
static void check_size(const struct program *program, uint16_t inode, const Granary__Inode *attr)
{
	const struct history *history = program->history;
	uint64_t complete_us = history->complete_us[inode];
	if (complete_us == 0 || complete_us >= record_now(program)->begin_us || attr->size == history->bytes[inode] ||
	    model_record(history->model, history->maker[inode])->weak || model_record(history->model, history->maker[inode])->client == program->number)
		return;
	fprintf(stderr, "size %" PRIu64 ", closed with %" PRIu64 "\n", attr->size, history->bytes[inode]);
	names_fail(program, "a file in part", program->record, OK);
}

static void lookup_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	uint16_t inode = MODEL_NOTHING;
	if (program->stopping)
		return;
	const Granary__MetaResult *result = answered(program, err, reply);
	if (!result) {
		step_end(program);
		return;
	}
	enum err error = record_now(program)->err;
	if (error == OK) {
		inode = number_of(program->history, result->inode, result->attr->mode);
		check_size(program, inode, result->attr);
	} else if (error != ERR_NOT_FOUND) {
		names_fail(program, "lookup", program->record, error);
	}
	cache(program, program->looked_directory, program->looked_name, inode, lease_end(program, result), program->sent_ms);
	looked_up(program, inode, "master");
}

static void lookup_send(struct program *program)
{
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	lookup.parent = id_of(program, program->looked_directory);
	lookup.name = name_bytes(program->looked_name);
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup;
	send_op(program, &op, lookup_done);
}

static void look_up(struct program *program, uint16_t directory, uint8_t name, void (*found)(struct program *program, uint16_t inode))
{
	const struct cached *cached = &program->cache[directory][name];
	struct slice text = slice_text(name_texts[name]);
	struct file_io *io = client_find_local(program->client, id_of(program, directory), text);
	program->history->queries++;
	program->looked_directory = directory;
	program->looked_name = name;
	program->found = found;
	record_open(program, RECORD_LOOKUP, directory, name);
	if (loop_now_ms(program->loop) < cached->until_ms) {
		record_now(program)->cached = true;
		looked_up(program, cached->inode, "cached");
	} else if (io)
		looked_up(program, number_of(program->history, file_io_inode(io), 0), "local file");
	else if (is_known_directory(program, directory, cached))
		looked_up(program, cached->inode, "known");
	else if (client_knows_absent(program->client, id_of(program, directory), text))
		looked_up(program, MODEL_NOTHING, "known to be absent");
	else if (client_name_is_removed(program->client, id_of(program, directory), text))
		looked_up(program, MODEL_NOTHING, "removed");
	else if (cached->inode && client_is_changing(program->client, id_of(program, cached->inode)))
		barrier(program, id_of(program, cached->inode), lookup_send);
	else
		lookup_send(program);
}

/* ---- readdir, getattr ---- */

static void readdir_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	if (program->stopping)
		return;
	const Granary__MetaResult *result = answered(program, err, reply);
	struct record *record = record_now(program);
	if (!result) {
		step_end(program);
		return;
	}
	for (size_t i = 0; i < result->n_entries; i++) {
		const Granary__DirectoryEntry *entry = result->entries[i];
		uint16_t inode = number_of(program->history, entry->inode, entry->type << 12);
		check(entry->name.len == 1 && entry->name.data[0] - 'a' < (int)MODEL_NAMES);
		uint8_t name = (uint8_t)(entry->name.data[0] - 'a');
		record->found[name] = inode;
		if (entry->attr)
			check_size(program, inode, entry->attr);
		if (entry->attr)
			cache(program, record->directory, name, inode, entry->lease_ms ? program->sent_ms + entry->lease_ms : 0, program->sent_ms);
		else
			come_upon(program, inode);
		if (program->history->ending && is_directory(program, inode) && program->look_count < LOOKS_MAX)
			program->looks[program->look_count++] = inode;
	}
	record_end(program, "master");
	step_end(program);
}

static void readdir_send(struct program *program)
{
	Granary__Readdir readdir = GRANARY__READDIR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	readdir.inode = id_of(program, program->directory);
	readdir.count = 100;
	readdir.attributes = one_in(program, 2);
	op.op_case = GRANARY__META_OP__OP_READDIR;
	op.readdir = &readdir;
	send_op(program, &op, readdir_done);
}

static void read_names(struct program *program)
{
	program->history->queries++;
	record_open(program, RECORD_READDIR, program->directory, 0);
	barrier(program, id_of(program, program->directory), readdir_send);
}

static void getattr_learn(struct program *program, const Granary__Inode *attr)
{
	struct record *record = record_now(program);
	record->mode = attr->mode & MODE_PERMISSIONS;
	record->nlink = attr->nlink;
	record->err = attr->nlink == 0 ? ERR_NOT_FOUND : OK; /* removed, but not yet reclaimed */
}

static void getattr_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	if (program->stopping)
		return;
	const Granary__MetaResult *result = answered(program, err, reply);
	if (result) {
		if (record_now(program)->err == OK) {
			getattr_learn(program, result->attr);
			client_directory_learn(program->client, id_of(program, program->directory), program->epoch, result->attr);
		}
		record_end(program, "master");
	}
	step_end(program);
}

static void get_attr(struct program *program)
{
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	uint64_t id = id_of(program, program->directory);
	const Granary__Inode *known = client_directory_attr(program->client, id);
	program->history->queries++;
	record_open(program, RECORD_GETATTR, program->directory, 0);
	if (known) {
		program->history->local_answers++;
		getattr_learn(program, known);
		record_end(program, "delegated");
		step_end(program);
		return;
	}
	program->epoch = client_directory_epoch(program->client, id);
	getattr.inode = id;
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	send_op(program, &op, getattr_done);
}

/* ---- steps ---- */

static uint16_t choose_directory(const struct program *program)
{
	uint16_t inode = program->recent[rng_below(names_rng(program), RECENT)];
	if (one_in(program, program->history->visits))
		return (uint16_t)(1 + rng_below(names_rng(program), MODEL_SHARED));
	return inode && !program->gone[inode] && one_in(program, 4) ? inode : program->home;
}

static void target_found(struct program *program, uint16_t inode)
{
	program->replaced = inode;
	if (inode == program->inode)
		step_end(program);
	else
		go_on(program, names_rename);
}

/* The name of the step, or of what is to be renamed, leads there. */
static void name_found(struct program *program, uint16_t inode)
{
	program->inode = inode;
	program->replaced = MODEL_NOTHING;
	if (program->kind == RECORD_CREATE && !inode) {
		go_on(program, names_create);
	} else if (program->kind == RECORD_UNLINK && inode) {
		go_on(program, names_unlink);
	} else if (program->kind == RECORD_RENAME && inode) {
		/* Directories stay in the shared ones. */
		if (is_directory(program, inode) && program->to_directory > MODEL_SHARED)
			program->to_directory = program->directory;
		if (program->to_directory == program->directory && program->to_name == program->name)
			program->to_name = (uint8_t)((program->name + 1) % MODEL_NAMES);
		look_up(program, program->to_directory, program->to_name, target_found);
	} else {
		step_end(program);
	}
}

/* When the faults are over: every directory there is. */
static void look_around(struct program *program)
{
	if (program->look_count == 0)
		while (program->look_count < MODEL_SHARED) {
			program->looks[program->look_count] = (uint16_t)(program->look_count + 1);
			program->look_count++;
		}
	if (program->looked == 2 * program->look_count) {
		program->busy = false;
		return;
	}
	program->directory = program->looks[program->looked / 2];
	(program->looked++ % 2 ? get_attr : read_names)(program);
}

/* Looks at what another client has just changed. */
static void watch(struct program *program)
{
	const struct history *history = program->history;
	uint16_t directory = history->changed_directory;
	bool known = directory <= MODEL_SHARED;
	for (unsigned i = 0; i < RECENT; i++)
		known |= program->recent[i] == directory;
	if (directory == MODEL_NOTHING || !known || program->gone[directory])
		return;
	program->directory = directory;
	program->name = history->changed_name;
	program->kind = !one_in(program, 4) ? RECORD_READDIR : one_in(program, 3) ? RECORD_RENAME : RECORD_LOOKUP;
}

static void step(struct program *program)
{
	static const enum record_kind kinds[] = { RECORD_CREATE, RECORD_CREATE,	RECORD_CREATE,	RECORD_CREATE, RECORD_UNLINK, RECORD_UNLINK, RECORD_UNLINK,
						  RECORD_RENAME, RECORD_RENAME, RECORD_LOOKUP, RECORD_LOOKUP, RECORD_READDIR, RECORD_GETATTR, RECORD_CHMOD };
	uint64_t dice = rng_below(names_rng(program), 10);
	program->busy = true;
	if (program->history->ending) {
		look_around(program);
		return;
	}
	/* Mostly each in its own, so that it is delegated; for a while in another's. */
	if (one_in(program, program->history->visits))
		program->home = (uint16_t)(1 + rng_below(names_rng(program), MODEL_SHARED));
	else if (one_in(program, 40))
		program->home = (uint16_t)(1 + program->number % MODEL_SHARED);
	program->kind = kinds[rng_below(names_rng(program), sizeof kinds / sizeof *kinds)];
	program->directory = choose_directory(program);
	program->to_directory = one_in(program, 2) ? program->directory : choose_directory(program);
	program->name = (uint8_t)rng_below(names_rng(program), MODEL_NAMES);
	program->to_name = (uint8_t)rng_below(names_rng(program), MODEL_NAMES);
	program->mode = dice < 6 ? MODE_FILE | 0644 : dice < 8 || program->directory > MODEL_SHARED ? MODE_SYMLINK | 0777 : MODE_DIRECTORY | 0755;
	uint64_t now_us = sim_now_us(program->world->sim);
	bool watching = now_us >= program->history->watch_from_us && now_us < program->history->watch_until_us;
	if (one_in(program, watching ? 2 : program->history->visits))
		watch(program);
	if (program->kind == RECORD_READDIR)
		read_names(program);
	else if (program->kind == RECORD_GETATTR)
		get_attr(program);
	else if (program->kind == RECORD_CHMOD)
		names_chmod(program);
	else
		look_up(program, program->directory, program->name, name_found);
}

bool names_client_has_looked(const struct program *program)
{
	return !program->busy && program->looked > 0 && program->looked == 2 * program->look_count;
}

/* ---- start, stop ---- */

void *names_client_start(struct world *world, unsigned number, struct loop *loop)
{
	struct program *program = mem_zero(1, sizeof *program);
	struct client_options options = { .cluster = WORLD_MASTER_ADDRESSES, .events = &events, .events_arg = program };
	program->world = world;
	program->history = world->arg;
	program->number = number;
	program->loop = loop;
	program->cache = mem_zero(INODES_MAX, sizeof *program->cache);
	program->gone = mem_zero(INODES_MAX, sizeof *program->gone);
	program->home = (uint16_t)(1 + number % MODEL_SHARED);
	check(client_open(loop, &options, &program->client) == OK);
	timer_init(&program->timer, loop, on_timer, program);
	return program;
}

/* Nothing is called back that would look at the history: the process is gone. */
void names_client_stop(void *arg)
{
	struct program *program = arg;
	struct deferred *deferred, *next;
	program->stopping = true;
	while (program->acks)
		slow_ack_end(program->acks);
	client_close(program->client);
	DL_FOREACH_SAFE2 (program->deferred, deferred, next, next) {
		timer_stop(&deferred->timer);
		free(deferred);
	}
	timer_stop(&program->timer);
	free(program->cache);
	free(program->gone);
	free(program);
}

static void shared_made(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	check(err == OK);
	for (size_t i = 0; i < MODEL_SHARED; i++) {
		check(reply->results[i]->error == OK);
		check(number_of(program->history, reply->results[i]->inode, MODE_DIRECTORY) == i + 1);
	}
	program->history->made = true;
}

void names_client_make_shared(struct program *program)
{
	Granary__MetaOp ops[MODEL_SHARED], *pointers[MODEL_SHARED];
	Granary__Create creates[MODEL_SHARED];
	for (unsigned i = 0; i < MODEL_SHARED; i++) {
		granary__meta_op__init(&ops[i]);
		granary__create__init(&creates[i]);
		creates[i].parent = 1;
		creates[i].name = name_bytes((uint8_t)i);
		creates[i].mode = MODE_DIRECTORY | 0755;
		ops[i].op_case = GRANARY__META_OP__OP_CREATE;
		ops[i].create = &creates[i];
		pointers[i] = &ops[i];
	}
	client_meta(program->client, pointers, MODEL_SHARED, shared_made, program);
}

void names_client_begin(struct program *program)
{
	later(program, rng_below(names_rng(program), 20), step);
}
