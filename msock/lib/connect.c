/* SPDX-License-Identifier: MIT */
#include "lib/conn_ops.h"

#include "lib/control.h"
#include "lib/core.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/place.h"
#include "lib/sys.h"

#include <arpa/inet.h>
#include <errno.h>

#define CONNECT_PATIENCE_NS 120000000000ull /* for places that refuse or cannot be reached */

enum { CONNECT_PORT_FIRST = 32768, CONNECT_PAUSE_MS = 5, CONNECT_PAUSE_MAX_MS = 500, CONNECT_ASK_MS = 500 };

static uint16_t next_port = CONNECT_PORT_FIRST;

static struct sockaddr_in connect_address(uint32_t ip, uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip) };
}

static void connect_fail(struct conn *c, int error)
{
	ms_log(LOG_INFO, "connect to %a port %u: error %d", ntohl(c->peer.sin_addr.s_addr), ntohs(c->peer.sin_port),
	       error);
	engine_timer_clear(&c->timer);
	c->phase = CONN_FAILED;
	c->error = error;
	conn_sync(c);
}

/* Another try with a new stream id, unless it has been tried for long. */
static void connect_retry(struct conn *c, int error)
{
	uint32_t pause = CONNECT_PAUSE_MS << (c->tries < 8 ? c->tries : 8);

	if (!core.member || ms_clock_ns(CLOCK_MONOTONIC) > c->connect_until_ns) {
		connect_fail(c, error);
		return;
	}
	c->tries++;
	c->phase = CONN_PLACE;
	engine_timer_set(&c->timer, (pause < CONNECT_PAUSE_MAX_MS ? pause : CONNECT_PAUSE_MAX_MS) * 1000000ull);
}

static void connect_dial(struct conn *c, const struct place *p)
{
	struct leg_frame frame = { .type = MS_LEG_CONNECT, .from_member = core.id, .m = core.self.m };
	int err;

	c->peer_member = p->member;
	conn_rename(c, p->called ? core_stream_id_abroad() : core_stream_id(), 0);
	if (p->called)
		frame.from_member = p->called;
	frame.stream = c->s.id;
	frame.from_ip = core.virtual_ip;
	frame.from_port = ntohs(c->local.sin_port);
	frame.to_ip = ntohl(c->peer.sin_addr.s_addr);
	frame.to_port = ntohs(c->peer.sin_port);
	__builtin_memcpy(frame.token, p->cookie, MS_TOKEN);
	c->phase = CONN_DIAL;
	c->newer = p->m + 1; /* what a refusal at this place asks for */
	engine_timer_clear(&c->timer);
	err = dial_start(&c->dial, p->real_ip, p->port, &frame);
	if (err < 0)
		connect_retry(c, -err);
}

static void connect_ask(struct conn *c)
{
	if (!c->request)
		c->request = control_request();
	if (c->abroad[0])
		control_lookup_abroad(c->request, ntohl(c->peer.sin_addr.s_addr), c->abroad);
	else
		control_lookup(c->request, ntohl(c->peer.sin_addr.s_addr), c->newer);
	engine_timer_set(&c->timer, CONNECT_ASK_MS * 1000000ull);
}

/* The timer of a conn in CONN_PLACE: ask again, or dial what is known by now. */
void conn_connect_again(struct conn *c)
{
	uint32_t ip = ntohl(c->peer.sin_addr.s_addr);
	struct place alone = { .real_ip = ip, .port = ntohs(c->peer.sin_port) };
	const struct place *p = !core.member ? &alone : c->abroad[0] ? NULL : place_get(ip, c->newer);

	if (p)
		connect_dial(c, p);
	else
		connect_ask(c);
}

void conn_placed(uint32_t request, const struct place *p)
{
	for (struct conn *c = conn_first(); c; c = c->next) {
		if (c->phase != CONN_PLACE || c->request != request || !request)
			continue;
		c->request = 0;
		c->newer = 0;
		if (p->status == MS_PLACE_OK)
			connect_dial(c, p);
		else
			connect_fail(c, ECONNREFUSED);
		return;
	}
}

static struct conn *connect_begin(uint16_t port, const char *card, const struct sockaddr_in *to, bool number,
				  int *error)
{
	struct conn *c = conn_create(CONN_PLACE);
	int err;

	*error = ENOMEM;
	if (!c)
		return NULL;
	c->fd = leg_socket();
	if (!number)
		c->fd = c->fd < 0 ? c->fd : core_raise_fd(c->fd);
	err = c->fd < 0 ? c->fd : number ? vsock_bind(&c->v, c->fd) : 0;
	if (err < 0) {
		*error = -err;
		conn_destroy(c);
		return NULL;
	}
	c->peer = *to;
	for (unsigned i = 0; card[i] && i < sizeof(c->abroad) - 1; i++)
		c->abroad[i] = card[i];
	c->local = connect_address(core.virtual_ip, port ? port : core.member ? next_port++ : 0);
	if (next_port < CONNECT_PORT_FIRST)
		next_port = CONNECT_PORT_FIRST;
	c->connect_until_ns = ms_clock_ns(CLOCK_MONOTONIC) + CONNECT_PATIENCE_NS;
	core_own_fd(c->fd, !number);
	conn_connect_again(c);
	return c;
}

struct conn *conn_connect(const struct sockaddr_in *to, int *error)
{
	return connect_begin(0, "", to, true, error);
}

struct conn *conn_connect_abroad(const char *card, const struct sockaddr_in *to, int *error)
{
	return connect_begin(0, card, to, true, error);
}

struct conn *conn_connect_from(uint16_t port, const struct sockaddr_in *to, int *error)
{
	return connect_begin(port, "", to, false, error);
}

static void connect_refused(struct conn *c, const struct leg_frame *answer)
{
	switch (answer->reason) {
	case MS_REFUSE_NOBODY_LISTENS:
		connect_fail(c, ECONNREFUSED);
		break;
	case MS_REFUSE_BACKLOG:
		c->newer = 0;
		connect_retry(c, ECONNREFUSED);
		break;
	default:
		connect_retry(c, ECONNREFUSED);
	}
}

static int connect_confirm(struct conn *c, int fd)
{
	struct leg_frame confirm = { .type = MS_LEG_CONFIRM, .stream = c->s.id };
	struct sockaddr_in here;
	socklen_t size = sizeof(here);
	int err = leg_send(fd, &confirm);

	if (!err)
		err = ms_dup3(fd, c->fd, O_CLOEXEC);
	if (!core.member && !ms_getsockname(fd, &here, &size))
		c->local = here;
	ms_close(fd);
	return err < 0 ? err : 0;
}

/* The dial of a connect has come to its end. */
void conn_connected(struct conn *c, int fd, int error, const struct leg_frame *answer)
{
	if (!error && (answer->stream != c->s.id || answer->leg != 0)) {
		ms_close(fd);
		error = -EPROTO;
	} else if (!error && answer->type == MS_LEG_REFUSE) {
		ms_close(fd);
		connect_refused(c, answer);
		return;
	} else if (!error) {
		error = connect_confirm(c, fd);
	}
	if (error) {
		if (error != -ECONNREFUSED && error != -ECONNRESET && error != -EPROTO)
			c->newer = 0;
		connect_retry(c, -error);
		return;
	}
	c->phase = CONN_OPEN;
	conn_sync(c);
}

void conn_connect_pause(struct conn *c)
{
	if (c->phase != CONN_DIAL && c->phase != CONN_PLACE)
		return;
	dial_hangup(&c->dial);
	c->phase = CONN_PLACE;
	c->request = 0;
	c->newer = 0;
	engine_timer_set(&c->timer, CONNECT_PAUSE_MS * 1000000ull);
}

struct conn *conn_incoming(int fd, const struct leg_frame *frame, struct listener *listener)
{
	struct leg_frame accept = { .type = MS_LEG_ACCEPT, .stream = frame->stream, .m = core.self.m };
	struct conn *c = conn_create(CONN_HALF);
	struct sockaddr_in there;
	socklen_t size = sizeof(there);

	if (!c)
		return NULL;
	c->peer_member = frame->from_member;
	conn_rename(c, frame->stream, 1);
	c->fd = fd;
	c->peer = connect_address(frame->from_ip, frame->from_port);
	c->local = connect_address(frame->to_ip, frame->to_port);
	if (!core.member && !ms_getpeername(fd, &there, &size))
		c->peer = there;
	c->listener = listener;
	if (leg_send(fd, &accept)) {
		c->fd = -1;
		conn_destroy(c);
		return NULL;
	}
	conn_sync(c);
	return c;
}

/* More of CONFIRM has come, or the connector gave up. */
void conn_half_ready(struct conn *c)
{
	struct leg_frame confirm;
	int got = leg_read(c->fd, &c->confirm, &confirm);

	if (got == 0)
		return;
	if (got < 0 || confirm.type != MS_LEG_CONFIRM || confirm.stream != c->s.id) {
		ms_log(LOG_DEBUG, "stream %lx: given up by its connector", c->s.id);
		listener_drop(c->listener, c);
		conn_destroy(c);
		return;
	}
	leg_ack(c->fd);
	c->phase = CONN_OPEN;
	conn_sync(c);
	listener_show(c->listener, c);
}
