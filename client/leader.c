#include "client/leader.h"

#include <string.h>

#include "common/base/check.h"

static enum err leader_add(struct leader *leader, struct slice address)
{
	while (address.size != 0 && (address.bytes[0] == ' ' || address.bytes[0] == '\t')) {
		address.bytes++;
		address.size--;
	}
	while (address.size != 0 && (address.bytes[address.size - 1] == ' ' || address.bytes[address.size - 1] == '\n'))
		address.size--;
	if (address.size == 0 || address.size > NAME_BYTES_MAX || leader->count == CLIENT_MASTERS_MAX)
		return ERR_INVALID;
	char text[NAME_BYTES_MAX + 1];
	memcpy(text, address.bytes, address.size);
	text[address.size] = 0;
	if (!strchr(text, ':'))
		return ERR_INVALID;
	leader->peers[leader->count++] = rpc_peer_open(leader->rpc, text);
	return OK;
}

enum err leader_init(struct leader *leader, struct rpc *rpc, const char *cluster, uint64_t start)
{
	*leader = (struct leader){.rpc = rpc};
	for (const char *p = cluster;; p++) {
		size_t size = strcspn(p, ",");
		enum err err = leader_add(leader, slice_of(p, size));
		if (err) {
			leader_deinit(leader);
			return err;
		}
		p += size;
		if (*p == 0)
			break;
	}
	leader->current = (unsigned)(start % leader->count);
	return OK;
}

void leader_deinit(struct leader *leader)
{
	for (unsigned i = 0; i < leader->count; i++)
		rpc_peer_close(leader->peers[i]);
	*leader = (struct leader){0};
}

struct rpc_peer *leader_peer(const struct leader *leader)
{
	return leader->peers[leader->current];
}

bool leader_failed(struct leader *leader, const struct rpc_peer *peer)
{
	if (leader_peer(leader) != peer || leader->count == 1)
		return false;
	leader->current = (leader->current + 1) % leader->count;
	return true;
}

bool leader_redirect(struct leader *leader, const struct rpc_peer *peer, const char *address)
{
	if (!address || !strchr(address, ':') || strlen(address) > NAME_BYTES_MAX)
		return leader_failed(leader, peer);
	if (leader_peer(leader) != peer)
		return false;
	for (unsigned i = 0; i < leader->count; i++)
		if (strcmp(rpc_peer_address(leader->peers[i]), address) == 0) {
			bool changed = leader->current != i;
			leader->current = i;
			return changed;
		}
	/* A peer that is replaced must not be the one that was just asked: it may be in use by calls in flight. */
	if (leader->count == CLIENT_MASTERS_MAX) {
		unsigned last = leader->current == leader->count - 1 ? 0 : leader->count - 1;
		rpc_peer_close(leader->peers[last]);
		leader->peers[last] = rpc_peer_open(leader->rpc, address);
		leader->current = last;
	} else {
		leader->peers[leader->count] = rpc_peer_open(leader->rpc, address);
		leader->current = leader->count++;
	}
	return true;
}
