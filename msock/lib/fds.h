/* SPDX-License-Identifier: MIT */
/*
 * fds.h - every descriptor that the process has, without the C library.
 *
 * A listing of /proc/self/fd makes an inode of each, 3 to 6 us; to ask the kernel whether a number is in use
 * takes 0.1.  So the numbers are tried, unless the table is large and mostly empty.
 */
#ifndef MSOCK_LIB_FDS_H
#define MSOCK_LIB_FDS_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/sys.h"

enum {
	FDS_TRIED = 4096, /* numbers that are tried in any case */
	FDS_SPARSE = 32,  /* numbers tried for each that is known to be in use */
	FDS_TEXT = 4096,  /* bytes of /proc read at once */
};

/* As many numbers as may be had. */
static inline void fds_raise_limit(void)
{
	struct rlimit limit;

	if (ms_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	ms_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&limit, 0);
}

/* flags: what F_GETFD says. */
typedef void fds_call(int fd, int flags, void *arg);

struct fds_dirent {
	uint64_t ino, off;
	uint16_t size;
	uint8_t type;
	char name[];
};

static inline int fds_number(const char *text)
{
	int n = 0;

	if (*text < '0' || *text > '9')
		return -1;
	while (*text >= '0' && *text <= '9')
		n = n * 10 + (*text++ - '0');
	return n;
}

/* No number is as high as this; -1: not known. */
static inline int fds_table_size(void)
{
	static const char name[] = "\nFDSize:\t";
	char text[FDS_TEXT];
	int fd = ms_open("/proc/self/status", O_RDONLY | O_CLOEXEC, 0);
	long n = fd < 0 ? fd : ms_read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		ms_close(fd);
	text[n > 0 ? n : 0] = 0;
	for (long at = 0; at + (long)sizeof(name) <= n; at++)
		if (!__builtin_memcmp(text + at, name, sizeof(name) - 1))
			return fds_number(text + at + sizeof(name) - 1);
	return -1;
}

/* How many there are; 0: this kernel (before 6.2) does not say. */
static inline uint64_t fds_count(void)
{
	struct stat st;

	return ms_fstatat(AT_FDCWD, "/proc/self/fd", &st, 0) ? 0 : (uint64_t)st.st_size;
}

/* All numbers that the process may have, as long as it does not lower its limit. */
static inline int fds_limit(void)
{
	struct rlimit limit;

	return ms_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit) || limit.rlim_cur > INT32_MAX
		       ? INT32_MAX
		       : (int)limit.rlim_cur;
}

static inline int fds_list(fds_call *call, void *arg)
{
	char buf[FDS_TEXT] __attribute__((aligned(8)));
	int dir = ms_open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	long n;

	if (dir < 0)
		return dir;
	while ((n = ms_getdents(dir, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n; at += ((struct fds_dirent *)(buf + at))->size) {
			int fd = fds_number(((struct fds_dirent *)(buf + at))->name);
			long flags = fd < 0 || fd == dir ? -1 : ms_fcntl(fd, F_GETFD, 0);

			if (flags >= 0)
				call(fd, (int)flags, arg);
		}
	}
	ms_close(dir);
	return (int)n;
}

/* Call for each descriptor; `still`: no other thread opens or closes any meanwhile.  0 or -errno. */
static inline int fds_each(bool still, fds_call *call, void *arg)
{
	uint64_t count = fds_count(), seen = 0;
	int size = fds_table_size(), err;

	if (size < 0 || (size > FDS_TRIED && (uint64_t)size / FDS_SPARSE > count)) {
		err = fds_list(call, arg);
		if (err != -EMFILE && err != -ENFILE)
			return err;
		size = size < 0 ? fds_limit() : size; /* none is left to look with */
	}
	for (int fd = 0; fd < size && !(still && count && seen == count); fd++) {
		long flags = ms_fcntl(fd, F_GETFD, 0);

		if (flags < 0)
			continue;
		seen++;
		call(fd, (int)flags, arg);
	}
	return 0;
}

#endif
