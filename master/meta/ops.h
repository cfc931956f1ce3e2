/* The operations of granary.proto's MetaOp, one function each (see state.h for what they promise). */
#ifndef GRANARY_MASTER_META_OPS_H
#define GRANARY_MASTER_META_OPS_H

#include "master/meta/state.h"

/* X(function, union member, case, type, changes something) */
#define OP_LIST(X)                                                                                                     \
	X(op_lookup, lookup, LOOKUP, Granary__Lookup, false)                                                           \
	X(op_getattr, getattr, GETATTR, Granary__Getattr, false)                                                       \
	X(op_readdir, readdir, READDIR, Granary__Readdir, false)                                                       \
	X(op_get_xattr, get_xattr, GET_XATTR, Granary__GetXattr, false)                                                \
	X(op_list_xattr, list_xattr, LIST_XATTR, Granary__ListXattr, false)                                            \
	X(op_chunk_map, chunk_map, CHUNK_MAP, Granary__ChunkMap, false)                                                \
	X(op_statfs, statfs, STATFS, Granary__StatfsOp, false)                                                         \
	X(op_open, open, OPEN, Granary__Open, false)                                                                   \
	X(op_walk, walk, WALK, Granary__Walk, false)                                                                   \
	X(op_test_lock, test_lock, TEST_LOCK, Granary__TestLock, false)                                                \
	X(op_trash_list, trash_list, TRASH_LIST, Granary__TrashList, false)                                            \
	X(op_create, create, CREATE, Granary__Create, true)                                                            \
	X(op_link, link, LINK, Granary__Link, true)                                                                    \
	X(op_unlink, unlink, UNLINK, Granary__Unlink, true)                                                            \
	X(op_rename, rename, RENAME, Granary__Rename, true)                                                            \
	X(op_setattr, setattr, SETATTR, Granary__Setattr, true)                                                        \
	X(op_set_xattr, set_xattr, SET_XATTR, Granary__SetXattr, true)                                                 \
	X(op_remove_xattr, remove_xattr, REMOVE_XATTR, Granary__RemoveXattr, true)                                     \
	X(op_allocate_chunk, allocate_chunk, ALLOCATE_CHUNK, Granary__AllocateChunk, true)                             \
	X(op_open_pack, open_pack, OPEN_PACK, Granary__OpenPack, true)                                                 \
	X(op_commit_blob, commit_blob, COMMIT_BLOB, Granary__CommitBlob, true)                                         \
	X(op_blob_move, blob_move, BLOB_MOVE, Granary__BlobMove, true)                                                 \
	X(op_commit_chunks, commit_chunks, COMMIT_CHUNKS, Granary__CommitChunks, true)                                 \
	X(op_set_lock, set_lock, SET_LOCK, Granary__SetLock, true)                                                     \
	X(op_undelete, undelete, UNDELETE, Granary__Undelete, true)                                                    \
	X(op_trash_remove, trash_remove, TRASH_REMOVE, Granary__TrashRemove, true)                                     \
	X(op_session_begin, session_begin, SESSION_BEGIN, Granary__SessionBegin, true)                                 \
	X(op_session_end, session_end, SESSION_END, Granary__SessionEnd, true)                                         \
	X(op_server_register, server_register, SERVER_REGISTER, Granary__ServerRegister, true)                         \
	X(op_chunk_change, chunk_change, CHUNK_CHANGE, Granary__ChunkChange, true)                                     \
	X(op_reclaim, reclaim, RECLAIM, Granary__Reclaim, true)                                                        \
	X(op_garbage_done, garbage_done, GARBAGE_DONE, Granary__GarbageDone, true)                                     \
	X(op_cluster_init, cluster_init, CLUSTER_INIT, Granary__ClusterInit, true)                                     \
	X(op_copy_remove, copy_remove, COPY_REMOVE, Granary__CopyRemove, true)                                         \
	X(op_fsck_repair, fsck_repair, FSCK_REPAIR, Granary__FsckRepair, true)                                         \
	X(op_set_class, set_class, SET_CLASS, Granary__SetClass, true)                                                 \
	X(op_set_inode_class, set_inode_class, SET_INODE_CLASS, Granary__SetInodeClass, true)                          \
	X(op_task_run, task_run, TASK_RUN, Granary__TaskRun, true)                                                     \
	X(op_set_settings, set_settings, SET_SETTINGS, Granary__SetSettings, true)                                    \
	X(op_cool_begin, cool_begin, COOL_BEGIN, Granary__CoolBegin, true)                                             \
	X(op_cool_commit, cool_commit, COOL_COMMIT, Granary__CoolCommit, true)                                         \
	X(op_warm_begin, warm_begin, WARM_BEGIN, Granary__WarmBegin, true)                                             \
	X(op_warm_commit, warm_commit, WARM_COMMIT, Granary__WarmCommit, true)                                         \
	X(op_cold_undo, cold_undo, COLD_UNDO, Granary__ColdUndo, true)                                                 \
	X(op_chunk_thaw, chunk_thaw, CHUNK_THAW, Granary__ChunkThaw, true)                                             \
	X(op_shard_rebuild, shard_rebuild, SHARD_REBUILD, Granary__ShardRebuild, true)                                 \
	X(op_server_drain, server_drain, SERVER_DRAIN, Granary__ServerDrain, true)                                     \
	X(op_restore, restore, RESTORE, Granary__Restore, true)

#define X(function, member, name, type, changes)                                                                       \
	enum err function(struct context *context, const type *op, Granary__MetaResult *result);
OP_LIST(X)
#undef X

#endif
