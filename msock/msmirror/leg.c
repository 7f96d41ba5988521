/* SPDX-License-Identifier: MIT */
#include "msmirror/leg.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/tcp_state.h"
#include "proto/log.h"

enum {
	LEG_READ_AT_ONCE = 256 << 10, /* then others have their turn */
	LEG_SHUT_US = 10000,          /* between two reads of a leg that always looks readable */
};

void leg_table_init(struct leg_table *t, size_t window, void (*wake)(void *arg), void *arg)
{
	memset(t, 0, sizeof(*t));
	t->window = window;
	t->wake = wake;
	t->arg = arg;
	TAILQ_INIT(&t->ready);
}

static void leg_dequeue(struct leg *leg)
{
	if (leg->queued)
		TAILQ_REMOVE(&leg->table->ready, leg, queue);
	leg->queued = false;
}

static void leg_destroy(struct leg *leg)
{
	leg_dequeue(leg);
	if (leg->readable)
		event_free(leg->readable);
	ring_free(&leg->bytes);
	close(leg->fd);
	free(leg);
}

void leg_table_free(struct leg_table *t)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->leg[i])
			leg_destroy(t->leg[i]);
	free(t->leg);
	t->leg = NULL;
	t->count = t->left = t->room = 0;
}

int leg_table_add(struct leg_table *t, uint64_t stream, uint32_t number, int fd, bool fin_sent, bool at_end,
		  uint64_t taken)
{
	struct leg *leg = calloc(1, sizeof(*leg));

	if (leg && t->count == t->room) {
		size_t room = t->room ? 2 * t->room : 64;
		struct leg **more = realloc(t->leg, room * sizeof(struct leg *));

		if (more) {
			t->leg = more;
			t->room = room;
		}
	}
	if (!leg || t->count == t->room) {
		log_say(LOG_ERROR, "no memory for a leg");
		close(fd);
		free(leg);
		return -1;
	}
	leg->stream = stream;
	leg->number = number;
	leg->fd = fd;
	leg->fin_sent = fin_sent;
	leg->end = at_end ? LEG_FIN : LEG_OPEN;
	leg->base = leg->sent = taken;
	leg->table = t;
	t->leg[t->count++] = leg;
	t->left++;
	return 0;
}

static int leg_order(const struct leg *a, uint64_t stream, uint32_t number)
{
	if (a->stream != stream)
		return a->stream < stream ? -1 : 1;
	return (a->number > number) - (a->number < number);
}

static int leg_compare(const void *a, const void *b)
{
	const struct leg *const *left = a, *const *right = b;

	return leg_order(*left, (*right)->stream, (*right)->number);
}

int leg_table_seal(struct leg_table *t)
{
	if (t->count)
		qsort(t->leg, t->count, sizeof(struct leg *), leg_compare);
	for (size_t i = 0; i < t->count; i++)
		t->leg[i]->index = i;
	for (size_t i = 1; i < t->count; i++)
		if (leg_compare(&t->leg[i - 1], &t->leg[i]) == 0) {
			log_say(LOG_ERROR, "stream %llx leg %u was given twice", (unsigned long long)t->leg[i]->stream,
				t->leg[i]->number);
			return -1;
		}
	return 0;
}

/* A released leg leaves a hole, so the search steps over holes to the left of the middle. */
struct leg *leg_table_find(struct leg_table *t, uint64_t stream, uint32_t number)
{
	size_t low = 0, high = t->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2, at = mid;
		int order;

		while (at > low && !t->leg[at])
			at--;
		if (!t->leg[at]) {
			low = mid + 1;
			continue;
		}
		order = leg_order(t->leg[at], stream, number);
		if (order == 0)
			return t->leg[at];
		if (order < 0)
			low = mid + 1;
		else
			high = at;
	}
	return NULL;
}

static bool leg_has_more(const struct leg *leg)
{
	return leg->listed && (leg->sent < leg->base + leg->bytes.len || (leg->end != LEG_OPEN && !leg->end_sent));
}

static void leg_queue_up(struct leg *leg)
{
	struct leg_table *t = leg->table;
	bool first = TAILQ_EMPTY(&t->ready);

	if (leg->queued || !leg_has_more(leg))
		return;
	TAILQ_INSERT_TAIL(&t->ready, leg, queue);
	leg->queued = true;
	if (first)
		t->wake(t->arg);
}

static void leg_set_end(struct leg *leg, enum leg_end end)
{
	log_say(LOG_DEBUG, "stream %llx leg %u: %s at %llu", (unsigned long long)leg->stream, leg->number,
		end == LEG_FIN ? "end" : "reset", (unsigned long long)(leg->base + leg->bytes.len));
	leg->end = end;
	if (leg->readable)
		event_free(leg->readable);
	leg->readable = NULL;
	leg->paused = false;
}

static unsigned leg_state(const struct leg *leg)
{
	uint8_t state = TCP_CLOSE; /* the first field of struct tcp_info */
	socklen_t size = sizeof(state);

	getsockopt(leg->fd, IPPROTO_TCP, TCP_INFO, &state, &size);
	return state;
}

/* By time where it was shut for reading. */
static int leg_watch(struct leg *leg)
{
	static const struct timeval pause = { .tv_usec = LEG_SHUT_US };

	return event_add(leg->readable, leg->shut ? &pause : NULL);
}

static void leg_read(evutil_socket_t fd, short what, void *arg);

/* A read has said 0. As long as the peer's FIN is not here the program has shut it for reading, and bytes may come. */
static bool leg_ends(struct leg *leg)
{
	unsigned state = leg_state(leg);

	if (!tcp_fin_received(state)) {
		if (!leg->shut) {
			leg->shut = true;
			event_del(leg->readable);
			event_assign(leg->readable, event_get_base(leg->readable), -1, EV_PERSIST, leg_read, leg);
			leg_watch(leg);
		}
		return false;
	}
	/* A reset is told once; before our own FIN only that makes a connection dead. */
	leg->torn = leg->torn || (!leg->fin_sent && state == TCP_CLOSE);
	leg_set_end(leg, LEG_FIN);
	return true;
}

static void leg_read(evutil_socket_t fd, short what, void *arg)
{
	struct leg *leg = arg;
	size_t total = 0;

	while (total < LEG_READ_AT_ONCE && leg->end == LEG_OPEN) {
		struct iovec piece[2];
		struct msghdr msg = { .msg_iov = piece };
		ssize_t n;

		msg.msg_iovlen = ring_room(&leg->bytes, leg->table->window, piece);
		if (msg.msg_iovlen == 0) {
			leg->paused = true;
			event_del(leg->readable);
			break;
		}
		/* O_NONBLOCK is the open file's, shared with the member until that is gone: not touched */
		n = recvmsg(leg->fd, &msg, MSG_DONTWAIT);
		if (n > 0) {
			ring_put(&leg->bytes, n);
			total += n;
		} else if (n == 0) {
			if (!leg_ends(leg))
				break;
		} else if (errno == EAGAIN || errno == EINTR) {
			break;
		} else {
			log_say(LOG_INFO, "stream %llx leg %u: %s", (unsigned long long)leg->stream, leg->number,
				strerror(errno));
			leg_set_end(leg, LEG_RESET);
		}
	}
	leg_queue_up(leg);
}

int leg_start(struct leg *leg, struct event_base *base)
{
	if (leg->end != LEG_OPEN)
		return 0;
	leg->readable = event_new(base, leg->fd, EV_READ | EV_PERSIST, leg_read, leg);
	if (!leg->readable || leg_watch(leg) < 0) {
		log_say(LOG_ERROR, "no event for a leg");
		return -1;
	}
	return 0;
}

static void leg_forget(struct leg *leg, uint64_t upto)
{
	ring_drop(&leg->bytes, upto - leg->base);
	leg->base = upto;
	if (leg->paused) {
		leg->paused = false;
		leg_watch(leg);
	}
}

int leg_list(struct leg *leg, uint64_t taken)
{
	leg->listed = true;
	leg->end_sent = false;
	if (taken < leg->base || taken > leg->base + leg->bytes.len) {
		log_say(LOG_ERROR,
			"stream %llx leg %u: the member wants bytes from %llu, kept are %llu to %llu; it is broken",
			(unsigned long long)leg->stream, leg->number, (unsigned long long)taken,
			(unsigned long long)leg->base, (unsigned long long)(leg->base + leg->bytes.len));
		leg->sent = leg->base + leg->bytes.len;
		leg_set_end(leg, LEG_RESET);
		leg_queue_up(leg);
		return -1;
	}
	leg->sent = taken;
	leg_forget(leg, taken);
	leg_queue_up(leg);
	return 0;
}

void leg_unlist(struct leg *leg)
{
	leg_dequeue(leg);
	leg->listed = false;
}

enum leg_send leg_next(struct leg *leg, void *dst, size_t room, uint64_t *offset, size_t *n)
{
	size_t from = leg->sent - leg->base;

	leg_dequeue(leg);
	if (!leg_has_more(leg))
		return LEG_SEND_NOTHING;
	*offset = leg->sent;
	*n = leg->bytes.len - from < room ? leg->bytes.len - from : room;
	if (*n == 0) {
		leg->end_sent = leg->end_told = true;
		return LEG_SEND_END;
	}
	ring_copy(&leg->bytes, from, dst, *n);
	leg->sent += *n;
	leg->table->forwarded += *n;
	leg_queue_up(leg);
	return LEG_SEND_BYTES;
}

int leg_ack(struct leg *leg, uint64_t offset)
{
	if (offset > leg->sent)
		return -1;
	if (offset > leg->base)
		leg_forget(leg, offset);
	return 0;
}

void leg_halfclose(struct leg *leg)
{
	if (leg->fin_sent)
		return;
	leg->fin_sent = true;
	if (shutdown(leg->fd, SHUT_WR) == 0)
		return;
	if (errno == ENOTCONN && leg->end == LEG_OPEN)
		leg->torn = true;
	else if (errno != ENOTCONN)
		log_say(LOG_WARN, "stream %llx leg %u: shutdown: %s", (unsigned long long)leg->stream, leg->number,
			strerror(errno));
}

/* Bytes that the peer has not acknowledged, its FIN not counted. */
static int leg_unsent(const struct leg *leg)
{
	int n = 0;

	if (leg_state(leg) == TCP_CLOSE)
		return 0;
	return ioctl(leg->fd, SIOCOUTQ, &n) < 0 || n <= leg->fin_sent ? 0 : n - leg->fin_sent;
}

bool leg_settled(const struct leg *leg)
{
	if (leg->end == LEG_RESET)
		return true;
	return leg->end == LEG_FIN && leg->bytes.len == 0 && leg->fin_sent && leg_unsent(leg) == 0;
}

void leg_abandon(struct leg *leg)
{
	struct leg_table *t = leg->table;

	t->leg[leg->index] = NULL;
	t->left--;
	leg_destroy(leg);
}

void leg_release(struct leg *leg)
{
	if (!leg_settled(leg))
		log_say(LOG_ERROR,
			"stream %llx leg %u is released before it is settled: end %s, %zu bytes not taken, "
			"%d bytes not at the peer, FIN %s",
			(unsigned long long)leg->stream, leg->number, leg->end == LEG_OPEN ? "not read" : "read",
			leg->bytes.len, leg_unsent(leg), leg->fin_sent ? "sent" : "not sent");
	leg_abandon(leg);
}
