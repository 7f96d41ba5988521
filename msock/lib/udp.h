/* SPDX-License-Identifier: MIT */
/*
 * udp.h - virtual UDP sockets: a kernel socket each, whose datagrams carry the virtual addresses in front.
 *
 * Where a virtual address and port is reached its owner says: udp_way.c.
 * Lock held in all of these.
 */
#ifndef MSOCK_LIB_UDP_H
#define MSOCK_LIB_UDP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/vsock.h"
#include "proto/wire.h"

enum {
	UDP_KEPT_MAX = 1 << 20, /* bytes of one socket that a freeze keeps; a kernel holds no more by default */
	UDP_DATAGRAM = 65536,
};

struct place;

/* A datagram that was in the kernel's queue when the member was frozen. */
struct udp_kept {
	struct udp_kept *next;
	struct sockaddr_in from; /* virtual */
	size_t size;
	uint8_t bytes[];
};

/* Who sent to a socket lately: is told when the member has moved. */
struct udp_sender {
	struct udp_sender *next;
	uint32_t member;
	uint64_t seen_ns;
};

struct udp {
	struct vsock v;      /* its number is the kernel socket's */
	uint16_t port;       /* virtual; 0: not bound */
	uint16_t real_port;
	struct sockaddr_in peer; /* of a connected one; sin_port 0: not connected */
	int error;           /* for the next call on a connected one */
	struct udp_kept *first, *last; /* owned */
	size_t kept;         /* bytes of them */
	struct udp_sender *senders; /* owned */
	struct udp *next;
};

/*
 * In front of each datagram: u32 MS_UDP_MAGIC, u8 version, u8 0, u32 from member, u32 from ip, u16 from port,
 * u32 to ip, u16 to port, cookie of the receiver's member.
 */
enum { UDP_HEAD = 4 + 1 + 1 + 4 + 4 + 2 + 4 + 2 + MS_TOKEN };

/* All return 0 or more, or -errno. */
struct udp *udp_open(int *error);
int udp_bind(struct udp *u, const struct sockaddr_in *at);
int udp_connect(struct udp *u, const struct sockaddr_in *to);
long udp_send(struct udp *u, const struct iovec *iov, int count, const struct sockaddr_in *to);
long udp_receive(struct udp *u, const struct iovec *iov, int count, struct sockaddr_in *from);
void udp_close(struct udp *u);

/* NULL: there is none, or it is no UDP socket. */
static inline struct udp *udp_of(struct vsock *v)
{
	return v && v->kind == VSOCK_UDP ? (struct udp *)((char *)v - offsetof(struct udp, v)) : NULL;
}

struct udp *udp_first(void);
struct udp *udp_of_port(uint16_t port);
/* Register what the application wants to know. */
void udp_sync(struct udp *u);
/* An encoded datagram to a real address. */
long udp_put(struct udp *u, uint32_t ip, uint16_t port, const uint8_t *head, const struct iovec *iov, int count);
/* Nobody is bound to what the socket is connected to. */
void udp_refused(uint32_t ip, uint16_t port);

/* At a freeze: what is queued comes into memory; good for a thaw as well. 0 or -errno. */
int udp_freeze(void);
/* At the target: kernel sockets under the old numbers. */
void udp_resume(void);
/* After that: tell those that sent lately. */
void udp_tell(void);

#endif
