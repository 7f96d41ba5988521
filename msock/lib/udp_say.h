/* SPDX-License-Identifier: MIT */
/*
 * udp_say.h - the relay messages of UDP sockets, as wire.h has them.  Lock held.
 */
#ifndef MSOCK_LIB_UDP_SAY_H
#define MSOCK_LIB_UDP_SAY_H

#include <stdint.h>

struct udp_way;

void udp_say_where(const struct udp_way *w);
/*
 * Nobody is bound to the port: answers who asked from the place `asker`; or
 * (0) says unasked that the place `gone` is not any more.
 */
void udp_say_nobody(uint32_t member, uint16_t port, uint16_t to_port, uint64_t asker, uint64_t gone);
void udp_say_at(const struct udp_way *w);
void udp_say_noted(const struct udp_way *w);

/* MS_RL_UDP_HOLD or HELD. */
void udp_say_number(uint32_t member, uint8_t type, uint64_t m);
/* The first serial of the new places, 0: it did not move. */
void udp_say_go(uint32_t member, uint64_t serial, uint64_t m);

#endif
