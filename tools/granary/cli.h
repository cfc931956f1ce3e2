/* What all commands of the granary program share: arguments, the connection, errors, exit statuses, numbers for people.
 *
 * A command is a function in a cmd_*.c and a row of the table in main.c. Thread: a struct cli belongs to one thread; a
 * job (jobs.h) has its own with a connection of its own. */
#ifndef GRANARY_TOOLS_GRANARY_CLI_H
#define GRANARY_TOOLS_GRANARY_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/granary.h"
#include "common/base/err.h"

/* The contract with scripts (interface page). */
enum exit_status {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_FOUND = 3,
	EXIT_NO_CLUSTER = 4,
};

struct cli;

struct command {
	const char *name;
	int (*run)(struct cli *cli, int argc, char **argv);
	int operands_min, operands_max; /* after options; a negative max: any number */
	const char *usage;              /* "[-r] SRC DST" */
	const char *summary;            /* one line */
	const char *details;            /* more for --help, or NULL */
};

struct cli {
	const struct command *command;
	const char *group; /* "admin", "dev" or NULL: said between "granary" and the command's name */
	/* Options that every command knows. */
	const char *cluster_option;
	const char *config_option;
	uint64_t timeout_ms;
	const char *storage_class; /* of what is created; NULL: that of its directory */
	struct granary_cluster *cluster; /* NULL until cli_connect */
};

enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_COUNT, CLI_BYTES, CLI_DURATION, CLI_LIST };

struct cli_list {
	const char **items; /* borrowed texts; the array is freed with free() */
	size_t count;
};

/* Ends with a NULL name. value: bool, const char *, uint64_t (CLI_COUNT, CLI_BYTES, CLI_DURATION in ms) or struct
 * cli_list. */
struct cli_option {
	const char *name;
	char letter; /* or 0 */
	enum cli_kind kind;
	void *value;
	const char *argument; /* shown in --help */
	const char *help;
};

/* Takes options out of argv wherever they stand (up to "--") and leaves the operands in argv[0 .. *argc). False: the
 * command is over with *status (help was asked for, or a usage error was reported). */
bool cli_parse(struct cli *cli, const struct cli_option *options, int *argc, char **argv, int *status);
void cli_print_help(const struct cli *cli, const struct cli_option *options);

/* Connects once. 0, or the exit status after it has said why. */
int cli_connect(struct cli *cli);
void cli_disconnect(struct cli *cli);
/* "host:port,…" that cli_connect would use, to be freed; NULL after it has said why. */
char *cli_cluster_addresses(const struct cli *cli);

/* Each says `granary: COMMAND WHAT: WHY` on standard error and returns the exit status that belongs to it. */
int cli_error(const struct cli *cli, const char *what, granary_status status);
int cli_error_errno(const struct cli *cli, const char *what, int number);
int cli_error_text(const struct cli *cli, const char *what, const char *why);
int cli_usage_error(const struct cli *cli, const char *what, const char *why);
int cli_exit_status(granary_status status);
/* The first that is not EXIT_DONE. */
int cli_worst(int status, int other);

/* False after a usage error: paths in the cluster begin with "/". */
bool cli_check_path(const struct cli *cli, const char *path, int *status);
/* All of argv; or_ids: ids will do, too. */
bool cli_check_paths(const struct cli *cli, int argc, char **argv, bool or_ids, int *status);
/* An id is 16 hexadecimal digits. */
bool cli_parse_id(const char *text, uint64_t *id);
/* stat of a path or an id. */
granary_status cli_stat(struct cli *cli, const char *path_or_id, bool follow, struct granary_stat *out);

/* parent/name or, when parent is "/", /name; to be freed. */
char *path_join(const char *parent, const char *name);
/* The part behind the last "/", trailing ones ignored; to be freed. */
char *path_base(const char *path);
char *path_parent(const char *path);
/* A local one: a device, a pipe, a socket. It is never replaced by a file. */
bool path_is_special(const char *path);

/* "512", "1.5K", "3.2G" (1024); in `out`, at least 16 bytes. Returns out. */
const char *text_size(uint64_t bytes, char *out);
/* "14d", "36h", "0": in the largest unit in which it is whole; in `out`, at least 24 bytes. Returns out. */
const char *text_duration(uint64_t ms, char *out);
/* "2026-11-23 08:45" in local time; in `out`, at least 32 bytes. */
const char *text_time(int64_t ns, char *out);
/* "drwxr-xr-x"; in `out`, at least 11 bytes. */
const char *text_mode(uint32_t mode, char *out);
/* "directory", "file", "symlink" or "special"; static storage. */
const char *text_type(uint32_t mode);
/* A clock for measuring and deadlines. */
double monotonic_seconds(void);
/* A name as it is shown: control characters become '?' on a terminal. Writes to stdout. */
void print_name(const char *name);

#endif
