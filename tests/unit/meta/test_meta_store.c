/* The overlay over the store: random puts, deletes, gets and scans beside an array, with commits, evictions and
 * reopening in between; keys. */
#include "tests/unit/meta/meta_fixture.h"

#include "common/base/rng.h"
#include "master/meta/store.h"

#define IDS 4
#define NAMES 12
#define STEPS 10000

struct model {
	struct loop *loop;
	struct kv *kv;
	struct store store;
	struct rng rng;
	char folder[64];
	uint64_t values[IDS][NAMES];    /* as the store should show them; 0: none */
	uint64_t committed[IDS][NAMES]; /* as they are after reopening */
};

static void open_all(struct model *m)
{
	check(kv_open(m->loop, m->folder, NULL, &m->kv) == OK);
	store_init(&m->store, m->kv);
	m->store.bytes_max = rng_below(&m->rng, 2) ? 500 : 1000000;
}

static void close_all(struct model *m)
{
	store_deinit(&m->store);
	kv_close(m->kv);
}

static struct key model_key(uint64_t id, uint64_t name)
{
	char text_name[4] = {(char)('a' + name), 0};
	return key_of_name(KEY_DIRENT, id, slice_text(text_name));
}

static void put(struct model *m)
{
	uint64_t id = rng_below(&m->rng, IDS), name = rng_below(&m->rng, NAMES), value = 1 + rng_below(&m->rng, 1000);
	struct key key = model_key(id, name);
	if (m->values[id][name] && rng_below(&m->rng, 2)) {
		Granary__Dirent *edited = store_edit(&m->store, &key, &granary__dirent__descriptor);
		assert_non_null(edited);
		edited->inode = value;
	} else {
		Granary__Dirent *dirent = mem_alloc(sizeof(*dirent));
		granary__dirent__init(dirent);
		dirent->inode = value;
		store_put_message(&m->store, &key, &dirent->base);
	}
	m->values[id][name] = value;
}

static void drop(struct model *m)
{
	uint64_t id = rng_below(&m->rng, IDS), name = rng_below(&m->rng, NAMES);
	struct key key = model_key(id, name);
	store_delete(&m->store, &key);
	m->values[id][name] = 0;
}

static void get(struct model *m)
{
	uint64_t id = rng_below(&m->rng, IDS), name = rng_below(&m->rng, NAMES);
	struct key key = model_key(id, name);
	const Granary__Dirent *dirent = store_message(&m->store, &key, &granary__dirent__descriptor);
	assert_int_equal(dirent ? dirent->inode : 0, m->values[id][name]);
	assert_int_equal(store_has(&m->store, &key), dirent != NULL);
}

static void scan(struct model *m)
{
	uint64_t id = rng_below(&m->rng, IDS), name = rng_below(&m->rng, NAMES);
	struct key prefix = key_of(KEY_DIRENT, id), from = model_key(id, name);
	bool after = rng_below(&m->rng, 2) != 0;
	if (after)
		from = key_after(&from);
	struct scan scan;
	scan_open(&scan, &m->store, &prefix, &from);
	for (uint64_t expected = name + after; expected < NAMES; expected++) {
		if (!m->values[id][expected])
			continue;
		assert_true(scan_next(&scan));
		struct key key = model_key(id, expected);
		assert_true(slice_equal(scan.key, key_slice(&key)));
		ProtobufCMessage *dirent = NULL;
		assert_int_equal(message_unpack(&granary__dirent__descriptor, scan.value, &dirent), OK);
		assert_int_equal(((Granary__Dirent *)dirent)->inode, m->values[id][expected]);
		message_free(dirent);
	}
	assert_false(scan_next(&scan));
	scan_close(&scan);
}

static void model_step(struct model *m)
{
	uint64_t what = rng_below(&m->rng, 100);
	if (what < 30) {
		put(m);
	} else if (what < 50) {
		drop(m);
	} else if (what < 70) {
		get(m);
	} else if (what < 90) {
		scan(m);
	} else if (what < 99) {
		assert_int_equal(store_commit(&m->store), OK);
		memcpy(m->committed, m->values, sizeof(m->values));
		store_trim(&m->store);
		assert_true(m->store.bytes <= m->store.bytes_max);
	} else {
		close_all(m);
		open_all(m);
		memcpy(m->values, m->committed, sizeof(m->values));
	}
}

static bool remove_file_in(void *arg, const char *name)
{
	char path[160];
	snprintf(path, sizeof(path), "%s/%s", (const char *)arg, name);
	unlink(path);
	return true;
}

static void test_store(void **state)
{
	(void)state;
	struct model *m = mem_zero(1, sizeof(*m));
	rng_init(&m->rng, 42);
	check(loop_open(&m->loop) == OK);
	snprintf(m->folder, sizeof(m->folder), "/tmp/granary-test-store-XXXXXX");
	check(mkdtemp(m->folder) != NULL);
	open_all(m);
	for (unsigned i = 0; i < STEPS; i++)
		model_step(m);
	close_all(m);
	check(dir_list(m->loop, m->folder, remove_file_in, m->folder) == OK);
	rmdir(m->folder);
	loop_close(m->loop);
	free(m);
}

/* A value that does not parse stops the store for good. */
static void test_damage(void **state)
{
	(void)state;
	struct fixture *f = mem_zero(1, sizeof(*f));
	fixture_open(f);
	struct kv_batch *batch = kv_batch_open();
	struct key key = key_of(KEY_INODE, 500);
	kv_batch_put(batch, key_slice(&key), slice_text("\xff\xff\xff"));
	assert_int_equal(kv_write(f->kv, batch, false), OK);
	kv_batch_close(batch);
	uint64_t index = meta_applied_index(f->meta);
	Granary__Inode *inode;
	assert_int_equal(meta_inode(f->meta, 500, NULL, &inode), ERR_CORRUPT);
	assert_int_equal(meta_apply(f->meta, index + 1, 1, NULL, NULL, &f->effects), ERR_CORRUPT);
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaReply *reply;
	assert_int_equal(meta_query(f->meta, &request, &reply), ERR_CORRUPT);
	fixture_close(f);
	free(f);
}

static void test_keys(void **state)
{
	(void)state;
	uint64_t id, second;
	uint32_t index;
	struct slice name;
	struct key key = key_of_pair(KEY_SERVER_CHUNK, 0x0102030405060708ull, 9);
	assert_true(key_parse_pair(key_slice(&key), &id, &second));
	assert_true(id == 0x0102030405060708ull && second == 9);
	assert_false(key_parse(key_slice(&key), &id));
	assert_false(key_parse_index(key_slice(&key), &id, &index));
	key = key_of_index(KEY_CHUNK_POINTER, 1, 256);
	struct key next = key_of_index(KEY_CHUNK_POINTER, 1, 257);
	assert_true(slice_compare(key_slice(&key), key_slice(&next)) < 0);
	assert_true(key_parse_index(key_slice(&key), &id, &index) && index == 256);
	key = key_of_name(KEY_DIRENT, 7, slice_text("name"));
	assert_true(key_parse_name(key_slice(&key), &id, &name) && id == 7 && slice_equal(name, slice_text("name")));
	next = key_after(&key);
	assert_true(slice_compare(key_slice(&key), key_slice(&next)) < 0);
	assert_true(slice_starts_with(key_slice(&next), key_slice(&key)) && next.size == key.size + 1);
	/* The longest name: nothing of the directory lies between. */
	uint8_t longest[NAME_BYTES_MAX];
	memset(longest, 0xff, sizeof(longest));
	key = key_of_name(KEY_DIRENT, 7, slice_of(longest, sizeof(longest)));
	next = key_after(&key);
	struct key other = key_of(KEY_DIRENT, 8);
	assert_true(slice_compare(key_slice(&key), key_slice(&next)) < 0);
	assert_true(slice_compare(key_slice(&next), key_slice(&other)) <= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_store),
	    cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_keys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
