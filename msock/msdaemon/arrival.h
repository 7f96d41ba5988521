/* SPDX-License-Identifier: MIT */
/* arrival.h - a member's move, seen from the daemon of the host that it comes to. */
#ifndef MSOCK_MSDAEMON_ARRIVAL_H
#define MSOCK_MSDAEMON_ARRIVAL_H

#include "msdaemon/member.h"

/* Find out once what namespaces can be had here: takes milliseconds, so not when the first member comes. */
void arrival_probe(struct daemon *d);
/* l: the source's daemon; answers go there. */
void arrival_begin(struct daemon *d, struct link *l, const Ms__MoveIn *in);
void arrival_pump_state(struct daemon *d, const Ms__PumpState *s);
void arrival_image_sent(struct daemon *d, const Ms__ImageSent *s);
/* MS_R_READY, MS_R_IMAGE_OK, MS_R_FAILED, MS_M_RESUMED, MS_M_RELINKED */
void arrival_packet(struct member *m, unsigned type, struct ms_codec *in);
void arrival_link_lost(struct daemon *d, struct link *l);
void arrival_member_died(struct member *m);
/* The coordinator was started again: what waits for its word, and how far the last move is, are said again. */
void arrival_again(struct member *m);
/* The record. False: no such move here. */
bool arrival_outcome(struct daemon *d, const Ms__Outcome *o);

#endif
