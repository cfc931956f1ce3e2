/* One mount: the session with the kernel, the client of the cluster, and what both know of each other.
 *
 * Everything happens on the one loop: /dev/fuse is read there, requests turn into asynchronous calls of the client, and
 * replies are written when those end. The only things that run elsewhere are notifications to the kernel (recall.h),
 * which may block until the kernel has our reply to something else. So there is no lock in this folder. */
#ifndef GRANARY_FUSE_MOUNT_H
#define GRANARY_FUSE_MOUNT_H

#include "client/client.h"
#include "common/base/limits.h"
#include "common/sys/loop.h"
#include "fuse/ahead.h"
#include "fuse/fuse_api.h"
#include "fuse/handles.h"

#define MOUNT_IO_BYTES_MAX (1024u * 1024u) /* one read or write of the kernel */
#define MOUNT_IO_PARTS (MOUNT_IO_BYTES_MAX / FRAME_DATA_BYTES_MAX)
#define MOUNT_READAHEAD_BYTES (4u * MOUNT_IO_BYTES_MAX)
#define MOUNT_REQUESTS_PER_TURN 64u	   /* read from the kernel before the loop looks at anything else */
#define MOUNT_INTERRUPT_MS 3000u	   /* a caught signal ends a wait for the cluster after so long */
#define MOUNT_BACKGROUND_MAX 48u	   /* readahead and writeback requests that the kernel may have outstanding */

struct dir_handle;
struct request;
struct notice;

struct mount {
	struct loop *loop;
	struct client *client;
	struct fuse_session *session;
	struct iobuf *received[MOUNT_IO_PARTS]; /* data of the write that is being handled, in order */
	struct handles handles;
	/* Raised by every recall and every change of ours: attributes that were fetched ahead before it are not used. */
	uint64_t epoch;
	/* Requests and jobs under way: the process does not end before they have. */
	uint64_t busy;
	struct ahead ahead;
	struct dir_handle *dirs;     /* ops_dir.c: open directories, */
	struct dir_handle *kept_dir; /* and the last one that was closed */
	struct notice *notices; /* not yet acknowledged to the master */
	struct notice *waiting_first, *waiting_last; /* for a worker */
	uint32_t notices_running;
	uint64_t unique;	/* the kernel's number of the request that is being handled */
	struct request *requests; /* patience.h: those that somebody waits for */
	struct timer sweep;
	uint64_t timeout_ms;
	uint64_t away_ms; /* when data was last not to be had in time */
	bool initialised;	/* the kernel's INIT has been answered */
	/* privileges.h */
	uint64_t init_unique;	/* of an INIT that is being answered, and offers to leave set-id bits to us; 0: none */
	bool wants_drop;	/* the request that is being handled asks for them to be dropped */
	void (*idle)(void *arg); /* called when busy falls to 0, if set */
	void *idle_arg;
};

void mount_busy(struct mount *mount);
void mount_done(struct mount *mount);

/* node_judge with what this mount itself has changed last. */
enum node_verdict mount_judge(const struct node *node, const Granary__Inode *attr);
/* The node for an inode that the master just told about: the same, or a new epoch where others changed the file. */
struct node *mount_node(struct mount *mount, uint64_t inode, const Granary__Inode *attr);
/* As above, with a lookup counted, and what the kernel is told about it. name may be NULL. */
struct node *mount_entry(struct mount *mount, const Granary__Inode *attr, uint64_t inode, uint32_t lease_ms,
			 uint64_t started_ms, struct fuse_entry_param *entry);

/* All operations (ops_*.c), for fuse_session_new; userdata is the struct mount. */
extern const struct fuse_lowlevel_ops mount_ops;

#endif
