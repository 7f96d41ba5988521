/* SPDX-License-Identifier: MIT */
/*
 * seat.h - a member's processors on this host: the seat that the job's binding has for it here, and who sits where.
 *
 * The ranks that start on a host have seats 0, 1, ... as Hydra counts them; who comes later gets the lowest that is free.
 * Other daemons on the same machine, as those of 127.0.0.N are, have seats of their own.
 */
#ifndef MSOCK_MSDAEMON_SEAT_H
#define MSOCK_MSDAEMON_SEAT_H

#include <sched.h>

#include "msdaemon/daemon.h"

struct seat {
	char *bind, *map; /* owned; as binding.h has them */
	int number;       /* -1: none */
	cpu_set_t given;  /* without a binding: as mpiexec itself may run; empty if that is everywhere */
	cpu_set_t cpus;   /* here; empty: it is not bound */
};

struct member;

enum { SEAT_LOWEST = -1 };

/* Which: its number, or SEAT_LOWEST. `given`: a cpu_set_t, or nothing. */
void seat_take(struct member *m, const char *bind, const char *map, int which, const ProtobufCBinaryData *given);
void seat_clear(struct seat *s);
/*
 * Bind ourselves as the member is to be, so that a process made now is before it touches a page: its memory comes from
 * the processors' own node.  seat_back undoes it.
 */
void seat_lend(const struct member *m, cpu_set_t *own);
void seat_back(const cpu_set_t *own);
/* In the child, before it runs the program. */
void seat_sit(const struct member *m);

#endif
