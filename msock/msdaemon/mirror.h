/* SPDX-License-Identifier: MIT */
/* mirror.h - an msmirror process of this daemon: it holds the legs that a member left behind. */
#ifndef MSOCK_MSDAEMON_MIRROR_H
#define MSOCK_MSDAEMON_MIRROR_H

#include "msdaemon/member.h"

struct mirror;

/* NULL if there is no mirror to be had. Belongs to the daemon; ends by itself. */
struct mirror *mirror_create(struct daemon *d, uint32_t member, uint64_t m);
/* It was made in advance and is not needed. */
void mirror_discard(struct mirror *x);
/* A packet of the member's list, passed on as it came. */
void mirror_feed(struct mirror *x, const struct ms_codec *in, const int *fds, unsigned count);
/* Calls departure_mirror_at when it is ready, or with port 0 when it failed. */
void mirror_outcome(struct mirror *x, bool committed);
uint32_t mirror_ip(const struct mirror *x);
const uint8_t *mirror_key(const struct mirror *x);
/* Tell the mirrors of a member that it has ended. */
void mirror_member_ended(struct daemon *d, uint32_t member);
bool mirror_reaped(struct daemon *d, pid_t pid, int status);
void mirror_kill_all(struct daemon *d);
unsigned mirror_count(const struct daemon *d);
/* Fills in mirror_count() of them. */
void mirror_present(const struct daemon *d, Ms__Here *list);

#endif
