/* stat, chmod, chown, touch, truncate: the attributes of a file. */
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/base/limits.h"
#include "common/sys/options.h"
#include "tools/granary/commands.h"
#include "tools/granary/data_sizes.h"
#include "tools/granary/json.h"
#include "tools/granary/remote_tree.h"

static const char *layout_name(uint32_t layout)
{
	static const char *const names[] = {"empty", "symlink", "blob", "chunks"};
	return layout < 4 ? names[layout] : "unknown";
}

static void stat_json(struct json *json, const char *path, const struct granary_stat *stat, const struct data_sizes *sizes)
{
	char mode[8];
	snprintf(mode, sizeof mode, "%04o", stat->mode & 07777);
	json_open(json, NULL, '{');
	json_text(json, "path", path);
	json_text(json, "type", text_type(stat->mode));
	json_id(json, "id", stat->inode);
	json_number(json, "tag", stat->change);
	json_number(json, "size", stat->size);
	json_number(json, "blocks", stat->blocks);
	json_number(json, "stored_bytes", sizes->stored);
	json_number(json, "physical_bytes", sizes->physical);
	json_number(json, "chunks", sizes->chunks);
	json_number(json, "cold_chunks", sizes->cold_chunks);
	json_text(json, "mode", mode);
	json_number(json, "uid", stat->uid);
	json_number(json, "gid", stat->gid);
	json_number(json, "nlink", stat->nlink);
	json_signed(json, "atime_ns", stat->atime_ns);
	json_signed(json, "mtime_ns", stat->mtime_ns);
	json_signed(json, "ctime_ns", stat->ctime_ns);
	json_signed(json, "btime_ns", stat->btime_ns);
	json_text(json, "layout", layout_name(stat->layout));
	json_text(json, "class", stat->storage_class);
	if (stat->layout == 2) {
		json_id(json, "pack", stat->pack);
		json_number(json, "slot", stat->slot);
	}
	json_close(json, '}');
}

static void stat_text(const char *path, const struct granary_stat *stat, const struct data_sizes *sizes)
{
	char mode[16], modified[32], changed[32], born[32];
	printf("  path: ");
	print_name(path);
	printf("\n    id: %016" PRIx64 "    tag: %" PRIu64 "\n", stat->inode, stat->change);
	printf("  mode: %s (%04o)  owner: %u:%u  links: %u\n", text_mode(stat->mode, mode), stat->mode & 07777,
	       stat->uid, stat->gid, stat->nlink);
	printf("  size: %" PRIu64 "    on disk, each copy: %" PRIu64 "    layout: %s", stat->size, stat->blocks * 512,
	       layout_name(stat->layout));
	if (stat->layout == 2)
		printf(" %016" PRIx64 "/%u", stat->pack, stat->slot);
	printf("    class: %s", stat->storage_class);
	printf("\n  stored: %" PRIu64 "    physical: %" PRIu64, sizes->stored, sizes->physical);
	if (sizes->cold_chunks > 0)
		printf("    cold: %" PRIu64 " of %" PRIu64 " chunks", sizes->cold_chunks, sizes->chunks);
	printf("\n  modified: %s  changed: %s  created: %s\n", text_time(stat->mtime_ns, modified),
	       text_time(stat->ctime_ns, changed), text_time(stat->btime_ns, born));
}

int cmd_stat(struct cli *cli, int argc, char **argv)
{
	bool as_json = false, follow = false;
	const struct cli_option options[] = {
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object for each, one a line"},
	    {"dereference", 'L', CLI_FLAG, &follow, NULL, "follow a symbolic link"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, true, &result))
		return result;
	struct admin admin = {0};
	result = cli_connect(cli);
	if (result == EXIT_DONE)
		result = admin_open(cli, &admin);
	for (int i = 0; i < argc && admin.client; i++) {
		struct granary_stat stat;
		struct data_sizes sizes;
		struct json json;
		granary_status status = cli_stat(cli, argv[i], follow, &stat);
		enum err err = status ? OK : data_sizes_ask(&admin, &stat.inode, 1, &sizes);
		json_init(&json, stdout);
		if (status)
			result = cli_worst(result, cli_error(cli, argv[i], status));
		else if (err)
			result = cli_worst(result, admin_error(&admin, argv[i], err));
		else if (as_json)
			stat_json(&json, argv[i], &stat, &sizes);
		else
			stat_text(argv[i], &stat, &sizes);
	}
	admin_close(&admin);
	return result;
}

/* Octal, or clauses [ugoa]*[+-=][rwxXst]* separated by commas (chmod(1)). */
static bool mode_apply(const char *text, uint32_t old, uint32_t *out)
{
	char *end;
	unsigned long number = strtoul(text, &end, 8);
	if (end != text && !*end && number <= 07777) {
		*out = (uint32_t)number;
		return true;
	}
	uint32_t mode = old & 07777;
	for (const char *p = text; *p;) {
		uint32_t who = 0, bits = 0;
		for (; *p && strchr("ugoa", *p); p++)
			who |= *p == 'u' ? 04700u : *p == 'g' ? 02070u : *p == 'o' ? 01007u : 07777u;
		who = who ? who : 07777u;
		char how = *p;
		if (!how || !strchr("+-=", how))
			return false;
		for (p++; *p && strchr("rwxXst", *p); p++) {
			bool run = *p == 'x' || (*p == 'X' && (S_ISDIR(old) || (old & 0111)));
			bits |= *p == 'r'   ? 0444u
				: *p == 'w' ? 0222u
				: run       ? 0111u
				: *p == 's' ? 06000u
				: *p == 't' ? 01000u
					    : 0;
		}
		bits &= who;
		mode = how == '+' ? mode | bits : how == '-' ? mode & ~bits : (mode & ~(who & 0777)) | bits;
		if (*p == ',' && p[1])
			p++;
		else if (*p)
			return false;
	}
	*out = mode;
	return *text != 0;
}

struct change {
	const char *mode;
	uint32_t uid, gid; /* UINT32_MAX: as it is */
};

static int change_visit(struct cli *cli, const struct visited *visited, void *arg)
{
	const struct change *change = arg;
	uint32_t mode;
	if (visited->visit == VISIT_AFTER || (change->mode && S_ISLNK(visited->stat->mode)))
		return EXIT_DONE;
	granary_status status = 0;
	if (change->mode && mode_apply(change->mode, visited->stat->mode, &mode))
		status = granary_chmod(cli->cluster, visited->path, mode);
	else if (!change->mode)
		status = granary_chown(cli->cluster, visited->path, change->uid, change->gid);
	return status ? cli_error(cli, visited->path, status) : EXIT_DONE;
}

static int change_all(struct cli *cli, struct change *change, bool recursive, int argc, char **argv)
{
	int result = EXIT_DONE;
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	result = cli_connect(cli);
	for (int i = 0; i < argc && cli->cluster; i++) {
		struct granary_stat stat;
		granary_status status =
		    recursive ? 0 : granary_stat(cli->cluster, argv[i], change->mode != NULL, &stat);
		if (recursive)
			result = cli_worst(result, tree_walk(cli, argv[i], change_visit, change));
		else if (status)
			result = cli_worst(result, cli_error(cli, argv[i], status));
		else
			result = cli_worst(
			    result, change_visit(cli, &(struct visited){.path = argv[i], .stat = &stat}, change));
	}
	return result;
}

int cmd_chmod(struct cli *cli, int argc, char **argv)
{
	bool recursive = false;
	const struct cli_option options[] = {
	    {"recursive", 'R', CLI_FLAG, &recursive, NULL, "all that is below, too"},
	    {0},
	};
	int result = EXIT_DONE;
	uint32_t mode;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	struct change change = {.mode = argv[0]};
	if (!mode_apply(argv[0], 0, &mode))
		return cli_usage_error(cli, argv[0], "no mode (755, u+x, go-w, a=r)");
	return change_all(cli, &change, recursive, argc - 1, argv + 1);
}

static bool parse_owner(const char *text, struct change *out)
{
	char user[64];
	const char *colon = strchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : strlen(text);
	if (length >= sizeof user)
		return false;
	memcpy(user, text, length);
	user[length] = 0;
	uint64_t number;
	if (length > 0) {
		struct passwd *found = getpwnam(user);
		if (!found && (options_value(OPTION_COUNT, user, &number) != OK || number >= UINT32_MAX))
			return false;
		out->uid = found ? found->pw_uid : (uint32_t)number;
	}
	if (colon && colon[1]) {
		struct group *found = getgrnam(colon + 1);
		if (!found && (options_value(OPTION_COUNT, colon + 1, &number) != OK || number >= UINT32_MAX))
			return false;
		out->gid = found ? found->gr_gid : (uint32_t)number;
	}
	return out->uid != UINT32_MAX || out->gid != UINT32_MAX;
}

int cmd_chown(struct cli *cli, int argc, char **argv)
{
	bool recursive = false;
	const struct cli_option options[] = {
	    {"recursive", 'R', CLI_FLAG, &recursive, NULL, "all that is below, too"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	struct change change = {.uid = UINT32_MAX, .gid = UINT32_MAX};
	if (!parse_owner(argv[0], &change))
		return cli_usage_error(cli, argv[0],
				       "no owner (USER, USER:GROUP or :GROUP; names of this machine or numbers)");
	return change_all(cli, &change, recursive, argc - 1, argv + 1);
}

static int touch_one(struct cli *cli, const char *path, bool only_existing, int64_t now_ns)
{
	granary_status status = granary_utimes(cli->cluster, path, now_ns, now_ns);
	if (status == ERR_NOT_FOUND && only_existing)
		return EXIT_DONE;
	if (status == ERR_NOT_FOUND) {
		struct granary_file *file;
		status = granary_open(cli->cluster, path, O_WRONLY | O_CREAT, 0644, &file);
		if (!status)
			status = granary_file_close(file);
	}
	return status ? cli_error(cli, path, status) : EXIT_DONE;
}

int cmd_touch(struct cli *cli, int argc, char **argv)
{
	bool only_existing = false;
	const struct cli_option options[] = {
	    {"no-create", 'c', CLI_FLAG, &only_existing, NULL, "do not make what is not there"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	result = cli_connect(cli);
	for (int i = 0; i < argc && cli->cluster; i++)
		result = cli_worst(
		    result, touch_one(cli, argv[i], only_existing, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec));
	return result;
}

int cmd_truncate(struct cli *cli, int argc, char **argv)
{
	uint64_t size = UINT64_MAX;
	const struct cli_option options[] = {
	    {"size", 's', CLI_BYTES, &size, "SIZE", "the new size"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (size == UINT64_MAX)
		return cli_usage_error(cli, "-s SIZE", "is missing");
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	result = cli_connect(cli);
	for (int i = 0; i < argc && cli->cluster; i++) {
		granary_status status = granary_truncate(cli->cluster, argv[i], size);
		if (status)
			result = cli_worst(result, cli_error(cli, argv[i], status));
	}
	return result;
}
