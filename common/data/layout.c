#include "common/data/layout.h"

#include "common/base/check.h"

uint64_t layout_chunk_index(uint64_t file_offset)
{
	return file_offset / CHUNK_BYTES;
}

uint32_t layout_chunk_offset(uint64_t file_offset)
{
	return (uint32_t)(file_offset % CHUNK_BYTES);
}

uint64_t layout_chunk_count(uint64_t file_size)
{
	return file_size == 0 ? 0 : layout_chunk_index(file_size - 1) + 1;
}

bool layout_next(struct layout_range *range, uint32_t size_max, bool aligned, struct layout_piece *out)
{
	check(size_max > 0 && size_max <= CHUNK_BYTES);
	check(!aligned || (size_max & (size_max - 1)) == 0);
	check(range->size <= UINT64_MAX - range->offset);
	if (range->size == 0)
		return false;
	uint64_t index = layout_chunk_index(range->offset);
	check(index <= UINT32_MAX);
	uint32_t offset = layout_chunk_offset(range->offset);
	uint32_t size = CHUNK_BYTES - offset;
	uint32_t most = aligned ? size_max - offset % size_max : size_max;
	if (size > most)
		size = most;
	if (size > range->size)
		size = (uint32_t)range->size;
	*out = (struct layout_piece){ .file_offset = range->offset, .chunk_index = (uint32_t)index, .offset = offset,
				      .size = size };
	range->offset += size;
	range->size -= size;
	return true;
}

struct layout_blocks layout_blocks(uint32_t offset, uint32_t size)
{
	check(size > 0 && offset <= CHUNK_BYTES && size <= CHUNK_BYTES - offset);
	uint32_t end = offset + size;
	struct layout_blocks blocks = { .first = offset / BLOCK_BYTES };
	uint32_t last = (end - 1) / BLOCK_BYTES;
	blocks.count = last - blocks.first + 1;
	bool starts_inside = offset % BLOCK_BYTES != 0;
	bool ends_inside = end % BLOCK_BYTES != 0;
	blocks.first_partial = starts_inside || (blocks.count == 1 && ends_inside);
	blocks.last_partial = ends_inside || (blocks.count == 1 && starts_inside);
	return blocks;
}

uint32_t layout_block_part(uint32_t offset, uint32_t size, uint32_t index, uint32_t *offset_in_block)
{
	struct layout_blocks blocks = layout_blocks(offset, size);
	check(index < blocks.count);
	uint32_t start = (blocks.first + index) * BLOCK_BYTES;
	uint32_t end = start + BLOCK_BYTES;
	uint32_t from = index == 0 ? offset : start;
	uint32_t to = index == blocks.count - 1 ? offset + size : end;
	*offset_in_block = from - start;
	return to - from;
}

uint64_t layout_block_down(uint64_t offset)
{
	return offset - offset % BLOCK_BYTES;
}

uint64_t layout_block_up(uint64_t offset)
{
	check(offset <= UINT64_MAX - (BLOCK_BYTES - 1));
	return layout_block_down(offset + BLOCK_BYTES - 1);
}
