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
#define LAYOUT_BLOB 2u
#define LAYOUT_CHUNKED 3u

/* Files, and of those in packs one for each pack. */
struct wanted {
	uint64_t inode, pack;
};

struct conversion {
	struct cli *cli;
	bool warm;
	struct wanted *files;
	size_t count, capacity;
	/* Of all of them, as of the last question. */
	uint64_t chunks, done, failed;
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
	conversion->files[conversion->count++] = (struct wanted){stat->inode, stat->layout == LAYOUT_BLOB ? stat->pack : 0};
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

/* All chunks of all files: wanted, or (ask) only counted. */
static int ask_all(struct conversion *conversion, bool ask)
{
	conversion->chunks = conversion->done = conversion->failed = 0;
	for (size_t i = 0; i < conversion->count; i++) {
		Granary__CoolRequest request = GRANARY__COOL_REQUEST__INIT;
		request.inode = conversion->files[i].inode;
		request.warm = conversion->warm;
		request.ask = ask;
		do {
			ProtobufCMessage *message = NULL;
			enum err err = leader_ask(conversion->cli, MESSAGE_COOL, &request.base, &message);
			if (err == ERR_NOT_FOUND) /* removed meanwhile */
				break;
			if (err)
				return leader_call_failed(conversion->cli, conversion->warm ? "warm" : "cool", err);
			const Granary__CoolReply *reply = (const Granary__CoolReply *)message;
			conversion->chunks += reply->chunks;
			conversion->done += conversion->warm ? reply->hot : reply->cold;
			conversion->failed += reply->failed;
			if (reply->failed > 0)
				snprintf(conversion->reason, sizeof conversion->reason, "%s", reply->reason);
			request.first = reply->next;
			message_free(message);
		} while (request.first != 0);
	}
	return EXIT_DONE;
}

static void show(const struct conversion *conversion)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%s: %" PRIu64 " of %" PRIu64 " chunks ", conversion->warm ? "hot" : "cold", conversion->done,
			conversion->chunks);
}

static int wait_for_end(struct conversion *conversion)
{
	int result = EXIT_DONE;
	while (result == EXIT_DONE) {
		show(conversion);
		if (conversion->done + conversion->failed >= conversion->chunks)
			break;
		nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000l}, NULL);
		result = ask_all(conversion, false); /* what fell off the master's list, after an election, is put on it again */
	}
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	return result;
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
	if (result == EXIT_DONE)
		result = ask_all(&conversion, false);
	if (result == EXIT_DONE && wait)
		result = wait_for_end(&conversion);
	if (result == EXIT_DONE && conversion.failed > 0) {
		char text[512];
		snprintf(text, sizeof text, "%" PRIu64 " of %" PRIu64 " chunks cannot be made %s now: %s", conversion.failed,
			 conversion.chunks, warm ? "hot" : "cold", conversion.reason);
		result = cli_error_text(cli, warm ? "warm" : "cool", text);
	} else if (result == EXIT_DONE) {
		printf("%" PRIu64 " of %" PRIu64 " chunks are %s%s\n", conversion.done, conversion.chunks, warm ? "hot" : "cold",
		       conversion.done < conversion.chunks ? "; the cluster goes on with the others" : "");
	}
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
