/* SPDX-License-Identifier: MIT */
/* What the ch3 device's own sources see of the channel. */
#ifndef MPIDI_CH3_IMPL_H_INCLUDED
#define MPIDI_CH3_IMPL_H_INCLUDED

#include "mpidimpl.h"

int MPIDI_CH3I_Progress_init(void);
int MPIDI_CH3I_Progress_finalize(void);

/* Ranks share no memory in this channel, so windows in shared memory need no lock. */
#define MPIDI_CH3I_SHM_MUTEX_LOCK(win_ptr)
#define MPIDI_CH3I_SHM_MUTEX_UNLOCK(win_ptr)
#define MPIDI_CH3I_SHM_MUTEX_INIT(win_ptr)
#define MPIDI_CH3I_SHM_MUTEX_DESTROY(win_ptr)

#endif
