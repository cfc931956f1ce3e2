/* kv.h, simulated: an ordered map that never changes in place. Each batch makes a new root that shares what it did not
 * touch (a treap with copied paths; Seidel and Aragon 1996), so that iterators and crashes pick any earlier state for free. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/kv.h"
#include "tests/sim/sys/sim_internal.h"

#define ROOTS_MAX 64 /* states since the last sync that a power cut chooses from */

/* Shared by all nodes that stand for it. */
struct pair {
	uint32_t references;
	uint32_t priority;
	size_t key_size, value_size;
	uint8_t bytes[];
};

struct node {
	struct node *left, *right;
	struct pair *pair;
	uint32_t references;
};

struct sim_store {
	char *path;
	struct node *roots[ROOTS_MAX]; /* [0] the oldest that may survive, [count - 1] the newest */
	size_t root_count;
	bool damaged, damaged_at_open;
	struct sim_store *next;
};

struct kv {
	struct loop *loop;
	struct sim_store *store;
	bool damage_found;
};

struct operation {
	struct buf key, value;
	bool put;
};

struct kv_batch {
	struct operation *operations;
	size_t count, capacity;
};

struct kv_iterator {
	struct node *root;
	const struct node *at;
	struct kv *kv;
};

/* ---- the map */

static struct node *node_ref(struct node *node)
{
	if (node != NULL)
		node->references++;
	return node;
}

static void pair_unref(struct pair *pair)
{
	if (--pair->references == 0)
		free(pair);
}

static void node_unref(struct node *node)
{
	while (node != NULL && --node->references == 0) {
		struct node *right = node->right;
		node_unref(node->left);
		pair_unref(node->pair);
		free(node);
		node = right;
	}
}

static struct slice node_key(const struct node *node)
{
	return slice_of(node->pair->bytes, node->pair->key_size);
}

static struct slice node_value(const struct node *node)
{
	return slice_of(node->pair->bytes + node->pair->key_size, node->pair->value_size);
}

/* Takes over the children's references, and takes one of the pair. */
static struct node *node_of(struct pair *pair, struct node *left, struct node *right)
{
	struct node *node = mem_alloc(sizeof(*node));
	*node = (struct node){ .left = left, .right = right, .pair = pair, .references = 1 };
	pair->references++;
	return node;
}

static struct node *node_new(struct slice key, struct slice value)
{
	struct pair *pair = mem_alloc(sizeof(*pair) + key.size + value.size);
	*pair = (struct pair){ .key_size = key.size, .value_size = value.size };
	pair->priority = crc32c(key.bytes, key.size) * 2654435761u;
	if (key.size > 0)
		memcpy(pair->bytes, key.bytes, key.size);
	if (value.size > 0)
		memcpy(pair->bytes + key.size, value.bytes, value.size);
	return node_of(pair, NULL, NULL);
}

/* A copy with other children; takes over both references. */
static struct node *node_with(const struct node *node, struct node *left, struct node *right)
{
	return node_of(node->pair, left, right);
}

/* Splits into keys below and above `key`; a node of that key is left out. Results have references of their own. */
static void split(struct node *node, struct slice key, struct node **below, struct node **above)
{
	if (node == NULL) {
		*below = *above = NULL;
		return;
	}
	int order = slice_compare(node_key(node), key);
	if (order == 0) {
		*below = node_ref(node->left);
		*above = node_ref(node->right);
	} else if (order < 0) {
		struct node *middle = NULL;
		split(node->right, key, &middle, above);
		*below = node_with(node, node_ref(node->left), middle);
	} else {
		struct node *middle = NULL;
		split(node->left, key, below, &middle);
		*above = node_with(node, middle, node_ref(node->right));
	}
}

static bool is_above(const struct node *a, const struct node *b)
{
	const struct pair *first = a->pair, *second = b->pair;
	return first->priority != second->priority ? first->priority > second->priority : slice_compare(node_key(a), node_key(b)) < 0;
}

/* All keys of `below` are less than those of `above`; takes over both references. */
static struct node *join(struct node *below, struct node *above)
{
	if (below == NULL || above == NULL)
		return below != NULL ? below : above;
	struct node *root;
	if (is_above(below, above)) {
		root = node_with(below, node_ref(below->left), join(node_ref(below->right), above));
		node_unref(below);
	} else {
		root = node_with(above, join(below, node_ref(above->left)), node_ref(above->right));
		node_unref(above);
	}
	return root;
}

static struct node *changed(struct node *root, const struct operation *operation)
{
	struct node *below = NULL, *above = NULL;
	split(root, buf_slice(&operation->key), &below, &above);
	if (operation->put)
		below = join(below, node_new(buf_slice(&operation->key), buf_slice(&operation->value)));
	return join(below, above);
}

static const struct node *find_at_or_after(const struct node *node, struct slice key, bool strictly)
{
	const struct node *best = NULL;
	while (node != NULL) {
		int order = slice_compare(node_key(node), key);
		if (order > 0 || (order == 0 && !strictly)) {
			best = node;
			node = node->left;
		} else {
			node = node->right;
		}
	}
	return best;
}

/* ---- stores of a disk */

struct sim_store *sim_store_open(struct sim_disk *disk, const char *path)
{
	struct sim_store **stores = sim_disk_stores(disk);
	for (struct sim_store *store = *stores; store != NULL; store = store->next)
		if (strcmp(store->path, path) == 0)
			return store;
	struct sim_store *store = mem_zero(1, sizeof(*store));
	store->path = mem_string(path);
	store->root_count = 1;
	store->next = *stores;
	*stores = store;
	return store;
}

static void keep_only(struct sim_store *store, size_t index)
{
	struct node *root = node_ref(store->roots[index]);
	for (size_t i = 0; i < store->root_count; i++)
		node_unref(store->roots[i]);
	store->roots[0] = root;
	store->root_count = 1;
}

void sim_stores_power_cut(struct sim_host *host, struct sim_store *stores)
{
	for (struct sim_store *store = stores; store != NULL; store = store->next) {
		/* Often all that was not synced: what relies on it shows soon. */
		bool all_lost = host->sim->lose_unsynced || rng_below(&host->sim->rng, 4) == 0;
		keep_only(store, all_lost ? 0 : (size_t)rng_below(&host->sim->rng, store->root_count));
	}
}

void sim_stores_close(struct sim_store *stores)
{
	while (stores != NULL) {
		struct sim_store *next = stores->next;
		for (size_t i = 0; i < stores->root_count; i++)
			node_unref(stores->roots[i]);
		free(stores->path);
		free(stores);
		stores = next;
	}
}

void sim_stores_copy(struct sim_disk *to, const struct sim_store *stores)
{
	for (; stores != NULL; stores = stores->next)
		sim_store_open(to, stores->path)->roots[0] = node_ref(stores->roots[stores->root_count - 1]);
}

/* ---- kv.h */

enum err kv_open(struct loop *loop, const char *path, const struct kv_options *options, struct kv **out)
{
	(void)options;
	*out = NULL;
	if (!sim_disk_operation(loop))
		return ERR_IO;
	struct kv *kv = mem_zero(1, sizeof(*kv));
	kv->loop = loop;
	kv->store = sim_store_open(loop->host->disk, path);
	if (kv->store->damaged_at_open) {
		free(kv);
		return ERR_CORRUPT;
	}
	*out = kv;
	return OK;
}

enum err kv_settle(struct kv *kv)
{
	return kv->loop->dead ? ERR_IO : OK;
}

bool kv_is_damaged(const struct kv *kv)
{
	return kv->damage_found;
}

enum err kv_remove(struct loop *loop, const char *path)
{
	if (!sim_disk_operation(loop))
		return ERR_IO;
	for (struct sim_store *store = *sim_disk_stores(loop->host->disk); store != NULL; store = store->next) {
		if (strcmp(store->path, path) != 0)
			continue;
		for (size_t i = 0; i < store->root_count; i++)
			node_unref(store->roots[i]);
		store->roots[0] = NULL;
		store->root_count = 1;
		store->damaged = store->damaged_at_open = false;
	}
	return OK;
}

bool sim_host_damage_store(struct sim_host *host, const char *path, bool at_open)
{
	for (struct sim_store *store = *sim_disk_stores(host->disk); store != NULL; store = store->next) {
		if (strcmp(store->path, path) != 0 || store->roots[store->root_count - 1] == NULL)
			continue;
		store->damaged = true;
		store->damaged_at_open = at_open;
		return true;
	}
	return false;
}

static enum err read_check(struct kv *kv)
{
	if (kv->loop->dead)
		return ERR_IO;
	if (!kv->store->damaged)
		return OK;
	kv->damage_found = true;
	return ERR_CORRUPT;
}

void kv_close(struct kv *kv)
{
	free(kv);
}

static struct node *newest(const struct kv *kv)
{
	return kv->store->roots[kv->store->root_count - 1];
}

enum err kv_get(struct kv *kv, struct slice key, struct buf *value)
{
	buf_clear(value);
	enum err err = read_check(kv);
	if (err != OK)
		return err;
	const struct node *node = find_at_or_after(newest(kv), key, false);
	if (node == NULL || !slice_equal(node_key(node), key))
		return ERR_NOT_FOUND;
	buf_append_slice(value, node_value(node));
	return OK;
}

enum err kv_write(struct kv *kv, const struct kv_batch *batch, bool sync)
{
	struct sim_host *host = kv->loop->host;
	if (!sim_disk_operation(kv->loop) || sim_chance(host->sim, host->faults.write_error_per_million))
		return ERR_IO;
	if (!sim_disk_has_room(host->disk, 0))
		return ERR_NO_SPACE;
	struct sim_store *store = kv->store;
	struct node *root = node_ref(newest(kv));
	for (size_t i = 0; i < batch->count; i++) {
		struct node *next = changed(root, &batch->operations[i]);
		node_unref(root);
		root = next;
	}
	if (store->root_count == ROOTS_MAX) {
		/* The oldest stays, as what is durable; any of the others may be forgotten. */
		size_t victim = 1 + (size_t)rng_below(&host->sim->rng, ROOTS_MAX - 2);
		node_unref(store->roots[victim]);
		memmove(&store->roots[victim], &store->roots[victim + 1],
			(ROOTS_MAX - victim - 1) * sizeof(store->roots[0]));
		store->root_count--;
	}
	store->roots[store->root_count++] = root;
	return sync ? kv_sync(kv) : OK;
}

enum err kv_sync(struct kv *kv)
{
	struct sim_host *host = kv->loop->host;
	if (!sim_sync_begins(kv->loop) || sim_chance(host->sim, host->faults.sync_error_per_million))
		return ERR_IO;
	keep_only(kv->store, kv->store->root_count - 1);
	return sim_sync_is_done(kv->loop) ? OK : ERR_IO;
}

struct kv_batch *kv_batch_open(void)
{
	return mem_zero(1, sizeof(struct kv_batch));
}

void kv_batch_clear(struct kv_batch *batch)
{
	for (size_t i = 0; i < batch->count; i++) {
		buf_deinit(&batch->operations[i].key);
		buf_deinit(&batch->operations[i].value);
	}
	batch->count = 0;
}

void kv_batch_close(struct kv_batch *batch)
{
	if (batch == NULL)
		return;
	kv_batch_clear(batch);
	free(batch->operations);
	free(batch);
}

static struct operation *batch_add(struct kv_batch *batch, struct slice key)
{
	if (batch->count == batch->capacity) {
		batch->capacity = batch->capacity == 0 ? 16 : 2 * batch->capacity;
		batch->operations = mem_resize(batch->operations, batch->capacity * sizeof(batch->operations[0]));
	}
	struct operation *operation = &batch->operations[batch->count++];
	*operation = (struct operation){ .put = false };
	buf_append_slice(&operation->key, key);
	return operation;
}

void kv_batch_put(struct kv_batch *batch, struct slice key, struct slice value)
{
	struct operation *operation = batch_add(batch, key);
	operation->put = true;
	buf_append_slice(&operation->value, value);
}

void kv_batch_delete(struct kv_batch *batch, struct slice key)
{
	batch_add(batch, key);
}

struct kv_iterator *kv_iterator_open(struct kv *kv)
{
	struct kv_iterator *iterator = mem_zero(1, sizeof(*iterator));
	iterator->root = node_ref(newest(kv));
	iterator->kv = kv;
	return iterator;
}

struct kv_iterator *kv_iterator_open_once(struct kv *kv)
{
	return kv_iterator_open(kv);
}

void kv_iterator_close(struct kv_iterator *iterator)
{
	if (iterator == NULL)
		return;
	node_unref(iterator->root);
	free(iterator);
}

void kv_iterator_seek(struct kv_iterator *iterator, struct slice key)
{
	iterator->at = read_check(iterator->kv) == OK ? find_at_or_after(iterator->root, key, false) : NULL;
}

void kv_iterator_next(struct kv_iterator *iterator)
{
	iterator->at = find_at_or_after(iterator->root, node_key(iterator->at), true);
}

bool kv_iterator_valid(const struct kv_iterator *iterator)
{
	return iterator->at != NULL;
}

struct slice kv_iterator_key(const struct kv_iterator *iterator)
{
	return node_key(iterator->at);
}

struct slice kv_iterator_value(const struct kv_iterator *iterator)
{
	return node_value(iterator->at);
}

enum err kv_iterator_error(const struct kv_iterator *iterator)
{
	return read_check(iterator->kv);
}
