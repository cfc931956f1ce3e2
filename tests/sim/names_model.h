/* What clients were told about names, and whether it can all be true: a history is linearizable (Wing and Gong 1993, with the just-in-time
 * order of Lowe 2017, "Testing for linearizability").
 *
 * Each record is one operation: begun, and ended with what the client was told. A deferred change (client/changes.h, creations.h) ends
 * when the client accepted it. The check keeps all states that the tree may be in, each with those of the pending operations that have
 * taken effect in it; what ends must have taken effect with just this answer in at least one of them. A lookup answered from a client's cache may be older: but nothing that was over
 * before it is missing.
 *
 * Some changes need not be true: of a client that stood still, or was cut off, for longer than its delegation lasts (weak, from then on
 * until the client is told what became of them), and those whose answer never came (weak for ever). What they change may be anything
 * meanwhile; but a name never leads to an inode that nobody meant to have there. */
#ifndef GRANARY_TESTS_SIM_NAMES_MODEL_H
#define GRANARY_TESTS_SIM_NAMES_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/err.h"

#define MODEL_NAMES 4u	 /* in each directory: "a" and so on */
#define MODEL_SHARED 3u /* directories, always there: inodes 1 to MODEL_SHARED */
#define MODEL_NOTHING 0u
#define MODEL_WILD 0xffffu /* may be anything */

enum record_kind { RECORD_CREATE, RECORD_UNLINK, RECORD_RMDIR, RECORD_RENAME, RECORD_CHMOD, RECORD_LOOKUP, RECORD_READDIR, RECORD_GETATTR };
enum record_fate { RECORD_PENDING, RECORD_ENDED, RECORD_UNKNOWN };

struct record {
	enum record_kind kind;
	enum record_fate fate;
	unsigned client;
	uint64_t begin_us, end_us;
	uint32_t begin_at, end_at; /* the same in the order of events */
	bool deferred, settled, weak;
	bool cached; /* a lookup answered from a cache */
	const char *how; /* where the answer came from; a literal */
	/* Inodes are small numbers given out by the test; MODEL_NOTHING: none. */
	uint16_t directory, to_directory;
	uint8_t name, to_name;
	enum err err;
	uint16_t inode;	   /* that was made, removed, moved or found */
	uint16_t replaced; /* rename */
	uint16_t mode;	   /* permissions that were given, or found */
	uint32_t nlink;	   /* found */
	uint16_t found[MODEL_NAMES]; /* readdir */
};

struct model;

struct model *model_open(void);
void model_close(struct model *model);
/* An inode is a directory, as its maker knows. */
void model_directory(struct model *model, uint16_t inode);
struct record *model_record(struct model *model, uint32_t number);
uint32_t model_count(const struct model *model);

/* The number of a new operation. */
uint32_t model_begin(struct model *model, const struct record *record);
/* The client was told so: what the record says now. */
void model_end(struct model *model, uint32_t number, uint64_t now_us);
/* Nobody will ever know. */
void model_unknown(struct model *model, uint32_t number);
/* A deferred change may not be true any more; later the client is told what became of it. */
void model_weak(struct model *model, uint32_t number);
void model_settled(struct model *model, uint32_t number);

/* The operation, and what was said of its directories before. */
void model_show(const struct model *model, uint32_t number, FILE *out);
/* Whether all this can be true; says on `out` what cannot. *states_max: the most states at a time. */
bool model_check(const struct model *model, uint32_t *states_max, FILE *out);

#endif
