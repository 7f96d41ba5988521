/* SPDX-License-Identifier: MIT */
/*
 * farewell.h - members that have ended here: what their stubs may not have got yet, the last bytes and the exit.
 *
 * It is kept until the coordinator says Forget: one that is started again, and the stub that found it, ask for it.
 */
#ifndef MSOCK_MSDAEMON_FAREWELL_H
#define MSOCK_MSDAEMON_FAREWELL_H

#include "msdaemon/daemon.h"
#include "msdaemon/pump.h"

/* It ended with this status, as from wait(2). pump is the farewell's from now on. */
void farewell_say(struct daemon *d, uint32_t member, int status, struct pump *pump, Ms__Relay **last,
		  size_t last_count);
/* It could not be started. */
void farewell_error(struct daemon *d, uint32_t member, const char *error, int code);
/* The whole once more, as far as it is not acknowledged; false: there is none of that member. */
bool farewell_again(struct daemon *d, uint32_t member);
void farewell_ack(struct daemon *d, const Ms__Ack *ack);
void farewell_forget(struct daemon *d, uint32_t member);
size_t farewell_count(const struct daemon *d);
/* Fills in farewell_count() of them. */
void farewell_present(const struct daemon *d, Ms__Here *list);

#endif
