/* File types and mode bits as POSIX and Linux have them in st_mode: the wire and the store use these numbers. */
#ifndef GRANARY_COMMON_PROTO_MODE_H
#define GRANARY_COMMON_PROTO_MODE_H

#include <stdbool.h>
#include <stdint.h>

#define MODE_TYPE_MASK 0170000u
#define MODE_SOCKET 0140000u
#define MODE_SYMLINK 0120000u
#define MODE_FILE 0100000u
#define MODE_BLOCK_DEVICE 0060000u
#define MODE_DIRECTORY 0040000u
#define MODE_CHARACTER_DEVICE 0020000u
#define MODE_FIFO 0010000u
#define MODE_PERMISSIONS 07777u
#define MODE_SETUID 04000u
#define MODE_SETGID 02000u
#define MODE_GROUP_EXECUTE 0010u

static inline bool mode_is_directory(uint32_t mode)
{
	return (mode & MODE_TYPE_MASK) == MODE_DIRECTORY;
}

static inline bool mode_is_file(uint32_t mode)
{
	return (mode & MODE_TYPE_MASK) == MODE_FILE;
}

static inline bool mode_is_symlink(uint32_t mode)
{
	return (mode & MODE_TYPE_MASK) == MODE_SYMLINK;
}

/* Without what would give its rights to whoever starts it, as POSIX says for a write or chown by others: a set-group-id bit on
 * a file that the group may not execute means something else, and stays. */
static inline uint32_t mode_unprivileged(uint32_t mode)
{
	return mode & ~(MODE_SETUID | (mode & MODE_GROUP_EXECUTE ? MODE_SETGID : 0u));
}

/* Dirent.type: DT_* of <dirent.h>. */
static inline uint32_t mode_dirent_type(uint32_t mode)
{
	return (mode & MODE_TYPE_MASK) >> 12;
}

#endif
