/* admin backup and restore: the whole metadata of a cluster to a file, and from there into a new, empty cluster. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "tools/granary/admin_call.h"
#include "tools/granary/backup_file.h"
#include "tools/granary/commands.h"
#include "tools/granary/progress.h"

#define STEP_BEGIN 1u
#define STEP_PAIRS 2u
#define STEP_END 3u

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- backup */

static enum err open_snapshot(struct admin *admin, Granary__SnapshotInfo **info)
{
	Granary__SnapshotOpen open = GRANARY__SNAPSHOT_OPEN__INIT;
	open.backup = true;
	return admin_call(admin, MESSAGE_SNAPSHOT_OPEN, &open.base, (ProtobufCMessage **)info);
}

/* The next page into the file; *last: that was all, and it was right. */
static int copy_page(struct admin *admin, struct backup_file *backup, uint64_t id, const char *name,
		     struct progress *progress, bool *last)
{
	Granary__SnapshotRead read = GRANARY__SNAPSHOT_READ__INIT;
	Granary__SnapshotPage *page = NULL;
	read.id = id;
	read.page = backup->trailer.pages;
	enum err err = admin_call(admin, MESSAGE_SNAPSHOT_READ, &read.base, (ProtobufCMessage **)&page);
	if (err == ERR_NOT_FOUND)
		return cli_error_text(admin->cli, name, "the leading master has changed meanwhile: run it again");
	if (err)
		return admin_error(admin, name, err);
	uint64_t before = backup->trailer.pairs;
	if (crc32c(page->pairs.data, page->pairs.len) != page->crc)
		err = ERR_CORRUPT;
	if (err == OK)
		err = backup_write_page(backup, message_bytes(page->pairs));
	*last = page->last;
	if (err == OK && page->last && (page->count != backup->trailer.pairs || page->digest != backup->trailer.digest))
		err = ERR_CORRUPT;
	progress_add(progress, backup->trailer.pairs - before);
	message_free(&page->base);
	return err ? cli_error_text(admin->cli, name, err_text(err)) : EXIT_DONE;
}

static int copy_snapshot(struct admin *admin, struct backup_file *backup, const char *name)
{
	Granary__SnapshotInfo *info = NULL;
	Granary__SnapshotClose close = GRANARY__SNAPSHOT_CLOSE__INIT;
	ProtobufCMessage *none = NULL;
	enum err err = open_snapshot(admin, &info);
	if (err)
		return admin_error(admin, name, err);
	struct backup_header header = {
	    .cluster = info->cluster, .index = info->index, .term = info->term, .time_ms = now_ms()};
	struct progress *progress = progress_open("backup", false);
	progress_expect(progress, info->pairs_expected);
	err = backup_write_header(backup, &header);
	int result = err ? cli_error_text(admin->cli, name, err_text(err)) : EXIT_DONE;
	for (bool last = false; result == EXIT_DONE && !last;)
		result = copy_page(admin, backup, info->id, name, progress, &last);
	progress_close(progress);
	close.id = info->id;
	if (result == EXIT_DONE && admin_call(admin, MESSAGE_SNAPSHOT_CLOSE, &close.base, &none) == OK)
		message_free(none);
	message_free(&info->base);
	if (result == EXIT_DONE) {
		err = backup_write_trailer(backup);
		result = err ? cli_error_text(admin->cli, name, err_text(err)) : EXIT_DONE;
	}
	return result;
}

/* On disk under its name, or an error. */
static int settle(struct cli *cli, struct backup_file *backup, const char *temporary, const char *name)
{
	char *parent = path_parent(name);
	int result = EXIT_DONE;
	if (fflush(backup->file) != 0 || fsync(fileno(backup->file)) != 0 || rename(temporary, name) != 0)
		result = cli_error_errno(cli, name, errno);
	int directory = strchr(name, '/') ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) :
					    open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (result == EXIT_DONE && (directory < 0 || fsync(directory) != 0))
		result = cli_error_errno(cli, name, errno);
	if (directory >= 0)
		close(directory);
	free(parent);
	return result;
}

int cmd_admin_backup(struct cli *cli, int argc, char **argv)
{
	const struct cli_option options[] = {{0}};
	struct admin admin = {0};
	struct backup_file backup = {0};
	struct buf temporary = {0};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (path_is_special(argv[0]))
		return cli_usage_error(cli, argv[0], "no file");
	buf_printf(&temporary, "%s.tmp%c", argv[0], 0);
	const char *path = (const char *)temporary.bytes;
	result = admin_open(cli, &admin);
	if (result == EXIT_DONE) {
		int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		backup.file = descriptor < 0 ? NULL : fdopen(descriptor, "w");
		if (!backup.file)
			result = cli_error_errno(cli, path, errno);
	}
	if (result == EXIT_DONE)
		result = copy_snapshot(&admin, &backup, argv[0]);
	if (result == EXIT_DONE)
		result = settle(cli, &backup, path, argv[0]);
	if (result == EXIT_DONE)
		printf("%" PRIu64 " pairs as of entry %" PRIu64 " of cluster %016" PRIx64 " in %s\n", backup.trailer.pairs,
		       backup.header.index, backup.header.cluster, argv[0]);
	else if (backup.file)
		unlink(path);
	backup_deinit(&backup);
	admin_close(&admin);
	buf_deinit(&temporary);
	return result;
}

/* ---- restore */

/* Reads all of it: nothing of a damaged file is to get into a cluster. */
static int verify(struct cli *cli, const char *name, struct backup_file *backup)
{
	struct buf pairs = {0};
	enum err err = backup_read_header(backup);
	do {
		if (err == OK)
			err = backup_read_page(backup, &pairs);
	} while (err == OK && pairs.size > 0);
	buf_deinit(&pairs);
	if (err == ERR_CORRUPT)
		return cli_error_text(cli, name, "not a backup, or damaged");
	return err ? cli_error_text(cli, name, err_text(err)) : EXIT_DONE;
}

static enum err send_step(struct admin *admin, unsigned step, uint64_t id, struct slice pairs)
{
	Granary__Restore message = GRANARY__RESTORE__INIT;
	ProtobufCMessage *reply = NULL;
	message.step = step;
	message.id = id;
	message.pairs = message_borrow(pairs);
	enum err err = admin_call(admin, MESSAGE_RESTORE, &message.base, &reply);
	message_free(reply);
	return err;
}

static int send_all(struct admin *admin, const char *name, struct backup_file *backup, uint64_t pairs_expected)
{
	struct buf pairs = {0};
	uint64_t id = 0;
	check(getrandom(&id, sizeof id, 0) == sizeof id);
	id |= 1;
	struct progress *progress = progress_open("restore", false);
	progress_expect(progress, pairs_expected);
	enum err err = send_step(admin, STEP_BEGIN, id, (struct slice){0});
	if (err == OK)
		err = backup_read_header(backup);
	while (err == OK) {
		uint64_t before = backup->trailer.pairs;
		err = backup_read_page(backup, &pairs);
		if (err || pairs.size == 0)
			break;
		err = send_step(admin, STEP_PAIRS, id, buf_slice(&pairs));
		progress_add(progress, backup->trailer.pairs - before);
	}
	if (err == OK)
		err = send_step(admin, STEP_END, id, (struct slice){0});
	progress_close(progress);
	buf_deinit(&pairs);
	if (err == ERR_NOT_EMPTY)
		return cli_error_text(admin->cli, name, "the cluster is not empty: restore into a new one");
	if (err == ERR_CANCELLED)
		return cli_error_text(admin->cli, name, "another restore has begun meanwhile");
	return err ? admin_error(admin, name, err) : EXIT_DONE;
}

int cmd_admin_restore(struct cli *cli, int argc, char **argv)
{
	const struct cli_option options[] = {{0}};
	struct admin admin = {0};
	struct backup_file backup = {0}, again = {0};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	backup.file = fopen(argv[0], "re");
	again.file = fopen(argv[0], "re");
	if (!backup.file || !again.file)
		result = errno == ENOENT ? cli_worst(cli_error_errno(cli, argv[0], errno), EXIT_NOT_FOUND) :
					   cli_error_errno(cli, argv[0], errno);
	if (result == EXIT_DONE)
		result = verify(cli, argv[0], &backup);
	if (result == EXIT_DONE)
		result = admin_open(cli, &admin);
	if (result == EXIT_DONE)
		result = send_all(&admin, argv[0], &again, backup.trailer.pairs);
	if (result == EXIT_DONE)
		printf("%" PRIu64 " pairs of cluster %016" PRIx64 " restored\n", again.trailer.pairs, again.header.cluster);
	backup_deinit(&backup);
	backup_deinit(&again);
	admin_close(&admin);
	return result;
}
