/* SPDX-License-Identifier: MIT */
#include "lib/vsock.h"

#include "lib/core.h"
#include "lib/engine.h"
#include "lib/kick.h"
#include "lib/log.h"
#include "lib/sys.h"

#include <errno.h>
#include <sys/eventfd.h>

enum { VSOCK_BATCH = 64 }; /* events taken from the kernel at once */

static struct vsock *table[VSOCK_MAX];
static uint32_t next_generation;
static struct vsock *ready_list;
static int app_ep = -1, wake_fd = -1, ready_fd = -1;
static unsigned waiters;

/* Put a fresh descriptor under the number that it had, or out of the way. */
static int vsock_place(int fd, int *number, bool again)
{
	if (fd < 0)
		return fd;
	if (again && fd != *number) {
		int err = ms_dup3(fd, *number, O_CLOEXEC);

		ms_close(fd);
		return err < 0 ? err : 0;
	}
	if (!again)
		*number = core_raise_fd(fd);
	core_own_fd(*number, true);
	return 0;
}

static int vsock_add_own(int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = (uint32_t)fd };

	return ms_epoll_ctl(app_ep, EPOLL_CTL_ADD, fd, &ev);
}

int vsock_open(bool again)
{
	int err;

	if (again && app_ep < 0)
		return 0;
	err = vsock_place(ms_epoll_create(EPOLL_CLOEXEC), &app_ep, again);

	if (!err)
		err = vsock_place(ms_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), &wake_fd, again);
	if (!err)
		err = vsock_place(ms_eventfd(ready_list ? 1 : 0, EFD_NONBLOCK | EFD_CLOEXEC), &ready_fd, again);
	if (!err)
		err = vsock_add_own(engine_fd());
	if (!err)
		err = vsock_add_own(wake_fd);
	if (!err)
		err = vsock_add_own(ready_fd);
	return err;
}

void vsock_forked(void)
{
	app_ep = wake_fd = ready_fd = -1;
}

void vsock_close_all(void)
{
	int *fds[] = { &app_ep, &wake_fd, &ready_fd };

	for (unsigned i = 0; i < 3; i++) {
		if (*fds[i] >= 0)
			ms_close(*fds[i]);
		*fds[i] = -1;
	}
}

int vsock_own_fds(int *fds, int max)
{
	const int own[] = { app_ep, wake_fd, ready_fd };
	int n = 0;

	for (int i = 0; i < 3; i++)
		if (own[i] >= 0 && n < max)
			fds[n++] = own[i];
	return n;
}

int vsock_bind(struct vsock *v, int sd)
{
	if (sd < 0 || sd >= VSOCK_MAX)
		return -EMFILE;
	v->sd = sd;
	v->generation = ++next_generation;
	table[sd] = v;
	return 0;
}

void vsock_unbind(struct vsock *v)
{
	if (v->sd < 0)
		return;
	vsock_watch(v, 0);
	vsock_ready(v, 0);
	table[v->sd] = NULL;
	v->sd = -1;
	v->want = 0;
}

struct vsock *vsock_get(int sd)
{
	return sd >= 0 && sd < VSOCK_MAX ? table[sd] : NULL;
}

void vsock_watch(struct vsock *v, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u64 = (uint64_t)v->generation << 32 | (uint32_t)v->sd };
	int op = !v->registered ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
	int err;

	if (v->registered == events)
		return;
	err = ms_epoll_ctl(app_ep, op, v->sd, &ev);
	if (err < 0)
		ms_log(LOG_ERROR, "epoll_ctl of socket %d: error %d", v->sd, -err);
	v->registered = events;
}

void vsock_forget(struct vsock *v)
{
	v->registered = 0;
}

static void vsock_ready_tell(bool any)
{
	uint64_t one = 1;

	if (any)
		ms_write(ready_fd, &one, sizeof(one));
	else
		ms_read(ready_fd, &one, sizeof(one));
}

void vsock_ready(struct vsock *v, unsigned events)
{
	v->ready_events = events;
	if (events && !v->ready) {
		if (!ready_list)
			vsock_ready_tell(true);
		v->ready_prev = NULL;
		v->ready_next = ready_list;
		if (ready_list)
			ready_list->ready_prev = v;
		ready_list = v;
		v->ready = true;
	} else if (!events && v->ready) {
		if (v->ready_prev)
			v->ready_prev->ready_next = v->ready_next;
		else
			ready_list = v->ready_next;
		if (v->ready_next)
			v->ready_next->ready_prev = v->ready_prev;
		v->ready = false;
		if (!ready_list)
			vsock_ready_tell(false);
	}
}

bool vsock_has_waiter(void)
{
	return waiters > 0;
}

void vsock_wakeup(void)
{
	uint64_t one = 1;

	if (wake_fd >= 0)
		ms_write(wake_fd, &one, sizeof(one));
}

/* The events stored for one msock_wait. */
struct vsock_found {
	struct msock_event *events;
	int n, max;
	bool engine; /* the engine has something to do */
};

static void vsock_store(struct vsock_found *f, int sd, unsigned events, void *user)
{
	if (!events)
		return;
	for (int i = 0; i < f->n; i++) {
		if (f->events[i].sd == sd) {
			f->events[i].events |= events;
			return;
		}
	}
	if (f->n < f->max)
		f->events[f->n++] = (struct msock_event){ .sd = sd, .events = events, .user = user };
}

static void vsock_store_wakeup(struct vsock_found *f)
{
	uint64_t count;

	/* Another thread may have been faster; a wake-up is for one. */
	if (f->n == f->max || ms_read(wake_fd, &count, sizeof(count)) < 0)
		return;
	f->events[f->n++] = (struct msock_event){ .sd = -1 };
}

static void vsock_take(struct vsock_found *f, const struct epoll_event *ev)
{
	int sd = (int)(uint32_t)ev->data.u64;
	struct vsock *v = table[sd];
	unsigned events = 0;

	if (sd == engine_fd()) {
		f->engine = true;
	} else if (sd == wake_fd) {
		vsock_store_wakeup(f);
	} else if (v && v->generation == (uint32_t)(ev->data.u64 >> 32)) {
		if (ev->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			events |= MSOCK_READ;
		if (ev->events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
			events |= MSOCK_WRITE;
		vsock_store(f, sd, events & v->want, v->user);
	}
}

static int vsock_left_ms(uint64_t deadline_ns, int timeout_ms)
{
	uint64_t now;

	if (timeout_ms <= 0)
		return timeout_ms;
	now = ms_clock_ns(CLOCK_MONOTONIC);
	return now >= deadline_ns ? 0 : (int)((deadline_ns - now + 999999) / 1000000);
}

/* Lock held: what the kernel has reported, what the engine does about it, what is there without the kernel. */
static void vsock_collect(struct vsock_found *f, const struct epoll_event *got, int n)
{
	f->engine = kick_take_pending() || engine_is_due();
	for (int i = 0; i < n; i++)
		vsock_take(f, &got[i]);
	if (f->engine)
		engine_run();
	for (struct vsock *v = ready_list; v && f->n < f->max; v = v->ready_next)
		vsock_store(f, v->sd, v->ready_events & v->want, v->user);
}

/* Without sleeping the lock need not be given back in between. */
static int vsock_look(struct vsock_found *f)
{
	struct epoll_event got[VSOCK_BATCH];
	int n;

	core_enter();
	n = ms_epoll_wait(app_ep, got, f->max < VSOCK_BATCH ? f->max : VSOCK_BATCH, 0);
	vsock_collect(f, got, n);
	core_leave();
	return n < 0 && n != -EINTR && !f->n ? n : f->n;
}

int vsock_wait(struct msock_event *events, int max, int timeout_ms)
{
	uint64_t deadline = timeout_ms > 0 ? ms_clock_ns(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000u : 0;
	struct epoll_event got[VSOCK_BATCH];
	struct vsock_found f = { .events = events, .max = max };
	int left = timeout_ms;

	if (!timeout_ms)
		return vsock_look(&f);
	for (;;) {
		struct kick_seen seen;
		int n, wait;

		core_enter();
		waiters++;
		wait = engine_sleep(left);
		core_leave();
		kick_look(&seen);
		n = ms_epoll_wait(app_ep, got, max < VSOCK_BATCH ? max : VSOCK_BATCH, wait);
		core_enter();
		waiters--;
		engine_slept();
		vsock_collect(&f, got, n);
		core_leave();
		if (f.n)
			return f.n;
		if (n == -EINTR && !kick_only(&seen))
			return -EINTR;
		if (n < 0 && n != -EINTR)
			return n;
		left = vsock_left_ms(deadline, timeout_ms);
		if (left == 0)
			return 0;
	}
}
