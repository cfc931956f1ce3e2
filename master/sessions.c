#include "master/sessions.h"

#include <stdlib.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"

struct opened {
	uint64_t inode;
	uint64_t count; /* in the table of all: sessions that have it open */
	UT_hash_handle hh;
};

struct session {
	uint64_t id;
	uint64_t heard_ms;
	uint64_t keepalive_ms, keepalive_before_ms; /* the last two; 0: none yet */
	bool begun; /* under this leader, at begun_ms */
	uint64_t begun_ms;
	uint64_t announced_term;
	uint64_t sequences[SESSION_SLOTS]; /* last ones seen */
	void *connection;
	bool expired;
	bool reported; /* as expired */
	struct opened *opened;
	UT_hash_handle hh;
};

struct sessions {
	struct session *table;
	struct opened *opened;
	uint64_t known;
};

struct sessions *sessions_open(void)
{
	return mem_zero(1, sizeof(struct sessions));
}

void sessions_close(struct sessions *sessions)
{
	if (!sessions)
		return;
	sessions_clear(sessions);
	free(sessions);
}

static struct opened *opened_find(struct opened *table, uint64_t inode)
{
	struct opened *found;

	HASH_FIND(hh, table, &inode, sizeof(inode), found);
	return found;
}

static struct opened *opened_add(struct opened **table, uint64_t inode)
{
	struct opened *opened = mem_zero(1, sizeof(*opened));

	opened->inode = inode;
	HASH_ADD(hh, *table, inode, sizeof(opened->inode), opened);
	return opened;
}

static void opened_remove(struct opened **table, struct opened *opened)
{
	HASH_DEL(*table, opened);
	free(opened);
}

static struct session *session_find(const struct sessions *sessions, uint64_t id)
{
	struct session *found;

	HASH_FIND(hh, sessions->table, &id, sizeof(id), found);
	return found;
}

static void inode_release(struct sessions *sessions, struct session *session, struct opened *opened)
{
	struct opened *all = opened_find(sessions->opened, opened->inode);

	if (--all->count == 0)
		opened_remove(&sessions->opened, all);
	opened_remove(&session->opened, opened);
}

static void inodes_release(struct sessions *sessions, struct session *session)
{
	struct opened *opened, *next;

	HASH_ITER(hh, session->opened, opened, next)
	{
		inode_release(sessions, session, opened);
	}
}

static void session_remove(struct sessions *sessions, struct session *session)
{
	inodes_release(sessions, session);
	HASH_DEL(sessions->table, session);
	free(session);
}

void sessions_clear(struct sessions *sessions)
{
	struct session *session, *next;

	HASH_ITER(hh, sessions->table, session, next)
	{
		session_remove(sessions, session);
	}
	sessions->known = 0;
}

uint64_t sessions_known(const struct sessions *sessions)
{
	return sessions->known;
}

void sessions_know(struct sessions *sessions, uint64_t id)
{
	if (id > sessions->known)
		sessions->known = id;
}

void sessions_each_live(const struct sessions *sessions, void (*fn)(void *arg, uint64_t session), void *arg)
{
	for (const struct session *session = sessions->table; session; session = session->hh.next) {
		if (!session->expired)
			fn(arg, session->id);
	}
}

enum err sessions_add(struct sessions *sessions, uint64_t now_ms, uint64_t id, bool begun)
{
	struct session *session;

	sessions_know(sessions, id);
	if (session_find(sessions, id))
		return OK;
	if (HASH_COUNT(sessions->table) >= SESSIONS_MAX)
		return ERR_TOO_MANY;
	session = mem_zero(1, sizeof(*session));
	session->id = id;
	session->heard_ms = now_ms;
	session->begun = begun;
	session->begun_ms = begun ? now_ms : 0;
	HASH_ADD(hh, sessions->table, id, sizeof(session->id), session);
	return OK;
}

void sessions_remove(struct sessions *sessions, uint64_t id)
{
	struct session *session = session_find(sessions, id);

	if (session)
		session_remove(sessions, session);
}

bool sessions_has(const struct sessions *sessions, uint64_t id)
{
	return session_find(sessions, id) != NULL;
}

size_t sessions_count(const struct sessions *sessions)
{
	return HASH_COUNT(sessions->table);
}

bool sessions_heard(struct sessions *sessions, uint64_t now_ms, uint64_t id, void *connection)
{
	struct session *session = session_find(sessions, id);

	if (!session || session->expired)
		return false;
	session->heard_ms = now_ms;
	session->connection = connection;
	return true;
}

void sessions_kept_alive(struct sessions *sessions, uint64_t now_ms, uint64_t id)
{
	struct session *session = session_find(sessions, id);

	if (!session)
		return;
	session->keepalive_before_ms = session->keepalive_ms;
	session->keepalive_ms = now_ms;
}

void sessions_connection_lost(struct sessions *sessions, const void *connection)
{
	for (struct session *session = sessions->table; session; session = session->hh.next) {
		if (session->connection == connection)
			session->connection = NULL;
	}
}

void *sessions_connection(const struct sessions *sessions, uint64_t id)
{
	struct session *session = session_find(sessions, id);

	return session ? session->connection : NULL;
}

void sessions_expire(struct sessions *sessions, uint64_t now_ms, uint64_t timeout_ms, void (*fn)(void *arg, uint64_t session),
		     void *arg)
{
	for (struct session *session = sessions->table; session; session = session->hh.next) {
		if (session->reported || (!session->expired && now_ms - session->heard_ms < timeout_ms))
			continue;
		session->expired = session->reported = true;
		fn(arg, session->id);
	}
}

void sessions_expire_again(struct sessions *sessions, uint64_t id)
{
	struct session *session = session_find(sessions, id);

	if (session)
		session->reported = false;
}

enum err sessions_inode_opened(struct sessions *sessions, uint64_t id, uint64_t inode)
{
	struct session *session = session_find(sessions, id);
	struct opened *all;

	if (!session)
		return ERR_NO_SESSION;
	if (opened_find(session->opened, inode))
		return OK;
	if (HASH_COUNT(session->opened) >= SESSION_OPEN_FILES_MAX)
		return ERR_TOO_MANY;
	opened_add(&session->opened, inode);
	all = opened_find(sessions->opened, inode);
	if (!all)
		all = opened_add(&sessions->opened, inode);
	all->count++;
	return OK;
}

void sessions_inode_closed(struct sessions *sessions, uint64_t id, uint64_t inode)
{
	struct session *session = session_find(sessions, id);
	struct opened *opened = session ? opened_find(session->opened, inode) : NULL;

	if (opened)
		inode_release(sessions, session, opened);
}

void sessions_inodes_forget(struct sessions *sessions, uint64_t id)
{
	struct session *session = session_find(sessions, id);

	if (session)
		inodes_release(sessions, session);
}

bool sessions_inode_is_open(const struct sessions *sessions, uint64_t inode)
{
	return opened_find(sessions->opened, inode) != NULL;
}

uint64_t sessions_settled_ms(const struct sessions *sessions, uint64_t term)
{
	uint64_t settled = UINT64_MAX;

	for (struct session *session = sessions->table; session; session = session->hh.next) {
		uint64_t own = session->announced_term == term ? session->keepalive_before_ms : 0;
		if (own < session->begun_ms)
			own = session->begun_ms;
		if (own < settled)
			settled = own;
	}
	return settled;
}

bool sessions_request_is_new(struct sessions *sessions, uint64_t id, uint32_t slot, uint64_t sequence)
{
	struct session *session = session_find(sessions, id);

	if (!session || slot >= SESSION_SLOTS)
		return false;
	uint64_t last = session->sequences[slot];
	session->sequences[slot] = sequence;
	return sequence == last + 1 && (last > 0 || session->begun);
}

void sessions_request_refused(struct sessions *sessions, uint64_t id, uint32_t slot, uint64_t sequence)
{
	struct session *session = session_find(sessions, id);

	if (session && slot < SESSION_SLOTS && session->sequences[slot] == sequence)
		session->sequences[slot] = sequence - 1;
}

uint64_t sessions_announced_term(const struct sessions *sessions, uint64_t id)
{
	struct session *session = session_find(sessions, id);

	return session ? session->announced_term : 0;
}

void sessions_set_announced_term(struct sessions *sessions, uint64_t id, uint64_t term)
{
	struct session *session = session_find(sessions, id);

	if (session)
		session->announced_term = term;
}
