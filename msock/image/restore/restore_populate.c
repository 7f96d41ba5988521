/* SPDX-License-Identifier: MIT */
/*
 * The pages that were announced, made while the first round of them comes in.
 *
 * Clearing a page costs about what receiving it costs.  The first round comes
 * in order of address and makes its pages itself; a second thread makes them
 * from the other end, and where the two meet it ends.  Nothing else changes
 * the memory meanwhile: whatever is not a page of the first round waits for
 * the thread's end (stream_receive), and so does the freeze.
 */
#include <linux/futex.h>

#include "image/restore/restore.h"

enum { POPULATE_WRITE = 23, STACK = 16384, STEP = 8 << 20 };

static uint32_t at_work; /* futex word; the kernel clears it when the thread is gone */

/* All runs from the last address down, until the pages that have come; the steps' bounds suit huge pages. */
static void populate(void)
{
	for (uint32_t i = restore.run_count; i-- > 0;) {
		uint64_t start = restore.runs[i].start, end = start + restore.runs[i].pages * IMAGE_PAGE;

		while (start < end) {
			uint64_t from = (end - 1) & ~(uint64_t)(STEP - 1);

			if (end <= __atomic_load_n(&restore.reached, __ATOMIC_RELAXED))
				return;
			from = from < start ? start : from;
			ms_madvise((void *)from, end - from, POPULATE_WRITE);
			end = from;
		}
	}
}

static void populate_thread(void *unused)
{
	(void)unused;
	populate();
	ms_exit(0);
}

void populate_start(void)
{
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
			 CLONE_CHILD_CLEARTID,
		.child_tid = (uint64_t)&at_work,
		.stack = (uint64_t)zone_alloc(STACK),
		.stack_size = STACK,
	};

	__atomic_store_n(&restore.reached, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&at_work, 1, __ATOMIC_SEQ_CST);
	if (thread_clone(&args, sizeof(args), populate_thread, NULL) >= 0)
		return;
	__atomic_store_n(&at_work, 0, __ATOMIC_SEQ_CST); /* no more threads are allowed: then one does it all */
	populate();
}

/*
 * The word is cleared when the kernel has counted the thread out of the
 * process, so unshare() of the time namespace finds it single-threaded.
 */
void populate_end(void)
{
	while (__atomic_load_n(&at_work, __ATOMIC_SEQ_CST))
		ms_futex(&at_work, FUTEX_WAIT, 1, NULL);
}
