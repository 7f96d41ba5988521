/* SPDX-License-Identifier: MIT */
#include "cutter.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CUTTER_PIECE = 65536, CUTTER_LISTENER = 3, CUTTER_ORDERS = 4, CUTTER_BYTES = 16 };

struct cutter {
	struct sockaddr_in to;
	unsigned cuts; /* that are left */
	uint64_t random_state;
};

static unsigned roll(struct cutter *c, unsigned n)
{
	c->random_state ^= c->random_state << 13;
	c->random_state ^= c->random_state >> 7;
	c->random_state ^= c->random_state << 17;
	return (unsigned)(c->random_state % n);
}

static bool write_all(int fd, const char *bytes, ssize_t n)
{
	while (n > 0) {
		ssize_t done = send(fd, bytes, (size_t)n, MSG_NOSIGNAL);

		if (done <= 0)
			return false;
		bytes += done;
		n -= done;
	}
	return true;
}

/* Pass one piece on; false: the link is over, or cut here, one of so many times, and the piece is lost. */
static bool cutter_pass(struct cutter *c, int from, int to, unsigned one_of)
{
	static char piece[CUTTER_PIECE];
	ssize_t n = recv(from, piece, sizeof(piece), 0);

	if (n <= 0)
		return false;
	if (c->cuts && roll(c, one_of) == 0) {
		c->cuts--;
		return false;
	}
	return write_all(to, piece, n);
}

static void cutter_link(struct cutter *c, int member, int mirror)
{
	struct pollfd p[2] = { { .fd = member, .events = POLLIN }, { .fd = mirror, .events = POLLIN } };

	while (poll(p, 2, -1) > 0) {
		if (p[0].revents && !cutter_pass(c, member, mirror, CUTTER_ORDERS))
			return;
		if (p[1].revents && !cutter_pass(c, mirror, member, CUTTER_BYTES))
			return;
	}
}

__attribute__((noreturn)) static void cutter_run(struct cutter *c)
{
	for (;;) {
		int member = accept(CUTTER_LISTENER, NULL, NULL);
		int mirror = socket(AF_INET, SOCK_STREAM, 0);

		if (member < 0 || connect(mirror, (struct sockaddr *)&c->to, sizeof(c->to)))
			_exit(0);
		cutter_link(c, member, mirror);
		close(member);
		close(mirror);
	}
}

uint16_t cutter_start(uint32_t ip, uint16_t to, unsigned cuts, uint64_t seed, pid_t *pid)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(ip) };
	struct cutter c = { .to = at, .cuts = cuts, .random_state = seed * 0x9e3779b97f4a7c15ull + 1 };
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(at);

	c.to.sin_port = htons(to);
	if (sock < 0 || bind(sock, (struct sockaddr *)&at, sizeof(at)) || listen(sock, 16) ||
	    getsockname(sock, (struct sockaddr *)&at, &size))
		return 0;
	*pid = fork();
	if (!*pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(sock, CUTTER_LISTENER);
		close_range(CUTTER_LISTENER + 1, ~0u, 0);
		cutter_run(&c);
	}
	close(sock);
	return *pid < 0 ? 0 : ntohs(at.sin_port);
}
