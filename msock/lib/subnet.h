/* SPDX-License-Identifier: MIT */
/*
 * subnet.h - is an address virtual?  The subnets are those of the job (msock.conf(5)), as the daemon told them.
 */
#ifndef MSOCK_LIB_SUBNET_H
#define MSOCK_LIB_SUBNET_H

#include <stdbool.h>
#include <stdint.h>

enum {
	SUBNET_MAX = 16,                 /* of one job */
	SUBNET_DEFAULT_NET = 0x64400000, /* 100.64.0.0/10, where no configuration names another */
	SUBNET_DEFAULT_BITS = 10,
};

/*
 * Does the address belong to a virtual subnet?  ip is a number in host order.
 * False for every address in a process that is no member, and for 0.0.0.0 and
 * 127.0.0.0/8 always.  Takes no lock: the set does not change after msock_init.
 */
bool subnet_is_virtual(uint32_t ip);

/* At msock_init: one more of them. False: too many, or bits is not 1 to 30. */
bool subnet_add(uint32_t net, unsigned bits);

#endif
