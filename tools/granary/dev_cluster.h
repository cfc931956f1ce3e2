/* A cluster on this machine for `granary dev`: its folder, what it remembers, its processes.
 *
 *	DIR/dev.conf          what `up` was told and the ports that were found (INI, written whole)
 *	DIR/client.conf       for clients: --config
 *	DIR/pids/NAME.pid     DIR/log/NAME.log     DIR/data/NAME/       NAME: master-1, chunkserver-1, mount
 *
 * A pid file is believed only if /proc says that this pid runs our program on our folder: pids are used again. */
#ifndef GRANARY_TOOLS_GRANARY_DEV_CLUSTER_H
#define GRANARY_TOOLS_GRANARY_DEV_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tools/granary/cli.h"

#define DEV_MASTERS_MAX 5u
#define DEV_CHUNKSERVERS_MAX 32u
#define DEV_PROCESSES_MAX (DEV_MASTERS_MAX + DEV_CHUNKSERVERS_MAX + 1u)
#define DEV_SETS_MAX 32u

enum dev_role { DEV_MASTER, DEV_CHUNKSERVER, DEV_MOUNT };
enum dev_state { DEV_ABSENT, DEV_RUNNING, DEV_FROZEN };

struct dev_process {
	enum dev_role role;
	unsigned number; /* from 1; 0 for the mount */
	char name[32];
	char address[32]; /* "" for the mount */
	pid_t child;      /* started by this command; 0: not */
};

struct dev_cluster {
	struct cli *cli;
	char *directory; /* absolute */
	char *mount;     /* absolute, or NULL */
	uint64_t masters, chunkservers;
	uint64_t racks; /* that the chunkservers are in; 0: none */
	char *sets[DEV_SETS_MAX]; /* "[PROGRAM.]KEY=VALUE" */
	size_t set_count;
	struct dev_process processes[DEV_PROCESSES_MAX];
	size_t process_count;
	int lock; /* one command at a time on a folder */
};

/* Reads DIR/dev.conf and takes the lock. An exit status; EXIT_FAILED when there is no cluster there. */
int dev_open(struct cli *cli, const char *directory, struct dev_cluster *out);
/* As dev_open, and with an empty cluster in a folder that it makes when there is none. */
int dev_create(struct cli *cli, const char *directory, struct dev_cluster *out);
void dev_close(struct dev_cluster *dev);
/* Fills up `processes` to the counts, finds free ports for new ones, writes dev.conf and client.conf. */
int dev_save(struct dev_cluster *dev);

/* "a:1,b:2,c:3" of the masters; to be freed. */
char *dev_addresses(const struct dev_cluster *dev);
/* DIR/kind/NAME + suffix; to be freed. */
char *dev_path(const struct dev_cluster *dev, const char *kind, const char *name, const char *suffix);
/* "master", "2" -> the process; NULL after it has said what is wrong. */
struct dev_process *dev_find(struct dev_cluster *dev, const char *role, const char *number);

/* The pid of what runs, 0 when it does not. */
pid_t dev_pid(const struct dev_cluster *dev, const struct dev_process *process, enum dev_state *state);
/* One descriptor for each that runs (-1: it does not), taken before it is told to end; dev_wait_gone waits until nothing is left
 * of it, and closes them. A process that is ending has lost its name in /proc, so that dev_pid is 0, before its files are
 * closed: its lock and its port are still taken. */
void dev_watch(const struct dev_cluster *dev, struct dev_process *const *processes, size_t count, int *watches);
void dev_wait_gone(int *watches, size_t count);
/* Removes a data folder of the cluster with all that is in it; an exit status. */
int dev_wipe(struct dev_cluster *dev, const char *path);
/* Starts it with its log; an exit status. */
int dev_start(struct dev_cluster *dev, struct dev_process *process);
/* True when a child of this command has ended; its log is shown. */
bool dev_has_died(struct dev_cluster *dev, struct dev_process *process);
/* SIGTERM to all given, SIGKILL to what is left after ten seconds; waits until they are gone. Unmounts the mount first.
 */
void dev_terminate(struct dev_cluster *dev, struct dev_process **processes, size_t count);

/* The mount point is listed by the kernel; responding: and answers statfs. */
bool dev_is_mounted(const struct dev_cluster *dev, bool *responding);
/* Takes away a mount whose process is gone. */
void dev_detach(struct dev_cluster *dev);
/* Within tools: these are no tests, a poll may sleep. */
void dev_pause(void);

#endif
