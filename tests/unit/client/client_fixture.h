/* A fake cluster, clients on it, and calls that run the loop until they are done. Header only, since each test is a
 * program of one file. */
#ifndef GRANARY_TESTS_UNIT_CLIENT_CLIENT_FIXTURE_H
#define GRANARY_TESTS_UNIT_CLIENT_CLIENT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/client.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/rng.h"
#include "common/proto/mode.h"
#include "tests/lib/fake_cluster.h"

struct answer {
	bool done;
	enum err err;
	Granary__MetaReply *reply;
	uint8_t *bytes;
	size_t size;
};

/* Caches attributes, as a mount does: takes leases, and gives them back when asked. */
static inline void fixture_invalidate(void *arg, uint64_t inode, struct slice name, void (*done)(void *done_arg),
				      void *done_arg)
{
	(void)arg;
	(void)inode;
	(void)name;
	done(done_arg);
}

static const struct client_events fixture_events = {.invalidate = fixture_invalidate};

static inline struct client *fixture_client(struct fake_cluster *cluster, uint64_t timeout_ms)
{
	struct client *client;
	struct client_options options = {.cluster = fake_cluster_address(cluster), .timeout_ms = timeout_ms, .events = &fixture_events};
	assert_int_equal(client_open(cluster->loop, &options, &client), OK);
	return client;
}

static inline void answer_meta(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct answer *answer = arg;
	answer->done = true;
	answer->err = err ? err : reply->results[0]->error ? err_from_wire(reply->results[0]->error) : OK;
	if (reply)
		answer->reply = (Granary__MetaReply *)message_copy(&reply->base);
}

/* The caller frees the reply. */
static inline Granary__MetaReply *fixture_meta(struct fake_cluster *cluster, struct client *client, Granary__MetaOp *op,
					       enum err wanted)
{
	struct answer answer = {0};
	client_meta(client, (Granary__MetaOp *[]){op}, 1, answer_meta, &answer);
	fake_cluster_run(cluster, &answer.done);
	assert_int_equal(answer.err, wanted);
	return answer.reply;
}

/* As fixture_meta. */
static inline Granary__MetaReply *fixture_lookup(struct fake_cluster *cluster, struct client *client, uint64_t parent,
						 const char *name, enum err wanted)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
	lookup.parent = parent;
	lookup.name = message_borrow(slice_text(name));
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup;
	return fixture_meta(cluster, client, &op, wanted);
}

static inline struct file_io *fixture_create(struct fake_cluster *cluster, struct client *client, const char *name,
					     uint64_t *inode)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create create = GRANARY__CREATE__INIT;
	create.parent = 1;
	create.name = message_borrow(slice_text(name));
	create.mode = MODE_FILE | 0644;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	Granary__MetaReply *reply = fixture_meta(cluster, client, &op, OK);
	*inode = reply->results[0]->inode;
	struct file_io *io = file_io_open(client, *inode, reply->results[0]->attr);
	client_note_opened(client, *inode);
	message_free(&reply->base);
	return io;
}

static inline struct file_io *fixture_open(struct fake_cluster *cluster, struct client *client, uint64_t inode)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Open open = GRANARY__OPEN__INIT;
	open.inode = inode;
	op.op_case = GRANARY__META_OP__OP_OPEN;
	op.open = &open;
	Granary__MetaReply *reply = fixture_meta(cluster, client, &op, OK);
	struct file_io *io = file_io_open(client, inode, reply->results[0]->attr);
	client_note_opened(client, inode);
	message_free(&reply->base);
	return io;
}

static inline void fixture_close(struct client *client, struct file_io *io, uint64_t inode)
{
	client_note_closed(client, inode);
	file_io_close(io);
}

static inline void answer_err(void *arg, enum err err)
{
	struct answer *answer = arg;
	assert_false(answer->done);
	answer->done = true;
	answer->err = err;
}

static inline enum err fixture_write(struct fake_cluster *cluster, struct file_io *io, uint64_t offset,
				     const void *bytes, size_t size)
{
	struct answer answer = {0};
	file_io_write(io, offset, slice_of(bytes, size), answer_err, &answer);
	assert_false(answer.done);
	fake_cluster_run(cluster, &answer.done);
	return answer.err;
}

static inline enum err fixture_flush(struct fake_cluster *cluster, struct file_io *io, bool sync)
{
	struct answer answer = {0};
	(sync ? file_io_sync : file_io_flush)(io, answer_err, &answer);
	assert_false(answer.done);
	fake_cluster_run(cluster, &answer.done);
	return answer.err;
}

static inline enum err fixture_truncate(struct fake_cluster *cluster, struct file_io *io, uint64_t size)
{
	struct answer answer = {0};
	file_io_truncate(io, size, answer_err, &answer);
	assert_false(answer.done);
	fake_cluster_run(cluster, &answer.done);
	return answer.err;
}

static inline void answer_read(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct answer *answer = arg;
	assert_false(answer->done);
	answer->done = true;
	answer->err = err;
	answer->size = 0;
	for (size_t i = 0; i < part_count; i++) {
		if (answer->bytes)
			memcpy(answer->bytes + answer->size, parts[i].bytes, parts[i].size);
		answer->size += parts[i].size;
	}
}

static inline enum err fixture_read(struct fake_cluster *cluster, struct file_io *io, uint64_t offset, void *bytes,
				    size_t size, size_t *done)
{
	struct answer answer = {.bytes = bytes};
	file_io_read(io, offset, size, answer_read, &answer);
	assert_false(answer.done);
	fake_cluster_run(cluster, &answer.done);
	*done = answer.size;
	return answer.err;
}

/* The file's content is exactly these bytes. */
static inline void fixture_expect(struct fake_cluster *cluster, struct file_io *io, const uint8_t *bytes, size_t size)
{
	uint8_t *got = mem_alloc(size + 100);
	size_t done;
	assert_int_equal(fixture_read(cluster, io, 0, got, size + 100, &done), OK);
	assert_int_equal(done, size);
	for (size_t i = 0; i < size; i++)
		if (got[i] != bytes[i])
			fail_msg("byte %zu of %zu is %u, not %u", i, size, got[i], bytes[i]);
	free(got);
}

static inline uint8_t *fixture_bytes(size_t size, uint64_t seed)
{
	struct rng rng;
	uint8_t *bytes = mem_alloc(size + 8);
	rng_init(&rng, seed);
	for (size_t i = 0; i < size; i += 8) {
		uint64_t value = rng_next(&rng);
		memcpy(bytes + i, &value, 8);
	}
	return bytes;
}

static inline void answer_left(void *arg)
{
	*(bool *)arg = true;
}

static inline void fixture_leave(struct fake_cluster *cluster, struct client *client)
{
	bool done = false;
	client_leave(client, answer_left, &done);
	fake_cluster_run(cluster, &done);
	client_close(client);
}

/* Another client, that comes new, sees just these bytes. */
static inline void fixture_expect_elsewhere(struct fake_cluster *cluster, uint64_t inode, const uint8_t *bytes,
					    size_t size)
{
	struct client *other = fixture_client(cluster, 10000);
	struct file_io *io = fixture_open(cluster, other, inode);
	assert_int_equal(file_io_attr(io)->size, size);
	fixture_expect(cluster, io, bytes, size);
	fixture_close(other, io, inode);
	fixture_leave(cluster, other);
}

/* Sum of a counter over all fake servers. */
static inline uint64_t fixture_total(const struct fake_cluster *cluster, size_t offset)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < cluster->count; i++)
		sum += *(const uint64_t *)(const void *)((const char *)&cluster->servers[i] + offset);
	return sum;
}
#define FIXTURE_TOTAL(cluster, field) fixture_total(cluster, offsetof(struct fake_server, field))

#endif
