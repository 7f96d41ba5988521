/* SPDX-License-Identifier: MIT */
/* The progress engine's entry points, as the device calls them. */
#ifndef MPIDI_CH3_POST_H_INCLUDED
#define MPIDI_CH3_POST_H_INCLUDED

#if !defined(MPIDI_CH3_EAGER_MAX_MSG_SIZE)
#define MPIDI_CH3_EAGER_MAX_MSG_SIZE (256 * 1024)
#endif

int MPIDI_CH3I_Progress(int blocking, MPID_Progress_state *state);

#define MPIDI_CH3_Progress_start(progress_state_)                                                                      \
	do {                                                                                                           \
		(progress_state_)->ch.completion_count = MPIDI_CH3I_progress_completion_count;                         \
	} while (0)
#define MPIDI_CH3_Progress_end(progress_state_)                                                                        \
	do {                                                                                                           \
	} while (0)
#define MPIDI_CH3_Progress_wait(progress_state_) MPIDI_CH3I_Progress(TRUE, progress_state_)
#define MPIDI_CH3_Progress_test() MPIDI_CH3I_Progress(FALSE, NULL)
#define MPIDI_CH3_Progress_poke() MPIDI_CH3I_Progress(FALSE, NULL)

#endif
