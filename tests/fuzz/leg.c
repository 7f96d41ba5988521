/* SPDX-License-Identifier: MIT */
/*
 * Frames on a connection to a member's data port, and relink messages: what
 * is taken is the same after it was encoded again.  First byte: 0 whole
 * frame, 1 frames as a socket brings them, 2 a relink message, 3 what is said
 * of UDP sockets, 4 a datagram's head.
 */
#include "lib/leg.c"
#include "lib/relink.c"
#include "lib/udp.c"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void frame(const uint8_t *data, size_t size)
{
	uint8_t again[LEG_FRAME_MAX];
	struct leg_frame f;

	if (leg_decode(data, size, &f) && (leg_encode(again, &f) != size || memcmp(again, data, size)))
		abort();
}

static void stream(const uint8_t *data, size_t size)
{
	struct leg_reader in = { 0 };
	struct leg_frame f;
	int fds[2], got;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds))
		return;
	if (ms_write(fds[1], data, size) != (long)size)
		abort();
	ms_close(fds[1]);
	while ((got = leg_read(fds[0], &in, &f)) == 1)
		;
	if (got == 0)
		abort(); /* the end was there */
	ms_close(fds[0]);
}

/* Only what shows our cookie and is for our port is taken. */
static void datagram(const uint8_t *data, size_t size)
{
	struct udp u = { .port = 77 };
	uint8_t head[UDP_HEAD] = { 0 };
	struct sockaddr_in from;

	core.virtual_ip = 0x64400001;
	__builtin_memset(core.cookie, 'c', MS_TOKEN);
	memcpy(head, data, size < UDP_HEAD ? size : UDP_HEAD);
	if (udp_head(&u, head, (long)size, &from) && (size < UDP_HEAD || memcmp(head + UDP_HEAD - MS_TOKEN, core.cookie, MS_TOKEN)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stream_msg msg;

	if (size < 1 || size > 4096)
		return 0;
	if (data[0] == 0)
		frame(data + 1, size - 1);
	else if (data[0] == 1)
		stream(data + 1, size - 1);
	else if (data[0] == 3)
		udp_way_message(1, data + 1, size - 1);
	else if (data[0] == 4)
		datagram(data + 1, size - 1);
	else if (relink_decode(data + 1, size - 1, &msg) && (msg.type < MS_RL_PREPARE || msg.type > MS_RL_CLOSED))
		abort();
	return 0;
}
