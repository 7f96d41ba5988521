/* SPDX-License-Identifier: MIT */
#include "msdaemon/departure.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image/image_needs.h"
#include "msdaemon/control.h"
#include "msdaemon/kin.h"
#include "msdaemon/mesh.h"
#include "msdaemon/relay.h"
#include "msdaemon/sample.h"
#include "msdaemon/standin.h"
#include "proto/log.h"
#include "proto/net.h"

enum {
	DEPARTURE_ANSWER_MS = 20000, /* for the target's daemon to answer; it may have to hash files first */
	DEPARTURE_DIAL_MS = 2000,    /* for one try to make the image connection; for all of them ANSWER_MS */
	DEPARTURE_PAUSE_MS = 300,    /* between two tries */
	DEPARTURE_WORD_MS = 500,     /* for its word about why the image connection is at its end */
};

/*
 *  ASKED -> DIALLING -> WAITING -> RUNNING -> FROZEN -> SENT -> (record)
 *     any of them -> FAILED, which only waits for the record
 */
enum departure_state {
	DEPARTURE_ASKED,    /* the target's daemon was asked whether it takes the member */
	DEPARTURE_DIALLING, /* the image connection is being made */
	DEPARTURE_WAITING,  /* for the restorer to be ready */
	DEPARTURE_RUNNING,  /* the member was told to move; its threads go on */
	DEPARTURE_FROZEN,   /* no thread runs; relink messages wait */
	DEPARTURE_SENT,     /* the image is on its way */
	DEPARTURE_FAILED,   /* ABORTED was asked for */
};

static const char *const state_names[] = { "ASKED", "DIALLING", "WAITING", "RUNNING", "FROZEN", "SENT", "FAILED" };

struct departure {
	struct member *member; /* borrowed */
	enum departure_state state;
	uint64_t m;
	Ms__Place to; /* host is owned */
	uint32_t via, timeout_ms, drain_ms, flags, max_freeze_us;
	uint64_t limit;
	char *fault;
	uint64_t hash_key;
	uint8_t token[MS_TOKEN];
	uint16_t port;        /* where the target takes the image */
	uint64_t dial_end_ns; /* CLOCK_MONOTONIC */
	int sock;             /* image connection; kept so that an abort can break a write that hangs */
	struct event *wait;
	struct image_needs_blob needs; /* what the target was asked for */
	bool told;                     /* the member has MS_D_MOVE and wants the outcome */
	uint32_t drained, mirrored;
	struct mirror *mirror; /* borrowed */
	bool listed;           /* there are legs for it */
	uint16_t mirror_port;
	char *reason; /* owned; FAILED: why */
};

static void set_state(struct departure *x, enum departure_state state)
{
	log_say(LOG_DEBUG, "departure m %llu: %s -> %s", (unsigned long long)x->m, state_names[x->state],
		state_names[state]);
	x->state = state;
}

static void departure_destroy(struct departure *x)
{
	x->member->departure = NULL;
	if (x->sock >= 0)
		close(x->sock);
	if (x->wait)
		event_free(x->wait);
	image_needs_free(&x->needs);
	free(x->to.host);
	free(x->fault);
	free(x->reason);
	free(x);
}

static struct departure *find(struct daemon *d, uint32_t member, uint64_t m)
{
	struct member *owner = member_find(d, member);

	return owner && owner->departure && owner->departure->m == m ? owner->departure : NULL;
}

static void want_abort(struct departure *x)
{
	daemon_want_abort(x->member->d, x->member->id, x->m, "%s", x->reason ? x->reason : "out of memory");
}

/* False: it had failed already. */
static bool note_failure(struct departure *x, const char *reason)
{
	if (x->state == DEPARTURE_FAILED)
		return false;
	set_state(x, DEPARTURE_FAILED);
	if (x->wait)
		event_del(x->wait);
	x->reason = strdup(reason);
	return true;
}

static void fail(struct departure *x, const char *reason)
{
	if (note_failure(x, reason))
		want_abort(x);
}

void departure_again(struct member *m)
{
	struct departure *x = m->departure;

	if (x && x->state == DEPARTURE_FAILED)
		want_abort(x);
}

static void step(struct departure *x, enum ms_step which, uint64_t figure)
{
	struct daemon *d = x->member->d;
	struct link *also = ms_fault_at(x->fault, which) ? mesh_link(d, &x->to) : NULL; /* it may have to be dialled */

	daemon_step(d, x->member->id, x->m, which, x->fault, also, figure);
}

static void fail_unreachable(struct departure *x, const char *why)
{
	char text[600];

	snprintf(text, sizeof(text), "host %s cannot be reached from %s: %s", x->to.host, x->member->d->host, why);
	fail(x, text);
}

static void dialled(struct departure *x, bool late);

static void wait_cb(evutil_socket_t fd, short what, void *arg)
{
	struct departure *x = arg;

	if (x->state == DEPARTURE_FAILED)
		want_abort(x);
	else if (x->state == DEPARTURE_DIALLING)
		dialled(x, what & EV_TIMEOUT);
	else
		fail_unreachable(x, "no answer");
}

/* Await fd's event (or only an answer, fd -1) for a bounded time. */
static void await(struct departure *x, int fd, short what, int limit_ms)
{
	struct timeval limit = { limit_ms / 1000, limit_ms % 1000 * 1000 };

	if (x->wait)
		event_free(x->wait);
	x->wait = event_new(x->member->d->base, fd, what, wait_cb, x);
	event_add(x->wait, &limit);
}

/* A link that is cut may be there again before the time is over; whoever refuses does so again. */
static void dial_failed(struct departure *x, int err)
{
	bool cut = err == EHOSTUNREACH || err == ENETUNREACH || err == ETIMEDOUT;

	if (x->sock >= 0)
		close(x->sock);
	x->sock = -1;
	if (cut && daemon_clock_ns(CLOCK_MONOTONIC) < x->dial_end_ns)
		await(x, -1, 0, DEPARTURE_PAUSE_MS);
	else
		fail_unreachable(x, err == ETIMEDOUT ? "no answer" : strerror(err));
}

static void dial(struct departure *x)
{
	struct sockaddr_in to = net_address(x->to.ip, x->port), from = net_address(x->member->d->ip, 0);

	x->sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (x->sock < 0 || bind(x->sock, (struct sockaddr *)&from, sizeof(from)) ||
	    (connect(x->sock, (struct sockaddr *)&to, sizeof(to)) && errno != EINPROGRESS))
		dial_failed(x, errno);
	else
		await(x, x->sock, EV_WRITE, DEPARTURE_DIAL_MS);
}

/* The connection is made or refused, or it is time for another try. The token is the first thing on it. */
static void dialled(struct departure *x, bool late)
{
	int err = late ? ETIMEDOUT : 0;
	socklen_t size = sizeof(err);

	if (x->sock < 0) {
		dial(x);
		return;
	}
	if (!late)
		getsockopt(x->sock, SOL_SOCKET, SO_ERROR, &err, &size);
	if (!err && send(x->sock, x->token, sizeof(x->token), MSG_NOSIGNAL) != sizeof(x->token))
		err = errno;
	if (err) {
		dial_failed(x, err);
		return;
	}
	set_state(x, DEPARTURE_WAITING);
	step(x, MS_STEP_DIALLED, 0);
}

static bool target_has_closed(const struct departure *x)
{
	struct pollfd p = { .fd = x->sock, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0;
}

/* From the freeze on what goes wrong has to do with the way to the target: name it. */
static void fail_sending(struct departure *x, const char *why)
{
	char text[600];

	snprintf(text, sizeof(text), "while the image went to the target %s: %s", x->to.host, why);
	if (!note_failure(x, x->state == DEPARTURE_FROZEN || x->state == DEPARTURE_SENT ? text : why))
		return;
	if (target_has_closed(x)) /* then its daemon has told, or tells, the coordinator why: that is the reason */
		await(x, -1, 0, DEPARTURE_WORD_MS);
	else
		want_abort(x);
}

static void ask_target(struct departure *x)
{
	struct member *m = x->member;
	Ms__MoveIn in = MS__MOVE_IN__INIT;

	in.member = m->id;
	in.m = x->m;
	in.pid = m->own_pid;
	in.needs = (ProtobufCBinaryData){ x->needs.size, x->needs.bytes };
	in.virtual_ip = kin_address(m);
	in.data_port = m->data_port;
	in.cookie = (ProtobufCBinaryData){ sizeof(m->cookie), m->cookie };
	in.hash_key = x->hash_key;
	in.have = pump_have(m->pump);
	kin_child_of(m, &in.parent);
	in.pmi_fd = m->pmi_fd;
	in.fault = x->fault;
	in.timeout_ms = x->timeout_ms;
	in.bind = m->seat.bind;
	in.map = m->seat.map;
	in.cpus = (ProtobufCBinaryData){ sizeof(m->seat.given), (uint8_t *)&m->seat.given };
	link_send(mesh_link(m->d, &x->to), LINK_MSG(MOVE_IN, move_in, &in));
	await(x, -1, 0, DEPARTURE_ANSWER_MS);
	step(x, MS_STEP_COLLECTED, x->needs.size);
}

static void take_options(struct departure *x, const Ms__MoveBegin *b)
{
	x->via = b->via;
	x->timeout_ms = b->timeout_ms;
	x->drain_ms = b->drain_ms;
	x->flags = (b->options ? b->options->flags : 0) | (b->no_precopy ? MS_MOVE_STOP_AND_COPY : 0);
	x->max_freeze_us = b->options ? b->options->max_freeze_us : 0;
	x->limit = b->options ? b->options->limit : 0;
}

/*
 * A forked child has its family's standard streams, and no pump: this one has nothing in it, and its pipes no other
 * end.  Of the standard input it will have the end only: what comes there is for those who are where it comes.
 */
static int child_pump(struct member *m)
{
	struct member *root = kin_root_of(m);

	if (m->pump)
		return 0;
	m->pump = pump_create(m->d->base, &m->d->coordinator, m->id, root ? pump_have(root->pump) & 7 : 0);
	return m->pump ? 0 : -1;
}

void departure_begin(struct daemon *d, const Ms__MoveBegin *b)
{
	struct member *m = member_find(d, b->member);
	char why[IMAGE_WHY] = "";
	struct departure *x;

	if (!m || m->state != MEMBER_JOINED || !m->control || !b->to) {
		daemon_want_abort(d, b->member, b->m, "%s",
				  m && m->state == MEMBER_RUNNING ? "it has not called MPI_Init yet"
				  : m && !m->control              ? "it has replaced itself by another program"
								  : "it is not here");
		return;
	}
	x = calloc(1, sizeof(*x));
	if (!x || !(x->to.host = strdup(b->to->host)) || !(x->fault = strdup(*b->fault ? b->fault : d->fault)))
		log_die("out of memory");
	x->member = m;
	x->m = m->m = b->m;
	x->to.base = (ProtobufCMessage)PROTOBUF_C_MESSAGE_INIT(&ms__place__descriptor);
	x->to.ip = b->to->ip;
	x->to.port = b->to->port;
	take_options(x, b);
	x->sock = -1;
	randombytes_buf(&x->hash_key, sizeof(x->hash_key));
	m->departure = x;
	member_set_state(m, MEMBER_LEAVING, "MoveBegin");
	if (!m->ours && (child_pump(m) || !*d->standin_path))
		fail(x, m->pump ? "msstandin is missing here" : strerror(errno));
	else if (image_needs_collect(m->pid, &x->needs, why))
		fail(x, why);
	else
		ask_target(x);
}

void departure_answer(struct daemon *d, const Ms__MoveInAnswer *a)
{
	struct departure *x = find(d, a->member, a->m);

	if (!x || x->state != DEPARTURE_ASKED)
		return;
	if (*a->error && !image_needs_holds(&x->needs, x->member->pid, a->need)) {
		ask_target(x);
		return;
	}
	image_needs_free(&x->needs);
	if (*a->error || a->token.len != sizeof(x->token)) {
		fail(x, *a->error ? a->error : "the target's answer cannot be read");
		return;
	}
	step(x, MS_STEP_ANSWERED, 0);
	memcpy(x->token, a->token.data, sizeof(x->token));
	x->port = (uint16_t)a->port;
	x->dial_end_ns = daemon_clock_ns(CLOCK_MONOTONIC) + DEPARTURE_ANSWER_MS * 1000000ull;
	set_state(x, DEPARTURE_DIALLING);
	dial(x);
}

/* Identity of the member's end of each channel; of a forked child its family's. */
static void put_channels(struct member *m, struct ms_codec *c)
{
	const struct member *root = m->ours ? m : kin_root_of(m);

	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		struct stat st = { 0 };

		if (root && pump_end(m->pump, i) >= 0)
			fstat(pump_end(root->pump, i), &st);
		ms_put_u64(c, st.st_dev);
		ms_put_u64(c, st.st_ino);
	}
}

/* As the kernel has it: the number of a word's lowest processor is 64 times the word's own. */
static void put_home(const struct member *m, struct ms_codec *c)
{
	uint64_t word;

	_Static_assert(sizeof(m->seat.cpus) == IMAGE_CPU_WORDS * sizeof(word), "1024 processors");
	for (unsigned i = 0; i < IMAGE_CPU_WORDS; i++) {
		memcpy(&word, (const uint8_t *)&m->seat.cpus + i * sizeof(word), sizeof(word));
		ms_put_u64(c, word);
	}
}

void departure_ready(struct daemon *d, const Ms__MoveReady *r)
{
	struct departure *x = find(d, r->member, r->m);
	uint8_t buf[512];
	struct ms_codec c;

	if (!x || x->state != DEPARTURE_WAITING)
		return;
	if (x->wait)
		event_del(x->wait);
	fcntl(x->sock, F_SETFL, fcntl(x->sock, F_GETFL) & ~O_NONBLOCK);
	packets_begin(&c, buf, sizeof(buf), MS_D_MOVE);
	ms_put_u64(&c, x->m);
	ms_put_u8(&c, (uint8_t)x->via);
	ms_put_u32(&c, x->drain_ms);
	ms_put_u32(&c, x->timeout_ms);
	ms_put_u64(&c, x->hash_key);
	ms_put_str(&c, x->fault);
	ms_put_u8(&c, (uint8_t)x->flags);
	ms_put_u32(&c, x->max_freeze_us);
	ms_put_u64(&c, x->limit);
	put_channels(x->member, &c);
	put_home(x->member, &c);
	packets_put(x->member->control, &c, buf, &x->sock, 1);
	x->told = true;
	if (x->via != MS_VIA_DRAIN &&
	    !(x->flags &
	      MS_MOVE_CHECK)) /* now, since a process takes milliseconds to start and the freeze would wait for it */
		x->mirror = mirror_create(x->member->d, x->member->id, x->m);
	set_state(x, DEPARTURE_RUNNING);
	step(x, MS_STEP_ORDERED, 0);
}

static void frozen(struct departure *x, struct ms_codec *in)
{
	struct member *m = x->member;

	x->drained = ms_get_u32(in);
	x->mirrored = ms_get_u32(in);
	if (x->state != DEPARTURE_RUNNING)
		return;
	set_state(x, DEPARTURE_FROZEN);
	if (!strcmp(x->fault, "daemon-kills-member"))
		kill(m->pid, SIGKILL);
	m->holding = true;
	pump_stop(m->pump);
	pump_state_send(m->pump, x->m, mesh_link(m->d, &x->to));
	step(x, MS_STEP_PUMPED, 0);
}

static void mirror_at(struct departure *x, uint16_t port)
{
	uint8_t buf[64], none[MS_TOKEN] = { 0 };
	struct ms_codec c;

	x->mirror_port = port;
	packets_begin(&c, buf, sizeof(buf), MS_D_MIRROR_AT);
	ms_put_u64(&c, x->m);
	ms_put_u32(&c, port ? mirror_ip(x->mirror) : 0);
	ms_put_u16(&c, port);
	ms_put_bytes(&c, port ? mirror_key(x->mirror) : none, MS_TOKEN);
	packets_put(x->member->control, &c, buf, NULL, 0);
}

static void mirror_list(struct departure *x, struct ms_codec *in, const int *fds, unsigned count)
{
	struct ms_codec peek = *in;
	unsigned n;

	ms_get_u64(&peek);
	n = ms_get_u16(&peek);
	if (x->state == DEPARTURE_FAILED)
		return;
	if (!x->mirror && n > 0)
		x->mirror = mirror_create(x->member->d, x->member->id, x->m);
	x->listed |= n > 0;
	if (x->mirror && x->listed)
		mirror_feed(x->mirror, in, fds, count);
	else if (n == 0)
		mirror_at(x, 0);
}

void departure_mirror_at(struct daemon *d, uint32_t member, uint64_t move, uint16_t port)
{
	struct departure *x = find(d, member, move);

	if (x && x->mirror)
		mirror_at(x, port);
}

void departure_mirror_gone(struct daemon *d, const struct mirror *gone)
{
	struct member *m;

	LIST_FOREACH(m, &d->members, entry)
	{
		if (!m->departure || m->departure->mirror != gone)
			continue;
		m->departure->mirror = NULL;
		fail(m->departure, "the mirror ended before the commit");
	}
}

static void image_sent(struct departure *x, struct ms_codec *in)
{
	Ms__ImageSent s = MS__IMAGE_SENT__INIT;
	Ms__Rank used = MS__RANK__INIT;
	Ms__Leg *legs, **list;
	unsigned n;

	s.member = x->member->id;
	s.m = x->m;
	s.sum = ms_get_u64(in);
	s.image_bytes = ms_get_u64(in);
	s.rounds = ms_get_u32(in);
	n = ms_get_u16(in);
	legs = calloc(n + 1, sizeof(*legs));
	list = calloc(n + 1, sizeof(*list));
	if (!legs || !list)
		log_die("out of memory");
	for (unsigned i = 0; i < n && !in->bad; i++) {
		ms__leg__init(&legs[i]);
		legs[i].stream = ms_get_u64(in);
		legs[i].leg = ms_get_u32(in);
		legs[i].mirrored = ms_get_u8(in);
		list[s.n_legs++] = &legs[i];
	}
	s.legs = list;
	s.legs_left_out = ms_get_u32(in);
	s.pages = ms_get_u64(in);
	s.zero_pages = ms_get_u64(in);
	s.backed_pages = ms_get_u64(in);
	s.packed_bytes = ms_get_u64(in);
	s.saved_bytes = ms_get_u64(in);
	s.drained = x->drained;
	s.mirrored = x->mirrored;
	if (sample_process(x->member, &used)) /* all but the last few instructions */
		s.cpu_s = used.cpu_s;
	if (x->mirror && x->mirror_port) {
		s.mirror_ip = mirror_ip(x->mirror);
		s.mirror_port = x->mirror_port;
		s.mirror_key = (ProtobufCBinaryData){ MS_TOKEN, (uint8_t *)mirror_key(x->mirror) };
	}
	if (x->state == DEPARTURE_FROZEN && !in->bad) {
		set_state(x, DEPARTURE_SENT);
		link_send(mesh_link(x->member->d, &x->to), LINK_MSG(IMAGE_SENT, image_sent, &s));
		step(x, MS_STEP_PASSED, s.image_bytes);
	}
	free(legs);
	free(list);
}

static void checked(struct departure *x, struct ms_codec *in)
{
	Ms__Checked k = MS__CHECKED__INIT;

	k.member = x->member->id;
	k.m = x->m;
	k.bytes = ms_get_u64(in);
	k.rate = ms_get_u64(in);
	k.dirty_rate = ms_get_u64(in);
	k.freeze_ns = ms_get_u64(in);
	k.total_ns = ms_get_u64(in);
	if (x->state == DEPARTURE_RUNNING && !in->bad)
		link_send(x->member->d->coordinator, LINK_MSG(CHECKED, checked, &k));
}

void departure_packet(struct member *m, unsigned type, struct ms_codec *in, int *fds, unsigned count)
{
	struct ms_codec whole = *in;
	struct departure *x = m->departure;
	char why[IMAGE_WHY];

	if (!x || ms_get_u64(in) != x->m) {
		log_say(LOG_DEBUG, "message %u of a move that is over", type);
		return;
	}
	switch (type) {
	case MS_M_FROZEN:
		frozen(x, in);
		break;
	case MS_M_MIRROR:
		mirror_list(x, &whole, fds, count);
		break;
	case MS_M_IMAGE_SENT:
		image_sent(x, in);
		break;
	case MS_M_CHECKED:
		checked(x, in);
		break;
	default:
		ms_get_str(in, why, sizeof(why));
		fail_sending(x, why);
	}
}

void departure_link_lost(struct daemon *d, uint32_t ip, uint32_t port, const char *why)
{
	struct member *m;

	LIST_FOREACH(m, &d->members, entry)
	if (m->departure && m->departure->to.ip == ip && m->departure->to.port == port)
		fail_unreachable(m->departure, why);
}

/* What becomes of it says the record: if COMMITTED, it lives elsewhere and this was its shell. */
void departure_member_died(struct member *m)
{
	fail(m->departure, "it ended while it was moving");
}

static void committed(struct departure *x)
{
	struct member *m = x->member;

	if (x->mirror)
		mirror_outcome(x->mirror, true);
	relay_learn(m->d, m->id, &x->to, x->m);
	member_set_state(m, MEMBER_LEFT, "COMMITTED");
	step(x, MS_STEP_LEFT, true);
	departure_destroy(x);
	control_outcome(m, m->m, true, m->ours ? "" : m->d->standin_path);
	member_release_held(m, false);
	if (!m->ours)
		standin_create(m);
	if (m->exited || !m->ours)
		member_destroy(m);
	else
		member_leave(m);
}

static void aborted(struct departure *x, const char *reason)
{
	struct member *m = x->member;
	bool stopped = m->holding;

	if (x->mirror)
		mirror_outcome(x->mirror, false);
	member_set_state(m, MEMBER_JOINED, reason);
	step(x, MS_STEP_LEFT, false);
	if (x->told)
		control_outcome(m, x->m, false, "");
	if (x->sock >= 0)
		shutdown(x->sock, SHUT_RDWR);
	departure_destroy(x);
	if (m->exited) {
		member_report_exit(m);
		return;
	}
	member_release_held(m, true);
	if (stopped)
		pump_start(m->pump);
}

bool departure_outcome(struct daemon *d, const Ms__Outcome *o)
{
	struct departure *x = find(d, o->member, o->m);

	if (!x)
		return false;
	if (o->committed)
		committed(x);
	else
		aborted(x, o->reason);
	return true;
}
