/* Frames and messages: what goes in comes out, and what is damaged does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/base/rng.h"
#include "common/proto/frame.h"
#include "common/proto/message.h"

static void test_frame_round_trip(void **state)
{
	(void)state;
	struct frame_header header = { .type = 50, .flags = FRAME_REPLY | FRAME_ERROR, .id = 0x123456789abcull,
				       .message_bytes = 5, .data_bytes = 7, .error = ERR_NO_SPACE };
	uint8_t bytes[FRAME_HEADER_BYTES];
	frame_pack(&header, slice_text("hello"), bytes);
	struct frame_header parsed;
	assert_int_equal(frame_parse(bytes, &parsed), OK);
	assert_int_equal(frame_verify(bytes, slice_text("hello")), OK);
	assert_int_equal(parsed.type, header.type);
	assert_int_equal(parsed.flags, header.flags);
	assert_true(parsed.id == header.id);
	assert_int_equal(parsed.message_bytes, 5);
	assert_int_equal(parsed.data_bytes, 7);
	assert_int_equal(parsed.error, ERR_NO_SPACE);
	assert_memory_equal(bytes, "GRN1", 4);
}

static void test_frame_every_bit_counts(void **state)
{
	(void)state;
	struct frame_header header = { .type = 1, .id = 9, .message_bytes = 5 };
	uint8_t bytes[FRAME_HEADER_BYTES], message[6] = "hello";
	frame_pack(&header, slice_of(message, 5), bytes);
	struct frame_header parsed;
	for (size_t bit = 0; bit < 8 * sizeof(bytes); bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		bool refused = frame_parse(bytes, &parsed) != OK || frame_verify(bytes, slice_of(message, 5)) != OK;
		assert_true(refused);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t bit = 0; bit < 8 * 5; bit++) {
		message[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(frame_verify(bytes, slice_of(message, 5)), ERR_PROTOCOL);
		message[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(frame_verify(bytes, slice_of(message, 5)), OK);
}

static enum err parse_with(uint16_t flags, uint64_t id, uint32_t message_bytes, uint32_t data_bytes, uint32_t error)
{
	struct frame_header header = { .type = 1, .flags = flags, .id = id, .message_bytes = message_bytes,
				       .data_bytes = data_bytes, .error = error };
	uint8_t bytes[FRAME_HEADER_BYTES];
	frame_pack(&header, slice_text(""), bytes);
	struct frame_header parsed;
	return frame_parse(bytes, &parsed);
}

static void test_frame_bounds(void **state)
{
	(void)state;
	assert_int_equal(parse_with(0, 1, FRAME_MESSAGE_BYTES_MAX, FRAME_DATA_BYTES_MAX, 0), OK);
	assert_int_equal(parse_with(0, 1, FRAME_MESSAGE_BYTES_MAX + 1, 0, 0), ERR_PROTOCOL);
	assert_int_equal(parse_with(0, 1, 0, FRAME_DATA_BYTES_MAX + 1, 0), ERR_PROTOCOL);
	assert_int_equal(parse_with(0, 1, UINT32_MAX, UINT32_MAX, 0), ERR_PROTOCOL);
	assert_int_equal(parse_with(FRAME_ONE_WAY, 0, 0, 0, 0), OK);
	assert_int_equal(parse_with(FRAME_ONE_WAY, 1, 0, 0, 0), ERR_PROTOCOL);
	assert_int_equal(parse_with(0, 0, 0, 0, 0), ERR_PROTOCOL);
	assert_int_equal(parse_with(FRAME_ONE_WAY | FRAME_REPLY, 0, 0, 0, 0), ERR_PROTOCOL);
	assert_int_equal(parse_with(FRAME_ERROR, 1, 0, 0, 5), ERR_PROTOCOL);
	assert_int_equal(parse_with(FRAME_REPLY | FRAME_ERROR, 1, 0, 0, 0), ERR_PROTOCOL);
	assert_int_equal(parse_with(FRAME_REPLY, 1, 0, 0, 5), ERR_PROTOCOL);
	assert_int_equal(parse_with(8, 1, 0, 0, 0), ERR_PROTOCOL);
}

static void test_message_list(void **state)
{
	(void)state;
	unsigned known = 0;
	for (unsigned type = 0; type < 70000; type++) {
		bool both = message_request(type) != NULL && message_reply(type) != NULL;
		bool neither = message_request(type) == NULL && message_reply(type) == NULL;
		assert_true(both || neither);
		if (neither)
			assert_string_equal(message_name(type), "?");
		known += both;
	}
	assert_true(known >= 19);
	assert_string_equal(message_name(MESSAGE_META), "MESSAGE_META");
	assert_ptr_equal(message_request(MESSAGE_META), &granary__meta_request__descriptor);
}

static void test_message_round_trip(void **state)
{
	(void)state;
	Granary__Replica replica = GRANARY__REPLICA__INIT, *replicas[] = { &replica, &replica };
	replica.server = 77;
	replica.address = (char *)(uintptr_t)"10.0.0.1:7101";
	Granary__ChunkWrite write = GRANARY__CHUNK_WRITE__INIT;
	write.chunk = UINT64_MAX;
	write.offset = 4096;
	write.n_replicas = 2;
	write.replicas = replicas;
	write.crcs = message_borrow(slice_text("1234"));
	struct buf packed = { 0 };
	buf_append(&packed, "x", 1);
	message_pack(&write.base, &packed);
	ProtobufCMessage *out = NULL;
	assert_int_equal(message_unpack(&granary__chunk_write__descriptor, slice_of(packed.bytes + 1, packed.size - 1), &out), OK);
	ProtobufCMessage *copy = message_copy(out);
	message_free(out);
	const Granary__ChunkWrite *read = (const Granary__ChunkWrite *)copy;
	assert_true(read->chunk == UINT64_MAX);
	assert_int_equal(read->n_replicas, 2);
	assert_string_equal(read->replicas[1]->address, "10.0.0.1:7101");
	assert_true(slice_equal(message_bytes(read->crcs), slice_text("1234")));
	message_free(copy);
	message_free(NULL);
	buf_deinit(&packed);

	/* An empty message packs to nothing and comes back. */
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	message_pack(&empty.base, &packed);
	assert_int_equal(packed.size, 0);
	assert_int_equal(message_unpack(&granary__empty__descriptor, buf_slice(&packed), &out), OK);
	message_free(out);
	buf_deinit(&packed);
}

/* Whole, a message is what it is in pieces. */
static void check_whole(const ProtobufCMessage *message)
{
	struct buf packed = { 0 }, again = { 0 };
	const ProtobufCMessage *whole = NULL;
	message_pack(message, &packed);
	assert_int_equal(message_unpack_whole(message->descriptor, buf_slice(&packed), &whole), OK);
	message_pack(whole, &again);
	assert_true(slice_equal(buf_slice(&packed), buf_slice(&again)));
	message_ref(whole);
	message_unref(whole);
	buf_clear(&again);
	message_pack(whole, &again);
	assert_true(slice_equal(buf_slice(&packed), buf_slice(&again)));
	message_unref(whole);
	buf_deinit(&packed);
	buf_deinit(&again);
}

/* Made by hand, in more than one block, with pieces of all kinds. */
static void test_message_open_whole(void **state)
{
	(void)state;
	Granary__MetaReply *reply = message_open_whole(&granary__meta_reply__descriptor);
	Granary__MetaResult *result = message_alloc_message(&reply->base, &granary__meta_result__descriptor);
	reply->results = message_alloc_element(&reply->base, NULL, 0, sizeof(*reply->results));
	reply->results[reply->n_results++] = result;
	for (uint64_t i = 0; i < 1000; i++) {
		result->visited = message_alloc_element(&reply->base, result->visited, result->n_visited, sizeof(*result->visited));
		result->visited[result->n_visited++] = i;
	}
	result->name = message_alloc_bytes(&reply->base, slice_text("name"));
	result->value = message_alloc_bytes(&reply->base, slice_of(NULL, 0));
	memset(message_alloc(&reply->base, 3 * MIB), 1, 3 * MIB);
	assert_string_equal(message_alloc_text(&reply->base, "text"), "text");
	message_ref(&reply->base);
	message_unref(&reply->base);
	for (uint64_t i = 0; i < 1000; i++)
		assert_true(result->visited[i] == i);
	assert_true(slice_equal(message_bytes(result->name), slice_text("name")));
	check_whole(&reply->base);
	message_unref(&reply->base);
}

/* As message_unpack reads them; what is unknown or no number is passed over, what is cut is refused. */
static void test_message_numbers(void **state)
{
	(void)state;
	Granary__Dirent dirent = GRANARY__DIRENT__INIT, read;
	struct buf packed = { 0 };
	for (unsigned shift = 0; shift < 64; shift++) {
		dirent.inode = UINT64_MAX >> shift;
		dirent.type = (uint32_t)(UINT64_MAX >> shift);
		buf_clear(&packed);
		message_pack(&dirent.base, &packed);
		assert_int_equal(message_read_numbers(&granary__dirent__descriptor, buf_slice(&packed), &read.base), OK);
		assert_true(read.inode == dirent.inode && read.type == dirent.type);
		/* Cut within a field it is none; between the two fields it is a Dirent of one. */
		struct slice cut = slice_of(packed.bytes, packed.size - 1);
		assert_int_equal(message_read_numbers(&granary__dirent__descriptor, cut, &read.base), ERR_PROTOCOL);
	}
	static const uint8_t unknown[] = { 0xf8, 0x3f, 5, 0x1a, 2, 'a', 'b', 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x2d, 1, 2, 3, 4, 0x08, 9 };
	assert_int_equal(message_read_numbers(&granary__dirent__descriptor, slice_of(unknown, sizeof(unknown)), &read.base), OK);
	assert_true(read.inode == 9 && read.type == 0 && read.base.n_unknown_fields == 0);
	static const uint8_t zero[] = { 0x00, 1 }, group[] = { 0x0b }, beyond[] = { 0x1a, 3, 'a', 'b' };
	assert_int_equal(message_read_numbers(&granary__dirent__descriptor, slice_of(zero, 2), &read.base), ERR_PROTOCOL);
	assert_int_equal(message_read_numbers(&granary__dirent__descriptor, slice_of(group, 1), &read.base), ERR_PROTOCOL);
	assert_int_equal(message_read_numbers(&granary__dirent__descriptor, slice_of(beyond, 4), &read.base), ERR_PROTOCOL);
	buf_deinit(&packed);
}

static enum err unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t size)
{
	ProtobufCMessage *out = NULL;
	const ProtobufCMessage *whole;
	enum err err = message_unpack(descriptor, slice_of(bytes, size), &out);
	assert_true((err == OK) == (out != NULL));
	assert_int_equal(message_unpack_whole(descriptor, slice_of(bytes, size), &whole), err);
	assert_true((err == OK) == (whole != NULL));
	if (out != NULL)
		check_whole(out);
	message_free(out);
	message_unref(whole);
	return err;
}

/* A directory's names with attributes of more fields than the parser has scratch memory for, in more than one block. */
static void test_message_whole(void **state)
{
	(void)state;
	Granary__Inode inode = GRANARY__INODE__INIT;
	inode.mode = 0100644;
	inode.uid = inode.gid = 1000;
	inode.nlink = inode.layout = inode.slot = inode.rdev = inode.xattrs = 1;
	inode.size = inode.blob_bytes = 77;
	inode.atime = inode.mtime = inode.ctime = inode.btime = INT64_MAX;
	inode.change = inode.data_change = inode.pack = inode.trim = inode.parent = inode.blocks = UINT64_MAX;
	inode.symlink = message_borrow(slice_text("over there"));
	Granary__DirectoryEntry entries[READDIR_ENTRIES_MAX], *list[READDIR_ENTRIES_MAX];
	char names[READDIR_ENTRIES_MAX][NAME_BYTES_MAX];
	memset(names, 'n', sizeof(names));
	for (size_t i = 0; i < READDIR_ENTRIES_MAX; i++) {
		granary__directory_entry__init(&entries[i]);
		entries[i].name = message_borrow(slice_of(names[i], i % (NAME_BYTES_MAX + 1)));
		entries[i].attr = &inode;
		list[i] = &entries[i];
	}
	Granary__MetaResult result = GRANARY__META_RESULT__INIT, *results[] = { &result };
	Granary__MetaReply reply = GRANARY__META_REPLY__INIT;
	result.entries = list;
	reply.n_results = 1;
	reply.results = results;
	static const size_t counts[] = { 0, 1, 2, 63, READDIR_ENTRIES_MAX };
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		result.n_entries = counts[i];
		check_whole(&reply.base);
	}
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	check_whole(&empty.base);
	message_unref(NULL);
}

static void test_message_array_bounds(void **state)
{
	(void)state;
	/* `count` empty submessages of field `tag`, two bytes each. */
	uint8_t *bytes = malloc(2 * 200000);
	for (size_t i = 0; i < 200000; i++) {
		bytes[2 * i] = 4 << 3 | 2; /* MetaRequest.ops */
		bytes[2 * i + 1] = 0;
	}
	assert_int_equal(unpack(&granary__meta_request__descriptor, bytes, 2 * META_OPS_PER_BATCH_MAX), OK);
	assert_int_equal(unpack(&granary__meta_request__descriptor, bytes, 2 * META_OPS_PER_BATCH_MAX + 2), ERR_PROTOCOL);
	for (size_t i = 0; i < 200000; i++)
		bytes[2 * i] = 1 << 3 | 2; /* MetaReply.results; ChunkWrite has no field 1 of this kind */
	assert_int_equal(unpack(&granary__meta_reply__descriptor, bytes, 2 * META_OPS_PER_BATCH_MAX), OK);
	/* Two bytes each on the wire, hundreds in memory: refused before they are allocated. */
	assert_int_equal(unpack(&granary__meta_reply__descriptor, bytes, 2 * 200000), ERR_PROTOCOL);
	for (size_t i = 0; i < 200000; i++)
		bytes[2 * i] = 6 << 3 | 2; /* ChunkWrite.replicas */
	assert_int_equal(unpack(&granary__chunk_write__descriptor, bytes, 2 * REPLICAS_MAX), OK);
	assert_int_equal(unpack(&granary__chunk_write__descriptor, bytes, 2 * REPLICAS_MAX + 2), ERR_PROTOCOL);
	free(bytes);
}

/* Found by fuzz_message: field number 0 in a tag of two bytes was taken, and packed as one that nobody takes. */
static void test_message_field_zero(void **state)
{
	(void)state;
	static const uint8_t shortest[] = { 0x01, 0, 0, 0, 0, 0, 0, 0, 0 }, longer[] = { 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
	assert_int_equal(unpack(&granary__chunk_location__descriptor, shortest, sizeof(shortest)), ERR_PROTOCOL);
	assert_int_equal(unpack(&granary__chunk_location__descriptor, longer, sizeof(longer)), ERR_PROTOCOL);
	/* Within a submessage, too: MetaRequest.ops. */
	static const uint8_t inner[] = { 0x22, sizeof(longer), 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
	assert_int_equal(unpack(&granary__meta_request__descriptor, inner, sizeof(inner)), ERR_PROTOCOL);
	/* A field of a later version is taken and kept. */
	static const uint8_t unknown[] = { 0xf8, 0x3f, 0x05 };
	ProtobufCMessage *message = NULL;
	struct buf packed = { 0 };
	assert_int_equal(message_unpack(&granary__chunk_location__descriptor, slice_of(unknown, 3), &message), OK);
	message_pack(message, &packed);
	assert_true(slice_equal(buf_slice(&packed), slice_of(unknown, 3)));
	buf_deinit(&packed);
	message_free(message);
}

static void test_message_cut_and_random(void **state)
{
	(void)state;
	struct rng rng;
	rng_init(&rng, 4711);
	Granary__Hello hello = GRANARY__HELLO__INIT;
	hello.version = (char *)(uintptr_t)"0.1.0";
	hello.id = 1ull << 60;
	struct buf packed = { 0 };
	message_pack(&hello.base, &packed);
	unsigned refused = 0;
	for (size_t size = 1; size < packed.size; size++)
		refused += unpack(&granary__hello__descriptor, packed.bytes, size) != OK;
	assert_true(refused > packed.size / 2);
	buf_deinit(&packed);
	for (unsigned round = 0; round < 20000; round++) {
		uint8_t noise[64];
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)rng_next(&rng);
		const ProtobufCMessageDescriptor *descriptor = message_request((unsigned)rng_below(&rng, MESSAGE_TYPES_MAX));
		if (descriptor != NULL)
			(void)unpack(descriptor, noise, rng_below(&rng, sizeof(noise)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frame_round_trip),   cmocka_unit_test(test_frame_every_bit_counts),
		cmocka_unit_test(test_frame_bounds),	   cmocka_unit_test(test_message_list),
		cmocka_unit_test(test_message_round_trip),
		cmocka_unit_test(test_message_whole),
		cmocka_unit_test(test_message_open_whole),
		cmocka_unit_test(test_message_numbers), cmocka_unit_test(test_message_array_bounds),
		cmocka_unit_test(test_message_field_zero), cmocka_unit_test(test_message_cut_and_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
