/* SPDX-License-Identifier: MIT */
/*
 * balancer.h - msrank-balance as a child of the coordinator: mpiexec's -balance S[:POLICY], or MSOCK_BALANCE.
 *
 * It is a tool like any other, with a connection of its own; what it says of the moves it makes goes to mpiexec's
 * error output.
 */
#ifndef LAUNCHER_BALANCER_H
#define LAUNCHER_BALANCER_H

#include "coord.h"

/* Ends the job, before it has begun, if what is asked for cannot be. */
void balancer_check(struct coord *c);
/* When tools are answered. Nothing happens if it is not asked for. */
void balancer_start(struct coord *c);
/* A child has ended; false if it is not this one. */
bool balancer_reaped(pid_t pid, int status);
/* The coordinator ends. */
void balancer_end(void);

#endif
