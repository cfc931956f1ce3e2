#include "common/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void check_failed(const char *condition, const char *file, int line)
{
	fprintf(stderr, "check failed: %s at %s:%d\n", condition, file, line);
	fflush(stderr);
	abort();
}

static _Noreturn void out_of_memory(unsigned long size_bytes)
{
	fprintf(stderr, "out of memory: %lu bytes\n", size_bytes);
	fflush(stderr);
	abort();
}

void *mem_alloc(unsigned long size_bytes)
{
	void *memory = malloc(size_bytes == 0 ? 1 : size_bytes);
	if (memory == NULL)
		out_of_memory(size_bytes);
	return memory;
}

void *mem_zero(unsigned long count, unsigned long size_bytes)
{
	void *memory = calloc(count == 0 ? 1 : count, size_bytes == 0 ? 1 : size_bytes);
	if (memory == NULL)
		out_of_memory(count * size_bytes);
	return memory;
}

void *mem_resize(void *memory, unsigned long size_bytes)
{
	void *resized = realloc(memory, size_bytes == 0 ? 1 : size_bytes);
	if (resized == NULL)
		out_of_memory(size_bytes);
	return resized;
}

char *mem_string(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = mem_alloc(size);
	memcpy(copy, text, size);
	return copy;
}
