/* SPDX-License-Identifier: MIT */
/* Going on at the target: the library's descriptors are made again, every stream gets a new leg. */
#include "lib/move.h"

#include "lib/agent.h"
#include "lib/conn.h"
#include "lib/control.h"
#include "lib/core.h"
#include "lib/engine.h"
#include "lib/listener.h"
#include "lib/log.h"
#include "lib/mirror.h"
#include "lib/sock.h"
#include "lib/sys.h"
#include "lib/udp_move.h"

#include <arpa/inet.h>

enum { RESUME_PACKET = 128 };

static struct timer resume_timer;

static void resume_data_port(int fd)
{
	struct sockaddr_in at;
	socklen_t size = sizeof(at);

	if (!ms_getsockname(fd, &at, &size))
		core.data_port = ntohs(at.sin_port);
}

/* The number stays a socket's until its next leg comes, one for all; where the program does not see it, anything will
 * do. */
static void resume_hold_number(struct conn *c, int *socket)
{
	int fd;

	engine_forget(&c->leg);
	engine_forget(&c->old_leg);
	engine_forget(&c->dial.watch);
	vsock_forget(&c->v);
	c->old_fd = -1;
	c->dial.fd = -1;
	if (c->fd < 0)
		return;
	if (c->sock || *socket >= 0) {
		ms_dup3(c->sock ? engine_poke_fd() : *socket, c->fd, O_CLOEXEC);
		return;
	}
	fd = leg_socket();
	if (fd >= 0 && fd != c->fd) {
		ms_dup3(fd, c->fd, O_CLOEXEC);
		ms_close(fd);
	}
	*socket = fd < 0 ? -1 : c->fd;
}

/* What keeps its number comes first: nothing that is made anew may get it meanwhile. */
static void resume_descriptors(void)
{
	int err = engine_open(true), socket = -1;

	if (!err)
		err = vsock_open(true);
	if (err)
		ms_log(LOG_ERROR, "cannot make the library's descriptors again: error %d", -err);
	mirror_detach_all();
	for (struct listener *l = listener_first(); l; l = l->next) {
		listener_remake(l);
		vsock_forget(&l->v);
		vsock_watch(&l->v, l->v.want & MSOCK_READ ? EPOLLIN : 0);
	}
	for (struct conn *c = conn_first(); c; c = c->next)
		resume_hold_number(c, &socket);
	sock_hold_numbers();
	udp_resume();
	sock_resume();
	control_watch();
	resume_data_port(data_listener_fd());
	data_listener_adopt(data_listener_fd());
}

static void resume_streams(struct mirror *mirror)
{
	for (struct conn *c = conn_first(); c; c = c->next) {
		if (c->phase != CONN_OPEN)
			continue;
		if (!move_by_mirror(c)) {
			stream_handle(&c->s, STREAM_DRAINED, NULL);
			continue;
		}
		if (!c->s.mirrored && (!mirror || !mirror_add(mirror, c)))
			ms_log(LOG_ERROR, "stream %lx: its mirror is not known", c->s.id);
		stream_handle(&c->s, STREAM_MIRRORED, NULL);
	}
	core.self.moving = core.self.draining = false;
	core.local.moving = core.local.draining = false;
}

/* What need not be done before the threads go on: the streams speak to their peers. */
static void resume_offer(struct timer *t)
{
	for (struct conn *c = conn_first(); c; c = c->next) {
		if (c->phase == CONN_OPEN)
			stream_handle(&c->s, STREAM_MOVE_OVER, NULL);
		conn_sync(c);
	}
	sock_settle();
	move_stream_steady();
}

static void resume_say(void)
{
	uint8_t buf[RESUME_PACKET];
	struct ms_codec c;

	control_begin(&c, buf, sizeof(buf), MS_M_RESUMED);
	ms_put_u64(&c, move.m);
	ms_put_u64(&c, image_frozen_ns());
	control_send(&c, buf);
}

void move_resume(const void *message, size_t bytes)
{
	struct mirror *mirror = NULL;
	uint8_t key[MS_TOKEN];
	struct ms_codec in;
	uint32_t mirror_ip;
	uint16_t mirror_port;

	ms_codec_init(&in, (void *)message, bytes);
	ms_get_u16(&in); /* version, type */
	ms_get_u64(&in);
	ms_get_u8(&in);
	ms_get_str(&in, core.host, sizeof(core.host));
	core.real_ip = ms_get_u32(&in);
	mirror_ip = ms_get_u32(&in);
	mirror_port = ms_get_u16(&in);
	ms_get_bytes(&in, key, sizeof(key));
	if (in.bad)
		ms_log(LOG_ERROR, "the message to resume cannot be read");
	agent_reset();
	resume_descriptors();
	core_own_fd(move.image_fd, false);
	move.phase = MOVE_NONE;
	move.relinking = true;
	core.moves++;
	engine_pause(false);
	if (mirror_port)
		mirror = mirror_create(mirror_ip, mirror_port, key);
	resume_streams(mirror);
	move.stall_ns = image_frozen_ns();
	core.frozen_ns += image_frozen_ns();
	control_replay(); /* not earlier: until then streams believe that they own their legs */
	udp_moved();
	resume_say();
	mirror_attach_all();
	resume_timer.fire = resume_offer;
	engine_timer_set(&resume_timer, 0);
	ms_log(LOG_INFO, "move %lu: now on host %s, %u streams drained, %u by mirror", move.m, core.host, move.drained,
	       move.mirrored);
	agent_ensure();
}

void move_stream_steady(void)
{
	uint8_t buf[RESUME_PACKET];
	struct ms_codec c;

	if (!move.relinking || core.self.moving || mirror_count())
		return;
	for (struct conn *n = conn_first(); n; n = n->next)
		if (n->phase == CONN_OPEN && n->s.state != STREAM_STEADY && n->s.state != STREAM_OVER)
			return;
	move.relinking = false;
	ms_log(LOG_INFO, "move %lu: all streams are steady again", move.m);
	control_begin(&c, buf, sizeof(buf), MS_M_RELINKED);
	ms_put_u64(&c, move.m);
	ms_put_u64(&c, move.stall_ns);
	ms_put_u32(&c, move.drained);
	ms_put_u32(&c, move.mirrored);
	control_send(&c, buf);
}
