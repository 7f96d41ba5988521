/* SPDX-License-Identifier: MIT */
#include "msdaemon/arrival.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/image_needs.h"
#include "msdaemon/image_door.h"
#include "msdaemon/kin.h"
#include "proto/log.h"
#include "proto/net.h"

enum { ARRIVAL_DIAL_S = 20 }; /* seconds for the source to make the image connection */

/*
 * What has come, in any order; the record is asked for when image_ok, pump and
 * image_sent are all there.
 */
struct arrival {
	struct member *member; /* borrowed */
	uint64_t m;
	struct link *source;     /* borrowed; NULL when lost */
	struct image_door *door; /* until the source has called */
	uint16_t port;
	uint8_t token[MS_TOKEN];
	uint64_t hash_key;
	char *fault;
	unsigned have;
	bool image_ok, pump, image_sent, asked, failed;
	uint64_t sum, bytes; /* as the restorer counted */
	bool tracking;
	Ms__ImageSent *sent;
	char *reason; /* owned; failed: why */
};

static struct arrival *find(struct daemon *d, uint32_t member, uint64_t m)
{
	struct member *owner = member_find(d, member);

	return owner && owner->arrival && owner->arrival->m == m ? owner->arrival : NULL;
}

static void arrival_destroy(struct arrival *x)
{
	x->member->arrival = NULL;
	image_door_close(x->door);
	if (x->sent)
		ms__image_sent__free_unpacked(x->sent, NULL);
	free(x->fault);
	free(x->reason);
	free(x);
}

static void fail(struct arrival *x, const char *reason)
{
	if (x->failed)
		return;
	x->failed = true;
	x->reason = strdup(reason);
	daemon_want_abort(x->member->d, x->member->id, x->m, "%s", reason);
}

/* A fault: the process gets no memory from now on. */
static void starve(const struct member *m)
{
	struct rlimit limit = { 0, 0 };

	if (!m->pid || prlimit(m->pid, RLIMIT_AS, NULL, &limit))
		return;
	limit.rlim_cur = 0;
	prlimit(m->pid, RLIMIT_AS, &limit, NULL);
}

static void step(struct arrival *x, enum ms_step which, uint64_t figure)
{
	daemon_step(x->member->d, x->member->id, x->m, which, x->fault, x->source, figure);
	if (ms_fault_at(x->fault, which) == MS_FAULT_NOMEM)
		starve(x->member);
}

static void restore(struct arrival *x, int sock)
{
	struct member *m = x->member;
	struct daemon *d = m->d;
	int fds[1 + MS_CHANNELS] = { sock };
	unsigned count = 1;
	uint8_t buf[1024];
	struct ms_codec c;

	packets_begin(&c, buf, sizeof(buf), MS_D_RESTORE);
	ms_put_u64(&c, x->m);
	ms_put_u32(&c, m->id);
	ms_put_str(&c, d->host);
	ms_put_u32(&c, d->ip);
	ms_put_u16(&c, d->port_low);
	ms_put_u16(&c, d->port_high);
	ms_put_u64(&c, x->hash_key);
	ms_put_str(&c, x->fault);
	for (unsigned i = 0; i < MS_CHANNELS; i++) {
		bool have = pump_end(m->pump, i) >= 0;

		ms_put_u8(&c, have);
		if (have)
			fds[count++] = pump_end(m->pump, i);
	}
	packets_put(m->control, &c, buf, fds, count);
}

static void on_caller(void *user, int sock)
{
	struct arrival *x = user;

	restore(x, sock);
	close(sock);
	image_door_close(x->door);
	x->door = NULL;
}

static void on_late(void *user)
{
	fail(user, "the image connection was not made in time");
}

static const struct image_door_ops door_ops = { .on_caller = on_caller, .on_late = on_late };

static void answer(struct link *l, const Ms__MoveIn *in, const char *error, uint32_t need, struct arrival *x)
{
	Ms__MoveInAnswer a = MS__MOVE_IN_ANSWER__INIT;

	a.member = in->member;
	a.m = in->m;
	a.error = (char *)error;
	a.need = need;
	if (x) {
		a.port = x->port;
		a.token = (ProtobufCBinaryData){ sizeof(x->token), x->token };
	}
	link_send(l, LINK_MSG(MOVE_IN_ANSWER, move_in_answer, &a));
}

void arrival_probe(struct daemon *d)
{
	if (d->probed || !*d->restore_path)
		return;
	d->probed = true;
	image_probe(d->restore_path, &d->place);
}

/* Start the restorer and wait for its image; 0 or -1 with the reason. */
static int open_arrival(struct daemon *d, struct member *m, const Ms__MoveIn *in, char why[IMAGE_WHY])
{
	struct arrival *x = m->arrival;
	cpu_set_t own;
	int control, rc;

	m->pump = pump_create(d->base, &d->coordinator, m->id, in->have);
	control = member_control_open(m);
	x->door = image_door_open(d, x->token, ARRIVAL_DIAL_S, &door_ops, x, &x->port);
	if (!m->pump || control < 0 || !x->door) {
		snprintf(why, IMAGE_WHY, "%.100s: %s", d->host, strerror(errno));
		if (control >= 0)
			close(control);
		return -1;
	}
	arrival_probe(d);
	seat_lend(m, &own);
	rc = image_spawn(&d->place, d->restore_path, control, in->pid, &m->pid, &m->init_pid, &m->alive_fd, why);
	seat_back(&own);
	if (rc) {
		m->pid = m->init_pid = 0;
		m->alive_fd = -1;
		close(control);
		return -1;
	}
	close(control);
	return 0;
}

static struct member *arriving(struct daemon *d, struct link *l, const Ms__MoveIn *in)
{
	struct member *m = member_create(d, in->member, MEMBER_COMING);
	struct arrival *x = calloc(1, sizeof(*x));

	if (!x || !(x->fault = strdup(in->fault)))
		log_die("out of memory");
	m->arrival = x;
	m->m = x->m = in->m;
	m->own_pid = in->pid;
	m->virtual_ip = in->virtual_ip;
	m->data_port = (uint16_t)in->data_port;
	m->pmi_fd = in->pmi_fd;
	m->holding = m->ours = true;
	if (MS_MEMBER_IS_CHILD(m->id))
		kin_arrived(m, in->parent);
	seat_take(m, in->bind, in->map, SEAT_LOWEST, &in->cpus);
	if (in->cookie.len == sizeof(m->cookie))
		memcpy(m->cookie, in->cookie.data, sizeof(m->cookie));
	x->member = m;
	x->source = l;
	x->hash_key = in->hash_key;
	randombytes_buf(x->token, sizeof(x->token));
	return m;
}

/* Of a move that is ABORTED. */
static void give_up(struct arrival *x)
{
	struct member *m = x->member;

	step(x, MS_STEP_WOKEN, false);
	member_kill(m);
	arrival_destroy(x);
	member_release_held(m, false);
	if (m->exited || m->pid == 0)
		member_destroy(m);
	else
		member_set_state(m, MEMBER_LEFT, "ABORTED"); /* only to be reaped */
}

/*
 * A move begins when the one before has its record (protocol.md 36), so a later one to here says that the older is
 * ABORTED: had it been COMMITTED, the member would not come, but be here.  That word came before this arrival: a source
 * that is slow asks us for a move that is over, and nobody ends it.
 */
static void give_up_older(struct daemon *d, const Ms__MoveIn *in)
{
	struct member *m = member_find(d, in->member);

	if (m && m->arrival && m->arrival->m < in->m)
		give_up(m->arrival);
}

void arrival_begin(struct daemon *d, struct link *l, const Ms__MoveIn *in)
{
	char why[IMAGE_WHY] = "";
	struct member *m;
	uint32_t need;

	give_up_older(d, in);
	if (member_find(d, in->member)) {
		answer(l, in, "it is on that host already", 0, NULL);
		return;
	}
	if (!*d->restore_path || !strcmp(in->fault, "daemon-refuses")) {
		answer(l, in, "msrestore is missing there", 0, NULL);
		return;
	}
	if (image_needs_check(in->needs.data, in->needs.len, &need, why)) {
		answer(l, in, why, need, NULL);
		return;
	}
	m = arriving(d, l, in);
	step(m->arrival, MS_STEP_FIT, 0);
	if (open_arrival(d, m, in, why)) {
		answer(l, in, *why ? why : "the restorer cannot be started there", 0, NULL);
		arrival_destroy(m->arrival);
		member_destroy(m);
		return;
	}
	step(m->arrival, MS_STEP_SPAWNED, (uint64_t)m->pid);
	answer(l, in, "", 0, m->arrival);
}

static void want_commit(struct arrival *x)
{
	struct member *m = x->member;
	Ms__WantCommit w = MS__WANT_COMMIT__INIT;
	Ms__Serving s = MS__SERVING__INIT;

	s.member = m->id;
	s.virtual_ip = m->virtual_ip;
	s.ip = m->d->ip;
	s.port = m->data_port;
	s.m = x->m;
	s.cookie = (ProtobufCBinaryData){ sizeof(m->cookie), m->cookie };
	w.image = x->sent;
	w.serving = &s;
	w.tracking = (char *)(x->tracking ? "wp-async" : "none");
	link_send(m->d->coordinator, LINK_MSG(WANT_COMMIT, want_commit, &w));
}

static void try_commit(struct arrival *x)
{
	if (!x->image_ok || !x->pump || !x->image_sent || x->asked || x->failed)
		return;
	if (x->sum != x->sent->sum || x->bytes != x->sent->image_bytes) {
		fail(x, "the image's checksum does not match");
		return;
	}
	x->asked = true;
	want_commit(x);
	step(x, MS_STEP_ASKED, 0);
}

void arrival_pump_state(struct daemon *d, const Ms__PumpState *s)
{
	struct arrival *x = find(d, s->member, s->m);

	if (!x || x->pump)
		return;
	x->pump = pump_state_put(x->member->pump, s);
	if (!x->pump)
		fail(x, "the state of its standard streams does not fit");
	try_commit(x);
}

void arrival_image_sent(struct daemon *d, const Ms__ImageSent *s)
{
	struct arrival *x = find(d, s->member, s->m);
	size_t size = ms__image_sent__get_packed_size(s);
	uint8_t *copy;

	if (!x || x->sent)
		return;
	copy = malloc(size + 1);
	if (!copy)
		log_die("out of memory");
	ms__image_sent__pack(s, copy);
	x->sent = ms__image_sent__unpack(NULL, size, copy);
	free(copy);
	x->image_sent = x->sent != NULL;
	x->member->before_s = s->cpu_s;
	try_commit(x);
}

static void say_progress(struct member *m, Ms__Progress__Step step)
{
	const struct member_arrival *a = &m->arrived;
	Ms__Progress p = MS__PROGRESS__INIT;

	p.member = m->id;
	p.m = a->m;
	p.step = step;
	p.pid = m->pid;
	p.ns = step == MS__PROGRESS__STEP__RESUMED ? a->resumed_ns : a->relinked_ns;
	p.drained = a->drained;
	p.mirrored = a->mirrored;
	daemon_progress(m->d, &p);
}

static void resumed(struct member *m, struct ms_codec *in)
{
	m->arrived = (struct member_arrival){ .m = m->m, .resumed = true, .resumed_ns = ms_get_u64(in) };
	say_progress(m, MS__PROGRESS__STEP__RESUMED);
}

static void relinked(struct member *m, struct ms_codec *in)
{
	struct member_arrival *a = &m->arrived;

	a->m = m->m;
	a->relinked = true;
	a->relinked_ns = ms_get_u64(in);
	a->drained = ms_get_u32(in);
	a->mirrored = ms_get_u32(in);
	say_progress(m, MS__PROGRESS__STEP__RELINKED);
}

void arrival_again(struct member *m)
{
	struct arrival *x = m->arrival;

	if (x && x->failed)
		daemon_want_abort(m->d, m->id, x->m, "%s", x->reason ? x->reason : "out of memory");
	else if (x && x->asked)
		want_commit(x);
	if (x)
		return;
	if (m->arrived.resumed)
		say_progress(m, MS__PROGRESS__STEP__RESUMED);
	if (m->arrived.relinked)
		say_progress(m, MS__PROGRESS__STEP__RELINKED);
}

void arrival_packet(struct member *m, unsigned type, struct ms_codec *in)
{
	struct arrival *x = m->arrival;
	uint64_t move = ms_get_u64(in);
	Ms__MoveReady ready = MS__MOVE_READY__INIT;
	char why[IMAGE_WHY];

	if (move != m->m || (!x && type != MS_M_RESUMED && type != MS_M_RELINKED)) {
		log_say(LOG_DEBUG, "message %u of a move that is over", type);
		return;
	}
	switch (type) {
	case MS_R_READY:
		if (!strcmp(x->fault, "daemon-kills-restorer"))
			kill(m->pid, SIGKILL);
		ready.member = m->id;
		ready.m = move;
		if (x->source)
			link_send(x->source, LINK_MSG(MOVE_READY, move_ready, &ready));
		step(x, MS_STEP_READY, 0);
		break;
	case MS_R_IMAGE_OK:
		x->sum = ms_get_u64(in);
		x->bytes = ms_get_u64(in);
		m->data_port = ms_get_u16(in);
		x->tracking = ms_get_u8(in);
		x->image_ok = !in->bad;
		step(x, MS_STEP_CHECKED, x->bytes);
		try_commit(x);
		break;
	case MS_R_FAILED:
		ms_get_str(in, why, sizeof(why));
		fail(x, why);
		break;
	case MS_M_RESUMED:
		resumed(m, in);
		break;
	default:
		relinked(m, in);
	}
}

void arrival_link_lost(struct daemon *d, struct link *l)
{
	struct member *m;

	LIST_FOREACH(m, &d->members, entry)
	{
		if (!m->arrival || m->arrival->source != l)
			continue;
		m->arrival->source = NULL;
		if (!m->arrival->image_sent || !m->arrival->pump)
			fail(m->arrival, "the link between the two hosts is lost");
	}
}

/* Before the record: the move fails. After WANT_COMMIT the record decides what this was. */
void arrival_member_died(struct member *m)
{
	char why[IMAGE_WHY];

	if (m->control)
		packets_drain(m->control); /* it may have said itself why */
	if (WIFSIGNALED(m->status))
		snprintf(why, sizeof(why), "the restorer on %.100s was killed by signal %d", m->d->host,
			 WTERMSIG(m->status));
	else
		snprintf(why, sizeof(why), "the restorer on %.100s ended with status %d", m->d->host,
			 WEXITSTATUS(m->status));
	fail(m->arrival, why);
}

static void resume(struct arrival *x)
{
	struct member *m = x->member;
	uint8_t buf[1024], none[MS_TOKEN] = { 0 };
	bool mirror = x->sent->mirror_port && x->sent->mirror_key.len == MS_TOKEN;
	struct ms_codec c;

	packets_begin(&c, buf, sizeof(buf), MS_D_RESUME);
	ms_put_u64(&c, x->m);
	ms_put_u8(&c, true);
	ms_put_str(&c, m->d->host);
	ms_put_u32(&c, m->d->ip);
	ms_put_u32(&c, mirror ? x->sent->mirror_ip : 0);
	ms_put_u16(&c, mirror ? (uint16_t)x->sent->mirror_port : 0);
	ms_put_bytes(&c, mirror ? x->sent->mirror_key.data : none, MS_TOKEN);
	packets_put(m->control, &c, buf, NULL, 0);
}

bool arrival_outcome(struct daemon *d, const Ms__Outcome *o)
{
	struct arrival *x = find(d, o->member, o->m);
	struct member *m = x ? x->member : NULL;

	if (!x)
		return false;
	if (!o->committed) {
		give_up(x);
		return true;
	}
	resume(x);
	step(x, MS_STEP_WOKEN, true);
	arrival_destroy(x);
	member_set_state(m, MEMBER_JOINED, "COMMITTED");
	member_release_held(m, true);
	pump_start(m->pump);
	if (m->exited)
		member_report_exit(m);
	return true;
}
