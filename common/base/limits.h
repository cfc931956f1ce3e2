/* Every bound in Granary: sizes, counts and times. A queue, array, message or retry without a bound here is a bug.
 * Bytes, milliseconds and counts, as each name says. */
#ifndef GRANARY_COMMON_BASE_LIMITS_H
#define GRANARY_COMMON_BASE_LIMITS_H

#define KIB 1024u
#define MIB (1024u * KIB)

/* Data layout (architecture page). BLOCK is the unit of checksums, CHUNK of placement. */
#define BLOCK_BYTES (4u * KIB)
#define CHUNK_BYTES (64u * MIB)
#define CHUNK_BLOCKS (CHUNK_BYTES / BLOCK_BYTES)
#define FRAME_DATA_BYTES_MAX (256u * KIB)	     /* data cut for the chain */
#define BLOB_BYTES_MAX FRAME_DATA_BYTES_MAX	     /* a larger file gets chunks of its own */
#define DIRECTORY_BYTES 4096u			     /* what stat says of every directory, as other file systems do */
#define FILE_BYTES_MAX (1ull << 50)
#define COPIES_MAX 5u			     /* that a class may want; and one more while one moves: */
#define REPLICAS_MAX (COPIES_MAX + 1u)
#define REPLICAS_DEFAULT 3u
#define DATA_SHARDS_MAX 32u			     /* of a cold chunk */
#define PARITY_SHARDS_MAX 8u
#define SHARDS_MAX (DATA_SHARDS_MAX + PARITY_SHARDS_MAX)
#define CODED_UNIT_BYTES (128u * KIB)		     /* of a file: compressed together */
#define CODED_UNIT_BYTES_MIN (16u * KIB)	     /* of a small one */
#define CODED_DICTIONARY_BYTES_MAX (64u * KIB)	     /* of the records of a pack */
#define STALE_COPIES_MAX 8u			     /* retired copies of one chunk that are remembered */

/* Frames. A frame above these bounds closes the connection. */
#define FRAME_MESSAGE_BYTES_MAX (1u * MIB)
#define FRAME_BYTES_MAX (FRAME_MESSAGE_BYTES_MAX + FRAME_DATA_BYTES_MAX)
#define MESSAGE_ARRAY_MAX 65536u		     /* elements of a repeated field that has no smaller bound */

/* Names and attributes: Linux's own bounds. */
#define NAME_BYTES_MAX 255u
#define PATH_BYTES_MAX 4096u
#define SYMLINK_BYTES_MAX 4095u
#define XATTR_NAME_BYTES_MAX 255u
#define XATTR_VALUE_BYTES_MAX (64u * KIB)
#define XATTRS_PER_INODE_MAX 256u
#define LINKS_MAX 65000u
#define LOCKS_PER_INODE_MAX 4096u
#define READDIR_ENTRIES_MAX 1024u

/* Memory of released iobufs that a thread keeps for reuse. */
#define IOBUF_FREE_BYTES_MAX (64u * MIB)

/* Connections and rpc. */
#define CONNECTIONS_MAX 4096u			     /* half of the descriptors, where there are fewer; clients get three quarters of them */
#define DESCRIPTORS_RESERVED 64u		     /* for databases, folders, what is opened for a moment */
#define CONN_OUT_BYTES_MAX (32u * MIB)		     /* queued to send; above it the peer's requests are not read */
#define CONN_OUT_TOTAL_BYTES_MAX (512u * MIB)	     /* queued in answers of all connections; above it each is full with CONN_OUT_SHARE_BYTES */
#define CONN_OUT_SHARE_BYTES (1u * MIB)
#define CONN_EVENT_BYTES_MAX (1u * MIB)		     /* read or written for one connection before others get a turn */
#define CONN_TURN_BYTES_MAX (8u * MIB)		     /* written for all accepted connections in one turn of the loop */
#define CONN_FRAME_TIMEOUT_MS 10000u		     /* a frame that was begun moves on within this, both ways */
#define CONN_PROGRESS_BYTES_MIN (16u * KIB)	     /* moved within that of a larger frame or queue; else the peer is taken for stuck */
#define CONN_UNACKED_TIMEOUT_MS 5000u		     /* the peer's host acknowledges within this; else the connection is broken */
#define RPC_SENDS_WHILE_CONNECTING_MAX 64u	     /* one-way messages kept for a connection that is not up yet */
#define RPC_SERVED_PER_CONN_MAX 256u		     /* requests being served for one connection */
#define RPC_SERVED_BYTES_PER_CONN_MAX (16u * MIB)    /* of those requests; one is always served */
#define RPC_SERVED_SHARED_MAX 128u		     /* divided among clients, while several ask */
#define RPC_SERVED_SHARED_BYTES_MAX (16u * MIB)	     /* the same */
#define RPC_SERVED_SHARE_MIN 4u			     /* for each of them */
#define RPC_TURN_COST_MAX 64u			     /* requests taken from one client before the others get their turn; large ones count for several */
#define RPC_TURN_US_MAX 5000u			     /* on requests of clients, before the loop looks at timers and servers again */
#define RPC_BACKLOG_PER_CONN_MAX 16u		     /* requests of one client that wait for such a turn */
#define RPC_CALLS_PER_CONN_MAX 4096u		     /* calls awaiting a reply on one connection */
#define RPC_CALLS_MAX 262144u			     /* of one process, over all connections */
#define RPC_TIMEOUT_MS 5000u
#define RPC_CONNECT_TIMEOUT_MS 1000u
#define WORKERS_COUNT 8u
#define WORK_QUEUE_MAX 8192u

/* Raft. */
#define RAFT_MEMBERS_MAX 9u
#define RAFT_TICK_MS 10u
#define RAFT_HEARTBEAT_TICKS 5u			     /* 50 ms */
#define RAFT_ELECTION_TICKS 30u			     /* 300 ms, randomised to twice that */
#define RAFT_ENTRY_BYTES_MAX (1u * MIB - 64u * KIB)
#define RAFT_APPEND_BYTES_MAX (512u * KIB)	     /* entries in one AppendEntries; always at least one entry */
#define RAFT_INFLIGHT_MAX 64u			     /* AppendEntries sent to one follower and not answered */
#define RAFT_UNCOMMITTED_BYTES_MAX (64u * MIB)	     /* proposals above it are refused */
#define RAFT_LEARNER_LAG_MAX 256u		     /* entries that a learner may be behind when it becomes a voter */
#define RAFT_CLOCK_DRIFT_PERCENT 10u		     /* two members' clocks differ in rate by less: the lease's margin */
#define WAL_SEGMENT_BYTES (16u * MIB)

/* Sessions, leases. */
#define SESSION_TIMEOUT_MS 20000u
#define SESSION_KEEPALIVE_MS 2000u
#define SESSION_SLOTS 64u			     /* mutating requests a session may have outstanding */
#define SESSION_OPEN_FILES_MAX 65536u
#define CACHE_LEASE_MS 1000u			     /* attributes and names cached by a client */
#define CACHE_LEASES_MAX 262144u
#define DELEGATION_DIRECTORIES_MAX 65536u	     /* directories in recent use that the leader knows the users of */
#define CHUNKSERVER_HEARTBEAT_MS 300u
#define INVENTORY_MS 3600000u			     /* from one to the next … */
#define INVENTORY_SOON_MS 20000u		     /* … if something was left for later */
#define CHUNKSERVER_LEASE_MS 1500u
#define FENCE_SESSIONS_MAX 1024u		     /* expired ones, in one Fence */
#define FENCE_WAIT_MS_MAX 10000u		     /* for a chunkserver to be done with what an expired session has begun */
#define FENCED_SESSIONS_MAX 16384u		     /* that began after a chunkserver registered; above it it registers anew */
#define META_OPS_PER_BATCH_MAX 1024u
/* What is granted of a lease that lasts so long at the leader: the holder's clock may be slower, and counts in milliseconds. */
#define LEASE_GRANTED_MS(lease_ms) ((lease_ms) - (lease_ms) * RAFT_CLOCK_DRIFT_PERCENT / 100u - 2u)

#define META_CACHE_BYTES_MAX (32u * MIB)	     /* values that the state machine keeps unpacked */
#define META_REPLY_BYTES_MAX (FRAME_MESSAGE_BYTES_MAX - 64u * KIB)
#define CHUNK_MAP_ENTRIES_MAX 1024u
#define CHUNKS_WRITTEN_MAX 1024u /* named by one CommitChunks */
#define WALK_SYMLINKS_MAX 40u
#define OPEN_PACKS_MAX 8u			     /* of the default class */
#define OPEN_PACKS_CLASS_MAX 2u			     /* of each other class */
#define OPEN_PACKS_TOTAL_MAX 128u
#define STORAGE_CLASSES_MAX 64u
#define STORAGE_CLASS_NAME_BYTES_MAX 63u
#define TASK_UNITS_MAX 250u			     /* inodes and chunks looked at by one TaskRun */
#define TASK_CHUNKS_INLINE_MAX 16u		     /* of one file, changed together with it; of more in a task of their own */
#define TRUNCATE_CHUNKS_MAX 1024u		     /* freed by one Setattr */
#define RECLAIM_CHUNKS_MAX 256u			     /* freed of one inode by one Reclaim */
#define RECLAIM_CHUNKS_TOTAL_MAX 1024u		     /* freed by one Reclaim */
#define GARBAGE_SLOTS_MAX 1024u			     /* of a pack in one Garbage */
#define CHECK_PREFIX_MAX 20000u			     /* names of a directory, chunks of a file: of more fsck does not compare the count */
#define CHECK_COUNTED_MAX 1000000u		     /* inodes whose names fsck counts at once */
#define REMOVED_CHUNKS_MAX 1000000u		     /* removed chunks that are remembered, so that copies that turn up are known */
#define REMOVED_CHUNKS_STEP 4096u		     /* of which so many are forgotten at once */
#define COPY_REMOVE_MAX 256u			     /* copies in one CopyRemove */
#define TRASH_REMOVE_MAX 256u			     /* entries in one TrashRemove */
#define TRASH_ENTRIES_MAX 4000000u		     /* above it the oldest go before their time */

/* Master: the shell around raft and the state machine. */
#define SERVERS_MAX 1024u
#define SESSIONS_MAX 16384u
#define ADDRESS_BYTES_MAX 255u
#define HOST_LABEL_BYTES_MAX 63u
#define LOCATION_DEPTH_MAX 8u			     /* failure domains above the host */
#define LOCATION_BYTES_MAX 255u
#define PLACEMENT_WEIGHT_TIMES_MAX 4u		     /* the mean of all: an empty server is not written to more often than that */
#define COPYSET_WIDTH_DEFAULT 32u		     /* the study in master/README.md */
#define PLACEMENT_COPYSET_TRIES 8u		     /* before a chunk is put anywhere */
#define PLACEMENT_AWAY_MS 3600000u		     /* a server that is away for so long is no member of copysets any more */
#define CLIENT_NAME_BYTES_MAX 255u
#define PROPOSALS_WAITING_MAX 65536u		     /* changes that wait in the leader for their log entry */
#define APPLY_SLICE_US 10000u			     /* applying stops for other events after this long */
#define RECALL_ITEMS_MAX 1024u			     /* in one Invalidate */
#define DELEGATION_KEPT_MS_MAX 10000u		     /* so long after its recall a holder that cannot send what it has done may keep it */
#define DELEGATIONS_KEPT_MAX 1024u		     /* in one keepalive */
#define RECALLS_PER_SESSION_MAX 64u		     /* Invalidates of one session that wait for its answer */
#define COMMANDS_WAITING_MAX 8192u		     /* of one chunkserver; what is above is found again later */
#define COMMANDS_PER_PUSH_MAX 256u		     /* in one ChunkCommands */
#define PROBE_ATTEMPTS_MAX 10u			     /* to learn whether a chunkserver whose connection broke is dead */
#define COMMANDS_TIMEOUT_MS 5000u
#define INVENTORY_PAGE_MAX 4096u
#define GARBAGE_SCAN_MAX 512u			     /* records looked at in one step */
#define GARBAGE_RESCAN_MS 5000u			     /* for what an earlier pass could not deliver */
#define ORPHANS_WAITING_MAX 65536u		     /* unlinked inodes known to the reclaim pass */
#define ORPHANS_SCAN_MAX 4096u			     /* looked at in one step */
#define RECLAIM_INODES_MAX 256u			     /* in one entry */
#define RECLAIM_MS 100u
#define TRASH_MS 100u				     /* between two steps of the pass that empties the trash */
#define COLLECTION_WAIT_MS 4000u		     /* after an election: for chunkservers to say what they hold, before anything is collected */
#define TRASH_PASS_MS 1000u			     /* between two passes over those that are kept for longer than others */
#define TRASH_LOOK_MAX 1000u			     /* entries looked at in one step, where classes keep them for different times */
#define TASKS_MS 100u				     /* between two looks at what is due; a tick of the wheel */
#define TASKS_LOADED_MAX 16384u			     /* tasks that are due soon, in memory */
#define TASKS_HORIZON_MS 3600000u		     /* soon */
#define TASKS_SCAN_MAX 2000u			     /* looked at in one step */
#define TASKS_AT_ONCE_MAX 8u			     /* that have no time, of which one entry does a step each */
#define TASKS_PER_ENTRY_MAX 64u			     /* moved or removed by one entry */
#define TASKS_RETRY_MS 60000u			     /* one whose chunk is being seen to is asked for again */
#define TASKS_MOVES_RETRY_MS 1000u		     /* a blob that is to be moved, and for which there is no room yet */
#define TASKS_SHOWN_MAX 1000u			     /* in one answer */
#define TRASH_FREE_PERCENT 10u			     /* with less of the chunkservers' space free the oldest go before their time */
#define TRASH_SETTLE_MS 12000u			     /* how long it is waited for the space of what was removed for it */
#define HOUSEKEEPING_MS 500u			     /* expiry of sessions, trimming of the log */
#define CHUNKS_SCAN_MAX 2000u			     /* looked at in one step of a status report */
#define EXPLAIN_CHUNKS_MAX 64u			     /* in one answer */
#define INSPECT_CHUNKS_MAX 256u			     /* asked of a chunkserver at once */
#define SIZES_INODES_MAX 1000u			     /* asked for at once */
#define SIZES_CHUNKS_MAX 2000u			     /* looked at for one answer */
#define WHAT_IF_RUNS_MAX 4u			     /* at once */
#define WHAT_IF_LOST_MAX 100u			     /* named */
#define SETTING_ATTEMPTS_MAX 16u		     /* of a change of a setting that others come before */
#define FSCK_KEYS_MAX 200u			     /* looked at in one step of fsck */
#define FSCK_FINDINGS_MAX 20000u		     /* kept; more are only counted */
#define FSCK_PAGE_MAX 1000u			     /* findings in one answer */
#define FSCK_REPAIRS_MAX 64u			     /* in one entry */
#define FSCK_COPIES_MAX 200000u			     /* copies in doubt, between two inventories */
#define FSCK_IDLE_MS 10000u			     /* a run that nobody asks for ends */
#define FSCK_INVENTORY_MS 20000u		     /* for all chunkservers to say what they hold */
#define FAILURE_REPORTS_MAX 65536u		     /* chunk failure reports that wait for a commit */
#define LOG_KEPT_ALARM_BYTES (1024ull * MIB)	     /* kept for a member that is away: an alarm is logged above it */
#define SLOW_US_MIN 50000u			     /* a disk is not called slow below this latency, */
#define SLOW_TIMES 10u				     /* nor below so many times that of its peers, */
#define SLOW_AFTER_MS 1500u			     /* nor before it has been so for that long */
#define SLOW_BACK_MS 10000u			     /* it is taken back when it has been good for so long */
#define SLOW_CHUNKS_MAX 50000u			     /* looked at before one is left out; with more of them it stays */
#define SLOW_JUDGE_MS 300u
#define UNCERTAIN_WAIT_MS 10000u		     /* copies that lost power wait so long for one that did not, before they go on without it */
#define REPAIR_ALONE_MS 2000u			     /* the delay of repair for chunks with one copy left */
#define REPAIR_START_MS 3000u			     /* after an election: before anything is moved */
#define REPAIR_STEP_MS 50u
#define REPAIR_SCAN_MAX 500u			     /* chunks looked at in one step */
#define REPAIR_QUEUE_MAX 16384u			     /* chunks known to lack copies; others are found again */
#define REPAIR_TRIES_MAX 128u			     /* of those, looked at in one step */
#define REPAIR_JOINS_MAX 1024u			     /* copies being filled at once, */
#define REPAIR_JOINS_PER_SERVER_MAX 4u		     /* from one server, and to one */
#define REBALANCE_JOINS_PER_SERVER_MAX 3u	     /* of those, while one only moves */
#define REPAIR_LEAVES_MAX 16u			     /* members that leave at once, when nobody waits for it */
#define REPAIR_AVOIDED_MAX 256u			     /* failed lately: not the same server for the same chunk */
#define REPAIR_AVOIDED_MS 20000u
#define REPAIR_LEFT_MS 10000u			     /* a member that was alive and could not be reached: not for the same chunk */
#define REPAIR_TOLD_AGAIN_MS 2000u		     /* members of a chunk that is being filled hear of it again */
#define REPAIR_SUSPECT_MS 1000u			     /* a newcomer that is reported for so long is left out, alive or not */
#define REPAIR_UNREACHABLE_MS 300u		     /* a member that its predecessor cannot reach, likewise */
#define REPAIR_SUSPECTS_MAX 4096u
#define BALANCE_STEP_MS 100u
#define BALANCE_SCAN_MAX 200u			     /* chunks of one server looked at in one step */
#define BALANCE_PASS_PAUSE_MS 500u		     /* after all of them, when none could move */
#define BALANCE_MOVES_MAX 1024u			     /* at once */
#define BALANCE_SETTLE_MS 2000u			     /* until servers have said what a move that is over has changed */
#define BALANCE_STUCK_MS 60000u			     /* a server of which nothing could be moved is looked at again */
#define BALANCE_DRAINED_MS 1000u		     /* what was placed on it before it was known to be drained has been committed */
#define BALANCE_PERCENT_DEFAULT 2u		     /* points that a server may be off after a rebalancing */
#define BALANCE_PERCENT_MAX 50u
#define BALANCE_GENTLE_PERCENT 10u		     /* nobody has asked: begins when one is off so much, */
#define BALANCE_GENTLE_END_PERCENT 5u		     /* ends when none is off so much, */
#define BALANCE_GENTLE_PART 4u			     /* and takes one part in so many of the rate */
#define MOVES_WAITING_MAX 2048u			     /* blobs that are to be moved, at the master, and are being moved: */
#define MOVES_RUNNING_MAX 256u			     /* of those, at once, */
#define MOVES_PER_SERVER_MAX 16u		     /* to one server */
#define MOVES_BLOCKED_MAX 8u			     /* that cannot begin, before no more are looked at, */
#define MOVES_PER_PUMP_MAX 64u			     /* or that have been looked at */
#define MOVES_STEP_MS 100u
#define MOVE_MS_MAX 30000u			     /* one that takes longer is given up */
#define MOVE_AGAIN_MS 2000u			     /* one that failed is tried again, */
#define MOVE_FAILED_MS 20000u			     /* or, where that will not pass by itself */
#define COOL_JOBS_MAX 256u			     /* chunks being made cold or hot, or mended, at once, */
#define COOL_TASKS_PER_SERVER_MAX 4u		     /* by one server */
#define COOL_STEP_MS 50u
#define COOL_SCAN_MAX 500u			     /* chunks looked at in one step */
#define COOL_PASS_PAUSE_MS 2000u		     /* between two passes over all chunks */
#define COOL_WISHES_MAX 16384u			     /* chunks that wait to be made cold or hot */
#define COOL_WISHES_TRIED_MAX 64u		     /* of those, looked at in one step */
#define COOL_FAILED_MAX 256u			     /* that failed lately: not the same again for so long: */
#define COOL_FAILED_MS 20000u
#define COOL_AGAIN_MS 1000u			     /* or, where it was a server or a link that failed */
#define COOL_COLDS_REMEMBERED 256u		     /* when they became cold: of the last ones it is known */
#define COOL_DUE_AGAIN_MS 600000u		     /* what was due and could not be made cold is tried again */
#define COOL_WASTE_BYTES_MIN (1u * MIB)		     /* of a cold pack of which half is deleted; below it is left */
#define COOL_JOB_MS_MAX 900000u			     /* one that takes longer is undone */
#define COOL_TOLD_AGAIN_MS 2000u		     /* who is at it hears of it again */
#define COOL_WARM_WAIT_MS 1000u			     /* a writer waits so long for an answer, and asks again */
#define COOL_WARM_WAITS_MAX 4096u
#define PLACEMENT_WAIT_MS 3000u			     /* after an election: how long an allocation waits for servers to come back */

/* Snapshots of the state machine. */
#define SNAPSHOT_PAGE_BYTES (256u * KIB)	     /* pairs in one answer; always at least one pair */
#define SNAPSHOT_PAGE_BYTES_MAX (512u * KIB)	     /* with more than one pair in it */
#define SNAPSHOTS_MAX 4u			     /* open at once */
#define SNAPSHOT_IDLE_MS 20000u			     /* one that nobody reads ends */
#define SNAPSHOT_RETRY_MS 200u			     /* after a failed step of who pulls */
#define SNAPSHOT_ATTEMPTS_MAX 25u		     /* of one page, before the pull begins anew */
#define PAIR_KEY_BYTES_MAX 1024u
#define PAIR_VALUE_BYTES_MAX FRAME_MESSAGE_BYTES_MAX
#define LOG_KEPT_BYTES (256ull * MIB)		     /* of the log for a member that is away; it then needs a snapshot */
#define LOG_UNSYNCED_ALARM_BYTES (512ull * MIB)	     /* of entries applied and not yet synced in the store */
#define RESTORE_CLEAR_MAX 4096u			     /* keys removed by one step of a restore that begins */
#define FOUNDING_MS 50u			     /* between questions of a fresh master to the others */
#define FOUNDING_ATTEMPT_MS 1000u
#define MEMBERS_WISH_MS 4000u			     /* a change that an operator asks for is begun and committed within */
#define SPACE_HAND_OVER_MS 60000u		     /* a leader whose disk is full gives leadership away so often */
#define MEMBER_ID_MAX 1023u			     /* ids of masters are the worker part of snowflakes */
#define MEMBERS_CHANGE_MS 100u			     /* the leader looks what is to be changed in the membership */

/* Clients. */
#define CLIENT_TIMEOUT_MS 30000u		     /* default of --timeout */
#define CLIENT_DIRTY_BYTES_MAX (16u * MIB)	     /* data of one client accepted and not yet on three servers; with what waits at the bound below IOBUF_FREE_BYTES_MAX */
#define CLIENT_RETRY_MS_MIN 5u
#define CLIENT_RETRY_MS_MAX 500u
#define CLIENT_LEADER_RETRY_MS_MAX 50u		     /* one request of a client that looks for the leader, on behalf of all others */
#define CLIENT_MASTERS_MAX RAFT_MEMBERS_MAX	     /* addresses of masters kept */
#define CLIENT_CALLS_MAX 65536u			     /* requests to the master outstanding or waiting; above it: busy */
#define CLIENT_ATTEMPT_MS 1300u			     /* one request to one master, before another is asked */
#define CLIENT_DONE_ATTEMPT_MS 300u		     /* the same of what was done under a delegation: the next leader waits for it for CACHE_LEASE_MS */
#define CLIENT_DONE_RETRY_MS_MAX 50u
#define CLIENT_READ_ATTEMPT_MS 1000u		     /* one read from one replica */
#define CLIENT_HEDGE_MS_MIN 30u			     /* a read that is not answered by then, or by 8 times what is usual, is asked of another replica, too */
#define CLIENT_HEDGE_MS_MAX 300u
#define CLIENT_HEDGES_MAX 16u			     /* in a row; one more for every so many reads: */
#define CLIENT_READS_PER_HEDGE 16u
#define CLIENT_SUSPECT_MS 1000u			     /* a chain that has not answered for so long is asked about */
#define CLIENT_FULL_MS 1500u			     /* "no space" is believed after so long: the full server may be replaced */
#define CLIENT_SUSPECT_AGAIN_MS 150u		     /* and again, while the leader does not know the server to be gone */
#define CLIENT_WRITE_ATTEMPT_MS 10000u		     /* one write at one version of its chunk */
#define CLIENT_OPENED_MS 200u			     /* newly opened files are told to the leader after so long */
#define CLIENT_CLOSED_PER_MESSAGE_MAX 4096u
#define CLIENT_AHEAD_BYTES_MAX (64u * KIB)	     /* files up to this size are read when they are opened */
#define CLIENT_AHEAD_FILES_MAX 64u		     /* of those, being read or not yet asked for */
#define CLIENT_READS_PER_OP_MAX 16u		     /* chunk reads in flight for one read */
#define CLIENT_WRITES_PER_FILE_MAX 16u		     /* chunk writes in flight for one file: 4 MiB */
#define CLIENT_EXTENTS_PER_FILE_MAX 64u		     /* ranges of one file gathered before the oldest is sent */
#define CLIENT_LOCATIONS_PER_FILE_MAX 16384u	     /* chunk locations kept for one open file: 1 TiB */
#define CLIENT_CODED_MAX 4096u			     /* cold chunks' shards' locations kept, */
#define CLIENT_HEADS_MAX 64u			     /* of those: with an index */
#define CLIENT_PACK_POOLS_MAX 128u		     /* storage classes that a client has packs of */
#define CLIENT_PACKS_MAX 4096u			     /* pack locations kept */
#define CLIENT_MAP_CHUNKS 64u			     /* chunk locations asked for at once */
#define CLIENT_WRITEBACK_MS 5000u		     /* accepted data is written after so long even if nobody asks for it */
#define CLIENT_CREATIONS_MAX 1024u		     /* files made under a delegation that the master does not know yet */
#define CLIENT_BEHIND_MAX 128u			     /* of those that were closed, flushed at once */
#define CLIENT_STRANDED_RETRY_MS 500u		     /* while closed files cannot be stored, one of them is tried so often */
#define CLIENT_DELEGATION_MARGIN_MS 200u	     /* before its end no more files are made under a delegation */
#define CLIENT_KEEP_MS 200u			     /* while something cannot be sent, the master is told so so often */
#define CLIENT_DELEGATION_NAMES_MAX 65536u	     /* remembered of a directory that was made by the client itself */
#define CLIENT_CHANGES_MAX 512u			     /* of names, done under a delegation, that the master does not know yet */
#define CLIENT_CHANGES_PER_REQUEST_MAX 128u
#define CLIENT_GATHER_MS 5u			     /* what nobody waits for is gathered so long before the master is told */
#define CLIENT_COMMITS_MAX 2u			     /* requests with new files under way at once */
#define CLIENT_COMMITS_PER_REQUEST_MAX 64u	     /* files in one of them */
#define CLIENT_CREATION_TRIES_MAX 20u		     /* each of the client's timeout */
#define CLIENT_MTIME_DELAY_MS 1000u		     /* a synced overwrite's mtime is told to the master after so long */

/* Chunkserver. */
#define CHUNKS_OPEN_MAX 512u
#define CHUNK_OPS_PENDING_MAX 4096u
#define DISK_RESERVED_BYTES (64u * MIB)		     /* kept free for metadata; below it a write says no space */
#define CHUNK_DIRECT_BYTES_MIN (64u * KIB)	     /* aligned writes from here on bypass the page cache */
#define CHUNK_WRITE_PIECES_MAX 4u		     /* writes that continue each other go to the disk in one call: 1 MiB */
#define CHUNK_OPS_REMEMBERED 1024u		     /* finished operations of a chunk whose retry is recognised */
#define CHUNK_WRITES_LOGGED 65536u		     /* changes of a store's blocks that its log holds */
#define CHUNK_CLIENTS_KNOWN 4096u		     /* of which a chunkserver knows what they have been answered */
#define CHUNK_IDLE_SYNC_MS 3000u		     /* a dirty chunk without writes for so long is synced and its mark cleared */
#define CHUNK_WAIT_MS_MAX 4000u			     /* a request waits so long for others of its chunk; below RPC_TIMEOUT_MS */
#define CHUNK_FAILURES_REPORTED_MAX 64u		     /* reports to the master outstanding */
#define CHAIN_TIMEOUT_MS 2000u			     /* successor's answer to a write */
#define CHAIN_SYNC_TIMEOUT_MS 10000u		     /* the same when it syncs */
#define CHAIN_SUSPECT_MS 400u			     /* a successor that is silent for so long is reported */
#define CHAIN_PROBE_MS 400u			     /* and asked whether it is there at all */
#define CHAIN_PEERS_MAX 1024u
#define FILL_PIECES_MAX 4u			     /* of one copy, sent and not acknowledged */
#define FILL_RECORDS_MAX 16u			     /* the same of a pack */
#define FILL_ATTEMPTS_MAX 20u			     /* in a row without progress, before the master is told that it cannot be done */
#define FILL_PAUSE_MS 50u			     /* before the next attempt */
#define FREE_FILES_MAX 32u			     /* files of deleted chunks kept for reuse */
#define PACK_BYTES_MAX (60u * MIB)		     /* a pack of this size is full */
#define PACK_SLOTS_MAX (1u * MIB)
#define PACK_COMPACT_BYTES_MIN (1u * MIB)	     /* a smaller pack is not compacted */
#define INVENTORY_CHUNKS_MAX 4096u		     /* in one page */
#define MEND_RETRY_MS_MIN 50u			     /* before the other copies are asked for damaged blocks again */
#define MEND_RETRY_MS_MAX 2000u
#define MEND_LOST_RETRY_MS 30000u		     /* the same when none of them had it */
#define SCRUB_BYTES_PER_SECOND_MIN (1u * MIB)	     /* of a scheduled scrub, whatever there is to do */
#define SCRUB_BYTES_PER_SECOND_MAX (32u * MIB)
#define SCRUB_DEMAND_BYTES_PER_SECOND (256u * MIB)   /* of one that was asked for */
#define SCRUB_CHUNKS_MAX 65536u			     /* asked for by name at once */
#define DISK_HUNG_MS 5000u			     /* what a worker has not brought back for so long hangs */
#define DISK_WAITING_MS 500u			     /* what it has not brought back yet is what the disk takes */
#define DISK_LATENCY_WINDOW_MS 10000u		     /* latencies older than this are forgotten */
#define DISK_PROBE_MS 500u			     /* between probes of a disk that is given too little to do to know how it is */
#define DISK_LOOK_MS 1000u			     /* whether the data folder is still there */
#define STORE_REOPEN_MS_MIN 2000u		     /* a failed store is opened again after so long, then twice that, ... */
#define STORE_REOPEN_MS_MAX 600000u
#define STORE_REOPENS_MAX 20u			     /* in a row, each failing within STORE_HEALTHY_MS: then it stays out */
#define STORE_HEALTHY_MS 600000u
#define STORE_FULL_BYTES (4u * MIB)		     /* with less free space than that it failed for want of it: it is */
#define STORE_FULL_REOPEN_MS 3000u		     /* opened again after so long, as often as need be */
#define COLD_TASKS_MAX 4u			     /* of one chunkserver at a time, each with a chunk and its parity in memory */
#define COLD_ENDED_REMEMBERED 64u		     /* tasks that are not begun again */
#define COLD_RETRIES_MAX 200u			     /* of a step, 50 ms apart: what is read is being settled or mended */
#define MOVES_MAX 32u				     /* blobs that are moved to one chunkserver at a time */
#define MENDS_MAX 16u				     /* chunks being mended at a time */

#endif
