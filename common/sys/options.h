/* Command line and INI file, from one table: a long option `--heartbeat-ms 300` equals the key `heartbeat-ms = 300`.
 *
 * The command line wins over the file (--config FILE). --help and --version are built in: they print and exit 0.
 * Sizes take K, M, G, T suffixes (1024), times ms, s, m, h, d. */
#ifndef GRANARY_COMMON_SYS_OPTIONS_H
#define GRANARY_COMMON_SYS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/buf.h"
#include "common/base/err.h"

enum option_kind {
	OPTION_FLAG,	 /* bool */
	OPTION_TEXT,	 /* char *, owned by the config, freed by options_deinit */
	OPTION_COUNT,	 /* uint64_t */
	OPTION_BYTES,	 /* uint64_t */
	OPTION_DURATION, /* uint64_t, milliseconds */
	OPTION_CHOICE,	 /* unsigned: which of the words in `argument`, "text|json"; from 0 */
};

struct option_spec {
	const char *name;    /* long option and file key */
	char letter;	     /* short option or 0 */
	enum option_kind kind;
	size_t offset;	     /* of the field in the config struct */
	const char *argument; /* shown in --help: "HOST:PORT"; OPTION_CHOICE: the words there are */
	const char *help;
	const char *standard; /* default as text, NULL for zero */
};

struct options_program {
	const char *name;     /* "granary-master" */
	const char *usage;    /* "[options] DIR" */
	const char *summary;  /* a line or two for --help */
	const struct option_spec *specs; /* ends with a NULL name */
};

/* Fills `config` with defaults, then the file, then argv. The rest of argv (not options) is left in
 * argv[*first .. argc). With stop_at_word, parsing ends at the first word that is not an option (sub-commands).
 * On ERR_INVALID *message says in one line what is wrong and the caller exits with status 2. */
MUST_USE enum err options_parse(const struct options_program *program, void *config, int argc, char **argv,
				bool stop_at_word, int *first, struct buf *message);
void options_deinit(const struct options_program *program, void *config);
/* The file alone, from memory. Keys that are not options are errors. */
MUST_USE enum err options_parse_text(const struct options_program *program, void *config, struct slice text,
				     struct buf *message);
/* Parses one value of a kind as above, but OPTION_CHOICE; for --set key=value and sub-commands. */
MUST_USE enum err options_value(enum option_kind kind, const char *text, void *out);
/* The running version, e.g. "0.1.0". */
const char *granary_version(void);

#endif
