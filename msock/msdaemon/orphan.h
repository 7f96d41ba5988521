/* SPDX-License-Identifier: MIT */
/*
 * orphan.h - a daemon whose coordinator is gone, and the next coordinator.
 *
 *   link lost --> waits, at most ORPHAN_S --the next one calls--> attached
 *
 * mpiexec starts a coordinator that was killed again, once.  The new one calls the daemons' mesh ports; it is told
 * what is here (Present), decides by the job's records, and says Welcome.  Then what waits for an answer is asked for
 * again.  Members, and what they say to each other, go on meanwhile.
 *
 * 1. A coordinator that gives a daemon up, or ends the job, says so on its standard input, or on the link; only one
 *    that was killed says nothing.  So a daemon that waits is not one that its job has written off.
 * 2. The next coordinator's link is not read before the old one is at its end: what the old one had said last is done
 *    first, and Present tells of it.
 * 3. After the last coordinator (Welcome says it) nobody is waited for.
 */
#ifndef MSOCK_MSDAEMON_ORPHAN_H
#define MSOCK_MSDAEMON_ORPHAN_H

#include "msdaemon/daemon.h"

/* The link is lost and was destroyed. False: there is nobody to wait for. */
bool orphan_begin(struct daemon *d);
/* Standard input ended, and nobody had said that we are to end. */
void orphan_stdin_ended(struct daemon *d);
/* Somebody who knows the secret says that it is the next coordinator. The link is ours from now on. */
void orphan_heir(struct daemon *d, struct link *l, const Ms__Hello *hello);
/* Welcome: the new coordinator knows everything now. Does nothing for the first one. */
void orphan_welcomed(struct daemon *d);

#endif
