/* admin status, servers: is all data safe, who is there. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/client.h"
#include "common/base/check.h"
#include "tools/granary/admin_status.h"
#include "tools/granary/commands.h"

#define WATCH_MS 1000

int admin_fetch_status(struct cli *cli, Granary__ClusterStatus **out)
{
	char *addresses = cli_cluster_addresses(cli);
	if (!addresses)
		return EXIT_NO_CLUSTER;
	enum err err = cluster_status(addresses, cli->timeout_ms, out);
	int result = EXIT_DONE;
	if (err != OK) {
		char what[512];
		snprintf(what, sizeof what, "%s", addresses);
		cli_error_text(cli, what, err == ERR_TIMEOUT ? err_text(ERR_NO_LEADER) : err_text(err));
		result = EXIT_NO_CLUSTER;
	}
	free(addresses);
	return result;
}

static void print_safety(const Granary__ClusterStatus *s)
{
	char space[16];
	if (s->chunks_unavailable)
		printf("DATA UNAVAILABLE: %" PRIu64 " of %" PRIu64 " chunks (%s) have no complete copy on a running server\n",
		       s->chunks_unavailable, s->chunks, text_size(s->bytes_unavailable, space));
	if (s->chunks_one_copy)
		printf("AT RISK: %" PRIu64 " of %" PRIu64 " chunks (%s) are one failure from loss\n", s->chunks_one_copy,
		       s->chunks, text_size(s->bytes_one_copy, space));
	if (s->chunks_under_replicated > s->chunks_one_copy + s->chunks_unavailable)
		printf("DEGRADED: %" PRIu64 " of %" PRIu64 " chunks (%s) lack copies or shards\n", s->chunks_under_replicated,
		       s->chunks, text_size(s->bytes_under_replicated, space));
	if (!s->chunks_unavailable && !s->chunks_one_copy && !s->chunks_under_replicated)
		printf("all data is safe: all copies of %" PRIu64 " chunks are there\n", s->chunks);
}

static void print_repair(const Granary__ClusterStatus *s)
{
	char bytes[16], rate[16];
	if (!s->chunks_under_replicated)
		return;
	printf("repair: %s to copy, %" PRIu64 " copies being made", text_size(s->bytes_lacking, bytes), s->fills);
	if (s->fill_bytes_per_second)
		printf(", %s/s, all safe in about %" PRIu64 " s", text_size(s->fill_bytes_per_second, rate),
		       (s->safe_in_ms + 999) / 1000);
	if (s->chunks_waiting)
		printf("; %" PRIu64 " chunks wait for servers that may come back", s->chunks_waiting);
	puts("");
}

static void print_status(const Granary__ClusterStatus *s)
{
	char total[16], space[16];
	print_safety(s);
	print_repair(s);
	printf("masters: %zu, leader %" PRIu64 " (term %" PRIu64 ", commit %" PRIu64 ", applied %" PRIu64 ")\n",
	       s->n_members, s->leader, s->term, s->commit, s->applied);
	printf("chunkservers: %u of %zu up, %s free of %s\n", cluster_servers_up(s), s->n_servers,
	       text_size(s->bytes_free, space), text_size(s->bytes_total, total));
	printf("files and directories: %" PRIu64 ", chunks: %" PRIu64 ", sessions: %" PRIu64 ", to be deleted: %" PRIu64
	       "\n",
	       s->inodes, s->chunks, s->sessions, s->garbage);
	if (s->chunks_cold) {
		char stored[16], shards[16];
		printf("cold: %" PRIu64 " chunks, %s compressed to %s, %s with parity\n", s->chunks_cold, text_size(s->cold_raw_bytes, space),
		       text_size(s->cold_stored_bytes, stored), text_size(s->cold_shard_bytes, shards));
	}
	if (s->trash_files)
		printf("in the trash: %" PRIu64 " of them, %s\n", s->trash_files, text_size(s->trash_bytes, space));
	if (s->orphan_copies_newer)
		printf("MASTERS ARE BEHIND: chunkservers hold %" PRIu64 " copies of chunks that are newer than all that the masters know: "
		       "their state is that of an older snapshot or backup, and nothing is collected. If that is how it is to be, write "
		       "something and run `granary admin fsck`\n",
		       s->orphan_copies_newer);
	if (s->orphan_copies)
		printf("orphans: %" PRIu64 " copies of chunks that no file has, kept (`granary admin fsck` tells more)\n", s->orphan_copies);
	uint64_t lost = 0, uncertain = 0, differ = 0;
	for (size_t i = 0; i < s->n_servers; i++) {
		lost += s->servers[i]->disk ? s->servers[i]->disk->damage_lost : 0;
		uncertain += s->servers[i]->disk ? s->servers[i]->disk->uncertain : 0;
		differ += s->servers[i]->disk ? s->servers[i]->disk->copies_differ : 0;
	}
	if (lost)
		printf("LOST: %s are damaged in all copies: reads of them fail\n", text_size(lost * 4096, total));
	if (differ)
		printf("COPIES DIFFER: %s have sound copies that are not the same, and nobody knows which is right: a disk has lost writes "
		       "(copies_differ in the logs of the chunkservers names them)\n",
		       text_size(differ * 4096, total));
	if (uncertain)
		printf("copies being compared after a loss of power: %" PRIu64 "\n", uncertain);
	if (s->persistence_lags)
		printf("ALARM: the leading master's disk does not keep up: %" PRIu64 " MiB of log, %" PRIu64 " MiB not yet in its database\n",
		       s->log_bytes_kept >> 20, s->log_bytes_unsynced >> 20);
	if (s->malformed_frames)
		printf("malformed frames refused: %" PRIu64 "\n", s->malformed_frames);
}

static void json_disk(struct json *json, const Granary__DiskHealth *disk)
{
	if (!disk)
		return;
	json_open(json, "disk", '{');
	json_number(json, "uncertain", disk->uncertain);
	json_number(json, "damage_found", disk->damage_found);
	json_number(json, "damage_repaired", disk->damage_repaired);
	json_number(json, "damage_lost", disk->damage_lost);
	json_number(json, "copies_differ", disk->copies_differ);
	json_number(json, "latency_us", disk->latency_us);
	json_bool(json, "hung", disk->hung);
	json_text(json, "reason", disk->reason);
	json_number(json, "reopened", disk->reopened);
	json_id(json, "scrub_id", disk->scrub_id);
	json_bool(json, "scrub_ended", disk->scrub_ended);
	json_number(json, "scrub_chunks", disk->scrub_chunks);
	json_number(json, "scrub_chunks_total", disk->scrub_chunks_total);
	json_number(json, "scrub_passed_ms", disk->scrub_passed_ms);
	json_close(json, '}');
}

void admin_json_drain(struct json *json, const Granary__Drain *drain)
{
	json_bool(json, "empty", drain->empty);
	json_number(json, "chunks_left", drain->chunks);
	json_number(json, "bytes_left", drain->bytes);
	json_text(json, "waits_for", drain->waits_for);
}

static void print_drain(const Granary__Drain *drain)
{
	char bytes[16];
	if (drain->empty)
		printf("  drained: may be unplugged");
	else if (drain->counted)
		printf("  draining: %" PRIu64 " copies left (%s)%s%s", drain->chunks, text_size(drain->bytes, bytes),
		       *drain->waits_for ? ": " : "", drain->waits_for);
	else
		printf("  draining");
}

static void json_servers(struct json *json, const Granary__ClusterStatus *s)
{
	json_open(json, "servers", '[');
	for (size_t i = 0; i < s->n_servers; i++) {
		const Granary__ServerStatus *server = s->servers[i];
		json_open(json, NULL, '{');
		json_id(json, "id", server->server);
		json_text(json, "address", server->address);
		json_text(json, "host", server->host);
		json_text(json, "location", server->location);
		json_bool(json, "up", server->up);
		json_bool(json, "failed", server->failed);
		json_bool(json, "returning", server->returning);
		json_number(json, "chunks", server->chunks);
		json_number(json, "bytes_total", server->bytes_total);
		json_number(json, "bytes_free", server->bytes_free);
		json_number(json, "contact_ms", server->contact_ms);
		json_bool(json, "slow", server->slow);
		json_disk(json, server->disk);
		json_bool(json, "draining", server->drain != NULL);
		if (server->drain)
			admin_json_drain(json, server->drain);
		json_close(json, '}');
	}
	json_close(json, ']');
}

void admin_json_members(struct json *json, const Granary__ClusterStatus *s)
{
	json_number(json, "leader", s->leader);
	json_number(json, "term", s->term);
	json_number(json, "commit", s->commit);
	json_number(json, "applied", s->applied);
	json_number(json, "log_first", s->log_first);
	json_number(json, "log_last", s->log_last);
	json_number(json, "log_bytes_kept", s->log_bytes_kept);
	json_number(json, "log_bytes_unsynced", s->log_bytes_unsynced);
	json_bool(json, "persistence_lags", s->persistence_lags);
	json_open(json, "members", '[');
	for (size_t i = 0; i < s->n_members; i++) {
		json_open(json, NULL, '{');
		json_number(json, "id", s->members[i]->id);
		json_text(json, "address", s->members[i]->address);
		json_bool(json, "leader", s->members[i]->id == s->leader);
		json_bool(json, "learner", s->members[i]->learner);
		json_bool(json, "snapshot", s->members[i]->snapshot);
		json_id(json, "node", s->members[i]->node);
		json_number(json, "match", s->members[i]->match);
		json_number(json, "contact_ms", s->members[i]->contact_ms);
		json_close(json, '}');
	}
	json_close(json, ']');
}

static void print_status_json(const Granary__ClusterStatus *s)
{
	struct json json;
	json_init(&json, stdout);
	json_open(&json, NULL, '{');
	json_bool(&json, "safe", !s->chunks_unavailable && !s->chunks_one_copy && !s->chunks_under_replicated);
	json_id(&json, "cluster", s->cluster);
	json_number(&json, "chunks", s->chunks);
	json_number(&json, "chunks_unavailable", s->chunks_unavailable);
	json_number(&json, "chunks_one_copy", s->chunks_one_copy);
	json_number(&json, "chunks_under_replicated", s->chunks_under_replicated);
	json_number(&json, "chunks_waiting", s->chunks_waiting);
	json_number(&json, "chunks_cold", s->chunks_cold);
	json_number(&json, "cold_raw_bytes", s->cold_raw_bytes);
	json_number(&json, "cold_stored_bytes", s->cold_stored_bytes);
	json_number(&json, "cold_shard_bytes", s->cold_shard_bytes);
	json_number(&json, "bytes_unavailable", s->bytes_unavailable);
	json_number(&json, "bytes_one_copy", s->bytes_one_copy);
	json_number(&json, "bytes_under_replicated", s->bytes_under_replicated);
	json_number(&json, "bytes_lacking", s->bytes_lacking);
	json_number(&json, "fills", s->fills);
	json_number(&json, "fill_bytes_per_second", s->fill_bytes_per_second);
	json_number(&json, "safe_in_ms", s->safe_in_ms);
	json_number(&json, "inodes", s->inodes);
	json_number(&json, "sessions", s->sessions);
	json_number(&json, "garbage", s->garbage);
	json_number(&json, "orphan_copies", s->orphan_copies);
	json_number(&json, "orphan_copies_newer", s->orphan_copies_newer);
	json_number(&json, "trash_files", s->trash_files);
	json_number(&json, "trash_bytes", s->trash_bytes);
	json_number(&json, "bytes_total", s->bytes_total);
	json_number(&json, "bytes_free", s->bytes_free);
	json_number(&json, "malformed_frames", s->malformed_frames);
	json_number(&json, "uptime_ms", s->uptime_ms);
	admin_json_members(&json, s);
	json_servers(&json, s);
	json_close(&json, '}');
}

int cmd_admin_status(struct cli *cli, int argc, char **argv)
{
	bool watch = false, as_json = false;
	const struct cli_option options[] = {
	    {"watch", 'w', CLI_FLAG, &watch, NULL, "again every second, until Ctrl-C"},
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	do {
		Granary__ClusterStatus *status = NULL;
		result = admin_fetch_status(cli, &status);
		if (watch && !as_json)
			fputs("\033[H\033[J", stdout);
		if (result == EXIT_DONE && as_json)
			print_status_json(status);
		else if (result == EXIT_DONE)
			print_status(status);
		fflush(stdout);
		cluster_status_free(status);
		if (watch)
			nanosleep(&(struct timespec){.tv_sec = WATCH_MS / 1000}, NULL);
	} while (watch);
	return result;
}

int cmd_admin_servers(struct cli *cli, int argc, char **argv)
{
	bool as_json = false;
	const struct cli_option options[] = {
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object with the array `servers`"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	Granary__ClusterStatus *status = NULL;
	result = admin_fetch_status(cli, &status);
	if (result == EXIT_DONE && as_json) {
		struct json json;
		json_init(&json, stdout);
		json_open(&json, NULL, '{');
		json_servers(&json, status);
		json_close(&json, '}');
	} else if (result == EXIT_DONE) {
		printf("%-16s  %-21s  %-20s  %-9s  %8s  %8s  %8s  %s\n", "id", "address", "host", "state", "chunks", "free",
		       "total", "location");
		for (size_t i = 0; i < status->n_servers; i++) {
			const Granary__ServerStatus *s = status->servers[i];
			char space[16], total[16];
			printf("%016" PRIx64 "  %-21s  %-20s  %-9s  %8" PRIu64 "  %8s  %8s  %s", s->server, s->address,
			       s->host,
			       s->failed      ? "failed"
			       : s->slow      ? "slow"
			       : s->up        ? "up"
			       : s->returning ? "returning"
					      : "down",
			       s->chunks, text_size(s->bytes_free, space), text_size(s->bytes_total, total),
			       *s->location ? s->location : "-");
			if (s->drain)
				print_drain(s->drain);
			puts("");
		}
	}
	cluster_status_free(status);
	return result;
}
