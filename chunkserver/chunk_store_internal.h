/* What the parts of the store share: chunk_store.c, chunk_open.c, chunk_delete.c. Only for them. */
#ifndef GRANARY_CHUNKSERVER_CHUNK_STORE_INTERNAL_H
#define GRANARY_CHUNKSERVER_CHUNK_STORE_INTERNAL_H

#include "chunkserver/chunk_store.h"
#include "chunkserver/disk_health.h"
#include "chunkserver/intents.h"
#include "chunkserver/write_log.h"

#define DELETED_REMEMBERED 256u
#define MISSED_REMEMBERED 64u

struct chunk_store {
	struct loop *loop;
	struct store_files files;
	struct chunk_index index;
	struct intents intents;
	struct write_log writes;
	const struct chunk_store_events *events;
	void *arg;
	struct chunk *chunks; /* open, by id */
	struct chunk *oldest; /* list by last use: oldest first, linked by `newer` (DL_FOREACH2) */
	uint32_t open_count;
	uint64_t forgotten_ms; /* operations that were sent first before this may have been done in chunks that are not open (op_ring.h) */
	uint32_t works; /* under way */
	void (*closed)(void *arg);
	void *closed_arg;
	uint64_t boot;
	uint64_t reserved_bytes;
	struct disk_space space;
	uint64_t space_asked_ms;
	bool failed;
	bool closing;
	char reason[48]; /* of the failure */
	struct disk_health health;
	struct work look, probe, note; /* disk_watch.c */
	bool looking, probing, noting;
	uint64_t look_ms, probe_ms;
	enum err look_err, probe_err;
	uint64_t note_id;
	bool idle; /* nobody gives it anything to do: it is probed */
	/* Lately: a write that comes late, of this version or before it, does not make them anew. */
	struct {
		uint64_t id, version;
	} deleted[DELETED_REMEMBERED];
	unsigned deleted_next;
	struct deleting *deletings; /* files that are going; chunk_delete.c */
	uint64_t missed[MISSED_REMEMBERED]; /* chunks that a writer says have content, and that are not here */
	unsigned missed_next;
	uint64_t *marked; /* by a former life, or with damage, not yet looked at; from the back */
	size_t marked_count, marked_capacity;
	struct chunk *checking; /* opened only to be checked */
	uint64_t uncertain; /* marks of other lives of the machine, and of nothing */
	bool uncertain_changed;
	uint64_t relisted_ms; /* when marks and damage were last looked through for what is left */
	uint64_t damage_found, damage_repaired, damage_lost;
};

/* chunk_open.c. What chunk_store_get does for one that is not open. */
MUST_USE enum err chunk_open_create(struct chunk_store *store, uint64_t id, const struct chunk_create *create, struct chunk **out);
/* Takes the location. */
void chunk_open_start(struct chunk_store *store, Granary__ChunkLocation *location, struct chunk **out);

/* chunk_store.c. Closes and frees an open chunk that nobody uses. */
void chunk_store_forget(struct chunk *chunk);

/* chunk_delete.c: the file of such a chunk is just being deleted. */
bool chunk_store_deletes(const struct chunk_store *store, uint64_t id);

#endif
