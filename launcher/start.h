/* SPDX-License-Identifier: MIT */
/* start.h - what a rank is to be started with: all that its stub was started with. */
#ifndef LAUNCHER_START_H
#define LAUNCHER_START_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

#include "proto/control.pb-c.h"

struct start {
	char cwd[4096];
	cpu_set_t cpus;
	uint64_t limits[2 * RLIM_NLIMITS];
};

/* Signals that are ignored now; bit n-1. */
uint64_t start_ignored_signals(void);
/* The descriptor of PMI_FD; -1: there is none. */
int start_pmi_fd(void);
/* mpiexec's -membind has bound us: it would be lost on the way to the rank, which is no child of ours. */
bool start_memory_bound(void);
/* Fills in argv, environment, directory, umask, processors, seat and limits; borrows of s and argv. */
void start_fill(struct start *s, char **argv, Ms__Spawn *spawn);

#endif
