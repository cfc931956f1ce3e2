#include "tests/sim/crash_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/message.h"
#include "common/proto/mode.h"

#define ATTRIBUTE "user.crash"
#define SECTOR 512u

/* ---- the model */

static unsigned name_at(const struct model *model, const char *path)
{
	unsigned i = 0;
	while (i < model->name_count && strcmp(model->names[i].path, path) != 0)
		i++;
	return i;
}

struct model_file *model_find(struct model *model, const char *path)
{
	unsigned at = name_at(model, path);
	return at == model->name_count ? NULL : &model->files[model->names[at].file];
}

static bool is_below(const char *path, const char *directory)
{
	size_t length = strlen(directory);
	return strncmp(path, directory, length) == 0 && path[length] == '/';
}

bool model_has_below(const struct model *model, const char *path)
{
	for (unsigned i = 0; i < model->name_count; i++)
		if (is_below(model->names[i].path, path))
			return true;
	return false;
}

static void add_name(struct model *model, const char *path, unsigned file)
{
	check(model->name_count < MODEL_NAMES_MAX && name_at(model, path) == model->name_count);
	snprintf(model->names[model->name_count].path, MODEL_PATH_BYTES, "%s", path);
	model->names[model->name_count++].file = file;
}

struct model_file *model_make(struct model *model, const char *path, uint32_t mode)
{
	static const struct model_content empty;
	check(model->file_count < MODEL_FILES_MAX);
	add_name(model, path, model->file_count);
	struct model_file *file = &model->files[model->file_count++];
	*file = (struct model_file){ .mode = mode, .versions = { &empty }, .version_count = 1 };
	return file;
}

void model_link(struct model *model, const char *existing, const char *path)
{
	unsigned at = name_at(model, existing);
	check(at < model->name_count);
	add_name(model, path, model->names[at].file);
}

void model_unlink(struct model *model, const char *path)
{
	unsigned at = name_at(model, path);
	if (at < model->name_count)
		model->names[at] = model->names[--model->name_count];
}

void model_rename(struct model *model, const char *from, const char *to)
{
	if (model_find(model, from) == model_find(model, to)) /* two names of one file: POSIX */
		return;
	model_unlink(model, to);
	for (unsigned i = 0; i < model->name_count; i++) {
		char *path = model->names[i].path, moved[2 * MODEL_PATH_BYTES];
		if (strcmp(path, from) != 0 && !is_below(path, from))
			continue;
		snprintf(moved, sizeof moved, "%s%s", to, path + strlen(from));
		snprintf(path, MODEL_PATH_BYTES, "%.*s", (int)MODEL_PATH_BYTES - 1, moved);
	}
}

const struct model_content *model_last(const struct model_file *file)
{
	return file->versions[file->version_count - 1];
}

static struct model_content *resized(const struct model_content *from, size_t size)
{
	struct model_content *content = mem_zero(1, sizeof *content + size);
	content->size = size;
	memcpy(content->bytes, from->bytes, from->size < size ? from->size : size);
	return content;
}

static struct model_content *next_version(struct model_file *file, size_t size)
{
	struct model_content *content = resized(model_last(file), size);
	check(file->version_count < MODEL_VERSIONS_MAX);
	file->versions[file->version_count++] = content;
	return content;
}

void model_write(struct model_file *file, uint64_t offset, size_t size, uint64_t version)
{
	size_t end = (size_t)offset + size, old = model_last(file)->size;
	struct model_content *content = next_version(file, end > old ? end : old);
	for (size_t i = (size_t)offset; i < end; i++)
		content->bytes[i] = (uint8_t)(1 + (version * 31 + i / 64) % 255);
}

void model_resize(struct model_file *file, size_t size)
{
	next_version(file, size);
}

void model_resize_all(struct model_file *file, size_t size)
{
	for (unsigned i = 0; i < file->version_count; i++)
		file->versions[i] = resized(file->versions[i], size);
}

void model_settle(struct model_file *file)
{
	file->versions[0] = model_last(file);
	file->version_count = 1;
}

/* ---- what is there */

struct reading {
	struct seen *seen;
	struct granary_cluster *client;
	const char *directory;
	bool full;
};

static bool add_entry(void *arg, const struct granary_entry *entry)
{
	struct reading *reading = arg;
	struct seen *seen = reading->seen;
	reading->full = seen->count == MODEL_NAMES_MAX;
	if (reading->full)
		return false;
	struct seen_entry *to = &seen->entries[seen->count++];
	*to = (struct seen_entry){ .stat = { 0 } };
	snprintf(to->path, sizeof to->path, "%s/%.*s", reading->directory, (int)entry->name_bytes, entry->name);
	return true;
}

/* What a reader is told of content that nobody has. */
static bool is_lost(enum err err)
{
	return err == ERR_IO || err == ERR_CORRUPT || err == ERR_UNCERTAIN || err == ERR_NO_CHUNK;
}

static granary_status read_entry(struct seen_entry *entry, struct granary_cluster *client)
{
	size_t size = 0;
	granary_status status = granary_stat(client, entry->path, false, &entry->stat);
	if (status == OK && mode_is_file(entry->stat.mode)) {
		status = granary_get(client, entry->path, &entry->bytes, &size);
		if (is_lost((enum err)status))
			return OK;
		if (status == OK && size != entry->stat.size)
			status = ERR_CORRUPT;
	}
	if (status == OK && mode_is_symlink(entry->stat.mode))
		return granary_readlink(client, entry->path, entry->target, sizeof entry->target);
	if (status == OK) {
		status = granary_xattr_get(client, entry->path, ATTRIBUTE, entry->attribute, sizeof entry->attribute - 1, &size);
		status = status == (granary_status)ERR_NO_ATTRIBUTE ? OK : status;
	}
	return status;
}

bool seen_read(struct seen *seen, struct granary_cluster *client, struct buf *why)
{
	struct reading reading = { .seen = seen, .client = client, .directory = "" };
	*seen = (struct seen){ .count = 0 };
	granary_status status = granary_list(client, "/", add_entry, &reading);
	for (unsigned i = 0; i < seen->count && status == OK; i++) {
		status = read_entry(&seen->entries[i], client);
		seen->lost += mode_is_file(seen->entries[i].stat.mode) && !seen->entries[i].bytes;
		if (status != OK) {
			buf_printf(why, "%s, size %" PRIu64 ", layout %u: ", seen->entries[i].path, seen->entries[i].stat.size,
				   seen->entries[i].stat.layout);
			break;
		}
		reading.directory = seen->entries[i].path;
		if (mode_is_directory(seen->entries[i].stat.mode))
			status = granary_list(client, reading.directory, add_entry, &reading);
	}
	if (status != OK)
		buf_printf(why, "%s", granary_message(client));
	else if (reading.full)
		buf_printf(why, "too many names");
	return status == OK && !reading.full;
}

/* ---- comparing them */

static bool is_sector_of(const struct model_content *content, size_t at, const uint8_t *sector, size_t size)
{
	static const uint8_t zeros[SECTOR];
	size_t left = at < content->size ? content->size - at : 0, part = left < size ? left : size;
	return (part == 0 || memcmp(content->bytes + at, sector, part) == 0) && memcmp(zeros, sector + part, size - part) == 0;
}

static bool content_is_allowed(const struct model_file *file, const struct seen_entry *entry, struct buf *why)
{
	size_t size = (size_t)entry->stat.size;
	const uint8_t *bytes = entry->bytes;
	bool blob = entry->stat.layout == GRANARY__LAYOUT__LAYOUT_BLOB, size_fits = false, whole = false, was_empty = false;
	for (unsigned i = 0; i < file->version_count; i++) {
		bool fits = file->versions[i]->size == size;
		size_fits = size_fits || fits;
		was_empty = was_empty || (i + 1 < file->version_count && file->versions[i]->size == 0);
		whole = whole || (fits && bytes && memcmp(file->versions[i]->bytes, bytes, size) == 0);
	}
	if (!bytes && !(size_fits && was_empty)) {
		buf_printf(why, "%s: its content is lost", entry->path);
		return false;
	}
	if (!size_fits || (bytes && blob && !whole)) {
		buf_printf(why, "%s: its %zu bytes are none of %u contents", entry->path, size, file->version_count);
		return false;
	}
	for (size_t at = 0; at < size && bytes && !whole; at += SECTOR) {
		bool fits = false;
		for (unsigned i = 0; i < file->version_count && !fits; i++)
			fits = is_sector_of(file->versions[i], at, bytes + at, size - at < SECTOR ? size - at : SECTOR);
		if (!fits) {
			buf_printf(why, "%s: what it has at %zu is of none of %u contents", entry->path, at, file->version_count);
			return false;
		}
	}
	return true;
}

static const struct seen_entry *seen_find(const struct seen *seen, const char *path)
{
	for (unsigned i = 0; i < seen->count; i++)
		if (strcmp(seen->entries[i].path, path) == 0)
			return &seen->entries[i];
	return NULL;
}

static bool entry_is_allowed(const struct model *model, unsigned name, const struct seen *seen, struct buf *why)
{
	const struct model_file *file = &model->files[model->names[name].file];
	const struct seen_entry *entry = seen_find(seen, model->names[name].path);
	unsigned links = 0;
	if (!entry) {
		buf_printf(why, "%s: is not there", model->names[name].path);
		return false;
	}
	for (unsigned i = 0; i < model->name_count; i++) {
		const struct seen_entry *other = seen_find(seen, model->names[i].path);
		bool same = model->names[i].file == model->names[name].file;
		links += same;
		if (other && same != (other->stat.inode == entry->stat.inode)) {
			buf_printf(why, "%s, %s: the same file, or not", entry->path, other->path);
			return false;
		}
	}
	if (entry->stat.mode != file->mode || (!mode_is_directory(file->mode) && entry->stat.nlink != links)) {
		buf_printf(why, "%s: mode %o, %u links; expected %o, %u", entry->path, entry->stat.mode, entry->stat.nlink, file->mode, links);
		return false;
	}
	if (strcmp(entry->target, file->target ? file->target : "") != 0 ||
	    strcmp(entry->attribute, file->attribute ? file->attribute : "") != 0) {
		buf_printf(why, "%s: target \"%s\", attribute \"%s\"", entry->path, entry->target, entry->attribute);
		return false;
	}
	return !mode_is_file(file->mode) || content_is_allowed(file, entry, why);
}

bool model_allows(const struct model *model, const struct seen *seen, struct buf *why)
{
	for (unsigned i = 0; i < model->name_count; i++)
		if (!entry_is_allowed(model, i, seen, why))
			return false;
	if (seen->count != model->name_count)
		buf_printf(why, "there are %u names instead of %u", seen->count, model->name_count);
	return seen->count == model->name_count;
}

bool seen_equal(const struct seen *a, const struct seen *b, struct buf *why)
{
	for (unsigned i = 0; i < a->count; i++) {
		const struct seen_entry *first = &a->entries[i], *second = seen_find(b, first->path);
		if (second && first->stat.inode == second->stat.inode && first->stat.mode == second->stat.mode &&
		    first->stat.nlink == second->stat.nlink && first->stat.size == second->stat.size &&
		    strcmp(first->target, second->target) == 0 && strcmp(first->attribute, second->attribute) == 0 &&
		    (!first->bytes ? !second->bytes : second->bytes && memcmp(first->bytes, second->bytes, (size_t)first->stat.size) == 0))
			continue;
		buf_printf(why, "%s: is another after the second start", first->path);
		return false;
	}
	if (a->count != b->count)
		buf_printf(why, "there are %u names after the second start instead of %u", b->count, a->count);
	return a->count == b->count;
}
