/* SPDX-License-Identifier: MIT */
/*
 * t0200-mirror - msmirror against a daemon, a member and peers that this
 * program plays with real sockets.  MSOCK_TEST_SEED repeats a run.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/codec.h"
#include "proto/wire.h"

enum { STREAMS = 40, MANY = 600, MEMBER = 7, M = 3, DEADLINE_S = 60, WINDOW = 1 << 20 };

struct stream {
	uint64_t id;
	uint32_t leg;
	int peer, mine; /* both ends of the connection; mine until the commit */
	/* peer to member */
	uint64_t start, total; /* offsets: of the mirror's first byte, one past the peer's last */
	uint64_t written, taken, acked;
	bool reset, at_end, peer_shut, ended;
	uint8_t how;
	/* member to peer */
	size_t told, heard; /* bytes */
	bool fin_sent, halfclosed, peer_eof, released;
};

struct scene {
	pid_t pid;
	int control;
	uint16_t port;
	int link;
	uint64_t m;
	size_t in_len;
	uint8_t in[MS_MIRROR_FRAME];
	struct stream s[MANY];
	unsigned streams;
	unsigned attaches;
	bool ack;   /* what is taken */
	FILE *said; /* the mirror's stderr; NULL: ours */
};

static const uint8_t key[MS_TOKEN] = "sixteen bytes ..";
static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 32) % n;
}

/* The byte of a stream at an offset. */
static uint8_t byte_at(uint64_t id, uint64_t offset)
{
	uint64_t x = (id * 0x9e3779b97f4a7c15u) ^ (offset * 0xbf58476d1ce4e5b9u);

	return (x ^ x >> 29) >> 11;
}

static void alarm_set(void)
{
	alarm(DEADLINE_S);
}

/* Sockets */

static void tcp_pair(int pair[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(pair[0], (struct sockaddr *)&at, sizeof(at)), 0);
	pair[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(pair[1] >= 0);
	close(listener);
}

static int link_dial(uint16_t port)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(sock, (struct sockaddr *)&at, sizeof(at)), 0);
	return sock;
}

static void send_all(int sock, const void *buf, size_t n)
{
	assert_int_equal(send(sock, buf, n, MSG_NOSIGNAL), n);
}

/* The other side closed it; what it sent before is skipped. */
static void expect_closed(int sock)
{
	char skipped[4096];
	ssize_t n;

	while ((n = recv(sock, skipped, sizeof(skipped), 0)) > 0)
		;
	assert_true(n == 0 || errno == ECONNRESET);
	close(sock);
}

/* The daemon's part */

static void ctl_begin(struct ms_codec *c, uint8_t *msg, size_t size, uint8_t type)
{
	ms_codec_init(c, msg, size);
	ms_put_u8(c, MS_WIRE_VERSION);
	ms_put_u8(c, type);
}

static void scene_open_to(struct scene *sc, char *const extra[], FILE *said)
{
	const char *dir = getenv("MSOCK_HELPERDIR");
	char path[4096];
	char *argv[8] = { path };
	int pair[2];

	memset(sc, 0, sizeof(*sc));
	sc->link = -1;
	sc->m = M;
	sc->ack = true;
	snprintf(path, sizeof(path), "%s/msmirror", dir ? dir : ".");
	for (int i = 0; extra && extra[i]; i++)
		argv[i + 1] = extra[i];
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	sc->said = said;
	sc->pid = fork();
	if (sc->pid == 0) {
		if (said)
			dup2(fileno(said), 2);
		if (pair[1] == 3)
			fcntl(3, F_SETFD, 0);
		else
			dup2(pair[1], 3);
		execv(path, argv);
		_exit(127);
	}
	close(pair[1]);
	sc->control = pair[0];
}

static void scene_open(struct scene *sc, char *const extra[])
{
	scene_open_to(sc, extra, NULL);
}

static void scene_start(struct scene *sc)
{
	uint8_t msg[64];
	struct ms_codec c;

	ctl_begin(&c, msg, sizeof(msg), MS_MC_START);
	ms_put_u32(&c, MEMBER);
	ms_put_u64(&c, M);
	ms_put_u32(&c, INADDR_LOOPBACK);
	ms_put_u16(&c, 0);
	ms_put_u16(&c, 0);
	ms_put_bytes(&c, key, MS_TOKEN);
	send_all(sc->control, msg, c.at - msg);
}

static void scene_list(struct scene *sc, unsigned from, unsigned n)
{
	uint8_t msg[MS_CTL_MAX];
	char rights[CMSG_SPACE(sizeof(int) * MS_FDS_MAX)] = { 0 };
	struct iovec iov = { .iov_base = msg };
	struct msghdr packet = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct ms_codec c;

	ctl_begin(&c, msg, sizeof(msg), MS_M_MIRROR);
	ms_put_u64(&c, M);
	ms_put_u16(&c, n);
	if (n) {
		packet.msg_control = rights;
		packet.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		struct cmsghdr *h = CMSG_FIRSTHDR(&packet);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int) * n);
		for (unsigned i = 0; i < n; i++)
			memcpy(CMSG_DATA(h) + i * sizeof(int), &sc->s[from + i].mine, sizeof(int));
	}
	for (unsigned i = from; i < from + n; i++) {
		ms_put_u64(&c, sc->s[i].id);
		ms_put_u32(&c, sc->s[i].leg);
		ms_put_u8(&c, sc->s[i].fin_sent);
		ms_put_u8(&c, sc->s[i].at_end);
		ms_put_u64(&c, sc->s[i].start);
	}
	iov.iov_len = c.at - msg;
	assert_int_equal(sendmsg(sc->control, &packet, MSG_NOSIGNAL), iov.iov_len);
}

static void scene_at(struct scene *sc)
{
	uint8_t msg[64];
	struct ms_codec c;
	ssize_t n;

	scene_list(sc, 0, 0);
	n = recv(sc->control, msg, sizeof(msg), 0);
	assert_int_equal(n, 4);
	assert_int_equal(msg[1], MS_MC_AT);
	ms_codec_init(&c, msg + 2, 2);
	sc->port = ms_get_u16(&c);
}

static void scene_outcome(struct scene *sc, bool committed)
{
	uint8_t msg[64];
	struct ms_codec c;

	ctl_begin(&c, msg, sizeof(msg), MS_D_OUTCOME);
	ms_put_u64(&c, M);
	ms_put_u8(&c, committed);
	send_all(sc->control, msg, c.at - msg);
	for (unsigned i = 0; committed && i < sc->streams; i++) {
		close(sc->s[i].mine); /* the member's process has ended */
		sc->s[i].mine = -1;
	}
}

static void scene_expect_done(struct scene *sc, uint64_t *forwarded)
{
	uint8_t msg[64];
	struct ms_codec c;

	assert_int_equal(recv(sc->control, msg, sizeof(msg), 0), 22);
	assert_int_equal(msg[1], MS_MC_DONE);
	ms_codec_init(&c, msg + 2, 20);
	ms_get_u64(&c);
	*forwarded = ms_get_u64(&c);
	assert_int_equal(ms_get_u32(&c), sc->streams);
}

static void scene_close(struct scene *sc, int status)
{
	int got;

	assert_int_equal(waitpid(sc->pid, &got, 0), sc->pid);
	assert_true(WIFEXITED(got));
	assert_int_equal(WEXITSTATUS(got), status);
	close(sc->control);
	if (sc->link >= 0)
		close(sc->link);
	for (unsigned i = 0; i < sc->streams; i++) {
		if (sc->s[i].peer >= 0)
			close(sc->s[i].peer);
		if (sc->s[i].mine >= 0)
			close(sc->s[i].mine);
	}
}

/* The peers' part */

static void stream_open(struct stream *s, unsigned i, uint64_t bytes)
{
	int pair[2];

	memset(s, 0, sizeof(*s));
	tcp_pair(pair);
	s->peer = pair[0];
	s->mine = pair[1];
	fcntl(s->peer, F_SETFL, O_NONBLOCK);
	s->id = 0x1000000000u + i * 77;
	s->leg = i % 5;
	s->start = (uint64_t)random_below(1 << 30) << random_below(20);
	s->written = s->taken = s->acked = s->start;
	s->total = s->start + bytes;
}

static void peer_write(struct stream *s)
{
	uint8_t buf[65536];
	uint64_t left = s->total - s->written;
	size_t n = random_below(sizeof(buf)) + 1;
	ssize_t done;

	if (s->peer < 0 || s->peer_shut)
		return;
	if (n > left)
		n = left;
	for (size_t i = 0; i < n; i++)
		buf[i] = byte_at(s->id, s->written + i);
	done = send(s->peer, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (done < 0)
		assert_int_equal(errno, EAGAIN);
	else
		s->written += done;
	if (s->written < s->total)
		return;
	s->peer_shut = true;
	if (s->reset) {
		setsockopt(s->peer, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
		close(s->peer);
		s->peer = -1;
	} else {
		shutdown(s->peer, SHUT_WR);
	}
}

static void peer_read(struct stream *s)
{
	uint8_t buf[4096];
	ssize_t n;

	while (s->peer >= 0 && !s->peer_eof && (n = recv(s->peer, buf, sizeof(buf), MSG_DONTWAIT)) >= 0) {
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], byte_at(~s->id, s->heard + i));
		s->heard += n;
		s->peer_eof = n == 0;
		if (s->peer_eof) {
			assert_true(s->fin_sent || s->halfclosed);
			assert_int_equal(s->heard, s->told);
		}
	}
}

/* What the member wrote before it was frozen. */
static void member_write(struct stream *s, size_t bytes)
{
	uint8_t byte;

	for (; s->told < bytes; s->told++) {
		byte = byte_at(~s->id, s->told);
		send_all(s->mine, &byte, 1);
	}
	if (s->fin_sent)
		shutdown(s->mine, SHUT_WR);
}

/* The member's part */

static void frame_send(int sock, uint8_t *frame, struct ms_codec *c)
{
	struct ms_codec head;

	ms_codec_init(&head, frame, 4);
	ms_put_u32(&head, c->at - frame - 4);
	send_all(sock, frame, c->at - frame);
}

static void frame_begin(struct ms_codec *c, uint8_t *frame, size_t size, uint8_t type)
{
	ctl_begin(c, frame + 4, size - 4, type);
}

static void attach_head(struct ms_codec *c, uint8_t *frame, size_t size, uint64_t m, const uint8_t *with, unsigned n)
{
	frame_begin(c, frame, size, MS_MI_ATTACH);
	ms_put_u32(c, MEMBER);
	ms_put_u64(c, m);
	ms_put_bytes(c, with, MS_TOKEN);
	ms_put_u16(c, n);
}

static void attach_send(struct scene *sc, int sock, uint64_t m)
{
	uint8_t frame[4096];
	struct ms_codec c;

	for (unsigned i = 0; i < sc->streams; i++) {
		struct stream *s = &sc->s[i];

		if (s->released)
			continue;
		attach_head(&c, frame, sizeof(frame), m, key, 1);
		ms_put_u64(&c, s->id);
		ms_put_u32(&c, s->leg);
		ms_put_u64(&c, s->taken);
		frame_send(sock, frame, &c);
	}
	attach_head(&c, frame, sizeof(frame), m, key, 0);
	frame_send(sock, frame, &c);
}

static void member_attach(struct scene *sc)
{
	sc->link = link_dial(sc->port);
	sc->in_len = 0;
	sc->attaches++;
	attach_send(sc, sc->link, sc->m);
}

static void order_send(struct scene *sc, struct stream *s, uint8_t type)
{
	uint8_t frame[64];
	struct ms_codec c;

	frame_begin(&c, frame, sizeof(frame), type);
	ms_put_u64(&c, s->id);
	ms_put_u32(&c, s->leg);
	if (type == MS_MI_ACK)
		ms_put_u64(&c, s->taken);
	frame_send(sc->link, frame, &c);
	if (type == MS_MI_ACK)
		s->acked = s->taken;
}

static struct stream *stream_find(struct scene *sc, uint64_t id, uint32_t leg)
{
	for (unsigned i = 0; i < sc->streams; i++)
		if (sc->s[i].id == id && sc->s[i].leg == leg)
			return &sc->s[i];
	fail_msg("the mirror knows a stream that is not ours");
	return NULL;
}

static void member_take(struct scene *sc, uint8_t *frame, size_t bytes)
{
	struct ms_codec c;
	struct stream *s;
	uint8_t type;
	uint64_t offset;

	ms_codec_init(&c, frame, bytes);
	assert_int_equal(ms_get_u8(&c), MS_WIRE_VERSION);
	type = ms_get_u8(&c);
	if (type == MS_MI_ATTACHED) {
		assert_int_equal(ms_get_u64(&c), sc->m);
		return;
	}
	offset = ms_get_u64(&c);
	s = stream_find(sc, offset, ms_get_u32(&c));
	offset = ms_get_u64(&c);
	assert_int_equal(offset, s->taken);
	if (type == MS_MI_END) { /* again on a new link, and perhaps behind the RELEASE */
		s->how = ms_get_u8(&c);
		s->ended = true;
		return;
	}
	assert_int_equal(type, MS_MI_BYTES);
	assert_false(s->ended || s->released);
	for (; c.at < c.end; c.at++, s->taken++)
		if (*c.at != byte_at(s->id, s->taken))
			fail_msg("stream %u: wrong byte at %llu", (unsigned)(s - sc->s), (unsigned long long)s->taken);
	assert_true(s->taken - s->acked <= WINDOW);
	if (sc->ack && random_below(3) == 0)
		order_send(sc, s, MS_MI_ACK);
}

/* false: the link is closed */
static bool member_read(struct scene *sc)
{
	ssize_t n = recv(sc->link, sc->in + sc->in_len, sizeof(sc->in) - sc->in_len, MSG_DONTWAIT);
	size_t at = 0;

	if (n < 0 && errno == EAGAIN)
		return true;
	if (n <= 0)
		return false;
	sc->in_len += n;
	while (sc->in_len - at >= 4) {
		struct ms_codec c;
		uint32_t bytes;

		ms_codec_init(&c, sc->in + at, 4);
		bytes = ms_get_u32(&c);
		assert_true(bytes <= MS_MIRROR_FRAME - 4);
		if (sc->in_len - at - 4 < bytes)
			break;
		member_take(sc, sc->in + at + 4, bytes);
		at += 4 + bytes;
	}
	memmove(sc->in, sc->in + at, sc->in_len - at);
	sc->in_len -= at;
	return true;
}

static void member_orders(struct scene *sc, struct stream *s)
{
	if (s->released || sc->link < 0)
		return;
	if (s->taken > s->acked && sc->ack && random_below(4) == 0)
		order_send(sc, s, MS_MI_ACK);
	if (!s->fin_sent && !s->halfclosed && random_below(50) == 0) {
		s->halfclosed = true;
		order_send(sc, s, MS_MI_HALFCLOSE);
	}
	if (s->ended && (s->peer_eof || s->peer < 0) && (s->fin_sent || s->halfclosed)) {
		order_send(sc, s, MS_MI_ACK);
		order_send(sc, s, MS_MI_RELEASE);
		s->released = true;
	}
}

static bool scene_released(const struct scene *sc)
{
	for (unsigned i = 0; i < sc->streams; i++)
		if (!sc->s[i].released)
			return false;
	return true;
}

static void scene_wait(struct scene *sc)
{
	struct pollfd p[MANY + 1];
	unsigned n = 0;

	for (unsigned i = 0; i < sc->streams; i++)
		if (sc->s[i].peer >= 0 && !sc->s[i].released)
			p[n++] = (struct pollfd){ .fd = sc->s[i].peer,
						  .events = (sc->s[i].peer_eof ? 0 : POLLIN) |
							    (sc->s[i].peer_shut ? 0 : POLLOUT) };
	p[n++] = (struct pollfd){ .fd = sc->link, .events = POLLIN };
	poll(p, n, 1);
}

/* Break the link: as the network does (unread bytes), or by a second one; orders on the way may be lost. */
static void member_break(struct scene *sc)
{
	int older = sc->link;

	if (random_below(2))
		sc->m++;
	if (random_below(2)) {
		setsockopt(older, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
		close(older);
		member_attach(sc);
	} else {
		member_attach(sc);
		expect_closed(older);
	}
	for (unsigned i = 0; i < sc->streams; i++)
		if (sc->s[i].halfclosed && !sc->s[i].released)
			order_send(sc, &sc->s[i], MS_MI_HALFCLOSE);
}

static void scene_fill(struct scene *sc)
{
	sc->streams = STREAMS;
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *s = &sc->s[i];
		char skipped[65536];

		stream_open(s, i, i % 7 == 0 ? random_below(6 << 20) : random_below(200000));
		s->reset = i % 10 == 3;
		s->fin_sent = i % 4 == 1;
		if (i % 10 == 5) { /* all read by the member, its end too */
			s->at_end = true;
			s->total = s->start;
			peer_write(s);
			while (recv(s->mine, skipped, sizeof(skipped), 0) > 0)
				;
		}
		member_write(s, random_below(300));
	}
}

static void test_streams(void **state)
{
	struct scene *sc = *state;
	uint64_t forwarded, bytes = 0;
	unsigned breaks = 0;

	scene_open(sc, NULL);
	scene_fill(sc);
	scene_start(sc);
	scene_list(sc, 0, 25);
	scene_list(sc, 25, STREAMS - 25);
	scene_at(sc);
	assert_int_not_equal(sc->port, 0);
	member_attach(sc);
	scene_outcome(sc, true);
	while (!scene_released(sc)) {
		for (unsigned i = 0; i < STREAMS; i++) {
			peer_write(&sc->s[i]);
			peer_read(&sc->s[i]);
			member_orders(sc, &sc->s[i]);
		}
		if (scene_released(sc))
			break;
		for (int i = random_below(8); i > 0; i--)
			assert_true(member_read(sc));
		if (breaks < 30 && random_below(30) == 0) {
			member_break(sc);
			breaks++;
		}
		scene_wait(sc);
	}
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *s = &sc->s[i];

		bytes += s->taken - s->start;
		if (s->reset)
			assert_true(s->taken <= s->written);
		else
			assert_int_equal(s->taken, s->total);
		assert_int_equal(s->how, s->reset);
	}
	scene_expect_done(sc, &forwarded);
	assert_true(forwarded >= bytes);
	print_message("# %llu bytes, %llu forwarded, %u attaches\n", (unsigned long long)bytes,
		      (unsigned long long)forwarded, sc->attaches);
	scene_close(sc, 0);
}

/* Rule 16, and: on an abort the member still has its legs, and every byte in them. */
static void test_abort(void **state)
{
	struct scene *sc = *state;
	char buf[16];

	scene_open(sc, NULL);
	sc->streams = 2;
	for (unsigned i = 0; i < 2; i++)
		stream_open(&sc->s[i], i, 0);
	scene_start(sc);
	scene_list(sc, 0, 2);
	scene_at(sc);
	member_attach(sc);
	send_all(sc->s[0].peer, "before", 6);
	assert_int_equal(poll(&(struct pollfd){ .fd = sc->link, .events = POLLIN }, 1, 300), 0);
	scene_outcome(sc, false);
	scene_close(&(struct scene){ .pid = sc->pid, .control = sc->control, .link = sc->link }, 0);
	assert_int_equal(recv(sc->s[0].mine, buf, sizeof(buf), 0), 6);
	assert_memory_equal(buf, "before", 6);
	send_all(sc->s[0].mine, "after", 5);
	fcntl(sc->s[0].peer, F_SETFL, 0);
	assert_int_equal(recv(sc->s[0].peer, buf, sizeof(buf), 0), 5);
	for (unsigned i = 0; i < 2; i++) {
		close(sc->s[i].mine);
		close(sc->s[i].peer);
	}
}

/* Nobody without the key, or with an older m, disturbs; frames of any shape only cost their sender the link. */
static void test_strangers(void **state)
{
	struct scene *sc = *state;
	uint8_t frame[256], wrong[MS_TOKEN];
	struct ms_codec c;
	int silent[50];
	uint64_t forwarded;

	scene_open(sc, NULL);
	sc->streams = 1;
	stream_open(&sc->s[0], 0, 100000);
	scene_start(sc);
	scene_list(sc, 0, 1);
	scene_at(sc);
	scene_outcome(sc, true);
	member_attach(sc);
	for (unsigned i = 0; i < 50; i++)
		silent[i] = link_dial(sc->port);
	for (unsigned i = 0; i < 200; i++) {
		int sock = link_dial(sc->port);
		size_t n = random_below(sizeof(frame)) + 4;

		for (size_t k = 0; k < n && k < sizeof(frame); k++)
			frame[k] = random_below(256);
		if (i % 3) { /* a right length, version and type, the rest is noise */
			attach_head(&c, frame, sizeof(frame), M, frame + 100, 3);
			frame_send(sock, frame, &c);
		} else {
			send_all(sock, frame, n < sizeof(frame) ? n : sizeof(frame));
			shutdown(sock, SHUT_WR);
		}
		expect_closed(sock);
	}
	memcpy(wrong, key, MS_TOKEN);
	wrong[MS_TOKEN - 1] ^= 1;
	for (unsigned i = 0; i < 2; i++) { /* last bit of the key; an older m */
		int sock = link_dial(sc->port);

		attach_head(&c, frame, sizeof(frame), M - i, i ? key : wrong, 0);
		frame_send(sock, frame, &c);
		expect_closed(sock);
	}
	while (!scene_released(sc)) {
		peer_write(&sc->s[0]);
		peer_read(&sc->s[0]);
		assert_true(member_read(sc));
		member_orders(sc, &sc->s[0]);
		scene_wait(sc);
	}
	assert_int_equal(sc->attaches, 1);
	assert_int_equal(sc->s[0].taken, sc->s[0].total);
	scene_expect_done(sc, &forwarded);
	scene_close(sc, 0);
	for (unsigned i = 0; i < 50; i++)
		close(silent[i]);
}

/* A member that does not acknowledge gets the window and no more; the others go on. */
static void test_window(void **state)
{
	struct scene *sc = *state;
	uint64_t forwarded;

	scene_open(sc, NULL);
	sc->streams = 2;
	sc->ack = false;
	stream_open(&sc->s[0], 0, 30 << 20);
	stream_open(&sc->s[1], 1, 1000);
	scene_start(sc);
	scene_list(sc, 0, 2);
	scene_at(sc);
	scene_outcome(sc, true);
	member_attach(sc);
	while (sc->s[0].taken - sc->s[0].start < WINDOW || sc->s[1].taken < sc->s[1].total) {
		peer_write(&sc->s[0]);
		peer_write(&sc->s[1]);
		assert_true(member_read(sc));
	}
	for (unsigned i = 0; i < 200; i++) {
		peer_write(&sc->s[0]);
		assert_true(member_read(sc));
	}
	assert_int_equal(sc->s[0].taken - sc->s[0].start, WINDOW);
	sc->ack = true;
	while (!scene_released(sc)) {
		for (unsigned i = 0; i < 2; i++) {
			peer_write(&sc->s[i]);
			peer_read(&sc->s[i]);
			member_orders(sc, &sc->s[i]);
		}
		if (!scene_released(sc))
			assert_true(member_read(sc));
	}
	assert_int_equal(sc->s[0].taken, sc->s[0].total);
	scene_expect_done(sc, &forwarded);
	scene_close(sc, 0);
}

/* A member at its target has read its only stream to the end that the peer wrote. */
static void read_to_end(struct scene *sc)
{
	scene_start(sc);
	scene_list(sc, 0, 1);
	scene_at(sc);
	scene_outcome(sc, true);
	member_attach(sc);
	while (!sc->s[0].ended) {
		peer_write(&sc->s[0]);
		assert_true(member_read(sc));
	}
}

/* A RELEASE that was lost with its link: the next ATTACH does not name the leg, and so gives it up. */
static void test_lost_release(void **state)
{
	struct scene *sc = *state;
	uint64_t forwarded;

	scene_open(sc, NULL);
	sc->streams = 1;
	stream_open(&sc->s[0], 0, 10);
	sc->s[0].fin_sent = true;
	member_write(&sc->s[0], 0);
	read_to_end(sc);
	close(sc->link);
	sc->s[0].released = true;
	member_attach(sc);
	scene_expect_done(sc, &forwarded);
	scene_close(sc, 0);
}

/* Has the mirror said, in what it said, that a leg was not settled? The file is closed. */
static bool complained(FILE *said)
{
	char text[4096] = { 0 };

	rewind(said);
	assert_true(fread(text, 1, sizeof(text) - 1, said) < sizeof(text) - 1);
	fclose(said);
	return strstr(text, "before it is settled");
}

/* A peer that has ended without reading all: nothing is left in its leg that could be settled, and nobody complains. */
static void test_dead_peer(void **state)
{
	struct scene *sc = *state;
	struct stream *s = &sc->s[0];
	struct pollfd dead = { 0 };
	FILE *said = tmpfile();
	uint64_t forwarded;
	char text[4096] = { 0 };

	scene_open_to(sc, NULL, said);
	sc->streams = 1;
	stream_open(s, 0, 10);
	s->fin_sent = true;
	dead.fd = dup(s->mine);
	while (send(s->mine, text, sizeof(text), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		; /* more than the peer's kernel takes */
	shutdown(s->mine, SHUT_WR);
	read_to_end(sc);
	close(s->peer); /* with all of it unread */
	s->peer = -1;
	assert_int_equal(poll(&dead, 1, DEADLINE_S * 1000), 1);
	assert_true(dead.revents & POLLHUP);
	close(dead.fd);
	order_send(sc, s, MS_MI_ACK);
	order_send(sc, s, MS_MI_RELEASE);
	scene_expect_done(sc, &forwarded);
	scene_close(sc, 0);
	assert_false(complained(said));
}

/*
 * A peer that has ended with all of it read, and without a word (rule 29): the stream ends with an error, the member tells no
 * FIN, and nobody complains; of a leg that is released so the mirror does.
 */
static void unsettled(struct scene *sc, uint8_t order, bool complains)
{
	struct stream *s = &sc->s[0];
	FILE *said = tmpfile();
	uint64_t forwarded;

	scene_open_to(sc, NULL, said);
	sc->streams = 1;
	stream_open(s, 0, 10);
	read_to_end(sc);
	order_send(sc, s, MS_MI_ACK);
	order_send(sc, s, order);
	scene_expect_done(sc, &forwarded);
	scene_close(sc, 0);
	assert_int_equal(complained(said), complains);
}

static void test_released_unsettled(void **state)
{
	unsettled(*state, MS_MI_RELEASE, true);
}

static void test_abandoned(void **state)
{
	unsettled(*state, MS_MI_ABANDON, false);
}

/* The list in several packets of descriptors. */
static void test_many(void **state)
{
	struct rlimit limit;
	struct scene *sc = *state;
	uint64_t forwarded;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	scene_open(sc, NULL);
	sc->streams = MANY;
	for (unsigned i = 0; i < MANY; i++)
		stream_open(&sc->s[i], i, random_below(2000));
	scene_start(sc);
	for (unsigned i = 0; i < MANY; i += MS_FDS_MAX)
		scene_list(sc, i, MANY - i < MS_FDS_MAX ? MANY - i : MS_FDS_MAX);
	scene_at(sc);
	scene_outcome(sc, true);
	member_attach(sc);
	while (!scene_released(sc)) {
		for (unsigned i = 0; i < MANY; i++) {
			peer_write(&sc->s[i]);
			peer_read(&sc->s[i]);
			member_orders(sc, &sc->s[i]);
		}
		for (unsigned i = 0; i < 50 && !scene_released(sc); i++)
			assert_true(member_read(sc));
	}
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(sc->s[i].taken, sc->s[i].total);
	scene_expect_done(sc, &forwarded);
	scene_close(sc, 0);
}

static void test_ends(void **state)
{
	static char *const limited[] = { "--timeout", "1", NULL };
	struct scene *sc = *state;
	uint8_t msg[2] = { MS_WIRE_VERSION, MS_MC_MEMBER_ENDED };
	uint64_t forwarded;

	/* the member has ended; the daemon has; the time is over */
	for (unsigned i = 0; i < 3; i++) {
		scene_open(sc, i == 2 ? limited : NULL);
		sc->streams = 1;
		stream_open(&sc->s[0], 0, 10);
		scene_start(sc);
		scene_list(sc, 0, 1);
		scene_at(sc);
		scene_outcome(sc, true);
		if (i == 0)
			send_all(sc->control, msg, 2);
		if (i == 1)
			shutdown(sc->control, SHUT_RDWR);
		else
			scene_expect_done(sc, &forwarded);
		scene_close(sc, i == 1);
	}
	/* nothing to mirror */
	scene_open(sc, NULL);
	scene_start(sc);
	scene_at(sc);
	scene_outcome(sc, true);
	scene_expect_done(sc, &forwarded);
	scene_close(sc, 0);
	/* a list that is wrong: one stream twice */
	scene_open(sc, NULL);
	sc->streams = 1;
	stream_open(&sc->s[0], 0, 10);
	scene_start(sc);
	scene_list(sc, 0, 1);
	scene_list(sc, 0, 1);
	scene_at(sc);
	assert_int_equal(sc->port, 0);
	scene_close(sc, 1);
}

int main(void)
{
	static struct scene scene;
	struct scene *at = &scene;
	const char *seed = getenv("MSOCK_TEST_SEED");
	struct timespec now;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_streams, at),
		cmocka_unit_test_prestate(test_abort, at),
		cmocka_unit_test_prestate(test_strangers, at),
		cmocka_unit_test_prestate(test_window, at),
		cmocka_unit_test_prestate(test_lost_release, at),
		cmocka_unit_test_prestate(test_many, at),
		cmocka_unit_test_prestate(test_ends, at),
		cmocka_unit_test_prestate(test_dead_peer, at),
		cmocka_unit_test_prestate(test_released_unsettled, at),
		cmocka_unit_test_prestate(test_abandoned, at),
	};

	clock_gettime(CLOCK_REALTIME, &now);
	random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
	printf("# MSOCK_TEST_SEED=%llu\n", (unsigned long long)random_state);
	fflush(stdout);
	alarm_set();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
