/* Options from command line and file, and log lines. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/sys/log.h"
#include "common/sys/options.h"

struct config {
	bool verbose;
	char *name;
	uint64_t count, bytes, time;
	unsigned color;
};

static const struct option_spec specs[] = {
	{ "verbose", 'v', OPTION_FLAG, offsetof(struct config, verbose), NULL, "say more", NULL },
	{ "name", 'n', OPTION_TEXT, offsetof(struct config, name), "NAME", "who", "nobody" },
	{ "count", 'c', OPTION_COUNT, offsetof(struct config, count), "N", "how many", "3" },
	{ "cache", 0, OPTION_BYTES, offsetof(struct config, bytes), "SIZE", "how much", "8M" },
	{ "heartbeat-ms", 0, OPTION_DURATION, offsetof(struct config, time), "TIME", "how often", "300" },
	{ "color", 0, OPTION_CHOICE, offsetof(struct config, color), "red|green|blue", "which", "green" },
	{ .name = NULL },
};
static const struct options_program program = { "tester", "[options] DIR", "Tests.", specs };

struct run {
	struct config config;
	enum err err;
	char *argv[16];
	int argc, first;
	struct buf message;
};

static void parse(struct run *run, bool stop_at_word, const char *line)
{
	static char words[512];
	*run = (struct run){ .argc = 1, .argv = { (char *)(uintptr_t)"tester" } };
	snprintf(words, sizeof(words), "%s", line);
	char *rest = words;
	for (char *word = strsep(&rest, " "); word != NULL; word = strsep(&rest, " "))
		if (*word != '\0')
			run->argv[run->argc++] = word;
	run->err = options_parse(&program, &run->config, run->argc, run->argv, stop_at_word, &run->first, &run->message);
	buf_append(&run->message, "", 1);
}

static void finish(struct run *run)
{
	options_deinit(&program, &run->config);
	assert_null(run->config.name);
	buf_deinit(&run->message);
}

static void test_defaults(void **state)
{
	(void)state;
	struct run run;
	parse(&run, false, "");
	assert_int_equal(run.err, OK);
	assert_string_equal(run.config.name, "nobody");
	assert_false(run.config.verbose);
	assert_int_equal(run.config.count, 3);
	assert_int_equal(run.config.bytes, 8 << 20);
	assert_int_equal(run.config.time, 300);
	assert_int_equal(run.config.color, 1);
	assert_int_equal(run.first, 1);
	finish(&run);
}

static void test_command_line(void **state)
{
	(void)state;
	struct run run;
	parse(&run, false, "dir1 --name=me -v dir2 -c5 --cache 2G --heartbeat-ms 2s -");
	assert_int_equal(run.err, OK);
	assert_string_equal(run.config.name, "me");
	assert_true(run.config.verbose);
	assert_int_equal(run.config.count, 5);
	assert_true(run.config.bytes == 2ull << 30);
	assert_int_equal(run.config.time, 2000);
	assert_int_equal(run.argc - run.first, 3);
	assert_string_equal(run.argv[run.first], "dir1");
	assert_string_equal(run.argv[run.first + 1], "dir2");
	assert_string_equal(run.argv[run.first + 2], "-");
	finish(&run);

	static const char *const colors[] = { "--color red", "--color=green", "--color=red --color blue" };
	for (unsigned i = 0; i < 3; i++) {
		parse(&run, false, colors[i]);
		assert_int_equal(run.err, OK);
		assert_int_equal(run.config.color, i);
		finish(&run);
	}

	parse(&run, true, "-v ls -v --whatever");
	assert_int_equal(run.err, OK);
	assert_string_equal(run.argv[run.first], "ls");
	assert_int_equal(run.argc - run.first, 3);
	finish(&run);

	parse(&run, false, "a -v -- -n --count");
	assert_int_equal(run.err, OK);
	assert_int_equal(run.argc - run.first, 3);
	assert_string_equal(run.argv[run.first], "a");
	assert_string_equal(run.argv[run.first + 1], "-n");
	finish(&run);
}

static void test_mistakes(void **state)
{
	(void)state;
	static const char *const lines[] = {
		"--nosuch", "-x", "--count", "--count many", "--count -1", "--count 1K", "--cache 1X", "--cache 99999999999T",
		"--heartbeat-ms 1y", "--heartbeat-ms 99999999999999999999", "--verbose=perhaps", "--color gree", "--color redd", "--color red|green", "--color=", "--color RED", "-vn", "--config /no/such/file",
	};
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct run run;
		parse(&run, false, lines[i]);
		assert_int_equal(run.err, ERR_INVALID);
		assert_true(run.message.size > 1);
		assert_null(memchr(run.message.bytes, '\n', run.message.size));
		finish(&run);
	}
	struct run run;
	parse(&run, false, "--count 7 --count many");
	assert_int_equal(run.config.count, 7);
	assert_string_equal((char *)run.message.bytes, "invalid value 'many' for count");
	finish(&run);
}

static void test_file(void **state)
{
	(void)state;
	char path[] = "/tmp/granary_options_XXXXXX";
	int descriptor = mkstemp(path);
	static const char text[] = "# a comment\n; another\n\n[ section ]\nname = from file  \r\ncount=9\n\tcache = 1K\nverbose = yes";
	assert_int_equal(write(descriptor, text, sizeof(text) - 1), sizeof(text) - 1);
	close(descriptor);
	char line[128];
	snprintf(line, sizeof(line), "--count 10 --config %s dir", path);
	struct run run;
	parse(&run, false, line);
	assert_int_equal(run.err, OK);
	assert_string_equal(run.config.name, "from file");
	assert_int_equal(run.config.count, 10); /* the command line wins */
	assert_int_equal(run.config.bytes, 1024);
	assert_true(run.config.verbose);
	assert_int_equal(run.config.time, 300);
	finish(&run);
	unlink(path);
}

static void test_text_mistakes(void **state)
{
	(void)state;
	static const struct {
		const char *text, *message;
	} cases[] = {
		{ "count = 1\nnosuch = 2\n", "line 2: unknown key 'nosuch'" },
		{ "count", "line 1: expected key = value" },
		{ "[open", "line 1: section without ]" },
		{ "\n\ncount = x", "line 3: invalid value 'x' for count" },
		{ "color = pink", "line 1: invalid value 'pink' for color: it is one of red|green|blue" },
		{ "config = other", "line 1: unknown key 'config'" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config config = { 0 };
		struct buf message = { 0 };
		assert_int_equal(options_parse_text(&program, &config, slice_text(cases[i].text), &message), ERR_INVALID);
		assert_true(slice_equal(buf_slice(&message), slice_text(cases[i].message)));
		buf_deinit(&message);
		options_deinit(&program, &config);
	}
	struct config config = { 0 };
	struct buf message = { 0 };
	assert_int_equal(options_parse_text(&program, &config, slice_of("count = 1\0\n", 11), &message), ERR_INVALID);
	assert_int_equal(options_parse_text(&program, &config, slice_of(NULL, 0), &message), OK);
	buf_deinit(&message);
	options_deinit(&program, &config);
}

/* What a child writes to one descriptor, and its exit status. */
static int output_of(int from, void (*run)(void), char *out, size_t out_size)
{
	int ends[2];
	assert_int_equal(pipe(ends), 0);
	fflush(stdout);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		dup2(ends[1], from);
		run();
		_exit(77);
	}
	close(ends[1]);
	size_t size = 0;
	for (ssize_t got = 1; got > 0 && size + 1 < out_size; size += (size_t)got)
		got = read(ends[0], out + size, out_size - 1 - size);
	out[size] = '\0';
	close(ends[0]);
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void ask_help(void)
{
	struct run run;
	parse(&run, true, "--help");
}

static void ask_version(void)
{
	struct run run;
	parse(&run, false, "-v --version dir");
}

static void test_help_and_version(void **state)
{
	(void)state;
	static char out[4096];
	assert_int_equal(output_of(STDOUT_FILENO, ask_help, out, sizeof(out)), 0);
	assert_non_null(strstr(out, "usage: tester [options] DIR"));
	assert_non_null(strstr(out, "--heartbeat-ms TIME"));
	assert_non_null(strstr(out, "-n, --name NAME"));
	assert_non_null(strstr(out, "(8M)"));
	assert_int_equal(output_of(STDOUT_FILENO, ask_version, out, sizeof(out)), 0);
	assert_memory_equal(out, "tester ", 7);
	assert_non_null(strstr(out, granary_version()));
}

static void test_log_escape(void **state)
{
	(void)state;
	char out[32];
	assert_string_equal(log_escape("plain-name.txt", 14, out, sizeof(out)), "plain-name.txt");
	assert_string_equal(log_escape("a b\n\"=\\\xff", 8, out, sizeof(out)), "a\\x20b\\x0a\\x22\\x3d\\x5c\\xff");
	assert_string_equal(log_escape("aaaaaaaaaa", 10, out, 5), "aaaa");
	assert_string_equal(log_escape("aaa\n", 4, out, 6), "aaa");
	assert_string_equal(log_escape(NULL, 0, out, 1), "");
}

static void log_text(void)
{
	log_setup("tester", LOG_INFO, LOG_TEXT);
	log_debug("hidden", "x=%d", 1);
	log_warn("chunk_crc_mismatch", "chunk=%016" PRIx64 " peer=%s", (uint64_t)0x1234, "10.0.0.1:1");
}

static void log_json(void)
{
	log_setup("tester", LOG_DEBUG, LOG_JSON);
	log_error("disk_failed", "path=/a/b reason=%s last=1", "quote\" and backslash\\ and\nline");
	log_info("bare", "%s", "");
}

static void test_log_lines(void **state)
{
	(void)state;
	static char out[4096];
	assert_int_equal(output_of(STDERR_FILENO, log_text, out, sizeof(out)), 77);
	assert_non_null(strstr(out, "Z warn tester chunk_crc_mismatch chunk=0000000000001234 peer=10.0.0.1:1\n"));
	assert_null(strstr(out, "hidden"));
	assert_int_equal(output_of(STDERR_FILENO, log_json, out, sizeof(out)), 77);
	assert_non_null(strstr(out, "\"level\":\"error\",\"component\":\"tester\",\"event\":\"disk_failed\",\"path\":\"/a/b\","
				    "\"reason\":\"quote\\\" and backslash\\\\ andline\",\"last\":\"1\"}\n"));
	assert_non_null(strstr(out, "\"event\":\"bare\"}\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),   cmocka_unit_test(test_command_line),
		cmocka_unit_test(test_mistakes),   cmocka_unit_test(test_file),
		cmocka_unit_test(test_text_mistakes), cmocka_unit_test(test_help_and_version),
		cmocka_unit_test(test_log_escape), cmocka_unit_test(test_log_lines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
