/* A Raft group of production cores and write-ahead logs in the simulated system, with its checkers.
 *
 *   sim_raft.c      arguments, seeds, the planted bugs
 *   raft_cluster.c  members: the shell that a master would be, messages, crashes, restarts, clients
 *   raft_checker.c  what must always hold
 *   raft_faults.c   what goes wrong, when
 *   raft_operator.c what is done about it: membership, snapshots, disks replaced and mended
 *
 * A member is a host with a disk and a clock and, while it is up, a process with a log and a core. Its state machine is
 * the list of entries applied; the cluster keeps one common copy (checker), so that a member only remembers how far it
 * is. */
#ifndef GRANARY_TESTS_SIM_RAFT_CLUSTER_H
#define GRANARY_TESTS_SIM_RAFT_CLUSTER_H

#include "common/base/rng.h"
#include "master/raft/raft.h"
#include "master/wal.h"
#include "tests/sim/sys/sim.h"

#define CLUSTER_MEMBERS_MAX 5
#define CLUSTER_SEGMENT_BYTES (32u * KIB)
#define CLUSTER_ROT_MAX 64
#define CLUSTER_FILLS_MAX 256
#define CLUSTER_MEMBERSHIPS_MAX 1024

struct cluster;
struct parcel;

struct member {
	struct cluster *cluster;
	uint64_t id;
	struct sim_host *host;
	uint64_t incarnation; /* counts starts */
	uint64_t node;	      /* of its disk */
	bool founder;	      /* knows the first membership; else it waits to be called */

	/* The process; NULL and void while it is down. */
	struct loop *loop;
	struct wal *wal;
	struct raft *raft;
	struct timer tick;
	uint64_t applied;
	uint64_t mark_appended, mark_synced;
	struct parcel *held_first, *held_last; /* messages that wait for a sync */
	bool exiting;                          /* the log failed: the process ends itself */
	bool paused;
	struct rot {
		char file[32];
		uint64_t offset;
		uint8_t rotten; /* the byte since */
	} rot[CLUSTER_ROT_MAX]; /* bits of its log that are flipped now */
	size_t rot_count;
	struct {
		uint64_t mark;
		size_t count;
	} fills[CLUSTER_FILLS_MAX]; /* under way to the disk */
	size_t fill_count;
	bool pulling; /* a snapshot */
	uint64_t given_up;
	enum raft_role role;
	uint64_t term;

	/* The state machine's store. */
	uint64_t stored;        /* what is in it */
	uint64_t stored_synced; /* what a power cut cannot take */
	uint64_t installed, installed_term; /* the snapshot it began with */

	/* What the log has promised; checked when it is read again. */
	struct raft_hard_state hard_appended, hard_durable;
	uint64_t vote_term, vote_for; /* the newest vote that has left the member */
	uint64_t hard_mark;           /* of hard_appended */
	uint64_t last_durable, last_durable_term;
	uint64_t overwritten; /* lowest index appended since the last report: from here on anything may be there */
};

struct committed {
	uint64_t term;
	uint32_t crc;
	uint64_t term_seen; /* term of whoever was first seen to know that it is committed */
};

/* Every entry ever given to a log: equal (index, term) means an equal entry after an equal one. */
struct known_entry {
	uint64_t index, term, previous_term; /* index 0: empty slot */
	uint32_t crc;
};

struct checker {
	struct committed *committed; /* committed[index - 1] */
	size_t committed_count, committed_capacity;
	uint64_t *leaders; /* by term */
	size_t leaders_capacity;
	struct known_entry *known; /* open addressing */
	size_t known_count, known_capacity;
	/* Memberships as committed, ascending. */
	struct {
		uint64_t index;
		struct raft_membership membership;
	} memberships[CLUSTER_MEMBERSHIPS_MAX];
	size_t membership_count;
	uint64_t visible; /* highest index that a client has seen acknowledged or read */
};

/* What a seed makes of the group and of its bad luck; chances per million. */
struct profile {
	size_t members;	 /* hosts */
	size_t founders; /* of them, the first ones: the voters at the start */
	uint32_t loss, duplicate, slow;
	uint64_t slow_us_max;
	size_t append_bytes_max;
	unsigned election_ticks, heartbeat_ticks;
	uint64_t fault_ms, fault_pause_ms_max;
	bool crashes, partitions, pauses, disks, disk_errors, transfers, compactions, rot;
	bool trims;	   /* logs are cut while members are away: these need snapshots */
	bool changes;	   /* of membership */
	bool replacements; /* of disks by empty ones */
	uint32_t rot_bits_max;
	bool hard_always;    /* the hard state goes with every round, as the master does it */
	bool leader_crashes; /* soon after each election */
	bool links;          /* partitions are of single links */
	uint64_t propose_us_max;
};

/* A course of its own kind for all seeds; STORM_ANY: every seed chooses. */
enum storm {
	STORM_ANY,
	STORM_LEADERS, /* leaders fall or are cut off right after their election: the neighbourhood of Raft's Figure 8
			*/
	STORM_LINKS,   /* single links are cut: some hear the leader, others do not */
	STORM_DISKS,   /* syncs fail, power is cut, many segments */
	STORM_MEMBERS, /* members come, go, and lose their disks */
	STORM_ROT,     /* bits of logs at rest flip, on one member or on several */
};

struct counts {
	uint64_t proposed, acknowledged, reads, elections, crashes, restarts, torn, cuts, applied, disk_failures,
	    rotten, refused, holes, filled, given_up, mended, changes, snapshots, replaced, strangers, removed;
};

struct cluster {
	struct sim *sim;
	struct rng rng; /* of the schedule */
	struct profile profile;
	struct member members[CLUSTER_MEMBERS_MAX];
	bool cut[CLUSTER_MEMBERS_MAX + 1][CLUSTER_MEMBERS_MAX + 1]; /* from, to */
	bool calm;                                                  /* faults have ended */
	bool quiet;                                                 /* clients, too */
	struct member *replaced;                                    /* whose disk is a new one and not a voter yet */
	struct checker checker;
	struct counts counts;
	uint64_t next_operation;
	uint64_t goal; /* acknowledged operations when the faults ended */
	bool tracing;
	bool failed;
	char failure[256];
};

/* raft_cluster.c */
void cluster_open(struct cluster *cluster, uint64_t seed, enum storm storm, bool tracing);
void cluster_close(struct cluster *cluster);
/* Marks the run as failed; the first failure counts. */
void cluster_fail(struct cluster *cluster, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cluster_trace(struct cluster *cluster, const char *format, ...) __attribute__((format(printf, 2, 3)));
void member_start(struct member *member);
/* The process ends; what its store keeps is chosen as after a kill or a power cut. */
void member_kill(struct member *member);
void member_power_cut(struct member *member);
/* After a host lost its power within a disk operation. */
void member_bury(struct member *member);
/* Does what the core asks for. */
void member_pump(struct member *member);
uint64_t member_now_ms(const struct member *member);
void member_propose(struct member *member);
void member_read(struct member *member);
void member_compact(struct member *member);
bool member_is_running(const struct member *member);
bool cluster_chance(struct cluster *cluster, uint32_t per_million);
uint64_t cluster_between(struct cluster *cluster, uint64_t least, uint64_t most);

/* raft_checker.c */
void check_appended(struct member *member, const struct raft_hard_state *hard, const struct raft_entry *entries,
		    size_t count);
void check_reset(struct member *member, const struct raft_ready *ready);
void check_synced(struct member *member, uint64_t mark, uint64_t index, uint64_t term);
void check_loaded(struct member *member, const struct wal_loaded *loaded);
/* A granted vote leaves the member: from now on it must not be forgotten. */
void check_vote(struct member *member, uint64_t term, uint64_t candidate);
void check_applied(struct member *member, const struct raft_entry *entry, uint64_t term);
void check_leader(struct member *member, const struct raft_view *view);
void check_read(struct member *member);
void checker_deinit(struct checker *checker);

/* The membership as of an index that is committed. */
const struct raft_membership *check_membership_at(const struct checker *checker, uint64_t index, uint64_t *from);

/* raft_operator.c */
struct raft_membership first_membership(const struct cluster *cluster);
/* The core asks for a snapshot: it comes, if all goes well. */
void member_pull(struct member *member, const struct raft_ready *ready);
/* Changes something about who belongs to the group, at random. */
void operator_change(struct cluster *cluster);
/* Carries on what was begun: strangers become learners, learners voters. */
void operator_look(struct cluster *cluster);
/* The member comes back with an empty disk. */
void operator_replace_disk(struct member *member);
/* What nothing but the old bits can help: puts them back. */
void operator_mend(struct cluster *cluster);
void member_unrot(struct member *member);
/* Who leads, in the highest term; NULL. */
struct member *cluster_leader(struct cluster *cluster);

/* raft_faults.c */
void faults_choose(struct cluster *cluster, enum storm storm);
void faults_on_leader(struct member *member);
/* Runs the whole of a seed: faults, then calm, then that everything is there everywhere. */
void cluster_run(struct cluster *cluster);

#endif
