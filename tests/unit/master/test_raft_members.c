#include "tests/unit/master/raft_group.h"

static uint64_t lead(struct group *group, size_t count, size_t voters)
{
	group_open_known(group, count, voters);
	uint64_t leader = group_leader(group);
	assert_true(leader != 0);
	group_run(group, 100);
	return leader;
}

static struct raft_membership current(struct group *group, uint64_t id)
{
	uint64_t index;
	return *raft_membership(group->rafts[id - 1], &index);
}

static enum err propose(struct group *group, uint64_t leader, const struct raft_membership *membership)
{
	uint64_t index;
	enum err err = raft_propose_members(group->rafts[leader - 1], group->now_ms, membership, &index);
	group_settle(group);
	return err;
}

static enum err put(struct group *group, uint64_t leader, uint64_t id, uint64_t node, bool learner)
{
	struct raft_membership membership = current(group, leader);
	struct raft_member member = {.id = id, .node = node, .learner = learner};
	assert_true(membership_put(&membership, &member));
	return propose(group, leader, &membership);
}

static enum err drop(struct group *group, uint64_t leader, uint64_t id)
{
	struct raft_membership membership = current(group, leader);
	membership_remove(&membership, id);
	return propose(group, leader, &membership);
}

static void test_membership_goes_through_its_payload(void **state)
{
	(void)state;
	struct raft_membership membership = {0}, back;
	struct raft_member one = {.id = 7, .node = 9, .learner = true, .address = "host:1"};
	struct raft_member two = {.id = 3, .node = UINT64_MAX, .address = "other:2"};
	assert_true(membership_put(&membership, &one));
	assert_true(membership_put(&membership, &two));
	assert_int_equal(membership.members[0].id, 3);
	struct buf payload = {0};
	membership_pack(&membership, &payload);
	assert_int_equal(membership_unpack(buf_slice(&payload), &back), OK);
	assert_int_equal(back.count, 2);
	assert_memory_equal(&back.members[0], &membership.members[0], sizeof(back.members[0]));
	assert_memory_equal(&back.members[1], &membership.members[1], sizeof(back.members[1]));
	/* Nobody who votes, ids twice or not ascending, rubbish: not one. */
	membership_remove(&membership, 3);
	buf_clear(&payload);
	membership_pack(&membership, &payload);
	assert_int_equal(membership_unpack(buf_slice(&payload), &back), ERR_PROTOCOL);
	membership.members[1] = membership.members[0] = two;
	membership.count = 2;
	buf_clear(&payload);
	membership_pack(&membership, &payload);
	assert_int_equal(membership_unpack(buf_slice(&payload), &back), ERR_PROTOCOL);
	assert_int_equal(membership_unpack(slice_text("\377\377"), &back), ERR_PROTOCOL);
	for (uint64_t id = 10; membership.count < RAFT_MEMBERS_MAX; id++) {
		two.id = id;
		assert_true(membership_put(&membership, &two));
	}
	two.id = 99;
	assert_false(membership_put(&membership, &two));
	buf_deinit(&payload);
}

static void test_learner_receives_and_does_not_count(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3, 2);
	uint64_t other = 3 - leader;
	assert_int_equal(put(&group, leader, 3, 103, true), OK);
	group_run(&group, 100);
	struct raft_view view = group_view(&group, leader);
	assert_int_equal(group_view(&group, 3).last, view.last);
	assert_true(view.membership_committed);
	assert_true(view.members[2].learner && view.members[2].caught_up);
	/* It holds the entry, and it is not committed: one voter of two has it. */
	group.cut[other] = true;
	uint64_t index = group_propose(&group, leader, "x");
	group_run(&group, 50);
	assert_int_equal(group_view(&group, 3).last, index);
	assert_int_equal(group_view(&group, leader).commit, index - 1);
	/* It stands for nothing and is handed nothing. */
	assert_int_equal(raft_transfer(group.rafts[leader - 1], group.now_ms, 3), ERR_INVALID);
	group.cut[leader] = true;
	uint64_t term = group_view(&group, 3).term;
	group_run(&group, 3000);
	assert_int_equal(group_view(&group, 3).term, term);
	assert_int_equal(group_view(&group, 3).role, RAFT_FOLLOWER);
	group_close(&group);
}

static void test_learner_becomes_a_voter_when_caught_up(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 4, 3);
	struct raft_member member = {.id = 4, .node = 104};
	struct raft_membership membership = current(&group, leader);
	assert_true(membership_put(&membership, &member));
	assert_int_equal(propose(&group, leader, &membership), ERR_INVALID); /* not before it was a learner */
	group.cut[4] = true;
	assert_int_equal(put(&group, leader, 4, 104, true), OK);
	for (int i = 0; i < 300; i++)
		group_propose(&group, leader, "x");
	group_run(&group, 100);
	assert_int_equal(put(&group, leader, 4, 104, false), ERR_INVALID); /* behind */
	group.cut[4] = false;
	group_run(&group, 500);
	assert_int_equal(put(&group, leader, 4, 105, false), ERR_INVALID); /* another directory */
	assert_int_equal(put(&group, leader, 4, 104, false), OK);
	group_run(&group, 100);
	assert_true(group_view(&group, 4).voter);
	/* Three of four from now on. */
	uint64_t one = leader % 3 + 1, two = one % 3 + 1;
	group.cut[one] = group.cut[two] = true;
	uint64_t index = group_propose(&group, leader, "y");
	group_run(&group, 50);
	assert_int_equal(group_view(&group, leader).commit, index - 1);
	group.cut[one] = false;
	group_run(&group, 100);
	assert_int_equal(group_view(&group, leader).commit, index);
	group_close(&group);
}

static void test_one_change_at_a_time(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 5, 5);
	uint64_t one = leader % 5 + 1, two = one % 5 + 1;
	struct raft_membership membership = current(&group, leader);
	membership_remove(&membership, one);
	membership_remove(&membership, two);
	assert_int_equal(propose(&group, leader, &membership), ERR_INVALID); /* two voters */
	assert_int_equal(propose(&group, one, &membership), ERR_NOT_LEADER);
	group.drop = NULL;
	membership = current(&group, leader);
	membership_remove(&membership, one);
	uint64_t index;
	struct raft *raft = group.rafts[leader - 1];
	assert_int_equal(raft_propose_members(raft, group.now_ms, &membership, &index), OK);
	assert_int_equal(raft_propose_members(raft, group.now_ms, &membership, &index), ERR_BUSY);
	assert_false(group_view(&group, leader).membership_committed);
	group_settle(&group);
	group_run(&group, 50);
	assert_true(group_view(&group, leader).membership_committed);
	/* The raw way in is closed. */
	assert_int_equal(raft_propose(raft, group.now_ms, RAFT_ENTRY_MEMBERS, slice_text("x"), &index), ERR_INVALID);
	group_close(&group);
}

static bool drop_appends(const struct raft_message *message)
{
	return message->kind == RAFT_APPEND && message->entry_count > 0;
}

/* Ongaro's erratum: a leader whose barrier is not committed does not know which change is the last. */
static void test_no_change_before_the_barrier(void **state)
{
	(void)state;
	struct group group;
	group_open_known(&group, 3, 3);
	group.drop = drop_appends;
	uint64_t leader = group_leader(&group);
	assert_int_equal(drop(&group, leader, leader % 3 + 1), ERR_BUSY);
	group.drop = NULL;
	group_run(&group, 100);
	assert_int_equal(drop(&group, leader, leader % 3 + 1), OK);
	group_close(&group);
}

static void test_change_that_cannot_be_committed_is_refused(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3, 3);
	uint64_t one = leader % 3 + 1, two = one % 3 + 1;
	group.cut[one] = true;
	group_run(&group, 400);
	assert_int_equal(drop(&group, leader, two), ERR_UNREACHABLE);
	assert_int_equal(drop(&group, leader, one), OK);
	group_run(&group, 50);
	assert_true(group_view(&group, leader).membership_committed);
	group_close(&group);
}

static void test_change_is_undone_when_overwritten(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3, 3);
	uint64_t one = leader % 3 + 1;
	group.cut[leader] = true;
	assert_int_equal(drop(&group, leader, one), OK); /* reaches nobody */
	assert_int_equal(current(&group, leader).count, 2);
	group_run(&group, 1500);
	uint64_t next = group_leader(&group);
	assert_true(next != 0 && next != leader);
	group_propose(&group, next, "x");
	group.cut[leader] = false;
	group_run(&group, 500);
	assert_int_equal(current(&group, leader).count, 3);
	assert_int_equal(group_view(&group, leader).membership_index, 0);
	group_close(&group);
}

static void test_leader_that_is_removed_goes(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3, 3);
	uint64_t before_ms = group.now_ms;
	assert_int_equal(drop(&group, leader, leader), OK);
	assert_int_equal(group_view(&group, leader).role, RAFT_FOLLOWER);
	uint64_t one = leader % 3 + 1, two = one % 3 + 1;
	assert_true(group_view(&group, one).role == RAFT_LEADER || group_view(&group, two).role == RAFT_LEADER);
	assert_int_equal(group.now_ms, before_ms); /* it has pushed who was furthest: no timeout was needed */
	uint64_t term = group_view(&group, one).term;
	group_run(&group, 5000);
	assert_int_equal(group_view(&group, one).term, term);
	assert_int_equal(group_view(&group, two).term, term);
	group_close(&group);
}

/* Scenario 18: removed while it could not be reached. */
static void test_removed_member_that_comes_back_does_not_disturb(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3, 3);
	uint64_t away = leader % 3 + 1;
	group.cut[away] = true;
	group_run(&group, 400);
	assert_int_equal(drop(&group, leader, away), OK);
	group_run(&group, 3000);
	uint64_t term = group_view(&group, leader).term;
	group.cut[away] = false;
	group_run(&group, 3000);
	assert_int_equal(group_view(&group, leader).role, RAFT_LEADER);
	assert_int_equal(group_view(&group, leader).term, term);
	assert_true(group_view(&group, away).removed);
	memset(group.delivered, 0, sizeof(group.delivered));
	group_run(&group, 3000);
	assert_int_equal(group.delivered[RAFT_PRE_VOTE], 0); /* it has been told */
	/* Taken in again it follows. */
	assert_int_equal(put(&group, leader, away, 100 + away, true), OK);
	group_run(&group, 300);
	assert_int_equal(group_view(&group, away).last, group_view(&group, leader).last);
	assert_false(group_view(&group, away).removed);
	group_close(&group);
}

/* The leader's own entry takes its vote away before it is committed, and nobody else's log is as long. */
static void test_who_leaves_may_have_to_be_elected(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 2, 2);
	uint64_t other = 3 - leader;
	group.drop = drop_appends;
	assert_int_equal(put(&group, leader, leader, 100 + leader, true), OK);
	group.cut[leader] = true;
	group_run(&group, 1000);
	assert_int_equal(group_view(&group, leader).role == RAFT_LEADER, false);
	group.cut[leader] = false;
	group.drop = NULL;
	group_run(&group, 3000);
	assert_int_equal(group_view(&group, other).role, RAFT_LEADER);
	assert_true(group_view(&group, other).membership_committed);
	assert_int_equal(current(&group, other).members[leader - 1].learner, true);
	group_close(&group);
}

/* A message may arrive long after the disk it was sent from was replaced, and the member taken in again, and gone silent. */
static void test_message_of_a_former_life_makes_no_stranger(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3, 3);
	uint64_t other = leader % 3 + 1;
	struct raft_message late = { .kind = RAFT_APPEND_REPLY, .from = other, .to = leader, .node = 777 };
	late.term = group_view(&group, leader).term;
	late.context = group.now_ms;
	group_run(&group, 100);
	group.cut[other] = true;
	group.stranger = 0;
	for (unsigned i = 0; i < 3; i++) {
		raft_step(group.rafts[leader - 1], group.now_ms, &late);
		group_run(&group, 100);
	}
	assert_int_equal(group.stranger, other);
	assert_int_equal(group_view(&group, leader).members[other - 1].stranger_node, 0);
	group_close(&group);
}

/* Scenario 6: an empty disk under a known name, while another lags. */
static void test_stranger_neither_votes_nor_counts(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3, 3);
	uint64_t lags = leader % 3 + 1, replaced = lags % 3 + 1;
	group.cut[lags] = true;
	uint64_t held = group_propose(&group, leader, "held by two");
	group_run(&group, 100);
	assert_int_equal(group_view(&group, leader).commit, held);
	/* Its disk is empty now. */
	raft_close(group.rafts[replaced - 1]);
	group.nodes[replaced] = 777;
	struct raft_options options = group_options(&group, replaced - 1);
	struct raft_hard_state hard = {0};
	assert_int_equal(raft_open(&options, &hard, 1, 0, NULL, 0, &group.rafts[replaced - 1]), OK);
	uint64_t index = group_propose(&group, leader, "x");
	group_run(&group, 200);
	assert_int_equal(group_view(&group, leader).commit, held);
	assert_int_equal(group.stranger, replaced);
	assert_int_equal(group.stranger_node, 777);
	/* Nor does it help one without the entry to win. */
	group.cut[leader] = true;
	group.cut[lags] = false;
	group_run(&group, 3000);
	assert_int_equal(group_view(&group, lags).role == RAFT_LEADER, false);
	assert_int_equal(group_view(&group, replaced).role == RAFT_LEADER, false);
	group.cut[leader] = false;
	leader = group_leader(&group);
	group_run(&group, 300);
	assert_true(group_view(&group, leader).commit > index);
	assert_int_equal(group_view(&group, leader).members[replaced - 1].stranger_node, 777);
	/* It becomes a learner, then a voter. */
	assert_int_equal(put(&group, leader, replaced, 777, true), OK);
	group_run(&group, 200);
	assert_int_equal(put(&group, leader, replaced, 777, false), OK);
	group_run(&group, 200);
	assert_true(group_view(&group, replaced).voter);
	assert_int_equal(group_view(&group, leader).members[replaced - 1].match, group_view(&group, leader).last);
	group_close(&group);
}

static void test_restart_knows_the_newest_membership(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 4, 3);
	assert_int_equal(put(&group, leader, 4, 104, true), OK);
	group_run(&group, 100);
	uint64_t one = leader % 3 + 1;
	group_restart(&group, one);
	assert_int_equal(current(&group, one).count, 4);
	assert_int_equal(group_view(&group, one).membership_index, group_view(&group, leader).membership_index);
	/* Also when its entry has left the log. */
	group_propose(&group, leader, "x");
	group_run(&group, 100);
	raft_compact(group.rafts[leader - 1], UINT64_MAX - 1);
	assert_true(group_view(&group, leader).first > group_view(&group, leader).membership_index);
	assert_int_equal(current(&group, leader).count, 4);
	group_close(&group);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_membership_goes_through_its_payload),
	    cmocka_unit_test(test_learner_receives_and_does_not_count),
	    cmocka_unit_test(test_learner_becomes_a_voter_when_caught_up),
	    cmocka_unit_test(test_one_change_at_a_time),
	    cmocka_unit_test(test_no_change_before_the_barrier),
	    cmocka_unit_test(test_change_that_cannot_be_committed_is_refused),
	    cmocka_unit_test(test_change_is_undone_when_overwritten),
	    cmocka_unit_test(test_leader_that_is_removed_goes),
	    cmocka_unit_test(test_removed_member_that_comes_back_does_not_disturb),
	    cmocka_unit_test(test_who_leaves_may_have_to_be_elected),
	    cmocka_unit_test(test_message_of_a_former_life_makes_no_stranger),
	    cmocka_unit_test(test_stranger_neither_votes_nor_counts),
	    cmocka_unit_test(test_restart_knows_the_newest_membership),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
