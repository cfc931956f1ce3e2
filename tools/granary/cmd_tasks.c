/* admin tasks: what the masters do later, or in the background (common/proto/task.h). */
#include <inttypes.h>
#include <stdio.h>

#include "common/proto/storage_class.h"
#include "common/proto/task.h"
#include "tools/granary/commands.h"
#include "tools/granary/json.h"
#include "tools/granary/leader_call.h"

#define SHOWN_DEFAULT 10u

static void print_task(const Granary__TaskItem *item, uint64_t time_ns)
{
	char due[32];
	const Granary__Task *task = item->task;
	printf("%-8s  %-16s  ", task_kind_name(task->kind), item->due > time_ns ? text_time((int64_t)item->due, due) : "now");
	if (task->kind == TASK_CLASS)
		printf("class %s\n", storage_class_name(task->class_));
	else if (task->kind == TASK_ASSIGN)
		printf("inode %016" PRIx64 "  class %s\n", task->target, storage_class_name(task->class_));
	else
		printf("%s %016" PRIx64 "\n", task->kind == TASK_MOVE ? "inode" : "chunk", task->target);
}

static void print_tasks(const Granary__TasksReply *reply)
{
	for (size_t kind = 1; kind < reply->n_tasks; kind++)
		printf("%s: %" PRIu64 "%s", task_kind_name((unsigned)kind), reply->tasks[kind], kind + 1 < reply->n_tasks ? ", " : "\n");
	for (size_t i = 0; i < reply->n_first; i++) {
		if (reply->first[i]->task)
			print_task(reply->first[i], reply->time_ns);
	}
}

static void print_tasks_json(const Granary__TasksReply *reply)
{
	struct json json;
	json_init(&json, stdout);
	json_open(&json, NULL, '{');
	json_open(&json, "counts", '{');
	for (size_t kind = 1; kind < reply->n_tasks; kind++)
		json_number(&json, task_kind_name((unsigned)kind), reply->tasks[kind]);
	json_close(&json, '}');
	json_open(&json, "first", '[');
	for (size_t i = 0; i < reply->n_first; i++) {
		const Granary__TaskItem *item = reply->first[i];
		if (!item->task)
			continue;
		json_open(&json, NULL, '{');
		json_text(&json, "kind", task_kind_name(item->task->kind));
		json_number(&json, "due_ns", item->due);
		json_id(&json, "target", item->task->target);
		json_text(&json, "class", storage_class_name(item->task->class_));
		json_close(&json, '}');
	}
	json_close(&json, ']');
	json_close(&json, '}');
}

int cmd_admin_tasks(struct cli *cli, int argc, char **argv)
{
	bool as_json = false;
	uint64_t count = SHOWN_DEFAULT;
	const struct cli_option options[] = {
	    {"json", 0, CLI_FLAG, &as_json, NULL, "as an object"},
	    {"count", 'n', CLI_COUNT, &count, "N", "show so many of those that are due first (10)"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	Granary__TasksRequest request = GRANARY__TASKS_REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	request.count = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
	result = leader_call(cli, "tasks", MESSAGE_TASKS, &request.base, &reply);
	if (result == EXIT_DONE && as_json)
		print_tasks_json((const Granary__TasksReply *)reply);
	else if (result == EXIT_DONE)
		print_tasks((const Granary__TasksReply *)reply);
	message_free(reply);
	return result;
}
