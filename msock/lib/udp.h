/* SPDX-License-Identifier: MIT */
/*
 * udp.h - virtual UDP sockets: the program's own, and those of msock.h.
 *
 * Under the number is a kernel UDP socket, bound to the host's address and
 * any port; what it sends and receives are the program's datagrams and
 * nothing else.  So read, poll, ioctl and the rest are the kernel's own calls.
 * Virtual are the names: whoever gives or takes an address has it translated
 * (udp_names.h, udp_way.h).  A move puts a new kernel socket under the number
 * (udp_move.h).
 *
 * A socket is found by the inode of the file under a number, as sock.h has it.
 * Lock held in all of these.
 */
#ifndef MSOCK_LIB_UDP_H
#define MSOCK_LIB_UDP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/engine.h"
#include "lib/vsock.h"

enum udp_kind {
	UDP_IDLE,    /* has no virtual name */
	UDP_VIRTUAL, /* has one, and its kernel socket a place at the host's address */
	UDP_PLAIN,   /* the kernel's alone, named by an address of the host: it stays where it is */
};

/* What the kernel socket is connected to; a connected one has its program's datagrams sent there. */
enum udp_aim {
	UDP_AT_NOBODY,
	UDP_AT_PEER, /* the place of the one that the program has connected it to */
	UDP_AT_PEN,  /* the library's: datagrams wait there until they may go (udp_pen.h) */
	UDP_AT_WALL, /* where nobody is bound: the kernel says ECONNREFUSED */
};

struct udp_kept;
struct udp_number;
struct udp_option;

struct udp {
	struct vsock v; /* of msock.h; sd -1: the program's own */
	uint64_t ino;
	int domain;
	int number;      /* one that it had; checked before it is used */
	bool duplicated; /* there may be several */
	enum udp_kind kind;
	const char *stays;  /* why it cannot move; NULL: it can */
	bool wildcard;      /* bound to no address in particular */
	bool given;         /* the port came with a send or connect: a disconnect takes it away */
	uint16_t port;      /* virtual */
	uint16_t real_port; /* 0: the kernel socket is not bound by us */
	uint64_t serial;    /* of its place: larger than that of any place a socket of this member had before */
	bool connected;
	struct sockaddr_in peer;
	enum udp_aim aim;
	uint32_t aim_ip;
	uint16_t aim_port;
	uint16_t pen_port; /* the pen that it uses; 0: none yet */
	int catch_fd;      /* udp_catch.h; owned; -1: none */
	struct watch catch;
	uint8_t shut; /* 1: reading, 2: writing */

	struct udp_number *numbers; /* owned; these four while frozen */
	int flags;
	struct udp_option *options;    /* owned */
	struct udp_kept *first, *last; /* owned */
	struct udp *next, *prev, *hash_next;
};

struct udp *udp_first(void);
struct udp *udp_find(int fd);
struct udp *udp_find_inode(uint64_t ino);

/* The kernel socket fd is a virtual one from now on. NULL: no memory. */
struct udp *udp_create(int fd, int domain);
void udp_destroy(struct udp *u);
void udp_rename(struct udp *u, uint64_t ino);

/* A number that it has now, or -1: the program has closed it. */
int udp_number(struct udp *u);

bool udp_has_other_number(const struct udp *u, int fd);

/* A descriptor of the socket whatever the program does to its numbers meanwhile; the caller closes it. -1: it is closed. */
int udp_borrow(struct udp *u);

/* A virtual port's socket, perhaps one that is closed. */
struct udp *udp_pick(uint16_t port, uint32_t from_ip, uint16_t from_port);
/* A virtual port's socket, for one that talks to it from there (0 0: any). What turns out to be closed is put away. */
struct udp *udp_of_port(uint16_t port, uint32_t from_ip, uint16_t from_port);

/* Bind; at is virtual or 0.0.0.0. 0 or -errno. */
int udp_bind(struct udp *u, int fd, const struct sockaddr_in *at);
/* A send or connect needs a name. */
int udp_bind_any(struct udp *u, int fd);

/* Connect to a virtual address, whatever is there. 0 or -errno. */
int udp_connect(struct udp *u, int fd, const struct sockaddr_in *to);
/* A name that came with the connect goes with it. */
int udp_disconnect(struct udp *u, int fd);

/* The virtual name of who has sent the socket something from there; false: a stranger. */
bool udp_name(const struct udp *u, const struct sockaddr_in *from, uint32_t *ip, uint16_t *port);
/* What was received has a virtual name; false: it came from a stranger. here: not before the last move. */
bool udp_translate(struct udp *u, struct msghdr *msg, bool here);

/* Bind the kernel socket at the host's address; port 0: any. Tells the port. 0 or -errno. */
int udp_bind_kernel(int fd, int domain, uint16_t port, uint16_t *real_port);

/* It is at its place: gives it a number in the order of all. */
void udp_placed(struct udp *u);

/* A destination as the kernel wants it for sockets of the domain; returns its size. */
socklen_t udp_address(int domain, uint32_t ip, uint16_t port, struct sockaddr_in6 *space);
/* An IPv4 address out of what may be a mapped one; false: it is none. An IPv6 wildcard counts as 0.0.0.0. */
bool udp_from_address(const void *addr, socklen_t size, struct sockaddr_in *out);

/* May a move begin? NULL, or why not, and for which number. */
const char *udp_stays(int *number);

static inline struct udp *udp_of(struct vsock *v)
{
	return v && v->kind == VSOCK_UDP ? (struct udp *)((char *)v - offsetof(struct udp, v)) : NULL;
}

/* udp_api.c: register what the application wants to know */
void udp_sync(struct udp *u);
void udp_close(struct udp *u);

#endif
