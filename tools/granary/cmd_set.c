/* admin set: the cluster's settings (common/proto/settings.h). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/proto/settings.h"
#include "common/sys/options.h"
#include "tools/granary/commands.h"
#include "tools/granary/json.h"
#include "tools/granary/leader_call.h"

static const char *unit_name(enum setting_unit unit)
{
	switch (unit) {
	case SETTING_MILLISECONDS:
		return "milliseconds";
	case SETTING_SECONDS:
		return "seconds";
	case SETTING_DAYS:
		return "days";
	case SETTING_BYTES:
		return "bytes";
	case SETTING_SERVERS:
		return "servers";
	}
	return "";
}

static uint64_t unit_ms(enum setting_unit unit)
{
	return unit == SETTING_DAYS ? 86400000u : unit == SETTING_SECONDS ? 1000u : 1u;
}

/* The largest unit in which it is whole; in `out`, at least 24 bytes. */
static const char *text_value(const struct setting *setting, uint64_t value, char *out, size_t size)
{
	static const char *const bytes[] = {"", "K", "M", "G", "T"};
	if (value == 0) {
		snprintf(out, size, "0");
		return out;
	}
	if (setting->unit == SETTING_SERVERS) {
		snprintf(out, size, "%" PRIu64, value);
		return out;
	}
	if (setting->unit == SETTING_BYTES) {
		size_t at = 0;
		while (at < 4 && value % 1024 == 0) {
			value /= 1024;
			at++;
		}
		snprintf(out, size, "%" PRIu64 "%s", value, bytes[at]);
		return out;
	}
	return text_duration(value * unit_ms(setting->unit), out);
}

/* A number with a suffix of its kind; without one it is in the setting's own unit. */
static bool parse_value(const struct setting *setting, const char *text, uint64_t *stored)
{
	uint64_t value = 0;
	if (strcmp(text, "default") == 0) {
		*stored = 0;
		return true;
	}
	if (strcmp(text, "off") == 0)
		text = "0";
	if (options_value(OPTION_COUNT, text, &value) != OK) {
		if (setting->unit == SETTING_SERVERS)
			return false;
		bool is_bytes = setting->unit == SETTING_BYTES;
		if (options_value(is_bytes ? OPTION_BYTES : OPTION_DURATION, text, &value) != OK)
			return false;
		if (!is_bytes && value % unit_ms(setting->unit) != 0)
			return false;
		value /= is_bytes ? 1 : unit_ms(setting->unit);
	}
	*stored = value == 0 ? SETTING_ZERO : value;
	return true;
}

static void print_all(const Granary__Settings *settings)
{
	printf("%-24s  %10s  %10s  %-12s  %s\n", "key", "value", "default", "unit", "meaning");
	for (unsigned id = 0; id < SETTINGS_COUNT; id++) {
		const struct setting *setting = setting_of((enum setting_id)id);
		char value[32], standard[32];
		printf("%-24s  %10s  %10s  %-12s  %s\n", setting->key,
		       text_value(setting, setting_value(settings, (enum setting_id)id), value, sizeof value),
		       text_value(setting, setting->standard, standard, sizeof standard), unit_name(setting->unit), setting->text);
	}
}

static void print_all_json(const Granary__Settings *settings)
{
	struct json json;
	json_init(&json, stdout);
	json_open(&json, NULL, '{');
	for (unsigned id = 0; id < SETTINGS_COUNT; id++) {
		const struct setting *setting = setting_of((enum setting_id)id);
		json_open(&json, setting->key, '{');
		json_number(&json, "value", setting_value(settings, (enum setting_id)id));
		json_number(&json, "default", setting->standard);
		json_bool(&json, "is_default", setting_is_default(settings, (enum setting_id)id));
		json_text(&json, "unit", unit_name(setting->unit));
		json_close(&json, '}');
	}
	json_close(&json, '}');
}

/* The request for KEY VALUE; an exit status. */
static int parse_request(const struct cli *cli, char **argv, Granary__SettingsRequest *request)
{
	enum setting_id id = setting_find(argv[0]);
	if (id == SETTINGS_COUNT)
		return cli_usage_error(cli, argv[0], "no such setting (`granary admin set` lists them)");
	const struct setting *setting = setting_of(id);
	Granary__Settings trial = GRANARY__SETTINGS__INIT;
	request->key = argv[0];
	if (parse_value(setting, argv[1], &request->value) && setting_set(&trial, id, request->value) == OK)
		return EXIT_DONE;
	char least[32], most[32], why[160];
	snprintf(why, sizeof why, "not %sfrom %s to %s, or \"default\" (in %s without a suffix)",
		 setting->may_be_zero ? "0, " : "", text_value(setting, setting->least, least, sizeof least),
		 text_value(setting, setting->most, most, sizeof most), unit_name(setting->unit));
	return cli_usage_error(cli, argv[1], why);
}

int cmd_admin_set(struct cli *cli, int argc, char **argv)
{
	bool as_json = false;
	const struct cli_option options[] = {
	    {"json", 0, CLI_FLAG, &as_json, NULL, "all settings as an object"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	Granary__SettingsRequest request = GRANARY__SETTINGS_REQUEST__INIT;
	if (argc == 1)
		return cli_usage_error(cli, argv[0], "needs a value (`granary admin set` alone lists all)");
	if (argc == 2)
		result = parse_request(cli, argv, &request);
	ProtobufCMessage *reply = NULL;
	if (result == EXIT_DONE)
		result = leader_call(cli, argc ? argv[0] : "settings", MESSAGE_SETTINGS, &request.base, &reply);
	if (result == EXIT_DONE && as_json)
		print_all_json((const Granary__Settings *)reply);
	else if (result == EXIT_DONE && argc == 0)
		print_all((const Granary__Settings *)reply);
	message_free(reply);
	return result;
}
