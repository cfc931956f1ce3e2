/* Raft's messages between masters: struct raft_message <-> RaftMessage of granary.proto, sent one-way over rpc. */
#ifndef GRANARY_MASTER_PEERS_H
#define GRANARY_MASTER_PEERS_H

#include "common/sys/rpc.h"
#include "master/members.h"
#include "master/raft/raft.h"

struct peers;

/* rpc outlives it. */
struct peers *peers_open(struct rpc *rpc, const struct members *members, uint64_t own_id);
/* From now on these are known. */
void peers_set(struct peers *peers, const struct members *members);
void peers_close(struct peers *peers);
/* To message->to; it may be lost. Messages to nobody that is known are dropped. */
void peers_send(struct peers *peers, const struct raft_message *message);

/* A received message; `entries` is allocated for the caller to free, payloads borrow from `from`. ERR_PROTOCOL for
 * one that no correct member sends: unknown kinds, ids out of range, gaps between entries. */
MUST_USE enum err peers_unpack(const Granary__RaftMessage *from, struct raft_message *out, struct raft_entry **entries);

#endif
