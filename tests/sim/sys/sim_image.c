/* Old copies of a host's disk. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "tests/sim/sys/sim_disk_internal.h"

struct sim_image {
	struct sim_disk *disk;
};

static struct inode *inode_copy(struct sim_disk *to, const struct inode *inode)
{
	struct inode *copy = mem_zero(1, sizeof(*copy));
	copy->size = copy->size_durable = inode->size;
	copy->page_count = inode->page_count;
	copy->pages = mem_zero(inode->page_count + 1, sizeof(*copy->pages));
	copy->pages_used = inode->pages_used;
	to->pages_used += inode->pages_used;
	for (size_t i = 0; i < inode->page_count; i++) {
		if (inode->pages[i].now == NULL)
			continue;
		copy->pages[i].now = mem_alloc(PAGE);
		memcpy(copy->pages[i].now, inode->pages[i].now, PAGE);
	}
	return copy;
}

/* As after a clean stop: what programs see is what is durable. */
static void disk_copy(struct sim_disk *to, const struct sim_disk *from)
{
	for (const struct name *name = from->names; name != NULL; name = name->next) {
		struct inode *copy = inode_copy(to, name->inode);
		sim_disk_name_set(to, &to->names, name->path, copy);
		sim_disk_name_set(to, &to->durable, name->path, copy);
	}
	sim_stores_copy(to, from->stores);
}

struct sim_image *sim_host_image(const struct sim_host *host)
{
	struct sim_image *image = mem_zero(1, sizeof(*image));
	image->disk = sim_disk_open(NULL);
	disk_copy(image->disk, host->disk);
	return image;
}

void sim_host_restore(struct sim_host *host, const struct sim_image *image)
{
	sim_disk_close(host->disk);
	host->disk = sim_disk_open(host);
	disk_copy(host->disk, image->disk);
}

void sim_image_close(struct sim_image *image)
{
	sim_disk_close(image->disk);
	free(image);
}
