#include "common/sys/log.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX 1024

/* The one setting of a process that is not in its struct: set once before threads start. */
static struct {
	const char *component;
	enum log_level least;
	enum log_format format;
} settings = { .component = "granary", .least = LOG_INFO };

void log_setup(const char *component, enum log_level least, enum log_format format)
{
	settings.component = component;
	settings.least = least;
	settings.format = format;
}

static const char *level_name(enum log_level level)
{
	static const char *const names[] = { "debug", "info", "warn", "error" };
	return names[level];
}

struct text {
	char *bytes;
	size_t used;
	size_t size;
};

static void text_add(struct text *text, const char *bytes, size_t size)
{
	if (size > text->size - text->used)
		size = text->size - text->used;
	memcpy(text->bytes + text->used, bytes, size);
	text->used += size;
}

static void text_add_escaped(struct text *text, const char *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (bytes[i] == '"' || bytes[i] == '\\')
			text_add(text, "\\", 1);
		if ((unsigned char)bytes[i] >= 0x20)
			text_add(text, bytes + i, 1);
	}
}

/* `key=value` pairs as JSON members. A word without '=' belongs to the value before it. */
static void json_pairs(const char *pairs, struct text *out)
{
	bool open = false;
	while (*pairs != '\0') {
		size_t word = strcspn(pairs, " ");
		size_t key = strcspn(pairs, "= ");
		if (key > 0 && pairs[key] == '=') {
			text_add(out, open ? "\",\"" : ",\"", open ? 3 : 2);
			text_add_escaped(out, pairs, key);
			text_add(out, "\":\"", 3);
			text_add_escaped(out, pairs + key + 1, word - key - 1);
			open = true;
		} else if (open && word > 0) {
			text_add(out, " ", 1);
			text_add_escaped(out, pairs, word);
		}
		pairs += word + (pairs[word] == ' ');
	}
	if (open)
		text_add(out, "\"", 1);
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
	if (level < settings.least)
		return;
	char pairs[LINE_BYTES_MAX];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(pairs, sizeof(pairs), format, arguments);
	va_end(arguments);

	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	struct tm utc;
	gmtime_r(&now.tv_sec, &utc);
	char time_text[32];
	strftime(time_text, sizeof(time_text), "%Y-%m-%dT%H:%M:%S", &utc);

	char line[3 * LINE_BYTES_MAX];
	int size = 0;
	if (settings.format == LOG_JSON) {
		size = snprintf(line, sizeof(line),
				"{\"time\":\"%s.%06ldZ\",\"level\":\"%s\",\"component\":\"%s\",\"event\":\"%s\"", time_text,
				now.tv_nsec / 1000, level_name(level), settings.component, event);
		struct text text = { .bytes = line, .used = (size_t)size, .size = sizeof(line) };
		json_pairs(pairs, &text);
		text_add(&text, "}\n", 2);
		size = (int)text.used;
	} else {
		size = snprintf(line, sizeof(line), "%s.%06ldZ %s %s %s %s\n", time_text, now.tv_nsec / 1000,
				level_name(level), settings.component, event, pairs);
	}
	/* One write: lines of several threads do not mix. Nobody can be told when it fails. */
	ssize_t written = write(STDERR_FILENO, line, (size_t)size);
	(void)written;
}

const char *log_escape(const void *bytes, size_t size_bytes, char *out, size_t out_size)
{
	const unsigned char *p = bytes;
	size_t used = 0;
	for (size_t i = 0; i < size_bytes; i++) {
		bool plain = p[i] > 0x20 && p[i] < 0x7f && p[i] != '"' && p[i] != '\'' && p[i] != '=' && p[i] != '\\';
		size_t need = plain ? 1 : 4;
		if (used + need + 1 > out_size)
			break;
		if (plain)
			out[used++] = (char)p[i];
		else
			used += (size_t)snprintf(out + used, out_size - used, "\\x%02x", p[i]);
	}
	if (out_size > 0)
		out[used] = '\0';
	return out;
}
