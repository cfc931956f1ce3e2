/* file.h, simulated: a host's disk is a table of names and of inodes made of pages. A page that was written since the last
 * sync keeps its durable content beside it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/sys/file.h"
#include "tests/sim/sys/sim_disk_internal.h"

#define SECTOR 512u
#define DISK_BYTES (1ull << 40)
#define NAMES_CUT_MAX 256u

struct file {
	struct loop *loop;
	struct sim_disk *disk;
	struct inode *inode;
	unsigned references;
	bool writable;
};

struct sim_disk *sim_disk_open(struct sim_host *host)
{
	struct sim_disk *disk = mem_zero(1, sizeof(*disk));
	disk->host = host;
	return disk;
}

struct sim_store **sim_disk_stores(struct sim_disk *disk)
{
	return &disk->stores;
}

static void inode_unref(struct sim_disk *disk, struct inode *inode)
{
	if (inode == NULL || --inode->references > 0)
		return;
	for (size_t i = 0; i < inode->page_count; i++) {
		free(inode->pages[i].now);
		free(inode->pages[i].durable);
	}
	disk->pages_used -= inode->pages_used;
	free(inode->pages);
	free(inode->dirty);
	free(inode);
}

static struct inode **name_slot(struct name *names, const char *path)
{
	for (struct name *name = names; name != NULL; name = name->next)
		if (strcmp(name->path, path) == 0)
			return &name->inode;
	return NULL;
}

void sim_disk_name_set(struct sim_disk *disk, struct name **names, const char *path, struct inode *inode)
{
	if (inode != NULL)
		inode->references++;
	for (struct name **link = names; *link != NULL; link = &(*link)->next) {
		struct name *name = *link;
		if (strcmp(name->path, path) != 0)
			continue;
		inode_unref(disk, name->inode);
		name->inode = inode;
		if (inode == NULL) {
			*link = name->next;
			free(name->path);
			free(name);
		}
		return;
	}
	if (inode == NULL)
		return;
	struct name *name = mem_zero(1, sizeof(*name));
	name->path = mem_string(path);
	name->inode = inode;
	name->next = *names;
	*names = name;
}

static void change_apply(struct sim_disk *disk, struct name **names, const struct name_change *change)
{
	sim_disk_name_set(disk, names, change->path, change->inode);
	/* The old name may be another file's by now: one that was made there later and synced. */
	struct inode **old = change->from == NULL ? NULL : name_slot(*names, change->from);
	if (old != NULL && *old == change->inode)
		sim_disk_name_set(disk, names, change->from, NULL);
}

static void name_change(struct sim_disk *disk, const char *path, struct inode *inode, const char *from)
{
	struct name_change *change = mem_zero(1, sizeof(*change));
	change->path = mem_string(path);
	change->inode = inode;
	change->from = from == NULL ? NULL : mem_string(from);
	if (inode != NULL)
		inode->references++;
	if (disk->last != NULL)
		disk->last->next = change;
	else
		disk->first = change;
	disk->last = change;
	change_apply(disk, &disk->names, change);
}

static void change_free(struct sim_disk *disk, struct name_change *change)
{
	inode_unref(disk, change->inode);
	free(change->path);
	free(change->from);
	free(change);
}

static void names_clear(struct sim_disk *disk, struct name **names)
{
	while (*names != NULL) {
		struct name *name = *names;
		*names = name->next;
		inode_unref(disk, name->inode);
		free(name->path);
		free(name);
	}
}

static void changes_clear(struct sim_disk *disk)
{
	while (disk->first != NULL) {
		struct name_change *change = disk->first;
		disk->first = change->next;
		change_free(disk, change);
	}
	disk->last = NULL;
}

void sim_disk_close(struct sim_disk *disk)
{
	names_clear(disk, &disk->names);
	names_clear(disk, &disk->durable);
	changes_clear(disk);
	sim_stores_close(disk->stores);
	free(disk);
}

void sim_host_wipe(struct sim_host *host)
{
	check(!host->up);
	sim_disk_close(host->disk);
	host->disk = sim_disk_open(host);
}

/* ---- faults */

bool sim_disk_operation(struct loop *loop)
{
	if (loop->dead)
		return false;
	struct sim_host *host = loop->host;
	if (host->cut_after == 0 || --host->cut_after > 0)
		return true;
	sim_host_power_cut(host);
	return false;
}

static bool persistence_point(struct loop *loop, bool done)
{
	struct sim *sim = loop->sim;
	if (sim->on_sync != NULL)
		sim->on_sync(sim->on_sync_arg, loop->host, done);
	return !loop->dead;
}

bool sim_sync_begins(struct loop *loop)
{
	return sim_disk_operation(loop) && persistence_point(loop, false);
}

bool sim_sync_is_done(struct loop *loop)
{
	return persistence_point(loop, true);
}

static void page_cut(struct sim *sim, struct page *page)
{
	if (page->now == NULL)
		page->now = mem_zero(1, PAGE);
	for (size_t at = 0; at < PAGE; at += SECTOR) {
		if (!sim->lose_unsynced && rng_below(&sim->rng, 2) != 0)
			continue;
		if (page->durable != NULL)
			memcpy(page->now + at, page->durable + at, SECTOR);
		else
			memset(page->now + at, 0, SECTOR);
	}
	free(page->durable);
	page->durable = NULL;
	page->dirty = page->doomed = false;
}

/* The rest of the last page, and all beyond: a file that grows again reads zeros there. */
static void beyond_end_cut(struct inode *inode)
{
	for (size_t index = (size_t)(inode->size / PAGE); index < inode->page_count; index++) {
		size_t within = index == inode->size / PAGE ? (size_t)(inode->size % PAGE) : 0;
		if (inode->pages[index].now != NULL)
			memset(inode->pages[index].now + within, 0, PAGE - within);
	}
}

static uint32_t directory_hash(const char *path)
{
	const char *slash = strrchr(path, '/');
	return crc32c(path, slash == NULL ? 0 : (size_t)(slash - path));
}

/* Which unsynced changes of names are there after a power cut. File systems with one journal (ext4, xfs) keep a prefix of all; others
 * (btrfs) one of each directory, where a rename from one to another is in both, or in neither. */
static void names_cut(struct sim_disk *disk)
{
	struct rng *rng = &disk->host->sim->rng;
	bool one_journal = rng_below(rng, 2) == 0;
	uint32_t ended[NAMES_CUT_MAX]; /* directories whose prefix is over */
	size_t ended_count = 0, count = 0;
	for (const struct name_change *change = disk->first; change != NULL; change = change->next)
		count++;
	bool none = disk->host->sim->lose_unsynced;
	uint64_t kept = none ? 0 : rng_below(rng, count + 1);
	for (const struct name_change *change = disk->first; change != NULL; change = change->next) {
		uint32_t folders[2] = { directory_hash(change->path), directory_hash(change->from == NULL ? change->path : change->from) };
		bool lost = none || (one_journal ? kept == 0 : rng_below(rng, count + 1) == 0);
		for (size_t i = 0; i < ended_count && !one_journal; i++)
			lost = lost || ended[i] == folders[0] || ended[i] == folders[1] || ended_count + 2 > NAMES_CUT_MAX;
		if (!lost)
			change_apply(disk, &disk->durable, change);
		for (size_t i = 0; i < 2 && lost && ended_count < NAMES_CUT_MAX; i++)
			ended[ended_count++] = folders[i];
		kept -= kept > 0;
	}
	changes_clear(disk);
}

void sim_disk_power_cut(struct sim_disk *disk)
{
	struct sim *sim = disk->host->sim;
	names_cut(disk);
	names_clear(disk, &disk->names);
	for (struct name *name = disk->durable; name != NULL; name = name->next) {
		struct inode *inode = name->inode;
		sim_disk_name_set(disk, &disk->names, name->path, inode);
		if (inode->size != inode->size_durable && (sim->lose_unsynced || rng_below(&sim->rng, 2) == 0))
			inode->size = inode->size_durable;
		inode->size_durable = inode->size;
		for (size_t i = 0; i < inode->dirty_count; i++)
			page_cut(sim, &inode->pages[inode->dirty[i]]);
		inode->dirty_count = 0;
		beyond_end_cut(inode);
	}
	sim_stores_power_cut(disk->host, disk->stores);
}

void sim_disk_process_died(struct sim_disk *disk, const struct loop *loop)
{
	for (struct name *name = disk->names; name != NULL; name = name->next)
		if (name->inode->lock == loop)
			name->inode->lock = NULL;
}

/* What programs see there; NULL: nothing was ever written. */
static uint8_t *bytes_at(struct sim_host *host, const char *path, uint64_t offset, size_t size)
{
	struct inode **slot = name_slot(host->disk->names, path);
	if (slot == NULL || offset + size > (*slot)->size || offset / PAGE >= (*slot)->page_count)
		return NULL;
	check(offset % PAGE + size <= PAGE);
	struct page *page = &(*slot)->pages[offset / PAGE];
	return page->now == NULL ? NULL : page->now + offset % PAGE;
}

bool sim_host_flip_bit(struct sim_host *host, const char *path, uint64_t offset, unsigned bit)
{
	uint8_t *byte = bytes_at(host, path, offset, 1);
	if (byte != NULL)
		*byte ^= (uint8_t)(1u << (bit % 8));
	return byte != NULL;
}

bool sim_host_put(struct sim_host *host, const char *path, uint64_t offset, const void *bytes, size_t size)
{
	uint8_t *at = bytes_at(host, path, offset, size);
	if (at != NULL)
		memcpy(at, bytes, size);
	return at != NULL;
}

bool sim_host_break_file(struct sim_host *host, const char *path, const struct sim_file_faults *faults)
{
	struct inode **slot = name_slot(host->disk->names, path);
	if (slot == NULL)
		return false;
	(*slot)->faults = *faults;
	return true;
}

void sim_host_each_file(struct sim_host *host, bool (*fn)(void *arg, const char *path, uint64_t size), void *arg)
{
	for (const struct name *name = host->disk->names; name != NULL; name = name->next)
		if (!fn(arg, name->path, name->inode->size))
			return;
}

static void inode_copy(const struct inode *inode, uint64_t offset, uint8_t *to, size_t size)
{
	for (size_t at = 0; at < size;) {
		size_t index = (size_t)((offset + at) / PAGE), within = (size_t)((offset + at) % PAGE);
		size_t part = size - at < PAGE - within ? size - at : PAGE - within;
		if (index < inode->page_count && inode->pages[index].now != NULL)
			memcpy(to + at, inode->pages[index].now + within, part);
		else
			memset(to + at, 0, part);
		at += part;
	}
}

bool sim_host_read_file(struct sim_host *host, const char *path, uint64_t offset, void *bytes, size_t size)
{
	struct inode **slot = name_slot(host->disk->names, path);
	if (slot == NULL || offset > (*slot)->size || size > (*slot)->size - offset)
		return false;
	inode_copy(*slot, offset, bytes, size);
	return true;
}

bool sim_host_read_durable(struct sim_host *host, const char *path, uint64_t offset, void *bytes, size_t size)
{
	struct inode **slot = name_slot(host->disk->names, path);
	const struct page *page = slot == NULL || offset / PAGE >= (*slot)->page_count ? NULL : &(*slot)->pages[offset / PAGE];
	if (page == NULL || offset % PAGE + size > PAGE)
		return false;
	const uint8_t *from = page->dirty ? page->durable : page->now;
	if (from == NULL)
		memset(bytes, 0, size);
	else
		memcpy(bytes, from + offset % PAGE, size);
	return true;
}

uint64_t sim_host_pages_used(const struct sim_host *host)
{
	return host->disk->pages_used;
}

/* ---- files */

enum err file_open(struct loop *loop, const char *path, unsigned flags, struct file **out)
{
	*out = NULL;
	if (!sim_disk_operation(loop))
		return ERR_IO;
	struct sim_disk *disk = loop->host->disk;
	struct inode **slot = name_slot(disk->names, path);
	struct inode *inode = slot == NULL ? NULL : *slot;
	if (inode != NULL && (flags & FILE_CREATE) != 0 && (flags & FILE_EXCLUSIVE) != 0)
		return ERR_EXISTS;
	if (inode == NULL) {
		if ((flags & FILE_CREATE) == 0)
			return ERR_NOT_FOUND;
		inode = mem_zero(1, sizeof(*inode));
		name_change(disk, path, inode, NULL);
	}
	struct file *file = mem_zero(1, sizeof(*file));
	file->loop = loop;
	file->disk = disk;
	file->inode = inode;
	file->references = 1;
	file->writable = (flags & FILE_WRITE) != 0;
	inode->references++;
	*out = file;
	if ((flags & FILE_TRUNCATE) != 0)
		return file_truncate(file, 0);
	return OK;
}

struct file *file_ref(struct file *file)
{
	file->references++;
	return file;
}

void file_unref(struct file *file)
{
	if (file == NULL || --file->references > 0)
		return;
	if (file->inode->lock == file->loop)
		file->inode->lock = NULL;
	inode_unref(file->disk, file->inode);
	free(file);
}

enum err file_read(struct file *file, uint64_t offset, void *bytes, size_t size, size_t *done)
{
	*done = 0;
	struct sim_host *host = file->loop->host;
	if (file->loop->dead || sim_chance(host->sim, host->faults.read_error_per_million))
		return ERR_IO;
	const struct inode *inode = file->inode;
	if (inode->faults.read_fails)
		return ERR_IO;
	if (offset >= inode->size)
		return OK;
	if (size > inode->size - offset)
		size = (size_t)(inode->size - offset);
	inode_copy(inode, offset, bytes, size);
	*done = size;
	return OK;
}

/* Now and then the page cache does not have it. */
enum err file_read_cached(struct file *file, uint64_t offset, void *bytes, size_t size, size_t *done)
{
	*done = 0;
	if (sim_chance(file->loop->sim, 250000))
		return ERR_WOULD_BLOCK;
	return file_read(file, offset, bytes, size, done);
}

/* The page, about to change: its durable content is put aside. */
static struct page *page_touch(struct file *file, size_t index)
{
	struct inode *inode = file->inode;
	if (index >= inode->page_count) {
		size_t count = index + 1 > 2 * inode->page_count ? index + 1 : 2 * inode->page_count;
		inode->pages = mem_resize(inode->pages, count * sizeof(inode->pages[0]));
		memset(inode->pages + inode->page_count, 0, (count - inode->page_count) * sizeof(inode->pages[0]));
		inode->page_count = count;
	}
	struct page *page = &inode->pages[index];
	if (!page->dirty) {
		if (inode->dirty_count == inode->dirty_capacity) {
			inode->dirty_capacity = inode->dirty_capacity == 0 ? 16 : 2 * inode->dirty_capacity;
			inode->dirty = mem_resize(inode->dirty, inode->dirty_capacity * sizeof(inode->dirty[0]));
		}
		inode->dirty[inode->dirty_count++] = (uint32_t)index;
		page->dirty = true;
		page->durable = NULL;
		if (page->now != NULL) {
			page->durable = mem_alloc(PAGE);
			memcpy(page->durable, page->now, PAGE);
		}
	}
	page->doomed = false;
	if (page->now == NULL) {
		page->now = mem_zero(1, PAGE);
		inode->pages_used++;
		file->disk->pages_used++;
	}
	return page;
}

enum err file_is_cached(struct file *file, uint64_t offset, size_t size)
{
	(void)offset;
	(void)size;
	return sim_chance(file->loop->sim, 500000) ? OK : ERR_WOULD_BLOCK;
}

void file_no_readahead(struct file *file)
{
	(void)file;
}

void file_will_need(struct file *file, uint64_t offset, size_t size)
{
	(void)file;
	(void)offset;
	(void)size;
}

bool sim_disk_has_room(const struct sim_disk *disk, size_t bytes)
{
	uint64_t space = disk->host->faults.space_bytes == 0 ? DISK_BYTES : disk->host->faults.space_bytes;
	return (disk->pages_used + bytes / PAGE + 1) * PAGE <= space;
}

enum err file_write(struct file *file, uint64_t offset, const void *bytes, size_t size)
{
	check(file->writable);
	struct sim_host *host = file->loop->host;
	if (!sim_disk_operation(file->loop) || sim_chance(host->sim, host->faults.write_error_per_million))
		return ERR_IO;
	if (file->inode->faults.write_fails)
		return ERR_IO;
	if (!sim_disk_has_room(file->disk, size))
		return ERR_NO_SPACE;
	if (sim_chance(host->sim, host->faults.lost_per_million)) {
		sim_trace(host->sim, "fault: host=%s a write of %zu at %" PRIu64 " is lost", host->name, size, offset);
		if (offset + size > file->inode->size) /* that is in another place */
			file->inode->size = offset + size;
		return OK;
	}
	if (offset + size <= file->inode->size && sim_chance(host->sim, host->faults.misdirected_per_million)) {
		uint64_t pages = (file->inode->size - size) / PAGE + 1, to = rng_below(&host->sim->rng, pages) * PAGE + offset % PAGE;
		sim_trace(host->sim, "fault: host=%s a write of %zu at %" PRIu64 " goes to %" PRIu64, host->name, size, offset, to);
		if (to + size <= file->inode->size)
			offset = to;
	}
	const uint8_t *from = bytes;
	for (size_t at = 0; at < size;) {
		size_t within = (size_t)((offset + at) % PAGE);
		size_t part = size - at < PAGE - within ? size - at : PAGE - within;
		memcpy(page_touch(file, (size_t)((offset + at) / PAGE))->now + within, from + at, part);
		at += part;
	}
	if (offset + size > file->inode->size)
		file->inode->size = offset + size;
	return OK;
}

enum err file_write_parts(struct file *file, uint64_t offset, const struct slice *parts, size_t count)
{
	enum err err = OK;
	check(count <= FILE_PARTS_MAX);
	for (size_t i = 0; err == OK && i < count; i++) {
		err = file_write(file, offset, parts[i].bytes, parts[i].size);
		offset += parts[i].size;
	}
	return err;
}

enum err file_sync(struct file *file)
{
	struct sim_host *host = file->loop->host;
	struct inode *inode = file->inode;
	if (!sim_sync_begins(file->loop))
		return ERR_IO;
	if (inode->faults.sync_fails || sim_chance(host->sim, host->faults.sync_error_per_million)) {
		for (size_t i = 0; i < inode->dirty_count; i++)
			inode->pages[inode->dirty[i]].doomed = true;
		return ERR_IO;
	}
	inode->size_durable = inode->size;
	size_t doomed = 0;
	for (size_t i = 0; i < inode->dirty_count; i++) {
		struct page *page = &inode->pages[inode->dirty[i]];
		if (page->doomed) {
			inode->dirty[doomed++] = inode->dirty[i];
			continue;
		}
		free(page->durable);
		page->durable = NULL;
		page->dirty = false;
	}
	inode->dirty_count = doomed;
	return sim_sync_is_done(file->loop) ? OK : ERR_IO;
}

static void zero_range(struct file *file, uint64_t from, uint64_t to)
{
	struct inode *inode = file->inode;
	for (uint64_t at = from; at < to;) {
		size_t within = (size_t)(at % PAGE);
		size_t part = to - at < PAGE - within ? (size_t)(to - at) : PAGE - within;
		size_t index = (size_t)(at / PAGE);
		if (index >= inode->page_count)
			break;
		if (inode->pages[index].now != NULL)
			memset(page_touch(file, index)->now + within, 0, part);
		at += part;
	}
}

enum err file_truncate(struct file *file, uint64_t size)
{
	if (!sim_disk_operation(file->loop))
		return ERR_IO;
	zero_range(file, size, file->inode->size);
	file->inode->size = size;
	return OK;
}

enum err file_preallocate(struct file *file, uint64_t offset, uint64_t size)
{
	if (!sim_disk_operation(file->loop))
		return ERR_IO;
	zero_range(file, offset, offset + size);
	if (offset + size > file->inode->size)
		file->inode->size = offset + size;
	return OK;
}

enum err file_punch(struct file *file, uint64_t offset, uint64_t size)
{
	if (!sim_disk_operation(file->loop))
		return ERR_IO;
	zero_range(file, offset, offset + size < file->inode->size ? offset + size : file->inode->size);
	return OK;
}

enum err file_size(struct file *file, uint64_t *out)
{
	*out = file->inode->size;
	return OK;
}

enum err file_allocated(struct file *file, uint64_t *out)
{
	*out = (uint64_t)file->inode->pages_used * PAGE;
	return OK;
}

enum err file_lock(struct file *file)
{
	if (file->inode->lock != NULL && file->inode->lock != file->loop)
		return ERR_BUSY;
	file->inode->lock = file->loop;
	return OK;
}

/* ---- names */

enum err file_rename(struct loop *loop, const char *from, const char *to)
{
	if (!sim_disk_operation(loop))
		return ERR_IO;
	struct sim_disk *disk = loop->host->disk;
	struct inode **slot = name_slot(disk->names, from);
	if (slot == NULL)
		return ERR_NOT_FOUND;
	struct inode *inode = *slot;
	name_change(disk, to, inode, from);
	return OK;
}

enum err file_unlink(struct loop *loop, const char *path)
{
	if (!sim_disk_operation(loop))
		return ERR_IO;
	struct sim_disk *disk = loop->host->disk;
	if (name_slot(disk->names, path) == NULL)
		return ERR_NOT_FOUND;
	name_change(disk, path, NULL, NULL);
	return OK;
}

/* Directories are implied by the names in them. */
enum err dir_make(struct loop *loop, const char *path)
{
	(void)path;
	return sim_disk_operation(loop) ? OK : ERR_IO;
}

enum err dir_make_private(struct loop *loop, const char *path)
{
	return dir_make(loop, path);
}

/* Directories do not change here. */
enum err dir_identity(struct loop *loop, const char *path, uint64_t *id)
{
	(void)path;
	*id = 1;
	return loop->dead ? ERR_IO : OK;
}

static bool is_in(const char *path, const char *directory)
{
	size_t length = strlen(directory);
	return strncmp(path, directory, length) == 0 && path[length] == '/' && strchr(path + length + 1, '/') == NULL;
}

/* Of one file no later name is there before an earlier one: it would have both. */
static bool is_synced_with(const struct name_change *change, const char *path)
{
	for (const struct name_change *later = change; later != NULL; later = later->next) {
		if (is_in(later->path, path) && (later == change || (change->inode != NULL && later->inode == change->inode)))
			return true;
	}
	return false;
}

enum err dir_sync(struct loop *loop, const char *path)
{
	struct sim_host *host = loop->host;
	if (!sim_sync_begins(loop) || sim_chance(host->sim, host->faults.sync_error_per_million))
		return ERR_IO;
	struct sim_disk *disk = host->disk;
	struct name_change **link = &disk->first, *last = NULL;
	while (*link != NULL) {
		struct name_change *change = *link;
		if (!is_synced_with(change, path)) {
			last = change;
			link = &change->next;
			continue;
		}
		change_apply(disk, &disk->durable, change);
		*link = change->next;
		change_free(disk, change);
	}
	disk->last = last;
	return sim_sync_is_done(loop) ? OK : ERR_IO;
}

enum err dir_list(struct loop *loop, const char *path, bool (*fn)(void *arg, const char *name), void *arg)
{
	if (loop->dead)
		return ERR_IO;
	char seen[64][64];
	size_t seen_count = 0, length = strlen(path);
	for (const struct name *name = loop->host->disk->names, *next; name != NULL; name = next) {
		next = name->next; /* fn may remove this one */
		if (strncmp(name->path, path, length) != 0 || name->path[length] != '/')
			continue;
		char part[64];
		snprintf(part, sizeof(part), "%.*s", (int)strcspn(name->path + length + 1, "/"), name->path + length + 1);
		bool again = false;
		for (size_t i = 0; i < seen_count; i++)
			again = again || strcmp(seen[i], part) == 0;
		bool directory = strchr(name->path + length + 1, '/') != NULL;
		if (again)
			continue;
		if (directory && seen_count < 64)
			memcpy(seen[seen_count++], part, sizeof(part));
		if (!fn(arg, part))
			break;
	}
	return OK;
}

enum err disk_space(struct loop *loop, const char *path, struct disk_space *out)
{
	(void)path;
	struct sim_host *host = loop->host;
	out->bytes_total = host->faults.space_bytes == 0 ? DISK_BYTES : host->faults.space_bytes;
	uint64_t used = host->disk->pages_used * PAGE;
	out->bytes_free = used > out->bytes_total ? 0 : out->bytes_total - used;
	return OK;
}

uint64_t machine_boot_id(struct loop *loop)
{
	return loop->host->boot_id;
}

enum err file_replace(struct loop *loop, const char *path, struct slice bytes)
{
	char temporary[PATH_BYTES_MAX], directory[PATH_BYTES_MAX];
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	snprintf(directory, sizeof(directory), "%s", path);
	char *slash = strrchr(directory, '/');
	if (slash != NULL)
		*slash = '\0';
	struct file *file = NULL;
	enum err err = file_open(loop, temporary, FILE_WRITE | FILE_CREATE | FILE_TRUNCATE, &file);
	if (err == OK)
		err = file_write(file, 0, bytes.bytes, bytes.size);
	if (err == OK)
		err = file_sync(file);
	file_unref(file);
	if (err == OK)
		err = file_rename(loop, temporary, path);
	return err == OK ? dir_sync(loop, directory) : err;
}

enum err file_load(struct loop *loop, const char *path, size_t size_max, struct buf *out)
{
	buf_clear(out);
	struct file *file = NULL;
	enum err err = file_open(loop, path, FILE_READ_ONLY, &file);
	if (err != OK)
		return err;
	if (file->inode->size > size_max)
		err = ERR_TOO_LARGE;
	size_t done = 0;
	if (err == OK) {
		buf_reserve(out, (size_t)file->inode->size);
		err = file_read(file, 0, out->bytes, (size_t)file->inode->size, &done);
	}
	out->size = err == OK ? done : 0;
	file_unref(file);
	return err;
}
