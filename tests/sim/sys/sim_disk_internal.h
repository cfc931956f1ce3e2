/* What a simulated disk is made of. Only for sim_disk.c and sim_image.c. */
#ifndef GRANARY_TESTS_SIM_SYS_SIM_DISK_INTERNAL_H
#define GRANARY_TESTS_SIM_SYS_SIM_DISK_INTERNAL_H

#include "tests/sim/sys/sim_internal.h"

#define PAGE 4096u

struct page {
	uint8_t *now;	  /* NULL: zeros */
	uint8_t *durable; /* with dirty; NULL: zeros */
	bool dirty;
	bool doomed; /* a sync of it failed: the system takes it for clean, and no later sync makes it durable unless it is written again */
};

struct inode {
	struct page *pages;
	size_t page_count, pages_used;
	uint32_t *dirty; /* pages that are */
	size_t dirty_count, dirty_capacity;
	struct sim_file_faults faults;
	uint64_t size, size_durable;
	unsigned references; /* names now, pending names, open files */
	const struct loop *lock;
};

struct name {
	char *path;
	struct inode *inode;
	struct name *next;
};

/* A change of a name that is not yet durable: `inode` NULL removes it; a rename removes `from` in the same step. */
struct name_change {
	char *path;
	struct inode *inode;
	char *from;
	struct name_change *next;
};

struct sim_disk {
	struct sim_host *host;
	struct name *names;   /* as programs see them */
	struct name *durable; /* as after a power cut that loses all changes */
	struct name_change *first, *last;
	struct sim_store *stores;
	uint64_t pages_used;
};

/* The name leads to the inode from now on (NULL: it is gone). */
void sim_disk_name_set(struct sim_disk *disk, struct name **names, const char *path, struct inode *inode);

#endif
