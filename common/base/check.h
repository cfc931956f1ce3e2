/* check(): an assertion about what the programmer promised, on in release builds too.
 * Never for bytes from a disk or a network: those are errors (err.h). */
#ifndef GRANARY_COMMON_BASE_CHECK_H
#define GRANARY_COMMON_BASE_CHECK_H

#define check(condition) ((condition) ? (void)0 : check_failed(#condition, __FILE__, __LINE__))

/* Writes one line to standard error and aborts. */
_Noreturn void check_failed(const char *condition, const char *file, int line);

/* malloc, calloc, realloc that abort when memory runs out. Sizes from outside are compared with limits.h first. */
void *mem_alloc(unsigned long size_bytes) __attribute__((malloc, alloc_size(1)));
void *mem_zero(unsigned long count, unsigned long size_bytes) __attribute__((malloc, alloc_size(1, 2)));
void *mem_resize(void *memory, unsigned long size_bytes) __attribute__((alloc_size(2)));
char *mem_string(const char *text);

#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

#endif
