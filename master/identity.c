#include "master/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys/file.h"

#define IDENTITY_BYTES_MAX 4096u
#define IDENTITY_FORMAT 1

void founders_add(struct founders *founders, uint64_t id, uint64_t node)
{
	size_t at = founders->count;

	if (at == RAFT_MEMBERS_MAX)
		return;
	for (; at > 0 && founders->ids[at - 1] > id; at--) {
		founders->ids[at] = founders->ids[at - 1];
		founders->nodes[at] = founders->nodes[at - 1];
	}
	founders->ids[at] = id;
	founders->nodes[at] = node;
	founders->count++;
}

bool founders_have(const struct founders *founders, uint64_t id, uint64_t node)
{
	for (size_t i = 0; i < founders->count; i++) {
		if (founders->ids[i] == id && founders->nodes[i] == node)
			return true;
	}
	return false;
}

static void path_of(const struct identity_options *options, struct buf *out)
{
	buf_printf(out, "%s/identity%c", options->directory, 0);
}

static void identity_print(const struct identity_options *options, const struct identity *identity, struct buf *out)
{
	buf_printf(out, "format = %d\nnode = %016" PRIx64 "\ncluster = %s\nmember = %" PRIu64 "\n", IDENTITY_FORMAT,
		   identity->node, options->cluster, options->member);
	if (!identity->founded)
		return;
	buf_printf(out, "founding = %s", identity->founders.count == 0 ? "joined" : "");
	for (size_t i = 0; i < identity->founders.count; i++)
		buf_printf(out, "%s%" PRIu64 "=%016" PRIx64, i ? "," : "", identity->founders.ids[i], identity->founders.nodes[i]);
	buf_printf(out, "\n");
}

static bool is_ours(void *arg, const char *name)
{
	bool *used = arg;

	if (strcmp(name, "log") == 0 || strcmp(name, "state") == 0 || strncmp(name, "state-", 6) == 0)
		*used = true;
	return true;
}

static enum err is_used(struct loop *loop, const struct identity_options *options, bool *used)
{
	*used = false;
	return dir_list(loop, options->directory, is_ours, used);
}

static enum err identity_create(struct loop *loop, const struct identity_options *options, struct identity *identity,
				struct buf *message)
{
	struct buf text = { 0 }, path = { 0 };
	bool used;
	enum err err = is_used(loop, options, &used);

	path_of(options, &path);
	if (err == OK && used) {
		buf_printf(message, "%s holds a log or state but no identity file: it is not a fresh directory",
			   options->directory);
		err = ERR_CORRUPT;
	} else {
		identity->node = loop_random(loop) | 1;
		identity_print(options, identity, &text);
		if (err == OK)
			err = file_replace(loop, (const char *)path.bytes, buf_slice(&text));
		if (err)
			buf_printf(message, "cannot write %s: %s", (const char *)path.bytes, err_text(err));
	}
	buf_deinit(&text);
	buf_deinit(&path);
	return err;
}

/* ---- reading */

/* The value of a line "key = value" of a text that ends with a zero; false: there is none. */
static bool value_of(const char *text, const char *key, char *out, size_t out_size)
{
	size_t key_size = strlen(key);

	for (const char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL) {
		if (strncmp(line, key, key_size) != 0 || strncmp(line + key_size, " = ", 3) != 0)
			continue;
		size_t size = strcspn(line + key_size + 3, "\n");
		if (size >= out_size)
			return false;
		memcpy(out, line + key_size + 3, size);
		out[size] = 0;
		return true;
	}
	return false;
}

static bool founders_parse(const char *text, struct founders *out)
{
	while (*text) {
		char *end;
		uint64_t id = strtoull(text, &end, 10), node = 0;
		if (end == text || id == 0 || out->count == RAFT_MEMBERS_MAX)
			return false;
		if (*end == '=')
			node = strtoull(end + 1, &end, 16);
		founders_add(out, id, node);
		text = *end == ',' ? end + 1 : end;
		if (*end && *end != ',')
			return false;
	}
	return out->count > 0;
}

static enum err identity_parse(const struct identity_options *options, const char *text, struct identity *out)
{
	char value[IDENTITY_BYTES_MAX], member[24], format[8], node[20];

	snprintf(member, sizeof(member), "%" PRIu64, options->member);
	if (!value_of(text, "format", format, sizeof(format)) || !value_of(text, "node", node, sizeof(node)) ||
	    strlen(node) != 16 || strcmp(format, "1") != 0)
		return ERR_CORRUPT;
	out->node = strtoull(node, NULL, 16);
	if (!value_of(text, "cluster", value, sizeof(value)) || strcmp(value, options->cluster) != 0 ||
	    !value_of(text, "member", value, sizeof(value)) || strcmp(value, member) != 0)
		return ERR_WRONG_CLUSTER;
	out->founded = value_of(text, "founding", value, sizeof(value)) || value_of(text, "members", value, sizeof(value));
	if (out->founded && strcmp(value, "joined") != 0 && !founders_parse(value, &out->founders))
		return ERR_CORRUPT;
	return OK;
}

static void say_whose(const struct identity_options *options, struct slice found, enum err err, struct buf *message)
{
	buf_printf(message, "%s %s (", options->directory,
		   err == ERR_WRONG_CLUSTER ? "belongs to another master" : "has a damaged identity file");
	for (size_t i = 0; i < found.size; i++)
		buf_printf(message, "%c", found.bytes[i] == '\n' ? (i + 1 < found.size ? ';' : ')') :
					  found.bytes[i] >= ' ' && found.bytes[i] < 127 ? found.bytes[i] : '?');
}

static enum err identity_compare(struct loop *loop, const struct identity_options *options, struct buf *found,
				 struct identity *out, struct buf *message)
{
	bool used = false;
	size_t size = found->size;

	buf_append(found, "", 1);
	enum err err = identity_parse(options, (const char *)found->bytes, out);
	if (err) {
		say_whose(options, slice_of(found->bytes, size), err, message);
		return err;
	}
	err = is_used(loop, options, &used);
	if (err == OK && out->founded && !used) {
		buf_printf(message, "%s has taken part in a cluster, but its log is gone: give it an empty directory, it then joins anew",
			   options->directory);
		err = ERR_CORRUPT;
	}
	return err;
}

enum err identity_check(struct loop *loop, const struct identity_options *options, struct identity *out, struct buf *message)
{
	struct buf path = { 0 }, found = { 0 };

	*out = (struct identity){ 0 };
	path_of(options, &path);
	enum err err = file_load(loop, (const char *)path.bytes, IDENTITY_BYTES_MAX, &found);
	if (err == ERR_NOT_FOUND)
		err = identity_create(loop, options, out, message);
	else if (err == OK)
		err = identity_compare(loop, options, &found, out, message);
	else
		buf_printf(message, "cannot read %s: %s", (const char *)path.bytes, err_text(err));
	buf_deinit(&path);
	buf_deinit(&found);
	return err;
}

enum err identity_found(struct loop *loop, const struct identity_options *options, const struct founders *founders,
			struct identity *identity)
{
	struct buf text = { 0 }, path = { 0 };

	identity->founded = true;
	identity->founders = founders ? *founders : (struct founders){ 0 };
	path_of(options, &path);
	identity_print(options, identity, &text);
	enum err err = file_replace(loop, (const char *)path.bytes, buf_slice(&text));
	buf_deinit(&text);
	buf_deinit(&path);
	return err;
}

