/* SPDX-License-Identifier: MIT */
/* Spinning: how a wait looks for events before it sleeps, learnt from the waits before it. */
#ifndef CH3M_SPIN_H
#define CH3M_SPIN_H

#include <stdint.h>

enum ch3m_spin_plan {
	CH3M_SPIN_NOT,  /* sleep at once: msock_wait finds what is there as well */
	CH3M_SPIN_ONCE, /* look at the hot connection, then sleep */
	CH3M_SPIN_LONG, /* look until the limit, then sleep */
};

struct ch3m_spin {
	enum ch3m_spin_plan plan;
	unsigned looks;
	uint64_t begin_ns; /* of the spinning, read when some looks have found nothing */
	uint64_t last_ns;
};

void ch3m_spin_init(void);

/* A wait begins. has_hot: there is a hot connection. */
void ch3m_spin_begin(struct ch3m_spin *spin, int has_hot);

/* TRUE: look (again). FALSE: sleep. */
int ch3m_spin_again(struct ch3m_spin *spin);

/* A look has found something. */
void ch3m_spin_found(struct ch3m_spin *spin);

#endif
