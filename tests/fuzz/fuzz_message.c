/* Every message of the schema, chosen by the first byte: what unpacks can be packed again, and then is the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/proto/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const ProtobufCMessageDescriptor *const stored[] = {
	&granary__error_reply__descriptor, &granary__raft_entry__descriptor, &granary__raft_membership__descriptor, &granary__log_entry__descriptor,
	&granary__inode__descriptor,	   &granary__dirent__descriptor,     &granary__chunk__descriptor,
	&granary__chunk_pointer__descriptor, &granary__server__descriptor,   &granary__session__descriptor,
	&granary__slot_reply__descriptor,  &granary__lock_table__descriptor, &granary__garbage__descriptor,
};
#define STORED (sizeof(stored) / sizeof(stored[0]))

static const ProtobufCMessageDescriptor *choose(unsigned number)
{
	if (number < STORED)
		return stored[number];
	number -= STORED;
	return number % 2 == 0 ? message_request(number / 2) : message_reply(number / 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	if (size == 0)
		return 0;
	const ProtobufCMessageDescriptor *descriptor = choose(bytes[0]);
	ProtobufCMessage *message = NULL, *again = NULL;
	const ProtobufCMessage *whole = NULL;
	if (descriptor == NULL)
		return 0;
	struct slice input = slice_of(bytes + 1, size - 1);
	if (message_unpack_whole(descriptor, input, &whole) != OK)
		whole = NULL;
	if (message_unpack(descriptor, input, &message) != OK)
		goto done;
	struct buf once = { 0 }, twice = { 0 };
	message_pack(message, &once);
	/* Which one runs into the bound of memory first depends on the message. */
	if (whole != NULL)
		message_pack(whole, &twice);
	check(whole == NULL || slice_equal(buf_slice(&once), buf_slice(&twice)));
	buf_clear(&twice);
	if (descriptor == &granary__dirent__descriptor) {
		const Granary__Dirent *dirent = (const Granary__Dirent *)message;
		Granary__Dirent read;
		check(message_read_numbers(descriptor, input, &read.base) == OK);
		check(read.inode == dirent->inode && read.type == dirent->type);
	}
	/* What is put into a log entry or a store must come out again. */
	check(message_unpack(descriptor, buf_slice(&once), &again) == OK);
	message_pack(again, &twice);
	check(slice_equal(buf_slice(&once), buf_slice(&twice)));
	message_free(message_copy(message));
	message_free(message);
	message_free(again);
	buf_deinit(&once);
	buf_deinit(&twice);
done:
	message_unref(whole);
	return 0;
}
