#include "tests/unit/master/raft_group.h"

static void test_elects_one_and_commits_barrier(void **state)
{
	(void)state;
	struct group group;
	group_open(&group, 3);
	uint64_t leader = group_leader(&group);
	assert_true(leader != 0);
	group_run(&group, 200);
	for (uint64_t id = 1; id <= 3; id++) {
		struct raft_view view = group_view(&group, id);
		assert_int_equal(view.leader, leader);
		assert_int_equal(view.commit, 1);
		assert_int_equal(view.role == RAFT_LEADER, id == leader);
	}
	assert_int_equal(raft_entry_at(group.rafts[0], 1)->kind, RAFT_ENTRY_BARRIER);
	group_close(&group);
}

static void test_nobody_votes_right_after_a_start(void **state)
{
	(void)state;
	struct group group;
	group_open(&group, 3);
	group_run(&group, RAFT_ELECTION_TICKS * RAFT_TICK_MS);
	/* Even a vote asked for by a higher term is not answered: a lease may have been granted before the start. */
	struct raft_message vote = {.kind = RAFT_VOTE, .from = 2, .to = 1, .term = 7};
	struct group fresh;
	group_open(&fresh, 3);
	raft_step(fresh.rafts[0], fresh.now_ms, &vote);
	struct raft_ready ready;
	assert_false(raft_ready(fresh.rafts[0], &ready));
	raft_step(fresh.rafts[0], fresh.now_ms + 300, &vote);
	assert_true(raft_ready(fresh.rafts[0], &ready));
	assert_true(ready.hard_changed);
	assert_int_equal(ready.hard.vote, 2);
	assert_int_equal(ready.message_count, 0);
	assert_int_equal(ready.message_after_sync_count, 1); /* a vote leaves only once it is durable */
	assert_false(ready.messages_after_sync[0].reject);
	group_close(&fresh);
	group_close(&group);
}

static void test_single_member_leads_at_once(void **state)
{
	(void)state;
	struct group group;
	group_open(&group, 1);
	raft_tick(group.rafts[0], group.now_ms);
	assert_int_equal(group_view(&group, 1).role, RAFT_CANDIDATE); /* its vote is not durable yet */
	group_settle(&group);
	assert_int_equal(group_view(&group, 1).role, RAFT_LEADER);
	assert_int_equal(group_view(&group, 1).commit, 1);
	assert_true(raft_can_read(group.rafts[0], group.now_ms));
	assert_int_equal(group_propose(&group, 1, "x"), 2);
	group_settle(&group);
	assert_int_equal(group_view(&group, 1).commit, 2);
	group_close(&group);
}

static void test_cut_off_member_does_not_raise_the_term(void **state)
{
	(void)state;
	struct group group;
	group_open(&group, 3);
	uint64_t leader = group_leader(&group);
	uint64_t lonely = leader % 3 + 1;
	uint64_t term = group_view(&group, leader).term;
	group.cut[lonely] = true;
	group_run(&group, 5000);
	assert_int_equal(group_view(&group, lonely).term, term);
	group.cut[lonely] = false;
	group_run(&group, 500);
	assert_int_equal(group_view(&group, leader).role, RAFT_LEADER);
	assert_int_equal(group_view(&group, lonely).leader, leader);
	group_close(&group);
}

static void test_leader_without_majority_steps_down(void **state)
{
	(void)state;
	struct group group;
	group_open(&group, 3);
	uint64_t leader = group_leader(&group);
	group_run(&group, 100);
	assert_true(raft_can_read(group.rafts[leader - 1], group.now_ms));
	group.cut[leader] = true;
	group_run(&group, 280);
	assert_false(raft_can_read(group.rafts[leader - 1], group.now_ms)); /* before anyone else may be elected */
	group_run(&group, 30);
	assert_int_equal(group_view(&group, leader).role == RAFT_LEADER, false);
	uint64_t next = group_leader(&group);
	assert_true(next != 0 && next != leader);
	group_close(&group);
}

static void test_shorter_log_is_not_elected(void **state)
{
	(void)state;
	struct group group;
	group_open(&group, 3);
	uint64_t leader = group_leader(&group);
	group_run(&group, 100);
	uint64_t stale = leader % 3 + 1;
	uint64_t fresh = stale % 3 + 1;
	group.cut[stale] = true;
	group_propose(&group, leader, "seen by two");
	group_run(&group, 100);
	group.cut[leader] = true;
	group.cut[stale] = false;
	assert_int_equal(group_leader(&group), fresh);
	group_run(&group, 200);
	assert_int_equal(group_view(&group, stale).last, group_view(&group, fresh).last);
	group_close(&group);
}

static void test_member_of_higher_term_is_let_in(void **state)
{
	(void)state;
	struct group group;
	group_open(&group, 3);
	uint64_t leader = group_leader(&group);
	group_run(&group, 100);
	uint64_t ahead = leader % 3 + 1;
	uint64_t term = group_view(&group, leader).term;
	/* It hears of a term whose election came to nothing. */
	struct raft_message news = {
	    .kind = RAFT_PRE_VOTE_REPLY, .from = leader, .to = ahead, .term = term + 3, .reject = true};
	raft_step(group.rafts[ahead - 1], group.now_ms, &news);
	assert_int_equal(group_view(&group, ahead).term, term + 3);
	group_run(&group, 2000);
	leader = group_leader(&group);
	assert_true(group_view(&group, leader).term > term + 2);
	assert_int_equal(group_view(&group, ahead).leader, leader);
	group_close(&group);
}

static void test_vote_refused_in_own_term_while_lease_may_hold(void **state)
{
	(void)state;
	struct group group;
	group_open(&group, 3);
	uint64_t leader = group_leader(&group);
	group_run(&group, 400);
	uint64_t voter = leader % 3 + 1;
	uint64_t other = voter % 3 + 1;
	uint64_t term = group_view(&group, leader).term;
	struct raft *raft = group.rafts[voter - 1];
	struct raft_message news = {
	    .kind = RAFT_PRE_VOTE_REPLY, .from = other, .to = voter, .term = term + 1, .reject = true};
	raft_step(raft, group.now_ms, &news);
	struct raft_ready ready;
	assert_true(raft_ready(raft, &ready));
	struct raft_message vote = {
	    .kind = RAFT_VOTE, .from = other, .to = voter, .term = term + 1, .log_index = 9, .log_term = term};
	raft_step(raft, group.now_ms, &vote);
	assert_false(raft_ready(raft, &ready));
	vote.context = 1; /* the leader itself asked for it: its lease is given up */
	raft_step(raft, group.now_ms, &vote);
	assert_true(raft_ready(raft, &ready));
	assert_int_equal(ready.hard.vote, other);
	group_close(&group);
}

static void test_transfer(void **state)
{
	(void)state;
	struct group group;
	group_open(&group, 3);
	uint64_t leader = group_leader(&group);
	group_run(&group, 100);
	uint64_t target = leader % 3 + 1;
	struct raft *raft = group.rafts[leader - 1];
	assert_int_equal(raft_transfer(group.rafts[target - 1], group.now_ms, 0), ERR_NOT_LEADER);
	assert_int_equal(raft_transfer(raft, group.now_ms, 77), ERR_INVALID);
	uint64_t before_ms = group.now_ms;
	assert_int_equal(raft_transfer(raft, group.now_ms, target), OK);
	assert_false(raft_can_read(raft, group.now_ms));
	uint64_t index;
	assert_int_equal(raft_propose(raft, group.now_ms, RAFT_ENTRY_NORMAL, slice_text("x"), &index), ERR_BUSY);
	group_settle(&group);
	assert_int_equal(group_view(&group, target).role, RAFT_LEADER);
	assert_int_equal(group.now_ms, before_ms); /* no timeout was needed */
	assert_int_equal(group_view(&group, leader).role, RAFT_FOLLOWER);
	group_close(&group);
}

static void test_transfer_that_fails_costs_the_term(void **state)
{
	(void)state;
	struct group group;
	group_open(&group, 3);
	uint64_t leader = group_leader(&group);
	group_run(&group, 100);
	uint64_t term = group_view(&group, leader).term;
	uint64_t target = leader % 3 + 1;
	group.cut[target] = true;
	assert_int_equal(raft_transfer(group.rafts[leader - 1], group.now_ms, target), OK);
	group_run(&group, 200);
	assert_int_equal(group_view(&group, leader).role, RAFT_LEADER);
	assert_false(raft_can_read(group.rafts[leader - 1], group.now_ms));
	group_run(&group, 150);
	uint64_t next = group_leader(&group);
	assert_true(next != 0 && group_view(&group, next).term > term);
	group_run(&group, 200);
	assert_true(raft_can_read(group.rafts[next - 1], group.now_ms));
	group_close(&group);
}

static void test_restart_keeps_vote(void **state)
{
	(void)state;
	uint64_t members[] = {1, 2, 3};
	struct raft_options options = {.id = 1,
				       .members = members,
				       .member_count = 3,
				       .election_ticks = 30,
				       .heartbeat_ticks = 5,
				       .tick_ms = 10,
				       .seed = 1};
	struct raft_hard_state hard = {.term = 5, .vote = 2, .commit = 0};
	struct raft *raft;
	assert_int_equal(raft_open(&options, &hard, 1, 0, NULL, 0, &raft), OK);
	struct raft_message vote = {.kind = RAFT_VOTE, .from = 3, .to = 1, .term = 5, .log_index = 9, .log_term = 4};
	struct raft_ready ready;
	raft_step(raft, 1000, &vote);
	raft_step(raft, 1300, &vote);
	assert_true(raft_ready(raft, &ready));
	assert_int_equal(ready.message_after_sync_count, 1);
	assert_true(ready.messages_after_sync[0].reject);
	vote.from = 2;
	raft_step(raft, 1300, &vote);
	assert_true(raft_ready(raft, &ready));
	assert_false(ready.messages_after_sync[0].reject);
	raft_close(raft);
}

static void test_refuses_a_log_that_lost_entries(void **state)
{
	(void)state;
	uint64_t members[] = {1};
	struct raft_options options = {.id = 1,
				       .members = members,
				       .member_count = 1,
				       .election_ticks = 30,
				       .heartbeat_ticks = 5,
				       .tick_ms = 10,
				       .seed = 1};
	struct raft_hard_state hard = {.term = 2};
	struct raft_entry entries[] = {{.index = 1, .term = 1, .kind = RAFT_ENTRY_NORMAL},
				       {.index = 2, .term = 2, .kind = RAFT_ENTRY_NORMAL}};
	struct raft *raft;
	options.applied = 3;
	assert_int_equal(raft_open(&options, &hard, 1, 0, entries, 2, &raft), ERR_CORRUPT);
	options.applied = 2;
	hard.commit = 3;
	assert_int_equal(raft_open(&options, &hard, 1, 0, entries, 2, &raft), ERR_CORRUPT);
	hard.commit = 2;
	entries[1].index = 3;
	assert_int_equal(raft_open(&options, &hard, 1, 0, entries, 2, &raft), ERR_CORRUPT);
	entries[1].index = 2;
	assert_int_equal(raft_open(&options, &hard, 1, 0, entries, 2, &raft), OK);
	raft_close(raft);
	assert_int_equal(raft_open(&options, &hard, 0, 0, entries, 2, &raft), ERR_CORRUPT);
	members[0] = 0;
	assert_int_equal(raft_open(&options, &hard, 1, 0, entries, 2, &raft), ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_elects_one_and_commits_barrier),
	    cmocka_unit_test(test_nobody_votes_right_after_a_start),
	    cmocka_unit_test(test_single_member_leads_at_once),
	    cmocka_unit_test(test_cut_off_member_does_not_raise_the_term),
	    cmocka_unit_test(test_leader_without_majority_steps_down),
	    cmocka_unit_test(test_shorter_log_is_not_elected),
	    cmocka_unit_test(test_member_of_higher_term_is_let_in),
	    cmocka_unit_test(test_vote_refused_in_own_term_while_lease_may_hold),
	    cmocka_unit_test(test_transfer),
	    cmocka_unit_test(test_transfer_that_fails_costs_the_term),
	    cmocka_unit_test(test_restart_keeps_vote),
	    cmocka_unit_test(test_refuses_a_log_that_lost_entries),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
