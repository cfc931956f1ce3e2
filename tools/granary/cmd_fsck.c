/* admin fsck: begins a run at the leader, follows it, says what it has found. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/commands.h"
#include "tools/granary/json.h"
#include "tools/granary/leader_call.h"

#define POLL_MS 150
#define RUNS_MAX 3u /* begun again after a change of leaders */
#define BUSY_WAIT_MS (2u * FSCK_IDLE_MS) /* for a run that was given up to end */
#define KINDS_MAX 64u

static const char *const repair_texts[] = {"", "repaired", "gone by itself", "could not be repaired"};

struct fsck {
	struct cli *cli;
	bool repair;
	uint64_t orphan_age_ms;
	struct json *json; /* or NULL */
	uint64_t shown;	   /* findings */
	uint64_t open;	   /* not repaired */
	uint64_t counts[KINDS_MAX];
	char texts[KINDS_MAX][96];
};

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void show(struct fsck *fsck, const Granary__FsckFinding *finding)
{
	const char *repair = finding->repair < sizeof repair_texts / sizeof *repair_texts ? repair_texts[finding->repair] : "";
	unsigned kind = finding->kind < KINDS_MAX ? finding->kind : 0;
	fsck->counts[kind]++;
	snprintf(fsck->texts[kind], sizeof fsck->texts[kind], "%s", finding->text);
	fsck->open += finding->repair != 1 && finding->repair != 2;
	if (fsck->json) {
		json_open(fsck->json, NULL, '{');
		json_number(fsck->json, "kind", finding->kind);
		json_text(fsck->json, "text", finding->text);
		json_id(fsck->json, "id", finding->id);
		json_id(fsck->json, "other", finding->other);
		json_text(fsck->json, "repair", repair);
		json_close(fsck->json, '}');
		return;
	}
	printf("%s: %016" PRIx64 " (%016" PRIx64 ")%s%s\n", finding->text, finding->id, finding->other, *repair ? ": " : "", repair);
}

/* On a terminal, in place. */
static void show_progress(const Granary__FsckReport *report)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, report->end ? "\r\033[K" : "\rfsck: %u.%u %%, %" PRIu64 " found ", report->progress / 10,
			report->progress % 10, report->found);
}

/* Until the run has ended: *report is the last answer. ERR_NOT_FOUND: the leader has changed. */
static enum err follow(struct fsck *fsck, Granary__FsckReport **report)
{
	Granary__FsckRequest request = GRANARY__FSCK_REQUEST__INIT;
	double begun = monotonic_seconds();
	request.repair = fsck->repair;
	request.orphan_age_ms = fsck->orphan_age_ms;
	*report = NULL;
	for (;;) {
		ProtobufCMessage *reply = NULL;
		enum err err = leader_ask(fsck->cli, MESSAGE_FSCK, &request.base, &reply);
		if (err == ERR_BUSY && (monotonic_seconds() - begun) * 1000 < BUSY_WAIT_MS) {
			pause_ms(POLL_MS);
			continue;
		}
		if (err)
			return err;
		message_free(*report ? &(*report)->base : NULL);
		*report = (Granary__FsckReport *)reply;
		request.run = (*report)->run;
		for (size_t i = 0; i < (*report)->n_findings; i++)
			show(fsck, (*report)->findings[i]);
		request.after += (*report)->n_findings;
		show_progress(*report);
		if ((*report)->end)
			return OK;
		if ((*report)->n_findings == 0)
			pause_ms(POLL_MS);
	}
}

static void summary(const struct fsck *fsck, const Granary__FsckReport *report)
{
	for (unsigned kind = 0; kind < KINDS_MAX; kind++)
		if (fsck->counts[kind])
			printf("%8" PRIu64 "  %s\n", fsck->counts[kind], fsck->texts[kind]);
	printf("%s: %" PRIu64 " found, %" PRIu64 " repaired; the copies of %u chunkservers were compared",
	       report->found == 0 ? "clean" : "not clean", report->found, report->repaired, report->servers);
	if (report->servers_missed)
		printf(", %u could not be asked", report->servers_missed);
	if (report->undecided)
		printf("; %" PRIu64 " things changed too often to be compared", report->undecided);
	putchar('\n');
}

static void end_json(struct json *json, const Granary__FsckReport *report)
{
	json_close(json, ']');
	if (report) {
		json_number(json, "found", report->found);
		json_number(json, "repaired", report->repaired);
		json_number(json, "undecided", report->undecided);
		json_number(json, "servers", report->servers);
		json_number(json, "servers_missed", report->servers_missed);
		json_number(json, "index", report->index);
	}
	json_close(json, '}');
}

static int run(struct fsck *fsck)
{
	Granary__FsckReport *report = NULL;
	enum err err = ERR_NOT_FOUND;
	for (unsigned i = 0; i < RUNS_MAX && err == ERR_NOT_FOUND && fsck->shown == 0; i++) {
		message_free(report ? &report->base : NULL);
		err = follow(fsck, &report);
	}
	if (fsck->json)
		end_json(fsck->json, err ? NULL : report);
	int result = EXIT_DONE;
	if (err == ERR_NOT_FOUND)
		result = cli_error_text(fsck->cli, "cluster", "the leader changed again and again");
	else if (err == ERR_BUSY)
		result = cli_error_text(fsck->cli, "cluster", "another fsck is under way");
	else if (err)
		result = leader_call_failed(fsck->cli, "cluster", err);
	else if (!fsck->json)
		summary(fsck, report);
	if (!err && (fsck->open > 0 || report->found > FSCK_FINDINGS_MAX))
		result = EXIT_FAILED;
	message_free(report ? &report->base : NULL);
	return result;
}

int cmd_admin_fsck(struct cli *cli, int argc, char **argv)
{
	bool as_json = false;
	struct fsck fsck = {.cli = cli, .orphan_age_ms = 86400000};
	const struct cli_option options[] = {
	    {"repair", 0, CLI_FLAG, &fsck.repair, NULL, "mend what can be mended without losing anything"},
	    {"orphan-age", 0, CLI_DURATION, &fsck.orphan_age_ms, "TIME",
	     "with --repair: copies of chunks that no file has are removed when the chunk is older (1d)"},
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	struct json json;
	if (as_json) {
		json_init(&json, stdout);
		json_open(&json, NULL, '{');
		json_open(&json, "findings", '[');
		fsck.json = &json;
	}
	return run(&fsck);
}
