/* SPDX-License-Identifier: MIT */
/*
 * udp_names.h - whose datagram it is: the virtual address behind a real one.
 *
 * A place is noted before anything comes from there (udp_way.h), and stays
 * noted when its owner has moved on, for what is read late; until another
 * socket is noted under the same real address.  Lock held.
 */
#ifndef MSOCK_LIB_UDP_NAMES_H
#define MSOCK_LIB_UDP_NAMES_H

#include <stdbool.h>
#include <stdint.h>

/* All in host order. `now_ns` only tells what is old when there is much. */
void udp_names_put(uint32_t real_ip, uint16_t real_port, uint32_t ip, uint16_t port, uint64_t now_ns);
bool udp_names_get(uint32_t real_ip, uint16_t real_port, uint32_t *ip, uint16_t *port);

#endif
