/* SPDX-License-Identifier: MIT */
#include "image/say.h"

#include <errno.h>
#include <stdarg.h>

struct line {
	char *at;
	char *end; /* one before the last byte, which is for the NUL */
};

static void line_char(struct line *l, char c)
{
	if (l->at < l->end)
		*l->at++ = c;
}

static void line_str(struct line *l, const char *s)
{
	while (*s)
		line_char(l, *s++);
}

static void line_number(struct line *l, uint64_t v, unsigned base)
{
	char digits[24];
	int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n)
		line_char(l, digits[--n]);
}

static void line_errno(struct line *l, int e)
{
	static const struct {
		int value;
		const char name[28];
	} names[] = {
		{ EPERM, "not permitted" },
		{ ENOENT, "no such file or directory" },
		{ EINTR, "interrupted" },
		{ EIO, "I/O error" },
		{ EBADF, "bad descriptor" },
		{ EAGAIN, "not now" },
		{ ENOMEM, "out of memory" },
		{ EACCES, "permission denied" },
		{ EBUSY, "busy" },
		{ EEXIST, "exists" },
		{ ENODEV, "no such device" },
		{ ENOTDIR, "not a directory" },
		{ EINVAL, "invalid" },
		{ EMFILE, "too many descriptors" },
		{ ENOSPC, "no space, or limit of zero" },
		{ ENOSYS, "no such system call" },
		{ EPIPE, "the other end is closed" },
		{ ECONNRESET, "connection reset" },
		{ ETIMEDOUT, "timed out" },
		{ EADDRINUSE, "address in use" },
		{ EADDRNOTAVAIL, "address not available" },
	};

	if (e < 0)
		e = -e;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].value == e) {
			line_str(l, names[i].name);
			return;
		}
	line_str(l, "error ");
	line_number(l, (uint64_t)e, 10);
}

static void line_format(struct line *l, const char *f, va_list ap)
{
	for (; *f; f++) {
		if (*f != '%') {
			line_char(l, *f);
			continue;
		}
		switch (*++f) {
		case 's':
			line_str(l, va_arg(ap, const char *));
			break;
		case 'c':
			line_char(l, (char)va_arg(ap, int));
			break;
		case 'd': {
			int v = va_arg(ap, int);

			if (v < 0)
				line_char(l, '-');
			line_number(l, v < 0 ? -(uint64_t)v : (uint64_t)v, 10);
			break;
		}
		case 'u':
			line_number(l, va_arg(ap, uint64_t), 10);
			break;
		case 'x':
			line_number(l, va_arg(ap, uint64_t), 16);
			break;
		case 'e':
			line_errno(l, va_arg(ap, int));
			break;
		default:
			line_char(l, *f);
		}
	}
}

size_t image_print(char *buf, size_t size, const char *format, ...)
{
	struct line l = { buf, buf + size - 1 };
	va_list ap;

	va_start(ap, format);
	line_format(&l, format, ap);
	va_end(ap);
	*l.at = 0;
	return (size_t)(l.at - buf);
}

int image_say(char why[IMAGE_WHY], const char *format, ...)
{
	struct line l = { why, why + IMAGE_WHY - 1 };
	va_list ap;

	va_start(ap, format);
	line_format(&l, format, ap);
	va_end(ap);
	*l.at = 0;
	return -1;
}
