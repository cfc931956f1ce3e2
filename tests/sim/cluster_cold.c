/* The operator: asks the masters for cold and hot chunks, of tables and of files that names led to, without waiting for it; and in the end for all
 * of them, until it is so. */
#include "common/base/check.h"
#include "tests/sim/cluster_load.h"

#define PAUSE_MS 250u
#define WARM_ONE_IN 4u /* the clients' writes warm, too */

static void ask(struct cold_actor *actor, uint64_t inode, bool warm, client_reply_fn *done)
{
	Granary__CoolRequest request = GRANARY__COOL_REQUEST__INIT;
	request.inode = inode;
	request.warm = warm;
	request.first = actor->first;
	client_call_leader(actor->program->client, MESSAGE_COOL, &request.base, done, actor);
}

/* ---- at random ---- */

static void later(struct cold_actor *actor)
{
	timer_start(&actor->timer, rng_below(load_rng(actor->program), PAUSE_MS));
}

static void on_answer(void *arg, enum err err, const ProtobufCMessage *reply)
{
	struct cold_actor *actor = arg;
	if (actor->program->dead)
		return;
	if (err == OK)
		actor->program->run->counts.cold += (unsigned)((const Granary__CoolReply *)reply)->cold;
	if (!actor->program->run->ending)
		later(actor);
}

static void step(void *arg)
{
	struct cold_actor *actor = arg;
	struct program *program = actor->program;
	struct run *run = program->run;
	uint64_t which = rng_below(load_rng(program), TABLES + 2);
	uint64_t inode = which < TABLES ? run->tables[which] : program->names.inode;
	bool warm = rng_below(load_rng(program), WARM_ONE_IN) == 0;
	if (run->ending)
		return;
	if (inode == 0) {
		later(actor);
		return;
	}
	sim_trace(run->world.sim, "client%u: asks for inode %u to be %s", program->number + 1, (unsigned)inode, warm ? "hot" : "cold");
	ask(actor, inode, warm, on_answer);
}

/* ---- all ---- */

static void ask_next(struct cold_actor *actor);

static void pass_again(void *arg)
{
	struct cold_actor *actor = arg;
	actor->undone = 0;
	actor->table = 0;
	actor->file = actor->program->run->files;
	ask_next(actor);
}

static void on_counted(void *arg, enum err err, const ProtobufCMessage *message)
{
	struct cold_actor *actor = arg;
	const Granary__CoolReply *reply = (const Granary__CoolReply *)message;
	bool may_fail = actor->program->run->may_lose; /* what is damaged stays as it is */
	actor->first = 0;
	if (err == OK) {
		actor->undone += reply->chunks - (actor->warm ? reply->hot : reply->cold) - (may_fail ? reply->failed : 0);
		actor->program->run->counts.cold += (unsigned)reply->cold;
		actor->first = reply->next;
	} else if (err != ERR_NOT_FOUND && err != ERR_STALE_HANDLE) { /* removed */
		load_failed(actor->program, "cool or warm", 0, err);
		actor->undone++;
	}
	if (actor->first == 0 && actor->table < TABLES)
		actor->table++;
	else if (actor->first == 0)
		actor->file = actor->file->hh.next;
	ask_next(actor);
}

static void ask_next(struct cold_actor *actor)
{
	if (actor->table < TABLES)
		ask(actor, actor->program->run->tables[actor->table], actor->warm, on_counted);
	else if (actor->file)
		ask(actor, actor->file->inode, actor->warm, on_counted);
	else if (actor->undone == 0)
		actor->converted = true;
	else
		timer_start(&actor->timer, PAUSE_MS);
}

void cold_convert(struct cold_actor *actor, bool warm)
{
	actor->warm = warm;
	actor->converted = false;
	timer_stop(&actor->timer);
	timer_init(&actor->timer, actor->program->loop, pass_again, actor);
	actor->first = 0;
	pass_again(actor);
}

void cold_init(struct cold_actor *actor)
{
	timer_init(&actor->timer, actor->program->loop, step, actor);
}

void cold_go(struct cold_actor *actor)
{
	later(actor);
}

void cold_stop(struct cold_actor *actor)
{
	timer_stop(&actor->timer);
}
