/* SPDX-License-Identifier: MIT */
/*
 * cluster.h - a job's hosts and ranks as a tool sees them in one answer of the coordinator: what each machine has,
 * what runs there, and where a rank would do well.
 *
 * Hosts that are one machine (127.0.0.N) share its processors and memory: moving between them gains nothing.
 */
#ifndef LAUNCHER_CLUSTER_H
#define LAUNCHER_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/control.pb-c.h"

struct machine {
	const char *name; /* borrowed */
	double cores;     /* 0: no figures of it have come */
	double foreign;   /* processors in use by others than the job's ranks */
	uint64_t free_bytes;
	double busy_sum; /* of the hosts that told it */
	unsigned told, ranks;
};

struct place {
	const char *name; /* borrowed */
	size_t machine;
	bool up;
	unsigned ranks; /* that have not ended */
};

struct cluster_rank {
	uint32_t member;
	size_t host;
	double load; /* processors that it used lately; negative: not known; a forked child: 0 until it is */
	uint64_t bytes;
	uint32_t moves;
	bool movable; /* by itself: a forked child may end at any moment, and while it lives its parent is refused */
	const Ms__Rank *told; /* borrowed: peers */
};

struct cluster {
	struct machine *machines;
	struct place *hosts;
	struct cluster_rank *ranks; /* those that have not ended */
	size_t machine_count, host_count, rank_count;
};

enum { CLUSTER_NOWHERE = -1 };

/* Borrows of the answer. */
void cluster_read(const Ms__PsReply *p, struct cluster *c);
void cluster_clear(struct cluster *c);
/* By name; CLUSTER_NOWHERE if there is none. */
long cluster_host(const struct cluster *c, const char *name);
/* Has the host's machine room for its memory? */
bool cluster_fits(const struct cluster *c, const struct cluster_rank *r, size_t host);
/*
 * The host, but not `leave`, where a rank finds most processors: on the machine with the least load for its cores, and
 * there where fewest ranks are.  CLUSTER_NOWHERE if none is up or none has the memory; *short_of_memory tells which.
 */
long cluster_choose(const struct cluster *c, const struct cluster_rank *r, size_t leave, bool *short_of_memory);
/* It was moved. */
void cluster_moved(struct cluster *c, struct cluster_rank *r, size_t host);

#endif
