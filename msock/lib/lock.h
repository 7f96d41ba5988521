/* SPDX-License-Identifier: MIT */
/*
 * lock.h - a futex lock that needs no TLS, so that the agent can take it too.
 */
#ifndef MSOCK_LIB_LOCK_H
#define MSOCK_LIB_LOCK_H

#include "lib/sys.h"

#include <linux/futex.h>

struct ms_lock {
	uint32_t word; /* 0 free, 1 held, 2 held and waited for */
};

static inline void ms_lock_take(struct ms_lock *lock)
{
	uint32_t seen = 0;

	if (__atomic_compare_exchange_n(&lock->word, &seen, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return;
	while (__atomic_exchange_n(&lock->word, 2, __ATOMIC_ACQUIRE) != 0)
		ms_futex(&lock->word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 2, NULL);
}

static inline void ms_lock_give(struct ms_lock *lock)
{
	if (__atomic_exchange_n(&lock->word, 0, __ATOMIC_RELEASE) == 2)
		ms_futex(&lock->word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL);
}

#endif
