/* Where the chunks are: of one open file by index (chunk_map), of packs by id (packs, in the client).
 *
 * What is found here may be old: the version says so to the chunkserver, which then answers ERR_STALE_VERSION or
 * ERR_NO_CHUNK; the user forgets the place and fetches it anew. */
#ifndef GRANARY_CLIENT_CHUNK_MAP_H
#define GRANARY_CLIENT_CHUNK_MAP_H

#include "client/client_internal.h"

struct chunk_place;
struct chunk_map {
	struct client *client;
	uint64_t inode;
	bool found;	       /* a chunk that another has made was come upon, likewise: it may have made it for nothing yet */
	bool allocated;	       /* a chunk was made since the user cleared this: others may think that there is a hole */
	/* Chunks that have been written and that the master does not know to have content: named by the next CommitChunks. The first
	 * `written_sent` of them are on their way. */
	uint64_t *written;
	uint32_t *written_at; /* their indexes */
	size_t written_count, written_sent, written_capacity;
	uint32_t exists_below; /* chunks at and above this index need not be looked for at the master */
	uint64_t generation;   /* raised by chunk_map_clear: answers that are on their way do not count */
	struct chunk_place *table;
	struct fetch *fetches;
};

void chunk_map_init(struct chunk_map *map, struct client *client, uint64_t inode);
/* No fetch is under way. */
void chunk_map_deinit(struct chunk_map *map);
void chunk_map_clear(struct chunk_map *map);
/* Another client has changed the file: there may be chunks where there were holes. */
void chunk_map_forget_holes(struct chunk_map *map);

/* What is to be named, at most CHUNKS_WRITTEN_MAX of it; it stays as it is until the next call here. */
size_t chunk_map_written_send(struct chunk_map *map, uint64_t **chunks);
/* The master knows those now. */
void chunk_map_written_known(struct chunk_map *map);

/* A place: chunk `index` of a map's file, or a pack. */
struct place {
	struct chunk_map *map;
	uint32_t index;
	bool allocate;  /* make the chunk if it is missing */
	uint64_t pack;  /* with map NULL */
	uint64_t inode; /* with map NULL: one of the pack's blobs, by which the pack is found again; 0: it cannot be */
};

/* NULL: not known. A hole: known to be one (as long as the lease on the attributes that were fetched with it). Valid until the next call here. */
const struct location *place_find(struct client *client, const struct place *place);
void place_forget(struct client *client, const struct place *place);
void place_set(struct client *client, const struct place *place, const struct location *location);
/* A write to this chunk, or an append to the pack, has been acknowledged. */
void place_note_written(struct client *client, const struct place *place, uint64_t chunk);
/* Afterwards place_find finds it, unless err: ERR_STALE_VERSION for a pack that cannot be found. Never calls done from
 * within. */
void place_fetch(struct client *client, const struct place *place, file_io_fn *done, void *arg);

/* Takes over the packs' locations that came with a reply. */
void packs_learn(struct client *client, const Granary__MetaReply *reply);
void packs_deinit(struct client *client);

/* Tells the leader that `server` does not answer for this version of the place. OK: the place has a newer version now.
 * ERR_BUSY: the server may be alive. Requests about the same chunk are put together. The place is to stay until done is called, which
 * is never from within, or until place_unreport. */
void place_report(struct client *client, const struct place *place, uint64_t chunk, uint64_t version, uint64_t server,
		  file_io_fn *done, void *arg);
/* Asks the leader to let the place be written, which is frozen. Otherwise as place_report; ERR_BUSY: not yet. */
void place_warm(struct client *client, const struct place *place, uint64_t chunk, file_io_fn *done, void *arg);
/* Who asked with `arg` about this chunk wants no answer any more; the place may go. */
void place_unreport(struct client *client, uint64_t chunk, const void *arg);
void failures_deinit(struct client *client);

#endif
