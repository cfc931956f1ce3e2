/* Holes and snapshots: what a member does that has lost some of its log, or needs what the leader has forgotten. */
#include "tests/unit/master/raft_group.h"

static uint64_t lead(struct group *group, size_t count)
{
	group_open_known(group, count, count);
	uint64_t leader = group_leader(group);
	assert_true(leader != 0);
	group_run(group, 100);
	return leader;
}

/* ---- holes */

static void restart_damaged(struct group *group, uint64_t id, uint64_t index, uint64_t applied)
{
	group->damaged[id] = index;
	group->applied[id] = applied;
	group_restart(group, id);
	group->damaged[id] = 0;
}

static bool is_whole(struct group *group, uint64_t id, uint64_t index, const char *text)
{
	const struct raft_entry *entry = raft_entry_at(group->rafts[id - 1], index);
	return entry && !entry->damaged && entry->payload.size == strlen(text) &&
	       memcmp(entry->payload.bytes, text, entry->payload.size) == 0;
}

static void test_leader_fills_a_followers_hole(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t holder = leader % 3 + 1, other = holder % 3 + 1;
	uint64_t index = group_propose(&group, leader, "precious");
	group_propose(&group, leader, "more");
	group_run(&group, 100);
	restart_damaged(&group, holder, index, index - 1);
	assert_int_equal(group_view(&group, holder).holes, 1);
	assert_int_equal(group_view(&group, holder).hole, index);
	/* Until it is filled nothing from there on counts, also what it acknowledged before. */
	group.cut[other] = true;
	group.cut[holder] = true;
	uint64_t last = group_propose(&group, leader, "last");
	group_settle(&group);
	assert_int_equal(group_view(&group, holder).commit, index - 1);
	group.cut[holder] = false;
	group_run(&group, 300);
	assert_true(is_whole(&group, holder, index, "precious"));
	assert_int_equal(group_view(&group, holder).holes, 0);
	assert_int_equal(group_view(&group, leader).commit, last);
	assert_int_equal(group.fill_count[holder], 1);
	group_close(&group);
}

static bool drop_fetch(const struct raft_message *message)
{
	return message->kind == RAFT_FETCH_REPLY;
}

static void test_hole_is_not_acknowledged(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t holder = leader % 3 + 1, other = holder % 3 + 1;
	/* In the holder's log, but its answer is lost. */
	group.cut[other] = true;
	uint64_t index = group_propose(&group, leader, "x");
	group.disk_stuck[holder] = true;
	group_settle(&group);
	restart_damaged(&group, holder, index, index - 1);
	group.disk_stuck[holder] = false;
	group.held_count[holder] = 0;
	struct raft *raft = group.rafts[holder - 1];
	struct raft_view view = group_view(&group, leader);
	struct raft_message append = {.kind = RAFT_APPEND,
				      .from = leader,
				      .to = holder,
				      .term = view.term,
				      .log_index = index,
				      .log_term = view.term,
				      .commit = index,
				      .context = group.now_ms};
	raft_step(raft, group.now_ms, &append);
	struct raft_ready ready;
	assert_true(raft_ready(raft, &ready));
	assert_int_equal(ready.message_count, 1);
	assert_true(ready.messages[0].reject);
	assert_int_equal(ready.messages[0].hint_index, index - 1);
	assert_int_equal(ready.messages[0].held, index);
	assert_true(ready.commit < index);
	group_close(&group);
}

static void test_fill_is_acknowledged_when_durable(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t holder = leader % 3 + 1, other = holder % 3 + 1;
	group.cut[other] = true;
	group.drop = drop_fetch;
	uint64_t index = group_propose(&group, leader, "x");
	group_settle(&group);
	group_run(&group, 100);
	restart_damaged(&group, holder, index, index - 1);
	group.disk_stuck[holder] = true;
	group_run(&group, 500);
	assert_true(is_whole(&group, holder, index, "x"));
	assert_true(group.stuck_fills[holder] == 1);
	assert_true(group_view(&group, leader).members[holder - 1].match < index);
	group_unstick(&group, holder);
	group_run(&group, 500);
	assert_true(group_view(&group, leader).members[holder - 1].match >= index);
	group_close(&group);
}

static void test_holders_without_a_leader_help_each_other(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t first = 0;
	static const char *const texts[] = {"one", "two", "three"};
	for (uint64_t i = 0; i < 3; i++) {
		uint64_t index = group_propose(&group, leader, texts[i]);
		first = first == 0 ? index : first;
	}
	group_run(&group, 100);
	/* A power cut, and a different entry damaged on each. */
	for (uint64_t id = 1; id <= 3; id++)
		restart_damaged(&group, id, first + id - 1, first - 1);
	for (uint64_t id = 1; id <= 3; id++) {
		struct raft *raft = group.rafts[id - 1];
		raft_tick(raft, group.now_ms + 2 * RAFT_ELECTION_TICKS * RAFT_TICK_MS + 10);
		struct raft_ready ready;
		while (raft_ready(raft, &ready))
			for (size_t i = 0; i < ready.message_count; i++)
				assert_int_not_equal(ready.messages[i].kind, RAFT_PRE_VOTE); /* it does not campaign */
	}
	group.now_ms += 2 * RAFT_ELECTION_TICKS * RAFT_TICK_MS + 10;
	group_run(&group, 3000);
	leader = group_leader(&group);
	assert_true(leader != 0);
	group_run(&group, 200);
	for (uint64_t id = 1; id <= 3; id++) {
		assert_true(group_view(&group, id).commit > first + 2);
		assert_int_equal(group_view(&group, id).holes, 0);
		for (uint64_t i = 0; i < 3; i++)
			assert_true(is_whole(&group, id, first + i, texts[i]));
	}
	group_close(&group);
}

static bool drop_appends(const struct raft_message *message)
{
	return message->kind == RAFT_APPEND && message->entry_count > 0;
}

static bool drop_campaigns(const struct raft_message *message)
{
	return message->kind == RAFT_PRE_VOTE;
}

/* Its holder has the longest log, so that nobody can be elected: the entry never was anywhere else. */
static void test_hole_that_a_majority_never_had_is_cut(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t one = leader % 3 + 1, two = one % 3 + 1;
	group.drop = drop_appends;
	uint64_t index = group_propose(&group, leader, "nobody else has it");
	group_settle(&group);
	group.drop = NULL;
	restart_damaged(&group, leader, index, index - 1);
	/* One of the others is away: it may have it, so that the holder waits and says so. */
	group.cut[two] = true;
	group_run(&group, 4000);
	assert_int_equal(group_view(&group, leader).last, index);
	assert_true(group_view(&group, leader).hole_waits);
	assert_int_equal(group_view(&group, one).role == RAFT_LEADER, false);
	/* Both lack it, and nobody is elected otherwise. */
	group.cut[two] = false;
	group.drop = drop_campaigns;
	group_run(&group, 2000);
	assert_int_equal(group_view(&group, leader).given_up, 1);
	assert_int_equal(group_view(&group, leader).last, index - 1);
	group.drop = NULL;
	uint64_t next = group_leader(&group);
	assert_true(next != 0);
	group_propose(&group, next, "y");
	group_run(&group, 500);
	for (uint64_t id = 1; id <= 3; id++) {
		assert_int_equal(group_view(&group, id).holes, 0);
		assert_true(group_view(&group, id).commit > index);
	}
	group_close(&group);
}

static bool is_bound_reply(const struct raft_message *message)
{
	return message->kind == RAFT_FETCH_REPLY && message->context == RAFT_FETCH_ABSENT;
}

static uint64_t binding_term;

static bool drop_bound_answers(const struct raft_message *message)
{
	if (message->kind == RAFT_FETCH && message->context == 1)
		binding_term = message->term;
	return message->kind == RAFT_PRE_VOTE || (is_bound_reply(message) && binding_term != 0 && message->term >= binding_term);
}

/* "I do not have it" counts only from who says so in a term that no acknowledgement of the holder belongs to. */
static void test_cut_needs_answers_of_a_later_term(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t term = group_view(&group, leader).term;
	group.drop = drop_appends;
	uint64_t index = group_propose(&group, leader, "x");
	group_settle(&group);
	restart_damaged(&group, leader, index, index - 1);
	binding_term = 0;
	group.drop = drop_bound_answers;
	group_run(&group, 4000);
	assert_true(binding_term > term);
	assert_int_equal(group_view(&group, leader).last, index);
	assert_int_equal(group_view(&group, leader).given_up, 0);
	group.drop = NULL;
	group_run(&group, 2000);
	assert_int_equal(group_view(&group, leader).holes, 0);
	group_close(&group);
}

static void test_applied_hole_hinders_nobody(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t index = group_propose(&group, leader, "x");
	group_propose(&group, leader, "y");
	group_run(&group, 100);
	uint64_t holder = leader % 3 + 1, other = holder % 3 + 1;
	group.cut[leader] = true;
	group.drop = drop_fetch;
	restart_damaged(&group, holder, index, index + 1);
	/* The other has a shorter log, so that the holder must lead. */
	group.cut[other] = true;
	group_run(&group, 1000);
	group.cut[other] = false;
	assert_true(group_elect(&group, holder));
	group_run(&group, 300);
	assert_true(group_view(&group, holder).first > index);
	assert_true(group_view(&group, holder).commit > index + 1);
	group_close(&group);
}

/* ---- snapshots */

static void test_member_that_is_too_far_behind_gets_a_snapshot(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t away = leader % 3 + 1;
	group.cut[away] = true;
	for (int i = 0; i < 50; i++)
		group_propose(&group, leader, "x");
	group_run(&group, 400);
	uint64_t applied = group_view(&group, leader).applied;
	raft_compact(group.rafts[leader - 1], raft_compactable(group.rafts[leader - 1], 10));
	assert_true(group_view(&group, leader).first > applied - 15);
	group.cut[away] = false;
	group_run(&group, 200);
	assert_int_equal(group_view(&group, leader).members[away - 1].snapshot, true);
	assert_int_equal(group.news[away].snapshot_from, leader);
	assert_int_equal(group.news[away].snapshot_index, applied);
	/* While the state comes the leader goes on, and keeps what follows it. */
	raft_keep(group.rafts[leader - 1], applied);
	for (int i = 0; i < 20; i++)
		group_propose(&group, leader, "y");
	group_run(&group, 100);
	raft_compact(group.rafts[leader - 1], group_view(&group, leader).applied);
	assert_int_equal(group_view(&group, leader).first, applied + 1);
	struct raft_snapshot snapshot = {.index = applied, .term = group.news[away].snapshot_term};
	snapshot.membership = group.membership;
	uint64_t old_commit = group_view(&group, away).commit;
	snapshot.index = old_commit;
	assert_int_equal(raft_install(group.rafts[away - 1], group.now_ms, &snapshot), ERR_INVALID);
	snapshot.index = applied;
	assert_int_equal(raft_install(group.rafts[away - 1], group.now_ms, &snapshot), OK);
	group_settle(&group);
	assert_true(group.news[away].reset);
	assert_int_equal(group.news[away].reset_index, applied);
	assert_int_equal(group_view(&group, away).first, applied + 1);
	group_run(&group, 300);
	assert_int_equal(group_view(&group, away).commit, group_view(&group, leader).commit);
	assert_int_equal(group_view(&group, leader).members[away - 1].snapshot, false);
	group_close(&group);
}

/* A log that agrees where the snapshot ends is kept. */
static void test_install_keeps_what_follows(void **state)
{
	(void)state;
	struct raft_membership membership = {0};
	struct raft_member member = {.id = 1, .node = 5};
	assert_true(membership_put(&membership, &member));
	member.id = 2;
	assert_true(membership_put(&membership, &member));
	struct raft_options options = {.id = 1,
				       .node = 5,
				       .membership = &membership,
				       .election_ticks = 30,
				       .heartbeat_ticks = 5,
				       .tick_ms = 10,
				       .seed = 1};
	struct raft_hard_state hard = {.term = 2};
	struct raft_entry entries[] = {{.index = 1, .term = 1, .kind = RAFT_ENTRY_NORMAL},
				       {.index = 2, .term = 1, .kind = RAFT_ENTRY_NORMAL, .damaged = true},
				       {.index = 3, .term = 2, .kind = RAFT_ENTRY_NORMAL},
				       {.index = 4, .term = 2, .kind = RAFT_ENTRY_NORMAL}};
	struct raft *raft;
	struct raft_view view;
	struct raft_ready ready;
	assert_int_equal(raft_open(&options, &hard, 1, 0, entries, 4, &raft), OK);
	struct raft_snapshot snapshot = {.index = 3, .term = 2, .membership = membership};
	assert_int_equal(raft_install(raft, 1000, &snapshot), OK);
	raft_view(raft, &view);
	assert_int_equal(view.last, 4);
	assert_int_equal(view.commit, 3);
	assert_false(raft_ready(raft, &ready) && ready.reset);
	raft_close(raft);
	/* Else it begins anew. */
	assert_int_equal(raft_open(&options, &hard, 1, 0, entries, 4, &raft), OK);
	snapshot.term = 1;
	assert_int_equal(raft_install(raft, 1000, &snapshot), OK);
	raft_view(raft, &view);
	assert_int_equal(view.first, 4);
	assert_int_equal(view.last, 3);
	assert_int_equal(view.holes, 0);
	assert_true(raft_ready(raft, &ready) && ready.reset && ready.reset_index == 3 && ready.reset_term == 1);
	raft_close(raft);
}

/* The state was exchanged and the log not yet, when the process ended. */
static void test_crash_between_state_and_log(void **state)
{
	(void)state;
	uint64_t members[] = {1, 2, 3};
	struct raft_options options = {.id = 1,
				       .members = members,
				       .member_count = 3,
				       .election_ticks = 30,
				       .heartbeat_ticks = 5,
				       .tick_ms = 10,
				       .seed = 1,
				       .applied = 50,
				       .installed_index = 50,
				       .installed_term = 4};
	struct raft_hard_state hard = {.term = 3, .vote = 2};
	struct raft_entry entries[] = {{.index = 1, .term = 1, .kind = RAFT_ENTRY_NORMAL},
				       {.index = 2, .term = 2, .kind = RAFT_ENTRY_NORMAL}};
	struct raft *raft;
	assert_int_equal(raft_open(&options, &hard, 1, 0, entries, 2, &raft), OK);
	struct raft_ready ready;
	assert_true(raft_ready(raft, &ready));
	assert_true(ready.reset && ready.reset_index == 50 && ready.reset_term == 4);
	assert_true(ready.hard_changed && ready.hard.term == 4 && ready.hard.vote == RAFT_VOTE_UNKNOWN);
	raft_close(raft);
	/* A log that goes on from there is as it should be. */
	struct raft_entry after = {.index = 51, .term = 4, .kind = RAFT_ENTRY_NORMAL};
	hard.term = 4;
	assert_int_equal(raft_open(&options, &hard, 51, 4, &after, 1, &raft), OK);
	assert_false(raft_ready(raft, &ready) && ready.reset);
	raft_close(raft);
	/* Without a snapshot such a log has lost entries. */
	options.installed_index = 0;
	assert_int_equal(raft_open(&options, &hard, 1, 0, entries, 2, &raft), ERR_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_leader_fills_a_followers_hole),
	    cmocka_unit_test(test_hole_is_not_acknowledged),
	    cmocka_unit_test(test_fill_is_acknowledged_when_durable),
	    cmocka_unit_test(test_holders_without_a_leader_help_each_other),
	    cmocka_unit_test(test_hole_that_a_majority_never_had_is_cut),
	    cmocka_unit_test(test_cut_needs_answers_of_a_later_term),
	    cmocka_unit_test(test_applied_hole_hinders_nobody),
	    cmocka_unit_test(test_member_that_is_too_far_behind_gets_a_snapshot),
	    cmocka_unit_test(test_install_keeps_what_follows),
	    cmocka_unit_test(test_crash_between_state_and_log),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
