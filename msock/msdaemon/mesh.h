/* SPDX-License-Identifier: MIT */
/*
 * mesh.h - links between daemons, opened on demand.  Each daemon sends on the
 * links that it dialled itself; answers come back on the same link.
 */
#ifndef MSOCK_MSDAEMON_MESH_H
#define MSOCK_MSDAEMON_MESH_H

#include "msdaemon/daemon.h"

int mesh_listen(struct daemon *d);
/* The link to another daemon, dialled if need be. Failure is told to departures and relays. */
struct link *mesh_link(struct daemon *d, const Ms__Place *place);

#endif
