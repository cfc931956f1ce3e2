/* The text that comes with ERR_STALE_VERSION and ERR_NO_CHUNK of a change that has not been begun, here or further down the chain: to send it
 * again is to send it for the first time. */
#ifndef GRANARY_COMMON_PROTO_REFUSAL_H
#define GRANARY_COMMON_PROTO_REFUSAL_H

#define REFUSAL_UNBEGUN "unbegun"

#endif
