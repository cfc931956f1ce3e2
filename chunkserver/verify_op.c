/* Whether the shards of a set are what they should be, for the scrub.
 *
 *   FIRSTS -> READ <-> (take) -> (judge) -> end
 *
 * FIRSTS: the first block of each says how long they are. READ: all of each, from their disks, a piece at a time, kept in memory. Then they are
 * judged together (common/data/coded_judge.h). If one of them cannot be read now nothing is said; one that is too short, or gone, is wrong. Those that
 * have no server in the location are left out. Of each that is wrong the master is told, who has it made anew. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/cold_task.h"
#include "chunkserver/master_link.h"
#include "chunkserver/shard_calls.h"
#include "common/base/check.h"
#include "common/data/coded_judge.h"
#include "common/sys/log.h"

enum verify_state { VERIFY_FIRSTS, VERIFY_SIZE, VERIFY_READ, VERIFY_TAKE, VERIFY_TAKEN, VERIFY_JUDGED };

struct verify {
	struct cold_task task;
	enum verify_state state;
	struct shard_calls calls;
	uint64_t shorter; /* bits; and those that are absent, or gone: */
	uint64_t gone;	  /* their servers have none */
	uint32_t offset;
	uint8_t *shards[SHARDS_MAX];
	struct coded_set set; /* of those */
	uint64_t bad;
	enum err err;
	cold_verified_fn *done;
	void *arg;
};

static struct verify *verify_of(struct cold_task *task)
{
	return container_of(task, struct verify, task);
}

static unsigned shard_count(const struct verify *verify)
{
	return (unsigned)verify->task.command->coded->n_shards;
}

static void verify_clear(struct cold_task *task)
{
	struct verify *verify = verify_of(task);
	shard_calls_clear(&verify->calls);
	for (unsigned place = 0; place < SHARDS_MAX; place++)
		free(verify->shards[place]);
}

static void tell(const struct verify *verify)
{
	const struct service *service = verify->task.service;
	const Granary__ColdCommand *command = verify->task.command;
	for (unsigned place = 0; place < shard_count(verify); place++) {
		const Granary__ShardLocation *shard = command->coded->shards[place];
		if ((verify->bad >> place & 1) == 0)
			continue;
		log_error("shard_wrong", "chunk=%016" PRIx64 " place=%u shard=%016" PRIx64 " server=%016" PRIx64, command->chunk->chunk, place,
			  shard->shard, shard->server);
		master_link_report(service->link, &(struct master_link_failure){ .chunk = shard->shard,
										 .version = shard->version,
										 .server = shard->server,
										 .lost = true });
	}
}

static void end(struct verify *verify, enum err err)
{
	cold_verified_fn *done = verify->done;
	void *arg = verify->arg;
	uint64_t bad = verify->bad;
	if (err == OK)
		tell(verify);
	else if (err == ERR_CORRUPT || err == ERR_TOO_MANY)
		log_error("shards_differ", "chunk=%016" PRIx64 " error=%s", verify->task.command->chunk->chunk, err_name(err));
	cold_task_end(&verify->task, err, NULL);
	if (done != NULL)
		done(arg, err, bad);
}

static void on_called(void *arg)
{
	struct verify *verify = arg;
	for (unsigned place = 0; place < shard_count(verify); place++) {
		enum err err = (verify->calls.places >> place & 1) != 0 ? verify->calls.errs[place] : OK;
		if (err == ERR_RANGE || err == ERR_NO_CHUNK) {
			verify->shorter |= 1ull << place;
			verify->gone |= err == ERR_NO_CHUNK ? 1ull << place : 0;
		} else if (err != OK) {
			end(verify, err == ERR_CORRUPT ? ERR_BUSY : err); /* what its server finds by itself */
			return;
		}
	}
	verify->task.step(&verify->task);
}

static void read_all(struct verify *verify, uint32_t bytes, enum verify_state next)
{
	verify->calls.places = ((1ull << shard_count(verify)) - 1) & ~verify->shorter;
	verify->calls.offset = verify->offset;
	verify->calls.bytes = bytes;
	verify->state = next;
	if (verify->calls.places == 0)
		end(verify, verify->gone != 0 ? ERR_NO_CHUNK : ERR_CORRUPT); /* all of the set is, perhaps: it is hot */
	else
		shard_calls_start(&verify->calls);
}

static void begin(struct verify *verify)
{
	const Granary__ColdCommand *command = verify->task.command;
	verify->set = (struct coded_set){ .data_shards = command->coded->data_shards,
					  .parity_shards = command->coded->parity_shards,
					  .chunk = command->chunk->chunk };
	for (unsigned place = 0; place < shard_count(verify); place++)
		verify->set.absent |= command->coded->shards[place]->server == 0 ? 1ull << place : 0;
	verify->shorter = verify->set.absent;
	shard_calls_init(&verify->calls, verify->task.service, command->coded);
	verify->calls.kind = SHARD_READ;
	verify->calls.from_disk = true;
	verify->calls.done = on_called;
	verify->calls.arg = verify;
	read_all(verify, BLOCK_BYTES, VERIFY_SIZE);
}

static void size(struct verify *verify)
{
	for (unsigned place = 0; place < shard_count(verify); place++)
		verify->set.shards[place] = verify->calls.data[place] == NULL ? NULL : verify->calls.data[place]->bytes;
	enum err err = coded_set_bytes(&verify->set, &verify->set.bytes);
	if (err != OK) {
		end(verify, err);
		return;
	}
	for (unsigned place = 0; place < shard_count(verify); place++)
		verify->shards[place] = mem_alloc(verify->set.bytes);
	verify->state = VERIFY_READ;
	cold_task_spend(&verify->task, (uint64_t)shard_count(verify) * BLOCK_BYTES);
}

static void take(struct cold_task *task)
{
	struct verify *verify = verify_of(task);
	for (unsigned place = 0; place < shard_count(verify); place++)
		if ((verify->shorter >> place & 1) == 0)
			memcpy(verify->shards[place] + verify->offset, verify->calls.data[place]->bytes, verify->calls.bytes);
}

static void judge(struct cold_task *task)
{
	struct verify *verify = verify_of(task);
	for (unsigned place = 0; place < shard_count(verify); place++)
		verify->set.shards[place] = (verify->shorter >> place & 1) != 0 ? NULL : verify->shards[place];
	verify->err = coded_judge(&verify->set, &verify->bad);
}

static void verify_step(struct cold_task *task)
{
	struct verify *verify = verify_of(task);
	uint32_t left = verify->set.bytes - verify->offset;
	switch (verify->state) {
	case VERIFY_FIRSTS:
		begin(verify);
		break;
	case VERIFY_SIZE:
		size(verify);
		break;
	case VERIFY_READ:
		if (left > 0) {
			read_all(verify, left < FRAME_DATA_BYTES_MAX ? left : FRAME_DATA_BYTES_MAX, VERIFY_TAKE);
			break;
		}
		verify->state = VERIFY_JUDGED;
		cold_task_compute(task, judge);
		break;
	case VERIFY_TAKE:
		verify->state = VERIFY_TAKEN;
		cold_task_compute(task, take);
		break;
	case VERIFY_TAKEN:
		verify->offset += verify->calls.bytes;
		verify->state = VERIFY_READ;
		cold_task_spend(task, (uint64_t)verify->calls.bytes * shard_count(verify));
		break;
	case VERIFY_JUDGED:
		end(verify, verify->err);
		break;
	}
}

struct cold_task *verify_open(cold_verified_fn *done, void *arg)
{
	struct verify *verify = mem_zero(1, sizeof(*verify));
	verify->task.step = verify_step;
	verify->task.clear = verify_clear;
	verify->done = done;
	verify->arg = arg;
	return &verify->task;
}
