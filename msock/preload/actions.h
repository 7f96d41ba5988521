/* SPDX-License-Identifier: MIT */
/*
 * actions.h - signal dispositions: the application's handlers behind a trampoline, the kick's kept from it.
 */
#ifndef PRELOAD_ACTIONS_H
#define PRELOAD_ACTIONS_H

/* The only thread that is left did not hold the lock. */
void actions_after_fork_child(void);

#endif
