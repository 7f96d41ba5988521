/* SPDX-License-Identifier: MIT */
/* say.h - a reason for the user, put together without the C library. */
#ifndef MSOCK_IMAGE_SAY_H
#define MSOCK_IMAGE_SAY_H

#include "image/image.h"

/*
 * Knows %s, %d (int), %u (uint64_t, decimal), %x (uint64_t, hexadecimal), %c,
 * and %e (an int, errno value of either sign, by name).  Cuts what does not
 * fit.  Always returns -1.
 */
int image_say(char why[IMAGE_WHY], const char *format, ...);

/* The same into a buffer of any size; returns the length. */
size_t image_print(char *buf, size_t size, const char *format, ...);

#endif
