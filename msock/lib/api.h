/* SPDX-License-Identifier: MIT */
/* api.h - what the functions of msock.h share: their visibility, and errno. */
#ifndef MSOCK_LIB_API_H
#define MSOCK_LIB_API_H

#include <errno.h>
#include <sys/types.h>

#define API __attribute__((visibility("default")))

/* 0 or more is the result, less is -errno. */
static inline ssize_t api_result(ssize_t n)
{
	if (n >= 0)
		return n;
	errno = (int)-n;
	return -1;
}

#endif
