/* Arbitrary requests on the state machine. The input is a list of requests, each after two bytes of its length (little
 * endian): every one that parses and passes meta_validate is asked or applied as from a client, with slot and sequence
 * put right so that it gets past them, and ids and replicas filled in as the leader would. A request of one operation
 * of the master itself is applied as such. In the end the store's invariants must hold. */
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

#include "common/base/bytes.h"
#include "master/meta/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define REQUESTS_MAX 64

/* The store is kept from input to input (opening one takes longer than all else); this many inputs share one. */
#define INPUTS_PER_STORE 200

struct fuzz {
	struct fixture fixture;
	bool is_open;
	unsigned inputs;
};

static void fill_in(struct fixture *f, Granary__MetaOp *op)
{
	static uint64_t replicas[3] = {1, 2, 3};
	switch (op->op_case) {
	case GRANARY__META_OP__OP_CREATE:
		op->create->id = f->next_id++;
		break;
	case GRANARY__META_OP__OP_ALLOCATE_CHUNK:
		op->allocate_chunk->id = f->next_id++;
		free(op->allocate_chunk->replicas);
		op->allocate_chunk->replicas = replicas;
		op->allocate_chunk->n_replicas = 3;
		break;
	case GRANARY__META_OP__OP_OPEN_PACK:
		op->open_pack->id = f->next_id++;
		free(op->open_pack->replicas);
		op->open_pack->replicas = replicas;
		op->open_pack->n_replicas = 3;
		break;
	case GRANARY__META_OP__OP_FSCK_REPAIR:
		/* Only the cross-check can know that no name leads to an inode. */
		if (op->fsck_repair->kind == CHECK_NAMELESS)
			op->fsck_repair->kind = CHECK_NONE;
		break;
	default:
		break;
	}
}

/* The replicas above are not the message's. */
static void take_back(Granary__MetaOp *op)
{
	if (op->op_case == GRANARY__META_OP__OP_ALLOCATE_CHUNK) {
		op->allocate_chunk->replicas = NULL;
		op->allocate_chunk->n_replicas = 0;
	} else if (op->op_case == GRANARY__META_OP__OP_OPEN_PACK) {
		op->open_pack->replicas = NULL;
		op->open_pack->n_replicas = 0;
	}
}

static void request_one(struct fixture *f, struct slice input)
{
	ProtobufCMessage *message = NULL;
	if (message_unpack(&granary__meta_request__descriptor, input, &message))
		return;
	Granary__MetaRequest *request = (Granary__MetaRequest *)message;
	bool is_own = request->n_ops == 1 && request->ops[0]->op_case >= GRANARY__META_OP__OP_CHUNK_CHANGE;
	request->session = is_own ? 0 : f->session;
	request->slot %= SESSION_SLOTS;
	request->sequence = is_own ? 0 : f->sequences[request->slot] + 1;
	enum err valid = meta_validate(request);
	Granary__MetaReply *reply = NULL;
	if ((is_own || !valid) && meta_is_query(request)) {
		check(meta_query(f->meta, request, &reply) == OK);
	} else if (is_own || !valid) {
		for (size_t i = 0; i < request->n_ops; i++)
			fill_in(f, request->ops[i]);
		if (!is_own)
			f->sequences[request->slot]++;
		fixture_apply(f, &request, 1, &reply);
		for (size_t i = 0; i < request->n_ops; i++)
			take_back(request->ops[i]);
	}
	if (reply) {
		check(reply->n_results == request->n_ops);
		check(protobuf_c_message_get_packed_size(&reply->base) <= FRAME_MESSAGE_BYTES_MAX);
		message_unref(&reply->base);
	}
	message_free(message);
}

static struct fuzz fuzz;

static void close_store(void)
{
	if (fuzz.is_open)
		fixture_close(&fuzz.fixture);
	fuzz = (struct fuzz){0};
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static bool registered;
	struct fixture *f = &fuzz.fixture;
	if (!registered)
		atexit(close_store);
	registered = true;
	if (fuzz.inputs++ >= INPUTS_PER_STORE)
		close_store();
	if (!fuzz.is_open) {
		fixture_open(f);
		trash_keep(f, 0);
		fuzz.is_open = true;
	}
	for (unsigned count = 0; size >= 2 && count < REQUESTS_MAX; count++) {
		size_t length = get_le16(bytes);
		bytes += 2;
		size -= 2;
		if (length > size)
			length = size;
		request_one(f, slice_of(bytes, length));
		bytes += length;
		size -= length;
	}
	invariants_check(f->kv);
	return 0;
}
