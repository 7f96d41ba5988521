/* SPDX-License-Identifier: MIT */
/*
 * image_needs.h - what a process needs of a host: files, processor, memory.
 *
 * Ordinary libc code for daemons (libmsspawn).  The source's daemon collects,
 * carries the bytes to the target's as they are, and that one checks.  The
 * process goes on meanwhile, so its files come and go, and what the target
 * looks for may be what was: what it refuses, the source looks at again.
 * The restorer, which opens the files of a frozen process, is what decides;
 * this is to refuse before anything was sent.  Hashes of files are kept as long
 * as the daemon lives, by device, inode, size and time of change.
 */
#ifndef MSOCK_IMAGE_NEEDS_H
#define MSOCK_IMAGE_NEEDS_H

#include <stdbool.h>
#include <sys/types.h>

#include "image/image.h"

struct image_needs_file;

struct image_needs_blob {
	uint8_t *bytes; /* image_needs_free */
	size_t size;
	struct image_needs_file *files; /* where each of them was found; stays here */
	uint32_t count;
};

/* For the process with this number in the caller's namespace. 0, or -1 and why. */
int image_needs_collect(pid_t pid, struct image_needs_blob *needs, char why[IMAGE_WHY]);

void image_needs_free(struct image_needs_blob *needs);

/* 0 if this host has it all; -1 and the first that is missing or differs, by name and, if it is a file, from 1 on. */
int image_needs_check(const void *bytes, size_t size, uint32_t *which, char why[IMAGE_WHY]);

/*
 * Whether a refusal for the sake of this file holds: the process has it still, under this name, and nobody has written
 * to it since.  False: less is asked for from now on, at most twice less for each file, and the target has to check anew.
 */
bool image_needs_holds(struct image_needs_blob *needs, pid_t pid, uint32_t which);

#endif
