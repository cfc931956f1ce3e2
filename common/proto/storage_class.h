/* Storage classes (`granary admin class`): how often data is kept, when it becomes cold and how, and for how long it stays in the
 * trash. The table is the masters' (message StorageClasses); files, chunks and packs name their class. A name that is not in the table,
 * because its class was removed, stands for the class "default", which is always there.
 *
 * In a StorageClass 0 stands for the built-in default. Pure. */
#ifndef GRANARY_COMMON_PROTO_STORAGE_CLASS_H
#define GRANARY_COMMON_PROTO_STORAGE_CLASS_H

#include <stdbool.h>

#include "common/base/limits.h"
#include "common/proto/message.h"

#define STORAGE_CLASS_DEFAULT "default"
/* What was not written for a week mostly is not written any more, and read seldom; to write to it again costs a conversion of 64 MiB. */
#define STORAGE_COOL_SECONDS_DEFAULT 604800u
#define STORAGE_COOL_SECONDS_MAX 3153600000u
#define STORAGE_TRASH_SECONDS_MAX 315360000u
#define STORAGE_TRASH_NONE UINT64_MAX
#define STORAGE_COLD_AUTO 0u
#define STORAGE_COLD_OFF UINT32_MAX
#define STORAGE_COMPRESSION_AUTO 4u /* enum compression (common/data/compress.h), whose highest it is */
#define STORAGE_COLD_TEXT_BYTES 8u

/* What is in force. */
struct storage_values {
	unsigned copies;
	bool is_cold;			      /* false: it stays hot */
	unsigned data_shards, parity_shards;  /* 0: by the number of failure domains */
	uint64_t cool_seconds;		      /* without a write, before it becomes cold */
	unsigned compression;		      /* enum compression, never COMPRESSION_DEFAULT */
	uint64_t trash_seconds;		      /* 0: removed at once */
};

/* 1 to STORAGE_CLASS_NAME_BYTES_MAX of a-z, 0-9 and "-". */
bool storage_class_name_is_valid(const char *name);
/* How the table, inodes and chunks say it: "" for the default class. */
const char *storage_class_label(const char *name);
/* And back, for people. */
const char *storage_class_name(const char *label);
/* NULL: not in the table. */
const Granary__StorageClass *storage_class_find(const Granary__StorageClasses *classes, const char *label);
/* It is in the table, or the default class. */
bool storage_class_exists(const Granary__StorageClasses *classes, const char *label);
/* Name and bounds: ERR_INVALID, ERR_RANGE. */
MUST_USE enum err storage_class_check(const Granary__StorageClass *storage);
void storage_class_values(const Granary__StorageClasses *classes, const Granary__Settings *settings, const char *label,
			  struct storage_values *out);

/* "auto", "off", "4+2" (data and parity shards within their bounds). */
bool storage_cold_parse(const char *text, uint32_t *out);
/* In `out`, STORAGE_COLD_TEXT_BYTES. Returns out. */
const char *storage_cold_text(uint32_t cold, char *out);

#endif
