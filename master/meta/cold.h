/* Chunks become cold, and hot again: from copies to shards and back.
 *
 *            CoolBegin          CoolCommit           WarmBegin         WarmCommit           ChunkThaw
 *   hot ------------> cooling ------------> cold ------------> warming ------------> thawing ----------> hot
 *    ^                   |                    ^                   |
 *    '---- ColdUndo -----'                    '---- ColdUndo -----'
 *
 *             frozen  coding  cold  replicas        read from
 *   hot         -       -      -    its copies      the copies
 *   cooling     x       x      -    its copies      the copies; the shards are being made
 *   cold        x       x      x    none            the shards
 *   warming     x       x      x    being made      the shards
 *   thawing     x       -      -    its copies      the copies; the shards are being deleted
 *
 * Nothing is written while a chunk is frozen, so its copies and its shards hold the same, and it does not matter which of them somebody who has
 * not heard of the latest change reads. Before it may be written again nobody may read what is left of them: those are `fences`, Garbage
 * that has to be confirmed by each server that still serves (a dead one gets no lease before it has confirmed).
 *
 * Shards are chunks of their own (CHUNK_SHARD), with one copy each; what is said of chunks (holders, garbage, inventory) holds for
 * them. A shard whose server is lost is made anew elsewhere (ShardRebuild), in a version that nobody was given before. They are never written again.
 *
 * Slots of a pack that are deleted while it has a coding are in the image. They are noted ('E'), and deleted when it is thawed. */
#ifndef GRANARY_MASTER_META_COLD_H
#define GRANARY_MASTER_META_COLD_H

#include "master/meta/state.h"

/* The chunk goes: its shards, too, and what is noted of it. */
void cold_remove(struct meta *meta, uint64_t id, const Granary__Chunk *chunk);
/* Its members change while it is being cooled: that is given up. */
void cold_give_up(struct meta *meta, uint64_t id, Granary__Chunk *chunk);
/* A slot of a pack that has a coding is free. */
void cold_note_slot(struct meta *meta, uint64_t pack, uint32_t slot);
/* Where it is read, in the memory of a whole message. */
Granary__CodedLocation *cold_location(struct meta *meta, const Granary__Chunk *chunk, ProtobufCMessage *whole);

#endif
