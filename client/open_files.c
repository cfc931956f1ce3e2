#include "client/open_files.h"

#include <stdlib.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"

struct open_file {
	uint64_t inode;
	unsigned count;
	bool changed; /* since it was last told */
	bool telling; /* in the message under way */
	UT_hash_handle hh;
};

void open_files_deinit(struct open_files *files)
{
	struct open_file *file, *next;
	HASH_ITER(hh, files->table, file, next)
	{
		HASH_DEL(files->table, file);
		free(file);
	}
	*files = (struct open_files){0};
}

static struct open_file *find(struct open_files *files, uint64_t inode)
{
	struct open_file *file;
	HASH_FIND(hh, files->table, &inode, sizeof inode, file);
	return file;
}

static void mark(struct open_files *files, struct open_file *file)
{
	if (!file->changed) {
		file->changed = true;
		files->changed++;
	}
}

void open_files_opened(struct open_files *files, uint64_t inode)
{
	struct open_file *file = find(files, inode);
	if (!file) {
		file = mem_zero(1, sizeof *file);
		file->inode = inode;
		HASH_ADD(hh, files->table, inode, sizeof file->inode, file);
	}
	if (file->count++ == 0)
		mark(files, file);
}

void open_files_closed(struct open_files *files, uint64_t inode)
{
	struct open_file *file = find(files, inode);
	check(file && file->count > 0);
	if (--file->count == 0)
		mark(files, file);
}

bool open_files_is_open(struct open_files *files, uint64_t inode)
{
	const struct open_file *file = find(files, inode);
	return file && file->count > 0;
}

void open_files_tell(struct open_files *files, bool full, Granary__SessionKeepalive *message)
{
	size_t room = HASH_COUNT(files->table);
	size_t most = full ? SESSION_OPEN_FILES_MAX : CLIENT_CLOSED_PER_MESSAGE_MAX;
	room = room < most ? room : most;
	message->opened = mem_alloc((room + 1) * sizeof *message->opened);
	message->closed = mem_alloc((room + 1) * sizeof *message->closed);
	message->n_opened = message->n_closed = 0;
	struct open_file *file, *next;
	HASH_ITER(hh, files->table, file, next)
	{
		if (file->count > 0 && (full || file->changed) && message->n_opened < room)
			message->opened[message->n_opened++] = file->inode;
		else if (file->count == 0 && file->changed && (full || message->n_closed < room)) {
			if (!full) /* a full list says by itself what is closed */
				message->closed[message->n_closed++] = file->inode;
		} else
			continue;
		file->telling = true;
		if (file->changed) {
			file->changed = false;
			files->changed--;
		}
	}
}

void open_files_told(struct open_files *files, bool ok)
{
	struct open_file *file, *next;
	HASH_ITER(hh, files->table, file, next)
	{
		if (!file->telling)
			continue;
		file->telling = false;
		if (!ok) {
			mark(files, file);
		} else if (file->count == 0 && !file->changed) {
			HASH_DEL(files->table, file);
			free(file);
		}
	}
}

void open_files_free(Granary__SessionKeepalive *message)
{
	free(message->opened);
	free(message->closed);
	message->opened = message->closed = NULL;
	message->n_opened = message->n_closed = 0;
}
