/* SPDX-License-Identifier: MIT */
#include "proto/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct sockaddr_in net_address(uint32_t ip, uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(ip), .sin_port = htons(port) };
}

int net_listen(uint32_t ip, uint16_t low, uint16_t high, uint16_t *port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_in at;
	socklen_t size = sizeof(at);
	int rc = -1;

	if (fd < 0)
		return -1;
	for (unsigned p = low; rc && p <= (low ? high : 0u); p++) {
		at = net_address(ip, (uint16_t)p);
		rc = bind(fd, (struct sockaddr *)&at, sizeof(at));
		if (!rc)
			rc = listen(fd, 128);
		if (rc && errno != EADDRINUSE)
			break;
	}
	if (rc || getsockname(fd, (struct sockaddr *)&at, &size)) {
		int keep = errno;

		close(fd);
		errno = keep;
		return -1;
	}
	*port = ntohs(at.sin_port);
	return fd;
}

bool net_resolve(const char *name, uint32_t *ip)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *list = NULL;
	struct in_addr number;

	if (inet_pton(AF_INET, name, &number) == 1) {
		*ip = ntohl(number.s_addr);
		return true;
	}
	if (getaddrinfo(name, NULL, &hints, &list) || !list)
		return false;
	*ip = ntohl(((struct sockaddr_in *)list->ai_addr)->sin_addr.s_addr);
	freeaddrinfo(list);
	return true;
}

bool net_is_own(uint32_t ip)
{
	struct ifaddrs *list, *i;
	bool own = ip >> 24 == 127;

	if (own || getifaddrs(&list))
		return own;
	for (i = list; i && !own; i = i->ifa_next)
		own = i->ifa_addr && i->ifa_addr->sa_family == AF_INET &&
		      ntohl(((struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr) == ip;
	freeifaddrs(list);
	return own;
}

uint32_t net_towards(uint32_t ip)
{
	struct sockaddr_in to = net_address(ip, 9), own = { 0 };
	socklen_t size = sizeof(own);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return 0;
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) || getsockname(fd, (struct sockaddr *)&own, &size))
		own.sin_addr.s_addr = 0;
	close(fd);
	return ntohl(own.sin_addr.s_addr);
}

uint32_t net_interface(const char *name)
{
	struct ifaddrs *list, *i;
	uint32_t ip = 0;

	if (getifaddrs(&list))
		return 0;
	for (i = list; i && !ip; i = i->ifa_next)
		if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && !strcmp(i->ifa_name, name))
			ip = ntohl(((struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr);
	freeifaddrs(list);
	if (!ip && !net_resolve(name, &ip))
		ip = 0;
	return ip;
}

const char *net_text(uint32_t ip, char text[NET_IP_TEXT])
{
	struct in_addr a = { htonl(ip) };

	return inet_ntop(AF_INET, &a, text, NET_IP_TEXT);
}
