/* Random fcntl locks beside a model that keeps the lock of every owner on every byte. */
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

#include "common/base/rng.h"

#define BYTES 16
#define OWNERS 4 /* two of each session */
#define SEEDS 5
#define STEPS 1500

struct model {
	struct fixture fixture;
	struct rng rng;
	uint64_t file;
	uint64_t sessions[2];
	uint64_t sequences[2];
	uint8_t kinds[OWNERS][BYTES];
};

static Granary__LockRange range_of(struct model *m, int owner, uint32_t kind)
{
	uint64_t a = rng_below(&m->rng, BYTES), b = rng_below(&m->rng, BYTES);
	return MESSAGE(LockRange, lock_range, .owner = (uint64_t)owner, .kind = kind, .start = a < b ? a : b,
		       .end = a < b ? b : a);
}

static bool in_the_way(const struct model *m, int owner, const Granary__LockRange *range)
{
	for (int other = 0; other < OWNERS; other++)
		for (uint64_t i = range->start; other != owner && range->kind && i <= range->end; i++)
			if (m->kinds[other][i] == LOCK_EXCLUSIVE ||
			    (m->kinds[other][i] && range->kind == LOCK_EXCLUSIVE))
				return true;
	return false;
}

static void step(struct model *m)
{
	struct fixture *f = &m->fixture;
	int owner = (int)rng_below(&m->rng, OWNERS);
	Granary__LockRange range = range_of(m, owner, (uint32_t)rng_below(&m->rng, 3));
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__SetLock set = MESSAGE(SetLock, set_lock, .inode = m->file, .range = &range);
	op.op_case = GRANARY__META_OP__OP_SET_LOCK;
	op.set_lock = &set;
	enum err expected = in_the_way(m, owner, &range) ? ERR_WOULD_BLOCK : OK;
	for (uint64_t i = range.start; !expected && i <= range.end; i++)
		m->kinds[owner][i] = (uint8_t)range.kind;
	f->sequence = m->sequences[owner / 2]++;
	assert_int_equal(fixture_run(f, m->sessions[owner / 2], &op), expected);
	if (expected) {
		/* Whoever is named holds what is said. */
		const Granary__LockRange *held = f->result->lock;
		assert_int_equal(held->session, m->sessions[held->owner / 2]);
		for (uint64_t i = held->start; i <= held->end; i++)
			assert_int_equal(m->kinds[held->owner][i], held->kind);
	}
}

/* Every owner asks for every byte. */
static void compare(struct model *m)
{
	struct fixture *f = &m->fixture;
	for (int owner = 0; owner < OWNERS; owner++) {
		for (uint64_t i = 0; i < BYTES; i++) {
			Granary__LockRange range = MESSAGE(LockRange, lock_range, .owner = (uint64_t)owner,
							   .kind = LOCK_EXCLUSIVE, .start = i, .end = i);
			Granary__TestLock test = MESSAGE(TestLock, test_lock, .inode = m->file, .range = &range);
			Granary__MetaOp op = GRANARY__META_OP__INIT;
			op.op_case = GRANARY__META_OP__OP_TEST_LOCK;
			op.test_lock = &test;
			assert_int_equal(fixture_run(f, m->sessions[owner / 2], &op), OK);
			assert_int_equal(f->result->lock->kind != LOCK_NONE, in_the_way(m, owner, &range));
		}
	}
}

static void run_seed(uint64_t seed)
{
	struct model *m = mem_zero(1, sizeof(*m));
	struct fixture *f = &m->fixture;
	fixture_open(f);
	rng_init(&m->rng, seed);
	m->file = made_file(f, ROOT, "a");
	m->sessions[0] = session_begin(f);
	m->sessions[1] = session_begin(f);
	for (unsigned i = 0; i < STEPS; i++) {
		step(m);
		if (i % 50 == 0)
			compare(m);
		if (i % 400 == 399) {
			int ended = (int)rng_below(&m->rng, 2);
			assert_int_equal(session_end(f, m->sessions[ended]), OK);
			m->sessions[ended] = session_begin(f);
			m->sequences[ended] = 0;
			memset(m->kinds[ended * 2], 0, 2 * sizeof(m->kinds[0]));
			compare(m);
			invariants_check(f->kv);
		}
	}
	invariants_check(f->kv);
	fixture_close(f);
	free(m);
}

static void test_model(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		run_seed(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
