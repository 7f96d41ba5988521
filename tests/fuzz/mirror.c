/* SPDX-License-Identifier: MIT */
/*
 * Frames to a mirror that holds two legs, from a stranger, and (first byte
 * odd) from a member that has proved itself; who has no key reaches nothing.
 */
#include <sys/random.h>

#include "msmirror/link.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool released;

static void on_released(void *arg)
{
	released = true;
}

static void two_legs(struct leg_table *t, int peers[2])
{
	for (int i = 0; i < 2; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
			abort();
		peers[i] = pair[1];
		if (write(pair[1], "bytes", 5) != 5 || leg_table_add(t, (uint64_t)i + 1, 0, pair[0], false, false, 100))
			abort();
	}
	leg_table_seal(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t attach[] = { 50, 0, 0, 0, 1, MS_MI_ATTACH, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'k' };
	static struct event_base *base;
	struct link_set set = { .member = 7, .m = 1, .key = "k", .committed = true, .released = on_released };
	bool proven;
	uint8_t first[MS_MIRROR_FRAME] = { 0 };
	struct leg_table legs;
	struct link *link;
	int pair[2], peers[2];
	size_t n = 0;

	if (size < 1 || size > 4096 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
		return 0;
	if (!base)
		base = event_base_new();
	proven = data[0] & 1;
	/* A stranger's key is one that the fuzzer cannot have from the corpus or by watching a comparison. */
	if (!proven && getrandom(set.key, sizeof(set.key), 0) != sizeof(set.key))
		abort();
	set.base = base;
	set.legs = &legs;
	LIST_INIT(&set.all);
	leg_table_init(&legs, 65536, link_set_wake, &set);
	two_legs(&legs, peers);
	for (size_t i = 0; i < legs.count; i++)
		leg_start(legs.leg[i], base);
	if (proven) { /* a whole ATTACH: no stream asked for, and the list's end */
		memcpy(first, attach, sizeof(attach));
		first[0] = 2 + 4 + 8 + MS_TOKEN + 2;
		n = 4u + first[0];
	}
	memcpy(first + n, data + 1, size - 1);
	link = calloc(1, sizeof(*link));
	link->set = &set;
	link->fd = pair[0];
	LIST_INSERT_HEAD(&set.all, link, entry);
	set.unproven++;
	link->readable = event_new(base, pair[0], EV_READ | EV_PERSIST, link_read, link);
	link->writable = event_new(base, pair[0], EV_WRITE | EV_PERSIST, link_write, link);
	link->deadline = evtimer_new(base, link_late, link);
	event_add(link->readable, NULL);
	if (write(pair[1], first, n + size - 1) < 0)
		abort();
	released = false;
	for (int i = 0; i < 8 && !released; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	if (released && !proven)
		abort();
	link_set_close(&set);
	leg_table_free(&legs);
	close(pair[1]);
	close(peers[0]);
	close(peers[1]);
	return 0;
}
