/* The INI file: any text gives a config or one line that says what is wrong. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/check.h"
#include "common/sys/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct config {
	bool flag;
	char *text;
	uint64_t count, bytes, duration;
	unsigned choice;
};

static const struct option_spec specs[] = {
	{ "flag", 'f', OPTION_FLAG, offsetof(struct config, flag), NULL, "", NULL },
	{ "text", 't', OPTION_TEXT, offsetof(struct config, text), "TEXT", "", NULL },
	{ "count", 'c', OPTION_COUNT, offsetof(struct config, count), "N", "", NULL },
	{ "bytes", 'b', OPTION_BYTES, offsetof(struct config, bytes), "N", "", NULL },
	{ "duration-ms", 'd', OPTION_DURATION, offsetof(struct config, duration), "N", "", NULL },
	{ "choice", 0, OPTION_CHOICE, offsetof(struct config, choice), "one|two|three", "", "two" },
	{ .name = NULL },
};
static const struct options_program program = { "fuzz", "", "", specs };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct config config = { 0 };
	struct buf message = { 0 };
	enum err err = options_parse_text(&program, &config, slice_of(bytes, size), &message);
	check((err == OK) == (message.size == 0));
	check(err == OK || err == ERR_INVALID);
	options_deinit(&program, &config);
	buf_deinit(&message);
	return 0;
}
