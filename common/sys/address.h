/* Socket addresses as text. Internal to common/sys. */
#ifndef GRANARY_COMMON_SYS_ADDRESS_H
#define GRANARY_COMMON_SYS_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#include "common/base/err.h"

#define ADDRESS_TEXT_BYTES 72 /* "[v6%scope]:port" */

struct address {
	struct sockaddr_storage storage;
	socklen_t size;
};

/* "host:port", "[v6]:port"; to listen also ":port". Asks the resolver for a host that is not a number. */
MUST_USE enum err address_parse(const char *text, bool listen, struct address *out);
void address_print(const struct address *address, char out[ADDRESS_TEXT_BYTES]);

#endif
