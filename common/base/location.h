/* Where a server stands: a path of failure domains, broadest first: "zone/rack", up to LOCATION_DEPTH_MAX of them. "" is nowhere in
 * particular. Pure. */
#ifndef GRANARY_COMMON_BASE_LOCATION_H
#define GRANARY_COMMON_BASE_LOCATION_H

#include <stdbool.h>

/* Empty, or names of printable characters without spaces with one "/" between them; up to LOCATION_BYTES_MAX. */
bool location_is_valid(const char *text);
/* In how many levels both are in the same domain, from the broadest down. Who says nothing of a level is there in a domain with all
 * others of his that say nothing: the same text shares LOCATION_DEPTH_MAX. */
unsigned location_shared(const char *a, const char *b);

#endif
