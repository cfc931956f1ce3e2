/* What the files of a client of sim_names share (names_client.h). */
#ifndef GRANARY_TESTS_SIM_NAMES_INTERNAL_H
#define GRANARY_TESTS_SIM_NAMES_INTERNAL_H

#include "client/client.h"
#include "common/proto/message.h"
#include "tests/sim/names_client.h"

#define RECENT 12u
#define LOOKS_MAX 128u

struct cached {
	uint64_t until_ms, seen_ms;
	uint16_t inode; /* last known under the name, also when that time is over */
};

/* A change that the client accepted and the master may not know yet. */
struct deferred {
	struct deferred *previous, *next;
	struct program *program;
	uint32_t number;
	uint64_t inode;	    /* that it concerns; settled when no change of it is on its way (has_done: when told) */
	struct file_io *io; /* open */
	struct timer timer; /* until it is closed */
	bool has_done;
};

/* An invalidation that is acknowledged a little later. */
struct slow_ack {
	struct slow_ack *previous, *next;
	struct program *program;
	struct timer timer;
	void (*done)(void *arg);
	void *arg;
};

struct program {
	struct world *world;
	struct history *history;
	unsigned number;
	struct loop *loop;
	struct client *client;
	struct timer timer;
	void (*then)(struct program *program); /* of the timer */
	struct cached (*cache)[MODEL_NAMES];
	bool *gone; /* directories that this client removed itself: the kernel asks no more */
	uint16_t recent[RECENT]; /* directories in the shared ones that it has come upon */
	uint16_t home;
	bool stopping;
	struct deferred *deferred;
	struct slow_ack *acks;
	/* The operation under way. */
	bool busy;
	enum record_kind kind;
	uint32_t mode; /* of what is made */
	uint16_t directory, to_directory;
	uint8_t name, to_name;
	uint16_t inode, replaced; /* as looked up */
	void (*found)(struct program *program, uint16_t inode);
	uint16_t looked_directory;
	uint8_t looked_name;
	uint32_t record;
	uint64_t sent_ms, epoch;
	/* The end. */
	uint16_t looks[LOOKS_MAX];
	unsigned looked, look_count;
};

struct rng *names_rng(const struct program *program);
bool one_in(const struct program *program, unsigned count);
void names_fail(const struct program *program, const char *what, uint32_t number, enum err err);
ProtobufCBinaryData name_bytes(uint8_t name);
uint16_t number_of(struct history *history, uint64_t id, uint32_t mode);
uint64_t id_of(const struct program *program, uint16_t inode);
bool is_directory(const struct program *program, uint16_t inode);
bool is_local(const struct program *program, uint16_t directory, uint8_t name);
void cache(struct program *program, uint16_t directory, uint8_t name, uint16_t inode, uint64_t until_ms, uint64_t seen_ms);

void later(struct program *program, uint64_t delay_ms, void (*then)(struct program *program));
/* The step is over, another follows. */
void step_end(struct program *program);
void barrier(struct program *program, uint64_t inode, void (*then)(struct program *program));

struct record *record_open(struct program *program, enum record_kind kind, uint16_t directory, uint8_t name);
struct record *record_now(const struct program *program);
void record_end(struct program *program, const char *how);
/* The result, or NULL: the operation's outcome will never be known. */
const Granary__MetaResult *answered(struct program *program, enum err err, const Granary__MetaReply *reply);
uint64_t lease_end(const struct program *program, const Granary__MetaResult *result);
void send_op(struct program *program, Granary__MetaOp *op, client_meta_fn *done);

/* names_change.c: what the step under way is, with what its names lead to (program->inode, ->replaced). */
void names_create(struct program *program);
void names_unlink(struct program *program);
void names_rename(struct program *program);
void names_chmod(struct program *program);

#endif
