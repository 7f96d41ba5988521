/* SPDX-License-Identifier: MIT */
/* coordinator.h - msdaemon's link to the job's coordinator. */
#ifndef MSOCK_MSDAEMON_COORDINATOR_H
#define MSOCK_MSDAEMON_COORDINATOR_H

#include "msdaemon/daemon.h"

void coordinator_dial(struct daemon *d, uint32_t ip, uint16_t port);
/* The link of the next one, which has called us. */
void coordinator_take(struct daemon *d, struct link *l);

#endif
