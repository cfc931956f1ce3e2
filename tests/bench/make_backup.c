/* make_backup FILE COUNT: a backup of a cluster with so many empty files, 1000 in each directory, without a cluster that has them:
 * `granary admin restore` then makes one in a minute. For measuring snapshots and restarts of masters that know millions of files. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/data/pairs.h"
#include "common/proto/message.h"
#include "common/proto/mode.h"
#include "tools/granary/backup_file.h"

#define FILES_PER_DIRECTORY 1000u
#define ROOT 1u
#define DIRECTORY_FIRST 1000u
#define FILE_FIRST 1000000000u
#define TIME_NS 1700000000000000000ll
#define TYPE_DIRECTORY 4u
#define TYPE_FILE 8u

static void add(struct backup_file *backup, struct buf *pairs, struct slice key, const ProtobufCMessage *value)
{
	struct buf packed = { 0 };

	message_pack(value, &packed);
	pairs_add(pairs, key, buf_slice(&packed));
	buf_deinit(&packed);
	if (pairs->size < SNAPSHOT_PAGE_BYTES)
		return;
	check(backup_write_page(backup, buf_slice(pairs)) == OK);
	buf_clear(pairs);
}

static struct slice key_of(uint8_t *out, char table, uint64_t id, const char *name)
{
	size_t size = strlen(name);

	out[0] = (uint8_t)table;
	put_be64(out + 1, id);
	memcpy(out + 9, name, size);
	return slice_of(out, 9 + size);
}

static void add_name(struct backup_file *backup, struct buf *pairs, uint64_t parent, const char *name, uint64_t id, uint32_t type)
{
	Granary__Dirent dirent = GRANARY__DIRENT__INIT;
	uint8_t key[64];

	dirent.inode = id;
	dirent.type = type;
	add(backup, pairs, key_of(key, 'D', parent, name), &dirent.base);
}

static void add_inode(struct backup_file *backup, struct buf *pairs, uint64_t id, bool directory, uint64_t entries, uint32_t nlink)
{
	Granary__Inode inode = GRANARY__INODE__INIT;
	uint8_t key[64];

	inode.mode = directory ? MODE_DIRECTORY | 0777u : MODE_FILE | 0644u;
	inode.nlink = nlink;
	inode.size = directory ? DIRECTORY_BYTES : 0;
	inode.atime = inode.mtime = inode.ctime = inode.btime = TIME_NS;
	inode.change = inode.data_change = (uint64_t)TIME_NS;
	inode.entries = entries;
	inode.parent = directory ? ROOT : 0;
	inode.uid = inode.gid = 1000;
	add(backup, pairs, key_of(key, 'I', id, ""), &inode.base);
}

static void add_all(struct backup_file *backup, struct buf *pairs, uint64_t count)
{
	uint64_t directories = (count + FILES_PER_DIRECTORY - 1) / FILES_PER_DIRECTORY;
	Granary__MetaState state = GRANARY__META_STATE__INIT;
	char name[32];

	for (uint64_t i = 0; i < directories; i++) {
		snprintf(name, sizeof(name), "d%08" PRIu64, i);
		add_name(backup, pairs, ROOT, name, DIRECTORY_FIRST + i, TYPE_DIRECTORY);
	}
	for (uint64_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "file-%08" PRIu64 ".data", i);
		add_name(backup, pairs, DIRECTORY_FIRST + i / FILES_PER_DIRECTORY, name, FILE_FIRST + i, TYPE_FILE);
	}
	add_inode(backup, pairs, ROOT, true, directories, 2 + (uint32_t)directories);
	for (uint64_t i = 0; i < directories; i++) {
		uint64_t left = count - i * FILES_PER_DIRECTORY;
		add_inode(backup, pairs, DIRECTORY_FIRST + i, true, left < FILES_PER_DIRECTORY ? left : FILES_PER_DIRECTORY, 2);
	}
	for (uint64_t i = 0; i < count; i++)
		add_inode(backup, pairs, FILE_FIRST + i, false, 0, 1);
	state.cluster = 4711;
	state.time_ns = (uint64_t)TIME_NS;
	state.inodes = 1 + directories + count;
	add(backup, pairs, slice_text("Mstate"), &state.base);
}

int main(int argc, char **argv)
{
	struct backup_file backup = { 0 };
	struct backup_header header = { .cluster = 4711, .index = 1, .term = 1 };
	struct buf pairs = { 0 };

	if (argc != 3) {
		fprintf(stderr, "usage: make_backup FILE COUNT\n");
		return 2;
	}
	backup.file = fopen(argv[1], "w");
	check(backup.file && backup_write_header(&backup, &header) == OK);
	add_all(&backup, &pairs, strtoull(argv[2], NULL, 10));
	check(backup_write_page(&backup, buf_slice(&pairs)) == OK && backup_write_trailer(&backup) == OK && fflush(backup.file) == 0);
	printf("%" PRIu64 " pairs\n", backup.trailer.pairs);
	backup_deinit(&backup);
	buf_deinit(&pairs);
	return 0;
}
