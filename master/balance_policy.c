#include "master/balance_policy.h"

#include "common/base/limits.h"

#define PLAN_PIECES 4096u
#define BOUNDED_PART 4u /* of the points that others may be off */

/* a * b / c, of byte counts. */
static uint64_t times(uint64_t a, uint64_t b, uint64_t c)
{
	return c == 0 ? 0 : (uint64_t)((long double)a * (long double)b / (long double)c);
}

static uint64_t band_of(const struct balance_server *server, unsigned percent)
{
	return times(server->bytes_total, percent, server->bounded ? 100 * BOUNDED_PART : 100);
}

/* At least, and at most, whatever is known already of what moves. */
static uint64_t above(const struct balance_server *server)
{
	uint64_t kept = server->bytes_fair + server->bytes_leaving;

	return server->part && server->bytes_used > kept ? server->bytes_used - kept : 0;
}

static uint64_t below(const struct balance_server *server)
{
	uint64_t had = server->bytes_used + server->bytes_coming;

	return server->part && had < server->bytes_fair ? server->bytes_fair - had : 0;
}

/* Those that are as full as they can be are taken out, one after another, and the others have the rest. */
void balance_set_fair(struct balance_server *servers, size_t count)
{
	uint64_t used = 0, total = 0;
	bool again = true;

	for (size_t i = 0; i < count; i++) {
		servers[i].bytes_fair = UINT64_MAX;
		servers[i].bounded = false;
		used += servers[i].part ? servers[i].bytes_used : 0;
		total += servers[i].part ? servers[i].bytes_total : 0;
	}
	uint64_t most = used / REPLICAS_DEFAULT;
	while (again) {
		again = false;
		for (size_t i = 0; i < count; i++) {
			struct balance_server *server = &servers[i];
			/* Who has more has shown that it can: of chunks with fewer copies. */
			uint64_t bound = server->bytes_used > most ? server->bytes_used : most;
			if (!server->part || server->bytes_fair != UINT64_MAX || times(server->bytes_total, used, total) <= bound)
				continue;
			server->bytes_fair = bound;
			server->bounded = true;
			used -= bound < used ? bound : used;
			total -= server->bytes_total;
			again = true;
		}
	}
	for (size_t i = 0; i < count; i++) {
		if (servers[i].bytes_fair == UINT64_MAX)
			servers[i].bytes_fair = servers[i].part ? times(servers[i].bytes_total, used, total) : servers[i].bytes_used;
	}
}

bool balance_is_within(const struct balance_server *servers, size_t count, unsigned percent)
{
	for (size_t i = 0; i < count; i++) {
		if (above(&servers[i]) > band_of(&servers[i], percent) || below(&servers[i]) > band_of(&servers[i], percent))
			return false;
	}
	return true;
}

/* One that has too much, or something for one that has too little. */
size_t balance_giver(const struct balance_server *servers, size_t count, unsigned percent)
{
	size_t giver = count;
	uint64_t most = 0;
	bool lacks = false;

	for (size_t i = 0; i < count; i++)
		lacks = lacks || below(&servers[i]) > band_of(&servers[i], percent);
	for (size_t i = 0; i < count; i++) {
		uint64_t off = times(above(&servers[i]), 1u << 20, servers[i].bytes_total);
		bool may = lacks || above(&servers[i]) > band_of(&servers[i], percent);
		if (!may || servers[i].stuck || off <= most)
			continue;
		most = off;
		giver = i;
	}
	return giver;
}

bool balance_may_move(const struct balance_server *from, const struct balance_server *to, uint64_t bytes, unsigned percent)
{
	uint64_t from_band = band_of(from, percent), to_band = band_of(to, percent);
	uint64_t gives = above(from), takes = below(to);

	if (gives == 0 || takes == 0 || (gives <= from_band && takes <= to_band))
		return false;
	return bytes < 2 * gives && bytes <= gives + from_band / 2 && bytes < 2 * takes && bytes <= takes + to_band / 2;
}

static size_t taker_of(const struct balance_server *servers, size_t count, size_t giver, uint64_t bytes, unsigned percent)
{
	size_t taker = count;
	uint64_t most = 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t off = times(below(&servers[i]), 1u << 20, servers[i].bytes_total);
		if (off <= most || !balance_may_move(&servers[giver], &servers[i], bytes, percent))
			continue;
		most = off;
		taker = i;
	}
	return taker;
}

uint64_t balance_plan(struct balance_server *servers, size_t count, unsigned percent)
{
	uint64_t used = 0, moved = 0;

	for (size_t i = 0; i < count; i++)
		used += servers[i].part ? servers[i].bytes_used : 0;
	uint64_t piece = used / PLAN_PIECES + 1;
	for (unsigned pieces = 0; pieces < PLAN_PIECES; pieces++) {
		size_t giver = balance_giver(servers, count, percent);
		size_t taker = giver < count ? taker_of(servers, count, giver, piece, percent) : count;
		if (taker == count)
			break;
		servers[giver].bytes_used -= piece;
		servers[taker].bytes_used += piece;
		moved += piece;
	}
	return moved;
}
