/* SPDX-License-Identifier: MIT */
/*
 * image_door.h - the port where the image connection of one move comes in: it is the caller who says the move's token.
 *
 * Others are let in as well, a few at a time, and go when they say something
 * else, or nothing for a moment; the daemon waits for none of them.
 */
#ifndef MSOCK_MSDAEMON_IMAGE_DOOR_H
#define MSOCK_MSDAEMON_IMAGE_DOOR_H

#include "msdaemon/daemon.h"

struct image_door;

struct image_door_ops {
	/* The one: blocking; the callee closes it. Called once at most; image_door_close may be called in it. */
	void (*on_caller)(void *user, int sock);
	/* It did not come in time. */
	void (*on_late)(void *user);
};

/* NULL with errno. *port gets the port. */
struct image_door *image_door_open(struct daemon *d, const uint8_t token[MS_TOKEN], unsigned patience_s,
				   const struct image_door_ops *ops, void *user, uint16_t *port);
void image_door_close(struct image_door *x);

#endif
