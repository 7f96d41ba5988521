/* SPDX-License-Identifier: MIT */
#include "msock.h"

#include "lib/api.h"
#include "lib/core.h"
#include "lib/sys.h"
#include "lib/udp.h"
#include "lib/udp_names.h"
#include "lib/udp_way.h"

#include <arpa/inet.h>
#include <errno.h>

static struct udp *udp_open(int *error)
{
	int fd = ms_socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct udp *u = fd < 0 ? NULL : udp_create(fd, AF_INET);

	*error = fd < 0 ? -fd : u ? -vsock_bind(&u->v, fd) : ENOMEM;
	if (!*error)
		return u;
	if (u)
		udp_destroy(u);
	if (fd >= 0)
		ms_close(fd);
	return NULL;
}

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
		err = udp_bind(u, sd, at);
	if (!err)
		*at = (struct sockaddr_in){ .sin_family = AF_INET,
					    .sin_port = htons(u->port),
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
		err = udp_connect(u, sd, to);
	core_leave();
	return (int)api_result(err);
}

static long udp_send(struct udp *u, const struct msghdr *msg, const struct sockaddr_in *to)
{
	int err = udp_bind_any(u, u->v.sd);
	struct udp_way *w;
	struct msghdr named = *msg;

	if (err)
		return err;
	named.msg_name = (void *)to;
	named.msg_namelen = to ? sizeof(*to) : 0;
	if (!to || !core.member)
		return ms_sendmsg(u->v.sd, &named, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (!to->sin_port)
		return -EDESTADDRREQ;
	w = udp_way_get(u, ntohl(to->sin_addr.s_addr), ntohs(to->sin_port));
	return w ? udp_way_send(w, u->v.sd, msg, MSG_NOSIGNAL) : -ENOBUFS;
}

API ssize_t msock_udp_sendto(int sd, const struct iovec *iov, int count, const struct sockaddr_in *to)
{
	const struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = count < 0 ? 0 : (size_t)count };
	struct udp *u;
	long n = -EBADF;

	core_enter();
	u = udp_of(vsock_get(sd));
	if (u)
		n = udp_send(u, &msg, to);
	core_leave();
	return api_result(n);
}

/* What strangers send is not for the application. */
static long udp_receive(struct udp *u, const struct iovec *iov, int count, struct sockaddr_in *from)
{
	for (;;) {
		struct msghdr msg = { .msg_name = from,
				      .msg_namelen = sizeof(*from),
				      .msg_iov = (struct iovec *)iov,
				      .msg_iovlen = count < 0 ? 0 : (size_t)count };
		long n = ms_recvmsg(u->v.sd, &msg, MSG_DONTWAIT);

		if (n < 0 || !core.member || udp_translate(u, &msg, true))
			return n;
	}
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

void udp_sync(struct udp *u)
{
	vsock_watch(&u->v, (u->v.want & MSOCK_READ ? EPOLLIN : 0u) | (u->v.want & MSOCK_WRITE ? EPOLLOUT : 0u));
}

void udp_close(struct udp *u)
{
	int sd = u->v.sd;

	vsock_unbind(&u->v);
	ms_close(sd);
	udp_destroy(u);
}
