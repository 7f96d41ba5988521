/* SPDX-License-Identifier: MIT */
#include "msmirror/mirror.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proto/codec.h"
#include "proto/log.h"

static const char *const state_names[] = {
	[MIRROR_EMPTY] = "empty",
	[MIRROR_FILLING] = "filling",
	[MIRROR_HOLDING] = "holding",
	[MIRROR_SERVING] = "serving",
};

static void mirror_state_set(struct mirror *mirror, enum mirror_state state, const char *why)
{
	log_say(LOG_INFO, "%s -> %s: %s", state_names[mirror->state], state_names[state], why);
	mirror->state = state;
}

static uint64_t mirror_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Small and rare: the daemon's socket has room, or the daemon is stuck. */
static void mirror_tell(struct mirror *mirror, const void *msg, size_t bytes)
{
	if (send(mirror->control, msg, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)bytes)
		log_say(LOG_ERROR, "telling msdaemon: %s", strerror(errno));
}

static void mirror_tell_at(struct mirror *mirror, uint16_t port)
{
	uint8_t msg[4];
	struct ms_codec c;

	ms_codec_init(&c, msg, sizeof(msg));
	ms_put_u8(&c, MS_WIRE_VERSION);
	ms_put_u8(&c, MS_MC_AT);
	ms_put_u16(&c, port);
	mirror_tell(mirror, msg, sizeof(msg));
}

static void mirror_end(struct mirror *mirror, int status, const char *why)
{
	log_say(status ? LOG_ERROR : LOG_INFO, "ends: %s; %zu of %u legs left", why, mirror->legs.left,
		mirror->legs_in_all);
	mirror->exit_status = status;
	event_base_loopbreak(mirror->base);
}

/* It cannot do its work: said to the daemon while a mirror is still asked for. */
static void mirror_fail(struct mirror *mirror, const char *why)
{
	if (mirror->state < MIRROR_HOLDING)
		mirror_tell_at(mirror, 0);
	mirror_end(mirror, 1, why);
}

static void mirror_done(struct mirror *mirror, const char *why)
{
	uint8_t msg[2 + 8 + 8 + 4];
	struct ms_codec c;

	ms_codec_init(&c, msg, sizeof(msg));
	ms_put_u8(&c, MS_WIRE_VERSION);
	ms_put_u8(&c, MS_MC_DONE);
	ms_put_u64(&c, mirror_now_ms() - mirror->started_ms);
	ms_put_u64(&c, mirror->legs.forwarded);
	ms_put_u32(&c, mirror->legs_in_all);
	mirror_tell(mirror, msg, sizeof(msg));
	mirror_end(mirror, 0, why);
}

static void mirror_released(void *arg)
{
	mirror_done(arg, "the last leg was released");
}

static void mirror_late(evutil_socket_t fd, short what, void *arg)
{
	struct mirror *mirror = arg;

	for (size_t i = 0; i < mirror->legs.count; i++) {
		struct leg *leg = mirror->legs.leg[i];

		if (leg)
			log_say(LOG_ERROR, "stream %llx leg %u is broken: its peer did not let go in %u s",
				(unsigned long long)leg->stream, leg->number, mirror->limit_s);
	}
	mirror_done(mirror, "its time is over");
}

static void mirror_start(struct mirror *mirror, struct ms_codec *c)
{
	uint32_t ip;
	uint16_t lowest, highest;

	mirror->links.member = ms_get_u32(c);
	mirror->m = mirror->links.m = ms_get_u64(c);
	ip = ms_get_u32(c);
	lowest = ms_get_u16(c);
	highest = ms_get_u16(c);
	ms_get_bytes(c, mirror->links.key, MS_TOKEN);
	if (c->bad || c->at != c->end || mirror->state != MIRROR_EMPTY) {
		mirror_fail(mirror, "START is wrong");
		return;
	}
	mirror->port = link_set_listen(&mirror->links, ip, lowest, highest);
	if (mirror->port)
		mirror_state_set(mirror, MIRROR_FILLING, "START");
	else
		mirror_fail(mirror, "it cannot listen");
}

/* Takes every descriptor, whatever happens. */
static void mirror_fill(struct mirror *mirror, struct ms_codec *c, int *fd, unsigned fds)
{
	uint64_t m = ms_get_u64(c);
	unsigned n = ms_get_u16(c), taken = 0;
	bool failed = c->bad || n != fds || (size_t)(c->end - c->at) != n * 22u || m != mirror->m ||
		      mirror->state != MIRROR_FILLING;

	for (; taken < fds && !failed; taken++) {
		uint64_t stream = ms_get_u64(c);
		uint32_t number = ms_get_u32(c);
		bool fin_sent = ms_get_u8(c), at_end = ms_get_u8(c);

		failed = leg_table_add(&mirror->legs, stream, number, fd[taken], fin_sent, at_end, ms_get_u64(c)) < 0;
	}
	for (; taken < fds; taken++)
		close(fd[taken]);
	if (failed || (n == 0 && leg_table_seal(&mirror->legs) < 0)) {
		mirror_fail(mirror, "the list of legs is wrong");
	} else if (n == 0) {
		mirror->legs_in_all = mirror->legs.count;
		mirror_state_set(mirror, MIRROR_HOLDING, "end of the list");
		mirror_tell_at(mirror, mirror->port);
	}
}

static void mirror_serve(struct mirror *mirror)
{
	struct timeval limit = { .tv_sec = mirror->limit_s };

	mirror_state_set(mirror, MIRROR_SERVING, "committed");
	for (size_t i = 0; i < mirror->legs.count; i++)
		if (leg_start(mirror->legs.leg[i], mirror->base) < 0) {
			mirror_fail(mirror, "no memory");
			return;
		}
	if (mirror->limit_s) {
		mirror->limit = evtimer_new(mirror->base, mirror_late, mirror);
		if (!mirror->limit || event_add(mirror->limit, &limit) < 0)
			log_say(LOG_ERROR, "no timer: it lives as long as its peers want");
	}
	if (mirror->legs_in_all == 0)
		mirror_done(mirror, "there was nothing to mirror");
	else
		link_set_commit(&mirror->links);
}

static void mirror_outcome(struct mirror *mirror, struct ms_codec *c)
{
	uint64_t m = ms_get_u64(c);
	bool committed = ms_get_u8(c);

	if (c->bad || m != mirror->m) {
		log_say(LOG_ERROR, "an outcome of another move is ignored: m %llu", (unsigned long long)m);
	} else if (!committed && mirror->state < MIRROR_SERVING) {
		mirror_end(mirror, 0, "aborted: the legs are the member's");
	} else if (committed && mirror->state == MIRROR_HOLDING) {
		mirror_serve(mirror);
	} else if (committed && mirror->state < MIRROR_HOLDING) {
		mirror_fail(mirror, "committed before the list was whole");
	} else if (!committed) {
		log_say(LOG_ERROR, "aborted after it was committed: ignored");
	}
}

static void mirror_take(struct mirror *mirror, uint8_t *msg, size_t bytes, int *fd, unsigned fds)
{
	struct ms_codec c;
	uint8_t version, type;

	ms_codec_init(&c, msg, bytes);
	version = ms_get_u8(&c);
	type = ms_get_u8(&c);
	if (c.bad || version != MS_WIRE_VERSION)
		type = 0;
	if (type == MS_M_MIRROR) {
		mirror_fill(mirror, &c, fd, fds);
		return;
	}
	for (unsigned i = 0; i < fds; i++)
		close(fd[i]);
	if (type == MS_MC_START)
		mirror_start(mirror, &c);
	else if (type == MS_D_OUTCOME)
		mirror_outcome(mirror, &c);
	else if (type == MS_MC_MEMBER_ENDED)
		mirror_done(mirror, "its member has ended");
	else
		log_say(LOG_ERROR, "msdaemon sent what no mirror knows: type %u, %zu bytes", type, bytes);
}

/* Descriptors of a packet into fd[]; returns how many. */
static unsigned mirror_descriptors(struct msghdr *msg, int fd[MS_FDS_MAX + 1])
{
	unsigned n = 0;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
		size_t bytes = h->cmsg_len - CMSG_LEN(0);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fd, CMSG_DATA(h), bytes); /* one header a packet, of the size that we gave */
		n = bytes / sizeof(int);
	}
	return n;
}

static void mirror_control(evutil_socket_t sock, short what, void *arg)
{
	static uint8_t packet[MS_CTL_MAX];
	static char rights[CMSG_SPACE(sizeof(int) * (MS_FDS_MAX + 1))] __attribute__((aligned(sizeof(struct cmsghdr))));
	struct mirror *mirror = arg;
	struct iovec iov = { .iov_base = packet, .iov_len = sizeof(packet) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = rights, .msg_controllen = sizeof(rights)
	};
	int fd[MS_FDS_MAX + 2];
	unsigned fds;
	ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		mirror_end(mirror, 1, "msdaemon is gone");
		return;
	}
	fds = mirror_descriptors(&msg, fd);
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		for (unsigned i = 0; i < fds; i++)
			close(fd[i]);
		mirror_fail(mirror, "a packet of msdaemon was cut short (too many descriptors?)");
		return;
	}
	mirror_take(mirror, packet, n, fd, fds);
}

int mirror_init(struct mirror *mirror, int control, size_t window, unsigned limit_s)
{
	memset(mirror, 0, sizeof(*mirror));
	mirror->control = control;
	mirror->limit_s = limit_s;
	mirror->started_ms = mirror_now_ms();
	mirror->base = event_base_new();
	if (!mirror->base)
		return -1;
	mirror->links.base = mirror->base;
	mirror->links.legs = &mirror->legs;
	mirror->links.released = mirror_released;
	mirror->links.arg = mirror;
	leg_table_init(&mirror->legs, window, link_set_wake, &mirror->links);
	mirror->controlled = event_new(mirror->base, control, EV_READ | EV_PERSIST, mirror_control, mirror);
	return mirror->controlled && event_add(mirror->controlled, NULL) == 0 ? 0 : -1;
}

int mirror_run(struct mirror *mirror)
{
	if (event_base_dispatch(mirror->base) < 0) {
		log_say(LOG_ERROR, "event loop: %s", strerror(errno));
		return 1;
	}
	return mirror->exit_status;
}

void mirror_fini(struct mirror *mirror)
{
	if (mirror->base && mirror->links.listener)
		link_set_close(&mirror->links);
	leg_table_free(&mirror->legs);
	if (mirror->controlled)
		event_free(mirror->controlled);
	if (mirror->limit)
		event_free(mirror->limit);
	if (mirror->base)
		event_base_free(mirror->base);
}
