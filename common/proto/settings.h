/* The settings that an operator changes for the whole cluster (`granary admin set KEY VALUE`): their meaning, units, defaults and
 * bounds in one place. They are kept by the masters (message Settings) and go to the chunkservers with every heartbeat.
 *
 * In a Settings message 0 stands for the default, so that a default can be improved, and SETTING_ZERO for a zero.
 * A new one: a field in granary.proto and a line here; the key is the field's name. */
#ifndef GRANARY_COMMON_PROTO_SETTINGS_H
#define GRANARY_COMMON_PROTO_SETTINGS_H

#include <stdbool.h>

#include "common/base/limits.h"
#include "common/proto/message.h"

#define SETTING_ZERO UINT64_MAX

enum setting_unit { SETTING_MILLISECONDS, SETTING_SECONDS, SETTING_DAYS, SETTING_BYTES, SETTING_SERVERS };

/* X(NAME, field, unit, default, least, most, may be zero, text) */
#define SETTING_LIST(X)                                                                                                \
	X(SETTING_TRASH, trash_seconds, SETTING_SECONDS, 86400, 1, 315360000, true,                                    \
	  "removed files can be undeleted for so long; 0: removed at once")                                            \
	X(SETTING_REPAIR_RATE, repair_bytes_per_second, SETTING_BYTES, 100u * 1048576u, 65536, 1ull << 40, false,      \
	  "bytes a second that each chunkserver spends on new copies")                                                 \
	X(SETTING_COOL_RATE, cool_bytes_per_second, SETTING_BYTES, 100u * 1048576u, 65536, 1ull << 40, false,          \
	  "bytes a second that each chunkserver spends on making chunks cold, and on moving small files to another class")  \
	X(SETTING_REBALANCE_RATE, rebalance_bytes_per_second, SETTING_BYTES, 16u * 1048576u, 65536, 1ull << 40, false, \
	  "bytes a second that are moved away from a chunkserver, by a rebalancing or a drain that was asked for")    \
	X(SETTING_REPAIR_DELAY, repair_delay_ms, SETTING_MILLISECONDS, 15000, 1, 604800000, true,                      \
	  "a chunkserver is away for so long before its chunks get new copies elsewhere")                              \
	X(SETTING_SESSION_TIMEOUT, session_timeout_ms, SETTING_MILLISECONDS, SESSION_TIMEOUT_MS, 5000, 3600000, false,  \
	  "a client that is silent for so long loses its locks and what it had not written")                           \
	X(SETTING_COPYSET_WIDTH, copyset_width, SETTING_SERVERS, COPYSET_WIDTH_DEFAULT, 2, 65536, true,                 \
	  "a chunkserver shares chunks with about so many others; with fewer, losses are rarer and larger; 0: any")    \
	X(SETTING_SCRUB, scrub_days, SETTING_DAYS, 14, 1, 3650, true,                                                  \
	  "every block of a disk is read and checked once in so many days; 0: only on demand")

enum setting_id {
#define X(name, field, unit, standard, least, most, zero, text) name,
	SETTING_LIST(X)
#undef X
	SETTINGS_COUNT,
};

struct setting {
	const char *key;
	enum setting_unit unit;
	uint64_t standard; /* the default */
	uint64_t least, most;
	bool may_be_zero;
	const char *text;
	size_t offset; /* of the field */
};

const struct setting *setting_of(enum setting_id id);
/* "-" and "_" are the same. SETTINGS_COUNT: there is none of that name. */
enum setting_id setting_find(const char *key);
/* What is in force: the default where nothing is set, 0 for SETTING_ZERO. */
uint64_t setting_value(const Granary__Settings *settings, enum setting_id id);
bool setting_is_default(const Granary__Settings *settings, enum setting_id id);
/* `stored` as in the message. ERR_RANGE: out of its bounds. */
MUST_USE enum err setting_set(Granary__Settings *settings, enum setting_id id, uint64_t stored);

#endif
