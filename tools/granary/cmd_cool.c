/* admin cool, admin warm: chunks of files made cold or hot now. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "client/client.h"
#include "common/base/check.h"
#include "tools/granary/commands.h"
#include "tools/granary/leader_call.h"
#include "tools/granary/remote_tree.h"

#define POLL_MS 200
#define POLL_FILES 500u /* asked about in one round */
#define LAYOUT_BLOB 2u
#define LAYOUT_CHUNKED 3u

/* Chunks. */
struct progress {
	uint64_t total, done, failed, refused;
};

/* Files, and of those in packs one for each pack. */
struct wanted {
	uint64_t inode, pack;
	struct progress known; /* as of the last answer */
};

struct conversion {
	struct cli *cli;
	bool warm;
	struct wanted *files; /* the first `open` are not as they are wanted */
	size_t count, capacity, open;
	struct progress sum;
	char reason[200];
};

static int compare(const void *a, const void *b)
{
	const struct wanted *first = a, *second = b;
	if (first->pack != second->pack)
		return first->pack < second->pack ? -1 : 1;
	return first->inode < second->inode ? -1 : first->inode > second->inode;
}

static int add_file(struct cli *cli, const struct visited *visited, void *arg)
{
	struct conversion *conversion = arg;
	const struct granary_stat *stat = visited->stat;
	(void)cli;
	if (visited->visit != VISIT_FILE || (stat->layout != LAYOUT_CHUNKED && stat->layout != LAYOUT_BLOB))
		return EXIT_DONE;
	if (conversion->count == conversion->capacity) {
		conversion->capacity = conversion->capacity * 2 + 64;
		conversion->files = mem_resize(conversion->files, conversion->capacity * sizeof *conversion->files);
	}
	conversion->files[conversion->count++] =
	    (struct wanted){.inode = stat->inode, .pack = stat->layout == LAYOUT_BLOB ? stat->pack : 0};
	return EXIT_DONE;
}

/* A pack is asked for once. */
static void drop_doubles(struct conversion *conversion)
{
	size_t kept = 0;
	qsort(conversion->files, conversion->count, sizeof *conversion->files, compare);
	for (size_t i = 0; i < conversion->count; i++) {
		const struct wanted *file = &conversion->files[i];
		if (kept > 0 && (file->pack ? conversion->files[kept - 1].pack == file->pack : conversion->files[kept - 1].inode == file->inode))
			continue;
		conversion->files[kept++] = *file;
	}
	conversion->count = kept;
}

static void progress_add(struct progress *sum, const struct progress *more, uint64_t sign)
{
	sum->total += sign * more->total;
	sum->done += sign * more->done;
	sum->failed += sign * more->failed;
	sum->refused += sign * more->refused;
}

/* Its chunks are put on the list of the master, those that are not there yet. */
static int ask(struct conversion *conversion, struct wanted *file)
{
	Granary__CoolRequest request = GRANARY__COOL_REQUEST__INIT;
	struct progress now = {0};
	request.inode = file->inode;
	request.warm = conversion->warm;
	do {
		ProtobufCMessage *message = NULL;
		enum err err = leader_ask(conversion->cli, MESSAGE_COOL, &request.base, &message);
		if (err == ERR_NOT_FOUND) /* removed meanwhile */
			break;
		if (err)
			return leader_call_failed(conversion->cli, conversion->warm ? "warm" : "cool", err);
		const Granary__CoolReply *reply = (const Granary__CoolReply *)message;
		uint64_t done = conversion->warm ? reply->hot : reply->cold;
		progress_add(&now, &(struct progress){reply->chunks, done, reply->failed, reply->refused}, 1);
		if (reply->failed > 0)
			snprintf(conversion->reason, sizeof conversion->reason, "%s", reply->reason);
		request.first = reply->next;
		message_free(message);
	} while (request.first != 0);
	progress_add(&conversion->sum, &file->known, UINT64_MAX);
	progress_add(&conversion->sum, &now, 1);
	file->known = now;
	return EXIT_DONE;
}

/* Of those that are still open, all or as many as make a good round; those that are done are put behind them. */
static int ask_round(struct conversion *conversion, size_t most)
{
	int result = EXIT_DONE;
	for (size_t i = 0; i < conversion->open && i < most && result == EXIT_DONE;) {
		struct wanted *file = &conversion->files[i];
		result = ask(conversion, file);
		if (file->known.done + file->known.failed < file->known.total) {
			i++;
			continue;
		}
		struct wanted over = *file;
		*file = conversion->files[--conversion->open];
		conversion->files[conversion->open] = over;
	}
	return result;
}

static void show(const struct conversion *conversion)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%s: %" PRIu64 " of %" PRIu64 " chunks ", conversion->warm ? "hot" : "cold", conversion->sum.done,
			conversion->sum.total);
}

/* What fell off the master's list, after an election, is put on it again. */
static int wait_for_end(struct conversion *conversion)
{
	int result = EXIT_DONE;
	while (result == EXIT_DONE && conversion->open > 0) {
		show(conversion);
		nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000l}, NULL);
		result = ask_round(conversion, POLL_FILES);
	}
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	return result;
}

/* Says how it ended. */
static int conclude(struct conversion *conversion)
{
	const struct progress *sum = &conversion->sum;
	const char *state = conversion->warm ? "hot" : "cold";
	char text[512];
	if (sum->failed > 0)
		snprintf(text, sizeof text, "%" PRIu64 " of %" PRIu64 " chunks cannot be made %s now: %s", sum->failed, sum->total, state,
			 conversion->reason);
	else if (sum->refused > 0)
		snprintf(text, sizeof text, "%" PRIu64 " of %" PRIu64 " chunks are too many at once: again later, or with --wait", sum->refused,
			 sum->total);
	if (sum->failed > 0 || sum->refused > 0)
		return cli_error_text(conversion->cli, conversion->warm ? "warm" : "cool", text);
	printf("%" PRIu64 " of %" PRIu64 " chunks are %s%s\n", sum->done, sum->total, state,
	       sum->done < sum->total ? "; the cluster goes on with the others" : "");
	return EXIT_DONE;
}

static int convert(struct cli *cli, int argc, char **argv, bool warm)
{
	bool wait = false;
	const struct cli_option options[] = {
	    {"wait", 0, CLI_FLAG, &wait, NULL, "until all of it is done"},
	    {0},
	};
	struct conversion conversion = {.cli = cli, .warm = warm};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	result = cli_connect(cli);
	for (int i = 0; i < argc && result == EXIT_DONE; i++)
		result = tree_walk(cli, argv[i], add_file, &conversion);
	drop_doubles(&conversion);
	conversion.open = conversion.count;
	if (result == EXIT_DONE)
		result = ask_round(&conversion, SIZE_MAX);
	if (result == EXIT_DONE && wait)
		result = wait_for_end(&conversion);
	if (result == EXIT_DONE)
		result = conclude(&conversion);
	free(conversion.files);
	return result;
}

int cmd_admin_cool(struct cli *cli, int argc, char **argv)
{
	return convert(cli, argc, argv, false);
}

int cmd_admin_warm(struct cli *cli, int argc, char **argv)
{
	return convert(cli, argc, argv, true);
}
