/* Locks: (try to take it -> hold it for a while -> release it) again and again. In the history a lock that is held is a name that is
 * there. A release whose lock may not have been held, or that is left to the end of the session, may happen at any time. */
#include "common/base/check.h"
#include "tests/sim/cluster_load.h"

#define EXCLUSIVE 2u

static uint32_t register_of(const struct lock_actor *actor)
{
	return REGISTER_LOCKS + actor->lock;
}

static void send(struct lock_actor *actor, unsigned kind, client_meta_fn *done)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__SetLock lock = GRANARY__SET_LOCK__INIT;
	Granary__LockRange range = GRANARY__LOCK_RANGE__INIT;
	range.session = client_session(actor->program->client);
	range.owner = actor->program->number + 1;
	range.kind = kind;
	range.flock = true;
	range.end = INT64_MAX;
	lock.inode = actor->program->run->tables[actor->lock];
	lock.range = &range;
	op.op_case = GRANARY__META_OP__OP_SET_LOCK;
	op.set_lock = &lock;
	client_meta(actor->program->client, (Granary__MetaOp *[]){ &op }, 1, done, actor);
}

static void on_released(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct lock_actor *actor = arg;
	struct run *run = actor->program->run;
	if (actor->program->dead)
		return;
	err = load_result(err, reply);
	if (err) {
		load_failed(actor->program, "release of lock", actor->lock, err);
		actor->unknown = actor->unknown || actor->held;
		actor->held = false;
	} else {
		if (actor->held)
			history_done(run->history, actor->operation, 0, load_now(actor->program));
		actor->held = actor->unknown = false;
	}
	load_later(actor->program, &actor->timer);
}

static void on_taken(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct lock_actor *actor = arg;
	struct run *run = actor->program->run;
	if (actor->program->dead)
		return;
	err = load_result(err, reply);
	if (err == OK) {
		history_done(run->history, actor->operation, 0, load_now(actor->program));
		run->counts.locks++;
		actor->held = true;
	} else if (err == ERR_WOULD_BLOCK) {
		history_refused(run->history, actor->operation, load_now(actor->program));
	} else {
		load_failed(actor->program, "taking of lock", actor->lock, err);
		actor->unknown = true;
	}
	load_later(actor->program, &actor->timer);
}

static void step(void *arg)
{
	struct lock_actor *actor = arg;
	if (actor->held || actor->unknown) {
		actor->operation = load_begin(actor->program, register_of(actor), HISTORY_REMOVE, 0);
		send(actor, 0, on_released);
	} else if (actor->program->run->ending) {
		actor->checked = true;
	} else {
		actor->operation = load_begin(actor->program, register_of(actor), HISTORY_CREATE, ++actor->program->run->version);
		send(actor, EXCLUSIVE, on_taken);
	}
}

void locks_init(struct lock_actor *actor)
{
	timer_init(&actor->timer, actor->program->loop, step, actor);
}

void locks_stop(struct lock_actor *actor)
{
	timer_stop(&actor->timer);
}

void locks_lost(struct lock_actor *actor)
{
	if (load_is_made(actor->program->run))
		load_begin(actor->program, register_of(actor), HISTORY_REMOVE, 0);
	actor->held = actor->unknown = false;
}
