#include "common/proto/storage_class.h"

#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/proto/settings.h"

#define PROFILE(data, parity) ((data) << 8 | (parity))

bool storage_class_name_is_valid(const char *name)
{
	size_t size = strlen(name);

	return size > 0 && size <= STORAGE_CLASS_NAME_BYTES_MAX && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == size;
}

const char *storage_class_label(const char *name)
{
	return strcmp(name, STORAGE_CLASS_DEFAULT) == 0 ? "" : name;
}

const char *storage_class_name(const char *label)
{
	return label[0] ? label : STORAGE_CLASS_DEFAULT;
}

const Granary__StorageClass *storage_class_find(const Granary__StorageClasses *classes, const char *label)
{
	for (size_t i = 0; i < classes->n_classes; i++) {
		if (strcmp(classes->classes[i]->name, storage_class_name(label)) == 0)
			return classes->classes[i];
	}
	return NULL;
}

bool storage_class_exists(const Granary__StorageClasses *classes, const char *label)
{
	return storage_class_label(label)[0] == 0 || storage_class_find(classes, label) != NULL;
}

static bool profile_is_valid(uint32_t cold)
{
	uint32_t data = cold >> 8, parity = cold & 255u;

	return data >= 1 && data <= DATA_SHARDS_MAX && parity >= 1 && parity <= PARITY_SHARDS_MAX;
}

enum err storage_class_check(const Granary__StorageClass *storage)
{
	if (!storage_class_name_is_valid(storage->name))
		return ERR_INVALID;
	if (storage->copies > COPIES_MAX || storage->cool_seconds > STORAGE_COOL_SECONDS_MAX ||
	    storage->compression > STORAGE_COMPRESSION_AUTO)
		return ERR_RANGE;
	if (storage->trash_seconds > STORAGE_TRASH_SECONDS_MAX && storage->trash_seconds != STORAGE_TRASH_NONE)
		return ERR_RANGE;
	if (storage->cold != STORAGE_COLD_AUTO && storage->cold != STORAGE_COLD_OFF && !profile_is_valid(storage->cold))
		return ERR_RANGE;
	return OK;
}

void storage_class_values(const Granary__StorageClasses *classes, const Granary__Settings *settings, const char *label,
			  struct storage_values *out)
{
	static const Granary__StorageClass standard = GRANARY__STORAGE_CLASS__INIT;
	const Granary__StorageClass *found = storage_class_find(classes, label);

	if (!found)
		found = storage_class_find(classes, "");
	if (!found)
		found = &standard;
	*out = (struct storage_values){
		.copies = found->copies ? found->copies : REPLICAS_DEFAULT,
		.is_cold = found->cold != STORAGE_COLD_OFF,
		.cool_seconds = found->cool_seconds ? found->cool_seconds : STORAGE_COOL_SECONDS_DEFAULT,
		.compression = found->compression ? found->compression : STORAGE_COMPRESSION_AUTO,
		.trash_seconds = found->trash_seconds ? found->trash_seconds : setting_value(settings, SETTING_TRASH),
	};
	if (found->trash_seconds == STORAGE_TRASH_NONE)
		out->trash_seconds = 0;
	if (out->is_cold && found->cold != STORAGE_COLD_AUTO) {
		out->data_shards = found->cold >> 8;
		out->parity_shards = found->cold & 255u;
	}
}

/* Decimal digits, no sign; moves on behind them. */
static bool small_number(const char **text, uint32_t *out)
{
	const char *at = *text;

	for (*out = 0; *at >= '0' && *at <= '9' && *out < 1000; at++)
		*out = *out * 10 + (uint32_t)(*at - '0');
	bool any = at != *text;
	*text = at;
	return any;
}

bool storage_cold_parse(const char *text, uint32_t *out)
{
	uint32_t data, parity;

	if (strcmp(text, "auto") == 0 || strcmp(text, "off") == 0) {
		*out = text[0] == 'a' ? STORAGE_COLD_AUTO : STORAGE_COLD_OFF;
		return true;
	}
	if (!small_number(&text, &data) || *text != '+')
		return false;
	text++;
	if (!small_number(&text, &parity) || *text || data > DATA_SHARDS_MAX || parity > PARITY_SHARDS_MAX)
		return false;
	*out = PROFILE(data, parity);
	return profile_is_valid(*out);
}

const char *storage_cold_text(uint32_t cold, char *out)
{
	if (cold == STORAGE_COLD_AUTO || cold == STORAGE_COLD_OFF)
		snprintf(out, STORAGE_COLD_TEXT_BYTES, "%s", cold == STORAGE_COLD_AUTO ? "auto" : "off");
	else
		snprintf(out, STORAGE_COLD_TEXT_BYTES, "%u+%u", (cold >> 8) & 255u, cold & 255u);
	return out;
}
