/* Cross-check of the state machine's tables against each other, for fsck: in slices, while entries are applied in between.
 *
 * No false alarms: what one key says is compared with others at one applied index, within one slice. Counts over the whole store (names of
 * an inode, blobs of a pack) take many slices: they are compared only where nothing that they count has changed meanwhile
 * (Inode.change rises with each name that comes or goes; a sealed pack has as many live bytes and blobs as before), and tried again where
 * it has.
 *
 *   TABLES each key by itself --> NAMES collect inodes, count names, compare; as often as it takes --> PACKS likewise --> done
 *
 * Memory: CHECK_COUNTED_MAX inodes at a time, and all sealed packs up to that number. */
#ifndef GRANARY_MASTER_META_CHECK_H
#define GRANARY_MASTER_META_CHECK_H

#include "master/meta/meta.h"

/* X(name, wire number, repaired by FsckRepair, text). Never renumber. */
#define CHECK_LIST(X)                                                                                                  \
	X(CHECK_NAME_DANGLING, 1, true, "a name leads to no inode")                                                    \
	X(CHECK_NAME_TYPE, 2, true, "a name has another type than its inode")                                          \
	X(CHECK_NAME_PLACE, 3, false, "a name is in no living directory")                                              \
	X(CHECK_PARENT, 4, true, "a directory has another parent than the one that names it")                          \
	X(CHECK_ENTRIES, 5, true, "a directory counts its names or subdirectories wrongly")                            \
	X(CHECK_XATTRS, 6, true, "an inode counts its attributes wrongly")                                             \
	X(CHECK_CHUNKS, 7, true, "an inode counts its chunks wrongly")                                                 \
	X(CHECK_LINKS, 8, false, "a file has another number of links than names")                                      \
	X(CHECK_NAMELESS, 9, true, "an inode has links but no name")                                                   \
	X(CHECK_UNLINKED, 10, true, "an inode without links is neither an orphan nor in the trash")                    \
	X(CHECK_ORPHAN, 11, true, "an orphan's record has no inode, or one with links")                                \
	X(CHECK_TRASH, 12, true, "an entry of the trash has no inode, or one that is not there")                       \
	X(CHECK_XATTR_DANGLING, 13, true, "an attribute of no inode")                                                  \
	X(CHECK_POINTER, 14, false, "a file points to a chunk that there is not, or that is another's")                \
	X(CHECK_OWNER, 15, false, "a chunk that its file does not point to")                                           \
	X(CHECK_HOLDERS, 16, true, "a chunk and the list of what a server holds disagree")                             \
	X(CHECK_BLOB, 17, false, "a small file's pack is not there")                                                   \
	X(CHECK_PACK, 18, false, "a pack counts its blobs wrongly")                                                    \
	X(CHECK_GARBAGE, 19, false, "a copy that is in use is to be deleted")                                          \
	X(CHECK_REMOVED, 20, false, "a chunk is there that was removed")                                               \
	X(CHECK_SHARD, 21, false, "a cold chunk and its shard disagree")                                               \
	X(CHECK_ERASED, 22, false, "deleted blobs are noted of a pack that is not cold")                                  \
	X(CHECK_TASK, 30, true, "a chunk and its delayed task disagree")                                               \
	X(CHECK_COPY_MISSING, 40, false, "a chunkserver lacks a copy that it should hold")                             \
	X(CHECK_COPY_OLD, 41, false, "a copy is older than its chunk")                                                 \
	X(CHECK_COPY_NEWER, 42, false, "a copy is newer than its chunk: the masters' state is an old one")             \
	X(CHECK_COPY_STRAY, 43, true, "a chunkserver holds an old copy of a chunk that is elsewhere now")              \
	X(CHECK_COPY_ORPHAN, 44, true, "a chunkserver holds a chunk that there is no record of")                       \
	X(CHECK_CHUNK_LOST, 45, false, "no chunkserver holds a chunk that a file has")                                 \
	X(CHECK_COPY_RETIRED, 46, false, "a copy that should serve has been retired")                                  \
	X(CHECK_COPY_LAST, 47, false, "only a retired copy of a chunk is left: it may lack what was written last")

enum check_kind {
	CHECK_NONE = 0,
#define X(name, number, repaired, text) name = number,
	CHECK_LIST(X)
#undef X
};
#define CHECK_KINDS_MAX 64u

/* NULL for a number that is unknown here. */
const char *check_text(unsigned kind);
bool check_is_repaired(unsigned kind);

struct check_finding {
	enum check_kind kind;
	uint64_t id;	/* inode, chunk, directory, or entry of the trash */
	uint64_t other; /* inode of a name, server, chunk of an inode, what was counted, when a task is due; Inode.change of CHECK_NAMELESS */
};
typedef void check_fn(void *arg, const struct check_finding *finding);

struct check;

struct check *check_open(struct meta *meta);
void check_close(struct check *check);
/* Looks at so many keys, or some more. *end: all is done. `fn` gets what is wrong; it may not use the meta. */
MUST_USE enum err check_run(struct check *check, size_t keys_max, check_fn *fn, void *arg, bool *end);
/* How much is done, in 1/1000. */
unsigned check_progress(const struct check *check);
/* What changed too often to be decided. */
uint64_t check_undecided(const struct check *check);

#endif
