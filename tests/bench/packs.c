/* packs PROFILE COMPRESSION < NAMES: what becomes of small files, named one a line, when the packs that they are put into become cold: with
 * dictionaries, where these pay (common/data/coded_dictionary.h), and without. The table in common/README.md. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/data/coded_image.h"

struct sums {
	uint64_t raw, alone, with; /* bytes; with: and of the dictionaries of all data shards */
	uint64_t dictionaries, packs, used;
	double seconds_alone, seconds_with, seconds_first;
};

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Its size; 0: it is nothing for a pack. */
static size_t read_file(const char *name, uint8_t *out)
{
	FILE *file = fopen(name, "rb");
	if (file == NULL)
		return 0;
	size_t size = fread(out, 1, BLOB_BYTES_MAX + 1, file);
	fclose(file);
	return size <= BLOB_BYTES_MAX ? size : 0;
}

static void finish(struct coded_image *image, struct sums *sums)
{
	double begin = now();
	if (!coded_image_compress(image)) {
		sums->seconds_first = now() - begin > sums->seconds_first ? now() - begin : sums->seconds_first;
		while (!coded_image_compress(image))
			continue;
	}
	sums->seconds_with += now() - begin;
	coded_image_finish(image);
	const struct coded_index *index = coded_image_index(image);
	for (size_t i = 0; i < index->count; i++)
		sums->with += index->units[i].size;
	sums->with += index->dictionary_bytes.size * index->data_shards;
	sums->dictionaries += index->dictionary_bytes.size;
	sums->used += index->dictionary_bytes.size > 0;
	sums->packs++;
}

int main(int argc, char **argv)
{
	struct coded_options options = { .pack = true };
	if (argc != 3 || sscanf(argv[1], "%u+%u", &options.data_shards, &options.parity_shards) != 2 ||
	    !compression_parse(argv[2], &options.compression)) {
		fprintf(stderr, "packs K+M off|fast|high|auto < NAMES\n");
		return 2;
	}
	struct compressor *compressor = compressor_open(options.compression);
	struct coded_image *image = NULL;
	struct sums sums = { 0 };
	uint8_t *bytes = mem_alloc(BLOB_BYTES_MAX + 1), *out = mem_alloc(BLOB_BYTES_MAX + 1);
	uint64_t filled = 0;
	uint32_t slot = 0;
	char name[4096];
	while (fgets(name, sizeof(name), stdin) != NULL) {
		name[strcspn(name, "\n")] = 0;
		size_t size = read_file(name, bytes);
		if (size == 0)
			continue;
		if (image == NULL)
			image = coded_image_open(&options);
		coded_image_add_record(image, ++slot, slice_of(bytes, size), crc32c(bytes, size));
		double begin = now();
		size_t stored = compressor_run(compressor, slice_of(bytes, size), out);
		sums.seconds_alone += now() - begin;
		sums.alone += CODED_RECORD_BYTES + (stored != 0 ? stored : size);
		sums.raw += size;
		filled += size;
		if (filled < PACK_BYTES_MAX)
			continue;
		finish(image, &sums);
		coded_image_close(image);
		image = NULL;
		filled = slot = 0;
	}
	if (image != NULL)
		finish(image, &sums);
	coded_image_close(image);
	compressor_close(compressor);
	printf("%" PRIu64 " of %" PRIu64 " packs with a dictionary; %.1f MiB, stored alone %.2f, with %.2f: %.1f%% less; dictionaries %" PRIu64
	       " KiB a shard; alone %.2f s, with %.2f s, longest first step %.0f ms\n",
	       sums.used, sums.packs, (double)sums.raw / MIB, (double)sums.alone / MIB, (double)sums.with / MIB,
	       100 - 100 * (double)sums.with / (double)sums.alone, sums.used == 0 ? 0 : sums.dictionaries / sums.used / KIB, sums.seconds_alone,
	       sums.seconds_with, sums.seconds_first * 1e3);
	free(bytes);
	free(out);
	return 0;
}
