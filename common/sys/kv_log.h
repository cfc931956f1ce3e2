/* LevelDB's log files, looked at from outside: what a power cut may have done to them. Internal to kv.c.
 *
 * Source: LevelDB's doc/log_format.md. A log is a sequence of blocks of 32 KiB; a record is never split over a block but in
 * fragments of their own:
 *
 *   block    := record* trailer?          trailer: at most 6 zero bytes
 *   record   := crc (4, LE, masked CRC-32C of type and payload)  length (2, LE)  type (1)  payload
 *   type     := 1 FULL | 2 FIRST | 3 MIDDLE | 4 LAST
 *
 * After a power cut the end of the newest log may be missing, zero or half written. LevelDB with paranoid checks refuses to
 * open some of these, and takes others in which the middle is zero, with a hole in the order of batches. Here: a torn end is
 * cut off when nothing valid follows it; when something does, it is damage, and an error. */
#ifndef GRANARY_COMMON_SYS_KV_LOG_H
#define GRANARY_COMMON_SYS_KV_LOG_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/sys/loop.h"

struct kv_log_scan {
	size_t good_end; /* end of the last complete record before the first bad place */
	bool torn;	 /* something that is not a complete record follows */
	bool damaged;	 /* and behind that, a valid one */
};
/* Pure. */
struct kv_log_scan kv_log_scan(struct slice bytes);

/* All logs of the directory, which nobody has open. Cuts the newest one's torn end; ERR_CORRUPT for anything else. */
MUST_USE enum err kv_log_repair(struct loop *loop, const char *directory);
/* The name of the newest log in `out`, "" when there is none. */
MUST_USE enum err kv_log_newest(struct loop *loop, const char *directory, char out[32]);

#endif
