/* placement_study [--quick] [--rate MIB] [--width N]: what master/placement.c is worth, as Markdown tables.
 *
 * The model. A server is a disk of DISK_TIB, FULL full, on a host of its own, racks of up to twenty. Disks are lost independently, AFR of
 * them a year; what they had is copied after the repair delay (of a chunk with one copy left REPAIR_ALONE_MS, and these first) by all servers
 * that share chunks with them, each sending --rate; a shard costs as many bytes as the data shards it is made from. POWER times a
 * year the whole cluster loses power, and each server stays away for good with probability GONE. No more than that: no operators, no bugs.
 *
 * The computation. Data is lost when, of some set that chunks are on, one server more than may be is gone at a time: m + 1 of them. What counts is how
 * many of all groups of m + 1 servers are in one set: the *cover*. With copysets it is counted: sets are drawn from placement.c until (nearly) all are
 * known, and groups that are in several sets are counted once by importance sampling (Karp and Luby, 1983: a random group of a random
 * set, one over the number of sets that it is in). Where any servers may be a set it is that of random sets, as many as there are chunks.
 * Power: P(f servers gone) is binomial, a loss unless none of their groups is covered. Disks: a covered group is lost with the rate
 * (m + 1)! * AFR^(m + 1) * w1 * .. * wm, where wj is how long a chunk lacks j. Racks are taken into account by placement.c, and by nothing else.
 * Both formulas are checked: a simulation of years with a much greater AFR, disk by disk, over the very sets.
 * For 10,000 servers the sets are as for 1,000 (they are local); that there are as many as there should be is checked by a sample. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/rng.h"
#include "master/placement.h"

#define DISK_TIB 4.0
#define FULL 0.7
#define AFR 0.04
#define POWER 1.0
#define GONE 0.01
#define DELAY_S 15.0
#define ALONE_S (REPAIR_ALONE_MS / 1000.0)
#define YEAR_S (365.25 * 86400)
#define BYTES_TIB 1099511627776.0
#define USED (DISK_TIB * FULL * BYTES_TIB)
#define DISK_UNITS 500u /* of which FULL are filled for the balance; less where that would take long */
#define NAME_BYTES 24

struct profile {
	const char *name;
	unsigned data, parity;
};
static const struct profile profiles[] = { { "3 copies", 1, 2 }, { "2+2", 2, 2 }, { "4+2", 4, 2 }, { "6+3", 6, 3 }, { "10+4", 10, 4 } };
#define PROFILES (sizeof(profiles) / sizeof(*profiles))

struct world {
	size_t count;
	uint64_t units; /* of each disk */
	struct placement_candidate *servers;
	char (*labels)[2][NAME_BYTES]; /* location, host */
	struct placement_pool pool;
	struct rng rng;
};

struct sets {
	size_t count, members; /* each sorted */
	uint32_t *servers;
	size_t *table; /* of hashes, open; index + 1 */
	size_t table_size;
	size_t *first, *of; /* sets of server s: of[first[s]] .. of[first[s + 1]] */
};

struct figures {
	double sets, cover, width; /* cover: groups of m + 1, their number */
	double chunks;
	double per_group; /* chunks of a covered group */
	double disks, power, repair_s, lost_mib;
	double balance; /* 0: not measured */
};

struct study {
	double rate; /* bytes a second */
	unsigned width;
	bool quick, failed;
};

static void world_open(struct world *world, size_t count, uint64_t units, uint64_t seed)
{
	size_t racks = count / 20 > 10 ? count / 20 : count < 100 ? count / 2 : 10;

	*world = (struct world){ .count = count, .units = units };
	world->servers = mem_zero(count, sizeof(*world->servers));
	world->labels = mem_zero(count, sizeof(*world->labels));
	rng_init(&world->rng, seed);
	for (size_t i = 0; i < count; i++) {
		snprintf(world->labels[i][0], NAME_BYTES, "r%zu", i % racks);
		snprintf(world->labels[i][1], NAME_BYTES, "h%zu", i);
		world->servers[i] = (struct placement_candidate){ .server = i + 1,
								  .location = world->labels[i][0],
								  .host = world->labels[i][1],
								  .bytes_free = units * CHUNK_BYTES,
								  .usable = true,
								  .expected = true };
	}
	world->pool = (struct placement_pool){ .candidates = world->servers, .count = count, .copyset_seed = seed };
}

static void world_close(struct world *world)
{
	free(world->servers);
	free(world->labels);
}

static unsigned set_size(const struct profile *profile)
{
	return profile->data + profile->parity;
}

static struct placement_wish wish_of(const struct profile *profile)
{
	return (struct placement_wish){ .count = set_size(profile),
					.per_domain_max = profile->data > 1 ? profile->parity : 0,
					.whole = true };
}

/* ---- sets */

static int compare_servers(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return left < right ? -1 : left > right;
}

static void sets_open(struct sets *sets, size_t members, size_t most)
{
	*sets = (struct sets){ .members = members, .table_size = 4 * most + 16 };
	sets->servers = mem_zero(most + 1, members * sizeof(uint32_t));
	sets->table = mem_zero(sets->table_size, sizeof(size_t));
}

static void sets_close(struct sets *sets)
{
	free(sets->servers);
	free(sets->table);
	free(sets->first);
	free(sets->of);
}

static const uint32_t *set_at(const struct sets *sets, size_t i)
{
	return sets->servers + i * sets->members;
}

static void sets_add(struct sets *sets, const struct placement *placement)
{
	uint32_t *set = sets->servers + sets->count * sets->members;
	uint64_t hash = 14695981039346656037u;

	for (size_t i = 0; i < sets->members; i++)
		set[i] = (uint32_t)placement->servers[i] - 1;
	qsort(set, sets->members, sizeof(*set), compare_servers);
	for (size_t i = 0; i < sets->members; i++)
		hash = (hash ^ set[i]) * 1099511628211u;
	for (size_t place = (hash ^ hash >> 32) % sets->table_size;; place = (place + 1) % sets->table_size) {
		if (sets->table[place] == 0) {
			sets->table[place] = ++sets->count;
			return;
		}
		if (memcmp(set_at(sets, sets->table[place] - 1), set, sets->members * sizeof(*set)) == 0)
			return;
	}
}

static void sets_index(struct sets *sets, size_t servers)
{
	sets->first = mem_zero(servers + 2, sizeof(size_t));
	sets->of = mem_zero(sets->count * sets->members + 1, sizeof(size_t));
	for (size_t i = 0; i < sets->count * sets->members; i++)
		sets->first[sets->servers[i] + 2]++;
	for (size_t s = 2; s <= servers + 1; s++)
		sets->first[s] += sets->first[s - 1];
	for (size_t i = 0; i < sets->count * sets->members; i++)
		sets->of[sets->first[sets->servers[i] + 1]++] = i / sets->members;
}

/* So many draws, as far as there can be so many sets. */
static void collect(struct world *world, const struct profile *profile, size_t draws, struct sets *out)
{
	struct placement_wish wish = wish_of(profile);
	struct placement placement;

	sets_open(out, set_size(profile), draws);
	for (size_t i = 0; i < draws; i++) {
		check(placement_choose(&world->pool, &wish, &world->rng, &placement) == OK);
		sets_add(out, &placement);
	}
	sets_index(out, world->count);
}

/* How many others a server shares sets with, on average. */
static double scatter_width(const struct sets *sets, size_t servers)
{
	size_t *seen = mem_zero(servers, sizeof(size_t)), pairs = 0;

	for (size_t s = 0; s < servers; s++) {
		for (size_t i = sets->first[s]; i < sets->first[s + 1]; i++) {
			const uint32_t *set = set_at(sets, sets->of[i]);
			for (size_t k = 0; k < sets->members; k++) {
				pairs += set[k] != s && seen[set[k]] != s + 1;
				seen[set[k]] = s + 1;
			}
		}
	}
	free(seen);
	return (double)pairs / (double)servers;
}

static bool set_has(const struct sets *sets, size_t i, uint32_t server)
{
	const uint32_t *set = set_at(sets, i);

	for (size_t k = 0; k < sets->members; k++) {
		if (set[k] == server)
			return true;
	}
	return false;
}

/* In how many sets all of these are. */
static size_t multiplicity(const struct sets *sets, const uint32_t *group, size_t count)
{
	size_t found = 0;

	for (size_t i = sets->first[group[0]]; i < sets->first[group[0] + 1]; i++) {
		bool all = true;
		for (size_t k = 1; k < count && all; k++)
			all = set_has(sets, sets->of[i], group[k]);
		found += all;
	}
	return found;
}

static double choose_log(double n, double k)
{
	return k > n ? -INFINITY : lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1);
}

/* How many groups of so many servers are in one of the sets: Karp and Luby. */
static double groups_covered(const struct sets *sets, size_t count, struct rng *rng)
{
	const unsigned samples = 10000;
	double sum = 0;

	for (unsigned sample = 0; sample < samples; sample++) {
		uint32_t group[SHARDS_MAX];
		memcpy(group, set_at(sets, rng_below(rng, sets->count)), sets->members * sizeof(*group));
		for (size_t i = 0; i < count; i++) {
			size_t k = i + rng_below(rng, sets->members - i);
			uint32_t moved = group[i];
			group[i] = group[k];
			group[k] = moved;
		}
		sum += 1.0 / (double)multiplicity(sets, group, count);
	}
	return (double)sets->count * exp(choose_log((double)sets->members, (double)count)) * sum / samples;
}

/* ---- figures */

static double windows_product(const struct study *study, const struct profile *profile, const struct figures *figures)
{
	double all_s = USED * profile->data / (study->rate * figures->width), product = 1;
	double share = (set_size(profile) - 1) / figures->width; /* of a server's chunks that another one has, too */

	for (unsigned lacking = 1; lacking <= profile->parity; lacking++) {
		double begin_s = lacking == profile->parity ? ALONE_S : DELAY_S;
		product *= begin_s + all_s * pow(share < 1 ? share : 1, lacking - 1.0) * figures->per_group / (figures->per_group + 1);
	}
	return product;
}

/* A loss from disks that die one by one, so many a second each. */
static double disks_loss(const struct study *study, const struct profile *profile, const struct figures *figures, double afr)
{
	unsigned lost = profile->parity + 1;
	double rate = figures->cover * exp(lgamma(lost + 1.0)) * pow(afr / YEAR_S, lost) *
		      windows_product(study, profile, figures) * YEAR_S;

	return -expm1(-rate);
}

static double power_loss(size_t servers, const struct profile *profile, const struct figures *figures)
{
	double n = (double)servers, lost = profile->parity + 1.0;
	double covered = figures->cover / exp(choose_log(n, lost)), loss = 0;

	if (covered > 1)
		covered = 1;
	for (double gone = lost; gone <= n && gone < n * GONE * 3 + 40; gone++) {
		double probability = exp(choose_log(n, gone) + gone * log(GONE) + (n - gone) * log1p(-GONE));
		loss += probability * -expm1(exp(choose_log(gone, lost)) * log1p(-covered));
	}
	return POWER * loss;
}

/* Filled as it would be, the fullest server beside the mean. */
static double balance(struct world *world, const struct profile *profile)
{
	struct placement_wish wish = wish_of(profile);
	struct placement placement;
	uint64_t least = world->units * CHUNK_BYTES;
	size_t draws = (size_t)((double)(world->count * world->units) * FULL) / wish.count;

	for (size_t i = 0; i < draws; i++) {
		check(placement_choose(&world->pool, &wish, &world->rng, &placement) == OK);
		for (size_t k = 0; k < placement.count; k++)
			world->servers[placement.servers[k] - 1].bytes_free -= CHUNK_BYTES;
	}
	for (size_t i = 0; i < world->count; i++) {
		least = world->servers[i].bytes_free < least ? world->servers[i].bytes_free : least;
		world->servers[i].bytes_free = world->units * CHUNK_BYTES;
	}
	double most = (double)(world->units - least / CHUNK_BYTES);
	return most / ((double)(draws * wish.count) / (double)world->count);
}

/* Chunks anywhere: random groups, as many as there are chunks. */
static void cover_of_any(const struct profile *profile, size_t servers, struct figures *out)
{
	double groups = exp(choose_log((double)servers, profile->parity + 1.0));
	double drawn = out->chunks * exp(choose_log(set_size(profile), profile->parity + 1.0));

	double possible = exp(choose_log((double)servers, set_size(profile)));

	out->sets = possible * -expm1(-out->chunks / possible);
	out->cover = groups * -expm1(-drawn / groups);
	out->per_group = drawn / out->cover;
	out->width = (double)servers - 1;
}

static void finish(const struct study *study, const struct profile *profile, size_t servers, struct figures *out)
{
	out->repair_s = DELAY_S + USED * profile->data / (study->rate * out->width);
	out->disks = disks_loss(study, profile, out, AFR);
	out->power = power_loss(servers, profile, out);
	out->lost_mib = out->chunks / out->sets * CHUNK_BYTES / MIB;
}

static double chunks_of(const struct profile *profile, size_t servers)
{
	return (double)servers * USED * profile->data / (set_size(profile) * (double)CHUNK_BYTES);
}

static void measure(const struct study *study, const struct profile *profile, struct world *world, struct figures *out)
{
	unsigned ring_neighbours = 2 * (set_size(profile) - 1);
	size_t rings = (world->pool.copyset_width + ring_neighbours - 1) / ring_neighbours;
	struct sets sets;

	*out = (struct figures){ .chunks = chunks_of(profile, world->count) };
	if (world->pool.copyset_width == 0) {
		cover_of_any(profile, world->count, out);
	} else {
		collect(world, profile, 8 * rings * world->count, &sets);
		out->sets = (double)sets.count;
		out->width = scatter_width(&sets, world->count);
		out->cover = groups_covered(&sets, profile->parity + 1, &world->rng);
		out->per_group = out->chunks * exp(choose_log(set_size(profile), profile->parity + 1.0)) / out->cover;
		sets_close(&sets);
	}
	out->balance = balance(world, profile);
	finish(study, profile, world->count, out);
}

/* The same for ten times the servers. */
static void scale(const struct study *study, const struct profile *profile, size_t servers, bool any, struct figures *figures)
{
	figures->chunks *= 10;
	if (any) {
		cover_of_any(profile, servers, figures);
	} else {
		figures->sets *= 10;
		figures->cover *= 10;
	}
	figures->balance = 0;
	finish(study, profile, servers, figures);
}

/* ---- checks */

/* Years of disks that die one by one over these sets: in which part of them something is lost. */
static double simulate(const struct sets *sets, const struct profile *profile, size_t servers, double afr, double window_s, struct rng *rng)
{
	const unsigned years = 4000;
	unsigned losses = 0, *lacking = mem_zero(sets->count, sizeof(*lacking));
	double *until = mem_zero(sets->count, sizeof(*until)), *replaced = mem_zero(servers, sizeof(*replaced));

	for (unsigned year = 0; year < years; year++) {
		bool lost = false;
		double now = 0;
		memset(until, 0, sets->count * sizeof(*until));
		memset(replaced, 0, servers * sizeof(*replaced));
		while (!lost) {
			now -= log(1 - (double)(rng_next(rng) >> 11) / 9007199254740992.0) * YEAR_S / (afr * (double)servers);
			if (now > YEAR_S)
				break;
			size_t server = rng_below(rng, servers);
			if (now < replaced[server])
				continue;
			replaced[server] = now + window_s;
			for (size_t i = sets->first[server]; i < sets->first[server + 1] && !lost; i++) {
				size_t set = sets->of[i];
				lacking[set] = now < until[set] ? lacking[set] + 1 : 1;
				until[set] = now + window_s;
				lost = lacking[set] > profile->parity;
			}
		}
		losses += lost;
	}
	free(lacking);
	free(until);
	free(replaced);
	return (double)losses / years;
}

/* With an AFR at which the formula says that every third year loses something. */
static void check_formula(struct study *study, const struct profile *profile, unsigned width)
{
	const double window_s = 36000;
	unsigned lost = profile->parity + 1;
	struct world world;
	struct sets sets;

	world_open(&world, 100, DISK_UNITS, 5);
	world.pool.copyset_width = width;
	collect(&world, profile, 20000, &sets);
	double cover = groups_covered(&sets, lost, &world.rng);
	double afr = YEAR_S * pow(0.4 / (cover * exp(lgamma(lost + 1.0)) * pow(window_s, lost - 1.0) * YEAR_S), 1.0 / lost);
	double simulated = simulate(&sets, profile, world.count, afr, window_s, &world.rng), computed = -expm1(-0.4);
	printf("- %s, 100 servers, width %u: at %.0f%% a year lost in %.2f of the years simulated, %.2f computed.\n", profile->name, width,
	       afr * 100, simulated, computed);
	if (simulated < computed / 1.35 || simulated > computed * 1.35) {
		fprintf(stderr, "placement_study: %s, width %u: the formula says something else than the simulation\n", profile->name, width);
		study->failed = true;
	}
	sets_close(&sets);
	world_close(&world);
}

/* A whole rack at once takes no more from any set than may be, and there are no more sets than there should be. */
static void check_sets(struct study *study, const struct profile *profile, size_t servers, size_t draws)
{
	size_t rings = (study->width + 2 * (set_size(profile) - 1) - 1) / (2 * (set_size(profile) - 1)), most = 0;
	struct world world;
	struct sets sets;

	world_open(&world, servers, DISK_UNITS, 6);
	world.pool.copyset_width = study->width;
	collect(&world, profile, draws, &sets);
	for (size_t i = 0; i < sets.count; i++) {
		const uint32_t *set = set_at(&sets, i);
		for (size_t a = 0; a < sets.members; a++) {
			size_t same = 0;
			for (size_t b = 0; b < sets.members; b++)
				same += strcmp(world.labels[set[a]][0], world.labels[set[b]][0]) == 0;
			most = same > most ? same : most;
		}
	}
	double expected = (double)(rings * servers) * -expm1(-(double)draws / (double)(rings * servers));
	printf("- %s, %zu servers: %zu chunks are on %zu sets (%.0f expected), with at most %zu in a rack.\n", profile->name, servers, draws,
	       sets.count, expected, most);
	if ((double)sets.count > 1.02 * expected || most > profile->parity) {
		fprintf(stderr, "placement_study: %s, %zu servers: too many sets, or too many in a rack\n", profile->name, servers);
		study->failed = true;
	}
	sets_close(&sets);
	world_close(&world);
}

/* ---- tables */

static uint64_t units_of(const struct study *study, size_t servers)
{
	return study->quick ? DISK_UNITS / 5 : servers < 1000 ? DISK_UNITS : DISK_UNITS / 2;
}

static const char *text_time(double seconds, char *out, size_t size)
{
	if (seconds < 120)
		snprintf(out, size, "%.0f s", seconds);
	else if (seconds < 7200)
		snprintf(out, size, "%.0f min", seconds / 60);
	else
		snprintf(out, size, "%.1f h", seconds / 3600);
	return out;
}

static void print_row(const char *first, const char *second, const struct figures *f)
{
	char time[24], balance_text[16] = "";

	if (f->balance > 0)
		snprintf(balance_text, sizeof(balance_text), "%.2f", f->balance);
	printf("| %s | %s | %.2g | %.0f | %.1e | %.1e | %.3g | %s | %s |\n", first, second, f->sets, f->width, f->disks, f->power,
	       f->lost_mib / 1024, text_time(f->repair_s, time, sizeof(time)), balance_text);
	fflush(stdout);
}

static void print_head(const char *first, const char *second)
{
	printf("\n| %s | %s | sets | width | loss a year, disks | loss a year, power | GiB of a loss | repair | fullest / mean |\n"
	       "|---|---|---|---|---|---|---|---|---|\n",
	       first, second);
}

static void table_of_widths(struct study *study, size_t servers)
{
	static const unsigned widths[] = { 4, 8, 16, 32, 64, 128, 0 };
	char name[32];

	print_head("3 copies, servers", "wanted width");
	for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++) {
		if (widths[i] + 1 >= servers)
			continue;
		struct world world;
		struct figures figures;
		world_open(&world, servers, units_of(study, servers), 1);
		world.pool.copyset_width = widths[i];
		measure(study, &profiles[0], &world, &figures);
		char wanted[32] = "any";
		if (widths[i])
			snprintf(wanted, sizeof(wanted), "%u", widths[i]);
		snprintf(name, sizeof(name), "%zu", servers);
		print_row(name, wanted, &figures);
		world_close(&world);
	}
}

static void table_of_profiles(struct study *study)
{
	size_t most = study->quick ? 100 : 1000;

	print_head("servers", "kept as");
	for (size_t servers = 10; servers <= most; servers *= 10) {
		for (size_t i = 0; i < PROFILES; i++) {
			for (unsigned sets = 0; sets < 2; sets++) {
				struct world world;
				struct figures figures;
				char first[32], second[32];
				if (set_size(&profiles[i]) > servers || (sets && servers <= study->width + 1))
					continue;
				world_open(&world, servers, units_of(study, servers), 2);
				world.pool.copyset_width = sets ? study->width : 0;
				measure(study, &profiles[i], &world, &figures);
				snprintf(first, sizeof(first), "%zu", servers);
				snprintf(second, sizeof(second), "%s, %s", profiles[i].name, sets ? "copysets" : "anywhere");
				print_row(first, second, &figures);
				if (servers == 1000) {
					scale(study, &profiles[i], 10 * servers, !sets, &figures);
					print_row("10000", second, &figures);
				}
				world_close(&world);
			}
		}
	}
}

int main(int argc, char **argv)
{
	struct study study = { .rate = 100.0 * MIB, .width = COPYSET_WIDTH_DEFAULT };

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--quick") == 0) {
			study.quick = true;
		} else if (strcmp(argv[i], "--rate") == 0 && i + 1 < argc) {
			study.rate = atof(argv[++i]) * MIB;
		} else if (strcmp(argv[i], "--width") == 0 && i + 1 < argc) {
			study.width = (unsigned)atoi(argv[++i]);
		} else {
			fprintf(stderr, "usage: placement_study [--quick] [--rate MIB] [--width N]\n");
			return 2;
		}
	}
	if (study.rate <= 0 || study.width < 2) {
		fprintf(stderr, "placement_study: a rate above 0 and a width of at least 2\n");
		return 2;
	}
	printf("Disks of %.0f TiB, %.0f%% full; %.0f%% of them lost a year, repaired after %.0f s with %.0f MiB/s a server; %.0f power loss a year, "
	       "after which %.0f%% of the servers stay away.\n",
	       DISK_TIB, FULL * 100, AFR * 100, DELAY_S, study.rate / MIB, POWER, GONE * 100);
	table_of_widths(&study, study.quick ? 100 : 1000);
	table_of_profiles(&study);
	printf("\n");
	check_formula(&study, &profiles[0], 8);
	check_formula(&study, &profiles[0], 32);
	check_formula(&study, &profiles[2], 20);
	check_sets(&study, &profiles[0], study.quick ? 200 : 10000, study.quick ? 5000 : 20000);
	check_sets(&study, &profiles[3], study.quick ? 200 : 1000, 5000);
	return study.failed ? 1 : 0;
}
