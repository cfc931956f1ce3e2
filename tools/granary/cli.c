#include "tools/granary/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/client.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/options.h"

static void print_command(FILE *to, const struct cli *cli)
{
	fputs("granary", to);
	if (cli->group)
		fprintf(to, " %s", cli->group);
	if (cli->command)
		fprintf(to, " %s", cli->command->name);
}

static void print_options(const struct cli_option *options)
{
	for (const struct cli_option *o = options; o && o->name; o++) {
		char left[64];
		snprintf(left, sizeof left, "%s--%s%s%s", "    ", o->name, o->argument ? " " : "",
			 o->argument ? o->argument : "");
		if (o->letter) {
			left[0] = '-';
			left[1] = o->letter;
			left[2] = ',';
		}
		printf("  %-26s %s\n", left, o->help);
	}
}

void cli_print_help(const struct cli *cli, const struct cli_option *options)
{
	printf("usage: ");
	print_command(stdout, cli);
	printf(" %s\n%s.\n", cli->command->usage, cli->command->summary);
	if (cli->command->details)
		printf("\n%s", cli->command->details);
	printf("\noptions:\n");
	print_options(options);
	static const struct cli_option common[] = {
	    {"cluster", 0, CLI_TEXT, NULL, "HOST:PORT,...", "the masters"},
	    {"config", 0, CLI_TEXT, NULL, "FILE", "a client.conf"},
	    {"timeout", 0, CLI_DURATION, NULL, "TIME", "give up when no leader answers for so long (30s)"},
	    {"help", 'h', CLI_FLAG, NULL, NULL, "this text"},
	    {0},
	};
	print_options(common);
}

static bool take_value(const struct cli *cli, const struct cli_option *option, const char *text, int *status)
{
	static const enum option_kind kinds[] = {
	    [CLI_COUNT] = OPTION_COUNT, [CLI_BYTES] = OPTION_BYTES, [CLI_DURATION] = OPTION_DURATION};
	struct cli_list *list;
	switch (option->kind) {
	case CLI_FLAG:
		*(bool *)option->value = true;
		return true;
	case CLI_TEXT:
		*(const char **)option->value = text;
		return true;
	case CLI_LIST:
		list = option->value;
		list->items = mem_resize(list->items, (list->count + 1) * sizeof *list->items);
		list->items[list->count++] = text;
		return true;
	case CLI_COUNT:
	case CLI_BYTES:
	case CLI_DURATION:
		break;
	}
	if (options_value(kinds[option->kind], text, option->value) != OK) {
		char what[64];
		snprintf(what, sizeof what, "--%s", option->name);
		*status = cli_usage_error(cli, what,
					  option->kind == CLI_COUNT   ? "not a number"
					  : option->kind == CLI_BYTES ? "not a size (12, 4K, 1M, 2G)"
								      : "not a time (500ms, 10s, 5m)");
		return false;
	}
	return true;
}

static const struct cli_option *find_option(const struct cli_option *options, const struct cli_option *common,
					    const char *name, size_t length, char letter)
{
	const struct cli_option *lists[] = {options, common};
	for (int i = 0; i < 2; i++) {
		for (const struct cli_option *o = lists[i]; o && o->name; o++) {
			if (name ? strlen(o->name) == length && memcmp(o->name, name, length) == 0
				 : o->letter == letter)
				return o;
		}
	}
	return NULL;
}

struct parse {
	struct cli *cli;
	const struct cli_option *options, *common;
	char **argv;
	int argc, at;
	int *status;
};

/* One word beginning with "-": a long option or one or more letters. */
static bool parse_word(struct parse *p)
{
	const char *word = p->argv[p->at];
	bool is_long = word[1] == '-';
	const char *equals = is_long ? strchr(word, '=') : NULL;
	for (const char *letter = word + 1; *letter; letter++) {
		const struct cli_option *o =
		    is_long ? find_option(p->options, p->common, word + 2,
					  equals ? (size_t)(equals - word - 2) : strlen(word + 2), 0)
			    : find_option(p->options, p->common, NULL, 0, *letter);
		if (!o) {
			*p->status = cli_usage_error(p->cli, word, "unknown option");
			return false;
		}
		const char *value = equals ? equals + 1 : NULL;
		bool rest = !is_long && o->kind != CLI_FLAG && letter[1];
		if (rest)
			value = letter + 1;
		if (o->kind != CLI_FLAG && !value) {
			if (p->at + 1 >= p->argc) {
				*p->status = cli_usage_error(p->cli, word, "needs a value");
				return false;
			}
			value = p->argv[++p->at];
		}
		if (o->kind == CLI_FLAG && equals) {
			*p->status = cli_usage_error(p->cli, word, "takes no value");
			return false;
		}
		if (!take_value(p->cli, o, value, p->status))
			return false;
		if (is_long || rest || value)
			break;
	}
	return true;
}

bool cli_parse(struct cli *cli, const struct cli_option *options, int *argc, char **argv, int *status)
{
	bool help = false;
	const struct cli_option common[] = {
	    {"cluster", 0, CLI_TEXT, &cli->cluster_option, NULL, NULL},
	    {"config", 0, CLI_TEXT, &cli->config_option, NULL, NULL},
	    {"timeout", 0, CLI_DURATION, &cli->timeout_ms, NULL, NULL},
	    {"help", 0, CLI_FLAG, &help, NULL, NULL},
	    {0},
	};
	struct parse p = {
	    .cli = cli, .options = options, .common = common, .argv = argv, .argc = *argc, .status = status};
	int operands = 0;
	bool only_operands = false;
	for (; p.at < p.argc; p.at++) {
		char *word = argv[p.at];
		if (!only_operands && strcmp(word, "--") == 0)
			only_operands = true;
		else if (only_operands || word[0] != '-' || word[1] == 0)
			argv[operands++] = word;
		else if (!parse_word(&p))
			return false;
	}
	if (help) {
		cli_print_help(cli, options);
		*status = EXIT_DONE;
		return false;
	}
	const struct command *command = cli->command;
	if (operands < command->operands_min || (command->operands_max >= 0 && operands > command->operands_max)) {
		fputs("usage: ", stderr);
		print_command(stderr, cli);
		fprintf(stderr, " %s\n", command->usage);
		*status = EXIT_USAGE;
		return false;
	}
	*argc = operands;
	return true;
}

char *cli_cluster_addresses(const struct cli *cli)
{
	struct loop *loop;
	struct buf found = {0};
	char *out = NULL;
	enum err err = loop_open(&loop);
	if (err == OK) {
		err = client_find_cluster(loop, cli->cluster_option, cli->config_option, &found);
		loop_close(loop);
	}
	if (err == OK) {
		buf_append(&found, "", 1);
		out = mem_string((const char *)found.bytes);
	} else {
		cli_error_text(cli, "cluster",
			       err == ERR_NOT_FOUND
				   ? "none is given (use --cluster HOST:PORT, $GRANARY_CLUSTER or a client.conf)"
				   : err_text(err));
	}
	buf_deinit(&found);
	return out;
}

/* The library says what it did to what, then why and what to do: we have our own words for the former. */
static const char *reason(const struct granary_cluster *cluster, granary_status status)
{
	const char *text = granary_error_text(status), *message = cluster ? granary_message(cluster) : "";
	const char *found = strstr(message, text);
	return found ? found : text;
}

int cli_connect(struct cli *cli)
{
	if (cli->cluster)
		return EXIT_DONE;
	struct granary_options options = {
	    .cluster = cli->cluster_option,
	    .config = cli->config_option,
	    .timeout_ms = (uint32_t)cli->timeout_ms,
	    .uid = geteuid(),
	    .gid = getegid(),
	    .storage_class = cli->storage_class,
	};
	granary_status status = granary_connect(&options, &cli->cluster);
	if (status == 0)
		return EXIT_DONE;
	cli_error_text(cli, "cluster",
		       status == ERR_NOT_FOUND
			   ? "none is given (use --cluster HOST:PORT, $GRANARY_CLUSTER or a client.conf)"
			   : reason(cli->cluster, status));
	cli_disconnect(cli);
	return EXIT_NO_CLUSTER;
}

void cli_disconnect(struct cli *cli)
{
	if (cli->cluster)
		granary_close(cli->cluster);
	cli->cluster = NULL;
}

int cli_exit_status(granary_status status)
{
	switch (status) {
	case 0:
		return EXIT_DONE;
	case ERR_NOT_FOUND:
		return EXIT_NOT_FOUND;
	case ERR_NO_LEADER:
	case ERR_UNREACHABLE:
	case ERR_NOT_LEADER:
		return EXIT_NO_CLUSTER;
	default:
		return EXIT_FAILED;
	}
}

int cli_error_text(const struct cli *cli, const char *what, const char *why)
{
	char command[64] = "";
	if (cli->command && *cli->command->name)
		snprintf(command, sizeof command, "%s%s%s ", cli->group ? cli->group : "", cli->group ? " " : "",
			 cli->command->name);
	fflush(stdout);
	fprintf(stderr, "granary: %s%s: %s\n", command, what, why);
	return EXIT_FAILED;
}

int cli_error(const struct cli *cli, const char *what, granary_status status)
{
	cli_error_text(cli, what, reason(cli->cluster, status));
	return cli_exit_status(status);
}

int cli_error_errno(const struct cli *cli, const char *what, int number)
{
	return cli_error_text(cli, what, strerror(number));
}

int cli_usage_error(const struct cli *cli, const char *what, const char *why)
{
	cli_error_text(cli, what, why);
	return EXIT_USAGE;
}

int cli_worst(int status, int other)
{
	return status != EXIT_DONE ? status : other;
}

bool cli_check_path(const struct cli *cli, const char *path, int *status)
{
	if (path[0] == '/')
		return true;
	*status = cli_usage_error(cli, path, "a path in the cluster begins with \"/\"");
	return false;
}

bool cli_check_paths(const struct cli *cli, int argc, char **argv, bool or_ids, int *status)
{
	uint64_t id;
	for (int i = 0; i < argc; i++) {
		if (!(or_ids && cli_parse_id(argv[i], &id)) && !cli_check_path(cli, argv[i], status))
			return false;
	}
	return true;
}

bool cli_parse_id(const char *text, uint64_t *id)
{
	if (strlen(text) != 16 || strspn(text, "0123456789abcdefABCDEF") != 16)
		return false;
	*id = strtoull(text, NULL, 16);
	return true;
}

granary_status cli_stat(struct cli *cli, const char *path_or_id, bool follow, struct granary_stat *out)
{
	uint64_t id;
	if (cli_parse_id(path_or_id, &id))
		return granary_stat_id(cli->cluster, id, out);
	return granary_stat(cli->cluster, path_or_id, follow, out);
}

char *path_join(const char *parent, const char *name)
{
	size_t length = strlen(parent);
	bool slash = length > 0 && parent[length - 1] == '/';
	size_t size = length + strlen(name) + 2;
	char *out = mem_alloc(size);
	snprintf(out, size, "%s%s%s", parent, slash ? "" : "/", name);
	return out;
}

static size_t length_without_slashes(const char *path)
{
	size_t length = strlen(path);
	while (length > 1 && path[length - 1] == '/')
		length--;
	return length;
}

char *path_base(const char *path)
{
	size_t end = length_without_slashes(path), start = end;
	while (start > 0 && path[start - 1] != '/')
		start--;
	char *out = mem_alloc(end - start + 1);
	memcpy(out, path + start, end - start);
	out[end - start] = 0;
	return out;
}

char *path_parent(const char *path)
{
	size_t end = length_without_slashes(path);
	while (end > 0 && path[end - 1] != '/')
		end--;
	while (end > 1 && path[end - 1] == '/')
		end--;
	char *out = mem_alloc(end + 2);
	memcpy(out, end ? path : ".", end ? end : 1);
	out[end ? end : 1] = 0;
	return out;
}

bool path_is_special(const char *path)
{
	struct stat stat_buffer;
	return stat(path, &stat_buffer) == 0 && !S_ISREG(stat_buffer.st_mode) && !S_ISDIR(stat_buffer.st_mode);
}

const char *text_duration(uint64_t ms, char *out)
{
	static const struct {
		uint64_t ms;
		const char *suffix;
	} units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
	size_t at = 0;
	while (ms % units[at].ms != 0)
		at++;
	snprintf(out, 24, "%" PRIu64 "%s", ms / units[at].ms, ms ? units[at].suffix : "");
	return out;
}

const char *text_size(uint64_t bytes, char *out)
{
	static const char units[] = "KMGTPE";
	if (bytes < 1024) {
		snprintf(out, 16, "%" PRIu64, bytes);
		return out;
	}
	double value = (double)bytes;
	size_t unit = 0;
	for (value /= 1024; value >= 1024 && unit + 1 < sizeof units - 1; unit++)
		value /= 1024;
	snprintf(out, 16, value < 9.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
	return out;
}

const char *text_time(int64_t ns, char *out)
{
	time_t seconds = (time_t)(ns / 1000000000);
	struct tm when;
	if (!localtime_r(&seconds, &when) || !strftime(out, 32, "%Y-%m-%d %H:%M", &when))
		snprintf(out, 32, "?");
	return out;
}

const char *text_mode(uint32_t mode, char *out)
{
	char type = S_ISDIR(mode)    ? 'd'
		    : S_ISLNK(mode)  ? 'l'
		    : S_ISFIFO(mode) ? 'p'
		    : S_ISSOCK(mode) ? 's'
		    : S_ISBLK(mode)  ? 'b'
		    : S_ISCHR(mode)  ? 'c'
				     : '-';
	out[0] = type;
	for (int i = 0; i < 9; i++)
		out[1 + i] = mode & (0400u >> i) ? "rwx"[i % 3] : '-';
	if (mode & S_ISUID)
		out[3] = mode & 0100 ? 's' : 'S';
	if (mode & S_ISGID)
		out[6] = mode & 0010 ? 's' : 'S';
	if (mode & S_ISVTX)
		out[9] = mode & 0001 ? 't' : 'T';
	out[10] = 0;
	return out;
}

const char *text_type(uint32_t mode)
{
	return S_ISDIR(mode) ? "directory" : S_ISREG(mode) ? "file" : S_ISLNK(mode) ? "symlink" : "special";
}

double monotonic_seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void print_name(const char *name)
{
	bool terminal = isatty(STDOUT_FILENO);
	for (; *name; name++)
		putchar(terminal && ((unsigned char)*name < 32 || *name == 127) ? '?' : *name);
}
