#include "master/fsck.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/snowflake.h"
#include "common/sys/log.h"
#include "master/fsck_copies.h"
#include "master/meta/check.h"

#define SLICE_PAUSE_MS 3u /* about as long as a slice takes */
#define STEP_MS 20u

enum fsck_stage { FSCK_IDLE, FSCK_TABLES, FSCK_COPIES, FSCK_REPAIR, FSCK_END };

struct finding {
	enum check_kind kind;
	uint64_t id, other, version;
	enum fsck_repair repair;
};

struct fsck {
	struct loop *loop;
	struct replica *replica;
	struct servers *servers;
	struct timer timer;
	enum fsck_stage stage;
	uint64_t run, asked_ms;
	bool repair;
	uint64_t orphan_age_ms;
	struct check *check;
	struct copies *copies;
	struct finding *findings;
	size_t count, capacity;
	uint64_t found, repaired, undecided;
	uint32_t compared, missed;
	/* Repairs on their way through the log: of the findings [first, next). */
	bool proposed;
	size_t first, next;
	size_t of_op[FSCK_REPAIRS_MAX]; /* each operation's finding */
	struct proposal proposal;
	Granary__MetaRequest request;
	Granary__MetaOp ops[FSCK_REPAIRS_MAX], *list[FSCK_REPAIRS_MAX];
	Granary__FsckRepair repairs[FSCK_REPAIRS_MAX];
	Granary__CopyRemove removals[FSCK_REPAIRS_MAX];
};

static uint64_t now_ms(const struct fsck *fsck)
{
	return loop_now_us(fsck->loop) / 1000;
}

static void finding_add(struct fsck *fsck, const struct finding *finding)
{
	fsck->found++;
	if (fsck->count == FSCK_FINDINGS_MAX)
		return;
	if (fsck->count == fsck->capacity) {
		fsck->capacity = fsck->capacity ? 2 * fsck->capacity : 64;
		fsck->findings = mem_resize(fsck->findings, fsck->capacity * sizeof(*fsck->findings));
	}
	fsck->findings[fsck->count++] = *finding;
}

static void stop(struct fsck *fsck)
{
	timer_stop(&fsck->timer);
	check_close(fsck->check);
	fsck->check = NULL;
	copies_stop(fsck->copies);
	fsck->stage = FSCK_IDLE;
	fsck->count = fsck->first = fsck->next = 0;
	fsck->found = fsck->repaired = fsck->undecided = 0;
	fsck->compared = fsck->missed = 0;
}

/* ---- tables */

static void on_check(void *arg, const struct check_finding *found)
{
	finding_add(arg, &(struct finding){ .kind = found->kind, .id = found->id, .other = found->other });
}

static void step_tables(struct fsck *fsck)
{
	bool end = false;

	if (check_run(fsck->check, FSCK_KEYS_MAX, on_check, fsck, &end)) {
		stop(fsck); /* the store has failed: so will this master */
		return;
	}
	if (end) {
		fsck->undecided = check_undecided(fsck->check);
		fsck->stage = FSCK_COPIES;
		copies_begin(fsck->copies);
	}
}

/* ---- copies */

/* Whether a chunk that no server holds has ever been written, as far as the masters know: one that was given out and never used is
 * nobody's loss. */
static bool was_written(const Granary__Chunk *chunk)
{
	return chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK ? chunk->live_count > 0 : chunk->written;
}

static bool is_missing(const struct copy *copies, size_t count, uint64_t chunk)
{
	size_t low = 0, high = count;

	while (low < high) { /* they are in order */
		size_t middle = low + (high - low) / 2;
		if (copies[middle].chunk < chunk)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && copies[low].chunk == chunk && copies[low].kind == CHECK_COPY_MISSING;
}

/* What was there is lost, or wrong. */
static bool is_made_in_place(struct fsck *fsck, uint64_t id)
{
	Granary__Chunk *shard = NULL;

	if (meta_chunk(replica_meta(fsck->replica), id, &shard))
		return false;
	bool is = shard->rebuilding != 0 && shard->n_replicas > 0 && shard->rebuilding == shard->replicas[0];
	message_free(&shard->base);
	return is;
}

/* A shard that is not there is made anew of the others of its set, as long as there are enough: if not, that is said once. */
static void add_shard(struct fsck *fsck, const struct copy *missing, const Granary__Chunk *shard)
{
	Granary__Chunk *chunk = NULL;
	size_t count, lost = 0, first = 0;
	const struct copy *copies = copies_found(fsck->copies, &count);

	if (meta_chunk(replica_meta(fsck->replica), shard->owner, &chunk))
		return;
	for (size_t i = chunk->coding ? chunk->coding->n_shards : 0; i-- > 0;) {
		bool is = is_missing(copies, count, chunk->coding->shards[i]);
		first = is ? i : first;
		lost += is || is_made_in_place(fsck, chunk->coding->shards[i]);
	}
	if (!chunk->cold) /* they are being made */
		lost = 0;
	if (lost > 0 && lost <= chunk->coding->parity_shards)
		finding_add(fsck, &(struct finding){ .kind = CHECK_COPY_MISSING, .id = missing->chunk, .other = missing->server });
	else if (lost > 0 && chunk->coding->shards[first] == missing->chunk)
		finding_add(fsck, &(struct finding){ .kind = CHECK_CHUNK_LOST, .id = shard->owner, .other = chunk->owner });
	message_free(&chunk->base);
}

/* The copies of one chunk that do not serve: they are not there, or retired. If they are all that should serve, that is what is said, and
 * where there is an old one. */
static void add_not_serving(struct fsck *fsck, const struct copy *copies, size_t count)
{
	Granary__Chunk *chunk = NULL;
	uint64_t old = 0;

	if (meta_chunk(replica_meta(fsck->replica), copies[0].chunk, &chunk))
		return;
	for (size_t i = 0; i < count; i++)
		old = copies[i].kind == CHECK_COPY_RETIRED ? copies[i].server : old;
	if (old == 0 && chunk->n_stale > 0)
		old = chunk->stale[chunk->n_stale - 1];
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) {
		add_shard(fsck, &copies[0], chunk);
	} else if (count + (chunk->joining != 0) < chunk->n_replicas) {
		for (size_t i = 0; i < count; i++) {
			/* What another has of it was never acknowledged: it is made here, too, with the next write. */
			if (copies[i].kind == CHECK_COPY_MISSING && !was_written(chunk))
				continue;
			finding_add(fsck,
				    &(struct finding){ .kind = copies[i].kind, .id = copies[i].chunk, .other = copies[i].server });
		}
	} else if (was_written(chunk)) {
		finding_add(fsck, &(struct finding){ .kind = old ? CHECK_COPY_LAST : CHECK_CHUNK_LOST,
						     .id = copies[0].chunk,
						     .other = old ? old : chunk->owner });
	}
	message_free(&chunk->base);
}

static bool is_not_serving(const struct copy *copy)
{
	return copy->kind == CHECK_COPY_MISSING || copy->kind == CHECK_COPY_RETIRED;
}

static void copies_known(struct fsck *fsck)
{
	struct copy absent[REPLICAS_MAX];
	size_t count, absent_count = 0;
	const struct copy *copies = copies_found(fsck->copies, &count);

	for (size_t i = 0; i < count; i++) {
		if (is_not_serving(&copies[i]) && absent_count < REPLICAS_MAX)
			absent[absent_count++] = copies[i];
		else if (!is_not_serving(&copies[i]))
			finding_add(fsck, &(struct finding){ .kind = copies[i].kind,
							     .id = copies[i].chunk,
							     .other = copies[i].server,
							     .version = copies[i].version });
		if (absent_count > 0 && (i + 1 == count || copies[i + 1].chunk != copies[i].chunk)) {
			add_not_serving(fsck, absent, absent_count);
			absent_count = 0;
		}
	}
	copies_servers(fsck->copies, &fsck->compared, &fsck->missed);
}

/* ---- repair */

static bool wants_copy(enum check_kind kind)
{
	return kind == CHECK_COPY_MISSING || kind == CHECK_COPY_OLD || kind == CHECK_COPY_RETIRED || kind == CHECK_COPY_LAST ||
	       kind == CHECK_CHUNK_LOST;
}

/* All members of the chunk are in service, and no copy of it is missing: the old one is nobody's last. */
static bool is_whole(struct fsck *fsck, uint64_t id)
{
	Granary__Chunk *chunk = NULL;
	bool whole = meta_chunk(replica_meta(fsck->replica), id, &chunk) == OK;

	for (size_t i = 0; whole && i < chunk->n_replicas; i++) {
		const struct server *member = servers_find(fsck->servers, chunk->replicas[i]);
		whole = member && servers_is_usable(member, now_ms(fsck));
	}
	for (size_t i = 0; whole && i < fsck->count; i++)
		whole = fsck->findings[i].id != id || !wants_copy(fsck->findings[i].kind);
	message_free(chunk ? &chunk->base : NULL);
	return whole;
}

static bool may_remove(struct fsck *fsck, const struct finding *finding)
{
	uint64_t made_ms = snowflake_ms(finding->id), time_ms = replica_time_ms(fsck->replica);

	if (servers_are_ahead(fsck->servers))
		return false;
	if (finding->kind == CHECK_COPY_STRAY)
		return is_whole(fsck, finding->id);
	return finding->id < meta_newest_chunk(replica_meta(fsck->replica)) && made_ms + fsck->orphan_age_ms <= time_ms;
}

/* The operation that mends it. False: there is none. */
static bool repair_op(struct fsck *fsck, struct finding *finding, size_t at)
{
	Granary__MetaOp *op = &fsck->ops[at];

	granary__meta_op__init(op);
	if (!check_is_repaired(finding->kind))
		return false;
	if (finding->kind == CHECK_COPY_ORPHAN || finding->kind == CHECK_COPY_STRAY) {
		if (!may_remove(fsck, finding))
			return false;
		Granary__CopyRemove *removal = &fsck->removals[at];
		granary__copy_remove__init(removal);
		removal->server = finding->other;
		removal->n_chunks = removal->n_versions = 1;
		removal->chunks = &finding->id;
		removal->versions = &finding->version;
		op->op_case = GRANARY__META_OP__OP_COPY_REMOVE;
		op->copy_remove = removal;
		return true;
	}
	Granary__FsckRepair *repair = &fsck->repairs[at];
	granary__fsck_repair__init(repair);
	repair->kind = finding->kind;
	repair->id = finding->id;
	repair->other = finding->other;
	op->op_case = GRANARY__META_OP__OP_FSCK_REPAIR;
	op->fsck_repair = repair;
	return true;
}

static void step_repair(struct fsck *fsck)
{
	if (fsck->proposed)
		return;
	fsck->first = fsck->next;
	fsck->request.n_ops = 0;
	while (fsck->next < fsck->count && fsck->request.n_ops < FSCK_REPAIRS_MAX) {
		size_t at = fsck->request.n_ops;
		if (repair_op(fsck, &fsck->findings[fsck->next], at)) {
			fsck->list[at] = &fsck->ops[at];
			fsck->of_op[at] = fsck->next;
			fsck->request.n_ops++;
		}
		fsck->next++;
	}
	if (fsck->request.n_ops == 0) {
		fsck->stage = FSCK_END;
		return;
	}
	fsck->proposed = true;
	replica_propose(fsck->replica, &fsck->proposal);
}

static void on_repaired(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct fsck *fsck = container_of(proposal, struct fsck, proposal);

	fsck->proposed = false;
	if (fsck->stage != FSCK_REPAIR)
		return; /* the run was given up */
	for (size_t i = 0; i < fsck->request.n_ops; i++) {
		struct finding *finding = &fsck->findings[fsck->of_op[i]];
		enum err result = err ? err : (enum err)(*reply)->results[i]->error;
		finding->repair = result == OK ? FSCK_REPAIRED : result == ERR_NOT_FOUND ? FSCK_NOT_NEEDED : FSCK_REPAIR_FAILED;
		fsck->repaired += result == OK;
	}
}

/* ---- a run */

static void on_timer(void *arg)
{
	struct fsck *fsck = arg;

	if (!replica_can_read(fsck->replica) || now_ms(fsck) - fsck->asked_ms > FSCK_IDLE_MS) {
		if (!fsck->proposed)
			stop(fsck);
		else
			timer_start(&fsck->timer, STEP_MS);
		return;
	}
	switch (fsck->stage) {
	case FSCK_TABLES:
		step_tables(fsck);
		break;
	case FSCK_COPIES:
		if (copies_step(fsck->copies)) {
			copies_known(fsck);
			fsck->stage = fsck->repair ? FSCK_REPAIR : FSCK_END;
		}
		break;
	case FSCK_REPAIR:
		step_repair(fsck);
		break;
	case FSCK_IDLE:
	case FSCK_END:
		break;
	}
	if (fsck->stage != FSCK_IDLE)
		timer_start(&fsck->timer, fsck->stage == FSCK_TABLES ? SLICE_PAUSE_MS : STEP_MS);
}

static void begin(struct fsck *fsck, const Granary__FsckRequest *asked)
{
	stop(fsck);
	fsck->run = loop_random(fsck->loop) | 1;
	fsck->repair = asked->repair;
	fsck->orphan_age_ms = asked->orphan_age_ms;
	fsck->check = check_open(replica_meta(fsck->replica));
	fsck->stage = FSCK_TABLES;
	timer_start(&fsck->timer, 0);
	log_info("fsck_begun", "run=%016" PRIx64 " repair=%d", fsck->run, fsck->repair);
}

static void report(struct fsck *fsck, struct rpc_request *request, uint64_t after)
{
	Granary__FsckReport *out = mem_alloc(sizeof(*out));

	granary__fsck_report__init(out);
	out->run = fsck->run;
	out->end = fsck->stage == FSCK_END && after + FSCK_PAGE_MAX >= fsck->count;
	out->progress = fsck->stage == FSCK_TABLES ? check_progress(fsck->check) * 9 / 10 : fsck->stage == FSCK_END ? 1000 : 950;
	out->found = fsck->found;
	out->repaired = fsck->repaired;
	out->undecided = fsck->undecided;
	out->servers = fsck->compared;
	out->servers_missed = fsck->missed;
	out->index = meta_applied_index(replica_meta(fsck->replica));
	/* Their repair is known only at the end. */
	if (fsck->stage == FSCK_END && after < fsck->count)
		out->findings = mem_alloc(FSCK_PAGE_MAX * sizeof(*out->findings));
	for (size_t i = (size_t)after; fsck->stage == FSCK_END && i < fsck->count && out->n_findings < FSCK_PAGE_MAX; i++) {
		Granary__FsckFinding *finding = mem_alloc(sizeof(*finding));
		granary__fsck_finding__init(finding);
		finding->kind = fsck->findings[i].kind;
		finding->id = fsck->findings[i].id;
		finding->other = fsck->findings[i].other;
		finding->text = mem_string(check_text(finding->kind));
		finding->repair = fsck->findings[i].repair;
		out->findings[out->n_findings++] = finding;
	}
	rpc_reply(request, &out->base);
	message_free(&out->base);
}

void fsck_serve(struct fsck *fsck, struct rpc_request *request)
{
	const Granary__FsckRequest *asked = (const Granary__FsckRequest *)request->message;
	enum err err = OK;

	if (!replica_can_read(fsck->replica))
		err = ERR_NOT_LEADER;
	else if (asked->run != 0 && (fsck->stage == FSCK_IDLE || asked->run != fsck->run))
		err = ERR_NOT_FOUND;
	else if (asked->run == 0 && (fsck->proposed || (fsck->stage != FSCK_IDLE && fsck->stage != FSCK_END)))
		err = ERR_BUSY;
	if (err) {
		replica_refuse(fsck->replica, request, err);
		return;
	}
	fsck->asked_ms = now_ms(fsck);
	if (asked->run == 0)
		begin(fsck, asked);
	report(fsck, request, asked->after);
}

void fsck_inventory(struct fsck *fsck, const Granary__Inventory *page, bool first)
{
	copies_inventory(fsck->copies, page->server, page, first);
}

void fsck_deposed(struct fsck *fsck)
{
	stop(fsck);
}

struct fsck *fsck_open(struct loop *loop, struct replica *replica, struct servers *servers)
{
	struct fsck *fsck = mem_zero(1, sizeof(*fsck));

	fsck->loop = loop;
	fsck->replica = replica;
	fsck->servers = servers;
	fsck->copies = copies_open(loop, replica, servers);
	timer_init(&fsck->timer, loop, on_timer, fsck);
	granary__meta_request__init(&fsck->request);
	fsck->request.ops = fsck->list;
	fsck->proposal.request = &fsck->request;
	fsck->proposal.done = on_repaired;
	return fsck;
}

void fsck_close(struct fsck *fsck)
{
	if (!fsck)
		return;
	stop(fsck);
	copies_close(fsck->copies);
	free(fsck->findings);
	free(fsck);
}
