/* SPDX-License-Identifier: MIT */
/*
 * mirror.h - what one msmirror is: the legs of one move of one member, kept until its peers have let go of them.
 *
 * Rules 16 to 19 of doc/protocol.md.  The order of its life:
 *
 *   EMPTY ──START──> FILLING ──end of the list──> HOLDING ──committed──> SERVING ──last leg released──> ends
 *
 * Before SERVING nothing is done to a leg: its socket is still the member's
 * too, and on an abort (or the daemon's end) it stays the member's alone.
 */
#ifndef MSMIRROR_MIRROR_H
#define MSMIRROR_MIRROR_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "msmirror/leg.h"
#include "msmirror/link.h"

enum mirror_state { MIRROR_EMPTY, MIRROR_FILLING, MIRROR_HOLDING, MIRROR_SERVING };

struct mirror {
	enum mirror_state state;
	int control;              /* SEQPACKET to msdaemon; borrowed */
	struct event_base *base;  /* owned */
	struct event *controlled; /* owned */
	struct event *limit;      /* owned; NULL without a time limit */
	unsigned limit_s;         /* after the commit; 0: none */
	uint64_t started_ms;
	uint64_t m; /* of the move that made it */
	uint16_t port;
	struct leg_table legs;
	struct link_set links;
	uint32_t legs_in_all;
	int exit_status;
};

int mirror_init(struct mirror *mirror, int control, size_t window, unsigned limit_s);
/* Until its end; returns the exit status. */
int mirror_run(struct mirror *mirror);
void mirror_fini(struct mirror *mirror);

#endif
