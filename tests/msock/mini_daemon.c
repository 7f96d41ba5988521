/* SPDX-License-Identifier: MIT */
#include "mini_daemon.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cutter.h"
#include "fake_image.h"
#include "proto/codec.h"
#include "proto/wire.h"

enum {
	HOST_FIRST = 0x7f000002,
	HOSTS = 20,
	VIRTUAL_FIRST = 0x64400001,
	HELD = 4096,
	PACKET = 4096,
	WHERES = MINI_MIRRORS + 2 * MINI_MEMBERS,
	WHERE_IMAGE = 100,
	QUEUE_FULL = 100000,
	MIRROR_PATIENCE_S = 60
};

enum fate { FATE_COMMIT, FATE_ABORT, FATE_FAIL, FATE_EARLY };

enum member_phase { MEMBER_ABSENT, MEMBER_HERE, MEMBER_MOVING, MEMBER_FROZEN };

struct held {
	uint32_t from;
	size_t n;
	uint8_t bytes[128];
};

struct member {
	int fd, child_fd;
	enum member_phase phase;
	bool open;
	uint32_t ip;
	uint16_t port;
	uint8_t cookie[MS_TOKEN];
	uint64_t m;
	uint64_t next_ns; /* time of its next move */
	uint64_t fate_ns; /* FATE_EARLY: when */
	enum fate fate;
	int image;  /* our end */
	int mirror; /* index; -1: none */
	struct held *held;
	unsigned held_count;
};

struct mirror {
	pid_t pid, cutter; /* 0: none */
	int fd;
	unsigned member;
	uint16_t port;
	uint32_t ip;
	uint8_t key[MS_TOKEN];
};

static struct mini_settings set;
static struct mini_counts counts;
static struct member members[MINI_MEMBERS];
static struct mirror mirrors[MINI_MIRRORS];
static unsigned mirror_total;
static uint64_t random_state;
static uint8_t buf[MS_CTL_MAX];

static unsigned roll(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)(random_state % n);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "mini daemon: %s: %s\n", what, strerror(errno));
	abort();
}

static void begin(struct ms_codec *c, uint8_t *out, size_t size, uint8_t type)
{
	ms_codec_init(c, out, size);
	ms_put_u8(c, MS_WIRE_VERSION);
	ms_put_u8(c, type);
}

static void send_packet(int fd, const struct ms_codec *c, const uint8_t *out, const int *fds, unsigned count)
{
	char space[CMSG_SPACE(sizeof(int) * MS_FDS_MAX)];
	struct iovec iov = { (void *)out, (size_t)(c->at - out) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count) {
		msg.msg_control = space;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(sizeof(int) * count);
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, sizeof(int) * count);
	}
	if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		die("sendmsg");
}

void mini_create(const struct mini_settings *settings)
{
	set = *settings;
	random_state = set.seed * 0x9e3779b97f4a7c15ull + 1;
	for (unsigned i = 0; i < set.members; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
			die("socketpair");
		members[i] = (struct member){ .fd = pair[0],
					      .child_fd = pair[1],
					      .open = true,
					      .ip = HOST_FIRST + i,
					      .mirror = -1,
					      .image = -1,
					      .held = calloc(HELD, sizeof(struct held)) };
	}
}

int mini_member_fd(unsigned member)
{
	return members[member].child_fd;
}

void mini_in_child(unsigned member)
{
	for (unsigned i = 0; i < set.members; i++) {
		close(members[i].fd);
		if (i != member)
			close(members[i].child_fd);
	}
}

void mini_in_parent(void)
{
	for (unsigned i = 0; i < set.members; i++)
		close(members[i].child_fd);
}

static void welcome(unsigned i)
{
	struct ms_codec c;

	begin(&c, buf, sizeof(buf), MS_D_WELCOME);
	ms_put_u32(&c, MS_MEMBER(0, i));
	ms_put_str(&c, "test");
	ms_put_str(&c, "h0");
	ms_put_u32(&c, members[i].ip);
	ms_put_u32(&c, VIRTUAL_FIRST + i);
	ms_put_u64(&c, 0);
	ms_put_u16(&c, 0);
	ms_put_u16(&c, 0);
	send_packet(members[i].fd, &c, buf, NULL, 0);
}

static void place(unsigned i, uint32_t request, uint32_t virtual_ip)
{
	uint32_t n = virtual_ip - VIRTUAL_FIRST;
	struct ms_codec c;

	/* Not decided or not serving yet: it asks again. */
	if (n < set.members && members[n].open && members[n].phase != MEMBER_HERE)
		return;
	begin(&c, buf, sizeof(buf), MS_D_PLACE);
	ms_put_u32(&c, request);
	ms_put_u8(&c, n >= set.members ? MS_PLACE_NOBODY : !members[n].open ? MS_PLACE_ENDED : MS_PLACE_OK);
	n = n < set.members ? n : 0;
	ms_put_u32(&c, MS_MEMBER(0, n));
	ms_put_u32(&c, members[n].ip);
	ms_put_u16(&c, members[n].port);
	ms_put_u64(&c, members[n].m);
	ms_put_bytes(&c, members[n].cookie, MS_TOKEN);
	send_packet(members[i].fd, &c, buf, NULL, 0);
}

/*
 * A member that is freezing does not read, and soon waits for this daemon: a
 * relay must not block it, nor fill the room for what must not get lost.
 */
static bool has_room(int fd)
{
	int waiting = 0;

	return !ioctl(fd, SIOCOUTQ, &waiting) && waiting < QUEUE_FULL;
}

static void relay(unsigned to, uint32_t from, const uint8_t *bytes, size_t n)
{
	uint8_t out[PACKET];
	struct member *m = &members[to];
	struct ms_codec c;

	if (roll(100) < set.drop_percent)
		return;
	counts.relays++;
	if (m->phase == MEMBER_FROZEN) {
		if (m->held_count < HELD && n <= sizeof(m->held->bytes)) {
			struct held *h = &m->held[m->held_count++];

			h->from = from;
			h->n = n;
			memcpy(h->bytes, bytes, n);
		}
		return;
	}
	if (!m->open || !has_room(m->fd))
		return;
	begin(&c, out, sizeof(out), MS_D_RELAY);
	ms_put_u32(&c, from);
	ms_put_bytes(&c, bytes, n);
	send_packet(m->fd, &c, out, NULL, 0);
}

static void release_held(unsigned i)
{
	struct member *m = &members[i];
	unsigned n = m->held_count;

	m->held_count = 0;
	for (unsigned k = 0; k < n; k++)
		relay(i, m->held[k].from, m->held[k].bytes, m->held[k].n);
}

static void outcome(int fd, uint64_t m, bool committed)
{
	uint8_t out[16];
	struct ms_codec c;

	begin(&c, out, sizeof(out), MS_D_OUTCOME);
	ms_put_u64(&c, m);
	ms_put_u8(&c, committed);
	send_packet(fd, &c, out, NULL, 0);
}

static void rest(unsigned i)
{
	struct member *m = &members[i];

	if (m->image >= 0)
		close(m->image);
	m->image = -1;
	m->phase = MEMBER_HERE;
	m->next_ns = now_ns() + roll(2 * set.pause_ms + 1) * 1000000ull;
	release_held(i);
}

static void abort_move(unsigned i)
{
	struct member *m = &members[i];

	counts.aborted++;
	if (m->mirror >= 0)
		outcome(mirrors[m->mirror].fd, m->m, false);
	outcome(m->fd, m->m, false);
	rest(i);
}

static void start_move(unsigned i)
{
	struct member *m = &members[i];
	struct ms_codec c;
	int pair[2], via = set.via >= 0 ? set.via : (int)roll(3);

	if (!set.msmirror)
		via = MS_VIA_DRAIN;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	m->image = pair[0];
	m->m++;
	m->mirror = -1;
	m->phase = MEMBER_MOVING;
	m->fate = roll(100) < set.commits ? FATE_COMMIT : FATE_ABORT + roll(3);
	m->fate_ns = m->fate == FATE_EARLY ? now_ns() + roll(5) * 1000000ull : UINT64_MAX;
	begin(&c, buf, sizeof(buf), MS_D_MOVE);
	ms_put_u64(&c, m->m);
	ms_put_u8(&c, (uint8_t)via);
	ms_put_u32(&c, via == MS_VIA_DRAIN ? 3000 : roll(20));
	ms_put_u32(&c, 10000);
	ms_put_u64(&c, 1);
	ms_put_str(&c, "");
	ms_put_u8(&c, 0);
	ms_put_u32(&c, 0);
	ms_put_u64(&c, 0);
	for (int n = 0; n < 2 * MS_CHANNELS; n++)
		ms_put_u64(&c, 0);
	send_packet(m->fd, &c, buf, &pair[1], 1);
	close(pair[1]);
}

static void start_mirror(unsigned i)
{
	struct mirror *x = &mirrors[mirror_total];
	struct ms_codec c;
	int pair[2];

	if (mirror_total == MINI_MIRRORS || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		die("mirror");
	members[i].mirror = (int)mirror_total++;
	counts.mirrors++;
	x->fd = pair[0];
	x->member = i;
	x->ip = members[i].ip;
	for (int k = 0; k < MS_TOKEN; k++)
		x->key[k] = (uint8_t)roll(256);
	x->pid = fork();
	if (x->pid < 0)
		die("fork");
	if (!x->pid) {
		dup2(pair[1], 3);
		fcntl(3, F_SETFD, 0);
		close_range(4, ~0u, 0);
		execl(set.msmirror, set.msmirror, (char *)NULL);
		_exit(127);
	}
	close(pair[1]);
	begin(&c, buf, sizeof(buf), MS_MC_START);
	ms_put_u32(&c, MS_MEMBER(0, i));
	ms_put_u64(&c, members[i].m);
	ms_put_u32(&c, x->ip);
	ms_put_u16(&c, 0);
	ms_put_u16(&c, 0);
	ms_put_bytes(&c, x->key, MS_TOKEN);
	send_packet(x->fd, &c, buf, NULL, 0);
}

static void decide_frozen(unsigned i)
{
	struct member *m = &members[i];
	struct mirror *x = m->mirror >= 0 ? &mirrors[m->mirror] : NULL;
	uint8_t out[512], none[MS_TOKEN] = { 0 }, letter = m->fate == FATE_FAIL ? FAKE_FAILS : FAKE_SENT;
	struct ms_codec c;
	uint32_t ip = HOST_FIRST + roll(HOSTS);
	char host[16];

	if (m->fate != FATE_COMMIT) {
		send(m->image, &letter, 1, MSG_NOSIGNAL);
		return;
	}
	memcpy(out, &ip, sizeof(ip));
	begin(&c, out + sizeof(ip), sizeof(out) - sizeof(ip), MS_D_RESUME);
	ms_put_u64(&c, m->m);
	ms_put_u8(&c, 1);
	snprintf(host, sizeof(host), "h%u", ip - HOST_FIRST);
	ms_put_str(&c, host);
	ms_put_u32(&c, ip);
	ms_put_u32(&c, x ? x->ip : 0);
	ms_put_u16(&c, x ? x->port : 0);
	ms_put_bytes(&c, x ? x->key : none, MS_TOKEN);
	m->ip = ip;
	send(m->image, out, (size_t)(c.at - out), MSG_NOSIGNAL);
	if (recv(m->image, &m->port, sizeof(m->port), 0) != sizeof(m->port))
		die("no port from the target");
	if (x)
		outcome(x->fd, m->m, true);
	counts.committed++;
	rest(i);
}

/* The member would send its image now: say on that connection how it goes on. */
static void decide(unsigned i)
{
	char ready;

	if (recv(members[i].image, &ready, 1, MSG_DONTWAIT) == 1 && members[i].phase == MEMBER_FROZEN)
		decide_frozen(i);
}

static void on_mirror_list(unsigned i, uint8_t *packet, size_t size, const int *fds, unsigned count)
{
	struct ms_codec c;
	unsigned n;

	ms_codec_init(&c, packet + 2, size - 2);
	ms_get_u64(&c);
	n = ms_get_u16(&c);
	if (members[i].phase == MEMBER_FROZEN) {
		counts.mirrored_legs += n;
		if (members[i].mirror < 0)
			start_mirror(i);
		ms_codec_init(&c, packet, size);
		ms_codec_skip(&c, size);
		send_packet(mirrors[members[i].mirror].fd, &c, packet, fds, count);
	}
	for (unsigned k = 0; k < count; k++)
		close(fds[k]);
}

static void mirror_at(struct mirror *x)
{
	struct member *m = &members[x->member];
	struct ms_codec c;

	if (m->phase != MEMBER_FROZEN || m->mirror != (int)(x - mirrors))
		return;
	begin(&c, buf, sizeof(buf), MS_D_MIRROR_AT);
	ms_put_u64(&c, m->m);
	ms_put_u32(&c, x->ip);
	ms_put_u16(&c, x->port);
	ms_put_bytes(&c, x->key, MS_TOKEN);
	send_packet(m->fd, &c, buf, NULL, 0);
}

static void on_frozen(unsigned i, struct ms_codec *c)
{
	uint64_t m = ms_get_u64(c);
	uint32_t drained = ms_get_u32(c);

	if (m != members[i].m || members[i].phase != MEMBER_MOVING)
		return;
	members[i].phase = MEMBER_FROZEN;
	counts.drained_legs += drained;
}

static void on_member(unsigned i, uint8_t *packet, size_t n, int *fds, unsigned count)
{
	struct member *m = &members[i];
	struct ms_codec c;
	char why[300];
	uint32_t a, b;

	ms_codec_init(&c, packet + 2, n - 2);
	switch (packet[1]) {
	case MS_M_HELLO:
		welcome(i);
		break;
	case MS_M_SERVING:
		m->port = ms_get_u16(&c);
		ms_get_bytes(&c, m->cookie, MS_TOKEN);
		m->phase = MEMBER_HERE;
		m->next_ns = now_ns() + 20000000ull + roll(2 * set.pause_ms + 1) * 1000000ull;
		begin(&c, buf, sizeof(buf), MS_D_SERVING_OK);
		send_packet(m->fd, &c, buf, NULL, 0);
		break;
	case MS_M_LOOKUP:
		a = ms_get_u32(&c);
		b = ms_get_u32(&c);
		place(i, a, b);
		break;
	case MS_M_RELAY:
		a = MS_MEMBER_RANK(ms_get_u32(&c));
		if (a < set.members)
			relay(a, MS_MEMBER(0, i), c.at, (size_t)(c.end - c.at));
		break;
	case MS_M_FROZEN:
		on_frozen(i, &c);
		break;
	case MS_M_MIRROR:
		on_mirror_list(i, packet, n, fds, count);
		break;
	case MS_M_IMAGE_SENT:
		if (ms_get_u64(&c) == m->m && m->phase == MEMBER_FROZEN)
			abort_move(i);
		break;
	case MS_M_MOVE_FAILED:
		if (ms_get_u64(&c) != m->m || (m->phase != MEMBER_MOVING && m->phase != MEMBER_FROZEN))
			break;
		ms_get_str(&c, why, sizeof(why));
		if (m->fate != FATE_FAIL) {
			counts.failed++;
			counts.raced += !strcmp(why, FAKE_RACED);
			if (getenv("MSOCK_DEBUG"))
				fprintf(stderr, "# member %u: move failed: %s\n", i, why);
		}
		abort_move(i);
		break;
	case MS_M_RELINKED:
		counts.relinked++;
		break;
	default:
		break;
	}
}

static long receive(int fd, uint8_t *packet, size_t size, int *fds, unsigned *count)
{
	char space[CMSG_SPACE(sizeof(int) * MS_FDS_MAX)];
	struct iovec iov = { packet, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space) };
	long n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	*count = 0;
	if (c && c->cmsg_type == SCM_RIGHTS) {
		*count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), *count * sizeof(int));
	}
	return n;
}

static void serve_member(unsigned i)
{
	static uint8_t packet[MS_CTL_MAX];
	int fds[MS_FDS_MAX];
	unsigned count;
	long n = receive(members[i].fd, packet, sizeof(packet), fds, &count);
	struct ms_codec c;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n >= 2) {
		on_member(i, packet, (size_t)n, fds, count);
		return;
	}
	members[i].open = false;
	members[i].phase = MEMBER_ABSENT;
	for (unsigned k = 0; k < set.members; k++) {
		if (!members[k].open || members[k].phase == MEMBER_ABSENT)
			continue;
		begin(&c, buf, sizeof(buf), MS_D_ENDED);
		ms_put_u32(&c, MS_MEMBER(0, i));
		ms_put_u32(&c, 0);
		send_packet(members[k].fd, &c, buf, NULL, 0);
	}
	for (unsigned k = 0; k < mirror_total; k++) {
		if (mirrors[k].fd < 0 || mirrors[k].member != i)
			continue;
		begin(&c, buf, sizeof(buf), MS_MC_MEMBER_ENDED);
		send_packet(mirrors[k].fd, &c, buf, NULL, 0);
	}
}

static void serve_mirror(struct mirror *x)
{
	uint8_t packet[256];
	int fds[MS_FDS_MAX];
	unsigned count;
	long n = receive(x->fd, packet, sizeof(packet), fds, &count);
	struct ms_codec c;

	if (n <= 0 && errno == EAGAIN && n < 0)
		return;
	if (n <= 0) {
		close(x->fd);
		x->fd = -1;
	} else if (packet[1] == MS_MC_AT) {
		ms_codec_init(&c, packet + 2, (size_t)n - 2);
		x->port = ms_get_u16(&c);
		if (set.cuts && roll(2))
			x->port = cutter_start(x->ip, x->port, set.cuts, set.seed + mirror_total, &x->cutter);
		mirror_at(x);
	}
}

static void moves_due(bool (*moving)(void))
{
	uint64_t now = now_ns();

	for (unsigned i = 0; i < set.members; i++) {
		struct member *m = &members[i];

		if (m->phase == MEMBER_HERE && now >= m->next_ns && moving())
			start_move(i);
		if (m->phase == MEMBER_MOVING && now >= m->fate_ns)
			abort_move(i);
	}
}

void mini_serve(bool (*moving)(void))
{
	static struct pollfd p[WHERES];

	for (;;) {
		unsigned n = 0, open = 0;
		static int where[WHERES];

		for (unsigned i = 0; i < set.members; i++) {
			open += members[i].open;
			if (members[i].open) {
				where[n] = (int)i;
				p[n++] = (struct pollfd){ .fd = members[i].fd, .events = POLLIN };
			}
		}
		if (!open)
			return;
		for (unsigned i = 0; i < set.members; i++) {
			if (members[i].phase == MEMBER_FROZEN && members[i].image >= 0) {
				where[n] = WHERE_IMAGE + (int)i;
				p[n++] = (struct pollfd){ .fd = members[i].image, .events = POLLIN };
			}
		}
		for (unsigned k = 0; k < mirror_total; k++) {
			if (mirrors[k].fd >= 0) {
				where[n] = -1 - (int)k;
				p[n++] = (struct pollfd){ .fd = mirrors[k].fd, .events = POLLIN };
			}
		}
		if (poll(p, n, 1) < 0 && errno != EINTR)
			die("poll");
		for (unsigned i = 0; i < n; i++) {
			if (!p[i].revents)
				continue;
			if (where[i] >= WHERE_IMAGE)
				decide((unsigned)(where[i] - WHERE_IMAGE));
			else if (where[i] >= 0)
				serve_member((unsigned)where[i]);
			else
				serve_mirror(&mirrors[-1 - where[i]]);
		}
		moves_due(moving);
	}
}

const struct mini_counts *mini_counts(void)
{
	return &counts;
}

unsigned mini_mirrors_left(void)
{
	unsigned n = 0;

	for (unsigned k = 0; k < mirror_total; k++)
		n += mirrors[k].fd >= 0;
	return n;
}

bool mini_mirrors_gone(void)
{
	uint64_t end = now_ns() + MIRROR_PATIENCE_S * 1000000000ull;
	bool well = true;

	for (unsigned k = 0; k < mirror_total; k++) {
		int status = -1;

		if (mirrors[k].cutter > 0) {
			kill(mirrors[k].cutter, SIGKILL);
			waitpid(mirrors[k].cutter, NULL, 0);
		}
		while (waitpid(mirrors[k].pid, &status, WNOHANG) == 0) {
			struct timespec slice = { 0, 10000000 };

			if (now_ns() > end) {
				fprintf(stderr, "# mirror %u of member %u still lives\n", k, mirrors[k].member);
				kill(mirrors[k].pid, SIGKILL);
				waitpid(mirrors[k].pid, &status, 0);
				well = false;
				break;
			}
			nanosleep(&slice, NULL);
		}
		if (!WIFEXITED(status) || WEXITSTATUS(status)) {
			fprintf(stderr, "# mirror %u of member %u ended with status %x\n", k, mirrors[k].member,
				(unsigned)status);
			well = false;
		}
	}
	return well;
}
