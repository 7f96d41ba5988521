/* SPDX-License-Identifier: MIT */
#include "proto/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = { "error", "warn", "info", "debug", "data" };
static const char *log_name = "msock";
static enum log_level log_limit = LOG_WARN;

void log_open(const char *name)
{
	const char *wish = getenv("MSOCK_DEBUG");

	log_name = name;
	for (int i = LOG_ERROR; wish && i <= LOG_DATA; i++)
		if (!strcmp(wish, level_names[i]))
			log_limit = (enum log_level)i;
}

bool log_wanted(enum log_level level)
{
	return level <= log_limit;
}

static void say(enum log_level level, const char *format, va_list args)
{
	char line[2048];
	int n = 0;

	if (log_limit >= LOG_DEBUG) {
		struct timespec now;

		clock_gettime(CLOCK_MONOTONIC, &now);
		n = snprintf(line, sizeof(line), "%ld.%06ld %s[%d]: ", (long)now.tv_sec % 10000, now.tv_nsec / 1000,
			     log_name, (int)getpid());
	} else {
		n = snprintf(line, sizeof(line), "%s: ", log_name);
	}
	if (level > LOG_WARN)
		n += snprintf(line + n, sizeof(line) - (size_t)n, "%s: ", level_names[level]);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, args);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	/* One write, so that lines of several processes do not mix. Nothing to be done if it fails. */
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return;
}

void log_say(enum log_level level, const char *format, ...)
{
	va_list args;

	if (!log_wanted(level))
		return;
	va_start(args, format);
	say(level, format, args);
	va_end(args);
}

void log_rarely(struct log_gate *g, enum log_level level, const char *format, ...)
{
	struct timespec now;
	va_list args;

	if (!log_wanted(level))
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!g->said || now.tv_sec - g->since >= LOG_GATE_S) {
		if (g->left_out)
			log_say(level, "%u lines like the next were left out", g->left_out);
		*g = (struct log_gate){ .since = (long)now.tv_sec };
	}
	if (g->said == LOG_GATE_LINES) {
		g->left_out++;
		return;
	}
	g->said++;
	va_start(args, format);
	say(level, format, args);
	va_end(args);
}

void log_die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(LOG_ERROR, format, args);
	va_end(args);
	exit(1);
}
