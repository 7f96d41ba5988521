/* SPDX-License-Identifier: MIT */
/*
 * transfers.h - the calls that carry bytes, where a kick would be seen.
 */
#ifndef PRELOAD_TRANSFERS_H
#define PRELOAD_TRANSFERS_H

#include <stdbool.h>

/* The program has set this option of a socket. */
void transfers_note_option(int level, int name);

/* A time limit has been set on some socket. */
bool transfers_timed(void);

#endif
