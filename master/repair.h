/* Gives chunks that lack copies new ones. The policy is in repair_policy.h; here is what it needs to be carried out.
 *
 *   chunk lacks copies -> queue by risk -> join committed -> filled by its predecessor -> complete committed -> newcomer told
 *      ^ a slow pass over all chunks; the chunks of a server that is gone; chunks whose chain broke while they were written
 *
 * What is under way is in the chunks themselves (Chunk.joining): a new leader finds it in its first pass and goes on. So many copies
 * at once are filled from one server and to one; their bandwidth is bounded at the chunkserver that sends. One chunk has one newcomer at
 * a time. Where it failed it is not tried again for a while.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_REPAIR_H
#define GRANARY_MASTER_REPAIR_H

#include "master/chunk_change.h"
#include "master/repair_policy.h"

struct repair;

struct repair *repair_open(const struct chunk_change_context *context);
/* Chunks that are kept in shards are repaired in the same queue, by who knows how (cooling.h). */
struct repair_coded {
	/* What it lacks can be made, and is not being made: how many failures it survives as it is. */
	bool (*lacks)(void *arg, uint64_t id, const Granary__Chunk *chunk, unsigned *tolerated);
	/* ERR_BUSY: not now. */
	enum err (*begin)(void *arg, uint64_t id, const Granary__Chunk *chunk);
	void *arg;
};
void repair_set_coded(struct repair *repair, const struct repair_coded *coded);
/* A chunk is to be looked at before the next pass comes to it. */
void repair_look(struct repair *repair, uint64_t chunk);
/* After replica_close. */
void repair_close(struct repair *repair);
void repair_leading(struct repair *repair);
void repair_deposed(struct repair *repair);
/* The copy of `from` is to be `to`'s, who is filled first; `from` leaves when it is complete (Chunk.moving_from). False: not now,
 * `to` or who would fill it has no time, or the chunk is not whole. */
struct repair_move {
	uint64_t chunk, from, to;
};
bool repair_move(struct repair *repair, const Granary__Chunk *chunk, const struct repair_move *move);
/* All wanted copies are there, and nothing of it is being changed. */
bool repair_may_move(const struct repair *repair, uint64_t id, const Granary__Chunk *chunk);
bool repair_is_joining(const struct repair *repair, uint64_t chunk);
/* It has time to be filled, or (as_source) to fill. */
bool repair_has_time(const struct repair *repair, uint64_t server, bool as_source);
/* Copies that are lacking are being made: they go first. */
bool repair_is_busy(const struct repair *repair);
/* MESSAGE_CHUNK_FILLED. */
void repair_serve(struct repair *repair, struct rpc_request *request);
/* The chain of a chunk broke while it was in use. left: a server that was left out though it is alive, which has no part in this chunk
 * for a while; or 0. */
void repair_active(struct repair *repair, uint64_t chunk, uint64_t left);
/* A chunk has a copy that is not wanted any more; whoever takes care of that looks again whether it may go, and bounds how many do. */
void repair_on_surplus(struct repair *repair, void (*fn)(void *arg, uint64_t chunk, const Granary__Chunk *, uint64_t leaves), void *arg);
/* A ChunkCommand without garbage has ended. */
void repair_command_done(struct repair *repair, uint64_t server, const Granary__ChunkCommand *command, enum err err);

/* For status: what the policy sees now. */
void repair_question(const struct repair *repair, struct repair_question *out);
struct repair_progress {
	uint64_t joins;		    /* copies being filled */
	uint64_t bytes_per_second;  /* measured over the last seconds; 0: not known */
	uint64_t bytes_filling;	    /* sent of copies that are not complete */
	/* At the rates of the servers that send, each from what is to come from it (to_fill_bytes). Those that have not begun: at
	 * the rate that is set. 0: nothing is sent. */
	uint64_t safe_in_ms;
};
void repair_progress(const struct repair *repair, struct repair_progress *out);

#endif
