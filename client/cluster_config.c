#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/file.h"

#define CONFIG_BYTES_MAX (64u * KIB)

static bool is_space(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static struct slice trim(struct slice text)
{
	while (text.size > 0 && is_space(text.bytes[0])) {
		text.bytes++;
		text.size--;
	}
	while (text.size > 0 && is_space(text.bytes[text.size - 1]))
		text.size--;
	return text;
}

/* The value of `cluster = …` in an INI file; other keys are other programs' business. */
static bool find_key(struct slice text, struct slice *value)
{
	while (text.size > 0) {
		const uint8_t *newline = memchr(text.bytes, '\n', text.size);
		size_t size = newline ? (size_t)(newline - text.bytes) : text.size;
		struct slice line = trim(slice_of(text.bytes, size));
		const uint8_t *equal = line.size ? memchr(line.bytes, '=', line.size) : NULL;
		size_t used = newline ? size + 1 : size;
		text = slice_of(text.bytes + used, text.size - used);
		if (!equal || line.bytes[0] == '#' || line.bytes[0] == ';')
			continue;
		if (!slice_equal(trim(slice_of(line.bytes, (size_t)(equal - line.bytes))), slice_text("cluster")))
			continue;
		*value = trim(slice_of(equal + 1, (size_t)(line.bytes + line.size - equal - 1)));
		return value->size > 0;
	}
	return false;
}

static void set_text(struct buf *out, struct slice text)
{
	buf_set(out, text);
	buf_append(out, "", 1);
}

static enum err from_file(struct loop *loop, const char *path, struct buf *out)
{
	struct buf text = {0};
	struct slice value;
	enum err err = file_load(loop, path, CONFIG_BYTES_MAX, &text);
	if (err == OK && !find_key(buf_slice(&text), &value))
		err = ERR_NOT_FOUND;
	if (err == OK)
		set_text(out, value);
	buf_deinit(&text);
	return err;
}

enum err client_find_cluster(struct loop *loop, const char *cluster, const char *config, struct buf *out)
{
	const char *text = cluster && *cluster ? cluster : NULL;
	if (!text) {
		text = getenv("GRANARY_CLUSTER");
		text = text && *text ? text : NULL;
	}
	if (text) {
		set_text(out, slice_text(text));
		return OK;
	}
	if (!config || !*config)
		config = getenv("GRANARY_CONFIG");
	if (config && *config)
		return from_file(loop, config, out);
	enum err err = ERR_NOT_FOUND;
	const char *home = getenv("HOME");
	if (home && *home) {
		struct buf path = {0};
		buf_printf(&path, "%s/.config/granary/client.conf", home);
		buf_append(&path, "", 1);
		err = from_file(loop, (const char *)path.bytes, out);
		buf_deinit(&path);
	}
	if (err)
		err = from_file(loop, "/etc/granary/client.conf", out);
	return err;
}
