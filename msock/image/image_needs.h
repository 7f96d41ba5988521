/* SPDX-License-Identifier: MIT */
/*
 * image_needs.h - what a process needs of a host: files, processor, memory.
 *
 * Ordinary libc code for daemons (libmsspawn).  The source's daemon collects,
 * carries the bytes to the target's as they are, and that one checks.  Hashes
 * of files are kept as long as the daemon lives, by device, inode, size and
 * time of change.
 */
#ifndef MSOCK_IMAGE_NEEDS_H
#define MSOCK_IMAGE_NEEDS_H

#include <sys/types.h>

#include "image/image.h"

struct image_needs_blob {
	uint8_t *bytes; /* image_needs_free */
	size_t size;
};

/* For the process with this number in the caller's namespace. 0, or -1 and why. */
int image_needs_collect(pid_t pid, struct image_needs_blob *needs, char why[IMAGE_WHY]);

void image_needs_free(struct image_needs_blob *needs);

/* 0 if this host has it all; -1 and the first that is missing or differs, by name. */
int image_needs_check(const void *bytes, size_t size, char why[IMAGE_WHY]);

#endif
