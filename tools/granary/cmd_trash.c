/* admin trash: what is in the trash of the whole cluster, or below a path; removing it for good. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/base/check.h"
#include "tools/granary/commands.h"
#include "tools/granary/json.h"
#include "tools/granary/trash.h"

#define ROOT_INODE 1u

/* What is done with each entry: shown, or gathered to be removed. */
struct picking {
	struct cli *cli;
	struct json *json; /* or NULL */
	bool gather;
	int64_t until_ns; /* removed not later */
	uint64_t *ids;
	size_t count;
	uint64_t bytes;
};

static void pick(void *arg, const char *path, const struct trash_item *item)
{
	struct picking *picking = arg;
	char time[32], size[24];
	if (item->removed_ns > picking->until_ns)
		return;
	if (picking->gather) {
		if ((picking->count & (picking->count - 1)) == 0)
			picking->ids = mem_resize(picking->ids, (picking->count ? 2 * picking->count : 1) * sizeof *picking->ids);
		picking->ids[picking->count++] = item->id;
		picking->bytes += item->stat.blocks * 512;
	} else if (picking->json) {
		json_open(picking->json, NULL, '{');
		json_id(picking->json, "id", item->id);
		json_text(picking->json, "path", path);
		json_text(picking->json, "name", item->name);
		json_id(picking->json, "directory", item->parent);
		json_id(picking->json, "inode", item->stat.inode);
		json_text(picking->json, "type", text_type(item->stat.mode));
		json_number(picking->json, "size", item->stat.size);
		json_signed(picking->json, "removed_ns", item->removed_ns);
		json_close(picking->json, '}');
	} else {
		printf("%016" PRIx64 "  %s  %8s  ", item->id, text_time(item->removed_ns, time), text_size(item->stat.size, size));
		print_name(path);
		puts(S_ISDIR(item->stat.mode) ? "/" : "");
	}
}

/* Of all there is the master knows the directory, not its path. */
static bool pick_entry(void *arg, const struct granary_trash_entry *entry)
{
	char directory[24];
	struct trash_item item = {.id = entry->id,
				  .parent = entry->parent,
				  .name = (char *)(uintptr_t)entry->name,
				  .removed_ns = entry->removed_ns,
				  .stat = entry->stat};
	snprintf(directory, sizeof directory, "%016" PRIx64, entry->parent);
	char *path = entry->parent == 0 ? mem_string(entry->name) :
					  path_join(entry->parent == ROOT_INODE ? "/" : directory, entry->name);
	pick(arg, path, &item);
	free(path);
	return true;
}

static int pick_all(struct picking *picking, const char *path)
{
	if (path)
		return trash_walk(picking->cli, path, true, pick, picking);
	granary_status status = granary_trash_list_all(picking->cli->cluster, pick_entry, picking);
	return status ? cli_error(picking->cli, "trash", status) : EXIT_DONE;
}

static int empty(struct picking *picking, const char *path)
{
	picking->gather = true;
	int result = pick_all(picking, path);
	granary_status status = granary_trash_remove(picking->cli->cluster, picking->ids, picking->count);
	char size[24];
	if (status)
		result = cli_worst(result, cli_error(picking->cli, "trash", status));
	else
		printf("%zu removed, %s\n", picking->count, text_size(picking->bytes, size));
	free(picking->ids);
	return result;
}

static int list(struct picking *picking, const char *path, bool as_json)
{
	struct json json;
	if (as_json) {
		json_init(&json, stdout);
		json_open(&json, NULL, '{');
		json_open(&json, "trash", '[');
		picking->json = &json;
	}
	int result = pick_all(picking, path);
	if (as_json) {
		json_close(&json, ']');
		json_close(&json, '}');
	}
	return result;
}

int cmd_admin_trash(struct cli *cli, int argc, char **argv)
{
	bool as_json = false;
	uint64_t older_ms = 0;
	const struct cli_option options[] = {
	    {"json", 0, CLI_FLAG, &as_json, NULL, "list: an object with the array `trash`"},
	    {"older-than", 0, CLI_DURATION, &older_ms, "TIME", "empty: only what was removed longer ago"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	bool is_empty = strcmp(argv[0], "empty") == 0;
	if (!is_empty && strcmp(argv[0], "list") != 0)
		return cli_usage_error(cli, argv[0], "unknown (there are: trash list, trash empty)");
	const char *path = argc > 1 ? argv[1] : NULL;
	if (path && !cli_check_path(cli, path, &result))
		return result;
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	struct picking picking = {.cli = cli, .until_ns = INT64_MAX};
	struct timespec now;
	if (older_ms && clock_gettime(CLOCK_REALTIME, &now) == 0)
		picking.until_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - (int64_t)older_ms * 1000000;
	return is_empty ? empty(&picking, path) : list(&picking, path, as_json);
}
