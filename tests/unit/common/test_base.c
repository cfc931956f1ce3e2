/* common/base: errors, buffers, generator, checksum, ids. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/bytes.h"
#include "common/base/buf.h"
#include "common/base/crc32c.h"
#include "common/base/err.h"
#include "common/base/limits.h"
#include "common/base/rng.h"
#include "common/base/snowflake.h"

static void test_err(void **state)
{
	(void)state;
	assert_string_equal(err_name(OK), "ok");
	assert_int_equal(err_errno(OK), 0);
	/* The names are written out beside the list: the order must be the same. */
#define X(name, wire, number, text)                                                                                    \
	do {                                                                                                           \
		char lower[64];                                                                                        \
		size_t size = 0;                                                                                       \
		for (const char *p = &#name[4]; *p != '\0'; p++)                                                       \
			lower[size++] = (char)(*p == '_' ? '_' : *p | 0x20);                                           \
		lower[size] = '\0';                                                                                    \
		assert_string_equal(err_name(name), lower);                                                            \
		assert_string_equal(err_text(name), text);                                                             \
		assert_int_equal(err_errno(name), number);                                                             \
		assert_int_equal(err_from_wire(wire), name);                                                           \
	} while (0);
	ERR_LIST(X)
#undef X
	assert_int_equal(err_from_wire(0), OK);
	assert_int_equal(err_from_wire(9999), ERR_PROTOCOL);
	assert_int_equal(err_from_errno(ENOENT), ERR_NOT_FOUND);
	assert_int_equal(err_from_errno(EIO), ERR_IO);
	assert_int_equal(err_from_errno(EINVAL), ERR_INVALID);
	assert_int_equal(err_from_errno(EACCES), ERR_PERMISSION);
	assert_int_equal(err_from_errno(EDQUOT), ERR_NO_SPACE);
	assert_int_equal(err_from_errno(ECONNREFUSED), ERR_UNREACHABLE);
	assert_int_equal(err_from_errno(EPIPE), ERR_CLOSED);
	assert_int_equal(err_from_errno(12345), ERR_IO);
	assert_int_equal(err_from_errno(0), OK);
}

static void test_slice(void **state)
{
	(void)state;
	assert_true(slice_compare(slice_text("a"), slice_text("b")) < 0);
	assert_true(slice_compare(slice_text("a"), slice_text("aa")) < 0);
	assert_true(slice_compare(slice_text("\xff"), slice_text("a")) > 0);
	assert_int_equal(slice_compare(slice_text("x"), slice_text("x")), 0);
	assert_int_equal(slice_compare((struct slice){ 0 }, slice_text("")), 0);
	assert_true(slice_equal((struct slice){ 0 }, slice_text("")));
	assert_false(slice_equal(slice_text("a"), slice_text("b")));
	assert_true(slice_starts_with(slice_text("abc"), slice_text("ab")));
	assert_true(slice_starts_with(slice_text("abc"), (struct slice){ 0 }));
	assert_false(slice_starts_with(slice_text("a"), slice_text("ab")));
}

static void test_buf(void **state)
{
	(void)state;
	struct buf buf = { 0 }, other = { 0 };
	for (int i = 0; i < 1000; i++)
		buf_printf(&buf, "%d,", i);
	assert_int_equal(buf.size, 10 * 2 + 90 * 3 + 900 * 4);
	assert_memory_equal(buf.bytes, "0,1,2,3,", 8);
	buf_set(&other, slice_text("old"));
	buf_take(&other, &buf);
	assert_null(buf.bytes);
	assert_int_equal(buf.size, 0);
	assert_memory_equal(other.bytes + other.size - 4, "999,", 4);
	buf_clear(&other);
	assert_int_equal(buf_slice(&other).size, 0);
	buf_append(&other, NULL, 0);
	buf_append_slice(&other, slice_text("x"));
	assert_int_equal(other.size, 1);
	buf_deinit(&other);
	buf_deinit(&other);
	buf_deinit(&buf);
}

static void test_iobuf(void **state)
{
	(void)state;
	struct iobuf *a = iobuf_open(1);
	assert_int_equal(a->capacity, 4096);
	assert_int_equal(a->size, 0);
	assert_int_equal((uintptr_t)a->bytes % 4096, 0);
	assert_ptr_equal(iobuf_ref(a), a);
	iobuf_unref(a);
	assert_int_equal(a->references, 1);
	uint8_t *bytes = a->bytes;
	iobuf_unref(a);
	struct iobuf *b = iobuf_open(4096);
	assert_ptr_equal(b->bytes, bytes);
	struct iobuf *c = iobuf_open(FRAME_BYTES_MAX);
	assert_true(c->capacity >= FRAME_BYTES_MAX);
	assert_int_equal((uintptr_t)c->bytes % 4096, 0);
	memset(c->bytes, 1, c->capacity);
	iobuf_unref(c);
	iobuf_unref(b);
	iobuf_unref(NULL);
	/* More than the free lists keep. */
	enum { COUNT = IOBUF_FREE_BYTES_MAX / FRAME_DATA_BYTES_MAX + 10 };
	struct iobuf *many[COUNT];
	for (int i = 0; i < COUNT; i++)
		many[i] = iobuf_open(FRAME_DATA_BYTES_MAX);
	for (int i = 0; i < COUNT; i++)
		iobuf_unref(many[i]);
	iobuf_trim();
}

static void test_bytes(void **state)
{
	(void)state;
	uint8_t p[8];
	put_le16(p, 0x1234);
	assert_int_equal(p[0], 0x34);
	assert_int_equal(get_le16(p), 0x1234);
	put_le32(p, 0xdeadbeef);
	assert_int_equal(p[3], 0xde);
	assert_int_equal(get_le32(p), 0xdeadbeef);
	put_le64(p, 0x0123456789abcdefull);
	assert_int_equal(p[7], 0x01);
	assert_true(get_le64(p) == 0x0123456789abcdefull);
	put_be64(p, 0x0123456789abcdefull);
	assert_int_equal(p[0], 0x01);
	assert_true(get_be64(p) == 0x0123456789abcdefull);
}

/* Reference values of xoshiro256**, whose state is that of splitmix64 from the seed. */
static void test_rng(void **state)
{
	(void)state;
	struct rng rng, same;
	rng_init(&rng, 0);
	assert_true(rng.state[0] == 0xe220a8397b1dcdafull); /* first output of splitmix64(0) */
	assert_true(rng.state[1] == 0x6e789e6aa1b965f4ull);
	rng = (struct rng){ .state = { 1, 2, 3, 4 } };
	assert_true(rng_next(&rng) == 11520);
	assert_true(rng_next(&rng) == 0);
	assert_true(rng_next(&rng) == 1509978240);
	assert_true(rng_next(&rng) == 1215971899390074240ull);
	rng_init(&rng, 7);
	rng_init(&same, 7);
	unsigned seen[10] = { 0 };
	for (int i = 0; i < 10000; i++) {
		uint64_t value = rng_below(&rng, 10);
		assert_int_equal(value, rng_below(&same, 10));
		assert_true(value < 10);
		seen[value]++;
	}
	for (int i = 0; i < 10; i++)
		assert_in_range(seen[i], 850, 1150);
	assert_int_equal(rng_below(&rng, 1), 0);
}

/* RFC 3720 appendix B.4. */
static void test_crc32c(void **state)
{
	(void)state;
	uint8_t bytes[32];
	memset(bytes, 0, sizeof(bytes));
	assert_int_equal(crc32c(bytes, 32), 0x8a9136aa);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(crc32c(bytes, 32), 0x62a8ab43);
	for (int i = 0; i < 32; i++)
		bytes[i] = (uint8_t)i;
	assert_int_equal(crc32c(bytes, 32), 0x46dd794e);
	assert_int_equal(crc32c("123456789", 9), 0xe3069283);
	assert_int_equal(crc32c("", 0), 0);
	for (size_t cut = 0; cut <= 32; cut++)
		assert_int_equal(crc32c_extend(crc32c(bytes, cut), bytes + cut, 32 - cut), 0x46dd794e);
	static const uint8_t zeros[BLOCK_BYTES];
	assert_int_equal(crc32c(zeros, sizeof(zeros)), crc32c_zero_block());
}

static void test_snowflake(void **state)
{
	(void)state;
	struct snowflake generator;
	snowflake_init(&generator, 5);
	const uint64_t now = SNOWFLAKE_EPOCH_MS + 1000;
	uint64_t first = snowflake_next(&generator, now);
	assert_true(first == (1000ull << 22 | 5u << 12));
	uint64_t last = first;
	/* More than a millisecond's worth, with a clock that stands, then goes back, then forward. */
	for (int i = 0; i < 10000; i++) {
		uint64_t id = snowflake_next(&generator, i < 5000 ? now : now - 500);
		assert_true(id > last);
		assert_int_equal(id >> 12 & 1023, 5);
		last = id;
	}
	assert_true(last >> 22 == 1002);
	uint64_t later = snowflake_next(&generator, now + 5000);
	assert_true(later == (6000ull << 22 | 5u << 12));
	assert_true(snowflake_next(&generator, 0) > later);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err),   cmocka_unit_test(test_slice),  cmocka_unit_test(test_buf),
		cmocka_unit_test(test_iobuf), cmocka_unit_test(test_bytes),  cmocka_unit_test(test_rng),
		cmocka_unit_test(test_crc32c), cmocka_unit_test(test_snowflake),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
