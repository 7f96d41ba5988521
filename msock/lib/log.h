/* SPDX-License-Identifier: MIT */
/*
 * log.h - one line to stderr, from any thread, by a single write and no libc.
 *
 * Formats know %s %d %u %x (int), %lu %lx (uint64_t) and %a (an IPv4 address
 * in host order), nothing else.
 */
#ifndef MSOCK_LIB_LOG_H
#define MSOCK_LIB_LOG_H

#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_DATA };

extern int log_level; /* MSOCK_DEBUG, read once by log_init */

void log_init(const char *setting);

/* Who speaks: "WORLD.RANK" and host, borrowed for good. */
void log_name(const char *member, const char *host);

void log_line(enum log_level level, const char *format, ...);

/* The same into a buffer; returns the length without the NUL. */
size_t log_format(char *buf, size_t size, const char *format, ...);

#define ms_log(level, ...)                                                                                             \
	do {                                                                                                           \
		if ((int)(level) <= log_level)                                                                         \
			log_line(level, __VA_ARGS__);                                                                  \
	} while (0)

#endif
