/* SPDX-License-Identifier: MIT */
/*
 * Frames of a link, of one that is in the clear (its messages are decoded) and
 * of a sealed one, which must say nothing to who does not know the secret.
 * First byte: bit 0 sealed, bit 1 we have called.
 */
#include "proto/link.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool sealed;

static void on_message(struct link *l, const Ms__Msg *msg, void *user)
{
	size_t n = ms__msg__get_packed_size(msg);
	uint8_t *again = malloc(n + 1);

	if (sealed || !again)
		abort();
	ms__msg__pack(msg, again);
	free(again);
}

static void on_up(struct link *l, void *user)
{
	if (sealed)
		abort();
}

static void on_down(struct link *l, const char *why, void *user)
{
	*(bool *)user = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct link_ops ops = { .on_up = on_up, .on_message = on_message, .on_down = on_down };
	static const uint8_t secret[SEAL_SECRET] = "nobody knows this one";
	static struct event_base *base;
	bool down = false;
	struct link *l;
	int pair[2];

	if (size < 1 || size > 65536 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
		return 0;
	if (!base)
		base = event_base_new();
	sealed = data[0] & 1;
	l = link_create(base, pair[0], sealed ? secret : NULL, data[0] & 2, &ops, &down);
	if (write(pair[1], data + 1, size - 1) < 0)
		abort();
	shutdown(pair[1], SHUT_WR);
	for (int i = 0; i < 100 && !down; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	if (!down)
		abort();
	link_destroy(l);
	event_base_loop(base, EVLOOP_NONBLOCK);
	close(pair[1]);
	return 0;
}
