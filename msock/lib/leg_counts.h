/* SPDX-License-Identifier: MIT */
/* leg_counts.h - what the kernel has counted of a leg since its birth. */
#ifndef MSOCK_LIB_LEG_COUNTS_H
#define MSOCK_LIB_LEG_COUNTS_H

#include <stdbool.h>
#include <stdint.h>

struct leg_counts {
	uint64_t written, taken; /* bytes by who had it, both ways */
	uint32_t unsent, unread; /* of them */
	bool fin_sent;
};

/* False: it is none any more. Exact once nobody writes: what the peer sends meanwhile is waited out. */
bool leg_count(int fd, struct leg_counts *n);

#endif
