#include "tools/granary/progress.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/check.h"
#include "tools/granary/cli.h"

#define FIRST_MS 700 /* what is done by then is never shown */
#define NEXT_MS 200  /* on a terminal */
#define LINE_MS 5000 /* elsewhere */
#define BAR_CELLS 30

struct progress {
	pthread_mutex_t mutex;
	const char *label;
	bool terminal;
	bool drawn;
	uint64_t done, expected;
	int64_t started_ms, next_ms;
};

static int64_t now_ms(void)
{
	return (int64_t)(monotonic_seconds() * 1000);
}

struct progress *progress_open(const char *label, bool forced)
{
	bool terminal = isatty(STDERR_FILENO);
	if (!terminal && !forced)
		return NULL;
	struct progress *progress = mem_zero(1, sizeof *progress);
	check(pthread_mutex_init(&progress->mutex, NULL) == 0);
	progress->label = label;
	progress->terminal = terminal;
	progress->started_ms = now_ms();
	progress->next_ms = progress->started_ms + FIRST_MS;
	return progress;
}

static void draw(struct progress *progress, int64_t now)
{
	char done[16], expected[16], rate[16];
	int64_t took_ms = now - progress->started_ms + 1;
	text_size(progress->done, done);
	text_size(progress->expected, expected);
	text_size(progress->done * 1000 / (uint64_t)took_ms, rate);
	fprintf(stderr, "%s%s ", progress->terminal ? "\r\033[K" : "", progress->label);
	if (progress->expected) {
		uint64_t share = progress->done >= progress->expected ? 100 : progress->done * 100 / progress->expected;
		int cells = (int)(share * BAR_CELLS / 100);
		if (progress->terminal)
			fprintf(stderr, "[%.*s%*s] ", cells, "##############################", BAR_CELLS - cells, "");
		fprintf(stderr, "%3u%% %s of %s, %s/s", (unsigned)share, done, expected, rate);
	} else {
		fprintf(stderr, "%s, %s/s", done, rate);
	}
	fputs(progress->terminal ? "" : "\n", stderr);
	fflush(stderr);
	progress->drawn = true;
}

void progress_expect(struct progress *progress, uint64_t bytes)
{
	if (!progress)
		return;
	pthread_mutex_lock(&progress->mutex);
	progress->expected += bytes;
	pthread_mutex_unlock(&progress->mutex);
}

void progress_add(struct progress *progress, uint64_t bytes)
{
	if (!progress)
		return;
	pthread_mutex_lock(&progress->mutex);
	progress->done += bytes;
	int64_t now = now_ms();
	if (now >= progress->next_ms) {
		draw(progress, now);
		progress->next_ms = now + (progress->terminal ? NEXT_MS : LINE_MS);
	}
	pthread_mutex_unlock(&progress->mutex);
}

void progress_close(struct progress *progress)
{
	if (!progress)
		return;
	if (progress->drawn && progress->terminal)
		fputs("\r\033[K", stderr);
	pthread_mutex_destroy(&progress->mutex);
	free(progress);
}
