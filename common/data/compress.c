#include "common/data/compress.h"

#include <stdlib.h>
#include <string.h>

#include <zdict.h>
#include <zstd.h>

#include "common/base/bytes.h"
#include "common/base/check.h"

/* AUTO: after so many pieces in a row that did not pay only a sample of each is compressed, until one pays again. The sample is taken
 * from another place of each piece, so that pieces which only begin badly are found out, too. */
#define MISSES_MAX 4u
#define SAMPLE_BYTES 4096u
#define SAMPLE_LEVEL 1

static const char *const names[COMPRESSIONS] = { "auto", "off", "fast", "high", "auto" };
/* 0: not at all. */
static const int levels[COMPRESSIONS] = { 3, 0, 1, 9, 3 };

struct compressor {
	ZSTD_CCtx *context;
	ZSTD_CDict *dictionary; /* NULL: none */
	int level;
	bool sampling; /* AUTO */
	unsigned misses;
	uint8_t sample[SAMPLE_BYTES];
};

struct decompressor {
	ZSTD_DCtx *context;
};

struct dictionary {
	ZSTD_DDict *prepared;
};

const char *compression_name(enum compression compression)
{
	return (unsigned)compression < COMPRESSIONS ? names[compression] : "?";
}

bool compression_parse(const char *name, enum compression *out)
{
	for (unsigned i = COMPRESSION_OFF; i < COMPRESSIONS; i++) {
		if (strcmp(name, names[i]) == 0) {
			*out = (enum compression)i;
			return true;
		}
	}
	return false;
}

struct compressor *compressor_open(enum compression compression)
{
	struct compressor *compressor = mem_zero(1, sizeof(*compressor));
	check((unsigned)compression < COMPRESSIONS);
	compressor->level = levels[compression];
	compressor->sampling = compression == COMPRESSION_AUTO || compression == COMPRESSION_DEFAULT;
	if (compressor->level != 0) {
		compressor->context = ZSTD_createCCtx();
		check(compressor->context != NULL);
	}
	return compressor;
}

void compressor_close(struct compressor *compressor)
{
	if (compressor == NULL)
		return;
	ZSTD_freeCCtx(compressor->context);
	ZSTD_freeCDict(compressor->dictionary);
	free(compressor);
}

void compressor_use(struct compressor *compressor, struct slice dictionary)
{
	check(compressor->level != 0);
	ZSTD_freeCDict(compressor->dictionary);
	compressor->dictionary = ZSTD_createCDict(dictionary.bytes, dictionary.size, compressor->level);
	check(compressor->dictionary != NULL);
	/* Which one it was is known, and four bytes of each small piece are many. */
	check(!ZSTD_isError(ZSTD_CCtx_setParameter(compressor->context, ZSTD_c_dictIDFlag, 0)));
	check(!ZSTD_isError(ZSTD_CCtx_refCDict(compressor->context, compressor->dictionary)));
}

/* 0: it does not pay. A dictionary is prepared for one level. */
static size_t compress(struct compressor *compressor, int level, struct slice in, uint8_t *out)
{
	size_t size;
	if (compressor->dictionary != NULL)
		size = ZSTD_compress2(compressor->context, out, in.size, in.bytes, in.size);
	else
		size = ZSTD_compressCCtx(compressor->context, out, in.size, in.bytes, in.size, level);
	return !ZSTD_isError(size) && size <= in.size - (in.size + 15) / 16 ? size : 0;
}

static bool sample_pays(struct compressor *compressor, struct slice in)
{
	size_t size = in.size < SAMPLE_BYTES ? in.size : SAMPLE_BYTES;
	size_t places = in.size / SAMPLE_BYTES;
	size_t place = places > 1 ? compressor->misses % places * SAMPLE_BYTES : 0;
	return compress(compressor, SAMPLE_LEVEL, slice_of(in.bytes + place, size), compressor->sample) != 0;
}

size_t compressor_run(struct compressor *compressor, struct slice in, uint8_t *out)
{
	size_t size = 0;
	if (compressor->level == 0 || in.size == 0)
		return 0;
	if (!compressor->sampling || compressor->misses < MISSES_MAX || sample_pays(compressor, in))
		size = compress(compressor, compressor->level, in, out);
	if (size != 0)
		compressor->misses = 0;
	else
		compressor->misses++;
	return size;
}

size_t dictionary_train(const struct dictionary_samples *samples, uint8_t *out, size_t bytes_max)
{
	size_t size = ZDICT_trainFromBuffer(out, bytes_max, samples->bytes, samples->sizes, samples->count);
	return ZDICT_isError(size) ? 0 : size;
}

struct dictionary *dictionary_open(struct slice bytes)
{
	/* Other bytes than zstd's format would be taken as they are. */
	if (bytes.size < 8 || get_le32(bytes.bytes) != ZSTD_MAGIC_DICTIONARY)
		return NULL;
	ZSTD_DDict *prepared = ZSTD_createDDict(bytes.bytes, bytes.size);
	if (prepared == NULL)
		return NULL;
	struct dictionary *dictionary = mem_alloc(sizeof(*dictionary));
	dictionary->prepared = prepared;
	return dictionary;
}

void dictionary_close(struct dictionary *dictionary)
{
	if (dictionary == NULL)
		return;
	ZSTD_freeDDict(dictionary->prepared);
	free(dictionary);
}

struct decompressor *decompressor_open(void)
{
	struct decompressor *decompressor = mem_zero(1, sizeof(*decompressor));
	decompressor->context = ZSTD_createDCtx();
	check(decompressor->context != NULL);
	return decompressor;
}

void decompressor_close(struct decompressor *decompressor)
{
	if (decompressor == NULL)
		return;
	ZSTD_freeDCtx(decompressor->context);
	free(decompressor);
}

enum err decompressor_run_with(struct decompressor *decompressor, const struct dictionary *dictionary, struct slice in, uint8_t *out,
			       size_t bytes)
{
	const ZSTD_DDict *prepared = dictionary == NULL ? NULL : dictionary->prepared;
	/* One frame and no other kind: zstd takes skippable ones, several in a row and those of old formats, too. */
	if (in.size < 4 || get_le32(in.bytes) != ZSTD_MAGICNUMBER || ZSTD_getFrameContentSize(in.bytes, in.size) != bytes ||
	    ZSTD_findFrameCompressedSize(in.bytes, in.size) != in.size)
		return ERR_CORRUPT;
	return ZSTD_decompress_usingDDict(decompressor->context, out, bytes, in.bytes, in.size, prepared) == bytes ? OK : ERR_CORRUPT;
}

enum err decompressor_run(struct decompressor *decompressor, struct slice in, uint8_t *out, size_t bytes)
{
	return decompressor_run_with(decompressor, NULL, in, out, bytes);
}
