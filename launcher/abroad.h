/* SPDX-License-Identifier: MIT */
/*
 * abroad.h - other jobs whose members talk with ours (MPI_Comm_connect).
 *
 *   member ── msdaemon ── coordinator ══ coordinator ── msdaemon ── member
 *      └───────────────── legs of streams ─────────────────────────────┘
 *
 * 1. A job's card (proto/card.h) is all that another job needs.  The two
 *    coordinators have a link sealed with the key of the one that was called.
 * 2. Ids and addresses are each job's own.  Over the link each names its own
 *    members as it does at home; at home it gives each of the other's a name
 *    in the world MS_WORLD_ABROAD, for good, by which members and daemons
 *    know it.  So no id can be that of a member here and of one there.
 * 3. Relink messages for such a member go to the coordinator, over the link,
 *    and on as any other; lost ones are repeated (protocol.md 27).
 * 4. A job whose last link is gone has ended: so have its members here.
 */
#ifndef LAUNCHER_ABROAD_H
#define LAUNCHER_ABROAD_H

#include "coord.h"
#include "host.h"

/* Makes this job's card and listens for others. */
void abroad_listen(struct coord *c);

/* A daemon asks for a member of ours: where does that address of another job live? */
void abroad_lookup(struct host *h, const Ms__LookupAbroad *q);
/* A relink message of a member of ours to one abroad. */
void abroad_relay(struct coord *c, const Ms__Relay *relay);
/* The answer to another job's question. */
void abroad_answer(struct link *to, uint32_t asker, Ms__Found *found);
/* A member of ours has ended. */
void abroad_rank_ended(struct coord *c, uint32_t member, int32_t status);

#endif
