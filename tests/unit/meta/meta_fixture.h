/* A state machine on a real store in a temporary folder, and a function for each operation: they apply one entry with
 * one request and return the operation's error; the rest of the answer is in fixture->result until the next one. */
#ifndef GRANARY_TESTS_UNIT_META_META_FIXTURE_H
#define GRANARY_TESTS_UNIT_META_META_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/lock.h"
#include "common/proto/mode.h"
#include "common/proto/setattr.h"
#include "common/sys/file.h"
#include "master/meta/meta.h"

#define ROOT META_ROOT_INODE
#define SECOND 1000000000ull

struct fixture {
	struct loop *loop;
	struct kv *kv;
	struct meta *meta;
	char folder[64];
	uint64_t time_ns;
	uint64_t next_id;
	uint64_t session;
	uint64_t sequence;                 /* of slot 0 of `session` */
	uint64_t sequences[SESSION_SLOTS]; /* of slots of other sessions, for tests that use them */
	Granary__MetaReply *reply;
	const Granary__MetaResult *result; /* of the last operation */
	struct meta_effects effects;
};

static inline void fixture_reopen(struct fixture *fixture)
{
	message_unref(fixture->reply ? &fixture->reply->base : NULL);
	fixture->reply = NULL;
	meta_close(fixture->meta);
	if (fixture->kv)
		kv_close(fixture->kv);
	char path[96];
	snprintf(path, sizeof(path), "%s/kv", fixture->folder);
	check(kv_open(fixture->loop, path, NULL, &fixture->kv) == OK);
	check(meta_open(fixture->kv, &fixture->meta) == OK);
}

/* MESSAGE leaves texts that are not given NULL. */
static inline void fixture_complete(Granary__MetaOp *op)
{
	char *none = (char *)(uintptr_t)protobuf_c_empty_string;
	if (op->op_case == GRANARY__META_OP__OP_CREATE && !op->create->class_)
		op->create->class_ = none;
	if (op->op_case == GRANARY__META_OP__OP_OPEN_PACK && !op->open_pack->class_)
		op->open_pack->class_ = none;
}

/* Applies the entry; replies as meta_apply. */
static inline void fixture_apply(struct fixture *fixture, Granary__MetaRequest **requests, size_t count,
				 Granary__MetaReply **replies)
{
	Granary__LogEntry entry = GRANARY__LOG_ENTRY__INIT;
	fixture->time_ns += SECOND;
	entry.time_ns = fixture->time_ns;
	entry.requests = requests;
	entry.n_requests = count;
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < requests[i]->n_ops; k++)
			fixture_complete(requests[i]->ops[k]);
	enum err err =
	    meta_apply(fixture->meta, meta_applied_index(fixture->meta) + 1, 1, &entry, replies, &fixture->effects);
	check(err == OK);
}

static inline void fixture_keep(struct fixture *fixture, Granary__MetaReply *reply)
{
	message_unref(fixture->reply ? &fixture->reply->base : NULL);
	fixture->reply = reply;
	fixture->result = reply->n_results > 0 ? reply->results[reply->n_results - 1] : NULL;
}

/* Operations of one request, by `session` (0: the master itself) with its slot's next sequence. */
static inline enum err fixture_request(struct fixture *fixture, uint64_t session, Granary__MetaOp **ops, size_t count)
{
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaRequest *requests[1] = {&request};
	Granary__MetaReply *reply = NULL;
	request.ops = ops;
	request.n_ops = count;
	request.session = session;
	if (meta_is_query(&request)) {
		check(meta_query(fixture->meta, &request, &reply) == OK);
	} else {
		if (session)
			request.sequence = ++fixture->sequence;
		fixture_apply(fixture, requests, 1, &reply);
	}
	fixture_keep(fixture, reply);
	return (enum err)fixture->result->error;
}

static inline enum err fixture_run(struct fixture *fixture, uint64_t session, Granary__MetaOp *op)
{
	return fixture_request(fixture, session, &op, 1);
}

static inline ProtobufCBinaryData text(const char *string)
{
	return message_borrow(slice_text(string));
}

/* One function for each operation that takes its message: OP(create, CREATE, Create) makes run_create. */
#define OP(member, name, type)                                                                                         \
	static inline enum err run_##member(struct fixture *fixture, Granary__##type message)                          \
	{                                                                                                              \
		Granary__MetaOp op = GRANARY__META_OP__INIT;                                                           \
		op.op_case = GRANARY__META_OP__OP_##name;                                                              \
		op.member = &message;                                                                                  \
		return fixture_run(fixture, fixture->session, &op);                                                    \
	}
OP(lookup, LOOKUP, Lookup)
OP(getattr, GETATTR, Getattr)
OP(readdir, READDIR, Readdir)
OP(get_xattr, GET_XATTR, GetXattr)
OP(list_xattr, LIST_XATTR, ListXattr)
OP(chunk_map, CHUNK_MAP, ChunkMap)
OP(statfs, STATFS, StatfsOp)
OP(open, OPEN, Open)
OP(walk, WALK, Walk)
OP(test_lock, TEST_LOCK, TestLock)
OP(create, CREATE, Create)
OP(link, LINK, Link)
OP(unlink, UNLINK, Unlink)
OP(rename, RENAME, Rename)
OP(setattr, SETATTR, Setattr)
OP(set_xattr, SET_XATTR, SetXattr)
OP(remove_xattr, REMOVE_XATTR, RemoveXattr)
OP(allocate_chunk, ALLOCATE_CHUNK, AllocateChunk)
OP(open_pack, OPEN_PACK, OpenPack)
OP(commit_blob, COMMIT_BLOB, CommitBlob)
OP(commit_chunks, COMMIT_CHUNKS, CommitChunks)
OP(set_lock, SET_LOCK, SetLock)
OP(set_inode_class, SET_INODE_CLASS, SetInodeClass)
OP(trash_list, TRASH_LIST, TrashList)
OP(undelete, UNDELETE, Undelete)
#undef OP
#define OP(member, name, type)                                                                                         \
	static inline enum err run_##member(struct fixture *fixture, Granary__##type message)                          \
	{                                                                                                              \
		Granary__MetaOp op = GRANARY__META_OP__INIT;                                                           \
		op.op_case = GRANARY__META_OP__OP_##name;                                                              \
		op.member = &message;                                                                                  \
		return fixture_run(fixture, 0, &op);                                                                   \
	}
OP(session_begin, SESSION_BEGIN, SessionBegin)
OP(session_end, SESSION_END, SessionEnd)
OP(server_register, SERVER_REGISTER, ServerRegister)
OP(server_drain, SERVER_DRAIN, ServerDrain)
OP(chunk_change, CHUNK_CHANGE, ChunkChange)
OP(reclaim, RECLAIM, Reclaim)
OP(garbage_done, GARBAGE_DONE, GarbageDone)
OP(cluster_init, CLUSTER_INIT, ClusterInit)
OP(set_settings, SET_SETTINGS, SetSettings)
OP(set_class, SET_CLASS, SetClass)
OP(task_run, TASK_RUN, TaskRun)
OP(trash_remove, TRASH_REMOVE, TrashRemove)
OP(copy_remove, COPY_REMOVE, CopyRemove)
OP(fsck_repair, FSCK_REPAIR, FsckRepair)
OP(cool_begin, COOL_BEGIN, CoolBegin)
OP(cool_commit, COOL_COMMIT, CoolCommit)
OP(warm_begin, WARM_BEGIN, WarmBegin)
OP(warm_commit, WARM_COMMIT, WarmCommit)
OP(cold_undo, COLD_UNDO, ColdUndo)
OP(chunk_thaw, CHUNK_THAW, ChunkThaw)
OP(shard_rebuild, SHARD_REBUILD, ShardRebuild)
OP(blob_move, BLOB_MOVE, BlobMove)
#undef OP

/* A message with fields set: MESSAGE(granary__lookup, Lookup, .parent = 1). */
#define MESSAGE(type, lower, ...)                                                                                      \
	((Granary__##type){.base = PROTOBUF_C_MESSAGE_INIT(&granary__##lower##__descriptor), __VA_ARGS__})

static inline uint64_t session_begin(struct fixture *fixture)
{
	uint64_t id = fixture->next_id++;
	Granary__SessionBegin begin = GRANARY__SESSION_BEGIN__INIT;
	begin.id = id;
	begin.client = (char *)(uintptr_t) "test:1";
	check(run_session_begin(fixture, begin) == OK);
	return id;
}

static inline enum err session_end(struct fixture *fixture, uint64_t session)
{
	return run_session_end(fixture, MESSAGE(SessionEnd, session_end, .session = session));
}

/* As stored: 0 for the default, UINT64_MAX for none. */
static inline void trash_keep(struct fixture *fixture, uint64_t seconds)
{
	Granary__Settings settings = *meta_settings(fixture->meta);
	settings.trash_seconds = seconds;
	check(run_set_settings(fixture, MESSAGE(SetSettings, set_settings, .settings = &settings)) == OK);
}

static inline void server_add(struct fixture *fixture, uint64_t id)
{
	char address[32], host[32];
	snprintf(address, sizeof(address), "127.0.0.1:%u", 7000u + (unsigned)id);
	snprintf(host, sizeof(host), "host%u", (unsigned)id);
	Granary__ServerRegister server = GRANARY__SERVER_REGISTER__INIT;
	server.server = id;
	server.address = address;
	server.host = host;
	check(run_server_register(fixture, server) == OK);
}

static inline void fixture_open(struct fixture *fixture)
{
	*fixture = (struct fixture){.time_ns = 1000 * SECOND, .next_id = 100};
	check(loop_open(&fixture->loop) == OK);
	snprintf(fixture->folder, sizeof(fixture->folder), "/tmp/granary-test-meta-XXXXXX");
	check(mkdtemp(fixture->folder) != NULL);
	fixture_reopen(fixture);
	check(run_cluster_init(fixture, MESSAGE(ClusterInit, cluster_init, .cluster = 77)) == OK);
	for (uint64_t id = 1; id <= 4; id++)
		server_add(fixture, id);
	fixture->session = session_begin(fixture);
	/* What is removed is gone, where a test does not say otherwise. */
	trash_keep(fixture, UINT64_MAX);
}

static inline bool fixture_remove_file(void *arg, const char *name)
{
	char path[160];
	const struct fixture *fixture = arg;
	snprintf(path, sizeof(path), "%s/kv/%s", fixture->folder, name);
	unlink(path);
	return true;
}

static inline void fixture_close(struct fixture *fixture)
{
	message_unref(fixture->reply ? &fixture->reply->base : NULL);
	meta_close(fixture->meta);
	kv_close(fixture->kv);
	char path[96];
	snprintf(path, sizeof(path), "%s/kv", fixture->folder);
	check(dir_list(fixture->loop, path, fixture_remove_file, fixture) == OK);
	rmdir(path);
	rmdir(fixture->folder);
	loop_close(fixture->loop);
}

/* ---- shorthands */

static inline enum err make(struct fixture *fixture, uint64_t parent, const char *name, uint32_t mode)
{
	return run_create(fixture, MESSAGE(Create, create, .parent = parent, .name = text(name), .mode = mode,
					   .uid = 1000, .gid = 1000, .exclusive = true, .id = fixture->next_id++));
}

static inline uint64_t made(struct fixture *fixture, uint64_t parent, const char *name, uint32_t mode)
{
	enum err err = make(fixture, parent, name, mode);
	if (err)
		fail_msg("create %s: %s", name, err_name(err));
	return fixture->result->inode;
}

static inline uint64_t made_file(struct fixture *fixture, uint64_t parent, const char *name)
{
	return made(fixture, parent, name, MODE_FILE | 0644);
}

static inline uint64_t made_dir(struct fixture *fixture, uint64_t parent, const char *name)
{
	return made(fixture, parent, name, MODE_DIRECTORY | 0755);
}

static inline enum err make_symlink(struct fixture *fixture, uint64_t parent, const char *name, const char *target)
{
	return run_create(fixture,
			  MESSAGE(Create, create, .parent = parent, .name = text(name), .mode = MODE_SYMLINK | 0777,
				  .symlink = text(target), .exclusive = true, .id = fixture->next_id++));
}

static inline enum err lookup(struct fixture *fixture, uint64_t parent, const char *name)
{
	return run_lookup(fixture, MESSAGE(Lookup, lookup, .parent = parent, .name = text(name)));
}

static inline uint64_t found(struct fixture *fixture, uint64_t parent, const char *name)
{
	return lookup(fixture, parent, name) == OK ? fixture->result->inode : 0;
}

/* Borrowed until the next operation. Fails the test when the inode is not there. */
static inline const Granary__Inode *attr(struct fixture *fixture, uint64_t inode)
{
	if (run_getattr(fixture, MESSAGE(Getattr, getattr, .inode = inode)) != OK)
		fail_msg("no inode %llu", (unsigned long long)inode);
	return fixture->result->attr;
}

static inline enum err remove_file(struct fixture *fixture, uint64_t parent, const char *name)
{
	return run_unlink(fixture, MESSAGE(Unlink, unlink, .parent = parent, .name = text(name)));
}

static inline enum err remove_dir(struct fixture *fixture, uint64_t parent, const char *name)
{
	return run_unlink(fixture, MESSAGE(Unlink, unlink, .parent = parent, .name = text(name), .directory = true));
}

static inline enum err move(struct fixture *fixture, uint64_t parent, const char *name, uint64_t new_parent,
			    const char *new_name)
{
	return run_rename(fixture, MESSAGE(Rename, rename, .parent = parent, .name = text(name),
					   .new_parent = new_parent, .new_name = text(new_name)));
}

static inline enum err hard_link(struct fixture *fixture, uint64_t inode, uint64_t parent, const char *name)
{
	return run_link(fixture, MESSAGE(Link, link, .inode = inode, .parent = parent, .name = text(name)));
}

static inline enum err truncate_to(struct fixture *fixture, uint64_t inode, uint64_t size)
{
	return run_setattr(fixture, MESSAGE(Setattr, setattr, .inode = inode, .mask = SETATTR_SIZE, .size = size));
}

static inline enum err reclaim(struct fixture *fixture, uint64_t inode)
{
	return run_reclaim(fixture, MESSAGE(Reclaim, reclaim, .n_inodes = 1, .inodes = &inode));
}

/* The chunk's id in *chunk. */
static inline enum err allocate(struct fixture *fixture, uint64_t inode, uint32_t index, uint64_t *chunk)
{
	uint64_t replicas[3] = {1, 2, 3};
	enum err err =
	    run_allocate_chunk(fixture, MESSAGE(AllocateChunk, allocate_chunk, .inode = inode, .index = index,
						.id = fixture->next_id++, .replicas = replicas, .n_replicas = 3));
	if (chunk)
		*chunk = err == OK ? fixture->result->chunks[0]->chunk : 0;
	return err;
}

static inline uint64_t opened_pack(struct fixture *fixture, uint64_t full)
{
	uint64_t replicas[3] = {2, 3, 4};
	check(run_open_pack(fixture, MESSAGE(OpenPack, open_pack, .full = full, .id = fixture->next_id++,
					     .replicas = replicas, .n_replicas = 3)) == OK);
	check(fixture->result->n_chunks == 1);
	return fixture->result->chunks[0]->chunk;
}

static inline enum err commit_blob(struct fixture *fixture, uint64_t inode, uint64_t pack, uint32_t slot,
				   uint32_t bytes)
{
	return run_commit_blob(
	    fixture, MESSAGE(CommitBlob, commit_blob, .inode = inode, .pack = pack, .slot = slot, .bytes = bytes));
}

#endif
