/* admin rebalance, drain, undrain: data moved between chunkservers. The cluster does it; here it is asked for and watched. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/admin_status.h"
#include "tools/granary/commands.h"
#include "tools/granary/leader_call.h"
#include "tools/granary/progress.h"

#define POLL_MS 200
#define RATE_MIB_MAX 1048576u

/* Ctrl-C ends only the watching. */
static void watch_interrupt(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* True: Ctrl-C has come. */
static bool pause_ms(long ms)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	return sigtimedwait(&set, NULL, &(struct timespec){.tv_nsec = ms * 1000000l}) == SIGINT;
}

/* ---- drain */

static int ask_drain(const struct cli *cli, const Granary__DrainRequest *request, Granary__Drain **out)
{
	return leader_call(cli, "drain", MESSAGE_DRAIN, &request->base, (ProtobufCMessage **)out);
}

/* EXIT_FAILED after it has waited for the same for so long that it will not end by itself. */
static int watch_drain(struct cli *cli, uint64_t server, bool *interrupted)
{
	Granary__DrainRequest request = GRANARY__DRAIN_REQUEST__INIT;
	struct progress *progress = progress_open("drain", true);
	uint64_t most = 0, told = 0;
	double stuck_since = 0;
	int result = EXIT_DONE;
	bool over = false;
	request.server = server;
	request.ask = true;
	while (!over && result == EXIT_DONE && !*interrupted) {
		Granary__Drain *drain = NULL;
		result = ask_drain(cli, &request, &drain);
		if (result != EXIT_DONE)
			break;
		if (drain->counted && drain->bytes > most) {
			progress_expect(progress, drain->bytes - most);
			most = drain->bytes;
		}
		uint64_t done = drain->counted ? most - drain->bytes : 0;
		progress_add(progress, done > told ? done - told : 0);
		told = done > told ? done : told;
		over = drain->empty;
		if (!*drain->waits_for)
			stuck_since = 0;
		else if (stuck_since == 0)
			stuck_since = monotonic_seconds();
		if (!drain->draining)
			result = cli_error_text(cli, "drain", "it was ended by somebody else");
		else if (stuck_since > 0 && monotonic_seconds() - stuck_since > (double)cli->timeout_ms / 1000)
			result = cli_error_text(cli, "drain", drain->waits_for);
		message_free(&drain->base);
		if (!over && result == EXIT_DONE)
			*interrupted = pause_ms(POLL_MS);
	}
	progress_close(progress);
	return result;
}

static bool is_meant(const Granary__ServerStatus *server, const char *name)
{
	uint64_t id = 0;
	return (cli_parse_id(name, &id) && server->server == id) || strcmp(server->address, name) == 0 || strcmp(server->host, name) == 0;
}

struct drain_end {
	bool draining, waited, interrupted;
};

static void print_drained(const Granary__ServerStatus *server, const struct drain_end *end, bool as_json)
{
	if (as_json) {
		struct json json;
		json_init(&json, stdout);
		json_open(&json, NULL, '{');
		json_id(&json, "id", server->server);
		json_bool(&json, "draining", end->draining);
		json_bool(&json, "empty", end->draining && end->waited && !end->interrupted);
		json_close(&json, '}');
	} else if (!end->draining) {
		printf("%s takes data again\n", server->address);
	} else if (end->interrupted) {
		printf("%s is still being drained: the cluster goes on; `granary admin undrain` ends it\n", server->address);
	} else if (end->waited) {
		printf("%s is empty and may be unplugged\n", server->address);
	} else {
		printf("%s is being drained; `granary admin servers` shows how far it is\n", server->address);
	}
}

static int drain(struct cli *cli, int argc, char **argv, bool draining)
{
	bool wait = false, as_json = false;
	const struct cli_option options[] = {
	    {"wait", 0, CLI_FLAG, &wait, NULL, "until it is done"},
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object a server"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	Granary__ClusterStatus *status = NULL;
	result = admin_fetch_status(cli, &status);
	if (result != EXIT_DONE)
		return result;
	struct drain_end end = {.draining = draining, .waited = wait};
	size_t found = 0;
	if (wait)
		watch_interrupt();
	for (size_t i = 0; i < status->n_servers && result == EXIT_DONE; i++) {
		Granary__DrainRequest request = GRANARY__DRAIN_REQUEST__INIT;
		Granary__Drain *reply = NULL;
		if (!is_meant(status->servers[i], argv[0]))
			continue;
		found++;
		request.server = status->servers[i]->server;
		request.draining = draining;
		result = ask_drain(cli, &request, &reply);
		message_free(reply ? &reply->base : NULL);
	}
	for (size_t i = 0; i < status->n_servers && result == EXIT_DONE; i++) {
		if (!is_meant(status->servers[i], argv[0]))
			continue;
		if (draining && wait)
			result = watch_drain(cli, status->servers[i]->server, &end.interrupted);
		if (result == EXIT_DONE)
			print_drained(status->servers[i], &end, as_json);
	}
	if (found == 0 && result == EXIT_DONE) {
		cli_error_text(cli, argv[0], "no such chunkserver (`granary admin servers` lists them)");
		result = EXIT_NOT_FOUND;
	}
	cluster_status_free(status);
	return end.interrupted && result == EXIT_DONE ? EXIT_FAILED : result;
}

int cmd_admin_drain(struct cli *cli, int argc, char **argv)
{
	return drain(cli, argc, argv, true);
}

int cmd_admin_undrain(struct cli *cli, int argc, char **argv)
{
	return drain(cli, argc, argv, false);
}

/* ---- rebalance */

static int ask_rebalance(const struct cli *cli, const Granary__RebalanceRequest *request, Granary__RebalanceStatus **out)
{
	return leader_call(cli, "rebalance", MESSAGE_REBALANCE, &request->base, (ProtobufCMessage **)out);
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_plan(const Granary__RebalanceStatus *status)
{
	char total[16], used[16], planned[16];
	printf("%-16s  %8s  %16s  %16s\n", "chunkserver", "total", "used", "used afterwards");
	for (size_t i = 0; i < status->n_servers; i++) {
		const Granary__BalancedServer *server = status->servers[i];
		printf("%016" PRIx64 "  %8s  %8s (%4.1f%%)  %8s (%4.1f%%)%s\n", server->server, text_size(server->bytes_total, total),
		       text_size(server->bytes_used, used), percent(server->bytes_used, server->bytes_total),
		       text_size(server->bytes_planned, planned), percent(server->bytes_planned, server->bytes_total),
		       server->draining ? "  draining: takes no part" : "");
	}
	printf("%s to move\n", text_size(status->bytes_to_move, total));
}

static void print_json(const Granary__RebalanceStatus *status)
{
	struct json json;
	json_init(&json, stdout);
	json_open(&json, NULL, '{');
	json_bool(&json, "running", status->id != 0);
	json_number(&json, "bytes_to_move", status->bytes_to_move);
	json_number(&json, "bytes_moved", status->bytes_moved);
	json_number(&json, "moves", status->moves);
	json_number(&json, "bytes_per_second", status->bytes_per_second);
	json_text(&json, "waits_for", status->waits_for);
	json_text(&json, "ended", status->ended);
	json_open(&json, "servers", '[');
	for (size_t i = 0; i < status->n_servers; i++) {
		const Granary__BalancedServer *server = status->servers[i];
		json_open(&json, NULL, '{');
		json_id(&json, "id", server->server);
		json_number(&json, "bytes_total", server->bytes_total);
		json_number(&json, "bytes_used", server->bytes_used);
		json_number(&json, "bytes_planned", server->bytes_planned);
		json_bool(&json, "draining", server->draining);
		json_close(&json, '}');
	}
	json_close(&json, ']');
	json_close(&json, '}');
}

/* *status is replaced by the last one. */
static int watch_rebalance(const struct cli *cli, Granary__RebalanceStatus **status, bool *interrupted)
{
	struct progress *progress = progress_open("rebalance", true);
	uint64_t id = (*status)->id, expected = (*status)->bytes_to_move, told = 0;
	int result = EXIT_DONE;
	progress_expect(progress, expected);
	while (result == EXIT_DONE && (*status)->id == id && !*interrupted) {
		Granary__RebalanceRequest request = GRANARY__REBALANCE_REQUEST__INIT;
		*interrupted = pause_ms(POLL_MS);
		message_free(&(*status)->base);
		*status = NULL;
		result = ask_rebalance(cli, &request, status);
		if (result != EXIT_DONE)
			break;
		uint64_t left = (*status)->bytes_to_move, done = left < expected ? expected - left : 0;
		progress_add(progress, done > told ? done - told : 0);
		told = done > told ? done : told;
	}
	progress_close(progress);
	return result;
}

static void print_asked(const Granary__RebalanceStatus *status, const Granary__RebalanceRequest *request, bool wait, bool interrupted)
{
	char bytes[16], rate[16];
	if (!request->begin && !request->end)
		print_plan(status);
	else if (request->end)
		puts("nothing more is moved; copies that are under way are finished");
	else if (interrupted)
		printf("%s left to move: the cluster goes on; `granary admin rebalance --stop` ends it\n",
		       text_size(status->bytes_to_move, bytes));
	else if (wait)
		printf("%s moved: %s\n", text_size(status->bytes_moved, bytes), *status->ended ? status->ended : "it has ended");
	else
		printf("%s to move, up to %s/s from each chunkserver; `granary admin rebalance --dry-run` shows how far it is\n",
		       text_size(status->bytes_to_move, bytes), text_size(status->bytes_per_second, rate));
}

int cmd_admin_rebalance(struct cli *cli, int argc, char **argv)
{
	bool dry_run = false, wait = false, stop = false, as_json = false, interrupted = false;
	uint64_t target = 0, rate = 0;
	const struct cli_option options[] = {
	    {"dry-run", 'n', CLI_FLAG, &dry_run, NULL, "only show what each server has, and would have"},
	    {"target", 0, CLI_COUNT, &target, "PCT", "points that a server may be off the mean (default 2)"},
	    {"rate", 0, CLI_COUNT, &rate, "MB/s", "from each server; default: the setting rebalance_bytes_per_second"},
	    {"wait", 0, CLI_FLAG, &wait, NULL, "until it has ended"},
	    {"stop", 0, CLI_FLAG, &stop, NULL, "end one that is under way"},
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (target > BALANCE_PERCENT_MAX)
		return cli_usage_error(cli, "--target", "50 at most");
	if (rate > RATE_MIB_MAX)
		return cli_usage_error(cli, "--rate", "too much");
	Granary__RebalanceRequest request = GRANARY__REBALANCE_REQUEST__INIT;
	Granary__RebalanceStatus *status = NULL;
	request.begin = !dry_run && !stop;
	request.end = stop && !dry_run;
	request.target_percent = (uint32_t)target;
	request.bytes_per_second = rate * MIB;
	if (wait)
		watch_interrupt();
	result = ask_rebalance(cli, &request, &status);
	if (result == EXIT_DONE && request.begin && wait)
		result = watch_rebalance(cli, &status, &interrupted);
	if (result == EXIT_DONE && as_json)
		print_json(status);
	else if (result == EXIT_DONE)
		print_asked(status, &request, wait, interrupted);
	message_free(status ? &status->base : NULL);
	return interrupted && result == EXIT_DONE ? EXIT_FAILED : result;
}
