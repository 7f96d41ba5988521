/* SPDX-License-Identifier: MIT */
/*
 * descriptors.c - the library's own descriptors are not there for the application.
 *
 * Closing one gives EBADF, closing a range goes round them, and putting another
 * file under such a number gives EBUSY: chosen over moving ours away, since a
 * kick could come between the look and the move, and EBUSY is what dup2 may
 * say on Linux.  The library takes high numbers, so who counts from below does
 * not meet them.  A child owns none of them.
 */
#include <errno.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/hooks.h"
#include "preload/preload.h"
#include "preload/real.h"
#include "preload/sockets.h"
#include "preload/window.h"

int __close(int fd);
int __dup2(int from, int to);
void closefrom(int lowest);

/* The control socket is protected from the start, before the library takes it. */
static bool descriptor_control(int fd)
{
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == preload.control_dev && st.st_ino == preload.control_ino;
}

/* The smallest own descriptor that is >= from, or -1. */
static int descriptor_next(int from)
{
	int next = msock__next_own_fd(from), control = preload.control_fd;

	if (control >= from && (next < 0 || control < next) && descriptor_control(control))
		next = control;
	return next;
}

static bool descriptor_own(int fd)
{
	if (!preload_active() || fd < 0)
		return false;
	if (fd == preload.control_fd ? !descriptor_control(fd) : !msock__owns_fd(fd))
		return false;
	return preload_own_memory();
}

PRELOAD_API int close(int fd)
{
	int result;

	if (descriptor_own(fd)) {
		errno = EBADF;
		return -1;
	}
	result = sockets_close(fd);
	if (result != MSOCK__NOT_OURS)
		return (int)window_result(result);
	sockets_closing(fd);
	return REAL(close)(fd);
}

PRELOAD_API int __close(int fd)
{
	return close(fd);
}

PRELOAD_API int close_range(unsigned first, unsigned last, int flags)
{
	unsigned from = first;
	int own;

	sockets_closing_range(first, last, flags);
	if (!preload_active() || first > last || !preload_own_memory())
		return REAL(close_range)(first, last, flags);
	while (from <= last && from <= INT32_MAX && (own = descriptor_next(from)) >= 0 && (unsigned)own <= last) {
		if ((unsigned)own > from && REAL(close_range)(from, own - 1, flags) < 0)
			return -1;
		from = own + 1;
	}
	return from <= last ? REAL(close_range)(from, last, flags) : 0;
}

PRELOAD_API void closefrom(int lowest)
{
	int first = lowest > 0 ? lowest : 0;

	if (close_range(first, ~0U, 0) == 0)
		return;
	for (int fd = first, limit = sysconf(_SC_OPEN_MAX); fd < limit; fd++)
		close(fd);
}

static int descriptor_busy(int fd)
{
	static const char text[] = "msock: this descriptor number is the library's own and cannot be replaced\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		return -1;
	errno = EBUSY;
	return -1;
}

PRELOAD_API int dup2(int from, int to)
{
	if (from != to && descriptor_own(to))
		return descriptor_busy(to);
	sockets_replace(from, to);
	return REAL(dup2)(from, to);
}

PRELOAD_API int __dup2(int from, int to)
{
	return dup2(from, to);
}

PRELOAD_API int dup3(int from, int to, int flags)
{
	if (from != to && descriptor_own(to))
		return descriptor_busy(to);
	sockets_replace(from, to);
	return REAL(dup3)(from, to, flags);
}
