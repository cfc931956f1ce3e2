#include "common/base/location.h"

#include <string.h>

#include "common/base/limits.h"

bool location_is_valid(const char *text)
{
	size_t size = strlen(text), depth = 1;

	if (size == 0)
		return true;
	if (size > LOCATION_BYTES_MAX || text[0] == '/' || text[size - 1] == '/')
		return false;
	for (size_t i = 0; i < size; i++) {
		if (text[i] <= ' ' || text[i] > '~')
			return false;
		if (text[i] != '/')
			continue;
		depth++;
		if (text[i + 1] == '/')
			return false;
	}
	return depth <= LOCATION_DEPTH_MAX;
}

unsigned location_shared(const char *a, const char *b)
{
	unsigned shared = 0;

	while (*a || *b) {
		size_t size = strcspn(a, "/");
		if (size != strcspn(b, "/") || memcmp(a, b, size) != 0)
			return shared;
		shared++;
		a += size + (a[size] == '/');
		b += size + (b[size] == '/');
	}
	return LOCATION_DEPTH_MAX;
}
