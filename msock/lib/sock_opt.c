/* SPDX-License-Identifier: MIT */
/*
 * sock_opt.c - options of the program's sockets.
 *
 * A list of what was set.  Whether an option is valid, and what reading it
 * gives, says the kernel: a TCP socket is made for the question and gets the
 * list first.  So nothing is to be done for them at a move.
 */
#include "lib/sock.h"

#include "lib/conn.h"
#include "lib/core.h"
#include "lib/mem.h"
#include "lib/sys.h"
#include "lib/tcp_state.h"

#include <errno.h>
#include <linux/tcp.h>

enum { OPTION_MAX = 1024 }; /* bytes of a value */

static size_t option_bytes(const struct sock_option *o)
{
	return sizeof(*o) + o->size;
}

static void option_free(struct sock_option *o)
{
	mem_free(o, option_bytes(o));
}

void sock_options_free(struct sock *s)
{
	while (s->options) {
		struct sock_option *o = s->options;

		s->options = o->next;
		option_free(o);
	}
}

static bool option_put(struct sock *s, int level, int name, const void *value, socklen_t size)
{
	struct sock_option *o = mem_alloc(sizeof(*o) + size), **at = &s->options;

	if (!o)
		return false;
	o->level = level;
	o->name = name;
	o->size = size;
	__builtin_memcpy(o->value, value, size);
	while (*at && ((*at)->level != level || (*at)->name != name))
		at = &(*at)->next;
	if (*at) {
		struct sock_option *old = *at;

		o->next = old->next;
		*at = o;
		option_free(old);
	} else {
		*at = o; /* in the order in which they were set */
	}
	return true;
}

bool sock_options_copy(struct sock *to, const struct sock *from)
{
	for (const struct sock_option *o = from->options; o; o = o->next)
		if (!option_put(to, o->level, o->name, o->value, o->size))
			return false;
	return true;
}

/* Those that say how calls on the number wait: the pair has them too. */
static bool option_is_local(int level, int name)
{
	if (level != SOL_SOCKET)
		return false;
	return name == SO_RCVTIMEO_OLD || name == SO_SNDTIMEO_OLD || name == SO_RCVTIMEO_NEW ||
	       name == SO_SNDTIMEO_NEW || name == SO_RCVLOWAT || name == SO_OOBINLINE;
}

void sock_options_apply(const struct sock *s, int fd, bool pair)
{
	for (const struct sock_option *o = s->options; o; o = o->next)
		if (!pair || option_is_local(o->level, o->name))
			ms_setsockopt(fd, o->level, o->name, o->value, o->size);
}

/* What the leg, an IPv4 socket, does not know of the program's. */
static bool option_is_model(const struct sock *s, int level, int name)
{
	return s->domain == AF_INET6 && (level == IPPROTO_IPV6 || (level == SOL_SOCKET && name == SO_DOMAIN));
}

static bool option_is_kernel(const struct sock *s, int level, int name)
{
	return s->kind == SOCK_IS_IDLE || (s->direct && !option_is_model(s, level, name));
}

/* A TCP socket as the program believes to have; or -errno. */
static int option_model(const struct sock *s)
{
	int fd = ms_socket(s->domain, SOCK_STREAM | SOCK_CLOEXEC, s->protocol);

	if (fd >= 0)
		sock_options_apply(s, fd, false);
	return fd;
}

int sock_option_set(struct sock *s, int fd, int level, int name, const void *value, socklen_t size)
{
	int model, err;

	if (size > OPTION_MAX)
		return -EINVAL;
	if (option_is_kernel(s, level, name)) {
		err = ms_setsockopt(fd, level, name, value, size);
	} else {
		model = option_model(s);
		if (model < 0)
			return model;
		err = ms_setsockopt(model, level, name, value, size);
		ms_close(model);
		if (!err && option_is_local(level, name))
			ms_setsockopt(fd, level, name, value, size);
	}
	if (!err && !option_put(s, level, name, value, size))
		err = -ENOMEM;
	return err;
}

static struct linger option_linger(const struct sock *s)
{
	struct linger linger = { 0 };

	for (const struct sock_option *o = s->options; o; o = o->next)
		if (o->level == SOL_SOCKET && o->name == SO_LINGER && o->size >= sizeof(linger))
			__builtin_memcpy(&linger, o->value, sizeof(linger));
	return linger;
}

bool sock_option_resets(const struct sock *s)
{
	struct linger linger = option_linger(s);

	return linger.l_onoff && !linger.l_linger;
}

bool sock_option_lingers(const struct sock *s)
{
	struct linger linger = option_linger(s);

	return linger.l_onoff && linger.l_linger;
}

static int option_give(int result, void *value, socklen_t *size)
{
	if (*size > sizeof(result))
		*size = sizeof(result);
	__builtin_memcpy(value, &result, *size);
	return 0;
}

/* Legs are shut when they are done with; the program sees what it and its peer have done. */
static uint8_t option_state(const struct sock *s)
{
	bool peer_done = s->conn->s.eof;

	if (s->out_end)
		return peer_done ? STATE_CLOSE : STATE_FIN_WAIT2;
	return peer_done ? STATE_CLOSE_WAIT : STATE_ESTABLISHED;
}

/* Of the present leg; between two, when its number is something else's (resume.c), of one that has carried nothing yet. */
static int option_info(const struct sock *s, void *value, socklen_t *size)
{
	struct tcp_info info = { 0 };
	socklen_t have = sizeof(info);

	if (s->conn->fd < 0 || ms_getsockopt(s->conn->fd, IPPROTO_TCP, TCP_INFO, &info, &have))
		have = sizeof(info);
	info.tcpi_state = option_state(s);
	*size = *size < have ? *size : have;
	__builtin_memcpy(value, &info, *size);
	return 0;
}

int sock_option_get(struct sock *s, int fd, int level, int name, void *value, socklen_t *size)
{
	int model, err;

	if (level == SOL_SOCKET && name == SO_ERROR) {
		int error = s->error, own = 0;
		socklen_t n = sizeof(own);

		s->error = 0;
		ms_getsockopt(fd, SOL_SOCKET, SO_ERROR, &own, &n); /* a pair's own error is ours */
		return option_give(s->direct && !error ? own : error, value, size);
	}
	if (level == SOL_SOCKET && name == SO_ACCEPTCONN)
		return option_give(s->kind == SOCK_IS_LISTENER, value, size);
	if (option_is_kernel(s, level, name))
		return ms_getsockopt(fd, level, name, value, size);
	if (level == IPPROTO_TCP && name == TCP_INFO && s->conn && s->conn->phase == CONN_OPEN)
		return option_info(s, value, size);
	model = option_model(s);
	if (model < 0)
		return model;
	err = ms_getsockopt(model, level, name, value, size);
	ms_close(model);
	return err;
}
