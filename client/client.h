/* The asynchronous client under granary.h and the mount: one loop, no threads, no blocking.
 *
 * Layers: session (master connection, request slots, retries, recalls) -> file_io (data of one inode). Programs see
 * only this header and granary.h. Every call ends in exactly one call of `done`, never from within the call itself,
 * after timeout_ms at the latest. */
#ifndef GRANARY_CLIENT_CLIENT_H
#define GRANARY_CLIENT_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/proto/message.h"
#include "common/sys/loop.h"

struct client;
struct file_io;

struct client_events {
	/* A cached name (name not empty: in directory `inode`) or inode is no longer valid. `done(done_arg)` once
	 * nothing of it is cached; the master holds the other client back until then, at most CACHE_LEASE_MS. NULL:
	 * nothing is cached. */
	void (*invalidate)(void *arg, uint64_t inode, struct slice name, void (*done)(void *done_arg), void *done_arg);
	/* The session was lost (expired): locks are gone, all caches are to be dropped. */
	void (*session_lost)(void *arg);
};

struct client_options {
	const char *cluster;                /* "host:port,host:port", copied */
	uint64_t timeout_ms;                /* 0: CLIENT_TIMEOUT_MS */
	bool undelegated;		    /* no change of a name is answered before the masters have it */
	const struct client_events *events; /* or NULL */
	void *events_arg;
	bool no_session; /* only client_call_leader and client_call_address are used: the master need not know of us */
};

/* Finds "host:port,…" as the interface page says: `cluster`, $GRANARY_CLUSTER, `config`, $GRANARY_CONFIG,
 * ~/.config/granary/client.conf, /etc/granary/client.conf (key `cluster`). ERR_NOT_FOUND: none is set. */
MUST_USE enum err client_find_cluster(struct loop *loop, const char *cluster, const char *config, struct buf *out);

/* Returns at once; calls wait for the session. */
MUST_USE enum err client_open(struct loop *loop, const struct client_options *options, struct client **out);
/* Ends calls with ERR_CANCELLED. Buffered data is lost: flush first. */
void client_close(struct client *client);
/* Before client_close, once nothing is under way: ends the session at the master, too, so that other clients do not
 * wait for what this one might still cache. done within half a second whether or not the master answers. */
void client_leave(struct client *client, void (*done)(void *arg), void *arg);
/* ERR_NO_LEADER, ERR_UNREACHABLE: why nothing answers at the moment; OK once a leader has answered. */
enum err client_state(const struct client *client);
/* When a chunkserver last stored or gave data, on the loop's clock; 0: never. */
uint64_t client_answered_ms(const struct client *client);
struct loop *client_loop(struct client *client);
uint64_t client_session(const struct client *client);

/* A namespace request of up to META_OPS_PER_BATCH_MAX operations, in one frame. The ops are packed before the call
 * returns. err is about the request as a whole; each result has an error of its own. reply is valid for the call
 * (message_ref keeps it). */
typedef void client_meta_fn(void *arg, enum err err, const Granary__MetaReply *reply);
void client_meta(struct client *client, Granary__MetaOp *const *ops, size_t op_count, client_meta_fn *done, void *arg);

/* Any other request to the leader (status, admin): retried like the above. */
typedef void client_reply_fn(void *arg, enum err err, const ProtobufCMessage *reply);
void client_call_leader(struct client *client, enum message_type type, const ProtobufCMessage *message,
			client_reply_fn *done, void *arg);
/* One call to a given process ("host:port"), no retries. */
void client_call_address(struct client *client, const char *address, enum message_type type,
			 const ProtobufCMessage *message, client_reply_fn *done, void *arg);

/* The inode is in use by this client (after an Open operation) / no longer: told to the master in the next keepalive
 * and again to each new leader. Counted. */
void client_note_opened(struct client *client, uint64_t inode);
void client_note_closed(struct client *client, uint64_t inode);

/* The data of one inode, shared by all its handles in this process. Holds what was written and is not yet flushed: a
 * small file (<= BLOB_BYTES_MAX) whole, to become a blob when flushed; a larger one streams to its chunks. */
typedef void file_io_fn(void *arg, enum err err);
typedef void file_io_read_fn(void *arg, enum err err, const struct slice *parts, size_t part_count);

/* attr as of Open, Create or Getattr. Counted per inode: the same struct for the same inode. */
struct file_io *file_io_open(struct client *client, uint64_t inode, const Granary__Inode *attr);
/* The same with an attr from an answer that was kept: its lease runs since it was asked for. */
struct file_io *file_io_open_known(struct client *client, uint64_t inode, const Granary__Inode *attr, uint64_t asked_ms);
/* One reference more. Other than opening it again with its own attr, this is not taken for news from the master. */
struct file_io *file_io_ref(struct file_io *io);
/* With the last reference what is not flushed is dropped. */
void file_io_close(struct file_io *io);
/* A newer attr came from the master (lookup, getattr, open, commit): size and layout are taken unless data is
 * unflushed. */
void file_io_update(struct file_io *io, const Granary__Inode *attr);
/* attr as it is with what is buffered: size, mtime. */
const Granary__Inode *file_io_attr(const struct file_io *io);
bool file_io_dirty(const struct file_io *io);

/* parts are in order and valid for the call, their sizes add up to min(size, end of file - offset); holes are zeros.
 * Sees what was written here before. */
void file_io_read(struct file_io *io, uint64_t offset, size_t size, file_io_read_fn *done, void *arg);
/* It will be read from its beginning: a small file is fetched, and kept until it is read or closed. Or nothing is done. */
void file_io_read_ahead(struct file_io *io);
/* The bytes are copied before it returns; done when accepted (at once below CLIENT_DIRTY_BYTES_MAX). An
 * error that comes later is reported by the next flush or sync, once. */
void file_io_write(struct file_io *io, uint64_t offset, struct slice bytes, file_io_fn *done, void *arg);
/* The same of bytes in several places, one after another in the file. What lies in an iobuf (NULL: it does not) may be
 * referenced instead of copied: then it does not change as long as others have references. */
struct file_part {
	struct slice bytes;
	struct iobuf *iobuf;
};
void file_io_write_parts(struct file_io *io, uint64_t offset, const struct file_part *parts, size_t count, file_io_fn *done,
			 void *arg);
/* Copies without the bytes leaving here, as a read of one and a write of the other would. copied is less than size at the end
 * of `from`, and where an error came after some bytes. Of one file the ranges do not overlap. */
typedef void file_io_copy_fn(void *arg, enum err err, uint64_t copied);
void file_io_copy(struct file_io *from, uint64_t from_offset, struct file_io *to, uint64_t to_offset, uint64_t size,
		  file_io_copy_fn *done, void *arg);
/* mtime and atime to be stored with the next flush (0: none). */
void file_io_set_times(struct file_io *io, int64_t atime, int64_t mtime);
/* All that was written is at every replica and the metadata is committed: others that open the file see it. */
void file_io_flush(struct file_io *io, file_io_fn *done, void *arg);
/* As flush, and on the disks of every replica. */
void file_io_sync(struct file_io *io, file_io_fn *done, void *arg);
void file_io_truncate(struct file_io *io, uint64_t size, file_io_fn *done, void *arg);

/* ---- Files that this client makes by itself (creations.h): in a directory that the master has delegated to it a new file is there at
 * once, and the master is told when it is flushed, together with its content. What is said of such a file is answered here. */

/* How long names in the directory may be made, and cached by the kernel; 0: not delegated. */
uint32_t client_delegation_ms(struct client *client, uint64_t directory);
/* Whether it has been delegated since before then: what was known of its names then, and what we have done to them, holds. */
bool client_is_delegated_since(struct client *client, uint64_t directory, uint64_t when_ms);
/* NULL: not now; make it with a Create. Otherwise the file, with a reference of the caller's. The name is known to be free. */
struct file_io *file_io_create_local(struct client *client, const Granary__Create *create);
/* The master does not know it yet. */
bool file_io_is_local(const struct file_io *io);
/* Inode.data_change as this client's last change of the content left it; 0: there was none. Changes of the times only do not count:
 * what they are answered with may tell of another client's content. */
uint64_t file_io_own_change(const struct file_io *io);
uint64_t file_io_inode(const struct file_io *io);
/* How long attributes of a local file may be cached by the kernel: they are called back as those of other files (client_events) when
 * the master knows it, and has given no lease on it. 0: not at all. */
uint32_t file_io_local_ms(const struct file_io *io);
/* Changes mode, owner and times of a local file; false: not local any more, or just being sent. */
bool file_io_setattr_local(struct file_io *io, const Granary__Setattr *change);
/* A local file is complete (closed): flushed soon. done (or NULL) when it is, or has failed. */
void file_io_flush_behind(struct file_io *io, file_io_fn *done, void *arg);
/* When it is closed, what it holds may be flushed behind: others see the file only after that. False: also when so many files are
 * local that closing should wait, or the directory is being taken back, or it is larger than a blob, or there is no room. */
bool file_io_may_be_behind(struct file_io *io);
/* It was flushed behind, and there was no room: what was written can be read here, and is stored when there is. Until then the
 * content does not change (ERR_NO_SPACE), but it may be cut. Others see an empty file. */
bool file_io_is_stranded(const struct file_io *io);
/* The local file of that name, or NULL. */
struct file_io *client_find_local(struct client *client, uint64_t directory, struct slice name);
/* There is certainly no such name. */
bool client_knows_absent(struct client *client, uint64_t directory, struct slice name);
/* A change that concerns the inode is on its way (changes.h). */
bool client_is_changing(struct client *client, uint64_t inode);
/* As client_knows_absent: a change that removes it is on its way. */
bool client_name_is_removed(struct client *client, uint64_t directory, struct slice name);
/* What is local in the directory, or concerns the inode (0: everything), is sent to the master; false: there is nothing, and done
 * is not called. */
bool client_barrier(struct client *client, uint64_t inode, void (*done)(void *arg), void *arg);
/* A delegated directory's attributes as the master knows them: NULL when not known. Learnt from a Getattr that was sent when
 * client_directory_epoch was this. touched: when the last local file was made in it; 0: none. */
const Granary__Inode *client_directory_attr(struct client *client, uint64_t directory);
uint64_t client_directory_epoch(struct client *client, uint64_t directory);
void client_directory_learn(struct client *client, uint64_t directory, uint64_t epoch, const Granary__Inode *attr);
int64_t client_directory_touched(struct client *client, uint64_t directory);

/* ---- Other changes in delegated directories (changes.h): false: not now, send a request. Otherwise it is as good as done. All
 * names are known to be what the message says; its time is set. done (or NULL) with the master's answer to it. */
typedef void client_change_fn(void *arg, enum err err, const Granary__MetaResult *result);

/* Anything but a file with data. Sets create's id and time, and attr, whose symlink is create's. */
bool client_make(struct client *client, Granary__Create *create, Granary__Inode *attr);
/* unlink->inode is set. Of a directory: only if it is delegated, too, and known to be empty. */
bool client_unlink(struct client *client, Granary__Unlink *unlink, client_change_fn *done, void *arg);
/* rename->inode and ->replaced are set; neither is a directory, but for one that stays in its directory and replaces nothing. */
bool client_rename(struct client *client, Granary__Rename *rename, client_change_fn *done, void *arg);
/* The attributes are then those of client_directory_attr. */
bool client_setattr_directory(struct client *client, Granary__Setattr *setattr);

#endif
