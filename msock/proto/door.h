/* SPDX-License-Identifier: MIT */
/*
 * door.h - a TCP port where links come in: who calls is a stranger until it has proved that it knows the job's secret.
 *
 * 1. Nobody sees a link before that; strangers cost a bounded number of
 *    descriptors and, at most, a few lines in the log.
 * 2. on_link must give the link its own callbacks (link_set_user) or destroy it.
 *    What the caller says comes after it.
 * 3. When too many strangers stand there, the one that came first goes. A
 *    caller who knows the secret is through in two round trips.
 */
#ifndef MSOCK_PROTO_DOOR_H
#define MSOCK_PROTO_DOOR_H

#include "proto/link.h"

/*
 * Listen on ip, any port, which *port gets; for the life of the process.  secret is borrowed.
 * 0 or -1 with errno.
 */
int door_open(struct event_base *base, uint32_t ip, const uint8_t *secret, void (*on_link)(void *user, struct link *l),
	      void *user, uint16_t *port);

#endif
