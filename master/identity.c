#include "master/identity.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys/file.h"

#define IDENTITY_BYTES_MAX 4096u
#define IDENTITY_FORMAT 1

static void identity_print(const struct identity_options *options, uint64_t node, struct buf *out)
{
	buf_printf(out, "format = %d\nnode = %016" PRIx64 "\ncluster = %s\nmember = %" PRIu64 "\nmembers = ", IDENTITY_FORMAT,
		   node, options->cluster, options->member);
	members_ids_text(options->members, out);
	buf_append(out, "\n", 1);
}

static bool is_ours(void *arg, const char *name)
{
	bool *used = arg;

	if (strcmp(name, "log") == 0 || strcmp(name, "state") == 0)
		*used = true;
	return true;
}

static enum err identity_create(struct loop *loop, const struct identity_options *options, const char *path, uint64_t *node,
				struct buf *message)
{
	struct buf text = { 0 };
	bool used = false;
	enum err err = dir_list(loop, options->directory, is_ours, &used);

	if (err == OK && used) {
		buf_printf(message, "%s holds a log or state but no identity file: it is not a fresh directory",
			   options->directory);
		return ERR_CORRUPT;
	}
	if (err == OK) {
		*node = loop_random(loop);
		identity_print(options, *node, &text);
		err = file_replace(loop, path, buf_slice(&text));
	}
	if (err)
		buf_printf(message, "cannot write %s: %s", path, err_text(err));
	buf_deinit(&text);
	return err;
}

/* The file is as we would write it, but for the node: so it is compared as text. */
static enum err identity_compare(const struct identity_options *options, struct slice found, const char *path,
				 uint64_t *node, struct buf *message)
{
	static const char key[] = "node = ";
	char digits[17] = { 0 };
	struct buf expected = { 0 };
	const uint8_t *at = memmem(found.bytes, found.size, key, sizeof(key) - 1);
	enum err err = ERR_CORRUPT;

	if (!at || (size_t)(found.bytes + found.size - at) < sizeof(key) - 1 + 16) {
		buf_printf(message, "%s is damaged", path);
		return err;
	}
	memcpy(digits, at + sizeof(key) - 1, 16);
	*node = strtoull(digits, NULL, 16);
	identity_print(options, *node, &expected);
	err = slice_equal(buf_slice(&expected), found) ? OK : ERR_WRONG_CLUSTER;
	if (err) {
		buf_printf(message, "%s belongs to another master (", options->directory);
		for (size_t i = 0; i < found.size; i++)
			buf_printf(message, "%c", found.bytes[i] == '\n' ? (i + 1 < found.size ? ';' : ')') :
						  found.bytes[i] >= ' ' && found.bytes[i] < 127 ? found.bytes[i] : '?');
	}
	buf_deinit(&expected);
	return err;
}

enum err identity_check(struct loop *loop, const struct identity_options *options, uint64_t *node, struct buf *message)
{
	struct buf path = { 0 }, found = { 0 };
	enum err err;

	buf_printf(&path, "%s/identity", options->directory);
	buf_append(&path, "", 1);
	err = file_load(loop, (const char *)path.bytes, IDENTITY_BYTES_MAX, &found);
	if (err == ERR_NOT_FOUND)
		err = identity_create(loop, options, (const char *)path.bytes, node, message);
	else if (err == OK)
		err = identity_compare(options, buf_slice(&found), (const char *)path.bytes, node, message);
	else
		buf_printf(message, "cannot read %s: %s", (const char *)path.bytes, err_text(err));
	buf_deinit(&path);
	buf_deinit(&found);
	return err;
}
