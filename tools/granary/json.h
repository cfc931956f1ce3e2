/* JSON on standard output, a value at a time; commas are put where they belong. Text that is not UTF-8 has its stray
 * bytes shown as U+FFFD. Source: RFC 8259. */
#ifndef GRANARY_TOOLS_GRANARY_JSON_H
#define GRANARY_TOOLS_GRANARY_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH_MAX 16u

struct json {
	FILE *to;
	unsigned depth;
	bool follows[JSON_DEPTH_MAX]; /* something stands already on this level */
};

void json_init(struct json *json, FILE *to);
/* key is NULL within an array and at the top. */
void json_open(struct json *json, const char *key, char bracket);
/* Ends the line at the top. */
void json_close(struct json *json, char bracket);
void json_text(struct json *json, const char *key, const char *text);
void json_number(struct json *json, const char *key, uint64_t value);
void json_signed(struct json *json, const char *key, int64_t value);
void json_real(struct json *json, const char *key, double value);
void json_bool(struct json *json, const char *key, bool value);
/* 16 hexadecimal digits, as text: ids do not fit into the numbers of JavaScript. */
void json_id(struct json *json, const char *key, uint64_t id);

#endif
