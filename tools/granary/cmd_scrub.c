/* admin scrub: every block read from the disks and checked. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/client.h"
#include "common/base/check.h"
#include "tools/granary/cluster_status.h"
#include "tools/granary/commands.h"
#include "tools/granary/json.h"
#include "tools/granary/leader_call.h"

#define POLL_MS 200
#define LAYOUT_BLOB 2u
#define LAYOUT_CHUNKED 3u

/* Of all servers that were told. */
struct progress_sum {
	size_t servers, ended, missing;
	uint64_t chunks, chunks_total, blocks, damaged, repaired, lost;
};

static Granary__ClusterStatus *fetch(const struct cli *cli, int *result)
{
	Granary__ClusterStatusRequest request = GRANARY__CLUSTER_STATUS_REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	request.servers = true;
	*result = leader_call(cli, "chunkservers", MESSAGE_CLUSTER_STATUS, &request.base, &reply);
	return (Granary__ClusterStatus *)reply;
}

/* SERVER: an id, an address or a host label; of a host: all of its servers. */
static int find_servers(struct cli *cli, const char *name, Granary__ScrubRequest *request)
{
	int result = EXIT_DONE;
	uint64_t id = 0;
	Granary__ClusterStatus *status = fetch(cli, &result);
	if (result != EXIT_DONE)
		return result;
	bool is_id = cli_parse_id(name, &id);
	request->servers = mem_alloc((status->n_servers + 1) * sizeof *request->servers);
	for (size_t i = 0; i < status->n_servers; i++) {
		const Granary__ServerStatus *server = status->servers[i];
		if ((is_id && server->server == id) || strcmp(server->address, name) == 0 || strcmp(server->host, name) == 0)
			request->servers[request->n_servers++] = server->server;
	}
	if (request->n_servers == 0) {
		cli_error_text(cli, name, "no such chunkserver (`granary admin servers` lists them)");
		result = EXIT_NOT_FOUND;
	}
	cluster_status_free(status);
	return result;
}

static int find_file(struct cli *cli, const char *path, Granary__ScrubRequest *request)
{
	struct granary_stat stat;
	int result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	granary_status status = cli_stat(cli, path, true, &stat);
	if (status)
		return cli_error(cli, path, status);
	if (stat.layout == LAYOUT_CHUNKED) {
		request->inode = stat.inode;
	} else if (stat.layout == LAYOUT_BLOB) {
		request->chunks = mem_alloc(sizeof *request->chunks);
		request->chunks[request->n_chunks++] = stat.pack;
	} else {
		cli_error_text(cli, path, "has no data on chunkservers");
		result = EXIT_FAILED;
	}
	return result;
}

static bool was_told(const Granary__ScrubReply *told, uint64_t server)
{
	for (size_t i = 0; i < told->n_servers; i++) {
		if (told->servers[i] == server)
			return true;
	}
	return false;
}

static struct progress_sum sum_up(const Granary__ClusterStatus *status, const Granary__ScrubReply *told, uint64_t id)
{
	struct progress_sum sum = {.servers = told->n_servers};
	for (size_t i = 0; i < status->n_servers; i++) {
		const Granary__ServerStatus *server = status->servers[i];
		const Granary__DiskHealth *disk = server->disk;
		if (!was_told(told, server->server))
			continue;
		bool knows = disk && disk->scrub_id == id; /* one that has started anew does not */
		sum.missing += !server->up || server->failed || !knows;
		if (!knows)
			continue;
		sum.ended += disk->scrub_ended;
		sum.chunks += disk->scrub_chunks;
		sum.chunks_total += disk->scrub_chunks_total;
		sum.blocks += disk->scrub_blocks;
		sum.damaged += disk->scrub_damaged;
		sum.repaired += disk->scrub_repaired;
		sum.lost += disk->damage_lost;
	}
	return sum;
}

static void show(const struct progress_sum *sum)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\rscrub: %" PRIu64 " of %" PRIu64 " copies of chunks, %" PRIu64 " damaged, %" PRIu64 " repaired ",
			sum->chunks, sum->chunks_total, sum->damaged, sum->repaired);
}

static void print_sum(const struct progress_sum *sum, bool as_json)
{
	char size[16];
	if (!as_json) {
		printf("checked %" PRIu64 " copies of chunks (%s) on %zu servers: %" PRIu64 " damaged, %" PRIu64
		       " repaired, %" PRIu64 " lost\n",
		       sum->chunks, text_size(sum->blocks * 4096, size), sum->ended, sum->damaged, sum->repaired, sum->lost);
		return;
	}
	struct json json;
	json_init(&json, stdout);
	json_open(&json, NULL, '{');
	json_number(&json, "servers", sum->ended);
	json_number(&json, "chunks", sum->chunks);
	json_number(&json, "bytes", sum->blocks * 4096);
	json_number(&json, "damaged", sum->damaged);
	json_number(&json, "repaired", sum->repaired);
	json_number(&json, "lost", sum->lost);
	json_close(&json, '}');
}

/* Until all have ended; a server that goes down meanwhile has no end of its own. */
static int wait_for_end(struct cli *cli, const Granary__ScrubReply *told, uint64_t id, bool as_json)
{
	struct progress_sum sum = {0};
	double deadline = 0;
	for (;;) {
		int result = EXIT_DONE;
		Granary__ClusterStatus *status = fetch(cli, &result);
		if (result != EXIT_DONE)
			return result;
		sum = sum_up(status, told, id);
		cluster_status_free(status);
		show(&sum);
		if (sum.ended >= sum.servers)
			break;
		/* One that is away may come back; after a while it is said. */
		if (sum.missing == 0)
			deadline = 0;
		else if (deadline == 0)
			deadline = monotonic_seconds() + (double)cli->timeout_ms / 1000;
		else if (monotonic_seconds() > deadline)
			break;
		nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000l}, NULL);
	}
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	print_sum(&sum, as_json);
	if (sum.ended < sum.servers) {
		cli_error_text(cli, "chunkservers", "some went down meanwhile and have not checked everything");
		return EXIT_FAILED;
	}
	return sum.repaired < sum.damaged || sum.lost > 0 ? EXIT_FAILED : EXIT_DONE;
}

static uint64_t random_id(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return ((uint64_t)now.tv_sec << 32 | (uint64_t)now.tv_nsec) ^ (uint64_t)getpid() << 40;
}

int cmd_admin_scrub(struct cli *cli, int argc, char **argv)
{
	bool wait = false, as_json = false;
	const struct cli_option options[] = {
	    {"wait", 0, CLI_FLAG, &wait, NULL, "until all is checked and repaired"},
	    {"json", 0, CLI_FLAG, &as_json, NULL, "with --wait: the result as an object"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	Granary__ScrubRequest request = GRANARY__SCRUB_REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	request.id = random_id();
	if (argc > 0)
		result = argv[0][0] == '/' ? find_file(cli, argv[0], &request) : find_servers(cli, argv[0], &request);
	if (result == EXIT_DONE)
		result = leader_call(cli, argc > 0 ? argv[0] : "scrub", MESSAGE_SCRUB, &request.base, &reply);
	const Granary__ScrubReply *told = (const Granary__ScrubReply *)reply;
	if (result == EXIT_DONE && told->n_servers == 0)
		result = cli_error_text(cli, "scrub", "no chunkserver is there");
	else if (result == EXIT_DONE && wait)
		result = wait_for_end(cli, told, request.id, as_json);
	else if (result == EXIT_DONE)
		printf("%zu chunkservers have begun; `granary admin servers --json` shows how far they are\n", told->n_servers);
	message_free(reply);
	free(request.servers);
	free(request.chunks);
	return result;
}
