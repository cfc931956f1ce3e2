#include "tests/unit/master/raft_group.h"

static uint64_t lead(struct group *group, size_t count)
{
	group_open(group, count);
	uint64_t leader = group_leader(group);
	assert_true(leader != 0);
	group_run(group, 100);
	return leader;
}

static size_t appends_to(const struct raft_ready *ready, uint64_t to, size_t *entries)
{
	size_t count = 0;
	*entries = 0;
	for (size_t i = 0; i < ready->message_count; i++)
		if (ready->messages[i].kind == RAFT_APPEND && ready->messages[i].to == to) {
			count++;
			*entries += ready->messages[i].entry_count;
		}
	return count;
}

static void test_proposals_of_a_round_share_a_message(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	for (int i = 0; i < 10; i++)
		group_propose(&group, leader, "one of ten");
	struct raft_ready ready;
	assert_true(raft_ready(group.rafts[leader - 1], &ready));
	assert_int_equal(ready.entry_count, 10);
	size_t entries;
	assert_int_equal(appends_to(&ready, leader % 3 + 1, &entries), 1);
	assert_int_equal(entries, 10);
	group_close(&group);
}

static void test_leader_counts_itself_only_when_durable(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t one = leader % 3 + 1, other = one % 3 + 1;
	group.disk_stuck[leader] = true;
	group.cut[other] = true;
	uint64_t index = group_propose(&group, leader, "x");
	group_run(&group, 100);
	assert_int_equal(group_view(&group, one).last, index);
	assert_int_equal(group_view(&group, leader).commit, index - 1); /* one of three has it on its disk */
	group_unstick(&group, leader);
	assert_int_equal(group_view(&group, leader).commit, index);
	group_close(&group);
}

static void test_majority_without_the_leader_commits(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t follower = leader % 3 + 1;
	group.disk_stuck[leader] = true;
	uint64_t index = group_propose(&group, leader, "x");
	group_run(&group, 100);
	/* Committed, and the followers may apply it; the leader itself not before it is on its own disk. */
	assert_int_equal(group_view(&group, follower).commit, index);
	assert_int_equal(group_view(&group, leader).commit, index - 1);
	group_unstick(&group, leader);
	assert_int_equal(group_view(&group, leader).commit, index);
	group_close(&group);
}

static void test_leader_with_a_stuck_disk_hands_over(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	group.disk_stuck[leader] = true;
	uint64_t index = group_propose(&group, leader, "x");
	group_run(&group, 4 * RAFT_ELECTION_TICKS * RAFT_TICK_MS - 50);
	assert_int_equal(group_view(&group, leader).role, RAFT_LEADER);
	group_run(&group, 150);
	assert_int_equal(group_view(&group, leader).role, RAFT_FOLLOWER);
	group.cut[leader] = true;
	uint64_t next = group_leader(&group);
	assert_true(next != 0 && next != leader);
	assert_true(group_view(&group, next).commit >= index);
	group_close(&group);
}

static void test_follower_acknowledges_after_its_sync(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t follower = leader % 3 + 1;
	group.cut[follower % 3 + 1] = true;
	group.disk_stuck[follower] = true;
	uint64_t index = group_propose(&group, leader, "x");
	group_run(&group, 1000);
	assert_int_equal(group_view(&group, leader).commit, index - 1);
	/* Heartbeats are answered meanwhile: a slow disk costs neither leadership nor lease. */
	assert_int_equal(group_view(&group, leader).role, RAFT_LEADER);
	assert_true(raft_can_read(group.rafts[leader - 1], group.now_ms));
	group_unstick(&group, follower);
	group_settle(&group);
	assert_int_equal(group_view(&group, leader).commit, index);
	group_close(&group);
}

static void test_window_is_bounded(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t deaf = leader % 3 + 1;
	group.cut[deaf] = true;
	struct raft *raft = group.rafts[leader - 1];
	size_t sent = 0;
	for (size_t i = 0; i < RAFT_INFLIGHT_MAX + 20; i++) {
		group_propose(&group, leader, "x");
		struct raft_ready ready;
		assert_true(raft_ready(raft, &ready));
		size_t entries;
		sent += appends_to(&ready, deaf, &entries);
	}
	assert_int_equal(sent, RAFT_INFLIGHT_MAX);
	group_close(&group);
}

static bool drop_entries(const struct raft_message *message)
{
	return message->kind == RAFT_APPEND && message->entry_count > 0;
}

static void test_lost_append_is_sent_again(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	group.drop = drop_entries;
	uint64_t index = group_propose(&group, leader, "x");
	group_settle(&group);
	group.drop = NULL;
	assert_int_equal(group_view(&group, leader).commit, index - 1);
	group_run(&group, RAFT_HEARTBEAT_TICKS * RAFT_TICK_MS + RAFT_TICK_MS);
	assert_int_equal(group_view(&group, leader).commit, index);
	group_close(&group);
}

static void test_conflicts_are_skipped_by_terms(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t next = leader % 3 + 1, third = next % 3 + 1;
	/* The old leader appends a hundred entries that reach nobody, the others get fifty of a later term. */
	group.cut[leader] = true;
	for (int i = 0; i < 100; i++)
		group_propose(&group, leader, "lost");
	group_run(&group, 1500);
	uint64_t now = group_leader(&group);
	assert_true(now == next || now == third);
	for (int i = 0; i < 50; i++)
		group_propose(&group, now, "kept");
	group_run(&group, 200);
	memset(group.delivered, 0, sizeof(group.delivered));
	group.cut[leader] = false;
	for (int i = 0; i < 10 && group_view(&group, leader).last != group_view(&group, now).last; i++)
		group_run(&group, RAFT_TICK_MS);
	struct raft_view view = group_view(&group, leader);
	assert_int_equal(view.last, group_view(&group, now).last);
	assert_int_equal(raft_entry_at(group.rafts[leader - 1], view.last)->term, view.term);
	assert_true(group.delivered[RAFT_APPEND] < 20);
	group_close(&group);
}

/* A follower on whose disk the entries of three leaders are under way at once. */
static void test_late_completion_of_overwritten_entry_does_not_count(void **state)
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
	struct raft_hard_state hard = {.term = 1};
	struct raft *raft;
	assert_int_equal(raft_open(&options, &hard, 1, 0, NULL, 0, &raft), OK);
	struct raft_entry two[] = {{.index = 1, .term = 2, .kind = RAFT_ENTRY_NORMAL},
				   {.index = 2, .term = 2, .kind = RAFT_ENTRY_NORMAL}};
	struct raft_entry three[] = {{.index = 1, .term = 3, .kind = RAFT_ENTRY_NORMAL}};
	struct raft_message append = {
	    .kind = RAFT_APPEND, .from = 2, .to = 1, .term = 2, .entries = two, .entry_count = 2};
	struct raft_ready ready;
	raft_step(raft, 1000, &append);
	assert_true(raft_ready(raft, &ready)); /* first write: 1 and 2 of term 2 */
	append = (struct raft_message){
	    .kind = RAFT_APPEND, .from = 3, .to = 1, .term = 3, .entries = three, .entry_count = 1};
	raft_step(raft, 1001, &append);
	assert_true(raft_ready(raft, &ready)); /* second: 1 of term 3 takes their place */
	append = (struct raft_message){
	    .kind = RAFT_APPEND, .from = 2, .to = 1, .term = 4, .entries = two, .entry_count = 2, .commit = 2};
	raft_step(raft, 1002, &append);
	assert_true(raft_ready(raft, &ready)); /* third: the old ones are back */
	assert_int_equal(ready.entries[0].index, 1);
	assert_int_equal(ready.entry_count, 2);
	assert_int_equal(ready.messages_after_sync[0].log_index, 2);
	/* The first write completes. After a crash now the disk may hold entry 1 of term 3 alone. */
	raft_persisted(raft, 1003, 2, 2);
	raft_step(raft, 1004,
		  &(struct raft_message){
		      .kind = RAFT_APPEND, .from = 2, .to = 1, .term = 4, .log_index = 2, .log_term = 2, .commit = 2});
	assert_true(raft_ready(raft, &ready));
	assert_int_equal(ready.message_count, 1);
	assert_int_equal(ready.messages[0].log_index, 0); /* nothing is sure to be durable */
	assert_int_equal(ready.message_after_sync_count, 1);
	assert_int_equal(ready.messages_after_sync[0].log_index, 2);
	assert_int_equal(ready.commit, 0);
	/* An entry of the leader's own term is new: its completion covers everything. */
	struct raft_entry four[] = {{.index = 3, .term = 4, .kind = RAFT_ENTRY_BARRIER}};
	append = (struct raft_message){.kind = RAFT_APPEND,
				       .from = 2,
				       .to = 1,
				       .term = 4,
				       .log_index = 2,
				       .log_term = 2,
				       .entries = four,
				       .entry_count = 1,
				       .commit = 2};
	raft_step(raft, 1005, &append);
	assert_true(raft_ready(raft, &ready));
	raft_persisted(raft, 1006, 3, 4);
	assert_true(raft_ready(raft, &ready));
	assert_int_equal(ready.commit, 2);
	raft_close(raft);
}

static void test_unsound_appends_are_ignored(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t id = leader % 3 + 1;
	struct raft *raft = group.rafts[id - 1];
	struct raft_view before = group_view(&group, id);
	struct raft_entry bad[] = {{.index = before.last + 1, .term = before.term, .kind = RAFT_ENTRY_NORMAL},
				   {.index = before.last + 3, .term = before.term, .kind = RAFT_ENTRY_NORMAL}};
	struct raft_message append = {.kind = RAFT_APPEND,
				      .from = leader,
				      .to = id,
				      .term = before.term,
				      .log_index = before.last,
				      .log_term = before.term,
				      .entries = bad,
				      .entry_count = 2};
	struct raft_ready ready;
	raft_step(raft, group.now_ms, &append);
	bad[1].index = before.last + 2;
	bad[1].term = before.term + 1; /* of the future */
	raft_step(raft, group.now_ms, &append);
	bad[1].term = before.term;
	bad[1].kind = 9;
	raft_step(raft, group.now_ms, &append);
	append.from = 77;
	bad[1].kind = RAFT_ENTRY_NORMAL;
	raft_step(raft, group.now_ms, &append);
	append.from = leader;
	append.log_index = UINT64_MAX;
	raft_step(raft, group.now_ms, &append);
	assert_false(raft_ready(raft, &ready));
	/* What would undo a committed entry is refused, too. */
	struct raft_entry undo[] = {{.index = 1, .term = before.term, .kind = RAFT_ENTRY_NORMAL}};
	struct raft_message other = {
	    .kind = RAFT_APPEND, .from = leader, .to = id, .term = before.term + 1, .entries = undo, .entry_count = 1};
	undo[0].term = before.term + 1;
	raft_step(raft, group.now_ms, &other);
	assert_int_equal(raft_entry_at(raft, 1)->term, before.term);
	/* An answer that claims more than the log holds. */
	struct raft_message claim = {
	    .kind = RAFT_APPEND_REPLY, .from = id, .to = leader, .term = before.term, .log_index = 1000};
	raft_step(group.rafts[leader - 1], group.now_ms, &claim);
	assert_int_equal(group_view(&group, leader).commit, before.commit);
	group_close(&group);
}

static void test_bounds_of_proposals(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	struct raft *raft = group.rafts[leader - 1];
	uint8_t *bytes = mem_zero(1, RAFT_ENTRY_BYTES_MAX + 1);
	uint64_t index;
	assert_int_equal(
	    raft_propose(raft, group.now_ms, RAFT_ENTRY_NORMAL, slice_of(bytes, RAFT_ENTRY_BYTES_MAX + 1), &index),
	    ERR_TOO_LARGE);
	assert_int_equal(
	    raft_propose(group.rafts[leader % 3], group.now_ms, RAFT_ENTRY_NORMAL, slice_of(bytes, 1), &index),
	    ERR_NOT_LEADER);
	size_t taken = 0;
	enum err err;
	while ((err = raft_propose(raft, group.now_ms, RAFT_ENTRY_NORMAL, slice_of(bytes, RAFT_ENTRY_BYTES_MAX),
				   &index)) == OK)
		taken++;
	assert_int_equal(err, ERR_BUSY);
	assert_int_equal(taken, RAFT_UNCOMMITTED_BYTES_MAX / RAFT_ENTRY_BYTES_MAX);
	group_run(&group, 500);
	assert_int_equal(group_view(&group, leader).commit, index);
	assert_int_equal(raft_propose(raft, group.now_ms, RAFT_ENTRY_NORMAL, slice_of(bytes, 1), &index), OK);
	free(bytes);
	group_close(&group);
}

static void test_log_is_forgotten_only_when_all_hold_it(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t slow = leader % 3 + 1, other = slow % 3 + 1;
	group.cut[slow] = true;
	uint64_t before = group_view(&group, leader).last;
	for (int i = 0; i < 20; i++)
		group_propose(&group, leader, "x");
	group_run(&group, 200);
	assert_int_equal(raft_safe_to_compact(group.rafts[leader - 1]), before);
	assert_int_equal(raft_compactable(group.rafts[leader - 1], 20), before);
	assert_int_equal(raft_compactable(group.rafts[leader - 1], 5), before + 16); /* five entries of a byte stay */
	raft_keep(group.rafts[leader - 1], before - 1);
	raft_compact(group.rafts[leader - 1], before + 10);
	assert_int_equal(group_view(&group, leader).first, before);
	raft_keep(group.rafts[leader - 1], UINT64_MAX);
	group.cut[slow] = false;
	group_run(&group, 400);
	assert_int_equal(raft_safe_to_compact(group.rafts[leader - 1]), before + 20);
	/* Followers learn it with the appends. */
	assert_int_equal(raft_safe_to_compact(group.rafts[other - 1]), before + 20);
	for (uint64_t id = 1; id <= 3; id++) {
		raft_compact(group.rafts[id - 1], before + 15);
		assert_int_equal(group_view(&group, id).first, before + 15);
		assert_null(raft_entry_at(group.rafts[id - 1], before + 14));
	}
	group_propose(&group, leader, "y");
	group_run(&group, 100);
	assert_int_equal(group_view(&group, slow).commit, before + 21);
	group_close(&group);
}

static void test_reads_wait_for_the_barrier(void **state)
{
	(void)state;
	struct group group;
	uint64_t leader = lead(&group, 3);
	uint64_t next = leader % 3 + 1;
	group.cut[leader] = true;
	for (uint64_t id = 1; id <= 3; id++)
		group.disk_stuck[id] = false;
	uint64_t now = group_leader(&group);
	assert_true(now != 0);
	(void)next;
	struct raft_view view = group_view(&group, now);
	if (view.applied < view.last)
		assert_false(raft_can_read(group.rafts[now - 1], group.now_ms));
	group_run(&group, 50);
	assert_true(raft_can_read(group.rafts[now - 1], group.now_ms));
	/* The lease ends a tenth before the followers' promise. */
	assert_false(raft_can_read(group.rafts[now - 1], group.now_ms + 270));
	assert_false(raft_can_read(group.rafts[leader - 1], group.now_ms));
	group_close(&group);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_proposals_of_a_round_share_a_message),
	    cmocka_unit_test(test_leader_counts_itself_only_when_durable),
	    cmocka_unit_test(test_majority_without_the_leader_commits),
	    cmocka_unit_test(test_leader_with_a_stuck_disk_hands_over),
	    cmocka_unit_test(test_follower_acknowledges_after_its_sync),
	    cmocka_unit_test(test_window_is_bounded),
	    cmocka_unit_test(test_lost_append_is_sent_again),
	    cmocka_unit_test(test_conflicts_are_skipped_by_terms),
	    cmocka_unit_test(test_late_completion_of_overwritten_entry_does_not_count),
	    cmocka_unit_test(test_unsound_appends_are_ignored),
	    cmocka_unit_test(test_bounds_of_proposals),
	    cmocka_unit_test(test_log_is_forgotten_only_when_all_hold_it),
	    cmocka_unit_test(test_reads_wait_for_the_barrier),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
