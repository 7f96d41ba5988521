/* SPDX-License-Identifier: MIT */
/*
 * pump.h - carries stdin, stdout, stderr and PMI between a member's
 * descriptors and its stub.
 *
 * The daemon keeps both ends of each pipe: so what the member has not read is
 * known (the last FIONREAD bytes that were written), and no end of file or
 * EPIPE arises but by our own doing.
 */
#ifndef MSOCK_MSDAEMON_PUMP_H
#define MSOCK_MSDAEMON_PUMP_H

#include <event2/event.h>
#include <stdbool.h>

#include "proto/link.h"
#include "proto/wire.h"

struct pump;

/* have: bit n for channel n. coordinator: where the present link to it stands; borrowed. NULL with errno. */
struct pump *pump_create(struct event_base *base, struct link *const *coordinator, uint32_t member, unsigned have);
void pump_destroy(struct pump *p);
unsigned pump_have(const struct pump *p);
/* Its standard input is at its end, or it has none. */
bool pump_input_ended(const struct pump *p);
/* The member's end of a channel (borrowed), -1 if it has none. */
int pump_end(const struct pump *p, unsigned channel);
/* Carry from now on; also sends again what is not acknowledged. */
void pump_start(struct pump *p);
void pump_data(struct pump *p, const Ms__Data *data);
/* Also tells that nobody reads there any more: the member gets EPIPE from then on. */
void pump_ack(struct pump *p, const Ms__Ack *ack);
/* The member is frozen: stop, and take everything out of the pipes that it has written. */
void pump_stop(struct pump *p);
/* After pump_stop: send the state to the target's daemon. */
void pump_state_send(struct pump *p, uint64_t m, struct link *target);
/* At the target, before pump_start. False: it does not fit this pump. */
bool pump_state_put(struct pump *p, const Ms__PumpState *state);
/* The member has ended: send all it wrote. */
void pump_finish(struct pump *p);
/* Send what is not acknowledged again; also after pump_finish. */
void pump_again(struct pump *p);

#endif
