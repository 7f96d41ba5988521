/* SPDX-License-Identifier: MIT */
/*
 * udp_option.h - the options of a kernel UDP socket, taken from one and given to another.
 *
 * The kernel is asked, not remembered what was set: so what was set by a raw
 * system call or before an exec counts as well.
 */
#ifndef MSOCK_LIB_UDP_OPTION_H
#define MSOCK_LIB_UDP_OPTION_H

#include <sys/socket.h>

struct udp_option {
	struct udp_option *next;
	int level, name;
	socklen_t size;
	unsigned char value[64];
};

/* Those that differ from a fresh socket's. Owned by the caller; NULL if there are none. Lock held. */
struct udp_option *udp_options_take(int fd, int domain);
void udp_options_give(const struct udp_option *o, int fd);
void udp_options_free(struct udp_option *o);

/* One that makes the kernel bring what the library cannot: why the socket then stays where it is; or NULL. */
const char *udp_option_stays(int level, int name);

#endif
