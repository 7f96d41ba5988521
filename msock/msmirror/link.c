/* SPDX-License-Identifier: MIT */
#include "msmirror/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/codec.h"
#include "proto/log.h"

enum {
	LINK_STRANGERS = 32, /* then the oldest goes */
	LINK_PROVE_S = 10,   /* seconds for the whole ATTACH */
	LINK_FRAMES = 16,    /* handled at once, then others have their turn */
	LINK_BYTES = 65536,  /* of a stream in one frame */
	LINK_HEAD = 6,       /* length, version, type */
	LINK_BYTES_HEAD = LINK_HEAD + 8 + 4 + 8,
};

enum link_state {
	LINK_STRANGER, /* nothing known of it */
	LINK_PROVEN,   /* had the key; its list comes */
	LINK_WAITING,  /* has its list; the commit is not known: not read */
	LINK_ATTACHED, /* gets bytes, gives orders */
};

struct wish {
	uint64_t stream;
	uint32_t number;
	uint64_t taken;
};

struct link {
	struct link_set *set; /* borrowed */
	LIST_ENTRY(link) entry;
	enum link_state state;
	int fd;                 /* owned */
	struct event *readable; /* owned */
	struct event *writable; /* owned */
	struct event *deadline; /* owned; until attached */
	uint64_t m;
	struct wish *wish; /* owned; what ATTACH asked for */
	size_t wishes;
	size_t in_len, out_len, out_at;
	uint8_t in[MS_MIRROR_FRAME];
	uint8_t out[MS_MIRROR_FRAME];
};

static const char *const state_names[] = {
	[LINK_STRANGER] = "stranger",
	[LINK_PROVEN] = "proven",
	[LINK_WAITING] = "waiting",
	[LINK_ATTACHED] = "attached",
};

static void link_state_set(struct link *link, enum link_state state, const char *why)
{
	log_say(LOG_DEBUG, "link %d: %s -> %s: %s", link->fd, state_names[link->state], state_names[state], why);
	if (link->state == LINK_STRANGER && state != LINK_STRANGER)
		link->set->unproven--;
	link->state = state;
}

static void link_close(struct link *link, const char *why)
{
	struct link_set *set = link->set;

	log_say(link->state == LINK_STRANGER ? LOG_INFO : LOG_DEBUG, "link %d, %s, is closed: %s", link->fd,
		state_names[link->state], why);
	if (set->attached == link) {
		set->attached = NULL;
		for (size_t i = 0; i < set->legs->count; i++)
			if (set->legs->leg[i])
				leg_unlist(set->legs->leg[i]);
	}
	if (link->state == LINK_STRANGER)
		set->unproven--;
	LIST_REMOVE(link, entry);
	if (link->readable)
		event_free(link->readable);
	if (link->writable)
		event_free(link->writable);
	if (link->deadline)
		event_free(link->deadline);
	close(link->fd);
	free(link->wish);
	free(link);
}

/* Writing */

static void link_frame_begin(struct link *link, struct ms_codec *c, uint8_t type)
{
	ms_codec_init(c, link->out, sizeof(link->out));
	ms_codec_skip(c, 4);
	ms_put_u8(c, MS_WIRE_VERSION);
	ms_put_u8(c, type);
}

static void link_frame_end(struct link *link, struct ms_codec *c)
{
	struct ms_codec head;

	link->out_at = 0;
	link->out_len = c->at - link->out;
	ms_codec_init(&head, link->out, 4);
	ms_put_u32(&head, link->out_len - 4);
}

/* Fill the empty out buffer with the next frame. false: there is none. */
static bool link_frame_next(struct link *link)
{
	struct leg_table *t = link->set->legs;
	struct ms_codec c;
	struct leg *leg;
	uint64_t offset;
	size_t n;

	while ((leg = TAILQ_FIRST(&t->ready))) {
		enum leg_send what = leg_next(leg, link->out + LINK_BYTES_HEAD, LINK_BYTES, &offset, &n);

		if (what == LEG_SEND_NOTHING)
			continue;
		link_frame_begin(link, &c, what == LEG_SEND_BYTES ? MS_MI_BYTES : MS_MI_END);
		ms_put_u64(&c, leg->stream);
		ms_put_u32(&c, leg->number);
		ms_put_u64(&c, offset);
		if (what == LEG_SEND_BYTES)
			ms_codec_skip(&c, n);
		else
			ms_put_u8(&c, leg->end == LEG_RESET ? MS_MIRROR_RESET
				      : leg->torn           ? MS_MIRROR_TORN
							    : MS_MIRROR_FIN);
		link_frame_end(link, &c);
		return true;
	}
	return false;
}

static void link_write(evutil_socket_t fd, short what, void *arg)
{
	struct link *link = arg;

	for (int frames = 0; frames < LINK_FRAMES; frames++) {
		if (link->out_at == link->out_len && !link_frame_next(link)) {
			event_del(link->writable);
			return;
		}
		while (link->out_at < link->out_len) {
			ssize_t n = send(link->fd, link->out + link->out_at, link->out_len - link->out_at,
					 MSG_DONTWAIT | MSG_NOSIGNAL);

			if (n < 0 && (errno == EAGAIN || errno == EINTR))
				return;
			if (n < 0) {
				link_close(link, strerror(errno));
				return;
			}
			link->out_at += n;
		}
	}
}

void link_set_wake(void *arg)
{
	struct link_set *set = arg;

	if (set->attached)
		event_add(set->attached->writable, NULL);
}

/* Attaching */

/*
 * A leg that the member does not ask for, but had the end of, is one that it
 * has released: the RELEASE was lost with the older link.  Any other is kept.
 */
static void link_unlisted(struct link_set *set)
{
	for (size_t i = 0; i < set->legs->count; i++) {
		struct leg *leg = set->legs->leg[i];

		if (!leg || leg->listed)
			continue;
		if (leg->end_told && (leg->fin_sent || leg->end == LEG_RESET)) {
			log_say(LOG_INFO, "stream %llx leg %u is not asked for any more: released",
				(unsigned long long)leg->stream, leg->number);
			leg_ack(leg, leg->sent);
			leg_release(leg);
		} else {
			/* settled without what is kept here: its RELEASE follows ATTACHED */
			log_say(LOG_INFO, "stream %llx leg %u is not asked for", (unsigned long long)leg->stream,
				leg->number);
		}
	}
}

static void link_attach(struct link *link)
{
	struct link_set *set = link->set;
	struct ms_codec c;

	if (set->attached)
		link_close(set->attached, "another one takes its place");
	link_state_set(link, LINK_ATTACHED, "all is known");
	event_free(link->deadline);
	link->deadline = NULL;
	set->attached = link;
	set->m = link->m;
	log_say(LOG_INFO, "attached: m %llu, %zu streams", (unsigned long long)link->m, link->wishes);
	link_frame_begin(link, &c, MS_MI_ATTACHED);
	ms_put_u64(&c, link->m);
	link_frame_end(link, &c);
	for (size_t i = 0; i < link->wishes; i++) {
		struct wish *w = &link->wish[i];
		struct leg *leg = leg_table_find(set->legs, w->stream, w->number);

		if (leg)
			leg_list(leg, w->taken);
		else
			log_say(LOG_WARN, "stream %llx leg %u is asked for and not here", (unsigned long long)w->stream,
				w->number);
	}
	free(link->wish);
	link->wish = NULL;
	link_unlisted(set);
	event_add(link->writable, NULL);
	event_add(link->readable, NULL);
}

/* 0, or -1 with the reason for closing the link. */
static int link_take_attach(struct link *link, struct ms_codec *c, const char **why)
{
	struct link_set *set = link->set;
	uint32_t member = ms_get_u32(c);
	uint64_t m = ms_get_u64(c);
	uint8_t key[MS_TOKEN];
	unsigned n;

	ms_get_bytes(c, key, sizeof(key));
	n = ms_get_u16(c);
	*why = "no ATTACH for this mirror";
	if (c->bad || (size_t)(c->end - c->at) != n * 20u || member != set->member ||
	    sodium_memcmp(key, set->key, sizeof(key)) != 0)
		return -1;
	*why = "its m is older";
	if (m < set->m || (link->state != LINK_STRANGER && m != link->m))
		return -1;
	if (link->state == LINK_STRANGER)
		link_state_set(link, LINK_PROVEN, "right key");
	link->m = m;
	*why = "more streams than there are";
	if (link->wishes + n > set->legs->count + 1024)
		return -1;
	if (n) {
		struct wish *more = realloc(link->wish, (link->wishes + n) * sizeof(*more));

		*why = "no memory";
		if (!more)
			return -1;
		link->wish = more;
		for (unsigned i = 0; i < n; i++) {
			struct wish *w = &link->wish[link->wishes++];

			w->stream = ms_get_u64(c);
			w->number = ms_get_u32(c);
			w->taken = ms_get_u64(c);
		}
		return 0;
	}
	link_state_set(link, LINK_WAITING, "list is whole");
	event_del(link->deadline);
	if (set->committed)
		link_attach(link);
	else
		event_del(link->readable);
	return 0;
}

/* Reading */

static int link_take_order(struct link *link, uint8_t type, struct ms_codec *c, const char **why)
{
	struct link_set *set = link->set;
	uint64_t stream = ms_get_u64(c);
	uint32_t number = ms_get_u32(c);
	uint64_t offset = type == MS_MI_ACK ? ms_get_u64(c) : 0;
	struct leg *leg;

	*why = "a frame of wrong length or type";
	if (c->bad || c->at != c->end)
		return -1;
	leg = leg_table_find(set->legs, stream, number);
	if (!leg) {
		log_say(LOG_DEBUG, "order %u for stream %llx leg %u, which is not here", type,
			(unsigned long long)stream, number);
		return 0;
	}
	switch (type) {
	case MS_MI_ACK:
		*why = "it acknowledged what was never sent";
		return leg_ack(leg, offset);
	case MS_MI_HALFCLOSE:
		leg_halfclose(leg);
		return 0;
	case MS_MI_RELEASE:
		leg_release(leg);
		return 0;
	case MS_MI_ABANDON:
		leg_abandon(leg);
		return 0;
	}
	return -1;
}

static int link_take_frame(struct link *link, uint8_t *frame, size_t bytes, const char **why)
{
	struct ms_codec c;
	uint8_t version, type;

	ms_codec_init(&c, frame, bytes);
	version = ms_get_u8(&c);
	type = ms_get_u8(&c);
	*why = "unknown version";
	if (version != MS_WIRE_VERSION)
		return -1;
	*why = "a frame out of turn";
	if (link->state == LINK_ATTACHED)
		return type == MS_MI_ATTACH ? -1 : link_take_order(link, type, &c, why);
	return type == MS_MI_ATTACH ? link_take_attach(link, &c, why) : -1;
}

/* Handle whole frames of the in buffer. -1: close, for the reason. */
static int link_take_in(struct link *link, const char **why)
{
	size_t at = 0;
	int status = 0;

	while (status == 0 && link->state != LINK_WAITING && link->in_len - at >= 4) {
		struct ms_codec c;
		uint32_t bytes;

		ms_codec_init(&c, link->in + at, 4);
		bytes = ms_get_u32(&c);
		*why = "a frame of wrong length";
		if (bytes < 2 || bytes > sizeof(link->in) - 4)
			return -1;
		if (link->in_len - at - 4 < bytes)
			break;
		status = link_take_frame(link, link->in + at + 4, bytes, why);
		at += 4 + bytes;
	}
	memmove(link->in, link->in + at, link->in_len - at);
	link->in_len -= at;
	return status;
}

static void link_handle(struct link *link)
{
	struct link_set *set = link->set;
	const char *why;

	if (link_take_in(link, &why) < 0)
		link_close(link, why);
	if (set->committed && set->legs->left == 0)
		set->released(set->arg);
}

static void link_read(evutil_socket_t fd, short what, void *arg)
{
	struct link *link = arg;
	ssize_t n = recv(link->fd, link->in + link->in_len, sizeof(link->in) - link->in_len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		link_close(link, n ? strerror(errno) : "its end");
		return;
	}
	link->in_len += n;
	link_handle(link);
}

static void link_late(evutil_socket_t fd, short what, void *arg)
{
	link_close(arg, "no whole ATTACH in time");
}

static void link_drop_oldest(struct link_set *set)
{
	struct link *link, *oldest = NULL;

	LIST_FOREACH(link, &set->all, entry)
	if (link->state == LINK_STRANGER)
		oldest = link;
	if (oldest)
		link_close(oldest, "too many that never proved anything");
}

static void link_accept(evutil_socket_t fd, short what, void *arg)
{
	static const struct timeval prove = { .tv_sec = LINK_PROVE_S };
	struct link_set *set = arg;
	int sock = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct link *link;

	if (sock < 0)
		return;
	if (set->unproven >= LINK_STRANGERS)
		link_drop_oldest(set);
	link = calloc(1, sizeof(*link));
	if (!link) {
		close(sock);
		return;
	}
	link->set = set;
	link->fd = sock;
	LIST_INSERT_HEAD(&set->all, link, entry);
	set->unproven++;
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	setsockopt(sock, SOL_SOCKET, SO_KEEPALIVE, &(int){ 1 }, sizeof(int));
	link->readable = event_new(set->base, sock, EV_READ | EV_PERSIST, link_read, link);
	link->writable = event_new(set->base, sock, EV_WRITE | EV_PERSIST, link_write, link);
	link->deadline = evtimer_new(set->base, link_late, link);
	if (!link->readable || !link->writable || !link->deadline || event_add(link->readable, NULL) < 0 ||
	    event_add(link->deadline, &prove) < 0)
		link_close(link, "no memory");
}

/* The set */

static int link_bind(int sock, uint32_t ip, uint16_t lowest, uint16_t highest)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(ip) };
	uint32_t ports = lowest || highest ? highest - lowest + 1 : 1;
	uint32_t first = ports > 1 ? randombytes_uniform(ports) : 0;

	for (uint32_t i = 0; i < ports; i++) {
		at.sin_port = htons(lowest + (first + i) % ports);
		if (bind(sock, (struct sockaddr *)&at, sizeof(at)) == 0)
			return 0;
		if (errno != EADDRINUSE)
			return -1;
	}
	return -1;
}

uint16_t link_set_listen(struct link_set *set, uint32_t ip, uint16_t lowest, uint16_t highest)
{
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in at;
	socklen_t size = sizeof(at);

	LIST_INIT(&set->all);
	if (sock < 0 || highest < lowest || link_bind(sock, ip, lowest, highest) < 0 || listen(sock, 16) < 0 ||
	    getsockname(sock, (struct sockaddr *)&at, &size) < 0)
		goto failed;
	set->listener = event_new(set->base, sock, EV_READ | EV_PERSIST, link_accept, set);
	if (!set->listener || event_add(set->listener, NULL) < 0)
		goto failed;
	return ntohs(at.sin_port);
failed:
	at.sin_addr.s_addr = htonl(ip);
	log_say(LOG_ERROR, "listening on %s, ports %u to %u: %s", inet_ntoa(at.sin_addr), lowest, highest,
		strerror(errno));
	if (sock >= 0)
		close(sock);
	return 0;
}

void link_set_close(struct link_set *set)
{
	while (!LIST_EMPTY(&set->all))
		link_close(LIST_FIRST(&set->all), "the mirror ends");
	if (set->listener) {
		close(event_get_fd(set->listener));
		event_free(set->listener);
	}
	set->listener = NULL;
}

/* Of several that wait the one with the largest m stays; of equals the younger, which is first in the list. */
void link_set_commit(struct link_set *set)
{
	struct link *link, *next, *best = NULL;

	set->committed = true;
	LIST_FOREACH(link, &set->all, entry)
	if (link->state == LINK_WAITING && (!best || link->m > best->m))
		best = link;
	for (link = LIST_FIRST(&set->all); link; link = next) {
		next = LIST_NEXT(link, entry);
		if (link->state == LINK_WAITING && link != best)
			link_close(link, "another one takes its place");
	}
	if (best) {
		link_attach(best);
		link_handle(best);
	}
}
