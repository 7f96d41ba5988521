/* SPDX-License-Identifier: MIT */
/* departure.h - a member's move, seen from the daemon of the host that it leaves. */
#ifndef MSOCK_MSDAEMON_DEPARTURE_H
#define MSOCK_MSDAEMON_DEPARTURE_H

#include "msdaemon/member.h"
#include "msdaemon/mirror.h"

void departure_begin(struct daemon *d, const Ms__MoveBegin *b);
void departure_answer(struct daemon *d, const Ms__MoveInAnswer *a);
void departure_ready(struct daemon *d, const Ms__MoveReady *r);
/* MS_M_FROZEN, MS_M_MIRROR, MS_M_IMAGE_SENT, MS_M_MOVE_FAILED */
void departure_packet(struct member *m, unsigned type, struct ms_codec *in, int *fds, unsigned count);
/* port 0: no mirror could be had. */
void departure_mirror_at(struct daemon *d, uint32_t member, uint64_t move, uint16_t port);
void departure_mirror_gone(struct daemon *d, const struct mirror *x);
/* The one to the daemon at this place. */
void departure_link_lost(struct daemon *d, uint32_t ip, uint32_t port, const char *why);
void departure_member_died(struct member *m);
/* The coordinator was started again: what waits for its word is asked for again. */
void departure_again(struct member *m);
/* The record. False: no such move here. */
bool departure_outcome(struct daemon *d, const Ms__Outcome *o);

#endif
