/* SPDX-License-Identifier: MIT */
/* Spinning: how long a wait looks for events before it sleeps, learnt from the waits before it. */
#ifndef CH3M_SPIN_H
#define CH3M_SPIN_H

#include <stdint.h>

struct ch3m_spin {
	uint64_t begin_ns, last_ns; /* of the wait that is under way: its begin, the last look */
	uint64_t limit_ns;          /* how long it may spin */
	unsigned looks;
};

void ch3m_spin_init(void);

/* A wait begins, and has ended because there was something. */
void ch3m_spin_begin(struct ch3m_spin *spin);
void ch3m_spin_end(struct ch3m_spin *spin);

/* A look has found nothing. TRUE: look again. FALSE: sleep. */
int ch3m_spin_again(struct ch3m_spin *spin);

#endif
