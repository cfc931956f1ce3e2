#include "master/state_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/file.h"
#include "common/sys/log.h"

#define PLACE_BYTES_MAX 256u

/* ---- sharing */

struct state_store *state_store_of(struct kv *kv)
{
	struct state_store *store = mem_zero(1, sizeof(*store));

	store->kv = kv;
	store->references = 1;
	return store;
}

struct state_store *state_store_ref(struct state_store *store)
{
	store->references++;
	return store;
}

void state_store_unref(struct state_store *store)
{
	if (!store || --store->references > 0)
		return;
	kv_close(store->kv);
	free(store);
}

/* ---- the place */

static void place_print(const struct state_place *place, struct buf *out)
{
	buf_printf(out, "format = 1\nstate = %" PRIu64 "\nindex = %" PRIu64 "\nterm = %" PRIu64 "\n", place->number, place->index,
		   place->term);
}

enum err state_place_load(struct loop *loop, const char *directory, struct state_place *out)
{
	struct buf path = { 0 }, found = { 0 }, again = { 0 };

	*out = (struct state_place){ 0 };
	buf_printf(&path, "%s/store%c", directory, 0);
	enum err err = file_load(loop, (const char *)path.bytes, PLACE_BYTES_MAX, &found);
	if (err == OK) {
		struct slice text = buf_slice(&found);
		buf_append(&found, "", 1);
		if (sscanf((const char *)found.bytes, "format = 1\nstate = %" SCNu64 "\nindex = %" SCNu64 "\nterm = %" SCNu64 "\n",
			   &out->number, &out->index, &out->term) != 3)
			err = ERR_CORRUPT;
		place_print(out, &again);
		text.bytes = found.bytes;
		if (err == OK && !slice_equal(buf_slice(&again), text))
			err = ERR_CORRUPT;
	}
	buf_deinit(&path);
	buf_deinit(&found);
	buf_deinit(&again);
	return err == ERR_NOT_FOUND ? OK : err;
}

enum err state_place_save(struct loop *loop, const char *directory, const struct state_place *place)
{
	struct buf path = { 0 }, text = { 0 };

	buf_printf(&path, "%s/store%c", directory, 0);
	place_print(place, &text);
	enum err err = file_replace(loop, (const char *)path.bytes, buf_slice(&text));
	buf_deinit(&path);
	buf_deinit(&text);
	return err;
}

void state_path(const char *directory, uint64_t number, struct buf *out)
{
	buf_clear(out);
	buf_printf(out, "%s/state", directory);
	if (number > 0)
		buf_printf(out, "-%" PRIu64, number);
	buf_append(out, "", 1);
}

/* ---- what is not in use */

struct sweep {
	struct loop *loop;
	const char *directory;
	uint64_t number;
	struct buf path;
	uint64_t found[8]; /* at a time: a list that is being read is not changed */
	size_t count;
};

static bool sweep_look(void *arg, const char *name)
{
	struct sweep *sweep = arg;
	unsigned long long number = 0;
	char again[32];

	if (strcmp(name, "state") != 0 && sscanf(name, "state-%llu", &number) != 1)
		return true;
	if (number > 0)
		snprintf(again, sizeof(again), "state-%llu", number);
	if (number != sweep->number && (number == 0 || strcmp(again, name) == 0))
		sweep->found[sweep->count++] = number;
	return sweep->count < sizeof(sweep->found) / sizeof(sweep->found[0]);
}

void state_sweep(struct loop *loop, const char *directory, uint64_t number)
{
	struct sweep sweep = { .loop = loop, .directory = directory, .number = number };
	enum err err = dir_list(loop, directory, sweep_look, &sweep);

	for (size_t i = 0; err == OK && i < sweep.count; i++) {
		state_path(directory, sweep.found[i], &sweep.path);
		err = kv_remove(loop, (const char *)sweep.path.bytes);
		log_info("master_state_removed", "state=%" PRIu64 " error=%s", sweep.found[i], err_name(err));
	}
	buf_deinit(&sweep.path);
}

enum err state_quarantine(struct loop *loop, const char *directory, uint64_t number)
{
	struct buf from = { 0 }, to = { 0 };

	state_path(directory, number, &from);
	buf_printf(&to, "%s/quarantine-state-%" PRIu64 "-%" PRIu64 "%c", directory, number, loop_wall_ms(loop), 0);
	enum err err = file_rename(loop, (const char *)from.bytes, (const char *)to.bytes);
	if (err == OK)
		err = dir_sync(loop, directory);
	if (err == OK)
		log_error("master_state_quarantined", "from=%s to=%s", (const char *)from.bytes, (const char *)to.bytes);
	buf_deinit(&from);
	buf_deinit(&to);
	return err == ERR_NOT_FOUND ? OK : err;
}

/* ---- the mark */

static void mark_path(const char *directory, struct buf *out)
{
	buf_printf(out, "%s/state-damaged%c", directory, 0);
}

void state_mark_damaged(struct loop *loop, const char *directory)
{
	struct buf path = { 0 };

	mark_path(directory, &path);
	enum err err = file_replace(loop, (const char *)path.bytes, slice_text("damage was found in the database in use\n"));
	if (err)
		log_error("master_mark_failed", "path=%s error=%s", (const char *)path.bytes, err_name(err));
	buf_deinit(&path);
}

bool state_is_marked_damaged(struct loop *loop, const char *directory)
{
	struct buf path = { 0 }, text = { 0 };

	mark_path(directory, &path);
	enum err err = file_load(loop, (const char *)path.bytes, PLACE_BYTES_MAX, &text);
	buf_deinit(&path);
	buf_deinit(&text);
	return err == OK;
}

void state_unmark_damaged(struct loop *loop, const char *directory)
{
	struct buf path = { 0 };

	mark_path(directory, &path);
	enum err err = file_unlink(loop, (const char *)path.bytes);
	if (err && err != ERR_NOT_FOUND)
		log_error("master_mark_failed", "path=%s error=%s", (const char *)path.bytes, err_name(err));
	buf_deinit(&path);
}
