/* SPDX-License-Identifier: MIT */
/*
 * log.h - messages of the job's processes on stderr, one line each, with the
 * level that MSOCK_DEBUG asks for (error, warn, info, debug, data).
 */
#ifndef MSOCK_PROTO_LOG_H
#define MSOCK_PROTO_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_DATA };

/* name is borrowed and stands before every line. Reads MSOCK_DEBUG. */
void log_open(const char *name);
bool log_wanted(enum log_level level);
void log_say(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* For what others can cause as often as they like: some lines in LOG_GATE_S seconds, then how many were left out. */
enum { LOG_GATE_S = 10, LOG_GATE_LINES = 3 };
struct log_gate { /* all 0 to begin with */
	long since;
	unsigned said, left_out;
};
void log_rarely(struct log_gate *g, enum log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* As log_say at LOG_ERROR, then exit(1). */
void log_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
