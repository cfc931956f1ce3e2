/* A user of libgranary, as its author would write it. Exits with 1 at the first answer that is not as expected. */
#include <errno.h>
#include <fcntl.h>
#include <granary.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct granary_cluster *cluster;

static void expect(const char *what, granary_status status, granary_status wanted)
{
	if (status == wanted)
		return;
	fprintf(stderr, "%s: %d (%s), not %d: %s\n", what, status, granary_error_text(status), wanted,
		granary_message(cluster));
	exit(1);
}

static void same(const char *what, const void *a, size_t a_size, const void *b, size_t b_size)
{
	if (a_size == b_size && memcmp(a, b, a_size) == 0)
		return;
	fprintf(stderr, "%s: other bytes (%zu, not %zu)\n", what, a_size, b_size);
	exit(1);
}

static bool count(void *arg, const struct granary_entry *entry)
{
	(void)entry;
	++*(int *)arg;
	return true;
}

static void streams(const char *path)
{
	struct granary_file *file;
	struct granary_stat stat;
	static char large[3000000], back[3000000];
	size_t done;
	for (size_t i = 0; i < sizeof large; i++)
		large[i] = (char)(i * 2654435761u >> 13);
	expect("open", granary_open(cluster, path, O_RDWR | O_CREAT, 0644, &file), 0);
	expect("pwrite", granary_pwrite(file, large, sizeof large, 0), 0);
	expect("fsync", granary_fsync(file), 0);
	expect("pread", granary_pread(file, back, sizeof back, 0, &done), 0);
	same("pread", back, done, large, sizeof large);
	expect("ftruncate", granary_ftruncate(file, 1000), 0);
	expect("fstat", granary_fstat(file, &stat), 0);
	expect("size", (int)stat.size, 1000);
	expect("close", granary_file_close(file), 0);
	expect("exclusive", granary_error_errno(granary_open(cluster, path, O_WRONLY | O_CREAT | O_EXCL, 0644, &file)),
	       EEXIST);
	expect("unlink", granary_unlink(cluster, path), 0);
}

int main(int argc, char **argv)
{
	struct granary_options options = {0};
	struct granary_stat stat;
	void *bytes;
	size_t size;
	uint64_t id;
	int entries = 0;
	if (argc != 2)
		return 2;
	expect("connect", granary_connect(&options, &cluster), 0);
	expect("put", granary_put(cluster, argv[1], "bytes", 5, 0644), 0);
	expect("get", granary_get(cluster, argv[1], &bytes, &size), 0);
	same("get", bytes, size, "bytes", 5);
	free(bytes);
	expect("put_id", granary_put_id(cluster, "blob", 4, &id), 0);
	expect("get_id", granary_get_id(cluster, id, &bytes, &size), 0);
	same("get_id", bytes, size, "blob", 4);
	free(bytes);
	expect("unlink_id", granary_unlink_id(cluster, id), 0);
	expect("deleted", granary_error_errno(granary_get_id(cluster, id, &bytes, &size)), ENOENT);
	expect("mkdir", granary_mkdir(cluster, "/directory", 0755), 0);
	expect("rename", granary_rename(cluster, "/directory", "/renamed", 0), 0);
	expect("put below", granary_put(cluster, "/renamed/a", "", 0, 0600), 0);
	expect("xattr", granary_xattr_set(cluster, "/renamed/a", "user.k", "v", 1), 0);
	expect("stat", granary_stat(cluster, "/renamed/a", true, &stat), 0);
	expect("list", granary_list(cluster, "/renamed", count, &entries), 0);
	expect("entries", entries, 1);
	streams("/renamed/stream");
	expect("unlink", granary_unlink(cluster, "/renamed/a"), 0);
	expect("rmdir", granary_rmdir(cluster, "/renamed"), 0);
	granary_close(cluster);
	return 0;
}
