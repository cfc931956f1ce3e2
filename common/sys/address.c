#include "common/sys/address.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/sys/log.h"

enum err address_parse(const char *text, bool listen, struct address *out)
{
	*out = (struct address){ 0 };
	char host[NAME_BYTES_MAX + 1] = "";
	const char *colon = strrchr(text, ':');
	if (colon == NULL || colon[1] == '\0' || strlen(colon + 1) > 5)
		return ERR_INVALID;
	size_t size = (size_t)(colon - text);
	const char *start = text;
	if (size >= 2 && text[0] == '[' && colon[-1] == ']') {
		start++;
		size -= 2;
	}
	if (size >= sizeof(host) || (size == 0 && !listen))
		return ERR_INVALID;
	memcpy(host, start, size);
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST | (listen ? AI_PASSIVE : 0) };
	struct addrinfo *found = NULL;
	int status = getaddrinfo(size == 0 ? NULL : host, colon + 1, &hints, &found);
	if (status == EAI_NONAME) {
		hints.ai_flags &= ~AI_NUMERICHOST;
		status = getaddrinfo(host, colon + 1, &hints, &found);
	}
	if (status != 0) {
		char escaped[NAME_BYTES_MAX];
		log_warn("address_unknown", "address=%s reason=%d",
			 log_escape(text, strlen(text), escaped, sizeof(escaped)), status);
		return ERR_UNREACHABLE;
	}
	memcpy(&out->storage, found->ai_addr, found->ai_addrlen);
	out->size = found->ai_addrlen;
	freeaddrinfo(found);
	return OK;
}

void address_print(const struct address *address, char out[ADDRESS_TEXT_BYTES])
{
	char host[56] = "?", port[8] = "0";
	int status = getnameinfo((const struct sockaddr *)&address->storage, address->size, host, sizeof(host), port,
				 sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
	if (status != 0)
		snprintf(host, sizeof(host), "?");
	bool v6 = address->storage.ss_family == AF_INET6;
	snprintf(out, ADDRESS_TEXT_BYTES, v6 ? "[%s]:%s" : "%s:%s", host, port);
}
