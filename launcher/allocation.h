/* SPDX-License-Identifier: MIT */
/*
 * allocation.h - the Slurm allocation that mpiexec runs in: which hosts belong to it, and srun as the way to them.
 *
 * A job that was started in an allocation stays there: no host outside of it holds a rank, at the start or after a move.
 */
#ifndef LAUNCHER_ALLOCATION_H
#define LAUNCHER_ALLOCATION_H

#include "coord.h"

/* Looks for one in the environment; c->allocation stays NULL without.  What cannot be found out ends the job. */
void allocation_find(struct coord *c);
/* Is the host in it?  All are when there is none. */
bool allocation_has(const struct coord *c, const char *host, uint32_t ip);
/* "its name and nodes", for messages; only if there is one. */
const char *allocation_text(const struct coord *c);
/* The words before a program's that run it on a node; argv has room for launch_count + ALLOCATION_WORDS.  Returns how many. */
enum { ALLOCATION_WORDS = 12 };
size_t allocation_shell(const struct coord *c, char **argv, char *node);

#endif
