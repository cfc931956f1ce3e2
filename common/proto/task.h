/* Kinds of delayed tasks (message Task; master/meta/tasks.h says what they are). The numbers are stored. */
#ifndef GRANARY_COMMON_PROTO_TASK_H
#define GRANARY_COMMON_PROTO_TASK_H

/* X(NAME, number, word) */
#define TASK_KIND_LIST(X)                                                                                              \
	X(TASK_COOL, 1, "cool") /* a chunk may be old enough to become cold */                                         \
	X(TASK_ASSIGN, 2, "assign") /* what is in a directory, or a file's chunks, get its class */                    \
	X(TASK_CLASS, 3, "class") /* a class was changed: its chunks are to follow */                                  \
	X(TASK_MOVE, 4, "move") /* a blob is in a pack of another class than its file's */

enum task_kind {
#define X(name, number, word) name = number,
	TASK_KIND_LIST(X)
#undef X
};
#define TASK_KINDS 5u

static inline const char *task_kind_name(unsigned kind)
{
	switch (kind) {
#define X(name, number, word)                                                                                          \
	case number:                                                                                                   \
		return word;
		TASK_KIND_LIST(X)
#undef X
	default:
		return "?";
	}
}

#endif
