#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/raft/raft_log.h"

static void append_given(struct raft_log *log, uint64_t term, uint64_t last)
{
	while (raft_log_last(log) < last)
		raft_log_append(log, term, RAFT_ENTRY_NORMAL, slice_text("x"));
	log->given = last;
}

/* The write of a deposed leader's suffix ends when another leader's entries, or the same ones given again, have taken its place. */
static void test_a_late_completion_is_not_believed(void **state)
{
	struct raft_log log;
	(void)state;
	raft_log_init(&log, 1, 0);
	append_given(&log, 1, 5);
	assert_true(raft_log_persisted(&log, 2, 1));
	raft_log_truncate(&log, 3, 2);
	append_given(&log, 2, 4);
	assert_false(raft_log_persisted(&log, 4, 1));
	assert_int_equal(log.persisted, 2);

	raft_log_truncate(&log, 3, 3); /* the deposed leader's suffix returns with a later leader */
	append_given(&log, 1, 4);
	assert_false(raft_log_persisted(&log, 4, 1)); /* of which of the two writes? */
	append_given(&log, 3, 5);
	assert_true(raft_log_persisted(&log, 5, 3));
	assert_int_equal(log.persisted, 5);
	raft_log_deinit(&log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_late_completion_is_not_believed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
