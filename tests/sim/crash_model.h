/* What may be found after a power cut. A model is a tree of names, and files of which several contents may be there: those written since the
 * last one that is durable. An operation is begun (it may or may not be done) and acknowledged (it is).
 *
 * Content: of a file in a pack one of its contents, whole. Of others each sector of 512 bytes is that of one of them (nobody has a whole block
 * when all lose power: the first replica's counts), zeros beyond its end, and the size is the size of one. What was written to a file that
 * was empty, and not synced since, may be lost: that is told by an error. */
#ifndef GRANARY_TESTS_SIM_CRASH_MODEL_H
#define GRANARY_TESTS_SIM_CRASH_MODEL_H

#include "client/granary.h"
#include "common/base/buf.h"

#define MODEL_NAMES_MAX 24u
#define MODEL_FILES_MAX 24u
#define MODEL_VERSIONS_MAX 12u
#define MODEL_PATH_BYTES 32u

struct model_content {
	size_t size;
	uint8_t bytes[];
};

struct model_file {
	uint32_t mode; /* with type */
	const char *target, *attribute;
	const struct model_content *versions[MODEL_VERSIONS_MAX]; /* the last one is what is read without a power cut */
	unsigned version_count;
};

/* Copied by assignment; contents are shared, and live to the end of the process. */
struct model {
	struct {
		char path[MODEL_PATH_BYTES];
		unsigned file;
	} names[MODEL_NAMES_MAX];
	struct model_file files[MODEL_FILES_MAX];
	unsigned name_count, file_count;
};

/* NULL: there is no such name. */
struct model_file *model_find(struct model *model, const char *path);
bool model_has_below(const struct model *model, const char *path);
/* A new file, directory or link; the name is free. */
struct model_file *model_make(struct model *model, const char *path, uint32_t mode);
void model_link(struct model *model, const char *existing, const char *path);
/* NULL: there is no such name. */
void model_unlink(struct model *model, const char *path);
/* What has the new name goes; what is below it moves, too. */
void model_rename(struct model *model, const char *from, const char *to);
/* The file's content after a write of `size` bytes there; a pattern of `version` and place. */
void model_write(struct model_file *file, uint64_t offset, size_t size, uint64_t version);
/* The same for a new size, which is not durable; and for one that is: whatever the content was, it has this size now. */
void model_resize(struct model_file *file, size_t size);
void model_resize_all(struct model_file *file, size_t size);
/* Only the last content is possible. */
void model_settle(struct model_file *file);
const struct model_content *model_last(const struct model_file *file);

/* All names of a cluster, and what is behind them. */
struct seen {
	struct seen_entry {
		char path[MODEL_PATH_BYTES];
		struct granary_stat stat;
		void *bytes; /* NULL: the content is lost */
		char target[32], attribute[32];
	} entries[MODEL_NAMES_MAX];
	unsigned count, lost;
};
/* False: `why` says what cannot be read. */
bool seen_read(struct seen *seen, struct granary_cluster *client, struct buf *why);
/* Is this what the model says? If not, why. */
bool model_allows(const struct model *model, const struct seen *seen, struct buf *why);
bool seen_equal(const struct seen *a, const struct seen *b, struct buf *why);

#endif
