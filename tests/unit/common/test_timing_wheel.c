/* The timing wheel against a plain list: nothing too early, nothing too late, nothing twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "common/base/timing_wheel.h"

#define ENTRIES 500u

struct item {
	struct wheel_entry entry;
	uint64_t due; /* 0: not in */
};

static void test_empty(void **state)
{
	(void)state;
	struct timing_wheel wheel;
	timing_wheel_init(&wheel, 5);
	assert_null(timing_wheel_take(&wheel, 1ull << 60));
	struct wheel_entry entry = {0};
	timing_wheel_remove(&wheel, &entry);
	timing_wheel_add(&wheel, &entry, 3); /* over: at once */
	assert_null(timing_wheel_take(&wheel, 1ull << 60));
	assert_ptr_equal(timing_wheel_take(&wheel, (1ull << 60) + 1), &entry);
	assert_int_equal(wheel.count, 0);
}

/* Further away than the wheel is long. */
static void test_far(void **state)
{
	(void)state;
	struct timing_wheel wheel;
	struct wheel_entry entry = {0};
	uint64_t far = 3ull << (TIMING_WHEEL_BITS * TIMING_WHEEL_LEVELS);
	timing_wheel_init(&wheel, 63);
	timing_wheel_add(&wheel, &entry, far + 7);
	assert_null(timing_wheel_take(&wheel, far + 6));
	assert_ptr_equal(timing_wheel_take(&wheel, far + 7), &entry);
}

static uint64_t some_ticks(struct rng *rng)
{
	static const uint64_t most[] = {2, 64, 65, 4096, 5000, 300000};
	return rng_below(rng, most[rng_below(rng, sizeof most / sizeof *most)]);
}

static void take_all(struct timing_wheel *wheel, struct item *items, uint64_t tick)
{
	uint64_t last = 0;
	struct wheel_entry *entry;
	while ((entry = timing_wheel_take(wheel, tick))) {
		struct item *item = (struct item *)(void *)entry;
		assert_true(item->due > 0 && item->due <= tick && item->due >= last);
		last = item->due;
		item->due = 0;
	}
	for (unsigned i = 0; i < ENTRIES; i++)
		assert_true(items[i].due == 0 || items[i].due > tick);
}

static void test_against_list(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct item *items = calloc(ENTRIES, sizeof(*items));
		struct timing_wheel wheel;
		struct rng rng;
		rng_init(&rng, seed);
		uint64_t now = rng_below(&rng, 100000);
		timing_wheel_init(&wheel, now + 1);
		for (unsigned step = 0; step < 3000; step++) {
			struct item *item = &items[rng_below(&rng, ENTRIES)];
			switch (rng_below(&rng, 4)) {
			case 0:
				timing_wheel_remove(&wheel, &item->entry);
				item->due = 0;
				break;
			case 1:
				now += some_ticks(&rng) / 16;
				take_all(&wheel, items, now);
				break;
			default:
				if (item->due == 0) {
					item->due = now + 1 + some_ticks(&rng);
					timing_wheel_add(&wheel, &item->entry, item->due);
				}
				break;
			}
		}
		take_all(&wheel, items, now + 300001);
		assert_int_equal(wheel.count, 0);
		free(items);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_empty),
	    cmocka_unit_test(test_far),
	    cmocka_unit_test(test_against_list),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
