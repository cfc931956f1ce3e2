/* The messages of granary.proto by number: pack, unpack, bounds.
 *
 * A message is held in memory in one of two ways:
 *  - In pieces: every submessage, array, text and bytes field is an allocation of its own (mem_alloc), so that it can be
 *    replaced, freed or moved into another message by itself. Made by hand, by message_unpack and message_copy; freed by
 *    message_free.
 *  - Whole: all of it lies in memory of its own that goes at once, counted by reference. Nothing of it can be freed or moved away by
 *    itself. Made by message_unpack_whole (const: as it came), or by message_open_whole and filled with what message_alloc
 *    gives; message_ref keeps it instead of a copy, message_unref lets it go.
 * They do not mix: message_unref and message_alloc check() that they were given a whole message, not one in pieces nor a
 * submessage, and what message_free would free of a whole message was never allocated by itself, which ends the program. */
#ifndef GRANARY_COMMON_PROTO_MESSAGE_H
#define GRANARY_COMMON_PROTO_MESSAGE_H

#include <protobuf-c/protobuf-c.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "granary.pb-c.h"

/* X(name, wire value, request, reply): a request and its reply share the number. Never renumber. */
#define MESSAGE_LIST(X)                                                                            \
	X(MESSAGE_HELLO, 1, hello, hello)                                                          \
	X(MESSAGE_RAFT, 2, raft_message, empty)                                                    \
	X(MESSAGE_SNAPSHOT_OPEN, 5, snapshot_open, snapshot_info)                                  \
	X(MESSAGE_SNAPSHOT_READ, 6, snapshot_read, snapshot_page)                                  \
	X(MESSAGE_SNAPSHOT_CLOSE, 7, snapshot_close, empty)                                        \
	X(MESSAGE_FOUNDING, 8, founding_request, founding_reply)                                   \
	X(MESSAGE_MEMBERS_CHANGE, 9, members_change, empty)                                        \
	X(MESSAGE_SESSION_OPEN, 10, session_open, session_info)                                    \
	X(MESSAGE_SESSION_KEEPALIVE, 11, session_keepalive, session_info)                          \
	X(MESSAGE_META, 12, meta_request, meta_reply)                                              \
	X(MESSAGE_INVALIDATE, 13, invalidate, empty)                                               \
	X(MESSAGE_CHUNK_FAILURE, 14, chunk_failure, chunk_location)                                \
	X(MESSAGE_CLUSTER_STATUS, 15, cluster_status_request, cluster_status)                      \
	X(MESSAGE_RESTORE, 16, restore, empty)                                                     \
	X(MESSAGE_SETTINGS, 20, settings_request, settings)                                        \
	X(MESSAGE_FSCK, 21, fsck_request, fsck_report)                                             \
	X(MESSAGE_FENCE, 25, fence, empty)                                                         \
	X(MESSAGE_REGISTER, 30, register_request, register_reply)                                  \
	X(MESSAGE_HEARTBEAT, 31, heartbeat, heartbeat_reply)                                       \
	X(MESSAGE_INVENTORY, 32, inventory, inventory_reply)                                       \
	X(MESSAGE_CHUNK_COMMANDS, 33, chunk_commands, chunk_commands_reply)                        \
	X(MESSAGE_CHUNK_FILLED, 34, chunk_filled, chunk_location)                                  \
	X(MESSAGE_SCRUB, 38, scrub_request, scrub_reply)                                           \
	X(MESSAGE_COLD_DONE, 40, cold_done, empty)                                                 \
	X(MESSAGE_MOVE_DONE, 46, move_done, empty)                                                 \
	X(MESSAGE_CHUNK_WARM, 41, chunk_warm, chunk_location)                                      \
	X(MESSAGE_COOL, 48, cool_request, cool_reply)                                              \
	X(MESSAGE_CHUNK_INSPECT, 49, chunk_inspect, chunk_inspect_reply)                           \
	X(MESSAGE_EXPLAIN, 130, explain_request, explain_reply)                                    \
	X(MESSAGE_SIZES, 131, sizes_request, sizes_reply)                                          \
	X(MESSAGE_WHAT_IF, 132, what_if_request, what_if_reply)                                    \
	X(MESSAGE_CLASSES, 42, classes_request, classes_reply)                                     \
	X(MESSAGE_TASKS, 43, tasks_request, tasks_reply)                                           \
	X(MESSAGE_REBALANCE, 44, rebalance_request, rebalance_status)                              \
	X(MESSAGE_DRAIN, 45, drain_request, drain)                                                 \
	X(MESSAGE_CHUNK_WRITE, 50, chunk_write, chunk_write_reply)                                 \
	X(MESSAGE_CHUNK_READ, 51, chunk_read, chunk_read_reply)                                    \
	X(MESSAGE_CHUNK_SYNC, 52, chunk_sync, empty)                                               \
	X(MESSAGE_CHUNK_TRIM, 53, chunk_trim, empty)                                               \
	X(MESSAGE_BLOB_APPEND, 54, blob_append, blob_append_reply)                                 \
	X(MESSAGE_BLOB_READ, 55, blob_read, blob_read_reply)                                       \
	X(MESSAGE_CHUNKSERVER_STATUS, 56, empty, chunkserver_status)                               \
	X(MESSAGE_CHUNK_SUMS, 57, chunk_sums, chunk_sums_reply)                                     \
	X(MESSAGE_PACK_SLOTS, 220, pack_slots, pack_slots_reply)                                    \
	X(MESSAGE_CHUNK_COMPARE, 58, chunk_compare, chunk_compare_reply)                            \
	X(MESSAGE_COLD_READ, 59, cold_read, cold_read_reply)

enum message_type {
	MESSAGE_NONE = 0,
#define X(name, wire, request, reply) name = wire,
	MESSAGE_LIST(X)
#undef X
};
#define MESSAGE_TYPES_MAX 256u

/* NULL for a number that is unknown here. */
const ProtobufCMessageDescriptor *message_request(unsigned type);
const ProtobufCMessageDescriptor *message_reply(unsigned type);
/* "MESSAGE_META" or "?"; static storage. */
const char *message_name(unsigned type);

/* Appends the packed message. */
void message_pack(const ProtobufCMessage *message, struct buf *out);
/* ERR_PROTOCOL when the bytes do not parse or an array is beyond limits.h. The result is in pieces. */
MUST_USE enum err message_unpack(const ProtobufCMessageDescriptor *descriptor, struct slice bytes, ProtobufCMessage **out);
/* NULL is allowed. */
void message_free(ProtobufCMessage *message);
/* A copy in pieces that the caller frees. */
ProtobufCMessage *message_copy(const ProtobufCMessage *message);

/* As message_unpack. The result has one reference. */
MUST_USE enum err message_unpack_whole(const ProtobufCMessageDescriptor *descriptor, struct slice bytes,
				       const ProtobufCMessage **out);
/* An empty message, with one reference. */
void *message_open_whole(const ProtobufCMessageDescriptor *descriptor);
/* Memory that goes with the message, for what is hung on it; not zeroed. */
void *message_alloc(ProtobufCMessage *whole, size_t size_bytes);
/* The same for a submessage, empty; and for bytes, copied. */
void *message_alloc_message(ProtobufCMessage *whole, const ProtobufCMessageDescriptor *descriptor);
ProtobufCBinaryData message_alloc_bytes(ProtobufCMessage *whole, struct slice bytes);
/* A text that is not empty, copied. (An empty one stays as the message's init has left it.) */
char *message_alloc_text(ProtobufCMessage *whole, const char *text);
/* Room for one element more in an array of `count` that grew by this alone (NULL: none yet). */
void *message_alloc_element(ProtobufCMessage *whole, void *array, size_t count, size_t element_bytes);
void message_ref(const ProtobufCMessage *whole);
/* NULL is allowed. */
void message_unref(const ProtobufCMessage *whole);

/* Reads a message of numbers only (no text, bytes, arrays, submessages) into the caller's struct: nothing is allocated. Fields that
 * are unknown here are left out. */
MUST_USE enum err message_read_numbers(const ProtobufCMessageDescriptor *descriptor, struct slice bytes, ProtobufCMessage *out);

static inline struct slice message_bytes(ProtobufCBinaryData data)
{
	return slice_of(data.data, data.len);
}

/* Borrows: the slice must outlive the message. */
static inline ProtobufCBinaryData message_borrow(struct slice slice)
{
	return (ProtobufCBinaryData){ .len = slice.size, .data = (uint8_t *)(uintptr_t)slice.bytes };
}

#endif
