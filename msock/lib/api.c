/* SPDX-License-Identifier: MIT */
#include "msock.h"

#include "lib/api.h"
#include "lib/conn.h"
#include "lib/control.h"
#include "lib/core.h"
#include "lib/engine.h"
#include "lib/kick.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/sys.h"
#include "lib/udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned inits;

static bool api_resolve(const char *name, uint32_t *ip)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found = NULL;

	if (!name || !*name || getaddrinfo(name, NULL, &hints, &found) || !found)
		return false;
	*ip = ntohl(((struct sockaddr_in *)found->ai_addr)->sin_addr.s_addr);
	freeaddrinfo(found);
	return true;
}

/* Is the address one of this host? */
static bool api_is_local(uint32_t ip)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(ip) };
	int fd = ms_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err = ms_bind(fd, &at, sizeof(at));

	ms_close(fd);
	return err == 0;
}

static int api_start_alone(void)
{
	const char *const names[] = { getenv("MSOCK_IP"), getenv("MPIR_CVAR_CH3_INTERFACE_HOSTNAME"), core.host,
				      "127.0.0.1" };

	gethostname(core.host, sizeof(core.host) - 1);
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (api_resolve(names[i], &core.real_ip) && api_is_local(core.real_ip))
			break;
	core.virtual_ip = core.real_ip;
	snprintf(core.id_text, sizeof(core.id_text), "%d", (int)getpid());
	return 0;
}

static int api_start_member(int control)
{
	const char *signal = getenv("MSOCK_KICK_SIGNAL");
	int err;

	core.member = true;
	if (signal && atoi(signal) > 0 && atoi(signal) <= 64)
		core.kick_signal = atoi(signal);
	if (ms_getrandom(core.cookie, MS_TOKEN, 0) != MS_TOKEN)
		return -EIO;
	err = control_attach(control);
	if (!err)
		err = kick_install();
	if (!err) {
		int fd = data_listen();

		err = fd < 0 ? fd : 0;
	}
	if (!err)
		err = control_serve();
	if (!err) {
		control_watch();
		control_catch_up();
	}
	snprintf(core.id_text, sizeof(core.id_text), "%u.%u", MS_MEMBER_WORLD(core.id), MS_MEMBER_RANK(core.id));
	return err;
}

static int api_start(void)
{
	const char *control = getenv("MSOCK_FD");
	int err = engine_open(false);

	log_init(getenv("MSOCK_DEBUG"));
	core.check = getenv("MSOCK_CHECK") != NULL;
	if (!err)
		err = vsock_open(false);
	if (!err)
		err = control && *control ? api_start_member(atoi(control)) : api_start_alone();
	log_name(core.id_text, core.host);
	if (err)
		ms_log(LOG_ERROR, "cannot start: %s", strerror(-err));
	else
		ms_log(LOG_INFO, "address %a on host %s, real address %a", core.virtual_ip, core.host, core.real_ip);
	core.on = !err;
	return err;
}

API int msock_init(void)
{
	int err = 0;

	core_enter();
	if (!core.on)
		err = api_start();
	if (!err)
		inits++;
	core_leave();
	return (int)api_result(err);
}

API int msock_finalize(void)
{
	core_enter();
	if (inits && --inits == 0 && !core.member) {
		while (conn_first())
			conn_destroy(conn_first());
		while (listener_first())
			listener_close(listener_first());
	}
	core_leave();
	return 0;
}

API int msock_self(struct in_addr *addr)
{
	addr->s_addr = htonl(core.virtual_ip);
	return core.on ? 0 : (int)api_result(-ENOTCONN);
}

API int msock_hostname(char *name, size_t size)
{
	core_enter();
	snprintf(name, size, "%s", core.host);
	core_leave();
	return 0;
}

API int msock_stats(struct msock_stats *stats)
{
	core_enter();
	*stats = (struct msock_stats){ core.moves, core.frozen_ns, core.relinks, core.carried };
	core_leave();
	return 0;
}

API int msock_listen(int backlog, struct sockaddr_in *addr)
{
	struct listener *l;
	int error = ENOTCONN;

	core_enter();
	l = core.on ? listener_open(backlog, &error) : NULL;
	if (l)
		*addr = (struct sockaddr_in){ .sin_family = AF_INET,
					      .sin_port = htons(l->port),
					      .sin_addr.s_addr = htonl(core.virtual_ip) };
	core_leave();
	return (int)api_result(l ? l->v.sd : -error);
}

API int msock_connect(const struct sockaddr_in *to)
{
	struct conn *c;
	int error = ENOTCONN;

	core_enter();
	c = core.on ? conn_connect(to, &error) : NULL;
	core_leave();
	return (int)api_result(c ? c->v.sd : -error);
}

API int msock_job(char *card, size_t size)
{
	size_t n = strlen(core.card) + 1;

	if (!core.on || n > size)
		return (int)api_result(core.on ? -ERANGE : -ENOTCONN);
	memcpy(card, core.card, n);
	return 0;
}

/* A job of one process without a daemon has no card, and its addresses are real ones. */
API int msock_connect_job(const char *card, const struct sockaddr_in *to)
{
	struct conn *c = NULL;
	int error = ENOTCONN;

	if (!*card || !strcmp(card, core.card))
		return msock_connect(to);
	core_enter();
	if (core.on && !core.member)
		error = EHOSTUNREACH;
	else if (strlen(card) >= MSOCK_JOB_MAX)
		error = EINVAL;
	else if (core.on)
		c = conn_connect_abroad(card, to, &error);
	core_leave();
	return (int)api_result(c ? c->v.sd : -error);
}

static struct conn *api_conn(int sd)
{
	struct vsock *v = vsock_get(sd);

	return v && v->kind == VSOCK_CONN ? (struct conn *)((char *)v - offsetof(struct conn, v)) : NULL;
}

static struct listener *api_listener(int sd)
{
	struct vsock *v = vsock_get(sd);

	return v && v->kind == VSOCK_LISTENER ? (struct listener *)((char *)v - offsetof(struct listener, v)) : NULL;
}

API int msock_accept(int sd, struct sockaddr_in *from)
{
	struct listener *l;
	struct conn *c = NULL;
	int err = -EBADF;

	core_enter();
	l = api_listener(sd);
	if (l) {
		c = listener_accept(l);
		err = c ? vsock_bind(&c->v, c->fd) : -EAGAIN;
	}
	if (!err) {
		err = c->fd;
		if (from)
			*from = c->peer;
	} else if (c) {
		conn_destroy(c);
	}
	core_leave();
	return (int)api_result(err);
}

API int msock_error(int sd)
{
	struct conn *c;
	int error = EBADF;

	core_enter();
	c = api_conn(sd);
	if (c)
		error = c->phase == CONN_FAILED ? c->error : c->s.error;
	else if (api_listener(sd))
		error = 0;
	core_leave();
	return error;
}

API ssize_t msock_readv(int sd, const struct iovec *iov, int count)
{
	struct conn *c;
	ssize_t n = -EBADF;

	core_enter();
	c = api_conn(sd);
	if (c)
		n = conn_readv(c, iov, count);
	core_leave();
	return api_result(n);
}

API ssize_t msock_writev(int sd, const struct iovec *iov, int count)
{
	struct conn *c;
	ssize_t n = -EBADF;

	core_enter();
	c = api_conn(sd);
	if (c)
		n = conn_writev(c, iov, count);
	core_leave();
	return api_result(n);
}

API int msock_shutdown(int sd)
{
	struct conn *c;
	int err = -EBADF;

	core_enter();
	c = api_conn(sd);
	if (c)
		err = conn_shutdown(c);
	core_leave();
	return (int)api_result(err);
}

API int msock_close(int sd)
{
	struct conn *c;
	struct listener *l;
	struct udp *u;
	int err = 0;

	core_enter();
	c = api_conn(sd);
	l = api_listener(sd);
	u = udp_of(vsock_get(sd));
	if (c)
		conn_close(c);
	else if (l)
		listener_close(l);
	else if (u)
		udp_close(u);
	else
		err = -EBADF;
	core_leave();
	return (int)api_result(err);
}

API int msock_want(int sd, unsigned events, void *user)
{
	struct vsock *v;

	core_enter();
	v = vsock_get(sd);
	if (v) {
		v->want = events & (MSOCK_READ | MSOCK_WRITE);
		v->user = user;
		if (v->kind == VSOCK_CONN)
			conn_sync((struct conn *)((char *)v - offsetof(struct conn, v)));
		else if (v->kind == VSOCK_UDP)
			udp_sync(udp_of(v));
		else
			vsock_watch(v, events & MSOCK_READ ? EPOLLIN : 0);
	}
	core_leave();
	return (int)api_result(v ? 0 : -EBADF);
}

API int msock_wait(struct msock_event *events, int max, int timeout_ms)
{
	if (max < 1 || !core.on)
		return (int)api_result(-EINVAL);
	return (int)api_result(vsock_wait(events, max, timeout_ms));
}

API void msock_wakeup(void)
{
	vsock_wakeup();
}
