/* SPDX-License-Identifier: MIT */
/*
 * figures.h - load and memory of a host, from /proc; from the process's control group where that limits processors.
 *
 * Two hosts of a job may be the same machine (127.0.0.N, a lab): `machine` tells. A group with a limit of its own
 * counts as a machine of its own.
 */
#ifndef MSOCK_MSDAEMON_FIGURES_H
#define MSOCK_MSDAEMON_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

enum { FIGURES_MACHINE = 160, FIGURES_PATH = 512 };

struct figures {
	char machine[FIGURES_MACHINE];
	double cores;
	double busy; /* processors in use since the last call; -1 at the first */
	uint32_t runnable;
	double pressure; /* per cent of the last 10 s; -1: the kernel does not tell */
	uint64_t memory_bytes, free_bytes;
	/* Between calls: */
	double used_s, at_s;
	char cpu_group[FIGURES_PATH], memory_group[FIGURES_PATH]; /* directories; "": the whole machine */
	char used_group[FIGURES_PATH]; /* version 1: who tells what cpu_group has used; "": only the whole machine */
	bool v2, memory_v2;            /* which of the two interfaces these have */
};

/* root: where /proc and /sys are, "" but in tests. */
void figures_open(struct figures *f, const char *root);
void figures_update(struct figures *f, const char *root);

#endif
