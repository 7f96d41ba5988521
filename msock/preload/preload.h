/* SPDX-License-Identifier: MIT */
/*
 * preload.h - what the wrappers share: whether this process is a member, and which signal is the library's.
 *
 * In a process that no msdaemon started every wrapper is the C library's
 * function and nothing else.  In a member's forked child the signal wrappers
 * stay, since handlers were installed through them; the descriptors are the
 * child's own.
 */
#ifndef PRELOAD_PRELOAD_H
#define PRELOAD_PRELOAD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PRELOAD_API __attribute__((visibility("default")))

struct preload {
	bool ready;
	bool active;       /* the wrappers do something */
	int kick;          /* kernel number */
	uint64_t kick_bit; /* in a kernel signal set */
	pid_t owner;       /* whose memory this is: differs in a vfork child only */
	int control_fd;    /* MSOCK_FD; -1 in a child */
	dev_t control_dev; /* and which file that is: the library may close it, and the number be taken again */
	ino_t control_ino;
};

extern struct preload preload;

void preload_init(void);

static inline bool preload_active(void)
{
	if (__builtin_expect(!__atomic_load_n(&preload.ready, __ATOMIC_ACQUIRE), 0))
		preload_init();
	return preload.active;
}

/* False in a vfork child, which runs on the member's memory but is another process. */
bool preload_own_memory(void);

/* A forked child goes on alone. */
void preload_after_fork_child(void);

/* The kick's place in a set: whether it is there, and the set without it. */
static inline bool preload_set_has_kick(const sigset_t *set)
{
	return (set->__val[0] & preload.kick_bit) != 0;
}

static inline sigset_t preload_set_without_kick(const sigset_t *set)
{
	sigset_t without = *set;

	without.__val[0] &= ~preload.kick_bit;
	return without;
}

static inline void preload_set_put_kick(sigset_t *set, bool has)
{
	set->__val[0] = (set->__val[0] & ~preload.kick_bit) | (has ? preload.kick_bit : 0);
}

/* The application believes that this thread blocks the kick. */
bool preload_kick_masked(void);
void preload_kick_mask(bool masked);

/* Counts this thread's handlers without SA_RESTART: they end a call that waits. */
volatile unsigned *preload_breaks(void);

#endif
