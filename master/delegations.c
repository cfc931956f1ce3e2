#include "master/delegations.h"

#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/base/limits.h"

struct entry {
	uint64_t directory;
	uint64_t holder; /* 0: not given to anybody */
	uint64_t expires_ms;
	bool recalled;
	uint64_t kept_until_ms; /* while it is recalled: not longer; 0: nobody has asked to keep it */
	/* The last session that used it, until when that may have something cached; and the same for all others. */
	uint64_t user;
	uint64_t user_until_ms, others_until_ms;
	UT_hash_handle hh;
	struct entry *prev, *next; /* least recently changed first */
};

struct delegations {
	struct entry *table;
	struct entry *order;
	size_t count, capacity;
	uint64_t lease_ms;
	uint64_t any_until_ms;	    /* no delegation lasts longer */
	uint64_t forgotten_until_ms; /* users that there was no place for */
};

struct delegations *delegations_open(size_t capacity, uint64_t lease_ms)
{
	struct delegations *delegations = mem_zero(1, sizeof(*delegations));

	delegations->capacity = capacity;
	delegations->lease_ms = lease_ms;
	return delegations;
}

void delegations_clear(struct delegations *delegations)
{
	struct entry *entry, *next;

	HASH_CLEAR(hh, delegations->table);
	DL_FOREACH_SAFE(delegations->order, entry, next)
	{
		free(entry);
	}
	delegations->order = NULL;
	delegations->count = 0;
	delegations->any_until_ms = delegations->forgotten_until_ms = 0;
}

void delegations_close(struct delegations *delegations)
{
	if (!delegations)
		return;
	delegations_clear(delegations);
	free(delegations);
}

static struct entry *entry_find(const struct delegations *delegations, uint64_t directory)
{
	struct entry *entry;

	HASH_FIND(hh, delegations->table, &directory, sizeof(directory), entry);
	return entry;
}

static bool entry_is_held(const struct entry *entry, uint64_t now_ms)
{
	return entry->holder != 0 && entry->expires_ms > now_ms;
}

static bool entry_is_old(const struct entry *entry, uint64_t now_ms)
{
	return !entry_is_held(entry, now_ms) && entry->user_until_ms <= now_ms && entry->others_until_ms <= now_ms;
}

/* The entry, moved to the end of the order; NULL when there is no place. */
static struct entry *entry_use(struct delegations *delegations, uint64_t now_ms, uint64_t directory)
{
	struct entry *entry = entry_find(delegations, directory);

	if (entry) {
		DL_DELETE(delegations->order, entry);
		DL_APPEND(delegations->order, entry);
		return entry;
	}
	entry = delegations->order;
	if (entry && entry_is_old(entry, now_ms)) { /* its place */
		DL_DELETE(delegations->order, entry);
		HASH_DEL(delegations->table, entry);
		*entry = (struct entry){ 0 };
	} else if (delegations->count < delegations->capacity) {
		entry = mem_zero(1, sizeof(*entry));
		delegations->count++;
	} else {
		return NULL;
	}
	entry->directory = directory;
	HASH_ADD(hh, delegations->table, directory, sizeof(entry->directory), entry);
	DL_APPEND(delegations->order, entry);
	return entry;
}

void delegations_used(struct delegations *delegations, uint64_t now_ms, uint64_t session, uint64_t directory)
{
	struct entry *entry = entry_use(delegations, now_ms, directory);
	uint64_t until_ms = now_ms + delegations->lease_ms;

	if (!entry) {
		delegations->forgotten_until_ms = until_ms;
		return;
	}
	if (entry->user != session && entry->others_until_ms < entry->user_until_ms)
		entry->others_until_ms = entry->user_until_ms;
	entry->user = session;
	entry->user_until_ms = until_ms;
}

static bool used_by_others(const struct entry *entry, uint64_t now_ms, uint64_t session)
{
	return entry->others_until_ms > now_ms || (entry->user != session && entry->user_until_ms > now_ms);
}

bool delegations_grant(struct delegations *delegations, uint64_t now_ms, uint64_t asked_ms, uint64_t session, uint64_t directory,
		       bool *fresh)
{
	struct entry *entry = entry_use(delegations, now_ms, directory);

	*fresh = false;
	if (!entry || now_ms < delegations->forgotten_until_ms || now_ms >= asked_ms + delegations->lease_ms)
		return false;
	if (entry_is_held(entry, now_ms)) {
		if (entry->holder != session || entry->recalled)
			return false;
	} else if (used_by_others(entry, now_ms, session)) {
		return false;
	} else {
		*fresh = true;
	}
	entry->holder = session;
	entry->recalled = false;
	entry->kept_until_ms = 0;
	entry->expires_ms = now_ms + delegations->lease_ms;
	delegations->any_until_ms = entry->expires_ms;
	return true;
}

void delegations_keep(struct delegations *delegations, uint64_t now_ms, uint64_t session, uint64_t directory)
{
	struct entry *entry = entry_find(delegations, directory);

	if (!entry || !entry_is_held(entry, now_ms) || entry->holder != session)
		return;
	uint64_t until_ms = now_ms + delegations->lease_ms;
	if (entry->recalled && entry->kept_until_ms == 0)
		entry->kept_until_ms = now_ms + DELEGATION_KEPT_MS_MAX;
	if (entry->recalled && until_ms > entry->kept_until_ms)
		until_ms = entry->kept_until_ms;
	if (until_ms > entry->expires_ms)
		entry->expires_ms = until_ms;
	if (entry->expires_ms > delegations->any_until_ms)
		delegations->any_until_ms = entry->expires_ms;
}

uint64_t delegations_until_ms(const struct delegations *delegations, uint64_t now_ms, uint64_t session, uint64_t directory)
{
	const struct entry *entry = entry_find(delegations, directory);

	return entry && entry->holder == session && entry_is_held(entry, now_ms) ? entry->expires_ms : 0;
}

bool delegations_any(const struct delegations *delegations, uint64_t now_ms)
{
	return now_ms < delegations->any_until_ms;
}

bool delegations_holder(const struct delegations *delegations, uint64_t now_ms, uint64_t session, uint64_t directory,
			uint64_t *holder, uint64_t *expires_ms)
{
	const struct entry *entry = entry_find(delegations, directory);

	if (!entry || !entry_is_held(entry, now_ms) || entry->holder == session)
		return false;
	*holder = entry->holder;
	*expires_ms = entry->expires_ms;
	return true;
}

void delegations_recalled(struct delegations *delegations, uint64_t directory)
{
	struct entry *entry = entry_find(delegations, directory);

	if (entry)
		entry->recalled = true;
}

void delegations_ended(struct delegations *delegations, uint64_t session, uint64_t directory)
{
	struct entry *entry = entry_find(delegations, directory);

	if (entry && entry->holder == session)
		entry->holder = 0;
}

void delegations_session_ended(struct delegations *delegations, uint64_t session)
{
	struct entry *entry;

	DL_FOREACH(delegations->order, entry)
	{
		if (entry->holder == session)
			entry->holder = 0;
	}
}
