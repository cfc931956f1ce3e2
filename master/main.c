/* granary-master: options, logging, signals. Everything else is master.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/sys/log.h"
#include "common/sys/loop.h"
#include "common/sys/options.h"
#include "master/master.h"

struct config {
	char *data, *listen, *members, *cluster;
	uint64_t id, cache_size;
	bool join;
	unsigned log_level, log_format;
};

#define FIELD(name) offsetof(struct config, name)

static const struct option_spec specs[] = {
	{ "data", 'd', OPTION_TEXT, FIELD(data), "DIR", "folder of this master's log and state", NULL },
	{ "listen", 'l', OPTION_TEXT, FIELD(listen), "HOST:PORT", "where clients, chunkservers and masters connect", "127.0.0.1:7001" },
	{ "id", 'i', OPTION_COUNT, FIELD(id), "N", "which of the members this one is", "1" },
	{ "members", 'm', OPTION_TEXT, FIELD(members), "1=HOST:PORT,...", "all masters; the first start founds the cluster of these; default: this one alone", "" },
	{ "join", 0, OPTION_FLAG, FIELD(join), NULL, "with a fresh data folder: found no cluster, wait to be added to one", NULL },
	{ "cluster-name", 0, OPTION_TEXT, FIELD(cluster), "NAME", "refuse a data folder of another cluster", "granary" },
	{ "cache-size", 0, OPTION_BYTES, FIELD(cache_size), "BYTES", "memory for caches of the namespace", "256M" },
	{ "log-level", 0, OPTION_CHOICE, FIELD(log_level), LOG_LEVELS, "the least that is logged", "info" },
	{ "log-format", 0, OPTION_CHOICE, FIELD(log_format), LOG_FORMATS, "of a line", "text" },
	{ 0 },
};

static const struct options_program program = {
	.name = "granary-master",
	.usage = "--data DIR [options]",
	.summary = "A master of a Granary cluster: namespace, chunk map, placement, leases; 1, 3 or 5 of them in one Raft group.",
	.specs = specs,
};

struct process {
	struct loop *loop;
	enum err failed;
};

static void on_terminate(void *arg)
{
	struct process *process = arg;

	log_info("stopping", "reason=signal");
	loop_stop(process->loop);
}

static void on_failed(void *arg, enum err err)
{
	struct process *process = arg;

	process->failed = err;
	loop_stop(process->loop);
}

static bool name_is_plain(const char *name)
{
	size_t size = strlen(name);

	for (size_t i = 0; i < size; i++) {
		if (name[i] <= ' ' || name[i] > '~')
			return false;
	}
	return size > 0 && size <= HOST_LABEL_BYTES_MAX;
}

static enum err config_check(const struct config *config, struct buf *message)
{
	if (!config->data || !*config->data)
		buf_printf(message, "--data DIR is needed");
	else if (!name_is_plain(config->cluster))
		buf_printf(message, "--cluster-name is up to %u printable characters without spaces", HOST_LABEL_BYTES_MAX);
	else if (config->cache_size < 16u * MIB)
		buf_printf(message, "--cache-size is at least 16M");
	else
		return OK;
	return ERR_INVALID;
}

static int run(const struct config *config)
{
	struct process process = { 0 };
	struct master *master = NULL;
	struct buf message = { 0 };
	enum err err = loop_open(&process.loop);

	if (err) {
		log_error("start_failed", "error=%s", err_name(err));
		return 1;
	}
	loop_on_terminate(process.loop, on_terminate, &process);
	struct master_options options = { .directory = config->data,
					  .listen = config->listen,
					  .cluster = config->cluster,
					  .members = config->members,
					  .id = config->id,
					  .join = config->join,
					  .cache_bytes = config->cache_size,
					  .failed = on_failed,
					  .arg = &process };
	err = master_open(process.loop, &options, &master, &message);
	if (err) {
		log_error("start_failed", "error=%s", err_name(err));
		fprintf(stderr, "granary-master: %.*s\n", (int)message.size, message.size ? (const char *)message.bytes : "");
	} else {
		log_info("ready", "address=%s id=%llu", master_address(master), (unsigned long long)config->id);
		loop_run(process.loop);
		err = process.failed;
	}
	master_close(master);
	loop_close(process.loop);
	buf_deinit(&message);
	return err ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct config config = { 0 };
	struct buf message = { 0 };
	int first = 0;
	enum err err = options_parse(&program, &config, argc, argv, false, &first, &message);

	if (err == OK && first < argc) {
		buf_printf(&message, "%s is not an option", argv[first]);
		err = ERR_INVALID;
	}
	if (err == OK)
		err = config_check(&config, &message);
	if (err) {
		fprintf(stderr, "granary-master: %.*s\n", (int)message.size, (const char *)message.bytes);
		options_deinit(&program, &config);
		buf_deinit(&message);
		return 2;
	}
	log_setup("master", (enum log_level)config.log_level, (enum log_format)config.log_format);
	int status = run(&config);
	options_deinit(&program, &config);
	buf_deinit(&message);
	return status;
}
