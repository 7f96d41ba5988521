/* SPDX-License-Identifier: MIT */
/*
 * table.h - the address server's table: virtual address to member, real
 * address, data port and the move number it was last verified with.
 */
#ifndef MSOCK_MSMASTER_TABLE_H
#define MSOCK_MSMASTER_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "proto/link.h"
#include "proto/wire.h"

struct table;

struct entry {
	uint32_t virtual_ip; /* 0: free */
	uint32_t member;
	uint32_t ip;
	uint16_t port;
	uint64_t m;
	uint8_t cookie[MS_TOKEN];
	bool ended;
	time_t verified; /* CLOCK_MONOTONIC seconds */
};

struct table *table_create(void);
void table_destroy(struct table *t);
/* False: what is there is newer. */
bool table_put(struct table *t, const Ms__Serving *s);
void table_member_ended(struct table *t, uint32_t member);
/* NULL: unknown. Valid until the next put. */
struct entry *table_find(struct table *t, uint32_t virtual_ip);
/* Forget entries of members that ended more than `age` seconds ago. */
void table_clean(struct table *t, time_t age);

#endif
