/* dev: a cluster of real processes on this machine. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "tools/granary/cluster_status.h"
#include "tools/granary/commands.h"
#include "tools/granary/dev_cluster.h"
#include "tools/granary/json.h"

#define READY_TIMEOUT_MS 30000

/* A master has taken part in a cluster: its identity file says so. */
static bool is_founded(struct dev_cluster *dev)
{
	bool founded = false;
	for (size_t i = 0; i < dev->process_count && !founded; i++) {
		char *path = dev_path(dev, "data", dev->processes[i].name, "/identity"), line[512];
		FILE *file = dev->processes[i].role == DEV_MASTER ? fopen(path, "re") : NULL;
		while (file && fgets(line, sizeof line, file))
			founded |= strncmp(line, "founding = ", 11) == 0 || strncmp(line, "members = ", 10) == 0;
		if (file)
			fclose(file);
		free(path);
	}
	return founded;
}

/* A cluster that may answer: more than half of the masters run and are not frozen, or all, when they have yet to found it. */
static bool has_majority(struct dev_cluster *dev)
{
	unsigned running = 0;
	for (size_t i = 0; i < dev->process_count; i++) {
		enum dev_state state;
		if (dev->processes[i].role == DEV_MASTER && dev_pid(dev, &dev->processes[i], &state) &&
		    state == DEV_RUNNING)
			running++;
	}
	return running > (is_founded(dev) ? dev->masters / 2 : dev->masters - 1);
}

/* A leader answers and knows every chunkserver of ours that runs. */
static bool is_ready(void *arg, const Granary__ClusterStatus *status, bool *failed)
{
	struct dev_cluster *dev = arg;
	bool ready = status != NULL;
	for (size_t i = 0; i < dev->process_count && !*failed; i++) {
		struct dev_process *process = &dev->processes[i];
		enum dev_state state;
		*failed = dev_has_died(dev, process);
		if (!ready || process->role != DEV_CHUNKSERVER || !dev_pid(dev, process, &state) ||
		    state != DEV_RUNNING)
			continue;
		bool up = false;
		for (size_t s = 0; s < status->n_servers && !up; s++)
			up = status->servers[s]->up && strcmp(status->servers[s]->address, process->address) == 0;
		ready = up;
	}
	return ready;
}

static int wait_for_mount(struct dev_cluster *dev, struct dev_process *process, double deadline)
{
	for (bool responding = false; !dev_is_mounted(dev, &responding) || !responding; dev_pause()) {
		if (dev_has_died(dev, process))
			return EXIT_FAILED;
		if (monotonic_seconds() > deadline)
			return cli_error_text(dev->cli, dev->mount,
					      "the mount does not answer (see granary dev logs DIR mount)");
	}
	return EXIT_DONE;
}

static int wait_until_ready(struct dev_cluster *dev)
{
	double deadline = monotonic_seconds() + READY_TIMEOUT_MS / 1000.0;
	if (!has_majority(dev))
		return EXIT_DONE; /* after a restart of one of several: nothing to wait for */
	char *addresses = dev_addresses(dev);
	Granary__ClusterStatus *status = NULL;
	enum err err = cluster_wait(addresses, READY_TIMEOUT_MS, is_ready, dev, &status);
	free(addresses);
	int result = EXIT_DONE;
	if (err == ERR_CANCELLED) {
		result = EXIT_FAILED;
	} else if (err != OK && status) {
		result = cli_error_text(dev->cli, dev->directory, "not all chunkservers have registered (see DIR/log)");
	} else if (err != OK) {
		cli_error_text(dev->cli, dev->directory, err_text(err));
		result = EXIT_NO_CLUSTER;
	}
	cluster_status_free(status);
	for (size_t i = 0; i < dev->process_count && result == EXIT_DONE; i++) {
		if (dev->processes[i].role == DEV_MOUNT && dev_pid(dev, &dev->processes[i], NULL))
			result = wait_for_mount(dev, &dev->processes[i], deadline);
	}
	return result;
}

/* Starts what does not run, wakes what is frozen. */
static int start_missing(struct dev_cluster *dev, unsigned *started)
{
	int result = EXIT_DONE;
	for (size_t i = 0; i < dev->process_count && result == EXIT_DONE; i++) {
		struct dev_process *process = &dev->processes[i];
		enum dev_state state;
		pid_t pid = dev_pid(dev, process, &state);
		if (state == DEV_FROZEN)
			kill(pid, SIGCONT);
		if (process->role == DEV_MOUNT && pid && !dev_is_mounted(dev, NULL)) {
			dev_terminate(dev, &process, 1);
			pid = 0;
		}
		if (pid)
			continue;
		if (process->role == DEV_MOUNT) {
			dev_detach(dev);
			if (mkdir(dev->mount, 0755) != 0 && errno != EEXIST)
				return cli_error_errno(dev->cli, dev->mount, errno);
		}
		result = dev_start(dev, process);
		*started += 1;
	}
	return result;
}

/* After a failure: what this command started. */
static void stop_started(struct dev_cluster *dev)
{
	struct dev_process *started[DEV_PROCESSES_MAX];
	size_t count = 0;
	for (size_t i = 0; i < dev->process_count; i++) {
		if (dev->processes[i].child > 0)
			started[count++] = &dev->processes[i];
	}
	dev_terminate(dev, started, count);
}

struct up {
	uint64_t masters, chunkservers, racks;
	const char *mount;
	struct cli_list sets;
};

/* What was asked for now, beside what is remembered. */
static int merge(struct dev_cluster *dev, const struct up *up)
{
	struct cli *cli = dev->cli;
	if (up->masters && up->masters < dev->masters)
		return cli_usage_error(cli, "--masters", "cannot become fewer (granary admin raft remove, then dev kill)");
	if (up->chunkservers && up->chunkservers < dev->chunkservers)
		return cli_usage_error(cli, "--chunkservers", "cannot become fewer: their data would be lost");
	dev->racks = up->racks ? up->racks : dev->racks;
	dev->masters = up->masters ? up->masters : dev->masters ? dev->masters : 3;
	dev->chunkservers = up->chunkservers ? up->chunkservers : dev->chunkservers ? dev->chunkservers : 4;
	if (dev->masters > DEV_MASTERS_MAX)
		return cli_usage_error(cli, "--masters", "at most 5");
	if (dev->chunkservers > DEV_CHUNKSERVERS_MAX)
		return cli_usage_error(cli, "--chunkservers", "at most 32");
	for (size_t i = 0; i < up->sets.count; i++) {
		const char *set = up->sets.items[i];
		if (!strchr(set, '=') || strchr(set, '=') == set || dev->set_count == DEV_SETS_MAX)
			return cli_usage_error(cli, set, "--set takes [PROGRAM.]KEY=VALUE, at most 32 of them");
		dev->sets[dev->set_count++] = mem_string(set);
	}
	if (!up->mount)
		return EXIT_DONE;
	/* the folder above it exists, or is ours */
	char *parent = path_parent(up->mount), *name = path_base(up->mount), *resolved = realpath(parent, NULL);
	free(parent);
	if (!resolved) {
		free(name);
		return cli_error_errno(cli, up->mount, errno);
	}
	free(dev->mount);
	dev->mount = path_join(resolved, name);
	free(resolved);
	free(name);
	return EXIT_DONE;
}

/* Runs `granary admin raft add` for what is new; it may be a member already. */
static int add_masters(struct dev_cluster *dev)
{
	char *addresses = dev_addresses(dev);
	int result = EXIT_DONE;
	Granary__ClusterStatus *status = NULL;
	enum err err = cluster_status(addresses, READY_TIMEOUT_MS, &status);
	for (size_t i = 0; err == OK && i < dev->process_count && result == EXIT_DONE; i++) {
		const struct dev_process *process = &dev->processes[i];
		bool known = process->role != DEV_MASTER;
		for (size_t m = 0; m < status->n_members; m++)
			known |= status->members[m]->id == process->number;
		if (known)
			continue;
		char member[64];
		snprintf(member, sizeof member, "%u=%s", process->number, process->address);
		dev->cli->cluster_option = addresses;
		result = admin_raft_add(dev->cli, member);
		dev->cli->cluster_option = NULL;
	}
	cluster_status_free(status);
	free(addresses);
	return err ? cli_error_text(dev->cli, dev->directory, err_text(err)) : result;
}

int cmd_dev_up(struct cli *cli, int argc, char **argv)
{
	struct up up = {0};
	const struct cli_option options[] = {
	    {"masters", 0, CLI_COUNT, &up.masters, "N", "1 to 5 (3)"},
	    {"chunkservers", 0, CLI_COUNT, &up.chunkservers, "N", "1 to 32 (4), each with a host label of its own"},
	    {"racks", 0, CLI_COUNT, &up.racks, "N", "the chunkservers are in so many racks by turns (none)"},
	    {"mount", 0, CLI_TEXT, &up.mount, "PATH", "mount it there, too"},
	    {"set", 0, CLI_LIST, &up.sets, "[PROGRAM.]KEY=VALUE", "an option for the processes, as --KEY VALUE"},
	    {0},
	};
	int result = EXIT_DONE;
	double began = monotonic_seconds();
	struct dev_cluster dev;
	if (!cli_parse(cli, options, &argc, argv, &result)) {
		free(up.sets.items);
		return result;
	}
	result = dev_create(cli, argv[0], &dev);
	if (result != EXIT_DONE) {
		free(up.sets.items);
		return result;
	}
	unsigned started = 0;
	uint64_t masters_before = dev.masters;
	result = merge(&dev, &up);
	if (result == EXIT_DONE)
		result = dev_save(&dev);
	if (result == EXIT_DONE)
		result = start_missing(&dev, &started);
	if (result == EXIT_DONE)
		result = wait_until_ready(&dev);
	if (result == EXIT_DONE && dev.masters > masters_before && masters_before > 0)
		result = add_masters(&dev);
	if (result != EXIT_DONE)
		stop_started(&dev);
	if (result == EXIT_DONE) {
		printf("ready in %.1f s: %" PRIu64 " masters, %" PRIu64 " chunkservers", monotonic_seconds() - began,
		       dev.masters, dev.chunkservers);
		if (dev.mount)
			printf(", mounted at %s", dev.mount);
		printf(" (%u started)\nexport GRANARY_CONFIG=%s/client.conf\n", started, dev.directory);
	}
	dev_close(&dev);
	free(up.sets.items);
	return result;
}

/* Opens DIR (argv[0]) for a command that has no options but the common ones. */
static int begin(struct cli *cli, int *argc, char **argv, const struct cli_option *options, struct dev_cluster *dev,
		 bool *over)
{
	static const struct cli_option none[] = {{0}};
	int result = EXIT_DONE;
	*over = !cli_parse(cli, options ? options : none, argc, argv, &result);
	if (*over)
		return result;
	result = dev_open(cli, argv[0], dev);
	*over = result != EXIT_DONE;
	return result;
}

/* The processes that argv[1] and argv[2] name. */
static size_t select_processes(struct dev_cluster *dev, int argc, char **argv, struct dev_process **out)
{
	if (strcmp(argv[1], "all") == 0 && argc == 2) {
		for (size_t i = 0; i < dev->process_count; i++)
			out[i] = &dev->processes[i];
		return dev->process_count;
	}
	out[0] = dev_find(dev, argv[1], argc > 2 ? argv[2] : NULL);
	return out[0] ? 1 : 0;
}

int cmd_dev_down(struct cli *cli, int argc, char **argv)
{
	struct dev_cluster dev;
	bool over;
	int result = begin(cli, &argc, argv, NULL, &dev, &over);
	if (over)
		return result;
	/* The mount first, then the chunkservers, then those whom they tell. */
	struct dev_process *group[DEV_PROCESSES_MAX];
	static const enum dev_role order[] = {DEV_MOUNT, DEV_CHUNKSERVER, DEV_MASTER};
	for (size_t r = 0; r < 3; r++) {
		size_t count = 0;
		for (size_t i = 0; i < dev.process_count; i++) {
			if (dev.processes[i].role == order[r])
				group[count++] = &dev.processes[i];
		}
		dev_terminate(&dev, group, count);
	}
	dev_close(&dev);
	return EXIT_DONE;
}

int cmd_dev_status(struct cli *cli, int argc, char **argv)
{
	static const char *const states[] = {"down", "running", "frozen"};
	struct dev_cluster dev;
	bool over, as_json = false;
	const struct cli_option options[] = {{"json", 0, CLI_FLAG, &as_json, NULL, "an array"}, {0}};
	int result = begin(cli, &argc, argv, options, &dev, &over);
	if (over)
		return result;
	struct json json;
	json_init(&json, stdout);
	if (as_json)
		json_open(&json, NULL, '[');
	else
		printf("%-16s %-8s %8s  %s\n", "name", "state", "pid", "address");
	for (size_t i = 0; i < dev.process_count; i++) {
		const struct dev_process *process = &dev.processes[i];
		enum dev_state state;
		pid_t pid = dev_pid(&dev, process, &state);
		const char *where = process->role == DEV_MOUNT ? dev.mount : process->address;
		result = cli_worst(result, state == DEV_RUNNING ? EXIT_DONE : EXIT_FAILED);
		if (as_json) {
			json_open(&json, NULL, '{');
			json_text(&json, "name", process->name);
			json_text(&json, "state", states[state]);
			json_number(&json, "pid", (uint64_t)pid);
			json_text(&json, process->role == DEV_MOUNT ? "path" : "address", where);
			json_close(&json, '}');
		} else {
			printf("%-16s %-8s %8d  %s\n", process->name, states[state], (int)pid, where);
		}
	}
	if (as_json)
		json_close(&json, ']');
	dev_close(&dev);
	return result;
}

static int signal_some(struct cli *cli, int argc, char **argv, int number)
{
	struct dev_cluster dev;
	bool over;
	int result = begin(cli, &argc, argv, NULL, &dev, &over);
	if (over)
		return result;
	struct dev_process *chosen[DEV_PROCESSES_MAX];
	pid_t pids[DEV_PROCESSES_MAX];
	int watches[DEV_PROCESSES_MAX];
	size_t count = select_processes(&dev, argc, argv, chosen);
	result = count ? EXIT_DONE : EXIT_FAILED;
	if (number == SIGKILL)
		dev_watch(&dev, chosen, count, watches);
	/* First find them all, then signal: a power cut takes all at once. */
	for (size_t i = 0; i < count; i++) {
		pids[i] = dev_pid(&dev, chosen[i], NULL);
		if (!pids[i] && count == 1)
			result = cli_error_text(cli, chosen[i]->name, "does not run");
	}
	for (size_t i = 0; i < count; i++) {
		if (pids[i] && kill(pids[i], number) != 0)
			result = cli_error_errno(cli, chosen[i]->name, errno);
	}
	if (number == SIGKILL)
		dev_wait_gone(watches, count);
	dev_close(&dev);
	return result;
}

int cmd_dev_kill(struct cli *cli, int argc, char **argv)
{
	return signal_some(cli, argc, argv, SIGKILL);
}

int cmd_dev_stop(struct cli *cli, int argc, char **argv)
{
	return signal_some(cli, argc, argv, SIGSTOP);
}

int cmd_dev_cont(struct cli *cli, int argc, char **argv)
{
	return signal_some(cli, argc, argv, SIGCONT);
}

int cmd_dev_restart(struct cli *cli, int argc, char **argv)
{
	struct dev_cluster dev;
	bool over;
	int result = begin(cli, &argc, argv, NULL, &dev, &over);
	if (over)
		return result;
	struct dev_process *chosen[DEV_PROCESSES_MAX];
	size_t count = select_processes(&dev, argc, argv, chosen);
	result = count ? EXIT_DONE : EXIT_FAILED;
	dev_terminate(&dev, chosen, count);
	for (size_t i = 0; i < count && result == EXIT_DONE; i++)
		result = dev_start(&dev, chosen[i]);
	if (result == EXIT_DONE)
		result = wait_until_ready(&dev);
	dev_close(&dev);
	return result;
}

/* An empty disk under the name of a process. */
int cmd_dev_replace(struct cli *cli, int argc, char **argv)
{
	struct dev_cluster dev;
	bool over;
	int result = begin(cli, &argc, argv, NULL, &dev, &over);
	if (over)
		return result;
	struct dev_process *chosen = dev_find(&dev, argv[1], argv[2]);
	result = chosen ? EXIT_DONE : EXIT_FAILED;
	if (chosen) {
		dev_terminate(&dev, &chosen, 1);
		char *data = dev_path(&dev, "data", chosen->name, "");
		result = dev_wipe(&dev, data);
		free(data);
	}
	if (result == EXIT_DONE)
		result = dev_start(&dev, chosen);
	if (result == EXIT_DONE)
		result = wait_until_ready(&dev);
	dev_close(&dev);
	return result;
}

int cmd_dev_logs(struct cli *cli, int argc, char **argv)
{
	struct dev_cluster dev;
	bool over, follow = false;
	const struct cli_option options[] = {{"follow", 'f', CLI_FLAG, &follow, NULL, "go on as they grow"}, {0}};
	int result = begin(cli, &argc, argv, options, &dev, &over);
	if (over)
		return result;
	char *words[DEV_PROCESSES_MAX + 8];
	int count = 0;
	static const char *const tail[] = {"tail", "-n", "+1"};
	for (int i = 0; i < 3; i++)
		words[count++] = mem_string(tail[i]);
	if (follow)
		words[count++] = mem_string("-F");
	for (size_t i = 0; i < dev.process_count; i++) {
		if (argc < 2 || strcmp(dev.processes[i].name, argv[1]) == 0)
			words[count++] = dev_path(&dev, "log", dev.processes[i].name, ".log");
	}
	words[count] = NULL;
	result = EXIT_FAILED;
	dev_close(&dev);
	if (count <= 3 + follow) {
		cli_error_text(cli, argc > 1 ? argv[1] : argv[0],
			       "no such process (granary dev status DIR lists them)");
	} else {
		fflush(stdout);
		execvp(words[0], words);
		cli_error_errno(cli, words[0], errno);
	}
	for (int i = 0; i < count; i++)
		free(words[i]);
	return result;
}
