/* SPDX-License-Identifier: MIT */
#include "msdaemon/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "msdaemon/departure.h"
#include "proto/log.h"

enum { MIRROR_CONTROL_FD = 3 };

struct mirror {
	LIST_ENTRY(mirror) entry;
	struct daemon *d; /* borrowed */
	uint32_t member;
	uint64_t m;
	uint8_t key[MS_TOKEN];
	pid_t pid;
	struct packets *control;
	bool at, committed, done; /* it listens; its member's move is committed; it said MS_MC_DONE */
	bool fed;                 /* it was given legs */
	uint64_t ms, bytes;
};

static void on_packet(void *user, struct ms_codec *in, unsigned type, int *fds, unsigned count)
{
	struct mirror *x = user;

	if (type == MS_MC_AT) {
		uint16_t port = ms_get_u16(in);

		x->at = true;
		departure_mirror_at(x->d, x->member, x->m, in->bad ? 0 : port);
	} else if (type == MS_MC_DONE) {
		x->ms = ms_get_u64(in);
		x->bytes = ms_get_u64(in);
		x->done = !in->bad;
	}
}

static void on_end(void *user)
{
	struct mirror *x = user;

	packets_destroy(x->control);
	x->control = NULL;
}

static const struct packets_ops mirror_ops = { .on_packet = on_packet, .on_end = on_end };

static void child(const struct daemon *d, int control, pid_t daemon)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != daemon)
		_exit(1);
	if (control == MIRROR_CONTROL_FD)
		fcntl(control, F_SETFD, 0);
	else
		dup2(control, MIRROR_CONTROL_FD);
	close_range(MIRROR_CONTROL_FD + 1, ~0u, 0);
	execl(d->mirror_path, "msmirror", (char *)NULL);
	_exit(127);
}

struct mirror *mirror_create(struct daemon *d, uint32_t member, uint64_t m)
{
	struct mirror *x = *d->mirror_path ? calloc(1, sizeof(*x)) : NULL;
	pid_t own = getpid();
	uint8_t buf[64];
	struct ms_codec c;
	int control = -1;

	if (!x)
		return NULL;
	x->d = d;
	x->member = member;
	x->m = m;
	randombytes_buf(x->key, sizeof(x->key));
	x->control = packets_create(d->base, &mirror_ops, x, &control);
	x->pid = x->control ? fork() : -1;
	if (x->pid == 0)
		child(d, control, own);
	if (control >= 0)
		close(control);
	if (x->pid < 0) {
		log_say(LOG_ERROR, "cannot start msmirror: %s", strerror(errno));
		packets_destroy(x->control);
		free(x);
		return NULL;
	}
	LIST_INSERT_HEAD(&d->mirrors, x, entry);
	packets_begin(&c, buf, sizeof(buf), MS_MC_START);
	ms_put_u32(&c, member);
	ms_put_u64(&c, m);
	ms_put_u32(&c, d->ip);
	ms_put_u16(&c, d->port_low);
	ms_put_u16(&c, d->port_high);
	ms_put_bytes(&c, x->key, sizeof(x->key));
	packets_put(x->control, &c, buf, NULL, 0);
	return x;
}

void mirror_feed(struct mirror *x, const struct ms_codec *in, const int *fds, unsigned count)
{
	uint8_t buf[MS_CTL_MAX];
	struct ms_codec c;

	x->fed = true;
	packets_begin(&c, buf, sizeof(buf), MS_M_MIRROR);
	ms_put_bytes(&c, in->at, (size_t)(in->end - in->at));
	packets_put(x->control, &c, buf, fds, count);
}

void mirror_discard(struct mirror *x)
{
	x->at = true; /* nobody waits for it */
	kill(x->pid, SIGKILL);
}

void mirror_outcome(struct mirror *x, bool committed)
{
	uint8_t buf[16];
	struct ms_codec c;

	if (!x->fed) {
		mirror_discard(x);
		return;
	}
	x->committed = committed;
	packets_begin(&c, buf, sizeof(buf), MS_D_OUTCOME);
	ms_put_u64(&c, x->m);
	ms_put_u8(&c, committed);
	packets_put(x->control, &c, buf, NULL, 0);
}

uint32_t mirror_ip(const struct mirror *x)
{
	return x->d->ip;
}

const uint8_t *mirror_key(const struct mirror *x)
{
	return x->key;
}

void mirror_member_ended(struct daemon *d, uint32_t member)
{
	struct mirror *x;
	uint8_t buf[8];
	struct ms_codec c;

	LIST_FOREACH(x, &d->mirrors, entry)
	{
		if (x->member != member)
			continue;
		packets_begin(&c, buf, sizeof(buf), MS_MC_MEMBER_ENDED);
		packets_put(x->control, &c, buf, NULL, 0);
	}
}

static void mirror_report(struct mirror *x, int status)
{
	Ms__Progress p = MS__PROGRESS__INIT;

	p.member = x->member;
	p.m = x->m;
	p.step = MS__PROGRESS__STEP__MIRROR_DONE;
	p.ns = x->ms * 1000000;
	p.bytes = x->bytes;
	if (!x->done || status)
		p.error = (char *)"the mirror ended early";
	daemon_progress(x->d, &p);
}

bool mirror_reaped(struct daemon *d, pid_t pid, int status)
{
	struct mirror *x;

	LIST_FOREACH(x, &d->mirrors, entry)
	if (x->pid == pid)
		break;
	if (!x)
		return false;
	if (x->control) /* MS_MC_DONE may still lie in the socket */
		packets_drain(x->control);
	LIST_REMOVE(x, entry);
	if (x->committed)
		mirror_report(x, status);
	else if (!x->at)
		departure_mirror_at(d, x->member, x->m, 0);
	departure_mirror_gone(d, x);
	packets_destroy(x->control);
	free(x);
	return true;
}

void mirror_kill_all(struct daemon *d)
{
	struct mirror *x;

	LIST_FOREACH(x, &d->mirrors, entry)
	kill(x->pid, SIGKILL);
}

unsigned mirror_count(const struct daemon *d)
{
	unsigned n = 0;
	struct mirror *x;

	LIST_FOREACH(x, &d->mirrors, entry)
	n++;
	return n;
}

void mirror_present(const struct daemon *d, Ms__Here *list)
{
	struct mirror *x;

	LIST_FOREACH(x, &d->mirrors, entry)
	{
		ms__here__init(list);
		list->member = x->member;
		list->m = x->m;
		list++;
	}
}
