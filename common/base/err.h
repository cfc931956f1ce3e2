/* Errors: one list for the whole of Granary.
 *
 * Every function that can fail for a reason outside the program returns `enum err`; results go out by
 * pointer. An error is logged where it is born, returned bare, and translated once at the edge: to an
 * errno by the mount, to a sentence and an exit status by the CLI. The numbers are on the wire and on
 * disk (results of namespace operations): never renumber, only append. */
#ifndef GRANARY_COMMON_BASE_ERR_H
#define GRANARY_COMMON_BASE_ERR_H

/* X(name, wire value, errno, text) */
#define ERR_LIST(X)                                                                                \
	X(ERR_NOT_FOUND, 1, ENOENT, "no such file or directory")                                   \
	X(ERR_EXISTS, 2, EEXIST, "already exists")                                                 \
	X(ERR_NOT_DIRECTORY, 3, ENOTDIR, "not a directory")                                        \
	X(ERR_IS_DIRECTORY, 4, EISDIR, "is a directory")                                           \
	X(ERR_NOT_EMPTY, 5, ENOTEMPTY, "directory not empty")                                      \
	X(ERR_INVALID, 6, EINVAL, "invalid argument")                                              \
	X(ERR_NAME_TOO_LONG, 7, ENAMETOOLONG, "name too long")                                     \
	X(ERR_LOOP, 8, EINVAL, "a directory cannot be moved into itself")                          \
	X(ERR_PERMISSION, 9, EACCES, "permission denied")                                          \
	X(ERR_NOT_PERMITTED, 10, EPERM, "operation not permitted")                                 \
	X(ERR_NO_SPACE, 11, ENOSPC, "no space left")                                               \
	X(ERR_NO_ATTRIBUTE, 12, ENODATA, "no such attribute")                                      \
	X(ERR_TOO_MANY_LINKS, 13, EMLINK, "too many links")                                        \
	X(ERR_TOO_LARGE, 14, EFBIG, "too large")                                                   \
	X(ERR_WOULD_BLOCK, 15, EAGAIN, "held by another")                                          \
	X(ERR_STALE_HANDLE, 16, ESTALE, "the file was replaced")                                   \
	X(ERR_RANGE, 17, ERANGE, "result does not fit")                                            \
	X(ERR_TOO_MANY, 18, ENFILE, "a limit was reached")                                         \
	X(ERR_DEADLOCK, 19, EDEADLK, "locks would wait for each other")                            \
	X(ERR_IO, 32, EIO, "input/output error")                                                   \
	X(ERR_CORRUPT, 33, EIO, "checksum mismatch")                                               \
	X(ERR_PROTOCOL, 34, EPROTO, "malformed message")                                           \
	X(ERR_TIMEOUT, 35, ETIMEDOUT, "timed out")                                                 \
	X(ERR_CLOSED, 36, ECONNRESET, "connection closed")                                         \
	X(ERR_UNREACHABLE, 37, EHOSTUNREACH, "cannot be reached")                                  \
	X(ERR_BUSY, 38, EBUSY, "busy")                                                             \
	X(ERR_CANCELLED, 39, ECANCELED, "cancelled")                                               \
	X(ERR_NOT_SUPPORTED, 40, EOPNOTSUPP, "not supported")                                      \
	X(ERR_INTERRUPTED, 41, EINTR, "interrupted")                                               \
	X(ERR_NOT_LEADER, 64, EIO, "not the leader")                                               \
	X(ERR_NO_LEADER, 65, EIO, "no leader")                                                     \
	X(ERR_STALE_VERSION, 66, EIO, "stale chunk version")                                       \
	X(ERR_NO_LEASE, 67, EIO, "no lease from the master")                                       \
	X(ERR_CHAIN_BROKEN, 68, EIO, "a replica in the chain failed")                              \
	X(ERR_NO_CHUNK, 69, EIO, "chunk not held here")                                            \
	X(ERR_PACK_FULL, 70, EIO, "pack full or sealed")                                           \
	X(ERR_NO_SESSION, 71, EIO, "session expired")                                              \
	X(ERR_NO_SERVERS, 72, EIO, "too few chunkservers")                                         \
	X(ERR_WRONG_CLUSTER, 73, EIO, "belongs to another cluster")                                \
	X(ERR_VERSION_MISMATCH, 74, EPROTO, "protocol version not spoken here")                    \
	X(ERR_STORE_FAILED, 75, EIO, "the store is out of service after a failed write or sync")         \
	X(ERR_NO_CLASS, 80, EINVAL, "no such storage class")                                          \
	X(ERR_LAST_VOTER, 82, EINVAL, "the last voting master cannot be removed")                        \
	X(ERR_CHANGE_UNDER_WAY, 83, EBUSY, "another change of the masters is under way")                 \
	X(ERR_WRONG_MASTER, 84, EINVAL, "no such master answers at that address")\
	X(ERR_UNCERTAIN, 88, EIO, "not compared with its other copies yet, after a loss of power") \
	X(ERR_DATA_LOST, 89, EIO, "data that was written and not synced is lost: all its servers lost power") \
	X(ERR_RETRY_UNKNOWN, 95, EIO, "whether it was done before its servers failed is not known")

enum err {
	OK = 0,
#define X(name, wire, number, text) name = wire,
	ERR_LIST(X)
#undef X
};

#define MUST_USE __attribute__((warn_unused_result))

/* The name in lower case without prefix ("not_found"; "ok"); static storage. */
const char *err_name(enum err err);
/* A sentence fragment for people ("no such file or directory"); static storage. */
const char *err_text(enum err err);
/* The errno a POSIX caller sees; 0 for OK. */
int err_errno(enum err err);
/* From an errno set by the operating system; ERR_IO for one that is not in the list. */
enum err err_from_errno(int number);
/* From a number on the wire; ERR_PROTOCOL for one that is unknown here. */
enum err err_from_wire(unsigned number);

#endif
