/* For tests: a folder of one's own, a loop, and waiting. */
#ifndef GRANARY_TESTS_UNIT_CHUNKSERVER_FILES_H
#define GRANARY_TESTS_UNIT_CHUNKSERVER_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/check.h"
#include "common/sys/log.h"
#include "common/sys/loop.h"

struct place {
	struct loop *loop;
	char root[64];
	char path[96];
};

static int place_setup(void **state)
{
	struct place *place = mem_zero(1, sizeof(*place));
	*place = (struct place){ .root = "/tmp/granary-files-XXXXXX" };
	assert_non_null(mkdtemp(place->root));
	snprintf(place->path, sizeof(place->path), "%s/file", place->root);
	assert_int_equal(loop_open(&place->loop), OK);
	*state = place;
	return 0;
}

static int place_teardown(void **state)
{
	struct place *place = *state;
	char command[128];
	loop_close(place->loop);
	snprintf(command, sizeof(command), "rm -rf %s", place->root);
	FILE *shell = popen(command, "r");
	assert_non_null(shell);
	assert_int_equal(pclose(shell), 0);
	free(place);
	return 0;
}

#define PLACE_TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)

#endif
