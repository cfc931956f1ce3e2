#include "common/proto/settings.h"

#include <stddef.h>

#include "common/base/check.h"

static const struct setting settings_known[SETTINGS_COUNT] = {
#define X(name, field, unit_, standard_, least_, most_, zero, text_)                                                   \
	[name] = { .key = #field,                                                                                      \
		   .unit = unit_,                                                                                      \
		   .standard = standard_,                                                                              \
		   .least = least_,                                                                                    \
		   .most = most_,                                                                                      \
		   .may_be_zero = zero,                                                                                \
		   .text = text_,                                                                                      \
		   .offset = offsetof(Granary__Settings, field) },
	SETTING_LIST(X)
#undef X
};

const struct setting *setting_of(enum setting_id id)
{
	check(id < SETTINGS_COUNT);
	return &settings_known[id];
}

static bool key_is(const char *key, const char *asked)
{
	for (; *key && *asked; key++, asked++) {
		if (*key != *asked && !(*key == '_' && *asked == '-'))
			return false;
	}
	return !*key && !*asked;
}

enum setting_id setting_find(const char *key)
{
	unsigned id = 0;

	while (id < SETTINGS_COUNT && !key_is(settings_known[id].key, key))
		id++;
	return (enum setting_id)id;
}

static uint64_t *field(Granary__Settings *settings, enum setting_id id)
{
	return (uint64_t *)(void *)((char *)settings + setting_of(id)->offset);
}

static uint64_t stored_value(const Granary__Settings *settings, enum setting_id id)
{
	return *(const uint64_t *)(const void *)((const char *)settings + setting_of(id)->offset);
}

uint64_t setting_value(const Granary__Settings *settings, enum setting_id id)
{
	uint64_t stored = stored_value(settings, id);

	if (stored == 0)
		return setting_of(id)->standard;
	return stored == SETTING_ZERO ? 0 : stored;
}

bool setting_is_default(const Granary__Settings *settings, enum setting_id id)
{
	return stored_value(settings, id) == 0;
}

enum err setting_set(Granary__Settings *settings, enum setting_id id, uint64_t stored)
{
	const struct setting *setting = setting_of(id);
	bool is_zero = stored == SETTING_ZERO;

	if (is_zero ? !setting->may_be_zero : stored != 0 && (stored < setting->least || stored > setting->most))
		return ERR_RANGE;
	*field(settings, id) = stored;
	return OK;
}
