/* SPDX-License-Identifier: MIT */
/*
 * binding.h - mpiexec's -bind-to and -map-by on any host's topology: which processors the n-th rank there is bound to.
 *
 * The same places as Hydra's own, which counts them on the launch host.  Domains are runs of `map` objects; the ranks
 * go round the domains, and each round takes the next `bind` objects within the domain.
 */
#ifndef MSOCK_MSDAEMON_BINDING_H
#define MSOCK_MSDAEMON_BINDING_H

#include <hwloc.h>
#include <stdbool.h>
#include <stddef.h>

struct binding {
	const char *bind; /* core, numa:2, rr, user:0+1,2 ...; "" or none: nothing is bound */
	const char *map;  /* "": as bind */
};

enum { BINDING_WHY = 200 };

/* Is there one, and can it be told from a topology?  Those by a device (gpu, ib, pci ...) cannot. */
bool binding_known(const struct binding *b);
/* The place of the index-th rank; `set` is empty if it is not bound. 0, or -1 with why this topology has no such place. */
int binding_place(hwloc_topology_t topology, const struct binding *b, unsigned index, hwloc_bitmap_t set,
		  char why[BINDING_WHY]);

#endif
