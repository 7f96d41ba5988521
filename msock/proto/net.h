/* SPDX-License-Identifier: MIT */
/*
 * net.h - small IPv4 helpers of the job's processes; ip and port are numbers in host order.
 * Functions that return int give -1 with errno.
 */
#ifndef MSOCK_PROTO_NET_H
#define MSOCK_PROTO_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

enum { NET_IP_TEXT = 16 };

struct sockaddr_in net_address(uint32_t ip, uint16_t port);
/* Non-blocking, close-on-exec listener. low 0: any port; else the first free one of low..high. *port gets it. */
int net_listen(uint32_t ip, uint16_t low, uint16_t high, uint16_t *port);
/* Name or number to address; false if there is none. */
bool net_resolve(const char *name, uint32_t *ip);
/* Does the address belong to this machine (in this network namespace)? */
bool net_is_own(uint32_t ip);
/* Own address as somebody at ip sees it; 0 if there is no way. */
uint32_t net_towards(uint32_t ip);
/* Address of a network interface, or of a numeric address or name; 0 if there is none. */
uint32_t net_interface(const char *name);
const char *net_text(uint32_t ip, char text[NET_IP_TEXT]);

#endif
