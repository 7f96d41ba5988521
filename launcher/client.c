/* SPDX-License-Identifier: MIT */
#include "client.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "jobfiles.h"
#include "proto/helpers.h"
#include "proto/link.h"
#include "proto/net.h"
#include "proto/wire.h"

enum {
	HOST_MS = 45000,  /* the coordinator's limit for a host to join is 30 s */
	AGAIN_MS = 20000, /* for another coordinator after one was killed; it knows after 8 s which daemons are left */
	AGAIN_PAUSE_MS = 20,
};

struct client {
	int fd;
	bool lost; /* the other end has closed it */
	char job[128];
};

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int dial(const char *dir, const char *job)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", dir, job);
	return jobfiles_dial(path);
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static int say_hello(struct client *c)
{
	Ms__Hello hello = MS__HELLO__INIT;

	hello.role = "tool";
	hello.version = MS_WIRE_VERSION;
	return client_send(c, LINK_MSG(HELLO, hello, &hello));
}

/* Whoever would start another coordinator is still there; only looked at when nobody listens in a job's directory. */
static bool may_come_back(const char *dir, const char *job)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", dir, job);
	return jobfiles_lives(jobfiles_pid(path, "mpiexec"));
}

/* Look through the user's jobs for the one that is meant; directories that nobody serves are of jobs that have ended.
 */
static int look_through(struct client *c, const char *dir, const char *job, bool *wait)
{
	DIR *list = opendir(dir);
	struct dirent *e;
	int live = 0;

	*wait = false;
	while (list && (e = readdir(list))) {
		int fd;

		if (e->d_name[0] == '.' || (job && strcmp(job, e->d_name)))
			continue;
		fd = dial(dir, e->d_name);
		if (fd < 0) {
			*wait = *wait || (errno == ECONNREFUSED && may_come_back(dir, e->d_name));
			continue;
		}
		live++;
		if (c->fd >= 0)
			close(c->fd);
		c->fd = fd;
		snprintf(c->job, sizeof(c->job), "%.127s", e->d_name);
	}
	if (list)
		closedir(list);
	return live;
}

/* A job whose coordinator was just killed gets another. */
static int search(struct client *c, const char *dir, const char *job, char *why, size_t size)
{
	long end = now_ms() + AGAIN_MS;
	bool wait;
	int live;

	while ((live = look_through(c, dir, job, &wait)) == 0 && wait && now_ms() < end)
		pause_ms(AGAIN_PAUSE_MS);
	if (live == 1)
		return 0;
	if (live > 1)
		snprintf(why, size, "several jobs of yours are running: name one of those in %s", dir);
	else if (job)
		snprintf(why, size, "there is no job %s: it has ended, or MSOCK_RUNDIR is another one than mpiexec had",
			 job);
	else
		snprintf(why, size, "no job of yours is running (looked in %s)", dir);
	return -1;
}

bool client_again(struct client *c)
{
	long end = now_ms() + AGAIN_MS;
	char dir[2048];

	if (!c->lost)
		return false;
	helpers_rundir(dir, sizeof(dir));
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	while (may_come_back(dir, c->job) && now_ms() < end) {
		c->fd = dial(dir, c->job);
		c->lost = c->fd < 0 || say_hello(c);
		if (!c->lost)
			return true;
		if (c->fd >= 0) /* to the one that is just ending: its listening socket is not closed first */
			close(c->fd);
		c->fd = -1;
		pause_ms(AGAIN_PAUSE_MS);
	}
	return false;
}

Ms__Msg *client_ask(struct client *c, const Ms__Msg *msg, int timeout_ms)
{
	for (;;) {
		Ms__Msg *answer = client_send(c, msg) ? NULL : client_receive(c, timeout_ms);

		if (answer || !client_again(c))
			return answer;
	}
}

const char *client_word(const char *tool, int argc, char **argv)
{
	if (argc - optind > 1) {
		fprintf(stderr, "%s: one job at most: what is %s?\n", tool, argv[optind + 1]);
		exit(2);
	}
	return optind < argc ? argv[optind] : NULL;
}

uint64_t client_move_id(void)
{
	uint64_t id = 0;

	while (!id)
		if (getrandom(&id, sizeof(id), 0) != sizeof(id))
			id = (uint64_t)now_ms() << 22 ^ (uint64_t)getpid();
	return id;
}

struct client *client_open(const char *job, char *why, size_t size)
{
	struct client *c = calloc(1, sizeof(*c));
	char dir[2048];

	if (!c)
		return NULL;
	c->fd = -1;
	helpers_rundir(dir, sizeof(dir));
	if (search(c, dir, job, why, size)) {
		client_close(c);
		return NULL;
	}
	if (say_hello(c) && !client_again(c)) {
		snprintf(why, size, "job %s has ended", c->job);
		client_close(c);
		return NULL;
	}
	return c;
}

void client_close(struct client *c)
{
	if (c && c->fd >= 0)
		close(c->fd);
	free(c);
}

const char *client_job(const struct client *c)
{
	return c->job;
}

int client_send(struct client *c, const Ms__Msg *msg)
{
	size_t size = ms__msg__get_packed_size(msg);
	uint8_t *frame = malloc(size + 4);
	uint32_t head = htole32((uint32_t)size);
	ssize_t n;

	if (!frame || c->fd < 0)
		return -1;
	memcpy(frame, &head, sizeof(head));
	ms__msg__pack(msg, frame + sizeof(head));
	n = send(c->fd, frame, size + sizeof(head), MSG_NOSIGNAL);
	free(frame);
	c->lost = c->lost || n < 0;
	return n == (ssize_t)(size + sizeof(head)) ? 0 : -1;
}

static int read_all(struct client *c, void *dst, size_t size, long end_ms)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	size_t done = 0;

	while (done < size) {
		long left = end_ms - now_ms();
		ssize_t n;

		if (left < 0 || poll(&p, 1, (int)left) <= 0)
			return -1;
		n = read(c->fd, (char *)dst + done, size - done);
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
			c->lost = true;
			return -1;
		}
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

Ms__Msg *client_receive(struct client *c, int timeout_ms)
{
	long end = now_ms() + timeout_ms;
	Ms__Msg *msg = NULL;
	uint8_t *frame;
	uint32_t head;

	if (read_all(c, &head, sizeof(head), end) || le32toh(head) > LINK_FRAME_MAX)
		return NULL;
	head = le32toh(head);
	frame = malloc(head + 1);
	if (frame && !read_all(c, frame, head, end))
		msg = ms__msg__unpack(NULL, head, frame);
	free(frame);
	return msg;
}

static int ask_host(struct client *c, Ms__HostRequest *q, bool *unknown, char *why, size_t size)
{
	Ms__Msg *msg = client_ask(c, LINK_MSG(HOST_REQUEST, host_request, q), HOST_MS);
	int rc = -1;

	if (!msg || msg->body_case != MS__MSG__BODY_HOST_ANSWER) {
		snprintf(why, size, "job %s has ended", c->job);
	} else {
		rc = *msg->host_answer->error ? -1 : 0;
		*unknown = msg->host_answer->unknown;
		snprintf(why, size, "%s", msg->host_answer->error);
	}
	if (msg)
		ms__msg__free_unpacked(msg, NULL);
	return rc;
}

int client_host(struct client *c, const char *host, char *why, size_t size)
{
	Ms__HostRequest q = MS__HOST_REQUEST__INIT;
	bool unknown = false;
	int rc;

	q.host = (char *)host;
	rc = ask_host(c, &q, &unknown, why, size);
	if (!unknown)
		return rc;
	/* Here and not in the coordinator: to find an address may take long. */
	if (!net_resolve(host, &q.ip)) {
		snprintf(why, size, "host %s is not one of the job's hosts, and its name is unknown", host);
		return rc; /* known but lost: the move tells why it cannot be */
	}
	return ask_host(c, &q, &unknown, why, size);
}

int client_drop(struct client *c, const char *host, char *why, size_t size)
{
	Ms__HostRequest q = MS__HOST_REQUEST__INIT;
	bool unknown;

	q.host = (char *)host;
	q.drop = 1;
	return ask_host(c, &q, &unknown, why, size);
}
