#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tools/granary/cli.h"

static const struct command any = {.name = "test", .operands_min = 0, .operands_max = -1, .usage = "ANY"};

struct parsed {
	bool flag, other;
	const char *text;
	uint64_t count, bytes;
	struct cli_list list;
	struct cli cli;
	int status, operands;
	char *argv[16];
};

/* words is separated by blanks and changed. */
static bool parse(struct parsed *out, const struct command *command, char *words)
{
	int argc = 0;
	*out = (struct parsed){.cli.command = command};
	for (char *rest = words, *word; (word = strsep(&rest, " ")) && *word;)
		out->argv[argc++] = word;
	const struct cli_option options[] = {
	    {"flag", 'f', CLI_FLAG, &out->flag, NULL, ""},
	    {"other", 'o', CLI_FLAG, &out->other, NULL, ""},
	    {"text", 't', CLI_TEXT, &out->text, "T", ""},
	    {"count", 0, CLI_COUNT, &out->count, "N", ""},
	    {"bytes", 'b', CLI_BYTES, &out->bytes, "N", ""},
	    {"list", 0, CLI_LIST, &out->list, "L", ""},
	    {0},
	};
	bool going_on = cli_parse(&out->cli, options, &argc, out->argv, &out->status);
	out->operands = argc;
	return going_on;
}

static void options_stand_anywhere(void **state)
{
	(void)state;
	struct parsed p;
	char words[] = "a -f b --text=x --count 7 - -b4K --cluster h:1";
	assert_true(parse(&p, &any, words));
	assert_true(p.flag);
	assert_false(p.other);
	assert_string_equal(p.text, "x");
	assert_int_equal(p.count, 7);
	assert_int_equal(p.bytes, 4096);
	assert_string_equal(p.cli.cluster_option, "h:1");
	assert_int_equal(p.operands, 3);
	assert_string_equal(p.argv[0], "a");
	assert_string_equal(p.argv[1], "b");
	assert_string_equal(p.argv[2], "-");
}

static void letters_are_combined(void **state)
{
	(void)state;
	struct parsed p;
	char words[] = "-foty -- -f", lists[] = "--list a --list=b=c";
	assert_true(parse(&p, &any, words));
	assert_true(p.flag && p.other);
	assert_string_equal(p.text, "y");
	assert_int_equal(p.operands, 1);
	assert_string_equal(p.argv[0], "-f");
	assert_true(parse(&p, &any, lists));
	assert_int_equal(p.list.count, 2);
	assert_string_equal(p.list.items[1], "b=c");
	free(p.list.items);
}

static void mistakes_are_usage_errors(void **state)
{
	(void)state;
	static const struct command two = {.name = "test", .operands_min = 2, .operands_max = 2, .usage = "A B"};
	static const char *const mistakes[] = {
	    "--nonsense",     "-x",         "--text", "a b -t", "--count x a b", "--count -1",
	    "--flag=yes a b", "--bytes 1Q", "a",      "a b c",  "a b --fla"};
	for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
		struct parsed p;
		char words[64];
		snprintf(words, sizeof words, "%s", mistakes[i]);
		if (parse(&p, &two, words) || p.status != EXIT_USAGE)
			fail_msg("\"%s\" was taken (status %d)", mistakes[i], p.status);
	}
}

static void ids_are_sixteen_digits(void **state)
{
	(void)state;
	uint64_t id = 0;
	assert_true(cli_parse_id("00000000deadBEEF", &id));
	assert_int_equal(id, 0xdeadbeef);
	static const char *const wrong[] = {"", "/00000000deadbee", "00000000deadbee", "00000000deadbeef0",
					    "00000000deadbeeg"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_false(cli_parse_id(wrong[i], &id));
}

static void is_text(char *got, const char *expected)
{
	assert_string_equal(got, expected);
	free(got);
}

static void paths_are_taken_apart(void **state)
{
	(void)state;
	is_text(path_base("/a/b"), "b");
	is_text(path_base("/a/b//"), "b");
	is_text(path_base("a"), "a");
	is_text(path_parent("/a/b/"), "/a");
	is_text(path_parent("/a"), "/");
	is_text(path_parent("a"), ".");
	is_text(path_parent("a//b"), "a");
	is_text(path_join("/", "x"), "/x");
	is_text(path_join("/a", "x"), "/a/x");
	is_text(path_join("/a/", "x"), "/a/x");
}

static void numbers_for_people(void **state)
{
	(void)state;
	char out[32];
	assert_string_equal(text_size(0, out), "0");
	assert_string_equal(text_size(1023, out), "1023");
	assert_string_equal(text_size(1024, out), "1.0K");
	assert_string_equal(text_size(1536, out), "1.5K");
	assert_string_equal(text_size(10 << 20, out), "10M");
	assert_string_equal(text_size(UINT64_MAX, out), "16E");
	assert_string_equal(text_mode(040755, out), "drwxr-xr-x");
	assert_string_equal(text_mode(0104711, out), "-rws--x--x");
	assert_string_equal(text_mode(0121777, out), "lrwxrwxrwt");
}

static void errors_have_their_exit_status(void **state)
{
	(void)state;
	assert_int_equal(cli_exit_status(0), EXIT_DONE);
	assert_int_equal(cli_exit_status(ERR_NOT_FOUND), EXIT_NOT_FOUND);
	assert_int_equal(cli_exit_status(ERR_NO_LEADER), EXIT_NO_CLUSTER);
	assert_int_equal(cli_exit_status(ERR_UNREACHABLE), EXIT_NO_CLUSTER);
	assert_int_equal(cli_exit_status(ERR_NO_SPACE), EXIT_FAILED);
	assert_int_equal(cli_worst(EXIT_DONE, EXIT_NOT_FOUND), EXIT_NOT_FOUND);
	assert_int_equal(cli_worst(EXIT_FAILED, EXIT_NOT_FOUND), EXIT_FAILED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(options_stand_anywhere),        cmocka_unit_test(letters_are_combined),
	    cmocka_unit_test(mistakes_are_usage_errors),     cmocka_unit_test(ids_are_sixteen_digits),
	    cmocka_unit_test(paths_are_taken_apart),         cmocka_unit_test(numbers_for_people),
	    cmocka_unit_test(errors_have_their_exit_status),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
