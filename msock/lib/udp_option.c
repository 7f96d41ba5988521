/* SPDX-License-Identifier: MIT */
#include "lib/udp_option.h"

#include "lib/mem.h"
#include "lib/sys.h"

#include <netinet/in.h>
#include <netinet/udp.h>

/* Newer than some C libraries' headers. */
enum {
	OPTION_TIMESTAMP_NEW = 63,
	OPTION_TIMESTAMPNS_NEW = 64,
	OPTION_TIMESTAMPING_NEW = 65,
	OPTION_UDP_SEGMENT = 103,
	OPTION_UDP_GRO = 104,
};

static const struct {
	int level, name;
} options[] = {
	{ SOL_SOCKET, SO_REUSEADDR }, /* these two first: a bind comes after them */
	{ SOL_SOCKET, SO_REUSEPORT },
	{ SOL_SOCKET, SO_BROADCAST },
	{ SOL_SOCKET, SO_DONTROUTE },
	{ SOL_SOCKET, SO_KEEPALIVE },
	{ SOL_SOCKET, SO_LINGER },
	{ SOL_SOCKET, SO_NO_CHECK },
	{ SOL_SOCKET, SO_PRIORITY },
	{ SOL_SOCKET, SO_RCVBUF },
	{ SOL_SOCKET, SO_RCVLOWAT },
	{ SOL_SOCKET, SO_RCVTIMEO },
	{ SOL_SOCKET, SO_RXQ_OVFL },
	{ SOL_SOCKET, SO_SNDBUF },
	{ SOL_SOCKET, SO_SNDTIMEO },
	{ SOL_SOCKET, SO_PEEK_OFF },
	{ SOL_SOCKET, SO_TIMESTAMP },
	{ SOL_SOCKET, SO_TIMESTAMPNS },
	{ SOL_SOCKET, SO_TIMESTAMPING },
	{ SOL_SOCKET, OPTION_TIMESTAMP_NEW },
	{ SOL_SOCKET, OPTION_TIMESTAMPNS_NEW },
	{ SOL_SOCKET, OPTION_TIMESTAMPING_NEW },
	{ SOL_SOCKET, SO_ZEROCOPY },
	{ IPPROTO_IP, IP_TOS },
	{ IPPROTO_IP, IP_TTL },
	{ IPPROTO_IP, IP_MTU_DISCOVER },
	{ IPPROTO_IP, IP_MULTICAST_LOOP },
	{ IPPROTO_IP, IP_MULTICAST_TTL },
	{ IPPROTO_IP, IP_OPTIONS },
	{ IPPROTO_IP, IP_PKTINFO },
	{ IPPROTO_IP, IP_RECVERR },
	{ IPPROTO_IP, IP_RECVOPTS },
	{ IPPROTO_IP, IP_RECVORIGDSTADDR },
	{ IPPROTO_IP, IP_RECVTOS },
	{ IPPROTO_IP, IP_RECVTTL },
	{ IPPROTO_IP, IP_RETOPTS },
	{ IPPROTO_IPV6, IPV6_MTU_DISCOVER },
	{ IPPROTO_IPV6, IPV6_MULTICAST_HOPS },
	{ IPPROTO_IPV6, IPV6_MULTICAST_LOOP },
	{ IPPROTO_IPV6, IPV6_RECVERR },
	{ IPPROTO_IPV6, IPV6_RECVHOPLIMIT },
	{ IPPROTO_IPV6, IPV6_RECVPKTINFO },
	{ IPPROTO_IPV6, IPV6_RECVTCLASS },
	{ IPPROTO_IPV6, IPV6_TCLASS },
	{ IPPROTO_IPV6, IPV6_UNICAST_HOPS },
	{ IPPROTO_UDP, UDP_CORK },
	{ IPPROTO_UDP, OPTION_UDP_SEGMENT },
	{ IPPROTO_UDP, OPTION_UDP_GRO },
};

/* What the kernel says is twice what it was told. */
static void option_halve(struct udp_option *o)
{
	int value;

	if (o->level != SOL_SOCKET || (o->name != SO_RCVBUF && o->name != SO_SNDBUF))
		return;
	__builtin_memcpy(&value, o->value, sizeof(value));
	value /= 2;
	__builtin_memcpy(o->value, &value, sizeof(value));
}

static bool option_read(int fd, struct udp_option *o, int level, int name)
{
	o->level = level;
	o->name = name;
	o->size = sizeof(o->value);
	return ms_getsockopt(fd, level, name, o->value, &o->size) == 0;
}

struct udp_option *udp_options_take(int fd, int domain)
{
	struct udp_option *first = NULL, **last = &first;
	int fresh = ms_socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	for (size_t i = 0; fresh >= 0 && i < sizeof(options) / sizeof(*options); i++) {
		struct udp_option o = { 0 }, usual = { 0 };

		if (!option_read(fd, &o, options[i].level, options[i].name) ||
		    !option_read(fresh, &usual, options[i].level, options[i].name) ||
		    (o.size == usual.size && !__builtin_memcmp(o.value, usual.value, o.size)))
			continue;
		option_halve(&o);
		*last = mem_alloc(sizeof(o));
		if (!*last)
			break;
		**last = o;
		last = &(*last)->next;
	}
	if (fresh >= 0)
		ms_close(fresh);
	return first;
}

void udp_options_give(const struct udp_option *o, int fd)
{
	for (; o; o = o->next)
		ms_setsockopt(fd, o->level, o->name, o->value, o->size);
}

void udp_options_free(struct udp_option *o)
{
	while (o) {
		struct udp_option *next = o->next;

		mem_free(o, sizeof(*o));
		o = next;
	}
}

const char *udp_option_stays(int level, int name)
{
	static const char group[] = "a member of a multicast group";

	if (level == IPPROTO_IP &&
	    (name == IP_ADD_MEMBERSHIP || name == IP_ADD_SOURCE_MEMBERSHIP || name == IP_MSFILTER ||
	     name == MCAST_JOIN_GROUP || name == MCAST_JOIN_SOURCE_GROUP || name == MCAST_MSFILTER))
		return group;
	if (level == IPPROTO_IPV6 &&
	    (name == IPV6_JOIN_GROUP || name == IPV6_JOIN_ANYCAST || name == MCAST_JOIN_GROUP ||
	     name == MCAST_JOIN_SOURCE_GROUP || name == MCAST_MSFILTER))
		return group;
	if (level == SOL_SOCKET && name == SO_BINDTODEVICE)
		return "bound to a device";
	return NULL;
}
