/* SPDX-License-Identifier: MIT */
/*
 * standin.h - forked children of members here that have moved elsewhere.
 *
 * What was the child's process is msstandin from the record of its first move
 * on: its parent signals it and waits for it.  This daemon is for the child what
 * a rank's stub is for a rank: it puts what the child writes to its family's
 * standard output and error into their pipes, passes signals on to it, and has
 * the process end as the child has ended.  It stays here however often the
 * child moves on, also back to this host.
 *
 * The coordinator is told when the process is gone: if the child has not ended
 * it is killed then.
 */
#ifndef MSOCK_MSDAEMON_STANDIN_H
#define MSOCK_MSDAEMON_STANDIN_H

#include "msdaemon/daemon.h"

struct member;

/* m has left, and was forked here: takes its control socket. */
void standin_create(struct member *m);
/* What it has written. False: it is for no stand-in here. */
bool standin_data(struct daemon *d, const Ms__Data *data);
void standin_exit(struct daemon *d, const Ms__Exit *e);
/* Its daemon is another one: say again what that may not have heard. */
void standin_moved(struct daemon *d, const Ms__Moved *moved);
/* The standard input of this member, and so of its family, is at its end. */
void standin_input_ended(struct daemon *d, uint32_t root);
/* Another coordinator. */
void standin_again(struct daemon *d);
size_t standin_count(const struct daemon *d);
void standin_present(const struct daemon *d, Ms__Here *list);

#endif
