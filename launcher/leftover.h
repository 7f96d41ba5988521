/* SPDX-License-Identifier: MIT */
/* leftover.h - a job's directory that is there already: of a job that runs, or of one that was killed as a whole. */
#ifndef LAUNCHER_LEFTOVER_H
#define LAUNCHER_LEFTOVER_H

#include <stddef.h>

/* The directory, which was there, is ours if its job has ended. 0, or -1 with the reason in why. */
int leftover_take(const char *dir, const char *job, char *why, size_t size);

#endif
