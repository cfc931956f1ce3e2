/* Who should give data away, and to whom. Pure: how full the servers are in; who gives and who takes out.
 *
 * Each should be as full as all of them together (*fair*: of its capacity, the same share); but none can take more than one copy of
 * each chunk, so that one that is larger than all others together is expected to hold no more than its part of all copies (and is
 * brought nearer to that, since it is off the mean already). Whoever is within so many points of its capacity of that is left alone.
 * A move goes from one that has more than is fair to one that has less, and one of the two is out of bounds: nothing is moved twice, and
 * as little as possible. What is on its way is no reason for a move: who is being filled does not give for that, nor does who has
 * given take for that. Servers that are drained take no part. */
#ifndef GRANARY_MASTER_BALANCE_POLICY_H
#define GRANARY_MASTER_BALANCE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct balance_server {
	uint64_t server;
	uint64_t bytes_total;
	uint64_t bytes_used;
	uint64_t bytes_coming, bytes_leaving; /* may be in that, or not yet; likewise not any more */
	bool part;	     /* it is in service, and not drained */
	bool stuck;	     /* nothing of it can be moved just now */
	uint64_t bytes_fair; /* balance_set_fair; */
	bool bounded;	     /* less than its share, for it cannot have more */
};

void balance_set_fair(struct balance_server *servers, size_t count);
bool balance_is_within(const struct balance_server *servers, size_t count, unsigned percent);
/* The one that is the most above what is fair, of those that may give; `count`: none may. */
size_t balance_giver(const struct balance_server *servers, size_t count, unsigned percent);
/* So many bytes may move: both come nearer to what is fair. */
bool balance_may_move(const struct balance_server *from, const struct balance_server *to, uint64_t bytes, unsigned percent);
/* What is to be moved, as if in small pieces and to anyone; `servers` are as they will be. */
uint64_t balance_plan(struct balance_server *servers, size_t count, unsigned percent);

#endif
