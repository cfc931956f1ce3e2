/* granary: the command line. Finds the command in the table; what it does is in the cmd_*.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/sys/log.h"
#include "common/sys/options.h"
#include "tools/granary/cli.h"
#include "tools/granary/commands.h"

static const struct command files[] = {
    {
	"put",
	cmd_put,
	1,
	2,
	"[-r] [--class CLASS] [--if-absent | --if-match TAG] SRC|- DST  |  --id SRC|-",
	"Put a local file into the cluster",
	"The new content is visible under DST at once and whole, when it is on the disks of all its servers. SRC \"-\" "
	"is standard\n"
	"input. With --id the blob has no name; its id is printed.\n",
    },
    {"get", cmd_get, 1, 2, "[-r] [--range A-B] SRC|ID [DST|-]", "Get a file or a blob by its id",
     "DST is a local file or directory (default: SRC's name in this directory), \"-\" is standard output.\n"},
    {"cat", cmd_cat, 1, -1, "PATH|ID...", "Print files", NULL},
    {"ls", cmd_ls, 0, -1, "[-lRh] [--json] [PATH...]", "List directories", NULL},
    {"stat", cmd_stat, 1, -1, "[--json] PATH|ID...", "Show what is known about files",
     "stored: what is kept of the data, of cold chunks compressed; physical: with all copies or parity.\n"},
    {"explain", cmd_explain, 1, 1, "[--json] PATH|ID", "Show where the chunks of a file are, in what state, and why",
     "Each copy or shard with its server, what that has of it, and when scrubbing last verified it there.\n"},
    {"rm", cmd_rm, 1, -1, "[-rf] [--now] PATH|ID...", "Remove files",
     "They go to the trash, from which `granary undelete` takes them back for as long as `granary admin set trash_seconds` says.\n"},
    {"undelete", cmd_undelete, 1, -1, "[-r] [--list] [--id ID] [--to PATH] PATH|ID...",
     "Take removed files back out of the trash, or list what is there",
     "The newest of each name comes back, with its content and attributes, and with the directories that it was in. A directory\n"
     "needs -r; one that is there gets back all that was removed from it. Names that are taken are left alone. Of a file with\n"
     "several names the one that was removed last comes back.\n"},
    {"mv", cmd_mv, 2, -1, "[-n | --exchange] SRC... DST", "Rename files, or move them into a directory", NULL},
    {"cp", cmd_cp, 2, -1, "[-r] SRC... DST", "Copy files within the cluster", NULL},
    {"mkdir", cmd_mkdir, 1, -1, "[-p] [-m MODE] [--class CLASS] PATH...", "Make directories", NULL},
    {"rmdir", cmd_rmdir, 1, -1, "PATH...", "Remove empty directories", NULL},
    {"ln", cmd_ln, 2, 2, "[-s] TARGET PATH", "Give a file another name, or make a symbolic link", NULL},
    {"readlink", cmd_readlink, 1, 1, "PATH", "Print where a symbolic link points", NULL},
    {"chmod", cmd_chmod, 2, -1, "[-R] MODE PATH...", "Change permissions",
     "MODE is octal or as in u+x,go-w. What takes rights away looks like an option: write `chmod -- -w PATH`.\n"},
    {"chown", cmd_chown, 2, -1, "[-R] [USER][:GROUP] PATH...", "Change the owner", NULL},
    {"touch", cmd_touch, 1, -1, "[-c] PATH...", "Make empty files, or set their times to now", NULL},
    {"truncate", cmd_truncate, 1, -1, "-s SIZE PATH...", "Set the size of files", NULL},
    {"du", cmd_du, 1, -1, "[-sh] [--sizes] PATH...", "Sum up the sizes below directories",
     "With --sizes three of them: logical, stored (of what is cold: compressed) and physical (all copies, or with parity).\n"},
    {"df", cmd_df, 0, 0, "[-h] [--json]", "Show the space of the cluster",
     "data: what files hold; stored: of what is cold, compressed; physical: with all copies, or parity; overhead: of that for each byte "
     "of\n"
     "data.\n"},
    {"tree", cmd_tree, 0, 1, "[-L N] [PATH]", "Draw a directory", NULL},
    {"find", cmd_find, 1, 1,
     "PATH [-name PATTERN] [-size [+-]N[ckMG]] [-mtime [+-]N[dhms]] [-type f|d|l] [-xattr K=V] [-print0]",
     "Find files below a directory; all tests given must hold", NULL},
    {0},
};
static const struct command xattr[] = {
    {"get", cmd_xattr_get, 2, 2, "PATH NAME", "Print an extended attribute", NULL},
    {"set", cmd_xattr_set, 3, 3, "PATH NAME VALUE", "Set an extended attribute", NULL},
    {"list", cmd_xattr_list, 1, 1, "PATH", "List extended attributes", NULL},
    {"rm", cmd_xattr_rm, 2, 2, "PATH NAME", "Remove an extended attribute", NULL},
    {0},
};
static const struct command admin[] = {
    {"status", cmd_admin_status, 0, 0, "[--watch] [--json]", "Say whether all data is safe, and how the cluster is",
     NULL},
    {"servers", cmd_admin_servers, 0, 0, "[--json]", "List the chunkservers", NULL},
    {"trash", cmd_admin_trash, 1, 2, "list [--json] [PATH] | empty [--older-than TIME] [PATH]",
     "Show what is in the trash, or remove it for good",
     "In order of removal. With PATH only what was removed at or below it.\n"},
    {"cool", cmd_admin_cool, 1, -1, "[--wait] PATH...", "Make files cold now: compressed and erasure-coded",
     "Files and whole trees: their chunks are compressed, cut into shards with parity, spread over the cluster, proved, and only\n"
     "then their copies go. They are read as before; who writes to one makes it hot again. Needs as many failure domains as\n"
     "there are shards. Small files share packs with others, which become cold with them.\n"},
    {"warm", cmd_admin_warm, 1, -1, "[--wait] PATH...", "Make cold files hot now: copies on several servers", NULL},
    {"scrub", cmd_admin_scrub, 0, 1, "[--wait] [--json] [SERVER|PATH]",
     "Check every block, chunks' copies against each other, and data against parity; repair what is damaged",
     "All chunkservers, one (its id, address or host label), or the copies of one file. They also do it by themselves: see "
     "`admin set\n"
     "scrub_days`. Of a cold chunk the server of the first parity shard reads all shards, checks the data as its writer left it, computes\n"
     "the parity anew, and has a shard that is wrong made anew of the others; if a server of the set is away, the next time. With --wait\n"
     "it shows how far they are, says what was found and exits with 1 if something could not be repaired; Ctrl-C leaves them at work.\n"},
    {"what-if", cmd_admin_what_if, 0, 0, "--lose SERVER,... [--names] [--json]",
     "Say what would be lost with some chunkservers, what degraded, and how long repair would take",
     "SERVER: an id, an address, a host, or a location with all that is in it. They are taken to be lost at once and for good, with the\n"
     "cluster as it is now: what is away does not count. The first 100 chunks that would be lost are named, with --names files as well.\n"
     "Exit status 1: something would be lost.\n"},
    {"class", cmd_admin_class, 1, -1, "list [--json] | set NAME KEY=VALUE... | remove NAME | assign [--new-only] NAME PATH...",
     "Show the storage classes, make, change or remove one, give one to files and directories",
     "KEYs: copies (1 to 5), cold (auto, off, or shards as in 4+2: auto goes by the number of failure domains), cool (without a write\n"
     "for so long, data becomes cold), compression of cold data (off, fast, high, auto), trash (removed files can be undeleted for so\n"
     "long). VALUE \"default\" goes back to the default. Chunks follow a change in the background. What is made in a directory gets its\n"
     "class; what is assigned one gets it at once, and all that is below a directory follows in the background. A class that is removed\n"
     "leaves its name: where it stands, \"default\" counts.\n"},
    {"tasks", cmd_admin_tasks, 0, 0, "[-n N] [--json]", "Show what the masters do later, or in the background",
     "cool: chunks that may become cold then; assign: trees that follow a class that was given to them; class: chunks that follow a\n"
     "class that was changed.\n"},
    {"fsck", cmd_admin_fsck, 0, 0, "[--repair] [--orphan-age TIME] [--json]",
     "Cross-check names, chunks and what the chunkservers hold, while the cluster works",
     "Exit status 0: nothing is wrong, or all of it was repaired; 1: something is. Lost or damaged copies are the business of repair\n"
     "and scrubbing: fsck only tells of them.\n"},
    {"rebalance", cmd_admin_rebalance, 0, 0, "[--dry-run] [--target PCT] [--rate MB/s] [--wait] [--stop] [--json]",
     "Make all chunkservers equally full",
     "Moves copies from chunkservers that are fuller than the mean to those that are less full, until each is within --target\n"
     "points of it, or until nothing is left that can be moved without bringing copies of a chunk closer together. No chunk has\n"
     "fewer copies meanwhile: a copy leaves when the new one is complete. Each server gives --rate MB a second (default: the\n"
     "setting rebalance_bytes_per_second). The cluster goes on by itself, also after Ctrl-C, and after its leader has changed;\n"
     "--stop ends it. Without being asked it does the same slowly when a server is more than 10 points off.\n"},
    {"drain", cmd_admin_drain, 1, 1, "[--wait] [--json] SERVER", "Empty a chunkserver, so that it may be unplugged",
     "SERVER is an id, an address or a host label (then all of its chunkservers). Nothing new is placed there, and all its copies\n"
     "move to others; it serves until they have. `admin servers` shows how far it is, and says when it may be unplugged. With --wait\n"
     "it ends when that is so, or with 1 and the reason when it cannot be. `admin undrain` takes it back.\n"},
    {"undrain", cmd_admin_undrain, 1, 1, "[--wait] SERVER", "Use a chunkserver again that was drained", NULL},
    {"set", cmd_admin_set, 0, 2, "[--json] [KEY VALUE]", "List the cluster's settings, or change one",
     "VALUE takes suffixes: K, M, G, T for bytes, ms, s, m, h, d for times; \"default\" goes back to the default. A change is in\n"
     "force within a heartbeat.\n"},
    {"raft", cmd_admin_raft, 1, 2, "status [--json] | add ID=HOST:PORT | remove ID | transfer [ID]",
     "Show the masters, add or remove one, hand leadership over",
     "add: start the new master first, with an empty data folder, its --id and --members that names the others. It catches up "
     "without a\n"
     "vote and then gets one. Afterwards name it in the configuration of clients and chunkservers.\n"},
    {"backup", cmd_admin_backup, 1, 1, "FILE", "Write all metadata, as of one moment, to a local file",
     "The cluster goes on meanwhile. FILE has names, attributes and where data is, but no data.\n"},
    {"restore", cmd_admin_restore, 1, 1, "FILE", "Fill a new, empty cluster from a backup",
     "The cluster then is the one that the backup was made of: its chunkservers are accepted. One that was interrupted can be "
     "run again.\n"},
    {0},
};
static const struct command dev[] = {
    {"up", cmd_dev_up, 1, 1, "DIR [--masters N] [--chunkservers N] [--mount PATH] [--set [PROGRAM.]KEY=VALUE]",
     "Start a whole cluster of real processes on this machine; returns when it is ready",
     "Again on the same DIR it starts what is not running; counts and options not given stay as they were. Writes "
     "DIR/client.conf,\n"
     "DIR/pids/NAME.pid, DIR/log/NAME.log, DIR/data/NAME. PROGRAM is master, chunkserver or mount; without it the "
     "option goes to\n"
     "each program that knows it.\n"},
    {"down", cmd_dev_down, 1, 1, "DIR", "Stop the cluster, keep its data", NULL},
    {"status", cmd_dev_status, 1, 1, "DIR [--json]", "Show the processes", NULL},
    {"kill", cmd_dev_kill, 2, 3, "DIR master|chunkserver N | mount | all", "End a process with SIGKILL", NULL},
    {"stop", cmd_dev_stop, 2, 3, "DIR master|chunkserver N | mount | all", "Freeze a process with SIGSTOP", NULL},
    {"cont", cmd_dev_cont, 2, 3, "DIR master|chunkserver N | mount | all", "Let a frozen process go on", NULL},
    {"restart", cmd_dev_restart, 2, 3, "DIR master|chunkserver N | mount | all", "Stop a process and start it again",
     NULL},
    {"replace", cmd_dev_replace, 3, 3, "DIR master|chunkserver N",
     "Stop a process, remove its data and start it again, as if its disk had been replaced", NULL},
    {"logs", cmd_dev_logs, 1, 2, "DIR [NAME] [--follow]", "Print logs", NULL},
    {0},
};
static const struct command bench[] = {
    {"bench", cmd_bench, 1, 1, "put|get|write|read|meta|raw|encode [--size N] [--count N] [--threads N] [--rate N] [--json]",
     "Measure the cluster, as a share of what the machine can do",
     "raw measures the machine alone, in --dir: synced 4 KiB overwrites, three streams to disk, loopback TCP, CRC-32C, "
     "memcpy, ISA-L.\n"
     "encode measures in memory, with one core, what makes a chunk cold: its checksums, its parity (--profile), compression if asked\n"
     "for, and the checksums of all shards; beside ISA-L alone. Reading it into memory is not counted.\n"
     "The others work in a directory of their own, /granary-bench-PID, which they remove.\n"},
    {0},
};

static const struct group {
	const char *name;
	const struct command *commands;
} groups[] = {{"xattr", xattr}, {"admin", admin}, {"dev", dev}};

static void print_commands(FILE *to, const char *group, const struct command *commands)
{
	for (const struct command *c = commands; c->name; c++) {
		char name[32];
		snprintf(name, sizeof name, "%s%s%s", group ? group : "", group ? " " : "", c->name);
		fprintf(to, "  %-15s %s\n", name, c->summary);
	}
}

static void print_help(FILE *to, const struct group *only)
{
	if (only) {
		fprintf(to, "usage: granary %s COMMAND ...\n\n", only->name);
		print_commands(to, only->name, only->commands);
		return;
	}
	fputs("usage: granary [--cluster HOST:PORT,...] [--config FILE] [--timeout TIME] COMMAND ...\n\n", to);
	print_commands(to, NULL, files);
	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
		print_commands(to, groups[i].name, groups[i].commands);
	print_commands(to, NULL, bench);
	fputs("\n`granary COMMAND --help` tells more. The cluster is found by --cluster, $GRANARY_CLUSTER, --config, "
	      "$GRANARY_CONFIG,\n"
	      "~/.config/granary/client.conf or /etc/granary/client.conf. Exit status: 0 done, 1 failed, 2 usage, 3 no "
	      "such file,\n"
	      "4 no cluster. Paths in the cluster begin with \"/\"; a blob's id is 16 hexadecimal digits.\n",
	      to);
}

static const struct command *find(const struct command *commands, const char *name)
{
	for (const struct command *c = commands; c->name; c++) {
		if (strcmp(c->name, name) == 0)
			return c;
	}
	return NULL;
}

static int unknown(const char *group, const char *name)
{
	fprintf(stderr, "granary: %s%s%s: no such command (granary --help lists them)\n", group ? group : "",
		group ? " " : "", name);
	return EXIT_USAGE;
}

/* Options in front of the command: the same that every command takes after it. Returns how many words they are, -1 when
 * help or the version was asked for, -2 after a usage error. */
static int take_global_options(struct cli *cli, int argc, char **argv)
{
	int at = 1;
	while (at < argc && argv[at][0] == '-') {
		if (strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0) {
			print_help(stdout, NULL);
			return -1;
		}
		if (strcmp(argv[at], "--version") == 0) {
			printf("granary %s\n", granary_version());
			return -1;
		}
		bool with_value = strchr(argv[at], '=') != NULL;
		static const struct command none = {.name = "", .operands_max = 0, .usage = "[options] COMMAND ..."};
		cli->command = &none;
		int count = with_value ? 1 : at + 1 < argc ? 2 : 1, status;
		char *words[2] = {argv[at], at + 1 < argc ? argv[at + 1] : NULL};
		if (!cli_parse(cli, NULL, &count, words, &status))
			return -2;
		at += with_value ? 1 : 2;
	}
	return at;
}

int main(int argc, char **argv)
{
	struct cli cli = {.timeout_ms = CLIENT_TIMEOUT_MS};
	log_setup("granary", LOG_ERROR, LOG_TEXT);
	int at = take_global_options(&cli, argc, argv);
	if (at < 0)
		return at == -1 ? EXIT_DONE : EXIT_USAGE;
	if (at >= argc) {
		print_help(stderr, NULL);
		return EXIT_USAGE;
	}
	cli.command = find(files, argv[at]);
	if (!cli.command)
		cli.command = find(bench, argv[at]);
	for (size_t i = 0; i < sizeof groups / sizeof *groups && !cli.command; i++) {
		if (strcmp(groups[i].name, argv[at]) != 0)
			continue;
		const char *word = ++at < argc ? argv[at] : NULL;
		if (!word || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
			print_help(word ? stdout : stderr, &groups[i]);
			return word ? EXIT_DONE : EXIT_USAGE;
		}
		cli.group = groups[i].name;
		cli.command = find(groups[i].commands, word);
	}
	if (!cli.command)
		return unknown(cli.group, argv[at]);
	int result = cli.command->run(&cli, argc - at - 1, argv + at + 1);
	cli_disconnect(&cli);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "granary: standard output: write failed\n");
		result = result == EXIT_DONE ? EXIT_FAILED : result;
	}
	return result;
}
