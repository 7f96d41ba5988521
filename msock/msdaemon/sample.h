/* SPDX-License-Identifier: MIT */
/* sample.h - what msdaemon sees of its host and of its members' processes, told to the coordinator every SAMPLE_S. */
#ifndef MSOCK_MSDAEMON_SAMPLE_H
#define MSOCK_MSDAEMON_SAMPLE_H

#include "msdaemon/daemon.h"

enum { SAMPLE_S = 2 };

struct member;

/* Takes the first sample and goes on taking them. */
void sample_start(struct daemon *d);
/* Room for an entry of each member in a message, all of it unset; to be freed with free. */
Ms__Rank **sample_ranks(const struct daemon *d);
/* Fills in cpu_s, with what it used on the hosts before this one, and rss_bytes; false: there is no such process any more. */
bool sample_process(const struct member *m, Ms__Rank *r);

#endif
