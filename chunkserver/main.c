/* granary-chunkserver: options, logging, signals. Everything else is chunkserver.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chunkserver/chunkserver.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/location.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "common/sys/options.h"

#define HOST_BYTES_MAX 256

struct config {
	char *data, *listen, *masters, *zone, *rack, *location, *host, *address;
	uint64_t reserve;
	unsigned log_level, log_format;
};

#define FIELD(name) offsetof(struct config, name)

static const struct option_spec specs[] = {
	{ "data", 'd', OPTION_TEXT, FIELD(data), "DIR", "folder of the chunks: one process a disk", NULL },
	{ "listen", 'l', OPTION_TEXT, FIELD(listen), "HOST:PORT", "where clients and chunkservers connect", "127.0.0.1:7101" },
	{ "masters", 'm', OPTION_TEXT, FIELD(masters), "HOST:PORT,...", "all masters of the cluster", "127.0.0.1:7001" },
	{ "zone", 0, OPTION_TEXT, FIELD(zone), "LABEL", "the same for all that fail together above the rack", NULL },
	{ "rack", 0, OPTION_TEXT, FIELD(rack), "LABEL", "the same for all hosts of a rack", NULL },
	{ "location", 0, OPTION_TEXT, FIELD(location), "A/B/...", "instead of both: all failure domains above the host, broadest first", NULL },
	{ "host", 0, OPTION_TEXT, FIELD(host), "LABEL", "what fails together: the same for all disks of a host (default: its name)", NULL },
	{ "address", 0, OPTION_TEXT, FIELD(address), "HOST:PORT", "told to others (default: where it listens)", NULL },
	{ "reserve", 0, OPTION_BYTES, FIELD(reserve), "BYTES", "kept free on the disk", "64M" },
	{ "log-level", 0, OPTION_CHOICE, FIELD(log_level), LOG_LEVELS, "the least that is logged", "info" },
	{ "log-format", 0, OPTION_CHOICE, FIELD(log_format), LOG_FORMATS, "of a line", "text" },
	{ 0 },
};

static const struct options_program program = {
	.name = "granary-chunkserver",
	.usage = "--data DIR --masters HOST:PORT,... [options]",
	.summary = "Keeps chunks of a Granary cluster on one disk.",
	.specs = specs,
};

struct process {
	struct loop *loop;
	struct chunkserver *server; /* NULL: the store could not be opened again yet */
	struct chunkserver_options options;
	bool ending;
	/* Of a store that has failed. */
	struct timer reopen;
	unsigned failures; /* in a row */
	uint64_t opened_ms;
};

static void on_stopped(void *arg)
{
	struct process *process = arg;
	loop_stop(process->loop);
}

/* Nothing here can change while it runs; a signal that asks for it is no reason to end. */
static void on_reload(void *arg)
{
	(void)arg;
	log_info("reload", "changed=%d", 0);
}

/* ---- a store that fails is taken into service again, after longer and longer */

/* It lacks nothing but space: no reason to give it up, nor to be slow when there is some again. */
static bool is_full(const struct process *process)
{
	struct disk_space space;
	return disk_space(process->loop, process->options.data, &space) == OK && space.bytes_free < STORE_FULL_BYTES;
}

static void wait_to_reopen(struct process *process)
{
	if (is_full(process)) {
		log_warn("store_reopens", "after_ms=%u reason=disk_is_full", STORE_FULL_REOPEN_MS);
		timer_start(&process->reopen, STORE_FULL_REOPEN_MS);
		return;
	}
	uint64_t ms = (uint64_t)STORE_REOPEN_MS_MIN << (process->failures < 16 ? process->failures : 16);
	if (ms > STORE_REOPEN_MS_MAX)
		ms = STORE_REOPEN_MS_MAX;
	if (process->failures++ >= STORE_REOPENS_MAX) {
		log_error("store_out", "failures=%u action=none reason=it_fails_again_and_again", process->failures);
		return;
	}
	log_warn("store_reopens", "after_ms=%llu failures=%u", (unsigned long long)ms, process->failures);
	timer_start(&process->reopen, ms);
}

static void on_failed(void *arg)
{
	struct process *process = arg;
	if (loop_now_ms(process->loop) - process->opened_ms >= STORE_HEALTHY_MS)
		process->failures = 0;
	wait_to_reopen(process);
}

static void open_again(struct process *process)
{
	process->options.again = true;
	process->options.reopened++;
	process->opened_ms = loop_now_ms(process->loop);
	enum err err = chunkserver_open(process->loop, &process->options, &process->server);
	if (err == OK) {
		log_info("ready", "address=%s server=%016llx reopened=%llu", chunkserver_address(process->server),
			 (unsigned long long)chunkserver_id(process->server), (unsigned long long)process->options.reopened);
		return;
	}
	log_error("reopen_failed", "error=%s", err_name(err));
	wait_to_reopen(process);
}

static void on_closed_for_reopening(void *arg)
{
	struct process *process = arg;
	chunkserver_close(process->server);
	process->server = NULL;
	if (process->ending)
		loop_stop(process->loop);
	else
		open_again(process);
}

static void on_reopen(void *arg)
{
	struct process *process = arg;
	if (process->server != NULL)
		chunkserver_stop(process->server, on_closed_for_reopening, process);
	else
		open_again(process);
}

static void on_terminate(void *arg)
{
	struct process *process = arg;
	log_info("stopping", "reason=signal");
	timer_stop(&process->reopen);
	process->ending = true;
	if (process->server == NULL)
		loop_stop(process->loop);
	else
		chunkserver_stop(process->server, on_stopped, process);
}

static bool is_given(const char *text)
{
	return text != NULL && *text != 0;
}

/* What is given as zone and rack is put together in `location`. */
static enum err config_check(struct config *config, struct buf *message)
{
	bool has_zone = is_given(config->zone), has_rack = is_given(config->rack);
	if (!is_given(config->data)) {
		buf_printf(message, "--data DIR is needed");
	} else if (is_given(config->location) && (has_zone || has_rack)) {
		buf_printf(message, "--location says it all: not together with --zone or --rack");
	} else if ((has_zone && strchr(config->zone, '/')) || (has_rack && strchr(config->rack, '/'))) {
		buf_printf(message, "--zone and --rack are one label each, without \"/\" (see --location)");
	} else {
		if (has_zone || has_rack) {
			struct buf location = { 0 };
			buf_printf(&location, "%s%s%s", has_zone ? config->zone : "", has_zone && has_rack ? "/" : "",
				   has_rack ? config->rack : "");
			buf_append(&location, "", 1);
			free(config->location);
			config->location = mem_string((const char *)location.bytes);
			buf_deinit(&location);
		}
		if (!is_given(config->location) || location_is_valid(config->location))
			return OK;
		buf_printf(message, "%s is no location: up to %u printable labels without spaces, one \"/\" between them",
			   config->location, LOCATION_DEPTH_MAX);
	}
	return ERR_INVALID;
}

static const char *why(enum err err)
{
	switch (err) {
	case ERR_BUSY:
		return "another process uses this data folder or address";
	case ERR_CORRUPT:
		return "the data folder is damaged: see the log";
	case ERR_STALE_HANDLE:
		return "the data folder holds the chunks of another server: see the log";
	case ERR_INVALID:
		return "an address is not HOST:PORT";
	default:
		return err_text(err);
	}
}

static int run(const struct config *config)
{
	char host[HOST_BYTES_MAX] = "localhost";
	struct process process = { 0 };
	enum err err = loop_open(&process.loop);
	if (err != OK) {
		fprintf(stderr, "granary-chunkserver: start: %s\n", err_text(err));
		return 1;
	}
	if (gethostname(host, sizeof(host) - 1) != 0)
		log_warn("no_host_name", "label=%s", host);
	process.options = (struct chunkserver_options){
		.data = config->data,
		.listen = config->listen,
		.masters = config->masters,
		.host = config->host != NULL && *config->host != 0 ? config->host : host,
		.location = config->location,
		.address = config->address != NULL && *config->address != 0 ? config->address : NULL,
		.reserved_bytes = config->reserve,
		.failed = on_failed,
		.failed_arg = &process,
	};
	timer_init(&process.reopen, process.loop, on_reopen, &process);
	process.opened_ms = loop_now_ms(process.loop);
	err = chunkserver_open(process.loop, &process.options, &process.server);
	if (err != OK) {
		log_error("start_failed", "error=%s", err_name(err));
		fprintf(stderr, "granary-chunkserver: %s: %s\n", config->data, why(err));
	} else {
		loop_on_terminate(process.loop, on_terminate, &process);
		loop_on_reload(process.loop, on_reload, &process);
		log_info("ready", "address=%s server=%016llx", chunkserver_address(process.server),
			 (unsigned long long)chunkserver_id(process.server));
		loop_run(process.loop);
		chunkserver_close(process.server);
		log_info("stopped", "error=%s", err_name(OK));
	}
	loop_close(process.loop);
	return err == OK ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct config config = { 0 };
	struct buf message = { 0 };
	int first = 0, status = 2;
	enum err err = options_parse(&program, &config, argc, argv, false, &first, &message);
	if (err == OK && first < argc) {
		buf_printf(&message, "%s is not an option", argv[first]);
		err = ERR_INVALID;
	}
	if (err == OK)
		err = config_check(&config, &message);
	if (err != OK) {
		fprintf(stderr, "granary-chunkserver: %.*s\n", (int)message.size, (const char *)message.bytes);
	} else {
		log_setup("chunkserver", (enum log_level)config.log_level, (enum log_format)config.log_format);
		status = run(&config);
	}
	options_deinit(&program, &config);
	buf_deinit(&message);
	return status;
}
