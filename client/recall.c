#include "client/recall.h"

#include <stdlib.h>

#include "client/delegations.h"
#include "common/base/check.h"

struct recall {
	struct rpc_request *request;
	size_t pending;
};

static void item_done(void *arg)
{
	struct recall *recall = arg;
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	check(recall->pending > 0);
	if (--recall->pending > 0)
		return;
	rpc_reply(recall->request, &empty.base);
	free(recall);
}

void recall_serve(struct client *client, struct rpc_request *request)
{
	const struct client_events *events = client->events;
	const Granary__Invalidate *message = (const Granary__Invalidate *)request->message;
	struct recall *recall = mem_zero(1, sizeof *recall);
	recall->request = request;
	recall->pending = message->n_items + 1;
	for (size_t i = 0; i < message->n_items; i++) {
		const Granary__InvalidateItem *item = message->items[i];
		if (item->delegation)
			delegations_recall(client, item->inode, item_done, recall);
		else if (events && events->invalidate)
			events->invalidate(client->events_arg, item->inode, message_bytes(item->name), item_done, recall);
		else
			recall->pending--;
	}
	item_done(recall);
}
