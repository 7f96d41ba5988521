/* SPDX-License-Identifier: MIT */
/* What the preload's wrappers ask about the program's UDP sockets (hooks.h). Never waits. */
#include "lib/hooks.h"

#include "lib/calls.h"
#include "lib/udp.h"
#include "lib/udp_names.h"
#include "lib/udp_option.h"
#include "lib/udp_pen.h"
#include "lib/udp_way.h"

#include <errno.h>

enum { CALLS_CONTROL = 512 }; /* bytes of ancillary data that may have an address in them */

bool msock__udp_any(void)
{
	return udp_first() != NULL;
}

void msock__udp_new(int fd, int domain)
{
	uint64_t mask;

	if (!core.on || !core.member)
		return;
	mask = calls_enter();
	udp_create(fd, domain);
	calls_leave(mask, 0);
}

void msock__udp_duplicated(int fd)
{
	struct udp *u;
	uint64_t mask;

	if (!udp_first())
		return;
	mask = calls_enter();
	u = udp_find(fd);
	if (u)
		u->duplicated = true;
	calls_leave(mask, 0);
}

/* From here on it is the kernel's alone. */
static int calls_give_up(struct udp *u, const char *why)
{
	if (u->kind == UDP_IDLE)
		u->kind = UDP_PLAIN;
	u->stays = why;
	return MSOCK__NOT_OURS;
}

/* Virtual addresses are IPv4's: a socket that speaks IPv6 only cannot have one. */
static bool calls_is_six_only(const struct udp *u, int fd)
{
	int only = 0;
	socklen_t size = sizeof(only);

	return u->domain == AF_INET6 && !ms_getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &size) && only;
}

int msock__udp_bind(int fd, const struct sockaddr *addr, socklen_t size)
{
	int result = MSOCK__NOT_OURS;
	struct sockaddr_in at;
	struct udp *u;
	uint64_t mask;

	if (!udp_first() || !core.on)
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	u = udp_find(fd);
	if (u && u->kind != UDP_PLAIN) {
		if (udp_from_address(addr, size, &at) && (u->domain == AF_INET6 || addr->sa_family == AF_INET) &&
		    !calls_is_six_only(u, fd) && (at.sin_addr.s_addr == INADDR_ANY || calls_is_virtual(&at)))
			result = udp_bind(u, fd, &at);
		else if (u->kind == UDP_VIRTUAL)
			result = -EINVAL;
		else
			result = calls_give_up(u, "bound to an address of its host");
	}
	return (int)calls_leave(mask, result);
}

int msock__udp_connect(int fd, const struct sockaddr *addr, socklen_t size)
{
	int result = MSOCK__NOT_OURS;
	struct sockaddr_in to;
	struct udp *u;
	uint64_t mask;

	if (!udp_first() || !core.on)
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	u = udp_find(fd);
	if (!u || u->kind == UDP_PLAIN)
		result = MSOCK__NOT_OURS;
	else if (addr && size >= sizeof(sa_family_t) && addr->sa_family == AF_UNSPEC)
		result = u->connected ? udp_disconnect(u, fd) : MSOCK__NOT_OURS;
	else if (udp_from_address(addr, size, &to) && calls_is_virtual(&to))
		result = udp_connect(u, fd, &to);
	else if (u->kind == UDP_VIRTUAL && !u->wildcard)
		result = -ENETUNREACH; /* there is no way from a virtual address to the world */
	else
		result = calls_give_up(u, "connected to an address outside the job");
	return (int)calls_leave(mask, result);
}

bool msock__udp_settled(int fd)
{
	struct udp_way *w;
	bool settled = true;
	struct udp *u;
	uint64_t mask;

	if (!udp_first())
		return true;
	mask = calls_enter();
	u = udp_find(fd);
	w = u && u->connected ? udp_way_find(u, ntohl(u->peer.sin_addr.s_addr), ntohs(u->peer.sin_port)) : NULL;
	if (w)
		settled = udp_way_open(w) || w->nobody || !core.on;
	calls_leave(mask, 0);
	return settled;
}

static int calls_name(const struct udp *u, bool peer, void *addr, socklen_t *size)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(u->port) };
	struct sockaddr_in6 space;
	socklen_t have;

	if (peer && !u->connected)
		return -ENOTCONN;
	if (peer)
		at = u->peer;
	else if (u->port && (!u->wildcard || u->connected))
		at.sin_addr.s_addr = htonl(core.virtual_ip);
	have = udp_address(u->domain, ntohl(at.sin_addr.s_addr), ntohs(at.sin_port), &space);
	if (u->domain == AF_INET6 && at.sin_addr.s_addr == INADDR_ANY)
		space.sin6_addr = in6addr_any;
	__builtin_memcpy(addr, &space, *size < have ? *size : have);
	*size = have;
	return 0;
}

int msock__udp_name(int fd, bool peer, struct sockaddr *addr, socklen_t *size)
{
	int result = MSOCK__NOT_OURS;
	struct udp *u;
	uint64_t mask;

	if (!udp_first())
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	u = udp_find(fd);
	if (u && u->kind != UDP_PLAIN && (u->real_port || u->connected))
		result = calls_name(u, peer, addr, size);
	return (int)calls_leave(mask, result);
}

void msock__udp_option(int fd, int level, int name)
{
	const char *why = udp_option_stays(level, name);
	struct udp *u;
	uint64_t mask;

	if (!why || !udp_first())
		return;
	mask = calls_enter();
	u = udp_find(fd);
	if (u)
		calls_give_up(u, why);
	calls_leave(mask, 0);
}

void msock__udp_shut(int fd, int how)
{
	struct udp *u;
	uint64_t mask;

	if (!udp_first())
		return;
	mask = calls_enter();
	u = udp_find(fd);
	if (u)
		u->shut |= how == SHUT_RD ? 1 : how == SHUT_WR ? 2 : 3;
	calls_leave(mask, 0);
}

/* IP_PKTINFO that names our virtual address as the source: at the kernel socket it is the only one. */
static void calls_control_out(struct msghdr *msg, char space[CALLS_CONTROL])
{
	if (!msg->msg_control || msg->msg_controllen > CALLS_CONTROL)
		return;
	__builtin_memcpy(space, msg->msg_control, msg->msg_controllen);
	msg->msg_control = space;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		struct in_pktinfo info;

		if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_PKTINFO || c->cmsg_len < CMSG_LEN(sizeof(info)))
			continue;
		__builtin_memcpy(&info, CMSG_DATA(c), sizeof(info));
		if (ntohl(info.ipi_spec_dst.s_addr) == core.virtual_ip)
			info.ipi_spec_dst.s_addr = htonl(core.real_ip);
		__builtin_memcpy(CMSG_DATA(c), &info, sizeof(info));
	}
}

static long calls_send(struct udp *u, int fd, const struct msghdr *msg, const struct sockaddr_in *to, int flags)
{
	char space[CALLS_CONTROL] __attribute__((aligned(8)));
	struct msghdr bare = *msg;
	struct udp_way *w;
	int err = udp_bind_any(u, fd);

	if (err)
		return err;
	w = udp_way_get(u, ntohl(to->sin_addr.s_addr), ntohs(to->sin_port));
	if (!w)
		return -ENOBUFS;
	if (!core.on && !udp_way_open(w))
		return -ENETUNREACH; /* a forked child cannot ask */
	if (u->shut & 2)
		return -EPIPE;
	if (!to->sin_port)
		return -EINVAL;
	bare.msg_name = NULL;
	bare.msg_namelen = 0;
	calls_control_out(&bare, space);
	return udp_way_send(w, fd, &bare, flags);
}

long msock__udp_send(int fd, const struct msghdr *msg, int flags)
{
	long result = MSOCK__NOT_OURS;
	struct sockaddr_in to;
	struct udp *u;
	uint64_t mask;

	if (!udp_first() || !msg->msg_name)
		return MSOCK__NOT_OURS;
	mask = calls_enter();
	u = udp_find(fd);
	if (!u)
		result = MSOCK__NOT_OURS;
	else if (!udp_from_address(msg->msg_name, msg->msg_namelen, &to))
		result = u->kind == UDP_VIRTUAL ? MSOCK__NOT_OURS
						: calls_give_up(u, "used with an address outside the job");
	else if (calls_is_virtual(&to))
		result = core.on || u->kind == UDP_VIRTUAL ? calls_send(u, fd, msg, &to, flags) : -ENETUNREACH;
	else if (u->kind == UDP_VIRTUAL && !u->wildcard)
		result = -ENETUNREACH;
	else if (u->kind != UDP_PLAIN || !u->stays)
		result = calls_give_up(u, "used with an address outside the job");
	return calls_leave(mask, result);
}

/* The real destination in IP_PKTINFO and IP_ORIGDSTADDR is the virtual address. */
static void calls_control_in(struct msghdr *msg, const struct udp *u)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		struct in_pktinfo info;
		struct sockaddr_in at;

		if (c->cmsg_level != IPPROTO_IP)
			continue;
		if (c->cmsg_type == IP_PKTINFO && c->cmsg_len >= CMSG_LEN(sizeof(info))) {
			__builtin_memcpy(&info, CMSG_DATA(c), sizeof(info));
			info.ipi_addr.s_addr = info.ipi_spec_dst.s_addr = htonl(core.virtual_ip);
			__builtin_memcpy(CMSG_DATA(c), &info, sizeof(info));
		} else if (c->cmsg_type == IP_ORIGDSTADDR && c->cmsg_len >= CMSG_LEN(sizeof(at))) {
			__builtin_memcpy(&at, CMSG_DATA(c), sizeof(at));
			at.sin_addr.s_addr = htonl(core.virtual_ip);
			at.sin_port = htons(u->port);
			__builtin_memcpy(CMSG_DATA(c), &at, sizeof(at));
		}
	}
}

unsigned long msock__udp_moves(void)
{
	return core.moves;
}

bool msock__udp_received(int fd, struct msghdr *msg, unsigned long moves)
{
	bool known = true;
	struct udp *u;
	uint64_t mask;

	if (!udp_first())
		return true;
	mask = calls_enter();
	u = udp_find(fd);
	if (u && u->kind == UDP_VIRTUAL) {
		known = udp_translate(u, msg, moves == core.moves) || u->stays;
		calls_control_in(msg, u);
	}
	calls_leave(mask, 0);
	return known;
}

bool msock__udp_is(int fd)
{
	struct udp *u;
	uint64_t mask;

	if (!udp_first())
		return false;
	mask = calls_enter();
	u = udp_find(fd);
	calls_leave(mask, 0);
	return u && u->kind == UDP_VIRTUAL;
}

unsigned long msock__udp_inode(int fd)
{
	unsigned long ino = 0;
	struct udp *u;
	uint64_t mask;

	if (!udp_first() || !core.on)
		return 0;
	mask = calls_enter();
	u = udp_find(fd);
	if (u)
		ino = u->ino;
	calls_leave(mask, 0);
	return ino;
}

void msock__udp_closing(int fd)
{
	uint64_t mask = calls_enter();
	struct udp *u = udp_find(fd);

	if (u && (!u->duplicated || !udp_has_other_number(u, fd)))
		udp_destroy(u);
	calls_leave(mask, 0);
}

unsigned msock__udp_unsent(unsigned long ino)
{
	const struct udp *u = NULL;
	unsigned unsent = 0;
	uint64_t mask;

	if (!udp_first() || !core.on)
		return 0;
	mask = calls_enter();
	if (ino)
		u = udp_find_inode(ino);
	if (u || !ino)
		unsent = udp_way_unsent(u);
	calls_leave(mask, 0);
	return unsent;
}

const uint32_t *msock__udp_changes(void)
{
	return &udp_way_changes;
}
