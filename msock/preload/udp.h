/* SPDX-License-Identifier: MIT */
/*
 * udp.h - the program's UDP sockets: addresses given and taken by it are virtual ones.
 */
#ifndef PRELOAD_UDP_H
#define PRELOAD_UDP_H

#include <stdbool.h>
#include <sys/socket.h>

/* The kernel's result, or MSOCK__NOT_OURS: the C library's call is to be made. errno is set. */
int udp_connect(int fd, const struct sockaddr *addr, socklen_t size);
ssize_t udp_send(int fd, const struct msghdr *msg, int flags);

/* One of the program's virtual UDP sockets; and a datagram of it, with the name of who sent it. */
bool udp_is_ours(int fd);
ssize_t udp_receive(int fd, struct msghdr *msg, int flags);
ssize_t udp_receive_from(int fd, void *bytes, size_t n, int flags, struct sockaddr *addr, socklen_t *size);

/* The number is about to be closed: waits, not for long, until what was sent has gone. */
void udp_closing(int fd);

/* Before the program ends. */
void udp_finish(void);

#endif
