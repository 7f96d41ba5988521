/* SPDX-License-Identifier: MIT */
/*
 * sockets.h - the program's TCP sockets as virtual ones; off unless the start-up turns it on.
 */
#ifndef PRELOAD_SOCKETS_H
#define PRELOAD_SOCKETS_H

#include <stdbool.h>

/* Sockets are virtual in this process, which runs on its own memory. */
bool sockets_on(void);

/* The process is a member: what it opens from now on may be virtual. */
void sockets_start(bool udp);

/* Closed, for the program's TCP sockets: 0 or -errno; else MSOCK__NOT_OURS. */
int sockets_close(int fd);

/* A number is about to be closed or replaced. */
void sockets_closing(int fd);

void sockets_closing_range(unsigned first, unsigned last, int flags);

/* A descriptor is being duplicated; under this number. */
void sockets_duplicate(int fd);
void sockets_replace(int from, int to);

#endif
