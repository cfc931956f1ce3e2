#include "master/peers.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

struct peers {
	struct rpc *rpc;
	uint64_t own_id;
	struct members members;
	struct rpc_peer *peers[RAFT_MEMBERS_MAX]; /* NULL: ourselves */
};

struct peers *peers_open(struct rpc *rpc, const struct members *members, uint64_t own_id)
{
	struct peers *peers = mem_zero(1, sizeof(*peers));

	peers->rpc = rpc;
	peers->own_id = own_id;
	peers_set(peers, members);
	return peers;
}

void peers_set(struct peers *peers, const struct members *members)
{
	struct rpc_peer *before[RAFT_MEMBERS_MAX];

	/* Those that stay are opened again before they are closed: their connections are kept. */
	memcpy(before, peers->peers, sizeof(before));
	memset(peers->peers, 0, sizeof(peers->peers));
	peers->members = *members;
	for (size_t i = 0; i < members->count; i++) {
		if (members->ids[i] != peers->own_id)
			peers->peers[i] = rpc_peer_open(peers->rpc, members->addresses[i]);
	}
	for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
		if (before[i])
			rpc_peer_close(before[i]);
	}
}

void peers_close(struct peers *peers)
{
	if (!peers)
		return;
	for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
		if (peers->peers[i])
			rpc_peer_close(peers->peers[i]);
	}
	free(peers);
}

static struct rpc_peer *peer_of(const struct peers *peers, uint64_t id)
{
	for (size_t i = 0; i < peers->members.count; i++) {
		if (peers->members.ids[i] == id)
			return peers->peers[i];
	}
	return NULL;
}

void peers_send(struct peers *peers, const struct raft_message *message)
{
	struct rpc_peer *peer = peer_of(peers, message->to);
	Granary__RaftMessage out = GRANARY__RAFT_MESSAGE__INIT;
	Granary__RaftEntry *entries = NULL;

	if (!peer)
		return;
	out.kind = message->kind;
	out.from = message->from;
	out.to = message->to;
	out.term = message->term;
	out.log_index = message->log_index;
	out.log_term = message->log_term;
	out.commit = message->commit;
	out.reject = message->reject;
	out.hint_index = message->hint_index;
	out.hint_term = message->hint_term;
	out.context = message->context;
	out.held = message->held;
	out.node = message->node;
	out.n_entries = message->entry_count;
	if (message->entry_count > 0) {
		entries = mem_alloc(message->entry_count * sizeof(*entries));
		out.entries = mem_alloc(message->entry_count * sizeof(Granary__RaftEntry *));
	}
	for (size_t i = 0; i < message->entry_count; i++) {
		entries[i] = (Granary__RaftEntry)GRANARY__RAFT_ENTRY__INIT;
		entries[i].index = message->entries[i].index;
		entries[i].term = message->entries[i].term;
		entries[i].kind = message->entries[i].kind;
		entries[i].payload = message_borrow(message->entries[i].payload);
		out.entries[i] = &entries[i];
	}
	rpc_peer_send(peer, MESSAGE_RAFT, &out.base);
	free(out.entries);
	free(entries);
}

static enum err entry_unpack(const Granary__RaftEntry *from, uint64_t index, uint64_t term_max, struct raft_entry *out)
{
	if (from->kind < RAFT_ENTRY_NORMAL || from->kind > RAFT_ENTRY_MEMBERS || from->index != index || from->term == 0 ||
	    from->term > term_max || from->payload.len > RAFT_ENTRY_BYTES_MAX)
		return ERR_PROTOCOL;
	*out = (struct raft_entry){ .index = index,
				    .term = from->term,
				    .kind = (enum raft_entry_kind)from->kind,
				    .payload = message_bytes(from->payload) };
	return OK;
}

enum err peers_unpack(const Granary__RaftMessage *from, struct raft_message *out, struct raft_entry **entries)
{
	enum err err = OK;

	*entries = NULL;
	if (from->kind < RAFT_PRE_VOTE || from->kind > RAFT_FETCH_REPLY || from->from == 0 || from->to == 0 ||
	    (from->n_entries > 0 && from->kind != RAFT_APPEND && from->kind != RAFT_FETCH_REPLY) || from->log_index > UINT64_MAX - from->n_entries - 1)
		return ERR_PROTOCOL;
	*out = (struct raft_message){ .kind = (enum raft_message_kind)from->kind,
				      .from = from->from,
				      .to = from->to,
				      .term = from->term,
				      .log_index = from->log_index,
				      .log_term = from->log_term,
				      .commit = from->commit,
				      .reject = from->reject,
				      .hint_index = from->hint_index,
				      .hint_term = from->hint_term,
				      .context = from->context,
				      .held = from->held,
				      .node = from->node,
				      .entry_count = from->n_entries };
	if (from->n_entries == 0)
		return OK;
	*entries = mem_alloc(from->n_entries * sizeof(**entries));
	for (size_t i = 0; err == OK && i < from->n_entries; i++)
		err = entry_unpack(from->entries[i], from->log_index + 1 + i, from->term, &(*entries)[i]);
	out->entries = *entries;
	if (err) {
		free(*entries);
		*entries = NULL;
		out->entries = NULL;
		out->entry_count = 0;
	}
	return err;
}
