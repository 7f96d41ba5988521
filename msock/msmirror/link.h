/* SPDX-License-Identifier: MIT */
/*
 * link.h - connections to the mirror: strangers, those that wait for the commit, and the one that is attached.
 *
 *   STRANGER ──right key──> PROVEN ──list is whole──> WAITING ──committed──> ATTACHED
 *       │                     │                          │                      │
 *       └─────────────────────┴── wrong, late, closed, displaced ───────────────┴──> closed
 */
#ifndef MSMIRROR_LINK_H
#define MSMIRROR_LINK_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "msmirror/leg.h"
#include "proto/wire.h"

/* What links share.  `released` is called after a frame that dropped a leg. */
struct link_set {
	struct event_base *base; /* borrowed */
	struct leg_table *legs;  /* borrowed */
	uint32_t member;
	uint64_t m; /* the smallest that may attach; that of the last that did */
	uint8_t key[MS_TOKEN];
	bool committed;
	struct event *listener; /* owned */
	struct link *attached;  /* one of `all` */
	LIST_HEAD(link_list, link) all;
	unsigned unproven; /* of all */
	void (*released)(void *arg);
	void *arg;
};

/* Listen on ip (host order) with a port of the range (0 0: any). Returns the port, 0 on failure. */
uint16_t link_set_listen(struct link_set *set, uint32_t ip, uint16_t lowest, uint16_t highest);
void link_set_close(struct link_set *set);

/* The commit is known: who waits is attached. */
void link_set_commit(struct link_set *set);

/* The table's wake. */
void link_set_wake(void *set);

#endif
