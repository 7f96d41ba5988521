/* SPDX-License-Identifier: MIT */
/* coordinator.h - msdaemon's link to the job's coordinator. */
#ifndef MSOCK_MSDAEMON_COORDINATOR_H
#define MSOCK_MSDAEMON_COORDINATOR_H

#include "msdaemon/daemon.h"

void coordinator_dial(struct daemon *d, uint32_t ip, uint16_t port);

#endif
