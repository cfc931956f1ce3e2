#include "tools/granary/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"

/* Fills the buffer or reaches the end; -1 with errno. */
static ssize_t read_full(int descriptor, uint8_t *bytes, size_t size)
{
	size_t have = 0;
	while (have < size) {
		ssize_t got = read(descriptor, bytes + have, size - have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		have += (size_t)got;
	}
	return (ssize_t)have;
}

static bool write_full(int descriptor, const uint8_t *bytes, size_t size)
{
	while (size > 0) {
		ssize_t put = write(descriptor, bytes, size);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return false;
		bytes += put;
		size -= (size_t)put;
	}
	return true;
}

granary_status transfer_open(struct cli *cli, const char *path_or_id, struct granary_file **out)
{
	uint64_t id;
	if (cli_parse_id(path_or_id, &id))
		return granary_open_id(cli->cluster, id, out);
	return granary_open(cli->cluster, path_or_id, O_RDONLY, 0, out);
}

/* Gives the file its name, below the target when that is a directory. */
static granary_status publish(struct granary_file *file, struct target *target)
{
	struct granary_publish publish = {
	    .path = target->path, .if_absent = target->if_absent, .if_change = target->if_change};
	granary_status status = granary_publish(file, &publish);
	if (status == ERR_IS_DIRECTORY && target->name_if_directory) {
		char *path = path_join(target->path, target->name_if_directory);
		publish.path = path;
		status = granary_publish(file, &publish);
		free(path);
	}
	target->id = publish.id;
	return status;
}

/* All of it is in memory. */
static granary_status put_whole(struct cli *cli, const uint8_t *bytes, size_t size, struct target *target)
{
	if (!target->path)
		return granary_put_id(cli->cluster, bytes, size, &target->id);
	granary_status status = granary_put(cli->cluster, target->path, bytes, size, target->mode);
	if (status == ERR_IS_DIRECTORY && target->name_if_directory) {
		char *path = path_join(target->path, target->name_if_directory);
		status = granary_put(cli->cluster, path, bytes, size, target->mode);
		free(path);
	}
	return status;
}

/* Where the bytes of a new file come from: *got is less than size only at the end. An exit status. */
struct source {
	struct cli *cli;
	const char *what;
	int descriptor;
	struct granary_file *file; /* NULL: the descriptor */
	uint64_t offset;
};

static int source_read(struct source *source, uint8_t *bytes, size_t size, size_t *got)
{
	if (source->file) {
		granary_status status = granary_pread(source->file, bytes, size, source->offset, got);
		source->offset += *got;
		return status ? cli_error(source->cli, source->what, status) : EXIT_DONE;
	}
	ssize_t have = read_full(source->descriptor, bytes, size);
	*got = have < 0 ? 0 : (size_t)have;
	return have < 0 ? cli_error_errno(source->cli, source->what, errno) : EXIT_DONE;
}

/* bytes holds the first `size` bytes, which filled it: the rest follows in pieces. */
static int put_stream(struct source *source, uint8_t *bytes, size_t size, struct target *target,
		      struct progress *progress)
{
	struct cli *cli = source->cli;
	struct granary_file *file;
	granary_status status = granary_open_unnamed(cli->cluster, target->path, target->mode, &file);
	if (status)
		return cli_error(cli, source->what, status);
	int result = EXIT_DONE;
	for (uint64_t offset = 0; size > 0;) {
		status = granary_pwrite(file, bytes, size, offset);
		if (status)
			break;
		offset += size;
		progress_add(progress, size);
		if (size < TRANSFER_BYTES)
			break;
		result = source_read(source, bytes, TRANSFER_BYTES, &size);
		if (result != EXIT_DONE)
			break;
	}
	if (!status && result == EXIT_DONE)
		status = granary_fsync(file);
	if (!status && result == EXIT_DONE)
		status = publish(file, target);
	if (status)
		result = cli_error(cli, source->what, status);
	granary_status closed = granary_file_close(file);
	if (closed && result == EXIT_DONE)
		result = cli_error(cli, source->what, closed);
	return result;
}

static int put_from(struct source *source, struct target *target, struct progress *progress)
{
	uint8_t *bytes = mem_alloc(TRANSFER_BYTES);
	size_t size;
	int result = source_read(source, bytes, TRANSFER_BYTES, &size);
	if (result == EXIT_DONE && size <= BLOB_BYTES_MAX && !target->if_absent && !target->if_change) {
		granary_status status = put_whole(source->cli, bytes, size, target);
		progress_add(progress, size);
		if (status)
			result = cli_error(source->cli, source->what, status);
	} else if (result == EXIT_DONE) {
		result = put_stream(source, bytes, size, target, progress);
	}
	free(bytes);
	return result;
}

int transfer_put(struct cli *cli, const char *what, int descriptor, struct target *target, struct progress *progress)
{
	struct source source = {.cli = cli, .what = what, .descriptor = descriptor};
	return put_from(&source, target, progress);
}

int transfer_copy(struct cli *cli, const char *from, struct target *target, struct progress *progress)
{
	struct source source = {.cli = cli, .what = from};
	granary_status status = transfer_open(cli, from, &source.file);
	if (status)
		return cli_error(cli, from, status);
	int result = put_from(&source, target, progress);
	status = granary_file_close(source.file);
	return status && result == EXIT_DONE ? cli_error(cli, from, status) : result;
}

int transfer_get(struct cli *cli, const char *what, struct granary_file *file, uint64_t first, uint64_t end,
		 int descriptor, struct progress *progress)
{
	uint8_t *bytes = mem_alloc(TRANSFER_BYTES);
	int result = EXIT_DONE;
	while (first < end) {
		size_t wanted = end - first < TRANSFER_BYTES ? (size_t)(end - first) : TRANSFER_BYTES, got = 0;
		granary_status status = granary_pread(file, bytes, wanted, first, &got);
		if (status) {
			result = cli_error(cli, what, status);
			break;
		}
		if (!write_full(descriptor, bytes, got)) {
			result = cli_error_errno(cli, what, errno);
			break;
		}
		first += got;
		progress_add(progress, got);
		if (got < wanted)
			break;
	}
	free(bytes);
	return result;
}
