#include "fuse/patience.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

struct signal_sets {
	uint64_t own, shared, blocked, ignored, caught;
};

static enum signals judge(const struct signal_sets *sets)
{
	char text[512];

	snprintf(text, sizeof text,
		 "Name:\tcat\nState:\tS (sleeping)\nSigQ:\t1/95000\nSigPnd:\t%016llx\nShdPnd:\t%016llx\nSigBlk:\t%016llx\n"
		 "SigIgn:\t%016llx\nSigCgt:\t%016llx\nCapInh:\t0000000000000000\n",
		 (unsigned long long)sets->own, (unsigned long long)sets->shared, (unsigned long long)sets->blocked,
		 (unsigned long long)sets->ignored, (unsigned long long)sets->caught);
	return patience_signals(text);
}

#define BIT(number) (1ull << ((number) - 1))
enum { KILL = 9, INTERRUPT = 2, QUIT = 3, ALARM = 14, CHILD = 17, STOPPED = 19, WINDOW = 28 };

static void test_signals(void **state)
{
	(void)state;
	static const struct {
		struct signal_sets sets;
		enum signals judgement;
	} cases[] = {
	    {{0}, SIGNALS_NONE},
	    {{.own = BIT(KILL)}, SIGNALS_DEADLY},
	    {{.own = BIT(KILL), .caught = ~0ull, .blocked = ~0ull}, SIGNALS_DEADLY},
	    {{.shared = BIT(QUIT)}, SIGNALS_DEADLY},
	    {{.shared = BIT(INTERRUPT), .caught = BIT(INTERRUPT)}, SIGNALS_CAUGHT},
	    {{.shared = BIT(ALARM), .ignored = BIT(ALARM)}, SIGNALS_NONE},
	    {{.shared = BIT(ALARM), .blocked = BIT(ALARM)}, SIGNALS_NONE},
	    {{.shared = BIT(ALARM), .blocked = BIT(ALARM), .caught = BIT(ALARM)}, SIGNALS_NONE},
	    {{.shared = BIT(CHILD) | BIT(WINDOW) | BIT(STOPPED)}, SIGNALS_NONE},
	    {{.shared = BIT(CHILD) | BIT(QUIT)}, SIGNALS_DEADLY},
	    {{.shared = BIT(CHILD), .caught = BIT(CHILD)}, SIGNALS_CAUGHT},
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(judge(&cases[i].sets), cases[i].judgement);
	assert_int_equal(patience_signals(""), SIGNALS_NONE);
	assert_int_equal(patience_signals("\nSigPnd:"), SIGNALS_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_signals)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
