/* SPDX-License-Identifier: MIT */
#include "lib/log.h"

#include "lib/sys.h"

#include <stdarg.h>

int log_level = LOG_ERROR;

static const char *log_member = "-", *log_host = "-";
static const char *const log_levels[] = {
	[LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug", [LOG_DATA] = "data",
};

struct log_text {
	char *at, *end;
};

void log_init(const char *setting)
{
	for (unsigned i = 0; setting && i < sizeof(log_levels) / sizeof(log_levels[0]); i++)
		if (ms_streq(setting, log_levels[i]))
			log_level = (int)i;
}

void log_name(const char *member, const char *host)
{
	log_member = member;
	log_host = host;
}

static void log_put(struct log_text *t, char c)
{
	if (t->at < t->end)
		*t->at++ = c;
}

static void log_put_str(struct log_text *t, const char *s)
{
	while (s && *s)
		log_put(t, *s++);
}

static void log_put_uint(struct log_text *t, uint64_t v, unsigned base)
{
	char digits[24];
	int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n)
		log_put(t, digits[--n]);
}

static void log_put_address(struct log_text *t, uint32_t ip)
{
	for (int shift = 24; shift >= 0; shift -= 8) {
		log_put_uint(t, ip >> shift & 255, 10);
		if (shift)
			log_put(t, '.');
	}
}

static void log_put_int(struct log_text *t, int v)
{
	if (v < 0)
		log_put(t, '-');
	log_put_uint(t, v < 0 ? 0u - (unsigned)v : (unsigned)v, 10);
}

static void log_put_args(struct log_text *t, const char *f, va_list *args)
{
	for (; *f; f++) {
		if (*f != '%') {
			log_put(t, *f);
			continue;
		}
		switch (*++f) {
		case 's':
			log_put_str(t, va_arg(*args, const char *));
			break;
		case 'd':
			log_put_int(t, va_arg(*args, int));
			break;
		case 'u':
			log_put_uint(t, va_arg(*args, unsigned), 10);
			break;
		case 'x':
			log_put_uint(t, va_arg(*args, unsigned), 16);
			break;
		case 'a':
			log_put_address(t, va_arg(*args, uint32_t));
			break;
		case 'l':
			f++;
			log_put_uint(t, va_arg(*args, uint64_t), *f == 'x' ? 16 : 10);
			break;
		default:
			log_put(t, *f);
		}
	}
}

size_t log_format(char *buf, size_t size, const char *format, ...)
{
	struct log_text t = { buf, buf + size - 1 };
	va_list args;

	va_start(args, format);
	log_put_args(&t, format, &args);
	va_end(args);
	*t.at = 0;
	return (size_t)(t.at - buf);
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[512];
	struct log_text t = { line, line + sizeof(line) - 1 };
	va_list args;

	log_put_str(&t, "msock[");
	log_put_str(&t, log_member);
	log_put(&t, '@');
	log_put_str(&t, log_host);
	log_put_str(&t, "] ");
	log_put_str(&t, log_levels[level]);
	log_put_str(&t, ": ");
	va_start(args, format);
	log_put_args(&t, format, &args);
	va_end(args);
	*t.at++ = '\n';
	ms_write(2, line, (size_t)(t.at - line));
}
