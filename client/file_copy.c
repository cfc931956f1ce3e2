#include <stdlib.h>

#include "client/file_io_internal.h"
#include "common/base/check.h"
#include "common/base/limits.h"

/* Pieces end where windows of the target do, so that what is read whole is sent as it is. They are read ahead, and written in
 * the order of the file:
 *
 *   first ............ next          piece i is pieces[i % PIECES_MAX]
 *   WRITING  READ  READING  READING                                      */
#define PIECES_MAX CLIENT_READS_PER_OP_MAX

enum piece_state { PIECE_FREE, PIECE_READING, PIECE_READ, PIECE_WRITING };

struct copy;
struct copy_piece {
	struct copy *copy;
	enum piece_state state;
	uint64_t at; /* from the beginning of the copy */
	uint32_t wanted, size;
	struct file_part parts[READ_PARTS_MAX];
	size_t part_count;
	enum err err;
};

struct copy {
	struct file_io *from, *to;
	uint64_t from_offset, to_offset, size;
	uint64_t asked;	 /* bytes that are being read or have been */
	uint64_t copied; /* accepted by `to`, in order */
	struct copy_piece pieces[PIECES_MAX];
	uint64_t first, write_next, next; /* numbers of pieces: the oldest one, the next to be written, the next to be read */
	bool ending;			  /* no further piece is read or written */
	enum err err;
	file_io_copy_fn *done;
	void *arg;
};

static void copy_advance(struct copy *copy);

static void piece_clear(struct copy_piece *piece)
{
	for (size_t i = 0; i < piece->part_count; i++)
		iobuf_unref(piece->parts[i].iobuf);
	piece->part_count = 0;
}

static void piece_read(void *arg, enum err err, const struct file_part *parts, size_t count)
{
	struct copy_piece *piece = arg;
	check(count <= READ_PARTS_MAX);
	piece->state = PIECE_READ;
	piece->err = err;
	for (size_t i = 0; i < count; i++) {
		piece->parts[i] = parts[i];
		if (parts[i].iobuf)
			iobuf_ref(parts[i].iobuf);
		piece->size += (uint32_t)parts[i].bytes.size;
	}
	piece->part_count = count;
	copy_advance(piece->copy);
}

static void piece_written(void *arg, enum err err)
{
	struct copy_piece *piece = arg;
	piece->state = PIECE_FREE;
	piece->err = err;
	copy_advance(piece->copy);
}

static void read_more(struct copy *copy)
{
	while (!copy->ending && copy->asked < copy->size && copy->next - copy->first < PIECES_MAX) {
		struct copy_piece *piece = &copy->pieces[copy->next++ % PIECES_MAX];
		uint64_t room = WINDOW_BYTES - (copy->to_offset + copy->asked) % WINDOW_BYTES;
		uint64_t left = copy->size - copy->asked;
		*piece = (struct copy_piece){.copy = copy, .state = PIECE_READING, .at = copy->asked};
		piece->wanted = (uint32_t)(room < left ? room : left);
		copy->asked += piece->wanted;
		file_io_read_parts(copy->from, copy->from_offset + piece->at, piece->wanted, piece_read, piece);
	}
}

static void write_more(struct copy *copy)
{
	while (!copy->ending && copy->write_next < copy->next) {
		struct copy_piece *piece = &copy->pieces[copy->write_next % PIECES_MAX];
		if (piece->state != PIECE_READ)
			return;
		copy->err = piece->err;
		copy->ending = piece->err || piece->size < piece->wanted;
		if (piece->size == 0)
			return;
		copy->write_next++;
		piece->state = PIECE_WRITING;
		file_io_write_parts(copy->to, copy->to_offset + piece->at, piece->parts, piece->part_count, piece_written, piece);
		piece_clear(piece);
	}
}

/* Takes away what has ended at the front. */
static void settle(struct copy *copy)
{
	while (copy->first < copy->next) {
		struct copy_piece *piece = &copy->pieces[copy->first % PIECES_MAX];
		bool unwritten = copy->ending && copy->first >= copy->write_next && piece->state == PIECE_READ;
		if (piece->state != PIECE_FREE && !unwritten)
			return;
		if (!unwritten && piece->err && !copy->err)
			copy->err = piece->err;
		copy->ending |= copy->err != OK;
		if (!unwritten && !piece->err && copy->copied == piece->at)
			copy->copied += piece->size;
		piece_clear(piece);
		copy->first++;
	}
}

static void copy_advance(struct copy *copy)
{
	uint64_t before;
	do {
		before = copy->first + copy->write_next + copy->next;
		write_more(copy);
		settle(copy);
		read_more(copy);
	} while (before != copy->first + copy->write_next + copy->next);
	if (copy->first < copy->next)
		return;
	copy->done(copy->arg, copy->copied > 0 ? OK : copy->err, copy->copied);
	file_io_release(copy->from);
	file_io_release(copy->to);
	free(copy);
}

void file_io_copy(struct file_io *from, uint64_t from_offset, struct file_io *to, uint64_t to_offset, uint64_t size,
		  file_io_copy_fn *done, void *arg)
{
	check(size > 0 && size <= FILE_BYTES_MAX);
	struct copy *copy = mem_zero(1, sizeof *copy);
	copy->from = from;
	copy->to = to;
	copy->from_offset = from_offset;
	copy->to_offset = to_offset;
	copy->size = size;
	copy->done = done;
	copy->arg = arg;
	file_io_hold(from);
	file_io_hold(to);
	copy_advance(copy);
}
