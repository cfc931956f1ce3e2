/* find: as find(1), for the tests that make sense here. Its options begin with one "-", as users know them. */
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/commands.h"
#include "tools/granary/remote_tree.h"

#define FIND_TESTS_MAX 32u

enum find_kind { FIND_NAME, FIND_SIZE, FIND_MTIME, FIND_TYPE, FIND_XATTR };

/* sign: +1 more than, -1 less than, 0 exactly `number` units. */
struct find_test {
	enum find_kind kind;
	const char *text;
	int sign;
	uint64_t number, unit;
};
struct find {
	struct find_test tests[FIND_TESTS_MAX];
	size_t count;
	bool null_ended;
	int64_t now_ns;
};

/* [+-]N[suffix]; units: pairs of a letter and its size. */
static bool parse_number(const char *text, const char *letters, const uint64_t *units, struct find_test *out)
{
	out->sign = *text == '+' ? 1 : *text == '-' ? -1 : 0;
	text += out->sign != 0;
	if (*text < '0' || *text > '9')
		return false;
	char *end;
	out->number = strtoull(text, &end, 10);
	const char *letter = *end ? strchr(letters, *end) : letters;
	if (!letter || (*end && end[1]))
		return false;
	out->unit = units[letter - letters];
	return true;
}

static bool parse_test(const char *option, const char *value, struct find_test *out)
{
	static const uint64_t sizes[] = {512, 1, 1024, 1048576, 1073741824};
	static const uint64_t times[] = {86400, 3600, 60, 1};
	out->text = value;
	if (strcmp(option, "-name") == 0) {
		out->kind = FIND_NAME;
		return true;
	}
	if (strcmp(option, "-type") == 0) {
		out->kind = FIND_TYPE;
		return strlen(value) == 1 && strchr("fdlpsbc", *value);
	}
	if (strcmp(option, "-xattr") == 0) {
		out->kind = FIND_XATTR;
		return strchr(value, '=') != NULL && strchr(value, '=') - value <= (long)XATTR_NAME_BYTES_MAX;
	}
	if (strcmp(option, "-size") == 0) {
		out->kind = FIND_SIZE;
		return parse_number(value, "bckMG", sizes, out);
	}
	out->kind = FIND_MTIME;
	return parse_number(value, "dhms", times, out);
}

static bool matches_xattr(struct cli *cli, const char *path, const char *text)
{
	char name[XATTR_NAME_BYTES_MAX + 1];
	const char *wanted = strchr(text, '=') + 1;
	snprintf(name, sizeof name, "%.*s", (int)(wanted - text - 1), text);
	size_t size = 0;
	char *value = mem_alloc(XATTR_VALUE_BYTES_MAX);
	bool same = granary_xattr_get(cli->cluster, path, name, value, XATTR_VALUE_BYTES_MAX, &size) == 0 &&
		    size == strlen(wanted) && memcmp(value, wanted, size) == 0;
	free(value);
	return same;
}

static bool matches(struct cli *cli, const struct find *find, const struct find_test *test,
		    const struct visited *visited)
{
	const struct granary_stat *stat = visited->stat;
	char mode[16];
	uint64_t value = 0;
	if (test->kind == FIND_NAME) {
		char *name = path_base(visited->path);
		bool same = fnmatch(test->text, name, 0) == 0;
		free(name);
		return same;
	}
	if (test->kind == FIND_TYPE) {
		char type = text_mode(stat->mode, mode)[0];
		return (type == '-' ? 'f' : type) == *test->text;
	}
	if (test->kind == FIND_XATTR)
		return !S_ISLNK(stat->mode) && matches_xattr(cli, visited->path, test->text);
	if (test->kind == FIND_SIZE)
		value = (stat->size + test->unit - 1) / test->unit; /* rounded up, as find(1) does */
	else if (find->now_ns > stat->mtime_ns)
		value = (uint64_t)(find->now_ns - stat->mtime_ns) / 1000000000 / test->unit;
	return test->sign > 0 ? value > test->number : test->sign < 0 ? value < test->number : value == test->number;
}

static int find_visit(struct cli *cli, const struct visited *visited, void *arg)
{
	const struct find *find = arg;
	if (visited->visit == VISIT_AFTER)
		return EXIT_DONE;
	for (size_t i = 0; i < find->count; i++) {
		if (!matches(cli, find, &find->tests[i], visited))
			return EXIT_DONE;
	}
	if (find->null_ended) {
		fputs(visited->path, stdout);
		putchar(0);
	} else {
		print_name(visited->path);
		putchar('\n');
	}
	return EXIT_DONE;
}

/* Takes the tests, which cli_parse would not understand, out of argv. False after a usage error. */
static bool take_tests(struct cli *cli, struct find *find, int *argc, char **argv)
{
	static const char *const names[] = {"-name", "-size", "-mtime", "-type", "-xattr", NULL};
	int kept = 0;
	for (int i = 0; i < *argc; i++) {
		size_t known = 0;
		while (names[known] && strcmp(names[known], argv[i]) != 0)
			known++;
		if (strcmp(argv[i], "-print0") == 0) {
			find->null_ended = true;
		} else if (!names[known]) {
			argv[kept++] = argv[i];
		} else if (i + 1 >= *argc || find->count == FIND_TESTS_MAX ||
			   !parse_test(argv[i], argv[i + 1], &find->tests[find->count])) {
			cli_usage_error(cli, argv[i], i + 1 < *argc ? "its value is not understood" : "needs a value");
			return false;
		} else {
			find->count++;
			i++;
		}
	}
	*argc = kept;
	return true;
}

int cmd_find(struct cli *cli, int argc, char **argv)
{
	struct find find = {0};
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	find.now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	const struct cli_option options[] = {{0}};
	int result = EXIT_DONE;
	if (!take_tests(cli, &find, &argc, argv))
		return EXIT_USAGE;
	if (!cli_parse(cli, options, &argc, argv, &result) || !cli_check_path(cli, argv[0], &result))
		return result;
	result = cli_connect(cli);
	return result == EXIT_DONE ? tree_walk(cli, argv[0], find_visit, &find) : result;
}
