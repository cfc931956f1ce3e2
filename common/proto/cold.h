/* What a ColdCommand asks for. The numbers are on the wire. */
#ifndef GRANARY_COMMON_PROTO_COLD_H
#define GRANARY_COMMON_PROTO_COLD_H

#include <stdint.h>

enum cold_task_kind {
	COLD_COOL = 1,	  /* the chunk's head makes its shards */
	COLD_WARM = 2,	  /* the head-to-be makes the chunk of its shards */
	COLD_REBUILD = 3, /* a server makes a lost shard of the others */
	COLD_VERIFY = 4,  /* a server's scrub looks whether the shards fit; no command asks for it */
};

/* What one is about: a chunk, or the shard that is made anew; in the version in which it is made. */
struct cold_attempt {
	uint32_t task;
	uint64_t chunk, version;
};

#endif
