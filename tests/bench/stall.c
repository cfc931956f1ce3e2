/* granary-stall FILE SECONDS [--rate N] [--size BYTES]: how long does a writer wait while something breaks?
 *
 * Writes numbered blocks to FILE one after another, each synced (fdatasync) before the next, N a second (default 100), for so
 * many seconds. A block that fails is written again. A line "NAME" on standard input marks a moment: from then on pauses count for
 * NAME. In the end all blocks are read back and compared. Prints one JSON object:
 *
 *	{"blocks": N, "wrong": N, "errors": N, "pauses": [{"name": "start", "longest_ms": X, "at_ms": X, "first_ms": X}, ...]}
 *
 * longest_ms: the longest time from a block's due time to its being on disk, begun after the mark or under way then; at_ms: how long
 * after the mark it began; first_ms: the first block finished after the mark. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MARKS_MAX 64
#define BLOCK_BYTES_MAX (1u << 20)
#define RETRY_MS 20

struct mark {
	char name[64];
	double at, longest, longest_at, first;
};

struct stall {
	int file;
	size_t block_bytes;
	double rate;
	uint64_t blocks, errors, wrong;
	struct mark marks[MARKS_MAX];
	size_t mark_count;
	uint8_t block[BLOCK_BYTES_MAX], seen[BLOCK_BYTES_MAX];
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fill(struct stall *stall, uint64_t number)
{
	for (size_t i = 0; i + 8 <= stall->block_bytes; i += 8) {
		uint64_t word = number * 0x9e3779b97f4a7c15u + i;
		memcpy(stall->block + i, &word, 8);
	}
}

static void add_mark(struct stall *stall, const char *name)
{
	if (stall->mark_count == MARKS_MAX)
		return;
	struct mark *mark = &stall->marks[stall->mark_count++];
	*mark = (struct mark){.at = now(), .first = -1};
	snprintf(mark->name, sizeof mark->name, "%.*s", (int)strcspn(name, "\n\"\\"), name);
}

/* Waits until `until` or a line; false when the other end has closed. */
static void read_marks(struct stall *stall, double until, bool *closed)
{
	do {
		double left = until - now();
		struct pollfd input = {.fd = *closed ? -1 : STDIN_FILENO, .events = POLLIN};
		if (poll(&input, 1, left > 0 ? (int)(left * 1000) + 1 : 0) <= 0)
			continue;
		char line[256];
		ssize_t got = read(STDIN_FILENO, line, sizeof line - 1);
		*closed = got <= 0;
		line[got > 0 ? got : 0] = 0;
		if (got > 0)
			add_mark(stall, line);
	} while (now() < until);
}

/* A block due at `due` has just come to disk. */
static void note(struct stall *stall, double due)
{
	double end = now();
	struct mark *mark = &stall->marks[stall->mark_count - 1];
	if (mark->first < 0)
		mark->first = end - mark->at;
	if (end - due > mark->longest) {
		mark->longest = end - due;
		mark->longest_at = due - mark->at;
	}
}

static void write_blocks(struct stall *stall, double seconds)
{
	double started = now(), due = started;
	bool closed = false;
	while (now() - started < seconds) {
		fill(stall, stall->blocks);
		off_t offset = (off_t)(stall->blocks * stall->block_bytes);
		while (pwrite(stall->file, stall->block, stall->block_bytes, offset) != (ssize_t)stall->block_bytes ||
		       fdatasync(stall->file) != 0) {
			if (stall->errors++ == 0)
				fprintf(stderr, "granary-stall: block %" PRIu64 ": %s\n", stall->blocks, strerror(errno));
			if (now() - started > seconds)
				return;
			read_marks(stall, now() + RETRY_MS / 1e3, &closed);
		}
		/* A mark that came meanwhile is read first: the block was under way when it was made. */
		read_marks(stall, 0, &closed);
		note(stall, due);
		stall->blocks++;
		double next = due + 1 / stall->rate;
		read_marks(stall, next, &closed);
		due = next > now() - 1e-3 ? next : now();
	}
}

static void read_back(struct stall *stall)
{
	for (uint64_t number = 0; number < stall->blocks; number++) {
		fill(stall, number);
		ssize_t got = pread(stall->file, stall->seen, stall->block_bytes, (off_t)(number * stall->block_bytes));
		if (got != (ssize_t)stall->block_bytes || memcmp(stall->seen, stall->block, stall->block_bytes) != 0)
			stall->wrong++;
	}
}

static void print(const struct stall *stall)
{
	printf("{\"blocks\": %" PRIu64 ", \"wrong\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"pauses\": [", stall->blocks,
	       stall->wrong, stall->errors);
	for (size_t i = 0; i < stall->mark_count; i++) {
		const struct mark *mark = &stall->marks[i];
		printf("%s{\"name\": \"%s\", \"longest_ms\": %.1f, \"at_ms\": %.1f, \"first_ms\": %.1f}", i ? ", " : "", mark->name,
		       mark->longest * 1e3, mark->longest_at * 1e3, mark->first * 1e3);
	}
	puts("]}");
}

int main(int argc, char **argv)
{
	static struct stall stall = {.block_bytes = 64 << 10, .rate = 100};
	double seconds = argc > 2 ? strtod(argv[2], NULL) : 0;
	for (int i = 3; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--rate") == 0)
			stall.rate = strtod(argv[i + 1], NULL);
		else if (strcmp(argv[i], "--size") == 0)
			stall.block_bytes = strtoull(argv[i + 1], NULL, 10);
		else
			seconds = 0;
	}
	if (seconds <= 0 || stall.rate <= 0 || stall.block_bytes < 8 || stall.block_bytes > BLOCK_BYTES_MAX || argc % 2 == 0) {
		fputs("usage: granary-stall FILE SECONDS [--rate N] [--size BYTES]\n", stderr);
		return 2;
	}
	stall.file = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (stall.file < 0) {
		fprintf(stderr, "granary-stall: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	add_mark(&stall, "start");
	write_blocks(&stall, seconds);
	read_back(&stall);
	print(&stall);
	return stall.wrong > 0 || close(stall.file) != 0;
}
