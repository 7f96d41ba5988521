/* SPDX-License-Identifier: MIT */
#include "msdaemon/member.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "msdaemon/arrival.h"
#include "msdaemon/control.h"
#include "msdaemon/departure.h"
#include "msdaemon/farewell.h"
#include "msdaemon/kin.h"
#include "msdaemon/names.h"
#include "msdaemon/relay.h"
#include "msdaemon/standin.h"
#include "proto/log.h"

enum {
	MEMBER_HELD = 4096,  /* relink messages; they are repeated, so more may be dropped */
	MEMBER_LEAVE_S = 10, /* for a process that has moved away to end; nobody waits for that */
};

static const char *const state_names[] = { "RUNNING", "JOINED", "LEAVING", "COMING", "LEFT" };

struct member *member_create(struct daemon *d, uint32_t id, enum member_state state)
{
	struct member *m = calloc(1, sizeof(*m));

	if (!m)
		log_die("out of memory");
	m->d = d;
	m->id = id;
	m->state = state;
	m->alive_fd = -1;
	m->pmi_fd = -1;
	m->cpu_s = -1;
	m->seat.number = -1;
	STAILQ_INIT(&m->held);
	LIST_INSERT_HEAD(&d->members, m, entry);
	return m;
}

static void drop_held(struct member *m)
{
	struct held *h;

	while ((h = STAILQ_FIRST(&m->held))) {
		STAILQ_REMOVE_HEAD(&m->held, next);
		free(h);
	}
	m->held_count = 0;
}

void member_destroy(struct member *m)
{
	LIST_REMOVE(m, entry);
	kin_member_gone(m);
	names_member_gone(m);
	drop_held(m);
	packets_destroy(m->control);
	pump_destroy(m->pump);
	if (m->leave_timer)
		event_free(m->leave_timer);
	if (m->alive_fd >= 0)
		close(m->alive_fd);
	free(m->peers);
	for (size_t i = 0; i < m->last_count; i++)
		ms__relay__free_unpacked(m->last[i], NULL);
	free(m->last);
	seat_clear(&m->seat);
	free(m);
}

struct member *member_find(struct daemon *d, uint32_t id)
{
	struct member *m;

	LIST_FOREACH(m, &d->members, entry)
	if (m->id == id)
		return m;
	return NULL;
}

void member_set_state(struct member *m, enum member_state state, const char *why)
{
	char text[24];

	log_say(LOG_DEBUG, "rank %s: %s -> %s: %s", daemon_member_text(m->id, text), state_names[m->state],
		state_names[state], why);
	m->state = state;
	if (state != MEMBER_LEFT)
		return;
	names_member_gone(m);
	LIST_REMOVE(m, entry);
	LIST_INSERT_HEAD(&m->d->gone, m, entry);
}

int member_control_open(struct member *m)
{
	int other = -1;

	m->control = packets_create(m->d->base, &control_ops, m, &other);
	return m->control ? other : -1;
}

void member_kill(struct member *m)
{
	if (m->pid > 0 && !m->exited) {
		if (m->init_pid == 0)
			kill(-m->pid, SIGKILL); /* it is a session leader: children of its group go too */
		kill(m->pid, SIGKILL);
	}
	if (m->alive_fd >= 0)
		close(m->alive_fd);
	m->alive_fd = -1;
}

/* Its process has ended, and only the signal that says so has not been looked at. */
static bool has_ended(const struct member *m)
{
	siginfo_t info = { 0 };

	return !waitid(P_PID, (id_t)m->pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid;
}

/* What the kernel says of a process: "R (running)" or the like. */
static void process_state(pid_t pid, char *text, size_t size)
{
	char path[32], line[128];
	FILE *file;

	snprintf(text, size, "not known");
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, "State:\t", 7))
			snprintf(text, size, "%.*s", (int)strcspn(line + 7, "\n"), line + 7);
	if (file)
		fclose(file);
}

static void leave_cb(evutil_socket_t fd, short what, void *arg)
{
	struct member *m = arg;
	char name[24], state[32];

	if (has_ended(m))
		return;
	process_state(m->pid, state, sizeof(state));
	log_say(LOG_WARN,
		"rank %s has moved away, and its process here (%d, state %s) has not ended after %d s: killed",
		daemon_member_text(m->id, name), (int)m->pid, state, MEMBER_LEAVE_S);
	member_kill(m);
}

void member_leave(struct member *m)
{
	struct timeval limit = { MEMBER_LEAVE_S, 0 };

	m->leave_timer = evtimer_new(m->d->base, leave_cb, m);
	event_add(m->leave_timer, &limit);
}

void member_report_exit(struct member *m)
{
	char text[24];

	log_say(LOG_DEBUG, "rank %s ended, status %#x", daemon_member_text(m->id, text), m->status);
	standin_input_ended(m->d, m->id);
	if (m->control)
		packets_drain(m->control); /* its last words, which lie there before its end is known */
	farewell_say(m->d, m->id, m->status, m->pump, m->last, m->last_count);
	m->pump = NULL;
	if (m->alive_fd >= 0)
		close(m->alive_fd);
	m->alive_fd = -1;
	member_destroy(m);
}

void member_lost(struct member *m)
{
	m->exited = true;
	if (m->state == MEMBER_LEAVING)
		departure_member_died(m);
	else
		member_report_exit(m);
}

void member_unborn(struct daemon *d, uint32_t id)
{
	farewell_say(d, id, 0, NULL, NULL, 0);
}

static bool reap_from(struct member_list *list, pid_t pid, int status)
{
	struct member *m, *next;

	for (m = LIST_FIRST(list); m; m = next) {
		next = LIST_NEXT(m, entry);
		if (m->init_pid == pid) {
			m->init_pid = 0;
			return true;
		}
		if (m->pid != pid)
			continue;
		m->exited = true;
		m->status = status;
		if (m->state == MEMBER_LEFT)
			member_destroy(m);
		else if (m->state == MEMBER_LEAVING)
			departure_member_died(m);
		else if (m->state == MEMBER_COMING)
			arrival_member_died(m);
		else
			member_report_exit(m);
		return true;
	}
	return false;
}

bool member_reaped(struct daemon *d, pid_t pid, int status)
{
	return reap_from(&d->members, pid, status) || reap_from(&d->gone, pid, status);
}

void member_signal(struct member *m, int signo)
{
	if (m->pid > 0 && !m->exited && m->state != MEMBER_LEFT)
		kill(m->pid, signo);
}

void member_relay(struct member *m, uint32_t from, const void *bytes, size_t size)
{
	struct held *h;

	if (!m->holding) {
		control_relay(m, from, bytes, size);
		return;
	}
	h = m->held_count < MEMBER_HELD ? malloc(sizeof(*h) + size) : NULL;
	if (!h)
		return;
	h->ended = false;
	h->from = from;
	h->size = size;
	memcpy(h->bytes, bytes, size);
	STAILQ_INSERT_TAIL(&m->held, h, next);
	m->held_count++;
}

void member_release_held(struct member *m, bool deliver)
{
	struct held *h;

	m->holding = false;
	while ((h = STAILQ_FIRST(&m->held))) {
		STAILQ_REMOVE_HEAD(&m->held, next);
		if (h->ended && deliver)
			control_ended(m, h->from, h->status);
		else if (deliver)
			control_relay(m, h->from, h->bytes, h->size);
		else if (!h->ended)
			relay_send(m->d, m->id, h->from, h->bytes, h->size);
		free(h);
	}
	m->held_count = 0;
}

/*
 * The restorer expects nothing but its orders.  Its source may be frozen and
 * will not read this: the member learns it as soon as it runs here.
 */
static void hold_end(struct member *m, uint32_t id, int status)
{
	struct held *h = calloc(1, sizeof(*h));

	if (!h)
		log_die("out of memory");
	h->ended = true;
	h->from = id;
	h->status = status;
	STAILQ_INSERT_TAIL(&m->held, h, next);
}

static void hold_word(struct member *m, const Ms__Relay *r)
{
	struct held *h = calloc(1, sizeof(*h) + r->bytes.len);

	if (!h)
		log_die("out of memory");
	h->from = r->from;
	h->size = r->bytes.len;
	memcpy(h->bytes, r->bytes.data, r->bytes.len);
	STAILQ_INSERT_TAIL(&m->held, h, next);
}

void member_last_word(struct daemon *d, const Ms__Relay *r)
{
	struct member *m = member_find(d, r->to);

	if (m && m->state == MEMBER_COMING)
		hold_word(m, r);
	else if (m)
		member_relay(m, r->from, r->bytes.data, r->bytes.len);
}

void member_ended_elsewhere(struct daemon *d, uint32_t id, int status)
{
	struct member *m;

	LIST_FOREACH(m, &d->members, entry)
	if (m->id != id && (m->state == MEMBER_COMING || m->holding))
		hold_end(m, id, status);
	else if (m->id != id)
		control_ended(m, id, status);
}
