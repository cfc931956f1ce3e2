#include "master/leases.h"

#include <stdlib.h>

#include "common/base/check.h"

#define NONE UINT32_MAX

struct lease {
	uint64_t key;
	uint64_t session;
	uint64_t expires_ms;
	uint64_t number; /* of the last grant */
	uint32_t chain;  /* next in the bucket, or in the free list */
	uint32_t older, newer;
};

struct leases {
	struct lease *pool;
	uint32_t *buckets;
	uint32_t capacity;
	uint32_t bucket_mask;
	uint32_t free;
	uint32_t used; /* pool places ever taken */
	uint32_t oldest, newest;
	uint32_t count;
	uint64_t lease_ms;
	uint64_t granted;
};

/* splitmix64's finalizer (Stafford's variant 13). */
static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* FNV-1a over the name, mixed with the inode. */
static uint64_t lease_key(uint64_t inode, struct slice name)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	if (name.size == 0)
		return mix(inode);
	for (size_t i = 0; i < name.size; i++)
		hash = (hash ^ name.bytes[i]) * 0x100000001b3ull;
	return mix(mix(inode) ^ mix(hash));
}

struct leases *leases_open(size_t capacity, uint64_t lease_ms)
{
	struct leases *leases = mem_zero(1, sizeof(*leases));
	uint32_t buckets = 16;

	check(capacity > 0 && capacity < (1u << 30));
	while (buckets < capacity)
		buckets *= 2;
	leases->pool = mem_zero(capacity, sizeof(*leases->pool));
	leases->buckets = mem_alloc(buckets * sizeof(*leases->buckets));
	leases->capacity = (uint32_t)capacity;
	leases->bucket_mask = buckets - 1;
	leases->lease_ms = lease_ms;
	leases_clear(leases);
	return leases;
}

void leases_close(struct leases *leases)
{
	if (!leases)
		return;
	free(leases->pool);
	free(leases->buckets);
	free(leases);
}

void leases_clear(struct leases *leases)
{
	for (uint32_t i = 0; i <= leases->bucket_mask; i++)
		leases->buckets[i] = NONE;
	leases->free = leases->oldest = leases->newest = NONE;
	leases->used = leases->count = 0;
}

static uint32_t *bucket_of(const struct leases *leases, uint64_t key)
{
	return &leases->buckets[key & leases->bucket_mask];
}

static void list_remove(struct leases *leases, struct lease *lease)
{
	*(lease->older == NONE ? &leases->oldest : &leases->pool[lease->older].newer) = lease->newer;
	*(lease->newer == NONE ? &leases->newest : &leases->pool[lease->newer].older) = lease->older;
}

static void list_append(struct leases *leases, struct lease *lease)
{
	uint32_t place = (uint32_t)(lease - leases->pool);

	lease->older = leases->newest;
	lease->newer = NONE;
	*(leases->newest == NONE ? &leases->oldest : &leases->pool[leases->newest].newer) = place;
	leases->newest = place;
}

static void lease_remove(struct leases *leases, struct lease *lease)
{
	uint32_t place = (uint32_t)(lease - leases->pool);
	uint32_t *link = bucket_of(leases, lease->key);

	while (*link != place)
		link = &leases->pool[*link].chain;
	*link = lease->chain;
	list_remove(leases, lease);
	lease->chain = leases->free;
	leases->free = place;
	leases->count--;
}

static struct lease *lease_find(const struct leases *leases, uint64_t key, uint64_t session)
{
	for (uint32_t i = *bucket_of(leases, key); i != NONE; i = leases->pool[i].chain) {
		if (leases->pool[i].key == key && leases->pool[i].session == session)
			return &leases->pool[i];
	}
	return NULL;
}

/* A free place, made by forgetting the oldest lease if that has run out; NULL when all run. */
static struct lease *lease_take(struct leases *leases, uint64_t now_ms)
{
	if (leases->oldest != NONE && leases->pool[leases->oldest].expires_ms <= now_ms)
		lease_remove(leases, &leases->pool[leases->oldest]);
	if (leases->free != NONE) {
		struct lease *lease = &leases->pool[leases->free];
		leases->free = lease->chain;
		return lease;
	}
	return leases->used < leases->capacity ? &leases->pool[leases->used++] : NULL;
}

bool leases_grant(struct leases *leases, uint64_t now_ms, uint64_t session, uint64_t inode, struct slice name)
{
	uint64_t key = lease_key(inode, name);
	struct lease *lease = lease_find(leases, key, session);

	if (lease) {
		list_remove(leases, lease);
	} else {
		lease = lease_take(leases, now_ms);
		if (!lease)
			return false;
		lease->key = key;
		lease->session = session;
		lease->chain = *bucket_of(leases, key);
		*bucket_of(leases, key) = (uint32_t)(lease - leases->pool);
		leases->count++;
	}
	list_append(leases, lease);
	lease->expires_ms = now_ms + leases->lease_ms;
	lease->number = leases->granted++;
	return true;
}

uint64_t leases_mark(const struct leases *leases)
{
	return leases->granted;
}

void leases_confirmed(struct leases *leases, uint64_t session, uint64_t inode, struct slice name, uint64_t mark)
{
	struct lease *lease = lease_find(leases, lease_key(inode, name), session);

	if (lease && lease->number < mark)
		lease_remove(leases, lease);
}

void leases_holders(const struct leases *leases, uint64_t now_ms, uint64_t session, uint64_t inode, struct slice name,
		    void (*fn)(void *arg, uint64_t session, uint64_t expires_ms), void *arg)
{
	uint64_t key = lease_key(inode, name);

	for (uint32_t i = *bucket_of(leases, key); i != NONE; i = leases->pool[i].chain) {
		const struct lease *lease = &leases->pool[i];
		if (lease->key == key && lease->session != session && lease->expires_ms > now_ms)
			fn(arg, lease->session, lease->expires_ms);
	}
}

size_t leases_count(const struct leases *leases)
{
	return leases->count;
}
