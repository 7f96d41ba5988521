/* SPDX-License-Identifier: MIT */
/*
 * sockets.h - the program's TCP sockets as virtual ones; off unless the start-up turns it on.
 */
#ifndef PRELOAD_SOCKETS_H
#define PRELOAD_SOCKETS_H

/* The process is a member: what it opens from now on may be virtual. */
void sockets_start(void);

/* A descriptor is being duplicated. */
void sockets_duplicate(int fd);

#endif
