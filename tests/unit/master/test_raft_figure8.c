/* Figure 8 of the Raft paper (Ongaro and Ousterhout, 2014), step by step: why a leader may not commit an entry of an
 * older term by counting copies. Entries here are the barriers that each leader appends first. */
#include "tests/unit/master/raft_group.h"

/* What is lost in the step under way. */
static uint64_t lost_term;      /* appends that carry an entry of this term */
static uint64_t only_append_to; /* 0: appends to all */

static bool drop(const struct raft_message *message)
{
	if (message->kind != RAFT_APPEND || message->entry_count == 0)
		return false;
	for (size_t i = 0; i < message->entry_count; i++)
		if (message->entries[i].term == lost_term)
			return true;
	return only_append_to != 0 && message->to != only_append_to;
}

static uint64_t term_at(struct group *group, uint64_t id, uint64_t index)
{
	const struct raft_entry *entry = raft_entry_at(group->rafts[id - 1], index);
	return entry ? entry->term : 0;
}

/* Up to (c): S1, leader of term 4, has its entry of term 2 on S2 and S3. What it sends of its own term is lost. */
static void up_to_c(struct group *group)
{
	group_open(group, 5);
	group->append_bytes_max = 1;
	group->drop = drop;
	lost_term = only_append_to = 0;
	for (uint64_t id = 1; id <= 5; id++)
		group_restart(group, id);

	/* Term 1 is everywhere. */
	assert_true(group_elect(group, 1));
	group_heartbeat(group, 1);
	for (uint64_t id = 1; id <= 5; id++)
		assert_int_equal(group_view(group, id).commit, 1);

	/* (a) S1 is leader of term 2 and replicates its entry to S2 alone. */
	group_restart(group, 1);
	only_append_to = 2;
	assert_true(group_elect(group, 1));
	assert_int_equal(group_view(group, 1).term, 2);
	assert_int_equal(term_at(group, 1, 2), 2);
	assert_int_equal(term_at(group, 2, 2), 2);
	assert_int_equal(term_at(group, 3, 2), 0);

	/* (b) S1 crashes; S5 is elected for term 3 by S3, S4 and itself and keeps its entry to itself. */
	group->cut[1] = group->cut[2] = true;
	only_append_to = 99;
	assert_true(group_elect(group, 5));
	assert_int_equal(group_view(group, 5).term, 3);
	assert_int_equal(term_at(group, 5, 2), 3);
	assert_int_equal(term_at(group, 3, 2), 0);

	/* (c) S5 crashes; S1 restarts, is elected for term 4 and goes on replicating. */
	group->cut[5] = true;
	group->cut[1] = group->cut[2] = false;
	group_restart(group, 1);
	only_append_to = 0;
	lost_term = 4;
	group->cut[4] = true; /* it has voted for S5; S2 and S3 are enough */
	assert_true(group_elect(group, 1));
	assert_int_equal(group_view(group, 1).term, 4);
	for (int i = 0; i < 4; i++)
		group_heartbeat(group, 1);
	assert_int_equal(term_at(group, 1, 2), 2);
	assert_int_equal(term_at(group, 2, 2), 2);
	assert_int_equal(term_at(group, 3, 2), 2);
	assert_int_equal(term_at(group, 1, 3), 4);
	assert_int_equal(term_at(group, 2, 3), 0);
	group->cut[4] = false;
}

static void test_d_older_entry_on_a_majority_is_overwritten(void **state)
{
	(void)state;
	struct group group;
	up_to_c(&group);
	/* The entry of term 2 is on a majority, and S1 knows it: not committed all the same. */
	struct raft_view view = group_view(&group, 1);
	assert_int_equal(view.members[1].match, 2);
	assert_int_equal(view.members[2].match, 2);
	assert_true(view.commit < 2);
	/* (d) S1 crashes, S5 is elected by S2, S3 and S4 and overwrites it. */
	group.cut[1] = true;
	group.cut[5] = false;
	lost_term = 0;
	group_restart(&group, 5);
	assert_true(group_elect(&group, 5));
	group_heartbeat(&group, 5);
	group_heartbeat(&group, 5);
	for (uint64_t id = 2; id <= 5; id++) {
		assert_int_equal(term_at(&group, id, 2), 3);
		assert_true(group_view(&group, id).commit >= 2);
	}
	/* S1 follows when it returns. */
	group.cut[1] = false;
	group_restart(&group, 1);
	group_heartbeat(&group, 5);
	group_heartbeat(&group, 5);
	assert_int_equal(term_at(&group, 1, 2), 3);
	group_close(&group);
}

static void test_e_own_entry_on_a_majority_commits_both(void **state)
{
	(void)state;
	struct group group;
	up_to_c(&group);
	/* (e) S1 replicates its entry of term 4, too, before it crashes. */
	lost_term = 0;
	group.cut[4] = true;
	group_heartbeat(&group, 1);
	group_heartbeat(&group, 1);
	assert_int_equal(term_at(&group, 3, 3), 4);
	assert_int_equal(group_view(&group, 1).commit, 3);
	group.cut[1] = true;
	group.cut[4] = group.cut[5] = false;
	group_restart(&group, 5);
	assert_false(group_elect(&group, 5));
	assert_true(group_elect(&group, 3));
	group_heartbeat(&group, 3);
	group_heartbeat(&group, 3);
	assert_int_equal(term_at(&group, 5, 2), 2);
	assert_int_equal(term_at(&group, 5, 3), 4);
	group_close(&group);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_d_older_entry_on_a_majority_is_overwritten),
	    cmocka_unit_test(test_e_own_entry_on_a_majority_commits_both),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
