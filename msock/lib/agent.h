/* SPDX-License-Identifier: MIT */
/*
 * agent.h - threads of the library: raw clones without TLS of their own.
 *
 * The agent runs the engine while there is work and no application thread to
 * do it; the mover runs one move.  What runs on them may call nothing that
 * uses errno, TLS or the C library's locks.
 */
#ifndef MSOCK_LIB_AGENT_H
#define MSOCK_LIB_AGENT_H

#include <stdbool.h>

struct agent_thread; /* a stack and a thread id */

/* Make an agent unless one lives. Lock held. */
void agent_ensure(void);

/* Wait for the agent's end; the engine is paused, the lock is not held. */
void agent_wait_gone(void);

/* Start the mover; one at a time. 0 or -errno. */
int agent_start_mover(void (*run)(void *arg), void *arg);
int agent_mover_tid(void);

/* Is this thread the library's? */
bool agent_is_ours(int tid);

/* At the target: neither lives. */
void agent_reset(void);

#endif
