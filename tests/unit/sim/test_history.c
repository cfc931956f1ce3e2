/* The history checker against histories that are known to be possible, or not; and against a search through all orders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "tests/sim/history.h"

/* A history in words: "w1(3" client 1 begins to write 3, "w1)" it ends, "w1]" it ends synced; "r2(" "r2)3"; "c1(4" create, "d1(" remove,
 * "c1!" refused; "X" power cut. Anything that has no end never does. */
static bool is_possible(const char *text)
{
	struct history *history = history_open(1);
	struct history_report report;
	uint32_t under_way[10] = { 0 };
	uint64_t now = 0;
	FILE *out = fopen("/dev/null", "w");
	for (const char *at = text; *at; at++, now++) {
		if (*at == ' ')
			continue;
		if (*at == 'X') {
			history_power_cut(history, 0, now);
			continue;
		}
		enum history_kind kind = *at == 'r' ? HISTORY_READ : *at == 'w' ? HISTORY_WRITE : *at == 'c' ? HISTORY_CREATE : HISTORY_REMOVE;
		unsigned client = (unsigned)(at[1] - '0');
		char sign = at[2];
		uint64_t value = strtoull(at + 3, NULL, 10);
		if (sign == '(')
			under_way[client] = history_begin(history, 0, kind, value, client, now);
		else if (sign == ']')
			history_done_synced(history, under_way[client], now);
		else if (sign == '!')
			history_refused(history, under_way[client], now);
		else
			history_done(history, under_way[client], value, now);
		at += 2 + strspn(at + 3, "0123456789");
	}
	bool possible = history_check(history, &report, out);
	assert_int_equal(report.undecided, 0);
	fclose(out);
	history_close(history);
	return possible;
}

static void test_one_after_another(void **state)
{
	(void)state;
	assert_true(is_possible(""));
	assert_true(is_possible("r1( r1)0"));
	assert_true(is_possible("w1(1 w1) r2( r2)1 w2(2 w2) r1( r1)2"));
	assert_false(is_possible("r1( r1)1"));
	assert_false(is_possible("w1(1 w1) r2( r2)0"));
	assert_false(is_possible("w1(1 w1) w1(2 w1) r2( r2)1"));
	assert_false(is_possible("w1(1 w1) r2( r2)1 r2( r2)0"));
}

static void test_at_the_same_time(void **state)
{
	(void)state;
	assert_true(is_possible("w1(1 r2( r2)0 w1)"));
	assert_true(is_possible("w1(1 r2( r2)1 w1)"));
	assert_true(is_possible("w1(1 r2( w1) r2)0"));
	assert_true(is_possible("w1(1 w2(2 w1) w2) r3( r3)1"));
	assert_true(is_possible("w1(1 w2(2 w1) w2) r3( r3)2"));
	/* What one has read nobody reads older. */
	assert_false(is_possible("w1(1 r2( r2)1 r3( r3)0 w1)"));
	assert_true(is_possible("w1(1 r2( r3( r2)1 r3)0 w1)"));
	/* A read under way while both are written. */
	assert_true(is_possible("w1(1 r3( w2(2 w2) r3)1 r4( r4)2 w1)"));
	assert_false(is_possible("w1(1 w1) w2(2 r3( w2) r4( r4)1 r3)2"));
	assert_false(is_possible("w1(1 w2(2 w1) w2) r3( r3)1 r4( r4)2"));
}

static void test_without_an_answer(void **state)
{
	(void)state;
	assert_true(is_possible("w1(1 r2( r2)0 r2( r2)0 r2( r2)1"));
	assert_true(is_possible("w1(1 w2(2 w2) r2( r2)2 r2( r2)1"));
	assert_false(is_possible("w1(1 w2(2 w2) r2( r2)1 r2( r2)2"));
	assert_false(is_possible("w1(1 r2( r2)1 r2( r2)0"));
	assert_false(is_possible("w1(1 w2(2 w2) r2( r2)0"));
	assert_true(is_possible("r1( w2(1 w2) r2( r2)1"));
}

static void test_names(void **state)
{
	(void)state;
	assert_true(is_possible("c1(1 c1) c2(2 c2! r2( r2)1 d1( d1) c2(3 c2) r1( r1)3"));
	assert_false(is_possible("c1(1 c1) c2(2 c2)"));
	assert_false(is_possible("c1(1 c1!"));
	assert_true(is_possible("c1(1 c2(2 c2! c1)"));
	assert_true(is_possible("c1(1 c2(2 c2) c1!"));
	assert_false(is_possible("c1(1 c2(2 c2) c1) "));
	assert_false(is_possible("d1( d1)"));
	assert_true(is_possible("d1( d1! c1(1 c1) d2( d2) d1( d1!"));
	/* A removal without an answer is seen by nobody but the next one. */
	assert_true(is_possible("c1(1 c1) d1( d2( d2! r2( r2)0"));
	assert_false(is_possible("c1(1 c1) d2( d2!"));
	/* It has happened once, not twice. */
	assert_false(is_possible("c1(1 c1) d1( r2( r2)0 c2(2 c2) r2( r2)2 r3( r3)0"));
}

static void test_power_cuts(void **state)
{
	(void)state;
	assert_true(is_possible("w1(1 w1) X r2( r2)0"));
	assert_true(is_possible("w1(1 w1) X r2( r2)1"));
	assert_true(is_possible("w1(1 w1) w1(2 w1) w1(3 w1) X r2( r2)2"));
	assert_true(is_possible("w1(1 w1] w1(2 w1) X r2( r2)1"));
	assert_false(is_possible("w1(1 w1] w1(2 w1) X r2( r2)0"));
	assert_false(is_possible("w1(1 w1] X r2( r2)0"));
	/* It goes back once, not to and fro. */
	assert_false(is_possible("w1(1 w1) X r2( r2)0 r2( r2)1"));
	assert_false(is_possible("w1(1 w1) X r2( r2)1 r2( r2)0"));
	assert_true(is_possible("w1(1 w1) X r2( r2)1 X r2( r2)0 X r2( r2)0"));
	assert_false(is_possible("w1(1 w1) X r2( r2)0 X r2( r2)1"));
	/* A sync that is under way may have been too late; one that has ended was not. */
	assert_true(is_possible("w1(1 X r2( r2)1 w1]"));
	assert_true(is_possible("w1(1 X r2( r2)0 w1]"));
	/* What is lost while it is under way is done again, or not. */
	assert_true(is_possible("w1(1 r2( r2)1 X r2( r2)0 w1] r2( r2)1"));
	assert_false(is_possible("w1(1 r2( r2)1 X r2( r2)0 w1] r2( r2)0"));
	assert_true(is_possible("w1(1 r2( r2)1 X w1) r2( r2)0"));
	assert_false(is_possible("w1(1 X w1] r2( r2)0"));
	assert_false(is_possible("w1(1 r2( r2)1 w2(2 w2) r2( r2)2 r2( r2)1 w1)"));
	assert_false(is_possible("w1(1 r2( r2)1 w2(2 w2) r2( r2)1 w1)"));
	/* Another's write before it is as good as synced: it is not seen again. */
	assert_false(is_possible("w2(2 w2) w1(1 w1] w2(3 w2) X r2( r2)2"));
}

/* ---- random histories of what is linearizable, and the same with one answer changed, against a search through all orders */

#define STEPS 7u

struct small {
	unsigned count;
	struct {
		bool write;
		uint64_t value;
		unsigned begin, end; /* positions in time; end 0: never */
	} operations[STEPS];
};

static bool search(const struct small *small, unsigned taken, uint64_t value)
{
	unsigned missing = 0;
	for (unsigned i = 0; i < small->count; i++)
		missing += !(taken >> i & 1) && small->operations[i].end;
	if (missing == 0)
		return true;
	for (unsigned i = 0; i < small->count; i++) {
		bool can = !(taken >> i & 1);
		for (unsigned j = 0; j < small->count && can; j++)
			can = (taken >> j & 1) || j == i || !small->operations[j].end || small->operations[j].end > small->operations[i].begin;
		if (!can || (!small->operations[i].write && small->operations[i].value != value))
			continue;
		if (search(small, taken | 1u << i, small->operations[i].write ? small->operations[i].value : value))
			return true;
	}
	return false;
}

static bool check_small(const struct small *small)
{
	struct history *history = history_open(1);
	struct history_report report;
	uint32_t numbers[STEPS];
	FILE *out = fopen("/dev/null", "w");
	for (unsigned at = 1; at <= 2 * STEPS; at++)
		for (unsigned i = 0; i < small->count; i++) {
			if (small->operations[i].begin == at)
				numbers[i] = history_begin(history, 0, small->operations[i].write ? HISTORY_WRITE : HISTORY_READ,
							   small->operations[i].write ? small->operations[i].value : 0, i, at);
			if (small->operations[i].end == at)
				history_done(history, numbers[i], small->operations[i].value, at);
		}
	bool possible = history_check(history, &report, out);
	fclose(out);
	history_close(history);
	return possible;
}

static void test_against_search(void **state)
{
	unsigned possible = 0;
	(void)state;
	for (uint64_t seed = 1; seed <= 20000; seed++) {
		struct small small = { .count = STEPS };
		struct rng rng;
		unsigned open[STEPS], open_count = 0, next = 0;
		rng_init(&rng, seed);
		for (unsigned at = 1; at <= 2 * STEPS; at++) {
			bool begins = next < STEPS && (open_count == 0 || rng_below(&rng, 2) == 0);
			if (begins) {
				small.operations[next].write = rng_below(&rng, 2) == 0;
				small.operations[next].value = small.operations[next].write ? next + 1 : rng_below(&rng, 4);
				small.operations[next].begin = at;
				open[open_count++] = next++;
			} else if (open_count > 0) {
				unsigned i = (unsigned)rng_below(&rng, open_count), number = open[i];
				open[i] = open[--open_count];
				/* A read without an answer says nothing; a write may be lost. */
				if (!small.operations[number].write || rng_below(&rng, 5) != 0)
					small.operations[number].end = at;
			}
		}
		assert_int_equal(check_small(&small), search(&small, 0, 0));
		possible += search(&small, 0, 0);
	}
	assert_true(possible > 500 && possible < 19500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_after_another),
		cmocka_unit_test(test_at_the_same_time),
		cmocka_unit_test(test_without_an_answer),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_power_cuts),
		cmocka_unit_test(test_against_search),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
