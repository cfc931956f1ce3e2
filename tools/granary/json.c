#include "tools/granary/json.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/check.h"

void json_init(struct json *json, FILE *to)
{
	*json = (struct json){.to = to};
}

/* Length of the UTF-8 sequence at `text`, 0 if there is none (RFC 3629). */
static size_t utf8_length(const unsigned char *text)
{
	size_t length = text[0] < 0x80                       ? 1
			: text[0] >= 0xc2 && text[0] <= 0xdf ? 2
			: (text[0] & 0xf0) == 0xe0           ? 3
			: text[0] >= 0xf0 && text[0] <= 0xf4 ? 4
							     : 0;
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
	    (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f))
		return 0;
	return length;
}

static void put_text(struct json *json, const char *text)
{
	fputc('"', json->to);
	for (const unsigned char *p = (const unsigned char *)text; *p;) {
		size_t length = utf8_length(p);
		if (length == 0)
			fputs("\\ufffd", json->to);
		else if (*p == '"' || *p == '\\')
			fprintf(json->to, "\\%c", *p);
		else if (*p < 32)
			fprintf(json->to, "\\u%04x", *p);
		else
			fwrite(p, 1, length, json->to);
		p += length ? length : 1;
	}
	fputc('"', json->to);
}

static void begin(struct json *json, const char *key)
{
	if (json->follows[json->depth])
		fputs(json->depth ? ", " : "", json->to);
	json->follows[json->depth] = true;
	if (key) {
		put_text(json, key);
		fputs(": ", json->to);
	}
}

void json_open(struct json *json, const char *key, char bracket)
{
	begin(json, key);
	fputc(bracket, json->to);
	check(json->depth + 1 < JSON_DEPTH_MAX);
	json->follows[++json->depth] = false;
}

void json_close(struct json *json, char bracket)
{
	check(json->depth > 0);
	fputc(bracket, json->to);
	if (--json->depth == 0)
		fputc('\n', json->to);
}

void json_text(struct json *json, const char *key, const char *text)
{
	begin(json, key);
	put_text(json, text);
}

void json_number(struct json *json, const char *key, uint64_t value)
{
	begin(json, key);
	fprintf(json->to, "%" PRIu64, value);
}

void json_signed(struct json *json, const char *key, int64_t value)
{
	begin(json, key);
	fprintf(json->to, "%" PRId64, value);
}

void json_real(struct json *json, const char *key, double value)
{
	begin(json, key);
	fprintf(json->to, "%.3f", value);
}

void json_bool(struct json *json, const char *key, bool value)
{
	begin(json, key);
	fputs(value ? "true" : "false", json->to);
}

void json_id(struct json *json, const char *key, uint64_t id)
{
	begin(json, key);
	fprintf(json->to, "\"%016" PRIx64 "\"", id);
}
