/* xattr get, set, list, rm: extended attributes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/commands.h"

static int begin(struct cli *cli, int *argc, char **argv)
{
	const struct cli_option options[] = {{0}};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, argc, argv, &result))
		return result == EXIT_DONE ? -1 : result;
	if (!cli_check_path(cli, argv[0], &result))
		return result;
	return cli_connect(cli);
}

int cmd_xattr_get(struct cli *cli, int argc, char **argv)
{
	int result = begin(cli, &argc, argv);
	if (result != EXIT_DONE)
		return result < 0 ? EXIT_DONE : result;
	char *value = mem_alloc(XATTR_VALUE_BYTES_MAX);
	size_t size = 0;
	granary_status status = granary_xattr_get(cli->cluster, argv[0], argv[1], value, XATTR_VALUE_BYTES_MAX, &size);
	if (status) {
		result = cli_error(cli, argv[1], status);
	} else {
		fwrite(value, 1, size, stdout);
		putchar('\n');
	}
	free(value);
	return result;
}

int cmd_xattr_set(struct cli *cli, int argc, char **argv)
{
	int result = begin(cli, &argc, argv);
	if (result != EXIT_DONE)
		return result < 0 ? EXIT_DONE : result;
	granary_status status = granary_xattr_set(cli->cluster, argv[0], argv[1], argv[2], strlen(argv[2]));
	return status ? cli_error(cli, argv[1], status) : EXIT_DONE;
}

static bool print_attribute(void *arg, const char *name)
{
	(void)arg;
	print_name(name);
	putchar('\n');
	return true;
}

int cmd_xattr_list(struct cli *cli, int argc, char **argv)
{
	int result = begin(cli, &argc, argv);
	if (result != EXIT_DONE)
		return result < 0 ? EXIT_DONE : result;
	granary_status status = granary_xattr_list(cli->cluster, argv[0], print_attribute, NULL);
	return status ? cli_error(cli, argv[0], status) : EXIT_DONE;
}

int cmd_xattr_rm(struct cli *cli, int argc, char **argv)
{
	int result = begin(cli, &argc, argv);
	if (result != EXIT_DONE)
		return result < 0 ? EXIT_DONE : result;
	granary_status status = granary_xattr_remove(cli->cluster, argv[0], argv[1]);
	return status ? cli_error(cli, argv[1], status) : EXIT_DONE;
}
