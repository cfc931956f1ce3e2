#include "master/meta/check.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/proto/mode.h"
#include "master/meta/check_internal.h"
#include "master/meta/dir.h"
#include "master/meta/inode.h"

#define ROUNDS_MAX 3u /* of counting what changes meanwhile */

static const struct {
	const char *text;
	bool repaired;
} kinds[CHECK_KINDS_MAX] = {
#define X(name, number, repaired_, text_) [number] = {.text = text_, .repaired = repaired_},
	CHECK_LIST(X)
#undef X
};

const char *check_text(unsigned kind)
{
	return kind < CHECK_KINDS_MAX ? kinds[kind].text : NULL;
}

bool check_is_repaired(unsigned kind)
{
	return kind < CHECK_KINDS_MAX && kinds[kind].repaired;
}

struct check *check_open(struct meta *meta)
{
	struct check *check = mem_zero(1, sizeof(*check));
	check->meta = meta;
	return check;
}

void check_close(struct check *check)
{
	if (!check)
		return;
	free(check->counted);
	free(check);
}

uint64_t check_undecided(const struct check *check)
{
	return check->undecided;
}

static void stage_set(struct check *check, enum check_stage stage)
{
	check->stage = stage;
	check->has_cursor = false;
}

/* ---- what is counted */

static void counted_add(struct check *check, const struct check_counted *counted)
{
	if (check->count == check->capacity) {
		check->capacity = check->capacity ? 2 * check->capacity : 1024;
		check->counted = mem_resize(check->counted, check->capacity * sizeof(*check->counted));
	}
	check->counted[check->count++] = *counted;
}

static struct check_counted *counted_find(struct check *check, uint64_t id)
{
	size_t low = 0, high = check->count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (check->counted[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < check->count && check->counted[low].id == id ? &check->counted[low] : NULL;
}

/* Goes on with the scan of a table where the last slice ended; true at its end. `each` returns false to stop. */
static bool scan_on(struct check *check, enum key_table table, size_t keys_max,
		    bool (*each)(struct check *check, struct slice key, struct slice value))
{
	struct key prefix = key_of_table(table);
	struct scan scan;
	size_t keys = 0;
	bool is_over = true;
	scan_open(&scan, &check->meta->store, &prefix, check->has_cursor ? &check->cursor : NULL);
	while (scan_next(&scan)) {
		if (keys++ >= keys_max) {
			is_over = false;
			break;
		}
		struct key at = {.size = (uint32_t)scan.key.size};
		memcpy(at.bytes, scan.key.bytes, scan.key.size);
		bool more = each(check, scan.key, scan.value);
		check->cursor = key_after(&at);
		check->has_cursor = true;
		if (!more) {
			is_over = false;
			break;
		}
	}
	scan_close(&scan);
	check->looked_at += keys;
	return is_over;
}

/* ---- names */

static bool expects_names(const Granary__Inode *inode, struct check_counted *counted)
{
	bool is_directory = mode_is_directory(inode->mode);
	if (inode->nlink == 0 || (is_directory && inode->parent == 0))
		return false;
	counted->stamp = inode->change;
	counted->expected = is_directory ? 1 : inode->nlink - inode->kept;
	return true;
}

static bool names_collect(struct check *check, struct slice key, struct slice value)
{
	(void)value;
	struct check_counted counted = {0};
	if (!key_parse(key, &counted.id))
		return true;
	check->inode_cursor = counted.id;
	const Granary__Inode *inode = counted.id == META_ROOT_INODE ? NULL : inode_get(check->meta, counted.id);
	if (inode && expects_names(inode, &counted))
		counted_add(check, &counted);
	return check->count < CHECK_COUNTED_MAX;
}

static bool names_count(struct check *check, struct slice key, struct slice value)
{
	(void)key;
	Granary__Dirent dirent;
	if (message_read_numbers(&granary__dirent__descriptor, value, &dirent.base))
		return true;
	struct check_counted *counted = counted_find(check, dirent.inode);
	if (counted)
		counted->seen++;
	return true;
}

/* Those whose names changed meanwhile are left, to be counted again. */
static void names_compare(struct check *check, check_fn *fn, void *arg)
{
	size_t left = 0;
	for (size_t i = 0; i < check->count; i++) {
		struct check_counted *counted = &check->counted[i];
		struct check_counted now = {.id = counted->id};
		if (counted->seen == counted->expected)
			continue;
		const Granary__Inode *inode = inode_get(check->meta, counted->id);
		if (!inode || !expects_names(inode, &now))
			continue;
		if (now.stamp != counted->stamp) {
			check->counted[left++] = now;
			continue;
		}
		struct check_finding finding = {.kind = counted->seen == 0 ? CHECK_NAMELESS : CHECK_LINKS,
						.id = counted->id,
						.other = counted->seen == 0 ? counted->stamp : counted->seen};
		fn(arg, &finding);
	}
	check->count = left;
}

/* ---- packs */

static bool packs_collect(struct check *check, struct slice key, struct slice value)
{
	(void)value;
	uint64_t id;
	const Granary__Chunk *pack = key_parse(key, &id) ? chunk_get(check->meta, id) : NULL;
	if (pack && pack->kind == GRANARY__CHUNK_KIND__CHUNK_PACK && pack->sealed) {
		struct check_counted counted = {.id = id, .stamp = pack->live_count, .expected = pack->live_bytes};
		counted_add(check, &counted);
	}
	return check->count < CHECK_COUNTED_MAX;
}

/* `seen` goes down from what was expected, in bytes; a blob more or less shows in that, too. */
static bool packs_count(struct check *check, struct slice key, struct slice value)
{
	(void)value;
	uint64_t id;
	const Granary__Inode *inode = key_parse(key, &id) ? inode_get(check->meta, id) : NULL;
	if (!inode || inode->layout != GRANARY__LAYOUT__LAYOUT_BLOB)
		return true;
	struct check_counted *counted = counted_find(check, inode->pack);
	if (counted)
		counted->seen += inode->blob_bytes;
	return true;
}

static void packs_compare(struct check *check, check_fn *fn, void *arg)
{
	size_t left = 0;
	for (size_t i = 0; i < check->count; i++) {
		struct check_counted *counted = &check->counted[i];
		const Granary__Chunk *pack = chunk_get(check->meta, counted->id);
		if (!pack || counted->seen == counted->expected)
			continue;
		if (pack->live_count != counted->stamp || pack->live_bytes != counted->expected) {
			check->counted[left++] = (struct check_counted){
			    .id = counted->id, .stamp = pack->live_count, .expected = pack->live_bytes};
			continue;
		}
		struct check_finding finding = {.kind = CHECK_PACK, .id = counted->id, .other = counted->seen};
		fn(arg, &finding);
	}
	check->count = left;
}

/* ---- stages */

/* After a round of counting: the same again for what is left, or what is next. */
static void counted_next(struct check *check, enum check_stage again, enum check_stage next)
{
	if (check->count > 0 && ++check->rounds < ROUNDS_MAX) {
		stage_set(check, again);
		return;
	}
	check->undecided += check->count;
	check->count = 0;
	check->rounds = 0;
	stage_set(check, next);
}

static void names_collected(struct check *check, bool is_over)
{
	if (!is_over && check->count < CHECK_COUNTED_MAX)
		return;
	check->inodes_over = is_over;
	stage_set(check, STAGE_NAMES_COUNT);
}

static void names_counted(struct check *check, check_fn *fn, void *arg)
{
	names_compare(check, fn, arg);
	counted_next(check, STAGE_NAMES_COUNT, check->inodes_over ? STAGE_PACKS_COLLECT : STAGE_NAMES_COLLECT);
	if (check->stage != STAGE_NAMES_COLLECT)
		return;
	check->cursor = key_of(KEY_INODE, check->inode_cursor);
	check->cursor = key_after(&check->cursor);
	check->has_cursor = true;
}

static void step(struct check *check, size_t keys_max, check_fn *fn, void *arg)
{
	switch (check->stage) {
	case STAGE_TABLES:
		if (check_tables(check, keys_max, fn, arg))
			stage_set(check, STAGE_NAMES_COLLECT);
		break;
	case STAGE_NAMES_COLLECT:
		names_collected(check, scan_on(check, KEY_INODE, keys_max, names_collect));
		break;
	case STAGE_NAMES_COUNT:
		if (scan_on(check, KEY_DIRENT, keys_max, names_count))
			names_counted(check, fn, arg);
		break;
	case STAGE_PACKS_COLLECT:
		if (scan_on(check, KEY_CHUNK, keys_max, packs_collect) || check->count == CHECK_COUNTED_MAX)
			stage_set(check, STAGE_PACKS_COUNT);
		break;
	case STAGE_PACKS_COUNT:
		if (scan_on(check, KEY_INODE, keys_max, packs_count)) {
			packs_compare(check, fn, arg);
			counted_next(check, STAGE_PACKS_COUNT, STAGE_END);
		}
		break;
	case STAGE_END:
		break;
	}
}

enum err check_run(struct check *check, size_t keys_max, check_fn *fn, void *arg, bool *end)
{
	step(check, keys_max, fn, arg);
	*end = check->stage == STAGE_END;
	store_trim(&check->meta->store);
	return store_failed(&check->meta->store);
}

/* Of what there is: each inode is looked at three times and more, each name twice, chunks and what servers hold. */
unsigned check_progress(const struct check *check)
{
	uint64_t all = 5 * check->meta->state->inodes + 6 * check->meta->state->chunks + 1;
	if (check->stage == STAGE_END)
		return 1000;
	return check->looked_at >= all ? 990 : (unsigned)(check->looked_at * 990 / all);
}
