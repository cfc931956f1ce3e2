/* admin what-if: what would be lost with some servers, and how long repair would take. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/cluster_status.h"
#include "tools/granary/commands.h"
#include "tools/granary/json.h"
#include "tools/granary/leader_call.h"
#include "tools/granary/remote_tree.h"

#define LAYOUT_BLOB 2u

struct what_if {
	struct cli *cli;
	uint64_t *servers;
	size_t count;
	const Granary__WhatIfReply *reply;
	char **names; /* of files that would be lost */
	size_t name_count;
};

/* ---- which servers */

/* `name` is the location, or a domain that it is in: "zone" of "zone/rack". */
static bool is_within(const char *location, const char *name)
{
	size_t length = strlen(name);
	return length > 0 && strncmp(location, name, length) == 0 && (location[length] == 0 || location[length] == '/');
}

static void add_server(struct what_if *what_if, uint64_t server)
{
	for (size_t i = 0; i < what_if->count; i++) {
		if (what_if->servers[i] == server)
			return;
	}
	what_if->servers[what_if->count++] = server;
}

static int find_servers(struct what_if *what_if, const Granary__ClusterStatus *status, const char *name)
{
	uint64_t id = 0;
	bool is_id = cli_parse_id(name, &id), found = false;
	for (size_t i = 0; i < status->n_servers; i++) {
		const Granary__ServerStatus *server = status->servers[i];
		if ((is_id && server->server == id) || strcmp(server->address, name) == 0 || strcmp(server->host, name) == 0 ||
		    is_within(server->location, name)) {
			add_server(what_if, server->server);
			found = true;
		}
	}
	if (found)
		return EXIT_DONE;
	cli_error_text(what_if->cli, name, "no such chunkserver, host or location (`granary admin servers` lists them)");
	return EXIT_NOT_FOUND;
}

static int take_list(struct what_if *what_if, const char *list)
{
	Granary__ClusterStatusRequest request = GRANARY__CLUSTER_STATUS_REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	request.servers = true;
	int result = leader_call(what_if->cli, "chunkservers", MESSAGE_CLUSTER_STATUS, &request.base, &reply);
	if (result != EXIT_DONE)
		return result;
	const Granary__ClusterStatus *status = (const Granary__ClusterStatus *)reply;
	what_if->servers = mem_alloc((status->n_servers + 1) * sizeof *what_if->servers);
	char *names = mem_string(list), *rest = NULL;
	for (char *name = strtok_r(names, ",", &rest); name && result == EXIT_DONE; name = strtok_r(NULL, ",", &rest))
		result = find_servers(what_if, status, name);
	free(names);
	message_free(reply);
	if (result == EXIT_DONE && what_if->count == 0)
		result = cli_usage_error(what_if->cli, list, "names no server");
	return result;
}

/* ---- what would be lost, by name */

static bool is_lost(const struct what_if *what_if, const struct granary_stat *stat)
{
	for (size_t i = 0; i < what_if->reply->n_first; i++) {
		const Granary__WhatIfLost *lost = what_if->reply->first[i];
		if (stat->layout == LAYOUT_BLOB ? lost->chunk == stat->pack : lost->inode == stat->inode)
			return true;
	}
	return false;
}

static int on_file(struct cli *cli, const struct visited *visited, void *arg)
{
	struct what_if *what_if = arg;
	(void)cli;
	if (visited->visit == VISIT_FILE && what_if->name_count < WHAT_IF_LOST_MAX && is_lost(what_if, visited->stat))
		what_if->names[what_if->name_count++] = mem_string(visited->path);
	return EXIT_DONE;
}

static int find_names(struct what_if *what_if)
{
	int result = cli_connect(what_if->cli);
	what_if->names = mem_zero(WHAT_IF_LOST_MAX, sizeof *what_if->names);
	return result == EXIT_DONE && what_if->reply->n_first > 0 ? tree_walk(what_if->cli, "/", on_file, what_if) : result;
}

/* ---- how it is said */

static void print_count(const char *text, const Granary__WhatIfCount *count)
{
	char size[16];
	printf("%-22s %10" PRIu64 " chunks  %10s\n", text, count->chunks, text_size(count->bytes, size));
}

static void print_reply(const struct what_if *what_if)
{
	const Granary__WhatIfReply *reply = what_if->reply;
	char room[16], needed[16], time[32];
	printf("without %zu chunkserver%s, as the cluster is now (%" PRIu32 " servers on %" PRIu32 " hosts are left):\n", what_if->count,
	       what_if->count == 1 ? "" : "s", reply->servers_left, reply->hosts_left);
	print_count("of all", reply->all);
	print_count("lost", reply->lost);
	print_count("one failure from loss", reply->alone);
	print_count("degraded otherwise", reply->degraded);
	if (reply->before->chunks > 0)
		print_count("unavailable already", reply->before);
	for (size_t i = 0; i < reply->n_first; i++) {
		const Granary__WhatIfLost *lost = reply->first[i];
		if (lost->inode == 0)
			printf("  lost: pack %016" PRIx64 ", %" PRIu64 " small files\n", lost->chunk, lost->blobs);
		else
			printf("  lost: file %016" PRIx64 ", chunk %" PRIu32 " (%016" PRIx64 ")\n", lost->inode, lost->index, lost->chunk);
	}
	for (size_t i = 0; i < what_if->name_count; i++) {
		fputs("  lost: ", stdout);
		print_name(what_if->names[i]);
		putchar('\n');
	}
	if (reply->homeless->chunks > 0)
		print_count("too few servers for", reply->homeless);
	text_size(reply->repair_bytes, needed);
	if (reply->repair_bytes > reply->room_bytes)
		printf("repair: %s are to be written, but there is room for %s only\n", needed, text_size(reply->room_bytes, room));
	else
		printf("repair: %s to be written, room for %s, %s at the rates that are set\n", needed, text_size(reply->room_bytes, room),
		       text_duration((reply->repair_ms / 1000 + (reply->repair_bytes > 0)) * 1000, time));
}

static void json_count(struct json *json, const char *key, const Granary__WhatIfCount *count)
{
	json_open(json, key, '{');
	json_number(json, "chunks", count->chunks);
	json_number(json, "bytes", count->bytes);
	json_close(json, '}');
}

static void print_json(const struct what_if *what_if)
{
	const Granary__WhatIfReply *reply = what_if->reply;
	struct json json;
	json_init(&json, stdout);
	json_open(&json, NULL, '{');
	json_open(&json, "servers", '[');
	for (size_t i = 0; i < what_if->count; i++)
		json_id(&json, NULL, what_if->servers[i]);
	json_close(&json, ']');
	json_count(&json, "all", reply->all);
	json_count(&json, "lost", reply->lost);
	json_count(&json, "one_failure_from_loss", reply->alone);
	json_count(&json, "degraded", reply->degraded);
	json_count(&json, "unavailable_already", reply->before);
	json_count(&json, "too_few_servers", reply->homeless);
	json_open(&json, "first_lost", '[');
	for (size_t i = 0; i < reply->n_first; i++) {
		json_open(&json, NULL, '{');
		json_id(&json, "inode", reply->first[i]->inode);
		json_id(&json, "chunk", reply->first[i]->chunk);
		json_number(&json, "index", reply->first[i]->index);
		json_number(&json, "bytes", reply->first[i]->bytes);
		json_number(&json, "small_files", reply->first[i]->blobs);
		json_close(&json, '}');
	}
	json_close(&json, ']');
	if (what_if->names) {
		json_open(&json, "names", '[');
		for (size_t i = 0; i < what_if->name_count; i++)
			json_text(&json, NULL, what_if->names[i]);
		json_close(&json, ']');
	}
	json_number(&json, "servers_left", reply->servers_left);
	json_number(&json, "hosts_left", reply->hosts_left);
	json_number(&json, "repair_bytes", reply->repair_bytes);
	json_number(&json, "room_bytes", reply->room_bytes);
	json_number(&json, "repair_ms", reply->repair_ms);
	json_close(&json, '}');
}

/* ---- the command */

static int ask(struct what_if *what_if, bool names, bool as_json)
{
	Granary__WhatIfRequest request = GRANARY__WHAT_IF_REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	request.servers = what_if->servers;
	request.n_servers = what_if->count;
	int result = leader_call(what_if->cli, "what-if", MESSAGE_WHAT_IF, &request.base, &reply);
	if (result != EXIT_DONE)
		return result;
	what_if->reply = (const Granary__WhatIfReply *)reply;
	if (names)
		result = find_names(what_if);
	if (as_json)
		print_json(what_if);
	else
		print_reply(what_if);
	if (what_if->reply->lost->chunks > 0)
		result = cli_worst(result, EXIT_FAILED);
	message_free(reply);
	return result;
}

int cmd_admin_what_if(struct cli *cli, int argc, char **argv)
{
	bool as_json = false, names = false;
	const char *list = NULL;
	const struct cli_option options[] = {
	    {"lose", 0, CLI_TEXT, &list, "SERVER,...", "ids, addresses, hosts or locations"},
	    {"names", 0, CLI_FLAG, &names, NULL, "walk through all directories for the names of what would be lost"},
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object"},
	    {0},
	};
	struct what_if what_if = {.cli = cli};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!list)
		return cli_usage_error(cli, "--lose", "say which servers");
	result = take_list(&what_if, list);
	if (result == EXIT_DONE)
		result = ask(&what_if, names, as_json);
	for (size_t i = 0; i < what_if.name_count; i++)
		free(what_if.names[i]);
	free(what_if.names);
	free(what_if.servers);
	return result;
}
