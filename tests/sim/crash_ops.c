#include "tests/sim/crash_ops.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"

#define SMALL 6000u
#define LARGE 300000u /* more than BLOB_BYTES_MAX */

#define OPERATION_MS_MAX 3000u /* what is under way when the power is cut ends then */
#define FILLER_BYTES 11000u

_Static_assert(LARGE > BLOB_BYTES_MAX, "in chunks of its own");

/* The model as it is if what comes next is done. */
static struct model *begin(struct crash *crash)
{
	crash->begun = crash->done;
	return &crash->begun;
}

/* What was begun has ended so. False: the power was cut. */
static bool ended(struct crash *crash, granary_status status)
{
	if (status == OK)
		crash->done = crash->begun;
	else if (!crash->world.dark)
		crash_world_fail(&crash->world, "fails without a fault: %s", granary_message(crash->client));
	return status == OK && !crash->world.dark;
}

static bool has(struct crash *crash, const char *path)
{
	return model_find(&crash->done, path) != NULL;
}

/* ---- content */

static struct granary_file *open_it(struct crash *crash, const char *path)
{
	struct granary_file *file = NULL;
	begin(crash);
	return ended(crash, granary_open(crash->client, path, O_RDWR, 0, &file)) ? file : NULL;
}

static struct granary_file *create(struct crash *crash, const char *path)
{
	struct granary_file *file = NULL;
	struct model *next = begin(crash);
	struct model_file *old = model_find(next, path);
	if (!old)
		model_make(next, path, MODE_FILE | 0644);
	else if (model_last(old)->size > 0)
		model_resize(old, 0);
	return ended(crash, granary_open(crash->client, path, O_RDWR | O_CREAT | O_TRUNC, 0644, &file)) ? file : NULL;
}

static bool put_bytes(struct crash *crash, const char *path, struct granary_file *file, uint64_t offset, size_t size)
{
	struct model_file *to = model_find(begin(crash), path);
	model_write(to, offset, size, ++crash->version);
	return ended(crash, granary_pwrite(file, model_last(to)->bytes + offset, size, offset));
}

static bool close_it(struct crash *crash, struct granary_file *file)
{
	begin(crash);
	return ended(crash, granary_file_close(file));
}

static bool sync_it(struct crash *crash, const char *path, struct granary_file *file)
{
	model_settle(model_find(begin(crash), path));
	return ended(crash, granary_fsync(file));
}

static void create_and_write(struct crash *crash, const char *path, size_t size)
{
	struct granary_file *file = create(crash, path);
	if (file && put_bytes(crash, path, file, 0, size))
		close_it(crash, file);
}

static void write_at(struct crash *crash, const char *path, uint64_t offset, size_t size)
{
	struct granary_file *file = open_it(crash, path);
	if (file && put_bytes(crash, path, file, offset, size))
		close_it(crash, file);
}

static void sync_path(struct crash *crash, const char *path)
{
	struct granary_file *file = open_it(crash, path);
	if (file && sync_it(crash, path, file))
		close_it(crash, file);
}

static bool truncate_to(struct crash *crash, const char *path, size_t size)
{
	model_resize_all(model_find(begin(crash), path), size);
	return ended(crash, granary_truncate(crash->client, path, size));
}

static bool put(struct crash *crash, const char *path, size_t size)
{
	struct model *next = begin(crash);
	model_unlink(next, path);
	struct model_file *file = model_make(next, path, MODE_FILE | 0644);
	model_write(file, 0, size, ++crash->version);
	model_settle(file);
	return ended(crash, granary_put(crash->client, path, model_last(file)->bytes, size, 0644));
}

/* ---- names */

static bool make_directory(struct crash *crash, const char *path)
{
	model_make(begin(crash), path, MODE_DIRECTORY | 0755);
	return ended(crash, granary_mkdir(crash->client, path, 0755));
}

static bool make_link(struct crash *crash, const char *existing, const char *path)
{
	model_link(begin(crash), existing, path);
	return ended(crash, granary_link(crash->client, existing, path));
}

static void remove_name(struct crash *crash, const char *path)
{
	model_unlink(begin(crash), path);
	ended(crash, granary_unlink(crash->client, path));
}

static void rename_to(struct crash *crash, const char *from, const char *to)
{
	model_rename(begin(crash), from, to);
	ended(crash, granary_rename(crash->client, from, to, 0));
}

/* ---- the alphabet: few names, so that operations meet */

static bool always(struct crash *crash)
{
	(void)crash;
	return true;
}

static bool has_new(struct crash *crash)
{
	return has(crash, "/new");
}

static bool has_small(struct crash *crash)
{
	return has(crash, "/small");
}

static bool has_large(struct crash *crash)
{
	return has(crash, "/large");
}

static bool has_other(struct crash *crash)
{
	return has(crash, "/other");
}

static bool has_link(struct crash *crash)
{
	return has(crash, "/link");
}

static bool lacks_hard(struct crash *crash)
{
	return has(crash, "/large") && !has(crash, "/hard");
}

static bool lacks_made(struct crash *crash)
{
	return !has(crash, "/made");
}

static bool lacks_symlink(struct crash *crash)
{
	return !has(crash, "/symlink");
}

static bool has_empty(struct crash *crash)
{
	return has(crash, "/empty") && !model_has_below(&crash->done, "/empty");
}

static void create_small(struct crash *crash)
{
	create_and_write(crash, "/new", 5000);
}

static void create_large(struct crash *crash)
{
	create_and_write(crash, "/new", LARGE);
}

static void overwrite_small(struct crash *crash)
{
	write_at(crash, "/small", 1500, 3000);
}

static void overwrite_large(struct crash *crash)
{
	write_at(crash, "/large", 70001, 10000);
}

static void append_small(struct crash *crash)
{
	write_at(crash, "/small", model_last(model_find(&crash->done, "/small"))->size, 700);
}

static void append_large(struct crash *crash)
{
	write_at(crash, "/large", model_last(model_find(&crash->done, "/large"))->size, 9000);
}

static void shrink_large(struct crash *crash)
{
	truncate_to(crash, "/large", 100001);
}

static void grow_large(struct crash *crash)
{
	truncate_to(crash, "/large", LARGE + 50000);
}

static void regrow_large(struct crash *crash)
{
	if (truncate_to(crash, "/large", 200001))
		truncate_to(crash, "/large", LARGE);
}

static void shrink_small(struct crash *crash)
{
	truncate_to(crash, "/small", 1001);
}

static void replace(struct crash *crash)
{
	rename_to(crash, "/new", "/small");
}

static void rename_over(struct crash *crash)
{
	rename_to(crash, "/large", "/other");
}

static void rename_directory(struct crash *crash)
{
	bool there = has(crash, "/directory");
	rename_to(crash, there ? "/directory" : "/empty/directory", there ? "/empty/directory" : "/directory");
}

static bool may_move_directory(struct crash *crash)
{
	return has(crash, "/empty");
}

static void link_large(struct crash *crash)
{
	make_link(crash, "/large", "/hard");
}

static void unlink_other(struct crash *crash)
{
	remove_name(crash, "/other");
}

static void unlink_link(struct crash *crash)
{
	remove_name(crash, "/link");
}

static void unlink_large(struct crash *crash)
{
	remove_name(crash, "/large");
}

static void make_made(struct crash *crash)
{
	make_directory(crash, "/made");
}

static void remove_empty(struct crash *crash)
{
	model_unlink(begin(crash), "/empty");
	ended(crash, granary_rmdir(crash->client, "/empty"));
}

static void make_symlink(struct crash *crash)
{
	model_make(begin(crash), "/symlink", MODE_SYMLINK | 0777)->target = "small";
	ended(crash, granary_symlink(crash->client, "small", "/symlink"));
}

static void set_attribute(struct crash *crash)
{
	model_find(begin(crash), "/small")->attribute = "value";
	ended(crash, granary_xattr_set(crash->client, "/small", "user.crash", "value", 5));
}

/* So much that the master's database is synced and its log cut, soon after. */
static void fill_log(struct crash *crash)
{
	static const char *const names[] = { "user.first", "user.second", "user.third" };
	static const char value[FILLER_BYTES];
	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
		begin(crash);
		if (!ended(crash, granary_xattr_set(crash->client, "/directory/inner", names[i], value, sizeof value)))
			return;
	}
}

static bool has_inner(struct crash *crash)
{
	return has(crash, "/directory/inner");
}

static void change_mode(struct crash *crash)
{
	model_find(begin(crash), "/large")->mode = MODE_FILE | 0400;
	ended(crash, granary_chmod(crash->client, "/large", 0400));
}

static void sync_small(struct crash *crash)
{
	sync_path(crash, "/small");
}

static void sync_large(struct crash *crash)
{
	sync_path(crash, "/large");
}

static void sync_new(struct crash *crash)
{
	sync_path(crash, "/new");
}

static void put_small(struct crash *crash)
{
	put(crash, "/other", 4000);
}

static void put_large(struct crash *crash)
{
	put(crash, "/other", LARGE + 1);
}

const struct crash_op crash_ops[] = {
	{ "overwrite_small", has_small, overwrite_small },
	{ "fill_log", has_inner, fill_log },
	{ "regrow_large", has_large, regrow_large },
	{ "create_small", always, create_small },
	{ "create_large", always, create_large },
	{ "overwrite_large", has_large, overwrite_large },
	{ "append_small", has_small, append_small },
	{ "append_large", has_large, append_large },
	{ "shrink_small", has_small, shrink_small },
	{ "shrink_large", has_large, shrink_large },
	{ "grow_large", has_large, grow_large },
	{ "replace", has_new, replace },
	{ "rename_over", has_large, rename_over },
	{ "rename_directory", may_move_directory, rename_directory },
	{ "link", lacks_hard, link_large },
	{ "unlink", has_other, unlink_other },
	{ "unlink_link", has_link, unlink_link },
	{ "unlink_large", has_large, unlink_large },
	{ "mkdir", lacks_made, make_made },
	{ "rmdir", has_empty, remove_empty },
	{ "symlink", lacks_symlink, make_symlink },
	{ "set_xattr", has_small, set_attribute },
	{ "chmod", has_large, change_mode },
	{ "fsync_small", has_small, sync_small },
	{ "fsync_large", has_large, sync_large },
	{ "fsync_new", has_new, sync_new },
	{ "put_small", always, put_small },
	{ "put_large", always, put_large },
};
const unsigned crash_op_count = sizeof crash_ops / sizeof crash_ops[0];

/* ---- before, and after */

void crash_set_up(struct crash *crash)
{
	static const struct {
		const char *path;
		size_t size;
	} files[] = { { "/small", SMALL }, { "/large", LARGE }, { "/directory/inner", 100 }, { "/other", 3000 } };
	crash->client = crash_world_connect(&crash->world, OPERATION_MS_MAX);
	check(make_directory(crash, "/directory") && make_directory(crash, "/empty"));
	for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++) {
		struct granary_file *file = create(crash, files[i].path);
		check(file && put_bytes(crash, files[i].path, file, 0, files[i].size) && sync_it(crash, files[i].path, file) &&
		      close_it(crash, file));
	}
	check(make_link(crash, "/small", "/link"));
}

/* What was never synced, and is lost, is told once. */
static granary_status write_and_sync(struct granary_cluster *client, const char *path)
{
	struct granary_file *file = NULL;
	granary_status status = granary_open(client, path, O_RDWR, 0, &file);
	for (unsigned i = 0; i < 2 && status == OK; i++) {
		status = granary_pwrite(file, "after", 5, 0);
		if (status == OK)
			status = granary_fsync(file);
		if (status != (granary_status)ERR_DATA_LOST || i == 1)
			break;
		status = OK;
	}
	if (file)
		granary_file_close(file);
	return status;
}

static bool was_unsynced(struct model *model, const char *path)
{
	const struct model_file *file = model_find(model, path);
	return !file || file->version_count > 1;
}

/* Known: who writes to a new chunk of which all copies were lost before any was acknowledged waits for ever. */
static bool may_be_stuck(struct crash *crash, const char *path)
{
	return was_unsynced(&crash->done, path) || was_unsynced(&crash->begun, path);
}

void crash_check_writable(struct crash *crash, const struct seen *seen)
{
	for (unsigned i = 0; i < seen->count; i++) {
		const struct seen_entry *entry = &seen->entries[i];
		if (!mode_is_file(entry->stat.mode) || may_be_stuck(crash, entry->path))
			continue;
		if (write_and_sync(crash->client, entry->path) != OK)
			crash_world_fail(&crash->world, "%s: cannot be written any more: %s", entry->path, granary_message(crash->client));
	}
	if (granary_put(crash->client, "/after", "after", 5, 0644) != OK)
		crash_world_fail(&crash->world, "nothing can be put any more: %s", granary_message(crash->client));
}
