/* SPDX-License-Identifier: MIT */
#include "msock.h"

#include "lib/api.h"
#include "lib/core.h"
#include "lib/udp.h"

#include <arpa/inet.h>
#include <errno.h>

API int msock_udp_open(void)
{
	struct udp *u;
	int error = ENOTCONN;

	core_enter();
	u = core.on ? udp_open(&error) : NULL;
	core_leave();
	return (int)api_result(u ? u->v.sd : -error);
}

API int msock_udp_bind(int sd, struct sockaddr_in *at)
{
	struct udp *u;
	int err = -EBADF;

	core_enter();
	u = udp_of(vsock_get(sd));
	if (u)
		err = udp_bind(u, at);
	if (!err)
		*at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(u->port),
					    .sin_addr.s_addr = htonl(core.virtual_ip) };
	core_leave();
	return (int)api_result(err);
}

API int msock_udp_connect(int sd, const struct sockaddr_in *to)
{
	struct udp *u;
	int err = -EBADF;

	core_enter();
	u = udp_of(vsock_get(sd));
	if (u)
		err = udp_connect(u, to);
	core_leave();
	return (int)api_result(err);
}

API ssize_t msock_udp_sendto(int sd, const struct iovec *iov, int count, const struct sockaddr_in *to)
{
	struct udp *u;
	long n = -EBADF;

	core_enter();
	u = udp_of(vsock_get(sd));
	if (u)
		n = udp_send(u, iov, count, to);
	core_leave();
	return api_result(n);
}

API ssize_t msock_udp_recvfrom(int sd, const struct iovec *iov, int count, struct sockaddr_in *from)
{
	struct sockaddr_in nobody;
	struct udp *u;
	long n = -EBADF;

	core_enter();
	u = udp_of(vsock_get(sd));
	if (u)
		n = udp_receive(u, iov, count, from ? from : &nobody);
	core_leave();
	return api_result(n);
}
