/* LockRange.kind of granary.proto. Numbers are on the wire: never renumber. */
#ifndef GRANARY_COMMON_PROTO_LOCK_H
#define GRANARY_COMMON_PROTO_LOCK_H

#include <stdint.h>

enum lock_kind {
	LOCK_NONE = 0,	    /* unlock; in a result: nobody is in the way */
	LOCK_SHARED = 1,    /* F_RDLCK, LOCK_SH */
	LOCK_EXCLUSIVE = 2, /* F_WRLCK, LOCK_EX */
};

/* LockRange.end of a lock to the end of the file, wherever that will be. */
#define LOCK_END_MAX INT64_MAX

#endif
