/* How long the disk takes: from times that the test makes up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "chunkserver/disk_health.h"
#include "common/base/limits.h"

#define START_US 5000000000ull

static void take(struct disk_health *health, uint64_t at_us, uint64_t took_us)
{
	struct work work = { 0 };
	disk_health_begin(health, &work, at_us);
	disk_health_end(health, &work, at_us + took_us);
}

static void latency_is_the_median_of_the_latest(void **state)
{
	struct disk_health health = { 0 };
	(void)state;
	assert_int_equal(disk_health_latency_us(&health, START_US), 0);
	take(&health, START_US, 100);
	take(&health, START_US, 900000);
	assert_int_equal(disk_health_latency_us(&health, START_US + 1000000), 0); /* too few to say */
	take(&health, START_US, 300);
	uint32_t median = disk_health_latency_us(&health, START_US + 1000000);
	assert_in_range(median, 300, 301);
	/* Long ago. */
	assert_int_equal(disk_health_latency_us(&health, START_US + (DISK_LATENCY_WINDOW_MS + 2000) * 1000ull), 0);
	/* Only so many of the latest count. */
	for (unsigned i = 0; i < DISK_LATENCIES; i++)
		take(&health, START_US, 5000);
	assert_in_range(disk_health_latency_us(&health, START_US + 1000000), 5000, 5001);
}

static void what_is_not_timed_does_not_count(void **state)
{
	struct disk_health health = { 0 };
	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		struct work work = { .of_owner = { .untimed = true } };
		disk_health_begin(&health, &work, START_US);
		disk_health_end(&health, &work, START_US + 100);
	}
	assert_int_equal(disk_health_latency_us(&health, START_US + 1000), 0);
}

static void what_does_not_end_hangs(void **state)
{
	struct disk_health health = { 0 };
	struct work first = { 0 }, second = { 0 }, third = { 0 };
	const uint64_t hung_us = DISK_HUNG_MS * 1000ull;
	(void)state;
	disk_health_begin(&health, &first, START_US);
	disk_health_begin(&health, &second, START_US + 10);
	disk_health_begin(&health, &third, START_US + 20);
	assert_false(disk_health_is_hung(&health, START_US + hung_us - 1));
	assert_true(disk_health_is_hung(&health, START_US + hung_us));
	/* One that has waited for longer than others took is the latency. */
	assert_int_equal(disk_health_latency_us(&health, START_US + hung_us), hung_us);
	/* They end in any order: the oldest that is left counts. */
	disk_health_end(&health, &second, START_US + hung_us);
	disk_health_end(&health, &first, START_US + hung_us);
	assert_false(disk_health_is_hung(&health, START_US + hung_us));
	assert_true(disk_health_is_hung(&health, START_US + 20 + hung_us));
	disk_health_end(&health, &third, START_US + 20 + hung_us);
	assert_false(disk_health_is_hung(&health, START_US + 10 * hung_us));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(latency_is_the_median_of_the_latest),
		cmocka_unit_test(what_is_not_timed_does_not_count),
		cmocka_unit_test(what_does_not_end_hangs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
