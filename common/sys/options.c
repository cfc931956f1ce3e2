#include "common/sys/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"

#define CONFIG_BYTES_MAX (1u * MIB)

/* Options that every program has. */
static const struct option_spec built_in[] = {
	{ .name = "config", .kind = OPTION_TEXT, .argument = "FILE", .help = "read options from an INI file" },
	{ .name = "help", .letter = 'h', .kind = OPTION_FLAG, .help = "print this and exit" },
	{ .name = "version", .kind = OPTION_FLAG, .help = "print the version and exit" },
	{ .name = NULL },
};

const char *granary_version(void)
{
	return GRANARY_VERSION;
}

/* A whole number followed by one of the suffixes. */
struct suffix {
	const char *text;
	uint64_t scale;
};

static enum err parse_scaled(const char *text, const struct suffix *suffixes, uint64_t *out)
{
	*out = 0;
	if (text[0] < '0' || text[0] > '9')
		return ERR_INVALID;
	char *end = NULL;
	errno = 0;
	uint64_t value = strtoull(text, &end, 10);
	if (errno != 0)
		return ERR_INVALID;
	for (; suffixes->text != NULL; suffixes++) {
		if (strcmp(end, suffixes->text) != 0)
			continue;
		if (value > UINT64_MAX / suffixes->scale)
			return ERR_INVALID;
		*out = value * suffixes->scale;
		return OK;
	}
	return ERR_INVALID;
}

static const struct suffix suffixes_count[] = { { "", 1 }, { NULL, 0 } };
static const struct suffix suffixes_bytes[] = {
	{ "", 1 },		{ "K", 1ull << 10 },	{ "k", 1ull << 10 },	{ "M", 1ull << 20 },  { "G", 1ull << 30 },
	{ "T", 1ull << 40 },	{ "KiB", 1ull << 10 },	{ "MiB", 1ull << 20 },	{ "GiB", 1ull << 30 }, { "TiB", 1ull << 40 },
	{ NULL, 0 },
};
static const struct suffix suffixes_duration[] = {
	{ "", 1 }, { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 }, { NULL, 0 },
};

static enum err parse_flag(const char *text, bool *out)
{
	static const char *const yes[] = { "true", "yes", "on", "1" };
	static const char *const no[] = { "false", "no", "off", "0" };
	for (size_t i = 0; i < 4; i++) {
		if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
			*out = strcmp(text, yes[i]) == 0;
			return OK;
		}
	}
	return ERR_INVALID;
}

enum err options_value(enum option_kind kind, const char *text, void *out)
{
	switch (kind) {
	case OPTION_FLAG:
		return parse_flag(text, out);
	case OPTION_TEXT:
		free(*(char **)out);
		*(char **)out = mem_string(text);
		return OK;
	case OPTION_COUNT:
		return parse_scaled(text, suffixes_count, out);
	case OPTION_BYTES:
		return parse_scaled(text, suffixes_bytes, out);
	case OPTION_DURATION:
		return parse_scaled(text, suffixes_duration, out);
	case OPTION_CHOICE:
		break;
	}
	return ERR_INVALID;
}

/* Which of the words "a|b|c" the text is. */
static enum err parse_choice(const char *words, const char *text, unsigned *out)
{
	size_t size = strlen(text);
	unsigned index = 0;
	while (strcspn(words, "|") != size || memcmp(words, text, size) != 0) {
		words += strcspn(words, "|");
		if (*words == '\0')
			return ERR_INVALID;
		words++;
		index++;
	}
	*out = index;
	return OK;
}

static const struct option_spec *find_long(const struct option_spec *specs, const char *name, size_t size)
{
	for (; specs->name != NULL; specs++) {
		if (strlen(specs->name) == size && memcmp(specs->name, name, size) == 0)
			return specs;
	}
	return NULL;
}

static const struct option_spec *find_letter(const struct option_spec *specs, char letter)
{
	for (; specs->name != NULL; specs++) {
		if (specs->letter != 0 && specs->letter == letter)
			return specs;
	}
	return NULL;
}

static enum err set(const struct option_spec *spec, void *config, const char *text, struct buf *message)
{
	uint64_t scratch = 0;
	if (spec->kind == OPTION_CHOICE) {
		enum err unknown = parse_choice(spec->argument, text, (unsigned *)(void *)((char *)config + spec->offset));
		if (unknown != OK)
			buf_printf(message, "invalid value '%s' for %s: it is one of %s", text, spec->name, spec->argument);
		return unknown;
	}
	/* A number that does not parse leaves the field as it was. */
	bool number = spec->kind != OPTION_FLAG && spec->kind != OPTION_TEXT;
	enum err err = options_value(spec->kind, text, number ? (void *)&scratch : (char *)config + spec->offset);
	if (err != OK)
		buf_printf(message, "invalid value '%s' for %s", text, spec->name);
	else if (number)
		memcpy((char *)config + spec->offset, &scratch, sizeof(scratch));
	return err;
}

static char *trim(char *text)
{
	while (*text == ' ' || *text == '\t')
		text++;
	size_t size = strlen(text);
	while (size > 0 && strchr(" \t\r", text[size - 1]) != NULL)
		text[--size] = '\0';
	return text;
}

static enum err parse_line(const struct options_program *program, void *config, char *line, struct buf *message)
{
	line = trim(line);
	/* Sections are for people; keys are unique over all of them. */
	if (line[0] == '\0' || line[0] == '#' || line[0] == ';')
		return OK;
	if (line[0] == '[') {
		if (line[strlen(line) - 1] == ']')
			return OK;
		buf_printf(message, "section without ]");
		return ERR_INVALID;
	}
	char *equals = strchr(line, '=');
	if (equals == NULL) {
		buf_printf(message, "expected key = value");
		return ERR_INVALID;
	}
	*equals = '\0';
	const char *key = trim(line);
	const char *value = trim(equals + 1);
	const struct option_spec *spec = find_long(program->specs, key, strlen(key));
	if (spec == NULL) {
		buf_printf(message, "unknown key '%s'", key);
		return ERR_INVALID;
	}
	return set(spec, config, value, message);
}

enum err options_parse_text(const struct options_program *program, void *config, struct slice text, struct buf *message)
{
	struct buf line = { 0 };
	enum err err = OK;
	unsigned number = 0;
	size_t at = 0;
	while (at < text.size && err == OK) {
		const uint8_t *start = text.bytes + at;
		const uint8_t *newline = memchr(start, '\n', text.size - at);
		size_t size = newline == NULL ? text.size - at : (size_t)(newline - start);
		at += size + 1;
		number++;
		buf_set(&line, slice_of(start, size));
		buf_append(&line, "", 1);
		struct buf detail = { 0 };
		if (memchr(start, '\0', size) != NULL) {
			buf_printf(&detail, "zero byte");
			err = ERR_INVALID;
		} else {
			err = parse_line(program, config, (char *)line.bytes, &detail);
		}
		if (err != OK)
			buf_printf(message, "line %u: %.*s", number, (int)detail.size, (const char *)detail.bytes);
		buf_deinit(&detail);
	}
	buf_deinit(&line);
	return err;
}

static enum err load_config(const struct options_program *program, void *config, const char *path, struct buf *message)
{
	FILE *file = fopen(path, "re");
	if (file == NULL) {
		buf_printf(message, "cannot read %s: %s", path, strerror(errno));
		return ERR_INVALID;
	}
	struct buf text = { 0 };
	buf_reserve(&text, CONFIG_BYTES_MAX + 1);
	text.size = fread(text.bytes, 1, CONFIG_BYTES_MAX + 1, file);
	bool broken = ferror(file) != 0;
	fclose(file);
	enum err err = ERR_INVALID;
	struct buf detail = { 0 };
	if (broken)
		buf_printf(message, "cannot read %s", path);
	else if (text.size > CONFIG_BYTES_MAX)
		buf_printf(message, "%s is too large", path);
	else if ((err = options_parse_text(program, config, buf_slice(&text), &detail)) != OK)
		buf_printf(message, "%s %.*s", path, (int)detail.size, (const char *)detail.bytes);
	buf_deinit(&detail);
	buf_deinit(&text);
	return err;
}

static void print_specs(const struct option_spec *specs)
{
	for (; specs->name != NULL; specs++) {
		char left[80];
		char letter[8] = "    ";
		if (specs->letter != 0)
			snprintf(letter, sizeof(letter), "-%c, ", specs->letter);
		snprintf(left, sizeof(left), "%s--%s%s%s", letter, specs->name, specs->argument != NULL ? " " : "",
			 specs->argument != NULL ? specs->argument : "");
		printf("  %-38s %s", left, specs->help != NULL ? specs->help : "");
		if (specs->standard != NULL)
			printf(" (%s)", specs->standard);
		printf("\n");
	}
}

static void print_help(const struct options_program *program)
{
	printf("usage: %s %s\n%s\n\noptions:\n", program->name, program->usage, program->summary);
	print_specs(program->specs);
	print_specs(built_in);
}

/* One option at argv[*at]; *at is moved past it and its value. */
struct argument {
	const struct option_spec *spec;
	const char *value;
};

static enum err next_argument(const struct options_program *program, int argc, char **argv, int *at, struct argument *out,
			      struct buf *message)
{
	const char *word = argv[(*at)++];
	*out = (struct argument){ 0 };
	if (word[1] == '-') {
		size_t size = strcspn(word + 2, "=");
		out->spec = find_long(program->specs, word + 2, size);
		if (out->spec == NULL)
			out->spec = find_long(built_in, word + 2, size);
		if (word[2 + size] == '=')
			out->value = word + 2 + size + 1;
	} else {
		out->spec = find_letter(program->specs, word[1]);
		if (out->spec == NULL)
			out->spec = find_letter(built_in, word[1]);
		if (word[2] != '\0')
			out->value = word + 2;
		if (out->spec != NULL && out->spec->kind == OPTION_FLAG && out->value != NULL)
			out->spec = NULL;
	}
	if (out->spec == NULL) {
		buf_printf(message, "unknown option %s", word);
		return ERR_INVALID;
	}
	if (out->value != NULL)
		return OK;
	if (out->spec->kind == OPTION_FLAG) {
		out->value = "true";
	} else if (*at < argc) {
		out->value = argv[(*at)++];
	} else {
		buf_printf(message, "option --%s needs a value", out->spec->name);
		return ERR_INVALID;
	}
	return OK;
}

static bool is_option(const char *word)
{
	return word[0] == '-' && word[1] != '\0';
}

/* What one walk over argv does with each option. */
enum pass {
	PASS_LOOK,  /* checks all, finds --config, --help and --version; moves other words to the end */
	PASS_APPLY, /* sets the fields */
};

struct walk {
	const struct options_program *program;
	void *config;
	int argc;
	char **argv;
	bool stop_at_word;
	const char *config_path;
	struct buf *message;
};

static void exit_for(const struct options_program *program, const struct option_spec *spec)
{
	if (strcmp(spec->name, "help") == 0)
		print_help(program);
	else
		printf("%s %s\n", program->name, granary_version());
	fflush(stdout);
	exit(0);
}

static enum err walk_arguments(struct walk *walk, enum pass pass, int *end)
{
	int at = 1;
	while (at < walk->argc) {
		if (!is_option(walk->argv[at])) {
			if (walk->stop_at_word)
				break;
			at++;
			continue;
		}
		if (strcmp(walk->argv[at], "--") == 0)
			break;
		struct argument argument;
		enum err err = next_argument(walk->program, walk->argc, walk->argv, &at, &argument, walk->message);
		if (err != OK)
			return err;
		bool ours = argument.spec >= built_in && argument.spec < built_in + sizeof(built_in) / sizeof(*built_in);
		if (ours && argument.spec->kind == OPTION_FLAG && pass == PASS_LOOK)
			exit_for(walk->program, argument.spec);
		if (ours && argument.spec->kind == OPTION_TEXT)
			walk->config_path = argument.value;
		if (!ours && pass == PASS_APPLY) {
			err = set(argument.spec, walk->config, argument.value, walk->message);
			if (err != OK)
				return err;
		}
	}
	*end = at;
	return OK;
}

/* Moves the words that are not options behind those that are, each in their order; returns where they start. */
static int gather_words(struct walk *walk, int end)
{
	char **words = mem_zero((unsigned long)walk->argc, sizeof(*words));
	int kept = 1, words_count = 0, at = 1;
	while (at < end) {
		if (!is_option(walk->argv[at])) {
			words[words_count++] = walk->argv[at++];
			continue;
		}
		int start = at;
		struct argument argument;
		enum err err = next_argument(walk->program, walk->argc, walk->argv, &at, &argument, walk->message);
		check(err == OK);
		while (start < at)
			walk->argv[kept++] = walk->argv[start++];
	}
	if (at < walk->argc && strcmp(walk->argv[at], "--") == 0) {
		/* Takes part as an option: what follows are words. */
		walk->argv[kept++] = walk->argv[at++];
	}
	for (int i = 0; i < words_count; i++)
		walk->argv[kept + i] = words[i];
	free(words);
	return kept;
}

enum err options_parse(const struct options_program *program, void *config, int argc, char **argv, bool stop_at_word,
		       int *first, struct buf *message)
{
	struct walk walk = { .program = program, .config = config, .argc = argc, .argv = argv,
			     .stop_at_word = stop_at_word, .message = message };
	int end = argc;
	for (const struct option_spec *spec = program->specs; spec->name != NULL; spec++) {
		if (spec->standard == NULL)
			continue;
		enum err err = set(spec, config, spec->standard, message);
		check(err == OK);
	}
	enum err err = walk_arguments(&walk, PASS_LOOK, &end);
	if (err == OK && walk.config_path != NULL)
		err = load_config(program, config, walk.config_path, message);
	if (err == OK)
		err = walk_arguments(&walk, PASS_APPLY, &end);
	if (err == OK)
		*first = gather_words(&walk, end);
	return err;
}

void options_deinit(const struct options_program *program, void *config)
{
	for (const struct option_spec *spec = program->specs; spec->name != NULL; spec++) {
		if (spec->kind != OPTION_TEXT)
			continue;
		char **field = (char **)(void *)((char *)config + spec->offset);
		free(*field);
		*field = NULL;
	}
}
