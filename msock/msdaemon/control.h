/* SPDX-License-Identifier: MIT */
/* control.h - what members and restorers say on their control socket (wire.h), and what is said to them. */
#ifndef MSOCK_MSDAEMON_CONTROL_H
#define MSOCK_MSDAEMON_CONTROL_H

#include "msdaemon/member.h"

extern const struct packets_ops control_ops;

void control_relay(struct member *m, uint32_t from, const void *bytes, size_t size);
void control_ended(struct member *m, uint32_t id, int status);
/* becomes: the program that is to stand in for it; "": none is. */
void control_outcome(struct member *m, uint64_t move, bool committed, const char *becomes);
void control_stats(struct member *m);
/* Answer to HELLO. */
void control_welcome(struct member *m);
void control_serving_ok(struct member *m);
/* The answer to a lookup. */
void control_place(struct member *m, const Ms__Found *f);

#endif
