/* SPDX-License-Identifier: MIT */
/*
 * image_entry.h - how the restorer calls the code of the member that it has brought up.
 *
 * Both functions are the library's, at the address they had at the source; the
 * restorer gets it with IMAGE_FREEZE.  They run with no TLS, all signals blocked.
 */
#ifndef MSOCK_IMAGE_ENTRY_H
#define MSOCK_IMAGE_ENTRY_H

#include "image/image.h"

/*
 * The restorer's own memory: code, stacks, tables, the vdso on its way.  No
 * program puts anything there by itself; what does is refused.
 */
#define IMAGE_ZONE 0x1a5b00000000ull
#define IMAGE_ZONE_SIZE (1ull << 32)

enum { IMAGE_ENTRY_VERSION = 3, IMAGE_OBJECTS_MAX = 256 };

struct image_slot;

/* In the zone; the restorer keeps it until the zone goes. */
struct image_arrival {
	uint32_t version; /* IMAGE_ENTRY_VERSION */
	int control_fd;   /* in: where they are; out: where the member wants them */
	int listener_fd;
	int channel_fd[4]; /* -1: none */
	struct {
		uint64_t number; /* image_object(), at the source */
		int fd;
	} object[IMAGE_OBJECTS_MAX]; /* shared memory that is mapped */
	uint32_t objects;
	int pairs, pairs_end; /* unix sockets in pairs, under the numbers pairs to pairs_end - 1 */
	uint64_t *pair_ino;   /* of the first of each */
	bool ids_kept;        /* pid and tids are those of the source */
	uint32_t ready;       /* threads but the main one that have put on their old state; futex word */
	uint32_t go;          /* set by the main thread; futex word */
	const void *msg;      /* MS_D_RESUME, set before the main thread goes */
	size_t msg_bytes;
	char why[IMAGE_WHY];
};

/* Before the commit, single-threaded: descriptors, signal actions, limits, directory. 0, or -1 with why. */
int image_prepare(struct image_arrival *arrival);

/*
 * Once in every thread; in the main one after the commit, in the others before
 * it: they put on their old state and wait for the main one.  Does not return:
 * goes on in image_park.
 */
__attribute__((noreturn)) void image_thread(struct image_slot *slot, struct image_arrival *arrival);

#endif
