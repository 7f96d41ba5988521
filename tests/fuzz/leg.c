/* SPDX-License-Identifier: MIT */
/*
 * Frames on a connection to a member's data port, and relink messages: what
 * is taken is the same after it was encoded again.  First byte: 0 whole
 * frame, 1 frames as a socket brings them, 2 a relink message, 3 what is said
 * of UDP sockets.
 */
#include "lib/leg.c"
#include "lib/relink.c"
#include "lib/udp_way.h"

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
	else if (relink_decode(data + 1, size - 1, &msg) && (msg.type < MS_RL_PREPARE || msg.type > MS_RL_BOUND_OK))
		abort();
	return 0;
}
