/* The Raft log in memory: entries with their payloads in one array, from `first` on.
 *
 * Pure. Payloads are copied in and owned by the log. An entry's address is valid until the log changes.
 *
 * Three indexes besides the ends:
 *   given      handed out to be written (raft_ready); entries above it are new
 *   persisted  known to be durable here (holes: their identity); persisted <= given <= last
 *   floor      a term: completions of entries of lower terms are not believed. Entries that were given and then
 *              overwritten may be given a second time (a deposed leader's suffix may return with a later leader), so
 *              that (index, term) of a late completion does not say which of the two writes it was. But an entry of
 *              the term that caused the overwriting is new with it: its completion covers everything before. */
#ifndef GRANARY_MASTER_RAFT_RAFT_LOG_H
#define GRANARY_MASTER_RAFT_RAFT_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "master/raft/raft.h"

struct raft_log {
	struct raft_entry *entries; /* entries[head] has index `first` */
	size_t head, count, capacity;
	uint64_t first;
	uint64_t previous_term; /* of entry first - 1; 0 when there is none */
	uint64_t given;
	uint64_t persisted;
	uint64_t floor;
	uint64_t bytes; /* of all payloads */
	size_t hole_count;
	uint64_t hole_first, hole_last; /* of the damaged entries, when there are some */
};

void raft_log_init(struct raft_log *log, uint64_t first, uint64_t previous_term);
void raft_log_deinit(struct raft_log *log);
/* The last index; first - 1 when empty. */
uint64_t raft_log_last(const struct raft_log *log);
uint64_t raft_log_last_term(const struct raft_log *log);
/* The term of entry `index`, also of first - 1. False when it is not known here. */
bool raft_log_term(const struct raft_log *log, uint64_t index, uint64_t *term);
/* Whether the entry at `index` is known and of `term`. */
bool raft_log_matches(const struct raft_log *log, uint64_t index, uint64_t term);
const struct raft_entry *raft_log_at(const struct raft_log *log, uint64_t index);
/* Appends a copy after the last entry. */
void raft_log_append(struct raft_log *log, uint64_t term, enum raft_entry_kind kind, struct slice payload);
/* The same without the payload: it is lost here. */
void raft_log_append_hole(struct raft_log *log, uint64_t term, enum raft_entry_kind kind);
/* Gives the damaged entry at `index` its payload. */
void raft_log_fill(struct raft_log *log, uint64_t index, enum raft_entry_kind kind, struct slice payload);
/* The first damaged entry above `above`; 0: none. */
uint64_t raft_log_hole(const struct raft_log *log, uint64_t above);
/* Forgets entries from `index` to the end; term_now: of the leader whose entries take their place. */
void raft_log_truncate(struct raft_log *log, uint64_t index, uint64_t term_now);
/* Forgets entries below `index`, which is at most last + 1. */
void raft_log_compact(struct raft_log *log, uint64_t index);
/* The highest index known, at most `index`, whose term is at most `term`: where two logs may agree at best. */
uint64_t raft_log_agree(const struct raft_log *log, uint64_t index, uint64_t term);
/* A completion. True: `persisted` has grown. */
bool raft_log_persisted(struct raft_log *log, uint64_t index, uint64_t term);

#endif
