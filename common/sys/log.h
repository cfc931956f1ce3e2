/* One line an event: time, level, component, event name, key=value pairs; to standard error, as text or JSON.
 * Cores do not log. The format string gives the pairs: log_warn("chunk_crc_mismatch", "chunk=%016" PRIx64, id).
 * Values that come from outside are passed through log_escape. May be called from any thread. */
#ifndef GRANARY_COMMON_SYS_LOG_H
#define GRANARY_COMMON_SYS_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };
/* The words for them, of the options --log-level and --log-format (OPTION_CHOICE). */
#define LOG_LEVELS "debug|info|warn|error"
#define LOG_FORMATS "text|json"

/* Once, before threads start. component is borrowed for ever ("master"). */
void log_setup(const char *component, enum log_level least, enum log_format format);
void log_event(enum log_level level, const char *event, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Printable ASCII without spaces, quotes and '='; the rest as \xNN. Cuts at size. Returns `out`. */
const char *log_escape(const void *bytes, size_t size_bytes, char *out, size_t out_size);

#define log_debug(event, ...) log_event(LOG_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...) log_event(LOG_INFO, event, __VA_ARGS__)
#define log_warn(event, ...) log_event(LOG_WARN, event, __VA_ARGS__)
#define log_error(event, ...) log_event(LOG_ERROR, event, __VA_ARGS__)

#endif
