/* Scans for the shell's background passes: in key order, over what is applied. The function called may use the rest of
 * meta.h but meta_apply. */
#include "common/base/bytes.h"
#include "master/meta/session.h"
#include "master/meta/state.h"

/* One table: fn gets the id, which is above `after`, and the value unpacked if there is a descriptor. */
struct each {
	enum key_table table;
	const ProtobufCMessageDescriptor *descriptor;
	bool (*fn)(void *arg, uint64_t id, const ProtobufCMessage *message);
	void *arg;
};

static enum err each_run(struct meta *meta, const struct each *each, uint64_t after)
{
	struct key prefix = key_of_table(each->table);
	struct key from = after ? key_of(each->table, after) : prefix;
	if (after)
		from = key_after(&from);
	struct scan scan;
	bool more = true;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (more && scan_next(&scan)) {
		uint64_t id;
		ProtobufCMessage *message = NULL;
		if (!key_parse(scan.key, &id) ||
		    (each->descriptor && message_unpack(each->descriptor, scan.value, &message))) {
			store_corrupt(&meta->store);
			break;
		}
		more = each->fn(each->arg, id, message);
		message_free(message);
	}
	scan_close(&scan);
	return store_failed(&meta->store);
}

struct each_caller {
	bool (*id)(void *arg, uint64_t id);
	bool (*server)(void *arg, uint64_t id, const Granary__Server *server);
	bool (*garbage)(void *arg, uint64_t id, const Granary__Garbage *garbage);
	bool (*chunk)(void *arg, uint64_t id, const Granary__Chunk *chunk);
	bool (*trash)(void *arg, uint64_t id, const Granary__TrashEntry *entry);
	void *arg;
};

static bool each_id(void *arg, uint64_t id, const ProtobufCMessage *message)
{
	(void)message;
	const struct each_caller *caller = arg;
	return caller->id(caller->arg, id);
}

static bool each_server(void *arg, uint64_t id, const ProtobufCMessage *message)
{
	const struct each_caller *caller = arg;
	return caller->server(caller->arg, id, (const Granary__Server *)message);
}

static bool each_garbage(void *arg, uint64_t id, const ProtobufCMessage *message)
{
	const struct each_caller *caller = arg;
	return caller->garbage(caller->arg, id, (const Granary__Garbage *)message);
}

static bool each_chunk(void *arg, uint64_t id, const ProtobufCMessage *message)
{
	const struct each_caller *caller = arg;
	return caller->chunk(caller->arg, id, (const Granary__Chunk *)message);
}

static bool each_trash(void *arg, uint64_t id, const ProtobufCMessage *message)
{
	const struct each_caller *caller = arg;
	return caller->trash(caller->arg, id, (const Granary__TrashEntry *)message);
}

enum err meta_each_session(struct meta *meta, bool (*fn)(void *arg, uint64_t session), void *arg)
{
	struct each_caller caller = {.id = fn, .arg = arg};
	struct each each = {.table = KEY_SESSION, .fn = each_id, .arg = &caller};
	return each_run(meta, &each, 0);
}

enum err meta_each_server(struct meta *meta, bool (*fn)(void *arg, uint64_t id, const Granary__Server *), void *arg)
{
	struct each_caller caller = {.server = fn, .arg = arg};
	struct each each = {
	    .table = KEY_SERVER, .descriptor = &granary__server__descriptor, .fn = each_server, .arg = &caller};
	return each_run(meta, &each, 0);
}

enum err meta_each_garbage(struct meta *meta, uint64_t after,
			   bool (*fn)(void *arg, uint64_t id, const Granary__Garbage *), void *arg)
{
	struct each_caller caller = {.garbage = fn, .arg = arg};
	struct each each = {
	    .table = KEY_GARBAGE, .descriptor = &granary__garbage__descriptor, .fn = each_garbage, .arg = &caller};
	return each_run(meta, &each, after);
}

enum err meta_each_chunk(struct meta *meta, uint64_t after,
			 bool (*fn)(void *arg, uint64_t chunk, const Granary__Chunk *), void *arg)
{
	struct each_caller caller = {.chunk = fn, .arg = arg};
	struct each each = {
	    .table = KEY_CHUNK, .descriptor = &granary__chunk__descriptor, .fn = each_chunk, .arg = &caller};
	return each_run(meta, &each, after);
}

enum err meta_each_trash(struct meta *meta, uint64_t after,
			 bool (*fn)(void *arg, uint64_t id, const Granary__TrashEntry *), void *arg)
{
	struct each_caller caller = {.trash = fn, .arg = arg};
	struct each each = {
	    .table = KEY_TRASH, .descriptor = &granary__trash_entry__descriptor, .fn = each_trash, .arg = &caller};
	return each_run(meta, &each, after);
}

enum err meta_each_orphan(struct meta *meta, uint64_t after, bool (*fn)(void *arg, uint64_t inode, uint64_t session),
			  void *arg)
{
	struct key prefix = key_of_table(KEY_ORPHAN);
	struct key from = after ? key_of(KEY_ORPHAN, after) : prefix;
	if (after)
		from = key_after(&from);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (scan_next(&scan)) {
		uint64_t inode;
		if (!key_parse(scan.key, &inode)) {
			store_corrupt(&meta->store);
			break;
		}
		uint64_t session = scan.value.size == 8 ? get_be64(scan.value.bytes) : 0;
		if (session && !session_exists(meta, session))
			session = 0;
		if (!fn(arg, inode, session))
			break;
	}
	scan_close(&scan);
	return store_failed(&meta->store);
}

enum err meta_each_chunk_on(struct meta *meta, uint64_t server, uint64_t after, bool (*fn)(void *arg, uint64_t chunk),
			    void *arg)
{
	struct key prefix = key_of(KEY_SERVER_CHUNK, server);
	struct key from = key_of_pair(KEY_SERVER_CHUNK, server, after);
	if (after)
		from = key_after(&from);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (scan_next(&scan)) {
		uint64_t holder, chunk;
		if (!key_parse_pair(scan.key, &holder, &chunk)) {
			store_corrupt(&meta->store);
			break;
		}
		if (!fn(arg, chunk))
			break;
	}
	scan_close(&scan);
	return store_failed(&meta->store);
}
