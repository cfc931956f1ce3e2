#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tools/granary/json.h"

struct text {
	FILE *stream;
	char *bytes;
	size_t size;
	struct json json;
};

static void begin(struct text *text)
{
	text->stream = open_memstream(&text->bytes, &text->size);
	assert_non_null(text->stream);
	json_init(&text->json, text->stream);
}

static void ends_as(struct text *text, const char *expected)
{
	fclose(text->stream);
	assert_string_equal(text->bytes, expected);
	free(text->bytes);
}

static void commas_stand_between(void **state)
{
	(void)state;
	struct text text;
	begin(&text);
	json_open(&text.json, NULL, '{');
	json_number(&text.json, "a", UINT64_MAX);
	json_open(&text.json, "b", '[');
	json_bool(&text.json, NULL, true);
	json_bool(&text.json, NULL, false);
	json_open(&text.json, NULL, '[');
	json_close(&text.json, ']');
	json_close(&text.json, ']');
	json_signed(&text.json, "c", INT64_MIN);
	json_id(&text.json, "d", 0x12ab);
	json_real(&text.json, "e", 1.5);
	json_close(&text.json, '}');
	ends_as(&text, "{\"a\": 18446744073709551615, \"b\": [true, false, []], \"c\": -9223372036854775808, "
		       "\"d\": \"00000000000012ab\", \"e\": 1.500}\n");
}

static void objects_one_after_another(void **state)
{
	(void)state;
	struct text text;
	begin(&text);
	for (int i = 0; i < 2; i++) {
		json_open(&text.json, NULL, '{');
		json_close(&text.json, '}');
	}
	ends_as(&text, "{}\n{}\n");
}

static void any_name_becomes_valid_text(void **state)
{
	(void)state;
	static const struct {
		const char *name, *json;
	} cases[] = {
	    {"plain", "\"plain\"\n"},
	    {"q\"b\\n\n\x01", "\"q\\\"b\\\\n\\u000a\\u0001\"\n"},
	    {"\xc3\xa9\xe2\x98\x83\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x98\x83\xf0\x9f\x98\x80\"\n"},
	    {"\xff|\xc3|\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80",
	     "\"\\ufffd|\\ufffd|\\ufffd\\ufffd|\\ufffd\\ufffd\\ufffd|"
	     "\\ufffd\\ufffd\\ufffd\\ufffd\"\n"},
	    {"cut\xe2\x98", "\"cut\\ufffd\\ufffd\"\n"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct text text;
		begin(&text);
		json_text(&text.json, NULL, cases[i].name);
		fputc('\n', text.stream);
		ends_as(&text, cases[i].json);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(commas_stand_between),
	    cmocka_unit_test(objects_one_after_another),
	    cmocka_unit_test(any_name_becomes_valid_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
