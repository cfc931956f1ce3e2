#include "common/proto/message.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"

/* A message of n bytes may take this much memory when unpacked. The base lets META_OPS_PER_BATCH_MAX empty results
 * through; the factor is far above that of honest messages. An array of empty submessages beyond it is refused. */
#define UNPACKED_BYTES_BASE (1u * MIB)
#define UNPACKED_BYTES_FACTOR 32u

struct kind {
	const char *name;
	const ProtobufCMessageDescriptor *request;
	const ProtobufCMessageDescriptor *reply;
};

static const struct kind kinds[MESSAGE_TYPES_MAX] = {
#define X(symbol, wire, ask, answer)                                                                                   \
	[wire] = { .name = #symbol, .request = &granary__##ask##__descriptor, .reply = &granary__##answer##__descriptor },
	MESSAGE_LIST(X)
#undef X
};

const ProtobufCMessageDescriptor *message_request(unsigned type)
{
	return type < MESSAGE_TYPES_MAX ? kinds[type].request : NULL;
}

const ProtobufCMessageDescriptor *message_reply(unsigned type)
{
	return type < MESSAGE_TYPES_MAX ? kinds[type].reply : NULL;
}

const char *message_name(unsigned type)
{
	return type < MESSAGE_TYPES_MAX && kinds[type].name != NULL ? kinds[type].name : "?";
}

void message_pack(const ProtobufCMessage *message, struct buf *out)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	buf_reserve(out, out->size + size);
	size_t packed = size == 0 ? 0 : protobuf_c_message_pack(message, out->bytes + out->size);
	check(packed == size);
	out->size += size;
}

/* Arrays with a bound of their own; all others have MESSAGE_ARRAY_MAX. */
static const struct array_bound {
	const ProtobufCMessageDescriptor *message;
	const char *field;
	size_t count_max;
} array_bounds[] = {
	{ &granary__meta_request__descriptor, "ops", META_OPS_PER_BATCH_MAX },
	{ &granary__meta_reply__descriptor, "results", META_OPS_PER_BATCH_MAX },
	{ &granary__meta_result__descriptor, "entries", READDIR_ENTRIES_MAX },
	{ &granary__meta_result__descriptor, "names", XATTRS_PER_INODE_MAX },
	{ &granary__meta_result__descriptor, "trash", READDIR_ENTRIES_MAX },
	{ &granary__trash_remove__descriptor, "ids", TRASH_REMOVE_MAX },
	{ &granary__copy_remove__descriptor, "chunks", COPY_REMOVE_MAX },
	{ &granary__copy_remove__descriptor, "versions", COPY_REMOVE_MAX },
	{ &granary__chunk_write__descriptor, "replicas", REPLICAS_MAX },
	{ &granary__chunk_sync__descriptor, "replicas", REPLICAS_MAX },
	{ &granary__chunk_trim__descriptor, "replicas", REPLICAS_MAX },
	{ &granary__blob_append__descriptor, "replicas", REPLICAS_MAX },
	{ &granary__chunk_sums__descriptor, "replicas", REPLICAS_MAX },
	{ &granary__chunk_inspect__descriptor, "chunks", INSPECT_CHUNKS_MAX },
	{ &granary__sizes_request__descriptor, "inodes", SIZES_INODES_MAX },
	{ &granary__what_if_request__descriptor, "servers", SERVERS_MAX },
	{ &granary__chunk_read_reply__descriptor, "operations", CHUNK_OPS_REMEMBERED + CHUNK_OPS_PENDING_MAX },
};

static size_t array_max(const ProtobufCMessageDescriptor *descriptor, const char *field)
{
	for (size_t i = 0; i < sizeof(array_bounds) / sizeof(array_bounds[0]); i++) {
		if (array_bounds[i].message == descriptor && strcmp(array_bounds[i].field, field) == 0)
			return array_bounds[i].count_max;
	}
	return MESSAGE_ARRAY_MAX;
}

static bool is_within_bounds(const ProtobufCMessage *message);

static bool array_is_within_bounds(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	const char *base = (const char *)message;
	size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
	if (count == 0)
		return true;
	if (count > array_max(message->descriptor, field->name))
		return false;
	if (field->type != PROTOBUF_C_TYPE_MESSAGE)
		return true;
	ProtobufCMessage *const *elements = *(ProtobufCMessage *const *const *)(const void *)(base + field->offset);
	for (size_t i = 0; i < count; i++) {
		if (!is_within_bounds(elements[i]))
			return false;
	}
	return true;
}

/* Fields that this version does not know are kept and packed again. Number 0 is illegal; protobuf-c 1.4.1 refuses it only
 * in its shortest form, so that what came in the long form could be packed and never be unpacked: in a log entry that
 * would stop every master. Found by fuzz_message. */
static bool unknown_fields_are_valid(const ProtobufCMessage *message)
{
	for (unsigned i = 0; i < message->n_unknown_fields; i++) {
		if (message->unknown_fields[i].tag == 0)
			return false;
	}
	return true;
}

/* The schema has no recursive message, so the depth is that of the schema. */
static bool is_within_bounds(const ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *descriptor = message->descriptor;
	const char *base = (const char *)message;
	if (!unknown_fields_are_valid(message))
		return false;
	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			if (!array_is_within_bounds(message, field))
				return false;
			continue;
		}
		if (field->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
		    *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id)
			continue;
		const ProtobufCMessage *inner =
			*(const ProtobufCMessage *const *)(const void *)(base + field->offset);
		if (inner != NULL && !is_within_bounds(inner))
			return false;
	}
	return true;
}

/* ---- in pieces */

struct budget {
	size_t bytes_left;
};

static struct budget budget_of(struct slice bytes)
{
	return (struct budget){ .bytes_left = UNPACKED_BYTES_BASE + UNPACKED_BYTES_FACTOR * bytes.size };
}

static void *budget_alloc(void *arg, size_t size_bytes)
{
	struct budget *budget = arg;
	if (size_bytes > budget->bytes_left)
		return NULL;
	budget->bytes_left -= size_bytes;
	return mem_alloc(size_bytes);
}

static void budget_free(void *arg, void *memory)
{
	(void)arg;
	free(memory);
}

enum err message_unpack(const ProtobufCMessageDescriptor *descriptor, struct slice bytes, ProtobufCMessage **out)
{
	*out = NULL;
	if (bytes.size > FRAME_BYTES_MAX)
		return ERR_PROTOCOL;
	struct budget budget = budget_of(bytes);
	ProtobufCAllocator allocator = { .alloc = budget_alloc, .free = budget_free, .allocator_data = &budget };
	ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, bytes.size, bytes.bytes);
	if (message == NULL)
		return ERR_PROTOCOL;
	if (!is_within_bounds(message)) {
		message_free(message);
		return ERR_PROTOCOL;
	}
	*out = message;
	return OK;
}

void message_free(ProtobufCMessage *message)
{
	if (message != NULL)
		protobuf_c_message_free_unpacked(message, NULL);
}

ProtobufCMessage *message_copy(const ProtobufCMessage *message)
{
	struct buf packed = { 0 };
	message_pack(message, &packed);
	ProtobufCMessage *copy = protobuf_c_message_unpack(message->descriptor, NULL, packed.size, packed.bytes);
	check(copy != NULL);
	buf_deinit(&packed);
	return copy;
}

/* ---- numbers: the wire format's variable-length integers and keys, protobuf.dev/programming-guides/encoding */

static bool take_varint(struct slice *bytes, uint64_t *out)
{
	uint64_t value = 0;
	for (size_t i = 0; i < bytes->size && i < 10; i++) {
		value |= (uint64_t)(bytes->bytes[i] & 0x7f) << (7 * i);
		if (bytes->bytes[i] & 0x80)
			continue;
		*bytes = slice_of(bytes->bytes + i + 1, bytes->size - i - 1);
		*out = value;
		return true;
	}
	return false;
}

/* What is behind a key that is of no interest here. */
static bool skip_value(struct slice *bytes, unsigned wire_type)
{
	uint64_t size;
	if (wire_type == PROTOBUF_C_WIRE_TYPE_64BIT)
		size = 8;
	else if (wire_type == PROTOBUF_C_WIRE_TYPE_32BIT)
		size = 4;
	else if (wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED || !take_varint(bytes, &size))
		return false;
	if (size > bytes->size)
		return false;
	*bytes = slice_of(bytes->bytes + size, bytes->size - size);
	return true;
}

static void set_number(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, uint64_t value)
{
	void *place = (char *)message + field->offset;
	if (field->type == PROTOBUF_C_TYPE_UINT64) {
		*(uint64_t *)place = value;
	} else {
		check(field->type == PROTOBUF_C_TYPE_UINT32);
		*(uint32_t *)place = (uint32_t)value;
	}
}

enum err message_read_numbers(const ProtobufCMessageDescriptor *descriptor, struct slice bytes, ProtobufCMessage *out)
{
	protobuf_c_message_init(descriptor, out);
	while (bytes.size > 0) {
		uint64_t key, value;
		if (!take_varint(&bytes, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX)
			return ERR_PROTOCOL;
		if ((key & 7) != PROTOBUF_C_WIRE_TYPE_VARINT) {
			if (!skip_value(&bytes, key & 7))
				return ERR_PROTOCOL;
			continue;
		}
		if (!take_varint(&bytes, &value))
			return ERR_PROTOCOL;
		const ProtobufCFieldDescriptor *field =
			protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(key >> 3));
		if (field != NULL)
			set_number(out, field, value);
	}
	return OK;
}

/* ---- whole */

#define WHOLE_MAGIC 0x77686f6cu
#define WHOLE_ALIGNMENT 8u
/* What a message of n bytes takes when unpacked, as a rule; what is beyond it comes in blocks that double. */
#define WHOLE_FACTOR 4u
#define WHOLE_FIRST_BYTES 256u
#define WHOLE_FIRST_BYTES_MAX (64u * KIB)
#define WHOLE_BLOCK_BYTES_MAX (1u * MIB)

struct block {
	struct block *next;
	uint64_t memory[];
};

/* The start of the first block; behind it the message itself. */
struct whole {
	struct block *more;
	uint8_t *free; /* in the newest block */
	size_t free_bytes, block_bytes;
	uint32_t references;
	uint32_t magic;
	uint64_t message[];
};

static struct whole *whole_open(size_t block_bytes)
{
	struct whole *whole = mem_alloc(block_bytes);
	*whole = (struct whole){ .free = (uint8_t *)whole->message,
				 .free_bytes = block_bytes - sizeof(*whole),
				 .block_bytes = block_bytes,
				 .references = 1,
				 .magic = WHOLE_MAGIC };
	return whole;
}

static void whole_free(struct whole *whole)
{
	struct block *next;
	for (struct block *block = whole->more; block != NULL; block = next) {
		next = block->next;
		free(block);
	}
	whole->magic = 0;
	free(whole);
}

static struct whole *whole_of(const ProtobufCMessage *message)
{
	struct whole *whole = container_of((uintptr_t)message, struct whole, message);
	check(whole->magic == WHOLE_MAGIC);
	return whole;
}

/* NULL when that would take more than bytes_left, which new blocks are taken from. */
static void *whole_alloc(struct whole *whole, size_t size_bytes, size_t *bytes_left)
{
	if (size_bytes > *bytes_left + whole->free_bytes)
		return NULL;
	size_t bytes = (size_bytes + WHOLE_ALIGNMENT - 1) / WHOLE_ALIGNMENT * WHOLE_ALIGNMENT;
	if (bytes > whole->free_bytes) {
		size_t block_bytes = whole->block_bytes < WHOLE_BLOCK_BYTES_MAX / 2 ? 2 * whole->block_bytes : WHOLE_BLOCK_BYTES_MAX;
		if (block_bytes > *bytes_left)
			block_bytes = *bytes_left;
		if (block_bytes < sizeof(struct block) + bytes)
			block_bytes = sizeof(struct block) + bytes;
		if (block_bytes > *bytes_left)
			return NULL;
		*bytes_left -= block_bytes;
		struct block *block = mem_alloc(block_bytes);
		block->next = whole->more;
		whole->more = block;
		whole->block_bytes = block_bytes;
		whole->free = (uint8_t *)block->memory;
		whole->free_bytes = block_bytes - sizeof(*block);
	}
	void *memory = whole->free;
	whole->free += bytes;
	whole->free_bytes -= bytes;
	return memory;
}

/* While a message is being unpacked. What the parser gives back is its scratch memory for messages of many fields: it is kept for
 * the next of these, hence the size in front of each piece but the message itself. */
struct unpacking {
	struct whole *whole;
	struct budget budget;
	size_t *spare;
};

static void *unpacking_alloc(void *arg, size_t size_bytes)
{
	struct unpacking *unpacking = arg;
	if (unpacking->whole->free == (uint8_t *)unpacking->whole->message)
		return whole_alloc(unpacking->whole, size_bytes, &unpacking->budget.bytes_left);
	size_t *piece = unpacking->spare;
	if (piece != NULL && *piece == size_bytes) {
		unpacking->spare = NULL;
		return piece + 1;
	}
	if (size_bytes > SIZE_MAX / 2)
		return NULL;
	piece = whole_alloc(unpacking->whole, sizeof(*piece) + size_bytes, &unpacking->budget.bytes_left);
	if (piece == NULL)
		return NULL;
	*piece = size_bytes;
	return piece + 1;
}

static void unpacking_give_back(void *arg, void *memory)
{
	struct unpacking *unpacking = arg;
	if (memory != NULL && memory != unpacking->whole->message)
		unpacking->spare = (size_t *)memory - 1;
}

enum err message_unpack_whole(const ProtobufCMessageDescriptor *descriptor, struct slice bytes, const ProtobufCMessage **out)
{
	*out = NULL;
	if (bytes.size > FRAME_BYTES_MAX)
		return ERR_PROTOCOL;
	size_t first_bytes = WHOLE_FACTOR * bytes.size;
	if (first_bytes > WHOLE_FIRST_BYTES_MAX)
		first_bytes = WHOLE_FIRST_BYTES_MAX;
	first_bytes += sizeof(struct whole) + descriptor->sizeof_message + WHOLE_FIRST_BYTES;
	struct unpacking unpacking = { .whole = whole_open(first_bytes), .budget = budget_of(bytes) };
	unpacking.budget.bytes_left -= first_bytes;
	ProtobufCAllocator allocator = { .alloc = unpacking_alloc, .free = unpacking_give_back, .allocator_data = &unpacking };
	const ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, bytes.size, bytes.bytes);
	if (message == NULL || !is_within_bounds(message)) {
		whole_free(unpacking.whole);
		return ERR_PROTOCOL;
	}
	check(whole_of(message) == unpacking.whole);
	*out = message;
	return OK;
}

void *message_open_whole(const ProtobufCMessageDescriptor *descriptor)
{
	struct whole *whole = whole_open(sizeof(*whole) + descriptor->sizeof_message + WHOLE_FIRST_BYTES);
	size_t none = 0;
	ProtobufCMessage *message = whole_alloc(whole, descriptor->sizeof_message, &none);
	protobuf_c_message_init(descriptor, message);
	return message;
}

void *message_alloc(ProtobufCMessage *whole, size_t size_bytes)
{
	size_t unbounded = SIZE_MAX / 2;
	void *memory = whole_alloc(whole_of(whole), size_bytes, &unbounded);
	check(memory != NULL);
	return memory;
}

void *message_alloc_message(ProtobufCMessage *whole, const ProtobufCMessageDescriptor *descriptor)
{
	ProtobufCMessage *message = message_alloc(whole, descriptor->sizeof_message);
	protobuf_c_message_init(descriptor, message);
	return message;
}

ProtobufCBinaryData message_alloc_bytes(ProtobufCMessage *whole, struct slice bytes)
{
	ProtobufCBinaryData data = { .len = bytes.size };
	if (bytes.size > 0) {
		data.data = message_alloc(whole, bytes.size);
		memcpy(data.data, bytes.bytes, bytes.size);
	}
	return data;
}

char *message_alloc_text(ProtobufCMessage *whole, const char *text)
{
	return (char *)message_alloc_bytes(whole, slice_of(text, strlen(text) + 1)).data;
}

void *message_alloc_element(ProtobufCMessage *whole, void *array, size_t count, size_t element_bytes)
{
	/* Full whenever the count is a power of two. */
	if ((count & (count - 1)) != 0)
		return array;
	void *larger = message_alloc(whole, (count == 0 ? 1 : 2 * count) * element_bytes);
	if (count > 0)
		memcpy(larger, array, count * element_bytes);
	return larger;
}

void message_ref(const ProtobufCMessage *whole)
{
	whole_of(whole)->references++;
}

void message_unref(const ProtobufCMessage *whole)
{
	if (whole != NULL && --whole_of(whole)->references == 0)
		whole_free(whole_of(whole));
}
