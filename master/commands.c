#include "master/commands.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#include "common/base/check.h"

#define PUSH_BYTES_MAX (FRAME_MESSAGE_BYTES_MAX / 2)

struct waiting {
	Granary__ChunkCommand *command;
	struct waiting *prev, *next;
};

struct queue {
	uint64_t server;
	struct commands *commands;
	struct waiting *waiting;
	size_t waiting_count;
	/* In the call under way. */
	struct waiting *sent[COMMANDS_PER_PUSH_MAX];
	size_t sent_count;
	rpc_call_id call;
	UT_hash_handle hh;
};

struct commands {
	struct loop *loop;
	struct rpc *rpc;
	struct servers *servers;
	commands_done_fn *done;
	void *arg;
	struct queue *queues;
	struct defer pump;
};

static void waiting_free(struct waiting *waiting)
{
	message_free(&waiting->command->base);
	free(waiting);
}

static void waiting_end(struct queue *queue, struct waiting *waiting, enum err err)
{
	queue->commands->done(queue->commands->arg, queue->server, waiting->command, err);
	waiting_free(waiting);
}

static struct waiting *queue_take(struct queue *queue)
{
	struct waiting *first = queue->waiting;

	DL_DELETE(queue->waiting, first);
	queue->waiting_count--;
	return first;
}

static void on_answer(void *arg, const struct rpc_result *result)
{
	struct queue *queue = arg;
	const Granary__ChunkCommandsReply *reply = (const Granary__ChunkCommandsReply *)result->reply;
	size_t count = queue->sent_count;

	queue->call = 0;
	queue->sent_count = 0;
	for (size_t i = 0; i < count; i++) {
		enum err err = result->err;
		if (err == OK)
			err = i < reply->n_errors ? (reply->errors[i] ? err_from_wire(reply->errors[i]) : OK) : ERR_PROTOCOL;
		waiting_end(queue, queue->sent[i], err);
	}
	defer_post(&queue->commands->pump);
}

static void queue_pump(struct queue *queue)
{
	const struct server *server = servers_find(queue->commands->servers, queue->server);
	Granary__ChunkCommands message = GRANARY__CHUNK_COMMANDS__INIT;
	Granary__ChunkCommand *commands[COMMANDS_PER_PUSH_MAX];
	size_t bytes = 0;

	if (queue->call || !queue->waiting)
		return;
	if (!server || !server->connection) {
		for (size_t count = queue->waiting_count; count > 0; count--)
			waiting_end(queue, queue_take(queue), ERR_CLOSED);
		return;
	}
	while (queue->waiting && queue->sent_count < COMMANDS_PER_PUSH_MAX && bytes < PUSH_BYTES_MAX) {
		struct waiting *waiting = queue_take(queue);
		commands[queue->sent_count] = waiting->command;
		queue->sent[queue->sent_count++] = waiting;
		bytes += protobuf_c_message_get_packed_size(&waiting->command->base);
	}
	message.commands = commands;
	message.n_commands = queue->sent_count;
	queue->call = rpc_conn_call(server->connection, MESSAGE_CHUNK_COMMANDS, &message.base, COMMANDS_TIMEOUT_MS, on_answer,
				    queue);
}

static void on_pump(void *arg)
{
	struct commands *commands = arg;

	for (struct queue *queue = commands->queues; queue; queue = queue->hh.next)
		queue_pump(queue);
}

struct commands *commands_open(struct loop *loop, struct rpc *rpc, struct servers *servers, commands_done_fn *done, void *arg)
{
	struct commands *commands = mem_zero(1, sizeof(*commands));

	commands->loop = loop;
	commands->rpc = rpc;
	commands->servers = servers;
	commands->done = done;
	commands->arg = arg;
	defer_init(&commands->pump, loop, on_pump, commands);
	return commands;
}

static void queue_free(struct queue *queue)
{
	if (queue->call)
		rpc_call_cancel(queue->commands->rpc, queue->call);
	for (size_t i = 0; i < queue->sent_count; i++)
		waiting_free(queue->sent[i]);
	while (queue->waiting)
		waiting_free(queue_take(queue));
	free(queue);
}

void commands_close(struct commands *commands)
{
	struct queue *queue, *next;

	if (!commands)
		return;
	defer_cancel(&commands->pump);
	HASH_ITER(hh, commands->queues, queue, next)
	{
		HASH_DEL(commands->queues, queue);
		queue_free(queue);
	}
	free(commands);
}

bool commands_add(struct commands *commands, uint64_t server_id, Granary__ChunkCommand *command)
{
	const struct server *server = servers_find(commands->servers, server_id);
	struct queue *queue;

	HASH_FIND(hh, commands->queues, &server_id, sizeof(server_id), queue);
	if (!server || !server->connection || (queue && queue->waiting_count >= COMMANDS_WAITING_MAX)) {
		message_free(&command->base);
		return false;
	}
	if (!queue) {
		queue = mem_zero(1, sizeof(*queue));
		queue->server = server_id;
		queue->commands = commands;
		HASH_ADD(hh, commands->queues, server, sizeof(queue->server), queue);
	}
	struct waiting *waiting = mem_zero(1, sizeof(*waiting));
	waiting->command = command;
	DL_APPEND(queue->waiting, waiting);
	queue->waiting_count++;
	defer_post(&commands->pump);
	return true;
}

Granary__ChunkCommand *command_delete(uint64_t garbage, uint64_t chunk, const uint32_t *slots, size_t slot_count)
{
	Granary__ChunkCommand *command = mem_alloc(sizeof(*command));

	granary__chunk_command__init(command);
	command->garbage = garbage;
	command->chunk = chunk;
	command->delete_chunk = slot_count == 0;
	if (slot_count > 0) {
		command->n_delete_slots = slot_count;
		command->delete_slots = mem_alloc(slot_count * sizeof(*slots));
		memcpy(command->delete_slots, slots, slot_count * sizeof(*slots));
	}
	return command;
}

Granary__ChunkCommand *command_drop_copy(uint64_t garbage, uint64_t chunk, uint64_t version, bool retire)
{
	Granary__ChunkCommand *command = command_delete(garbage, chunk, NULL, 0);

	command->version = version;
	command->retire = retire;
	command->delete_chunk = !retire;
	return command;
}

Granary__ChunkCommand *command_configure(const Granary__ChunkLocation *location)
{
	Granary__ChunkCommand *command = mem_alloc(sizeof(*command));

	granary__chunk_command__init(command);
	command->chunk = location->chunk;
	command->configure = (Granary__ChunkLocation *)message_copy(&location->base);
	return command;
}
