/* SPDX-License-Identifier: MIT */
#include "lib/leg_counts.h"

#include "lib/sys.h"
#include "lib/tcp_state.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

enum { COUNT_TRIES = 1000 };

/* Closed by a reset that the program has not been told. */
static bool leg_is_reset(int fd, unsigned state)
{
	struct pollfd p = { .fd = fd };

	return state == STATE_CLOSE && ms_poll(&p, 1, 0) == 1 && p.revents & POLLERR;
}

bool leg_count(int fd, struct leg_counts *n)
{
	const unsigned sent = 1u << STATE_FIN_WAIT1 | 1u << STATE_FIN_WAIT2 | 1u << STATE_TIME_WAIT |
			      1u << STATE_CLOSE | 1u << STATE_LAST_ACK | 1u << STATE_CLOSING;
	struct tcp_info before = { 0 }, after = { 0 };
	int queued = 0, unread = 0;

	for (int i = 0; i < COUNT_TRIES; i++) {
		socklen_t size = sizeof(before), again = sizeof(after);

		if (ms_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &before, &size) || ms_ioctl(fd, SIOCOUTQ, &queued) ||
		    ms_ioctl(fd, FIONREAD, &unread) || ms_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &after, &again))
			return false;
		if (before.tcpi_bytes_acked == after.tcpi_bytes_acked &&
		    before.tcpi_bytes_received == after.tcpi_bytes_received && before.tcpi_state == after.tcpi_state)
			break;
	}
	n->fin_sent = tcp_state_in(after.tcpi_state, sent) && !leg_is_reset(fd, after.tcpi_state);
	n->written = after.tcpi_bytes_acked + (uint64_t)queued - n->fin_sent;
	n->taken = after.tcpi_bytes_received - tcp_fin_received(after.tcpi_state) - (uint64_t)unread;
	n->unsent = (uint32_t)queued;
	n->unread = (uint32_t)unread;
	return true;
}
