/* SPDX-License-Identifier: MIT */
/* spawn.h - starts a member's program. */
#ifndef MSOCK_MSDAEMON_SPAWN_H
#define MSOCK_MSDAEMON_SPAWN_H

#include "msdaemon/daemon.h"

/* Whatever happens is told to the coordinator: Spawned, or Exit with an error. */
void spawn_member(struct daemon *d, const Ms__Spawn *s);

#endif
