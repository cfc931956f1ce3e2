/* admin class: storage classes (common/proto/storage_class.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/data/compress.h"
#include "common/proto/storage_class.h"
#include "common/sys/options.h"
#include "tools/granary/commands.h"
#include "tools/granary/json.h"
#include "tools/granary/leader_call.h"

#define CHANGE_ATTEMPTS_MAX 16u

static enum err ask(const struct cli *cli, Granary__SetClass *change, Granary__ClassesReply **out)
{
	Granary__ClassesRequest request = GRANARY__CLASSES_REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	request.change = change;
	enum err err = leader_ask(cli, MESSAGE_CLASSES, &request.base, &reply);
	if (err == OK && (!((Granary__ClassesReply *)reply)->classes || !((Granary__ClassesReply *)reply)->settings)) {
		message_free(reply);
		reply = NULL;
		err = ERR_PROTOCOL;
	}
	*out = (Granary__ClassesReply *)reply;
	return err;
}

/* ---- list */

static uint32_t cold_of(const struct storage_values *values)
{
	return values->is_cold ? values->data_shards << 8 | values->parity_shards : STORAGE_COLD_OFF;
}

static void print_class(const char *name, const struct storage_values *values)
{
	char cold[STORAGE_COLD_TEXT_BYTES], cool[24], trash[24];
	printf("%-24s  %6u  %-5s  %8s  %-11s  %8s\n", name, values->copies, storage_cold_text(cold_of(values), cold),
	       text_duration(values->cool_seconds * 1000, cool), compression_name((enum compression)values->compression),
	       text_duration(values->trash_seconds * 1000, trash));
}

static void json_class(struct json *json, const char *name, const struct storage_values *values)
{
	char cold[STORAGE_COLD_TEXT_BYTES];
	json_open(json, NULL, '{');
	json_text(json, "name", name);
	json_number(json, "copies", values->copies);
	json_text(json, "cold", storage_cold_text(cold_of(values), cold));
	json_number(json, "cool_seconds", values->cool_seconds);
	json_text(json, "compression", compression_name((enum compression)values->compression));
	json_number(json, "trash_seconds", values->trash_seconds);
	json_close(json, '}');
}

static void list(const Granary__ClassesReply *reply, bool as_json)
{
	const Granary__StorageClasses *classes = reply->classes;
	struct storage_values values;
	struct json json;
	json_init(&json, stdout);
	if (as_json)
		json_open(&json, NULL, '[');
	else
		printf("%-24s  %6s  %-5s  %8s  %-11s  %8s\n", "class", "copies", "cold", "cool", "compression", "trash");
	for (size_t i = 0; i <= classes->n_classes; i++) { /* the default class first, whether it was changed or not */
		const char *name = i == 0 ? STORAGE_CLASS_DEFAULT : classes->classes[i - 1]->name;
		if (i > 0 && !storage_class_label(name)[0])
			continue;
		storage_class_values(classes, reply->settings, name, &values);
		if (as_json)
			json_class(&json, name, &values);
		else
			print_class(name, &values);
	}
	if (as_json)
		json_close(&json, ']');
}

/* ---- set, remove */

static bool parse_number(const char *text, uint64_t most, uint64_t *out)
{
	return options_value(OPTION_COUNT, text, out) == OK && *out > 0 && *out <= most;
}

/* Seconds, or a time with a suffix. */
static bool parse_seconds(const char *text, uint64_t most, uint64_t *out)
{
	if (options_value(OPTION_COUNT, text, out) == OK)
		return *out <= most;
	if (options_value(OPTION_DURATION, text, out) != OK || *out % 1000 != 0)
		return false;
	*out /= 1000;
	return *out <= most;
}

static bool set_cool(Granary__StorageClass *storage, const char *value)
{
	return parse_seconds(value, STORAGE_COOL_SECONDS_MAX, &storage->cool_seconds) && storage->cool_seconds > 0;
}

static bool set_trash(Granary__StorageClass *storage, const char *value)
{
	if (!parse_seconds(strcmp(value, "off") == 0 ? "0" : value, STORAGE_TRASH_SECONDS_MAX, &storage->trash_seconds))
		return false;
	if (storage->trash_seconds == 0)
		storage->trash_seconds = STORAGE_TRASH_NONE;
	return true;
}

static bool set_copies(Granary__StorageClass *storage, const char *value)
{
	uint64_t copies;
	if (!parse_number(value, COPIES_MAX, &copies))
		return false;
	storage->copies = (uint32_t)copies;
	return true;
}

static bool set_cold(Granary__StorageClass *storage, const char *value)
{
	return storage_cold_parse(value, &storage->cold);
}

static bool set_compression(Granary__StorageClass *storage, const char *value)
{
	enum compression compression;
	if (!compression_parse(value, &compression))
		return false;
	storage->compression = (uint32_t)compression;
	return true;
}

static void no_value(Granary__StorageClass *storage, const char *key)
{
	if (strcmp(key, "copies") == 0)
		storage->copies = 0;
	else if (strcmp(key, "cold") == 0)
		storage->cold = 0;
	else if (strcmp(key, "cool") == 0)
		storage->cool_seconds = 0;
	else if (strcmp(key, "compression") == 0)
		storage->compression = 0;
	else
		storage->trash_seconds = 0;
}

static const struct {
	const char *key;
	bool (*set)(Granary__StorageClass *storage, const char *value);
	const char *values;
} keys[] = {
    {"copies", set_copies, "from 1 to 5"},
    {"cold", set_cold, "auto, off, or DATA+PARITY shards (up to 32+8)"},
    {"cool", set_cool, "a time (7d) from 1s to 100 years"},
    {"compression", set_compression, "off, fast, high or auto"},
    {"trash", set_trash, "a time (30d) of up to 10 years, or off"},
};

/* An exit status. */
static int apply(const struct cli *cli, const char *assignment, Granary__StorageClass *storage)
{
	const char *equals = strchr(assignment, '=');
	for (size_t i = 0; equals && i < sizeof keys / sizeof *keys; i++) {
		if (strncmp(assignment, keys[i].key, (size_t)(equals - assignment)) != 0 || keys[i].key[equals - assignment])
			continue;
		if (strcmp(equals + 1, "default") == 0) {
			no_value(storage, keys[i].key);
			return EXIT_DONE;
		}
		char why[128];
		snprintf(why, sizeof why, "not %s, or \"default\"", keys[i].values);
		return keys[i].set(storage, equals + 1) ? EXIT_DONE : cli_usage_error(cli, assignment, why);
	}
	return cli_usage_error(cli, assignment, "not copies=, cold=, cool=, compression= or trash= something");
}

/* What is there, changed as asked, again when somebody else was first. */
static int change(const struct cli *cli, const char *name, bool remove, int argc, char **argv)
{
	Granary__ClassesReply *now = NULL;
	enum err err = ERR_BUSY;
	int result = EXIT_DONE;
	for (unsigned i = 0; i < CHANGE_ATTEMPTS_MAX && err == ERR_BUSY && result == EXIT_DONE; i++) {
		err = ask(cli, NULL, &now);
		if (err)
			break;
		const Granary__StorageClass *found = storage_class_find(now->classes, name);
		Granary__StorageClass storage = GRANARY__STORAGE_CLASS__INIT;
		Granary__SetClass set = GRANARY__SET_CLASS__INIT;
		if (found)
			storage = *found;
		storage.name = (char *)(uintptr_t)name;
		set.class_ = &storage;
		set.remove = remove;
		set.revision = now->classes->revision;
		for (int k = 0; k < argc && result == EXIT_DONE; k++)
			result = apply(cli, argv[k], &storage);
		Granary__ClassesReply *then = NULL;
		if (result == EXIT_DONE)
			err = ask(cli, &set, &then);
		message_free(then ? &then->base : NULL);
		message_free(&now->base);
	}
	return result == EXIT_DONE && err ? leader_call_failed(cli, name, err) : result;
}

static int assign(struct cli *cli, const char *name, bool below, int argc, char **argv)
{
	int result = EXIT_DONE;
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	result = cli_connect(cli);
	for (int i = 0; i < argc && cli->cluster; i++) {
		granary_status status = granary_set_storage_class(cli->cluster, argv[i], name, below);
		if (status)
			result = cli_worst(result, cli_error(cli, argv[i], status));
	}
	return result;
}

int cmd_admin_class(struct cli *cli, int argc, char **argv)
{
	bool as_json = false, new_only = false;
	const struct cli_option options[] = {
	    {"json", 0, CLI_FLAG, &as_json, NULL, "list: as an array"},
	    {"new-only", 0, CLI_FLAG, &new_only, NULL, "assign: what is in the directory already stays as it is"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	const char *what = argv[0], *name = argc > 1 ? argv[1] : NULL;
	if (strcmp(what, "list") == 0 && argc == 1) {
		Granary__ClassesReply *reply = NULL;
		enum err err = ask(cli, NULL, &reply);
		if (err)
			return leader_call_failed(cli, "classes", err);
		list(reply, as_json);
		message_free(&reply->base);
		return EXIT_DONE;
	}
	if (name && !storage_class_name_is_valid(name))
		return cli_usage_error(cli, name, "not a name of a class (a-z, 0-9 and \"-\", up to 63)");
	if (strcmp(what, "set") == 0 && argc > 2)
		return change(cli, name, false, argc - 2, argv + 2);
	if (strcmp(what, "remove") == 0 && argc == 2)
		return change(cli, name, true, 0, NULL);
	if (strcmp(what, "assign") == 0 && argc > 2)
		return assign(cli, name, !new_only, argc - 2, argv + 2);
	return cli_usage_error(cli, what, "not list, set NAME KEY=VALUE..., remove NAME or assign NAME PATH...");
}
