/* What clients were told about registers, and whether all of it can be true: each history is linearizable (Wing and Gong 1993; just-in-time
 * order with memoization, Lowe 2017, "Testing for linearizability").
 *
 * A register is a block of a chunk, or a name; its value is the number of a version, 0 at first and for "nothing there". Values that are
 * written are not 0 and never written twice. Each register is checked alone (linearizability is local).
 *
 * The check goes through the beginnings and ends of operations in order and keeps every state that the register may be in: its value and
 * which of the operations under way have taken effect. Where one ends those states stay in which it has taken effect with just this answer.
 * An operation whose answer never came may take effect at any time from its beginning on, or never.
 *
 * Power cuts: what is written is in doubt until it is synced. At a power cut the value may go back to any that it had since the newest
 * synced one; which it is counts from then on. A write under way that is lost so may take effect again, as it is tried again. A write that asks to be synced is two steps, the write and then the sync. */
#ifndef GRANARY_TESTS_SIM_HISTORY_H
#define GRANARY_TESTS_SIM_HISTORY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define HISTORY_PENDING_MAX 64u	  /* operations of one register under way at a time, with those that will never be answered */
#define HISTORY_UNSYNCED_MAX 96u  /* writes of one register that a power cut may still take back */
#define HISTORY_STATES_MAX 20000u /* above it a register is not decided */

enum history_kind {
	HISTORY_READ,
	HISTORY_WRITE,
	HISTORY_CREATE, /* only where nothing is; refused: something was there */
	HISTORY_REMOVE, /* only what is there; refused: nothing was */
};

struct history;

struct history *history_open(uint32_t registers);
void history_close(struct history *history);

/* A client begins an operation; value: what it writes, 0 for READ and REMOVE. The number of the operation is the caller's until it ends
 * it by exactly one of the following, or leaves it as it is: then its answer never came. */
uint32_t history_begin(struct history *history, uint32_t number, enum history_kind kind, uint64_t value, unsigned client, uint64_t now_us);
/* It was told: done; value: what READ found. */
void history_done(struct history *history, uint32_t operation, uint64_t value, uint64_t now_us);
/* The same of a WRITE, whose value is now on the disks. */
void history_done_synced(struct history *history, uint32_t operation, uint64_t now_us);
/* CREATE, REMOVE: see there. */
void history_refused(struct history *history, uint32_t operation, uint64_t now_us);
/* What was not synced of the register may be lost at this moment. */
void history_power_cut(struct history *history, uint32_t number, uint64_t now_us);

struct history_report {
	uint64_t operations;
	uint32_t undecided;  /* registers with too many states */
	uint32_t states_max; /* at one time */
};
/* False: something cannot be; `out` then has the operation and what was told of its register before. */
bool history_check(const struct history *history, struct history_report *report, FILE *out);

#endif
