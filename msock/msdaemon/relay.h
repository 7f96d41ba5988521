/* SPDX-License-Identifier: MIT */
/*
 * relay.h - brings relink messages from member to member, wherever they are
 * (protocol.md 28): a cache of places; NOT_HERE sends the message back, the
 * coordinator is asked, which answers when no move of that member is undecided.
 * What is lost on the way is not missed: members repeat until answered.
 */
#ifndef MSOCK_MSDAEMON_RELAY_H
#define MSOCK_MSDAEMON_RELAY_H

#include "msdaemon/daemon.h"

void relay_send(struct daemon *d, uint32_t to, uint32_t from, const void *bytes, size_t size);
/* From another daemon, over l. */
void relay_take(struct daemon *d, struct link *l, const Ms__Relay *r);
void relay_not_here(struct daemon *d, const Ms__NotHere *n);
void relay_where_is(struct daemon *d, const Ms__WhereIs *w);
/* A member was here and has gone to place with move m. */
void relay_learn(struct daemon *d, uint32_t member, const Ms__Place *place, uint64_t m);
/* That member has ended, and was one of very many. */
void relay_forget(struct daemon *d, uint32_t member);
/* The coordinator was started again: ask what it has not answered. */
void relay_again(struct daemon *d);
/* The one to the daemon at this place. */
void relay_link_lost(struct daemon *d, uint32_t ip, uint32_t port);

#endif
